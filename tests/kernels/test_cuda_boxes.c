/* kernels/peaks.cu and nms.cu against their twins. */
#include "tests/kernels/device_world.h"

#include "kernels/nms.h"
#include "kernels/peaks.h"

/* --- decoding ---------------------------------------------------------- */

typedef struct heads {
    size_t cells;
    float *hm, *size, *off;
    device_buf dhm, dsize, doff;
} heads;

static heads make_heads(const hp_decode *d, hp_dtype t)
{
    heads h = {.cells = (size_t)d->batch * d->n[0] * d->n[1] * d->n[2]};

    h.hm = device_floats(h.cells * d->hm_c);
    h.size = device_floats(h.cells * d->size_c);
    h.off = device_floats(h.cells * d->off_c);
    h.dhm = device_values(t, h.cells * d->hm_c, 1, h.hm);
    h.dsize = device_values(t, h.cells * d->size_c, 2, h.size);
    h.doff = device_values(t, h.cells * d->off_c, 3, h.off);
    return h;
}

static void heads_done(heads *h)
{
    device_done(&h->dhm);
    device_done(&h->dsize);
    device_done(&h->doff);
    free(h->hm);
    free(h->size);
    free(h->off);
}

static void set_logit(const hp_decode *d, heads *h, hp_dtype t, size_t cell, float v)
{
    device_put(&h->dhm, t, cell * d->hm_c, v);
    h->hm[cell * d->hm_c] = device_get(&h->dhm, t, cell * d->hm_c);
}

/* All but the sigmoid is the twin's to the bit. */
static void assert_same_peaks(const hp_box_peak *got, const hp_box_peak *want, int n)
{
    for (int i = 0; i < n; i++) {
        assert_int_equal(got[i].index, want[i].index);
        assert_memory_equal(got[i].centre, want[i].centre, sizeof got[i].centre);
        assert_memory_equal(got[i].size, want[i].size, sizeof got[i].size);
        assert_true(fabs((double)got[i].score - want[i].score) <=
                    device_exp_ulps * 0x1p-24 * want[i].score);
    }
}

static void compare(const hp_decode *d, hp_dtype t, const heads *h)
{
    hp_decoded *want = calloc((size_t)d->batch + 1, sizeof *want);
    hp_error err = HP_ERROR_INIT;

    assert_non_null(want);
    assert_ok(hp_decode_ref(d, h->hm, h->size, h->off, want, &err), &err);
    device_up(&h->dhm);
    device_up(&h->doff);
    for (int s = 0; s < DEVICE_SEED_COUNT; s++) {
        device_buf out = device_bytes((size_t)d->batch * sizeof *want);
        device_buf work = device_bytes(hp_decode_workspace(d));
        const hp_decoded *got = (const hp_decoded *)out.data;

        hp_host_seed(DEVICE_SEEDS[s]);
        assert_ok(hp_decode_cuda(d, t, h->dhm.p, h->dsize.p, h->doff.p,
                                 (hp_decoded *)out.p, work.p, NULL, &err),
                  &err);
        device_down(&out);
        for (int b = 0; b < d->batch; b++) {
            assert_int_equal(got[b].count, want[b].count);
            assert_int_equal(got[b].bad, want[b].bad);
            if (!want[b].bad)
                assert_same_peaks(got[b].peak, want[b].peak, want[b].count);
        }
        device_done(&out);
        device_done(&work);
    }
    free(want);
}

static void test_cuda_decode__agrees_on_odd_maps(void **state)
{
    static const hp_decode CASES[] = {
        {2, {5, 9, 37}, 1, 3, 3, 0.01f, 100}, {1, {3, 6, 40}, 8, 8, 8, 0.6f, 7},
        {3, {1, 1, 1}, 1, 3, 3, 0, 100},      {1, {4, 4, 32}, 2, 3, 4, 0.5f, 128},
        {1, {1, 2, 70}, 1, 3, 3, 0.01f, 0},   {1, {11, 23, 33}, 1, 3, 3, 0.3f, 128},
    };

    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        for (int t = 0; t < 3; t++) {
            heads h = make_heads(&CASES[i], DEVICE_TYPES[t]);

            compare(&CASES[i], DEVICE_TYPES[t], &h);
            heads_done(&h);
        }
}

static void test_cuda_decode__an_empty_map_has_no_peaks(void **state)
{
    static const hp_decode D = {2, {0, 4, 4}, 1, 3, 3, 0.01f, 100};
    heads h = make_heads(&D, HP_F32);

    (void)state;
    compare(&D, HP_F32, &h);
    heads_done(&h);
}

static void test_cuda_decode__a_clamped_plateau_gives_one_peak(void **state)
{
    static const hp_decode D = {1, {4, 9, 40}, 1, 3, 3, 0.01f, 100};
    heads h = make_heads(&D, HP_F16);
    hp_decoded *want = calloc(1, sizeof *want);
    hp_error err = HP_ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < h.cells; i++)
        set_logit(&D, &h, HP_F16, i, 20); /* across tiles, too */
    assert_ok(hp_decode_ref(&D, h.hm, h.size, h.off, want, &err), &err);
    assert_int_equal(want->count, 1);
    compare(&D, HP_F16, &h);
    heads_done(&h);
    free(want);
}

static void test_cuda_decode__equal_scores_go_by_index(void **state)
{
    static const hp_decode D = {1, {3, 9, 70}, 1, 3, 3, 0.01f, 20};
    heads h = make_heads(&D, HP_F32);

    (void)state;
    for (size_t i = 0; i < h.cells; i++)
        set_logit(&D, &h, HP_F32, i, i % 2 == 0 && i / 70 % 2 == 0 ? 1.0f : -9.0f);
    compare(&D, HP_F32, &h);
    heads_done(&h);
}

static void test_cuda_decode__what_is_not_finite_is_reported(void **state)
{
    static const float BAD[] = {NAN, INFINITY, -INFINITY};
    static const hp_decode D = {2, {3, 6, 35}, 1, 3, 3, 0.01f, 100};

    (void)state;
    for (int i = 0; i < 3; i++) {
        heads h = make_heads(&D, HP_BF16);

        set_logit(&D, &h, HP_BF16, h.cells - 1, BAD[i]); /* the second item's corner */
        compare(&D, HP_BF16, &h);
        heads_done(&h);
        h = make_heads(&D, HP_F32);
        for (size_t k = 0; k < h.cells * 3; k++) {
            h.off[k] = BAD[i];
            device_put(&h.doff, HP_F32, k, BAD[i]);
        }
        compare(&D, HP_F32, &h);
        heads_done(&h);
    }
}

static void test_cuda_decode__limits_are_refused(void **state)
{
    static const hp_decode MANY = {1, {3, 6, 35}, 1, 3, 3, 0.01f, 129};
    static const hp_decode THIN = {1, {3, 6, 35}, 1, 2, 3, 0.01f, 100};
    hp_error err = HP_ERROR_INIT;

    (void)state;
    assert_int_equal(
        hp_decode_cuda(&MANY, HP_F32, NULL, NULL, NULL, NULL, NULL, NULL, &err),
        HP_E_INVALID);
    assert_int_equal(
        hp_decode_cuda(&THIN, HP_F32, NULL, NULL, NULL, NULL, NULL, NULL, &err),
        HP_E_INVALID);
}

/* --- suppression ------------------------------------------------------- */

/* Boxes in a space tight enough that many overlap; a few scores are equal. */
static void random_boxes(hp_scored_box *b, int count, uint32_t seed)
{
    for (int i = 0; i < count; i++) {
        float s = device_random(&seed);

        b[i] = (hp_scored_box){.score = i % 5 == 0 ? 0.5f : 0.5f + s / 2,
                               .order = (i * 7919 + 13) % 4096,
                               .phases = 1u << i % 4};
        for (int a = 0; a < 3; a++) {
            double c = 60 + 60.0 * device_random(&seed);
            double half = 12 + 9.0 * device_random(&seed);

            b[i].box.lo[a] = c - half;
            b[i].box.hi[a] = c + half;
        }
    }
}

static void compare_nms(const hp_scored_box *boxes, int count, double iou, int keep)
{
    hp_scored_box *want = calloc((size_t)count + 1, sizeof *want);
    int kept;

    assert_non_null(want);
    memcpy(want, boxes, (size_t)count * sizeof *want);
    kept = hp_nms_ref(want, count, iou, keep);
    for (int s = 0; s < DEVICE_SEED_COUNT; s++) {
        device_buf d = device_of(boxes, (size_t)count * sizeof *boxes);
        device_buf got = device_bytes(sizeof(int));
        hp_error err = HP_ERROR_INIT;

        hp_host_seed(DEVICE_SEEDS[s]);
        assert_ok(
            hp_nms_cuda((hp_scored_box *)d.p, count, iou, keep, (int *)got.p, NULL, &err),
            &err);
        device_down(&d);
        device_down(&got);
        assert_int_equal(*(const int *)(const void *)got.data, kept);
        for (int i = 0; i < kept; i++) {
            const hp_scored_box *g = (const hp_scored_box *)d.data + i;

            assert_memory_equal(&g->box, &want[i].box, sizeof g->box);
            assert_int_equal(g->order, want[i].order);
            assert_int_equal(g->phases, want[i].phases);
        }
        device_done(&d);
        device_done(&got);
    }
    free(want);
}

static void test_cuda_nms__keeps_what_the_twin_keeps(void **state)
{
    static const int COUNTS[] = {0, 1, 2, 31, 257, 400};
    static hp_scored_box boxes[HP_NMS_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof COUNTS / sizeof *COUNTS; i++) {
        random_boxes(boxes, COUNTS[i], (uint32_t)i + 1);
        compare_nms(boxes, COUNTS[i], 0.3, 10);
        compare_nms(boxes, COUNTS[i], 0.05, 256);
        compare_nms(boxes, COUNTS[i], 0.9, 3);
        compare_nms(boxes, COUNTS[i], 0.3, 0);
    }
    random_boxes(boxes, HP_NMS_MAX, 77);
    compare_nms(boxes, HP_NMS_MAX, 0.3, 10);
}

static void test_cuda_nms__an_iou_at_the_threshold_falls_as_in_the_twin(void **state)
{
    hp_scored_box b[2] = {{.score = 0.9f, .order = 0, .phases = 1},
                          {.score = 0.5f, .order = 1, .phases = 2}};

    (void)state;
    for (int a = 0; a < 3; a++) {
        b[0].box.hi[a] = 10.1;
        b[1].box.lo[a] = a == 2 ? 10.1 / 3 : 0; /* IoU one half, but for the last bit */
        b[1].box.hi[a] = a == 2 ? 10.1 / 3 + 10.1 : 10.1;
    }
    compare_nms(b, 2, hp_box_iou(&b[0].box, &b[1].box), 2);
    b[1].box.hi[0] = b[1].box.lo[0]; /* no volume */
    compare_nms(b, 2, 0.3, 2);
}

static void test_cuda_nms__too_many_are_refused(void **state)
{
    hp_error err = HP_ERROR_INIT;

    (void)state;
    assert_int_equal(hp_nms_cuda(NULL, 1025, 0.3, 10, NULL, NULL, &err), HP_E_INVALID);
    assert_int_equal(hp_nms_cuda(NULL, 10, 0.3, 257, NULL, NULL, &err), HP_E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_decode__agrees_on_odd_maps),
        cmocka_unit_test(test_cuda_decode__an_empty_map_has_no_peaks),
        cmocka_unit_test(test_cuda_decode__a_clamped_plateau_gives_one_peak),
        cmocka_unit_test(test_cuda_decode__equal_scores_go_by_index),
        cmocka_unit_test(test_cuda_decode__what_is_not_finite_is_reported),
        cmocka_unit_test(test_cuda_decode__limits_are_refused),
        cmocka_unit_test(test_cuda_nms__keeps_what_the_twin_keeps),
        cmocka_unit_test(test_cuda_nms__an_iou_at_the_threshold_falls_as_in_the_twin),
        cmocka_unit_test(test_cuda_nms__too_many_are_refused),
    };

    return device_run_tests(tests);
}
