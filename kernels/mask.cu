/* Sums under masks. Some blocks for each mask walk over its box; a voxel's mask byte
 * is read once for all phases. Integers add up alike in any order, so warps end
 * with plain atomics.
 */
#include "kernels/device.cuh"
#include "kernels/mask.h"

namespace
{

enum { THREADS = 256, BLOCKS = 32 };

struct volumes {
    const int16_t *hu[HP_MASK_VOLUMES];
};

__global__ void __launch_bounds__(THREADS) clear_sums(hp_mask_sum *ret, int count)
{
    int i = (int)(blockIdx.x * THREADS + threadIdx.x);

    if (i < count)
        ret[i] = {0, 0};
}

__device__ __forceinline__ void add_to(int64_t *at, long long v)
{
    /* two's complement: the unsigned sum is the signed one */
    atomicAdd(reinterpret_cast<unsigned long long *>(at), (unsigned long long)v);
}

__global__ void __launch_bounds__(THREADS)
    add_sums(volumes vol, int ny, int nx, const hp_mask_part *__restrict__ part,
             const uint8_t *__restrict__ masks, hp_mask_sum *ret)
{
    const hp_mask_part p = part[blockIdx.y];
    int h = p.hi[1] - p.lo[1], w = p.hi[2] - p.lo[2];
    long long count =
        (long long)hp_max(0, p.hi[0] - p.lo[0]) * hp_max(0, h) * hp_max(0, w);
    long long sum[HP_MASK_VOLUMES] = {0}, voxels = 0;

    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < count;
         i += BLOCKS * THREADS) {
        int x = (int)(i % w), y = (int)(i / w % h), z = (int)(i / w / h);
        size_t at = ((size_t)(z + p.lo[0]) * ny + (size_t)(y + p.lo[1])) * nx +
                    (size_t)(x + p.lo[2]);

        if (!masks[p.at + (size_t)i])
            continue;
        voxels++;
        HP_UNROLL
        for (int v = 0; v < HP_MASK_VOLUMES; v++)
            if (vol.hu[v] != nullptr)
                sum[v] += vol.hu[v][at];
    }
    voxels = hp_warp_sum(voxels);
    ret += (size_t)blockIdx.y * HP_MASK_VOLUMES;
    HP_UNROLL
    for (int v = 0; v < HP_MASK_VOLUMES; v++) {
        sum[v] = hp_warp_sum(sum[v]);
        if (threadIdx.x % 32 == 0 && voxels > 0 && vol.hu[v] != nullptr) {
            add_to(&ret[v].hu, sum[v]);
            add_to(&ret[v].count, voxels);
        }
    }
}

} // namespace

hp_code hp_mask_sums_cuda(const int16_t *const hu[HP_MASK_VOLUMES], const int n[3],
                          const hp_mask_part *part, int parts, const uint8_t *masks,
                          hp_mask_sum *ret, hp_stream stream, hp_error *reterr)
{
    int count = parts * HP_MASK_VOLUMES;
    volumes vol;
    hp_code r;

    if (parts == 0)
        return HP_OK;
    if (parts < 0 || parts > 65535)
        return hp_fail(reterr, HP_E_INVALID, "sums under %d masks", parts);
    for (int v = 0; v < HP_MASK_VOLUMES; v++)
        vol.hu[v] = hu[v];
    r = hp_launch("mask clear", clear_sums, (unsigned)hp_ceil_div(count, THREADS),
                  THREADS, stream, reterr, ret, count);
    if (r != HP_OK)
        return r;
    return hp_launch("mask sums", add_sums, dim3(BLOCKS, (unsigned)parts), THREADS,
                     stream, reterr, vol, n[1], n[2], part, masks, ret);
}
