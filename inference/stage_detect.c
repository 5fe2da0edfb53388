/* CenterNet-3D on each phase's crop, decoding, and the merge across phases. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inference/stage_internal.h"
#include "kernels/nms.h"
#include "kernels/peaks.h"
#include "kernels/resize.h"

/* One item after another, where there are several. */
typedef struct heads {
    int n[3]; /* heat map size */
    float *hm, *whd, *off;
} heads;

static size_t heat_cells(const heads *h)
{
    return (size_t)h->n[0] * h->n[1] * h->n[2];
}

/* sigmoid, clamped to [1e-4, 1 - 1e-4] as in training. */
static void squash(float *hm, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float p = 1.0f / (1.0f + expf(-hm[i]));

        hm[i] = fminf(fmaxf(p, 1e-4f), 1 - 1e-4f);
    }
}

/* centre = index + offset, size in cells; times the stride that is crop pixels,
 * and times the crop's spacing mm. */
static hp_box box_of(const heads *h, int index, const int stride[3], const hp_geom *grid,
                     const double corner_mm[3], const double limit_mm[3])
{
    int at[3] = {index / (h->n[1] * h->n[2]), index / h->n[2] % h->n[1], index % h->n[2]};
    hp_box b;

    for (int a = 0; a < 3; a++) {
        double cell_mm = stride[a] * grid->spacing_mm[a];
        double size = fmax(h->whd[(size_t)index * 3 + a], 0.1) * cell_mm;
        double centre = corner_mm[a] + (at[a] + h->off[(size_t)index * 3 + a]) * cell_mm;

        centre = fmin(fmax(centre, 0), limit_mm[a]);
        b.lo[a] = fmax(centre - size / 2, 0);
        b.hi[a] = fmin(centre + size / 2, limit_mm[a]);
    }
    return b;
}

static hp_code cut_crop(const hp_volume *vol, const hp_voxel_box *crop, const int n[3],
                        int16_t *ret, hp_error *reterr)
{
    double lo[3], hi[3];

    for (int a = 0; a < 3; a++) {
        lo[a] = crop->lo[a];
        hi[a] = crop->hi[a];
    }
    return hp_resize_hu_ref(vol->hu, vol->geom.n, lo, hi, n, HP_PAD_HU, ret, reterr);
}

static int phase_rank(int phase)
{
    static const int RANK[HP_PHASES] = {
        [HP_PHASE_V] = 0, [HP_PHASE_A] = 1, [HP_PHASE_D] = 2, [HP_PHASE_NC] = 3};

    return RANK[phase];
}

/* Appends the phase's boxes; keeps them in the detail too. */
static void decode(hp_pipeline *p, int phase, const hp_geom *g, const hp_voxel_box *crop,
                   const heads *h, hp_scored_box *boxes, int *count)
{
    const hp_model_stage *s = &p->model->stage[HP_STAGE_DETECTOR];
    int k = s->topk < HP_PIPELINE_PEAKS ? s->topk : HP_PIPELINE_PEAKS, found, stride[3],
        n[3];
    hp_peak peak[HP_PIPELINE_PEAKS];
    double corner_mm[3], limit_mm[3];
    hp_geom grid;

    hp_net_heat_stride(&s->params, stride);
    for (int a = 0; a < 3; a++) {
        n[a] = crop->hi[a] - crop->lo[a];
        corner_mm[a] = crop->lo[a] * g->spacing_mm[a];
        limit_mm[a] = g->n[a] * g->spacing_mm[a];
    }
    grid = hp_geom_crop(g, crop->lo, n);
    grid = hp_geom_resample(&grid, s->params.grid);
    squash(h->hm, heat_cells(h));
    found = hp_peaks_ref(h->hm, h->n, (float)s->score_min, peak, k);
    p->detail.peak_count[phase] = found;
    for (int i = 0; i < found; i++) {
        hp_box b = box_of(h, peak[i].index, stride, &grid, corner_mm, limit_mm);

        p->detail.peak[phase][i].score = peak[i].score;
        p->detail.peak[phase][i].box_mm = b;
        boxes[(*count)++] = (hp_scored_box){
            .box = b,
            .score = peak[i].score,
            .order = phase_rank(phase) * HP_PIPELINE_PEAKS + i,
            .phases = 1u << phase,
        };
    }
}

static void to_findings(hp_findings *f, const hp_scored_box *boxes, int count)
{
    f->candidate_count = count;
    for (int i = 0; i < count; i++) {
        hp_candidate *c = &f->candidates[i];

        *c = (hp_candidate){.rank = i + 1,
                            .score = boxes[i].score,
                            .box_mm = boxes[i].box,
                            .phases = boxes[i].phases,
                            .key_slice = -1,
                            .p_primary = -1};
        for (int p = 0; p < HP_PHASES; p++)
            c->hu_lesion[p] = c->hu_liver[p] = NAN;
    }
}

static hp_code heads_init(heads *h, const hp_model_stage *s, int items, hp_error *reterr)
{
    size_t cells = (size_t)items;

    for (int a = 0; a < 3; a++) {
        int first = s->params.hourglass.stem_stride[a];
        int half = (s->params.grid[a] + first - 1) / first;

        h->n[a] = (half + s->params.hourglass.res_stride[a] - 1) /
                  s->params.hourglass.res_stride[a];
        cells *= (size_t)h->n[a];
    }
    h->hm = malloc(cells * sizeof *h->hm);
    h->whd = malloc(3 * cells * sizeof *h->whd);
    h->off = malloc(3 * cells * sizeof *h->off);
    return h->hm != NULL && h->whd != NULL && h->off != NULL
               ? HP_OK
               : hp_fail(reterr, HP_E_NO_MEMORY, "detector output");
}

/* Phases on their way through the network, as many at once as its device likes. */
typedef struct passage {
    const hp_volume *const *vol; /* by phase; where NULL */
    const int16_t *const *hu;    /* the phase's crop, (grid) */
    const hp_geom *g;
    const hp_voxel_box *crop;
    int phase[HP_PHASES], phases; /* those that are there */
    int batch;
    int16_t *cut; /* (grid) */
    float *in;    /* (batch, grid) */
    heads h;      /* of `batch` items */
} passage;

static hp_code passage_init(passage *a, hp_pipeline *p, hp_error *reterr)
{
    const hp_model_stage *s = &p->model->stage[HP_STAGE_DETECTOR];
    size_t size = (size_t)s->params.grid[0] * s->params.grid[1] * s->params.grid[2];

    for (int phase = 0; phase < HP_PHASES; phase++) {
        p->detail.peak_count[phase] = 0;
        if (a->vol[phase] != NULL || a->hu[phase] != NULL)
            a->phase[a->phases++] = phase;
    }
    a->batch = hp_stage_batch(p, HP_STAGE_DETECTOR);
    a->batch = a->batch < a->phases ? a->batch : a->phases;
    a->cut = malloc(size * sizeof *a->cut);
    a->in = malloc((size_t)a->batch * size * sizeof *a->in);
    if (a->cut == NULL || a->in == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "detector input");
    return heads_init(&a->h, s, a->batch, reterr);
}

static void passage_done(passage *a)
{
    free(a->h.hm);
    free(a->h.whd);
    free(a->h.off);
    free(a->cut);
    free(a->in);
}

/* Phases [first, first + count) of those that are there, to the heads. */
static hp_code run_network(hp_pipeline *p, passage *a, int first, int count,
                           hp_error *reterr)
{
    const hp_model_stage *s = &p->model->stage[HP_STAGE_DETECTOR];
    const int *n = s->params.grid;
    size_t size = (size_t)n[0] * n[1] * n[2];
    char name[HP_PHASES][24];
    const char *prefix[HP_PHASES];

    for (int i = 0; i < count; i++) {
        int phase = a->phase[first + i];
        const int16_t *hu = a->hu[phase];
        float *in = a->in + (size_t)i * size;
        hp_code r = HP_OK;

        if (hu == NULL) {
            r = cut_crop(a->vol[phase], a->crop, n, a->cut, reterr);
            hu = a->cut;
        }
        if (r != HP_OK)
            return r;
        snprintf(name[i], sizeof name[i], "detect.%s", hp_phase_name((hp_phase)phase));
        prefix[i] = name[i];
        hp_window_ref(hu, size, &s->window, in, 1);
        hp_stage_dump(p, in, n, 3, "%s.input", prefix[i]);
    }
    return hp_stage_run_batch(p, HP_STAGE_DETECTOR, 0, prefix, count, n,
                              (const float *const[]){a->in},
                              (float *const[]){a->h.hm, a->h.whd, a->h.off}, reterr);
}

/* All phases' boxes. */
static hp_code find_boxes(hp_pipeline *p, passage *a, hp_scored_box *boxes, int *count,
                          hp_error *reterr)
{
    size_t cells = heat_cells(&a->h);

    for (int first = 0; first < a->phases; first += a->batch) {
        int now = a->phases - first < a->batch ? a->phases - first : a->batch;
        hp_code r = run_network(p, a, first, now, reterr);

        if (r != HP_OK)
            return r;
        for (int i = 0; i < now; i++) {
            size_t at = (size_t)i * cells;
            heads h = a->h;

            h.hm += at;
            h.whd += 3 * at;
            h.off += 3 * at;
            decode(p, a->phase[first + i], a->g, a->crop, &h, boxes, count);
        }
        hp_stage_progress(p, "detect", (double)(first + now) / a->phases);
    }
    return HP_OK;
}

/* hu[phase]: that phase's crop; cut from vol[phase] where NULL. Candidates go to f. */
static hp_code detect(hp_pipeline *p, const hp_volume *const vol[HP_PHASES],
                      const int16_t *const hu[HP_PHASES], const hp_geom *g,
                      const hp_voxel_box *crop, hp_findings *f, hp_error *reterr)
{
    const hp_model_stage *s = &p->model->stage[HP_STAGE_DETECTOR];
    hp_scored_box *boxes = malloc(HP_PHASES * HP_PIPELINE_PEAKS * sizeof *boxes);
    passage a = {.vol = vol, .hu = hu, .g = g, .crop = crop};
    int count = 0;
    hp_code r = boxes != NULL ? passage_init(&a, p, reterr)
                              : hp_fail(reterr, HP_E_NO_MEMORY, "candidates");

    if (r == HP_OK)
        r = find_boxes(p, &a, boxes, &count, reterr);
    if (r == HP_OK) {
        count = hp_nms_ref(boxes, count, s->nms_iou, s->keep);
        to_findings(f, boxes, count);
    }
    passage_done(&a);
    free(boxes);
    return r;
}

hp_code hp_stage_detect(hp_visit *v, hp_error *reterr)
{
    static const int16_t *const NONE[HP_PHASES] = {NULL};
    const hp_model_stage *s = &v->p->model->stage[HP_STAGE_DETECTOR];
    const hp_geom *g = &v->vol[HP_PHASE_V]->geom;
    hp_voxel_box crop = hp_crop_detector(g, &v->liver_box, s->crop_margin_mm);

    return detect(v->p, (const hp_volume *const *)v->vol, NONE, g, &crop, v->f, reterr);
}

hp_code hp_pipeline_detect(hp_pipeline *p, const int16_t *const hu[HP_PHASES],
                           const hp_geom *g, const int lo[3], const int hi[3],
                           hp_findings *f, hp_error *reterr)
{
    static const hp_volume *const NONE[HP_PHASES] = {NULL};
    hp_voxel_box crop = {{lo[0], lo[1], lo[2]}, {hi[0], hi[1], hi[2]}};

    return detect(p, NONE, hu, g, &crop, f, reterr);
}
