/* SHA-256 (FIPS 180-4): the plain C form, and the same rounds by the CPU's own
 * instructions where it has them (about nine times faster; every received slice
 * is hashed, so it shows). */
#include "base/sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"

#ifdef __x86_64__
#include <cpuid.h>
#include <immintrin.h>
#endif

/* For the test, which compares both forms on one machine. */
bool hp_sha256__plain_only;

/* FIPS 180-4, 4.2.2. */
static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
    0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
    0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
    0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
    0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
    0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
    0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
    0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
    0xc67178f2,
};

static uint32_t rotr(uint32_t v, int n)
{
    return v >> n | v << (32 - n);
}

static void compress_plain(uint32_t state[8], const uint8_t *block)
{
    uint32_t w[64], s[8];

    for (int t = 0; t < 16; t++)
        w[t] = hp_get_u32be(block + 4 * t);
    for (int t = 16; t < 64; t++) {
        uint32_t a = w[t - 15], b = w[t - 2];

        w[t] = w[t - 16] + (rotr(a, 7) ^ rotr(a, 18) ^ a >> 3) + w[t - 7] +
               (rotr(b, 17) ^ rotr(b, 19) ^ b >> 10);
    }
    memcpy(s, state, sizeof s);
    for (int t = 0; t < 64; t++) {
        uint32_t e = s[4], a = s[0];
        uint32_t t1 = s[7] + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) +
                      ((e & s[5]) ^ (~e & s[6])) + K[t] + w[t];
        uint32_t t2 = (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) +
                      ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));

        memmove(s + 1, s, 7 * sizeof s[0]);
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        state[i] += s[i];
}

#ifdef __x86_64__
/* The instructions want the state as (a,b,e,f) and (c,d,g,h). */
__attribute__((target("sha,sse4.1"))) static void compress_sha(uint32_t state[8],
                                                               const uint8_t *block)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i dcba = _mm_loadu_si128((const __m128i *)state);
    __m128i hgfe = _mm_loadu_si128((const __m128i *)(state + 4));
    __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1), efgh = _mm_shuffle_epi32(hgfe, 0x1b);
    __m128i abef = _mm_alignr_epi8(cdab, efgh, 8);
    __m128i cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
    const __m128i abef_was = abef, cdgh_was = cdgh;
    __m128i w[4], feba, dchg;

    for (int i = 0; i < 16; i++) {
        __m128i *now = &w[i % 4], kw;

        if (i < 4) {
            *now = _mm_loadu_si128((const __m128i *)(block + 16 * i));
            *now = _mm_shuffle_epi8(*now, swap);
        } else {
            __m128i last = w[(i - 1) % 4];
            __m128i w7 = _mm_alignr_epi8(last, w[(i - 2) % 4], 4);

            *now = _mm_add_epi32(_mm_sha256msg1_epu32(*now, w[(i - 3) % 4]), w7);
            *now = _mm_sha256msg2_epu32(*now, last);
        }
        kw = _mm_add_epi32(*now, _mm_loadu_si128((const __m128i *)(K + 4 * i)));
        cdgh = _mm_sha256rnds2_epu32(cdgh, abef, kw);
        abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(kw, 0x0e));
    }
    feba = _mm_shuffle_epi32(_mm_add_epi32(abef, abef_was), 0x1b);
    dchg = _mm_shuffle_epi32(_mm_add_epi32(cdgh, cdgh_was), 0xb1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

static bool cpu_has_sha(void)
{
    /* Asked once; two threads asking at the same time get the same answer. */
    static atomic_int known; /* 0 not asked, 1 no, 2 yes */
    unsigned a, b, c, d;
    int k = atomic_load_explicit(&known, memory_order_relaxed);

    if (k == 0) {
        /* CPUID leaf 7: EBX bit 29 is SHA; leaf 1: ECX bit 19 is SSE4.1. */
        k = __get_cpuid_count(7, 0, &a, &b, &c, &d) && b >> 29 & 1 &&
                    __get_cpuid(1, &a, &b, &c, &d) && c >> 19 & 1
                ? 2
                : 1;
        atomic_store_explicit(&known, k, memory_order_relaxed);
    }
    return k == 2;
}
#endif

static void compress(uint32_t state[8], const uint8_t *block, size_t blocks)
{
#ifdef __x86_64__
    if (cpu_has_sha() && !hp_sha256__plain_only) {
        for (; blocks > 0; blocks--, block += 64)
            compress_sha(state, block);
        return;
    }
#endif
    for (; blocks > 0; blocks--, block += 64)
        compress_plain(state, block);
}

void hp_sha256_init(hp_sha256 *s)
{
    static const uint32_t START[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

    memcpy(s->state, START, sizeof START);
    s->bytes = 0;
}

void hp_sha256_add(hp_sha256 *s, const void *data, size_t len)
{
    const uint8_t *p = data;
    size_t held = s->bytes % 64;

    if (len == 0)
        return;
    s->bytes += len;
    if (held > 0) {
        size_t take = len < 64 - held ? len : 64 - held;

        memcpy(s->block + held, p, take);
        p += take;
        len -= take;
        if (held + take < 64)
            return;
        compress(s->state, s->block, 1);
    }
    compress(s->state, p, len / 64);
    memcpy(s->block, p + len / 64 * 64, len % 64);
}

void hp_sha256_end(hp_sha256 *s, uint8_t ret[32])
{
    static const uint8_t PAD[64] = {0x80};
    uint64_t bits = s->bytes * 8;
    size_t held = s->bytes % 64;
    uint8_t length[8];

    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)(bits >> (56 - 8 * i));
    hp_sha256_add(s, PAD, held < 56 ? 56 - held : 120 - held);
    hp_sha256_add(s, length, sizeof length);
    for (int i = 0; i < 8; i++)
        for (int b = 0; b < 4; b++)
            ret[4 * i + b] = (uint8_t)(s->state[i] >> (24 - 8 * b));
}

void hp_sha256_hex(const uint8_t digest[32], char ret[HP_SHA256_HEX])
{
    static const char DIGITS[] = "0123456789abcdef";

    for (int i = 0; i < 32; i++) {
        ret[2 * i] = DIGITS[digest[i] >> 4];
        ret[2 * i + 1] = DIGITS[digest[i] & 15];
    }
    ret[64] = 0;
}

hp_code hp_sha256_file(const char *path, char ret_hex[HP_SHA256_HEX], hp_error *reterr)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t chunk[32768], digest[32];
    hp_sha256 s;
    ssize_t n;

    if (fd < 0)
        return hp_fail_errno(reterr, errno, "opening %s", path);
    hp_sha256_init(&s);
    do {
        n = read(fd, chunk, sizeof chunk);
        if (n > 0)
            hp_sha256_add(&s, chunk, (size_t)n);
    } while (n > 0 || (n < 0 && errno == EINTR));
    if (n < 0) {
        int err = errno;

        close(fd);
        return hp_fail_errno(reterr, err, "reading %s", path);
    }
    close(fd);
    hp_sha256_end(&s, digest);
    hp_sha256_hex(digest, ret_hex);
    return HP_OK;
}
