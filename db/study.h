/* Studies, their series and instances, and the one rule that says when a study
 * is ready. A study has revisions: images that come after revision n was
 * claimed open revision n+1 (db/job.h holds the job of each revision). */
#ifndef HP_DB_STUDY_H
#define HP_DB_STUDY_H

#include "base/path.h"
#include "base/study.h"
#include "base/uid.h"
#include "db/db.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One arrived instance as the ledger sees it. Text is borrowed. */
typedef struct hp_instance {
    hp_uid sop_class, sop_instance, study, series, transfer_syntax;
    uint8_t patient_digest[32];
    const char *modality, *accession, *study_date;
    int64_t size_bytes;
    const char *name; /* file name inside spool/ (never a received string) */
    const char *calling_ae, *peer_address;
} hp_instance;

/* CT and Enhanced CT start or extend a revision; everything else is kept with
 * the study and changes nothing. */
bool hp_instance_is_ct(const char *sop_class);

/* Do we know this SOP Instance UID? NEW, ECHO (one of our results), or
 * DUPLICATE with the name of the file that came first: whether the bytes agree
 * is the caller's to find out. */
hp_code hp_study_lookup(hp_db *db, const char *sop_instance, hp_disposition *ret,
                        char ret_name[64], hp_error *reterr);
/* Enters a new instance: study, series, counters, the receiving job of its
 * revision, and the quiet time starts again. Call inside a transaction whose
 * commit comes after the file is durable. */
hp_code hp_study_add(hp_db *db, const hp_instance *in, hp_error *reterr);
/* Counts what was not entered (duplicate, conflict, echo) and, for a conflict
 * or an echo, writes the event. `name`: the file in quarantine/, or NULL. */
hp_code hp_study_count(hp_db *db, const hp_instance *in, hp_disposition d,
                       const char *name, hp_error *reterr);
/* Something was refused at the door: an event, of the study it would have joined
 * when we know that one. `words` are ours. */
hp_code hp_study_refused(hp_db *db, const char *study_uid, const char *words,
                         hp_error *reterr);

/* ---- readiness ---- */

typedef struct hp_readiness {
    int64_t quiet_ms, max_wait_ms;
    unsigned phases; /* awaited phases, a bit each; 0: quiet is enough */
} hp_readiness;

/* What the rule looks at. Times are monotonic. */
typedef struct hp_arrival {
    int64_t first_ms, last_ms; /* first and last CT instance of this revision */
    bool association_open;     /* one that carries the study */
    bool looked;               /* phases are known as of last_ms */
    unsigned phases;           /* phases found when we looked */
} hp_arrival;

typedef enum hp_ready {
    HP_READY_NO,      /* wait until *ret_at_ms at the earliest, or for news */
    HP_READY_LOOK,    /* quiet, but which phases are there is not known yet */
    HP_READY_QUIET,   /* quiet and complete */
    HP_READY_MAX_WAIT /* not complete, but the maximum wait is over */
} hp_ready;
/* The rule, and the only one. Pure: time comes in as a number. */
hp_ready hp_study_ready(const hp_arrival *a, const hp_readiness *rule, int64_t now_ms,
                        int64_t *ret_at_ms);

/* The CT files of a study up to a revision, in arrival order, each with its
 * name inside spool/. Called back once a file. */
hp_code hp_study_files(hp_db *db, int64_t study_id, int revision,
                       void (*each)(const char *name, void *payload), void *payload,
                       hp_error *reterr);
/* Every file name the ledger has in spool/, in byte order. */
hp_code hp_study_each_file(hp_db *db,
                           void (*each)(int64_t study_id, const char *name,
                                        void *payload),
                           void *payload, hp_error *reterr);
/* A row without its file (promise 2): event, the study's unfinished jobs fail, and
 * the row goes, so that the slice can be sent again. */
hp_code hp_study_file_lost(hp_db *db, int64_t study_id, const char *name,
                           hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
