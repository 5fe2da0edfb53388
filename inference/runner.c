/* Compiled networks by size: a handful, the least recently used goes first.
 *
 * A network that finds no room on its device, or no way to compute one of its
 * layers there, moves to the CPU where the device was not asked for by name, and
 * stays there: memory that was short will be again. */
#include "inference/runner.h"

#include <stdlib.h>
#include <string.h>

enum { SIZES = 4 };

typedef struct compiled {
    int size[3];
    unsigned long used;
    hp_graph *graph;
    hp_backend *b; /* made the exec */
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

static void drop(compiled *c)
{
    if (c->exec != NULL)
        c->b->ops->release(c->exec);
    hp_graph_free(c->graph);
    *c = (compiled){0};
}

void hp_runner_free(hp_runner *r)
{
    if (r == NULL)
        return;
    for (int i = 0; i < SIZES; i++)
        drop(&r->slot[i]);
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
    drop(oldest);
    c = hp_net_build(&r->params, r->weights, size, &oldest->graph, reterr);
    if (c == HP_OK)
        c = r->b->ops->compile(r->b, oldest->graph, &oldest->exec, reterr);
    oldest->b = r->b;
    if (c != HP_OK) {
        drop(oldest);
        return c;
    }
    memcpy(oldest->size, size, sizeof oldest->size);
    oldest->used = ++r->clock;
    *ret = oldest;
    return HP_OK;
}

/* Moves to the spare device, where there is one. */
static bool move(hp_runner *r, const hp_error *why)
{
    hp_backend *spare = NULL;

    if (hp_backend_spare(r->b, &spare, NULL) != HP_OK)
        return false;
    hp_backend_note(r->b, "network moved to=%s error=\"%s\"", spare->ops->name, why->msg);
    for (int i = 0; i < SIZES; i++)
        drop(&r->slot[i]);
    r->b = spare;
    return true;
}

hp_code hp_runner_run(hp_runner *r, const int size[3], const float *const *in,
                      float *const *out, hp_stage_fn *on_stage, void *payload,
                      hp_error *reterr)
{
    for (;;) {
        compiled *c = NULL;
        hp_error e = HP_ERROR_INIT;
        hp_code code = find(r, size, &c, &e);

        if (code == HP_OK)
            code = c->b->ops->run(c->exec, in, out, on_stage, payload, &e);
        if ((code == HP_E_NO_MEMORY || code == HP_E_UNSUPPORTED) && move(r, &e))
            continue;
        if (code != HP_OK && reterr != NULL)
            *reterr = e;
        return code;
    }
}
