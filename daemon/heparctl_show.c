/* heparctl show: one study from its first image to the PACS's answer. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/study.h"
#include "daemon/heparctl.h"
#include "daemon/table.h"
#include "db/view.h"

static const json_t *get(const json_t *obj, const char *key)
{
    return json_object_get(obj, key);
}

static bool is_text(const char *text)
{
    return text[0] != '\0' && strcmp(text, "-") != 0;
}

/* The end of a UID tells series apart; the whole is in --json. */
static const char *short_uid(const char *uid, char ret[24])
{
    size_t len = strlen(uid);

    if (len <= 20)
        snprintf(ret, 24, "%s", uid);
    else
        snprintf(ret, 24, "..%s", uid + len - 18 + (uid[len - 18] == '.'));
    return ret;
}

static void heading(const char *text)
{
    printf("\n%s\n", text);
}

/* ---- what came ---- */

static void print_study(const json_t *show)
{
    const json_t *r = get(show, "received");
    char first[24], last[24];
    const char *da = hp_json_str(r, "study_date", ""), *acc;
    size_t i;
    json_t *s;

    printf("Study      %s\n", hp_json_str(show, "study_uid", ""));
    if (strlen(da) == 8)
        printf("           of %.4s-%.2s-%.2s", da, da + 4, da + 6);
    acc = hp_json_str(r, "accession", "");
    if (*acc)
        printf("%saccession %s", strlen(da) == 8 ? ", " : "           ", acc);
    if (strlen(da) == 8 || *acc)
        putchar('\n');
    hp_table_when(hp_json_int(r, "first_ms", 0), first);
    hp_table_when(hp_json_int(r, "last_ms", 0), last);
    printf("Received   %" PRId64 " objects, %" PRId64 " of them CT, from %s to %s\n",
           hp_json_int(r, "stored", 0), hp_json_int(r, "ct", 0), first,
           strncmp(first, last, 10) == 0 ? last + 11 : last);
    json_array_foreach(get(show, "senders"), i, s)
        printf("           %" PRId64 " from %s at %s\n", hp_json_int(s, "objects", 0),
               hp_json_str(s, "ae_title", ""), hp_json_str(s, "address", ""));
    if (hp_json_int(r, "duplicates", 0) + hp_json_int(r, "conflicts", 0) +
            hp_json_int(r, "echoes", 0) + hp_json_int(r, "refused", 0) >
        0)
        printf("           besides: %" PRId64 " sent again with the same bytes, %" PRId64
               " with other bytes (quarantined),\n           %" PRId64
               " of our own results, %" PRId64 " refused\n",
               hp_json_int(r, "duplicates", 0), hp_json_int(r, "conflicts", 0),
               hp_json_int(r, "echoes", 0), hp_json_int(r, "refused", 0));
    if (hp_json_bool(r, "two_patients", false))
        printf("           TWO PATIENTS share this study: nothing will be sent\n");
}

static void print_job(const json_t *show)
{
    char when[24];
    const char *reason = hp_json_str(show, "reason", "");
    const char *code = hp_json_str(show, "reason_code", "");
    const char *decision = hp_json_str(show, "decision", "");

    if (get(show, "job") == NULL) {
        printf("Job        none: no CT image has come\n");
        return;
    }
    hp_table_when(hp_json_int(show, "moved_ms", 0), when);
    printf("Job        %" PRId64 ", revision %" PRId64 ": %s since %s\n",
           hp_json_int(show, "job", 0), hp_json_int(show, "revision", 0),
           hp_json_str(show, "state", ""), when);
    if (*code || *reason)
        printf("           %s%s%s%s\n", reason, *reason && *code ? " (" : "", code,
               *reason && *code ? ")" : "");
    if (*decision) {
        hp_table_when(hp_json_int(show, "ready_ms", 0), when);
        printf("           ready at %s: %s\n", when, decision);
    }
}

/* What its worker does at this moment, from the living daemon. */
static void print_progress(const hp_ctl *ctl, const json_t *show)
{
    hp_auto(json_t) *live = NULL;
    size_t i;
    json_t *w;

    if (strcmp(hp_json_str(show, "state", ""), "running") != 0 ||
        hp_ctl_ask(ctl->config, json_pack("{ss}", "do", "progress"), 5, &live, NULL) !=
            HP_OK)
        return;
    json_array_foreach(get(live, "workers"), i, w)
    {
        if (hp_json_int(w, "job", 0) == hp_json_int(show, "job", -1))
            printf("           now: %s %.0f %%, for %.0f s\n",
                   hp_json_str(w, "stage", ""), 100 * hp_json_num(w, "fraction", 0),
                   hp_json_num(w, "seconds", 0));
    }
}

static void print_revisions(const json_t *show)
{
    const json_t *list = get(show, "revisions");
    hp_table *t;
    size_t i;
    json_t *row;

    if (json_array_size(list) < 2)
        return;
    heading("Revisions (late images make a new one; its report supersedes the earlier)");
    t = hp_table_new("REV>|JOB>|IMAGES>|STATE|REASON");
    json_array_foreach(list, i, row)
    {
        hp_table_fmt(t, "%" PRId64, hp_json_int(row, "revision", 0));
        hp_table_fmt(t, "%" PRId64, hp_json_int(row, "job", 0));
        hp_table_fmt(t, "%" PRId64, hp_json_int(row, "images", 0));
        hp_table_text(t, hp_json_str(row, "state", ""));
        hp_table_text(t, hp_json_str(row, "reason", ""));
    }
    hp_table_print(t, stdout, "  ");
    hp_table_free(t);
}

static void print_series(const json_t *show)
{
    hp_table *t = hp_table_new("USED AS|NUMBER>|IMAGES>|SERIES|WHY");
    char uid[24];
    size_t i;
    json_t *row;

    json_array_foreach(get(show, "series"), i, row)
    {
        const char *role = hp_json_str(row, "role", "-");
        int64_t number = hp_json_int(row, "number", -1);
        int64_t acquisition = hp_json_int(row, "acquisition", 0);

        hp_table_text(t, is_text(role) ? role : "not used");
        if (number < 0)
            hp_table_text(t, "-");
        else if (acquisition > 0)
            hp_table_fmt(t, "%" PRId64 ".%" PRId64, number, acquisition + 1);
        else
            hp_table_fmt(t, "%" PRId64, number);
        hp_table_fmt(t, "%" PRId64, hp_json_int(row, "instances", 0));
        hp_table_text(t, short_uid(hp_json_str(row, "uid", ""), uid));
        hp_table_text(t, hp_json_str(row, "why", ""));
    }
    if (hp_table_rows(t) > 0) {
        heading("Series");
        hp_table_print(t, stdout, "  ");
    }
    hp_table_free(t);
}

/* ---- what was made of it ---- */

static void print_runs(const json_t *show)
{
    hp_table *t = hp_table_new("RUN>|STARTED|TOOK>|OUTCOME|WHY");
    size_t i;
    json_t *row;

    json_array_foreach(get(show, "runs"), i, row)
    {
        char when[24], span[24] = "-";
        int64_t start = hp_json_int(row, "started_ms", 0);
        int64_t end = hp_json_int(row, "ended_ms", 0);

        hp_table_when(start, when);
        if (end > 0)
            hp_table_span(end - start, span);
        hp_table_fmt(t, "%" PRId64, hp_json_int(row, "run", 0));
        hp_table_text(t, when);
        hp_table_text(t, span);
        hp_table_text(t, end > 0 ? hp_json_str(row, "outcome", "") : "running");
        hp_table_text(t, hp_json_str(row, "reason", ""));
    }
    if (hp_table_rows(t) > 0) {
        heading("Runs");
        hp_table_print(t, stdout, "  ");
    }
    hp_table_free(t);
}

static void print_spans(const char *lead, const json_t *timings)
{
    const char *name;
    json_t *ms;
    int column = 0;

    if (json_object_size(timings) == 0)
        return;
    printf("  %s", lead);
    json_object_foreach((json_t *)timings, name, ms)
    {
        char span[24];
        int wide;

        hp_table_span((int64_t)json_number_value(ms), span);
        wide = (int)(strlen(name) + strlen(span)) + 4;
        if (column + wide > 96) {
            fputs("\n  ", stdout);
            column = 0;
        }
        column += printf("%s%s %s", column ? ", " : "", name, span);
    }
    putchar('\n');
}

static void print_timings(const json_t *show)
{
    if (json_object_size(get(show, "timings_ms")) == 0)
        return;
    heading("Time");
    print_spans("", get(show, "timings_ms"));
    print_spans("in networks: ", get(show, "networks_ms"));
}

/* "-12.3" or "-" where there is no number. */
static void cell_number(hp_table *t, const json_t *value, int decimals, double factor)
{
    if (json_is_number(value))
        hp_table_fmt(t, "%.*f", decimals, factor * json_number_value(value));
    else
        hp_table_text(t, "-");
}

static void print_candidates(const json_t *show)
{
    hp_table *t =
        hp_table_new("RANK>|SCORE>|PRIMARY>|IMAGE>|LONG MM>|SHORT MM>|VOLUME ML>|"
                     "PHASES");
    size_t i, k;
    json_t *row, *phase;

    json_array_foreach(get(show, "candidates"), i, row)
    {
        char phases[40] = "";

        hp_table_fmt(t, "%" PRId64, hp_json_int(row, "rank", 0));
        cell_number(t, get(row, "score"), 2, 1);
        cell_number(t, get(row, "p_primary"), 2, 1);
        cell_number(t, get(row, "key_number"), 0, 1);
        cell_number(t, get(row, "long_axis_mm"), 0, 1);
        cell_number(t, get(row, "short_axis_mm"), 0, 1);
        cell_number(t, get(row, "volume_ml"), 1, 1);
        json_array_foreach(get(row, "phases"), k, phase) snprintf(
            phases + strlen(phases), sizeof phases - strlen(phases), "%s%s", k ? " " : "",
            json_string_value(phase) ? json_string_value(phase) : "");
        hp_table_text(t, phases);
    }
    if (hp_table_rows(t) > 0) {
        heading("Candidates (detector's score; probability of being the primary lesion)");
        hp_table_print(t, stdout, "  ");
    }
    hp_table_free(t);
}

static void print_hu(const json_t *primary)
{
    hp_table *t = hp_table_new("MEAN HU|LESION>|LIVER>");

    for (int p = 0; p < HP_PHASES; p++) {
        const json_t *hu = get(get(primary, "hu"), hp_phase_name((hp_phase)p));

        hp_table_text(t, hp_phase_title((hp_phase)p));
        cell_number(t, get(hu, "lesion"), 0, 1);
        cell_number(t, get(hu, "liver"), 0, 1);
    }
    hp_table_print(t, stdout, "  ");
    hp_table_free(t);
}

static void print_primary(const json_t *show)
{
    const json_t *primary = get(show, "primary");
    hp_table *t;
    size_t i;
    json_t *row;
    int64_t ensemble = 0;

    if (!json_is_object(primary))
        return;
    json_array_foreach(get(show, "classes"), i, row) ensemble +=
        hp_json_int(row, "votes", 0);
    heading("Primary lesion (AI, research use only)");
    t = hp_table_new("CLASS|PROBABILITY>|VOTES>|");
    json_array_foreach(get(show, "classes"), i, row)
    {
        hp_table_text(t, hp_json_str(row, "label", ""));
        hp_table_fmt(t, "%.0f %%", 100 * hp_json_num(row, "probability", 0));
        hp_table_fmt(t, "%" PRId64 " of %" PRId64, hp_json_int(row, "votes", 0),
                     ensemble);
        hp_table_text(t, (int64_t)i == hp_json_int(show, "class_index", -1) ? "<" : "");
    }
    if (hp_table_rows(t) > 0) {
        hp_table_print(t, stdout, "  ");
        putchar('\n');
    }
    hp_table_free(t);
    print_hu(primary);
}

static void print_reading(const json_t *show)
{
    const json_t *bundle = get(show, "bundle"), *liver = get(show, "liver");
    const json_t *registration = get(show, "registration");
    const char *device = hp_json_str(show, "device", "");
    const char *name;
    json_t *how;
    bool any = false, first = true;

    if (is_text(hp_json_str(bundle, "name", ""))) {
        heading("Reading");
        printf("  bundle        %s %s, sha256 %.12s...%s%s\n",
               hp_json_str(bundle, "name", ""), hp_json_str(bundle, "version", ""),
               hp_json_str(bundle, "sha256", ""), *device ? ", on " : "", device);
        any = true;
    }
    if (json_is_number(get(liver, "ml")) && hp_json_num(liver, "ml", 0) > 0)
        printf("  liver         %.0f ml%s%s%s\n", hp_json_num(liver, "ml", 0),
               hp_json_bool(liver, "ok", true) ? "" : ", NOT plausible",
               is_text(hp_json_str(liver, "note", "")) ? ": " : "",
               hp_json_str(liver, "note", ""));
    if (any && json_object_size(registration) > 0) {
        fputs("  registration ", stdout);
        json_object_foreach((json_t *)registration, name, how)
        {
            if (json_string_value(how) == NULL || !is_text(json_string_value(how)))
                continue;
            printf("%s %s %s", first ? "" : ",", name, json_string_value(how));
            first = false;
        }
        putchar('\n');
    }
}

/* ---- what went back ---- */

static void print_results(const json_t *show, const hp_config *config)
{
    hp_table *t = hp_table_new("OBJECT|PEER|STATE|WHEN|TRIES>|STATUS>|WORDS");
    size_t i, k;
    json_t *result, *d;

    json_array_foreach(get(show, "results"), i, result)
    {
        const char *kind = hp_json_str(result, "kind", "");

        json_array_foreach(get(result, "deliveries"), k, d)
        {
            char when[24];
            int64_t status = hp_json_int(d, "status", 65535);

            hp_table_when(hp_json_int(d, "answered_ms", 0), when);
            hp_table_text(t, k == 0 ? kind : "");
            hp_table_text(t, hp_json_str(d, "peer", ""));
            hp_table_text(t, hp_json_str(d, "state", ""));
            hp_table_text(t, when);
            hp_table_fmt(t, "%" PRId64, hp_json_int(d, "attempts", 0));
            if (status == 65535)
                hp_table_text(t, "-");
            else
                hp_table_fmt(t, "%04X", (unsigned)status);
            hp_table_text(t, hp_json_str(d, "words", ""));
        }
        if (json_array_size(get(result, "deliveries")) == 0) {
            hp_table_text(t, kind);
            hp_table_text(t, "nobody");
            for (int c = 0; c < 5; c++)
                hp_table_text(t, "");
        }
    }
    if (hp_table_rows(t) > 0) {
        heading("Results");
        hp_table_print(t, stdout, "  ");
        puts("");
    }
    hp_table_free(t);
    json_array_foreach(get(show, "results"), i, result)
    {
        const char *png = hp_json_str(result, "png", "");

        printf("  %s/%s\n", config->state_dir, hp_json_str(result, "path", ""));
        if (*png)
            printf("  %s/%s\n", config->state_dir, png);
    }
}

static void print_events(const json_t *show)
{
    hp_table *t = hp_table_new("|||");
    size_t i, skip, n = json_array_size(get(show, "events"));
    json_t *row;

    skip = n > 20 ? n - 20 : 0;
    json_array_foreach(get(show, "events"), i, row)
    {
        char when[24];

        if (i < skip)
            continue;
        hp_table_when(hp_json_int(row, "at_ms", 0), when);
        hp_table_text(t, when);
        hp_table_text(t, hp_json_str(row, "kind", ""));
        hp_table_text(t, hp_json_str(row, "words", ""));
        hp_table_text(t, "");
    }
    heading(skip ? "Events (the newest 20; `heparctl events ID` has all)" : "Events");
    hp_table_print(t, stdout, "  ");
    hp_table_free(t);
}

int hp_ctl_show(hp_ctl *ctl, const char *id)
{
    hp_auto(json_t) *show = NULL;
    hp_error err = HP_ERROR_INIT;
    int result = hp_ctl_need_ledger(ctl);
    hp_code code;

    if (result != HP_EXIT_DONE)
        return result;
    code = hp_view_show(ctl->db, id, &show, &err);
    if (code != HP_OK)
        return hp_ctl_fail(code, err.msg);
    if (ctl->json) {
        hp_ctl_print_json(show);
        return HP_EXIT_DONE;
    }
    print_study(show);
    print_job(show);
    print_progress(ctl, show);
    print_revisions(show);
    print_series(show);
    print_runs(show);
    print_reading(show);
    print_candidates(show);
    print_primary(show);
    print_timings(show);
    print_results(show, ctl->config);
    print_events(show);
    return HP_EXIT_DONE;
}
