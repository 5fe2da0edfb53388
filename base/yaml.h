/* YAML files as JSON values, each key with its line.
 *
 * Both config/ and inference/ read YAML and must name the line of a key they
 * do not know; the one use of libyaml is here. The dialect is the small one
 * that a person writes: one document of mappings, sequences and scalars.
 * Anchors, aliases, tags and duplicate keys are refused, nesting is bounded.
 * Plain scalars become null, booleans (true/false), integers or numbers by
 * base/number's rules; quoted ones are always strings.
 */
#ifndef HP_BASE_YAML_H
#define HP_BASE_YAML_H

#include <stddef.h>

#include "base/auto.h"
#include "base/error.h"
#include "base/json.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_yaml hp_yaml;

/* The error names the line ("line 7: ..."), never the path. */
hp_code hp_yaml_parse(const char *text, size_t len, hp_yaml **ret, hp_error *reterr);
/* The same from a file of at most 1 MiB; the error names file and line. */
hp_code hp_yaml_load(const char *path, hp_yaml **ret, hp_error *reterr);
void hp_yaml_free(hp_yaml *y);
HP_AUTO_DEFINE(hp_yaml, hp_yaml_free)

/* The document; borrowed from `y`. */
json_t *hp_yaml_root(const hp_yaml *y);

/* Line (from 1) where `node` begins; for a member of a mapping the line of its
 * key. 0 when `node` is not part of `y`. */
int hp_yaml_line(const hp_yaml *y, const json_t *node);
/* Line of one member of a mapping, whatever its value; 0: not there. */
int hp_yaml_key_line(const hp_yaml *y, const json_t *map, const char *key);

#ifdef __cplusplus
}
#endif
#endif
