/* The CUDA back end: a graph's operations on one stream.
 *
 * DESIGN: activations are NDHWC in halves, channels padded to eight (layer.h), in
 * one arena by lifetime that all networks share, because they run one after
 * another. A network's whole run is captured once, from the upload of its inputs
 * to the download of its outputs, and replayed; where work cannot be captured, or
 * somebody wants to see each stage, it is queued directly by the same code. A
 * maximum over the bits of each named stage runs along, so that a value that is
 * not finite is found where it was made, without waiting for it.
 *
 * What follows the last convolution of a texture network is small and runs on the
 * host, by the twins that define it.
 */
#include "inference/cuda/backend_cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inference/cuda/plans.h"
#include "kernels/actmax.h"
#include "kernels/convert.h"
#include "kernels/encode.h"
#include "kernels/fc.h"
#include "kernels/maxpool.h"
#include "kernels/merge.h"
#include "kernels/unfold.h"

enum { ALIGN = 256 };

/* Weights that went up, by where they came from. */
typedef struct uploaded {
    const float *source;
    void *device;
    struct uploaded *next;
} uploaded;

/* Grow-only device memory; `age` changes when it moves, and captured work that
 * knew the old place is void. */
typedef struct room {
    void *p;
    size_t bytes;
    unsigned age;
} room;

typedef struct cuda {
    hp_backend base;
    hp_gpu *gpu;
    hp_cudnn *cudnn;
    hp_plan_cache *cache;
    hp_plans *plans;
    hp_dtype type;
    uploaded *weights;
    room arena, workspace, look;
    char words[120];
} cuda;

typedef struct step {
    hp_cudnn_conv *conv; /* borrowed from the plans */
    const void *weight, *bias;
} step;

/* A value that crosses: floats at `at` bytes of the exchange. */
typedef struct crossing {
    int value;
    size_t at;
} crossing;

struct hp_exec {
    cuda *c;
    const hp_graph *g;
    step *step;     /* one per operation */
    size_t *offset; /* bytes into the arena, one per value */
    size_t arena_bytes, workspace_bytes;
    /* exchange: inputs, then what comes back, then a word per stage */
    crossing *in, *back;
    int in_count, back_count;
    size_t in_bytes, words_at, bytes;
    char *device, *host; /* the exchange on both sides */
    float **floats;      /* per value, on the host: in the exchange, or own */
    float **own;         /* those that host operations make */
    hp_gpu_graph *graph; /* captured; NULL: not yet */
    bool never_capture;
    unsigned arena_age, workspace_age;
};

/* --- opening ----------------------------------------------------------- */

static void cuda_close(hp_backend *b)
{
    cuda *c = (cuda *)b;

    if (c == NULL)
        return;
    while (c->weights != NULL) {
        uploaded *u = c->weights;

        c->weights = u->next;
        hp_gpu_free(c->gpu, u->device);
        free(u);
    }
    if (c->gpu != NULL) {
        hp_gpu_free(c->gpu, c->arena.p);
        hp_gpu_free(c->gpu, c->workspace.p);
        hp_gpu_free(c->gpu, c->look.p);
    }
    hp_plans_free(c->plans);
    hp_plan_cache_free(c->cache);
    hp_cudnn_close(c->cudnn);
    hp_gpu_close(c->gpu);
    free(c);
}

/* Everything that a plan depends on besides its layer. */
static hp_code open_cache(cuda *c, const hp_backend_options *opt, hp_error *reterr)
{
    char device[160];

    snprintf(device, sizeof device, "%s, SM %d.%d, driver %d, cuDNN %zu",
             hp_gpu_name(c->gpu), hp_gpu_sm(c->gpu) / 10, hp_gpu_sm(c->gpu) % 10,
             hp_gpu_driver(c->gpu), hp_cudnn_version());
    return hp_plan_cache_open(opt->plan_cache, device, &c->cache, reterr);
}

static hp_code cuda_open(const hp_backend_options *opt, hp_backend **ret,
                         hp_error *reterr)
{
    cuda *c = calloc(1, sizeof *c);
    size_t v = hp_cudnn_version();
    hp_code r = HP_OK;

    if (c == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "CUDA back end");
    c->base.ops = &hp_backend_cuda;
    c->type = hp_layer_type_of(opt->precision);
    if (c->type == HP_F32)
        r = hp_fail(reterr, HP_E_INVALID, "precision %.20s: fp16 or bf16",
                    opt->precision);
    if (r == HP_OK)
        r = hp_gpu_open(&c->gpu, reterr);
    if (r == HP_OK)
        r = hp_cudnn_open(hp_gpu_stream(c->gpu), &c->cudnn, reterr);
    if (r == HP_OK)
        r = open_cache(c, opt, reterr);
    if (r == HP_OK)
        r = hp_plans_new(c->gpu, c->cudnn, c->cache, opt->on_note, opt->payload,
                         &c->plans, reterr);
    if (r != HP_OK) {
        cuda_close(&c->base);
        return r;
    }
    snprintf(c->words, sizeof c->words, "cuda: %.40s, cuDNN %zu.%zu.%zu, %s",
             hp_gpu_name(c->gpu), v / 10000, v / 100 % 100, v % 100,
             hp_layer_type_name(c->type));
    *ret = &c->base;
    return HP_OK;
}

static const char *cuda_describe(const hp_backend *b)
{
    return ((const cuda *)b)->words;
}

static hp_code ensure(cuda *c, room *m, size_t want, hp_error *reterr)
{
    hp_code r;

    if (want <= m->bytes)
        return HP_OK;
    hp_gpu_free(c->gpu, m->p);
    *m = (room){.age = m->age + 1};
    r = hp_gpu_alloc(c->gpu, want, &m->p, reterr);
    if (r == HP_OK)
        m->bytes = want;
    return r;
}

/* --- weights ----------------------------------------------------------- */

static hp_code send(cuda *c, const float *source, const void *data, size_t bytes,
                    const void **ret, hp_error *reterr)
{
    uploaded *u = calloc(1, sizeof *u);
    hp_code r;

    if (u == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "weights");
    r = hp_gpu_alloc(c->gpu, bytes, &u->device, reterr);
    if (r == HP_OK)
        r = hp_gpu_upload(c->gpu, u->device, data, bytes, reterr);
    if (r == HP_OK)
        r = hp_gpu_wait(c->gpu, reterr); /* `data` is the caller's again */
    if (r != HP_OK) {
        hp_gpu_free(c->gpu, u->device);
        free(u);
        return r;
    }
    u->source = source;
    u->next = c->weights;
    c->weights = u;
    *ret = u->device;
    return HP_OK;
}

static const void *sent(const cuda *c, const float *source)
{
    for (const uploaded *u = c->weights; u != NULL; u = u->next)
        if (u->source == source)
            return u->device;
    return NULL;
}

static hp_code send_conv(cuda *c, const hp_graph *g, const hp_op *op, const hp_layer *l,
                         step *s, hp_error *reterr)
{
    int cin = g->value[op->in[0]].dim[3], cout = g->value[op->out].dim[3];
    size_t count = hp_layer_w_count(l);
    uint16_t *half;
    hp_code r = HP_OK;

    s->weight = sent(c, op->weight);
    s->bias = op->bias != NULL ? sent(c, op->bias) : NULL;
    if (s->weight != NULL && (op->bias == NULL || s->bias != NULL))
        return HP_OK;
    half = malloc((count > (size_t)l->cout ? count : (size_t)l->cout) * sizeof *half);
    if (half == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "weights");
    if (s->weight == NULL) {
        hp_layer_pack_weights(l, op->weight, cout, cin, half);
        r = send(c, op->weight, half, count * sizeof *half, &s->weight, reterr);
    }
    if (r == HP_OK && op->bias != NULL && s->bias == NULL) {
        for (int k = 0; k < l->cout; k++)
            half[k] = k < cout ? hp_layer_half(l->type, op->bias[k]) : 0;
        r = send(c, op->bias, half, (size_t)l->cout * sizeof *half, &s->bias, reterr);
    }
    free(half);
    return r;
}

/* --- compiling --------------------------------------------------------- */

static bool on_host(const hp_op *op)
{
    return op->kind == HP_OP_ASSIGN || op->kind == HP_OP_ENCODE || op->kind == HP_OP_L2 ||
           op->kind == HP_OP_FC;
}

static size_t rows(const hp_value *v)
{
    return (size_t)v->dim[0] * v->dim[1] * v->dim[2];
}

/* Values in the arena: how many halves. */
static size_t stored(const hp_value *v)
{
    return rows(v) * (size_t)hp_layer_padded(v->dim[3]);
}

/* Who makes value v, or NULL for an input. */
static const hp_op *maker(const hp_graph *g, int v)
{
    return g->value[v].input >= 0 ? NULL : &g->op[g->value[v].first];
}

static bool used_on_device(const hp_graph *g, int v)
{
    for (int i = 0; i < g->op_count; i++)
        for (int k = 0; k < 3; k++)
            if (g->op[i].in[k] == v && !on_host(&g->op[i]))
                return true;
    return false;
}

static bool wanted_on_host(const hp_graph *g, int v)
{
    for (int s = 0; s < g->stage_count; s++)
        if (g->stage[s].output && g->stage[s].value == v)
            return true;
    for (int i = 0; i < g->op_count; i++)
        for (int k = 0; k < 3; k++)
            if (g->op[i].in[k] == v && on_host(&g->op[i]))
                return true;
    return false;
}

static hp_code check_op(const hp_graph *g, const hp_op *op, hp_error *reterr)
{
    const hp_value *low = op->in[1] >= 0 ? &g->value[op->in[1]] : NULL;

    if (on_host(op))
        return HP_OK;
    for (int k = 0; k < 3; k++) {
        const hp_op *from = op->in[k] >= 0 ? maker(g, op->in[k]) : NULL;

        if (from != NULL && on_host(from))
            return hp_fail(reterr, HP_E_UNSUPPORTED,
                           "a convolution behind the texture encoding");
    }
    /* It writes channels side by side, so there padding would come between. */
    if (op->kind == HP_OP_UNFOLD && (low->dim[3] % HP_LAYER_PAD != 0 ||
                                     g->value[op->in[0]].dim[3] % HP_LAYER_PAD != 0 ||
                                     g->value[op->out].dim[3] % HP_LAYER_PAD != 0))
        return hp_fail(reterr, HP_E_UNSUPPORTED,
                       "a U-Net's widths are multiples of %d on a GPU, not %d",
                       HP_LAYER_PAD, g->value[op->in[0]].dim[3]);
    return HP_OK;
}

static hp_code compile_op(hp_exec *e, int i, hp_error *reterr)
{
    const hp_op *op = &e->g->op[i];
    step *s = &e->step[i];
    hp_layer l;
    hp_code r = check_op(e->g, op, reterr);

    if (r == HP_OK && op->kind == HP_OP_UNFOLD) {
        int up = e->g->value[op->out].dim[3] - e->g->value[op->in[0]].dim[3];

        s->bias = sent(e->c, op->bias);
        if (s->bias == NULL)
            r = send(e->c, op->bias, op->bias, (size_t)up * sizeof(float), &s->bias,
                     reterr);
    }
    if (r != HP_OK || op->kind != HP_OP_CONV)
        return r;
    l = hp_layer_of_op(e->g, op, e->c->type);
    r = hp_plans_find(e->c->plans, &l, &s->conv, reterr);
    if (r == HP_OK && hp_cudnn_conv_workspace(s->conv, 0) > e->workspace_bytes)
        e->workspace_bytes = hp_cudnn_conv_workspace(s->conv, 0);
    return r == HP_OK ? send_conv(e->c, e->g, op, &l, s, reterr) : r;
}

static size_t aligned(size_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static hp_code lay_out(hp_exec *e, hp_error *reterr)
{
    const hp_graph *g = e->g;
    size_t *size = calloc((size_t)g->value_count + 1, sizeof *size);
    hp_code r;

    if (size == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "compiling a network");
    for (int v = 0; v < g->value_count; v++) {
        const hp_op *from = maker(g, v);

        if (from != NULL ? !on_host(from) : used_on_device(g, v))
            size[v] = aligned(stored(&g->value[v]) * 2);
    }
    r = hp_graph_lay_out(g, size, e->offset, &e->arena_bytes, reterr);
    free(size);
    return r;
}

/* What crosses, and where it lies in the exchange. */
static void plan_exchange(hp_exec *e)
{
    const hp_graph *g = e->g;

    for (int back = 0; back < 2; back++) {
        for (int v = 0; v < g->value_count; v++) {
            const hp_op *from = maker(g, v);
            size_t bytes = aligned(hp_value_count(&g->value[v]) * sizeof(float));

            if (back == 0 && from == NULL && used_on_device(g, v))
                e->in[e->in_count++] = (crossing){v, e->bytes};
            else if (back == 1 && from != NULL && !on_host(from) && wanted_on_host(g, v))
                e->back[e->back_count++] = (crossing){v, e->bytes};
            else
                continue;
            e->bytes += bytes;
        }
        if (back == 0)
            e->in_bytes = e->bytes;
    }
    e->words_at = e->bytes;
    e->bytes += aligned((size_t)g->stage_count * sizeof(uint32_t) + 1);
}

static hp_code make_exchange(hp_exec *e, hp_error *reterr)
{
    const hp_graph *g = e->g;
    hp_code r;

    plan_exchange(e);
    r = hp_gpu_alloc(e->c->gpu, e->bytes, (void **)&e->device, reterr);
    if (r == HP_OK)
        r = hp_gpu_host_alloc(e->c->gpu, e->bytes, (void **)&e->host, reterr);
    if (r != HP_OK)
        return r;
    for (int i = 0; i < e->back_count; i++)
        e->floats[e->back[i].value] = (float *)(e->host + e->back[i].at);
    for (int i = 0; i < g->op_count; i++) {
        int v = g->op[i].out;

        if (!on_host(&g->op[i]))
            continue;
        e->own[v] = malloc(hp_value_count(&g->value[v]) * sizeof(float));
        if (e->own[v] == NULL)
            return hp_fail(reterr, HP_E_NO_MEMORY, "compiling a network");
        e->floats[v] = e->own[v];
    }
    return HP_OK;
}

static void cuda_release(hp_exec *e)
{
    if (e == NULL)
        return;
    hp_gpu_graph_free(e->graph);
    hp_gpu_free(e->c->gpu, e->device);
    hp_gpu_host_free(e->c->gpu, e->host);
    for (int v = 0; v < e->g->value_count && e->own != NULL; v++)
        free(e->own[v]);
    free(e->own);
    free(e->floats);
    free(e->in);
    free(e->back);
    free(e->offset);
    free(e->step);
    free(e);
}

static hp_exec *new_exec(cuda *c, const hp_graph *g)
{
    size_t values = (size_t)g->value_count + 1;
    hp_exec *e = calloc(1, sizeof *e);

    if (e == NULL)
        return NULL;
    e->c = c;
    e->g = g;
    e->step = calloc((size_t)g->op_count + 1, sizeof *e->step);
    e->offset = calloc(values, sizeof *e->offset);
    e->in = calloc(values, sizeof *e->in);
    e->back = calloc(values, sizeof *e->back);
    e->floats = calloc(values, sizeof *e->floats);
    e->own = calloc(values, sizeof *e->own);
    if (e->step != NULL && e->offset != NULL && e->in != NULL && e->back != NULL &&
        e->floats != NULL && e->own != NULL)
        return e;
    cuda_release(e);
    return NULL;
}

static hp_code cuda_compile(hp_backend *b, const hp_graph *g, hp_exec **ret,
                            hp_error *reterr)
{
    cuda *c = (cuda *)b;
    hp_exec *e = new_exec(c, g);
    hp_code r = HP_OK;

    if (e == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "compiling a network");
    if (g->batch != 1)
        r = hp_fail(reterr, HP_E_UNSUPPORTED, "a batch of %d", g->batch);
    for (int i = 0; i < g->op_count && r == HP_OK; i++)
        r = compile_op(e, i, reterr);
    hp_plans_rest(c->plans);
    if (r == HP_OK)
        r = lay_out(e, reterr);
    if (r == HP_OK)
        r = make_exchange(e, reterr);
    if (r == HP_OK)
        r = ensure(c, &c->arena, e->arena_bytes, reterr);
    if (r == HP_OK)
        r = ensure(c, &c->workspace, e->workspace_bytes, reterr);
    if (r != HP_OK) {
        cuda_release(e);
        return r;
    }
    if (hp_plan_cache_save(c->cache, NULL) != HP_OK)
        hp_backend_note(b, "plan cache not written, plans are searched again next time");
    *ret = e;
    return HP_OK;
}

/* --- one operation ----------------------------------------------------- */

static void *at(const hp_exec *e, int value)
{
    return value < 0 ? NULL : (char *)e->c->arena.p + e->offset[value];
}

static hp_code queue_merge(hp_exec *e, const hp_op *op, hp_error *reterr)
{
    const hp_value *y = &e->g->value[op->out], *low = &e->g->value[op->in[1]];
    hp_merge m = {.batch = 1};

    for (int a = 0; a < 3; a++) {
        m.n[a] = y->dim[a];
        m.low[a] = low->dim[a];
        m.stride[a] = op->stride[a];
    }
    m.n[3] = hp_layer_padded(y->dim[3]);
    return hp_merge_cuda(&m, e->c->type, at(e, op->in[0]), at(e, op->in[1]),
                         at(e, op->out), hp_gpu_stream(e->c->gpu), reterr);
}

static hp_code queue_unfold(hp_exec *e, const hp_op *op, const step *s, hp_error *reterr)
{
    const hp_value *y = &e->g->value[op->out], *low = &e->g->value[op->in[1]];
    hp_unfold u = {.batch = 1, .relu = op->relu};

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

static hp_code queue_op(hp_exec *e, int i, hp_error *reterr)
{
    const hp_op *op = &e->g->op[i];
    const step *s = &e->step[i];
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
        return hp_maxpool_cuda(x->dim[0],
                               (int[3]){x->dim[1], x->dim[2], hp_layer_padded(x->dim[3])},
                               e->c->type, at(e, op->in[0]), at(e, op->out),
                               hp_gpu_stream(e->c->gpu), reterr);
    default:
        return hp_fail(reterr, HP_E_INTERNAL, "not a device's operation");
    }
}

/* A value's floats without padding, from the arena to device memory at `to`. */
static hp_code queue_floats(hp_exec *e, int value, void *to, hp_error *reterr)
{
    const hp_value *v = &e->g->value[value];
    hp_convert k = {.rows = rows(v),
                    .from_c = hp_layer_padded(v->dim[3]),
                    .to_c = v->dim[3],
                    .from = e->c->type,
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
            r = hp_actmax_cuda(e->c->type, at(e, value), stored(&g->value[value]),
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
    size_t bytes = hp_value_count(&g->value[value]) * sizeof(float);
    float *host = NULL;
    hp_code r = HP_OK;

    for (int s = 0; s < g->stage_count && r == HP_OK; s++) {
        if (g->stage[s].value != value)
            continue;
        if (host == NULL) {
            host = malloc(bytes);
            if (host == NULL)
                return hp_fail(reterr, HP_E_NO_MEMORY, "a stage's values");
            r = ensure(e->c, &e->c->look, bytes, reterr);
            if (r == HP_OK)
                r = queue_floats(e, value, e->c->look.p, reterr);
            if (r == HP_OK)
                r = hp_gpu_download(e->c->gpu, host, e->c->look.p, bytes, reterr);
            if (r == HP_OK)
                r = hp_gpu_wait(e->c->gpu, reterr);
        }
        if (r == HP_OK && !finite_floats(host, bytes / sizeof(float)))
            r = not_finite(g, s, reterr);
        if (r == HP_OK)
            w->on_stage(g, &g->stage[s], 0, host, w->payload);
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
        hp_convert k = {.rows = rows(v),
                        .from_c = v->dim[3],
                        .to_c = hp_layer_padded(v->dim[3]),
                        .from = HP_F32,
                        .to = e->c->type};

        r = hp_convert_cuda(&k, e->device + e->in[i].at, at(e, e->in[i].value),
                            hp_gpu_stream(gpu), reterr);
    }
    for (int i = 0; i < g->op_count && r == HP_OK; i++) {
        if (on_host(&g->op[i]))
            continue;
        r = queue_op(e, i, reterr);
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
    cuda *c = e->c;
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

static const float *floats(const hp_exec *e, int value, const float *const *in)
{
    if (value < 0)
        return NULL;
    return e->g->value[value].input >= 0 ? in[e->g->value[value].input]
                                         : e->floats[value];
}

static void run_on_host(hp_exec *e, const hp_op *op, const float *const *in)
{
    const hp_graph *g = e->g;
    const hp_value *x = &g->value[op->in[0]], *y = &g->value[op->out];
    const float *src = floats(e, op->in[0], in);
    float *out = e->floats[op->out];
    int m = (int)rows(x), d = x->dim[3], count = (int)hp_value_count(x);

    switch (op->kind) {
    case HP_OP_ASSIGN:
        hp_encode_assign_ref(src, op->weight, op->bias, m, d, y->dim[3], out);
        break;
    case HP_OP_ENCODE:
        hp_encode_sum_ref(src, floats(e, op->in[1], in), floats(e, op->in[2], in),
                          op->weight, m, d, y->dim[2], out);
        break;
    case HP_OP_L2:
        memcpy(out, src, (size_t)count * sizeof *out);
        hp_l2_norm_ref(out, count);
        break;
    default:
        hp_fc_ref(1, count, y->dim[3], src, op->weight, op->bias, out);
        break;
    }
}

static hp_code run_tail(hp_exec *e, const float *const *in, const viewer *w,
                        hp_error *reterr)
{
    const hp_graph *g = e->g;

    for (int i = 0; i < g->op_count; i++) {
        int v = g->op[i].out;

        if (!on_host(&g->op[i]))
            continue;
        run_on_host(e, &g->op[i], in);
        for (int s = 0; s < g->stage_count; s++) {
            if (g->stage[s].value != v)
                continue;
            if (!finite_floats(e->floats[v], hp_value_count(&g->value[v])))
                return not_finite(g, s, reterr);
            if (w->on_stage != NULL)
                w->on_stage(g, &g->stage[s], 0, e->floats[v], w->payload);
        }
    }
    return HP_OK;
}

static const float *made_floats(int value, int item, void *payload)
{
    (void)item;
    return ((const hp_exec *)payload)->floats[value];
}

static hp_code cuda_run(hp_exec *e, const float *const *in, float *const *out,
                        hp_stage_fn *on_stage, void *payload, hp_error *reterr)
{
    const hp_graph *g = e->g;
    const viewer w = {on_stage, payload};
    bool done = false;
    hp_code r;

    for (int i = 0; i < e->in_count; i++) {
        const hp_value *v = &g->value[e->in[i].value];

        memcpy(e->host + e->in[i].at, in[v->input], hp_value_count(v) * sizeof(float));
    }
    /* another network that found no room may have let go of it */
    r = ensure(e->c, &e->c->arena, e->arena_bytes, reterr);
    if (r == HP_OK)
        r = ensure(e->c, &e->c->workspace, e->workspace_bytes, reterr);
    if (r == HP_OK && on_stage == NULL)
        r = replay(e, &done, reterr);
    if (r == HP_OK && !done)
        r = queue_all(e, &w, reterr);
    if (r == HP_OK)
        r = hp_gpu_wait(e->c->gpu, reterr);
    if (r == HP_OK)
        r = check_words(e, reterr);
    if (r == HP_OK)
        r = run_tail(e, in, &w, reterr);
    if (r == HP_OK)
        hp_graph_copy_out(g, 0, made_floats, e, out);
    return r;
}

const hp_backend_ops hp_backend_cuda = {
    .name = "cuda",
    .batch_max = 1,
    .open = cuda_open,
    .close = cuda_close,
    .describe = cuda_describe,
    .compile = cuda_compile,
    .release = cuda_release,
    .run = cuda_run,
};
