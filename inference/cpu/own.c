/* Which convolutions are our own; see own.h. */
#include "inference/cpu/own.h"

#include "inference/cpu/onednn.h"

/* Below, reading twice the weights would cost what fewer products spare. */
enum { WIDE_VOXELS = 1024 };

static bool for_image(const hp_graph *g, const bool *narrow, const hp_op *op,
                      hp_conv_image *ret)
{
    const hp_value *x = &g->value[op->in[0]], *y = &g->value[op->out];

    *ret = (hp_conv_image){.in = {x->dim[0], x->dim[1], x->dim[2]},
                           .out = {y->dim[0], y->dim[1], y->dim[2]},
                           .cin = x->dim[3],
                           .cout = y->dim[3],
                           .depth = op->k[0],
                           .k = op->k[1],
                           .stride = op->stride[1],
                           .relu = op->relu,
                           .narrow = narrow[op->out]};
    for (int a = 0; a < 3; a++)
        if (op->dilation[a] != 1)
            return false;
    return op->kind == HP_OP_CONV && x->input >= 0 && op->in[1] < 0 &&
           op->k[2] == op->k[1] && op->stride[0] == 1 && op->stride[2] == op->stride[1] &&
           hp_conv_image_serves(ret);
}

/* 3 x 3 in plane, stride 1, in floats: in bf16 oneDNN is faster. */
static bool is_plain(const bool *narrow, const hp_op *op)
{
    for (int a = 0; a < 3; a++)
        if (op->stride[a] != 1 || op->dilation[a] != 1)
            return false;
    return op->k[1] == 3 && op->k[2] == 3 && !narrow[op->in[0]] && !narrow[op->out];
}

static hp_conv_plain plain_of(const hp_graph *g, const hp_op *op)
{
    const hp_value *y = &g->value[op->out];

    return (hp_conv_plain){.n = {y->dim[0], y->dim[1], y->dim[2]},
                           .cin = g->value[op->in[0]].dim[3],
                           .cout = y->dim[3],
                           .depth = op->k[0],
                           .relu = op->relu};
}

static bool gains_wide(const hp_conv_plain *c)
{
    return c->n[0] * c->n[1] * c->n[2] >= WIDE_VOXELS && hp_conv_wide_serves(c);
}

hp_own hp_own_for(const hp_graph *g, const bool *narrow, const hp_op *op)
{
    hp_own o = {.kind = HP_OWN_NONE};
    bool plain = is_plain(narrow, op);

    if (!hp_onednn_has_avx512())
        return o;
    o.plain = plain_of(g, op);
    if (plain && hp_conv_rows_serves(&o.plain))
        o.kind = HP_OWN_ROWS;
    else if (plain && gains_wide(&o.plain))
        o.kind = HP_OWN_WIDE;
    else if (!narrow[op->in[0]] && for_image(g, narrow, op, &o.image))
        o.kind = HP_OWN_IMAGE;
    return o;
}

bool hp_own_reads_image(const hp_graph *g, const bool *narrow, int value)
{
    hp_conv_image c;
    bool read = false;

    if (g->value[value].input < 0 || !hp_onednn_has_avx512())
        return false;
    for (int i = 0; i < g->op_count; i++)
        for (int k = 0; k < 3; k++) {
            if (g->op[i].in[k] != value)
                continue;
            if (k > 0 || !for_image(g, narrow, &g->op[i], &c))
                return false;
            read = true;
        }
    return read;
}

size_t hp_own_packed(const hp_own *o)
{
    switch (o->kind) {
    case HP_OWN_ROWS:
        return hp_conv_rows_packed(&o->plain);
    case HP_OWN_WIDE:
        return hp_conv_wide_packed(&o->plain);
    case HP_OWN_IMAGE:
        return hp_conv_image_packed(&o->image);
    case HP_OWN_NONE:
        break;
    }
    return 0;
}

size_t hp_own_work(const hp_own *o, int threads)
{
    switch (o->kind) {
    case HP_OWN_ROWS:
        return hp_conv_rows_work(&o->plain, threads);
    case HP_OWN_WIDE:
        return hp_conv_wide_work(&o->plain, threads);
    case HP_OWN_IMAGE:
        return hp_conv_image_work(&o->image, threads);
    case HP_OWN_NONE:
        break;
    }
    return 0;
}

void hp_own_pack(const hp_own *o, const float *weight, float *packed)
{
    if (o->kind == HP_OWN_ROWS)
        hp_conv_rows_pack(&o->plain, weight, packed);
    else if (o->kind == HP_OWN_WIDE)
        hp_conv_wide_pack(&o->plain, weight, packed);
    else
        hp_conv_image_pack(&o->image, weight, packed);
}

bool hp_own_run(const hp_own *o, const void *in, const float *packed, const float *bias,
                const void *plus, float *work, void *out)
{
    if (o->kind == HP_OWN_ROWS)
        return hp_conv_rows_run(&o->plain, in, packed, bias, plus, work, out);
    if (o->kind == HP_OWN_WIDE)
        return hp_conv_wide_run(&o->plain, in, packed, bias, plus, work, out);
    return hp_conv_image_run(&o->image, in, packed, bias, work, out);
}
