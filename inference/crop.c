/* Grids and crops. */
#include "inference/crop.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/resize.h"

enum { TISSUE_HU = -300 };

static int imax(int a, int b)
{
    return a > b ? a : b;
}
static int imin(int a, int b)
{
    return a < b ? a : b;
}

hp_geom hp_crop_body_grid(const hp_geom *g)
{
    const double want_mm[3] = {8, 6, 6};
    int n[3];

    for (int a = 0; a < 3; a++)
        n[a] = imax(1, (int)lround(g->n[a] * g->spacing_mm[a] / want_mm[a]));
    return hp_geom_resample(g, n);
}

/* First and last index along `axis` whose cross-section holds at least `share`
 * of the fullest cross-section's tissue. */
static void tissue_range(const hp_geom *g, const int16_t *hu, int axis, double share,
                         int *ret_lo, int *ret_hi)
{
    int n = g->n[axis], max = 0;
    int *count = calloc((size_t)n, sizeof *count);

    *ret_lo = 0;
    *ret_hi = n;
    if (count == NULL)
        return; /* the whole axis: a safe answer */
    for (int z = 0, i = 0; z < g->n[0]; z++)
        for (int y = 0; y < g->n[1]; y++)
            for (int x = 0; x < g->n[2]; x++, i++) {
                int at = axis == 0 ? z : axis == 1 ? y : x;

                count[at] += hu[i] > TISSUE_HU;
            }
    for (int i = 0; i < n; i++)
        max = imax(max, count[i]);
    if (max > 0) {
        while (count[*ret_lo] < share * max)
            ++*ret_lo;
        while (count[*ret_hi - 1] < share * max)
            --*ret_hi;
    }
    free(count);
}

hp_box hp_crop_body(const hp_geom *coarse, const int16_t *hu)
{
    hp_box box;

    for (int a = 0; a < 3; a++) {
        int lo, hi;

        tissue_range(coarse, hu, a, 0.15, &lo, &hi);
        box.lo[a] = lo * coarse->spacing_mm[a];
        box.hi[a] = hi * coarse->spacing_mm[a];
    }
    return box;
}

hp_geom hp_crop_liver_grid(const hp_geom *v, const hp_box *body, const int n[3],
                           const double spacing_mm[3])
{
    hp_geom g = *v;
    double depth_mm = v->n[0] * v->spacing_mm[0], centre[3];

    g.n[0] = imax(n[0], (int)ceil(depth_mm / spacing_mm[0]));
    g.n[1] = n[1];
    g.n[2] = n[2];
    for (int a = 0; a < 3; a++) {
        double middle_mm = a == 0 ? depth_mm / 2 : (body->lo[a] + body->hi[a]) / 2;
        double first_mm = middle_mm - (g.n[a] - 1) * spacing_mm[a] / 2;

        g.spacing_mm[a] = spacing_mm[a];
        centre[a] = first_mm / v->spacing_mm[a];
    }
    hp_geom_to_mm(v, centre, g.origin_mm);
    return g;
}

int hp_crop_windows(int nz, int size)
{
    int stride = imax(1, size / 2);

    return nz <= size ? 1 : 1 + (nz - size + stride - 1) / stride;
}

int hp_crop_window_start(int nz, int size, int i)
{
    return imax(0, imin(i * imax(1, size / 2), nz - size));
}

hp_voxel_box hp_crop_detector(const hp_geom *v, const hp_voxel_box *liver,
                              const double margin_mm[3])
{
    hp_voxel_box crop;

    for (int a = 0; a < 3; a++) {
        int margin = (int)ceil(margin_mm[a] / v->spacing_mm[a] - 1e-9);

        if (a == 0)
            margin = imax(1, margin);
        crop.lo[a] = imax(0, liver->lo[a] - margin);
        crop.hi[a] = imin(v->n[a], liver->hi[a] + margin);
    }
    return crop;
}

void hp_crop_keyslice(const hp_geom *v, const hp_voxel_box *liver, double spacing_mm,
                      int ret_n[2], double ret_lo_mm[2])
{
    for (int a = 0; a < 2; a++) {
        double sp = v->spacing_mm[a + 1];
        double lo = liver->lo[a + 1] * sp, hi = liver->hi[a + 1] * sp;
        int px = (int)ceil((hi - lo + 40) / spacing_mm / 16 - 1e-9) * 16;

        ret_n[a] = imin(512, px);
        ret_lo_mm[a] = (lo + hi) / 2 - ret_n[a] * spacing_mm / 2;
    }
}

hp_code hp_crop_plane(const hp_geom *v, const int16_t *plane, const double lo_mm[2],
                      const int n[2], double spacing_mm, int16_t *ret, hp_error *reterr)
{
    const int src_n[3] = {1, v->n[1], v->n[2]}, dst_n[3] = {1, n[0], n[1]};
    double lo[3] = {0}, hi[3] = {1, 0, 0};

    for (int a = 0; a < 2; a++) {
        lo[a + 1] = lo_mm[a] / v->spacing_mm[a + 1];
        hi[a + 1] = (lo_mm[a] + n[a] * spacing_mm) / v->spacing_mm[a + 1];
    }
    return hp_resize_hu_ref(plane, src_n, lo, hi, dst_n, HP_PAD_HU, ret, reterr);
}

hp_code hp_crop_stack(int z, int nz, double z_spacing_mm, int count, double interval_mm,
                      const int n[2], hp_plane_fn *plane, void *payload, int16_t *ret,
                      hp_error *reterr)
{
    double half = count * interval_mm / z_spacing_mm / 2;
    double lo = z + 0.5 - half, hi = z + 0.5 + half;
    int first = (int)floor(lo) - 1, last = (int)ceil(hi) + 1;
    size_t size = (size_t)n[0] * (size_t)n[1];
    int16_t *src = malloc((size_t)(last - first) * size * sizeof *src);
    const int src_n[3] = {last - first, n[0], n[1]}, dst_n[3] = {count, n[0], n[1]};
    hp_code r;

    if (src == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "slice stack");
    for (int i = first; i < last; i++) /* replicate beyond the ends */
        memcpy(src + (size_t)(i - first) * size, plane(imax(0, imin(nz - 1, i)), payload),
               size * sizeof *src);
    r = hp_resize_hu_ref(src, src_n, (double[]){lo - first, 0, 0},
                         (double[]){hi - first, n[0], n[1]}, dst_n, HP_PAD_HU, ret,
                         reterr);
    free(src);
    return r;
}

int hp_crop_sadt_side(double box_h_px, double box_w_px, int base, int ring_px)
{
    double need = fmax(box_h_px, box_w_px) + 2 * ring_px;

    return need <= base ? base : (int)ceil(need / 32 - 1e-9) * 32;
}
