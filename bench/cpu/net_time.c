/* Times networks and the pipeline on the CPU back end; bench/cpu/run puts the
 * numbers beside PyTorch's. One JSON line for each measurement.
 *
 *   net_time BUNDLE STAGE REPEATS THREADS [random]     one network, best of REPEATS
 *   net_time BUNDLE pipeline SEED THREADS [SLICES]     a phantom of 4 x 60 slices
 *
 * "random" gives a preset that is parameters only (models/paper) seeded weights.
 */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/number.h"
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

/* The size a stage runs at: its grid, a liver-sized key slice, a SaDT crop. */
static void size_of(const hp_model_stage *s, int size[3])
{
    size[0] = 1;
    if (s->params.arch == HP_ARCH_SADT) {
        size[1] = size[2] = s->crop_px;
    } else if (s->params.arch == HP_ARCH_UNET25D) {
        size[1] = 288;
        size[2] = 352;
    } else {
        memcpy(size, s->params.grid, 3 * sizeof *size);
    }
}

static hp_code time_network(const hp_model_stage *s, const char *name, int repeats,
                            int threads, hp_error *err)
{
    hp_auto(hp_backend) *b = NULL;
    hp_auto(hp_graph) *g = NULL;
    hp_exec *e = NULL;
    double best = 1e300, cpu = 1e300, start = now_ms(CLOCK_MONOTONIC), ready;
    float *in[2] = {NULL, NULL};
    int size[3];
    hp_code r;

    size_of(s, size);
    r = hp_net_build(&s->params, s->weights[0], size, &g, err);
    if (r == HP_OK)
        r = hp_backend_open("cpu", threads, &b, err);
    if (r == HP_OK)
        r = b->ops->compile(b, g, &e, err);
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
    for (int i = 0; i < repeats && r == HP_OK; i++) {
        float *out[3] = {NULL, NULL, NULL};
        double w = now_ms(CLOCK_MONOTONIC), c = now_ms(CLOCK_PROCESS_CPUTIME_ID);

        r = b->ops->run(e, (const float *const *)in, out, NULL, NULL, err);
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
               (double)g->arena_floats * 4 / (1 << 20), peak_mib(), threads);
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

static hp_code time_pipeline(const char *bundle, uint64_t seed, int threads, int slices,
                             hp_error *err)
{
    hp_volume *native[HP_PHASES] = {NULL}, *registered[HP_PHASES] = {NULL}, *liver = NULL;
    hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;
    hp_auto(hp_pipeline) *p = NULL;
    hp_findings *f = malloc(sizeof *f);
    double w = 0, c = 0;
    hp_code r = f != NULL ? render(seed, slices, native, err) : HP_E_NO_MEMORY;

    opt.threads = threads;
    opt.device = "cpu";
    opt.evaluate = true;
    if (r == HP_OK)
        r = hp_pipeline_open(bundle, &opt, &p, err);
    if (r == HP_OK) {
        hp_findings_init(f);
        w = now_ms(CLOCK_MONOTONIC);
        c = now_ms(CLOCK_PROCESS_CPUTIME_ID);
        r = hp_pipeline_run(p, (const hp_volume *const *)native, f, registered, &liver,
                            err);
    }
    if (r == HP_OK) {
        printf("{\"stage\":\"pipeline\",\"ms\":%.0f,\"cpu_ms\":%.0f,\"peak_mib\":%.0f,"
               "\"threads\":%d,\"stages_ms\":{",
               now_ms(CLOCK_MONOTONIC) - w, now_ms(CLOCK_PROCESS_CPUTIME_ID) - c,
               peak_mib(), threads);
        for (int i = 0; i < f->timing_count; i++)
            printf("%s\"%s\":%.0f", i > 0 ? "," : "", f->timings[i].name,
                   f->timings[i].ms);
        printf("}}\n");
    }
    for (int k = 0; k < HP_PHASES; k++) {
        hp_volume_free(native[k]);
        hp_volume_free(registered[k]);
    }
    hp_volume_free(liver);
    free(f);
    return r;
}

static hp_code time_stage(int argc, char **argv, int64_t repeats, int threads,
                          hp_error *err)
{
    hp_auto(hp_model) *m = NULL;
    bool random = argc > 5 && strcmp(argv[5], "random") == 0;
    hp_code r = hp_model_load(argv[1], random, &m, err);

    for (int s = 0; s < HP_STAGES && r == HP_OK; s++)
        if (strcmp(hp_stage_id_name((hp_stage_id)s), argv[2]) == 0)
            return time_network(&m->stage[s], argv[2], (int)repeats, threads, err);
    return r == HP_OK ? hp_fail(err, HP_E_NOT_FOUND, "no stage %.20s", argv[2]) : r;
}

int main(int argc, char **argv)
{
    hp_error err = HP_ERROR_INIT;
    int64_t n, threads, slices = 60;
    hp_code r;

    if (argc < 5 || !hp_parse_i64(argv[3], &n) || !hp_parse_i64(argv[4], &threads) ||
        n < 0 || threads < 1) {
        fputs("usage: net_time BUNDLE STAGE|pipeline REPEATS|SEED THREADS "
              "[random|SLICES]\n",
              stderr);
        return 2;
    }
    if (argc > 5)
        (void)hp_parse_i64(argv[5], &slices); /* "random" is no number: 60 stays */
    omp_set_num_threads((int)threads);
    if (strcmp(argv[2], "pipeline") == 0)
        r = time_pipeline(argv[1], (uint64_t)n, (int)threads, (int)slices, &err);
    else
        r = time_stage(argc, argv, n, (int)threads, &err);
    if (r != HP_OK)
        fprintf(stderr, "net_time: %s\n", err.msg);
    return r != HP_OK;
}
