/* C twin of the merge. */
#include "kernels/merge.h"

#include "kernels/low.h"

void hp_merge_ref(const hp_merge *m, const float *skip, const float *low, float *out)
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
                        out[to + k] = skip[to + k] + low[from + k];
                }
}
