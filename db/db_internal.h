/* Inside the ledger room: statements, rows, and the one translator from
 * SQLite's result codes to ours. */
#ifndef HP_DB_DB_INTERNAL_H
#define HP_DB_DB_INTERNAL_H

#include <sqlite3.h>

#include "base/json.h"
#include "db/db.h"
#include "db/event.h"
#include "db/job.h"
#include "db/outbox.h"
#include "db/study.h"

enum { HP_DB_MAX_STATEMENTS = 160 };

struct hp_db {
    sqlite3 *sql;
    hp_db_clock clock;
    struct {
        const char *text; /* a literal: compared by address */
        sqlite3_stmt *stmt;
    } cache[HP_DB_MAX_STATEMENTS];
    int cached;
    int tx_depth;
    bool tx_unsynced; /* the open one: synchronous is NORMAL until its end */
    bool tx_doomed;   /* an inner transaction was rolled back */
};

extern const char *const hp_db__migrations[];
extern const int hp_db__migration_count;

/* Rows of a running statement; the statement is reset at scope end. */
typedef sqlite3_stmt hp_rows;
static inline void hp_rows_end(hp_rows *rows)
{
    if (rows != NULL) {
        sqlite3_reset(rows);
        sqlite3_clear_bindings(rows);
    }
}
HP_AUTO_DEFINE(hp_rows, hp_rows_end)

/* "reading the ledger: disk I/O error": SQLite's words hold no row content. */
hp_code hp_db__fail(hp_db *db, int rc, const char *what, hp_error *reterr);

/* Binds by `types`, one letter a parameter: i int64_t, t const char * (NULL:
 * NULL), b const void * and int. Text is copied. `sql` must be a literal. */
hp_code hp_db__query(hp_db *db, hp_rows **ret, hp_error *reterr, const char *sql,
                     const char *types, ...);
/* The same, and already on its first row; HP_E_EMPTY: there is none. */
hp_code hp_db__row(hp_db *db, hp_rows **ret, hp_error *reterr, const char *sql,
                   const char *types, ...);
/* HP_OK: a row is there; HP_E_EMPTY: no more. */
hp_code hp_db__next(hp_db *db, hp_rows *rows, hp_error *reterr);
/* Runs a statement without rows. */
hp_code hp_db__run(hp_db *db, hp_error *reterr, const char *sql, const char *types, ...);
/* One number, or `fallback` when there is no row. */
hp_code hp_db__number(hp_db *db, int64_t fallback, int64_t *ret, hp_error *reterr,
                      const char *sql, const char *types, ...);
int64_t hp_db__last_id(hp_db *db);
int64_t hp_db__changes(hp_db *db);

static inline int64_t hp_rows_i(hp_rows *rows, int col)
{
    return sqlite3_column_int64(rows, col);
}
/* Never NULL; valid until the next step. */
const char *hp_rows_t(hp_rows *rows, int col);
void hp_rows_copy(hp_rows *rows, int col, char *ret, size_t size);

/* Shared across the room. */
/* Reported jobs whose objects have all been answered for: sent, or failed. */
hp_code hp_job__settle(hp_db *db, int64_t result_set, hp_error *reterr);
/* The waiting job of a study's coming revision, opened or reopened (db/job.c). */
hp_code hp_job__receiving(hp_db *db, int64_t study, int *ret_revision, hp_error *reterr);
/* Everything of the study that is not final yet fails: two patients, a lost file. */
hp_code hp_job__fail_open(hp_db *db, int64_t study, const char *reason_code,
                          const char *reason, hp_error *reterr);
/* Queues what a job's result set owes each peer. */
hp_code hp_outbox__queue(hp_db *db, int64_t job, int64_t result_set,
                         const char *const *peers, int peer_count, hp_error *reterr);

/* What no job of this set stands for any more is not waited for. */
hp_code hp_outbox__drop_unwanted(hp_db *db, int64_t result_set, hp_error *reterr);

#endif
