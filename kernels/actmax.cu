/* The largest magnitude: threads, warps, then one atomic per block, and that only
 * where it would change anything.
 */
#include "kernels/actmax.h"
#include "kernels/device.cuh"

namespace
{

enum { THREADS = 256 };

template <typename T, int V>
__global__ void __launch_bounds__(THREADS)
    actmax_blocks(const T *__restrict__ x, size_t packs, unsigned *bits)
{
    HP_SHARED(unsigned, part, THREADS / 32);
    int t = (int)threadIdx.x;
    unsigned max = 0;

    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < packs;
         i += (size_t)gridDim.x * THREADS) {
        hp_pack<T, V> p = hp_load_pack<T, V>(x + i * V);

        for (int j = 0; j < V; j++)
            max = hp_max(max, __float_as_uint(hp_float(p.v[j])) & 0x7fffffffu);
    }
    max = hp_warp_max(max);
    if (t % 32 == 0)
        part[t / 32] = max;
    __syncthreads();
    if (t == 0) {
        for (int i = 0; i < THREADS / 32; i++)
            max = hp_max(max, (unsigned)part[i]);
        if (max > *bits) /* may be stale: the atomic decides */
            atomicMax(bits, max);
    }
}

} // namespace

hp_code hp_actmax_cuda(hp_dtype type, const void *x, size_t n, uint32_t *bits,
                       hp_stream stream, hp_error *reterr)
{
    if (n == 0)
        return HP_OK;
    return hp_with_type(type, reterr, [&](auto zero) {
        using T = decltype(zero);
        bool wide = n % hp_wide<T> == 0 && (uintptr_t)x % 16 == 0;
        size_t packs = wide ? n / hp_wide<T> : n;
        /* four packs a thread keep enough loads in flight */
        size_t blocks = hp_min<size_t>((packs + 4 * THREADS - 1) / (4 * THREADS), 2048);

        return hp_launch("actmax",
                         wide ? actmax_blocks<T, hp_wide<T>> : actmax_blocks<T, 1>,
                         (unsigned)blocks, THREADS, stream, reterr,
                         static_cast<const T *>(x), packs, bits);
    });
}
