/* A network made ready for the GPU: weights up, plans chosen, places given. */
#include <stdlib.h>
#include <string.h>

#include "inference/cuda/exec_internal.h"

enum { ALIGN = 256 };

/* --- weights ----------------------------------------------------------- */

static hp_code send(hp_cuda *c, const float *source, const void *data, size_t bytes,
                    const void **ret, hp_error *reterr)
{
    hp_uploaded *u = calloc(1, sizeof *u);
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

static const void *sent(const hp_cuda *c, const float *source)
{
    for (const hp_uploaded *u = c->weights; u != NULL; u = u->next)
        if (u->source == source)
            return u->device;
    return NULL;
}

static hp_code send_floats(hp_cuda *c, const float *source, size_t count,
                           const void **ret, hp_error *reterr)
{
    *ret = sent(c, source);
    if (*ret != NULL)
        return HP_OK;
    return send(c, source, source, count * sizeof *source, ret, reterr);
}

static hp_code send_conv(hp_cuda *c, const hp_graph *g, const hp_op *op,
                         const hp_layer *l, hp_step *s, hp_error *reterr)
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

/* --- how values are stored --------------------------------------------- */

size_t hp_exec__rows(const hp_value *v)
{
    return (size_t)v->dim[0] * v->dim[1] * v->dim[2];
}

hp_dtype hp_exec__type(const hp_exec *e, int v)
{
    return e->is_float[v] ? HP_F32 : e->c->type;
}

int hp_exec__channels(const hp_exec *e, int v)
{
    int c = e->g->value[v].dim[3];

    return e->is_float[v] ? c : hp_layer_padded(c);
}

size_t hp_exec__stored(const hp_exec *e, int v)
{
    return e->g->batch * hp_exec__rows(&e->g->value[v]) * (size_t)hp_exec__channels(e, v);
}

size_t hp_exec__crossing_bytes(const hp_exec *e, int v)
{
    return e->g->batch * hp_value_count(&e->g->value[v]) * sizeof(float);
}

hp_encode hp_exec__encode(const hp_exec *e, const hp_op *op)
{
    const hp_value *x = &e->g->value[op->in[0]], *y = &e->g->value[op->out];

    return (hp_encode){.batch = e->g->batch,
                       .m = (int)hp_exec__rows(x),
                       .d = x->dim[3],
                       .k = op->kind == HP_OP_ENCODE ? y->dim[2] : y->dim[3]};
}

/* --- compiling --------------------------------------------------------- */

static bool makes_floats(const hp_op *op)
{
    return op->kind == HP_OP_ASSIGN || op->kind == HP_OP_ENCODE || op->kind == HP_OP_L2 ||
           op->kind == HP_OP_FC;
}

static void choose_types(hp_exec *e)
{
    const hp_graph *g = e->g;

    for (int i = 0; i < g->op_count; i++) {
        e->is_float[g->op[i].out] = makes_floats(&g->op[i]);
        if (g->op[i].kind == HP_OP_ENCODE && g->value[g->op[i].in[2]].input >= 0)
            e->is_float[g->op[i].in[2]] = true; /* the mask */
    }
}

static hp_code check_op(const hp_exec *e, const hp_op *op, hp_error *reterr)
{
    const hp_graph *g = e->g;
    bool floats = op->kind == HP_OP_L2 || op->kind == HP_OP_FC;
    bool encode = op->kind == HP_OP_ENCODE || op->kind == HP_OP_ASSIGN;
    int k =
        op->kind == HP_OP_ENCODE ? g->value[op->out].dim[2] : g->value[op->out].dim[3];
    int c = g->value[op->in[0]].dim[3];

    for (int i = 0; i < 3; i++)
        if (op->in[i] >= 0 && e->is_float[op->in[i]] != (floats || (encode && i > 0)))
            return hp_fail(reterr, HP_E_UNSUPPORTED,
                           "a convolution behind the texture encoding");
    if (encode && (c % HP_LAYER_PAD != 0 || c > 1024 || k > 256))
        return hp_fail(reterr, HP_E_UNSUPPORTED,
                       "%d codewords of %d values: on a GPU 256 at most, of a multiple "
                       "of %d up to 1024",
                       k, c, HP_LAYER_PAD);
    /* It writes channels side by side, so there padding would come between. */
    if (op->kind == HP_OP_UNFOLD &&
        (g->value[op->in[1]].dim[3] % HP_LAYER_PAD != 0 || c % HP_LAYER_PAD != 0 ||
         g->value[op->out].dim[3] % HP_LAYER_PAD != 0))
        return hp_fail(reterr, HP_E_UNSUPPORTED,
                       "a U-Net's widths are multiples of %d on a GPU, not %d",
                       HP_LAYER_PAD, c);
    return HP_OK;
}

/* Assignment (by this encoding alone), encoding, and a norm in its place. */
static void fuse(hp_exec *e, int i)
{
    const hp_graph *g = e->g;
    const hp_op *op = &g->op[i], *norm = op + 1;
    int by = g->value[op->in[1]].first;
    const hp_op *assign = &g->op[by];

    if (assign->kind != HP_OP_ASSIGN || assign->in[0] != op->in[0] ||
        assign->weight != op->weight || g->value[op->in[1]].last != i ||
        i + 1 == g->op_count || norm->kind != HP_OP_L2 || norm->in[0] != op->out ||
        !norm->in_place)
        return;
    for (int s = 0; s < g->stage_count; s++)
        if (g->stage[s].output && g->stage[s].value == op->in[1])
            return;
    e->step[by].fused = e->step[i].fused = e->step[i + 1].fused = true;
}

static void need_workspace(hp_exec *e, size_t bytes)
{
    if (bytes > e->workspace_bytes)
        e->workspace_bytes = bytes;
}

static hp_code compile_conv(hp_exec *e, const hp_op *op, hp_step *s, hp_error *reterr)
{
    hp_layer l = hp_layer_of_op(e->g, op, e->c->type);
    hp_code r = hp_plans_find(e->c->plans, &l, &s->conv, reterr);

    if (r != HP_OK)
        return r;
    need_workspace(e, hp_cudnn_conv_workspace(s->conv, 0));
    return send_conv(e->c, e->g, op, &l, s, reterr);
}

static hp_code compile_op(hp_exec *e, int i, hp_error *reterr)
{
    const hp_op *op = &e->g->op[i];
    const hp_value *x = &e->g->value[op->in[0]], *y = &e->g->value[op->out];
    hp_step *s = &e->step[i];
    hp_encode k;
    hp_code r = check_op(e, op, reterr);

    if (r != HP_OK)
        return r;
    switch (op->kind) {
    case HP_OP_CONV:
        return compile_conv(e, op, s, reterr);
    case HP_OP_UNFOLD:
        return send_floats(e->c, op->bias, (size_t)(y->dim[3] - x->dim[3]), &s->bias,
                           reterr);
    case HP_OP_ENCODE: /* its codewords went up with the assignment's */
        k = hp_exec__encode(e, op);
        need_workspace(e, hp_encode_workspace(&k));
        fuse(e, i);
        return send_floats(e->c, op->weight, (size_t)k.k * k.d, &s->weight, reterr);
    case HP_OP_ASSIGN:
        k = hp_exec__encode(e, op);
        r = send_floats(e->c, op->weight, (size_t)k.k * k.d, &s->weight, reterr);
        return r == HP_OK ? send_floats(e->c, op->bias, (size_t)k.k, &s->bias, reterr)
                          : r;
    case HP_OP_FC:
        r = send_floats(e->c, op->weight, hp_value_count(x) * y->dim[3], &s->weight,
                        reterr);
        return r == HP_OK
                   ? send_floats(e->c, op->bias, (size_t)y->dim[3], &s->bias, reterr)
                   : r;
    default:
        return HP_OK;
    }
}

static size_t aligned(size_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

/* One that nobody reads stays where it is. */
static bool is_read_input(const hp_value *v)
{
    return v->input >= 0 && v->last >= 0;
}

static bool is_output(const hp_graph *g, int v)
{
    for (int s = 0; s < g->stage_count; s++)
        if (g->stage[s].output && g->stage[s].value == v)
            return true;
    return false;
}

/* What crosses, and where it lies in the exchange. */
static void plan_exchange(hp_exec *e)
{
    const hp_graph *g = e->g;

    for (int back = 0; back < 2; back++) {
        for (int v = 0; v < g->value_count; v++) {
            if (back == 0 ? !is_read_input(&g->value[v]) : !is_output(g, v))
                continue;
            if (back == 0)
                e->in[e->in_count++] = (hp_crossing){v, e->bytes};
            else
                e->back[e->back_count++] = (hp_crossing){v, e->bytes};
            e->bytes += aligned(hp_exec__crossing_bytes(e, v));
        }
        if (back == 0)
            e->in_bytes = e->bytes;
    }
    e->words_at = e->bytes;
    e->bytes += aligned((size_t)g->stage_count * sizeof(uint32_t) + 1);
    e->decoded_at = e->bytes;
    e->bytes += (size_t)g->batch * sizeof(hp_decoded);
}

static hp_code lay_out(hp_exec *e, hp_error *reterr)
{
    const hp_graph *g = e->g;
    size_t *size = calloc((size_t)g->value_count + 1, sizeof *size);
    hp_code r;

    if (size == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "compiling a network");
    for (int v = 0; v < g->value_count; v++)
        if (g->value[v].input < 0 || (is_read_input(&g->value[v]) && !e->is_float[v]))
            size[v] = aligned(hp_exec__stored(e, v) * hp_dtype_size(hp_exec__type(e, v)));
    for (int i = 0; i < g->op_count; i++)
        if (g->op[i].kind == HP_OP_L2 && g->op[i].in_place)
            size[g->op[i].out] = 0;
    r = hp_graph_lay_out(g, size, e->offset, &e->arena_bytes, reterr);
    for (int i = 0; i < g->op_count; i++) /* in order: one may lie on another */
        if (g->op[i].kind == HP_OP_L2 && g->op[i].in_place)
            e->offset[g->op[i].out] = e->offset[g->op[i].in[0]];
    for (int i = 0; i < e->in_count; i++)
        if (e->is_float[e->in[i].value])
            e->offset[e->in[i].value] = e->in[i].at;
    free(size);
    return r;
}

static hp_code make_exchange(hp_exec *e, hp_error *reterr)
{
    hp_code r = hp_gpu_alloc(e->c->gpu, e->bytes, (void **)&e->device, reterr);

    return r == HP_OK ? hp_gpu_host_alloc(e->c->gpu, e->bytes, (void **)&e->host, reterr)
                      : r;
}

void hp_exec__release(hp_exec *e)
{
    if (e == NULL)
        return;
    hp_gpu_graph_free(e->graph);
    hp_gpu_free(e->c->gpu, e->device);
    hp_gpu_host_free(e->c->gpu, e->host);
    free(e->in);
    free(e->back);
    free(e->offset);
    free(e->is_float);
    free(e->step);
    free(e);
}

static hp_exec *new_exec(hp_cuda *c, const hp_graph *g)
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
    e->is_float = calloc(values, sizeof *e->is_float);
    if (e->step != NULL && e->offset != NULL && e->in != NULL && e->back != NULL &&
        e->is_float != NULL)
        return e;
    hp_exec__release(e);
    return NULL;
}

hp_code hp_exec__compile(hp_backend *b, const hp_graph *g, hp_exec **ret,
                         hp_error *reterr)
{
    hp_cuda *c = (hp_cuda *)b;
    hp_exec *e = new_exec(c, g);
    hp_code r = HP_OK;

    if (e == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "compiling a network");
    choose_types(e);
    plan_exchange(e);
    for (int i = 0; i < g->op_count && r == HP_OK; i++)
        r = compile_op(e, i, reterr);
    hp_plans_rest(c->plans);
    if (r == HP_OK)
        r = lay_out(e, reterr);
    if (r == HP_OK)
        r = make_exchange(e, reterr);
    if (r == HP_OK)
        r = hp_cuda__ensure(c, &c->arena, e->arena_bytes, reterr);
    if (r == HP_OK)
        r = hp_cuda__ensure(c, &c->workspace, e->workspace_bytes, reterr);
    if (r != HP_OK) {
        hp_exec__release(e);
        return r;
    }
    if (hp_plan_cache_save(c->cache, NULL) != HP_OK)
        hp_backend_note(b, "plan cache not written, plans are searched again next time");
    *ret = e;
    return HP_OK;
}
