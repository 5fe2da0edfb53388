/* Inside hepar-prepare: what the command line asked for, and its two halves. */
#ifndef HP_DAEMON_PREPARE_H
#define HP_DAEMON_PREPARE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "inference/crop.h"
#include "inference/pipeline.h"
#include "tests/phantom/phantom.h"

typedef enum hp_cohort {
    HP_COHORT_TRAIN,
    HP_COHORT_TEST108,
    HP_COHORT_TEST400
} hp_cohort;

enum {
    HP_WHAT_LIVER = 1,
    HP_WHAT_DETECT = 2,
    HP_WHAT_SLICES = 4,
    HP_WHAT_SEG = 8,
    HP_WHAT_PRIMARIES = 16
};

typedef struct hp_prepare {
    const char *out, *bundle, *in;
    uint64_t from, to; /* phantom seeds [from, to) */
    unsigned what;
    hp_cohort cohort;
    double motion_mm, overlap;
    bool evaluate, candidates, truth_boxes_only;
    int series[HP_PHASES]; /* SeriesNumber that is this phase, -1: by the headers */
    int threads;
    const char *precision; /* of the networks; NULL: fp32 */
    bool sparse;           /* evaluate: full resolution around the liver only */
    hp_pipeline *pipeline; /* open when a bundle is given */
} hp_prepare;

/* The patient of `seed` in the cohort (training/README.md). */
hp_code hp_prepare_patient(const hp_prepare *o, uint64_t seed, hp_phantom **ret,
                           hp_error *reterr);

/* OUT/<what>/<seed>.safetensors for each part asked for that is not there yet. */
hp_code hp_prepare_tensors(const hp_prepare *o, uint64_t seed, hp_error *reterr);

/* With a pipeline open: OUT/evaluate/<seed>.json, findings beside the truth. */
hp_code hp_prepare_evaluate(const hp_prepare *o, uint64_t seed, hp_error *reterr);
/* OUT/truth/<seed>.json: the texture networks on the largest primary's own box. */
hp_code hp_prepare_truth_box(const hp_prepare *o, uint64_t seed, hp_error *reterr);
/* OUT/candidates/<seed>.safetensors: what the detector finds, as patches. */
hp_code hp_prepare_candidates(const hp_prepare *o, uint64_t seed, hp_error *reterr);
/* Every stage's tensors of a DICOM study, below OUT. */
hp_code hp_prepare_study(const hp_prepare *o, hp_error *reterr);

enum { HP_PREPARE_CROP_VOXELS = 48 * 176 * 256, HP_PREPARE_PATCH_SIDE = 320 };
#define HP_PREPARE_PATCH_MM 0.7

/* Draws for sampling decisions: the same for the same seed and salt. */
typedef struct hp_draw {
    uint64_t state;
} hp_draw;
hp_draw hp_draw_init(uint64_t seed, uint64_t salt);
double hp_draw_unit(hp_draw *d); /* [0, 1) */
double hp_draw_range(hp_draw *d, double lo, double hi);

/* A rendering of `phase` with scanner padding outside that phase's field of view
 * and outside the venous one, as resampling to the venous grid leaves it. */
hp_code hp_prepare_render(const hp_phantom *p, int phase, const hp_geom *grid,
                          int16_t *hu, hp_error *reterr);
/* Planes of the venous native grid (or whole-voxel part of it); a phase with
 * thicker slices is rendered on its own and interpolated, as in the pipeline. */
hp_code hp_prepare_planes(const hp_phantom *p, int phase, const hp_geom *part,
                          int16_t *hu, hp_error *reterr);
/* Lesion box (V frame) in edge mm from the corner of the venous grid, z, y, x. */
hp_box hp_prepare_box(const hp_phantom_lesion *l, const hp_geom *v);
hp_voxel_box hp_prepare_liver_box(const hp_phantom *p, const hp_geom *v);
/* The detector's crop around the true liver, each face moved a little: four phases
 * (48, 176, 256) rendered at its resolution. */
hp_code hp_prepare_crop(const hp_phantom *p, uint64_t seed, hp_voxel_box *ret_crop,
                        hp_geom *ret_grid, int16_t *hu, hp_error *reterr);
/* Four phases of the square patch of `side` pixels of spacing_mm around (y, x) mm
 * in venous plane z: ret (4, side, side). */
hp_code hp_prepare_patch(const hp_phantom *p, int z, const double centre_mm[2], int side,
                         double spacing_mm, int16_t *ret, hp_error *reterr);
/* Area in mm2 that lesion `i` covers on venous plane z. */
hp_code hp_prepare_area(const hp_phantom *p, int i, int z, double *ret_mm2,
                        hp_error *reterr);
/* The plane where lesion i is largest, and the planes its box meets. */
hp_code hp_prepare_best_plane(const hp_phantom *p, int i, int *ret_z, double *ret_mm2,
                              hp_error *reterr);

#endif
