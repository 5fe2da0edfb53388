/* CenterNet-3D on a stacked hourglass with strides per axis. The
 * same code builds hg3d-xs and the 569 M parameters of the paper's width. */
#include "inference/net.h"

#include <stdio.h>

typedef struct builder {
    hp_graph *g;
    hp_weights *w;
    const hp_net_params *p;
    int stack;
} builder;

static const int ONE[3] = {1, 1, 1};

/* `count` residual blocks; the stride is the first one's, and the change of width
 * the first one's too, or the last one's where `change_last`. */
static int blocks(builder *b, int x, int count, int cin, int cout, const int stride[3],
                  bool change_last, int l, const char *part)
{
    char key[48];

    for (int i = 0; i < count; i++) {
        int to = !change_last || i == count - 1 ? cout : cin;

        snprintf(key, sizeof key, "hg%d.l%d.%s.%d", b->stack, l, part, i);
        x = hp_net__block(b->g, b->w, x, 3, to, i == 0 ? stride : ONE, 1, key);
    }
    hp_graph_stage(b->g, x, "hg%d.l%d.%s", b->stack, l, part);
    return x;
}

/* Level l; the outermost is l = levels, the innermost 1. */
static int hourglass(builder *b, int x, int l)
{
    int i = b->p->hourglass.levels - l;
    const int *dim = b->p->hourglass.dim + i, *modules = b->p->hourglass.modules + i;
    const int *stride = b->p->hourglass.stride[i];
    int up, low;

    up = blocks(b, x, modules[0], dim[0], dim[0], ONE, false, l, "up1");
    low = blocks(b, x, modules[0], dim[0], dim[1], stride, false, l, "low1");
    if (l > 1)
        low = hourglass(b, low, l - 1);
    else
        low = blocks(b, low, modules[1], dim[1], dim[1], ONE, false, l, "low2");
    low = blocks(b, low, modules[0], dim[1], dim[0], ONE, true, l, "low3");
    if (up < 0 || low < 0)
        return -1;
    x = hp_graph_merge(b->g, up, low, stride);
    hp_graph_stage(b->g, x, "hg%d.l%d.out", b->stack, l);
    return x;
}

static void head(builder *b, int x, const char *name, int channels)
{
    int dim = b->p->hourglass.dim[0];
    hp_net_conv first = {3, dim, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}, true, true};
    hp_net_conv last = {3, channels, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, false, true};

    x = hp_net__conv(b->g, b->w, x, &first, -1, "head.%s.conv1", name);
    x = hp_net__conv(b->g, b->w, x, &last, -1, "head.%s.conv2", name);
    hp_graph_output(b->g, x, name);
}

/* Between stacks: ReLU(a(x) + b(cnv)), one residual block. */
static int inter(builder *b, int x, int cnv)
{
    int dim = b->p->hourglass.dim[0];
    hp_net_conv a = {3, dim, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, false, false};
    hp_net_conv c = {3, dim, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, true, true};
    char key[24];

    x = hp_net__conv(b->g, b->w, x, &a, -1, "inter%d.a", b->stack);
    if (x < 0)
        return -1;
    x = hp_net__conv(b->g, b->w, cnv, &c, x, "inter%d.b", b->stack);
    hp_graph_stage(b->g, x, "inter%d.sum", b->stack);
    snprintf(key, sizeof key, "inter%d.res", b->stack);
    x = hp_net__block(b->g, b->w, x, 3, dim, ONE, 1, key);
    hp_graph_stage(b->g, x, "inter%d.res", b->stack);
    return x;
}

void hp_net__hourglass(hp_graph *g, const hp_net_params *p, hp_weights *w,
                       const int size[3])
{
    builder b = {.g = g, .w = w, .p = p};
    hp_net_conv stem = {3, p->hourglass.stem, {0}, {0}, {1, 1, 1}, true, true};
    hp_net_conv cnv = {3,   p->hourglass.dim[0], {3, 3, 3}, {1, 1, 1}, {1, 1, 1}, true,
                       true};
    int x = hp_graph_input(g, (int[4]){size[0], size[1], size[2], 1}), y = -1;

    for (int a = 0; a < 3; a++) {
        stem.k[a] = p->hourglass.stem_kernel[a];
        stem.stride[a] = p->hourglass.stem_stride[a];
    }
    x = hp_net__conv(g, w, x, &stem, -1, "stem.conv");
    hp_graph_stage(g, x, "stem.conv");
    x = hp_net__block(g, w, x, 3, p->hourglass.dim[0], p->hourglass.res_stride, 1,
                      "stem.res");
    hp_graph_stage(g, x, "stem.res");
    for (b.stack = 0; b.stack < p->hourglass.stacks; b.stack++) {
        y = hourglass(&b, x, p->hourglass.levels);
        y = hp_net__conv(g, w, y, &cnv, -1, "cnv%d", b.stack);
        hp_graph_stage(g, y, "cnv%d", b.stack);
        if (b.stack + 1 < p->hourglass.stacks)
            x = inter(&b, x, y);
    }
    head(&b, y, "hm", 1);
    head(&b, y, "whd", 3);
    head(&b, y, "off", 3);
}

void hp_net_heat_stride(const hp_net_params *p, int ret[3])
{
    for (int a = 0; a < 3; a++)
        ret[a] = p->hourglass.stem_stride[a] * p->hourglass.res_stride[a];
}
