/* What the launch functions of this room share: element types and the stream.
 *
 * A launch function (hp_NOUN_cuda in NOUN.h, defined in NOUN.cu) puts its work on
 * the given stream and returns at once; it allocates nothing and never waits.
 * Pointers are device memory unless the contract says "host"; they must not
 * overlap unless it says "in place". A size of zero is no work and no error.
 *
 * Errors: HP_E_INVALID for arguments that fit no kernel (nothing was launched),
 * HP_E_DEVICE when the launch was refused. What goes wrong while the kernel runs
 * is reported by whoever waits for the stream.
 *
 * These functions live in the CUDA module, and in tests/kernels in a build of the
 * same sources for the host. No program of ours links them.
 */
#ifndef HP_KERNELS_DEVICE_H
#define HP_KERNELS_DEVICE_H

#include <stddef.h>

#include "base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How an activation is stored; sums are always float. */
typedef enum hp_dtype { HP_F32, HP_F16, HP_BF16 } hp_dtype;

static inline size_t hp_dtype_size(hp_dtype t)
{
    return t == HP_F32 ? 4 : 2;
}

/* cudaStream_t and CUstream, without their headers; NULL is the default stream. */
typedef struct CUstream_st *hp_stream;

#ifdef __cplusplus
}
#endif
#endif
