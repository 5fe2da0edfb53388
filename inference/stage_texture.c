/* The key-slice filter (binary SaDT) and the four-class ensemble (paper,
 * eq. 4-6): four phases of the key slice, the box's rectangle as the mask. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inference/stage_internal.h"
#include "kernels/encode.h"

static void softmax(const float *logit, int n, double temperature, double *ret)
{
    double max = -INFINITY, sum = 0;

    for (int i = 0; i < n; i++)
        max = fmax(max, logit[i]);
    for (int i = 0; i < n; i++)
        sum += ret[i] = exp((logit[i] - max) / temperature);
    for (int i = 0; i < n; i++)
        ret[i] /= sum;
}

/* Four phases (4, side, side) HU to NHWC, with the mask in pixels behind them. */
static void fill_image(const hp_model_stage *s, const int16_t *patch, int side,
                       const double rect[4], float *image)
{
    int c = s->params.sadt.mask_input ? 5 : 4;
    size_t plane = (size_t)side * side;

    for (int phase = 0; phase < HP_PHASES; phase++)
        hp_window_ref(patch + (size_t)phase * plane, plane, &s->window, image + phase, c);
    for (size_t i = 0; i < plane && c == 5; i++) {
        double y = (double)(i / (size_t)side) + 0.5, x = (double)(i % (size_t)side) + 0.5;

        image[i * 5 + 4] = y >= rect[0] && y < rect[2] && x >= rect[1] && x < rect[3];
    }
}

/* Crops of one side on their way through a network. */
typedef struct crops {
    int side, cells, channels;
    int room, count;      /* room - count of them only fill the batch */
    float *image, *delta; /* (room, side, side, channels), (room, cells, cells) */
    char name[HP_MAX_CANDIDATES][24];
} crops;

static void crops_done(crops *k)
{
    free(k->image);
    free(k->delta);
    *k = (crops){0};
}

/* room: HP_MAX_CANDIDATES at most. */
static hp_code crops_init(crops *k, const hp_model_stage *s, int side, int room,
                          hp_error *reterr)
{
    *k = (crops){.side = side,
                 .cells = hp_net_sadt_cells(&s->params, side),
                 .channels = s->params.sadt.mask_input ? 5 : 4,
                 .room = room};
    k->image = calloc((size_t)room * side * side * k->channels, sizeof *k->image);
    k->delta = calloc((size_t)room * k->cells * k->cells, sizeof *k->delta);
    if (k->image != NULL && k->delta != NULL)
        return HP_OK;
    crops_done(k);
    return hp_fail(reterr, HP_E_NO_MEMORY, "texture input");
}

static void crops_add(crops *k, hp_pipeline *p, const hp_model_stage *s,
                      const int16_t *patch, const double rect[4], const char *name)
{
    size_t i = (size_t)k->count;
    float *image = k->image + i * k->side * k->side * k->channels;
    float *delta = k->delta + i * k->cells * k->cells;
    char full[64];

    snprintf(k->name[k->count++], sizeof k->name[0], "%s", name);
    fill_image(s, patch, k->side, rect, image);
    hp_grid_mask_ref(rect, k->cells, k->cells, s->params.sadt.output_stride, delta);
    snprintf(full, sizeof full, "%s.input", name);
    hp_stage_dump_channels_last(p, image, (int[4]){1, k->side, k->side, k->channels},
                                full);
    hp_stage_dump(p, delta, (int[2]){k->cells, k->cells}, 2, "%s.mask", name);
}

/* ret (count, classes): softmax of ensemble member `fold` for each crop. */
static hp_code crops_run(const crops *k, hp_pipeline *p, hp_stage_id id, int fold,
                         double (*ret)[HP_MAX_CLASSES], hp_error *reterr)
{
    const hp_model_stage *s = &p->model->stage[id];
    float logit[HP_MAX_CANDIDATES * 64];
    char name[HP_MAX_CANDIDATES][48];
    const char *prefix[HP_MAX_CANDIDATES] = {NULL};
    hp_code r;

    for (int i = 0; i < k->count; i++) {
        snprintf(name[i], sizeof name[i], "%s.fold%d", k->name[i], fold);
        prefix[i] = name[i];
    }
    r = hp_stage_run_batch(p, id, fold, prefix, k->room, (int[3]){1, k->side, k->side},
                           (const float *const[]){k->image, k->delta},
                           (float *const[]){logit}, reterr);
    for (int i = 0; i < k->count && r == HP_OK; i++)
        softmax(logit + i * s->params.sadt.classes, s->params.sadt.classes,
                s->temperature, ret[i]);
    return r;
}

/* ret (members, classes): one crop through each ensemble member. */
static hp_code run_stage(hp_pipeline *p, hp_stage_id id, const int16_t *patch, int side,
                         const double rect[4], const char *name,
                         double (*ret)[HP_MAX_CLASSES], hp_error *reterr)
{
    const hp_model_stage *s = &p->model->stage[id];
    crops k;
    hp_code r = crops_init(&k, s, side, 1, reterr);

    if (r == HP_OK)
        crops_add(&k, p, s, patch, rect, name);
    for (int i = 0; i < s->weights_count && r == HP_OK; i++)
        r = crops_run(&k, p, id, i, &ret[i], reterr);
    crops_done(&k);
    return r;
}

/* The crop at the candidate's key slice: side, patch and the box in its pixels. */
static hp_code cut_patch(const hp_visit *v, const hp_model_stage *s,
                         const hp_candidate *c, int *ret_side, int16_t **ret_patch,
                         double rect[4], hp_error *reterr)
{
    double h = (c->box_mm.hi[1] - c->box_mm.lo[1]) / s->patch_mm;
    double w = (c->box_mm.hi[2] - c->box_mm.lo[2]) / s->patch_mm;
    int side = hp_crop_sadt_side(h, w, s->crop_px, s->ring_px), n[2] = {side, side};
    size_t plane = (size_t)side * side;
    int16_t *patch = malloc(HP_PHASES * plane * sizeof *patch);
    double lo_mm[2];
    hp_code r = patch != NULL ? HP_OK : hp_fail(reterr, HP_E_NO_MEMORY, "texture patch");

    for (int a = 0; a < 2; a++) {
        lo_mm[a] =
            (c->box_mm.lo[a + 1] + c->box_mm.hi[a + 1]) / 2 - side * s->patch_mm / 2;
        rect[a] = (c->box_mm.lo[a + 1] - lo_mm[a]) / s->patch_mm;
        rect[2 + a] = (c->box_mm.hi[a + 1] - lo_mm[a]) / s->patch_mm;
    }
    for (int phase = 0; phase < HP_PHASES && r == HP_OK; phase++) {
        const hp_volume *vol = v->seen[phase];
        const hp_geom *g = &vol->geom;

        r = hp_crop_plane(g, vol->hu + (size_t)c->key_slice * g->n[1] * g->n[2], lo_mm, n,
                          s->patch_mm, patch + (size_t)phase * plane, reterr);
    }
    if (r != HP_OK) {
        free(patch);
        return r;
    }
    *ret_side = side;
    *ret_patch = patch;
    return HP_OK;
}

/* p_primary of the candidates whose crops these are, all in one batch. */
static hp_code filter(hp_visit *v, crops *k, const int *candidate, int *done,
                      hp_error *reterr)
{
    hp_findings *f = v->f;
    double p[HP_MAX_CANDIDATES][HP_MAX_CLASSES];
    hp_code r = crops_run(k, v->p, HP_STAGE_KSF, 0, p, reterr);

    if (r != HP_OK)
        return r;
    for (int i = 0; i < k->count; i++)
        f->candidates[candidate[i]].p_primary = p[i][1];
    *done += k->count;
    k->count = 0;
    hp_stage_progress(v->p, "ksf", (double)*done / f->candidate_count);
    return HP_OK;
}

/* Crops of the usual side share a batch, always as large, so that it is compiled
 * once; those that a large lesion asked for are few, and go alone. */
static hp_code filter_all(hp_visit *v, crops *usual, hp_error *reterr)
{
    const hp_model_stage *s = &v->p->model->stage[HP_STAGE_KSF];
    int at[HP_MAX_CANDIDATES], done = 0;

    for (int i = 0; i < v->f->candidate_count; i++) {
        int16_t *patch = NULL;
        double rect[4];
        int side = 0;
        crops one = {0}, *k = usual;
        char name[24];
        hp_code r = cut_patch(v, s, &v->f->candidates[i], &side, &patch, rect, reterr);

        if (r == HP_OK && side != usual->side) {
            r = crops_init(&one, s, side, 1, reterr);
            k = &one;
        }
        if (r == HP_OK) {
            snprintf(name, sizeof name, "ksf.%d", i);
            if (k == usual)
                at[k->count] = i;
            crops_add(k, v->p, s, patch, rect, name);
        }
        if (r == HP_OK && k->count == k->room)
            r = filter(v, k, k == usual ? at : &i, &done, reterr);
        crops_done(&one);
        free(patch);
        if (r != HP_OK)
            return r;
    }
    return usual->count > 0 ? filter(v, usual, at, &done, reterr) : HP_OK;
}

hp_code hp_stage_ksf(hp_visit *v, hp_error *reterr)
{
    const hp_model_stage *s = &v->p->model->stage[HP_STAGE_KSF];
    int room = hp_stage_batch(v->p, HP_STAGE_KSF) > 1 ? HP_MAX_CANDIDATES : 1;
    hp_findings *f = v->f;
    crops usual;
    hp_code r = crops_init(&usual, s, s->crop_px, room, reterr);

    f->primary = -1;
    if (r == HP_OK)
        r = filter_all(v, &usual, reterr);
    crops_done(&usual);
    if (r != HP_OK)
        return r;
    /* Candidates stand by detection score: the first accepted one wins. */
    for (int i = 0; i < f->candidate_count && f->primary < 0; i++)
        if (f->candidates[i].p_primary >= s->threshold)
            f->primary = i;
    if (f->primary < 0 && v->p->opt.evaluate && f->candidate_count > 0)
        f->primary = 0; /* one prediction for each patient (Table V needs it) */
    return HP_OK;
}

int hp_pipeline_vote(const double fold[][HP_MAX_CLASSES], int folds, int classes,
                     int ret_votes[HP_MAX_CLASSES], double ret_mean[HP_MAX_CLASSES])
{
    int best = 0;

    memset(ret_votes, 0, HP_MAX_CLASSES * sizeof *ret_votes);
    memset(ret_mean, 0, HP_MAX_CLASSES * sizeof *ret_mean);
    for (int i = 0; i < folds; i++) {
        int top = 0;

        for (int k = 0; k < classes; k++) {
            ret_mean[k] += fold[i][k] / folds;
            top = fold[i][k] > fold[i][top] ? k : top;
        }
        ret_votes[top]++;
    }
    for (int k = 1; k < classes; k++)
        if (ret_votes[k] > ret_votes[best] ||
            (ret_votes[k] == ret_votes[best] && ret_mean[k] > ret_mean[best]))
            best = k;
    return best;
}

hp_code hp_stage_classify(hp_visit *v, hp_error *reterr)
{
    hp_findings *f = v->f;
    hp_pipeline_detail *d = &v->p->detail;
    const hp_model_stage *s = &v->p->model->stage[HP_STAGE_CLASSIFY];
    int16_t *patch = NULL;
    double rect[4];
    int side = 0;
    hp_code r;

    if (f->primary < 0)
        return HP_OK;
    d->folds = s->weights_count;
    r = cut_patch(v, s, &f->candidates[f->primary], &side, &patch, rect, reterr);
    if (r == HP_OK)
        r = run_stage(v->p, HP_STAGE_CLASSIFY, patch, side, rect, "classify", d->fold,
                      reterr);
    free(patch);
    if (r == HP_OK)
        f->class_index =
            hp_pipeline_vote((const double(*)[HP_MAX_CLASSES])d->fold, d->folds,
                             f->class_count, f->votes, f->probabilities);
    return r;
}

/* --- for tools --------------------------------------------------------- */

int hp_pipeline_patch_side(const hp_pipeline *p, double box_h_mm, double box_w_mm)
{
    const hp_model_stage *s = &p->model->stage[HP_STAGE_CLASSIFY];

    return hp_crop_sadt_side(box_h_mm / s->patch_mm, box_w_mm / s->patch_mm, s->crop_px,
                             s->ring_px);
}

double hp_pipeline_patch_mm(const hp_pipeline *p)
{
    return p->model->stage[HP_STAGE_CLASSIFY].patch_mm;
}

hp_code hp_pipeline_texture(hp_pipeline *p, const int16_t *patch, int side,
                            const double rect[4], double *ret_p_primary,
                            hp_pipeline_detail *ret_folds, hp_error *reterr)
{
    double out[HP_MODEL_FOLDS][HP_MAX_CLASSES];
    hp_code r = HP_OK;

    if (ret_p_primary != NULL) {
        r = run_stage(p, HP_STAGE_KSF, patch, side, rect, "ksf.given", out, reterr);
        if (r == HP_OK)
            *ret_p_primary = out[0][1];
    }
    if (r == HP_OK && ret_folds != NULL) {
        ret_folds->folds = p->model->stage[HP_STAGE_CLASSIFY].weights_count;
        r = run_stage(p, HP_STAGE_CLASSIFY, patch, side, rect, "classify.given",
                      ret_folds->fold, reterr);
    }
    return r;
}
