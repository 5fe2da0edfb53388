/* SaDT: a dilated ResNet, the encoding under the lesion's mask, a linear layer
 * (paper, eq. 4-6). The binary form is the key-slice filter's. */
#include "inference/net.h"

#include <stdio.h>

enum { GROUPS = 4 };

static int stem(hp_graph *g, hp_weights *w, int x, int depth, int base)
{
    hp_net_conv c = {2, base, {1, 7, 7}, {1, 2, 2}, {1, 1, 1}, true, true};

    if (depth == 18)
        return hp_net__conv(g, w, x, &c, -1, "stem.conv");
    c.k[1] = c.k[2] = 3;
    x = hp_net__conv(g, w, x, &c, -1, "stem.conv1");
    c.stride[1] = c.stride[2] = 1;
    x = hp_net__conv(g, w, x, &c, -1, "stem.conv2");
    c.cout = 2 * base;
    return hp_net__conv(g, w, x, &c, -1, "stem.conv3");
}

/* 1x1, 3x3 (stride, dilation), 1x1 to four times the width, skip, ReLU. */
static int bottleneck(hp_graph *g, hp_weights *w, int x, int width, int stride,
                      int dilation, const char *key)
{
    hp_net_conv one = {2, width, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, true, true};
    hp_net_conv mid = {
        2, width, {1, 3, 3}, {1, stride, stride}, {1, dilation, dilation}, true, true};
    hp_net_conv last = {2, 4 * width, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, true, true};
    hp_net_conv skip = {2,         4 * width, {1, 1, 1}, {1, stride, stride},
                        {1, 1, 1}, false,     false};
    int h, s = x;

    if (x < 0)
        return -1;
    h = hp_net__conv(g, w, x, &one, -1, "%s.conv1", key);
    h = hp_net__conv(g, w, h, &mid, -1, "%s.conv2", key);
    if (g->value[x].dim[3] != 4 * width || stride != 1)
        s = hp_net__conv(g, w, x, &skip, -1, "%s.skip", key);
    if (s < 0)
        return -1;
    return hp_net__conv(g, w, h, &last, s, "%s.conv3", key);
}

/* layer1..4. With output stride 8 the last two keep stride 1 and dilate: layer 3
 * by 2, layer 4's first block by 2 and its others by 4. */
static int trunk(hp_graph *g, hp_weights *w, int x, const hp_net_params *p, int base)
{
    static const int COUNT18[GROUPS] = {2, 2, 2, 2}, COUNT50[GROUPS] = {3, 4, 6, 3};
    const int *count = p->sadt.depth == 18 ? COUNT18 : COUNT50;
    bool dilated = p->sadt.output_stride == 8;

    for (int n = 0; n < GROUPS; n++)
        for (int i = 0; i < count[n]; i++) {
            int stride = i == 0 && n > 0 && !(dilated && n >= 2) ? 2 : 1;
            int dilation = !dilated || n < 2 ? 1 : n == 2 || i == 0 ? 2 : 4;
            char key[24];

            snprintf(key, sizeof key, "layer%d.%d", n + 1, i);
            if (p->sadt.depth == 18)
                x = hp_net__block(g, w, x, 2, base << n, (int[3]){1, stride, stride},
                                  dilation, key);
            else
                x = bottleneck(g, w, x, base << n, stride, dilation, key);
            hp_graph_stage(g, x, "%s", key);
        }
    return x;
}

static void texture_head(hp_graph *g, hp_weights *w, int x, int mask,
                         const hp_net_params *p)
{
    int d = p->sadt.codeword_dim, k = p->sadt.codewords, n = p->sadt.classes, a;
    const float *codewords = hp_weights_take(w, "encode.codewords", (int[2]){k, d}, 2);
    const float *scale = hp_weights_take(w, "encode.scale", (int[1]){k}, 1);
    const float *weight = hp_weights_take(w, "fc.weight", (int[2]){n, k * d}, 2);
    const float *bias = hp_weights_take(w, "fc.bias", (int[1]){n}, 1);

    if (x < 0 || codewords == NULL || scale == NULL || weight == NULL || bias == NULL)
        return; /* the weights remember why */
    a = hp_graph_assign(g, x, codewords, scale, k);
    hp_graph_stage_rows(g, a, "encode.assign");
    x = hp_graph_encode(g, x, a, mask, codewords);
    hp_graph_stage_rows(g, x, "encode.out");
    x = hp_graph_l2(g, x);
    hp_graph_stage(g, x, "l2");
    x = hp_graph_fc(g, x, weight, bias, n);
    hp_graph_output(g, x, "logit");
}

int hp_net_sadt_cells(const hp_net_params *p, int side)
{
    return (side + p->sadt.output_stride - 1) / p->sadt.output_stride;
}

void hp_net__sadt(hp_graph *g, const hp_net_params *p, hp_weights *w, const int size[3])
{
    int base = (int)(64 * p->sadt.width), channels = p->sadt.mask_input ? 5 : 4;
    hp_net_conv reduce = {
        2, p->sadt.codeword_dim, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, true, true};
    int x = hp_graph_input(g, (int[4]){1, size[1], size[2], channels});
    int mask = hp_graph_input(
        g, (int[4]){1, hp_net_sadt_cells(p, size[1]), hp_net_sadt_cells(p, size[2]), 1});

    x = stem(g, w, x, p->sadt.depth, base);
    hp_graph_stage(g, x, "stem");
    if (x >= 0)
        x = hp_graph_maxpool(g, x);
    hp_graph_stage(g, x, "pool");
    x = trunk(g, w, x, p, base);
    x = hp_net__conv(g, w, x, &reduce, -1, "reduce");
    hp_graph_stage(g, x, "reduce");
    texture_head(g, w, x, mask, p);
}
