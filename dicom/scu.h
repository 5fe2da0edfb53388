/* C-STORE SCU over DCMTK, for the sender process only: proposes the classes of
 * the job's objects and nothing else, TCP_NODELAY set, a timeout on each step.
 *
 * Statuses (PS3.4 B.2.3, PS3.7 C): 0000, 0111 (duplicate: the peer has it) and
 * warnings (Bxxx, 0001, 0107, 0116) are accepted; 0122, 0124, A9xx, Cxxx are
 * refused for good; everything else (A7xx, 0110, unknown) is tried again later.
 */
#ifndef HP_DICOM_SCU_H
#define HP_DICOM_SCU_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uid.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_peer {
    char name[32];
    char ae_title[17], host[128];
    int port;
    char calling_ae[17];
    int timeout_s; /* connect, ACSE and DIMSE each */
} hp_peer;

enum { HP_SCU_NO_STATUS = 0xFFFF };

typedef struct hp_send_item {
    const char *path;
    hp_uid sop_class, sop_instance;
    /* out: */
    hp_code code;    /* OK: accepted; E_REFUSED: for good; retryable codes: later;
                        others: the file itself is at fault */
    uint16_t status; /* DIMSE status, HP_SCU_NO_STATUS when none came */
    char words[160]; /* for the ledger; never quotes the peer's comment */
} hp_send_item;

/* (optional) Called once for each item, in order, as soon as its fate is known.
 * `reached`: the peer held an association with us and answered; false: it could
 * not be reached, rejected the association, or broke it here. */
typedef void (*hp_scu_answer_cb)(const hp_send_item *item, bool reached, void *payload);

/* Sends all items over one association. Returns HP_OK when the association was
 * held, whatever the items' codes; otherwise every item carries that code. An
 * object whose class the peer does not take has E_REFUSED and the words "not
 * accepted by the peer"; the others are sent. */
hp_code hp_scu_send(const hp_peer *peer, hp_send_item *items, int count,
                    hp_scu_answer_cb on_answer, void *payload, hp_error *reterr);
/* C-ECHO; ret_ms: from connecting to the answer. */
hp_code hp_scu_echo(const hp_peer *peer, double *ret_ms, hp_error *reterr);

/* What a C-STORE status means for the queue. */
hp_code hp_scu_status_code(uint16_t status);

#ifdef __cplusplus
}
#endif
#endif
