/* Reading DICOM files with DCMTK, for processes that may die (worker, tools).
 *
 * Header reading is bounded: hp_slice_read() first walks the file with
 * dicom/scan, so a nesting bomb never reaches DCMTK. All strings are cut to
 * their field and are bytes as found; nothing here is ever logged.
 */
#ifndef HP_DICOM_FILE_H
#define HP_DICOM_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/path.h"
#include "base/uid.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Header of one image plane. An Enhanced CT file yields one hp_slice per
 * frame. Absent numbers are NAN (double) or -1 (int); absent text is "". */
typedef struct hp_slice {
    char path[HP_PATH_MAX];
    int frame; /* 0-based; 0 for single-frame */
    hp_uid sop_class, sop_instance, series, study, frame_of_reference, transfer_syntax;
    char modality[17], image_type[80], series_description[65], image_comments[128];
    char kernel[33], manufacturer[65], contrast_agent[65], contrast_phase[17];
    int series_number, instance_number, acquisition_number;
    int rows, columns, bits_allocated, bits_stored, pixel_representation, samples;
    int pixel_padding; /* raw value as written; INT32_MIN when absent */
    double position_mm[3], orientation[6], spacing_mm[2] /* row, column */;
    double thickness_mm, gantry_tilt_deg, slope, intercept;
    /* Seconds since 1970 as if UTC, NAN when absent. acquired: (0008,002A), else
     * (0008,0022)+(0008,0032), else (0008,0023)+(0008,0033). */
    double acquired_s, contrast_start_s;
    bool acquired_is_content_time; /* only the content time was there */
    bool has_contrast_agent; /* (0018,0010) non-empty or (0018,0012) has an item */
    bool lossy;
    uint8_t patient_digest[32]; /* SHA-256 of PatientID + issuer, to compare only */
} hp_slice;

typedef struct hp_slice_list {
    hp_slice *item;
    size_t count, cap;
} hp_slice_list;
void hp_slice_list_done(hp_slice_list *l);

/* Appends the file's image planes to `list`. HP_E_UNSUPPORTED: a DICOM object
 * that holds no CT image planes (sop_class and series are still appended as one
 * slice with rows = 0, so that it can be explained). */
hp_code hp_slice_read(const char *path, hp_slice_list *list, hp_error *reterr);

/* Decodes one plane to HU (rescaled, clamped to int16, padding = HP_PAD_HU).
 * ret_hu has rows*columns values. */
hp_code hp_slice_pixels(const hp_slice *s, int16_t *ret_hu, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
