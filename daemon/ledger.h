/* The ledger thread: the one writer.
 *
 * Blocking work (look-ups, commits) happens here, beside the loop, and comes
 * back as a callback on the loop thread. The thread takes everything that waits
 * when it wakes: slices that are whole at that moment share one commit. A group
 * is what is waiting; nobody waits for a group to fill.
 *
 * All functions: loop thread only. All callbacks: loop thread.
 */
#ifndef HP_DAEMON_LEDGER_H
#define HP_DAEMON_LEDGER_H

#include <uv.h>

#include "config/config.h"
#include "db/job.h"
#include "db/study.h"
#include "dicom/spool.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_ledger hp_ledger;

/* Takes over an open ledger (owned from here on, also on failure) and starts
 * the thread. `config` must outlive it. */
hp_code hp_ledger_open_take(uv_loop_t *loop, const hp_config *config, hp_db *db,
                            hp_ledger **ret, hp_error *reterr);
/* Finishes what waits, stops the thread, closes the ledger. Callbacks of
 * finished work still run, here. The loop must not be closed before. */
void hp_ledger_close(hp_ledger *l);

/* A slice is whole and durable in its file, which is the ledger's from here on.
 * The descriptor `s` is copied. Callback's `code` HP_OK: it has its row, or is
 * rightly not kept, answer 0000; the disposition says which. Otherwise its file
 * is gone: HP_E_NO_SPACE is A700, anything else 0110. */
void hp_ledger_store(hp_ledger *l, const hp_stored *s, hp_stored_cb cb, void *payload);

/* Runs fn(db, arg) on the thread, then done(code, error, arg) on the loop. */
typedef hp_code (*hp_ledger_fn)(hp_db *db, void *arg, hp_error *reterr);
typedef void (*hp_ledger_done_cb)(hp_code code, const hp_error *error, void *arg);
void hp_ledger_call(hp_ledger *l, hp_ledger_fn fn, hp_ledger_done_cb done, void *arg);

/* An association begins (+1) or ends (-1) to carry a study: readiness waits
 * for it, inside max_wait_s. Count each pair of association and study once. */
void hp_ledger_association(hp_ledger *l, const char *study_uid, int change);
/* The studies that open associations carry, copied: what a call on the thread
 * may look at. Yours to free(); *ret_count may be 0. NULL: none, or no memory
 * (then nothing is held back). */
hp_uid *hp_ledger_open_studies(const hp_ledger *l, size_t *ret_count);
/* Something was refused at the door: an event, without an answer. Only so many a
 * minute are kept, for a peer must not fill the ledger; the log has them all. */
void hp_ledger_refused(hp_ledger *l, const char *study_uid, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Called on the loop after a group with at least one new CT instance: the
 * scheduler's bell. */
void hp_ledger_on_news(hp_ledger *l, void (*news)(void *payload), void *payload);

#ifdef __cplusplus
}
#endif
#endif
