/* The stand-in; see host_gpu.h. Captures are refused, so that work is queued
 * directly: what a capture holds cannot be seen on the host. */
#include "tests/inference/host_gpu.h"

#include <stdlib.h>
#include <string.h>

#include "inference/cuda/conv.h"
#include "inference/cuda/gpu.h"

host_gpu host;

void host_gpu_reset(void)
{
    host = (host_gpu){.ms = {3, 2, 1}, .name = "Host"};
}

/* --- gpu.h ------------------------------------------------------------- */

struct hp_gpu {
    int engine; /* that ran last */
};
static hp_gpu the_gpu;

hp_code hp_gpu_open(hp_gpu **ret, hp_error *reterr)
{
    (void)reterr;
    *ret = &the_gpu;
    return HP_OK;
}

void hp_gpu_close(hp_gpu *g)
{
    (void)g;
}

const char *hp_gpu_name(const hp_gpu *g)
{
    (void)g;
    return host.name;
}

int hp_gpu_sm(const hp_gpu *g)
{
    (void)g;
    return 90;
}

int hp_gpu_driver(const hp_gpu *g)
{
    (void)g;
    return 13000;
}

hp_stream hp_gpu_stream(const hp_gpu *g)
{
    (void)g;
    return NULL;
}

/* The size stands in front, so that what is freed can be counted off. */
hp_code hp_gpu_alloc(hp_gpu *g, size_t bytes, void **ret, hp_error *reterr)
{
    char *p = NULL;

    (void)g;
    if ((host.fail_alloc > 0 && --host.fail_alloc == 0) ||
        (host.room > 0 && host.used + bytes > host.room) ||
        posix_memalign((void **)&p, 256, bytes + 256) != 0)
        return hp_fail(reterr, HP_E_NO_MEMORY, "%zu bytes on the host GPU", bytes);
    memcpy(p, &bytes, sizeof bytes);
    memset(p + 256, 0xa5, bytes); /* device memory starts as rubbish */
    host.used += bytes;
    host.peak = host.used > host.peak ? host.used : host.peak;
    host.live++;
    *ret = p + 256;
    return HP_OK;
}

void hp_gpu_free(hp_gpu *g, void *p)
{
    size_t bytes;

    (void)g;
    if (p == NULL)
        return;
    memcpy(&bytes, (char *)p - 256, sizeof bytes);
    host.used -= bytes;
    host.live--;
    free((char *)p - 256);
}

hp_code hp_gpu_host_alloc(hp_gpu *g, size_t bytes, void **ret, hp_error *reterr)
{
    return hp_gpu_alloc(g, bytes, ret, reterr);
}

void hp_gpu_host_free(hp_gpu *g, void *p)
{
    hp_gpu_free(g, p);
}

hp_code hp_gpu_upload(hp_gpu *g, void *to, const void *from, size_t bytes,
                      hp_error *reterr)
{
    host.copies++;
    return hp_gpu_copy(g, to, from, bytes, reterr);
}

hp_code hp_gpu_download(hp_gpu *g, void *to, const void *from, size_t bytes,
                        hp_error *reterr)
{
    return hp_gpu_upload(g, to, from, bytes, reterr);
}

hp_code hp_gpu_copy(hp_gpu *g, void *to, const void *from, size_t bytes, hp_error *reterr)
{
    (void)g;
    (void)reterr;
    if (bytes > 0)
        memcpy(to, from, bytes);
    return HP_OK;
}

hp_code hp_gpu_fill(hp_gpu *g, void *p, int byte, size_t bytes, hp_error *reterr)
{
    (void)g;
    (void)reterr;
    memset(p, byte, bytes);
    return HP_OK;
}

hp_code hp_gpu_wait(hp_gpu *g, hp_error *reterr)
{
    (void)g;
    return host.lost ? hp_fail(reterr, HP_E_DEVICE, "CUDA: waiting") : HP_OK;
}

hp_code hp_gpu_capture_begin(hp_gpu *g, hp_error *reterr)
{
    (void)g;
    return hp_fail(reterr, HP_E_UNSUPPORTED, "the host captures nothing");
}

hp_code hp_gpu_capture_end(hp_gpu *g, bool failed, hp_gpu_graph **ret, hp_error *reterr)
{
    (void)failed;
    (void)ret;
    return hp_gpu_capture_begin(g, reterr);
}

hp_code hp_gpu_replay(hp_gpu *g, hp_gpu_graph *graph, hp_error *reterr)
{
    (void)graph;
    return hp_gpu_capture_begin(g, reterr);
}

void hp_gpu_graph_free(hp_gpu_graph *graph)
{
    (void)graph;
}

hp_code hp_gpu_start_watch(hp_gpu *g, hp_error *reterr)
{
    (void)g;
    (void)reterr;
    return HP_OK;
}

hp_code hp_gpu_stop_watch(hp_gpu *g, float *ret_ms, hp_error *reterr)
{
    (void)reterr;
    *ret_ms = host.ms[g->engine];
    return HP_OK;
}

/* --- conv.h ------------------------------------------------------------ */

struct hp_cudnn {
    int nothing;
};
static hp_cudnn the_cudnn;

struct hp_cudnn_conv {
    hp_layer l;
    hp_engine engine[HOST_ENGINES]; /* index 100 + place */
    int count;
};

size_t hp_cudnn_version(void)
{
    return 91900;
}

hp_code hp_cudnn_open(void *stream, hp_cudnn **ret, hp_error *reterr)
{
    (void)stream;
    (void)reterr;
    *ret = &the_cudnn;
    return HP_OK;
}

void hp_cudnn_close(hp_cudnn *c)
{
    (void)c;
}

hp_code hp_cudnn_conv_new(hp_cudnn *c, const hp_layer *l, hp_cudnn_conv **ret,
                          hp_error *reterr)
{
    hp_cudnn_conv *v = calloc(1, sizeof *v);

    (void)c;
    if (v == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "layer");
    v->l = *l;
    *ret = v;
    return HP_OK;
}

void hp_cudnn_conv_free(hp_cudnn_conv *v)
{
    free(v);
}

hp_code hp_cudnn_conv_ask(hp_cudnn_conv *v, int max, int *ret_count, hp_error *reterr)
{
    (void)reterr;
    host.asked++;
    for (v->count = 0; v->count < HOST_ENGINES && v->count < max; v->count++) {
        v->engine[v->count] = (hp_engine){.index = 100 + v->count, .knobs = 1};
        v->engine[v->count].knob[0].type = 7;
        v->engine[v->count].knob[0].value = -v->count;
    }
    *ret_count = v->count;
    return HP_OK;
}

const hp_engine *hp_cudnn_conv_engine(const hp_cudnn_conv *v, int i)
{
    return &v->engine[i];
}

hp_code hp_cudnn_conv_take(hp_cudnn_conv *v, const hp_engine *e, hp_error *reterr)
{
    if (e->index < 100 || e->index >= 100 + HOST_ENGINES)
        return hp_fail(reterr, HP_E_UNSUPPORTED, "no such engine");
    v->engine[0] = *e;
    v->count = 1;
    return HP_OK;
}

void hp_cudnn_conv_strike(hp_cudnn_conv *v, int i)
{
    v->count--;
    memmove(&v->engine[i], &v->engine[i + 1],
            (size_t)(v->count - i) * sizeof v->engine[0]);
}

size_t hp_cudnn_conv_workspace(const hp_cudnn_conv *v, int i)
{
    return host.workspace[v->engine[i].index - 100];
}

/* As floats: each is read many times. */
typedef struct tensors {
    const float *x, *w;
    const uint16_t *z, *bias;
    uint16_t *y;
} tensors;

static float *floats_of(const hp_layer *l, const uint16_t *half, size_t n)
{
    float *f = malloc((n + 1) * sizeof *f);

    for (size_t i = 0; i < n && f != NULL; i++)
        f[i] = hp_layer_float(l->type, half[i]);
    return f;
}

static float one_value(const hp_layer *l, const tensors *t, const int at[3], int c,
                       bool with_bias)
{
    size_t voxel = ((size_t)at[0] * l->y[1] + at[1]) * l->y[2] + at[2];
    const float *w = t->w + (size_t)c * l->k[0] * l->k[1] * l->k[2] * l->cin;
    float sum = 0;

    for (int kz = 0; kz < l->k[0]; kz++)
        for (int ky = 0; ky < l->k[1]; ky++)
            for (int kx = 0; kx < l->k[2]; kx++, w += l->cin) {
                int z = at[0] * l->stride[0] - l->pad[0] + kz * l->dilation[0];
                int y = at[1] * l->stride[1] - l->pad[1] + ky * l->dilation[1];
                int x = at[2] * l->stride[2] - l->pad[2] + kx * l->dilation[2];
                const float *from;

                if (z < 0 || y < 0 || x < 0 || z >= l->x[0] || y >= l->x[1] ||
                    x >= l->x[2])
                    continue;
                from = t->x + (((size_t)z * l->x[1] + y) * l->x[2] + x) * l->cin;
                for (int i = 0; i < l->cin; i++)
                    sum += from[i] * w[i];
            }
    if (l->add)
        sum += hp_layer_float(l->type, t->z[voxel * l->cout + c]);
    if (l->bias && with_bias)
        sum += hp_layer_float(l->type, t->bias[c]);
    return l->relu && sum < 0 ? 0 : sum;
}

/* One item; `end`: it is the batch's last. */
static void compute(const hp_layer *l, const tensors *t, bool end, host_fault fault)
{
    for (int z = 0; z < l->y[0]; z++)
        for (int y = 0; y < l->y[1]; y++)
            for (int x = 0; x < l->y[2]; x++) {
                size_t voxel = ((size_t)z * l->y[1] + y) * l->y[2] + x;
                bool last =
                    end && z == l->y[0] - 1 && y == l->y[1] - 1 && x == l->y[2] - 1;

                if (last && fault == HOST_LEAVES_LAST)
                    continue;
                for (int c = 0; c < l->cout; c++) {
                    float v =
                        one_value(l, t, (int[3]){z, y, x}, c, fault != HOST_NO_BIAS);

                    if (fault == HOST_OFF_IN_ONE && c == l->cout - 3)
                        v += 0.05f;
                    t->y[voxel * l->cout + c] = hp_layer_half(l->type, v);
                }
            }
}

static hp_code compute_batch(const hp_layer *l, const uint16_t *x, const uint16_t *w,
                             const uint16_t *z, const uint16_t *bias, uint16_t *y,
                             host_fault fault, hp_error *reterr)
{
    size_t batch = (size_t)l->batch, xs = hp_layer_x_count(l) / batch,
           ys = hp_layer_y_count(l) / batch;
    float *fx = floats_of(l, x, hp_layer_x_count(l)),
          *fw = floats_of(l, w, hp_layer_w_count(l));

    for (size_t n = 0; n < batch && fx != NULL && fw != NULL; n++) {
        tensors t = {fx + n * xs, fw, z != NULL ? z + n * ys : NULL, bias, y + n * ys};

        compute(l, &t, n == batch - 1, fault);
    }
    free(fx);
    free(fw);
    return fx != NULL && fw != NULL ? HP_OK : hp_fail(reterr, HP_E_INTERNAL, "memory");
}

hp_code hp_cudnn_conv_run(hp_cudnn_conv *v, int i, const void *x, const void *w,
                          const void *z, const void *bias, void *y, void *workspace,
                          hp_error *reterr)
{
    int engine = (int)v->engine[i].index - 100;

    host.runs++;
    if (i >= v->count || v->l.add != (z != NULL) || v->l.bias != (bias != NULL))
        return hp_fail(reterr, HP_E_INTERNAL, "not this layer's tensors");
    if (host.workspace[engine] > 0)
        memset(workspace, 0x5a, host.workspace[engine]); /* an engine may */
    if (host.fault[engine] == HOST_REFUSES)
        return hp_fail(reterr, HP_E_UNSUPPORTED, "engine %d: not this shape", engine);
    if (host.fault[engine] == HOST_FAILS)
        return hp_fail(reterr, HP_E_DEVICE, "engine %d: execution failed", engine);
    host.lost |= host.fault[engine] == HOST_DEVICE_ERROR;
    if (host.lost)
        return hp_fail(reterr, HP_E_DEVICE, "CUDA: an illegal memory access");
    the_gpu.engine = engine;
    return compute_batch(&v->l, x, w, z, bias, y, host.fault[engine], reterr);
}
