/* The CPU back end: convolutions by oneDNN, those of one and of few channels, large
 * ones of many and the rest by kernels/. Every oneDNN call of the house stands in this
 * file, because the C API of libdnnl 2 (operation descriptors) and 3 differ.
 *
 * DESIGN: activations are plain NHWC / NDHWC, the layout in which oneDNN's
 * brgemm kernels reach the FMA peak without blocked activations. Weights are
 * reordered once into whatever the primitive likes and shared between graphs of
 * other sizes. One arena serves all graphs, because they run one after another.
 * No convolution splits a sum between threads and our loops split only over
 * outputs, so results do not depend on the thread count.
 *
 * With precision "bf16" activations and weights between the convolutions are stored
 * in bf16 and summed in fp32; a network's outputs and what the texture encoding reads
 * stay fp32. The arena keeps its plan in floats: a bf16 value uses half of its place.
 */
#include "inference/backend.h"

#include <dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/bf16.h"
#include "kernels/conv_image.h"
#include "kernels/conv_rows.h"
#include "kernels/conv_wide.h"
#include "kernels/encode.h"
#include "kernels/fc.h"
#include "kernels/maxpool.h"
#include "kernels/merge.h"
#include "kernels/unfold.h"
#include "kernels/unfold_rows.h"

/* Weights that a primitive wanted in another layout, or our own kernel (floats). */
typedef struct packed {
    const float *source;
    dnnl_memory_desc_t md;
    dnnl_memory_t memory;
    float *floats;
    struct packed *next;
} packed;

/* Below, reading twice the weights would cost what fewer products spare. */
enum { WIDE_VOXELS = 1024 };

typedef struct cpu {
    hp_backend base;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    int threads;
    bool bf16;
    packed *weights;
    float *arena;
    size_t arena_floats;
    void *scratch;
    size_t scratch_bytes;
    float *cut; /* an image from slices */
    size_t cut_bytes;
    void *narrowed; /* bf16: the inputs that convolutions read */
    size_t narrowed_bytes;
    float *widened; /* bf16: a stage on its way to whoever looks at it */
    size_t widened_bytes;
    char words[64];
} cpu;

/* One convolution, ready to run: ours, or a primitive. */
typedef struct step {
    enum { BY_ONEDNN, BY_ROWS, BY_WIDE, BY_IMAGE } by;
    hp_conv_rows rows;
    hp_conv_wide wide;
    hp_conv_image image;
    const float *packed; /* ours: borrowed */
    dnnl_primitive_t primitive;
    dnnl_memory_t src, dst, bias, scratch;
    dnnl_memory_t weights; /* borrowed from the back end */
} step;

struct hp_exec {
    cpu *cpu;
    const hp_graph *g;
    step *step;   /* one per operation; empty for what is not a convolution */
    bool *narrow; /* one per value: stored in bf16 */
    int item;     /* of the batch that runs now */
    bool finite;  /* the last operation saw that all it made is; else nobody looked */
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

static void cpu_close(hp_backend *b)
{
    cpu *c = (cpu *)b;

    while (c->weights != NULL) {
        packed *p = c->weights;

        c->weights = p->next;
        if (p->memory != NULL)
            dnnl_memory_destroy(p->memory);
        free(p->floats);
        free(p);
    }
    if (c->stream != NULL)
        dnnl_stream_destroy(c->stream);
    if (c->engine != NULL)
        dnnl_engine_destroy(c->engine);
    free(c->arena);
    free(c->scratch);
    free(c->cut);
    free(c->narrowed);
    free(c->widened);
    free(c);
}

/* oneDNN emulates bf16 on older CPUs: slower than fp32, and to no use. */
static bool has_bf16(void)
{
    return (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core_bf16) ==
           dnnl_cpu_isa_avx512_core_bf16;
}

static hp_code cpu_open(const hp_backend_options *opt, hp_backend **ret, hp_error *reterr)
{
    cpu *c = calloc(1, sizeof *c);
    const dnnl_version_t *v = dnnl_version();
    hp_code r;

    if (c == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "CPU back end");
    c->base.ops = &hp_backend_cpu;
    c->threads = opt->threads > 0 ? opt->threads : omp_get_num_procs();
    c->bf16 = strcmp(opt->precision, "bf16") == 0;
    snprintf(c->words, sizeof c->words, "cpu: oneDNN %d.%d.%d, %d thread%s%s", v->major,
             v->minor, v->patch, c->threads, c->threads == 1 ? "" : "s",
             c->bf16 ? ", bf16" : "");
    if (c->bf16 && !has_bf16()) {
        cpu_close(&c->base);
        return hp_fail(reterr, HP_E_UNSUPPORTED,
                       "precision bf16: this CPU has no bf16 instructions");
    }
    r = translate(reterr, dnnl_engine_create(&c->engine, dnnl_cpu, 0), "engine");
    if (r == HP_OK)
        r = translate(
            reterr, dnnl_stream_create(&c->stream, c->engine, dnnl_stream_default_flags),
            "stream");
    if (r != HP_OK) {
        cpu_close(&c->base);
        return r;
    }
    *ret = &c->base;
    return HP_OK;
}

static const char *cpu_describe(const hp_backend *b)
{
    return ((const cpu *)b)->words;
}

/* Grow-only buffers, aligned to a page; large ones lie in huge pages where the system
 * has some: a network walks through a hundred megabytes time and again. */
static hp_code ensure(void **buf, size_t *have, size_t want, hp_error *reterr)
{
    static const size_t HUGE_PAGE = (size_t)1 << 21;
    void *more = NULL;

    if (want <= *have)
        return HP_OK;
    free(*buf);
    *buf = NULL;
    *have = 0;
    if (posix_memalign(&more, want < HUGE_PAGE ? 4096 : HUGE_PAGE, want) != 0)
        return hp_fail(reterr, HP_E_NO_MEMORY, "%zu MiB of work memory", want >> 20);
    if (want >= HUGE_PAGE)
        (void)madvise(more, want, MADV_HUGEPAGE); /* small ones will do */
    *buf = more;
    *have = want;
    return HP_OK;
}

/* --- compiling --------------------------------------------------------- */

/* Whether kernels/ may use AVX-512: they obey the limit that oneDNN was set. */
static bool own_lanes(void)
{
    return (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core) ==
           dnnl_cpu_isa_avx512_core;
}

/* Whether kernels/conv_image computes this, given that the image is fp32. */
static bool for_image(const hp_exec *e, const hp_op *op, hp_conv_image *ret)
{
    const hp_value *x = &e->g->value[op->in[0]], *y = &e->g->value[op->out];

    *ret = (hp_conv_image){.in = {x->dim[0], x->dim[1], x->dim[2]},
                           .out = {y->dim[0], y->dim[1], y->dim[2]},
                           .cin = x->dim[3],
                           .cout = y->dim[3],
                           .depth = op->k[0],
                           .k = op->k[1],
                           .stride = op->stride[1],
                           .relu = op->relu,
                           .narrow = e->narrow[op->out]};
    for (int a = 0; a < 3; a++)
        if (op->dilation[a] != 1)
            return false;
    return op->kind == HP_OP_CONV && x->input >= 0 && op->in[1] < 0 &&
           op->k[2] == op->k[1] && op->stride[0] == 1 && op->stride[2] == op->stride[1] &&
           own_lanes() && hp_conv_image_serves(ret);
}

/* An image that conv_image alone reads is not narrowed for it. */
static bool stays_wide(const hp_exec *e, int value)
{
    const hp_graph *g = e->g;
    hp_conv_image c;
    bool read = false;

    for (int i = 0; i < g->op_count; i++)
        for (int k = 0; k < 3; k++) {
            if (g->op[i].in[k] != value)
                continue;
            if (k > 0 || !for_image(e, &g->op[i], &c))
                return false;
            read = true;
        }
    return read && g->value[value].input >= 0;
}

static bool textural(hp_op_kind kind)
{
    return kind == HP_OP_ASSIGN || kind == HP_OP_ENCODE || kind == HP_OP_L2 ||
           kind == HP_OP_FC;
}

/* Which values are stored in bf16: all but outputs, what the texture encoding reads or
 * makes, and images that our own convolution reads. */
static hp_code choose_storage(hp_exec *e, hp_error *reterr)
{
    const hp_graph *g = e->g;

    if (!e->cpu->bf16)
        return HP_OK;
    for (int i = 0; i < g->value_count; i++)
        e->narrow[i] = true;
    for (int i = 0; i < g->stage_count; i++)
        if (g->stage[i].output)
            e->narrow[g->stage[i].value] = false;
    for (int i = 0; i < g->op_count; i++) {
        const hp_op *op = &g->op[i];

        for (int k = 0; textural(op->kind) && k < 3; k++)
            if (op->in[k] >= 0)
                e->narrow[op->in[k]] = false;
        if (textural(op->kind))
            e->narrow[op->out] = false;
    }
    for (int i = 0; i < g->value_count; i++)
        e->narrow[i] &= !stays_wide(e, i);
    for (int i = 0; i < g->op_count; i++) {
        const hp_op *op = &g->op[i];
        bool fits = op->kind == HP_OP_CONV || e->narrow[op->out];

        for (int k = 0; k < 3; k++)
            fits &= op->in[k] < 0 || e->narrow[op->in[k]] || stays_wide(e, op->in[k]);
        if (!textural(op->kind) && !fits)
            return hp_fail(reterr, HP_E_UNSUPPORTED,
                           "precision bf16: operation %d mixes storage types", i);
    }
    return HP_OK;
}

static dnnl_data_type_t type_of(bool narrow)
{
    return narrow ? dnnl_bf16 : dnnl_f32;
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

static dnnl_status_t conv_desc(dnnl_convolution_desc_t *d, const hp_exec *e,
                               const hp_op *op)
{
    const hp_graph *g = e->g;
    bool narrow = e->narrow[op->in[0]];
    const hp_value *x = &g->value[op->in[0]], *y = &g->value[op->out];
    dnnl_memory_desc_t src, dst, wei, bias;
    dnnl_dims_t strides, dilates, pads, one = {y->dim[3]};
    dnnl_status_t s = value_md(&src, x, op->nd, type_of(narrow));
    int skip = 3 - op->nd;

    if (s == dnnl_success)
        s = value_md(&dst, y, op->nd, type_of(e->narrow[op->out]));
    if (s == dnnl_success)
        s = weights_md(&wei, op, y->dim[3], x->dim[3], true, type_of(narrow));
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

static dnnl_status_t reorder(cpu *c, const hp_op *op, int o, int i, packed *p)
{
    dnnl_memory_desc_t plain;
    dnnl_memory_t from = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t prim = NULL;
    dnnl_status_t s = weights_md(&plain, op, o, i, false, dnnl_f32);

    if (s == dnnl_success)
        s = dnnl_memory_create(&from, &plain, c->engine, (void *)op->weight);
    if (s == dnnl_success)
        s = dnnl_memory_create(&p->memory, &p->md, c->engine, DNNL_MEMORY_ALLOCATE);
    if (s == dnnl_success)
        s = dnnl_reorder_primitive_desc_create(&pd, &plain, c->engine, &p->md, c->engine,
                                               NULL);
    if (s == dnnl_success)
        s = dnnl_primitive_create(&prim, pd);
    if (s == dnnl_success) {
        dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, p->memory}};

        s = dnnl_primitive_execute(prim, c->stream, 2, args);
    }
    if (s == dnnl_success)
        s = dnnl_stream_wait(c->stream);
    if (prim != NULL)
        dnnl_primitive_destroy(prim);
    if (pd != NULL)
        dnnl_primitive_desc_destroy(pd);
    if (from != NULL)
        dnnl_memory_destroy(from);
    return s;
}

/* The weights in the layout `md`, reordered at most once. */
static hp_code pack(cpu *c, const hp_op *op, int o, int i, const dnnl_memory_desc_t *md,
                    dnnl_memory_t *ret, hp_error *reterr)
{
    packed *p;
    hp_code r;

    for (p = c->weights; p != NULL; p = p->next)
        if (p->source == op->weight && p->memory != NULL &&
            dnnl_memory_desc_equal(&p->md, md)) {
            *ret = p->memory;
            return HP_OK;
        }
    p = calloc(1, sizeof *p);
    if (p == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "weights");
    p->source = op->weight;
    p->md = *md;
    r = translate(reterr, reorder(c, op, o, i, p), "reordering weights");
    if (r != HP_OK) {
        if (p->memory != NULL)
            dnnl_memory_destroy(p->memory);
        free(p);
        return r;
    }
    p->next = c->weights;
    c->weights = p;
    *ret = p->memory;
    return HP_OK;
}

static hp_code memories(cpu *c, const hp_op *op, step *s, dnnl_primitive_desc_t pd,
                        hp_error *reterr)
{
    const dnnl_memory_desc_t *src =
        dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0);
    const dnnl_memory_desc_t *dst =
        dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0);
    const dnnl_memory_desc_t *scratch =
        dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    size_t bytes = dnnl_memory_desc_get_size(scratch);
    dnnl_status_t st = dnnl_memory_create(&s->src, src, c->engine, DNNL_MEMORY_NONE);
    hp_code r;

    if (st == dnnl_success)
        st = dnnl_memory_create(&s->dst, dst, c->engine, DNNL_MEMORY_NONE);
    if (st == dnnl_success)
        st = dnnl_memory_create(&s->scratch, scratch, c->engine, DNNL_MEMORY_NONE);
    if (st == dnnl_success && op->bias != NULL)
        st = dnnl_memory_create(
            &s->bias, dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 1),
            c->engine, (void *)op->bias);
    r = translate(reterr, st, "memory");
    if (r == HP_OK)
        r = ensure(&c->scratch, &c->scratch_bytes, bytes, reterr);
    return r;
}

/* 3 x 3 in plane, stride 1. */
static bool is_plain(const hp_op *op)
{
    for (int a = 0; a < 3; a++)
        if (op->stride[a] != 1 || op->dilation[a] != 1)
            return false;
    return op->k[1] == 3 && op->k[2] == 3 && own_lanes();
}

/* Whether the operation reads what a first layer made of the image. */
static bool second_layer(const hp_graph *g, const hp_op *op)
{
    const hp_value *x = &g->value[op->in[0]];
    const hp_op *before = x->input < 0 ? &g->op[x->first] : NULL;

    return before != NULL && before->kind == HP_OP_CONV &&
           g->value[before->in[0]].input >= 0;
}

/* Whether kernels/conv_rows computes this: in bf16, where oneDNN is faster, the key slice
 * network's second layer alone, whose rounded weights its outlines feel most. */
static bool for_rows(const hp_exec *e, const hp_op *op, hp_conv_rows *ret)
{
    const hp_value *x = &e->g->value[op->in[0]], *y = &e->g->value[op->out];

    *ret = (hp_conv_rows){.n = {y->dim[0], y->dim[1], y->dim[2]},
                          .cin = x->dim[3],
                          .cout = y->dim[3],
                          .depth = op->k[0],
                          .relu = op->relu,
                          .narrow = e->narrow[op->out]};
    return is_plain(op) && e->narrow[op->in[0]] == ret->narrow &&
           (!ret->narrow || (op->nd == 2 && second_layer(e->g, op))) &&
           hp_conv_rows_serves(ret);
}

/* Whether kernels/conv_wide does, to a gain. */
static bool for_wide(const hp_exec *e, const hp_op *op, hp_conv_wide *ret)
{
    const hp_value *x = &e->g->value[op->in[0]], *y = &e->g->value[op->out];

    *ret = (hp_conv_wide){.n = {y->dim[0], y->dim[1], y->dim[2]},
                          .cin = x->dim[3],
                          .cout = y->dim[3],
                          .depth = op->k[0],
                          .relu = op->relu};
    return is_plain(op) && !e->narrow[op->in[0]] && !e->narrow[op->out] &&
           y->dim[0] * y->dim[1] * y->dim[2] >= WIDE_VOXELS && hp_conv_wide_serves(ret);
}

static void pack_own(const step *s, const float *weight, float *packed)
{
    if (s->by == BY_ROWS)
        hp_conv_rows_pack(&s->rows, weight, packed);
    else if (s->by == BY_WIDE)
        hp_conv_wide_pack(&s->wide, weight, packed);
    else
        hp_conv_image_pack(&s->image, weight, packed);
}

/* The weights as our own kernels want them, packed at most once. */
static hp_code weights_own(cpu *c, const hp_op *op, step *s, size_t floats,
                           hp_error *reterr)
{
    size_t have = 0;
    void *buf = NULL;
    packed *p;
    hp_code r;

    for (p = c->weights; p != NULL; p = p->next)
        if (p->source == op->weight && p->floats != NULL) {
            s->packed = p->floats;
            return HP_OK;
        }
    p = calloc(1, sizeof *p);
    if (p == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "weights");
    r = ensure(&buf, &have, floats * sizeof(float), reterr);
    if (r != HP_OK) {
        free(p);
        return r;
    }
    pack_own(s, op->weight, buf);
    *p = (packed){.source = op->weight, .floats = buf, .next = c->weights};
    c->weights = p;
    s->packed = buf;
    return HP_OK;
}

static hp_code compile_own(cpu *c, const hp_op *op, step *s, hp_error *reterr)
{
    size_t work, weights;
    hp_code r;

    if (s->by == BY_ROWS) {
        work = hp_conv_rows_work(&s->rows, c->threads);
        weights = hp_conv_rows_packed(&s->rows);
    } else if (s->by == BY_WIDE) {
        work = hp_conv_wide_work(&s->wide, c->threads);
        weights = hp_conv_wide_packed(&s->wide);
    } else {
        work = hp_conv_image_work(&s->image, c->threads);
        weights = hp_conv_image_packed(&s->image);
    }
    r = weights_own(c, op, s, weights, reterr);
    return r == HP_OK
               ? ensure(&c->scratch, &c->scratch_bytes, work * sizeof(float), reterr)
               : r;
}

static hp_code compile_conv(const hp_exec *e, const hp_op *op, step *s, hp_error *reterr)
{
    const hp_graph *g = e->g;
    cpu *c = e->cpu;
    dnnl_convolution_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t st;
    hp_code r;

    if (for_rows(e, op, &s->rows))
        s->by = BY_ROWS;
    else if (for_wide(e, op, &s->wide))
        s->by = BY_WIDE;
    else if (!e->narrow[op->in[0]] && for_image(e, op, &s->image))
        s->by = BY_IMAGE;
    if (s->by != BY_ONEDNN)
        return compile_own(c, op, s, reterr);
    st = conv_desc(&desc, e, op);
    if (st == dnnl_success)
        st = conv_attr(&attr, op);
    if (st == dnnl_success)
        st = dnnl_primitive_desc_create(&pd, &desc, attr, c->engine, NULL);
    if (st == dnnl_success)
        st = dnnl_primitive_create(&s->primitive, pd);
    r = translate(reterr, st, "convolution");
    if (r == HP_OK)
        r = memories(c, op, s, pd, reterr);
    if (r == HP_OK)
        r = pack(c, op, g->value[op->out].dim[3], g->value[op->in[0]].dim[3],
                 dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0), &s->weights,
                 reterr);
    if (attr != NULL)
        dnnl_primitive_attr_destroy(attr);
    if (pd != NULL)
        dnnl_primitive_desc_destroy(pd);
    return r;
}

static void cpu_release(hp_exec *e)
{
    if (e == NULL)
        return;
    for (int i = 0; i < e->g->op_count && e->step != NULL; i++) {
        step *s = &e->step[i];

        if (s->primitive != NULL)
            dnnl_primitive_destroy(s->primitive);
        if (s->src != NULL)
            dnnl_memory_destroy(s->src);
        if (s->dst != NULL)
            dnnl_memory_destroy(s->dst);
        if (s->bias != NULL)
            dnnl_memory_destroy(s->bias);
        if (s->scratch != NULL)
            dnnl_memory_destroy(s->scratch);
    }
    free(e->step);
    free(e->narrow);
    free(e);
}

static hp_code cpu_compile(hp_backend *b, const hp_graph *g, hp_exec **ret,
                           hp_error *reterr)
{
    cpu *c = (cpu *)b;
    hp_exec *e = calloc(1, sizeof *e);
    hp_code r = HP_OK;

    omp_set_num_threads(c->threads);
    if (e != NULL) {
        e->cpu = c;
        e->g = g;
        e->step = calloc((size_t)g->op_count + 1, sizeof *e->step);
        e->narrow = calloc((size_t)g->value_count + 1, sizeof *e->narrow);
    }
    if (e == NULL || e->step == NULL || e->narrow == NULL)
        r = hp_fail(reterr, HP_E_NO_MEMORY, "compiling a network");
    if (r == HP_OK)
        r = choose_storage(e, reterr);
    for (int i = 0; i < g->op_count && r == HP_OK; i++)
        if (g->op[i].kind == HP_OP_CONV)
            r = compile_conv(e, &g->op[i], &e->step[i], reterr);
    if (r != HP_OK) {
        cpu_release(e);
        return r;
    }
    *ret = e;
    return HP_OK;
}

/* --- running ----------------------------------------------------------- */

/* Floats, or bf16 where e->narrow says so. */
static void *at(const hp_exec *e, int value, const float *const *in)
{
    const hp_value *v = &e->g->value[value];

    if (v->input >= 0 && e->narrow[value])
        return e->cpu->narrowed;
    if (v->input >= 0)
        return (float *)in[v->input];
    return e->cpu->arena + v->offset;
}

static size_t bytes_of(const hp_exec *e, int value)
{
    return hp_value_count(&e->g->value[value]) * (e->narrow[value] ? 2 : sizeof(float));
}

static void copy_bytes(void *to, const void *from, size_t n)
{
    enum { BLOCK = 1 << 18 };

#pragma omp parallel for schedule(static)
    for (size_t block = 0; block < (n + BLOCK - 1) / BLOCK; block++) {
        size_t first = block * BLOCK, count = n - first < BLOCK ? n - first : BLOCK;

        memcpy((char *)to + first, (const char *)from + first, count);
    }
}

/* The image in bf16. Networks have one input that convolutions read. */
static hp_code narrow_inputs(hp_exec *e, const float *const *in, hp_error *reterr)
{
    cpu *c = e->cpu;

    for (int i = 0; i < e->g->value_count; i++) {
        const hp_value *v = &e->g->value[i];
        size_t n = hp_value_count(v);
        hp_code r;

        if (v->input < 0 || !e->narrow[i])
            continue;
        r = ensure(&c->narrowed, &c->narrowed_bytes, n * sizeof(uint16_t), reterr);
        if (r != HP_OK)
            return r;
        hp_bf16_from_floats(in[v->input], n, c->narrowed);
    }
    return HP_OK;
}

static void run_own(hp_exec *e, const hp_op *op, const step *s, const float *const *in)
{
    const float *x = at(e, op->in[0], in);
    const float *plus = op->in[1] >= 0 ? at(e, op->in[1], in) : NULL;
    void *work = e->cpu->scratch, *y = at(e, op->out, in);

    if (s->by == BY_ROWS)
        e->finite = hp_conv_rows_run(&s->rows, x, s->packed, op->bias, plus, work, y);
    else if (s->by == BY_WIDE)
        e->finite = hp_conv_wide_run(&s->wide, x, s->packed, op->bias, plus, work, y);
    else
        e->finite = hp_conv_image_run(&s->image, x, s->packed, op->bias, work, y);
}

static hp_code run_conv(hp_exec *e, const hp_op *op, step *s, const float *const *in,
                        hp_error *reterr)
{
    dnnl_exec_arg_t args[5] = {{DNNL_ARG_SRC, s->src},
                               {DNNL_ARG_WEIGHTS, s->weights},
                               {DNNL_ARG_DST, s->dst},
                               {DNNL_ARG_SCRATCHPAD, s->scratch}};
    int count = 4;
    void *dst = at(e, op->out, in);
    dnnl_status_t st;

    if (s->by != BY_ONEDNN) {
        run_own(e, op, s, in);
        return HP_OK;
    }
    if (op->in[1] >= 0 && !op->in_place)
        copy_bytes(dst, at(e, op->in[1], in), bytes_of(e, op->out));
    if (s->bias != NULL)
        args[count++] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, s->bias};
    st = dnnl_memory_set_data_handle(s->src, at(e, op->in[0], in));
    if (st == dnnl_success)
        st = dnnl_memory_set_data_handle(s->dst, dst);
    if (st == dnnl_success)
        st = dnnl_memory_set_data_handle(s->scratch, e->cpu->scratch);
    if (st == dnnl_success)
        st = dnnl_primitive_execute(s->primitive, e->cpu->stream, count, args);
    if (st == dnnl_success)
        st = dnnl_stream_wait(e->cpu->stream);
    return translate(reterr, st, "running a convolution");
}

static void run_merge(const hp_graph *g, const hp_op *op, bool narrow,
                      const void *const src[3], void *out)
{
    hp_merge m = {.batch = 1};

    memcpy(m.n, g->value[op->out].dim, sizeof m.n);
    memcpy(m.low, g->value[op->in[1]].dim, sizeof m.low);
    memcpy(m.stride, op->stride, sizeof m.stride);
    if (narrow)
        hp_merge_bf16(&m, src[0], src[1], out);
    else
        hp_merge_ref(&m, src[0], src[1], out);
}

static void run_unfold(hp_exec *e, const hp_op *op, bool narrow, const void *const src[3],
                       void *out)
{
    const hp_graph *g = e->g;
    const int *n = g->value[op->out].dim;
    int cs = g->value[op->in[0]].dim[3];
    hp_unfold u = {.batch = 1, .skip_c = cs, .up_c = n[3] - cs, .relu = op->relu};

    memcpy(u.n, n, sizeof u.n);
    memcpy(u.low, g->value[op->in[1]].dim, sizeof u.low);
    memcpy(u.stride, op->stride, sizeof u.stride);
    if (own_lanes() && hp_unfold_rows_serves(&u))
        e->finite = hp_unfold_rows(&u, narrow, src[0], src[1], op->bias, out);
    else if (narrow)
        hp_unfold_bf16(&u, src[0], src[1], op->bias, out);
    else
        hp_unfold_ref(&u, src[0], src[1], op->bias, out);
}

static void run_maxpool(const hp_graph *g, const hp_op *op, bool narrow, const void *in,
                        void *out)
{
    const int *m = g->value[op->in[0]].dim;

    if (narrow)
        hp_maxpool_bf16(m[0], m + 1, in, out);
    else
        hp_maxpool_ref(m[0], m + 1, in, out);
}

static void run_fc(const hp_graph *g, const hp_op *op, const float *in, float *out)
{
    hp_fc_ref(1, (int)hp_value_count(&g->value[op->in[0]]), g->value[op->out].dim[3], in,
              op->weight, op->bias, out);
}

static void run_texture(const hp_graph *g, const hp_op *op, const void *const src[3],
                        float *out)
{
    const hp_value *x = &g->value[op->in[0]], *y = &g->value[op->out];
    int m = x->dim[0] * x->dim[1] * x->dim[2], d = x->dim[3];

    if (op->kind == HP_OP_ASSIGN)
        hp_encode_assign_ref(src[0], op->weight, op->bias, m, d, y->dim[3], out);
    else
        hp_encode_sum_ref(src[0], src[1], src[2], op->weight, m, d, y->dim[2], out);
}

static hp_code run_op(hp_exec *e, int i, const float *const *in, hp_error *reterr)
{
    const hp_graph *g = e->g;
    const hp_op *op = &g->op[i];
    bool narrow = e->narrow[op->out];
    const void *src[3] = {0};
    void *out = at(e, op->out, in);

    e->finite = false;
    for (int k = 0; k < 3; k++)
        src[k] = op->in[k] >= 0 ? at(e, op->in[k], in) : NULL;
    switch (op->kind) {
    case HP_OP_CONV:
        return run_conv(e, op, &e->step[i], in, reterr);
    case HP_OP_MERGE:
        run_merge(g, op, narrow, src, out);
        break;
    case HP_OP_UNFOLD:
        run_unfold(e, op, narrow, src, out);
        break;
    case HP_OP_MAXPOOL:
        run_maxpool(g, op, narrow, src[0], out);
        break;
    case HP_OP_FC:
        run_fc(g, op, src[0], out);
        break;
    case HP_OP_L2:
        if (!op->in_place)
            memcpy(out, src[0], bytes_of(e, op->out));
        hp_l2_norm_ref(out, (int)hp_value_count(&g->value[op->out]));
        break;
    case HP_OP_ASSIGN:
    case HP_OP_ENCODE:
        run_texture(g, op, src, out);
        break;
    }
    return HP_OK;
}

/* A float is finite unless all its exponent bits are set; integers vectorise. */
static bool all_finite(const float *data, size_t n)
{
    int bad = 0;

#pragma omp parallel for schedule(static) reduction(| : bad)
    for (size_t block = 0; block < (n + 65535) / 65536; block++) {
        size_t end = (block + 1) * 65536 < n ? (block + 1) * 65536 : n;
        unsigned any = 0;

        for (size_t i = block * 65536; i < end; i++) {
            unsigned bits;

            memcpy(&bits, data + i, sizeof bits);
            any |= (bits & 0x7f800000u) == 0x7f800000u;
        }
        bad |= (int)any;
    }
    return !bad;
}

static bool finite_value(const hp_exec *e, int value)
{
    const void *data = e->cpu->arena + e->g->value[value].offset;
    size_t n = hp_value_count(&e->g->value[value]);

    return e->narrow[value] ? hp_bf16_all_finite(data, n) : all_finite(data, n);
}

/* A value as floats; what is stored in bf16 is widened, once for all its names. */
static hp_code as_floats(hp_exec *e, int value, const float **ret, hp_error *reterr)
{
    cpu *c = e->cpu;
    size_t n = hp_value_count(&e->g->value[value]);
    hp_code r;

    *ret = c->arena + e->g->value[value].offset;
    if (!e->narrow[value])
        return HP_OK;
    r = ensure((void **)&c->widened, &c->widened_bytes, n * sizeof(float), reterr);
    if (r == HP_OK)
        hp_bf16_to_floats((const uint16_t *)*ret, n, c->widened);
    *ret = c->widened;
    return r;
}

static hp_code look_at_stages(hp_exec *e, int value, hp_stage_fn *on_stage, void *payload,
                              hp_error *reterr)
{
    const hp_graph *g = e->g;
    const float *data = NULL;
    bool checked = false;
    hp_code r = HP_OK;

    for (int s = 0; s < g->stage_count && r == HP_OK; s++) {
        if (g->stage[s].value != value)
            continue;
        if (!checked && !e->finite && !finite_value(e, value))
            return hp_fail(reterr, HP_E_NUMERIC, "stage %s: a value is not finite",
                           g->stage[s].name);
        checked = true;
        if (on_stage == NULL)
            continue;
        if (data == NULL)
            r = as_floats(e, value, &data, reterr);
        if (r == HP_OK)
            on_stage(g, &g->stage[s], e->item, data, payload);
    }
    return r;
}

static const float *made_floats(int value, int item, void *payload)
{
    (void)item;
    return at(payload, value, NULL); /* no output is an input */
}

/* The item's image, cut here. */
static hp_code cut_image(hp_exec *e, const hp_slices *s, const float **ret,
                         hp_error *reterr)
{
    cpu *c = e->cpu;
    size_t n = (size_t)s->cut.n[0] * s->cut.n[1] * s->cut.n[2] * s->cut.channels;
    hp_code r = ensure((void **)&c->cut, &c->cut_bytes, n * sizeof *c->cut, reterr);

    *ret = c->cut;
    return r == HP_OK ? hp_input_ref(&s->cut, s->hu, c->cut, reterr) : r;
}

static hp_code decode_heads(const hp_exec *e, const hp_ports *p, hp_error *reterr)
{
    int value[3];
    hp_decode d = hp_ports_decode(p, e->g, value);

    d.batch = 1;
    return hp_decode_ref(&d, at(e, value[0], NULL), at(e, value[1], NULL),
                         at(e, value[2], NULL), p->decoded, reterr);
}

/* p: of this item. */
static hp_code run_item(hp_exec *e, hp_ports *p, hp_stage_fn *on_stage, void *payload,
                        hp_error *reterr)
{
    const hp_graph *g = e->g;
    hp_code r = HP_OK;

    if (p->slices != NULL)
        r = cut_image(e, p->slices, &p->in[0], reterr);
    if (r == HP_OK)
        r = narrow_inputs(e, p->in, reterr);
    for (int i = 0; i < g->op_count && r == HP_OK; i++) {
        r = run_op(e, i, p->in, reterr);
        if (r == HP_OK)
            r = look_at_stages(e, g->op[i].out, on_stage, payload, reterr);
    }
    if (r == HP_OK && p->decoded != NULL)
        r = decode_heads(e, p, reterr);
    if (r == HP_OK)
        hp_graph_copy_out(g, 0, made_floats, e, p->out);
    return r;
}

static hp_code cpu_run(hp_exec *e, const hp_ports *p, hp_stage_fn *on_stage,
                       void *payload, hp_error *reterr)
{
    const hp_graph *g = e->g;
    cpu *c = e->cpu;
    size_t bytes = c->arena_floats * sizeof(float);
    hp_code r = hp_ports_check(p, g, reterr);

    if (r != HP_OK)
        return r;
    omp_set_num_threads(c->threads);
    r = ensure((void **)&c->arena, &bytes, g->arena_floats * sizeof(float), reterr);
    c->arena_floats = bytes / sizeof(float);
    /* A batch is as many runs: here it gains nothing, and so costs no memory. */
    for (e->item = 0; e->item < g->batch && r == HP_OK; e->item++) {
        hp_ports own = hp_ports_shift(p, g, e->item);

        r = run_item(e, &own, on_stage, payload, reterr);
    }
    return r == HP_OK ? hp_ports_look(p, g, reterr) : r;
}

const hp_backend_ops hp_backend_cpu = {
    .name = "cpu",
    .batch_max = 1,
    .open = cpu_open,
    .close = cpu_close,
    .describe = cpu_describe,
    .compile = cpu_compile,
    .release = cpu_release,
    .run = cpu_run,
};
