/* Weights by key. */
#include "inference/weights.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_SIZE = 64 };

typedef struct entry {
    char key[KEY_SIZE];
    int rank, dim[HP_TENSOR_RANK];
    float *data;
    size_t count;
    bool taken;
} entry;

struct hp_weights {
    entry *entry;
    int count, cap;
    bool random, blank;
    uint64_t seed;
    hp_error error;
};

void hp_weights_free(hp_weights *w)
{
    if (w == NULL)
        return;
    for (int i = 0; i < w->count; i++)
        free(w->entry[i].data);
    free(w->entry);
    free(w);
}

static entry *add(hp_weights *w, const char *key, const int *dim, int rank)
{
    entry *e;

    if (w->count == w->cap) {
        entry *more = realloc(w->entry, (size_t)(w->cap + 128) * sizeof *more);

        if (more == NULL)
            return NULL;
        w->entry = more;
        w->cap += 128;
    }
    e = &w->entry[w->count];
    *e = (entry){.rank = rank, .count = 1};
    snprintf(e->key, sizeof e->key, "%s", key);
    for (int a = 0; a < rank; a++) {
        e->dim[a] = dim[a];
        e->count *= (size_t)dim[a];
    }
    /* oneDNN reads weights in whole vectors; give them a line of their own. */
    if (posix_memalign((void **)&e->data, 64, e->count * sizeof(float) + 64) != 0)
        return NULL;
    w->count++;
    return e;
}

static entry *find(const hp_weights *w, const char *key)
{
    for (int i = 0; i < w->count; i++)
        if (strcmp(w->entry[i].key, key) == 0)
            return &w->entry[i];
    return NULL;
}

hp_code hp_weights_from(const hp_safetensors *s, const char *prefix, hp_weights **ret,
                        hp_error *reterr)
{
    hp_auto(hp_weights) *w = calloc(1, sizeof *w);
    size_t skip = strlen(prefix);

    if (w == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "weights");
    for (int i = 0; i < hp_safetensors_count(s); i++) {
        const hp_tensor *t = hp_safetensors_at(s, i);
        entry *e;
        hp_code r;

        if (strncmp(t->name, prefix, skip) != 0)
            continue;
        if (strlen(t->name + skip) >= KEY_SIZE)
            return hp_fail(reterr, HP_E_CORRUPT, "tensor %.70s...: no such key", t->name);
        e = add(w, t->name + skip, t->dim, t->rank);
        if (e == NULL)
            return hp_fail(reterr, HP_E_NO_MEMORY, "weights");
        r = hp_tensor_to_f32(t, e->data, reterr);
        if (r != HP_OK)
            return r;
        for (size_t k = 0; k < e->count; k++)
            if (!isfinite(e->data[k]))
                return hp_fail(reterr, HP_E_CORRUPT, "tensor %s: not finite", t->name);
    }
    *ret = hp_steal(&w);
    return HP_OK;
}

hp_code hp_weights_random(uint64_t seed, hp_weights **ret, hp_error *reterr)
{
    hp_weights *w = calloc(1, sizeof *w);

    if (w == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "weights");
    w->random = true;
    w->seed = seed;
    *ret = w;
    return HP_OK;
}

hp_code hp_weights_blank(hp_weights **ret, hp_error *reterr)
{
    hp_code r = hp_weights_random(0, ret, reterr);

    if (r == HP_OK)
        (*ret)->blank = true;
    return r;
}

/* --- random weights ---------------------------------------------------- */

static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Four 16-bit uniforms summed: near enough to normal for weights. */
static float normal(uint64_t bits)
{
    int sum = (int)(bits & 0xffff) + (int)(bits >> 16 & 0xffff) +
              (int)(bits >> 32 & 0xffff) + (int)(bits >> 48);

    return ((float)sum - 131070.0f) * (1.0f / 37837.0f); /* sd of the sum */
}

static bool ends(const char *key, const char *tail)
{
    size_t n = strlen(key), m = strlen(tail);

    return n >= m && strcmp(key + n - m, tail) == 0;
}

static void fill_random(const hp_weights *w, entry *e)
{
    uint64_t state = w->seed;
    size_t fan_in = e->dim[0] > 0 ? e->count / (size_t)e->dim[0] : 1;
    float sd = sqrtf(2.0f / (float)fan_in), constant = 0;

    for (const char *c = e->key; *c != '\0'; c++)
        state = mix(state ^ (uint8_t)*c);
    if (ends(e->key, ".bias"))
        sd = 0;
    if (strcmp(e->key, "head.hm.conv2.bias") == 0)
        constant = -2.19f;
    if (ends(e->key, ".scale")) { /* s_k about 1 / D; D is in no shape, 1 / K serves */
        sd = 0;
        constant = 1.0f / (float)e->count;
    }
    if (ends(e->key, ".skip.weight"))
        sd *= 0.7f;
    else if ((ends(e->key, ".conv2.weight") || ends(e->key, ".conv3.weight")) &&
             strncmp(e->key, "head", 4) != 0)
        sd *= 0.25f;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < e->count; i++)
        e->data[i] =
            constant + (sd > 0 ? sd * normal(mix(state + i * 0x9e3779b97f4a7c15u)) : 0);
}

/* --- taking ------------------------------------------------------------ */

static const float *fail(hp_weights *w, const char *key, const char *what)
{
    if (w->error.code == HP_OK)
        hp_fail(&w->error, HP_E_CORRUPT, "tensor %s: %s", key, what);
    return NULL;
}

const float *hp_weights_take(hp_weights *w, const char *key, const int *dim, int rank)
{
    entry *e = find(w, key);

    if (e == NULL && w->random) {
        e = add(w, key, dim, rank);
        if (e != NULL && !w->blank)
            fill_random(w, e);
    }
    if (e == NULL)
        return fail(w, key, w->random ? "out of memory" : "missing");
    if (e->rank != rank || memcmp(e->dim, dim, (size_t)rank * sizeof *dim) != 0) {
        char words[96];

        snprintf(words, sizeof words,
                 "wrong shape: [%d%s%.0d%s...] where [%d, %d...] belongs", e->dim[0],
                 e->rank > 1 ? ", " : "", e->rank > 1 ? e->dim[1] : 0,
                 e->rank > 2 ? ", " : "", dim[0], rank > 1 ? dim[1] : 0);
        return fail(w, key, words);
    }
    e->taken = true;
    return e->data;
}

hp_code hp_weights_finish(const hp_weights *w, hp_error *reterr)
{
    if (w->error.code != HP_OK) {
        if (reterr != NULL)
            *reterr = w->error;
        return w->error.code;
    }
    for (int i = 0; i < w->count; i++)
        if (!w->entry[i].taken)
            return hp_fail(reterr, HP_E_CORRUPT, "tensor %s: not part of this network",
                           w->entry[i].key);
    return HP_OK;
}

size_t hp_weights_count(const hp_weights *w)
{
    size_t n = 0;

    for (int i = 0; i < w->count; i++)
        n += w->entry[i].taken ? w->entry[i].count : 0;
    return n;
}

hp_code hp_weights_write(const hp_weights *w, const char *path, hp_error *reterr)
{
    hp_tensor *t = calloc((size_t)w->count + 1, sizeof *t);
    hp_code r;

    if (t == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "writing weights");
    for (int i = 0; i < w->count; i++) {
        const entry *e = &w->entry[i];

        t[i] = (hp_tensor){
            .name = e->key, .dtype = HP_DTYPE_F32, .rank = e->rank, .data = e->data};
        memcpy(t[i].dim, e->dim, sizeof t[i].dim);
    }
    r = hp_safetensors_write(path, t, w->count, reterr);
    free(t);
    return r;
}
