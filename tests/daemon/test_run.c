/* hepar-run from outside: exit codes, result.json, and what it refuses. The
 * program's path is the first argument. */
#include "tests/base/check.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/json.h"
#include "base/path.h"
#include "tests/fixture/ct_world.h"

static const char *program;
static char dir[256], in[300], out[300];

static int setup(void **state)
{
    (void)state;
    if (ct_world_folder(dir) == NULL)
        return -1;
    snprintf(in, sizeof in, "%s/in", dir);
    snprintf(out, sizeof out, "%s/out", dir);
    return hp_path_mkdirs(in, 0700, NULL) == HP_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    ct_world_remove_folder(dir);
    return 0;
}

/* Runs it with these arguments; ret_text gets what it printed. */
static int run(const char *const *argv, char *ret_text, size_t size)
{
    const char *args[16] = {program};
    int pipefd[2], status, n = 1;
    size_t have = 0;
    ssize_t got;
    pid_t pid;

    while (argv[n - 1] != NULL && n < 15) {
        args[n] = argv[n - 1];
        n++;
    }
    assert_int_equal(pipe(pipefd), 0);
    pid = fork();
    if (pid == 0) {
        dup2(pipefd[1], 1);
        dup2(pipefd[1], 2);
        close(pipefd[0]);
        execv(program, (char *const *)args);
        _exit(99);
    }
    close(pipefd[1]);
    while ((got = read(pipefd[0], ret_text + have, size - 1 - have)) > 0)
        have += (size_t)got;
    ret_text[have] = 0;
    close(pipefd[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define RUN(text, ...) run((const char *const[]){__VA_ARGS__, NULL}, text, sizeof text)

static void write_study(const char *description)
{
    hp_slice_list l = HP_SLICE_LIST_INIT;

    ct_world_add(&l, &(ct_stack){.series = 4, .description = description, .count = 30});
    assert_true(ct_world_write_all(&l, in));
    hp_slice_list_done(&l);
}

static void test_run__usage(void **state)
{
    char text[4096];

    (void)state;
    assert_int_equal(RUN(text, "--in", in), 2);
    assert_non_null(strstr(text, "usage: hepar-run"));
    assert_int_equal(RUN(text, "--help"), 0);
    assert_int_equal(RUN(text, "--nonsense"), 2);
    assert_int_equal(
        RUN(text, "--bundle", dir, "--in", in, "--out", out, "--threads", "x"), 2);
}

static void test_run__a_roi_is_refused_in_words(void **state)
{
    char text[4096];

    (void)state;
    assert_int_equal(
        RUN(text, "--bundle", dir, "--in", in, "--out", out, "--roi", "roi.dcm"), 2);
    assert_non_null(strstr(text, "--roi is not there yet"));
}

static void test_run__no_input(void **state)
{
    char text[4096];

    (void)state;
    assert_int_equal(RUN(text, "--bundle", dir, "--in", "/none", "--out", out), 3);
    assert_int_equal(RUN(text, "--bundle", dir, "--in", in, "--out", out), 3);
    assert_non_null(strstr(text, "no DICOM image"));
}

static void test_run__an_unsuitable_study_is_an_answer(void **state)
{
    char text[8192], path[400];
    hp_auto(json_t) *j = NULL;

    (void)state;
    write_study("native");
    assert_int_equal(RUN(text, "--bundle", dir, "--in", in, "--out", out), 0);
    assert_non_null(strstr(text, "research use only"));
    assert_non_null(strstr(text, "no_venous_phase"));
    assert_null(strstr(text, "PHANTOM"));
    snprintf(path, sizeof path, "%s/result.json", out);
    assert_int_equal(hp_json_load_file(path, &j, NULL), HP_OK);
    assert_string_equal(hp_json_str(j, "state", ""), "unsuitable");
    assert_string_equal(hp_json_str(j, "reason_code", ""), "no_venous_phase");
    assert_int_equal(json_array_size(json_object_get(j, "series")), 1);
    assert_true(json_is_array(json_object_get(j, "results")));
    assert_true(json_is_object(json_object_get(j, "timings_ms")));
    assert_true(json_is_object(json_object_get(j, "phases")));
}

static void test_run__takes_phase_rules_from_a_config(void **state)
{
    char text[8192], config[400];
    FILE *f;

    (void)state;
    write_study("Abdomen");
    snprintf(config, sizeof config, "%s/hepar.yaml", dir);
    f = fopen(config, "w");
    assert_non_null(f);
    fprintf(f, "reading:\n  phase_rules:\n    - {phase: V, series_number: 4}\n");
    fclose(f);
    /* the rule makes it venous, and then the empty folder is no bundle */
    assert_int_not_equal(
        RUN(text, "--bundle", dir, "--in", in, "--out", out, "--config", config), 0);
    assert_non_null(strstr(text, "site phase rule 1"));
    assert_non_null(strstr(text, "bundle"));
}

static void test_run__a_device_without_the_precision_is_refused(void **state)
{
    char text[8192];

    (void)state;
    write_study("portal venous");
    assert_int_equal(RUN(text, "--bundle", HP_SMALL_BUNDLE, "--in", in, "--out", out,
                         "--device", "cpu", "--precision", "fp16"),
                     1);
    assert_non_null(strstr(text, "precision fp16: the CPU has fp32 and bf16"));
}

static void test_run__json_is_all_it_prints(void **state)
{
    char text[1 << 16];
    json_t *j = NULL;

    (void)state;
    write_study("arterial");
    assert_int_equal(RUN(text, "--bundle", dir, "--in", in, "--out", out, "--json"), 0);
    assert_int_equal(hp_json_parse(text, strlen(text), &j, NULL), HP_OK);
    json_decref(j);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        CASE(test_run__usage),
        CASE(test_run__a_roi_is_refused_in_words),
        CASE(test_run__no_input),
        CASE(test_run__an_unsuitable_study_is_an_answer),
        CASE(test_run__takes_phase_rules_from_a_config),
        CASE(test_run__a_device_without_the_precision_is_refused),
        CASE(test_run__json_is_all_it_prints),
    };

    if (argc < 2)
        return 77;
    program = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
