/* A volume onto another grid through patient coordinates.
 *
 * Where the axes are parallel this is kernels/resize.h; else each destination
 * voxel is the mean of trilinear samples, one per source voxel that its edge
 * spans along each axis (the area prefilter for oblique grids). Outside the
 * source: `pad`. A displacement field, when registration comes, is added to the
 * destination's coordinates here.
 */
#ifndef HP_KERNELS_WARP_H
#define HP_KERNELS_WARP_H

#include <stdint.h>

#include "base/volume.h"

#ifdef __cplusplus
extern "C" {
#endif

/* dst has hp_geom_voxels(grid) values. */
hp_code hp_warp_hu_ref(const hp_volume *src, const hp_geom *grid, int16_t pad,
                       int16_t *dst, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
