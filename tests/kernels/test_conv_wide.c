/* kernels/conv_wide against the sum as one would write it down. */
#include "tests/kernels/numbers.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/conv_wide.h"

typedef struct world {
    hp_conv_plain c;
    float *in, *weight, *bias, *plus, *packed, *work, *out;
} world;

static size_t outputs(const hp_conv_plain *c)
{
    return (size_t)c->n[0] * c->n[1] * c->n[2] * c->cout;
}

/* Behind work and out stands a number more, as a guard. */
static world set_up(hp_conv_plain c, int threads)
{
    world w = {.c = c};

    w.in = numbers(outputs(&c) / c.cout * c.cin, 1);
    w.weight = numbers((size_t)c.cout * c.cin * c.depth * 9, 2);
    w.bias = numbers(c.cout, 3);
    w.plus = numbers(outputs(&c), 4);
    w.packed = numbers(hp_conv_wide_packed(&c), 5);
    w.work = numbers(hp_conv_wide_work(&c, threads) + 1, 6);
    w.out = numbers(outputs(&c) + 1, 7);
    hp_conv_wide_pack(&c, w.weight, w.packed);
    return w;
}

static void tear_down(world *w)
{
    free(w->in);
    free(w->weight);
    free(w->bias);
    free(w->plus);
    free(w->packed);
    free(w->work);
    free(w->out);
}

/* One output, and the sum of the magnitudes that went into it. */
static double plain(const world *w, const float *bias, const float *plus, size_t at,
                    double *ret_size)
{
    const hp_conv_plain *c = &w->c;
    const int *n = c->n;
    int o = (int)(at % c->cout), x = (int)(at / c->cout % n[2]),
        y = (int)(at / c->cout / n[2] % n[1]), z = (int)(at / c->cout / n[2] / n[1]);
    double sum = (bias != NULL ? bias[o] : 0) + (plus != NULL ? plus[at] : 0);

    *ret_size = fabs(sum);
    for (int t = 0; t < c->depth * 9; t++) {
        int zz = z + t / 9 - c->depth / 2, yy = y + t / 3 % 3 - 1, xx = x + t % 3 - 1;

        if (zz < 0 || zz >= n[0] || yy < 0 || yy >= n[1] || xx < 0 || xx >= n[2])
            continue;
        for (int i = 0; i < c->cin; i++) {
            double v =
                (double)w->in[(((size_t)zz * n[1] + yy) * n[2] + xx) * c->cin + i] *
                w->weight[((size_t)o * c->cin + i) * c->depth * 9 + t];

            sum += v;
            *ret_size += fabs(v);
        }
    }
    return c->relu && sum < 0 ? 0 : sum;
}

/* Every `step`-th output: a prime, so that all channels and places have their turn. */
static void assert_plain(const world *w, const float *bias, const float *plus, int step)
{
    for (size_t at = 0; at < outputs(&w->c); at += step) {
        double size, want = plain(w, bias, plus, at, &size);

        assert_true(fabs(w->out[at] - want) <= 1e-5 * size);
    }
}

static void skip_without(const hp_conv_plain *c)
{
    if (!hp_conv_wide_serves(c)) {
        print_message("this CPU has no AVX-512\n");
        skip();
    }
}

static void test_conv_wide__is_the_plain_sum(void **state)
{
    static const hp_conv_plain CASES[] = {
        {{1, 1, 1}, 64, 64, 1, false},  {{1, 1, 3}, 64, 64, 3, true},
        {{2, 3, 5}, 128, 64, 3, true},  {{3, 17, 13}, 64, 128, 1, true},
        {{1, 1, 900}, 64, 64, 1, true}, {{4, 21, 30}, 64, 64, 3, false},
        {{2, 2, 2}, 192, 192, 3, true},
    };

    (void)state;
    skip_without(&CASES[0]);
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        int step = outputs(&CASES[i]) > 4096 ? 31 : 1, threads = omp_get_max_threads();
        world w = set_up(CASES[i], threads);
        float *in_place = w.out, behind = w.out[outputs(&w.c)];
        float after = w.work[hp_conv_wide_work(&w.c, threads)];

        assert_true(hp_conv_wide_run(&w.c, w.in, w.packed, NULL, NULL, w.work, w.out));
        assert_plain(&w, NULL, NULL, step);
        hp_conv_wide_run(&w.c, w.in, w.packed, w.bias, w.plus, w.work, w.out);
        assert_plain(&w, w.bias, w.plus, step);
        memcpy(in_place, w.plus, outputs(&w.c) * sizeof(float));
        hp_conv_wide_run(&w.c, w.in, w.packed, w.bias, in_place, w.work, w.out);
        assert_plain(&w, w.bias, w.plus, step);
        assert_true(behind == w.out[outputs(&w.c)]);
        assert_true(after == w.work[hp_conv_wide_work(&w.c, threads)]);
        tear_down(&w);
    }
}

static void test_conv_wide__does_not_depend_on_the_threads(void **state)
{
    hp_conv_plain c = {{3, 40, 24}, 64, 128, 3, true};
    size_t bytes = outputs(&c) * sizeof(float);
    int before = omp_get_max_threads();
    world w;
    float *first;

    (void)state;
    skip_without(&c);
    w = set_up(c, 3);
    first = malloc(bytes);
    assert_non_null(first);
    omp_set_num_threads(1);
    hp_conv_wide_run(&c, w.in, w.packed, w.bias, NULL, w.work, w.out);
    memcpy(first, w.out, bytes);
    omp_set_num_threads(3);
    hp_conv_wide_run(&c, w.in, w.packed, w.bias, NULL, w.work, w.out);
    omp_set_num_threads(before);
    assert_memory_equal(first, w.out, bytes);
    free(first);
    tear_down(&w);
}

static void test_conv_wide__lets_through_and_tells_of_what_is_not_finite(void **state)
{
    hp_conv_plain c = {{1, 3, 8}, 64, 64, 1, true};
    bool seen = false;
    world w;

    (void)state;
    skip_without(&c);
    w = set_up(c, omp_get_max_threads());
    w.in[13 * c.cin] = NAN;
    assert_false(hp_conv_wide_run(&c, w.in, w.packed, w.bias, NULL, w.work, w.out));
    for (size_t i = 0; i < outputs(&c); i++)
        seen |= isnan(w.out[i]);
    assert_true(seen);
    tear_down(&w);
}

static void test_conv_wide__leaves_other_shapes_alone(void **state)
{
    static const hp_conv_plain CASES[] = {{{1, 4, 8}, 64, 64, 5, false},
                                          {{1, 4, 8}, 96, 64, 1, false},
                                          {{1, 4, 8}, 64, 96, 1, false}};

    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++)
        assert_false(hp_conv_wide_serves(&CASES[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv_wide__is_the_plain_sum),
        cmocka_unit_test(test_conv_wide__does_not_depend_on_the_threads),
        cmocka_unit_test(test_conv_wide__lets_through_and_tells_of_what_is_not_finite),
        cmocka_unit_test(test_conv_wide__leaves_other_shapes_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
