/* dicom/sr: what is in the report, and what other programs say about it. */
#include "tests/base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/path.h"
#include "dicom/sr.h"
#include "tests/fixture/report_world.h"

enum { ALL = 15 };

static void write_sr(report_world *w, const char *name, char path[HP_PATH_MAX])
{
    hp_uid instance, sop_class;
    hp_error e = HP_ERROR_INIT;

    assert_int_equal(hp_path_fmt(path, NULL, "%s/%s", w->dir, name), HP_OK);
    if (hp_sr_write(&w->report, path, &instance, &sop_class, &e) != HP_OK)
        fail_msg("%s", e.msg);
    assert_true(hp_uid_valid(instance.text));
}

static void dump(const char *path, char *ret, size_t size)
{
    if (report_world_run(ret, size, "dsrdump +Pc %s 2>&1", path) != 0)
        fail_msg("dsrdump: %s", ret);
}

static void test_sr__carries_the_finding(void **state)
{
    report_world w;
    char path[HP_PATH_MAX], text[32768];

    (void)state;
    report_world_init(&w, ALL);
    write_sr(&w, "sr.dcm", path);
    if (report_world_has_tool("dsrdump")) {
        dump(path, text, sizeof text);
        assert_non_null(strstr(text, "Hepatocellular carcinoma"));
        assert_non_null(strstr(text, "L1 HCC 81% det 94% (AI, RUO)"));
    }
    report_world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sr__carries_the_finding),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
