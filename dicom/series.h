/* From slices to phases: selection, assembly, and which phase each series is
 * (design.md 4, networks.md 5 step 2). Plain C over headers; pixels are read
 * only by hp_assembly_load(). */
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
 * phase, before any other evidence. Filled by config/, passed through. */
typedef struct hp_phase_rule {
    hp_phase phase;
    char description[65]; /* case-folded substring; "" = any */
    int series_number;    /* -1 = any */
} hp_phase_rule;

typedef struct hp_series_rules {
    const hp_phase_rule *rule;
    int rule_count;
    double min_coverage_mm; /* 120 */
    int min_slices;         /* NC may have 10 mm slices: 12 */
    double max_thickness_mm;/* 10 */
    double max_tilt_deg;    /* 5: axial within */
} hp_series_rules;
#define HP_SERIES_RULES_INIT {NULL, 0, 120.0, 12, 10.0, 5.0}

typedef struct hp_assembly hp_assembly;

/* Sorts the study's planes into series and phases. HP_OK even when phases are
 * missing; HP_E_UNSUITABLE with a reason when the study cannot be read as a
 * liver CT (`f->reason_code` too); HP_E_MISMATCH when two patients share the
 * study. In every case f->series, phase_series, lossy_input, reason are filled.
 * `list` is borrowed for the life of the assembly. */
hp_code hp_series_assemble(const hp_slice_list *list, const hp_series_rules *rules,
                           hp_findings *f, hp_assembly **ret, hp_error *reterr);
void hp_assembly_free(hp_assembly *a);
HP_AUTO_DEFINE(hp_assembly, hp_assembly_free)

bool hp_assembly_has(const hp_assembly *a, hp_phase phase);
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
