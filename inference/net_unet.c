/* U-Net in 3D (liver3d) and in 2D with slices as channels (seg25d); level 0 of
 * the 3D form convolves 1x3x3, because its voxels are flat. */
#include "inference/net.h"

#include <stdio.h>
#include <string.h>

static const int ONE[3] = {1, 1, 1};

/* c0 (with the level's stride) and c1 under "KEY.c0", "KEY.c1". */
static int level(hp_graph *g, hp_weights *w, int x, int nd, int lv, int cout,
                 const int stride[3], const char *key)
{
    hp_net_conv c = {nd,
                     cout,
                     {nd == 3 && lv > 0 ? 3 : 1, 3, 3},
                     {stride[0], stride[1], stride[2]},
                     {1, 1, 1},
                     true,
                     true};

    x = hp_net__conv(g, w, x, &c, -1, "%s.c0", key);
    memcpy(c.stride, ONE, sizeof c.stride);
    return hp_net__conv(g, w, x, &c, -1, "%s.c1", key);
}

/* The up-sampled map beside its skip. */
static int up(hp_graph *g, hp_weights *w, int x, int skip, int nd, int lv, int cout,
              const int stride[3])
{
    hp_net_conv c = {nd,        cout * stride[0] * stride[1] * stride[2],
                     {1, 1, 1}, {1, 1, 1},
                     {1, 1, 1}, false,
                     false};
    char key[24];
    const float *bias;
    int v;

    snprintf(key, sizeof key, "up%d.bias", lv);
    bias = hp_weights_take(w, key, &cout, 1);
    x = hp_net__conv(g, w, x, &c, -1, "up%d", lv);
    if (x < 0 || skip < 0 || bias == NULL)
        return -1;
    v = hp_graph_unfold(g, skip, x, stride, bias, true);
    snprintf(key, sizeof key, "up%d", lv);
    hp_graph_stage_part(g, v, cout, cout, key);
    return v;
}

void hp_net__unet(hp_graph *g, const hp_net_params *p, hp_weights *w, const int size[3])
{
    int nd = p->arch == HP_ARCH_UNET3D ? 3 : 2, skip[HP_NET_LEVELS];
    hp_net_conv last = {nd, 1, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, false, true};
    int x = hp_graph_input(g, (int[4]){size[0], size[1], size[2], p->unet.slices});
    char key[24];

    for (int lv = 0; lv < p->unet.levels; lv++) {
        snprintf(key, sizeof key, "enc%d", lv);
        x = level(g, w, x, nd, lv, p->unet.width[lv], p->unet.stride[lv], key);
        hp_graph_stage(g, x, "enc%d", lv);
        skip[lv] = x;
    }
    for (int lv = p->unet.levels - 2; lv >= 0; lv--) {
        x = up(g, w, x, skip[lv], nd, lv, p->unet.width[lv], p->unet.stride[lv + 1]);
        snprintf(key, sizeof key, "dec%d", lv);
        x = level(g, w, x, nd, lv, p->unet.width[lv], ONE, key);
        hp_graph_stage(g, x, "dec%d", lv);
    }
    x = hp_net__conv(g, w, x, &last, -1, "out");
    hp_graph_output(g, x, "logit");
}
