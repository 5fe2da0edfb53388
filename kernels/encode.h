/* Spatially adaptive texture encoding (paper, eq. 4-6).
 *
 * a_ik = softmax_k(-s_k |x_i - c_k|^2);  e_k = sum over cells with delta_i = 1
 * of a_ik (x_i - c_k). No division by the number of cells: the L2 norm that
 * follows removes it.
 */
#ifndef HP_KERNELS_ENCODE_H
#define HP_KERNELS_ENCODE_H

#include <stdint.h>

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

#ifdef __cplusplus
}
#endif
#endif
