#include "base/findings.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/base/check.h"

/* Findings with every field set to something that is not its default. */
static void fill(hp_findings *f)
{
    const double origin[3] = {-171.3, -168.9, 1.0 / 3};

    hp_findings_init(f);
    strcpy(f->study_uid.text, "1.2.3");
    f->revision = 2;
    f->outcome = HP_OUTCOME_CLASSIFIED;
    strcpy(f->reason, "read as four phases");
    f->series_count = 2;
    for (int i = 0; i < 2; i++) {
        hp_series_note *s = &f->series[i];

        snprintf(s->uid.text, sizeof s->uid.text, "1.2.3.%d", i);
        s->number = i + 1;
        s->acquisition = i;
        s->instances = 60;
        s->phase = i == 0 ? HP_PHASE_V : HP_PHASE_NONE;
        strcpy(s->why, i == 0 ? "description says PORTAL" : "localizer");
    }
    f->phase_series[HP_PHASE_V] = 0;
    f->substituted[HP_PHASE_D] = HP_PHASE_V;
    strcpy(f->registration[HP_PHASE_V], "reference");
    f->lossy_input = true;
    f->grid = hp_geom_axial(60, 512, 512, 5, 0.7, 0.7, origin);
    f->liver_ml = 1500.125;
    f->liver_ok = true;
    strcpy(f->liver_note, "one component");
    f->candidate_count = 2;
    for (int i = 0; i < 2; i++) {
        hp_candidate *c = &f->candidates[i];

        c->rank = i + 1;
        c->score = 0.9 / (i + 1);
        c->box_mm = (hp_box){{1.1, 2.2, 3.3}, {40.7, 50, 61.0 / 3}};
        c->phases = 1u << HP_PHASE_A | 1u << HP_PHASE_V;
        c->key_slice = 17;
        c->key_number = i == 0 ? 44 : -1;
        c->key_area_mm2 = 123.456;
        c->key_fallback = i == 1;
        c->p_primary = i == 0 ? 0.7 : -1;
        c->hu_lesion[HP_PHASE_A] = 110.5;
        c->hu_liver[HP_PHASE_A] = 70;
        c->volume_ml = 22;
        c->long_axis_mm = 41;
        c->short_axis_mm = 30.5;
    }
    f->primary = 0;
    f->class_count = 2;
    f->classes[0] =
        (hp_class){"hcc", "HCC", "25370001", "SCT", "Hepatocellular carcinoma"};
    f->classes[1] = (hp_class){"benign", "Benign", "30807003", "SCT", "Benign"};
    f->class_index = 1;
    f->probabilities[0] = 0.1;
    f->probabilities[1] = 0.9;
    f->votes[0] = 1;
    f->votes[1] = 4;
    hp_findings_time(f, "liver", 12.5);
    hp_findings_time(f, "detect", 100);
    hp_findings_time(f, "liver", 0.5);
    hp_findings_network_time(f, "detector", 80.25);
    strcpy(f->bundle_name, "small");
    f->report_min = 0.3;
    strcpy(f->bundle_version, "1");
    memset(f->bundle_sha256, 'a', 64);
    strcpy(f->intended_use, "research use only");
    strcpy(f->device, "cpu");
}

/* Through text, as result.json goes through a file. */
static hp_code round_trip(const hp_findings *f, hp_findings *ret)
{
    hp_auto(json_t) *j = hp_findings_to_json(f);
    hp_auto(json_t) *back = NULL;
    char *text = json_dumps(j, 0);
    hp_code r = hp_json_parse(text, strlen(text), &back, NULL);

    free(text);
    return r == HP_OK ? hp_findings_from_json(back, ret, NULL) : r;
}

static void test_findings__round_trip_is_exact(void **state)
{
    hp_findings *f = calloc(1, sizeof *f), *back = calloc(1, sizeof *back);
    json_t *a, *b;

    (void)state;
    fill(f);
    assert_int_equal(round_trip(f, back), HP_OK);
    a = hp_findings_to_json(f);
    b = hp_findings_to_json(back);
    assert_true(json_equal(a, b));
    json_decref(a);
    json_decref(b);
    assert_memory_equal(&f->grid, &back->grid, sizeof f->grid);
    assert_true(f->candidates[1].box_mm.hi[2] == back->candidates[1].box_mm.hi[2]);
    assert_true(isnan(back->candidates[0].hu_lesion[HP_PHASE_NC]));
    assert_true(back->candidates[1].p_primary == -1);
    assert_int_equal(back->substituted[HP_PHASE_D], HP_PHASE_V);
    assert_int_equal(back->substituted[HP_PHASE_A], HP_PHASE_NONE);
    assert_int_equal(back->timing_count, 2);
    assert_true(back->timings[0].ms == 13);
    assert_int_equal(back->network_count, 1);
    assert_string_equal(back->networks[0].name, "detector");
    assert_true(back->networks[0].ms == 80.25);
    free(f);
    free(back);
}

static void test_findings__empty_round_trip(void **state)
{
    hp_findings *f = calloc(1, sizeof *f), *back = calloc(1, sizeof *back);

    (void)state;
    hp_findings_init(f);
    f->outcome = HP_OUTCOME_UNSUITABLE;
    assert_int_equal(round_trip(f, back), HP_OK);
    assert_int_equal(back->primary, -1);
    assert_int_equal(back->class_index, -1);
    assert_int_equal(back->phase_series[0], -1);
    free(f);
    free(back);
}

static void test_findings__promised_keys_are_there(void **state)
{
    static const char *const KEYS[] = {
        "study_uid",   "revision",     "state",      "reason",  "series",
        "phases",      "registration", "candidates", "primary", "timings_ms",
        "networks_ms", "bundle",       "device",     "outcome", "reason_code"};
    static const char *const PRIMARY[] = {"box_mm", "class", "probabilities", "votes",
                                          "hu"};
    hp_findings *f = calloc(1, sizeof *f);
    json_t *j, *primary;

    (void)state;
    fill(f);
    j = hp_findings_to_json(f);
    for (size_t i = 0; i < sizeof KEYS / sizeof KEYS[0]; i++)
        assert_non_null(json_object_get(j, KEYS[i]));
    primary = json_object_get(j, "primary");
    for (size_t i = 0; i < sizeof PRIMARY / sizeof PRIMARY[0]; i++)
        assert_non_null(json_object_get(primary, PRIMARY[i]));
    assert_string_equal(hp_json_str(primary, "class", ""), "benign");
    assert_true(json_is_null(json_object_get(
        json_object_get(json_object_get(primary, "hu"), "NC"), "lesion")));
    json_decref(j);
    free(f);
}

static void test_findings__foreign_text_is_kept_writable(void **state)
{
    hp_findings *f = calloc(1, sizeof *f), *back = calloc(1, sizeof *back);

    (void)state;
    fill(f);
    strcpy(f->series[1].why, "description \xe4\xf6 says");
    assert_int_equal(round_trip(f, back), HP_OK);
    assert_string_equal(back->series[1].why, "description ?? says");
    free(f);
    free(back);
}

static void test_findings__wrong_shapes_are_named(void **state)
{
    hp_findings *f = calloc(1, sizeof *f);
    hp_error e = HP_ERROR_INIT;
    json_t *j;

    (void)state;
    fill(f);
    j = hp_findings_to_json(f);
    json_object_set_new(json_object_get(j, "primary"), "index", json_integer(2));
    assert_int_equal(hp_findings_from_json(j, f, &e), HP_E_INVALID);
    assert_non_null(strstr(e.msg, "primary.index"));
    json_object_set_new(j, "series", json_integer(1));
    assert_int_equal(hp_findings_from_json(j, f, &e), HP_E_INVALID);
    json_object_clear(j);
    assert_int_equal(hp_findings_from_json(j, f, &e), HP_E_INVALID);
    assert_non_null(strstr(e.msg, "study_uid"));
    assert_int_equal(hp_findings_from_json(NULL, f, NULL), HP_E_INVALID);
    json_decref(j);
    free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_findings__round_trip_is_exact),
        cmocka_unit_test(test_findings__empty_round_trip),
        cmocka_unit_test(test_findings__promised_keys_are_there),
        cmocka_unit_test(test_findings__foreign_text_is_kept_writable),
        cmocka_unit_test(test_findings__wrong_shapes_are_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
