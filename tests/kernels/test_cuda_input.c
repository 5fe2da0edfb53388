/* kernels/input.cu against its twin: whole HU must be the same, so the only
 * difference left is the rounding to storage. */
#include "tests/kernels/device_world.h"

#include "kernels/input.h"

static const hp_window WINDOW = {-175, 275, 0.5, 0.25};

static int16_t *random_hu(size_t n, uint32_t seed)
{
    int16_t *hu = malloc((n + 1) * sizeof *hu);

    assert_non_null(hu);
    for (size_t i = 0; i < n; i++)
        hu[i] = (int16_t)(device_random(&seed) * 400);
    return hu;
}

static void compare(const hp_input *in, hp_dtype t)
{
    size_t src_n = (size_t)in->src_n[0] * in->src_n[1] * in->src_n[2];
    size_t n = (size_t)in->n[0] * in->n[1] * in->n[2] * in->channels;
    const int16_t *src[HP_INPUT_SOURCES] = {NULL}, *on_device[HP_INPUT_SOURCES] = {NULL};
    device_buf slices[HP_INPUT_SOURCES];
    float *want = device_floats(n);
    hp_error err = HP_ERROR_INIT;

    for (int s = 0; s < in->sources; s++) {
        src[s] = random_hu(src_n, (uint32_t)s + 1);
        slices[s] = device_of(src[s], src_n * sizeof *src[s]);
        on_device[s] = (const int16_t *)slices[s].p;
    }
    assert_ok(hp_input_ref(in, src, want, &err), &err);
    for (int s = 0; s < DEVICE_SEED_COUNT; s++) {
        device_buf out = device_bytes(n * hp_dtype_size(t));
        device_buf work = device_bytes(hp_input_workspace(in));

        hp_host_seed(DEVICE_SEEDS[s]);
        assert_ok(hp_input_cuda(in, t, on_device, out.p, work.p, NULL, &err), &err);
        device_equal(&out, t, want, n, t == HP_F32 ? 0 : 1.01);
        device_done(&out);
        device_done(&work);
    }
    for (int s = 0; s < in->sources; s++) {
        device_done(&slices[s]);
        free((void *)src[s]);
    }
    free(want);
}

static void test_cuda_input__agrees_when_growing_and_when_shrinking(void **state)
{
    static const hp_input CASES[] = {
        /* the same grid */
        {{3, 5, 7}, {0, 0, 0}, {3, 5, 7}, {3, 5, 7}, -1024, WINDOW, 1, 1, false, {0}},
        /* a crop that grows, by ratios that are not whole */
        {{6, 20, 23},
         {1, 2, 3},
         {5, 17, 20},
         {9, 29, 41},
         -1024,
         WINDOW,
         1,
         8,
         false,
         {0}},
        /* shrinks by 3.4: the area prefilter */
        {{11, 37, 41},
         {0, 0, 0},
         {11, 37, 41},
         {4, 11, 12},
         -1024,
         WINDOW,
         2,
         2,
         false,
         {0}},
        /* hangs over every edge: padding */
        {{4, 9, 8},
         {-2, -3.5, -1.25},
         {6, 11, 12.5},
         {8, 13, 33},
         -1024,
         WINDOW,
         1,
         1,
         false,
         {0}},
        /* one voxel from one */
        {{1, 1, 1}, {0, 0, 0}, {1, 1, 1}, {1, 1, 1}, 0, WINDOW, 1, 8, false, {0}},
        /* wholly outside */
        {{2, 3, 4}, {5, 5, 5}, {9, 9, 9}, {2, 2, 2}, -77, WINDOW, 1, 3, false, {0}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        for (int t = 0; t < 3; t++)
            compare(&CASES[i], DEVICE_TYPES[t]);
}

static void test_cuda_input__a_patch_has_four_phases_and_its_rectangle(void **state)
{
    hp_input in = {{1, 40, 50},
                   {0, -3.2, 20.1},
                   {1, 33.9, 57.2},
                   {1, 37, 37},
                   -1024,
                   WINDOW,
                   4,
                   8,
                   true,
                   {10.5, 11, 20, 29.75}};

    (void)state;
    for (int t = 0; t < 3; t++) {
        in.channels = 8;
        compare(&in, DEVICE_TYPES[t]);
        in.channels = 5;
        compare(&in, DEVICE_TYPES[t]);
    }
}

static void test_cuda_input__nothing_is_no_work(void **state)
{
    hp_input in = {{3, 5, 7}, {0, 0, 0}, {3, 5, 7}, {3, 0, 7}, 0,
                   WINDOW,    1,         1,         false,     {0}};
    hp_error err = HP_ERROR_INIT;

    (void)state;
    assert_int_equal(hp_input_workspace(&in), 0);
    assert_ok(hp_input_cuda(&in, HP_F16, NULL, NULL, NULL, NULL, &err), &err);
    in.channels = 9;
    assert_int_equal(hp_input_cuda(&in, HP_F16, NULL, NULL, NULL, NULL, &err),
                     HP_E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_input__agrees_when_growing_and_when_shrinking),
        cmocka_unit_test(test_cuda_input__a_patch_has_four_phases_and_its_rectangle),
        cmocka_unit_test(test_cuda_input__nothing_is_no_work),
    };

    return device_run_tests(tests);
}
