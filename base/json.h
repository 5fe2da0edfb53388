/* JSON for every room: jansson's own json_t API, included here and nowhere
 * else, plus the few helpers we want everywhere. */
#ifndef HP_BASE_JSON_H
#define HP_BASE_JSON_H

#include <jansson.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

static inline void hp_json_free(json_t *j)
{
    json_decref(j);
}
HP_AUTO_DEFINE(json_t, hp_json_free)

/* Text of at most `len` bytes to a value (yours); nesting is bounded. */
hp_code hp_json_parse(const char *text, size_t len, json_t **ret, hp_error *reterr);
hp_code hp_json_load_file(const char *path, json_t **ret, hp_error *reterr);
hp_code hp_json_write_file(const char *path, const json_t *j, hp_error *reterr);

/* Lenient getters: the default when the key is absent or of another type. */
const char *hp_json_str(const json_t *obj, const char *key, const char *fallback);
int64_t hp_json_int(const json_t *obj, const char *key, int64_t fallback);
double hp_json_num(const json_t *obj, const char *key, double fallback);
int hp_json_bool(const json_t *obj, const char *key, int fallback);

#ifdef __cplusplus
}
#endif
#endif
