/* How a run ends: the worker's "done" message becomes files with final names
 * and rows. Loop thread; the work is done on the ledger thread. */
#ifndef HP_DAEMON_RUN_END_H
#define HP_DAEMON_RUN_END_H

#include "base/json.h"
#include "daemon/ledger.h"

#ifdef __cplusplus
extern "C" {
#endif

/* `recorded` false: dropped (an older run) or failed, which is logged. */
typedef void (*hp_run_end_cb)(bool recorded, void *payload);

/* `done` is kept until `cb` and must not change. What it says is checked: names of files
 * are bare names, the objects are there. A message that cannot be believed fails the job.
 */
void hp_run_end(hp_ledger *l, const hp_config *config, int64_t job, int run,
                const json_t *done, hp_run_end_cb cb, void *payload);

#ifdef __cplusplus
}
#endif
#endif
