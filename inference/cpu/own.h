/* Which convolutions kernels/ computes itself on the CPU, and which of its kernels.
 *
 * They need AVX-512; all else, and every other CPU, is oneDNN's. */
#ifndef HP_INFERENCE_CPU_OWN_H
#define HP_INFERENCE_CPU_OWN_H

#include "inference/graph.h"
#include "kernels/conv_image.h"
#include "kernels/conv_rows.h"
#include "kernels/conv_wide.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum hp_own_kind {
    HP_OWN_NONE,
    HP_OWN_ROWS,
    HP_OWN_WIDE,
    HP_OWN_IMAGE
} hp_own_kind;

typedef struct hp_own {
    hp_own_kind kind;
    union {
        hp_conv_plain plain; /* ROWS, WIDE */
        hp_conv_image image;
    };
} hp_own;

/* The kernel for `op`, where there is one and it is faster or nearer to fp32.
 * narrow[value]: stored in bf16. */
hp_own hp_own_for(const hp_graph *g, const bool *narrow, const hp_op *op);
/* Whether kernels/conv_image alone reads this value, an image, which then stays in
 * floats where others are narrowed. */
bool hp_own_reads_image(const hp_graph *g, const bool *narrow, int value);

/* As in the kernels' headers: floats of packed weights and of work memory. A weight has
 * one kind of kernel whatever the size, and is packed the same for it. */
size_t hp_own_packed(const hp_own *o);
size_t hp_own_work(const hp_own *o, int threads);
void hp_own_pack(const hp_own *o, const float *weight, float *packed);
/* Whether all of out is finite. */
bool hp_own_run(const hp_own *o, const void *in, const float *packed, const float *bias,
                const void *plus, float *work, void *out);

#ifdef __cplusplus
}
#endif
#endif
