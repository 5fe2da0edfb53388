/* kernels/mask: components, holes, erosion, means. */
#include "tests/inference/world.h"

#include <math.h>
#include <string.h>

#include "kernels/mask.h"

static const int N[3] = {4, 6, 7};
enum { TOTAL = 4 * 6 * 7 };

static size_t at(int z, int y, int x)
{
    return ((size_t)z * 6 + y) * 7 + x;
}

static void test_mask__the_largest_part_stays(void **state)
{
    uint8_t m[TOTAL] = {0};
    size_t count;
    hp_error err = HP_ERROR_INIT;

    (void)state;
    m[at(0, 0, 0)] = m[at(0, 0, 1)] = 1;
    m[at(2, 2, 2)] = m[at(3, 3, 3)] = m[at(2, 4, 4)] = 1; /* by corners: 26 neighbours */
    assert_ok(hp_mask_largest_ref(m, N, &count, &err), &err);
    assert_int_equal(count, 3);
    assert_int_equal(m[at(0, 0, 0)], 0);
    assert_int_equal(m[at(3, 3, 3)], 1);
}

static void test_mask__equal_parts_keep_the_first(void **state)
{
    uint8_t m[TOTAL] = {0};
    size_t count;
    hp_error err = HP_ERROR_INIT;

    (void)state;
    m[at(0, 0, 0)] = m[at(3, 5, 6)] = 1;
    assert_ok(hp_mask_largest_ref(m, N, &count, &err), &err);
    assert_int_equal(count, 1);
    assert_int_equal(m[at(0, 0, 0)], 1);
    assert_int_equal(m[at(3, 5, 6)], 0);
}

static void test_mask__an_empty_mask_stays_empty(void **state)
{
    uint8_t m[TOTAL] = {0};
    size_t count = 9;
    hp_error err = HP_ERROR_INIT;

    (void)state;
    assert_ok(hp_mask_largest_ref(m, N, &count, &err), &err);
    assert_int_equal(count, 0);
}

static void test_mask__holes_fill_in_their_slice_only(void **state)
{
    uint8_t m[TOTAL] = {0};
    hp_error err = HP_ERROR_INIT;

    (void)state;
    for (int y = 1; y <= 3; y++)
        for (int x = 1; x <= 3; x++)
            m[at(1, y, x)] = m[at(2, y, x)] = 1;
    m[at(1, 2, 2)] = 0; /* a hole */
    m[at(2, 2, 3)] = 0; /* a bay, open to the side */
    assert_ok(hp_mask_fill_ref(m, N, &err), &err);
    assert_int_equal(m[at(1, 2, 2)], 1);
    assert_int_equal(m[at(2, 2, 3)], 0);
    assert_int_equal(m[at(1, 0, 0)], 0);
}

static void test_mask__erosion_takes_the_surface(void **state)
{
    uint8_t m[TOTAL];
    hp_error err = HP_ERROR_INIT;
    size_t left = 0;

    (void)state;
    memset(m, 1, sizeof m);
    assert_ok(hp_mask_erode_ref(m, N, &err), &err);
    for (int i = 0; i < TOTAL; i++)
        left += m[i];
    assert_int_equal(left, 2 * 4 * 5);
}

static void test_mask__the_mean_of_nothing_is_not_a_number(void **state)
{
    static const int16_t HU[3] = {-10, 20, 40};
    static const uint8_t NONE[3] = {0}, TWO[3] = {1, 0, 1};

    (void)state;
    assert_true(isnan(hp_mask_mean_ref(HU, NONE, 3)));
    assert_float_equal(hp_mask_mean_ref(HU, TWO, 3), 15, 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mask__the_largest_part_stays),
        cmocka_unit_test(test_mask__equal_parts_keep_the_first),
        cmocka_unit_test(test_mask__an_empty_mask_stays_empty),
        cmocka_unit_test(test_mask__holes_fill_in_their_slice_only),
        cmocka_unit_test(test_mask__erosion_takes_the_surface),
        cmocka_unit_test(test_mask__the_mean_of_nothing_is_not_a_number),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
