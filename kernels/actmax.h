/* The largest magnitude of an activation, and with it whether all are finite: the
 * bits of |x| order as numbers do, infinities and NaNs above everything, so one
 * maximum over bits answers both.
 */
#ifndef HP_KERNELS_ACTMAX_H
#define HP_KERNELS_ACTMAX_H

#include <stdint.h>

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bits of the largest |x|; 0 for nothing. */
uint32_t hp_actmax_ref(const float *x, size_t n);

/* *bits = max(*bits, the largest |x|'s bits): zero it before the first call. */
hp_code hp_actmax_cuda(hp_dtype type, const void *x, size_t n, uint32_t *bits,
                       hp_stream stream, hp_error *reterr);

static inline bool hp_actmax_is_finite(uint32_t bits)
{
    return bits < 0x7f800000u;
}

#ifdef __cplusplus
}
#endif
#endif
