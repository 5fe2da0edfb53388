/* A synthetic patient: four-phase liver CT computed from a seed.
 *
 * The phantom proves the machinery; it says nothing about patients. Everything
 * here follows from (seed, options) with + - * / and sqrt only, so the same
 * seed gives the same bytes on every machine and for any number of threads.
 *
 * Frame: one LPS frame of reference for all phases, millimetres. "V frame" is
 * where the anatomy rests; the other phases show it displaced by breathing
 * (hp_phantom_displacement). Grids are axis aligned (hp_geom_axial).
 *
 * A phantom is read-only once made: any number of threads may render from it.
 */
#ifndef HP_TESTS_PHANTOM_H
#define HP_TESTS_PHANTOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/error.h"
#include "base/study.h"
#include "base/volume.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Class index = order of the bundle's outputs. */
enum {
    HP_PH_HCC = 0,
    HP_PH_ICC = 1,
    HP_PH_BENIGN = 2,
    HP_PH_METASTASIS = 3,
    HP_PH_CLASSES = 4
};

/* X(enum, name, class or -1, is it a focal lesion that an annotator of a public
 * liver-lesion data set would box?) */
#define HP_PH_KINDS(X)                                                                   \
    X(HCC_CAPSULE, "hcc capsule", 0, true)                                               \
    X(HCC_BARE, "hcc no capsule", 0, true)                                               \
    X(HCC_HYPO, "hcc hypovascular", 0, true)                                             \
    X(ICC_RIM, "icc rim", 1, true)                                                       \
    X(ICC_HYPER, "icc hypervascular", 1, true)                                           \
    X(HEMANGIOMA, "hemangioma", 2, true)                                                 \
    X(FNH, "fnh", 2, true)                                                               \
    X(ADENOMA, "adenoma", 2, true)                                                       \
    X(MET_HYPO, "metastasis hypovascular", 3, true)                                      \
    X(MET_HYPER, "metastasis hypervascular", 3, true)                                    \
    X(CYST, "cyst", -1, true)                                                            \
    X(SMALL_HEMANGIOMA, "small hemangioma", -1, true)                                    \
    X(SCAR, "treated scar", -1, true)                                                    \
    X(NODULE, "cirrhotic nodule", -1, false)                                             \
    X(FOCAL_FAT, "focal fat", -1, false)                                                 \
    X(SPARING, "focal sparing", -1, false)                                               \
    X(WEDGE, "arterial wedge", -1, false)                                                \
    X(GRANULOMA, "calcified granuloma", -1, false)                                       \
    X(THROMBUS, "portal thrombus", -1, false)                                            \
    X(LIPIODOL, "lipiodol or clips", -1, false)

typedef enum hp_phantom_kind {
#define HP__X(id, name, cls, focal) HP_PH_##id,
    HP_PH_KINDS(HP__X)
#undef HP__X
        HP_PH_KIND_COUNT
} hp_phantom_kind;

const char *hp_phantom_kind_name(int kind);
const char *hp_phantom_class_name(int cls); /* "hcc" "icc" "benign" "metastasis" */

typedef enum hp_phantom_vendor {
    HP_PH_GE,
    HP_PH_SIEMENS,
    HP_PH_PHILIPS,
    HP_PH_CANON,
    HP_PH_VENDORS
} hp_phantom_vendor;

typedef struct hp_phantom_options {
    uint64_t seed;
    int cls;          /* -1: drawn from `mix` */
    int vendor;       /* -1: drawn */
    double motion_mm; /* breathing left between V and each other phase, about the
                         largest displacement; 0: none */
    int slices;       /* 0: drawn coverage and spacing; else this many in each phase */
    double overlap;   /* factor on the scatter of core and rim HU; 1 */
    double mix[HP_PH_CLASSES]; /* class prevalences, any sum */
    double diameter_mm;        /* 0: drawn; else of the (largest) primary */
    bool stress;               /* primaries to 180 mm, filling the left lobe, exophytic */
    bool no_distractors;       /* nothing focal but the primaries */
} hp_phantom_options;

/* The mix is that of the paper's test set. */
#define HP_PHANTOM_OPTIONS_INIT                                                          \
    {                                                                                    \
        .seed = 1, .cls = -1, .vendor = -1, .motion_mm = 2, .slices = 0, .overlap = 1,   \
        .mix = {                                                                         \
            60,                                                                          \
            8,                                                                           \
            16,                                                                          \
            24                                                                           \
        }                                                                                \
    }

#define HP_PH_MAX_LESIONS 48

/* One focal thing in (or on) the liver. Boxes and centre are LPS mm in the V
 * frame, box tight around what hp_phantom_labels() marks at fine sampling.
 * NOTE the order here is x, y, z. */
typedef struct hp_phantom_lesion {
    int kind;           /* hp_phantom_kind */
    int cls;            /* 0..3, or -1 */
    bool primary;       /* counts as the primary; every metastasis does */
    bool focal;         /* would be boxed in a public data set */
    double diameter_mm; /* mean of the three axes */
    double centre_mm[3];
    double lo_mm[3], hi_mm[3];
    /* What the closed-form observers need: HU minus that patient's liver in the
     * core, rim minus core, per phase (NC, A, V, D). */
    double core_dhu[HP_PHASES];
    double rim_dhu[HP_PHASES];
    double rim_mm;     /* thickness, 0: none */
    double texture_mm; /* l of exp(-(pi f l)^2 / 2), 0: flat */
    double texture_hu; /* amplitude (sd) in A and V */
    double rho;        /* correlation of the A and V fields */
    double edge_mm;    /* sigma of the edge */
} hp_phantom_lesion;

typedef struct hp_phantom_truth {
    uint64_t seed;
    int cls; /* the patient's class */
    int vendor;
    bool cirrhosis, fatty;
    int n_lesions;
    int largest_primary; /* index */
    hp_phantom_lesion lesion[HP_PH_MAX_LESIONS];
    double liver_lo_mm[3], liver_hi_mm[3]; /* x, y, z; lesions included, V frame */
    double liver_ml;
    double liver_hu[HP_PHASES]; /* parenchyma */
    double aorta_hu[HP_PHASES];
    double portal_hu[HP_PHASES];
    double delay_s[HP_PHASES];  /* after injection; NC is before, negative */
    double noise_hu[HP_PHASES]; /* sd at the body's centre on the native grid */
    double noise_fwhm_mm[HP_PHASES];
    double dome_mm[3]; /* top of the liver */
} hp_phantom_truth;

typedef struct hp_phantom hp_phantom;

/* Draws one patient. A few tens of milliseconds. */
hp_code hp_phantom_new(const hp_phantom_options *opt, hp_phantom **ret_p,
                       hp_error *reterr);
void hp_phantom_free(hp_phantom *p);
HP_AUTO_DEFINE(hp_phantom, hp_phantom_free)

const hp_phantom_truth *hp_phantom_get_truth(const hp_phantom *p);
const hp_phantom_options *hp_phantom_get_options(const hp_phantom *p);

/* That phase's own grid (slice spacing = slice thickness). */
hp_geom hp_phantom_grid(const hp_phantom *p, int phase);

/* What the scanner writes outside its reconstruction circle; -1000, -1024 or -2000. */
int hp_phantom_pad_hu(const hp_phantom *p, int phase);

/* HU of `phase` on any axis-aligned grid: its native grid, part of it, or a
 * network's coarse grid. A voxel is the mean over its box, with the phase's
 * displacement, kernel and noise. On whole-voxel crops of the native grid the
 * noise is the native one; on other grids noise has the sd that averaging the
 * native noise over the voxel leaves. `hu` has hp_geom_voxels(grid) values.
 * Outside the native field of view the body goes on (no pad), so that a coarse
 * grid is not cut; clip with hp_phantom_grid() where that matters. */
hp_code hp_phantom_render(const hp_phantom *p, int phase, const hp_geom *grid,
                          int16_t *hu, hp_error *reterr);

/* The same without noise, streaks and rounding: for tests and observers. */
hp_code hp_phantom_render_clean(const hp_phantom *p, int phase, const hp_geom *grid,
                                float *hu, hp_error *reterr);

/* 0 outside, 1 liver (with its vessels), 2 + i: lesion i of the truth, at voxel
 * centres, where `phase` shows them (HP_PHASE_V: at rest). Earlier lesions
 * cover later ones. */
hp_code hp_phantom_labels(const hp_phantom *p, int phase, const hp_geom *grid,
                          uint8_t *label, hp_error *reterr);

/* u(q), LPS x, y, z mm, at the grid's voxel centres q in the V frame: what is at
 * q in V is at q + u(q) in `phase`. (Z, Y, X, 3). Zero for V. */
hp_code hp_phantom_displacement(const hp_phantom *p, int phase, const hp_geom *grid,
                                float *u, hp_error *reterr);

/* ---- what the classes are, for observers that know the law ---- */

typedef struct hp_phantom_subtype {
    int cls;
    double share; /* within its class */
    double core_dhu[HP_PHASES], rim_dhu[HP_PHASES];
    double texture_mm, texture_hu, rho;
} hp_phantom_subtype;

/* The means of a tumour's kind; false for what is no tumour. Scatter about
 * them: core and rim by these sd (times overlap; core's A, V, D correlated
 * .45), texture_mm by e^.24, texture_hu by e^.20, rho by .18. */
bool hp_phantom_subtype_at(int kind, hp_phantom_subtype *ret);
extern const double hp_phantom_core_sd[HP_PHASES], hp_phantom_rim_sd[HP_PHASES];

/* The parameters of one lesion of `cls` as a patient would get them, without
 * the patient: thousands in a second. */
void hp_phantom_sample(uint64_t seed, int cls, double overlap, hp_phantom_lesion *ret);

#ifdef __cplusplus
}
#endif
#endif
