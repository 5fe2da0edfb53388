/* Between storage types and channel counts: rows of from_c channels become rows of
 * to_c; channels that the source lacks are zero, those that the result lacks are
 * dropped. So a network's input gains its padding (one channel to eight, for the
 * matrix engines) and its heads lose it.
 */
#ifndef HP_KERNELS_CONVERT_H
#define HP_KERNELS_CONVERT_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_convert {
    size_t rows;
    int from_c, to_c;
    hp_dtype from, to; /* equal, or one of them HP_F32 */
} hp_convert;

/* src and dst are what `from` and `to` say, also here: the twin of the rounding. */
void hp_convert_ref(const hp_convert *c, const void *src, void *dst);

hp_code hp_convert_cuda(const hp_convert *c, const void *src, void *dst, hp_stream stream,
                        hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
