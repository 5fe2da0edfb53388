/* Renders a phase on a grid: sub-samples of each voxel's box, then the
 * scanner's kernel in plane, streaks, and noise that belongs to the lattice of
 * the native grid, so that a crop of it looks like the whole. */
#include <stdlib.h>
#include <string.h>

#include "tests/phantom/phantom_internal.h"

enum { HALO = 3, TAPS = 2 * HALO + 1 };

typedef struct plan {
    const hp_phantom *p;
    int phase;
    double o[3]; /* body coordinates of voxel 0's centre */
    double s[3]; /* spacing x, y, z */
    int n[3];    /* x, y, z */
    int sub[3];
    int halo;
    int64_t key[3]; /* native index of voxel 0 */
    float sharp;    /* amount of kernel, 0: none */
    float ktap[TAPS], ntap[TAPS];
    float sd;
} plan;

static int ceil_div(double v, double step)
{
    int n = (int)(v / step + .999);
    return n < 1 ? 1 : n > 8 ? 8 : n;
}

/* Gaussian taps; sum 1, or sum of squares 1 (which keeps the sd of noise). */
static void taps(float *t, double sigma, bool unit_power)
{
    double v[TAPS], sum = 0;
    for (int k = 0; k < TAPS; k++) {
        double x = k - HALO;
        v[k] = sigma < .05 ? (x == 0) : num_exp(-x * x / (2 * sigma * sigma));
        sum += unit_power ? v[k] * v[k] : v[k];
    }
    if (unit_power)
        sum = sqrt(sum);
    for (int k = 0; k < TAPS; k++)
        t[k] = (float)(v[k] / sum);
}

static double nearest(double v)
{
    return floor(v + .5);
}

static void make_plan(plan *pl, const hp_phantom *p, int phase, const hp_geom *g)
{
    const hp_geom *nat = &p->grid[phase];
    pl->p = p;
    pl->phase = phase;
    bool native = true;
    for (int c = 0; c < 3; c++) {
        int k = 2 - c; /* HP_X is 2 */
        pl->n[c] = g->n[k];
        pl->s[c] = g->spacing_mm[k];
        pl->o[c] = g->origin_mm[c] - p->frame_mm[c];
        double off = (g->origin_mm[c] - nat->origin_mm[c]) / nat->spacing_mm[k];
        pl->key[c] = (int64_t)nearest(off);
        native = native && fabs(g->spacing_mm[k] - nat->spacing_mm[k]) < 1e-6 &&
                 fabs(off - nearest(off)) < 1e-3;
    }
    pl->sub[0] = ceil_div(pl->s[0], 1.7);
    pl->sub[1] = ceil_div(pl->s[1], 1.7);
    pl->sub[2] = ceil_div(pl->s[2], 2.6);
    double fwhm = p->truth.noise_fwhm_mm[phase], sigma = fwhm / 2.3548;
    double f = 1;
    if (!native) { /* averaging over a bigger voxel: a Gaussian field under a box of
                      variance s^2/12 */
        for (int c = 0; c < 2; c++) {
            double t0 = nat->spacing_mm[2 - c] * nat->spacing_mm[2 - c] / 12,
                   t1 = pl->s[c] * pl->s[c] / 12, v = sigma * sigma;
            f *= sqrt(sqrt((v + t0) / (v + (t1 > t0 ? t1 : t0))));
        }
        double tz = nat->spacing_mm[HP_Z];
        f *= sqrt(tz / (pl->s[2] > tz ? pl->s[2] : tz));
    }
    pl->sd = (float)(p->noise_sd[phase] * f);
    taps(pl->ntap, sigma / pl->s[0], true);
    pl->sharp = pl->s[0] < 1.2 && pl->s[1] < 1.2 ? (float)p->sharp[phase] : 0;
    taps(pl->ktap, .95 / pl->s[0], false);
    pl->halo = HALO;
}

/* One row of the plane (y index `iy`, halo included), box means. */
static void sample_row(const plan *pl, hp_row *r, int iz, int iy, int wide, float *out)
{
    const int sx = pl->sub[0], sy = pl->sub[1], sz = pl->sub[2];
    const double dx = pl->s[0] / sx;
    const float w =
        (float)(pl->s[0] / sx > .95 ? pl->s[0] / sx : .95) + .5f * (float)(pl->s[2] / sz);
    const float share = 1.f / (float)(sx * sy * sz);
    const int chunk = HP_ROW_MAX / sx;
    for (int i = 0; i < wide; i++)
        out[i] = 0;
    for (int x = 0; x < wide; x += chunk) {
        int m = wide - x < chunk ? wide - x : chunk;
        for (int kz = 0; kz < sz; kz++)
            for (int ky = 0; ky < sy; ky++) {
                r->n = m * sx;
                r->dx = (float)dx;
                r->x0 =
                    (float)(pl->o[0] + (x - pl->halo) * pl->s[0] + (.5 - .5 * sx) * dx);
                r->y =
                    (float)(pl->o[1] + iy * pl->s[1] + ((ky + .5) / sy - .5) * pl->s[1]);
                r->z =
                    (float)(pl->o[2] + iz * pl->s[2] + ((kz + .5) / sz - .5) * pl->s[2]);
                r->w = w;
                hp_ph__paint_row(pl->p, pl->phase, r);
                for (int i = 0; i < m; i++)
                    for (int k = 0; k < sx; k++)
                        out[x + i] += r->hu[i * sx + k] * share;
            }
    }
}

/* Separable filter of a plane with halo; `tmp` is as large. The rim of HALO
 * pixels keeps its values. */
static void filter(float *v, float *tmp, int nx, int ny, const float *t)
{
    memcpy(tmp, v, sizeof(*v) * (size_t)nx * (size_t)ny);
    for (int y = 0; y < ny; y++) {
        const float *s = v + (size_t)y * (size_t)nx;
        float *d = tmp + (size_t)y * (size_t)nx;
        for (int x = HALO; x < nx - HALO; x++)
            d[x] = t[0] * (s[x - 3] + s[x + 3]) + t[1] * (s[x - 2] + s[x + 2]) +
                   t[2] * (s[x - 1] + s[x + 1]) + t[3] * s[x];
    }
    for (int y = HALO; y < ny - HALO; y++) {
        const float *s = tmp + (size_t)y * (size_t)nx;
        float *d = v + (size_t)y * (size_t)nx;
        const ptrdiff_t n = nx;
        for (int x = HALO; x < nx - HALO; x++)
            d[x] = t[0] * (s[x - 3 * n] + s[x + 3 * n]) +
                   t[1] * (s[x - 2 * n] + s[x + 2 * n]) + t[2] * (s[x - n] + s[x + n]) +
                   t[3] * s[x];
    }
}

static void white_noise(const plan *pl, int iz, float *v, int nx, int ny)
{
    const uint64_t base = num_hash(pl->p->opt.seed * 7 + (uint64_t)pl->phase) ^
                          num_hash((uint64_t)(pl->key[2] + iz) * 0x9e3779b97f4a7c15u);
    const float scale = 1 / 37837.f; /* sd of the sum of four 16-bit uniforms */
    for (int y = 0; y < ny; y++) {
        uint64_t row = num_hash(base + (uint64_t)(pl->key[1] + y + 0x10000));
        float *d = v + (size_t)y * (size_t)nx;
        for (int x = 0; x < nx; x++) {
            uint64_t h = row + (uint64_t)(pl->key[0] + x + 0x10000) * 0x9e3779b97f4a7c15u;
            h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
            h ^= h >> 29;
            d[x] = ((float)((h & 0xffff) + (h >> 16 & 0xffff) + (h >> 32 & 0xffff) +
                            (h >> 48)) -
                    131070.f) *
                   scale;
        }
    }
}

static float streaks(const hp_phantom *p, float x, float y, float z)
{
    float s = 0;
    for (int k = 0; k < 3; k++) {
        float t = (float)(x * p->streak_dir[k][0] + y * p->streak_dir[k][1]);
        s += hp_ph__tile(p->tile_u, t * .5f, z * .25f, 9.f * (float)k);
    }
    return s * (float)p->streak_hu * .6f;
}

struct work {
    hp_row *r;
    float *plane, *noise, *tmp;
};

static void free_work(struct work *w)
{
    free(w->r);
    free(w->plane);
    free(w->noise);
    free(w->tmp);
}

static bool make_work(struct work *w, size_t px)
{
    w->r = malloc(sizeof(*w->r));
    w->plane = malloc(px * sizeof(float));
    w->noise = malloc(px * sizeof(float));
    w->tmp = malloc(px * sizeof(float));
    return w->r && w->plane && w->noise && w->tmp;
}

/* One slice, ready in w->plane (with halo). */
static void render_slice(const plan *pl, struct work *w, int iz, bool noisy)
{
    const int nx = pl->n[0] + 2 * HALO, ny = pl->n[1] + 2 * HALO;
    const hp_phantom *p = pl->p;
    for (int y = 0; y < ny; y++)
        sample_row(pl, w->r, iz, y - HALO, nx, w->plane + (size_t)y * (size_t)nx);
    if (pl->sharp != 0) {
        memcpy(w->noise, w->plane, sizeof(float) * (size_t)nx * (size_t)ny);
        filter(w->noise, w->tmp, nx, ny, pl->ktap);
        const float k = pl->sharp > 0 ? .45f * pl->sharp : .8f * pl->sharp;
        for (size_t i = 0; i < (size_t)nx * (size_t)ny; i++)
            w->plane[i] += k * (w->plane[i] - w->noise[i]);
    }
    if (!noisy)
        return;
    white_noise(pl, iz, w->noise, nx, ny);
    filter(w->noise, w->tmp, nx, ny, pl->ntap);
    const float ia = 1 / p->a, ib = 1 / p->b, cup = (float)p->cup_hu;
    const float z = (float)(pl->o[2] + iz * pl->s[2]);
    for (int y = HALO; y < ny - HALO; y++) {
        float *d = w->plane + (size_t)y * (size_t)nx;
        const float *s = w->noise + (size_t)y * (size_t)nx;
        float fy = (float)(pl->o[1] + (y - HALO) * pl->s[1]), v = fy * ib;
        for (int x = HALO; x < nx - HALO; x++) {
            float fx = (float)(pl->o[0] + (x - HALO) * pl->s[0]), u = fx * ia;
            float c = 1 - (u * u + v * v);
            c = c > 0 ? c : 0;
            d[x] += s[x] * pl->sd * (1 + .3f * c) + cup * c;
            if (p->streak_hu > 0 && c > 0)
                d[x] += streaks(p, fx, fy, z);
        }
    }
}

static hp_code check(const hp_geom *g, int phase, hp_error *reterr)
{
    if (phase < 0 || phase >= HP_PHASES)
        return hp_fail(reterr, HP_E_INVALID, "phantom: no phase %d", phase);
    for (int k = 0; k < 3; k++)
        if (g->n[k] < 1 || !(g->spacing_mm[k] > 0) || fabs(g->axis[k][2 - k] - 1) > 1e-6)
            return hp_fail(reterr, HP_E_UNSUPPORTED, "phantom: the grid is not axial");
    return HP_OK;
}

static hp_code render(const hp_phantom *p, int phase, const hp_geom *g, int16_t *hu,
                      float *clean, hp_error *reterr)
{
    hp_code rc = check(g, phase, reterr);
    if (rc != HP_OK)
        return rc;
    plan pl;
    struct work w;
    make_plan(&pl, p, phase, g);
    const int nx = pl.n[0] + 2 * HALO, ny = pl.n[1] + 2 * HALO;
    if (!make_work(&w, (size_t)nx * (size_t)ny)) {
        free_work(&w);
        return hp_fail(reterr, HP_E_NO_MEMORY, "rendering the phantom");
    }
    for (int z = 0; z < pl.n[2]; z++) {
        render_slice(&pl, &w, z, hu != NULL);
        for (int y = 0; y < pl.n[1]; y++) {
            const float *s = w.plane + (size_t)(y + HALO) * (size_t)nx + HALO;
            size_t at = ((size_t)z * (size_t)pl.n[1] + (size_t)y) * (size_t)pl.n[0];
            for (int x = 0; x < pl.n[0]; x++) {
                float v = s[x];
                if (hu) {
                    v = v < -1024 ? -1024 : v > 3071 ? 3071 : v;
                    hu[at + (size_t)x] = (int16_t)((int)(v + 2048.5f) - 2048);
                } else {
                    clean[at + (size_t)x] = v;
                }
            }
        }
    }
    free_work(&w);
    return HP_OK;
}

hp_code hp_phantom_render(const hp_phantom *p, int phase, const hp_geom *g, int16_t *hu,
                          hp_error *reterr)
{
    return render(p, phase, g, hu, NULL, reterr);
}

hp_code hp_phantom_render_clean(const hp_phantom *p, int phase, const hp_geom *g,
                                float *hu, hp_error *reterr)
{
    return render(p, phase, g, NULL, hu, reterr);
}
