/* Errors: a code that decides, and words that travel beside it.
 *
 * Every function that can fail returns hp_code and fills a caller-owned
 * hp_error. No allocation and no thread-local state, so an error can be copied
 * from a worker to the loop and still works when memory is gone. Results are
 * untouched on failure; `reterr` is untouched on success and may be NULL.
 */
#ifndef HP_BASE_ERROR_H
#define HP_BASE_ERROR_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* X(code, text, may the queue retry?) The retry policy reads this table and
 * never the words of a message. */
#define HP_CODES(X)                                                                      \
    X(OK, "success", false)                                                              \
    X(E_EMPTY, "nothing there", false)                                                   \
    X(E_NOT_FOUND, "not found", false)                                                   \
    X(E_EXISTS, "exists already", false)                                                 \
    X(E_INVALID, "invalid input", false)                                                 \
    X(E_TRUNCATED, "cut off", false)                                                     \
    X(E_LIMIT, "a limit was exceeded", false)                                            \
    X(E_UNSUPPORTED, "not supported", false)                                             \
    X(E_UNSUITABLE, "not a readable multi-phase liver CT", false)                        \
    X(E_MISMATCH, "parts disagree", false)                                               \
    X(E_CORRUPT, "damaged data", false)                                                  \
    X(E_NO_MEMORY, "out of memory", true)                                                \
    X(E_NO_SPACE, "no space left", true)                                                 \
    X(E_IO, "input/output error", true)                                                  \
    X(E_BUSY, "busy", true)                                                              \
    X(E_TIMEOUT, "timed out", true)                                                      \
    X(E_CONNECT, "no connection to the peer", true)                                      \
    X(E_ABORTED, "the peer aborted", true)                                               \
    X(E_REJECTED, "the peer refused for now", true)                                      \
    X(E_REFUSED, "refused for good", false)                                              \
    X(E_DEVICE, "compute device error", true)                                            \
    X(E_NUMERIC, "not a finite number", false)                                           \
    X(E_CANCELLED, "cancelled", false)                                                   \
    X(E_STATE, "move not allowed", false)                                                \
    X(E_INTERNAL, "internal error", true)

typedef enum hp_code {
#define HP__X(name, text, retry) HP_##name,
    HP_CODES(HP__X)
#undef HP__X
        HP_CODE_COUNT
} hp_code;

typedef struct hp_error {
    hp_code code;
    char msg[256];
} hp_error;

#define HP_ERROR_INIT                                                                    \
    {                                                                                    \
        HP_OK,                                                                           \
        {                                                                                \
            0                                                                            \
        }                                                                                \
    }

/* The code's table text ("cut off"), its name ("E_TRUNCATED"), and whether a
 * queue may try again. */
const char *hp_code_text(hp_code code);
const char *hp_code_name(hp_code code);
bool hp_code_may_retry(hp_code code);

/* Fills *reterr (when not NULL) and returns `code`: `return hp_fail(...)`. */
hp_code hp_fail(hp_error *reterr, hp_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "where: " in front of the words already there and returns `code`. */
hp_code hp_wrap(hp_error *reterr, hp_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* hp_fail() with the code that fits errno `err` and its text at the end. */
hp_code hp_fail_errno(hp_error *reterr, int err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#ifdef __cplusplus
}
#endif
#endif
