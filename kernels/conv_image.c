/* Convolution of few channels: a register holds a voxel's sums for all output channels,
 * and takes a tap's weights times one number of the image. A block of voxels shares
 * each load of weights. The numbers that a voxel takes from one image row, k voxels of
 * cin channels, lie one behind the other.
 *
 * A thread walks down a band of output rows. The image rows that it needs lie in its
 * work memory with zeros around them, a ring of k for each plane.
 */
#include "kernels/conv_image.h"

#include <stdint.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "kernels/lanes.h"

enum { BAND = 16, MAX_ROWS = 21, WIDE = 16, LANES = 16 };

/* How many numbers of one image row a voxel takes. */
static int numbers(const hp_conv_image *c)
{
    return c->k * c->cin;
}

size_t hp_conv_image_packed(const hp_conv_image *c)
{
    return (size_t)c->depth * c->k * numbers(c) * c->cout;
}

/* (cout, cin, depth, k, k) -> (depth, k, k, cin, cout) */
void hp_conv_image_pack(const hp_conv_image *c, const float *weight, float *packed)
{
    int taps = c->depth * c->k * c->k;

    for (int o = 0; o < c->cout; o++)
        for (int i = 0; i < c->cin; i++)
            for (int t = 0; t < taps; t++)
                packed[((size_t)t * c->cin + i) * c->cout + o] =
                    weight[((size_t)o * c->cin + i) * taps + t];
}

/* Of a padded row, in whole registers. */
static size_t row_floats(const hp_conv_image *c)
{
    return (((size_t)c->in[2] + c->k) * c->cin + LANES - 1) / LANES * LANES;
}

size_t hp_conv_image_work(const hp_conv_image *c, int threads)
{
    return row_floats(c) * c->depth * c->k * threads;
}

#ifdef HP_LANES

/* What one output row is made of. */
typedef struct row {
    const float *in[MAX_ROWS]; /* padded rows: above first, planes outermost */
    int n, rows;
    const float *packed, *bias;
    bool relu, narrow;
    void *out;
} row;

HP_LANES_BEGIN

/* `count` voxels from `at` on, of n numbers a row, `step` numbers apart: constants where
 * it is inlined. */
#define ROW_OF(vec, channels)                                                            \
    HP_INLINED void vec##_block(const row *b, int at, int n, int step, int count)        \
    {                                                                                    \
        const float *w = b->packed;                                                      \
        vec sum[WIDE], zero = {0};                                                       \
                                                                                         \
        HP_UNROLLED(q, count)                                                            \
        sum[q] = b->bias != NULL ? (vec) * (const vec##u *)b->bias : zero;               \
        for (int r = 0; r < b->rows; r++) {                                              \
            const float *x = b->in[r] + (size_t)at * step;                               \
                                                                                         \
            /* unrolled, GCC keeps numbers for the next tap and runs out of registers */ \
            _Pragma("GCC unroll 1") for (int t = 0; t < n; t++, x++, w += channels)      \
            {                                                                            \
                vec weight = (vec) * (const vec##u *)w;                                  \
                                                                                         \
                HP_UNROLLED(q, count)                                                    \
                sum[q] += weight * (x[q * step] - zero);                                 \
            }                                                                            \
        }                                                                                \
        HP_UNROLLED(q, count)                                                            \
        {                                                                                \
            size_t to = ((size_t)at + q) * channels;                                     \
            vec y = b->relu ? vec##_relu(sum[q]) : sum[q];                               \
                                                                                         \
            if (b->narrow)                                                               \
                vec##_narrowed(y, (uint16_t *)b->out + to);                              \
            else                                                                         \
                *(vec##u *)((float *)b->out + to) = (vec##u)y;                           \
        }                                                                                \
    }                                                                                    \
    HP_INLINED void vec##_row(const row *b, int n, int step)                             \
    {                                                                                    \
        int x = 0;                                                                       \
                                                                                         \
        for (; x + WIDE <= b->n; x += WIDE)                                              \
            vec##_block(b, x, n, step, WIDE);                                            \
        for (; x + 4 <= b->n; x += 4)                                                    \
            vec##_block(b, x, n, step, 4);                                               \
        for (; x < b->n; x++)                                                            \
            vec##_block(b, x, n, step, 1);                                               \
    }
ROW_OF(v8, 8)
ROW_OF(v16, 16)

typedef struct code {
    int cin, cout, k, stride;
    void (*row)(const row *b);
} code;

#define CODE(name, vec, cin, cout, k, stride)                                            \
    static void row_##name(const row *b)                                                 \
    {                                                                                    \
        vec##_row(b, k *cin, stride *cin);                                               \
    }                                                                                    \
    static const code code_##name = {cin, cout, k, stride, row_##name};
CODE(liver, v8, 1, 8, 3, 1)
CODE(detector, v16, 1, 16, 7, 2)
CODE(keyslice, v16, 9, 16, 3, 1)
CODE(texture, v16, 4, 16, 7, 2)
HP_LANES_END

static const code *code_of(const hp_conv_image *c)
{
    static const code *const CODES[] = {&code_liver, &code_detector, &code_keyslice,
                                        &code_texture};

    if (!hp_lanes_serve())
        return NULL;
    for (size_t i = 0; i < sizeof CODES / sizeof CODES[0]; i++)
        if (CODES[i]->cin == c->cin && CODES[i]->cout == c->cout && CODES[i]->k == c->k &&
            CODES[i]->stride == c->stride)
            return CODES[i];
    return NULL;
}

bool hp_conv_image_serves(const hp_conv_image *c)
{
    return (c->depth == 1 || c->depth == 3) && code_of(c) != NULL;
}

/* Where image row y of one of the planes lies. */
static float *place(const hp_conv_image *c, float *own, int plane, int y)
{
    return own + ((size_t)plane * c->k + (y + c->k) % c->k) * row_floats(c);
}

/* One row of the image with zeros around it; zeros alone outside. */
static void fetch(const hp_conv_image *c, const float *in, int z, int y, float *to)
{
    size_t before = (size_t)c->k / 2 * c->cin, n = (size_t)c->in[2] * c->cin;
    size_t all = row_floats(c);

    if (z < 0 || z >= c->in[0] || y < 0 || y >= c->in[1]) {
        memset(to, 0, all * sizeof *to);
        return;
    }
    memset(to, 0, before * sizeof *to);
    memcpy(to + before, in + ((size_t)z * c->in[1] + y) * n, n * sizeof *to);
    memset(to + before + n, 0, (all - before - n) * sizeof *to);
}

/* BAND rows of plane z from `first`; b's out is that of the volume. Whether
 * all of them are finite. */
static bool run_band(const hp_conv_image *c, const code *code, const float *in, int z,
                     int first, float *own, row b)
{
    int end = first + BAND < c->out[1] ? first + BAND : c->out[1];
    int next = first * c->stride - c->k / 2; /* the first row that is not there yet */
    size_t bytes = (size_t)c->out[2] * c->cout * (c->narrow ? 2 : sizeof(float));
    char *out = (char *)b.out + ((size_t)z * c->out[1] + first) * bytes;
    bool finite = true;

    for (int y = first; y < end; y++, out += bytes) {
        int top = y * c->stride - c->k / 2;

        for (; next < top + c->k; next++)
            for (int p = 0; p < c->depth; p++)
                fetch(c, in, z + p - c->depth / 2, next, place(c, own, p, next));
        for (int r = 0; r < b.rows; r++)
            b.in[r] = place(c, own, r / c->k, top + r % c->k);
        b.out = out;
        code->row(&b);
        finite &= hp_lanes_finite(out, (size_t)c->out[2] * c->cout, c->narrow);
    }
    return finite;
}

bool hp_conv_image_run(const hp_conv_image *c, const float *in, const float *packed,
                       const float *bias, float *work, void *out)
{
    const code *code = code_of(c);
    size_t each = hp_conv_image_work(c, 1);
    row b = {.n = c->out[2],
             .rows = c->depth * c->k,
             .packed = packed,
             .bias = bias,
             .relu = c->relu,
             .narrow = c->narrow,
             .out = out};
    int bad = 0;

#pragma omp parallel for collapse(2) schedule(static) reduction(| : bad)
    for (int z = 0; z < c->out[0]; z++)
        for (int y = 0; y < c->out[1]; y += BAND)
            bad |= !run_band(c, code, in, z, y,
                             work + (size_t)omp_get_thread_num() * each, b);
    return !bad;
}

#else

bool hp_conv_image_serves(const hp_conv_image *c)
{
    (void)c;
    return false;
}

bool hp_conv_image_run(const hp_conv_image *c, const float *in, const float *packed,
                       const float *bias, float *work, void *out)
{
    (void)c, (void)in, (void)packed, (void)bias, (void)work, (void)out;
    return false;
}

#endif
