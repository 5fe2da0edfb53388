/* The key image and the note page: one fixed layout each, 1600 x 1000.
 *
 * Readable at half size: no text below 17 pixels. Amber is the lesion and cyan
 * the liver everywhere. What a model says stands next to what can be measured
 * (HU per phase, size), so that it can be checked by eye.
 */
#include "dicom/sc.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/path.h"
#include "dicom/sc_internal.h"

static const double margin = 16, gap = 16, panel_side = 380;
static const double top_h = 60, bottom_h = 44;

/* -- the canvas -- */

typedef struct canvas {
    cairo_surface_t *surface;
    cairo_t *cr;
} canvas;

static void canvas_done(canvas *c)
{
    if (c->cr != NULL)
        cairo_destroy(c->cr);
    if (c->surface != NULL)
        cairo_surface_destroy(c->surface);
}

static void canvas_init(canvas *c)
{
    cairo_font_options_t *o = cairo_font_options_create();

    c->surface =
        cairo_image_surface_create(CAIRO_FORMAT_RGB24, HP_SC_WIDTH, HP_SC_HEIGHT);
    c->cr = cairo_create(c->surface);
    cairo_font_options_set_antialias(o, CAIRO_ANTIALIAS_GRAY);
    cairo_font_options_set_hint_style(o, CAIRO_HINT_STYLE_NONE);
    cairo_font_options_set_hint_metrics(o, CAIRO_HINT_METRICS_OFF);
    cairo_set_font_options(c->cr, o);
    cairo_font_options_destroy(o);
    hp_paint_fill(c->cr, (hp_rect){0, 0, HP_SC_WIDTH, HP_SC_HEIGHT}, ink_back);
}

static cairo_status_t to_buf(void *payload, const unsigned char *data, unsigned int len)
{
    hp_buf *b = payload;

    hp_buf_put(b, data, len);
    return b->failed ? CAIRO_STATUS_NO_MEMORY : CAIRO_STATUS_SUCCESS;
}

static hp_code write_png(const canvas *c, const char *path, hp_error *reterr)
{
    hp_buf png = HP_BUF_INIT;
    hp_code r;

    if (cairo_surface_write_to_png_stream(c->surface, to_buf, &png) !=
        CAIRO_STATUS_SUCCESS)
        r = hp_fail(reterr, HP_E_NO_MEMORY, "encoding a picture");
    else
        r = hp_file_write(path, png.data, png.len, 0600, reterr);
    hp_buf_done(&png);
    return r;
}

/* RGB24 words of the surface -> three bytes a pixel. */
static uint8_t *canvas_rgb(const canvas *c)
{
    const unsigned char *data = cairo_image_surface_get_data(c->surface);
    int stride = cairo_image_surface_get_stride(c->surface);
    uint8_t *rgb = malloc((size_t)HP_SC_WIDTH * HP_SC_HEIGHT * 3), *to = rgb;

    for (int y = 0; y < HP_SC_HEIGHT && rgb != NULL; y++)
        for (int x = 0; x < HP_SC_WIDTH; x++) {
            uint32_t k;

            memcpy(&k, data + y * stride + 4 * x, 4);
            *to++ = (uint8_t)(k >> 16);
            *to++ = (uint8_t)(k >> 8);
            *to++ = (uint8_t)k;
        }
    return rgb;
}

static hp_code canvas_write(const canvas *c, const hp_report *r, hp_result_kind kind,
                            int index, const hp_slice *const *sources, int source_count,
                            const char *derivation, const char *path,
                            const char *png_path, hp_uid *ret_sop_instance,
                            hp_error *reterr)
{
    uint8_t *rgb = NULL;
    hp_code code;

    cairo_surface_flush(c->surface);
    if (cairo_status(c->cr) != CAIRO_STATUS_SUCCESS)
        return hp_fail(reterr, HP_E_NO_MEMORY, "drawing: %s",
                       cairo_status_to_string(cairo_status(c->cr)));
    rgb = canvas_rgb(c);
    if (rgb == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "a picture of %d x %d", HP_SC_WIDTH,
                       HP_SC_HEIGHT);
    code = hp_report__write_sc(r, kind, index, rgb, HP_SC_WIDTH, HP_SC_HEIGHT, sources,
                               source_count, derivation, path, ret_sop_instance, reterr);
    free(rgb);
    if (code == HP_OK && png_path != NULL)
        code = write_png(c, png_path, reterr);
    return code;
}

/* -- what both pages have -- */

static void draw_top(cairo_t *cr, const char *headline, rgb c)
{
    const double size = 19, w = hp_paint_width(cr, HP_RUO_BANNER, size, true) + 36;
    const double x = HP_SC_WIDTH - margin - w;

    hp_paint_fill(cr, (hp_rect){x, 12, w, 38}, ink_banner);
    hp_paint_text(cr, x + w / 2, 38, w - 12, size, true, HP_CENTRE, ink_white,
                  HP_RUO_BANNER);
    hp_paint_text(cr, margin, 42, x - 2 * margin, 30, true, HP_LEFT, c, headline);
}

static void draw_bottom(cairo_t *cr, const hp_report *r)
{
    const hp_findings *f = r->findings;
    char line[256], software[64], bundle[128] = "";

    hp_report__ascii(r->software_version, software, sizeof software);
    if (f->bundle_name[0] != 0)
        snprintf(bundle, sizeof bundle, ", model bundle %s %s (%.12s)", f->bundle_name,
                 f->bundle_version, f->bundle_sha256);
    snprintf(line, sizeof line, "hepar %s%s. %s", software, bundle, f->intended_use);
    hp_paint_text(cr, margin, HP_SC_HEIGHT - 16, HP_SC_WIDTH - 2 * margin, 17, false,
                  HP_LEFT, ink_dim, line);
}

/* -- facts -- */

enum { MAX_FACTS = 14 };
typedef struct facts {
    int count;
    struct {
        rgb ink;
        const char *name;
        char value[160];
    } fact[MAX_FACTS];
} facts;

static void add_fact(facts *t, rgb ink, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void add_fact(facts *t, rgb ink, const char *name, const char *fmt, ...)
{
    va_list args;

    if (t->count == MAX_FACTS)
        return;
    t->fact[t->count].ink = ink;
    t->fact[t->count].name = name;
    va_start(args, fmt);
    vsnprintf(t->fact[t->count].value, sizeof t->fact[0].value, fmt, args);
    va_end(args);
    t->count++;
}

static void add_warnings(facts *t, const hp_findings *f, const hp_candidate *c)
{
    for (int p = 0; p < HP_PHASES; p++) {
        hp_phase shown = hp_report__shown_phase(f, (hp_phase)p);

        if (shown != HP_PHASE_NONE && shown != (hp_phase)p)
            add_fact(t, ink_warn, "Note", "%s stands in for %s", hp_phase_title(shown),
                     hp_phase_title((hp_phase)p));
    }
    if (f->lossy_input)
        add_fact(t, ink_warn, "Note", "input compressed with loss");
    if (c->key_fallback)
        add_fact(t, ink_warn, "Note", "no lesion outline: middle slice");
    if (!f->liver_ok)
        add_fact(t, ink_warn, "Note", "liver outline doubtful%s%s",
                 f->liver_note[0] ? ": " : "", f->liver_note);
}

/* Box and outline were found in the venous phase; where the other phases are
 * placed by the scanner's coordinates, breathing shifts them. */
static bool by_coordinates(const hp_findings *f)
{
    for (int p = 0; p < HP_PHASES; p++)
        if (strcmp(f->registration[p], "coordinates") == 0)
            return true;
    return false;
}

static void add_size(facts *t, const hp_candidate *c)
{
    if (c->long_axis_mm > 0) {
        add_fact(t, ink_text, "Long x short axis", "%.0f x %.0f mm", c->long_axis_mm,
                 c->short_axis_mm);
        if (c->volume_ml > 0)
            add_fact(t, ink_text, "Volume", "%.1f mL", c->volume_ml);
    } else {
        add_fact(t, ink_text, "Box", "%.0f x %.0f x %.0f mm",
                 c->box_mm.hi[HP_X] - c->box_mm.lo[HP_X],
                 c->box_mm.hi[HP_Y] - c->box_mm.lo[HP_Y],
                 c->box_mm.hi[HP_Z] - c->box_mm.lo[HP_Z]);
    }
}

static void draw_facts(cairo_t *cr, hp_rect r, const hp_report *report,
                       const hp_candidate *c)
{
    const double pad = 18, name_w = 182;
    const hp_findings *f = report->findings;
    const hp_slice *key =
        hp_report__source(report, HP_PHASE_V, hp_report__key_slice(f, c));
    facts t = {.count = 0};
    char phases[64];
    double step, y;

    add_fact(&t, ink_text, "Detection", "%ld%%", lround(100 * c->score));
    if (c->p_primary >= 0)
        add_fact(&t, ink_text, "Primary lesion", "%ld%%", lround(100 * c->p_primary));
    add_size(&t, c);
    if (key != NULL)
        add_fact(&t, ink_text, "Key slice", "series %d, image %d", key->series_number,
                 key->instance_number);
    hp_report__phases(f, phases, sizeof phases);
    add_fact(&t, ink_text, "Phases used", "%s", phases);
    if (by_coordinates(f))
        add_fact(&t, ink_text, "Alignment", "coordinates only");
    add_fact(&t, ink_text, "Candidates", "%d", f->candidate_count);
    if (f->liver_ml > 0)
        add_fact(&t, ink_text, "Liver volume", "%.0f mL", f->liver_ml);
    add_warnings(&t, f, c);

    hp_paint_card(cr, r);
    step = fmin(40, (r.h - 40) / t.count);
    y = r.y + 36;
    for (int i = 0; i < t.count; i++, y += step) {
        hp_paint_text(cr, r.x + pad, y, name_w - 8, 18, false, HP_LEFT, ink_dim,
                      t.fact[i].name);
        hp_paint_text(cr, r.x + pad + name_w, y, r.w - 2 * pad - name_w, 20, false,
                      HP_LEFT, t.fact[i].ink, t.fact[i].value);
    }
}

/* -- the key image -- */

static void write_headline(const hp_report *r, int index, char *ret, size_t size)
{
    const hp_findings *f = r->findings;
    int number = 1;

    for (int n = 0; hp_report_lesion(f, n) >= 0; n++)
        if (hp_report_lesion(f, n) == index)
            number = n + 1;
    if (f->outcome == HP_OUTCOME_CLASSIFIED && index == f->primary && f->class_index >= 0)
        snprintf(ret, size, "Lesion %d: %s, %ld%%", number,
                 f->classes[f->class_index].meaning,
                 lround(100 * f->probabilities[f->class_index]));
    else
        snprintf(ret, size, "Lesion %d: detected (%ld%%), no class", number,
                 lround(100 * f->candidates[index].score));
}

static void draw_key_image(cairo_t *cr, const hp_report *r, int index)
{
    const hp_findings *f = r->findings;
    const hp_candidate *c = &f->candidates[index];
    const hp_view view = hp_panel_view(r, c);
    const double panel_y = top_h + 42, low_y = panel_y + panel_side + 52;
    const double low_h = HP_SC_HEIGHT - bottom_h - low_y;
    char headline[160];

    write_headline(r, index, headline, sizeof headline);
    draw_top(cr, headline, ink_lesion);
    for (int p = 0; p < HP_PHASES; p++)
        hp_panel_draw(
            cr,
            (hp_rect){margin + p * (panel_side + gap), panel_y, panel_side, panel_side},
            r, c, (hp_phase)p, &view);
    hp_chart_classes(cr, (hp_rect){margin, low_y, 530, low_h}, f, c);
    hp_chart_hu(cr, (hp_rect){margin + 546, low_y, 560, low_h}, f, c);
    draw_facts(cr,
               (hp_rect){margin + 1122, low_y, HP_SC_WIDTH - 2 * margin - 1122, low_h}, r,
               c);
    draw_bottom(cr, r);
}

hp_code hp_sc_write_key_image(const hp_report *r, int index, const char *path,
                              const char *png_path, hp_uid *ret_sop_instance,
                              hp_error *reterr)
{
    const hp_findings *f = r->findings;
    const hp_slice *sources[HP_PHASES];
    int source_count = 0, number = index;
    canvas c = {NULL, NULL};
    hp_code code;

    if (index < 0 || index >= f->candidate_count)
        return hp_fail(reterr, HP_E_INVALID, "no candidate %d to draw", index);
    for (int n = 0; hp_report_lesion(f, n) >= 0; n++)
        if (hp_report_lesion(f, n) == index)
            number = n;
    for (int p = 0; p < HP_PHASES; p++) {
        const hp_slice *s = hp_report__source(
            r, (hp_phase)p, hp_report__key_slice(f, &f->candidates[index]));

        if (s != NULL && hp_report__shown_phase(f, (hp_phase)p) == (hp_phase)p)
            sources[source_count++] = s;
    }
    canvas_init(&c);
    draw_key_image(c.cr, r, index);
    code = canvas_write(&c, r, HP_RESULT_KEY_IMAGE, number, sources, source_count,
                        "Key slice of each phase, resampled and annotated. "
                        "AI result, research use only, not for diagnosis.",
                        path, png_path, ret_sop_instance, reterr);
    canvas_done(&c);
    return code;
}

/* -- the note page -- */

static const char *note_headline(const hp_findings *f)
{
    switch (f->outcome) {
    case HP_OUTCOME_NOT_ACCEPTED:
        return "AI note: no primary lesion accepted";
    case HP_OUTCOME_NO_CANDIDATE:
        return "AI note: no candidate lesion";
    default:
        return "AI note: the study could not be analysed";
    }
}

/* The candidate that was not accepted is shown where it lies, so that a reader
 * may disagree. */
static void draw_note_panel(cairo_t *cr, const hp_report *r)
{
    const hp_candidate *c = &r->findings->candidates[0];
    const double side = 560;
    const hp_rect at = {HP_SC_WIDTH - 60 - side, top_h + 76, side, side};
    const hp_view view = hp_panel_view(r, c);

    hp_panel_draw(cr, at, r, c, HP_PHASE_V, &view);
    hp_paint_text(cr, at.x, at.y + side + 62, side, 19, false, HP_LEFT, ink_warn,
                  "Box: the candidate that was not accepted.");
}

hp_code hp_sc_write_note(const hp_report *r, const char *path, const char *png_path,
                         hp_uid *ret_sop_instance, hp_error *reterr)
{
    const hp_findings *f = r->findings;
    const bool panel = f->outcome == HP_OUTCOME_NOT_ACCEPTED && f->candidate_count > 0 &&
                       r->registered != NULL && r->registered[HP_PHASE_V] != NULL;
    const double left = 60, text_w = HP_SC_WIDTH - 120 - (panel ? 600 : 0);
    const double max_y = HP_SC_HEIGHT - bottom_h - 20;
    hp_report__note note;
    canvas c = {NULL, NULL};
    double y = top_h + 52;
    hp_code code;

    hp_report__write_note(r, &note);
    canvas_init(&c);
    draw_top(c.cr, note_headline(f), ink_text);
    if (panel)
        draw_note_panel(c.cr, r);
    for (int i = 0; i < note.count && y < max_y; i++) {
        hp_paint_text(c.cr, left, y, text_w, 23, true, HP_LEFT, ink_liver,
                      note.section[i].heading);
        y = hp_paint_paragraph(c.cr, left, y + 34, text_w, max_y, 20, ink_text,
                               note.section[i].text);
        y += 22;
    }
    draw_bottom(c.cr, r);
    code = canvas_write(&c, r, HP_RESULT_NOTE_PAGE, 0, NULL, 0,
                        "Text page. AI result, research use only, not for diagnosis.",
                        path, png_path, ret_sop_instance, reterr);
    canvas_done(&c);
    return code;
}
