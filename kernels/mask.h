/* Masks on a grid: 0/1 bytes, (Z, Y, X). */
#ifndef HP_KERNELS_MASK_H
#define HP_KERNELS_MASK_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/device.h"

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

/* Sums under many masks in up to four volumes of one grid at once: every lesion (or
 * the liver) in every phase. Each mask covers its own box of voxels [lo, hi), which
 * lies inside the grid; its bytes stand at masks + at, in the box's order. */
enum { HP_MASK_VOLUMES = 4 };

typedef struct hp_mask_part {
    int lo[3], hi[3];
    size_t at;
} hp_mask_part;

typedef struct hp_mask_sum {
    int64_t hu, count; /* whole numbers: exact in any order */
} hp_mask_sum;

/* hu[v] is NULL for a phase that is missing: its sums are 0 of 0. */
void hp_mask_sums_ref(const int16_t *const hu[HP_MASK_VOLUMES], const int n[3],
                      const hp_mask_part *part, int parts, const uint8_t *masks,
                      hp_mask_sum *ret /* (parts, HP_MASK_VOLUMES) */);

/* hu: host array of device pointers; part, masks and ret: device memory. */
hp_code hp_mask_sums_cuda(const int16_t *const hu[HP_MASK_VOLUMES], const int n[3],
                          const hp_mask_part *part, int parts, const uint8_t *masks,
                          hp_mask_sum *ret, hp_stream stream, hp_error *reterr);

/* NAN where nothing was counted. */
double hp_mask_sum_mean(const hp_mask_sum *s);

#ifdef __cplusplus
}
#endif
#endif
