/* The reading room, from top to bottom: hp_pipeline_run() reads like the paper's
 * figure. Each stage is a file of its own (stage_*.c). */
#include "inference/pipeline.h"

#include <math.h>
#include <omp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "inference/stage_internal.h"

/* --- opening ----------------------------------------------------------- */

/* Everything behind the liver is cropped to its box, which a single voxel of its mask can
 * move by a slice; and it is found once a study. */
static hp_code make_runners(hp_pipeline *p, hp_error *reterr)
{
    for (int s = 0; s < HP_STAGES; s++)
        for (int i = 0; i < p->model->stage[s].weights_count; i++) {
            hp_code r =
                hp_runner_new(p->backend, &p->model->stage[s].params,
                              p->model->stage[s].weights[i], &p->runner[s][i], reterr);

            if (r != HP_OK)
                return r;
        }
    hp_runner_keep_fp32(p->runner[HP_STAGE_LIVER][0]);
    return HP_OK;
}

static hp_code open_backend(hp_pipeline *p, hp_error *reterr)
{
    hp_backend_options opt = HP_BACKEND_OPTIONS_INIT;

    opt.device = p->device;
    opt.threads = p->opt.threads;
    opt.precision = p->precision;
    opt.plan_cache = p->plan_cache[0] != '\0' ? p->plan_cache : NULL;
    opt.on_note = p->opt.on_note;
    opt.payload = p->opt.payload;
    return hp_backend_open_with(&opt, &p->backend, reterr);
}

hp_code hp_pipeline_open(const char *bundle_dir, const hp_pipeline_options *opt,
                         hp_pipeline **ret, hp_error *reterr)
{
    hp_auto(hp_pipeline) *p = calloc(1, sizeof *p);
    double start = hp_clock_mono_fine_ms();
    hp_code r;

    if (p == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "pipeline");
    p->opt = *opt;
    snprintf(p->device, sizeof p->device, "%s", opt->device);
    snprintf(p->precision, sizeof p->precision, "%s", opt->precision);
    p->opt.device = p->device;
    p->opt.precision = p->precision;
    p->opt.plan_cache = p->plan_cache;
    r = hp_path_fmt(p->plan_cache, reterr, "%s",
                    opt->plan_cache != NULL ? opt->plan_cache : "");
    if (r == HP_OK)
        r = hp_model_load(bundle_dir, false, &p->model, reterr);
    if (r == HP_OK)
        r = open_backend(p, reterr);
    if (r == HP_OK)
        r = make_runners(p, reterr);
    if (r != HP_OK)
        return r;
    p->open_ms = hp_clock_mono_fine_ms() - start;
    *ret = hp_steal(&p);
    return HP_OK;
}

void hp_pipeline_free(hp_pipeline *p)
{
    if (p == NULL)
        return;
    for (int s = 0; s < HP_STAGES; s++)
        for (int i = 0; i < HP_MODEL_FOLDS; i++)
            hp_runner_free(p->runner[s][i]);
    hp_backend_close(p->backend); /* holds memories made from the model's weights */
    hp_model_free(p->model);
    free(p);
}

void hp_pipeline_get_facts(const hp_pipeline *p, hp_pipeline_facts *ret)
{
    const hp_backend *b = p->backend;

    *ret = (hp_pipeline_facts){.open_ms = p->open_ms};
    memcpy(ret->asked, p->device, sizeof ret->asked);
    snprintf(ret->device, sizeof ret->device, "%s", b->ops->name);
    hp_backend_describe(b, ret->what, sizeof ret->what);
    snprintf(ret->why, sizeof ret->why, "%s", hp_backend_why(b));
    snprintf(ret->precision, sizeof ret->precision, "%s", b->opt.precision);
    if (b->ops != &hp_backend_cpu)
        memcpy(ret->plan_cache, p->plan_cache, sizeof ret->plan_cache);
    memcpy(ret->bundle_name, p->model->name, sizeof ret->bundle_name);
    memcpy(ret->bundle_version, p->model->version, sizeof ret->bundle_version);
    for (int s = 0; s < HP_STAGES; s++)
        for (int i = 0; i < p->model->stage[s].weights_count; i++)
            ret->compile_ms += hp_runner_compile_ms(p->runner[s][i]);
}

const hp_pipeline_detail *hp_pipeline_get_detail(const hp_pipeline *p)
{
    return &p->detail;
}

/* --- shared by the stages ---------------------------------------------- */

void hp_stage_progress(hp_pipeline *p, const char *stage, double fraction)
{
    if (p->opt.on_progress != NULL)
        p->opt.on_progress(stage, fraction, p->opt.payload);
}

void hp_stage_dump(hp_pipeline *p, const float *data, const int *dims, int rank,
                   const char *fmt, ...)
{
    char name[96];
    va_list args;

    if (p->opt.on_tensor == NULL)
        return;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    p->opt.on_tensor(name, data, dims, rank, p->opt.payload);
}

/* A tool's view, never the serving path: a stage too big to turn is left out. */
static void dump_part(hp_pipeline *p, const float *data, const int dim[4], int c_first,
                      int c_count, const char *name)
{
    size_t cells = (size_t)dim[0] * dim[1] * dim[2];
    float *turned;

    if (p->opt.on_tensor == NULL)
        return;
    turned = malloc(cells * (size_t)c_count * sizeof *turned);
    if (turned == NULL)
        return;
    for (int c = 0; c < c_count; c++)
        for (size_t i = 0; i < cells; i++)
            turned[(size_t)c * cells + i] =
                data[i * (size_t)dim[3] + (size_t)(c_first + c)];
    p->opt.on_tensor(name, turned, (int[4]){c_count, dim[0], dim[1], dim[2]}, 4,
                     p->opt.payload);
    free(turned);
}

void hp_stage_dump_channels_last(hp_pipeline *p, const float *data, const int dim[4],
                                 const char *name)
{
    dump_part(p, data, dim, 0, dim[3], name);
}

void hp_stage_dump_slices(hp_pipeline *p, const hp_slices *s, const char *prefix)
{
    int dim[4] = {s->cut.n[0], s->cut.n[1], s->cut.n[2], s->cut.channels};
    float *image;
    char name[96];

    if (p->opt.on_tensor == NULL)
        return;
    image = malloc((size_t)dim[0] * dim[1] * dim[2] * dim[3] * sizeof *image);
    snprintf(name, sizeof name, "%s.input", prefix);
    if (image != NULL && hp_input_ref(&s->cut, s->hu, image, NULL) == HP_OK) {
        if (dim[3] == 1)
            p->opt.on_tensor(name, image, dim, 3, p->opt.payload);
        else
            dump_part(p, image, dim, 0, dim[3], name);
    }
    free(image);
}

typedef struct tap {
    hp_pipeline *p;
    const char *const *prefix;
} tap;

static void on_stage(const hp_graph *g, const hp_stage_name *s, int item,
                     const float *data, void *payload)
{
    tap *t = payload;
    const hp_value *v = &g->value[s->value];
    char name[96];

    if (t->prefix[item] == NULL)
        return;
    snprintf(name, sizeof name, "%s.%s", t->prefix[item], s->name);
    if (s->rows)
        t->p->opt.on_tensor(name, data, v->dim + 2, 2, t->p->opt.payload);
    else
        dump_part(t->p, data, v->dim, s->c_first, s->c_count, name);
}

int hp_stage_batch(const hp_pipeline *p, hp_stage_id id)
{
    return hp_runner_batch(p->runner[id][0]);
}

hp_code hp_stage_run_batch(hp_pipeline *p, hp_stage_id id, int fold,
                           const char *const *prefix, int count, const int size[3],
                           const hp_ports *io, hp_error *reterr)
{
    tap t = {p, prefix};
    int last = count - 1;
    hp_runner *run = p->runner[id][fold];
    double start = hp_clock_mono_fine_ms() - hp_runner_compile_ms(run);
    hp_code r = hp_runner_run(run, size, count, io,
                              p->opt.on_tensor != NULL ? on_stage : NULL, &t, reterr);

    /* once the sizes are known, nothing is compiled: that is not the network's time */
    p->network_ms[id] += hp_clock_mono_fine_ms() - hp_runner_compile_ms(run) - start;
    if (r == HP_OK)
        return HP_OK;
    while (prefix[last] == NULL)
        last--;
    if (last == 0)
        return hp_wrap(reterr, r, "%s", prefix[0]);
    return hp_wrap(reterr, r, "%s to %s", prefix[0], prefix[last]);
}

hp_code hp_stage_run(hp_pipeline *p, hp_stage_id id, int fold, const char *prefix,
                     const int size[3], const hp_ports *io, hp_error *reterr)
{
    return hp_stage_run_batch(p, id, fold, &prefix, 1, size, io, reterr);
}

bool hp_stage_mask_box(const uint8_t *mask, const int n[3], hp_voxel_box *ret)
{
    hp_voxel_box b = {{n[0], n[1], n[2]}, {0, 0, 0}};
    size_t at = 0;

    for (int z = 0; z < n[0]; z++)
        for (int y = 0; y < n[1]; y++)
            for (int x = 0; x < n[2]; x++, at++) {
                int p[3] = {z, y, x};

                for (int a = 0; a < 3 && mask[at]; a++) {
                    b.lo[a] = p[a] < b.lo[a] ? p[a] : b.lo[a];
                    b.hi[a] = p[a] + 1 > b.hi[a] ? p[a] + 1 : b.hi[a];
                }
            }
    if (b.hi[0] == 0)
        return false;
    *ret = b;
    return true;
}

hp_voxel_box hp_stage_voxels_of(const hp_geom *g, const hp_box *box_mm)
{
    hp_voxel_box b;

    for (int a = 0; a < 3; a++) {
        double lo = floor(box_mm->lo[a] / g->spacing_mm[a] + 1e-9);
        double hi = ceil(box_mm->hi[a] / g->spacing_mm[a] - 1e-9);

        b.lo[a] = (int)fmin(fmax(lo, 0), g->n[a] - 1);
        b.hi[a] = (int)fmin(fmax(hi, b.lo[a] + 1), g->n[a]);
    }
    return b;
}

/* --- one study --------------------------------------------------------- */

/* A phase that is not there, by configuration: nothing, another phase, or no run. */
static hp_code settle_missing(hp_visit *v, bool *ret_complete, hp_error *reterr)
{
    static const hp_phase NEAREST[HP_PHASES][3] = {
        [HP_PHASE_NC] = {HP_PHASE_A, HP_PHASE_V, HP_PHASE_V},
        [HP_PHASE_A] = {HP_PHASE_V, HP_PHASE_V, HP_PHASE_V},
        [HP_PHASE_D] = {HP_PHASE_V, HP_PHASE_V, HP_PHASE_V},
    };
    hp_findings *f = v->f;

    *ret_complete = true;
    for (int phase = 0; phase < HP_PHASES; phase++) {
        f->substituted[phase] = HP_PHASE_NONE;
        if (v->vol[phase] != NULL)
            continue;
        if (v->p->opt.missing_phase == HP_MISSING_REFUSE) {
            snprintf(f->reason_code, sizeof f->reason_code, "missing_phase");
            snprintf(f->reason, sizeof f->reason, "the %s phase is missing",
                     hp_phase_title((hp_phase)phase));
            return hp_fail(reterr, HP_E_UNSUITABLE, "%s", f->reason);
        }
        if (v->p->opt.missing_phase == HP_MISSING_DETECT_ONLY) {
            *ret_complete = false;
            continue;
        }
        for (int k = 0; k < 3 && v->seen[phase] == NULL; k++)
            if (v->vol[NEAREST[phase][k]] != NULL) {
                v->seen[phase] = v->vol[NEAREST[phase][k]];
                f->substituted[phase] = NEAREST[phase][k];
            }
    }
    return HP_OK;
}

static void start_findings(hp_visit *v)
{
    hp_findings *f = v->f;
    const hp_model *m = v->p->model;

    f->grid = v->native[HP_PHASE_V] != NULL ? v->native[HP_PHASE_V]->geom : (hp_geom){0};
    f->outcome = HP_OUTCOME_NONE;
    f->candidate_count = 0;
    f->report_min = m->stage[HP_STAGE_DETECTOR].report_min;
    f->primary = f->class_index = -1;
    f->class_count = m->class_count;
    memcpy(f->classes, m->classes, sizeof f->classes);
    memset(f->votes, 0, sizeof f->votes);
    memset(f->probabilities, 0, sizeof f->probabilities);
    snprintf(f->bundle_name, sizeof f->bundle_name, "%s", m->name);
    snprintf(f->bundle_version, sizeof f->bundle_version, "%s", m->version);
    snprintf(f->bundle_sha256, sizeof f->bundle_sha256, "%s", m->sha256);
    snprintf(f->intended_use, sizeof f->intended_use, "%s", m->intended_use);
    hp_backend_describe(v->p->backend, f->device, sizeof f->device);
    memset(&v->p->detail, 0, sizeof v->p->detail);
}

typedef hp_code stage_fn(hp_visit *v, hp_error *reterr);

/* Runs a stage and notes its time, also of one that failed. */
static hp_code timed(hp_visit *v, const char *name, stage_fn *stage, hp_error *reterr)
{
    int64_t start = hp_clock_mono_ms();
    hp_code r;

    hp_stage_progress(v->p, name, 0);
    r = stage(v, reterr);
    hp_findings_time(v->f, name, (double)(hp_clock_mono_ms() - start));
    return r == HP_OK || r == HP_E_UNSUITABLE ? r : hp_wrap(reterr, r, "stage %s", name);
}

/* Design 4, detect-only: nothing behind the detector weeds its candidates out,
 * so its own score must. They are sorted by it. */
static hp_outcome without_class(const hp_findings *f)
{
    return f->candidates[0].score >= f->report_min ? HP_OUTCOME_DETECTED
                                                   : HP_OUTCOME_NO_CANDIDATE;
}

/* The detector and the texture networks are cut from these. */
static void hold_volumes(const hp_visit *v)
{
    hp_backend *b = v->p->backend;

    for (int phase = 0; phase < HP_PHASES && b->ops->hold != NULL; phase++)
        if (v->vol[phase] != NULL)
            b->ops->hold(b, v->vol[phase]->hu, hp_geom_voxels(&v->vol[phase]->geom));
}

static hp_code visit(hp_visit *v, hp_error *reterr)
{
    hp_findings *f = v->f;
    bool complete = false;
    hp_code r;

    start_findings(v);
    if (v->native[HP_PHASE_V] == NULL) {
        snprintf(f->reason_code, sizeof f->reason_code, "no_venous_phase");
        snprintf(f->reason, sizeof f->reason, "no portal venous phase");
        return hp_fail(reterr, HP_E_UNSUITABLE, "%s", f->reason);
    }
    r = timed(v, "register", hp_stage_register, reterr);
    if (r == HP_OK)
        r = settle_missing(v, &complete, reterr);
    if (r == HP_OK)
        r = timed(v, "liver", hp_stage_liver, reterr);
    if (r == HP_OK)
        hold_volumes(v);
    if (r == HP_OK)
        r = timed(v, "detect", hp_stage_detect, reterr);
    if (r != HP_OK)
        return r;
    if (f->candidate_count == 0) {
        f->outcome = HP_OUTCOME_NO_CANDIDATE;
        return HP_OK;
    }
    r = timed(v, "keyslice", hp_stage_keyslice, reterr);
    if (r == HP_OK)
        r = timed(v, "measure", hp_stage_measure, reterr);
    if (r == HP_OK && complete)
        r = timed(v, "ksf", hp_stage_ksf, reterr);
    if (r == HP_OK && complete)
        r = timed(v, "classify", hp_stage_classify, reterr);
    if (r == HP_OK)
        f->outcome = !complete            ? without_class(f)
                     : f->class_index < 0 ? HP_OUTCOME_NOT_ACCEPTED
                                          : HP_OUTCOME_CLASSIFIED;
    return r;
}

static hp_code liver_volume(hp_visit *v, hp_volume **ret, hp_error *reterr)
{
    hp_volume *out = NULL;
    hp_code r = hp_volume_new(&v->vol[HP_PHASE_V]->geom, &out, reterr);

    if (r != HP_OK)
        return r;
    for (size_t i = 0; i < hp_geom_voxels(&out->geom); i++)
        out->hu[i] = v->liver[i];
    *ret = out;
    return HP_OK;
}

hp_code hp_pipeline_run(hp_pipeline *p, const hp_volume *const native[HP_PHASES],
                        hp_findings *f, hp_volume *ret_registered[HP_PHASES],
                        hp_volume **ret_liver, hp_error *reterr)
{
    hp_visit v = {.p = p, .f = f, .native = native};
    hp_volume *liver = NULL;
    hp_code r;

    omp_set_num_threads(p->opt.threads > 0 ? p->opt.threads : omp_get_num_procs());
    memset(p->network_ms, 0, sizeof p->network_ms);
    r = visit(&v, reterr);
    if (p->backend->ops->let_go != NULL)
        p->backend->ops->let_go(p->backend);
    for (int s = 0; s < HP_STAGES; s++)
        if (p->network_ms[s] > 0)
            hp_findings_network_time(f, hp_stage_id_name((hp_stage_id)s),
                                     round(p->network_ms[s] * 10) / 10);
    /* a network may have moved on the way */
    hp_backend_describe(p->backend, f->device, sizeof f->device);
    if (r == HP_OK)
        r = liver_volume(&v, &liver, reterr);
    for (int phase = 0; phase < HP_PHASES; phase++) {
        if (r == HP_OK)
            ret_registered[phase] = v.vol[phase];
        else
            hp_volume_free(v.vol[phase]);
    }
    if (r == HP_OK)
        *ret_liver = liver;
    free(v.liver);
    hp_lesion_map_done(&v.lesions);
    return r;
}

hp_code hp_pipeline_liver(hp_pipeline *p, const hp_volume *vol, hp_volume **ret_mask,
                          hp_error *reterr)
{
    hp_visit v = {.p = p};
    hp_code r;

    omp_set_num_threads(p->opt.threads > 0 ? p->opt.threads : omp_get_num_procs());
    v.vol[HP_PHASE_V] = (hp_volume *)vol;
    v.liver = malloc(hp_geom_voxels(&vol->geom));
    if (v.liver == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "liver mask");
    r = hp_stage_liver_mask(p, vol, "liver.given", v.liver, &v.liver_box, reterr);
    if (r == HP_OK)
        r = liver_volume(&v, ret_mask, reterr);
    free(v.liver);
    return r;
}
