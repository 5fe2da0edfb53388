/* Structured reports: TID 1500 (Comprehensive 3D SR, one planar group for each
 * reported lesion) and the Basic Text note.
 *
 * The tree keeps to what viewers were measured to need: the first NUM of a
 * group is the Area, inferred from the same polyline as the image region; the
 * Image Library is there and has a group for each source series; tracking UIDs
 * are unique; code meanings are spelled as viewers and validators compare them.
 */
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
