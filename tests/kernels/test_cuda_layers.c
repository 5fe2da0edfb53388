/* The small layers' .cu sources against their twins: unfold, max pooling, fully
 * connected, conversion, largest magnitude. */
#include "tests/kernels/device_world.h"

#include "kernels/actmax.h"
#include "kernels/convert.h"
#include "kernels/fc.h"
#include "kernels/maxpool.h"
#include "kernels/unfold.h"

/* --- unfold ------------------------------------------------------------ */

static void compare_unfold(const hp_unfold *u, hp_dtype t)
{
    size_t cells = (size_t)u->batch * u->n[0] * u->n[1] * u->n[2];
    size_t group = (size_t)u->stride[0] * u->stride[1] * u->stride[2] * u->up_c;
    size_t low_n = (size_t)u->batch * u->low[0] * u->low[1] * u->low[2] * group;
    size_t skip_n = cells * (size_t)u->skip_c, n = skip_n + cells * (size_t)u->up_c;
    float *skip = device_floats(skip_n), *low = device_floats(low_n);
    float *want = device_floats(n), *bias = device_floats((size_t)u->up_c);
    device_buf ds = device_values(t, skip_n, 1, skip),
               dl = device_values(t, low_n, 2, low);
    device_buf db = device_values(HP_F32, (size_t)u->up_c, 3, bias);

    hp_unfold_ref(u, skip, low, bias, want);
    for (int s = 0; s < DEVICE_SEED_COUNT; s++) {
        device_buf out = device_bytes(n * hp_dtype_size(t));
        hp_error err = HP_ERROR_INIT;

        hp_host_seed(DEVICE_SEEDS[s]);
        assert_ok(hp_unfold_cuda(u, t, ds.p, dl.p, (float *)db.p, out.p, NULL, &err),
                  &err);
        device_equal(&out, t, want, n, 1.01); /* one sum, rounded once */
        device_done(&out);
    }
    device_done(&ds);
    device_done(&dl);
    device_done(&db);
    free(skip);
    free(low);
    free(want);
    free(bias);
}

static void test_cuda_unfold__agrees_on_odd_sizes(void **state)
{
    static const hp_unfold CASES[] = {
        {1, {3, 5, 7}, 8, 8, {2, 3, 4}, {2, 2, 2}, true},
        {2, {3, 5, 7}, 16, 8, {3, 3, 4}, {1, 2, 2}, false},
        {1, {1, 9, 11}, 5, 3, {1, 5, 6}, {1, 2, 2}, true},
        {2, {1, 4, 6}, 4, 12, {1, 2, 3}, {1, 2, 2}, true}, /* float packs, half ones not
                                                            */
        {2, {2, 3, 5}, 0, 24, {2, 3, 5}, {1, 1, 1}, true}, /* bias and ReLU alone */
        {1, {1, 1, 1}, 0, 1, {1, 1, 1}, {2, 2, 2}, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        for (int t = 0; t < 3; t++)
            compare_unfold(&CASES[i], DEVICE_TYPES[t]);
}

static void test_cuda_unfold__nothing_is_no_work(void **state)
{
    static const hp_unfold NOTHING[] = {
        {0, {3, 5, 7}, 8, 8, {2, 3, 4}, {2, 2, 2}, true},
        {1, {0, 5, 7}, 8, 8, {2, 3, 4}, {2, 2, 2}, true},
        {1, {3, 5, 0}, 8, 8, {2, 3, 0}, {2, 2, 2}, true},
        {1, {3, 5, 7}, 0, 0, {2, 3, 4}, {2, 2, 2}, true},
    };
    static const hp_unfold SMALL = {1, {3, 5, 7}, 8, 8, {2, 3, 3}, {2, 2, 2}, true};
    hp_error err = HP_ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < sizeof NOTHING / sizeof *NOTHING; i++)
        assert_ok(hp_unfold_cuda(&NOTHING[i], HP_F16, NULL, NULL, NULL, NULL, NULL, &err),
                  &err);
    assert_int_equal(hp_unfold_cuda(&SMALL, HP_F16, NULL, NULL, NULL, NULL, NULL, &err),
                     HP_E_INVALID);
}

static void test_cuda_unfold__in_place_without_a_skip(void **state)
{
    static const hp_unfold U = {1, {2, 3, 5}, 0, 8, {2, 3, 5}, {1, 1, 1}, true};
    enum { N = 2 * 3 * 5 * 8 };
    float low[N], want[N], bias[8];
    device_buf dl = device_values(HP_BF16, N, 5, low),
               db = device_values(HP_F32, 8, 6, bias);
    hp_error err = HP_ERROR_INIT;

    (void)state;
    hp_unfold_ref(&U, NULL, low, bias, want);
    assert_ok(hp_unfold_cuda(&U, HP_BF16, NULL, dl.p, (float *)db.p, dl.p, NULL, &err),
              &err);
    device_equal(&dl, HP_BF16, want, N, 1.01);
    device_done(&dl);
    device_done(&db);
}

/* --- max pooling ------------------------------------------------------- */

static void compare_maxpool(int planes, const int n[3], hp_dtype t)
{
    size_t in_n = (size_t)planes * n[0] * n[1] * n[2];
    size_t out_n = (size_t)planes * ((n[0] + 1) / 2) * ((n[1] + 1) / 2) * n[2];
    float *in = device_floats(in_n), *want = device_floats(out_n);
    device_buf di = device_values(t, in_n, 7, in);

    hp_maxpool_ref(planes, n, in, want);
    for (int s = 0; s < DEVICE_SEED_COUNT; s++) {
        device_buf out = device_bytes(out_n * hp_dtype_size(t));
        hp_error err = HP_ERROR_INIT;

        hp_host_seed(DEVICE_SEEDS[s]);
        assert_ok(hp_maxpool_cuda(planes, n, t, di.p, out.p, NULL, &err), &err);
        device_equal(&out, t, want, out_n, 0); /* nothing is computed */
        device_done(&out);
    }
    device_done(&di);
    free(in);
    free(want);
}

static void test_cuda_maxpool__agrees_on_odd_sizes(void **state)
{
    static const int CASES[][4] = {{1, 7, 9, 8},  {3, 6, 5, 16}, {1, 1, 1, 3},
                                   {2, 2, 13, 5}, {1, 0, 4, 8},  {0, 7, 9, 8},
                                   {1, 7, 0, 8},  {1, 7, 9, 0}};

    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        for (int t = 0; t < 3; t++)
            compare_maxpool(CASES[i][0], CASES[i] + 1, DEVICE_TYPES[t]);
}

/* --- fully connected --------------------------------------------------- */

static void compare_fc(int batch, int in, int out, hp_dtype t)
{
    size_t n = (size_t)batch * in, wn = (size_t)out * in, rn = (size_t)batch * out;
    float *x = device_floats(n), *w = device_floats(wn),
          *bias = device_floats((size_t)out);
    float *want = device_floats(rn);
    device_buf dx = device_values(t, n, 8, x), dw = device_values(HP_F32, wn, 9, w);
    device_buf db = device_values(HP_F32, (size_t)out, 10, bias);

    hp_fc_ref(batch, in, out, x, w, bias, want);
    for (int s = 0; s < DEVICE_SEED_COUNT; s++) {
        device_buf ret = device_bytes(rn * sizeof(float));
        hp_error err = HP_ERROR_INIT;

        hp_host_seed(DEVICE_SEEDS[s]);
        assert_ok(hp_fc_cuda(batch, in, out, t, dx.p, (float *)dw.p, (float *)db.p,
                             (float *)ret.p, NULL, &err),
                  &err);
        device_down(&ret);
        /* a float sum of `in` terms below 1: the error grows with its square root,
         * thread by thread; the twin sums in double */
        for (size_t i = 0; i < rn; i++)
            assert_float_equal(device_get(&ret, HP_F32, i), want[i],
                               1e-6 * (1 + sqrt(in)));
        device_done(&ret);
    }
    device_done(&dx);
    device_done(&dw);
    device_done(&db);
    free(x);
    free(w);
    free(bias);
    free(want);
}

static void test_cuda_fc__agrees_with_sums_in_double(void **state)
{
    static const int CASES[][3] = {{1, 4096, 4}, {3, 1000, 2}, {2, 7, 5},
                                   {1, 1, 1},    {2, 0, 3},    {0, 8, 2}};

    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        for (int t = 0; t < 3; t++)
            compare_fc(CASES[i][0], CASES[i][1], CASES[i][2], DEVICE_TYPES[t]);
}

/* --- conversion -------------------------------------------------------- */

static void compare_convert(const hp_convert *c)
{
    size_t in_n = c->rows * (size_t)c->from_c, n = c->rows * (size_t)c->to_c;
    float *in = device_floats(in_n);
    device_buf src = device_values(c->from, in_n, 11, in);
    device_buf want = device_bytes(n * hp_dtype_size(c->to));

    hp_convert_ref(c, src.data, want.data);
    for (int s = 0; s < DEVICE_SEED_COUNT; s++) {
        device_buf out = device_bytes(n * hp_dtype_size(c->to));
        hp_error err = HP_ERROR_INIT;

        hp_host_seed(DEVICE_SEEDS[s]);
        assert_ok(hp_convert_cuda(c, src.p, out.p, NULL, &err), &err);
        device_down(&out);
        if (n > 0)
            assert_memory_equal(out.data, want.data, want.bytes);
        device_done(&out);
    }
    device_done(&src);
    device_done(&want);
    free(in);
}

static void test_cuda_convert__pads_drops_and_rounds_as_the_twin(void **state)
{
    static const int SHAPES[][3] = {/* rows, from, to */
                                    {33, 1, 8}, {33, 8, 1}, {17, 3, 8},  {17, 8, 3},
                                    {5, 8, 8},  {7, 3, 3},  {9, 16, 24}, {9, 24, 16},
                                    {11, 4, 5}, {0, 4, 8},  {4, 0, 8},   {2, 12, 16}};
    static const hp_dtype PAIRS[][2] = {
        {HP_F32, HP_F32},  {HP_F32, HP_F16}, {HP_F16, HP_F32},  {HP_F32, HP_BF16},
        {HP_BF16, HP_F32}, {HP_F16, HP_F16}, {HP_BF16, HP_BF16}};

    (void)state;
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
        for (size_t p = 0; p < sizeof PAIRS / sizeof *PAIRS; p++)
            compare_convert(&(hp_convert){(size_t)SHAPES[i][0], SHAPES[i][1],
                                          SHAPES[i][2], PAIRS[p][0], PAIRS[p][1]});
}

static void test_cuda_convert__two_half_types_are_refused(void **state)
{
    hp_convert c = {1, 8, 8, HP_F16, HP_BF16};
    hp_error err = HP_ERROR_INIT;

    (void)state;
    assert_int_equal(hp_convert_cuda(&c, NULL, NULL, NULL, &err), HP_E_INVALID);
}

/* --- largest magnitude ------------------------------------------------- */

static uint32_t actmax(hp_dtype t, const device_buf *x, size_t n)
{
    uint32_t bits = 0;
    device_buf d = device_of(&bits, sizeof bits);
    hp_error err = HP_ERROR_INIT;

    assert_ok(hp_actmax_cuda(t, x->p, n, (uint32_t *)d.p, NULL, &err), &err);
    device_down(&d);
    memcpy(&bits, d.data, sizeof bits);
    device_done(&d);
    return bits;
}

static void test_cuda_actmax__is_the_twins_to_the_bit(void **state)
{
    static const size_t SIZES[] = {0, 1, 7, 8, 255, 4096, 9001, 40000};

    (void)state;
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++)
        for (int t = 0; t < 3; t++) {
            float *x = device_floats(SIZES[i]);
            device_buf d = device_values(DEVICE_TYPES[t], SIZES[i], (uint32_t)i, x);

            for (int s = 0; s < DEVICE_SEED_COUNT; s++) {
                hp_host_seed(DEVICE_SEEDS[s]);
                assert_int_equal(actmax(DEVICE_TYPES[t], &d, SIZES[i]),
                                 hp_actmax_ref(x, SIZES[i]));
            }
            device_done(&d);
            free(x);
        }
}

static void test_cuda_actmax__one_bad_value_anywhere_is_seen(void **state)
{
    static const float BAD[] = {INFINITY, -INFINITY, NAN};
    enum { N = 3001 };
    static float x[N];

    (void)state;
    for (int t = 0; t < 3; t++)
        for (int b = 0; b < 3; b++)
            for (size_t at = 0; at < N; at += 1500) {
                device_buf d = device_values(DEVICE_TYPES[t], N, 4, x);

                assert_true(hp_actmax_is_finite(actmax(DEVICE_TYPES[t], &d, N)));
                device_put(&d, DEVICE_TYPES[t], at, BAD[b]);
                device_up(&d);
                assert_false(hp_actmax_is_finite(actmax(DEVICE_TYPES[t], &d, N)));
                device_done(&d);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_unfold__agrees_on_odd_sizes),
        cmocka_unit_test(test_cuda_unfold__nothing_is_no_work),
        cmocka_unit_test(test_cuda_unfold__in_place_without_a_skip),
        cmocka_unit_test(test_cuda_maxpool__agrees_on_odd_sizes),
        cmocka_unit_test(test_cuda_fc__agrees_with_sums_in_double),
        cmocka_unit_test(test_cuda_convert__pads_drops_and_rounds_as_the_twin),
        cmocka_unit_test(test_cuda_convert__two_half_types_are_refused),
        cmocka_unit_test(test_cuda_actmax__is_the_twins_to_the_bit),
        cmocka_unit_test(test_cuda_actmax__one_bad_value_anywhere_is_seen),
    };

    return device_run_tests(tests);
}
