/* Draws the focal lesions: what each class looks like and where each lies. */
#include <string.h>

#include "tests/phantom/phantom_internal.h"

/* HU minus liver in the core (NC, A, V, D), rim minus core (A, V, D), texture. */
static const struct subtype {
    double share, core[4], rim[3], l, amp, rho;
    bool thick_rim;
} subtypes[] = {
    [HP_PH_HCC_CAPSULE] = {.55, {-8, 26, -10, -16}, {0, 8, 16}, 3.2, 14, -.40, false},
    [HP_PH_HCC_BARE] = {.20, {-8, 26, -10, -16}, {0, 0, 0}, 3.2, 14, -.40, false},
    [HP_PH_HCC_HYPO] = {.25, {-11, -4, -18, -14}, {4, 6, 10}, 3.4, 12, -.20, false},
    [HP_PH_ICC_RIM] = {.70, {-13, -18, -26, -6}, {24, 12, -8}, 5.5, 8, .50, true},
    [HP_PH_ICC_HYPER] = {.30, {-10, 8, -10, -4}, {14, 8, -4}, 5.0, 8, .40, true},
    [HP_PH_HEMANGIOMA] = {.40, {-12, 2, 0, 4}, {26, 16, 4}, 6.5, 12, .30, false},
    [HP_PH_FNH] = {.35, {-6, 28, 0, -3}, {0, 0, 0}, 1.8, 6, .50, false},
    [HP_PH_ADENOMA] = {.25, {-9, 20, -6, -8}, {0, 4, 4}, 2.0, 7, .25, false},
    [HP_PH_MET_HYPO] = {.70, {-14, -16, -30, -22}, {18, 12, 2}, 3.8, 10, .15, true},
    [HP_PH_MET_HYPER] = {.30, {-10, 12, -14, -16}, {10, 4, 0}, 3.2, 10, 0, true},
};
const double hp_phantom_core_sd[HP_PHASES] = {6, 15, 13, 11};
const double hp_phantom_rim_sd[HP_PHASES] = {0, 10, 8, 8};
static const int first_of[HP_PH_CLASSES + 1] = {HP_PH_HCC_CAPSULE, HP_PH_ICC_RIM,
                                                HP_PH_HEMANGIOMA, HP_PH_MET_HYPO,
                                                HP_PH_MET_HYPER + 1};
static const struct {
    int cls;
    bool focal;
} kinds[] = {
#define HP__X(id, name, cls, focal) {cls, focal},
    HP_PH_KINDS(HP__X)
#undef HP__X
};

enum where { ANYWHERE, BORDER, OUTWARD, LEFT_LOBE, FALCIFORM };

/* Liver-only depth at a point, lesions not counted. */
static double depth_at(const hp_phantom *p, const double c[3])
{
    return -hp_ph__liver_at(p, c[0], c[1], c[2], false);
}

static double clearance(const hp_phantom *p, const double c[3], double r)
{
    double best = 1e9;
    for (int i = 0; i < p->truth.n_lesions; i++) {
        const hp_ell *e = &p->les[i].e;
        double q = 0, far = e->ext[0] > e->ext[1] ? e->ext[0] : e->ext[1];
        for (int k = 0; k < 3; k++)
            q += (c[k] - e->c[k]) * (c[k] - e->c[k]);
        far = far > e->ext[2] ? far : e->ext[2];
        double d = sqrt(q) - r - far;
        best = d < best ? d : best;
    }
    return best;
}

/* The best of a hundred draws: deep enough for its size, clear of the others. */
static bool place(const hp_phantom *p, num_rng *rng, double r, enum where where,
                  double ret[3])
{
    double best = 1e9, want = where == BORDER    ? .6 * r
                              : where == OUTWARD ? .12 * r
                                                 : r + 2;
    for (int k = 0, good = 0; k < 160 && good < 1; k++) {
        double c[3];
        c[0] = num_in(rng, -p->ai,
                      where == ANYWHERE || where == BORDER ? .9 * p->ai : .3 * p->ai);
        c[1] = p->yi + num_in(rng, -p->bi, .8 * p->bi);
        c[2] = num_in(rng, -230, -8);
        if (where == LEFT_LOBE)
            for (int a = 0; a < 3; a++)
                c[a] = p->lobe[2].c[a] + num_in(rng, -.35, .35) * p->lobe[2].ext[a];
        if (where == FALCIFORM) {
            c[0] = num_in(rng, -30, 15);
            c[1] = p->yi + num_in(rng, -.8, -.4) * p->bi;
        }
        double d = depth_at(p, c);
        if (d < 1 && where != OUTWARD)
            continue;
        if (d < -.2 * r)
            continue;
        double miss = where == ANYWHERE || where == LEFT_LOBE || where == FALCIFORM
                          ? (d < want ? want - d : 0)
                          : (d > want ? d - want : want - d);
        double clear = clearance(p, c, r);
        double score = miss + (clear < 3 ? 2 * (3 - clear) : 0);
        if (score < best) {
            best = score;
            memcpy(ret, c, sizeof(c));
            good = score < .03 * r;
        }
    }
    return best < .9 * r + 4;
}

static hp_ph_lesion *shape(hp_phantom *p, num_rng *r, const double c[3], double d_mm,
                           double lobulation)
{
    hp_ph_lesion *l = &p->les[p->truth.n_lesions];
    memset(l, 0, sizeof(*l));
    double s[3], sum = 0;
    for (int k = 0; k < 3; k++) {
        s[k] = num_exp(num_normal(r, 0, .12));
        sum += s[k];
    }
    for (int k = 0; k < 3; k++)
        s[k] *= 3 / sum * d_mm / 2;
    double yaw = num_in(r, -1.6, 1.6), tilt = num_in(r, -.8, .8);
    l->e = hp_ph__ell(c[0], c[1], c[2], s[0], s[1], s[2], yaw, tilt);
    l->r = (float)(d_mm / 2);
    l->lobulation = (float)(lobulation * .5);
    l->lob_cell = (float)(1.5 / (d_mm * .22));
    l->edge_mm = (float)num_in(r, .7, 3);
    for (int k = 0; k < 3; k++) {
        l->lob_off[k] = (float)num_in(r, 0, 64);
        l->tex_off[k] = (float)num_in(r, 0, 64);
        l->tex_off2[k] = (float)num_in(r, 0, 64);
    }
    l->tex_swap = num_int(r, 0, 2);
    return l;
}

static void add(hp_phantom *p, int kind, bool primary)
{
    hp_ph_lesion *l = &p->les[p->truth.n_lesions];
    hp_phantom_lesion *t = &p->truth.lesion[p->truth.n_lesions++];
    t->kind = kind;
    t->cls = kinds[kind].cls;
    t->primary = primary;
    t->focal = kinds[kind].focal;
    t->diameter_mm = 2 * l->r;
    t->rim_mm = l->rim_mm;
    t->texture_mm = l->tex_cell > 0 ? 3 / l->tex_cell : 0;
    t->texture_hu = l->tex_amp[HP_PHASE_V];
    t->rho = l->rho;
    t->edge_mm = l->edge_mm;
    for (int ph = 0; ph < HP_PHASES; ph++) {
        t->core_dhu[ph] = l->absolute ? l->core[ph] - p->truth.liver_hu[ph] : l->core[ph];
        t->rim_dhu[ph] = l->rim[ph];
    }
}

static void texture(hp_ph_lesion *l, num_rng *r, double mm, double amp, double rho)
{
    l->tex_cell = (float)(3 / (mm * num_exp(num_normal(r, 0, .24))));
    amp *= num_exp(num_normal(r, 0, .20));
    const double f[4] = {.3, 1, 1, .8};
    for (int ph = 0; ph < HP_PHASES; ph++)
        l->tex_amp[ph] = (float)(amp * f[ph]);
    l->rho = (float)num_clamp(num_normal(r, rho, .18), -.95, .95);
}

static void scar_arms(hp_ph_lesion *l, num_rng *r)
{
    const double hu[4] = {-4, -40, -8, 15};
    l->arms = num_int(r, 3, 5);
    l->arm_mm = (float)num_in(r, 1, 2);
    for (int k = 0; k < l->arms; k++) {
        double v[3];
        num_gauss3(r, v);
        double n = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]) + 1e-9;
        for (int c = 0; c < 3; c++)
            l->arm_dir[k][c] = (float)(v[c] / n);
    }
    for (int ph = 0; ph < HP_PHASES; ph++)
        l->arm_hu[ph] = (float)hu[ph];
}

static void nodular(hp_ph_lesion *l, num_rng *r)
{
    const double lo[4] = {0, .1, .4, .7}, hi[4] = {0, .3, .7, 1};
    for (int ph = 0; ph < HP_PHASES; ph++) {
        double share = num_in(r, lo[ph], hi[ph]), in = 1;
        /* Volume share from outside in, as depth: 1 - (1 - f)^(1/3), by Newton. */
        for (int k = 0; k < 20; k++)
            in -= (in * in * in - (1 - share)) / (3 * in * in + 1e-3);
        l->fill[ph] = (float)num_clamp(1 - in, 0, 1);
    }
    l->knobs = num_int(r, 3, 7);
    for (int k = 0; k < l->knobs; k++) {
        double v[3];
        num_gauss3(r, v);
        double n = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]) + 1e-9;
        l->knob_r[k] = (float)num_clamp(num_in(r, 2, 5), 1, .45 * l->r);
        for (int c = 0; c < 3; c++)
            l->knob_c[k][c] = (float)(l->e.c[c] + v[c] / n * (l->r - l->knob_r[k] * .7));
    }
}

static int pick_kind(num_rng *r, int cls)
{
    double u = num_u01(r);
    for (int k = first_of[cls]; k < first_of[cls + 1]; k++) {
        u -= subtypes[k].share;
        if (u < 0)
            return k;
    }
    return first_of[cls + 1] - 1;
}

/* HU of core and rim, and the texture: all that the class decides about a
 * lesion of l->r. */
static void enhancement(hp_ph_lesion *l, num_rng *r, int kind, double overlap)
{
    const struct subtype *s = &subtypes[kind];
    const double d_mm = 2 * l->r;
    double common = num_gauss(r);
    l->core[0] = (float)num_normal(r, s->core[0], hp_phantom_core_sd[0] * overlap);
    for (int k = 1; k < 4; k++)
        l->core[k] =
            (float)(s->core[k] + overlap * hp_phantom_core_sd[k] *
                                     (sqrt(.45) * common + sqrt(.55) * num_gauss(r)));
    for (int k = 1; k < 4; k++)
        l->rim[k] = (float)num_normal(r, s->rim[k - 1], hp_phantom_rim_sd[k] * overlap);
    l->rim_mm = (float)(s->thick_rim ? num_clamp(d_mm * num_in(r, .1, .25), 3, 8)
                                     : num_in(r, 1, 2.5));
    if (l->rim_mm > .45f * l->r)
        l->rim_mm = .45f * l->r;
    texture(l, r, s->l, s->amp, s->rho);
}

static void tumour(hp_phantom *p, num_rng *r, int kind, const double c[3], double d_mm,
                   bool primary)
{
    hp_ph_lesion *l = shape(p, r, c, d_mm, num_in(r, .05, .20));
    enhancement(l, r, kind, p->opt.overlap);
    int cls = kinds[kind].cls;
    double p_scar = kind == HP_PH_FNH  ? .5
                    : cls == HP_PH_HCC ? .1
                    : cls == HP_PH_ICC ? .15
                                       : 0;
    double p_necrosis = cls == HP_PH_HCC          ? .15
                        : cls == HP_PH_ICC        ? .2
                        : cls == HP_PH_METASTASIS ? .4
                                                  : 0;
    if (num_chance(r, p_scar) && d_mm > 18)
        scar_arms(l, r);
    if (num_chance(r, p_necrosis) && d_mm > 15) {
        l->necrosis_r = (float)num_in(r, .3, .6);
        l->necrosis_hu = (float)num_in(r, 10, 25);
    }
    if (kind == HP_PH_HEMANGIOMA)
        nodular(l, r);
    add(p, kind, primary);
}

bool hp_phantom_subtype_at(int kind, hp_phantom_subtype *ret)
{
    if (kind < 0 || kind > HP_PH_MET_HYPER)
        return false;
    const struct subtype *s = &subtypes[kind];
    *ret = (hp_phantom_subtype){.cls = kinds[kind].cls,
                                .share = s->share,
                                .texture_mm = s->l,
                                .texture_hu = s->amp,
                                .rho = s->rho};
    for (int ph = 0; ph < HP_PHASES; ph++) {
        ret->core_dhu[ph] = s->core[ph];
        ret->rim_dhu[ph] = ph ? s->rim[ph - 1] : 0;
    }
    return true;
}

void hp_phantom_sample(uint64_t seed, int cls, double overlap, hp_phantom_lesion *ret)
{
    num_rng r = num_stream(seed, 70);
    hp_ph_lesion l = {0};
    int kind = pick_kind(&r, cls);
    l.r = (float)(num_clamp(num_lognormal(&r, 38, .5), 12, 120) / 2);
    enhancement(&l, &r, kind, overlap);
    *ret = (hp_phantom_lesion){.kind = kind,
                               .cls = cls,
                               .primary = true,
                               .focal = true,
                               .diameter_mm = 2 * l.r,
                               .rim_mm = l.rim_mm,
                               .texture_mm = 3 / l.tex_cell,
                               .texture_hu = l.tex_amp[HP_PHASE_V],
                               .rho = l.rho};
    for (int ph = 0; ph < HP_PHASES; ph++) {
        ret->core_dhu[ph] = l.core[ph];
        ret->rim_dhu[ph] = l.rim[ph];
    }
}

static void primaries(hp_phantom *p)
{
    num_rng r = num_stream(p->opt.seed, 7);
    int cls = p->opt.cls;
    double u = num_u01(&r), sum = 0;
    for (int k = 0; k < HP_PH_CLASSES; k++)
        sum += p->opt.mix[k];
    for (int k = 0; cls < 0; k++) {
        u -= p->opt.mix[k] / sum;
        if (u < 0 || k == HP_PH_CLASSES - 1)
            cls = k;
    }
    p->truth.cls = cls;
    double d = p->opt.stress ? num_clamp(num_lognormal(&r, 70, .6), 20, 180)
                             : num_clamp(num_lognormal(&r, 38, .5), 12, 120);
    if (p->opt.diameter_mm > 0)
        d = p->opt.diameter_mm;
    double w = num_u01(&r);
    enum where where = p->opt.stress && w < .4              ? LEFT_LOBE
                       : (p->opt.stress ? w < .7 : w > .94) ? OUTWARD
                       : w < .25                            ? BORDER
                       : w < .28                            ? LEFT_LOBE
                                                            : ANYWHERE;
    double c[3] = {-.5 * p->ai, p->yi, -80};
    place(p, &r, d / 2, where, c);
    int kind = pick_kind(&r, cls);
    tumour(p, &r, kind, c, d, true);
    if (cls == HP_PH_METASTASIS && num_chance(&r, .5)) {
        int n = num_int(&r, 1, 5); /* with the first: two to six */
        for (int k = 0; k < n; k++) {
            double q = num_clamp(d * num_in(&r, .25, .95), 8, 90);
            if (place(p, &r, q / 2, num_chance(&r, .25) ? BORDER : ANYWHERE, c))
                tumour(p, &r, kind, c, q, true);
        }
    }
}

/* Something that is one HU per phase, relative to liver or in itself. */
static void flat(hp_phantom *p, num_rng *r, int kind, const double c[3], double d,
                 const double hu[4], double sd, double edge, bool absolute, bool soft)
{
    hp_ph_lesion *l = shape(p, r, c, d,
                            kind == HP_PH_SCAR   ? .2
                            : kind == HP_PH_CYST ? .06
                                                 : .12);
    double shift = num_normal(r, 0, sd);
    for (int ph = 0; ph < HP_PHASES; ph++)
        l->core[ph] = (float)(hu[ph] + shift);
    l->edge_mm = (float)edge;
    l->absolute = absolute;
    l->soft = soft;
    add(p, kind, false);
}

static void thrombus(hp_phantom *p, num_rng *r)
{
    const hp_tube *best = NULL;
    for (int k = 0; k < p->n_liver_tubes; k++)
        if (p->liver_tube[k].mat == MAT_PORTAL &&
            (!best || (p->liver_tube[k].ra > 3 && num_chance(r, .2))))
            best = &p->liver_tube[k];
    if (!best)
        return;
    double c[3], d[3], n = 0;
    for (int k = 0; k < 3; k++) {
        c[k] = (best->a[k] + best->b[k]) / 2;
        d[k] = best->b[k] - best->a[k];
        n += d[k] * d[k];
    }
    n = sqrt(n) + 1e-6;
    const double hu[4] = {45, 55, 68, 66};
    hp_ph_lesion *l = shape(p, r, c, 2 * best->ra + 4, .05);
    double q = sqrt(d[0] * d[0] + d[1] * d[1]) + 1e-6, wide = best->ra + 1,
           rad[3] = {n / 2 + 5, wide, wide};
    double ax[3][3] = {{d[0] / n, d[1] / n, d[2] / n},
                       {-d[1] / q, d[0] / q, 0},
                       {-d[0] * d[2] / (n * q), -d[1] * d[2] / (n * q), q / n}};
    for (int j = 0; j < 3; j++) {
        double e = 0;
        for (int k = 0; k < 3; k++) {
            l->e.m[3 * k + j] = (float)(ax[k][j] / rad[k]);
            e += ax[k][j] * ax[k][j] * rad[k] * rad[k];
        }
        l->e.ext[j] = (float)sqrt(e);
    }
    for (int ph = 0; ph < HP_PHASES; ph++)
        l->core[ph] = (float)(hu[ph] + num_normal(r, 0, 6));
    l->absolute = true;
    l->edge_mm = .8f;
    add(p, HP_PH_THROMBUS, false);
}

static void wedge(hp_phantom *p, num_rng *r)
{
    double c[3], d = num_in(r, 30, 70);
    if (!place(p, r, d / 4, BORDER, c))
        return;
    double in_a = num_in(r, 18, 45), in_v = num_in(r, 0, 8);
    const double hu[4] = {0, in_a, in_v, 0};
    hp_ph_lesion *l = shape(p, r, c, d, .1);
    double v[3] = {c[0] - -.25 * p->ai, c[1] - p->yi, c[2] + 85},
           n = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]) + 1e-6;
    for (int k = 0; k < 3; k++)
        l->cone_dir[k] = (float)(v[k] / n);
    l->cone_cos = (float)num_in(r, .8, .93);
    for (int ph = 0; ph < HP_PHASES; ph++)
        l->core[ph] = (float)hu[ph];
    l->soft = true;
    l->edge_mm = (float)num_in(r, 1, 2.5);
    add(p, HP_PH_WEDGE, false);
}

static void lipiodol(hp_phantom *p, num_rng *r)
{
    double c[3], d = num_in(r, 8, 35);
    if (!place(p, r, d / 2, ANYWHERE, c))
        return;
    const double hu[4] = {5, 5, 0, 0};
    flat(p, r, HP_PH_LIPIODOL, c, d, hu, 3, 2, false, true);
    hp_ph_lesion *l = &p->les[p->truth.n_lesions - 1];
    l->spot_hu = (float)num_in(r, 300, 2500);
    l->tex_cell = (float)num_in(r, .3, .8);
}

static void distractors(hp_phantom *p)
{
    num_rng r = num_stream(p->opt.seed, 8);
    hp_phantom_truth *t = &p->truth;
    const double main_d = t->lesion[0].diameter_mm;
    double c[3];
    int cysts = num_poisson(&r, 1.2);
    for (int k = 0; k < cysts && k < 6; k++) {
        double d = num_chance(&r, .1) ? main_d * num_in(&r, 1.02, 1.3)
                                      : num_clamp(num_lognormal(&r, 10, .6), 3, 40);
        d = num_clamp(d, 3, 110);
        const double hu[4] = {5, 5, 5, 5};
        if (place(p, &r, d / 2, num_chance(&r, .3) ? BORDER : ANYWHERE, c))
            flat(p, &r, HP_PH_CYST, c, d, hu, 6, num_in(&r, .5, 1.2), true, false);
    }
    if (num_chance(&r, .15)) {
        double top = .4 * main_d < 15 ? .4 * main_d : 15, d = num_in(&r, .55, 1) * top;
        if (d > 4 && place(p, &r, d / 2, ANYWHERE, c)) {
            tumour(p, &r, HP_PH_HEMANGIOMA, c, d, false);
            t->lesion[t->n_lesions - 1].kind = HP_PH_SMALL_HEMANGIOMA;
            t->lesion[t->n_lesions - 1].cls = -1;
        }
    }
    if (num_chance(&r, .08)) {
        double d = num_in(&r, 20, 40);
        const double hu[4] = {-12, -22, -36, -22};
        if (place(p, &r, d / 2, BORDER, c))
            flat(p, &r, HP_PH_SCAR, c, d, hu, 6, num_in(&r, 1, 3), false, false);
    }
    if (num_chance(&r, .08)) {
        double d = num_in(&r, 3, 10), q = num_in(&r, 300, 900);
        const double hu[4] = {q, q, q, q};
        if (place(p, &r, d / 2, ANYWHERE, c))
            flat(p, &r, HP_PH_GRANULOMA, c, d, hu, 20, .6, true, false);
    }
    if (num_chance(&r, .08))
        thrombus(p, &r);
    if (t->cirrhosis)
        for (int k = num_int(&r, 3, 10); k > 0 && t->n_lesions < HP_PH_MAX_LESIONS - 6;
             k--) {
            double d = num_in(&r, 5, 15);
            double nc = num_in(&r, 0, 8), ar = num_in(&r, -6, 8), ve = num_in(&r, -14, 2),
                   de = num_in(&r, -12, 2);
            const double hu[4] = {nc, ar, ve, de};
            if (place(p, &r, d / 2, ANYWHERE, c))
                flat(p, &r, HP_PH_NODULE, c, d, hu, 0, num_in(&r, .8, 2), false, false);
        }
    if (num_chance(&r, .20)) {
        double d = num_in(&r, 14, 40);
        double s = t->fatty ? num_in(&r, 12, 25) : -num_in(&r, 15, 32);
        const double hu[4] = {s, s, s, s};
        if (place(p, &r, d / 2, FALCIFORM, c))
            flat(p, &r, t->fatty ? HP_PH_SPARING : HP_PH_FOCAL_FAT, c, d, hu, 2,
                 num_in(&r, 2, 5), false, true);
    }
    if (num_chance(&r, .25))
        wedge(p, &r);
    if (num_chance(&r, .05))
        lipiodol(p, &r);
}

void hp_ph__draw_lesions(hp_phantom *p)
{
    primaries(p);
    if (!p->opt.no_distractors)
        distractors(p);
}
