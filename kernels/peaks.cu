/* Peaks in three launches, nothing waits for the host in between.
 *
 * 1. Counters to zero.
 * 2. A block takes a tile of 32 x 4 x 2 cells with a ring of one around it, in
 *    shared memory as probabilities, so that each sigmoid is computed once or
 *    twice instead of 27 times; a peak appends (score, index) as one 64-bit key to
 *    its item's list, in whatever order blocks come.
 * 3. Keys are all different, so a peak's place is how many keys are larger:
 *    counting needs no sort, and undoes the order of step 2. Whoever lands below k
 *    reads its offset and size and writes its box.
 *
 * Two neighbours are never both peaks, so the list has one place per 2x2x2 cells.
 */
#include "kernels/device.cuh"
#include "kernels/peaks.h"

#include <cmath>

namespace
{

enum { TX = 32, TY = 4, TZ = 2, THREADS = TX * TY * TZ };
enum { RX = TX + 2, RY = TY + 2, RZ = TZ + 2, RING = RX * RY * RZ };

/* Larger is better: score, then the lower index. Scores are not negative, so their
 * bits order as they do. */
__device__ __forceinline__ unsigned long long key_of(float score, int index)
{
    return (unsigned long long)__float_as_uint(score) << 32 | (unsigned)~index;
}

__device__ __forceinline__ float probability(float logit)
{
    return fminf(fmaxf(1.0f / (1.0f + expf(-logit)), 1e-4f), 1 - 1e-4f);
}

__global__ void clear_counts(hp_decoded *ret, int *found, int batch)
{
    int b = (int)threadIdx.x;

    if (b < batch) {
        found[b] = 0;
        ret[b].count = 0;
        ret[b].bad = 0;
    }
}

/* Where a place of the ring lies; -1 outside the map. */
__device__ __forceinline__ int ring_index(const hp_decode &d, const int first[3], int i)
{
    int x = first[2] + i % RX - 1, y = first[1] + i / RX % RY - 1;
    int z = first[0] + i / RX / RY - 1;

    if (x < 0 || x >= d.n[2] || y < 0 || y >= d.n[1] || z < 0 || z >= d.n[0])
        return -1;
    return (z * d.n[1] + y) * d.n[2] + x;
}

template <typename T>
__global__ void __launch_bounds__(THREADS)
    find_peaks(hp_decode d, int tiles_x, int tiles_y, const T *__restrict__ hm,
               int *found, unsigned long long *list, int room, hp_decoded *ret)
{
    HP_SHARED(float, heat, RING);
    int b = (int)blockIdx.y, tile = (int)blockIdx.x, t = (int)threadIdx.x;
    const int first[3] = {tile / tiles_x / tiles_y * TZ, tile / tiles_x % tiles_y * TY,
                          tile % tiles_x * TX};
    const T *map = hm + (size_t)b * d.n[0] * d.n[1] * d.n[2] * d.hm_c;

    for (int i = t; i < RING; i += THREADS) {
        int at = ring_index(d, first, i);
        float logit = at < 0 ? 0.0f : hp_load(map + (size_t)at * d.hm_c);

        heat[i] = at < 0 ? -1.0f : probability(logit); /* -1 loses to everything */
        if (!(fabsf(logit) < INFINITY))
            ret[b].bad = 1;
    }
    __syncthreads();

    int own = ((t / TX / TY + 1) * RY + t / TX % TY + 1) * RX + t % TX + 1;
    int at = ring_index(d, first, own);
    float score = heat[own];

    if (at < 0 || !(score >= d.min))
        return;
    for (int i = 0; i < 27; i++) {
        int by = ((i / 9 - 1) * RY + i / 3 % 3 - 1) * RX + i % 3 - 1;
        float other = heat[own + by];

        /* an equal neighbour in front of us (by < 0) takes the plateau */
        if (other > score || (other == score && by < 0))
            return;
    }
    list[(size_t)b * room + atomicAdd(&found[b], 1)] = key_of(score, at);
}

template <typename T>
__global__ void __launch_bounds__(THREADS)
    rank_peaks(hp_decode d, const T *__restrict__ size, const T *__restrict__ off,
               const int *found, const unsigned long long *__restrict__ list, int room,
               hp_decoded *ret)
{
    HP_SHARED(unsigned long long, tile, THREADS);
    int b = (int)blockIdx.y, t = (int)threadIdx.x, total = found[b], rank = 0;
    int own = (int)blockIdx.x * THREADS + t;

    list += (size_t)b * room;
    if (blockIdx.x == 0 && t == 0)
        ret[b].count = hp_min(total, d.k);
    if ((int)blockIdx.x * THREADS >= total)
        return; /* the whole block */

    unsigned long long key = own < total ? list[own] : 0;

    for (int first = 0; first < total; first += THREADS) {
        int count = hp_min((int)THREADS, total - first);

        __syncthreads(); /* the last tile has been read */
        if (t < count)
            tile[t] = list[first + t];
        __syncthreads();
        for (int i = 0; i < count; i++)
            rank += (unsigned long long)tile[i] > key;
    }
    if (own >= total || rank >= d.k)
        return;

    int index = (int)~(unsigned)key;
    size_t cell = (size_t)b * d.n[0] * d.n[1] * d.n[2] + (size_t)index;
    const int at[3] = {index / (d.n[1] * d.n[2]), index / d.n[2] % d.n[1],
                       index % d.n[2]};
    hp_box_peak *p = &ret[b].peak[rank];

    p->score = __uint_as_float((unsigned)(key >> 32));
    p->index = index;
    for (int a = 0; a < 3; a++) {
        float s = hp_load(size + cell * d.size_c + a),
              o = hp_load(off + cell * d.off_c + a);

        if (!(fabsf(s) < INFINITY && fabsf(o) < INFINITY))
            ret[b].bad = 1;
        p->centre[a] = (float)at[a] + o;
        p->size[a] = fmaxf(s, 0.1f);
    }
}

/* Places in one item's list. */
long long list_room(const hp_decode *d)
{
    return hp_ceil_div(d->n[0], 2) * hp_ceil_div(d->n[1], 2) * hp_ceil_div(d->n[2], 2);
}

size_t counters_bytes(const hp_decode *d)
{
    return ((size_t)d->batch * sizeof(int) + 15) / 16 * 16;
}

template <typename T>
hp_code launch(const hp_decode *d, const void *hm, const void *size, const void *off,
               hp_decoded *ret, void *workspace, hp_stream stream, hp_error *reterr)
{
    int *found = static_cast<int *>(workspace), room = (int)list_room(d);
    unsigned long long *list = reinterpret_cast<unsigned long long *>(
        static_cast<char *>(workspace) + counters_bytes(d));
    int tiles_x = (int)hp_ceil_div(d->n[2], TX), tiles_y = (int)hp_ceil_div(d->n[1], TY);
    unsigned tiles = (unsigned)(hp_ceil_div(d->n[0], TZ) * tiles_x * tiles_y);
    unsigned batch = (unsigned)d->batch;
    hp_code r = hp_launch("peaks clear", clear_counts, 1, hp_threads(batch, 1024), stream,
                          reterr, ret, found, d->batch);

    if (r == HP_OK && tiles > 0)
        r = hp_launch("peaks", find_peaks<T>, dim3(tiles, batch), THREADS, stream, reterr,
                      *d, tiles_x, tiles_y, static_cast<const T *>(hm), found, list, room,
                      ret);
    if (r == HP_OK && tiles > 0)
        r = hp_launch("peaks rank", rank_peaks<T>,
                      dim3((unsigned)hp_ceil_div(room, THREADS), batch), THREADS, stream,
                      reterr, *d, static_cast<const T *>(size),
                      static_cast<const T *>(off), found, list, room, ret);
    return r;
}

} // namespace

size_t hp_decode_workspace(const hp_decode *d)
{
    return counters_bytes(d) +
           (size_t)d->batch * (size_t)list_room(d) * sizeof(unsigned long long);
}

hp_code hp_decode_cuda(const hp_decode *d, hp_dtype type, const void *hm,
                       const void *size, const void *off, hp_decoded *ret,
                       void *workspace, hp_stream stream, hp_error *reterr)
{
    if (d->k < 0 || d->k > HP_DECODE_MAX || !(d->min >= 0) || d->hm_c < 1 ||
        d->size_c < 3 || d->off_c < 3)
        return hp_fail(reterr, HP_E_INVALID, "decoding %d peaks from %g", d->k,
                       (double)d->min);
    if (d->batch > 1024 || (long long)d->n[0] * d->n[1] * d->n[2] > INT32_MAX)
        return hp_fail(reterr, HP_E_INVALID, "decoding: too large");
    if (d->batch == 0)
        return HP_OK;
    return hp_with_type(type, reterr, [&](auto zero) {
        return launch<decltype(zero)>(d, hm, size, off, ret, workspace, stream, reterr);
    });
}
