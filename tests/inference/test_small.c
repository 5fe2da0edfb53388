/* The shipped bundle against PyTorch on one phantom (tests/golden/small.safetensors,
 * training/golden_bundle.py): inputs come from the seed through hepar-prepare's own
 * code, outputs must agree within the bundle's tolerance, or what halves allow where
 * a GPU is asked for (device.h). Skipped where the bundle is not. */
#include "tests/inference/device.h"

#include <math.h>
#include <omp.h>
#include <string.h>
#include <unistd.h>

#include "base/number.h"
#include "base/path.h"
#include "daemon/prepare.h"
#include "inference/model.h"
#include "inference/runner.h"

static hp_safetensors *golden;
static hp_model *model;
static hp_backend *backend;
static char folder[64], bundle_dir[512];
static uint64_t seed;

static hp_safetensors *part(const char *name)
{
    hp_error err = HP_ERROR_INIT;
    hp_safetensors *s = NULL;
    char path[160];

    snprintf(path, sizeof path, "%s/%s/%07llu.safetensors", folder, name,
             (unsigned long long)seed);
    assert_ok(hp_safetensors_load(path, (size_t)1 << 30, &s, &err), &err);
    return s;
}

static const hp_tensor *want(const char *name)
{
    const hp_tensor *t = hp_safetensors_find(golden, name);

    if (t == NULL)
        print_error("%s is not in the golden file\n", name);
    assert_non_null(t);
    return t;
}

/* worst |a - b| against device_tolerance() max|b| + 1e-5. */
static void agree(const char *name, const float *a, const float *b, size_t n)
{
    double worst = 0, largest = 0;

    for (size_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)a[i] - b[i]));
        largest = fmax(largest, fabs(b[i]));
    }
    if (!(worst <= device_tolerance() * largest + 1e-5)) {
        print_error("%s differs by %g (largest value %g)\n", name, worst, largest);
        fail();
    }
}

static void run(const hp_model_stage *s, int fold, const int size[3], const hp_ports *io)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_runner) *r = NULL;

    assert_ok(hp_runner_new(backend, &s->params, s->weights[fold], &r, &err), &err);
    assert_ok(hp_runner_run(r, size, 1, io, NULL, NULL, &err), &err);
}

static float *windowed(const hp_model_stage *s, const int16_t *hu, size_t n)
{
    float *x = malloc(n * sizeof *x);

    assert_non_null(x);
    hp_window_ref(hu, 1, n, &s->window, x, 1);
    return x;
}

static void test_small__liver_logits_agree(void **state)
{
    const hp_model_stage *s = &model->stage[HP_STAGE_LIVER];
    const int *n = s->params.grid;
    size_t size = (size_t)n[0] * n[1] * n[2];
    float *out = malloc(size * sizeof *out);
    hp_safetensors *in = part("liver");

    (void)state;
    for (int p = 0; p < HP_PHASES; p++) {
        const int16_t *hu =
            (const int16_t *)hp_safetensors_find(in, "hu")->data + p * size;
        float *x = windowed(s, hu, size), sub[8 * 16 * 20];
        char name[32];
        int k = 0;

        run(s, 0, n, &(hp_ports){.in = {x}, .out = {out}});
        for (int z = 0; z < n[0]; z += 8)
            for (int y = 0; y < n[1]; y += 8)
                for (int xx = 0; xx < n[2]; xx += 8)
                    sub[k++] = out[((size_t)z * n[1] + y) * n[2] + xx];
        snprintf(name, sizeof name, "liver.%s.logit", hp_phase_name((hp_phase)p));
        assert_int_equal(hp_tensor_count(want(name)), k);
        agree(name, sub, want(name)->data, (size_t)k);
        free(x);
    }
    free(out);
    hp_safetensors_free(in);
}

/* Is this box of the file among ours? Ours are cut at the volume's edge. Halves may
 * change the order of scores that are close. */
static bool among_peaks(const hp_pipeline_detail *d, int phase, const float b[6],
                        float score, const int n[3])
{
    double mm = device_is_cpu() ? 2e-2 : 1, of_score = device_is_cpu() ? 1e-4 : 3e-2;

    for (int i = 0; i < d->peak_count[phase]; i++) {
        const hp_box *box = &d->peak[phase][i].box_mm;
        bool same = fabs(d->peak[phase][i].score - score) <= of_score;

        for (int a = 0; a < 3; a++)
            same = same && fabs(box->lo[a] - fmax(b[a], 0)) <= mm &&
                   fabs(box->hi[a] - fmin(b[3 + a], n[a])) <= mm;
        if (same)
            return true;
    }
    return false;
}

/* Boxes through the pipeline's own decoding, on a grid of 1 mm voxels. */
static void test_small__detector_maps_and_boxes_agree(void **state)
{
    static const int LO[3] = {0, 0, 0};
    hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;
    hp_auto(hp_pipeline) *p = NULL;
    hp_error err = HP_ERROR_INIT;
    const hp_model_stage *s = &model->stage[HP_STAGE_DETECTOR];
    const int *n = s->params.grid;
    size_t size = (size_t)n[0] * n[1] * n[2];
    hp_safetensors *in = part("detect");
    const int16_t *hu[HP_PHASES];
    hp_geom g = hp_geom_axial(n[0], n[1], n[2], 1, 1, 1, (double[3]){0, 0, 0});
    hp_findings *f = malloc(sizeof *f);

    (void)state;
    for (int k = 0; k < HP_PHASES; k++)
        hu[k] = (const int16_t *)hp_safetensors_find(in, "hu")->data + k * size;
    opt.device = device_name();
    opt.threads = 1;
    assert_ok(hp_pipeline_open(bundle_dir, &opt, &p, &err), &err);
    hp_findings_init(f);
    assert_ok(hp_pipeline_detect(p, hu, &g, LO, n, f, &err), &err);
    for (int k = 0; k < HP_PHASES; k++) {
        const hp_pipeline_detail *d = hp_pipeline_get_detail(p);
        char name[40];
        const hp_tensor *scores, *boxes;

        snprintf(name, sizeof name, "detect.%s.scores", hp_phase_name((hp_phase)k));
        scores = want(name);
        snprintf(name, sizeof name, "detect.%s.boxes", hp_phase_name((hp_phase)k));
        boxes = want(name);
        assert_true(d->peak_count[k] >= scores->dim[0]);
        for (int i = 0; i < scores->dim[0]; i++)
            if (!among_peaks(d, k, (const float *)boxes->data + 6 * i,
                             ((const float *)scores->data)[i], n))
                fail_msg("%s: box %d is not there", name, i);
    }
    free(f);
    hp_safetensors_free(in);
}

static void test_small__key_slice_logits_agree(void **state)
{
    const hp_model_stage *s = &model->stage[HP_STAGE_KEYSLICE];
    hp_safetensors *in = part("seg");
    const hp_tensor *hu = hp_safetensors_find(in, "hu");
    int m = hu->dim[0], c = hu->dim[1], h = hu->dim[2], w = hu->dim[3], k = 0;
    size_t plane = (size_t)h * w;
    float *x = malloc(plane * (size_t)c * sizeof *x), *out = malloc(plane * sizeof *out);
    float *sub =
        malloc((size_t)m * ((size_t)h / 16 + 1) * ((size_t)w / 16 + 1) * sizeof *sub);

    (void)state;
    for (int i = 0; i < m; i++) {
        hp_window_ref((const int16_t *)hu->data + (size_t)i * c * plane, c, plane,
                      &s->window, x, c);
        run(s, 0, (int[3]){1, h, w}, &(hp_ports){.in = {x}, .out = {out}});
        for (int y = 0; y < h; y += 16)
            for (int xx = 0; xx < w; xx += 16)
                sub[k++] = out[(size_t)y * w + xx];
    }
    assert_int_equal(hp_tensor_count(want("seg.logit")), k);
    agree("seg.logit", sub, want("seg.logit")->data, (size_t)k);
    free(x);
    free(out);
    free(sub);
    hp_safetensors_free(in);
}

static void test_small__texture_logits_agree(void **state)
{
    const hp_tensor *mask = want("rows.mask"), *box = want("rows.boxes");
    hp_safetensors *in = part("slices");
    const hp_tensor *hu = hp_safetensors_find(in, "hu"),
                    *rect = hp_safetensors_find(in, "rect");
    int m = hu->dim[0], side = hu->dim[2], crop = mask->dim[2] * 8;
    size_t cells = (size_t)mask->dim[2] * mask->dim[3], pixels = (size_t)crop * crop;
    float *x = malloc(pixels * 4 * sizeof *x);

    (void)state;
    assert_int_equal(mask->dim[0], m);
    for (int stage = HP_STAGE_KSF; stage <= HP_STAGE_CLASSIFY; stage++) {
        const hp_model_stage *s = &model->stage[stage];

        for (int fold = 0; fold < s->weights_count; fold++) {
            int classes = s->params.sadt.classes;
            float *out = malloc((size_t)m * (size_t)classes * sizeof *out);
            char name[24];

            for (int i = 0; i < m; i++) {
                const float *r = (const float *)rect->data + 4 * i;
                const float *b = (const float *)box->data + 4 * i;
                int at[2];

                for (int a = 0; a < 2; a++) {
                    at[a] = (int)lround((r[a] + r[2 + a]) / 2 - crop / 2.0);
                    assert_float_equal(r[a] - at[a], b[a], 1e-3);
                }
                for (int p = 0; p < 4; p++)
                    for (int y = 0; y < crop; y++)
                        hp_window_ref(
                            (const int16_t *)hu->data +
                                ((size_t)(4 * i + p) * side + y + at[0]) * side + at[1],
                            1, (size_t)crop, &s->window, x + (size_t)y * crop * 4 + p, 4);
                run(s, fold, (int[3]){1, crop, crop},
                    &(hp_ports){.in = {x, (const float *)mask->data + i * cells},
                                .out = {out + (size_t)i * classes}});
            }
            if (stage == HP_STAGE_KSF)
                snprintf(name, sizeof name, "ksf.logit");
            else
                snprintf(name, sizeof name, "cls%d.logit", fold);
            agree(name, out, want(name)->data, (size_t)m * (size_t)classes);
            free(out);
        }
    }
    free(x);
    hp_safetensors_free(in);
}

/* The phantom must draw the bytes that PyTorch saw. */
static void check_inputs(void)
{
    static const char *const PARTS[] = {"liver", "detect", "seg", "slices"};
    const char *made_from = hp_safetensors_metadata(golden, "inputs");
    hp_sha256 sum;
    uint8_t digest[32];
    char hex[HP_SHA256_HEX];

    hp_sha256_init(&sum);
    for (int i = 0; i < 4; i++) {
        hp_safetensors *s = part(PARTS[i]);
        const hp_tensor *hu = hp_safetensors_find(s, "hu");

        hp_sha256_add(&sum, hu->data, hp_tensor_count(hu) * sizeof(int16_t));
        hp_safetensors_free(s);
    }
    hp_sha256_end(&sum, digest);
    hp_sha256_hex(digest, hex);
    if (made_from == NULL || strcmp(made_from, hex) != 0) {
        print_error(
            "the phantom or hepar-prepare draws other bytes than "
            "tests/golden/small.safetensors was made from: ./dev train --golden\n");
        fail();
    }
}

static int setup(void **state)
{
    hp_prepare o = {.motion_mm = 2,
                    .overlap = 1,
                    .threads = 1,
                    .what =
                        HP_WHAT_LIVER | HP_WHAT_DETECT | HP_WHAT_SLICES | HP_WHAT_SEG};
    hp_error err = HP_ERROR_INIT;
    int64_t n = 0;

    (void)state;
    snprintf(folder, sizeof folder, "/tmp/hepar-small.XXXXXX");
    if (mkdtemp(folder) == NULL)
        return -1;
    assert_true(hp_parse_i64(hp_safetensors_metadata(golden, "seed"), &n));
    seed = (uint64_t)n;
    o.out = folder;
    assert_ok(hp_prepare_tensors(&o, seed, &err), &err);
    check_inputs();
    assert_ok(hp_model_load(bundle_dir, false, &model, &err), &err);
    assert_string_equal(model->sha256, hp_safetensors_metadata(golden, "bundle"));
    backend = device_open(1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    hp_backend_close(backend);
    hp_model_free(model);
    return hp_path_remove(folder, NULL) == HP_OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small__liver_logits_agree),
        cmocka_unit_test(test_small__detector_maps_and_boxes_agree),
        cmocka_unit_test(test_small__key_slice_logits_agree),
        cmocka_unit_test(test_small__texture_logits_agree),
    };
    hp_error err = HP_ERROR_INIT;
    char path[512];
    int rc;

    snprintf(bundle_dir, sizeof bundle_dir, "%.400s/models/small", world_root());
    snprintf(path, sizeof path, "%.400s/tests/golden/small.safetensors", world_root());
    if (!hp_path_exists(path) || !hp_path_exists(bundle_dir)) {
        print_message("skipped: no models/small or no tests/golden/small.safetensors\n");
        return 77;
    }
    if (!device_is_here())
        return 77;
    if (hp_safetensors_load(path, 64 << 20, &golden, &err) != HP_OK) {
        print_error("%s\n", err.msg);
        return 1;
    }
    omp_set_num_threads(1);
    rc = cmocka_run_group_tests(tests, setup, teardown);
    hp_safetensors_free(golden);
    return rc;
}
