/* Children that may die: spawned with a socketpair on fd 3, spoken to in JSON
 * lines, killed when they take too long. Loop thread only.
 *
 * A child inherits fd 3 and stderr and nothing else. Its messages that were
 * written before it died are delivered before its end is.
 */
#ifndef HP_DAEMON_SUPERVISE_H
#define HP_DAEMON_SUPERVISE_H

#include <uv.h>

#include "base/buf.h"
#include "base/json.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_process hp_process;

typedef struct hp_process_events {
    /* One message, borrowed. */
    void (*on_message)(const json_t *msg, void *payload);
    /* It has ended, and everything it wrote was delivered. `words` says how:
     * "exit 1", "killed by signal 9", "killed after 1800 s". The process is
     * freed after this returns. */
    void (*on_end)(bool clean, const char *words, void *payload);
} hp_process_events;

/* Starts `program`. HP_E_NOT_FOUND, HP_E_IO: nothing was started. */
hp_code hp_process_spawn(uv_loop_t *loop, const char *program,
                         const hp_process_events *events, void *payload, hp_process **ret,
                         hp_error *reterr);
int hp_process_pid(const hp_process *p);
/* Sends one line; takes the message. */
void hp_process_send_take(hp_process *p, json_t *msg);
/* Killed in `seconds` unless told otherwise before; 0: no limit. */
void hp_process_deadline(hp_process *p, int seconds);
/* SIGKILL. on_end still comes. */
void hp_process_kill(hp_process *p);
/* Closes our end: a well-behaved child exits; one that does not within 10 s is
 * killed. on_end still comes. */
void hp_process_end(hp_process *p);

/* Runs `program` with these arguments (NULL-terminated, at most 6, the program's name
 * not among them) and waits for it; for start-up, before any loop. What it says on
 * stdout is the answer. HP_E_INVALID: it ended with a failure, *ret_status (-1: a
 * signal), and its last words on stderr are the message. */
hp_code hp_process_ask(const char *program, const char *const *args, hp_buf *ret_answer,
                       int *ret_status, hp_error *reterr);

/* The path of a program of ours: `configured` when not empty, else beside this
 * executable, else in the library folder it was installed to. */
hp_code hp_process_program(const char *configured, const char *name, char ret[],
                           hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
