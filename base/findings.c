/* Findings as JSON and back: result.json, and what `heparctl show` prints.
 *
 * The form serves two readers. People and scripts get names (phases, classes,
 * votes by class id, the primary lesion spelled out); the daemon gets an exact
 * round trip. Where the two would differ, the exact value stands once
 * (candidates[], classes[]) and the readable copy beside it is ignored when
 * reading. Boxes are {"lo":[z,y,x],"hi":[z,y,x]}. NAN is null.
 */
#include "base/findings.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const OUTCOMES[] = {
    [HP_OUTCOME_NONE] = "none",
    [HP_OUTCOME_CLASSIFIED] = "classified",
    [HP_OUTCOME_DETECTED] = "detected",
    [HP_OUTCOME_NOT_ACCEPTED] = "not_accepted",
    [HP_OUTCOME_NO_CANDIDATE] = "no_candidate",
    [HP_OUTCOME_UNSUITABLE] = "unsuitable",
};
enum { OUTCOME_COUNT = sizeof OUTCOMES / sizeof OUTCOMES[0] };

const char *hp_outcome_name(hp_outcome o)
{
    return (unsigned)o < OUTCOME_COUNT ? OUTCOMES[o] : "none";
}

void hp_findings_init(hp_findings *f)
{
    memset(f, 0, sizeof *f);
    f->primary = -1;
    f->class_index = -1;
    for (int p = 0; p < HP_PHASES; p++) {
        f->phase_series[p] = -1;
        f->substituted[p] = HP_PHASE_NONE;
        strcpy(f->registration[p], "-");
    }
    for (int i = 0; i < HP_MAX_SERIES; i++) {
        f->series[i].number = -1;
        f->series[i].phase = HP_PHASE_NONE;
    }
    for (int i = 0; i < HP_MAX_CANDIDATES; i++) {
        hp_candidate *c = &f->candidates[i];

        c->key_slice = c->key_number = -1;
        c->p_primary = -1;
        for (int p = 0; p < HP_PHASES; p++)
            c->hu_lesion[p] = c->hu_liver[p] = NAN;
    }
}

static void add_time(hp_timing *list, int *count, int most, const char *name, double ms)
{
    for (int i = 0; i < *count; i++) {
        if (strncmp(list[i].name, name, sizeof list[i].name - 1) == 0) {
            list[i].ms += ms;
            return;
        }
    }
    if (*count == most)
        return;
    snprintf(list[*count].name, sizeof list[0].name, "%s", name);
    list[(*count)++].ms = ms;
}

void hp_findings_time(hp_findings *f, const char *name, double ms)
{
    add_time(f->timings, &f->timing_count, HP_MAX_TIMINGS, name, ms);
}

void hp_findings_network_time(hp_findings *f, const char *name, double ms)
{
    add_time(f->networks, &f->network_count, HP_MAX_NETWORKS, name, ms);
}

/* ---- writing ------------------------------------------------------------ */

static json_t *real_or_null(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

/* A text that is not UTF-8 (a foreign description, cut in the middle of a
 * character) is written as ASCII with '?', never refused. */
static json_t *text(const char *s)
{
    json_t *j = json_string(s);
    char ascii[256];
    size_t n = 0;

    if (j != NULL)
        return j;
    for (; s[n] != 0 && n + 1 < sizeof ascii; n++)
        ascii[n] = (unsigned char)s[n] < 0x80 ? s[n] : '?';
    ascii[n] = 0;
    return json_string(ascii);
}

/* Out of memory halfway must not become a shorter list: whole, or NULL. */
static json_t *whole(json_t *j, bool complete)
{
    if (complete)
        return j;
    json_decref(j);
    return NULL;
}

static json_t *reals(const double *v, int n)
{
    json_t *a = json_array();
    bool ok = a != NULL;

    for (int i = 0; i < n; i++)
        ok = ok && json_array_append_new(a, real_or_null(v[i])) == 0;
    return whole(a, ok);
}

static json_t *ints(const int *v, int n)
{
    json_t *a = json_array();
    bool ok = a != NULL;

    for (int i = 0; i < n; i++)
        ok = ok && json_array_append_new(a, json_integer(v[i])) == 0;
    return whole(a, ok);
}

static json_t *box_json(const hp_box *b)
{
    return json_pack("{so,so}", "lo", reals(b->lo, 3), "hi", reals(b->hi, 3));
}

static json_t *hu_json(const hp_candidate *c)
{
    json_t *hu = json_object();
    bool ok = hu != NULL;

    for (int p = 0; p < HP_PHASES; p++) {
        json_t *one = json_pack("{so,so}", "lesion", real_or_null(c->hu_lesion[p]),
                                "liver", real_or_null(c->hu_liver[p]));

        ok = json_object_set_new(hu, hp_phase_name((hp_phase)p), one) == 0 && ok;
    }
    return whole(hu, ok);
}

static json_t *phase_list(unsigned mask)
{
    json_t *a = json_array();
    bool ok = a != NULL;

    for (int p = 0; p < HP_PHASES; p++)
        if (mask & 1u << p)
            ok = json_array_append_new(a, json_string(hp_phase_name((hp_phase)p))) == 0 &&
                 ok;
    return whole(a, ok);
}

static json_t *candidate_json(const hp_candidate *c)
{
    return json_pack(
        "{si,so,so,so,si,so,so,sb,so,so,so,so,so}", "rank", c->rank, "score",
        real_or_null(c->score), "box_mm", box_json(&c->box_mm), "phases",
        phase_list(c->phases), "key_slice", c->key_slice, "key_number",
        c->key_number < 0 ? json_null() : json_integer(c->key_number), "key_area_mm2",
        real_or_null(c->key_area_mm2), "key_fallback", c->key_fallback, "p_primary",
        c->p_primary < 0 ? json_null() : real_or_null(c->p_primary), "hu", hu_json(c),
        "volume_ml", real_or_null(c->volume_ml), "long_axis_mm",
        real_or_null(c->long_axis_mm), "short_axis_mm", real_or_null(c->short_axis_mm));
}

static json_t *series_json(const hp_series_note *s)
{
    return json_pack("{so,si,si,si,ss,so}", "uid", text(s->uid.text), "number", s->number,
                     "acquisition", s->acquisition, "instances", s->instances, "role",
                     hp_phase_name(s->phase), "why", text(s->why));
}

static json_t *phase_json(const hp_findings *f, int p)
{
    int at = f->phase_series[p];
    const char *uid = at >= 0 && at < f->series_count ? f->series[at].uid.text : NULL;

    return json_pack(
        "{ss?,si,ss?}", "series", uid, "index", at, "substituted_by",
        f->substituted[p] == HP_PHASE_NONE ? NULL : hp_phase_name(f->substituted[p]));
}

static json_t *class_json(const hp_findings *f, int i)
{
    const hp_class *c = &f->classes[i];

    return json_pack("{so,so,so,so,so,so,si}", "id", text(c->id), "label", text(c->label),
                     "code", text(c->code), "scheme", text(c->scheme), "meaning",
                     text(c->meaning), "probability", real_or_null(f->probabilities[i]),
                     "votes", f->votes[i]);
}

/* The lesion the report is about, spelled out for a reader. */
static json_t *primary_json(const hp_findings *f)
{
    const hp_candidate *c;
    json_t *probabilities, *votes;
    const char *called = NULL;
    bool ok = true;

    if (f->primary < 0 || f->primary >= f->candidate_count)
        return json_null();
    c = &f->candidates[f->primary];
    probabilities = json_object();
    votes = json_object();
    for (int i = 0; i < f->class_count; i++) {
        const char *id = f->classes[i].id;

        ok = json_object_set_new(probabilities, id, real_or_null(f->probabilities[i])) ==
                 0 &&
             json_object_set_new(votes, id, json_integer(f->votes[i])) == 0 && ok;
    }
    probabilities = whole(probabilities, ok);
    if (f->class_index >= 0 && f->class_index < f->class_count)
        called = f->classes[f->class_index].id;
    return json_pack("{si,so,si,ss?,so,so,so}", "index", f->primary, "box_mm",
                     box_json(&c->box_mm), "key_slice", c->key_slice, "class", called,
                     "probabilities", probabilities, "votes", votes, "hu", hu_json(c));
}

static json_t *grid_json(const hp_geom *g)
{
    return json_pack("{so,so,so,so,so,so}", "n", ints(g->n, 3), "spacing_mm",
                     reals(g->spacing_mm, 3), "origin_mm", reals(g->origin_mm, 3),
                     "axis_z", reals(g->axis[HP_Z], 3), "axis_y", reals(g->axis[HP_Y], 3),
                     "axis_x", reals(g->axis[HP_X], 3));
}

/* The job's state as far as the findings alone can tell; the ledger's own
 * state replaces it in `heparctl show`. */
static const char *state_of(hp_outcome o)
{
    switch (o) {
    case HP_OUTCOME_NONE:
        return "failed";
    case HP_OUTCOME_UNSUITABLE:
        return "unsuitable";
    default:
        return "reported";
    }
}

static json_t *timings_json(const hp_timing *list, int count)
{
    json_t *j = json_object();
    bool ok = true;

    for (int i = 0; i < count; i++)
        ok = json_object_set_new(j, list[i].name, real_or_null(list[i].ms)) == 0 && ok;
    return whole(j, ok);
}

json_t *hp_findings_to_json(const hp_findings *f)
{
    json_t *series = json_array(), *phases = json_object();
    json_t *registration = json_object(), *candidates = json_array();
    json_t *classes = json_array();
    bool ok = true;

    for (int i = 0; i < f->series_count; i++)
        ok = json_array_append_new(series, series_json(&f->series[i])) == 0 && ok;
    for (int p = 0; p < HP_PHASES; p++) {
        const char *name = hp_phase_name((hp_phase)p);

        ok = json_object_set_new(phases, name, phase_json(f, p)) == 0 &&
             json_object_set_new(registration, name, text(f->registration[p])) == 0 && ok;
    }
    for (int i = 0; i < f->candidate_count; i++)
        ok = json_array_append_new(candidates, candidate_json(&f->candidates[i])) == 0 &&
             ok;
    for (int i = 0; i < f->class_count; i++)
        ok = json_array_append_new(classes, class_json(f, i)) == 0 && ok;
    series = whole(series, ok);
    return json_pack("{so,si,ss,ss,so,so,so,so,so,sb,so,s{so,sb,so},so,so,so,so,si,so,"
                     "so,s{so,so,so},so,so}",
                     "study_uid", text(f->study_uid.text), "revision", f->revision,
                     "state", state_of(f->outcome), "outcome",
                     hp_outcome_name(f->outcome), "reason_code", text(f->reason_code),
                     "reason", text(f->reason), "series", series, "phases", phases,
                     "registration", registration, "lossy_input", f->lossy_input, "grid",
                     grid_json(&f->grid), "liver", "ml", real_or_null(f->liver_ml), "ok",
                     f->liver_ok, "note", text(f->liver_note), "report_min",
                     real_or_null(f->report_min), "candidates", candidates, "primary",
                     primary_json(f), "classes", classes, "class_index", f->class_index,
                     "timings_ms", timings_json(f->timings, f->timing_count),
                     "networks_ms", timings_json(f->networks, f->network_count), "bundle",
                     "name", text(f->bundle_name), "version", text(f->bundle_version),
                     "sha256", text(f->bundle_sha256), "intended_use",
                     text(f->intended_use), "device", text(f->device));
}

/* ---- reading ------------------------------------------------------------ */

/* A reader walks one object and remembers the first thing that did not fit,
 * so that the code below reads as a list of fields. */
typedef struct reader {
    const char *where;
    char bad[64]; /* name of the first bad key; "" so far so good */
} reader;

static void blame(reader *r, const char *key)
{
    if (r->bad[0] == 0)
        snprintf(r->bad, sizeof r->bad, "%s.%s", r->where, key);
}

static void get_text(reader *r, const json_t *obj, const char *key, char *ret,
                     size_t size)
{
    const char *s = json_string_value(json_object_get(obj, key));

    if (s == NULL || strlen(s) >= size)
        blame(r, key);
    else
        strcpy(ret, s);
}

static int get_int(reader *r, const json_t *obj, const char *key, int lo, int hi)
{
    const json_t *v = json_object_get(obj, key);
    json_int_t n = json_integer_value(v);

    if (!json_is_integer(v) || n < lo || n > hi) {
        blame(r, key);
        return lo;
    }
    return (int)n;
}

static bool get_bool(reader *r, const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);

    if (!json_is_boolean(v))
        blame(r, key);
    return json_is_true(v);
}

static double real_of(reader *r, const json_t *v, const char *key, double none)
{
    if (json_is_null(v))
        return none;
    if (!json_is_number(v)) {
        blame(r, key);
        return none;
    }
    return json_number_value(v);
}

static double get_real(reader *r, const json_t *obj, const char *key)
{
    return real_of(r, json_object_get(obj, key), key, NAN);
}

static void get_reals(reader *r, const json_t *obj, const char *key, double *ret, int n)
{
    const json_t *a = json_object_get(obj, key);

    if (json_array_size(a) != (size_t)n) {
        blame(r, key);
        return;
    }
    for (int i = 0; i < n; i++)
        ret[i] = real_of(r, json_array_get(a, (size_t)i), key, NAN);
}

static hp_phase get_phase(reader *r, const json_t *v, const char *key)
{
    const char *name = json_string_value(v);
    hp_phase p = hp_phase_parse(name);

    if (!json_is_null(v) && p == HP_PHASE_NONE &&
        (name == NULL || strcmp(name, "-") != 0))
        blame(r, key);
    return p;
}

/* The number of elements of an array, bounded; 0 and a blame when it is none. */
static int get_count(reader *r, const json_t *obj, const char *key, int max)
{
    const json_t *a = json_object_get(obj, key);

    if (!json_is_array(a) || json_array_size(a) > (size_t)max) {
        blame(r, key);
        return 0;
    }
    return (int)json_array_size(a);
}

static void read_box(reader *r, const json_t *obj, hp_box *b)
{
    const json_t *j = json_object_get(obj, "box_mm");

    get_reals(r, j, "lo", b->lo, 3);
    get_reals(r, j, "hi", b->hi, 3);
}

static void read_candidate(reader *r, const json_t *j, hp_candidate *c)
{
    const json_t *phases = json_object_get(j, "phases");
    const json_t *hu = json_object_get(j, "hu"), *p_primary;

    r->where = "candidates";
    c->rank = get_int(r, j, "rank", 0, HP_MAX_CANDIDATES);
    c->score = get_real(r, j, "score");
    read_box(r, j, &c->box_mm);
    for (size_t i = 0; i < json_array_size(phases); i++) {
        hp_phase p = get_phase(r, json_array_get(phases, i), "phases");

        if (p != HP_PHASE_NONE)
            c->phases |= 1u << p;
    }
    c->key_slice = get_int(r, j, "key_slice", -1, INT32_MAX);
    c->key_number = json_is_integer(json_object_get(j, "key_number"))
                        ? get_int(r, j, "key_number", 0, INT32_MAX)
                        : -1;
    c->key_area_mm2 = get_real(r, j, "key_area_mm2");
    c->key_fallback = get_bool(r, j, "key_fallback");
    p_primary = json_object_get(j, "p_primary");
    c->p_primary = real_of(r, p_primary, "p_primary", -1);
    for (int p = 0; p < HP_PHASES; p++) {
        const json_t *one = json_object_get(hu, hp_phase_name((hp_phase)p));

        c->hu_lesion[p] = get_real(r, one, "lesion");
        c->hu_liver[p] = get_real(r, one, "liver");
    }
    c->volume_ml = get_real(r, j, "volume_ml");
    c->long_axis_mm = get_real(r, j, "long_axis_mm");
    c->short_axis_mm = get_real(r, j, "short_axis_mm");
}

static void read_series(reader *r, const json_t *j, hp_series_note *s)
{
    r->where = "series";
    get_text(r, j, "uid", s->uid.text, sizeof s->uid.text);
    s->number = get_int(r, j, "number", INT32_MIN, INT32_MAX);
    s->acquisition = get_int(r, j, "acquisition", INT32_MIN, INT32_MAX);
    s->instances = get_int(r, j, "instances", 0, INT32_MAX);
    s->phase = get_phase(r, json_object_get(j, "role"), "role");
    get_text(r, j, "why", s->why, sizeof s->why);
}

static void read_class(reader *r, const json_t *j, hp_findings *f, int i)
{
    hp_class *c = &f->classes[i];

    r->where = "classes";
    get_text(r, j, "id", c->id, sizeof c->id);
    get_text(r, j, "label", c->label, sizeof c->label);
    get_text(r, j, "code", c->code, sizeof c->code);
    get_text(r, j, "scheme", c->scheme, sizeof c->scheme);
    get_text(r, j, "meaning", c->meaning, sizeof c->meaning);
    f->probabilities[i] = get_real(r, j, "probability");
    f->votes[i] = get_int(r, j, "votes", 0, INT32_MAX);
}

static void read_phases(reader *r, const json_t *j, hp_findings *f)
{
    const json_t *phases = json_object_get(j, "phases");
    const json_t *registration = json_object_get(j, "registration");

    r->where = "phases";
    for (int p = 0; p < HP_PHASES; p++) {
        const char *name = hp_phase_name((hp_phase)p);
        const json_t *one = json_object_get(phases, name);

        f->phase_series[p] = get_int(r, one, "index", -1, f->series_count - 1);
        f->substituted[p] =
            get_phase(r, json_object_get(one, "substituted_by"), "substituted_by");
        get_text(r, registration, name, f->registration[p], sizeof f->registration[p]);
    }
}

static void read_grid(reader *r, const json_t *j, hp_geom *g)
{
    const json_t *n;

    r->where = "grid";
    j = json_object_get(j, "grid");
    n = json_object_get(j, "n");
    for (int a = 0; a < 3; a++) {
        const json_t *v = json_array_get(n, (size_t)a);

        if (!json_is_integer(v) || json_integer_value(v) < 0 ||
            json_integer_value(v) > INT32_MAX)
            blame(r, "n");
        g->n[a] = (int)json_integer_value(v);
    }
    get_reals(r, j, "spacing_mm", g->spacing_mm, 3);
    get_reals(r, j, "origin_mm", g->origin_mm, 3);
    get_reals(r, j, "axis_z", g->axis[HP_Z], 3);
    get_reals(r, j, "axis_y", g->axis[HP_Y], 3);
    get_reals(r, j, "axis_x", g->axis[HP_X], 3);
}

static hp_outcome read_outcome(reader *r, const json_t *j)
{
    const char *name = hp_json_str(j, "outcome", "");

    for (int o = 0; o < OUTCOME_COUNT; o++)
        if (strcmp(name, OUTCOMES[o]) == 0)
            return (hp_outcome)o;
    blame(r, "outcome");
    return HP_OUTCOME_NONE;
}

static void read_lists(reader *r, const json_t *j, hp_findings *f)
{
    f->series_count = get_count(r, j, "series", HP_MAX_SERIES);
    f->candidate_count = get_count(r, j, "candidates", HP_MAX_CANDIDATES);
    f->class_count = get_count(r, j, "classes", HP_MAX_CLASSES);
    for (int i = 0; i < f->series_count; i++)
        read_series(r, json_array_get(json_object_get(j, "series"), (size_t)i),
                    &f->series[i]);
    for (int i = 0; i < f->candidate_count; i++)
        read_candidate(r, json_array_get(json_object_get(j, "candidates"), (size_t)i),
                       &f->candidates[i]);
    for (int i = 0; i < f->class_count; i++)
        read_class(r, json_array_get(json_object_get(j, "classes"), (size_t)i), f, i);
}

static void read_timings(reader *r, const json_t *j, const char *key, hp_timing *list,
                         int most, int *ret_count)
{
    json_t *timings = json_object_get(j, key);
    const char *name;
    json_t *v;

    r->where = key;
    json_object_foreach(timings, name, v)
    {
        if (*ret_count == most || strlen(name) >= sizeof list[0].name) {
            blame(r, "(too many or too long)");
            return;
        }
        strcpy(list[*ret_count].name, name);
        list[(*ret_count)++].ms = real_of(r, v, name, NAN);
    }
}

static void read_bundle(reader *r, const json_t *j, hp_findings *f)
{
    const json_t *bundle = json_object_get(j, "bundle");

    r->where = "bundle";
    get_text(r, bundle, "name", f->bundle_name, sizeof f->bundle_name);
    get_text(r, bundle, "version", f->bundle_version, sizeof f->bundle_version);
    get_text(r, bundle, "sha256", f->bundle_sha256, sizeof f->bundle_sha256);
}

static void read_liver(reader *r, const json_t *j, hp_findings *f)
{
    const json_t *liver = json_object_get(j, "liver");

    r->where = "liver";
    f->liver_ml = get_real(r, liver, "ml");
    f->liver_ok = get_bool(r, liver, "ok");
    get_text(r, liver, "note", f->liver_note, sizeof f->liver_note);
}

static void read_primary(reader *r, const json_t *j, hp_findings *f)
{
    const json_t *primary = json_object_get(j, "primary");

    r->where = "primary";
    if (!json_is_null(primary))
        f->primary = get_int(r, primary, "index", 0, f->candidate_count - 1);
    r->where = "result";
    f->class_index = get_int(r, j, "class_index", -1, f->class_count - 1);
}

hp_code hp_findings_from_json(const json_t *j, hp_findings *ret, hp_error *reterr)
{
    reader r = {.where = "result"};
    hp_findings f;

    hp_findings_init(&f);
    get_text(&r, j, "study_uid", f.study_uid.text, sizeof f.study_uid.text);
    f.revision = get_int(&r, j, "revision", 0, INT32_MAX);
    f.outcome = read_outcome(&r, j);
    get_text(&r, j, "reason_code", f.reason_code, sizeof f.reason_code);
    get_text(&r, j, "reason", f.reason, sizeof f.reason);
    get_text(&r, j, "intended_use", f.intended_use, sizeof f.intended_use);
    get_text(&r, j, "device", f.device, sizeof f.device);
    f.lossy_input = get_bool(&r, j, "lossy_input");
    read_lists(&r, j, &f);
    read_phases(&r, j, &f);
    read_grid(&r, j, &f.grid);
    if (json_object_get(j, "report_min") != NULL) /* older results: all are lesions */
        f.report_min = get_real(&r, j, "report_min");
    read_liver(&r, j, &f);
    read_timings(&r, j, "timings_ms", f.timings, HP_MAX_TIMINGS, &f.timing_count);
    read_timings(&r, j, "networks_ms", f.networks, HP_MAX_NETWORKS, &f.network_count);
    read_bundle(&r, j, &f);
    read_primary(&r, j, &f);
    if (r.bad[0] != 0)
        return hp_fail(reterr, HP_E_INVALID, "findings: %s is missing or wrong", r.bad);
    *ret = f;
    return HP_OK;
}
