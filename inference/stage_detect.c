/* CenterNet-3D on each phase's crop, decoding, and the merge across phases. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "inference/stage_internal.h"
#include "kernels/nms.h"

/* Cells of the heat map are crop pixels by the stride, and by the crop's spacing mm. */
static hp_box box_of(const hp_box_peak *peak, const int stride[3], const hp_geom *grid,
                     const double corner_mm[3], const double limit_mm[3])
{
    hp_box b;

    for (int a = 0; a < 3; a++) {
        double cell_mm = stride[a] * grid->spacing_mm[a];
        double size = peak->size[a] * cell_mm;
        double centre = corner_mm[a] + peak->centre[a] * cell_mm;

        centre = fmin(fmax(centre, 0), limit_mm[a]);
        b.lo[a] = fmax(centre - size / 2, 0);
        b.hi[a] = fmin(centre + size / 2, limit_mm[a]);
    }
    return b;
}

static int phase_rank(int phase)
{
    static const int RANK[HP_PHASES] = {
        [HP_PHASE_V] = 0, [HP_PHASE_A] = 1, [HP_PHASE_D] = 2, [HP_PHASE_NC] = 3};

    return RANK[phase];
}

/* Appends the phase's boxes; keeps them in the detail too. */
static void add_boxes(hp_pipeline *p, int phase, const hp_geom *g,
                      const hp_voxel_box *crop, const hp_decoded *d, hp_scored_box *boxes,
                      int *count)
{
    const hp_model_stage *s = &p->model->stage[HP_STAGE_DETECTOR];
    int stride[3], n[3];
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
    p->detail.peak_count[phase] = d->count;
    for (int i = 0; i < d->count; i++) {
        hp_box b = box_of(&d->peak[i], stride, &grid, corner_mm, limit_mm);

        p->detail.peak[phase][i].score = d->peak[i].score;
        p->detail.peak[phase][i].box_mm = b;
        boxes[(*count)++] = (hp_scored_box){
            .box = b,
            .score = d->peak[i].score,
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

/* What a phase's image is cut from. */
static hp_slices slices_of(const hp_model_stage *s, const hp_volume *vol,
                           const int16_t *hu, const hp_voxel_box *crop)
{
    hp_slices ret = {
        .cut = {.pad = HP_PAD_HU, .window = s->window, .sources = 1, .channels = 1}};

    ret.hu[0] = hu != NULL ? hu : vol->hu;
    for (int a = 0; a < 3; a++) {
        ret.cut.n[a] = s->params.grid[a];
        ret.cut.src_n[a] = hu != NULL ? s->params.grid[a] : vol->geom.n[a];
        ret.cut.lo[a] = hu != NULL ? 0 : crop->lo[a];
        ret.cut.hi[a] = hu != NULL ? s->params.grid[a] : crop->hi[a];
    }
    return ret;
}

/* Phases on their way through the network. */
typedef struct passage {
    int phase[HP_PHASES], phases; /* those that are there */
    hp_slices slices[HP_PHASES];
    hp_decoded decoded[HP_PHASES];
} passage;

/* As many at once as its device likes. */
static hp_code run_network(hp_pipeline *p, passage *a, hp_error *reterr)
{
    const hp_model_stage *s = &p->model->stage[HP_STAGE_DETECTOR];
    int batch = hp_stage_batch(p, HP_STAGE_DETECTOR);
    char name[HP_PHASES][24];
    const char *prefix[HP_PHASES];

    for (int i = 0; i < a->phases; i++) {
        snprintf(name[i], sizeof name[i], "detect.%s",
                 hp_phase_name((hp_phase)a->phase[i]));
        prefix[i] = name[i];
        hp_stage_dump_slices(p, &a->slices[i], name[i]);
    }
    for (int first = 0; first < a->phases; first += batch) {
        int now = a->phases - first < batch ? a->phases - first : batch;
        hp_ports io = {.slices = a->slices + first,
                       .decoded = a->decoded + first,
                       .min = (float)s->score_min,
                       .k = s->topk < HP_PIPELINE_PEAKS ? s->topk : HP_PIPELINE_PEAKS};
        hp_code r = hp_stage_run_batch(p, HP_STAGE_DETECTOR, 0, prefix + first, now,
                                       s->params.grid, &io, reterr);

        if (r != HP_OK)
            return r;
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
    passage *a = calloc(1, sizeof *a);
    int count = 0;
    hp_code r = boxes != NULL && a != NULL
                    ? HP_OK
                    : hp_fail(reterr, HP_E_NO_MEMORY, "candidates");

    for (int phase = 0; phase < HP_PHASES && r == HP_OK; phase++) {
        p->detail.peak_count[phase] = 0;
        if (vol[phase] == NULL && hu[phase] == NULL)
            continue;
        a->slices[a->phases] = slices_of(s, vol[phase], hu[phase], crop);
        a->phase[a->phases++] = phase;
    }
    if (r == HP_OK)
        r = run_network(p, a, reterr);
    if (r == HP_OK) {
        for (int i = 0; i < a->phases; i++)
            add_boxes(p, a->phase[i], g, crop, &a->decoded[i], boxes, &count);
        count = hp_nms_ref(boxes, count, s->nms_iou, s->keep);
        to_findings(f, boxes, count);
    }
    free(a);
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
