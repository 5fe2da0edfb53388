/* The phantom's door: makes a patient, tells the truth about it. */
#include "tests/phantom/phantom.h"

#include <stdlib.h>
#include <string.h>

#include "tests/phantom/phantom_internal.h"

static const char *const kind_names[] = {
#define HP__X(id, name, cls, focal) name,
    HP_PH_KINDS(HP__X)
#undef HP__X
};

const char *hp_phantom_kind_name(int kind)
{
    return kind >= 0 && kind < HP_PH_KIND_COUNT ? kind_names[kind] : "-";
}

const char *hp_phantom_class_name(int cls)
{
    static const char *const names[HP_PH_CLASSES] = {"hcc", "icc", "benign",
                                                     "metastasis"};
    return cls >= 0 && cls < HP_PH_CLASSES ? names[cls] : "-";
}

void hp_phantom_free(hp_phantom *p)
{
    if (!p)
        return;
    free(p->tile_t);
    free(p->tile_u);
    for (int ph = 0; ph < HP_PHASES; ph++)
        free(p->lat[ph]);
    free(p);
}

const hp_phantom_truth *hp_phantom_get_truth(const hp_phantom *p)
{
    return &p->truth;
}

const hp_phantom_options *hp_phantom_get_options(const hp_phantom *p)
{
    return &p->opt;
}

hp_geom hp_phantom_grid(const hp_phantom *p, int phase)
{
    return p->grid[phase];
}

int hp_phantom_pad_hu(const hp_phantom *p, int phase)
{
    return p->pad[phase];
}

/* Rows of labels over an axis-aligned grid in body coordinates. */
static void label_row(const hp_phantom *p, int phase, hp_row *r, uint8_t *out)
{
    int a, b;
    memset(out, 0, (size_t)r->n);
    hp_ph__row_begin(p, phase, r);
    if (r->i0 >= r->i1 || !hp_ph__row_liver(p, r, true))
        return;
    /* What lies in the liver's bed and is not liver: gallbladder, IVC, trunks. */
    if (p->has_gallbladder && hp_ph__row_ell(&p->gallbladder, r, 2, r->t1, &a, &b))
        for (int i = a; i < b; i++)
            r->dliv[i] = r->dliv[i] > -r->t1[i] ? r->dliv[i] : -r->t1[i];
    for (int k = 0; k < p->n_tubes; k++)
        if (hp_ph__row_vessel(p, k, r, true, r->t1, &a, &b))
            for (int i = a; i < b; i++)
                r->dliv[i] = r->dliv[i] > -r->t1[i] ? r->dliv[i] : -r->t1[i];
    for (int i = r->i0; i < r->i1; i++)
        out[i] = r->dliv[i] < 0;
    for (int k = p->truth.n_lesions - 1; k >= 0; k--)
        if (hp_ph__row_lesion(p, k, r, 0, r->t1, &a, &b))
            for (int i = a; i < b; i++)
                if (r->t1[i] < 0 && out[i])
                    out[i] = (uint8_t)(2 + k);
}

static void body_origin(const hp_phantom *p, const hp_geom *g, double o[3])
{
    for (int c = 0; c < 3; c++)
        o[c] = g->origin_mm[c] - p->frame_mm[c];
}

static hp_code check_grid(const hp_geom *g, int phase, hp_error *reterr)
{
    if (phase < 0 || phase >= HP_PHASES)
        return hp_fail(reterr, HP_E_INVALID, "phantom: no phase %d", phase);
    for (int k = 0; k < 3; k++)
        if (g->n[k] < 1 || !(g->spacing_mm[k] > 0) || fabs(g->axis[k][2 - k] - 1) > 1e-6)
            return hp_fail(reterr, HP_E_UNSUPPORTED, "phantom: the grid is not axial");
    return HP_OK;
}

hp_code hp_phantom_labels(const hp_phantom *p, int phase, const hp_geom *g,
                          uint8_t *label, hp_error *reterr)
{
    hp_code rc = check_grid(g, phase, reterr);
    if (rc != HP_OK)
        return rc;
    hp_row *r = malloc(sizeof(*r));
    if (!r)
        return hp_fail(reterr, HP_E_NO_MEMORY, "phantom labels");
    double o[3];
    body_origin(p, g, o);
    for (int z = 0; z < g->n[HP_Z]; z++)
        for (int y = 0; y < g->n[HP_Y]; y++)
            for (int x = 0; x < g->n[HP_X]; x += HP_ROW_MAX) {
                int left = g->n[HP_X] - x;
                r->n = left < HP_ROW_MAX ? left : HP_ROW_MAX;
                r->dx = (float)g->spacing_mm[HP_X];
                r->x0 = (float)(o[0] + x * g->spacing_mm[HP_X]);
                r->y = (float)(o[1] + y * g->spacing_mm[HP_Y]);
                r->z = (float)(o[2] + z * g->spacing_mm[HP_Z]);
                label_row(p, phase, r,
                          label +
                              ((size_t)z * (size_t)g->n[HP_Y] + (size_t)y) *
                                  (size_t)g->n[HP_X] +
                              x);
            }
    free(r);
    return HP_OK;
}

/* What is at q in V is at q + u in `phase`: solve q + u + b(q + u) = q. */
hp_code hp_phantom_displacement(const hp_phantom *p, int phase, const hp_geom *g,
                                float *u, hp_error *reterr)
{
    hp_code rc = check_grid(g, phase, reterr);
    if (rc != HP_OK)
        return rc;
    double o[3];
    body_origin(p, g, o);
    for (int z = 0; z < g->n[HP_Z]; z++)
        for (int y = 0; y < g->n[HP_Y]; y++)
            for (int x = 0; x < g->n[HP_X]; x++, u += 3) {
                double q[3] = {o[0] + x * g->spacing_mm[HP_X],
                               o[1] + y * g->spacing_mm[HP_Y],
                               o[2] + z * g->spacing_mm[HP_Z]};
                double d[3] = {0, 0, 0}, b[3], at[3];
                for (int k = 0; k < 10 && phase != HP_PHASE_V && p->opt.motion_mm > 0;
                     k++) {
                    for (int c = 0; c < 3; c++)
                        at[c] = q[c] + d[c];
                    hp_ph__breath(p, phase, at, b);
                    for (int c = 0; c < 3; c++)
                        d[c] = -b[c];
                }
                for (int c = 0; c < 3; c++)
                    u[c] = (float)d[c];
            }
    return HP_OK;
}

/* ---- truth ---- */

struct bounds {
    double lo[3], hi[3];
    double n;
};

static void grow_bounds(struct bounds *b, const double at[3], double half)
{
    for (int c = 0; c < 3; c++) {
        b->lo[c] = b->n == 0 || at[c] - half < b->lo[c] ? at[c] - half : b->lo[c];
        b->hi[c] = b->n == 0 || at[c] + half > b->hi[c] ? at[c] + half : b->hi[c];
    }
    b->n++;
}

/* Scans [lo, hi] (body) with one step and collects where the label is `want`
 * (or, for want < 0, any liver). */
static bool scan(const hp_phantom *p, const double lo[3], const double hi[3], double step,
                 int want, struct bounds *b, hp_row *r)
{
    uint8_t row[HP_ROW_MAX];
    b->n = 0;
    int nx = (int)((hi[0] - lo[0]) / step) + 1;
    for (double z = lo[2]; z <= hi[2]; z += step)
        for (double y = lo[1]; y <= hi[1]; y += step) {
            r->n = nx < HP_ROW_MAX ? nx : HP_ROW_MAX;
            r->x0 = (float)lo[0];
            r->dx = (float)step;
            r->y = (float)y;
            r->z = (float)z;
            label_row(p, HP_PHASE_V, r, row);
            for (int i = 0; i < r->n; i++)
                if (want < 0 ? row[i] > 0 : row[i] == want) {
                    double at[3] = {lo[0] + i * step, y, z};
                    grow_bounds(b, at, step / 2);
                }
        }
    return b->n > 0;
}

/* Boxes in LPS. A lesion nobody can see (covered, outside) is dropped. */
static bool measure(hp_phantom *p)
{
    hp_row *r = malloc(sizeof(*r));
    struct bounds b;
    if (!r)
        return false;
    double lo[3] = {-p->ai - 5, p->yi - p->bi - 5, -420},
           hi[3] = {p->ai + 5, p->yi + p->bi + 5, 30};
    hp_phantom_truth *t = &p->truth;
    if (scan(p, lo, hi, 3, -1, &b, r))
        for (int c = 0; c < 3; c++) {
            t->liver_lo_mm[c] = b.lo[c] + p->frame_mm[c];
            t->liver_hi_mm[c] = b.hi[c] + p->frame_mm[c];
        }
    t->liver_ml = b.n * .027;
    for (int k = 0; k < t->n_lesions; k++) {
        hp_phantom_lesion *l = &t->lesion[k];
        double step = num_clamp(l->diameter_mm / 40, .5, 2);
        for (int c = 0; c < 3; c++) {
            double e = p->les[k].e.ext[c] * (1 + 2.2 * p->les[k].lobulation) + 24;
            lo[c] = p->les[k].e.c[c] - e;
            hi[c] = p->les[k].e.c[c] + e;
        }
        /* A coarse look first: the warp may have moved it by 20 mm. */
        double coarse = num_clamp(l->diameter_mm / 6, 1.2, 8);
        if (!scan(p, lo, hi, coarse, 2 + k, &b, r)) {
            t->n_lesions--;
            memmove(&p->les[k], &p->les[k + 1],
                    sizeof(p->les[0]) * (size_t)(t->n_lesions - k));
            memmove(l, l + 1, sizeof(*l) * (size_t)(t->n_lesions - k));
            k--;
            continue;
        }
        for (int c = 0; c < 3; c++) {
            lo[c] = b.lo[c] - coarse;
            hi[c] = b.hi[c] + coarse;
        }
        scan(p, lo, hi, step, 2 + k, &b, r);
        for (int c = 0; c < 3; c++) {
            l->lo_mm[c] = b.lo[c] + p->frame_mm[c];
            l->hi_mm[c] = b.hi[c] + p->frame_mm[c];
            l->centre_mm[c] = (l->lo_mm[c] + l->hi_mm[c]) / 2;
        }
    }
    free(r);
    t->largest_primary = 0;
    for (int k = 1; k < t->n_lesions; k++)
        if (t->lesion[k].primary &&
            t->lesion[k].diameter_mm > t->lesion[t->largest_primary].diameter_mm)
            t->largest_primary = k;
    return true;
}

hp_code hp_phantom_new(const hp_phantom_options *opt, hp_phantom **ret_p,
                       hp_error *reterr)
{
    if (opt->cls >= HP_PH_CLASSES || opt->vendor >= HP_PH_VENDORS || opt->slices < 0 ||
        opt->slices > 2000 || !(opt->motion_mm >= 0 && opt->motion_mm <= 60))
        return hp_fail(reterr, HP_E_INVALID, "phantom: an option is out of range");
    hp_phantom *p = calloc(1, sizeof(*p));
    if (!p)
        return hp_fail(reterr, HP_E_NO_MEMORY, "phantom");
    p->opt = *opt;
    p->truth.seed = opt->seed;
    p->tile_t = malloc(HP_TILE_N * sizeof(float));
    p->tile_u = malloc(HP_TILE_N * sizeof(float));
    bool ok = p->tile_t && p->tile_u;
    for (int ph = 0; ph < HP_PHASES; ph++) {
        p->lat[ph] = malloc((size_t)HP_LAT_X * HP_LAT_Y * HP_LAT_Z * 3 * sizeof(float));
        ok = ok && p->lat[ph];
    }
    if (!ok) {
        hp_phantom_free(p);
        return hp_fail(reterr, HP_E_NO_MEMORY, "phantom");
    }
    hp_ph__make_tile(num_hash(opt->seed * 2 + 1), p->tile_t);
    hp_ph__make_tile(num_hash(opt->seed * 2 + 2), p->tile_u);
    num_rng r = num_stream(opt->seed, 9);
    p->truth.vendor = opt->vendor >= 0 ? opt->vendor : num_int(&r, 0, HP_PH_VENDORS - 1);
    hp_ph__draw_body(p);
    hp_ph__draw_organs(p);
    hp_ph__make_lattice(p);
    hp_ph__draw_vessels(p);
    hp_ph__draw_scan(p);
    hp_ph__draw_lesions(p);
    if (!measure(p)) {
        hp_phantom_free(p);
        return hp_fail(reterr, HP_E_NO_MEMORY, "phantom");
    }
    for (int c = 0; c < 3; c++)
        p->truth.dome_mm[c] = p->frame_mm[c] + (c == 0   ? p->dome[0].c[0]
                                                : c == 1 ? p->dome[0].c[1]
                                                         : -2);
    *ret_p = p;
    return HP_OK;
}
