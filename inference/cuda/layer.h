/* A convolution as the GPU sees it: shapes padded, type chosen. Plain values, so
 * that plans, their cache and their tests speak of layers without a device.
 *
 * Channels are padded to a multiple of 8 with zeros, in weights and activations:
 * tensor-core engines want 16-byte cells, and heads have 1 or 3 channels, images
 * 1, 4 or 5. A padded channel is zero at every step, so it adds nothing.
 */
#ifndef HP_INFERENCE_CUDA_LAYER_H
#define HP_INFERENCE_CUDA_LAYER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "inference/graph.h"
#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { HP_LAYER_KEY = 112, HP_LAYER_PAD = 8 };

/* How activations and weights are stored: HP_F16 or HP_BF16; sums are fp32. */
const char *hp_layer_type_name(hp_dtype t); /* "fp16" "bf16" */
/* HP_F32 when the name is neither. */
hp_dtype hp_layer_type_of(const char *name);
uint16_t hp_layer_half(hp_dtype t, float v); /* to nearest even */
float hp_layer_float(hp_dtype t, uint16_t v);
/* Distance between 1 and the next number: 2^-10, 2^-7. */
double hp_layer_epsilon(hp_dtype t);

typedef struct hp_layer {
    hp_dtype type;
    int nd;        /* 2 or 3 */
    int batch;     /* items in x, the added value and y */
    int x[3], cin; /* z, y, x; channels are padded */
    int y[3], cout;
    int k[3], stride[3], dilation[3], pad[3];
    bool bias, add, relu;
} hp_layer;

int hp_layer_padded(int channels);

/* The layer of a convolution of a planned graph. */
hp_layer hp_layer_of_op(const hp_graph *g, const hp_op *op, hp_dtype type);

/* "fp16 3d 4x24x44x64x256 k3,3,3 s1,1,1 d1,1,1 256 +bias +add +relu": equal layers
 * have equal keys. Returns ret. */
const char *hp_layer_key(const hp_layer *l, char ret[HP_LAYER_KEY]);

size_t hp_layer_x_count(const hp_layer *l);
size_t hp_layer_y_count(const hp_layer *l);
size_t hp_layer_w_count(const hp_layer *l);

/* O I (D) H W floats as a bundle has them, to O (D) H W I in halves with zeros
 * where channels are padded; `cout`, `cin`: the real ones. */
void hp_layer_pack_weights(const hp_layer *l, const float *w, int cout, int cin,
                           uint16_t *ret);

#ifdef __cplusplus
}
#endif
#endif
