/* The CPU's merge, unfold and max pooling over values stored in bf16: the twins'
 * arithmetic in fp32 (merge.h, unfold.h, maxpool.h), every result rounded once.
 */
#ifndef HP_KERNELS_BF16_H
#define HP_KERNELS_BF16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/merge.h"
#include "kernels/unfold.h"

#ifdef __cplusplus
extern "C" {
#endif

void hp_bf16_from_floats(const float *in, size_t n, uint16_t *out);
void hp_bf16_to_floats(const uint16_t *in, size_t n, float *out);
/* A filter's n weights as the nearest bf16 numbers once each took over the error of
 * the one before: the filter keeps its sum, so what it makes of an even area does not
 * shift. */
void hp_bf16_filter(const float *weight, size_t n, float *out);
/* Neither infinite nor not a number. */
bool hp_bf16_all_finite(const uint16_t *in, size_t n);

/* out == skip is allowed. */
void hp_merge_bf16(const hp_merge *m, const uint16_t *skip, const uint16_t *low,
                   uint16_t *out);
void hp_unfold_bf16(const hp_unfold *u, const uint16_t *skip, const uint16_t *low,
                    const float *bias, uint16_t *out);
void hp_maxpool_bf16(int planes, const int n[3] /* H, W, C of in */, const uint16_t *in,
                     uint16_t *out);

#ifdef __cplusplus
}
#endif
#endif
