/* inference/model: a good bundle opens; a bad one is refused with file, tensor or
 * line. */
#include "tests/inference/tiny_bundle.h"

#include "inference/model.h"

static void refuse(const char *words, const char *more)
{
    hp_error err = HP_ERROR_INIT;
    hp_model *m = NULL;

    assert_int_not_equal(hp_model_load(tiny_dir, false, &m, &err), HP_OK);
    assert_null(m);
    if (strstr(err.msg, words) == NULL || strstr(err.msg, more) == NULL) {
        print_error("\"%s\" names neither \"%s\" nor \"%s\"\n", err.msg, words, more);
        fail();
    }
}

/* Replaces the first `from` of bundle.yaml by `to`. */
static void edit(const char *from, const char *to)
{
    char path[160];
    hp_buf in = HP_BUF_INIT, out = HP_BUF_INIT;
    hp_error err = HP_ERROR_INIT;
    const char *text, *at;

    tiny_path("bundle.yaml", path, sizeof path);
    assert_ok(hp_file_read(path, 1 << 20, &in, &err), &err);
    text = hp_buf_str(&in);
    at = strstr(text, from);
    assert_non_null(at);
    hp_buf_put(&out, text, (size_t)(at - text));
    hp_buf_put(&out, to, strlen(to));
    hp_buf_put(&out, at + strlen(from), strlen(at + strlen(from)));
    assert_ok(hp_file_write(path, out.data, out.len, 0644, &err), &err);
    hp_buf_done(&in);
    hp_buf_done(&out);
}

static int fresh(void **state)
{
    (void)state;
    tiny_yaml("");
    return 0;
}

static void test_bundle__a_good_one_opens(void **state)
{
    hp_error err = HP_ERROR_INIT;
    hp_auto(hp_model) *m = NULL;

    (void)state;
    assert_ok(hp_model_load(tiny_dir, false, &m, &err), &err);
    assert_int_equal(m->class_count, 4);
    assert_int_equal(m->stage[HP_STAGE_CLASSIFY].weights_count, 3);
    assert_int_equal(m->stage[HP_STAGE_KEYSLICE].phases,
                     1u << HP_PHASE_V | 1u << HP_PHASE_A);
    assert_string_equal(m->classes[2].label, "C");
}

static void test_bundle__an_unknown_key_is_named_with_its_line(void **state)
{
    (void)state;
    edit("preset: tiny", "preset: tiny\ncolour: blue");
    refuse("line 5: colour", "unknown key");
    tiny_yaml("");
    edit("threshold: 0.5}", "threshold: 0.5, treshold: true}");
    refuse("line 13: treshold", "unknown key");
    tiny_yaml("");
    edit("\"stacks\":1", "\"stacks\":1,\"stax\":2");
    refuse("stages.detector: line", "stax");
}

static void test_bundle__a_wrong_hash_names_file_and_line(void **state)
{
    char broken[HP_SHA256_HEX];

    (void)state;
    snprintf(broken, sizeof broken, "%s", tiny_sha[1]);
    broken[5] = broken[5] == '0' ? '1' : '0';
    edit(tiny_sha[1], broken);
    refuse("detector.safetensors: SHA-256", "line 14");
}

static void test_bundle__a_wrong_shape_names_file_and_tensor(void **state)
{
    (void)state;
    edit("\"widths\":[8,16],\"strides\"", "\"widths\":[8,24],\"strides\"");
    refuse("liver.safetensors", "tensor enc1.c0.weight: wrong shape");
}

static void test_bundle__a_missing_tensor_is_named(void **state)
{
    (void)state;
    edit("\"modules\":[1,1]", "\"modules\":[1,2]");
    refuse("detector.safetensors", "tensor hg0.l1.low2.1.conv1.weight: missing");
}

static void test_bundle__an_extra_tensor_is_named(void **state)
{
    (void)state;
    edit("\"widths\":[8,16],\"strides\":[[1,1,1],[2,2,2]]",
         "\"widths\":[8,16],\"strides\":[[1,1,1],[2,2,1]]");
    refuse("liver.safetensors", "tensor up0.weight: wrong shape");
    tiny_yaml("");
    edit("liver.safetensors, sha256", "seg25d.safetensors, sha256");
    edit(tiny_sha[0], tiny_sha[2]);
    refuse("seg25d.safetensors", "tensor enc0.c0.weight: wrong shape");
}

static void test_bundle__a_missing_file_is_named(void **state)
{
    (void)state;
    edit("ksf.safetensors", "nothere.safetensors");
    refuse("nothere.safetensors", "");
    tiny_yaml("");
    edit("ksf.safetensors", "../ksf.safetensors");
    refuse("file", "not a plain file name");
}

static void test_bundle__other_mistakes_name_their_line(void **state)
{
    (void)state;
    edit("schema: 1", "schema: 2");
    refuse("line 1: schema", "only 1");
    tiny_yaml("");
    edit("phases: [NC, A, V, D]", "phases: [A, NC, V, D]");
    refuse("phases", "must be");
    tiny_yaml("");
    edit("vote: majority", "vote: best");
    refuse("vote", "majority");
    tiny_yaml("");
    edit("mean: 0.5, ", "");
    refuse("line 13: mean", "missing");
    tiny_yaml("");
    edit("  - {id: d, label: D, code: [\"4\", SCT, d]}\n", "");
    refuse("classify", "does not fit");
    tiny_yaml("just words\n");
    refuse("bundle.yaml", "line 20");
}

/* Puts `bytes` in KSF's place: the bundle's hash fits them, so it is they that are
 * refused, under that name. */
static void refuse_ksf(const void *bytes, size_t len, const char *why)
{
    char path[160], sha[HP_SHA256_HEX];
    hp_error err = HP_ERROR_INIT;

    tiny_path("other.safetensors", path, sizeof path);
    assert_ok(hp_file_write(path, bytes, len, 0644, &err), &err);
    assert_ok(hp_sha256_file(path, sha, &err), &err);
    tiny_yaml("");
    edit("ksf.safetensors", "other.safetensors");
    edit(tiny_sha[3], sha);
    refuse("other.safetensors", why);
}

static hp_buf ksf_bytes(void)
{
    char path[160];
    hp_error err = HP_ERROR_INIT;
    hp_buf b = HP_BUF_INIT;

    tiny_path("ksf.safetensors", path, sizeof path);
    assert_ok(hp_file_read(path, 1 << 24, &b, &err), &err);
    return b;
}

/* Where the header ends and the data begin. */
static size_t data_of(const hp_buf *b)
{
    return 8 + ((size_t)b->data[0] | (size_t)b->data[1] << 8 | (size_t)b->data[2] << 16);
}

static void test_bundle__half_a_file_is_refused(void **state)
{
    static const char HALF[] =
        "\x20\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"F32\",\"shape\":[9999999,99],";
    hp_buf b = ksf_bytes();

    (void)state;
    refuse_ksf(HALF, sizeof HALF, "header");
    refuse_ksf("", 0, "not a safetensors file");
    refuse_ksf(b.data, 7, "not a safetensors file");
    refuse_ksf(b.data, data_of(&b) - 1, "not a safetensors file"); /* half a header */
    refuse_ksf(b.data, b.len - 1, "tensor "); /* and a tensor without its last byte */
    refuse_ksf(b.data, b.len - 1, ": bad data offsets");
    hp_buf_done(&b);
}

static void test_bundle__a_header_of_2_to_the_60_bytes_is_refused(void **state)
{
    hp_buf b = ksf_bytes();

    (void)state;
    b.data[7] = 0x10;
    refuse_ksf(b.data, b.len, "not a safetensors file");
    memset(b.data, 0xff, 8);
    refuse_ksf(b.data, b.len, "not a safetensors file");
    hp_buf_done(&b);
}

static void test_bundle__weights_that_are_not_finite_name_their_tensor(void **state)
{
    static const uint32_t BAD[] = {0x7fc00000, 0x7f800000, 0xff800000};

    (void)state;
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        hp_buf b = ksf_bytes();

        memcpy(b.data + b.len - 4, &BAD[i], 4); /* the last weight of the last tensor */
        refuse_ksf(b.data, b.len, "tensor ");
        refuse_ksf(b.data, b.len, ": not finite");
        hp_buf_done(&b);
    }
}

static void test_safetensors__bad_headers_are_refused(void **state)
{
    static const char *const HEADER[] = {
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,15]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[4,20]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,1152921504606846976]"
        "}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[1152921504606846976,"
        "1152921504606846992]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,1e60]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1152921504606846976],\"data_offsets\":[0,"
        "16]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[-4],\"data_offsets\":[0,16]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[268435456,268435456],\"data_offsets\":[0,"
        "16]}}",
        "{\"a\":{\"dtype\":\"C64\",\"shape\":[4],\"data_offsets\":[0,16]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4]}}",
        "[1]",
        "{\"a\":7}",
    };
    char path[160];

    (void)state;
    tiny_path("bad.safetensors", path, sizeof path);
    for (size_t i = 0; i < sizeof HEADER / sizeof HEADER[0]; i++) {
        hp_error err = HP_ERROR_INIT;
        hp_safetensors *s = NULL;
        hp_buf b = HP_BUF_INIT;
        size_t len = strlen(HEADER[i]);
        static const char ZERO[16] = {0};

        hp_buf_u32le(&b, (uint32_t)len);
        hp_buf_u32le(&b, 0);
        hp_buf_put(&b, HEADER[i], len);
        hp_buf_put(&b, ZERO, 16);
        assert_ok(hp_file_write(path, b.data, b.len, 0644, &err), &err);
        assert_int_equal(hp_safetensors_load(path, 1 << 20, &s, &err), HP_E_CORRUPT);
        if (strncmp(HEADER[i], "{\"a\":{", 6) == 0)
            assert_non_null(strstr(err.msg, "tensor a: "));
        assert_null(s);
        hp_buf_done(&b);
    }
}

static void test_safetensors__halves_are_read_exactly(void **state)
{
    static const uint16_t HALF[6] = {0x3c00, 0xc000, 0x0001, 0x7bff, 0x8000, 0x3555};
    static const uint16_t BF16[2] = {0x3f80, 0xc049};
    hp_tensor t = {
        .name = "h", .dtype = HP_DTYPE_F16, .rank = 1, .dim = {6}, .data = HALF};
    hp_tensor u = {
        .name = "b", .dtype = HP_DTYPE_BF16, .rank = 1, .dim = {2}, .data = BF16};
    float f[6], g[2];

    (void)state;
    assert_int_equal(hp_tensor_to_f32(&t, f, NULL), HP_OK);
    assert_true(f[0] == 1 && f[1] == -2 && f[2] == 0x1p-24f && f[3] == 65504 &&
                f[4] == 0);
    assert_float_equal(f[5], 0.33325195f, 1e-8);
    assert_int_equal(hp_tensor_to_f32(&u, g, NULL), HP_OK);
    assert_true(g[0] == 1 && g[1] == -3.140625f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_bundle__a_good_one_opens, fresh),
        cmocka_unit_test_setup(test_bundle__an_unknown_key_is_named_with_its_line, fresh),
        cmocka_unit_test_setup(test_bundle__a_wrong_hash_names_file_and_line, fresh),
        cmocka_unit_test_setup(test_bundle__a_wrong_shape_names_file_and_tensor, fresh),
        cmocka_unit_test_setup(test_bundle__a_missing_tensor_is_named, fresh),
        cmocka_unit_test_setup(test_bundle__an_extra_tensor_is_named, fresh),
        cmocka_unit_test_setup(test_bundle__a_missing_file_is_named, fresh),
        cmocka_unit_test_setup(test_bundle__other_mistakes_name_their_line, fresh),
        cmocka_unit_test_setup(test_bundle__half_a_file_is_refused, fresh),
        cmocka_unit_test_setup(test_bundle__a_header_of_2_to_the_60_bytes_is_refused,
                               fresh),
        cmocka_unit_test_setup(test_bundle__weights_that_are_not_finite_name_their_tensor,
                               fresh),
        cmocka_unit_test(test_safetensors__bad_headers_are_refused),
        cmocka_unit_test(test_safetensors__halves_are_read_exactly),
    };

    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
