/* A network on a back end, compiled once for each input size it meets. */
#ifndef HP_INFERENCE_RUNNER_H
#define HP_INFERENCE_RUNNER_H

#include "inference/backend.h"
#include "inference/net.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_runner hp_runner;

/* Borrows all three for its life. */
hp_code hp_runner_new(hp_backend *b, const hp_net_params *p, hp_weights *w,
                      hp_runner **ret, hp_error *reterr);
void hp_runner_free(hp_runner *r);
HP_AUTO_DEFINE(hp_runner, hp_runner_free)

/* Runs for an input of `size` (z, y, x); see hp_backend_ops.run. */
hp_code hp_runner_run(hp_runner *r, const int size[3], const float *const *in,
                      float *const *out, hp_stage_fn *on_stage, void *payload,
                      hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
