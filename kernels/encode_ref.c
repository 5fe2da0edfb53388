/* C twin of the encoding. */
#include "kernels/encode.h"

#include <math.h>
#include <string.h>

/* Eight running sums, so that the compiler may use vectors without being allowed
 * to reorder: the order is written here. */
static float distance2(const float *x, const float *c, int d)
{
    float lane[8] = {0}, sum = 0;
    int i = 0;

    for (; i + 8 <= d; i += 8)
        for (int k = 0; k < 8; k++)
            lane[k] += (x[i + k] - c[i + k]) * (x[i + k] - c[i + k]);
    for (; i < d; i++)
        lane[0] += (x[i] - c[i]) * (x[i] - c[i]);
    for (int k = 0; k < 8; k++)
        sum += lane[k];
    return sum;
}

void hp_encode_assign_ref(const float *x, const float *codewords, const float *scale,
                          int m, int d, int k, float *ret)
{
#pragma omp parallel for schedule(static)
    for (int i = 0; i < m; i++) {
        float *a = ret + (size_t)i * k, max = -INFINITY, sum = 0;

        for (int j = 0; j < k; j++) {
            a[j] = -scale[j] * distance2(x + (size_t)i * d, codewords + (size_t)j * d, d);
            max = fmaxf(max, a[j]);
        }
        for (int j = 0; j < k; j++)
            sum += a[j] = expf(a[j] - max);
        for (int j = 0; j < k; j++)
            a[j] /= sum;
    }
}

void hp_encode_sum_ref(const float *x, const float *assign, const float *delta,
                       const float *codewords, int m, int d, int k, float *ret)
{
    memset(ret, 0, (size_t)k * d * sizeof *ret);
    for (int i = 0; i < m; i++) {
        if (!(delta[i] > 0.5f))
            continue;
        for (int j = 0; j < k; j++) {
            float a = assign[(size_t)i * k + j];

            for (int c = 0; c < d; c++)
                ret[(size_t)j * d + c] +=
                    a * (x[(size_t)i * d + c] - codewords[(size_t)j * d + c]);
        }
    }
}

void hp_l2_norm_ref(float *v, int n)
{
    double sum = 0;
    float norm;

    for (int i = 0; i < n; i++)
        sum += (double)v[i] * v[i];
    norm = (float)fmax(sqrt(sum), 1e-12);
    for (int i = 0; i < n; i++)
        v[i] /= norm;
}

/* How many of the pixel centres of cell i (i*cell + .5 ...) lie in [lo, hi). */
static int pixels_inside(double lo, double hi, int i, int cell)
{
    int count = 0;

    for (int p = i * cell; p < (i + 1) * cell; p++)
        count += p + 0.5 >= lo && p + 0.5 < hi;
    return count;
}

static int cell_of(double centre, int cell, int n)
{
    int i = (int)floor(centre / cell);

    return i < 0 ? 0 : i >= n ? n - 1 : i;
}

void hp_grid_mask_ref(const double rect[4], int ny, int nx, int cell, float *ret)
{
    int any = 0;

    for (int y = 0; y < ny; y++)
        for (int x = 0; x < nx; x++) {
            int in = pixels_inside(rect[0], rect[2], y, cell) *
                     pixels_inside(rect[1], rect[3], x, cell);

            ret[(size_t)y * nx + x] = 2 * in >= cell * cell;
            any |= 2 * in >= cell * cell;
        }
    if (!any)
        ret[(size_t)cell_of((rect[0] + rect[2]) / 2, cell, ny) * nx +
            cell_of((rect[1] + rect[3]) / 2, cell, nx)] = 1;
}
