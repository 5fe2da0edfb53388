/* A model bundle: bundle.yaml read and checked, weights loaded.
 *
 * Everything is verified here, before anything runs: schema, unknown keys (named
 * with their line), hashes, tensor keys and shapes, finite values. After
 * hp_model_load() a stage can trust what it holds.
 */
#ifndef HP_INFERENCE_MODEL_H
#define HP_INFERENCE_MODEL_H

#include "base/findings.h"
#include "base/sha256.h"
#include "inference/net.h"
#include "kernels/window.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { HP_MODEL_FOLDS = 9 };

/* The detector's report_min where a bundle states none: above what it gives to
 * normal tissue, and CenterNet's own threshold for showing a box. */
#define HP_MODEL_REPORT_MIN 0.3

typedef enum hp_stage_id {
    HP_STAGE_LIVER,
    HP_STAGE_DETECTOR,
    HP_STAGE_KEYSLICE,
    HP_STAGE_KSF,
    HP_STAGE_CLASSIFY,
    HP_STAGES
} hp_stage_id;

const char *hp_stage_id_name(hp_stage_id s); /* "liver" "detector" ... */

typedef struct hp_model_stage {
    hp_net_params params;
    int weights_count; /* 1, or the folds of the ensemble */
    hp_weights *weights[HP_MODEL_FOLDS];
    hp_window window;
    double patch_mm; /* sadt: pixel of the crop */
    int crop_px, ring_px;
    double threshold, temperature;
    double crop_margin_mm[3]; /* detector */
    int topk, keep;
    double score_min, nms_iou;
    double report_min; /* detector: a lesion without a class is reported from here on */
    unsigned phases;   /* keyslice: bit i = run on hp_phase i */
} hp_model_stage;

typedef struct hp_model {
    char name[32], version[32], intended_use[120], sha256[HP_SHA256_HEX];
    int class_count;
    hp_class classes[HP_MAX_CLASSES];
    hp_model_stage stage[HP_STAGES];
} hp_model;

/* random: seeded weights instead of files, for presets that hold parameters only. */
hp_code hp_model_load(const char *dir, bool random, hp_model **ret, hp_error *reterr);
void hp_model_free(hp_model *m);
HP_AUTO_DEFINE(hp_model, hp_model_free)

#ifdef __cplusplus
}
#endif
#endif
