/* One network of a bundle on the CUDA back end: is it right, how fast is it, and
 * what another program needs to run the same. One JSON line on stdout; bench/gpu.sh
 * puts the numbers beside PyTorch's.
 *
 *   net_gpu BUNDLE STAGE [options]
 *     --random          seeded weights, for a preset that is parameters only
 *     --precision P     fp16 (default) or bf16
 *     --batch N         items of a run (default 1)
 *     --check           every stage and output beside the CPU back end's
 *     --repeats N       timed runs (default 0)
 *     --plans FILE      the plan cache
 *     --hand-over PATH  writes PATH.weights.safetensors, and PATH.io.safetensors with
 *                       inputs and outputs (N, D, H, W, C)
 *     --threads N       of the CPU back end (default: all)
 *
 * Exit status: 0; 1 failed, or differs from the CPU by more than the tolerance; 2
 * usage. What is timed is a whole run: floats on the host to floats on the host.
 */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "base/number.h"
#include "bench/gpu/memory.h"
#include "bench/size.h"
#include "inference/backend.h"
#include "inference/cuda/layer.h"
#include "inference/runner.h"

enum { MAX_STAGES = 256, MAX_REPEATS = 10000 };

/* Of the root mean square: halves round at each of up to 150 layers, and each
 * network of the small bundle was seen to stay below a third of this. */
static const struct {
    const char *precision;
    double of_rms;
} TOLERANCE[] = {{"fp16", 1e-2}, {"bf16", 8e-2}};

typedef struct options {
    const char *bundle, *stage, *precision, *plans, *hand_over;
    bool random, check;
    int64_t batch, repeats, threads;
} options;

/* One network, and what goes in and comes out. */
typedef struct net {
    const hp_model_stage *stage;
    hp_graph *g; /* to look at; runners have their own */
    int size[3], batch;
    float *in[HP_GRAPH_PORTS], *out[HP_GRAPH_PORTS];
    size_t in_count[HP_GRAPH_PORTS], out_count[HP_GRAPH_PORTS]; /* of one item */
    int in_value[HP_GRAPH_PORTS], out_value[HP_GRAPH_PORTS];
    const char *out_name[HP_GRAPH_PORTS];
} net;

/* Named stages of all items, as one back end made them. */
typedef struct film {
    float *data[MAX_STAGES];
    int batch;
} film;

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* --- the network ------------------------------------------------------- */

/* An image is noise between the window's ends, a mask a block of ones. */
static void fill_input(float *f, size_t n, bool mask, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        f[i] = mask ? (float)(i > n / 3 && i < n / 2) : (float)(seed >> 8) * 0x1p-22f - 2;
    }
}

static hp_code new_net(const hp_model_stage *s, int batch, net *ret, hp_error *err)
{
    int outputs = 0;
    hp_code r;

    ret->stage = s;
    ret->batch = batch;
    bench_size(s, ret->size);
    r = hp_net_build(&s->params, s->weights[0], ret->size, &ret->g, err);
    if (r != HP_OK)
        return r;
    for (int v = 0; v < ret->g->value_count; v++) {
        int i = ret->g->value[v].input;

        if (i < 0)
            continue;
        ret->in_value[i] = v;
        ret->in_count[i] = hp_value_count(&ret->g->value[v]);
        ret->in[i] = malloc(ret->in_count[i] * (size_t)batch * sizeof(float));
        if (ret->in[i] == NULL)
            return hp_fail(err, HP_E_NO_MEMORY, "inputs");
        for (int item = 0; item < batch; item++)
            fill_input(ret->in[i] + ret->in_count[i] * (size_t)item, ret->in_count[i],
                       i > 0, (uint32_t)item + 1);
    }
    for (int k = 0; k < ret->g->stage_count; k++) {
        const hp_stage_name *name = &ret->g->stage[k];

        if (!name->output)
            continue;
        ret->out_name[outputs] = name->name;
        ret->out_value[outputs] = name->value;
        ret->out_count[outputs] = hp_value_count(&ret->g->value[name->value]);
        ret->out[outputs] =
            calloc(ret->out_count[outputs] * (size_t)batch, sizeof(float));
        if (ret->out[outputs++] == NULL)
            return hp_fail(err, HP_E_NO_MEMORY, "outputs");
    }
    return HP_OK;
}

static void done_net(net *n)
{
    for (int i = 0; i < HP_GRAPH_PORTS; i++) {
        free(n->in[i]);
        free(n->out[i]);
    }
    hp_graph_free(n->g);
}

/* As a stage of the pipeline runs it: in as many batches as its device likes. */
static hp_code run(hp_runner *r, net *n, hp_stage_fn *on_stage, film *f, hp_error *err)
{
    hp_ports io = {.slices = NULL};

    for (int i = 0; i < HP_GRAPH_PORTS; i++) {
        io.in[i] = n->in[i];
        io.out[i] = n->out[i];
    }
    return hp_runner_run(r, n->size, n->batch, &io, on_stage, f, err);
}

/* --- right ------------------------------------------------------------- */

static void record(const hp_graph *g, const hp_stage_name *s, int item, const float *data,
                   void *payload)
{
    film *f = payload;
    size_t k = (size_t)(s - g->stage), n = hp_value_count(&g->value[s->value]);

    if (k >= MAX_STAGES)
        return;
    if (f->data[k] == NULL)
        f->data[k] = calloc(n * (size_t)f->batch, sizeof(float));
    if (f->data[k] != NULL)
        memcpy(f->data[k] + n * (size_t)item, data, n * sizeof(float));
}

static void done_film(film *f)
{
    for (int k = 0; k < MAX_STAGES; k++)
        free(f->data[k]);
}

static hp_code run_on_cpu(net *n, int threads, film *f, hp_error *err)
{
    hp_backend_options opt = HP_BACKEND_OPTIONS_INIT;
    hp_auto(hp_backend) *b = NULL;
    hp_runner *runner = NULL;
    hp_code r;

    opt.device = "cpu";
    opt.precision = "fp32";
    opt.threads = threads;
    r = hp_backend_open_with(&opt, &b, err);
    if (r == HP_OK)
        r = hp_runner_new(b, &n->stage->params, n->stage->weights[0], &runner, err);
    if (r == HP_OK)
        r = run(runner, n, record, f, err);
    hp_runner_free(runner);
    return r;
}

/* Root mean square of the difference, as a part of the values' own. */
static double distance(const float *a, const float *b, size_t n)
{
    double d = 0, s = 1e-20;

    for (size_t i = 0; i < n; i++) {
        d += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        s += (double)b[i] * b[i];
    }
    return sqrt(d / s);
}

/* Compares stage by stage and by outputs; `quick` holds the outputs of a run that
 * nobody looked at (the captured one). */
static hp_code compare(const net *n, const film *cuda, const film *cpu,
                       const float *const *quick, double tolerance, json_t *line,
                       hp_error *err)
{
    const hp_graph *g = n->g;
    double worst = 0;
    int worst_stage = 0, outputs = 0;

    if (g->stage_count > MAX_STAGES)
        return hp_fail(err, HP_E_INTERNAL, "more than %d stages", MAX_STAGES);
    for (int k = 0; k < g->stage_count; k++) {
        size_t count = hp_value_count(&g->value[g->stage[k].value]) * (size_t)cpu->batch;
        double d;

        if (cpu->data[k] == NULL || cuda->data[k] == NULL)
            return hp_fail(err, HP_E_MISMATCH, "stage %s was not seen", g->stage[k].name);
        d = distance(cuda->data[k], cpu->data[k], count);
        if (g->stage[k].output)
            d = fmax(d, distance(quick[outputs++], cpu->data[k], count));
        if (!(d <= worst)) {
            worst = isfinite(d) ? d : 1e9; /* what is worst stays so */
            worst_stage = k;
        }
    }
    json_object_set_new(line, "worst_rms", json_real(worst));
    json_object_set_new(line, "worst_stage", json_string(g->stage[worst_stage].name));
    json_object_set_new(line, "stages", json_integer(g->stage_count));
    json_object_set_new(line, "tolerance", json_real(tolerance));
    if (!(worst <= tolerance))
        return hp_fail(err, HP_E_MISMATCH,
                       "stage %s is %.2g of its rms away, %.2g may be",
                       g->stage[worst_stage].name, worst, tolerance);
    return HP_OK;
}

static double tolerance_of(const char *precision)
{
    return TOLERANCE[strcmp(precision, "bf16") == 0].of_rms;
}

/* The CPU's stages, the device's, and the device's outputs as they are served. */
static hp_code check(const options *o, net *n, hp_runner *runner, json_t *line,
                     hp_error *err)
{
    film cpu = {.batch = (int)o->batch}, cuda = {.batch = (int)o->batch};
    float *quick[HP_GRAPH_PORTS] = {NULL};
    hp_code r = run_on_cpu(n, (int)o->threads, &cpu, err);

    if (r == HP_OK)
        r = run(runner, n, record, &cuda, err);
    for (int turn = 0; turn < 3 && r == HP_OK; turn++)
        r = run(runner, n, NULL, NULL, err); /* direct, captured, replayed */
    for (int i = 0; i < HP_GRAPH_PORTS; i++)
        quick[i] = n->out[i];
    if (r == HP_OK)
        r = compare(n, &cuda, &cpu, (const float *const *)quick,
                    tolerance_of(o->precision), line, err);
    done_film(&cpu);
    done_film(&cuda);
    return r;
}

/* --- fast -------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static hp_code time_runs(const options *o, net *n, hp_runner *runner, json_t *line,
                         hp_error *err)
{
    double *ms = calloc((size_t)o->repeats + 1, sizeof *ms);
    hp_code r = ms != NULL ? HP_OK : hp_fail(err, HP_E_NO_MEMORY, "timing");

    for (int i = 0; i < 3 && r == HP_OK; i++)
        r = run(runner, n, NULL, NULL, err);
    for (int i = 0; i < (int)o->repeats && r == HP_OK; i++) {
        double start = now_ms();

        r = run(runner, n, NULL, NULL, err);
        ms[i] = now_ms() - start;
    }
    if (r == HP_OK) {
        qsort(ms, (size_t)o->repeats, sizeof *ms, by_value);
        json_object_set_new(line, "ms", json_real(ms[o->repeats / 2]));
        json_object_set_new(line, "ms_best", json_real(ms[0]));
        json_object_set_new(line, "ms_worst", json_real(ms[o->repeats - 1]));
        json_object_set_new(line, "repeats", json_integer(o->repeats));
    }
    free(ms);
    return r;
}

/* Each convolution as the plan cache names it, with what it must compute. */
static json_t *layers_of(const hp_graph *g, hp_dtype type)
{
    json_t *list = json_array();
    char key[HP_LAYER_KEY];

    for (int i = 0; i < g->op_count; i++) {
        const hp_op *op = &g->op[i];
        const hp_value *y = &g->value[op->out];
        hp_layer l;

        if (op->kind != HP_OP_CONV)
            continue;
        l = hp_layer_of_op(g, op, type);
        json_array_append_new(
            list,
            json_pack("{s:s, s:f}", "key", hp_layer_key(&l, key), "gflop",
                      2e-9 * g->batch * (double)hp_value_count(y) *
                          g->value[op->in[0]].dim[3] * op->k[0] * op->k[1] * op->k[2]));
    }
    return list;
}

/* --- handing over ------------------------------------------------------ */

static hp_tensor tensor_of(const net *n, int value, const char *name, const float *data)
{
    hp_tensor t = {.name = name, .dtype = HP_DTYPE_F32, .rank = 5, .data = data};

    t.dim[0] = n->batch;
    memcpy(t.dim + 1, n->g->value[value].dim, 4 * sizeof *t.dim);
    return t;
}

static hp_code hand_over(const options *o, const net *n, const hp_weights *w,
                         hp_error *err)
{
    hp_tensor tensor[2 * HP_GRAPH_PORTS];
    char path[600], name[2 * HP_GRAPH_PORTS][HP_GRAPH_NAME + 8];
    int count = 0;
    hp_code r;

    for (int i = 0; i < HP_GRAPH_PORTS; i++)
        if (n->in[i] != NULL) {
            snprintf(name[count], sizeof name[count], "input.%d", i);
            tensor[count] = tensor_of(n, n->in_value[i], name[count], n->in[i]);
            count++;
        }
    for (int i = 0; i < HP_GRAPH_PORTS; i++)
        if (n->out[i] != NULL) {
            snprintf(name[count], sizeof name[count], "output.%.39s", n->out_name[i]);
            tensor[count] = tensor_of(n, n->out_value[i], name[count], n->out[i]);
            count++;
        }
    snprintf(path, sizeof path, "%.500s.io.safetensors", o->hand_over);
    r = hp_safetensors_write(path, tensor, count, err);
    snprintf(path, sizeof path, "%.500s.weights.safetensors", o->hand_over);
    return r == HP_OK ? hp_weights_write(w, path, err) : r;
}

/* --- main -------------------------------------------------------------- */

static void note(const char *line, void *payload)
{
    (void)payload;
    fprintf(stderr, "%s\n", line);
}

static hp_code measure(const options *o, const hp_model_stage *s, json_t *line,
                       hp_error *err)
{
    hp_backend_options opt = HP_BACKEND_OPTIONS_INIT;
    hp_auto(hp_backend) *b = NULL;
    hp_runner *runner = NULL;
    net n = {0};
    double empty = bench_gpu_used_mib(), start = now_ms();
    hp_code r = new_net(s, (int)o->batch, &n, err);

    opt.device = "cuda";
    opt.threads = (int)o->threads;
    opt.precision = o->precision;
    opt.plan_cache = o->plans;
    opt.on_note = note;
    bench_gpu_watch();
    if (r == HP_OK)
        r = hp_backend_open_with(&opt, &b, err);
    if (r == HP_OK)
        r = hp_runner_new(b, &s->params, s->weights[0], &runner, err);
    if (r == HP_OK)
        r = run(runner, &n, NULL, NULL, err);
    if (r == HP_OK) {
        double most = bench_gpu_watched_mib(), now = bench_gpu_used_mib();

        json_object_set_new(line, "device", json_string(b->ops->describe(b)));
        n.g->batch =
            n.batch < hp_runner_batch(runner) ? n.batch : hp_runner_batch(runner);
        json_object_set_new(line, "at_once", json_integer(n.g->batch));
        json_object_set_new(line, "ready_ms", json_real(now_ms() - start));
        json_object_set_new(line, "gflop", json_real(2 * hp_graph_gmac(n.g) * n.batch));
        json_object_set_new(line, "params_m",
                            json_real((double)hp_weights_count(s->weights[0]) * 1e-6));
        if (empty >= 0) { /* with the driver's own, some hundred MiB */
            json_object_set_new(line, "peak_mib", json_real(most - empty));
            json_object_set_new(line, "serving_mib", json_real(now - empty));
        }
        json_object_set_new(line, "layers",
                            layers_of(n.g, hp_layer_type_of(o->precision)));
    }
    if (r == HP_OK && o->repeats > 0)
        r = time_runs(o, &n, runner, line, err);
    if (r == HP_OK && o->hand_over != NULL)
        r = hand_over(o, &n, s->weights[0], err);
    if (r == HP_OK && o->check)
        r = check(o, &n, runner, line, err);
    (void)bench_gpu_watched_mib();
    hp_runner_free(runner);
    done_net(&n);
    return r;
}

static bool read_options(int argc, char **argv, options *o)
{
    static const struct option LONG[] = {{"random", no_argument, NULL, 'r'},
                                         {"precision", required_argument, NULL, 'p'},
                                         {"batch", required_argument, NULL, 'b'},
                                         {"check", no_argument, NULL, 'c'},
                                         {"repeats", required_argument, NULL, 'n'},
                                         {"plans", required_argument, NULL, 'f'},
                                         {"hand-over", required_argument, NULL, 'o'},
                                         {"threads", required_argument, NULL, 't'},
                                         {NULL, 0, NULL, 0}};
    bool good = true;
    int c;

    while ((c = getopt_long(argc, argv, "", LONG, NULL)) != -1)
        switch (c) {
        case 'r':
            o->random = true;
            break;
        case 'p':
            o->precision = optarg;
            break;
        case 'b':
            good = good && hp_parse_i64(optarg, &o->batch);
            break;
        case 'c':
            o->check = true;
            break;
        case 'n':
            good = good && hp_parse_i64(optarg, &o->repeats);
            break;
        case 'f':
            o->plans = optarg;
            break;
        case 'o':
            o->hand_over = optarg;
            break;
        case 't':
            good = good && hp_parse_i64(optarg, &o->threads);
            break;
        default:
            return false;
        }
    if (argc - optind != 2)
        return false;
    o->bundle = argv[optind];
    o->stage = argv[optind + 1];
    return good && o->batch > 0 && o->batch <= 1024 && o->repeats >= 0 &&
           o->repeats <= MAX_REPEATS && o->threads >= 0 && o->threads <= 1024;
}

int main(int argc, char **argv)
{
    options o = {.precision = "fp16", .batch = 1};
    hp_auto(hp_model) *m = NULL;
    hp_error err = HP_ERROR_INIT;
    const hp_model_stage *stage = NULL;
    json_t *line;
    char *text;
    hp_code r;

    if (!read_options(argc, argv, &o)) {
        fputs(
            "usage: net_gpu BUNDLE STAGE [--random] [--precision fp16|bf16] [--batch N] "
            "[--check]\n               [--repeats N] [--plans FILE] [--hand-over PATH] "
            "[--threads N]\n",
            stderr);
        return 2;
    }
    r = hp_model_load(o.bundle, o.random, &m, &err);
    for (int s = 0; s < HP_STAGES && r == HP_OK; s++)
        if (strcmp(hp_stage_id_name((hp_stage_id)s), o.stage) == 0)
            stage = &m->stage[s];
    if (r == HP_OK && stage == NULL)
        r = hp_fail(&err, HP_E_NOT_FOUND, "no stage %.20s", o.stage);
    line = json_pack("{s:s, s:s, s:s, s:I}", "stage", o.stage, "bundle",
                     m != NULL ? m->name : o.bundle, "precision", o.precision, "batch",
                     (json_int_t)o.batch);
    if (r == HP_OK)
        r = measure(&o, stage, line, &err);
    if (r != HP_OK) {
        fprintf(stderr, "net_gpu: %s %s: %s\n", o.stage, o.precision, err.msg);
        json_object_set_new(line, "error", json_string(err.msg));
    }
    text = json_dumps(line, JSON_COMPACT);
    if (text != NULL)
        puts(text);
    free(text);
    json_decref(line);
    return r != HP_OK;
}
