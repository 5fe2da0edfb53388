/* dicom/dimse.c: command sets and messages, as right and as wrong as they come. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dicom/dimse.h"
#include "tests/fixture/dataset.h"
#include "tests/fixture/door.h"

static void test_dimse__a_request_survives_its_round_trip(void **state)
{
    hp_buf b = HP_BUF_INIT;
    hp_dimse_command c;

    (void)state;
    put_command_set(&b, HP_DIMSE_C_STORE_RQ, DS_CT, "1.2.3", true);
    assert_int_equal(hp_get_u32le(b.data + 8), b.len - 12); /* group length */
    assert_int_equal(hp_dimse_parse(b.data, b.len, &c, NULL), HP_OK);
    assert_int_equal(c.field, HP_DIMSE_C_STORE_RQ);
    assert_int_equal(c.message_id, 7);
    assert_string_equal(c.sop_class.text, DS_CT);
    assert_string_equal(c.sop_instance.text, "1.2.3");
    assert_int_not_equal(c.dataset_type, HP_DIMSE_NO_DATASET);
    hp_buf_done(&b);
}

static void test_dimse__an_answer_repeats_the_request(void **state)
{
    hp_dimse_command rq = {HP_DIMSE_C_STORE_RQ, 0x1234, 0, {DS_CT}, {"1.2.3.4"}}, c;
    hp_buf b = HP_BUF_INIT;
    char comment[100];

    (void)state;
    memset(comment, 'c', sizeof comment - 1);
    comment[sizeof comment - 1] = 0;
    hp_dimse_put_response(&rq, 0xA700, comment, &b);
    assert_int_equal(hp_dimse_parse(b.data, b.len, &c, NULL), HP_OK);
    assert_int_equal(c.field, 0x8001);
    assert_int_equal(c.dataset_type, HP_DIMSE_NO_DATASET);
    assert_string_equal(c.sop_class.text, DS_CT);
    assert_string_equal(c.sop_instance.text, "1.2.3.4");
    assert_non_null(
        memmem(b.data, b.len, "\0\0\40\1\2\0\0\0\64\22", 10)); /* responded ID */
    assert_non_null(memmem(b.data, b.len, "\0\0\0\11\2\0\0\0\0\247", 10)); /* status */
    assert_non_null(memmem(b.data, b.len, "\0\0\2\11\100\0\0\0ccc", 11));  /* cut to 64 */
    /* elements in ascending order, as group 0000 must be */
    for (size_t at = 0, last = 0; at < b.len; at += 8 + hp_get_u32le(b.data + at + 4)) {
        assert_true(at == 0 || hp_get_u16le(b.data + at + 2) > last);
        last = hp_get_u16le(b.data + at + 2);
    }
    hp_buf_done(&b);
}

static void test_dimse__broken_command_sets_are_refused(void **state)
{
    hp_buf b = HP_BUF_INIT;
    hp_dimse_command c;
    size_t whole;

    (void)state;
    put_command_set(&b, HP_DIMSE_C_STORE_RQ, DS_CT, "1.2.3", true);
    whole = b.len;
    for (size_t len = 0; len < whole; len++) { /* every cut, in memory of that size */
        uint8_t *copy = malloc(len ? len : 1);
        hp_code r;

        memcpy(copy, b.data, len);
        r = hp_dimse_parse(copy, len, &c, NULL);
        assert_true(r == HP_E_INVALID || r == HP_OK);
        if (len < 66)
            assert_int_equal(r, HP_E_INVALID); /* no message ID yet */
        free(copy);
    }
    b.data[0] = 8; /* not group 0000 */
    assert_int_equal(hp_dimse_parse(b.data, b.len, &c, NULL), HP_E_INVALID);
    hp_buf_clear(&b);
    hp_buf_put(&b, "\0\0\0\1\4\0\0\0\1\0\0\0", 12); /* a command field of 4 bytes */
    assert_int_equal(hp_dimse_parse(b.data, b.len, &c, NULL), HP_E_INVALID);
    hp_buf_clear(&b);
    hp_buf_put(&b, "\0\0\0\1\2\0\0\0\1\0", 10); /* no message ID */
    assert_int_equal(hp_dimse_parse(b.data, b.len, &c, NULL), HP_E_INVALID);
    hp_buf_done(&b);
}

static void test_dimse__a_uid_that_does_not_fit_is_no_uid(void **state)
{
    hp_buf b = HP_BUF_INIT;
    hp_dimse_command c;
    char uid[66];

    (void)state;
    memset(uid, '1', 65);
    uid[65] = 0;
    hp_buf_put(&b, "\0\0\0\1\2\0\0\0\1\0\0\0\20\1\2\0\0\0\1\0", 20);
    hp_buf_put(&b, "\0\0\0\20\101\0\0\0", 8);
    hp_buf_put(&b, uid, 65);
    assert_int_equal(hp_dimse_parse(b.data, b.len, &c, NULL), HP_OK);
    assert_string_equal(c.sop_instance.text, "");
    hp_buf_done(&b);
}

static hp_code take(hp_dimse_reader *r, uint8_t context, bool command, bool last,
                    bool ends, const void *data, size_t len, hp_dimse_event *what)
{
    hp_ul_event ev = {.kind = HP_UL_DATA,
                      .context_id = context,
                      .command = command,
                      .last = last,
                      .ends = ends,
                      .data = data,
                      .len = len};
    uint8_t reason;

    *what = HP_DIMSE_MORE;
    return hp_dimse_take(r, &ev, what, &reason, NULL);
}

static void test_dimse__messages_are_put_together_from_pieces(void **state)
{
    hp_dimse_reader r = HP_DIMSE_READER_INIT;
    hp_buf cmd = HP_BUF_INIT;
    hp_dimse_event what;

    (void)state;
    put_command_set(&cmd, HP_DIMSE_C_STORE_RQ, DS_CT, "1.2.3", true);
    for (int round = 0; round < 3; round++) {
        assert_false(hp_dimse_inside_message(&r));
        for (size_t i = 0; i + 1 < cmd.len; i++) {
            assert_int_equal(take(&r, 1, true, true, false, cmd.data + i, 1, &what),
                             HP_OK);
            assert_int_equal(what, HP_DIMSE_MORE);
        }
        assert_int_equal(take(&r, 1, true, true, true, cmd.data + cmd.len - 1, 1, &what),
                         HP_OK);
        assert_int_equal(what, HP_DIMSE_COMMAND);
        assert_true(r.has_dataset);
        assert_string_equal(r.command.sop_instance.text, "1.2.3");
        assert_int_equal(take(&r, 1, false, false, true, "ab", 2, &what), HP_OK);
        assert_int_equal(what, HP_DIMSE_DATA);
        assert_int_equal(take(&r, 1, false, true, false, "c", 1, &what), HP_OK);
        assert_int_equal(what, HP_DIMSE_DATA); /* last fragment, but more of it to come */
        assert_int_equal(take(&r, 1, false, true, true, "", 0, &what), HP_OK);
        assert_int_equal(what, HP_DIMSE_DATA_END);
    }
    hp_dimse_reader_done(&r);
    hp_buf_done(&cmd);
}

static void test_dimse__pieces_out_of_order_are_refused(void **state)
{
    hp_dimse_reader r = HP_DIMSE_READER_INIT;
    hp_buf cmd = HP_BUF_INIT;
    hp_dimse_event what;

    (void)state;
    put_command_set(&cmd, HP_DIMSE_C_STORE_RQ, DS_CT, "1.2.3", true);
    assert_int_equal(take(&r, 1, false, true, true, "a", 1, &what), HP_E_INVALID);
    assert_int_equal(take(&r, 1, true, false, true, cmd.data, 8, &what), HP_OK);
    assert_int_equal(take(&r, 3, true, true, true, cmd.data + 8, cmd.len - 8, &what),
                     HP_E_INVALID);
    hp_dimse_reader_done(&r);
    assert_int_equal(take(&r, 1, true, true, true, cmd.data, cmd.len, &what), HP_OK);
    assert_int_equal(take(&r, 1, true, true, true, cmd.data, cmd.len, &what),
                     HP_E_INVALID);
    hp_dimse_reader_done(&r);
    hp_buf_done(&cmd);
}

static void test_dimse__a_command_is_bounded(void **state)
{
    hp_dimse_reader r = HP_DIMSE_READER_INIT;
    static uint8_t zeros[30000];
    hp_dimse_event what;

    (void)state;
    assert_int_equal(take(&r, 1, true, false, true, zeros, sizeof zeros, &what), HP_OK);
    assert_int_equal(take(&r, 1, true, false, true, zeros, sizeof zeros, &what), HP_OK);
    assert_int_equal(take(&r, 1, true, false, true, zeros, sizeof zeros, &what),
                     HP_E_LIMIT);
    hp_dimse_reader_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dimse__a_request_survives_its_round_trip),
        cmocka_unit_test(test_dimse__an_answer_repeats_the_request),
        cmocka_unit_test(test_dimse__broken_command_sets_are_refused),
        cmocka_unit_test(test_dimse__a_uid_that_does_not_fit_is_no_uid),
        cmocka_unit_test(test_dimse__messages_are_put_together_from_pieces),
        cmocka_unit_test(test_dimse__pieces_out_of_order_are_refused),
        cmocka_unit_test(test_dimse__a_command_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
