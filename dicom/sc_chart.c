/* The two charts of a key image: class probabilities with the ensemble's votes,
 * and the enhancement of lesion against liver over the phases. */
#include <math.h>
#include <stdio.h>

#include "dicom/sc_internal.h"

static void draw_votes(cairo_t *cr, double x, double y, int votes, int voters, rgb c)
{
    for (int i = 0; i < voters; i++) {
        cairo_new_sub_path(cr);
        cairo_arc(cr, x + 8 + i * 20, y, 6.5, 0, 2 * M_PI);
        if (i < votes) {
            hp_paint_ink(cr, c);
            cairo_fill(cr);
        } else {
            hp_paint_ink(cr, ink_line);
            cairo_set_line_width(cr, 1.5);
            cairo_stroke(cr);
        }
    }
}

static const double pad = 18;

/* Detect-only: what was found, since no class can be given. */
static void draw_candidates(cairo_t *cr, hp_rect r, const hp_findings *f,
                            const hp_candidate *c)
{
    const double step =
        f->candidate_count > 0 ? fmin(32, (r.h - 148) / f->candidate_count) : 32;
    double y = r.y + 144;

    hp_paint_text(cr, r.x + pad, r.y + 34, r.w - 2 * pad, 21, true, HP_LEFT, ink_text,
                  "Candidates, without a class");
    hp_paint_paragraph(
        cr, r.x + pad, r.y + 70, r.w - 2 * pad, r.y + 110, 18, ink_dim,
        "A class is given only when every phase that the model needs is there.");
    for (int i = 0; i < f->candidate_count; i++, y += step) {
        const hp_candidate *k = &f->candidates[i];
        rgb ink = k == c ? ink_lesion : ink_text;
        char text[64];

        snprintf(text, sizeof text, "L%d", i + 1);
        hp_paint_text(cr, r.x + pad, y, 50, 19, k == c, HP_LEFT, ink, text);
        hp_paint_fill(cr, (hp_rect){r.x + pad + 54, y - 15, 170, 18}, ink_back);
        hp_paint_fill(
            cr, (hp_rect){r.x + pad + 54, y - 15, 170 * fmin(fmax(k->score, 0), 1), 18},
            k == c ? ink_lesion : ink_bar);
        snprintf(text, sizeof text, "%ld%%", lround(100 * k->score));
        hp_paint_text(cr, r.x + pad + 292, y, 60, 19, k == c, HP_RIGHT, ink, text);
        snprintf(text, sizeof text, "%.0f x %.0f x %.0f mm",
                 k->box_mm.hi[HP_X] - k->box_mm.lo[HP_X],
                 k->box_mm.hi[HP_Y] - k->box_mm.lo[HP_Y],
                 k->box_mm.hi[HP_Z] - k->box_mm.lo[HP_Z]);
        hp_paint_text(cr, r.x + r.w - pad, y, 190, 18, false, HP_RIGHT, ink_dim, text);
    }
}

static void draw_class(cairo_t *cr, hp_rect r, const hp_findings *f, int k, int voters)
{
    const double label_w = 122, percent_w = 62,
                 votes_w = voters > 0 ? 20.0 * voters + 4 : 0;
    const double bar_x = r.x + label_w, bar_w = r.w - label_w - percent_w - votes_w - 10;
    const double p = fmin(fmax(f->probabilities[k], 0), 1), mid = r.y + r.h / 2;
    const bool top = k == f->class_index;
    const rgb ink = top ? ink_lesion : ink_bar;
    char percent[16];

    snprintf(percent, sizeof percent, "%ld%%", lround(100 * p));
    hp_paint_text(cr, r.x, mid + 7, label_w - 10, 20, top, HP_LEFT,
                  top ? ink_lesion : ink_text, f->classes[k].label);
    hp_paint_fill(cr, (hp_rect){bar_x, mid - 14, bar_w, 28}, ink_back);
    hp_paint_fill(cr, (hp_rect){bar_x, mid - 14, bar_w * p, 28}, ink);
    hp_paint_text(cr, bar_x + bar_w + percent_w, mid + 7, percent_w, 20, top, HP_RIGHT,
                  ink_text, percent);
    draw_votes(cr, r.x + r.w - votes_w, mid, f->votes[k], voters, ink);
}

void hp_chart_classes(cairo_t *cr, hp_rect r, const hp_findings *f, const hp_candidate *c)
{
    int voters = 0;
    double row;

    hp_paint_card(cr, r);
    if (f->class_index < 0 || f->class_count == 0) {
        draw_candidates(cr, r, f, c);
        return;
    }
    for (int k = 0; k < f->class_count; k++)
        voters += f->votes[k];
    voters = voters > 9 ? 9 : voters;
    hp_paint_text(cr, r.x + pad, r.y + 34, r.w / 2, 21, true, HP_LEFT, ink_text,
                  "Class probability");
    if (voters > 0)
        hp_paint_text(cr, r.x + r.w - pad, r.y + 34, 220, 18, false, HP_RIGHT, ink_dim,
                      "votes of the ensemble");
    row = fmin((r.h - 62) / f->class_count, 76);
    for (int k = 0; k < f->class_count; k++)
        draw_class(cr, (hp_rect){r.x + pad, r.y + 52 + k * row, r.w - 2 * pad, row}, f, k,
                   voters);
}

/* -- the enhancement curve -- */

typedef struct axis {
    double lo, hi, step; /* HU */
    hp_rect plot;
} axis;

static double at_x(const axis *a, int phase)
{
    return a->plot.x + (phase + 0.5) * a->plot.w / HP_PHASES;
}
static double at_y(const axis *a, double hu)
{
    return a->plot.y + a->plot.h - (hu - a->lo) / (a->hi - a->lo) * a->plot.h;
}

static bool find_range(axis *a, const hp_candidate *c)
{
    static const double steps[] = {10, 20, 25, 50, 100, 200, 500};
    double lo = INFINITY, hi = -INFINITY;

    for (int p = 0; p < HP_PHASES; p++)
        for (int i = 0; i < 2; i++) {
            double v = i ? c->hu_liver[p] : c->hu_lesion[p];

            if (isfinite(v)) {
                lo = fmin(lo, v);
                hi = fmax(hi, v);
            }
        }
    if (!isfinite(lo))
        return false;
    if (hi - lo < 40) {
        lo = (lo + hi) / 2 - 20;
        hi = lo + 40;
    }
    a->step = steps[6];
    for (int i = 6; i >= 0; i--)
        if ((hi - lo) / steps[i] <= 4)
            a->step = steps[i];
    /* Room for the numbers below and above the points. */
    a->lo = floor((lo - 0.6 * a->step) / a->step) * a->step;
    a->hi = ceil((hi + 0.45 * a->step) / a->step) * a->step;
    return true;
}

static void draw_axes(cairo_t *cr, const axis *a, const hp_findings *f)
{
    char tick[16];

    cairo_set_line_width(cr, 1);
    for (double hu = a->lo; hu <= a->hi + 0.5; hu += a->step) {
        double y = floor(at_y(a, hu)) + 0.5;

        hp_paint_ink(cr, ink_line);
        cairo_move_to(cr, a->plot.x, y);
        cairo_line_to(cr, a->plot.x + a->plot.w, y);
        cairo_stroke(cr);
        snprintf(tick, sizeof tick, "%ld", lround(hu));
        hp_paint_text(cr, a->plot.x - 8, y + 6, 60, 17, false, HP_RIGHT, ink_dim, tick);
    }
    for (int p = 0; p < HP_PHASES; p++) {
        bool there = hp_report__shown_phase(f, (hp_phase)p) != HP_PHASE_NONE;

        hp_paint_text(cr, at_x(a, p), a->plot.y + a->plot.h + 24, a->plot.w / 4 - 6, 18,
                      false, HP_CENTRE, there ? ink_text : ink_line,
                      hp_phase_title((hp_phase)p));
    }
}

static void draw_curve(cairo_t *cr, const axis *a, const double hu[HP_PHASES], rgb c)
{
    bool down = false;

    for (int p = 0; p < HP_PHASES; p++) {
        if (!isfinite(hu[p]))
            continue; /* the line spans a missing phase; its point is absent */
        (down ? cairo_line_to : cairo_move_to)(cr, at_x(a, p), at_y(a, hu[p]));
        down = true;
    }
    hp_paint_ink(cr, c);
    cairo_set_line_width(cr, 3);
    cairo_set_line_join(cr, CAIRO_LINE_JOIN_ROUND);
    cairo_stroke(cr);
    for (int p = 0; p < HP_PHASES; p++)
        if (isfinite(hu[p])) {
            cairo_new_sub_path(cr);
            cairo_arc(cr, at_x(a, p), at_y(a, hu[p]), 6, 0, 2 * M_PI);
            cairo_fill(cr);
        }
}

/* The higher value of a phase is written above its point, the lower below. */
static void draw_numbers(cairo_t *cr, const axis *a, const hp_candidate *c)
{
    for (int p = 0; p < HP_PHASES; p++) {
        double lesion = c->hu_lesion[p], liver = c->hu_liver[p];
        bool lesion_above = !(isfinite(liver) && lesion < liver);
        char number[16];

        for (int i = 0; i < 2; i++) {
            double hu = i ? liver : lesion;
            bool above = i ? !lesion_above : lesion_above;
            double y = at_y(a, hu) + (above ? -12 : 26);

            if (!isfinite(hu))
                continue;
            snprintf(number, sizeof number, "%ld", lround(hu));
            hp_paint_text_on_image(cr, at_x(a, p), y, 17, true, HP_CENTRE,
                                   i ? ink_liver : ink_lesion, number);
        }
    }
}

static double draw_key(cairo_t *cr, double x, double y, rgb c, const char *name)
{
    double w = hp_paint_text(cr, x, y, 120, 18, false, HP_RIGHT, ink_text, name);

    hp_paint_ink(cr, c);
    cairo_set_line_width(cr, 3);
    cairo_move_to(cr, x - w - 36, y - 6);
    cairo_line_to(cr, x - w - 8, y - 6);
    cairo_stroke(cr);
    cairo_arc(cr, x - w - 22, y - 6, 5, 0, 2 * M_PI);
    cairo_fill(cr);
    return x - w - 56;
}

void hp_chart_hu(cairo_t *cr, hp_rect r, const hp_findings *f, const hp_candidate *c)
{
    axis a = {.plot = {r.x + pad + 48, r.y + 62, r.w - 2 * pad - 48, r.h - 62 - 48}};
    double x;

    hp_paint_card(cr, r);
    hp_paint_text(cr, r.x + pad, r.y + 34, r.w / 2, 21, true, HP_LEFT, ink_text,
                  "Mean HU by phase");
    x = draw_key(cr, r.x + r.w - pad, r.y + 34, ink_liver, "liver");
    draw_key(cr, x, r.y + 34, ink_lesion, "lesion");
    if (!find_range(&a, c)) {
        hp_paint_text(cr, r.x + pad, r.y + 90, r.w - 2 * pad, 19, false, HP_LEFT, ink_dim,
                      "not measured");
        return;
    }
    draw_axes(cr, &a, f);
    draw_curve(cr, &a, c->hu_liver, ink_liver);
    draw_curve(cr, &a, c->hu_lesion, ink_lesion);
    draw_numbers(cr, &a, c);
}
