/* C twin of the window. */
#include "kernels/window.h"

/* Voxels of all channels at a time: they lie together, and stay in the first cache. */
enum { BLOCK = 512 };

void hp_window_ref(const int16_t *hu, int planes, size_t n, const hp_window *w,
                   float *dst, int channels)
{
    float lo = (float)w->lo, hi = (float)w->hi;
    float gain = (float)(1 / ((w->hi - w->lo) * w->std));
    float offset = (float)(-w->mean / w->std);

#pragma omp parallel for schedule(static)
    for (size_t first = 0; first < n; first += BLOCK) {
        size_t end = first + BLOCK < n ? first + BLOCK : n;

        for (int p = 0; p < planes; p++)
            for (size_t i = first; i < end; i++) {
                float v = (float)hu[(size_t)p * n + i];

                v = v < lo ? lo : v > hi ? hi : v;
                dst[i * (size_t)channels + p] = (v - lo) * gain + offset;
            }
    }
}
