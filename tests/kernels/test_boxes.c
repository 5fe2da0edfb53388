/* kernels/peaks and nms: ties, plateaus, and the rules of the merge. */
#include "tests/inference/world.h"

#include <stdbool.h>
#include <string.h>

#include "kernels/nms.h"
#include "kernels/peaks.h"

static void test_peaks__a_plateau_gives_its_first_voxel_alone(void **state)
{
    static const int N[3] = {3, 4, 5};
    float heat[60];
    hp_peak p[10];

    (void)state;
    for (int i = 0; i < 60; i++)
        heat[i] = 0.9999f; /* all clamped */
    assert_int_equal(hp_peaks_ref(heat, N, 0.01f, p, 10), 1);
    assert_int_equal(p[0].index, 0);
}

static void test_peaks__two_equal_neighbours_give_the_lower_index(void **state)
{
    static const int N[3] = {1, 3, 7};
    float heat[21] = {0};
    hp_peak p[10];

    (void)state;
    heat[8] = heat[9] = 0.5f;
    heat[12] = 0.5f; /* not a neighbour of 9: three steps away */
    assert_int_equal(hp_peaks_ref(heat, N, 0.01f, p, 10), 2);
    assert_int_equal(p[0].index, 8);
    assert_int_equal(p[1].index, 12);
}

static void test_peaks__the_best_k_in_order(void **state)
{
    static const int N[3] = {1, 1, 21};
    float heat[21] = {0};
    hp_peak p[3];

    (void)state;
    for (int i = 0; i < 10; i++)
        heat[2 * i] = 0.1f + 0.05f * (float)(i * 7 % 10);
    assert_int_equal(hp_peaks_ref(heat, N, 0.01f, p, 3), 3);
    assert_int_equal(p[0].index, 14); /* 7 * 7 % 10 = 9 */
    assert_int_equal(p[1].index, 8);  /* 4 -> 8 */
    assert_int_equal(p[2].index, 2);  /* 1 -> 7 */
}

static void test_peaks__below_the_threshold_is_nothing(void **state)
{
    static const int N[3] = {1, 1, 3};
    static const float HEAT[3] = {0.001f, 0.009f, 0.001f};
    hp_peak p[3];

    (void)state;
    assert_int_equal(hp_peaks_ref(HEAT, N, 0.01f, p, 3), 0);
}

static hp_scored_box cube(double at, double side, float score, int order, unsigned phases)
{
    hp_scored_box b = {.score = score, .order = order, .phases = phases};

    for (int a = 0; a < 3; a++) {
        b.box.lo[a] = at;
        b.box.hi[a] = at + side;
    }
    return b;
}

static void test_nms__overlap_is_suppressed_and_its_phase_remembered(void **state)
{
    hp_scored_box b[3] = {cube(2, 20, 0.5f, 1, 2), cube(0, 20, 0.9f, 0, 4),
                          cube(60, 20, 0.4f, 2, 8)};

    (void)state;
    assert_int_equal(hp_nms_ref(b, 3, 0.3, 10), 2);
    assert_float_equal(b[0].score, 0.9f, 0);
    assert_int_equal(b[0].phases, 6);
    assert_int_equal(b[1].phases, 8);
}

static void test_nms__equal_scores_go_by_order(void **state)
{
    hp_scored_box b[2] = {cube(1, 20, 0.5f, 7, 1), cube(0, 20, 0.5f, 3, 2)};

    (void)state;
    assert_int_equal(hp_nms_ref(b, 2, 0.3, 10), 1);
    assert_int_equal(b[0].order, 3);
    assert_int_equal(b[0].phases, 3);
}

static void test_nms__a_centre_inside_counts_when_sizes_are_alike(void **state)
{
    /* IoU .18 (shift 9 of 20 on all axes), but the centre lies inside */
    hp_scored_box near[2] = {cube(0, 20, 0.9f, 0, 1), cube(9, 20, 0.5f, 1, 1)};
    /* a small box in a large one is another finding */
    hp_scored_box small[2] = {cube(0, 40, 0.9f, 0, 1), cube(15, 10, 0.5f, 1, 1)};

    (void)state;
    assert_int_equal(hp_nms_ref(near, 2, 0.3, 10), 1);
    assert_int_equal(hp_nms_ref(small, 2, 0.3, 10), 2);
}

static void test_nms__keeps_no_more_than_asked(void **state)
{
    hp_scored_box b[20];

    (void)state;
    for (int i = 0; i < 20; i++)
        b[i] = cube(100 * i, 10, (float)i, i, 1);
    assert_int_equal(hp_nms_ref(b, 20, 0.3, 10), 10);
    assert_float_equal(b[9].score, 10, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_peaks__a_plateau_gives_its_first_voxel_alone),
        cmocka_unit_test(test_peaks__two_equal_neighbours_give_the_lower_index),
        cmocka_unit_test(test_peaks__the_best_k_in_order),
        cmocka_unit_test(test_peaks__below_the_threshold_is_nothing),
        cmocka_unit_test(test_nms__overlap_is_suppressed_and_its_phase_remembered),
        cmocka_unit_test(test_nms__equal_scores_go_by_order),
        cmocka_unit_test(test_nms__a_centre_inside_counts_when_sizes_are_alike),
        cmocka_unit_test(test_nms__keeps_no_more_than_asked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
