/* dicom/file: headers and pixels, in every codec we claim, from good files and
 * bad ones. Real samples are used where HEPAR_TEST_DATA has them. */
#include "tests/base/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/volume.h"
#include "dicom/file.h"
#include "tests/fixture/ct_world.h"

enum { SIDE = 64, PIXELS = SIDE * SIDE };

static char dir[256]; /* of the running test */

static int setup(void **state)
{
    (void)state;
    return ct_world_folder(dir) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    ct_world_remove_folder(dir);
    return 0;
}

static const char *in_dir(const char *name)
{
    static char path[4][512];
    static int turn;

    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
    return path[turn];
}

/* A sample's path below the test data, or a skip. */
static const char *sample(const char *name)
{
    static char path[512];
    const char *data = getenv("HEPAR_TEST_DATA");

    snprintf(path, sizeof path, "%s/%s", data != NULL ? data : HP_TEST_DATA, name);
    if (access(path, R_OK) != 0)
        skip();
    return path;
}

static hp_slice one_plane(void)
{
    hp_slice_list l = HP_SLICE_LIST_INIT;
    hp_slice s;

    ct_world_add(&l, &(ct_stack){.series = 3,
                                 .description = "venous",
                                 .count = 1,
                                 .time_s = 36000,
                                 .contrast_start_s = 35930,
                                 .agent = "X"});
    s = l.item[0];
    hp_slice_list_done(&l);
    return s;
}

static hp_slice read_one(const char *path)
{
    hp_slice_list l = HP_SLICE_LIST_INIT;
    hp_error e = HP_ERROR_INIT;
    hp_code r = hp_slice_read(path, &l, &e);
    hp_slice s;

    if (r != HP_OK)
        print_error("%s: %s\n", path, e.msg);
    assert_int_equal(r, HP_OK);
    assert_int_equal(l.count, 1);
    s = l.item[0];
    hp_slice_list_done(&l);
    return s;
}

static int16_t *pixels_of(const hp_slice *s)
{
    int16_t *hu = malloc((size_t)s->rows * (size_t)s->columns * sizeof *hu);
    hp_error e = HP_ERROR_INIT;
    hp_code r;

    assert_non_null(hu);
    r = hp_slice_pixels(s, hu, &e);
    if (r != HP_OK)
        print_error("%s\n", e.msg);
    assert_int_equal(r, HP_OK);
    return hu;
}

/* -- headers -- */

static void test_file__headers_come_back_as_written(void **state)
{
    hp_slice s = one_plane(), r;

    (void)state;
    assert_true(ct_world_write(&s, in_dir("a.dcm")));
    r = read_one(in_dir("a.dcm"));
    assert_string_equal(r.sop_instance.text, s.sop_instance.text);
    assert_string_equal(r.series.text, s.series.text);
    assert_string_equal(r.transfer_syntax.text, "1.2.840.10008.1.2.1");
    assert_string_equal(r.image_type, "ORIGINAL\\PRIMARY\\AXIAL");
    assert_string_equal(r.series_description, "venous");
    assert_string_equal(r.kernel, "STANDARD");
    assert_int_equal(r.rows, SIDE);
    assert_int_equal(r.frames, 1);
    assert_int_equal(r.series_number, 3);
    assert_int_equal(r.acquisition_number, -1);
    assert_int_equal(r.pixel_padding, INT32_MIN);
    assert_true(fabs(r.position_mm[0] - s.position_mm[0]) < 1e-6);
    assert_true(fabs(r.spacing_mm[1] - 0.8) < 1e-9);
    assert_true(fabs(r.acquired_s - 36000) < 1e-6);
    assert_true(fabs(r.contrast_start_s - 35930) < 1e-6);
    assert_true(r.has_contrast_agent && r.has_contrast_tag);
    assert_false(r.lossy);
    assert_true(isnan(r.gantry_tilt_deg));
}

static void test_file__a_folder_is_read_in_order(void **state)
{
    hp_slice_list w = HP_SLICE_LIST_INIT, l = HP_SLICE_LIST_INIT;
    hp_error e = HP_ERROR_INIT;
    int skipped = -1;
    FILE *f;

    (void)state;
    ct_world_add(&w, &(ct_stack){.series = 3, .count = 5});
    assert_true(ct_world_write_all(&w, dir));
    f = fopen(in_dir("notes.txt"), "w");
    assert_non_null(f);
    fputs("no DICOM here\n", f);
    fclose(f);
    assert_int_equal(mkdir(in_dir("empty"), 0700), 0);
    assert_int_equal(symlink("0001.dcm", in_dir("link.dcm")), 0);
    assert_int_equal(hp_slice_read_dir(dir, &l, &skipped, &e), HP_OK);
    assert_int_equal(l.count, 5);
    assert_int_equal(skipped, 1);
    assert_int_equal(l.item[4].instance_number, 5);
    assert_int_equal(hp_slice_read_dir(in_dir("empty"), &l, &skipped, &e), HP_E_EMPTY);
    assert_int_equal(hp_slice_read_dir(in_dir("none"), &l, &skipped, &e), HP_E_NOT_FOUND);
    hp_slice_list_done(&w);
    hp_slice_list_done(&l);
}

/* -- values -- */

static void test_pixels__are_rescaled(void **state)
{
    hp_slice s = one_plane(), r;
    int16_t *hu;

    (void)state;
    s.slope = 2;
    s.intercept = -2000.4;
    assert_true(ct_world_write(&s, in_dir("a.dcm")));
    r = read_one(in_dir("a.dcm"));
    hu = pixels_of(&r);
    for (int i = 0; i < PIXELS; i++)
        assert_int_equal(
            hu[i], (int)floor(2.0 * ct_world_word(&s, i / SIDE, i % SIDE) - 1999.9));
    free(hu);
}

/* Writes the words w[0..n) over the beginning of a plane's pixels. */
static void put_words(const char *path, const uint16_t *w, long n)
{
    FILE *f = fopen(path, "r+b");

    assert_non_null(f);
    assert_int_equal(fseek(f, -2L * PIXELS, SEEK_END), 0);
    assert_int_equal(fwrite(w, 2, (size_t)n, f), n);
    fclose(f);
}

static void expect_words(hp_slice s, const uint16_t *w, const int *hu_want, int n)
{
    hp_slice r;
    int16_t *hu;

    assert_true(ct_world_write(&s, in_dir("w.dcm")));
    put_words(in_dir("w.dcm"), w, n);
    r = read_one(in_dir("w.dcm"));
    hu = pixels_of(&r);
    for (int i = 0; i < n; i++)
        assert_int_equal(hu[i], hu_want[i]);
    free(hu);
}

static void test_pixels__padding_of_either_sign(void **state)
{
    hp_slice s = one_plane();
    uint16_t w[] = {63536, 1000, 0};

    (void)state;
    s.intercept = 0;
    s.pixel_padding = 63536; /* -2000 written as unsigned */
    expect_words(s, w, (int[]){HP_PAD_HU, 1000, 0}, 3);
    s.pixel_representation = 0;
    s.intercept = -1024;
    expect_words(s, w, (int[]){HP_PAD_HU, -24, HP_PAD_HU}, 3);
}

static void test_pixels__padding_that_would_be_tissue_is_no_padding(void **state)
{
    hp_slice s = one_plane();

    (void)state;
    s.intercept = 0;
    s.pixel_padding = 0; /* water */
    expect_words(s, (uint16_t[]){0, 55}, (int[]){0, 55}, 2);
}

static void test_pixels__below_air_is_padding(void **state)
{
    hp_slice s = one_plane();

    (void)state;
    s.intercept = 0;
    expect_words(s,
                 (uint16_t[]){(uint16_t)-2000, (uint16_t)-1025, (uint16_t)-1023, 32767},
                 (int[]){HP_PAD_HU, HP_PAD_HU, -1023, 32767}, 4);
    s.slope = 10;
    expect_words(s, (uint16_t[]){32767}, (int[]){32767}, 1);
}

static void test_pixels__twelve_bits_with_rubbish_above(void **state)
{
    hp_slice s = one_plane();
    uint16_t w[] = {0xF801, 0x07FF, 0x0FFF};

    (void)state;
    s.bits_stored = 12;
    s.high_bit = 11;
    s.intercept = 0;
    expect_words(s, w, (int[]){HP_PAD_HU, 2047, -1}, 3); /* 0x801 is -2047 */
    s.pixel_representation = 0;
    s.intercept = -1024;
    expect_words(s, w, (int[]){2049 - 1024, 2047 - 1024, 4095 - 1024}, 3);
}

static void test_pixels__twelve_bits_high_in_the_word(void **state)
{
    hp_slice s = one_plane();

    (void)state;
    s.bits_stored = 12;
    s.high_bit = 15;
    s.intercept = 0;
    expect_words(s, (uint16_t[]){0x7FF0, 0xFFF5}, (int[]){2047, -1}, 2);
}

/* -- codecs -- */

static bool make(const char *fmt, const char *from, const char *to)
{
    char command[1200];
    int n = snprintf(command, sizeof command, "%s %s %s >/dev/null 2>&1", fmt, from, to);

    return n > 0 && (size_t)n < sizeof command && system(command) == 0;
}

static void expect_codec(const char *tool, const char *syntax, bool lossy)
{
    hp_slice s = one_plane(), r;
    int16_t *hu;
    int worst = 0;

    /* the JPEG tools want a file without sign bits to spare */
    s.bits_stored = 12;
    s.high_bit = 11;
    s.pixel_representation = 0;
    assert_true(ct_world_write(&s, in_dir("plain.dcm")));
    if (!make(tool, in_dir("plain.dcm"), in_dir("coded.dcm")))
        skip();
    r = read_one(in_dir("coded.dcm"));
    assert_string_equal(r.transfer_syntax.text, syntax);
    assert_int_equal(r.lossy, lossy);
    hu = pixels_of(&r);
    for (int i = 0; i < PIXELS; i++) {
        int off = abs(hu[i] - (ct_world_word(&s, i / SIDE, i % SIDE) - 1024));

        worst = off > worst ? off : worst;
    }
    assert_in_range(worst, 0,
                    lossy ? 150 : 0); /* the test pattern is no friend of JPEG */
    free(hu);
}

static void test_codec__implicit_le(void **state)
{
    (void)state;
    expect_codec("dcmconv +ti", "1.2.840.10008.1.2", false);
}

static void test_codec__big_endian(void **state)
{
    (void)state;
    expect_codec("dcmconv +tb", "1.2.840.10008.1.2.2", false);
}

static void test_codec__deflated(void **state)
{
    (void)state;
    expect_codec("dcmconv +td", "1.2.840.10008.1.2.1.99", false);
}

static void test_codec__rle(void **state)
{
    (void)state;
    expect_codec("dcmcrle", "1.2.840.10008.1.2.5", false);
}

static void test_codec__jpeg_lossless(void **state)
{
    (void)state;
    expect_codec("dcmcjpeg +e1", "1.2.840.10008.1.2.4.70", false);
}

static void test_codec__jpeg_lossless_57(void **state)
{
    (void)state;
    expect_codec("dcmcjpeg +el", "1.2.840.10008.1.2.4.57", false);
}

static void test_codec__jpeg_extended(void **state)
{
    (void)state;
    expect_codec("dcmcjpeg +ee +q 95", "1.2.840.10008.1.2.4.51", true);
}

static void test_codec__jpeg_ls(void **state)
{
    (void)state;
    expect_codec("dcmcjpls +el", "1.2.840.10008.1.2.4.80", false);
}

static void test_codec__jpeg_ls_lossy(void **state)
{
    (void)state;
    expect_codec("dcmcjpls +en +md 2", "1.2.840.10008.1.2.4.81", true);
}

static void test_codec__one_real_image_in_seven_codecs(void **state)
{
    static const char *const NAME[] = {"vendor/ge_ct1_implicit_le.dcm",
                                       "vendor/ge_ct1_jpeg_lossless_sv1.dcm",
                                       "vendor/ge_ct1_jpegls_lossless.dcm",
                                       "vendor/ge_ct1_j2k_lossless.dcm",
                                       "vendor/ge_ct1_rle.dcm",
                                       "vendor/nema_ct1_jpegls_fragmented_bot.dcm"};
    hp_slice plain = read_one(sample("vendor/ge_ct1_explicit_le.dcm")), other;
    int16_t *want = pixels_of(&plain), *got;
    double error = 0;

    (void)state;
    for (size_t i = 0; i < sizeof NAME / sizeof NAME[0]; i++) {
        other = read_one(sample(NAME[i]));
        got = pixels_of(&other);
        assert_memory_equal(got, want, sizeof *got * 512 * 512);
        assert_false(other.lossy);
        free(got);
    }
    other = read_one(sample("vendor/ge_ct1_j2k_lossy.dcm"));
    assert_true(other.lossy);
    got = pixels_of(&other);
    for (int i = 0; i < 512 * 512; i++)
        error += abs(got[i] - want[i]);
    if (error / (512 * 512) >= 30)
        print_error("mean error %.1f HU\n", error / (512 * 512));
    assert_true(error / (512 * 512) < 30); /* 14 kB of 512: GDCM decodes the same */
    free(got);
    free(want);
}

/* Two codecs, with and without fragments, no offset table; frames in any order. */
static void test_codec__enhanced_frames_in_any_order(void **state)
{
    static const char *const NAME[] = {"vendor/ect_jpegls_nobot.dcm",
                                       "vendor/ect_jpeglossless57_fragmented.dcm"};
    static const int ORDER[] = {1, 0, 1, 1, 0};
    int16_t *first[2] = {NULL, NULL}, *hu;
    hp_error e = HP_ERROR_INIT;

    (void)state;
    sample(NAME[0]); /* skips here where there is none: nothing to free yet */
    hu = malloc(512 * 512 * sizeof *hu);
    assert_non_null(hu);
    for (int n = 0; n < 2; n++) {
        hp_slice_list l = HP_SLICE_LIST_INIT;
        hp_auto(hp_pixel_reader) *r = NULL;

        assert_int_equal(hp_slice_read(sample(NAME[n]), &l, &e), HP_OK);
        assert_int_equal(l.count, 2);
        assert_int_equal(l.item[1].frames, 2);
        assert_true(fabs(l.item[1].position_mm[2] - l.item[0].position_mm[2] - 10) <
                    1e-3);
        assert_int_equal(hp_pixel_reader_new(&r, &e), HP_OK);
        for (int i = 0; i < 5; i++) {
            int f = ORDER[i];

            assert_int_equal(hp_pixel_reader_plane(r, &l.item[f], hu, &e), HP_OK);
            if (first[f] == NULL) {
                first[f] = malloc(512 * 512 * sizeof *hu);
                memcpy(first[f], hu, 512 * 512 * sizeof *hu);
            }
            assert_memory_equal(hu, first[f], 512 * 512 * sizeof *hu);
        }
        hp_slice_list_done(&l);
    }
    assert_memory_not_equal(first[0], first[1], 512 * 512 * sizeof *hu);
    free(first[0]);
    free(first[1]);
    free(hu);
}

/* -- bad files -- */

static hp_code read_code(const char *path)
{
    hp_slice_list l = HP_SLICE_LIST_INIT;
    hp_code r = hp_slice_read(path, &l, NULL);

    /* what was appended must be whole enough to be looked at */
    for (size_t i = 0; i < l.count && r == HP_OK; i++) {
        const hp_slice *s = &l.item[i];
        int16_t *hu;

        if (s->rows < 1 || s->rows > 4096 || s->columns < 1 || s->columns > 4096)
            continue;
        hu = malloc((size_t)s->rows * (size_t)s->columns * sizeof *hu);
        hp_slice_pixels(s, hu, NULL);
        free(hu);
    }
    assert_true(r == HP_OK || r == HP_E_UNSUPPORTED || l.count == 0);
    hp_slice_list_done(&l);
    return r;
}

static void test_bad__malformed_samples(void **state)
{
    static const struct {
        const char *name;
        hp_code code;
    } CASE[] = {
        {"badVR.dcm", HP_E_UNSUPPORTED},
        {"no_meta.dcm", HP_E_INVALID},
        {"meta_missing_tsyntax.dcm", HP_E_TRUNCATED},
        {"MR_truncated.dcm", HP_E_TRUNCATED},
        {"rtplan_truncated.dcm", HP_E_TRUNCATED},
        {"CTImageStorage_bad_meta.dcm", HP_OK},
        {"JPEG2000-embedded-sequence-delimiter.dcm", HP_E_UNSUPPORTED},
    };

    (void)state;
    for (size_t i = 0; i < sizeof CASE / sizeof CASE[0]; i++) {
        char name[128];

        snprintf(name, sizeof name, "malformed/%s", CASE[i].name);
        assert_int_equal(read_code(sample(name)), CASE[i].code);
    }
}

static void test_bad__noattr_ct_can_be_explained(void **state)
{
    hp_slice s = read_one(sample("vendor/noattr_ct_0.dcm"));

    (void)state;
    assert_string_equal(s.modality, "");
    assert_int_equal(s.series_number, -1);
    assert_string_equal(s.manufacturer, "");
}

static uint8_t *slurp(const char *path, size_t *ret_len)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc(1 << 20);

    assert_non_null(f);
    *ret_len = fread(data, 1, 1 << 20, f);
    fclose(f);
    return data;
}

static void spit(const char *path, const uint8_t *data, size_t len)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    fclose(f);
}

static void test_bad__cut_off_anywhere(void **state)
{
    hp_slice s = one_plane();
    size_t len;
    uint8_t *data;

    (void)state;
    assert_true(ct_world_write(&s, in_dir("a.dcm")));
    data = slurp(in_dir("a.dcm"), &len);
    for (size_t cut = 0; cut < len; cut += cut < 1200 ? 7 : 911) {
        spit(in_dir("cut.dcm"), data, cut);
        assert_int_not_equal(read_code(in_dir("cut.dcm")), HP_OK);
    }
    free(data);
}

static void test_bad__flipped_bytes_never_crash(void **state)
{
    static const char *const TOOL[] = {"cp", "dcmcjpls +el", "dcmcrle", "dcmcjpeg +e1",
                                       "dcmconv +td"};
    unsigned seed = 5;

    (void)state;
    for (size_t t = 0; t < sizeof TOOL / sizeof TOOL[0]; t++) {
        hp_slice s = one_plane();
        size_t len;
        uint8_t *data;

        assert_true(ct_world_write(&s, in_dir("a.dcm")));
        if (!make(TOOL[t], in_dir("a.dcm"), in_dir("b.dcm")))
            continue;
        data = slurp(in_dir("b.dcm"), &len);
        for (int round = 0; round < 150; round++) {
            size_t at;
            uint8_t was;

            seed = seed * 1664525u + 1013904223u;
            at = 132 + (seed >> 4) % (len - 132);
            was = data[at];
            data[at] ^= (uint8_t)(1u << (seed & 7));
            spit(in_dir("c.dcm"), data, len);
            read_code(in_dir("c.dcm"));
            data[at] = was;
        }
        free(data);
    }
}

/* 20,000 sequences inside each other: DCMTK's own parser dies of it. */
static void test_bad__a_nesting_bomb_stays_outside(void **state)
{
    static const uint8_t NEST[] = {0x40, 0,    0x54, 0xA7, 'S',  'Q',  0,
                                   0,    0xFF, 0xFF, 0xFF, 0xFF, 0xFE, 0xFF,
                                   0,    0xE0, 0xFF, 0xFF, 0xFF, 0xFF};
    hp_slice s = one_plane();
    size_t len, meta = 132 + 12;
    uint8_t *data, *bomb = malloc(132 + 1000 + 20000 * sizeof NEST);

    (void)state;
    assert_non_null(bomb);
    assert_true(ct_world_write(&s, in_dir("a.dcm")));
    data = slurp(in_dir("a.dcm"), &len);
    meta += data[140] | (size_t)data[141] << 8;
    memcpy(bomb, data, meta);
    for (int i = 0; i < 20000; i++)
        memcpy(bomb + meta + (size_t)i * sizeof NEST, NEST, sizeof NEST);
    spit(in_dir("bomb.dcm"), bomb, meta + 20000 * sizeof NEST);
    assert_int_equal(read_code(in_dir("bomb.dcm")), HP_E_LIMIT);
    { /* its folder is read all the same */
        hp_slice_list list = HP_SLICE_LIST_INIT;
        int skipped = 0;

        assert_int_equal(hp_slice_read_dir(dir, &list, &skipped, NULL), HP_OK);
        assert_int_equal(list.count, 1);
        assert_int_equal(skipped, 1);
        hp_slice_list_done(&list);
    }
    free(bomb);
    free(data);
}

static void test_bad__pixels_that_contradict_the_header(void **state)
{
    hp_slice s = one_plane(), r;
    int16_t *hu = malloc(4 * PIXELS * sizeof *hu);

    (void)state;
    assert_non_null(hu);
    assert_true(ct_world_write(&s, in_dir("a.dcm")));
    r = read_one(in_dir("a.dcm"));
    r.rows = 2 * SIDE; /* a header that changed between two readings */
    assert_int_equal(hp_slice_pixels(&r, hu, NULL), HP_E_MISMATCH);
    r = read_one(in_dir("a.dcm"));
    r.frame = 3;
    assert_int_not_equal(hp_slice_pixels(&r, hu, NULL), HP_OK);
    r = read_one(in_dir("a.dcm"));
    r.bits_stored = 17;
    assert_int_equal(hp_slice_pixels(&r, hu, NULL), HP_E_INVALID);
    r = read_one(in_dir("a.dcm"));
    r.slope = NAN;
    assert_int_equal(hp_slice_pixels(&r, hu, NULL), HP_E_INVALID);
    free(hu);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_file__headers_come_back_as_written),
        CASE(test_file__a_folder_is_read_in_order),
        CASE(test_pixels__are_rescaled),
        CASE(test_pixels__padding_of_either_sign),
        CASE(test_pixels__padding_that_would_be_tissue_is_no_padding),
        CASE(test_pixels__below_air_is_padding),
        CASE(test_pixels__twelve_bits_with_rubbish_above),
        CASE(test_pixels__twelve_bits_high_in_the_word),
        CASE(test_codec__implicit_le),
        CASE(test_codec__big_endian),
        CASE(test_codec__deflated),
        CASE(test_codec__rle),
        CASE(test_codec__jpeg_lossless),
        CASE(test_codec__jpeg_lossless_57),
        CASE(test_codec__jpeg_extended),
        CASE(test_codec__jpeg_ls),
        CASE(test_codec__jpeg_ls_lossy),
        CASE(test_codec__one_real_image_in_seven_codecs),
        CASE(test_codec__enhanced_frames_in_any_order),
        CASE(test_bad__malformed_samples),
        CASE(test_bad__noattr_ct_can_be_explained),
        CASE(test_bad__cut_off_anywhere),
        CASE(test_bad__flipped_bytes_never_crash),
        CASE(test_bad__a_nesting_bomb_stays_outside),
        CASE(test_bad__pixels_that_contradict_the_header),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
