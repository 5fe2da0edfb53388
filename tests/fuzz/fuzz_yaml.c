/* Configuration and bundle.yaml as text. */
#include "base/yaml.h"
#include "tests/fuzz/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    hp_auto(hp_yaml) *y = NULL;
    const char *key;
    json_t *value;

    if (hp_yaml_parse((const char *)data, len, &y, NULL) != HP_OK)
        return 0;
    CHECK(hp_yaml_root(y) != NULL);
    json_object_foreach(hp_yaml_root(y), key, value)
        CHECK(hp_yaml_key_line(y, hp_yaml_root(y), key) > 0);
    return 0;
}
