/* Convolution of many channels: Winograd's F(4, 3) along x (Lavin and Gray, arXiv
 * 1509.09308), and what is left as matrix products.
 *
 * Four outputs of a row (a cell) need 6 products instead of 12 for each pair of channels
 * and each row of taps. So six matrices (cell, input channel) are made of the input, one
 * for each term, and multiplied with six of the weights; a row of taps means the same
 * matrix again, its rows looked up elsewhere. A task is TILE cells by WIDE output
 * channels: its weights go through the first cache in pieces of DEEP input channels,
 * which all its cells meet there, and its sums lie in the second.
 */
#include "kernels/conv_wide.h"

#include <string.h>

#include "kernels/lanes.h"

#ifdef _OPENMP
#include <omp.h>
#endif

enum {
    OUT = 4,
    TERMS = 6,
    TAPS = 3,
    MAX_ROWS = 9,
    LANES = 16,
    VECS = 4,
    WIDE = LANES * VECS,
    CELLS = 6, /* of a product in registers: 6 x 4 sums, 4 weights */
    TILE = 32 * CELLS,
    DEEP = 64,
    AHEAD = DEEP * WIDE / (TILE / CELLS)
};

static int row_cells(const hp_conv_plain *c)
{
    return (c->n[2] + OUT - 1) / OUT;
}

static size_t cells(const hp_conv_plain *c)
{
    return (size_t)c->n[0] * c->n[1] * row_cells(c);
}

size_t hp_conv_wide_packed(const hp_conv_plain *c)
{
    return (size_t)c->depth * TAPS * TERMS * c->cin * c->cout;
}

/* (cout, cin, depth, 3, 3) -> (cout / WIDE, term, depth, 3, cin, WIDE) */
void hp_conv_wide_pack(const hp_conv_plain *c, const float *weight, float *packed)
{
    int rows = c->depth * TAPS;
    size_t term = (size_t)rows * c->cin * WIDE;

#pragma omp parallel for collapse(2) schedule(static)
    for (int group = 0; group < c->cout / WIDE; group++)
        for (int i = 0; i < c->cin; i++)
            for (int k = 0; k < rows * WIDE; k++) { /* written in order */
                int r = k / WIDE, o = group * WIDE + k % WIDE;
                const float *g = weight + (((size_t)o * c->cin + i) * rows + r) * TAPS;
                float *to = packed + group * TERMS * term +
                            ((size_t)r * c->cin + i) * WIDE + k % WIDE;
                float even = g[0] + g[2], wide = g[0] + 4 * g[2];

                to[0] = g[0] / 4;
                to[1 * term] = -(even + g[1]) / 6;
                to[2 * term] = -(even - g[1]) / 6;
                to[3 * term] = (wide + 2 * g[1]) / 24;
                to[4 * term] = (wide - 2 * g[1]) / 24;
                to[5 * term] = g[2];
            }
}

/* --- work memory, in floats --------------------------------------------------- */

/* DEEP channels of one term of the input, (cell, DEEP), and a row of zeros behind. */
static size_t piece_floats(const hp_conv_plain *c)
{
    return (cells(c) + 1) * DEEP;
}

/* One term of the input: (cin / DEEP) pieces. */
static size_t term_floats(const hp_conv_plain *c)
{
    return piece_floats(c) * (c->cin / DEEP);
}

enum { SUMS = TERMS * TILE * WIDE }; /* of a thread: (term, cell, WIDE) */

size_t hp_conv_wide_work(const hp_conv_plain *c, int threads)
{
    return TERMS * term_floats(c) + (size_t)SUMS * threads;
}

#ifdef HP_LANES

/* What the threads share. */
typedef struct job {
    const hp_conv_plain *c;
    const float *in, *packed, *bias, *plus;
    float *terms, *out;
} job;

/* A task: output channels from `group` * WIDE, cells from `first`. */
typedef struct task {
    int group, count;
    size_t first;
    size_t at[MAX_ROWS][TILE]; /* for each row of taps: where a cell's inputs lie */
    float *sums;
} task;

HP_LANES_BEGIN

/* --- terms of the input ------------------------------------------------------- */

static void transform(const job *j, size_t row)
{
    int cin = j->c->cin, width = j->c->n[2];
    size_t term = term_floats(j->c), piece = piece_floats(j->c), n = row_cells(j->c);
    const float *in = j->in + row * width * cin, *zero = j->terms + piece - DEEP;

    for (int q = 0; q < (int)n; q++)
        for (int p = 0; p < cin / DEEP; p++) {
            float *restrict to = j->terms + p * piece + (row * n + q) * DEEP;
            const float *d[TERMS];

            for (int t = 0; t < TERMS; t++) {
                int x = q * OUT + t - 1;

                d[t] = x < 0 || x >= width ? zero : in + (size_t)x * cin + p * DEEP;
            }
            for (int k = 0; k < DEEP; k++) {
                float d1 = d[1][k], d2 = d[2][k], d3 = d[3][k], d4 = d[4][k];
                float a = d4 - 4 * d2, b = d3 - 4 * d1, e = d4 - d2, f = 2 * (d3 - d1);

                to[k] = 4 * d[0][k] - 5 * d2 + d4;
                to[term + k] = a + b;
                to[2 * term + k] = a - b;
                to[3 * term + k] = e + f;
                to[4 * term + k] = e - f;
                to[5 * term + k] = 4 * d1 - 5 * d3 + d[5][k];
            }
        }
}

/* --- products ----------------------------------------------------------------- */

/* sums (CELLS, WIDE) += inputs (CELLS, DEEP) * weights (DEEP, WIDE) */
static void multiply(const float *in, const size_t at[CELLS], const float *restrict w,
                     bool begin, float *restrict sums)
{
    const float *x[CELLS];
    v16 m[CELLS][VECS], zero = {0};

    HP_UNROLLED(r, CELLS)
    {
        x[r] = in + at[r];
        HP_UNROLLED(i, VECS)
        m[r][i] = begin ? zero : *(const v16 *)(sums + r * WIDE + i * LANES);
    }
    for (int k = 0; k < DEEP; k++, w += WIDE)
        HP_UNROLLED(r, CELLS)
        {
            v16 spread = x[r][k] - zero;

            HP_UNROLLED(i, VECS)
            m[r][i] += spread * *(const v16 *)(w + i * LANES);
        }
    HP_UNROLLED(r, CELLS)
    HP_UNROLLED(i, VECS)
    *(v16 *)(sums + r * WIDE + i * LANES) = m[r][i];
}

/* The next piece of weights comes while this one is used: 6 % less time. Behind the
 * last piece it is anybody's; a prefetch asks for nothing. */
static void fetch_ahead(const float *w)
{
    for (int i = 0; i < AHEAD; i += LANES)
        __builtin_prefetch(w + i);
}

/* All products of one term. */
static void products(const job *j, const task *t, int term)
{
    int cin = j->c->cin, rows = j->c->depth * TAPS;
    size_t size = (size_t)rows * cin * WIDE;
    const float *w = j->packed + (t->group * TERMS + term) * size;
    const float *in = j->terms + term * term_floats(j->c);
    float *sums = t->sums + (size_t)term * TILE * WIDE;

    for (int r = 0; r < rows; r++)
        for (int p = 0; p < cin / DEEP; p++, w += DEEP * WIDE)
            for (int i = 0; i < t->count; i += CELLS) {
                fetch_ahead(w + DEEP * WIDE + i / CELLS * AHEAD);
                multiply(in + p * piece_floats(j->c), t->at[r] + i, w, r == 0 && p == 0,
                         sums + (size_t)i * WIDE);
            }
}

/* --- voxels of the sums ------------------------------------------------------- */

/* Bias, added value, ReLU. */
static void store(const job *j, size_t to, int channel, v16 y)
{
    to += channel;
    if (j->bias != NULL)
        y += *(const v16u *)(j->bias + channel);
    if (j->plus != NULL)
        y += *(const v16u *)(j->plus + to);
    *(v16u *)(j->out + to) = (v16u)(j->c->relu ? v16_relu(y) : y);
}

/* A cell's voxels; whether all of them are finite. */
static bool finish(const job *j, const task *t, int i)
{
    size_t cell = t->first + i, n = row_cells(j->c);
    int x = (int)(cell % n) * OUT, cout = j->c->cout;
    int count = j->c->n[2] - x < OUT ? j->c->n[2] - x : OUT;
    size_t to = (cell / n * j->c->n[2] + x) * cout;
    bool finite = true;

    for (int k = 0; k < WIDE; k += LANES) {
        const float *sums = t->sums + (size_t)i * WIDE + k;
        v16 m[TERMS], y[OUT], a, d, e, f;

        HP_UNROLLED(s, TERMS)
        m[s] = *(const v16 *)(sums + s * TILE * WIDE);
        a = m[1] + m[2], d = m[1] - m[2], e = m[3] + m[4], f = m[3] - m[4];
        y[0] = m[0] + a + e;
        y[1] = d + 2 * f;
        y[2] = a + 4 * e;
        y[3] = d + 8 * f + m[5];
        for (int v = 0; v < count; v++)
            store(j, to + (size_t)v * cout, t->group * WIDE + k, y[v]);
    }
    for (int v = 0; v < count; v++)
        finite &= hp_lanes_finite(j->out + to + (size_t)v * cout + t->group * WIDE, WIDE,
                                  false);
    return finite;
}
HP_LANES_END

/* --- the volume --------------------------------------------------------------- */

/* Rows of taps outside the volume, and cells behind the last, read zeros. */
static void look_up(const job *j, task *t)
{
    const int *n = j->c->n, depth = j->c->depth;
    int wide = row_cells(j->c);
    size_t zero = piece_floats(j->c) - DEEP;

    for (int i = 0; i < t->count; i++) {
        size_t cell = t->first + i, row = cell / wide;
        int z = (int)(row / n[1]), y = (int)(row % n[1]);

        for (int r = 0; r < depth * TAPS; r++) {
            int zz = z + r / TAPS - depth / 2, yy = y + r % TAPS - 1;
            bool inside = z < n[0] && zz >= 0 && zz < n[0] && yy >= 0 && yy < n[1];

            t->at[r][i] =
                inside ? (((size_t)zz * n[1] + yy) * wide + cell % wide) * DEEP : zero;
        }
    }
}

/* Whether all that came of it is finite. */
static bool run_task(const job *j, int group, size_t first, float *sums)
{
    size_t left = cells(j->c) - first;
    int count = left < TILE ? (int)left : TILE;
    task t = {.group = group, .first = first, .sums = sums};
    bool finite = true;

    t.count = (count + CELLS - 1) / CELLS * CELLS;
    look_up(j, &t);
    for (int s = 0; s < TERMS; s++)
        products(j, &t, s);
    for (int i = 0; i < count; i++)
        finite &= finish(j, &t, i);
    return finite;
}

bool hp_conv_wide_serves(const hp_conv_plain *c)
{
    return (c->depth == 1 || c->depth == 3) && c->cin % DEEP == 0 &&
           c->cout % WIDE == 0 && hp_lanes_serve();
}

bool hp_conv_wide_run(const hp_conv_plain *c, const float *in, const float *packed,
                      const float *bias, const float *plus, float *work, float *out)
{
    const job j = {c, in, packed, bias, plus, work, out};
    size_t rows = (size_t)c->n[0] * c->n[1], count = cells(c);
    int bad = 0;

    for (int p = 1; p <= TERMS * c->cin / DEEP; p++)
        memset(work + p * piece_floats(c) - DEEP, 0, DEEP * sizeof *work);
#pragma omp parallel reduction(| : bad)
    {
        float *sums = work + TERMS * term_floats(c) + (size_t)SUMS * omp_get_thread_num();

#pragma omp for schedule(static)
        for (size_t row = 0; row < rows; row++)
            transform(&j, row);
#pragma omp for collapse(2) schedule(dynamic)
        for (size_t first = 0; first < count; first += TILE)
            for (int group = 0; group < c->cout / WIDE; group++)
                bad |= !run_task(&j, group, first, sums);
    }
    return !bad;
}

#else

bool hp_conv_wide_serves(const hp_conv_plain *c)
{
    (void)c;
    return false;
}

bool hp_conv_wide_run(const hp_conv_plain *c, const float *in, const float *packed,
                      const float *bias, const float *plus, float *work, float *out)
{
    (void)c, (void)in, (void)packed, (void)bias, (void)plus, (void)work, (void)out;
    return false;
}

#endif
