/* kernels/conv_image against the sum as one would write it down. */
#include "tests/kernels/numbers.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/conv_image.h"
#include "kernels/half.h"

typedef struct world {
    hp_conv_image c;
    float *in, *weight, *bias, *packed, *work, *out;
} world;

static size_t voxels(const int n[3])
{
    return (size_t)n[0] * n[1] * n[2];
}

static size_t taps(const hp_conv_image *c)
{
    return (size_t)c->depth * c->k * c->k;
}

static world set_up(hp_conv_image c, int threads)
{
    world w = {.c = c};

    w.in = numbers(voxels(c.in) * c.cin, 1);
    w.weight = numbers(taps(&c) * c.cin * c.cout, 2);
    w.bias = numbers(c.cout, 3);
    w.packed = numbers(hp_conv_image_packed(&c), 4);
    w.work = numbers(hp_conv_image_work(&c, threads), 5); /* what was there before */
    w.out = numbers(voxels(c.out) * c.cout + 1, 6);
    hp_conv_image_pack(&c, w.weight, w.packed);
    return w;
}

static void tear_down(world *w)
{
    free(w->in);
    free(w->weight);
    free(w->bias);
    free(w->packed);
    free(w->work);
    free(w->out);
}

/* One output, and the sum of the magnitudes that went into it. */
static double plain(const world *w, const float *bias, int z, int y, int x, int o,
                    double *ret_size)
{
    const hp_conv_image *c = &w->c;
    double sum = bias != NULL ? bias[o] : 0;

    *ret_size = fabs(sum);
    for (int t = 0; t < (int)taps(c); t++) {
        int zz = z + t / c->k / c->k - c->depth / 2,
            yy = y * c->stride + t / c->k % c->k - c->k / 2,
            xx = x * c->stride + t % c->k - c->k / 2;
        size_t at = ((size_t)zz * c->in[1] + yy) * c->in[2] + xx;

        if (zz < 0 || zz >= c->in[0] || yy < 0 || yy >= c->in[1] || xx < 0 ||
            xx >= c->in[2])
            continue;
        for (int i = 0; i < c->cin; i++) {
            double v = (double)w->in[at * c->cin + i] *
                       w->weight[((size_t)o * c->cin + i) * taps(c) + t];

            sum += v;
            *ret_size += fabs(v);
        }
    }
    return c->relu && sum < 0 ? 0 : sum;
}

/* bf16 keeps 8 bits: half of the last one more. */
static void assert_plain(const world *w, const float *bias)
{
    const hp_conv_image *c = &w->c;
    size_t at = 0;

    for (int z = 0; z < c->out[0]; z++)
        for (int y = 0; y < c->out[1]; y++)
            for (int x = 0; x < c->out[2]; x++)
                for (int o = 0; o < c->cout; o++, at++) {
                    double size, want = plain(w, bias, z, y, x, o, &size);
                    double found =
                        c->narrow ? (double)hp_bf16_float(((const uint16_t *)w->out)[at])
                                  : (double)w->out[at];
                    double most = 1e-5 * size + (c->narrow ? fabs(want) / 256 : 0);

                    assert_true(fabs(found - want) <= most);
                }
}

static void skip_without(const hp_conv_image *c)
{
    if (!hp_conv_image_serves(c)) {
        print_message("this CPU has no AVX-512\n");
        skip();
    }
}

static void test_conv_image__is_the_plain_sum(void **state)
{
    static const hp_conv_image CASES[] = {
        {{1, 1, 1}, {1, 1, 1}, 1, 8, 1, 3, 1, false, false},
        {{3, 18, 37}, {3, 18, 37}, 1, 8, 1, 3, 1, true, false},
        {{2, 5, 23}, {2, 5, 23}, 9, 16, 3, 3, 1, false, false},
        {{1, 33, 21}, {1, 33, 21}, 9, 16, 1, 3, 1, true, false},
        {{4, 37, 43}, {4, 19, 22}, 1, 16, 3, 7, 2, true, false},
        {{2, 4, 3}, {2, 2, 2}, 1, 16, 3, 7, 2, false, false},
        {{1, 35, 41}, {1, 18, 21}, 4, 16, 1, 7, 2, true, false},
    };

    (void)state;
    skip_without(&CASES[0]);
    for (size_t i = 0; i < 2 * sizeof CASES / sizeof CASES[0]; i++) {
        hp_conv_image c = CASES[i / 2];
        world w;
        uint16_t guard; /* behind what is written */
        size_t end;

        c.narrow = i % 2 != 0;
        w = set_up(c, omp_get_max_threads());
        end = voxels(c.out) * c.cout * (c.narrow ? 1 : 2);
        guard = ((const uint16_t *)w.out)[end];
        assert_true(hp_conv_image_run(&c, w.in, w.packed, w.bias, w.work, w.out));
        assert_plain(&w, w.bias);
        assert_true(hp_conv_image_run(&c, w.in, w.packed, NULL, w.work, w.out));
        assert_plain(&w, NULL);
        assert_int_equal(((const uint16_t *)w.out)[end], guard);
        tear_down(&w);
    }
}

static void test_conv_image__bf16_is_the_sum_rounded_once(void **state)
{
    hp_conv_image c = {{2, 20, 31}, {2, 10, 16}, 1, 16, 3, 7, 2, true, false};
    size_t n = voxels(c.out) * c.cout;
    world wide, narrow;

    (void)state;
    skip_without(&c);
    wide = set_up(c, omp_get_max_threads());
    c.narrow = true;
    narrow = set_up(c, omp_get_max_threads());
    hp_conv_image_run(&wide.c, wide.in, wide.packed, wide.bias, wide.work, wide.out);
    hp_conv_image_run(&c, narrow.in, narrow.packed, narrow.bias, narrow.work, narrow.out);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(((const uint16_t *)narrow.out)[i], hp_bf16_of(wide.out[i]));
    tear_down(&wide);
    tear_down(&narrow);
}

static void test_conv_image__does_not_depend_on_the_threads(void **state)
{
    hp_conv_image c = {{3, 70, 50}, {3, 35, 25}, 1, 16, 3, 7, 2, true, false};
    size_t bytes = voxels(c.out) * c.cout * sizeof(float);
    int before = omp_get_max_threads();
    world w;
    float *first;

    (void)state;
    skip_without(&c);
    w = set_up(c, 3);
    first = malloc(bytes);
    assert_non_null(first);
    omp_set_num_threads(1);
    hp_conv_image_run(&c, w.in, w.packed, w.bias, w.work, w.out);
    memcpy(first, w.out, bytes);
    omp_set_num_threads(3);
    hp_conv_image_run(&c, w.in, w.packed, w.bias, w.work, w.out);
    omp_set_num_threads(before);
    assert_memory_equal(first, w.out, bytes);
    free(first);
    tear_down(&w);
}

static void test_conv_image__lets_through_and_tells_of_what_is_not_finite(void **state)
{
    hp_conv_image c = {{1, 3, 8}, {1, 3, 8}, 1, 8, 1, 3, 1, true, true};
    bool seen = false;
    world w;

    (void)state;
    skip_without(&c);
    w = set_up(c, omp_get_max_threads());
    w.in[13] = NAN;
    assert_false(hp_conv_image_run(&c, w.in, w.packed, w.bias, w.work, w.out));
    for (size_t i = 0; i < voxels(c.out) * c.cout; i++)
        seen |= isnan(hp_bf16_float(((const uint16_t *)w.out)[i]));
    assert_true(seen);
    tear_down(&w);
}

static void test_conv_image__leaves_other_shapes_alone(void **state)
{
    static const hp_conv_image CASES[] = {
        {{1, 4, 8}, {1, 4, 8}, 1, 12, 1, 3, 1, false, false},
        {{1, 4, 8}, {1, 4, 8}, 2, 8, 1, 3, 1, false, false},
        {{1, 4, 8}, {1, 4, 8}, 1, 8, 5, 3, 1, false, false},
        {{1, 4, 8}, {1, 4, 8}, 1, 8, 1, 5, 1, false, false},
        {{1, 4, 8}, {1, 2, 4}, 1, 8, 1, 3, 2, false, false}};

    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++)
        assert_false(hp_conv_image_serves(&CASES[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv_image__is_the_plain_sum),
        cmocka_unit_test(test_conv_image__bf16_is_the_sum_rounded_once),
        cmocka_unit_test(test_conv_image__does_not_depend_on_the_threads),
        cmocka_unit_test(test_conv_image__lets_through_and_tells_of_what_is_not_finite),
        cmocka_unit_test(test_conv_image__leaves_other_shapes_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
