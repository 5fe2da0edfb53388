/* Deliveries: back-off per peer, permanent refusals, deaths, restarts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "db/view.h"
#include "tests/fixture/ledger_world.h"

enum { NO_STATUS = 0xFFFF };
static const char *const TWO[] = {"pacs", "dead"};
static const hp_backoff BACKOFF = {30000, 1800000};

static void reported(ledger_world *w, const char *study, const char *const *peers,
                     int count)
{
    char series[64];

    snprintf(series, sizeof series, "%s.1", study);
    ledger_world_slice(w, study, series, 0);
    ledger_world_claim(w, study);
    ledger_world_done(w, study, "d1", peers, count);
}

static int claim(ledger_world *w, const char *peer, hp_delivery due[HP_OUTBOX_GROUP],
                 int64_t *ret_again)
{
    int count;
    int64_t again;
    hp_error err = HP_ERROR_INIT;

    if (hp_outbox_claim(w->db, peer, due, &count, &again, &err) != HP_OK)
        fail_msg("%s", err.msg);
    if (ret_again != NULL)
        *ret_again = again;
    return count;
}

static void answer_all(ledger_world *w, const char *peer, hp_code code, unsigned status)
{
    hp_delivery due[HP_OUTBOX_GROUP];
    int n = claim(w, peer, due, NULL);

    for (int i = 0; i < n; i++)
        assert_int_equal(hp_outbox_answer(w->db, due[i].id, code, status, "", NULL),
                         HP_OK);
    assert_int_equal(hp_outbox_peer(w->db, peer, status != NO_STATUS, &BACKOFF, "", NULL),
                     HP_OK);
}

static void test_outbox__accepted_by_all_is_sent(void **state)
{
    ledger_world *w = *state;

    reported(w, "1.2", TWO, 2);
    answer_all(w, "pacs", HP_OK, 0);
    ledger_world_expect(w, "1.2", "reported");
    answer_all(w, "dead", HP_OK, 0);
    ledger_world_expect(w, "1.2", "sent");
}

static void test_outbox__a_dead_peer_delays_nobody(void **state)
{
    ledger_world *w = *state;
    hp_delivery due[HP_OUTBOX_GROUP];

    reported(w, "1.2", TWO, 2);
    answer_all(w, "dead", HP_E_CONNECT, NO_STATUS);
    assert_int_equal(claim(w, "pacs", due, NULL), 2);
    assert_string_equal(due[0].sop_class.text, SR_CLASS);
    assert_string_equal(due[0].path, "1/1/sr.dcm");
}

static void test_outbox__backs_off_from_30_s_to_30_min(void **state)
{
    static const int64_t WAITS[] = {30000,  60000,   120000,  240000, 480000,
                                    960000, 1800000, 1800000, 1800000};
    ledger_world *w = *state;
    hp_delivery due[HP_OUTBOX_GROUP];
    int64_t again;

    reported(w, "1.2", TWO, 2);
    for (size_t i = 0; i < sizeof WAITS / sizeof *WAITS; i++) {
        answer_all(w, "dead", HP_E_CONNECT, NO_STATUS);
        assert_int_equal(claim(w, "dead", due, &again), 0);
        assert_int_equal(again - w->wall_ms, WAITS[i]);
        ledger_world_pass(w, WAITS[i] - 1);
        assert_int_equal(claim(w, "dead", due, NULL), 0);
        ledger_world_pass(w, 1);
        if (i == 3) { /* a restart forgets nothing */
            ledger_world_close(w);
            ledger_world_open(w);
        }
    }
    answer_all(w, "dead", HP_OK, 0);
    answer_all(w, "pacs", HP_OK, 0);
    ledger_world_expect(w, "1.2", "sent");
}

/* A day of silence, a hundred studies: one connection per step, none lost. */
static void test_outbox__a_day_down_loses_nothing(void **state)
{
    ledger_world *w = *state;
    hp_delivery due[HP_OUTBOX_GROUP];
    char study[32];
    int connections = 0, delivered = 0, n;
    int64_t again, start = w->wall_ms;

    for (int i = 0; i < 100; i++) {
        snprintf(study, sizeof study, "1.2.%d", i + 1);
        reported(w, study, &TWO[1], 1);
    }
    start = w->wall_ms;
    while (w->wall_ms - start < 86400000) {
        n = claim(w, "dead", due, &again);
        for (int i = 0; i < n; i++)
            hp_outbox_answer(w->db, due[i].id, HP_E_CONNECT, NO_STATUS, "", NULL);
        if (n > 0) {
            connections++;
            hp_outbox_peer(w->db, "dead", false, &BACKOFF, "", NULL);
        } else {
            ledger_world_pass(w, again - w->wall_ms);
        }
    }
    assert_in_range(connections, 48, 56); /* 30 s, 1, 2, 4, 8, 16 min, then half hours */
    ledger_world_pass(w, 1800000);
    while ((n = claim(w, "dead", due, NULL)) > 0) {
        for (int i = 0; i < n; i++)
            assert_int_equal(hp_outbox_answer(w->db, due[i].id, HP_OK, 0, "", NULL),
                             HP_OK);
        hp_outbox_peer(w->db, "dead", true, &BACKOFF, "", NULL);
        delivered += n;
    }
    assert_int_equal(delivered, 200);
    for (int i = 0; i < 100; i++) {
        snprintf(study, sizeof study, "1.2.%d", i + 1);
        ledger_world_expect(w, study, "sent");
    }
}

static void test_outbox__a_required_refusal_fails_the_job(void **state)
{
    ledger_world *w = *state;
    hp_delivery due[HP_OUTBOX_GROUP];
    hp_auto(hp_job) *job = NULL;

    reported(w, "1.2", TWO, 2);
    assert_int_equal(claim(w, "pacs", due, NULL), 2);
    assert_true(due[0].required);
    hp_outbox_answer(w->db, due[0].id, HP_E_REFUSED, 0x0122, "SOP class", NULL);
    job = ledger_world_job(w, "1.2");
    assert_int_equal(job->state, HP_JOB_FAILED);
    assert_string_equal(job->reason_code, "result_refused");
    hp_outbox_answer(w->db, due[1].id, HP_OK, 0, "", NULL);
    assert_int_equal(claim(w, "pacs", due, NULL), 0); /* it stops */
    assert_int_equal(claim(w, "dead", due, NULL), 2); /* the other peer gets its own */
}

static void test_outbox__an_optional_refusal_does_not(void **state)
{
    ledger_world *w = *state;
    hp_delivery due[HP_OUTBOX_GROUP];

    reported(w, "1.2", TWO, 1);
    assert_int_equal(claim(w, "pacs", due, NULL), 2);
    hp_outbox_answer(w->db, due[0].id, HP_OK, 0, "", NULL);
    hp_outbox_answer(w->db, due[1].id, HP_E_REFUSED, 0xA900, "no", NULL);
    ledger_world_expect(w, "1.2", "sent");
}

static void test_outbox__retry_asks_again_only_who_refused(void **state)
{
    ledger_world *w = *state;
    hp_delivery due[HP_OUTBOX_GROUP];
    hp_auto(hp_job) *job = NULL;

    reported(w, "1.2", TWO, 1);
    claim(w, "pacs", due, NULL);
    hp_outbox_answer(w->db, due[1].id, HP_OK, 0, "", NULL);
    hp_outbox_answer(w->db, due[0].id, HP_E_REFUSED, 0xC000, "no", NULL);
    assert_int_equal(hp_job_retry(w->db, "1.2", &job, NULL), HP_OK);
    ledger_world_claim(w, "1.2");
    ledger_world_done(w, "1.2", "d1", TWO, 1);
    assert_int_equal(claim(w, "pacs", due, NULL), 1);
    assert_string_equal(due[0].path, "1/1/sr.dcm"); /* the first run's object */
    hp_outbox_answer(w->db, due[0].id, HP_OK, 0, "", NULL);
    ledger_world_expect(w, "1.2", "sent");
}

static void test_outbox__not_now_waits_by_itself(void **state)
{
    ledger_world *w = *state;
    hp_delivery due[HP_OUTBOX_GROUP];
    int64_t again;

    reported(w, "1.2", TWO, 1);
    answer_all(w, "pacs", HP_E_NO_SPACE, 0xA700);
    assert_int_equal(claim(w, "pacs", due, &again), 0);
    assert_int_equal(again - w->wall_ms, 30000);
    ledger_world_pass(w, 30000);
    assert_int_equal(claim(w, "pacs", due, NULL), 2);
}

static void test_outbox__two_deaths_set_a_delivery_aside(void **state)
{
    ledger_world *w = *state;
    hp_delivery due[HP_OUTBOX_GROUP];

    reported(w, "1.2", TWO, 1);
    claim(w, "pacs", due, NULL);
    assert_int_equal(hp_outbox_died(w->db, due[0].id, NULL), HP_OK);
    hp_outbox_answer(w->db, due[1].id, HP_E_ABORTED, NO_STATUS, "", NULL);
    claim(w, "pacs", due, NULL);
    assert_int_equal(hp_outbox_died(w->db, due[0].id, NULL), HP_OK);
    ledger_world_expect(w, "1.2", "failed");
}

static void test_outbox__a_restart_sends_again(void **state)
{
    ledger_world *w = *state;
    hp_delivery due[HP_OUTBOX_GROUP];
    int count;

    reported(w, "1.2", TWO, 1);
    assert_int_equal(claim(w, "pacs", due, NULL), 2);
    hp_outbox_answer(w->db, due[0].id, HP_OK, 0, "", NULL);
    ledger_world_close(w); /* one answered, one in the air */
    ledger_world_open(w);
    assert_int_equal(hp_outbox_recover(w->db, &count, NULL), HP_OK);
    assert_int_equal(count, 1);
    assert_int_equal(claim(w, "pacs", due, NULL), 1);
    hp_outbox_answer(w->db, due[0].id, HP_OK, 0, "", NULL);
    ledger_world_expect(w, "1.2", "sent");
}

static void test_outbox__an_answer_that_got_lost_is_asked_for_again(void **state)
{
    ledger_world *w = *state;
    hp_delivery due[HP_OUTBOX_GROUP];

    reported(w, "1.2", TWO, 2);
    assert_int_equal(claim(w, "pacs", due, NULL), 2);
    hp_outbox_answer(w->db, due[0].id, HP_OK, 0, "", NULL);
    assert_int_equal(claim(w, "pacs", due, NULL), 0); /* the other is in the air */
    assert_int_equal(hp_outbox_requeue(w->db, "nobody", NULL), HP_OK);
    assert_int_equal(claim(w, "pacs", due, NULL), 0);
    assert_int_equal(hp_outbox_requeue(w->db, "pacs", NULL), HP_OK);
    assert_int_equal(claim(w, "pacs", due, NULL), 1); /* and only that one */
}

static void test_outbox__a_clock_that_jumps_back_is_no_excuse(void **state)
{
    ledger_world *w = *state;
    hp_delivery due[HP_OUTBOX_GROUP];

    reported(w, "1.2", TWO, 1);
    answer_all(w, "pacs", HP_E_CONNECT, NO_STATUS);
    w->wall_ms -= 86400000;
    assert_int_equal(claim(w, "pacs", due, NULL), 2);
}

static void test_outbox__cancel_stops_what_waits(void **state)
{
    ledger_world *w = *state;
    hp_delivery due[HP_OUTBOX_GROUP];
    hp_auto(hp_job) *job = NULL;
    bool running;

    reported(w, "1.2", TWO, 1);
    assert_int_equal(hp_job_cancel(w->db, "1.2", &job, &running, NULL), HP_OK);
    assert_false(running);
    assert_int_equal(claim(w, "pacs", due, NULL), 0);
    {
        hp_auto(hp_job) *retried = NULL;

        assert_int_equal(hp_job_retry(w->db, "1.2", &retried, NULL), HP_OK);
    }
    ledger_world_claim(w, "1.2");
    ledger_world_done(w, "1.2", "d1", TWO, 1); /* the same objects, owed again */
    assert_int_equal(claim(w, "pacs", due, NULL), 2);
}

static void test_outbox__a_peer_that_is_gone_is_waited_for_no_more(void **state)
{
    ledger_world *w = *state;
    int count = 0;

    reported(w, "1.2", TWO, 2);
    answer_all(w, "pacs", HP_OK, 0);
    assert_int_equal(hp_outbox_retire(w->db, TWO, 2, &count, NULL), HP_OK);
    assert_int_equal(count, 0);
    ledger_world_expect(w, "1.2", "reported");
    assert_int_equal(hp_outbox_retire(w->db, TWO, 1, &count, NULL), HP_OK);
    assert_int_equal(count, 1);
    ledger_world_expect(w, "1.2", "sent");
}

static void test_outbox__peers_are_shown_with_their_queues(void **state)
{
    ledger_world *w = *state;
    hp_auto(json_t) *peers = NULL;
    const json_t *dead;

    reported(w, "1.2", TWO, 2);
    answer_all(w, "dead", HP_E_CONNECT, NO_STATUS);
    answer_all(w, "pacs", HP_OK, 0);
    assert_int_equal(hp_view_peers(w->db, &peers, NULL), HP_OK);
    assert_int_equal(json_array_size(peers), 2);
    dead = json_array_get(peers, 0);
    assert_string_equal(hp_json_str(dead, "name", ""), "dead");
    assert_int_equal(hp_json_int(dead, "queued", 0), 2);
    assert_int_equal(hp_json_int(dead, "failures", 0), 1);
    assert_int_equal(hp_json_int(json_array_get(peers, 1), "accepted", 0), 2);
}

#define W(test)                                                                          \
    cmocka_unit_test_setup_teardown(test, ledger_world_setup, ledger_world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        W(test_outbox__accepted_by_all_is_sent),
        W(test_outbox__a_dead_peer_delays_nobody),
        W(test_outbox__backs_off_from_30_s_to_30_min),
        W(test_outbox__a_day_down_loses_nothing),
        W(test_outbox__a_required_refusal_fails_the_job),
        W(test_outbox__an_optional_refusal_does_not),
        W(test_outbox__retry_asks_again_only_who_refused),
        W(test_outbox__not_now_waits_by_itself),
        W(test_outbox__two_deaths_set_a_delivery_aside),
        W(test_outbox__a_restart_sends_again),
        W(test_outbox__an_answer_that_got_lost_is_asked_for_again),
        W(test_outbox__a_clock_that_jumps_back_is_no_excuse),
        W(test_outbox__cancel_stops_what_waits),
        W(test_outbox__a_peer_that_is_gone_is_waited_for_no_more),
        W(test_outbox__peers_are_shown_with_their_queues)};

    return cmocka_run_group_tests_name("outbox", tests, NULL, NULL);
}
