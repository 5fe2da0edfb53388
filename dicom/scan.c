/* See scan.h. One loop over four small states; a stack of frames remembers in
 * which sequence, item or fragment list the next header is read, where it ends
 * (when it says so) and how its content is encoded.
 *
 * Invariant: position <= limit of the innermost frame, always. Every length is
 * compared with `limit - position` before it is added to anything, so no sum
 * can overflow and no value can be skipped past the end of its item. */
#include "dicom/scan.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/sha256.h"

#define UNDEFINED 0xFFFFFFFFu
#define TAG(group, element) ((uint32_t)(group) << 16 | (element))
#define TAG_ITEM TAG(0xFFFE, 0xE000)
#define TAG_ITEM_END TAG(0xFFFE, 0xE00D)
#define TAG_SEQUENCE_END TAG(0xFFFE, 0xE0DD)
#define TAG_PIXELS TAG(0x7FE0, 0x0010)

enum { SEQUENCE, ITEM, FRAGMENTS };
enum { HEADER, SKIP, CAPTURE, PEEK };
enum { MAX_FRAMES = 2 * HP_SCAN_MAX_DEPTH + 2, VALUE_MAX = 256 };

typedef struct frame {
    uint64_t limit; /* nothing inside may reach beyond; the parent's when open */
    bool open;      /* undefined length: closed by a delimiter */
    uint8_t kind;
    uint8_t encoding; /* of its content */
} frame;

enum {
    V_CLASS,
    V_INSTANCE,
    V_STUDY_DATE,
    V_ACCESSION,
    V_MODALITY,
    V_PATIENT,
    V_STUDY,
    V_SERIES,
    V_COUNT
};
static const uint32_t wanted[V_COUNT] = {
    TAG(0x0008, 0x0016), TAG(0x0008, 0x0018), TAG(0x0008, 0x0020), TAG(0x0008, 0x0050),
    TAG(0x0008, 0x0060), TAG(0x0010, 0x0020), TAG(0x0020, 0x000D), TAG(0x0020, 0x000E),
};

struct hp_scan {
    hp_encoding encoding;
    uint64_t max_bytes;
    uint64_t position;
    hp_error failure;

    int state;
    uint64_t remain; /* of the value: SKIP, CAPTURE, PEEK */
    uint8_t head[12];
    unsigned head_len, head_need;

    frame frames[MAX_FRAMES];
    int frame_count;
    int sequences; /* frames that are sequences */
    int deepest;
    int soft; /* 1 + index of the outermost soft frame; 0: none */

    int capturing;
    bool seen[V_COUNT];
    size_t value_len[V_COUNT];
    char value[V_COUNT][VALUE_MAX];
    bool has_pixels;
};

hp_encoding hp_encoding_of(const char *transfer_syntax)
{
    if (strcmp(transfer_syntax, "1.2.840.10008.1.2") == 0)
        return HP_IMPLICIT_LE;
    if (strcmp(transfer_syntax, "1.2.840.10008.1.2.2") == 0)
        return HP_EXPLICIT_BE;
    return HP_EXPLICIT_LE;
}

hp_code hp_scan_new(hp_encoding encoding, uint64_t max_bytes, hp_scan **ret,
                    hp_error *reterr)
{
    hp_scan *s = malloc(sizeof *s);

    if (!s)
        return hp_fail(reterr, HP_E_NO_MEMORY, "starting a dataset scan");
    hp_scan_reset(s, encoding, max_bytes);
    *ret = s;
    return HP_OK;
}

void hp_scan_free(hp_scan *s)
{
    free(s);
}

void hp_scan_reset(hp_scan *s, hp_encoding encoding, uint64_t max_bytes)
{
    memset(s, 0, sizeof *s);
    s->encoding = encoding;
    s->max_bytes = max_bytes;
    s->head_need = 8;
}

/* ---- frames ---- */

static uint64_t limit_of(const hp_scan *s)
{
    return s->frame_count ? s->frames[s->frame_count - 1].limit : s->max_bytes;
}

static hp_encoding encoding_of(const hp_scan *s)
{
    return s->frame_count ? (hp_encoding)s->frames[s->frame_count - 1].encoding
                          : s->encoding;
}

static void pop(hp_scan *s)
{
    s->frame_count--;
    if (s->frames[s->frame_count].kind == SEQUENCE)
        s->sequences--;
    if (s->soft > s->frame_count)
        s->soft = 0;
}

/* Frames of defined length end by themselves. */
static void close_full_frames(hp_scan *s)
{
    while (s->frame_count && !s->frames[s->frame_count - 1].open &&
           s->frames[s->frame_count - 1].limit == s->position)
        pop(s);
}

static void skip(hp_scan *s, uint64_t bytes)
{
    s->state = bytes ? SKIP : HEADER;
    s->remain = bytes;
    s->head_len = 0;
    s->head_need = 8;
}

/* A failure inside a soft frame only says that it was no sequence after all. */
static hp_code refuse(hp_scan *s, hp_code code, const char *what)
{
    if (s->soft) {
        uint64_t end = s->frames[s->soft - 1].limit;

        for (int keep = s->soft - 1; s->frame_count > keep;)
            pop(s);
        skip(s, end - s->position);
        return HP_OK;
    }
    return hp_fail(&s->failure, code, "%s near byte %llu of the dataset", what,
                   (unsigned long long)s->position);
}

static hp_code too_deep(hp_scan *s)
{
    return hp_fail(&s->failure, HP_E_LIMIT,
                   "sequences nested deeper than %d near byte %llu of the dataset",
                   HP_SCAN_MAX_DEPTH, (unsigned long long)s->position);
}

static hp_code leaves_item(hp_scan *s)
{
    return s->frame_count
               ? refuse(s, HP_E_INVALID, "a length that leaves its enclosing item")
               : refuse(s, HP_E_LIMIT, "a length beyond the allowed object size");
}

/* Opens a frame at the present position; `length` has been checked. */
static hp_code push(hp_scan *s, int kind, uint32_t length, hp_encoding encoding)
{
    frame *f;

    if (kind == SEQUENCE && s->sequences == HP_SCAN_MAX_DEPTH)
        return too_deep(s);
    /* sequences and items alternate, fragments are innermost: never full */
    f = &s->frames[s->frame_count];
    f->kind = (uint8_t)kind;
    f->encoding = (uint8_t)encoding;
    f->open = length == UNDEFINED;
    f->limit = f->open ? limit_of(s) : s->position + length;
    s->frame_count++;
    if (kind == SEQUENCE && ++s->sequences > s->deepest)
        s->deepest = s->sequences;
    skip(s, 0);
    return HP_OK;
}

/* ---- headers ---- */

static uint32_t tag_at(const uint8_t *p, hp_encoding e)
{
    return e == HP_EXPLICIT_BE ? TAG(hp_get_u16be(p), hp_get_u16be(p + 2))
                               : TAG(hp_get_u16le(p), hp_get_u16le(p + 2));
}

static uint32_t length_at(const uint8_t *p, hp_encoding e)
{
    return e == HP_EXPLICIT_BE ? hp_get_u32be(p) : hp_get_u32le(p);
}

/* PS3.5 7.1.2: these have two reserved bytes and a 32-bit length, and so will
 * every VR to come. A VR that is not two capitals is a mistake of an old
 * device, which then wrote 16 bits. */
static bool has_long_length(const char *vr)
{
    static const char short_vrs[] = "AEASATCSDADSDTFLFDISLOLTPNSHSLSSSTTMUIULUS";

    if (vr[0] < 'A' || vr[0] > 'Z' || vr[1] < 'A' || vr[1] > 'Z')
        return false;
    for (size_t i = 0; i + 1 < sizeof short_vrs; i += 2)
        if (short_vrs[i] == vr[0] && short_vrs[i + 1] == vr[1])
            return false;
    return true;
}

static int capture_index(const hp_scan *s, uint32_t tag)
{
    if (s->frame_count)
        return -1;
    for (int i = 0; i < V_COUNT; i++)
        if (wanted[i] == tag)
            return s->seen[i] ? -1 : i;
    return -1;
}

/* Items and delimiters. The length of a delimiter is not looked at. */
static hp_code take_item_tag(hp_scan *s, uint32_t tag, uint32_t length)
{
    frame *top = s->frame_count ? &s->frames[s->frame_count - 1] : NULL;

    if (tag == TAG_ITEM) {
        if (!top || top->kind == ITEM)
            return refuse(s, HP_E_INVALID, "an item outside a sequence");
        if (length != UNDEFINED && length > top->limit - s->position)
            return leaves_item(s);
        if (top->kind == SEQUENCE)
            return push(s, ITEM, length, (hp_encoding)top->encoding);
        if (length == UNDEFINED)
            return refuse(s, HP_E_INVALID, "a fragment of undefined length");
        skip(s, length);
        return HP_OK;
    }
    if (top && top->open && tag == TAG_SEQUENCE_END) {
        /* an item may forget its own delimiter */
        if (top->kind == ITEM && s->frames[s->frame_count - 2].open)
            pop(s);
        pop(s);
    } else if (top && top->open && top->kind == ITEM && tag == TAG_ITEM_END) {
        pop(s);
    } else if (top && top->kind != ITEM && tag != TAG_SEQUENCE_END) {
        return refuse(s, HP_E_INVALID, "something other than an item in a sequence");
    }
    skip(s, 0); /* a stray delimiter is passed over */
    return HP_OK;
}

static bool is_vr(const char *vr, const char *what)
{
    return vr[0] == what[0] && vr[1] == what[1];
}

static hp_code take_open_value(hp_scan *s, uint32_t tag, const char *vr)
{
    hp_encoding e = encoding_of(s);

    if (tag == TAG_PIXELS || (e != HP_IMPLICIT_LE && vr[0] == 'O'))
        return push(s, FRAGMENTS, UNDEFINED, e);
    /* PS3.5 6.2.2, note: UN of undefined length holds Implicit VR LE */
    if (e != HP_IMPLICIT_LE && is_vr(vr, "UN"))
        e = HP_IMPLICIT_LE;
    return push(s, SEQUENCE, UNDEFINED, e);
}

static hp_code take_value(hp_scan *s, uint32_t tag, const char *vr, uint32_t length)
{
    hp_encoding e = encoding_of(s);
    int c = capture_index(s, tag);

    if (s->frame_count && s->frames[s->frame_count - 1].kind != ITEM)
        return refuse(s, HP_E_INVALID, "something other than an item in a sequence");
    if (tag == TAG_PIXELS && !s->frame_count)
        s->has_pixels = true;
    if (length == UNDEFINED)
        return take_open_value(s, tag, vr);
    if (length > limit_of(s) - s->position)
        return leaves_item(s);
    skip(s, length);
    if (c >= 0) {
        s->seen[c] = true;
        s->capturing = c;
        if (length)
            s->state = CAPTURE;
    } else if (e != HP_IMPLICIT_LE && is_vr(vr, "SQ")) {
        return push(s, SEQUENCE, length, e);
    } else if (length >= 8 && tag != TAG_PIXELS &&
               (e == HP_IMPLICIT_LE || is_vr(vr, "UN"))) {
        s->state = PEEK;
    }
    return HP_OK;
}

/* head holds 8 or 12 bytes. */
static hp_code take_header(hp_scan *s)
{
    hp_encoding e = encoding_of(s);
    uint32_t tag = tag_at(s->head, e);
    const char *vr = (const char *)s->head + 4;
    uint32_t length;

    if (tag == TAG_ITEM || tag == TAG_ITEM_END || tag == TAG_SEQUENCE_END)
        return take_item_tag(s, tag, length_at(s->head + 4, e));
    if (e == HP_IMPLICIT_LE)
        return take_value(s, tag, "  ", length_at(s->head + 4, e));
    if (has_long_length(vr)) {
        if (s->head_len == 8) {
            if (limit_of(s) - s->position < 4)
                return leaves_item(s);
            s->head_need = 12;
            return HP_OK;
        }
        length = length_at(s->head + 8, e);
    } else {
        length =
            e == HP_EXPLICIT_BE ? hp_get_u16be(s->head + 6) : hp_get_u16le(s->head + 6);
    }
    return take_value(s, tag, vr, length);
}

/* ---- the loop ---- */

static size_t min_size(uint64_t a, size_t b)
{
    return a < b ? (size_t)a : b;
}

static size_t gather(hp_scan *s, const uint8_t *p, size_t len)
{
    size_t n = min_size(s->head_need - s->head_len, len);

    memcpy(s->head + s->head_len, p, n);
    s->head_len += (unsigned)n;
    s->position += n;
    return n;
}

static size_t capture(hp_scan *s, const uint8_t *p, size_t len)
{
    size_t n = min_size(s->remain, len);
    int c = s->capturing;
    size_t keep = min_size(VALUE_MAX - s->value_len[c], n);

    memcpy(s->value[c] + s->value_len[c], p, keep);
    s->value_len[c] += keep;
    s->position += n;
    s->remain -= n;
    if (s->remain == 0)
        skip(s, 0);
    return n;
}

/* The first 8 bytes of a value that may be a sequence are in head. */
static hp_code take_peek(hp_scan *s)
{
    uint64_t rest = s->remain - 8;
    uint32_t length = hp_get_u32le(s->head + 4);
    hp_code r;

    if (tag_at(s->head, HP_IMPLICIT_LE) != TAG_ITEM ||
        (length != UNDEFINED && length > rest)) {
        skip(s, rest);
        return HP_OK;
    }
    r = push(s, SEQUENCE, (uint32_t)rest, HP_IMPLICIT_LE);
    if (r != HP_OK)
        return r;
    if (!s->soft)
        s->soft = s->frame_count;
    return take_item_tag(s, TAG_ITEM, length);
}

static hp_code step(hp_scan *s, const uint8_t **p, size_t *len)
{
    size_t n = 0;
    hp_code r = HP_OK;

    switch (s->state) {
    case SKIP:
        n = min_size(s->remain, *len);
        s->position += n;
        s->remain -= n;
        if (s->remain == 0)
            skip(s, 0);
        break;
    case CAPTURE:
        n = capture(s, *p, *len);
        break;
    case PEEK:
        n = gather(s, *p, *len);
        if (s->head_len == 8)
            r = take_peek(s);
        break;
    case HEADER:
        if (s->head_len == 0) {
            close_full_frames(s);
            if (limit_of(s) - s->position < 8) {
                r = leaves_item(s);
                break;
            }
        }
        n = gather(s, *p, *len);
        if (s->head_len == s->head_need)
            r = take_header(s);
        break;
    }
    *p += n;
    *len -= n;
    return r;
}

static hp_code stay_failed(const hp_scan *s, hp_error *reterr)
{
    return hp_fail(reterr, s->failure.code, "%s", s->failure.msg);
}

hp_code hp_scan_feed(hp_scan *s, const void *data, size_t len, hp_error *reterr)
{
    const uint8_t *p = data;

    if (s->failure.code != HP_OK)
        return stay_failed(s, reterr);
    while (len > 0)
        if (step(s, &p, &len) != HP_OK)
            return stay_failed(s, reterr);
    return HP_OK;
}

/* A last byte or two of zeros pads an odd dataset. */
static bool only_padding(const hp_scan *s)
{
    if (s->state != HEADER || s->head_need != 8 || s->frame_count)
        return false;
    for (unsigned i = 0; i < s->head_len; i++)
        if (s->head[i] != 0)
            return false;
    return true;
}

static void trim(const char **text, size_t *len)
{
    while (*len && (*text)[0] == ' ') {
        (*text)++;
        (*len)--;
    }
    while (*len && ((*text)[*len - 1] == ' ' || (*text)[*len - 1] == 0))
        (*len)--;
}

static void give(const hp_scan *s, int v, char *ret, size_t size)
{
    const char *text = s->value[v];
    size_t len = s->value_len[v];

    trim(&text, &len);
    if (len > size - 1)
        len = size - 1;
    memcpy(ret, text, len);
    ret[len] = 0;
}

void hp_scan_so_far(const hp_scan *s, hp_scan_result *ret)
{
    memset(ret, 0, sizeof *ret);
    give(s, V_CLASS, ret->sop_class, sizeof ret->sop_class);
    give(s, V_INSTANCE, ret->sop_instance, sizeof ret->sop_instance);
    give(s, V_STUDY, ret->study, sizeof ret->study);
    give(s, V_SERIES, ret->series, sizeof ret->series);
    give(s, V_MODALITY, ret->modality, sizeof ret->modality);
    give(s, V_ACCESSION, ret->accession, sizeof ret->accession);
    give(s, V_STUDY_DATE, ret->study_date, sizeof ret->study_date);
    hp_scan_patient_digest(s->value[V_PATIENT], s->value_len[V_PATIENT],
                           ret->patient_digest);
    ret->has_pixels = s->has_pixels;
    ret->deepest = s->deepest;
}

hp_code hp_scan_end(hp_scan *s, hp_scan_result *ret, hp_error *reterr)
{
    if (s->failure.code != HP_OK)
        return stay_failed(s, reterr);
    close_full_frames(s);
    if (s->frame_count || s->state != HEADER || (s->head_len && !only_padding(s)))
        return hp_fail(reterr, HP_E_TRUNCATED, "cut off inside %s at byte %llu",
                       s->frame_count ? "a sequence" : "an element",
                       (unsigned long long)s->position);
    hp_scan_so_far(s, ret);
    return HP_OK;
}

void hp_scan_patient_digest(const void *id, size_t id_len, uint8_t ret[32])
{
    const char *text = id;
    hp_sha256 h;

    trim(&text, &id_len);
    hp_sha256_init(&h);
    hp_sha256_add(&h, text, id_len);
    hp_sha256_end(&h, ret);
}
