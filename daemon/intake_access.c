/* Who may send. An empty list allows nobody. */
#include "daemon/intake_internal.h"

#include <string.h>

#include "base/number.h"

static bool parse_address(const char *text, uint8_t ret[16], bool *ret_v4)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

    if (uv_inet_pton(AF_INET, text, ret + 12) == 0) {
        memcpy(ret, mapped, sizeof mapped);
        *ret_v4 = true;
        return true;
    }
    *ret_v4 = false;
    return uv_inet_pton(AF_INET6, text, ret) == 0;
}

hp_code hp_intake__parse_rule(const hp_intake_peer *peer, hp_intake_rule *ret,
                              hp_error *reterr)
{
    char text[sizeof peer->address];
    int64_t bits = -1;
    char *slash;
    bool v4;

    memset(ret, 0, sizeof *ret);
    memcpy(ret->ae_title, peer->ae_title, sizeof ret->ae_title);
    memcpy(text, peer->address, sizeof text);
    text[sizeof text - 1] = ret->ae_title[sizeof ret->ae_title - 1] = 0;
    if (!ret->ae_title[0])
        return hp_fail(reterr, HP_E_INVALID, "an allowed sender without an AE title");
    if (strcmp(text, "*") == 0) {
        ret->any_address = true;
        return HP_OK;
    }
    slash = strchr(text, '/');
    if (slash)
        *slash++ = 0;
    if (!parse_address(text, ret->address, &v4))
        return hp_fail(reterr, HP_E_INVALID,
                       "sender %s: its address is not a numeric one", ret->ae_title);
    if (slash && (!hp_parse_i64(slash, &bits) || bits < 0 || bits > (v4 ? 32 : 128)))
        return hp_fail(reterr, HP_E_INVALID, "sender %s: network bits out of range",
                       ret->ae_title);
    ret->bits = bits < 0 ? 128 : v4 ? 96 + (int)bits : (int)bits;
    return HP_OK;
}

static bool same_network(const uint8_t a[16], const uint8_t b[16], int bits)
{
    int whole = bits / 8, rest = bits % 8;

    if (memcmp(a, b, (size_t)whole) != 0)
        return false;
    return rest == 0 || (a[whole] ^ b[whole]) >> (8 - rest) == 0;
}

bool hp_intake__allows(const hp_intake_rule *rule, int count, const char *calling_ae,
                       const uint8_t address[16])
{
    for (int i = 0; i < count; i++) {
        bool title = strcmp(rule[i].ae_title, "*") == 0 ||
                     strcmp(rule[i].ae_title, calling_ae) == 0;

        if (title &&
            (rule[i].any_address || same_network(rule[i].address, address, rule[i].bits)))
            return true;
    }
    return false;
}
