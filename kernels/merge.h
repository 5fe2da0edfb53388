/* The hourglass's merge: a coarse map, up-sampled by repetition, onto its skip
 * (networks.md 1.1, 1.3): out[i] = skip[i] + low[i / stride] on every axis, so
 * that a coarse map of ceil(n / stride) cells is cropped to the skip's size.
 */
#ifndef HP_KERNELS_MERGE_H
#define HP_KERNELS_MERGE_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_merge {
    int batch;
    int n[4];      /* D, H, W, C of skip and out */
    int low[3];    /* D, H, W of low; low * stride >= n */
    int stride[3]; /* z, y, x */
} hp_merge;

void hp_merge_ref(const hp_merge *m, const float *skip, /* (N, D, H, W, C) */
                  const float *low, /* (N, low[0], low[1], low[2], C) */ float *out);

/* The same in storage `type`; the sum is rounded once. out == skip is allowed. */
hp_code hp_merge_cuda(const hp_merge *m, hp_dtype type, const void *skip, const void *low,
                      void *out, hp_stream stream, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
