/* The network's input in two launches. The first fills three small tables, one per
 * axis: which source voxels lie under each destination voxel, and how heavily; it
 * is the only double arithmetic. In the second a thread makes one destination
 * voxel with all its channels: two or three taps an axis, which neighbouring
 * threads share in L1, so three passes through memory would cost more than the
 * taps read twice.
 *
 * Sums run z, then y, then x, each product rounded before it is added: the twin's
 * arithmetic, so that rounding to whole HU falls the same way.
 */
#include "kernels/device.cuh"
#include "kernels/input.h"

#include <cmath>

namespace
{

enum { THREADS = 256 };

/* One axis: entry i covers source voxels start[i] ..., count[i] of them; count 0
 * is padding. Lies in the workspace, one axis after the other. */
struct axis {
    int *start, *count;
    float *weight; /* (n, most) */
    int n, src_n, most;
    double lo, scale, half;
};

struct tables {
    axis a[3];
};

struct sources {
    const int16_t *src[HP_INPUT_SOURCES];
};

struct windowing {
    float lo, hi, gain, offset;
};

__global__ void __launch_bounds__(THREADS) fill_tables(tables t)
{
    const axis a = t.a[blockIdx.y];
    int i = (int)(blockIdx.x * THREADS + threadIdx.x);

    if (i >= a.n)
        return;
    double centre = __dadd_rn(a.lo, __dmul_rn(i + 0.5, a.scale));
    double from = fmax(centre - a.half, 0.0), to = fmin(centre + a.half, (double)a.src_n);
    int first = (int)floor(from), last = (int)ceil(to);
    bool inside = centre >= 0 && centre < a.src_n && to > from;

    a.start[i] = first;
    a.count[i] = inside ? hp_min(last - first, a.most) : 0;
    for (int j = 0; inside && j < a.count[i]; j++) {
        double cover = fmin(to, first + j + 1.0) - fmax(from, (double)(first + j));

        a.weight[(size_t)i * a.most + j] = (float)(cover / (to - from));
    }
}

__device__ __forceinline__ float add_product(float sum, float w, float v)
{
    return __fadd_rn(sum, __fmul_rn(w, v));
}

/* One destination voxel of all sources; `at` is where its taps begin. The sources
 * of one tap are independent loads, in flight together. */
__device__ __forceinline__ void resample(const sources &s, int used, const tables &t,
                                         const int at[3], const int count[3],
                                         const float *const w[3],
                                         float sum[HP_INPUT_SOURCES])
{
    constexpr int C = HP_INPUT_SOURCES;
    size_t row = (size_t)t.a[2].src_n, plane = row * (size_t)t.a[1].src_n;
    size_t corner = (size_t)at[0] * plane + (size_t)at[1] * row + (size_t)at[2];

    for (int x = 0; x < count[2]; x++) {
        float column[C] = {0};

        for (int y = 0; y < count[1]; y++) {
            float depth[C] = {0};

            for (int z = 0; z < count[0]; z++) {
                size_t i = corner + (size_t)z * plane + (size_t)y * row + (size_t)x;

                HP_UNROLL
                for (int c = 0; c < C; c++)
                    if (c < used)
                        depth[c] = add_product(depth[c], w[0][z], (float)s.src[c][i]);
            }
            HP_UNROLL
            for (int c = 0; c < C; c++)
                column[c] = add_product(column[c], w[1][y], depth[c]);
        }
        HP_UNROLL
        for (int c = 0; c < C; c++)
            sum[c] = add_product(sum[c], w[2][x], column[c]);
    }
}

__device__ __forceinline__ float windowed(float hu, const windowing &w)
{
    float v = rintf(fminf(fmaxf(hu, -32768.0f), 32767.0f));

    v = v < w.lo ? w.lo : v > w.hi ? w.hi : v;
    return add_product(w.offset, v - w.lo, w.gain);
}

/* PACK: the result's channels are one 16-byte pack. */
template <typename T, bool PACK>
__global__ void __launch_bounds__(THREADS)
    make_input(hp_input in, tables t, sources s, windowing win, T *__restrict__ dst)
{
    int y = (int)blockIdx.y, z = (int)blockIdx.z;
    int x = (int)(blockIdx.x * blockDim.x + threadIdx.x);

    if (x >= in.n[2])
        return;
    const int to[3] = {z, y, x};
    int at[3], count[3];
    const float *w[3];
    bool pad = false;
    float hu[HP_INPUT_SOURCES] = {0};
    hp_pack<T, HP_INPUT_CHANNELS> all;
    T *out = dst + (((size_t)z * in.n[1] + y) * in.n[2] + x) * in.channels;

    for (int a = 0; a < 3; a++) {
        at[a] = t.a[a].start[to[a]];
        count[a] = t.a[a].count[to[a]];
        w[a] = t.a[a].weight + (size_t)to[a] * t.a[a].most;
        pad = pad || count[a] == 0;
    }
    if (!pad)
        resample(s, in.sources, t, at, count, w, hu);
    HP_UNROLL
    for (int c = 0; c < HP_INPUT_CHANNELS; c++) {
        float v = 0;

        if (c < in.sources)
            v = windowed(pad ? (float)in.pad : hu[c % HP_INPUT_SOURCES], win);
        else if (in.mask && c == in.sources)
            v = y + 0.5 >= in.rect[0] && y + 0.5 < in.rect[2] && x + 0.5 >= in.rect[1] &&
                x + 0.5 < in.rect[3];
        if (PACK)
            hp_set(all.v[c], v);
        else if (c < in.channels)
            hp_store(out + c, v);
    }
    if constexpr (PACK)
        hp_store_pack<T, HP_INPUT_CHANNELS>(out, all);
}

axis axis_of(const hp_input *in, int a)
{
    double scale = (in->hi[a] - in->lo[a]) / in->n[a], half = fmax(scale, 1) / 2;

    return {nullptr,   nullptr, nullptr, in->n[a], in->src_n[a], (int)ceil(2 * half) + 2,
            in->lo[a], scale,   half};
}

size_t axis_bytes(const axis &a)
{
    return ((size_t)a.n * (2 * sizeof(int) + (size_t)a.most * sizeof(float)) + 15) / 16 *
           16;
}

bool is_empty(const hp_input *in)
{
    return in->n[0] == 0 || in->n[1] == 0 || in->n[2] == 0 || in->channels == 0;
}

template <typename T>
hp_code launch(const hp_input *in, const tables &t, const sources &s, void *dst,
               hp_stream stream, hp_error *reterr)
{
    const hp_window *w = &in->window;
    windowing win = {(float)w->lo, (float)w->hi, (float)(1 / ((w->hi - w->lo) * w->std)),
                     (float)(-w->mean / w->std)};
    unsigned threads = hp_threads(in->n[2], THREADS);
    dim3 grid((unsigned)hp_ceil_div(in->n[2], threads), (unsigned)in->n[1],
              (unsigned)in->n[0]);

    if constexpr (sizeof(T) * HP_INPUT_CHANNELS == 16)
        if (in->channels == HP_INPUT_CHANNELS && (uintptr_t)dst % 16 == 0)
            return hp_launch("input", make_input<T, true>, grid, threads, stream, reterr,
                             *in, t, s, win, static_cast<T *>(dst));
    return hp_launch("input", make_input<T, false>, grid, threads, stream, reterr, *in, t,
                     s, win, static_cast<T *>(dst));
}

} // namespace

size_t hp_input_workspace(const hp_input *in)
{
    size_t bytes = 0;

    for (int a = 0; a < 3 && !is_empty(in); a++)
        bytes += axis_bytes(axis_of(in, a));
    return bytes;
}

hp_code hp_input_cuda(const hp_input *in, hp_dtype type, const int16_t *const *src,
                      void *dst, void *workspace, hp_stream stream, hp_error *reterr)
{
    char *at = static_cast<char *>(workspace);
    tables t;
    sources s = {};
    int longest = 0;
    hp_code r;

    if (in->sources < 0 || in->sources > HP_INPUT_SOURCES ||
        in->sources + in->mask > in->channels || in->channels > HP_INPUT_CHANNELS)
        return hp_fail(reterr, HP_E_INVALID, "input: %d sources for %d channels",
                       in->sources, in->channels);
    if (is_empty(in))
        return HP_OK;
    if (in->n[0] > 65535 || in->n[1] > 65535)
        return hp_fail(reterr, HP_E_INVALID, "input: too large");
    for (int a = 0; a < 3; a++) {
        t.a[a] = axis_of(in, a);
        t.a[a].start = reinterpret_cast<int *>(at);
        t.a[a].count = t.a[a].start + t.a[a].n;
        t.a[a].weight = reinterpret_cast<float *>(t.a[a].count + t.a[a].n);
        at += axis_bytes(t.a[a]);
        longest = hp_max(longest, in->n[a]);
    }
    for (int c = 0; c < in->sources; c++)
        s.src[c] = src[c];
    r = hp_launch("input tables", fill_tables,
                  dim3((unsigned)hp_ceil_div(longest, THREADS), 3), THREADS, stream,
                  reterr, t);
    if (r != HP_OK)
        return r;
    return hp_with_type(type, reterr, [&](auto zero) {
        return launch<decltype(zero)>(in, t, s, dst, stream, reterr);
    });
}
