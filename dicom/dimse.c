/* See dimse.h. */
#include "dicom/dimse.h"

#include <stdio.h>
#include <string.h>

enum { IDLE, IN_COMMAND, IN_DATASET };

enum {
    E_GROUP_LENGTH = 0x0000,
    E_AFFECTED_CLASS = 0x0002,
    E_REQUESTED_CLASS = 0x0003,
    E_FIELD = 0x0100,
    E_MESSAGE_ID = 0x0110,
    E_RESPONDED_ID = 0x0120,
    E_PRIORITY = 0x0700,
    E_DATASET_TYPE = 0x0800,
    E_STATUS = 0x0900,
    E_COMMENT = 0x0902,
    E_AFFECTED_INSTANCE = 0x1000,
    E_REQUESTED_INSTANCE = 0x1001
};

/* ---- command sets ---- */

static void get_uid(const uint8_t *p, size_t len, hp_uid *ret)
{
    while (len && (p[len - 1] == 0 || p[len - 1] == ' '))
        len--;
    if (len >= sizeof ret->text || memchr(p, 0, len))
        len = 0;
    memcpy(ret->text, p, len);
    ret->text[len] = 0;
}

static bool get_u16(const uint8_t *p, size_t len, uint16_t *ret)
{
    if (len != 2)
        return false;
    *ret = hp_get_u16le(p);
    return true;
}

hp_code hp_dimse_parse(const uint8_t *data, size_t len, hp_dimse_command *ret,
                       hp_error *reterr)
{
    hp_dimse_command c = {0, 0, HP_DIMSE_NO_DATASET, {""}, {""}};
    hp_uid requested_class = {""}, requested_instance = {""};
    bool field = false, id = false;

    while (len > 0) {
        uint32_t n;

        if (len < 8 || hp_get_u16le(data) != 0x0000)
            return hp_fail(reterr, HP_E_INVALID, "a command set with a broken element");
        n = hp_get_u32le(data + 4);
        if (n > len - 8)
            return hp_fail(reterr, HP_E_INVALID, "a command element that leaves its set");
        switch (hp_get_u16le(data + 2)) {
        case E_AFFECTED_CLASS:
            get_uid(data + 8, n, &c.sop_class);
            break;
        case E_REQUESTED_CLASS:
            get_uid(data + 8, n, &requested_class);
            break;
        case E_AFFECTED_INSTANCE:
            get_uid(data + 8, n, &c.sop_instance);
            break;
        case E_REQUESTED_INSTANCE:
            get_uid(data + 8, n, &requested_instance);
            break;
        case E_FIELD:
            field = get_u16(data + 8, n, &c.field);
            break;
        case E_MESSAGE_ID:
            id = get_u16(data + 8, n, &c.message_id);
            break;
        case E_DATASET_TYPE:
            get_u16(data + 8, n, &c.dataset_type);
            break;
        default:
            break;
        }
        data += 8 + n;
        len -= 8 + n;
    }
    if (!c.sop_class.text[0])
        c.sop_class = requested_class;
    if (!c.sop_instance.text[0])
        c.sop_instance = requested_instance;
    if (!field)
        return hp_fail(reterr, HP_E_INVALID, "a command set without command field");
    if (!id && !(c.field & HP_DIMSE_RESPONSE) && c.field != HP_DIMSE_C_CANCEL_RQ)
        return hp_fail(reterr, HP_E_INVALID, "a request without message ID");
    *ret = c;
    return HP_OK;
}

static void put_u16(hp_buf *b, uint16_t element, uint16_t value)
{
    hp_buf_u16le(b, 0);
    hp_buf_u16le(b, element);
    hp_buf_u32le(b, 2);
    hp_buf_u16le(b, value);
}

static void put_text(hp_buf *b, uint16_t element, const char *text, char pad)
{
    size_t len = strlen(text);

    hp_buf_u16le(b, 0);
    hp_buf_u16le(b, element);
    hp_buf_u32le(b, (uint32_t)(len + (len & 1)));
    hp_buf_put(b, text, len);
    if (len & 1)
        hp_buf_put(b, &pad, 1);
}

static void put_uid(hp_buf *b, uint16_t element, const hp_uid *uid)
{
    if (uid->text[0])
        put_text(b, element, uid->text, 0);
}

static size_t begin_set(hp_buf *b)
{
    hp_buf_u16le(b, 0);
    hp_buf_u16le(b, E_GROUP_LENGTH);
    hp_buf_u32le(b, 4);
    hp_buf_u32le(b, 0);
    return b->len;
}

static void end_set(hp_buf *b, size_t start)
{
    size_t len = b->len - start;

    for (size_t i = 0; i < 4 && !b->failed; i++)
        b->data[start - 4 + i] = (uint8_t)(len >> (8 * i));
}

void hp_dimse_put_response(const hp_dimse_command *rq, uint16_t status,
                           const char *comment, hp_buf *out)
{
    size_t start = begin_set(out);

    put_uid(out, E_AFFECTED_CLASS, &rq->sop_class);
    put_u16(out, E_FIELD, (uint16_t)(rq->field | HP_DIMSE_RESPONSE));
    put_u16(out, E_RESPONDED_ID, rq->message_id);
    put_u16(out, E_DATASET_TYPE, HP_DIMSE_NO_DATASET);
    put_u16(out, E_STATUS, status);
    if (comment) {
        char cut[65];

        snprintf(cut, sizeof cut, "%.64s", comment);
        put_text(out, E_COMMENT, cut, ' ');
    }
    put_uid(out, E_AFFECTED_INSTANCE, &rq->sop_instance);
    end_set(out, start);
}

void hp_dimse_put_request(const hp_dimse_command *rq, hp_buf *out)
{
    size_t start = begin_set(out);

    put_uid(out, E_AFFECTED_CLASS, &rq->sop_class);
    put_u16(out, E_FIELD, rq->field);
    put_u16(out, E_MESSAGE_ID, rq->message_id);
    if (rq->field == HP_DIMSE_C_STORE_RQ)
        put_u16(out, E_PRIORITY, 0);
    put_u16(out, E_DATASET_TYPE, rq->dataset_type);
    put_uid(out, E_AFFECTED_INSTANCE, &rq->sop_instance);
    end_set(out, start);
}

/* ---- messages ---- */

void hp_dimse_reader_done(hp_dimse_reader *r)
{
    hp_buf_done(&r->bytes);
    r->state = IDLE;
}

bool hp_dimse_inside_message(const hp_dimse_reader *r)
{
    return r->state != IDLE;
}

static hp_code command_complete(hp_dimse_reader *r, hp_dimse_event *ret,
                                uint8_t *ret_reason, hp_error *reterr)
{
    hp_code code;

    if (r->bytes.failed) {
        *ret_reason = 0;
        return hp_fail(reterr, HP_E_NO_MEMORY, "reading a command");
    }
    code = hp_dimse_parse(r->bytes.data, r->bytes.len, &r->command, reterr);
    if (r->bytes.cap > 4096) /* a usual command has 200 bytes: keep that much */
        hp_buf_done(&r->bytes);
    hp_buf_clear(&r->bytes);
    if (code != HP_OK)
        return code;
    r->has_dataset = r->command.dataset_type != HP_DIMSE_NO_DATASET;
    r->state = r->has_dataset ? IN_DATASET : IDLE;
    *ret = HP_DIMSE_COMMAND;
    return HP_OK;
}

hp_code hp_dimse_take(hp_dimse_reader *r, const hp_ul_event *piece, hp_dimse_event *ret,
                      uint8_t *ret_reason, hp_error *reterr)
{
    *ret_reason = 6; /* invalid PDU parameter value */
    if (r->state != IDLE && piece->context_id != r->context_id)
        return hp_fail(reterr, HP_E_INVALID,
                       "a message that changes its presentation context");
    r->context_id = piece->context_id;
    if (piece->command != (r->state != IN_DATASET))
        return hp_fail(reterr, HP_E_INVALID,
                       piece->command ? "a command inside a dataset"
                                      : "a dataset without its command");
    if (r->state == IN_DATASET) {
        *ret = piece->last && piece->ends ? HP_DIMSE_DATA_END : HP_DIMSE_DATA;
        if (*ret == HP_DIMSE_DATA_END)
            r->state = IDLE;
        return HP_OK;
    }
    r->state = IN_COMMAND;
    if (piece->len > HP_DIMSE_MAX_COMMAND - r->bytes.len)
        return hp_fail(reterr, HP_E_LIMIT, "a command of more than 64 KiB");
    hp_buf_put(&r->bytes, piece->data, piece->len);
    *ret = HP_DIMSE_MORE;
    return piece->last && piece->ends ? command_complete(r, ret, ret_reason, reterr)
                                      : HP_OK;
}
