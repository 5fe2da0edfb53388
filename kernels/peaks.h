/* Peaks of a heat map (CenterNet's pooling test): a voxel that no neighbour of its
 * 3x3x3 block beats. Inside an equal plateau the lowest linear index wins, so
 * clamped plateaus give one peak, not many. */
#ifndef HP_KERNELS_PEAKS_H
#define HP_KERNELS_PEAKS_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_peak {
    float score;
    int index; /* linear, z slowest */
} hp_peak;

/* The best `k` peaks with score >= min, best first, equal scores by index;
 * returns how many. */
int hp_peaks_ref(const float *heat, /* (D, H, W) */ const int n[3], float min,
                 hp_peak *ret, int k);

enum { HP_DECODE_MAX = 128 };

/* The detector's heads, NDHWC with their channels first among *_c stored ones (a
 * head padded for the matrix engines has more than it means). */
typedef struct hp_decode {
    int batch;
    int n[3];                /* D, H, W of the heat map */
    int hm_c, size_c, off_c; /* channels as stored: at least 1, 3, 3 */
    float min;               /* scores below are nothing; not negative */
    int k;                   /* at most HP_DECODE_MAX */
} hp_decode;

/* In cells of the heat map, z, y, x. */
typedef struct hp_box_peak {
    float score; /* sigmoid of the logit, clamped to [1e-4, 1 - 1e-4] */
    int index;
    float centre[3]; /* cell index + offset */
    float size[3];   /* at least 0.1 */
} hp_box_peak;

typedef struct hp_decoded {
    int count;
    int bad; /* 1: a logit of the map, or a number of a peak kept, is not finite */
    hp_box_peak peak[HP_DECODE_MAX]; /* best first, equal scores by index */
} hp_decoded;

hp_code hp_decode_ref(const hp_decode *d, const float *hm /* logits */, const float *size,
                      const float *off, hp_decoded *ret /* (batch) */, hp_error *reterr);

/* Bytes of device memory that a launch works in. */
size_t hp_decode_workspace(const hp_decode *d);

/* Heads in storage `type`; ret is device memory, small enough to be copied whole.
 * Peaks beyond count are left as they were. Workspace aligned to 16. */
hp_code hp_decode_cuda(const hp_decode *d, hp_dtype type, const void *hm,
                       const void *size, const void *off, hp_decoded *ret,
                       void *workspace, hp_stream stream, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
