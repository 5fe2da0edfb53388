/* One convolution on cuDNN's graph API, with what is fused behind it.
 *
 * y = relu?(conv(x, w) + z? + bias?), in this order: the precompiled engines know
 * conv + add + bias + ReLU, and none the other order of the two sums. Only
 * engines that are compiled ahead are taken: those that compile at run time need
 * NVRTC, the driver and seconds.
 *
 * A hp_cudnn is either a device with its handle, or a device described in JSON:
 * the second finds the same engines on a machine without a GPU, and runs nothing.
 * One thread at a time.
 */
#ifndef HP_INFERENCE_CUDA_CONV_H
#define HP_INFERENCE_CUDA_CONV_H

#include "base/auto.h"
#include "base/error.h"
#include "inference/cuda/layer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Before 9.15 cuDNN computed some 3D convolutions wrong, and said nothing. */
enum { HP_CUDNN_OLDEST = 91500 };

typedef struct hp_cudnn hp_cudnn;

/* HP_E_UNSUPPORTED for a version (91900 = 9.19.0) that is not to be trusted. */
hp_code hp_cudnn_check_version(size_t version, hp_error *reterr);
size_t hp_cudnn_version(void);

/* The current CUDA device; work is queued on `stream`, a cudaStream_t. */
hp_code hp_cudnn_open(void *stream, hp_cudnn **ret, hp_error *reterr);
/* No device: what cuDNN would do on one with these properties. */
hp_code hp_cudnn_open_described(const char *json, hp_cudnn **ret, hp_error *reterr);
void hp_cudnn_close(hp_cudnn *c);
HP_AUTO_DEFINE(hp_cudnn, hp_cudnn_close)

/* Which engine, set how: enough to build the plan again. */
enum { HP_ENGINE_KNOBS = 32 };
typedef struct hp_engine {
    int64_t index;
    int knobs;
    struct {
        int type;
        int64_t value;
    } knob[HP_ENGINE_KNOBS];
} hp_engine;

typedef struct hp_cudnn_conv hp_cudnn_conv;

/* Describes the layer; there is no plan yet. Borrows `c`. */
hp_code hp_cudnn_conv_new(hp_cudnn *c, const hp_layer *l, hp_cudnn_conv **ret,
                          hp_error *reterr);
void hp_cudnn_conv_free(hp_cudnn_conv *v);
HP_AUTO_DEFINE(hp_cudnn_conv, hp_cudnn_conv_free)

/* Asks the heuristics for precompiled engines, best first, each tried as a plan.
 * At most `max` stay. HP_E_UNSUPPORTED names the layer that has none. */
hp_code hp_cudnn_conv_ask(hp_cudnn_conv *v, int max, int *ret_count, hp_error *reterr);
const hp_engine *hp_cudnn_conv_engine(const hp_cudnn_conv *v, int i);
/* Makes this engine's plan the only candidate: what a cache holds. */
hp_code hp_cudnn_conv_take(hp_cudnn_conv *v, const hp_engine *e, hp_error *reterr);
/* Drops candidate i; those behind it move up. */
void hp_cudnn_conv_strike(hp_cudnn_conv *v, int i);
size_t hp_cudnn_conv_workspace(const hp_cudnn_conv *v, int i); /* bytes */

/* Queues candidate i. Device pointers; z and bias NULL where the layer has none. */
hp_code hp_cudnn_conv_run(hp_cudnn_conv *v, int i, const void *x, const void *w,
                          const void *z, const void *bias, void *y, void *workspace,
                          hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
