/* Every convolution of both bundles finds an engine that cuDNN brings compiled, on
 * each generation of GPUs, in fp16 and bf16. There is no GPU here: cuDNN is told of
 * one. The layers are those of the graphs that the network builders make, so what
 * is asked for is what will run.
 *
 * With --list: a table of layers and engines instead, for reading. */
#include "inference/cuda/conv.h"
#include "inference/model.h"
#include "tests/inference/described_gpus.h"
#include "tests/inference/world.h"

#include <dlfcn.h>
#include <string.h>

enum { LAYERS = 1024, CANDIDATES = 8 };

static hp_layer layers[LAYERS]; /* fp16; all different */
static int layer_count;
static int convolutions;

static void add_layer(const hp_layer *l)
{
    char key[HP_LAYER_KEY], other[HP_LAYER_KEY];

    convolutions++;
    hp_layer_key(l, key);
    for (int i = 0; i < layer_count; i++)
        if (strcmp(hp_layer_key(&layers[i], other), key) == 0)
            return;
    assert_true(layer_count < LAYERS);
    layers[layer_count++] = *l;
}

static void add_network(const hp_net_params *p, int batch, int z, int y, int x)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_weights) *w = NULL;
    hp_auto(hp_graph) *g = NULL;

    assert_ok(hp_weights_blank(&w, &err), &err);
    assert_ok(hp_net_build(p, w, (int[3]){z, y, x}, &g, &err), &err);
    g->batch = batch;
    for (int i = 0; i < g->op_count; i++)
        if (g->op[i].kind == HP_OP_CONV) {
            hp_layer l = hp_layer_of_op(g, &g->op[i], HP_F16);

            add_layer(&l);
        }
}

static void add_bundle(const char *name)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_model) *m = NULL;
    char dir[600];

    snprintf(dir, sizeof dir, "%s/models/%s", world_root(), name);
    assert_ok(hp_model_load(dir, true, &m, &err), &err);
    for (int s = 0; s < HP_STAGES; s++) {
        const hp_model_stage *st = &m->stage[s];
        const hp_net_params *p = &st->params;

        switch (s) {
        case HP_STAGE_LIVER:
            add_network(p, 1, p->grid[0], p->grid[1], p->grid[2]);
            break;
        case HP_STAGE_DETECTOR: /* as many phases as there are, or as there is room for */
            for (int batch = 1; batch <= HP_PHASES; batch++)
                add_network(p, batch, p->grid[0], p->grid[1], p->grid[2]);
            break;
        case HP_STAGE_KEYSLICE: /* its size is the liver's: an odd one, an even one */
            add_network(p, 1, 1, 251, 313);
            add_network(p, 1, 1, 256, 320);
            break;
        case HP_STAGE_KSF: /* all candidates at once, halves of that where it is full */
            for (int batch = HP_MAX_CANDIDATES; batch > 1; batch /= 2)
                add_network(p, batch, 1, st->crop_px, st->crop_px);
            /* fall through */
        default: /* the crop, and one that a large lesion asked for */
            add_network(p, 1, 1, st->crop_px, st->crop_px);
            add_network(p, 1, 1, st->crop_px + 96, st->crop_px + 96);
        }
    }
}

static int setup(void **state)
{
    (void)state;
    add_bundle("small");
    add_bundle("paper");
    return 0;
}

static hp_cudnn *open_gpu(const described_gpu *gpu)
{
    hp_error err = HP_ERROR_INIT;
    hp_cudnn *c = NULL;
    char json[2000];

    described_gpu_json(gpu, json, sizeof json);
    assert_ok(hp_cudnn_open_described(json, &c, &err), &err);
    return c;
}

/* --- --list ------------------------------------------------------------ */

static void list(void)
{
    char key[HP_LAYER_KEY];

    for (int d = 0; d < DESCRIBED_GPU_COUNT; d++) {
        hp_auto(hp_cudnn) *c = open_gpu(&DESCRIBED_GPUS[d]);

        for (int i = 0; i < 2 * layer_count; i++) {
            hp_layer l = layers[i / 2];
            hp_auto(hp_cudnn_conv) *v = NULL;
            hp_error err = HP_ERROR_INIT;
            int n = 0;

            l.type = i % 2 == 0 ? HP_F16 : HP_BF16;
            printf("%-8s %-62s", DESCRIBED_GPUS[d].name, hp_layer_key(&l, key));
            if (hp_cudnn_conv_new(c, &l, &v, &err) != HP_OK ||
                hp_cudnn_conv_ask(v, CANDIDATES, &n, &err) != HP_OK)
                printf(" NONE: %s", err.msg);
            for (int k = 0; k < n; k++)
                printf(" %d", (int)hp_cudnn_conv_engine(v, k)->index);
            printf("\n");
        }
    }
}

/* --- tests ------------------------------------------------------------- */

static void assert_all_have_engines(hp_dtype type)
{
    int missing = 0;

    for (int d = 0; d < DESCRIBED_GPU_COUNT; d++) {
        hp_auto(hp_cudnn) *c = open_gpu(&DESCRIBED_GPUS[d]);

        for (int i = 0; i < layer_count; i++) {
            hp_layer l = layers[i];
            hp_auto(hp_cudnn_conv) *v = NULL;
            hp_error err = HP_ERROR_INIT;
            int n = 0;

            l.type = type;
            if (hp_cudnn_conv_new(c, &l, &v, &err) == HP_OK &&
                hp_cudnn_conv_ask(v, 1, &n, &err) == HP_OK && n == 1)
                continue;
            print_error("%s: %s\n", DESCRIBED_GPUS[d].name, err.msg);
            missing++;
        }
    }
    assert_int_equal(missing, 0);
}

static void test_engines__for_every_layer_in_fp16(void **state)
{
    (void)state;
    print_message("%d layers of %d convolutions, %d GPUs, cuDNN %zu\n", layer_count,
                  convolutions, (int)DESCRIBED_GPU_COUNT, hp_cudnn_version());
    assert_all_have_engines(HP_F16);
}

static void test_engines__for_every_layer_in_bf16(void **state)
{
    (void)state;
    assert_all_have_engines(HP_BF16);
}

/* The full-width detector is in there: the test would pass on an empty list. */
static void test_engines__layers_are_the_networks(void **state)
{
    bool residual = false, dilated = false, stem = false, wide = false;

    (void)state;
    assert_true(convolutions > 500);
    assert_true(layer_count > 100);
    for (int i = 0; i < layer_count; i++) {
        const hp_layer *l = &layers[i];

        residual |= l->nd == 3 && l->add && l->bias && l->relu;
        dilated |= l->nd == 2 && l->dilation[1] == 4;
        stem |= l->k[2] == 7 && l->cin == HP_LAYER_PAD;
        wide |= l->cin == 512 && l->cout == 512 && l->nd == 3;
        assert_int_equal(l->cin % HP_LAYER_PAD, 0);
        assert_int_equal(l->cout % HP_LAYER_PAD, 0);
    }
    assert_true(residual && dilated && stem && wide);
}

/* A plan that a cache remembers is the plan that was found: engine and knobs are
 * enough to build it again. */
static void test_engines__can_be_taken_again(void **state)
{
    (void)state;
    for (int d = 0; d < DESCRIBED_GPU_COUNT; d++) {
        hp_auto(hp_cudnn) *c = open_gpu(&DESCRIBED_GPUS[d]);

        for (int i = 0; i < layer_count; i += 17) {
            hp_auto(hp_cudnn_conv) *found = NULL;
            hp_auto(hp_cudnn_conv) *again = NULL;
            hp_error err = HP_ERROR_INIT;
            int n = 0;

            assert_ok(hp_cudnn_conv_new(c, &layers[i], &found, &err), &err);
            assert_ok(hp_cudnn_conv_new(c, &layers[i], &again, &err), &err);
            assert_ok(hp_cudnn_conv_ask(found, CANDIDATES, &n, &err), &err);
            for (int k = 0; k < n; k++) {
                const hp_engine *e = hp_cudnn_conv_engine(found, k);

                assert_ok(hp_cudnn_conv_take(again, e, &err), &err);
                assert_int_equal(hp_cudnn_conv_engine(again, 0)->index, e->index);
                assert_int_equal(hp_cudnn_conv_workspace(again, 0),
                                 hp_cudnn_conv_workspace(found, k));
            }
        }
    }
}

static void test_engines__that_do_not_exist_are_refused(void **state)
{
    hp_auto(hp_cudnn) *c = open_gpu(&DESCRIBED_GPUS[3]);
    hp_auto(hp_cudnn_conv) *v = NULL;
    hp_error err = HP_ERROR_INIT;
    hp_engine none = {.index = 100000};
    char key[HP_LAYER_KEY];

    (void)state;
    assert_ok(hp_cudnn_conv_new(c, &layers[0], &v, &err), &err);
    assert_int_not_equal(hp_cudnn_conv_take(v, &none, &err), HP_OK);
    assert_non_null(strstr(err.msg, hp_layer_key(&layers[0], key)));
    /* and without a GPU nothing runs */
    assert_int_equal(hp_cudnn_conv_run(v, 0, NULL, NULL, NULL, NULL, NULL, NULL, &err),
                     HP_E_STATE);
}

/* Turing multiplies no bf16: the layer is named. A GPU that cuDNN has left behind is
 * refused when it is opened. */
static void test_engines__that_nobody_has_name_the_layer(void **state)
{
    static const described_gpu TURING = {"SM 7.5", 750, 40, 64, 1024, 6, 256};
    static const described_gpu KEPLER = {"SM 3.5", 350, 15, 48, 2048, 1, 384};
    hp_auto(hp_cudnn) *c = open_gpu(&TURING);
    hp_cudnn *none = NULL;
    hp_auto(hp_cudnn_conv) *v = NULL;
    hp_error err = HP_ERROR_INIT;
    hp_layer l = layers[0];
    char key[HP_LAYER_KEY], json[2000];
    int n = 0;

    (void)state;
    l.type = HP_BF16;
    assert_ok(hp_cudnn_conv_new(c, &l, &v, &err), &err);
    assert_int_equal(hp_cudnn_conv_ask(v, 1, &n, &err), HP_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, hp_layer_key(&l, key)));
    assert_non_null(strstr(err.msg, ": no precompiled engine"));
    described_gpu_json(&KEPLER, json, sizeof json);
    assert_int_equal(hp_cudnn_open_described(json, &none, &err), HP_E_UNSUPPORTED);
    assert_null(none);
}

static void test_engines__of_a_cudnn_that_computes_wrong_are_refused(void **state)
{
    hp_error err = HP_ERROR_INIT;

    (void)state;
    assert_int_equal(hp_cudnn_check_version(91002, &err), HP_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "cuDNN 9.10.2"));
    assert_int_equal(hp_cudnn_check_version(8907, &err), HP_E_UNSUPPORTED);
    assert_int_equal(hp_cudnn_check_version(91500, NULL), HP_OK);
}

static void test_engines__of_a_device_without_sense_are_refused(void **state)
{
    hp_cudnn *c = NULL;
    hp_error err = HP_ERROR_INIT;

    (void)state;
    assert_int_not_equal(hp_cudnn_open_described("{}", &c, &err), HP_OK);
    assert_null(c);
}

/* Its name is the driver's, so whoever asks for that finds it loaded. */
static void stand_in_for_the_driver(void)
{
    const char *path = getenv("HEPAR_TEST_DRIVER");

    if (path != NULL && dlopen("libcuda.so.1", RTLD_LAZY) == NULL &&
        dlopen(path, RTLD_NOW | RTLD_GLOBAL) == NULL)
        printf("no stand-in for the driver: %s\n", dlerror());
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engines__layers_are_the_networks),
        cmocka_unit_test(test_engines__for_every_layer_in_fp16),
        cmocka_unit_test(test_engines__for_every_layer_in_bf16),
        cmocka_unit_test(test_engines__can_be_taken_again),
        cmocka_unit_test(test_engines__that_do_not_exist_are_refused),
        cmocka_unit_test(test_engines__that_nobody_has_name_the_layer),
        cmocka_unit_test(test_engines__of_a_cudnn_that_computes_wrong_are_refused),
        cmocka_unit_test(test_engines__of_a_device_without_sense_are_refused),
    };
    hp_cudnn *c = NULL;
    hp_error err = HP_ERROR_INIT;
    char json[2000];

    stand_in_for_the_driver();
    /* cuDNN may lack its own parts here, or be too old; that is no fault of the
     * layers. A description that it does not understand is one of this test. */
    described_gpu_json(&DESCRIBED_GPUS[0], json, sizeof json);
    if (hp_cudnn_open_described(json, &c, &err) != HP_OK) {
        printf("%s: %s\n", err.code == HP_E_UNSUPPORTED ? "skipped" : "failed", err.msg);
        return err.code == HP_E_UNSUPPORTED ? 77 : 1;
    }
    hp_cudnn_close(c);
    if (argc > 1 && strcmp(argv[1], "--list") == 0) {
        setup(NULL);
        list();
        return 0;
    }
    return cmocka_run_group_tests(tests, setup, NULL);
}
