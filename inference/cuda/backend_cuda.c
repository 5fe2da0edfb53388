/* The CUDA back end: a graph's operations on one stream.
 *
 * DESIGN: activations are NDHWC in halves, channels padded to eight (layer.h), a
 * batch's items one after another, in one arena by lifetime that all networks share,
 * because they run one after another. A network's whole run is captured once, from
 * the upload of its inputs to the download of its outputs, and replayed; where work
 * cannot be captured, or somebody wants to see each stage, it is queued directly by
 * the same code. A maximum over the bits of each named stage runs along, so that a
 * value that is not finite is found where it was made, without waiting for it.
 *
 * Slices of a study stay on the device while it is read, and images are cut out of
 * them there; the detector's heads come back as peaks. The cut differs from study to
 * study, so it stands in front of what is captured.
 *
 * The texture encoding, what follows it and its mask are floats without padding.
 * Assignment, sum and norm are one fused step, which leaves the first and second
 * unwritten, so only a run that somebody looks at takes them one by one.
 */
#include "inference/cuda/backend_cuda.h"

#include <stdio.h>
#include <stdlib.h>

#include "inference/cuda/exec_internal.h"

/* The candidates of a study, which is the most that is handed over at once. */
enum { BATCH = 10 };

/* --- opening ----------------------------------------------------------- */

static void cuda_close(hp_backend *b)
{
    hp_cuda *c = (hp_cuda *)b;

    if (c == NULL)
        return;
    hp_cuda__let_go(b);
    while (c->weights != NULL) {
        hp_uploaded *u = c->weights;

        c->weights = u->next;
        hp_gpu_free(c->gpu, u->device);
        free(u);
    }
    if (c->gpu != NULL) {
        hp_gpu_free(c->gpu, c->arena.p);
        hp_gpu_free(c->gpu, c->workspace.p);
        hp_gpu_free(c->gpu, c->look.p);
        hp_gpu_free(c->gpu, c->tables.p);
    }
    hp_plans_free(c->plans);
    hp_plan_cache_free(c->cache);
    hp_cudnn_close(c->cudnn);
    hp_gpu_close(c->gpu);
    free(c);
}

/* Everything that a plan depends on besides its layer. */
static hp_code open_cache(hp_cuda *c, const hp_backend_options *opt, hp_error *reterr)
{
    char device[160];

    snprintf(device, sizeof device, "%s, SM %d.%d, driver %d, cuDNN %zu",
             hp_gpu_name(c->gpu), hp_gpu_sm(c->gpu) / 10, hp_gpu_sm(c->gpu) % 10,
             hp_gpu_driver(c->gpu), hp_cudnn_version());
    return hp_plan_cache_open(opt->plan_cache, device, &c->cache, reterr);
}

static hp_code cuda_open(const hp_backend_options *opt, hp_backend **ret,
                         hp_error *reterr)
{
    hp_cuda *c = calloc(1, sizeof *c);
    size_t v = hp_cudnn_version();
    hp_code r = HP_OK;

    if (c == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "CUDA back end");
    c->base.ops = &hp_backend_cuda;
    c->type = hp_layer_type_of(opt->precision);
    if (c->type == HP_F32)
        r = hp_fail(reterr, HP_E_INVALID, "precision %.20s: fp16 or bf16",
                    opt->precision);
    if (r == HP_OK)
        r = hp_gpu_open(&c->gpu, reterr);
    if (r == HP_OK)
        r = hp_cudnn_open(hp_gpu_stream(c->gpu), &c->cudnn, reterr);
    if (r == HP_OK)
        r = open_cache(c, opt, reterr);
    if (r == HP_OK)
        r = hp_plans_new(c->gpu, c->cudnn, c->cache, opt->on_note, opt->payload,
                         &c->plans, reterr);
    if (r != HP_OK) {
        cuda_close(&c->base);
        return r;
    }
    snprintf(c->words, sizeof c->words, "cuda: %.40s, cuDNN %zu.%zu.%zu, %s",
             hp_gpu_name(c->gpu), v / 10000, v / 100 % 100, v % 100,
             hp_layer_type_name(c->type));
    *ret = &c->base;
    return HP_OK;
}

static const char *cuda_describe(const hp_backend *b)
{
    return ((const hp_cuda *)b)->words;
}

hp_code hp_cuda__ensure(hp_cuda *c, hp_room *m, size_t want, hp_error *reterr)
{
    hp_code r;

    if (want <= m->bytes)
        return HP_OK;
    hp_gpu_free(c->gpu, m->p);
    *m = (hp_room){.age = m->age + 1};
    r = hp_gpu_alloc(c->gpu, want, &m->p, reterr);
    if (r == HP_OK)
        m->bytes = want;
    return r;
}

const hp_backend_ops hp_backend_cuda = {
    .name = "cuda",
    .batch_max = BATCH,
    .open = cuda_open,
    .close = cuda_close,
    .describe = cuda_describe,
    .compile = hp_exec__compile,
    .release = hp_exec__release,
    .run = hp_exec__run,
    .hold = hp_cuda__hold,
    .let_go = hp_cuda__let_go,
};
