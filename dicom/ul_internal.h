/* Inside the room: the association request, taken apart and answered. */
#ifndef HP_DICOM_UL_INTERNAL_H
#define HP_DICOM_UL_INTERNAL_H

#include "dicom/ul.h"

enum {
    PDU_ASSOCIATE_RQ = 1,
    PDU_ASSOCIATE_AC = 2,
    PDU_ASSOCIATE_RJ = 3,
    PDU_DATA = 4,
    PDU_RELEASE_RQ = 5,
    PDU_RELEASE_RP = 6,
    PDU_ABORT = 7
};

/* Reasons of an A-ABORT from the service provider (PS3.8 9.3.8). */
enum {
    ABORT_PROVIDER = 2,
    ABORT_UNRECOGNIZED_PDU = 1,
    ABORT_UNEXPECTED_PDU = 2,
    ABORT_INVALID_PARAMETER = 6
};

/* `data` is the body of an A-ASSOCIATE-RQ (after the six header bytes). HP_OK;
 * HP_E_REFUSED with *ret_rejection; HP_E_INVALID for what ends in abort 2/6. */
hp_code hp_ul__parse_request(const uint8_t *data, size_t len, hp_ul_request *ret,
                             hp_ul_rejection *ret_rejection, hp_error *reterr);

/* The A-ASSOCIATE-AC; `echo` are the 64 bytes of AE titles and reserved field. */
void hp_ul__put_accept(const hp_ul_request *rq, const uint8_t echo[64], hp_buf *out);

#endif
