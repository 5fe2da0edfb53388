/* dicom/scan over any bytes. The first byte chooses encoding and chunking; the
 * answer must not depend on the chunking. */
#include <string.h>

#include "dicom/scan.h"
#include "tests/fuzz/check.h"

static hp_code scan(const uint8_t *data, size_t len, hp_encoding e, size_t chunk,
                    hp_scan_result *ret)
{
    hp_scan *s = NULL;
    hp_code r = hp_scan_new(e, 1 << 16, &s, NULL);

    while (r == HP_OK && len > 0) {
        size_t n = len < chunk ? len : chunk;

        r = hp_scan_feed(s, data, n, NULL);
        data += n;
        len -= n;
    }
    if (r == HP_OK)
        r = hp_scan_end(s, ret, NULL);
    hp_scan_free(s);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    hp_scan_result a, b;
    hp_encoding e;
    size_t chunk;
    hp_code r;

    if (len < 1)
        return 0;
    e = (hp_encoding)(data[0] % 3);
    chunk = 1 + data[0] / 3 % 40;
    r = scan(data + 1, len - 1, e, len, &a);
    CHECK(r == scan(data + 1, len - 1, e, chunk, &b));
    if (r == HP_OK) {
        CHECK(memcmp(&a, &b, sizeof a) == 0);
        CHECK(a.deepest <= HP_SCAN_MAX_DEPTH);
        CHECK(len - 1 <= 1 << 16);
    }
    return 0;
}
