/* C twin of the network's input: the resize, then the window. */
#include "kernels/input.h"

#include <stdlib.h>

#include "kernels/resize.h"

static void fill_rest(const hp_input *in, float *dst)
{
    size_t plane = (size_t)in->n[1] * in->n[2], count = plane * in->n[0];

    for (size_t i = 0; i < count; i++) {
        double y = (double)(i % plane / (size_t)in->n[2]) + 0.5;
        double x = (double)(i % (size_t)in->n[2]) + 0.5;
        float *to = dst + i * in->channels;

        for (int c = in->sources; c < in->channels; c++)
            to[c] = 0;
        if (in->mask)
            to[in->sources] = y >= in->rect[0] && y < in->rect[2] && x >= in->rect[1] &&
                              x < in->rect[3];
    }
}

hp_code hp_input_ref(const hp_input *in, const int16_t *const *src, float *dst,
                     hp_error *reterr)
{
    size_t count = (size_t)in->n[0] * in->n[1] * in->n[2];
    int16_t *hu = malloc((count + 1) * sizeof *hu);
    hp_code r = hu != NULL ? HP_OK : hp_fail(reterr, HP_E_NO_MEMORY, "network input");

    for (int s = 0; s < in->sources && r == HP_OK; s++) {
        r = hp_resize_hu_ref(src[s], in->src_n, in->lo, in->hi, in->n, in->pad, hu,
                             reterr);
        if (r == HP_OK)
            hp_window_ref(hu, 1, count, &in->window, dst + s, in->channels);
    }
    if (r == HP_OK && in->channels > in->sources)
        fill_rest(in, dst);
    free(hu);
    return r;
}
