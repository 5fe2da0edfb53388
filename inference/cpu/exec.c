/* A network made ready for the CPU: how values are stored, who computes what. */
#include <omp.h>
#include <stdlib.h>

#include "inference/cpu/cpu_internal.h"

static bool textural(hp_op_kind kind)
{
    return kind == HP_OP_ASSIGN || kind == HP_OP_ENCODE || kind == HP_OP_L2 ||
           kind == HP_OP_FC;
}

/* Which values are stored in bf16: all but outputs, what the texture encoding reads or
 * makes, and images that our own convolution reads. */
static hp_code choose_storage(hp_exec *e, hp_error *reterr)
{
    const hp_graph *g = e->g;

    if (!e->cpu->bf16 || g->fp32)
        return HP_OK;
    for (int i = 0; i < g->value_count; i++)
        e->narrow[i] = true;
    for (int i = 0; i < g->stage_count; i++)
        if (g->stage[i].output)
            e->narrow[g->stage[i].value] = false;
    for (int i = 0; i < g->op_count; i++) {
        const hp_op *op = &g->op[i];

        for (int k = 0; textural(op->kind) && k < 3; k++)
            if (op->in[k] >= 0)
                e->narrow[op->in[k]] = false;
        if (textural(op->kind))
            e->narrow[op->out] = false;
    }
    for (int i = 0; i < g->value_count; i++)
        e->narrow[i] &= !hp_own_reads_image(g, e->narrow, i);
    for (int i = 0; i < g->op_count; i++) {
        const hp_op *op = &g->op[i];
        bool conv = op->kind == HP_OP_CONV;
        bool fits = conv ? op->in[1] < 0 || e->narrow[op->in[1]] == e->narrow[op->out]
                         : e->narrow[op->out];

        for (int k = 0; k < 3; k++)
            fits &= op->in[k] < 0 || e->narrow[op->in[k]] ||
                    hp_own_reads_image(g, e->narrow, op->in[k]);
        if (!textural(op->kind) && !fits)
            return hp_fail(reterr, HP_E_UNSUPPORTED,
                           "precision bf16: operation %d mixes storage types", i);
    }
    return HP_OK;
}

/* The weights as our own kernels want them, packed at most once. */
static hp_code pack(hp_cpu *c, const hp_op *op, const hp_own *own, const float **ret,
                    hp_error *reterr)
{
    hp_cpu_packed *p;
    hp_code r;

    for (p = c->packed; p != NULL; p = p->next)
        if (p->source == op->weight) {
            *ret = p->room.p;
            return HP_OK;
        }
    p = calloc(1, sizeof *p);
    if (p == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "weights");
    r = hp_cpu__ensure(&p->room, hp_own_packed(own) * sizeof(float), reterr);
    if (r != HP_OK) {
        free(p);
        return r;
    }
    hp_own_pack(own, op->weight, p->room.p);
    p->source = op->weight;
    p->next = c->packed;
    c->packed = p;
    *ret = p->room.p;
    return HP_OK;
}

static hp_code compile_conv(hp_exec *e, const hp_op *op, hp_cpu_step *s, hp_error *reterr)
{
    hp_cpu *c = e->cpu;
    size_t work;
    hp_code r;

    s->own = hp_own_for(e->g, e->narrow, op);
    if (s->own.kind != HP_OWN_NONE) {
        r = pack(c, op, &s->own, &s->packed, reterr);
        work = hp_own_work(&s->own, c->threads) * sizeof(float);
    } else {
        r = hp_onednn_conv_new(c->onednn, e->g, op, e->narrow[op->in[0]],
                               e->narrow[op->out], &s->conv, reterr);
        work = r == HP_OK ? hp_onednn_conv_scratch(s->conv) : 0;
    }
    e->scratch_bytes = work > e->scratch_bytes ? work : e->scratch_bytes;
    return r;
}

void hp_cpu__release(hp_exec *e)
{
    if (e == NULL)
        return;
    for (int i = 0; i < e->g->op_count && e->step != NULL; i++)
        hp_onednn_conv_free(e->step[i].conv);
    free(e->step);
    free(e->narrow);
    free(e);
}

hp_code hp_cpu__compile(hp_backend *b, const hp_graph *g, hp_exec **ret, hp_error *reterr)
{
    hp_cpu *c = (hp_cpu *)b;
    hp_exec *e = calloc(1, sizeof *e);
    hp_code r = HP_OK;

    omp_set_num_threads(c->threads);
    if (e != NULL) {
        e->cpu = c;
        e->g = g;
        e->step = calloc((size_t)g->op_count + 1, sizeof *e->step);
        e->narrow = calloc((size_t)g->value_count + 1, sizeof *e->narrow);
    }
    if (e == NULL || e->step == NULL || e->narrow == NULL)
        r = hp_fail(reterr, HP_E_NO_MEMORY, "compiling a network");
    if (r == HP_OK)
        r = choose_storage(e, reterr);
    for (int i = 0; i < g->op_count && r == HP_OK; i++)
        if (g->op[i].kind == HP_OP_CONV)
            r = compile_conv(e, &g->op[i], &e->step[i], reterr);
    if (r == HP_OK)
        r = hp_cpu__ensure(&c->scratch, e->scratch_bytes, reterr);
    if (r != HP_OK) {
        hp_cpu__release(e);
        return r;
    }
    *ret = e;
    return HP_OK;
}
