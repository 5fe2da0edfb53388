/* hepar-worker over its socketpair, as hepard drives it. The program's path is
 * the first argument; a module whose GPU fails in its first run is the second. */
#include "tests/base/check.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/path.h"
#include "daemon/child.h"
#include "daemon/job_run.h"
#include "tests/fixture/ct_world.h"
#include "tests/inference/tiny_bundle.h"

static const char *program, *broken_module;

typedef struct worker {
    pid_t pid;
    int fd;
    char inbox[1 << 18];
    size_t len;
    char dir[256];
    hp_slice_list list;
} worker;

static void start(worker *w, const char *crash_at)
{
    struct timeval patience = {20, 0};
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    w->pid = fork();
    if (w->pid == 0) {
        if (crash_at != NULL)
            setenv("HEPAR_CRASH_AT", crash_at, 1);
        if (pair[1] == 3)
            fcntl(3, F_SETFD, 0);
        else
            dup2(pair[1], 3);
        execl(program, program, (char *)NULL);
        _exit(99);
    }
    close(pair[1]);
    w->fd = pair[0];
    w->len = 0;
    setsockopt(w->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
}

/* The exit code, or -signal. */
static int end(worker *w)
{
    int status;

    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
    assert_int_equal(waitpid(w->pid, &status, 0), w->pid);
    w->pid = 0;
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static int setup(void **state)
{
    worker *w = calloc(1, sizeof *w);

    assert_non_null(w);
    w->fd = -1;
    *state = w;
    return ct_world_folder(w->dir) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    worker *w = *state;

    if (w->pid > 0) {
        kill(w->pid, SIGKILL);
        end(w);
    }
    ct_world_remove_folder(w->dir);
    hp_slice_list_done(&w->list);
    free(w);
    return 0;
}

static void say(worker *w, json_t *msg)
{
    char *line = json_dumps(msg, JSON_COMPACT);

    assert_non_null(line);
    assert_int_equal(write(w->fd, line, strlen(line)), strlen(line));
    assert_int_equal(write(w->fd, "\n", 1), 1);
    free(line);
    json_decref(msg);
}

/* The next message, or NULL when the worker has gone. */
static json_t *hear(worker *w)
{
    for (;;) {
        char *stop = memchr(w->inbox, '\n', w->len);
        ssize_t n;

        if (stop != NULL) {
            size_t len = (size_t)(stop - w->inbox);
            json_t *msg = NULL;

            assert_int_equal(hp_json_parse(w->inbox, len, &msg, NULL), HP_OK);
            w->len -= len + 1;
            memmove(w->inbox, stop + 1, w->len);
            return msg;
        }
        assert_true(w->len < sizeof w->inbox);
        n = read(w->fd, w->inbox + w->len, sizeof w->inbox - w->len);
        if (n <= 0)
            return NULL;
        w->len += (size_t)n;
    }
}

/* Skips progress. */
static json_t *hear_answer(worker *w)
{
    json_t *msg;

    while ((msg = hear(w)) != NULL &&
           strcmp(hp_json_str(msg, "event", ""), "progress") == 0)
        json_decref(msg);
    return msg;
}

static json_t *files_of(const worker *w)
{
    json_t *list = json_array();

    for (size_t i = 0; i < w->list.count; i++)
        json_array_append_new(list, json_string(w->list.item[i].path));
    return list;
}

static json_t *run_message(const worker *w, json_t *options)
{
    char out[300];

    snprintf(out, sizeof out, "%s/out", w->dir);
    return json_pack("{ss,si,si,ss,si,so,ss,sI,ss,so}", "do", "run", "job", 7, "run", 2,
                     "study_uid", w->list.item[0].study.text, "revision", 1, "files",
                     files_of(w), "out", out, "created_ms", (json_int_t)1700000000000,
                     "installation_id", "test", "options", options);
}

static void add(worker *w, int series, const char *description)
{
    ct_world_add(&w->list,
                 &(ct_stack){.series = series, .description = description, .count = 30});
}

static void expect_text(const json_t *msg, const char *key, const char *want)
{
    assert_non_null(msg);
    assert_string_equal(hp_json_str(msg, key, "(none)"), want);
}

static void test_worker__an_unsuitable_study_has_a_reason_and_no_objects(void **state)
{
    worker *w = *state;
    json_t *msg, *series;
    char path[400];

    add(w, 2, "Thorax native");
    assert_true(ct_world_write_all(&w->list, w->dir));
    start(w, NULL);
    say(w, run_message(w, json_object()));
    msg = hear_answer(w);
    expect_text(msg, "event", "done");
    expect_text(msg, "outcome", "unsuitable");
    expect_text(msg, "reason_code", "no_venous_phase");
    assert_int_equal(hp_json_int(msg, "job", 0), 7);
    assert_int_equal(hp_json_int(msg, "run", 0), 2);
    assert_int_equal(json_array_size(json_object_get(msg, "objects")), 0);
    assert_int_equal(strlen(hp_json_str(msg, "input_digest", "")), 64);
    series = json_object_get(json_object_get(msg, "result"), "series");
    assert_int_equal(json_array_size(series), 1);
    expect_text(json_array_get(series, 0), "role", "NC");
    json_decref(msg);
    snprintf(path, sizeof path, "%s/out/result.json", w->dir);
    assert_true(hp_path_exists(path));
    assert_int_equal(end(w), 0); /* exits on EOF */
}

static void test_worker__tells_progress(void **state)
{
    worker *w = *state;
    json_t *msg;

    add(w, 2, "native");
    assert_true(ct_world_write_all(&w->list, w->dir));
    start(w, NULL);
    say(w, run_message(w, json_object()));
    msg = hear(w);
    expect_text(msg, "event", "progress");
    expect_text(msg, "stage", "read");
    assert_int_equal(hp_json_int(msg, "run", 0), 2);
    json_decref(msg);
}

static void test_worker__two_patients_fail(void **state)
{
    worker *w = *state;
    hp_slice other;
    json_t *msg;
    char text[32] = "PHANTOM-2";
    FILE *f;
    char bytes[4096];
    char *id;
    size_t n;

    add(w, 2, "portal venous");
    assert_true(ct_world_write_all(&w->list, w->dir));
    other = w->list.item[5];
    f = fopen(other.path, "r+b");
    assert_non_null(f);
    n = fread(bytes, 1, sizeof bytes, f);
    id = memmem(bytes, n, "PHANTOM-1", 9);
    assert_non_null(id);
    fseek(f, id - bytes, SEEK_SET);
    fwrite(text, 1, 9, f);
    fclose(f);
    start(w, NULL);
    say(w, run_message(w, json_object()));
    msg = hear_answer(w);
    expect_text(msg, "outcome", "failed");
    expect_text(msg, "reason_code", "two_patients");
    assert_int_equal(json_array_size(json_object_get(msg, "objects")), 0);
    assert_false(hp_json_bool(msg, "may_retry", true));
    assert_null(strstr(hp_json_str(msg, "reason", ""), "PHANTOM"));
    json_decref(msg);
}

static void test_worker__a_lost_file_fails_and_the_next_job_runs(void **state)
{
    worker *w = *state;
    json_t *msg;

    add(w, 2, "native");
    assert_true(ct_world_write_all(&w->list, w->dir));
    hp_path_remove(w->list.item[3].path, NULL);
    start(w, NULL);
    say(w, run_message(w, json_object()));
    msg = hear_answer(w);
    expect_text(msg, "outcome", "failed");
    expect_text(msg, "reason_code", "E_NOT_FOUND");
    json_decref(msg);
    assert_true(ct_world_write_all(&w->list, w->dir));
    say(w, run_message(w, json_object()));
    msg = hear_answer(w);
    expect_text(msg, "outcome", "unsuitable");
    json_decref(msg);
}

/* One file is damaged: it is one file less, and the gap is what stops it. */
static void expect_missing_slice(worker *w, void (*damage)(const char *path))
{
    json_t *msg;

    add(w, 2, "venous");
    assert_true(ct_world_write_all(&w->list, w->dir));
    damage(w->list.item[9].path);
    start(w, NULL);
    say(w, run_message(w, json_object()));
    msg = hear_answer(w);
    expect_text(msg, "reason_code", "irregular_geometry");
    assert_non_null(strstr(hp_json_str(msg, "reason", ""), "1 file could not be read"));
    json_decref(msg);
}

static void cut_off(const char *path)
{
    assert_int_equal(truncate(path, 3000), 0);
}

static void test_worker__a_cut_off_slice_is_a_missing_slice(void **state)
{
    expect_missing_slice(*state, cut_off);
}

/* 100 sequences inside each other in front of the pixels. */
static void bury(const char *path)
{
    static const uint8_t NEST[] = {0x40, 0,    0x54, 0xA7, 'S',  'Q',  0,
                                   0,    0xFF, 0xFF, 0xFF, 0xFF, 0xFE, 0xFF,
                                   0,    0xE0, 0xFF, 0xFF, 0xFF, 0xFF};
    FILE *f = fopen(path, "r+b");
    uint8_t head[144];

    assert_non_null(f);
    assert_int_equal(fread(head, 1, sizeof head, f), sizeof head);
    fseek(f, (long)sizeof head + (head[140] | head[141] << 8), SEEK_SET);
    for (int i = 0; i < 100; i++)
        fwrite(NEST, 1, sizeof NEST, f);
    fclose(f);
}

static void test_worker__a_slice_beyond_a_limit_is_a_missing_slice(void **state)
{
    expect_missing_slice(*state, bury);
}

static void test_worker__another_study_is_refused(void **state)
{
    worker *w = *state;
    json_t *msg;

    add(w, 2, "venous");
    assert_true(ct_world_write_all(&w->list, w->dir));
    start(w, NULL);
    msg = run_message(w, json_object());
    json_object_set_new(msg, "study_uid", json_string("1.2.3"));
    say(w, msg);
    msg = hear_answer(w);
    expect_text(msg, "outcome", "failed");
    json_decref(msg);
}

static void test_worker__bad_options_are_named(void **state)
{
    worker *w = *state;
    json_t *msg;

    add(w, 2, "venous");
    assert_true(ct_world_write_all(&w->list, w->dir));
    start(w, NULL);
    say(w, run_message(w, json_pack("{ss}", "missing_phase", "guess")));
    msg = hear_answer(w);
    expect_text(msg, "outcome", "failed");
    assert_non_null(strstr(hp_json_str(msg, "reason", ""), "missing_phase"));
    json_decref(msg);
}

static void test_worker__looks_at_what_has_come(void **state)
{
    worker *w = *state;
    json_t *msg, *phases;

    add(w, 2, "native");
    add(w, 3, "arterial");
    assert_true(ct_world_write_all(&w->list, w->dir));
    start(w, NULL);
    say(w, json_pack("{ss,si,si,so,s{}}", "do", "look", "job", 3, "look", 9, "files",
                     files_of(w), "options"));
    msg = hear_answer(w);
    expect_text(msg, "event", "looked");
    assert_int_equal(hp_json_int(msg, "job", 0), 3);
    assert_int_equal(hp_json_int(msg, "look", 0), 9);
    phases = json_object_get(msg, "phases");
    assert_int_equal(json_array_size(phases), 2);
    assert_string_equal(json_string_value(json_array_get(phases, 0)), "NC");
    assert_string_equal(json_string_value(json_array_get(phases, 1)), "A");
    json_decref(msg);
}

static void test_worker__dies_where_a_test_says_so(void **state)
{
    static const char *const POINT[] = {"worker.claimed", "worker.read",
                                        "worker.written"};
    worker *w = *state;

    add(w, 2, "native");
    assert_true(ct_world_write_all(&w->list, w->dir));
    for (size_t i = 0; i < sizeof POINT / sizeof POINT[0]; i++) {
        start(w, POINT[i]);
        say(w, run_message(w, json_object()));
        assert_null(hear_answer(w));
        assert_int_equal(end(w), -SIGKILL);
    }
}

/* The job may be tried again, and by another process: this one ends by itself. */
static void test_worker__a_device_error_is_told_and_ends_it(void **state)
{
    worker *w = *state;
    json_t *msg;
    int status;

    assert_int_equal(tiny_setup(NULL), 0);
    add(w, 2, "venous");
    assert_true(ct_world_write_all(&w->list, w->dir));
    setenv("HEPAR_CUDA_MODULE", broken_module, 1);
    start(w, NULL);
    unsetenv("HEPAR_CUDA_MODULE");
    say(w, run_message(w, json_pack("{ss,ss}", "bundle", tiny_dir, "device", "auto")));
    msg = hear_answer(w);
    expect_text(msg, "outcome", "failed");
    expect_text(msg, "reason_code", "E_DEVICE");
    assert_non_null(
        strstr(hp_json_str(msg, "reason", ""), "CUDA: an illegal memory access"));
    assert_true(hp_json_bool(msg, "may_retry", false));
    json_decref(msg);
    assert_null(hear(w));
    assert_int_equal(waitpid(w->pid, &status, 0), w->pid); /* our end is still open */
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    w->pid = 0;
    close(w->fd);
    assert_int_equal(tiny_teardown(NULL), 0);
}

static void test_worker__does_not_outlive_its_socket(void **state)
{
    worker *w = *state;
    int64_t since = hp_clock_mono_ms();

    start(w, NULL);
    assert_int_equal(end(w), 0);
    assert_true(hp_clock_mono_ms() - since < 10000);
}

static void test_worker__a_message_that_is_no_json_ends_it(void **state)
{
    worker *w = *state;

    start(w, NULL);
    assert_int_equal(write(w->fd, "{\"do\":\n", 7), 7);
    assert_null(hear(w));
    assert_int_equal(end(w), 0);
}

static int run_check(const char *bundle, const char *device, const char *precision)
{
    pid_t pid = fork();
    char options[500];
    int status;

    if (pid == 0) {
        close(2);
        setenv("HEPAR_CUDA_MODULE", "/nonexistent.so", 1);
        snprintf(options, sizeof options,
                 "{\"bundle\":\"%s\",\"device\":\"%s\",\"precision\":\"%s\"}", bundle,
                 device, precision);
        execl(program, program, "--check", options, (char *)NULL);
        _exit(99);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_worker__checks_device_precision_and_bundle(void **state)
{
    worker *w = *state;

    assert_int_equal(run_check(w->dir, "cpu", "fp32"), HP_CHECK_BUNDLE); /* is empty */
    assert_int_equal(run_check(w->dir, "auto", "auto"), HP_CHECK_BUNDLE);
    assert_int_equal(run_check(w->dir, "cuda", "auto"), HP_CHECK_DEVICE);
    assert_int_equal(run_check(w->dir, "auto", "fp16"), HP_CHECK_PRECISION);
}

/* -- the input digest -- */

static void digest_of(const hp_job_options *o, char ret[HP_SHA256_HEX])
{
    hp_job_digest d;

    hp_job_digest_init(&d, o, "1.2.3");
    hp_job_digest_end(&d, ret);
}

static void test_digest__follows_what_can_change_a_result(void **state)
{
    hp_job_options *o = calloc(1, sizeof *o);
    char first[HP_SHA256_HEX], other[HP_SHA256_HEX];

    (void)state;
    assert_non_null(o);
    hp_job_options_init(o);
    digest_of(o, first);
    o->threads = 7;
    o->report_unsuitable = true;
    strcpy(o->bundle, "/elsewhere"); /* its sha256 is in the UID beside the digest */
    digest_of(o, other);
    assert_string_equal(first, other);
    o->missing_phase = HP_MISSING_SUBSTITUTE;
    digest_of(o, other);
    assert_string_not_equal(first, other);
    o->missing_phase = HP_MISSING_DETECT_ONLY;
    strcpy(o->precision, "bf16");
    digest_of(o, other);
    assert_string_not_equal(first, other);
    strcpy(o->precision, "auto");
    strcpy(o->plan_cache, "/plans"); /* how fast, not what */
    digest_of(o, other);
    assert_string_equal(first, other);
    o->rule[o->rule_count++] = (hp_phase_rule){HP_PHASE_V, "x", -1};
    digest_of(o, other);
    assert_string_not_equal(first, other);
    free(o);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        CASE(test_worker__an_unsuitable_study_has_a_reason_and_no_objects),
        CASE(test_worker__tells_progress),
        CASE(test_worker__two_patients_fail),
        CASE(test_worker__a_lost_file_fails_and_the_next_job_runs),
        CASE(test_worker__a_cut_off_slice_is_a_missing_slice),
        CASE(test_worker__a_slice_beyond_a_limit_is_a_missing_slice),
        CASE(test_worker__another_study_is_refused),
        CASE(test_worker__bad_options_are_named),
        CASE(test_worker__looks_at_what_has_come),
        CASE(test_worker__dies_where_a_test_says_so),
        CASE(test_worker__a_device_error_is_told_and_ends_it),
        CASE(test_worker__does_not_outlive_its_socket),
        CASE(test_worker__a_message_that_is_no_json_ends_it),
        CASE(test_worker__checks_device_precision_and_bundle),
        cmocka_unit_test(test_digest__follows_what_can_change_a_result),
    };

    if (argc < 3)
        return 77;
    program = argv[1];
    broken_module = argv[2];
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
