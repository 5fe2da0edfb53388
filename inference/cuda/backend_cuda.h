/* The CUDA back end: what the module's one symbol points to. */
#ifndef HP_INFERENCE_CUDA_BACKEND_CUDA_H
#define HP_INFERENCE_CUDA_BACKEND_CUDA_H

#include "inference/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const hp_backend_ops hp_backend_cuda;

#ifdef __cplusplus
}
#endif
#endif
