/* The back end that a test of networks runs on: the CPU, or what HEPAR_TEST_DEVICE
 * and HEPAR_TEST_PRECISION ask for. */
#ifndef HP_TESTS_INFERENCE_DEVICE_H
#define HP_TESTS_INFERENCE_DEVICE_H

#include <stdbool.h>
#include <string.h>

#include "inference/backend.h"
#include "tests/inference/world.h"

static inline const char *device_name(void)
{
    const char *name = getenv("HEPAR_TEST_DEVICE");

    return name != NULL ? name : "cpu";
}

static inline bool device_is_cpu(void)
{
    return strcmp(device_name(), "cpu") == 0;
}

static inline const char *device_precision(void)
{
    const char *name = getenv("HEPAR_TEST_PRECISION");

    return name != NULL ? name : device_is_cpu() ? "fp32" : "fp16";
}

static inline hp_code device_try(int threads, hp_backend **ret, hp_error *err)
{
    hp_backend_options opt = HP_BACKEND_OPTIONS_INIT;

    opt.device = device_name();
    opt.precision = device_precision();
    opt.threads = threads;
    return hp_backend_open_with(&opt, ret, err);
}

static inline hp_backend *device_open(int threads)
{
    hp_error err = HP_ERROR_INIT;
    hp_backend *b = NULL;

    assert_ok(device_try(threads, &b, &err), &err);
    return b;
}

/* For main(), before anything else: false, with the reason printed, where the
 * device is not there and the test is to exit with 77. */
static inline bool device_is_here(void)
{
    hp_error err = HP_ERROR_INIT;
    hp_backend *b = NULL;
    hp_code r = device_try(1, &b, &err);

    hp_backend_close(b);
    if (r == HP_E_UNSUPPORTED)
        printf("skipped: %s\n", err.msg);
    return r != HP_E_UNSUPPORTED;
}

/* |a - b| may be this part of the tensor's largest value. The CPU adds in another
 * order than PyTorch; halves round after each layer, and PyTorch's own halves are up
 * to 0.01 (fp16, in the softmax of the texture encoding) and 0.015 (bf16) away. */
static inline double device_tolerance(void)
{
    if (device_is_cpu())
        return 1e-4;
    return strcmp(device_precision(), "bf16") == 0 ? 8e-2 : 2e-2;
}

#endif
