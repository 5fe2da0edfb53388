/* Studies as they arrive, and the readiness rule.
 *
 * DESIGN A CT instance belongs to the revision that was receiving when it
 * came; everything else has revision 0. So "the input of revision n" is one
 * comparison, and a late image can never slip into a job that was claimed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "db/db_internal.h"

bool hp_instance_is_ct(const char *sop_class)
{
    static const char *const CT[] = {
        "1.2.840.10008.5.1.4.1.1.2",   /* CT Image */
        "1.2.840.10008.5.1.4.1.1.2.1", /* Enhanced CT Image */
        "1.2.840.10008.5.1.4.1.1.2.2", /* Legacy Converted Enhanced CT Image */
    };

    for (size_t i = 0; i < sizeof CT / sizeof *CT; i++)
        if (strcmp(sop_class, CT[i]) == 0)
            return true;
    return false;
}

hp_code hp_study_lookup(hp_db *db, const char *sop_instance, hp_disposition *ret,
                        char ret_name[64], hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    int64_t ours;
    hp_code r =
        hp_db__row(db, &rows, reterr, "SELECT name FROM instance WHERE sop_instance = ?",
                   "t", sop_instance);

    if (r == HP_OK) {
        hp_rows_copy(rows, 0, ret_name, 64);
        *ret = HP_STORED_DUPLICATE;
        return HP_OK;
    }
    if (r != HP_E_EMPTY)
        return r;
    r = hp_db__number(db, 0, &ours, reterr, "SELECT 1 FROM result WHERE sop_instance = ?",
                      "t", sop_instance);
    if (r == HP_OK) {
        ret_name[0] = '\0';
        *ret = ours ? HP_STORED_ECHO : HP_STORED_NEW;
    }
    return r;
}

/* ---- entering ---- */

/* Received text as the ledger keeps it: printable ASCII, the rest '?', so that
 * it can be shown on any terminal and in any JSON. */
static const char *clean(const char *text, char ret[HP_UID_SIZE])
{
    size_t n = 0;

    for (; text != NULL && text[n] != '\0' && n < HP_UID_SIZE - 1; n++)
        ret[n] = text[n] >= ' ' && text[n] <= '~' ? text[n] : '?';
    ret[n] = '\0';
    return ret;
}

typedef struct study_row {
    int64_t id;
    bool is_new, same_patient, two_patients;
} study_row;

static hp_code new_study(hp_db *db, const hp_instance *in, study_row *ret,
                         hp_error *reterr)
{
    int64_t now = hp_db_wall_ms(db);
    char accession[HP_UID_SIZE], date[HP_UID_SIZE];
    hp_code r = hp_db__run(db, reterr,
                           "INSERT INTO study(study_uid, accession, study_date, "
                           "patient_digest, first_ms, last_ms) VALUES (?, ?, ?, ?, ?, ?)",
                           "tttbii", in->study.text, clean(in->accession, accession),
                           clean(in->study_date, date), in->patient_digest,
                           (int)sizeof in->patient_digest, now, now);

    *ret = (study_row){hp_db__last_id(db), true, true, false};
    return r;
}

static hp_code find_study(hp_db *db, const hp_instance *in, study_row *ret,
                          hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    hp_code r = hp_db__row(
        db, &rows, reterr,
        "SELECT id, patient_digest = ?, two_patients FROM study WHERE study_uid = ?",
        "bt", in->patient_digest, (int)sizeof in->patient_digest, in->study.text);

    if (r == HP_OK)
        *ret = (study_row){hp_rows_i(rows, 0), false, hp_rows_i(rows, 1) != 0,
                           hp_rows_i(rows, 2) != 0};
    return r;
}

static hp_code find_series(hp_db *db, int64_t study, const hp_instance *in, bool ct,
                           int64_t *ret, hp_error *reterr)
{
    char modality[HP_UID_SIZE];
    hp_code r = hp_db__run(
        db, reterr,
        "INSERT INTO series(study, series_uid, modality, instances, ct) "
        "VALUES (?, ?, ?, 1, ?) ON CONFLICT(study, series_uid) DO "
        "UPDATE SET instances = instances + 1, ct = ct + excluded.ct",
        "itti", study, in->series.text, clean(in->modality, modality), (int64_t)ct);

    if (r == HP_OK)
        r = hp_db__number(db, 0, ret, reterr,
                          "SELECT id FROM series WHERE study = ? AND series_uid = ?",
                          "it", study, in->series.text);
    return r;
}

/* Two patients under one Study Instance UID: nothing of this study may be sent. */
static hp_code second_patient(hp_db *db, int64_t study, hp_error *reterr)
{
    hp_code r = hp_db__run(db, reterr, "UPDATE study SET two_patients = 1 WHERE id = ?",
                           "i", study);

    if (r == HP_OK)
        r = hp_event_add(db, study, 0, "two_patients", reterr,
                         "an object with another patient ID arrived in this study");
    if (r == HP_OK)
        r = hp_job__fail_open(db, study, "two_patients",
                              "the study holds images of two patients", reterr);
    return r;
}

hp_code hp_study_add(hp_db *db, const hp_instance *in, hp_error *reterr)
{
    bool ct = hp_instance_is_ct(in->sop_class.text);
    char ae[HP_UID_SIZE], peer[HP_UID_SIZE];
    study_row study;
    int64_t series;
    int revision = 0;
    hp_code r = find_study(db, in, &study, reterr);

    if (r == HP_E_EMPTY)
        r = new_study(db, in, &study, reterr);
    if (r == HP_OK)
        r = find_series(db, study.id, in, ct, &series, reterr);
    if (r == HP_OK && ct)
        r = hp_job__receiving(db, study.id, &revision, reterr);
    if (r == HP_OK)
        r = hp_db__run(db, reterr,
                       "INSERT INTO instance(study, series, revision, sop_instance, "
                       "sop_class, transfer_syntax, size_bytes, name, received_ms, "
                       "calling_ae, peer) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                       "iiitttitit"
                       "t",
                       study.id, series, (int64_t)revision, in->sop_instance.text,
                       in->sop_class.text, in->transfer_syntax.text, in->size_bytes,
                       in->name, hp_db_wall_ms(db), clean(in->calling_ae, ae),
                       clean(in->peer_address, peer));
    if (r == HP_OK)
        r = hp_db__run(db, reterr,
                       "UPDATE study SET stored = stored + 1, ct = ct + ?, last_ms = ? "
                       "WHERE id = ?",
                       "iii", (int64_t)ct, hp_db_wall_ms(db), study.id);
    if (r == HP_OK && !study.same_patient && !study.two_patients)
        r = second_patient(db, study.id, reterr);
    return r == HP_OK ? HP_OK : hp_wrap(reterr, r, "entering a slice");
}

hp_code hp_study_count(hp_db *db, const hp_instance *in, hp_disposition d,
                       const char *name, hp_error *reterr)
{
    study_row study;
    hp_code r = find_study(db, in, &study, reterr);

    if (r == HP_E_EMPTY) {
        /* A result of ours that came back under a study we never received. */
        return HP_OK;
    }
    if (r == HP_OK)
        r = hp_db__run(db, reterr,
                       "UPDATE study SET duplicates = duplicates + ?, conflicts = "
                       "conflicts + ?, echoes = echoes + ? WHERE id = ?",
                       "iiii", (int64_t)(d == HP_STORED_DUPLICATE),
                       (int64_t)(d == HP_STORED_CONFLICT), (int64_t)(d == HP_STORED_ECHO),
                       study.id);
    if (r == HP_OK && d == HP_STORED_CONFLICT)
        r = hp_event_add(db, study.id, 0, "conflict", reterr,
                         "an instance came again with other bytes; the first one stays, "
                         "the other is quarantine/%s",
                         name ? name : "-");
    if (r == HP_OK && d == HP_STORED_ECHO)
        r = hp_event_add(db, study.id, 0, "echo", reterr,
                         "one of our own results came back; not kept");
    return r;
}

hp_code hp_study_refused(hp_db *db, const char *study_uid, const char *words,
                         hp_error *reterr)
{
    hp_auto(hp_tx) *tx = NULL;
    int64_t study = 0;
    hp_code r = hp_tx_begin(db, &tx, reterr);

    if (r == HP_OK && *study_uid != '\0')
        r = hp_db__number(db, 0, &study, reterr,
                          "SELECT id FROM study WHERE study_uid = ?", "t", study_uid);
    if (r == HP_OK && study != 0)
        r = hp_db__run(db, reterr, "UPDATE study SET refused = refused + 1 WHERE id = ?",
                       "i", study);
    if (r == HP_OK)
        r = hp_event_add(db, study, 0, "refused", reterr, "%s", words);
    if (r == HP_OK)
        r = hp_tx_commit(tx, reterr);
    return r;
}

/* ---- readiness ---- */

hp_ready hp_study_ready(const hp_arrival *a, const hp_readiness *rule, int64_t now_ms,
                        int64_t *ret_at_ms)
{
    int64_t quiet_at = a->last_ms + rule->quiet_ms;
    int64_t latest = a->first_ms + rule->max_wait_ms;
    bool quiet = now_ms >= quiet_at && !a->association_open;
    bool complete =
        rule->phases == 0 || (a->looked && (a->phases & rule->phases) == rule->phases);

    *ret_at_ms = now_ms;
    if (quiet && complete)
        return HP_READY_QUIET;
    if (now_ms >= latest)
        return HP_READY_MAX_WAIT;
    if (quiet && !a->looked)
        return HP_READY_LOOK;
    /* Quiet but incomplete, or held by an association: news or the end. */
    *ret_at_ms = now_ms < quiet_at && quiet_at < latest ? quiet_at : latest;
    return HP_READY_NO;
}

/* ---- files ---- */

hp_code hp_study_files(hp_db *db, int64_t study_id, int revision,
                       void (*each)(const char *name, void *payload), void *payload,
                       hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    hp_code r = hp_db__query(db, &rows, reterr,
                             "SELECT name FROM instance WHERE study = ? AND revision "
                             "BETWEEN 1 AND ? ORDER BY id",
                             "ii", study_id, (int64_t)revision);

    while (r == HP_OK) {
        r = hp_db__next(db, rows, reterr);
        if (r == HP_OK)
            each(hp_rows_t(rows, 0), payload);
    }
    return r == HP_E_EMPTY ? HP_OK : r;
}

hp_code hp_study_each_file(hp_db *db,
                           void (*each)(int64_t study_id, const char *name,
                                        void *payload),
                           void *payload, hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    hp_code r = hp_db__query(db, &rows, reterr,
                             "SELECT study, name FROM instance ORDER BY name", "");

    while (r == HP_OK) {
        r = hp_db__next(db, rows, reterr);
        if (r == HP_OK)
            each(hp_rows_i(rows, 0), hp_rows_t(rows, 1), payload);
    }
    return r == HP_E_EMPTY ? HP_OK : r;
}

hp_code hp_study_file_lost(hp_db *db, int64_t study_id, const char *name,
                           hp_error *reterr)
{
    hp_auto(hp_tx) *tx = NULL;
    hp_code r = hp_tx_begin(db, &tx, reterr);

    if (r == HP_OK)
        r = hp_event_add(db, study_id, 0, "file_lost", reterr,
                         "spool/%s is in the ledger and not on disk", name);
    if (r == HP_OK) /* sent again, it is new again */
        r = hp_db__run(db, reterr, "DELETE FROM instance WHERE name = ?", "t", name);
    if (r == HP_OK)
        r = hp_job__fail_open(db, study_id, "file_lost",
                              "a received file is missing on disk", reterr);
    if (r == HP_OK)
        r = hp_tx_commit(tx, reterr);
    return r == HP_OK ? HP_OK : hp_wrap(reterr, r, "recording a lost file");
}
