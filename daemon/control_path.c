/* Where the control socket lies. */
#include "daemon/control_path.h"

#include <string.h>
#include <sys/un.h>

hp_code hp_control_path(const hp_config *config, char ret[HP_PATH_MAX], hp_error *reterr)
{
    const struct sockaddr_un *un = NULL;
    hp_code code = hp_path_fmt(ret, reterr, "%s/control.sock", config->state_dir);

    if (code == HP_OK && strlen(ret) >= sizeof un->sun_path)
        return hp_fail(reterr, HP_E_LIMIT,
                       "state_dir is too long for a UNIX socket (at most %zu characters)",
                       sizeof un->sun_path - sizeof "/control.sock");
    return code;
}
