/* A GPU as a test's device. */
#include <cuda_runtime_api.h>

#include "tests/kernels/device_world.h"

const int device_exp_ulps = 4; /* expf() is within two, and is divided by once */

const char *device_missing(void)
{
    static char why[160];
    int count = 0;
    cudaError_t e = cudaGetDeviceCount(&count);

    if (e == cudaSuccess && count > 0)
        return NULL;
    snprintf(why, sizeof why, "no GPU: %s",
             e == cudaSuccess ? "none is visible" : cudaGetErrorString(e));
    return why;
}

void hp_host_seed(uint64_t seed)
{
    (void)seed;
}

void *device_alloc(size_t bytes)
{
    void *p = NULL;

    return cudaMalloc(&p, bytes + (bytes == 0)) == cudaSuccess ? p : NULL;
}

void device_free(void *p)
{
    cudaFree(p);
}

static hp_code copy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                    hp_error *reterr)
{
    cudaError_t e = cudaDeviceSynchronize();

    if (e == cudaSuccess && bytes > 0)
        e = cudaMemcpy(to, from, bytes, kind);
    return e == cudaSuccess
               ? HP_OK
               : hp_fail(reterr, HP_E_DEVICE, "CUDA: %s", cudaGetErrorString(e));
}

hp_code device_copy_up(void *to, const void *from, size_t bytes, hp_error *reterr)
{
    return copy(to, from, bytes, cudaMemcpyHostToDevice, reterr);
}

hp_code device_copy_down(void *to, const void *from, size_t bytes, hp_error *reterr)
{
    return copy(to, from, bytes, cudaMemcpyDeviceToHost, reterr);
}
