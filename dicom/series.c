/* A study's planes into four phases: filters, notes, and the assembly.
 *
 * The way of a plane: filters that look at it alone (SOP class, modality, image
 * type, format) -> series -> stacks of one matrix and direction -> acquisitions
 * (series_stack.c) -> geometry -> one reconstruction of each acquisition
 * (series_recon.c) -> phase (series_phase.c). Whatever leaves the way leaves a
 * note that says why; the notes are the record that an admin reads.
 */
#include "dicom/series_internal.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct hp_assembly {
    hp_stack phase[HP_PHASES]; /* plane == NULL: missing */
};

/* Everything that exists while a study is being sorted. */
typedef struct sorting {
    const hp_series_rules *rules;
    const hp_slice **plane; /* all, grouped by series */
    int planes;
    hp_stack stack[HP_STACK_MAX];
    int stacks, series, groups;
    hp_series_note *note; /* [HP_NOTE_MAX]: filtered planes */
    int notes;
} sorting;

/* -- filters on one plane -- */

static const char *class_name(const char *uid)
{
    static const struct {
        const char *uid, *name;
    } NAMES[] = {
        {"1.2.840.10008.5.1.4.1.1.7", "Secondary Capture"},
        {"1.2.840.10008.5.1.4.1.1.7.1", "Secondary Capture"},
        {"1.2.840.10008.5.1.4.1.1.7.2", "Secondary Capture"},
        {"1.2.840.10008.5.1.4.1.1.7.3", "Secondary Capture"},
        {"1.2.840.10008.5.1.4.1.1.7.4", "Secondary Capture"},
        {"1.2.840.10008.5.1.4.1.1.11.1", "presentation state"},
        {"1.2.840.10008.5.1.4.1.1.66.4", "segmentation"},
        {"1.2.840.10008.5.1.4.1.1.88.11", "structured report"},
        {"1.2.840.10008.5.1.4.1.1.88.22", "structured report"},
        {"1.2.840.10008.5.1.4.1.1.88.33", "structured report"},
        {"1.2.840.10008.5.1.4.1.1.88.34", "structured report"},
        {"1.2.840.10008.5.1.4.1.1.88.59", "key object selection"},
        {"1.2.840.10008.5.1.4.1.1.88.67", "radiation dose report"},
        {"1.2.840.10008.5.1.4.1.1.104.1", "encapsulated PDF"},
        {"1.2.840.10008.5.1.4.1.1.481.3", "RT structure set"},
        {"1.2.840.10008.5.1.4.1.1.4", "MR image"},
        {"1.2.840.10008.5.1.4.1.1.128", "PET image"},
    };

    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++)
        if (strcmp(uid, NAMES[i].uid) == 0)
            return NAMES[i].name;
    return "another kind of object";
}

/* Is `word` one of the words of an ImageType ("DERIVED\SECONDARY\CT_SOM5 MPR")? */
static bool has_type_word(const char *image_type, const char *word)
{
    size_t len = strlen(word);

    for (const char *at = image_type; (at = strstr(at, word)) != NULL; at += len) {
        bool begins = at == image_type || !isalnum((unsigned char)at[-1]);

        if (begins && !isalnum((unsigned char)at[len]))
            return true;
    }
    return false;
}

static const char *filter_image_type(const char *type)
{
    static const struct {
        const char *word, *why;
    } WORDS[] = {
        {"LOCALIZER", "localizer"},      {"SCOUT", "localizer"},
        {"TOPOGRAM", "localizer"},       {"MPR", "reformatted (MPR)"},
        {"MPVR", "reformatted (MPR)"},   {"REFORMATTED", "reformatted (MPR)"},
        {"CPR", "reformatted (curved)"}, {"MIP", "projection (MIP)"},
        {"MINIP", "projection (MinIP)"}, {"PROJECTION", "projection"},
        {"VRT", "rendered picture"},     {"SSD", "rendered picture"},
        {"VOLREN", "rendered picture"},  {"RENDERED", "rendered picture"},
        {"SCREEN", "screen picture"},    {"SAVE", "screen picture"},
        {"DOSE", "dose report"},         {"PROT", "protocol page"},
        {"SUBTRACTION", "subtraction"},  {"SUBTRACT", "subtraction"},
        {"PERFUSION", "perfusion map"},  {"RCBF", "perfusion map"},
        {"FUSION", "fused picture"},     {"VNC", "virtual non-contrast"},
        {"IODINE", "material map"},      {"MATERIAL", "material map"},
        {"EFFECTIVEZ", "material map"},  {"BOLUS", "bolus tracking"},
    };

    for (size_t i = 0; i < sizeof WORDS / sizeof WORDS[0]; i++)
        if (has_type_word(type, WORDS[i].word))
            return WORDS[i].why;
    /* A lossless re-encoding is sometimes called DERIVED\PRIMARY\AXIAL. */
    if (strncmp(type, "DERIVED", 7) == 0 &&
        (has_type_word(type, "SECONDARY") ||
         !(has_type_word(type, "AXIAL") || has_type_word(type, "VOLUME"))))
        return "derived image";
    return NULL;
}

static bool all_finite(const double *v, int n)
{
    for (int i = 0; i < n; i++)
        if (!isfinite(v[i]))
            return false;
    return true;
}

/* Row and column cosines must be unit vectors at right angles. */
static bool sound_orientation(const double o[6])
{
    double rr = 0, cc = 0, rc = 0;

    for (int i = 0; i < 3; i++) {
        rr += o[i] * o[i];
        cc += o[i + 3] * o[i + 3];
        rc += o[i] * o[i + 3];
    }
    return fabs(rr - 1) < 0.02 && fabs(cc - 1) < 0.02 && fabs(rc) < 0.02;
}

/* NULL: the plane goes on. */
static const char *filter_plane(const hp_slice *p)
{
    const char *why;

    if (p->rows == 0 && p->columns == 0)
        return class_name(p->sop_class.text);
    if (strcmp(p->modality, "CT") != 0)
        return "modality is not CT";
    if (p->series.text[0] == 0)
        return "no series UID";
    why = filter_image_type(p->image_type);
    if (why != NULL)
        return why;
    if (p->samples != 1 || strncmp(p->photometric, "MONOCHROME", 10) != 0)
        return "colour picture";
    if (p->rows < 64 || p->columns < 64 || p->rows > 4096 || p->columns > 4096)
        return "matrix too small or too large";
    if ((p->bits_allocated != 16 && p->bits_allocated != 8) || p->bits_stored < 1 ||
        p->bits_stored > p->bits_allocated ||
        (p->pixel_representation != 0 && p->pixel_representation != 1))
        return "pixel format that no CT has";
    if (!all_finite(p->position_mm, 3) || !all_finite(p->orientation, 6) ||
        !all_finite(p->spacing_mm, 2) || !sound_orientation(p->orientation))
        return "no position, orientation or pixel spacing";
    if (!(p->spacing_mm[0] > 0.05 && p->spacing_mm[0] < 5 && p->spacing_mm[1] > 0.05 &&
          p->spacing_mm[1] < 5))
        return "pixel spacing out of range";
    if (!isfinite(p->intercept) || !(p->slope > 0))
        return "no rescale to Hounsfield units";
    if (p->rescale_type[0] != 0 && strcmp(p->rescale_type, "HU") != 0 &&
        strcmp(p->rescale_type, "US") != 0)
        return "values are not Hounsfield units";
    return NULL;
}

/* -- notes -- */

static void add_note(sorting *w, const hp_slice *p, int instances, const char *why)
{
    hp_series_note *n;

    if (w->notes == HP_NOTE_MAX)
        return;
    n = &w->note[w->notes++];
    memset(n, 0, sizeof *n);
    n->uid = p->series;
    n->number = p->series_number;
    n->instances = instances;
    n->phase = HP_PHASE_NONE;
    snprintf(n->why, sizeof n->why, "%s", why);
}

/* One note for each reason that took planes out of this series. */
static void note_filtered(sorting *w, const hp_slice **plane, const char **why, int n)
{
    for (int i = 0; i < n; i++) {
        int same = 0;
        bool first = true;

        for (int k = 0; k < n && why[i] != NULL; k++) {
            bool equal = why[k] != NULL && strcmp(why[k], why[i]) == 0;

            first &= !(equal && k < i);
            same += equal;
        }
        if (why[i] != NULL && first)
            add_note(w, plane[i], same, why[i]);
    }
}

static hp_series_note stack_note(const hp_stack *s)
{
    hp_series_note n = {
        .uid = s->plane[0]->series,
        .number = s->plane[0]->series_number,
        .acquisition = s->part,
        .instances = s->count,
        .phase = s->phase,
    };

    memcpy(n.why, s->why, sizeof n.why);
    return n;
}

static int by_note(const void *a, const void *b)
{
    const hp_series_note *x = a, *y = b;
    int order;

    if (x->number != y->number)
        return x->number < y->number ? -1 : 1;
    order = strcmp(x->uid.text, y->uid.text);
    if (order != 0)
        return order;
    return x->acquisition < y->acquisition ? -1 : x->acquisition > y->acquisition;
}

/* Notes into the findings: used ones always, then the rest while there is room. */
static hp_code write_notes(const sorting *w, hp_findings *f, hp_error *reterr)
{
    int total = w->notes + w->stacks, fill = 0;
    hp_series_note *all = malloc((size_t)(total > 0 ? total : 1) * sizeof *all);

    if (all == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "series notes");
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < w->stacks && fill < HP_MAX_SERIES; i++)
            if ((w->stack[i].phase == HP_PHASE_NONE) == (pass == 1))
                all[fill++] = stack_note(&w->stack[i]);
    for (int i = 0; i < w->notes && fill < HP_MAX_SERIES; i++)
        all[fill++] = w->note[i];
    qsort(all, (size_t)fill, sizeof *all, by_note);
    f->series_count = fill;
    for (int i = 0; i < fill; i++) {
        f->series[i] = all[i];
        if (all[i].phase != HP_PHASE_NONE)
            f->phase_series[all[i].phase] = i;
    }
    free(all);
    return HP_OK;
}

/* -- from series to stacks -- */

static bool same_grid(const hp_slice *a, const hp_slice *b)
{
    for (int i = 0; i < 6; i++)
        if (fabs(a->orientation[i] - b->orientation[i]) > 2e-3)
            return false;
    return a->rows == b->rows && a->columns == b->columns &&
           fabs(a->spacing_mm[0] - b->spacing_mm[0]) < 1e-3 * a->spacing_mm[0] &&
           fabs(a->spacing_mm[1] - b->spacing_mm[1]) < 1e-3 * a->spacing_mm[1] &&
           strcmp(a->frame_of_reference.text, b->frame_of_reference.text) == 0;
}

/* Planes of one series that passed: gathers those of one grid after another. */
static hp_code split_series(sorting *w, const hp_slice **plane, int n, hp_error *reterr)
{
    const hp_slice **one = malloc((size_t)n * sizeof(*one));
    hp_code r = HP_OK;

    if (one == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "series");
    while (n > 0 && r == HP_OK) {
        const hp_slice *first = plane[0];
        int taken = 0, left = 0;

        for (int i = 0; i < n; i++)
            if (same_grid(first, plane[i]))
                one[taken++] = plane[i];
            else
                plane[left++] = plane[i];
        n = left;
        if (w->stacks == HP_STACK_MAX)
            add_note(w, first, taken, "too many series and acquisitions in one study");
        else
            r = hp_stacks_split(one, taken, w->series, w->groups++, w->stack, &w->stacks,
                                HP_STACK_MAX, reterr);
    }
    free(one);
    return r;
}

/* Acquisitions of a series that came from several grids count on. */
static void number_parts(sorting *w, int from)
{
    for (int i = from + 1; i < w->stacks; i++)
        if (w->stack[i].part <= w->stack[i - 1].part)
            w->stack[i].part = w->stack[i - 1].part + 1;
}

static hp_code sort_series(sorting *w, const hp_slice **plane, int n, hp_error *reterr)
{
    const char **why = calloc((size_t)n, sizeof(*why));
    int fit = 0, from = w->stacks;
    hp_code r = HP_OK;

    if (why == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "series");
    for (int i = 0; i < n; i++)
        why[i] = filter_plane(plane[i]);
    note_filtered(w, plane, why, n);
    for (int i = 0; i < n; i++)
        if (why[i] == NULL)
            plane[fit++] = plane[i];
    free(why);
    if (fit > 0)
        r = split_series(w, plane, fit, reterr);
    number_parts(w, from);
    w->series++;
    return r;
}

static int by_series(const void *a, const void *b)
{
    const hp_slice *x = *(const hp_slice *const *)a, *y = *(const hp_slice *const *)b;
    int order;

    if (x->series_number != y->series_number)
        return x->series_number < y->series_number ? -1 : 1;
    order = strcmp(x->series.text, y->series.text);
    if (order != 0)
        return order;
    order = strcmp(x->sop_instance.text, y->sop_instance.text);
    return order != 0 ? order : x->frame < y->frame ? -1 : x->frame > y->frame;
}

/* Copies of one instance (a folder with duplicates) count once. */
static void drop_copies(sorting *w)
{
    int fill = 0;

    for (int i = 0; i < w->planes; i++) {
        const hp_slice *p = w->plane[i];

        if (fill > 0 && w->plane[fill - 1]->frame == p->frame &&
            strcmp(w->plane[fill - 1]->sop_instance.text, p->sop_instance.text) == 0)
            continue;
        w->plane[fill++] = p;
    }
    w->planes = fill;
}

static hp_code sort_all(sorting *w, hp_error *reterr)
{
    qsort(w->plane, (size_t)w->planes, sizeof(*w->plane), by_series);
    drop_copies(w);
    for (int i = 0; i < w->planes;) {
        int n = 1;
        hp_code r;

        while (i + n < w->planes &&
               strcmp(w->plane[i + n]->series.text, w->plane[i]->series.text) == 0)
            n++;
        r = sort_series(w, w->plane + i, n, reterr);
        if (r != HP_OK)
            return r;
        i += n;
    }
    for (int i = 0; i < w->stacks; i++)
        hp_stack_check(&w->stack[i], w->rules);
    return HP_OK;
}

/* -- the study's answer -- */

static hp_code unsuitable(hp_findings *f, hp_code code, const char *reason_code,
                          hp_error *reterr, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
static hp_code unsuitable(hp_findings *f, hp_code code, const char *reason_code,
                          hp_error *reterr, const char *fmt, ...)
{
    va_list args;

    f->outcome = HP_OUTCOME_UNSUITABLE;
    snprintf(f->reason_code, sizeof f->reason_code, "%s", reason_code);
    va_start(args, fmt);
    vsnprintf(f->reason, sizeof f->reason, fmt, args);
    va_end(args);
    return hp_fail(reterr, code, "%s", f->reason);
}

/* Every object of the list counts, images or not. */
static hp_code check_one_patient(const hp_slice_list *list, hp_findings *f,
                                 hp_error *reterr)
{
    const hp_slice *first = &list->item[0];

    for (size_t i = 1; i < list->count; i++) {
        const hp_slice *p = &list->item[i];

        if (strcmp(p->study.text, first->study.text) != 0)
            return unsuitable(f, HP_E_MISMATCH, "two_studies", reterr,
                              "the images belong to more than one study");
        if (memcmp(p->patient_digest, first->patient_digest, sizeof p->patient_digest) !=
            0)
            return unsuitable(f, HP_E_MISMATCH, HP_WHY_TWO_PATIENTS, reterr,
                              "two different patient IDs in one study");
    }
    return HP_OK;
}

/* A full list was not filled to the study's end. */
static hp_code check_size(const hp_slice_list *list, hp_findings *f, hp_error *reterr)
{
    if (list->count < HP_MAX_PLANES)
        return HP_OK;
    return unsuitable(f, HP_E_UNSUITABLE, HP_WHY_TOO_MANY, reterr,
                      "more than %d images in one study", HP_MAX_PLANES - 1);
}

/* A phase must show what the venous phase shows. */
static void drop_elsewhere(sorting *w)
{
    const hp_stack *v = NULL;

    for (int i = 0; i < w->stacks; i++)
        if (w->stack[i].phase == HP_PHASE_V)
            v = &w->stack[i];
    for (int i = 0; i < w->stacks && v != NULL; i++) {
        hp_stack *s = &w->stack[i];
        double both;

        if (s->phase == HP_PHASE_NONE || s == v)
            continue;
        both = hp_stack_overlap_mm(s, v);
        if (both < 60) {
            snprintf(s->why, sizeof s->why,
                     "shows only %.0f mm of what the venous phase shows, needs 60 mm",
                     both > 0 ? both : 0);
            s->phase = HP_PHASE_NONE;
            s->fault = HP_STACK_UNUSED;
        } else if (strcmp(s->plane[0]->frame_of_reference.text,
                          v->plane[0]->frame_of_reference.text) != 0) {
            size_t n = strlen(s->why);

            snprintf(s->why + n, sizeof s->why - n, "; another frame of reference");
        }
    }
}

/* A stack with broken geometry that may be what is missing: says so. */
static const hp_stack *broken_stack(const sorting *w)
{
    const hp_stack *maybe = NULL;

    for (int i = 0; i < w->stacks; i++) {
        unsigned words = hp_stack_words(&w->stack[i], NULL);

        if (w->stack[i].fault != HP_STACK_GEOMETRY)
            continue;
        if (words & (1u << HP_PHASE_V))
            return &w->stack[i];
        if (words == 0 && maybe == NULL)
            maybe = &w->stack[i];
    }
    return maybe;
}

static hp_code say_broken(const hp_stack *s, hp_findings *f, hp_error *reterr)
{
    char name[48];

    return unsuitable(f, HP_E_UNSUITABLE, HP_WHY_GEOMETRY, reterr, "%s: %s",
                      hp_stack_name(s, name), s->why);
}

static int count_fine(const sorting *w)
{
    int n = 0;

    for (int i = 0; i < w->stacks; i++)
        n += w->stack[i].fault == HP_STACK_FINE;
    return n;
}

static hp_code no_stack(const sorting *w, hp_findings *f, hp_error *reterr)
{
    const hp_stack *broken = broken_stack(w);

    for (int i = 0; i < w->stacks && broken == NULL; i++)
        if (w->stack[i].fault == HP_STACK_GEOMETRY)
            broken = &w->stack[i];
    if (broken != NULL)
        return say_broken(broken, f, reterr);
    if (w->stacks == 0)
        return unsuitable(f, HP_E_UNSUITABLE, HP_WHY_NO_CT, reterr,
                          "no CT images that could be a volume (%d objects)", w->planes);
    return unsuitable(f, HP_E_UNSUITABLE, HP_WHY_NO_SERIES, reterr,
                      "no series is an axial CT volume of the body; series %d: %s",
                      w->stack[0].plane[0]->series_number, w->stack[0].why);
}

static hp_code judge(sorting *w, hp_findings *f, hp_error *reterr)
{
    hp_phase_choice choice;
    const hp_stack *broken;
    hp_code r;

    if (count_fine(w) == 0)
        return no_stack(w, f, reterr);
    hp_stacks_doubt_times(w->stack, w->stacks);
    hp_stacks_spare(w->stack, w->stacks, w->rules);
    r = hp_phases_choose(w->stack, w->stacks, w->rules, &choice, reterr);
    if (r != HP_OK)
        return r;
    drop_elsewhere(w);
    for (int i = 0; i < w->stacks; i++)
        if (w->stack[i].phase == HP_PHASE_V)
            return HP_OK;
    broken = broken_stack(w);
    if (broken != NULL)
        return say_broken(broken, f, reterr);
    return unsuitable(f, HP_E_UNSUITABLE,
                      choice.ambiguous ? HP_WHY_AMBIGUOUS : HP_WHY_NO_VENOUS, reterr,
                      "%s", choice.reason);
}

/* Stacks that nobody chose among: the study was refused before. */
static void note_unread(sorting *w, const char *reason)
{
    for (int i = 0; i < w->stacks; i++)
        if (w->stack[i].fault == HP_STACK_FINE)
            snprintf(w->stack[i].why, sizeof w->stack[i].why, "not read: %.140s", reason);
}

static void sorting_done(sorting *w)
{
    for (int i = 0; i < w->stacks; i++)
        hp_stack_done(&w->stack[i]);
    free(w->plane);
    free(w->note);
}

/* Moves the stacks that have a phase into the assembly. */
static hp_code take_phases(sorting *w, hp_findings *f, hp_assembly **ret,
                           hp_error *reterr)
{
    hp_assembly *a = calloc(1, sizeof *a);

    if (a == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "assembly");
    for (int i = 0; i < w->stacks; i++) {
        hp_stack *s = &w->stack[i];

        if (s->phase == HP_PHASE_NONE)
            continue;
        for (int k = 0; k < s->count; k++)
            f->lossy_input |= s->plane[k]->lossy;
        a->phase[s->phase] = *s;
        s->plane = NULL;
    }
    *ret = a;
    return HP_OK;
}

hp_code hp_series_assemble(const hp_slice_list *list, const hp_series_rules *rules,
                           hp_findings *f, hp_assembly **ret, hp_error *reterr)
{
    sorting w = {.rules = rules};
    hp_code r, noted;

    f->series_count = 0;
    f->lossy_input = false;
    for (int p = 0; p < HP_PHASES; p++)
        f->phase_series[p] = -1;
    if (list->count == 0)
        return unsuitable(f, HP_E_UNSUITABLE, HP_WHY_NO_CT, reterr, "no images");
    f->study_uid = list->item[0].study;

    w.plane = malloc(list->count * sizeof(*w.plane));
    w.note = malloc(HP_NOTE_MAX * sizeof *w.note);
    if (w.plane == NULL || w.note == NULL) {
        sorting_done(&w);
        return hp_fail(reterr, HP_E_NO_MEMORY, "series");
    }
    for (size_t i = 0; i < list->count; i++)
        w.plane[w.planes++] = &list->item[i];

    r = sort_all(&w, reterr);
    if (r == HP_OK)
        r = check_one_patient(list, f, reterr);
    if (r == HP_OK)
        r = check_size(list, f, reterr);
    if (r == HP_OK)
        r = judge(&w, f, reterr);
    else
        note_unread(&w, f->reason);
    noted = write_notes(&w, f, r == HP_OK ? reterr : NULL);
    if (r == HP_OK)
        r = noted;
    if (r == HP_OK)
        r = take_phases(&w, f, ret, reterr);
    sorting_done(&w);
    return r;
}

/* -- the assembly -- */

void hp_assembly_free(hp_assembly *a)
{
    if (a == NULL)
        return;
    for (int p = 0; p < HP_PHASES; p++)
        hp_stack_done(&a->phase[p]);
    free(a);
}

const hp_stack *hp_assembly_stack(const hp_assembly *a, hp_phase phase)
{
    return phase >= 0 && phase < HP_PHASES && a->phase[phase].plane != NULL
               ? &a->phase[phase]
               : NULL;
}

bool hp_assembly_has(const hp_assembly *a, hp_phase phase)
{
    return hp_assembly_stack(a, phase) != NULL;
}

const hp_geom *hp_assembly_geom(const hp_assembly *a, hp_phase phase)
{
    const hp_stack *s = hp_assembly_stack(a, phase);

    return s != NULL ? &s->geom : NULL;
}

const hp_slice *hp_assembly_slice(const hp_assembly *a, hp_phase phase, int z)
{
    const hp_stack *s = hp_assembly_stack(a, phase);

    return s != NULL && z >= 0 && z < s->count ? s->plane[z] : NULL;
}
