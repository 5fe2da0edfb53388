/* The liver: network on the whole scan at 4 x 3 x 3 mm in overlapping z windows,
 * largest part, holes filled, logits resampled to the V grid and cut at the
 * threshold. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inference/stage_internal.h"
#include "kernels/mask.h"
#include "kernels/resize.h"
#include "kernels/warp.h"

static hp_code body_box(const hp_volume *vol, hp_box *ret, hp_error *reterr)
{
    hp_geom coarse = hp_crop_body_grid(&vol->geom);
    hp_auto(hp_volume) *small = NULL;
    hp_code r = hp_volume_new(&coarse, &small, reterr);

    if (r == HP_OK)
        r = hp_warp_hu_ref(vol, &coarse, HP_PAD_HU, small->hu, reterr);
    if (r == HP_OK)
        *ret = hp_crop_body(&coarse, small->hu);
    return r;
}

/* Mean logit over the windows that cover each plane. */
static hp_code run_windows(hp_pipeline *p, const hp_volume *grid, const char *name,
                           float *logit, hp_error *reterr)
{
    const hp_model_stage *s = &p->model->stage[HP_STAGE_LIVER];
    const int *n = s->params.grid;
    int nz = grid->geom.n[0], windows = hp_crop_windows(nz, n[0]);
    size_t plane = (size_t)n[1] * (size_t)n[2], size = (size_t)n[0] * plane;
    float *in = malloc(size * sizeof *in), *out = malloc(size * sizeof *out);
    int *seen = calloc((size_t)nz, sizeof *seen);
    hp_code r = in != NULL && out != NULL && seen != NULL
                    ? HP_OK
                    : hp_fail(reterr, HP_E_NO_MEMORY, "liver windows");

    for (int w = 0; w < windows && r == HP_OK; w++) {
        int z0 = hp_crop_window_start(nz, n[0], w);
        char prefix[32];

        snprintf(prefix, sizeof prefix, "%s.w%d", name, w);
        hp_window_ref(grid->hu + (size_t)z0 * plane, 1, size, &s->window, in, 1);
        hp_stage_dump(p, in, n, 3, "%s.input", prefix);
        r = hp_stage_run(p, HP_STAGE_LIVER, 0, prefix, n,
                         &(hp_ports){.in = {in}, .out = {out}}, reterr);
        for (int z = 0; z < n[0] && r == HP_OK; z++) {
            float *to = logit + (size_t)(z0 + z) * plane;
            const float *from = out + (size_t)z * plane;

            for (size_t i = 0; i < plane; i++)
                to[i] = seen[z0 + z] == 0 ? from[i] : to[i] + from[i];
            seen[z0 + z]++;
        }
    }
    for (int z = 0; z < nz && r == HP_OK; z++)
        for (size_t i = 0; i < plane; i++)
            logit[(size_t)z * plane + i] /= (float)seen[z];
    free(in);
    free(out);
    free(seen);
    return r;
}

/* Turns logits outside the largest part negative and those in its holes positive,
 * so that the cut after resampling keeps the part's smooth surface. */
static hp_code keep_largest(float *logit, const int n[3], float cut,
                            hp_voxel_box *ret_box, bool *ret_any, hp_error *reterr)
{
    size_t total = (size_t)n[0] * n[1] * n[2], count = 0;
    uint8_t *mask = malloc(total);
    hp_code r;

    if (mask == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "liver mask");
    for (size_t i = 0; i < total; i++)
        mask[i] = logit[i] >= cut;
    r = hp_mask_largest_ref(mask, n, &count, reterr);
    if (r == HP_OK)
        r = hp_mask_fill_ref(mask, n, reterr);
    for (size_t i = 0; i < total && r == HP_OK; i++) {
        float over = fabsf(logit[i] - cut);

        logit[i] = mask[i] ? over : -over;
    }
    if (r == HP_OK)
        *ret_any = hp_stage_mask_box(mask, n, ret_box);
    free(mask);
    return r;
}

/* Cuts the logits of `grid`, resampled to the voxels of `v` that the part can
 * reach, into ret_mask (whole V grid). */
static hp_code cut_on_v(const hp_geom *grid, const float *logit, const hp_voxel_box *part,
                        const hp_geom *v, uint8_t *ret_mask, hp_error *reterr)
{
    double at[3], lo[3], hi[3], zero[3] = {0}, mm[3];
    hp_voxel_box b;
    int n[3];
    float *sub;
    hp_code r;

    hp_geom_to_mm(grid, zero, mm); /* the grids share their axes */
    hp_geom_to_voxel(v, mm, at);
    for (int a = 0; a < 3; a++) {
        double scale = grid->spacing_mm[a] / v->spacing_mm[a];

        b.lo[a] = (int)fmax(0, floor(at[a] + (part->lo[a] - 1) * scale));
        b.hi[a] = (int)fmin(v->n[a], ceil(at[a] + (part->hi[a] + 1) * scale));
        n[a] = b.hi[a] - b.lo[a];
        if (n[a] <= 0)
            return HP_OK;
        lo[a] = (b.lo[a] - at[a]) / scale;
        hi[a] = (b.hi[a] - at[a]) / scale;
    }
    sub = malloc((size_t)n[0] * n[1] * n[2] * sizeof *sub);
    if (sub == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "liver mask");
    r = hp_resize_f32_ref(logit, grid->n, lo, hi, n, -1, sub, reterr);
    for (int z = 0; z < n[0] && r == HP_OK; z++)
        for (int y = 0; y < n[1]; y++) {
            const float *from = sub + ((size_t)z * n[1] + y) * n[2];
            uint8_t *to = ret_mask +
                          ((size_t)(z + b.lo[0]) * v->n[1] + y + b.lo[1]) * v->n[2] +
                          b.lo[2];

            for (int x = 0; x < n[2]; x++)
                to[x] = from[x] >= 0;
        }
    free(sub);
    return r;
}

hp_code hp_stage_liver_mask(hp_pipeline *p, const hp_volume *vol, const char *name,
                            uint8_t *ret_mask, hp_voxel_box *ret_box, hp_error *reterr)
{
    const hp_model_stage *s = &p->model->stage[HP_STAGE_LIVER];
    hp_auto(hp_volume) *grid = NULL;
    hp_voxel_box part = {{0}, {0}};
    float *logit = NULL, cut = (float)log(s->threshold / (1 - s->threshold));
    bool any = false;
    hp_box body;
    hp_geom g;
    hp_code r = body_box(vol, &body, reterr);

    memset(ret_mask, 0, hp_geom_voxels(&vol->geom));
    memset(ret_box, 0, sizeof *ret_box);
    if (r != HP_OK)
        return r;
    g = hp_crop_liver_grid(&vol->geom, &body, s->params.grid, s->params.spacing_mm);
    r = hp_volume_new(&g, &grid, reterr);
    if (r == HP_OK)
        r = hp_warp_hu_ref(vol, &g, HP_PAD_HU, grid->hu, reterr);
    if (r == HP_OK) {
        logit = malloc(hp_geom_voxels(&g) * sizeof *logit);
        r = logit != NULL ? run_windows(p, grid, name, logit, reterr)
                          : hp_fail(reterr, HP_E_NO_MEMORY, "liver logits");
    }
    if (r == HP_OK)
        hp_stage_dump(p, logit, g.n, 3, "%s.logit", name);
    if (r == HP_OK)
        r = keep_largest(logit, g.n, cut, &part, &any, reterr);
    if (r == HP_OK && any)
        r = cut_on_v(&g, logit, &part, &vol->geom, ret_mask, reterr);
    free(logit);
    if (r == HP_OK)
        hp_stage_mask_box(ret_mask, vol->geom.n, ret_box);
    return r;
}

/* --- sanity gates ------------------------------------------------------ */

static double face_cm2(const hp_geom *g, const uint8_t *mask, int z)
{
    size_t plane = (size_t)g->n[1] * g->n[2], count = 0;

    for (size_t i = 0; i < plane; i++)
        count += mask[(size_t)z * plane + i];
    return (double)count * g->spacing_mm[1] * g->spacing_mm[2] / 100;
}

/* 400 to 5000 ml, at least 80 mm high, cut by at most one end of the scan. */
static bool is_sane(const hp_geom *g, const uint8_t *mask, const hp_voxel_box *box,
                    double *ret_ml, char *why, size_t size)
{
    double voxel_ml = g->spacing_mm[0] * g->spacing_mm[1] * g->spacing_mm[2] / 1000;
    double height_mm = (box->hi[0] - box->lo[0]) * g->spacing_mm[0];
    size_t count = 0, total = hp_geom_voxels(g);

    for (size_t i = 0; i < total; i++)
        count += mask[i];
    *ret_ml = (double)count * voxel_ml;
    if (*ret_ml < 400 || *ret_ml > 5000)
        snprintf(why, size, "volume %.0f ml is not within 400 to 5000", *ret_ml);
    else if (height_mm < 80)
        snprintf(why, size, "only %.0f mm from top to bottom", height_mm);
    else if (face_cm2(g, mask, 0) > 20 && face_cm2(g, mask, g->n[0] - 1) > 20)
        snprintf(why, size, "cut off at both ends of the scan");
    else
        return true;
    return false;
}

/* With the check off and no liver at all: the middle of the patient's right side. */
static void fallback_box(const hp_volume *vol, hp_voxel_box *ret)
{
    hp_box body = {{0}, {0}};
    const hp_geom *g = &vol->geom;

    if (body_box(vol, &body, NULL) != HP_OK)
        for (int a = 0; a < 3; a++)
            body.hi[a] = g->n[a] * g->spacing_mm[a];
    body.hi[2] =
        body.lo[2] + 0.65 * (body.hi[2] - body.lo[2]); /* +x is the patient's left */
    *ret = hp_stage_voxels_of(g, &body);
}

hp_code hp_stage_liver(hp_visit *v, hp_error *reterr)
{
    static const hp_phase ORDER[] = {HP_PHASE_V, HP_PHASE_D, HP_PHASE_A, HP_PHASE_NC};
    const hp_geom *g = &v->vol[HP_PHASE_V]->geom;
    char why[100] = "";

    v->liver = malloc(hp_geom_voxels(g));
    if (v->liver == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "liver mask");
    for (int k = 0; k < 4; k++) {
        const char *phase = hp_phase_name(ORDER[k]);
        char name[16], here[100];
        hp_code r;

        if (v->vol[ORDER[k]] == NULL)
            continue;
        snprintf(name, sizeof name, "liver.%s", phase);
        r = hp_stage_liver_mask(v->p, v->vol[ORDER[k]], name, v->liver, &v->liver_box,
                                reterr);
        if (r != HP_OK)
            return r;
        v->f->liver_ok =
            is_sane(g, v->liver, &v->liver_box, &v->f->liver_ml, here, sizeof here);
        if (v->f->liver_ok) {
            snprintf(v->f->liver_note, sizeof v->f->liver_note, "from phase %s", phase);
            return HP_OK;
        }
        if (why[0] == '\0')
            snprintf(why, sizeof why, "%s: %.80s", phase, here);
    }
    snprintf(v->f->liver_note, sizeof v->f->liver_note, "%s", why);
    if (!v->p->opt.liver_check_off && !v->p->opt.evaluate) {
        snprintf(v->f->reason_code, sizeof v->f->reason_code, "liver_not_plausible");
        snprintf(v->f->reason, sizeof v->f->reason,
                 "needs review: no plausible liver found (%.100s)", why);
        return hp_fail(reterr, HP_E_UNSUITABLE, "%s", v->f->reason);
    }
    /* Go on with V's mask, however it looks. */
    hp_code r = hp_stage_liver_mask(v->p, v->vol[HP_PHASE_V], "liver.again", v->liver,
                                    &v->liver_box, reterr);

    if (r == HP_OK && v->liver_box.hi[0] <= v->liver_box.lo[0])
        fallback_box(v->vol[HP_PHASE_V], &v->liver_box);
    return r;
}
