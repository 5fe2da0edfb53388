/* Spatially adaptive texture encoding (paper, eq. 4-6).
 *
 * a_ik = softmax_k(-s_k |x_i - c_k|^2);  e_k = sum over cells with delta_i = 1
 * of a_ik (x_i - c_k). No division by the number of cells: the L2 norm that
 * follows removes it.
 */
#ifndef HP_KERNELS_ENCODE_H
#define HP_KERNELS_ENCODE_H

#include <stdint.h>

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

void hp_encode_assign_ref(const float *x,         /* (M, D) */
                          const float *codewords, /* (K, D) */
                          const float *scale,     /* (K) s_k of eq. 4, positive */
                          int m, int d, int k, float *ret /* (M, K) */);
void hp_encode_sum_ref(const float *x, const float *assign /* (M, K) */,
                       const float *delta /* (M), a cell counts when > 0.5 */,
                       const float *codewords, int m, int d, int k,
                       float *ret /* (K, D) */);

/* v / max(|v|, 1e-12) over the whole vector, in place. */
void hp_l2_norm_ref(float *v, int n);

/* Which cells of a (ny, nx) grid with `cell` pixels a side are under the
 * rectangle [y1,y2) x [x1,x2) (pixel edge coordinates): at least half of the
 * cell's pixel centres inside. When none is, the cell of the centre. */
void hp_grid_mask_ref(const double rect[4], /* y1, x1, y2, x2 */ int ny, int nx, int cell,
                      float *ret /* (ny, nx), 0 or 1 */);

/* --- the same on a device ----------------------------------------------
 * x in storage `type`; everything else is float. A batch is items one after
 * another in every array. Distances are sums of squares of differences, in
 * float, in another order than the twins': values agree to about 1e-5. */

typedef struct hp_encode {
    int batch, m, d, k; /* d <= 1024, k <= 256 */
} hp_encode;

/* Bytes of device memory that hp_encode_cuda() works in; a launch's workspace is
 * aligned to 16. */
size_t hp_encode_workspace(const hp_encode *e);

/* Eq. 4 to 6 and the L2 norm at once: ret (batch, K * D), of unit length, ready for
 * the fully connected layer. Neither the M x K x D residuals nor, for the shapes
 * of our networks (D 128 K 32, D 64 K 16), the assignments are ever written;
 * cells outside the mask are not read. */
hp_code hp_encode_cuda(const hp_encode *e, hp_dtype type, const void *x,
                       const float *codewords, const float *scale,
                       const float *delta /* (batch, M) */, float *ret, void *workspace,
                       hp_stream stream, hp_error *reterr);

/* The steps one by one, for any shape and for golden tensors. */
hp_code hp_encode_assign_cuda(const hp_encode *e, hp_dtype type, const void *x,
                              const float *codewords, const float *scale,
                              float *ret /* (batch, M, K) */, hp_stream stream,
                              hp_error *reterr);
hp_code hp_encode_sum_cuda(const hp_encode *e, hp_dtype type, const void *x,
                           const float *assign, const float *delta,
                           const float *codewords, float *ret /* (batch, K, D) */,
                           hp_stream stream, hp_error *reterr);
hp_code hp_l2_norm_cuda(float *v /* (batch, n), in place */, int batch, int n,
                        hp_stream stream, hp_error *reterr);

/* rect: device memory, (batch, 4); ret (batch, ny, nx). */
hp_code hp_grid_mask_cuda(const double *rect, int batch, int ny, int nx, int cell,
                          float *ret, hp_stream stream, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
