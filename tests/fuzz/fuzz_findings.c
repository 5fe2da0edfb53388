/* What a child says: a JSON line, and findings inside it. A worker has met
 * hostile bytes and may have gone bad itself. */
#include "base/findings.h"
#include "tests/fuzz/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    hp_auto(json_t) *line = NULL;
    hp_findings *f;

    if (hp_json_parse((const char *)data, len, &line, NULL) != HP_OK)
        return 0;
    f = malloc(sizeof *f);
    CHECK(f != NULL);
    if (hp_findings_from_json(line, f, NULL) == HP_OK) {
        hp_auto(json_t) *again = hp_findings_to_json(f);

        /* What was read can be written, and its indices stay inside its lists. */
        CHECK(again != NULL);
        CHECK(f->primary < f->candidate_count && f->class_index < f->class_count);
        for (int p = 0; p < HP_PHASES; p++)
            CHECK(f->phase_series[p] < f->series_count);
        CHECK(hp_findings_from_json(again, f, NULL) == HP_OK);
    }
    free(f);
    return 0;
}
