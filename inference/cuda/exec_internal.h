/* Inside the CUDA back end: what it holds, and what a network compiled for it holds. */
#ifndef HP_INFERENCE_CUDA_EXEC_INTERNAL_H
#define HP_INFERENCE_CUDA_EXEC_INTERNAL_H

#include "inference/backend.h"
#include "inference/cuda/plans.h"
#include "kernels/encode.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Weights that went up, by where they came from. */
typedef struct hp_uploaded {
    const float *source;
    void *device;
    struct hp_uploaded *next;
} hp_uploaded;

/* Grow-only device memory; `age` changes when it moves, and captured work that
 * knew the old place is void. */
typedef struct hp_room {
    void *p;
    size_t bytes;
    unsigned age;
} hp_room;

typedef struct hp_cuda {
    hp_backend base;
    hp_gpu *gpu;
    hp_cudnn *cudnn;
    hp_plan_cache *cache;
    hp_plans *plans;
    hp_dtype type;
    hp_uploaded *weights;
    hp_room arena, workspace, look;
    char words[120];
} hp_cuda;

typedef struct hp_step {
    hp_cudnn_conv *conv; /* borrowed from the plans */
    const void *weight, *bias;
    bool fused; /* done by the encoding's fused step, or (ENCODE) that step itself */
} hp_step;

/* A value that crosses: floats at `at` bytes of the exchange. */
typedef struct hp_crossing {
    int value;
    size_t at;
} hp_crossing;

struct hp_exec {
    hp_cuda *c;
    const hp_graph *g;
    hp_step *step;  /* one per operation */
    bool *is_float; /* one per value; else halves, padded */
    size_t *offset; /* bytes into the arena, of a float input into the exchange */
    size_t arena_bytes, workspace_bytes;
    /* exchange: inputs, then what comes back, then a word per stage */
    hp_crossing *in, *back;
    int in_count, back_count;
    size_t in_bytes, words_at, bytes;
    char *device, *host; /* the exchange on both sides */
    hp_gpu_graph *graph; /* captured; NULL: not yet */
    bool never_capture;
    unsigned arena_age, workspace_age;
};

/* exec.c: hp_backend_ops' compile and release. */
hp_code hp_exec__compile(hp_backend *b, const hp_graph *g, hp_exec **ret,
                         hp_error *reterr);
void hp_exec__release(hp_exec *e);
/* run.c: hp_backend_ops' run. */
hp_code hp_exec__run(hp_exec *e, const float *const *in, float *const *out,
                     hp_stage_fn *on_stage, void *payload, hp_error *reterr);

/* At least that much; HP_E_NO_MEMORY leaves nothing. */
hp_code hp_cuda__ensure(hp_cuda *c, hp_room *m, size_t want, hp_error *reterr);

/* How value v is stored. */
hp_dtype hp_exec__type(const hp_exec *e, int v);
int hp_exec__channels(const hp_exec *e, int v);  /* with padding */
size_t hp_exec__stored(const hp_exec *e, int v); /* numbers, of all items */
/* Bytes of all items as they cross: floats. */
size_t hp_exec__crossing_bytes(const hp_exec *e, int v);
size_t hp_exec__rows(const hp_value *v); /* D * H * W */
/* The encoding that an assignment or an encoding takes part in. */
hp_encode hp_exec__encode(const hp_exec *e, const hp_op *op);

#ifdef __cplusplus
}
#endif
#endif
