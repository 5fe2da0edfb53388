/* What the newest worker said, and what the newest reading took. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "db/inference.h"
#include "db/view.h"
#include "tests/fixture/ledger_world.h"

static json_t *status(ledger_world *w)
{
    json_t *view = NULL;
    hp_error err = HP_ERROR_INIT;

    if (hp_view_status(w->db, &view, &err) != HP_OK)
        fail_msg("%s", err.msg);
    return view;
}

static void tell(ledger_world *w, const char *device, double compile_ms)
{
    json_t *facts = json_pack("{ss,sf}", "device", device, "compile_ms", compile_ms);

    assert_int_equal(hp_inference_told(w->db, facts, NULL), HP_OK);
    json_decref(facts);
}

static void test_inference__nothing_is_known_at_first(void **state)
{
    hp_auto(json_t) *view = status(*state);

    assert_true(json_is_null(json_object_get(view, "inference")));
    assert_true(json_is_null(json_object_get(view, "last_read")));
}

static void test_inference__the_newest_word_counts_and_stays(void **state)
{
    ledger_world *w = *state;
    hp_auto(json_t) *facts = NULL;

    tell(w, "cuda", 0);
    tell(w, "cpu", 12.5);
    tell(w, "cpu", 12.5);
    ledger_world_close(w);
    ledger_world_open(w);
    assert_int_equal(hp_inference_load(w->db, &facts, NULL), HP_OK);
    assert_string_equal(hp_json_str(facts, "device", ""), "cpu");
    assert_true(hp_json_num(facts, "compile_ms", 0) == 12.5);
}

/* Ends the study's running run with these findings. */
static void done(ledger_world *w, const char *study, const char *outcome, json_t *result)
{
    hp_auto(hp_job) *job = ledger_world_job(w, study);
    hp_run_done d = {.job = job->id,
                     .run = job->run,
                     .outcome = outcome,
                     .input_digest = "d",
                     .bundle_sha256 = "b",
                     .result = result};
    hp_error err = HP_ERROR_INIT;
    bool reused;

    if (hp_job_done(w->db, &d, &reused, &err) != HP_OK)
        fail_msg("%s", err.msg);
    json_decref(result);
}

static void test_inference__last_read_is_the_newest_that_met_the_networks(void **state)
{
    ledger_world *w = *state;
    hp_auto(json_t) *view = NULL;
    const json_t *last;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_claim(w, "1.2");
    ledger_world_pass(w, 7000);
    done(w, "1.2", "classified",
         json_pack("{s{sf},s{sf}}", "timings_ms", "liver", 900.0, "networks_ms", "liver",
                   640.5));
    ledger_world_slice(w, "1.3", "1.3.1", 0);
    ledger_world_claim(w, "1.3");
    done(w, "1.3", "unsuitable", json_pack("{s{sf}}", "timings_ms", "read", 10.0));
    view = status(w);
    last = json_object_get(view, "last_read");
    assert_int_equal(hp_json_int(last, "job", 0), 1);
    assert_int_equal(hp_json_int(last, "run", 0), 1);
    assert_int_equal(
        hp_json_int(last, "ended_ms", 0) - hp_json_int(last, "started_ms", 0), 7000);
    assert_true(hp_json_num(json_object_get(last, "networks_ms"), "liver", 0) == 640.5);
    assert_true(hp_json_num(json_object_get(last, "timings_ms"), "liver", 0) == 900);
}

static void test_inference__findings_of_an_older_hepar_have_no_network_times(void **state)
{
    ledger_world *w = *state;
    hp_auto(json_t) *view = NULL;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_claim(w, "1.2");
    done(w, "1.2", "no_candidate", json_object());
    view = status(w);
    assert_int_equal(json_object_size(json_object_get(json_object_get(view, "last_read"),
                                                      "networks_ms")),
                     0);
}

#define W(test)                                                                          \
    cmocka_unit_test_setup_teardown(test, ledger_world_setup, ledger_world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        W(test_inference__nothing_is_known_at_first),
        W(test_inference__the_newest_word_counts_and_stays),
        W(test_inference__last_read_is_the_newest_that_met_the_networks),
        W(test_inference__findings_of_an_older_hepar_have_no_network_times)};

    return cmocka_run_group_tests_name("inference", tests, NULL, NULL);
}
