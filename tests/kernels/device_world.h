/* What the tests of the .cu sources share: the seed of the block order, typed
 * buffers between guard bands, and comparison of storage types with the twins'
 * floats. The kernels run in their host build (kernels/host.cuh). */
#ifndef HP_TESTS_KERNELS_DEVICE_WORLD_H
#define HP_TESTS_KERNELS_DEVICE_WORLD_H

#include "tests/inference/world.h"

#include <math.h>
#include <string.h>

#include "kernels/device.h"
#include "kernels/half.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The order in which blocks and threads run from now on; 0: the natural one. */
void hp_host_seed(uint64_t seed);

#ifdef __cplusplus
}
#endif

static const uint64_t DEVICE_SEEDS[] = {0, 1, 20261};
enum { DEVICE_SEED_COUNT = 3, DEVICE_GUARD = 64 };

static const hp_dtype DEVICE_TYPES[] = {HP_F32, HP_F16, HP_BF16};

/* Half a unit in the last place, relative: what one rounding to storage costs. */
static inline double device_ulp(hp_dtype t)
{
    return t == HP_F32 ? 0x1p-24 : t == HP_F16 ? 0x1p-11 : 0x1p-8;
}

/* Bytes between two guard bands; `data` is aligned to 64. */
typedef struct device_buf {
    unsigned char *raw, *data;
    size_t bytes;
} device_buf;

static inline device_buf device_bytes(size_t bytes)
{
    device_buf b = {.bytes = bytes};

    b.raw = aligned_alloc(64, (bytes + 3 * DEVICE_GUARD) / 64 * 64);
    assert_non_null(b.raw);
    b.data = b.raw + DEVICE_GUARD;
    memset(b.raw, 0xa5, bytes + 2 * DEVICE_GUARD); /* results start as rubbish */
    return b;
}

/* Frees, after a look at the guard bands. */
static inline void device_done(device_buf *b)
{
    for (int i = 0; i < DEVICE_GUARD; i++) {
        assert_int_equal(b->raw[i], 0xa5);
        assert_int_equal(b->data[b->bytes + (size_t)i], 0xa5);
    }
    free(b->raw);
}

static inline void device_put(device_buf *b, hp_dtype t, size_t i, float v)
{
    uint16_t h = t == HP_F16 ? hp_f16_of(v) : hp_bf16_of(v);

    if (t == HP_F32)
        memcpy(b->data + 4 * i, &v, 4);
    else
        memcpy(b->data + 2 * i, &h, 2);
}

static inline float device_get(const device_buf *b, hp_dtype t, size_t i)
{
    float f;
    uint16_t h;

    if (t == HP_F32) {
        memcpy(&f, b->data + 4 * i, 4);
        return f;
    }
    memcpy(&h, b->data + 2 * i, 2);
    return t == HP_F16 ? hp_f16_float(h) : hp_bf16_float(h);
}

/* A small generator: uniform in [-1, 1). */
static inline float device_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) * 0x1p-23f - 1.0f;
}

/* n random values, in storage and as the floats that storage holds. */
static inline device_buf device_values(hp_dtype t, size_t n, uint32_t seed, float *ret)
{
    device_buf b = device_bytes(n * hp_dtype_size(t));

    for (size_t i = 0; i < n; i++) {
        device_put(&b, t, i, device_random(&seed));
        ret[i] = device_get(&b, t, i);
    }
    return b;
}

static inline float *device_floats(size_t n)
{
    float *f = calloc(n + 1, sizeof *f);

    assert_non_null(f);
    return f;
}

/* Every value within `roundings` roundings to storage of the twin's. */
static inline void device_equal(const device_buf *b, hp_dtype t, const float *want,
                                size_t n, double roundings)
{
    for (size_t i = 0; i < n; i++) {
        float got = device_get(b, t, i);

        if (!(fabs((double)got - want[i]) <=
              roundings * device_ulp(t) * fmax(fabs(want[i]), 0x1p-14)))
            fail_msg("value %zu: %.9g, the twin has %.9g", i, (double)got,
                     (double)want[i]);
    }
}

#endif
