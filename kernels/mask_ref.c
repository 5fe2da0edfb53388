/* C twins of the mask operations. */
#include "kernels/mask.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Flood with an explicit stack: every voxel is pushed once. */
typedef struct flood {
    uint8_t *mask;
    const int *n;
    int *stack;
    size_t top;
} flood;

static void push(flood *f, int z, int y, int x, uint8_t from, uint8_t to)
{
    int at;

    if (z < 0 || z >= f->n[0] || y < 0 || y >= f->n[1] || x < 0 || x >= f->n[2])
        return;
    at = (z * f->n[1] + y) * f->n[2] + x;
    if (f->mask[at] == from) {
        f->mask[at] = to;
        f->stack[f->top++] = at;
    }
}

/* Recolours the 26-connected part of voxel `at`; returns its size. */
static size_t flood_part(flood *f, int at, uint8_t from, uint8_t to)
{
    size_t count = 0;

    f->mask[at] = to;
    f->stack[f->top++] = at;
    while (f->top > 0) {
        int p = f->stack[--f->top];
        int z = p / (f->n[1] * f->n[2]), y = p / f->n[2] % f->n[1], x = p % f->n[2];

        count++;
        for (int k = 0; k < 27; k++)
            push(f, z + k / 9 - 1, y + k / 3 % 3 - 1, x + k % 3 - 1, from, to);
    }
    return count;
}

hp_code hp_mask_largest_ref(uint8_t *mask, const int n[3], size_t *ret_count,
                            hp_error *reterr)
{
    size_t total = (size_t)n[0] * n[1] * n[2], best = 0;
    flood f = {.mask = mask, .n = n, .stack = malloc((total + 1) * sizeof *f.stack)};
    int seed = 0;

    if (f.stack == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "largest component");
    for (size_t i = 0; i < total; i++)
        mask[i] = mask[i] != 0;
    for (size_t i = 0; i < total; i++) {
        size_t count = mask[i] == 1 ? flood_part(&f, (int)i, 1, 2) : 0;

        if (count > best) {
            best = count;
            seed = (int)i;
        }
    }
    if (best > 0)
        flood_part(&f, seed, 2, 3);
    for (size_t i = 0; i < total; i++)
        mask[i] = mask[i] == 3;
    free(f.stack);
    *ret_count = best;
    return HP_OK;
}

static void flood_background(flood *f, int z)
{
    int ny = f->n[1], nx = f->n[2];

    for (int y = 0; y < ny; y++) {
        push(f, z, y, 0, 0, 2);
        push(f, z, y, nx - 1, 0, 2);
    }
    for (int x = 0; x < nx; x++) {
        push(f, z, 0, x, 0, 2);
        push(f, z, ny - 1, x, 0, 2);
    }
    while (f->top > 0) {
        int p = f->stack[--f->top];
        int y = p / nx % ny, x = p % nx;

        push(f, z, y - 1, x, 0, 2);
        push(f, z, y + 1, x, 0, 2);
        push(f, z, y, x - 1, 0, 2);
        push(f, z, y, x + 1, 0, 2);
    }
}

hp_code hp_mask_fill_ref(uint8_t *mask, const int n[3], hp_error *reterr)
{
    size_t plane = (size_t)n[1] * n[2], total = (size_t)n[0] * plane;
    flood f = {.mask = mask, .n = n, .stack = malloc((plane + 1) * sizeof *f.stack)};

    if (f.stack == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "filling holes");
    for (int z = 0; z < n[0]; z++)
        flood_background(&f, z);
    for (size_t i = 0; i < total; i++)
        mask[i] = mask[i] != 2;
    free(f.stack);
    return HP_OK;
}

static bool at_surface(const uint8_t *mask, const int n[3], int z, int y, int x)
{
    size_t row = (size_t)n[2], plane = row * n[1], at = (size_t)z * plane + y * row + x;

    if (z == 0 || z == n[0] - 1 || y == 0 || y == n[1] - 1 || x == 0 || x == n[2] - 1)
        return true;
    return !mask[at - plane] || !mask[at + plane] || !mask[at - row] || !mask[at + row] ||
           !mask[at - 1] || !mask[at + 1];
}

hp_code hp_mask_erode_ref(uint8_t *mask, const int n[3], hp_error *reterr)
{
    size_t total = (size_t)n[0] * n[1] * n[2];
    uint8_t *old = malloc(total + 1);

    if (old == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "eroding");
    memcpy(old, mask, total);
    for (int z = 0; z < n[0]; z++)
        for (int y = 0; y < n[1]; y++)
            for (int x = 0; x < n[2]; x++) {
                size_t at = ((size_t)z * n[1] + y) * n[2] + x;

                if (old[at] && at_surface(old, n, z, y, x))
                    mask[at] = 0;
            }
    free(old);
    return HP_OK;
}

double hp_mask_mean_ref(const int16_t *hu, const uint8_t *mask, size_t n)
{
    int64_t sum = 0, count = 0;

    for (size_t i = 0; i < n; i++)
        if (mask[i]) {
            sum += hu[i];
            count++;
        }
    return count > 0 ? (double)sum / (double)count : NAN;
}

void hp_mask_sums_ref(const int16_t *const hu[HP_MASK_VOLUMES], const int n[3],
                      const hp_mask_part *part, int parts, const uint8_t *masks,
                      hp_mask_sum *ret)
{
    for (int i = 0; i < parts; i++) {
        const hp_mask_part *p = &part[i];

        for (int v = 0; v < HP_MASK_VOLUMES; v++) {
            const uint8_t *mask = masks + p->at;
            hp_mask_sum sum = {0, 0};

            for (int z = p->lo[0]; z < p->hi[0] && hu[v] != NULL; z++)
                for (int y = p->lo[1]; y < p->hi[1]; y++)
                    for (int x = p->lo[2]; x < p->hi[2]; x++)
                        if (*mask++) {
                            sum.hu += hu[v][((size_t)z * n[1] + y) * n[2] + x];
                            sum.count++;
                        }
            ret[(size_t)i * HP_MASK_VOLUMES + v] = sum;
        }
    }
}

double hp_mask_sum_mean(const hp_mask_sum *s)
{
    return s->count > 0 ? (double)s->hu / (double)s->count : NAN;
}
