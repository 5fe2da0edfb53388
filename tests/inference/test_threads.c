/* Networks at their serving sizes: one thread and two give the same bits, so class
 * and key slice cannot depend on the host. Each convolution of a size that serves
 * is its own primitive; every stage is compared, so a difference names it. */
#include "tests/inference/world.h"

#include <math.h>
#include <string.h>

#include "inference/backend.h"
#include "inference/net.h"

typedef struct sums {
    char name[160][HP_GRAPH_NAME];
    uint64_t sum[160];
    int count;
} sums;

/* FNV-1a over the bits of the whole stage. */
static void add(const hp_graph *g, const hp_stage_name *s, int item, const float *data,
                void *payload)
{
    sums *w = payload;
    uint64_t h = 1469598103934665603u;
    size_t n = hp_value_count(&g->value[s->value]);

    (void)item;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;

        memcpy(&bits, data + i, sizeof bits);
        h = (h ^ bits) * 1099511628211u;
    }
    assert_true(w->count < 160);
    snprintf(w->name[w->count], HP_GRAPH_NAME, "%s", s->name);
    w->sum[w->count++] = h;
}

static void run(const hp_net_params *p, hp_weights *weights, const int size[3],
                int threads, sums *ret)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_backend) *b = NULL;
    hp_auto(hp_graph) *g = NULL;
    hp_exec *e = NULL;
    float *in[2] = {NULL, NULL};

    assert_ok(hp_net_build(p, weights, size, &g, &err), &err);
    assert_ok(hp_backend_open("cpu", threads, &b, &err), &err);
    assert_ok(b->ops->compile(b, g, &e, &err), &err);
    for (int i = 0; i < g->value_count; i++) {
        const hp_value *v = &g->value[i];

        if (v->input < 0)
            continue;
        in[v->input] = malloc(hp_value_count(v) * sizeof(float));
        assert_non_null(in[v->input]);
        for (size_t k = 0; k < hp_value_count(v); k++)
            in[v->input][k] =
                v->input == 1 ? (float)(k % 3 == 0) : (float)(k * 7919 % 4001) / 1000 - 2;
    }
    *ret = (sums){.count = 0};
    assert_ok(b->ops->run(e, &(hp_ports){.in = {in[0], in[1]}}, add, ret, &err), &err);
    b->ops->release(e);
    free(in[0]);
    free(in[1]);
}

static void same(const char *arch, const char *params, const int size[3])
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_weights) *w = NULL;
    hp_net_params p;
    json_t *j = NULL;
    sums *one = malloc(sizeof *one), *two = malloc(sizeof *two);

    assert_ok(hp_json_parse(params, strlen(params), &j, &err), &err);
    assert_ok(hp_net_params_read(arch, j, NULL, &p, &err), &err);
    assert_ok(hp_weights_random(3, &w, &err), &err);
    run(&p, w, size, 1, one);
    run(&p, w, size, 2, two);
    assert_int_equal(one->count, two->count);
    for (int i = 0; i < one->count; i++)
        if (one->sum[i] != two->sum[i]) {
            print_error("%s: stage %s depends on the thread count\n", arch, one->name[i]);
            fail();
        }
    json_decref(j);
    free(one);
    free(two);
}

static void test_threads__liver(void **state)
{
    (void)state;
    same("unet3d",
         "{\"widths\":[8,16,32,64,96],\"strides\":[[1,1,1],[1,2,2],[2,2,2],[2,2,2],[2,2,"
         "2]]}",
         (int[3]){64, 128, 160});
}

static void test_threads__detector(void **state)
{
    (void)state;
    same("hourglass3d",
         "{\"stacks\":1,\"dims\":[16,24,32,48,64,64],\"modules\":[1,1,1,1,1,2],\"stem\":"
         "16,"
         "\"stem_kernel\":[3,7,7],\"stem_stride\":[1,2,2],\"res_stride\":[2,2,2],"
         "\"hg_strides\":[[1,2,2],[2,2,2],[2,2,2],[2,2,2],[2,2,2]]}",
         (int[3]){48, 176, 256});
}

static void test_threads__key_slice(void **state)
{
    (void)state;
    same("unet25d", "{\"slices\":9,\"widths\":[16,32,64,128,128]}",
         (int[3]){1, 288, 352});
    same("unet25d", "{\"slices\":9,\"widths\":[16,32,64,128,128]}",
         (int[3]){1, 240, 304});
}

static void test_threads__texture(void **state)
{
    (void)state;
    same("sadt",
         "{\"depth\":18,\"width\":0.5,\"output_stride\":8,\"D\":128,\"K\":32,\"classes\":"
         "2}",
         (int[3]){1, 256, 256});
    same("sadt",
         "{\"depth\":18,\"width\":0.25,\"output_stride\":8,\"D\":64,\"K\":16,\"classes\":"
         "4}",
         (int[3]){1, 256, 256});
    same("sadt",
         "{\"depth\":18,\"width\":0.25,\"output_stride\":8,\"D\":64,\"K\":16,\"classes\":"
         "4}",
         (int[3]){1, 128, 128});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads__liver),
        cmocka_unit_test(test_threads__detector),
        cmocka_unit_test(test_threads__key_slice),
        cmocka_unit_test(test_threads__texture),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
