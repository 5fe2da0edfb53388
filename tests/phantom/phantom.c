/* The phantom's names. */
#include "tests/phantom/phantom.h"

static const struct {
    const char *name;
    int cls;
    bool focal;
} kinds[] = {
#define HP__X(id, name, cls, focal) {name, cls, focal},
    HP_PH_KINDS(HP__X)
#undef HP__X
};

const char *hp_phantom_kind_name(int kind)
{
    return kind >= 0 && kind < HP_PH_KIND_COUNT ? kinds[kind].name : "-";
}

const char *hp_phantom_class_name(int cls)
{
    static const char *const names[HP_PH_CLASSES] = {"hcc", "icc", "benign", "metastasis"};
    return cls >= 0 && cls < HP_PH_CLASSES ? names[cls] : "-";
}
