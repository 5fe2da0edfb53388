/* The reading room: phases in, findings out.
 *
 * Order: register (here: resample into the venous grid by patient coordinates)
 * -> liver -> detect each phase -> merge -> key slice -> KSF -> SaDT x folds.
 * A stage never asks which device it runs on.
 */
#ifndef HP_INFERENCE_PIPELINE_H
#define HP_INFERENCE_PIPELINE_H

#include <stdbool.h>

#include "base/findings.h"
#include "base/volume.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_pipeline hp_pipeline;

typedef enum hp_missing_phase {
    HP_MISSING_DETECT_ONLY,
    HP_MISSING_SUBSTITUTE,
    HP_MISSING_REFUSE
} hp_missing_phase;

typedef struct hp_pipeline_options {
    int threads;        /* 0: all cores */
    const char *device; /* "auto" "cpu" "cuda" */
    hp_missing_phase missing_phase;
    bool liver_check_off; /* run on even when the liver's sanity gates fail */
    bool evaluate;      /* always a class for the top candidate (networks.md 3.2) */
    /* (optional) called with every stage's tensor: name such as "detect.V.hm",
     * float data, dims[rank]; for hepar-prepare and golden tests. */
    void (*on_tensor)(const char *name, const float *data, const int *dims, int rank,
                      void *payload);
    /* (optional) progress for `heparctl wait`: stage name and 0..1. */
    void (*on_progress)(const char *stage, double fraction, void *payload);
    void *payload;
} hp_pipeline_options;
#define HP_PIPELINE_OPTIONS_INIT                                               \
    {0, "auto", HP_MISSING_DETECT_ONLY, false, false, NULL, NULL, NULL}

/* Reads and checks the bundle (hashes, shapes), builds the networks. The error
 * names file, tensor or line. */
hp_code hp_pipeline_open(const char *bundle_dir, const hp_pipeline_options *opt,
                         hp_pipeline **ret, hp_error *reterr);
void hp_pipeline_free(hp_pipeline *p);
HP_AUTO_DEFINE(hp_pipeline, hp_pipeline_free)

/* `native`: one volume per phase in its own grid, NULL = missing; borrowed.
 * ret_registered[phase] (V grid; yours; V may alias a copy) serve the drawing
 * of key images and the HU curve; ret_liver is a 0/1 mask on the V grid in `hu`.
 * Fills grid, liver_*, candidates, primary, classes, timings, bundle_*, device,
 * outcome of `f`; leaves what assembly wrote. HP_E_UNSUITABLE sets f->reason. */
hp_code hp_pipeline_run(hp_pipeline *p, const hp_volume *const native[HP_PHASES],
                        hp_findings *f, hp_volume *ret_registered[HP_PHASES],
                        hp_volume **ret_liver, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
