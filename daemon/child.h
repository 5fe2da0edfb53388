/* The child's end of the socketpair: JSON lines over fd 3, for hepar-worker
 * and hepar-sender. No libuv here.
 *
 *   int main(void)
 *   {
 *       hp_child_start();
 *       while (hp_child_read(&msg) == HP_OK) ...   // HP_E_EMPTY: end, return 0
 *   }
 */
#ifndef HP_DAEMON_CHILD_H
#define HP_DAEMON_CHILD_H

#include "base/json.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { HP_CHILD_FD = 3, HP_CHILD_MAX_LINE = 16 << 20 };

/* How `hepar-worker --check` ends, by what is at fault. 0: nothing, and what would
 * serve is one JSON value on stdout (hp_job_inference_to_json()). */
enum { HP_CHECK_BUNDLE = 1, HP_CHECK_DEVICE = 3, HP_CHECK_PRECISION = 4 };

/* Dies with its parent (PDEATHSIG, and getppid checked again, for the parent
 * may be gone already), ignores SIGPIPE and SIGINT. Exits when fd 3 is not
 * there: this program is not started by hand. */
void hp_child_start(void);
/* Blocks for the next message; yours. HP_E_EMPTY: hepard has gone. */
hp_code hp_child_read(json_t **ret, hp_error *reterr);
/* One line; takes the message. Thread-safe. Exits the process when hepard has
 * gone: nobody is left to work for. */
void hp_child_write_take(json_t *msg);

#ifdef __cplusplus
}
#endif
#endif
