/* dicom/spool.c: part files, groups, and the real malformed files. */
#include <dirent.h>
#include <errno.h>
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

#include "dicom/spool.h"
#include "tests/fixture/dataset.h"

static char dir[HP_PATH_MAX];

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "%s/hepar-spool-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return hp_path_remove(dir, NULL) == HP_OK ? 0 : -1;
}

static int count_files(void)
{
    DIR *d = opendir(dir);
    int n = 0;

    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void write_part(char ret_path[HP_PATH_MAX], const char *ae, const char *syntax,
                       const char *body)
{
    hp_spool_file f = HP_SPOOL_FILE_INIT;
    char stem[40];

    hp_spool_stem(stem);
    assert_int_equal(hp_spool_create(&f, dir, stem, DS_CT, "1.2.3", syntax, ae, NULL),
                     HP_OK);
    assert_int_equal(hp_spool_write(&f, body, strlen(body), NULL), HP_OK);
    assert_int_equal(hp_spool_close(&f, true, NULL), HP_OK);
    memcpy(ret_path, f.path, HP_PATH_MAX);
}

static void test_spool__file_meta_is_ours_and_well_formed(void **state)
{
    char path[HP_PATH_MAX];
    hp_buf b = HP_BUF_INIT;
    struct stat st;
    size_t at = 132;
    int elements = 0;

    (void)state;
    write_part(path, "SENDER", "1.2.840.10008.1.2.1", "body");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(hp_file_read(path, 1 << 20, &b, NULL), HP_OK);
    assert_memory_equal(b.data + 128, "DICM", 4);
    assert_int_equal(144 + hp_get_u32le(b.data + 140), b.len - 4);
    while (at < b.len - 4) { /* even lengths, group 2 */
        bool ob = memcmp(b.data + at + 4, "OB", 2) == 0;
        uint32_t len = ob ? hp_get_u32le(b.data + at + 8) : hp_get_u16le(b.data + at + 6);

        assert_int_equal(hp_get_u16le(b.data + at), 2);
        assert_int_equal(len % 2, 0);
        at += (ob ? 12 : 8) + len;
        elements++;
    }
    assert_int_equal(at, b.len - 4);
    assert_int_equal(elements, 8);
    assert_memory_equal(b.data + b.len - 4, "body", 4);
    unlink(path);
    hp_buf_done(&b);
}

static void test_spool__stems_are_unique(void **state)
{
    char a[40], b[40];

    (void)state;
    hp_spool_stem(a);
    hp_spool_stem(b);
    assert_string_not_equal(a, b);
    assert_int_equal(strspn(a, "0123456789abcdef-"), strlen(a));
}

static void test_spool__a_group_is_committed_together(void **state)
{
    enum { N = 5 };
    char part[N][HP_PATH_MAX], final[N][HP_PATH_MAX];
    hp_spool_item items[N];

    (void)state;
    for (int i = 0; i < N; i++) {
        write_part(part[i], "A", "1.2.840.10008.1.2.1", "x");
        assert_int_equal(hp_spool_final_path(part[i], dir, final[i], NULL), HP_OK);
        items[i] = (hp_spool_item){part[i], final[i], i % 2 == 0, HP_E_INTERNAL};
    }
    unlink(part[1]);                                /* vanished */
    assert_int_equal(rename(part[2], final[3]), 0); /* a name that is taken */
    hp_spool_commit(items, N);
    assert_int_equal(items[0].code, HP_OK);
    assert_int_not_equal(items[1].code, HP_OK);
    assert_int_not_equal(items[2].code, HP_OK);
    assert_int_not_equal(items[3].code, HP_OK);
    assert_int_equal(items[4].code, HP_OK);
    assert_true(hp_path_exists(final[0]));
    assert_true(hp_path_exists(final[4]));
    assert_true(hp_path_exists(final[3])); /* the one that was there stays */
    assert_false(hp_path_exists(part[3]));
    assert_int_equal(count_files(), 3);
    for (int i = 0; i < N; i++)
        unlink(final[i]);
    hp_spool_commit(items, 0);
}

static void test_spool__same_means_dataset_and_syntax(void **state)
{
    char a[HP_PATH_MAX], b[HP_PATH_MAX], c[HP_PATH_MAX], d[HP_PATH_MAX], e[HP_PATH_MAX];
    bool same = false;

    (void)state;
    write_part(a, "A", "1.2.840.10008.1.2.1", "dataset");
    write_part(b, "SOMEBODY", "1.2.840.10008.1.2.1", "dataset");
    write_part(c, "A", "1.2.840.10008.1.2.1", "datasex");
    write_part(d, "A", "1.2.840.10008.1.2.1", "dataset2");
    write_part(e, "A", "1.2.840.10008.1.2", "dataset");
    assert_int_equal(hp_spool_same(a, b, &same, NULL), HP_OK);
    assert_true(same);
    assert_int_equal(hp_spool_same(a, c, &same, NULL), HP_OK);
    assert_false(same);
    assert_int_equal(hp_spool_same(a, d, &same, NULL), HP_OK);
    assert_false(same);
    assert_int_equal(hp_spool_same(a, e, &same, NULL), HP_OK);
    assert_false(same);
    unlink(e);
    assert_int_equal(hp_spool_same(a, e, &same, NULL), HP_E_NOT_FOUND);
    unlink(a);
    unlink(b);
    unlink(c);
    unlink(d);
}

static void test_spool__recovery_removes_parts_only(void **state)
{
    char a[HP_PATH_MAX], b[HP_PATH_MAX], final[HP_PATH_MAX];
    size_t removed = 0;

    (void)state;
    write_part(a, "A", "1.2.840.10008.1.2.1", "1");
    write_part(b, "A", "1.2.840.10008.1.2.1", "2");
    hp_spool_final_path(b, dir, final, NULL);
    assert_int_equal(rename(b, final), 0);
    assert_int_equal(hp_spool_remove_parts(dir, &removed, NULL), HP_OK);
    assert_int_equal(removed, 1);
    assert_true(hp_path_exists(final));
    unlink(final);
}

/* A limit on file size makes the n-th write fail as a full disk does. */
static void test_spool__a_write_that_fails_leaves_nothing(void **state)
{
    struct rlimit old, small;

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    for (rlim_t limit = 0; limit < 600; limit += 100) {
        hp_spool_file f = HP_SPOOL_FILE_INIT;
        char body[256] = {0};
        char stem[40];
        hp_code r;

        small = old;
        small.rlim_cur = limit;
        setrlimit(RLIMIT_FSIZE, &small);
        hp_spool_stem(stem);
        r = hp_spool_create(&f, dir, stem, DS_CT, "1.2.3", "1.2.840.10008.1.2.1", "A",
                            NULL);
        if (r == HP_OK)
            r = hp_spool_write(&f, body, sizeof body, NULL);
        setrlimit(RLIMIT_FSIZE, &old);
        assert_int_not_equal(r, HP_OK);
        hp_spool_discard(&f);
        assert_int_equal(count_files(), 0);
    }
}

/* ---- files of other people's making ---- */

static const char *data_dir(void)
{
    const char *d = getenv("HEPAR_TEST_DATA");

    return d ? d : "../shared/data";
}

static hp_code scan_file(const char *sub, const char *name, hp_scan_result *ret)
{
    char path[HP_PATH_MAX];
    hp_uid syntax;

    hp_path_fmt(path, NULL, "%s/%s/%s", data_dir(), sub, name);
    return hp_spool_scan_file(path, 1 << 28, HP_EXPLICIT_LE, ret, &syntax, NULL);
}

static void test_spool__malformed_files_are_told_apart(void **state)
{
    static const struct {
        const char *name;
        hp_code code;
        bool is_slice;
    } files[] = {
        {"badVR.dcm", HP_OK, false},
        {"CTImageStorage_bad_meta.dcm", HP_OK, true},
        {"ExplVR_LitEndNoMeta.dcm", HP_OK, false},
        {"JPEG2000-embedded-sequence-delimiter.dcm", HP_OK, true},
        {"MR_truncated.dcm", HP_E_TRUNCATED, false},
        {"UN_sequence.dcm", HP_OK, false},
        {"empty_charset_LEI.dcm", HP_OK, false},
        {"meta_missing_tsyntax.dcm", HP_E_TRUNCATED, false},
        {"nested_priv_SQ.dcm", HP_OK, false},
        {"no_meta.dcm", HP_OK, false},
        {"no_meta_group_length.dcm", HP_OK, false},
        {"priv_SQ.dcm", HP_OK, false},
        {"rtplan_truncated.dcm", HP_E_TRUNCATED, false},
    };
    char path[HP_PATH_MAX];

    (void)state;
    hp_path_fmt(path, NULL, "%s/malformed", data_dir());
    if (!hp_path_exists(path))
        skip();
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        hp_scan_result v;
        hp_code r = scan_file("malformed", files[i].name, &v);

        printf("%-45s %s\n", files[i].name, hp_code_name(r));
        assert_int_equal(r, files[i].code);
        if (files[i].is_slice && r == HP_OK)
            assert_true(hp_uid_valid(v.sop_instance) && hp_uid_valid(v.study) &&
                        v.has_pixels);
    }
}

static void test_spool__good_files_of_every_encoding_pass(void **state)
{
    static const char *const files[] = {"ge_ct1_explicit_le.dcm",
                                        "ge_ct1_implicit_le.dcm",
                                        "ge_ct1_jpeg_lossless_sv1.dcm",
                                        "ge_ct1_jpegls_lossless.dcm",
                                        "ge_ct1_j2k_lossless.dcm",
                                        "ge_ct1_j2k_lossy.dcm",
                                        "ge_ct1_rle.dcm",
                                        "ge_revolution_apex_head.dcm",
                                        "noattr_ct_0.dcm",
                                        "ect_jpegls_nobot.dcm",
                                        "ect_jpeglossless57_fragmented.dcm",
                                        "nema_ct1_jpegls_fragmented_bot.dcm"};
    char path[HP_PATH_MAX];

    (void)state;
    hp_path_fmt(path, NULL, "%s/vendor", data_dir());
    if (!hp_path_exists(path))
        skip();
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        hp_scan_result v;

        assert_int_equal(scan_file("vendor", files[i], &v), HP_OK);
        assert_true(v.has_pixels);
        assert_true(hp_uid_valid(v.sop_instance));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spool__file_meta_is_ours_and_well_formed),
        cmocka_unit_test(test_spool__stems_are_unique),
        cmocka_unit_test(test_spool__a_group_is_committed_together),
        cmocka_unit_test(test_spool__same_means_dataset_and_syntax),
        cmocka_unit_test(test_spool__recovery_removes_parts_only),
        cmocka_unit_test(test_spool__a_write_that_fails_leaves_nothing),
        cmocka_unit_test(test_spool__malformed_files_are_told_apart),
        cmocka_unit_test(test_spool__good_files_of_every_encoding_pass),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
