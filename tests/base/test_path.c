#include "base/path.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/base/check.h"

static char world[64];

static int setup(void **state)
{
    (void)state;
    strcpy(world, "/tmp/hepar-path.XXXXXX");
    return mkdtemp(world) == NULL;
}

static int teardown(void **state)
{
    (void)state;
    return hp_path_remove(world, NULL) != HP_OK;
}

static void test_path__too_long_is_refused(void **state)
{
    char path[HP_PATH_MAX] = "before", words[HP_PATH_MAX + 1];

    (void)state;
    memset(words, 'x', HP_PATH_MAX);
    words[HP_PATH_MAX] = 0;
    assert_int_equal(hp_path_fmt(path, NULL, "%s", words), HP_E_LIMIT);
    assert_string_equal(path, "before");
}

static void test_path__folders_come_and_go(void **state)
{
    char path[HP_PATH_MAX], file[HP_PATH_MAX], link[HP_PATH_MAX], kept[HP_PATH_MAX];
    hp_error e = HP_ERROR_INIT;

    (void)state;
    hp_path_fmt(path, NULL, "%s/a/b/c", world);
    assert_int_equal(hp_path_mkdirs(path, 0700, &e), HP_OK);
    assert_int_equal(hp_path_mkdirs(path, 0700, &e), HP_OK);
    hp_path_fmt(file, NULL, "%s/file", path);
    assert_int_equal(hp_file_write(file, "x", 1, 0600, &e), HP_OK);
    assert_int_equal(hp_path_mkdirs(file, 0700, &e), HP_E_EXISTS);
    /* A link inside the folder goes; what it points at stays. */
    hp_path_fmt(kept, NULL, "%s/kept", world);
    assert_int_equal(hp_path_mkdirs(kept, 0700, &e), HP_OK);
    hp_path_fmt(link, NULL, "%s/link", path);
    assert_int_equal(symlink(kept, link), 0);
    hp_path_fmt(path, NULL, "%s/a", world);
    assert_int_equal(hp_path_remove(path, &e), HP_OK);
    assert_false(hp_path_exists(path));
    assert_true(hp_path_exists(kept));
    assert_int_equal(hp_path_remove(path, &e), HP_OK);
}

static void test_path__file_round_trip(void **state)
{
    char path[HP_PATH_MAX];
    hp_error e = HP_ERROR_INIT;
    hp_buf b = HP_BUF_INIT;
    struct stat st;

    (void)state;
    hp_path_fmt(path, NULL, "%s/data", world);
    assert_int_equal(hp_file_write(path, "one", 3, 0640, &e), HP_OK);
    assert_int_equal(hp_file_write(path, "three", 5, 0640, &e), HP_OK);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(hp_file_read(path, 5, &b, &e), HP_OK);
    assert_string_equal(hp_buf_str(&b), "three");
    assert_int_equal(hp_file_read(path, 4, &b, &e), HP_E_LIMIT);
    assert_string_equal(hp_buf_str(&b), "three");
    hp_buf_done(&b);
    hp_path_fmt(path, NULL, "%s/missing/data", world);
    assert_int_equal(hp_file_write(path, "x", 1, 0640, &e), HP_E_NOT_FOUND);
    assert_int_equal(hp_file_read(path, 4, &b, &e), HP_E_NOT_FOUND);
}

static void test_path__impossible_places_are_errors(void **state)
{
    hp_error e = HP_ERROR_INIT;

    (void)state;
    assert_int_not_equal(hp_file_write("/dev/full/x", "x", 1, 0600, &e), HP_OK);
    assert_int_equal(hp_path_sync_dir("/nonexistent", &e), HP_E_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_path__too_long_is_refused),
        cmocka_unit_test(test_path__folders_come_and_go),
        cmocka_unit_test(test_path__file_round_trip),
        cmocka_unit_test(test_path__impossible_places_are_errors),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
