/* The bench: known numbers on the device, and the plain sum on the host.
 *
 * Numbers repeat with a prime period, so that a large tensor is a short upload and
 * copies of it on the device, and no two taps or channels see the same ones. */
#include "inference/cuda/trust.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PERIOD = 65521, VOXELS = 24, CHANNELS = 32, RUNS = 4, BUFFERS = 5 };

static const char TENSOR[BUFFERS] = {'x', 'w', 'z', 'b', 'y'};

struct hp_bench {
    hp_gpu *g;
    hp_layer layer;
    void *buf[BUFFERS]; /* in the order of TENSOR */
    size_t bytes[BUFFERS];
    void *workspace;
    size_t workspace_bytes;
    uint16_t period[PERIOD];
    float image[PERIOD], weight[PERIOD]; /* the numbers of 'x' and 'w' */
    uint16_t *seen; /* one voxel's channels, for each sampled voxel */
    size_t seen_count;
    double *want, *magnitude; /* at each sample; NULL until the layer's first compare */
};

hp_code hp_bench_new(hp_gpu *g, hp_bench **ret, hp_error *reterr)
{
    hp_bench *b = calloc(1, sizeof *b);

    if (b == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "comparing plans");
    b->g = g;
    *ret = b;
    return HP_OK;
}

void hp_bench_free(hp_bench *b)
{
    if (b == NULL)
        return;
    for (int t = 0; t < BUFFERS; t++)
        hp_gpu_free(b->g, b->buf[t]);
    hp_gpu_free(b->g, b->workspace);
    free(b->seen);
    free(b->want);
    free(b->magnitude);
    free(b);
}

/* --- the numbers ------------------------------------------------------- */

static uint32_t mix(uint32_t v)
{
    v = (v ^ v >> 16) * 0x7feb352du;
    v = (v ^ v >> 15) * 0x846ca68bu;
    return v ^ v >> 16;
}

/* Uniform; weights so small that a result is about as large as an input. */
uint16_t hp_bench_number(const hp_layer *l, char tensor, size_t i)
{
    uint32_t bits = mix((uint32_t)(i % PERIOD) + ((uint32_t)tensor << 20));
    float unit = (float)(bits >> 8) * 0x1p-23f - 1.0f;

    if (tensor == 'w')
        unit *= sqrtf(3.0f / (float)(l->k[0] * l->k[1] * l->k[2] * l->cin));
    return hp_layer_half(l->type, unit);
}

static double number(const hp_layer *l, char tensor, size_t i)
{
    return (double)hp_layer_float(l->type, hp_bench_number(l, tensor, i));
}

/* One tap: the channels of a voxel times their weights. */
static void add_tap(const hp_bench *b, size_t from, size_t weight, double *sum,
                    double *magnitude)
{
    size_t i = from % PERIOD, w = weight % PERIOD;

    for (int c = 0; c < b->layer.cin; c++) {
        double term = (double)b->image[i] * (double)b->weight[w];

        *sum += term;
        *magnitude += fabs(term);
        i = i + 1 == PERIOD ? 0 : i + 1;
        w = w + 1 == PERIOD ? 0 : w + 1;
    }
}

/* at: item, z, y, x */
static size_t voxel_of(const hp_layer *l, const int at[4])
{
    return (((size_t)at[0] * l->y[0] + at[1]) * l->y[1] + at[2]) * l->y[2] + at[3];
}

double hp_bench_expect(const hp_bench *b, const int at[4], int channel,
                       double *ret_magnitude)
{
    const hp_layer *l = &b->layer;
    size_t voxel = voxel_of(l, at);
    int taps = l->k[0] * l->k[1] * l->k[2];
    double sum = 0, magnitude = 0, extra[2] = {0};

    for (int t = 0; t < taps; t++) {
        int k[3] = {t / l->k[2] / l->k[1], t / l->k[2] % l->k[1], t % l->k[2]}, p[3];
        bool inside = true;

        for (int a = 0; a < 3; a++) {
            p[a] = at[a + 1] * l->stride[a] - l->pad[a] + k[a] * l->dilation[a];
            inside = inside && p[a] >= 0 && p[a] < l->x[a];
        }
        if (inside)
            add_tap(
                b,
                ((((size_t)at[0] * l->x[0] + p[0]) * l->x[1] + p[1]) * l->x[2] + p[2]) *
                    l->cin,
                ((size_t)channel * taps + t) * l->cin, &sum, &magnitude);
    }
    if (l->add)
        extra[0] = number(l, 'z', voxel * l->cout + channel);
    if (l->bias)
        extra[1] = number(l, 'b', channel);
    *ret_magnitude = magnitude + fabs(extra[0]) + fabs(extra[1]);
    sum += extra[0] + extra[1];
    return l->relu && sum < 0 ? 0 : sum;
}

/* --- on the device ----------------------------------------------------- */

static hp_code ensure(hp_gpu *g, void **buf, size_t *have, size_t want, hp_error *reterr)
{
    hp_code r;

    if (want <= *have)
        return HP_OK;
    hp_gpu_free(g, *buf);
    *buf = NULL;
    *have = 0;
    r = hp_gpu_alloc(g, want, buf, reterr);
    if (r == HP_OK)
        *have = want;
    return r;
}

/* One period goes up; then what is there is copied behind itself. */
static hp_code spread(hp_bench *b, int t, size_t count, hp_error *reterr)
{
    size_t done = count < PERIOD ? count : PERIOD;
    hp_code r;

    for (size_t i = 0; i < done; i++)
        b->period[i] = hp_bench_number(&b->layer, TENSOR[t], i);
    r = hp_gpu_upload(b->g, b->buf[t], b->period, done * 2, reterr);
    if (r == HP_OK)
        r = hp_gpu_wait(b->g, reterr); /* `period` is written again */
    while (r == HP_OK && done < count) {
        size_t more = done < count - done ? done : count - done;

        r = hp_gpu_copy(b->g, (char *)b->buf[t] + done * 2, b->buf[t], more * 2, reterr);
        done += more;
    }
    return r;
}

hp_code hp_bench_set(hp_bench *b, const hp_layer *l, hp_error *reterr)
{
    size_t count[BUFFERS] = {hp_layer_x_count(l), hp_layer_w_count(l),
                             l->add ? hp_layer_y_count(l) : 0,
                             l->bias ? (size_t)l->cout : 0, hp_layer_y_count(l)};
    size_t seen = (size_t)VOXELS * l->cout;
    hp_code r = HP_OK;

    b->layer = *l;
    free(b->want);
    free(b->magnitude);
    b->want = b->magnitude = NULL;
    for (size_t i = 0; i < PERIOD; i++) {
        b->image[i] = (float)number(l, 'x', i);
        b->weight[i] = (float)number(l, 'w', i);
    }
    if (seen > b->seen_count) {
        free(b->seen);
        b->seen = malloc(seen * sizeof *b->seen);
        b->seen_count = b->seen != NULL ? seen : 0;
        if (b->seen == NULL)
            return hp_fail(reterr, HP_E_NO_MEMORY, "comparing plans");
    }
    for (int t = 0; t < BUFFERS && r == HP_OK; t++) {
        r = ensure(b->g, &b->buf[t], &b->bytes[t], count[t] * 2, reterr);
        if (r == HP_OK && TENSOR[t] != 'y')
            r = spread(b, t, count[t], reterr);
    }
    return r;
}

static hp_code run(hp_bench *b, hp_cudnn_conv *v, int candidate, hp_error *reterr)
{
    const hp_layer *l = &b->layer;

    return hp_cudnn_conv_run(v, candidate, b->buf[0], b->buf[1],
                             l->add ? b->buf[2] : NULL, l->bias ? b->buf[3] : NULL,
                             b->buf[4], b->workspace, reterr);
}

/* The corners first, those of the last item's far side among them, the rest anywhere. */
static void sample(const hp_layer *l, int i, int ret[4])
{
    ret[0] = i < 8 ? (i & 1 ? l->batch - 1 : 0) : i % l->batch;
    for (int a = 0; a < 3; a++)
        ret[a + 1] = i < 8 ? (i >> a & 1 ? l->y[a] - 1 : 0)
                           : (int)(mix((uint32_t)(i * 3 + a + 1)) % (uint32_t)l->y[a]);
}

static hp_code fetch(hp_bench *b, hp_error *reterr)
{
    const hp_layer *l = &b->layer;
    hp_code r = HP_OK;

    for (int i = 0; i < VOXELS && r == HP_OK; i++) {
        int at[4];
        size_t voxel;

        sample(l, i, at);
        voxel = voxel_of(l, at);
        r = hp_gpu_download(b->g, b->seen + (size_t)i * l->cout,
                            (char *)b->buf[4] + voxel * l->cout * 2, (size_t)l->cout * 2,
                            reterr);
    }
    return r == HP_OK ? hp_gpu_wait(b->g, reterr) : r;
}

/* What fp32 sums in any order, rounded once to storage, may be off. */
static double allowed(const hp_layer *l, double want, double magnitude)
{
    return hp_layer_epsilon(l->type) * fabs(want) + 0x1p-15 * magnitude + 0x1p-24;
}

/* Channels looked at in each voxel; other voxels, other channels. */
static int channels_each(const hp_layer *l)
{
    int turn = (l->cout + VOXELS - 1) / VOXELS;

    return l->cout < CHANNELS ? l->cout : turn > CHANNELS ? turn : CHANNELS;
}

/* The sums are made once for all engines of a layer. */
static hp_code expect_all(hp_bench *b, hp_error *reterr)
{
    const hp_layer *l = &b->layer;
    int each = channels_each(l), at[4];

    if (b->want != NULL)
        return HP_OK;
    free(b->magnitude);
    b->want = malloc((size_t)VOXELS * each * sizeof *b->want);
    b->magnitude = malloc((size_t)VOXELS * each * sizeof *b->magnitude);
    if (b->want == NULL || b->magnitude == NULL) {
        free(b->want);
        b->want = NULL;
        return hp_fail(reterr, HP_E_NO_MEMORY, "comparing plans");
    }
    for (int i = 0; i < VOXELS * each; i++) {
        sample(l, i / each, at);
        b->want[i] = hp_bench_expect(b, at, i % l->cout, &b->magnitude[i]);
    }
    return HP_OK;
}

static hp_code judge(hp_bench *b, hp_error *reterr)
{
    const hp_layer *l = &b->layer;
    int each = channels_each(l);
    hp_code r = expect_all(b, reterr);

    for (int i = 0; i < VOXELS * each && r == HP_OK; i++) {
        size_t channel = (size_t)(i % l->cout);
        double got = (double)hp_layer_float(
            l->type, b->seen[(size_t)(i / each) * l->cout + channel]);
        int at[4];

        if (fabs(got - b->want[i]) <= allowed(l, b->want[i], b->magnitude[i]))
            continue; /* which NaN is not */
        sample(l, i / each, at);
        r = hp_fail(reterr, HP_E_MISMATCH,
                    "%.6g at %d,%d,%d,%d channel %zu, where %.6g is right", got, at[0],
                    at[1], at[2], at[3], channel, b->want[i]);
    }
    return r;
}

hp_code hp_bench_compare(hp_bench *b, hp_cudnn_conv *v, int candidate, hp_error *reterr)
{
    hp_code r = ensure(b->g, &b->workspace, &b->workspace_bytes,
                       hp_cudnn_conv_workspace(v, candidate), reterr);

    if (r == HP_OK) /* what an engine leaves out stays NaN */
        r = hp_gpu_fill(b->g, b->buf[4], 0xff, hp_layer_y_count(&b->layer) * 2, reterr);
    if (r == HP_OK) {
        r = run(b, v, candidate, reterr);
        /* An engine may say so only when it is to run; and one that could not be
         * started is its own fault where the device goes on. */
        if (r == HP_E_UNSUPPORTED ||
            (r == HP_E_DEVICE && hp_gpu_wait(b->g, NULL) == HP_OK))
            return hp_wrap(reterr, HP_E_MISMATCH, "it does not run");
    }
    if (r == HP_OK)
        r = fetch(b, reterr);
    return r == HP_OK ? judge(b, reterr) : r;
}

hp_code hp_bench_time(hp_bench *b, hp_cudnn_conv *v, int candidate, double *ret_us,
                      hp_error *reterr)
{
    double best = INFINITY;
    hp_code r = HP_OK;

    for (int i = 0; i < RUNS && r == HP_OK; i++) {
        float ms = 0;

        r = hp_gpu_start_watch(b->g, reterr);
        if (r == HP_OK)
            r = run(b, v, candidate, reterr);
        if (r == HP_OK)
            r = hp_gpu_stop_watch(b->g, &ms, reterr);
        if (r == HP_OK && (double)ms * 1e3 < best)
            best = (double)ms * 1e3;
    }
    if (r == HP_OK)
        *ret_us = best;
    return r;
}
