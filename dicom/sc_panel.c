/* One phase of a key image: the liver at the key slice, window 50/400, on the
 * same crop and scale in every phase, with box, outline, letters and scale. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dicom/sc_internal.h"

static const double window_centre_hu = 50, window_width_hu = 400;
static const double crop_margin_mm = 12, crop_min_mm = 150, crop_max_mm = 340;

/* -- where to look -- */

/* Bounding box of the liver in V slice z, in mm of the grid; false: no liver. */
static bool liver_extent(const hp_volume *liver, int z, double lo[2], double hi[2])
{
    const hp_geom *g = &liver->geom;
    const int16_t *plane =
        liver->hu + (size_t)z * (size_t)g->n[HP_Y] * (size_t)g->n[HP_X];
    int y0 = g->n[HP_Y], y1 = -1, x0 = g->n[HP_X], x1 = -1;

    for (int y = 0; y < g->n[HP_Y]; y++)
        for (int x = 0; x < g->n[HP_X]; x++)
            if (plane[y * g->n[HP_X] + x] != 0) {
                y0 = y < y0 ? y : y0;
                y1 = y > y1 ? y : y1;
                x0 = x < x0 ? x : x0;
                x1 = x > x1 ? x : x1;
            }
    if (y1 < 0)
        return false;
    lo[0] = y0 * g->spacing_mm[HP_Y];
    hi[0] = (y1 + 1) * g->spacing_mm[HP_Y];
    lo[1] = x0 * g->spacing_mm[HP_X];
    hi[1] = (x1 + 1) * g->spacing_mm[HP_X];
    return true;
}

hp_view hp_panel_view(const hp_report *r, const hp_candidate *c)
{
    const hp_findings *f = r->findings;
    hp_view v = {.z = hp_report__key_slice(f, c)};
    double lo[2] = {c->box_mm.lo[HP_Y], c->box_mm.lo[HP_X]};
    double hi[2] = {c->box_mm.hi[HP_Y], c->box_mm.hi[HP_X]};
    double liver_lo[2], liver_hi[2], centre[2];
    bool liver = r->liver != NULL && v.z < r->liver->geom.n[HP_Z] &&
                 liver_extent(r->liver, v.z, liver_lo, liver_hi);

    for (int i = 0; i < 2 && liver; i++) {
        lo[i] = fmin(lo[i], liver_lo[i]);
        hi[i] = fmax(hi[i], liver_hi[i]);
    }
    for (int i = 0; i < 2; i++)
        centre[i] = (lo[i] + hi[i]) / 2;
    v.side_mm = fmax(hi[0] - lo[0], hi[1] - lo[1]) + 2 * crop_margin_mm;
    v.side_mm =
        fmin(fmax(v.side_mm, liver ? crop_min_mm : 1.4 * crop_min_mm), crop_max_mm);
    /* Liver and lesion too far apart for one crop: the lesion is what counts. */
    if (fmax(hi[0] - lo[0], hi[1] - lo[1]) > v.side_mm) {
        centre[0] = (c->box_mm.lo[HP_Y] + c->box_mm.hi[HP_Y]) / 2;
        centre[1] = (c->box_mm.lo[HP_X] + c->box_mm.hi[HP_X]) / 2;
    }
    for (int i = 0; i < 2; i++)
        v.lo_mm[i] = centre[i] - v.side_mm / 2;
    return v;
}

/* -- pixels -- */

/* Catmull-Rom weights of the four neighbours of t in [0,1). */
static void cubic(double t, double w[4])
{
    w[0] = ((-0.5 * t + 1) * t - 0.5) * t;
    w[1] = (1.5 * t - 2.5) * t * t + 1;
    w[2] = ((-1.5 * t + 2) * t + 0.5) * t;
    w[3] = (0.5 * t - 0.5) * t * t;
}

/* HU at edge-based voxel coordinate (y, x) of a plane; pad outside. */
static double sample(const int16_t *plane, int ny, int nx, double y, double x)
{
    double wy[4], wx[4], sum = 0;
    int iy = (int)floor(y - 0.5), ix = (int)floor(x - 0.5);

    if (y < 0 || x < 0 || y >= ny || x >= nx)
        return HP_PAD_HU;
    cubic(y - 0.5 - iy, wy);
    cubic(x - 0.5 - ix, wx);
    for (int j = 0; j < 4; j++)
        for (int i = 0; i < 4; i++) {
            int yy = iy - 1 + j, xx = ix - 1 + i;

            yy = yy < 0 ? 0 : yy >= ny ? ny - 1 : yy;
            xx = xx < 0 ? 0 : xx >= nx ? nx - 1 : xx;
            sum += wy[j] * wx[i] * plane[(size_t)yy * (size_t)nx + (size_t)xx];
        }
    return sum;
}

static void draw_pixels(cairo_t *cr, hp_rect r, const hp_volume *v, const hp_view *view)
{
    const hp_geom *g = &v->geom;
    const int16_t *plane =
        v->hu + (size_t)view->z * (size_t)g->n[HP_Y] * (size_t)g->n[HP_X];
    int w = (int)r.w, h = (int)r.h, stride;
    cairo_surface_t *s = cairo_image_surface_create(CAIRO_FORMAT_RGB24, w, h);
    unsigned char *data = cairo_image_surface_get_data(s);

    if (data != NULL) {
        stride = cairo_image_surface_get_stride(s);
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++) {
                double my = view->lo_mm[0] + (y + 0.5) / h * view->side_mm;
                double mx = view->lo_mm[1] + (x + 0.5) / w * view->side_mm;
                double hu = sample(plane, g->n[HP_Y], g->n[HP_X],
                                   my / g->spacing_mm[HP_Y], mx / g->spacing_mm[HP_X]);
                double grey = (hu - window_centre_hu) / window_width_hu + 0.5;
                uint32_t k = (uint32_t)lround(255 * fmin(fmax(grey, 0), 1));

                k = k << 16 | k << 8 | k;
                memcpy(data + y * stride + 4 * x, &k, 4);
            }
        cairo_surface_mark_dirty(s);
    }
    cairo_set_source_surface(cr, s, r.x, r.y);
    cairo_rectangle(cr, r.x, r.y, r.w, r.h);
    cairo_fill(cr);
    cairo_surface_destroy(s);
}

/* -- what is drawn on top -- */

/* Grid mm (y, x) -> picture. */
static double to_x(const hp_rect *r, const hp_view *v, double mm)
{
    return r->x + (mm - v->lo_mm[1]) / v->side_mm * r->w;
}
static double to_y(const hp_rect *r, const hp_view *v, double mm)
{
    return r->y + (mm - v->lo_mm[0]) / v->side_mm * r->h;
}

/* The outline follows voxel edges; thin and faint, it only says where the
 * network saw liver in the venous phase, and fainter still in the others. */
static void draw_liver(cairo_t *cr, const hp_rect *r, const hp_volume *liver,
                       const hp_view *v, bool venous)
{
    const hp_geom *g = &liver->geom;
    const int ny = g->n[HP_Y], nx = g->n[HP_X];
    const int16_t *m = liver->hu + (size_t)v->z * (size_t)ny * (size_t)nx;
    const double sy = g->spacing_mm[HP_Y], sx = g->spacing_mm[HP_X];

    for (int y = 0; y < ny; y++)
        for (int x = 0; x < nx; x++) {
            bool in = m[y * nx + x] != 0;

            if (x + 1 < nx && in != (m[y * nx + x + 1] != 0)) {
                cairo_move_to(cr, to_x(r, v, (x + 1) * sx), to_y(r, v, y * sy));
                cairo_line_to(cr, to_x(r, v, (x + 1) * sx), to_y(r, v, (y + 1) * sy));
            }
            if (y + 1 < ny && in != (m[(y + 1) * nx + x] != 0)) {
                cairo_move_to(cr, to_x(r, v, x * sx), to_y(r, v, (y + 1) * sy));
                cairo_line_to(cr, to_x(r, v, (x + 1) * sx), to_y(r, v, (y + 1) * sy));
            }
        }
    hp_paint_ink_alpha(cr, ink_liver, venous ? 0.65 : 0.35);
    cairo_set_line_width(cr, 1.2);
    cairo_set_line_cap(cr, CAIRO_LINE_CAP_ROUND);
    cairo_stroke(cr);
}

static void draw_box(cairo_t *cr, const hp_rect *r, const hp_candidate *c,
                     const hp_view *v)
{
    double x = to_x(r, v, c->box_mm.lo[HP_X]), y = to_y(r, v, c->box_mm.lo[HP_Y]);

    cairo_rectangle(cr, x, y, to_x(r, v, c->box_mm.hi[HP_X]) - x,
                    to_y(r, v, c->box_mm.hi[HP_Y]) - y);
    hp_paint_ink_alpha(cr, ink_back, 0.6);
    cairo_set_line_width(cr, 4);
    cairo_stroke_preserve(cr);
    hp_paint_ink(cr, ink_lesion);
    cairo_set_line_width(cr, 2);
    cairo_stroke(cr);
}

/* Letter of the patient direction that `axis` points to most. */
static const char *letter(const double axis[3], double sign)
{
    static const char *const plus[3] = {"L", "P", "H"}, *const minus[3] = {"R", "A", "F"};
    int k = 0;

    for (int i = 1; i < 3; i++)
        if (fabs(axis[i]) > fabs(axis[k]))
            k = i;
    return axis[k] * sign > 0 ? plus[k] : minus[k];
}

static void draw_letters(cairo_t *cr, const hp_rect *r, const hp_geom *g)
{
    const double *y = g->axis[HP_Y], *x = g->axis[HP_X];
    const double mid_x = r->x + r->w / 2, mid_y = r->y + r->h / 2 + 7;

    hp_paint_text_on_image(cr, r->x + 8, mid_y, 20, true, HP_LEFT, ink_text,
                           letter(x, -1));
    hp_paint_text_on_image(cr, r->x + r->w - 8, mid_y, 20, true, HP_RIGHT, ink_text,
                           letter(x, 1));
    hp_paint_text_on_image(cr, mid_x, r->y + 23, 20, true, HP_CENTRE, ink_text,
                           letter(y, -1));
    hp_paint_text_on_image(cr, mid_x, r->y + r->h - 9, 20, true, HP_CENTRE, ink_text,
                           letter(y, 1));
}

static void draw_scale(cairo_t *cr, const hp_rect *r, const hp_view *v)
{
    const double length = 50 / v->side_mm * r->w, x = r->x + 14, y = r->y + r->h - 16;

    for (int pass = 0; pass < 2; pass++) {
        hp_paint_ink_alpha(cr, pass ? ink_text : ink_back, pass ? 1 : 0.85);
        cairo_set_line_width(cr, pass ? 2 : 5);
        cairo_set_line_cap(cr, CAIRO_LINE_CAP_SQUARE);
        for (int cm = 0; cm <= 5; cm++) {
            double at = x + cm * length / 5, tick = cm % 5 == 0 ? 9 : 5;

            cairo_move_to(cr, at, y);
            cairo_line_to(cr, at, y - tick);
        }
        cairo_move_to(cr, x, y);
        cairo_line_to(cr, x + length, y);
        cairo_stroke(cr);
    }
    hp_paint_text_on_image(cr, x, y - 15, 17, false, HP_LEFT, ink_text, "5 cm");
}

static void draw_absent(cairo_t *cr, const hp_rect *r, const char *words)
{
    hp_paint_fill(cr, *r, ink_card);
    hp_paint_text(cr, r->x + r->w / 2, r->y + r->h / 2 + 8, r->w - 40, 24, false,
                  HP_CENTRE, ink_dim, words);
}

static void draw_frame(cairo_t *cr, const hp_rect *r)
{
    cairo_rectangle(cr, r->x + 0.5, r->y + 0.5, r->w - 1, r->h - 1);
    hp_paint_ink(cr, ink_line);
    cairo_set_line_width(cr, 1);
    cairo_stroke(cr);
}

/* -- the words above and below -- */

static void draw_title(cairo_t *cr, const hp_rect *r, const hp_report *report,
                       hp_phase phase, const hp_view *view)
{
    const hp_slice *s = hp_report__source(report, phase, view->z);
    char title[40], source[64] = "";
    double w;

    snprintf(title, sizeof title, "%s%s", phase == HP_PHASE_V ? "portal " : "",
             hp_phase_title(phase));
    if (title[0] >= 'a' && title[0] <= 'z')
        title[0] = (char)(title[0] - 'a' + 'A');
    if (s != NULL && s->frame > 0)
        snprintf(source, sizeof source, "series %d, frame %d", s->series_number,
                 s->frame + 1);
    else if (s != NULL)
        snprintf(source, sizeof source, "series %d, image %d", s->series_number,
                 s->instance_number);
    w = hp_paint_text(cr, r->x, r->y - 10, r->w, 22, true, HP_LEFT, ink_text, title);
    hp_paint_text(cr, r->x + r->w, r->y - 10, r->w - w - 12, 18, false, HP_RIGHT, ink_dim,
                  source);
}

static double draw_value(cairo_t *cr, double x, double y, rgb c, const char *name,
                         double hu)
{
    char value[32];

    if (isfinite(hu))
        snprintf(value, sizeof value, "%ld HU", lround(hu));
    else
        snprintf(value, sizeof value, "-");
    x += hp_paint_text(cr, x, y, 100, 18, false, HP_LEFT, ink_dim, name) + 7;
    return x + hp_paint_text(cr, x, y, 100, 18, true, HP_LEFT, c, value) + 16;
}

static void draw_values(cairo_t *cr, const hp_rect *r, const hp_candidate *c,
                        hp_phase phase)
{
    double x = r->x, y = r->y + r->h + 27, d = c->hu_lesion[phase] - c->hu_liver[phase];
    char diff[32];

    x = draw_value(cr, x, y, ink_lesion, "lesion", c->hu_lesion[phase]);
    x = draw_value(cr, x, y, ink_liver, "liver", c->hu_liver[phase]);
    if (isfinite(d)) {
        snprintf(diff, sizeof diff, "diff %+ld", lround(d));
        hp_paint_text(cr, r->x + r->w, y, r->x + r->w - x, 18, true, HP_RIGHT, ink_text,
                      diff);
    }
}

void hp_panel_draw(cairo_t *cr, hp_rect r, const hp_report *report, const hp_candidate *c,
                   hp_phase phase, const hp_view *view)
{
    hp_phase shown = hp_report__shown_phase(report->findings, phase);
    const hp_volume *v = report->registered != NULL ? report->registered[phase] : NULL;
    char words[64];

    if (v == NULL && report->registered != NULL && shown != HP_PHASE_NONE)
        v = report->registered[shown];
    draw_title(cr, &r, report, phase, view);
    if (v == NULL || shown == HP_PHASE_NONE || view->z >= v->geom.n[HP_Z]) {
        draw_absent(cr, &r, "not acquired");
        draw_frame(cr, &r);
        return;
    }
    cairo_save(cr);
    cairo_rectangle(cr, r.x, r.y, r.w, r.h);
    cairo_clip(cr);
    draw_pixels(cr, r, v, view);
    if (report->liver != NULL && view->z < report->liver->geom.n[HP_Z])
        draw_liver(cr, &r, report->liver, view, phase == HP_PHASE_V);
    draw_box(cr, &r, c, view);
    draw_letters(cr, &r, &v->geom);
    draw_scale(cr, &r, view);
    if (shown != phase) {
        snprintf(words, sizeof words, "%s shown instead", hp_phase_title(shown));
        hp_paint_text_on_image(cr, r.x + 10, r.y + 50, 19, true, HP_LEFT, ink_warn,
                               words);
    }
    cairo_restore(cr);
    draw_frame(cr, &r);
    draw_values(cr, &r, c, phase);
}
