/* Modules that a host may have: one that serves, and the ways not to. Built once
 * for each FAKE_* (meson.build). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inference/module.h"

static const hp_backend_ops ops;

static hp_code refuse(hp_error *reterr, hp_code code, const char *words)
{
    reterr->code = code;
    strcpy(reterr->msg, words);
    return code;
}

static char words[40];

static hp_code fake_open(const hp_backend_options *opt, hp_backend **ret,
                         hp_error *reterr)
{
    hp_backend *b;

#ifdef FAKE_NO_GPU
    return refuse(reterr, HP_E_UNSUPPORTED, "no GPU: no driver");
#endif
    b = calloc(1, sizeof *b);
    if (b == NULL)
        return refuse(reterr, HP_E_NO_MEMORY, "fake");
    b->ops = &ops;
    snprintf(words, sizeof words, "cuda: a fake, %s", opt->precision);
    *ret = b;
    return HP_OK;
}

static void fake_close(hp_backend *b)
{
    free(b);
}

static const char *fake_describe(const hp_backend *b)
{
    (void)b;
    return words;
}

/* A device without an inch of room. */
static hp_code fake_compile(hp_backend *b, const hp_graph *g, hp_exec **ret,
                            hp_error *reterr)
{
    (void)b;
    (void)g;
    (void)ret;
#ifdef FAKE_BROKEN
    *ret = (hp_exec *)words; /* nothing is in it: no run comes that far */
    return HP_OK;
#endif
    return refuse(reterr, HP_E_NO_MEMORY, "device memory");
}

/* A device that is lost to its process, as after a fault. */
static hp_code fake_run(hp_exec *e, const hp_ports *p, hp_stage_fn *on_stage,
                        void *payload, hp_error *reterr)
{
    (void)e;
    (void)p;
    (void)on_stage;
    (void)payload;
    return refuse(reterr, HP_E_DEVICE, "CUDA: an illegal memory access");
}

static void fake_release(hp_exec *e)
{
    (void)e;
}

static const hp_backend_ops ops = {.name = "cuda",
                                   .batch_max = 4,
                                   .open = fake_open,
                                   .close = fake_close,
                                   .describe = fake_describe,
                                   .compile = fake_compile,
                                   .release = fake_release,
                                   .run = fake_run};

#ifndef FAKE_NO_SYMBOL
const hp_backend_module hp_backend_module_entry = {
#ifdef FAKE_OLD
    .abi = HP_MODULE_ABI - 1,
#else
    .abi = HP_MODULE_ABI,
#endif
#ifdef FAKE_LAYOUT
    .layout = HP_MODULE_LAYOUT + 8,
#else
    .layout = HP_MODULE_LAYOUT,
#endif
    .ops = &ops};
#else
extern const hp_backend_ops *hp_fake_ops;
const hp_backend_ops *hp_fake_ops = &ops;
#endif
