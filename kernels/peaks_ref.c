/* C twin of peak finding. */
#include "kernels/peaks.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool is_peak(const float *heat, const int n[3], int z, int y, int x)
{
    int at = (z * n[1] + y) * n[2] + x;

    for (int dz = -1; dz <= 1; dz++)
        for (int dy = -1; dy <= 1; dy++)
            for (int dx = -1; dx <= 1; dx++) {
                int other = at + (dz * n[1] + dy) * n[2] + dx;

                if (z + dz < 0 || z + dz >= n[0] || y + dy < 0 || y + dy >= n[1] ||
                    x + dx < 0 || x + dx >= n[2] || other == at)
                    continue;
                if (heat[other] > heat[at] || (heat[other] == heat[at] && other < at))
                    return false;
            }
    return true;
}

/* Keeps ret[0..count) sorted, best first; scanning by index keeps ties stable. */
static int insert(hp_peak *ret, int count, int k, hp_peak p)
{
    int at = count;

    while (at > 0 && ret[at - 1].score < p.score)
        at--;
    if (at >= k)
        return count;
    if (count == k)
        count--;
    memmove(ret + at + 1, ret + at, (size_t)(count - at) * sizeof *ret);
    ret[at] = p;
    return count + 1;
}

int hp_peaks_ref(const float *heat, const int n[3], float min, hp_peak *ret, int k)
{
    int count = 0;

    for (int z = 0; z < n[0]; z++)
        for (int y = 0; y < n[1]; y++)
            for (int x = 0; x < n[2]; x++) {
                int at = (z * n[1] + y) * n[2] + x;

                if (heat[at] >= min && is_peak(heat, n, z, y, x))
                    count = insert(ret, count, k, (hp_peak){heat[at], at});
            }
    return count;
}

/* --- decoding ---------------------------------------------------------- */

static hp_box_peak box_peak(const hp_decode *d, hp_peak p, const float *size,
                            const float *off, int *bad)
{
    hp_box_peak b = {.score = p.score, .index = p.index};
    int at[3] = {p.index / (d->n[1] * d->n[2]), p.index / d->n[2] % d->n[1],
                 p.index % d->n[2]};

    for (int a = 0; a < 3; a++) {
        float s = size[(size_t)p.index * d->size_c + a];
        float o = off[(size_t)p.index * d->off_c + a];

        *bad |= !isfinite(s) || !isfinite(o);
        b.centre[a] = (float)at[a] + o;
        b.size[a] = fmaxf(s, 0.1f);
    }
    return b;
}

hp_code hp_decode_ref(const hp_decode *d, const float *hm, const float *size,
                      const float *off, hp_decoded *ret, hp_error *reterr)
{
    size_t cells = (size_t)d->n[0] * d->n[1] * d->n[2];
    float *heat = malloc((cells + 1) * sizeof *heat);
    hp_peak peak[HP_DECODE_MAX];

    if (heat == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "heat map");
    for (int b = 0; b < d->batch; b++) {
        const float *logit = hm + (size_t)b * cells * d->hm_c;

        ret[b].bad = 0;
        for (size_t i = 0; i < cells; i++) {
            float v = logit[i * d->hm_c], p = 1.0f / (1.0f + expf(-v));

            ret[b].bad |= !isfinite(v);
            heat[i] = fminf(fmaxf(p, 1e-4f), 1 - 1e-4f);
        }
        ret[b].count = hp_peaks_ref(heat, d->n, d->min, peak, d->k);
        for (int i = 0; i < ret[b].count; i++)
            ret[b].peak[i] = box_peak(d, peak[i], size + (size_t)b * cells * d->size_c,
                                      off + (size_t)b * cells * d->off_c, &ret[b].bad);
    }
    free(heat);
    return HP_OK;
}
