/* Compiled networks by size: a handful, the least recently used goes first. */
#include "inference/runner.h"

#include <stdlib.h>
#include <string.h>

enum { SIZES = 4 };

typedef struct compiled {
    int size[3];
    unsigned long used;
    hp_graph *graph;
    hp_exec *exec;
} compiled;

struct hp_runner {
    hp_backend *b;
    hp_net_params params;
    hp_weights *weights;
    compiled slot[SIZES];
    unsigned long clock;
};

hp_code hp_runner_new(hp_backend *b, const hp_net_params *p, hp_weights *w,
                      hp_runner **ret, hp_error *reterr)
{
    hp_runner *r = calloc(1, sizeof *r);

    if (r == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "network");
    r->b = b;
    r->params = *p;
    r->weights = w;
    *ret = r;
    return HP_OK;
}

static void drop(hp_runner *r, compiled *c)
{
    if (c->exec != NULL)
        r->b->ops->release(c->exec);
    hp_graph_free(c->graph);
    *c = (compiled){0};
}

void hp_runner_free(hp_runner *r)
{
    if (r == NULL)
        return;
    for (int i = 0; i < SIZES; i++)
        drop(r, &r->slot[i]);
    free(r);
}

static hp_code find(hp_runner *r, const int size[3], compiled **ret, hp_error *reterr)
{
    compiled *oldest = &r->slot[0];
    hp_code c;

    for (int i = 0; i < SIZES; i++) {
        compiled *s = &r->slot[i];

        if (s->exec != NULL && memcmp(s->size, size, sizeof s->size) == 0) {
            s->used = ++r->clock;
            *ret = s;
            return HP_OK;
        }
        if (s->used < oldest->used)
            oldest = s;
    }
    drop(r, oldest);
    c = hp_net_build(&r->params, r->weights, size, &oldest->graph, reterr);
    if (c == HP_OK)
        c = r->b->ops->compile(r->b, oldest->graph, &oldest->exec, reterr);
    if (c != HP_OK) {
        drop(r, oldest);
        return c;
    }
    memcpy(oldest->size, size, sizeof oldest->size);
    oldest->used = ++r->clock;
    *ret = oldest;
    return HP_OK;
}

hp_code hp_runner_run(hp_runner *r, const int size[3], const float *const *in,
                      float *const *out, hp_stage_fn *on_stage, void *payload,
                      hp_error *reterr)
{
    compiled *c = NULL;
    hp_code code = find(r, size, &c, reterr);

    if (code != HP_OK)
        return code;
    return r->b->ops->run(c->exec, in, out, on_stage, payload, reterr);
}
