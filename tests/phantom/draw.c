/* Draws a patient's body, organs and scans from the seed. Every group has its
 * own stream of random numbers. Sizes are millimetres. */
#include <string.h>

#include "tests/phantom/phantom_internal.h"

/* Ellipsoid turned by `yaw` about z, then tilted by `tilt` about y. */
hp_ell hp_ph__ell(double cx, double cy, double cz, double rx, double ry, double rz,
                  double yaw, double tilt)
{
    double c = num_cos(yaw), s = num_sin(yaw), ct = num_cos(tilt), st = num_sin(tilt);
    /* Rows are the ellipsoid's own axes in body coordinates. */
    double ax[3][3] = {{c * ct, s * ct, st}, {-s, c, 0}, {-c * st, -s * st, ct}};
    double rad[3] = {rx, ry, rz};
    hp_ell e = {{(float)cx, (float)cy, (float)cz}, {0}, {0}, 0};
    for (int k = 0; k < 3; k++)
        for (int j = 0; j < 3; j++)
            e.m[3 * k + j] = (float)(ax[k][j] / rad[k]);
    for (int j = 0; j < 3; j++) {
        double q = 0;
        for (int k = 0; k < 3; k++)
            q += ax[k][j] * ax[k][j] * rad[k] * rad[k];
        e.ext[j] = (float)sqrt(q);
    }
    double m = rx < ry ? rx : ry;
    e.rmin = (float)(m < rz ? m : rz);
    return e;
}

void hp_ph__draw_body(hp_phantom *p)
{
    num_rng r = num_stream(p->opt.seed, 1);
    double a = num_clamp(num_lognormal(&r, 176, .13), 140, 240);
    double fat_share = num_in(&r, .1, .55),
           fat = num_clamp((a - 135) * fat_share + num_in(&r, 2, 12), 4, 60);
    double b = num_clamp(a * num_in(&r, .62, .78), 95, 176);
    double wall = num_in(&r, 11, 21);
    double fl = fat * num_in(&r, .5, .8), fa = fat * num_in(&r, .6, 1),
           fp = fat * num_in(&r, .5, .9) + 2;
    p->a = (float)a;
    p->b = (float)b;
    p->c4 = (float)num_in(&r, .15, .45);
    p->aw = (float)(a - fl);
    p->ai = (float)num_clamp(a - fl - wall, 100, 200);
    p->bi = (float)num_clamp(b - (fa + fp) / 2 - wall * .8, 74, 150);
    p->bw = p->bi + (float)(wall * .8);
    p->ci = (float)num_in(&r, .2, .5);
    p->yi = (float)((fa - fp) / 2);
    p->dome_h = (float)num_in(&r, 95, 135);
    double drop = num_in(&r, 8, 30);
    p->dome[0] = hp_ph__ell(-.5 * p->ai, p->yi - .1 * p->bi, -p->dome_h, .6 * p->ai,
                            1.02 * p->bi, p->dome_h, 0, 0);
    p->dome[1] = hp_ph__ell(.5 * p->ai, p->yi - .08 * p->bi, -p->dome_h - drop,
                            .6 * p->ai, 1.02 * p->bi, p->dome_h, 0, 0);
    /* the middle, on which the heart lies */
    p->dome[2] =
        hp_ph__ell(.04 * p->ai, p->yi - .3 * p->bi, -p->dome_h - drop - num_in(&r, 4, 14),
                   .6 * p->ai, .8 * p->bi, p->dome_h, 0, 0);

    double hx = p->ai * num_in(&r, .12, .26), hy = p->yi - p->bi * num_in(&r, .3, .42),
           hz = num_in(&r, 8, 26);
    double hs = num_in(&r, .85, 1.15);
    p->heart_fat = (float)num_in(&r, 2, 9);
    p->heart = hp_ph__ell(hx, hy, hz, 60 * hs, 46 * hs, 46 * hs, .5, -.25);
    p->ventricle_l =
        hp_ph__ell(hx + 19, hy + 5, hz - 2, 31 * hs, 22 * hs, 24 * hs, .5, -.25);
    p->ventricle_r =
        hp_ph__ell(hx - 14, hy - 18, hz - 4, 36 * hs, 18 * hs, 30 * hs, .35, -.2);
    p->atrium = hp_ph__ell(hx - 34, hy + 16, hz + 14, 24, 23, 30, 0, 0);
    p->spine_r[0] = (float)num_in(&r, 19, 25);
    p->spine_r[1] = (float)num_in(&r, 14.5, 19);
    p->spine_y = (float)(p->yi + p->bi + wall * .8 - num_in(&r, 50, 62));
    p->spine_z0 = (float)num_in(&r, 0, 34);
    p->disc_mm = (float)num_in(&r, 30, 37);
    p->mediastinum =
        hp_ph__ell(2, (p->spine_y + hy) / 2, 40, 30, (p->spine_y - hy) * .62, 110, 0, 0);
    p->rib_z0 = (float)num_in(&r, 0, 30);
    p->rib_pitch = (float)num_in(&r, 25, 33);
    p->rib_drop = (float)num_in(&r, 85, 130);
    p->has_table = num_chance(&r, .9);
    p->table_y = (float)(b + num_in(&r, 2, 14));
    p->table_r = (float)num_in(&r, 380, 1500);
    p->psoas_r = (float)num_in(&r, 14, 24);
}

/* Millilitres inside, by points 9 mm apart. */
static double liver_ml(const hp_phantom *p)
{
    static _Thread_local hp_row r;
    double n = 0;
    for (double z = -330; z < 12; z += 9)
        for (double y = p->yi - p->bi; y < p->yi + p->bi; y += 9) {
            r.n = (int)(2 * p->ai / 9);
            r.x0 = -p->ai;
            r.dx = 9;
            r.y = (float)y;
            r.z = (float)z;
            hp_ph__row_begin(p, -1, &r);
            if (r.i0 < r.i1 && hp_ph__row_liver(p, &r, false))
                for (int i = r.i0; i < r.i1; i++)
                    n += r.dliv[i] < 0;
        }
    return n * .729;
}

struct liver_draw {
    double left_mm, left_thick, left_high, riedel, caudate, right_y, hilum, under, tilt;
};

static void shape_liver(hp_phantom *p, const struct liver_draw *d, double s)
{
    const double a = p->ai, b = p->bi, y = p->yi;
    double s1 = s < 1.25 ? s : 1.25; /* sideways it cannot outgrow the body */
    p->lobe[0] =
        hp_ph__ell(-.54 * a, y + d->right_y * b, -70 * s, .6 * a * (.75 + .25 * s1),
                   1.08 * b * (.75 + .25 * s1), 84 * s, 0, .12);
    p->lobe[1] = hp_ph__ell(-.7 * a, y + .1 * b, -84 * s - 50 * d->riedel * s,
                            .4 * a * s1, .74 * b * s1, 76 * d->riedel * s, 0, .1);
    double l = d->left_mm < .95 * a ? d->left_mm : .95 * a;
    p->lobe[2] = hp_ph__ell((l - .42 * a) / 2, y - .42 * b, -d->left_high,
                            (l + .42 * a) / 2, d->left_thick * b, 50 * s, d->tilt, .12);
    p->lobe[3] = hp_ph__ell(-.1 * a, y + .2 * b, -72 * s, 21 * d->caudate,
                            18 * d->caudate, 30 * d->caudate, 0, 0);
    p->cut[0] = hp_ph__ell(.06 * a, y + .42 * b, -140 * s * d->hilum, .42 * a, .5 * b,
                           62 * s, .3, 0);
    p->cut[1] = hp_ph__ell(.12 * a, y - .62 * b, -196 * s * d->under, .56 * a, .62 * b,
                           82 * s, 0, 0);
}

static void draw_liver(hp_phantom *p)
{
    num_rng r = num_stream(p->opt.seed, 2);
    struct liver_draw d = {0};
    d.left_mm = num_in(&r, 40, 160);
    d.left_thick = num_in(&r, .26, .46);
    d.left_high = num_in(&r, 48, 72);
    d.riedel = num_chance(&r, .15) ? num_in(&r, 1.3, 1.8) : num_in(&r, .75, 1.15);
    d.caudate = num_in(&r, .7, 1.4);
    d.right_y = num_in(&r, 0, .1);
    d.hilum = num_in(&r, .9, 1.15);
    d.under = num_in(&r, .9, 1.15);
    d.tilt = num_in(&r, .05, .4);
    double target = num_clamp(num_lognormal(&r, 1550, .3), 700, 3500);
    p->truth.cirrhosis = num_chance(&r, .4);
    p->wall_gap = (float)num_in(&r, 1.5, 6);
    p->liver_noise_mm = (float)num_in(&r, .6, 2.4);
    p->liver_noise_cell = (float)(1.5 / num_in(&r, 9, 22));
    p->nodular_mm = p->truth.cirrhosis ? (float)num_in(&r, .4, 1.6) : 0;
    p->paren_cell = (float)(3 / (p->truth.cirrhosis ? 3.0 : num_in(&r, 3, 6)));
    p->paren_amp =
        (float)(p->truth.cirrhosis ? 5 * num_in(&r, .7, 1.3) : num_in(&r, 0, 2));
    if (p->truth.cirrhosis &&
        num_chance(&r, .5)) { /* shrunken right lobe, large caudate */
        d.caudate *= 1.25;
        target *= .85;
    }
    double lo = .55, hi = 1.6;
    for (int k = 0; k < 7; k++) {
        double mid = (lo + hi) / 2;
        shape_liver(p, &d, mid);
        if (liver_ml(p) < target)
            lo = mid;
        else
            hi = mid;
    }
}

/* ---- hollow organs ---- */

static void add_gut(hp_phantom *p, hp_ell e, double wall, double gas, double hu,
                    double speckle, double bubbles)
{
    if (p->n_gut >= MAX_GUT)
        return;
    hp_gut *g = &p->gut[p->n_gut++];
    g->e = e;
    g->wall_mm = (float)wall;
    g->level_y = (float)(e.c[1] - e.ext[1] + 2 * e.ext[1] * gas);
    g->content_hu = (float)hu;
    g->speckle_hu = (float)speckle;
    g->gas_speckle = (float)bubbles;
}

static void draw_stomach(hp_phantom *p, num_rng *r)
{
    const double a = p->ai, b = p->bi, y = p->yi;
    double f = num_in(r, .55, 1.25), wall = num_in(r, 3, 7);
    double hu, speckle = 0, gas = num_chance(r, .75) ? num_in(r, .08, .45) : 0;
    double kind = num_u01(r);
    if (kind < .35)
        hu = num_in(r, 0, 25);
    else if (kind < .6) {
        hu = num_in(r, 20, 70);
        speckle = num_in(r, 10, 40);
    } else if (kind < .9)
        hu = num_in(r, 200, 400);
    else
        hu = num_in(r, 60, 150);
    double bub = speckle > 0 ? num_in(r, 0, .12) : 0, shift = num_in(r, -12, 12);
    add_gut(p, hp_ph__ell(.46 * a + shift, y + .18 * b, -58, 38 * f, 40 * f, 42, -.2, 0),
            wall, gas * .3, hu, speckle, bub);
    add_gut(p,
            hp_ph__ell(.44 * a + shift, y - .2 * b, -84, 32 * f, 42 * f, 48, -.35, .15),
            wall, gas, hu, speckle, bub);
    add_gut(p, hp_ph__ell(.2 * a + shift, y - .42 * b, -122, 48 * f, 26 * f, 24, .25, .2),
            wall, gas, hu, speckle, bub);
}

static void draw_colon(hp_phantom *p, num_rng *r)
{
    const double a = p->ai, b = p->bi, y = p->yi;
    double fill = num_u01(r), low = num_in(r, -190, -140), wall = num_in(r, 2, 3.5);
    /* hepatic flexure, transverse, splenic flexure, both flanks */
    double path[15][3] = {
        {-.7, .15, low - 75},   {-.72, .1, low - 50}, {-.7, .05, low - 25},
        {-.64, -.1, low},       {-.5, -.35, low + 4}, {-.35, -.55, low - 6},
        {-.18, -.64, low - 14}, {0, -.68, low - 18},  {.18, -.66, low - 10},
        {.34, -.58, low},       {.5, -.44, low + 18}, {.64, -.22, low + 38},
        {.74, .02, low + 46},   {.74, .2, low + 20},  {.74, .26, low - 12}};
    for (int i = 0; i < 15; i++) {
        double q = num_in(r, 15, 30), k = num_u01(r);
        double gas = k < .3 ? num_in(r, .7, 1) : k < .7 ? num_in(r, .2, .6) : 0;
        double hu = fill < .3 ? num_in(r, 200, 400) : num_in(r, 10, 70);
        double dx = num_in(r, -8, 8), dy = num_in(r, -8, 8), dz = num_in(r, -6, 6),
               lx = num_in(r, .9, 1.5), lz = num_in(r, .9, 1.4);
        double yaw = num_in(r, -1, 1), speckle = num_in(r, 10, 60),
               bubbles = num_in(r, 0, .3);
        add_gut(p,
                hp_ph__ell(path[i][0] * a + dx, y + path[i][1] * b + dy, path[i][2] + dz,
                           q * lx, q, q * lz, yaw, 0),
                wall, gas, hu, speckle, bubbles);
    }
}

static void draw_small_bowel(hp_phantom *p, num_rng *r)
{
    const double a = p->ai, b = p->bi, y = p->yi;
    double oral = num_chance(r, .25) ? num_in(r, 150, 350) : 0;
    for (int i = 0; i < 38; i++) {
        double q = num_in(r, 10, 18);
        double hu = oral > 0 && num_chance(r, .6) ? oral : num_in(r, 5, 45);
        double cx = num_in(r, -.45, .6) * a, cy = y + num_in(r, -.6, .1) * b,
               cz = num_in(r, -280, -140);
        double lx = q * num_in(r, 1, 2.4), lz = q * num_in(r, .9, 1.3),
               yaw = num_in(r, -1.5, 1.5), tilt = num_in(r, -.6, .6);
        double wall = num_in(r, 2, 4), gas = num_chance(r, .15) ? num_in(r, .2, .7) : 0,
               speckle = num_in(r, 0, 12);
        add_gut(p, hp_ph__ell(cx, cy, cz, lx, q, lz, yaw, tilt), wall, gas, hu, speckle,
                0);
    }
    /* duodenum */
    for (int i = 0; i < 4; i++) {
        double cx = -.3 * a + num_in(r, -4, 4), gas = num_chance(r, .2) ? .4 : 0,
               hu = oral > 0 ? oral : num_in(r, 5, 40);
        add_gut(
            p,
            hp_ph__ell(cx, y + (-.05 + .06 * i) * b, -118. - 16 * i, 15, 13, 14, .3, 0),
            3, gas, hu, 8, 0);
    }
}

void hp_ph__draw_organs(hp_phantom *p)
{
    draw_liver(p);
    num_rng r = num_stream(p->opt.seed, 3);
    const double a = p->ai, b = p->bi, y = p->yi;
    double sp = (num_chance(&r, .2) ? num_in(&r, 1.25, 1.6) : num_in(&r, .75, 1.15));
    if (p->truth.cirrhosis)
        sp *= 1.12;
    double sx = a * num_in(&r, .7, .8), sy = y + b * num_in(&r, .22, .4),
           sz = num_in(&r, -95, -62);
    p->spleen =
        hp_ph__ell(sx, sy, sz - 20 * (sp - 1), 36 * sp, 54 * sp, 62 * sp, -.35, -.15);
    p->spleen_cut = hp_ph__ell(sx - 48 * sp, sy - 34 * sp, sz - 10, 36 * sp, 50 * sp,
                               66 * sp, -.35, 0);
    for (int k = 0; k < 2; k++) {
        double side = k ? 1 : -1, s = num_in(&r, .88, 1.12);
        double kx = side * (p->spine_r[0] + num_in(&r, 30, 40)),
               ky = p->spine_y - num_in(&r, 2, 14);
        double kz = (k ? -128 : -148) + num_in(&r, -16, 16);
        p->kidney[k] =
            hp_ph__ell(kx, ky, kz, 29 * s, 25 * s, 54 * s, side * .5, side * -.18);
        p->sinus[k] = hp_ph__ell(kx - side * 14, ky - 6, kz, 15, 9, 24, side * .5, 0);
    }
    p->has_gallbladder = num_chance(&r, .8);
    double gs = num_in(&r, .7, 1.4), gx = -a * num_in(&r, .28, .42),
           gy = y - b * num_in(&r, .1, .38), gz = num_in(&r, -128, -104);
    p->gallbladder = hp_ph__ell(gx, gy, gz, 14 * gs, 19 * gs, 27 * gs, .3, .3);
    p->has_stone = num_chance(&r, .2);
    double s0 = num_in(&r, 2, 8), s1 = num_in(&r, 2, 7), s2 = num_in(&r, 2, 8);
    p->stone = hp_ph__ell(gx, gy + 10 * gs, gz - 8 * gs, s0, s1, s2, 0, 0);
    p->ascites_mm = num_chance(&r, .15) ? (float)num_in(&r, 4, 22) : 0;
    p->has_effusion = num_chance(&r, .1);
    p->effusion_y[0] = (float)(y + p->bi * num_in(&r, .25, .9));
    p->effusion_y[1] = (float)(y + p->bi * num_in(&r, .25, 1.2));
    draw_stomach(p, &r);
    draw_colon(p, &r);
    draw_small_bowel(p, &r);

    double pz = num_in(&r, -128, -104);
    float q[5][3] = {{(float)(-.22 * a), (float)(y + .12 * b), (float)(pz - 18)},
                     {(float)(-.08 * a), (float)(y + .04 * b), (float)pz},
                     {(float)(.1 * a), (float)(y - .04 * b), (float)(pz + 8)},
                     {(float)(.32 * a), (float)(y + .08 * b), (float)(pz + 16)},
                     {(float)(.52 * a), (float)(y + .26 * b), (float)(pz + 26)}};
    for (int i = 0; i < 4; i++) {
        hp_tube *t = &p->pancreas[p->n_pancreas++];
        memcpy(t->a, q[i], sizeof(q[i]));
        memcpy(t->b, q[i + 1], sizeof(q[i]));
        t->ra = (float)(i == 0 ? num_in(&r, 13, 18) : num_in(&r, 8, 12));
        t->rb = (float)num_in(&r, 7, 11);
        t->mat = MAT_PANCREAS;
    }
}

/* ---- contrast, scanner ---- */

static void set(hp_phantom *p, int mat, double nc, double a, double v, double d)
{
    const double hu[4] = {nc, a, v, d};
    for (int ph = 0; ph < HP_PHASES; ph++)
        p->mat[ph][mat] = (float)hu[ph];
}

static void draw_contrast(hp_phantom *p)
{
    num_rng r = num_stream(p->opt.seed, 4);
    hp_phantom_truth *t = &p->truth;
    t->fatty = num_chance(&r, .2);
    double nc = t->fatty ? num_in(&r, 25, 45) : num_clamp(num_normal(&r, 57, 8), 35, 75);
    double ea = num_clamp(num_normal(&r, 14, 7), 5, 35),
           ev = num_clamp(num_normal(&r, 53, 12), 35, 80);
    double ed = ev * num_in(&r, .56, .76), l[4] = {nc, nc + ea, nc + ev, nc + ed};
    double blood = num_in(&r, 33, 50), aa = num_in(&r, 150, 420),
           av = num_in(&r, 110, 180), ad = num_in(&r, 88, 130);
    double early =
        num_u01(&r); /* 0 early, 1 late arterial: how far the portal vein is filled */
    double pa = blood + 15 + early * 95, pv = num_in(&r, 140, 205),
           pd = ad + num_in(&r, 0, 16);
    double ha = blood + 4 + early * early * 35, hv = pv - num_in(&r, 4, 45),
           hd = pd - num_in(&r, -3, 6);
    if (hv < l[2] + 8)
        hv = l[2] + 8;
    double mus = num_in(&r, 48, 62), fat = num_in(&r, -112, -92),
           spl = num_in(&r, 42, 56);
    for (int ph = 0; ph < HP_PHASES; ph++)
        t->liver_hu[ph] = l[ph];
    set(p, MAT_LIVER, l[0], l[1], l[2], l[3]);
    set(p, MAT_FAT, fat, fat, fat, fat);
    set(p, MAT_SUBCUT, fat - 2, fat - 2, fat - 2, fat - 2);
    set(p, MAT_MUSCLE, mus, mus + 4, mus + 12, mus + 11);
    double lung = num_in(&r, -890, -780);
    set(p, MAT_LUNG, lung, lung, lung, lung);
    double wall_a = num_in(&r, 90, 130), wall_v = num_in(&r, 105, 135);
    set(p, MAT_HEART_WALL, 45, wall_a, wall_v, 92);
    set(p, MAT_HEART_LEFT, blood, aa * num_in(&r, .85, 1), av * .98, ad);
    set(p, MAT_HEART_RIGHT, blood, aa * num_in(&r, .5, 1), av, ad);
    set(p, MAT_AORTA, blood, aa, av, ad);
    set(p, MAT_IVC_LOW, blood, blood + early * 40, num_in(&r, 85, 150), ad - 4);
    set(p, MAT_IVC, blood, (blood + aa * .35 + pa) / 2.2, num_in(&r, 120, 170), ad);
    set(p, MAT_PORTAL, blood, pa, pv, pd);
    set(p, MAT_HEPATIC_VEIN, blood, ha, hv, hd);
    set(p, MAT_ARTERY, blood, aa * .85, av * .9, ad);
    double sv = num_in(&r, 105, 145);
    set(p, MAT_SPLEEN, spl, num_in(&r, 85, 150), sv, sv * .84);
    double ka = num_in(&r, 140, 215), kv = num_in(&r, 160, 215),
           kd = num_in(&r, 130, 175);
    double ma = num_in(&r, 45, 90), mv = num_in(&r, 130, 200), md = num_in(&r, 135, 180);
    set(p, MAT_CORTEX, 33, ka, kv, kd);
    set(p, MAT_MEDULLA, 31, ma, mv, md);
    double urine = num_chance(&r, .6) ? num_in(&r, 250, 700) : num_in(&r, 20, 90);
    set(p, MAT_PELVIS, 8, 8, num_in(&r, 5, 60), urine);
    double pan = num_in(&r, 32, 48), pan_a = pan + num_in(&r, 35, 75),
           pan_v = pan + num_in(&r, 35, 60);
    set(p, MAT_PANCREAS, pan, pan_a, pan_v, pan + 35);
    double gut_a = num_in(&r, 60, 105), gut_v = num_in(&r, 75, 110);
    set(p, MAT_BOWEL_WALL, 38, gut_a, gut_v, 78);
    double bile = num_in(&r, -2, 20), asc = num_in(&r, 3, 18);
    set(p, MAT_BILE, bile, bile, bile, bile);
    set(p, MAT_ASCITES, asc, asc, asc, asc + 3);
    set(p, MAT_FLUID, 10, 10, 10, 10);
    double marrow = num_in(&r, 90, 260);
    set(p, MAT_DISC, 75, 78, 82, 82);
    set(p, MAT_MARROW, marrow, marrow + 5, marrow + 20, marrow + 16);
    double bone = num_in(&r, 450, 900);
    set(p, MAT_CORTICAL, bone, bone, bone, bone);
    double cart = num_in(&r, 70, 140);
    set(p, MAT_CARTILAGE, cart, cart, cart, cart);
    set(p, MAT_CANAL, 25, 27, 32, 32);
    set(p, MAT_GAS, -960, -960, -960, -960);
    double stone = num_in(&r, 60, 600);
    set(p, MAT_STONE, stone, stone, stone, stone);
    double table = num_in(&r, -100, 500);
    set(p, MAT_TABLE, table, table, table, table);
    for (int ph = 0; ph < HP_PHASES; ph++) {
        t->aorta_hu[ph] = p->mat[ph][MAT_AORTA];
        t->portal_hu[ph] = p->mat[ph][MAT_PORTAL];
    }
    t->delay_s[0] = -num_in(&r, 60, 200);
    t->delay_s[1] = num_in(&r, 22, 40);
    t->delay_s[2] = num_in(&r, 60, 85);
    t->delay_s[3] = num_in(&r, 150, 320);
}

static double pick(num_rng *r, const double *of, int n)
{
    return of[num_int(r, 0, n - 1)];
}

void hp_ph__draw_scan(hp_phantom *p)
{
    draw_contrast(p);
    num_rng r = num_stream(p->opt.seed, 5);
    static const double thick_nc[] = {2.5, 5, 5, 7, 10}, thick[] = {1.25, 2.5, 3, 5, 5};
    static const int pads[] = {-1000, -1024, -1024, -2000};
    double pix = num_clamp(2 * p->a / 512 * num_in(&r, 1.02, 1.22), .55, .95);
    double off[3] = {0};
    for (int c = 0; c < 2; c++)
        off[c] = num_in(&r, -30, 30);
    double above = num_in(&r, 5, 60), below = num_in(&r, 8, 60), sd = num_in(&r, 8, 16),
           sharp = num_in(&r, -1, 1);
    bool cut = num_chance(&r, .2);
    double tip = 0, slack = 512 * pix / 2;
    for (double z = -320; z < -60 && tip == 0; z += 6)
        for (double x = -p->ai; x < .2 * p->ai && tip == 0; x += 12)
            for (double y = p->yi - p->bi; y < p->yi + p->bi && tip == 0; y += 12)
                if (hp_ph__liver_at(p, x, y, z, true) < 0)
                    tip = z;
    double bottom = cut ? tip + num_in(&r, 5, 40) : tip - below;
    if (p->opt.slices > 0)
        bottom = tip - 12;
    double one = pick(&r, thick, 5);
    p->frame_mm[0] = num_in(&r, -15, 15);
    p->frame_mm[1] = num_in(&r, -190, 20);
    p->frame_mm[2] = num_in(&r, -1400, 300);
    p->streak_hu = num_chance(&r, .1) ? num_in(&r, 8, 30) : 0;
    for (int k = 0; k < 3; k++) {
        double w = num_in(&r, -.5, .5);
        p->streak_dir[k][0] = num_sin(w);
        p->streak_dir[k][1] = num_cos(w);
    }
    p->cup_hu = num_in(&r, -4, 4);
    /* The field of view is shifted only as far as the body allows, mostly. */
    for (int c = 0; c < 2; c++) {
        double room = slack - (c ? p->b : p->a) + 8;
        off[c] = num_clamp(off[c], -(room > 4 ? room : 4), room > 4 ? room : 4);
    }
    for (int ph = 0; ph < HP_PHASES; ph++) {
        double px = ph == 0 && num_chance(&r, .3)
                        ? num_clamp(pix * num_in(&r, .97, 1.1), .55, .97)
                        : pix;
        double t = ph == 0              ? pick(&r, thick_nc, 5)
                   : num_chance(&r, .8) ? one
                                        : pick(&r, thick, 5);
        double top = above + num_in(&r, -3, 3), low = bottom + num_in(&r, -3, 3);
        int n = (int)((top - low) / t + .5);
        if (p->opt.slices > 0) {
            n = p->opt.slices;
            t = floor((above + 10 - bottom) / n * 4 + .999) / 4;
            t = t < 1.25 ? 1.25 : t;
            top = bottom - 3 + t * n;
        }
        double o[3] = {off[0] - 256 * px + px / 2 + p->frame_mm[0],
                       off[1] + num_in(&r, -2, 2) - 256 * px + px / 2 + p->frame_mm[1],
                       top - (n - .5) * t + p->frame_mm[2]};
        for (int c = 0; c < 3; c++)
            o[c] = floor(o[c] * 1000 + .5) / 1000; /* what a header can say */
        px = floor(px * 1e6 + .5) / 1e6;
        p->grid[ph] = hp_geom_axial(n, 512, 512, t, px, px, o);
        p->pad[ph] = pads[num_int(&r, 0, 3)];
        p->sharp[ph] = num_clamp(sharp + num_in(&r, -.2, .2), -1, 1);
        double f = sqrt(5 / t) * (ph < 2 ? 1.1 : 1), ks = 1 + .15 * p->sharp[ph];
        p->noise_sd[ph] = num_clamp(sd * f * ks / 1.3, 4, 27);
        p->truth.noise_hu[ph] = p->noise_sd[ph] * 1.3;
        p->truth.noise_fwhm_mm[ph] = 1.5 - .45 * p->sharp[ph];
    }
}
