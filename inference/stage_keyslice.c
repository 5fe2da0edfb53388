/* seg25d on the slices that candidates meet, and each candidate's key slice. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "inference/stage_internal.h"

void hp_lesion_map_done(hp_lesion_map *m)
{
    for (int z = 0; z < m->nz && m->plane != NULL; z++)
        free(m->plane[z]);
    free(m->plane);
    m->plane = NULL;
}

/* Planes resampled in plane, made when first asked for. */
typedef struct plane_cache {
    const hp_volume *vol;
    const hp_lesion_map *map;
    int16_t **plane;
    hp_code code;
    hp_error *err;
} plane_cache;

static void cache_done(plane_cache *c)
{
    for (int z = 0; z < c->vol->geom.n[0] && c->plane != NULL; z++)
        free(c->plane[z]);
    free(c->plane);
}

static hp_code make_plane(plane_cache *c, int z)
{
    const hp_geom *g = &c->vol->geom;
    size_t size = (size_t)c->map->n[0] * c->map->n[1];

    if (c->plane[z] != NULL)
        return HP_OK;
    c->plane[z] = malloc(size * sizeof **c->plane);
    if (c->plane[z] == NULL)
        return hp_fail(c->err, HP_E_NO_MEMORY, "key slice planes");
    return hp_crop_plane(g, c->vol->hu + (size_t)z * g->n[1] * g->n[2], c->map->lo_mm,
                         c->map->n, c->map->spacing_mm, c->plane[z], c->err);
}

static const int16_t *plane_at(int z, void *payload)
{
    return ((plane_cache *)payload)->plane[z];
}

/* What a slice's run works in. */
typedef struct slice_room {
    int16_t *hu;     /* (slices, h, w) */
    float *in, *out; /* (h, w, slices), (h, w) */
} slice_room;

static hp_code room_init(slice_room *m, size_t plane, int count, hp_error *reterr)
{
    m->hu = malloc(plane * (size_t)count * sizeof *m->hu);
    m->in = malloc(plane * (size_t)count * sizeof *m->in);
    m->out = malloc(plane * sizeof *m->out);
    return m->hu != NULL && m->in != NULL && m->out != NULL
               ? HP_OK
               : hp_fail(reterr, HP_E_NO_MEMORY, "key slice input");
}

static void room_done(slice_room *m)
{
    free(m->hu);
    free(m->in);
    free(m->out);
}

static void add_probabilities(const float *logit, size_t n, float *sum)
{
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++)
        sum[i] += 1.0f / (1.0f + expf(-logit[i]));
}

/* Adds this phase's probabilities of plane z to sum. */
static hp_code run_slice(hp_visit *v, plane_cache *c, const slice_room *m, int phase,
                         int z, float *sum, hp_error *reterr)
{
    const hp_model_stage *s = &v->p->model->stage[HP_STAGE_KEYSLICE];
    const hp_geom *g = &c->vol->geom;
    int count = s->params.unet.slices, size[3] = {1, c->map->n[0], c->map->n[1]};
    size_t plane = (size_t)size[1] * size[2];
    int reach = (int)ceil(count * s->params.unet.interval_mm / g->spacing_mm[0] / 2) + 2;
    char prefix[32], name[48];
    hp_code r = HP_OK;

    for (int i = z - reach; i <= z + reach && r == HP_OK; i++)
        if (i >= 0 && i < g->n[0])
            r = make_plane(c, i);
    if (r == HP_OK)
        r = hp_crop_stack(z, g->n[0], g->spacing_mm[0], count, s->params.unet.interval_mm,
                          c->map->n, plane_at, c, m->hu, reterr);
    if (r != HP_OK)
        return r;
    hp_window_ref(m->hu, count, plane, &s->window, m->in, count);
    snprintf(prefix, sizeof prefix, "keyslice.%s.%d", hp_phase_name((hp_phase)phase), z);
    snprintf(name, sizeof name, "%s.input", prefix);
    hp_stage_dump_channels_last(v->p, m->in, (int[4]){1, size[1], size[2], count}, name);
    r = hp_stage_run(v->p, HP_STAGE_KEYSLICE, 0, prefix, size,
                     &(hp_ports){.in = {m->in}, .out = {m->out}}, reterr);
    if (r == HP_OK)
        add_probabilities(m->out, plane, sum);
    return r;
}

/* Marks the slices that any candidate's box meets. */
static int slices_to_run(const hp_visit *v, uint8_t *ret)
{
    const hp_geom *g = &v->vol[HP_PHASE_V]->geom;
    int count = 0;

    for (int i = 0; i < v->f->candidate_count; i++) {
        hp_voxel_box b = hp_stage_voxels_of(g, &v->f->candidates[i].box_mm);

        for (int z = b.lo[0]; z < b.hi[0]; z++)
            ret[z] = 1;
    }
    for (int z = 0; z < g->n[0]; z++)
        count += ret[z];
    return count;
}

static hp_code run_phase(hp_visit *v, int phase, const uint8_t *wanted, int count,
                         float **sum, hp_error *reterr)
{
    plane_cache c = {.vol = v->seen[phase], .map = &v->lesions, .err = reterr};
    slice_room m = {NULL};
    int done = 0;
    hp_code r;

    c.plane = calloc((size_t)v->lesions.nz, sizeof *c.plane);
    if (c.plane == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "key slice planes");
    r = room_init(&m, (size_t)c.map->n[0] * c.map->n[1],
                  v->p->model->stage[HP_STAGE_KEYSLICE].params.unet.slices, reterr);
    for (int z = 0; z < v->lesions.nz && r == HP_OK; z++) {
        if (!wanted[z])
            continue;
        r = run_slice(v, &c, &m, phase, z, sum[z], reterr);
        hp_stage_progress(v->p, "keyslice", (double)++done / count);
    }
    room_done(&m);
    cache_done(&c);
    return r;
}

static hp_code run_network(hp_visit *v, hp_error *reterr)
{
    const hp_model_stage *s = &v->p->model->stage[HP_STAGE_KEYSLICE];
    hp_lesion_map *m = &v->lesions;
    size_t size = (size_t)m->n[0] * m->n[1];
    uint8_t *wanted = calloc((size_t)m->nz, 1);
    float **sum = calloc((size_t)m->nz, sizeof *sum);
    int count = 0, phases = 0;
    hp_code r = HP_OK;

    m->plane = calloc((size_t)m->nz, sizeof *m->plane);
    if (wanted == NULL || sum == NULL || m->plane == NULL)
        r = hp_fail(reterr, HP_E_NO_MEMORY, "key slices");
    if (r == HP_OK)
        count = slices_to_run(v, wanted);
    for (int z = 0; z < m->nz && r == HP_OK; z++) {
        if (!wanted[z])
            continue;
        sum[z] = calloc(size, sizeof **sum);
        m->plane[z] = malloc(size);
        if (sum[z] == NULL || m->plane[z] == NULL)
            r = hp_fail(reterr, HP_E_NO_MEMORY, "key slices");
    }
    for (int phase = 0; phase < HP_PHASES && r == HP_OK; phase++) {
        if (!(s->phases >> phase & 1) || v->seen[phase] == NULL)
            continue;
        r = run_phase(v, phase, wanted, count, sum, reterr);
        phases++;
    }
    for (int z = 0; z < m->nz && r == HP_OK; z++)
        for (size_t i = 0; i < size && wanted[z]; i++)
            m->plane[z][i] = phases > 0 && sum[z][i] >= (float)(s->threshold * phases);
    for (int z = 0; z < m->nz && sum != NULL; z++)
        free(sum[z]);
    free(sum);
    free(wanted);
    return r;
}

/* Lesion pixels whose centres lie in the rectangle, in mm2. */
static double area_in(const hp_lesion_map *m, int z, const hp_box *b)
{
    size_t count = 0;

    if (m->plane[z] == NULL)
        return 0;
    for (int y = 0; y < m->n[0]; y++) {
        double my = m->lo_mm[0] + (y + 0.5) * m->spacing_mm;

        if (my < b->lo[1] || my >= b->hi[1])
            continue;
        for (int x = 0; x < m->n[1]; x++) {
            double mx = m->lo_mm[1] + (x + 0.5) * m->spacing_mm;

            count +=
                mx >= b->lo[2] && mx < b->hi[2] && m->plane[z][(size_t)y * m->n[1] + x];
        }
    }
    return (double)count * m->spacing_mm * m->spacing_mm;
}

/* A mask that fills less of the box's ellipse than this is a speck, not the lesion
 * that the box is about. */
static const double MIN_FILL = 0.1;

static void choose(const hp_visit *v, hp_candidate *c)
{
    double ellipse_mm2 = M_PI / 4 * (c->box_mm.hi[1] - c->box_mm.lo[1]) *
                         (c->box_mm.hi[2] - c->box_mm.lo[2]);
    const hp_geom *g = &v->vol[HP_PHASE_V]->geom;
    hp_voxel_box b = hp_stage_voxels_of(g, &c->box_mm);
    double centre = (c->box_mm.lo[0] + c->box_mm.hi[0]) / 2 / g->spacing_mm[0] - 0.5;
    int middle = (int)lround(centre), best = -1;
    double best_mm2 = 0;

    for (int z = b.lo[0]; z < b.hi[0]; z++) {
        double mm2 = area_in(&v->lesions, z, &c->box_mm);

        if (mm2 > best_mm2 || (best >= 0 && mm2 == best_mm2 && mm2 > 0 &&
                               fabs(z - centre) < fabs(best - centre))) {
            best = z;
            best_mm2 = mm2;
        }
    }
    c->key_fallback = best_mm2 < MIN_FILL * ellipse_mm2;
    if (c->key_fallback)
        best = middle < b.lo[0] ? b.lo[0] : middle >= b.hi[0] ? b.hi[0] - 1 : middle;
    c->key_slice = best;
    c->key_area_mm2 = best_mm2;
}

hp_code hp_stage_keyslice(hp_visit *v, hp_error *reterr)
{
    const hp_model_stage *s = &v->p->model->stage[HP_STAGE_KEYSLICE];
    const hp_geom *g = &v->vol[HP_PHASE_V]->geom;
    hp_code r;

    v->lesions.nz = g->n[0];
    v->lesions.spacing_mm = s->params.spacing_mm[1];
    hp_crop_keyslice(g, &v->liver_box, v->lesions.spacing_mm, v->lesions.n,
                     v->lesions.lo_mm);
    r = run_network(v, reterr);
    for (int i = 0; i < v->f->candidate_count && r == HP_OK; i++)
        choose(v, &v->f->candidates[i]);
    return r;
}
