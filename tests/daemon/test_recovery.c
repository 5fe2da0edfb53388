/* Start-up after a crash: state folder and ledger agree again. */
#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/recovery.h"
#include "dicom/spool.h"
#include "tests/fixture/dataset.h"
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

/* A slice as intake leaves it for the ledger. */
static void spool_slice(hp_spool *spool, const char *sop, uint8_t filler, bool finished)
{
    hp_spool_file f = HP_SPOOL_FILE_INIT;
    hp_buf b = HP_BUF_INIT;

    ds_slice_start(&b, HP_EXPLICIT_LE, sop);
    ds_header(&b, HP_EXPLICIT_LE, 0x7FE0, 0x0010, "OW", 2);
    hp_buf_u8(&b, filler);
    hp_buf_u8(&b, filler);
    assert_int_equal(
        hp_spool_create(spool, &f, DS_CT, sop, "1.2.840.10008.1.2.1", "SENDER", NULL),
        HP_OK);
    assert_int_equal(hp_spool_write(&f, b.data, b.len, NULL), HP_OK);
    if (finished)
        assert_int_equal(hp_spool_finish(&f, NULL), HP_OK);
    else
        close(f.fd); /* and then the power went */
    hp_buf_done(&b);
}

static hp_spool *open_spool(const node *n)
{
    char path[HP_PATH_MAX];
    hp_spool *spool = NULL;

    snprintf(path, sizeof path, "%s/spool", n->w->dir);
    assert_int_equal(hp_spool_open(path, &spool, NULL), HP_OK);
    return spool;
}

static int files_in(const node *n, const char *name)
{
    char path[HP_PATH_MAX];
    int count = 0;
    DIR *dir;

    snprintf(path, sizeof path, "%s/%s", n->w->dir, name);
    dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));)
        count += e->d_name[0] != '.';
    closedir(dir);
    return count;
}

static void test_recovery__what_was_never_whole_goes_rows_stay(void **state)
{
    node *n = *state;
    hp_recovery_counts c;
    hp_spool *spool = open_spool(n);

    for (int i = 0; i < 3; i++)
        ledger_world_slice(n->w, "1.2", "1.2.1", 0);
    put(n, "spool/00000001.dcm");
    put(n, "spool/00000002.dcm");
    put(n, "spool/00000003.dcm");
    put(n, "spool/00000000.dcm"); /* a blank, or a stranger */
    put(n, "spool/00000002x.dcm");
    put(n, "spool/zzzz.part"); /* as older versions left them */
    spool_slice(spool, "1.2.3.1", 1, false);
    c = recover(n);
    assert_true(c.parts >= 4); /* and the blanks */
    assert_int_equal(c.filed, 0);
    assert_int_equal(c.lost, 0);
    assert_int_equal(files_in(n, "spool"), 3);
    assert_true(there(n, "spool/00000001.dcm") && there(n, "spool/00000002.dcm") &&
                there(n, "spool/00000003.dcm"));
    ledger_world_expect(n->w, "1.2", "receiving");
    hp_spool_free(spool);
}

/* The power went after Success, before the rows were synced. */
static void test_recovery__whole_files_get_their_rows_back(void **state)
{
    node *n = *state;
    hp_recovery_counts c;
    hp_disposition d;
    char name[64];
    hp_spool *spool = open_spool(n);

    spool_slice(spool, "1.2.3.1", 1, true);
    spool_slice(spool, "1.2.3.2", 2, true);
    c = recover(n);
    assert_int_equal(c.filed, 2);
    assert_int_equal(files_in(n, "spool"), 2); /* the blanks went */
    ledger_world_expect(n->w, DS_STUDY, "receiving");
    for (int i = 1; i <= 2; i++) {
        char sop[16], path[128];

        snprintf(sop, sizeof sop, "1.2.3.%d", i);
        assert_int_equal(hp_study_lookup(n->w->db, sop, &d, name, NULL), HP_OK);
        assert_int_equal(d, HP_STORED_DUPLICATE);
        snprintf(path, sizeof path, "spool/%s", name);
        assert_true(there(n, path));
    }
    c = recover(n); /* once is enough */
    assert_int_equal(c.filed, 0);
    assert_int_equal(c.lost, 0);
    hp_spool_free(spool);
}

/* Unlinked and set-aside files whose folder was not synced come back. */
static void test_recovery__what_was_filed_otherwise_is_filed_so_again(void **state)
{
    node *n = *state;
    hp_recovery_counts c;
    hp_spool *spool = open_spool(n);

    spool_slice(spool, "1.2.3.1", 1, true);
    spool_slice(spool, "1.2.3.1", 1, true); /* the same bytes */
    spool_slice(spool, "1.2.3.1", 2, true); /* others */
    c = recover(n);
    assert_int_equal(c.filed, 3);
    assert_int_equal(files_in(n, "spool"), 1);
    assert_int_equal(files_in(n, "quarantine"), 1);
    hp_spool_free(spool);
}

/* A file that may have been answered for is never thrown away: not when this
 * hepar cannot read it, not when the ledger cannot take its row. */
static void test_recovery__a_whole_file_is_never_removed(void **state)
{
    node *n = *state;
    hp_recovery_counts c;
    hp_spool *spool = open_spool(n);
    hp_spool_file f = HP_SPOOL_FILE_INIT;
    struct rlimit all, none;

    assert_int_equal(
        hp_spool_create(spool, &f, DS_CT, "1.2.3", "1.2.840.10008.1.2.1", "SENDER", NULL),
        HP_OK);
    assert_int_equal(hp_spool_write(&f, "no dataset", 10, NULL), HP_OK);
    assert_int_equal(hp_spool_finish(&f, NULL), HP_OK);
    c = recover(n);
    assert_int_equal(c.unreadable, 1);
    assert_int_equal(files_in(n, "quarantine"), 1);

    spool_slice(spool, "1.2.3.1", 1, true);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &all);
    none = all;
    none.rlim_cur = 0;
    setrlimit(RLIMIT_FSIZE, &none);
    assert_int_not_equal(hp_recovery_run(&n->config, n->w->db, &c, NULL), HP_OK);
    setrlimit(RLIMIT_FSIZE, &all);
    c = recover(n);
    assert_int_equal(c.filed, 1);
    hp_spool_free(spool);
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
        W(test_recovery__what_was_never_whole_goes_rows_stay),
        W(test_recovery__whole_files_get_their_rows_back),
        W(test_recovery__what_was_filed_otherwise_is_filed_so_again),
        W(test_recovery__a_whole_file_is_never_removed),
        W(test_recovery__a_row_without_a_file_fails_the_job),
        W(test_recovery__a_running_job_runs_again),
        W(test_recovery__a_renamed_run_without_rows_is_litter),
        W(test_recovery__recorded_results_stay_and_are_sent_again)};

    return cmocka_run_group_tests_name("recovery", tests, NULL, NULL);
}
