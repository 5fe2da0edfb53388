/* The spool: one received slice, one Part 10 file, durable before anyone is
 * told that it is.
 *
 * A slice has one name from birth. It is written into a blank: an empty file
 * whose name is on the disk already, made with many others that share one
 * directory sync. When the last byte is written, a mark goes into the file meta
 * (length and sum of the whole file), then the file is synced: the only sync
 * that a sender waits for. The ledger thread then enters its row, and the sender
 * is answered.
 *
 * So after a power cut a file is whole or it is not, and its mark tells which; a
 * whole one holds everything that its row said, and hp_spool_read_back() gets
 * it out again. docs/adr/0016 goes through the moments one by one.
 *
 * Names are ours: a random number per process and a counter, so that names of
 * one process sort in the order of their making. No received string is ever
 * part of a path.
 */
#ifndef HP_DICOM_SPOOL_H
#define HP_DICOM_SPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/error.h"
#include "base/path.h"
#include "base/study.h"
#include "base/uid.h"
#include "dicom/scan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A slice that is whole and synced, without a row yet and not answered yet.
 * Text fields are bytes as received, cut to fit; never log them. */
typedef struct hp_stored {
    char path[HP_PATH_MAX];
    hp_uid sop_class, sop_instance, study, series, transfer_syntax;
    uint8_t patient_digest[32]; /* hp_scan_patient_digest() */
    char modality[17];
    char accession[65];
    char study_date[9];     /* "" when absent */
    uint64_t size_bytes;    /* of the file */
    uint64_t dataset_bytes; /* of the dataset inside it */
    char calling_ae[17];    /* outer spaces removed */
    char peer[64];          /* numeric address, no port */
    uint64_t association;   /* our number for it, unique in this process */
} hp_stored;

/* Answer to a slice, on the loop thread. HP_E_NO_SPACE becomes A700, every
 * other failure 0110; in both cases nothing is left on disk. */
typedef void (*hp_stored_cb)(hp_code code, hp_disposition disposition, void *payload);

/* Fills what the scan of the dataset found: study, series, patient, ... */
void hp_stored_describe(hp_stored *s, const hp_scan_result *found);

/* ---- the folder; any thread ---- */

typedef struct hp_spool hp_spool;

/* `dir` exists. */
hp_code hp_spool_open(const char *dir, hp_spool **ret, hp_error *reterr);
/* Removes the blanks that are left. */
void hp_spool_free(hp_spool *s);
HP_AUTO_DEFINE(hp_spool, hp_spool_free)

/* ---- writing one file; blocking, any thread, one thread at a time ---- */

/* Not against forgers: tells a whole file from one that a power cut tore. */
typedef struct hp_spool_sum {
    uint64_t sum, tail; /* tail: the bytes that do not fill a word yet */
    unsigned held;      /* so many of them */
} hp_spool_sum;

typedef struct hp_spool_file {
    int fd; /* -1: closed */
    uint64_t bytes, hinted;
    uint64_t mark_at; /* where the mark goes */
    hp_spool_sum sum;
    char path[HP_PATH_MAX]; /* "": never created */
} hp_spool_file;
/* clang-format off */
#define HP_SPOOL_FILE_INIT {.fd = -1}
/* clang-format on */

/* Takes a blank and writes preamble and file meta. On failure nothing is left. */
hp_code hp_spool_create(hp_spool *s, hp_spool_file *f, const char *sop_class,
                        const char *sop_instance, const char *transfer_syntax,
                        const char *source_ae, hp_error *reterr);
/* Appends all of it, or fails; EINTR and short writes are its business. */
hp_code hp_spool_write(hp_spool_file *f, const void *data, size_t len, hp_error *reterr);
/* Starts writing back what has been written so far; only a hint. */
void hp_spool_flush_hint(hp_spool_file *f);
/* Marks, syncs and closes: on HP_OK the file survives a power cut. Else it is
 * removed; a sync that failed is never tried again on the same file. */
hp_code hp_spool_finish(hp_spool_file *f, hp_error *reterr);
/* Closes and removes; harmless on a closed, never opened or failed one. */
void hp_spool_discard(hp_spool_file *f);

/* ---- reading ---- */

/* Recovery: what hp_spool_finish() made durable, as it would have been given to
 * the ledger, but for the peer's address. HP_E_TRUNCATED: empty, torn, or
 * not a file of ours: nobody was answered for it. */
hp_code hp_spool_read_back(const char *path, hp_stored *ret, hp_error *reterr);

/* Do two spool files hold the same transfer syntax and dataset bytes? (The file
 * meta may differ: another sender.) */
hp_code hp_spool_same(const char *path_a, const char *path_b, bool *ret_same,
                      hp_error *reterr);

/* Walks a whole file, Part 10 or bare (then `assume` says how it is encoded), in
 * chunks. *ret_syntax is "" for a bare one. A deflated dataset is
 * HP_E_UNSUPPORTED: inflate it and use hp_scan_feed. */
hp_code hp_spool_scan_file(const char *path, uint64_t max_bytes, hp_encoding assume,
                           hp_scan_result *ret, hp_uid *ret_syntax, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
