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

/* Slices that stay for several runs; see hp_backend_ops.hold. */
typedef struct hp_held {
    const int16_t *hu; /* on the host */
    size_t count;
    int16_t *device;
    struct hp_held *next;
} hp_held;

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
    hp_held *held;
    hp_room arena, workspace, look, tables;
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

/* What a run does besides the network: part of what is captured. */
typedef struct hp_task {
    bool cut;      /* the image was cut on the device and is there */
    bool decode;   /* the heads come back as peaks */
    hp_decode how; /* with `decode` */
    int head_value[3];
} hp_task;

struct hp_exec {
    hp_cuda *c;
    const hp_graph *g;
    hp_step *step;  /* one per operation */
    bool *is_float; /* one per value; else halves, padded */
    size_t *offset; /* bytes into the arena, of a float input into the exchange */
    size_t arena_bytes, workspace_bytes;
    /* exchange: inputs, the image first; what comes back; then a word per stage and a
     * decoded list per item */
    hp_crossing *in, *back;
    int in_count, back_count;
    size_t in_bytes, words_at, decoded_at, bytes;
    char *device, *host; /* the exchange on both sides */
    hp_task task;
    hp_gpu_graph *graph; /* captured for `graph_task`; NULL: not yet */
    hp_task graph_task;
    bool never_capture;
    unsigned arena_age, workspace_age;
};

/* exec.c: hp_backend_ops' compile and release. */
hp_code hp_exec__compile(hp_backend *b, const hp_graph *g, hp_exec **ret,
                         hp_error *reterr);
void hp_exec__release(hp_exec *e);
/* run.c: hp_backend_ops' run. */
hp_code hp_exec__run(hp_exec *e, const hp_ports *p, hp_stage_fn *on_stage, void *payload,
                     hp_error *reterr);
/* image.c: input 0 from slices, on the device where they are held, else here and by
 * way of the exchange; *ret_cut says which. */
hp_code hp_exec__image(hp_exec *e, const hp_slices *s, bool *ret_cut, hp_error *reterr);
/* hp_backend_ops' hold and let_go. */
void hp_cuda__hold(hp_backend *b, const int16_t *hu, size_t count);
bool hp_cuda__let_go(hp_backend *b);
/* Where a value lies on the device; NULL for none. */
void *hp_exec__at(const hp_exec *e, int value);

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
