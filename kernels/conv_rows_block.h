/* Rows of conv_rows.c for one vector length; included once for each, with LANES. */
#define PASTE(a, b) a##b
#define NAMED(a, b) PASTE(a, b)
#define vec NAMED(v, LANES)
#define vecu NAMED(vu, LANES)
#define block NAMED(block, LANES)

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef float vecu __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

/* A block of quads from m, the sums of their products: bias, added value, ReLU. What is
 * not a number stays so. */
__attribute__((always_inline)) static inline void
NAMED(finish, LANES)(const row *b, int at, int count, vec m[QUADS][TERMS])
{
    vec zero = {0}, bias = b->bias != NULL ? (vec) * (const vecu *)b->bias : zero;

    UNROLLED(q, count)
    {
        vec a = m[q][1] + m[q][2], d = m[q][1] - m[q][2];
        vec e = m[q][3] + m[q][4], f = m[q][3] - m[q][4];
        vec y[OUT] = {m[q][0] + a + e + bias, d + 2 * f + bias, a + 4 * e + bias,
                      d + 8 * f + m[q][5] + bias};

        UNROLLED(i, OUT)
        {
            size_t to = ((size_t)(at + q) * OUT + i) * LANES;

            if (b->plus != NULL)
                y[i] += (vec) * (const vecu *)(b->plus + to);
            if (b->relu)
                y[i] = (vec)((__typeof__(y[i] < zero))y[i] & ~(y[i] < zero));
            *(vecu *)(b->out + to) = (vecu)y[i];
        }
    }
}

/* Products of a block of quads with the weights of plane p, which fill much of the
 * first cache: so planes take turns over the whole row. */
__attribute__((always_inline)) static inline void block(const row *b, int p, int at,
                                                        int cin, int count)
{
    const float *w = b->packed + (size_t)p * TAPS * cin * TERMS * LANES;
    float *terms = b->terms + (size_t)at * TERMS * LANES;
    vec m[QUADS][TERMS], zero = {0};

    UNROLLED(q, count)
    UNROLLED(t, TERMS)
    m[q][t] = p > 0 ? *(const vec *)(terms + (q * TERMS + t) * LANES) : zero;
    for (int r = 0; r < TAPS; r++) {
        const float *x = b->in[p * TAPS + r] + (size_t)at * TERMS * cin;

        for (int k = 0; k < cin; k++, w += TERMS * LANES)
            UNROLLED(t, TERMS)
            {
                vec weight = *(const vec *)(w + t * LANES);

                UNROLLED(q, count) m[q][t] += weight * x[(q * TERMS + t) * cin + k];
            }
    }
    if (p == b->depth - 1) {
        NAMED(finish, LANES)(b, at, count, m);
        return;
    }
    UNROLLED(q, count)
    UNROLLED(t, TERMS)
    *(vec *)(terms + (q * TERMS + t) * LANES) = m[q][t];
}

__attribute__((always_inline)) static inline void NAMED(whole_row, LANES)(const row *b,
                                                                          int cin)
{
    for (int p = 0; p < b->depth; p++) {
        int q = 0;

        for (; q + QUADS <= b->quads; q += QUADS)
            block(b, p, q, cin, QUADS);
        for (; q < b->quads; q++)
            block(b, p, q, cin, 1);
    }
}

#undef PASTE
#undef NAMED
#undef vec
#undef vecu
#undef block
#undef LANES
