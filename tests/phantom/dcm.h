/* A DICOM Part 10 file, written element by element in ascending order:
 * Explicit VR Little Endian, no sequences needed but one level of items. */
#ifndef HP_TESTS_PHANTOM_DCM_H
#define HP_TESTS_PHANTOM_DCM_H

#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

/* Text values are padded as their VR wants; NULL text writes nothing, "" an
 * empty element. */
void dcm_text(hp_buf *b, uint32_t tag, const char *vr, const char *text);
void dcm_int(hp_buf *b, uint32_t tag, const char *vr, long v);    /* IS or DS text */
void dcm_ds(hp_buf *b, uint32_t tag, const double *v, int n);     /* up to 6 decimals */
void dcm_us(hp_buf *b, uint32_t tag, const char *vr, uint16_t v); /* US or SS */
void dcm_bytes(hp_buf *b, uint32_t tag, const char *vr, const void *data,
               size_t len); /* OW, OB */
void dcm_item_open(hp_buf *b,
                   uint32_t tag); /* sequence with one item, undefined lengths */
void dcm_item_close(hp_buf *b);

/* Preamble and file meta for a dataset, then the dataset, to `path`. */
hp_code dcm_write(const char *path, const char *sop_class, const char *sop_instance,
                  const hp_buf *dataset, hp_error *reterr);

#endif
