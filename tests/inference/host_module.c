/* The stand-in for a GPU (host_gpu.h) as a module that programs load: the whole way
 * through HEPAR_CUDA_MODULE, on machines without one. Slow: for tiny networks. */
#include "tests/inference/host_gpu.h"

__attribute__((constructor)) static void start(void)
{
    host_gpu_reset();
}
