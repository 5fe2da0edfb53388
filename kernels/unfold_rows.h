/* The unfold (unfold.h) of the CPU by rows, for channels in eights: the twin's results,
 * in bf16 rounded once.
 */
#ifndef HP_KERNELS_UNFOLD_ROWS_H
#define HP_KERNELS_UNFOLD_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/unfold.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Whether the channels are in eights, and this CPU can run it. */
bool hp_unfold_rows_serves(const hp_unfold *u);

void hp_unfold_rows(const hp_unfold *u, const float *skip, const float *low,
                    const float *bias, float *out);
void hp_unfold_rows_bf16(const hp_unfold *u, const uint16_t *skip, const uint16_t *low,
                         const float *bias, uint16_t *out);

#ifdef __cplusplus
}
#endif
#endif
