/* Convolutions by oneDNN; see onednn.h. libdnnl 2.6. */
#include "inference/cpu/onednn.h"

#include <dnnl.h>
#include <stdlib.h>

#include "kernels/bf16.h"

/* Weights that a primitive wanted in another layout. */
typedef struct packed {
    const float *source;
    dnnl_memory_desc_t md;
    dnnl_memory_t memory;
    struct packed *next;
} packed;

struct hp_onednn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    packed *weights;
};

struct hp_onednn_conv {
    hp_onednn *d;
    dnnl_primitive_t primitive;
    dnnl_memory_t src, dst, bias, scratch;
    dnnl_memory_t weights; /* borrowed from d */
    size_t scratch_bytes;
};

static hp_code translate(hp_error *reterr, dnnl_status_t s, const char *where)
{
    if (s == dnnl_success)
        return HP_OK;
    if (s == dnnl_out_of_memory)
        return hp_fail(reterr, HP_E_NO_MEMORY, "oneDNN: %s", where);
    return hp_fail(reterr, HP_E_DEVICE, "oneDNN: %s failed with status %d", where,
                   (int)s);
}

/* --- opening ----------------------------------------------------------- */

void hp_onednn_version(int ret[3])
{
    const dnnl_version_t *v = dnnl_version();

    ret[0] = v->major;
    ret[1] = v->minor;
    ret[2] = v->patch;
}

static bool has(dnnl_cpu_isa_t isa)
{
    return (dnnl_get_effective_cpu_isa() & isa) == isa;
}

bool hp_onednn_has_avx512(void)
{
    return has(dnnl_cpu_isa_avx512_core);
}

bool hp_onednn_has_bf16(void)
{
    return has(dnnl_cpu_isa_avx512_core_bf16);
}

void hp_onednn_close(hp_onednn *d)
{
    if (d == NULL)
        return;
    while (d->weights != NULL) {
        packed *p = d->weights;

        d->weights = p->next;
        dnnl_memory_destroy(p->memory);
        free(p);
    }
    if (d->stream != NULL)
        dnnl_stream_destroy(d->stream);
    if (d->engine != NULL)
        dnnl_engine_destroy(d->engine);
    free(d);
}

hp_code hp_onednn_open(hp_onednn **ret, hp_error *reterr)
{
    hp_onednn *d = calloc(1, sizeof *d);
    hp_code r;

    if (d == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "oneDNN");
    r = translate(reterr, dnnl_engine_create(&d->engine, dnnl_cpu, 0), "engine");
    if (r == HP_OK)
        r = translate(
            reterr, dnnl_stream_create(&d->stream, d->engine, dnnl_stream_default_flags),
            "stream");
    if (r != HP_OK) {
        hp_onednn_close(d);
        return r;
    }
    *ret = d;
    return HP_OK;
}

/* --- a convolution ----------------------------------------------------- */

static dnnl_data_type_t type_of(bool bf16)
{
    return bf16 ? dnnl_bf16 : dnnl_f32;
}

static dnnl_status_t value_md(dnnl_memory_desc_t *md, const hp_value *v, int nd,
                              dnnl_data_type_t type)
{
    const dnnl_dims_t d3 = {1, v->dim[3], v->dim[0], v->dim[1], v->dim[2]};
    const dnnl_dims_t d2 = {1, v->dim[3], v->dim[1], v->dim[2]};

    if (nd == 3)
        return dnnl_memory_desc_init_by_tag(md, 5, d3, type, dnnl_ndhwc);
    return dnnl_memory_desc_init_by_tag(md, 4, d2, type, dnnl_nhwc);
}

static dnnl_status_t weights_md(dnnl_memory_desc_t *md, const hp_op *op, int o, int i,
                                bool any, dnnl_data_type_t type)
{
    const dnnl_dims_t d3 = {o, i, op->k[0], op->k[1], op->k[2]};
    const dnnl_dims_t d2 = {o, i, op->k[1], op->k[2]};

    if (op->nd == 3)
        return dnnl_memory_desc_init_by_tag(md, 5, d3, type,
                                            any ? dnnl_format_tag_any : dnnl_oidhw);
    return dnnl_memory_desc_init_by_tag(md, 4, d2, type,
                                        any ? dnnl_format_tag_any : dnnl_oihw);
}

static dnnl_status_t conv_desc(dnnl_convolution_desc_t *d, const hp_graph *g,
                               const hp_op *op, bool src_bf16, bool dst_bf16)
{
    const hp_value *x = &g->value[op->in[0]], *y = &g->value[op->out];
    dnnl_memory_desc_t src, dst, wei, bias;
    dnnl_dims_t strides, dilates, pads, one = {y->dim[3]};
    dnnl_status_t s = value_md(&src, x, op->nd, type_of(src_bf16));
    int skip = 3 - op->nd;

    if (s == dnnl_success)
        s = value_md(&dst, y, op->nd, type_of(dst_bf16));
    if (s == dnnl_success)
        s = weights_md(&wei, op, y->dim[3], x->dim[3], true, type_of(src_bf16));
    if (s == dnnl_success)
        s = dnnl_memory_desc_init_by_tag(&bias, 1, one, dnnl_f32, dnnl_x);
    for (int a = 0; a < op->nd; a++) {
        strides[a] = op->stride[a + skip];
        dilates[a] = op->dilation[a + skip] - 1;
        pads[a] = op->dilation[a + skip] * (op->k[a + skip] - 1) / 2;
    }
    if (s != dnnl_success)
        return s;
    return dnnl_dilated_convolution_forward_desc_init(
        d, dnnl_forward_inference, dnnl_convolution_direct, &src, &wei,
        op->bias != NULL ? &bias : NULL, &dst, strides, dilates, pads, pads);
}

/* conv + bias, then + the added value, then ReLU: the order that fused engines
 * of every vendor have. */
static dnnl_status_t conv_attr(dnnl_primitive_attr_t *ret, const hp_op *op)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t post = NULL;
    dnnl_status_t s = dnnl_primitive_attr_create(&attr);

    if (s == dnnl_success)
        s = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (s == dnnl_success)
        s = dnnl_post_ops_create(&post);
    if (s == dnnl_success && op->in[1] >= 0)
        s = dnnl_post_ops_append_sum(post, 1.0f);
    if (s == dnnl_success && op->relu)
        s = dnnl_post_ops_append_eltwise(post, 1.0f, dnnl_eltwise_relu, 0.0f, 0.0f);
    if (s == dnnl_success)
        s = dnnl_primitive_attr_set_post_ops(attr, post);
    if (post != NULL)
        dnnl_post_ops_destroy(post);
    if (s != dnnl_success && attr != NULL)
        dnnl_primitive_attr_destroy(attr);
    else
        *ret = attr;
    return s;
}

/* The weights as bf16 numbers; the caller's. NULL: no memory. */
static float *rounded(const float *weight, int filters, size_t each)
{
    float *ret = malloc((size_t)filters * each * sizeof *ret);

    for (int k = 0; k < filters && ret != NULL; k++)
        hp_bf16_filter(weight + k * each, each, ret + k * each);
    return ret;
}

static dnnl_status_t reorder(hp_onednn *d, const hp_op *op, int o, int i, packed *p)
{
    size_t taps = (size_t)op->k[0] * op->k[1] * op->k[2];
    float *own =
        p->md.data_type == dnnl_bf16 ? rounded(op->weight, o, (size_t)i * taps) : NULL;
    dnnl_memory_desc_t plain;
    dnnl_memory_t from = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t prim = NULL;
    dnnl_status_t s = weights_md(&plain, op, o, i, false, dnnl_f32);

    if (p->md.data_type == dnnl_bf16 && own == NULL)
        return dnnl_out_of_memory;
    if (s == dnnl_success)
        s = dnnl_memory_create(&from, &plain, d->engine,
                               own != NULL ? own : (void *)op->weight);
    if (s == dnnl_success)
        s = dnnl_memory_create(&p->memory, &p->md, d->engine, DNNL_MEMORY_ALLOCATE);
    if (s == dnnl_success)
        s = dnnl_reorder_primitive_desc_create(&pd, &plain, d->engine, &p->md, d->engine,
                                               NULL);
    if (s == dnnl_success)
        s = dnnl_primitive_create(&prim, pd);
    if (s == dnnl_success) {
        dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, p->memory}};

        s = dnnl_primitive_execute(prim, d->stream, 2, args);
    }
    if (s == dnnl_success)
        s = dnnl_stream_wait(d->stream);
    if (prim != NULL)
        dnnl_primitive_destroy(prim);
    if (pd != NULL)
        dnnl_primitive_desc_destroy(pd);
    if (from != NULL)
        dnnl_memory_destroy(from);
    free(own);
    return s;
}

/* The weights in the layout `md`, reordered at most once. */
static hp_code pack(hp_onednn *d, const hp_op *op, int o, int i,
                    const dnnl_memory_desc_t *md, dnnl_memory_t *ret, hp_error *reterr)
{
    packed *p;
    hp_code r;

    for (p = d->weights; p != NULL; p = p->next)
        if (p->source == op->weight && dnnl_memory_desc_equal(&p->md, md)) {
            *ret = p->memory;
            return HP_OK;
        }
    p = calloc(1, sizeof *p);
    if (p == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "weights");
    p->source = op->weight;
    p->md = *md;
    r = translate(reterr, reorder(d, op, o, i, p), "reordering weights");
    if (r != HP_OK) {
        if (p->memory != NULL)
            dnnl_memory_destroy(p->memory);
        free(p);
        return r;
    }
    p->next = d->weights;
    d->weights = p;
    *ret = p->memory;
    return HP_OK;
}

static hp_code memories(hp_onednn_conv *v, const hp_op *op, dnnl_primitive_desc_t pd,
                        hp_error *reterr)
{
    const dnnl_memory_desc_t *src =
        dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0);
    const dnnl_memory_desc_t *dst =
        dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0);
    const dnnl_memory_desc_t *scratch =
        dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    dnnl_engine_t engine = v->d->engine;
    dnnl_status_t s = dnnl_memory_create(&v->src, src, engine, DNNL_MEMORY_NONE);

    v->scratch_bytes = dnnl_memory_desc_get_size(scratch);
    if (s == dnnl_success)
        s = dnnl_memory_create(&v->dst, dst, engine, DNNL_MEMORY_NONE);
    if (s == dnnl_success)
        s = dnnl_memory_create(&v->scratch, scratch, engine, DNNL_MEMORY_NONE);
    if (s == dnnl_success && op->bias != NULL)
        s = dnnl_memory_create(&v->bias,
                               dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 1),
                               engine, (void *)op->bias);
    return translate(reterr, s, "memory");
}

void hp_onednn_conv_free(hp_onednn_conv *v)
{
    if (v == NULL)
        return;
    if (v->primitive != NULL)
        dnnl_primitive_destroy(v->primitive);
    if (v->src != NULL)
        dnnl_memory_destroy(v->src);
    if (v->dst != NULL)
        dnnl_memory_destroy(v->dst);
    if (v->bias != NULL)
        dnnl_memory_destroy(v->bias);
    if (v->scratch != NULL)
        dnnl_memory_destroy(v->scratch);
    free(v);
}

hp_code hp_onednn_conv_new(hp_onednn *d, const hp_graph *g, const hp_op *op,
                           bool src_bf16, bool dst_bf16, hp_onednn_conv **ret,
                           hp_error *reterr)
{
    hp_onednn_conv *v = calloc(1, sizeof *v);
    dnnl_convolution_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t s;
    hp_code r;

    if (v == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "convolution");
    v->d = d;
    s = conv_desc(&desc, g, op, src_bf16, dst_bf16);
    if (s == dnnl_success)
        s = conv_attr(&attr, op);
    if (s == dnnl_success)
        s = dnnl_primitive_desc_create(&pd, &desc, attr, d->engine, NULL);
    if (s == dnnl_success)
        s = dnnl_primitive_create(&v->primitive, pd);
    r = translate(reterr, s, "convolution");
    if (r == HP_OK)
        r = memories(v, op, pd, reterr);
    if (r == HP_OK)
        r = pack(d, op, g->value[op->out].dim[3], g->value[op->in[0]].dim[3],
                 dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0), &v->weights,
                 reterr);
    if (attr != NULL)
        dnnl_primitive_attr_destroy(attr);
    if (pd != NULL)
        dnnl_primitive_desc_destroy(pd);
    if (r != HP_OK) {
        hp_onednn_conv_free(v);
        return r;
    }
    *ret = v;
    return HP_OK;
}

size_t hp_onednn_conv_scratch(const hp_onednn_conv *v)
{
    return v->scratch_bytes;
}

hp_code hp_onednn_conv_run(hp_onednn_conv *v, const void *src, void *dst, void *scratch,
                           hp_error *reterr)
{
    dnnl_exec_arg_t args[5] = {{DNNL_ARG_SRC, v->src},
                               {DNNL_ARG_WEIGHTS, v->weights},
                               {DNNL_ARG_DST, v->dst},
                               {DNNL_ARG_SCRATCHPAD, v->scratch}};
    int count = 4;
    dnnl_status_t s = dnnl_memory_set_data_handle(v->src, (void *)src);

    if (v->bias != NULL)
        args[count++] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, v->bias};
    if (s == dnnl_success)
        s = dnnl_memory_set_data_handle(v->dst, dst);
    if (s == dnnl_success)
        s = dnnl_memory_set_data_handle(v->scratch, scratch);
    if (s == dnnl_success)
        s = dnnl_primitive_execute(v->primitive, v->d->stream, count, args);
    if (s == dnnl_success)
        s = dnnl_stream_wait(v->d->stream);
    return translate(reterr, s, "running a convolution");
}
