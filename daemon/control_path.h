/* Where the control socket lies; needs no libuv. */
#ifndef HP_DAEMON_CONTROL_PATH_H
#define HP_DAEMON_CONTROL_PATH_H

#include "config/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* state_dir/control.sock; HP_E_LIMIT when a UNIX socket cannot have that name. */
hp_code hp_control_path(const hp_config *config, char ret[HP_PATH_MAX], hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
