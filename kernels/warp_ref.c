/* C twin of the warp. */
#include "kernels/warp.h"

#include <math.h>
#include <stdbool.h>

#include "kernels/resize.h"

/* Source edge coordinate of destination edge coordinate p: at + step * p. */
typedef struct affine {
    double at[3], step[3][3]; /* step[destination axis][source axis] */
} affine;

static affine affine_between(const hp_geom *src, const hp_geom *grid)
{
    affine m;
    double mm[3], zero[3] = {0, 0, 0}, p[3];

    hp_geom_to_mm(grid, zero, mm);
    hp_geom_to_voxel(src, mm, m.at);
    for (int a = 0; a < 3; a++) {
        double unit[3] = {a == 0, a == 1, a == 2};

        hp_geom_to_mm(grid, unit, mm);
        hp_geom_to_voxel(src, mm, p);
        for (int b = 0; b < 3; b++)
            m.step[a][b] = p[b] - m.at[b];
    }
    return m;
}

/* Parallel when the far corner is off by less than a tenth of a voxel. */
static bool is_parallel(const affine *m, const int n[3])
{
    for (int a = 0; a < 3; a++)
        for (int b = 0; b < 3; b++)
            if (a != b && fabs(m->step[a][b]) * n[a] > 0.1)
                return false;
    return m->step[0][0] > 0 && m->step[1][1] > 0 && m->step[2][2] > 0;
}

static float trilinear(const hp_volume *v, const double p[3])
{
    const int *n = v->geom.n;
    int i0[3], i1[3];
    float f[3], sum = 0;

    for (int a = 0; a < 3; a++) {
        double c = fmin(fmax(p[a] - 0.5, 0), n[a] - 1);

        i0[a] = (int)c;
        i1[a] = i0[a] + 1 < n[a] ? i0[a] + 1 : i0[a];
        f[a] = (float)(c - i0[a]);
    }
    for (int k = 0; k < 8; k++) {
        size_t z = (size_t)(k & 4 ? i1[0] : i0[0]), y = (size_t)(k & 2 ? i1[1] : i0[1]);
        size_t x = (size_t)(k & 1 ? i1[2] : i0[2]);
        float w = (k & 4 ? f[0] : 1 - f[0]) * (k & 2 ? f[1] : 1 - f[1]) *
                  (k & 1 ? f[2] : 1 - f[2]);

        sum += w * (float)v->hu[(z * (size_t)n[1] + y) * (size_t)n[2] + x];
    }
    return sum;
}

static bool inside(const hp_volume *v, const double p[3])
{
    for (int a = 0; a < 3; a++)
        if (!(p[a] >= 0 && p[a] < v->geom.n[a]))
            return false;
    return true;
}

static int16_t sample(const hp_volume *src, const affine *m, const int count[3],
                      const int at[3], int16_t pad)
{
    double p[3], sum = 0;
    int total = count[0] * count[1] * count[2];

    for (int b = 0; b < 3; b++)
        p[b] = m->at[b] + (at[0] + 0.5) * m->step[0][b] + (at[1] + 0.5) * m->step[1][b] +
               (at[2] + 0.5) * m->step[2][b];
    if (!inside(src, p))
        return pad;
    for (int k = 0; k < total; k++) {
        int sub[3] = {k / (count[1] * count[2]), k / count[2] % count[1], k % count[2]};

        for (int b = 0; b < 3; b++) {
            p[b] = m->at[b];
            for (int a = 0; a < 3; a++)
                p[b] += (at[a] + (sub[a] + 0.5) / count[a]) * m->step[a][b];
        }
        sum += trilinear(src, p);
    }
    return (int16_t)lrint(fmin(fmax(sum / total, INT16_MIN), INT16_MAX));
}

static void warp_oblique(const hp_volume *src, const affine *m, const int n[3],
                         int16_t pad, int16_t *dst)
{
    int count[3];

    for (int a = 0; a < 3; a++) {
        double span =
            fmax(fmax(fabs(m->step[a][0]), fabs(m->step[a][1])), fabs(m->step[a][2]));

        count[a] = span > 1 ? (int)ceil(fmin(span, 16)) : 1;
    }
#pragma omp parallel for schedule(static)
    for (int z = 0; z < n[0]; z++)
        for (int y = 0; y < n[1]; y++)
            for (int x = 0; x < n[2]; x++) {
                int at[3] = {z, y, x};

                dst[((size_t)z * n[1] + y) * n[2] + x] = sample(src, m, count, at, pad);
            }
}

hp_code hp_warp_hu_ref(const hp_volume *src, const hp_geom *grid, int16_t pad,
                       int16_t *dst, hp_error *reterr)
{
    affine m = affine_between(&src->geom, grid);
    double hi[3];

    if (!is_parallel(&m, grid->n)) {
        warp_oblique(src, &m, grid->n, pad, dst);
        return HP_OK;
    }
    for (int a = 0; a < 3; a++) {
        double lo = m.at[a];

        /* A grid laid exactly on the source must give the source back. */
        if (fabs(lo - round(lo)) < 1e-6)
            m.at[a] = lo = round(lo);
        hi[a] = lo + m.step[a][a] * grid->n[a];
        if (fabs(hi[a] - round(hi[a])) < 1e-6)
            hi[a] = round(hi[a]);
    }
    return hp_resize_hu_ref(src->hu, src->geom.n, m.at, hi, grid->n, pad, dst, reterr);
}
