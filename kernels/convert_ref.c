/* C twin of the conversion. */
#include "kernels/convert.h"

#include "kernels/half.h"

static float get(const void *p, hp_dtype t, size_t i)
{
    const uint16_t *h = p;

    if (t == HP_F32)
        return ((const float *)p)[i];
    return t == HP_F16 ? hp_f16_float(h[i]) : hp_bf16_float(h[i]);
}

static void put(void *p, hp_dtype t, size_t i, float v)
{
    uint16_t *h = p;

    if (t == HP_F32)
        ((float *)p)[i] = v;
    else
        h[i] = t == HP_F16 ? hp_f16_of(v) : hp_bf16_of(v);
}

void hp_convert_ref(const hp_convert *c, const void *src, void *dst)
{
    for (size_t r = 0; r < c->rows; r++)
        for (int k = 0; k < c->to_c; k++)
            put(dst, c->to, r * (size_t)c->to_c + (size_t)k,
                k < c->from_c ? get(src, c->from, r * (size_t)c->from_c + (size_t)k) : 0);
}
