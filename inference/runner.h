/* A network on a back end, compiled once for each input size and batch it meets. */
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

/* Before its first run: the network keeps to fp32 on a device that has it, whatever
 * precision the back end was opened with. */
void hp_runner_keep_fp32(hp_runner *r);

/* Milliseconds spent so far on making it ready for the sizes that it met. */
double hp_runner_compile_ms(const hp_runner *r);

/* Items that are best handed over at once: 1 where more would only cost memory. */
int hp_runner_batch(const hp_runner *r);

/* Runs `count` items of `size` (z, y, x); see hp_backend_ops.run. They may run in several
 * batches, and where those do not fit in smaller ones: an item's result does not depend
 * on that. */
hp_code hp_runner_run(hp_runner *r, const int size[3], int count, const hp_ports *p,
                      hp_stage_fn *on_stage, void *payload, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
