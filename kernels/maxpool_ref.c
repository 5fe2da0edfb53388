/* C twin of max pooling. */
#include "kernels/maxpool.h"

#include <math.h>

void hp_maxpool_ref(int planes, const int n[3], const float *in, float *out)
{
    int h = (n[0] + 1) / 2, w = (n[1] + 1) / 2, c = n[2];

#pragma omp parallel for collapse(2) schedule(static)
    for (int z = 0; z < planes; z++)
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++) {
                float *to = out + (((size_t)z * h + y) * w + x) * c;

                for (int k = 0; k < c; k++)
                    to[k] = -INFINITY;
                for (int t = 0; t < 9; t++) {
                    int yy = 2 * y + t / 3 - 1, xx = 2 * x + t % 3 - 1;
                    const float *from;

                    if (yy < 0 || yy >= n[0] || xx < 0 || xx >= n[1])
                        continue;
                    from = in + (((size_t)z * n[0] + yy) * n[1] + xx) * c;
                    for (int k = 0; k < c; k++)
                        to[k] = from[k] > to[k] ? from[k] : to[k];
                }
            }
}
