/* A run on the CPU, item by item. */
#include <omp.h>
#include <string.h>

#include "inference/cpu/cpu_internal.h"
#include "kernels/bf16.h"
#include "kernels/encode.h"
#include "kernels/fc.h"
#include "kernels/maxpool.h"
#include "kernels/merge.h"
#include "kernels/unfold.h"
#include "kernels/unfold_rows.h"

/* Floats, or bf16 where e->narrow says so. */
static void *at(const hp_exec *e, int value, const float *const *in)
{
    const hp_value *v = &e->g->value[value];

    if (v->input >= 0 && e->narrow[value])
        return e->cpu->narrowed.p;
    if (v->input >= 0)
        return (float *)in[v->input];
    return (float *)e->cpu->arena.p + v->offset;
}

static size_t bytes_of(const hp_exec *e, int value)
{
    return hp_value_count(&e->g->value[value]) * (e->narrow[value] ? 2 : sizeof(float));
}

static void copy_bytes(void *to, const void *from, size_t n)
{
    enum { BLOCK = 1 << 18 };

#pragma omp parallel for schedule(static)
    for (size_t block = 0; block < (n + BLOCK - 1) / BLOCK; block++) {
        size_t first = block * BLOCK, count = n - first < BLOCK ? n - first : BLOCK;

        memcpy((char *)to + first, (const char *)from + first, count);
    }
}

/* The image in bf16. Networks have one input that convolutions read. */
static hp_code narrow_inputs(hp_exec *e, const float *const *in, hp_error *reterr)
{
    hp_cpu *c = e->cpu;

    for (int i = 0; i < e->g->value_count; i++) {
        const hp_value *v = &e->g->value[i];
        size_t n = hp_value_count(v);
        hp_code r;

        if (v->input < 0 || !e->narrow[i])
            continue;
        r = hp_cpu__ensure(&c->narrowed, n * sizeof(uint16_t), reterr);
        if (r != HP_OK)
            return r;
        hp_bf16_from_floats(in[v->input], n, c->narrowed.p);
    }
    return HP_OK;
}

static hp_code run_conv(hp_exec *e, const hp_op *op, const hp_cpu_step *s,
                        const float *const *in, hp_error *reterr)
{
    const void *x = at(e, op->in[0], in);
    const void *plus = op->in[1] >= 0 ? at(e, op->in[1], in) : NULL;
    void *y = at(e, op->out, in), *work = e->cpu->scratch.p;

    if (s->own.kind != HP_OWN_NONE) {
        e->finite = hp_own_run(&s->own, x, s->packed, op->bias, plus, work, y);
        return HP_OK;
    }
    if (plus != NULL && !op->in_place)
        copy_bytes(y, plus, bytes_of(e, op->out));
    return hp_onednn_conv_run(s->conv, x, y, work, reterr);
}

static void run_merge(const hp_graph *g, const hp_op *op, bool narrow,
                      const void *const src[3], void *out)
{
    hp_merge m = {.batch = 1};

    memcpy(m.n, g->value[op->out].dim, sizeof m.n);
    memcpy(m.low, g->value[op->in[1]].dim, sizeof m.low);
    memcpy(m.stride, op->stride, sizeof m.stride);
    if (narrow)
        hp_merge_bf16(&m, src[0], src[1], out);
    else
        hp_merge_ref(&m, src[0], src[1], out);
}

static void run_unfold(hp_exec *e, const hp_op *op, bool narrow, const void *const src[3],
                       void *out)
{
    const hp_graph *g = e->g;
    const int *n = g->value[op->out].dim;
    int cs = g->value[op->in[0]].dim[3];
    hp_unfold u = {.batch = 1, .skip_c = cs, .up_c = n[3] - cs, .relu = op->relu};

    memcpy(u.n, n, sizeof u.n);
    memcpy(u.low, g->value[op->in[1]].dim, sizeof u.low);
    memcpy(u.stride, op->stride, sizeof u.stride);
    if (hp_onednn_has_avx512() && hp_unfold_rows_serves(&u))
        e->finite = hp_unfold_rows(&u, narrow, src[0], src[1], op->bias, out);
    else if (narrow)
        hp_unfold_bf16(&u, src[0], src[1], op->bias, out);
    else
        hp_unfold_ref(&u, src[0], src[1], op->bias, out);
}

static void run_maxpool(const hp_graph *g, const hp_op *op, bool narrow, const void *in,
                        void *out)
{
    const int *m = g->value[op->in[0]].dim;

    if (narrow)
        hp_maxpool_bf16(m[0], m + 1, in, out);
    else
        hp_maxpool_ref(m[0], m + 1, in, out);
}

static void run_fc(const hp_graph *g, const hp_op *op, const float *in, float *out)
{
    hp_fc_ref(1, (int)hp_value_count(&g->value[op->in[0]]), g->value[op->out].dim[3], in,
              op->weight, op->bias, out);
}

static void run_texture(const hp_graph *g, const hp_op *op, const void *const src[3],
                        float *out)
{
    const hp_value *x = &g->value[op->in[0]], *y = &g->value[op->out];
    int m = x->dim[0] * x->dim[1] * x->dim[2], d = x->dim[3];

    if (op->kind == HP_OP_ASSIGN)
        hp_encode_assign_ref(src[0], op->weight, op->bias, m, d, y->dim[3], out);
    else
        hp_encode_sum_ref(src[0], src[1], src[2], op->weight, m, d, y->dim[2], out);
}

static hp_code run_op(hp_exec *e, int i, const float *const *in, hp_error *reterr)
{
    const hp_graph *g = e->g;
    const hp_op *op = &g->op[i];
    bool narrow = e->narrow[op->out];
    const void *src[3] = {0};
    void *out = at(e, op->out, in);

    e->finite = false;
    for (int k = 0; k < 3; k++)
        src[k] = op->in[k] >= 0 ? at(e, op->in[k], in) : NULL;
    switch (op->kind) {
    case HP_OP_CONV:
        return run_conv(e, op, &e->step[i], in, reterr);
    case HP_OP_MERGE:
        run_merge(g, op, narrow, src, out);
        break;
    case HP_OP_UNFOLD:
        run_unfold(e, op, narrow, src, out);
        break;
    case HP_OP_MAXPOOL:
        run_maxpool(g, op, narrow, src[0], out);
        break;
    case HP_OP_FC:
        run_fc(g, op, src[0], out);
        break;
    case HP_OP_L2:
        if (!op->in_place)
            memcpy(out, src[0], bytes_of(e, op->out));
        hp_l2_norm_ref(out, (int)hp_value_count(&g->value[op->out]));
        break;
    case HP_OP_ASSIGN:
    case HP_OP_ENCODE:
        run_texture(g, op, src, out);
        break;
    }
    return HP_OK;
}

/* A float is finite unless all its exponent bits are set; integers vectorise. */
static bool all_finite(const float *data, size_t n)
{
    int bad = 0;

#pragma omp parallel for schedule(static) reduction(| : bad)
    for (size_t block = 0; block < (n + 65535) / 65536; block++) {
        size_t end = (block + 1) * 65536 < n ? (block + 1) * 65536 : n;
        unsigned any = 0;

        for (size_t i = block * 65536; i < end; i++) {
            unsigned bits;

            memcpy(&bits, data + i, sizeof bits);
            any |= (bits & 0x7f800000u) == 0x7f800000u;
        }
        bad |= (int)any;
    }
    return !bad;
}

static bool finite_value(const hp_exec *e, int value)
{
    const void *data = at(e, value, NULL);
    size_t n = hp_value_count(&e->g->value[value]);

    return e->narrow[value] ? hp_bf16_all_finite(data, n) : all_finite(data, n);
}

/* A value as floats; what is stored in bf16 is widened, once for all its names. */
static hp_code as_floats(hp_exec *e, int value, const float **ret, hp_error *reterr)
{
    hp_cpu *c = e->cpu;
    size_t n = hp_value_count(&e->g->value[value]);
    hp_code r;

    *ret = at(e, value, NULL);
    if (!e->narrow[value])
        return HP_OK;
    r = hp_cpu__ensure(&c->widened, n * sizeof(float), reterr);
    if (r == HP_OK)
        hp_bf16_to_floats((const uint16_t *)*ret, n, c->widened.p);
    *ret = c->widened.p;
    return r;
}

static hp_code look_at_stages(hp_exec *e, int value, hp_stage_fn *on_stage, void *payload,
                              hp_error *reterr)
{
    const hp_graph *g = e->g;
    const float *data = NULL;
    bool checked = false;
    hp_code r = HP_OK;

    for (int s = 0; s < g->stage_count && r == HP_OK; s++) {
        if (g->stage[s].value != value)
            continue;
        if (!checked && !e->finite && !finite_value(e, value))
            return hp_fail(reterr, HP_E_NUMERIC, "stage %s: a value is not finite",
                           g->stage[s].name);
        checked = true;
        if (on_stage == NULL)
            continue;
        if (data == NULL)
            r = as_floats(e, value, &data, reterr);
        if (r == HP_OK)
            on_stage(g, &g->stage[s], e->item, data, payload);
    }
    return r;
}

static const float *made_floats(int value, int item, void *payload)
{
    (void)item;
    return at(payload, value, NULL); /* no output is an input */
}

/* The item's image, cut here. */
static hp_code cut_image(hp_exec *e, const hp_slices *s, const float **ret,
                         hp_error *reterr)
{
    hp_cpu *c = e->cpu;
    size_t n = (size_t)s->cut.n[0] * s->cut.n[1] * s->cut.n[2] * s->cut.channels;
    hp_code r = hp_cpu__ensure(&c->cut, n * sizeof(float), reterr);

    *ret = c->cut.p;
    return r == HP_OK ? hp_input_ref(&s->cut, s->hu, c->cut.p, reterr) : r;
}

static hp_code decode_heads(const hp_exec *e, const hp_ports *p, hp_error *reterr)
{
    int value[3];
    hp_decode d = hp_ports_decode(p, e->g, value);

    d.batch = 1;
    return hp_decode_ref(&d, at(e, value[0], NULL), at(e, value[1], NULL),
                         at(e, value[2], NULL), p->decoded, reterr);
}

/* p: of this item. */
static hp_code run_item(hp_exec *e, hp_ports *p, hp_stage_fn *on_stage, void *payload,
                        hp_error *reterr)
{
    const hp_graph *g = e->g;
    hp_code r = HP_OK;

    if (p->slices != NULL)
        r = cut_image(e, p->slices, &p->in[0], reterr);
    if (r == HP_OK)
        r = narrow_inputs(e, p->in, reterr);
    for (int i = 0; i < g->op_count && r == HP_OK; i++) {
        r = run_op(e, i, p->in, reterr);
        if (r == HP_OK)
            r = look_at_stages(e, g->op[i].out, on_stage, payload, reterr);
    }
    if (r == HP_OK && p->decoded != NULL)
        r = decode_heads(e, p, reterr);
    if (r == HP_OK)
        hp_graph_copy_out(g, 0, made_floats, e, p->out);
    return r;
}

hp_code hp_cpu__run(hp_exec *e, const hp_ports *p, hp_stage_fn *on_stage, void *payload,
                    hp_error *reterr)
{
    const hp_graph *g = e->g;
    hp_cpu *c = e->cpu;
    hp_code r = hp_ports_check(p, g, reterr);

    if (r != HP_OK)
        return r;
    omp_set_num_threads(c->threads);
    /* another network without room may have let go of both */
    r = hp_cpu__ensure(&c->arena, g->arena_floats * sizeof(float), reterr);
    if (r == HP_OK)
        r = hp_cpu__ensure(&c->scratch, e->scratch_bytes, reterr);
    /* A batch is as many runs: here it gains nothing, and so costs no memory. */
    for (e->item = 0; e->item < g->batch && r == HP_OK; e->item++) {
        hp_ports own = hp_ports_shift(p, g, e->item);

        r = run_item(e, &own, on_stage, payload, reterr);
    }
    return r == HP_OK ? hp_ports_look(p, g, reterr) : r;
}
