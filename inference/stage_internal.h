/* Inside the reading room: the pipeline's own state and its stages, in the order
 * in which a study passes them. */
#ifndef HP_INFERENCE_STAGE_INTERNAL_H
#define HP_INFERENCE_STAGE_INTERNAL_H

#include "base/path.h"
#include "inference/crop.h"
#include "inference/model.h"
#include "inference/pipeline.h"
#include "inference/runner.h"

#ifdef __cplusplus
extern "C" {
#endif

struct hp_pipeline {
    hp_pipeline_options opt;
    char device[8], precision[8], plan_cache[HP_PATH_MAX]; /* `opt` points here */
    double open_ms;
    double network_ms[HP_STAGES]; /* of the running study; 0: did not run */
    hp_model *model;
    hp_backend *backend;
    hp_runner *runner[HP_STAGES][HP_MODEL_FOLDS];
    hp_pipeline_detail detail;
};

/* seg25d's answer on the slices it ran on. */
typedef struct hp_lesion_map {
    int n[2];        /* h, w */
    double lo_mm[2]; /* corner from the V grid's corner */
    double spacing_mm;
    int nz;
    uint8_t **plane; /* [nz] -> (h, w) 0/1, NULL where it did not run */
} hp_lesion_map;
void hp_lesion_map_done(hp_lesion_map *m);

/* One study on its way. */
typedef struct hp_visit {
    hp_pipeline *p;
    hp_findings *f;
    const hp_volume *const *native;
    hp_volume *vol[HP_PHASES];        /* on the V grid; NULL: missing */
    const hp_volume *seen[HP_PHASES]; /* what the networks see: vol, or a stand-in */
    uint8_t *liver;                   /* 0/1 on the V grid */
    hp_voxel_box liver_box;
    hp_lesion_map lesions;
} hp_visit;

/* Phases into the V grid. Here by patient coordinates; registration (DEEDS) takes
 * this function's place for NC, A and D. */
hp_code hp_stage_register(hp_visit *v, hp_error *reterr);

/* Liver mask and box, from V or, where that fails the sanity gates, D, A, NC. */
hp_code hp_stage_liver(hp_visit *v, hp_error *reterr);
/* The network and its post-processing alone: mask (V grid) and its box. */
hp_code hp_stage_liver_mask(hp_pipeline *p, const hp_volume *vol, const char *name,
                            uint8_t *ret_mask, hp_voxel_box *ret_box, hp_error *reterr);

/* Candidates of each phase, merged: f->candidates. */
hp_code hp_stage_detect(hp_visit *v, hp_error *reterr);

/* Key slice and area of each candidate; v->lesions. */
hp_code hp_stage_keyslice(hp_visit *v, hp_error *reterr);

/* p_primary of each candidate, and the choice of the primary. */
hp_code hp_stage_ksf(hp_visit *v, hp_error *reterr);
/* Class of the primary. */
hp_code hp_stage_classify(hp_visit *v, hp_error *reterr);

/* HU of lesion and liver in each phase, volume, axes. */
hp_code hp_stage_measure(hp_visit *v, hp_error *reterr);

/* --- shared by the stages ---------------------------------------------- */

/* Runs a network of stage `id` (ensemble member `fold`); named stages go to
 * on_tensor as "PREFIX.NAME". */
hp_code hp_stage_run(hp_pipeline *p, hp_stage_id id, int fold, const char *prefix,
                     const int size[3], const hp_ports *io, hp_error *reterr);
/* The same for `count` items, one after another in each input and output; prefix[i] is
 * item i's. Items behind the first whose prefix is NULL only fill the batch. */
hp_code hp_stage_run_batch(hp_pipeline *p, hp_stage_id id, int fold,
                           const char *const *prefix, int count, const int size[3],
                           const hp_ports *io, hp_error *reterr);
/* Items that the stage's device likes at once. */
int hp_stage_batch(const hp_pipeline *p, hp_stage_id id);
/* Hands a tensor to on_tensor, if anybody looks. */
void hp_stage_dump(hp_pipeline *p, const float *data, const int *dims, int rank,
                   const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* The same for NDHWC data: handed over with channels first. */
void hp_stage_dump_channels_last(hp_pipeline *p, const float *data, const int dim[4],
                                 const char *name);
/* The image that slices become, as "PREFIX.input". */
void hp_stage_dump_slices(hp_pipeline *p, const hp_slices *s, const char *prefix);
void hp_stage_progress(hp_pipeline *p, const char *stage, double fraction);

/* Box of the set voxels; false when there are none. */
bool hp_stage_mask_box(const uint8_t *mask, const int n[3], hp_voxel_box *ret);
/* Voxels of `g` that a box in mm meets, clamped; never empty. */
hp_voxel_box hp_stage_voxels_of(const hp_geom *g, const hp_box *box_mm);

#ifdef __cplusplus
}
#endif
#endif
