/* A bounded, streaming look at a dataset on its way to disk.
 *
 * Bytes in, any chunking; nothing is kept but a stack of at most 64 nested
 * sequences and the nine values that the node needs to file a slice. The scan
 * is not a parser for reading: it proves that every length stays inside its
 * enclosing item and inside `max_bytes`, that nesting is bounded, and that the
 * dataset ends where an element ends. What comes after may then be read by
 * code that trusts lengths.
 *
 * Tolerated, because they occur: trailing padding, odd lengths, unordered and
 * repeated tags (the first one counts), unknown VRs, stray delimiters.
 *
 * Implicit VR does not say which elements are sequences. A value of defined
 * length that starts like an item is walked "softly": nesting in it counts
 * towards the limit, but if it turns out to be no sequence its bytes are
 * skipped by length and nobody is refused for them. The same holds for UN of
 * defined length.
 */
#ifndef HP_DICOM_SCAN_H
#define HP_DICOM_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/error.h"
#include "base/uid.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HP_SCAN_MAX_DEPTH 64

typedef enum hp_encoding {
    HP_IMPLICIT_LE,
    HP_EXPLICIT_LE, /* every encapsulated transfer syntax too */
    HP_EXPLICIT_BE
} hp_encoding;

/* How the dataset of a transfer syntax is encoded (deflated: after inflating). */
hp_encoding hp_encoding_of(const char *transfer_syntax);

/* Values of the top level, outer spaces and padding removed, cut to fit. Bytes
 * as received: never log them. */
typedef struct hp_scan_result {
    char sop_class[HP_UID_SIZE + 1];    /* one longer than legal, so that a too */
    char sop_instance[HP_UID_SIZE + 1]; /* long UID is seen as one */
    char study[HP_UID_SIZE + 1];
    char series[HP_UID_SIZE + 1];
    char modality[17];
    char accession[65];
    char study_date[9];
    uint8_t patient_digest[32];
    bool has_pixels; /* (7FE0,0010) seen at the top level */
    int deepest;     /* nested sequences seen */
} hp_scan_result;

typedef struct hp_scan hp_scan;

/* *ret is yours. max_bytes bounds the dataset and every length in it. */
hp_code hp_scan_new(hp_encoding encoding, uint64_t max_bytes, hp_scan **ret,
                    hp_error *reterr);
void hp_scan_free(hp_scan *s);
HP_AUTO_DEFINE(hp_scan, hp_scan_free)

/* The same scanner for another dataset. */
void hp_scan_reset(hp_scan *s, hp_encoding encoding, uint64_t max_bytes);

/* HP_E_LIMIT: too deep or too long. HP_E_INVALID: a length that leaves its
 * enclosing item, or a broken sequence. The first failure stays; later calls
 * return it again without looking. */
hp_code hp_scan_feed(hp_scan *s, const void *data, size_t len, hp_error *reterr);

/* The dataset is over. HP_E_TRUNCATED: it ended inside an element or an open
 * sequence. On success *ret is filled. */
hp_code hp_scan_end(hp_scan *s, hp_scan_result *ret, hp_error *reterr);

/* The values so far, for explaining a refusal; may be all empty. */
void hp_scan_so_far(const hp_scan *s, hp_scan_result *ret);

/* What tells two patients of one study apart, and nothing else: SHA-256 over
 * PatientID without outer spaces. The issuer is left out: a vendor's dose report
 * or screenshot often lacks it while the slices of the same study have it. */
void hp_scan_patient_digest(const void *id, size_t id_len, uint8_t ret[32]);

#ifdef __cplusplus
}
#endif
#endif
