/* A fully connected layer: out[b][k] = bias[k] + sum_i weight[k][i] x[b][i]. Ours
 * are small (two to four classes), so one sum is one block's work.
 */
#ifndef HP_KERNELS_FC_H
#define HP_KERNELS_FC_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Sums in double. */
void hp_fc_ref(int batch, int in, int out, const float *x, /* (batch, in) */
               const float *weight /* (out, in) */, const float *bias,
               float *ret /* (batch, out) */);

/* x in storage `type`; weight, bias and result are float, sums too. */
hp_code hp_fc_cuda(int batch, int in, int out, hp_dtype type, const void *x,
                   const float *weight, const float *bias, float *ret, hp_stream stream,
                   hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
