/* The control socket: what heparctl asks of a living daemon. A UNIX socket,
 * 0660, one JSON line in, one out, any number of times.
 *
 *   {"do":"retry","id":"41"}        -> {"code":"OK","job":41}
 *   {"do":"cancel","id":UID}        -> {"code":"OK","job":41}
 *   {"do":"echo","peer":"pacs"}     -> {"code":"OK","ms":12.5} or a code and words
 *   {"do":"progress"}               -> {"code":"OK","workers":[...],"senders":[...]}
 *   {"do":"status"}                 -> {"code":"OK","pid":..,"uptime_s":..,...}
 *
 * A failure is {"code":"E_...","words":"..."}.
 */
#ifndef HP_DAEMON_CONTROL_H
#define HP_DAEMON_CONTROL_H

#include "daemon/control_path.h"
#include "daemon/intake.h"
#include "daemon/scheduler.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_control hp_control;

/* Binds state_dir/control.sock; a stale one is replaced (the state's lock is
 * held). */
hp_code hp_control_open(uv_loop_t *loop, const hp_config *config, hp_ledger *ledger,
                        hp_scheduler *scheduler, hp_control **ret, hp_error *reterr);
/* Its counters show in "status"; NULL: none (any more). */
void hp_control_set_intake(hp_control *c, const hp_intake *intake);
/* Closes the socket and every connection, then calls cb. */
void hp_control_close(hp_control *c, void (*cb)(void *payload), void *payload);

#ifdef __cplusplus
}
#endif
#endif
