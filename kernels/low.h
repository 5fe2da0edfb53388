/* Where a voxel lies in a coarser map: the index that merge and unfold share. */
#ifndef HP_KERNELS_LOW_H
#define HP_KERNELS_LOW_H

#include <stddef.h>

/* Cell (without channels) of voxel (z, y, x) of item b in maps of low[0..2] cells,
 * `stride` voxels each. */
static inline size_t hp_low_cell(const int low[3], const int stride[3], int b, int z,
                                 int y, int x)
{
    return (((size_t)b * low[0] + z / stride[0]) * low[1] + y / stride[1]) * low[2] +
           x / stride[2];
}

/* Which of a cell's voxels it is, x fastest: the group of an unfolded channel. */
static inline int hp_low_part(const int stride[3], int z, int y, int x)
{
    return (z % stride[0] * stride[1] + y % stride[1]) * stride[2] + x % stride[2];
}

#endif
