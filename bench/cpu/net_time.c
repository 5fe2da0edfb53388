/* Times networks and the pipeline on the CPU back end; bench/cpu/run puts the
 * numbers beside PyTorch's. One JSON line for each measurement.
 *
 *   net_time [OPTIONS] BUNDLE STAGE      one network, best of --repeats
 *   net_time [OPTIONS] BUNDLE pipeline   a phantom of 4 x --slices, best of --repeats;
 *                                        on --device cuda too, with --plans FILE
 *   net_time [OPTIONS] BUNDLE load       the bundle, from nothing to ready to run
 *   net_time [OPTIONS] peak              floating-point peak of the cores
 *
 * --random gives a preset that is parameters only (models/paper) seeded weights.
 */
#include <getopt.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/number.h"
#include "bench/cpu/fma_peak.h"
#include "bench/size.h"
#include "inference/backend.h"
#include "inference/model.h"
#include "inference/pipeline.h"
#include "tests/phantom/phantom.h"

static double now_ms(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static double peak_mib(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_maxrss / 1024;
}

typedef struct settings {
    const char *device, *precision, *plans;
    int threads, repeats, slices;
    uint64_t seed;
    bool random;
} settings;

static hp_code time_network(const hp_model_stage *s, const char *name,
                            const settings *set, hp_error *err)
{
    hp_backend_options opt = HP_BACKEND_OPTIONS_INIT;
    hp_auto(hp_backend) *b = NULL;
    hp_auto(hp_graph) *g = NULL;
    hp_exec *e = NULL;
    double best = 1e300, cpu = 1e300, start = now_ms(CLOCK_MONOTONIC), ready;
    float *in[2] = {NULL, NULL};
    int size[3];
    hp_code r;

    opt.device = set->device;
    opt.threads = set->threads;
    opt.precision = set->precision;
    bench_size(s, size);
    r = hp_net_build(&s->params, s->weights[0], size, &g, err);
    if (r == HP_OK)
        r = hp_backend_open_with(&opt, &b, err);
    if (r == HP_OK) {
        g->fp32 = strcmp(name, "liver") == 0; /* as the pipeline has it */
        r = b->ops->compile(b, g, &e, err);
    }
    if (r != HP_OK)
        return r;
    ready = now_ms(CLOCK_MONOTONIC) - start;
    for (int i = 0; i < g->value_count; i++) {
        const hp_value *v = &g->value[i];

        if (v->input < 0)
            continue;
        in[v->input] = malloc(hp_value_count(v) * sizeof(float));
        for (size_t k = 0; in[v->input] != NULL && k < hp_value_count(v); k++)
            in[v->input][k] = v->input == 1 ? 1.0f : (float)(k * 7919 % 4001) / 1000 - 2;
    }
    for (int i = 0; i < set->repeats && r == HP_OK; i++) {
        double w = now_ms(CLOCK_MONOTONIC), c = now_ms(CLOCK_PROCESS_CPUTIME_ID);

        r = b->ops->run(e, &(hp_ports){.in = {in[0], in[1]}}, NULL, NULL, err);
        w = now_ms(CLOCK_MONOTONIC) - w;
        c = now_ms(CLOCK_PROCESS_CPUTIME_ID) - c;
        best = w < best ? w : best;
        cpu = c < cpu ? c : cpu;
    }
    if (r == HP_OK)
        printf("{\"stage\":\"%s\",\"size\":[%d,%d,%d],\"gmac\":%.3f,\"params_m\":%.3f,"
               "\"ms\":%.2f,\"cpu_ms\":%.2f,\"ready_ms\":%.0f,\"arena_mib\":%.0f,"
               "\"peak_mib\":%.0f,\"threads\":%d}\n",
               name, size[0], size[1], size[2], hp_graph_gmac(g),
               (double)hp_weights_count(s->weights[0]) / 1e6, best, cpu, ready,
               (double)g->arena_floats * 4 / (1 << 20), peak_mib(), set->threads);
    b->ops->release(e);
    free(in[0]);
    free(in[1]);
    return r;
}

static hp_code render(uint64_t seed, int slices, hp_volume *ret[HP_PHASES], hp_error *err)
{
    hp_phantom_options opt = HP_PHANTOM_OPTIONS_INIT;
    hp_auto(hp_phantom) *p = NULL;
    hp_code r;

    opt.seed = seed;
    opt.slices = slices;
    r = hp_phantom_new(&opt, &p, err);
    for (int k = 0; k < HP_PHASES && r == HP_OK; k++) {
        hp_geom g = hp_phantom_grid(p, k);

        r = hp_volume_new(&g, &ret[k], err);
        if (r == HP_OK)
            r = hp_phantom_render(p, k, &g, ret[k]->hu, err);
    }
    return r;
}

/* One study of those phases; its wall and CPU time. */
static hp_code read_study(hp_pipeline *p, hp_volume *const native[HP_PHASES],
                          hp_findings *f, double *ret_ms, double *ret_cpu_ms,
                          hp_error *err)
{
    hp_volume *registered[HP_PHASES] = {NULL}, *liver = NULL;
    double w = now_ms(CLOCK_MONOTONIC), c = now_ms(CLOCK_PROCESS_CPUTIME_ID);
    hp_code r;

    hp_findings_init(f);
    r = hp_pipeline_run(p, (const hp_volume *const *)native, f, registered, &liver, err);
    *ret_ms = now_ms(CLOCK_MONOTONIC) - w;
    *ret_cpu_ms = now_ms(CLOCK_PROCESS_CPUTIME_ID) - c;
    for (int k = 0; k < HP_PHASES; k++)
        hp_volume_free(registered[k]);
    hp_volume_free(liver);
    return r;
}

/* Least of --repeats; the first also makes networks ready for their sizes. */
static hp_code time_pipeline(const char *bundle, const settings *set, hp_error *err)
{
    hp_volume *native[HP_PHASES] = {NULL};
    hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;
    hp_auto(hp_pipeline) *p = NULL;
    hp_findings *f = malloc(sizeof *f), *least = malloc(sizeof *least);
    double first = 0, ms = 0, cpu_ms = 0, w = 0, c = 0;
    hp_code r = f != NULL && least != NULL ? render(set->seed, set->slices, native, err)
                                           : HP_E_NO_MEMORY;

    opt.threads = set->threads;
    opt.device = set->device;
    opt.precision = set->precision;
    opt.plan_cache = set->plans;
    opt.evaluate = true;
    if (r == HP_OK)
        r = hp_pipeline_open(bundle, &opt, &p, err);
    for (int i = 0; i < set->repeats && r == HP_OK; i++) {
        r = read_study(p, native, f, &w, &c, err);
        first = i == 0 ? w : first;
        if (r != HP_OK || (i > 0 && w >= ms))
            continue;
        *least = *f;
        ms = w;
        cpu_ms = c;
    }
    if (r == HP_OK) {
        printf("{\"stage\":\"pipeline\",\"device\":\"%s\",\"ms\":%.0f,\"cpu_ms\":%.0f,"
               "\"first_ms\":%.0f,\"peak_mib\":%.0f,\"threads\":%d,\"stages_ms\":{",
               least->device, ms, cpu_ms, first, peak_mib(), set->threads);
        for (int i = 0; i < least->timing_count; i++)
            printf("%s\"%s\":%.0f", i > 0 ? "," : "", least->timings[i].name,
                   least->timings[i].ms);
        printf("}}\n");
    }
    for (int k = 0; k < HP_PHASES; k++)
        hp_volume_free(native[k]);
    free(f);
    free(least);
    return r;
}

static hp_code time_stage(const char *bundle, const char *stage, const settings *set,
                          hp_error *err)
{
    hp_auto(hp_model) *m = NULL;
    hp_code r = hp_model_load(bundle, set->random, &m, err);

    for (int s = 0; s < HP_STAGES && r == HP_OK; s++)
        if (strcmp(hp_stage_id_name((hp_stage_id)s), stage) == 0)
            return time_network(&m->stage[s], stage, set, err);
    return r == HP_OK ? hp_fail(err, HP_E_NOT_FOUND, "no stage %.20s", stage) : r;
}

static hp_code time_load(const char *bundle, const settings *set, hp_error *err)
{
    double best = 1e300;
    hp_code r = HP_OK;

    for (int i = 0; i < set->repeats && r == HP_OK; i++) {
        hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;
        hp_auto(hp_pipeline) *p = NULL;
        double w = now_ms(CLOCK_MONOTONIC);

        opt.threads = set->threads;
        opt.device = "cpu";
        opt.precision = set->precision;
        r = hp_pipeline_open(bundle, &opt, &p, err);
        w = now_ms(CLOCK_MONOTONIC) - w;
        best = w < best ? w : best;
    }
    if (r == HP_OK)
        printf("{\"stage\":\"load\",\"ms\":%.1f,\"threads\":%d}\n", best, set->threads);
    return r;
}

static void time_peak(const settings *set)
{
    printf("{\"stage\":\"peak\",\"isa\":\"%s\",\"gflops\":%.1f,\"threads\":%d}\n",
           fma_peak_isa(), fma_peak(set->threads), set->threads);
}

static bool read_number(const char *text, int64_t low, int64_t *ret)
{
    return hp_parse_i64(text, ret) && *ret >= low && *ret < INT32_MAX;
}

static bool read_options(int argc, char **argv, settings *set)
{
    static const struct option table[] = {{"precision", required_argument, NULL, 'p'},
                                          {"threads", required_argument, NULL, 't'},
                                          {"repeats", required_argument, NULL, 'r'},
                                          {"slices", required_argument, NULL, 's'},
                                          {"device", required_argument, NULL, 'd'},
                                          {"plans", required_argument, NULL, 'c'},
                                          {"seed", required_argument, NULL, 'e'},
                                          {"random", no_argument, NULL, 'x'},
                                          {NULL, 0, NULL, 0}};
    int64_t n = 1;
    int c;

    while ((c = getopt_long(argc, argv, "", table, NULL)) != -1) {
        if (c == '?' || (strchr("trse", c) != NULL && !read_number(optarg, c != 'e', &n)))
            return false;
        switch (c) {
        case 'p':
            set->precision = optarg;
            break;
        case 'd':
            set->device = optarg;
            break;
        case 'c':
            set->plans = optarg;
            break;
        case 't':
            set->threads = (int)n;
            break;
        case 'r':
            set->repeats = (int)n;
            break;
        case 's':
            set->slices = (int)n;
            break;
        case 'e':
            set->seed = (uint64_t)n;
            break;
        default:
            set->random = true;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    settings set = {"cpu", "fp32", NULL, omp_get_num_procs(), 5, 60, 1, false};
    hp_error err = HP_ERROR_INIT;
    const char *what;
    hp_code r = HP_OK;

    if (!read_options(argc, argv, &set) || argc - optind < 1 || argc - optind > 2) {
        fputs("usage: net_time [--precision fp32|bf16] [--threads N] [--repeats N] "
              "[--slices N] [--seed N] [--random] [--device cuda] [--plans FILE] "
              "BUNDLE STAGE|pipeline|load\n"
              "       net_time [--threads N] peak\n",
              stderr);
        return 2;
    }
    what = argv[argc - 1];
    omp_set_num_threads(set.threads);
    if (argc - optind == 1)
        time_peak(&set);
    else if (strcmp(what, "pipeline") == 0)
        r = time_pipeline(argv[optind], &set, &err);
    else if (strcmp(what, "load") == 0)
        r = time_load(argv[optind], &set, &err);
    else
        r = time_stage(argv[optind], what, &set, &err);
    if (r != HP_OK)
        fprintf(stderr, "net_time: %s\n", err.msg);
    return r != HP_OK;
}
