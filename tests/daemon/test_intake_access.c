/* daemon/intake_access.c: who may send. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/intake_internal.h"

static bool allowed(const char *title, const char *rule_address, const char *calling,
                    const char *from)
{
    hp_intake_peer peer = {{0}, {0}};
    uint8_t address[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    hp_intake_rule rule;

    strncpy(peer.ae_title, title, sizeof peer.ae_title - 1);
    strncpy(peer.address, rule_address, sizeof peer.address - 1);
    assert_int_equal(hp_intake__parse_rule(&peer, &rule, NULL), HP_OK);
    if (uv_inet_pton(AF_INET, from, address + 12) != 0)
        assert_int_equal(uv_inet_pton(AF_INET6, from, address), 0);
    return hp_intake__allows(&rule, 1, calling, address);
}

static void test_access__both_halves_must_fit(void **state)
{
    (void)state;
    assert_true(allowed("PACS", "10.1.2.3", "PACS", "10.1.2.3"));
    assert_false(allowed("PACS", "10.1.2.3", "PACS", "10.1.2.4"));
    assert_false(allowed("PACS", "10.1.2.3", "pacs", "10.1.2.3"));
    assert_false(allowed("PACS", "10.1.2.3", "", "10.1.2.3"));
    assert_true(allowed("*", "10.1.2.3", "ANY", "10.1.2.3"));
    assert_true(allowed("PACS", "*", "PACS", "2001:db8::1"));
    assert_false(allowed("PACS", "*", "OTHER", "10.1.2.3"));
}

static void test_access__networks_are_compared_bit_by_bit(void **state)
{
    (void)state;
    assert_true(allowed("*", "10.0.0.0/8", "A", "10.255.0.1"));
    assert_false(allowed("*", "10.0.0.0/8", "A", "11.0.0.1"));
    assert_true(allowed("*", "192.168.4.0/23", "A", "192.168.5.255"));
    assert_false(allowed("*", "192.168.4.0/23", "A", "192.168.6.0"));
    assert_true(allowed("*", "0.0.0.0/0", "A", "8.8.8.8"));
    assert_false(allowed("*", "0.0.0.0/0", "A", "2001:db8::1")); /* of IPv4 only */
    assert_true(allowed("*", "2001:db8::/33", "A", "2001:db8:7fff::1"));
    assert_false(allowed("*", "2001:db8::/33", "A", "2001:db8:8000::1"));
    assert_true(allowed("*", "::1", "A", "::1"));
    assert_true(
        allowed("*", "127.0.0.1", "A", "::ffff:127.0.0.1")); /* as a v6 socket says it */
    assert_true(allowed("*", "::/0", "A", "2001:db8::1"));
}

static void test_access__rules_that_mean_nothing_are_refused(void **state)
{
    static const hp_intake_peer bad[] = {{"", "10.1.2.3"},        {"A", ""},
                                         {"A", "pacs.example"},   {"A", "10.1.2"},
                                         {"A", "10.1.2.3/33"},    {"A", "10.1.2.3/-1"},
                                         {"A", "10.1.2.3/x"},     {"A", "10.1.2.3/"},
                                         {"A", "2001:db8::/129"}, {"A", "10.1.2.3 "}};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        hp_intake_rule rule;

        assert_int_equal(hp_intake__parse_rule(&bad[i], &rule, NULL), HP_E_INVALID);
    }
}

static void test_access__an_empty_list_allows_nobody(void **state)
{
    uint8_t address[16] = {0};

    (void)state;
    assert_false(hp_intake__allows(NULL, 0, "PACS", address));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_access__both_halves_must_fit),
        cmocka_unit_test(test_access__networks_are_compared_bit_by_bit),
        cmocka_unit_test(test_access__rules_that_mean_nothing_are_refused),
        cmocka_unit_test(test_access__an_empty_list_allows_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
