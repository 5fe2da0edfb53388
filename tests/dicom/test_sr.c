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
    char stored[HP_UID_SIZE] = "";

    assert_int_equal(hp_path_fmt(path, NULL, "%s/%s", w->dir, name), HP_OK);
    if (hp_sr_write(&w->report, path, &instance, &sop_class, &e) != HP_OK)
        fail_msg("%s", e.msg);
    report_world_element(path, 8, 0x18, stored, sizeof stored - 1);
    assert_string_equal(stored, instance.text);
    memset(stored, 0, sizeof stored);
    report_world_element(path, 8, 0x16, stored, sizeof stored - 1);
    assert_string_equal(stored, sop_class.text);
}

/* The tree as dsrdump prints it; skips the test where dsrdump is missing. */
static void dump(const char *path, char *ret, size_t size)
{
    if (!report_world_has_tool("dsrdump"))
        skip();
    if (report_world_run(ret, size, "dsrdump +Pc +Pl %s 2>&1", path) != 0)
        fail_msg("dsrdump: %s", ret);
}

static const char *after(const char *text, const char *what)
{
    const char *at = strstr(text, what);

    if (at == NULL)
        fail_msg("not in the report: %s", what);
    return at + strlen(what);
}

static void test_sr__carries_the_finding(void **state)
{
    report_world w;
    char path[HP_PATH_MAX], text[65536];
    const char *at = text;

    (void)state;
    report_world_init(&w, ALL);
    write_sr(&w, "sr.dcm", path);
    dump(path, text, sizeof text);
    at = after(at, "(126000,DCM,\"Imaging Measurement Report\")");
    at = after(at, "Device Observer UID");
    at = after(at, "(111028,DCM,\"Image Library\")");
    for (int p = 0; p < HP_PHASES; p++)
        at = after(at, "(126200,DCM,\"Image Library Group\")");
    at = after(at, "(126010,DCM,\"Imaging Measurements\")");
    at = after(at, "(125007,DCM,\"Measurement Group\")");
    at = after(at, "(112039,DCM,\"Tracking Identifier\")=\"Lesion 1\"");
    at =
        after(at, "(121071,DCM,\"Finding\")=(25370001,SCT,\"Hepatocellular carcinoma\")");
    at = after(at, "phases used: NC A V D");
    at = after(at, "arterial: lesion 118 HU, liver 74 HU");
    at = after(at, "ensemble votes: HCC 4 ICC 1 benign 0 metastasis 0");
    at = after(at, "research use only");
    /* Box of the fixture: columns 81..111, rows 91..117. */
    at = after(
        at, "(111030,DCM,\"Image Region\")=(POLYLINE,81/91,111/91,111/117,81/117,81/91)");
    at = after(at, "NUM:(42798000,SCT,\"Area\")=\"1528.8\"");
    at = after(at, "inferred from SCOORD");
    at = after(at, "(103339001,SCT,\"Long Axis\")=\"41.6\"");
    at = after(at, "(118565006,SCT,\"Volume\")=\"28.4\"");
    at = after(at, "(111012,DCM,\"Certainty of Finding\")=\"93.5\"");
    at = after(at, "(111013,DCM,\"Certainty of Impression\")=\"81.2\"");
    at = after(at, "(121106,DCM,\"Comment\")=\"L1 HCC 81% det 94% (AI, RUO)\"");
    report_world_done(&w);
}

/* Viewers take the first NUM of a group for its region. */
static void test_sr__first_number_is_the_area(void **state)
{
    report_world w;
    char path[HP_PATH_MAX], text[65536];

    (void)state;
    report_world_init(&w, ALL);
    write_sr(&w, "sr.dcm", path);
    dump(path, text, sizeof text);
    assert_ptr_equal(strstr(text, "NUM:"), strstr(text, "NUM:(42798000,SCT,\"Area\")"));
    report_world_done(&w);
}

/* As many classes, and as long names, as a bundle may have. */
static void test_sr__the_longest_list_of_votes_fits(void **state)
{
    report_world w;
    char path[HP_PATH_MAX], text[65536];

    (void)state;
    report_world_init(&w, ALL);
    for (int k = 0; k < HP_MAX_CLASSES; k++) {
        hp_class *c = &w.findings.classes[k];

        *c = w.findings.classes[0];
        memset(c->label, 'A' + k, sizeof c->label - 1);
    }
    w.findings.class_count = HP_MAX_CLASSES;
    write_sr(&w, "sr.dcm", path);
    dump(path, text, sizeof text);
    assert_non_null(strstr(text, "HHHHHHHHHHHHHHHHHHHHHHHHHHHHHHH 0\""));
    report_world_done(&w);
}

static void test_sr__tracking_uids_differ(void **state)
{
    static const char tracking[] = "(112040,DCM,\"Tracking Unique Identifier\")=";
    report_world w;
    char path[HP_PATH_MAX], text[65536];
    const char *first, *second;

    (void)state;
    report_world_init(&w, 7);
    report_world_outcome(&w, HP_OUTCOME_DETECTED);
    write_sr(&w, "sr.dcm", path);
    dump(path, text, sizeof text);
    first = after(text, tracking);
    second = after(first, tracking);
    assert_int_not_equal(strncmp(first, second, 40), 0);
    assert_non_null(strstr(text, "(52988006,SCT,\"Lesion\")"));
    assert_null(strstr(text, "Certainty of Impression"));
    report_world_done(&w);
}

static void test_sr__same_report_same_bytes(void **state)
{
    report_world w;
    char a[HP_PATH_MAX], b[HP_PATH_MAX], out[256];

    (void)state;
    report_world_init(&w, ALL);
    write_sr(&w, "a.dcm", a);
    write_sr(&w, "b.dcm", b);
    assert_int_equal(report_world_run(out, sizeof out, "cmp %s %s 2>&1", a, b), 0);
    report_world_outcome(&w, HP_OUTCOME_NO_CANDIDATE);
    write_sr(&w, "a.dcm", a);
    write_sr(&w, "b.dcm", b);
    assert_int_equal(report_world_run(out, sizeof out, "cmp %s %s 2>&1", a, b), 0);
    report_world_done(&w);
}

/* Enhanced CT: one instance for each phase, a plane is one of its frames. */
static void test_sr__frames_of_enhanced_ct_are_named(void **state)
{
    report_world w;
    char path[HP_PATH_MAX], text[65536];

    (void)state;
    report_world_init(&w, 7);
    report_world_outcome(&w, HP_OUTCOME_DETECTED);
    for (size_t i = 0; i < w.slices.count; i++) {
        hp_slice *s = &w.slices.item[i];

        snprintf(s->sop_class.text, HP_UID_SIZE, "1.2.840.10008.5.1.4.1.1.2.1");
        snprintf(s->sop_instance.text, HP_UID_SIZE, "%.60s.1", s->series.text);
        s->frame = (int)(i % 40);
    }
    write_sr(&w, "sr.dcm", path);
    dump(path, text, sizeof text);
    after(text, "(CTe image,,22)"); /* key slice 21 */
    after(text, "(CTe image,,24)");
    report_world_done(&w);
}

static void test_sr__a_revision_names_the_one_it_supersedes(void **state)
{
    static const hp_result_predecessor before = {
        {"1.2.3.4"}, {HP_SOP_COMPREHENSIVE_3D_SR}, {"1.2.3.5"}};
    report_world w;
    char path[HP_PATH_MAX], value[512], description[65] = "";

    (void)state;
    report_world_init(&w, ALL);
    write_sr(&w, "sr.dcm", path);
    assert_int_equal(report_world_element(path, 0x40, 0xa360, value, sizeof value), -1);
    w.report.predecessor = &before;
    w.report.revision = 2;
    write_sr(&w, "sr.dcm", path);
    assert_true(report_world_element(path, 0x40, 0xa360, value, sizeof value) > 0);
    report_world_element(path, 8, 0x103e, description, 64);
    assert_non_null(strstr(description, "rev 2"));
    report_world_done(&w);
}

/* -- what is taken over from the source -- */

static void check_same(const char *source, const char *path, unsigned group,
                       unsigned element)
{
    char here[256] = "", there[256] = "";
    int n = report_world_element(source, group, element, there, sizeof there);

    if (n < 0)
        return;
    assert_int_equal(report_world_element(path, group, element, here, sizeof here), n);
    assert_memory_equal(here, there, (size_t)n < sizeof here ? (size_t)n : sizeof here);
}

static void test_sr__patient_and_study_come_over_byte_for_byte(void **state)
{
    static const unsigned tags[][2] = {
        {8, 5},         {8, 0x20},    {8, 0x30},    {8, 0x50},    {8, 0x1030},
        {0x10, 0x10},   {0x10, 0x20}, {0x10, 0x21}, {0x10, 0x30}, {0x10, 0x40},
        {0x10, 0x1010}, {0x12, 0x20}, {0x12, 0x40}, {0x12, 0x62}, {0x12, 0x63},
        {0x20, 0x0d},   {0x20, 0x10},
    };
    report_world w;
    char path[HP_PATH_MAX], value[64] = "";

    (void)state;
    report_world_init(&w, ALL);
    write_sr(&w, "sr.dcm", path);
    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++)
        check_same(w.source, path, tags[i][0], tags[i][1]);
    assert_int_equal(report_world_element(path, 8, 0x1030, value, sizeof value), 12);
    assert_memory_equal(value, "CT LIVER    ", 12);
    report_world_done(&w);
}

static void test_sr__series_and_equipment_are_ours(void **state)
{
    report_world w;
    char path[HP_PATH_MAX], value[65] = "";

    (void)state;
    report_world_init(&w, ALL);
    write_sr(&w, "sr.dcm", path);
    report_world_element(path, 8, 0x70, value, 13);
    assert_string_equal(value, "hepar project");
    memset(value, 0, sizeof value);
    report_world_element(path, 8, 0x103e, value, 64);
    assert_non_null(strstr(value, "hepar (RUO)"));
    assert_int_equal(report_world_element(path, 0x12, 0x71, value, 64), -1);
    assert_int_equal(report_world_element(path, 0x20, 0x52, value, 64), -1);
    report_world_done(&w);
}

static void test_sr__names_of_every_character_set_come_over(void **state)
{
    static const char *const names[] = {"chrFren", "chrGerm", "chrH31_japanese",
                                        "chrI2_korean", "chrX1_utf8"};
    report_world w;
    char path[HP_PATH_MAX], name[64], value[256];
    int seen = 0;

    (void)state;
    report_world_init(&w, ALL);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(name, sizeof name, "charset/%s.dcm", names[i]);
        if (!report_world_data(name, w.source))
            continue;
        seen++;
        write_sr(&w, "sr.dcm", path);
        assert_true(report_world_element(w.source, 0x10, 0x10, value, sizeof value) > 0);
        check_same(w.source, path, 8, 5);
        check_same(w.source, path, 0x10, 0x10);
    }
    report_world_done(&w);
    if (seen == 0)
        skip();
}

/* Created 2026-01-05 10:30:00.123 UTC. */
static void test_sr__times_are_the_ledgers(void **state)
{
    report_world w;
    char path[HP_PATH_MAX], value[16] = "";

    (void)state;
    report_world_init(&w, ALL);
    write_sr(&w, "sr.dcm", path);
    report_world_element(path, 8, 0x12, value, 8);
    assert_string_equal(value, "20260105");
    report_world_element(path, 8, 0x33, value, 10);
    assert_memory_equal(value, "103000.123", 10);
    report_world_done(&w);
}

/* The source's offset speaks for every time in the object, so ours follow it. */
static void test_sr__times_follow_the_sources_offset(void **state)
{
    report_world w;
    char path[HP_PATH_MAX], value[16] = "";

    (void)state;
    report_world_init(&w, ALL);
    report_world_write_source(w.source, &w.slices.item[0], "", "TEST^SYNTHETIC", "-1100");
    write_sr(&w, "sr.dcm", path);
    check_same(w.source, path, 8, 0x201);
    report_world_element(path, 8, 0x23, value, 8);
    assert_string_equal(value, "20260104");
    report_world_element(path, 8, 0x33, value, 10);
    assert_memory_equal(value, "233000.123", 10);
    report_world_done(&w);
}

/* -- the text form -- */

static void test_sr__note_names_the_top_candidate(void **state)
{
    report_world w;
    char path[HP_PATH_MAX], text[65536];

    (void)state;
    report_world_init(&w, ALL);
    report_world_outcome(&w, HP_OUTCOME_NOT_ACCEPTED);
    write_sr(&w, "note.dcm", path);
    dump(path, text, sizeof text);
    after(text, "Basic Text SR");
    after(text, "(AI-NOTE,99HEPAR,\"AI analysis note\")");
    after(text, "none was accepted");
    after(text, "series 103, image 19");
    after(text, "not for diagnosis");
    assert_null(strstr(text, "126000"));
    report_world_done(&w);
}

static void test_sr__note_gives_the_reason(void **state)
{
    report_world w;
    char path[HP_PATH_MAX], text[65536];

    (void)state;
    report_world_init(&w, ALL);
    report_world_outcome(&w, HP_OUTCOME_UNSUITABLE);
    w.report.assembly = NULL;
    w.report.registered = NULL;
    write_sr(&w, "note.dcm", path);
    dump(path, text, sizeof text);
    after(text, "no series can be taken for the portal venous phase");
    report_world_done(&w);
}

/* -- what other programs say -- */

static void check_dciodvfy(report_world *w, const char *name)
{
    char path[HP_PATH_MAX], text[16384];

    write_sr(w, name, path);
    report_world_run(text, sizeof text, "dciodvfy %s 2>&1", path);
    if (strstr(text, "Error") != NULL)
        fail_msg("%s", text);
}

static void test_sr__dciodvfy_finds_no_error(void **state)
{
    report_world w;

    (void)state;
    if (!report_world_has_tool("dciodvfy"))
        skip();
    report_world_init(&w, ALL);
    check_dciodvfy(&w, "sr.dcm");
    report_world_outcome(&w, HP_OUTCOME_DETECTED);
    check_dciodvfy(&w, "detected.dcm");
    report_world_outcome(&w, HP_OUTCOME_NOT_ACCEPTED);
    check_dciodvfy(&w, "not_accepted.dcm");
    report_world_outcome(&w, HP_OUTCOME_UNSUITABLE);
    check_dciodvfy(&w, "unsuitable.dcm");
    report_world_done(&w);
}

/* PixelMed checks the template; that a Comment is no part of TID 1410 is known. */
static void test_sr__template_is_valid(void **state)
{
    report_world w;
    char path[HP_PATH_MAX], text[65536];

    (void)state;
    if (!hp_path_exists("/usr/share/java/pixelmed.jar") || !report_world_has_tool("java"))
        skip();
    report_world_init(&w, ALL);
    write_sr(&w, "sr.dcm", path);
    /* The JVM's limits on XPath are too low for the validator's style sheets. */
    report_world_run(text, sizeof text,
                     "java -Djdk.xml.xpathExprOpLimit=0 -Djdk.xml.xpathTotalOpLimit=0 "
                     "-Djdk.xml.xpathExprGrpLimit=0 -Djava.awt.headless=true "
                     "-cp \"$(ls /usr/share/java/*.jar | tr '\\n' ':')\" "
                     "com.pixelmed.validate.DicomSRValidator %s 2>&1",
                     path);
    after(text, "Found Root Template TID_1500");
    after(text, "IOD validation complete");
    if (strstr(text, "Error") != NULL)
        fail_msg("%s", text);
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"))
        if (strstr(line, "Warning") != NULL &&
            strstr(line, "(121106,DCM,\"Comment\")") == NULL)
            fail_msg("%s", line);
    report_world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sr__carries_the_finding),
        cmocka_unit_test(test_sr__first_number_is_the_area),
        cmocka_unit_test(test_sr__the_longest_list_of_votes_fits),
        cmocka_unit_test(test_sr__tracking_uids_differ),
        cmocka_unit_test(test_sr__same_report_same_bytes),
        cmocka_unit_test(test_sr__frames_of_enhanced_ct_are_named),
        cmocka_unit_test(test_sr__a_revision_names_the_one_it_supersedes),
        cmocka_unit_test(test_sr__patient_and_study_come_over_byte_for_byte),
        cmocka_unit_test(test_sr__series_and_equipment_are_ours),
        cmocka_unit_test(test_sr__names_of_every_character_set_come_over),
        cmocka_unit_test(test_sr__times_are_the_ledgers),
        cmocka_unit_test(test_sr__times_follow_the_sources_offset),
        cmocka_unit_test(test_sr__note_names_the_top_candidate),
        cmocka_unit_test(test_sr__note_gives_the_reason),
        cmocka_unit_test(test_sr__dciodvfy_finds_no_error),
        cmocka_unit_test(test_sr__template_is_valid),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
