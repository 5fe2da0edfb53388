/* DIMSE (PS3.7): command sets in and out, and messages from fragments.
 *
 * A message is a command and perhaps a dataset, both cut into fragments that
 * may be split anywhere. The reader takes pieces in the order hp_ul reports
 * them, holds the command (at most 64 KiB) and passes dataset bytes through.
 */
#ifndef HP_DICOM_DIMSE_H
#define HP_DICOM_DIMSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/uid.h"
#include "dicom/ul.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    HP_DIMSE_C_STORE_RQ = 0x0001,
    HP_DIMSE_C_ECHO_RQ = 0x0030,
    HP_DIMSE_C_CANCEL_RQ = 0x0FFF,
    HP_DIMSE_RESPONSE = 0x8000, /* bit that turns a request into its answer */
    HP_DIMSE_NO_DATASET = 0x0101,
    HP_DIMSE_MAX_COMMAND = 65536
};

/* Status codes that we give. */
enum {
    HP_STATUS_SUCCESS = 0x0000,
    HP_STATUS_PROCESSING_FAILURE = 0x0110,
    HP_STATUS_CLASS_NOT_SUPPORTED = 0x0122,
    HP_STATUS_UNRECOGNIZED = 0x0211,
    HP_STATUS_OUT_OF_RESOURCES = 0xA700,
    HP_STATUS_MISMATCH = 0xA900,
    HP_STATUS_CANNOT_UNDERSTAND = 0xC000
};

typedef struct hp_dimse_command {
    uint16_t field; /* which request */
    uint16_t message_id;
    uint16_t dataset_type;
    hp_uid sop_class;    /* affected, or requested where only that is there */
    hp_uid sop_instance; /* "" when absent or longer than 64 */
} hp_dimse_command;

/* A complete command set (Implicit VR LE, group 0000). Command field and, in a
 * request, message ID must be there; order and other elements do not matter.
 * HP_E_INVALID otherwise. */
hp_code hp_dimse_parse(const uint8_t *data, size_t len, hp_dimse_command *ret,
                       hp_error *reterr);

/* The answer to `rq`: SOP class and instance repeated, no dataset. `comment`
 * (Error Comment, at most 64 ASCII characters) may be NULL. */
void hp_dimse_put_response(const hp_dimse_command *rq, uint16_t status,
                           const char *comment, hp_buf *out);
/* A request without a dataset; for tests and, later, for our own requests. */
void hp_dimse_put_request(const hp_dimse_command *rq, hp_buf *out);

typedef enum hp_dimse_event {
    HP_DIMSE_MORE,
    HP_DIMSE_COMMAND, /* reader->command is filled; see reader->has_dataset */
    HP_DIMSE_DATA,    /* the piece belongs to the dataset */
    HP_DIMSE_DATA_END /* it does, and the dataset is complete with it */
} hp_dimse_event;

typedef struct hp_dimse_reader {
    int state; /* private */
    hp_buf bytes;
    uint8_t context_id;
    bool has_dataset;
    hp_dimse_command command;
} hp_dimse_reader;
#define HP_DIMSE_READER_INIT                                                             \
    {                                                                                    \
        0, HP_BUF_INIT, 0, false,                                                        \
        {                                                                                \
            0, 0, 0, {""},                                                               \
            {                                                                            \
                ""                                                                       \
            }                                                                            \
        }                                                                                \
    }

void hp_dimse_reader_done(hp_dimse_reader *r);
/* One piece of a fragment (an event of kind HP_UL_DATA). Failure means that the
 * peer broke the protocol: abort with *ret_reason (source 2, service provider).
 * HP_E_INVALID, HP_E_LIMIT, HP_E_NO_MEMORY. */
hp_code hp_dimse_take(hp_dimse_reader *r, const hp_ul_event *piece, hp_dimse_event *ret,
                      uint8_t *ret_reason, hp_error *reterr);
/* In the middle of a message? */
bool hp_dimse_inside_message(const hp_dimse_reader *r);

#ifdef __cplusplus
}
#endif
#endif
