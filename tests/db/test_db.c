/* Opening, migrating, reading beside a writer and after it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "db/event.h"
#include "db/view.h"
#include "tests/fixture/ledger_world.h"

static void test_db__opens_twice_and_keeps_its_installation_id(void **state)
{
    ledger_world *w = *state;
    char first[65], second[65];

    assert_int_equal(hp_db_installation_id(w->db, first, NULL), HP_OK);
    assert_int_equal(strlen(first), 64);
    ledger_world_close(w);
    ledger_world_open(w);
    assert_int_equal(hp_db_installation_id(w->db, second, NULL), HP_OK);
    assert_string_equal(first, second);
}

static void test_db__reader_works_beside_the_writer_and_after_it(void **state)
{
    ledger_world *w = *state;
    hp_auto(hp_db) *reader = NULL;
    hp_auto(hp_db) *later = NULL;
    hp_auto(json_t) *studies = NULL;
    hp_auto(json_t) *again = NULL;
    hp_error err = HP_ERROR_INIT;

    ledger_world_slice(w, "1.2", "1.2.1", 0);
    assert_int_equal(hp_db_open_reader(w->path, &reader, &err), HP_OK);
    assert_int_equal(hp_view_studies(reader, 0, &studies, &err), HP_OK);
    assert_int_equal(json_array_size(studies), 1);
    ledger_world_close(w);
    /* -wal and -shm stay on a clean close, or this would fail */
    if (hp_db_open_reader(w->path, &later, &err) != HP_OK ||
        hp_view_studies(later, 0, &again, &err) != HP_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(json_array_size(again), 1);
}

/* heparctl as an admin who may read the files and write nothing. */
static void test_db__reader_needs_no_right_to_write(void **state)
{
    ledger_world *w = *state;
    char path[128];
    int status;
    pid_t pid;

    if (geteuid() != 0)
        skip();
    ledger_world_slice(w, "1.2", "1.2.1", 0);
    ledger_world_close(w);
    chmod(w->dir, 0755);
    chmod(w->path, 0644);
    snprintf(path, sizeof path, "%s-wal", w->path);
    chmod(path, 0644);
    snprintf(path, sizeof path, "%s-shm", w->path);
    chmod(path, 0644);
    pid = fork();
    if (pid == 0) {
        hp_db *reader = NULL;
        json_t *studies = NULL;
        hp_error err = HP_ERROR_INIT;
        bool fine = setgid(65534) == 0 && setuid(65534) == 0 &&
                    hp_db_open_reader(w->path, &reader, &err) == HP_OK &&
                    hp_view_studies(reader, 0, &studies, &err) == HP_OK &&
                    json_array_size(studies) == 1;
        if (!fine)
            fprintf(stderr, "as nobody: %s\n", err.msg);
        _exit(fine ? 0 : 1);
    }
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
}

static void test_db__no_ledger_is_not_found(void **state)
{
    hp_db *reader = NULL;

    (void)state;
    assert_int_equal(hp_db_open_reader("/nonexistent/hepar.db", &reader, NULL),
                     HP_E_NOT_FOUND);
    assert_null(reader);
}

static void test_db__a_reader_cannot_write(void **state)
{
    ledger_world *w = *state;
    hp_auto(hp_db) *reader = NULL;

    assert_int_equal(hp_db_open_reader(w->path, &reader, NULL), HP_OK);
    assert_int_not_equal(hp_event_add(reader, 0, 0, "x", NULL, "y"), HP_OK);
}

static void poke(const char *path, long offset, const char *bytes, size_t len)
{
    FILE *f = fopen(path, "r+b");

    assert_non_null(f);
    fseek(f, offset, SEEK_SET);
    fwrite(bytes, 1, len, f);
    fclose(f);
}

static void test_db__a_newer_ledger_is_refused_untouched(void **state)
{
    ledger_world *w = *state;
    hp_error err = HP_ERROR_INIT;
    hp_db *db = NULL;

    hp_db_checkpoint(w->db, 0, NULL);
    ledger_world_close(w);
    poke(w->path, 60, "\0\0\0\x63", 4); /* user_version 99 */
    assert_int_equal(hp_db_open(w->path, NULL, &db, &err), HP_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "99"));
    assert_int_equal(hp_db_open_reader(w->path, &db, &err), HP_E_UNSUPPORTED);
}

static void test_db__a_damaged_ledger_is_seen(void **state)
{
    ledger_world *w = *state;
    hp_error err = HP_ERROR_INIT;
    char zeros[4096];
    hp_db *db = NULL;
    hp_code code;

    for (int i = 0; i < 300; i++)
        ledger_world_slice(w, "1.2", "1.2.1", 0);
    hp_db_checkpoint(w->db, 0, NULL);
    ledger_world_close(w);
    memset(zeros, 0x5a, sizeof zeros);
    for (long page = 20; page < 28; page++)
        poke(w->path, page * 4096, zeros, sizeof zeros);
    code = hp_db_open(w->path, NULL, &db, &err);
    assert_int_equal(code, HP_E_CORRUPT);
}

static void test_db__no_ledger_of_another_kind(void **state)
{
    ledger_world *w = *state;
    hp_db *db = NULL;
    char path[128];
    FILE *f;

    snprintf(path, sizeof path, "%s/other.db", w->dir);
    f = fopen(path, "wb");
    for (int i = 0; i < 2000; i++)
        fputs("this is no ledger ", f);
    fclose(f);
    assert_int_equal(hp_db_open(path, NULL, &db, NULL), HP_E_CORRUPT);
}

static void test_db__uncommitted_work_is_rolled_back(void **state)
{
    ledger_world *w = *state;
    char name[64];
    hp_instance in = ledger_world_instance(w, "1.2", "1.2.1", 0, name);
    hp_job *job = NULL;

    {
        hp_auto(hp_tx) *outer = NULL;
        hp_auto(hp_tx) *inner = NULL;

        assert_int_equal(hp_tx_begin(w->db, &outer, NULL), HP_OK);
        assert_int_equal(hp_tx_begin(w->db, &inner, NULL), HP_OK);
        assert_int_equal(hp_study_add(w->db, &in, NULL), HP_OK);
        assert_int_equal(hp_tx_commit(inner, NULL), HP_OK); /* joins, writes nothing */
    }
    assert_int_equal(hp_job_of_study(w->db, "1.2", &job, NULL), HP_E_NOT_FOUND);
}

static void test_db__a_failed_part_dooms_the_whole(void **state)
{
    ledger_world *w = *state;
    hp_auto(hp_tx) *outer = NULL;
    hp_tx *inner = NULL;

    assert_int_equal(hp_tx_begin(w->db, &outer, NULL), HP_OK);
    assert_int_equal(hp_tx_begin(w->db, &inner, NULL), HP_OK);
    hp_tx_free(inner);
    assert_int_not_equal(hp_tx_commit(outer, NULL), HP_OK);
}

/* SQLite finds these before the C library's. */
static int syncs;

int fdatasync(int fd)
{
    syncs++;
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    syncs++;
    return (int)syscall(SYS_fsync, fd);
}

/* Commits one slice, or leaves it to be rolled back; how often it was synced. */
static int syncs_of(ledger_world *w, bool synced, bool commit)
{
    hp_auto(hp_tx) *tx = NULL;
    char name[64];
    hp_instance in = ledger_world_instance(w, "1.2", "1.2.1", 0, name);

    syncs = 0;
    assert_int_equal(synced ? hp_tx_begin(w->db, &tx, NULL)
                            : hp_tx_begin_unsynced(w->db, &tx, NULL),
                     HP_OK);
    assert_int_equal(hp_study_add(w->db, &in, NULL), HP_OK);
    if (commit)
        assert_int_equal(hp_tx_commit(tx, NULL), HP_OK);
    return syncs;
}

static void test_db__only_unsynced_commits_do_not_wait_for_the_disk(void **state)
{
    ledger_world *w = *state;

    assert_true(syncs_of(w, true, true) > 0);
    assert_int_equal(syncs_of(w, false, true), 0);
    assert_int_equal(syncs_of(w, false, true), 0);
    assert_true(syncs_of(w, true, true) > 0);
    assert_int_equal(syncs_of(w, false, false), 0); /* rolled back */
    assert_true(syncs_of(w, true, true) > 0);
    assert_int_equal(syncs_of(w, false, true), 0);
    syncs = 0;
    assert_int_equal(hp_study_refused(w->db, "", "words", NULL), HP_OK);
    assert_true(syncs > 0);
}

#define W(test)                                                                          \
    cmocka_unit_test_setup_teardown(test, ledger_world_setup, ledger_world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        W(test_db__opens_twice_and_keeps_its_installation_id),
        W(test_db__reader_works_beside_the_writer_and_after_it),
        W(test_db__reader_needs_no_right_to_write),
        cmocka_unit_test(test_db__no_ledger_is_not_found),
        W(test_db__a_reader_cannot_write),
        W(test_db__a_newer_ledger_is_refused_untouched),
        W(test_db__a_damaged_ledger_is_seen),
        W(test_db__no_ledger_of_another_kind),
        W(test_db__uncommitted_work_is_rolled_back),
        W(test_db__a_failed_part_dooms_the_whole),
        W(test_db__only_unsynced_commits_do_not_wait_for_the_disk)};

    return cmocka_run_group_tests_name("db", tests, NULL, NULL);
}
