/* One JPEG 2000 code stream to samples, by OpenJPEG (DCMTK has no decoder).
 * Inside the room only. */
#ifndef HP_DICOM_J2K_H
#define HP_DICOM_J2K_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Decodes a single-component image of exactly rows x columns. Samples are
 * written as the 16-bit words a native object would hold (two's complement when
 * the stream is signed). Memory is bounded by the expected size. */
hp_code hp_j2k_decode(const uint8_t *data, size_t len, int rows, int columns,
                      uint16_t *ret_words, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
