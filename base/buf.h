/* A growable byte buffer. Zero-initialise it (HP_BUF_INIT); hp_buf_done frees.
 * Once an append has run out of memory the buffer is marked failed and every
 * later append is ignored, so a writer checks once, at the end. */
#ifndef HP_BASE_BUF_H
#define HP_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_buf {
    uint8_t *data;
    size_t len, cap;
    bool failed;
} hp_buf;

#define HP_BUF_INIT                                                                      \
    {                                                                                    \
        NULL, 0, 0, false                                                                \
    }

void hp_buf_done(hp_buf *b);
void hp_buf_clear(hp_buf *b); /* length 0, memory kept */
bool hp_buf_reserve(hp_buf *b, size_t more);
void hp_buf_put(hp_buf *b, const void *data, size_t len);
void hp_buf_u8(hp_buf *b, uint8_t v);
void hp_buf_u16be(hp_buf *b, uint16_t v);
void hp_buf_u32be(hp_buf *b, uint32_t v);
void hp_buf_u16le(hp_buf *b, uint16_t v);
void hp_buf_u32le(hp_buf *b, uint32_t v);
void hp_buf_printf(hp_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Drops the first n bytes. */
void hp_buf_consume(hp_buf *b, size_t n);
/* The bytes with a terminating zero that is not counted; "" when empty. */
const char *hp_buf_str(hp_buf *b);

static inline uint16_t hp_get_u16be(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}
static inline uint32_t hp_get_u32be(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline uint16_t hp_get_u16le(const uint8_t *p)
{
    return (uint16_t)(p[1] << 8 | p[0]);
}
static inline uint32_t hp_get_u32le(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

#ifdef __cplusplus
}
#endif
#endif
