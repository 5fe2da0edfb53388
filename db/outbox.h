/* Deliveries: one result object to one peer.
 *
 *   queued    waits for its turn
 *   sent      handed to a sender, no answer yet
 *   accepted  the peer said Success (or a warning, or that it has it: 0111H)
 *   refused   for good; the words say why
 *
 * Back-off is the peer's, not the object's: while a peer cannot be reached all
 * its deliveries wait together, and there is one connection per step. Another
 * peer's queue never notices.
 */
#ifndef HP_DB_OUTBOX_H
#define HP_DB_OUTBOX_H

#include "base/path.h"
#include "db/job.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { HP_OUTBOX_GROUP = 32 };

typedef struct hp_delivery {
    int64_t id, job;
    char path[256]; /* inside outbox/ */
    hp_uid sop_class, sop_instance;
    bool required;
} hp_delivery;

/* Takes up to HP_OUTBOX_GROUP due deliveries of one peer (queued -> sent), the
 * oldest job first. Zero: none due; *ret_again_ms (wall) says when the next is,
 * INT64_MAX when nothing waits. */
hp_code hp_outbox_claim(hp_db *db, const char *peer, hp_delivery ret[HP_OUTBOX_GROUP],
                        int *ret_count, int64_t *ret_again_ms, hp_error *reterr);

typedef struct hp_backoff {
    int64_t min_ms, max_ms;
} hp_backoff;

/* The peer's answer to one delivery. Retryable codes go back to queued. Moves
 * the job to sent when all its deliveries are settled and the required ones
 * accepted, to failed when a required one is refused. */
hp_code hp_outbox_answer(hp_db *db, int64_t delivery, hp_code code, unsigned status,
                         const char *words, hp_error *reterr);
/* After a group: did the peer answer at all? Grows or clears its back-off. */
hp_code hp_outbox_peer(hp_db *db, const char *peer, bool reached, const hp_backoff *b,
                       const char *words, hp_error *reterr);
/* The sender died with this delivery in hand: queued again, refused at the
 * second death. */
hp_code hp_outbox_died(hp_db *db, int64_t delivery, hp_error *reterr);
/* Start-up: sent without an answer is queued again (sending twice is harmless). */
hp_code hp_outbox_recover(hp_db *db, int *ret_count, hp_error *reterr);
/* The same for one peer, while no sender works for it: an answer that could not
 * be recorded must not leave its delivery in the air until the next start. */
hp_code hp_outbox_requeue(hp_db *db, const char *peer, hp_error *reterr);
/* How much of what a job owes its peers has been accepted. */
hp_code hp_outbox_counts(hp_db *db, int64_t job, int *ret_accepted, int *ret_owed,
                         hp_error *reterr);
/* Start-up: what waits for a peer that is no longer configured is dropped, with
 * an event for each job; a job that waited for nothing else is settled. */
hp_code hp_outbox_retire(hp_db *db, const char *const *peers, int peer_count,
                         int *ret_count, hp_error *reterr);
/* Folders inside outbox/ that the ledger knows ("41/2"): HP_E_NOT_FOUND. */
hp_code hp_outbox_folder_known(hp_db *db, const char *folder, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
