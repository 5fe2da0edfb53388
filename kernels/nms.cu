/* Suppression by one block: a few hundred boxes are no work for more.
 *
 * A box's place in the order is how many precede it, so nothing is sorted. Then a
 * round for each box kept: the best one still alive is kept, and everybody tests
 * their own boxes against it. A box that falls in a round falls to the first kept
 * box that suppresses it, which is the twin's rule; rounds are at most `keep`.
 * Products are rounded before sums, as in the twin: a threshold must fall alike.
 */
#include "kernels/device.cuh"
#include "kernels/nms.h"

namespace
{

enum { THREADS = 256, OWN = HP_NMS_MAX / THREADS };
static_assert((int)HP_NMS_KEEP <= (int)THREADS, "a thread keeps one box");

__device__ double volume(const hp_box &b)
{
    double v = 1;

    for (int a = 0; a < 3; a++) {
        if (b.hi[a] <= b.lo[a])
            return 0;
        v = __dmul_rn(v, b.hi[a] - b.lo[a]);
    }
    return v;
}

__device__ bool holds_centre(const hp_box &kept, const hp_box &b)
{
    for (int a = 0; a < 3; a++) {
        double c = (b.lo[a] + b.hi[a]) / 2;

        if (c < kept.lo[a] || c >= kept.hi[a])
            return false;
    }
    return true;
}

__device__ bool suppresses(const hp_box &kept, const hp_box &b, double iou)
{
    double vk = volume(kept), vb = volume(b), inter, all;
    hp_box both;

    for (int a = 0; a < 3; a++) {
        both.lo[a] = hp_max(kept.lo[a], b.lo[a]);
        both.hi[a] = hp_min(kept.hi[a], b.hi[a]);
    }
    inter = volume(both);
    all = vk + vb - inter;
    if ((all > 0 ? inter / all : 0) >= iou)
        return true;
    return holds_centre(kept, b) && vk < 2 * vb && vb < 2 * vk;
}

/* Bits that order as the scores do, any score's: a place must exist for all. */
__device__ __forceinline__ unsigned ordered(float score)
{
    unsigned bits = __float_as_uint(score + 0.0f); /* one zero */

    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__global__ void __launch_bounds__(THREADS)
    suppress(hp_scored_box *boxes, int count, double iou, int keep, int *ret_kept)
{
    HP_SHARED(unsigned, score, HP_NMS_MAX);
    HP_SHARED(int, order, HP_NMS_MAX);
    HP_SHARED(int, place, HP_NMS_MAX); /* which box stands there */
    HP_SHARED(unsigned, phases, HP_NMS_KEEP);
    HP_SHARED(int, first, THREADS / 32);
    int t = (int)threadIdx.x, kept = 0, mine = -1;
    unsigned alive = 0; /* places t, t + THREADS, ... */

    for (int i = t; i < count; i += THREADS) {
        score[i] = ordered(boxes[i].score);
        order[i] = boxes[i].order;
    }
    __syncthreads();
    for (int i = t; i < count; i += THREADS) {
        unsigned s = score[i];
        int o = order[i], rank = 0;

        for (int j = 0; j < count; j++) {
            unsigned other = score[j];
            int before = order[j];

            rank += other > s || (other == s && (before < o || (before == o && j < i)));
        }
        place[rank] = i;
    }
    for (int j = 0; j < OWN; j++)
        alive |= t + j * THREADS < count ? 1u << j : 0u;
    __syncthreads();

    while (kept < keep) {
        int best = HP_NMS_MAX;

        for (int j = OWN - 1; j >= 0; j--)
            if (alive >> j & 1u)
                best = t + j * THREADS;
        best = -hp_warp_max(-best);
        if (t % 32 == 0)
            first[t / 32] = best;
        __syncthreads();
        for (int i = 0; i < THREADS / 32; i++)
            best = hp_min(best, (int)first[i]);
        if (best == HP_NMS_MAX)
            break; /* for all threads alike */

        const hp_scored_box &k = boxes[place[best]];

        if (t == kept) {
            mine = place[best];
            phases[kept] = k.phases;
        }
        __syncthreads(); /* phases[kept] stands, first[] has been read */
        for (int j = 0; j < OWN; j++) {
            int at = t + j * THREADS;

            if (!(alive >> j & 1u))
                continue;
            if (at == best) {
                alive &= ~(1u << j);
            } else if (suppresses(k.box, boxes[place[at]].box, iou)) {
                alive &= ~(1u << j);
                hp_shared_or(phases, kept, boxes[place[at]].phases);
            }
        }
        kept++;
    }
    __syncthreads();

    hp_scored_box box = {};

    if (mine >= 0) {
        box = boxes[mine];
        box.phases = phases[t];
    }
    __syncthreads(); /* all are read before the first is written over */
    if (mine >= 0)
        boxes[t] = box;
    if (t == 0)
        *ret_kept = kept;
}

} // namespace

hp_code hp_nms_cuda(hp_scored_box *boxes, int count, double iou, int keep, int *ret_kept,
                    hp_stream stream, hp_error *reterr)
{
    if (count < 0 || count > HP_NMS_MAX || keep < 0 || keep > HP_NMS_KEEP)
        return hp_fail(reterr, HP_E_INVALID, "suppression: %d of %d boxes", keep, count);
    return hp_launch("nms", suppress, 1, THREADS, stream, reterr, boxes, count, iou, keep,
                     ret_kept);
}
