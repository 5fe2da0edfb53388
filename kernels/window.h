/* HU to what a network sees: ((clip(hu, lo, hi) - lo) / (hi - lo) - mean) / std. */
#ifndef HP_KERNELS_WINDOW_H
#define HP_KERNELS_WINDOW_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_window {
    double lo, hi, mean, std;
} hp_window;

/* (planes, n) voxels become the first `planes` of dst's (n, channels). */
void hp_window_ref(const int16_t *hu, int planes, size_t n, const hp_window *w,
                   float *dst, int channels);

#ifdef __cplusplus
}
#endif
#endif
