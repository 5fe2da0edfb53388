/* Max pooling 3x3, stride 2, padding 1, in plane (ResNet's after its stem): out has
 * ceil(H / 2) x ceil(W / 2) pixels per plane.
 */
#ifndef HP_KERNELS_MAXPOOL_H
#define HP_KERNELS_MAXPOOL_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

void hp_maxpool_ref(int planes, const int n[3] /* H, W, C of in */,
                    const float *in /* (planes, H, W, C) */, float *out);

hp_code hp_maxpool_cuda(int planes, const int n[3], hp_dtype type, const void *in,
                        void *out, hp_stream stream, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
