#include "db/inference.h"

#include <stdlib.h>
#include <string.h>

#include "db/db_internal.h"

hp_code hp_inference_told(hp_db *db, const json_t *facts, hp_error *reterr)
{
    char *text = json_dumps(facts, JSON_COMPACT);
    hp_code r;

    if (text == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "no memory for a worker's facts");
    r = hp_db__run(
        db, reterr,
        "INSERT INTO meta(key, value) VALUES ('inference', ?) ON CONFLICT(key) "
        "DO UPDATE SET value = excluded.value WHERE value <> excluded.value",
        "t", text);
    free(text);
    return r;
}

hp_code hp_inference_load(hp_db *db, json_t **ret, hp_error *reterr)
{
    hp_auto(hp_rows) *rows = NULL;
    const char *text;
    hp_code r = hp_db__row(db, &rows, reterr,
                           "SELECT value FROM meta WHERE key = 'inference'", "");

    if (r == HP_E_EMPTY) {
        *ret = json_null();
        return HP_OK;
    }
    if (r != HP_OK)
        return r;
    text = hp_rows_t(rows, 0);
    return hp_json_parse(text, strlen(text), ret, reterr);
}
