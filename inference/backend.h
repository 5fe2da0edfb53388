/* What runs a planned graph: a struct of function pointers that each device
 * fills in. A stage never asks which one it has.
 *
 * CPU: inference/cpu/ (oneDNN and kernels/). CUDA: inference/cuda/, a module that is
 * loaded at run time (module.h), so that one package serves hosts with and without a GPU.
 */
#ifndef HP_INFERENCE_BACKEND_H
#define HP_INFERENCE_BACKEND_H

#include "inference/ports.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_backend hp_backend;
typedef struct hp_exec hp_exec; /* a compiled graph */

/* Sees a named stage of one item as it is made: NDHWC floats, already on the host. */
typedef void hp_stage_fn(const hp_graph *g, const hp_stage_name *s, int item,
                         const float *data, void *payload);

/* Strings and payload must outlive the back end. */
typedef struct hp_backend_options {
    const char *device; /* "auto" "cpu" "cuda" */
    int threads;        /* 0: all cores this process may use */
    /* (optional) the module's file; NULL: $HEPAR_CUDA_MODULE, else beside the
     * program in a build tree, else where packages put it */
    const char *module;
    /* cuda: "fp16" "bf16"; cpu: "fp32" "bf16" (where the CPU has it); "auto": the
     * first of them. Sums are fp32 everywhere. A back end gets one of its own. */
    const char *precision;
    const char *plan_cache; /* (optional) cuda: a file that remembers plans */
    /* (optional) hears what an admin may want to know: which device and why, a
     * plan that was struck off, a network that moved to the CPU. One line each. */
    void (*on_note)(const char *line, void *payload);
    void *payload;
} hp_backend_options;
#define HP_BACKEND_OPTIONS_INIT                                                          \
    {                                                                                    \
        "auto", 0, NULL, "auto", NULL, NULL, NULL                                        \
    }

typedef struct hp_backend_ops {
    const char *name; /* "cpu" "cuda" */
    /* Items that a run likes at once; 1 where more would only cost memory. */
    int batch_max;
    /* HP_E_UNSUPPORTED says why there is no such device here. */
    hp_code (*open)(const hp_backend_options *opt, hp_backend **ret, hp_error *reterr);
    void (*close)(hp_backend *b);
    /* "oneDNN 2.6.3, 2 threads": for reports and logs. */
    const char *(*describe)(const hp_backend *b);
    /* Reorders weights, creates primitives and scratch. `g` is planned, borrowed,
     * and outlives the result. HP_E_NO_MEMORY: the device is full; HP_E_UNSUPPORTED:
     * it cannot compute this network. Others go on. */
    hp_code (*compile)(hp_backend *b, const hp_graph *g, hp_exec **ret, hp_error *reterr);
    void (*release)(hp_exec *e);
    /* The graph's batch. HP_E_NUMERIC names the first stage with a value that is not
     * finite. HP_E_DEVICE: the process cannot use the device any more, and should end.
     * on_stage is optional. */
    hp_code (*run)(hp_exec *e, const hp_ports *p, hp_stage_fn *on_stage, void *payload,
                   hp_error *reterr);
    /* (optional, both) Keeps these `count` voxels on the device until let_go(), because
     * slices that several runs are cut from lie among them: so they cross once. They
     * stay where they are on the host, unchanged. Without room they are not kept, which
     * costs time alone. let_go says whether there were any. */
    void (*hold)(hp_backend *b, const int16_t *hu, size_t count);
    bool (*let_go)(hp_backend *b);
} hp_backend_ops;

/* A back end fills in `ops`; the rest is backend.c's. */
struct hp_backend {
    const hp_backend_ops *ops;
    hp_backend_options opt; /* as asked for, with the precision that came of it */
    hp_backend *spare;      /* the CPU, opened when a network could not run here */
    int batch; /* the smallest that a full device left a network; 0: all of it */
    char why[200];
};

extern const hp_backend_ops hp_backend_cpu;

/* "cuda" fails hard where there is none; "auto" takes CUDA where it works and the
 * CPU elsewhere, and tells opt->on_note which and why. HP_E_INVALID: no such
 * device, or it has not this precision; HP_E_UNSUPPORTED: it does not serve here.
 * The words begin with "device" or "precision", whichever was refused. */
hp_code hp_backend_open_with(const hp_backend_options *opt, hp_backend **ret,
                             hp_error *reterr);
/* The same with defaults for all else. */
hp_code hp_backend_open(const char *device, int threads, hp_backend **ret,
                        hp_error *reterr);
void hp_backend_close(hp_backend *b);
HP_AUTO_DEFINE(hp_backend, hp_backend_close)

/* "cuda: ...; batches of 2; in part cpu: ..." once networks had to shrink or move.
 * Returns ret. */
const char *hp_backend_describe(const hp_backend *b, char *ret, size_t size);
/* Why this device and no other: "asked for", "no CUDA module ...". */
const char *hp_backend_why(const hp_backend *b);
/* Where a network runs that cannot run on `b`: the CPU, with "auto" alone.
 * `b` owns the result. HP_E_UNSUPPORTED: nowhere. */
hp_code hp_backend_spare(hp_backend *b, hp_backend **ret, hp_error *reterr);
/* printf to opt->on_note. */
void hp_backend_note(const hp_backend *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#ifdef __cplusplus
}
#endif
#endif
