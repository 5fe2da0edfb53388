/* The small words: clock, log, study, uid, volume. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/study.h"
#include "base/uid.h"
#include "base/volume.h"
#include "tests/base/check.h"

static void test_clock__goes_forward(void **state)
{
    int64_t earlier = hp_clock_mono_ms();

    (void)state;
    assert_true(hp_clock_mono_ms() >= earlier);
    assert_true(hp_clock_wall_ms() > 1700000000000); /* milliseconds since 1970 */
}

static void test_log__one_safe_line(void **state)
{
    int ends[2], saved = dup(STDERR_FILENO);
    char got[2048], safe[8];
    ssize_t n;

    (void)state;
    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    hp_log(HP_LOG_DEBUG, "hidden");
    hp_log(HP_LOG_WARNING, "peer rejected ae=%s", "A\n<3>forged");
    dup2(saved, STDERR_FILENO);
    n = read(ends[0], got, sizeof got - 1);
    assert_true(n > 0);
    got[n] = 0;
    assert_string_equal(got, "<4>peer rejected ae=A <3>forged\n");
    assert_string_equal(hp_log_safe("a\x1b\xc3\xa4long text", safe, sizeof safe),
                        "a???lon");
    assert_string_equal(hp_log_safe(NULL, safe, sizeof safe), "");
    close(ends[0]);
    close(ends[1]);
    close(saved);
}

static void test_study__phase_names(void **state)
{
    (void)state;
    for (int p = 0; p < HP_PHASES; p++)
        assert_int_equal(hp_phase_parse(hp_phase_name((hp_phase)p)), p);
    assert_int_equal(hp_phase_parse("X"), HP_PHASE_NONE);
    assert_int_equal(hp_phase_parse(NULL), HP_PHASE_NONE);
    assert_string_equal(hp_phase_name(HP_PHASE_NONE), "-");
}

static void test_uid__syntax(void **state)
{
    char text[80];

    (void)state;
    assert_true(hp_uid_valid("1.2.840.10008.1.1"));
    assert_true(hp_uid_valid("1.02"));
    assert_false(hp_uid_valid(""));
    assert_false(hp_uid_valid("1..2"));
    assert_false(hp_uid_valid(".1"));
    assert_false(hp_uid_valid("1."));
    assert_false(hp_uid_valid("1.2a"));
    assert_false(hp_uid_valid("1.2 "));
    memset(text, '1', sizeof text);
    text[64] = 0;
    assert_true(hp_uid_valid(text));
    text[64] = '1';
    text[65] = 0;
    assert_false(hp_uid_valid(text));
}

static void test_uid__from_digest_is_the_decimal_of_128_bits(void **state)
{
    uint8_t digest[32] = {0};

    (void)state;
    assert_string_equal(hp_uid_from_digest(digest).text, "2.25.0");
    digest[15] = 10;
    assert_string_equal(hp_uid_from_digest(digest).text, "2.25.10");
    digest[7] = 1;
    digest[15] = 0;
    assert_string_equal(hp_uid_from_digest(digest).text, "2.25.18446744073709551616");
    memset(digest, 0xff, sizeof digest);
    assert_string_equal(hp_uid_from_digest(digest).text,
                        "2.25.340282366920938463463374607431768211455");
}

static void test_volume__voxel_and_millimetre_agree(void **state)
{
    const double origin[3] = {-200, -180, 40};
    hp_geom g = hp_geom_axial(10, 20, 30, 5, 0.8, 0.7, origin);
    const int lo[3] = {-2, 3, 4}, n[3] = {4, 4, 4}, half[3] = {5, 10, 15};
    const double centre[3] = {2.5, 1.5, 0.5}, corner[3] = {0, 0, 0};
    double mm[3], back[3], mm2[3];
    hp_geom crop = hp_geom_crop(&g, lo, n), coarse = hp_geom_resample(&g, half);

    (void)state;
    hp_geom_to_mm(&g, centre, mm);
    assert_true(fabs(mm[0] + 200) < 1e-12 && fabs(mm[1] + 179.2) < 1e-12 &&
                fabs(mm[2] - 50) < 1e-12);
    hp_geom_to_voxel(&g, mm, back);
    for (int a = 0; a < 3; a++)
        assert_true(fabs(back[a] - centre[a]) < 1e-9);
    assert_true(fabs(crop.origin_mm[2] - 30) < 1e-12);
    assert_true(fabs(crop.origin_mm[0] + 200 - 2.8) < 1e-12);
    /* Resampling keeps the edge corner where it was. */
    hp_geom_to_mm(&g, corner, mm);
    hp_geom_to_mm(&coarse, corner, mm2);
    for (int c = 0; c < 3; c++)
        assert_true(fabs(mm[c] - mm2[c]) < 1e-9);
    assert_true(coarse.spacing_mm[HP_X] == 1.4);
}

static void test_volume__boxes(void **state)
{
    hp_box a = {{0, 0, 0}, {2, 2, 2}}, b = {{1, 0, 0}, {3, 2, 2}},
           none = {{1, 1, 1}, {1, 1, 1}};

    (void)state;
    assert_true(hp_box_volume(&a) == 8);
    assert_true(fabs(hp_box_iou(&a, &b) - 1.0 / 3) < 1e-12);
    assert_true(hp_box_iou(&a, &none) == 0);
    assert_true(hp_box_iou(&none, &none) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clock__goes_forward),
        cmocka_unit_test(test_log__one_safe_line),
        cmocka_unit_test(test_study__phase_names),
        cmocka_unit_test(test_uid__syntax),
        cmocka_unit_test(test_uid__from_digest_is_the_decimal_of_128_bits),
        cmocka_unit_test(test_volume__voxel_and_millimetre_agree),
        cmocka_unit_test(test_volume__boxes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
