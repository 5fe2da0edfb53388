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

/* ret (members, classes): softmax of each ensemble member. */
static hp_code run_stage(hp_pipeline *p, hp_stage_id id, const int16_t *patch, int side,
                         const double rect[4], const char *name,
                         double (*ret)[HP_MAX_CLASSES], hp_error *reterr)
{
    const hp_model_stage *s = &p->model->stage[id];
    int c = s->params.sadt.mask_input ? 5 : 4,
        cells = hp_net_sadt_cells(&s->params, side);
    int size[3] = {1, side, side};
    float *image = malloc((size_t)side * side * (size_t)c * sizeof *image);
    float *delta = malloc((size_t)cells * cells * sizeof *delta), logit[64];
    hp_code r = image != NULL && delta != NULL
                    ? HP_OK
                    : hp_fail(reterr, HP_E_NO_MEMORY, "texture input");

    if (r == HP_OK) {
        char full[64];

        fill_image(s, patch, side, rect, image);
        hp_grid_mask_ref(rect, cells, cells, s->params.sadt.output_stride, delta);
        snprintf(full, sizeof full, "%s.input", name);
        hp_stage_dump_channels_last(p, image, (int[4]){1, side, side, c}, full);
        hp_stage_dump(p, delta, (int[2]){cells, cells}, 2, "%s.mask", name);
    }
    for (int i = 0; i < s->weights_count && r == HP_OK; i++) {
        char prefix[48];

        snprintf(prefix, sizeof prefix, "%s.fold%d", name, i);
        r = hp_stage_run(p, id, i, prefix, size, (const float *const[]){image, delta},
                         (float *const[]){logit}, reterr);
        if (r == HP_OK)
            softmax(logit, s->params.sadt.classes, s->temperature, ret[i]);
    }
    free(image);
    free(delta);
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

static hp_code run_candidate(hp_visit *v, hp_stage_id id, const hp_candidate *c,
                             const char *name, double (*ret)[HP_MAX_CLASSES],
                             hp_error *reterr)
{
    int16_t *patch = NULL;
    double rect[4];
    int side = 0;
    hp_code r = cut_patch(v, &v->p->model->stage[id], c, &side, &patch, rect, reterr);

    if (r == HP_OK)
        r = run_stage(v->p, id, patch, side, rect, name, ret, reterr);
    free(patch);
    return r;
}

hp_code hp_stage_ksf(hp_visit *v, hp_error *reterr)
{
    const hp_model_stage *s = &v->p->model->stage[HP_STAGE_KSF];
    hp_findings *f = v->f;

    f->primary = -1;
    for (int i = 0; i < f->candidate_count; i++) {
        double p[HP_MODEL_FOLDS][HP_MAX_CLASSES];
        char name[24];
        hp_code r;

        snprintf(name, sizeof name, "ksf.%d", i);
        r = run_candidate(v, HP_STAGE_KSF, &f->candidates[i], name, p, reterr);
        if (r != HP_OK)
            return r;
        f->candidates[i].p_primary = p[0][1];
        hp_stage_progress(v->p, "ksf", (i + 1.0) / f->candidate_count);
        /* Candidates stand by detection score: the first accepted one wins. */
        if (f->primary < 0 && p[0][1] >= s->threshold)
            f->primary = i;
    }
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
    hp_code r;

    if (f->primary < 0)
        return HP_OK;
    d->folds = v->p->model->stage[HP_STAGE_CLASSIFY].weights_count;
    r = run_candidate(v, HP_STAGE_CLASSIFY, &f->candidates[f->primary], "classify",
                      d->fold, reterr);
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
