/* Peaks of a heat map (CenterNet's pooling test): a voxel that no neighbour of its
 * 3x3x3 block beats. Inside an equal plateau the lowest linear index wins, so
 * clamped plateaus give one peak, not many. */
#ifndef HP_KERNELS_PEAKS_H
#define HP_KERNELS_PEAKS_H

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

#ifdef __cplusplus
}
#endif
#endif
