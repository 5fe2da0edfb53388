/* Drawing primitives of the key image; not a door. Lengths are pixels of the
 * final picture, text is ASCII. Errors collect in the cairo context and are
 * asked for once, at the end. */
#ifndef HP_DICOM_SC_INTERNAL_H
#define HP_DICOM_SC_INTERNAL_H

#include <cairo.h>

#include "dicom/report_internal.h"

typedef struct rgb {
    double r, g, b;
} rgb;

/* One meaning for each colour, on the panels and in the charts alike. */
#define HEX(v)                                                                           \
    {                                                                                    \
        ((v) >> 16 & 255) / 255.0, ((v) >> 8 & 255) / 255.0, ((v)&255) / 255.0           \
    }
static const rgb ink_back = HEX(0x0c0f13), ink_card = HEX(0x161b22),
                 ink_line = HEX(0x323b47), ink_text = HEX(0xe8ecf1),
                 ink_dim = HEX(0x9aa7b5), ink_lesion = HEX(0xffc233),
                 ink_liver = HEX(0x4cc9e8), ink_bar = HEX(0x5c7a99),
                 ink_warn = HEX(0xff8a5c), ink_banner = HEX(0xa3261f),
                 ink_white = HEX(0xffffff);
#undef HEX

typedef enum hp_align { HP_LEFT, HP_CENTRE, HP_RIGHT } hp_align;

typedef struct hp_rect {
    double x, y, w, h;
} hp_rect;

void hp_paint_ink(cairo_t *cr, rgb c);
void hp_paint_ink_alpha(cairo_t *cr, rgb c, double alpha);
void hp_paint_fill(cairo_t *cr, hp_rect r, rgb c);
void hp_paint_card(cairo_t *cr, hp_rect r); /* rounded, filled */
double hp_paint_width(cairo_t *cr, const char *text, double size, bool bold);
/* One line, baseline at y. Wider than max_w: a smaller face first, then cut
 * with "...". Returns the width drawn. */
double hp_paint_text(cairo_t *cr, double x, double y, double max_w, double size,
                     bool bold, hp_align align, rgb c, const char *text);
/* With a dark edge, to be read on top of an image. */
void hp_paint_text_on_image(cairo_t *cr, double x, double y, double size, bool bold,
                            hp_align align, rgb c, const char *text);
/* Breaks at blanks and '\n'; returns the y of the line after the last one. Stops
 * before a line whose baseline would pass max_y. */
double hp_paint_paragraph(cairo_t *cr, double x, double y, double max_w, double max_y,
                          double size, rgb c, const char *text);

/* sc_panel.c: one phase at the key slice. */
typedef struct hp_view {
    int z;                    /* key slice of the V grid */
    double lo_mm[2], side_mm; /* y, x of the crop's corner on the V grid; square */
} hp_view;
hp_view hp_panel_view(const hp_report *r, const hp_candidate *c);
void hp_panel_draw(cairo_t *cr, hp_rect r, const hp_report *report, const hp_candidate *c,
                   hp_phase phase, const hp_view *view);

/* sc_chart.c */
/* Bars and votes; without a class the list of candidates, `c` marked. */
void hp_chart_classes(cairo_t *cr, hp_rect r, const hp_findings *f,
                      const hp_candidate *c);
void hp_chart_hu(cairo_t *cr, hp_rect r, const hp_findings *f, const hp_candidate *c);

#endif
