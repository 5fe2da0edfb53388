/* kernels/merge.cu against its twin. */
#include "tests/kernels/device_world.h"

#include "kernels/merge.h"

static void compare(const hp_merge *m, hp_dtype t)
{
    size_t cells = (size_t)m->batch * m->n[0] * m->n[1] * m->n[2];
    size_t n = cells * (size_t)m->n[3], low_n;
    float *skip, *low, *want;
    device_buf ds, dl;

    low_n = (size_t)m->batch * m->low[0] * m->low[1] * m->low[2] * m->n[3];
    skip = device_floats(n);
    low = device_floats(low_n);
    want = device_floats(n);
    ds = device_values(t, n, 1, skip);
    dl = device_values(t, low_n, 2, low);
    hp_merge_ref(m, skip, low, want);
    for (int s = 0; s < DEVICE_SEED_COUNT; s++) {
        device_buf out = device_bytes(n * hp_dtype_size(t));
        hp_error err = HP_ERROR_INIT;

        hp_host_seed(DEVICE_SEEDS[s]);
        assert_ok(hp_merge_cuda(m, t, ds.p, dl.p, out.p, NULL, &err), &err);
        device_equal(&out, t, want, n, 1.01); /* one sum, rounded once */
        device_done(&out);
    }
    device_done(&ds);
    device_done(&dl);
    free(skip);
    free(low);
    free(want);
}

static void test_cuda_merge__agrees_on_odd_sizes(void **state)
{
    static const hp_merge CASES[] = {
        {1, {3, 5, 7, 8}, {2, 3, 4}, {2, 2, 2}},
        {2, {3, 5, 7, 24}, {3, 3, 4}, {1, 2, 2}},
        {1, {1, 1, 1, 1}, {1, 1, 1}, {2, 2, 2}},
        {3, {2, 2, 33, 3}, {2, 1, 9}, {1, 3, 4}},
        {1, {1, 2, 70, 64}, {2, 2, 40}, {1, 1, 2}}, /* low larger than needed */
    };

    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        for (int t = 0; t < 3; t++)
            compare(&CASES[i], DEVICE_TYPES[t]);
}

static void test_cuda_merge__nothing_is_no_work(void **state)
{
    static const hp_merge EMPTY[] = {
        {0, {3, 5, 7, 8}, {2, 3, 4}, {2, 2, 2}},
        {1, {3, 0, 7, 8}, {2, 3, 4}, {2, 2, 2}},
        {1, {3, 5, 7, 0}, {2, 3, 4}, {2, 2, 2}},
    };
    hp_error err = HP_ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < sizeof EMPTY / sizeof *EMPTY; i++)
        assert_ok(hp_merge_cuda(&EMPTY[i], HP_F16, NULL, NULL, NULL, NULL, &err), &err);
}

static void test_cuda_merge__writes_over_its_skip(void **state)
{
    static const hp_merge M = {1, {2, 3, 5, 8}, {1, 2, 3}, {2, 2, 2}};
    enum { N = 2 * 3 * 5 * 8, LOW = 1 * 2 * 3 * 8 };
    float skip[N], low[LOW], want[N];
    device_buf ds = device_values(HP_F16, N, 5, skip);
    device_buf dl = device_values(HP_F16, LOW, 6, low);
    hp_error err = HP_ERROR_INIT;

    (void)state;
    hp_merge_ref(&M, skip, low, want);
    assert_ok(hp_merge_cuda(&M, HP_F16, ds.p, dl.p, ds.p, NULL, &err), &err);
    device_equal(&ds, HP_F16, want, N, 1.01);
    device_done(&ds);
    device_done(&dl);
}

static void test_cuda_merge__a_coarse_map_too_small_is_refused(void **state)
{
    static const hp_merge M = {1, {3, 5, 7, 8}, {1, 3, 4}, {2, 2, 2}};
    hp_error err = HP_ERROR_INIT;

    (void)state;
    assert_int_equal(hp_merge_cuda(&M, HP_F32, NULL, NULL, NULL, NULL, &err),
                     HP_E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_merge__agrees_on_odd_sizes),
        cmocka_unit_test(test_cuda_merge__nothing_is_no_work),
        cmocka_unit_test(test_cuda_merge__writes_over_its_skip),
        cmocka_unit_test(test_cuda_merge__a_coarse_map_too_small_is_refused),
    };

    return device_run_tests(tests);
}
