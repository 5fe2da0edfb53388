/* dicom/sc: pictures that can be stored, and that say what they are. How they
 * look is judged by eye; here it is what a machine can tell. */
#include "tests/base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/path.h"
#include "dicom/sc.h"
#include "tests/fixture/report_world.h"

enum { ALL = 15 };

static void write_key(report_world *w, int index, const char *name,
                      char path[HP_PATH_MAX])
{
    hp_uid instance;
    hp_error e = HP_ERROR_INIT;

    assert_int_equal(hp_path_fmt(path, NULL, "%s/%s", w->dir, name), HP_OK);
    if (hp_sc_write_key_image(&w->report, index, path, NULL, &instance, &e) != HP_OK)
        fail_msg("%s", e.msg);
}

static void write_note(report_world *w, const char *name, char path[HP_PATH_MAX])
{
    hp_uid instance;
    hp_error e = HP_ERROR_INIT;

    assert_int_equal(hp_path_fmt(path, NULL, "%s/%s", w->dir, name), HP_OK);
    if (hp_sc_write_note(&w->report, path, NULL, &instance, &e) != HP_OK)
        fail_msg("%s", e.msg);
}

static void check_text(const char *path, unsigned group, unsigned element,
                       const char *expected)
{
    char value[128] = "";
    int n = report_world_element(path, group, element, value, sizeof value - 1);

    assert_true(n >= (int)strlen(expected));
    assert_int_equal(strncmp(value, expected, strlen(expected)), 0);
}

static unsigned number(const char *path, unsigned group, unsigned element)
{
    uint8_t v[2] = {0};

    assert_int_equal(report_world_element(path, group, element, v, 2), 2);
    return hp_get_u16le(v);
}

static void test_sc__says_what_it_is(void **state)
{
    report_world w;
    char path[HP_PATH_MAX], none[8];

    (void)state;
    report_world_init(&w, ALL);
    write_key(&w, 0, "key.dcm", path);
    check_text(path, 8, 0x16, HP_SOP_SECONDARY_CAPTURE);
    check_text(path, 8, 8, "DERIVED\\SECONDARY");
    check_text(path, 8, 0x60, "OT");
    check_text(path, 8, 0x64, "WSD");
    check_text(path, 8, 0x103e, "AI key images, hepar (RUO)");
    check_text(path, 0x18, 0x15, "LIVER");
    check_text(path, 0x28, 0x301, "YES");
    check_text(path, 0x28, 4, "RGB");
    assert_int_equal(number(path, 0x28, 0x10), HP_SC_HEIGHT);
    assert_int_equal(number(path, 0x28, 0x11), HP_SC_WIDTH);
    /* Viewers must not measure in it. */
    assert_int_equal(report_world_element(path, 0x20, 0x52, none, sizeof none), -1);
    assert_int_equal(report_world_element(path, 0x28, 0x30, none, sizeof none), -1);
    report_world_done(&w);
}

static void test_sc__modality_is_the_sites_choice(void **state)
{
    report_world w;
    char path[HP_PATH_MAX];

    (void)state;
    report_world_init(&w, ALL);
    w.report.sc_modality = "CT";
    write_key(&w, 0, "key.dcm", path);
    check_text(path, 8, 0x60, "CT");
    report_world_done(&w);
}

static void test_sc__same_report_same_bytes(void **state)
{
    report_world w;
    char a[HP_PATH_MAX], b[HP_PATH_MAX], out[256];

    (void)state;
    report_world_init(&w, ALL);
    write_key(&w, 0, "a.dcm", a);
    write_key(&w, 0, "b.dcm", b);
    assert_int_equal(report_world_run(out, sizeof out, "cmp %s %s 2>&1", a, b), 0);
    report_world_done(&w);
}

/* A page is drawn whatever is missing: phases, volumes, masks, names. */
static void test_sc__draws_with_little(void **state)
{
    report_world w;
    char path[HP_PATH_MAX];

    (void)state;
    report_world_init(&w, 0);
    report_world_outcome(&w, HP_OUTCOME_DETECTED);
    w.report.liver = NULL;
    w.report.software_version = NULL;
    w.report.sc_modality = NULL;
    w.findings.candidates[0].key_slice = -1;
    write_key(&w, 1, "key.dcm", path);
    w.report.registered = NULL;
    w.report.assembly = NULL;
    write_key(&w, 0, "key.dcm", path);
    for (int o = HP_OUTCOME_NOT_ACCEPTED; o <= HP_OUTCOME_UNSUITABLE; o++) {
        report_world_outcome(&w, (hp_outcome)o);
        write_note(&w, "note.dcm", path);
    }
    report_world_done(&w);
}

/* A box at, or beyond, the rim of the volume. */
static void test_sc__draws_at_the_rim(void **state)
{
    report_world w;
    char path[HP_PATH_MAX];
    hp_box *box;

    (void)state;
    report_world_init(&w, ALL);
    box = &w.findings.candidates[0].box_mm;
    w.findings.candidates[0].key_slice = w.findings.grid.n[HP_Z] + 3;
    box->lo[HP_X] = -40;
    box->hi[HP_X] = 1000;
    box->lo[HP_Y] = 350;
    box->hi[HP_Y] = 400;
    write_key(&w, 0, "key.dcm", path);
    report_world_done(&w);
}

static void test_sc__long_words_are_cut(void **state)
{
    report_world w;
    char path[HP_PATH_MAX];

    (void)state;
    report_world_init(&w, ALL);
    report_world_outcome(&w, HP_OUTCOME_UNSUITABLE);
    memset(w.findings.reason, 'W', sizeof w.findings.reason - 1);
    for (int i = 0; i < HP_MAX_SERIES; i++)
        w.findings.series[i] = w.findings.series[0];
    w.findings.series_count = HP_MAX_SERIES;
    memset(w.findings.intended_use, 'x', sizeof w.findings.intended_use - 1);
    write_note(&w, "note.dcm", path);
    report_world_done(&w);
}

static void test_sc__refuses_a_candidate_that_is_not_there(void **state)
{
    report_world w;
    hp_uid instance;

    (void)state;
    report_world_init(&w, ALL);
    assert_int_equal(
        hp_sc_write_key_image(&w.report, 7, "/nowhere", NULL, &instance, NULL),
        HP_E_INVALID);
    assert_int_not_equal(
        hp_sc_write_key_image(&w.report, 0, "/nowhere/key.dcm", NULL, &instance, NULL),
        HP_OK);
    report_world_done(&w);
}

static void check_dciodvfy(const char *path)
{
    char text[16384];

    report_world_run(text, sizeof text, "dciodvfy %s 2>&1", path);
    if (strstr(text, "Error") != NULL)
        fail_msg("%s", text);
}

static void test_sc__dciodvfy_finds_no_error(void **state)
{
    report_world w;
    char path[HP_PATH_MAX];

    (void)state;
    if (!report_world_has_tool("dciodvfy"))
        skip();
    report_world_init(&w, ALL);
    write_key(&w, 0, "key.dcm", path);
    check_dciodvfy(path);
    report_world_outcome(&w, HP_OUTCOME_NOT_ACCEPTED);
    write_note(&w, "note.dcm", path);
    check_dciodvfy(path);
    report_world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sc__says_what_it_is),
        cmocka_unit_test(test_sc__modality_is_the_sites_choice),
        cmocka_unit_test(test_sc__same_report_same_bytes),
        cmocka_unit_test(test_sc__draws_with_little),
        cmocka_unit_test(test_sc__draws_at_the_rim),
        cmocka_unit_test(test_sc__long_words_are_cut),
        cmocka_unit_test(test_sc__refuses_a_candidate_that_is_not_there),
        cmocka_unit_test(test_sc__dciodvfy_finds_no_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
