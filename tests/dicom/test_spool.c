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
static hp_spool *spool;

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "%s/hepar-spool-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    return mkdtemp(dir) && hp_spool_open(dir, &spool, NULL) == HP_OK ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    hp_spool_free(spool);
    return hp_path_remove(dir, NULL) == HP_OK ? 0 : -1;
}

/* Blanks are empty and count for nothing. */
static int count_files(void)
{
    DIR *d = opendir(dir);
    struct stat st;
    int n = 0;

    for (struct dirent *e; (e = readdir(d));)
        n += fstatat(dirfd(d), e->d_name, &st, 0) == 0 && S_ISREG(st.st_mode) &&
             st.st_size > 0;
    closedir(d);
    return n;
}

static void write_file(char ret_path[HP_PATH_MAX], const char *ae, const char *syntax,
                       const void *body, size_t len)
{
    hp_spool_file f = HP_SPOOL_FILE_INIT;

    assert_int_equal(hp_spool_create(spool, &f, DS_CT, "1.2.3", syntax, ae, NULL), HP_OK);
    for (size_t at = 0; at < len; at += 999) /* odd pieces, as they come */
        assert_int_equal(hp_spool_write(&f, (const uint8_t *)body + at,
                                        len - at < 999 ? len - at : 999, NULL),
                         HP_OK);
    assert_int_equal(hp_spool_finish(&f, NULL), HP_OK);
    memcpy(ret_path, f.path, HP_PATH_MAX);
}

static void write_text(char ret_path[HP_PATH_MAX], const char *ae, const char *syntax,
                       const char *body)
{
    write_file(ret_path, ae, syntax, body, strlen(body));
}

static void test_spool__file_meta_is_ours_and_well_formed(void **state)
{
    char path[HP_PATH_MAX];
    hp_buf b = HP_BUF_INIT;
    struct stat st;
    size_t at = 132;
    int elements = 0;

    (void)state;
    write_text(path, "SENDER", "1.2.840.10008.1.2.1", "body");
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
    assert_int_equal(elements, 10);
    assert_memory_equal(b.data + b.len - 4, "body", 4);
    unlink(path);
    hp_buf_done(&b);
}

/* Names sort in the order of their making, and none is used twice. */
static void test_spool__names_are_ours_and_in_order(void **state)
{
    char before[HP_PATH_MAX] = "", path[HP_PATH_MAX];

    (void)state;
    for (int i = 0; i < 100; i++) { /* more than one lot of blanks */
        const char *name;

        write_text(path, "A", "1.2.840.10008.1.2.1", "x");
        assert_true(strcmp(path, before) > 0);
        name = strrchr(path, '/') + 1;
        assert_int_equal(strspn(name, "0123456789abcdef-"), strlen(name) - 4);
        assert_string_equal(name + strlen(name) - 4, ".dcm");
        memcpy(before, path, sizeof before);
        unlink(path);
    }
}

/* Somebody tidied up below us: the next slice is served all the same. */
static void test_spool__blanks_that_are_gone_are_made_again(void **state)
{
    char path[HP_PATH_MAX];
    DIR *d = opendir(dir);

    (void)state;
    write_text(path, "A", "1.2.840.10008.1.2.1", "x");
    for (struct dirent *e; (e = readdir(d));)
        unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    write_text(path, "A", "1.2.840.10008.1.2.1", "x");
    assert_true(hp_path_exists(path));
    unlink(path);
}

static void test_spool__what_is_left_at_the_end_are_slices(void **state)
{
    char path[HP_PATH_MAX];
    DIR *d;
    int n = 0;

    (void)state;
    write_text(path, "A", "1.2.840.10008.1.2.1", "x");
    hp_spool_free(spool);
    d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    assert_int_equal(n, 1);
    unlink(path);
    assert_int_equal(hp_spool_open(dir, &spool, NULL), HP_OK);
}

/* ---- reading back ---- */

static void put_slice(hp_buf *b)
{
    ds_slice_start(b, HP_EXPLICIT_LE, "1.2.3");
    ds_pixels(b, HP_EXPLICIT_LE, 30000);
}

static void test_spool__a_whole_file_gives_everything_back(void **state)
{
    char path[HP_PATH_MAX];
    hp_buf b = HP_BUF_INIT;
    uint8_t digest[32];
    hp_stored s;

    (void)state;
    put_slice(&b);
    write_file(path, "SENDER", "1.2.840.10008.1.2.1", b.data, b.len);
    assert_int_equal(hp_spool_read_back(path, &s, NULL), HP_OK);
    assert_string_equal(s.path, path);
    assert_string_equal(s.sop_class.text, DS_CT);
    assert_string_equal(s.sop_instance.text, "1.2.3");
    assert_string_equal(s.transfer_syntax.text, "1.2.840.10008.1.2.1");
    assert_string_equal(s.study.text, DS_STUDY);
    assert_string_equal(s.series.text, DS_SERIES);
    assert_string_equal(s.modality, "CT");
    assert_string_equal(s.accession, "ACC1");
    assert_string_equal(s.study_date, "20010203");
    assert_string_equal(s.calling_ae, "SENDER");
    hp_scan_patient_digest("PHANTOM1", 8, digest);
    assert_memory_equal(s.patient_digest, digest, sizeof digest);
    assert_int_equal(s.dataset_bytes, b.len);
    assert_true(s.size_bytes > b.len);
    unlink(path);
    hp_buf_done(&b);
}

static void expect_torn(const char *path, const hp_buf *whole, size_t from, size_t len)
{
    static const uint8_t zeros[4096];
    hp_stored s;
    FILE *f = fopen(path, "r+");

    assert_non_null(f);
    fseek(f, (long)from, SEEK_SET);
    fwrite(zeros, 1, len, f);
    fclose(f);
    if (memcmp(whole->data + from, zeros, len) == 0)
        assert_int_equal(hp_spool_read_back(path, &s, NULL), HP_OK);
    else
        assert_int_equal(hp_spool_read_back(path, &s, NULL), HP_E_TRUNCATED);
    f = fopen(path, "r+"); /* mended */
    fseek(f, (long)from, SEEK_SET);
    fwrite(whole->data + from, 1, len, f);
    fclose(f);
    assert_int_equal(hp_spool_read_back(path, &s, NULL), HP_OK);
}

/* Any sector that did not reach the disk, the mark's too, and any length. */
static void test_spool__a_torn_file_is_told_from_a_whole_one(void **state)
{
    char path[HP_PATH_MAX];
    hp_buf b = HP_BUF_INIT, whole = HP_BUF_INIT;
    hp_stored s;

    (void)state;
    put_slice(&b);
    write_file(path, "A", "1.2.840.10008.1.2.1", b.data, b.len);
    assert_int_equal(hp_file_read(path, 1 << 20, &whole, NULL), HP_OK);
    for (size_t at = 0; at < whole.len; at += 512)
        expect_torn(path, &whole, at, whole.len - at < 512 ? whole.len - at : 512);
    for (size_t at = 0; at < whole.len; at++)
        if (at < 500 || at % 997 == 0)
            expect_torn(path, &whole, at, 1);
    assert_int_equal(truncate(path, (off_t)whole.len + 1), 0); /* one zero more */
    assert_int_equal(hp_spool_read_back(path, &s, NULL), HP_E_TRUNCATED);
    for (size_t len = 0; len < whole.len; len += len < 600 ? 1 : 501) {
        assert_int_equal(truncate(path, (off_t)len), 0);
        assert_int_equal(hp_spool_read_back(path, &s, NULL), HP_E_TRUNCATED);
        assert_int_equal(hp_file_write(path, whole.data, whole.len, 0600, NULL), HP_OK);
    }
    unlink(path);
    hp_buf_done(&b);
    hp_buf_done(&whole);
}

static void test_spool__an_unfinished_file_is_not_whole(void **state)
{
    hp_spool_file f = HP_SPOOL_FILE_INIT;
    hp_buf b = HP_BUF_INIT;
    hp_stored s;

    (void)state;
    put_slice(&b);
    assert_int_equal(
        hp_spool_create(spool, &f, DS_CT, "1.2.3", "1.2.840.10008.1.2.1", "A", NULL),
        HP_OK);
    assert_int_equal(hp_spool_read_back(f.path, &s, NULL), HP_E_TRUNCATED);
    assert_int_equal(hp_spool_write(&f, b.data, b.len, NULL), HP_OK);
    assert_int_equal(hp_spool_read_back(f.path, &s, NULL), HP_E_TRUNCATED);
    hp_spool_discard(&f);
    assert_int_equal(count_files(), 0);
    hp_buf_done(&b);
}

/* Whole, and this scanner does not like it: never taken for a torn one. */
static void test_spool__a_whole_file_that_cannot_be_scanned_is_not_torn(void **state)
{
    char path[HP_PATH_MAX];
    hp_stored s;

    (void)state;
    write_text(path, "A", "1.2.840.10008.1.2.1", "no dataset");
    assert_int_not_equal(hp_spool_read_back(path, &s, NULL), HP_OK);
    assert_int_not_equal(hp_spool_read_back(path, &s, NULL), HP_E_TRUNCATED);
    unlink(path);
}

static void test_spool__same_means_dataset_and_syntax(void **state)
{
    char a[HP_PATH_MAX], b[HP_PATH_MAX], c[HP_PATH_MAX], d[HP_PATH_MAX], e[HP_PATH_MAX];
    bool same = false;

    (void)state;
    write_text(a, "A", "1.2.840.10008.1.2.1", "dataset");
    write_text(b, "SOMEBODY", "1.2.840.10008.1.2.1", "dataset");
    write_text(c, "A", "1.2.840.10008.1.2.1", "datasex");
    write_text(d, "A", "1.2.840.10008.1.2.1", "dataset2");
    write_text(e, "A", "1.2.840.10008.1.2", "dataset");
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
        hp_code r;

        small = old;
        small.rlim_cur = limit;
        setrlimit(RLIMIT_FSIZE, &small);
        r = hp_spool_create(spool, &f, DS_CT, "1.2.3", "1.2.840.10008.1.2.1", "A", NULL);
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
        cmocka_unit_test(test_spool__names_are_ours_and_in_order),
        cmocka_unit_test(test_spool__blanks_that_are_gone_are_made_again),
        cmocka_unit_test(test_spool__what_is_left_at_the_end_are_slices),
        cmocka_unit_test(test_spool__a_whole_file_gives_everything_back),
        cmocka_unit_test(test_spool__a_torn_file_is_told_from_a_whole_one),
        cmocka_unit_test(test_spool__an_unfinished_file_is_not_whole),
        cmocka_unit_test(test_spool__a_whole_file_that_cannot_be_scanned_is_not_torn),
        cmocka_unit_test(test_spool__same_means_dataset_and_syntax),
        cmocka_unit_test(test_spool__a_write_that_fails_leaves_nothing),
        cmocka_unit_test(test_spool__malformed_files_are_told_apart),
        cmocka_unit_test(test_spool__good_files_of_every_encoding_pass),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
