/* dicom/scan.c: what it finds, what it refuses, and that chunking is nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/fixture/dataset.h"

enum { ENOUGH = 1 << 20 };

static hp_code scan_in_chunks(hp_encoding e, const hp_buf *b, size_t chunk, uint64_t max,
                              hp_scan_result *ret)
{
    hp_auto(hp_scan) *s = NULL;
    hp_code r;

    assert_int_equal(hp_scan_new(e, max, &s, NULL), HP_OK);
    for (size_t at = 0; at < b->len; at += chunk) {
        size_t n = b->len - at < chunk ? b->len - at : chunk;
        uint8_t *copy = malloc(n); /* exactly n bytes, so that ASan sees one more */

        memcpy(copy, b->data + at, n);
        r = hp_scan_feed(s, copy, n, NULL);
        free(copy);
        if (r != HP_OK)
            return r;
    }
    return hp_scan_end(s, ret, NULL);
}

/* The same answer for every chunking. */
static hp_code scan(hp_encoding e, const hp_buf *b, uint64_t max, hp_scan_result *ret)
{
    hp_code r = scan_in_chunks(e, b, b->len ? b->len : 1, max, ret);

    for (size_t chunk = 1; chunk < 20; chunk += 3) {
        hp_scan_result again;

        assert_int_equal(scan_in_chunks(e, b, chunk, max, &again), r);
        if (r == HP_OK)
            assert_memory_equal(&again, ret, sizeof again);
    }
    return r;
}

static hp_code scan_default(hp_encoding e, const hp_buf *b)
{
    hp_scan_result v;

    return scan(e, b, ENOUGH, &v);
}

static const hp_encoding all[] = {HP_IMPLICIT_LE, HP_EXPLICIT_LE, HP_EXPLICIT_BE};

static void test_scan__picks_out_what_files_a_slice(void **state)
{
    uint8_t expect[32];

    (void)state;
    hp_scan_patient_digest("PHANTOM1", 8, expect);
    for (int i = 0; i < 3; i++) {
        hp_buf b = HP_BUF_INIT;
        hp_scan_result v;

        ds_slice_start(&b, all[i], "1.2.3.4");
        ds_pixels(&b, all[i], 512);
        assert_int_equal(scan(all[i], &b, ENOUGH, &v), HP_OK);
        assert_string_equal(v.sop_class, DS_CT);
        assert_string_equal(v.sop_instance, "1.2.3.4");
        assert_string_equal(v.study, DS_STUDY);
        assert_string_equal(v.series, DS_SERIES);
        assert_string_equal(v.modality, "CT");
        assert_string_equal(v.accession, "ACC1");
        assert_string_equal(v.study_date, "20010203");
        assert_memory_equal(v.patient_digest, expect, 32);
        assert_true(v.has_pixels);
        assert_int_equal(v.deepest, 0);
        hp_buf_done(&b);
    }
}

static void
test_scan__the_patient_digest_ignores_padding_and_tells_ids_apart(void **state)
{
    uint8_t a[32], b[32], c[32];

    (void)state;
    hp_scan_patient_digest("12", 2, a);
    hp_scan_patient_digest(" 12\0", 4, b);
    hp_scan_patient_digest("1 2", 3, c);
    assert_memory_equal(a, b, 32);
    assert_memory_not_equal(a, c, 32);
}

/* A study UID inside a sequence names another study. */
static void test_scan__only_the_top_level_counts(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        hp_encoding e = all[i];
        hp_buf b = HP_BUF_INIT;
        hp_scan_result v;

        ds_header(&b, e, 0x0008, 0x1110, "SQ", HP_UNDEFINED);
        ds_item(&b, e, HP_UNDEFINED);
        ds_text(&b, e, 0x0020, 0x000D, "UI", "9.9.9");
        ds_item_end(&b, e);
        ds_sequence_end(&b, e);
        ds_slice_start(&b, e, "1.2.3");
        ds_text(&b, e, 0x0020, 0x000D, "UI", "8.8.8"); /* repeated: the first counts */
        assert_int_equal(scan(e, &b, ENOUGH, &v), HP_OK);
        assert_string_equal(v.study, DS_STUDY);
        assert_int_equal(v.deepest, 1);
        hp_buf_done(&b);
    }
}

static void test_scan__defined_lengths_nest(void **state)
{
    hp_buf b = HP_BUF_INIT;
    hp_encoding e = HP_EXPLICIT_LE;
    hp_scan_result v;

    (void)state;
    ds_header(&b, e, 0x0008, 0x1110, "SQ", 8 + 12 + 8 + 10 + 8);
    ds_item(&b, e, 12 + 8 + 10);
    ds_header(&b, e, 0x0008, 0x1115, "SQ", 8 + 10);
    ds_item(&b, e, 10);
    ds_text(&b, e, 0x0008, 0x0060, "CS", "MR");
    ds_item(&b, e, 0);
    ds_text(&b, e, 0x0008, 0x0060, "CS", "CT");
    assert_int_equal(scan(e, &b, ENOUGH, &v), HP_OK);
    assert_string_equal(v.modality, "CT");
    assert_int_equal(v.deepest, 2);
    hp_buf_done(&b);
}

static void put_levels(hp_buf *b, hp_encoding e, int levels)
{
    for (int i = 0; i < levels; i++) {
        ds_header(b, e, 0x0008, 0x1115, "SQ", HP_UNDEFINED);
        ds_item(b, e, HP_UNDEFINED);
    }
    for (int i = 0; i < levels; i++) {
        ds_item_end(b, e);
        ds_sequence_end(b, e);
    }
}

static void test_scan__64_levels_are_taken_and_65_are_not(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        hp_buf b = HP_BUF_INIT;

        put_levels(&b, all[i], HP_SCAN_MAX_DEPTH);
        assert_int_equal(scan_default(all[i], &b), HP_OK);
        hp_buf_clear(&b);
        put_levels(&b, all[i], HP_SCAN_MAX_DEPTH + 1);
        assert_int_equal(scan_default(all[i], &b), HP_E_LIMIT);
        hp_buf_clear(&b);
        put_levels(&b, all[i], 10000);
        assert_int_equal(scan_default(all[i], &b), HP_E_LIMIT);
        hp_buf_done(&b);
    }
}

/* Implicit VR does not say "sequence", and defined lengths hide the delimiters:
 * the form in which a bomb passes a scanner that only looks for delimiters. */
static void test_scan__a_bomb_of_defined_lengths_is_seen_in_implicit_vr(void **state)
{
    hp_buf b = HP_BUF_INIT;

    (void)state;
    for (int left = 100; left > 0; left--) {
        ds_header(&b, HP_IMPLICIT_LE, 0x0008, 0x1115, "", (uint32_t)(left - 1) * 16 + 8);
        ds_item(&b, HP_IMPLICIT_LE, (uint32_t)(left - 1) * 16);
    }
    assert_int_equal(scan_default(HP_IMPLICIT_LE, &b), HP_E_LIMIT);
    hp_buf_done(&b);
}

/* Private bytes that begin like an item but are none: skipped by length. */
static void test_scan__nobody_is_refused_for_bytes_that_look_like_a_sequence(void **state)
{
    static const uint8_t looks[] = {0xFE, 0xFF, 0x00, 0xE0, 4,    0, 0, 0, 9, 9, 9,
                                    9,    0x12, 0x34, 0x56, 0x78, 1, 1, 1, 1, 1, 1};
    hp_buf b = HP_BUF_INIT;
    hp_scan_result v;

    (void)state;
    ds_bytes(&b, HP_IMPLICIT_LE, 0x0009, 0x1001, "", looks, sizeof looks);
    ds_slice_start(&b, HP_IMPLICIT_LE, "1.2.3");
    assert_int_equal(scan(HP_IMPLICIT_LE, &b, ENOUGH, &v), HP_OK);
    assert_string_equal(v.sop_instance, "1.2.3");
    hp_buf_clear(&b);
    ds_bytes(&b, HP_EXPLICIT_LE, 0x0009, 0x1001, "UN", looks, sizeof looks);
    ds_slice_start(&b, HP_EXPLICIT_LE, "1.2.3");
    assert_int_equal(scan(HP_EXPLICIT_LE, &b, ENOUGH, &v), HP_OK);
    assert_string_equal(v.sop_instance, "1.2.3");
    hp_buf_done(&b);
}

static void test_scan__un_of_undefined_length_is_implicit_vr(void **state)
{
    static const hp_encoding explicits[] = {HP_EXPLICIT_LE, HP_EXPLICIT_BE};

    (void)state;
    for (int i = 0; i < 2; i++) {
        hp_encoding e = explicits[i];
        hp_buf b = HP_BUF_INIT;
        hp_scan_result v;

        ds_header(&b, e, 0x0009, 0x1001, "UN", HP_UNDEFINED);
        ds_item(&b, HP_IMPLICIT_LE, HP_UNDEFINED);
        ds_text(&b, HP_IMPLICIT_LE, 0x0008, 0x0060, "", "MR");
        ds_item_end(&b, HP_IMPLICIT_LE);
        ds_sequence_end(&b, HP_IMPLICIT_LE);
        ds_slice_start(&b, e, "1.2.3");
        assert_int_equal(scan(e, &b, ENOUGH, &v), HP_OK);
        assert_string_equal(v.modality, "CT");
        hp_buf_done(&b);
    }
}

static void test_scan__fragments_are_walked_by_length(void **state)
{
    /* the delimiter's own bytes inside a fragment are pixels */
    static const uint8_t trap[] = {0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0, 1, 2};
    hp_encoding e = HP_EXPLICIT_LE;
    hp_buf b = HP_BUF_INIT;

    (void)state;
    ds_slice_start(&b, e, "1.2.3");
    ds_header(&b, e, 0x7FE0, 0x0010, "OB", HP_UNDEFINED);
    ds_item(&b, e, 0);
    ds_item(&b, e, sizeof trap);
    hp_buf_put(&b, trap, sizeof trap);
    ds_item(&b, e, 3); /* odd, as some write it */
    hp_buf_put(&b, trap, 3);
    assert_int_equal(scan_default(e, &b), HP_E_TRUNCATED);
    ds_sequence_end(&b, e);
    assert_int_equal(scan_default(e, &b), HP_OK);
    ds_text(&b, e, 0xFFFC, 0xFFFC, "OB", "padding!");
    assert_int_equal(scan_default(e, &b), HP_OK);
    hp_buf_clear(&b);
    ds_header(&b, e, 0x7FE0, 0x0010, "OB", HP_UNDEFINED);
    ds_item(&b, e, HP_UNDEFINED);
    assert_int_equal(scan_default(e, &b), HP_E_INVALID);
    hp_buf_clear(&b);
    ds_header(&b, e, 0x7FE0, 0x0010, "OB", HP_UNDEFINED);
    ds_text(&b, e, 0x0008, 0x0060, "CS", "CT");
    assert_int_equal(scan_default(e, &b), HP_E_INVALID);
    hp_buf_done(&b);
}

static void test_scan__every_cut_is_noticed(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        hp_encoding e = all[i];
        hp_buf b = HP_BUF_INIT;
        size_t whole, good = 0;
        size_t boundary[64];
        int boundaries = 0;

        boundary[boundaries++] = 0;
        ds_text(&b, e, 0x0008, 0x0016, "UI", DS_CT);
        boundary[boundaries++] = b.len;
        ds_header(&b, e, 0x0008, 0x1110, "SQ", HP_UNDEFINED);
        ds_item(&b, e, HP_UNDEFINED);
        ds_text(&b, e, 0x0008, 0x0060, "CS", "CT");
        ds_item_end(&b, e);
        ds_sequence_end(&b, e);
        boundary[boundaries++] = b.len;
        ds_pixels(&b, e, 40);
        boundary[boundaries++] = b.len;
        whole = b.len;
        for (b.len = 0; b.len <= whole; b.len++) {
            bool at_boundary = false;

            for (int k = 0; k < boundaries; k++)
                at_boundary |= boundary[k] == b.len;
            /* a big-endian tag starts with 00, which alone is padding */
            if (e == HP_EXPLICIT_BE && b.len > 0 && b.len < whole &&
                b.data[b.len - 1] == 0 && scan_default(e, &b) == HP_OK && !at_boundary)
                continue;
            assert_int_equal(scan_default(e, &b) == HP_OK, at_boundary);
            good += at_boundary;
        }
        assert_int_equal(good, boundaries);
        b.len = whole;
        hp_buf_done(&b);
    }
}

static void test_scan__lengths_stay_inside_what_encloses_them(void **state)
{
    hp_encoding e = HP_EXPLICIT_LE;
    hp_buf b = HP_BUF_INIT;

    (void)state;
    /* an element longer than its item */
    ds_header(&b, e, 0x0008, 0x1110, "SQ", HP_UNDEFINED);
    ds_item(&b, e, 10);
    ds_header(&b, e, 0x0008, 0x0060, "CS", 4);
    hp_buf_put(&b, "CT  ", 4);
    ds_sequence_end(&b, e);
    assert_int_equal(scan_default(e, &b), HP_E_INVALID);
    /* an item longer than its sequence */
    hp_buf_clear(&b);
    ds_header(&b, e, 0x0008, 0x1110, "SQ", 12);
    ds_item(&b, e, 40);
    assert_int_equal(scan_default(e, &b), HP_E_INVALID);
    /* a header that does not fit into its item */
    hp_buf_clear(&b);
    ds_header(&b, e, 0x0008, 0x1110, "SQ", HP_UNDEFINED);
    ds_item(&b, e, 5);
    hp_buf_put(&b, "abcdefghijkl", 12);
    assert_int_equal(scan_default(e, &b), HP_E_INVALID);
    /* M8: 0xF0000000 in a small dataset */
    hp_buf_clear(&b);
    ds_header(&b, e, 0x0009, 0x1001, "OB", 0xF0000000u);
    assert_int_equal(scan_default(e, &b), HP_E_LIMIT);
    hp_buf_done(&b);
}

static void test_scan__no_dataset_is_longer_than_allowed(void **state)
{
    hp_encoding e = HP_EXPLICIT_LE;
    hp_buf b = HP_BUF_INIT;
    hp_scan_result v;

    (void)state;
    ds_slice_start(&b, e, "1.2.3");
    ds_pixels(&b, e, 1000);
    assert_int_equal(scan(e, &b, b.len, &v), HP_OK);
    assert_int_equal(scan(e, &b, b.len - 1, &v), HP_E_LIMIT);
    /* many short elements add up as well */
    hp_buf_clear(&b);
    for (int i = 0; i < 100; i++)
        ds_text(&b, e, 0x0009, 0x1001, "LO", "x");
    assert_int_equal(scan(e, &b, b.len, &v), HP_OK);
    assert_int_equal(scan(e, &b, b.len - 1, &v), HP_E_LIMIT);
    hp_buf_done(&b);
}

static void test_scan__oddities_of_the_wild_are_tolerated(void **state)
{
    hp_encoding e = HP_EXPLICIT_LE;
    hp_buf b = HP_BUF_INIT;
    hp_scan_result v;

    (void)state;
    ds_text(&b, e, 0x0020, 0x000E, "UI", "2.2");     /* unordered */
    ds_bytes(&b, e, 0x0008, 0x0060, "CS", "CT ", 3); /* odd length */
    ds_bytes(&b, e, 0x0008, 0x0050, "??", "AB", 2);  /* no VR: 16-bit length */
    hp_buf_u16le(&b, 0x0009); /* a VR that is yet to come: 32-bit length */
    hp_buf_u16le(&b, 0x1002);
    hp_buf_put(&b, "ZZ\0\0\4\0\0\0abcd", 12);
    ds_item_end(&b, e); /* stray delimiters */
    ds_sequence_end(&b, e);
    ds_text(&b, e, 0x0020, 0x000D, "UI", "1.1");
    hp_buf_put(&b, "\0\0\0", 3); /* a few zeros at the very end */
    assert_int_equal(scan(e, &b, ENOUGH, &v), HP_OK);
    assert_string_equal(v.series, "2.2");
    assert_string_equal(v.modality, "CT");
    assert_string_equal(v.accession, "AB");
    assert_string_equal(v.study, "1.1");
    hp_buf_done(&b);
}

static void test_scan__a_uid_of_65_characters_does_not_look_like_one_of_64(void **state)
{
    char uid[80];
    hp_buf b = HP_BUF_INIT;
    hp_scan_result v;

    (void)state;
    memset(uid, '1', sizeof uid);
    uid[65] = 0;
    ds_text(&b, HP_EXPLICIT_LE, 0x0020, 0x000D, "UI", uid);
    assert_int_equal(scan(HP_EXPLICIT_LE, &b, ENOUGH, &v), HP_OK);
    assert_false(hp_uid_valid(v.study));
    hp_buf_done(&b);
}

static void test_scan__a_failure_stays(void **state)
{
    hp_auto(hp_scan) *s = NULL;
    hp_buf b = HP_BUF_INIT;
    hp_error e1 = HP_ERROR_INIT, e2 = HP_ERROR_INIT;
    hp_scan_result v;

    (void)state;
    ds_header(&b, HP_EXPLICIT_LE, 0x0009, 0x1001, "OB", 0xF0000000u);
    assert_int_equal(hp_scan_new(HP_EXPLICIT_LE, ENOUGH, &s, NULL), HP_OK);
    assert_int_equal(hp_scan_feed(s, b.data, b.len, &e1), HP_E_LIMIT);
    assert_int_equal(hp_scan_feed(s, b.data, b.len, NULL), HP_E_LIMIT);
    assert_int_equal(hp_scan_end(s, &v, &e2), HP_E_LIMIT);
    assert_string_equal(e1.msg, e2.msg);
    hp_buf_done(&b);
}

static void test_scan__encodings_by_transfer_syntax(void **state)
{
    (void)state;
    assert_int_equal(hp_encoding_of("1.2.840.10008.1.2"), HP_IMPLICIT_LE);
    assert_int_equal(hp_encoding_of("1.2.840.10008.1.2.1"), HP_EXPLICIT_LE);
    assert_int_equal(hp_encoding_of("1.2.840.10008.1.2.2"), HP_EXPLICIT_BE);
    assert_int_equal(hp_encoding_of("1.2.840.10008.1.2.4.90"), HP_EXPLICIT_LE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scan__picks_out_what_files_a_slice),
        cmocka_unit_test(
            test_scan__the_patient_digest_ignores_padding_and_tells_ids_apart),
        cmocka_unit_test(test_scan__only_the_top_level_counts),
        cmocka_unit_test(test_scan__defined_lengths_nest),
        cmocka_unit_test(test_scan__64_levels_are_taken_and_65_are_not),
        cmocka_unit_test(test_scan__a_bomb_of_defined_lengths_is_seen_in_implicit_vr),
        cmocka_unit_test(
            test_scan__nobody_is_refused_for_bytes_that_look_like_a_sequence),
        cmocka_unit_test(test_scan__un_of_undefined_length_is_implicit_vr),
        cmocka_unit_test(test_scan__fragments_are_walked_by_length),
        cmocka_unit_test(test_scan__every_cut_is_noticed),
        cmocka_unit_test(test_scan__lengths_stay_inside_what_encloses_them),
        cmocka_unit_test(test_scan__no_dataset_is_longer_than_allowed),
        cmocka_unit_test(test_scan__oddities_of_the_wild_are_tolerated),
        cmocka_unit_test(test_scan__a_uid_of_65_characters_does_not_look_like_one_of_64),
        cmocka_unit_test(test_scan__a_failure_stays),
        cmocka_unit_test(test_scan__encodings_by_transfer_syntax),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
