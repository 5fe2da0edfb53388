/* kernels/encode: eq. 4-6 in numbers one can check by hand, and the mask's grid. */
#include "tests/inference/world.h"

#include <math.h>

#include "kernels/encode.h"

static void test_encode__assignment_is_a_softmax_of_scaled_distances(void **state)
{
    static const float X[2] = {1, 0}, C[4] = {1, 0, 0, 0}, S[2] = {0.5f, 2};
    float a[2];
    double e = exp(-2.0); /* s = 2, distance 1; the other is at distance 0 */

    (void)state;
    hp_encode_assign_ref(X, C, S, 1, 2, 2, a);
    assert_float_equal(a[0], 1 / (1 + e), 1e-6);
    assert_float_equal(a[1], e / (1 + e), 1e-6);
}

static void test_encode__only_cells_under_the_mask_count(void **state)
{
    static const float X[4] = {3, 4, 100, 100}, A[2] = {0.25f, 0.9f}, C[2] = {1, 1};
    static const float DELTA[2] = {1, 0};
    float e[2];

    (void)state;
    hp_encode_sum_ref(X, A, DELTA, C, 2, 2, 1, e);
    assert_float_equal(e[0], 0.5, 1e-6);
    assert_float_equal(e[1], 0.75, 1e-6);
}

static void test_encode__far_distances_do_not_overflow(void **state)
{
    static const float X[1] = {1e4f}, C[2] = {0, 1}, S[2] = {1, 1};
    float a[2];

    (void)state;
    hp_encode_assign_ref(X, C, S, 1, 1, 2, a);
    assert_true(isfinite(a[0]) && isfinite(a[1]));
    assert_float_equal(a[0] + a[1], 1, 1e-6);
}

static void test_l2__a_zero_vector_stays_zero(void **state)
{
    float v[3] = {0, 0, 0}, w[2] = {3, 4};

    (void)state;
    hp_l2_norm_ref(v, 3);
    hp_l2_norm_ref(w, 2);
    assert_float_equal(v[0], 0, 0);
    assert_float_equal(w[0], 0.6, 1e-6);
}

static float cell(const float *m, int y, int x)
{
    return m[y * 4 + x];
}

static void test_grid_mask__half_of_the_pixels_decide(void **state)
{
    float m[16];

    (void)state;
    hp_grid_mask_ref((double[4]){8, 8, 16, 20}, 4, 4, 8, m); /* half of column 2 */
    assert_float_equal(cell(m, 1, 1), 1, 0);
    assert_float_equal(cell(m, 1, 2), 1, 0);
    hp_grid_mask_ref((double[4]){8, 8, 16, 19}, 4, 4, 8, m); /* less than half */
    assert_float_equal(cell(m, 1, 1), 1, 0);
    assert_float_equal(cell(m, 1, 2), 0, 0);
    assert_float_equal(cell(m, 0, 1), 0, 0);
}

static void test_grid_mask__a_small_box_gets_its_centre_cell(void **state)
{
    float m[16];
    int set = 0;

    (void)state;
    hp_grid_mask_ref((double[4]){9, 17, 12, 19}, 4, 4, 8, m);
    for (int i = 0; i < 16; i++)
        set += m[i] > 0;
    assert_int_equal(set, 1);
    assert_float_equal(cell(m, 1, 2), 1, 0);
    hp_grid_mask_ref((double[4]){-90, 300, -80, 310}, 4, 4, 8, m); /* clamped */
    assert_float_equal(cell(m, 0, 3), 1, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encode__assignment_is_a_softmax_of_scaled_distances),
        cmocka_unit_test(test_encode__only_cells_under_the_mask_count),
        cmocka_unit_test(test_encode__far_distances_do_not_overflow),
        cmocka_unit_test(test_l2__a_zero_vector_stays_zero),
        cmocka_unit_test(test_grid_mask__half_of_the_pixels_decide),
        cmocka_unit_test(test_grid_mask__a_small_box_gets_its_centre_cell),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
