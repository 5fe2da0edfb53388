/* The spool: one received slice, one Part 10 file, durable before anyone is
 * told that it is.
 *
 * A slice travels like this: intake opens `<name>.part`, writes preamble and
 * file meta (ours), then the dataset bytes as they came, and closes it. The
 * ledger thread takes every slice that is finished now and calls
 * hp_spool_commit(): sync each, rename each, sync the directory once. Only then
 * does it commit the rows, and only then is the sender answered.
 *
 * Names are ours: a random number per writer and a counter. No received string
 * is ever part of a path.
 */
#ifndef HP_DICOM_SPOOL_H
#define HP_DICOM_SPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/path.h"
#include "base/study.h"
#include "base/uid.h"
#include "dicom/scan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A complete slice in its .part file: not durable yet, not answered yet.
 * Text fields are bytes as received, cut to fit; never log them. */
typedef struct hp_stored {
    char part_path[HP_PATH_MAX];
    bool synced; /* fdatasync of the part file has been done already */
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

/* ---- writing one part file; blocking, any thread, one thread at a time ---- */

typedef struct hp_spool_file {
    int fd; /* -1: closed */
    uint64_t bytes, hinted;
    char path[HP_PATH_MAX];
} hp_spool_file;
#define HP_SPOOL_FILE_INIT                                                               \
    {                                                                                    \
        -1, 0, 0,                                                                        \
        {                                                                                \
            0                                                                            \
        }                                                                                \
    }

/* Creates `dir/<stem>.part` (0600, must not exist) and writes preamble and file
 * meta. On failure nothing is left. */
hp_code hp_spool_create(hp_spool_file *f, const char *dir, const char *stem,
                        const char *sop_class, const char *sop_instance,
                        const char *transfer_syntax, const char *source_ae,
                        hp_error *reterr);
/* Appends all of it, or fails; EINTR and short writes are its business. */
hp_code hp_spool_write(hp_spool_file *f, const void *data, size_t len, hp_error *reterr);
/* Starts writing back what has been written so far; only a hint. */
void hp_spool_flush_hint(hp_spool_file *f);
/* Closes; `sync` does fdatasync first. A failed close or sync removes the file. */
hp_code hp_spool_close(hp_spool_file *f, bool sync, hp_error *reterr);
/* Closes and removes; harmless on a closed, never opened or failed one. */
void hp_spool_discard(hp_spool_file *f);

/* A stem no other writer uses: 16 hex digits drawn once per process and a
 * counter. Any thread. */
void hp_spool_stem(char ret[40]);

/* ---- committing; the ledger thread ---- */

typedef struct hp_spool_item {
    const char *part_path;  /* borrowed */
    const char *final_path; /* borrowed; must not exist */
    bool synced;
    hp_code code; /* out */
} hp_spool_item;

/* Syncs each, renames each, then syncs each directory that got a name once.
 * An item that fails leaves neither its part file nor its final name behind.
 * A failed sync is final: it is never tried again on the same file. */
void hp_spool_commit(hp_spool_item *items, size_t count);

/* dir/<stem of part_path>.dcm */
hp_code hp_spool_final_path(const char *part_path, const char *dir, char ret[HP_PATH_MAX],
                            hp_error *reterr);

/* Do two spool files hold the same transfer syntax and dataset bytes? (The file
 * meta may differ: another sender.) */
hp_code hp_spool_same(const char *path_a, const char *path_b, bool *ret_same,
                      hp_error *reterr);

/* Walks a whole file, Part 10 or bare (then `assume` says how it is encoded), in
 * chunks. *ret_syntax is "" for a bare one. A deflated dataset is
 * HP_E_UNSUPPORTED: inflate it and use hp_scan_feed. */
hp_code hp_spool_scan_file(const char *path, uint64_t max_bytes, hp_encoding assume,
                           hp_scan_result *ret, hp_uid *ret_syntax, hp_error *reterr);

/* Recovery: removes every *.part in dir. */
hp_code hp_spool_remove_parts(const char *dir, size_t *ret_removed, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
