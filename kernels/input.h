/* What a network sees, from slices: crop, resize and window in one pass, so that
 * pixels cross the bus once and as 16-bit integers.
 *
 * The box [lo, hi) of each source (edge voxel coordinates of its grid) becomes n
 * voxels by the rule of kernels/resize.h, rounded to whole HU as there, then
 * windowed (kernels/window.h). Sources are the first channels of the NDHWC
 * result: one phase for the detector, four phases of a key slice for SaDT (crop to
 * patch, src_n[0] = n[0] = 1). Then, if asked for, a channel that is 1 where a
 * pixel's centre lies in a rectangle (networks.md 2.2). Channels left are zero:
 * the padding that matrix engines want.
 */
#ifndef HP_KERNELS_INPUT_H
#define HP_KERNELS_INPUT_H

#include <stdint.h>

#include "kernels/device.h"
#include "kernels/window.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { HP_INPUT_SOURCES = 4, HP_INPUT_CHANNELS = 8 };

typedef struct hp_input {
    int src_n[3]; /* z, y, x; the same for all sources */
    double lo[3], hi[3];
    int n[3];    /* of the result */
    int16_t pad; /* HU where a voxel's centre lies outside the source */
    hp_window window;
    int sources, channels; /* at most HP_INPUT_SOURCES, HP_INPUT_CHANNELS */
    bool mask;             /* channel `sources` is the rectangle */
    double rect[4];        /* y1, x1, y2, x2 in pixels of the result */
} hp_input;

hp_code hp_input_ref(const hp_input *in, const int16_t *const *src, /* in->sources */
                     float *dst /* (n, channels) */, hp_error *reterr);

/* Bytes of device memory that a launch works in (tables of taps). */
size_t hp_input_workspace(const hp_input *in);

/* src: host array of device pointers to int16 HU. dst in storage `type`. Whole HU
 * agree with the twin to the bit, because sums are made in the same order and
 * unfused. The workspace, aligned to 16, is free again when the stream has passed. */
hp_code hp_input_cuda(const hp_input *in, hp_dtype type, const int16_t *const *src,
                      void *dst, void *workspace, hp_stream stream, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
