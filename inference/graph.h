/* A network as a list of fused operations over NDHWC tensors, and its memory.
 *
 * A net builder (net_*.c) appends operations in execution order; there is no
 * other order to find. Fusion happens as the graph is written: a convolution
 * carries its bias, the tensor it adds and its ReLU, in that order. The plan
 * then gives each value a place in one arena by lifetime; a convolution that
 * adds a value nobody reads later writes over it, and a norm over what it scales.
 *
 * Values are one item's: (D, H, W, C), D = 1 in two dimensions. A run takes `batch`
 * items, one after another in each input and output, and no item sees another.
 * Weights are borrowed and must outlive the graph and what a back end compiled from it.
 * The first failure sticks: appending on is harmless, hp_graph_plan() reports.
 */
#ifndef HP_INFERENCE_GRAPH_H
#define HP_INFERENCE_GRAPH_H

#include <stdbool.h>
#include <stddef.h>

#include "base/auto.h"
#include "base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { HP_GRAPH_NAME = 40, HP_GRAPH_EXTERNAL = -1, HP_GRAPH_PORTS = 8 };

typedef enum hp_op_kind {
    HP_OP_CONV,    /* out = relu?(conv(in0) + bias? + in1?) */
    HP_OP_MERGE,   /* out = in0 + nearest(in1) by `stride`, cropped to in0 */
    HP_OP_UNFOLD,  /* out = concat(in0, relu?(depth_to_space(in1) + bias)), cropped */
    HP_OP_MAXPOOL, /* 3x3, stride 2, padding 1, in plane */
    HP_OP_ASSIGN,  /* (M, K): softmax over codewords (eq. 4) */
    HP_OP_ENCODE,  /* (K, D): masked sums (eq. 6); in0 = x, in1 = assign, in2 = mask */
    HP_OP_L2,      /* the whole value to unit length */
    HP_OP_FC       /* weight (n, count) */
} hp_op_kind;

typedef struct hp_op {
    hp_op_kind kind;
    int in[3], out;                   /* values; -1: none */
    int nd;                           /* 2 or 3 */
    int k[3], stride[3], dilation[3]; /* z, y, x */
    bool relu, in_place;              /* in_place: out lies on the added value */
    const float *weight, *bias;       /* O I (D) H W as stored; bias NULL: none */
} hp_op;

typedef struct hp_value {
    int dim[4];       /* D, H, W, C */
    int input;        /* index of the graph input, or -1 */
    ptrdiff_t offset; /* floats into the arena; HP_GRAPH_EXTERNAL for inputs */
    int root;         /* value whose storage this one shares (itself if none) */
    int first, last;  /* operations that write and last read it */
} hp_value;

/* A value one can ask for by name: the stages of golden tensors, the outputs. */
typedef struct hp_stage_name {
    char name[HP_GRAPH_NAME];
    int value;
    int c_first, c_count; /* a part of the channels */
    bool output;
    bool rows; /* (rows, C) already in the order PyTorch has, not channels last */
} hp_stage_name;

typedef struct hp_graph {
    hp_op *op;
    int op_count, op_cap;
    hp_value *value;
    int value_count, value_cap;
    hp_stage_name *stage;
    int stage_count, stage_cap;
    int input_count, output_count;
    int batch; /* items of a run: 1, until somebody sets it before it is compiled */
    bool fp32; /* set likewise: stored so where the device can, whatever its precision */
    size_t arena_floats; /* for one item */
    hp_error error;      /* the first failure */
} hp_graph;

hp_code hp_graph_new(hp_graph **ret, hp_error *reterr);
void hp_graph_free(hp_graph *g);
HP_AUTO_DEFINE(hp_graph, hp_graph_free)

size_t hp_value_count(const hp_value *v); /* D*H*W*C */

/* At most HP_GRAPH_PORTS inputs, and as many outputs. */
int hp_graph_input(hp_graph *g, const int dim[4]);

typedef struct hp_conv {
    int nd, cout, k[3], stride[3], dilation[3];
    bool relu;
    const float *weight, *bias;
} hp_conv;
/* Padding dilation*(k-1)/2, so a stride gives ceil(n / stride). add: -1 or a value
 * of the result's shape. */
int hp_graph_conv(hp_graph *g, int x, const hp_conv *c, int add);
int hp_graph_merge(hp_graph *g, int skip, int low, const int stride[3]);
int hp_graph_unfold(hp_graph *g, int skip, int low, const int stride[3],
                    const float *bias, bool relu);
int hp_graph_maxpool(hp_graph *g, int x);
int hp_graph_assign(hp_graph *g, int x, const float *codewords, const float *scale,
                    int k);
int hp_graph_encode(hp_graph *g, int x, int assign, int mask, const float *codewords);
int hp_graph_l2(hp_graph *g, int x);
int hp_graph_fc(hp_graph *g, int x, const float *weight, const float *bias, int n);

/* Names a stage (checked for finite values as it is made). */
void hp_graph_stage(hp_graph *g, int value, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Channels [first, first + count) of a value as a stage. */
void hp_graph_stage_part(hp_graph *g, int value, int first, int count, const char *name);
void hp_graph_stage_rows(hp_graph *g, int value, const char *name);
/* Names an output: it lives to the end. */
void hp_graph_output(hp_graph *g, int value, const char *name);

/* Lays the values out in the arena. */
hp_code hp_graph_plan(hp_graph *g, hp_error *reterr);
/* The same for a device that stores values its own way: size[value] in any unit, 0:
 * no room. Values alive at the same time do not overlap; nothing is shared, so
 * in_place and root do not hold there. The graph is planned. */
hp_code hp_graph_lay_out(const hp_graph *g, const size_t *size, size_t *ret_at,
                         size_t *ret_total, hp_error *reterr);

/* Copies an item's named outputs, in the order they were named, to its place in
 * out[]; NULL skips one. floats_of: where that item's floats of a value lie. */
typedef const float *hp_floats_fn(int value, int item, void *payload);
void hp_graph_copy_out(const hp_graph *g, int item, hp_floats_fn *floats_of,
                       void *payload, float *const *out);

double hp_graph_gmac(const hp_graph *g);

#ifdef __cplusplus
}
#endif
#endif
