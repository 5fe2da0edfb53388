/* The fully connected layer: one block per (class, item); each thread sums a
 * stride of 16-byte packs, then warps by shuffles, then the warps' sums. The
 * order is fixed, so equal inputs give equal bits.
 */
#include "kernels/device.cuh"
#include "kernels/fc.h"

namespace
{

enum { THREADS = 256 };

template <typename T, int V>
__global__ void __launch_bounds__(THREADS)
    fc_dot(int in, int out, const T *__restrict__ x, const float *__restrict__ weight,
           const float *__restrict__ bias, float *__restrict__ ret)
{
    HP_SHARED(float, part, THREADS / 32);
    int k = (int)blockIdx.x, b = (int)blockIdx.y, t = (int)threadIdx.x;
    float sum = 0;

    for (int i = t * V; i < in; i += THREADS * V) {
        float xs[V], ws[V];

        hp_load_floats<T, V>(x + (size_t)b * in + i, xs);
        hp_load_floats<float, V>(weight + (size_t)k * in + i, ws);
        for (int j = 0; j < V; j++)
            sum += xs[j] * ws[j];
    }
    sum = hp_warp_sum(sum);
    if (t % 32 == 0)
        part[t / 32] = sum;
    __syncthreads();
    if (t == 0) {
        sum = bias[k];
        for (int i = 0; i < THREADS / 32; i++)
            sum += part[i];
        ret[(size_t)b * out + k] = sum;
    }
}

} // namespace

hp_code hp_fc_cuda(int batch, int in, int out, hp_dtype type, const void *x,
                   const float *weight, const float *bias, float *ret, hp_stream stream,
                   hp_error *reterr)
{
    if (batch == 0 || out == 0)
        return HP_OK;
    if (batch > 65535)
        return hp_fail(reterr, HP_E_INVALID, "fully connected: a batch of %d", batch);
    return hp_with_type(type, reterr, [&](auto zero) {
        using T = decltype(zero);
        bool wide = hp_is_wide(type, in, x, weight);
        dim3 grid((unsigned)out, (unsigned)batch);

        return hp_launch("fc", wide ? fc_dot<T, hp_wide<T>> : fc_dot<T, 1>, grid, THREADS,
                         stream, reterr, in, out, static_cast<const T *>(x), weight, bias,
                         ret);
    });
}
