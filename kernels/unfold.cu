/* The unfold, limited by memory: a block takes one row (b, z, y) of the result and
 * its threads walk along (x, channel) 16 bytes at a time. Skip and up-sampled part
 * begin at a multiple of 16 bytes, so a pack never straddles them.
 */
#include "kernels/device.cuh"
#include "kernels/unfold.h"

namespace
{

template <typename T, int V>
__global__ void __launch_bounds__(256)
    unfold_rows(hp_unfold u, const T *skip, const T *low, const float *__restrict__ bias,
                T *out)
{
    int row = (int)blockIdx.x, y = row % u.n[1], z = row / u.n[1] % u.n[0];
    int b = row / u.n[1] / u.n[0];
    int c = u.skip_c + u.up_c, packs = c / V, count = u.n[2] * packs;
    int group = u.stride[0] * u.stride[1] * u.stride[2] * u.up_c;
    int part = (z % u.stride[0] * u.stride[1] + y % u.stride[1]) * u.stride[2];
    size_t first = (size_t)row * u.n[2];
    size_t low_first =
        (((size_t)b * u.low[0] + z / u.stride[0]) * u.low[1] + y / u.stride[1]) *
        u.low[2];

    for (int i = (int)(blockIdx.y * blockDim.x + threadIdx.x); i < count;
         i += (int)(gridDim.y * blockDim.x)) {
        int x = i / packs, k = (i - x * packs) * V, cell = x / u.stride[2];
        hp_pack<T, V> v;

        if (k < u.skip_c) {
            v = hp_load_pack<T, V>(skip + (first + x) * u.skip_c + k);
        } else {
            float add[V];

            k -= u.skip_c;
            v = hp_load_pack<T, V>(low + (low_first + cell) * group +
                                   (size_t)(part + x - cell * u.stride[2]) * u.up_c + k);
            hp_load_floats<float, V>(bias + k, add);
            for (int j = 0; j < V; j++) {
                float sum = hp_float(v.v[j]) + add[j];

                hp_set(v.v[j], u.relu && sum < 0 ? 0.0f : sum);
            }
        }
        hp_store_pack<T, V>(out + first * c + (size_t)i * V, v);
    }
}

template <typename T, int V>
hp_code launch(const hp_unfold &u, const void *skip, const void *low, const float *bias,
               void *out, hp_stream stream, hp_error *reterr)
{
    long long rows = (long long)u.batch * u.n[0] * u.n[1];
    long long count = (long long)u.n[2] * ((u.skip_c + u.up_c) / V);
    unsigned threads = hp_threads(count, 256);
    dim3 grid((unsigned)rows, hp_row_parts(rows, count, threads));

    return hp_launch("unfold", unfold_rows<T, V>, grid, threads, stream, reterr, u,
                     static_cast<const T *>(skip), static_cast<const T *>(low), bias,
                     static_cast<T *>(out));
}

} // namespace

hp_code hp_unfold_cuda(const hp_unfold *u, hp_dtype type, const void *skip,
                       const void *low, const float *bias, void *out, hp_stream stream,
                       hp_error *reterr)
{
    long long rows = (long long)u->batch * u->n[0] * u->n[1];
    int c = u->skip_c + u->up_c;

    for (int a = 0; a < 3; a++)
        if (u->stride[a] < 1 || (long long)u->low[a] * u->stride[a] < u->n[a])
            return hp_fail(reterr, HP_E_INVALID, "unfold: %d cells by %d for %d",
                           u->low[a], u->stride[a], u->n[a]);
    if (rows == 0 || u->n[2] == 0 || c == 0)
        return HP_OK;
    if (rows > INT32_MAX || (long long)u->n[2] * c > INT32_MAX)
        return hp_fail(reterr, HP_E_INVALID, "unfold: too large");
    return hp_with_type(type, reterr, [&](auto zero) {
        using T = decltype(zero);

        if (u->skip_c % hp_wide<T> == 0 &&
            hp_is_wide(type, u->up_c, skip, low, bias, out))
            return launch<T, hp_wide<T>>(*u, skip, low, bias, out, stream, reterr);
        return launch<T, 1>(*u, skip, low, bias, out, stream, reterr);
    });
}
