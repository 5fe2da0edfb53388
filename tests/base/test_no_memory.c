/* Every allocation of base/ fails once: an answer each time, never a crash. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/findings.h"
#include "base/path.h"
#include "tests/base/check.h"
#include "tests/fixture/heap.h"

static char path[64];

/* Runs `once` with the 1st, 2nd, ... allocation failing until it succeeds
 * without having met the failing one. */
static int exhaust(hp_code (*once)(void))
{
    hp_code r;
    int n = 0;

    do {
        hp_heap_fail_at(++n);
        r = once();
        /* A failure nobody noticed is allowed only where nothing was lost. */
        if (r != HP_OK)
            assert_true(hp_heap_failed());
        assert_true(n < 10000);
    } while (hp_heap_failed());
    hp_heap_fail_at(0);
    assert_int_equal(r, HP_OK);
    return n;
}

static hp_code append_much(void)
{
    hp_buf b = HP_BUF_INIT;
    bool failed;

    for (int i = 0; i < 300; i++)
        hp_buf_printf(&b, "line %d\n", i);
    failed = b.failed;
    hp_buf_done(&b);
    return failed ? HP_E_NO_MEMORY : HP_OK;
}

static hp_code write_and_read(void)
{
    hp_buf b = HP_BUF_INIT;
    hp_code r = hp_file_write(path, "hello", 5, 0600, NULL);

    if (r == HP_OK)
        r = hp_file_read(path, 100, &b, NULL);
    hp_buf_done(&b);
    return r;
}

static hp_code parse_json(void)
{
    static const char TEXT[] = "{\"a\": [1, 2.5, {\"b\": \"text\"}], \"c\": null}";
    hp_auto(json_t) *j = NULL;

    return hp_json_parse(TEXT, sizeof TEXT - 1, &j, NULL);
}

static hp_code findings_there_and_back(void)
{
    hp_findings *f = calloc(1, sizeof *f);
    hp_auto(json_t) *j = NULL;
    hp_code r = HP_E_NO_MEMORY;

    if (f != NULL) {
        hp_findings_init(f);
        f->candidate_count = 2;
        f->series_count = 3;
        f->class_count = 2;
        strcpy(f->classes[0].id, "a");
        strcpy(f->classes[1].id, "b");
        f->primary = 1;
        f->candidates[0].phases = 6;
        hp_findings_time(f, "liver", 1);
        j = hp_findings_to_json(f);
        if (j != NULL)
            r = hp_findings_from_json(j, f, NULL);
        /* Never a shorter list instead of an error. */
        if (r == HP_OK)
            assert_true(f->candidate_count == 2 && f->series_count == 3 &&
                        f->class_count == 2 && f->timing_count == 1 &&
                        f->candidates[0].phases == 6);
    }
    free(f);
    return r;
}

static void test_no_memory__is_an_answer(void **state)
{
    (void)state;
    hp_heap_for_jansson();
    snprintf(path, sizeof path, "/tmp/hepar-heap.%d", (int)getpid());
    assert_true(exhaust(append_much) > 3);
    assert_true(exhaust(write_and_read) > 1);
    assert_true(exhaust(parse_json) > 5);
    assert_true(exhaust(findings_there_and_back) > 50);
    hp_path_remove(path, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_memory__is_an_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
