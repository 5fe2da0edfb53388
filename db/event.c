/* The diary. */
#include <stdarg.h>
#include <stdio.h>

#include "db/db_internal.h"

hp_code hp_event_add(hp_db *db, int64_t study, int64_t job, const char *kind,
                     hp_error *reterr, const char *fmt, ...)
{
    char words[300];
    va_list args;

    va_start(args, fmt);
    vsnprintf(words, sizeof words, fmt, args);
    va_end(args);
    return hp_db__run(db, reterr,
                      "INSERT INTO event(at_ms, study, job, kind, words) "
                      "VALUES (?, nullif(?, 0), nullif(?, 0), ?, ?)",
                      "iiitt", hp_db_wall_ms(db), study, job, kind, words);
}
