/* Convolutions of the CPU that read an image, whose few channels give a library's
 * matrix kernels little to sum over: (1 or 3) x k x k, padding as the kernel asks for.
 * The image, weights and sums are fp32; the order of a sum depends on the shape alone,
 * so results do not depend on the threads.
 */
#ifndef HP_KERNELS_CONV_IMAGE_H
#define HP_KERNELS_CONV_IMAGE_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_conv_image {
    int in[3], out[3]; /* D, H, W; D of both the same */
    /* With k and stride in plane: (cin, cout, k, stride) is one of (1, 8, 3, 1)
     * (9, 16, 3, 1) (1, 16, 7, 2) (4, 16, 7, 2); depth of the kernel is 1 or 3. */
    int cin, cout, depth, k, stride;
    bool relu;
    bool narrow; /* out in bf16, rounded once */
} hp_conv_image;

/* Whether there is such a kernel, and this CPU can run it. */
bool hp_conv_image_serves(const hp_conv_image *c);

/* Floats of packed weights, and of work memory for so many threads. */
size_t hp_conv_image_packed(const hp_conv_image *c);
size_t hp_conv_image_work(const hp_conv_image *c, int threads);

void hp_conv_image_pack(const hp_conv_image *c,
                        const float *weight /* (cout, cin, depth, k, k) */,
                        float *packed);

/* out = relu?(conv(in) + bias). packed and work are aligned to 64 bytes. Returns
 * whether all of out is finite. */
bool hp_conv_image_run(const hp_conv_image *c, const float *in /* (D, H, W, cin) */,
                       const float *packed, const float *bias /* (cout), NULL: none */,
                       float *work, void *out /* (D, H, W, cout) */);

#ifdef __cplusplus
}
#endif
#endif
