/* Deliveries: who is owed what, and how long a peer is left alone.
 *
 * DESIGN A peer that cannot be reached has one back-off for its whole queue;
 * an object that was answered "not now" has its own small wait. Due times are
 * wall-clock because they must survive a restart; a due time further ahead
 * than any wait of ours means that the clock jumped back, and counts as due.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/crash.h"
#include "db/db_internal.h"

enum {
    MAX_DEATHS = 2,
    LONGEST_WAIT_MS = 2 * 3600 * 1000, /* beyond any back-off a config may set */
    ITEM_WAIT_MS = 30 * 1000           /* per earlier "not now" of this object */
};

hp_code hp_outbox__queue(hp_db *db, int64_t job, int64_t result_set,
                         const char *const *peers, int peer_count, hp_error *reterr)
{
    hp_code r = HP_OK;

    for (int i = 0; r == HP_OK && i < peer_count; i++)
        r = hp_db__run(
            db, reterr,
            "INSERT INTO delivery(result, peer, job, state, queued_ms) "
            "SELECT id, ?, ?, 'queued', ? FROM result WHERE result_set = ? ORDER BY id "
            "ON CONFLICT(result, peer) DO UPDATE SET job = excluded.job, "
            /* what a peer has accepted it has; all else is tried again */
            "deaths = CASE state WHEN 'accepted' THEN deaths ELSE 0 END, "
            "next_ms = 0, "
            "state = CASE state WHEN 'accepted' THEN 'accepted' ELSE 'queued' END",
            "tiii", peers[i], job, hp_db_wall_ms(db), result_set);
    return r;
}

static hp_code peer_due(hp_db *db, const char *peer, int64_t now, int64_t *ret_next,
                        hp_error *reterr)
{
    hp_code r = hp_db__number(db, 0, ret_next, reterr,
                              "SELECT next_ms FROM peer WHERE name = ?", "t", peer);

    if (r == HP_OK && *ret_next > now + LONGEST_WAIT_MS)
        *ret_next = 0;
    return r;
}

/* The objects belong to a job that stands, or to one whose other peer refused:
 * the rest of it still goes out. */
#define LIVE                                                                             \
    "EXISTS (SELECT 1 FROM job WHERE job.result_set = result.result_set AND "            \
    "(job.state IN ('reported', 'sent', 'unsuitable') OR "                               \
    "(job.state = 'failed' AND job.reason_code = 'result_refused')))"

static hp_code load_due(hp_db *db, const char *peer, int64_t now,
                        hp_delivery ret[HP_OUTBOX_GROUP], int *ret_count,
                        hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    int n = 0;
    hp_code r = hp_db__query(
        db, &rows, reterr,
        "SELECT delivery.id, delivery.job, folder || '/' || file, sop_class, "
        "sop_instance, required FROM delivery "
        "JOIN result ON result.id = delivery.result "
        "JOIN result_set ON result_set.id = result.result_set "
        "WHERE peer = ? AND delivery.state = 'queued' AND " LIVE
        " AND (next_ms <= ? OR next_ms > ?) ORDER BY delivery.job, delivery.id LIMIT ?",
        "tiii", peer, now, now + LONGEST_WAIT_MS, (int64_t)HP_OUTBOX_GROUP);

    while (r == HP_OK && n < HP_OUTBOX_GROUP) {
        r = hp_db__next(db, rows, reterr);
        if (r != HP_OK)
            break;
        ret[n].id = hp_rows_i(rows, 0);
        ret[n].job = hp_rows_i(rows, 1);
        hp_rows_copy(rows, 2, ret[n].path, sizeof ret[n].path);
        hp_rows_copy(rows, 3, ret[n].sop_class.text, sizeof ret[n].sop_class.text);
        hp_rows_copy(rows, 4, ret[n].sop_instance.text, sizeof ret[n].sop_instance.text);
        ret[n].required = hp_rows_i(rows, 5) != 0;
        n++;
    }
    *ret_count = n;
    return r == HP_E_EMPTY ? HP_OK : r;
}

static hp_code next_due(hp_db *db, const char *peer, int64_t *ret, hp_error *reterr)
{
    return hp_db__number(db, INT64_MAX, ret, reterr,
                         "SELECT next_ms FROM delivery JOIN result ON result.id = "
                         "delivery.result WHERE peer = ? AND delivery.state = 'queued' "
                         "AND " LIVE " ORDER BY next_ms LIMIT 1",
                         "t", peer);
}

hp_code hp_outbox_claim(hp_db *db, const char *peer, hp_delivery ret[HP_OUTBOX_GROUP],
                        int *ret_count, int64_t *ret_again_ms, hp_error *reterr)
{
    hp_auto(hp_tx) *tx = NULL;
    int64_t now = hp_db_wall_ms(db), peer_next = 0, next = INT64_MAX;
    int n = 0;
    hp_code r = peer_due(db, peer, now, &peer_next, reterr);

    if (r == HP_OK && peer_next <= now)
        r = load_due(db, peer, now, ret, &n, reterr);
    if (r == HP_OK && n == 0) {
        r = next_due(db, peer, &next, reterr);
        if (next != INT64_MAX && next < peer_next)
            next = peer_next;
    }
    if (r == HP_OK && n > 0)
        r = hp_tx_begin(db, &tx, reterr);
    for (int i = 0; r == HP_OK && i < n; i++)
        r = hp_db__run(db, reterr,
                       "UPDATE delivery SET state = 'sent', attempts = attempts + 1 "
                       "WHERE id = ?",
                       "i", ret[i].id);
    if (r == HP_OK && n > 0)
        r = hp_tx_commit(tx, reterr);
    if (n > 0)
        hp_crash_point("outbox_claimed");
    if (r != HP_OK)
        return hp_wrap(reterr, r, "taking deliveries");
    *ret_count = n;
    *ret_again_ms = next;
    return HP_OK;
}

static hp_code note_refusal(hp_db *db, int64_t delivery, unsigned status,
                            const char *words, hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    int64_t job, study;
    char peer[32], kind[24];
    hp_code r = hp_db__row(db, &rows, reterr,
                           "SELECT job.id, job.study, peer, kind FROM delivery "
                           "JOIN job ON job.id = delivery.job "
                           "JOIN result ON result.id = delivery.result "
                           "WHERE delivery.id = ?",
                           "i", delivery);

    if (r != HP_OK)
        return r;
    job = hp_rows_i(rows, 0);
    study = hp_rows_i(rows, 1);
    hp_rows_copy(rows, 2, peer, sizeof peer);
    hp_rows_copy(rows, 3, kind, sizeof kind);
    return hp_event_add(db, study, job, "refused", reterr,
                        "peer %s refused the %s for good, status %04XH: %s", peer, kind,
                        status, words ? words : "");
}

static hp_code set_answer(hp_db *db, int64_t delivery, const char *state, int64_t next_ms,
                          unsigned status, const char *words, hp_error *reterr)
{
    return hp_db__run(
        db, reterr,
        "UPDATE delivery SET state = ?, next_ms = ?, status = ?, words = ?, "
        "answered_ms = ?, deaths = 0 WHERE id = ? AND state = 'sent'",
        "tiitii", state, next_ms, (int64_t)status, words ? words : "", hp_db_wall_ms(db),
        delivery);
}

static hp_code set_of(hp_db *db, int64_t delivery, int64_t *ret_set,
                      int64_t *ret_attempts, hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    hp_code r = hp_db__row(db, &rows, reterr,
                           "SELECT result_set, attempts FROM delivery JOIN result ON "
                           "result.id = delivery.result WHERE delivery.id = ?",
                           "i", delivery);

    if (r == HP_E_EMPTY)
        return hp_fail(reterr, HP_E_NOT_FOUND, "no delivery %" PRId64, delivery);
    if (r == HP_OK) {
        *ret_set = hp_rows_i(rows, 0);
        *ret_attempts = hp_rows_i(rows, 1);
    }
    return r;
}

hp_code hp_outbox_answer(hp_db *db, int64_t delivery, hp_code code, unsigned status,
                         const char *words, hp_error *reterr)
{
    hp_auto(hp_tx) *tx = NULL;
    int64_t set, attempts, wait;
    bool refused = code != HP_OK && !hp_code_may_retry(code);
    hp_code r = hp_tx_begin(db, &tx, reterr);

    if (r == HP_OK)
        r = set_of(db, delivery, &set, &attempts, reterr);
    if (r != HP_OK)
        return hp_wrap(reterr, r, "recording an answer");
    /* An item that was answered "not now" waits a little longer each time;
     * one that never got an answer waits with its peer. */
    wait = attempts < 60 ? attempts * ITEM_WAIT_MS : 60 * ITEM_WAIT_MS;
    r = set_answer(
        db, delivery,
        code == HP_OK ? "accepted"
        : refused     ? "refused"
                      : "queued",
        code == HP_OK || refused || status == 0xFFFF ? 0 : hp_db_wall_ms(db) + wait,
        status, words, reterr);
    if (r == HP_OK && refused)
        r = note_refusal(db, delivery, status, words, reterr);
    if (r == HP_OK)
        r = hp_job__settle(db, set, reterr);
    hp_crash_point("outbox_answer");
    if (r == HP_OK)
        r = hp_tx_commit(tx, reterr);
    return r == HP_OK ? HP_OK : hp_wrap(reterr, r, "recording an answer");
}

typedef struct tally {
    int64_t waiting, refused, peers; /* refused: required ones */
} tally;

static hp_code count_set(hp_db *db, int64_t set, tally *ret, hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    hp_code r = hp_db__row(
        db, &rows, reterr,
        "SELECT count(*) FILTER (WHERE state IN ('queued', 'sent')), "
        "count(*) FILTER (WHERE state = 'refused' AND required), count(DISTINCT peer) "
        "FROM delivery JOIN result ON result.id = delivery.result WHERE result_set = ?",
        "i", set);

    if (r == HP_OK)
        *ret = (tally){hp_rows_i(rows, 0), hp_rows_i(rows, 1), hp_rows_i(rows, 2)};
    return r;
}

static hp_code settle_job(hp_db *db, int64_t id, const tally *t, hp_error *reterr)
{
    hp_auto(hp_job) *job = NULL;
    hp_code r = hp_job_load(db, id, &job, reterr);

    if (r != HP_OK)
        return r;
    if (t->refused > 0)
        return hp_job_move(db, job, HP_JOB_FAILED, "result_refused",
                           "a peer refused a required result for good", reterr);
    return hp_job_move(db, job, HP_JOB_SENT, t->peers ? NULL : "no_peer",
                       t->peers ? NULL : "no peer takes results; they stay in the outbox",
                       reterr);
}

hp_code hp_job__settle(hp_db *db, int64_t result_set, hp_error *reterr)
{
    tally t = {0};
    hp_code r = count_set(db, result_set, &t, reterr);

    while (r == HP_OK && (t.refused > 0 || t.waiting == 0)) {
        int64_t job;

        r = hp_db__number(
            db, 0, &job, reterr,
            "SELECT id FROM job WHERE result_set = ? AND state = 'reported' "
            "LIMIT 1",
            "i", result_set);
        if (r != HP_OK || job == 0)
            break;
        r = settle_job(db, job, &t, reterr);
    }
    return r;
}

hp_code hp_outbox_peer(hp_db *db, const char *peer, bool reached, const hp_backoff *b,
                       const char *words, hp_error *reterr)
{
    int64_t now = hp_db_wall_ms(db), failures, wait = b->min_ms;
    hp_code r;

    if (reached)
        return hp_db__run(db, reterr,
                          "INSERT INTO peer(name, last_ok_ms) VALUES (?, ?) ON "
                          "CONFLICT(name) DO UPDATE SET failures = 0, next_ms = 0, "
                          "last_ok_ms = excluded.last_ok_ms, words = ''",
                          "ti", peer, now);
    r = hp_db__number(db, 0, &failures, reterr,
                      "SELECT failures FROM peer WHERE name = ?", "t", peer);
    if (r != HP_OK)
        return r;
    for (int64_t i = 0; i < failures && wait < b->max_ms; i++)
        wait *= 2;
    if (wait > b->max_ms)
        wait = b->max_ms;
    return hp_db__run(
        db, reterr,
        "INSERT INTO peer(name, failures, next_ms, words) VALUES (?, 1, ?, ?) "
        "ON CONFLICT(name) DO UPDATE SET failures = failures + 1, "
        "next_ms = excluded.next_ms, words = excluded.words",
        "tit", peer, now + wait, words ? words : "");
}

hp_code hp_outbox_died(hp_db *db, int64_t delivery, hp_error *reterr)
{
    hp_auto(hp_tx) *tx = NULL;
    int64_t set, attempts, deaths;
    hp_code r = hp_tx_begin(db, &tx, reterr);

    if (r == HP_OK)
        r = set_of(db, delivery, &set, &attempts, reterr);
    if (r == HP_OK)
        r = hp_db__number(db, 0, &deaths, reterr,
                          "UPDATE delivery SET deaths = deaths + 1 WHERE id = ? "
                          "RETURNING deaths",
                          "i", delivery);
    if (r == HP_OK)
        r = hp_db__run(db, reterr,
                       "UPDATE delivery SET state = ?, words = 'the sender died' "
                       "WHERE id = ? AND state = 'sent'",
                       "ti", deaths >= MAX_DEATHS ? "refused" : "queued", delivery);
    if (r == HP_OK && deaths >= MAX_DEATHS)
        r = note_refusal(db, delivery, 0xFFFF, "set aside, the sender died twice on it",
                         reterr);
    if (r == HP_OK)
        r = hp_job__settle(db, set, reterr);
    if (r == HP_OK)
        r = hp_tx_commit(tx, reterr);
    return r == HP_OK ? HP_OK : hp_wrap(reterr, r, "recording a sender's death");
}

hp_code hp_outbox_recover(hp_db *db, int *ret_count, hp_error *reterr)
{
    hp_code r = hp_db__run(
        db, reterr, "UPDATE delivery SET state = 'queued' WHERE state = 'sent'", "");

    if (r == HP_OK)
        *ret_count = (int)hp_db__changes(db);
    return r;
}

hp_code hp_outbox_requeue(hp_db *db, const char *peer, hp_error *reterr)
{
    return hp_db__run(db, reterr,
                      "UPDATE delivery SET state = 'queued' WHERE state = 'sent' AND "
                      "peer = ?",
                      "t", peer);
}

hp_code hp_outbox__drop_unwanted(hp_db *db, int64_t result_set, hp_error *reterr)
{
    return hp_db__run(
        db, reterr,
        "DELETE FROM delivery WHERE state = 'queued' AND result IN (SELECT id "
        "FROM result WHERE result_set = ? AND NOT " LIVE ")",
        "i", result_set);
}

hp_code hp_outbox_counts(hp_db *db, int64_t job, int *ret_accepted, int *ret_owed,
                         hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    hp_code r = hp_db__row(db, &rows, reterr,
                           "SELECT count(*), count(*) FILTER (WHERE delivery.state = "
                           "'accepted') FROM job JOIN result ON result.result_set = "
                           "job.result_set JOIN delivery ON delivery.result = result.id "
                           "WHERE job.id = ?",
                           "i", job);

    if (r == HP_OK) {
        *ret_owed = (int)hp_rows_i(rows, 0);
        *ret_accepted = (int)hp_rows_i(rows, 1);
    }
    return r;
}

static bool is_among(const char *name, const char *const *peers, int peer_count)
{
    for (int i = 0; i < peer_count; i++)
        if (strcmp(name, peers[i]) == 0)
            return true;
    return false;
}

/* One set of objects that waits for a peer that is not in the list: 0 when there
 * is none. */
static hp_code find_orphan(hp_db *db, const char *const *peers, int peer_count,
                           int64_t *ret_set, char ret_peer[32], hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    hp_code r =
        hp_db__query(db, &rows, reterr,
                     "SELECT DISTINCT result_set, peer FROM delivery JOIN result ON "
                     "result.id = delivery.result WHERE state IN ('queued', 'sent')",
                     "");

    *ret_set = 0;
    while (r == HP_OK && (r = hp_db__next(db, rows, reterr)) == HP_OK) {
        if (is_among(hp_rows_t(rows, 1), peers, peer_count))
            continue;
        *ret_set = hp_rows_i(rows, 0);
        hp_rows_copy(rows, 1, ret_peer, 32);
        return HP_OK;
    }
    return r == HP_E_EMPTY ? HP_OK : r;
}

static hp_code drop_orphan(hp_db *db, int64_t set, const char *peer, hp_error *reterr)
{
    int64_t study;
    hp_code r = hp_db__run(db, reterr,
                           "DELETE FROM delivery WHERE peer = ? AND state IN ('queued', "
                           "'sent') AND result IN (SELECT id FROM result WHERE "
                           "result_set = ?)",
                           "ti", peer, set);

    if (r == HP_OK)
        r = hp_db__number(db, 0, &study, reterr,
                          "SELECT study FROM result_set WHERE id = ?", "i", set);
    if (r == HP_OK)
        r = hp_event_add(db, study, 0, "peer_gone", reterr,
                         "peer %s is no longer configured; what waited for it is dropped",
                         peer);
    if (r == HP_OK)
        r = hp_job__settle(db, set, reterr);
    return r;
}

hp_code hp_outbox_retire(hp_db *db, const char *const *peers, int peer_count,
                         int *ret_count, hp_error *reterr)
{
    hp_auto(hp_tx) *tx = NULL;
    int64_t set = 0;
    char peer[32];
    int count = 0;
    hp_code r = hp_tx_begin(db, &tx, reterr);

    while (r == HP_OK) {
        r = find_orphan(db, peers, peer_count, &set, peer, reterr);
        if (r != HP_OK || set == 0)
            break;
        r = drop_orphan(db, set, peer, reterr);
        count++;
    }
    if (r == HP_OK)
        r = hp_tx_commit(tx, reterr);
    if (r != HP_OK)
        return hp_wrap(reterr, r, "dropping deliveries of peers that are gone");
    *ret_count = count;
    return HP_OK;
}

hp_code hp_outbox_folder_known(hp_db *db, const char *folder, hp_error *reterr)
{
    int64_t known;
    hp_code r = hp_db__number(db, 0, &known, reterr,
                              "SELECT 1 FROM result_set WHERE folder = ?", "t", folder);

    if (r == HP_OK && !known)
        return hp_fail(reterr, HP_E_NOT_FOUND, "outbox/%s is not in the ledger", folder);
    return r;
}
