/* kernels/encode.cu and mask.cu against their twins. */
#include "tests/kernels/device_world.h"

#include "kernels/encode.h"
#include "kernels/mask.h"

typedef struct texture {
    hp_encode e;
    hp_dtype t;
    float *x, *words, *scale, *delta;
    device_buf dx, dwords, dscale, ddelta;
} texture;

/* `share` of the cells lie under the mask. */
static texture make_texture(hp_encode e, hp_dtype t, float share)
{
    size_t cells = (size_t)e.batch * e.m, kd = (size_t)e.k * e.d;
    texture w = {.e = e, .t = t};
    uint32_t seed = 9;

    w.x = device_floats(cells * e.d);
    w.words = device_floats(kd);
    w.scale = device_floats((size_t)e.k);
    w.delta = device_floats(cells);
    w.dx = device_values(t, cells * e.d, 1, w.x);
    w.dwords = device_values(HP_F32, kd, 2, w.words);
    w.dscale = device_bytes((size_t)e.k * 4);
    w.ddelta = device_bytes(cells * 4);
    for (int j = 0; j < e.k; j++) {
        w.scale[j] = 0.05f + 0.04f * device_random(&seed);
        device_put(&w.dscale, HP_F32, (size_t)j, w.scale[j]);
    }
    for (size_t i = 0; i < cells; i++) {
        w.delta[i] = device_random(&seed) < 2 * share - 1;
        device_put(&w.ddelta, HP_F32, i, w.delta[i]);
    }
    device_up(&w.dscale);
    device_up(&w.ddelta);
    return w;
}

static void texture_done(texture *w)
{
    device_done(&w->dx);
    device_done(&w->dwords);
    device_done(&w->dscale);
    device_done(&w->ddelta);
    free(w->x);
    free(w->words);
    free(w->scale);
    free(w->delta);
}

static void near(const device_buf *got, const float *want, size_t n, double tolerance)
{
    device_down(got);
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)device_get(got, HP_F32, i) - want[i]);

        if (!(d <= tolerance))
            fail_msg("value %zu: %.9g, the twin has %.9g", i,
                     (double)device_get(got, HP_F32, i), (double)want[i]);
    }
}

static const float *words_of(const texture *w)
{
    return (const float *)w->dwords.p;
}

static void compare_steps(const texture *w, const float *a, const float *sum,
                          const float *unit, double largest)
{
    const hp_encode *e = &w->e;
    size_t a_n = (size_t)e->batch * e->m * e->k, kd = (size_t)e->k * e->d;
    device_buf da = device_bytes(a_n * 4), ds = device_bytes(e->batch * kd * 4);
    const float *scale = (const float *)w->dscale.p;
    const float *delta = (const float *)w->ddelta.p;
    hp_error err = HP_ERROR_INIT;

    assert_ok(hp_encode_assign_cuda(e, w->t, w->dx.p, words_of(w), scale, (float *)da.p,
                                    NULL, &err),
              &err);
    near(&da, a, a_n, 1e-5);
    assert_ok(hp_encode_sum_cuda(e, w->t, w->dx.p, (const float *)da.p, delta,
                                 words_of(w), (float *)ds.p, NULL, &err),
              &err);
    near(&ds, sum, e->batch * kd, 1e-5 * (1 + largest));
    assert_ok(hp_l2_norm_cuda((float *)ds.p, e->batch, (int)kd, NULL, &err), &err);
    near(&ds, unit, e->batch * kd, 1e-5);
    device_done(&da);
    device_done(&ds);
}

/* Assign, sum and norm one by one, then all at once; twins for each. Distances are
 * float sums of D squares in another order: 1e-5 of an assignment, and after the
 * norm 1e-5 of the unit vector. */
static void compare(const texture *w, bool steps)
{
    const hp_encode *e = &w->e;
    size_t a_n = (size_t)e->batch * e->m * e->k, kd = (size_t)e->k * e->d;
    float *a = device_floats(a_n), *sum = device_floats((size_t)e->batch * kd);
    float *unit = device_floats((size_t)e->batch * kd);
    double largest = 0;

    for (int b = 0; b < e->batch; b++) {
        size_t cells = (size_t)b * e->m;

        hp_encode_assign_ref(w->x + cells * e->d, w->words, w->scale, e->m, e->d, e->k,
                             a + cells * e->k);
        hp_encode_sum_ref(w->x + cells * e->d, a + cells * e->k, w->delta + cells,
                          w->words, e->m, e->d, e->k, sum + b * kd);
        memcpy(unit + b * kd, sum + b * kd, kd * sizeof *unit);
        hp_l2_norm_ref(unit + b * kd, (int)kd);
    }
    for (size_t i = 0; i < (size_t)e->batch * kd; i++)
        largest = fmax(largest, fabs(sum[i]));
    for (int s = 0; s < DEVICE_SEED_COUNT; s++) {
        device_buf all = device_bytes(e->batch * kd * 4);
        device_buf work = device_bytes(hp_encode_workspace(e));
        const float *scale = (const float *)w->dscale.p;
        const float *delta = (const float *)w->ddelta.p;
        hp_error err = HP_ERROR_INIT;

        hp_host_seed(DEVICE_SEEDS[s]);
        if (steps)
            compare_steps(w, a, sum, unit, largest);
        assert_ok(hp_encode_cuda(e, w->t, w->dx.p, words_of(w), scale, delta,
                                 (float *)all.p, work.p, NULL, &err),
                  &err);
        near(&all, unit, e->batch * kd, 1e-5);
        device_done(&all);
        device_done(&work);
    }
    free(a);
    free(sum);
    free(unit);
}

static void test_cuda_encode__the_fused_shapes_agree(void **state)
{
    static const hp_encode CASES[] = {{1, 49, 64, 16}, {2, 37, 128, 32}, {1, 1, 64, 16}};

    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        for (int t = 0; t < 3; t++) {
            texture w = make_texture(CASES[i], DEVICE_TYPES[t], 0.4f);

            compare(&w, true);
            texture_done(&w);
        }
}

static void test_cuda_encode__many_windows_of_cells_agree(void **state)
{
    hp_encode e = {1, 290, 64, 16};
    texture w = make_texture(e, HP_F16, 0.9f);

    (void)state;
    compare(&w, true);
    texture_done(&w);
    /* a batch so large that an item is one block's: its share passes a window of
     * 256 cells */
    e = (hp_encode){264, 300, 64, 16};
    w = make_texture(e, HP_BF16, 0.015f);
    compare(&w, false);
    texture_done(&w);
}

static void test_cuda_encode__other_shapes_agree(void **state)
{
    static const hp_encode CASES[] = {{2, 9, 7, 3}, {1, 5, 200, 70}, {1, 3, 1, 256}};

    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        for (int t = 0; t < 3; t++) {
            texture w = make_texture(CASES[i], DEVICE_TYPES[t], 0.6f);

            compare(&w, true);
            texture_done(&w);
        }
}

static void test_cuda_encode__an_empty_mask_gives_zero(void **state)
{
    static const hp_encode CASES[] = {
        {1, 20, 64, 16}, {1, 0, 64, 16}, {1, 6, 9, 4}, {2, 0, 9, 4}};

    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        texture w = make_texture(CASES[i], HP_F32, 0);

        compare(&w, true);
        texture_done(&w);
    }
}

static void test_cuda_encode__nothing_is_no_work(void **state)
{
    static const hp_encode CASES[] = {{0, 20, 64, 16}, {0, 6, 9, 4}};
    static const int MASKS[][3] = {{0, 4, 4}, {2, 0, 4}, {2, 4, 0}};
    hp_error err = HP_ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        assert_ok(hp_encode_cuda(&CASES[i], HP_F16, NULL, NULL, NULL, NULL, NULL, NULL,
                                 NULL, &err),
                  &err);
    assert_ok(hp_l2_norm_cuda(NULL, 0, 36, NULL, &err), &err);
    for (size_t i = 0; i < sizeof MASKS / sizeof *MASKS; i++)
        assert_ok(hp_grid_mask_cuda(NULL, MASKS[i][0], MASKS[i][1], MASKS[i][2], 8, NULL,
                                    NULL, &err),
                  &err);
    assert_int_equal(hp_grid_mask_cuda(NULL, 1, 4, 4, 0, NULL, NULL, &err), HP_E_INVALID);
}

static void test_cuda_encode__shapes_beyond_the_limits_are_refused(void **state)
{
    static const hp_encode E = {1, 4, 64, 257};
    hp_error err = HP_ERROR_INIT;

    (void)state;
    assert_int_equal(
        hp_encode_cuda(&E, HP_F16, NULL, NULL, NULL, NULL, NULL, NULL, NULL, &err),
        HP_E_INVALID);
}

/* --- the rectangle on the grid ----------------------------------------- */

static void test_cuda_grid_mask__is_the_twins(void **state)
{
    static const double RECT[][4] = {{8, 8, 16, 20},   {8, 8, 16, 19},
                                     {9, 17, 12, 19},  {-90, 300, -80, 310},
                                     {0, 0, 400, 400}, {3.49, 2.51, 55.5, 100.25},
                                     {12, 12, 12, 12}};
    enum { RECTS = sizeof RECT / sizeof *RECT };
    static const int SIZES[][3] = {{4, 4, 8}, {29, 31, 8}, {1, 1, 32}, {7, 5, 3}};

    (void)state;
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++)
        for (int s = 0; s < DEVICE_SEED_COUNT; s++) {
            int ny = SIZES[i][0], nx = SIZES[i][1], cell = SIZES[i][2];
            size_t cells = (size_t)ny * nx;
            device_buf ret = device_bytes(RECTS * cells * 4);
            device_buf rect = device_of(RECT, sizeof RECT);
            float *want = device_floats(cells);
            hp_error err = HP_ERROR_INIT;

            hp_host_seed(DEVICE_SEEDS[s]);
            assert_ok(hp_grid_mask_cuda((const double *)rect.p, RECTS, ny, nx, cell,
                                        (float *)ret.p, NULL, &err),
                      &err);
            device_down(&ret);
            for (int r = 0; r < RECTS; r++) {
                hp_grid_mask_ref(RECT[r], ny, nx, cell, want);
                assert_memory_equal(ret.data + r * cells * 4, want, cells * 4);
            }
            device_done(&ret);
            device_done(&rect);
            free(want);
        }
}

/* --- sums under masks -------------------------------------------------- */

static void test_cuda_mask_sums__are_the_twins(void **state)
{
    enum { NZ = 5, NY = 17, NX = 23, PARTS = 4 };
    static const int N[3] = {NZ, NY, NX};
    static const hp_mask_part PART[PARTS] = {
        {{0, 0, 0}, {NZ, NY, NX}, 0},                   /* all of it */
        {{4, 16, 22}, {5, 17, 23}, NZ * NY * NX},       /* the last voxel */
        {{1, 2, 3}, {4, 13, 20}, NZ * NY * NX + 1},     /* odd */
        {{2, 5, 5}, {2, 9, 9}, NZ * NY * NX + 1 + 561}, /* empty */
    };
    static int16_t hu[3][NZ * NY * NX];
    static uint8_t masks[NZ * NY * NX + 1 + 561];
    const int16_t *vol[HP_MASK_VOLUMES] = {hu[0], NULL, hu[1], hu[2]};
    const int16_t *on_device[HP_MASK_VOLUMES] = {NULL};
    device_buf volume[HP_MASK_VOLUMES], part = device_of(PART, sizeof PART), dmasks;
    hp_mask_sum want[PARTS * HP_MASK_VOLUMES];
    uint32_t seed = 3;

    (void)state;
    for (int v = 0; v < 3; v++)
        for (int i = 0; i < NZ * NY * NX; i++)
            hu[v][i] = v == 2 ? -32768 : (int16_t)(device_random(&seed) * 3000);
    for (size_t i = 0; i < sizeof masks; i++)
        masks[i] = device_random(&seed) > 0;
    dmasks = device_of(masks, sizeof masks);
    for (int v = 0; v < HP_MASK_VOLUMES; v++) {
        volume[v] = device_of(vol[v], vol[v] != NULL ? sizeof hu[0] : 0);
        on_device[v] = vol[v] != NULL ? (const int16_t *)volume[v].p : NULL;
    }
    hp_mask_sums_ref(vol, N, PART, PARTS, masks, want);
    assert_true(isnan(hp_mask_sum_mean(&want[1]))); /* the phase that is missing */
    assert_float_equal(hp_mask_sum_mean(&want[3]), -32768, 0);
    for (int s = 0; s < DEVICE_SEED_COUNT; s++) {
        device_buf ret = device_bytes(sizeof want);
        hp_error err = HP_ERROR_INIT;

        hp_host_seed(DEVICE_SEEDS[s]);
        assert_ok(hp_mask_sums_cuda(on_device, N, (const hp_mask_part *)part.p, PARTS,
                                    dmasks.p, (hp_mask_sum *)ret.p, NULL, &err),
                  &err);
        device_down(&ret);
        assert_memory_equal(ret.data, want, sizeof want);
        assert_ok(hp_mask_sums_cuda(on_device, N, NULL, 0, NULL, NULL, NULL, &err), &err);
        device_done(&ret);
    }
    for (int v = 0; v < HP_MASK_VOLUMES; v++)
        device_done(&volume[v]);
    device_done(&part);
    device_done(&dmasks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_encode__the_fused_shapes_agree),
        cmocka_unit_test(test_cuda_encode__many_windows_of_cells_agree),
        cmocka_unit_test(test_cuda_encode__other_shapes_agree),
        cmocka_unit_test(test_cuda_encode__an_empty_mask_gives_zero),
        cmocka_unit_test(test_cuda_encode__nothing_is_no_work),
        cmocka_unit_test(test_cuda_encode__shapes_beyond_the_limits_are_refused),
        cmocka_unit_test(test_cuda_grid_mask__is_the_twins),
        cmocka_unit_test(test_cuda_mask_sums__are_the_twins),
    };

    return device_run_tests(tests);
}
