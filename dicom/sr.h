/* Structured reports: TID 1500 (results.md 2) and the Basic Text note. */
#ifndef HP_DICOM_SR_H
#define HP_DICOM_SR_H

#include "dicom/report.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Writes the report that fits findings->outcome (TID 1500 for CLASSIFIED and
 * DETECTED, the text form otherwise) to `path` as a Part 10 file. */
hp_code hp_sr_write(const hp_report *r, const char *path, hp_uid *ret_sop_instance,
                    hp_uid *ret_sop_class, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
