/* Shapes: noise tiles, the lattice from image to rest coordinates, and signed
 * distances along a row. */
#include <stdlib.h>
#include <string.h>

#include "tests/phantom/phantom_internal.h"

/* ---- noise ---- */

static void blur_axis(float *v, float *tmp, size_t stride, const float *k, int h)
{
    float line[HP_TILE];
    for (size_t base = 0; base < HP_TILE_N; base++) {
        if ((base / stride) % HP_TILE)
            continue;
        for (int i = 0; i < HP_TILE; i++)
            line[i] = v[base + (size_t)i * stride];
        for (int i = 0; i < HP_TILE; i++) {
            float s = 0;
            for (int j = -h; j <= h; j++)
                s += k[j + h] * line[(i + j) & (HP_TILE - 1)];
            tmp[base + (size_t)i * stride] = s;
        }
    }
    memcpy(v, tmp, HP_TILE_N * sizeof(*v));
}

/* White noise, Gaussian filter of HP_TILE_SIGMA cells, unit variance after
 * the trilinear reading (which takes a few per cent away). */
void hp_ph__make_tile(uint64_t seed, float *tile)
{
    enum { H = 5 };
    float k[2 * H + 1];
    float *tmp = malloc(HP_TILE_N * sizeof(*tmp));
    if (!tmp)
        return;
    for (int j = -H; j <= H; j++)
        k[j + H] = (float)num_exp(-j * j / (2 * HP_TILE_SIGMA * HP_TILE_SIGMA));
    for (size_t i = 0; i < HP_TILE_N; i++) {
        uint64_t h = num_hash(seed + i * 0x9e3779b97f4a7c15u);
        tile[i] = (float)(int)((h & 0xffff) + (h >> 16 & 0xffff) + (h >> 32 & 0xffff) +
                               (h >> 48)) -
                  131070;
    }
    blur_axis(tile, tmp, 1, k, H);
    blur_axis(tile, tmp, HP_TILE, k, H);
    blur_axis(tile, tmp, (size_t)HP_TILE * HP_TILE, k, H);
    double s = 0, q = 0;
    for (size_t i = 0; i < HP_TILE_N; i++) {
        s += tile[i];
        q += (double)tile[i] * tile[i];
    }
    s /= (double)HP_TILE_N;
    double g =
        1.06 / sqrt(q / (double)HP_TILE_N - s * s); /* 1.06: reading between cells */
    for (size_t i = 0; i < HP_TILE_N; i++)
        tile[i] = (float)((tile[i] - s) * g);
    free(tmp);
}

float hp_ph__tile(const float *t, float x, float y, float z)
{
    float fx = x + 65536, fy = y + 65536,
          fz = z + 65536; /* positive, so that (int) floors */
    int ix = (int)fx, iy = (int)fy, iz = (int)fz;
    fx -= (float)ix;
    fy -= (float)iy;
    fz -= (float)iz;
    enum { M = HP_TILE - 1 };
    const int x0 = ix & M, x1 = (ix + 1) & M;
    const float *p00 = t + ((iz & M) * HP_TILE + (iy & M)) * HP_TILE;
    const float *p01 = t + ((iz & M) * HP_TILE + ((iy + 1) & M)) * HP_TILE;
    const float *p10 = t + (((iz + 1) & M) * HP_TILE + (iy & M)) * HP_TILE;
    const float *p11 = t + (((iz + 1) & M) * HP_TILE + ((iy + 1) & M)) * HP_TILE;
    float a = p00[x0] + fx * (p00[x1] - p00[x0]);
    float b = p01[x0] + fx * (p01[x1] - p01[x0]);
    float c = p10[x0] + fx * (p10[x1] - p10[x0]);
    float d = p11[x0] + fx * (p11[x1] - p11[x0]);
    a += fy * (b - a);
    c += fy * (d - c);
    return a + fz * (c - a);
}

/* ---- image to rest ---- */

/* Breathing of `phase` at an image point: rest-side offset b(p). Largest under
 * the dome, dying out downwards and towards the wall, so that nothing tears. */
void hp_ph__breath(const hp_phantom *p, int phase, const double img[3], double ret[3])
{
    ret[0] = ret[1] = ret[2] = 0;
    if (phase == HP_PHASE_V || p->opt.motion_mm <= 0)
        return;
    num_rng r = num_stream(p->opt.seed, 900 + (uint64_t)phase);
    double size = num_in(&r, .45, 1),
           amp = p->opt.motion_mm * (num_chance(&r, .5) ? size : -size);
    double off = num_in(&r, 0, 64), ap = num_in(&r, -.35, .35);
    double u = img[0] / p->ai, v = (img[1] - p->yi) / p->bi;
    double wall = num_clamp((1 - sqrt(u * u + v * v)) * p->ai / 22, 0, 1);
    double down =
        num_clamp((img[2] + 330) / 330, 0, 1) * num_clamp((260 - img[2]) / 200, 0, 1);
    double f = wall * wall * (3 - 2 * wall) * (.35 + .65 * down);
    float s = 1.5f / 60, x = (float)img[0] * s, y = (float)img[1] * s,
          z = (float)img[2] * s;
    double rough = .22 * p->opt.motion_mm;
    ret[0] = f * rough * hp_ph__tile(p->tile_u, x + (float)off, y, z);
    ret[1] = f * (rough * hp_ph__tile(p->tile_u, x, y + (float)off, z + 20) + ap * amp);
    ret[2] = f * (rough * hp_ph__tile(p->tile_u, x, y + 20, z + (float)off) + amp);
}

static void warp(const hp_phantom *p, const double at[3], double ret[3])
{
    /* Tile sigma is 1.5 cells; 60 mm knots behave like a sigma of about 35 mm. */
    float s = 1.5f / 35, x = (float)at[0] * s, y = (float)at[1] * s, z = (float)at[2] * s;
    for (int c = 0; c < 3; c++) {
        double w = 6.5 * hp_ph__tile(p->tile_t, x + 17.3f * (float)c, y + 9.1f * (float)c,
                                     z + 5.7f);
        ret[c] = num_clamp(w, -20, 20);
    }
}

void hp_ph__make_lattice(hp_phantom *p)
{
    for (int ph = 0; ph < HP_PHASES; ph++) {
        float *l = p->lat[ph];
        float m = 0;
        size_t k = 0;
        for (int iz = 0; iz < HP_LAT_Z; iz++)
            for (int iy = 0; iy < HP_LAT_Y; iy++)
                for (int ix = 0; ix < HP_LAT_X; ix++) {
                    double at[3] = {HP_LAT_X0 + ix * HP_LAT_MM,
                                    HP_LAT_Y0 + iy * HP_LAT_MM,
                                    HP_LAT_Z0 + iz * HP_LAT_MM};
                    double br[3], w[3], q[3];
                    hp_ph__breath(p, ph, at, br);
                    for (int c = 0; c < 3; c++)
                        q[c] = at[c] + br[c];
                    warp(p, q, w);
                    for (int c = 0; c < 3; c++) {
                        float v = (float)(br[c] + w[c]);
                        l[k++] = v;
                        if (fabsf(v) > m)
                            m = fabsf(v);
                    }
                }
        p->lat_max[ph] = m;
    }
}

/* Lattice line along x at (y, z). */
static void lattice_line(const float *l, float y, float z, float line[HP_LAT_X][3])
{
    float fy = (y - (float)HP_LAT_Y0) / (float)HP_LAT_MM,
          fz = (z - (float)HP_LAT_Z0) / (float)HP_LAT_MM;
    fy = fy < 0 ? 0 : fy > HP_LAT_Y - 1.001f ? HP_LAT_Y - 1.001f : fy;
    fz = fz < 0 ? 0 : fz > HP_LAT_Z - 1.001f ? HP_LAT_Z - 1.001f : fz;
    int iy = (int)fy, iz = (int)fz;
    fy -= (float)iy;
    fz -= (float)iz;
    const float *a = l + ((size_t)iz * HP_LAT_Y + (size_t)iy) * HP_LAT_X * 3;
    const float *b = a + HP_LAT_X * 3;
    const float *c = a + (size_t)HP_LAT_Y * HP_LAT_X * 3;
    const float *d = c + HP_LAT_X * 3;
    float *o = &line[0][0];
    for (int i = 0; i < HP_LAT_X * 3; i++) {
        float u = a[i] + fy * (b[i] - a[i]), v = c[i] + fy * (d[i] - c[i]);
        o[i] = u + fz * (v - u);
    }
}

void hp_ph__rest(const hp_phantom *p, int phase, const double img[3], double ret[3])
{
    float line[HP_LAT_X][3];
    lattice_line(p->lat[phase], (float)img[1], (float)img[2], line);
    double fx = num_clamp((img[0] - HP_LAT_X0) / HP_LAT_MM, 0, HP_LAT_X - 1.001);
    int ix = (int)fx;
    fx -= ix;
    for (int c = 0; c < 3; c++)
        ret[c] = img[c] + line[ix][c] + fx * (line[ix + 1][c] - line[ix][c]);
}

/* ---- rows ---- */

static inline float sqf(float v)
{
    return v * v;
}

static inline float smin(float a, float b, float k)
{
    float h = k - fabsf(a - b);
    h = h > 0 ? h : 0;
    return (a < b ? a : b) - h * h / (4 * k);
}

static inline float smax(float a, float b, float k)
{
    return -smin(-a, -b, k);
}

/* First-order distance to the squircle u^2 + v^2 - c u^2 v^2 = 1. */
void hp_ph__squircle(const hp_row *r, float a, float b, float c, float cy, float *d)
{
    float v = (r->y - cy) / b, v2 = v * v;
    float k = 1 - c * v2, ia = 1 / a, ib = 1 / b;
    for (int i = 0; i < r->n; i++) {
        float u = r->x[i] * ia, u2 = u * u;
        u2 = u2 < 1.8f ? u2 : 1.8f;
        float f = v2 + u2 * k - 1;
        float gx = 2 * u * k * ia, gy = 2 * v * (1 - c * u2) * ib;
        d[i] = f / sqrtf(gx * gx + gy * gy + 1e-7f);
    }
}

static void domes(const hp_phantom *p, hp_row *r)
{
    for (int k = 0; k < 3; k++) {
        const hp_ell *e = &p->dome[k];
        const float s[3] = {e->m[0], e->m[4], e->m[8]};
        for (int i = r->i0; i < r->i1; i++) {
            float ux = (r->px[i] - e->c[0]) * s[0], uy = (r->py[i] - e->c[1]) * s[1];
            float uz = (r->pz[i] - e->c[2]) * s[2];
            float below = uz < 0 ? uz * e->rmin : 0;
            uz = uz > 0
                     ? uz
                     : 0; /* a widening cylinder below the equator: no lung down there */
            float q = sqrtf(ux * ux + uy * uy + uz * uz) + 1e-4f;
            float g = sqrtf(sqf(ux * s[0]) + sqf(uy * s[1]) + sqf(uz * s[2])) + 1e-6f;
            float d = (q - 1) * q / g + .5f * below;
            r->ddia[i] = k ? smin(r->ddia[i], d, 30) : d;
        }
    }
}

static void range(const float *v, int i0, int i1, float *lo, float *hi)
{
    float a = 1e9f, b = -1e9f;
    for (int i = i0; i < i1; i++) {
        a = v[i] < a ? v[i] : a;
        b = v[i] > b ? v[i] : b;
    }
    *lo = a;
    *hi = b;
}

void hp_ph__row_rest(hp_row *r)
{
    for (int i = 0; i < r->n; i++) {
        r->x[i] = r->x0 + r->dx * (float)i;
        r->px[i] = r->x[i];
        r->py[i] = r->y;
        r->pz[i] = r->z;
    }
    r->py0 = r->py1 = r->y;
    r->pz0 = r->pz1 = r->z;
}

void hp_ph__row_begin(const hp_phantom *p, int phase, hp_row *r)
{
    hp_ph__row_rest(r);
    r->i0 = r->i1 = 0;
    if (r->y < p->yi - p->bi - 4 || r->y > p->yi + p->bi + 4)
        return;
    hp_ph__squircle(r, p->ai, p->bi, p->ci, p->yi, r->din);
    int i0 = (int)((-p->ai - 4 - r->x0) / r->dx),
        i1 = (int)((p->ai + 4 - r->x0) / r->dx) + 2;
    r->i0 = i0 < 0 ? 0 : i0 > r->n ? r->n : i0;
    r->i1 = i1 < 0 ? 0 : i1 > r->n ? r->n : i1;
    if (r->i0 >= r->i1)
        return;
    if (phase >= 0) {
        float line[HP_LAT_X][3];
        lattice_line(p->lat[phase], r->y, r->z, line);
        for (int i = r->i0; i < r->i1; i++) {
            float f = (r->x[i] - (float)HP_LAT_X0) * (1 / (float)HP_LAT_MM);
            f = f < 0 ? 0 : f > HP_LAT_X - 1.001f ? HP_LAT_X - 1.001f : f;
            int k = (int)f;
            f -= (float)k;
            r->px[i] += line[k][0] + f * (line[k + 1][0] - line[k][0]);
            r->py[i] += line[k][1] + f * (line[k + 1][1] - line[k][1]);
            r->pz[i] += line[k][2] + f * (line[k + 1][2] - line[k][2]);
        }
        range(r->py, r->i0, r->i1, &r->py0, &r->py1);
        range(r->pz, r->i0, r->i1, &r->pz0, &r->pz1);
    }
    domes(p, r);
}

/* Distance to an ellipsoid over the span where its box (and `margin`) reaches.
 * Outside [*i0, *i1) nothing is written. */
bool hp_ph__row_ell(const hp_ell *e, const hp_row *r, float margin, float *d, int *i0,
                    int *i1)
{
    if (r->py1 < e->c[1] - e->ext[1] - margin || r->py0 > e->c[1] + e->ext[1] + margin ||
        r->pz1 < e->c[2] - e->ext[2] - margin || r->pz0 > e->c[2] + e->ext[2] + margin)
        return false;
    int a = r->i0, b = r->i1;
    const float lo = e->c[0] - e->ext[0] - margin, hi = e->c[0] + e->ext[0] + margin;
    /* The warp moves at most 26 mm or so: jump near, then walk. */
    int ja = (int)((lo - 30 - r->x0) / r->dx), jb = (int)((hi + 30 - r->x0) / r->dx) + 2;
    a = ja > a ? ja : a;
    b = jb < b ? jb : b;
    while (a < b && r->px[a] < lo)
        a++;
    while (b > a && r->px[b - 1] > hi)
        b--;
    if (a >= b)
        return false;
    const float *m = e->m;
    for (int i = a; i < b; i++) {
        float x = r->px[i] - e->c[0], y = r->py[i] - e->c[1], z = r->pz[i] - e->c[2];
        float u = m[0] * x + m[1] * y + m[2] * z;
        float v = m[3] * x + m[4] * y + m[5] * z;
        float w = m[6] * x + m[7] * y + m[8] * z;
        float k = u * u + v * v + w * w;
        float gx = m[0] * u + m[3] * v + m[6] * w;
        float gy = m[1] * u + m[4] * v + m[7] * w;
        float gz = m[2] * u + m[5] * v + m[8] * w;
        float g = sqrtf((gx * gx + gy * gy + gz * gz) / (k + 1e-6f)) + 1e-6f;
        d[i] = (sqrtf(k) - 1) / g;
    }
    *i0 = a;
    *i1 = b;
    return true;
}

bool hp_ph__row_lesion(const hp_phantom *p, int li, const hp_row *r, float margin,
                       float *d, int *i0, int *i1)
{
    const hp_ph_lesion *l = &p->les[li];
    if (!hp_ph__row_ell(&l->e, r, margin + 1 + l->lobulation * 2.2f * l->r, d, i0, i1))
        return false;
    if (l->lobulation > 0) {
        float s = l->lob_cell, near = l->lobulation * l->r * 3 + margin;
        for (int i = *i0; i < *i1; i++) {
            if (fabsf(d[i]) > near)
                continue;
            float n =
                hp_ph__tile(p->tile_u, r->px[i] * s + l->lob_off[0],
                            r->py[i] * s + l->lob_off[1], r->pz[i] * s + l->lob_off[2]);
            n = n > 2 ? 2 : n < -2 ? -2 : n;
            d[i] += l->lobulation * l->r * n;
        }
    }
    if (l->cone_cos > 0) /* a wedge: what of the ball lies in the cone from its apex */
        for (int i = *i0; i < *i1; i++) {
            float x = r->px[i] - l->e.c[0] + l->cone_dir[0] * l->r;
            float y = r->py[i] - l->e.c[1] + l->cone_dir[1] * l->r;
            float z = r->pz[i] - l->e.c[2] + l->cone_dir[2] * l->r;
            float q = sqrtf(x * x + y * y + z * z) + 1e-4f;
            float c = (x * l->cone_dir[0] + y * l->cone_dir[1] + z * l->cone_dir[2]) / q;
            float w = (l->cone_cos - c) * q;
            d[i] = d[i] > w ? d[i] : w;
        }
    return true;
}

/* Liver: lobes joined smoothly, cut by hilum, wall, diaphragm, kidney, spine;
 * the surface is uneven; lesions push it outwards but not through the wall. */
bool hp_ph__row_liver(const hp_phantom *p, hp_row *r, bool with_lesions)
{
    bool any = false;
    int a, b, lo = r->i1, hi = r->i0;
    for (int i = r->i0; i < r->i1; i++)
        r->dliv[i] = 40;
    for (int k = 0; k < 4; k++) {
        if (!hp_ph__row_ell(&p->lobe[k], r, 24, r->t1, &a, &b))
            continue;
        for (int i = a; i < b; i++)
            r->dliv[i] = smin(r->dliv[i], r->t1[i], 16);
        any = true;
        lo = a < lo ? a : lo;
        hi = b > hi ? b : hi;
    }
    for (int k = 0; any && k < 2; k++)
        if (hp_ph__row_ell(&p->cut[k], r, 12, r->t1, &a, &b))
            for (int i = a; i < b; i++)
                r->dliv[i] = smax(r->dliv[i], -r->t1[i], 12);
    if (any) {
        const float s = p->liver_noise_cell, amp = p->liver_noise_mm, near = amp * 4 + 2;
        for (int i = lo; i < hi; i++)
            if (fabsf(r->dliv[i]) < near) {
                r->dliv[i] += amp * hp_ph__tile(p->tile_t, r->px[i] * s, r->py[i] * s,
                                                r->pz[i] * s);
                if (p->nodular_mm > 0)
                    r->dliv[i] +=
                        p->nodular_mm * hp_ph__tile(p->tile_u, r->px[i] * .3f,
                                                    r->py[i] * .3f, r->pz[i] * .3f);
            }
    }
    for (int i = r->i0; i < r->i1; i++)
        r->les[i] = 40;
    if (with_lesions)
        for (int k = 0; k < p->truth.n_lesions; k++) {
            if (p->les[k].soft || !hp_ph__row_lesion(p, k, r, 8, r->t1, &a, &b))
                continue;
            for (int i = a; i < b; i++) {
                r->dliv[i] = smin(r->dliv[i], r->t1[i] - 1, 6);
                r->les[i] = r->t1[i] < r->les[i] ? r->t1[i] : r->les[i];
            }
            any = true;
            lo = a < lo ? a : lo;
            hi = b > hi ? b : hi;
        }
    if (!any)
        return false;
    for (int i = lo; i < hi; i++) {
        float sx = (r->x[i]) / (p->spine_r[0] + 9),
              sy = (r->y - p->spine_y) / (p->spine_r[1] + 12);
        float sp = (sqrtf(sx * sx + sy * sy) - 1) * (p->spine_r[1] + 9);
        float d = smax(r->dliv[i], r->din[i] + p->wall_gap, 5);
        d = smax(d, -sp, 8);
        r->dliv[i] = smax(d, r->ddia[i] + 2, 4);
    }
    for (int k = 0; k < 2; k++)
        if (hp_ph__row_ell(&p->kidney[k], r, 16, r->t1, &a, &b))
            for (int i = a; i < b; i++)
                r->dliv[i] = smax(r->dliv[i], 6 - r->t1[i], 6);
    return true;
}

float hp_ph__liver_at(const hp_phantom *p, double x, double y, double z,
                      bool with_lesions)
{
    static _Thread_local hp_row r;
    r.n = 1;
    r.x0 = (float)x;
    r.dx = 1;
    r.y = (float)y;
    r.z = (float)z;
    hp_ph__row_begin(p, -1, &r);
    if (r.i0 >= r.i1 || !hp_ph__row_liver(p, &r, with_lesions))
        return 40;
    return r.dliv[0];
}

/* Distance to a tube whose radius changes linearly. */
bool hp_ph__row_tube(const hp_tube *t, const hp_row *r, float margin, float *d, int *i0,
                     int *i1)
{
    float m = (t->ra > t->rb ? t->ra : t->rb) + margin, lo[3], hi[3];
    for (int c = 0; c < 3; c++) {
        lo[c] = (t->a[c] < t->b[c] ? t->a[c] : t->b[c]) - m;
        hi[c] = (t->a[c] > t->b[c] ? t->a[c] : t->b[c]) + m;
    }
    if (r->pz1 < lo[2] || r->pz0 > hi[2] || r->py1 < lo[1] || r->py0 > hi[1])
        return false;
    int a = r->i0, b = r->i1;
    int ja = (int)((lo[0] - 30 - r->x0) / r->dx),
        jb = (int)((hi[0] + 30 - r->x0) / r->dx) + 2;
    a = ja > a ? ja : a;
    b = jb < b ? jb : b;
    while (a < b && r->px[a] < lo[0])
        a++;
    while (b > a && r->px[b - 1] > hi[0])
        b--;
    if (a >= b)
        return false;
    float ux = t->b[0] - t->a[0], uy = t->b[1] - t->a[1], uz = t->b[2] - t->a[2];
    float il = 1 / (ux * ux + uy * uy + uz * uz + 1e-6f), dr = t->rb - t->ra;
    for (int i = a; i < b; i++) {
        float x = r->px[i] - t->a[0], y = r->py[i] - t->a[1], z = r->pz[i] - t->a[2];
        float h = (x * ux + y * uy + z * uz) * il;
        h = h < 0 ? 0 : h > 1 ? 1 : h;
        x -= h * ux;
        y -= h * uy;
        z -= h * uz;
        d[i] = sqrtf(x * x + y * y + z * z) - (t->ra + h * dr);
    }
    *i0 = a;
    *i1 = b;
    return true;
}

/* A vessel outside the liver, where no lesion has pushed it aside (the caval
 * vein and the aorta stay). */
bool hp_ph__row_vessel(const hp_phantom *p, int k, const hp_row *r, bool liver, float *d,
                       int *i0, int *i1)
{
    const hp_tube *t = &p->tube[k];
    if (!hp_ph__row_tube(t, r, 3, d, i0, i1))
        return false;
    if (liver && (t->mat == MAT_PORTAL || t->mat == MAT_ARTERY || t->mat == MAT_PANCREAS))
        for (int i = *i0; i < *i1; i++)
            d[i] = d[i] > -1 - r->les[i] ? d[i] : -1 - r->les[i];
    return true;
}
