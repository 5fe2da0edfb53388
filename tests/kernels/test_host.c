/* The host machine of the kernels finds the mistakes it is there to find. */
#include "tests/kernels/device_world.h"

#include "tests/kernels/faulty.h"

static float in[64], out[64];

static void is_found(faulty_kernel which, const char *words)
{
    for (int s = 0; s < DEVICE_SEED_COUNT; s++) {
        hp_error err = HP_ERROR_INIT;

        memset(out, 0, sizeof out);
        hp_host_seed(DEVICE_SEEDS[s]);
        assert_int_equal(faulty_run(which, in, out, &err), HP_E_DEVICE);
        if (strstr(err.msg, words) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", err.msg, words);
    }
}

static void test_host__a_right_kernel_gives_its_result(void **state)
{
    hp_error err = HP_ERROR_INIT;

    (void)state;
    for (int i = 0; i < 64; i++)
        in[i] = (float)i;
    for (int s = 0; s < DEVICE_SEED_COUNT; s++) {
        hp_host_seed(DEVICE_SEEDS[s]);
        assert_ok(faulty_run(FAULTY_TREE_WITH_BARRIERS, in, out, &err), &err);
        assert_float_equal(out[0], 2016, 0);
    }
}

static void test_host__a_missing_barrier_is_found_in_every_order(void **state)
{
    (void)state;
    is_found(FAULTY_TREE_WITHOUT, "without a barrier");
}

static void test_host__poisoned_shared_memory_is_not_read(void **state)
{
    (void)state;
    is_found(FAULTY_POISON, "tile[7] is read before anybody wrote it");
    is_found(FAULTY_LAST_BLOCK, "is read before anybody wrote it");
}

static void test_host__a_barrier_that_somebody_misses_is_an_error(void **state)
{
    (void)state;
    is_found(FAULTY_LEAVER, "never by thread 5");
    is_found(FAULTY_TWO_BARRIERS, "the barrier at line");
}

static void test_host__a_shuffle_with_lanes_that_left_is_an_error(void **state)
{
    (void)state;
    is_found(FAULTY_SHUFFLE, "the warp operation at line");
}

static void test_host__an_index_beyond_shared_memory_is_an_error(void **state)
{
    (void)state;
    is_found(FAULTY_RANGE, "of 32");
}

static void test_host__a_misaligned_vector_is_an_error(void **state)
{
    (void)state;
    is_found(FAULTY_ALIGNMENT, "is not aligned");
}

static void test_host__block_order_changes_with_the_seed(void **state)
{
    hp_error err = HP_ERROR_INIT;
    int differs = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 4; seed++) {
        memset(out, 0, sizeof out);
        hp_host_seed(seed);
        assert_ok(faulty_run(FAULTY_BLOCK_ORDER, in, out, &err), &err);
        for (int i = 1; i < 16; i++)
            differs += out[i] != 5;
        assert_true(seed != 0 || differs == 0);
    }
    assert_true(differs > 0);
}

static void test_host__lanes_exchange_what_they_brought(void **state)
{
    int seen[64];
    hp_error err = HP_ERROR_INIT;

    (void)state;
    for (int s = 0; s < DEVICE_SEED_COUNT; s++) {
        hp_host_seed(DEVICE_SEEDS[s]);
        assert_ok(faulty_exchange(seen, &err), &err);
        for (int i = 0; i < 64; i++)
            assert_int_equal(seen[i], 1);
    }
}

static void test_half__every_value_comes_back(void **state)
{
    (void)state;
    for (uint32_t u = 0; u < 0x10000; u++) {
        uint16_t h = (uint16_t)u;

        if ((h & 0x7c00) != 0x7c00 || (h & 0x3ff) == 0)
            assert_int_equal(hp_f16_of(hp_f16_float(h)), h);
        if ((h & 0x7f80) != 0x7f80 || (h & 0x7f) == 0)
            assert_int_equal(hp_bf16_of(hp_bf16_float(h)), h);
    }
}

static void test_half__ties_go_to_even_and_overflow_to_infinity(void **state)
{
    (void)state;
    assert_int_equal(hp_f16_of(1 + 0x1p-11f), 0x3c00);     /* tie, down */
    assert_int_equal(hp_f16_of(1 + 3 * 0x1p-11f), 0x3c02); /* tie, up */
    assert_int_equal(hp_f16_of(1 + 0x1p-11f + 0x1p-20f), 0x3c01);
    assert_int_equal(hp_f16_of(65519.99f), 0x7bff);
    assert_int_equal(hp_f16_of(65520.0f), 0x7c00);
    assert_int_equal(hp_f16_of(-1e30f), 0xfc00);
    assert_int_equal(hp_f16_of(0x1p-24f), 1);
    assert_int_equal(hp_f16_of(0x1p-25f), 0);
    assert_int_equal(hp_f16_of(0x1.8p-25f), 1);
    assert_int_equal(hp_f16_of(0x1p-14f - 0x1p-26f), 0x400); /* up into the normals */
    assert_int_equal(hp_bf16_of(1 + 0x1p-8f), 0x3f80);
    assert_int_equal(hp_bf16_of(1 + 3 * 0x1p-8f), 0x3f82);
    assert_int_equal(hp_bf16_of(3.4e38f), 0x7f80);
    assert_true(isnan(hp_f16_float(hp_f16_of(NAN))));
    assert_true(isnan(hp_bf16_float(hp_bf16_of(NAN))));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_host__a_right_kernel_gives_its_result),
        cmocka_unit_test(test_host__a_missing_barrier_is_found_in_every_order),
        cmocka_unit_test(test_host__poisoned_shared_memory_is_not_read),
        cmocka_unit_test(test_host__a_barrier_that_somebody_misses_is_an_error),
        cmocka_unit_test(test_host__a_shuffle_with_lanes_that_left_is_an_error),
        cmocka_unit_test(test_host__an_index_beyond_shared_memory_is_an_error),
        cmocka_unit_test(test_host__a_misaligned_vector_is_an_error),
        cmocka_unit_test(test_host__block_order_changes_with_the_seed),
        cmocka_unit_test(test_host__lanes_exchange_what_they_brought),
        cmocka_unit_test(test_half__every_value_comes_back),
        cmocka_unit_test(test_half__ties_go_to_even_and_overflow_to_infinity),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
