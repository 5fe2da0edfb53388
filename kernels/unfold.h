/* The second half of a transposed convolution, and its place beside the skip.
 *
 * A transposed convolution whose kernel is its stride is a 1x1x1 convolution to
 * (dz, dy, dx, channel) per cell, and this: channel group (dz, dy, dx) of cell i
 * becomes voxel i * stride + (dz, dy, dx), plus bias, ReLU; cropped to n and
 * written behind the skip's channels:
 *   out[v] = concat(skip[v], relu?(low[v / stride][v % stride] + bias))
 * With stride 1 and no skip it is bias + ReLU alone (for a library's transposed
 * convolution, which fuses neither).
 */
#ifndef HP_KERNELS_UNFOLD_H
#define HP_KERNELS_UNFOLD_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_unfold {
    int batch;
    int n[3];         /* D, H, W of skip and out */
    int skip_c, up_c; /* channels of the skip (0: none) and of the up-sampled map */
    int low[3];       /* D, H, W of low, whose channels are stride volume * up_c */
    int stride[3];    /* low * stride >= n */
    bool relu;        /* on the up-sampled part */
} hp_unfold;

void hp_unfold_ref(const hp_unfold *u, const float *skip, /* (N, D, H, W, skip_c) */
                   const float *low, const float *bias /* (up_c) */,
                   float *out /* (N, D, H, W, skip_c + up_c) */);

/* The same in storage `type`; bias stays float. With stride 1 and no skip,
 * out == low is allowed. */
hp_code hp_unfold_cuda(const hp_unfold *u, hp_dtype type, const void *skip,
                       const void *low, const float *bias, void *out, hp_stream stream,
                       hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
