/* The cache of plans: a shortcut that may be missing, damaged or another's, and
 * never more than that. */
#include <string.h>
#include <unistd.h>

#include "base/path.h"
#include "inference/cuda/plan_cache.h"
#include "tests/inference/world.h"

#define KEY "fp16 3d 24x44x64x256 k3,3,3 s1,1,1 d1,1,1 256 +bias +add +relu"
static const char DEVICE[] = "NVIDIA H100, SM 9.0, driver 13000, cuDNN 91900";
static const hp_engine ENGINE = {
    .index = 41, .knobs = 3, .knob = {{2, 1}, {17, -3}, {23, 1LL << 40}}};

static char path[64];

static int setup(void **state)
{
    int fd;

    (void)state;
    strcpy(path, "/tmp/hepar-plans-XXXXXX");
    fd = mkstemp(path);
    return fd >= 0 ? close(fd) : -1;
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

static hp_plan_cache *open_cache(const char *device)
{
    hp_error err = HP_ERROR_INIT;
    hp_plan_cache *c = NULL;

    assert_ok(hp_plan_cache_open(path, device, &c, &err), &err);
    return c;
}

static void write_file(const char *text)
{
    hp_error err = HP_ERROR_INIT;

    assert_ok(hp_file_write(path, text, strlen(text), 0600, &err), &err);
}

/* A saved file with KEY and two more. */
static void save_three(void)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_plan_cache) *c = open_cache(DEVICE);
    hp_engine none = {.index = 0};

    assert_ok(hp_plan_cache_put(c, "first", &none, 12.5, &err), &err);
    assert_ok(hp_plan_cache_put(c, KEY, &ENGINE, 1234.5, &err), &err);
    assert_ok(hp_plan_cache_put(c, "last", &ENGINE, 0.1, &err), &err);
    assert_ok(hp_plan_cache_save(c, &err), &err);
}

static void test_plan_cache__comes_back_as_it_was(void **state)
{
    hp_auto(hp_plan_cache) *c = NULL;
    const hp_engine *e;

    (void)state;
    save_three();
    c = open_cache(DEVICE);
    assert_int_equal(hp_plan_cache_count(c), 3);
    e = hp_plan_cache_find(c, KEY);
    assert_non_null(e);
    assert_int_equal(e->index, ENGINE.index);
    assert_int_equal(e->knobs, ENGINE.knobs);
    for (int i = 0; i < e->knobs; i++) {
        assert_int_equal(e->knob[i].type, ENGINE.knob[i].type);
        assert_int_equal(e->knob[i].value, ENGINE.knob[i].value);
    }
    assert_int_equal(hp_plan_cache_find(c, "first")->knobs, 0);
    assert_null(hp_plan_cache_find(c, "second"));
}

static void test_plan_cache__later_plan_replaces(void **state)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_plan_cache) *c = NULL;
    hp_engine other = {.index = 7};

    (void)state;
    save_three();
    c = open_cache(DEVICE);
    assert_ok(hp_plan_cache_put(c, KEY, &other, 1, &err), &err);
    hp_plan_cache_drop(c, "first");
    hp_plan_cache_drop(c, "never there");
    assert_ok(hp_plan_cache_save(c, &err), &err);
    hp_plan_cache_free(c);
    c = open_cache(DEVICE);
    assert_int_equal(hp_plan_cache_count(c), 2);
    assert_int_equal(hp_plan_cache_find(c, KEY)->index, 7);
    assert_null(hp_plan_cache_find(c, "first"));
}

static void test_plan_cache__of_another_device_is_empty(void **state)
{
    static const char *const OTHERS[] = {
        "NVIDIA H200, SM 9.0, driver 13000, cuDNN 91900",
        "NVIDIA H100, SM 9.0, driver 13010, cuDNN 91900",
        "NVIDIA H100, SM 9.0, driver 13000, cuDNN 92000",
    };

    (void)state;
    save_three();
    for (int i = 0; i < 3; i++) {
        hp_auto(hp_plan_cache) *c = open_cache(OTHERS[i]);

        assert_int_equal(hp_plan_cache_count(c), 0);
    }
}

/* Any cut: lines before it hold, the one that was cut is gone. */
static void test_plan_cache__cut_anywhere_holds_whole_lines(void **state)
{
    hp_buf file = HP_BUF_INIT;
    hp_error err = HP_ERROR_INIT;

    (void)state;
    save_three();
    assert_ok(hp_file_read(path, 1 << 20, &file, &err), &err);
    for (size_t n = 0; n <= file.len; n++) {
        hp_auto(hp_plan_cache) *c = NULL;
        int lines = 0;

        for (size_t i = 0; i < n; i++)
            lines += file.data[i] == '\n';
        assert_ok(hp_file_write(path, file.data, n, 0600, &err), &err);
        c = open_cache(DEVICE);
        assert_int_equal(hp_plan_cache_count(c), lines > 2 ? lines - 2 : 0);
    }
    hp_buf_done(&file);
}

static void test_plan_cache__damaged_lines_are_dropped(void **state)
{
    hp_auto(hp_plan_cache) *c = NULL;
    hp_buf text = HP_BUF_INIT;

    (void)state;
    hp_buf_printf(&text, "hepar plans 2\n%s\n", DEVICE);
    hp_buf_printf(&text, "good\t1.5\t3\t1=2 3=4\n");
    hp_buf_printf(&text, "\t1.5\t3\t\n"); /* no key */
    hp_buf_printf(&text, "no fields\n");
    hp_buf_printf(&text, "negative\t1.5\t-3\t\n");
    hp_buf_printf(&text, "word\tfast\t3\t\n");
    hp_buf_printf(&text, "no value\t1\t3\t1=2 3\n");
    hp_buf_printf(&text, "type\t1\t3\t99999999999=1\n");
    hp_buf_printf(&text, "many\t1\t3\t");
    for (int i = 0; i < HP_ENGINE_KNOBS + 1; i++)
        hp_buf_printf(&text, "%d=1 ", i);
    hp_buf_printf(&text, "\n%0200d\t1\t3\t\n", 1); /* a key too long */
    hp_buf_printf(&text, "also good\t2\t4\t\n");
    write_file(hp_buf_str(&text));
    hp_buf_done(&text);
    c = open_cache(DEVICE);
    assert_int_equal(hp_plan_cache_count(c), 2);
    assert_int_equal(hp_plan_cache_find(c, "good")->knob[1].value, 4);
    assert_int_equal(hp_plan_cache_find(c, "also good")->index, 4);
}

static void test_plan_cache__of_another_program_is_empty(void **state)
{
    static const char *const TEXTS[] = {
        "", "\n", "hepar plans 1\n", "PNG\r\n\x1a\n", "hepar plans 2", "hepar plans 2\n"};

    (void)state;
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
        hp_auto(hp_plan_cache) *c = NULL;

        write_file(TEXTS[i]);
        c = open_cache(DEVICE);
        assert_int_equal(hp_plan_cache_count(c), 0);
    }
}

static void test_plan_cache__without_a_file_remembers_for_itself(void **state)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_plan_cache) *c = NULL;

    (void)state;
    assert_ok(hp_plan_cache_open(NULL, DEVICE, &c, &err), &err);
    assert_ok(hp_plan_cache_put(c, KEY, &ENGINE, 1, &err), &err);
    assert_ok(hp_plan_cache_save(c, &err), &err);
    assert_int_equal(hp_plan_cache_find(c, KEY)->index, 41);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_plan_cache__comes_back_as_it_was),
        TEST(test_plan_cache__later_plan_replaces),
        TEST(test_plan_cache__of_another_device_is_empty),
        TEST(test_plan_cache__cut_anywhere_holds_whole_lines),
        TEST(test_plan_cache__damaged_lines_are_dropped),
        TEST(test_plan_cache__of_another_program_is_empty),
        TEST(test_plan_cache__without_a_file_remembers_for_itself),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
