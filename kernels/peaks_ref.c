/* C twin of peak finding. */
#include "kernels/peaks.h"

#include <stdbool.h>
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
