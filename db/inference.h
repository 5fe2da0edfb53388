/* What the newest worker said of itself: device, precision, how long its models
 * took to load. One value, so that `heparctl status` knows it with the daemon down;
 * what a study took stands with its run. */
#ifndef HP_DB_INFERENCE_H
#define HP_DB_INFERENCE_H

#include "base/json.h"
#include "db/db.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Remembers these facts (an object) in place of earlier ones; the same again
 * writes nothing. */
hp_code hp_inference_told(hp_db *db, const json_t *facts, hp_error *reterr);
/* JSON null: nobody has said anything yet. *ret is yours. */
hp_code hp_inference_load(hp_db *db, json_t **ret, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
