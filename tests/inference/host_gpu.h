/* What stands in for a GPU and for cuDNN in tests of the CUDA back end: host
 * memory behind inference/cuda/gpu.h, and behind inference/cuda/conv.h a plain
 * convolution in the stored type, offered as several "engines", some of which a
 * test makes wrong. The kernels are their host build (kernels/host.cuh). */
#ifndef HP_TESTS_INFERENCE_HOST_GPU_H
#define HP_TESTS_INFERENCE_HOST_GPU_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How an engine goes wrong. */
typedef enum host_fault {
    HOST_RIGHT,
    HOST_LEAVES_LAST,  /* does not write the last voxel */
    HOST_OFF_IN_ONE,   /* one channel of every voxel is a little off */
    HOST_NO_BIAS,      /* forgets the bias */
    HOST_REFUSES,      /* says at its first run that it does not support it */
    HOST_FAILS,        /* cannot be started, and harms nobody */
    HOST_DEVICE_ERROR, /* takes the device down */
} host_fault;
enum { HOST_ENGINES = 3 };

typedef struct host_gpu {
    host_fault fault[HOST_ENGINES];
    float ms[HOST_ENGINES]; /* what the stop-watch shows for each */
    size_t workspace[HOST_ENGINES];
    size_t room, used, peak; /* bytes of device memory; room 0: no limit */
    long fail_alloc;         /* the n-th allocation from now fails; 0: none */
    long live;               /* allocations that were not freed */
    long runs;               /* convolutions run */
    long copies;             /* to the device or from it */
    long asked;              /* layers for which heuristics were asked */
    const char *name;
    bool lost; /* the device is down */
} host_gpu;

extern host_gpu host;

void host_gpu_reset(void);

#ifdef __cplusplus
}
#endif
#endif
