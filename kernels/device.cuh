/* What every .cu of this room begins with: the device, or its stand-in on the host
 * (host.cuh), and the few helpers that make one source serve three storage types.
 *
 * A kernel reads and writes through hp_load/hp_store (one value as float) or
 * hp_load_pack/hp_store_pack (16 bytes at a time), keeps its sums in float, takes
 * shared memory with HP_SHARED and starts with hp_launch(). Nothing else in a .cu
 * knows which of the two worlds it was compiled for.
 */
#pragma once

#include "kernels/device.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#define HP_SHARED(type, name, count) __shared__ type name[count]
#define HP_UNROLL _Pragma("unroll")

using hp_f16 = __half;
using hp_bf16 = __nv_bfloat16;

static __device__ __forceinline__ float hp_float(__half v)
{
    return __half2float(v);
}
static __device__ __forceinline__ float hp_float(__nv_bfloat16 v)
{
    return __bfloat162float(v);
}
static __device__ __forceinline__ void hp_set(__half &to, float v)
{
    to = __float2half_rn(v);
}
static __device__ __forceinline__ void hp_set(__nv_bfloat16 &to, float v)
{
    to = __float2bfloat16_rn(v);
}
#else
#include "kernels/half.h"
#include "kernels/host.cuh"

#define HP_UNROLL

struct hp_f16 {
    uint16_t bits;
};
struct hp_bf16 {
    uint16_t bits;
};

static inline float hp_float(hp_f16 v)
{
    return hp_f16_float(v.bits);
}
static inline float hp_float(hp_bf16 v)
{
    return hp_bf16_float(v.bits);
}
static inline void hp_set(hp_f16 &to, float v)
{
    to.bits = hp_f16_of(v);
}
static inline void hp_set(hp_bf16 &to, float v)
{
    to.bits = hp_bf16_of(v);
}
#endif

static __device__ __forceinline__ float hp_float(float v)
{
    return v;
}
static __device__ __forceinline__ void hp_set(float &to, float v)
{
    to = v;
}

template <typename T> __device__ __forceinline__ float hp_load(const T *p)
{
    return hp_float(*p);
}
template <typename T> __device__ __forceinline__ void hp_store(T *p, float v)
{
    hp_set(*p, v);
}

/* V neighbours of one type, moved at once: at most 16 bytes. */
template <typename T, int V> struct alignas(sizeof(T) * V) hp_pack {
    T v[V];
};

/* Values in 16 bytes. */
template <typename T> constexpr int hp_wide = (int)(16 / sizeof(T));

template <typename T, int V>
__device__ __forceinline__ hp_pack<T, V> hp_load_pack(const T *p)
{
    static_assert(sizeof(T) * V <= 16, "one load");
#ifndef __CUDACC__
    if ((uintptr_t)p % (sizeof(T) * V) != 0)
        hp_host::fault("a load of %d values is not aligned", V);
#endif
    return *reinterpret_cast<const hp_pack<T, V> *>(p);
}

template <typename T, int V>
__device__ __forceinline__ void hp_store_pack(T *p, const hp_pack<T, V> &v)
{
#ifndef __CUDACC__
    if ((uintptr_t)p % (sizeof(T) * V) != 0)
        hp_host::fault("a store of %d values is not aligned", V);
#endif
    *reinterpret_cast<hp_pack<T, V> *>(p) = v;
}

/* V neighbours as floats, in as few loads as 16 bytes allow; p is aligned to them. */
template <typename T, int V>
__device__ __forceinline__ void hp_load_floats(const T *p, float *v)
{
    constexpr int W = V < hp_wide<T> ? V : hp_wide<T>;

    for (int i = 0; i < V; i += W) {
        hp_pack<T, W> part = hp_load_pack<T, W>(p + i);

        for (int k = 0; k < W; k++)
            v[i + k] = hp_float(part.v[k]);
    }
}

template <typename T> __host__ __device__ __forceinline__ T hp_min(T a, T b)
{
    return a < b ? a : b;
}
template <typename T> __host__ __device__ __forceinline__ T hp_max(T a, T b)
{
    return a > b ? a : b;
}

constexpr unsigned HP_ALL_LANES = 0xffffffffu;

template <typename T> __device__ __forceinline__ T hp_warp_sum(T v)
{
    for (int by = 16; by > 0; by /= 2)
        v += __shfl_xor_sync(HP_ALL_LANES, v, by);
    return v;
}
template <typename T> __device__ __forceinline__ T hp_warp_max(T v)
{
    for (int by = 16; by > 0; by /= 2)
        v = hp_max(v, __shfl_xor_sync(HP_ALL_LANES, v, by));
    return v;
}

/* Atomics on HP_SHARED arrays, which the host must see as such. */
#ifdef __CUDACC__
template <typename T>
__device__ __forceinline__ void hp_shared_or(T *array, int i, unsigned v)
{
    atomicOr(&array[i], v);
}
#else
template <typename A> static inline void hp_shared_or(A &array, int i, unsigned v)
{
    array.update(i, [v](unsigned old) { return old | v; });
}
#endif

/* --- starting ---------------------------------------------------------- */

/* The launcher's arguments take the kernel's parameter types, not their own. */
template <typename T> struct hp_same {
    using type = T;
};

template <typename... P>
static hp_code hp_launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block,
                         hp_stream stream, hp_error *reterr,
                         typename hp_same<P>::type... arg)
{
#ifdef __CUDACC__
    void *args[] = {(void *)&arg...};
    cudaError_t e = cudaLaunchKernel((const void *)kernel, grid, block, args, 0, stream);

    if (e == cudaSuccess)
        return HP_OK;
    (void)cudaGetLastError(); /* ours to report, not the next caller's */
    return hp_fail(reterr, HP_E_DEVICE, "kernel %s: %s", name, cudaGetErrorString(e));
#else
    const char *fault = hp_host::run(grid, block, [=] { kernel(arg...); });

    (void)stream;
    return fault == nullptr ? HP_OK
                            : hp_fail(reterr, HP_E_DEVICE, "kernel %s: %s", name, fault);
#endif
}

/* Calls f with a value of the storage type: f(T()). */
template <typename F> static hp_code hp_with_type(hp_dtype t, hp_error *reterr, F f)
{
    switch (t) {
    case HP_F32:
        return f(float());
    case HP_F16:
        return f(hp_f16());
    case HP_BF16:
        return f(hp_bf16());
    }
    return hp_fail(reterr, HP_E_INVALID, "storage type %d", (int)t);
}

/* May `count` channels at each of these pointers be moved 16 bytes at a time? */
template <typename... P>
static bool hp_is_wide(hp_dtype t, int count, const P *...pointer)
{
    return count % (int)(16 / hp_dtype_size(t)) == 0 &&
           ((((uintptr_t)pointer) % 16 == 0) && ...);
}

/* Threads for `work` items of one block: whole warps, at most `most`. */
static inline unsigned hp_threads(long long work, unsigned most)
{
    return work >= most ? most : (unsigned)((work + 31) / 32 * 32);
}

static inline long long hp_ceil_div(long long a, long long b)
{
    return (a + b - 1) / b;
}

/* Blocks that share a row of `count` items, where there are too few rows to fill a
 * device: for gridDim.y. */
static inline unsigned hp_row_parts(long long rows, long long count, unsigned threads)
{
    return rows >= 512 ? 1 : (unsigned)hp_min(hp_ceil_div(count, 4LL * threads), 512LL);
}
