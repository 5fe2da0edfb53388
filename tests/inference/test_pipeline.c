/* inference/pipeline with tiny seeded networks: the ways a study can end, the
 * missing-phase modes, the vote, and that threads change nothing. */
#include "tests/inference/device.h"
#include "tests/inference/tiny_bundle.h"

#include <math.h>

static int16_t shift; /* HU added to each voxel */

/* Runs it with the phases of `mask`; returns the run's code and fills f. */
static hp_code run_in(hp_pipeline *p, unsigned mask, hp_findings *f, hp_error *err)
{
    hp_volume *native[HP_PHASES] = {NULL}, *registered[HP_PHASES] = {NULL}, *liver = NULL;
    hp_code r;

    for (int i = 0; i < HP_PHASES; i++)
        if (mask >> i & 1) {
            native[i] = tiny_volume(i);
            for (size_t k = 0; k < hp_geom_voxels(&native[i]->geom); k++)
                native[i]->hu[k] += shift;
        }
    hp_findings_init(f);
    r = hp_pipeline_run(p, (const hp_volume *const *)native, f, registered, &liver, err);
    if (r == HP_OK) {
        assert_non_null(liver);
        assert_int_equal(liver->geom.n[0], 30);
        for (int i = 0; i < HP_PHASES; i++)
            assert_int_equal(registered[i] != NULL, mask >> i & 1);
    } else {
        assert_null(liver);
    }
    for (int i = 0; i < HP_PHASES; i++) {
        hp_volume_free(native[i]);
        hp_volume_free(registered[i]);
    }
    hp_volume_free(liver);
    return r;
}

/* The same with the tiny bundle, opened for it. */
static hp_code run(hp_pipeline_options opt, unsigned mask, hp_findings *f, hp_error *err)
{
    hp_auto(hp_pipeline) *p = NULL;

    if (strcmp(opt.device, "auto") == 0)
        opt.device = "cpu";
    if (opt.threads == 0)
        opt.threads = 1; /* tiny layers: threads would wait for each other */
    assert_ok(hp_pipeline_open(tiny_dir, &opt, &p, err), err);
    return run_in(p, mask, f, err);
}

enum { ALL = 15, NO_D = 7, NO_V = 11 };

static void test_pipeline__evaluation_always_gives_a_class(void **state)
{
    hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;
    hp_error err = HP_ERROR_INIT;
    hp_findings f;
    double sum = 0;
    int votes = 0;

    (void)state;
    opt.evaluate = true;
    assert_ok(run(opt, ALL, &f, &err), &err);
    assert_int_equal(f.outcome, HP_OUTCOME_CLASSIFIED);
    assert_true(f.candidate_count >= 1 && f.candidate_count <= 10);
    assert_true(f.primary >= 0 && f.class_index >= 0);
    for (int k = 0; k < 4; k++) {
        sum += f.probabilities[k];
        votes += f.votes[k];
    }
    assert_float_equal(sum, 1, 1e-9);
    assert_int_equal(votes, 3);
    for (int i = 0; i < f.candidate_count; i++) {
        const hp_candidate *c = &f.candidates[i];

        assert_int_equal(c->rank, i + 1);
        assert_true(i == 0 || c->score <= f.candidates[i - 1].score);
        assert_true(c->key_slice >= 0 && c->key_slice < 30);
        assert_true(c->p_primary >= 0 && c->p_primary <= 1);
        for (int a = 0; a < 3; a++)
            assert_true(c->box_mm.lo[a] >= 0 && c->box_mm.hi[a] > c->box_mm.lo[a]);
        assert_true(c->key_fallback ? isnan(c->long_axis_mm) && isnan(c->volume_ml)
                                    : c->long_axis_mm >= c->short_axis_mm);
    }
    assert_string_equal(f.registration[HP_PHASE_V], "reference");
    assert_string_equal(f.registration[HP_PHASE_A], "coordinates");
    assert_string_equal(f.bundle_name, "tiny");
}

static double network_ms(const hp_findings *f, const char *name)
{
    for (int i = 0; i < f->network_count; i++)
        if (strcmp(f->networks[i].name, name) == 0)
            return f->networks[i].ms;
    return -1;
}

/* What an admin is told: the device, and the time of what ran. */
static void test_pipeline__facts_and_network_times(void **state)
{
    hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;
    hp_auto(hp_pipeline) *p = NULL;
    hp_pipeline_facts facts, later;
    hp_error err = HP_ERROR_INIT;
    hp_findings f;
    double sum = 0, total = 0;

    (void)state;
    opt.device = "cpu";
    opt.plan_cache = "/nowhere/plans";
    opt.threads = 1;
    opt.liver_check_off = true;
    assert_ok(hp_pipeline_open(tiny_dir, &opt, &p, &err), &err);
    hp_pipeline_get_facts(p, &facts);
    assert_string_equal(facts.asked, "cpu");
    assert_string_equal(facts.device, "cpu");
    assert_string_equal(facts.why, "asked for");
    assert_string_equal(facts.precision, "fp32");
    assert_string_equal(facts.plan_cache, ""); /* the CPU needs none */
    assert_string_equal(facts.bundle_name, "tiny");
    assert_non_null(strstr(facts.what, "oneDNN"));
    assert_true(facts.open_ms > 0);
    assert_true(facts.compile_ms == 0);

    assert_ok(run_in(p, NO_D, &f, &err), &err);
    hp_pipeline_get_facts(p, &later);
    assert_true(later.open_ms == facts.open_ms);
    assert_true(later.compile_ms > 0);
    assert_true(network_ms(&f, "liver") >= 0 && network_ms(&f, "detector") >= 0 &&
                network_ms(&f, "keyslice") >= 0);
    assert_true(network_ms(&f, "ksf") == -1); /* did not run: a phase is missing */
    for (int i = 0; i < f.network_count; i++)
        sum += f.networks[i].ms;
    for (int i = 0; i < f.timing_count; i++)
        total += f.timings[i].ms;
    assert_true(sum <= total + 10); /* these are rounded, those cut to milliseconds */

    assert_ok(run_in(p, NO_D, &f, &err), &err); /* all sizes are known now */
    hp_pipeline_get_facts(p, &facts);
    assert_true(facts.compile_ms == later.compile_ms);
}

static void test_pipeline__an_implausible_liver_is_unsuitable(void **state)
{
    hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;
    hp_error err = HP_ERROR_INIT;
    hp_findings f;
    hp_code r;

    (void)state;
    r = run(opt, ALL, &f, &err);
    if (r == HP_OK) /* the seeded network happens to draw a plausible liver */
        assert_true(f.liver_ok);
    else {
        assert_int_equal(r, HP_E_UNSUITABLE);
        assert_string_equal(f.reason_code, "liver_not_plausible");
        assert_non_null(strstr(f.reason, "needs review"));
    }
}

static void test_pipeline__no_venous_phase_is_unsuitable(void **state)
{
    hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;
    hp_error err = HP_ERROR_INIT;
    hp_findings f;

    (void)state;
    assert_int_equal(run(opt, NO_V, &f, &err), HP_E_UNSUITABLE);
    assert_string_equal(f.reason_code, "no_venous_phase");
}

static void test_pipeline__a_missing_phase_is_detected_only(void **state)
{
    hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;
    hp_error err = HP_ERROR_INIT;
    hp_findings f;
    int measured = 0;

    (void)state;
    opt.liver_check_off = true;
    assert_ok(run(opt, NO_D, &f, &err), &err);
    assert_int_equal(f.outcome, HP_OUTCOME_DETECTED);
    assert_int_equal(f.primary, -1);
    assert_int_equal(f.class_index, -1);
    assert_float_equal(f.candidates[0].p_primary, -1, 0);
    for (int i = 0; i < f.candidate_count; i++) {
        assert_true(isnan(f.candidates[i].hu_lesion[HP_PHASE_D]));
        /* a box between voxels has none to measure */
        measured += !isnan(f.candidates[i].hu_lesion[HP_PHASE_V]);
    }
    assert_true(measured > 0);
    assert_string_equal(f.registration[HP_PHASE_D], "-");
}

static void test_pipeline__a_low_score_without_class_is_no_lesion(void **state)
{
    hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;
    hp_error err = HP_ERROR_INIT;
    hp_findings f;

    (void)state;
    opt.liver_check_off = true;
    tiny_report_min = "1";
    tiny_yaml("");
    assert_ok(run(opt, NO_D, &f, &err), &err);
    assert_int_equal(f.outcome, HP_OUTCOME_NO_CANDIDATE);
    assert_true(f.candidate_count > 0); /* kept for who looks into result.json */
    assert_float_equal(f.report_min, 1, 0);
    tiny_report_min = "0.01";
    tiny_yaml("");
}

static void test_pipeline__a_missing_phase_is_substituted(void **state)
{
    hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;
    hp_error err = HP_ERROR_INIT;
    hp_findings f;

    (void)state;
    opt.evaluate = true;
    opt.missing_phase = HP_MISSING_SUBSTITUTE;
    assert_ok(run(opt, NO_D, &f, &err), &err);
    assert_int_equal(f.outcome, HP_OUTCOME_CLASSIFIED);
    assert_int_equal(f.substituted[HP_PHASE_D], HP_PHASE_V);
    assert_int_equal(f.substituted[HP_PHASE_A], HP_PHASE_NONE);
    assert_true(
        isnan(f.candidates[0].hu_lesion[HP_PHASE_D])); /* never a borrowed number */
}

static void test_pipeline__a_missing_phase_is_refused(void **state)
{
    hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;
    hp_error err = HP_ERROR_INIT;
    hp_findings f;

    (void)state;
    opt.missing_phase = HP_MISSING_REFUSE;
    assert_int_equal(run(opt, NO_D, &f, &err), HP_E_UNSUITABLE);
    assert_string_equal(f.reason_code, "missing_phase");
    assert_non_null(strstr(f.reason, "delayed"));
}

static void assert_same_findings(const hp_findings *f, const hp_findings *g)
{
    assert_int_equal(f->candidate_count, g->candidate_count);
    assert_memory_equal(f->candidates, g->candidates,
                        (size_t)g->candidate_count * sizeof g->candidates[0]);
    assert_int_equal(f->class_index, g->class_index);
    assert_memory_equal(f->probabilities, g->probabilities, sizeof g->probabilities);
}

static void test_pipeline__threads_change_nothing(void **state)
{
    hp_findings f[2];

    (void)state;
    for (int i = 0; i < 2; i++) {
        hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;
        hp_error err = HP_ERROR_INIT;

        opt.evaluate = true;
        opt.threads = i + 1;
        assert_ok(run(opt, ALL, &f[i], &err), &err);
    }
    assert_same_findings(&f[1], &f[0]);
}

typedef struct seen {
    int tensors, hm, liver, classify;
} seen;

static void on_tensor(const char *name, const float *data, const int *dims, int rank,
                      void *payload)
{
    seen *s = payload;

    assert_true(rank >= 1 && rank <= 4 && dims[0] >= 1);
    assert_true(isfinite(data[0]));
    s->tensors++;
    s->hm += strcmp(name, "detect.V.hm") == 0;
    s->liver += strcmp(name, "liver.V.w0.enc0") == 0;
    s->classify += strcmp(name, "classify.fold2.logit") == 0;
}

static void test_pipeline__every_stage_can_be_seen(void **state)
{
    hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;
    hp_error err = HP_ERROR_INIT;
    hp_findings f;
    seen s = {0};

    (void)state;
    opt.evaluate = true;
    opt.on_tensor = on_tensor;
    opt.payload = &s;
    assert_ok(run(opt, ALL, &f, &err), &err);
    assert_int_equal(s.hm, 1);
    assert_true(s.liver >= 1);
    assert_int_equal(s.classify, 1);
    assert_true(s.tensors > 100);
}

typedef struct kept {
    double liver, hm;
} kept;

static void keep_sums(const char *name, const float *data, const int *dims, int rank,
                      void *payload)
{
    kept *k = payload;
    size_t n = 1;
    double sum = 0;

    for (int i = 0; i < rank; i++)
        n *= (size_t)dims[i];
    for (size_t i = 0; i < n; i++)
        sum += fabs((double)data[i]) * (double)(i % 1009 + 1);
    if (strcmp(name, "liver.V.logit") == 0)
        k->liver = sum;
    if (strcmp(name, "detect.V.hm") == 0)
        k->hm = sum;
}

/* What all else is cropped to is the same in both precisions. */
static void test_pipeline__the_liver_keeps_to_fp32(void **state)
{
    kept k[2] = {{0, 0}, {0, 0}};

    (void)state;
    for (int i = 0; i < 2; i++) {
        hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;
        hp_auto(hp_pipeline) *p = NULL;
        hp_error err = HP_ERROR_INIT;
        hp_findings f;
        hp_code r;

        opt.device = "cpu";
        opt.precision = i == 0 ? "fp32" : "bf16";
        opt.threads = 1;
        opt.evaluate = true;
        opt.on_tensor = keep_sums;
        opt.payload = &k[i];
        r = hp_pipeline_open(tiny_dir, &opt, &p, &err);
        if (r == HP_E_UNSUPPORTED)
            skip(); /* no such instructions */
        assert_ok(r, &err);
        assert_ok(run_in(p, ALL, &f, &err), &err);
    }
    assert_true(k[0].liver > 0 && k[1].liver == k[0].liver);
    assert_true(k[1].hm != k[0].hm); /* the rest does not */
}

/* A device that likes batches sees the phases and the candidates together. */
static void test_pipeline__batches_change_nothing(void **state)
{
    hp_findings f[2];
    seen s[2] = {0};

    (void)state;
    for (int i = 0; i < 2; i++) {
        hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;
        hp_error err = HP_ERROR_INIT;

        opt.evaluate = true;
        opt.on_tensor = on_tensor;
        opt.payload = &s[i];
        if (i == 1) {
            setenv("HEPAR_CUDA_MODULE", getenv("HEPAR_TEST_BATCHING"), 1);
            opt.device = "cuda";
        }
        assert_ok(run(opt, ALL, &f[i], &err), &err);
        unsetenv("HEPAR_CUDA_MODULE");
    }
    assert_true(f[0].candidate_count > 1);
    assert_same_findings(&f[1], &f[0]);
    assert_memory_equal(&s[1], &s[0], sizeof s[0]); /* what only fills is not shown */
}

/* A GPU without an inch of room: the CPU computes all of it, and the findings say so. */
static void test_pipeline__a_full_device_is_told_in_the_findings(void **state)
{
    hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_pipeline) *p = NULL;
    hp_findings f[2];

    (void)state;
    opt.evaluate = true;
    opt.threads = 1;
    assert_ok(run(opt, ALL, &f[0], &err), &err);
    assert_null(strstr(f[0].device, "in part"));
    setenv("HEPAR_CUDA_MODULE", getenv("HEPAR_TEST_FULL"), 1);
    assert_ok(hp_pipeline_open(tiny_dir, &opt, &p, &err), &err); /* auto */
    unsetenv("HEPAR_CUDA_MODULE");
    assert_ok(run_in(p, ALL, &f[1], &err), &err);
    assert_same_findings(&f[1], &f[0]);
    assert_non_null(
        strstr(f[1].device, "cuda: a fake, fp16; batches of 1; in part cpu: oneDNN"));
}

/* A GPU, or what stands in for one, where volumes stay on the device, images are cut
 * there and heads come back as peaks: the same up to what halves round. */
static void test_pipeline__a_gpu_sees_what_the_cpu_sees(void **state)
{
    hp_findings f[2];
    float best[2][HP_PHASES];

    (void)state;
    for (int i = 0; i < 2; i++) {
        hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;
        hp_error err = HP_ERROR_INIT;
        hp_auto(hp_pipeline) *p = NULL;

        opt.evaluate = true;
        opt.threads = 1;
        opt.device = i == 0 ? "cpu" : device_name();
        opt.precision = i == 0 ? "fp32" : device_precision();
        assert_ok(hp_pipeline_open(tiny_dir, &opt, &p, &err), &err);
        shift = 60 * i; /* what was held for another study is not taken for this one */
        assert_ok(run_in(p, ALL, &f[i], &err), &err);
        shift = 0;
        assert_ok(run_in(p, ALL, &f[i], &err), &err);
        for (int phase = 0; phase < HP_PHASES; phase++) {
            assert_true(hp_pipeline_get_detail(p)->peak_count[phase] > 0);
            best[i][phase] = (float)hp_pipeline_get_detail(p)->peak[phase][0].score;
        }
    }
    assert_memory_equal(f[1].device, "cuda: ", 6);
    assert_int_equal(f[1].outcome, f[0].outcome);
    assert_true(f[1].candidate_count > 0);
    for (int phase = 0; phase < HP_PHASES; phase++)
        assert_true(fabsf(best[1][phase] - best[0][phase]) <= 0.01f);
    for (int c = 0; c < f[0].class_count; c++)
        assert_true(fabs(f[1].probabilities[c] - f[0].probabilities[c]) <= 0.05);
}

static void test_pipeline__a_number_that_is_none_names_its_stage(void **state)
{
    hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;
    hp_error err = HP_ERROR_INIT;
    hp_safetensors *s = NULL;
    char path[160], sha[HP_SHA256_HEX];
    hp_tensor t[64];
    float *big = NULL;
    hp_findings f;
    int n;

    (void)state;
    tiny_path("detector.safetensors", path, sizeof path);
    assert_ok(hp_safetensors_load(path, 1 << 24, &s, &err), &err);
    n = hp_safetensors_count(s);
    assert_true(n <= 64);
    for (int i = 0; i < n; i++)
        t[i] = *hp_safetensors_at(s, i);
    for (int i = 0; i < n; i++)
        if (strcmp(t[i].name, "cnv0.weight") == 0) {
            big = malloc(hp_tensor_count(&t[i]) * sizeof *big);
            for (size_t k = 0; k < hp_tensor_count(&t[i]); k++)
                big[k] = 3e38f;
            t[i].data = big;
        }
    snprintf(sha, sizeof sha, "%s", tiny_sha[1]);
    assert_ok(hp_safetensors_write(path, t, n, &err), &err);
    assert_ok(hp_sha256_file(path, tiny_sha[1], &err), &err);
    tiny_yaml("");
    opt.evaluate = true;
    assert_int_equal(run(opt, ALL, &f, &err), HP_E_NUMERIC);
    assert_non_null(strstr(err.msg, "stage detect"));
    assert_non_null(strstr(err.msg, "cnv0"));
    free(big);
    hp_safetensors_free(s);
    tiny_network(1, "hourglass3d", TINY_DETECTOR);
    assert_string_equal(sha, tiny_sha[1]); /* the same seed, the same bytes */
    tiny_yaml("");
}

static void test_vote__ties_go_to_the_higher_mean_among_the_tied(void **state)
{
    static const double FOLD[5][HP_MAX_CLASSES] = {{.51, .49, 0, 0},
                                                   {.52, .48, 0, 0},
                                                   {.1, .9, 0, 0},
                                                   {.1, .9, 0, 0},
                                                   {.2, .2, .6, 0}};
    static const double CLEAR[5][HP_MAX_CLASSES] = {
        {.4, .3, .3, 0}, {.4, .3, .3, 0}, {.4, .3, .3, 0}, {0, 1, 0, 0}, {0, 1, 0, 0}};
    int votes[HP_MAX_CLASSES];
    double mean[HP_MAX_CLASSES];

    (void)state;
    assert_int_equal(hp_pipeline_vote(FOLD, 5, 4, votes, mean), 1);
    assert_int_equal(votes[0], 2);
    assert_int_equal(votes[1], 2);
    assert_int_equal(votes[2], 1);
    assert_int_equal(hp_pipeline_vote(CLEAR, 5, 4, votes, mean),
                     0); /* votes before means */
}

static void test_pipeline__an_unknown_device_is_refused(void **state)
{
    hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;
    hp_pipeline *p = NULL;
    hp_error err = HP_ERROR_INIT;

    (void)state;
    opt.device = "cuda";
    setenv("HEPAR_CUDA_MODULE", "/nonexistent.so", 1); /* also where there is a GPU */
    assert_int_equal(hp_pipeline_open(tiny_dir, &opt, &p, &err), HP_E_UNSUPPORTED);
    unsetenv("HEPAR_CUDA_MODULE");
    opt.device = "abacus";
    assert_int_equal(hp_pipeline_open(tiny_dir, &opt, &p, &err), HP_E_INVALID);
    assert_null(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pipeline__evaluation_always_gives_a_class),
        cmocka_unit_test(test_pipeline__facts_and_network_times),
        cmocka_unit_test(test_pipeline__an_implausible_liver_is_unsuitable),
        cmocka_unit_test(test_pipeline__no_venous_phase_is_unsuitable),
        cmocka_unit_test(test_pipeline__a_missing_phase_is_detected_only),
        cmocka_unit_test(test_pipeline__a_low_score_without_class_is_no_lesion),
        cmocka_unit_test(test_pipeline__a_missing_phase_is_substituted),
        cmocka_unit_test(test_pipeline__a_missing_phase_is_refused),
        cmocka_unit_test(test_pipeline__threads_change_nothing),
        cmocka_unit_test(test_pipeline__every_stage_can_be_seen),
        cmocka_unit_test(test_pipeline__the_liver_keeps_to_fp32),
        cmocka_unit_test(test_pipeline__batches_change_nothing),
        cmocka_unit_test(test_pipeline__a_full_device_is_told_in_the_findings),
        cmocka_unit_test(test_pipeline__a_number_that_is_none_names_its_stage),
        cmocka_unit_test(test_pipeline__an_unknown_device_is_refused),
        cmocka_unit_test(test_vote__ties_go_to_the_higher_mean_among_the_tied),
    };

    const struct CMUnitTest on_a_gpu[] = {
        cmocka_unit_test(test_pipeline__a_gpu_sees_what_the_cpu_sees),
    };

    if (device_is_cpu())
        return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
    return device_is_here() ? cmocka_run_group_tests(on_a_gpu, tiny_setup, tiny_teardown)
                            : 77;
}
