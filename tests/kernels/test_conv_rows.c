/* kernels/conv_rows against the sum as one would write it down. */
#include "tests/kernels/numbers.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/conv_rows.h"

typedef struct world {
    hp_conv_plain c;
    float *in, *weight, *bias, *plus, *packed, *work, *out;
} world;

static size_t voxels(const hp_conv_plain *c)
{
    return (size_t)c->n[0] * c->n[1] * c->n[2];
}

static world set_up(hp_conv_plain c, int threads)
{
    world w = {.c = c};

    w.in = numbers(voxels(&c) * c.cin, 1);
    w.weight = numbers((size_t)c.cout * c.cin * c.depth * 9, 2);
    w.bias = numbers(c.cout, 3);
    w.plus = numbers(voxels(&c) * c.cout, 4);
    w.packed = numbers(hp_conv_rows_packed(&c), 5);
    w.work = numbers(hp_conv_rows_work(&c, threads), 6); /* what was there before */
    w.out = numbers(voxels(&c) * c.cout + 1, 7);
    hp_conv_rows_pack(&c, w.weight, w.packed);
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
static double plain(const world *w, const float *plus, int z, int y, int x, int o,
                    double *ret_size)
{
    const hp_conv_plain *c = &w->c;
    size_t at = ((size_t)z * c->n[1] + y) * c->n[2] + x;
    double sum = w->bias[o] + (plus != NULL ? plus[at * c->cout + o] : 0);

    *ret_size = fabs(sum);
    for (int t = 0; t < c->depth * 9; t++) {
        int zz = z + t / 9 - c->depth / 2, yy = y + t / 3 % 3 - 1, xx = x + t % 3 - 1;

        if (zz < 0 || zz >= c->n[0] || yy < 0 || yy >= c->n[1] || xx < 0 || xx >= c->n[2])
            continue;
        for (int i = 0; i < c->cin; i++) {
            double v =
                (double)w->in[(((size_t)zz * c->n[1] + yy) * c->n[2] + xx) * c->cin + i] *
                w->weight[((size_t)o * c->cin + i) * c->depth * 9 + t];

            sum += v;
            *ret_size += fabs(v);
        }
    }
    return c->relu && sum < 0 ? 0 : sum;
}

static void assert_plain(const world *w, const float *plus)
{
    const hp_conv_plain *c = &w->c;

    for (int z = 0; z < c->n[0]; z++)
        for (int y = 0; y < c->n[1]; y++)
            for (int x = 0; x < c->n[2]; x++)
                for (int o = 0; o < c->cout; o++) {
                    double size, want = plain(w, plus, z, y, x, o, &size);
                    size_t at = (((size_t)z * c->n[1] + y) * c->n[2] + x) * c->cout + o;

                    assert_true(fabs(w->out[at] - want) <= 1e-5 * size);
                }
}

static void skip_without(const hp_conv_plain *c)
{
    if (!hp_conv_rows_serves(c)) {
        print_message("this CPU has no AVX-512\n");
        skip();
    }
}

static void test_conv_rows__is_the_plain_sum(void **state)
{
    static const hp_conv_plain CASES[] = {
        {{1, 1, 4}, 8, 8, 1, false},    {{2, 5, 8}, 8, 8, 3, true},
        {{3, 17, 12}, 16, 8, 1, true},  {{1, 33, 36}, 16, 16, 1, false},
        {{4, 16, 20}, 16, 16, 3, true}, {{2, 18, 28}, 32, 16, 3, true},
    };

    (void)state;
    skip_without(&CASES[0]);
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        world w = set_up(CASES[i], omp_get_max_threads());
        float guard = w.out[voxels(&w.c) * w.c.cout];

        assert_true(hp_conv_rows_run(&w.c, w.in, w.packed, w.bias, NULL, w.work, w.out));
        assert_plain(&w, NULL);
        assert_true(
            hp_conv_rows_run(&w.c, w.in, w.packed, w.bias, w.plus, w.work, w.out));
        assert_plain(&w, w.plus);
        assert_true(guard == w.out[voxels(&w.c) * w.c.cout]);
        tear_down(&w);
    }
}

static void test_conv_rows__does_not_depend_on_the_threads(void **state)
{
    hp_conv_plain c = {{3, 40, 24}, 16, 16, 3, true};
    size_t bytes = voxels(&c) * c.cout * sizeof(float);
    int before = omp_get_max_threads();
    world w;
    float *first;

    (void)state;
    skip_without(&c);
    w = set_up(c, 3);
    first = malloc(bytes);
    assert_non_null(first);
    omp_set_num_threads(1);
    hp_conv_rows_run(&c, w.in, w.packed, w.bias, NULL, w.work, w.out);
    memcpy(first, w.out, bytes);
    omp_set_num_threads(3);
    hp_conv_rows_run(&c, w.in, w.packed, w.bias, NULL, w.work, w.out);
    omp_set_num_threads(before);
    assert_memory_equal(first, w.out, bytes);
    free(first);
    tear_down(&w);
}

static void test_conv_rows__lets_through_and_tells_of_what_is_not_finite(void **state)
{
    hp_conv_plain c = {{1, 3, 8}, 8, 8, 1, true};
    bool seen = false;
    world w;

    (void)state;
    skip_without(&c);
    w = set_up(c, omp_get_max_threads());
    w.in[13 * c.cin] = NAN;
    assert_false(hp_conv_rows_run(&c, w.in, w.packed, w.bias, NULL, w.work, w.out));
    for (size_t i = 0; i < voxels(&c) * c.cout; i++)
        seen |= isnan(w.out[i]);
    assert_true(seen);
    tear_down(&w);
}

static void test_conv_rows__leaves_other_shapes_alone(void **state)
{
    static const hp_conv_plain CASES[] = {{{1, 4, 6}, 8, 8, 1, false},
                                          {{1, 4, 8}, 8, 8, 5, false},
                                          {{1, 4, 8}, 7, 8, 1, false},
                                          {{1, 4, 8}, 8, 16, 1, false}};

    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++)
        assert_false(hp_conv_rows_serves(&CASES[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv_rows__is_the_plain_sum),
        cmocka_unit_test(test_conv_rows__does_not_depend_on_the_threads),
        cmocka_unit_test(test_conv_rows__lets_through_and_tells_of_what_is_not_finite),
        cmocka_unit_test(test_conv_rows__leaves_other_shapes_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
