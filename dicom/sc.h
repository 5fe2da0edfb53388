/* Key images: the picture, and its Secondary Capture.
 *
 * A key image is single-frame RGB, drawn from the registered volumes, so every
 * panel shows the same plane. It carries no frame of reference: viewers must
 * not measure in it. No patient attribute is drawn.
 */
#ifndef HP_DICOM_SC_H
#define HP_DICOM_SC_H

#include "dicom/report.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { HP_SC_WIDTH = 1600, HP_SC_HEIGHT = 1000 };

/* Draws candidate `index` of findings->candidates (four phases side by side,
 * box, class bars, HU curve, scale bar, source series and image numbers,
 * research-only line) and writes it as SC to `path`; also as PNG when png_path
 * is not NULL. */
hp_code hp_sc_write_key_image(const hp_report *r, int index, const char *path,
                              const char *png_path, hp_uid *ret_sop_instance,
                              hp_error *reterr);
/* The text form as a page. */
hp_code hp_sc_write_note(const hp_report *r, const char *path, const char *png_path,
                         hp_uid *ret_sop_instance, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
