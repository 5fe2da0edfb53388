/* A study as a scanner sends it.
 *
 * First the plan: which series, in which order, with what said in their
 * headers (vendors differ, and so do the people who type descriptions). Then
 * the slices are rendered and written by a few threads; a slice depends on the
 * plan and the seed alone. */
#include "tests/phantom/study.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/path.h"
#include "base/sha256.h"
#include "base/uid.h"
#include "tests/phantom/dcm.h"
#include "tests/phantom/num.h"

#define CT_CLASS "1.2.840.10008.5.1.4.1.1.2"
#define SC_CLASS "1.2.840.10008.5.1.4.1.1.7"

enum role { ROLE_PHASE, ROLE_THIN, ROLE_SCOUT, ROLE_MPR, ROLE_DOSE };
static const char *const role_names[] = {"phase", "thin", "localizer", "mpr",
                                         "dose report"};

struct series {
    enum role role;
    int phase;
    int number;
    int acquisition;
    int first; /* InstanceNumber of its first file */
    int n;
    bool shared; /* lies in the series of the entry before it */
    hp_geom g;
    double start_s; /* AcquisitionTime, seconds of the day */
    char desc[65];
    hp_uid uid;
};

struct vendor {
    const char *maker, *model, *institution, *kernel, *thin_kernel, *study_desc;
    bool is_signed;
    int bits, intercept;
    bool pad_circle, per_slice_time, datetime, start_time, feet_first;
    const char *agent[2]; /* NC, enhanced; NULL: absent */
};

static const struct vendor vendors[HP_PH_VENDORS] = {
    [HP_PH_GE] = {"GE MEDICAL SYSTEMS",
                  "Revolution CT",
                  "Synthetic",
                  "STANDARD",
                  "STANDARD",
                  "CT LIVER MULTIPHASE",
                  true,
                  16,
                  -1024,
                  true,
                  false,
                  false,
                  false,
                  false,
                  {"", ""}},
    [HP_PH_SIEMENS] = {"SIEMENS",
                       "SOMATOM Force",
                       "Synthetic",
                       "Br36d",
                       "Br40d",
                       "Abdomen^Leber_3Phasen (Adult)",
                       false,
                       12,
                       -1024,
                       false,
                       true,
                       true,
                       true,
                       false,
                       {NULL, "APPLIED"}},
    [HP_PH_PHILIPS] = {"Philips",
                       "Brilliance 64",
                       "Synthetic",
                       "B",
                       "C",
                       "Foie 4 temps",
                       false,
                       12,
                       -1024,
                       false,
                       false,
                       true,
                       false,
                       true,
                       {"", "CONTRAST"}},
    [HP_PH_CANON] = {"Canon Medical Systems",
                     "Aquilion ONE",
                     "Synthetic",
                     "FC08",
                     "FC13",
                     "Abdomen Dynamic",
                     true,
                     16,
                     0,
                     true,
                     false,
                     true,
                     true,
                     false,
                     {NULL, "IV"}},
};

/* Latin-1, as ISO_IR 100 declares. */
static const char *const words[HP_PH_VENDORS][3][HP_PHASES] = {
    {{"NON CON LIVER", "LATE ART LIVER", "PORTAL VENOUS LIVER", "DELAYED 3 MIN"},
     {"PRE LIVER", "HAP", "PV", "DELAY"},
     {"LIVER 4 PHASE", "Recon 2: LIVER 4 PHASE", "LIVER 4 PHASE",
      "Recon 3: LIVER 4 PHASE"}},
    {{"Abdomen w/o", "Abdomen arterial", "Abdomen portal venous", "Abdomen delayed"},
     {"Leber nativ", "Leber arteriell", "Leber portalven\366s", "Leber sp\344t"},
     {"Abd nat.", "Abd art.", "Abd ven.", "Abd late"}},
    {{"NATIVE", "ARTERIAL PHASE", "PORTAL VENOUS", "EQUILIBRIUM"},
     {"Sans injection", "Art\351riel", "Portal", "Tardif"},
     {"Liver 1", "Liver 2 art", "Liver 3 pv", "Liver 4 3min"}},
    {{"Plain", "Arterial 35s", "Portal 70s", "Equilibrium 180s"},
     {"Liver C-", "Liver C+ HAP", "Liver C+ PVP", "Liver C+ DP"},
     {"Abdomen", "Abdomen CE1 art", "Abdomen CE2 portal", "Abdomen CE3"}},
};

enum { MAX_SERIES = 12 };
struct study {
    const hp_phantom *p;
    const hp_phantom_truth *t;
    const hp_study_options *opt;
    struct vendor v;
    const char *out;
    struct series s[MAX_SERIES];
    int n, habit;
    hp_uid uid, frame;
    char base[256]; /* what UIDs are made from */
    char patient_id[24], name[40], birth[9], date[9];
    const char *sex;
    int age;
    double study_s;
    int circle_pad_stored;
    const int16_t *venous; /* for scout and MPR */
    atomic_int next, failed;
    hp_error error;
    pthread_mutex_t lock;
};

static hp_uid make_uid(const struct study *st, const char *what, int a, int b)
{
    char t[400];
    uint8_t d[32];
    hp_sha256 h;
    int n = snprintf(t, sizeof(t), "%s|%s|%d|%d", st->base, what, a, b);
    hp_sha256_init(&h);
    hp_sha256_add(&h, t, (size_t)n);
    hp_sha256_end(&h, d);
    return hp_uid_from_digest(d);
}

/* ---- plan ---- */

static struct series *add_series(struct study *st, enum role role, int phase, int number,
                                 int acquisition, int n, double start_s, const char *desc)
{
    struct series *s = &st->s[st->n++];
    *s = (struct series){.role = role,
                         .phase = phase,
                         .number = number,
                         .acquisition = acquisition,
                         .first = 1,
                         .n = n,
                         .start_s = start_s};
    snprintf(s->desc, sizeof(s->desc), "%s", desc);
    s->uid = make_uid(st, "series", number, 0);
    return s;
}

static void describe(const struct study *st, num_rng *r, int phase, char *ret,
                     size_t size)
{
    int set = st->opt->tidy ? 0 : st->habit;
    const char *w = words[st->t->vendor][set][phase];
    hp_geom g = hp_phantom_grid(st->p, phase);
    (void)r;
    if (st->t->vendor == HP_PH_SIEMENS)
        snprintf(ret, size, "%s %.1f %s", w, g.spacing_mm[HP_Z], st->v.kernel);
    else if (st->t->vendor == HP_PH_CANON)
        snprintf(ret, size, "%s %.1f", w, g.spacing_mm[HP_Z]);
    else
        snprintf(ret, size, "%s", w);
}

static void plan_study(struct study *st)
{
    const hp_phantom_options *o = hp_phantom_get_options(st->p);
    const bool tidy = st->opt->tidy;
    num_rng r = num_stream(o->seed, 20 + (uint64_t)st->t->vendor);
    st->v = vendors[st->t->vendor];
    double u = num_u01(&r);
    st->habit = u < .6 ? 0 : u < .85 ? 1 : 2;
    snprintf(st->base, sizeof(st->base),
             "hepar-phantom 1|%llu|%d|%d|%.3f|%d|%.3f|%.3f|%d%d|%d%d%d%d%d%d%d|%.2f",
             (unsigned long long)o->seed, st->t->cls, st->t->vendor, o->motion_mm,
             o->slices, o->overlap, o->diameter_mm, o->stress, o->no_distractors, tidy,
             st->opt->drop_slice, st->opt->second_patient, st->opt->drop_phase[0],
             st->opt->drop_phase[1], st->opt->drop_phase[2], st->opt->drop_phase[3],
             st->opt->tilt_deg);
    st->uid = make_uid(st, "study", 0, 0);
    st->frame = make_uid(st, "frame", 0, 0);
    snprintf(st->patient_id, sizeof(st->patient_id), "PHANTOM-%llu",
             (unsigned long long)o->seed % 1000000000000ull);
    snprintf(st->name, sizeof(st->name), "Phantom^Seed%llu", (unsigned long long)o->seed);
    st->age = num_int(&r, 32, 84);
    st->sex = num_chance(&r, .6) ? "M" : "F";
    unsigned year = (unsigned)num_int(&r, 2012, 2025),
             month = (unsigned)num_int(&r, 1, 12), day = (unsigned)num_int(&r, 1, 28);
    snprintf(st->date, sizeof(st->date), "%04u%02u%02u", year % 10000u, month % 100u,
             day % 100u);
    month = (unsigned)num_int(&r, 1, 12);
    day = (unsigned)num_int(&r, 1, 28);
    snprintf(st->birth, sizeof(st->birth), "%04u%02u%02u",
             (year - (unsigned)st->age - 1) % 10000u, month % 100u, day % 100u);
    st->study_s = num_in(&r, 7.5, 19) * 3600;
    const double inject = st->study_s + 420;
    const bool shuffled = !tidy && num_chance(&r, .5),
               joined = !tidy && num_chance(&r, .3), thin = !tidy && num_chance(&r, .15);
    const bool mpr = !tidy && num_chance(&r, .35), scout = !tidy,
               dose = !tidy && num_chance(&r, .5);
    int pair = num_chance(&r, .5)
                   ? HP_PHASE_A
                   : HP_PHASE_V; /* the first of two phases in one series */
    static const int straight[4] = {2, 3, 4, 5};
    static const int odd[3][4] = {{2, 4, 103, 5}, {3, 6, 2, 4}, {5, 2, 3, 201}};
    const int *number = shuffled ? odd[num_int(&r, 0, 2)] : straight;
    if (!tidy && st->t->vendor == HP_PH_GE && num_chance(&r, .5))
        st->v.intercept = 0;
    if (!tidy && num_chance(&r, .3)) /* nobody typed the contrast agent in */
        st->v.agent[0] = st->v.agent[1] = "";
    if (scout)
        add_series(st, ROLE_SCOUT, HP_PHASE_V, 1, 1, 1, st->study_s,
                   st->t->vendor == HP_PH_SIEMENS   ? "Topogram 0.6 T80"
                   : st->t->vendor == HP_PH_PHILIPS ? "Surview"
                                                    : "SCOUT");
    for (int ph = 0; ph < HP_PHASES; ph++) {
        char desc[65];
        if (st->opt->drop_phase[ph])
            continue;
        hp_geom g = hp_phantom_grid(st->p, ph);
        describe(st, &r, ph, desc, sizeof(desc));
        bool with_last = joined && ph == pair + 1 && !st->opt->drop_phase[pair];
        struct series *s = add_series(st, ROLE_PHASE, ph, number[ph], 2 + ph, g.n[HP_Z],
                                      inject + st->t->delay_s[ph], desc);
        s->g = g;
        if (with_last) {
            const struct series *last = s - 1;
            s->number = last->number;
            s->uid = last->uid;
            s->shared = true;
            s->first = last->first + last->n;
            memcpy(s->desc, last->desc, sizeof(s->desc));
        }
    }
    if (joined && !st->opt->drop_phase[pair] && !st->opt->drop_phase[pair + 1])
        for (int k = 0; k < st->n; k++)
            if (st->s[k].role == ROLE_PHASE &&
                (st->s[k].phase == pair || st->s[k].phase == pair + 1))
                snprintf(st->s[k].desc, sizeof(st->s[k].desc), "%s",
                         pair == HP_PHASE_A ? "LIVER ART/PORTAL" : "LIVER PORTAL/LATE");
    hp_geom v = hp_phantom_grid(st->p, HP_PHASE_V);
    if (thin && !st->opt->drop_phase[HP_PHASE_V]) {
        char desc[65];
        describe(st, &r, HP_PHASE_V, desc, sizeof(desc) - 6);
        strcat(desc, " THIN");
        double t = v.spacing_mm[HP_Z] / 2,
               at[3] = {v.origin_mm[0], v.origin_mm[1],
                        v.origin_mm[2] - v.spacing_mm[HP_Z] / 4};
        struct series *s = add_series(st, ROLE_THIN, HP_PHASE_V, number[HP_PHASE_V] + 300,
                                      2 + HP_PHASE_V, 2 * v.n[HP_Z],
                                      inject + st->t->delay_s[HP_PHASE_V], desc);
        s->g = hp_geom_axial(2 * v.n[HP_Z], v.n[HP_Y], v.n[HP_X], t, v.spacing_mm[HP_Y],
                             v.spacing_mm[HP_X], at);
    }
    if (mpr && !st->opt->drop_phase[HP_PHASE_V])
        add_series(st, ROLE_MPR, HP_PHASE_V, 400, 2 + HP_PHASE_V, 12,
                   inject + st->t->delay_s[HP_PHASE_V],
                   st->t->vendor == HP_PH_GE ? "COR REFORMAT" : "Cor MPR");
    if (dose)
        add_series(st, ROLE_DOSE, HP_PHASE_V, 999, 0, 1, inject + 900,
                   st->t->vendor == HP_PH_SIEMENS ? "Patient Protocol" : "Dose Report");
}

/* ---- headers ---- */

static const char *tm(double s, char *ret, size_t size)
{
    long ms = (long)(s * 1000 + .5);
    snprintf(ret, size, "%02d%02d%02d.%03d", (int)(ms / 3600000 % 24),
             (int)(ms / 60000 % 60), (int)(ms / 1000 % 60), (int)(ms % 1000));
    return ret;
}

struct image {
    const struct series *s;
    int index; /* in the series' own order of files */
    int rows, cols;
    double pos[3], row[3], col[3], pix[2], thick;
    const char *type, *sop_class;
    double time_s;
    int instance;
    bool ct;
    const uint16_t *px; /* stored values */
};

static void identity(const struct study *st, hp_buf *b, const struct image *im)
{
    char t[32], dt[48];
    const struct series *s = im->s;
    hp_uid sop = make_uid(st, "image", s->number, im->instance);
    dcm_text(b, 0x00080005, "CS", "ISO_IR 100");
    dcm_text(b, 0x00080008, "CS", im->type);
    dcm_text(b, 0x00080016, "UI", im->sop_class);
    dcm_text(b, 0x00080018, "UI", sop.text);
    dcm_text(b, 0x00080020, "DA", st->date);
    dcm_text(b, 0x00080021, "DA", st->date);
    dcm_text(b, 0x00080022, "DA", im->ct ? st->date : NULL);
    dcm_text(b, 0x00080023, "DA", st->date);
    if (im->ct && st->v.datetime) {
        snprintf(dt, sizeof(dt), "%s%s", st->date, tm(im->time_s, t, sizeof(t)));
        dcm_text(b, 0x0008002a, "DT", dt);
    }
    dcm_text(b, 0x00080030, "TM", tm(st->study_s, t, sizeof(t)));
    dcm_text(b, 0x00080031, "TM", tm(s->start_s, t, sizeof(t)));
    if (im->ct)
        dcm_text(b, 0x00080032, "TM", tm(im->time_s, t, sizeof(t)));
    dcm_text(b, 0x00080033, "TM", tm(im->time_s + 8 + .11 * im->index, t, sizeof(t)));
    snprintf(t, sizeof(t), "P%llu", (unsigned long long)st->t->seed % 100000000000ull);
    dcm_text(b, 0x00080050, "SH", t);
    dcm_text(b, 0x00080060, "CS", "CT");
    if (!im->ct)
        dcm_text(b, 0x00080064, "CS", "WSD");
    dcm_text(b, 0x00080070, "LO", st->v.maker);
    dcm_text(b, 0x00080080, "LO", st->v.institution);
    dcm_text(b, 0x00080090, "PN", "");
    dcm_text(b, 0x00081030, "LO", st->v.study_desc);
    dcm_text(b, 0x0008103e, "LO", s->desc);
    dcm_text(b, 0x00081090, "LO", st->v.model);
}

static void patient(const struct study *st, hp_buf *b, const struct image *im)
{
    char t[32];
    const bool other = st->opt->second_patient && im->index % 2 == 1;
    dcm_text(b, 0x00100010, "PN", other ? "Phantom^Other" : st->name);
    dcm_text(b, 0x00100020, "LO", other ? "PHANTOM-OTHER" : st->patient_id);
    dcm_text(b, 0x00100030, "DA", st->birth);
    dcm_text(b, 0x00100040, "CS", st->sex);
    snprintf(t, sizeof(t), "%03dY", st->age % 1000);
    dcm_text(b, 0x00101010, "AS", t);
    dcm_text(b, 0x00104000, "LT",
             "Synthetic phantom, computed from a seed. Not a patient.");
}

static void acquisition(const struct study *st, hp_buf *b, const struct image *im)
{
    const struct series *s = im->s;
    const bool nc = s->phase == HP_PHASE_NC || s->role == ROLE_SCOUT;
    double v[2], tilt = st->opt->tilt_deg;
    char t[32];
    if (s->role != ROLE_SCOUT)
        dcm_text(b, 0x00180010, "LO", st->v.agent[!nc]);
    dcm_text(b, 0x00180015, "CS", "ABDOMEN");
    dcm_text(b, 0x00180022, "CS", s->role == ROLE_SCOUT ? "SCOUT MODE" : "HELICAL MODE");
    dcm_ds(b, 0x00180050, &im->thick, 1);
    dcm_text(b, 0x00180060, "DS", "120");
    v[0] = 500;
    dcm_ds(b, 0x00180090, v, 1);
    dcm_text(b, 0x00181020, "LO", "phantom 1");
    dcm_text(b, 0x00181030, "LO", "Liver multiphase");
    if (!nc && st->v.start_time && st->v.agent[1] && st->v.agent[1][0])
        dcm_text(b, 0x00181042, "TM", tm(st->study_s + 420, t, sizeof(t)));
    v[0] = floor(im->pix[1] * im->cols * 1000 + .5) / 1000;
    dcm_ds(b, 0x00181100, v, 1);
    dcm_ds(b, 0x00181120, &tilt, 1);
    v[0] = 150;
    dcm_ds(b, 0x00181130, v, 1);
    dcm_text(b, 0x00181140, "CS", "CW");
    dcm_int(b, 0x00181150, "IS", 500);
    dcm_int(b, 0x00181151, "IS", 280);
    dcm_int(b, 0x00181152, "IS", 140);
    dcm_text(b, 0x00181160, "SH", "BODY FILTER");
    dcm_text(b, 0x00181210, "SH",
             s->role == ROLE_THIN ? st->v.thin_kernel : st->v.kernel);
    dcm_text(b, 0x00185100, "CS", "HFS");
}

static void place(const struct study *st, hp_buf *b, const struct image *im)
{
    const struct series *s = im->s;
    double v[6];
    dcm_text(b, 0x0020000d, "UI", st->uid.text);
    dcm_text(b, 0x0020000e, "UI", s->uid.text);
    dcm_text(b, 0x00200010, "SH", "1");
    dcm_int(b, 0x00200011, "IS", s->number);
    if (im->ct)
        dcm_int(b, 0x00200012, "IS", s->acquisition);
    dcm_int(b, 0x00200013, "IS", im->instance);
    if (!im->ct) {
        dcm_text(b, 0x00200020, "CS", "");
        return;
    }
    dcm_ds(b, 0x00200032, im->pos, 3);
    memcpy(v, im->row, sizeof(im->row));
    memcpy(v + 3, im->col, sizeof(im->col));
    dcm_ds(b, 0x00200037, v, 6);
    dcm_text(b, 0x00200052, "UI", st->frame.text);
    dcm_text(b, 0x00201040, "LO", "SN");
    dcm_ds(b, 0x00201041, &im->pos[2], 1);
}

static void pixels(const struct study *st, hp_buf *b, const struct image *im)
{
    double v[2];
    dcm_us(b, 0x00280002, "US", 1);
    dcm_text(b, 0x00280004, "CS", "MONOCHROME2");
    dcm_us(b, 0x00280010, "US", (uint16_t)im->rows);
    dcm_us(b, 0x00280011, "US", (uint16_t)im->cols);
    v[0] = im->pix[0];
    v[1] = im->pix[1];
    if (im->ct)
        dcm_ds(b, 0x00280030, v, 2);
    dcm_us(b, 0x00280100, "US", 16);
    dcm_us(b, 0x00280101, "US", (uint16_t)st->v.bits);
    dcm_us(b, 0x00280102, "US", (uint16_t)(st->v.bits - 1));
    dcm_us(b, 0x00280103, "US", st->v.is_signed);
    if (st->v.pad_circle && im->ct && im->s->role != ROLE_SCOUT)
        dcm_us(b, 0x00280120, st->v.is_signed ? "SS" : "US",
               (uint16_t)st->circle_pad_stored);
    if (im->ct)
        dcm_text(b, 0x00280300, "CS", "YES"); /* a quality control image: no patient */
    dcm_text(b, 0x00281050, "DS", "50");
    dcm_text(b, 0x00281051, "DS", "350");
    dcm_int(b, 0x00281052, "DS", im->ct ? st->v.intercept : 0);
    dcm_text(b, 0x00281053, "DS", "1");
    dcm_text(b, 0x00281054, "LO", im->ct && im->s->role != ROLE_SCOUT ? "HU" : "US");
    dcm_bytes(b, 0x7fe00010, "OW", im->px, (size_t)im->rows * (size_t)im->cols * 2);
}

static hp_code write_image(const struct study *st, const struct image *im,
                           hp_error *reterr)
{
    char path[HP_PATH_MAX];
    hp_buf b = HP_BUF_INIT;
    hp_uid sop = make_uid(st, "image", im->s->number, im->instance);
    hp_buf_reserve(&b, (size_t)im->rows * (size_t)im->cols * 2 + 4096);
    identity(st, &b, im);
    patient(st, &b, im);
    if (im->ct)
        acquisition(st, &b, im);
    else
        dcm_text(&b, 0x00180015, "CS", "ABDOMEN");
    place(st, &b, im);
    pixels(st, &b, im);
    hp_code rc = hp_path_fmt(path, reterr, "%s/dicom/S%03d/IM%04d.dcm", st->out,
                             im->s->number, im->instance);
    if (rc == HP_OK)
        rc = dcm_write(path, im->sop_class, sop.text, &b, reterr);
    hp_buf_done(&b);
    return rc;
}

/* ---- pictures ---- */

static uint16_t stored(const struct study *st, int hu)
{
    int v = hu - st->v.intercept;
    if (!st->v.is_signed) {
        int top = (1 << st->v.bits) - 1;
        v = v < 0 ? 0 : v > top ? top : v;
    }
    return (uint16_t)(int16_t)v;
}

/* Files of a series run from the head down, or up where the vendor does so. */
static int slice_of(const struct study *st, const struct series *s, int file)
{
    return st->v.feet_first ? file : s->n - 1 - file;
}

static void slice_header(const struct study *st, const struct series *s, int file,
                         struct image *im)
{
    const int z = slice_of(st, s, file);
    const double t = st->opt->tilt_deg * 3.14159265358979 / 180;
    *im = (struct image){.s = s,
                         .index = file,
                         .rows = s->g.n[HP_Y],
                         .cols = s->g.n[HP_X],
                         .row = {1, 0, 0},
                         .col = {0, num_cos(t), -num_sin(t)},
                         .thick = s->g.spacing_mm[HP_Z],
                         .sop_class = CT_CLASS,
                         .ct = true};
    memcpy(im->pos, s->g.origin_mm, sizeof(im->pos));
    im->pos[2] += z * s->g.spacing_mm[HP_Z];
    im->pix[0] = s->g.spacing_mm[HP_Y];
    im->pix[1] = s->g.spacing_mm[HP_X];
    im->type = st->t->vendor == HP_PH_SIEMENS ? "ORIGINAL\\PRIMARY\\AXIAL\\CT_SOM5 SPI"
                                              : "ORIGINAL\\PRIMARY\\AXIAL";
    im->instance = s->first + file;
    im->time_s = s->start_s + (st->v.per_slice_time ? .09 * file : 0);
}

static hp_code axial_slice(struct study *st, const struct series *s, int file,
                           int16_t *hu, uint16_t *px, hp_error *reterr)
{
    struct image im;
    const int z = slice_of(st, s, file), n = s->g.n[HP_X], lo[3] = {z, 0, 0},
              size[3] = {1, s->g.n[HP_Y], n};
    if (st->opt->drop_slice && file == s->n / 2)
        return HP_OK;
    hp_geom one = hp_geom_crop(&s->g, lo, size);
    hp_code rc = hp_phantom_render(st->p, s->phase, &one, hu, reterr);
    if (rc != HP_OK)
        return rc;
    const int pad = st->circle_pad_stored;
    const double mid = (n - 1) / 2., r2 = n * n / 4.;
    for (int y = 0; y < size[1]; y++)
        for (int x = 0; x < n; x++) {
            size_t i = (size_t)y * (size_t)n + (size_t)x;
            double u = x - mid, v = y - mid;
            px[i] = st->v.pad_circle && u * u + v * v > r2 ? (uint16_t)pad
                                                           : stored(st, hu[i]);
        }
    slice_header(st, s, file, &im);
    im.px = px;
    return write_image(st, &im, reterr);
}

struct pool {
    struct study *st;
    int total, begin[MAX_SERIES + 1];
};

static void *work(void *arg)
{
    struct pool *pool = arg;
    struct study *st = pool->st;
    const size_t n = 512 * 512;
    int16_t *hu = malloc(n * 2);
    uint16_t *px = malloc(n * 2);
    hp_error e = HP_ERROR_INIT;
    hp_code rc = hu && px ? HP_OK : hp_fail(&e, HP_E_NO_MEMORY, "writing a study");
    while (rc == HP_OK && !st->failed) {
        int job = atomic_fetch_add(&st->next, 1), k = 0;
        if (job >= pool->total)
            break;
        while (job >= pool->begin[k + 1])
            k++;
        rc = axial_slice(st, &st->s[k], job - pool->begin[k], hu, px, &e);
    }
    if (rc != HP_OK) {
        pthread_mutex_lock(&st->lock);
        if (!st->failed)
            st->error = e;
        st->failed = 1;
        pthread_mutex_unlock(&st->lock);
    }
    free(hu);
    free(px);
    return NULL;
}

static hp_code axial_series(struct study *st, hp_error *reterr)
{
    struct pool pool = {.st = st};
    for (int k = 0; k < st->n; k++) {
        bool axial = st->s[k].role == ROLE_PHASE || st->s[k].role == ROLE_THIN;
        pool.begin[k] = pool.total;
        pool.total += axial ? st->s[k].n : 0;
        pool.begin[k + 1] = pool.total;
    }
    long cores = st->opt->threads > 0 ? st->opt->threads : sysconf(_SC_NPROCESSORS_ONLN);
    int n = cores < 1 ? 1 : cores > 16 ? 16 : (int)cores;
    pthread_t th[16];
    int started = 0;
    for (; started < n - 1; started++)
        if (pthread_create(&th[started], NULL, work, &pool))
            break;
    work(&pool);
    for (int k = 0; k < started; k++)
        pthread_join(th[k], NULL);
    if (st->failed) {
        if (reterr)
            *reterr = st->error;
        return st->error.code;
    }
    return HP_OK;
}

/* A coronal look at V on a coarse grid: `depth` < 0 is the mean over all of it. */
static hp_code coronal(struct study *st, const struct series *s, double depth, int count,
                       hp_error *reterr)
{
    hp_geom v = hp_phantom_grid(st->p, HP_PHASE_V);
    const double mm = 2, tall = v.n[HP_Z] * v.spacing_mm[HP_Z],
                 wide = v.n[HP_X] * v.spacing_mm[HP_X];
    const int nz = (int)(tall / mm), nx = (int)(wide / mm),
              ny = depth < 0 ? (int)(wide / 12) : count;
    const double sy = depth < 0 ? 12 : 6;
    double o[3] = {v.origin_mm[0],
                   v.origin_mm[1] + wide / 2 - (depth < 0 ? wide / 2 : sy * count / 2),
                   v.origin_mm[2] - v.spacing_mm[HP_Z] / 2 + mm / 2};
    hp_geom g = hp_geom_axial(nz, ny, nx, mm, sy, mm, o);
    int16_t *hu = malloc(hp_geom_voxels(&g) * 2);
    uint16_t *px = malloc((size_t)nz * (size_t)nx * 2);
    hp_code rc = hu && px ? hp_phantom_render(st->p, HP_PHASE_V, &g, hu, reterr)
                          : hp_fail(reterr, HP_E_NO_MEMORY, "a coronal series");
    for (int k = 0; rc == HP_OK && k < s->n; k++) {
        for (int z = 0; z < nz; z++)
            for (int x = 0; x < nx; x++) {
                double sum = 0;
                if (depth < 0) {
                    for (int y = 0; y < ny; y++)
                        sum += hu[((size_t)z * (size_t)ny + (size_t)y) * (size_t)nx +
                                  (size_t)x];
                    sum = sum / ny * 1.6 + 500;
                } else {
                    sum =
                        hu[((size_t)z * (size_t)ny + (size_t)k) * (size_t)nx + (size_t)x];
                }
                px[(size_t)(nz - 1 - z) * (size_t)nx + (size_t)x] =
                    stored(st, (int)floor(sum));
            }
        struct image im = {.s = s,
                           .index = k,
                           .rows = nz,
                           .cols = nx,
                           .row = {1, 0, 0},
                           .col = {0, 0, -1},
                           .pix = {mm, mm},
                           .thick = depth < 0 ? 1 : sy,
                           .sop_class = CT_CLASS,
                           .ct = true,
                           .instance = 1 + k,
                           .px = px,
                           .time_s = s->start_s};
        im.pos[0] = o[0];
        im.pos[1] = o[1] + (depth < 0 ? wide / 2 : k * sy);
        im.pos[2] = o[2] + (nz - 1) * mm;
        im.type = depth < 0                   ? "ORIGINAL\\PRIMARY\\LOCALIZER"
                  : st->t->vendor == HP_PH_GE ? "DERIVED\\SECONDARY\\REFORMATTED"
                                              : "DERIVED\\SECONDARY\\MPR";
        rc = write_image(st, &im, reterr);
    }
    free(hu);
    free(px);
    return rc;
}

/* A page of grey bars where a scanner would print a table of doses. */
static hp_code dose_page(struct study *st, const struct series *s, hp_error *reterr)
{
    enum { N = 512 };
    uint16_t *px = calloc((size_t)N * N, 2);
    if (!px)
        return hp_fail(reterr, HP_E_NO_MEMORY, "a dose page");
    for (int line = 0; line < 12; line++)
        for (int y = 0; y < 9; y++)
            for (int x = 40; x < 470; x++)
                if (num_hash(st->t->seed + (uint64_t)(line * 97 + x / 6)) % 4)
                    px[(60 + line * 28 + y) * N + x] = 900;
    struct image im = {.s = s,
                       .rows = N,
                       .cols = N,
                       .sop_class = SC_CLASS,
                       .instance = 1,
                       .px = px,
                       .time_s = s->start_s,
                       .type = st->t->vendor == HP_PH_GE
                                   ? "DERIVED\\SECONDARY\\SCREEN SAVE"
                                   : "DERIVED\\SECONDARY\\OTHER"};
    hp_code rc = write_image(st, &im, reterr);
    free(px);
    return rc;
}

/* ---- truth ---- */

static json_t *triple(const double *a)
{
    return json_pack("[fff]", a[0], a[1], a[2]);
}

static json_t *six(const double *lo, const double *hi)
{
    return json_pack("[ffffff]", lo[0], lo[1], lo[2], hi[0], hi[1], hi[2]);
}

static json_t *per_phase(const double *v)
{
    return json_pack("{sfsfsfsf}", "NC", v[0], "A", v[1], "V", v[2], "D", v[3]);
}

static json_t *lesion_json(const struct study *st, int k)
{
    const hp_phantom_lesion *l = &st->t->lesion[k];
    hp_geom v = hp_phantom_grid(st->p, HP_PHASE_V);
    double lo[3], hi[3];
    hp_geom_to_voxel(&v, l->lo_mm, lo);
    hp_geom_to_voxel(&v, l->hi_mm, hi);
    json_t *j = json_pack("{sisssbsbsf}", "label", 2 + k, "kind",
                          hp_phantom_kind_name(l->kind), "primary", l->primary, "focal",
                          l->focal, "diameter_mm", l->diameter_mm);
    json_object_set_new(j, "class",
                        l->cls < 0 ? json_null()
                                   : json_string(hp_phantom_class_name(l->cls)));
    json_object_set_new(j, "centre_mm", triple(l->centre_mm));
    json_object_set_new(j, "box_mm", six(l->lo_mm, l->hi_mm)); /* x, y, z, LPS, V frame */
    json_object_set_new(j, "box_voxel_zyx", six(lo, hi));      /* edges in the V grid */
    json_object_set_new(j, "core_dhu", per_phase(l->core_dhu));
    json_object_set_new(j, "rim_dhu", per_phase(l->rim_dhu));
    json_object_set_new(j, "rim_mm", json_real(l->rim_mm));
    json_object_set_new(j, "texture_mm", json_real(l->texture_mm));
    json_object_set_new(j, "texture_hu", json_real(l->texture_hu));
    json_object_set_new(j, "rho", json_real(l->rho));
    json_object_set_new(j, "edge_mm", json_real(l->edge_mm));
    return j;
}

static json_t *series_json(const struct series *s)
{
    json_t *j = json_pack("{sssissssi}", "uid", s->uid.text, "number", s->number, "role",
                          role_names[s->role], "phase", hp_phase_name((hp_phase)s->phase),
                          "acquisition", s->acquisition);
    json_object_set_new(j, "first_instance", json_integer(s->first));
    json_object_set_new(j, "instances", json_integer(s->n));
    if (s->role == ROLE_PHASE || s->role == ROLE_THIN) {
        json_object_set_new(j, "spacing_mm_zyx", triple(s->g.spacing_mm));
        json_object_set_new(j, "origin_mm", triple(s->g.origin_mm));
        json_object_set_new(j, "size_zyx",
                            json_pack("[iii]", s->g.n[0], s->g.n[1], s->g.n[2]));
    }
    return j;
}

static hp_code write_json(const struct study *st, hp_error *reterr)
{
    const hp_phantom_options *o = hp_phantom_get_options(st->p);
    const hp_phantom_truth *t = st->t;
    static const char *const makers[] = {"ge", "siemens", "philips", "canon"};
    char path[HP_PATH_MAX];
    json_t *j = json_pack("{sssIsssssssfsfsbsb}", "note",
                          "synthetic phantom; says nothing about patients", "seed",
                          (json_int_t)t->seed, "study_uid", st->uid.text, "class",
                          hp_phantom_class_name(t->cls), "vendor", makers[t->vendor],
                          "motion_mm", o->motion_mm, "overlap", o->overlap, "cirrhosis",
                          t->cirrhosis, "fatty", t->fatty);
    json_t *liver = json_pack("{sfso}", "ml", t->liver_ml, "box_mm",
                              six(t->liver_lo_mm, t->liver_hi_mm));
    json_object_set_new(j, "liver", liver);
    json_object_set_new(j, "liver_hu", per_phase(t->liver_hu));
    json_object_set_new(j, "aorta_hu", per_phase(t->aorta_hu));
    json_object_set_new(j, "portal_hu", per_phase(t->portal_hu));
    json_object_set_new(j, "delay_s", per_phase(t->delay_s));
    json_object_set_new(j, "noise_hu", per_phase(t->noise_hu));
    json_object_set_new(j, "largest_primary", json_integer(t->largest_primary));
    json_t *les = json_array(), *ser = json_array();
    for (int k = 0; k < t->n_lesions; k++)
        json_array_append_new(les, lesion_json(st, k));
    for (int k = 0; k < st->n; k++)
        json_array_append_new(ser, series_json(&st->s[k]));
    json_object_set_new(j, "lesions", les);
    json_object_set_new(j, "series", ser);
    hp_code rc = hp_path_fmt(path, reterr, "%s/truth.json", st->out);
    if (rc == HP_OK)
        rc = hp_json_write_file(path, j, reterr);
    json_decref(j);
    return rc;
}

static hp_code write_masks(const struct study *st, hp_error *reterr)
{
    char path[HP_PATH_MAX];
    hp_geom v = hp_phantom_grid(st->p, HP_PHASE_V);
    const int coarse[3] = {(int)(v.n[HP_Z] * v.spacing_mm[HP_Z] / 8) + 1,
                           (int)(v.n[HP_Y] * v.spacing_mm[HP_Y] / 8),
                           (int)(v.n[HP_X] * v.spacing_mm[HP_X] / 8)};
    hp_geom d = hp_geom_resample(&v, coarse);
    hp_code rc = HP_OK;
    for (int ph = 0; rc == HP_OK && ph < HP_PHASES; ph++) {
        if (st->opt->drop_phase[ph])
            continue;
        hp_geom g = hp_phantom_grid(st->p, ph);
        uint8_t *m = malloc(hp_geom_voxels(&g));
        float *u = malloc(hp_geom_voxels(&d) * 3 * sizeof(float));
        rc = m && u ? hp_phantom_labels(st->p, ph, &g, m, reterr)
                    : hp_fail(reterr, HP_E_NO_MEMORY, "writing masks");
        if (rc == HP_OK)
            rc = hp_path_fmt(path, reterr, "%s/labels_%s.nii.gz", st->out,
                             hp_phase_name((hp_phase)ph));
        if (rc == HP_OK)
            rc = hp_nifti_write(path, &g, 2, m, reterr);
        if (rc == HP_OK && ph != HP_PHASE_V) {
            rc = hp_phantom_displacement(st->p, ph, &d, u, reterr);
            if (rc == HP_OK)
                rc = hp_path_fmt(path, reterr, "%s/displacement_%s.nii.gz", st->out,
                                 hp_phase_name((hp_phase)ph));
            if (rc == HP_OK)
                rc = hp_nifti_write(path, &d, 16, u, reterr);
        }
        free(m);
        free(u);
    }
    return rc;
}

struct masks_job {
    const struct study *st;
    hp_code rc;
    hp_error e;
};

static void *masks_thread(void *arg)
{
    struct masks_job *job = arg;
    job->rc = write_masks(job->st, &job->e);
    return NULL;
}

hp_code hp_study_write(const hp_phantom *p, const hp_study_options *opt, const char *out,
                       hp_error *reterr)
{
    struct study *st = calloc(1, sizeof(*st));
    if (!st)
        return hp_fail(reterr, HP_E_NO_MEMORY, "writing a study");
    st->p = p;
    st->t = hp_phantom_get_truth(p);
    st->opt = opt;
    st->out = out;
    pthread_mutex_init(&st->lock, NULL);
    plan_study(st);
    int pad = hp_phantom_pad_hu(p, HP_PHASE_V);
    st->circle_pad_stored =
        pad == -2000 ? -2000 : pad - st->v.intercept; /* 63536 read as unsigned */
    hp_code rc = HP_OK;
    char path[HP_PATH_MAX];
    for (int k = 0; rc == HP_OK && k < st->n; k++) {
        rc = hp_path_fmt(path, reterr, "%s/dicom/S%03d", out, st->s[k].number);
        if (rc == HP_OK)
            rc = hp_path_mkdirs(path, 0755, reterr);
    }
    struct masks_job masks = {.st = st};
    pthread_t th;
    bool beside = false;
    if (rc == HP_OK && !opt->no_truth) {
        beside = pthread_create(&th, NULL, masks_thread, &masks) == 0;
        if (!beside)
            masks_thread(&masks);
    }
    if (rc == HP_OK)
        rc = axial_series(st, reterr);
    for (int k = 0; rc == HP_OK && k < st->n; k++) {
        const struct series *s = &st->s[k];
        if (s->role == ROLE_SCOUT)
            rc = coronal(st, s, -1, 1, reterr);
        else if (s->role == ROLE_MPR)
            rc = coronal(st, s, 1, s->n, reterr);
        else if (s->role == ROLE_DOSE)
            rc = dose_page(st, s, reterr);
    }
    if (beside)
        pthread_join(th, NULL);
    if (rc == HP_OK && masks.rc != HP_OK) {
        if (reterr)
            *reterr = masks.e;
        rc = masks.rc;
    }
    if (rc == HP_OK) /* last: its presence says that the rest is there */
        rc = write_json(st, reterr);
    pthread_mutex_destroy(&st->lock);
    free(st);
    return rc;
}
