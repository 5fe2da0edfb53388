/* kernels/unfold_rows against the twin. */
#include "tests/inference/world.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/half.h"
#include "kernels/unfold_rows.h"

/* Odd sizes cut the last cells; numbers of channels that the compiler knows, others. */
static const hp_unfold CASES[] = {
    {1, {3, 5, 7}, 8, 8, {3, 3, 4}, {1, 2, 2}, true},
    {2, {3, 5, 7}, 16, 16, {2, 3, 4}, {2, 2, 2}, true},
    {1, {4, 3, 5}, 8, 24, {4, 3, 5}, {1, 1, 1}, false},
    {1, {2, 6, 9}, 32, 16, {2, 3, 5}, {1, 2, 2}, false},
    {1, {1, 4, 6}, 0, 8, {1, 2, 3}, {1, 2, 2}, true},
};

typedef struct world {
    size_t skip_n, low_n, out_n;
    float *skip, *low, *bias, *twin, *out;
    uint16_t *skip16, *low16, *out16;
} world;

/* Numbers that bf16 keeps. */
static float *numbers(size_t n, unsigned seed)
{
    float *v = calloc(n + 1, sizeof *v);

    assert_non_null(v);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        v[i] = hp_bf16_float(hp_bf16_of((float)(seed >> 8) / (float)(1 << 22) - 2));
    }
    return v;
}

static uint16_t *narrowed(const float *v, size_t n)
{
    uint16_t *h = calloc(n + 1, sizeof *h);

    assert_non_null(h);
    for (size_t i = 0; i < n; i++)
        h[i] = hp_bf16_of(v[i]);
    return h;
}

/* One number of low is `odd`. */
static world set_up(const hp_unfold *u, float odd)
{
    size_t all = (size_t)u->batch * u->n[0] * u->n[1] * u->n[2];
    size_t low = (size_t)u->batch * u->low[0] * u->low[1] * u->low[2] * u->stride[0] *
                 u->stride[1] * u->stride[2];
    world w = {.skip_n = all * u->skip_c,
               .low_n = low * u->up_c,
               .out_n = all * (u->skip_c + u->up_c)};

    w.skip = numbers(w.skip_n, 1);
    w.low = numbers(w.low_n, 2);
    w.bias = numbers(u->up_c, 3);
    w.low[w.low_n / 2] = odd;
    w.skip16 = narrowed(w.skip, w.skip_n);
    w.low16 = narrowed(w.low, w.low_n);
    w.twin = numbers(w.out_n, 4);
    w.out = numbers(w.out_n, 5);
    w.out16 = narrowed(w.out, w.out_n);
    for (int k = 0; k < u->up_c; k++)
        w.bias[k] *= 1.001f; /* so that sums have to be rounded */
    hp_unfold_ref(u, w.skip, w.low, w.bias, w.twin);
    return w;
}

static void tear_down(world *w)
{
    free(w->skip);
    free(w->low);
    free(w->bias);
    free(w->twin);
    free(w->out);
    free(w->skip16);
    free(w->low16);
    free(w->out16);
}

static void skip_without(const hp_unfold *u)
{
    if (!hp_unfold_rows_serves(u)) {
        print_message("this CPU has no AVX-512\n");
        skip();
    }
}

static void test_unfold_rows__is_the_twin(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        world w;

        skip_without(&CASES[i]);
        w = set_up(&CASES[i], 1);
        assert_true(hp_unfold_rows(&CASES[i], false, w.skip, w.low, w.bias, w.out));
        assert_memory_equal(w.out, w.twin, w.out_n * sizeof *w.out);
        assert_true(w.out[w.out_n] == 0);
        assert_true(hp_unfold_rows(&CASES[i], true, w.skip16, w.low16, w.bias, w.out16));
        for (size_t k = 0; k < w.out_n; k++)
            assert_int_equal(w.out16[k], hp_bf16_of(w.twin[k]));
        assert_int_equal(w.out16[w.out_n], 0);
        tear_down(&w);
    }
}

static void test_unfold_rows__tells_of_what_is_not_finite(void **state)
{
    static const float ODD[] = {NAN, INFINITY};

    (void)state;
    skip_without(&CASES[0]);
    for (int i = 0; i < 2; i++) {
        world w = set_up(&CASES[0], ODD[i]);

        assert_false(hp_unfold_rows(&CASES[0], false, w.skip, w.low, w.bias, w.out));
        assert_memory_equal(w.out, w.twin, w.out_n * sizeof *w.out);
        assert_false(hp_unfold_rows(&CASES[0], true, w.skip16, w.low16, w.bias, w.out16));
        tear_down(&w);
    }
}

static void test_unfold_rows__leaves_other_channels_alone(void **state)
{
    hp_unfold u = CASES[0];

    (void)state;
    u.skip_c = 12;
    assert_false(hp_unfold_rows_serves(&u));
    u.skip_c = 8;
    u.up_c = 3;
    assert_false(hp_unfold_rows_serves(&u));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unfold_rows__is_the_twin),
        cmocka_unit_test(test_unfold_rows__tells_of_what_is_not_finite),
        cmocka_unit_test(test_unfold_rows__leaves_other_channels_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
