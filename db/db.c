/* Opening, migrating and speaking to the ledger file.
 *
 * DESIGN One SQLite file in WAL mode with synchronous=FULL: a commit returns
 * when the write-ahead log is on the disk; an unsynced transaction borrows
 * synchronous=NORMAL for its own commit. Automatic checkpoints are off,
 * because they would run inside a commit that a sender waits for; the ledger
 * thread does passive ones when it is idle. The log and its index are kept on
 * a clean close (PERSIST_WAL): without them nobody can open the ledger
 * read-only while the daemon is down.
 *
 * Statements are prepared once and found again by the address of their text.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/sha256.h"
#include "db/db_internal.h"

enum {
    BUSY_TIMEOUT_MS = 5000,
    /* A full check reads every row and its indices: a second for 64 MiB. Above
     * that only the tree's structure is checked, to be back within seconds. */
    FULL_CHECK_MAX_BYTES = 64 << 20
};

struct hp_tx {
    hp_db *db;
    bool done;
};

static int64_t real_wall_ms(void *payload)
{
    (void)payload;
    return hp_clock_wall_ms();
}

static int64_t real_mono_ms(void *payload)
{
    (void)payload;
    return hp_clock_mono_ms();
}

static hp_code code_of(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return HP_OK;
    case SQLITE_FULL:
        return HP_E_NO_SPACE;
    case SQLITE_NOMEM:
        return HP_E_NO_MEMORY;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return HP_E_CORRUPT;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return HP_E_BUSY;
    case SQLITE_CONSTRAINT:
        return HP_E_EXISTS;
    case SQLITE_MISUSE:
    case SQLITE_ERROR:
    case SQLITE_RANGE:
        return HP_E_INTERNAL;
    default:
        return HP_E_IO;
    }
}

hp_code hp_db__fail(hp_db *db, int rc, const char *what, hp_error *reterr)
{
    int os = db->sql != NULL ? sqlite3_system_errno(db->sql) : 0;
    hp_code code = code_of(rc);

    /* A write that failed for want of room may come as a plain I/O error. */
    if (code == HP_E_IO && (os == ENOSPC || os == EDQUOT))
        code = HP_E_NO_SPACE;
    return hp_fail(reterr, code, "%s: %s", what, sqlite3_errstr(rc));
}

/* ---- statements ---- */

static hp_code prepare(hp_db *db, const char *sql, sqlite3_stmt **ret, hp_error *reterr)
{
    int rc;

    for (int i = 0; i < db->cached; i++) {
        if (db->cache[i].text == sql) {
            *ret = db->cache[i].stmt;
            return HP_OK;
        }
    }
    if (db->cached == HP_DB_MAX_STATEMENTS)
        return hp_fail(reterr, HP_E_INTERNAL, "too many ledger statements");
    rc = sqlite3_prepare_v3(db->sql, sql, -1, SQLITE_PREPARE_PERSISTENT, ret, NULL);
    if (rc != SQLITE_OK)
        return hp_fail(reterr, code_of(rc), "preparing a ledger statement: %s",
                       sqlite3_errmsg(db->sql));
    db->cache[db->cached].text = sql;
    db->cache[db->cached++].stmt = *ret;
    return HP_OK;
}

static int bind_one(sqlite3_stmt *stmt, int at, char type, va_list *args)
{
    if (type == 'i')
        return sqlite3_bind_int64(stmt, at, va_arg(*args, int64_t));
    if (type == 't')
        return sqlite3_bind_text(stmt, at, va_arg(*args, const char *), -1,
                                 SQLITE_TRANSIENT);
    if (type == 'b') {
        const void *data = va_arg(*args, const void *);
        return sqlite3_bind_blob(stmt, at, data, va_arg(*args, int), SQLITE_TRANSIENT);
    }
    return SQLITE_MISUSE;
}

static hp_code start(hp_db *db, const char *sql, const char *types, va_list *args,
                     sqlite3_stmt **ret, hp_error *reterr)
{
    sqlite3_stmt *stmt;
    hp_code r = prepare(db, sql, &stmt, reterr);

    if (r != HP_OK)
        return r;
    for (int i = 0; types[i] != '\0'; i++) {
        int rc = bind_one(stmt, i + 1, types[i], args);
        if (rc != SQLITE_OK) {
            hp_rows_end(stmt);
            return hp_db__fail(db, rc, "binding a ledger statement", reterr);
        }
    }
    *ret = stmt;
    return HP_OK;
}

hp_code hp_db__query(hp_db *db, hp_rows **ret, hp_error *reterr, const char *sql,
                     const char *types, ...)
{
    va_list args;
    hp_code r;

    va_start(args, types);
    r = start(db, sql, types, &args, ret, reterr);
    va_end(args);
    return r;
}

hp_code hp_db__row(hp_db *db, hp_rows **ret, hp_error *reterr, const char *sql,
                   const char *types, ...)
{
    va_list args;
    hp_code r;

    va_start(args, types);
    r = start(db, sql, types, &args, ret, reterr);
    va_end(args);
    return r == HP_OK ? hp_db__next(db, *ret, reterr) : r;
}

hp_code hp_db__next(hp_db *db, hp_rows *rows, hp_error *reterr)
{
    int rc = sqlite3_step(rows);

    if (rc == SQLITE_ROW)
        return HP_OK;
    if (rc == SQLITE_DONE)
        return HP_E_EMPTY;
    return hp_db__fail(db, rc, "reading the ledger", reterr);
}

hp_code hp_db__run(hp_db *db, hp_error *reterr, const char *sql, const char *types, ...)
{
    hp_auto(hp_rows) *stmt = NULL;
    va_list args;
    hp_code r;
    int rc;

    va_start(args, types);
    r = start(db, sql, types, &args, &stmt, reterr);
    va_end(args);
    if (r != HP_OK)
        return r;
    rc = sqlite3_step(stmt);
    if (rc != SQLITE_DONE && rc != SQLITE_ROW)
        return hp_db__fail(db, rc, "writing the ledger", reterr);
    return HP_OK;
}

hp_code hp_db__number(hp_db *db, int64_t fallback, int64_t *ret, hp_error *reterr,
                      const char *sql, const char *types, ...)
{
    hp_auto(hp_rows) *rows = NULL;
    va_list args;
    hp_code r;

    va_start(args, types);
    r = start(db, sql, types, &args, &rows, reterr);
    va_end(args);
    if (r == HP_OK)
        r = hp_db__next(db, rows, reterr);
    if (r == HP_OK)
        *ret = hp_rows_i(rows, 0);
    else if (r == HP_E_EMPTY)
        *ret = fallback;
    return r == HP_E_EMPTY ? HP_OK : r;
}

int64_t hp_db__last_id(hp_db *db)
{
    return sqlite3_last_insert_rowid(db->sql);
}

int64_t hp_db__changes(hp_db *db)
{
    return sqlite3_changes64(db->sql);
}

const char *hp_rows_t(hp_rows *rows, int col)
{
    const char *text = (const char *)sqlite3_column_text(rows, col);
    return text != NULL ? text : "";
}

void hp_rows_copy(hp_rows *rows, int col, char *ret, size_t size)
{
    snprintf(ret, size, "%s", hp_rows_t(rows, col));
}

/* ---- transactions ---- */

/* SQLite obeys while it parses, and only outside transactions: never a prepared
 * statement, and always before BEGIN. */
static hp_code sync_commits(hp_db *db, bool sync, hp_error *reterr)
{
    const char *sql = sync ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL";
    int rc = sqlite3_exec(db->sql, sql, NULL, NULL, NULL);

    if (rc != SQLITE_OK)
        return hp_db__fail(db, rc, "setting how commits are synced", reterr);
    db->tx_unsynced = !sync;
    return HP_OK;
}

static hp_code begin(hp_db *db, bool sync, hp_tx **ret, hp_error *reterr)
{
    hp_tx *tx = calloc(1, sizeof *tx);
    hp_code r = HP_OK;

    if (tx == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "no memory for a transaction");
    tx->db = db;
    if (db->tx_depth == 0) {
        if (db->tx_unsynced == sync)
            r = sync_commits(db, sync, reterr);
        /* IMMEDIATE: the right to write is taken now, not in the middle. */
        if (r == HP_OK)
            r = hp_db__run(db, reterr, "BEGIN IMMEDIATE", "");
        if (r != HP_OK) {
            free(tx);
            return hp_wrap(reterr, r, "beginning a transaction");
        }
        db->tx_doomed = false;
    }
    db->tx_depth++;
    *ret = tx;
    return HP_OK;
}

hp_code hp_tx_begin(hp_db *db, hp_tx **ret, hp_error *reterr)
{
    return begin(db, true, ret, reterr);
}

hp_code hp_tx_begin_unsynced(hp_db *db, hp_tx **ret, hp_error *reterr)
{
    return begin(db, false, ret, reterr);
}

hp_code hp_tx_commit(hp_tx *tx, hp_error *reterr)
{
    hp_db *db = tx->db;
    hp_code r;

    if (db->tx_depth > 1) {
        tx->done = true;
        db->tx_depth--;
        return HP_OK;
    }
    if (db->tx_doomed)
        return hp_fail(reterr, HP_E_INTERNAL, "part of the transaction was rolled back");
    r = hp_db__run(db, reterr, "COMMIT", "");
    if (r != HP_OK) /* hp_tx_free() rolls back */
        return hp_wrap(reterr, r, "committing");
    tx->done = true;
    db->tx_depth--;
    return HP_OK;
}

void hp_tx_free(hp_tx *tx)
{
    if (tx == NULL)
        return;
    if (!tx->done) {
        hp_db *db = tx->db;

        db->tx_doomed = true;
        /* SQLite rolls back by itself after some errors. */
        if (--db->tx_depth == 0 && !sqlite3_get_autocommit(db->sql))
            hp_db__run(db, NULL, "ROLLBACK", "");
    }
    if (tx->db->tx_unsynced && tx->db->tx_depth == 0)
        sync_commits(tx->db, true, NULL);
    free(tx);
}

/* ---- opening ---- */

static hp_code pragma(hp_db *db, const char *sql, const char *want, hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    hp_code r = hp_db__row(db, &rows, reterr, sql, "");

    if (r == HP_E_EMPTY)
        return HP_OK;
    if (r == HP_OK && want != NULL && strcmp(hp_rows_t(rows, 0), want) != 0)
        return hp_fail(reterr, HP_E_IO, "the ledger refused \"%s\": %.60s", sql,
                       hp_rows_t(rows, 0));
    return r;
}

static hp_code version_of(hp_db *db, int64_t *ret, hp_error *reterr)
{
    return hp_db__number(db, 0, ret, reterr, "PRAGMA user_version", "");
}

static hp_code check_integrity(hp_db *db, const char *path, hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    struct stat st;
    bool big = stat(path, &st) == 0 && st.st_size > FULL_CHECK_MAX_BYTES;
    hp_code r =
        hp_db__row(db, &rows, reterr,
                   big ? "PRAGMA quick_check(1)" : "PRAGMA integrity_check(1)", "");

    if (r == HP_OK && strcmp(hp_rows_t(rows, 0), "ok") != 0)
        r = hp_fail(reterr, HP_E_CORRUPT, "the ledger is damaged: %.120s",
                    hp_rows_t(rows, 0));
    return r;
}

static hp_code script(hp_db *db, const char *sql, hp_error *reterr)
{
    int rc = sqlite3_exec(db->sql, sql, NULL, NULL, NULL);

    if (rc != SQLITE_OK)
        return hp_fail(reterr, code_of(rc), "%s", sqlite3_errmsg(db->sql));
    return HP_OK;
}

static hp_code set_installation_id(hp_db *db, hp_error *reterr)
{
    uint8_t random[32];
    char hex[HP_SHA256_HEX];

    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return hp_fail_errno(reterr, errno, "drawing the installation's name");
    hp_sha256_hex(random, hex);
    return hp_db__run(db, reterr,
                      "INSERT OR IGNORE INTO meta(key, value) "
                      "VALUES ('installation_id', ?)",
                      "t", hex);
}

/* Each migration is one transaction with its version: a crash leaves the old
 * ledger or the new one. */
static hp_code migrate(hp_db *db, hp_error *reterr)
{
    int64_t version;
    hp_code r = version_of(db, &version, reterr);

    if (r != HP_OK)
        return r;
    if (version > hp_db__migration_count)
        return hp_fail(reterr, HP_E_UNSUPPORTED,
                       "the ledger has version %lld, this hepar knows %d: written by a "
                       "newer one",
                       (long long)version, hp_db__migration_count);
    for (; version < hp_db__migration_count; version++) {
        hp_auto(hp_tx) *tx = NULL;
        char number[48];

        r = hp_tx_begin(db, &tx, reterr);
        if (r == HP_OK)
            r = script(db, hp_db__migrations[version], reterr);
        snprintf(number, sizeof number, "PRAGMA user_version = %d", (int)version + 1);
        if (r == HP_OK)
            r = script(db, number, reterr);
        if (r == HP_OK)
            r = set_installation_id(db, reterr);
        if (r == HP_OK)
            r = hp_tx_commit(tx, reterr);
        if (r != HP_OK)
            return hp_wrap(reterr, r, "migration %d", (int)version + 1);
    }
    return HP_OK;
}

static hp_code open_file(const char *path, int flags, const hp_db_clock *clock,
                         hp_db **ret, hp_error *reterr)
{
    hp_auto(hp_db) *db = calloc(1, sizeof *db);
    int rc;

    if (db == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "no memory for the ledger");
    db->clock = clock != NULL ? *clock : (hp_db_clock){real_wall_ms, real_mono_ms, NULL};
    rc = sqlite3_open_v2(path, &db->sql, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK)
        return hp_db__fail(db, rc, "opening the ledger", reterr);
    sqlite3_extended_result_codes(db->sql, 1);
    sqlite3_busy_timeout(db->sql, BUSY_TIMEOUT_MS);
    *ret = hp_steal(&db);
    return HP_OK;
}

static hp_code prepare_writer(hp_db *db, const char *path, hp_error *reterr)
{
    static const char *const SETTINGS[] = {
        "PRAGMA synchronous = FULL", "PRAGMA wal_autocheckpoint = 0",
        "PRAGMA foreign_keys = ON", "PRAGMA temp_store = MEMORY",
        "PRAGMA journal_size_limit = 67108864"};
    hp_code r = pragma(db, "PRAGMA journal_mode = WAL", "wal", reterr);
    int keep = 1;

    for (size_t i = 0; r == HP_OK && i < sizeof SETTINGS / sizeof *SETTINGS; i++)
        r = pragma(db, SETTINGS[i], NULL, reterr);
    if (r != HP_OK)
        return r;
    sqlite3_file_control(db->sql, NULL, SQLITE_FCNTL_PERSIST_WAL, &keep);
    r = check_integrity(db, path, reterr); /* before anything is changed */
    if (r == HP_OK)
        r = migrate(db, reterr);
    return r;
}

hp_code hp_db_open(const char *path, const hp_db_clock *clock, hp_db **ret,
                   hp_error *reterr)
{
    hp_auto(hp_db) *db = NULL;
    hp_code r =
        open_file(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, clock, &db, reterr);

    if (r == HP_OK)
        r = prepare_writer(db, path, reterr);
    if (r != HP_OK)
        return r;
    *ret = hp_steal(&db);
    return HP_OK;
}

hp_code hp_db_open_reader(const char *path, hp_db **ret, hp_error *reterr)
{
    hp_auto(hp_db) *db = NULL;
    struct stat st;
    int64_t version;
    hp_code r;

    if (stat(path, &st) != 0)
        return hp_fail_errno(reterr, errno, "no ledger here");
    r = open_file(path, SQLITE_OPEN_READONLY, NULL, &db, reterr);
    if (r == HP_OK)
        r = version_of(db, &version, reterr);
    if (r != HP_OK)
        return r;
    if (version != hp_db__migration_count)
        return hp_fail(reterr, HP_E_UNSUPPORTED,
                       "the ledger has version %lld, this program reads %d",
                       (long long)version, hp_db__migration_count);
    *ret = hp_steal(&db);
    return HP_OK;
}

void hp_db_close(hp_db *db)
{
    if (db == NULL)
        return;
    for (int i = 0; i < db->cached; i++)
        sqlite3_finalize(db->cache[i].stmt);
    sqlite3_close(db->sql);
    free(db);
}

int64_t hp_db_wall_ms(const hp_db *db)
{
    return db->clock.wall_ms(db->clock.payload);
}

int64_t hp_db_mono_ms(const hp_db *db)
{
    return db->clock.mono_ms(db->clock.payload);
}

hp_code hp_db_installation_id(hp_db *db, char ret[65], hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    hp_code r = hp_db__row(db, &rows, reterr,
                           "SELECT value FROM meta WHERE key = 'installation_id'", "");

    if (r == HP_E_EMPTY)
        return hp_fail(reterr, HP_E_CORRUPT, "the ledger has lost its installation id");
    if (r == HP_OK)
        hp_rows_copy(rows, 0, ret, 65);
    return r;
}

hp_code hp_db_checkpoint(hp_db *db, int64_t min_bytes, hp_error *reterr)
{
    const char *path = sqlite3_db_filename(db->sql, "main");
    const char *wal = path != NULL ? sqlite3_filename_wal(path) : NULL;
    struct stat st;
    int rc;

    if (wal == NULL || stat(wal, &st) != 0 || st.st_size < min_bytes)
        return HP_OK;
    rc = sqlite3_wal_checkpoint_v2(db->sql, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    if (rc != SQLITE_OK && rc != SQLITE_BUSY)
        return hp_db__fail(db, rc, "checkpoint", reterr);
    return HP_OK;
}
