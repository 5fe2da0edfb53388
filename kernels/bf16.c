/* Merge, unfold and max pooling of the CPU over bf16, and weights in it. Blocks of rows
 * are spread over threads; loops over channels vectorise. */
#include "kernels/bf16.h"

#include <math.h>
#include <string.h>

#include "kernels/half.h"
#include "kernels/low.h"

enum { BLOCK = 65536 };

void hp_bf16_from_floats(const float *in, size_t n, uint16_t *out)
{
#pragma omp parallel for schedule(static)
    for (size_t block = 0; block < (n + BLOCK - 1) / BLOCK; block++) {
        size_t end = (block + 1) * BLOCK < n ? (block + 1) * BLOCK : n;

        for (size_t i = block * BLOCK; i < end; i++)
            out[i] = hp_bf16_of(in[i]);
    }
}

void hp_bf16_to_floats(const uint16_t *in, size_t n, float *out)
{
#pragma omp parallel for schedule(static)
    for (size_t block = 0; block < (n + BLOCK - 1) / BLOCK; block++) {
        size_t end = (block + 1) * BLOCK < n ? (block + 1) * BLOCK : n;

        for (size_t i = block * BLOCK; i < end; i++)
            out[i] = hp_bf16_float(in[i]);
    }
}

void hp_bf16_filter(const float *weight, size_t n, float *out)
{
    float error = 0;

    for (size_t i = 0; i < n; i++) {
        float want = weight[i] + error;

        out[i] = hp_bf16_float(hp_bf16_of(want));
        error = isfinite(out[i]) ? want - out[i] : 0;
    }
}

bool hp_bf16_all_finite(const uint16_t *in, size_t n)
{
    int bad = 0;

#pragma omp parallel for schedule(static) reduction(| : bad)
    for (size_t block = 0; block < (n + BLOCK - 1) / BLOCK; block++) {
        size_t end = (block + 1) * BLOCK < n ? (block + 1) * BLOCK : n;
        unsigned any = 0;

        for (size_t i = block * BLOCK; i < end; i++)
            any |= (in[i] & 0x7f80u) == 0x7f80u;
        bad |= (int)any;
    }
    return !bad;
}

void hp_merge_bf16(const hp_merge *m, const uint16_t *skip, const uint16_t *low,
                   uint16_t *out)
{
    const int *n = m->n;
    size_t c = (size_t)n[3];

#pragma omp parallel for collapse(3) schedule(static)
    for (int b = 0; b < m->batch; b++)
        for (int z = 0; z < n[0]; z++)
            for (int y = 0; y < n[1]; y++)
                for (int x = 0; x < n[2]; x++) {
                    size_t to = ((((size_t)b * n[0] + z) * n[1] + y) * n[2] + x) * c;
                    size_t from = hp_low_cell(m->low, m->stride, b, z, y, x) * c;

                    for (size_t k = 0; k < c; k++)
                        out[to + k] = hp_bf16_of(hp_bf16_float(skip[to + k]) +
                                                 hp_bf16_float(low[from + k]));
                }
}

void hp_unfold_bf16(const hp_unfold *u, const uint16_t *skip, const uint16_t *low,
                    const float *bias, uint16_t *out)
{
    const int *n = u->n, *s = u->stride;
    int cs = u->skip_c, cu = u->up_c, group = s[0] * s[1] * s[2] * cu;

#pragma omp parallel for collapse(3) schedule(static)
    for (int b = 0; b < u->batch; b++)
        for (int z = 0; z < n[0]; z++)
            for (int y = 0; y < n[1]; y++)
                for (int x = 0; x < n[2]; x++) {
                    size_t i = (((size_t)b * n[0] + z) * n[1] + y) * n[2] + x;
                    size_t cell = hp_low_cell(u->low, s, b, z, y, x);
                    int part = hp_low_part(s, z, y, x);
                    const uint16_t *from = low + cell * group + (size_t)part * cu;
                    uint16_t *to = out + i * (cs + cu);

                    if (cs > 0)
                        memcpy(to, skip + i * cs, (size_t)cs * sizeof *to);
                    for (int k = 0; k < cu; k++) {
                        float v = hp_bf16_float(from[k]) + bias[k];

                        to[cs + k] = hp_bf16_of(u->relu && v < 0 ? 0 : v);
                    }
                }
}

void hp_maxpool_bf16(int planes, const int n[3], const uint16_t *in, uint16_t *out)
{
    int h = (n[0] + 1) / 2, w = (n[1] + 1) / 2, c = n[2];

#pragma omp parallel for collapse(2) schedule(static)
    for (int z = 0; z < planes; z++)
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++) {
                uint16_t *to = out + (((size_t)z * h + y) * w + x) * c;

                for (int k = 0; k < c; k++)
                    to[k] = 0xff80; /* -infinity */
                for (int t = 0; t < 9; t++) {
                    int yy = 2 * y + t / 3 - 1, xx = 2 * x + t % 3 - 1;
                    const uint16_t *from;

                    if (yy < 0 || yy >= n[0] || xx < 0 || xx >= n[1])
                        continue;
                    from = in + (((size_t)z * n[0] + yy) * n[1] + xx) * c;
                    for (int k = 0; k < c; k++)
                        to[k] = hp_bf16_float(from[k]) > hp_bf16_float(to[k]) ? from[k]
                                                                              : to[k];
                }
            }
}
