/* The scheduler's two halves: reading (workers) and delivery (senders). */
#ifndef HP_DAEMON_SCHEDULER_INTERNAL_H
#define HP_DAEMON_SCHEDULER_INTERNAL_H

#include "daemon/scheduler.h"
#include "daemon/supervise.h"

typedef struct hp_reading hp_reading;
typedef struct hp_delivering hp_delivering;

/* workers: readiness, claims, runs */
json_t *hp_reading_options(const hp_config *c);
hp_code hp_reading_open(uv_loop_t *loop, const hp_config *config, hp_ledger *ledger,
                        void (*reported)(void *payload), void *payload, hp_reading **ret,
                        hp_error *reterr);
void hp_reading_close(hp_reading *r, void (*cb)(void *payload), void *payload);
void hp_reading_bell(hp_reading *r);
void hp_reading_cancelled(hp_reading *r, int64_t job);
json_t *hp_reading_progress(const hp_reading *r);

/* senders: one peer's queue does not wait for another's */
hp_code hp_delivering_open(uv_loop_t *loop, const hp_config *config, hp_ledger *ledger,
                           hp_delivering **ret, hp_error *reterr);
void hp_delivering_close(hp_delivering *d, void (*cb)(void *payload), void *payload);
void hp_delivering_bell(hp_delivering *d);
json_t *hp_delivering_progress(const hp_delivering *d);
void hp_delivering_echo(hp_delivering *d, const hp_config_peer *peer, hp_echo_cb cb,
                        void *payload);

#endif
