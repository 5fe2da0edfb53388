/* What people ask, as JSON. Each view is a few short reads; nothing is held. */
#include "db/view.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/number.h"
#include "db/db_internal.h"
#include "db/inference.h"

/* A row as an object: `shape` names the columns in order, "name:t" text,
 * "name:i" integer, "name:b" boolean, separated by spaces. */
static json_t *row_json(hp_rows *rows, const char *shape)
{
    json_t *obj = json_object();

    for (int col = 0; *shape != '\0'; col++) {
        size_t len = strcspn(shape, ":");
        char name[32];
        json_t *value;

        snprintf(name, sizeof name, "%.*s", (int)len, shape);
        value = shape[len + 1] == 't'   ? json_string(hp_rows_t(rows, col))
                : shape[len + 1] == 'b' ? json_boolean(hp_rows_i(rows, col))
                                        : json_integer(hp_rows_i(rows, col));
        json_object_set_new(obj, name, value);
        shape += len + 2;
        shape += *shape == ' ';
    }
    return obj;
}

/* All rows of a prepared query into a list. */
static hp_code rows_json(hp_db *db, hp_rows *rows, const char *shape, json_t *list,
                         hp_error *reterr)
{
    hp_code r;

    while ((r = hp_db__next(db, rows, reterr)) == HP_OK)
        if (json_array_append_new(list, row_json(rows, shape)) != 0)
            return hp_fail(reterr, HP_E_NO_MEMORY, "no memory for a list");
    return r == HP_E_EMPTY ? HP_OK : r;
}

static hp_code list_view(hp_db *db, const char *sql, const char *shape, int limit,
                         json_t **ret, hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    hp_auto(json_t) *list = json_array();
    hp_code r = hp_db__query(db, &rows, reterr, sql, "i", (int64_t)(limit ? limit : -1));

    if (r == HP_OK)
        r = rows_json(db, rows, shape, list, reterr);
    if (r == HP_OK)
        *ret = hp_steal(&list);
    return r;
}

/* The one row of a query with one parameter, as an object. */
static hp_code one_view(hp_db *db, const char *sql, int64_t id, const char *shape,
                        json_t **ret, hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    hp_code r = hp_db__row(db, &rows, reterr, sql, "i", id);

    if (r == HP_OK)
        *ret = row_json(rows, shape);
    return r;
}

hp_code hp_view_studies(hp_db *db, int limit, json_t **ret, hp_error *reterr)
{
    return list_view(
        db,
        "SELECT study_uid, study_date, accession, first_ms, last_ms, stored, ct, "
        "(SELECT count(*) FROM series WHERE series.study = study.id), duplicates, "
        "conflicts, echoes, refused, coalesce(job.id, 0), coalesce(revision, 0), "
        "coalesce(state, ''), coalesce(reason_code, ''), coalesce(reason, '') "
        "FROM study LEFT JOIN job ON job.study = study.id AND revision = "
        "(SELECT max(revision) FROM job AS j WHERE j.study = study.id) "
        "ORDER BY study.id DESC LIMIT ?",
        "study_uid:t study_date:t accession:t first_ms:i last_ms:i stored:i ct:i "
        "series:i "
        "duplicates:i conflicts:i echoes:i refused:i job:i revision:i state:t "
        "reason_code:t reason:t",
        limit, ret, reterr);
}

hp_code hp_view_jobs(hp_db *db, int limit, json_t **ret, hp_error *reterr)
{
    return list_view(
        db,
        "SELECT job.id, study_uid, revision, state, reason_code, job.reason, run, "
        "deaths, "
        "opened_ms, ready_ms, moved_ms, coalesce((SELECT ended_ms - started_ms FROM run "
        "WHERE run.job = job.id AND number = job.run AND ended_ms > 0), 0), "
        "(SELECT count(*) FROM result JOIN delivery ON delivery.result = result.id WHERE "
        "result.result_set = job.result_set), "
        "(SELECT count(*) FROM result JOIN delivery ON delivery.result = result.id WHERE "
        "result.result_set = job.result_set AND delivery.state = 'accepted') FROM job "
        "JOIN study ON study.id = job.study "
        "ORDER BY job.id DESC LIMIT ?",
        "job:i study_uid:t revision:i state:t reason_code:t reason:t run:i deaths:i "
        "opened_ms:i ready_ms:i moved_ms:i run_ms:i deliveries:i accepted:i",
        limit, ret, reterr);
}

/* ---- peers ---- */

hp_code hp_view_peers(hp_db *db, json_t **ret, hp_error *reterr)
{
    return list_view(
        db,
        "WITH names(name) AS (SELECT name FROM peer UNION SELECT DISTINCT peer FROM "
        "delivery) SELECT names.name, coalesce(failures, 0), coalesce(next_ms, 0), "
        "coalesce(last_ok_ms, 0), coalesce(words, ''), "
        "(SELECT count(*) FROM delivery WHERE peer = names.name AND state = 'queued'), "
        "(SELECT count(*) FROM delivery WHERE peer = names.name AND state = 'sent'), "
        "(SELECT count(*) FROM delivery WHERE peer = names.name AND state = 'accepted'), "
        "(SELECT count(*) FROM delivery WHERE peer = names.name AND state = 'refused') "
        "FROM names LEFT JOIN peer ON peer.name = names.name ORDER BY names.name LIMIT ?",
        "name:t failures:i next_ms:i last_ok_ms:i words:t queued:i sent:i accepted:i "
        "refused:i",
        0, ret, reterr);
}

/* ---- status ---- */

static hp_code states_json(hp_db *db, json_t *jobs, hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    hp_code r = hp_db__query(db, &rows, reterr,
                             "SELECT state, count(*) FROM job GROUP BY state", "");

    for (int s = 0; s < HP_JOB_STATES; s++)
        json_object_set_new(jobs, hp_job_state_name((hp_job_state)s), json_integer(0));
    while (r == HP_OK) {
        r = hp_db__next(db, rows, reterr);
        if (r == HP_OK)
            json_object_set_new(jobs, hp_rows_t(rows, 0),
                                json_integer(hp_rows_i(rows, 1)));
    }
    return r == HP_E_EMPTY ? HP_OK : r;
}

static hp_code totals_json(hp_db *db, json_t **ret, hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    hp_code r =
        hp_db__row(db, &rows, reterr,
                   "SELECT count(*), coalesce(sum(stored), 0), coalesce(sum(ct), 0), "
                   "coalesce(sum(duplicates), 0), coalesce(sum(conflicts), 0), "
                   "coalesce(sum(echoes), 0), coalesce(sum(refused), 0) FROM study",
                   "");

    if (r == HP_OK)
        *ret = row_json(rows, "studies:i stored:i ct:i duplicates:i conflicts:i echoes:i "
                              "refused:i");
    return r;
}

/* The newest run that went through the networks, and how long each took. */
static hp_code last_read_json(hp_db *db, json_t **ret, hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    hp_auto(json_t) *findings = NULL;
    const char *text;
    json_t *one;
    hp_code r = hp_db__row(db, &rows, reterr,
                           "SELECT job, number, started_ms, ended_ms, findings FROM run "
                           "WHERE outcome NOT IN ('', 'failed', 'unsuitable') AND "
                           "findings IS NOT NULL ORDER BY id DESC LIMIT 1",
                           "");

    if (r == HP_E_EMPTY) {
        *ret = json_null();
        return HP_OK;
    }
    if (r != HP_OK)
        return r;
    text = hp_rows_t(rows, 4);
    r = hp_json_parse(text, strlen(text), &findings, reterr);
    if (r != HP_OK)
        return r;
    one = row_json(rows, "job:i run:i started_ms:i ended_ms:i");
    for (int i = 0; i < 2; i++) {
        static const char *const KEYS[] = {"timings_ms", "networks_ms"};
        json_t *times = json_object_get(findings, KEYS[i]);

        if (json_is_object(times))
            json_object_set(one, KEYS[i], times);
        else /* of an older hepar */
            json_object_set_new(one, KEYS[i], json_object());
    }
    *ret = one;
    return HP_OK;
}

hp_code hp_view_status(hp_db *db, json_t **ret, hp_error *reterr)
{
    hp_auto(json_t) *inference = NULL;
    hp_auto(json_t) *last = NULL;
    hp_auto(json_t) *jobs = json_object();
    hp_auto(json_t) *totals = NULL;
    hp_auto(json_t) *peers = NULL;
    hp_code r = states_json(db, jobs, reterr);

    if (r == HP_OK)
        r = totals_json(db, &totals, reterr);
    if (r == HP_OK)
        r = hp_view_peers(db, &peers, reterr);
    if (r == HP_OK)
        r = hp_inference_load(db, &inference, reterr);
    if (r == HP_OK)
        r = last_read_json(db, &last, reterr);
    if (r == HP_OK)
        *ret = json_pack("{sO,sO,sO,sO,sO}", "received", totals, "jobs", jobs, "peers",
                         peers, "inference", inference, "last_read", last);
    return r;
}

/* ---- events ---- */

#define EVENT_SHAPE "at_ms:i job:i kind:t words:t"

static hp_code events_of(hp_db *db, int64_t study, int limit, json_t *list,
                         hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    hp_code r = hp_db__query(
        db, &rows, reterr,
        "SELECT at_ms, coalesce(job, 0), kind, words FROM (SELECT * FROM event WHERE "
        "study = ? ORDER BY id DESC LIMIT ?) ORDER BY id",
        "ii", study, (int64_t)(limit ? limit : -1));

    if (r == HP_OK)
        r = rows_json(db, rows, EVENT_SHAPE, list, reterr);
    return r;
}

static hp_code events_all(hp_db *db, int limit, json_t *list, hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    hp_code r = hp_db__query(
        db, &rows, reterr,
        "SELECT at_ms, coalesce(job, 0), kind, words FROM (SELECT * FROM event "
        "ORDER BY id DESC LIMIT ?) ORDER BY id",
        "i", (int64_t)(limit ? limit : -1));

    if (r == HP_OK)
        r = rows_json(db, rows, EVENT_SHAPE, list, reterr);
    return r;
}

/* ---- one study ---- */

/* The study of a job number or a UID, and its job (newest revision; job 0: a
 * study without CT images). */
static hp_code find_study(hp_db *db, const char *id, int64_t *ret_study, int64_t *ret_job,
                          hp_error *reterr)
{
    hp_auto(hp_job) *job = NULL;
    int64_t number;
    hp_code r;

    if (hp_parse_i64(id, &number)) {
        r = hp_job_load(db, number, &job, reterr);
        if (r == HP_OK) {
            *ret_study = job->study_id;
            *ret_job = job->id;
        }
        return r;
    }
    r = hp_db__number(db, 0, ret_study, reterr,
                      "SELECT id FROM study WHERE study_uid = ?", "t", id);
    if (r == HP_OK && *ret_study == 0)
        return hp_fail(reterr, HP_E_NOT_FOUND, "no such study");
    if (r == HP_OK)
        r = hp_db__number(
            db, 0, ret_job, reterr,
            "SELECT id FROM job WHERE study = ? ORDER BY revision DESC LIMIT 1", "i",
            *ret_study);
    return r;
}

hp_code hp_view_events(hp_db *db, const char *id, int limit, json_t **ret,
                       hp_error *reterr)
{
    hp_auto(json_t) *list = json_array();
    int64_t study, job;
    hp_code r;

    if (id == NULL) {
        r = events_all(db, limit, list, reterr);
    } else {
        r = find_study(db, id, &study, &job, reterr);
        if (r == HP_OK)
            r = events_of(db, study, limit, list, reterr);
    }
    if (r == HP_OK)
        *ret = hp_steal(&list);
    return r;
}

static hp_code add_study(hp_db *db, int64_t study, json_t *show, hp_error *reterr)
{
    hp_auto(json_t) *one = NULL;
    hp_code r = one_view(db,
                         "SELECT study_uid, study_date, accession, two_patients, "
                         "first_ms, last_ms, stored, ct, duplicates, conflicts, "
                         "echoes, refused FROM study WHERE id = ?",
                         study,
                         "study_uid:t study_date:t accession:t two_patients:b first_ms:i "
                         "last_ms:i stored:i ct:i duplicates:i conflicts:i echoes:i "
                         "refused:i",
                         &one, reterr);

    if (r != HP_OK)
        return r;
    json_object_set(show, "study_uid", json_object_get(one, "study_uid"));
    json_object_del(one, "study_uid");
    json_object_set(show, "received", one);
    return HP_OK;
}

/* The rows of a query with one parameter, as show[key]. */
static hp_code add_list(hp_db *db, const char *sql, int64_t id, const char *shape,
                        json_t *show, const char *key, hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    json_t *list = json_array();
    hp_code r = hp_db__query(db, &rows, reterr, sql, "i", id);

    if (r == HP_OK)
        r = rows_json(db, rows, shape, list, reterr);
    json_object_set_new(show, key, list);
    return r;
}

/* Before anything has read the study: every series, with no role yet. */
static json_t *unread_series(const json_t *show)
{
    json_t *list = json_array(), *one;
    size_t i;

    json_array_foreach(json_object_get(show, "received_series"), i, one)
    {
        json_array_append_new(
            list, json_pack("{ss,sI,ss,ss}", "uid", hp_json_str(one, "uid", ""),
                            "instances", (json_int_t)hp_json_int(one, "instances", 0),
                            "role", "-", "why", "not read yet"));
    }
    return list;
}

static hp_code add_received_series(hp_db *db, int64_t study, json_t *show,
                                   hp_error *reterr)
{
    hp_code r = add_list(db,
                         "SELECT series_uid, modality, instances, ct FROM series WHERE "
                         "study = ? ORDER BY id",
                         study, "uid:t modality:t instances:i ct:i", show,
                         "received_series", reterr);

    if (r == HP_OK && json_object_get(show, "series") == NULL)
        json_object_set_new(show, "series", unread_series(show));
    return r;
}

static hp_code add_senders(hp_db *db, int64_t study, json_t *show, hp_error *reterr)
{
    return add_list(db,
                    "SELECT calling_ae, peer, count(*) FROM instance WHERE "
                    "study = ? GROUP BY calling_ae, peer ORDER BY 3 DESC LIMIT 8",
                    study, "ae_title:t address:t objects:i", show, "senders", reterr);
}

static hp_code add_revisions(hp_db *db, int64_t study, json_t *show, hp_error *reterr)
{
    return add_list(
        db,
        "SELECT job.id, revision, state, reason_code, reason, (SELECT count(*) FROM "
        "instance WHERE instance.study = job.study AND instance.revision BETWEEN 1 AND "
        "job.revision) FROM job WHERE study = ? ORDER BY revision",
        study, "job:i revision:i state:t reason_code:t reason:t images:i", show,
        "revisions", reterr);
}

static hp_code add_job(hp_db *db, int64_t job, json_t *show, hp_error *reterr)
{
    hp_auto(json_t) *one = NULL;
    hp_code r = one_view(db,
                         "SELECT id, revision, state, decision, reason_code, reason, "
                         "run, deaths, opened_ms, ready_ms, moved_ms FROM job "
                         "WHERE id = ?",
                         job,
                         "job:i revision:i state:t decision:t reason_code:t reason:t "
                         "run:i deaths:i opened_ms:i ready_ms:i moved_ms:i",
                         &one, reterr);

    if (r == HP_OK)
        json_object_update(show, one);
    return r;
}

static hp_code add_runs(hp_db *db, int64_t job, json_t *show, hp_error *reterr)
{
    return add_list(db,
                    "SELECT number, started_ms, ended_ms, outcome, reason_code, "
                    "reason, input_digest FROM run WHERE job = ? ORDER BY number",
                    job,
                    "run:i started_ms:i ended_ms:i outcome:t reason_code:t reason:t "
                    "input_digest:t",
                    show, "runs", reterr);
}

/* The findings of the newest run that has some: phases, candidates, timings. */
static hp_code add_findings(hp_db *db, int64_t job, json_t *show, hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    hp_auto(json_t) *findings = NULL;
    const char *text;
    hp_code r = hp_db__row(db, &rows, reterr,
                           "SELECT findings FROM run WHERE job = ? AND findings IS NOT "
                           "NULL ORDER BY number DESC LIMIT 1",
                           "i", job);

    if (r != HP_OK)
        return r == HP_E_EMPTY ? HP_OK : r;
    text = hp_rows_t(rows, 0);
    r = hp_json_parse(text, strlen(text), &findings, reterr);
    /* What the ledger says of itself comes later and wins. */
    if (r == HP_OK && json_is_object(findings))
        json_object_update(show, findings);
    return r;
}

static hp_code add_deliveries(hp_db *db, int64_t result, json_t *one, hp_error *reterr)
{
    return add_list(db,
                    "SELECT peer, state, attempts, status, words, queued_ms, "
                    "answered_ms, next_ms FROM delivery WHERE result = ? ORDER BY peer",
                    result,
                    "peer:t state:t attempts:i status:i words:t queued_ms:i "
                    "answered_ms:i next_ms:i",
                    one, "deliveries", reterr);
}

static hp_code add_results(hp_db *db, int64_t job, json_t *show, hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    json_t *list = json_array();
    hp_code r = hp_db__query(
        db, &rows, reterr,
        "SELECT result.id, kind, sop_class, sop_instance, 'outbox/' || folder || '/' || "
        "file, CASE png WHEN '' THEN '' ELSE 'outbox/' || folder || '/' || png END, "
        "required FROM job JOIN result_set ON result_set.id = job.result_set JOIN result "
        "ON result.result_set = result_set.id WHERE job.id = ? ORDER BY result.id",
        "i", job);

    while (r == HP_OK && (r = hp_db__next(db, rows, reterr)) == HP_OK) {
        json_t *one = row_json(rows, "id:i kind:t sop_class_uid:t sop_instance_uid:t "
                                     "path:t png:t required:b");
        r = add_deliveries(db, hp_rows_i(rows, 0), one, reterr);
        json_object_del(one, "id");
        json_array_append_new(list, one);
    }
    json_object_set_new(show, "results", list);
    return r == HP_E_EMPTY ? HP_OK : r;
}

/* What heparctl(1) promises is there from the first image on, empty at first. */
static void fill_promised(json_t *show)
{
    static const char *const KEYS[] = {
        "phases", "registration", "candidates", "primary", "results", "timings_ms",
        "bundle", "device",       "revision",   "state",   "reason"};
    hp_auto(json_t) *empty =
        json_pack("{s{sn,sn,sn,sn},s{},s[],sn,s[],s{},s{ss,ss},ss,si,ss,ss}", "phases",
                  "NC", "A", "V", "D", "registration", "candidates", "primary", "results",
                  "timings_ms", "bundle", "name", "", "sha256", "", "device", "",
                  "revision", 0, "state", "", "reason", "");

    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++)
        if (json_object_get(show, KEYS[i]) == NULL)
            json_object_set(show, KEYS[i], json_object_get(empty, KEYS[i]));
}

hp_code hp_view_show(hp_db *db, const char *id, json_t **ret, hp_error *reterr)
{
    hp_auto(json_t) *show = json_object();
    int64_t study, job;
    hp_code r = find_study(db, id, &study, &job, reterr);

    if (r == HP_OK && job != 0)
        r = add_findings(db, job, show, reterr);
    if (r == HP_OK)
        r = add_study(db, study, show, reterr);
    if (r == HP_OK)
        r = add_senders(db, study, show, reterr);
    if (r == HP_OK)
        r = add_received_series(db, study, show, reterr);
    if (r == HP_OK && job != 0)
        r = add_job(db, job, show, reterr);
    if (r == HP_OK)
        r = add_revisions(db, study, show, reterr);
    if (r == HP_OK && job != 0)
        r = add_runs(db, job, show, reterr);
    if (r == HP_OK && job != 0)
        r = add_results(db, job, show, reterr);
    if (r == HP_OK) {
        json_t *events = json_array();

        r = events_of(db, study, 40, events, reterr);
        json_object_set_new(show, "events", events);
    }
    fill_promised(show);
    if (r == HP_OK)
        *ret = hp_steal(&show);
    return r;
}
