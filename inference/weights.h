/* The weights of one network: f32 arrays by key.
 *
 * A builder takes each key with the shape it needs. The first missing or
 * misshapen key sticks and hp_weights_finish() reports it; a key that nobody
 * took is an error too. Pointers stay valid for the life of the object.
 */
#ifndef HP_INFERENCE_WEIGHTS_H
#define HP_INFERENCE_WEIGHTS_H

#include <stdint.h>

#include "inference/safetensors.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_weights hp_weights;

/* All tensors whose name begins with `prefix`, without it. Every value must be
 * finite. */
hp_code hp_weights_from(const hp_safetensors *s, const char *prefix, hp_weights **ret,
                        hp_error *reterr);
/* Seeded He weights (finite in fp16 at any width), made when a key is taken: for networks
 * that exist as parameters only. */
hp_code hp_weights_random(uint64_t seed, hp_weights **ret, hp_error *reterr);
/* Shapes alone, for looking at a network's graph: the values must not be read, and
 * memory is not touched, so that 569 M parameters cost none. */
hp_code hp_weights_blank(hp_weights **ret, hp_error *reterr);
void hp_weights_free(hp_weights *w);
HP_AUTO_DEFINE(hp_weights, hp_weights_free)

/* NULL on failure (which sticks). Taking a key again gives the same pointer. */
const float *hp_weights_take(hp_weights *w, const char *key, const int *dim, int rank);

/* The first failure, or HP_E_CORRUPT naming a key that was not taken. */
hp_code hp_weights_finish(const hp_weights *w, hp_error *reterr);

/* Everything as F32 tensors: for tests, and to hand a network to another program. */
hp_code hp_weights_write(const hp_weights *w, const char *path, hp_error *reterr);

/* Parameters taken so far. */
size_t hp_weights_count(const hp_weights *w);

#ifdef __cplusplus
}
#endif
#endif
