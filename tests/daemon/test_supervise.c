/* Children: what they say arrives, how they end is told, none outlives its time.
 * The children are small shell scripts on fd 3. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "daemon/supervise.h"

typedef struct seen {
    uv_loop_t loop;
    char script[64];
    hp_process *process;
    int messages;
    char last[64];
    bool ended, clean;
    char how[64];
} seen;

static void on_message(const json_t *msg, void *payload)
{
    seen *s = payload;

    s->messages++;
    snprintf(s->last, sizeof s->last, "%s", hp_json_str(msg, "say", "?"));
}

static void on_end(bool clean, const char *words, void *payload)
{
    seen *s = payload;

    s->ended = true;
    s->clean = clean;
    snprintf(s->how, sizeof s->how, "%s", words);
}

static const hp_process_events EVENTS = {on_message, on_end};

static seen *start(const char *script)
{
    seen *s = calloc(1, sizeof *s);
    hp_error err = HP_ERROR_INIT;
    FILE *f;
    int fd;

    strcpy(s->script, "/tmp/hepar-test-XXXXXX");
    fd = mkstemp(s->script);
    f = fdopen(fd, "w");
    fprintf(f, "#!/bin/sh\n%s\n", script);
    fclose(f);
    chmod(s->script, 0700);
    uv_loop_init(&s->loop);
    if (hp_process_spawn(&s->loop, s->script, &EVENTS, s, &s->process, &err) != HP_OK)
        fail_msg("%s", err.msg);
    return s;
}

/* Runs until everything of the child is closed. */
static void finish(seen *s)
{
    uv_run(&s->loop, UV_RUN_DEFAULT);
    assert_true(s->ended);
    assert_int_equal(uv_loop_close(&s->loop), 0);
    unlink(s->script);
}

static void test_supervise__echoes_and_ends_at_eof(void **state)
{
    seen *s = start("exec cat <&3 >&3");

    (void)state;
    hp_process_send_take(s->process, json_pack("{ss}", "say", "hello"));
    while (s->messages < 1)
        uv_run(&s->loop, UV_RUN_ONCE);
    assert_string_equal(s->last, "hello");
    hp_process_end(s->process);
    finish(s);
    assert_true(s->clean);
    free(s);
}

static void test_supervise__last_words_come_before_the_end(void **state)
{
    seen *s = start("echo '{\"say\":\"done\"}' >&3; kill -9 $$");

    (void)state;
    finish(s);
    assert_int_equal(s->messages, 1);
    assert_string_equal(s->last, "done");
    assert_false(s->clean);
    assert_string_equal(s->how, "killed by signal 9");
    free(s);
}

static void test_supervise__is_killed_at_its_deadline(void **state)
{
    seen *s = start("exec sleep 600");

    (void)state;
    hp_process_deadline(s->process, 1);
    finish(s);
    assert_string_equal(s->how, "killed after 1 s");
    free(s);
}

static void test_supervise__closing_its_end_is_not_living_on(void **state)
{
    seen *s = start("exec 3>&-; exit 7");

    (void)state;
    finish(s);
    assert_string_equal(s->how, "exit 7");
    free(s);
}

static void test_supervise__no_json_no_life(void **state)
{
    seen *s = start("echo 'rm -rf /' >&3; echo '{\"say\":\"late\"}' >&3; exec sleep 600");

    (void)state;
    finish(s);
    assert_int_equal(s->messages, 0);
    assert_string_equal(s->how, "killed by signal 9");
    free(s);
}

static void test_supervise__half_lines_are_put_together(void **state)
{
    seen *s = start(
        "printf '{\"say\":' >&3; sleep 0.1; printf '\"two\"}\\n{\"say\":\"three\"}\\n"
        "{\"say\":\"never' >&3");

    (void)state;
    finish(s);
    assert_int_equal(s->messages, 2);
    assert_string_equal(s->last, "three");
    free(s);
}

static void test_supervise__inherits_only_fd_3_and_stderr(void **state)
{
    seen *s;
    int leak = dup(STDERR_FILENO); /* not close-on-exec */

    (void)state;
    assert_true(leak >= 3);
    s = start("n=0; for f in /proc/self/fd/*; do n=$((n+1)); done; "
              "test -e /proc/self/fd/12 && n=99; echo \"{\\\"say\\\":\\\"$n\\\"}\" >&3");
    finish(s);
    close(leak);
    /* 0 1 2 3, and what the shell itself opened (its script, the folder) */
    assert_true(atoi(s->last) <= 6);
    free(s);
}

static void test_supervise__a_missing_program_is_an_error(void **state)
{
    uv_loop_t loop;
    hp_process *p = NULL;

    (void)state;
    uv_loop_init(&loop);
    assert_int_equal(hp_process_spawn(&loop, "/nonexistent", &EVENTS, NULL, &p, NULL),
                     HP_E_NOT_FOUND);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void test_supervise__asking_once(void **state)
{
    static const char *const FINE[] = {"-c", "echo aside >&2; printf '{}\\n'", NULL};
    static const char *const BAD[] = {
        "-c", "echo first >&2; echo bundle.yaml:3 >&2; exit 3", NULL};
    static const char *const KILLED[] = {"-c", "kill -9 $$", NULL};
    hp_error err = HP_ERROR_INIT;
    hp_buf answer = HP_BUF_INIT;
    int status = 9;

    (void)state;
    assert_int_equal(hp_process_ask("/bin/sh", FINE, &answer, &status, &err), HP_OK);
    assert_int_equal(status, 0);
    assert_string_equal(hp_buf_str(&answer), "{}\n");
    assert_int_equal(hp_process_ask("/bin/sh", BAD, &answer, &status, &err),
                     HP_E_INVALID);
    assert_int_equal(status, 3);
    assert_non_null(strstr(err.msg, "bundle.yaml:3"));
    assert_int_equal(hp_process_ask("/bin/sh", KILLED, &answer, &status, &err),
                     HP_E_INVALID);
    assert_int_equal(status, -1);
    assert_int_not_equal(hp_process_ask("/nonexistent", FINE, &answer, &status, &err),
                         HP_OK);
    hp_buf_done(&answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_supervise__echoes_and_ends_at_eof),
        cmocka_unit_test(test_supervise__last_words_come_before_the_end),
        cmocka_unit_test(test_supervise__is_killed_at_its_deadline),
        cmocka_unit_test(test_supervise__closing_its_end_is_not_living_on),
        cmocka_unit_test(test_supervise__no_json_no_life),
        cmocka_unit_test(test_supervise__half_lines_are_put_together),
        cmocka_unit_test(test_supervise__inherits_only_fd_3_and_stderr),
        cmocka_unit_test(test_supervise__a_missing_program_is_an_error),
        cmocka_unit_test(test_supervise__asking_once)};

    hp_log_set_level(HP_LOG_ERROR);
    return cmocka_run_group_tests_name("supervise", tests, NULL, NULL);
}
