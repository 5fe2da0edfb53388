/* Both ends of a network's run. */
#include "inference/ports.h"

enum { HEADS = 3 }; /* hm, size, offset */

/* Values of the first outputs; how many there are of them. */
static int heads_of(const hp_graph *g, int ret_value[HEADS])
{
    int count = 0;

    for (int s = 0; s < g->stage_count && count < HEADS; s++)
        if (g->stage[s].output)
            ret_value[count++] = g->stage[s].value;
    return count;
}

static bool has_heads(const hp_graph *g)
{
    static const int CHANNELS[HEADS] = {1, 3, 3};
    int value[HEADS];

    if (heads_of(g, value) < HEADS)
        return false;
    for (int i = 0; i < HEADS; i++) {
        const int *dim = g->value[value[i]].dim, *first = g->value[value[0]].dim;

        if (dim[0] != first[0] || dim[1] != first[1] || dim[2] != first[2] ||
            dim[3] != CHANNELS[i])
            return false;
    }
    return true;
}

static const hp_value *image_of(const hp_graph *g)
{
    for (int v = 0; v < g->value_count; v++)
        if (g->value[v].input == 0)
            return &g->value[v];
    return NULL;
}

hp_code hp_ports_check(const hp_ports *p, const hp_graph *g, hp_error *reterr)
{
    const hp_value *image = image_of(g);

    for (int v = 0; v < g->value_count; v++) {
        int i = g->value[v].input;

        if (i >= 0 && g->value[v].last >= 0 && p->in[i] == NULL &&
            (i > 0 || p->slices == NULL))
            return hp_fail(reterr, HP_E_INVALID, "input %d is missing", i);
    }
    for (int i = 0; i < g->batch && p->slices != NULL; i++) {
        const hp_input *c = &p->slices[i].cut;

        if (c->sources < 1 || c->sources > HP_INPUT_SOURCES ||
            c->sources + c->mask > c->channels)
            return hp_fail(reterr, HP_E_INVALID, "%d slices for %d channels", c->sources,
                           c->channels);
        if (image == NULL || c->n[0] != image->dim[0] || c->n[1] != image->dim[1] ||
            c->n[2] != image->dim[2] || c->channels != image->dim[3])
            return hp_fail(reterr, HP_E_INVALID,
                           "slices cut to %d x %d x %d of %d channels are not the "
                           "network's input",
                           c->n[0], c->n[1], c->n[2], c->channels);
    }
    if (p->decoded == NULL)
        return HP_OK;
    if (!has_heads(g))
        return hp_fail(reterr, HP_E_INVALID, "a network without heads to decode");
    for (int i = 0; i < HP_GRAPH_PORTS; i++)
        if (p->out[i] != NULL)
            return hp_fail(reterr, HP_E_INVALID, "output %d beside its peaks", i);
    if (p->k < 0 || p->k > HP_DECODE_MAX || !(p->min >= 0))
        return hp_fail(reterr, HP_E_INVALID, "decoding %d peaks from %g", p->k,
                       (double)p->min);
    return HP_OK;
}

hp_ports hp_ports_shift(const hp_ports *p, const hp_graph *g, int first)
{
    hp_ports ret = *p;

    for (int v = 0; v < g->value_count; v++) {
        int i = g->value[v].input;

        if (i >= 0 && p->in[i] != NULL)
            ret.in[i] += (size_t)first * hp_value_count(&g->value[v]);
    }
    for (int s = 0, k = 0; s < g->stage_count; s++) {
        if (!g->stage[s].output)
            continue;
        if (p->out[k] != NULL)
            ret.out[k] += (size_t)first * hp_value_count(&g->value[g->stage[s].value]);
        k++;
    }
    if (p->slices != NULL)
        ret.slices += first;
    if (p->decoded != NULL)
        ret.decoded += first;
    return ret;
}

hp_decode hp_ports_decode(const hp_ports *p, const hp_graph *g, int ret_value[3])
{
    hp_decode d = {.batch = g->batch, .min = p->min, .k = p->k};
    const int *dim;

    heads_of(g, ret_value);
    dim = g->value[ret_value[0]].dim;
    for (int a = 0; a < 3; a++)
        d.n[a] = dim[a];
    d.hm_c = dim[3];
    d.size_c = g->value[ret_value[1]].dim[3];
    d.off_c = g->value[ret_value[2]].dim[3];
    return d;
}

hp_code hp_ports_look(const hp_ports *p, const hp_graph *g, hp_error *reterr)
{
    for (int i = 0; i < g->batch && p->decoded != NULL; i++)
        if (p->decoded[i].bad)
            return hp_fail(reterr, HP_E_NUMERIC, "stage decode: a value is not finite");
    return HP_OK;
}
