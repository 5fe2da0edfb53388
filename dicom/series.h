/* From slices to phases: selection, assembly, and which phase each series is
 * (docs/adr/0010). Plain C over headers; pixels are read only by
 * hp_assembly_load().
 *
 * A "stack" below is what one acquisition reconstructed once: planes of one
 * series at increasing positions. A series may hold several (several phases in
 * one series), and several stacks may show one acquisition (thin and thick).
 */
#ifndef HP_DICOM_SERIES_H
#define HP_DICOM_SERIES_H

#include "base/findings.h"
#include "base/study.h"
#include "base/volume.h"
#include "dicom/file.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A site's own rule: a series whose description (or number) matches is that
 * phase, before any other evidence. Filled by config/, passed through. A rule
 * for HP_PHASE_NONE excludes the series. */
typedef struct hp_phase_rule {
    hp_phase phase;
    char description[65]; /* case-folded substring; "" = any */
    int series_number;    /* -1 = any */
} hp_phase_rule;

/* (optional) What the image itself says: the place of the phase network.
 * `plane` are the planes of one stack, feet to head. Fills ret_p[NC, A, V, D,
 * other], sum 1; HP_E_EMPTY abstains. */
typedef hp_code (*hp_phase_image_fn)(const hp_slice *const *plane, int planes,
                                     double ret_p[HP_PHASES + 1], void *payload,
                                     hp_error *reterr);

typedef struct hp_series_rules {
    const hp_phase_rule *rule;
    int rule_count;
    double min_coverage_mm;     /* 120 */
    int min_slices;             /* NC may have 10 mm slices: 12 */
    double max_thickness_mm;    /* 10 */
    double max_tilt_deg;        /* 5: axial within */
    double prefer_thickness_mm; /* of several reconstructions, nearest to: 5 */
    hp_phase_image_fn image;    /* (optional) */
    void *payload;
} hp_series_rules;
#define HP_SERIES_RULES_INIT                                                             \
    {                                                                                    \
        NULL, 0, 120.0, 12, 10.0, 5.0, 5.0, NULL, NULL                                   \
    }

/* reason_code of an unsuitable study. */
#define HP_WHY_TWO_PATIENTS "two_patients"
#define HP_WHY_NO_CT "no_ct_images"
#define HP_WHY_TOO_MANY "too_many_images" /* the list is full: HP_MAX_PLANES */
#define HP_WHY_NO_SERIES "no_usable_series"
#define HP_WHY_GEOMETRY "irregular_geometry" /* missing slice, tilt, spacing */
#define HP_WHY_AMBIGUOUS "phase_ambiguous"
#define HP_WHY_NO_VENOUS "no_venous_phase"

typedef struct hp_assembly hp_assembly;

/* Sorts the study's planes into series and phases. HP_OK even when NC, A or D
 * are missing; HP_E_UNSUITABLE with a reason when the study cannot be read as a
 * multi-phase liver CT; HP_E_MISMATCH when two patients (or two studies) share
 * the list. In every case f->study_uid, series, phase_series, lossy_input are
 * filled, and on failure outcome, reason_code and reason.
 * `list` is borrowed for the life of the assembly. */
hp_code hp_series_assemble(const hp_slice_list *list, const hp_series_rules *rules,
                           hp_findings *f, hp_assembly **ret, hp_error *reterr);
void hp_assembly_free(hp_assembly *a);
HP_AUTO_DEFINE(hp_assembly, hp_assembly_free)

bool hp_assembly_has(const hp_assembly *a, hp_phase phase);
/* NULL when the phase is missing. z towards the head, x left, y posterior,
 * within the few degrees that max_tilt_deg allows. */
const hp_geom *hp_assembly_geom(const hp_assembly *a, hp_phase phase);
/* The source plane of slice z of a phase (z as in the assembled volume). */
const hp_slice *hp_assembly_slice(const hp_assembly *a, hp_phase phase, int z);
/* Decodes a phase's native volume; yours. */
hp_code hp_assembly_load(const hp_assembly *a, hp_phase phase, hp_volume **ret,
                         hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
