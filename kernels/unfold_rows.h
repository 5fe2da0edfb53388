/* The unfold (unfold.h) of the CPU by rows, for channels in eights: the twin's results,
 * in bf16 rounded once.
 */
#ifndef HP_KERNELS_UNFOLD_ROWS_H
#define HP_KERNELS_UNFOLD_ROWS_H

#include <stdbool.h>

#include "kernels/unfold.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Whether the channels are in eights, and this CPU can run it. */
bool hp_unfold_rows_serves(const hp_unfold *u);

/* skip, low and out as there, in floats or in bf16 (narrow). Returns whether all of out
 * is finite. */
bool hp_unfold_rows(const hp_unfold *u, bool narrow, const void *skip, const void *low,
                    const float *bias, void *out);

#ifdef __cplusplus
}
#endif
#endif
