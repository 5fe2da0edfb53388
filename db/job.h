/* Jobs: one (study, revision) on its way from slices to a sent report.
 *
 *                    late images, not claimed yet
 *                  ┌──────────────┐
 *                  ▼              │
 *   first CT ─▶ receiving ──▶ ready ──▶ running ──▶ reported ──▶ sent
 *                  │            ▲ ▲       │ │            │
 *                  │      retry │ └───────┘ │            │
 *                  │            │ its worker│            │
 *                  │            │ died once │            │
 *                  ▼            │           ▼            ▼
 *              cancelled ───────┤      unsuitable      failed
 *              failed    ───────┘           └── retry ───┘
 *
 *   unsuitable  not a multi-phase liver CT we can read; reason_code says why
 *   failed      two deaths of its worker, two patients in one study, a file
 *               lost, or a required result refused for good by a peer
 *   cancelled   by an admin; from any state that is not final
 *
 * Promises the rest of the code may rely on:
 *
 * 1. A slice is written into a file whose name is durable already, marked whole and
 *    synced; then its row is committed; only then do we answer Success (slices in
 *    flight share one commit). The row itself is not synced: the file can make it
 *    again. So: Success on the wire means the slice survives a power cut.
 * 2. Files hold pixels, the ledger holds truth. At start, a whole file without a
 *    row gets one, any other is litter; a row without its file is a fault.
 * 3. One rule, hp_study_ready(), says when a study is ready. Nobody else guesses.
 * 4. A job is claimed inside one transaction and each claim is a new run. A job
 *    found running at start-up goes back to ready. What an older run says is
 *    dropped.
 * 5. A report is built whole in the outbox, then queued in the ledger, then
 *    sent. Sending twice is harmless because the SOP Instance UIDs were fixed
 *    when the report was built: same study, same input digest, same bundle, same
 *    objects - those are found again, and what a later run built is dropped.
 *
 * The allowed moves are one table in job.c, and hp_job_move() is the only way.
 */
#ifndef HP_DB_JOB_H
#define HP_DB_JOB_H

#include "base/json.h"
#include "base/uid.h"
#include "db/study.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum hp_job_state {
    HP_JOB_RECEIVING,
    HP_JOB_READY,
    HP_JOB_RUNNING,
    HP_JOB_REPORTED,
    HP_JOB_SENT,
    HP_JOB_UNSUITABLE,
    HP_JOB_FAILED,
    HP_JOB_CANCELLED,
    HP_JOB_STATES
} hp_job_state;

const char *hp_job_state_name(hp_job_state s); /* "receiving" ... */
bool hp_job_state_parse(const char *name, hp_job_state *ret);
bool hp_job_state_final(hp_job_state s); /* sent, unsuitable, failed, cancelled */
bool hp_job_may_move(hp_job_state from, hp_job_state to);

typedef struct hp_job {
    int64_t id, study_id;
    hp_uid study_uid;
    int revision;
    hp_job_state state;
    int run;    /* number of the newest run, 0: never claimed */
    int deaths; /* workers that died on it since it was last made ready by hand */
    /* Wall clock, for the report's times: frozen at the first claim, 0 before. */
    int64_t created_ms;
    int64_t result_set; /* 0: none */
    char reason_code[32], reason[200];
} hp_job;

void hp_job_free(hp_job *job);
HP_AUTO_DEFINE(hp_job, hp_job_free)

hp_code hp_job_load(hp_db *db, int64_t id, hp_job **ret, hp_error *reterr);
/* The newest revision's job of a study. */
hp_code hp_job_of_study(hp_db *db, const char *study_uid, hp_job **ret, hp_error *reterr);
/* By job number, or Study Instance UID (newest revision). */
hp_code hp_job_find(hp_db *db, const char *id, hp_job **ret, hp_error *reterr);

/* Moves a job: HP_E_STATE when the table does not allow it or the ledger has
 * another state than `job` believes. Records the event; job->state follows.
 * The reason replaces the job's (NULL: cleared). */
hp_code hp_job_move(hp_db *db, hp_job *job, hp_job_state to, const char *reason_code,
                    const char *reason, hp_error *reterr);

/* Claims the oldest ready job whose study has none running: ready -> running,
 * with a new run number. HP_E_EMPTY: none. A study of two patients is moved to
 * failed here and never claimed. */
hp_code hp_job_claim(hp_db *db, hp_job **ret_job, hp_error *reterr);

/* The newest report of an earlier revision that was built: {"series", "sop_class",
 * "sop_instance"}, what a new report says it supersedes; JSON null: none. */
hp_code hp_job_predecessor(hp_db *db, const hp_job *job, json_t **ret, hp_error *reterr);

/* ---- the waiting studies ---- */

/* One call per receiving job. `open`: does an association carry the study? */
typedef bool (*hp_study_open_fn)(const char *study_uid, void *payload);

typedef struct hp_look {
    int64_t job;
    int look; /* number of the look: an answer to an older one is dropped */
} hp_look;

/* Moves every receiving job that the rule calls ready; says when to ask again
 * (monotonic; INT64_MAX: on news only) and names one job that should be looked
 * at (ret_look->job 0: none; ret_look NULL: not now, one is under way). */
hp_code hp_job_advance(hp_db *db, const hp_readiness *rule, hp_study_open_fn open,
                       void *payload, int *ret_moved, hp_look *ret_look,
                       int64_t *ret_again_ms, hp_error *reterr);
/* What a look found. A failed look is phases = 0: the maximum wait decides. */
hp_code hp_job_looked(hp_db *db, hp_look look, unsigned phases, hp_error *reterr);

/* ---- how a run ends ---- */

typedef struct hp_run_object {
    const char *kind; /* "sr" "key_image" "note_sr" "note_page" */
    const char *file; /* name inside the run's folder */
    const char *png;  /* (optional) its picture beside it */
    hp_uid sop_class, sop_instance, series;
    bool required;
} hp_run_object;

typedef struct hp_run_done {
    int64_t job;
    int run;
    const char *outcome; /* hp_outcome_name(), or "failed" */
    const char *reason_code, *reason;
    const char *input_digest, *bundle_sha256; /* hex; "" when it never came so far */
    const json_t *result; /* the findings, as in result.json; NULL: none */
    const hp_run_object *objects;
    int object_count;
    const char *folder;       /* of the objects, inside outbox/: "41/2" */
    const char *const *peers; /* names of the peers that take results */
    int peer_count;
    bool send_unsuitable;
} hp_run_done;

/* Ends a run: keeps the findings, records the objects (or finds those built
 * under the same digest), queues the deliveries and moves the job, in one
 * transaction. HP_E_STATE: an older run's message, dropped. *ret_reused: the
 * objects existed already and `folder` may go. */
hp_code hp_job_done(hp_db *db, const hp_run_done *done, bool *ret_reused,
                    hp_error *reterr);
/* The worker died (or was killed, or is gone with the daemon when
 * `blame` is false): back to ready, or failed at the second death. */
hp_code hp_job_died(hp_db *db, int64_t job, int run, bool blame, const char *reason_code,
                    const char *reason, hp_error *reterr);
/* What was running when the daemon ended: to ready, unblamed. Times of waiting
 * studies begin anew. First thing after opening. */
hp_code hp_job_recover(hp_db *db, int *ret_count, hp_error *reterr);

hp_code hp_job_retry(hp_db *db, const char *id, hp_job **ret, hp_error *reterr);
/* Cancels; *ret_was_running: its worker must be ended too. */
hp_code hp_job_cancel(hp_db *db, const char *id, hp_job **ret, bool *ret_was_running,
                      hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
