/* What a result object is made of: findings, the source it belongs to, and the
 * identity that was fixed in the ledger before the first byte was written.
 * Shared by sr.h and sc.h. Building twice from the same hp_report gives the
 * same bytes.
 *
 * Worker and tools only: behind it stands DCMTK.
 */
#ifndef HP_DICOM_REPORT_H
#define HP_DICOM_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/findings.h"
#include "dicom/series.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HP_SOP_COMPREHENSIVE_3D_SR "1.2.840.10008.5.1.4.1.1.88.34"
#define HP_SOP_BASIC_TEXT_SR "1.2.840.10008.5.1.4.1.1.88.11"
#define HP_SOP_SECONDARY_CAPTURE "1.2.840.10008.5.1.4.1.1.7"

/* Kinds of result object; the name goes into the ledger and the UID recipe. */
typedef enum hp_result_kind {
    HP_RESULT_SR,        /* Comprehensive 3D SR, TID 1500 */
    HP_RESULT_KEY_IMAGE, /* Secondary Capture of a lesion's key slice */
    HP_RESULT_NOTE_SR,   /* Basic Text SR: negative, unaccepted or impossible */
    HP_RESULT_NOTE_PAGE, /* its text as a Secondary Capture */
    HP_RESULT_KINDS
} hp_result_kind;
const char *
hp_result_kind_name(hp_result_kind k); /* "sr" "key_image" "note_sr" "note_page" */
const char *hp_result_kind_sop_class(hp_result_kind k);

/* What every UID of a run is derived from. */
typedef struct hp_result_identity {
    char installation_id[65];
    hp_uid study_uid;
    char input_digest[65]; /* hex */
    char bundle_sha256[65];
    int64_t created_ms; /* frozen in the ledger: content, series, creation times */
} hp_result_identity;

/* "2.25.<128 bits of SHA-256 over installation id, study UID, input digest,
 * bundle sha256, kind, SOP class, index>"; each part is followed by a newline
 * so that no two lists of parts give the same bytes. `kind` is a result kind's
 * name, or such a name with ".series", or "tracking". */
hp_uid hp_result_uid(const hp_result_identity *id, const char *kind,
                     const char *sop_class, int index);
/* The Device Observer UID: stable for one installation. */
hp_uid hp_result_device_uid(const char *installation_id);

/* The report that this one supersedes (revision n - 1 of the same study). */
typedef struct hp_result_predecessor {
    hp_uid series, sop_class, sop_instance;
} hp_result_predecessor;

typedef struct hp_report {
    const hp_findings *findings;
    const hp_result_identity *identity;
    const hp_assembly *assembly; /* NULL when the study could not be assembled */
    const char *source_path;     /* a file of the study: patient, study attributes */
    const hp_volume *const *registered; /* [HP_PHASES], V grid; NULL entries: missing */
    const hp_volume *liver; /* (optional) 0/1 mask on the V grid: its outline is drawn */
    const char *node_name, *software_version, *ae_title;
    const char *sc_modality;     /* "OT" (default, also when NULL) or "CT" */
    const char *tracking_prefix; /* "" default; OHIF < 3.10 needs the CS3D one */
    int revision;
    const hp_result_predecessor *predecessor; /* (optional) */
} hp_report;

/* Does this outcome give a TID 1500 report with key images, or the text form? */
bool hp_report_is_measurement(const hp_findings *f);
/* The lesions that are reported: the primary one, or with detect-only every
 * candidate from report_min on (key images: the first HP_REPORT_PICTURES_MAX). Index into
 * findings->candidates of the n-th, -1 past the end. */
int hp_report_lesion(const hp_findings *f, int n);
/* InstanceNumber of the venous image nearest to candidate `index`'s key slice: what a
 * radiologist finds in a viewer. -1: there is none. */
int hp_report_key_number(const hp_report *r, int index);

typedef struct hp_report_object {
    hp_result_kind kind;
    char file[24]; /* "sr.dcm" "key_1.dcm" "note_sr.dcm" "note_page.dcm" */
    char png[24];  /* "key_1.png" "note_page.png", or "" */
    hp_uid sop_instance, series;
    bool required;
} hp_report_object;
enum { HP_REPORT_PICTURES_MAX = 5, HP_REPORT_OBJECTS_MAX = 1 + HP_REPORT_PICTURES_MAX };

/* Builds every object that fits findings->outcome below `dir`, which exists:
 * SR and one key image per lesion, or the note and its page. Each file is
 * synced. On failure some files may stand in `dir`; ret_object is untouched. */
hp_code hp_report_write(const hp_report *r, const char *dir,
                        hp_report_object ret_object[HP_REPORT_OBJECTS_MAX],
                        int *ret_count, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
