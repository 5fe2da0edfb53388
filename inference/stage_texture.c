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

/* One candidate's crop at its key slice: four phases, and the box in its pixels. */
typedef struct patch {
    int side;
    hp_slices slices;
} patch;

/* The box as the mask, in pixels of the crop; sources and window are the stage's. */
static patch patch_of(const hp_model_stage *s, int side, const double rect[4])
{
    patch k = {.side = side};
    hp_input *cut = &k.slices.cut;

    cut->n[0] = cut->src_n[0] = 1;
    cut->n[1] = cut->n[2] = side;
    cut->hi[0] = 1;
    cut->pad = HP_PAD_HU;
    cut->window = s->window;
    cut->sources = HP_PHASES;
    cut->mask = s->params.sadt.mask_input;
    cut->channels = HP_PHASES + cut->mask;
    memcpy(cut->rect, rect, sizeof cut->rect);
    return k;
}

/* Out of the slices that the networks see. */
static patch cut_patch(const hp_visit *v, const hp_model_stage *s, const hp_candidate *c)
{
    const hp_geom *g = &v->vol[HP_PHASE_V]->geom; /* every phase's */
    double h = (c->box_mm.hi[1] - c->box_mm.lo[1]) / s->patch_mm;
    double w = (c->box_mm.hi[2] - c->box_mm.lo[2]) / s->patch_mm;
    int side = hp_crop_sadt_side(h, w, s->crop_px, s->ring_px);
    double half_mm = side * s->patch_mm / 2, lo_mm[2], rect[4];
    patch k;

    for (int a = 0; a < 2; a++) {
        lo_mm[a] = (c->box_mm.lo[a + 1] + c->box_mm.hi[a + 1]) / 2 - half_mm;
        rect[a] = (c->box_mm.lo[a + 1] - lo_mm[a]) / s->patch_mm;
        rect[2 + a] = (c->box_mm.hi[a + 1] - lo_mm[a]) / s->patch_mm;
    }
    k = patch_of(s, side, rect);
    for (int a = 0; a < 2; a++) {
        k.slices.cut.src_n[a + 1] = g->n[a + 1];
        k.slices.cut.lo[a + 1] = lo_mm[a] / g->spacing_mm[a + 1];
        k.slices.cut.hi[a + 1] = (lo_mm[a] + side * s->patch_mm) / g->spacing_mm[a + 1];
    }
    for (int phase = 0; phase < HP_PHASES; phase++)
        k.slices.hu[phase] =
            v->seen[phase]->hu + (size_t)c->key_slice * g->n[1] * g->n[2];
    return k;
}

/* Patches of one side on their way through a network. */
typedef struct crops {
    int side, cells;
    int room, count; /* room - count of them only fill the batch */
    hp_slices slices[HP_MAX_CANDIDATES];
    float *delta; /* (room, cells, cells) */
    char name[HP_MAX_CANDIDATES][24];
} crops;

static void crops_done(crops *k)
{
    free(k->delta);
    k->delta = NULL;
}

/* room: HP_MAX_CANDIDATES at most. */
static hp_code crops_init(crops *k, const hp_model_stage *s, int side, int room,
                          hp_error *reterr)
{
    k->side = side;
    k->cells = hp_net_sadt_cells(&s->params, side);
    k->room = room;
    k->count = 0;
    k->delta = calloc((size_t)room * k->cells * k->cells, sizeof *k->delta);
    return k->delta != NULL ? HP_OK : hp_fail(reterr, HP_E_NO_MEMORY, "texture input");
}

static void crops_add(crops *k, hp_pipeline *p, const hp_model_stage *s, const patch *own,
                      const char *name)
{
    float *delta = k->delta + (size_t)k->count * k->cells * k->cells;

    /* the rest of the batch is more of the same */
    for (int i = k->count; i < k->room; i++)
        k->slices[i] = own->slices;
    snprintf(k->name[k->count++], sizeof k->name[0], "%s", name);
    hp_grid_mask_ref(own->slices.cut.rect, k->cells, k->cells,
                     s->params.sadt.output_stride, delta);
    hp_stage_dump_slices(p, &own->slices, name);
    hp_stage_dump(p, delta, (int[2]){k->cells, k->cells}, 2, "%s.mask", name);
}

/* ret (count, classes): softmax of ensemble member `fold` for each crop. */
static hp_code crops_run(const crops *k, hp_pipeline *p, hp_stage_id id, int fold,
                         double (*ret)[HP_MAX_CLASSES], hp_error *reterr)
{
    const hp_model_stage *s = &p->model->stage[id];
    float logit[HP_MAX_CANDIDATES * 64];
    hp_ports io = {.in = {NULL, k->delta}, .out = {logit}, .slices = k->slices};
    char name[HP_MAX_CANDIDATES][48];
    const char *prefix[HP_MAX_CANDIDATES] = {NULL};
    hp_code r;

    for (int i = 0; i < k->count; i++) {
        snprintf(name[i], sizeof name[i], "%s.fold%d", k->name[i], fold);
        prefix[i] = name[i];
    }
    r = hp_stage_run_batch(p, id, fold, prefix, k->room, (int[3]){1, k->side, k->side},
                           &io, reterr);
    for (int i = 0; i < k->count && r == HP_OK; i++)
        softmax(logit + i * s->params.sadt.classes, s->params.sadt.classes,
                s->temperature, ret[i]);
    return r;
}

/* ret (members, classes): one crop through each ensemble member. */
static hp_code run_stage(hp_pipeline *p, hp_stage_id id, const patch *own,
                         const char *name, double (*ret)[HP_MAX_CLASSES],
                         hp_error *reterr)
{
    const hp_model_stage *s = &p->model->stage[id];
    crops k;
    hp_code r = crops_init(&k, s, own->side, 1, reterr);

    if (r == HP_OK)
        crops_add(&k, p, s, own, name);
    for (int i = 0; i < s->weights_count && r == HP_OK; i++)
        r = crops_run(&k, p, id, i, &ret[i], reterr);
    crops_done(&k);
    return r;
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
        patch own = cut_patch(v, s, &v->f->candidates[i]);
        crops one = {0}, *k = usual;
        char name[24];
        hp_code r = HP_OK;

        if (own.side != usual->side) {
            r = crops_init(&one, s, own.side, 1, reterr);
            k = &one;
        }
        if (r == HP_OK) {
            snprintf(name, sizeof name, "ksf.%d", i);
            if (k == usual)
                at[k->count] = i;
            crops_add(k, v->p, s, &own, name);
        }
        if (r == HP_OK && k->count == k->room)
            r = filter(v, k, k == usual ? at : &i, &done, reterr);
        crops_done(&one);
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
    patch own;
    hp_code r;

    if (f->primary < 0)
        return HP_OK;
    d->folds = s->weights_count;
    own = cut_patch(v, s, &f->candidates[f->primary]);
    r = run_stage(v->p, HP_STAGE_CLASSIFY, &own, "classify", d->fold, reterr);
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

/* What stage `id` makes of (4, side, side) HU that are cut already. */
static patch given_patch(const hp_pipeline *p, hp_stage_id id, const int16_t *hu,
                         int side, const double rect[4])
{
    patch k = patch_of(&p->model->stage[id], side, rect);

    for (int a = 1; a < 3; a++) {
        k.slices.cut.src_n[a] = side;
        k.slices.cut.hi[a] = side;
    }
    for (int phase = 0; phase < HP_PHASES; phase++)
        k.slices.hu[phase] = hu + (size_t)phase * side * side;
    return k;
}

hp_code hp_pipeline_texture(hp_pipeline *p, const int16_t *patch_hu, int side,
                            const double rect[4], double *ret_p_primary,
                            hp_pipeline_detail *ret_folds, hp_error *reterr)
{
    double out[HP_MODEL_FOLDS][HP_MAX_CLASSES];
    hp_code r = HP_OK;

    if (ret_p_primary != NULL) {
        patch own = given_patch(p, HP_STAGE_KSF, patch_hu, side, rect);

        r = run_stage(p, HP_STAGE_KSF, &own, "ksf.given", out, reterr);
        if (r == HP_OK)
            *ret_p_primary = out[0][1];
    }
    if (r == HP_OK && ret_folds != NULL) {
        patch own = given_patch(p, HP_STAGE_CLASSIFY, patch_hu, side, rect);

        ret_folds->folds = p->model->stage[HP_STAGE_CLASSIFY].weights_count;
        r = run_stage(p, HP_STAGE_CLASSIFY, &own, "classify.given", ret_folds->fold,
                      reterr);
    }
    return r;
}
