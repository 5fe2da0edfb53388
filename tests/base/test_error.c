#include "base/error.h"

#include <errno.h>
#include <string.h>

#include "tests/base/check.h"

static void test_error__reads_like_a_sentence_with_colons(void **state)
{
    hp_error e = HP_ERROR_INIT;
    hp_code r;

    (void)state;
    r = hp_fail(&e, HP_E_TRUNCATED, "tag %04x", 0x7fe0);
    r = hp_wrap(&e, r, "slice %d", 7);
    r = hp_wrap(&e, r, "loading phase %s", "V");
    assert_int_equal(r, HP_E_TRUNCATED);
    assert_int_equal(e.code, HP_E_TRUNCATED);
    assert_string_equal(e.msg, "loading phase V: slice 7: tag 7fe0");
}

static void test_error__too_long_is_cut_not_overrun(void **state)
{
    hp_error e = HP_ERROR_INIT;
    char words[600];

    (void)state;
    memset(words, 'x', sizeof words - 1);
    words[sizeof words - 1] = 0;
    hp_fail(&e, HP_E_IO, "%s", words);
    assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
    hp_wrap(&e, HP_E_IO, "%s", words);
    assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
}

static void test_error__nobody_need_listen(void **state)
{
    (void)state;
    assert_int_equal(hp_fail(NULL, HP_E_IO, "x"), HP_E_IO);
    assert_int_equal(hp_wrap(NULL, HP_E_IO, "x"), HP_E_IO);
    assert_int_equal(hp_fail_errno(NULL, ENOSPC, "x"), HP_E_NO_SPACE);
}

static void test_error__table_decides_about_retry(void **state)
{
    (void)state;
    assert_true(hp_code_may_retry(HP_E_NO_SPACE));
    assert_false(hp_code_may_retry(HP_E_REFUSED));
    assert_string_equal(hp_code_name(HP_E_TRUNCATED), "E_TRUNCATED");
    assert_string_equal(hp_code_text(HP_OK), "success");
    assert_string_equal(hp_code_name((hp_code)9999), "E_UNKNOWN");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error__reads_like_a_sentence_with_colons),
        cmocka_unit_test(test_error__too_long_is_cut_not_overrun),
        cmocka_unit_test(test_error__nobody_need_listen),
        cmocka_unit_test(test_error__table_decides_about_retry),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
