/* The merge, limited by memory: a block takes one row (b, z, y) of the result, so
 * that all divisions but one are the block's, and its threads walk along (x, c)
 * 16 bytes at a time. Neighbouring rows read the same coarse row from L2.
 */
#include "kernels/device.cuh"
#include "kernels/merge.h"

namespace
{

template <typename T, int V>
__global__ void __launch_bounds__(256)
    merge_rows(hp_merge m, const T *__restrict__ skip, const T *__restrict__ low, T *out)
{
    int row = (int)blockIdx.x, y = row % m.n[1], z = row / m.n[1] % m.n[0];
    int b = row / m.n[1] / m.n[0];
    int packs = m.n[3] / V, count = m.n[2] * packs;
    size_t to = (size_t)row * m.n[2] * m.n[3];
    size_t from =
        (((size_t)b * m.low[0] + z / m.stride[0]) * m.low[1] + y / m.stride[1]) *
        m.low[2] * m.n[3];

    for (int i = (int)(blockIdx.y * blockDim.x + threadIdx.x); i < count;
         i += (int)(gridDim.y * blockDim.x)) {
        int x = i / packs, c = (i - x * packs) * V;
        hp_pack<T, V> a = hp_load_pack<T, V>(skip + to + (size_t)i * V);
        hp_pack<T, V> u =
            hp_load_pack<T, V>(low + from + (size_t)(x / m.stride[2]) * m.n[3] + c);

        for (int k = 0; k < V; k++)
            hp_set(a.v[k], hp_float(a.v[k]) + hp_float(u.v[k]));
        hp_store_pack<T, V>(out + to + (size_t)i * V, a);
    }
}

template <typename T, int V>
hp_code launch(const hp_merge &m, const void *skip, const void *low, void *out,
               hp_stream stream, hp_error *reterr)
{
    long long rows = (long long)m.batch * m.n[0] * m.n[1];
    long long count = (long long)m.n[2] * (m.n[3] / V);
    unsigned threads = hp_threads(count, 256);
    dim3 grid((unsigned)rows, hp_row_parts(rows, count, threads));

    return hp_launch("merge", merge_rows<T, V>, grid, threads, stream, reterr, m,
                     static_cast<const T *>(skip), static_cast<const T *>(low),
                     static_cast<T *>(out));
}

} // namespace

hp_code hp_merge_cuda(const hp_merge *m, hp_dtype type, const void *skip, const void *low,
                      void *out, hp_stream stream, hp_error *reterr)
{
    long long rows = (long long)m->batch * m->n[0] * m->n[1];

    for (int a = 0; a < 3; a++)
        if (m->stride[a] < 1 || (long long)m->low[a] * m->stride[a] < m->n[a])
            return hp_fail(reterr, HP_E_INVALID, "merge: %d cells by %d for %d",
                           m->low[a], m->stride[a], m->n[a]);
    if (rows == 0 || m->n[2] == 0 || m->n[3] == 0)
        return HP_OK;
    if (rows > INT32_MAX || (long long)m->n[2] * m->n[3] > INT32_MAX)
        return hp_fail(reterr, HP_E_INVALID, "merge: too large");
    return hp_with_type(type, reterr, [&](auto zero) {
        using T = decltype(zero);

        if (hp_is_wide(type, m->n[3], skip, low, out))
            return launch<T, hp_wide<T>>(*m, skip, low, out, stream, reterr);
        return launch<T, 1>(*m, skip, low, out, stream, reterr);
    });
}
