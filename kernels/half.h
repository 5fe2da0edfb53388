/* The two 16-bit floats in plain C, for the twins and for the kernels' host build.
 * To 16 bits: round to nearest, ties to even; overflow is infinity, as on the
 * device. From 16 bits every value is exact.
 */
#ifndef HP_KERNELS_HALF_H
#define HP_KERNELS_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t hp_float_bits(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float hp_bits_float(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof f);
    return f;
}

/* v / 2^shift, ties to even. */
static inline uint32_t hp_half_shift(uint32_t v, unsigned shift)
{
    uint32_t rest = v & ((1u << shift) - 1), half = 1u << (shift - 1);
    uint32_t q = v >> shift;

    return q + (rest > half || (rest == half && (q & 1u)));
}

static inline uint16_t hp_f16_of(float f)
{
    uint32_t u = hp_float_bits(f), sign = u >> 16 & 0x8000u, mag = u & 0x7fffffffu;

    if (mag > 0x7f800000u)
        return 0x7fff; /* not a number */
    if (mag >= 0x47800000u)
        return (uint16_t)(sign | 0x7c00u);
    if (mag < 0x38800000u) { /* below 2^-14: counted in 2^-24 */
        unsigned shift = 126 - (mag >> 23);

        if (shift > 24)
            return (uint16_t)sign;
        return (uint16_t)(sign | hp_half_shift((mag & 0x7fffffu) | 0x800000u, shift));
    }
    /* a carry out of the mantissa walks into the exponent, up to infinity */
    return (uint16_t)(sign | hp_half_shift(mag - 0x38000000u, 13));
}

static inline float hp_f16_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exp = h >> 10 & 31u, man = h & 1023u;

    if (exp == 31)
        return hp_bits_float(sign | 0x7f800000u | man << 13);
    if (exp == 0)
        return (float)man * 0x1p-24f * (sign ? -1.0f : 1.0f);
    return hp_bits_float(sign | (exp + 112) << 23 | man << 13);
}

static inline uint16_t hp_bf16_of(float f)
{
    /* no branch: loops over it vectorise */
    uint32_t u = hp_float_bits(f), up = (u + 0x7fffu + (u >> 16 & 1u)) >> 16;

    return (u & 0x7fffffffu) > 0x7f800000u ? 0x7fff : (uint16_t)up;
}

static inline float hp_bf16_float(uint16_t h)
{
    return hp_bits_float((uint32_t)h << 16);
}

#endif
