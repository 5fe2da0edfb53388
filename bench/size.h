/* What the timed programs of networks share: the size a stage is timed at. */
#ifndef HP_BENCH_SIZE_H
#define HP_BENCH_SIZE_H

#include <string.h>

#include "inference/model.h"

/* z, y, x: its grid, a liver-sized key slice, a SaDT crop. */
static inline void bench_size(const hp_model_stage *s, int size[3])
{
    size[0] = 1;
    if (s->params.arch == HP_ARCH_SADT) {
        size[1] = size[2] = s->crop_px;
    } else if (s->params.arch == HP_ARCH_UNET25D) {
        size[1] = 288;
        size[2] = 352;
    } else {
        memcpy(size, s->params.grid, 3 * sizeof *size);
    }
}

#endif
