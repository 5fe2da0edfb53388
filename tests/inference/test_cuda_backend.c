/* The CUDA back end without a GPU: everything but the device itself. Host memory
 * and a plain convolution stand in for it (host_gpu.h), the kernels run in their
 * host build; each network must give what the CPU back end gives. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/path.h"
#include "inference/cuda/backend_cuda.h"
#include "inference/net.h"
#include "inference/runner.h"
#include "tests/inference/host_gpu.h"
#include "tests/inference/world.h"

static char notes[4096];

static void on_note(const char *line, void *payload)
{
    (void)payload;
    snprintf(notes + strlen(notes), sizeof notes - strlen(notes), "%s\n", line);
}

static int setup(void **state)
{
    (void)state;
    host_gpu_reset();
    notes[0] = '\0';
    return 0;
}

/* Nothing of the device is kept once all is closed. */
static int teardown(void **state)
{
    (void)state;
    return host.live == 0 ? 0 : -1;
}

static hp_code try_open(const char *precision, const char *cache, hp_backend **ret,
                        hp_error *err)
{
    static hp_backend_options opt;
    hp_code r;

    opt = (hp_backend_options)HP_BACKEND_OPTIONS_INIT;
    opt.device = "cuda";
    opt.precision = precision;
    opt.plan_cache = cache;
    opt.on_note = on_note;
    r = hp_backend_cuda.open(&opt, ret, err);
    if (r == HP_OK)
        (*ret)->opt = opt; /* what backend.c does */
    return r;
}

static hp_backend *open_cuda(const char *precision, const char *cache)
{
    hp_error err = HP_ERROR_INIT;
    hp_backend *b = NULL;

    assert_ok(try_open(precision, cache, &b, &err), &err);
    return b;
}

/* --- networks ---------------------------------------------------------- */

enum { OUTPUTS = 3, FRAMES = 256 };

typedef struct network {
    const char *arch, *params;
    int size[3];
} network;

static const network LIVER = {
    "unet3d", "{\"widths\":[8,16,24],\"strides\":[[1,1,1],[1,2,2],[2,2,2]]}", {5, 9, 11}};
static const network DETECTOR = {
    "hourglass3d",
    "{\"stacks\":2,\"dims\":[12,16,24],\"modules\":[1,1,2],\"stem\":8,"
    "\"stem_kernel\":[3,7,7],\"stem_stride\":[1,2,2],\"res_stride\":[2,2,2],"
    "\"hg_strides\":[[1,2,2],[2,2,2]]}",
    {6, 26, 22}};
static const network SEG = {"unet25d", "{\"slices\":9,\"widths\":[8,16]}", {1, 21, 19}};
static const network TEXTURE = {
    "sadt",
    "{\"depth\":18,\"width\":0.125,\"output_stride\":8,\"D\":24,\"K\":5,\"classes\":4,"
    "\"mask_input\":true}",
    {1, 40, 40}};
/* one of the two shapes that the fused encoding was made for */
static const network FUSED = {
    "sadt",
    "{\"depth\":18,\"width\":0.125,\"output_stride\":8,\"D\":64,\"K\":16,\"classes\":2,"
    "\"mask_input\":true}",
    {1, 72, 72}};
static const network ODD_WORDS = {
    "sadt",
    "{\"depth\":18,\"width\":0.125,\"output_stride\":8,\"D\":20,\"K\":5,\"classes\":4,"
    "\"mask_input\":true}",
    {1, 40, 40}};
static const network BOTTLENECK = {
    "sadt",
    "{\"depth\":50,\"width\":0.0625,\"output_stride\":8,\"D\":16,\"K\":4,\"classes\":2,"
    "\"mask_input\":false}",
    {1, 33, 33}};
static const network THIN = {
    "unet3d", "{\"widths\":[6,10],\"strides\":[[1,1,1],[1,2,2]]}", {4, 8, 8}};

typedef struct world {
    hp_net_params p;
    hp_weights *w;
    hp_graph *g;
    float *in[2];
    float *out[OUTPUTS];
    size_t out_count[OUTPUTS];
    int outputs;
} world;

static float *some_floats(size_t n, uint32_t seed, bool mask)
{
    float *f = malloc(n * sizeof *f);

    assert_non_null(f);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        f[i] = mask ? (float)(seed >> 31) : (float)(seed >> 8) * 0x1p-23f - 1.0f;
    }
    return f;
}

/* Inputs and room for `batch` items, all different. */
static world make_worlds(const network *n, int batch)
{
    hp_error err = HP_ERROR_INIT;
    json_t *j = NULL;
    world a = {0};
    int inputs = 0;

    assert_ok(hp_json_parse(n->params, strlen(n->params), &j, &err), &err);
    assert_ok(hp_net_params_read(n->arch, j, NULL, &a.p, &err), &err);
    json_decref(j);
    assert_ok(hp_weights_random(3, &a.w, &err), &err);
    assert_ok(hp_net_build(&a.p, a.w, n->size, &a.g, &err), &err);
    a.g->batch = batch;
    for (int v = 0; v < a.g->value_count; v++)
        if (a.g->value[v].input >= 0) {
            a.in[inputs] = some_floats((size_t)batch * hp_value_count(&a.g->value[v]),
                                       (uint32_t)v, inputs > 0);
            inputs++;
        }
    for (int s = 0; s < a.g->stage_count; s++)
        if (a.g->stage[s].output) {
            a.out_count[a.outputs] =
                (size_t)batch * hp_value_count(&a.g->value[a.g->stage[s].value]);
            a.out[a.outputs] = calloc(a.out_count[a.outputs], sizeof(float));
            assert_non_null(a.out[a.outputs++]);
        }
    return a;
}

static hp_ports ports_to(const world *a, float *const out[OUTPUTS])
{
    hp_ports io = {.in = {a->in[0], a->in[1]}};

    for (int i = 0; i < OUTPUTS; i++)
        io.out[i] = out[i];
    return io;
}

static hp_ports ports_of(const world *a)
{
    return ports_to(a, a->out);
}

static world make_world(const network *n)
{
    return make_worlds(n, 1);
}

static void done_world(world *a)
{
    for (int i = 0; i < 2; i++)
        free(a->in[i]);
    for (int i = 0; i < a->outputs; i++)
        free(a->out[i]);
    hp_graph_free(a->g);
    hp_weights_free(a->w);
}

/* Stages one after another, to compare with another back end's. */
typedef struct film {
    const hp_stage_name *name[FRAMES]; /* of a graph that lives as long */
    int item[FRAMES];
    float *data[FRAMES];
    size_t count[FRAMES];
    int frames;
} film;

static void record(const hp_graph *g, const hp_stage_name *s, int item, const float *data,
                   void *payload)
{
    film *f = payload;
    size_t n = hp_value_count(&g->value[s->value]);

    assert_true(f->frames < FRAMES);
    f->name[f->frames] = s;
    f->item[f->frames] = item;
    f->data[f->frames] = malloc(n * sizeof(float));
    assert_non_null(f->data[f->frames]);
    memcpy(f->data[f->frames], data, n * sizeof(float));
    f->count[f->frames++] = n;
}

/* The frame of that stage and item. */
static int find_frame(const film *f, const char *name, int item)
{
    for (int i = 0; i < f->frames; i++)
        if (f->item[i] == item && strcmp(f->name[i]->name, name) == 0)
            return i;
    fail_msg("stage %s of item %d was not shown", name, item);
    return -1;
}

static void done_film(film *f)
{
    for (int i = 0; i < f->frames; i++)
        free(f->data[i]);
}

/* Root mean square of the difference, as a part of the values' own. */
static double distance(const float *a, const float *b, size_t n)
{
    double d = 0, s = 1e-12;

    for (size_t i = 0; i < n; i++) {
        d += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        s += (double)b[i] * b[i];
    }
    return sqrt(d / s);
}

static void run_on_cpu(world *a, film *f)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_backend) *b = NULL;
    hp_ports io = ports_of(a);
    hp_exec *e = NULL;

    assert_ok(hp_backend_open("cpu", 1, &b, &err), &err);
    assert_ok(b->ops->compile(b, a->g, &e, &err), &err);
    assert_ok(b->ops->run(e, &io, record, f, &err), &err);
    b->ops->release(e);
}

/* Every stage and output of `n`, twice without anybody looking and once with.
 * tolerance: relative, of a whole tensor; halves round at each of some 30 layers. */
static void assert_items_as_cpu(const network *n, int batch, const char *precision,
                                double tolerance)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_backend) *b = open_cuda(precision, NULL);
    world a = make_worlds(n, batch);
    film cpu = {0}, cuda = {0};
    float *out[OUTPUTS] = {0};
    hp_exec *e = NULL;

    run_on_cpu(&a, &cpu);
    for (int i = 0; i < a.outputs; i++)
        out[i] = some_floats(a.out_count[i], 9, false);
    assert_ok(b->ops->compile(b, a.g, &e, &err), &err);
    for (int turn = 0; turn < 3; turn++) {
        hp_ports io = ports_to(&a, out);

        host.copies = 0;
        assert_ok(b->ops->run(e, &io, turn < 2 ? NULL : record, &cuda, &err), &err);
        if (turn < 2) /* up, and back: nothing between goes to the host */
            assert_int_equal(host.copies, 2);
        for (int i = 0; i < a.outputs; i++) {
            double d = distance(out[i], a.out[i], a.out_count[i]);

            if (!(d <= tolerance))
                fail_msg("%s %s: output %d is %.2g away", n->arch, precision, i, d);
        }
    }
    assert_int_equal(cuda.frames, cpu.frames);
    for (int s = 0; s < cpu.frames; s++) {
        int at = find_frame(&cuda, cpu.name[s]->name, cpu.item[s]);
        double d = distance(cuda.data[at], cpu.data[s], cpu.count[s]);

        assert_int_equal(cuda.count[at], cpu.count[s]);
        if (!(d <= tolerance))
            fail_msg("%s %s: stage %s of item %d is %.2g away", n->arch, precision,
                     cpu.name[s]->name, cpu.item[s], d);
    }
    b->ops->release(e);
    for (int i = 0; i < a.outputs; i++)
        free(out[i]);
    done_film(&cpu);
    done_film(&cuda);
    done_world(&a);
}

static void assert_same_as_cpu(const network *n, const char *precision, double tolerance)
{
    assert_items_as_cpu(n, 1, precision, tolerance);
}

static void test_cuda__networks_agree_in_fp16(void **state)
{
    (void)state;
    assert_same_as_cpu(&FUSED, "fp16", 4e-3);
    assert_same_as_cpu(&LIVER, "fp16", 4e-3);
    assert_same_as_cpu(&DETECTOR, "fp16", 4e-3);
    assert_same_as_cpu(&SEG, "fp16", 4e-3);
    assert_same_as_cpu(&TEXTURE, "fp16", 4e-3);
    assert_same_as_cpu(&BOTTLENECK, "fp16", 4e-3);
}

static void test_cuda__networks_agree_in_bf16(void **state)
{
    (void)state;
    assert_same_as_cpu(&LIVER, "bf16", 3e-2);
    assert_same_as_cpu(&DETECTOR, "bf16", 3e-2);
    assert_same_as_cpu(&TEXTURE, "bf16", 3e-2);
    assert_same_as_cpu(&FUSED, "bf16", 3e-2);
}

static void test_cuda__batches_agree(void **state)
{
    (void)state;
    assert_items_as_cpu(&LIVER, 2, "fp16", 4e-3);
    assert_items_as_cpu(&DETECTOR, 2, "fp16", 4e-3);
    assert_items_as_cpu(&TEXTURE, 3, "fp16", 4e-3);
    assert_items_as_cpu(&FUSED, 2, "bf16", 3e-2);
}

/* Each item of a batch, stage by stage, has the bits that it has alone. */
static void assert_batch_is_its_items(bool on_cpu, const network *n, int batch)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_backend) *b = NULL; /* it knows weights by their place: one a network */
    world all = make_worlds(n, batch), one = make_world(n);
    hp_ports every = ports_of(&all);
    film together = {0};
    hp_exec *e = NULL;

    if (on_cpu)
        assert_ok(hp_backend_open("cpu", 1, &b, &err), &err);
    else
        b = open_cuda("fp16", NULL);
    assert_ok(b->ops->compile(b, all.g, &e, &err), &err);
    assert_ok(b->ops->run(e, &every, record, &together, &err), &err);
    assert_ok(b->ops->run(e, &every, NULL, NULL, &err), &err);
    b->ops->release(e);
    assert_ok(b->ops->compile(b, one.g, &e, &err), &err);
    for (int item = 0; item < batch; item++) {
        hp_ports there = hp_ports_shift(&every, one.g, item), here = there;
        film alone = {0};

        for (int i = 0; i < one.outputs; i++)
            here.out[i] = one.out[i];
        assert_ok(b->ops->run(e, &here, record, &alone, &err), &err);
        for (int s = 0; s < alone.frames; s++) {
            int at = find_frame(&together, alone.name[s]->name, item);

            assert_memory_equal(together.data[at], alone.data[s],
                                alone.count[s] * sizeof(float));
        }
        assert_ok(b->ops->run(e, &here, NULL, NULL, &err), &err);
        for (int i = 0; i < one.outputs; i++)
            assert_memory_equal(there.out[i], one.out[i],
                                one.out_count[i] * sizeof(float));
        done_film(&alone);
    }
    assert_int_equal(together.frames % batch, 0);
    b->ops->release(e);
    done_film(&together);
    done_world(&all);
    done_world(&one);
}

static void test_cuda__batch_is_its_items(void **state)
{
    (void)state;
    assert_batch_is_its_items(false, &DETECTOR, 2);
    assert_batch_is_its_items(false, &SEG, 3);
    assert_batch_is_its_items(false, &FUSED, 2);
    assert_batch_is_its_items(true, &DETECTOR, 2);
    assert_batch_is_its_items(true, &LIVER, 3);
    assert_batch_is_its_items(true, &TEXTURE, 3);
}

static void run_quietly(hp_exec *e, world *a, hp_code want)
{
    hp_error err = HP_ERROR_INIT;
    hp_ports io = ports_of(a);
    hp_code r = hp_backend_cuda.run(e, &io, NULL, NULL, &err);

    if (r != want)
        print_error("%s\n", err.msg);
    assert_int_equal(r, want);
}

/* One arena serves all: a network that is compiled later moves it. */
static void test_cuda__networks_take_turns(void **state)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_backend) *b = open_cuda("fp16", NULL);
    world small = make_world(&SEG), large = make_world(&DETECTOR);
    hp_exec *s = NULL, *l = NULL;
    float *first;

    (void)state;
    host.workspace[2] = 1000; /* the fastest engine's */
    assert_ok(b->ops->compile(b, small.g, &s, &err), &err);
    run_quietly(s, &small, HP_OK);
    first = malloc(small.out_count[0] * sizeof *first);
    assert_non_null(first);
    memcpy(first, small.out[0], small.out_count[0] * sizeof *first);
    assert_ok(b->ops->compile(b, large.g, &l, &err), &err);
    for (int i = 0; i < 3; i++) {
        run_quietly(l, &large, HP_OK);
        memset(small.out[0], 0, small.out_count[0] * sizeof(float));
        run_quietly(s, &small, HP_OK);
        assert_memory_equal(small.out[0], first, small.out_count[0] * sizeof(float));
    }
    free(first);
    b->ops->release(s);
    b->ops->release(l);
    done_world(&small);
    done_world(&large);
}

/* --- trust ------------------------------------------------------------- */

/* With these faults, the result is right and `struck` engines are named. */
static void assert_right_despite(host_fault first, host_fault second, int struck)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_backend) *b = NULL;
    world a = make_world(&SEG);
    film cpu = {0};
    hp_exec *e = NULL;
    float *want = malloc(a.out_count[0] * sizeof *want);

    assert_non_null(want);
    setup(NULL);
    host.fault[2] = first; /* the fastest, so trust alone keeps it out */
    host.fault[0] = second;
    b = open_cuda("fp16", NULL);
    run_on_cpu(&a, &cpu);
    memcpy(want, a.out[0], a.out_count[0] * sizeof *want);
    assert_ok(b->ops->compile(b, a.g, &e, &err), &err);
    run_quietly(e, &a, HP_OK);
    assert_true(distance(a.out[0], want, a.out_count[0]) <= 4e-3);
    assert_int_equal(strstr(notes, "engine=102 error=") != NULL, struck & 1);
    assert_int_equal(strstr(notes, "engine=100 error=") != NULL, struck >> 1);
    assert_null(strstr(notes, "engine=101"));
    assert_non_null(strstr(notes, "plan struck off layer=\"fp16 2d 1x"));
    b->ops->release(e);
    free(want);
    done_film(&cpu);
    done_world(&a);
}

static void test_cuda__wrong_engine_is_struck_off(void **state)
{
    (void)state;
    assert_right_despite(HOST_LEAVES_LAST, HOST_RIGHT, 1);
    assert_right_despite(HOST_OFF_IN_ONE, HOST_RIGHT, 1);
    assert_right_despite(HOST_NO_BIAS, HOST_RIGHT, 1);
    assert_right_despite(HOST_REFUSES, HOST_NO_BIAS, 3);
    assert_right_despite(HOST_FAILS, HOST_RIGHT, 1);
}

static void test_cuda__layer_that_nobody_computes_right_is_refused(void **state)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_backend) *b = open_cuda("fp16", NULL);
    world a = make_world(&SEG);
    hp_exec *e = NULL;

    (void)state;
    for (int i = 0; i < HOST_ENGINES; i++)
        host.fault[i] = HOST_LEAVES_LAST;
    assert_int_equal(b->ops->compile(b, a.g, &e, &err), HP_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "no engine computes it right"));
    assert_non_null(strstr(notes, "nan at "));
    done_world(&a);
}

static void test_cuda__device_error_while_comparing_is_one(void **state)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_backend) *b = open_cuda("fp16", NULL);
    world a = make_world(&SEG);
    hp_exec *e = NULL;

    (void)state;
    host.fault[1] = HOST_DEVICE_ERROR;
    assert_int_equal(b->ops->compile(b, a.g, &e, &err), HP_E_DEVICE);
    assert_string_equal(err.msg, "CUDA: an illegal memory access");
    done_world(&a);
}

/* --- the cache of plans ------------------------------------------------ */

static void compile_and_close(const network *n, const char *cache)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_backend) *b = open_cuda("fp16", cache);
    world a = make_world(n);
    hp_exec *e = NULL;

    assert_ok(b->ops->compile(b, a.g, &e, &err), &err);
    b->ops->release(e);
    done_world(&a);
}

static void test_cuda__plans_are_searched_once(void **state)
{
    char path[] = "/tmp/hepar-plans-XXXXXX";
    int fd = mkstemp(path);
    long searched;

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    compile_and_close(&SEG, path);
    searched = host.asked;
    assert_true(searched > 0);
    compile_and_close(&SEG, path);
    assert_int_equal(host.asked, searched); /* all remembered */
    compile_and_close(&LIVER, path);
    assert_true(host.asked > searched);
    searched = host.asked;
    compile_and_close(&SEG, path);
    compile_and_close(&LIVER, path);
    assert_int_equal(host.asked, searched);
    host.name = "Another";
    compile_and_close(&SEG, path); /* another device's file is no help */
    assert_true(host.asked > searched);
    unlink(path);
}

static void test_cuda__cache_that_cannot_be_written_is_no_fault(void **state)
{
    (void)state;
    compile_and_close(&SEG, "/proc/no/such/place");
    assert_non_null(strstr(notes, "plan cache not written"));
}

/* --- what can run out -------------------------------------------------- */

/* Fails each allocation of device memory in turn. */
static void test_cuda__without_memory_fails_and_leaves_nothing(void **state)
{
    hp_error err = HP_ERROR_INIT;
    world a = make_world(&TEXTURE);
    bool whole = false;

    (void)state;
    for (long nth = 1; !whole && nth < 400; nth++) {
        hp_auto(hp_backend) *b = open_cuda("fp16", NULL);
        hp_exec *e = NULL;
        hp_code r;

        host.fail_alloc = nth;
        r = b->ops->compile(b, a.g, &e, &err);
        whole = host.fail_alloc > 0; /* it never came to the n-th */
        host.fail_alloc = 0;
        assert_true(r == HP_OK || r == HP_E_NO_MEMORY);
        if (r == HP_OK) {
            run_quietly(e, &a, HP_OK);
            b->ops->release(e);
        }
        hp_backend_cuda.close(hp_steal(&b));
        assert_int_equal(host.live, 0);
    }
    assert_true(whole);
    done_world(&a);
}

/* A network that fitted goes on after one that did not. */
static void test_cuda__full_device_serves_those_that_fit(void **state)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_backend) *b = open_cuda("fp16", NULL);
    world small = make_world(&SEG), large = make_world(&DETECTOR);
    hp_exec *s = NULL, *l = NULL;

    (void)state;
    assert_ok(b->ops->compile(b, small.g, &s, &err), &err);
    run_quietly(s, &small, HP_OK);
    host.room = host.used + 4096;
    assert_int_equal(b->ops->compile(b, large.g, &l, &err), HP_E_NO_MEMORY);
    run_quietly(s, &small, HP_OK);
    b->ops->release(s);
    done_world(&small);
    done_world(&large);
}

/* --- less than a batch ------------------------------------------------- */

enum { ITEMS = 4 };

/* The four items through a runner on `b`, right whatever happens on the way. */
static void run_items(hp_backend *b, const network *n, world *a, const float *want)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_runner) *r = NULL;
    hp_ports io = ports_of(a);

    memset(a->out[0], 0, a->out_count[0] * sizeof(float));
    assert_ok(hp_runner_new(b, &a->p, a->w, &r, &err), &err);
    assert_ok(hp_runner_run(r, n->size, ITEMS, &io, NULL, NULL, &err), &err);
    if (want != NULL)
        assert_true(distance(a->out[0], want, a->out_count[0]) <= 4e-3);
}

static float *copy_of(const float *data, size_t n)
{
    float *copy = malloc(n * sizeof *copy);

    assert_non_null(copy);
    return memcpy(copy, data, n * sizeof *copy);
}

/* With ever less room: first smaller batches, at last the CPU. */
static void test_cuda__full_device_takes_smaller_batches(void **state)
{
    world a = make_worlds(&SEG, ITEMS);
    float *want = NULL;
    bool halved = false, alone = false, moved = false;
    size_t room;

    (void)state;
    for (room = 0; !moved; room -= room / 8) {
        hp_auto(hp_backend) *b = open_cuda("fp16", NULL);
        char words[200];

        b->opt.device = "auto";
        host.room = room;
        notes[0] = '\0';
        run_items(b, &SEG, &a, want);
        hp_backend_describe(b, words, sizeof words);
        if (room == 0) {
            want = copy_of(a.out[0], a.out_count[0]);
            room = host.peak;
            assert_null(strstr(words, "batches"));
        }
        halved |= strstr(words, "fp16; batches of 2") != NULL;
        alone |= strstr(words, "fp16; batches of 1") != NULL && b->spare == NULL;
        moved |= strstr(words, "; in part cpu") != NULL;
        assert_int_equal(strstr(words, "batches of 2") != NULL,
                         strstr(notes, "batch=2") != NULL &&
                             strstr(notes, "batch=1") == NULL);
        hp_backend_close(hp_steal(&b));
        host.room = 0;
        assert_int_equal(host.live, 0);
    }
    assert_true(halved && alone);
    free(want);
    done_world(&a);
}

/* Each allocation of device memory fails once: another batch does it. */
static void test_cuda__allocation_that_fails_costs_a_smaller_batch(void **state)
{
    world a = make_worlds(&SEG, ITEMS);
    float *want = NULL;
    int smaller = 0;
    bool whole = false;

    (void)state;
    for (long nth = 0; !whole && nth < 400; nth++) {
        hp_auto(hp_backend) *b = open_cuda("fp16", NULL);

        host.fail_alloc = nth;
        run_items(b, &SEG, &a, want);
        if (nth == 0)
            want = copy_of(a.out[0], a.out_count[0]);
        whole = host.fail_alloc > 0;
        assert_null(b->spare);
        smaller += b->batch == 2;
        host.fail_alloc = 0;
    }
    assert_true(whole && smaller > 5);
    free(want);
    done_world(&a);
}

static void test_cuda__not_finite_names_the_stage(void **state)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_backend) *b = open_cuda("fp16", NULL);
    world a = make_world(&DETECTOR);
    film f = {0};
    hp_exec *e = NULL;

    (void)state;
    assert_ok(b->ops->compile(b, a.g, &e, &err), &err);
    a.in[0][17] = INFINITY; /* as from a head that ran over in fp16 */
    for (int turn = 0; turn < 2; turn++) {
        hp_ports io = ports_of(&a);

        assert_int_equal(b->ops->run(e, &io, turn == 0 ? NULL : record, &f, &err),
                         HP_E_NUMERIC);
        assert_string_equal(err.msg, "stage stem.conv: a value is not finite");
    }
    a.in[0][17] = 0;
    run_quietly(e, &a, HP_OK);
    b->ops->release(e);
    done_film(&f);
    done_world(&a);
}

static void test_cuda__device_error_ends_the_run(void **state)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_backend) *b = open_cuda("fp16", NULL);
    world a = make_world(&SEG);
    hp_exec *e = NULL;

    (void)state;
    assert_ok(b->ops->compile(b, a.g, &e, &err), &err);
    for (int i = 0; i < HOST_ENGINES; i++)
        host.fault[i] = HOST_DEVICE_ERROR;
    run_quietly(e, &a, HP_E_DEVICE);
    b->ops->release(e);
    done_world(&a);
}

static void test_cuda__what_it_cannot_do_is_refused(void **state)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_backend) *b = open_cuda("fp16", NULL);
    hp_backend *other = NULL;
    world a = make_world(&THIN);
    hp_exec *e = NULL;

    (void)state;
    assert_int_equal(b->ops->compile(b, a.g, &e, &err), HP_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "multiples of 8"));
    done_world(&a);
    a = make_world(&ODD_WORDS);
    assert_int_equal(b->ops->compile(b, a.g, &e, &err), HP_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "codewords"));
    assert_int_equal(try_open("fp8", NULL, &other, &err), HP_E_INVALID);
    assert_null(other);
    done_world(&a);
}

static void test_cuda__says_what_it_is(void **state)
{
    hp_auto(hp_backend) *b = open_cuda("bf16", NULL);

    (void)state;
    assert_string_equal(b->ops->describe(b), "cuda: Host, cuDNN 9.19.0, bf16");
    assert_string_equal(b->ops->name, "cuda");
}

/* --- both ends --------------------------------------------------------- */

enum { SLICES = 3 };

/* A volume, and three boxes of it as the detector's images; the last hangs over. */
typedef struct scan {
    int n[3];
    int16_t *hu;
    size_t count;
    hp_slices slices[SLICES];
} scan;

static scan make_scan(const int grid[3], int sources, bool mask)
{
    scan s = {.n = {7, 31, 29}};

    s.count = (size_t)s.n[0] * s.n[1] * s.n[2];
    s.hu = malloc(s.count * sizeof *s.hu);
    assert_non_null(s.hu);
    for (size_t i = 0; i < s.count; i++)
        s.hu[i] = (int16_t)(i * 7919 % 1201 - 500);
    for (int i = 0; i < SLICES; i++) {
        hp_input *cut = &s.slices[i].cut;

        for (int a = 0; a < 3; a++) {
            cut->n[a] = grid[a];
            cut->src_n[a] = a == 0 && grid[0] == 1 ? 1 : s.n[a];
            cut->lo[a] = grid[a] == 1 ? 0 : 0.25 * i - (i == 2) * 3;
            cut->hi[a] = grid[a] == 1 ? 1 : s.n[a] - 1.5 * i;
        }
        cut->pad = -1024;
        cut->window = (hp_window){-175, 275, 0.5, 0.25};
        cut->sources = sources;
        cut->mask = mask;
        cut->channels = sources + mask;
        cut->rect[0] = cut->rect[1] = 3 + i;
        cut->rect[2] = cut->rect[3] = 20 - i;
        for (int k = 0; k < sources; k++) /* slices of one volume */
            s.slices[i].hu[k] =
                s.hu + (grid[0] == 1 ? (size_t)(k + i) * s.n[1] * s.n[2] : 0);
    }
    return s;
}

static float *rubbish(size_t n)
{
    return some_floats(n, 77, false);
}

/* The image cut on the device, from slices that are there, and on the way to it:
 * what the CPU makes of them. */
static void assert_cut(const network *n, int sources, bool mask, int uploads)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_backend) *cpu = NULL;
    hp_auto(hp_backend) *b = open_cuda("fp16", NULL);
    world a = make_worlds(n, SLICES);
    scan s = make_scan(n->size, sources, mask);
    hp_ports io = ports_of(&a);
    hp_exec *e = NULL;
    float *want = rubbish(a.out_count[0]);

    io.in[0] = NULL; /* nobody reads it */
    io.slices = s.slices;
    io.out[0] = want;
    assert_ok(hp_backend_open("cpu", 1, &cpu, &err), &err);
    assert_ok(cpu->ops->compile(cpu, a.g, &e, &err), &err);
    assert_ok(cpu->ops->run(e, &io, NULL, NULL, &err), &err);
    cpu->ops->release(e);
    io.out[0] = a.out[0];
    assert_ok(b->ops->compile(b, a.g, &e, &err), &err);
    for (int turn = 0; turn < 4; turn++) { /* held in the second and the third */
        if (turn == 1)
            b->ops->hold(b, s.hu, s.count);
        if (turn == 3)
            b->ops->let_go(b);
        memset(a.out[0], 0x7f, a.out_count[0] * sizeof(float));
        host.copies = 0;
        assert_ok(b->ops->run(e, &io, NULL, NULL, &err), &err);
        assert_int_equal(host.copies, turn == 1 || turn == 2 ? uploads + 1 : 2);
        assert_true(distance(a.out[0], want, a.out_count[0]) <= 4e-3);
    }
    b->ops->release(e);
    free(want);
    free(s.hu);
    done_world(&a);
}

static void test_cuda__images_are_cut_from_slices(void **state)
{
    (void)state;
    assert_cut(&DETECTOR, 1, false, 0);
    assert_cut(&FUSED, 4, true, 1); /* its mask goes up */
}

/* A box that is not in what is held, and a device without room for it. */
static void test_cuda__slices_that_are_not_held_are_cut_here(void **state)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_backend) *b = open_cuda("fp16", NULL);
    world a = make_worlds(&DETECTOR, SLICES);
    scan s = make_scan(DETECTOR.size, 1, false);
    hp_ports io = ports_of(&a);
    hp_exec *e = NULL;
    float *want;

    (void)state;
    io.slices = s.slices;
    assert_ok(b->ops->compile(b, a.g, &e, &err), &err);
    assert_ok(b->ops->run(e, &io, NULL, NULL, &err), &err);
    want = malloc(a.out_count[0] * sizeof *want);
    assert_non_null(want);
    memcpy(want, a.out[0], a.out_count[0] * sizeof *want);
    for (int turn = 0; turn < 2; turn++) {
        if (turn == 0) /* one voxel short */
            b->ops->hold(b, s.hu, s.count - 1);
        host.fail_alloc = turn;
        if (turn == 1)
            b->ops->hold(b, s.hu, s.count);
        memset(a.out[0], 0x7f, a.out_count[0] * sizeof(float));
        host.copies = 0;
        assert_ok(b->ops->run(e, &io, NULL, NULL, &err), &err);
        assert_int_equal(host.copies, 2);
        assert_memory_equal(a.out[0], want, a.out_count[0] * sizeof(float));
        assert_int_equal(strstr(notes, "slices not kept") != NULL, turn);
    }
    b->ops->release(e);
    free(want);
    free(s.hu);
    done_world(&a);
}

/* Peaks of the heads as they come back otherwise. */
static void assert_decoded(hp_backend *b)
{
    hp_error err = HP_ERROR_INIT;
    world a = make_worlds(&DETECTOR, 2);
    hp_ports io = ports_of(&a);
    static hp_decoded got[2], want[2];
    hp_exec *e = NULL;
    int value[3];
    hp_decode d;

    assert_ok(b->ops->compile(b, a.g, &e, &err), &err);
    for (int turn = 0; turn < 3; turn++) { /* with other limits the third time */
        io = ports_of(&a);
        assert_ok(b->ops->run(e, &io, NULL, NULL, &err), &err);
        io = (hp_ports){
            .in = {a.in[0]}, .decoded = got, .min = 0.01f, .k = 9 - 5 * (turn == 2)};
        memset(got, 0x5a, sizeof got);
        d = hp_ports_decode(&io, a.g, value);
        assert_ok(hp_decode_ref(&d, a.out[0], a.out[1], a.out[2], want, &err), &err);
        host.copies = 0;
        assert_ok(b->ops->run(e, &io, NULL, NULL, &err), &err);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(got[i].count, want[i].count);
            assert_true(got[i].count > 2);
            assert_int_equal(got[i].bad, 0);
            for (int k = 0; k < got[i].count; k++) {
                const hp_box_peak *p = &got[i].peak[k], *q = &want[i].peak[k];

                assert_int_equal(p->index, q->index);
                assert_true(fabsf(p->score - q->score) <= 1e-6f);
                assert_memory_equal(p->centre, q->centre, sizeof p->centre);
                assert_memory_equal(p->size, q->size, sizeof p->size);
            }
        }
    }
    b->ops->release(e);
    done_world(&a);
}

static void test_cuda__heads_come_back_as_peaks(void **state)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_backend) *cpu = NULL;
    hp_auto(hp_backend) *b = open_cuda("fp16", NULL);

    (void)state;
    assert_decoded(b);
    assert_ok(hp_backend_open("cpu", 1, &cpu, &err), &err);
    assert_decoded(cpu);
}

/* Through a runner that has to take smaller batches, and at last another device. */
static void test_cuda__both_ends_survive_smaller_batches(void **state)
{
    static hp_decoded want[SLICES], got[SLICES];
    world a = make_worlds(&DETECTOR, SLICES);
    scan s = make_scan(DETECTOR.size, 1, false);
    bool smaller = false, moved = false;
    size_t room = 0;

    (void)state;
    for (int turn = 0; !moved && turn < 60; turn++, room -= room / 8) {
        hp_error err = HP_ERROR_INIT;
        hp_auto(hp_backend) *b = open_cuda("fp16", NULL);
        hp_auto(hp_runner) *r = NULL;
        hp_ports io = {.slices = s.slices, .decoded = got, .min = 0.01f, .k = 1};

        b->opt.device = "auto";
        host.room = room;
        b->ops->hold(b, s.hu, s.count);
        assert_ok(hp_runner_new(b, &a.p, a.w, &r, &err), &err);
        assert_ok(hp_runner_run(r, DETECTOR.size, SLICES, &io, NULL, NULL, &err), &err);
        for (int i = 0; i < SLICES; i++) {
            if (turn == 0)
                want[i] = got[i];
            assert_int_equal(got[i].count, 1);
            assert_true(fabsf(got[i].peak[0].score - want[i].peak[0].score) <= 4e-3f);
        }
        if (turn == 0)
            room = host.peak;
        smaller |= b->batch > 0 && b->spare == NULL;
        moved = b->spare != NULL;
        host.room = 0;
    }
    assert_true(smaller && moved);
    free(s.hu);
    done_world(&a);
}

/* What is held makes way for a network before its batch shrinks. */
static void test_cuda__held_slices_make_way(void **state)
{
    static hp_decoded got[SLICES];
    hp_error err = HP_ERROR_INIT;
    world a = make_worlds(&DETECTOR, SLICES);
    scan s = make_scan(DETECTOR.size, 1, false);
    hp_ports io = {.slices = s.slices, .decoded = got, .min = 0.01f, .k = 1};

    (void)state;
    for (int turn = 0; turn < 2; turn++) {
        hp_auto(hp_backend) *b = open_cuda("fp16", NULL);
        hp_auto(hp_runner) *r = NULL;

        b->ops->hold(b, s.hu, s.count);
        assert_ok(hp_runner_new(b, &a.p, a.w, &r, &err), &err);
        assert_ok(hp_runner_run(r, DETECTOR.size, SLICES, &io, NULL, NULL, &err), &err);
        assert_int_equal(b->batch, 0);
        assert_int_equal(b->ops->let_go(b), turn == 0);
        host.room = host.peak - s.count; /* half of what the slices take is missing */
    }
    host.room = 0;
    free(s.hu);
    done_world(&a);
}

static void test_cuda__ports_that_do_not_fit_are_refused(void **state)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_backend) *cpu = NULL;
    hp_auto(hp_backend) *cuda = open_cuda("fp16", NULL);
    world a = make_world(&SEG);
    scan s = make_scan(SEG.size, 4, true);
    static hp_decoded got[1];

    (void)state;
    assert_ok(hp_backend_open("cpu", 1, &cpu, &err), &err);
    for (int i = 0; i < 2; i++) {
        hp_backend *b = i == 0 ? cpu : cuda;
        hp_ports io = ports_of(&a);
        hp_exec *e = NULL;

        assert_ok(b->ops->compile(b, a.g, &e, &err), &err);
        io.slices = s.slices; /* five channels; the network has nine */
        assert_int_equal(b->ops->run(e, &io, NULL, NULL, &err), HP_E_INVALID);
        assert_non_null(strstr(err.msg, "1 x 21 x 19 of 5 channels"));
        io.slices = NULL;
        io.decoded = got;
        assert_int_equal(b->ops->run(e, &io, NULL, NULL, &err), HP_E_INVALID);
        assert_non_null(strstr(err.msg, "without heads"));
        io = (hp_ports){.in = {NULL}};
        assert_int_equal(b->ops->run(e, &io, NULL, NULL, &err), HP_E_INVALID);
        assert_string_equal(err.msg, "input 0 is missing");
        b->ops->release(e);
    }
    free(s.hu);
    done_world(&a);
}

/* What decoding alone met: a list that says so makes no result. */
static void test_cuda__bad_peak_fails_the_run(void **state)
{
    hp_error err = HP_ERROR_INIT;
    world a = make_worlds(&DETECTOR, 2);
    static hp_decoded list[2];
    hp_ports io = {.decoded = list, .k = 1};

    (void)state;
    assert_ok(hp_ports_look(&io, a.g, &err), &err);
    list[1].bad = 1;
    assert_int_equal(hp_ports_look(&io, a.g, &err), HP_E_NUMERIC);
    assert_string_equal(err.msg, "stage decode: a value is not finite");
    done_world(&a);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_cuda__networks_agree_in_fp16),
        TEST(test_cuda__networks_agree_in_bf16),
        TEST(test_cuda__batches_agree),
        TEST(test_cuda__batch_is_its_items),
        TEST(test_cuda__networks_take_turns),
        TEST(test_cuda__wrong_engine_is_struck_off),
        TEST(test_cuda__layer_that_nobody_computes_right_is_refused),
        TEST(test_cuda__device_error_while_comparing_is_one),
        TEST(test_cuda__plans_are_searched_once),
        TEST(test_cuda__cache_that_cannot_be_written_is_no_fault),
        TEST(test_cuda__without_memory_fails_and_leaves_nothing),
        TEST(test_cuda__full_device_serves_those_that_fit),
        TEST(test_cuda__full_device_takes_smaller_batches),
        TEST(test_cuda__allocation_that_fails_costs_a_smaller_batch),
        TEST(test_cuda__not_finite_names_the_stage),
        TEST(test_cuda__device_error_ends_the_run),
        TEST(test_cuda__what_it_cannot_do_is_refused),
        TEST(test_cuda__says_what_it_is),
        TEST(test_cuda__images_are_cut_from_slices),
        TEST(test_cuda__slices_that_are_not_held_are_cut_here),
        TEST(test_cuda__heads_come_back_as_peaks),
        TEST(test_cuda__both_ends_survive_smaller_batches),
        TEST(test_cuda__held_slices_make_way),
        TEST(test_cuda__ports_that_do_not_fit_are_refused),
        TEST(test_cuda__bad_peak_fails_the_run),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
