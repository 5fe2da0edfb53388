/* States, claims, runs, deaths, revisions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "db/view.h"
#include "tests/fixture/ledger_world.h"

static const char *const PACS[] = {"pacs"};

/* ---- the table ---- */

static void test_job__the_table_of_moves(void **state)
{
    /* rows: from; columns: receiving ready running reported sent unsuitable failed
     * cancelled. Written out, so that a change of the table is a change here. */
    static const char *const ALLOWED[HP_JOB_STATES] = {
        [HP_JOB_RECEIVING] = ".x....xx", [HP_JOB_READY] = "x.x...xx",
        [HP_JOB_RUNNING] = ".x.x.xxx",   [HP_JOB_REPORTED] = "....x.xx",
        [HP_JOB_SENT] = "........",      [HP_JOB_UNSUITABLE] = ".x......",
        [HP_JOB_FAILED] = ".x......",    [HP_JOB_CANCELLED] = ".x......"};

    (void)state;
    for (int from = 0; from < HP_JOB_STATES; from++)
        for (int to = 0; to < HP_JOB_STATES; to++)
            assert_int_equal(hp_job_may_move((hp_job_state)from, (hp_job_state)to),
                             ALLOWED[from][to] == 'x');
    assert_false(hp_job_may_move(HP_JOB_STATES, HP_JOB_READY));
}

static void test_job__state_names_come_back(void **state)
{
    (void)state;
    for (int s = 0; s < HP_JOB_STATES; s++) {
        hp_job_state back;

        assert_true(hp_job_state_parse(hp_job_state_name((hp_job_state)s), &back));
        assert_int_equal(back, s);
    }
    assert_false(hp_job_state_parse("done", &(hp_job_state){0}));
}

static void test_job__a_forbidden_move_changes_nothing(void **state)
{
    ledger_world *w = *state;
    hp_auto(hp_job) *job = NULL;
    hp_error err = HP_ERROR_INIT;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    job = ledger_world_job(w, "1.2");
    assert_int_equal(hp_job_move(w->db, job, HP_JOB_SENT, NULL, NULL, &err), HP_E_STATE);
    assert_int_equal(job->state, HP_JOB_RECEIVING);
    ledger_world_expect(w, "1.2", "receiving");
}

static void test_job__a_stale_belief_is_refused(void **state)
{
    ledger_world *w = *state;
    hp_auto(hp_job) *one = NULL;
    hp_auto(hp_job) *two = NULL;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    one = ledger_world_job(w, "1.2");
    two = ledger_world_job(w, "1.2");
    assert_int_equal(hp_job_move(w->db, one, HP_JOB_READY, NULL, NULL, NULL), HP_OK);
    assert_int_equal(hp_job_move(w->db, two, HP_JOB_CANCELLED, NULL, NULL, NULL),
                     HP_E_STATE);
    ledger_world_expect(w, "1.2", "ready");
}

/* ---- claims ---- */

static void test_job__claim_on_an_empty_ledger_is_empty(void **state)
{
    ledger_world *w = *state;
    hp_job *job = NULL;

    assert_int_equal(hp_job_claim(w->db, &job, NULL), HP_E_EMPTY);
    assert_null(job);
}

static void test_job_claim__oldest_first_and_each_once(void **state)
{
    ledger_world *w = *state;
    hp_auto(hp_job) *first = NULL;
    hp_auto(hp_job) *second = NULL;
    hp_job *third = NULL;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_pass(w, 6000);
    ledger_world_advance(w, &LEDGER_WORLD_RULE, NULL);
    ledger_world_slice(w, "1.3", "1.3.1", 0);
    ledger_world_pass(w, 6000);
    ledger_world_advance(w, &LEDGER_WORLD_RULE, NULL);
    assert_int_equal(hp_job_claim(w->db, &first, NULL), HP_OK);
    assert_string_equal(first->study_uid.text, "1.2");
    assert_int_equal(first->run, 1);
    assert_int_equal(first->created_ms, w->wall_ms);
    assert_int_equal(hp_job_claim(w->db, &second, NULL), HP_OK);
    assert_string_equal(second->study_uid.text, "1.3");
    assert_int_equal(hp_job_claim(w->db, &third, NULL), HP_E_EMPTY);
}

static void test_job_claim__skips_running_studies(void **state)
{
    ledger_world *w = *state;
    hp_job *job = NULL;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_claim(w, "1.2");
    ledger_world_slice(w, "1.2", "1.2.1", 0); /* late: revision 2 */
    ledger_world_pass(w, 6000);
    assert_int_equal(ledger_world_advance(w, &LEDGER_WORLD_RULE, NULL), 1);
    assert_int_equal(hp_job_claim(w->db, &job, NULL), HP_E_EMPTY);
}

static void test_job_claim__a_study_of_two_patients_fails(void **state)
{
    ledger_world *w = *state;
    hp_auto(hp_job) *job = NULL;
    hp_job *none = NULL;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_slice(w, "1.2", "1.2.1", 7);
    job = ledger_world_job(w, "1.2");
    assert_int_equal(job->state, HP_JOB_FAILED);
    assert_string_equal(job->reason_code, "two_patients");
    {
        hp_auto(hp_job) *again = NULL;

        assert_int_equal(hp_job_retry(w->db, "1.2", &again, NULL), HP_OK);
    }
    assert_int_equal(hp_job_claim(w->db, &none, NULL), HP_E_EMPTY);
    ledger_world_expect(w, "1.2", "failed");
}

static void test_job__a_second_patient_stops_a_report_that_was_not_sent(void **state)
{
    ledger_world *w = *state;
    hp_delivery due[HP_OUTBOX_GROUP];
    int count;
    int64_t again;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_claim(w, "1.2");
    ledger_world_done(w, "1.2", "d1", PACS, 1);
    ledger_world_expect(w, "1.2", "reported");
    ledger_world_slice(w, "1.2", "1.2.1", 7);
    ledger_world_expect(w, "1.2", "failed"); /* revision 2, and 1 before it */
    assert_int_equal(hp_outbox_claim(w->db, "pacs", due, &count, &again, NULL), HP_OK);
    assert_int_equal(count, 0);
}

/* ---- runs ---- */

static void test_job__an_older_run_is_dropped(void **state)
{
    ledger_world *w = *state;
    hp_auto(hp_job) *job = NULL;
    hp_auto(hp_job) *again = NULL;
    hp_run_done late = {.run = 1, .outcome = "classified", .folder = "1/1"};
    bool reused;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_claim(w, "1.2");
    job = ledger_world_job(w, "1.2");
    assert_int_equal(hp_job_died(w->db, job->id, 1, true, "worker_died", "x", NULL),
                     HP_OK);
    assert_int_equal(hp_job_claim(w->db, &again, NULL), HP_OK);
    assert_int_equal(again->run, 2);
    assert_int_equal(again->created_ms, job->created_ms); /* frozen */
    late.job = job->id;
    assert_int_equal(hp_job_done(w->db, &late, &reused, NULL), HP_E_STATE);
    assert_int_equal(hp_job_died(w->db, job->id, 1, true, "worker_died", "x", NULL),
                     HP_E_STATE);
    ledger_world_expect(w, "1.2", "running");
}

static void test_job__two_deaths_fail_it_and_retry_forgives(void **state)
{
    ledger_world *w = *state;
    hp_auto(hp_job) *job = NULL;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_claim(w, "1.2");
    assert_int_equal(hp_job_died(w->db, 1, 1, true, "worker_died", "signal 11", NULL),
                     HP_OK);
    ledger_world_expect(w, "1.2", "ready");
    ledger_world_claim(w, "1.2");
    assert_int_equal(hp_job_died(w->db, 1, 2, true, "worker_died", "signal 11", NULL),
                     HP_OK);
    ledger_world_expect(w, "1.2", "failed");
    assert_int_equal(hp_job_retry(w->db, "1", &job, NULL), HP_OK);
    ledger_world_claim(w, "1.2");
    assert_int_equal(hp_job_died(w->db, 1, 3, true, "worker_died", "signal 11", NULL),
                     HP_OK);
    ledger_world_expect(w, "1.2", "ready");
}

static void test_job__recovery_blames_nobody(void **state)
{
    ledger_world *w = *state;
    hp_auto(hp_job) *job = NULL;
    int count = 0;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    for (int life = 1; life <= 5; life++) {
        assert_int_equal(ledger_world_claim(w, "1.2"), life);
        ledger_world_close(w); /* the daemon ends in the middle of the run */
        w->mono_ms = 50;       /* and the machine started anew */
        ledger_world_open(w);
        assert_int_equal(hp_job_recover(w->db, &count, NULL), HP_OK);
        assert_int_equal(count, 1);
        ledger_world_expect(w, "1.2", "ready");
    }
    job = ledger_world_job(w, "1.2");
    assert_int_equal(job->deaths, 0);
}

static void test_job__a_run_that_says_failed_fails(void **state)
{
    ledger_world *w = *state;
    hp_auto(hp_job) *job = NULL;
    hp_run_done done = {.job = 1,
                        .run = 1,
                        .outcome = "failed",
                        .reason_code = "two_patients",
                        .reason = "two patients in one study"};
    bool reused;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_claim(w, "1.2");
    assert_int_equal(hp_job_done(w->db, &done, &reused, NULL), HP_OK);
    job = ledger_world_job(w, "1.2");
    assert_int_equal(job->state, HP_JOB_FAILED);
    assert_string_equal(job->reason_code, "two_patients");
}

static void end_unsuitable(ledger_world *w, bool send)
{
    hp_run_object object = {.kind = "note_sr", .file = "note.dcm", .required = true};
    hp_run_done done = {.job = 1,
                        .run = 1,
                        .outcome = "unsuitable",
                        .reason_code = "no_venous_phase",
                        .reason = "no venous phase",
                        .input_digest = "d",
                        .objects = &object,
                        .object_count = 1,
                        .folder = "1/1",
                        .peers = PACS,
                        .peer_count = 1,
                        .send_unsuitable = send};
    bool reused;

    strcpy(object.sop_class.text, SR_CLASS);
    strcpy(object.sop_instance.text, "2.25.1");
    assert_int_equal(hp_job_done(w->db, &done, &reused, NULL), HP_OK);
}

static int due_for(ledger_world *w, const char *peer)
{
    hp_delivery due[HP_OUTBOX_GROUP];
    int count;
    int64_t again;

    assert_int_equal(hp_outbox_claim(w->db, peer, due, &count, &again, NULL), HP_OK);
    return count;
}

static void test_job__unsuitable_sends_nothing_by_default(void **state)
{
    ledger_world *w = *state;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_claim(w, "1.2");
    end_unsuitable(w, false);
    ledger_world_expect(w, "1.2", "unsuitable");
    assert_int_equal(due_for(w, "pacs"), 0);
}

static void test_job__unsuitable_sends_the_note_when_asked(void **state)
{
    ledger_world *w = *state;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_claim(w, "1.2");
    end_unsuitable(w, true);
    ledger_world_expect(w, "1.2", "unsuitable");
    assert_int_equal(due_for(w, "pacs"), 1);
}

static void test_job__without_a_peer_it_is_sent_and_says_so(void **state)
{
    ledger_world *w = *state;
    hp_auto(hp_job) *job = NULL;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_claim(w, "1.2");
    ledger_world_done(w, "1.2", "d1", NULL, 0);
    job = ledger_world_job(w, "1.2");
    assert_int_equal(job->state, HP_JOB_SENT);
    assert_string_equal(job->reason_code, "no_peer");
}

/* ---- revisions ---- */

static void test_job__late_images_open_the_next_revision(void **state)
{
    ledger_world *w = *state;
    hp_auto(hp_job) *job = NULL;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_claim(w, "1.2");
    ledger_world_slice(w, "1.2", "1.2.2", 0);
    job = ledger_world_job(w, "1.2");
    assert_int_equal(job->revision, 2);
    assert_int_equal(job->state, HP_JOB_RECEIVING);
}

static void count_file(const char *name, void *payload)
{
    (void)name;
    ++*(int *)payload;
}

static void test_job__a_revision_never_sees_what_came_later(void **state)
{
    ledger_world *w = *state;
    int first = 0, second = 0;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_claim(w, "1.2");
    ledger_world_slice(w, "1.2", "1.2.2", 0);
    assert_int_equal(hp_study_files(w->db, 1, 1, count_file, &first, NULL), HP_OK);
    assert_int_equal(hp_study_files(w->db, 1, 2, count_file, &second, NULL), HP_OK);
    assert_int_equal(first, 2);
    assert_int_equal(second, 3);
}

static void test_job__late_images_before_the_claim_join(void **state)
{
    ledger_world *w = *state;
    hp_auto(hp_job) *job = NULL;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_pass(w, 6000);
    assert_int_equal(ledger_world_advance(w, &LEDGER_WORLD_RULE, NULL), 1);
    ledger_world_slice(w, "1.2", "1.2.1", 0);
    job = ledger_world_job(w, "1.2");
    assert_int_equal(job->revision, 1);
    assert_int_equal(job->state, HP_JOB_RECEIVING);
}

static void test_job__the_same_digest_finds_its_objects_again(void **state)
{
    ledger_world *w = *state;
    hp_auto(json_t) *before = NULL;
    hp_auto(json_t) *after = NULL;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_claim(w, "1.2");
    ledger_world_done(w, "1.2", "d1", NULL, 0);
    assert_int_equal(hp_view_show(w->db, "1.2", &before, NULL), HP_OK);
    ledger_world_slice(w, "1.2", "1.2.2", 0); /* a late image that is not used */
    ledger_world_claim(w, "1.2");
    ledger_world_done(w, "1.2", "d1", PACS, 1);
    assert_int_equal(hp_view_show(w->db, "1.2", &after, NULL), HP_OK);
    assert_int_equal(hp_json_int(after, "revision", 0), 2);
    for (size_t i = 0; i < 2; i++)
        assert_string_equal(
            hp_json_str(json_array_get(json_object_get(before, "results"), i), "path",
                        "a"),
            hp_json_str(json_array_get(json_object_get(after, "results"), i), "path",
                        "b"));
    assert_int_equal(due_for(w, "pacs"), 2);
}

/* Two revisions, the same objects: both are sent when the peer has them. */
static void test_job__revisions_that_share_objects_end_together(void **state)
{
    ledger_world *w = *state;
    hp_delivery due[HP_OUTBOX_GROUP];
    hp_auto(hp_job) *first = NULL;
    int count;
    int64_t again;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_claim(w, "1.2");
    ledger_world_done(w, "1.2", "d1", PACS, 1);
    ledger_world_slice(w, "1.2", "1.2.2", 0);
    ledger_world_claim(w, "1.2");
    ledger_world_done(w, "1.2", "d1", PACS, 1);
    assert_int_equal(hp_outbox_claim(w->db, "pacs", due, &count, &again, NULL), HP_OK);
    assert_int_equal(count, 2); /* once, not twice */
    for (int i = 0; i < count; i++)
        assert_int_equal(hp_outbox_answer(w->db, due[i].id, HP_OK, 0, "", NULL), HP_OK);
    ledger_world_expect(w, "1.2", "sent");
    assert_int_equal(hp_job_load(w->db, 1, &first, NULL), HP_OK);
    assert_int_equal(first->state, HP_JOB_SENT);
}

static void test_job__a_later_report_knows_whom_it_supersedes(void **state)
{
    ledger_world *w = *state;
    hp_auto(hp_job) *first = NULL;
    hp_auto(hp_job) *second = NULL;
    hp_auto(json_t) *none = NULL;
    hp_auto(json_t) *before = NULL;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_claim(w, "1.2");
    first = ledger_world_job(w, "1.2");
    assert_int_equal(hp_job_predecessor(w->db, first, &none, NULL), HP_OK);
    assert_true(json_is_null(none));
    ledger_world_done(w, "1.2", "d1", NULL, 0);
    ledger_world_slice(w, "1.2", "1.2.2", 0);
    ledger_world_claim(w, "1.2");
    second = ledger_world_job(w, "1.2");
    assert_int_equal(hp_job_predecessor(w->db, second, &before, NULL), HP_OK);
    assert_string_equal(hp_json_str(before, "sop_instance", ""), "2.25.1.2.d1.1");
    assert_string_equal(hp_json_str(before, "sop_class", ""), SR_CLASS);
    assert_string_equal(hp_json_str(before, "series", ""), "2.25.77");
}

/* ---- an admin's wishes ---- */

static void test_job__cancel_and_retry(void **state)
{
    ledger_world *w = *state;
    hp_auto(hp_job) *cancelled = NULL;
    hp_auto(hp_job) *again = NULL;
    hp_job *none = NULL;
    bool running = false;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_claim(w, "1.2");
    assert_int_equal(hp_job_cancel(w->db, "1.2", &cancelled, &running, NULL), HP_OK);
    assert_true(running);
    ledger_world_expect(w, "1.2", "cancelled");
    assert_int_equal(hp_job_cancel(w->db, "1.2", &none, &running, NULL), HP_E_STATE);
    assert_int_equal(hp_job_died(w->db, 1, 1, true, "x", "x", NULL), HP_E_STATE);
    assert_int_equal(hp_job_retry(w->db, "1", &again, NULL), HP_OK);
    ledger_world_expect(w, "1.2", "ready");
    assert_int_equal(hp_job_retry(w->db, "1", &none, NULL), HP_E_STATE);
    assert_int_equal(hp_job_retry(w->db, "77", &none, NULL), HP_E_NOT_FOUND);
    assert_int_equal(hp_job_retry(w->db, "9.9.9", &none, NULL), HP_E_NOT_FOUND);
}

#define W(test)                                                                          \
    cmocka_unit_test_setup_teardown(test, ledger_world_setup, ledger_world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_job__the_table_of_moves),
        cmocka_unit_test(test_job__state_names_come_back),
        W(test_job__a_forbidden_move_changes_nothing),
        W(test_job__a_stale_belief_is_refused),
        W(test_job__claim_on_an_empty_ledger_is_empty),
        W(test_job_claim__oldest_first_and_each_once),
        W(test_job_claim__skips_running_studies),
        W(test_job_claim__a_study_of_two_patients_fails),
        W(test_job__a_second_patient_stops_a_report_that_was_not_sent),
        W(test_job__an_older_run_is_dropped),
        W(test_job__two_deaths_fail_it_and_retry_forgives),
        W(test_job__recovery_blames_nobody),
        W(test_job__a_run_that_says_failed_fails),
        W(test_job__unsuitable_sends_nothing_by_default),
        W(test_job__unsuitable_sends_the_note_when_asked),
        W(test_job__without_a_peer_it_is_sent_and_says_so),
        W(test_job__late_images_open_the_next_revision),
        W(test_job__a_revision_never_sees_what_came_later),
        W(test_job__late_images_before_the_claim_join),
        W(test_job__the_same_digest_finds_its_objects_again),
        W(test_job__revisions_that_share_objects_end_together),
        W(test_job__a_later_report_knows_whom_it_supersedes),
        W(test_job__cancel_and_retry)};

    return cmocka_run_group_tests_name("job", tests, NULL, NULL);
}
