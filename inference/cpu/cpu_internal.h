/* Inside the CPU back end: what it holds, and what a network compiled for it holds. */
#ifndef HP_INFERENCE_CPU_INTERNAL_H
#define HP_INFERENCE_CPU_INTERNAL_H

#include "inference/backend.h"
#include "inference/cpu/onednn.h"
#include "inference/cpu/own.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Grow-only memory. */
typedef struct hp_cpu_room {
    void *p;
    size_t bytes;
} hp_cpu_room;

/* Weights as our own kernels want them, by where they came from. */
typedef struct hp_cpu_packed {
    const float *source;
    hp_cpu_room room;
    struct hp_cpu_packed *next;
} hp_cpu_packed;

typedef struct hp_cpu {
    hp_backend base;
    hp_onednn *onednn;
    hp_cpu_packed *packed;
    int threads;
    bool bf16;
    hp_cpu_room arena, scratch;
    hp_cpu_room cut;      /* an image from slices */
    hp_cpu_room narrowed; /* bf16: the input that convolutions read */
    hp_cpu_room widened;  /* bf16: a stage on its way to whoever looks at it */
    char words[64];
} hp_cpu;

/* One convolution, ready to run: ours, or oneDNN's. */
typedef struct hp_cpu_step {
    hp_own own;
    const float *packed; /* ours: borrowed */
    hp_onednn_conv *conv;
} hp_cpu_step;

struct hp_exec {
    hp_cpu *cpu;
    const hp_graph *g;
    hp_cpu_step *step; /* one per operation; empty for what is not a convolution */
    bool *narrow;      /* one per value: stored in bf16 */
    size_t scratch_bytes;
    int item;    /* of the batch that runs now */
    bool finite; /* the last operation saw that all it made is; else nobody looked */
};

/* At least so many bytes, aligned to a page; large ones lie in huge pages where the
 * system has some: a network walks through a hundred megabytes time and again. */
hp_code hp_cpu__ensure(hp_cpu_room *m, size_t want, hp_error *reterr);

/* exec.c: hp_backend_ops' compile and release. */
hp_code hp_cpu__compile(hp_backend *b, const hp_graph *g, hp_exec **ret,
                        hp_error *reterr);
void hp_cpu__release(hp_exec *e);
/* run.c: hp_backend_ops' run. */
hp_code hp_cpu__run(hp_exec *e, const hp_ports *p, hp_stage_fn *on_stage, void *payload,
                    hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
