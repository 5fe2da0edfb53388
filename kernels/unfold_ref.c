/* C twin of the unfold. */
#include "kernels/unfold.h"

#include <string.h>

#include "kernels/low.h"

void hp_unfold_ref(const hp_unfold *u, const float *skip, const float *low,
                   const float *bias, float *out)
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
                    const float *from = low + cell * group + (size_t)part * cu;
                    float *to = out + i * (cs + cu);

                    if (cs > 0)
                        memcpy(to, skip + i * cs, (size_t)cs * sizeof *to);
                    for (int k = 0; k < cu; k++) {
                        float v = from[k] + bias[k];

                        to[cs + k] = u->relu && v < 0 ? 0 : v;
                    }
                }
}
