/* The host machine of the kernels (kernels/host.cuh) as a test's device. Its memory
 * is the heap, never the host's side of a buffer: a kernel that is given a pointer
 * of the wrong side still runs here, but what it made is not what is compared. */
#include <cstdlib>

#include "kernels/host.cuh"

#include "base/error.h"

extern "C" {

extern const int device_exp_ulps; /* C++ would keep a constant to itself */
const int device_exp_ulps = 0;    /* expf() is the twins' own */

const char *device_missing(void)
{
    return nullptr;
}

void hp_host_seed(uint64_t seed)
{
    hp_host::the().seed = seed;
}

void *device_alloc(size_t bytes)
{
    void *p = nullptr;

    return posix_memalign(&p, 64, bytes > 0 ? bytes : 1) == 0 ? p : nullptr;
}

void device_free(void *p)
{
    free(p);
}

hp_code device_copy_up(void *to, const void *from, size_t bytes, hp_error *)
{
    memcpy(to, from, bytes);
    return HP_OK;
}

hp_code device_copy_down(void *to, const void *from, size_t bytes, hp_error *)
{
    memcpy(to, from, bytes);
    return HP_OK;
}
}
