/* What can be measured once candidates stand: mean HU of lesion and liver in every
 * phase, volume and axes. The lesion is seg25d's mask inside the box, or an
 * ellipsoid in it where the mask is empty; the liver is its mask without any
 * candidate's box, eroded, so that vessels at its surface and partial volume stay
 * out. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "inference/stage_internal.h"
#include "kernels/mask.h"

enum { EROSIONS = 2, MAX_OUTLINE = 4096 };

static const double INNER = 0.7; /* of the box's half axes */

static bool mapped(const hp_lesion_map *m, int z, double y_mm, double x_mm)
{
    int y = (int)floor((y_mm - m->lo_mm[0]) / m->spacing_mm);
    int x = (int)floor((x_mm - m->lo_mm[1]) / m->spacing_mm);

    return m->plane[z] != NULL && y >= 0 && y < m->n[0] && x >= 0 && x < m->n[1] &&
           m->plane[z][(size_t)y * m->n[1] + x];
}

/* Lesion mask over the voxels `b`: the map's, or the ellipsoid. */
static size_t lesion_mask(const hp_visit *v, const hp_candidate *c, const hp_voxel_box *b,
                          bool ellipsoid, uint8_t *mask)
{
    const hp_geom *g = &v->vol[HP_PHASE_V]->geom;
    size_t count = 0, at = 0;

    for (int z = b->lo[0]; z < b->hi[0]; z++)
        for (int y = b->lo[1]; y < b->hi[1]; y++)
            for (int x = b->lo[2]; x < b->hi[2]; x++, at++) {
                double mm[3] = {(z + 0.5) * g->spacing_mm[0],
                                (y + 0.5) * g->spacing_mm[1],
                                (x + 0.5) * g->spacing_mm[2]};
                double r2 = 0;
                bool inside = true;

                for (int a = 0; a < 3; a++) {
                    double half = (c->box_mm.hi[a] - c->box_mm.lo[a]) / 2;
                    double d = (mm[a] - (c->box_mm.lo[a] + c->box_mm.hi[a]) / 2) /
                               fmax(half, 1e-6);

                    inside = inside && fabs(d) <= 1;
                    r2 += d * d;
                }
                mask[at] = ellipsoid ? r2 <= INNER * INNER
                                     : inside && mapped(&v->lesions, z, mm[1], mm[2]);
                count += mask[at];
            }
    return count;
}

static void copy_part(const hp_volume *vol, const hp_voxel_box *b, int16_t *ret)
{
    const int *n = vol->geom.n;
    size_t w = (size_t)(b->hi[2] - b->lo[2]);

    for (int z = b->lo[0]; z < b->hi[0]; z++)
        for (int y = b->lo[1]; y < b->hi[1]; y++, ret += w)
            memcpy(ret, vol->hu + ((size_t)z * n[1] + y) * n[2] + b->lo[2],
                   w * sizeof *ret);
}

static size_t voxels(const hp_voxel_box *b)
{
    return (size_t)(b->hi[0] - b->lo[0]) * (size_t)(b->hi[1] - b->lo[1]) *
           (size_t)(b->hi[2] - b->lo[2]);
}

/* A pixel of the key slice's mask inside the box: where the box cuts the mask, its
 * edge is the outline. */
static bool in_lesion(const hp_visit *v, const hp_candidate *c, int y, int x)
{
    const hp_lesion_map *m = &v->lesions;
    double my = m->lo_mm[0] + (y + 0.5) * m->spacing_mm;
    double mx = m->lo_mm[1] + (x + 0.5) * m->spacing_mm;

    return y >= 0 && y < m->n[0] && x >= 0 && x < m->n[1] && my >= c->box_mm.lo[1] &&
           my < c->box_mm.hi[1] && mx >= c->box_mm.lo[2] && mx < c->box_mm.hi[2] &&
           m->plane[c->key_slice][(size_t)y * m->n[1] + x];
}

/* Longest distance between outline pixels of the key slice, and the extent across. */
static void axes(const hp_visit *v, hp_candidate *c)
{
    const hp_lesion_map *m = &v->lesions;
    double(*at)[2] = malloc(MAX_OUTLINE * sizeof *at), long2 = -1, dir[2] = {0, 1};
    double lo = INFINITY, hi = -INFINITY;
    int count = 0;

    for (int y = 0; y < m->n[0] && at != NULL && m->plane[c->key_slice] != NULL; y++)
        for (int x = 0; x < m->n[1] && count < MAX_OUTLINE; x++) {
            if (!in_lesion(v, c, y, x) ||
                (in_lesion(v, c, y - 1, x) && in_lesion(v, c, y + 1, x) &&
                 in_lesion(v, c, y, x - 1) && in_lesion(v, c, y, x + 1)))
                continue;
            at[count][0] = m->lo_mm[0] + (y + 0.5) * m->spacing_mm;
            at[count++][1] = m->lo_mm[1] + (x + 0.5) * m->spacing_mm;
        }
    for (int i = 0; i < count; i++)
        for (int j = i; j < count; j++) {
            double dy = at[j][0] - at[i][0], dx = at[j][1] - at[i][1];

            if (dy * dy + dx * dx > long2) {
                long2 = dy * dy + dx * dx;
                dir[0] = dy;
                dir[1] = dx;
            }
        }
    for (int i = 0; i < count && long2 > 0; i++) {
        double across = (at[i][1] * dir[0] - at[i][0] * dir[1]) / sqrt(long2);

        lo = fmin(lo, across);
        hi = fmax(hi, across);
    }
    /* between pixel centres: one pixel more from edge to edge */
    c->long_axis_mm = sqrt(fmax(long2, 0)) + m->spacing_mm;
    c->short_axis_mm = (long2 > 0 ? hi - lo : 0) + m->spacing_mm;
    free(at);
}

static hp_code measure_lesion(const hp_visit *v, hp_candidate *c, hp_error *reterr)
{
    const hp_geom *g = &v->vol[HP_PHASE_V]->geom;
    hp_voxel_box b = hp_stage_voxels_of(g, &c->box_mm);
    size_t n = voxels(&b), count;
    uint8_t *mask = malloc(n);
    int16_t *hu = malloc(n * sizeof *hu);

    if (mask == NULL || hu == NULL) {
        free(mask);
        free(hu);
        return hp_fail(reterr, HP_E_NO_MEMORY, "measuring");
    }
    count = lesion_mask(v, c, &b, c->key_fallback, mask);
    c->volume_ml = c->long_axis_mm = c->short_axis_mm = NAN;
    if (!c->key_fallback) {
        c->volume_ml =
            (double)count * g->spacing_mm[0] * g->spacing_mm[1] * g->spacing_mm[2] / 1000;
        axes(v, c);
    }
    for (int phase = 0; phase < HP_PHASES; phase++) {
        if (v->vol[phase] == NULL)
            continue;
        copy_part(v->vol[phase], &b, hu);
        c->hu_lesion[phase] = hp_mask_mean_ref(hu, mask, n);
    }
    free(mask);
    free(hu);
    return HP_OK;
}

/* The liver's voxels `b` without candidates, eroded. */
static hp_code quiet_liver(const hp_visit *v, const hp_voxel_box *b, uint8_t *mask,
                           hp_error *reterr)
{
    const hp_geom *g = &v->vol[HP_PHASE_V]->geom;
    int n[3] = {b->hi[0] - b->lo[0], b->hi[1] - b->lo[1], b->hi[2] - b->lo[2]};
    hp_code r = HP_OK;

    for (int z = 0; z < n[0]; z++)
        for (int y = 0; y < n[1]; y++)
            memcpy(mask + ((size_t)z * n[1] + y) * n[2],
                   v->liver +
                       ((size_t)(z + b->lo[0]) * g->n[1] + y + b->lo[1]) * g->n[2] +
                       b->lo[2],
                   (size_t)n[2]);
    for (int i = 0; i < v->f->candidate_count; i++) {
        hp_voxel_box c = hp_stage_voxels_of(g, &v->f->candidates[i].box_mm);

        for (int z = c.lo[0]; z < c.hi[0]; z++)
            for (int y = c.lo[1]; y < c.hi[1]; y++)
                for (int x = c.lo[2]; x < c.hi[2]; x++)
                    if (z >= b->lo[0] && z < b->hi[0] && y >= b->lo[1] && y < b->hi[1] &&
                        x >= b->lo[2] && x < b->hi[2])
                        mask[((size_t)(z - b->lo[0]) * n[1] + y - b->lo[1]) * n[2] + x -
                             b->lo[2]] = 0;
    }
    for (int i = 0; i < EROSIONS && r == HP_OK; i++)
        r = hp_mask_erode_ref(mask, n, reterr);
    return r;
}

hp_code hp_stage_measure(hp_visit *v, hp_error *reterr)
{
    size_t n = voxels(&v->liver_box);
    uint8_t *mask = malloc(n + 1);
    int16_t *hu = malloc((n + 1) * sizeof *hu);
    hp_code r = mask != NULL && hu != NULL ? quiet_liver(v, &v->liver_box, mask, reterr)
                                           : hp_fail(reterr, HP_E_NO_MEMORY, "measuring");

    for (int phase = 0; phase < HP_PHASES && r == HP_OK; phase++) {
        double mean;

        if (v->vol[phase] == NULL)
            continue;
        copy_part(v->vol[phase], &v->liver_box, hu);
        mean = hp_mask_mean_ref(hu, mask, n);
        for (int i = 0; i < v->f->candidate_count; i++)
            v->f->candidates[i].hu_liver[phase] = mean;
    }
    free(mask);
    free(hu);
    for (int i = 0; i < v->f->candidate_count && r == HP_OK; i++)
        r = measure_lesion(v, &v->f->candidates[i], reterr);
    return r;
}
