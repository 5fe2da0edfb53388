/* SHA-256 (FIPS 180-4), streaming. */
#ifndef HP_BASE_SHA256_H
#define HP_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_sha256 {
    uint32_t state[8];
    uint64_t bytes;
    uint8_t block[64];
} hp_sha256;

#define HP_SHA256_HEX 65 /* 64 digits and the zero */

void hp_sha256_init(hp_sha256 *s);
void hp_sha256_add(hp_sha256 *s, const void *data, size_t len);
void hp_sha256_end(hp_sha256 *s, uint8_t ret[32]);
void hp_sha256_hex(const uint8_t digest[32], char ret[HP_SHA256_HEX]);
hp_code hp_sha256_file(const char *path, char ret_hex[HP_SHA256_HEX], hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
