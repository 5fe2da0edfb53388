/* C twin of the fully connected layer. */
#include "kernels/fc.h"

void hp_fc_ref(int batch, int in, int out, const float *x, const float *weight,
               const float *bias, float *ret)
{
    for (int b = 0; b < batch; b++)
        for (int k = 0; k < out; k++) {
            double sum = bias[k];

            for (int i = 0; i < in; i++)
                sum += (double)x[(size_t)b * in + i] * weight[(size_t)k * in + i];
            ret[(size_t)b * out + k] = (float)sum;
        }
}
