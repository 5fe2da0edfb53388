/* Reading DICOM files with DCMTK, for processes that may die (worker, tools).
 *
 * Header reading is bounded: hp_slice_read() first walks the file with
 * dicom/scan, so a nesting bomb never reaches DCMTK. All strings are cut to
 * their field and are bytes as found, outer spaces removed; nothing here is
 * ever logged. Thread-safe: different threads may read different files.
 */
#ifndef HP_DICOM_FILE_H
#define HP_DICOM_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/error.h"
#include "base/path.h"
#include "base/uid.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HP_SOP_CT "1.2.840.10008.5.1.4.1.1.2"
#define HP_SOP_CT_ENHANCED "1.2.840.10008.5.1.4.1.1.2.1"
#define HP_SOP_CT_LEGACY_ENHANCED "1.2.840.10008.5.1.4.1.1.2.2"

/* A list that holds so many planes is full, and its study is refused: such a size is
 * somebody's mistake. A last multi-frame object may still pass the limit. */
enum { HP_MAX_PLANES = 50000 };

/* Header of one image plane. An Enhanced CT file yields one hp_slice per
 * frame. Absent numbers are NAN (double) or -1 (int); absent text is "". */
typedef struct hp_slice {
    char path[HP_PATH_MAX];
    int frame;  /* 0-based; 0 for single-frame */
    int frames; /* planes in this file */
    hp_uid sop_class, sop_instance, series, study, frame_of_reference, transfer_syntax;
    char modality[17], image_type[80], series_description[65], image_comments[128];
    char kernel[33], manufacturer[65], contrast_agent[65], contrast_phase[17];
    char rescale_type[17]; /* "HU" or absent; else the values are no HU */
    char photometric[17];
    int series_number, instance_number, acquisition_number;
    int rows, columns, bits_allocated, bits_stored, high_bit, pixel_representation,
        samples;
    int pixel_padding;       /* raw value as written; INT32_MIN when absent */
    int pixel_padding_limit; /* (0028,0121), the range's other end; INT32_MIN */
    double position_mm[3], orientation[6], spacing_mm[2] /* row, column */;
    double thickness_mm, gantry_tilt_deg, slope, intercept;
    /* Seconds since 1970 as if UTC, NAN when absent. acquired: (0008,002A), else
     * (0008,0022)+(0008,0032), else (0008,0023)+(0008,0033). */
    double acquired_s, contrast_start_s;
    bool acquired_is_content_time; /* only the content time was there */
    bool has_contrast_agent;       /* (0018,0010) non-empty or (0018,0012) has an item */
    bool has_contrast_tag;         /* one of the two is present at all, even if empty */
    bool lossy;
    uint8_t patient_digest[32]; /* hp_scan_patient_digest(), to compare only */
} hp_slice;

typedef struct hp_slice_list {
    hp_slice *item;
    size_t count, cap;
} hp_slice_list;
#define HP_SLICE_LIST_INIT                                                               \
    {                                                                                    \
        NULL, 0, 0                                                                       \
    }
void hp_slice_list_done(hp_slice_list *l);
/* A zeroed slice with every number absent at the end of the list, or NULL. */
hp_slice *hp_slice_list_add(hp_slice_list *l);

/* Appends the file's image planes to `list`. HP_E_UNSUPPORTED: a DICOM object
 * that holds no CT image planes (sop_class and series are still appended as one
 * slice with rows = 0, so that it can be explained). Other codes append
 * nothing: the file is no DICOM file, cut off, nested too deep; HP_E_LIMIT with a
 * full list: not looked at. */
hp_code hp_slice_read(const char *path, hp_slice_list *list, hp_error *reterr);

/* Reads every file below `dir` (depth <= 8; links are not followed; DICOMDIR and
 * what is no DICOM file is skipped and counted); stops when the list is full.
 * HP_E_EMPTY: no DICOM file. */
hp_code hp_slice_read_dir(const char *dir, hp_slice_list *list, int *ret_skipped,
                          hp_error *reterr);

/* Decodes one plane to HU: rescaled, padding and everything below = HP_PAD_HU,
 * clamped above at INT16_MAX. ret_hu has rows*columns values. */
hp_code hp_slice_pixels(const hp_slice *s, int16_t *ret_hu, hp_error *reterr);

/* The same for many planes: keeps the last file open, which is what makes
 * multi-frame objects affordable. One thread per reader. */
typedef struct hp_pixel_reader hp_pixel_reader;
hp_code hp_pixel_reader_new(hp_pixel_reader **ret, hp_error *reterr);
void hp_pixel_reader_free(hp_pixel_reader *r);
HP_AUTO_DEFINE(hp_pixel_reader, hp_pixel_reader_free)
hp_code hp_pixel_reader_plane(hp_pixel_reader *r, const hp_slice *s, int16_t *ret_hu,
                              hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
