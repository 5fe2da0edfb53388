#include "base/number.h"

#include <locale.h>
#include <math.h>

#include "tests/base/check.h"

static void test_number__whole_text_must_be_a_number(void **state)
{
    static const char *const BAD[] = {"",    " ",     "1x",  "1 2",  "nan",
                                      "inf", "0x10",  "1e",  "--1",  "1,5",
                                      ".",   "1e999", "+-1", "1\\2", "e5"};
    double v = 7;

    (void)state;
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++)
        assert_false(hp_parse_double(BAD[i], &v));
    assert_true(v == 7);
    assert_true(hp_parse_double(" -1.25e2 ", &v) && v == -125);
    assert_true(hp_parse_double("+.5", &v) && v == 0.5);
}

static void test_number__integers_do_not_wrap(void **state)
{
    int64_t v = 7;

    (void)state;
    assert_false(hp_parse_i64("9223372036854775808", &v));
    assert_false(hp_parse_i64("1.0", &v));
    assert_false(hp_parse_i64("", &v));
    assert_true(v == 7);
    assert_true(hp_parse_i64(" -42", &v) && v == -42);
    assert_true(hp_parse_i64("9223372036854775807", &v) && v == INT64_MAX);
}

static void test_number__dicom_lists(void **state)
{
    double v[6];

    (void)state;
    assert_int_equal(hp_parse_doubles("1\\0\\0\\0\\1\\-0.5 ", v, 6), 6);
    assert_true(v[0] == 1 && v[5] == -0.5);
    assert_int_equal(hp_parse_doubles("", v, 6), 0);
    assert_int_equal(hp_parse_doubles("1\\\\2", v, 6), -1);
    assert_int_equal(hp_parse_doubles("1\\x", v, 6), -1);
    assert_int_equal(hp_parse_doubles("1\\2\\3", v, 2), 2);
}

static void test_number__formats_shortest(void **state)
{
    char text[32];

    (void)state;
    hp_format_double(1.5, 3, text, sizeof text);
    assert_string_equal(text, "1.5");
    hp_format_double(-0.0001, 2, text, sizeof text);
    assert_string_equal(text, "0");
    hp_format_double(100, 0, text, sizeof text);
    assert_string_equal(text, "100");
    hp_format_double(100, 2, text, sizeof text);
    assert_string_equal(text, "100");
    hp_format_double(NAN, 2, text, sizeof text);
    assert_string_equal(text, "nan");
}

static void test_number__locale_changes_nothing(void **state)
{
    char text[32];
    double v;

    (void)state;
    /* Whichever of these the machine has; with none the test proves little. */
    if (setlocale(LC_NUMERIC, "de_DE.UTF-8") == NULL)
        setlocale(LC_NUMERIC, "fr_FR.UTF-8");
    assert_true(hp_parse_double("2.5", &v) && v == 2.5);
    hp_format_double(2.5, 1, text, sizeof text);
    assert_string_equal(text, "2.5");
    setlocale(LC_NUMERIC, "C");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_number__whole_text_must_be_a_number),
        cmocka_unit_test(test_number__integers_do_not_wrap),
        cmocka_unit_test(test_number__dicom_lists),
        cmocka_unit_test(test_number__formats_shortest),
        cmocka_unit_test(test_number__locale_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
