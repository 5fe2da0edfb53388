/* A CT volume: Hounsfield units on a regular grid in the patient frame.
 *
 * Patient frame: DICOM LPS, millimetres (PS3.3 C.7.6.2.1.1). Memory order is
 * [z][y][x], x fastest. Axis vectors are unit length; z is the direction in
 * which the slice index grows, always towards the head (superior) after
 * assembly. Continuous voxel coordinates are edge based: voxel i covers
 * [i, i+1), its centre is i + 0.5. `origin_mm` is the centre of voxel (0,0,0),
 * as ImagePositionPatient has it.
 */
#ifndef HP_BASE_VOLUME_H
#define HP_BASE_VOLUME_H

#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { HP_Z = 0, HP_Y = 1, HP_X = 2 };

#define HP_PAD_HU (-1024) /* outside every volume; the window's floor */

typedef struct hp_geom {
    int n[3];             /* voxels along z, y, x */
    double spacing_mm[3]; /* z, y, x */
    double origin_mm[3];  /* LPS x, y, z of the centre of voxel (0,0,0) */
    double axis[3][3];    /* axis[HP_Z|HP_Y|HP_X] = LPS unit vector */
} hp_geom;

/* Heap volume that owns `hu`, n[z]*n[y]*n[x] values. */
typedef struct hp_volume {
    hp_geom geom;
    int16_t *hu; /* (Z, Y, X) */
} hp_volume;

/* A box in edge coordinates: voxels of a grid or millimetres, as said where it
 * is used. lo/hi are ordered z, y, x like everything else. */
typedef struct hp_box {
    double lo[3], hi[3];
} hp_box;

size_t hp_geom_voxels(const hp_geom *g);

/* Axis-aligned axial geometry: x left, y posterior, z superior. */
hp_geom hp_geom_axial(int nz, int ny, int nx, double sz_mm, double sy_mm, double sx_mm,
                      const double origin_mm[3]);

/* Edge voxel coordinate (z,y,x) -> LPS mm (x,y,z), and back. */
void hp_geom_to_mm(const hp_geom *g, const double voxel[3], double ret_mm[3]);
void hp_geom_to_voxel(const hp_geom *g, const double mm[3], double ret_voxel[3]);

/* The sub-grid that starts at whole voxel `lo` (z,y,x; may be negative) and
 * has n[3] voxels. */
hp_geom hp_geom_crop(const hp_geom *g, const int lo[3], const int n[3]);

/* A grid that covers the same edges-to-edges extent with n[3] voxels. */
hp_geom hp_geom_resample(const hp_geom *g, const int n[3]);

/* Uninitialised voxels; *ret_vol is yours. */
hp_code hp_volume_new(const hp_geom *g, hp_volume **ret_vol, hp_error *reterr);
void hp_volume_free(hp_volume *v);
HP_AUTO_DEFINE(hp_volume, hp_volume_free)

double hp_box_volume(const hp_box *b);
double hp_box_iou(const hp_box *a, const hp_box *b); /* 3D */

#ifdef __cplusplus
}
#endif
#endif
