/* safetensors in and out. */
#include "inference/safetensors.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/path.h"

enum { MAX_HEADER = 16 << 20 };

struct hp_safetensors {
    hp_buf file;
    json_t *header; /* owns the names */
    hp_tensor *tensor;
    int count;
};

static const struct {
    const char *name;
    size_t size;
} DTYPES[HP_DTYPES] = {
    [HP_DTYPE_F32] = {"F32", 4},   [HP_DTYPE_F16] = {"F16", 2},
    [HP_DTYPE_BF16] = {"BF16", 2}, [HP_DTYPE_I16] = {"I16", 2},
    [HP_DTYPE_I32] = {"I32", 4},   [HP_DTYPE_U8] = {"U8", 1},
};

size_t hp_tensor_type_size(hp_tensor_type t)
{
    return DTYPES[t].size;
}

size_t hp_tensor_count(const hp_tensor *t)
{
    size_t n = 1;

    for (int a = 0; a < t->rank; a++)
        n *= (size_t)t->dim[a];
    return n;
}

static float half_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 1023;
    uint32_t bits;
    float f;

    if (exp == 31) {
        bits = sign | 0x7f800000 | man << 13;
    } else if (exp != 0) {
        bits = sign | (exp + 112) << 23 | man << 13;
    } else {
        f = (float)man * 0x1p-24f; /* subnormal */
        return sign ? -f : f;
    }
    memcpy(&f, &bits, sizeof f);
    return f;
}

hp_code hp_tensor_to_f32(const hp_tensor *t, float *ret, hp_error *reterr)
{
    size_t n = hp_tensor_count(t);

    if (t->dtype == HP_DTYPE_F32) {
        memcpy(ret, t->data, n * sizeof *ret);
        return HP_OK;
    }
    if (t->dtype != HP_DTYPE_F16 && t->dtype != HP_DTYPE_BF16)
        return hp_fail(reterr, HP_E_CORRUPT, "tensor %s: %s where a float belongs",
                       t->name, DTYPES[t->dtype].name);
    for (size_t i = 0; i < n; i++) {
        uint16_t h;

        memcpy(&h, (const uint8_t *)t->data + 2 * i, sizeof h);
        if (t->dtype == HP_DTYPE_F16) {
            ret[i] = half_to_f32(h);
        } else {
            uint32_t bits = (uint32_t)h << 16;

            memcpy(&ret[i], &bits, sizeof bits);
        }
    }
    return HP_OK;
}

static hp_code read_shape(hp_tensor *t, const json_t *shape, size_t *ret_count,
                          hp_error *reterr)
{
    size_t n = 1;

    if (!json_is_array(shape) || json_array_size(shape) > HP_TENSOR_RANK)
        return hp_fail(reterr, HP_E_CORRUPT, "tensor %s: bad shape", t->name);
    t->rank = (int)json_array_size(shape);
    for (int a = 0; a < t->rank; a++) {
        json_int_t d = json_integer_value(json_array_get(shape, (size_t)a));

        if (d < 0 || d > 1 << 28 || (d > 0 && n > ((size_t)1 << 40) / (size_t)d))
            return hp_fail(reterr, HP_E_CORRUPT, "tensor %s: bad shape", t->name);
        t->dim[a] = (int)d;
        n *= (size_t)d;
    }
    *ret_count = n;
    return HP_OK;
}

static hp_code read_entry(hp_tensor *t, const json_t *entry, const uint8_t *body,
                          size_t body_len, hp_error *reterr)
{
    const char *dtype = hp_json_str(entry, "dtype", "");
    const json_t *offsets = json_object_get(entry, "data_offsets");
    size_t count = 0;
    json_int_t from, to;
    int d = 0;
    hp_code r = read_shape(t, json_object_get(entry, "shape"), &count, reterr);

    if (r != HP_OK)
        return r;
    while (d < HP_DTYPES && strcmp(DTYPES[d].name, dtype) != 0)
        d++;
    if (d == HP_DTYPES)
        return hp_fail(reterr, HP_E_CORRUPT, "tensor %s: dtype %.12s is not taken",
                       t->name, dtype);
    t->dtype = (hp_tensor_type)d;
    from = json_integer_value(json_array_get(offsets, 0));
    to = json_integer_value(json_array_get(offsets, 1));
    if (json_array_size(offsets) != 2 || from < 0 || to < from || (size_t)to > body_len ||
        (size_t)(to - from) != count * DTYPES[d].size)
        return hp_fail(reterr, HP_E_CORRUPT, "tensor %s: bad data offsets", t->name);
    t->data = body + from;
    return HP_OK;
}

static hp_code parse(hp_safetensors *s, hp_error *reterr)
{
    uint64_t len = 0;
    const char *name;
    json_t *entry;
    hp_code r;

    for (int i = 7; i >= 0 && s->file.len >= 8; i--)
        len = len << 8 | s->file.data[i];
    if (s->file.len < 8 || len > MAX_HEADER || len > s->file.len - 8)
        return hp_fail(reterr, HP_E_CORRUPT, "not a safetensors file");
    r = hp_json_parse((const char *)s->file.data + 8, len, &s->header, reterr);
    if (r != HP_OK)
        return hp_wrap(reterr, r, "header");
    if (!json_is_object(s->header))
        return hp_fail(reterr, HP_E_CORRUPT, "header is not an object");
    s->tensor = calloc(json_object_size(s->header) + 1, sizeof *s->tensor);
    if (s->tensor == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "header");
    json_object_foreach(s->header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        s->tensor[s->count].name = name;
        r = read_entry(&s->tensor[s->count], entry, s->file.data + 8 + len,
                       s->file.len - 8 - len, reterr);
        if (r != HP_OK)
            return r;
        s->count++;
    }
    return HP_OK;
}

hp_code hp_safetensors_parse_take(hp_buf *bytes, hp_safetensors **ret, hp_error *reterr)
{
    hp_auto(hp_safetensors) *s = calloc(1, sizeof *s);
    hp_code r;

    if (s == NULL) {
        hp_buf_done(bytes);
        return hp_fail(reterr, HP_E_NO_MEMORY, "reading tensors");
    }
    s->file = *bytes;
    *bytes = (hp_buf)HP_BUF_INIT;
    r = parse(s, reterr);
    if (r == HP_OK)
        *ret = hp_steal(&s);
    return r;
}

hp_code hp_safetensors_load(const char *path, size_t max_bytes, hp_safetensors **ret,
                            hp_error *reterr)
{
    const char *slash = strrchr(path, '/');
    hp_buf bytes = HP_BUF_INIT;
    hp_code r = hp_file_read(path, max_bytes, &bytes, reterr);

    if (r == HP_OK)
        r = hp_safetensors_parse_take(&bytes, ret, reterr);
    hp_buf_done(&bytes);
    if (r != HP_OK)
        return hp_wrap(reterr, r, "%.80s", slash != NULL ? slash + 1 : path);
    return HP_OK;
}

void hp_safetensors_free(hp_safetensors *s)
{
    if (s == NULL)
        return;
    hp_buf_done(&s->file);
    json_decref(s->header);
    free(s->tensor);
    free(s);
}

int hp_safetensors_count(const hp_safetensors *s)
{
    return s->count;
}

const hp_tensor *hp_safetensors_at(const hp_safetensors *s, int i)
{
    return &s->tensor[i];
}

const hp_tensor *hp_safetensors_find(const hp_safetensors *s, const char *name)
{
    for (int i = 0; i < s->count; i++)
        if (strcmp(s->tensor[i].name, name) == 0)
            return &s->tensor[i];
    return NULL;
}

const char *hp_safetensors_metadata(const hp_safetensors *s, const char *key)
{
    return hp_json_str(json_object_get(s->header, "__metadata__"), key, NULL);
}

static json_t *header_of(const hp_tensor *tensor, int count)
{
    json_t *h = json_object();
    size_t at = 0;

    for (int i = 0; i < count; i++) {
        json_t *shape = json_array();
        size_t end = at + hp_tensor_count(&tensor[i]) * DTYPES[tensor[i].dtype].size;

        for (int a = 0; a < tensor[i].rank; a++)
            json_array_append_new(shape, json_integer(tensor[i].dim[a]));
        json_object_set_new(h, tensor[i].name,
                            json_pack("{s:s, s:o, s:[I,I]}", "dtype",
                                      DTYPES[tensor[i].dtype].name, "shape", shape,
                                      "data_offsets", (json_int_t)at, (json_int_t)end));
        at = end;
    }
    return h;
}

static bool write_all(FILE *f, const char *text, const hp_tensor *tensor, int count)
{
    uint64_t len = strlen(text), padded = (len + 7) & ~(uint64_t)7;
    uint8_t le[8];
    bool ok;

    for (int i = 0; i < 8; i++)
        le[i] = (uint8_t)(padded >> 8 * i);
    ok = fwrite(le, 1, 8, f) == 8 && fwrite(text, 1, len, f) == len;
    for (; len < padded; len++)
        ok = fputc(' ', f) != EOF && ok;
    for (int i = 0; i < count && ok; i++) {
        size_t n = hp_tensor_count(&tensor[i]), size = DTYPES[tensor[i].dtype].size;

        ok = n == 0 || fwrite(tensor[i].data, size, n, f) == n;
    }
    return ok;
}

hp_code hp_safetensors_write(const char *path, const hp_tensor *tensor, int count,
                             hp_error *reterr)
{
    hp_auto(json_t) *header = header_of(tensor, count);
    char *text = json_dumps(header, JSON_COMPACT);
    char part[HP_PATH_MAX];
    FILE *f;
    bool ok;
    hp_code r = hp_path_fmt(part, reterr, "%s.part", path);

    if (r != HP_OK || text == NULL) {
        free(text);
        return r != HP_OK ? r : hp_fail(reterr, HP_E_NO_MEMORY, "writing tensors");
    }
    f = fopen(part, "wb");
    ok = f != NULL && write_all(f, text, tensor, count);
    free(text);
    if (f != NULL)
        ok = fclose(f) == 0 && ok;
    if (!ok || rename(part, path) != 0)
        return hp_fail_errno(reterr, errno, "writing %.120s", path);
    return HP_OK;
}
