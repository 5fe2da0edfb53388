/* Texture encoding.
 *
 * The fused kernel serves the two shapes of our networks. Work per item is
 * M_masked * K * D * 4 operations on 200 KB at most, so for a few items one block
 * each would leave the device idle: an item's cells go to several blocks in turn
 * (cell i to block i mod parts, so that a small rectangle spreads too), each
 * leaves its K x D partial sums in the workspace, and a second kernel adds them in
 * order and takes the norm. Inside a block, 32 masked cells at a time:
 *   - their rows go to shared memory as floats, 16 bytes a load;
 *   - a lane owns a codeword and four (or two) cells: each codeword value is read
 *     once for all of them; the softmax over codewords is shuffles;
 *   - a thread owns one d and K * D / 256 codewords of the result, in registers,
 *     and adds a (x - c), the difference formed on the spot.
 * Codeword rows are D + 1 apart in shared memory, so that lanes fall on 32 banks.
 *
 * Sums have a fixed order: equal inputs give equal bits.
 */
#include "kernels/device.cuh"
#include "kernels/encode.h"

#include <cmath>

namespace
{

enum { THREADS = 256, WARPS = THREADS / 32, CELLS = 32, WINDOW = THREADS };

/* --- fused ------------------------------------------------------------- */

/* The masked cells of window [first, first + 256) of this block's share, in order,
 * into list[]; returns how many. Share: cells part, part + parts, ... */
template <typename A, typename B>
__device__ int list_cells(const float *__restrict__ delta, int share, int first, int part,
                          int parts, A &list, B &warp_count)
{
    int t = (int)threadIdx.x, i = first + t, cell = part + i * parts, before = 0, all = 0;
    bool in = i < share && delta[cell] > 0.5f;
    unsigned lanes = __ballot_sync(HP_ALL_LANES, in);

    if (t % 32 == 0)
        warp_count[t / 32] = __popc(lanes);
    __syncthreads();
    for (int w = 0; w < WARPS; w++) {
        int count = warp_count[w];

        before += w < t / 32 ? count : 0;
        all += count;
    }
    if (in)
        list[before + __popc(lanes & ((1u << t % 32) - 1))] = cell;
    __syncthreads();
    return all;
}

/* Rows of `count` cells, as floats; the rest of the 32 are zero. */
template <typename T, int D, typename A, typename B>
__device__ void load_rows(const T *__restrict__ x, A &list, int first, int count, B &rows)
{
    constexpr int V = hp_wide<T>, PACKS = D / V;

    for (int i = (int)threadIdx.x; i < CELLS * PACKS; i += THREADS) {
        int row = i / PACKS, at = i % PACKS * V;
        float v[V] = {0};

        if (row < count)
            hp_load_floats<T, V>(x + (size_t)(int)list[first + row] * D + at, v);
        for (int j = 0; j < V; j++)
            rows[row * D + at + j] = v[j];
    }
}

/* a = softmax over codewords (eq. 4), for the first `count` of 32 cells. */
template <int D, int K, typename A, typename B, typename C>
__device__ void assign_rows(A &rows, B &words, const float *__restrict__ scale, int count,
                            C &assign)
{
    constexpr int LANES = K, GROUPS = 32 / LANES, EACH = CELLS / WARPS / GROUPS;
    int lane = (int)threadIdx.x % 32, k = lane % LANES;
    int cell = (int)threadIdx.x / 32 * (CELLS / WARPS) + lane / LANES * EACH;
    float s = scale[k], sum[EACH] = {0};

    for (int d = 0; d < D && cell < count; d++) {
        float c = words[k * (D + 1) + d];

        HP_UNROLL
        for (int q = 0; q < EACH; q++) {
            float diff = rows[(cell + q) * D + d] - c;

            sum[q] += diff * diff;
        }
    }
    HP_UNROLL
    for (int q = 0; q < EACH; q++) {
        float a = -s * sum[q], max = a, all;

        for (int by = LANES / 2; by > 0; by /= 2)
            max = fmaxf(max, __shfl_xor_sync(HP_ALL_LANES, max, by));
        all = a = expf(a - max);
        for (int by = LANES / 2; by > 0; by /= 2)
            all += __shfl_xor_sync(HP_ALL_LANES, all, by);
        assign[(cell + q) * K + k] = a / all;
    }
}

template <typename T, int D, int K>
__global__ void __launch_bounds__(THREADS)
    encode_cells(int m, const T *__restrict__ x, const float *__restrict__ codewords,
                 const float *__restrict__ scale, const float *__restrict__ delta,
                 float *__restrict__ partial /* (batch, parts, K, D) */)
{
    HP_SHARED(float, words, K *(D + 1));
    HP_SHARED(float, rows, CELLS *D);
    HP_SHARED(float, assign, CELLS *K);
    HP_SHARED(int, list, WINDOW);
    HP_SHARED(int, warp_count, WARPS);
    constexpr int EACH = K * D / THREADS;
    static_assert(THREADS % D == 0 && K % (THREADS / D) == 0 && 32 % K == 0, "shape");
    int part = (int)blockIdx.x, parts = (int)gridDim.x, b = (int)blockIdx.y;
    int t = (int)threadIdx.x, d = t % D, k0 = t / D * EACH;
    int share = (m - part + parts - 1) / parts;
    float sum[EACH] = {0}, word[EACH];

    x += (size_t)b * m * D;
    delta += (size_t)b * m;
    for (int i = t; i < K * D; i += THREADS)
        words[i / D * (D + 1) + i % D] = codewords[i];
    HP_UNROLL
    for (int j = 0; j < EACH; j++)
        word[j] = codewords[(k0 + j) * D + d];
    for (int first = 0; first < share; first += WINDOW) {
        int count = list_cells(delta, share, first, part, parts, list, warp_count);

        for (int at = 0; at < count; at += CELLS) {
            int now = hp_min(count - at, (int)CELLS);

            load_rows<T, D>(x, list, at, now, rows);
            __syncthreads();
            assign_rows<D, K>(rows, words, scale, now, assign);
            __syncthreads();
            for (int i = 0; i < now; i++) {
                float v = rows[i * D + d];

                HP_UNROLL
                for (int j = 0; j < EACH; j++)
                    sum[j] += (float)assign[i * K + k0 + j] * (v - word[j]);
            }
            __syncthreads(); /* rows, assign and the list are free again */
        }
    }
    partial += ((size_t)b * parts + part) * K * D;
    HP_UNROLL
    for (int j = 0; j < EACH; j++)
        partial[(k0 + j) * D + d] = sum[j];
}

/* The sum over the block, for all threads. part[] is free on entry and exit. */
template <typename A> __device__ float block_sum(float v, A &part)
{
    int t = (int)threadIdx.x;
    float all = 0;

    v = hp_warp_sum(v);
    if (t % 32 == 0)
        part[t / 32] = v;
    __syncthreads();
    for (int i = 0; i < WARPS; i++)
        all += (float)part[i];
    __syncthreads();
    return all;
}

/* ret = sum of the parts / its length; one block an item. ret may be the only part. */
__global__ void __launch_bounds__(THREADS)
    norm_parts(const float *partial, int parts, int n, float *ret)
{
    HP_SHARED(float, part, WARPS);
    float square = 0;

    partial += (size_t)blockIdx.x * parts * n;
    ret += (size_t)blockIdx.x * n;
    for (int i = (int)threadIdx.x; i < n; i += THREADS) {
        float v = 0;

        for (int p = 0; p < parts; p++)
            v += partial[(size_t)p * n + i];
        ret[i] = v;
        square += v * v;
    }
    /* the least length of the twin; its square is a float's, too, at 1e-24 */
    float length = fmaxf(sqrtf(block_sum(square, part)), 1e-12f);

    for (int i = (int)threadIdx.x; i < n; i += THREADS)
        ret[i] /= length; /* each thread its own */
}

/* --- step by step ------------------------------------------------------ */

enum { K_SLOTS = 8 }; /* codewords a lane keeps: 256 in a warp */

/* A warp a cell: lanes share a distance's sum, and keep a codeword's logit each. */
template <typename T>
__global__ void __launch_bounds__(THREADS)
    assign_cells(long long cells, int d, int k, const T *__restrict__ x,
                 const float *__restrict__ codewords, const float *__restrict__ scale,
                 float *__restrict__ ret)
{
    long long cell = (long long)blockIdx.x * WARPS + threadIdx.x / 32;
    int lane = (int)threadIdx.x % 32;
    float logit[K_SLOTS], max = -INFINITY, all = 0;

    if (cell >= cells)
        return; /* the whole warp */
    x += cell * d;
    ret += cell * k;
    HP_UNROLL
    for (int slot = 0; slot < K_SLOTS; slot++) {
        logit[slot] = -INFINITY;
        for (int j = slot * 32; j < hp_min(k, slot * 32 + 32); j++) {
            float sum = 0;

            for (int i = lane; i < d; i += 32) {
                float diff = hp_load(x + i) - codewords[(size_t)j * d + i];

                sum += diff * diff;
            }
            sum = -scale[j] * hp_warp_sum(sum);
            if (j % 32 == lane)
                logit[slot] = sum;
        }
        max = fmaxf(max, logit[slot]);
    }
    max = hp_warp_max(max);
    HP_UNROLL
    for (int slot = 0; slot < K_SLOTS; slot++) {
        logit[slot] = slot * 32 + lane < k ? expf(logit[slot] - max) : 0.0f;
        all += logit[slot];
    }
    all = hp_warp_sum(all);
    HP_UNROLL
    for (int slot = 0; slot < K_SLOTS; slot++)
        if (slot * 32 + lane < k)
            ret[slot * 32 + lane] = logit[slot] / all;
}

enum { SUM_THREADS = 128, SUM_K = 8 };

/* A thread owns one d and eight codewords, and walks over the cells in the twin's
 * order. */
template <typename T>
__global__ void __launch_bounds__(SUM_THREADS)
    sum_cells(hp_encode e, const T *__restrict__ x, const float *__restrict__ assign,
              const float *__restrict__ delta, const float *__restrict__ codewords,
              float *__restrict__ ret)
{
    int d = (int)(blockIdx.x * SUM_THREADS + threadIdx.x), k0 = (int)blockIdx.y * SUM_K;
    size_t b = blockIdx.z;
    int count = hp_min((int)SUM_K, e.k - k0);
    float sum[SUM_K] = {0}, word[SUM_K] = {0};

    if (d >= e.d)
        return;
    x += b * e.m * e.d + d;
    assign += b * e.m * e.k + k0;
    delta += b * e.m;
    HP_UNROLL
    for (int j = 0; j < SUM_K; j++)
        if (j < count)
            word[j] = codewords[(size_t)(k0 + j) * e.d + d];
    for (int i = 0; i < e.m; i++) {
        if (!(delta[i] > 0.5f))
            continue;
        float v = hp_load(x + (size_t)i * e.d);

        HP_UNROLL
        for (int j = 0; j < SUM_K; j++)
            if (j < count)
                sum[j] += assign[(size_t)i * e.k + j] * (v - word[j]);
    }
    HP_UNROLL
    for (int j = 0; j < SUM_K; j++)
        if (j < count)
            ret[(b * e.k + k0 + j) * e.d + d] = sum[j];
}

/* --- the mask ---------------------------------------------------------- */

__device__ int pixels_inside(double lo, double hi, int i, int cell)
{
    int count = 0;

    for (int p = i * cell; p < (i + 1) * cell; p++)
        count += p + 0.5 >= lo && p + 0.5 < hi;
    return count;
}

__device__ int cell_of(double centre, int cell, int n)
{
    int i = (int)floor(centre / cell);

    return hp_max(0, hp_min(i, n - 1));
}

__global__ void __launch_bounds__(THREADS)
    grid_mask(const double *__restrict__ rect, int ny, int nx, int cell, float *ret)
{
    HP_SHARED(unsigned, any, 1);
    int t = (int)threadIdx.x;

    rect += (size_t)blockIdx.x * 4;
    ret += (size_t)blockIdx.x * ny * nx;
    if (t == 0)
        any[0] = 0;
    __syncthreads();
    for (int i = t; i < ny * nx; i += THREADS) {
        int in = pixels_inside(rect[0], rect[2], i / nx, cell) *
                 pixels_inside(rect[1], rect[3], i % nx, cell);
        bool under = 2 * in >= cell * cell;

        ret[i] = under ? 1.0f : 0.0f;
        if (under)
            hp_shared_or(any, 0, 1);
    }
    __syncthreads();
    if (t == 0 && any[0] == 0)
        ret[(size_t)cell_of((rect[0] + rect[2]) / 2, cell, ny) * nx +
            cell_of((rect[1] + rect[3]) / 2, cell, nx)] = 1;
}

/* --- launching --------------------------------------------------------- */

/* Is there a fused kernel? */
bool is_fused(const hp_encode *e)
{
    return (e->d == 128 && e->k == 32) || (e->d == 64 && e->k == 16);
}

/* Blocks an item: two waves of a large device, but never less than 32 cells each. */
int parts_of(const hp_encode *e)
{
    return (int)hp_max(
        1LL, hp_min(hp_ceil_div(264, hp_max(1, e->batch)), hp_ceil_div(e->m, CELLS)));
}

hp_code check(const hp_encode *e, hp_error *reterr)
{
    if (e->d < 1 || e->d > 1024 || e->k < 1 || e->k > 32 * K_SLOTS || e->batch > 65535)
        return hp_fail(reterr, HP_E_INVALID, "encoding: %d items, D %d, K %d", e->batch,
                       e->d, e->k);
    return HP_OK;
}

template <typename T, int D, int K>
hp_code launch_fused(const hp_encode *e, const void *x, const float *codewords,
                     const float *scale, const float *delta, float *ret, void *workspace,
                     hp_stream stream, hp_error *reterr)
{
    int parts = parts_of(e);
    float *partial = static_cast<float *>(workspace);
    hp_code r =
        hp_launch("encode", encode_cells<T, D, K>,
                  dim3((unsigned)parts, (unsigned)e->batch), THREADS, stream, reterr,
                  e->m, static_cast<const T *>(x), codewords, scale, delta, partial);

    if (r != HP_OK)
        return r;
    return hp_launch("encode norm", norm_parts, (unsigned)e->batch, THREADS, stream,
                     reterr, partial, parts, K * D, ret);
}

} // namespace

size_t hp_encode_workspace(const hp_encode *e)
{
    size_t fused = (size_t)parts_of(e) * e->k * e->d, steps = (size_t)e->m * e->k;

    /* a misaligned x takes the steps even where a fused kernel exists */
    return (size_t)e->batch * hp_max(is_fused(e) ? fused : 0, steps) * sizeof(float);
}

hp_code hp_encode_assign_cuda(const hp_encode *e, hp_dtype type, const void *x,
                              const float *codewords, const float *scale, float *ret,
                              hp_stream stream, hp_error *reterr)
{
    long long cells = (long long)e->batch * e->m;
    hp_code r = check(e, reterr);

    if (r != HP_OK || cells == 0)
        return r;
    return hp_with_type(type, reterr, [&](auto zero) {
        using T = decltype(zero);

        return hp_launch("encode assign", assign_cells<T>,
                         (unsigned)hp_ceil_div(cells, WARPS), THREADS, stream, reterr,
                         cells, e->d, e->k, static_cast<const T *>(x), codewords, scale,
                         ret);
    });
}

hp_code hp_encode_sum_cuda(const hp_encode *e, hp_dtype type, const void *x,
                           const float *assign, const float *delta,
                           const float *codewords, float *ret, hp_stream stream,
                           hp_error *reterr)
{
    dim3 grid((unsigned)hp_ceil_div(e->d, SUM_THREADS),
              (unsigned)hp_ceil_div(e->k, SUM_K), (unsigned)e->batch);
    hp_code r = check(e, reterr);

    if (r != HP_OK || e->batch == 0)
        return r;
    return hp_with_type(type, reterr, [&](auto zero) {
        using T = decltype(zero);

        return hp_launch("encode sum", sum_cells<T>, grid, SUM_THREADS, stream, reterr,
                         *e, static_cast<const T *>(x), assign, delta, codewords, ret);
    });
}

hp_code hp_l2_norm_cuda(float *v, int batch, int n, hp_stream stream, hp_error *reterr)
{
    if (batch == 0)
        return HP_OK;
    return hp_launch("l2", norm_parts, (unsigned)batch, THREADS, stream, reterr, v, 1, n,
                     v);
}

hp_code hp_encode_cuda(const hp_encode *e, hp_dtype type, const void *x,
                       const float *codewords, const float *scale, const float *delta,
                       float *ret, void *workspace, hp_stream stream, hp_error *reterr)
{
    float *assign = static_cast<float *>(workspace);
    hp_code r = check(e, reterr);

    if (r != HP_OK || e->batch == 0)
        return r;
    if (is_fused(e) && (uintptr_t)x % 16 == 0)
        return hp_with_type(type, reterr, [&](auto zero) {
            using T = decltype(zero);

            return e->d == 128 ? launch_fused<T, 128, 32>(e, x, codewords, scale, delta,
                                                          ret, workspace, stream, reterr)
                               : launch_fused<T, 64, 16>(e, x, codewords, scale, delta,
                                                         ret, workspace, stream, reterr);
        });
    r = hp_encode_assign_cuda(e, type, x, codewords, scale, assign, stream, reterr);
    if (r == HP_OK)
        r = hp_encode_sum_cuda(e, type, x, assign, delta, codewords, ret, stream, reterr);
    if (r == HP_OK)
        r = hp_l2_norm_cuda(ret, e->batch, e->k * e->d, stream, reterr);
    return r;
}

hp_code hp_grid_mask_cuda(const double *rect, int batch, int ny, int nx, int cell,
                          float *ret, hp_stream stream, hp_error *reterr)
{
    if (batch == 0 || ny == 0 || nx == 0)
        return HP_OK;
    if (cell < 1 || cell > 1024)
        return hp_fail(reterr, HP_E_INVALID, "grid mask: cells of %d", cell);
    return hp_launch("grid mask", grid_mask, (unsigned)batch, THREADS, stream, reterr,
                     rect, ny, nx, cell, ret);
}
