/* C twin of the merge. */
#include "kernels/merge.h"

void hp_merge_ref(const hp_merge *m, const float *skip, const float *low, float *out)
{
    const int *n = m->n, *l = m->low, *s = m->stride;
    size_t c = (size_t)n[3];

#pragma omp parallel for collapse(3) schedule(static)
    for (int b = 0; b < m->batch; b++)
        for (int z = 0; z < n[0]; z++)
            for (int y = 0; y < n[1]; y++)
                for (int x = 0; x < n[2]; x++) {
                    size_t to = ((((size_t)b * n[0] + z) * n[1] + y) * n[2] + x) * c;
                    size_t from =
                        ((((size_t)b * l[0] + z / s[0]) * l[1] + y / s[1]) * l[2] +
                         x / s[2]) *
                        c;

                    for (size_t k = 0; k < c; k++)
                        out[to + k] = skip[to + k] + low[from + k];
                }
}
