/* Kernels that are wrong on purpose (faulty.cc). */
#ifndef HP_TESTS_KERNELS_FAULTY_H
#define HP_TESTS_KERNELS_FAULTY_H

#include "base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum faulty_kernel {
    FAULTY_TREE_WITH_BARRIERS, /* the control: this one is right */
    FAULTY_TREE_WITHOUT,
    FAULTY_POISON,
    FAULTY_LAST_BLOCK,
    FAULTY_LEAVER,
    FAULTY_TWO_BARRIERS,
    FAULTY_SHUFFLE,
    FAULTY_RANGE,
    FAULTY_BLOCK_ORDER,
    FAULTY_ALIGNMENT
} faulty_kernel;

/* in and out: 64 floats. */
hp_code faulty_run(faulty_kernel which, const float *in, float *out, hp_error *reterr);
/* 64 results: did this lane see what ballot and shuffles must show it? */
hp_code faulty_exchange(int *out, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
