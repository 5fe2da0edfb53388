/* What a report says, in plain ASCII: labels, the text form, and where a lesion
 * lies in its source images. */
#include "dicom/report_internal.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int hp_report__series_number(hp_result_kind kind)
{
    switch (kind) {
    case HP_RESULT_SR:
        return HP_SERIES_NUMBER_SR;
    case HP_RESULT_KEY_IMAGE:
        return HP_SERIES_NUMBER_KEY_IMAGE;
    case HP_RESULT_NOTE_SR:
        return HP_SERIES_NUMBER_NOTE_SR;
    default:
        return HP_SERIES_NUMBER_NOTE_PAGE;
    }
}

void hp_report__series_description(const hp_report *r, hp_result_kind kind, char ret[65])
{
    static const char *const what[HP_RESULT_KINDS] = {
        [HP_RESULT_SR] = "AI lesion report",
        [HP_RESULT_KEY_IMAGE] = "AI key images",
        [HP_RESULT_NOTE_SR] = "AI note",
        [HP_RESULT_NOTE_PAGE] = "AI note page",
    };

    if (r->revision > 1)
        snprintf(ret, 65, "%s rev %d, hepar (RUO)", what[kind], r->revision);
    else
        snprintf(ret, 65, "%s, hepar (RUO)", what[kind]);
}

hp_uid hp_report__series_uid(const hp_report *r, hp_result_kind kind)
{
    char name[32];

    snprintf(name, sizeof name, "%s.series", hp_result_kind_name(kind));
    return hp_result_uid(r->identity, name, hp_result_kind_sop_class(kind), 0);
}

hp_uid hp_report__instance_uid(const hp_report *r, hp_result_kind kind, int index)
{
    return hp_result_uid(r->identity, hp_result_kind_name(kind),
                         hp_result_kind_sop_class(kind), index);
}

const char *hp_report__ascii(const char *text, char *ret, size_t size)
{
    size_t n = 0;

    if (text != NULL)
        for (; text[n] != 0 && n + 1 < size; n++)
            ret[n] = (text[n] >= 32 && text[n] < 127) || text[n] == '\n' ? text[n] : '?';
    ret[n] = 0;
    return ret;
}

/* snprintf at the end of what is there already. */
static void append(char *text, size_t size, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void append(char *text, size_t size, const char *fmt, ...)
{
    size_t n = strlen(text);
    va_list args;

    va_start(args, fmt);
    vsnprintf(text + n, size - n, fmt, args);
    va_end(args);
}

static int percent(double p)
{
    return (int)lround(100.0 * p);
}

void hp_report__label(const hp_report *r, int candidate, char *ret, size_t size)
{
    const hp_findings *f = r->findings;
    const hp_candidate *c = &f->candidates[candidate];
    char label[32];
    int number = 1;

    for (int n = 0; hp_report_lesion(f, n) >= 0; n++)
        if (hp_report_lesion(f, n) == candidate)
            number = n + 1;
    if (f->outcome == HP_OUTCOME_CLASSIFIED && candidate == f->primary &&
        f->class_index >= 0)
        snprintf(ret, size, "L%d %s %d%% det %d%% (AI, RUO)", number,
                 hp_report__ascii(f->classes[f->class_index].label, label, sizeof label),
                 percent(f->probabilities[f->class_index]), percent(c->score));
    else
        snprintf(ret, size, "L%d lesion det %d%% (AI, RUO)", number, percent(c->score));
}

hp_phase hp_report__shown_phase(const hp_findings *f, hp_phase p)
{
    if (f->phase_series[p] >= 0)
        return p;
    return f->substituted[p];
}

void hp_report__phases(const hp_findings *f, char *ret, size_t size)
{
    ret[0] = 0;
    for (int p = 0; p < HP_PHASES; p++) {
        hp_phase shown = hp_report__shown_phase(f, (hp_phase)p);

        if (shown == HP_PHASE_NONE)
            continue;
        append(ret, size, "%s%s", ret[0] ? " " : "", hp_phase_name((hp_phase)p));
        if ((int)shown != p)
            append(ret, size, "(=%s)", hp_phase_name(shown));
    }
    if (ret[0] == 0)
        append(ret, size, "none");
}

void hp_report__hu(const hp_findings *f, const hp_candidate *c, hp_phase p, char *ret,
                   size_t size)
{
    hp_phase shown = hp_report__shown_phase(f, p);

    snprintf(ret, size, "%s: ", hp_phase_title(p));
    if (shown == HP_PHASE_NONE) {
        append(ret, size, "not acquired");
        return;
    }
    if (shown != p)
        append(ret, size, "substituted by %s, ", hp_phase_title(shown));
    if (isfinite(c->hu_lesion[p]))
        append(ret, size, "lesion %ld HU", lround(c->hu_lesion[p]));
    else
        append(ret, size, "lesion HU unknown");
    if (isfinite(c->hu_liver[p]))
        append(ret, size, ", liver %ld HU", lround(c->hu_liver[p]));
}

int hp_report__key_slice(const hp_findings *f, const hp_candidate *c)
{
    int z = c->key_slice, last = f->grid.n[HP_Z] - 1;

    if (z < 0 && f->grid.spacing_mm[HP_Z] > 0)
        z = (int)floor((c->box_mm.lo[HP_Z] + c->box_mm.hi[HP_Z]) / 2 /
                       f->grid.spacing_mm[HP_Z]);
    if (z > last)
        z = last;
    return z < 0 ? 0 : z;
}

int hp_report_key_number(const hp_report *r, int index)
{
    const hp_findings *f = r->findings;
    const hp_slice *s =
        hp_report__source(r, HP_PHASE_V, hp_report__key_slice(f, &f->candidates[index]));

    return s != NULL ? s->instance_number : -1;
}

const hp_slice *hp_report__source(const hp_report *r, hp_phase p, int z)
{
    const hp_findings *f = r->findings;
    hp_phase shown = hp_report__shown_phase(f, p);
    const hp_geom *g;
    double voxel[3] = {z + 0.5, f->grid.n[HP_Y] / 2.0, f->grid.n[HP_X] / 2.0}, mm[3];
    int there;

    if (r->assembly == NULL || shown == HP_PHASE_NONE ||
        !hp_assembly_has(r->assembly, shown))
        return NULL;
    g = hp_assembly_geom(r->assembly, shown);
    hp_geom_to_mm(&f->grid, voxel, mm);
    hp_geom_to_voxel(g, mm, voxel);
    there = (int)floor(voxel[HP_Z]);
    /* Just outside is the end slice; further out the phase has no image here. */
    if (there == -1)
        there = 0;
    if (there == g->n[HP_Z])
        there--;
    if (there < 0 || there >= g->n[HP_Z])
        return NULL;
    return hp_assembly_slice(r->assembly, shown, there);
}

static double dot(const double a[3], const double b[3])
{
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

static double clamp(double v, double lo, double hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

void hp_report__outline(const hp_findings *f, const hp_candidate *c, const hp_slice *s,
                        double ret_xy[10])
{
    /* PS3.3 C.18.6.1.2: (0,0) is the top left corner of the top left pixel,
     * while ImagePositionPatient is that pixel's centre. */
    static const int corner[5][2] = {{0, 0}, {0, 1}, {1, 1}, {1, 0}, {0, 0}};
    double z = (hp_report__key_slice(f, c) + 0.5);

    for (int i = 0; i < 5; i++) {
        const double *y = corner[i][0] ? c->box_mm.hi : c->box_mm.lo;
        const double *x = corner[i][1] ? c->box_mm.hi : c->box_mm.lo;
        double voxel[3] = {z, y[HP_Y] / f->grid.spacing_mm[HP_Y],
                           x[HP_X] / f->grid.spacing_mm[HP_X]};
        double mm[3], from[3];

        hp_geom_to_mm(&f->grid, voxel, mm);
        for (int k = 0; k < 3; k++)
            from[k] = mm[k] - s->position_mm[k];
        ret_xy[2 * i] =
            clamp(dot(from, s->orientation) / s->spacing_mm[1] + 0.5, 0, s->columns);
        ret_xy[2 * i + 1] =
            clamp(dot(from, s->orientation + 3) / s->spacing_mm[0] + 0.5, 0, s->rows);
    }
}

double hp_report__outline_area_mm2(const double xy[10], const hp_slice *s)
{
    double twice = 0;

    for (int i = 0; i < 4; i++)
        twice += xy[2 * i] * xy[2 * i + 3] - xy[2 * i + 2] * xy[2 * i + 1];
    return fabs(twice) / 2 * s->spacing_mm[0] * s->spacing_mm[1];
}

/* -- the text form -- */

static char *begin(hp_report__note *n, const char *heading)
{
    n->section[n->count].heading = heading;
    n->section[n->count].text[0] = 0;
    return n->section[n->count++].text;
}
enum { TEXT = sizeof((hp_report__note *)0)->section[0].text };

static void write_result(const hp_findings *f, hp_report__note *n)
{
    char *t = begin(n, "Result"), reason[200];

    switch (f->outcome) {
    case HP_OUTCOME_NOT_ACCEPTED:
        append(t, TEXT,
               "The study was read. %d candidate%s found; none was accepted as a primary "
               "liver lesion.\n",
               f->candidate_count, f->candidate_count == 1 ? " was" : "s were");
        break;
    case HP_OUTCOME_NO_CANDIDATE:
        append(t, TEXT,
               "The study was read. No candidate reached the detector's threshold.\n");
        break;
    default:
        append(t, TEXT, "The study could not be analysed.\n");
        break;
    }
    if (f->reason[0] != 0)
        append(t, TEXT, "Reason: %s\n",
               hp_report__ascii(f->reason, reason, sizeof reason));
    if (f->outcome != HP_OUTCOME_UNSUITABLE && f->outcome != HP_OUTCOME_NONE)
        append(t, TEXT, "This does not exclude disease.\n");
}

static void write_top_candidate(const hp_report *r, hp_report__note *n)
{
    const hp_findings *f = r->findings;
    const hp_candidate *c = &f->candidates[0];
    char *t = begin(n, "Top candidate (not accepted)"), hu[160];
    const hp_slice *s = hp_report__source(r, HP_PHASE_V, hp_report__key_slice(f, c));

    append(t, TEXT, "Detection confidence %d%%", percent(c->score));
    if (c->p_primary >= 0)
        append(t, TEXT, ", primary-lesion score %d%% (accepted from 50%%)",
               percent(c->p_primary));
    append(t, TEXT, ".\n");
    if (s != NULL)
        append(t, TEXT, "Portal venous series %d, image %d.\n", s->series_number,
               s->instance_number);
    append(t, TEXT, "Box %.0f x %.0f x %.0f mm (left-right, front-back, head-foot).\n",
           c->box_mm.hi[HP_X] - c->box_mm.lo[HP_X],
           c->box_mm.hi[HP_Y] - c->box_mm.lo[HP_Y],
           c->box_mm.hi[HP_Z] - c->box_mm.lo[HP_Z]);
    for (int p = 0; p < HP_PHASES; p++) {
        hp_report__hu(f, c, (hp_phase)p, hu, sizeof hu);
        append(t, TEXT, "%s.\n", hu);
    }
}

static void write_series(const hp_findings *f, hp_report__note *n)
{
    char *t = begin(n, "Series"), why[160];

    if (f->series_count == 0)
        append(t, TEXT, "No CT series was found.\n");
    for (int i = 0; i < f->series_count && i < 12; i++) {
        const hp_series_note *s = &f->series[i];

        append(t, TEXT, "Series %d (%d image%s): %s", s->number, s->instances,
               s->instances == 1 ? "" : "s",
               s->phase == HP_PHASE_NONE ? "not used" : hp_phase_title(s->phase));
        append(t, TEXT, "%s%s\n", s->why[0] ? " - " : "",
               hp_report__ascii(s->why, why, sizeof why));
    }
    if (f->series_count > 12)
        append(t, TEXT, "and %d more\n", f->series_count - 12);
    if (f->lossy_input)
        append(t, TEXT, "At least one input image was compressed with loss.\n");
}

static void write_origin(const hp_report *r, hp_report__note *n)
{
    const hp_findings *f = r->findings;
    char *t = begin(n, "Origin"), a[128];

    append(t, TEXT, "hepar %s", hp_report__ascii(r->software_version, a, sizeof a));
    if (f->bundle_name[0] != 0) {
        append(t, TEXT, ", model bundle %s",
               hp_report__ascii(f->bundle_name, a, sizeof a));
        append(t, TEXT, " %s", hp_report__ascii(f->bundle_version, a, sizeof a));
        append(t, TEXT, " (sha256 %.12s)", f->bundle_sha256);
    }
    append(t, TEXT, ".\n");
    if (f->intended_use[0] != 0)
        append(t, TEXT, "%s\n", hp_report__ascii(f->intended_use, a, sizeof a));
    append(t, TEXT, "%s.\n", HP_RUO_BANNER);
}

void hp_report__write_note(const hp_report *r, hp_report__note *ret)
{
    ret->count = 0;
    write_result(r->findings, ret);
    if (r->findings->outcome == HP_OUTCOME_NOT_ACCEPTED &&
        r->findings->candidate_count > 0)
        write_top_candidate(r, ret);
    write_series(r->findings, ret);
    write_origin(r, ret);
}
