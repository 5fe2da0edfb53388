/* Phantoms through the pipeline: what it says beside what is true. The numbers in
 * a bundle's provenance are computed from these files (training/metrics). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/path.h"
#include "daemon/prepare.h"
#include "inference/safetensors.h"
#include "kernels/warp.h"

/* --- small words ------------------------------------------------------- */

static json_t *box_json(const hp_box *b)
{
    return json_pack("[f,f,f,f,f,f]", b->lo[0], b->lo[1], b->lo[2], b->hi[0], b->hi[1],
                     b->hi[2]);
}

static json_t *folds_json(const hp_pipeline_detail *d, int classes)
{
    json_t *folds = json_array();

    for (int i = 0; i < d->folds; i++) {
        json_t *one = json_array();

        for (int k = 0; k < classes; k++)
            json_array_append_new(one, json_real(d->fold[i][k]));
        json_array_append_new(folds, one);
    }
    return folds;
}

static json_t *truth_json(const hp_phantom *p)
{
    const hp_phantom_truth *t = hp_phantom_get_truth(p);
    hp_geom v = hp_phantom_grid(p, HP_PHASE_V);
    json_t *lesions = json_array();

    for (int i = 0; i < t->n_lesions; i++) {
        const hp_phantom_lesion *l = &t->lesion[i];
        hp_box b = hp_prepare_box(l, &v);

        json_array_append_new(
            lesions,
            json_pack("{s:i,s:s,s:i,s:b,s:b,s:b,s:f,s:o}", "kind", l->kind, "kind_name",
                      hp_phantom_kind_name(l->kind), "class", l->cls, "primary",
                      l->primary, "focal", l->focal, "largest", i == t->largest_primary,
                      "diameter_mm", l->diameter_mm, "box_mm", box_json(&b)));
    }
    return json_pack("{s:i,s:b,s:f,s:o}", "class", t->cls, "cirrhosis", t->cirrhosis,
                     "liver_ml", t->liver_ml, "lesions", lesions);
}

static json_t *peaks_json(const hp_pipeline_detail *d)
{
    json_t *all = json_object();

    for (int phase = 0; phase < HP_PHASES; phase++) {
        json_t *list = json_array();

        for (int i = 0; i < d->peak_count[phase] && i < 20; i++) {
            json_t *one = box_json(&d->peak[phase][i].box_mm);

            json_array_insert_new(one, 0, json_real(d->peak[phase][i].score));
            json_array_append_new(list, one);
        }
        json_object_set_new(all, hp_phase_name((hp_phase)phase), list);
    }
    return all;
}

/* path = OUT/part/<seed>.ext; *ret_done when the file is there. */
static hp_code out_path(const hp_prepare *o, const char *part, uint64_t seed,
                        const char *ext, char *path, bool *ret_done, hp_error *reterr)
{
    hp_code r = hp_path_fmt(path, reterr, "%s/%s", o->out, part);

    if (r == HP_OK)
        r = hp_path_mkdirs(path, 0755, reterr);
    if (r == HP_OK)
        r = hp_path_fmt(path, reterr, "%s/%s/%07llu.%s", o->out, part,
                        (unsigned long long)seed, ext);
    *ret_done = r == HP_OK && hp_path_exists(path);
    return r;
}

/* The middle of the box in its plane, and the box in pixels of the patch around it. */
static void patch_around(const hp_box *b, double side, double mm, double centre[2],
                         double rect[4])
{
    for (int a = 0; a < 2; a++) {
        centre[a] = (b->lo[a + 1] + b->hi[a + 1]) / 2;
        rect[a] = side / 2 + (b->lo[a + 1] - centre[a]) / mm;
        rect[2 + a] = side / 2 + (b->hi[a + 1] - centre[a]) / mm;
    }
}

/* --- the truth's own box ------------------------------------------------ */

static hp_code truth_box_json(const hp_prepare *o, const hp_phantom *p, json_t **ret,
                              hp_error *reterr)
{
    const hp_phantom_truth *t = hp_phantom_get_truth(p);
    hp_geom v = hp_phantom_grid(p, HP_PHASE_V);
    hp_box b = hp_prepare_box(&t->lesion[t->largest_primary], &v);
    double mm = hp_pipeline_patch_mm(o->pipeline), centre[2], rect[4], area = 0,
           p_primary = 0;
    int side = hp_pipeline_patch_side(o->pipeline, b.hi[1] - b.lo[1], b.hi[2] - b.lo[2]),
        z = 0;
    int16_t *patch = malloc(HP_PHASES * (size_t)side * side * sizeof *patch);
    hp_pipeline_detail *d = calloc(1, sizeof *d);
    int votes[HP_MAX_CLASSES];
    double mean[HP_MAX_CLASSES];
    hp_code r = patch != NULL && d != NULL
                    ? hp_prepare_best_plane(p, t->largest_primary, &z, &area, reterr)
                    : hp_fail(reterr, HP_E_NO_MEMORY, "truth box");

    patch_around(&b, side, mm, centre, rect);
    if (r == HP_OK)
        r = hp_prepare_patch(p, z, centre, side, mm, patch, reterr);
    if (r == HP_OK)
        r = hp_pipeline_texture(o->pipeline, patch, side, rect, &p_primary, d, reterr);
    if (r == HP_OK) {
        int k = hp_pipeline_vote((const double(*)[HP_MAX_CLASSES])d->fold, d->folds,
                                 HP_PH_CLASSES, votes, mean);

        *ret =
            json_pack("{s:i,s:f,s:o,s:f,s:i}", "key_slice", z, "area_mm2", area, "folds",
                      folds_json(d, HP_PH_CLASSES), "p_primary", p_primary, "class", k);
    }
    free(patch);
    free(d);
    return r;
}

hp_code hp_prepare_truth_box(const hp_prepare *o, uint64_t seed, hp_error *reterr)
{
    hp_auto(hp_phantom) *p = NULL;
    hp_auto(json_t) *out = NULL;
    json_t *box = NULL;
    char path[HP_PATH_MAX];
    bool done;
    hp_code r = out_path(o, "truth", seed, "json", path, &done, reterr);

    if (r != HP_OK || done)
        return r;
    r = hp_prepare_patient(o, seed, &p, reterr);
    if (r == HP_OK)
        r = truth_box_json(o, p, &box, reterr);
    if (r != HP_OK)
        return hp_wrap(reterr, r, "phantom %llu", (unsigned long long)seed);
    out = json_pack("{s:I,s:o,s:o}", "seed", (json_int_t)seed, "truth", truth_json(p),
                    "truth_box", box);
    return hp_json_write_file(path, out, reterr);
}

/* --- the whole pipeline ------------------------------------------------- */

/* The liver's box in V with room for breathing and for the crops around it. */
static hp_voxel_box surroundings(const hp_phantom *p, const hp_geom *g, double margin_mm)
{
    const hp_phantom_truth *t = hp_phantom_get_truth(p);
    hp_voxel_box b;

    for (int a = 0; a < 3; a++) {
        double corner = g->origin_mm[2 - a] - g->spacing_mm[a] / 2;
        double lo = (t->liver_lo_mm[2 - a] - margin_mm - corner) / g->spacing_mm[a];
        double hi = (t->liver_hi_mm[2 - a] + margin_mm - corner) / g->spacing_mm[a];

        b.lo[a] = (int)fmin(fmax(floor(lo), 0), g->n[a] - 1);
        b.hi[a] = (int)fmin(fmax(ceil(hi), b.lo[a] + 1), g->n[a]);
    }
    return b;
}

static hp_geom part_of(const hp_geom *g, const hp_voxel_box *b)
{
    return hp_geom_crop(
        g, b->lo,
        (int[3]){b->hi[0] - b->lo[0], b->hi[1] - b->lo[1], b->hi[2] - b->lo[2]});
}

/* label covers the voxels `b` of the mask's grid; there is no liver elsewhere. */
static double dice(const hp_volume *mask, const uint8_t *label, const hp_voxel_box *b)
{
    size_t both = 0, sum = 0;
    const int *n = mask->geom.n;

    for (size_t i = 0; i < hp_geom_voxels(&mask->geom); i++)
        sum += mask->hu[i] != 0;
    for (int z = b->lo[0]; z < b->hi[0]; z++)
        for (int y = b->lo[1]; y < b->hi[1]; y++)
            for (int x = b->lo[2]; x < b->hi[2]; x++, label++) {
                both += *label && mask->hu[((size_t)z * n[1] + y) * n[2] + x];
                sum += *label != 0;
            }
    return sum > 0 ? 2.0 * (double)both / (double)sum : 1;
}

/* The liver network on each phase alone against that phase's truth. */
static hp_code liver_dice(const hp_prepare *o, const hp_phantom *p,
                          hp_volume *const registered[HP_PHASES], double ret[HP_PHASES],
                          hp_error *reterr)
{
    hp_geom v = hp_phantom_grid(p, HP_PHASE_V), part;
    hp_voxel_box box = surroundings(p, &v, 40);
    uint8_t *label;
    hp_code r;

    part = part_of(&v, &box);
    label = malloc(hp_geom_voxels(&part));
    r = label != NULL ? HP_OK : hp_fail(reterr, HP_E_NO_MEMORY, "labels");

    for (int phase = 0; phase < HP_PHASES && r == HP_OK; phase++) {
        hp_auto(hp_volume) *mask = NULL;

        r = hp_pipeline_liver(o->pipeline, registered[phase], &mask, reterr);
        if (r == HP_OK)
            r = hp_phantom_labels(p, phase, &part, label, reterr);
        if (r == HP_OK)
            ret[phase] = dice(mask, label, &box);
    }
    free(label);
    return r;
}

/* The whole field of view at a quarter of the in-plane resolution, spread out. */
static hp_code render_coarse(const hp_phantom *p, int phase, hp_volume *vol,
                             hp_error *reterr)
{
    const hp_geom *g = &vol->geom;
    hp_geom coarse =
        hp_geom_resample(g, (int[3]){g->n[0], (g->n[1] + 3) / 4, (g->n[2] + 3) / 4});
    hp_auto(hp_volume) *small = NULL;
    hp_code r = hp_volume_new(&coarse, &small, reterr);

    if (r == HP_OK)
        r = hp_phantom_render(p, phase, &coarse, small->hu, reterr);
    return r == HP_OK ? hp_warp_hu_ref(small, g, HP_PAD_HU, vol->hu, reterr) : r;
}

static hp_code render_surroundings(const hp_phantom *p, int phase, hp_volume *vol,
                                   hp_error *reterr)
{
    hp_voxel_box b = surroundings(p, &vol->geom, 40);
    hp_geom part = part_of(&vol->geom, &b);
    hp_auto(hp_volume) *fine = NULL;
    size_t row = (size_t)part.n[2];
    hp_code r = hp_volume_new(&part, &fine, reterr);

    if (r == HP_OK)
        r = hp_phantom_render(p, phase, &part, fine->hu, reterr);
    for (int z = 0; z < part.n[0] && r == HP_OK; z++)
        for (int y = 0; y < part.n[1]; y++)
            memcpy(vol->hu +
                       ((size_t)(z + b.lo[0]) * vol->geom.n[1] + y + b.lo[1]) *
                           vol->geom.n[2] +
                       b.lo[2],
                   fine->hu + ((size_t)z * part.n[1] + y) * row, row * sizeof *fine->hu);
    return r;
}

/* Native volumes. sparse: full resolution within 40 mm of the liver alone, where
 * everything but the liver network's margin looks; three times faster. */
static hp_code render_native(const hp_phantom *p, bool sparse, hp_volume *ret[HP_PHASES],
                             hp_error *reterr)
{
    hp_code r = HP_OK;

    for (int phase = 0; phase < HP_PHASES && r == HP_OK; phase++) {
        hp_geom g = hp_phantom_grid(p, phase);

        r = hp_volume_new(&g, &ret[phase], reterr);
        if (r == HP_OK && !sparse)
            r = hp_phantom_render(p, phase, &g, ret[phase]->hu, reterr);
        if (r == HP_OK && sparse)
            r = render_coarse(p, phase, ret[phase], reterr);
        if (r == HP_OK && sparse)
            r = render_surroundings(p, phase, ret[phase], reterr);
    }
    return r;
}

static hp_code evaluate(const hp_prepare *o, const hp_phantom *p, json_t *out,
                        hp_error *reterr)
{
    hp_volume *native[HP_PHASES] = {NULL}, *registered[HP_PHASES] = {NULL}, *liver = NULL;
    hp_findings *f = malloc(sizeof *f);
    double d[HP_PHASES] = {0};
    json_t *box = NULL;
    hp_code r = f != NULL ? render_native(p, o->sparse, native, reterr)
                          : hp_fail(reterr, HP_E_NO_MEMORY, "findings");

    if (r == HP_OK) {
        hp_findings_init(f);
        r = hp_pipeline_run(o->pipeline, (const hp_volume *const *)native, f, registered,
                            &liver, reterr);
    }
    if (r == HP_OK) {
        const hp_pipeline_detail *detail = hp_pipeline_get_detail(o->pipeline);

        json_object_set_new(out, "findings", hp_findings_to_json(f));
        json_object_set_new(out, "per_phase", peaks_json(detail));
        json_object_set_new(out, "folds", folds_json(detail, HP_PH_CLASSES));
        r = liver_dice(o, p, registered, d, reterr);
    }
    if (r == HP_OK) {
        json_object_set_new(out, "liver_dice",
                            json_pack("[f,f,f,f]", d[0], d[1], d[2], d[3]));
        r = truth_box_json(o, p, &box, reterr);
    }
    if (r == HP_OK)
        json_object_set_new(out, "truth_box", box);
    for (int phase = 0; phase < HP_PHASES; phase++) {
        hp_volume_free(native[phase]);
        hp_volume_free(registered[phase]);
    }
    hp_volume_free(liver);
    free(f);
    return r;
}

hp_code hp_prepare_evaluate(const hp_prepare *o, uint64_t seed, hp_error *reterr)
{
    hp_auto(hp_phantom) *p = NULL;
    hp_auto(json_t) *out = NULL;
    char path[HP_PATH_MAX];
    bool done;
    hp_code r = out_path(o, "evaluate", seed, "json", path, &done, reterr);

    if (r != HP_OK || done)
        return r;
    r = hp_prepare_patient(o, seed, &p, reterr);
    if (r == HP_OK) {
        out = json_pack("{s:I,s:o}", "seed", (json_int_t)seed, "truth", truth_json(p));
        r = evaluate(o, p, out, reterr);
    }
    if (r != HP_OK)
        return hp_wrap(reterr, r, "phantom %llu", (unsigned long long)seed);
    return hp_json_write_file(path, out, reterr);
}

/* --- the detector's candidates as training rows -------------------------- */

typedef struct rows {
    int count;
    int16_t *hu;
    float rect[HP_MAX_CANDIDATES][4], score[HP_MAX_CANDIDATES], iou[HP_MAX_CANDIDATES],
        iou_any[HP_MAX_CANDIDATES], area[HP_MAX_CANDIDATES];
    int32_t kind[HP_MAX_CANDIDATES], cls[HP_MAX_CANDIDATES], lesion[HP_MAX_CANDIDATES];
    uint8_t primary[HP_MAX_CANDIDATES];
} rows;

/* Best overlap with a primary and with anything; the lesion it overlaps most. */
static void match(const hp_phantom *p, const hp_box *b, rows *w)
{
    const hp_phantom_truth *t = hp_phantom_get_truth(p);
    hp_geom v = hp_phantom_grid(p, HP_PHASE_V);
    int m = w->count;

    w->kind[m] = w->cls[m] = w->lesion[m] = -1;
    for (int i = 0; i < t->n_lesions; i++) {
        hp_box l = hp_prepare_box(&t->lesion[i], &v);
        float iou = (float)hp_box_iou(b, &l);

        if (t->lesion[i].primary && iou > w->iou[m])
            w->iou[m] = iou;
        if (iou > w->iou_any[m]) {
            w->iou_any[m] = iou;
            w->kind[m] = t->lesion[i].kind;
            w->cls[m] = t->lesion[i].cls;
            w->lesion[m] = i;
            w->primary[m] = t->lesion[i].primary;
        }
    }
}

/* The plane of the box where the lesion under it is largest, else the middle: what
 * a good seg25d would say. */
static hp_code key_plane(const hp_phantom *p, const hp_box *b, int lesion, int *ret_z,
                         double *ret_mm2, hp_error *reterr)
{
    hp_geom v = hp_phantom_grid(p, HP_PHASE_V);
    int lo = (int)fmax(floor(b->lo[0] / v.spacing_mm[0]), 0);
    int hi = (int)fmin(ceil(b->hi[0] / v.spacing_mm[0]), v.n[0]);
    int z0 = (int)floor((b->lo[0] + b->hi[0]) / 2 / v.spacing_mm[0]);
    double best = 0;

    *ret_z = z0 < 0 ? 0 : z0 >= v.n[0] ? v.n[0] - 1 : z0;
    for (int z = lo; z < hi && lesion >= 0; z++) {
        double mm2 = 0;
        hp_code r = hp_prepare_area(p, lesion, z, &mm2, reterr);

        if (r != HP_OK)
            return r;
        if (mm2 > best) {
            best = mm2;
            *ret_z = z;
        }
    }
    *ret_mm2 = best;
    return HP_OK;
}

static hp_code add_candidate(const hp_phantom *p, const hp_candidate *c, rows *w,
                             hp_error *reterr)
{
    int m = w->count, z;
    double centre[2], rect[4], area = 0;
    hp_code r;

    match(p, &c->box_mm, w);
    r = key_plane(p, &c->box_mm, w->lesion[m], &z, &area, reterr);
    if (r != HP_OK)
        return r;
    w->score[m] = (float)c->score;
    w->area[m] = (float)area;
    patch_around(&c->box_mm, HP_PREPARE_PATCH_SIDE, HP_PREPARE_PATCH_MM, centre, rect);
    for (int k = 0; k < 4; k++)
        w->rect[m][k] = (float)rect[k];
    w->count++;
    return hp_prepare_patch(p, z, centre, HP_PREPARE_PATCH_SIDE, HP_PREPARE_PATCH_MM,
                            w->hu + (size_t)m * HP_PHASES * HP_PREPARE_PATCH_SIDE *
                                        HP_PREPARE_PATCH_SIDE,
                            reterr);
}

static hp_code find_candidates(const hp_prepare *o, const hp_phantom *p, uint64_t seed,
                               rows *w, hp_error *reterr)
{
    hp_geom v = hp_phantom_grid(p, HP_PHASE_V), g;
    int16_t *hu = malloc(HP_PHASES * (size_t)HP_PREPARE_CROP_VOXELS * sizeof *hu);
    const int16_t *phase[HP_PHASES];
    hp_findings *f = malloc(sizeof *f);
    hp_voxel_box crop;
    hp_code r = hu != NULL && f != NULL ? hp_prepare_crop(p, seed, &crop, &g, hu, reterr)
                                        : hp_fail(reterr, HP_E_NO_MEMORY, "candidates");

    for (int k = 0; k < HP_PHASES; k++)
        phase[k] = hu + (size_t)k * HP_PREPARE_CROP_VOXELS;
    if (r == HP_OK) {
        hp_findings_init(f);
        r = hp_pipeline_detect(o->pipeline, phase, &v, crop.lo, crop.hi, f, reterr);
    }
    for (int i = 0; r == HP_OK && i < f->candidate_count; i++)
        r = add_candidate(p, &f->candidates[i], w, reterr);
    free(hu);
    free(f);
    return r;
}

hp_code hp_prepare_candidates(const hp_prepare *o, uint64_t seed, hp_error *reterr)
{
    hp_auto(hp_phantom) *p = NULL;
    rows *w = NULL;
    char path[HP_PATH_MAX];
    bool done;
    hp_code r = out_path(o, "candidates", seed, "safetensors", path, &done, reterr);

    if (r != HP_OK || done)
        return r;
    w = calloc(1, sizeof *w);
    if (w != NULL)
        w->hu = malloc((size_t)HP_MAX_CANDIDATES * HP_PHASES * HP_PREPARE_PATCH_SIDE *
                       HP_PREPARE_PATCH_SIDE * sizeof *w->hu);
    if (w == NULL || w->hu == NULL)
        r = hp_fail(reterr, HP_E_NO_MEMORY, "candidates");
    if (r == HP_OK)
        r = hp_prepare_patient(o, seed, &p, reterr);
    if (r == HP_OK)
        r = find_candidates(o, p, seed, w, reterr);
    if (r == HP_OK) {
        int m = w->count, s = HP_PREPARE_PATCH_SIDE;
        hp_tensor out[] = {
            {"hu", HP_DTYPE_I16, 4, {m, HP_PHASES, s, s}, w->hu},
            {"rect", HP_DTYPE_F32, 2, {m, 4}, w->rect},
            {"score", HP_DTYPE_F32, 1, {m}, w->score},
            {"iou", HP_DTYPE_F32, 1, {m}, w->iou},
            {"iou_any", HP_DTYPE_F32, 1, {m}, w->iou_any},
            {"area_mm2", HP_DTYPE_F32, 1, {m}, w->area},
            {"kind", HP_DTYPE_I32, 1, {m}, w->kind},
            {"class", HP_DTYPE_I32, 1, {m}, w->cls},
            {"lesion", HP_DTYPE_I32, 1, {m}, w->lesion},
            {"primary", HP_DTYPE_U8, 1, {m}, w->primary},
        };

        r = hp_safetensors_write(path, out, sizeof out / sizeof out[0], reterr);
    }
    if (w != NULL)
        free(w->hu);
    free(w);
    return r == HP_OK ? r : hp_wrap(reterr, r, "phantom %llu", (unsigned long long)seed);
}
