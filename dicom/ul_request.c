/* A-ASSOCIATE-RQ in, A-ASSOCIATE-AC out (PS3.8 9.3.2, 9.3.3, annex D; PS3.7
 * annex D.3.3). Items are a type, a reserved byte and a 16-bit length; each is
 * read inside the bounds of the one around it. Unknown ones are skipped. */
#include "dicom/ul_internal.h"

#include <string.h>

enum {
    ITEM_APPLICATION_CONTEXT = 0x10,
    ITEM_CONTEXT_RQ = 0x20,
    ITEM_CONTEXT_AC = 0x21,
    ITEM_ABSTRACT_SYNTAX = 0x30,
    ITEM_TRANSFER_SYNTAX = 0x40,
    ITEM_USER = 0x50,
    ITEM_MAX_LENGTH = 0x51,
    ITEM_IMPLEMENTATION = 0x52,
    ITEM_WINDOW = 0x53,
    ITEM_ROLE = 0x54,
    ITEM_VERSION_NAME = 0x55,
    FIXED_PART = 68 /* version, reserved, two titles, 32 reserved */
};

#define APPLICATION_CONTEXT "1.2.840.10008.3.1.1.1"

/* The order of choice when a context offers several. Deflated is not here. */
static const char *const readable[] = {
    "1.2.840.10008.1.2.1",    "1.2.840.10008.1.2",      "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.5",    "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.2",
};
enum { READABLE = sizeof readable / sizeof *readable };

/* ---- a cursor over items ---- */

typedef struct span {
    const uint8_t *p;
    size_t len;
} span;

typedef struct item {
    uint8_t type;
    span body;
} item;

/* false at the end; *ok turns false when an item leaves its enclosure. */
static bool next_item(span *s, item *ret, bool *ok)
{
    size_t len;

    if (s->len == 0)
        return false;
    if (s->len < 4 || (len = hp_get_u16be(s->p + 2)) > s->len - 4) {
        *ok = false;
        return false;
    }
    ret->type = s->p[0];
    ret->body = (span){s->p + 4, len};
    s->p += 4 + len;
    s->len -= 4 + len;
    return true;
}

/* Text without outer spaces and zeros; "" when it does not fit. */
static void get_text(span s, char *ret, size_t size)
{
    while (s.len && (s.p[s.len - 1] == ' ' || s.p[s.len - 1] == 0))
        s.len--;
    while (s.len && s.p[0] == ' ') {
        s.p++;
        s.len--;
    }
    if (s.len >= size)
        s.len = 0;
    memcpy(ret, s.p, s.len);
    ret[s.len] = 0;
}

static hp_uid get_uid(span s)
{
    hp_uid u;

    get_text(s, u.text, sizeof u.text);
    if (!hp_uid_valid(u.text))
        u.text[0] = 0;
    return u;
}

/* ---- presentation contexts ---- */

static int rank_of(const char *syntax)
{
    for (int i = 0; i < READABLE; i++)
        if (strcmp(readable[i], syntax) == 0)
            return i;
    return READABLE;
}

static hp_code parse_context(span body, hp_ul_request *rq, hp_error *reterr)
{
    hp_ul_context *c = &rq->context[rq->context_count];
    int best = READABLE + 1;
    bool ok = true;
    item it;

    if (body.len < 4)
        return hp_fail(reterr, HP_E_INVALID, "a presentation context that is too short");
    if (rq->context_count == HP_UL_MAX_CONTEXTS)
        return hp_fail(reterr, HP_E_INVALID, "more than 128 presentation contexts");
    memset(c, 0, sizeof *c);
    c->id = body.p[0];
    if (c->id % 2 == 0)
        return hp_fail(reterr, HP_E_INVALID, "even presentation context ID %u", c->id);
    for (int i = 0; i < rq->context_count; i++)
        if (rq->context[i].id == c->id)
            return hp_fail(reterr, HP_E_INVALID, "presentation context ID %u twice",
                           c->id);
    body.p += 4;
    body.len -= 4;
    while (next_item(&body, &it, &ok)) {
        if (it.type == ITEM_ABSTRACT_SYNTAX) {
            c->abstract_syntax = get_uid(it.body);
        } else if (it.type == ITEM_TRANSFER_SYNTAX) {
            hp_uid syntax = get_uid(it.body);
            int rank = rank_of(syntax.text);

            if (rank < best) { /* the first of the unreadable ones stays */
                best = rank;
                c->transfer_syntax = syntax;
            }
        }
    }
    if (!ok)
        return hp_fail(reterr, HP_E_INVALID,
                       "an item that leaves its presentation context");
    c->readable = best < READABLE;
    rq->context_count++;
    return HP_OK;
}

/* ---- user information ---- */

static hp_code bad_item(hp_error *reterr, uint8_t type)
{
    return hp_fail(reterr, HP_E_INVALID, "user information item %02XH of wrong length",
                   type);
}

static hp_code parse_role(span body, hp_ul_request *rq, hp_error *reterr)
{
    hp_ul_role *role = &rq->role[rq->role_count];
    size_t uid_len = body.len < 2 ? 0 : hp_get_u16be(body.p);

    if (body.len < 4 || uid_len != body.len - 4)
        return bad_item(reterr, ITEM_ROLE);
    if (rq->role_count == HP_UL_MAX_CONTEXTS)
        return HP_OK; /* more roles than contexts: not answered */
    role->sop_class = get_uid((span){body.p + 2, uid_len});
    role->scu = body.p[2 + uid_len] != 0;
    role->scp = body.p[3 + uid_len] != 0;
    if (role->sop_class.text[0])
        rq->role_count++;
    return HP_OK;
}

static hp_code parse_user(span body, hp_ul_request *rq, hp_error *reterr)
{
    bool ok = true;
    hp_code r = HP_OK;
    item it;

    while (r == HP_OK && next_item(&body, &it, &ok)) {
        switch (it.type) {
        case ITEM_MAX_LENGTH:
            if (it.body.len != 4)
                return bad_item(reterr, it.type);
            rq->max_pdu = hp_get_u32be(it.body.p);
            break;
        case ITEM_IMPLEMENTATION:
            rq->implementation = get_uid(it.body);
            break;
        case ITEM_WINDOW:
            if (it.body.len != 4)
                return bad_item(reterr, it.type);
            rq->window_proposed = true;
            break;
        case ITEM_ROLE:
            r = parse_role(it.body, rq, reterr);
            break;
        case ITEM_VERSION_NAME:
            get_text(it.body, rq->version_name, sizeof rq->version_name);
            break;
        default: /* extended negotiation, user identity, what is to come */
            break;
        }
    }
    if (!ok)
        return hp_fail(reterr, HP_E_INVALID, "an item that leaves the user information");
    return r;
}

/* ---- the whole request ---- */

hp_code hp_ul__parse_request(const uint8_t *data, size_t len, hp_ul_request *ret,
                             hp_ul_rejection *ret_rejection, hp_error *reterr)
{
    span rest;
    hp_uid application = {""};
    bool ok = true;
    hp_code r = HP_OK;
    item it;

    memset(ret, 0, sizeof *ret);
    if (len < FIXED_PART)
        return hp_fail(reterr, HP_E_INVALID, "an association request of %zu bytes", len);
    rest = (span){data + FIXED_PART, len - FIXED_PART};
    get_text((span){data + 4, 16}, ret->called_ae, sizeof ret->called_ae);
    get_text((span){data + 20, 16}, ret->calling_ae, sizeof ret->calling_ae);
    if (!(hp_get_u16be(data) & 1)) {
        *ret_rejection = HP_UL_REJECT_VERSION;
        return hp_fail(reterr, HP_E_REFUSED, "protocol version %04XH is not supported",
                       hp_get_u16be(data));
    }
    while (r == HP_OK && next_item(&rest, &it, &ok)) {
        if (it.type == ITEM_APPLICATION_CONTEXT)
            application = get_uid(it.body);
        else if (it.type == ITEM_CONTEXT_RQ)
            r = parse_context(it.body, ret, reterr);
        else if (it.type == ITEM_USER)
            r = parse_user(it.body, ret, reterr);
    }
    if (r == HP_OK && !ok)
        r = hp_fail(reterr, HP_E_INVALID, "an item that leaves the association request");
    if (r == HP_OK && strcmp(application.text, APPLICATION_CONTEXT) != 0) {
        *ret_rejection = HP_UL_REJECT_CONTEXT_NAME;
        r = hp_fail(reterr, HP_E_REFUSED, "application context is not DICOM's");
    }
    return r;
}

/* ---- the answer ---- */

static size_t begin_item(hp_buf *b, uint8_t type)
{
    hp_buf_u8(b, type);
    hp_buf_u8(b, 0);
    hp_buf_u16be(b, 0);
    return b->len;
}

static void end_item(hp_buf *b, size_t start)
{
    size_t len = b->len - start;

    if (b->failed)
        return;
    b->data[start - 2] = (uint8_t)(len >> 8);
    b->data[start - 1] = (uint8_t)len;
}

static void put_text_item(hp_buf *b, uint8_t type, const char *text)
{
    size_t at = begin_item(b, type);

    hp_buf_put(b, text, strlen(text));
    end_item(b, at);
}

static void put_context(hp_buf *b, const hp_ul_context *c)
{
    size_t at = begin_item(b, ITEM_CONTEXT_AC);

    hp_buf_u8(b, c->id);
    hp_buf_u8(b, 0);
    hp_buf_u8(b, c->result);
    hp_buf_u8(b, 0);
    /* a rejected context still carries one; ours to choose if none was sane */
    put_text_item(b, ITEM_TRANSFER_SYNTAX,
                  c->transfer_syntax.text[0] ? c->transfer_syntax.text : readable[1]);
    end_item(b, at);
}

static bool class_accepted(const hp_ul_request *rq, const char *sop_class)
{
    for (int i = 0; i < rq->context_count; i++)
        if (rq->context[i].result == HP_UL_CONTEXT_ACCEPTED &&
            strcmp(rq->context[i].abstract_syntax.text, sop_class) == 0)
            return true;
    return false;
}

/* PS3.7 D.3.3.4. All we offer today is storage, where the peer is the SCU. */
static void put_role(hp_buf *b, const hp_ul_role *role)
{
    size_t at = begin_item(b, ITEM_ROLE);

    hp_buf_u16be(b, (uint16_t)strlen(role->sop_class.text));
    hp_buf_put(b, role->sop_class.text, strlen(role->sop_class.text));
    hp_buf_u8(b, role->scu);
    hp_buf_u8(b, 0);
    end_item(b, at);
}

static void put_user(hp_buf *b, const hp_ul_request *rq)
{
    size_t user = begin_item(b, ITEM_USER), at;

    at = begin_item(b, ITEM_MAX_LENGTH);
    hp_buf_u32be(b, HP_UL_ANNOUNCED);
    end_item(b, at);
    put_text_item(b, ITEM_IMPLEMENTATION, HP_IMPLEMENTATION_CLASS_UID);
    if (rq->window_proposed) {
        at = begin_item(b, ITEM_WINDOW);
        hp_buf_u16be(b, 1);
        hp_buf_u16be(b, 1);
        end_item(b, at);
    }
    for (int i = 0; i < rq->role_count; i++)
        if (class_accepted(rq, rq->role[i].sop_class.text))
            put_role(b, &rq->role[i]);
    put_text_item(b, ITEM_VERSION_NAME, HP_IMPLEMENTATION_VERSION);
    end_item(b, user);
}

void hp_ul__put_accept(const hp_ul_request *rq, const uint8_t echo[64], hp_buf *out)
{
    size_t start = out->len;
    size_t len;

    hp_buf_u8(out, PDU_ASSOCIATE_AC);
    hp_buf_u8(out, 0);
    hp_buf_u32be(out, 0);
    hp_buf_u16be(out, 1);
    hp_buf_u16be(out, 0);
    hp_buf_put(out, echo, 64);
    put_text_item(out, ITEM_APPLICATION_CONTEXT, APPLICATION_CONTEXT);
    for (int i = 0; i < rq->context_count; i++)
        put_context(out, &rq->context[i]);
    put_user(out, rq);
    if (out->failed)
        return;
    len = out->len - start - 6;
    for (int i = 0; i < 4; i++)
        out->data[start + 2 + (size_t)i] = (uint8_t)(len >> (24 - 8 * i));
}
