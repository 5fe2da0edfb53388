/* kernels/resize, warp and window against their definition in closed form. */
#include "tests/inference/world.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/resize.h"
#include "kernels/warp.h"
#include "kernels/window.h"

/* A volume that is linear in the voxel centres: linear interpolation and area
 * averaging must both give the plane back, away from the ends. */
static hp_volume *ramp(const hp_geom *g)
{
    hp_error err = HP_ERROR_INIT;
    hp_volume *v = NULL;
    size_t i = 0;

    assert_ok(hp_volume_new(g, &v, &err), &err);
    for (int z = 0; z < g->n[0]; z++)
        for (int y = 0; y < g->n[1]; y++)
            for (int x = 0; x < g->n[2]; x++)
                v->hu[i++] = (int16_t)(100 * z + 10 * y + 4 * x);
    return v;
}

static hp_geom grid(int nz, int ny, int nx)
{
    return hp_geom_axial(nz, ny, nx, 5, 0.7, 0.7, (double[3]){-100, -80, -300});
}

static void resize(const hp_volume *v, const double lo[3], const double hi[3],
                   const int n[3], int16_t *ret)
{
    hp_error err = HP_ERROR_INIT;

    assert_ok(hp_resize_hu_ref(v->hu, v->geom.n, lo, hi, n, -1024, ret, &err), &err);
}

static void test_resize__the_same_grid_gives_the_same_voxels(void **state)
{
    hp_geom g = grid(5, 9, 7);
    hp_auto(hp_volume) *v = ramp(&g);
    int16_t out[5 * 9 * 7];

    (void)state;
    resize(v, (double[3]){0, 0, 0}, (double[3]){5, 9, 7}, g.n, out);
    assert_memory_equal(out, v->hu, sizeof out);
}

static void test_resize__a_half_pixel_centre_is_linear(void **state)
{
    static const int16_t SRC[4] = {0, 100, 200, 400};
    int16_t out[8];
    hp_error err = HP_ERROR_INIT;

    (void)state;
    assert_ok(hp_resize_hu_ref(SRC, (int[3]){1, 1, 4}, (double[3]){0, 0, 0},
                               (double[3]){1, 1, 4}, (int[3]){1, 1, 8}, -1024, out, &err),
              &err);
    /* centres .25 .75 1.25 ...: at the edge the inner part alone counts */
    assert_int_equal(out[0], 0);
    assert_int_equal(out[1], 25);
    assert_int_equal(out[2], 75);
    assert_int_equal(out[3], 125);
    assert_int_equal(out[5], 250);
    assert_int_equal(out[6], 350);
    assert_int_equal(out[7], 400);
}

static void test_resize__shrinking_averages_the_area(void **state)
{
    static const int16_t SRC[6] = {0, 30, 60, 90, 120, 600};
    int16_t out[2], odd[4];
    hp_error err = HP_ERROR_INIT;

    (void)state;
    assert_ok(hp_resize_hu_ref(SRC, (int[3]){1, 1, 6}, (double[3]){0, 0, 0},
                               (double[3]){1, 1, 6}, (int[3]){1, 1, 2}, -1024, out, &err),
              &err);
    assert_int_equal(out[0], 30);
    assert_int_equal(out[1], 270);
    /* 1.5 voxels each: the second covers half of voxel 1 and all of voxel 2 */
    assert_ok(hp_resize_hu_ref(SRC, (int[3]){1, 1, 6}, (double[3]){0, 0, 0},
                               (double[3]){1, 1, 6}, (int[3]){1, 1, 4}, -1024, odd, &err),
              &err);
    assert_int_equal(odd[0], 10);
    assert_int_equal(odd[1], 50);
    assert_int_equal(odd[2], 100);
    assert_int_equal(odd[3], 440);
}

static void test_resize__outside_is_padding(void **state)
{
    hp_geom g = grid(3, 4, 5);
    hp_auto(hp_volume) *v = ramp(&g);
    int16_t out[7 * 8 * 9];

    (void)state;
    resize(v, (double[3]){-2, -2, -2}, (double[3]){5, 6, 7}, (int[3]){7, 8, 9}, out);
    for (int z = 0, i = 0; z < 7; z++)
        for (int y = 0; y < 8; y++)
            for (int x = 0; x < 9; x++, i++) {
                bool in = z >= 2 && z < 5 && y >= 2 && y < 6 && x >= 2 && x < 7;
                int want = in ? 100 * (z - 2) + 10 * (y - 2) + 4 * (x - 2) : -1024;

                assert_int_equal(out[i], want);
            }
}

static void test_resize__odd_sizes_keep_a_ramp(void **state)
{
    hp_geom g = grid(11, 23, 31);
    hp_auto(hp_volume) *v = ramp(&g);
    static const int SIZES[][3] = {{7, 13, 17}, {13, 29, 37}, {11, 5, 62}, {1, 1, 1}};

    (void)state;
    for (size_t k = 0; k < sizeof SIZES / sizeof SIZES[0]; k++) {
        const int *n = SIZES[k];
        double scale[3] = {11.0 / n[0], 23.0 / n[1], 31.0 / n[2]};
        int16_t *out = malloc((size_t)n[0] * n[1] * n[2] * sizeof *out);

        resize(v, (double[3]){0, 0, 0}, (double[3]){11, 23, 31}, n, out);
        for (int z = 0, i = 0; z < n[0]; z++)
            for (int y = 0; y < n[1]; y++)
                for (int x = 0; x < n[2]; x++, i++) {
                    double c[3] = {(z + .5) * scale[0], (y + .5) * scale[1],
                                   (x + .5) * scale[2]};
                    bool inner = true;

                    for (int a = 0; a < 3; a++) {
                        double half = fmax(scale[a], 1) / 2;

                        inner =
                            inner && c[a] - half >= -1e-9 && c[a] + half <= g.n[a] + 1e-9;
                    }
                    /* a window of constant voxels is not quite a ramp: within half a step
                     */
                    if (inner)
                        assert_true(fabs(out[i] - (100 * (c[0] - .5) + 10 * (c[1] - .5) +
                                                   4 * (c[2] - .5))) < 60);
                    if (inner && scale[0] <= 1 && scale[1] <= 1 && scale[2] <= 1)
                        assert_true(fabs(out[i] - (100 * (c[0] - .5) + 10 * (c[1] - .5) +
                                                   4 * (c[2] - .5))) <= 0.51);
                }
        free(out);
    }
}

static void test_resize__threads_change_nothing(void **state)
{
    hp_geom g = grid(9, 40, 33);
    hp_auto(hp_volume) *v = ramp(&g);
    size_t n = 13 * 31 * 57;
    int16_t *one = malloc(n * sizeof *one), *three = malloc(n * sizeof *three);

    (void)state;
    for (size_t i = 0; i < hp_geom_voxels(&g); i++)
        v->hu[i] = (int16_t)(i * 7919 % 4001 - 1000);
    omp_set_num_threads(1);
    resize(v, (double[3]){-1, .3, 2.2}, (double[3]){9.5, 39, 30}, (int[3]){13, 31, 57},
           one);
    omp_set_num_threads(3);
    resize(v, (double[3]){-1, .3, 2.2}, (double[3]){9.5, 39, 30}, (int[3]){13, 31, 57},
           three);
    assert_memory_equal(one, three, n * sizeof *one);
    free(one);
    free(three);
}

static void test_resize__floats_follow_the_same_rule(void **state)
{
    hp_geom g = grid(4, 6, 5);
    hp_auto(hp_volume) *v = ramp(&g);
    float src[120], out[6 * 9 * 7];
    int16_t hu[6 * 9 * 7];
    hp_error err = HP_ERROR_INIT;
    const double lo[3] = {-.5, 0, 1}, hi[3] = {4, 6, 5};

    (void)state;
    for (int i = 0; i < 120; i++)
        src[i] = v->hu[i];
    assert_ok(hp_resize_f32_ref(src, g.n, lo, hi, (int[3]){6, 9, 7}, -1024, out, &err),
              &err);
    resize(v, lo, hi, (int[3]){6, 9, 7}, hu);
    for (int i = 0; i < 6 * 9 * 7; i++)
        assert_int_equal(lrintf(out[i]), hu[i]);
}

static void test_warp__a_shifted_grid_takes_the_shifted_voxels(void **state)
{
    hp_geom g = grid(6, 12, 10), shifted;
    hp_auto(hp_volume) *v = ramp(&g);
    int16_t out[4 * 5 * 6];
    hp_error err = HP_ERROR_INIT;

    (void)state;
    shifted = hp_geom_crop(&g, (int[3]){1, 3, -1}, (int[3]){4, 5, 6});
    assert_ok(hp_warp_hu_ref(v, &shifted, -1024, out, &err), &err);
    for (int z = 0, i = 0; z < 4; z++)
        for (int y = 0; y < 5; y++)
            for (int x = 0; x < 6; x++, i++)
                assert_int_equal(
                    out[i], x == 0 ? -1024 : 100 * (z + 1) + 10 * (y + 3) + 4 * (x - 1));
}

static void test_warp__a_tilted_source_is_read_through_its_axes(void **state)
{
    hp_geom g = grid(8, 20, 20), tilted = g;
    hp_auto(hp_volume) *v = ramp(&g);
    double a = 4 * M_PI / 180, mm[3], p[3];
    int16_t *out = malloc(hp_geom_voxels(&g) * sizeof *out);
    hp_error err = HP_ERROR_INIT;

    (void)state;
    tilted.axis[HP_Y][1] = cos(a);
    tilted.axis[HP_Y][2] = sin(a);
    tilted.axis[HP_Z][1] = -sin(a);
    tilted.axis[HP_Z][2] = cos(a);
    v->geom = tilted;
    assert_ok(hp_warp_hu_ref(v, &g, -1024, out, &err), &err);
    for (int z = 2; z < 6; z++)
        for (int y = 5; y < 15; y++) {
            double c[3] = {z + .5, y + .5, 10.5};

            hp_geom_to_mm(&g, c, mm);
            hp_geom_to_voxel(&tilted, mm, p);
            assert_true(fabs(out[((size_t)z * 20 + y) * 20 + 10] -
                             (100 * (p[0] - .5) + 10 * (p[1] - .5) + 4 * (p[2] - .5))) <=
                        0.6);
        }
    free(out);
}

static void test_window__clips_scales_and_strides(void **state)
{
    static const int16_t HU[5] = {-2000, -175, 50, 275, 3000};
    hp_window w = {-175, 275, 0.5, 0.25};
    float out[10] = {0};

    (void)state;
    hp_window_ref(HU, 1, 5, &w, out, 2); /* one channel of two */
    assert_float_equal(out[0], -2, 1e-6);
    assert_float_equal(out[2], -2, 1e-6);
    assert_float_equal(out[4], 0, 1e-6);
    assert_float_equal(out[6], 2, 1e-6);
    assert_float_equal(out[8], 2, 1e-6);
    assert_float_equal(out[1], 0, 0);
}

/* More voxels than the threads take at once, and planes side by side. */
static void test_window__planes_become_channels(void **state)
{
    enum { N = 1301, PLANES = 3, CHANNELS = 5 };
    static int16_t hu[PLANES * N];
    static float out[N * CHANNELS], one[N];
    hp_window w = {-175, 275, 0.5, 0.25};

    (void)state;
    for (int i = 0; i < PLANES * N; i++)
        hu[i] = (int16_t)(i * 31 % 900 - 400);
    for (int i = 0; i < N * CHANNELS; i++)
        out[i] = 77;
    hp_window_ref(hu, PLANES, N, &w, out, CHANNELS);
    for (int c = 0; c < CHANNELS; c++) {
        if (c < PLANES)
            hp_window_ref(hu + c * N, 1, N, &w, one, 1);
        for (int i = 0; i < N; i++)
            assert_float_equal(out[i * CHANNELS + c], c < PLANES ? one[i] : 77, 0);
    }
}

/* One voxel by the definition in resize.h, in double. */
static double by_definition(const float *src, const int n[3], const double lo[3],
                            const double hi[3], const int dst_n[3], const int at[3],
                            double pad)
{
    double from[3], to[3], sum = 0, whole = 1;

    for (int a = 0; a < 3; a++) {
        double scale = (hi[a] - lo[a]) / dst_n[a], centre = lo[a] + (at[a] + 0.5) * scale;

        if (centre < 0 || centre >= n[a])
            return pad;
        from[a] = fmax(centre - fmax(scale, 1) / 2, 0);
        to[a] = fmin(centre + fmax(scale, 1) / 2, n[a]);
        whole *= to[a] - from[a];
    }
    for (int z = (int)from[0]; z < to[0]; z++)
        for (int y = (int)from[1]; y < to[1]; y++)
            for (int x = (int)from[2]; x < to[2]; x++) {
                double cover = 1;
                int p[3] = {z, y, x};

                for (int a = 0; a < 3; a++)
                    cover *= fmin(to[a], p[a] + 1) - fmax(from[a], p[a]);
                sum += cover * (double)src[((size_t)z * n[1] + y) * n[2] + x];
            }
    return sum / whole;
}

/* Axes that keep their voxels, that are shifted, shrink or grow, inside and out, of
 * more rows than are made at once. */
static void test_resize__is_what_the_header_says(void **state)
{
    enum { SRC = 7 * 41 * 37, DST = 8 * 70 * 45 };
    static const int N[3] = {7, 41, 37};
    static const struct {
        double lo[3], hi[3];
        int n[3];
    } BOX[] = {
        {{0, 0, 0}, {7, 41, 37}, {7, 41, 37}},
        {{-1, -3, 5}, {4, 67, 45}, {5, 70, 40}},
        {{0, 0.25, 3}, {7, 35.25, 33}, {7, 35, 30}},
        {{1.5, -2, -4.5}, {6.5, 50, 39}, {4, 70, 11}},
        {{2, 9, 0}, {3, 9, 37}, {8, 5, 45}},
        {{-9, 2, 2}, {-1, 30, 30}, {3, 40, 20}},
    };
    static float src[SRC], dst[DST];
    static int16_t hu[SRC], hu_dst[DST];
    hp_error err = HP_ERROR_INIT;

    (void)state;
    for (int i = 0; i < SRC; i++)
        src[i] = hu[i] = (int16_t)(i * 7919 % 2003 - 1000);
    for (size_t b = 0; b < sizeof BOX / sizeof BOX[0]; b++) {
        const int *n = BOX[b].n;

        assert_int_equal(
            hp_resize_f32_ref(src, N, BOX[b].lo, BOX[b].hi, n, -2000, dst, &err), HP_OK);
        assert_int_equal(
            hp_resize_hu_ref(hu, N, BOX[b].lo, BOX[b].hi, n, -2000, hu_dst, &err), HP_OK);
        for (int i = 0; i < n[0] * n[1] * n[2]; i++) {
            const int at[3] = {i / (n[1] * n[2]), i / n[2] % n[1], i % n[2]};
            double want = by_definition(src, N, BOX[b].lo, BOX[b].hi, n, at, -2000);

            assert_true(fabs(dst[i] - want) <= 2e-3);
            assert_int_equal(hu_dst[i], (int)lrintf(dst[i]));
        }
    }
    assert_int_equal(hp_resize_hu_ref(hu, N, (const double[3]){0, 3, 0},
                                      (const double[3]){7, 2, 37}, N, 0, hu_dst, &err),
                     HP_E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resize__the_same_grid_gives_the_same_voxels),
        cmocka_unit_test(test_resize__a_half_pixel_centre_is_linear),
        cmocka_unit_test(test_resize__shrinking_averages_the_area),
        cmocka_unit_test(test_resize__outside_is_padding),
        cmocka_unit_test(test_resize__odd_sizes_keep_a_ramp),
        cmocka_unit_test(test_resize__threads_change_nothing),
        cmocka_unit_test(test_resize__floats_follow_the_same_rule),
        cmocka_unit_test(test_warp__a_shifted_grid_takes_the_shifted_voxels),
        cmocka_unit_test(test_warp__a_tilted_source_is_read_through_its_axes),
        cmocka_unit_test(test_window__clips_scales_and_strides),
        cmocka_unit_test(test_window__planes_become_channels),
        cmocka_unit_test(test_resize__is_what_the_header_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
