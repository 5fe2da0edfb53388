/* Where the networks look: grids and crops cut out of the venous grid.
 *
 * hepar-prepare uses exactly these functions to make training tensors, so that
 * training and serving cannot drift apart. Everything returned for a network is
 * int16 HU; kernels/window.h comes after.
 */
#ifndef HP_INFERENCE_CROP_H
#define HP_INFERENCE_CROP_H

#include "base/volume.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A box of whole voxels of a grid: [lo, hi). */
typedef struct hp_voxel_box {
    int lo[3], hi[3];
} hp_voxel_box;

/* The coarse grid (about 8 x 6 x 6 mm) over `g` that hp_crop_body() looks at. */
hp_geom hp_crop_body_grid(const hp_geom *g);

/* The body's box in mm along the grid's axes from the edge corner: rows and
 * columns (and slices) of the coarse volume where tissue (> -300 HU) fills a
 * share that a table or a wire does not. Falls back to the whole grid. */
hp_box hp_crop_body(const hp_geom *coarse, const int16_t *hu);

/* The liver network's grid over venous grid `v`: spacing and
 * in-plane size as given, centred on the body; along z it covers the whole
 * scan, at least n[0] planes. Returned geometry has n = {nz, n[1], n[2]}. */
hp_geom hp_crop_liver_grid(const hp_geom *v, const hp_box *body, const int n[3],
                           const double spacing_mm[3]);

/* Number of z windows of `size` planes over nz planes with stride size/2, and the
 * first plane of window i; the last window ends with the grid. */
int hp_crop_windows(int nz, int size);
int hp_crop_window_start(int nz, int size, int i);

/* Liver box (whole voxels of v) widened by margin_mm (z, y, x), at least one
 * slice along z, clamped to the grid: the detector's crop. */
hp_voxel_box hp_crop_detector(const hp_geom *v, const hp_voxel_box *liver,
                              const double margin_mm[3]);

/* In-plane frame of seg25d: liver box + 20 mm, rounded up to 16 px (at most 512),
 * centred on the box. ret_n = {h, w}; ret_lo = mm of its corner from the grid's. */
void hp_crop_keyslice(const hp_geom *v, const hp_voxel_box *liver, double spacing_mm,
                      int ret_n[2], double ret_lo_mm[2]);

/* One plane (ny, nx) of a grid with spacing v->spacing_mm resampled to n = {h, w}
 * pixels of spacing_mm whose corner is lo_mm from the grid's corner. */
hp_code hp_crop_plane(const hp_geom *v, const int16_t *plane, const double lo_mm[2],
                      const int n[2], double spacing_mm, int16_t *ret, hp_error *reterr);

/* The 2.5D stack of `count` slices, interval_mm apart, around plane z out of
 * planes that hp_crop_plane() made: planes[i] is slice z0 + i, clamped at the
 * grid's ends by the caller's nz. (count, h, w). */
typedef const int16_t *hp_plane_fn(int z, void *payload);
hp_code hp_crop_stack(int z, int nz, double z_spacing_mm, int count, double interval_mm,
                      const int n[2], hp_plane_fn *plane, void *payload, int16_t *ret,
                      hp_error *reterr);

/* Side of the square SaDT crop: `base` unless a side of the
 * box plus two rings is longer; then the next multiple of 32. */
int hp_crop_sadt_side(double box_h_px, double box_w_px, int base, int ring_px);

#ifdef __cplusplus
}
#endif
#endif
