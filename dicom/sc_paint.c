/* Drawing primitives of the key image. */
#include "dicom/sc_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void hp_paint_ink(cairo_t *cr, rgb c)
{
    cairo_set_source_rgb(cr, c.r, c.g, c.b);
}

void hp_paint_ink_alpha(cairo_t *cr, rgb c, double alpha)
{
    cairo_set_source_rgba(cr, c.r, c.g, c.b, alpha);
}

void hp_paint_fill(cairo_t *cr, hp_rect r, rgb c)
{
    hp_paint_ink(cr, c);
    cairo_rectangle(cr, r.x, r.y, r.w, r.h);
    cairo_fill(cr);
}

void hp_paint_card(cairo_t *cr, hp_rect r)
{
    const double k = 8, right = r.x + r.w, bottom = r.y + r.h;

    cairo_new_sub_path(cr);
    cairo_arc(cr, right - k, r.y + k, k, -M_PI / 2, 0);
    cairo_arc(cr, right - k, bottom - k, k, 0, M_PI / 2);
    cairo_arc(cr, r.x + k, bottom - k, k, M_PI / 2, M_PI);
    cairo_arc(cr, r.x + k, r.y + k, k, M_PI, 3 * M_PI / 2);
    cairo_close_path(cr);
    hp_paint_ink(cr, ink_card);
    cairo_fill(cr);
}

static void face(cairo_t *cr, double size, bool bold)
{
    cairo_select_font_face(cr, "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL,
                           bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(cr, size);
}

static double advance(cairo_t *cr, const char *text)
{
    cairo_text_extents_t e;

    cairo_text_extents(cr, text, &e);
    return e.x_advance;
}

double hp_paint_width(cairo_t *cr, const char *text, double size, bool bold)
{
    face(cr, size, bold);
    return advance(cr, text);
}

/* Shrinks the face by up to a fifth, then cuts the text, until it fits. */
static double fit(cairo_t *cr, char *text, double max_w, double size, bool bold)
{
    double w = hp_paint_width(cr, text, size, bold);
    size_t n = strlen(text);

    if (w > max_w)
        w = hp_paint_width(cr, text, fmax(0.8 * size, size * max_w / w), bold);
    while (w > max_w && n > 4) {
        n--;
        memcpy(text + n - 3, "...", 4);
        w = advance(cr, text);
    }
    return w;
}

static double start(double x, double w, hp_align align)
{
    return align == HP_LEFT ? x : align == HP_CENTRE ? x - w / 2 : x - w;
}

double hp_paint_text(cairo_t *cr, double x, double y, double max_w, double size,
                     bool bold, hp_align align, rgb c, const char *text)
{
    char line[512];
    double w;

    hp_report__ascii(text, line, sizeof line);
    w = fit(cr, line, max_w, size, bold);
    hp_paint_ink(cr, c);
    cairo_move_to(cr, start(x, w, align), y);
    cairo_show_text(cr, line);
    return w;
}

void hp_paint_text_on_image(cairo_t *cr, double x, double y, double size, bool bold,
                            hp_align align, rgb c, const char *text)
{
    double w = hp_paint_width(cr, text, size, bold);

    cairo_move_to(cr, start(x, w, align), y);
    cairo_text_path(cr, text);
    hp_paint_ink_alpha(cr, ink_back, 0.85);
    cairo_set_line_width(cr, 4);
    cairo_set_line_join(cr, CAIRO_LINE_JOIN_ROUND);
    cairo_stroke_preserve(cr);
    hp_paint_ink(cr, c);
    cairo_fill(cr);
}

double hp_paint_paragraph(cairo_t *cr, double x, double y, double max_w, double max_y,
                          double size, rgb c, const char *text)
{
    const double step = 1.4 * size;

    while (*text != 0 && y <= max_y) {
        char line[512];
        size_t end = 0, good = 0;

        face(cr, size, false);
        for (;;) { /* the longest run of whole words that fits */
            size_t word = end + strcspn(text + end, " \n");

            if (word >= sizeof line)
                break;
            memcpy(line, text, word);
            line[word] = 0;
            if (good > 0 && advance(cr, line) > max_w)
                break;
            good = word;
            end = word;
            if (text[end] != ' ')
                break;
            end++;
        }
        if (good == 0 && text[0] != '\n' && text[0] != ' ')
            good = strcspn(text, " \n") < sizeof line ? strcspn(text, " \n")
                                                      : sizeof line - 1;
        memcpy(line, text, good);
        line[good] = 0;
        hp_paint_text(cr, x, y, max_w, size, false, HP_LEFT, c, line);
        text += good;
        if (*text == ' ' || *text == '\n')
            text++;
        y += step;
    }
    return y;
}
