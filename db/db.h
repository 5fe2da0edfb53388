/* The ledger: what is true about studies, jobs, results and deliveries.
 *
 * One hp_db is one connection, used by one thread at a time. hepard's ledger
 * thread owns the only writable one; heparctl opens it read-only, also while
 * the daemon is down. Nothing in db/'s headers says how it is stored.
 *
 * Time: rows that people read carry wall-clock milliseconds; the two times of
 * the readiness rule are monotonic and forgotten at every start, so a clock
 * that jumps can neither start a job early nor hold one back for ever.
 */
#ifndef HP_DB_DB_H
#define HP_DB_DB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_db hp_db;
typedef struct hp_tx hp_tx;

/* A clock that tests turn by hand. */
typedef struct hp_db_clock {
    int64_t (*wall_ms)(void *payload);
    int64_t (*mono_ms)(void *payload);
    void *payload;
} hp_db_clock;

/* Creates or migrates the ledger at `path` and checks its integrity.
 * HP_E_CORRUPT: damaged, nothing was changed. HP_E_UNSUPPORTED: written by a
 * newer hepar. clock NULL: the real one. */
hp_code hp_db_open(const char *path, const hp_db_clock *clock, hp_db **ret,
                   hp_error *reterr);
/* For reading only: works beside a running daemon and after it has gone.
 * HP_E_NOT_FOUND: there is no ledger; HP_E_UNSUPPORTED: another version's. */
hp_code hp_db_open_reader(const char *path, hp_db **ret, hp_error *reterr);
void hp_db_close(hp_db *db);
HP_AUTO_DEFINE(hp_db, hp_db_close)

int64_t hp_db_wall_ms(const hp_db *db);
int64_t hp_db_mono_ms(const hp_db *db);

/* Rolls back unless committed. Transactions do not nest: a second begin while
 * one is open joins it, and only the outermost commit writes. */
hp_code hp_tx_begin(hp_db *db, hp_tx **ret, hp_error *reterr);
/* The same, but its commit does not wait for the disk: a power cut may take it
 * back, and every such one after it, as if they had not been. The next synced
 * commit makes all before it durable. For rows that can be made again. */
hp_code hp_tx_begin_unsynced(hp_db *db, hp_tx **ret, hp_error *reterr);
hp_code hp_tx_commit(hp_tx *tx, hp_error *reterr);
void hp_tx_free(hp_tx *tx);
HP_AUTO_DEFINE(hp_tx, hp_tx_free)

/* A stable random name of this installation, made with the ledger (64 hex
 * digits): result UIDs are derived from it. */
hp_code hp_db_installation_id(hp_db *db, char ret[65], hp_error *reterr);

/* Moves what the write-ahead log holds into the ledger file without waiting
 * for readers; does nothing below `min_bytes`. Ledger thread, when idle. */
hp_code hp_db_checkpoint(hp_db *db, int64_t min_bytes, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
