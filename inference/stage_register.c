/* Phases into the venous grid. */
#include <stdio.h>
#include <stdlib.h>

#include "inference/stage_internal.h"
#include "kernels/warp.h"

static hp_code one_phase(hp_visit *v, int phase, hp_error *reterr)
{
    const hp_geom *grid = &v->native[HP_PHASE_V]->geom;
    hp_code r = hp_volume_new(grid, &v->vol[phase], reterr);

    if (r == HP_OK)
        r = hp_warp_hu_ref(v->native[phase], grid, HP_PAD_HU, v->vol[phase]->hu, reterr);
    return r;
}

hp_code hp_stage_register(hp_visit *v, hp_error *reterr)
{
    for (int phase = 0; phase < HP_PHASES; phase++) {
        hp_code r;

        snprintf(v->f->registration[phase], sizeof v->f->registration[phase], "-");
        if (v->native[phase] == NULL)
            continue;
        r = one_phase(v, phase, reterr);
        if (r != HP_OK)
            return hp_wrap(reterr, r, "resampling phase %s",
                           hp_phase_name((hp_phase)phase));
        v->seen[phase] = v->vol[phase];
        snprintf(v->f->registration[phase], sizeof v->f->registration[phase], "%s",
                 phase == HP_PHASE_V ? "reference" : "coordinates");
    }
    return HP_OK;
}
