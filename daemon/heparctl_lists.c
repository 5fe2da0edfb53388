/* heparctl's lists: status, studies, jobs, events, peers. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/heparctl.h"
#include "daemon/table.h"
#include "db/view.h"

enum { LIST_LIMIT = 200, EVENT_LIMIT = 200, FAILURES = 5 };

static const char *or_dash(const char *text)
{
    return *text != '\0' ? text : "-";
}

static const char *date_of(const char *da, char ret[16])
{
    if (strlen(da) == 8)
        snprintf(ret, 16, "%.4s-%.2s-%.2s", da, da + 4, da + 6);
    else
        strcpy(ret, "-");
    return ret;
}

/* A reason in a list is one short cell; `show` has it whole. */
static void reason_cell(hp_table *t, const json_t *row)
{
    const char *code = hp_json_str(row, "reason_code", "");
    const char *words = hp_json_str(row, "reason", "");

    hp_table_fmt(t, "%.60s%s", *words ? words : code, strlen(words) > 60 ? "..." : "");
}

/* Prints what the table holds, or what it means that it holds nothing. */
static void print_take(hp_table *t, const char *nothing)
{
    if (hp_table_rows(t) == 0)
        puts(nothing);
    else
        hp_table_print(t, stdout, "");
    hp_table_free(t);
}

static void print_list(const json_t *list, const char *columns,
                       void (*add_row)(hp_table *t, const json_t *row),
                       const char *nothing)
{
    hp_table *t = hp_table_new(columns);
    size_t i;
    json_t *row;

    json_array_foreach(list, i, row) add_row(t, row);
    print_take(t, nothing);
}

/* A view of the ledger, newest first, as JSON or as a table. */
static int print_view(hp_ctl *ctl, hp_code (*view)(hp_db *, int, json_t **, hp_error *),
                      const char *columns,
                      void (*add_row)(hp_table *t, const json_t *row),
                      const char *nothing)
{
    hp_auto(json_t) *list = NULL;
    hp_error err = HP_ERROR_INIT;
    int result = hp_ctl_need_ledger(ctl);
    hp_code code;

    if (result != HP_EXIT_DONE)
        return result;
    code = view(ctl->db, ctl->json ? 0 : LIST_LIMIT, &list, &err);
    if (code != HP_OK)
        return hp_ctl_fail(code, err.msg);
    if (ctl->json) {
        hp_ctl_print_json(list);
        return HP_EXIT_DONE;
    }
    print_list(list, columns, add_row, nothing);
    if (json_array_size(list) == LIST_LIMIT)
        printf("(the newest %d; --json lists all)\n", LIST_LIMIT);
    return HP_EXIT_DONE;
}

static void add_study(hp_table *t, const json_t *row)
{
    char when[24], date[16];
    int64_t job = hp_json_int(row, "job", 0);

    hp_table_when(hp_json_int(row, "last_ms", 0), when);
    hp_table_fmt(t, job ? "%" PRId64 : "-", job);
    hp_table_text(t, job ? hp_json_str(row, "state", "") : "no CT");
    hp_table_fmt(t, "%" PRId64, hp_json_int(row, "revision", 0));
    hp_table_fmt(t, "%" PRId64, hp_json_int(row, "ct", 0));
    hp_table_fmt(t, "%" PRId64, hp_json_int(row, "series", 0));
    hp_table_text(t, date_of(hp_json_str(row, "study_date", ""), date));
    hp_table_text(t, or_dash(hp_json_str(row, "accession", "")));
    hp_table_text(t, when);
    hp_table_text(t, hp_json_str(row, "study_uid", ""));
}

int hp_ctl_studies(hp_ctl *ctl)
{
    return print_view(
        ctl, hp_view_studies,
        "JOB>|STATE|REV>|IMAGES>|SERIES>|STUDY DATE|ACCESSION|LAST IMAGE|STUDY",
        add_study, "no study yet");
}

static void add_job(hp_table *t, const json_t *row)
{
    char when[24], span[24] = "-";
    int64_t run_ms = hp_json_int(row, "run_ms", 0);
    int64_t owed = hp_json_int(row, "deliveries", 0);

    hp_table_when(hp_json_int(row, "moved_ms", 0), when);
    if (run_ms > 0)
        hp_table_span(run_ms, span);
    hp_table_fmt(t, "%" PRId64, hp_json_int(row, "job", 0));
    hp_table_text(t, hp_json_str(row, "state", ""));
    hp_table_text(t, when);
    hp_table_fmt(t, "%" PRId64, hp_json_int(row, "revision", 0));
    hp_table_fmt(t, "%" PRId64, hp_json_int(row, "run", 0));
    hp_table_text(t, span);
    hp_table_fmt(t, owed ? "%" PRId64 "/%" PRId64 : "-", hp_json_int(row, "accepted", 0),
                 owed);
    hp_table_text(t, hp_json_str(row, "study_uid", ""));
    reason_cell(t, row);
}

int hp_ctl_jobs(hp_ctl *ctl)
{
    return print_view(ctl, hp_view_jobs,
                      "JOB>|STATE|SINCE|REV>|RUNS>|READ IN>|SENT>|STUDY|REASON", add_job,
                      "no job yet");
}

static void add_event(hp_table *t, const json_t *row)
{
    char when[24];
    int64_t job = hp_json_int(row, "job", 0);

    hp_table_when(hp_json_int(row, "at_ms", 0), when);
    hp_table_text(t, when);
    hp_table_fmt(t, job ? "%" PRId64 : "-", job);
    hp_table_text(t, hp_json_str(row, "kind", ""));
    hp_table_text(t, hp_json_str(row, "words", ""));
}

int hp_ctl_events(hp_ctl *ctl, const char *id)
{
    hp_auto(json_t) *list = NULL;
    hp_error err = HP_ERROR_INIT;
    int result = hp_ctl_need_ledger(ctl);
    hp_code code;

    if (result != HP_EXIT_DONE)
        return result;
    code = hp_view_events(ctl->db, id, ctl->json ? 0 : EVENT_LIMIT, &list, &err);
    if (code != HP_OK)
        return hp_ctl_fail(code, err.msg);
    if (ctl->json)
        hp_ctl_print_json(list);
    else
        print_list(list, "WHEN|JOB>|EVENT|WORDS", add_event, "nothing has happened yet");
    return HP_EXIT_DONE;
}

/* ---- peers ---- */

static const json_t *peer_row(const json_t *list, const char *name)
{
    size_t i;
    json_t *row;

    json_array_foreach(list, i, row) if (strcmp(hp_json_str(row, "name", ""), name) ==
                                         0) return row;
    return NULL;
}

/* "reached 3 min ago", or since when and until when not. */
static void peer_health(const json_t *row, char *ret, size_t size)
{
    int64_t now = hp_clock_wall_ms(), failures = hp_json_int(row, "failures", 0);
    int64_t ok = hp_json_int(row, "last_ok_ms", 0), next = hp_json_int(row, "next_ms", 0);
    char span[24];

    if (failures > 0) {
        hp_table_span(next - now, span);
        snprintf(ret, size, "not reached %" PRId64 " time%s, next try %s%s", failures,
                 failures > 1 ? "s" : "", next > now ? "in " : "now",
                 next > now ? span : "");
    } else if (ok > 0) {
        hp_table_span(now - ok, span);
        snprintf(ret, size, "reached %s ago", span);
    } else {
        snprintf(ret, size, "never tried");
    }
}

static void add_peer(hp_table *t, const char *name, const hp_config_peer *p,
                     const json_t *row)
{
    char health[96];

    peer_health(row, health, sizeof health);
    hp_table_text(t, name);
    hp_table_text(t, p != NULL ? p->ae_title : "-");
    if (p != NULL)
        hp_table_fmt(t, "%s:%d", p->host, p->port);
    else
        hp_table_text(t, "-");
    hp_table_fmt(t, "%" PRId64, hp_json_int(row, "queued", 0));
    hp_table_fmt(t, "%" PRId64, hp_json_int(row, "sent", 0));
    hp_table_fmt(t, "%" PRId64, hp_json_int(row, "accepted", 0));
    hp_table_fmt(t, "%" PRId64, hp_json_int(row, "refused", 0));
    hp_table_text(t, p == NULL ? "no longer configured"
                     : p->results || hp_json_int(row, "last_ok_ms", 0)
                         ? health
                         : "takes no results");
    hp_table_text(t, hp_json_str(row, "words", ""));
}

static void peers_json(const hp_config *c, json_t *list)
{
    for (int i = 0; i < c->peer_count; i++) {
        const hp_config_peer *p = &c->peers[i];
        json_t *row = (json_t *)peer_row(list, p->name);

        if (row == NULL) {
            row = json_pack("{ss}", "name", p->name);
            json_array_append_new(list, row);
        }
        json_object_set_new(row, "ae_title", json_string(p->ae_title));
        json_object_set_new(row, "host", json_string(p->host));
        json_object_set_new(row, "port", json_integer(p->port));
        json_object_set_new(row, "results", json_boolean(p->results));
    }
}

int hp_ctl_peers(hp_ctl *ctl)
{
    hp_auto(json_t) *list = NULL;
    hp_error err = HP_ERROR_INIT;
    const hp_config *c = ctl->config;
    hp_table *t;
    size_t i;
    json_t *row;
    int result = hp_ctl_need_ledger(ctl);
    hp_code code;

    if (result != HP_EXIT_DONE)
        return result;
    code = hp_view_peers(ctl->db, &list, &err);
    if (code != HP_OK)
        return hp_ctl_fail(code, err.msg);
    if (ctl->json) {
        peers_json(c, list);
        hp_ctl_print_json(list);
        return HP_EXIT_DONE;
    }
    t = hp_table_new("PEER|AE TITLE|ADDRESS|QUEUED>|SENT>|ACCEPTED>|REFUSED>|STATE|WHY");
    for (int k = 0; k < c->peer_count; k++)
        add_peer(t, c->peers[k].name, &c->peers[k], peer_row(list, c->peers[k].name));
    json_array_foreach(list, i, row)
    {
        const char *name = hp_json_str(row, "name", "");
        if (hp_config_find_peer(c, name) == NULL)
            add_peer(t, name, NULL, row);
    }
    print_take(t, "no peer is configured; results stay in the outbox");
    return HP_EXIT_DONE;
}

/* ---- status ---- */

static void print_daemon(const hp_ctl *ctl, const json_t *live)
{
    const json_t *in = json_object_get(live, "intake");
    char up[24];

    if (live == NULL) {
        printf("hepard     not running (%s)\n", ctl->config->state_dir);
        return;
    }
    hp_table_span(hp_json_int(live, "uptime_s", 0) * 1000, up);
    printf("hepard     running for %s, pid %" PRId64 ", %s on %s port %" PRId64
           ", %" PRId64 " association%s open\n",
           up, hp_json_int(live, "pid", 0), ctl->config->ae_title, ctl->config->listen,
           hp_json_int(live, "port", ctl->config->port),
           hp_json_int(in, "open_associations", 0),
           hp_json_int(in, "open_associations", 0) == 1 ? "" : "s");
}

static void print_received(const json_t *r)
{
    printf("received   %" PRId64 " %s, %" PRId64 " objects (%" PRId64 " CT); %" PRId64
           " duplicates, %" PRId64 " conflicts, %" PRId64 " own results back, %" PRId64
           " refused\n",
           hp_json_int(r, "studies", 0),
           hp_json_int(r, "studies", 0) == 1 ? "study" : "studies",
           hp_json_int(r, "stored", 0), hp_json_int(r, "ct", 0),
           hp_json_int(r, "duplicates", 0), hp_json_int(r, "conflicts", 0),
           hp_json_int(r, "echoes", 0), hp_json_int(r, "refused", 0));
}

static void print_states(const json_t *jobs)
{
    const char *name;
    json_t *n;
    bool any = false;

    printf("jobs      ");
    json_object_foreach((json_t *)jobs, name, n)
    {
        if (json_integer_value(n) == 0)
            continue;
        printf(" %s%" JSON_INTEGER_FORMAT " %s", any ? "· " : "", json_integer_value(n),
               name);
        any = true;
    }
    puts(any ? "" : " none yet");
}

static void print_working(const json_t *live)
{
    size_t i;
    json_t *w;

    json_array_foreach(json_object_get(live, "workers"), i, w)
        printf("reading    job %" PRId64 ", run %" PRId64 ": %s %.0f %%, for %.0f s\n",
               hp_json_int(w, "job", 0), hp_json_int(w, "run", 0),
               or_dash(hp_json_str(w, "stage", "")), 100 * hp_json_num(w, "fraction", 0),
               hp_json_num(w, "seconds", 0));
}

static void print_peers(const hp_config *c, const json_t *peers)
{
    for (int k = 0; k < c->peer_count; k++) {
        const json_t *row = peer_row(peers, c->peers[k].name);
        char health[96];

        if (!c->peers[k].results)
            continue;
        peer_health(row, health, sizeof health);
        printf("peer       %s: %" PRId64 " accepted, %" PRId64 " waiting, %" PRId64
               " refused; %s\n",
               c->peers[k].name, hp_json_int(row, "accepted", 0),
               hp_json_int(row, "queued", 0) + hp_json_int(row, "sent", 0),
               hp_json_int(row, "refused", 0), health);
    }
    if (c->peer_count == 0)
        puts("peers      none configured; results stay in the outbox");
}

/* The newest failures, with where to look. */
static void print_failures(hp_db *db)
{
    hp_auto(json_t) *jobs = NULL;
    size_t i;
    json_t *row;
    int shown = 0;

    if (hp_view_jobs(db, LIST_LIMIT, &jobs, NULL) != HP_OK)
        return;
    json_array_foreach(jobs, i, row)
    {
        char when[24];

        if (strcmp(hp_json_str(row, "state", ""), "failed") != 0 || shown++ >= FAILURES)
            continue;
        hp_table_when(hp_json_int(row, "moved_ms", 0), when);
        printf("failed     job %" PRId64 " at %s: %s (heparctl show %" PRId64 ")\n",
               hp_json_int(row, "job", 0), when, hp_json_str(row, "reason", ""),
               hp_json_int(row, "job", 0));
    }
}

int hp_ctl_status(hp_ctl *ctl)
{
    hp_auto(json_t) *live = NULL;
    hp_auto(json_t) *view = NULL;
    hp_error err = HP_ERROR_INIT;
    int result = hp_ctl_need_ledger(ctl);
    hp_code code;

    if (result != HP_EXIT_DONE)
        return result;
    code = hp_view_status(ctl->db, &view, &err);
    if (code != HP_OK)
        return hp_ctl_fail(code, err.msg);
    code = hp_ctl_ask(ctl->config, json_pack("{ss}", "do", "status"), 5, &live, &err);
    if (code != HP_OK && code != HP_E_CONNECT)
        hp_ctl_fail(code, err.msg);
    hp_ctl_add_plan_cache(json_object_get(view, "inference"));
    if (ctl->json) {
        json_object_set(view, "daemon", live ? live : json_null());
        json_object_set_new(view, "running", json_boolean(live != NULL));
        hp_ctl_print_json(view);
        return HP_EXIT_DONE;
    }
    print_daemon(ctl, live);
    print_received(json_object_get(view, "received"));
    print_states(json_object_get(view, "jobs"));
    print_working(live);
    print_peers(ctl->config, json_object_get(view, "peers"));
    hp_ctl_print_inference(view);
    print_failures(ctl->db);
    return HP_EXIT_DONE;
}
