/* C twin of the largest magnitude. */
#include "kernels/actmax.h"

#include "kernels/half.h"

uint32_t hp_actmax_ref(const float *x, size_t n)
{
    uint32_t max = 0;

    for (size_t i = 0; i < n; i++) {
        uint32_t bits = hp_float_bits(x[i]) & 0x7fffffffu;

        max = bits > max ? bits : max;
    }
    return max;
}
