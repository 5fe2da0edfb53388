/* The code table and the three ways to write an error. */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    const char *text;
    bool retry;
} CODES[] = {
#define HP__X(name, text, retry) {#name, text, retry},
    HP_CODES(HP__X)
#undef HP__X
};

const char *hp_code_text(hp_code code)
{
    return code < HP_CODE_COUNT ? CODES[code].text : "unknown code";
}

const char *hp_code_name(hp_code code)
{
    return code < HP_CODE_COUNT ? CODES[code].name : "E_UNKNOWN";
}

bool hp_code_may_retry(hp_code code)
{
    return code < HP_CODE_COUNT && CODES[code].retry;
}

hp_code hp_fail(hp_error *reterr, hp_code code, const char *fmt, ...)
{
    if (reterr != NULL) {
        va_list args;

        reterr->code = code;
        va_start(args, fmt);
        vsnprintf(reterr->msg, sizeof reterr->msg, fmt, args);
        va_end(args);
    }
    return code;
}

hp_code hp_wrap(hp_error *reterr, hp_code code, const char *fmt, ...)
{
    if (reterr != NULL) {
        char inner[sizeof reterr->msg];
        va_list args;
        int n;

        memcpy(inner, reterr->msg, sizeof inner);
        va_start(args, fmt);
        n = vsnprintf(reterr->msg, sizeof reterr->msg, fmt, args);
        va_end(args);
        if (n >= 0 && (size_t)n < sizeof reterr->msg)
            snprintf(reterr->msg + n, sizeof reterr->msg - (size_t)n, ": %s", inner);
        reterr->code = code;
    }
    return code;
}

static hp_code code_of_errno(int err)
{
    switch (err) {
    case ENOSPC:
    case EDQUOT:
        return HP_E_NO_SPACE;
    case ENOMEM:
        return HP_E_NO_MEMORY;
    case ENOENT:
    case ENOTDIR:
        return HP_E_NOT_FOUND;
    case EEXIST:
        return HP_E_EXISTS;
    case EAGAIN:
    case EBUSY:
        return HP_E_BUSY;
    case ECONNREFUSED:
    case ECONNRESET:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EPIPE:
        return HP_E_CONNECT;
    case ETIMEDOUT:
        return HP_E_TIMEOUT;
    default:
        return HP_E_IO;
    }
}

hp_code hp_fail_errno(hp_error *reterr, int err, const char *fmt, ...)
{
    hp_code code = code_of_errno(err);

    if (reterr != NULL) {
        va_list args;
        int n;

        va_start(args, fmt);
        n = vsnprintf(reterr->msg, sizeof reterr->msg, fmt, args);
        va_end(args);
        if (n >= 0 && (size_t)n < sizeof reterr->msg)
            snprintf(reterr->msg + n, sizeof reterr->msg - (size_t)n, ": %s",
                     strerror(err));
        reterr->code = code;
    }
    return code;
}
