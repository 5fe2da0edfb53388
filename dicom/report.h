/* What a result object is made of: findings, the source it belongs to, and the
 * identity that was fixed in the ledger before the first byte was written.
 * Shared by sr.h and sc.h. Building twice from the same hp_report gives the
 * same bytes. */
#ifndef HP_DICOM_REPORT_H
#define HP_DICOM_REPORT_H

#include <stdint.h>

#include "base/findings.h"
#include "dicom/series.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Kinds of result object; the name goes into the ledger and the UID recipe. */
typedef enum hp_result_kind {
    HP_RESULT_SR,       /* Comprehensive 3D SR, TID 1500 */
    HP_RESULT_KEY_IMAGE,/* Secondary Capture of a lesion's key slice */
    HP_RESULT_NOTE_SR,  /* Basic Text SR: negative, unaccepted or impossible */
    HP_RESULT_NOTE_PAGE /* its text as a Secondary Capture */
} hp_result_kind;
const char *hp_result_kind_name(hp_result_kind k); /* "sr" "key_image" "note_sr" "note_page" */

/* front-door.md "Result UIDs": what every UID of a run is derived from. */
typedef struct hp_result_identity {
    char installation_id[65];
    hp_uid study_uid;
    char input_digest[65]; /* hex */
    char bundle_sha256[65];
    int64_t created_ms; /* frozen in the ledger: content, series, creation times */
} hp_result_identity;

hp_uid hp_result_uid(const hp_result_identity *id, const char *kind,
                     const char *sop_class, int index);

typedef struct hp_report {
    const hp_findings *findings;
    const hp_result_identity *identity;
    const hp_assembly *assembly;  /* NULL when the study could not be assembled */
    const char *source_path;      /* any CT file of the study: patient, study attributes */
    const hp_volume *const *registered; /* [HP_PHASES], V grid; NULL entries: missing */
    const char *node_name, *software_version, *ae_title;
    const char *sc_modality;      /* "OT" (default) or "CT" */
    const char *tracking_prefix;  /* "" default; OHIF < 3.10 needs the CS3D one */
    int revision;
} hp_report;

#ifdef __cplusplus
}
#endif
#endif
