/* The vessels: great vessels as chains of tubes, and three branching trees in
 * the liver that stop at its surface. */
#include <string.h>

#include "tests/phantom/phantom_internal.h"

static void tube(hp_tube *list, int *n, const double a[3], const double b[3], double ra,
                 double rb, int mat)
{
    if (*n >= MAX_TUBES)
        return;
    hp_tube *t = &list[(*n)++];
    for (int c = 0; c < 3; c++) {
        t->a[c] = (float)a[c];
        t->b[c] = (float)b[c];
    }
    t->ra = (float)ra;
    t->rb = (float)rb;
    t->mat = mat;
}

static void chain(hp_phantom *p, int n, double pt[][3], double ra, double rb, int mat)
{
    for (int i = 0; i + 1 < n; i++)
        tube(p->tube, &p->n_tubes, pt[i], pt[i + 1], ra + (rb - ra) * i / (n - 1),
             ra + (rb - ra) * (i + 1) / (n - 1), mat);
}

static void normalise(double v[3])
{
    double n = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]) + 1e-9;
    for (int c = 0; c < 3; c++)
        v[c] /= n;
}

static void grow(hp_phantom *p, num_rng *r, const double from[3], const double dir[3],
                 double radius, int depth, int mat)
{
    double at[3] = {from[0], from[1], from[2]}, d[3] = {dir[0], dir[1], dir[2]};
    double len = (depth ? 14 + 30 * num_u01(r) : 20) * (.6 + radius / 8);
    int steps = 3;
    for (int s = 0; s < steps; s++) {
        double to[3], thin = radius * .955;
        for (int c = 0; c < 3; c++) {
            d[c] += .22 * num_gauss(r) * .6;
        }
        normalise(d);
        for (int c = 0; c < 3; c++)
            to[c] = at[c] + d[c] * len / steps;
        float ld = hp_ph__liver_at(p, to[0], to[1], to[2], false);
        if (ld > -4 - radius * .5)
            return;
        tube(p->liver_tube, &p->n_liver_tubes, at, to, radius, thin, mat);
        memcpy(at, to, sizeof(at));
        radius = thin;
    }
    if (radius < .9 || depth > 7)
        return;
    double axis[3];
    num_gauss3(r, axis);
    double share = num_in(r, .3, .7);
    for (int k = 0; k < 2; k++) {
        double e[3], side = k ? -1 : 1, open = num_in(r, .35, .75);
        for (int c = 0; c < 3; c++)
            e[c] = d[c] + side * open * axis[c] * .7;
        normalise(e);
        /* Murray: the cubes of the radii add up. */
        double s = k ? 1 - share : share;
        double rr =
            radius * (s < .5 ? .66 + .14 * (s - .3) / .2 : .8 + .1 * (s - .5) / .2);
        grow(p, r, at, e, rr, depth + 1, mat);
    }
}

void hp_ph__draw_vessels(hp_phantom *p)
{
    num_rng r = num_stream(p->opt.seed, 6);
    const double a = p->ai, b = p->bi, y = p->yi, sy = p->spine_y - p->spine_r[1];
    double ao = num_in(&r, 9.5, 13), ax = num_in(&r, 6, 18), iv = num_in(&r, 9, 14),
           ix = -num_in(&r, 20, 30);
    double aorta[6][3] = {{ax + 8, sy + 2, 120},   {ax + 6, sy - 2, 30},
                          {ax, sy - 8, -60},       {ax - 2, sy - 12, -150},
                          {ax - 4, sy - 13, -260}, {ax - 4, sy - 13, -420}};
    double iy = sy - num_in(&r, 10, 22), ivcy = iy - 8;
    double ivc_up[4][3] = {{ix - 2, iy, -150},
                           {ix - 6, iy - 4, -80},
                           {ix - 7, ivcy, -30},
                           {p->atrium.c[0] + 4, p->atrium.c[1] + 4, 14}};
    double ivc_low[3][3] = {
        {ix + 2, sy - 12, -420}, {ix, sy - 11, -260}, {ix - 2, iy, -148}};
    for (int k = 0; k < 2;
         k++) { /* crura, renal vessels, adrenals: behind the great vessels */
        double s = k ? 1 : -1;
        double crus[3][3] = {
            {s * 10, sy - 10, -30}, {s * 19, sy - 6, -75}, {s * 17, sy - 2, -150}};
        chain(p, 3, crus, 4.5, 3, MAT_MUSCLE);
        double vein[2][3] = {{ix * (k ? .6 : 1), iy, p->kidney[k].c[2] + 6},
                             {p->sinus[k].c[0], p->sinus[k].c[1], p->sinus[k].c[2]}};
        chain(p, 2, vein, 5, 4, MAT_IVC);
        double art[2][3] = {
            {ax, sy - 12, p->kidney[k].c[2] + 12},
            {p->sinus[k].c[0], p->sinus[k].c[1] + 3, p->sinus[k].c[2] + 2}};
        chain(p, 2, art, 3, 2.5, MAT_ARTERY);
        double adr[3][3] = {{s * 42, p->spine_y - 26, p->kidney[k].c[2] + 60},
                            {s * 34, p->spine_y - 32, p->kidney[k].c[2] + 52},
                            {s * 44, p->spine_y - 14, p->kidney[k].c[2] + 46}};
        chain(p, 3, adr, 2.6, 2.4, MAT_PANCREAS);
    }
    chain(p, 6, aorta, ao * 1.1, ao * .85, MAT_AORTA);
    chain(p, 3, ivc_low, iv * .85, iv * .95, MAT_IVC_LOW);
    chain(p, 4, ivc_up, iv, iv * 1.1, MAT_IVC);
    double eso[3][3] = {{2, sy - 12, 120}, {8, sy - 14, 10}, {20, sy - 30, -40}};
    chain(p, 3, eso, 8, 8, MAT_MUSCLE);
    double hil[3] = {-.16 * a, y + .02 * b, -92}, best = 1e9;
    for (int k = 0; k < 60; k++) { /* a hilum just inside the liver, medial and low */
        double t[3];
        t[0] = num_in(&r, -.3, 0) * a;
        t[1] = y + num_in(&r, -.15, .2) * b;
        t[2] = num_in(&r, -115, -70);
        double f = hp_ph__liver_at(p, t[0], t[1], t[2], false) + 9;
        f = f < 0 ? -f : f;
        if (f < best) {
            best = f;
            memcpy(hil, t, sizeof(hil));
        }
    }
    double conf[3] = {num_in(&r, -6, 4), y + .06 * b, -128};
    double smv[3][3] = {
        {-4, y - .02 * b, -270}, {-4, y, -190}, {conf[0], conf[1], conf[2]}};
    double trunk[3][3] = {
        {conf[0], conf[1], conf[2]},
        {(conf[0] + hil[0]) / 2, (conf[1] + hil[1]) / 2 + 3, (conf[2] + hil[2]) / 2},
        {hil[0], hil[1], hil[2]}};
    double splenic[4][3] = {
        {conf[0], conf[1], conf[2]},
        {.15 * a, y + .1 * b, -118},
        {.38 * a, y + .22 * b, -104},
        {p->spleen.c[0] - 22, p->spleen.c[1] - 6, p->spleen.c[2] - 6}};
    double pr = num_in(&r, 6, 9);
    chain(p, 3, smv, 4.5, 5, MAT_PORTAL);
    chain(p, 4, splenic, 5, 3.5, MAT_PORTAL);
    chain(p, 3, trunk, pr, pr, MAT_PORTAL);
    double cel[4][3] = {{ax, sy - 16, -96},
                        {ax - 2, sy - 34, -98},
                        {(ax + hil[0]) / 2, (sy - 38 + hil[1]) / 2, -102},
                        {hil[0] + 3, hil[1] - 4, hil[2]}};
    chain(p, 4, cel, 3.6, 2, MAT_ARTERY);
    double sma[4][3] = {{ax, sy - 18, -114},
                        {ax - 4, sy - 36, -130},
                        {2, y, -180},
                        {0, y - .05 * b, -280}};
    chain(p, 4, sma, 4, 3, MAT_ARTERY);
    double spa[3][3] = {{ax - 2, sy - 34, -98},
                        {.25 * a, y + .16 * b, -94},
                        {p->spleen.c[0] - 24, p->spleen.c[1], p->spleen.c[2]}};
    chain(p, 3, spa, 2.6, 2, MAT_ARTERY);

    /* Portal: left branch, right anterior and posterior. */
    double right[3] = {hil[0] - .14 * a, hil[1] + 4, hil[2] + 6},
           left[3] = {hil[0] + 22, hil[1] - .18 * b, hil[2] + 18};
    tube(p->liver_tube, &p->n_liver_tubes, hil, right, pr * .85, pr * .75, MAT_PORTAL);
    tube(p->liver_tube, &p->n_liver_tubes, hil, left, pr * .7, pr * .6, MAT_PORTAL);
    double dir[6][3] = {{-.6, -.55, .5}, {-.8, .5, -.1}, {-.65, .2, -.7},
                        {.5, -.6, .2},   {-.9, -.2, .2}, {-.3, -.6, -.4}};
    for (int k = 0; k < 6; k++) {
        double d[3] = {dir[k][0], dir[k][1], dir[k][2]};
        normalise(d);
        grow(p, &r, k == 3 ? left : right, d, pr * (k < 4 ? .68 : .5), 1, MAT_PORTAL);
    }
    /* Hepatic veins: three trunks from under the dome. */
    double join[3] = {ix - 7, ivcy - 6, -28};
    double vdir[4][3] = {
        {-.9, -.05, -.35}, {-.45, -.75, -.35}, {.25, -.85, -.3}, {-.6, .3, -.7}};
    double hr = num_in(&r, 4.2, 6.2);
    for (int k = 0; k < 4; k++) {
        double d[3], to[3];
        num_gauss3(&r, d);
        for (int c = 0; c < 3; c++)
            d[c] = vdir[k][c] + .1 * d[c];
        normalise(d);
        for (int c = 0; c < 3; c++)
            to[c] = join[c] + d[c] * 20;
        tube(p->liver_tube, &p->n_liver_tubes, join, to, hr * 1.1, hr, MAT_HEPATIC_VEIN);
        grow(p, &r, to, d, k == 3 ? hr * .6 : hr, 0, MAT_HEPATIC_VEIN);
    }
}
