/* UIDs: the check of foreign ones, and the making of ours. */
#include "base/uid.h"

#include <string.h>

bool hp_uid_valid(const char *text)
{
    size_t n = strnlen(text, HP_UID_SIZE);

    if (n == 0 || n >= HP_UID_SIZE || text[0] == '.' || text[n - 1] == '.')
        return false;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '.' && text[i + 1] == '.')
            return false;
        if (text[i] != '.' && (text[i] < '0' || text[i] > '9'))
            return false;
    }
    return true;
}

hp_uid hp_uid_from_digest(const uint8_t digest[32])
{
    /* 2^128 has 39 decimal digits; __int128 is not strict C11, so the division
     * by ten runs over four 32-bit words. */
    hp_uid uid = {"2.25."};
    uint32_t word[4];
    char digits[40];
    int n = 0, at = 5;
    bool zero;

    for (int i = 0; i < 4; i++)
        word[i] = (uint32_t)digest[4 * i] << 24 | (uint32_t)digest[4 * i + 1] << 16 |
                  (uint32_t)digest[4 * i + 2] << 8 | digest[4 * i + 3];
    do {
        uint64_t rest = 0;

        zero = true;
        for (int i = 0; i < 4; i++) {
            uint64_t v = rest << 32 | word[i];

            word[i] = (uint32_t)(v / 10);
            rest = v % 10;
            zero = zero && word[i] == 0;
        }
        digits[n++] = (char)('0' + rest);
    } while (!zero);
    while (n > 0)
        uid.text[at++] = digits[--n];
    uid.text[at] = 0;
    return uid;
}
