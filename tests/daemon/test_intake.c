/* daemon/intake: each line of the front door's rules, over a real socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "dicom/dimse.h"
#include "tests/fixture/dataset.h"
#include "tests/fixture/door.h"

static door *open_default(void)
{
    hp_intake_options o;

    door_options(&o);
    return door_open(&o);
}

static void make_slice(hp_buf *b, const char *instance, size_t pixel_bytes)
{
    hp_buf_clear(b);
    ds_slice_start(b, HP_EXPLICIT_LE, instance);
    ds_pixels(b, HP_EXPLICIT_LE, pixel_bytes);
}

/* ---- the good path ---- */

static void test_intake__stores_the_bytes_as_they_came(void **state)
{
    static const size_t chunks[] = {16372, 1 << 19, 100, 131066};
    door *d = open_default();
    hp_buf slice = HP_BUF_INIT, file = HP_BUF_INIT;
    hp_intake_stats t;
    size_t at;
    int fd = client_associate(d);

    (void)state;
    make_slice(&slice, "1.2.3.1", 512 * 512 * 2);
    client_store(fd, "1.2.3.1", &slice, 16372);
    assert_int_equal(client_status(fd), 0);
    assert_int_equal(door_slices(d), 1);
    door_read_only_slice(d, &file, &at);
    assert_int_equal(file.len - at, slice.len);
    assert_memory_equal(file.data + at, slice.data, slice.len);
    /* the same bytes in other pieces are the same slice */
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        client_store(fd, "1.2.3.1", &slice, chunks[i]);
        assert_int_equal(client_status(fd), 0);
    }
    slice.data[slice.len - 1] ^= 1;
    client_store(fd, "1.2.3.1", &slice, 5000);
    assert_int_equal(client_status(fd), 0);
    assert_true(client_release(fd));
    shutdown(fd, SHUT_WR);
    assert_true(client_at_end(fd));
    close(fd);
    door_stats(d, &t);
    assert_int_equal(t.received, 6);
    assert_int_equal(t.stored, 1);
    assert_int_equal(t.duplicate, 4);
    assert_int_equal(t.conflict, 1);
    door_close(d);
    hp_buf_done(&slice);
    hp_buf_done(&file);
}

static void test_intake__echo_is_answered(void **state)
{
    door *d = open_default();
    hp_buf b = HP_BUF_INIT, cmd = HP_BUF_INIT;
    int fd = client_associate(d);

    (void)state;
    put_command_set(&cmd, HP_DIMSE_C_ECHO_RQ, "1.2.840.10008.1.1", "", false);
    put_pdata(&b, CONTEXT_ECHO, 3, cmd.data, cmd.len);
    for (int i = 0; i < 3; i++) {
        assert_true(client_send(fd, b.data, b.len));
        assert_int_equal(client_status(fd), 0);
    }
    assert_true(client_release(fd));
    close(fd);
    door_close(d);
    hp_buf_done(&b);
    hp_buf_done(&cmd);
}

/* Everything in one write: request, store, release. Then cut at every size, so
 * that each header of each layer is split somewhere. */
static void test_intake__fragments_may_be_split_anywhere(void **state)
{
    static const size_t steps[] = {1, 2, 3, 5, 7, 11, 13, 100000};
    door *d = open_default();
    hp_buf slice = HP_BUF_INIT, all = HP_BUF_INIT, cmd = HP_BUF_INIT, in = HP_BUF_INIT;
    rq_options o;

    (void)state;
    make_slice(&slice, "1.2.3.9", 300);
    rq_options_init(&o);
    put_request(&all, &o);
    put_command_set(&cmd, HP_DIMSE_C_STORE_RQ, DS_CT, "1.2.3.9", true);
    put_pdata(&all, CONTEXT_CT, 1, cmd.data, 20); /* a split command */
    put_pdata(&all, CONTEXT_CT, 1, NULL, 0);      /* an empty fragment */
    put_pdata(&all, CONTEXT_CT, 3, cmd.data + 20, cmd.len - 20);
    put_pdata(&all, CONTEXT_CT, 0, slice.data, 101); /* odd */
    put_pdata(&all, CONTEXT_CT, 2, slice.data + 101, slice.len - 101);
    hp_buf_put(&all, "\5\0\0\0\0\4\0\0\0\0", 10); /* release with the answer pending */
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        int fd = client_connect(d);

        for (size_t at = 0; at < all.len; at += steps[i]) {
            size_t n = all.len - at < steps[i] ? all.len - at : steps[i];

            assert_true(client_send(fd, all.data + at, n));
            if (steps[i] < 100 && at % 97 == 0)
                usleep(200); /* so that pieces arrive alone */
        }
        assert_int_equal(client_pdu(fd, &in), 2);
        assert_int_equal(client_status(fd), 0);
        assert_int_equal(client_pdu(fd, &in), 6);
        assert_true(client_at_eof(fd));
        close(fd);
    }
    assert_int_equal(door_slices(d), 1);
    door_close(d);
    hp_buf_done(&slice);
    hp_buf_done(&all);
    hp_buf_done(&cmd);
    hp_buf_done(&in);
}

static void test_intake__command_and_data_may_share_a_pdu(void **state)
{
    door *d = open_default();
    hp_buf slice = HP_BUF_INIT, pdu = HP_BUF_INIT, pdvs = HP_BUF_INIT, cmd = HP_BUF_INIT;
    int fd = client_associate(d);

    (void)state;
    make_slice(&slice, "1.2.3.9", 3000);
    put_command_set(&cmd, HP_DIMSE_C_STORE_RQ, DS_CT, "1.2.3.9", true);
    hp_buf_u32be(&pdvs, (uint32_t)cmd.len + 2);
    hp_buf_put(&pdvs, "\1\3", 2);
    hp_buf_put(&pdvs, cmd.data, cmd.len);
    hp_buf_u32be(&pdvs, 1000 + 2);
    hp_buf_put(&pdvs, "\1\0", 2);
    hp_buf_put(&pdvs, slice.data, 1000);
    hp_buf_u32be(&pdvs, (uint32_t)(slice.len - 1000) + 2);
    hp_buf_put(&pdvs, "\1\2", 2);
    hp_buf_put(&pdvs, slice.data + 1000, slice.len - 1000);
    hp_buf_put(&pdu, "\4\0", 2);
    hp_buf_u32be(&pdu, (uint32_t)pdvs.len);
    hp_buf_put(&pdu, pdvs.data, pdvs.len);
    assert_true(client_send(fd, pdu.data, pdu.len));
    assert_int_equal(client_status(fd), 0);
    assert_int_equal(door_slices(d), 1);
    close(fd);
    door_close(d);
    hp_buf_done(&slice);
    hp_buf_done(&pdu);
    hp_buf_done(&pdvs);
    hp_buf_done(&cmd);
}

static void test_intake__a_second_request_before_the_answer_waits_its_turn(void **state)
{
    door *d = open_default();
    hp_buf slice = HP_BUF_INIT;
    char uid[32];
    int fd = client_associate(d);

    (void)state;
    door_knobs(d)->delay_ms = 30;
    for (int i = 0; i < 5; i++) {
        snprintf(uid, sizeof uid, "1.2.3.%d", i + 1);
        make_slice(&slice, uid, 40000);
        client_store(fd, uid, &slice, 16372);
    }
    for (int i = 0; i < 5; i++)
        assert_int_equal(client_status(fd), 0);
    assert_int_equal(door_slices(d), 5);
    assert_true(client_release(fd));
    close(fd);
    door_close(d);
    hp_buf_done(&slice);
}

/* Success means that the ledger has said so. */
static void test_intake__no_answer_before_the_ledger_answers(void **state)
{
    door *d = open_default();
    hp_buf slice = HP_BUF_INIT;
    int64_t before;
    int fd = client_associate(d);

    (void)state;
    door_knobs(d)->delay_ms = 200;
    make_slice(&slice, "1.2.3.1", 1000);
    before = hp_clock_mono_ms();
    client_store(fd, "1.2.3.1", &slice, 16372);
    assert_int_equal(client_status(fd), 0);
    assert_true(hp_clock_mono_ms() - before >= 190);
    close(fd);
    door_close(d);
    hp_buf_done(&slice);
}

static void test_intake__an_association_carries_its_studies(void **state)
{
    door *d = open_default();
    hp_buf slice = HP_BUF_INIT;
    int fd = client_associate(d);

    (void)state;
    make_slice(&slice, "1.2.3.1", 1000);
    client_store(fd, "1.2.3.1", &slice, 16372);
    assert_int_equal(client_status(fd), 0);
    client_store(fd, "1.2.3.1", &slice, 16372);
    assert_int_equal(client_status(fd), 0);
    assert_int_equal(door_studies(d), 1);
    assert_true(client_release(fd));
    assert_int_equal(door_studies(d), 0);
    close(fd);
    door_close(d);
    hp_buf_done(&slice);
}

/* ---- negotiation ---- */

static void expect_reply(door *d, const hp_buf *request, int type, const char *tail)
{
    hp_buf in = HP_BUF_INIT;
    int fd = client_connect(d);

    assert_true(client_send(fd, request->data, request->len));
    assert_int_equal(client_pdu(fd, &in), type);
    assert_int_equal(in.len, 10);
    assert_memory_equal(in.data + 7, tail, 3);
    shutdown(fd, SHUT_WR);
    assert_true(client_at_end(fd)); /* an orderly end, not a reset */
    close(fd);
    hp_buf_done(&in);
}

static void test_intake__rejections_give_their_reason(void **state)
{
    door *d = open_default();
    hp_buf b = HP_BUF_INIT;
    char why[256];
    rq_options o;

    (void)state;
    rq_options_init(&o);
    o.called = "SOMEBODY";
    put_request(&b, &o);
    expect_reply(d, &b, 3, "\1\1\7");
    door_last_refusal(d, why);
    assert_string_equal(
        why,
        "association: called AE title is not ours, called 'SOMEBODY', rejected 1/1/7");

    hp_buf_clear(&b);
    rq_options_init(&o);
    o.called = "hepar"; /* case counts */
    put_request(&b, &o);
    expect_reply(d, &b, 3, "\1\1\7");

    hp_buf_clear(&b);
    rq_options_init(&o);
    o.calling = "STRANGER";
    put_request(&b, &o);
    expect_reply(d, &b, 3, "\1\1\3");

    hp_buf_clear(&b);
    rq_options_init(&o);
    o.application = "1.2.840.10008.3.1.1.2";
    put_request(&b, &o);
    expect_reply(d, &b, 3, "\1\1\2");

    hp_buf_clear(&b);
    rq_options_init(&o);
    o.version = 2;
    put_request(&b, &o);
    expect_reply(d, &b, 3, "\1\2\2");

    hp_buf_clear(&b);
    rq_options_init(&o);
    o.called = "  HEPAR"; /* outer spaces do not */
    o.calling = " TEST ";
    put_request(&b, &o);
    assert_int_equal(door_refusals(d), 5);
    {
        hp_buf in = HP_BUF_INIT;
        int fd = client_connect(d);

        assert_true(client_send(fd, b.data, b.len));
        assert_int_equal(client_pdu(fd, &in), 2);
        assert_memory_equal(in.data + 10, b.data + 10, 64); /* echoed, reserved too */
        close(fd);
        hp_buf_done(&in);
    }
    door_close(d);
    hp_buf_done(&b);
}

static void test_intake__an_unknown_address_is_rejected(void **state)
{
    static const hp_intake_peer elsewhere[] = {{"TEST", "10.0.0.0/8"}, {"OTHER", "*"}};
    hp_intake_options o;
    hp_buf b = HP_BUF_INIT;
    rq_options rq;
    door *d;

    (void)state;
    door_options(&o);
    o.peer = elsewhere;
    o.peer_count = 2;
    d = door_open(&o);
    rq_options_init(&rq);
    put_request(&b, &rq);
    expect_reply(d, &b, 3, "\1\1\3");
    door_close(d);
    o.peer_count = 0; /* nobody listed, nobody served */
    d = door_open(&o);
    expect_reply(d, &b, 3, "\1\1\3");
    door_close(d);
    hp_buf_done(&b);
}

static void test_intake__limits_reject_for_now(void **state)
{
    hp_intake_options o;
    hp_buf b = HP_BUF_INIT;
    rq_options rq;
    int one, two;
    door *d;

    (void)state;
    door_options(&o);
    o.max_associations = 2;
    d = door_open(&o);
    rq_options_init(&rq);
    put_request(&b, &rq);
    one = client_associate(d);
    two = client_associate(d);
    expect_reply(d, &b, 3, "\2\3\2");
    assert_true(client_release(one));
    close(one);
    one = client_associate(d); /* room again */
    close(one);
    close(two);
    door_close(d);
    o.max_associations = 10;
    o.max_associations_per_peer = 1;
    d = door_open(&o);
    one = client_associate(d);
    expect_reply(d, &b, 3, "\2\3\2");
    close(one);
    door_close(d);
    hp_buf_done(&b);
}

static void test_intake__below_the_reserve_nothing_is_taken(void **state)
{
    door *d = open_default();
    hp_buf b = HP_BUF_INIT, slice = HP_BUF_INIT;
    rq_options rq;
    int fd = client_associate(d);

    (void)state;
    make_slice(&slice, "1.2.3.1", 200000);
    door_set_free(10);
    usleep(400 * 1000);
    client_store(fd, "1.2.3.1", &slice, 16372);
    assert_int_equal(client_status(fd), 0xA700);
    assert_int_equal(door_slices(d), 0);
    rq_options_init(&rq);
    put_request(&b, &rq);
    expect_reply(d, &b, 3, "\2\3\1");
    door_set_free(1 << 30);
    usleep(400 * 1000);
    client_store(fd, "1.2.3.1", &slice, 16372); /* service again when there is room */
    assert_int_equal(client_status(fd), 0);
    close(fd);
    door_close(d);
    hp_buf_done(&b);
    hp_buf_done(&slice);
}

static void test_intake__a_crowd_from_one_address_leaves_room_for_others(void **state)
{
    hp_intake_options o;
    int fds[10], fd;
    door *d;

    (void)state;
    door_options(&o);
    o.max_connections = 8;
    o.artim_ms = 5000;
    d = door_open(&o);
    for (int i = 0; i < 5; i++)
        fds[i] = client_connect(d);
    assert_true(client_at_eof(fds[4])); /* half of eight are four */
    for (int i = 5; i < 9; i++)
        fds[i] = client_connect_from(d, "127.0.0.2");
    fds[9] = client_connect_from(d, "127.0.0.3");
    assert_true(client_at_eof(fds[9]));    /* and eight are eight */
    assert_int_equal(door_refusals(d), 1); /* said once a second */
    for (int i = 0; i < 10; i++)
        close(fds[i]);
    usleep(100000);
    fd = client_associate(d);
    close(fd);
    door_close(d);
}

static void test_intake__a_port_that_is_taken_is_an_error(void **state)
{
    door *d = open_default();
    hp_error e = HP_ERROR_INIT;
    hp_intake *in = NULL;
    hp_intake_options o;
    uv_loop_t loop;

    (void)state;
    door_options(&o);
    o.port = door_port(d);
    o.spool_dir = door_dir(d);
    o.sink.on_stored = fake_ledger_store;
    uv_loop_init(&loop);
    assert_int_equal(hp_intake_open(&loop, &o, &in, &e), HP_E_IO);
    assert_non_null(strstr(e.msg, "address already in use"));
    assert_null(in);
    o.host = "pacs.example"; /* numeric addresses only: nothing is looked up */
    assert_int_equal(hp_intake_open(&loop, &o, &in, &e), HP_E_IO);
    o.host = "127.0.0.1";
    o.ae_title = "LONGER_THAN_SIXTEEN";
    assert_int_equal(hp_intake_open(&loop, &o, &in, &e), HP_E_INVALID);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    door_close(d);
}

/* ---- what is refused, and how ---- */

static void expect_abort(int fd, const char *tail)
{
    hp_buf in = HP_BUF_INIT;

    assert_int_equal(client_pdu(fd, &in), 7);
    assert_memory_equal(in.data + 8, tail, 2);
    shutdown(fd, SHUT_WR);
    assert_true(client_at_end(fd));
    close(fd);
    hp_buf_done(&in);
}

static void test_intake__protocol_violations_are_aborted_with_their_reason(void **state)
{
    door *d = open_default();
    hp_buf slice = HP_BUF_INIT, b = HP_BUF_INIT, cmd = HP_BUF_INIT;
    int fd;

    (void)state;
    make_slice(&slice, "1.2.3.1", 1000);
    put_command_set(&cmd, HP_DIMSE_C_STORE_RQ, DS_CT, "1.2.3.1", true);

    fd = client_associate(d); /* a context that was never negotiated */
    put_pdata(&b, 77, 3, cmd.data, cmd.len);
    client_send(fd, b.data, b.len);
    expect_abort(fd, "\2\6");

    fd = client_associate(d); /* a message that changes its context */
    hp_buf_clear(&b);
    put_pdata(&b, CONTEXT_CT, 3, cmd.data, cmd.len);
    put_pdata(&b, CONTEXT_CT_IMPLICIT, 2, slice.data, slice.len);
    client_send(fd, b.data, b.len);
    expect_abort(fd, "\2\6");

    fd = client_associate(d); /* a dataset without a command */
    hp_buf_clear(&b);
    put_pdata(&b, CONTEXT_CT, 2, slice.data, slice.len);
    client_send(fd, b.data, b.len);
    expect_abort(fd, "\2\6");

    fd = client_associate(d); /* a data PDU of 2 GiB */
    client_send(fd, "\4\0\177\377\377\377\0\0\0\0", 10);
    expect_abort(fd, "\2\6");

    fd = client_associate(d); /* fragment lengths 0 and 1 */
    client_send(fd, "\4\0\0\0\0\6\0\0\0\0\1\3", 12);
    expect_abort(fd, "\2\6");
    fd = client_associate(d);
    client_send(fd, "\4\0\0\0\0\6\0\0\0\1\1\3", 12);
    expect_abort(fd, "\2\6");

    fd = client_associate(d); /* a fragment longer than its PDU */
    client_send(fd, "\4\0\0\0\0\10\0\0\1\0\1\3ab", 14);
    expect_abort(fd, "\2\6");

    fd = client_associate(d); /* unknown PDU type */
    client_send(fd, "\11\0\0\0\0\0", 6);
    expect_abort(fd, "\2\1");

    fd = client_associate(d); /* a second request inside an association */
    client_send(fd, "\1\0\0\0\0\144", 6);
    expect_abort(fd, "\2\2");

    fd = client_connect(d); /* data before any association */
    client_send(fd, "\4\0\0\0\0\6\0\0\0\4\1\3", 12);
    expect_abort(fd, "\2\2");

    fd = client_connect(d); /* a request of more than 256 KiB */
    client_send(fd, "\1\0\0\4\0\1", 6);
    expect_abort(fd, "\2\6");

    fd = client_associate(d); /* an answer to nothing */
    hp_buf_clear(&b);
    hp_buf_clear(&cmd);
    put_command_set(&cmd, 0x8001, DS_CT, "1.2.3.1", false);
    put_pdata(&b, CONTEXT_CT, 3, cmd.data, cmd.len);
    client_send(fd, b.data, b.len);
    expect_abort(fd, "\0\0");
    assert_int_equal(door_slices(d), 0);
    door_close(d);
    hp_buf_done(&slice);
    hp_buf_done(&b);
    hp_buf_done(&cmd);
}

/* A peer that is still sending when it is aborted must be able to read why: its
 * bytes are taken until it closes, or a reset would overtake the reason. */
static void test_intake__the_reason_reaches_a_peer_that_goes_on_sending(void **state)
{
    hp_intake_options o;
    hp_buf b = HP_BUF_INIT, in = HP_BUF_INIT, rq = HP_BUF_INIT;
    rq_options wrong;
    door *d;
    int fd;

    (void)state;
    door_options(&o);
    o.artim_ms = 5000;
    d = door_open(&o);
    fd = client_associate(d);
    put_pdata(&b, 77, 3, "x", 1);
    make_slice(&in, "1.2.3.1", 8 << 20);
    hp_buf_put(&b, in.data, in.len);
    assert_true(client_send(fd, b.data, b.len));
    expect_abort(fd, "\2\6");

    rq_options_init(&wrong);
    wrong.called = "SOMEBODY";
    put_request(&rq, &wrong);
    hp_buf_put(&rq, b.data, b.len);
    fd = client_connect(d);
    assert_true(client_send(fd, rq.data, rq.len));
    assert_int_equal(client_pdu(fd, &in), 3);
    shutdown(fd, SHUT_WR);
    assert_true(client_at_end(fd));
    close(fd);
    door_close(d);
    hp_buf_done(&b);
    hp_buf_done(&in);
    hp_buf_done(&rq);
}

/* After RJ, ABORT or RELEASE-RP a peer that stays is closed when ARTIM runs out. */
static void test_intake__a_peer_that_does_not_close_is_closed(void **state)
{
    door *d = open_default();
    hp_intake_stats t;
    int64_t before, took;
    int fd = client_associate(d);

    (void)state;
    assert_true(client_release(fd));
    before = hp_clock_mono_ms();
    do {
        usleep(10000);
        door_stats(d, &t);
        took = hp_clock_mono_ms() - before;
    } while (t.open_connections > 0 && took < 20000);
    assert_true(took >= 450 && took < 5000);
    close(fd);
    door_close(d);
}

/* What travels with a CT is taken; anything else by configuration. */
static void test_intake__the_default_classes_are_taken(void **state)
{
    static const char *const le[] = {"1.2.840.10008.1.2.1"};
    static const char *const extra[] = {"1.2.840.10008.5.1.4.1.1.128"}; /* PET */
    hp_buf c = HP_BUF_INIT, rq = HP_BUF_INIT, in = HP_BUF_INIT;
    hp_intake_options o;
    rq_options ro;
    int n = 0, fd;
    size_t at;
    door *d;

    (void)state;
    for (; hp_intake_default_classes[n]; n++)
        put_context(&c, (uint8_t)(2 * n + 1), hp_intake_default_classes[n], le, 1);
    put_context(&c, (uint8_t)(2 * n + 1), extra[0], le, 1);
    put_context(&c, (uint8_t)(2 * n + 3), "1.2.840.10008.5.1.4.1.1.4", le, 1); /* MR */
    assert_true(n > 25);
    door_options(&o);
    o.extra_class = extra;
    o.extra_class_count = 1;
    d = door_open(&o);
    rq_options_init(&ro);
    put_request_contexts(&rq, &ro, &c);
    fd = client_connect(d);
    client_send(fd, rq.data, rq.len);
    assert_int_equal(client_pdu(fd, &in), 2);
    at = 74 + 4 + hp_get_u16be(in.data + 76); /* after the application context */
    for (int i = 0; i < n + 2; i++) {
        assert_int_equal(in.data[at], 0x21);
        assert_int_equal(in.data[at + 4], 2 * i + 1);
        assert_int_equal(in.data[at + 6], i < n + 1 ? 0 : 3);
        at += 4 + hp_get_u16be(in.data + at + 2);
    }
    close(fd);
    door_close(d);
    hp_buf_done(&c);
    hp_buf_done(&rq);
    hp_buf_done(&in);
}

/* The bytes of a P-DATA of almost 1 MiB, whatever we announced. */
static void test_intake__a_pdu_of_a_mebibyte_is_read(void **state)
{
    door *d = open_default();
    hp_buf slice = HP_BUF_INIT;
    int fd = client_associate(d);

    (void)state;
    make_slice(&slice, "1.2.3.1", 1000000);
    client_store(fd, "1.2.3.1", &slice, (1 << 20) - 6);
    assert_int_equal(client_status(fd), 0);
    close(fd);
    door_close(d);
    hp_buf_done(&slice);
}

static void test_intake__an_unknown_request_gets_0211(void **state)
{
    door *d = open_default();
    hp_buf b = HP_BUF_INIT, cmd = HP_BUF_INIT, slice = HP_BUF_INIT;
    int fd = client_associate(d);

    (void)state;
    put_command_set(&cmd, 0x0020, DS_CT, "", true); /* C-FIND with an identifier */
    put_pdata(&b, CONTEXT_CT, 3, cmd.data, cmd.len);
    put_pdata(&b, CONTEXT_CT, 2, "\10\0\122\0CS\6\0STUDY ", 14);
    client_send(fd, b.data, b.len);
    assert_int_equal(client_status(fd), 0x0211);
    make_slice(&slice, "1.2.3.1", 1000); /* and the association lives */
    client_store(fd, "1.2.3.1", &slice, 16372);
    assert_int_equal(client_status(fd), 0);
    close(fd);
    door_close(d);
    hp_buf_done(&b);
    hp_buf_done(&cmd);
    hp_buf_done(&slice);
}

static void expect_store(door *d, const char *instance, const hp_buf *dataset, int status)
{
    int fd = client_associate(d);

    client_store(fd, instance, dataset, 16372);
    assert_int_equal(client_status(fd), status);
    assert_int_equal(door_slices(d), 0);
    assert_int_equal(door_scraps(d), 0);
    assert_true(client_release(fd));
    close(fd);
}

static void test_intake__bad_datasets_get_the_right_status_and_leave_nothing(void **state)
{
    door *d = open_default();
    hp_buf b = HP_BUF_INIT, cmd = HP_BUF_INIT, pdus = HP_BUF_INIT;
    int fd;

    (void)state;
    make_slice(&b, "1.2.3.1", 300000);
    b.len -= 7; /* cut off */
    expect_store(d, "1.2.3.1", &b, 0xC000);

    make_slice(&b, "1.2.3.1", 300000); /* UIDs that disagree with the command */
    expect_store(d, "1.2.3.2", &b, 0xA900);

    hp_buf_clear(&b); /* a nesting bomb, with enough behind it to fill a file */
    ds_slice_start(&b, HP_EXPLICIT_LE, "1.2.3.1");
    for (int i = 0; i < 60000; i++) {
        ds_header(&b, HP_EXPLICIT_LE, 0x0040, 0xA730, "SQ", HP_UNDEFINED);
        ds_item(&b, HP_EXPLICIT_LE, HP_UNDEFINED);
    }
    expect_store(d, "1.2.3.1", &b, 0xC000);

    hp_buf_clear(&b); /* longer than declared anywhere */
    ds_slice_start(&b, HP_EXPLICIT_LE, "1.2.3.1");
    ds_header(&b, HP_EXPLICIT_LE, 0x7FE0, 0x0010, "OW", 0xF0000000u);
    hp_buf_put(&b, "pixels", 6);
    expect_store(d, "1.2.3.1", &b, 0xC000);

    hp_buf_clear(&b); /* no study to file it under */
    ds_text(&b, HP_EXPLICIT_LE, 0x0008, 0x0016, "UI", DS_CT);
    ds_text(&b, HP_EXPLICIT_LE, 0x0008, 0x0018, "UI", "1.2.3.1");
    expect_store(d, "1.2.3.1", &b, 0xA900);

    make_slice(&b, "../../etc", 100); /* a UID that is none */
    expect_store(d, "../../etc", &b, 0xA900);

    /* a class that is not the context's */
    fd = client_associate(d);
    put_command_set(&cmd, HP_DIMSE_C_STORE_RQ, "1.2.840.10008.5.1.4.1.1.4", "1.2.3.1",
                    true);
    put_pdata(&pdus, CONTEXT_CT, 3, cmd.data, cmd.len);
    put_pdata(&pdus, CONTEXT_CT, 2, b.data, b.len);
    client_send(fd, pdus.data, pdus.len);
    assert_int_equal(client_status(fd), 0x0122);
    /* no dataset at all */
    hp_buf_clear(&cmd);
    hp_buf_clear(&pdus);
    put_command_set(&cmd, HP_DIMSE_C_STORE_RQ, DS_CT, "1.2.3.1", false);
    put_pdata(&pdus, CONTEXT_CT, 3, cmd.data, cmd.len);
    client_send(fd, pdus.data, pdus.len);
    assert_int_equal(client_status(fd), 0xC000);
    close(fd);
    assert_int_equal(door_slices(d), 0);
    door_close(d);
    hp_buf_done(&b);
    hp_buf_done(&cmd);
    hp_buf_done(&pdus);
}

/* The sender reads nothing until it has sent everything: so must we take it. */
static void test_intake__a_refused_message_is_drained_first(void **state)
{
    hp_intake_options o;
    hp_buf b = HP_BUF_INIT;
    int fd;
    door *d;

    (void)state;
    door_options(&o);
    o.max_object_bytes = 1 << 20;
    o.progress_ms = 10000;
    d = door_open(&o);
    make_slice(&b, "1.2.3.1", 30 << 20); /* takes a while under a sanitizer */
    fd = client_associate(d);
    client_store(fd, "1.2.3.1", &b, 131066); /* blocks unless drained */
    assert_int_equal(client_status(fd), 0xC000);
    make_slice(&b, "1.2.3.2", 1000);
    client_store(fd, "1.2.3.2", &b, 131066);
    assert_int_equal(client_status(fd), 0);
    close(fd);
    door_close(d);
    hp_buf_done(&b);
}

static void test_intake__what_the_ledger_cannot_keep_is_refused(void **state)
{
    door *d = open_default();
    hp_buf b = HP_BUF_INIT;
    int fd = client_associate(d);

    (void)state;
    make_slice(&b, "1.2.3.1", 1000);
    door_knobs(d)->fail_code = HP_E_NO_SPACE;
    client_store(fd, "1.2.3.1", &b, 16372);
    assert_int_equal(client_status(fd), 0xA700);
    door_knobs(d)->fail_code = HP_E_IO;
    client_store(fd, "1.2.3.1", &b, 16372);
    assert_int_equal(client_status(fd), 0x0110);
    door_knobs(d)->fail_code = HP_OK;
    client_store(fd, "1.2.3.1", &b, 16372);
    assert_int_equal(client_status(fd), 0);
    close(fd);
    door_close(d);
    hp_buf_done(&b);
}

/* ---- peers that behave badly ---- */

static void test_intake__what_is_not_dicom_is_closed_at_once_and_named(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *name;
    } guests[] = {
        {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27, "connection: an HTTP request"},
        {"\26\3\1\2\0\1\0\1\374\3\3", 11,
         "connection: a TLS hello (this port speaks plain DICOM)"},
        {"SSH-2.0-x\r\n", 11, "connection: an SSH client"},
        {"\0\0\0\0", 4, "connection: something that is not DICOM"},
    };
    hp_intake_options o;
    door *d;

    (void)state;
    door_options(&o);
    o.artim_ms = 10000;
    d = door_open(&o);
    for (size_t i = 0; i < sizeof guests / sizeof *guests; i++) {
        int64_t before = hp_clock_mono_ms();
        char why[256];
        int fd = client_connect(d);

        assert_true(client_send(fd, guests[i].bytes, guests[i].len));
        assert_true(client_at_eof(fd));
        assert_true(hp_clock_mono_ms() - before < 5000); /* long before ARTIM */
        door_last_refusal(d, why);
        assert_string_equal(why, guests[i].name);
        close(fd);
    }
    assert_int_equal(door_refusals(d), 4);
    door_close(d);
}

/* M6: silence. M5: a request that never ends. */
static void test_intake__a_silent_peer_is_closed_at_artim(void **state)
{
    door *d = open_default();
    int silent, half;
    int64_t before = hp_clock_mono_ms(), took;
    hp_intake_stats t;

    (void)state;
    silent = client_connect(d);
    half = client_connect(d);
    client_send(half, "\1\0\0\0\1\0\0\1", 8);
    assert_true(client_at_eof(silent));
    assert_true(client_at_eof(half));
    took = hp_clock_mono_ms() - before;
    assert_true(took >= 480 && took < 5000);
    close(silent);
    close(half);
    door_stats(d, &t);
    assert_int_equal(t.timed_out, 2);
    assert_int_equal(t.open_connections, 0);
    door_close(d);
}

static void test_intake__a_drip_of_bytes_is_no_progress(void **state)
{
    door *d = open_default();
    hp_buf slice = HP_BUF_INIT, b = HP_BUF_INIT, cmd = HP_BUF_INIT, in = HP_BUF_INIT;
    int64_t before;
    int fd = client_associate(d);

    (void)state;
    make_slice(&slice, "1.2.3.1", 100000);
    put_command_set(&cmd, HP_DIMSE_C_STORE_RQ, DS_CT, "1.2.3.1", true);
    put_pdata(&b, CONTEXT_CT, 3, cmd.data, cmd.len);
    put_pdata(&b, CONTEXT_CT, 0, slice.data, slice.len);
    before = hp_clock_mono_ms();
    client_send(fd, b.data, b.len - 50000);
    for (int i = 0; i < 150 && client_send(fd, b.data + b.len - 50000 + i, 1); i++)
        usleep(10000);
    assert_int_equal(client_pdu(fd, &in), 7);
    assert_true(hp_clock_mono_ms() - before < 10000);
    close(fd);
    assert_true(door_wait(d, door_scraps, 0));
    door_close(d);
    hp_buf_done(&slice);
    hp_buf_done(&b);
    hp_buf_done(&cmd);
    hp_buf_done(&in);
}

/* A slow sender that does make progress is not cut off. */
static void test_intake__a_slow_sender_is_waited_for(void **state)
{
    door *d = open_default();
    hp_buf slice = HP_BUF_INIT, b = HP_BUF_INIT, cmd = HP_BUF_INIT;
    int fd = client_associate(d);

    (void)state;
    make_slice(&slice, "1.2.3.1", 100000);
    put_command_set(&cmd, HP_DIMSE_C_STORE_RQ, DS_CT, "1.2.3.1", true);
    put_pdata(&b, CONTEXT_CT, 3, cmd.data, cmd.len);
    put_pdata(&b, CONTEXT_CT, 2, slice.data, slice.len);
    for (size_t at = 0; at < b.len; at += 8000) {
        assert_true(client_send(fd, b.data + at, b.len - at < 8000 ? b.len - at : 8000));
        usleep(100000);
    }
    assert_int_equal(client_status(fd), 0);
    close(fd);
    door_close(d);
    hp_buf_done(&slice);
    hp_buf_done(&b);
    hp_buf_done(&cmd);
}

static void test_intake__an_idle_association_ends_but_later(void **state)
{
    door *d = open_default();
    hp_buf in = HP_BUF_INIT;
    int64_t before = hp_clock_mono_ms(), took;
    int fd = client_associate(d);

    (void)state;
    assert_int_equal(client_pdu(fd, &in), 7);
    took = hp_clock_mono_ms() - before;
    assert_true(took >= 1900 && took < 8000);
    close(fd);
    door_close(d);
    hp_buf_done(&in);
}

static void test_intake__a_peer_that_goes_away_leaves_nothing(void **state)
{
    door *d = open_default();
    hp_buf slice = HP_BUF_INIT, b = HP_BUF_INIT, cmd = HP_BUF_INIT;
    hp_intake_stats t;

    (void)state;
    make_slice(&slice, "1.2.3.1", 2000000);
    put_command_set(&cmd, HP_DIMSE_C_STORE_RQ, DS_CT, "1.2.3.1", true);
    put_pdata(&b, CONTEXT_CT, 3, cmd.data, cmd.len);
    for (size_t at = 0; at < slice.len; at += 100000)
        put_pdata(&b, CONTEXT_CT, 0, slice.data + at,
                  slice.len - at < 100000 ? slice.len - at : 100000);
    for (int how = 0; how < 4; how++) {
        int fd = client_associate(d);
        struct linger reset = {1, 0};

        client_send(fd, b.data, b.len); /* all but the last-fragment mark */
        if (how == 0)
            assert_true(door_wait(d, door_scraps, 1));
        if (how == 1)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        if (how == 2)
            client_send(fd, "\7\0\0\0\0\4\0\0\0\0", 10); /* A-ABORT */
        if (how == 3)
            assert_true(client_release(fd)); /* with the message unfinished */
        close(fd);
        assert_true(door_wait(d, door_scraps, 0));
    }
    assert_int_equal(door_slices(d), 0);
    door_stats(d, &t);
    assert_int_equal(t.cut_off, 4);
    assert_int_equal(t.open_associations, 0);
    door_close(d);
    hp_buf_done(&slice);
    hp_buf_done(&b);
    hp_buf_done(&cmd);
}

/* Gone while the ledger had it: the slice stays, the resend is a duplicate. */
static void test_intake__gone_before_the_answer_keeps_the_slice(void **state)
{
    door *d = open_default();
    hp_buf slice = HP_BUF_INIT;
    int fd = client_associate(d);

    (void)state;
    door_knobs(d)->delay_ms = 100;
    make_slice(&slice, "1.2.3.1", 2000);
    client_store(fd, "1.2.3.1", &slice, 16372);
    close(fd);
    assert_true(door_wait(d, door_slices, 1));
    door_close(d);
    hp_buf_done(&slice);
}

/* A peer that shut down writing still gets its answer. */
static void test_intake__half_closed_peers_get_their_answer(void **state)
{
    door *d = open_default();
    hp_buf slice = HP_BUF_INIT;
    int fd = client_associate(d);

    (void)state;
    door_knobs(d)->delay_ms = 50;
    make_slice(&slice, "1.2.3.1", 2000);
    client_store(fd, "1.2.3.1", &slice, 16372);
    shutdown(fd, SHUT_WR);
    assert_int_equal(client_status(fd), 0);
    assert_true(client_at_eof(fd));
    close(fd);
    door_close(d);
    hp_buf_done(&slice);
}

/* Echo after echo without ever reading: stopped, and closed at its deadline. */
static void test_intake__a_peer_that_does_not_read_is_closed(void **state)
{
    door *d = open_default();
    hp_buf b = HP_BUF_INIT, cmd = HP_BUF_INIT;
    hp_intake_stats t;
    struct timeval patience = {1, 0};
    int fd = client_associate_deaf(d);

    (void)state;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    put_command_set(&cmd, HP_DIMSE_C_ECHO_RQ, "1.2.840.10008.1.1", "", false);
    for (int i = 0; i < 100; i++)
        put_pdata(&b, CONTEXT_ECHO, 3, cmd.data, cmd.len);
    for (int i = 0; i < 3000 && client_send(fd, b.data, b.len); i++)
        ;
    for (int i = 0; i < 2000; i++) {
        door_stats(d, &t);
        if (t.open_connections == 0)
            break;
        usleep(5000);
    }
    assert_int_equal(t.open_connections, 0);
    close(fd);
    door_close(d);
    hp_buf_done(&b);
    hp_buf_done(&cmd);
}

/* Promise 3, in small: hostile peers by the dozen, and an echo in between. */
static void test_intake__no_peer_stops_another(void **state)
{
    enum { HOSTILE = 150 };
    hp_intake_options o;
    hp_buf slice = HP_BUF_INIT;
    hp_intake_stats t;
    int fds[HOSTILE], fd;
    int64_t before;
    door *d;

    (void)state;
    door_options(&o);
    o.artim_ms = 4000;
    d = door_open(&o);
    for (int i = 0; i < HOSTILE; i++) {
        fds[i] = client_connect(d);
        if (i % 3 == 1)
            client_send(fds[i], "\1\0\0\0\1\0\0\1", 8);
        if (i % 3 == 2)
            client_send(fds[i], "\1\0\0\3\377\377", 6);
    }
    make_slice(&slice, "1.2.3.1", 500000);
    before = hp_clock_mono_ms();
    fd = client_associate(d);
    client_store(fd, "1.2.3.1", &slice, 16372);
    assert_int_equal(client_status(fd), 0);
    assert_true(client_release(fd));
    assert_true(hp_clock_mono_ms() - before < 3500); /* before the others' deadline */
    close(fd);
    for (int i = 0; i < HOSTILE; i++) {
        assert_true(client_at_eof(fds[i]));
        close(fds[i]);
    }
    door_stats(d, &t);
    assert_int_equal(t.open_connections, 0);
    door_close(d);
    hp_buf_done(&slice);
}

static void test_intake__closing_leaves_nothing_behind(void **state)
{
    door *d = open_default();
    hp_buf slice = HP_BUF_INIT;
    int done = client_associate(d), half = client_associate(d), idle = client_connect(d);

    (void)state;
    door_knobs(d)->delay_ms = 100;
    make_slice(&slice, "1.2.3.1", 400000);
    client_store(done, "1.2.3.1", &slice, 16372);
    slice.len -= 1000;
    {
        hp_buf b = HP_BUF_INIT, cmd = HP_BUF_INIT;

        put_command_set(&cmd, HP_DIMSE_C_STORE_RQ, DS_CT, "1.2.3.2", true);
        put_pdata(&b, CONTEXT_CT, 3, cmd.data, cmd.len);
        put_pdata(&b, CONTEXT_CT, 0, slice.data, slice.len);
        client_send(half, b.data, b.len);
        hp_buf_done(&b);
        hp_buf_done(&cmd);
    }
    usleep(30000);
    door_close(d); /* checks that no part file is left */
    close(done);
    close(half);
    close(idle);
    hp_buf_done(&slice);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_intake__stores_the_bytes_as_they_came),
        cmocka_unit_test(test_intake__echo_is_answered),
        cmocka_unit_test(test_intake__fragments_may_be_split_anywhere),
        cmocka_unit_test(test_intake__command_and_data_may_share_a_pdu),
        cmocka_unit_test(test_intake__a_second_request_before_the_answer_waits_its_turn),
        cmocka_unit_test(test_intake__no_answer_before_the_ledger_answers),
        cmocka_unit_test(test_intake__an_association_carries_its_studies),
        cmocka_unit_test(test_intake__rejections_give_their_reason),
        cmocka_unit_test(test_intake__an_unknown_address_is_rejected),
        cmocka_unit_test(test_intake__limits_reject_for_now),
        cmocka_unit_test(test_intake__below_the_reserve_nothing_is_taken),
        cmocka_unit_test(test_intake__a_crowd_from_one_address_leaves_room_for_others),
        cmocka_unit_test(test_intake__a_port_that_is_taken_is_an_error),
        cmocka_unit_test(test_intake__protocol_violations_are_aborted_with_their_reason),
        cmocka_unit_test(test_intake__the_reason_reaches_a_peer_that_goes_on_sending),
        cmocka_unit_test(test_intake__a_peer_that_does_not_close_is_closed),
        cmocka_unit_test(test_intake__the_default_classes_are_taken),
        cmocka_unit_test(test_intake__a_pdu_of_a_mebibyte_is_read),
        cmocka_unit_test(test_intake__an_unknown_request_gets_0211),
        cmocka_unit_test(
            test_intake__bad_datasets_get_the_right_status_and_leave_nothing),
        cmocka_unit_test(test_intake__a_refused_message_is_drained_first),
        cmocka_unit_test(test_intake__what_the_ledger_cannot_keep_is_refused),
        cmocka_unit_test(test_intake__what_is_not_dicom_is_closed_at_once_and_named),
        cmocka_unit_test(test_intake__a_silent_peer_is_closed_at_artim),
        cmocka_unit_test(test_intake__a_drip_of_bytes_is_no_progress),
        cmocka_unit_test(test_intake__a_slow_sender_is_waited_for),
        cmocka_unit_test(test_intake__an_idle_association_ends_but_later),
        cmocka_unit_test(test_intake__a_peer_that_goes_away_leaves_nothing),
        cmocka_unit_test(test_intake__gone_before_the_answer_keeps_the_slice),
        cmocka_unit_test(test_intake__half_closed_peers_get_their_answer),
        cmocka_unit_test(test_intake__a_peer_that_does_not_read_is_closed),
        cmocka_unit_test(test_intake__no_peer_stops_another),
        cmocka_unit_test(test_intake__closing_leaves_nothing_behind),
    };

    hp_log_set_level(getenv("HEPAR_TEST_LOG") ? HP_LOG_DEBUG : HP_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
