/* Compiled networks by size and batch: a handful, the least recently used goes first.
 *
 * A network that finds no room on its device, or no way to compute one of its
 * layers there, halves its batches; one item that does not fit moves to the CPU
 * where the device was not asked for by name. Neither is taken back: memory that was
 * short will be again. */
#include "inference/runner.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

enum { SIZES = 4 };

typedef struct compiled {
    int size[3], batch;
    unsigned long used;
    hp_graph *graph;
    hp_backend *b; /* made the exec */
    hp_exec *exec;
} compiled;

struct hp_runner {
    hp_backend *b;
    int batch; /* items a run takes at most */
    bool fp32;
    hp_net_params params;
    hp_weights *weights;
    compiled slot[SIZES];
    unsigned long clock;
    double compile_ms;
};

hp_code hp_runner_new(hp_backend *b, const hp_net_params *p, hp_weights *w,
                      hp_runner **ret, hp_error *reterr)
{
    hp_runner *r = calloc(1, sizeof *r);

    if (r == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "network");
    r->b = b;
    r->batch = b->ops->batch_max;
    r->params = *p;
    r->weights = w;
    *ret = r;
    return HP_OK;
}

void hp_runner_keep_fp32(hp_runner *r)
{
    r->fp32 = true;
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

int hp_runner_batch(const hp_runner *r)
{
    return r->batch;
}

double hp_runner_compile_ms(const hp_runner *r)
{
    return r->compile_ms;
}

static hp_code find(hp_runner *r, const int size[3], int batch, compiled **ret,
                    hp_error *reterr)
{
    compiled *oldest = &r->slot[0];
    double start;
    hp_code c;

    for (int i = 0; i < SIZES; i++) {
        compiled *s = &r->slot[i];

        if (s->exec != NULL && s->batch == batch &&
            memcmp(s->size, size, sizeof s->size) == 0) {
            s->used = ++r->clock;
            *ret = s;
            return HP_OK;
        }
        if (s->used < oldest->used)
            oldest = s;
    }
    drop(oldest);
    start = hp_clock_mono_fine_ms();
    c = hp_net_build(&r->params, r->weights, size, &oldest->graph, reterr);
    if (c == HP_OK) {
        oldest->graph->batch = batch;
        oldest->graph->fp32 = r->fp32;
        c = r->b->ops->compile(r->b, oldest->graph, &oldest->exec, reterr);
    }
    r->compile_ms += hp_clock_mono_fine_ms() - start;
    oldest->b = r->b;
    if (c != HP_OK) {
        drop(oldest);
        return c;
    }
    memcpy(oldest->size, size, sizeof oldest->size);
    oldest->batch = batch;
    oldest->used = ++r->clock;
    *ret = oldest;
    return HP_OK;
}

/* What failed for `batch` items: half of them, and for one the spare device, where
 * there is one. */
static bool settle_for_less(hp_runner *r, int batch, const hp_error *why)
{
    hp_backend *spare = NULL;

    if (why->code == HP_E_NO_MEMORY && r->b->ops->let_go != NULL &&
        r->b->ops->let_go(r->b))
        return true; /* slices took that room; what is cut from them goes up instead */
    if (batch == 1 && hp_backend_spare(r->b, &spare, NULL) != HP_OK)
        return false;
    for (int i = 0; i < SIZES; i++) /* its room may be what is missing */
        drop(&r->slot[i]);
    if (spare == NULL) {
        r->batch = batch / 2;
        if (r->b->batch == 0 || r->batch < r->b->batch)
            r->b->batch = r->batch;
        hp_backend_note(r->b, "network batch=%d error=\"%s\"", r->batch, why->msg);
    } else {
        hp_backend_note(r->b, "network moved to=%s error=\"%s\"", spare->ops->name,
                        why->msg);
        r->b = spare;
        r->batch = spare->ops->batch_max;
    }
    return true;
}

/* Who looks at stages, and which item is the batch's first. */
typedef struct viewer {
    hp_stage_fn *on_stage;
    void *payload;
    int first;
} viewer;

static void see(const hp_graph *g, const hp_stage_name *s, int item, const float *data,
                void *payload)
{
    viewer *v = payload;

    v->on_stage(g, s, v->first + item, data, v->payload);
}

/* Items [v->first, v->first + batch). */
static hp_code run_batch(hp_runner *r, const int size[3], int batch, const hp_ports *p,
                         viewer *v, hp_error *reterr)
{
    compiled *c = NULL;
    hp_ports own;
    hp_code code = find(r, size, batch, &c, reterr);

    if (code != HP_OK)
        return code;
    own = hp_ports_shift(p, c->graph, v->first);
    return c->b->ops->run(c->exec, &own, v->on_stage != NULL ? see : NULL, v, reterr);
}

hp_code hp_runner_run(hp_runner *r, const int size[3], int count, const hp_ports *p,
                      hp_stage_fn *on_stage, void *payload, hp_error *reterr)
{
    viewer v = {on_stage, payload, 0};

    while (v.first < count) {
        hp_error e = HP_ERROR_INIT;
        int batch = count - v.first < r->batch ? count - v.first : r->batch;
        hp_code code = run_batch(r, size, batch, p, &v, &e);

        if (code == HP_OK) {
            v.first += batch;
            continue;
        }
        if ((code == HP_E_NO_MEMORY || code == HP_E_UNSUPPORTED) &&
            settle_for_less(r, batch, &e))
            continue;
        if (reterr != NULL)
            *reterr = e;
        return code;
    }
    return HP_OK;
}
