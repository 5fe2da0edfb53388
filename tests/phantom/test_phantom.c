/* The phantom keeps its promises: bytes, boxes, HU, noise, displacement. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/path.h"
#include "base/sha256.h"
#include "tests/phantom/num.h"
#include "tests/phantom/study.h"

static hp_phantom *made(uint64_t seed, int cls, double motion)
{
    hp_phantom_options o = HP_PHANTOM_OPTIONS_INIT;
    hp_phantom *p = NULL;
    hp_error e = HP_ERROR_INIT;
    o.seed = seed;
    o.cls = cls;
    o.motion_mm = motion;
    assert_int_equal(hp_phantom_new(&o, &p, &e), HP_OK);
    return p;
}

/* n voxels of `mm` around a point. */
static hp_geom around(const double at[3], int nz, int ny, int nx, double sz, double sy,
                      double sx)
{
    double o[3] = {at[0] - (nx - 1) * sx / 2, at[1] - (ny - 1) * sy / 2,
                   at[2] - (nz - 1) * sz / 2};
    return hp_geom_axial(nz, ny, nx, sz, sy, sx, o);
}

static void liver_middle(const hp_phantom_truth *t, double ret[3])
{
    for (int c = 0; c < 3; c++)
        ret[c] = (t->liver_lo_mm[c] + t->liver_hi_mm[c]) / 2;
}

static void test_phantom__same_seed_same_bytes(void **state)
{
    (void)state;
    static const char *const pinned =
        "57c5939a92b733ebf248123b58a6170eb50d900d1605b8eede23c087334ce387";
    hp_auto(hp_phantom) *p = made(1, -1, 2);
    double at[3];
    liver_middle(hp_phantom_get_truth(p), at);
    hp_geom g = around(at, 12, 32, 40, 5, 8, 8);
    enum { N = 12 * 32 * 40 };
    static int16_t hu[N];
    uint8_t d[32];
    char hex[HP_SHA256_HEX];
    hp_sha256 h;
    hp_sha256_init(&h);
    for (int ph = 0; ph < HP_PHASES; ph++) {
        assert_int_equal(hp_phantom_render(p, ph, &g, hu, NULL), HP_OK);
        hp_sha256_add(&h, hu, sizeof(hu));
    }
    hp_sha256_end(&h, d);
    hp_sha256_hex(d, hex);
    assert_string_equal(hex, pinned);
}

static void test_phantom__crop_of_native_grid_is_the_native_image(void **state)
{
    (void)state;
    hp_auto(hp_phantom) *p = made(2, -1, 2);
    hp_geom nat = hp_phantom_grid(p, HP_PHASE_A);
    const int z = nat.n[HP_Z] / 2, lo1[3] = {z, 180, 100}, n1[3] = {2, 60, 90},
              lo2[3] = {z + 1, 190, 120}, n2[3] = {1, 30, 40};
    hp_geom a = hp_geom_crop(&nat, lo1, n1), b = hp_geom_crop(&nat, lo2, n2);
    static int16_t big[2 * 60 * 90], small[30 * 40];
    assert_int_equal(hp_phantom_render(p, HP_PHASE_A, &a, big, NULL), HP_OK);
    assert_int_equal(hp_phantom_render(p, HP_PHASE_A, &b, small, NULL), HP_OK);
    int worst = 0;
    for (int y = 0; y < 30; y++)
        for (int x = 0; x < 40; x++) {
            int d = abs(small[y * 40 + x] - big[60 * 90 + (y + 10) * 90 + x + 20]);
            worst = d > worst ? d : worst;
        }
    assert_true(worst <= 1); /* coordinates are rounded from another origin */
}

static void test_phantom__boxes_hold_their_labels(void **state)
{
    (void)state;
    for (uint64_t seed = 3; seed < 7; seed++) {
        hp_auto(hp_phantom) *p = made(seed, -1, 2);
        const hp_phantom_truth *t = hp_phantom_get_truth(p);
        assert_true(t->lesion[t->largest_primary].primary);
        for (int k = 0; k < t->n_lesions; k++) {
            const hp_phantom_lesion *l = &t->lesion[k];
            double at[3], step = l->diameter_mm / 20,
                          slack = step + num_clamp(l->diameter_mm / 40, .5, 2);
            int n[3];
            for (int c = 0; c < 3; c++) {
                at[c] = (l->lo_mm[c] + l->hi_mm[c]) / 2;
                n[c] = (int)((l->hi_mm[c] - l->lo_mm[c] + 12) / step) + 1;
            }
            hp_geom g = around(at, n[2], n[1], n[0], step, step, step);
            uint8_t *m = malloc(hp_geom_voxels(&g));
            assert_non_null(m);
            assert_int_equal(hp_phantom_labels(p, HP_PHASE_V, &g, m, NULL), HP_OK);
            double lo[3] = {1e9, 1e9, 1e9}, hi[3] = {-1e9, -1e9, -1e9};
            size_t i = 0;
            for (int z = 0; z < n[2]; z++)
                for (int y = 0; y < n[1]; y++)
                    for (int x = 0; x < n[0]; x++, i++) {
                        if (m[i] != 2 + k)
                            continue;
                        double q[3] = {g.origin_mm[0] + x * step,
                                       g.origin_mm[1] + y * step,
                                       g.origin_mm[2] + z * step};
                        for (int c = 0; c < 3; c++) {
                            lo[c] = q[c] < lo[c] ? q[c] : lo[c];
                            hi[c] = q[c] > hi[c] ? q[c] : hi[c];
                        }
                    }
            free(m);
            for (int c = 0; c < 3; c++) {
                assert_true(fabs(lo[c] - l->lo_mm[c]) < slack);
                assert_true(fabs(hi[c] - l->hi_mm[c]) < slack);
            }
        }
    }
}

static int by_value(const void *a, const void *b)
{
    return *(const int16_t *)a - *(const int16_t *)b;
}

static void test_phantom__liver_has_the_drawn_hu(void **state)
{
    (void)state;
    hp_auto(hp_phantom) *p = made(5, -1, 2);
    const hp_phantom_truth *t = hp_phantom_get_truth(p);
    double at[3];
    liver_middle(t, at);
    hp_geom g = around(at, 30, 50, 60, 5, 5, 5);
    enum { N = 30 * 50 * 60 };
    static int16_t hu[N], in[N];
    static uint8_t m[N];
    for (int ph = 0; ph < HP_PHASES; ph++) {
        assert_int_equal(hp_phantom_render(p, ph, &g, hu, NULL), HP_OK);
        assert_int_equal(hp_phantom_labels(p, ph, &g, m, NULL), HP_OK);
        size_t n = 0;
        for (size_t i = 0; i < N; i++)
            if (m[i] == 1)
                in[n++] = hu[i];
        assert_true(n > 2000);
        qsort(in, n, sizeof(in[0]), by_value);
        assert_true(fabs(in[n / 2] - t->liver_hu[ph]) < 7);
    }
}

static double noise_sd(const hp_phantom *p, int ph, const hp_geom *g)
{
    size_t n = hp_geom_voxels(g);
    int16_t *a = malloc(n * sizeof(*a));
    float *c = malloc(n * sizeof(*c));
    assert_true(a && c);
    assert_int_equal(hp_phantom_render(p, ph, g, a, NULL), HP_OK);
    assert_int_equal(hp_phantom_render_clean(p, ph, g, c, NULL), HP_OK);
    double s = 0, q = 0;
    for (size_t i = 0; i < n; i++) {
        double d = a[i] - c[i];
        s += d;
        q += d * d;
    }
    free(a);
    free(c);
    s /= (double)n;
    return sqrt(q / (double)n - s * s);
}

static void test_phantom__noise_has_the_drawn_sd_and_averages_out(void **state)
{
    (void)state;
    hp_auto(hp_phantom) *p = made(6, -1, 2);
    const hp_phantom_truth *t = hp_phantom_get_truth(p);
    hp_geom nat = hp_phantom_grid(p, HP_PHASE_V);
    const int lo[3] = {nat.n[0] / 2, 226, 226}, n[3] = {3, 60, 60};
    hp_geom fine = hp_geom_crop(&nat, lo, n);
    const int c[3] = {3, 15, 15};
    hp_geom coarse = hp_geom_resample(&fine, c);
    double sd = noise_sd(p, HP_PHASE_V, &fine);
    assert_true(sd > .85 * t->noise_hu[HP_PHASE_V] &&
                sd < 1.08 * t->noise_hu[HP_PHASE_V]);

    /* The coarse grid's noise against the fine one's, averaged by hand. */
    static int16_t a[3 * 60 * 60];
    static float cl[3 * 60 * 60];
    assert_int_equal(hp_phantom_render(p, HP_PHASE_V, &fine, a, NULL), HP_OK);
    assert_int_equal(hp_phantom_render_clean(p, HP_PHASE_V, &fine, cl, NULL), HP_OK);
    double q = 0;
    int m = 0;
    for (int z = 0; z < 3; z++)
        for (int y = 0; y + 4 <= 60; y += 4)
            for (int x = 0; x + 4 <= 60; x += 4, m++) {
                double s = 0;
                for (int k = 0; k < 16; k++) {
                    int i = (z * 60 + y + k / 4) * 60 + x + k % 4;
                    s += a[i] - cl[i];
                }
                q += s * s / 256;
            }
    double byhand = sqrt(q / m), rendered = noise_sd(p, HP_PHASE_V, &coarse);
    assert_true(rendered > .75 * byhand && rendered < 1.3 * byhand);
}

static void test_phantom__displacement_takes_v_to_the_phase(void **state)
{
    (void)state;
    hp_auto(hp_phantom) *p = made(8, -1, 15);
    const hp_phantom_truth *t = hp_phantom_get_truth(p);
    double at[3];
    liver_middle(t, at);
    hp_geom g = around(at, 14, 16, 18, 12, 12, 12);
    enum { N = 14 * 16 * 18 };
    static uint8_t m[N];
    static float u[N * 3];
    assert_int_equal(hp_phantom_labels(p, HP_PHASE_V, &g, m, NULL), HP_OK);
    assert_int_equal(hp_phantom_displacement(p, HP_PHASE_A, &g, u, NULL), HP_OK);
    int same = 0, moved = 0;
    for (int i = 0; i < N; i++) {
        int x = i % 18, y = i / 18 % 16, z = i / (18 * 16);
        double q[3] = {g.origin_mm[0] + 12 * x + u[3 * i],
                       g.origin_mm[1] + 12 * y + u[3 * i + 1],
                       g.origin_mm[2] + 12 * z + u[3 * i + 2]};
        hp_geom one = hp_geom_axial(1, 1, 1, 1, 1, 1, q);
        uint8_t l;
        assert_int_equal(hp_phantom_labels(p, HP_PHASE_A, &one, &l, NULL), HP_OK);
        same += l == m[i];
        moved += fabsf(u[3 * i + 2]) > 3;
    }
    assert_true(moved > N / 4);
    assert_true(same >
                N * 97 /
                    100); /* the wall does not move; what slides along it may differ */
}

static void test_phantom__classes_have_their_means(void **state)
{
    (void)state;
    for (int cls = 0; cls < HP_PH_CLASSES; cls++) {
        enum { N = 4000 };
        double want[4] = {0}, got[4] = {0};
        hp_phantom_subtype s;
        for (int kind = 0; hp_phantom_subtype_at(kind, &s); kind++)
            for (int ph = 0; s.cls == cls && ph < HP_PHASES; ph++)
                want[ph] += s.share * s.core_dhu[ph];
        for (int i = 0; i < N; i++) {
            hp_phantom_lesion l;
            hp_phantom_sample((uint64_t)i, cls, 1, &l);
            assert_int_equal(l.cls, cls);
            for (int ph = 0; ph < HP_PHASES; ph++)
                got[ph] += l.core_dhu[ph] / N;
        }
        for (int ph = 0; ph < HP_PHASES; ph++)
            assert_true(fabs(got[ph] - want[ph]) < 1.2); /* 4 standard errors */
    }
}

static void test_phantom__refuses_what_it_cannot_do(void **state)
{
    (void)state;
    hp_phantom_options o = HP_PHANTOM_OPTIONS_INIT;
    hp_phantom *p = NULL;
    hp_error e = HP_ERROR_INIT;
    o.cls = 9;
    assert_int_equal(hp_phantom_new(&o, &p, &e), HP_E_INVALID);
    assert_null(p);
    p = made(9, 0, 0);
    hp_geom g = hp_phantom_grid(p, 0);
    int16_t hu = 0;
    assert_int_equal(hp_phantom_render(p, 4, &g, &hu, &e), HP_E_INVALID);
    g.axis[HP_Y][1] = .9;
    assert_int_equal(hp_phantom_render(p, 0, &g, &hu, &e), HP_E_UNSUPPORTED);
    hp_phantom_free(p);
}

/* One small study of each vendor: bytes do not depend on the threads, and
 * dciodvfy has no error to report about any kind of object in it. */
static void test_study__is_valid_dicom(void **state)
{
    (void)state;
    if (system("command -v dciodvfy >/dev/null 2>&1") != 0)
        skip();
    for (int vendor = 0; vendor < HP_PH_VENDORS; vendor++) {
        char dir[] = "/tmp/hepar-phantom.XXXXXX", cmd[512], one[80], two[80];
        assert_non_null(mkdtemp(dir));
        hp_phantom_options o = HP_PHANTOM_OPTIONS_INIT;
        hp_study_options s = HP_STUDY_OPTIONS_INIT;
        hp_phantom *p = NULL;
        hp_error e = HP_ERROR_INIT;
        o.seed = 7;
        o.slices = 2;
        o.vendor = vendor;
        s.threads = 1;
        s.no_truth = vendor > 0;
        snprintf(one, sizeof(one), "%s/1", dir);
        snprintf(two, sizeof(two), "%s/2", dir);
        assert_int_equal(hp_phantom_new(&o, &p, &e), HP_OK);
        assert_int_equal(hp_study_write(p, &s, one, &e), HP_OK);
        s.threads = 3;
        assert_int_equal(hp_study_write(p, &s, two, &e), HP_OK);
        hp_phantom_free(p);
        snprintf(cmd, sizeof(cmd), "diff -r %s %s", one, two);
        assert_int_equal(system(cmd), 0);
        snprintf(cmd, sizeof(cmd),
                 "for f in %s/dicom/S*/IM0001.dcm; do dciodvfy $f 2>&1 | grep '^Error' "
                 "&& exit 1; done; exit 0",
                 one);
        assert_int_equal(system(cmd), 0);
        assert_int_equal(hp_path_remove(dir, &e), HP_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_phantom__same_seed_same_bytes),
        cmocka_unit_test(test_phantom__crop_of_native_grid_is_the_native_image),
        cmocka_unit_test(test_phantom__boxes_hold_their_labels),
        cmocka_unit_test(test_phantom__liver_has_the_drawn_hu),
        cmocka_unit_test(test_phantom__noise_has_the_drawn_sd_and_averages_out),
        cmocka_unit_test(test_phantom__displacement_takes_v_to_the_phase),
        cmocka_unit_test(test_phantom__classes_have_their_means),
        cmocka_unit_test(test_phantom__refuses_what_it_cannot_do),
        cmocka_unit_test(test_study__is_valid_dicom),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
