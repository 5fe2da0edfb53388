/* Writes a phantom as a scanner would send it: a study of DICOM files with one
 * vendor's habits, the truth beside it. */
#ifndef HP_TESTS_PHANTOM_STUDY_H
#define HP_TESTS_PHANTOM_STUDY_H

#include "tests/phantom/phantom.h"

typedef struct hp_study_options {
    int threads; /* 0: all cores; has no influence on the bytes */
    bool tidy;   /* four series and nothing else, descriptions that say the phase */
    bool drop_phase[HP_PHASES];
    bool drop_slice;     /* one slice from the middle of each phase is missing */
    bool second_patient; /* every other slice says another PatientID */
    double tilt_deg;     /* gantry tilt in the headers */
    bool no_truth;       /* DICOM only */
} hp_study_options;

#define HP_STUDY_OPTIONS_INIT                                                            \
    {                                                                                    \
        0                                                                                \
    }

/* Below `out`: dicom/SNNN/IMNNNN.dcm, truth.json, labels_PHASE.nii.gz,
 * displacement_PHASE.nii.gz. */
hp_code hp_study_write(const hp_phantom *p, const hp_study_options *opt, const char *out,
                       hp_error *reterr);

/* nifti.c: `what` 2 = uint8 scalar, 16 = float 3-vector; data in (Z, Y, X[, 3]), LPS. */
hp_code hp_nifti_write(const char *path, const hp_geom *g, int what, const void *data,
                       hp_error *reterr);

#endif
