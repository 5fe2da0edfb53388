/* Registers of 8 and 16 numbers for the CPU's own loops, and the way between bf16 in
 * memory and fp32 in them. Between HP_LANES_BEGIN and HP_LANES_END a file compiles for
 * AVX-512; it asks hp_lanes_serve() before it calls what stands there.
 */
#ifndef HP_KERNELS_LANES_H
#define HP_KERNELS_LANES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Clang spells this otherwise, and the one build of ours that uses it runs no kernel. */
#if defined(__x86_64__) && defined(_OPENMP) && !defined(__clang__)
#define HP_LANES 1
#define HP_LANES_BEGIN                                                                   \
    _Pragma("GCC push_options") _Pragma(                                                 \
        "GCC target(\"avx512f,avx512vl,avx512dq,avx512bw,prefer-vector-width=512\")")
#define HP_LANES_END _Pragma("GCC pop_options")
/* Arguments that are constants where it is inlined stay so. */
#define HP_INLINED __attribute__((always_inline)) static inline
#define HP_UNROLLED(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < (n); i++)

static inline bool hp_lanes_serve(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
}

HP_LANES_BEGIN

typedef float v8 __attribute__((vector_size(32)));
typedef float v16 __attribute__((vector_size(64)));
typedef float v8u __attribute__((vector_size(32), aligned(4), may_alias));
typedef float v16u __attribute__((vector_size(64), aligned(4), may_alias));

/* As hp_bf16_float() and hp_bf16_of() (half.h). */
#define HP_LANES_OF(n, vec, half, halfu, word)                                           \
    typedef uint16_t half __attribute__((vector_size(n * 2)));                           \
    typedef uint16_t halfu __attribute__((vector_size(n * 2), aligned(2), may_alias));   \
    typedef uint32_t word __attribute__((vector_size(n * 4)));                           \
                                                                                         \
    HP_INLINED vec vec##_widened(const uint16_t *from)                                   \
    {                                                                                    \
        return (vec)(__builtin_convertvector((half) * (const halfu *)from, word) << 16); \
    }                                                                                    \
    HP_INLINED void vec##_narrowed(vec v, uint16_t *to)                                  \
    {                                                                                    \
        word u = (word)v, up = (u + 0x7fff + (u >> 16 & 1)) >> 16;                       \
        word nan = (word)((u & 0x7fffffff) > 0x7f800000);                                \
                                                                                         \
        *(halfu *)to =                                                                   \
            (halfu) __builtin_convertvector((up & ~nan) | (nan & 0x7fff), half);         \
    }                                                                                    \
    /* What is not a number stays so. */                                                 \
    HP_INLINED vec vec##_relu(vec v)                                                     \
    {                                                                                    \
        vec zero = {0};                                                                  \
                                                                                         \
        return (vec)((word)v & ~(word)(v < zero));                                       \
    }
HP_LANES_OF(8, v8, h8, h8u, w8)
HP_LANES_OF(16, v16, h16, h16u, w16)

/* Whether all of a row is finite, asked while it lies in the first cache. */
static inline bool hp_lanes_finite(const void *row, size_t n, bool narrow)
{
    typedef uint32_t wide_bits __attribute__((may_alias));
    const uint16_t *h = row;
    const wide_bits *w = row;
    uint16_t most16 = 0;
    uint32_t most32 = 0;

    for (size_t i = 0; narrow && i < n; i++) {
        uint16_t size = h[i] & 0x7fffu;

        most16 = size > most16 ? size : most16;
    }
    for (size_t i = 0; !narrow && i < n; i++) {
        uint32_t size = w[i] & 0x7fffffffu;

        most32 = size > most32 ? size : most32;
    }
    return most16 < 0x7f80 && most32 < 0x7f800000;
}

HP_LANES_END
#endif
#endif
