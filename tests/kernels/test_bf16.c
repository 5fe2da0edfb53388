/* kernels/bf16: what the CPU stores in 16 bits is the fp32 twins' result, rounded once.
 */
#include "tests/inference/world.h"

#include <math.h>
#include <string.h>

#include "kernels/bf16.h"
#include "kernels/half.h"
#include "kernels/maxpool.h"

enum { MOST = 4096 };

static void random_bf16(uint16_t *narrow, float *wide, int n, unsigned seed)
{
    for (int i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        narrow[i] = hp_bf16_of((float)(seed >> 8) / (float)(1 << 22) - 2);
        wide[i] = hp_bf16_float(narrow[i]);
    }
}

static void assert_rounded(const uint16_t *found, const float *twin, int n)
{
    for (int i = 0; i < n; i++)
        assert_int_equal(found[i], hp_bf16_of(twin[i]));
}

static void test_bf16__rounds_as_the_plain_function(void **state)
{
    static const uint32_t EDGES[] = {0,          0x80000000, 1,          0x3f800000,
                                     0x3f808000, 0x3f818000, 0x3f807fff, 0x3f808001,
                                     0x7f7fffff, 0x7f7f8000, 0x7f800000, 0xff800000,
                                     0x7fc00000, 0xffffffff, 0x00800000};
    enum { N = sizeof EDGES / sizeof EDGES[0] };
    float in[N], back[N];
    uint16_t out[N];

    (void)state;
    for (int i = 0; i < N; i++)
        in[i] = hp_bits_float(EDGES[i]);
    hp_bf16_from_floats(in, N, out);
    assert_rounded(out, in, N);
    hp_bf16_to_floats(out, N, back);
    for (int i = 0; i < N; i++)
        assert_int_equal(hp_float_bits(back[i]) >> 16, out[i]);
}

/* Each weight is off by a rounding at most, and their sum by one, not by many. */
static void test_bf16__a_filter_keeps_its_sum(void **state)
{
    enum { N = 27 * 16 };
    float w[N], out[N];
    double sum = 0, nearest = 0, kept = 0;

    (void)state;
    for (int i = 0; i < N; i++) {
        w[i] = 1 + (float)(i % 41 + 0.3) * 0x1p-7f; /* an ulp is 2^-7 */
        sum += w[i];
        nearest += hp_bf16_float(hp_bf16_of(w[i]));
    }
    hp_bf16_filter(w, N, out);
    for (int i = 0; i < N; i++) {
        assert_true(hp_bf16_float(hp_bf16_of(out[i])) == out[i]);
        assert_true(fabsf(out[i] - w[i]) <= 0x1.01p-7f);
        kept += out[i];
    }
    assert_true(fabs(kept - sum) <= 0x1.1p-8);
    assert_true(fabs(nearest - sum) > 0.5); /* what it is for */
}

static void test_bf16__sees_the_one_bad_number(void **state)
{
    uint16_t v[MOST] = {0};

    (void)state;
    assert_true(hp_bf16_all_finite(v, MOST));
    v[MOST - 1] = 0x7f7f; /* the largest */
    assert_true(hp_bf16_all_finite(v, MOST));
    v[MOST - 1] = 0xff80;
    assert_false(hp_bf16_all_finite(v, MOST));
    v[MOST - 1] = 0x7fff;
    assert_false(hp_bf16_all_finite(v, MOST));
}

static void test_bf16__merge_is_the_twin_rounded(void **state)
{
    hp_merge m = {.batch = 2, .n = {3, 5, 3, 5}, .low = {2, 3, 3}, .stride = {2, 2, 1}};
    enum { N = 2 * 3 * 5 * 3 * 5, LOW = 2 * 2 * 3 * 3 * 5 };
    uint16_t skip[N], low[LOW];
    float skip_f[N], low_f[LOW], twin[N];

    (void)state;
    random_bf16(skip, skip_f, N, 1);
    random_bf16(low, low_f, LOW, 2);
    hp_merge_ref(&m, skip_f, low_f, twin);
    hp_merge_bf16(&m, skip, low, skip); /* onto its own skip */
    assert_rounded(skip, twin, N);
}

static void test_bf16__unfold_is_the_twin_rounded(void **state)
{
    hp_unfold u = {.batch = 1,
                   .n = {3, 4, 5},
                   .skip_c = 3,
                   .up_c = 2,
                   .low = {2, 2, 3},
                   .stride = {2, 2, 2},
                   .relu = true};
    enum { SKIP = 60 * 3, LOW = 12 * 16, OUT = 60 * 5 };
    static const float BIAS[2] = {0.1f, -0.7f};
    uint16_t skip[SKIP], low[LOW], out[OUT];
    float skip_f[SKIP], low_f[LOW], twin[OUT];

    (void)state;
    random_bf16(skip, skip_f, SKIP, 3);
    random_bf16(low, low_f, LOW, 4);
    hp_unfold_ref(&u, skip_f, low_f, BIAS, twin);
    hp_unfold_bf16(&u, skip, low, BIAS, out);
    assert_rounded(out, twin, OUT);
}

static void test_bf16__maxpool_is_the_twin(void **state)
{
    static const int N[3] = {7, 5, 3};
    enum { IN = 2 * 7 * 5 * 3, OUT = 2 * 4 * 3 * 3 };
    uint16_t in[IN], out[OUT];
    float in_f[IN], twin[OUT];

    (void)state;
    random_bf16(in, in_f, IN, 5);
    hp_maxpool_ref(2, N, in_f, twin);
    hp_maxpool_bf16(2, N, in, out);
    assert_rounded(out, twin, OUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bf16__rounds_as_the_plain_function),
        cmocka_unit_test(test_bf16__a_filter_keeps_its_sum),
        cmocka_unit_test(test_bf16__sees_the_one_bad_number),
        cmocka_unit_test(test_bf16__merge_is_the_twin_rounded),
        cmocka_unit_test(test_bf16__unfold_is_the_twin_rounded),
        cmocka_unit_test(test_bf16__maxpool_is_the_twin),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
