/* What the tests of kernels/ and inference/ share. */
#ifndef HP_TESTS_INFERENCE_WORLD_H
#define HP_TESTS_INFERENCE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/error.h"

static inline const char *world_root(void)
{
    const char *root = getenv("HEPAR_SOURCE_ROOT");

    return root != NULL ? root : ".";
}

#define assert_ok(code, err)                                                             \
    do {                                                                                 \
        if ((code) != HP_OK) {                                                           \
            print_error("%s\n", (err)->msg);                                             \
            fail();                                                                      \
        }                                                                                \
    } while (0)

#endif
