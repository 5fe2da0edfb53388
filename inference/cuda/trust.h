/* Trust at start: what an engine computes, beside the plain sum that defines it.
 *
 * cuDNN has had engines that computed large 3D convolutions wrong and said nothing.
 * So a plan runs once at its real size, where such faults show, on numbers that are
 * known, over a result full of NaN; then sampled voxels (the corners, and others
 * all over) are compared with the plain sum in double. Every channel takes its turn
 * at one of them.
 */
#ifndef HP_INFERENCE_CUDA_TRUST_H
#define HP_INFERENCE_CUDA_TRUST_H

#include "inference/cuda/conv.h"
#include "inference/cuda/gpu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A layer's tensors on the device, filled with known numbers; reused for layers
 * that follow, so memory is asked for once. */
typedef struct hp_bench hp_bench;

hp_code hp_bench_new(hp_gpu *g, hp_bench **ret, hp_error *reterr);
void hp_bench_free(hp_bench *b);
HP_AUTO_DEFINE(hp_bench, hp_bench_free)

/* Makes it the bench of `l`: plans of that layer may run on it until the next call. */
hp_code hp_bench_set(hp_bench *b, const hp_layer *l, hp_error *reterr);

/* HP_E_MISMATCH: the engine is wrong (or did not run at all), and the error says by
 * how much. HP_E_NO_MEMORY: no room for its workspace. HP_E_DEVICE as everywhere. */
hp_code hp_bench_compare(hp_bench *b, hp_cudnn_conv *v, int candidate, hp_error *reterr);
/* The best of a few runs. */
hp_code hp_bench_time(hp_bench *b, hp_cudnn_conv *v, int candidate, double *ret_us,
                      hp_error *reterr);

/* The twin: one value of the set layer's result, before it is rounded, and the sum
 * of all terms' magnitudes, to which its error is proportional. */
double hp_bench_expect(const hp_bench *b, const int at[4] /* item, z, y, x */,
                       int channel, double *ret_magnitude);
/* The bench's numbers as they are stored: value i of the image 'x', the weights 'w'
 * (O (D) H W I), the added value 'z', the bias 'b'. */
uint16_t hp_bench_number(const hp_layer *l, char tensor, size_t i);

#ifdef __cplusplus
}
#endif
#endif
