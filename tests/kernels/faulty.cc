/* Kernels with one mistake each. The host machine must find every one of them, or
 * its silence about the real kernels says nothing. */
#include "tests/kernels/faulty.h"

#include "kernels/device.cuh"

namespace
{

/* The sum of 64 values by a tree; `barrier` says whether it waits as it must. */
__global__ void tree_sum(const float *in, float *out, bool barrier)
{
    HP_SHARED(float, part, 64);
    int t = (int)threadIdx.x;

    part[t] = in[t];
    __syncthreads();
    for (int by = 32; by > 0; by /= 2) {
        if (t < by)
            part[t] += (float)part[t + by];
        if (barrier)
            __syncthreads();
    }
    if (t == 0)
        *out = part[0];
}

__global__ void reads_poison(float *out)
{
    HP_SHARED(float, tile, 64);
    int t = (int)threadIdx.x;

    if (t != 7)
        tile[t] = 1;
    __syncthreads();
    out[t] = tile[63 - t];
}

/* Shared memory holds over from one block to the next only by luck. */
__global__ void lives_on_the_last_block(float *out)
{
    HP_SHARED(float, tile, 1);

    if (threadIdx.x == 0 && *out == 0)
        tile[0] = 1;
    __syncthreads();
    *out = (float)tile[0] + 1;
}

__global__ void leaves_before_the_barrier(float *out)
{
    if (threadIdx.x == 5)
        return;
    __syncthreads();
    *out = 1;
}

__global__ void two_barriers_for_one(float *out)
{
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    *out = 1;
}

__global__ void shuffles_with_the_departed(float *out)
{
    if (threadIdx.x >= 16)
        return;
    *out = __shfl_down_sync(0xffffffffu, 1.0f, 1);
}

__global__ void out_of_range(float *out)
{
    HP_SHARED(float, tile, 32);

    tile[(int)threadIdx.x] = 1; /* of 64 threads */
    *out = 1;
}

/* Right as long as block 0 runs first. */
__global__ void trusts_block_order(float *out)
{
    if (blockIdx.x == 0)
        out[0] = 5;
    else if (threadIdx.x == 0)
        out[blockIdx.x] = out[0];
}

__global__ void warp_exchange(int *out)
{
    int t = (int)threadIdx.x;
    unsigned odd = __ballot_sync(0xffffffffu, t & 1);
    int left = __shfl_sync(0xffffffffu, t, (t + 1) % 32);
    int other = __shfl_xor_sync(0xffffffffu, t, 1);

    out[t] = odd == 0xaaaaaaaau && left % 32 == (t + 1) % 32 && other == (t ^ 1);
}

__global__ void misaligned(const float *in, float *out)
{
    *out = hp_load_pack<float, 4>(in + 1).v[0];
}

} // namespace

extern "C" hp_code faulty_run(faulty_kernel which, const float *in, float *out,
                              hp_error *reterr)
{
    switch (which) {
    case FAULTY_TREE_WITH_BARRIERS:
        return hp_launch("tree", tree_sum, 1, 64, nullptr, reterr, in, out, true);
    case FAULTY_TREE_WITHOUT:
        return hp_launch("tree", tree_sum, 1, 64, nullptr, reterr, in, out, false);
    case FAULTY_POISON:
        return hp_launch("poison", reads_poison, 1, 64, nullptr, reterr, out);
    case FAULTY_LAST_BLOCK:
        return hp_launch("last", lives_on_the_last_block, 2, 32, nullptr, reterr, out);
    case FAULTY_LEAVER:
        return hp_launch("leaver", leaves_before_the_barrier, 1, 64, nullptr, reterr,
                         out);
    case FAULTY_TWO_BARRIERS:
        return hp_launch("two", two_barriers_for_one, 1, 64, nullptr, reterr, out);
    case FAULTY_SHUFFLE:
        return hp_launch("shuffle", shuffles_with_the_departed, 1, 32, nullptr, reterr,
                         out);
    case FAULTY_RANGE:
        return hp_launch("range", out_of_range, 1, 64, nullptr, reterr, out);
    case FAULTY_BLOCK_ORDER:
        return hp_launch("order", trusts_block_order, 16, 32, nullptr, reterr, out);
    case FAULTY_ALIGNMENT:
        return hp_launch("align", misaligned, 1, 1, nullptr, reterr, in, out);
    }
    return HP_E_INVALID;
}

extern "C" hp_code faulty_exchange(int *out, hp_error *reterr)
{
    return hp_launch("exchange", warp_exchange, 1, 64, nullptr, reterr, out);
}
