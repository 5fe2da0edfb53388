/* Free text of a header: phase words and dates, any bytes. */
#include <string.h>

#include "dicom/datetime.h"
#include "dicom/series_words.h"
#include "tests/fuzz/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char text[300], folded[64];
    size_t n = len < sizeof text - 1 ? len : sizeof text - 1;
    const char *word = NULL;
    unsigned hit;

    memcpy(text, data, n);
    text[n] = 0;
    hit = hp_phase_words(text, &word);
    CHECK(hit < 1u << HP_PHASES);
    CHECK((hit == 0) == (word == NULL));
    hp_fold_text(text, folded, sizeof folded);
    CHECK(strlen(folded) < sizeof folded && folded[0] == ' ');
    /* A date may be unreadable (not a number), never far outside its years. */
    CHECK(!(hp_dt_seconds(text) > 3e11));
    CHECK(!(hp_da_tm_seconds("20240229", text) > 3e11));
    return 0;
}
