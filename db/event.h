/* The diary: one line for each thing that happened, in our own words, with no
 * patient in it. Peers and AE titles may be named; received text never is. */
#ifndef HP_DB_EVENT_H
#define HP_DB_EVENT_H

#include "db/db.h"

#ifdef __cplusplus
extern "C" {
#endif

/* study or job 0: none. */
hp_code hp_event_add(hp_db *db, int64_t study, int64_t job, const char *kind,
                     hp_error *reterr, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));

#ifdef __cplusplus
}
#endif
#endif
