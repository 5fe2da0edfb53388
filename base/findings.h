/* What the reading room found in one study. A plain value, serialisable to the
 * result.json that design promises; no pixel lives here.
 *
 * Boxes are millimetres along the venous grid's own axes, measured from its
 * edge corner (voxel edge coordinate * spacing), order z, y, x. Key slices are
 * 0-based indices of the venous grid. Probabilities are 0..1.
 */
#ifndef HP_BASE_FINDINGS_H
#define HP_BASE_FINDINGS_H

#include <stdbool.h>

#include "base/json.h"
#include "base/study.h"
#include "base/volume.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    HP_MAX_CANDIDATES = 10,
    HP_MAX_SERIES = 64,
    HP_MAX_CLASSES = 8,
    HP_MAX_TIMINGS = 24,
    HP_MAX_NETWORKS = 8
};

/* A class of the bundle with its code (SNOMED CT or ours), carried so that reports
 * need no table in C. */
typedef struct hp_class {
    char id[24];    /* "hcc" */
    char label[32]; /* "HCC" */
    char code[24], scheme[16], meaning[64];
} hp_class;

typedef struct hp_candidate {
    int rank;     /* 1-based, by detection score */
    double score; /* detection confidence */
    hp_box box_mm;
    unsigned phases; /* bit i: hp_phase i contributed */
    int key_slice;   /* on the V grid, from the feet; -1: not determined */
    int key_number;  /* InstanceNumber of V's image there, as a viewer shows it; -1 */
    double key_area_mm2;
    bool key_fallback; /* no outline to speak of: central slice, HU of an ellipsoid */
    double p_primary;  /* KSF; -1: KSF did not run */
    double hu_lesion[HP_PHASES], hu_liver[HP_PHASES]; /* NAN: phase missing */
    double volume_ml, long_axis_mm, short_axis_mm;    /* NAN without an outline */
} hp_candidate;

typedef struct hp_timing {
    char name[24];
    double ms;
} hp_timing;

/* How far the pipeline got, and therefore which form of report is due. */
typedef enum hp_outcome {
    HP_OUTCOME_NONE = 0,     /* not run */
    HP_OUTCOME_CLASSIFIED,   /* a primary lesion with a class */
    HP_OUTCOME_DETECTED,     /* detect-only: lesions without a class, from report_min */
    HP_OUTCOME_NOT_ACCEPTED, /* candidates, none accepted as primary */
    HP_OUTCOME_NO_CANDIDATE, /* nothing that may be called a lesion */
    HP_OUTCOME_UNSUITABLE    /* could not be read; `reason` says why */
} hp_outcome;

typedef struct hp_findings {
    hp_uid study_uid;
    int revision;
    hp_outcome outcome;
    char reason_code[32]; /* machine-readable: "no_venous_phase", ... */
    char reason[200];     /* for the admin */

    int series_count;
    hp_series_note series[HP_MAX_SERIES];
    int phase_series[HP_PHASES];      /* index into series, -1 missing */
    hp_phase substituted[HP_PHASES];  /* phase that stands in, or NONE */
    char registration[HP_PHASES][24]; /* "reference" "coordinates" "-" */
    bool lossy_input;

    hp_geom grid; /* the venous grid */
    double liver_ml;
    bool liver_ok;
    char liver_note[120];

    /* Candidates go to the next stages from a low score on; without a class,
     * only those of this score and more are called lesions. */
    double report_min;
    int candidate_count;
    hp_candidate candidates[HP_MAX_CANDIDATES];

    int primary; /* index into candidates, -1 none */
    int class_count;
    hp_class classes[HP_MAX_CLASSES];
    int class_index;                      /* -1: no class call */
    double probabilities[HP_MAX_CLASSES]; /* mean over the ensemble */
    int votes[HP_MAX_CLASSES];

    int timing_count;
    hp_timing timings[HP_MAX_TIMINGS]; /* of stages, one after the other */
    int network_count;
    hp_timing networks[HP_MAX_NETWORKS]; /* what of that was spent in networks */

    char bundle_name[32], bundle_version[32], bundle_sha256[65];
    char intended_use[120];
    char device[128];
} hp_findings;

void hp_findings_init(hp_findings *f); /* zero, -1 and NAN where they mean none */
void hp_findings_time(hp_findings *f, const char *name, double ms);
void hp_findings_network_time(hp_findings *f, const char *name, double ms);
const char *hp_outcome_name(hp_outcome o);
json_t *hp_findings_to_json(const hp_findings *f); /* yours; NULL: no memory */
hp_code hp_findings_from_json(const json_t *j, hp_findings *ret, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
