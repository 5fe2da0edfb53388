/* Paints a row of sample points: the trunk, then the organs from back to
 * front, then the bones. What is painted later covers what was there. */
#include "tests/phantom/phantom_internal.h"

static inline float clamp01(float v)
{
    return v < 0 ? 0 : v > 1 ? 1 : v;
}

static void blend(float *hu, const float *d, int a, int b, float w, float to)
{
    const float iw = 1 / w;
    for (int i = a; i < b; i++)
        hu[i] += clamp01(.5f - d[i] * iw) * (to - hu[i]);
}

/* Inside the abdomen only: not through the wall, not through the diaphragm. */
static void clip(const hp_row *r, float *d, int a, int b, float gap)
{
    for (int i = a; i < b; i++) {
        float k = r->din[i] + gap, m = r->ddia[i] + gap;
        k = k > m ? k : m;
        d[i] = d[i] > k ? d[i] : k;
    }
}

/* ---- trunk ---- */

static void paint_table(const hp_phantom *p, int ph, hp_row *r)
{
    if (!p->has_table || r->y < p->table_y - 2)
        return;
    for (int i = 0; i < r->n; i++) {
        float x = r->x[i];
        if (fabsf(x) > 215)
            continue;
        float top = p->table_y + 8 - (8 + x * x * (-1.f / (2 * p->table_r)) + 0) * .0f -
                    x * x / (2 * p->table_r) + 6;
        float d = fabsf(r->y - top) - 1.3f;
        r->hu[i] += clamp01(.5f - d / r->w) * (p->mat[ph][MAT_TABLE] - r->hu[i]);
    }
}

static void paint_ribs(const hp_phantom *p, int ph, hp_row *r, int a, int b)
{
    const float ib = 1 / p->bi, ia = 1 / p->ai, v = (r->y - p->yi) * ib, w = r->w,
                ip = 1 / p->rib_pitch;
    const float cort = p->mat[ph][MAT_CORTICAL], mar = p->mat[ph][MAT_MARROW],
                cart = p->mat[ph][MAT_CARTILAGE];
    for (int i = a; i < b; i++) {
        float dr = r->din[i] - 5.5f;
        if (dr > 7 || dr < -7)
            continue;
        float u = r->x[i] * ia;
        float g = sqrtf(.5f - .5f * v / sqrtf(u * u + v * v + 1e-4f)); /* sin(angle/2) */
        float t = (r->z + p->rib_drop * g - p->rib_z0) * ip;
        float k = (float)(int)(t + 1000.5f) - 1000;
        float zr = p->rib_z0 + k * p->rib_pitch;
        if (zr < -185 || g > .62f + (zr + 185) * .0034f || g > .985f)
            continue;
        float dz = (t - k) * p->rib_pitch * .8f;
        float d = (sqrtf(dr * dr * .055f + dz * dz * .026f) - 1) * 4.6f;
        float c = clamp01(.5f - d / w);
        if (c <= 0)
            continue;
        float in = clamp01((-d - 1.6f) / w + .5f);
        float hu = g > .88f ? cart : cort + in * (mar * .9f - cort);
        r->hu[i] += c * (hu - r->hu[i]);
    }
}

static void paint_trunk(const hp_phantom *p, int ph, hp_row *r)
{
    if (r->y < -p->b - 3 || r->y > p->b + 3)
        return;
    const float *mat = p->mat[ph];
    hp_ph__squircle(r, p->a, p->b, p->c4, 0, r->t1);
    for (int i = 0; i < r->n; i++)
        if (fabsf(r->t1[i]) < 16) /* nobody is an ellipse */
            r->t1[i] += 3.2f * hp_ph__tile(p->tile_t, r->x[i] * .028f, r->y * .028f,
                                           r->z * .014f);
    blend(r->hu, r->t1, 0, r->n, r->w, 15); /* skin */
    for (int i = 0; i < r->n; i++)
        r->t1[i] += 1.8f;
    blend(r->hu, r->t1, 0, r->n, r->w, mat[MAT_SUBCUT]);
    if (r->i0 >= r->i1 && (r->y < p->yi - p->bw || r->y > p->yi + p->bw))
        return;
    hp_ph__squircle(r, p->aw, p->bw, p->ci, p->yi, r->t2);
    for (int i = 0; i < r->n; i++)
        if (fabsf(r->t2[i]) < 14)
            r->t2[i] +=
                2.6f * hp_ph__tile(p->tile_u, r->x[i] * .04f, r->y * .04f, r->z * .02f);
    for (int i = 0; i < r->n; i++)
        r->t2[i] = r->t2[i] > r->t1[i] + 1 ? r->t2[i] : r->t1[i] + 1;
    int a = 0, b = r->n;
    while (a < b && r->t2[a] > 2)
        a++;
    while (b > a && r->t2[b - 1] > 2)
        b--;
    const float w = r->w, mus = mat[MAT_MUSCLE], fat = mat[MAT_FAT];
    for (int i = a; i < b; i++) {
        float c = clamp01(.5f - r->t2[i] / w);
        if (c <= 0)
            continue;
        /* Muscle in sheets: fat where the tile says so, less so in the thin. */
        float m = mus;
        if (i < r->i0 || i >= r->i1 || r->din[i] > -2) {
            float f = hp_ph__tile(p->tile_u, r->x[i] * .14f, r->y * .14f, r->z * .05f);
            m += clamp01((f - .55f) * 1.4f) * (fat - mus) * .8f;
        }
        r->hu[i] += c * (m - r->hu[i]);
    }
}

/* Fat below the diaphragm, lung above. */
static void paint_cavity(const hp_phantom *p, int ph, hp_row *r)
{
    const float *mat = p->mat[ph], w = r->w, iw = 1 / w;
    const float lung = mat[MAT_LUNG], fat = mat[MAT_FAT];
    for (int i = r->i0; i < r->i1; i++) {
        float c = clamp01(.5f - r->din[i] * iw);
        if (c <= 0)
            continue;
        float up = clamp01(.5f + r->ddia[i] * iw), hu = fat;
        if (up > 0) {
            float l = lung;
            float t =
                hp_ph__tile(p->tile_u, r->px[i] * .42f, r->py[i] * .42f, r->pz[i] * .2f);
            l += t > 1.9f ? (t - 1.9f) * 1500 : t * 16;
            l = l > 60 ? 60 : l;
            if (p->has_effusion && r->y > p->effusion_y[r->x[i] > 0])
                l = mat[MAT_ASCITES];
            hu += up * (l - hu);
            float wall = clamp01(.5f - (fabsf(r->ddia[i]) - .9f) * iw);
            hu += wall * (mat[MAT_MUSCLE] - hu) * (r->ddia[i] < 3 ? .8f : 0);
        } else {
            /* Mesentery: strands and small vessels. */
            float t =
                hp_ph__tile(p->tile_t, r->px[i] * .2f, r->py[i] * .2f, r->pz[i] * .2f);
            hu += t * 6 + (t > 1.3f ? (t - 1.3f) * 110 : 0);
        }
        r->hu[i] += c * (hu - r->hu[i]);
    }
}

static void paint_chest(const hp_phantom *p, int ph, hp_row *r)
{
    if (r->pz1 < -75)
        return;
    const float *mat = p->mat[ph];
    int a, b;
    float *d = r->t1;
    if (hp_ph__row_ell(&p->mediastinum, r, 4, d, &a, &b)) {
        for (int i = a; i < b; i++) {
            float k = 3 - r->ddia[i];
            d[i] = d[i] > k ? d[i] : k;
            d[i] = d[i] > r->din[i] ? d[i] : r->din[i];
        }
        blend(r->hu, d, a, b, r->w, mat[MAT_FAT] + 20);
    }
    if (!hp_ph__row_ell(&p->heart, r, p->heart_fat + 4, d, &a, &b))
        return;
    for (int i = a; i < b; i++) {
        float k = 2.5f - r->ddia[i], m = r->din[i] + 3;
        k = k > m ? k : m;
        d[i] = d[i] > k ? d[i] : k;
        r->t2[i] = d[i] - p->heart_fat;
    }
    blend(r->hu, r->t2, a, b, r->w, mat[MAT_FAT]);
    blend(r->hu, d, a, b, r->w, mat[MAT_HEART_WALL]);
    const hp_ell *room[3] = {&p->ventricle_l, &p->ventricle_r, &p->atrium};
    const int mats[3] = {MAT_HEART_LEFT, MAT_HEART_RIGHT, MAT_HEART_RIGHT};
    for (int k = 0; k < 3; k++) {
        int c, e;
        if (!hp_ph__row_ell(room[k], r, 3, r->t2, &c, &e))
            continue;
        for (int i = c; i < e; i++) {
            float m = 4 - r->ddia[i];
            r->t2[i] = r->t2[i] > m ? r->t2[i] : m;
        }
        blend(r->hu, r->t2, c, e, r->w * 1.6f, mat[mats[k]]);
    }
}

/* ---- abdomen ---- */

static void paint_gut(const hp_phantom *p, int ph, hp_row *r, const hp_gut *g)
{
    int a, b;
    float *d = r->t1;
    if (!hp_ph__row_ell(&g->e, r, 4, d, &a, &b))
        return;
    for (int i = a; i < b; i++)
        if (fabsf(d[i]) < 12)
            d[i] += 1.6f * hp_ph__tile(p->tile_u, r->px[i] * .12f, r->py[i] * .12f,
                                       r->pz[i] * .12f);
    clip(r, d, a, b, 2);
    blend(r->hu, d, a, b, r->w, p->mat[ph][MAT_BOWEL_WALL]);
    for (int i = a; i < b; i++) {
        float c = clamp01(.5f - (d[i] + g->wall_mm) / r->w);
        if (c <= 0)
            continue;
        float hu = g->content_hu;
        if (g->speckle_hu > 0) {
            float t =
                hp_ph__tile(p->tile_t, r->px[i] * .4f, r->py[i] * .4f, r->pz[i] * .4f);
            hu += g->speckle_hu * t;
            if (g->gas_speckle > 0 && t > 2.2f - 4 * g->gas_speckle)
                hu -= 700;
        }
        /* The level is flat in the room, not in the organ. */
        hu += clamp01(.5f - (r->y - g->level_y) / r->w) * (-960 - hu);
        r->hu[i] += c * (hu - r->hu[i]);
    }
}

static void paint_spleen(const hp_phantom *p, int ph, hp_row *r)
{
    int a, b, c, e;
    float *d = r->t1;
    if (!hp_ph__row_ell(&p->spleen, r, 6 + p->ascites_mm, d, &a, &b))
        return;
    if (hp_ph__row_ell(&p->spleen_cut, r, 6, r->t2, &c, &e))
        for (int i = c > a ? c : a; i < (e < b ? e : b); i++)
            d[i] = d[i] > -r->t2[i] ? d[i] : -r->t2[i];
    for (int i = a; i < b; i++)
        if (fabsf(d[i]) < 8)
            d[i] += 1.2f * hp_ph__tile(p->tile_t, r->px[i] * .12f, r->py[i] * .12f,
                                       r->pz[i] * .12f);
    clip(r, d, a, b, 2.5f);
    if (p->ascites_mm > 0) {
        for (int i = a; i < b; i++)
            r->t2[i] = d[i] - p->ascites_mm * .7f;
        clip(r, r->t2, a, b, 1.5f);
        blend(r->hu, r->t2, a, b, r->w, p->mat[ph][MAT_ASCITES]);
    }
    const float hu = p->mat[ph][MAT_SPLEEN], moire = ph == HP_PHASE_A ? 26 : 0;
    for (int i = a; i < b; i++) {
        float k = clamp01(.5f - d[i] / r->w);
        if (k <= 0)
            continue;
        float m = hu;
        if (moire > 0)
            m += moire * hp_ph__tile(p->tile_u, r->px[i] * .16f, r->py[i] * .16f,
                                     r->pz[i] * .16f);
        r->hu[i] += k * (m - r->hu[i]);
    }
}

static void paint_kidney(const hp_phantom *p, int ph, hp_row *r, int side)
{
    int a, b, c, e;
    float *d = r->t1;
    const float *mat = p->mat[ph];
    if (!hp_ph__row_ell(&p->kidney[side], r, 10, d, &a, &b))
        return;
    for (int i = a; i < b; i++)
        r->t2[i] = d[i] - 6;
    clip(r, r->t2, a, b, 1);
    blend(r->hu, r->t2, a, b, r->w * 2, mat[MAT_FAT]);
    clip(r, d, a, b, 3);
    for (int i = a; i < b; i++) {
        float k = clamp01(.5f - d[i] / r->w);
        if (k <= 0)
            continue;
        float t =
            hp_ph__tile(p->tile_u, r->px[i] * .14f, r->py[i] * .14f, r->pz[i] * .14f);
        float m = clamp01((-d[i] - 5.5f - 3 * t) / 2.5f);
        float hu = mat[MAT_CORTEX] + m * (mat[MAT_MEDULLA] - mat[MAT_CORTEX]);
        r->hu[i] += k * (hu - r->hu[i]);
    }
    if (!hp_ph__row_ell(&p->sinus[side], r, 3, r->t2, &c, &e))
        return;
    blend(r->hu, r->t2, c, e, r->w * 1.5f, mat[MAT_FAT]);
    for (int i = c; i < e; i++)
        r->t2[i] += 5;
    blend(r->hu, r->t2, c, e, r->w, mat[MAT_PELVIS]);
}

/* ---- liver ---- */

static float texture_at(const hp_phantom *p, const hp_ph_lesion *l, int ph, float x,
                        float y, float z)
{
    float c[3] = {x * l->tex_cell, y * l->tex_cell, z * l->tex_cell};
    float u = c[l->tex_swap], v = c[(l->tex_swap + 1) % 3], w = c[(l->tex_swap + 2) % 3];
    float t =
        hp_ph__tile(p->tile_t, u + l->tex_off[0], v + l->tex_off[1], w + l->tex_off[2]);
    if (ph == HP_PHASE_A) {
        float o = hp_ph__tile(p->tile_u, u + l->tex_off2[0], v + l->tex_off2[1],
                              w + l->tex_off2[2]);
        t = l->rho * t + sqrtf(1 - l->rho * l->rho) * o;
    }
    return t * l->tex_amp[ph];
}

/* HU in a lesion at depth `in` below its surface. */
static float lesion_hu(const hp_phantom *p, const hp_ph_lesion *l, int ph, float liver,
                       float x, float y, float z, float in, float w)
{
    float hu = (l->absolute ? 0 : liver) + l->core[ph], rim = l->rim[ph];
    if (l->knobs) {
        float t = hp_ph__tile(p->tile_u, x * l->lob_cell * 2 + 7, y * l->lob_cell * 2,
                              z * l->lob_cell * 2);
        float f = clamp01((l->fill[ph] * l->r * (1 + .5f * t) - in) / w + .5f);
        for (int k = 0; ph != HP_PHASE_NC && k < l->knobs; k++) {
            float a = x - l->knob_c[k][0], b = y - l->knob_c[k][1],
                  c = z - l->knob_c[k][2];
            float d = sqrtf(a * a + b * b + c * c) - l->knob_r[k];
            float g = clamp01(.5f - d / (w + 1));
            f = f > g ? f : g;
        }
        hu += f * rim;
    } else if (rim != 0) {
        hu += clamp01((l->rim_mm - in) / w + .5f) * rim;
    }
    if (l->tex_cell > 0 && l->tex_amp[ph] > 0)
        hu += texture_at(p, l, ph, x, y, z);
    if (l->arms || l->necrosis_r > 0) {
        float a = x - l->e.c[0], b = y - l->e.c[1], c = z - l->e.c[2];
        float q = sqrtf(a * a + b * b + c * c);
        for (int k = 0; k < l->arms; k++) {
            float h = a * l->arm_dir[k][0] + b * l->arm_dir[k][1] + c * l->arm_dir[k][2];
            h = h < 0 ? 0 : h > l->r * .65f ? l->r * .65f : h;
            float u = a - h * l->arm_dir[k][0], v = b - h * l->arm_dir[k][1],
                  t = c - h * l->arm_dir[k][2];
            float d = sqrtf(u * u + v * v + t * t) - l->arm_mm;
            float g = clamp01(.5f - d / w);
            if (g > 0) {
                hu += g * (liver + l->core[ph] + l->arm_hu[ph] - hu);
                break;
            }
        }
        if (l->necrosis_r > 0) {
            float t = hp_ph__tile(p->tile_t, x * l->lob_cell * 2,
                                  y * l->lob_cell * 2 + 11, z * l->lob_cell * 2);
            float g =
                clamp01((l->necrosis_r * l->r * (1 + .25f * t) - q) / (w + 1) + .5f);
            hu += g * (l->necrosis_hu - hu);
        }
    }
    return hu;
}

static void paint_lesion(const hp_phantom *p, int ph, hp_row *r, int k)
{
    const hp_ph_lesion *l = &p->les[k];
    int a, b;
    float *d = r->t1;
    float w = 2.5f * l->edge_mm > r->w ? 2.5f * l->edge_mm : r->w;
    if (!hp_ph__row_lesion(p, k, r, w, d, &a, &b))
        return;
    const float liver = p->mat[ph][MAT_LIVER];
    for (int i = a; i < b; i++) {
        float c = clamp01(.5f - d[i] / w);
        if (c <= 0)
            continue;
        c = c * c * (3 - 2 * c);
        float x = r->px[i], y = r->py[i], z = r->pz[i];
        if (l->spot_hu > 0) {
            float t =
                hp_ph__tile(p->tile_u, x * l->tex_cell, y * l->tex_cell, z * l->tex_cell);
            r->lhu[i] += c * clamp01((t - 1.1f) * .9f) * l->spot_hu;
        } else if (l->soft) {
            r->lhu[i] += c * l->core[ph];
        } else {
            r->lhu[i] +=
                c * (lesion_hu(p, l, ph, liver, x, y, z, -d[i], r->w) - r->lhu[i]);
        }
    }
}

static void paint_liver(const hp_phantom *p, int ph, hp_row *r)
{
    int a = r->i0, b = r->i1, c, e;
    while (a < b && r->dliv[a] > r->w)
        a++;
    while (b > a && r->dliv[b - 1] > r->w)
        b--;
    if (a >= b)
        return;
    const float liver = p->mat[ph][MAT_LIVER];
    for (int i = a; i < b; i++)
        r->lhu[i] = liver;
    if (p->paren_amp > .5f)
        for (int i = a; i < b; i++)
            if (r->dliv[i] < r->w)
                r->lhu[i] +=
                    p->paren_amp * hp_ph__tile(p->tile_t, r->px[i] * p->paren_cell,
                                               r->py[i] * p->paren_cell,
                                               r->pz[i] * p->paren_cell);
    for (int k = 0; k < p->n_liver_tubes; k++) {
        const hp_tube *t = &p->liver_tube[k];
        if (!hp_ph__row_tube(t, r, 1 + r->w * .5f, r->t1, &c, &e))
            continue;
        blend(r->lhu, r->t1, c, e, r->w, p->mat[ph][t->mat]);
    }
    for (int k = p->truth.n_lesions - 1; k >= 0; k--)
        paint_lesion(p, ph, r, k);
    for (int i = a; i < b; i++)
        r->hu[i] += clamp01(.5f - r->dliv[i] / r->w) * (r->lhu[i] - r->hu[i]);
}

static void paint_gallbladder(const hp_phantom *p, int ph, hp_row *r)
{
    int a, b;
    if (!p->has_gallbladder || !hp_ph__row_ell(&p->gallbladder, r, 4, r->t1, &a, &b))
        return;
    clip(r, r->t1, a, b, 2);
    blend(r->hu, r->t1, a, b, r->w, p->mat[ph][MAT_BOWEL_WALL]);
    for (int i = a; i < b; i++)
        r->t1[i] += 2;
    blend(r->hu, r->t1, a, b, r->w, p->mat[ph][MAT_BILE]);
    if (p->has_stone && hp_ph__row_ell(&p->stone, r, 2, r->t1, &a, &b))
        blend(r->hu, r->t1, a, b, r->w, p->mat[ph][MAT_STONE]);
}

static bool paint_abdomen(const hp_phantom *p, int ph, hp_row *r)
{
    const float *mat = p->mat[ph];
    int a, b;
    bool liver = hp_ph__row_liver(p, r, true);
    if (r->z < -110) /* psoas */
        for (int s = -1; s <= 1; s += 2) {
            float y = (r->y - p->spine_y + 2) / p->psoas_r, grow = (-110 - r->z) / 80;
            grow = grow > 1 ? 1 : grow;
            for (int i = r->i0; i < r->i1 && fabsf(y) < 1.2f; i++) {
                float x = (r->x[i] - (float)s * (p->spine_r[0] + p->psoas_r * .7f)) /
                          p->psoas_r;
                float d = (sqrtf(x * x + y * y) - grow) * p->psoas_r;
                r->hu[i] += clamp01(.5f - d / r->w) * (mat[MAT_MUSCLE] - r->hu[i]);
            }
        }
    if (p->ascites_mm > 0 && liver) {
        for (int i = r->i0; i < r->i1; i++)
            r->t1[i] = r->dliv[i] - p->ascites_mm;
        clip(r, r->t1, r->i0, r->i1, 1);
        blend(r->hu, r->t1, r->i0, r->i1, r->w, mat[MAT_ASCITES]);
    }
    for (int k = p->n_gut - 1; k >= 0; k--) /* stomach last */
        paint_gut(p, ph, r, &p->gut[k]);
    for (int k = 0; k < p->n_pancreas; k++)
        if (hp_ph__row_tube(&p->pancreas[k], r, 4, r->t1, &a, &b)) {
            for (int i = a; i < b; i++)
                r->t1[i] += 2.2f * hp_ph__tile(p->tile_u, r->px[i] * .2f, r->py[i] * .2f,
                                               r->pz[i] * .2f);
            blend(r->hu, r->t1, a, b, r->w, mat[MAT_PANCREAS]);
        }
    paint_spleen(p, ph, r);
    paint_kidney(p, ph, r, 0);
    paint_kidney(p, ph, r, 1);
    if (liver)
        paint_liver(p, ph, r);
    paint_gallbladder(p, ph, r);
    return liver;
}

/* ---- bones ---- */

static void paint_spine(const hp_phantom *p, int ph, hp_row *r)
{
    const float y0 = p->spine_y, *mat = p->mat[ph], w = r->w;
    float y = r->y - y0;
    if (y < -p->spine_r[1] - 4 || y > 58)
        return;
    float t = (r->z - p->spine_z0) / p->disc_mm, k = t - (float)(int)(t + 1000) + 1000;
    float to_disc = (k < .5f ? k : 1 - k) * p->disc_mm - 3.5f; /* > 0: in the vertebra */
    float bone = clamp01(.5f + to_disc / (w + .5f)),
          arch = clamp01(.5f + (to_disc - 3) / w);
    float iy = 1 / p->spine_r[1], ix = 1 / p->spine_r[0], v = y * iy;
    int a = (int)((-72 - r->x0) / r->dx), b = (int)((72 - r->x0) / r->dx) + 2;
    a = a < 0 ? 0 : a;
    b = b > r->n ? r->n : b;
    float by = (y - 34) * (1 / 17.f),
          limit = p->yi + p->bw - 1; /* long muscles of the back */
    if (by < 1.2f && by > -1.2f && r->y < limit)
        for (int i = a; i < b; i++) {
            float x = (fabsf(r->x[i]) - 32) * (1 / 31.f),
                  d = (sqrtf(x * x + by * by) - 1) * 17;
            float f = clamp01(
                (hp_ph__tile(p->tile_u, r->x[i] * .2f, r->y * .2f, r->z * .05f) - .9f) *
                1.4f);
            r->hu[i] +=
                clamp01(.5f - d / w) *
                (mat[MAT_MUSCLE] + f * .6f * (mat[MAT_FAT] - mat[MAT_MUSCLE]) - r->hu[i]);
        }
    for (int i = a; i < b; i++) {
        float x = r->x[i], ax = fabsf(x), u = x * ix;
        float d = (sqrtf(u * u + v * v) - 1) * p->spine_r[1];
        float c = clamp01(.5f - d / w);
        float in = clamp01((-d - 2) / (w + .5f) + .5f) * clamp01((to_disc - 1.5f) / 1.5f);
        float vb = mat[MAT_CORTICAL] * .55f, inside = mat[MAT_MARROW];
        if (c > 0 && bone > 0)
            inside += 35 * hp_ph__tile(p->tile_t, x * .5f, y * .5f, r->z * .5f);
        vb += in * (inside - vb);
        float hu = mat[MAT_DISC] + bone * (vb - mat[MAT_DISC]);
        r->hu[i] += c * (hu - r->hu[i]);
        /* canal, arch, spinous and transverse processes */
        float cy = y - p->spine_r[1] - 9, q = sqrtf(x * x * .8f + cy * cy);
        float ring = fabsf(q - 12.5f) - 3.2f;
        float spin = ax - 2.6f > 0 ? ax - 2.6f : 0, sl = cy < 12   ? 12 - cy
                                                         : cy > 25 ? cy - 25
                                                                   : 0;
        spin = sqrtf(spin * spin + sl * sl) - 2;
        float tl = ax < 12 ? 12 - ax : ax > 36 ? ax - 36 : 0, ty = cy - 2 - ax * .18f;
        float trans = sqrtf(tl * tl + ty * ty) - 4;
        float e = ring < trans ? ring : trans;
        e = e < spin ? e : spin;
        if (cy < -4 && ax < 8)
            e = 9; /* the body's back wall is the canal's front */
        float m = clamp01(.5f - e / w) * arch;
        float in2 = clamp01((-e - 1.5f) / w);
        r->hu[i] += m * (mat[MAT_CORTICAL] * .8f -
                         in2 * (mat[MAT_CORTICAL] * .8f - inside) - r->hu[i]);
        float can = q - 9;
        if (cy > -8)
            r->hu[i] += clamp01(.5f - can / w) * (mat[MAT_CANAL] - r->hu[i]);
    }
}

void hp_ph__paint_row(const hp_phantom *p, int ph, hp_row *r)
{
    int a, b;
    hp_ph__row_begin(p, ph, r);
    for (int i = 0; i < r->n; i++)
        r->hu[i] = -1000;
    paint_table(p, ph, r);
    paint_trunk(p, ph, r);
    if (r->i0 < r->i1) {
        paint_cavity(p, ph, r);
        paint_chest(p, ph, r);
        bool liver = r->pz0 < 12 && paint_abdomen(p, ph, r);
        for (int k = 0; k < p->n_tubes; k++)
            if (hp_ph__row_vessel(p, k, r, liver, r->t1, &a, &b))
                blend(r->hu, r->t1, a, b, r->w, p->mat[ph][p->tube[k].mat]);
    }
    if (r->y > p->yi - p->bw - 4 && r->y < p->yi + p->bw + 4) {
        if (r->i0 >= r->i1)
            hp_ph__squircle(r, p->ai, p->bi, p->ci, p->yi, r->din);
        paint_ribs(p, ph, r, 0, r->n);
    }
    paint_spine(p, ph, r);
}
