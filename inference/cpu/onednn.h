/* Convolutions by oneDNN. Every oneDNN call of the house stands in onednn.c, because the
 * C API of libdnnl 2 (operation descriptors) and 3 differ.
 */
#ifndef HP_INFERENCE_CPU_ONEDNN_H
#define HP_INFERENCE_CPU_ONEDNN_H

#include "inference/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_onednn hp_onednn;           /* and the weights in its layouts */
typedef struct hp_onednn_conv hp_onednn_conv; /* ready to run */

hp_code hp_onednn_open(hp_onednn **ret, hp_error *reterr);
/* After its convolutions were freed. */
void hp_onednn_close(hp_onednn *d);

void hp_onednn_version(int ret[3]);
/* What this CPU has and oneDNN may use: our own kernels obey the same limit
 * (ONEDNN_MAX_CPU_ISA). bf16: as instructions; oneDNN emulates it on older CPUs, slower
 * than fp32 and to no use. */
bool hp_onednn_has_avx512(void);
bool hp_onednn_has_bf16(void);

/* The convolution `op` of `g` with its bias, added value and ReLU. src and dst are NHWC
 * or NDHWC in floats, or bf16. Weights are reordered once into what the primitive likes,
 * and shared by sizes. */
hp_code hp_onednn_conv_new(hp_onednn *d, const hp_graph *g, const hp_op *op,
                           bool src_bf16, bool dst_bf16, hp_onednn_conv **ret,
                           hp_error *reterr);
void hp_onednn_conv_free(hp_onednn_conv *v);
/* Bytes that a run works in. */
size_t hp_onednn_conv_scratch(const hp_onednn_conv *v);
/* dst holds the added value, where there is one. */
hp_code hp_onednn_conv_run(hp_onednn_conv *v, const void *src, void *dst, void *scratch,
                           hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
