/* Numbers for tests of the CPU's convolutions. */
#ifndef HP_TESTS_KERNELS_NUMBERS_H
#define HP_TESTS_KERNELS_NUMBERS_H

#include "tests/inference/world.h"

/* n numbers within [-1, 1), aligned to 64 bytes; the caller frees them. */
static inline float *numbers(size_t n, unsigned seed)
{
    void *buf = NULL;
    float *v;

    assert_int_equal(posix_memalign(&buf, 64, n * sizeof *v), 0);
    v = buf;
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        v[i] = (float)(seed >> 8) / (float)(1 << 23) - 1;
    }
    return v;
}

#endif
