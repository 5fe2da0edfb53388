/* C twin of the resize: three passes with a table of taps per axis. Planes of
 * the destination are independent, and every sum runs in index order, so the
 * thread count changes nothing. */
#include "kernels/resize.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

/* The source voxels under each destination voxel; count 0 means padding. */
typedef struct axis_taps {
    int *start, *count;
    float *weight;         /* (n, max_count) */
    int max_count, lo, hi; /* [lo, hi): the source voxels touched at all */
} axis_taps;

static void taps_done(axis_taps *t)
{
    free(t->start);
    free(t->count);
    free(t->weight);
}

static void fill_taps(axis_taps *t, int i, double centre, double half, int src_n)
{
    double from = fmax(centre - half, 0), to = fmin(centre + half, src_n);
    int first = (int)floor(from), last = (int)ceil(to);

    t->start[i] = first;
    t->count[i] = 0;
    if (!(centre >= 0 && centre < src_n) || to <= from)
        return;
    if (last - first > t->max_count)
        last = first + t->max_count; /* not reached: max_count is generous */
    for (int j = first; j < last; j++) {
        double cover = fmin(to, j + 1.0) - fmax(from, j);

        t->weight[(size_t)i * t->max_count + t->count[i]++] =
            (float)(cover / (to - from));
    }
    if (first < t->lo)
        t->lo = first;
    if (last > t->hi)
        t->hi = last;
}

static bool taps_init(axis_taps *t, int src_n, double lo, double hi, int n)
{
    double scale = (hi - lo) / n, half = fmax(scale, 1) / 2;

    *t = (axis_taps){.lo = src_n, .hi = 0, .max_count = (int)ceil(2 * half) + 2};
    t->start = calloc((size_t)n, sizeof *t->start);
    t->count = calloc((size_t)n, sizeof *t->count);
    t->weight = calloc((size_t)n * t->max_count, sizeof *t->weight);
    if (t->start == NULL || t->count == NULL || t->weight == NULL)
        return false;
    for (int i = 0; i < n; i++)
        fill_taps(t, i, lo + (i + 0.5) * scale, half, src_n);
    return true;
}

typedef struct job {
    const int16_t *hu; /* one of the two sources */
    const float *f32;
    const int *src_n, *dst_n;
    axis_taps z, y, x;
    float pad;
} job;

/* acc[touched y][touched x] = sum over the z taps of destination plane k. */
static void mix_planes(const job *j, int k, float *acc)
{
    int w = j->x.hi - j->x.lo, h = j->y.hi - j->y.lo;

    for (int t = 0; t < j->z.count[k]; t++) {
        float wt = j->z.weight[(size_t)k * j->z.max_count + t];

        for (int y = 0; y < h; y++) {
            size_t at =
                ((size_t)(j->z.start[k] + t) * j->src_n[1] + y + j->y.lo) * j->src_n[2] +
                j->x.lo;
            float *row = acc + (size_t)y * w;

            for (int x = 0; x < w; x++) {
                float v = j->hu != NULL ? (float)j->hu[at + x] : j->f32[at + x];

                row[x] = (t == 0 ? 0.0f : row[x]) + wt * v;
            }
        }
    }
}

static void mix_rows(const job *j, int y, const float *acc, float *row)
{
    int w = j->x.hi - j->x.lo;

    for (int x = 0; x < w; x++)
        row[x] = 0;
    for (int t = 0; t < j->y.count[y]; t++) {
        float wt = j->y.weight[(size_t)y * j->y.max_count + t];
        const float *in = acc + (size_t)(j->y.start[y] + t - j->y.lo) * w;

        for (int x = 0; x < w; x++)
            row[x] += wt * in[x];
    }
}

static float mix_row(const job *j, int x, const float *row)
{
    const float *wt = j->x.weight + (size_t)x * j->x.max_count;
    const float *in = row + j->x.start[x] - j->x.lo;
    float v = 0;

    for (int t = 0; t < j->x.count[x]; t++)
        v += wt[t] * in[t];
    return v;
}

static void put(int16_t *hu, float *f32, size_t at, float v)
{
    if (f32 != NULL)
        f32[at] = v;
    else
        hu[at] = (int16_t)lrintf(fminf(fmaxf(v, INT16_MIN), INT16_MAX));
}

static void make_plane(const job *j, int k, float *acc, float *row, int16_t *hu,
                       float *f32)
{
    int ny = j->dst_n[1], nx = j->dst_n[2];

    mix_planes(j, k, acc);
    for (int y = 0; y < ny; y++) {
        bool outside = j->z.count[k] == 0 || j->y.count[y] == 0;

        if (!outside)
            mix_rows(j, y, acc, row);
        for (int x = 0; x < nx; x++) {
            size_t at = ((size_t)k * ny + y) * nx + x;
            bool pad = outside || j->x.count[x] == 0;

            put(hu, f32, at, pad ? j->pad : mix_row(j, x, row));
        }
    }
}

static hp_code run(job *j, const double lo[3], const double hi[3], int16_t *hu,
                   float *f32, hp_error *reterr)
{
    bool ok = taps_init(&j->z, j->src_n[0], lo[0], hi[0], j->dst_n[0]);

    ok = taps_init(&j->y, j->src_n[1], lo[1], hi[1], j->dst_n[1]) && ok;
    ok = taps_init(&j->x, j->src_n[2], lo[2], hi[2], j->dst_n[2]) && ok;
    if (ok) {
        int w = j->x.hi > j->x.lo ? j->x.hi - j->x.lo : 0;
        int h = j->y.hi > j->y.lo ? j->y.hi - j->y.lo : 0;

#pragma omp parallel
        {
            float *acc = malloc(((size_t)w * h + w + 1) * sizeof *acc);

            if (acc == NULL) {
#pragma omp atomic write
                ok = false;
            }
#pragma omp for schedule(static)
            for (int k = 0; k < j->dst_n[0]; k++)
                if (acc != NULL)
                    make_plane(j, k, acc, acc + (size_t)w * h, hu, f32);
            free(acc);
        }
    }
    taps_done(&j->z);
    taps_done(&j->y);
    taps_done(&j->x);
    return ok ? HP_OK : hp_fail(reterr, HP_E_NO_MEMORY, "resizing");
}

hp_code hp_resize_hu_ref(const int16_t *src, const int src_n[3], const double lo[3],
                         const double hi[3], const int dst_n[3], int16_t pad,
                         int16_t *dst, hp_error *reterr)
{
    job j = {.hu = src, .src_n = src_n, .dst_n = dst_n, .pad = pad};

    return run(&j, lo, hi, dst, NULL, reterr);
}

hp_code hp_resize_f32_ref(const float *src, const int src_n[3], const double lo[3],
                          const double hi[3], const int dst_n[3], float pad, float *dst,
                          hp_error *reterr)
{
    job j = {.f32 = src, .src_n = src_n, .dst_n = dst_n, .pad = pad};

    return run(&j, lo, hi, NULL, dst, reterr);
}
