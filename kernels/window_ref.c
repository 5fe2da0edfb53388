/* C twin of the window. */
#include "kernels/window.h"

void hp_window_ref(const int16_t *hu, size_t n, const hp_window *w, float *dst,
                   int stride)
{
    float lo = (float)w->lo, hi = (float)w->hi;
    float gain = (float)(1 / ((w->hi - w->lo) * w->std));
    float offset = (float)(-w->mean / w->std);

    for (size_t i = 0; i < n; i++) {
        float v = (float)hu[i];

        v = v < lo ? lo : v > hi ? hi : v;
        dst[i * (size_t)stride] = (v - lo) * gain + offset;
    }
}
