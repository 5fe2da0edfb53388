/* A convolution of the CPU as kernels/conv_rows and conv_wide both take it: fp32, (1 or
 * 3) x 3 x 3, stride 1, padding as the kernel asks for.
 */
#ifndef HP_KERNELS_CONV_PLAIN_H
#define HP_KERNELS_CONV_PLAIN_H

#include <stdbool.h>

typedef struct hp_conv_plain {
    int n[3]; /* D, H, W */
    int cin, cout;
    int depth; /* of the kernel: 1 or 3 */
    bool relu;
} hp_conv_plain;

#endif
