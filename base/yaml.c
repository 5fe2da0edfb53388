/* YAML to JSON by libyaml's event parser. Every scalar becomes its own json_t
 * (jansson's true/false/null are shared singletons, so for those the line is
 * that of the last one read; callers report the key's parent in that case). */
#include "base/yaml.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/buf.h"
#include "base/number.h"
#include "base/path.h"

enum { MAX_DEPTH = 32, MAX_BYTES = 1 << 20 };

typedef struct place {
    const json_t *node;
    const char *key;
    int line;
} place;

struct hp_yaml {
    json_t *root;
    place *places;
    size_t count, cap;
};

typedef struct reader {
    yaml_parser_t parser;
    hp_yaml *out;
    hp_error *err;
} reader;

static hp_code read_node(reader *r, yaml_event_t *ev, int line, int depth, json_t **ret);

static hp_code fail_at(reader *r, const yaml_event_t *ev, const char *words)
{
    return hp_fail(r->err, HP_E_INVALID, "line %zu: %s", ev->start_mark.line + 1, words);
}

static hp_code next(reader *r, yaml_event_t *ev)
{
    if (!yaml_parser_parse(&r->parser, ev))
        return hp_fail(r->err, HP_E_INVALID, "line %zu: %s",
                       r->parser.problem_mark.line + 1,
                       r->parser.problem != NULL ? r->parser.problem : "not YAML");
    return HP_OK;
}

/* `key` NULL: where node begins; else where that member of it stands. */
static hp_code remember(reader *r, const json_t *node, const char *key, int line)
{
    hp_yaml *y = r->out;

    if (node == NULL)
        return hp_fail(r->err, HP_E_NO_MEMORY, "reading YAML");
    if (y->count == y->cap) {
        size_t cap = y->cap ? 2 * y->cap : 64;
        place *more = realloc(y->places, cap * sizeof *more);

        if (more == NULL)
            return hp_fail(r->err, HP_E_NO_MEMORY, "reading YAML");
        y->places = more;
        y->cap = cap;
    }
    y->places[y->count++] = (place){node, key, line};
    return HP_OK;
}

static json_t *scalar_value(const char *text, bool plain)
{
    int64_t i;
    double d;

    if (plain) {
        if (text[0] == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0)
            return json_null();
        if (strcmp(text, "true") == 0)
            return json_true();
        if (strcmp(text, "false") == 0)
            return json_false();
        if (hp_parse_i64(text, &i))
            return json_integer(i);
        if (hp_parse_double(text, &d))
            return json_real(d);
    }
    return json_string(text); /* NULL when it is not UTF-8 */
}

static hp_code read_scalar(reader *r, const yaml_event_t *ev, json_t **ret)
{
    const char *text = (const char *)ev->data.scalar.value;
    json_t *v;

    if (ev->data.scalar.anchor != NULL || ev->data.scalar.tag != NULL)
        return fail_at(r, ev, "anchors and tags are not taken");
    if (strlen(text) != ev->data.scalar.length)
        return fail_at(r, ev, "a zero byte inside a value");
    v = scalar_value(text, ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE);
    if (v == NULL)
        return fail_at(r, ev, "not a value");
    *ret = v;
    return HP_OK;
}

static hp_code read_sequence(reader *r, int depth, json_t **ret)
{
    hp_auto(json_t) *list = json_array();

    for (;;) {
        yaml_event_t ev;
        hp_code code = next(r, &ev);
        json_t *item = NULL;

        if (code != HP_OK)
            return code;
        if (ev.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&ev);
            break;
        }
        code = read_node(r, &ev, (int)ev.start_mark.line + 1, depth + 1, &item);
        yaml_event_delete(&ev);
        if (code != HP_OK)
            return code;
        if (json_array_append_new(list, item) != 0)
            return hp_fail(r->err, HP_E_NO_MEMORY, "reading YAML");
    }
    *ret = hp_steal(&list);
    return HP_OK;
}

/* One "key: value" whose key event is `key`. */
static hp_code read_member(reader *r, const yaml_event_t *key, int depth, json_t *map)
{
    const char *name = (const char *)key->data.scalar.value;
    json_t *value = NULL;
    yaml_event_t ev;
    hp_code code;

    if (key->type != YAML_SCALAR_EVENT || key->data.scalar.anchor != NULL ||
        strlen(name) != key->data.scalar.length)
        return fail_at(r, key, "a key must be a plain word");
    if (json_object_get(map, name) != NULL)
        return hp_fail(r->err, HP_E_INVALID, "line %zu: key \"%.60s\" stands twice",
                       key->start_mark.line + 1, name);
    code = next(r, &ev);
    if (code != HP_OK)
        return code;
    code = read_node(r, &ev, (int)key->start_mark.line + 1, depth + 1, &value);
    yaml_event_delete(&ev);
    if (code != HP_OK)
        return code;
    if (json_object_set_new(map, name, value) != 0)
        return fail_at(r, key, "not a key");
    /* the map's own copy of the name lives as long as the map */
    return remember(r, map, json_object_iter_key(json_object_iter_at(map, name)),
                    (int)key->start_mark.line + 1);
}

static hp_code read_mapping(reader *r, int depth, json_t **ret)
{
    hp_auto(json_t) *map = json_object();

    for (;;) {
        yaml_event_t key;
        hp_code code = next(r, &key);

        if (code != HP_OK)
            return code;
        if (key.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&key);
            break;
        }
        code = read_member(r, &key, depth, map);
        yaml_event_delete(&key);
        if (code != HP_OK)
            return code;
    }
    *ret = hp_steal(&map);
    return HP_OK;
}

static hp_code read_node(reader *r, yaml_event_t *ev, int line, int depth, json_t **ret)
{
    hp_auto(json_t) *node = NULL;
    hp_code code;

    if (depth > MAX_DEPTH)
        return fail_at(r, ev, "nested too deep");
    switch (ev->type) {
    case YAML_SCALAR_EVENT:
        code = read_scalar(r, ev, &node);
        break;
    case YAML_SEQUENCE_START_EVENT:
        if (ev->data.sequence_start.anchor != NULL)
            return fail_at(r, ev, "anchors are not taken");
        code = read_sequence(r, depth, &node);
        break;
    case YAML_MAPPING_START_EVENT:
        if (ev->data.mapping_start.anchor != NULL)
            return fail_at(r, ev, "anchors are not taken");
        code = read_mapping(r, depth, &node);
        break;
    case YAML_ALIAS_EVENT:
        return fail_at(r, ev, "aliases are not taken");
    default:
        return fail_at(r, ev, "a value is missing");
    }
    if (code == HP_OK)
        code = remember(r, node, NULL, line);
    if (code == HP_OK)
        *ret = hp_steal(&node);
    return code;
}

/* Stream start, one document, stream end. An empty file is an empty mapping. */
static hp_code read_stream(reader *r)
{
    for (;;) {
        yaml_event_t ev;
        hp_code code = next(r, &ev);
        bool end;

        if (code != HP_OK)
            return code;
        end = ev.type == YAML_STREAM_END_EVENT;
        if (ev.type == YAML_SCALAR_EVENT || ev.type == YAML_MAPPING_START_EVENT ||
            ev.type == YAML_SEQUENCE_START_EVENT || ev.type == YAML_ALIAS_EVENT) {
            if (r->out->root != NULL)
                code = fail_at(r, &ev, "a second document");
            else
                code = read_node(r, &ev, (int)ev.start_mark.line + 1, 0, &r->out->root);
        }
        yaml_event_delete(&ev);
        if (code != HP_OK || end)
            return code;
    }
}

hp_code hp_yaml_parse(const char *text, size_t len, hp_yaml **ret, hp_error *reterr)
{
    hp_auto(hp_yaml) *y = calloc(1, sizeof *y);
    reader r = {.out = y, .err = reterr};
    hp_code code;

    if (y == NULL || !yaml_parser_initialize(&r.parser))
        return hp_fail(reterr, HP_E_NO_MEMORY, "reading YAML");
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
    code = read_stream(&r);
    yaml_parser_delete(&r.parser);
    if (code != HP_OK)
        return code;
    if (y->root == NULL && (y->root = json_object()) == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "reading YAML");
    *ret = hp_steal(&y);
    return HP_OK;
}

hp_code hp_yaml_load(const char *path, hp_yaml **ret, hp_error *reterr)
{
    hp_buf text = HP_BUF_INIT;
    hp_code code = hp_file_read(path, MAX_BYTES, &text, reterr);

    if (code == HP_OK) {
        code = hp_yaml_parse(hp_buf_str(&text), text.len, ret, reterr);
        if (code != HP_OK)
            hp_wrap(reterr, code, "%.120s", path);
    }
    hp_buf_done(&text);
    return code;
}

void hp_yaml_free(hp_yaml *y)
{
    if (y == NULL)
        return;
    json_decref(y->root);
    free(y->places);
    free(y);
}

json_t *hp_yaml_root(const hp_yaml *y)
{
    return y->root;
}

int hp_yaml_line(const hp_yaml *y, const json_t *node)
{
    for (size_t i = y->count; i-- > 0;)
        if (y->places[i].node == node && y->places[i].key == NULL)
            return y->places[i].line;
    return 0;
}

int hp_yaml_key_line(const hp_yaml *y, const json_t *map, const char *key)
{
    for (size_t i = 0; i < y->count; i++)
        if (y->places[i].node == map && y->places[i].key != NULL &&
            strcmp(y->places[i].key, key) == 0)
            return y->places[i].line;
    return 0;
}
