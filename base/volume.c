/* Geometry of regular grids in the patient frame, and boxes on them. */
#include "base/volume.h"

#include <stdlib.h>
#include <string.h>

size_t hp_geom_voxels(const hp_geom *g)
{
    return (size_t)g->n[HP_Z] * (size_t)g->n[HP_Y] * (size_t)g->n[HP_X];
}

hp_geom hp_geom_axial(int nz, int ny, int nx, double sz_mm, double sy_mm, double sx_mm,
                      const double origin_mm[3])
{
    hp_geom g = {
        .n = {nz, ny, nx},
        .spacing_mm = {sz_mm, sy_mm, sx_mm},
        .axis = {{0, 0, 1}, {0, 1, 0}, {1, 0, 0}},
    };

    memcpy(g.origin_mm, origin_mm, sizeof g.origin_mm);
    return g;
}

void hp_geom_to_mm(const hp_geom *g, const double voxel[3], double ret_mm[3])
{
    for (int c = 0; c < 3; c++) {
        double mm = g->origin_mm[c];

        for (int a = 0; a < 3; a++)
            mm += (voxel[a] - 0.5) * g->spacing_mm[a] * g->axis[a][c];
        ret_mm[c] = mm;
    }
}

void hp_geom_to_voxel(const hp_geom *g, const double mm[3], double ret_voxel[3])
{
    for (int a = 0; a < 3; a++) {
        double along = 0;

        for (int c = 0; c < 3; c++)
            along += (mm[c] - g->origin_mm[c]) * g->axis[a][c];
        ret_voxel[a] = along / g->spacing_mm[a] + 0.5;
    }
}

hp_geom hp_geom_crop(const hp_geom *g, const int lo[3], const int n[3])
{
    hp_geom out = *g;
    double centre[3] = {lo[0] + 0.5, lo[1] + 0.5, lo[2] + 0.5};

    hp_geom_to_mm(g, centre, out.origin_mm);
    memcpy(out.n, n, sizeof out.n);
    return out;
}

hp_geom hp_geom_resample(const hp_geom *g, const int n[3])
{
    hp_geom out = *g;
    double centre[3];

    for (int a = 0; a < 3; a++) {
        double scale = (double)g->n[a] / n[a];

        out.n[a] = n[a];
        out.spacing_mm[a] = g->spacing_mm[a] * scale;
        centre[a] = 0.5 * scale;
    }
    hp_geom_to_mm(g, centre, out.origin_mm);
    return out;
}

hp_code hp_volume_new(const hp_geom *g, hp_volume **ret_vol, hp_error *reterr)
{
    hp_volume *v = malloc(sizeof *v);

    if (v == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "volume");
    v->geom = *g;
    v->hu = malloc(hp_geom_voxels(g) * sizeof *v->hu);
    if (v->hu == NULL) {
        free(v);
        return hp_fail(reterr, HP_E_NO_MEMORY, "volume of %d x %d x %d voxels",
                       g->n[HP_Z], g->n[HP_Y], g->n[HP_X]);
    }
    *ret_vol = v;
    return HP_OK;
}

void hp_volume_free(hp_volume *v)
{
    if (v != NULL)
        free(v->hu);
    free(v);
}

double hp_box_volume(const hp_box *b)
{
    double volume = 1;

    for (int a = 0; a < 3; a++) {
        if (b->hi[a] <= b->lo[a])
            return 0;
        volume *= b->hi[a] - b->lo[a];
    }
    return volume;
}

double hp_box_iou(const hp_box *a, const hp_box *b)
{
    hp_box both;
    double inter, all;

    for (int i = 0; i < 3; i++) {
        both.lo[i] = a->lo[i] > b->lo[i] ? a->lo[i] : b->lo[i];
        both.hi[i] = a->hi[i] < b->hi[i] ? a->hi[i] : b->hi[i];
    }
    inter = hp_box_volume(&both);
    all = hp_box_volume(a) + hp_box_volume(b) - inter;
    return all > 0 ? inter / all : 0;
}
