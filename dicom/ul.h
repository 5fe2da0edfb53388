/* The DICOM upper layer (PS3.8), the accepting side, as functions over bytes.
 *
 * No I/O and no clock: the caller reads the socket, hands the bytes in, gets one
 * event per call, and writes what was put into `out`. Data fragments are handed
 * on in pieces that point into the caller's bytes, so nothing but an
 * A-ASSOCIATE-RQ (at most 256 KiB) is ever held here.
 *
 *                     A-ASSOCIATE-RQ          hp_ul_accept
 *     WAITING (Sta2) ───────────────> ASKED (Sta3) ───────> OPEN (Sta6)
 *        │                              │ hp_ul_reject       │ A-RELEASE-RQ
 *        │ anything else                │                    ▼
 *        ▼                              ▼              RELEASING (Sta8)
 *     CLOSING (Sta13) <────────────────────────────────────  hp_ul_release
 *        every further byte is taken and dropped; the caller closes at EOF or
 *        when ARTIM runs out
 */
#ifndef HP_DICOM_UL_H
#define HP_DICOM_UL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/uid.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Who answers on the port, and who writes file meta information. */
#define HP_IMPLEMENTATION_CLASS_UID "2.25.230579579184532923043464300972212748128"
#define HP_IMPLEMENTATION_VERSION "HEPAR_0_1"

enum {
    HP_UL_MAX_CONTEXTS = 128,
    HP_UL_MAX_REQUEST = 256 * 1024, /* A-ASSOCIATE-RQ */
    HP_UL_MAX_DATA = 1024 * 1024,   /* P-DATA-TF that is read, whatever we announced */
    HP_UL_ANNOUNCED = 131072        /* maximum length that we announce */
};

/* PS3.8 9.3.4: result, source, reason of an A-ASSOCIATE-RJ. */
typedef struct hp_ul_rejection {
    uint8_t result, source, reason;
} hp_ul_rejection;
#define HP_UL_REJECT_CONTEXT_NAME ((hp_ul_rejection){1, 1, 2})
#define HP_UL_REJECT_CALLING ((hp_ul_rejection){1, 1, 3})
#define HP_UL_REJECT_CALLED ((hp_ul_rejection){1, 1, 7})
#define HP_UL_REJECT_VERSION ((hp_ul_rejection){1, 2, 2})
#define HP_UL_REJECT_CONGESTION ((hp_ul_rejection){2, 3, 1})
#define HP_UL_REJECT_LIMIT ((hp_ul_rejection){2, 3, 2})

/* Results of a presentation context (PS3.8 table 9-18). */
enum {
    HP_UL_CONTEXT_ACCEPTED = 0,
    HP_UL_CONTEXT_NO_CLASS = 3,
    HP_UL_CONTEXT_NO_SYNTAX = 4
};

typedef struct hp_ul_context {
    uint8_t id;
    uint8_t result;         /* set by hp_ul_accept */
    hp_uid abstract_syntax; /* "" when it was no UID at all */
    hp_uid transfer_syntax; /* the best one that we read, else the first proposed */
    bool readable;          /* one of the proposed syntaxes is one that we read */
} hp_ul_context;

typedef struct hp_ul_role {
    hp_uid sop_class;
    bool scu, scp; /* as proposed */
} hp_ul_role;

/* What the peer asked for. AE titles have lost their outer spaces. Bytes as
 * received: filter before logging. */
typedef struct hp_ul_request {
    char called_ae[17], calling_ae[17];
    uint32_t max_pdu; /* the peer's; 0: unlimited */
    hp_uid implementation;
    char version_name[17];
    bool window_proposed;
    int context_count, role_count;
    hp_ul_context context[HP_UL_MAX_CONTEXTS];
    hp_ul_role role[HP_UL_MAX_CONTEXTS];
} hp_ul_request;

typedef enum hp_ul_kind {
    HP_UL_MORE,      /* all bytes taken, nothing to report */
    HP_UL_ASKED,     /* hp_ul_peer() is filled: accept or reject, then go on */
    HP_UL_DATA,      /* a piece of a data fragment */
    HP_UL_RELEASE,   /* the peer wants to go: hp_ul_release() when nothing is pending */
    HP_UL_ABORTED,   /* the peer aborted: close */
    HP_UL_REFUSED,   /* we rejected (A-ASSOCIATE-RJ is in `out`): drain, close */
    HP_UL_VIOLATION, /* we abort (A-ABORT is in `out`): drain, close */
    HP_UL_NOT_DICOM  /* the first byte is no PDU type: close at once, say nothing */
} hp_ul_kind;

typedef struct hp_ul_event {
    hp_ul_kind kind;
    /* DATA: a piece of one fragment (PDV). `ends` marks the fragment's last
     * piece; `last` is the message control header's last-fragment bit. */
    uint8_t context_id;
    bool command, last, ends;
    const uint8_t *data;
    size_t len;
    hp_ul_rejection rejection;          /* REFUSED */
    uint8_t abort_source, abort_reason; /* ABORTED, VIOLATION */
    char why[120];                      /* ours, safe to log */
} hp_ul_event;

/* Which SOP classes are taken; asked once per proposed context. */
typedef bool (*hp_ul_takes)(const char *abstract_syntax, void *payload);

typedef struct hp_ul hp_ul;
hp_code hp_ul_new(hp_ul **ret, hp_error *reterr);
void hp_ul_free(hp_ul *u);
HP_AUTO_DEFINE(hp_ul, hp_ul_free)

/* Takes bytes from *data until there is something to report. Call until
 * HP_UL_MORE; `out` gets what must be written. */
hp_ul_kind hp_ul_next(hp_ul *u, const uint8_t **data, size_t *len, hp_ul_event *ret,
                      hp_buf *out);

const hp_ul_request *hp_ul_peer(const hp_ul *u);

/* Answers to HP_UL_ASKED. Contexts that we do not take get result 3, those
 * without a readable transfer syntax 4; the association is accepted. */
void hp_ul_accept(hp_ul *u, hp_ul_takes takes, void *payload, hp_buf *out);
void hp_ul_reject(hp_ul *u, hp_ul_rejection why, hp_buf *out);

/* An accepted context, or NULL. */
const hp_ul_context *hp_ul_context_of(const hp_ul *u, uint8_t id);

/* Wraps a whole command or dataset into P-DATA-TF PDUs within the peer's
 * maximum. */
void hp_ul_put_data(const hp_ul *u, uint8_t context_id, bool command, const void *data,
                    size_t len, hp_buf *out);

void hp_ul_release(hp_ul *u, hp_buf *out); /* A-RELEASE-RP */
void hp_ul_abort(hp_ul *u, uint8_t source, uint8_t reason, hp_buf *out);

/* In the middle of a PDU or still waiting for the request? (deadlines) */
bool hp_ul_inside_pdu(const hp_ul *u);

/* Names what knocks on the port when it is not DICOM: "an HTTP request", "a TLS
 * hello", ... from the first bytes it sent. */
const char *hp_ul_guess_protocol(const uint8_t *data, size_t len);

#ifdef __cplusplus
}
#endif
#endif
