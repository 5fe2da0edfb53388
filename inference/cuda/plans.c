/* Choosing plans. A plan from the cache was compared when it went in, on this very
 * device, driver and cuDNN; any other is compared before it serves. */
#include "inference/cuda/plans.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inference/cuda/trust.h"

/* The heuristics are seldom wrong by more than a few places. */
enum { ASKED = 8, TIMED = 4 };

typedef struct plan {
    char key[HP_LAYER_KEY];
    hp_cudnn_conv *conv;
    struct plan *next;
} plan;

struct hp_plans {
    hp_gpu *g;
    hp_cudnn *c;
    hp_plan_cache *cache;
    void (*on_note)(const char *line, void *payload);
    void *payload;
    hp_bench *bench; /* NULL while at rest */
    plan *first;
};

hp_code hp_plans_new(hp_gpu *g, hp_cudnn *c, hp_plan_cache *cache,
                     void (*on_note)(const char *line, void *payload), void *payload,
                     hp_plans **ret, hp_error *reterr)
{
    hp_plans *p = calloc(1, sizeof *p);

    if (p == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "plans");
    *p = (hp_plans){
        .g = g, .c = c, .cache = cache, .on_note = on_note, .payload = payload};
    *ret = p;
    return HP_OK;
}

void hp_plans_rest(hp_plans *p)
{
    hp_bench_free(p->bench);
    p->bench = NULL;
}

void hp_plans_free(hp_plans *p)
{
    if (p == NULL)
        return;
    hp_plans_rest(p);
    while (p->first != NULL) {
        plan *next = p->first->next;

        hp_cudnn_conv_free(p->first->conv);
        free(p->first);
        p->first = next;
    }
    free(p);
}

static void note_struck(const hp_plans *p, const char *key, const hp_engine *e,
                        const hp_error *why)
{
    char line[480];

    if (p->on_note == NULL)
        return;
    snprintf(line, sizeof line, "plan struck off layer=\"%s\" engine=%lld error=\"%s\"",
             key, (long long)e->index, why->msg);
    p->on_note(line, p->payload);
}

/* Strikes off what computes wrong, or has no room, among the first few. */
static hp_code weed(hp_plans *p, const char *key, hp_cudnn_conv *v, int *count,
                    hp_error *reterr)
{
    hp_error why = HP_ERROR_INIT;

    for (int i = 0; i < *count && i < TIMED;) {
        hp_code r = hp_bench_compare(p->bench, v, i, &why);

        if (r == HP_OK) {
            i++;
            continue;
        }
        if (r != HP_E_MISMATCH && r != HP_E_NO_MEMORY) {
            if (reterr != NULL)
                *reterr = why;
            return r;
        }
        note_struck(p, key, hp_cudnn_conv_engine(v, i), &why);
        hp_cudnn_conv_strike(v, i);
        --*count;
    }
    while (*count > TIMED) /* these were not compared */
        hp_cudnn_conv_strike(v, --*count);
    if (*count > 0)
        return HP_OK;
    if (why.code == HP_E_NO_MEMORY)
        return hp_fail(reterr, HP_E_NO_MEMORY, "layer %s: %.120s", key, why.msg);
    return hp_fail(reterr, HP_E_UNSUPPORTED, "layer %s: no engine computes it right",
                   key);
}

/* The fastest becomes the only candidate. */
static hp_code race(hp_plans *p, const char *key, hp_cudnn_conv *v, int count,
                    hp_error *reterr)
{
    double best = 0;
    int winner = 0;

    for (int i = 0; i < count; i++) {
        double us = 0;
        hp_code r = hp_bench_time(p->bench, v, i, &us, reterr);

        if (r != HP_OK)
            return r;
        if (i == 0 || us < best) {
            best = us;
            winner = i;
        }
    }
    for (int i = count - 1; i >= 0; i--)
        if (i != winner)
            hp_cudnn_conv_strike(v, i);
    return hp_plan_cache_put(p->cache, key, hp_cudnn_conv_engine(v, 0), best, reterr);
}

static hp_code search(hp_plans *p, const hp_layer *l, const char *key, hp_cudnn_conv *v,
                      hp_error *reterr)
{
    int count = 0;
    hp_code r = hp_cudnn_conv_ask(v, ASKED, &count, reterr);

    if (r == HP_OK && p->bench == NULL)
        r = hp_bench_new(p->g, &p->bench, reterr);
    if (r == HP_OK)
        r = hp_bench_set(p->bench, l, reterr);
    if (r == HP_OK)
        r = weed(p, key, v, &count, reterr);
    return r == HP_OK ? race(p, key, v, count, reterr) : r;
}

static hp_code choose(hp_plans *p, const hp_layer *l, const char *key, hp_cudnn_conv *v,
                      hp_error *reterr)
{
    const hp_engine *known = hp_plan_cache_find(p->cache, key);

    if (known != NULL && hp_cudnn_conv_take(v, known, NULL) == HP_OK)
        return HP_OK;
    hp_plan_cache_drop(p->cache, key);
    return search(p, l, key, v, reterr);
}

hp_code hp_plans_find(hp_plans *p, const hp_layer *l, hp_cudnn_conv **ret,
                      hp_error *reterr)
{
    char key[HP_LAYER_KEY];
    plan *n;
    hp_code r;

    hp_layer_key(l, key);
    for (n = p->first; n != NULL; n = n->next)
        if (strcmp(n->key, key) == 0) {
            *ret = n->conv;
            return HP_OK;
        }
    n = calloc(1, sizeof *n);
    if (n == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "plans");
    strcpy(n->key, key);
    r = hp_cudnn_conv_new(p->c, l, &n->conv, reterr);
    if (r == HP_OK)
        r = choose(p, l, key, n->conv, reterr);
    if (r != HP_OK) {
        hp_cudnn_conv_free(n->conv);
        free(n);
        return r;
    }
    n->next = p->first;
    p->first = n;
    *ret = n->conv;
    return HP_OK;
}
