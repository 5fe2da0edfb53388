/* Convolution by rows, four voxels at a time: Winograd's F(4, 3) along x (Lavin and
 * Gray, arXiv 1509.09308).
 *
 * Four outputs of a row of three taps need 6 products instead of 12: of 6 sums of the
 * inputs (made when a row is fetched) with 6 sums of the taps (made when weights are
 * packed). Products are added over channels, rows and planes before they become voxels.
 *
 * A thread walks down a band of rows. The input rows it needs (3, or 3 of each of 3
 * planes) lie transformed in its work memory; rows outside are zero. A register of 16
 * sums takes one input number at a time for 16 output channels, or two for 8: even
 * places are the sums over even input channels, odd ones over odd.
 */
#include "kernels/conv_rows.h"

#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "kernels/lanes.h"

enum { BAND = 16, TAPS = 3, MAX_ROWS = 9, OUT = 4, TERMS = 6, QUADS = 4, LANES = 16 };

size_t hp_conv_rows_packed(const hp_conv_plain *c)
{
    return (size_t)c->depth * TAPS * TERMS * c->cin * c->cout;
}

/* How many input channels go into one register of sums. */
static int parity(const hp_conv_plain *c)
{
    return LANES / c->cout;
}

/* (cout, cin, depth, 3, 3) -> (depth, 3, cin / parity, term, cout, parity) */
void hp_conv_rows_pack(const hp_conv_plain *c, const float *weight, float *packed)
{
    int rows = c->depth * TAPS, each = parity(c);

    for (int o = 0; o < c->cout; o++)
        for (int i = 0; i < c->cin; i++)
            for (int r = 0; r < rows; r++) {
                const float *g = weight + (((size_t)o * c->cin + i) * rows + r) * TAPS;
                float *to = packed +
                            ((size_t)r * c->cin + i / each * each) * TERMS * c->cout +
                            o * each + i % each;
                float even = g[0] + g[2], wide = g[0] + 4 * g[2];

                to[0] = g[0] / 4;
                to[1 * LANES] = -(even + g[1]) / 6;
                to[2 * LANES] = -(even - g[1]) / 6;
                to[3 * LANES] = (wide + 2 * g[1]) / 24;
                to[4 * LANES] = (wide - 2 * g[1]) / 24;
                to[5 * LANES] = g[2];
            }
}

/* --- a thread's work memory, in floats: whole registers, as cin is in eights -- */

static int quads(const hp_conv_plain *c)
{
    return c->n[2] / OUT;
}

static size_t terms_floats(const hp_conv_plain *c) /* (quad, term, lane) */
{
    return (size_t)quads(c) * TERMS * LANES;
}

static size_t row_floats(const hp_conv_plain *c) /* (quad, term, cin) */
{
    return (size_t)quads(c) * TERMS * c->cin;
}

static size_t padded_floats(const hp_conv_plain *c) /* (voxel, cin) */
{
    return ((size_t)c->n[2] + 2) * c->cin;
}

size_t hp_conv_rows_work(const hp_conv_plain *c, int threads)
{
    return (terms_floats(c) + padded_floats(c) + row_floats(c) * c->depth * TAPS) *
           threads;
}

#ifdef HP_LANES

/* --- a row ------------------------------------------------------------------ */

/* What one output row is made of. */
typedef struct row {
    const float *in[MAX_ROWS]; /* transformed rows: above first, planes outermost */
    int quads, depth;
    const float *packed, *bias, *plus;
    bool relu;
    float *terms; /* between planes */
    float *out;
} row;

HP_LANES_BEGIN
/* From here on cin, cout and count are constants where they are inlined. */

/* One input number for 16 output channels, or two for 8. */
HP_INLINED v16 spread(const float *x, int cout)
{
    double two;

    if (cout == LANES)
        return *x - (v16){0};
    memcpy(&two, x, sizeof two);
    return (v16)(two - (__attribute__((vector_size(64))) double){0});
}

/* Bias, added value, ReLU. */
#define STORE_OF(name, vec)                                                              \
    HP_INLINED void name(const row *b, size_t to, vec y)                                 \
    {                                                                                    \
        if (b->bias != NULL)                                                             \
            y += (vec) * (const vec##u *)b->bias;                                        \
        if (b->plus != NULL)                                                             \
            y += (vec) * (const vec##u *)(b->plus + to);                                 \
        if (b->relu)                                                                     \
            y = vec##_relu(y);                                                           \
        *(vec##u *)(b->out + to) = (vec##u)y;                                            \
    }
STORE_OF(store8, v8)
STORE_OF(store16, v16)

HP_INLINED void store(const row *b, int voxel, int cout, v16 y)
{
    if (cout == LANES)
        store16(b, (size_t)voxel * LANES, y);
    else
        store8(b, (size_t)voxel * 8,
               __builtin_shufflevector(y, y, 0, 2, 4, 6, 8, 10, 12, 14) +
                   __builtin_shufflevector(y, y, 1, 3, 5, 7, 9, 11, 13, 15));
}

/* A quad from the six sums of its products. */
HP_INLINED void finish(const row *b, int quad, int cout, const v16 m[TERMS])
{
    v16 a = m[1] + m[2], d = m[1] - m[2], e = m[3] + m[4], f = m[3] - m[4];

    store(b, quad * OUT, cout, m[0] + a + e);
    store(b, quad * OUT + 1, cout, d + 2 * f);
    store(b, quad * OUT + 2, cout, a + 4 * e);
    store(b, quad * OUT + 3, cout, d + 8 * f + m[5]);
}

/* Products of a block of quads with the weights of plane p, which fill much of the
 * first cache: so planes take turns over the whole row. */
HP_INLINED void block(const row *b, int p, int at, int cin, int cout, int count)
{
    int each = LANES / cout;
    const float *w = b->packed + (size_t)p * TAPS * cin * TERMS * cout;
    float *terms = b->terms + (size_t)at * TERMS * LANES;
    v16 m[QUADS][TERMS], zero = {0};

    HP_UNROLLED(q, count)
    HP_UNROLLED(t, TERMS)
    m[q][t] = p > 0 ? *(const v16 *)(terms + (q * TERMS + t) * LANES) : zero;
    for (int r = 0; r < TAPS; r++) {
        const float *x = b->in[p * TAPS + r] + (size_t)at * TERMS * cin;

        for (int k = 0; k < cin; k += each, w += TERMS * LANES)
            HP_UNROLLED(t, TERMS)
            {
                v16 weight = *(const v16 *)(w + t * LANES);

                HP_UNROLLED(q, count)
                m[q][t] += weight * spread(x + (q * TERMS + t) * cin + k, cout);
            }
    }
    HP_UNROLLED(q, count)
    {
        if (p == b->depth - 1)
            finish(b, at + q, cout, m[q]);
        else
            HP_UNROLLED(t, TERMS) * (v16 *)(terms + (q * TERMS + t) * LANES) = m[q][t];
    }
}

HP_INLINED void whole_row(const row *b, int cin, int cout)
{
    for (int p = 0; p < b->depth; p++) {
        int q = 0;

        for (; q + QUADS <= b->quads; q += QUADS)
            block(b, p, q, cin, cout, QUADS);
        for (; q < b->quads; q++)
            block(b, p, q, cin, cout, 1);
    }
}

/* Six sums of each six neighbours, four voxels apart. */
HP_INLINED void transform(const float *restrict in, int n, int cin, float *restrict to)
{
    for (int q = 0; q < n; q++, in += OUT * cin, to += TERMS * cin)
        for (int k = 0; k < cin; k++) {
            float d1 = in[cin + k], d2 = in[2 * cin + k], d3 = in[3 * cin + k],
                  d4 = in[4 * cin + k];
            float a = d4 - 4 * d2, b = d3 - 4 * d1, e = d4 - d2, f = 2 * (d3 - d1);

            to[k] = 4 * in[k] - 5 * d2 + d4;
            to[cin + k] = a + b;
            to[2 * cin + k] = a - b;
            to[3 * cin + k] = e + f;
            to[4 * cin + k] = e - f;
            to[5 * cin + k] = 4 * d1 - 5 * d3 + in[5 * cin + k];
        }
}

typedef struct code {
    int cin, cout;
    void (*transform)(const float *restrict in, int n, float *restrict to);
    void (*row)(const row *b);
} code;

/* One pair of functions for each number of channels: so they are constants. */
#define CODE(cin, cout)                                                                  \
    static void transform##cin##_##cout(const float *restrict in, int n,                 \
                                        float *restrict to)                              \
    {                                                                                    \
        transform(in, n, cin, to);                                                       \
    }                                                                                    \
    static void row##cin##_##cout(const row *b)                                          \
    {                                                                                    \
        whole_row(b, cin, cout);                                                         \
    }                                                                                    \
    static const code code##cin##_##cout = {cin, cout, transform##cin##_##cout,          \
                                            row##cin##_##cout};
CODE(8, 8)
CODE(16, 8)
CODE(16, 16)
CODE(32, 16)
HP_LANES_END

static const code *code_of(const hp_conv_plain *c)
{
    static const code *const CODES[] = {&code8_8, &code16_8, &code16_16, &code32_16};

    if (!hp_lanes_serve())
        return NULL;
    for (size_t i = 0; i < sizeof CODES / sizeof CODES[0]; i++)
        if (CODES[i]->cin == c->cin && CODES[i]->cout == c->cout)
            return CODES[i];
    return NULL;
}

/* --- the volume ------------------------------------------------------------- */

/* What a thread works with. */
typedef struct band {
    const hp_conv_plain *c;
    const code *code;
    const float *in;
    float *padded, *rows;
} band;

/* Where row y of one of the planes lies: a ring of three. */
static float *place(const band *t, int plane, int y)
{
    return t->rows + ((size_t)plane * TAPS + (y + TAPS) % TAPS) * row_floats(t->c);
}

static void fetch(const band *t, int z, int y, int plane)
{
    const int *n = t->c->n, cin = t->c->cin;
    size_t used = (size_t)n[2] * cin;
    float *to = place(t, plane, y);

    if (z < 0 || z >= n[0] || y < 0 || y >= n[1]) {
        memset(to, 0, row_floats(t->c) * sizeof *to);
        return;
    }
    memset(t->padded, 0, (size_t)cin * sizeof *to);
    memcpy(t->padded + cin, t->in + ((size_t)z * n[1] + y) * used, used * sizeof *to);
    memset(t->padded + cin + used, 0, (size_t)cin * sizeof *to);
    t->code->transform(t->padded, quads(t->c), to);
}

/* BAND rows of plane z from `first`; b's in, plus and out are those of the volume.
 * Whether all of them are finite. */
static bool run_band(const band *t, int z, int first, const row *volume)
{
    const hp_conv_plain *c = t->c;
    int end = first + BAND < c->n[1] ? first + BAND : c->n[1];
    size_t length = (size_t)c->n[2] * c->cout;
    row b = *volume;
    bool finite = true;

    for (int y = first - 1; y <= end; y++) {
        size_t at = ((size_t)z * c->n[1] + y - 1) * length;

        for (int p = 0; p < c->depth; p++)
            fetch(t, z + p - c->depth / 2, y, p);
        if (y <= first)
            continue;
        for (int r = 0; r < c->depth * TAPS; r++) /* output row y - 1 */
            b.in[r] = place(t, r / TAPS, y - 2 + r % TAPS);
        b.plus = volume->plus != NULL ? volume->plus + at : NULL;
        b.out = volume->out + at;
        t->code->row(&b);
        finite &= hp_lanes_finite(b.out, length, false);
    }
    return finite;
}

bool hp_conv_rows_serves(const hp_conv_plain *c)
{
    return (c->depth == 1 || c->depth == 3) && c->n[2] % OUT == 0 && code_of(c) != NULL;
}

bool hp_conv_rows_run(const hp_conv_plain *c, const float *in, const float *packed,
                      const float *bias, const float *plus, float *work, float *out)
{
    const code *code = code_of(c);
    size_t each = hp_conv_rows_work(c, 1);
    int bad = 0;

#pragma omp parallel for collapse(2) schedule(static) reduction(| : bad)
    for (int z = 0; z < c->n[0]; z++)
        for (int y = 0; y < c->n[1]; y += BAND) {
            float *own = work + (size_t)omp_get_thread_num() * each;
            row b = {.quads = quads(c),
                     .depth = c->depth,
                     .packed = packed,
                     .bias = bias,
                     .plus = plus,
                     .relu = c->relu,
                     .terms = own,
                     .out = out};
            band t = {.c = c,
                      .code = code,
                      .in = in,
                      .padded = own + terms_floats(c),
                      .rows = own + terms_floats(c) + padded_floats(c)};

            bad |= !run_band(&t, z, y, &b);
        }
    return !bad;
}

#else

bool hp_conv_rows_serves(const hp_conv_plain *c)
{
    (void)c;
    return false;
}

bool hp_conv_rows_run(const hp_conv_plain *c, const float *in, const float *packed,
                      const float *bias, const float *plus, float *work, float *out)
{
    (void)c, (void)in, (void)packed, (void)bias, (void)plus, (void)work, (void)out;
    return false;
}

#endif
