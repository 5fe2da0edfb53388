/* Reading and writing JSON with bounds, and the lenient getters. */
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

#include "base/path.h"

enum { MAX_DEPTH = 64, MAX_FILE_BYTES = 64 << 20 };

/* jansson bounds nesting at 2048 calls; ours is bounded before it starts. */
static bool too_deep(const char *text, size_t len)
{
    int depth = 0;
    bool in_string = false;

    for (size_t i = 0; i < len; i++) {
        char c = text[i];

        if (in_string && c == '\\')
            i++;
        else if (c == '"')
            in_string = !in_string;
        else if (!in_string && (c == '[' || c == '{') && ++depth > MAX_DEPTH)
            return true;
        else if (!in_string && (c == ']' || c == '}'))
            depth--;
    }
    return false;
}

hp_code hp_json_parse(const char *text, size_t len, json_t **ret, hp_error *reterr)
{
    json_error_t e;
    json_t *j;

    if (too_deep(text, len))
        return hp_fail(reterr, HP_E_LIMIT, "JSON nested deeper than %d", MAX_DEPTH);
    j = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
    if (j == NULL) {
        hp_code r = json_error_code(&e) == json_error_out_of_memory ? HP_E_NO_MEMORY
                                                                    : HP_E_INVALID;

        return hp_fail(reterr, r, "JSON line %d column %d: %s", e.line, e.column, e.text);
    }
    *ret = j;
    return HP_OK;
}

hp_code hp_json_load_file(const char *path, json_t **ret, hp_error *reterr)
{
    hp_buf buf = HP_BUF_INIT;
    hp_code r = hp_file_read(path, MAX_FILE_BYTES, &buf, reterr);

    if (r != HP_OK)
        return r;
    r = hp_json_parse((const char *)buf.data, buf.len, ret, reterr);
    hp_buf_done(&buf);
    if (r != HP_OK)
        return hp_wrap(reterr, r, "%s", path);
    return HP_OK;
}

hp_code hp_json_write_file(const char *path, const json_t *j, hp_error *reterr)
{
    char *text = json_dumps(j, JSON_INDENT(2) | JSON_ENCODE_ANY);
    hp_buf buf = HP_BUF_INIT;
    hp_code r;

    if (text != NULL)
        hp_buf_printf(&buf, "%s\n", text);
    free(text);
    if (text == NULL || buf.failed)
        r = hp_fail(reterr, HP_E_NO_MEMORY, "writing %s", path);
    else
        r = hp_file_write(path, buf.data, buf.len, 0640, reterr);
    hp_buf_done(&buf);
    return r;
}

const char *hp_json_str(const json_t *obj, const char *key, const char *fallback)
{
    const char *s = json_string_value(json_object_get(obj, key));

    return s != NULL ? s : fallback;
}

int64_t hp_json_int(const json_t *obj, const char *key, int64_t fallback)
{
    const json_t *v = json_object_get(obj, key);

    return json_is_integer(v) ? (int64_t)json_integer_value(v) : fallback;
}

double hp_json_num(const json_t *obj, const char *key, double fallback)
{
    const json_t *v = json_object_get(obj, key);

    return json_is_number(v) ? json_number_value(v) : fallback;
}

int hp_json_bool(const json_t *obj, const char *key, int fallback)
{
    const json_t *v = json_object_get(obj, key);

    return json_is_boolean(v) ? json_is_true(v) : fallback;
}
