/* Training tensors from phantoms, rendered in memory at the resolution that each
 * network sees, cut by the functions that serve (inference/crop.h).
 *
 * One safetensors file per study and part:
 *   liver/   hu I16 (4, Z, Y, X), mask U8 (Z, Y, X) with bit p = liver in phase p
 *   detect/  hu I16 (4, Z, Y, X); boxes F32 (n, 6) z1 y1 x1 z2 y2 x2 in crop voxels;
 *            kind, class I32 (n); primary, focal, largest U8 (n); diameter_mm F32 (n);
 *            spacing_mm F32 (3)
 *   slices/  hu I16 (m, 4, S, S); rect F32 (m, 4) y1 x1 y2 x2 in pixels; kind, class,
 *            lesion, rank I32 (m); primary U8 (m); area_mm2, diameter_mm F32 (m)
 *   primaries/  the same, of the largest primary's best slice alone: more patients for
 *            the four classes, a tenth of the time each
 *   seg/     hu I16 (m, 9, S, S); mask U8 (m, S, S); phase I32 (m)
 * Phase order NC, A, V, D. Boxes are edge coordinates.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/path.h"
#include "daemon/prepare.h"
#include "inference/crop.h"
#include "inference/safetensors.h"
#include "kernels/warp.h"

enum {
    DETECT_Z = 48,
    DETECT_Y = 176,
    DETECT_X = 256,
    PATCH_SIDE = HP_PREPARE_PATCH_SIDE,
    MAX_PATCHES = 16,
    RANDOM_PATCHES = 3,
    PRIMARY_SLICES = 5,
    SEG_SIDE = 320,
    SEG_SLICES = 9,
    SEG_STACKS = 6
};
static const int LIVER_N[3] = {64, 128, 160};
static const double LIVER_MM[3] = {4, 3, 3}, CROP_MARGIN_MM[3] = {5, 10, 10};
static const double PATCH_MM = HP_PREPARE_PATCH_MM, SEG_MM = 0.8, SEG_INTERVAL_MM = 2;

/* --- draws ------------------------------------------------------------- */

hp_draw hp_draw_init(uint64_t seed, uint64_t salt)
{
    hp_draw d = {seed * 0x9e3779b97f4a7c15u ^ salt * 0xd1342543de82ef95u};

    hp_draw_unit(&d);
    return d;
}

double hp_draw_unit(hp_draw *d) /* splitmix64 */
{
    uint64_t z = d->state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

double hp_draw_range(hp_draw *d, double lo, double hi)
{
    return lo + (hi - lo) * hp_draw_unit(d);
}

static double draw_normal(hp_draw *d)
{
    double sum = 0;

    for (int i = 0; i < 12; i++)
        sum += hp_draw_unit(d);
    return sum - 6;
}

/* --- the patient ------------------------------------------------------- */

hp_code hp_prepare_patient(const hp_prepare *o, uint64_t seed, hp_phantom **ret,
                           hp_error *reterr)
{
    /* 60/8/16/24 of 108, spread so that any run of 27 has the mix. */
    static const char TEST108[28] = "030020300130200301203023000";
    hp_phantom_options opt = HP_PHANTOM_OPTIONS_INIT;
    static const double train_mix[HP_PH_CLASSES] = {40, 20, 20, 20};

    opt.seed = seed;
    opt.motion_mm = o->motion_mm;
    opt.overlap = o->overlap;
    if (o->cohort == HP_COHORT_TRAIN) {
        memcpy(opt.mix, train_mix, sizeof opt.mix);
        /* Without tumours that fill the left lobe or bulge out, a big
         * one is carved out of the liver mask. */
        opt.stress = seed % 10 == 7;
    } else if (o->cohort == HP_COHORT_TEST108) {
        opt.cls = TEST108[seed % 1000000 % 27] - '0';
    } else {
        opt.cls = (int)(seed % 4);
    }
    return hp_phantom_new(&opt, ret, reterr);
}

hp_box hp_prepare_box(const hp_phantom_lesion *l, const hp_geom *v)
{
    hp_box b;

    for (int a = 0; a < 3; a++) { /* truth has x, y, z; grids z, y, x */
        double corner = v->origin_mm[2 - a] - v->spacing_mm[a] / 2;

        b.lo[a] = l->lo_mm[2 - a] - corner;
        b.hi[a] = l->hi_mm[2 - a] - corner;
    }
    return b;
}

hp_voxel_box hp_prepare_liver_box(const hp_phantom *p, const hp_geom *v)
{
    const hp_phantom_truth *t = hp_phantom_get_truth(p);
    hp_voxel_box b;

    for (int a = 0; a < 3; a++) {
        double corner = v->origin_mm[2 - a] - v->spacing_mm[a] / 2;
        double lo = (t->liver_lo_mm[2 - a] - corner) / v->spacing_mm[a];
        double hi = (t->liver_hi_mm[2 - a] - corner) / v->spacing_mm[a];

        b.lo[a] = (int)fmin(fmax(floor(lo), 0), v->n[a] - 1);
        b.hi[a] = (int)fmin(fmax(ceil(hi), b.lo[a] + 1), v->n[a]);
    }
    return b;
}

/* --- rendering --------------------------------------------------------- */

/* inside[i] &= voxel centre i of `grid` along `a` lies in the extent of `fov`. */
static void clip_axis(const hp_geom *grid, const hp_geom *fov, int a, uint8_t *inside)
{
    double lo = fov->origin_mm[2 - a] - fov->spacing_mm[a] / 2;
    double hi = lo + fov->n[a] * fov->spacing_mm[a];

    for (int i = 0; i < grid->n[a]; i++) {
        double mm = grid->origin_mm[2 - a] + i * grid->spacing_mm[a];

        inside[i] = inside[i] && mm >= lo && mm < hi;
    }
}

static hp_code clip(const hp_phantom *p, int phase, const hp_geom *grid, int16_t *hu,
                    hp_error *reterr)
{
    hp_geom own = hp_phantom_grid(p, phase), v = hp_phantom_grid(p, HP_PHASE_V);
    int nz = grid->n[0], ny = grid->n[1], nx = grid->n[2];
    uint8_t *in = malloc((size_t)(nz + ny + nx));

    if (in == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "clipping");
    memset(in, 1, (size_t)(nz + ny + nx));
    for (int a = 0, at = 0; a < 3; at += grid->n[a], a++) {
        clip_axis(grid, &own, a, in + at);
        clip_axis(grid, &v, a, in + at);
    }
    for (int z = 0; z < nz; z++)
        for (int y = 0; y < ny; y++)
            for (int x = 0; x < nx; x++)
                if (!in[z] || !in[nz + y] || !in[nz + ny + x])
                    hu[((size_t)z * ny + y) * nx + x] = HP_PAD_HU;
    free(in);
    return HP_OK;
}

hp_code hp_prepare_render(const hp_phantom *p, int phase, const hp_geom *grid,
                          int16_t *hu, hp_error *reterr)
{
    hp_code r = hp_phantom_render(p, phase, grid, hu, reterr);

    return r == HP_OK ? clip(p, phase, grid, hu, reterr) : r;
}

hp_code hp_prepare_planes(const hp_phantom *p, int phase, const hp_geom *part,
                          int16_t *hu, hp_error *reterr)
{
    hp_geom own = hp_phantom_grid(p, phase), thick = *part;
    hp_auto(hp_volume) *src = NULL;
    double lo, hi;
    int first, last;
    hp_code r;

    if (own.spacing_mm[0] < 1.05 * part->spacing_mm[0])
        return hp_prepare_render(p, phase, part, hu, reterr);
    lo = (part->origin_mm[2] - part->spacing_mm[0] / 2 - own.origin_mm[2]) /
         own.spacing_mm[0];
    hi = lo + part->n[0] * part->spacing_mm[0] / own.spacing_mm[0];
    first = (int)fmax(floor(lo) - 1, 0);
    last = (int)fmin(ceil(hi) + 2, own.n[0]);
    if (last <= first) {
        for (size_t i = 0; i < hp_geom_voxels(part); i++)
            hu[i] = HP_PAD_HU;
        return HP_OK;
    }
    thick.n[0] = last - first;
    thick.spacing_mm[0] = own.spacing_mm[0];
    thick.origin_mm[2] = own.origin_mm[2] + first * own.spacing_mm[0];
    r = hp_volume_new(&thick, &src, reterr);
    if (r == HP_OK)
        r = hp_phantom_render(p, phase, &thick, src->hu, reterr);
    if (r == HP_OK)
        r = hp_warp_hu_ref(src, part, HP_PAD_HU, hu, reterr);
    return r == HP_OK ? clip(p, phase, part, hu, reterr) : r;
}

/* The part of the venous native grid under [lo, lo + size) mm in plane. */
static hp_geom v_part(const hp_geom *v, int z0, int nz, const double lo_mm[2],
                      const double size_mm[2], int ret_lo[3])
{
    int n[3] = {nz, 0, 0};

    ret_lo[0] = z0;
    for (int a = 1; a < 3; a++) {
        int lo = (int)floor(lo_mm[a - 1] / v->spacing_mm[a]) - 2;
        int hi = (int)ceil((lo_mm[a - 1] + size_mm[a - 1]) / v->spacing_mm[a]) + 2;

        ret_lo[a] = lo < 0 ? 0 : lo >= v->n[a] ? v->n[a] - 1 : lo;
        hi = hi > v->n[a] ? v->n[a] : hi;
        n[a] = hi > ret_lo[a] ? hi - ret_lo[a] : 1;
    }
    return hp_geom_crop(v, ret_lo, n);
}

/* (planes, h, w) around centre_mm on venous planes z0.. of one phase. */
static hp_code windows(const hp_phantom *p, int phase, int z0, int nz,
                       const double lo_mm[2], const int n[2], double spacing_mm,
                       int16_t *ret, hp_error *reterr)
{
    hp_geom v = hp_phantom_grid(p, HP_PHASE_V), part;
    double size_mm[2] = {n[0] * spacing_mm, n[1] * spacing_mm}, rel[2];
    hp_auto(hp_volume) *native = NULL;
    int lo[3];
    hp_code r;

    part = v_part(&v, z0, nz, lo_mm, size_mm, lo);
    for (int a = 0; a < 2; a++)
        rel[a] = lo_mm[a] - lo[a + 1] * v.spacing_mm[a + 1];
    r = hp_volume_new(&part, &native, reterr);
    if (r == HP_OK)
        r = hp_prepare_planes(p, phase, &part, native->hu, reterr);
    for (int z = 0; z < nz && r == HP_OK; z++)
        r = hp_crop_plane(&part, native->hu + (size_t)z * part.n[1] * part.n[2], rel, n,
                          spacing_mm, ret + (size_t)z * n[0] * n[1], reterr);
    return r;
}

hp_code hp_prepare_patch(const hp_phantom *p, int z, const double centre_mm[2], int side,
                         double spacing_mm, int16_t *ret, hp_error *reterr)
{
    double lo_mm[2] = {centre_mm[0] - side * spacing_mm / 2,
                       centre_mm[1] - side * spacing_mm / 2};
    int n[2] = {side, side};
    hp_code r = HP_OK;

    for (int phase = 0; phase < HP_PHASES && r == HP_OK; phase++)
        r = windows(p, phase, z, 1, lo_mm, n, spacing_mm,
                    ret + (size_t)phase * side * side, reterr);
    return r;
}

hp_code hp_prepare_area(const hp_phantom *p, int i, int z, double *ret_mm2,
                        hp_error *reterr)
{
    hp_geom v = hp_phantom_grid(p, HP_PHASE_V), part;
    hp_box b = hp_prepare_box(&hp_phantom_get_truth(p)->lesion[i], &v);
    double size_mm[2] = {b.hi[1] - b.lo[1], b.hi[2] - b.lo[2]};
    uint8_t *label;
    size_t count = 0;
    int lo[3];
    hp_code r;

    part = v_part(&v, z, 1, &b.lo[1], size_mm, lo);
    label = malloc(hp_geom_voxels(&part));
    if (label == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "labels");
    r = hp_phantom_labels(p, HP_PHASE_V, &part, label, reterr);
    for (size_t k = 0; k < hp_geom_voxels(&part) && r == HP_OK; k++)
        count += label[k] == 2 + i;
    free(label);
    if (r == HP_OK)
        *ret_mm2 = (double)count * v.spacing_mm[1] * v.spacing_mm[2];
    return r;
}

/* Venous planes that the lesion's box meets. */
static void planes_of(const hp_box *b, const hp_geom *v, int *ret_lo, int *ret_hi)
{
    int lo = (int)floor(b->lo[0] / v->spacing_mm[0]);
    int hi = (int)ceil(b->hi[0] / v->spacing_mm[0]);

    *ret_lo = lo < 0 ? 0 : lo >= v->n[0] ? v->n[0] - 1 : lo;
    *ret_hi = hi > v->n[0] ? v->n[0] : hi <= *ret_lo ? *ret_lo + 1 : hi;
}

hp_code hp_prepare_best_plane(const hp_phantom *p, int i, int *ret_z, double *ret_mm2,
                              hp_error *reterr)
{
    hp_geom v = hp_phantom_grid(p, HP_PHASE_V);
    hp_box b = hp_prepare_box(&hp_phantom_get_truth(p)->lesion[i], &v);
    int lo, hi, best;
    double best_mm2 = 0;

    planes_of(&b, &v, &lo, &hi);
    best = (lo + hi) / 2;
    for (int z = lo; z < hi; z++) {
        double mm2;
        hp_code r = hp_prepare_area(p, i, z, &mm2, reterr);

        if (r != HP_OK)
            return r;
        if (mm2 > best_mm2) {
            best_mm2 = mm2;
            best = z;
        }
    }
    *ret_z = best;
    *ret_mm2 = best_mm2;
    return HP_OK;
}

/* --- liver ------------------------------------------------------------- */

static hp_code body_of(const hp_phantom *p, const hp_geom *v, hp_box *ret,
                       hp_error *reterr)
{
    hp_geom coarse = hp_crop_body_grid(v);
    hp_auto(hp_volume) *hu = NULL;
    hp_code r = hp_volume_new(&coarse, &hu, reterr);

    if (r == HP_OK)
        r = hp_prepare_render(p, HP_PHASE_V, &coarse, hu->hu, reterr);
    if (r == HP_OK)
        *ret = hp_crop_body(&coarse, hu->hu);
    return r;
}

static hp_code liver_part(const hp_phantom *p, uint64_t seed, const char *path,
                          hp_error *reterr)
{
    hp_geom v = hp_phantom_grid(p, HP_PHASE_V), g;
    hp_draw d = hp_draw_init(seed, 1);
    size_t n = (size_t)LIVER_N[0] * LIVER_N[1] * LIVER_N[2];
    int16_t *hu = malloc(HP_PHASES * n * sizeof *hu);
    uint8_t *mask = calloc(n, 1), *label = malloc(n);
    hp_box body;
    hp_code r = hu == NULL || mask == NULL || label == NULL
                    ? hp_fail(reterr, HP_E_NO_MEMORY, "liver tensors")
                    : body_of(p, &v, &body, reterr);

    if (r == HP_OK) {
        int at[3] = {0};

        g = hp_crop_liver_grid(&v, &body, LIVER_N, LIVER_MM);
        at[0] = (int)(hp_draw_unit(&d) * (g.n[0] - LIVER_N[0] + 1));
        g = hp_geom_crop(&g, at, LIVER_N);
    }
    for (int phase = 0; phase < HP_PHASES && r == HP_OK; phase++) {
        r = hp_prepare_render(p, phase, &g, hu + (size_t)phase * n, reterr);
        if (r == HP_OK)
            r = hp_phantom_labels(p, phase, &g, label, reterr);
        /* Liver below the last slice is no liver to the network: it sees padding. */
        for (size_t i = 0; i < n && r == HP_OK; i++)
            if (label[i] > 0 && hu[(size_t)phase * n + i] != HP_PAD_HU)
                mask[i] |= (uint8_t)(1 << phase);
    }
    if (r == HP_OK) {
        float mm[3] = {(float)LIVER_MM[0], (float)LIVER_MM[1], (float)LIVER_MM[2]};
        hp_tensor t[] = {
            {"hu", HP_DTYPE_I16, 4, {HP_PHASES, LIVER_N[0], LIVER_N[1], LIVER_N[2]}, hu},
            {"mask", HP_DTYPE_U8, 3, {LIVER_N[0], LIVER_N[1], LIVER_N[2]}, mask},
            {"spacing_mm", HP_DTYPE_F32, 1, {3}, mm},
        };

        r = hp_safetensors_write(path, t, 3, reterr);
    }
    free(hu);
    free(mask);
    free(label);
    return r;
}

/* --- detector ---------------------------------------------------------- */

typedef struct lesion_rows {
    float box[HP_PH_MAX_LESIONS][6], diameter[HP_PH_MAX_LESIONS];
    int32_t kind[HP_PH_MAX_LESIONS], cls[HP_PH_MAX_LESIONS];
    uint8_t primary[HP_PH_MAX_LESIONS], focal[HP_PH_MAX_LESIONS],
        largest[HP_PH_MAX_LESIONS];
} lesion_rows;

static void fill_rows(const hp_phantom_truth *t, const hp_geom *v,
                      const hp_geom *crop_grid, const hp_voxel_box *crop,
                      lesion_rows *rows)
{
    for (int i = 0; i < t->n_lesions; i++) {
        hp_box b = hp_prepare_box(&t->lesion[i], v);

        for (int a = 0; a < 3; a++) {
            double corner_mm = crop->lo[a] * v->spacing_mm[a];

            rows->box[i][a] = (float)((b.lo[a] - corner_mm) / crop_grid->spacing_mm[a]);
            rows->box[i][3 + a] =
                (float)((b.hi[a] - corner_mm) / crop_grid->spacing_mm[a]);
        }
        rows->diameter[i] = (float)t->lesion[i].diameter_mm;
        rows->kind[i] = t->lesion[i].kind;
        rows->cls[i] = t->lesion[i].cls;
        rows->primary[i] = t->lesion[i].primary;
        rows->focal[i] = t->lesion[i].focal;
        rows->largest[i] = i == t->largest_primary;
    }
}

/* The detector sees the predicted liver's box, so each face wanders a little. */
static void jitter_box(hp_voxel_box *b, const hp_geom *v, hp_draw *d)
{
    static const double MM[3] = {4, 6, 6};

    for (int a = 0; a < 3; a++) {
        double lo = b->lo[a] + hp_draw_range(d, -MM[a], MM[a]) / v->spacing_mm[a];
        double hi = b->hi[a] + hp_draw_range(d, -MM[a], MM[a]) / v->spacing_mm[a];

        b->lo[a] = (int)fmin(fmax(lround(lo), 0), v->n[a] - 1);
        b->hi[a] = (int)fmin(fmax(lround(hi), b->lo[a] + 1), v->n[a]);
    }
}

hp_code hp_prepare_crop(const hp_phantom *p, uint64_t seed, hp_voxel_box *ret_crop,
                        hp_geom *ret_grid, int16_t *hu, hp_error *reterr)
{
    static const int N[3] = {DETECT_Z, DETECT_Y, DETECT_X};
    hp_geom v = hp_phantom_grid(p, HP_PHASE_V), g;
    hp_voxel_box crop = hp_prepare_liver_box(p, &v);
    hp_draw d = hp_draw_init(seed, 2);
    hp_code r = HP_OK;
    int size[3];

    jitter_box(&crop, &v, &d);
    crop = hp_crop_detector(&v, &crop, CROP_MARGIN_MM);
    for (int a = 0; a < 3; a++)
        size[a] = crop.hi[a] - crop.lo[a];
    g = hp_geom_crop(&v, crop.lo, size);
    g = hp_geom_resample(&g, N);
    for (int phase = 0; phase < HP_PHASES && r == HP_OK; phase++)
        r = hp_prepare_render(p, phase, &g, hu + (size_t)phase * hp_geom_voxels(&g),
                              reterr);
    *ret_crop = crop;
    *ret_grid = g;
    return r;
}

static hp_code detect_part(const hp_phantom *p, uint64_t seed, const char *path,
                           hp_error *reterr)
{
    const hp_phantom_truth *t = hp_phantom_get_truth(p);
    hp_geom v = hp_phantom_grid(p, HP_PHASE_V), g;
    hp_voxel_box crop;
    lesion_rows *rows = calloc(1, sizeof *rows);
    int16_t *hu = malloc(HP_PREPARE_CROP_VOXELS * HP_PHASES * sizeof *hu);
    hp_code r = rows != NULL && hu != NULL
                    ? hp_prepare_crop(p, seed, &crop, &g, hu, reterr)
                    : hp_fail(reterr, HP_E_NO_MEMORY, "detector tensors");

    if (r == HP_OK) {
        float mm[3] = {(float)g.spacing_mm[0], (float)g.spacing_mm[1],
                       (float)g.spacing_mm[2]};
        int m = t->n_lesions;
        hp_tensor out[] = {
            {"hu", HP_DTYPE_I16, 4, {HP_PHASES, DETECT_Z, DETECT_Y, DETECT_X}, hu},
            {"boxes", HP_DTYPE_F32, 2, {m, 6}, rows->box},
            {"kind", HP_DTYPE_I32, 1, {m}, rows->kind},
            {"class", HP_DTYPE_I32, 1, {m}, rows->cls},
            {"primary", HP_DTYPE_U8, 1, {m}, rows->primary},
            {"focal", HP_DTYPE_U8, 1, {m}, rows->focal},
            {"largest", HP_DTYPE_U8, 1, {m}, rows->largest},
            {"diameter_mm", HP_DTYPE_F32, 1, {m}, rows->diameter},
            {"spacing_mm", HP_DTYPE_F32, 1, {3}, mm},
        };

        fill_rows(t, &v, &g, &crop, rows);
        r = hp_safetensors_write(path, out, sizeof out / sizeof out[0], reterr);
    }
    free(rows);
    free(hu);
    return r;
}

/* --- SaDT and KSF slices ----------------------------------------------- */

typedef struct patch_rows {
    int count;
    int16_t *hu; /* (MAX_PATCHES, 4, S, S) */
    float rect[MAX_PATCHES][4], area[MAX_PATCHES], diameter[MAX_PATCHES];
    int32_t kind[MAX_PATCHES], cls[MAX_PATCHES], lesion[MAX_PATCHES], rank[MAX_PATCHES];
    uint8_t primary[MAX_PATCHES];
} patch_rows;

static hp_code add_patch(const hp_phantom *p, patch_rows *rows, const hp_box *b, int z,
                         hp_error *reterr)
{
    size_t size = (size_t)HP_PHASES * PATCH_SIDE * PATCH_SIDE;
    double centre[2];
    hp_code r;
    int m = rows->count;

    for (int a = 0; a < 2; a++) {
        centre[a] = (b->lo[a + 1] + b->hi[a + 1]) / 2;
        rows->rect[m][a] =
            (float)(PATCH_SIDE / 2.0 + (b->lo[a + 1] - centre[a]) / PATCH_MM);
        rows->rect[m][2 + a] =
            (float)(PATCH_SIDE / 2.0 + (b->hi[a + 1] - centre[a]) / PATCH_MM);
    }
    r = hp_prepare_patch(p, z, centre, PATCH_SIDE, PATCH_MM, rows->hu + (size_t)m * size,
                         reterr);
    if (r == HP_OK)
        rows->count++;
    return r;
}

static hp_code add_lesion_patch(const hp_phantom *p, patch_rows *rows, int i, int z,
                                double area, int rank, hp_error *reterr)
{
    const hp_phantom_lesion *l = &hp_phantom_get_truth(p)->lesion[i];
    hp_geom v = hp_phantom_grid(p, HP_PHASE_V);
    hp_box b = hp_prepare_box(l, &v);
    int m = rows->count;

    rows->area[m] = (float)area;
    rows->diameter[m] = (float)l->diameter_mm;
    rows->kind[m] = l->kind;
    rows->cls[m] = l->cls;
    rows->lesion[m] = i;
    rows->rank[m] = rank;
    rows->primary[m] = l->primary;
    return add_patch(p, rows, &b, z, reterr);
}

/* The largest primary's best slices, largest area first; `most` of them at most. */
static hp_code add_primary(const hp_phantom *p, patch_rows *rows, int most,
                           hp_error *reterr)
{
    const hp_phantom_truth *t = hp_phantom_get_truth(p);
    hp_geom v = hp_phantom_grid(p, HP_PHASE_V);
    int i = t->largest_primary, lo, hi, best[PRIMARY_SLICES], count = 0;
    double area[PRIMARY_SLICES];
    hp_box b;
    hp_code r = HP_OK;

    if (i < 0 || i >= t->n_lesions)
        return HP_OK;
    b = hp_prepare_box(&t->lesion[i], &v);
    planes_of(&b, &v, &lo, &hi);
    for (int z = lo; z < hi && r == HP_OK; z++) {
        double mm2 = 0;
        int at;

        r = hp_prepare_area(p, i, z, &mm2, reterr);
        at = count;
        while (at > 0 && area[at - 1] < mm2)
            at--;
        if (at >= PRIMARY_SLICES || (mm2 <= 0 && count > 0))
            continue;
        if (count < PRIMARY_SLICES)
            count++;
        for (int k = count - 1; k > at; k--) {
            area[k] = area[k - 1];
            best[k] = best[k - 1];
        }
        area[at] = mm2;
        best[at] = z;
    }
    for (int k = 0; k < count && k < most && r == HP_OK; k++)
        r = add_lesion_patch(p, rows, i, best[k], area[k], k, reterr);
    return r;
}

/* A box that holds no primary, anywhere in the liver. */
static hp_code add_random(const hp_phantom *p, patch_rows *rows, hp_draw *d,
                          hp_error *reterr)
{
    const hp_phantom_truth *t = hp_phantom_get_truth(p);
    hp_geom v = hp_phantom_grid(p, HP_PHASE_V);
    double depth_mm = v.n[0] * v.spacing_mm[0];

    for (int tries = 0; tries < 60; tries++) {
        double mm[3], voxel[3], overlap = 0;
        hp_box b;
        hp_geom one;
        uint8_t label = 0;
        hp_code r;

        for (int c = 0; c < 3; c++)
            mm[c] = hp_draw_range(d, t->liver_lo_mm[c], t->liver_hi_mm[c]);
        one = hp_geom_axial(1, 1, 1, 1, 1, 1, mm);
        r = hp_phantom_labels(p, HP_PHASE_V, &one, &label, reterr);
        if (r != HP_OK)
            return r;
        hp_geom_to_voxel(&v, mm, voxel);
        for (int a = 0; a < 3; a++) {
            double side = 30 * exp(0.45 * draw_normal(d));

            b.lo[a] = voxel[a] * v.spacing_mm[a] - side / 2;
            b.hi[a] = b.lo[a] + side;
        }
        for (int i = 0; i < t->n_lesions; i++) {
            hp_box l = hp_prepare_box(&t->lesion[i], &v);

            if (t->lesion[i].primary)
                overlap = fmax(overlap, hp_box_iou(&b, &l));
        }
        if (label == 0 || overlap >= 0.1 || voxel[0] * v.spacing_mm[0] >= depth_mm ||
            voxel[0] < 0)
            continue;
        rows->area[rows->count] = 0;
        rows->diameter[rows->count] = 0;
        rows->kind[rows->count] = rows->cls[rows->count] = rows->lesion[rows->count] = -1;
        rows->rank[rows->count] = 0;
        rows->primary[rows->count] = 0;
        return add_patch(p, rows, &b, (int)voxel[0], reterr);
    }
    return HP_OK;
}

static hp_code write_patches(const char *path, patch_rows *rows, hp_error *reterr)
{
    int m = rows->count;
    hp_tensor out[] = {
        {"hu", HP_DTYPE_I16, 4, {m, HP_PHASES, PATCH_SIDE, PATCH_SIDE}, rows->hu},
        {"rect", HP_DTYPE_F32, 2, {m, 4}, rows->rect},
        {"kind", HP_DTYPE_I32, 1, {m}, rows->kind},
        {"class", HP_DTYPE_I32, 1, {m}, rows->cls},
        {"lesion", HP_DTYPE_I32, 1, {m}, rows->lesion},
        {"rank", HP_DTYPE_I32, 1, {m}, rows->rank},
        {"primary", HP_DTYPE_U8, 1, {m}, rows->primary},
        {"area_mm2", HP_DTYPE_F32, 1, {m}, rows->area},
        {"diameter_mm", HP_DTYPE_F32, 1, {m}, rows->diameter},
    };

    return hp_safetensors_write(path, out, sizeof out / sizeof out[0], reterr);
}

static bool long_enough(const hp_phantom_lesion *l)
{
    for (int c = 0; c < 3; c++)
        if (l->hi_mm[c] - l->lo_mm[c] < 5)
            return false;
    return true;
}

static patch_rows *new_rows(hp_error *reterr)
{
    patch_rows *rows = calloc(1, sizeof *rows);

    if (rows != NULL)
        rows->hu = malloc((size_t)MAX_PATCHES * HP_PHASES * PATCH_SIDE * PATCH_SIDE *
                          sizeof *rows->hu);
    if (rows != NULL && rows->hu != NULL)
        return rows;
    free(rows);
    hp_fail(reterr, HP_E_NO_MEMORY, "slice tensors");
    return NULL;
}

static void rows_free(patch_rows *rows)
{
    free(rows->hu);
    free(rows);
}

static hp_code slices_part(const hp_phantom *p, uint64_t seed, const char *path,
                           hp_error *reterr)
{
    const hp_phantom_truth *t = hp_phantom_get_truth(p);
    hp_draw d = hp_draw_init(seed, 3);
    patch_rows *rows = new_rows(reterr);
    hp_code r;

    if (rows == NULL)
        return HP_E_NO_MEMORY;
    r = add_primary(p, rows, PRIMARY_SLICES, reterr);
    for (int i = 0; i < t->n_lesions && r == HP_OK; i++) {
        double area = 0;
        int z = 0;

        if (i == t->largest_primary || !long_enough(&t->lesion[i]) ||
            rows->count >= MAX_PATCHES - RANDOM_PATCHES)
            continue;
        r = hp_prepare_best_plane(p, i, &z, &area, reterr);
        if (r == HP_OK)
            r = add_lesion_patch(p, rows, i, z, area, 0, reterr);
    }
    for (int k = 0; k < RANDOM_PATCHES && r == HP_OK; k++)
        r = add_random(p, rows, &d, reterr);
    if (r == HP_OK)
        r = write_patches(path, rows, reterr);
    rows_free(rows);
    return r;
}

static hp_code primaries_part(const hp_phantom *p, uint64_t seed, const char *path,
                              hp_error *reterr)
{
    patch_rows *rows = new_rows(reterr);
    hp_code r;

    (void)seed;
    if (rows == NULL)
        return HP_E_NO_MEMORY;
    r = add_primary(p, rows, 1, reterr);
    if (r == HP_OK)
        r = write_patches(path, rows, reterr);
    rows_free(rows);
    return r;
}

/* --- key-slice segmentation -------------------------------------------- */

typedef struct plane_set {
    const int16_t *hu;
    int z0;
    size_t size;
} plane_set;

static const int16_t *plane_at(int z, void *payload)
{
    const plane_set *s = payload;

    return s->hu + (size_t)(z - s->z0) * s->size;
}

/* One stack around plane z, and the focal lesions in its middle slice. */
static hp_code make_stack(const hp_phantom *p, int phase, int z,
                          const double centre_mm[2], int16_t *hu, uint8_t *mask,
                          hp_error *reterr)
{
    const hp_phantom_truth *t = hp_phantom_get_truth(p);
    hp_geom v = hp_phantom_grid(p, HP_PHASE_V), g;
    int reach = (int)ceil((SEG_SLICES / 2.0) * SEG_INTERVAL_MM / v.spacing_mm[0]) + 2;
    int z0 = z - reach < 0 ? 0 : z - reach,
        z1 = z + reach + 1 > v.n[0] ? v.n[0] : z + reach + 1;
    int n[2] = {SEG_SIDE, SEG_SIDE};
    double lo_mm[2], origin[3];
    plane_set planes = {.z0 = z0, .size = (size_t)SEG_SIDE * SEG_SIDE};
    int16_t *src = malloc((size_t)(z1 - z0) * planes.size * sizeof *src);
    hp_code r;

    if (src == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "stack");
    for (int a = 0; a < 2; a++)
        lo_mm[a] = centre_mm[a] - SEG_SIDE * SEG_MM / 2;
    planes.hu = src;
    r = windows(p, phase, z0, z1 - z0, lo_mm, n, SEG_MM, src, reterr);
    if (r == HP_OK)
        r = hp_crop_stack(z, v.n[0], v.spacing_mm[0], SEG_SLICES, SEG_INTERVAL_MM, n,
                          plane_at, &planes, hu, reterr);
    free(src);
    origin[2] = v.origin_mm[2] + z * v.spacing_mm[0];
    for (int a = 1; a < 3; a++)
        origin[2 - a] =
            v.origin_mm[2 - a] - v.spacing_mm[a] / 2 + lo_mm[a - 1] + SEG_MM / 2;
    g = hp_geom_axial(1, SEG_SIDE, SEG_SIDE, v.spacing_mm[0], SEG_MM, SEG_MM, origin);
    if (r == HP_OK)
        r = hp_phantom_labels(p, phase, &g, mask, reterr);
    for (size_t i = 0; i < planes.size && r == HP_OK; i++)
        mask[i] = mask[i] >= 2 && t->lesion[mask[i] - 2].focal;
    return r;
}

/* Where stack k looks: the largest primary, another lesion, anywhere. */
static hp_code stack_place(const hp_phantom *p, int k, hp_draw *d, int *ret_z,
                           double ret_centre[2], hp_error *reterr)
{
    const hp_phantom_truth *t = hp_phantom_get_truth(p);
    hp_geom v = hp_phantom_grid(p, HP_PHASE_V);
    int lesion = t->largest_primary, lo, hi;
    double area;
    hp_box b;
    hp_code r = HP_OK;

    if (k == 2 && t->n_lesions > 1) {
        lesion = (int)(hp_draw_unit(d) * (t->n_lesions - 1));
        lesion += lesion >= t->largest_primary;
    }
    if (k == 3 || lesion < 0) {
        hp_voxel_box liver = hp_prepare_liver_box(p, &v);

        *ret_z = (int)hp_draw_range(d, liver.lo[0], liver.hi[0]);
        for (int a = 0; a < 2; a++)
            ret_centre[a] =
                (liver.lo[a + 1] + liver.hi[a + 1]) / 2.0 * v.spacing_mm[a + 1] +
                hp_draw_range(d, -30, 30) * SEG_MM;
        return HP_OK;
    }
    b = hp_prepare_box(&t->lesion[lesion], &v);
    planes_of(&b, &v, &lo, &hi);
    *ret_z = (int)hp_draw_range(d, lo, hi);
    if (k == 0 || k == 2)
        r = hp_prepare_best_plane(p, lesion, ret_z, &area, reterr);
    for (int a = 0; a < 2; a++)
        ret_centre[a] =
            (b.lo[a + 1] + b.hi[a + 1]) / 2 + hp_draw_range(d, -30, 30) * SEG_MM;
    return r;
}

static hp_code seg_part(const hp_phantom *p, uint64_t seed, const char *path,
                        hp_error *reterr)
{
    static const int PHASE[SEG_STACKS] = {HP_PHASE_V, HP_PHASE_V, HP_PHASE_V,
                                          HP_PHASE_V, HP_PHASE_A, HP_PHASE_D};
    hp_draw d = hp_draw_init(seed, 4);
    size_t size = (size_t)SEG_SIDE * SEG_SIDE;
    int16_t *hu = malloc(SEG_STACKS * SEG_SLICES * size * sizeof *hu);
    uint8_t *mask = malloc(SEG_STACKS * size);
    int32_t phase[SEG_STACKS];
    hp_code r = hu == NULL || mask == NULL
                    ? hp_fail(reterr, HP_E_NO_MEMORY, "segmentation tensors")
                    : HP_OK;

    for (int k = 0; k < SEG_STACKS && r == HP_OK; k++) {
        double centre[2];
        int z;

        phase[k] = k == SEG_STACKS - 1 && hp_draw_unit(&d) < 0.5 ? HP_PHASE_NC : PHASE[k];
        r = stack_place(p, k, &d, &z, centre, reterr);
        if (r == HP_OK)
            r = make_stack(p, phase[k], z, centre, hu + (size_t)k * SEG_SLICES * size,
                           mask + (size_t)k * size, reterr);
    }
    if (r == HP_OK) {
        hp_tensor out[] = {
            {"hu", HP_DTYPE_I16, 4, {SEG_STACKS, SEG_SLICES, SEG_SIDE, SEG_SIDE}, hu},
            {"mask", HP_DTYPE_U8, 3, {SEG_STACKS, SEG_SIDE, SEG_SIDE}, mask},
            {"phase", HP_DTYPE_I32, 1, {SEG_STACKS}, phase},
        };

        r = hp_safetensors_write(path, out, 3, reterr);
    }
    free(hu);
    free(mask);
    return r;
}

/* --- one study --------------------------------------------------------- */

typedef hp_code part_fn(const hp_phantom *p, uint64_t seed, const char *path,
                        hp_error *reterr);
static const struct {
    unsigned bit;
    const char *name;
    part_fn *make;
} PARTS[] = {
    {HP_WHAT_LIVER, "liver", liver_part},
    {HP_WHAT_DETECT, "detect", detect_part},
    {HP_WHAT_SLICES, "slices", slices_part},
    {HP_WHAT_PRIMARIES, "primaries", primaries_part},
    {HP_WHAT_SEG, "seg", seg_part},
};

hp_code hp_prepare_tensors(const hp_prepare *o, uint64_t seed, hp_error *reterr)
{
    hp_auto(hp_phantom) *p = NULL;

    for (size_t i = 0; i < sizeof PARTS / sizeof PARTS[0]; i++) {
        char path[HP_PATH_MAX];
        hp_code r;

        if (!(o->what & PARTS[i].bit))
            continue;
        r = hp_path_fmt(path, reterr, "%s/%s", o->out, PARTS[i].name);
        if (r == HP_OK)
            r = hp_path_mkdirs(path, 0755, reterr);
        if (r == HP_OK)
            r = hp_path_fmt(path, reterr, "%s/%s/%07llu.safetensors", o->out,
                            PARTS[i].name, (unsigned long long)seed);
        if (r == HP_OK && hp_path_exists(path))
            continue;
        if (r == HP_OK && p == NULL)
            r = hp_prepare_patient(o, seed, &p, reterr);
        if (r == HP_OK)
            r = PARTS[i].make(p, seed, path, reterr);
        if (r != HP_OK)
            return hp_wrap(reterr, r, "%s of phantom %llu", PARTS[i].name,
                           (unsigned long long)seed);
    }
    return HP_OK;
}
