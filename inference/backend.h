/* What runs a planned graph: a struct of function pointers that each device
 * fills in. A stage never asks which one it has.
 *
 * CPU: backend_cpu.c (oneDNN). CUDA comes as a module loaded at run time and
 * fills the same struct; hp_backend_open("auto" | "cuda") is where it is found.
 */
#ifndef HP_INFERENCE_BACKEND_H
#define HP_INFERENCE_BACKEND_H

#include "inference/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_backend hp_backend;
typedef struct hp_exec hp_exec; /* a compiled graph */

/* Sees a named stage as it is made: NDHWC floats, already on the host. */
typedef void hp_stage_fn(const hp_graph *g, const hp_stage_name *s, const float *data,
                         void *payload);

typedef struct hp_backend_ops {
    const char *name; /* "cpu" */
    hp_code (*open)(int threads, hp_backend **ret, hp_error *reterr);
    void (*close)(hp_backend *b);
    /* "oneDNN 2.6.3, 2 threads": for reports and logs. */
    const char *(*describe)(const hp_backend *b);
    /* Reorders weights, creates primitives and scratch. `g` is planned, borrowed,
     * and outlives the result. */
    hp_code (*compile)(hp_backend *b, const hp_graph *g, hp_exec **ret, hp_error *reterr);
    void (*release)(hp_exec *e);
    /* in[i]: input i (NDHWC). out[i]: room for the i-th named output, in the order
     * they were named; NULL skips one. HP_E_NUMERIC names the first stage with a
     * value that is not finite. on_stage is optional. */
    hp_code (*run)(hp_exec *e, const float *const *in, float *const *out,
                   hp_stage_fn *on_stage, void *payload, hp_error *reterr);
} hp_backend_ops;

struct hp_backend {
    const hp_backend_ops *ops;
};

extern const hp_backend_ops hp_backend_cpu;

/* device: "auto" "cpu" "cuda"; threads 0: all cores this process may use.
 * "cuda" fails hard where there is none; "auto" takes the best. */
hp_code hp_backend_open(const char *device, int threads, hp_backend **ret,
                        hp_error *reterr);
void hp_backend_close(hp_backend *b);
HP_AUTO_DEFINE(hp_backend, hp_backend_close)

#ifdef __cplusplus
}
#endif
#endif
