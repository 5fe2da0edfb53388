/* Log lines: formatted whole, then written by one write(2), so that lines of
 * several threads and of child processes do not mix. */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static atomic_int threshold = HP_LOG_INFO;

void hp_log_set_level(hp_level level)
{
    atomic_store(&threshold, (int)level);
}

void hp_log(hp_level level, const char *fmt, ...)
{
    char line[1024];
    size_t len, head;
    va_list args;
    int n;

    if ((int)level > atomic_load(&threshold))
        return;
    head = (size_t)snprintf(line, sizeof line, "<%d>", (int)level);
    va_start(args, fmt);
    n = vsnprintf(line + head, sizeof line - head - 1, fmt, args);
    va_end(args);
    if (n < 0)
        return;
    len = head + strlen(line + head);
    /* A line break inside would let a peer's text forge a line of its own. */
    for (size_t i = head; i < len; i++)
        if ((unsigned char)line[i] < 0x20)
            line[i] = ' ';
    line[len++] = '\n';
    /* Nobody is left to tell when stderr is gone. */
    if (write(STDERR_FILENO, line, len) < 0)
        return;
}

const char *hp_log_safe(const char *text, char *ret, unsigned size)
{
    unsigned n = 0;

    if (size == 0)
        return ret;
    if (text != NULL)
        for (; n + 1 < size && text[n] != 0; n++)
            ret[n] = text[n] >= 0x20 && text[n] < 0x7f ? text[n] : '?';
    ret[n] = 0;
    return ret;
}
