/* Reading parameters, and the layers every builder uses. */
#include "inference/net.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* --- parameters -------------------------------------------------------- */

typedef struct reader {
    const json_t *obj;
    const hp_yaml *yaml;
    hp_error *err;
    hp_code code; /* the first failure */
} reader;

static void fail(reader *r, const char *key, const char *what)
{
    int line = r->yaml != NULL ? hp_yaml_key_line(r->yaml, r->obj, key) : 0;

    if (line == 0 && r->yaml != NULL)
        line = hp_yaml_line(r->yaml, r->obj);
    if (r->code != HP_OK)
        return;
    if (line > 0)
        r->code = hp_fail(r->err, HP_E_INVALID, "line %d: %s: %s", line, key, what);
    else
        r->code = hp_fail(r->err, HP_E_INVALID, "%s: %s", key, what);
}

static int read_int(reader *r, const char *key, int min, int max)
{
    const json_t *v = json_object_get(r->obj, key);

    if (!json_is_integer(v) || json_integer_value(v) < min ||
        json_integer_value(v) > max) {
        fail(r, key, v == NULL ? "missing" : "not a whole number in range");
        return min;
    }
    return (int)json_integer_value(v);
}

static double read_num(reader *r, const char *key)
{
    const json_t *v = json_object_get(r->obj, key);

    if (!json_is_number(v) || !(json_number_value(v) > 0)) {
        fail(r, key, v == NULL ? "missing" : "not a positive number");
        return 1;
    }
    return json_number_value(v);
}

/* A list of whole numbers; returns how many. */
static int read_ints(reader *r, const char *key, int *ret, int count_min, int count_max,
                     int min, int max)
{
    const json_t *list = json_object_get(r->obj, key);
    int n = (int)json_array_size(list);

    if (!json_is_array(list) || n < count_min || n > count_max) {
        fail(r, key, list == NULL ? "missing" : "wrong number of entries");
        return 0;
    }
    for (int i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, (size_t)i);

        if (!json_is_integer(v) || json_integer_value(v) < min ||
            json_integer_value(v) > max) {
            fail(r, key, "not a whole number in range");
            return 0;
        }
        ret[i] = (int)json_integer_value(v);
    }
    return n;
}

static int read_strides(reader *r, const char *key, int (*ret)[3])
{
    const json_t *list = json_object_get(r->obj, key);
    int n = (int)json_array_size(list);

    if (!json_is_array(list) || n < 1 || n > HP_NET_LEVELS) {
        fail(r, key, list == NULL ? "missing" : "wrong number of entries");
        return 0;
    }
    for (int i = 0; i < n; i++)
        for (int a = 0; a < 3; a++) {
            const json_t *v = json_array_get(json_array_get(list, (size_t)i), (size_t)a);

            if (!json_is_integer(v) || json_integer_value(v) < 1 ||
                json_integer_value(v) > 4) {
                fail(r, key, "a stride is three numbers from 1 to 4");
                return 0;
            }
            ret[i][a] = (int)json_integer_value(v);
        }
    return n;
}

static void refuse_unknown(reader *r, const char *const *known)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)r->obj, key, value)
    {
        int i = 0;

        while (known[i] != NULL && strcmp(known[i], key) != 0)
            i++;
        if (known[i] == NULL)
            fail(r, key, "unknown key");
    }
}

static void read_unet3d(reader *r, hp_net_params *p)
{
    static const char *const KNOWN[] = {"widths", "strides", "grid", "spacing_mm", NULL};

    refuse_unknown(r, KNOWN);
    p->unet.levels = read_ints(r, "widths", p->unet.width, 2, HP_NET_LEVELS, 1, 4096);
    if (read_strides(r, "strides", p->unet.stride) != p->unet.levels)
        fail(r, "strides", "one for each width");
    p->unet.slices = 1;
    if (json_object_get(r->obj, "grid") != NULL) { /* a golden network has no grid */
        const json_t *mm = json_object_get(r->obj, "spacing_mm");

        read_ints(r, "grid", p->grid, 3, 3, 1, 1024);
        for (int a = 0; a < 3; a++) {
            p->spacing_mm[a] = json_number_value(json_array_get(mm, (size_t)a));
            if (!(p->spacing_mm[a] > 0))
                fail(r, "spacing_mm", "three positive numbers");
        }
    }
}

static void read_unet25d(reader *r, hp_net_params *p)
{
    static const char *const KNOWN[] = {"slices", "interval_mm", "spacing_mm",
                                        "widths", "strides",     NULL};
    int stride[HP_NET_LEVELS] = {1, 2, 2, 2, 2, 2, 2, 2};

    refuse_unknown(r, KNOWN);
    p->unet.slices = read_int(r, "slices", 1, 64);
    p->unet.levels = read_ints(r, "widths", p->unet.width, 2, HP_NET_LEVELS, 1, 4096);
    if (json_object_get(r->obj, "strides") != NULL &&
        read_ints(r, "strides", stride, 2, HP_NET_LEVELS, 1, 4) != p->unet.levels)
        fail(r, "strides", "one for each width");
    for (int l = 0; l < p->unet.levels; l++) {
        p->unet.stride[l][0] = 1;
        p->unet.stride[l][1] = p->unet.stride[l][2] = stride[l];
    }
    if (json_object_get(r->obj, "spacing_mm") != NULL) {
        p->spacing_mm[1] = p->spacing_mm[2] = read_num(r, "spacing_mm");
        p->unet.interval_mm = read_num(r, "interval_mm");
    }
}

static void read_hourglass(reader *r, hp_net_params *p)
{
    static const char *const KNOWN[] = {
        "stacks",      "dims",       "modules",    "stem", "stem_kernel",
        "stem_stride", "res_stride", "hg_strides", "grid", NULL};
    int dims, modules;

    refuse_unknown(r, KNOWN);
    p->hourglass.stacks = read_int(r, "stacks", 1, 8);
    p->hourglass.stem = read_int(r, "stem", 1, 4096);
    dims = read_ints(r, "dims", p->hourglass.dim, 2, HP_NET_LEVELS, 1, 4096);
    modules = read_ints(r, "modules", p->hourglass.modules, 2, HP_NET_LEVELS, 1, 16);
    read_ints(r, "stem_kernel", p->hourglass.stem_kernel, 3, 3, 1, 15);
    read_ints(r, "stem_stride", p->hourglass.stem_stride, 3, 3, 1, 4);
    read_ints(r, "res_stride", p->hourglass.res_stride, 3, 3, 1, 4);
    p->hourglass.levels = read_strides(r, "hg_strides", p->hourglass.stride);
    if (dims != p->hourglass.levels + 1 || modules != dims)
        fail(r, "dims", "dims and modules have one entry more than hg_strides");
    if (json_object_get(r->obj, "grid") != NULL)
        read_ints(r, "grid", p->grid, 3, 3, 1, 1024);
}

static void read_sadt(reader *r, hp_net_params *p)
{
    static const char *const KNOWN[] = {"depth", "width",   "output_stride", "D",
                                        "K",     "classes", "mask_input",    NULL};

    refuse_unknown(r, KNOWN);
    p->sadt.depth = read_int(r, "depth", 18, 50);
    if (p->sadt.depth != 18 && p->sadt.depth != 50)
        fail(r, "depth", "18 or 50");
    p->sadt.width = read_num(r, "width");
    p->sadt.output_stride = json_object_get(r->obj, "output_stride") == NULL
                                ? 8
                                : read_int(r, "output_stride", 8, 32);
    if (p->sadt.output_stride != 8 && p->sadt.output_stride != 32)
        fail(r, "output_stride", "8 or 32");
    p->sadt.codeword_dim = read_int(r, "D", 1, 1024);
    p->sadt.codewords = read_int(r, "K", 1, 256);
    p->sadt.classes = read_int(r, "classes", 2, 64);
    p->sadt.mask_input = hp_json_bool(r->obj, "mask_input", 0);
    if ((int)(64 * p->sadt.width) < 1 || p->sadt.width > 4)
        fail(r, "width", "out of range");
}

hp_code hp_net_params_read(const char *arch, const json_t *params, const hp_yaml *yaml,
                           hp_net_params *ret, hp_error *reterr)
{
    static const struct {
        const char *name;
        void (*read)(reader *r, hp_net_params *p);
    } ARCH[HP_ARCHES] = {
        [HP_ARCH_UNET3D] = {"unet3d", read_unet3d},
        [HP_ARCH_UNET25D] = {"unet25d", read_unet25d},
        [HP_ARCH_HOURGLASS3D] = {"hourglass3d", read_hourglass},
        [HP_ARCH_SADT] = {"sadt", read_sadt},
    };
    reader r = {.obj = params, .yaml = yaml, .err = reterr};
    hp_net_params p = {0};
    int i = 0;

    while (i < HP_ARCHES && strcmp(ARCH[i].name, arch) != 0)
        i++;
    if (i == HP_ARCHES)
        return hp_fail(reterr, HP_E_UNSUPPORTED, "arch %.30s: not one of ours", arch);
    if (!json_is_object(params))
        return hp_fail(reterr, HP_E_INVALID, "params: missing");
    p.arch = (hp_arch)i;
    ARCH[i].read(&r, &p);
    if (r.code == HP_OK)
        *ret = p;
    return r.code;
}

/* --- layers ------------------------------------------------------------ */

static const float *take(hp_weights *w, const char *key, const char *what, const int *dim,
                         int rank)
{
    char full[128];

    snprintf(full, sizeof full, "%s.%s", key, what);
    return hp_weights_take(w, full, dim, rank);
}

int hp_net__conv(hp_graph *g, hp_weights *w, int x, const hp_net_conv *c, int add,
                 const char *fmt, ...)
{
    hp_conv conv = {.nd = c->nd, .cout = c->cout, .relu = c->relu};
    int dim[5] = {c->cout, 0}, rank = 2;
    char key[96];
    va_list args;

    va_start(args, fmt);
    vsnprintf(key, sizeof key, fmt, args);
    va_end(args);
    if (x < 0)
        return -1;
    dim[1] = g->value[x].dim[3];
    for (int a = 0; a < 3; a++) {
        conv.k[a] = c->k[a];
        conv.stride[a] = c->stride[a];
        conv.dilation[a] = c->dilation[a];
        if (a > 0 || c->nd == 3)
            dim[rank++] = c->k[a];
    }
    conv.weight = take(w, key, "weight", dim, rank);
    conv.bias = c->bias ? take(w, key, "bias", dim, 1) : NULL;
    if (conv.weight == NULL || (c->bias && conv.bias == NULL))
        return -1;
    return hp_graph_conv(g, x, &conv, add);
}

int hp_net__block(hp_graph *g, hp_weights *w, int x, int nd, int cout,
                  const int stride[3], int dilation, const char *key)
{
    int kz = nd == 3 ? 3 : 1, dz = nd == 3 ? dilation : 1;
    hp_net_conv first = {nd,
                         cout,
                         {kz, 3, 3},
                         {stride[0], stride[1], stride[2]},
                         {dz, dilation, dilation},
                         true,
                         true};
    hp_net_conv second = first,
                skip = {nd,        cout,  {1, 1, 1}, {stride[0], stride[1], stride[2]},
                        {1, 1, 1}, false, false};
    bool same = stride[0] == 1 && stride[1] == 1 && stride[2] == 1;
    int h, s;

    if (x < 0)
        return -1;
    for (int a = 0; a < 3; a++)
        second.stride[a] = 1;
    h = hp_net__conv(g, w, x, &first, -1, "%s.conv1", key);
    s = same && g->value[x].dim[3] == cout
            ? x
            : hp_net__conv(g, w, x, &skip, -1, "%s.skip", key);
    if (s < 0)
        return -1;
    return hp_net__conv(g, w, h, &second, s, "%s.conv2", key);
}

hp_code hp_net_build(const hp_net_params *p, hp_weights *w, const int size[3],
                     hp_graph **ret, hp_error *reterr)
{
    hp_auto(hp_graph) *g = NULL;
    hp_code r = hp_graph_new(&g, reterr);

    if (r != HP_OK)
        return r;
    switch (p->arch) {
    case HP_ARCH_UNET3D:
    case HP_ARCH_UNET25D:
        hp_net__unet(g, p, w, size);
        break;
    case HP_ARCH_HOURGLASS3D:
        hp_net__hourglass(g, p, w, size);
        break;
    default:
        hp_net__sadt(g, p, w, size);
        break;
    }
    r = hp_weights_finish(w, reterr);
    if (r == HP_OK)
        r = hp_graph_plan(g, reterr);
    if (r == HP_OK)
        *ret = hp_steal(&g);
    return r;
}
