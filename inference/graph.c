/* Building and planning the layer graph. */
#include "inference/graph.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN_FLOATS = 16 }; /* one cache line */

hp_code hp_graph_new(hp_graph **ret, hp_error *reterr)
{
    hp_graph *g = calloc(1, sizeof *g);

    if (g == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "graph");
    g->batch = 1;
    *ret = g;
    return HP_OK;
}

void hp_graph_free(hp_graph *g)
{
    if (g == NULL)
        return;
    free(g->op);
    free(g->value);
    free(g->stage);
    free(g);
}

size_t hp_value_count(const hp_value *v)
{
    return (size_t)v->dim[0] * v->dim[1] * v->dim[2] * v->dim[3];
}

/* --- appending --------------------------------------------------------- */

static bool broken(hp_graph *g, const char *what, bool bad)
{
    if (bad && g->error.code == HP_OK)
        hp_fail(&g->error, HP_E_INTERNAL, "graph: %s", what);
    return g->error.code != HP_OK;
}

static bool grow(hp_graph *g, void **list, int count, int *cap, size_t size)
{
    void *more;

    if (count < *cap)
        return true;
    more = realloc(*list, (size_t)(*cap + 64) * size);
    if (more == NULL) {
        if (g->error.code == HP_OK)
            hp_fail(&g->error, HP_E_NO_MEMORY, "graph");
        return false;
    }
    *list = more;
    *cap += 64;
    return true;
}

static int add_value(hp_graph *g, const int dim[4])
{
    hp_value *v;

    for (int a = 0; a < 4; a++)
        if (broken(g, "empty value", dim[a] <= 0))
            return -1;
    if (!grow(g, (void **)&g->value, g->value_count, &g->value_cap, sizeof *g->value))
        return -1;
    v = &g->value[g->value_count];
    *v =
        (hp_value){.input = -1, .root = g->value_count, .first = g->op_count, .last = -1};
    memcpy(v->dim, dim, sizeof v->dim);
    return g->value_count++;
}

static int add_op(hp_graph *g, hp_op op, const int dim[4])
{
    op.out = add_value(g, dim);
    if (op.out < 0 || !grow(g, (void **)&g->op, g->op_count, &g->op_cap, sizeof *g->op))
        return -1;
    g->op[g->op_count++] = op;
    return op.out;
}

static bool is_value(hp_graph *g, int v)
{
    return !broken(g, "no such value", v < 0 || v >= g->value_count);
}

int hp_graph_input(hp_graph *g, const int dim[4])
{
    int v = add_value(g, dim);

    if (v >= 0 && !broken(g, "too many inputs", g->input_count == HP_GRAPH_PORTS)) {
        g->value[v].input = g->input_count++;
        g->value[v].first = -1;
    }
    return v;
}

static hp_op op_of(hp_op_kind kind, int a, int b, int c)
{
    return (hp_op){.kind = kind,
                   .in = {a, b, c},
                   .nd = 3,
                   .k = {1, 1, 1},
                   .stride = {1, 1, 1},
                   .dilation = {1, 1, 1}};
}

int hp_graph_conv(hp_graph *g, int x, const hp_conv *c, int add)
{
    hp_op op = op_of(HP_OP_CONV, x, add, -1);
    int dim[4];

    if (!is_value(g, x) || broken(g, "weights missing", c->weight == NULL))
        return -1;
    for (int a = 0; a < 3; a++) {
        op.k[a] = c->k[a];
        op.stride[a] = c->stride[a];
        op.dilation[a] = c->dilation[a];
        if (broken(g, "even kernel or bad stride", c->k[a] % 2 == 0 || c->stride[a] < 1))
            return -1;
        dim[a] = (g->value[x].dim[a] + c->stride[a] - 1) / c->stride[a];
    }
    dim[3] = c->cout;
    op.nd = c->nd;
    op.relu = c->relu;
    op.weight = c->weight;
    op.bias = c->bias;
    if (add >= 0 &&
        (!is_value(g, add) ||
         broken(g, "added shape", memcmp(g->value[add].dim, dim, sizeof dim) != 0)))
        return -1;
    return add_op(g, op, dim);
}

int hp_graph_merge(hp_graph *g, int skip, int low, const int stride[3])
{
    hp_op op = op_of(HP_OP_MERGE, skip, low, -1);

    if (!is_value(g, skip) || !is_value(g, low))
        return -1;
    for (int a = 0; a < 3; a++) {
        op.stride[a] = stride[a];
        if (broken(g, "merged shape",
                   g->value[low].dim[a] * stride[a] < g->value[skip].dim[a]))
            return -1;
    }
    if (broken(g, "merged channels", g->value[low].dim[3] != g->value[skip].dim[3]))
        return -1;
    return add_op(g, op,
                  (int[4]){g->value[skip].dim[0], g->value[skip].dim[1],
                           g->value[skip].dim[2], g->value[skip].dim[3]});
}

int hp_graph_unfold(hp_graph *g, int skip, int low, const int stride[3],
                    const float *bias, bool relu)
{
    hp_op op = op_of(HP_OP_UNFOLD, skip, low, -1);
    int n = stride[0] * stride[1] * stride[2], dim[4];

    if (!is_value(g, skip) || !is_value(g, low) ||
        broken(g, "bias missing", bias == NULL) ||
        broken(g, "unfolded channels", g->value[low].dim[3] % n != 0))
        return -1;
    for (int a = 0; a < 3; a++) {
        op.stride[a] = stride[a];
        dim[a] = g->value[skip].dim[a];
        if (broken(g, "unfolded shape", g->value[low].dim[a] * stride[a] < dim[a]))
            return -1;
    }
    dim[3] = g->value[skip].dim[3] + g->value[low].dim[3] / n;
    op.bias = bias;
    op.relu = relu;
    return add_op(g, op, dim);
}

int hp_graph_maxpool(hp_graph *g, int x)
{
    if (!is_value(g, x))
        return -1;
    return add_op(g, op_of(HP_OP_MAXPOOL, x, -1, -1),
                  (int[4]){g->value[x].dim[0], (g->value[x].dim[1] + 1) / 2,
                           (g->value[x].dim[2] + 1) / 2, g->value[x].dim[3]});
}

static int cells(const hp_value *v)
{
    return v->dim[0] * v->dim[1] * v->dim[2];
}

int hp_graph_assign(hp_graph *g, int x, const float *codewords, const float *scale, int k)
{
    hp_op op = op_of(HP_OP_ASSIGN, x, -1, -1);

    if (!is_value(g, x) ||
        broken(g, "codewords missing", codewords == NULL || scale == NULL))
        return -1;
    op.weight = codewords;
    op.bias = scale;
    return add_op(g, op, (int[4]){1, 1, cells(&g->value[x]), k});
}

int hp_graph_encode(hp_graph *g, int x, int assign, int mask, const float *codewords)
{
    hp_op op = op_of(HP_OP_ENCODE, x, assign, mask);

    if (!is_value(g, x) || !is_value(g, assign) || !is_value(g, mask) ||
        broken(g, "mask size",
               hp_value_count(&g->value[mask]) != (size_t)cells(&g->value[x])))
        return -1;
    op.weight = codewords;
    return add_op(g, op, (int[4]){1, 1, g->value[assign].dim[3], g->value[x].dim[3]});
}

int hp_graph_l2(hp_graph *g, int x)
{
    if (!is_value(g, x))
        return -1;
    return add_op(g, op_of(HP_OP_L2, x, -1, -1),
                  (int[4]){1, 1, 1, (int)hp_value_count(&g->value[x])});
}

int hp_graph_fc(hp_graph *g, int x, const float *weight, const float *bias, int n)
{
    hp_op op = op_of(HP_OP_FC, x, -1, -1);

    if (!is_value(g, x) || broken(g, "weights missing", weight == NULL || bias == NULL))
        return -1;
    op.weight = weight;
    op.bias = bias;
    return add_op(g, op, (int[4]){1, 1, 1, n});
}

/* --- names ------------------------------------------------------------- */

static hp_stage_name *add_stage(hp_graph *g, int value, const char *name)
{
    hp_stage_name *s;

    if (!is_value(g, value) ||
        !grow(g, (void **)&g->stage, g->stage_count, &g->stage_cap, sizeof *g->stage))
        return NULL;
    s = &g->stage[g->stage_count++];
    *s = (hp_stage_name){.value = value, .c_count = g->value[value].dim[3]};
    snprintf(s->name, sizeof s->name, "%s", name);
    return s;
}

void hp_graph_stage(hp_graph *g, int value, const char *fmt, ...)
{
    char name[HP_GRAPH_NAME];
    va_list args;

    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    add_stage(g, value, name);
}

void hp_graph_stage_part(hp_graph *g, int value, int first, int count, const char *name)
{
    hp_stage_name *s = add_stage(g, value, name);

    if (s != NULL) {
        s->c_first = first;
        s->c_count = count;
    }
}

void hp_graph_stage_rows(hp_graph *g, int value, const char *name)
{
    hp_stage_name *s = add_stage(g, value, name);

    if (s != NULL)
        s->rows = true;
}

void hp_graph_output(hp_graph *g, int value, const char *name)
{
    hp_stage_name *s = add_stage(g, value, name);

    if (s != NULL && !broken(g, "too many outputs", g->output_count == HP_GRAPH_PORTS)) {
        s->output = true;
        g->output_count++;
    }
}

/* --- planning ---------------------------------------------------------- */

static void find_lifetimes(hp_graph *g)
{
    for (int i = 0; i < g->op_count; i++)
        for (int k = 0; k < 3; k++)
            if (g->op[i].in[k] >= 0)
                g->value[g->op[i].in[k]].last = i;
    for (int i = 0; i < g->stage_count; i++)
        if (g->stage[i].output)
            g->value[g->stage[i].value].last = g->op_count;
    for (int i = 0; i < g->value_count; i++) /* written, never read: still needs room */
        if (g->value[i].last < g->value[i].first)
            g->value[i].last = g->value[i].first;
}

/* A result may lie on the value it adds (or scales) when that is its last reader. */
static void share_storage(hp_graph *g)
{
    for (int i = 0; i < g->op_count; i++) {
        hp_op *op = &g->op[i];
        int under = op->kind == HP_OP_CONV                            ? op->in[1]
                    : op->kind == HP_OP_MERGE || op->kind == HP_OP_L2 ? op->in[0]
                                                                      : -1;

        if (under < 0 || g->value[under].input >= 0 || g->value[under].last != i ||
            under == (op->kind == HP_OP_CONV ? op->in[0] : op->in[1]))
            continue;
        op->in_place = true;
        g->value[op->out].root = g->value[under].root;
    }
}

static bool overlap_in_time(const hp_value *a, const hp_value *b)
{
    return a->first <= b->last && b->first <= a->last;
}

static size_t padded(const hp_value *v)
{
    return (hp_value_count(v) + ALIGN_FLOATS - 1) / ALIGN_FLOATS * ALIGN_FLOATS;
}

typedef struct layout {
    const hp_graph *g;
    const size_t *size;
    size_t *at;
    int *order; /* those that need room, largest first */
    int count;
} layout;

/* The lowest place where value `i` meets none of the `placed` first ones that are
 * alive with it. */
static size_t lowest_gap(const layout *l, int i, int placed)
{
    size_t at = 0;

    for (bool moved = true; moved;) {
        moved = false;
        for (int k = 0; k < placed; k++) {
            int o = l->order[k];

            if (overlap_in_time(&l->g->value[i], &l->g->value[o]) &&
                at < l->at[o] + l->size[o] && l->at[o] < at + l->size[i]) {
                at = l->at[o] + l->size[o];
                moved = true;
            }
        }
    }
    return at;
}

hp_code hp_graph_lay_out(const hp_graph *g, const size_t *size, size_t *ret_at,
                         size_t *ret_total, hp_error *reterr)
{
    layout l = {.g = g, .size = size, .at = ret_at};
    size_t total = 0;

    l.order = malloc((size_t)(g->value_count + 1) * sizeof *l.order);
    if (l.order == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "planning");
    for (int i = 0; i < g->value_count; i++)
        if (size[i] > 0)
            l.order[l.count++] = i;
    for (int i = 1; i < l.count; i++) /* few values, so insertion */
        for (int j = i; j > 0 && size[l.order[j]] > size[l.order[j - 1]]; j--) {
            int t = l.order[j];

            l.order[j] = l.order[j - 1];
            l.order[j - 1] = t;
        }
    for (int k = 0; k < l.count; k++) {
        int i = l.order[k];

        ret_at[i] = lowest_gap(&l, i, k);
        if (ret_at[i] + size[i] > total)
            total = ret_at[i] + size[i];
    }
    free(l.order);
    *ret_total = total;
    return HP_OK;
}

/* A storage lives to its last tenant. */
static void extend_roots(hp_graph *g)
{
    for (int i = 0; i < g->value_count; i++) {
        hp_value *v = &g->value[i], *root = &g->value[v->root];

        if (v->input < 0 && v != root && v->last > root->last)
            root->last = v->last;
    }
}

static hp_code place(hp_graph *g, size_t *size, size_t *at, hp_error *reterr)
{
    hp_code r;

    for (int i = 0; i < g->value_count; i++) {
        const hp_value *v = &g->value[i];

        size[i] = v->input < 0 && v->root == i ? padded(v) : 0;
    }
    r = hp_graph_lay_out(g, size, at, &g->arena_floats, reterr);
    for (int i = 0; i < g->value_count && r == HP_OK; i++) {
        hp_value *v = &g->value[i];

        v->offset = v->input >= 0 ? HP_GRAPH_EXTERNAL : (ptrdiff_t)at[v->root];
    }
    return r;
}

hp_code hp_graph_plan(hp_graph *g, hp_error *reterr)
{
    size_t *room; /* sizes, then places */
    hp_code r;

    if (g->error.code != HP_OK) {
        if (reterr != NULL)
            *reterr = g->error;
        return g->error.code;
    }
    room = calloc((size_t)(2 * g->value_count + 1), sizeof *room);
    if (room == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "planning");
    find_lifetimes(g);
    share_storage(g);
    extend_roots(g);
    r = place(g, room, room + g->value_count, reterr);
    free(room);
    return r;
}

void hp_graph_copy_out(const hp_graph *g, int item, hp_floats_fn *floats_of,
                       void *payload, float *const *out)
{
    for (int s = 0, k = 0; s < g->stage_count; s++) {
        int v = g->stage[s].value;
        size_t n = hp_value_count(&g->value[v]);

        if (!g->stage[s].output)
            continue;
        if (out[k] != NULL)
            memcpy(out[k] + (size_t)item * n, floats_of(v, item, payload),
                   n * sizeof(float));
        k++;
    }
}

double hp_graph_gmac(const hp_graph *g)
{
    double mac = 0;

    for (int i = 0; i < g->op_count; i++) {
        const hp_op *op = &g->op[i];

        if (op->kind == HP_OP_CONV)
            mac += (double)hp_value_count(&g->value[op->out]) * op->k[0] * op->k[1] *
                   op->k[2] * g->value[op->in[0]].dim[3];
    }
    return mac * 1e-9;
}
