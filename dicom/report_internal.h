/* Shared by report, sr and sc; not a door. Words and geometry of a report, so
 * that the SR and the picture cannot tell different stories. */
#ifndef HP_DICOM_REPORT_INTERNAL_H
#define HP_DICOM_REPORT_INTERNAL_H

#include "dicom/report.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The line every object carries, burned in and in its text. */
#define HP_RUO_BANNER "AI result - research use only - not for diagnosis"

/* Series: one per object kind, in a block that scanners do not use. */
enum {
    HP_SERIES_NUMBER_SR = 9001,
    HP_SERIES_NUMBER_KEY_IMAGE = 9002,
    HP_SERIES_NUMBER_NOTE_SR = 9003,
    HP_SERIES_NUMBER_NOTE_PAGE = 9004
};
int hp_report__series_number(hp_result_kind kind);
/* The meaning comes first: viewers cut after about twenty characters. */
void hp_report__series_description(const hp_report *r, hp_result_kind kind, char ret[65]);
hp_uid hp_report__series_uid(const hp_report *r, hp_result_kind kind);
hp_uid hp_report__instance_uid(const hp_report *r, hp_result_kind kind, int index);

/* Printable ASCII only, '?' for the rest, cut to fit. Returns ret. */
const char *hp_report__ascii(const char *text, char *ret, size_t size);

/* "L1 HCC 81% det 94% (AI, RUO)": what a viewer shows beside the box. */
void hp_report__label(const hp_report *r, int candidate, char *ret, size_t size);
/* "NC A V D", absent ones left out; a substituted one as "D(=V)". */
void hp_report__phases(const hp_findings *f, char *ret, size_t size);
/* "NC non-contrast: series 2, HU lesion 41 liver 55", ... one call per phase. */
void hp_report__hu(const hp_findings *f, const hp_candidate *c, hp_phase p, char *ret,
                   size_t size);

/* The phase whose images stand in the channel of `p` (itself, or the one that
 * substitutes it); HP_PHASE_NONE when nothing does. */
hp_phase hp_report__shown_phase(const hp_findings *f, hp_phase p);
/* The candidate's key slice on the V grid, or the box's central one. */
int hp_report__key_slice(const hp_findings *f, const hp_candidate *c);
/* The source plane of phase `p` nearest to V slice `z` in millimetres; NULL
 * when the phase is missing or does not reach that far. */
const hp_slice *hp_report__source(const hp_report *r, hp_phase p, int z);
/* The candidate's box as a closed polyline of five points (column, row), edge
 * based ((0,0) is the corner of the first pixel), in the pixels of `s`. */
void hp_report__outline(const hp_findings *f, const hp_candidate *c, const hp_slice *s,
                        double ret_xy[10]);
/* In-plane size of the box in pixels of `s`, as mm2. */
double hp_report__outline_area_mm2(const double xy[10], const hp_slice *s);

/* The text form, in sections; lines end with '\n'. */
enum { HP_NOTE_SECTIONS = 6 };
typedef struct hp_report__note {
    int count;
    struct {
        const char *heading;
        char text[2048];
    } section[HP_NOTE_SECTIONS];
} hp_report__note;
void hp_report__write_note(const hp_report *r, hp_report__note *ret);

/* One RGB picture (3 bytes a pixel, rows from the top) becomes a Secondary
 * Capture; sc_dcmtk.cc. `sources`: the planes it was drawn from. */
hp_code hp_report__write_sc(const hp_report *r, hp_result_kind kind, int index,
                            const uint8_t *rgb, int width, int height,
                            const hp_slice *const *sources, int source_count,
                            const char *derivation, const char *path,
                            hp_uid *ret_sop_instance, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
