/* What a fuzz target calls when a promise is broken: stop where it happened. */
#ifndef HP_TESTS_FUZZ_CHECK_H
#define HP_TESTS_FUZZ_CHECK_H

#include <stdint.h>
#include <stdlib.h>

#define CHECK(what)                                                                      \
    do {                                                                                 \
        if (!(what))                                                                     \
            abort();                                                                     \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#endif
