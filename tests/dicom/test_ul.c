/* dicom/ul.c and ul_request.c: negotiation and PDUs, without a socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dicom/ul.h"
#include "tests/fixture/dataset.h"
#include "tests/fixture/door.h"

#define EXPLICIT_LE "1.2.840.10008.1.2.1"
#define IMPLICIT_LE "1.2.840.10008.1.2"
#define EXPLICIT_BE_SYNTAX "1.2.840.10008.1.2.2"
#define DEFLATED "1.2.840.10008.1.2.1.99"

static bool takes_ct(const char *abstract, void *payload)
{
    (void)payload;
    return strcmp(abstract, DS_CT) == 0;
}

/* Feeds everything; the first event that is not MORE. */
static hp_ul_kind feed(hp_ul *u, const hp_buf *b, hp_ul_event *ev, hp_buf *out)
{
    const uint8_t *p = b->data;
    size_t len = b->len;

    return hp_ul_next(u, &p, &len, ev, out);
}

/* Byte by byte. */
static hp_ul_kind drip(hp_ul *u, const hp_buf *b, hp_ul_event *ev, hp_buf *out)
{
    hp_ul_kind k = HP_UL_MORE;

    for (size_t i = 0; i < b->len && k == HP_UL_MORE; i++) {
        const uint8_t *p = b->data + i;
        size_t one = 1;

        k = hp_ul_next(u, &p, &one, ev, out);
    }
    return k;
}

static hp_ul *ask(const hp_buf *request, hp_buf *out)
{
    hp_ul_event ev;
    hp_ul *u;

    assert_int_equal(hp_ul_new(&u, NULL), HP_OK);
    assert_int_equal(drip(u, request, &ev, out), HP_UL_ASKED);
    return u;
}

static hp_ul *associate(const hp_buf *contexts, const hp_buf *user, hp_buf *out)
{
    hp_buf rq = HP_BUF_INIT;
    rq_options o;
    hp_ul *u;

    rq_options_init(&o);
    o.extra_user = user;
    put_request_contexts(&rq, &o, contexts);
    u = ask(&rq, out);
    hp_ul_accept(u, takes_ct, NULL, out);
    hp_buf_done(&rq);
    return u;
}

/* An item of the A-ASSOCIATE-AC: the n-th of its type, inside user information
 * for types above 50H. NULL when there is none. */
static const uint8_t *find_item(const uint8_t *p, size_t len, uint8_t type, int n,
                                size_t *ret_len)
{
    while (len >= 4) {
        size_t l = hp_get_u16be(p + 2);

        assert_true(l <= len - 4);
        if (p[0] == type && n-- == 0) {
            *ret_len = l;
            return p + 4;
        }
        if (p[0] == 0x50 && type > 0x50)
            return find_item(p + 4, l, type, n, ret_len);
        p += 4 + l;
        len -= 4 + l;
    }
    return NULL;
}

static const uint8_t *ac_item(const hp_buf *ac, uint8_t type, int n, size_t *ret_len)
{
    assert_int_equal(ac->data[0], 2);
    assert_int_equal(hp_get_u32be(ac->data + 2), ac->len - 6);
    return find_item(ac->data + 74, ac->len - 74, type, n, ret_len);
}

static void expect_context(const hp_buf *ac, int n, uint8_t id, uint8_t result,
                           const char *syntax)
{
    size_t len;
    const uint8_t *c = ac_item(ac, 0x21, n, &len);

    assert_non_null(c);
    assert_int_equal(c[0], id);
    assert_int_equal(c[2], result);
    assert_int_equal(len, 8 + strlen(syntax));
    assert_int_equal(c[4], 0x40);
    assert_memory_equal(c + 8, syntax, strlen(syntax));
}

/* ---- negotiation ---- */

static void test_ul__the_best_transfer_syntax_is_chosen_whatever_the_order(void **state)
{
    static const char *const order[] = {EXPLICIT_LE,
                                        IMPLICIT_LE,
                                        "1.2.840.10008.1.2.4.70",
                                        "1.2.840.10008.1.2.4.57",
                                        "1.2.840.10008.1.2.4.80",
                                        "1.2.840.10008.1.2.4.90",
                                        "1.2.840.10008.1.2.5",
                                        "1.2.840.10008.1.2.4.50",
                                        "1.2.840.10008.1.2.4.51",
                                        "1.2.840.10008.1.2.4.81",
                                        "1.2.840.10008.1.2.4.91",
                                        EXPLICIT_BE_SYNTAX};
    enum { COUNT = sizeof order / sizeof *order };

    (void)state;
    for (int first = 0; first < COUNT; first++) {
        const char *offered[COUNT];
        hp_buf c = HP_BUF_INIT, ac = HP_BUF_INIT;
        hp_ul *u;

        for (int i = first; i < COUNT; i++) /* worst first */
            offered[COUNT - 1 - i] = order[i];
        put_context(&c, 1, DS_CT, offered, COUNT - first);
        u = associate(&c, NULL, &ac);
        expect_context(&ac, 0, 1, 0, order[first]);
        assert_string_equal(hp_ul_context_of(u, 1)->transfer_syntax.text, order[first]);
        hp_ul_free(u);
        hp_buf_done(&c);
        hp_buf_done(&ac);
    }
}

static void
test_ul__contexts_that_are_not_taken_do_not_spoil_the_association(void **state)
{
    static const char *const le[] = {IMPLICIT_LE, EXPLICIT_LE};
    static const char *const odd[] = {DEFLATED, "1.2.3.4"};
    hp_buf c = HP_BUF_INIT, ac = HP_BUF_INIT;
    hp_ul *u;

    (void)state;
    put_context(&c, 1, "1.2.840.10008.5.1.4.1.1.4", le, 2); /* MR */
    put_context(&c, 3, DS_CT, odd, 2);
    put_context(&c, 5, DS_CT, le, 2);
    put_context(&c, 7, "not a uid", le, 2);
    put_context(&c, 9, NULL, le, 1);
    put_context(&c, 11, DS_CT, NULL, 0);
    u = associate(&c, NULL, &ac);
    expect_context(&ac, 0, 1, 3, EXPLICIT_LE);
    expect_context(&ac, 1, 3, 4, DEFLATED); /* still carries one */
    expect_context(&ac, 2, 5, 0, EXPLICIT_LE);
    expect_context(&ac, 3, 7, 3, EXPLICIT_LE);
    expect_context(&ac, 4, 9, 3, IMPLICIT_LE);
    expect_context(&ac, 5, 11, 4, IMPLICIT_LE);
    assert_null(hp_ul_context_of(u, 1));
    assert_null(hp_ul_context_of(u, 3));
    assert_non_null(hp_ul_context_of(u, 5));
    hp_ul_free(u);
    hp_buf_done(&c);
    hp_buf_done(&ac);
}

static void test_ul__128_contexts_are_answered(void **state)
{
    static const char *const le[] = {EXPLICIT_LE};
    hp_buf c = HP_BUF_INIT, ac = HP_BUF_INIT;
    size_t len;
    hp_ul *u;

    (void)state;
    for (int i = 0; i < 128; i++)
        put_context(&c, (uint8_t)(2 * i + 1), DS_CT, le, 1);
    u = associate(&c, NULL, &ac);
    expect_context(&ac, 127, 255, 0, EXPLICIT_LE);
    assert_null(ac_item(&ac, 0x21, 128, &len));
    hp_ul_free(u);
    hp_buf_done(&c);
    hp_buf_done(&ac);
}

static void put_role(hp_buf *b, const char *uid, uint8_t scu, uint8_t scp)
{
    hp_buf r = HP_BUF_INIT;

    hp_buf_u16be(&r, (uint16_t)strlen(uid));
    hp_buf_put(&r, uid, strlen(uid));
    hp_buf_u8(&r, scu);
    hp_buf_u8(&r, scp);
    put_item(b, 0x54, r.data, r.len);
    hp_buf_done(&r);
}

static void test_ul__only_what_was_proposed_is_answered(void **state)
{
    static const char *const le[] = {EXPLICIT_LE};
    hp_buf c = HP_BUF_INIT, user = HP_BUF_INIT, ac = HP_BUF_INIT;
    const uint8_t *p;
    size_t len;
    hp_ul *u;

    (void)state;
    put_context(&c, 1, DS_CT, le, 1);
    u = associate(&c, NULL, &ac);
    p = ac_item(&ac, 0x51, 0, &len);
    assert_non_null(p);
    assert_int_equal(hp_get_u32be(p), 131072);
    p = ac_item(&ac, 0x52, 0, &len);
    assert_non_null(p);
    assert_int_equal(len, strlen(HP_IMPLEMENTATION_CLASS_UID));
    assert_non_null(ac_item(&ac, 0x55, 0, &len));
    assert_null(ac_item(&ac, 0x53, 0, &len));
    assert_null(ac_item(&ac, 0x54, 0, &len));
    hp_ul_free(u);

    hp_buf_clear(&ac);
    put_item(&user, 0x53, "\0\10\0\10", 4);
    put_role(&user, DS_CT, 1, 1);
    put_role(&user, "1.2.840.10008.5.1.4.1.1.4", 1, 1); /* not taken: no answer */
    put_item(&user, 0x56, "\0\1xx", 4);                 /* extended negotiation */
    put_item(&user, 0x57, "junk", 4);
    put_item(&user, 0x58, "\1\1\0\4user\0\0", 10); /* user identity */
    put_item(&user, 0x5F, "from the future", 15);
    u = associate(&c, &user, &ac);
    p = ac_item(&ac, 0x53, 0, &len);
    assert_non_null(p);
    assert_memory_equal(p, "\0\1\0\1", 4);
    p = ac_item(&ac, 0x54, 0, &len);
    assert_non_null(p);
    assert_memory_equal(p + 2 + strlen(DS_CT), "\1\0", 2); /* SCU as proposed, SCP 0 */
    assert_null(ac_item(&ac, 0x54, 1, &len));
    assert_null(ac_item(&ac, 0x56, 0, &len));
    assert_null(ac_item(&ac, 0x58, 0, &len));
    hp_ul_free(u);
    hp_buf_done(&c);
    hp_buf_done(&user);
    hp_buf_done(&ac);
}

static void test_ul__unknown_items_are_skipped_and_titles_lose_their_spaces(void **state)
{
    hp_buf rq = HP_BUF_INIT, extra = HP_BUF_INIT, out = HP_BUF_INIT;
    rq_options o;
    hp_ul *u;

    (void)state;
    put_item(&extra, 0x99, "whatever", 8);
    rq_options_init(&o);
    o.called = " HEPAR  ";
    o.calling = "  A B ";
    o.extra_items = &extra;
    put_request(&rq, &o);
    u = ask(&rq, &out);
    assert_string_equal(hp_ul_peer(u)->called_ae, "HEPAR");
    assert_string_equal(hp_ul_peer(u)->calling_ae, "A B");
    assert_int_equal(hp_ul_peer(u)->max_pdu, 16384);
    assert_string_equal(hp_ul_peer(u)->version_name, "RAW_CLIENT");
    hp_ul_accept(u, takes_ct, NULL, &out);
    assert_memory_equal(out.data + 10, rq.data + 10, 64);
    hp_ul_free(u);
    hp_buf_done(&rq);
    hp_buf_done(&extra);
    hp_buf_done(&out);
}

/* ---- malformed requests: one answer at once, never a hang ---- */

static void expect_violation(const hp_buf *bytes, uint8_t reason)
{
    for (int way = 0; way < 2; way++) {
        hp_buf out = HP_BUF_INIT;
        hp_ul_event ev;
        hp_ul *u;

        assert_int_equal(hp_ul_new(&u, NULL), HP_OK);
        assert_int_equal(way ? drip(u, bytes, &ev, &out) : feed(u, bytes, &ev, &out),
                         HP_UL_VIOLATION);
        assert_int_equal(ev.abort_source, 2);
        assert_int_equal(ev.abort_reason, reason);
        assert_int_equal(out.len, 10);
        assert_memory_equal(out.data, "\7\0\0\0\0\4\0\0\2", 9);
        assert_int_equal(out.data[9], reason);
        assert_true(strlen(ev.why) > 10);
        assert_int_equal(feed(u, bytes, &ev, &out),
                         HP_UL_MORE); /* dropped from here on */
        hp_ul_free(u);
        hp_buf_done(&out);
    }
}

static void expect_bad_contexts(const hp_buf *contexts, const hp_buf *user)
{
    hp_buf rq = HP_BUF_INIT;
    rq_options o;

    rq_options_init(&o);
    o.extra_user = user;
    put_request_contexts(&rq, &o, contexts);
    expect_violation(&rq, 6);
    hp_buf_done(&rq);
}

static void test_ul__malformed_requests_are_aborted(void **state)
{
    static const char *const le[] = {EXPLICIT_LE};
    static const uint8_t wrong_roles[][8] = {{0, 200, '1', '.', '2'}, {0, 1, '1'}, {0}};
    hp_buf c = HP_BUF_INIT, user = HP_BUF_INIT, none = HP_BUF_INIT;

    (void)state;
    put_context(&c, 2, DS_CT, le, 1); /* even */
    expect_bad_contexts(&c, NULL);
    hp_buf_clear(&c);
    put_context(&c, 1, DS_CT, le, 1); /* repeated */
    put_context(&c, 1, DS_CT, le, 1);
    expect_bad_contexts(&c, NULL);
    hp_buf_clear(&c);
    put_item(&c, 0x20, "\1\0", 2); /* too short */
    expect_bad_contexts(&c, NULL);
    hp_buf_clear(&c);
    put_item(&c, 0x20,
             "\1\0\0\0\60\0\377\377"
             "1.2",
             11); /* leaves its context */
    expect_bad_contexts(&c, NULL);

    /* M5: sub-items of the wrong length, for which DCMTK waits for ever */
    for (size_t i = 0; i < 3; i++) {
        hp_buf_clear(&user);
        put_item(&user, 0x54, wrong_roles[i], 3);
        expect_bad_contexts(&none, &user);
    }
    hp_buf_clear(&user);
    put_item(&user, 0x53, "\0\1", 2);
    expect_bad_contexts(&none, &user);
    hp_buf_clear(&user);
    put_item(&user, 0x51, "\0\1", 2);
    expect_bad_contexts(&none, &user);
    hp_buf_clear(&user);
    hp_buf_put(&user, "\130\0\377\377x", 5); /* leaves the user information */
    expect_bad_contexts(&none, &user);
    hp_buf_done(&c);
    hp_buf_done(&user);
}

/* Every cut of a request, with its PDU length made to fit. */
static void test_ul__requests_cut_anywhere_are_answered(void **state)
{
    hp_buf rq = HP_BUF_INIT;
    rq_options o;
    size_t whole;

    (void)state;
    rq_options_init(&o);
    put_request(&rq, &o);
    whole = rq.len;
    for (rq.len = 6; rq.len < whole; rq.len++) {
        hp_buf out = HP_BUF_INIT;
        hp_ul_event ev;
        hp_ul_kind k;
        hp_ul *u;

        rq.data[4] = (uint8_t)((rq.len - 6) >> 8);
        rq.data[5] = (uint8_t)(rq.len - 6);
        assert_int_equal(hp_ul_new(&u, NULL), HP_OK);
        k = feed(u, &rq, &ev, &out);
        assert_true(k == HP_UL_VIOLATION || k == HP_UL_REFUSED || k == HP_UL_ASKED);
        hp_ul_free(u);
        hp_buf_done(&out);
    }
    hp_buf_done(&rq);
}

static void test_ul__no_pdu_longer_than_its_kind_may_be(void **state)
{
    hp_buf b = HP_BUF_INIT;

    (void)state;
    hp_buf_put(&b, "\1\0\0\4\0\1", 6); /* 256 KiB and one */
    expect_violation(&b, 6);
    hp_buf_clear(&b);
    hp_buf_put(&b, "\1\0\0\0\0\0", 6); /* an empty request */
    expect_violation(&b, 6);
    hp_buf_clear(&b);
    hp_buf_put(&b, "\7\0\0\0\0\5", 6);
    expect_violation(&b, 6);
    hp_buf_clear(&b);
    hp_buf_put(&b, "\5\0\0\0\0\4", 6); /* release of nothing */
    expect_violation(&b, 2);
    hp_buf_clear(&b);
    hp_buf_put(&b, "\2\0\0\0\0\4", 6); /* answers to questions that we never ask */
    expect_violation(&b, 2);
    hp_buf_done(&b);
}

/* ---- data ---- */

static hp_ul *open_default(uint32_t max_pdu)
{
    hp_buf rq = HP_BUF_INIT, out = HP_BUF_INIT;
    rq_options o;
    hp_ul *u;

    rq_options_init(&o);
    o.max_pdu = max_pdu;
    put_request(&rq, &o);
    u = ask(&rq, &out);
    hp_ul_accept(u, takes_ct, NULL, &out);
    hp_buf_done(&rq);
    hp_buf_done(&out);
    return u;
}

/* Collects fragments; "|" after each fragment, "||" after a last one. */
static void collect(hp_ul *u, const hp_buf *b, size_t chunk, hp_buf *text)
{
    hp_buf out = HP_BUF_INIT;
    hp_ul_event ev;

    for (size_t at = 0; at < b->len; at += chunk) {
        const uint8_t *p = b->data + at;
        size_t len = b->len - at < chunk ? b->len - at : chunk;

        while (hp_ul_next(u, &p, &len, &ev, &out) == HP_UL_DATA) {
            hp_buf_put(text, ev.data, ev.len);
            if (ev.ends)
                hp_buf_put(text, "||", ev.last ? 2 : 1);
        }
        assert_int_equal(ev.kind, HP_UL_MORE);
    }
    assert_int_equal(out.len, 0);
    hp_buf_done(&out);
}

static void test_ul__fragments_come_out_the_same_for_every_cut(void **state)
{
    hp_buf b = HP_BUF_INIT;

    (void)state;
    put_pdata(&b, CONTEXT_CT, 0, "abcdefg", 7);
    put_pdata(&b, CONTEXT_CT, 0, "", 0);
    /* two fragments in one PDU */
    hp_buf_put(&b, "\4\0\0\0\0\21\0\0\0\5\1\0hij\0\0\0\4\1\2kl", 23);
    for (size_t chunk = 1; chunk <= b.len; chunk++) {
        hp_ul *u = open_default(16384);
        hp_buf text = HP_BUF_INIT;

        collect(u, &b, chunk, &text);
        assert_string_equal(hp_buf_str(&text), "abcdefg||hij|kl||");
        hp_ul_free(u);
        hp_buf_done(&text);
    }
    hp_buf_done(&b);
}

static void test_ul__what_we_send_stays_within_the_peers_maximum(void **state)
{
    static const uint32_t maxima[] = {0, 1, 7, 8, 100, 16384, 0xFFFFFFFFu};
    uint8_t data[1000];

    (void)state;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)i;
    for (size_t m = 0; m < sizeof maxima / sizeof *maxima; m++) {
        hp_ul *u = open_default(maxima[m]);
        hp_buf out = HP_BUF_INIT, got = HP_BUF_INIT;
        uint32_t limit = maxima[m] == 0 ? 0xFFFFFFFFu : maxima[m] < 7 ? 7 : maxima[m];

        hp_ul_put_data(u, CONTEXT_CT, true, data, sizeof data, &out);
        for (size_t at = 0; at < out.len;) {
            uint32_t len = hp_get_u32be(out.data + at + 2);
            bool last = at + 6 + len == out.len;

            assert_true(len <= limit);
            assert_int_equal(hp_get_u32be(out.data + at + 6), len - 4);
            assert_int_equal(out.data[at + 11], last ? 3 : 1);
            hp_buf_put(&got, out.data + at + 12, len - 6);
            at += 6 + len;
        }
        assert_int_equal(got.len, sizeof data);
        assert_memory_equal(got.data, data, sizeof data);
        hp_ul_free(u);
        hp_buf_done(&out);
        hp_buf_done(&got);
    }
}

static void test_ul__after_a_release_nothing_more_is_data(void **state)
{
    hp_buf b = HP_BUF_INIT, out = HP_BUF_INIT;
    hp_ul *u = open_default(0);
    hp_ul_event ev;
    const uint8_t *p;
    size_t len;

    (void)state;
    hp_buf_put(&b, "\5\0\0\0\0\4\0\0\0\0", 10);
    assert_int_equal(feed(u, &b, &ev, &out), HP_UL_RELEASE);
    hp_buf_clear(&b);
    put_pdata(&b, CONTEXT_CT, 3, "x", 1);
    p = b.data;
    len = b.len;
    assert_int_equal(hp_ul_next(u, &p, &len, &ev, &out), HP_UL_VIOLATION);
    assert_int_equal(ev.abort_reason, 2);
    hp_ul_release(u, &out); /* too late: the abort is all there is */
    assert_int_equal(out.len, 10);
    hp_ul_free(u);
    hp_buf_done(&b);
    hp_buf_done(&out);
}

static void test_ul__the_first_byte_tells_dicom_from_the_rest(void **state)
{
    (void)state;
    for (int first = 0; first < 256; first++) {
        hp_buf b = HP_BUF_INIT, out = HP_BUF_INIT;
        hp_ul_event ev;
        hp_ul_kind k;
        hp_ul *u;

        hp_buf_u8(&b, (uint8_t)first);
        assert_int_equal(hp_ul_new(&u, NULL), HP_OK);
        k = feed(u, &b, &ev, &out);
        assert_int_equal(k, first >= 1 && first <= 7 ? HP_UL_MORE : HP_UL_NOT_DICOM);
        assert_int_equal(out.len, 0);
        hp_ul_free(u);
        hp_buf_done(&b);
    }
    assert_string_equal(hp_ul_guess_protocol((const uint8_t *)"GET / HTTP", 10),
                        "an HTTP request");
    assert_string_equal(hp_ul_guess_protocol((const uint8_t *)"\26\3\1", 3),
                        "a TLS hello (this port speaks plain DICOM)");
    assert_string_equal(hp_ul_guess_protocol((const uint8_t *)"G", 1),
                        "something that is not DICOM");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ul__the_best_transfer_syntax_is_chosen_whatever_the_order),
        cmocka_unit_test(
            test_ul__contexts_that_are_not_taken_do_not_spoil_the_association),
        cmocka_unit_test(test_ul__128_contexts_are_answered),
        cmocka_unit_test(test_ul__only_what_was_proposed_is_answered),
        cmocka_unit_test(test_ul__unknown_items_are_skipped_and_titles_lose_their_spaces),
        cmocka_unit_test(test_ul__malformed_requests_are_aborted),
        cmocka_unit_test(test_ul__requests_cut_anywhere_are_answered),
        cmocka_unit_test(test_ul__no_pdu_longer_than_its_kind_may_be),
        cmocka_unit_test(test_ul__fragments_come_out_the_same_for_every_cut),
        cmocka_unit_test(test_ul__what_we_send_stays_within_the_peers_maximum),
        cmocka_unit_test(test_ul__after_a_release_nothing_more_is_data),
        cmocka_unit_test(test_ul__the_first_byte_tells_dicom_from_the_rest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
