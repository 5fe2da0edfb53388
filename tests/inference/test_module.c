/* The CUDA module's door: which device serves, and why no other. The modules are
 * fakes (fake_module.c), so this runs everywhere. */
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "inference/backend.h"
#include "inference/module.h"
#include "inference/runner.h"
#include "tests/inference/world.h"

static char notes[1024];

static void on_note(const char *line, void *payload)
{
    (void)payload;
    snprintf(notes + strlen(notes), sizeof notes - strlen(notes), "%s\n", line);
}

/* The module "fake_NAME.so" of this build. */
static const char *fake(const char *name)
{
    static char path[600];
    const char *dir = getenv("HEPAR_TEST_MODULES");

    snprintf(path, sizeof path, "%s/fake_%s.so", dir != NULL ? dir : ".", name);
    return path;
}

static hp_code open_in(const char *device, const char *precision, const char *module,
                       hp_backend **ret, hp_error *err)
{
    hp_backend_options opt = HP_BACKEND_OPTIONS_INIT;

    *err = (hp_error)HP_ERROR_INIT;
    notes[0] = '\0';
    opt.device = device;
    opt.precision = precision;
    opt.threads = 1;
    opt.module = module;
    opt.on_note = on_note;
    return hp_backend_open_with(&opt, ret, err);
}

static hp_code open_with(const char *device, const char *module, hp_backend **ret,
                         hp_error *err)
{
    return open_in(device, "auto", module, ret, err);
}

/* `module` serves nobody: "cuda" says `why`, "auto" takes the CPU and says it too. */
static void assert_refused(const char *module, const char *why)
{
    hp_auto(hp_backend) *b = NULL;
    hp_error err = HP_ERROR_INIT;

    assert_int_equal(open_with("cuda", module, &b, &err), HP_E_UNSUPPORTED);
    assert_null(b);
    assert_non_null(strstr(err.msg, "device cuda: "));
    assert_non_null(strstr(err.msg, why));
    assert_string_equal(notes, "");

    assert_ok(open_with("auto", module, &b, &err), &err);
    assert_string_equal(b->ops->name, "cpu");
    assert_non_null(strstr(hp_backend_why(b), why));
    assert_non_null(strstr(notes, "device=cpu asked=auto"));
    assert_non_null(strstr(notes, why));
    assert_ptr_equal(strchr(notes, '\n'), notes + strlen(notes) - 1);
}

static void test_module__that_is_not_there(void **state)
{
    (void)state;
    assert_refused(fake("nowhere"), "no CUDA module at ");
}

static void test_module__that_is_no_library(void **state)
{
    char path[] = "/tmp/hepar-module-XXXXXX";
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "not a library\n", 14), 14);
    close(fd);
    assert_refused(path, path);
    unlink(path);
}

static void test_module__of_an_older_interface(void **state)
{
    char words[64];

    (void)state;
    snprintf(words, sizeof words, "is of another version: interface %d, this is %d",
             HP_MODULE_ABI - 1, HP_MODULE_ABI);
    assert_refused(fake("old"), words);
}

static void test_module__with_other_structs(void **state)
{
    (void)state;
    assert_refused(fake("layout"), "is of another version");
}

static void test_module__of_somebody_else(void **state)
{
    (void)state;
    assert_refused(fake("no_symbol"), "is no module of ours");
}

static void test_module__without_a_gpu(void **state)
{
    (void)state;
    assert_refused(fake("no_gpu"), "no GPU: no driver");
}

static void test_module__that_serves(void **state)
{
    hp_auto(hp_backend) *a = NULL;
    hp_auto(hp_backend) *b = NULL;
    hp_error err = HP_ERROR_INIT;

    (void)state;
    assert_ok(open_with("auto", fake("full"), &a, &err), &err);
    assert_string_equal(a->ops->name, "cuda");
    assert_non_null(strstr(notes, "device=cuda asked=auto what=\"cuda: a fake, fp16\""));
    assert_ok(open_with("cuda", fake("full"), &b, &err), &err);
    assert_string_equal(b->ops->name, "cuda");
    assert_string_equal(hp_backend_why(b), "asked for");
}

static void test_module__is_not_asked_for_the_cpu(void **state)
{
    hp_auto(hp_backend) *b = NULL;
    hp_error err = HP_ERROR_INIT;

    (void)state;
    assert_ok(open_with("cpu", fake("full"), &b, &err), &err);
    assert_string_equal(b->ops->name, "cpu");
    assert_int_equal(open_with("gpu", NULL, &b, &err), HP_E_INVALID);
}

static void test_module__variable_names_it(void **state)
{
    hp_auto(hp_backend) *b = NULL;
    hp_error err = HP_ERROR_INIT;

    (void)state;
    setenv("HEPAR_CUDA_MODULE", fake("full"), 1);
    assert_ok(open_with("cuda", NULL, &b, &err), &err);
    unsetenv("HEPAR_CUDA_MODULE");
}

/* --- precision ---------------------------------------------------------- */

static void assert_settles(const char *device, const char *precision, const char *module,
                           const char *want_device, const char *want_precision)
{
    hp_auto(hp_backend) *b = NULL;
    hp_error err = HP_ERROR_INIT;

    assert_ok(open_in(device, precision, module, &b, &err), &err);
    assert_string_equal(b->ops->name, want_device);
    assert_string_equal(b->opt.precision, want_precision);
    if (strcmp(want_device, "cuda") == 0) /* it says what it was told */
        assert_non_null(strstr(b->ops->describe(b), want_precision));
}

static void test_precision__auto_is_the_devices_own(void **state)
{
    (void)state;
    assert_settles("cpu", "auto", NULL, "cpu", "fp32");
    assert_settles("cpu", "fp32", NULL, "cpu", "fp32");
    assert_settles("cuda", "auto", fake("full"), "cuda", "fp16");
    assert_settles("cuda", "bf16", fake("full"), "cuda", "bf16");
    assert_settles("auto", "auto", fake("full"), "cuda", "fp16");
    assert_settles("auto", "auto", fake("no_gpu"), "cpu", "fp32");
}

static void test_precision__that_only_the_cpu_has_leads_there(void **state)
{
    hp_auto(hp_backend) *b = NULL;
    hp_error err = HP_ERROR_INIT;

    (void)state;
    assert_ok(open_in("auto", "fp32", fake("full"), &b, &err), &err);
    assert_string_equal(b->ops->name, "cpu");
    assert_string_equal(hp_backend_why(b), "precision fp32: CUDA has fp16 and bf16");
    assert_non_null(strstr(notes, "precision=fp32"));
}

static void test_precision__that_the_device_has_not_is_refused(void **state)
{
    hp_auto(hp_backend) *b = NULL;
    hp_error err = HP_ERROR_INIT;

    (void)state;
    assert_int_equal(open_in("cpu", "fp16", NULL, &b, &err), HP_E_INVALID);
    assert_string_equal(err.msg, "precision fp16: the CPU has fp32 and bf16");
    assert_int_equal(open_in("cuda", "fp32", fake("full"), &b, &err), HP_E_INVALID);
    assert_string_equal(err.msg, "precision fp32: CUDA has fp16 and bf16");
    /* neither device: both reasons */
    assert_int_equal(open_in("auto", "fp16", fake("no_gpu"), &b, &err), HP_E_INVALID);
    assert_string_equal(err.msg, "precision fp16: the CPU has fp32 and bf16; "
                                 "device cuda: no GPU: no driver");
    assert_int_equal(open_in("cpu", "int8", NULL, &b, &err), HP_E_INVALID);
    assert_null(b);
    assert_string_equal(notes, "");
    if (open_in("cpu", "bf16", NULL, &b, &err) != HP_OK) { /* this CPU may not have it */
        assert_int_equal(err.code, HP_E_INVALID);
        assert_string_equal(err.msg, "precision bf16: this CPU has no bf16 instructions");
    }
}

/* A network that moves finds the CPU's own precision. */
static void test_precision__of_the_spare_is_the_cpus(void **state)
{
    hp_auto(hp_backend) *b = NULL;
    hp_backend *spare = NULL;
    hp_error err = HP_ERROR_INIT;

    (void)state;
    assert_ok(open_in("auto", "fp16", fake("full"), &b, &err), &err);
    assert_ok(hp_backend_spare(b, &spare, &err), &err);
    assert_string_equal(spare->opt.precision, "fp32");
}

/* --- a device without room --------------------------------------------- */

static const char LIVER[] = "{\"widths\":[4,6],\"strides\":[[1,1,1],[2,2,2]]}";
enum { SIDE = 8, VOXELS = SIDE * SIDE * SIDE, ITEMS = 5 };

static hp_code run_liver(hp_backend *b, float *logit, hp_error *err)
{
    static float x[ITEMS * VOXELS];
    static const int size[3] = {SIDE, SIDE, SIDE};
    const hp_ports io = {.in = {x}, .out = {logit}};
    hp_net_params p;
    hp_weights *w = NULL;
    hp_runner *r = NULL;
    json_t *j = NULL;
    hp_code code;

    for (int i = 0; i < ITEMS * VOXELS; i++)
        x[i] = (float)(i % 13) / 13;
    assert_ok(hp_json_parse(LIVER, sizeof LIVER - 1, &j, err), err);
    assert_ok(hp_net_params_read("unet3d", j, NULL, &p, err), err);
    assert_ok(hp_weights_random(7, &w, err), err);
    assert_ok(hp_runner_new(b, &p, w, &r, err), err);
    code = hp_runner_run(r, size, ITEMS, &io, NULL, NULL, err);
    if (code == HP_OK) /* and again, where it is now */
        code = hp_runner_run(r, size, ITEMS, &io, NULL, NULL, err);
    hp_runner_free(r);
    hp_weights_free(w);
    json_decref(j);
    return code;
}

static void test_module__full_device_hands_over_to_the_cpu(void **state)
{
    hp_auto(hp_backend) *full = NULL;
    hp_auto(hp_backend) *cpu = NULL;
    hp_error err = HP_ERROR_INIT;
    static float moved[ITEMS * VOXELS], there[ITEMS * VOXELS];
    char words[200];

    (void)state;
    assert_ok(open_with("cpu", NULL, &cpu, &err), &err);
    assert_ok(run_liver(cpu, there, &err), &err);
    assert_ok(open_with("auto", fake("full"), &full, &err), &err);
    assert_ok(run_liver(full, moved, &err), &err);
    assert_memory_equal(moved, there, sizeof moved);
    assert_non_null(strstr(notes, "network batch=2 error=\"device memory\"\n"
                                  "network batch=1 error=\"device memory\"\n"
                                  "network moved to=cpu error=\"device memory\"\n"));
    hp_backend_describe(full, words, sizeof words);
    assert_non_null(
        strstr(words, "cuda: a fake, fp16; batches of 1; in part cpu: oneDNN"));
}

static void test_module__full_device_that_was_asked_for_fails(void **state)
{
    hp_auto(hp_backend) *full = NULL;
    hp_error err = HP_ERROR_INIT;
    static float logit[ITEMS * VOXELS];

    (void)state;
    assert_ok(open_with("cuda", fake("full"), &full, &err), &err);
    assert_int_equal(run_liver(full, logit, &err), HP_E_NO_MEMORY);
    assert_string_equal(err.msg, "device memory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_module__that_is_not_there),
        cmocka_unit_test(test_module__that_is_no_library),
        cmocka_unit_test(test_module__of_an_older_interface),
        cmocka_unit_test(test_module__with_other_structs),
        cmocka_unit_test(test_module__of_somebody_else),
        cmocka_unit_test(test_module__without_a_gpu),
        cmocka_unit_test(test_module__that_serves),
        cmocka_unit_test(test_module__is_not_asked_for_the_cpu),
        cmocka_unit_test(test_module__variable_names_it),
        cmocka_unit_test(test_precision__auto_is_the_devices_own),
        cmocka_unit_test(test_precision__that_only_the_cpu_has_leads_there),
        cmocka_unit_test(test_precision__that_the_device_has_not_is_refused),
        cmocka_unit_test(test_precision__of_the_spare_is_the_cpus),
        cmocka_unit_test(test_module__full_device_hands_over_to_the_cpu),
        cmocka_unit_test(test_module__full_device_that_was_asked_for_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
