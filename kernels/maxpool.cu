/* Max pooling: a block takes one row of the result; a thread 16 bytes of channels
 * and its nine taps, of which neighbours share most in L1.
 */
#include "kernels/device.cuh"
#include "kernels/maxpool.h"

#include <cmath>

namespace
{

template <typename T, int V>
__global__ void __launch_bounds__(256)
    maxpool_rows(int h, int w, int c, const T *__restrict__ in, T *__restrict__ out)
{
    int oh = (h + 1) / 2, ow = (w + 1) / 2, packs = c / V;
    int row = (int)blockIdx.x, y = row % oh, plane = row / oh;

    for (int i = (int)(blockIdx.y * blockDim.x + threadIdx.x); i < ow * packs;
         i += (int)(gridDim.y * blockDim.x)) {
        int x = i / packs, k = (i - x * packs) * V;
        float best[V];
        hp_pack<T, V> v;

        for (int j = 0; j < V; j++)
            best[j] = -INFINITY;
        for (int t = 0; t < 9; t++) {
            int yy = 2 * y + t / 3 - 1, xx = 2 * x + t % 3 - 1;

            if (yy < 0 || yy >= h || xx < 0 || xx >= w)
                continue;
            v = hp_load_pack<T, V>(in + (((size_t)plane * h + yy) * w + xx) * c + k);
            for (int j = 0; j < V; j++)
                best[j] = hp_max(hp_float(v.v[j]), best[j]);
        }
        for (int j = 0; j < V; j++)
            hp_set(v.v[j], best[j]);
        hp_store_pack<T, V>(out + ((size_t)row * ow + x) * c + k, v);
    }
}

template <typename T, int V>
hp_code launch(int planes, const int n[3], const void *in, void *out, hp_stream stream,
               hp_error *reterr)
{
    long long rows = (long long)planes * ((n[0] + 1) / 2);
    long long count = (long long)((n[1] + 1) / 2) * (n[2] / V);
    unsigned threads = hp_threads(count, 256);
    dim3 grid((unsigned)rows, hp_row_parts(rows, count, threads));

    return hp_launch("maxpool", maxpool_rows<T, V>, grid, threads, stream, reterr, n[0],
                     n[1], n[2], static_cast<const T *>(in), static_cast<T *>(out));
}

} // namespace

hp_code hp_maxpool_cuda(int planes, const int n[3], hp_dtype type, const void *in,
                        void *out, hp_stream stream, hp_error *reterr)
{
    if (planes == 0 || n[0] == 0 || n[1] == 0 || n[2] == 0)
        return HP_OK;
    if ((long long)planes * n[0] > INT32_MAX || (long long)n[1] * n[2] > INT32_MAX)
        return hp_fail(reterr, HP_E_INVALID, "max pooling: too large");
    return hp_with_type(type, reterr, [&](auto zero) {
        using T = decltype(zero);

        if (hp_is_wide(type, n[2], in, out))
            return launch<T, hp_wide<T>>(planes, n, in, out, stream, reterr);
        return launch<T, 1>(planes, n, in, out, stream, reterr);
    });
}
