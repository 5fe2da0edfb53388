#include "base/sha256.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/path.h"
#include "tests/base/check.h"

static void digest_of(const char *text, size_t len, size_t step, char ret[HP_SHA256_HEX])
{
    hp_sha256 s;
    uint8_t d[32];

    hp_sha256_init(&s);
    for (size_t at = 0; at < len; at += step)
        hp_sha256_add(&s, text + at, len - at < step ? len - at : step);
    hp_sha256_end(&s, d);
    hp_sha256_hex(d, ret);
}

/* FIPS 180-4 examples (NIST example values), and the empty message. */
static void test_sha256__fips_vectors(void **state)
{
    static const struct {
        const char *text, *hex;
    } CASES[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnop"
         "qklmnopqrlmnopqrsmnopqrstnopqrstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    char hex[HP_SHA256_HEX];

    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        digest_of(CASES[i].text, strlen(CASES[i].text), 1, hex);
        assert_string_equal(hex, CASES[i].hex);
        digest_of(CASES[i].text, strlen(CASES[i].text), 1000, hex);
        assert_string_equal(hex, CASES[i].hex);
    }
}

static void test_sha256__million_a_in_odd_pieces(void **state)
{
    enum { N = 1000000 };
    char *text = malloc(N), hex[HP_SHA256_HEX];

    (void)state;
    memset(text, 'a', N);
    for (size_t step = 61; step < 200; step += 67) {
        digest_of(text, N, step, hex);
        assert_string_equal(
            hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
    free(text);
}

static void test_sha256__file(void **state)
{
    char hex[HP_SHA256_HEX], path[64];
    hp_error e = HP_ERROR_INIT;

    (void)state;
    snprintf(path, sizeof path, "/tmp/hepar-sha.%d", (int)getpid());
    assert_int_equal(hp_file_write(path, "abc", 3, 0600, &e), HP_OK);
    assert_int_equal(hp_sha256_file(path, hex, &e), HP_OK);
    assert_memory_equal(hex, "ba7816bf", 8);
    assert_int_equal(hp_path_remove(path, &e), HP_OK);
    assert_int_equal(hp_sha256_file(path, hex, &e), HP_E_NOT_FOUND);
}

extern bool hp_sha256__plain_only;

static int plain(void **state)
{
    (void)state;
    hp_sha256__plain_only = true;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256__fips_vectors),
        cmocka_unit_test(test_sha256__million_a_in_odd_pieces),
        cmocka_unit_test(test_sha256__file),
    };

    /* First by the CPU's instructions, where it has them, then without. */
    return cmocka_run_group_tests_name("sha256", tests, NULL, NULL) +
           cmocka_run_group_tests_name("sha256, plain C", tests, plain, NULL);
}
