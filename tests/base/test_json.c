#include "base/json.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/path.h"
#include "tests/base/check.h"

static void test_json__bad_text_names_the_place(void **state)
{
    hp_error e = HP_ERROR_INIT;
    json_t *j = NULL;

    (void)state;
    assert_int_equal(hp_json_parse("{\"a\":\n x}", 9, &j, &e), HP_E_INVALID);
    assert_non_null(strstr(e.msg, "line 2"));
    assert_int_equal(hp_json_parse("{\"a\":1,\"a\":2}", 13, &j, &e), HP_E_INVALID);
    assert_int_equal(hp_json_parse("", 0, &j, &e), HP_E_INVALID);
    assert_null(j);
}

static void test_json__nesting_is_bounded(void **state)
{
    char text[4000];
    hp_error e = HP_ERROR_INIT;
    json_t *j = NULL;

    (void)state;
    memset(text, '[', sizeof text);
    assert_int_equal(hp_json_parse(text, sizeof text, &j, &e), HP_E_LIMIT);
    /* Brackets inside a string are text. */
    memset(text + 1, '[', 500);
    text[0] = text[501] = '"';
    assert_int_equal(hp_json_parse(text, 502, &j, &e), HP_OK);
    json_decref(j);
}

static void test_json__getters_forgive(void **state)
{
    hp_auto(json_t) *j =
        json_pack("{s:s,s:i,s:f,s:b}", "s", "x", "i", 3, "f", 2.5, "b", 1);

    (void)state;
    assert_string_equal(hp_json_str(j, "s", "-"), "x");
    assert_string_equal(hp_json_str(j, "i", "-"), "-");
    assert_int_equal(hp_json_int(j, "i", 0), 3);
    assert_int_equal(hp_json_int(j, "none", 9), 9);
    assert_true(hp_json_num(j, "i", 0) == 3 && hp_json_num(j, "f", 0) == 2.5);
    assert_true(hp_json_bool(j, "b", 0));
    assert_true(hp_json_bool(j, "s", 1));
    assert_int_equal(hp_json_int(NULL, "i", 4), 4);
}

static void test_json__file_round_trip(void **state)
{
    hp_auto(json_t) *j = json_pack("{s:f}", "third", 1.0 / 3);
    hp_auto(json_t) *back = NULL;
    hp_error e = HP_ERROR_INIT;
    char path[64];

    (void)state;
    snprintf(path, sizeof path, "/tmp/hepar-json.%d", (int)getpid());
    assert_int_equal(hp_json_write_file(path, j, &e), HP_OK);
    assert_int_equal(hp_json_load_file(path, &back, &e), HP_OK);
    assert_true(json_equal(j, back));
    hp_path_remove(path, NULL);
    assert_int_equal(hp_json_load_file(path, &back, &e), HP_E_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json__bad_text_names_the_place),
        cmocka_unit_test(test_json__nesting_is_bounded),
        cmocka_unit_test(test_json__getters_forgive),
        cmocka_unit_test(test_json__file_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
