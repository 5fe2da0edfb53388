/* The unfold by rows: eight channels at a time, no index worked out for a voxel, and
 * numbers of channels that the compiler knows where networks have them. */
#include "kernels/unfold_rows.h"

#include <stddef.h>

#include "kernels/lanes.h"
#include "kernels/low.h"

#ifdef HP_LANES

/* A row of voxels of one row of cells. */
typedef struct row {
    int n, stride; /* voxels; of a cell */
    int cell;      /* numbers of a cell in low */
    int skip_c, up_c;
    bool relu;
    const float *bias;
} row;

HP_LANES_BEGIN

HP_INLINED v8 v8_loaded(const float *from)
{
    return (v8) * (const v8u *)from;
}

HP_INLINED void v8_stored(v8 v, float *to)
{
    *(v8u *)to = (v8u)v;
}

/* cs and cu are constants where it is inlined. */
#define ROW_OF(name, type, read, write)                                                  \
    HP_INLINED void name##_of(const row *b, int cs, int cu, const type *restrict skip,   \
                              const type *restrict low, type *restrict out)              \
    {                                                                                    \
        for (int x = 0; x < b->n; low += b->cell)                                        \
            for (int part = 0; part < b->stride && x < b->n; part++, x++) {              \
                for (int k = 0; k < cs; k += 8)                                          \
                    write(read(skip + k), out + k);                                      \
                for (int k = 0; k < cu; k += 8) {                                        \
                    v8 v = read(low + part * cu + k) + v8_loaded(b->bias + k);           \
                                                                                         \
                    write(b->relu ? v8_relu(v) : v, out + cs + k);                       \
                }                                                                        \
                skip += cs;                                                              \
                out += cs + cu;                                                          \
            }                                                                            \
    }                                                                                    \
    static void name(const row *b, const type *skip, const type *low, type *out)         \
    {                                                                                    \
        if (b->skip_c == 8 && b->up_c == 8)                                              \
            name##_of(b, 8, 8, skip, low, out);                                          \
        else if (b->skip_c == 16 && b->up_c == 16)                                       \
            name##_of(b, 16, 16, skip, low, out);                                        \
        else                                                                             \
            name##_of(b, b->skip_c, b->up_c, skip, low, out);                            \
    }
ROW_OF(row_fp32, float, v8_loaded, v8_stored)
ROW_OF(row_bf16, uint16_t, v8_widened, v8_narrowed)

HP_LANES_END

bool hp_unfold_rows_serves(const hp_unfold *u)
{
    return u->skip_c % 8 == 0 && u->up_c % 8 == 0 && hp_lanes_serve();
}

bool hp_unfold_rows(const hp_unfold *u, bool narrow, const void *skip, const void *low,
                    const float *bias, void *out)
{
    const int *n = u->n, *s = u->stride;
    row r = {.n = n[2],
             .stride = s[2],
             .cell = s[0] * s[1] * s[2] * u->up_c,
             .skip_c = u->skip_c,
             .up_c = u->up_c,
             .relu = u->relu,
             .bias = bias};
    size_t out_c = (size_t)u->skip_c + u->up_c;
    int bad = 0;

#pragma omp parallel for collapse(3) schedule(static) reduction(| : bad)
    for (int b = 0; b < u->batch; b++)
        for (int z = 0; z < n[0]; z++)
            for (int y = 0; y < n[1]; y++) {
                size_t i = (((size_t)b * n[0] + z) * n[1] + y) * n[2];
                size_t at = hp_low_cell(u->low, s, b, z, y, 0) * r.cell +
                            (size_t)hp_low_part(s, z, y, 0) * u->up_c;

                if (narrow)
                    row_bf16(&r, (const uint16_t *)skip + i * u->skip_c,
                             (const uint16_t *)low + at, (uint16_t *)out + i * out_c);
                else
                    row_fp32(&r, (const float *)skip + i * u->skip_c,
                             (const float *)low + at, (float *)out + i * out_c);
                bad |= !hp_lanes_finite((const char *)out + i * out_c * (narrow ? 2 : 4),
                                        n[2] * out_c, narrow);
            }
    return !bad;
}

#else

bool hp_unfold_rows_serves(const hp_unfold *u)
{
    (void)u;
    return false;
}

bool hp_unfold_rows(const hp_unfold *u, bool narrow, const void *skip, const void *low,
                    const float *bias, void *out)
{
    (void)u, (void)narrow, (void)skip, (void)low, (void)bias, (void)out;
    return false;
}

#endif
