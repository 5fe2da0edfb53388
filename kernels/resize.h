/* Resampling along the axes: the definition that serving and training share.
 *
 * The box [lo, hi) of the source, in edge voxel coordinates, becomes dst_n
 * voxels. A destination voxel is the mean of the source, taken as constant
 * inside each voxel, over a window of max(1, scale) source voxels around its
 * centre (scale = source voxels per destination voxel). For scale <= 1 that is
 * linear interpolation between voxel centres with half-pixel alignment; for
 * larger scales it is area averaging; at 1 both agree, so nothing jumps.
 * A window that hangs over the source's edge is averaged over its inner part;
 * a destination voxel whose centre lies outside is `pad`.
 *
 * This is neither torch's nor scipy's rule. Training reads tensors made here.
 */
#ifndef HP_KERNELS_RESIZE_H
#define HP_KERNELS_RESIZE_H

#include <stdint.h>

#include "base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* dst[dst_n] int16 HU, rounded to nearest even; src[src_n]; orders are z,y,x. lo <= hi,
 * or HP_E_INVALID. */
hp_code hp_resize_hu_ref(const int16_t *src, const int src_n[3], const double lo[3],
                         const double hi[3], const int dst_n[3], int16_t pad,
                         int16_t *dst, hp_error *reterr);

/* The same for float data (logits, so that masks are cut after resampling). */
hp_code hp_resize_f32_ref(const float *src, const int src_n[3], const double lo[3],
                          const double hi[3], const int dst_n[3], float pad, float *dst,
                          hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
