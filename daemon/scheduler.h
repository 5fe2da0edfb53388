/* Who does what next: ready studies to workers, finished reports to senders.
 *
 * Decides nothing about readiness, states or back-off: db/ does. Here is only
 * the clockwork that asks at the right time and carries the answers between
 * ledger and children. Loop thread only.
 */
#ifndef HP_DAEMON_SCHEDULER_H
#define HP_DAEMON_SCHEDULER_H

#include "base/json.h"
#include "daemon/ledger.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_scheduler hp_scheduler;

/* The "options" of every run, as a worker takes them. Yours; NULL: no memory. */
json_t *hp_scheduler_run_options(const hp_config *config);

/* `config` and `ledger` must outlive it. Starts looking for work at once. */
hp_code hp_scheduler_open(uv_loop_t *loop, const hp_config *config, hp_ledger *ledger,
                          hp_scheduler **ret, hp_error *reterr);
/* Ends the children (running jobs go back to ready at the next start), then
 * calls cb. Ledger calls may still come until then. */
void hp_scheduler_close(hp_scheduler *s, void (*cb)(void *payload), void *payload);

/* Something may have changed (a retry, say): look at everything again. */
void hp_scheduler_bell(hp_scheduler *s);
/* The job was cancelled in the ledger: end the worker that has it, if any. */
void hp_scheduler_cancelled(hp_scheduler *s, int64_t job);

/* What is going on, for heparctl: {"workers":[{job, run, stage, fraction,
 * seconds}], "senders":[...]}. Yours. */
json_t *hp_scheduler_progress(const hp_scheduler *s);

/* C-ECHO to a configured peer by a sender process; answer: the sender's
 * "echo" message, borrowed, or NULL with words when it could not be asked. */
typedef void (*hp_echo_cb)(const json_t *answer, const char *words, void *payload);
void hp_scheduler_echo(hp_scheduler *s, const hp_config_peer *peer, hp_echo_cb cb,
                       void *payload);

#ifdef __cplusplus
}
#endif
#endif
