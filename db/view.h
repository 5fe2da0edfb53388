/* What a person asks of the ledger, as JSON values: heparctl prints them as
 * tables or as they are. Every call is one short read; none holds a read
 * transaction while something is printed. No patient name, ID or birth date is
 * in the ledger, so none can be shown. */
#ifndef HP_DB_VIEW_H
#define HP_DB_VIEW_H

#include "base/json.h"
#include "db/db.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Counts by job state, intake counters, deliveries by peer and state; "inference"
 * (db/inference.h) and "last_read", the newest run that went through the networks,
 * with "timings_ms" and "networks_ms": both null when there is none. */
hp_code hp_view_status(hp_db *db, json_t **ret, hp_error *reterr);
/* Newest first, at most `limit` (0: all). */
hp_code hp_view_studies(hp_db *db, int limit, json_t **ret, hp_error *reterr);
hp_code hp_view_jobs(hp_db *db, int limit, json_t **ret, hp_error *reterr);
/* A job by number, or a study by UID (newest revision): everything that
 * explains it. HP_E_NOT_FOUND. */
hp_code hp_view_show(hp_db *db, const char *id, json_t **ret, hp_error *reterr);
/* id NULL: everything, newest `limit`. */
hp_code hp_view_events(hp_db *db, const char *id, int limit, json_t **ret,
                       hp_error *reterr);
/* Deliveries and back-off of each peer the ledger has met. */
hp_code hp_view_peers(hp_db *db, json_t **ret, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
