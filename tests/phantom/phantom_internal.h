/* What the files of the phantom share.
 *
 * DESIGN. Anatomy is a list of shapes (ellipsoids, tubes, a few special ones)
 * given as signed distances and painted in order, row by row: a row of voxels
 * is an array, each shape touches only the span its box covers, and the loops
 * are plain enough for the compiler to vectorise. Organs live in "rest"
 * coordinates; a coarse lattice per phase maps a point of the image there
 * (breathing and a smooth warp in one), interpolated linearly. Wall and bones
 * do not move. Random fields come from periodic tiles of filtered noise.
 *
 * Coordinates inside are body coordinates: LPS minus `frame_mm`; x = 0 is the
 * midline, y = 0 the body's middle, z = 0 the top of the right dome.
 */
#ifndef HP_TESTS_PHANTOM_INTERNAL_H
#define HP_TESTS_PHANTOM_INTERNAL_H

#include "tests/phantom/num.h"
#include "tests/phantom/phantom.h"

#define HP_TILE 64        /* cells of a noise tile, periodic */
#define HP_TILE_SIGMA 1.5 /* cells: its Gaussian filter */
#define HP_TILE_N ((size_t)HP_TILE * HP_TILE * HP_TILE)

/* The rest-coordinate lattice. */
#define HP_LAT_MM 12.0
enum { HP_LAT_X = 44, HP_LAT_Y = 32, HP_LAT_Z = 52 };
#define HP_LAT_X0 (-258.0)
#define HP_LAT_Y0 (-186.0)
#define HP_LAT_Z0 (-480.0)

enum hp_ph_material {
    MAT_FAT,
    MAT_SUBCUT,
    MAT_MUSCLE,
    MAT_LUNG,
    MAT_HEART_WALL,
    MAT_HEART_LEFT,
    MAT_HEART_RIGHT,
    MAT_AORTA,
    MAT_IVC_LOW,
    MAT_IVC,
    MAT_PORTAL,
    MAT_HEPATIC_VEIN,
    MAT_ARTERY,
    MAT_LIVER,
    MAT_SPLEEN,
    MAT_CORTEX,
    MAT_MEDULLA,
    MAT_PELVIS,
    MAT_PANCREAS,
    MAT_BOWEL_WALL,
    MAT_FLUID,
    MAT_BILE,
    MAT_ASCITES,
    MAT_DISC,
    MAT_MARROW,
    MAT_CORTICAL,
    MAT_CARTILAGE,
    MAT_CANAL,
    MAT_GAS,
    MAT_STONE,
    MAT_TABLE,
    MAT_COUNT
};

typedef struct hp_ell {
    float c[3];   /* centre x, y, z */
    float m[9];   /* rotation rows divided by the radii */
    float ext[3]; /* half extent of the axis-aligned box */
    float rmin;
} hp_ell;

typedef struct hp_tube {
    float a[3], b[3];
    float ra, rb;
    int mat;
} hp_tube;

/* A hollow organ's piece: wall, then content. */
typedef struct hp_gut {
    hp_ell e;
    float wall_mm;
    float level_y;     /* gas above (anterior of) this */
    float content_hu;  /* below it */
    float speckle_hu;  /* food, stool */
    float gas_speckle; /* share of gas bubbles in the content */
} hp_gut;

typedef struct hp_ph_lesion {
    hp_ell e;
    float r;                    /* mean radius */
    float lobulation, lob_cell; /* relative amplitude, cells per mm */
    float lob_off[3];
    float edge_mm;
    float core[HP_PHASES], rim[HP_PHASES];
    float rim_mm;
    float tex_cell; /* tile cells per mm */
    float tex_off[3], tex_off2[3];
    int tex_swap;
    float tex_amp[HP_PHASES];
    float rho;
    int arms; /* central scar */
    float arm_dir[5][3], arm_mm;
    float arm_hu[HP_PHASES];
    float necrosis_r; /* share of the radius; 0 none */
    float necrosis_hu;
    float fill[HP_PHASES]; /* hemangioma: share of the depth that is filled */
    int knobs;
    float knob_c[7][3], knob_r[7];
    bool absolute;               /* core is HU itself, not relative to liver */
    bool soft;                   /* drawn as a haze: focal fat, wedge */
    float cone_dir[3], cone_cos; /* wedge */
    float spot_hu;               /* lipiodol: bright speckles */
} hp_ph_lesion;

enum { MAX_TUBES = 420, MAX_GUT = 64, MAX_PANCREAS = 6 };

struct hp_phantom {
    hp_phantom_options opt;
    hp_phantom_truth truth;

    float *tile_t, *tile_u;   /* unit variance noise */
    float *lat[HP_PHASES];    /* (Z, Y, X, 3): rest minus image point */
    float lat_max[HP_PHASES]; /* largest |component| */

    double frame_mm[3];
    hp_geom grid[HP_PHASES];
    int pad[HP_PHASES];
    double sharp[HP_PHASES]; /* -1 smooth .. 1 sharp */
    double streak_hu;
    double streak_dir[3][2];
    double noise_sd[HP_PHASES]; /* native grid, at the edge of the body */
    double cup_hu;

    float mat[HP_PHASES][MAT_COUNT];

    /* trunk */
    float a, b, c4;       /* outer half axes, squareness */
    float aw, bw;         /* muscle's outer surface */
    float ai, bi, ci, yi; /* cavity; its centre's y */
    float dome_h;
    hp_ell dome[3];
    float heart_fat;
    hp_ell heart, ventricle_l, ventricle_r, atrium, mediastinum;
    float spine_y, spine_r[2], spine_z0, disc_mm;
    float rib_z0, rib_pitch, rib_drop;
    float table_y, table_r;
    bool has_table;
    float psoas_r;

    /* abdomen */
    hp_ell lobe[4], cut[2];
    float wall_gap, liver_noise_mm, liver_noise_cell, nodular_mm;
    float paren_cell, paren_amp;
    hp_ell spleen, spleen_cut;
    hp_ell kidney[2], sinus[2];
    hp_ell gallbladder;
    bool has_gallbladder, has_stone, has_effusion;
    hp_ell stone;
    float ascites_mm, effusion_y[2];
    int n_gut, n_tubes, n_liver_tubes, n_pancreas;
    hp_gut gut[MAX_GUT];
    hp_tube tube[MAX_TUBES]; /* outside the liver, then (from n_tubes) inside */
    hp_tube liver_tube[MAX_TUBES];
    hp_tube pancreas[MAX_PANCREAS];

    hp_ph_lesion les[HP_PH_MAX_LESIONS];
};

/* One row of sample points in body coordinates and what is known about them. */
enum { HP_ROW_MAX = 1024 };
typedef struct hp_row {
    int n;
    float x0, dx, y, z; /* image points */
    float w;            /* width of an edge's ramp, mm */
    int i0, i1;         /* span inside the cavity's box */
    float x[HP_ROW_MAX];
    float px[HP_ROW_MAX], py[HP_ROW_MAX], pz[HP_ROW_MAX]; /* rest points */
    float py0, py1, pz0, pz1;                             /* their range */
    float din[HP_ROW_MAX];  /* distance to the cavity's wall */
    float ddia[HP_ROW_MAX]; /* to the diaphragm, abdomen negative */
    float dliv[HP_ROW_MAX]; /* liver with its lesions */
    float les[HP_ROW_MAX];
    float hu[HP_ROW_MAX], lhu[HP_ROW_MAX];
    float t1[HP_ROW_MAX], t2[HP_ROW_MAX], t3[HP_ROW_MAX], t4[HP_ROW_MAX];
} hp_row;

/* draw.c: parameters from the seed. Needs tiles; needs the lattices only for lesions. */
void hp_ph__draw_body(hp_phantom *p);
void hp_ph__draw_organs(hp_phantom *p);
void hp_ph__draw_lesions(hp_phantom *p);
void hp_ph__draw_scan(hp_phantom *p);
hp_ell hp_ph__ell(double cx, double cy, double cz, double rx, double ry, double rz,
                  double yaw, double tilt);

/* vessels.c */
void hp_ph__draw_vessels(hp_phantom *p);

/* shape.c */
void hp_ph__make_tile(uint64_t seed, float *tile);
float hp_ph__tile(const float *tile, float x, float y, float z);
void hp_ph__make_lattice(hp_phantom *p);
void hp_ph__rest(const hp_phantom *p, int phase, const double img[3], double ret[3]);
void hp_ph__breath(const hp_phantom *p, int phase, const double img[3], double ret[3]);
void hp_ph__row_begin(const hp_phantom *p, int phase,
                      hp_row *r); /* x..rest points, din, ddia */
void hp_ph__row_rest(hp_row *r);  /* without lattice: rest = image (placing things) */
bool hp_ph__row_liver(const hp_phantom *p, hp_row *r,
                      bool with_lesions); /* dliv; false: none */
bool hp_ph__row_ell(const hp_ell *e, const hp_row *r, float margin, float *d, int *i0,
                    int *i1);
bool hp_ph__row_lesion(const hp_phantom *p, int i, const hp_row *r, float margin,
                       float *d, int *i0, int *i1);
float hp_ph__liver_at(const hp_phantom *p, double x, double y, double z,
                      bool with_lesions);

void hp_ph__squircle(const hp_row *r, float a, float b, float c, float cy, float *d);
bool hp_ph__row_vessel(const hp_phantom *p, int k, const hp_row *r, bool liver, float *d,
                       int *i0, int *i1);
bool hp_ph__row_tube(const hp_tube *t, const hp_row *r, float margin, float *d, int *i0,
                     int *i1);

/* lesions.c draws what hp_ph__draw_lesions() says; paint.c: */
void hp_ph__paint_row(const hp_phantom *p, int phase, hp_row *r);

static inline float hp_ph__cover(float d, float w)
{
    float c = 0.5f - d / w;
    return c < 0 ? 0 : c > 1 ? 1 : c;
}

#endif
