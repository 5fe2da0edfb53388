/* Which back end serves. */
#include "inference/backend.h"

#include <stdio.h>
#include <string.h>

#include "inference/module.h"

const char *hp_backend_why(const hp_backend *b)
{
    return b->why;
}

const char *hp_backend_describe(const hp_backend *b, char *ret, size_t size)
{
    char smaller[32] = "";

    if (b->batch > 0)
        snprintf(smaller, sizeof smaller, "; batches of %d", b->batch);
    snprintf(ret, size, "%s%s%s%s", b->ops->describe(b), smaller,
             b->spare != NULL ? "; in part " : "",
             b->spare != NULL ? b->spare->ops->describe(b->spare) : "");
    return ret;
}

/* What a device computes in; "auto" is the first. */
typedef struct precisions {
    const char *device, *name[2];
} precisions;
static const precisions CPU = {"the CPU", {"fp32", "bf16"}};
static const precisions CUDA = {"CUDA", {"fp16", "bf16"}};

static hp_code settle_precision(const precisions *has, hp_backend_options *opt,
                                hp_error *reterr)
{
    for (int i = 0; i < 2; i++)
        if (strcmp(opt->precision, has->name[i]) == 0)
            return HP_OK;
    if (strcmp(opt->precision, "auto") != 0)
        return hp_fail(reterr, HP_E_INVALID, "precision %.20s: %s has %s and %s",
                       opt->precision, has->device, has->name[0], has->name[1]);
    opt->precision = has->name[0];
    return HP_OK;
}

/* `words`: why this one. */
static hp_code open_one(const hp_backend_ops *ops, const hp_backend_options *opt,
                        const char *words, hp_backend **ret, hp_error *reterr)
{
    hp_backend *b = NULL;
    hp_code r = ops->open(opt, &b, reterr);

    if (r != HP_OK)
        return r;
    b->opt = *opt;
    snprintf(b->why, sizeof b->why, "%s", words);
    *ret = b;
    return HP_OK;
}

static hp_code open_cpu(const hp_backend_options *opt, const char *words,
                        hp_backend **ret, hp_error *reterr)
{
    hp_backend_options o = *opt;
    hp_code r = settle_precision(&CPU, &o, reterr);

    if (r != HP_OK)
        return r;
    r = open_one(&hp_backend_cpu, &o, words, ret, reterr);
    if (r != HP_E_UNSUPPORTED)
        return r;
    if (reterr != NULL) /* a CPU without bf16: the precision is at fault */
        reterr->code = HP_E_INVALID;
    return HP_E_INVALID;
}

static hp_code open_cuda(const hp_backend_options *opt, const char *words,
                         hp_backend **ret, hp_error *reterr)
{
    hp_backend_options o = *opt;
    const hp_backend_ops *ops = NULL;
    hp_code r = settle_precision(&CUDA, &o, reterr);

    if (r != HP_OK)
        return r;
    r = hp_module_load(o.module, &ops, reterr);
    if (r == HP_OK)
        r = open_one(ops, &o, words, ret, reterr);
    if (r == HP_E_NOT_FOUND || r == HP_E_INVALID)
        r = HP_E_UNSUPPORTED; /* for the caller it is all one: there is none */
    return r;
}

static hp_code open_best(const hp_backend_options *opt, hp_backend **ret,
                         hp_error *reterr)
{
    hp_error no_cuda = HP_ERROR_INIT;
    hp_code r;

    if (open_cuda(opt, "a GPU that serves", ret, &no_cuda) == HP_OK)
        return HP_OK;
    r = open_cpu(opt, no_cuda.msg, ret, reterr);
    if (r != HP_OK && reterr != NULL) { /* of two refusals, both count */
        size_t n = strlen(reterr->msg);

        snprintf(reterr->msg + n, sizeof reterr->msg - n, "; device cuda: %.150s",
                 no_cuda.msg);
    }
    return r;
}

hp_code hp_backend_open_with(const hp_backend_options *opt, hp_backend **ret,
                             hp_error *reterr)
{
    hp_backend *b = NULL;
    hp_code r;

    if (strcmp(opt->device, "auto") == 0) {
        r = open_best(opt, &b, reterr);
    } else if (strcmp(opt->device, "cuda") == 0) {
        r = open_cuda(opt, "asked for", &b, reterr);
        if (r != HP_OK && r != HP_E_INVALID) /* a wrong precision names itself */
            return hp_wrap(reterr, r, "device cuda");
    } else if (strcmp(opt->device, "cpu") == 0) {
        r = open_cpu(opt, "asked for", &b, reterr);
    } else {
        return hp_fail(reterr, HP_E_INVALID, "device %.20s: auto, cpu or cuda",
                       opt->device);
    }
    if (r != HP_OK)
        return r;
    hp_backend_note(b, "device=%s asked=%s what=\"%s\" precision=%s why=\"%s\"",
                    b->ops->name, opt->device, b->ops->describe(b), b->opt.precision,
                    b->why);
    *ret = b;
    return HP_OK;
}

hp_code hp_backend_open(const char *device, int threads, hp_backend **ret,
                        hp_error *reterr)
{
    hp_backend_options opt = HP_BACKEND_OPTIONS_INIT;

    opt.device = device;
    opt.threads = threads;
    return hp_backend_open_with(&opt, ret, reterr);
}

hp_code hp_backend_spare(hp_backend *b, hp_backend **ret, hp_error *reterr)
{
    hp_code r;

    if (b->ops == &hp_backend_cpu || strcmp(b->opt.device, "auto") != 0)
        return hp_fail(reterr, HP_E_UNSUPPORTED, "no other device");
    if (b->spare == NULL) {
        hp_backend_options o = b->opt;

        o.precision = "auto"; /* the GPU's may not be the CPU's */
        r = open_cpu(&o, "not on the GPU", &b->spare, reterr);
        if (r != HP_OK)
            return r;
    }
    *ret = b->spare;
    return HP_OK;
}

void hp_backend_close(hp_backend *b)
{
    if (b == NULL)
        return;
    hp_backend_close(b->spare);
    b->ops->close(b);
}
