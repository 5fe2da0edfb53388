/* A look at a whole file before DCMTK may touch it. Inside the room only. */
#ifndef HP_DICOM_PRECHECK_H
#define HP_DICOM_PRECHECK_H

#include <stdbool.h>

#include "base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Walks a Part 10 file with dicom/scan, inflating where it is deflated: nesting
 * and every length are bounded afterwards. HP_E_INVALID: no Part 10 file, or a
 * length that leaves its place; HP_E_TRUNCATED, HP_E_LIMIT as the scan says.
 * *ret_has_pixels: there is Pixel Data at the top level. */
hp_code hp_precheck(const char *path, bool *ret_has_pixels, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
