/* inference/safetensors: whatever is accepted lies inside the file, every byte of
 * it, and its halves become floats. */
#include <stdlib.h>

#include "inference/safetensors.h"
#include "tests/fuzz/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    hp_auto(hp_safetensors) *s = NULL;
    hp_buf bytes = HP_BUF_INIT;
    volatile uint8_t sink = 0;

    hp_buf_put(&bytes, data, len);
    if (bytes.failed || hp_safetensors_parse_take(&bytes, &s, NULL) != HP_OK)
        return 0;
    for (int i = 0; i < hp_safetensors_count(s); i++) {
        const hp_tensor *t = hp_safetensors_at(s, i);
        size_t n = hp_tensor_count(t), size = n * hp_tensor_type_size(t->dtype);
        float *f;

        CHECK(size <= len);
        for (size_t k = 0; k < size; k++)
            sink ^= ((const uint8_t *)t->data)[k];
        f = malloc(n * sizeof *f + 1);
        if (f != NULL)
            (void)hp_tensor_to_f32(t, f, NULL);
        free(f);
    }
    return 0;
}
