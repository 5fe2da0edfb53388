/* The CPU back end: oneDNN's convolutions; kernels/ for those of images, of few
 * channels, large ones of many, and for all that is not a convolution.
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
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "inference/cpu/cpu_internal.h"

static void cpu_close(hp_backend *b)
{
    hp_cpu *c = (hp_cpu *)b;

    while (c->packed != NULL) {
        hp_cpu_packed *p = c->packed;

        c->packed = p->next;
        free(p->room.p);
        free(p);
    }
    hp_onednn_close(c->onednn);
    free(c->arena.p);
    free(c->scratch.p);
    free(c->cut.p);
    free(c->narrowed.p);
    free(c->widened.p);
    free(c);
}

static hp_code cpu_open(const hp_backend_options *opt, hp_backend **ret, hp_error *reterr)
{
    hp_cpu *c = calloc(1, sizeof *c);
    int v[3];
    hp_code r;

    if (c == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "CPU back end");
    c->base.ops = &hp_backend_cpu;
    c->threads = opt->threads > 0 ? opt->threads : omp_get_num_procs();
    c->bf16 = strcmp(opt->precision, "bf16") == 0;
    hp_onednn_version(v);
    snprintf(c->words, sizeof c->words, "cpu: oneDNN %d.%d.%d, %d thread%s%s", v[0], v[1],
             v[2], c->threads, c->threads == 1 ? "" : "s", c->bf16 ? ", bf16" : "");
    r = c->bf16 && !hp_onednn_has_bf16()
            ? hp_fail(reterr, HP_E_UNSUPPORTED,
                      "precision bf16: this CPU has no bf16 instructions")
            : hp_onednn_open(&c->onednn, reterr);
    if (r != HP_OK) {
        cpu_close(&c->base);
        return r;
    }
    *ret = &c->base;
    return HP_OK;
}

static const char *cpu_describe(const hp_backend *b)
{
    return ((const hp_cpu *)b)->words;
}

hp_code hp_cpu__ensure(hp_cpu_room *m, size_t want, hp_error *reterr)
{
    static const size_t HUGE_PAGE = (size_t)1 << 21;

    if (want <= m->bytes)
        return HP_OK;
    free(m->p);
    *m = (hp_cpu_room){NULL, 0};
    if (posix_memalign(&m->p, want < HUGE_PAGE ? 4096 : HUGE_PAGE, want) != 0) {
        m->p = NULL;
        return hp_fail(reterr, HP_E_NO_MEMORY, "%zu MiB of work memory", want >> 20);
    }
    if (want >= HUGE_PAGE)
        (void)madvise(m->p, want, MADV_HUGEPAGE); /* small ones will do */
    m->bytes = want;
    return HP_OK;
}

const hp_backend_ops hp_backend_cpu = {
    .name = "cpu",
    .batch_max = 1,
    .open = cpu_open,
    .close = cpu_close,
    .describe = cpu_describe,
    .compile = hp_cpu__compile,
    .release = hp_cpu__release,
    .run = hp_cpu__run,
};
