/* The conversion, limited by memory. Equal channel counts are one long row. A
 * thread makes 16 bytes of the result, or one value where they do not fit; rows
 * that are both multiples of a pack are read in packs too.
 */
#include "kernels/convert.h"
#include "kernels/device.cuh"

namespace
{

enum { THREADS = 256 };

/* PACKED: source rows, too, are whole packs. */
template <typename F, typename T, int V, bool PACKED>
__global__ void __launch_bounds__(THREADS)
    convert_rows(size_t packs, int from_c, int to_c, const F *__restrict__ src,
                 T *__restrict__ dst)
{
    size_t step = (size_t)gridDim.x * THREADS;

    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < packs; i += step) {
        size_t row = from_c == to_c ? 0 : i * V / (size_t)to_c;
        size_t k = i * V - row * (size_t)to_c;
        const F *from = src + row * (size_t)from_c + k;
        float v[V];
        hp_pack<T, V> to;

        if (from_c == to_c || k + V <= (size_t)from_c) {
            if (PACKED)
                hp_load_floats<F, V>(from, v);
            else
                for (int j = 0; j < V; j++)
                    v[j] = hp_load(from + j);
        } else {
            for (int j = 0; j < V; j++)
                v[j] = k + (size_t)j < (size_t)from_c ? hp_load(from + j) : 0.0f;
        }
        for (int j = 0; j < V; j++)
            hp_set(to.v[j], v[j]);
        hp_store_pack<T, V>(dst + i * V, to);
    }
}

template <typename F, typename T>
hp_code launch(const hp_convert &c, const void *src, void *dst, hp_stream stream,
               hp_error *reterr)
{
    constexpr int V = hp_wide<T>;
    size_t count = c.rows * (size_t)c.to_c;
    bool flat = c.from_c == c.to_c;
    bool wide = (uintptr_t)dst % 16 == 0 && (flat ? count % V == 0 : c.to_c % V == 0);
    bool packed = wide && (uintptr_t)src % 16 == 0 && (flat || c.from_c % V == 0);
    size_t packs = wide ? count / V : count;
    unsigned blocks = (unsigned)hp_min<size_t>((packs + THREADS - 1) / THREADS, 1u << 20);

    return hp_launch("convert",
                     packed ? convert_rows<F, T, V, true>
                     : wide ? convert_rows<F, T, V, false>
                            : convert_rows<F, T, 1, false>,
                     blocks, THREADS, stream, reterr, packs, c.from_c, c.to_c,
                     static_cast<const F *>(src), static_cast<T *>(dst));
}

} // namespace

hp_code hp_convert_cuda(const hp_convert *c, const void *src, void *dst, hp_stream stream,
                        hp_error *reterr)
{
    if (c->from != c->to && c->from != HP_F32 && c->to != HP_F32)
        return hp_fail(reterr, HP_E_INVALID, "convert: between two 16-bit types");
    if (c->rows == 0 || c->to_c == 0)
        return HP_OK;
    if (c->from == HP_F32)
        return hp_with_type(c->to, reterr, [&](auto to) {
            return launch<float, decltype(to)>(*c, src, dst, stream, reterr);
        });
    return hp_with_type(c->from, reterr, [&](auto from) {
        using F = decltype(from);

        return c->to == HP_F32 ? launch<F, float>(*c, src, dst, stream, reterr)
                               : launch<F, F>(*c, src, dst, stream, reterr);
    });
}
