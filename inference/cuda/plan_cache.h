/* What earlier starts found out about layers: which engine is right and fastest.
 *
 * A text file of one line a layer, under a line that says for which device,
 * driver, cuDNN and interface it holds; for any other it is as good as empty. It
 * is only ever a shortcut: a damaged line is dropped, a missing or unwritable file
 * costs the search again. One thread; several processes may share the file, and
 * the last one to save wins.
 */
#ifndef HP_INFERENCE_CUDA_PLAN_CACHE_H
#define HP_INFERENCE_CUDA_PLAN_CACHE_H

#include "inference/cuda/conv.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_plan_cache hp_plan_cache;

/* `path` NULL: remembered for this process alone. `device` names everything that
 * a plan depends on, in one line. */
hp_code hp_plan_cache_open(const char *path, const char *device, hp_plan_cache **ret,
                           hp_error *reterr);
void hp_plan_cache_free(hp_plan_cache *c);
HP_AUTO_DEFINE(hp_plan_cache, hp_plan_cache_free)

int hp_plan_cache_count(const hp_plan_cache *c);
/* NULL: not known. Valid until the next put or drop. */
const hp_engine *hp_plan_cache_find(const hp_plan_cache *c, const char *key);
/* Remembers an engine that was compared and timed, in place of an earlier one. */
hp_code hp_plan_cache_put(hp_plan_cache *c, const char *key, const hp_engine *e,
                          double microseconds, hp_error *reterr);
void hp_plan_cache_drop(hp_plan_cache *c, const char *key);
/* Writes the file when something changed. */
hp_code hp_plan_cache_save(hp_plan_cache *c, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
