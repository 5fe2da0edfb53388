/* Every named stage of every architecture against PyTorch (tests/golden, written
 * by training/golden.py): max|a-b| <= 1e-4 max|b| + 1e-5 for each tensor, or what
 * halves allow where a GPU is asked for (device.h). */
#include "tests/inference/device.h"

#include <math.h>
#include <string.h>

#include "inference/backend.h"
#include "inference/net.h"

/* One network of the golden folder and what is compared with it. */
typedef struct golden {
    hp_safetensors *file;
    hp_weights *weights;
    hp_net_params params;
    hp_graph *graph;
    int item;         /* which sample of the batch */
    double tolerance; /* of a tensor's largest value */
    int seen, bad;
    float *trace; /* all stages of all items, one after another */
    size_t trace_count;
} golden;

/* What PyTorch has at [item][c][cell], or [item][row][c] for tables. */
static double expected(const hp_tensor *t, const hp_stage_name *s, int item, int c,
                       size_t cell, size_t cells)
{
    const float *data = t->data;
    size_t per = hp_tensor_count(t) / (size_t)t->dim[0];

    if (s->rows)
        return data[(size_t)item * per + cell * (size_t)s->c_count + (size_t)c];
    return data[(size_t)item * per + (size_t)c * cells + cell];
}

static void remember(golden *w, const float *data, size_t n)
{
    w->trace = realloc(w->trace, (w->trace_count + n) * sizeof *w->trace);
    assert_non_null(w->trace);
    memcpy(w->trace + w->trace_count, data, n * sizeof *data);
    w->trace_count += n;
}

static void compare(const hp_graph *g, const hp_stage_name *s, int one, const float *data,
                    void *payload)
{
    golden *w = payload; /* the file's item; each runs alone here */
    const hp_value *v = &g->value[s->value];
    size_t cells = hp_value_count(v) / (size_t)v->dim[3];
    double worst = 0, largest = 0;
    const hp_tensor *t;
    char key[64];

    (void)one;
    remember(w, data, hp_value_count(v));
    snprintf(key, sizeof key, "%s.%s", s->output ? "output" : "stage", s->name);
    t = hp_safetensors_find(w->file, key);
    if (t == NULL ||
        hp_tensor_count(t) / (size_t)t->dim[0] != cells * (size_t)s->c_count) {
        print_error("%s is not in the golden file, or has another size\n", key);
        w->bad++;
        return;
    }
    for (int c = 0; c < s->c_count; c++)
        for (size_t i = 0; i < cells; i++) {
            double b = expected(t, s, w->item, c, i, cells);
            double a = data[i * (size_t)v->dim[3] + (size_t)(s->c_first + c)];

            worst = fmax(worst, fabs(a - b));
            largest = fmax(largest, fabs(b));
        }
    w->seen++;
    if (!(worst <= w->tolerance * largest + 1e-5)) {
        print_error("%s differs by %g (largest value %g)\n", key, worst, largest);
        w->bad++;
    }
}

/* Channels first (C, cells) to channels last, into every `stride`-th float. */
static void to_channels_last(const float *from, int c, size_t cells, float *to,
                             int stride)
{
    for (int k = 0; k < c; k++)
        for (size_t i = 0; i < cells; i++)
            to[i * (size_t)stride + (size_t)k] = from[(size_t)k * cells + i];
}

static void open_golden(const char *name, golden *w)
{
    hp_error err = HP_ERROR_INIT;
    char path[512];
    json_t *params = NULL;
    const char *text;

    *w = (golden){0};
    snprintf(path, sizeof path, "%s/tests/golden/%s.safetensors", world_root(), name);
    assert_ok(hp_safetensors_load(path, 64 << 20, &w->file, &err), &err);
    text = hp_safetensors_metadata(w->file, "params");
    assert_non_null(text);
    assert_ok(hp_json_parse(text, strlen(text), &params, &err), &err);
    assert_ok(hp_net_params_read(hp_safetensors_metadata(w->file, "arch"), params, NULL,
                                 &w->params, &err),
              &err);
    assert_ok(hp_weights_from(w->file, "param.", &w->weights, &err), &err);
    json_decref(params);
}

static void close_golden(golden *w)
{
    free(w->trace);
    hp_graph_free(w->graph);
    hp_weights_free(w->weights);
    hp_safetensors_free(w->file);
}

/* The image of sample `item`, with the mask in pixels as a last channel if any. */
static float *image_of(const golden *w, int item, int size[3])
{
    const hp_tensor *x = hp_safetensors_find(w->file, "input");
    const hp_tensor *px = hp_safetensors_find(w->file, "pixels");
    int c = x->dim[1], all = c + (px != NULL);
    size_t cells = 1;
    float *image;

    size[0] = 1;
    for (int a = 2; a < x->rank; a++) {
        size[a - x->rank + 3] = x->dim[a];
        cells *= (size_t)x->dim[a];
    }
    image = malloc(cells * (size_t)all * sizeof *image);
    assert_non_null(image);
    to_channels_last((const float *)x->data + (size_t)item * (size_t)c * cells, c, cells,
                     image, all);
    if (px != NULL)
        to_channels_last((const float *)px->data + (size_t)item * cells, 1, cells,
                         image + c, all);
    return image;
}

/* Runs all samples; w stays open, with its trace. */
static void run_golden_in(const char *name, int threads, const char *precision,
                          double tolerance, golden *w)
{
    hp_backend_options opt = HP_BACKEND_OPTIONS_INIT;
    hp_error err = HP_ERROR_INIT;
    hp_backend *b = NULL;
    hp_exec *e = NULL;
    const hp_tensor *mask;
    int size[3], batch;

    open_golden(name, w);
    w->tolerance = tolerance;
    opt.device = device_name();
    opt.threads = threads;
    opt.precision = precision;
    batch = hp_safetensors_find(w->file, "input")->dim[0];
    mask = hp_safetensors_find(w->file, "mask");
    assert_ok(hp_backend_open_with(&opt, &b, &err), &err);
    for (w->item = 0; w->item < batch; w->item++) {
        float *image = image_of(w, w->item, size);
        hp_ports io = {.in = {image}};

        if (w->graph == NULL) {
            assert_ok(hp_net_build(&w->params, w->weights, size, &w->graph, &err), &err);
            assert_ok(b->ops->compile(b, w->graph, &e, &err), &err);
        }
        if (mask != NULL)
            io.in[1] = (const float *)mask->data +
                       (size_t)w->item * (hp_tensor_count(mask) / (size_t)batch);
        assert_ok(b->ops->run(e, &io, compare, w, &err), &err);
        free(image);
    }
    assert_int_equal(w->bad, 0);
    assert_int_equal(w->seen, w->graph->stage_count * batch);
    b->ops->release(e);
    hp_backend_close(b);
}

static void run_golden(const char *name, int threads, golden *w)
{
    run_golden_in(name, threads, device_precision(), device_tolerance(), w);
}

#define AGREES(name)                                                                     \
    static void test_golden__##name##_agrees_with_pytorch(void **state)                  \
    {                                                                                    \
        golden w;                                                                        \
                                                                                         \
        (void)state;                                                                     \
        run_golden(#name, 2, &w);                                                        \
        close_golden(&w);                                                                \
    }
AGREES(unet3d)
AGREES(unet3d_8)
AGREES(unet25d)
AGREES(unet25d_8)
AGREES(hourglass3d)
AGREES(hourglass3d_a)
AGREES(sadt)
AGREES(sadt_50)
AGREES(sadt_50d)

static const char *const NAMES[] = {"unet3d", "unet25d", "hourglass3d", "hourglass3d_a",
                                    "sadt",   "sadt_50", "sadt_50d"};
enum { NAME_COUNT = sizeof NAMES / sizeof NAMES[0] };

/* bf16 keeps 8 bits of a number, some twenty layers follow one another, and with random
 * weights the logits are small differences. */
static void test_golden__bf16_stays_near_pytorch(void **state)
{
    hp_backend_options opt = HP_BACKEND_OPTIONS_INIT;
    hp_auto(hp_backend) *b = NULL;
    hp_error err = HP_ERROR_INIT;

    (void)state;
    opt.device = "cpu";
    opt.precision = "bf16";
    if (hp_backend_open_with(&opt, &b, &err) != HP_OK) {
        assert_non_null(strstr(err.msg, "no bf16"));
        print_message("%s\n", err.msg);
        skip();
    }
    assert_non_null(strstr(b->ops->describe(b), "bf16"));
    for (int i = 0; i < NAME_COUNT; i++) {
        golden one, two;

        run_golden_in(NAMES[i], 1, "bf16", 8e-2, &one);
        run_golden_in(NAMES[i], 2, "bf16", 8e-2, &two);
        assert_int_equal(one.trace_count, two.trace_count);
        assert_memory_equal(one.trace, two.trace, one.trace_count * sizeof(float));
        close_golden(&one);
        close_golden(&two);
    }
}

enum { IMAGE_H = 9, IMAGE_W = 13, IMAGE_C = 9, MAPS = 16 };

/* A key slice network's first layer alone, its weights and image no bf16 numbers. */
static void first_layer(const char *precision, float *out)
{
    hp_backend_options opt = HP_BACKEND_OPTIONS_INIT;
    hp_conv c = {2, MAPS, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, true, NULL, NULL};
    static float image[IMAGE_H * IMAGE_W * IMAGE_C], weight[MAPS * IMAGE_C * 9];
    hp_auto(hp_backend) *b = NULL;
    hp_auto(hp_graph) *g = NULL;
    hp_exec *e = NULL;
    hp_error err = HP_ERROR_INIT;

    for (size_t i = 0; i < sizeof image / sizeof *image; i++)
        image[i] = (float)(i * 7919 % 4001) / 1000 - 2;
    for (size_t i = 0; i < sizeof weight / sizeof *weight; i++)
        weight[i] = (float)(i * 7907 % 3001) / 1000 - 1;
    opt.device = "cpu";
    opt.precision = precision;
    c.weight = weight;
    assert_ok(hp_graph_new(&g, &err), &err);
    hp_graph_output(
        g,
        hp_graph_conv(g, hp_graph_input(g, (int[4]){1, IMAGE_H, IMAGE_W, IMAGE_C}), &c,
                      -1),
        "maps");
    assert_ok(hp_graph_plan(g, &err), &err);
    assert_ok(hp_backend_open_with(&opt, &b, &err), &err);
    assert_ok(b->ops->compile(b, g, &e, &err), &err);
    assert_ok(b->ops->run(e, &(hp_ports){.in = {image}, .out = {out}}, NULL, NULL, &err),
              &err);
    b->ops->release(e);
}

static void test_golden__bf16_does_not_round_the_image(void **state)
{
    static float wide[MAPS * IMAGE_H * IMAGE_W], other[MAPS * IMAGE_H * IMAGE_W];
    hp_backend_options opt = HP_BACKEND_OPTIONS_INIT;
    hp_auto(hp_backend) *b = NULL;

    (void)state;
    opt.device = "cpu";
    opt.precision = "bf16";
    if (hp_backend_open_with(&opt, &b, NULL) != HP_OK)
        skip();
    first_layer("fp32", wide);
    first_layer("bf16", other);
    assert_true(wide[0] > 0);
    assert_memory_equal(wide, other, sizeof wide);
}

static void test_golden__threads_do_not_change_a_bit_of_any_stage(void **state)
{
    (void)state;
    for (int i = 0; i < NAME_COUNT; i++) {
        golden one;

        run_golden(NAMES[i], 1, &one);
        for (int threads = 2; threads <= 3; threads++) {
            golden more;

            run_golden(NAMES[i], threads, &more);
            assert_int_equal(one.trace_count, more.trace_count);
            assert_memory_equal(one.trace, more.trace, one.trace_count * sizeof(float));
            close_golden(&more);
        }
        close_golden(&one);
    }
}

static void test_golden__bad_numbers_name_their_stage(void **state)
{
    hp_error err = HP_ERROR_INIT;
    hp_backend *b = NULL;
    hp_exec *e = NULL;
    golden w;
    int size[3];
    float *image;

    (void)state;
    open_golden("hourglass3d", &w);
    image = image_of(&w, 0, size);
    for (int i = 0; i < 2000; i++)
        image[i] = i % 2 ? 3e38f : -3e38f; /* overflows in the first convolution */
    assert_ok(hp_net_build(&w.params, w.weights, size, &w.graph, &err), &err);
    assert_ok(hp_backend_open("cpu", 2, &b, &err), &err);
    assert_ok(b->ops->compile(b, w.graph, &e, &err), &err);
    assert_int_equal(b->ops->run(e, &(hp_ports){.in = {image}}, NULL, NULL, &err),
                     HP_E_NUMERIC);
    assert_non_null(strstr(err.msg, "stage stem."));
    b->ops->release(e);
    hp_backend_close(b);
    free(image);
    close_golden(&w);
}

static void test_golden__memory_is_shared_by_lifetime(void **state)
{
    hp_error err = HP_ERROR_INIT;
    golden w;
    int size[3];
    size_t sum = 0;

    (void)state;
    open_golden("hourglass3d", &w);
    free(image_of(&w, 0, size));
    assert_ok(hp_net_build(&w.params, w.weights, size, &w.graph, &err), &err);
    for (int i = 0; i < w.graph->value_count; i++)
        sum += hp_value_count(&w.graph->value[i]);
    assert_true(w.graph->arena_floats * 2 < sum);
    close_golden(&w);
}

#define AGREEMENT(name) cmocka_unit_test(test_golden__##name##_agrees_with_pytorch)

int main(void)
{
    /* widths that a GPU serves, too */
    const struct CMUnitTest everywhere[] = {
        AGREEMENT(unet3d_8),      AGREEMENT(unet25d_8), AGREEMENT(hourglass3d),
        AGREEMENT(hourglass3d_a), AGREEMENT(sadt),      AGREEMENT(sadt_50),
        AGREEMENT(sadt_50d),
    };
    const struct CMUnitTest on_the_cpu[] = {
        AGREEMENT(unet3d),
        AGREEMENT(unet25d),
        cmocka_unit_test(test_golden__bf16_stays_near_pytorch),
        cmocka_unit_test(test_golden__bf16_does_not_round_the_image),
        cmocka_unit_test(test_golden__threads_do_not_change_a_bit_of_any_stage),
        cmocka_unit_test(test_golden__bad_numbers_name_their_stage),
        cmocka_unit_test(test_golden__memory_is_shared_by_lifetime),
    };
    int failed;

    if (!device_is_here())
        return 77;
    failed = cmocka_run_group_tests(everywhere, NULL, NULL);
    if (device_is_cpu())
        failed += cmocka_run_group_tests(on_the_cpu, NULL, NULL);
    return failed;
}
