/* The four phases' names. */
#include "base/study.h"

#include <string.h>

static const struct {
    const char *name, *title;
} PHASES[HP_PHASES] = {
    [HP_PHASE_NC] = {"NC", "non-contrast"},
    [HP_PHASE_A] = {"A", "arterial"},
    [HP_PHASE_V] = {"V", "venous"},
    [HP_PHASE_D] = {"D", "delayed"},
};

static bool known(hp_phase phase)
{
    return phase > HP_PHASE_NONE && phase < HP_PHASES;
}

const char *hp_phase_name(hp_phase phase)
{
    return known(phase) ? PHASES[phase].name : "-";
}

const char *hp_phase_title(hp_phase phase)
{
    return known(phase) ? PHASES[phase].title : "none";
}

hp_phase hp_phase_parse(const char *name)
{
    for (int p = 0; p < HP_PHASES; p++)
        if (name != NULL && strcmp(name, PHASES[p].name) == 0)
            return (hp_phase)p;
    return HP_PHASE_NONE;
}
