/* A growable byte buffer that remembers having run out of memory. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void hp_buf_done(hp_buf *b)
{
    free(b->data);
    *b = (hp_buf)HP_BUF_INIT;
}

void hp_buf_clear(hp_buf *b)
{
    b->len = 0;
    b->failed = false;
}

bool hp_buf_reserve(hp_buf *b, size_t more)
{
    size_t need, cap;
    uint8_t *grown;

    if (b->failed)
        return false;
    if (__builtin_add_overflow(b->len, more, &need)) {
        b->failed = true;
        return false;
    }
    if (need <= b->cap)
        return true;
    /* Doubling keeps appends linear; exact beyond half the address space. */
    cap = b->cap > SIZE_MAX / 2 ? need : b->cap * 2;
    if (cap < need)
        cap = need;
    if (cap < 64)
        cap = 64;
    grown = realloc(b->data, cap);
    if (grown == NULL) {
        b->failed = true;
        return false;
    }
    b->data = grown;
    b->cap = cap;
    return true;
}

void hp_buf_put(hp_buf *b, const void *data, size_t len)
{
    if (len == 0 || !hp_buf_reserve(b, len))
        return;
    memcpy(b->data + b->len, data, len);
    b->len += len;
}

void hp_buf_u8(hp_buf *b, uint8_t v)
{
    hp_buf_put(b, &v, 1);
}

void hp_buf_u16be(hp_buf *b, uint16_t v)
{
    const uint8_t bytes[2] = {(uint8_t)(v >> 8), (uint8_t)v};

    hp_buf_put(b, bytes, sizeof bytes);
}

void hp_buf_u32be(hp_buf *b, uint32_t v)
{
    const uint8_t bytes[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8),
                              (uint8_t)v};

    hp_buf_put(b, bytes, sizeof bytes);
}

void hp_buf_u16le(hp_buf *b, uint16_t v)
{
    const uint8_t bytes[2] = {(uint8_t)v, (uint8_t)(v >> 8)};

    hp_buf_put(b, bytes, sizeof bytes);
}

void hp_buf_u32le(hp_buf *b, uint32_t v)
{
    const uint8_t bytes[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16),
                              (uint8_t)(v >> 24)};

    hp_buf_put(b, bytes, sizeof bytes);
}

void hp_buf_printf(hp_buf *b, const char *fmt, ...)
{
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0) {
        b->failed = true;
        return;
    }
    if (!hp_buf_reserve(b, (size_t)n + 1))
        return;
    va_start(args, fmt);
    vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, args);
    va_end(args);
    b->len += (size_t)n;
}

void hp_buf_consume(hp_buf *b, size_t n)
{
    if (n >= b->len) {
        b->len = 0;
        return;
    }
    memmove(b->data, b->data + n, b->len - n);
    b->len -= n;
}

const char *hp_buf_str(hp_buf *b)
{
    bool was_failed = b->failed;

    b->failed = false; /* what arrived before the failure may still be shown */
    if (!hp_buf_reserve(b, 1)) {
        b->failed = true;
        return "";
    }
    b->data[b->len] = 0;
    b->failed = was_failed;
    return (const char *)b->data;
}
