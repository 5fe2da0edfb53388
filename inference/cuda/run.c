/* A run: its operations put on the stream, or the whole of them replayed. */
#include <stdlib.h>
#include <string.h>

#include "inference/cuda/exec_internal.h"
#include "kernels/actmax.h"
#include "kernels/convert.h"
#include "kernels/fc.h"
#include "kernels/maxpool.h"
#include "kernels/merge.h"
#include "kernels/unfold.h"

/* --- one operation ----------------------------------------------------- */

static void *at(const hp_exec *e, int value)
{
    if (value < 0)
        return NULL;
    if (e->is_float[value] && e->g->value[value].input >= 0)
        return e->device + e->offset[value];
    return (char *)e->c->arena.p + e->offset[value];
}

static hp_code queue_merge(hp_exec *e, const hp_op *op, hp_error *reterr)
{
    const hp_value *y = &e->g->value[op->out], *low = &e->g->value[op->in[1]];
    hp_merge m = {.batch = e->g->batch};

    for (int a = 0; a < 3; a++) {
        m.n[a] = y->dim[a];
        m.low[a] = low->dim[a];
        m.stride[a] = op->stride[a];
    }
    m.n[3] = hp_layer_padded(y->dim[3]);
    return hp_merge_cuda(&m, e->c->type, at(e, op->in[0]), at(e, op->in[1]),
                         at(e, op->out), hp_gpu_stream(e->c->gpu), reterr);
}

static hp_code queue_unfold(hp_exec *e, const hp_op *op, const hp_step *s,
                            hp_error *reterr)
{
    const hp_value *y = &e->g->value[op->out], *low = &e->g->value[op->in[1]];
    hp_unfold u = {.batch = e->g->batch, .relu = op->relu};

    for (int a = 0; a < 3; a++) {
        u.n[a] = y->dim[a];
        u.low[a] = low->dim[a];
        u.stride[a] = op->stride[a];
    }
    u.skip_c = e->g->value[op->in[0]].dim[3];
    u.up_c = y->dim[3] - u.skip_c;
    return hp_unfold_cuda(&u, e->c->type, at(e, op->in[0]), at(e, op->in[1]), s->bias,
                          at(e, op->out), hp_gpu_stream(e->c->gpu), reterr);
}

static hp_code queue_encode(hp_exec *e, const hp_op *op, const hp_step *s, bool fused,
                            hp_error *reterr)
{
    hp_encode k = hp_exec__encode(e, op);
    hp_stream stream = hp_gpu_stream(e->c->gpu);
    const void *x = at(e, op->in[0]);

    if (op->kind == HP_OP_ASSIGN)
        return hp_encode_assign_cuda(&k, e->c->type, x, s->weight, s->bias,
                                     at(e, op->out), stream, reterr);
    if (fused)
        return hp_encode_cuda(
            &k, e->c->type, x, s->weight, e->step[e->g->value[op->in[1]].first].bias,
            at(e, op->in[2]), at(e, op->out), e->c->workspace.p, stream, reterr);
    return hp_encode_sum_cuda(&k, e->c->type, x, at(e, op->in[1]), at(e, op->in[2]),
                              s->weight, at(e, op->out), stream, reterr);
}

static hp_code queue_norm(hp_exec *e, const hp_op *op, hp_error *reterr)
{
    void *from = at(e, op->in[0]), *to = at(e, op->out);
    hp_code r = HP_OK;

    if (from != to)
        r = hp_gpu_copy(e->c->gpu, to, from, hp_exec__stored(e, op->out) * sizeof(float),
                        reterr);
    return r == HP_OK ? hp_l2_norm_cuda(to, e->g->batch, e->g->value[op->out].dim[3],
                                        hp_gpu_stream(e->c->gpu), reterr)
                      : r;
}

/* fused: the steps of a fused encoding are one. */
static hp_code queue_op(hp_exec *e, int i, bool fused, hp_error *reterr)
{
    const hp_op *op = &e->g->op[i];
    const hp_step *s = &e->step[i];
    const hp_value *x = &e->g->value[op->in[0]];

    switch (op->kind) {
    case HP_OP_CONV:
        return hp_cudnn_conv_run(s->conv, 0, at(e, op->in[0]), s->weight,
                                 at(e, op->in[1]), s->bias, at(e, op->out),
                                 e->c->workspace.p, reterr);
    case HP_OP_MERGE:
        return queue_merge(e, op, reterr);
    case HP_OP_UNFOLD:
        return queue_unfold(e, op, s, reterr);
    case HP_OP_MAXPOOL:
        return hp_maxpool_cuda(e->g->batch * x->dim[0],
                               (int[3]){x->dim[1], x->dim[2], hp_layer_padded(x->dim[3])},
                               e->c->type, at(e, op->in[0]), at(e, op->out),
                               hp_gpu_stream(e->c->gpu), reterr);
    case HP_OP_ASSIGN:
    case HP_OP_ENCODE:
        return queue_encode(e, op, s, fused, reterr);
    case HP_OP_L2:
        return fused ? HP_OK : queue_norm(e, op, reterr);
    case HP_OP_FC:
        return hp_fc_cuda(e->g->batch, (int)hp_value_count(x),
                          e->g->value[op->out].dim[3], HP_F32, at(e, op->in[0]),
                          s->weight, s->bias, at(e, op->out), hp_gpu_stream(e->c->gpu),
                          reterr);
    }
    return hp_fail(reterr, HP_E_INTERNAL, "operation %d", (int)op->kind);
}

/* A value's floats without padding, from the arena to device memory at `to`. */
static hp_code queue_floats(hp_exec *e, int value, void *to, hp_error *reterr)
{
    const hp_value *v = &e->g->value[value];
    hp_convert k = {.rows = e->g->batch * hp_exec__rows(v),
                    .from_c = hp_exec__channels(e, value),
                    .to_c = v->dim[3],
                    .from = hp_exec__type(e, value),
                    .to = HP_F32};

    return hp_convert_cuda(&k, at(e, value), to, hp_gpu_stream(e->c->gpu), reterr);
}

/* Behind the operation that made `value`: looks at its largest magnitude for each
 * stage of that name, and brings it out if somebody wants it. */
static hp_code queue_after(hp_exec *e, int value, hp_error *reterr)
{
    const hp_graph *g = e->g;
    hp_code r = HP_OK;

    for (int s = 0; s < g->stage_count && r == HP_OK; s++)
        if (g->stage[s].value == value)
            r = hp_actmax_cuda(hp_exec__type(e, value), at(e, value),
                               hp_exec__stored(e, value),
                               (uint32_t *)(e->device + e->words_at) + s,
                               hp_gpu_stream(e->c->gpu), reterr);
    for (int i = 0; i < e->back_count && r == HP_OK; i++)
        if (e->back[i].value == value)
            r = queue_floats(e, value, e->device + e->back[i].at, reterr);
    return r;
}

/* --- a run ------------------------------------------------------------- */

typedef struct viewer {
    hp_stage_fn *on_stage; /* NULL: nobody looks */
    void *payload;
} viewer;

static bool finite_floats(const float *data, size_t n)
{
    return hp_actmax_is_finite(hp_actmax_ref(data, n));
}

static hp_code not_finite(const hp_graph *g, int s, hp_error *reterr)
{
    return hp_fail(reterr, HP_E_NUMERIC, "stage %s: a value is not finite",
                   g->stage[s].name);
}

/* Stops at a stage, brings it to the host and shows it. */
static hp_code show(hp_exec *e, int value, const viewer *w, hp_error *reterr)
{
    const hp_graph *g = e->g;
    size_t n = hp_value_count(&g->value[value]),
           bytes = hp_exec__crossing_bytes(e, value);
    float *host = NULL;
    hp_code r = HP_OK;

    for (int s = 0; s < g->stage_count && r == HP_OK; s++) {
        if (g->stage[s].value != value)
            continue;
        if (host == NULL) {
            host = malloc(bytes);
            if (host == NULL)
                return hp_fail(reterr, HP_E_NO_MEMORY, "a stage's values");
            r = hp_cuda__ensure(e->c, &e->c->look, bytes, reterr);
            if (r == HP_OK)
                r = queue_floats(e, value, e->c->look.p, reterr);
            if (r == HP_OK)
                r = hp_gpu_download(e->c->gpu, host, e->c->look.p, bytes, reterr);
            if (r == HP_OK)
                r = hp_gpu_wait(e->c->gpu, reterr);
        }
        if (r == HP_OK && !finite_floats(host, bytes / sizeof(float)))
            r = not_finite(g, s, reterr);
        for (int k = 0; k < g->batch && r == HP_OK; k++)
            w->on_stage(g, &g->stage[s], k, host + (size_t)k * n, w->payload);
    }
    free(host);
    return r;
}

/* The whole run on the device, as captured or as queued. */
static hp_code queue_all(hp_exec *e, const viewer *w, hp_error *reterr)
{
    const hp_graph *g = e->g;
    hp_gpu *gpu = e->c->gpu;
    size_t words = (size_t)g->stage_count * sizeof(uint32_t);
    hp_code r = hp_gpu_upload(gpu, e->device, e->host, e->in_bytes, reterr);

    if (r == HP_OK && words > 0)
        r = hp_gpu_fill(gpu, e->device + e->words_at, 0, words, reterr);
    for (int i = 0; i < e->in_count && r == HP_OK; i++) {
        const hp_value *v = &g->value[e->in[i].value];
        hp_convert k = {.rows = g->batch * hp_exec__rows(v),
                        .from_c = v->dim[3],
                        .to_c = hp_layer_padded(v->dim[3]),
                        .from = HP_F32,
                        .to = e->c->type};

        if (e->is_float[e->in[i].value])
            continue; /* used where it arrived */
        r = hp_convert_cuda(&k, e->device + e->in[i].at, at(e, e->in[i].value),
                            hp_gpu_stream(gpu), reterr);
    }
    for (int i = 0; i < g->op_count && r == HP_OK; i++) {
        bool fused = e->step[i].fused && w->on_stage == NULL;

        if (fused && g->op[i].kind == HP_OP_ASSIGN)
            continue; /* never written */
        r = queue_op(e, i, fused, reterr);
        if (r == HP_OK)
            r = queue_after(e, g->op[i].out, reterr);
        if (r == HP_OK && w->on_stage != NULL)
            r = show(e, g->op[i].out, w, reterr);
    }
    if (r == HP_OK)
        r = hp_gpu_download(gpu, e->host + e->in_bytes, e->device + e->in_bytes,
                            e->bytes - e->in_bytes, reterr);
    return r;
}

/* The first run goes direct: plans set themselves up at their first use, which a
 * capture does not allow. The second is captured. */
static hp_code replay(hp_exec *e, bool *ret_done, hp_error *reterr)
{
    hp_cuda *c = e->c;
    const viewer nobody = {NULL, NULL};
    hp_error why = HP_ERROR_INIT;
    bool first = e->arena_age != c->arena.age || e->workspace_age != c->workspace.age;
    hp_code r;

    *ret_done = false;
    if (first) {
        hp_gpu_graph_free(e->graph);
        e->graph = NULL;
        e->arena_age = c->arena.age;
        e->workspace_age = c->workspace.age;
    }
    if (first || e->never_capture)
        return HP_OK;
    if (e->graph == NULL) {
        r = hp_gpu_capture_begin(c->gpu, &why);
        if (r == HP_OK) {
            r = queue_all(e, &nobody, &why);
            r = hp_gpu_capture_end(c->gpu, r != HP_OK, &e->graph,
                                   r == HP_OK ? &why : NULL);
        }
        if (r != HP_OK) {
            hp_backend_note(&c->base, "network not captured error=\"%s\"", why.msg);
            e->never_capture = true;
            return HP_OK;
        }
    }
    *ret_done = true;
    return hp_gpu_replay(c->gpu, e->graph, reterr);
}

/* In the order in which they were made, so the first one named is the cause. */
static hp_code check_words(const hp_exec *e, hp_error *reterr)
{
    const hp_graph *g = e->g;
    const uint32_t *word = (const uint32_t *)(const void *)(e->host + e->words_at);
    int worst = -1;

    for (int s = 0; s < g->stage_count; s++)
        if (!hp_actmax_is_finite(word[s]) &&
            (worst < 0 ||
             g->value[g->stage[s].value].first < g->value[g->stage[worst].value].first))
            worst = s;
    return worst < 0 ? HP_OK : not_finite(g, worst, reterr);
}

static const float *back_floats(int value, int item, void *payload)
{
    const hp_exec *e = payload;
    int i = 0;

    while (e->back[i].value != value)
        i++;
    return (const float *)(const void *)(e->host + e->back[i].at) +
           (size_t)item * hp_value_count(&e->g->value[value]);
}

hp_code hp_exec__run(hp_exec *e, const float *const *in, float *const *out,
                     hp_stage_fn *on_stage, void *payload, hp_error *reterr)
{
    const hp_graph *g = e->g;
    const viewer w = {on_stage, payload};
    bool done = false;
    hp_code r;

    for (int i = 0; i < e->in_count; i++) {
        int v = e->in[i].value;

        memcpy(e->host + e->in[i].at, in[g->value[v].input],
               hp_exec__crossing_bytes(e, v));
    }
    /* another network that found no room may have let go of it */
    r = hp_cuda__ensure(e->c, &e->c->arena, e->arena_bytes, reterr);
    if (r == HP_OK)
        r = hp_cuda__ensure(e->c, &e->c->workspace, e->workspace_bytes, reterr);
    if (r == HP_OK && on_stage == NULL)
        r = replay(e, &done, reterr);
    if (r == HP_OK && !done)
        r = queue_all(e, &w, reterr);
    if (r == HP_OK)
        r = hp_gpu_wait(e->c->gpu, reterr);
    if (r == HP_OK)
        r = check_words(e, reterr);
    for (int item = 0; item < g->batch && r == HP_OK; item++)
        hp_graph_copy_out(g, item, back_floats, e, out);
    return r;
}
