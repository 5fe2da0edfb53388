/* Every refusal names file, line and key; the shipped file is the defaults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "config/config.h"

static char path[64];

static hp_code load(const char *text, hp_config **ret, hp_error *err)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return hp_config_load(path, ret, err);
}

static void expect_refusal(const char *text, const char *where, const char *why)
{
    hp_config *c = NULL;
    hp_error err = HP_ERROR_INIT;
    char place[128];

    assert_int_not_equal(load(text, &c, &err), HP_OK);
    assert_null(c);
    snprintf(place, sizeof place, "%s:%s", path, where);
    if (strstr(err.msg, place) == NULL || strstr(err.msg, why) == NULL)
        fail_msg("\"%s\" lacks \"%s\" or \"%s\"", err.msg, place, why);
}

static void test_config__refusals_name_file_line_and_key(void **state)
{
    static const struct {
        const char *text, *where, *why;
    } CASES[] = {
        {"port: 104\nreadynes:\n  quiet_s: 3\n", "2: readynes", "unknown key"},
        {"readiness:\n  quiet: 3\n", "2: quiet", "unknown key"},
        {"report:\n  unsuitabel: true\n", "2: unsuitabel", "unknown key"},
        {"port: eleven\n", "1: port", "whole number"},
        {"port: 70000\n", "1: port", "65535"},
        {"port: 1.5\n", "1: port", "whole number"},
        {"ae_title: ABCDEFGHIJKLMNOPQ\n", "1: ae_title", "16 characters"},
        {"ae_title: 4711\n", "1: ae_title", "quotes"},
        {"ae_title: ''\n", "1: ae_title", "empty"},
        {"\nlisten: localhost\n", "2: listen", "numeric"},
        {"intake: 5\n", "1: intake", "section"},
        {"intake:\n  allow: PACS\n", "2: allow", "list"},
        {"intake:\n  allow:\n    - {ae_title: PACS}\n", "2: allow", "address"},
        {"intake:\n  allow:\n    - {ae_title: A, address: pacs.local}\n", "3: address",
         "numeric"},
        {"intake:\n  allow:\n    - {ae_title: A, address: 10.0.0.0/33}\n", "3: address",
         "prefix"},
        {"intake:\n  disk_reserve_bytes: lots\n", "2: disk_reserve_bytes", "512 MiB"},
        {"intake:\n  sop_classes: [1.2.x]\n", "2: sop_classes", "UID"},
        {"readiness:\n  quiet_s: 0\n", "2: quiet_s", "from 1"},
        {"readiness:\n  quiet_s: 100\n  max_wait_s: 50\n", "3: max_wait_s", "shorter"},
        {"readiness:\n  phases: [V, X]\n", "2: phases", "NC, A, V and D"},
        {"reading:\n  device: gpu\n", "2: device", "auto|cpu|cuda"},
        {"reading:\n  precision: fp8\n", "2: precision", "auto|fp32|fp16|bf16"},
        {"reading:\n  precision: fp16\n  device: cpu\n", "2: precision",
         "device cpu has fp32 and bf16"},
        {"reading:\n  device: cuda\n  precision: fp32\n", "3: precision",
         "device cuda has fp16 and bf16"},
        {"reading:\n  plan_cache: 5\n", "2: plan_cache", "text"},
        {"reading:\n  phase_rules:\n    - {phase: V}\n", "2: phase_rules", "description"},
        {"reading:\n  phase_rules:\n    - {phase: Q, description: x}\n", "3: phase",
         "NC"},
        {"report:\n  unsuitable: 1\n", "2: unsuitable", "true or false"},
        {"peers:\n  - {name: a, ae_title: A, host: h}\n", "1: peers", "port"},
        {"peers:\n  - {name: a, ae_title: A, host: h, port: 1}\n"
         "  - {name: a, ae_title: B, host: h, port: 2}\n",
         "3: name", "two peers"},
        {"log_level: loud\n", "1: log_level", "error|warning"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        expect_refusal(CASES[i].text, CASES[i].where, CASES[i].why);
}

static void test_config__no_yaml_is_refused_with_its_line(void **state)
{
    hp_config *c = NULL;
    hp_error err = HP_ERROR_INIT;

    (void)state;
    assert_int_not_equal(load("port: [1\n", &c, &err), HP_OK);
    assert_non_null(strstr(err.msg, path));
    assert_int_not_equal(load("port: 1\nport: 2\n", &c, &err), HP_OK);
    assert_non_null(strstr(err.msg, "2"));
}

static void test_config__empty_is_the_defaults(void **state)
{
    hp_auto(hp_config) *c = NULL;
    hp_error err = HP_ERROR_INIT;

    (void)state;
    if (load("", &c, &err) != HP_OK)
        fail_msg("%s", err.msg);
    assert_string_equal(c->listen, "127.0.0.1");
    assert_int_equal(c->port, 11112);
    assert_int_equal(c->intake.allow_count, 0); /* nobody */
    assert_int_equal(c->readiness.quiet_s, 120);
    assert_int_equal(c->readiness.max_wait_s, 1800);
    assert_int_equal(c->readiness.phases, 1 << HP_PHASE_V);
    assert_int_equal(c->delivery.backoff_min_s, 30);
    assert_int_equal(c->delivery.backoff_max_s, 1800);
    assert_false(c->report.unsuitable);
}

/* What config/hepar.yaml says is what leaving it out says. */
static void test_config__the_shipped_file_is_the_defaults(void **state)
{
    hp_auto(hp_config) *shipped = NULL;
    hp_auto(hp_config) *plain = malloc(sizeof *plain);
    hp_error err = HP_ERROR_INIT;

    (void)state;
    hp_config_init(plain);
    if (hp_config_load(HP_SHIPPED_CONFIG, &shipped, &err) != HP_OK)
        fail_msg("%s", err.msg);
    memset(shipped->path, 0, sizeof shipped->path);
    assert_string_equal(shipped->reading.plan_cache, "/var/lib/hepar/plans/cuda");
    memset(shipped->reading.plan_cache, 0, sizeof shipped->reading.plan_cache);
    assert_true(shipped->reading.device_line > 0 && shipped->reading.precision_line > 0);
    shipped->reading.device_line = shipped->reading.precision_line = 0;
    assert_memory_equal(shipped, plain, sizeof *plain);
}

static void test_config__a_full_one(void **state)
{
    hp_auto(hp_config) *c = NULL;
    hp_error err = HP_ERROR_INIT;
    char want[128];

    (void)state;
    if (load("state_dir: state\n"
             "ae_title: LIVER\n"
             "intake:\n"
             "  allow:\n"
             "    - {ae_title: '*', address: 10.1.0.0/16}\n"
             "    - {ae_title: '0815', address: '::1'}\n"
             "  disk_reserve_bytes: 1.5 GiB\n"
             "  max_object_bytes: 1000000\n"
             "readiness: {quiet_s: 5, max_wait_s: 60, phases: [NC, A, V, D]}\n"
             "reading:\n"
             "  phase_rules:\n"
             "    - {phase: V, series_number: 4}\n"
             "    - {phase: A, description: 'art'}\n"
             "peers:\n"
             "  - {name: pacs, ae_title: PACS, host: 10.1.2.3, port: 104}\n"
             "  - {name: b, ae_title: B, host: b, port: 11112, calling_ae_title: ME,\n"
             "     results: false}\n",
             &c, &err) != HP_OK)
        fail_msg("%s", err.msg);
    snprintf(want, sizeof want, "%.*s/state", (int)(strrchr(path, '/') - path), path);
    assert_string_equal(c->state_dir, want);
    assert_int_equal(c->intake.allow_count, 2);
    assert_string_equal(c->intake.allow[1].ae_title, "0815");
    assert_int_equal(c->intake.disk_reserve_bytes, 1610612736);
    assert_int_equal(c->readiness.phases, 0xF);
    assert_int_equal(c->reading.phase_rules[0].phase, HP_PHASE_V);
    assert_int_equal(c->reading.phase_rules[0].series_number, 4);
    assert_string_equal(c->reading.phase_rules[1].description, "art");
    assert_string_equal(c->peers[0].calling_ae, "LIVER");
    assert_string_equal(c->peers[1].calling_ae, "ME");
    assert_true(c->peers[0].results);
    assert_false(hp_config_find_peer(c, "b")->results);
    assert_null(hp_config_find_peer(c, "c"));
}

/* Each device has what the other has not, and auto may find either. */
static void test_config__device_and_precision(void **state)
{
    static const char *const FINE[] = {"reading: {device: cpu, precision: fp32}\n",
                                       "reading: {device: cpu, precision: bf16}\n",
                                       "reading: {device: cuda, precision: fp16}\n",
                                       "reading: {device: cuda, precision: bf16}\n",
                                       "reading: {precision: fp16}\n",
                                       "reading: {precision: fp32}\n"};
    hp_auto(hp_config) *c = NULL;
    hp_error err = HP_ERROR_INIT;
    char want[128];

    (void)state;
    for (size_t i = 0; i < sizeof FINE / sizeof *FINE; i++) {
        hp_auto(hp_config) *one = NULL;

        if (load(FINE[i], &one, &err) != HP_OK)
            fail_msg("%s", err.msg);
    }
    assert_int_equal(load("state_dir: state\nreading:\n  device: cuda\n", &c, &err),
                     HP_OK);
    assert_string_equal(c->reading.precision, "auto");
    assert_int_equal(c->reading.device_line, 3);
    assert_int_equal(c->reading.precision_line, 0);
    snprintf(want, sizeof want, "%.*s/state/plans/cuda", (int)(strrchr(path, '/') - path),
             path);
    assert_string_equal(c->reading.plan_cache, want);
    hp_config_free(c);
    c = NULL;
    assert_int_equal(load("reading: {plan_cache: /p/q}\n", &c, &err), HP_OK);
    assert_string_equal(c->reading.plan_cache, "/p/q");
}

static void test_config__writable_by_everybody_is_refused(void **state)
{
    hp_config *c = NULL;
    hp_error err = HP_ERROR_INIT;

    (void)state;
    assert_int_equal(load("", &c, &err), HP_OK);
    hp_config_free(c);
    c = NULL;
    chmod(path, 0666);
    assert_int_equal(hp_config_load(path, &c, &err), HP_E_INVALID);
    assert_non_null(strstr(err.msg, "write"));
    chmod(path, 0600);
}

static void test_config__a_missing_file_says_so(void **state)
{
    hp_config *c = NULL;
    hp_error err = HP_ERROR_INIT;

    (void)state;
    assert_int_equal(hp_config_load("/nonexistent.yaml", &c, &err), HP_E_NOT_FOUND);
    assert_non_null(strstr(err.msg, "/nonexistent.yaml"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config__refusals_name_file_line_and_key),
        cmocka_unit_test(test_config__no_yaml_is_refused_with_its_line),
        cmocka_unit_test(test_config__empty_is_the_defaults),
        cmocka_unit_test(test_config__the_shipped_file_is_the_defaults),
        cmocka_unit_test(test_config__a_full_one),
        cmocka_unit_test(test_config__device_and_precision),
        cmocka_unit_test(test_config__writable_by_everybody_is_refused),
        cmocka_unit_test(test_config__a_missing_file_says_so)};
    char dir[] = "/tmp/hepar-test-XXXXXX";
    int failed;

    if (mkdtemp(dir) == NULL)
        return 1;
    snprintf(path, sizeof path, "%s/hepar.yaml", dir);
    failed = cmocka_run_group_tests_name("config", tests, NULL, NULL);
    unlink(path);
    rmdir(dir);
    return failed;
}
