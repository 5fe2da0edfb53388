/* Start-up after a crash: state folder and ledger agree again. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/recovery.h"
#include "tests/fixture/ledger_world.h"

typedef struct node {
    ledger_world *w;
    hp_config config;
    int lock;
} node;

static node world;

static int setup(void **state)
{
    hp_error err = HP_ERROR_INIT;

    ledger_world_setup((void **)&world.w);
    hp_config_init(&world.config);
    snprintf(world.config.state_dir, sizeof world.config.state_dir, "%s", world.w->dir);
    if (hp_recovery_lock(&world.config, &world.lock, &err) != HP_OK)
        fail_msg("%s", err.msg);
    *state = &world;
    return 0;
}

static int teardown(void **state)
{
    node *n = *state;

    close(n->lock);
    return ledger_world_teardown((void **)&n->w);
}

static void put(const node *n, const char *name)
{
    char path[HP_PATH_MAX];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", n->w->dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    fclose(f);
}

static void make(const node *n, const char *name)
{
    char path[HP_PATH_MAX];

    snprintf(path, sizeof path, "%s/%s", n->w->dir, name);
    assert_int_equal(hp_path_mkdirs(path, 0700, NULL), HP_OK);
}

static bool there(const node *n, const char *name)
{
    char path[HP_PATH_MAX];

    snprintf(path, sizeof path, "%s/%s", n->w->dir, name);
    return hp_path_exists(path);
}

static hp_recovery_counts recover(node *n)
{
    hp_recovery_counts counts;
    hp_error err = HP_ERROR_INIT;

    if (hp_recovery_run(&n->config, n->w->db, &counts, &err) != HP_OK)
        fail_msg("%s", err.msg);
    return counts;
}

static void test_recovery__modes_and_lock(void **state)
{
    static const struct {
        const char *name;
        unsigned mode;
    } FOLDERS[] = {{"", 0750}, {"spool", 0700}, {"outbox", 0700}, {"quarantine", 0700}};
    node *n = *state;
    hp_error err = HP_ERROR_INIT;
    int second = -1;

    for (size_t i = 0; i < sizeof FOLDERS / sizeof *FOLDERS; i++) {
        char path[HP_PATH_MAX];
        struct stat st;

        snprintf(path, sizeof path, "%s/%s", n->w->dir, FOLDERS[i].name);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 07777, FOLDERS[i].mode);
    }
    assert_int_equal(hp_recovery_lock(&n->config, &second, &err), HP_E_BUSY);
    assert_non_null(strstr(err.msg, "another hepard"));
}

static void test_recovery__parts_and_litter_go_rows_stay(void **state)
{
    node *n = *state;
    hp_recovery_counts c;

    for (int i = 0; i < 3; i++)
        ledger_world_slice(n->w, "1.2", "1.2.1", 0);
    put(n, "spool/00000001.dcm");
    put(n, "spool/00000002.dcm");
    put(n, "spool/00000003.dcm");
    put(n, "spool/00000000.dcm"); /* renamed, and then the power went */
    put(n, "spool/00000002x.dcm");
    put(n, "spool/99999999.dcm");
    put(n, "spool/half.part");
    c = recover(n);
    assert_int_equal(c.parts, 1);
    assert_int_equal(c.litter, 3);
    assert_int_equal(c.lost, 0);
    assert_true(there(n, "spool/00000001.dcm") && there(n, "spool/00000002.dcm") &&
                there(n, "spool/00000003.dcm"));
    assert_false(there(n, "spool/99999999.dcm"));
    ledger_world_expect(n->w, "1.2", "receiving");
}

static void test_recovery__a_row_without_a_file_fails_the_job(void **state)
{
    node *n = *state;
    hp_recovery_counts c;
    hp_auto(hp_job) *job = NULL;

    for (int i = 0; i < 3; i++)
        ledger_world_slice(n->w, "1.2", "1.2.1", 0);
    put(n, "spool/00000001.dcm");
    put(n, "spool/00000003.dcm");
    ledger_world_claim(n->w, "1.2");
    c = recover(n);
    assert_int_equal(c.lost, 1);
    assert_int_equal(c.jobs, 0); /* it failed before it could become ready */
    job = ledger_world_job(n->w, "1.2");
    assert_int_equal(job->state, HP_JOB_FAILED);
    assert_string_equal(job->reason_code, "file_lost");
    c = recover(n); /* once is enough */
    assert_int_equal(c.lost, 0);
}

static void test_recovery__a_running_job_runs_again(void **state)
{
    node *n = *state;
    hp_recovery_counts c;

    ledger_world_slice(n->w, "1.2", "1.2.1", 0);
    put(n, "spool/00000001.dcm");
    ledger_world_claim(n->w, "1.2");
    make(n, "outbox/1/1.part");
    put(n, "outbox/1/1.part/sr.dcm");
    c = recover(n);
    assert_int_equal(c.jobs, 1);
    assert_false(there(n, "outbox/1/1.part"));
    ledger_world_expect(n->w, "1.2", "ready");
}

static void test_recovery__a_renamed_run_without_rows_is_litter(void **state)
{
    node *n = *state;
    hp_recovery_counts c;

    ledger_world_slice(n->w, "1.2", "1.2.1", 0);
    put(n, "spool/00000001.dcm");
    ledger_world_claim(n->w, "1.2");
    make(n, "outbox/1/1"); /* renamed, and then the power went */
    put(n, "outbox/1/1/sr.dcm");
    c = recover(n);
    assert_int_equal(c.litter, 1);
    assert_false(there(n, "outbox/1/1"));
    ledger_world_expect(n->w, "1.2", "ready");
}

static void test_recovery__recorded_results_stay_and_are_sent_again(void **state)
{
    static const char *const PACS[] = {"pacs"};
    node *n = *state;
    hp_recovery_counts c;
    hp_delivery due[HP_OUTBOX_GROUP];
    int count;
    int64_t again;

    ledger_world_slice(n->w, "1.2", "1.2.1", 0);
    put(n, "spool/00000001.dcm");
    ledger_world_claim(n->w, "1.2");
    make(n, "outbox/1/1");
    put(n, "outbox/1/1/sr.dcm");
    ledger_world_done(n->w, "1.2", "d1", PACS, 1);
    assert_int_equal(hp_outbox_claim(n->w->db, "pacs", due, &count, &again, NULL), HP_OK);
    assert_int_equal(count, 2);
    c = recover(n);
    assert_int_equal(c.deliveries, 2);
    assert_int_equal(c.litter, 0);
    assert_true(there(n, "outbox/1/1/sr.dcm"));
}

#define W(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        W(test_recovery__modes_and_lock),
        W(test_recovery__parts_and_litter_go_rows_stay),
        W(test_recovery__a_row_without_a_file_fails_the_job),
        W(test_recovery__a_running_job_runs_again),
        W(test_recovery__a_renamed_run_without_rows_is_litter),
        W(test_recovery__recorded_results_stay_and_are_sent_again)};

    return cmocka_run_group_tests_name("recovery", tests, NULL, NULL);
}
