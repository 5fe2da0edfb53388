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

/* n voxels of hu become dst[i * stride]: one channel of an NDHWC tensor. */
void hp_window_ref(const int16_t *hu, size_t n, const hp_window *w, float *dst,
                   int stride);

#ifdef __cplusplus
}
#endif
#endif
