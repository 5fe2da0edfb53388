/* The headers cmocka needs before itself, in the order it asks for. */
#ifndef HP_TESTS_BASE_CHECK_H
#define HP_TESTS_BASE_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
