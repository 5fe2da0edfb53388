/* C-STORE SCU over DCMTK, for the sender process only: proposes the classes of
 * the job's objects and nothing else, TCP_NODELAY set, a timeout on each step. */
#ifndef HP_DICOM_SCU_H
#define HP_DICOM_SCU_H

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

typedef struct hp_send_item {
    const char *path;
    hp_uid sop_class, sop_instance;
    /* out: */
    hp_code code;    /* OK: accepted; E_REFUSED: for good; retryable codes: later */
    uint16_t status; /* DIMSE status, 0xFFFF when none came */
    char words[160];
} hp_send_item;

/* Sends all items over one association. Returns HP_OK when the association was
 * held, whatever the items' codes; otherwise every item carries that code. */
hp_code hp_scu_send(const hp_peer *peer, hp_send_item *items, int count, hp_error *reterr);
hp_code hp_scu_echo(const hp_peer *peer, double *ret_ms, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
