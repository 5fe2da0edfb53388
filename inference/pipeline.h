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
#include "base/path.h"
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
    int threads;                        /* 0: all cores */
    const char *device;                 /* "auto" "cpu" "cuda" */
    const char *precision, *plan_cache; /* as in hp_backend_options */
    hp_missing_phase missing_phase;
    bool liver_check_off; /* run on even when the liver's sanity gates fail */
    bool evaluate;        /* always a class for the top candidate, primary or not */
    /* (optional) called with every stage's tensor: name such as "detect.V.hm",
     * float data, dims[rank]; for hepar-prepare and golden tests. */
    void (*on_tensor)(const char *name, const float *data, const int *dims, int rank,
                      void *payload);
    /* (optional) progress for `heparctl wait`: stage name and 0..1. */
    void (*on_progress)(const char *stage, double fraction, void *payload);
    /* (optional) one line an admin may want to see: hp_backend_options.on_note. */
    void (*on_note)(const char *line, void *payload);
    void *payload;
} hp_pipeline_options;
#define HP_PIPELINE_OPTIONS_INIT                                                         \
    {                                                                                    \
        0, "auto", "auto", NULL, HP_MISSING_DETECT_ONLY, false, false, NULL, NULL, NULL, \
            NULL                                                                         \
    }

/* Reads and checks the bundle (hashes, shapes), builds the networks. The error
 * names file, tensor or line. */
hp_code hp_pipeline_open(const char *bundle_dir, const hp_pipeline_options *opt,
                         hp_pipeline **ret, hp_error *reterr);
void hp_pipeline_free(hp_pipeline *p);
HP_AUTO_DEFINE(hp_pipeline, hp_pipeline_free)

/* What an admin may want to know of an opened pipeline, as it is now. */
typedef struct hp_pipeline_facts {
    char asked[8];                /* "auto" "cpu" "cuda" */
    char device[8];               /* "cpu" "cuda" */
    char what[200];               /* the device in words, and which served in its place */
    char why[200];                /* this one and no other */
    char precision[8];            /* "fp32" "fp16" "bf16" */
    char plan_cache[HP_PATH_MAX]; /* "": none, or the device needs none */
    char bundle_name[32], bundle_version[32];
    /* Reading and checking the bundle and opening the device; and making networks
     * ready, which happens when one meets a size for the first time. */
    double open_ms, compile_ms;
} hp_pipeline_facts;
void hp_pipeline_get_facts(const hp_pipeline *p, hp_pipeline_facts *ret);

/* `native`: one volume per phase in its own grid, NULL = missing; borrowed.
 * ret_registered[phase] (V grid; yours; a phase that another stands in for, or
 * that is missing, stays NULL) serve the drawing of key images and the HU curve;
 * ret_liver is a 0/1 mask on the V grid in `hu`.
 * Fills grid, liver_*, candidates, primary, classes, timings, networks, bundle_*, device,
 * outcome, substituted and registration of `f`; leaves what assembly wrote.
 * HP_E_UNSUITABLE sets f->reason. HP_E_NUMERIC names the stage. */
hp_code hp_pipeline_run(hp_pipeline *p, const hp_volume *const native[HP_PHASES],
                        hp_findings *f, hp_volume *ret_registered[HP_PHASES],
                        hp_volume **ret_liver, hp_error *reterr);

/* --- for evaluation and tools ------------------------------------------ */

enum { HP_PIPELINE_FOLDS = 9, HP_PIPELINE_PEAKS = 100 };

/* What the last run saw on the way, beyond the findings. Boxes as in findings. */
typedef struct hp_pipeline_detail {
    int peak_count[HP_PHASES]; /* detector, before the merge, best first */
    struct {
        double score;
        hp_box box_mm;
    } peak[HP_PHASES][HP_PIPELINE_PEAKS];
    int folds;
    double fold[HP_PIPELINE_FOLDS]
               [HP_MAX_CLASSES]; /* probabilities, by ensemble member */
} hp_pipeline_detail;
const hp_pipeline_detail *hp_pipeline_get_detail(const hp_pipeline *p);

/* The liver network and its post-processing on one volume: 0/1 mask on the
 * volume's grid (yours), before the sanity gates. */
hp_code hp_pipeline_liver(hp_pipeline *p, const hp_volume *vol, hp_volume **ret_mask,
                          hp_error *reterr);

/* The detector on crops somebody cut: hu[phase] (48, 176, 256) or the bundle's grid,
 * over the voxels [lo, hi) of grid `g`; NULL = missing. Fills f->candidates. */
hp_code hp_pipeline_detect(hp_pipeline *p, const int16_t *const hu[HP_PHASES],
                           const hp_geom *g, const int lo[3], const int hi[3],
                           hp_findings *f, hp_error *reterr);

/* Texture networks on a box somebody gives: the 4-phase patch (phases, side, side)
 * in HU at the bundle's pixel size, and the box in its pixels (y1, x1, y2, x2).
 * side: hp_pipeline_patch_side(). ret_p_primary and ret (folds, classes) optional. */
int hp_pipeline_patch_side(const hp_pipeline *p, double box_h_mm, double box_w_mm);
double hp_pipeline_patch_mm(const hp_pipeline *p);
hp_code hp_pipeline_texture(hp_pipeline *p, const int16_t *patch, int side,
                            const double rect[4], double *ret_p_primary,
                            hp_pipeline_detail *ret_folds, hp_error *reterr);

/* The ensemble's answer: most votes; a tie goes to the tied class with the highest
 * mean probability. Fills votes and probabilities; returns the class. */
int hp_pipeline_vote(const double fold[][HP_MAX_CLASSES], int folds, int classes,
                     int ret_votes[HP_MAX_CLASSES], double ret_mean[HP_MAX_CLASSES]);

#ifdef __cplusplus
}
#endif
#endif
