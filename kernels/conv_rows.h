/* Convolutions of the CPU whose few channels leave a library's matrix kernels half
 * empty: (1 or 3) x 3 x 3, stride 1, padding as the kernel asks for. fp32; the order of
 * a sum depends on the shape alone, so results do not depend on the threads. Winograd's
 * sums along x cost about a digit: within 1e-5 of the largest sum of magnitudes.
 */
#ifndef HP_KERNELS_CONV_ROWS_H
#define HP_KERNELS_CONV_ROWS_H

#include <stddef.h>

#include "kernels/conv_plain.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Whether there is such a kernel (W in fours; 8, 16 or 32 channels to 8 or 16), and this
 * CPU can run it. */
bool hp_conv_rows_serves(const hp_conv_plain *c);

/* Floats of packed weights, and of work memory for so many threads. */
size_t hp_conv_rows_packed(const hp_conv_plain *c);
size_t hp_conv_rows_work(const hp_conv_plain *c, int threads);

void hp_conv_rows_pack(const hp_conv_plain *c,
                       const float *weight /* (cout, cin, depth, 3, 3) */, float *packed);

/* out = relu?(conv(in) + bias + plus). packed and work are aligned to 64 bytes. Returns
 * whether all of out is finite. */
bool hp_conv_rows_run(const hp_conv_plain *c, const float *in /* (D, H, W, cin) */,
                      const float *packed, const float *bias /* (cout), NULL: none */,
                      const float *plus /* like out, may be out; NULL: none */,
                      float *work, float *out /* (D, H, W, cout) */);

#ifdef __cplusplus
}
#endif
#endif
