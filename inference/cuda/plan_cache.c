/* The plan cache's file:
 *
 *   hepar plans 2
 *   NVIDIA H100 80GB HBM3, SM 9.0, driver 13000, cuDNN 91901
 *   KEY <tab> microseconds <tab> engine <tab> knob=value ...
 *
 * and nothing that another program needs to read. */
#include "inference/cuda/plan_cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "base/path.h"

#define HEADER "hepar plans 2"
enum { FILE_MAX = 4 << 20, DEVICE = 200 };

typedef struct entry {
    char key[HP_LAYER_KEY];
    hp_engine engine;
    double us;
} entry;

struct hp_plan_cache {
    char path[HP_PATH_MAX]; /* "": none */
    char device[DEVICE];
    entry *entry;
    int count, cap;
    bool changed;
};

static entry *find(const hp_plan_cache *c, const char *key)
{
    for (int i = 0; i < c->count; i++)
        if (strcmp(c->entry[i].key, key) == 0)
            return &c->entry[i];
    return NULL;
}

static hp_code put(hp_plan_cache *c, const entry *e, hp_error *reterr)
{
    entry *old = find(c, e->key);

    if (old != NULL) {
        *old = *e;
        return HP_OK;
    }
    if (c->count == c->cap) {
        entry *more = realloc(c->entry, (size_t)(c->cap + 64) * sizeof *more);

        if (more == NULL)
            return hp_fail(reterr, HP_E_NO_MEMORY, "plan cache");
        c->entry = more;
        c->cap += 64;
    }
    c->entry[c->count++] = *e;
    return HP_OK;
}

/* --- reading ----------------------------------------------------------- */

/* Cuts the next field off *rest; NULL when there is none. */
static char *field(char **rest, const char *ends)
{
    return strsep(rest, ends);
}

static bool parse_knobs(char *text, hp_engine *ret)
{
    char *one;

    while ((one = field(&text, " ")) != NULL) {
        char *value = strchr(one, '=');
        int64_t type;

        if (*one == '\0')
            continue;
        if (value == NULL || ret->knobs == HP_ENGINE_KNOBS)
            return false;
        *value++ = '\0';
        if (!hp_parse_i64(one, &type) || type < 0 || type > INT32_MAX ||
            !hp_parse_i64(value, &ret->knob[ret->knobs].value))
            return false;
        ret->knob[ret->knobs++].type = (int)type;
    }
    return true;
}

static bool parse_line(char *line, entry *ret)
{
    char *key = field(&line, "\t"), *us = field(&line, "\t"), *index = field(&line, "\t");

    *ret = (entry){0};
    if (line == NULL || strlen(key) == 0 || strlen(key) >= sizeof ret->key)
        return false;
    strcpy(ret->key, key);
    return hp_parse_double(us, &ret->us) && hp_parse_i64(index, &ret->engine.index) &&
           ret->engine.index >= 0 && parse_knobs(line, &ret->engine);
}

static hp_code parse(hp_plan_cache *c, char *text, hp_error *reterr)
{
    char *line = field(&text, "\n");
    entry e;
    hp_code r = HP_OK;

    if (line == NULL || strcmp(line, HEADER) != 0)
        return HP_OK;
    line = field(&text, "\n");
    if (line == NULL || strcmp(line, c->device) != 0)
        return HP_OK;
    while (r == HP_OK && (line = field(&text, "\n")) != NULL)
        if (text != NULL && parse_line(line, &e)) /* a line without an end was cut */
            r = put(c, &e, reterr);
    return r;
}

hp_code hp_plan_cache_open(const char *path, const char *device, hp_plan_cache **ret,
                           hp_error *reterr)
{
    hp_auto(hp_plan_cache) *c = calloc(1, sizeof *c);
    hp_buf file = HP_BUF_INIT;
    hp_code r = HP_OK;

    if (c == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "plan cache");
    snprintf(c->device, sizeof c->device, "%s", device);
    for (char *p = c->device; *p != '\0'; p++)
        if (*p == '\n' || *p == '\t')
            *p = ' ';
    if (path != NULL && path[0] != '\0')
        r = hp_path_fmt(c->path, reterr, "%s", path);
    if (r == HP_OK && c->path[0] != '\0' &&
        hp_file_read(c->path, FILE_MAX, &file, NULL) == HP_OK)
        r = parse(c, (char *)hp_buf_str(&file), reterr); /* ours to cut up */
    hp_buf_done(&file);
    if (r == HP_OK)
        *ret = hp_steal(&c);
    return r;
}

void hp_plan_cache_free(hp_plan_cache *c)
{
    if (c == NULL)
        return;
    free(c->entry);
    free(c);
}

/* --- using ------------------------------------------------------------- */

int hp_plan_cache_count(const hp_plan_cache *c)
{
    return c->count;
}

const hp_engine *hp_plan_cache_find(const hp_plan_cache *c, const char *key)
{
    const entry *e = find(c, key);

    return e != NULL ? &e->engine : NULL;
}

hp_code hp_plan_cache_put(hp_plan_cache *c, const char *key, const hp_engine *engine,
                          double microseconds, hp_error *reterr)
{
    entry e = {.engine = *engine, .us = microseconds};

    snprintf(e.key, sizeof e.key, "%s", key);
    c->changed = true;
    return put(c, &e, reterr);
}

void hp_plan_cache_drop(hp_plan_cache *c, const char *key)
{
    entry *e = find(c, key);

    if (e == NULL)
        return;
    *e = c->entry[--c->count];
    c->changed = true;
}

static void write_entry(const entry *e, hp_buf *to)
{
    char us[32];

    hp_format_double(e->us, 1, us, sizeof us);
    hp_buf_printf(to, "%s\t%s\t%lld\t", e->key, us, (long long)e->engine.index);
    for (int i = 0; i < e->engine.knobs; i++)
        hp_buf_printf(to, "%s%d=%lld", i > 0 ? " " : "", e->engine.knob[i].type,
                      (long long)e->engine.knob[i].value);
    hp_buf_put(to, "\n", 1);
}

hp_code hp_plan_cache_save(hp_plan_cache *c, hp_error *reterr)
{
    hp_buf file = HP_BUF_INIT;
    hp_code r;

    if (!c->changed || c->path[0] == '\0')
        return HP_OK;
    hp_buf_printf(&file, "%s\n%s\n", HEADER, c->device);
    for (int i = 0; i < c->count; i++)
        write_entry(&c->entry[i], &file);
    r = file.failed ? hp_fail(reterr, HP_E_NO_MEMORY, "plan cache")
                    : hp_file_write(c->path, file.data, file.len, 0640, reterr);
    hp_buf_done(&file);
    if (r == HP_OK)
        c->changed = false;
    return r;
}
