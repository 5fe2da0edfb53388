/* Which back end serves. */
#include "inference/backend.h"

#include <string.h>

hp_code hp_backend_open(const char *device, int threads, hp_backend **ret,
                        hp_error *reterr)
{
    if (strcmp(device, "cuda") == 0)
        return hp_fail(reterr, HP_E_UNSUPPORTED,
                       "device cuda: this build has no CUDA module");
    if (strcmp(device, "cpu") != 0 && strcmp(device, "auto") != 0)
        return hp_fail(reterr, HP_E_INVALID, "device %.20s: auto, cpu or cuda", device);
    return hp_backend_cpu.open(threads, ret, reterr);
}

void hp_backend_close(hp_backend *b)
{
    if (b != NULL)
        b->ops->close(b);
}
