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

void *hp_exec__at(const hp_exec *e, int value)
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
    return hp_merge_cuda(&m, e->c->type, hp_exec__at(e, op->in[0]),
                         hp_exec__at(e, op->in[1]), hp_exec__at(e, op->out),
                         hp_gpu_stream(e->c->gpu), reterr);
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
    return hp_unfold_cuda(&u, e->c->type, hp_exec__at(e, op->in[0]),
                          hp_exec__at(e, op->in[1]), s->bias, hp_exec__at(e, op->out),
                          hp_gpu_stream(e->c->gpu), reterr);
}

static hp_code queue_encode(hp_exec *e, const hp_op *op, const hp_step *s, bool fused,
                            hp_error *reterr)
{
    hp_encode k = hp_exec__encode(e, op);
    hp_stream stream = hp_gpu_stream(e->c->gpu);
    const void *x = hp_exec__at(e, op->in[0]);

    if (op->kind == HP_OP_ASSIGN)
        return hp_encode_assign_cuda(&k, e->c->type, x, s->weight, s->bias,
                                     hp_exec__at(e, op->out), stream, reterr);
    if (fused)
        return hp_encode_cuda(&k, e->c->type, x, s->weight,
                              e->step[e->g->value[op->in[1]].first].bias,
                              hp_exec__at(e, op->in[2]), hp_exec__at(e, op->out),
                              e->c->workspace.p, stream, reterr);
    return hp_encode_sum_cuda(&k, e->c->type, x, hp_exec__at(e, op->in[1]),
                              hp_exec__at(e, op->in[2]), s->weight,
                              hp_exec__at(e, op->out), stream, reterr);
}

static hp_code queue_norm(hp_exec *e, const hp_op *op, hp_error *reterr)
{
    void *from = hp_exec__at(e, op->in[0]), *to = hp_exec__at(e, op->out);
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
        return hp_cudnn_conv_run(s->conv, 0, hp_exec__at(e, op->in[0]), s->weight,
                                 hp_exec__at(e, op->in[1]), s->bias,
                                 hp_exec__at(e, op->out), e->c->workspace.p, reterr);
    case HP_OP_MERGE:
        return queue_merge(e, op, reterr);
    case HP_OP_UNFOLD:
        return queue_unfold(e, op, s, reterr);
    case HP_OP_MAXPOOL:
        return hp_maxpool_cuda(e->g->batch * x->dim[0],
                               (int[3]){x->dim[1], x->dim[2], hp_layer_padded(x->dim[3])},
                               e->c->type, hp_exec__at(e, op->in[0]),
                               hp_exec__at(e, op->out), hp_gpu_stream(e->c->gpu), reterr);
    case HP_OP_ASSIGN:
    case HP_OP_ENCODE:
        return queue_encode(e, op, s, fused, reterr);
    case HP_OP_L2:
        return fused ? HP_OK : queue_norm(e, op, reterr);
    case HP_OP_FC:
        return hp_fc_cuda(e->g->batch, (int)hp_value_count(x),
                          e->g->value[op->out].dim[3], HP_F32, hp_exec__at(e, op->in[0]),
                          s->weight, s->bias, hp_exec__at(e, op->out),
                          hp_gpu_stream(e->c->gpu), reterr);
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

    return hp_convert_cuda(&k, hp_exec__at(e, value), to, hp_gpu_stream(e->c->gpu),
                           reterr);
}

/* Behind the operation that made `value`: looks at its largest magnitude for each
 * stage of that name, and brings it out if somebody wants it. */
static hp_code queue_after(hp_exec *e, int value, hp_error *reterr)
{
    const hp_graph *g = e->g;
    hp_code r = HP_OK;

    for (int s = 0; s < g->stage_count && r == HP_OK; s++)
        if (g->stage[s].value == value)
            r = hp_actmax_cuda(hp_exec__type(e, value), hp_exec__at(e, value),
                               hp_exec__stored(e, value),
                               (uint32_t *)(e->device + e->words_at) + s,
                               hp_gpu_stream(e->c->gpu), reterr);
    for (int i = 0; i < e->back_count && r == HP_OK && !e->task.decode; i++)
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

/* What crosses goes up, and becomes what the network reads. */
static hp_code queue_inputs(hp_exec *e, hp_error *reterr)
{
    const hp_graph *g = e->g;
    int first = e->task.cut; /* the image comes first */
    size_t from = first < e->in_count ? e->in[first].at : e->in_bytes;
    hp_code r = HP_OK;

    if (from < e->in_bytes)
        r = hp_gpu_upload(e->c->gpu, e->device + from, e->host + from, e->in_bytes - from,
                          reterr);
    for (int i = first; i < e->in_count && r == HP_OK; i++) {
        const hp_value *v = &g->value[e->in[i].value];
        hp_convert k = {.rows = g->batch * hp_exec__rows(v),
                        .from_c = v->dim[3],
                        .to_c = hp_layer_padded(v->dim[3]),
                        .from = HP_F32,
                        .to = e->c->type};

        if (e->is_float[e->in[i].value])
            continue; /* used where it arrived */
        r = hp_convert_cuda(&k, e->device + e->in[i].at, hp_exec__at(e, e->in[i].value),
                            hp_gpu_stream(e->c->gpu), reterr);
    }
    return r;
}

static hp_code queue_decode(hp_exec *e, hp_error *reterr)
{
    const hp_task *t = &e->task;

    return hp_decode_cuda(&t->how, e->c->type, hp_exec__at(e, t->head_value[0]),
                          hp_exec__at(e, t->head_value[1]),
                          hp_exec__at(e, t->head_value[2]),
                          (hp_decoded *)(void *)(e->device + e->decoded_at),
                          e->c->workspace.p, hp_gpu_stream(e->c->gpu), reterr);
}

/* What comes back lies together: the outputs are passed over where they are decoded,
 * and the lists where they are not. */
static hp_code queue_back(hp_exec *e, hp_error *reterr)
{
    size_t from = e->task.decode ? e->words_at : e->in_bytes;
    size_t to = e->task.decode ? e->bytes : e->decoded_at;

    return hp_gpu_download(e->c->gpu, e->host + from, e->device + from, to - from,
                           reterr);
}

/* The whole run on the device, as captured or as queued. */
static hp_code queue_all(hp_exec *e, const viewer *w, hp_error *reterr)
{
    const hp_graph *g = e->g;
    size_t words = (size_t)g->stage_count * sizeof(uint32_t);
    hp_code r = queue_inputs(e, reterr);

    if (r == HP_OK && words > 0)
        r = hp_gpu_fill(e->c->gpu, e->device + e->words_at, 0, words, reterr);
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
    if (r == HP_OK && e->task.decode)
        r = queue_decode(e, reterr);
    return r == HP_OK ? queue_back(e, reterr) : r;
}

static bool same_task(const hp_task *a, const hp_task *b)
{
    return a->cut == b->cut && a->decode == b->decode &&
           (!a->decode || (a->how.k == b->how.k && a->how.min == b->how.min));
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
    if (e->graph != NULL && !same_task(&e->task, &e->graph_task)) {
        hp_gpu_graph_free(e->graph);
        e->graph = NULL;
    }
    if (e->graph == NULL) {
        r = hp_gpu_capture_begin(c->gpu, &why);
        if (r == HP_OK) {
            r = queue_all(e, &nobody, &why);
            r = hp_gpu_capture_end(c->gpu, r != HP_OK, &e->graph,
                                   r == HP_OK ? &why : NULL);
        }
        e->graph_task = e->task;
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

/* The inputs into the exchange, or the image past it. */
static hp_code take_inputs(hp_exec *e, const hp_ports *p, hp_error *reterr)
{
    e->task.cut = false;
    for (int i = 0; i < e->in_count; i++) {
        int v = e->in[i].value, port = e->g->value[v].input;

        if (port > 0 || p->slices == NULL)
            memcpy(e->host + e->in[i].at, p->in[port], hp_exec__crossing_bytes(e, v));
    }
    return p->slices != NULL ? hp_exec__image(e, p->slices, &e->task.cut, reterr) : HP_OK;
}

/* Work of this run besides the network. */
static void settle_task(hp_exec *e, const hp_ports *p)
{
    hp_task *t = &e->task;

    t->decode = p->decoded != NULL;
    if (!t->decode)
        return;
    t->how = hp_ports_decode(p, e->g, t->head_value);
    t->how.hm_c = hp_exec__channels(e, t->head_value[0]);
    t->how.size_c = hp_exec__channels(e, t->head_value[1]);
    t->how.off_c = hp_exec__channels(e, t->head_value[2]);
}

static hp_code ensure_rooms(hp_exec *e, hp_error *reterr)
{
    size_t workspace = e->workspace_bytes;
    hp_code r = hp_cuda__ensure(e->c, &e->c->arena, e->arena_bytes, reterr);

    if (e->task.decode && hp_decode_workspace(&e->task.how) > workspace)
        workspace = hp_decode_workspace(&e->task.how);
    return r == HP_OK ? hp_cuda__ensure(e->c, &e->c->workspace, workspace, reterr) : r;
}

hp_code hp_exec__run(hp_exec *e, const hp_ports *p, hp_stage_fn *on_stage, void *payload,
                     hp_error *reterr)
{
    const hp_graph *g = e->g;
    const viewer w = {on_stage, payload};
    bool done = false;
    hp_code r = hp_ports_check(p, g, reterr);

    if (r != HP_OK)
        return r;
    settle_task(e, p);
    r = ensure_rooms(e, reterr); /* another network without room may have let go */
    if (r == HP_OK)
        r = take_inputs(e, p, reterr);
    if (r == HP_OK && on_stage == NULL)
        r = replay(e, &done, reterr);
    if (r == HP_OK && !done)
        r = queue_all(e, &w, reterr);
    if (r == HP_OK)
        r = hp_gpu_wait(e->c->gpu, reterr);
    if (r == HP_OK)
        r = check_words(e, reterr);
    if (r == HP_OK && p->decoded != NULL) {
        memcpy(p->decoded, e->host + e->decoded_at,
               (size_t)g->batch * sizeof(hp_decoded));
        return hp_ports_look(p, g, reterr);
    }
    for (int item = 0; item < g->batch && r == HP_OK; item++)
        hp_graph_copy_out(g, item, back_floats, e, p->out);
    return r;
}
