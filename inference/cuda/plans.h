/* The plan for each layer: remembered, or searched, compared and timed once. */
#ifndef HP_INFERENCE_CUDA_PLANS_H
#define HP_INFERENCE_CUDA_PLANS_H

#include "inference/cuda/conv.h"
#include "inference/cuda/gpu.h"
#include "inference/cuda/plan_cache.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_plans hp_plans;

/* Borrows all three. on_note (optional) hears of every engine that was struck off:
 * layer, engine, error. */
hp_code hp_plans_new(hp_gpu *g, hp_cudnn *c, hp_plan_cache *cache,
                     void (*on_note)(const char *line, void *payload), void *payload,
                     hp_plans **ret, hp_error *reterr);
void hp_plans_free(hp_plans *p);
HP_AUTO_DEFINE(hp_plans, hp_plans_free)

/* *ret runs as candidate 0, and lives as long as `p`. HP_E_UNSUPPORTED: no engine
 * computes this layer right. */
hp_code hp_plans_find(hp_plans *p, const hp_layer *l, hp_cudnn_conv **ret,
                      hp_error *reterr);
/* Gives the device memory of comparing and timing back; the next find takes it
 * again. Call it when a network's layers are all found. */
void hp_plans_rest(hp_plans *p);

#ifdef __cplusplus
}
#endif
#endif
