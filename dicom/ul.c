/* See ul.h. A PDU is read as header, then body; the bodies of the small ones are
 * gathered, P-DATA is walked fragment by fragment without being held.
 *
 * Table 9-10 of PS3.8 names the events; what is not allowed in a state becomes
 * A-ABORT from the service provider (AA-1, AA-8) and then Sta13. */
#include "dicom/ul_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WAITING, ASKED, OPEN, RELEASING, CLOSING };
enum { AT_HEADER, AT_BODY, AT_FRAGMENT_HEADER, AT_FRAGMENT };

struct hp_ul {
    int state;
    int at;
    bool first_byte_seen;
    uint8_t head[6]; /* of a PDU or of a fragment: both have six bytes */
    unsigned head_len;
    uint8_t type;
    uint32_t pdu_left;      /* bytes of the PDU that have not come yet */
    uint32_t fragment_left; /* the same for the fragment */
    uint8_t context_id, control;
    hp_buf body;
    uint8_t echo[64];
    uint8_t index_of[256]; /* context ID -> 1 + index of an accepted context */
    hp_ul_request request;
};

hp_code hp_ul_new(hp_ul **ret, hp_error *reterr)
{
    hp_ul *u = calloc(1, sizeof *u);

    if (!u)
        return hp_fail(reterr, HP_E_NO_MEMORY, "starting an association");
    *ret = u;
    return HP_OK;
}

void hp_ul_free(hp_ul *u)
{
    if (!u)
        return;
    hp_buf_done(&u->body);
    free(u);
}

const hp_ul_request *hp_ul_peer(const hp_ul *u)
{
    return &u->request;
}

bool hp_ul_inside_pdu(const hp_ul *u)
{
    return u->state != CLOSING && (u->at != AT_HEADER || u->head_len > 0);
}

const hp_ul_context *hp_ul_context_of(const hp_ul *u, uint8_t id)
{
    return u->index_of[id] ? &u->request.context[u->index_of[id] - 1] : NULL;
}

/* ---- what we send ---- */

static void put_short_pdu(hp_buf *out, uint8_t type, uint8_t b1, uint8_t b2, uint8_t b3)
{
    hp_buf_u8(out, type);
    hp_buf_u8(out, 0);
    hp_buf_u32be(out, 4);
    hp_buf_u8(out, 0);
    hp_buf_u8(out, b1);
    hp_buf_u8(out, b2);
    hp_buf_u8(out, b3);
}

void hp_ul_abort(hp_ul *u, uint8_t source, uint8_t reason, hp_buf *out)
{
    if (u->state == CLOSING)
        return;
    put_short_pdu(out, PDU_ABORT, 0, source, reason);
    u->state = CLOSING;
}

void hp_ul_release(hp_ul *u, hp_buf *out)
{
    if (u->state != RELEASING)
        return;
    put_short_pdu(out, PDU_RELEASE_RP, 0, 0, 0);
    u->state = CLOSING;
}

void hp_ul_reject(hp_ul *u, hp_ul_rejection why, hp_buf *out)
{
    if (u->state != ASKED)
        return;
    put_short_pdu(out, PDU_ASSOCIATE_RJ, why.result, why.source, why.reason);
    u->state = CLOSING;
}

void hp_ul_accept(hp_ul *u, hp_ul_takes takes, void *payload, hp_buf *out)
{
    hp_ul_request *rq = &u->request;

    if (u->state != ASKED)
        return;
    for (int i = 0; i < rq->context_count; i++) {
        hp_ul_context *c = &rq->context[i];

        if (!c->abstract_syntax.text[0] || !takes(c->abstract_syntax.text, payload))
            c->result = HP_UL_CONTEXT_NO_CLASS;
        else if (!c->readable)
            c->result = HP_UL_CONTEXT_NO_SYNTAX;
        else
            u->index_of[c->id] = (uint8_t)(i + 1);
    }
    hp_ul__put_accept(rq, u->echo, out);
    u->state = OPEN;
}

void hp_ul_put_data(const hp_ul *u, uint8_t context_id, bool command, const void *data,
                    size_t len, hp_buf *out)
{
    /* The maximum counts the PDV's length and header (6 bytes). A peer that
     * announces less than one byte of room gets one byte. */
    uint32_t max = u->request.max_pdu;
    size_t room = max == 0 || max > HP_UL_ANNOUNCED ? HP_UL_ANNOUNCED - 6
                  : max > 7                         ? max - 6
                                                    : 1;
    const uint8_t *p = data;

    do {
        size_t n = len < room ? len : room;

        hp_buf_u8(out, PDU_DATA);
        hp_buf_u8(out, 0);
        hp_buf_u32be(out, (uint32_t)(n + 6));
        hp_buf_u32be(out, (uint32_t)(n + 2));
        hp_buf_u8(out, context_id);
        hp_buf_u8(out, (uint8_t)((command ? 1 : 0) | (n == len ? 2 : 0)));
        hp_buf_put(out, p, n);
        p += n;
        len -= n;
    } while (len > 0);
}

/* ---- what we read ---- */

static hp_ul_kind violation(hp_ul *u, hp_ul_event *ev, uint8_t reason, hp_buf *out,
                            const char *why)
{
    snprintf(ev->why, sizeof ev->why, "%.119s", why);
    ev->abort_source = ABORT_PROVIDER;
    ev->abort_reason = reason;
    hp_ul_abort(u, ABORT_PROVIDER, reason, out);
    return HP_UL_VIOLATION;
}

static hp_ul_kind take_request(hp_ul *u, hp_ul_event *ev, hp_buf *out)
{
    hp_error e = HP_ERROR_INIT;
    hp_code r;

    if (u->body.failed) {
        hp_buf_done(&u->body);
        return violation(u, ev, 0, out, "out of memory");
    }
    r = hp_ul__parse_request(u->body.data, u->body.len, &u->request, &ev->rejection, &e);
    if (u->body.len >= 68)
        memcpy(u->echo, u->body.data + 4, 64);
    hp_buf_done(&u->body);
    if (r == HP_OK) {
        u->state = ASKED;
        return HP_UL_ASKED;
    }
    if (r != HP_E_REFUSED)
        return violation(u, ev, ABORT_INVALID_PARAMETER, out, e.msg);
    snprintf(ev->why, sizeof ev->why, "%.119s", e.msg);
    u->state = ASKED;
    hp_ul_reject(u, ev->rejection, out);
    return HP_UL_REFUSED;
}

/* A gathered body is complete. */
static hp_ul_kind take_body(hp_ul *u, hp_ul_event *ev, hp_buf *out)
{
    switch (u->type) {
    case PDU_ASSOCIATE_RQ:
        return take_request(u, ev, out);
    case PDU_ABORT:
        if (u->body.len >= 4) {
            ev->abort_source = u->body.data[2];
            ev->abort_reason = u->body.data[3];
        }
        u->state = CLOSING;
        return HP_UL_ABORTED;
    default: /* PDU_RELEASE_RQ */
        u->state = RELEASING;
        return HP_UL_RELEASE;
    }
}

static bool allowed(const hp_ul *u, uint8_t type)
{
    switch (type) {
    case PDU_ABORT:
        return true;
    case PDU_ASSOCIATE_RQ:
        return u->state == WAITING;
    case PDU_DATA:
    case PDU_RELEASE_RQ:
        return u->state == OPEN;
    default: /* AC, RJ, RELEASE-RP answer questions that we never ask */
        return false;
    }
}

static hp_ul_kind take_pdu_header(hp_ul *u, hp_ul_event *ev, hp_buf *out)
{
    u->type = u->head[0];
    u->pdu_left = hp_get_u32be(u->head + 2);
    u->head_len = 0;
    if (u->type < PDU_ASSOCIATE_RQ || u->type > PDU_ABORT)
        return violation(u, ev, ABORT_UNRECOGNIZED_PDU, out, "a PDU of unknown type");
    if (!allowed(u, u->type))
        return violation(u, ev, ABORT_UNEXPECTED_PDU, out,
                         "a PDU that is not allowed at this point");
    if (u->type == PDU_ASSOCIATE_RQ && u->pdu_left > HP_UL_MAX_REQUEST)
        return violation(u, ev, ABORT_INVALID_PARAMETER, out,
                         "an association request of more than 256 KiB");
    if (u->type == PDU_DATA && u->pdu_left > HP_UL_MAX_DATA)
        return violation(u, ev, ABORT_INVALID_PARAMETER, out,
                         "a data PDU of more than 1 MiB");
    if ((u->type == PDU_RELEASE_RQ || u->type == PDU_ABORT) && u->pdu_left != 4)
        return violation(u, ev, ABORT_INVALID_PARAMETER, out, "a PDU of wrong length");
    if (u->type == PDU_DATA) {
        u->at = u->pdu_left ? AT_FRAGMENT_HEADER : AT_HEADER;
        return HP_UL_MORE;
    }
    hp_buf_clear(&u->body);
    u->at = AT_BODY;
    if (u->pdu_left == 0) { /* an empty association request */
        u->at = AT_HEADER;
        return take_body(u, ev, out);
    }
    return HP_UL_MORE;
}

static void end_fragment(hp_ul *u, hp_ul_event *ev)
{
    ev->ends = true;
    u->at = u->pdu_left ? AT_FRAGMENT_HEADER : AT_HEADER;
}

static hp_ul_kind take_fragment_header(hp_ul *u, hp_ul_event *ev, hp_buf *out)
{
    uint32_t len = hp_get_u32be(u->head);

    u->head_len = 0;
    u->context_id = u->head[4];
    u->control = u->head[5];
    if (len < 2 || len - 2 > u->pdu_left)
        return violation(u, ev, ABORT_INVALID_PARAMETER, out,
                         "a fragment whose length does not fit its PDU");
    if (!hp_ul_context_of(u, u->context_id))
        return violation(u, ev, ABORT_INVALID_PARAMETER, out,
                         "a fragment on a presentation context that was not accepted");
    u->fragment_left = len - 2;
    u->at = AT_FRAGMENT;
    if (u->fragment_left > 0)
        return HP_UL_MORE;
    ev->context_id = u->context_id;
    ev->command = u->control & 1;
    ev->last = u->control & 2;
    end_fragment(u, ev);
    return HP_UL_DATA;
}

static hp_ul_kind take_fragment(hp_ul *u, const uint8_t **data, size_t *len,
                                hp_ul_event *ev)
{
    size_t n = *len < u->fragment_left ? *len : u->fragment_left;

    ev->context_id = u->context_id;
    ev->command = u->control & 1;
    ev->last = u->control & 2;
    ev->data = *data;
    ev->len = n;
    *data += n;
    *len -= n;
    u->fragment_left -= (uint32_t)n;
    u->pdu_left -= (uint32_t)n;
    if (u->fragment_left == 0)
        end_fragment(u, ev);
    return HP_UL_DATA;
}

/* Six bytes, of a PDU or a fragment; true when they are there. */
static bool gather_head(hp_ul *u, const uint8_t **data, size_t *len)
{
    size_t want = 6 - u->head_len, n = *len < want ? *len : want;

    memcpy(u->head + u->head_len, *data, n);
    u->head_len += (unsigned)n;
    *data += n;
    *len -= n;
    return u->head_len == 6;
}

static hp_ul_kind step(hp_ul *u, const uint8_t **data, size_t *len, hp_ul_event *ev,
                       hp_buf *out)
{
    size_t n;

    switch (u->at) {
    case AT_HEADER:
        return gather_head(u, data, len) ? take_pdu_header(u, ev, out) : HP_UL_MORE;
    case AT_BODY:
        n = *len < u->pdu_left ? *len : u->pdu_left;
        hp_buf_put(&u->body, *data, n);
        *data += n;
        *len -= n;
        u->pdu_left -= (uint32_t)n;
        if (u->pdu_left > 0)
            return HP_UL_MORE;
        u->at = AT_HEADER;
        return take_body(u, ev, out);
    case AT_FRAGMENT_HEADER:
        if (u->head_len == 0 && u->pdu_left < 6)
            return violation(u, ev, ABORT_INVALID_PARAMETER, out,
                             "a data PDU that ends inside a fragment header");
        if (!gather_head(u, data, len))
            return HP_UL_MORE;
        u->pdu_left -= 6;
        return take_fragment_header(u, ev, out);
    default:
        return take_fragment(u, data, len, ev);
    }
}

hp_ul_kind hp_ul_next(hp_ul *u, const uint8_t **data, size_t *len, hp_ul_event *ret,
                      hp_buf *out)
{
    memset(ret, 0, offsetof(hp_ul_event, why));
    ret->why[0] = 0;
    if (*len > 0 && !u->first_byte_seen) {
        u->first_byte_seen = true;
        if ((*data)[0] < PDU_ASSOCIATE_RQ || (*data)[0] > PDU_ABORT) {
            u->state = CLOSING;
            return ret->kind = HP_UL_NOT_DICOM;
        }
    }
    while (*len > 0 && u->state != CLOSING) {
        ret->kind = step(u, data, len, ret, out);
        if (ret->kind != HP_UL_MORE)
            return ret->kind;
    }
    if (u->state == CLOSING)
        *len = 0;
    return HP_UL_MORE;
}

const char *hp_ul_guess_protocol(const uint8_t *data, size_t len)
{
    static const struct {
        const char *start, *name;
    } known[] = {
        {"GET ", "an HTTP request"}, {"POST", "an HTTP request"},
        {"HEAD", "an HTTP request"}, {"PUT ", "an HTTP request"},
        {"OPTI", "an HTTP request"}, {"CONN", "an HTTP request"},
        {"DELE", "an HTTP request"}, {"PRI ", "an HTTP/2 request"},
        {"SSH-", "an SSH client"},
    };

    /* a TLS record: handshake (22), version 3.x; or a lone first byte of one */
    if (len >= 1 && data[0] == 0x16 && (len < 2 || data[1] == 3))
        return "a TLS hello (this port speaks plain DICOM)";
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (len >= 4 && memcmp(data, known[i].start, 4) == 0)
            return known[i].name;
    return "something that is not DICOM";
}
