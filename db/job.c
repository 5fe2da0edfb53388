/* Jobs: the table of moves, the claim, and how a run ends.
 *
 * Every change of state goes through hp_job_move(), which checks the table and
 * that the ledger still has the state the caller believes in; what else belongs
 * to the change stands in the same transaction.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crash.h"
#include "base/number.h"
#include "db/db_internal.h"

#define BIT(state) (1u << HP_JOB_##state)

static const struct {
    const char *name;
    unsigned may_become;
} STATES[HP_JOB_STATES] = {
    [HP_JOB_RECEIVING] = {"receiving", BIT(READY) | BIT(FAILED) | BIT(CANCELLED)},
    /* back to receiving: late images before the claim join the same revision */
    [HP_JOB_READY] = {"ready",
                      BIT(RECEIVING) | BIT(RUNNING) | BIT(FAILED) | BIT(CANCELLED)},
    /* back to ready: its worker died, or the daemon did */
    [HP_JOB_RUNNING] = {"running", BIT(READY) | BIT(REPORTED) | BIT(UNSUITABLE) |
                                       BIT(FAILED) | BIT(CANCELLED)},
    [HP_JOB_REPORTED] = {"reported", BIT(SENT) | BIT(FAILED) | BIT(CANCELLED)},
    [HP_JOB_SENT] = {"sent", 0},
    [HP_JOB_UNSUITABLE] = {"unsuitable", BIT(READY)},
    [HP_JOB_FAILED] = {"failed", BIT(READY)},
    [HP_JOB_CANCELLED] = {"cancelled", BIT(READY)},
};

enum { MAX_DEATHS = 2 };

const char *hp_job_state_name(hp_job_state s)
{
    return (unsigned)s < HP_JOB_STATES ? STATES[s].name : "unknown";
}

bool hp_job_state_parse(const char *name, hp_job_state *ret)
{
    for (int s = 0; s < HP_JOB_STATES; s++) {
        if (strcmp(STATES[s].name, name) == 0) {
            *ret = (hp_job_state)s;
            return true;
        }
    }
    return false;
}

bool hp_job_state_final(hp_job_state s)
{
    return s == HP_JOB_SENT || s == HP_JOB_UNSUITABLE || s == HP_JOB_FAILED ||
           s == HP_JOB_CANCELLED;
}

bool hp_job_may_move(hp_job_state from, hp_job_state to)
{
    return (unsigned)from < HP_JOB_STATES && (unsigned)to < HP_JOB_STATES &&
           (STATES[from].may_become & (1u << to)) != 0;
}

void hp_job_free(hp_job *job)
{
    free(job);
}

/* ---- loading ---- */

#define JOB_COLUMNS                                                                      \
    "SELECT job.id, job.study, study.study_uid, revision, state, run, deaths, "          \
    "created_ms, coalesce(result_set, 0), reason_code, reason "                          \
    "FROM job JOIN study ON study.id = job.study "

/* Takes the next row of a JOB_COLUMNS query. */
static hp_code row_to_job(hp_db *db, hp_rows *rows, hp_job **ret, hp_error *reterr)
{
    hp_auto(hp_job) *job = NULL;
    hp_code r = hp_db__next(db, rows, reterr);

    if (r != HP_OK)
        return r;
    job = calloc(1, sizeof *job);
    if (job == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "no memory for a job");
    job->id = hp_rows_i(rows, 0);
    job->study_id = hp_rows_i(rows, 1);
    hp_rows_copy(rows, 2, job->study_uid.text, sizeof job->study_uid.text);
    job->revision = (int)hp_rows_i(rows, 3);
    if (!hp_job_state_parse(hp_rows_t(rows, 4), &job->state))
        return hp_fail(reterr, HP_E_CORRUPT, "job %" PRId64 " has an unknown state",
                       job->id);
    job->run = (int)hp_rows_i(rows, 5);
    job->deaths = (int)hp_rows_i(rows, 6);
    job->created_ms = hp_rows_i(rows, 7);
    job->result_set = hp_rows_i(rows, 8);
    hp_rows_copy(rows, 9, job->reason_code, sizeof job->reason_code);
    hp_rows_copy(rows, 10, job->reason, sizeof job->reason);
    *ret = hp_steal(&job);
    return HP_OK;
}

hp_code hp_job_load(hp_db *db, int64_t id, hp_job **ret, hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    hp_code r = hp_db__query(db, &rows, reterr, JOB_COLUMNS "WHERE job.id = ?", "i", id);

    if (r == HP_OK)
        r = row_to_job(db, rows, ret, reterr);
    return r == HP_E_EMPTY ? hp_fail(reterr, HP_E_NOT_FOUND, "no job %" PRId64, id) : r;
}

hp_code hp_job_of_study(hp_db *db, const char *study_uid, hp_job **ret, hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    hp_code r = hp_db__query(db, &rows, reterr,
                             JOB_COLUMNS
                             "WHERE study.study_uid = ? ORDER BY revision DESC LIMIT 1",
                             "t", study_uid);

    if (r == HP_OK)
        r = row_to_job(db, rows, ret, reterr);
    return r == HP_E_EMPTY ? hp_fail(reterr, HP_E_NOT_FOUND, "no job of that study") : r;
}

hp_code hp_job_find(hp_db *db, const char *id, hp_job **ret, hp_error *reterr)
{
    int64_t number;

    if (hp_parse_i64(id, &number))
        return hp_job_load(db, number, ret, reterr);
    return hp_job_of_study(db, id, ret, reterr);
}

/* ---- moving ---- */

hp_code hp_job_move(hp_db *db, hp_job *job, hp_job_state to, const char *reason_code,
                    const char *reason, hp_error *reterr)
{
    hp_auto(hp_tx) *tx = NULL;
    int64_t now = hp_db_wall_ms(db);
    hp_code r;

    if (!hp_job_may_move(job->state, to))
        return hp_fail(reterr, HP_E_STATE, "job %" PRId64 " is %s and cannot become %s",
                       job->id, hp_job_state_name(job->state), hp_job_state_name(to));
    r = hp_tx_begin(db, &tx, reterr);
    if (r == HP_OK)
        r = hp_db__run(
            db, reterr,
            "UPDATE job SET state = ?, moved_ms = ?, reason_code = ?, reason = ?, "
            "ready_ms = CASE WHEN ?1 = 'ready' THEN ?2 ELSE ready_ms END "
            "WHERE id = ? AND state = ?",
            "tittit", hp_job_state_name(to), now, reason_code ? reason_code : "",
            reason ? reason : "", job->id, hp_job_state_name(job->state));
    if (r == HP_OK && hp_db__changes(db) != 1)
        r = hp_fail(reterr, HP_E_STATE, "job %" PRId64 " is not %s any more", job->id,
                    hp_job_state_name(job->state));
    if (r == HP_OK)
        r = hp_event_add(db, job->study_id, job->id, hp_job_state_name(to), reterr,
                         "%s -> %s%s%s%s%s", hp_job_state_name(job->state),
                         hp_job_state_name(to), reason_code && *reason_code ? ", " : "",
                         reason_code ? reason_code : "", reason && *reason ? ": " : "",
                         reason ? reason : "");
    hp_crash_point("job_move");
    if (r == HP_OK)
        r = hp_tx_commit(tx, reterr);
    hp_crash_point("job_moved");
    if (r != HP_OK)
        return hp_wrap(reterr, r, "moving job %" PRId64, job->id);
    job->state = to;
    snprintf(job->reason_code, sizeof job->reason_code, "%s",
             reason_code ? reason_code : "");
    snprintf(job->reason, sizeof job->reason, "%s", reason ? reason : "");
    return HP_OK;
}

hp_code hp_job__fail_open(hp_db *db, int64_t study, const char *reason_code,
                          const char *reason, hp_error *reterr)
{
    for (;;) {
        hp_auto(hp_rows) *rows = NULL;
        hp_auto(hp_job) *job = NULL;
        hp_code r = hp_db__query(db, &rows, reterr,
                                 JOB_COLUMNS
                                 "WHERE job.study = ? AND state IN "
                                 "('receiving', 'ready', 'running', 'reported') LIMIT 1",
                                 "i", study);

        if (r == HP_OK)
            r = row_to_job(db, rows, &job, reterr);
        if (r == HP_E_EMPTY)
            return HP_OK;
        hp_rows_end(hp_steal(&rows)); /* the move writes the row we stand on */
        if (r == HP_OK)
            r = hp_job_move(db, job, HP_JOB_FAILED, reason_code, reason, reterr);
        if (r != HP_OK)
            return r;
    }
}

/* ---- receiving ---- */

static hp_code touch(hp_db *db, int64_t job, hp_error *reterr)
{
    /* A new slice makes every earlier look stale: its number moves on. */
    return hp_db__run(db, reterr,
                      "UPDATE job SET last_mono = ?, looking = 0, looked = 0, "
                      "look = look + 1 WHERE id = ?",
                      "ii", hp_db_mono_ms(db), job);
}

static hp_code open_revision(hp_db *db, int64_t study, int revision, hp_error *reterr)
{
    int64_t mono = hp_db_mono_ms(db), wall = hp_db_wall_ms(db);
    hp_code r =
        hp_db__run(db, reterr,
                   "INSERT INTO job(study, revision, state, opened_ms, moved_ms, "
                   "first_mono, last_mono) VALUES (?, ?, 'receiving', ?, ?, ?, ?)",
                   "iiiiii", study, (int64_t)revision, wall, wall, mono, mono);

    if (r == HP_OK)
        r = hp_event_add(db, study, hp_db__last_id(db), "receiving", reterr,
                         "revision %d: first CT image", revision);
    return r;
}

hp_code hp_job__receiving(hp_db *db, int64_t study, int *ret_revision, hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    hp_auto(hp_job) *job = NULL;
    hp_code r = hp_db__query(
        db, &rows, reterr,
        JOB_COLUMNS "WHERE job.study = ? ORDER BY revision DESC LIMIT 1", "i", study);

    if (r == HP_OK)
        r = row_to_job(db, rows, &job, reterr);
    hp_rows_end(hp_steal(&rows));
    if (r == HP_E_EMPTY) {
        *ret_revision = 1;
        return open_revision(db, study, 1, reterr);
    }
    if (r != HP_OK)
        return r;
    if (job->state == HP_JOB_READY)
        r = hp_job_move(db, job, HP_JOB_RECEIVING, "late_images",
                        "images came before the job was claimed", reterr);
    if (r == HP_OK && job->state == HP_JOB_RECEIVING)
        r = touch(db, job->id, reterr);
    else if (r == HP_OK)
        r = open_revision(db, study, ++job->revision, reterr);
    if (r == HP_OK)
        *ret_revision = job->revision;
    return r;
}

hp_code hp_job_predecessor(hp_db *db, const hp_job *job, json_t **ret, hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    hp_code r = hp_db__row(
        db, &rows, reterr,
        "SELECT series_uid, sop_class, sop_instance FROM job JOIN result ON "
        "result.result_set = job.result_set WHERE job.study = ? AND revision < ? AND "
        "kind IN ('sr', 'note_sr') AND series_uid <> '' ORDER BY revision DESC LIMIT 1",
        "ii", job->study_id, (int64_t)job->revision);

    if (r == HP_OK)
        *ret = json_pack("{ss,ss,ss}", "series", hp_rows_t(rows, 0), "sop_class",
                         hp_rows_t(rows, 1), "sop_instance", hp_rows_t(rows, 2));
    else if (r == HP_E_EMPTY)
        *ret = json_null();
    return r == HP_E_EMPTY ? HP_OK : r;
}

/* ---- the waiting studies ---- */

enum { ADVANCE_MAX = 256 }; /* jobs looked at in one go; the rest comes next time */

typedef struct waiting {
    int64_t job;
    hp_uid study_uid;
    hp_arrival arrival;
    bool looking;
} waiting;

static hp_code load_waiting(hp_db *db, waiting *ret, int *ret_count, hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    int n = 0;
    hp_code r = hp_db__query(
        db, &rows, reterr,
        "SELECT job.id, study_uid, first_mono, last_mono, looking, looked, phases "
        "FROM job JOIN study ON study.id = job.study WHERE state = 'receiving' "
        "ORDER BY last_mono LIMIT 256",
        "");

    while (r == HP_OK && n < ADVANCE_MAX) {
        r = hp_db__next(db, rows, reterr);
        if (r != HP_OK)
            break;
        ret[n].job = hp_rows_i(rows, 0);
        hp_rows_copy(rows, 1, ret[n].study_uid.text, sizeof ret[n].study_uid.text);
        ret[n].looking = hp_rows_i(rows, 4) != 0;
        ret[n].arrival = (hp_arrival){.first_ms = hp_rows_i(rows, 2),
                                      .last_ms = hp_rows_i(rows, 3),
                                      .looked = hp_rows_i(rows, 5) != 0,
                                      .phases = (unsigned)hp_rows_i(rows, 6)};
        n++;
    }
    *ret_count = n;
    return r == HP_E_EMPTY ? HP_OK : r;
}

static hp_code make_ready(hp_db *db, const waiting *w, hp_ready why,
                          const hp_readiness *rule, hp_error *reterr)
{
    hp_auto(hp_job) *job = NULL;
    char words[160];
    hp_code r = hp_job_load(db, w->job, &job, reterr);

    if (why == HP_READY_QUIET)
        snprintf(words, sizeof words, "no CT image for %lld s%s",
                 (long long)(rule->quiet_ms / 1000),
                 rule->phases ? ", awaited phases are there" : "");
    else
        snprintf(words, sizeof words, "maximum wait of %lld s is over%s",
                 (long long)(rule->max_wait_ms / 1000),
                 rule->phases && w->arrival.looked ? ", awaited phases are missing"
                 : w->arrival.association_open     ? ", still being sent"
                                                   : "");
    if (r == HP_OK)
        r = hp_db__run(db, reterr, "UPDATE job SET decision = ? WHERE id = ?", "ti",
                       words, w->job);
    if (r == HP_OK)
        r = hp_job_move(db, job, HP_JOB_READY,
                        why == HP_READY_QUIET ? "quiet" : "max_wait", words, reterr);
    return r;
}

static hp_code ask_for_look(hp_db *db, const waiting *w, hp_look *ret, hp_error *reterr)
{
    int64_t look;
    hp_code r =
        hp_db__run(db, reterr, "UPDATE job SET looking = 1 WHERE id = ?", "i", w->job);

    if (r == HP_OK)
        r = hp_db__number(db, 0, &look, reterr, "SELECT look FROM job WHERE id = ?", "i",
                          w->job);
    if (r == HP_OK)
        *ret = (hp_look){w->job, (int)look};
    return r;
}

hp_code hp_job_advance(hp_db *db, const hp_readiness *rule, hp_study_open_fn open,
                       void *payload, int *ret_moved, hp_look *ret_look,
                       int64_t *ret_again_ms, hp_error *reterr)
{
    hp_auto(hp_tx) *tx = NULL;
    static const int64_t NEVER = INT64_MAX;
    waiting *w = calloc(ADVANCE_MAX, sizeof *w);
    int count = 0, moved = 0;
    hp_look look = {0, 0};
    int64_t now = hp_db_mono_ms(db), again = NEVER;
    hp_code r;

    if (w == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "no memory for the waiting studies");
    r = load_waiting(db, w, &count, reterr);
    if (r == HP_OK && count > 0)
        r = hp_tx_begin(db, &tx, reterr);
    for (int i = 0; r == HP_OK && i < count; i++) {
        int64_t at;
        hp_ready ready;

        w[i].arrival.association_open =
            open != NULL && open(w[i].study_uid.text, payload);
        ready = hp_study_ready(&w[i].arrival, rule, now, &at);
        if (ready == HP_READY_LOOK) {
            if (!w[i].looking && look.job == 0 && ret_look != NULL)
                r = ask_for_look(db, &w[i], &look, reterr);
            else if (!w[i].looking)
                again = now + 1000 < again ? now + 1000 : again; /* one at a time */
            at = w[i].arrival.first_ms + rule->max_wait_ms;
        } else if (ready != HP_READY_NO) {
            r = make_ready(db, &w[i], ready, rule, reterr);
            moved++;
            continue;
        }
        again = at < again ? at : again;
    }
    free(w);
    if (r == HP_OK && tx != NULL)
        r = hp_tx_commit(tx, reterr);
    if (r != HP_OK)
        return hp_wrap(reterr, r, "deciding which studies are ready");
    *ret_moved = moved;
    if (ret_look != NULL)
        *ret_look = look;
    *ret_again_ms = count == ADVANCE_MAX ? now : again;
    return HP_OK;
}

hp_code hp_job_looked(hp_db *db, hp_look look, unsigned phases, hp_error *reterr)
{
    return hp_db__run(
        db, reterr,
        "UPDATE job SET looking = 0, looked = 1, phases = ? WHERE id = ? AND "
        "look = ? AND state = 'receiving'",
        "iii", (int64_t)phases, look.job, (int64_t)look.look);
}

/* ---- the claim ---- */

static hp_code load_oldest_ready(hp_db *db, hp_job **ret_job, hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    hp_code r = hp_db__query(
        db, &rows, reterr,
        JOB_COLUMNS "WHERE state = 'ready' AND NOT EXISTS (SELECT 1 FROM job AS other "
                    "WHERE other.study = job.study AND other.state = 'running') "
                    "ORDER BY ready_ms, job.id LIMIT 1",
        "");

    if (r == HP_OK)
        r = row_to_job(db, rows, ret_job, reterr);
    return r;
}

static hp_code is_two_patients(hp_db *db, int64_t study, bool *ret, hp_error *reterr)
{
    int64_t flag;
    hp_code r = hp_db__number(db, 0, &flag, reterr,
                              "SELECT two_patients FROM study WHERE id = ?", "i", study);

    if (r == HP_OK)
        *ret = flag != 0;
    return r;
}

/* A new run, and the report's times if this is the first one. */
static hp_code start_run(hp_db *db, hp_job *job, hp_error *reterr)
{
    int64_t now = hp_db_wall_ms(db);
    hp_code r;

    job->run++;
    if (job->created_ms == 0)
        job->created_ms = now;
    r = hp_db__run(db, reterr, "UPDATE job SET run = ?, created_ms = ? WHERE id = ?",
                   "iii", (int64_t)job->run, job->created_ms, job->id);
    if (r == HP_OK)
        r = hp_db__run(db, reterr,
                       "INSERT INTO run(job, number, started_ms) VALUES (?, ?, ?)", "iii",
                       job->id, (int64_t)job->run, now);
    return r;
}

hp_code hp_job_claim(hp_db *db, hp_job **ret_job, hp_error *reterr)
{
    for (;;) {
        hp_auto(hp_tx) *tx = NULL; /* rolls back unless committed */
        hp_auto(hp_job) *job = NULL;
        bool two_patients = false;
        hp_code r;

        r = hp_tx_begin(db, &tx, reterr);
        if (r != HP_OK)
            return hp_wrap(reterr, r, "claiming a job");

        r = load_oldest_ready(db, &job, reterr);
        if (r != HP_OK)
            return r; /* HP_E_EMPTY is an answer, not a fault */

        r = is_two_patients(db, job->study_id, &two_patients, reterr);
        if (r == HP_OK && two_patients)
            r = hp_job_move(db, job, HP_JOB_FAILED, "two_patients",
                            "the study holds images of two patients", reterr);
        else if (r == HP_OK)
            r = hp_job_move(db, job, HP_JOB_RUNNING, NULL, NULL, reterr);
        if (r == HP_OK && !two_patients)
            r = start_run(db, job, reterr);
        if (r == HP_OK)
            r = hp_tx_commit(tx, reterr);
        if (r != HP_OK)
            return hp_wrap(reterr, r, "claiming a job");
        if (two_patients)
            continue; /* the next one */

        *ret_job = hp_steal(&job);
        return HP_OK;
    }
}

/* ---- how a run ends ---- */

static hp_code end_run(hp_db *db, int64_t job, int run, const char *outcome,
                       const char *reason_code, const char *reason, hp_error *reterr)
{
    return hp_db__run(db, reterr,
                      "UPDATE run SET ended_ms = ?, outcome = ?, reason_code = ?, "
                      "reason = ? WHERE job = ? AND number = ?",
                      "itttii", hp_db_wall_ms(db), outcome,
                      reason_code ? reason_code : "", reason ? reason : "", job,
                      (int64_t)run);
}

static hp_code keep_findings(hp_db *db, const hp_run_done *done, hp_error *reterr)
{
    char *text = done->result ? json_dumps(done->result, JSON_COMPACT) : NULL;
    hp_code r = hp_db__run(db, reterr,
                           "UPDATE run SET input_digest = ?, findings = ? WHERE job = ? "
                           "AND number = ?",
                           "ttii", done->input_digest ? done->input_digest : "", text,
                           done->job, (int64_t)done->run);

    free(text);
    return r;
}

static hp_code find_set(hp_db *db, int64_t study, const hp_run_done *done, int64_t *ret,
                        hp_error *reterr)
{
    return hp_db__number(db, 0, ret, reterr,
                         "SELECT id FROM result_set WHERE study = ? AND input_digest = ? "
                         "AND bundle_sha256 = ?",
                         "itt", study, done->input_digest ? done->input_digest : "",
                         done->bundle_sha256 ? done->bundle_sha256 : "");
}

static hp_code add_set(hp_db *db, const hp_job *job, const hp_run_done *done,
                       int64_t *ret, hp_error *reterr)
{
    hp_code r =
        hp_db__run(db, reterr,
                   "INSERT INTO result_set(study, input_digest, bundle_sha256, "
                   "job, run, folder, created_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
                   "ittiiti", job->study_id, done->input_digest ? done->input_digest : "",
                   done->bundle_sha256 ? done->bundle_sha256 : "", job->id,
                   (int64_t)done->run, done->folder, job->created_ms);

    if (r == HP_OK)
        *ret = hp_db__last_id(db);
    for (int i = 0; r == HP_OK && i < done->object_count; i++) {
        const hp_run_object *o = &done->objects[i];

        r = hp_db__run(db, reterr,
                       "INSERT INTO result(result_set, kind, sop_class, sop_instance, "
                       "series_uid, file, png, required) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                       "itttttti", *ret, o->kind, o->sop_class.text, o->sop_instance.text,
                       o->series.text, o->file, o->png ? o->png : "",
                       (int64_t)o->required);
    }
    return r;
}

/* The objects: those built now, or those built earlier from the same input. */
static hp_code settle_objects(hp_db *db, hp_job *job, const hp_run_done *done,
                              bool *ret_reused, hp_error *reterr)
{
    int64_t set = 0;
    hp_code r = find_set(db, job->study_id, done, &set, reterr);

    *ret_reused = set != 0;
    if (r == HP_OK && set == 0 && done->object_count > 0)
        r = add_set(db, job, done, &set, reterr);
    job->result_set = set;
    if (r == HP_OK && set != 0)
        r = hp_db__run(db, reterr, "UPDATE job SET result_set = ? WHERE id = ?", "ii",
                       set, job->id);
    if (r == HP_OK && set != 0)
        r = hp_outbox__queue(db, job->id, set, done->peers, done->peer_count, reterr);
    return r;
}

static hp_code end_job(hp_db *db, hp_job *job, const hp_run_done *done, bool *ret_reused,
                       hp_error *reterr)
{
    bool unsuitable = strcmp(done->outcome, "unsuitable") == 0, two_patients;
    hp_code r = is_two_patients(db, job->study_id, &two_patients, reterr);

    if (r != HP_OK)
        return r;
    if (two_patients)
        return hp_job_move(db, job, HP_JOB_FAILED, "two_patients",
                           "the study holds images of two patients", reterr);
    if (strcmp(done->outcome, "failed") == 0)
        return hp_job_move(db, job, HP_JOB_FAILED,
                           done->reason_code && *done->reason_code ? done->reason_code
                                                                   : "run_failed",
                           done->reason, reterr);
    if (!unsuitable || done->send_unsuitable)
        r = settle_objects(db, job, done, ret_reused, reterr);
    if (r == HP_OK && !unsuitable && job->result_set == 0)
        return hp_job_move(db, job, HP_JOB_FAILED, "no_objects",
                           "the worker was done and built nothing", reterr);
    if (r == HP_OK)
        r = hp_job_move(db, job, unsuitable ? HP_JOB_UNSUITABLE : HP_JOB_REPORTED,
                        done->reason_code, done->reason, reterr);
    if (r == HP_OK && job->revision > 1 && !unsuitable)
        r = hp_event_add(db, job->study_id, job->id, "superseded", reterr,
                         "the report of revision %d supersedes the earlier ones",
                         job->revision);
    if (r == HP_OK && job->result_set != 0) /* nobody to send to: sent */
        r = hp_job__settle(db, job->result_set, reterr);
    return r;
}

hp_code hp_job_done(hp_db *db, const hp_run_done *done, bool *ret_reused,
                    hp_error *reterr)
{
    hp_auto(hp_tx) *tx = NULL;
    hp_auto(hp_job) *job = NULL;
    bool reused = false;
    hp_code r = hp_tx_begin(db, &tx, reterr);

    if (r == HP_OK)
        r = hp_job_load(db, done->job, &job, reterr);
    if (r == HP_OK && (job->state != HP_JOB_RUNNING || job->run != done->run))
        return hp_fail(reterr, HP_E_STATE,
                       "run %d of job %" PRId64 " is not the running one", done->run,
                       done->job);
    if (r == HP_OK)
        r = end_run(db, done->job, done->run, done->outcome, done->reason_code,
                    done->reason, reterr);
    if (r == HP_OK)
        r = keep_findings(db, done, reterr);
    if (r == HP_OK)
        r = end_job(db, job, done, &reused, reterr);
    if (r == HP_OK)
        r = hp_tx_commit(tx, reterr);
    if (r != HP_OK)
        return hp_wrap(reterr, r, "ending a run");
    *ret_reused = reused;
    return HP_OK;
}

hp_code hp_job_died(hp_db *db, int64_t id, int run, bool blame, const char *reason_code,
                    const char *reason, hp_error *reterr)
{
    hp_auto(hp_tx) *tx = NULL;
    hp_auto(hp_job) *job = NULL;
    hp_code r = hp_tx_begin(db, &tx, reterr);

    if (r == HP_OK)
        r = hp_job_load(db, id, &job, reterr);
    if (r == HP_OK && (job->state != HP_JOB_RUNNING || job->run != run))
        return hp_fail(reterr, HP_E_STATE,
                       "run %d of job %" PRId64 " is not the running one", run, id);
    if (r == HP_OK)
        r = end_run(db, id, run, "died", reason_code, reason, reterr);
    if (r == HP_OK && blame) {
        job->deaths++;
        r = hp_db__run(db, reterr, "UPDATE job SET deaths = ? WHERE id = ?", "ii",
                       (int64_t)job->deaths, id);
    }
    if (r == HP_OK)
        r = hp_job_move(db, job, job->deaths >= MAX_DEATHS ? HP_JOB_FAILED : HP_JOB_READY,
                        reason_code, reason, reterr);
    if (r == HP_OK)
        r = hp_tx_commit(tx, reterr);
    return r == HP_OK ? HP_OK : hp_wrap(reterr, r, "recording a death");
}

hp_code hp_job_recover(hp_db *db, int *ret_count, hp_error *reterr)
{
    hp_auto(hp_tx) *tx = NULL;
    int64_t mono = hp_db_mono_ms(db), id = 0;
    int count = 0;
    hp_code r = hp_tx_begin(db, &tx, reterr);

    while (r == HP_OK) {
        hp_auto(hp_job) *job = NULL;

        r = hp_db__number(db, 0, &id, reterr,
                          "SELECT id FROM job WHERE state = 'running' LIMIT 1", "");
        if (r != HP_OK || id == 0)
            break;
        r = hp_job_load(db, id, &job, reterr);
        if (r == HP_OK) /* the daemon's end is not the study's fault */
            r = hp_job_died(db, id, job->run, false, "daemon_restart",
                            "the daemon ended during the run", reterr);
        count++;
    }
    /* Monotonic times are of the last life: the waiting begins anew. */
    if (r == HP_OK)
        r = hp_db__run(
            db, reterr,
            "UPDATE job SET first_mono = ?, last_mono = ?, looking = 0, "
            "looked = 0, look = look + 1 WHERE state IN ('receiving', 'ready')",
            "ii", mono, mono);
    if (r == HP_OK)
        r = hp_tx_commit(tx, reterr);
    if (r != HP_OK)
        return hp_wrap(reterr, r, "recovering jobs");
    *ret_count = count;
    return HP_OK;
}

/* ---- what an admin may ask ---- */

hp_code hp_job_retry(hp_db *db, const char *id, hp_job **ret, hp_error *reterr)
{
    hp_auto(hp_tx) *tx = NULL;
    hp_auto(hp_job) *job = NULL;
    hp_code r = hp_tx_begin(db, &tx, reterr);

    if (r == HP_OK)
        r = hp_job_find(db, id, &job, reterr);
    if (r == HP_OK && !(job->state == HP_JOB_FAILED || job->state == HP_JOB_UNSUITABLE ||
                        job->state == HP_JOB_CANCELLED))
        return hp_fail(reterr, HP_E_STATE,
                       "job %" PRId64
                       " is %s; only failed, unsuitable and cancelled jobs "
                       "can be tried again",
                       job->id, hp_job_state_name(job->state));
    if (r == HP_OK)
        r = hp_db__run(db, reterr,
                       "UPDATE job SET deaths = 0, decision = 'asked for by an admin' "
                       "WHERE id = ?",
                       "i", job->id);
    if (r == HP_OK)
        r = hp_job_move(db, job, HP_JOB_READY, "retry", "asked for by an admin", reterr);
    if (r == HP_OK)
        r = hp_tx_commit(tx, reterr);
    if (r != HP_OK)
        return r;
    *ret = hp_steal(&job);
    return HP_OK;
}

hp_code hp_job_cancel(hp_db *db, const char *id, hp_job **ret, bool *ret_was_running,
                      hp_error *reterr)
{
    hp_auto(hp_tx) *tx = NULL;
    hp_auto(hp_job) *job = NULL;
    bool running;
    hp_code r = hp_tx_begin(db, &tx, reterr);

    if (r == HP_OK)
        r = hp_job_find(db, id, &job, reterr);
    if (r == HP_OK && hp_job_state_final(job->state))
        return hp_fail(reterr, HP_E_STATE, "job %" PRId64 " is %s already", job->id,
                       hp_job_state_name(job->state));
    running = r == HP_OK && job->state == HP_JOB_RUNNING;
    if (running)
        r = end_run(db, job->id, job->run, "cancelled", "cancelled",
                    "cancelled by an admin", reterr);
    if (r == HP_OK)
        r = hp_job_move(db, job, HP_JOB_CANCELLED, "cancelled", "cancelled by an admin",
                        reterr);
    if (r == HP_OK && job->result_set != 0)
        r = hp_outbox__drop_unwanted(db, job->result_set, reterr);
    if (r == HP_OK)
        r = hp_tx_commit(tx, reterr);
    if (r != HP_OK)
        return r;
    *ret = hp_steal(&job);
    *ret_was_running = running;
    return HP_OK;
}
