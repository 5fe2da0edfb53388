/* What the tests of the .cu sources share: device memory between guard bands, typed
 * values in it, and comparison of storage types with the twins' floats.
 *
 * Each test is built twice: with the kernels' host build (kernels/host.cuh; memory
 * of its own stands in for the device's, so that a copy nobody made shows), and,
 * where there is nvcc, with the real kernels, as a program that needs a GPU. */
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

/* host_control.cc and gpu_control.c: the two devices. */
/* Why there is none here; NULL: there is one. */
const char *device_missing(void);
/* The order in which blocks and threads run from now on; 0: the natural one. A GPU
 * has an order of its own. */
void hp_host_seed(uint64_t seed);
void *device_alloc(size_t bytes); /* aligned to 64; NULL: none */
void device_free(void *p);
/* Waits for what was launched; HP_E_DEVICE is how a kernel's fault shows. */
hp_code device_copy_up(void *to, const void *from, size_t bytes, hp_error *reterr);
hp_code device_copy_down(void *to, const void *from, size_t bytes, hp_error *reterr);
/* By how many units in the last place the device's expf() may differ. */
extern const int device_exp_ulps;

#ifdef __cplusplus
}
#endif

static const uint64_t DEVICE_SEEDS[] = {0, 1, 20261};
enum { DEVICE_SEED_COUNT = 3 };

/* What surrounds every buffer, and what results start as: no number in any of the three
 * types, so that a value read from beyond the end shows in the result. */
enum { DEVICE_RUBBISH = 0xff };

static const hp_dtype DEVICE_TYPES[] = {HP_F32, HP_F16, HP_BF16};

/* Half a unit in the last place, relative: what one rounding to storage costs. */
static inline double device_ulp(hp_dtype t)
{
    return t == HP_F32 ? 0x1p-24 : t == HP_F16 ? 0x1p-11 : 0x1p-8;
}

/* Bytes on the device between two guard bands, and the host's copy of all of it. A
 * memory checker sees more without bands: HEPAR_TEST_EXACT=1. */
typedef struct device_buf {
    unsigned char *p;    /* device, aligned to 64: what a launch is given */
    unsigned char *data; /* host; travels with device_up() and device_down() */
    size_t bytes, guard;
} device_buf;

static inline void device_up(const device_buf *b)
{
    hp_error err = HP_ERROR_INIT;

    assert_ok(device_copy_up(b->p - b->guard, b->data - b->guard, b->bytes + 2 * b->guard,
                             &err),
              &err);
}

static inline void device_down(const device_buf *b)
{
    hp_error err = HP_ERROR_INIT;

    assert_ok(device_copy_down(b->data - b->guard, b->p - b->guard,
                               b->bytes + 2 * b->guard, &err),
              &err);
}

static inline device_buf device_bytes(size_t bytes)
{
    device_buf b = {.bytes = bytes, .guard = getenv("HEPAR_TEST_EXACT") ? 0 : 64};

    b.p = device_alloc(bytes + 2 * b.guard);
    b.data = malloc(bytes + 2 * b.guard + 1);
    assert_non_null(b.p);
    assert_non_null(b.data);
    memset(b.data, DEVICE_RUBBISH, bytes + 2 * b.guard);
    b.p += b.guard;
    b.data += b.guard;
    device_up(&b);
    return b;
}

static inline device_buf device_of(const void *from, size_t bytes)
{
    device_buf b = device_bytes(bytes);

    if (bytes > 0)
        memcpy(b.data, from, bytes);
    device_up(&b);
    return b;
}

/* Frees, after a look at the guard bands. */
static inline void device_done(device_buf *b)
{
    device_down(b);
    for (size_t i = 0; i < b->guard; i++) {
        assert_int_equal(*(b->data - 1 - i), DEVICE_RUBBISH);
        assert_int_equal(b->data[b->bytes + i], DEVICE_RUBBISH);
    }
    device_free(b->p - b->guard);
    free(b->data - b->guard);
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
    device_up(&b);
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
    device_down(b);
    for (size_t i = 0; i < n; i++) {
        float got = device_get(b, t, i);

        if (!(fabs((double)got - want[i]) <=
              roundings * device_ulp(t) * fmax(fabs(want[i]), 0x1p-14)))
            fail_msg("value %zu: %.9g, the twin has %.9g", i, (double)got,
                     (double)want[i]);
    }
}

/* For main(): a test of a device that is not there is skipped. */
#define device_run_tests(tests)                                                          \
    (device_missing() == NULL ? cmocka_run_group_tests(tests, NULL, NULL)                \
                              : (printf("skipped: %s\n", device_missing()), 77))

#endif
