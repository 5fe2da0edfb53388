/* The ledger thread: what is answered is durable, what is not kept is gone. Runs
 * under TSan like all of daemon/. */
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

#include "daemon/ledger.h"
#include "daemon/recovery.h"

#define CT "1.2.840.10008.5.1.4.1.1.2"
#define EXPLICIT_LE "1.2.840.10008.1.2.1"

typedef struct node {
    char dir[64];
    hp_config config;
    uv_loop_t loop;
    hp_ledger *ledger;
    hp_spool *spool;
    int lock;
    pthread_t loop_thread;
    int answers, news;
} node;

typedef struct answer {
    node *node;
    bool there;
    hp_code code;
    hp_disposition disposition;
} answer;

static void on_news(void *payload)
{
    ((node *)payload)->news++;
}

static void open_node(node *n)
{
    hp_error err = HP_ERROR_INIT;
    char path[HP_PATH_MAX];
    hp_db *db = NULL;

    snprintf(path, sizeof path, "%s/hepar.db", n->dir);
    uv_loop_init(&n->loop);
    if (hp_recovery_lock(&n->config, &n->lock, &err) != HP_OK ||
        hp_db_open(path, NULL, &db, &err) != HP_OK ||
        hp_ledger_open_take(&n->loop, &n->config, db, &n->ledger, &err) != HP_OK)
        fail_msg("%s", err.msg);
    hp_ledger_on_news(n->ledger, on_news, n);
}

static void close_node(node *n)
{
    hp_ledger_close(n->ledger);
    uv_run(&n->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&n->loop), 0);
    close(n->lock);
}

static int setup(void **state)
{
    node *n = calloc(1, sizeof *n);
    char spool[HP_PATH_MAX];

    strcpy(n->dir, "/tmp/hepar-test-XXXXXX");
    assert_non_null(mkdtemp(n->dir));
    hp_config_init(&n->config);
    snprintf(n->config.state_dir, sizeof n->config.state_dir, "%s", n->dir);
    n->loop_thread = pthread_self();
    open_node(n);
    snprintf(spool, sizeof spool, "%s/spool", n->dir);
    assert_int_equal(hp_spool_open(spool, &n->spool, NULL), HP_OK);
    *state = n;
    return 0;
}

static int teardown(void **state)
{
    node *n = *state;

    close_node(n);
    hp_spool_free(n->spool);
    hp_path_remove(n->dir, NULL);
    free(n);
    return 0;
}

/* But for blanks, which are empty. */
static int files_in(const node *n, const char *folder)
{
    char path[HP_PATH_MAX];
    struct dirent *entry;
    int count = 0;
    DIR *dir;

    snprintf(path, sizeof path, "%s/%s", n->dir, folder);
    dir = opendir(path);
    while ((entry = readdir(dir)) != NULL) {
        struct stat st;

        assert_int_equal(fstatat(dirfd(dir), entry->d_name, &st, 0), 0);
        count += S_ISREG(st.st_mode) && st.st_size > 0;
    }
    closedir(dir);
    return count;
}

static hp_stored slice(node *n, const char *study, const char *sop, const char *bytes)
{
    hp_stored s = {.calling_ae = "SENDER", .peer = "127.0.0.1", .modality = "CT"};
    hp_spool_file f = HP_SPOOL_FILE_INIT;
    hp_error err = HP_ERROR_INIT;

    if (hp_spool_create(n->spool, &f, CT, sop, EXPLICIT_LE, "SENDER", &err) != HP_OK ||
        hp_spool_write(&f, bytes, strlen(bytes), &err) != HP_OK ||
        hp_spool_finish(&f, &err) != HP_OK)
        fail_msg("%s", err.msg);
    snprintf(s.path, sizeof s.path, "%s", f.path);
    strcpy(s.sop_class.text, CT);
    strcpy(s.transfer_syntax.text, EXPLICIT_LE);
    snprintf(s.sop_instance.text, HP_UID_SIZE, "%s", sop);
    snprintf(s.study.text, HP_UID_SIZE, "%s", study);
    snprintf(s.series.text, HP_UID_SIZE, "%.60s.1", study);
    return s;
}

static void on_answer(hp_code code, hp_disposition disposition, void *payload)
{
    answer *a = payload;

    assert_true(pthread_equal(pthread_self(), a->node->loop_thread));
    a->there = true;
    a->code = code;
    a->disposition = disposition;
    a->node->answers++;
}

static void run_until(node *n, int answers)
{
    while (n->answers < answers)
        uv_run(&n->loop, UV_RUN_ONCE);
}

static answer store(node *n, const char *study, const char *sop, const char *bytes)
{
    answer a = {.node = n};
    hp_stored s = slice(n, study, sop, bytes);

    hp_ledger_store(n->ledger, &s, on_answer, &a);
    run_until(n, n->answers + 1);
    return a;
}

static void test_ledger__a_new_slice_has_its_final_name(void **state)
{
    node *n = *state;
    answer a = store(n, "1.2", "1.2.3", "pixels");

    assert_int_equal(a.code, HP_OK);
    assert_int_equal(a.disposition, HP_STORED_NEW);
    assert_int_equal(files_in(n, "spool"), 1);
    assert_int_equal(n->news, 1);
}

static void test_ledger__the_same_bytes_again_are_a_duplicate(void **state)
{
    node *n = *state;

    store(n, "1.2", "1.2.3", "pixels");
    for (int i = 0; i < 3; i++)
        assert_int_equal(store(n, "1.2", "1.2.3", "pixels").disposition,
                         HP_STORED_DUPLICATE);
    assert_int_equal(files_in(n, "spool"), 1);
    assert_int_equal(files_in(n, "quarantine"), 0);
    assert_int_equal(n->news, 1); /* no second run for it */
}

static void test_ledger__other_bytes_go_to_quarantine(void **state)
{
    node *n = *state;
    answer a;

    store(n, "1.2", "1.2.3", "pixels");
    a = store(n, "1.2", "1.2.3", "PIXELS");
    assert_int_equal(a.code, HP_OK);
    assert_int_equal(a.disposition, HP_STORED_CONFLICT);
    assert_int_equal(files_in(n, "spool"), 1);
    assert_int_equal(files_in(n, "quarantine"), 1);
    assert_int_equal(store(n, "1.2", "1.2.3", "pixels").disposition, HP_STORED_DUPLICATE);
}

static void test_ledger__twins_in_one_group_are_told_apart(void **state)
{
    node *n = *state;
    answer a = {.node = n}, b = {.node = n}, c = {.node = n};
    hp_stored first = slice(n, "1.2", "1.2.3", "pixels");
    hp_stored second = slice(n, "1.2", "1.2.3", "pixels");
    hp_stored third = slice(n, "1.2", "1.2.3", "others");

    hp_ledger_store(n->ledger, &first, on_answer, &a);
    hp_ledger_store(n->ledger, &second, on_answer, &b);
    hp_ledger_store(n->ledger, &third, on_answer, &c);
    run_until(n, 3);
    assert_int_equal(a.disposition, HP_STORED_NEW);
    assert_int_equal(b.disposition, HP_STORED_DUPLICATE);
    assert_int_equal(c.disposition, HP_STORED_CONFLICT);
    assert_int_equal(files_in(n, "spool"), 1);
}

/* The i-th of many, handed over without waiting. */
static void store_numbered(node *n, int i, answer *ret)
{
    char sop[40];
    hp_stored s;

    snprintf(sop, sizeof sop, "1.2.3.%d", i);
    s = slice(n, "1.2", sop, "pixels");
    *ret = (answer){.node = n};
    hp_ledger_store(n->ledger, &s, on_answer, ret);
}

static void test_ledger__hundreds_at_once_are_all_answered(void **state)
{
    enum { MANY = 300 };
    static answer answers[MANY];
    node *n = *state;

    for (int i = 0; i < MANY; i++) {
        store_numbered(n, i, &answers[i]);
        if (i % 7 == 0)
            uv_run(&n->loop, UV_RUN_NOWAIT);
    }
    run_until(n, MANY);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(answers[i].code, HP_OK);
    assert_int_equal(files_in(n, "spool"), MANY);
}

/* The first file is gone behind our back: what comes is the first one again. */
static void test_ledger__a_lost_file_is_replaced_by_the_next_copy(void **state)
{
    node *n = *state;
    char path[HP_PATH_MAX];

    store(n, "1.2", "1.2.3", "pixels");
    snprintf(path, sizeof path, "%s/spool", n->dir);
    hp_path_remove(path, NULL);
    hp_path_mkdirs(path, 0700, NULL);
    assert_int_equal(store(n, "1.2", "1.2.3", "pixels").disposition, HP_STORED_NEW);
    assert_int_equal(files_in(n, "spool"), 1);
}

static void test_ledger__a_failed_commit_leaves_nothing(void **state)
{
    node *n = *state;
    answer a = {.node = n};
    hp_stored s = slice(n, "1.2", "1.2.3", "pixels");
    struct rlimit all, none;

    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &all);
    none = all;
    none.rlim_cur = 0;
    setrlimit(RLIMIT_FSIZE, &none); /* the row cannot be written */
    hp_ledger_store(n->ledger, &s, on_answer, &a);
    run_until(n, 1);
    setrlimit(RLIMIT_FSIZE, &all);
    assert_int_not_equal(a.code, HP_OK);
    assert_int_equal(files_in(n, "spool"), 0);
    assert_int_equal(n->news, 0);
    /* and the next one is served */
    assert_int_equal(store(n, "1.2", "1.2.4", "pixels").code, HP_OK);
}

static void test_ledger__one_bad_slice_does_not_fail_its_group(void **state)
{
    node *n = *state;
    answer good = {.node = n}, bad = {.node = n};
    hp_stored one, two;

    store(n, "1.2", "1.2.3", "pixels");
    one = slice(n, "1.2", "1.2.3", "pixels");
    two = slice(n, "1.2", "1.2.4", "pixels");
    unlink(one.path); /* it cannot be compared with the first */
    hp_ledger_store(n->ledger, &one, on_answer, &bad);
    hp_ledger_store(n->ledger, &two, on_answer, &good);
    run_until(n, 3);
    assert_int_not_equal(bad.code, HP_OK);
    assert_int_equal(good.code, HP_OK);
    assert_int_equal(files_in(n, "spool"), 2);
}

/* ---- calls ---- */

static hp_code count_calls(hp_db *db, void *arg, hp_error *reterr)
{
    (void)db;
    ++*(int *)arg;
    return *(int *)arg == 3 ? hp_fail(reterr, HP_E_BUSY, "the third") : HP_OK;
}

static int done_ok, done_failed;

static void count_done(hp_code code, const hp_error *error, void *arg)
{
    (void)arg;
    done_ok += code == HP_OK;
    done_failed += code == HP_E_BUSY && strcmp(error->msg, "the third") == 0;
}

static void test_ledger__calls_run_in_order_and_report(void **state)
{
    node *n = *state;
    int calls = 0;

    done_ok = done_failed = 0;
    for (int i = 0; i < 5; i++)
        hp_ledger_call(n->ledger, count_calls, count_done, &calls);
    while (done_ok + done_failed < 5)
        uv_run(&n->loop, UV_RUN_ONCE);
    assert_int_equal(done_ok, 4);
    assert_int_equal(done_failed, 1);
}

static void test_ledger__closing_answers_everybody(void **state)
{
    enum { MANY = 50 };
    static answer answers[MANY];
    node *n = *state;

    for (int i = 0; i < MANY; i++)
        store_numbered(n, i, &answers[i]);
    close_node(n);
    assert_int_equal(n->answers, MANY);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(answers[i].code, HP_OK); /* what waited was finished */
    open_node(n);
}

/* ---- associations ---- */

static void test_ledger__counts_who_carries_a_study(void **state)
{
    node *n = *state;
    size_t count;
    hp_uid *open;

    hp_ledger_association(n->ledger, "1.2", 1);
    hp_ledger_association(n->ledger, "1.2", 1);
    hp_ledger_association(n->ledger, "1.3", 1);
    hp_ledger_association(n->ledger, "1.2", -1);
    open = hp_ledger_open_studies(n->ledger, &count);
    assert_int_equal(count, 2);
    free(open);
    hp_ledger_association(n->ledger, "1.2", -1);
    open = hp_ledger_open_studies(n->ledger, &count);
    assert_int_equal(count, 1);
    assert_string_equal(open[0].text, "1.3");
    free(open);
    hp_ledger_association(n->ledger, "1.9", -1); /* never began: harmless */
    assert_int_equal(n->news, 2);
}

#define W(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        W(test_ledger__a_new_slice_has_its_final_name),
        W(test_ledger__the_same_bytes_again_are_a_duplicate),
        W(test_ledger__other_bytes_go_to_quarantine),
        W(test_ledger__twins_in_one_group_are_told_apart),
        W(test_ledger__hundreds_at_once_are_all_answered),
        W(test_ledger__a_lost_file_is_replaced_by_the_next_copy),
        W(test_ledger__a_failed_commit_leaves_nothing),
        W(test_ledger__one_bad_slice_does_not_fail_its_group),
        W(test_ledger__calls_run_in_order_and_report),
        W(test_ledger__closing_answers_everybody),
        W(test_ledger__counts_who_carries_a_study)};

    return cmocka_run_group_tests_name("ledger", tests, NULL, NULL);
}
