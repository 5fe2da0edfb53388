/* The readiness rule with a clock turned by hand, the twelve arrival patterns of
 * promise 6, and what the ledger keeps of what arrived. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "db/view.h"
#include "tests/fixture/ledger_world.h"

#define RULE (&LEDGER_WORLD_RULE) /* 5 s quiet, 60 s at most */
#define ALL_PHASES 0xFu

/* ---- the rule itself ---- */

static void test_ready__table(void **state)
{
    static const struct {
        const char *name;
        hp_arrival arrival;
        unsigned phases;
        int64_t now;
        hp_ready want;
        int64_t at;
    } CASES[] = {
        {"one millisecond early", {0, 1000, false, false, 0}, 0, 5999, HP_READY_NO, 6000},
        {"quiet", {0, 1000, false, false, 0}, 0, 6000, HP_READY_QUIET, 6000},
        {"an open association holds",
         {0, 1000, true, false, 0},
         0,
         9000,
         HP_READY_NO,
         60000},
        {"but not for ever",
         {0, 1000, true, false, 0},
         0,
         60000,
         HP_READY_MAX_WAIT,
         60000},
        {"never quiet: the maximum",
         {0, 59000, false, false, 0},
         0,
         60000,
         HP_READY_MAX_WAIT,
         60000},
        {"the maximum comes before quiet",
         {0, 58000, false, false, 0},
         0,
         59000,
         HP_READY_NO,
         60000},
        {"phases awaited: look first",
         {0, 1000, false, false, 0},
         5,
         6000,
         HP_READY_LOOK,
         6000},
        {"no look before quiet", {0, 1000, false, false, 0}, 5, 5000, HP_READY_NO, 6000},
        {"looked, all there", {0, 1000, false, true, 7}, 5, 6000, HP_READY_QUIET, 6000},
        {"looked, one missing", {0, 1000, false, true, 4}, 5, 6000, HP_READY_NO, 60000},
        {"one missing for too long",
         {0, 1000, false, true, 4},
         5,
         60000,
         HP_READY_MAX_WAIT,
         60000},
        {"complete at the maximum is quiet",
         {0, 1000, false, true, 5},
         5,
         60000,
         HP_READY_QUIET,
         60000},
        {"a clock that stands still",
         {500, 500, false, false, 0},
         0,
         500,
         HP_READY_NO,
         5500},
        {"a clock that went back",
         {5000, 9000, false, false, 0},
         0,
         100,
         HP_READY_NO,
         14000},
    };

    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        hp_readiness rule = {5000, 60000, CASES[i].phases};
        int64_t at = -1;
        hp_ready got = hp_study_ready(&CASES[i].arrival, &rule, CASES[i].now, &at);

        if (got != CASES[i].want || at != CASES[i].at)
            fail_msg("%s: got %d at %lld", CASES[i].name, got, (long long)at);
    }
}

/* ---- arrival patterns ---- */

/* n slices, gap between them, each followed by a decision: none may be ready. */
static void arrive(ledger_world *w, const char *study, const char *series, int n,
                   int64_t gap_ms)
{
    for (int i = 0; i < n; i++) {
        ledger_world_slice(w, study, series, 0);
        assert_int_equal(ledger_world_advance(w, RULE, NULL), 0);
        ledger_world_pass(w, gap_ms);
    }
}

static void expect_revision(ledger_world *w, const char *study, int revision,
                            const char *state)
{
    hp_auto(hp_job) *job = ledger_world_job(w, study);

    assert_int_equal(job->revision, revision);
    assert_string_equal(hp_job_state_name(job->state), state);
}

static void test_arrival_01__one_association(void **state)
{
    ledger_world *w = *state;

    arrive(w, "1.2", "1.2.1", 40, 100);
    assert_int_equal(ledger_world_advance(w, RULE, "1.2"), 0); /* still open */
    ledger_world_pass(w, 5000);
    assert_int_equal(ledger_world_advance(w, RULE, NULL), 1);
    expect_revision(w, "1.2", 1, "ready");
}

static void test_arrival_02__one_association_per_series(void **state)
{
    ledger_world *w = *state;
    char series[16];

    for (int s = 1; s <= 4; s++) {
        snprintf(series, sizeof series, "1.2.%d", s);
        arrive(w, "1.2", series, 10, 50);
        ledger_world_pass(w, 4000); /* closed; the next one opens within quiet_s */
        assert_int_equal(ledger_world_advance(w, RULE, NULL), 0);
    }
    ledger_world_pass(w, 1500);
    assert_int_equal(ledger_world_advance(w, RULE, NULL), 1);
    expect_revision(w, "1.2", 1, "ready");
}

static void test_arrival_03__one_association_per_image(void **state)
{
    ledger_world *w = *state;

    arrive(w, "1.2", "1.2.1", 30, 1500);
    ledger_world_pass(w, 5000);
    assert_int_equal(ledger_world_advance(w, RULE, NULL), 1);
    expect_revision(w, "1.2", 1, "ready");
}

static void test_arrival_04__two_studies_in_parallel(void **state)
{
    ledger_world *w = *state;

    for (int i = 0; i < 20; i++) {
        ledger_world_slice(w, "1.2", "1.2.1", 0);
        ledger_world_slice(w, "1.3", "1.3.1", 0);
        ledger_world_pass(w, 200);
        assert_int_equal(ledger_world_advance(w, RULE, NULL), 0);
    }
    arrive(w, "1.3", "1.3.2", 10, 450); /* one goes on, the other falls silent */
    ledger_world_pass(w, 500);
    assert_int_equal(ledger_world_advance(w, RULE, NULL), 1);
    expect_revision(w, "1.3", 1, "receiving");
    ledger_world_pass(w, 5000);
    assert_int_equal(ledger_world_advance(w, RULE, NULL), 1);
    expect_revision(w, "1.2", 1, "ready");
    expect_revision(w, "1.3", 1, "ready");
}

static void test_arrival_05__a_pause_inside_an_open_association(void **state)
{
    ledger_world *w = *state;

    arrive(w, "1.2", "1.2.1", 10, 100);
    ledger_world_pass(w, 30000); /* the scanner reconstructs and keeps it open */
    assert_int_equal(ledger_world_advance(w, RULE, "1.2"), 0);
    arrive(w, "1.2", "1.2.2", 10, 100);
    ledger_world_pass(w, 5000);
    assert_int_equal(ledger_world_advance(w, RULE, NULL), 1);
    expect_revision(w, "1.2", 1, "ready");
}

static void test_arrival_06__a_ten_minute_pause_makes_a_revision(void **state)
{
    ledger_world *w = *state;

    arrive(w, "1.2", "1.2.1", 10, 100);
    ledger_world_claim(w, "1.2");
    ledger_world_pass(w, 600000);
    ledger_world_slice(w, "1.2", "1.2.2", 0);
    expect_revision(w, "1.2", 2, "receiving");
    ledger_world_pass(w, 5000);
    assert_int_equal(ledger_world_advance(w, RULE, NULL), 1);
}

static void test_arrival_07__everything_again_changes_nothing(void **state)
{
    ledger_world *w = *state;
    char name[64], first[64];
    hp_instance in;
    hp_disposition d;

    arrive(w, "1.2", "1.2.1", 1, 100);
    in = ledger_world_instance(w, "1.2", "1.2.1", 0, name);
    strcpy(in.sop_instance.text, "1.9.1"); /* the first one's */
    ledger_world_claim(w, "1.2");
    assert_int_equal(hp_study_lookup(w->db, in.sop_instance.text, &d, first, NULL),
                     HP_OK);
    assert_int_equal(d, HP_STORED_DUPLICATE);
    assert_string_equal(first, "00000001.dcm");
    assert_int_equal(hp_study_count(w->db, &in, d, NULL, NULL), HP_OK);
    expect_revision(w, "1.2", 1, "running");
}

static void test_arrival_08__a_trickle_ends_at_the_maximum(void **state)
{
    ledger_world *w = *state;
    int moved = 0;

    for (int i = 0; i < 40 && moved == 0; i++) {
        ledger_world_slice(w, "1.2", "1.2.1", 0);
        ledger_world_pass(w, 3000); /* never quiet */
        moved = ledger_world_advance(w, RULE, NULL);
    }
    assert_int_equal(moved, 1);
    {
        hp_auto(hp_job) *job = ledger_world_job(w, "1.2");
        assert_string_equal(job->reason_code, "max_wait"); /* and it says so */
    }
}

static void test_arrival_09__late_while_ready(void **state)
{
    ledger_world *w = *state;

    arrive(w, "1.2", "1.2.1", 5, 100);
    ledger_world_pass(w, 5000);
    assert_int_equal(ledger_world_advance(w, RULE, NULL), 1);
    ledger_world_slice(w, "1.2", "1.2.2", 0);
    expect_revision(w, "1.2", 1, "receiving");
    assert_int_equal(ledger_world_advance(w, RULE, NULL), 0);
    ledger_world_pass(w, 5000);
    assert_int_equal(ledger_world_advance(w, RULE, NULL), 1);
}

static void test_arrival_10__late_while_running_and_again(void **state)
{
    ledger_world *w = *state;

    arrive(w, "1.2", "1.2.1", 5, 100);
    ledger_world_claim(w, "1.2");
    for (int i = 0; i < 5; i++)
        ledger_world_slice(w, "1.2", "1.2.2", 0);
    expect_revision(w, "1.2", 2, "receiving"); /* one revision, not five */
    assert_int_equal(hp_job_died(w->db, 1, 1, false, "x", "x", NULL), HP_OK);
    ledger_world_pass(w, 5000);
    assert_int_equal(ledger_world_advance(w, RULE, NULL), 1);
    expect_revision(w, "1.2", 2, "ready");
}

static void test_arrival_11__a_restart_waits_anew(void **state)
{
    ledger_world *w = *state;
    int jobs;

    arrive(w, "1.2", "1.2.1", 5, 100);
    ledger_world_pass(w, 4000);
    ledger_world_close(w);
    w->mono_ms = 10;            /* the machine started anew */
    w->wall_ms += 86400 * 1000; /* and its clock jumped a day */
    ledger_world_open(w);
    assert_int_equal(hp_job_recover(w->db, &jobs, NULL), HP_OK);
    assert_int_equal(ledger_world_advance(w, RULE, NULL), 0);
    ledger_world_pass(w, 4999);
    assert_int_equal(ledger_world_advance(w, RULE, NULL), 0);
    ledger_world_pass(w, 1);
    assert_int_equal(ledger_world_advance(w, RULE, NULL), 1);
}

static void test_arrival_12__other_objects_change_nothing(void **state)
{
    ledger_world *w = *state;
    char name[64];
    hp_instance in;
    hp_job *none = NULL;

    in = ledger_world_instance(w, "1.2", "1.2.9", 0, name);
    strcpy(in.sop_class.text, SC_CLASS);
    assert_int_equal(hp_study_add(w->db, &in, NULL), HP_OK);
    assert_int_equal(hp_job_of_study(w->db, "1.2", &none, NULL), HP_E_NOT_FOUND);
    arrive(w, "1.2", "1.2.1", 5, 100);
    ledger_world_claim(w, "1.2");
    in = ledger_world_instance(w, "1.2", "1.2.9", 0, name);
    strcpy(in.sop_class.text, SR_CLASS);
    assert_int_equal(hp_study_add(w->db, &in, NULL), HP_OK);
    expect_revision(w, "1.2", 1, "running");
}

/* ---- awaited phases ---- */

static void test_look__asked_once_answered_once(void **state)
{
    ledger_world *w = *state;
    hp_readiness rule = {5000, 60000, ALL_PHASES};
    hp_look look, again;
    int moved;
    int64_t at;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_pass(w, 5000);
    assert_int_equal(hp_job_advance(w->db, &rule, NULL, NULL, &moved, &look, &at, NULL),
                     HP_OK);
    assert_int_equal(look.job, 1);
    assert_int_equal(hp_job_advance(w->db, &rule, NULL, NULL, &moved, &again, &at, NULL),
                     HP_OK);
    assert_int_equal(again.job, 0);           /* under way */
    ledger_world_slice(w, "1.2", "1.2.2", 0); /* what was looked at is not all */
    assert_int_equal(hp_job_looked(w->db, look, ALL_PHASES, NULL), HP_OK);
    ledger_world_pass(w, 5000);
    assert_int_equal(hp_job_advance(w->db, &rule, NULL, NULL, &moved, &again, &at, NULL),
                     HP_OK);
    assert_int_equal(moved, 0);
    assert_int_equal(again.job, 1); /* a new look */
    assert_int_equal(hp_job_looked(w->db, again, ALL_PHASES, NULL), HP_OK);
    assert_int_equal(hp_job_advance(w->db, &rule, NULL, NULL, &moved, &look, &at, NULL),
                     HP_OK);
    assert_int_equal(moved, 1);
}

static void test_look__missing_phases_wait_for_the_maximum(void **state)
{
    ledger_world *w = *state;
    hp_readiness rule = {5000, 60000, ALL_PHASES};
    hp_look look;
    int moved;
    int64_t at;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_pass(w, 5000);
    hp_job_advance(w->db, &rule, NULL, NULL, &moved, &look, &at, NULL);
    assert_int_equal(hp_job_looked(w->db, look, 0x4, NULL), HP_OK);
    hp_job_advance(w->db, &rule, NULL, NULL, &moved, &look, &at, NULL);
    assert_int_equal(moved, 0);
    assert_int_equal(at, 61000);
    ledger_world_pass(w, 55000);
    hp_job_advance(w->db, &rule, NULL, NULL, &moved, &look, &at, NULL);
    assert_int_equal(moved, 1);
    {
        hp_auto(hp_job) *job = ledger_world_job(w, "1.2");
        assert_string_equal(job->reason_code, "max_wait");
        assert_non_null(strstr(job->reason, "missing"));
    }
}

/* ---- what is kept ---- */

static void test_study__our_own_result_is_an_echo(void **state)
{
    ledger_world *w = *state;
    hp_disposition d;
    char name[64];

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_claim(w, "1.2");
    ledger_world_done(w, "1.2", "d1", NULL, 0);
    assert_int_equal(hp_study_lookup(w->db, "2.25.1.2.d1.1", &d, name, NULL), HP_OK);
    assert_int_equal(d, HP_STORED_ECHO);
    assert_int_equal(hp_study_lookup(w->db, "2.25.77", &d, name, NULL), HP_OK);
    assert_int_equal(d, HP_STORED_NEW);
}

static void test_study__a_lost_file_fails_the_job_and_may_come_again(void **state)
{
    ledger_world *w = *state;
    hp_auto(hp_job) *job = NULL;
    hp_disposition d;
    char name[64];

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    assert_int_equal(hp_study_file_lost(w->db, 1, "00000001.dcm", NULL), HP_OK);
    job = ledger_world_job(w, "1.2");
    assert_int_equal(job->state, HP_JOB_FAILED);
    assert_string_equal(job->reason_code, "file_lost");
    assert_int_equal(hp_study_lookup(w->db, "1.9.1", &d, name, NULL), HP_OK);
    assert_int_equal(d, HP_STORED_NEW);
}

static void test_study__show_explains_it(void **state)
{
    static const char *const PROMISED[] = {
        "study_uid",  "revision",     "state",      "reason",  "series",
        "phases",     "registration", "candidates", "primary", "results",
        "timings_ms", "bundle",       "device"};
    ledger_world *w = *state;
    hp_auto(json_t) *show = NULL;
    hp_auto(json_t) *none = NULL;
    char name[64];
    hp_instance in;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    in = ledger_world_instance(w, "1.2", "1.2.1", 0, name);
    assert_int_equal(hp_study_count(w->db, &in, HP_STORED_CONFLICT, "q.dcm", NULL),
                     HP_OK);
    assert_int_equal(hp_study_refused(w->db, "1.2", "store from X: cut off", NULL),
                     HP_OK);
    assert_int_equal(hp_view_show(w->db, "1.2", &show, NULL), HP_OK);
    assert_int_equal(hp_json_int(json_object_get(show, "received"), "stored", 0), 1);
    assert_int_equal(hp_json_int(json_object_get(show, "received"), "conflicts", 0), 1);
    assert_int_equal(hp_json_int(json_object_get(show, "received"), "refused", 0), 1);
    assert_string_equal(hp_json_str(show, "state", ""), "receiving");
    assert_int_equal(json_array_size(json_object_get(show, "series")), 1);
    for (size_t i = 0; i < sizeof PROMISED / sizeof *PROMISED; i++)
        assert_non_null(json_object_get(show, PROMISED[i]));
    assert_int_equal(json_array_size(json_object_get(show, "events")), 3);
    assert_int_equal(hp_view_show(w->db, "9.9", &none, NULL), HP_E_NOT_FOUND);
    assert_int_equal(hp_view_show(w->db, "12", &none, NULL), HP_E_NOT_FOUND);
}

#define W(test)                                                                          \
    cmocka_unit_test_setup_teardown(test, ledger_world_setup, ledger_world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ready__table),
        W(test_arrival_01__one_association),
        W(test_arrival_02__one_association_per_series),
        W(test_arrival_03__one_association_per_image),
        W(test_arrival_04__two_studies_in_parallel),
        W(test_arrival_05__a_pause_inside_an_open_association),
        W(test_arrival_06__a_ten_minute_pause_makes_a_revision),
        W(test_arrival_07__everything_again_changes_nothing),
        W(test_arrival_08__a_trickle_ends_at_the_maximum),
        W(test_arrival_09__late_while_ready),
        W(test_arrival_10__late_while_running_and_again),
        W(test_arrival_11__a_restart_waits_anew),
        W(test_arrival_12__other_objects_change_nothing),
        W(test_look__asked_once_answered_once),
        W(test_look__missing_phases_wait_for_the_maximum),
        W(test_study__our_own_result_is_an_echo),
        W(test_study__a_lost_file_fails_the_job_and_may_come_again),
        W(test_study__show_explains_it)};

    return cmocka_run_group_tests_name("study", tests, NULL, NULL);
}
