/* Masks on a grid: 0/1 bytes, (Z, Y, X). */
#ifndef HP_KERNELS_MASK_H
#define HP_KERNELS_MASK_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Leaves the largest 26-connected part (the first of equals, by index).
 * Returns its voxels through ret_count; 0 for an empty mask. */
hp_code hp_mask_largest_ref(uint8_t *mask, const int n[3], size_t *ret_count,
                            hp_error *reterr);

/* Fills, slice by slice, what the background cannot reach from the slice's
 * border by 4-neighbour steps. */
hp_code hp_mask_fill_ref(uint8_t *mask, const int n[3], hp_error *reterr);

/* One step of erosion by the 6-neighbour cross; the outside counts as 0. */
hp_code hp_mask_erode_ref(uint8_t *mask, const int n[3], hp_error *reterr);

/* Mean of hu under the mask; NAN when the mask is empty. */
double hp_mask_mean_ref(const int16_t *hu, const uint8_t *mask, size_t n);

#ifdef __cplusplus
}
#endif
#endif
