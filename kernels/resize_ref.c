/* C twin of the resize: three passes with a table of taps per axis, over bands of rows
 * that stay in a cache. Bands are independent, and every sum runs in index order, so the
 * thread count changes nothing. Where an axis keeps its voxels its pass is left out,
 * which gives the same numbers.
 */
#include "kernels/resize.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { BAND = 32 }; /* rows of the destination */

/* The source voxels under each destination voxel; count 0 means padding. */
typedef struct axis_taps {
    int *start, *count;
    float *weight; /* (n, max_count) */
    int max_count;
    int lo, hi;     /* [lo, hi): the source voxels touched at all */
    int first, end; /* [first, end): the destination voxels that are not padding */
    bool same;      /* those are source voxels as they are, from lo on */
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
    t->same = true;
    t->first = n;
    for (int i = 0; i < n; i++) {
        fill_taps(t, i, lo + (i + 0.5) * scale, half, src_n);
        if (t->count[i] == 0)
            continue;
        t->first = i < t->first ? i : t->first;
        t->end = i + 1;
        t->same = t->same && t->count[i] == 1 && t->start[i] == t->lo + i - t->first &&
                  t->weight[(size_t)i * t->max_count] == 1;
    }
    return true;
}

typedef struct job {
    const int16_t *hu; /* one of the two sources */
    const float *f32;
    int16_t *to_hu; /* one of the two destinations */
    float *to_f32;
    const int *src_n, *dst_n;
    axis_taps z, y, x;
    int band_rows;
    float pad;
} job;

/* Rows [from, to) of the source, each row's touched x: the sum over the z taps of
 * destination plane k. acc: the first of them. */
static void mix_planes(const job *j, int k, int from, int to, float *acc)
{
    int w = j->x.hi - j->x.lo;

    for (int t = 0; t < j->z.count[k]; t++) {
        float wt = j->z.weight[(size_t)k * j->z.max_count + t];

        for (int y = from; y < to; y++) {
            size_t at =
                ((size_t)(j->z.start[k] + t) * j->src_n[1] + y) * j->src_n[2] + j->x.lo;
            float *row = acc + (size_t)(y - from) * w;

            for (int x = 0; x < w; x++) {
                float v = j->hu != NULL ? (float)j->hu[at + x] : j->f32[at + x];

                row[x] = (t == 0 ? 0.0f : row[x]) + wt * v;
            }
        }
    }
}

/* acc: rows from y's first tap on. */
static void mix_rows(const job *j, int y, const float *acc, float *row)
{
    int w = j->x.hi - j->x.lo;

    for (int x = 0; x < w; x++)
        row[x] = 0;
    for (int t = 0; t < j->y.count[y]; t++) {
        float wt = j->y.weight[(size_t)y * j->y.max_count + t];
        const float *in = acc + (size_t)t * w;

        for (int x = 0; x < w; x++)
            row[x] += wt * in[x];
    }
}

static void mix_row(const job *j, const float *row, float *out)
{
    const axis_taps *a = &j->x;
    const float *wt = a->weight + (size_t)a->first * a->max_count;

    for (int x = a->first; x < a->end; x++, wt += a->max_count) {
        const float *in = row + a->start[x] - a->lo;
        float v = 0.0f + wt[0] * in[0];

        for (int t = 1; t < a->count[x]; t++)
            v += wt[t] * in[t];
        out[x - a->first] = v;
    }
}

/* To nearest even, as lrintf() does, but in whole registers: a float of this size has no
 * room for a fraction. */
static void put_hu(const float *v, int n, int16_t *hu)
{
    const float rounder = 0x1.8p23f;

    for (int i = 0; i < n; i++) {
        float in_range = v[i] < INT16_MIN   ? INT16_MIN
                         : v[i] > INT16_MAX ? INT16_MAX
                                            : v[i];

        hu[i] = (int16_t)(in_range + rounder - rounder);
    }
}

/* The voxels of row y in plane k that are not padding; acc as in mix_rows(). */
static void make_row(const job *j, int y, const float *acc, float *room, int16_t *hu,
                     float *f32)
{
    int n = j->x.end - j->x.first;
    float *line = room + (j->x.hi - j->x.lo);
    const float *row = acc;

    if (!j->y.same) {
        mix_rows(j, y, acc, room);
        row = room;
    }
    if (!j->x.same) {
        mix_row(j, row, f32 != NULL ? f32 : line);
        row = line;
    } else if (f32 != NULL) {
        memcpy(f32, row, (size_t)n * sizeof *f32);
    }
    if (f32 == NULL)
        put_hu(row, n, hu);
}

static void pad(const job *j, size_t at, int n)
{
    for (int i = 0; i < n; i++)
        if (j->to_f32 != NULL)
            j->to_f32[at + i] = j->pad;
        else
            j->to_hu[at + i] = (int16_t)j->pad;
}

/* A band of plane k from row `first`. acc: band_rows() rows of touched x, and room for
 * two rows more. */
static void make_band(const job *j, int k, int first, float *acc)
{
    const axis_taps *ay = &j->y, *ax = &j->x;
    int w = ax->hi - ax->lo, nx = j->dst_n[2];
    int end = first + BAND < j->dst_n[1] ? first + BAND : j->dst_n[1];
    int low = first > ay->first ? first : ay->first, high = end < ay->end ? end : ay->end;
    bool some = j->z.count[k] > 0 && low < high && ax->first < ax->end;
    int from = some ? ay->start[low] : 0;
    int to = some ? ay->start[high - 1] + ay->count[high - 1] : 0;

    mix_planes(j, k, from, to, acc);
    for (int y = first; y < end; y++) {
        size_t at = ((size_t)k * j->dst_n[1] + y) * nx;

        if (!some || y < low || y >= high) {
            pad(j, at, nx);
            continue;
        }
        pad(j, at, ax->first);
        make_row(j, y, acc + (size_t)(ay->start[y] - from) * w,
                 acc + (size_t)j->band_rows * w,
                 j->to_hu != NULL ? j->to_hu + at + ax->first : NULL,
                 j->to_f32 != NULL ? j->to_f32 + at + ax->first : NULL);
        pad(j, at + ax->end, nx - ax->end);
    }
}

/* The most source rows that a band touches. */
static int band_rows(const axis_taps *a)
{
    int most = 0;

    for (int first = a->first; first < a->end; first++) {
        int last = first + BAND < a->end ? first + BAND - 1 : a->end - 1;
        int rows = a->start[last] + a->count[last] - a->start[first];

        most = rows > most ? rows : most;
    }
    return most;
}

/* Whole voxels, nothing between them: a copy. */
static bool is_copy(const job *j)
{
    return j->z.same && j->y.same && j->x.same && j->to_hu != NULL;
}

static void copy_band(const job *j, int k, int first)
{
    int end = first + BAND < j->dst_n[1] ? first + BAND : j->dst_n[1];
    int n = j->x.end - j->x.first, nx = j->dst_n[2];

    for (int y = first; y < end; y++) {
        size_t at = ((size_t)k * j->dst_n[1] + y) * nx;

        if (j->z.count[k] == 0 || j->y.count[y] == 0 || n <= 0) {
            pad(j, at, nx);
            continue;
        }
        pad(j, at, j->x.first);
        memcpy(j->to_hu + at + j->x.first,
               j->hu +
                   ((size_t)j->z.start[k] * j->src_n[1] + j->y.start[y]) * j->src_n[2] +
                   j->x.lo,
               (size_t)n * sizeof *j->to_hu);
        pad(j, at + j->x.end, nx - j->x.end);
    }
}

static hp_code run(job *j, const double lo[3], const double hi[3], hp_error *reterr)
{
    bool ok;

    for (int a = 0; a < 3; a++)
        if (!(hi[a] >= lo[a]))
            return hp_fail(reterr, HP_E_INVALID, "resizing a box from %g to %g", lo[a],
                           hi[a]);
    ok = taps_init(&j->z, j->src_n[0], lo[0], hi[0], j->dst_n[0]);
    ok = taps_init(&j->y, j->src_n[1], lo[1], hi[1], j->dst_n[1]) && ok;
    ok = taps_init(&j->x, j->src_n[2], lo[2], hi[2], j->dst_n[2]) && ok;
    if (ok) {
        size_t w = j->x.hi > j->x.lo ? (size_t)(j->x.hi - j->x.lo) : 0;
        size_t line = (size_t)j->dst_n[2];
        bool copy = is_copy(j);

        j->band_rows = band_rows(&j->y);
#pragma omp parallel
        {
            float *acc =
                copy ? NULL
                     : malloc(((size_t)(j->band_rows + 1) * w + line + 1) * sizeof *acc);

            if (acc == NULL && !copy) {
#pragma omp atomic write
                ok = false;
            }
#pragma omp for collapse(2) schedule(static)
            for (int k = 0; k < j->dst_n[0]; k++)
                for (int y = 0; y < j->dst_n[1]; y += BAND) {
                    if (copy)
                        copy_band(j, k, y);
                    else if (acc != NULL)
                        make_band(j, k, y, acc);
                }
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
    job j = {.hu = src, .to_hu = dst, .src_n = src_n, .dst_n = dst_n, .pad = pad};

    return run(&j, lo, hi, reterr);
}

hp_code hp_resize_f32_ref(const float *src, const int src_n[3], const double lo[3],
                          const double hi[3], const int dst_n[3], float pad, float *dst,
                          hp_error *reterr)
{
    job j = {.f32 = src, .to_f32 = dst, .src_n = src_n, .dst_n = dst_n, .pad = pad};

    return run(&j, lo, hi, reterr);
}
