/* dicom/report: the UID recipe, and which lesions and objects a study gets. */
#include "tests/base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/path.h"
#include "base/sha256.h"
#include "dicom/report.h"
#include "tests/fixture/report_world.h"

static const hp_result_identity identity = {.installation_id = "node",
                                            .study_uid = {"1.2.3"},
                                            .input_digest = "aa",
                                            .bundle_sha256 = "bb"};

static void test_report__uid_is_the_recipe(void **state)
{
    static const char parts[] =
        "node\n1.2.3\naa\nbb\nsr\n1.2.840.10008.5.1.4.1.1.88.34\n0\n";
    hp_uid uid = hp_result_uid(&identity, "sr", HP_SOP_COMPREHENSIVE_3D_SR, 0);
    hp_sha256 s;
    uint8_t digest[32];

    (void)state;
    hp_sha256_init(&s);
    hp_sha256_add(&s, parts, sizeof parts - 1);
    hp_sha256_end(&s, digest);
    assert_string_equal(uid.text, hp_uid_from_digest(digest).text);
    assert_true(hp_uid_valid(uid.text));
}

static void test_report__uid_differs_with_each_part(void **state)
{
    hp_result_identity other[4] = {identity, identity, identity, identity};
    hp_uid all[9];
    int n = 0;

    (void)state;
    snprintf(other[0].installation_id, 65, "node2");
    snprintf(other[1].study_uid.text, HP_UID_SIZE, "1.2.4");
    snprintf(other[2].input_digest, 65, "ab");
    snprintf(other[3].bundle_sha256, 65, "bc");
    all[n++] = hp_result_uid(&identity, "sr", HP_SOP_COMPREHENSIVE_3D_SR, 0);
    for (int i = 0; i < 4; i++)
        all[n++] = hp_result_uid(&other[i], "sr", HP_SOP_COMPREHENSIVE_3D_SR, 0);
    all[n++] = hp_result_uid(&identity, "sr", HP_SOP_COMPREHENSIVE_3D_SR, 1);
    all[n++] = hp_result_uid(&identity, "sr.series", HP_SOP_COMPREHENSIVE_3D_SR, 0);
    all[n++] = hp_result_uid(&identity, "key_image", HP_SOP_SECONDARY_CAPTURE, 0);
    all[n++] = hp_result_uid(&identity, "sr", HP_SOP_BASIC_TEXT_SR, 0);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < i; k++)
            assert_string_not_equal(all[i].text, all[k].text);
}

static void test_report__lesions_follow_the_outcome(void **state)
{
    hp_findings f;

    (void)state;
    hp_findings_init(&f);
    f.candidate_count = 3;
    f.primary = 2;
    f.outcome = HP_OUTCOME_CLASSIFIED;
    assert_int_equal(hp_report_lesion(&f, 0), 2);
    assert_int_equal(hp_report_lesion(&f, 1), -1);
    f.outcome = HP_OUTCOME_DETECTED;
    f.report_min = 0.3;
    f.candidates[0].score = 0.4;
    f.candidates[1].score = 0.3;
    f.candidates[2].score = 0.29;
    assert_int_equal(hp_report_lesion(&f, 1), 1);
    assert_int_equal(hp_report_lesion(&f, 2), -1);
    f.report_min = 0.2;
    assert_int_equal(hp_report_lesion(&f, 2), 2);
    assert_int_equal(hp_report_lesion(&f, 3), -1);
    f.outcome = HP_OUTCOME_NOT_ACCEPTED;
    assert_int_equal(hp_report_lesion(&f, 0), -1);
    assert_false(hp_report_is_measurement(&f));
}

static void check_objects(unsigned phases, hp_outcome outcome, const char *const *files)
{
    hp_report_object object[HP_REPORT_OBJECTS_MAX];
    hp_error e = HP_ERROR_INIT;
    report_world w;
    char path[HP_PATH_MAX];
    int count = -1, i = 0;

    report_world_init(&w, phases);
    report_world_outcome(&w, outcome);
    if (hp_report_write(&w.report, w.dir, object, &count, &e) != HP_OK)
        fail_msg("%s", e.msg);
    for (; files[i] != NULL; i++) {
        assert_true(i < count);
        assert_string_equal(object[i].file, files[i]);
        assert_true(object[i].required);
        assert_int_equal(hp_path_fmt(path, NULL, "%s/%s", w.dir, files[i]), HP_OK);
        assert_true(hp_path_exists(path));
        if (object[i].png[0] != 0) {
            assert_int_equal(hp_path_fmt(path, NULL, "%s/%s", w.dir, object[i].png),
                             HP_OK);
            assert_true(hp_path_exists(path));
        }
        for (int k = 0; k < i; k++)
            assert_string_not_equal(object[i].sop_instance.text,
                                    object[k].sop_instance.text);
    }
    assert_int_equal(count, i);
    report_world_done(&w);
}

static void test_report__objects_follow_the_outcome(void **state)
{
    static const char *const measured[] = {"sr.dcm", "key_1.dcm", NULL};
    static const char *const two[] = {"sr.dcm", "key_1.dcm", "key_2.dcm", NULL};
    static const char *const note[] = {"note_sr.dcm", "note_page.dcm", NULL};

    (void)state;
    check_objects(15, HP_OUTCOME_CLASSIFIED, measured);
    check_objects(7, HP_OUTCOME_DETECTED, two);
    check_objects(15, HP_OUTCOME_NOT_ACCEPTED, note);
    check_objects(15, HP_OUTCOME_NO_CANDIDATE, note);
    check_objects(4, HP_OUTCOME_UNSUITABLE, note);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_report__uid_is_the_recipe),
        cmocka_unit_test(test_report__uid_differs_with_each_part),
        cmocka_unit_test(test_report__lesions_follow_the_outcome),
        cmocka_unit_test(test_report__objects_follow_the_outcome),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
