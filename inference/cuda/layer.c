/* Layers as values: halves, padding, keys, weights in the engines' order. */
#include "inference/cuda/layer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/half.h"

const char *hp_layer_type_name(hp_dtype t)
{
    return t == HP_F16 ? "fp16" : t == HP_BF16 ? "bf16" : "fp32";
}

hp_dtype hp_layer_type_of(const char *name)
{
    return strcmp(name, "fp16") == 0   ? HP_F16
           : strcmp(name, "bf16") == 0 ? HP_BF16
                                       : HP_F32;
}

double hp_layer_epsilon(hp_dtype t)
{
    return t == HP_F16 ? 0x1p-10 : 0x1p-7;
}

uint16_t hp_layer_half(hp_dtype t, float v)
{
    return t == HP_F16 ? hp_f16_of(v) : hp_bf16_of(v);
}

float hp_layer_float(hp_dtype t, uint16_t v)
{
    return t == HP_F16 ? hp_f16_float(v) : hp_bf16_float(v);
}

int hp_layer_padded(int channels)
{
    return (channels + HP_LAYER_PAD - 1) / HP_LAYER_PAD * HP_LAYER_PAD;
}

hp_layer hp_layer_of_op(const hp_graph *g, const hp_op *op, hp_dtype type)
{
    const hp_value *x = &g->value[op->in[0]], *y = &g->value[op->out];
    hp_layer l = {.type = type,
                  .nd = op->nd,
                  .batch = g->batch,
                  .cin = hp_layer_padded(x->dim[3]),
                  .cout = hp_layer_padded(y->dim[3]),
                  .bias = op->bias != NULL,
                  .add = op->in[1] >= 0,
                  .relu = op->relu};

    for (int a = 0; a < 3; a++) {
        l.x[a] = x->dim[a];
        l.y[a] = y->dim[a];
        l.k[a] = op->k[a];
        l.stride[a] = op->stride[a];
        l.dilation[a] = op->dilation[a];
        l.pad[a] = op->dilation[a] * (op->k[a] - 1) / 2;
    }
    return l;
}

const char *hp_layer_key(const hp_layer *l, char ret[HP_LAYER_KEY])
{
    snprintf(ret, HP_LAYER_KEY,
             "%s %dd %dx%dx%dx%dx%d k%d,%d,%d s%d,%d,%d d%d,%d,%d %d%s%s%s",
             hp_layer_type_name(l->type), l->nd, l->batch, l->x[0], l->x[1], l->x[2],
             l->cin, l->k[0], l->k[1], l->k[2], l->stride[0], l->stride[1], l->stride[2],
             l->dilation[0], l->dilation[1], l->dilation[2], l->cout,
             l->bias ? " +bias" : "", l->add ? " +add" : "", l->relu ? " +relu" : "");
    return ret;
}

size_t hp_layer_x_count(const hp_layer *l)
{
    return (size_t)l->batch * l->x[0] * l->x[1] * l->x[2] * l->cin;
}

size_t hp_layer_y_count(const hp_layer *l)
{
    return (size_t)l->batch * l->y[0] * l->y[1] * l->y[2] * l->cout;
}

static size_t taps(const hp_layer *l)
{
    return (size_t)l->k[0] * l->k[1] * l->k[2];
}

size_t hp_layer_w_count(const hp_layer *l)
{
    return taps(l) * l->cin * l->cout;
}

void hp_layer_pack_weights(const hp_layer *l, const float *w, int cout, int cin,
                           uint16_t *ret)
{
    size_t n = taps(l);

    memset(ret, 0, hp_layer_w_count(l) * sizeof *ret);
    for (int o = 0; o < cout; o++) {
        float error = 0; /* handed on, so that a filter keeps its sum (kernels/bf16.h) */

        for (int i = 0; i < cin; i++)
            for (size_t t = 0; t < n; t++, w++) {
                float want = *w + error;
                uint16_t half = hp_layer_half(l->type, want);

                ret[((size_t)o * n + t) * l->cin + i] = half;
                error = want - hp_layer_float(l->type, half);
                error = isfinite(error) ? error : 0; /* one that ran over stays alone */
            }
    }
}
