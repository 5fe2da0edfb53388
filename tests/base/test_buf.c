#include "base/buf.h"

#include <string.h>

#include "tests/base/check.h"

static void test_buf__numbers_read_back(void **state)
{
    hp_buf b = HP_BUF_INIT;

    (void)state;
    hp_buf_u8(&b, 0xab);
    hp_buf_u16be(&b, 0x1234);
    hp_buf_u32be(&b, 0xdeadbeef);
    hp_buf_u16le(&b, 0x1234);
    hp_buf_u32le(&b, 0xdeadbeef);
    assert_int_equal(b.len, 13);
    assert_int_equal(b.data[1], 0x12);
    assert_int_equal(b.data[7], 0x34);
    assert_int_equal(hp_get_u16be(b.data + 1), 0x1234);
    assert_int_equal(hp_get_u32be(b.data + 3), 0xdeadbeef);
    assert_int_equal(hp_get_u16le(b.data + 7), 0x1234);
    assert_int_equal(hp_get_u32le(b.data + 9), 0xdeadbeef);
    hp_buf_done(&b);
}

static void test_buf__text_grows_and_is_consumed(void **state)
{
    hp_buf b = HP_BUF_INIT;

    (void)state;
    assert_string_equal(hp_buf_str(&b), "");
    for (int i = 0; i < 1000; i++)
        hp_buf_printf(&b, "%03d,", i);
    assert_int_equal(b.len, 4000);
    hp_buf_consume(&b, 3996);
    assert_string_equal(hp_buf_str(&b), "999,");
    hp_buf_consume(&b, 100);
    assert_int_equal(b.len, 0);
    hp_buf_done(&b);
}

static void test_buf__impossible_size_marks_it_failed(void **state)
{
    hp_buf b = HP_BUF_INIT;

    (void)state;
    hp_buf_put(&b, "abc", 3);
    assert_false(hp_buf_reserve(&b, SIZE_MAX - 1));
    assert_true(b.failed);
    hp_buf_put(&b, "def", 3);
    assert_string_equal(hp_buf_str(&b), "abc");
    hp_buf_clear(&b);
    hp_buf_put(&b, "def", 3);
    assert_string_equal(hp_buf_str(&b), "def");
    hp_buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buf__numbers_read_back),
        cmocka_unit_test(test_buf__text_grows_and_is_consumed),
        cmocka_unit_test(test_buf__impossible_size_marks_it_failed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
