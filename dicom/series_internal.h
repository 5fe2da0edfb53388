/* Shared by series*.c: stacks on their way from a heap of planes to a phase. */
#ifndef HP_DICOM_SERIES_INTERNAL_H
#define HP_DICOM_SERIES_INTERNAL_H

#include "dicom/series.h"

enum { HP_STACK_MAX_PER_SERIES = 12, HP_STACK_MAX = 48, HP_NOTE_MAX = 256 };

/* Why a stack cannot be used; decides which reason a study gets. */
typedef enum hp_stack_fault {
    HP_STACK_FINE = 0,
    HP_STACK_NOT_CT,   /* no CT image, or not of a body region in planes */
    HP_STACK_FILTERED, /* localizer, derived, too few slices, ... */
    HP_STACK_GEOMETRY, /* missing slice, tilt, changing spacing */
    HP_STACK_SPARE,    /* another reconstruction of one that is used */
    HP_STACK_UNCLEAR,  /* nothing says which phase */
    HP_STACK_UNUSED    /* another phase's stack was preferred */
} hp_stack_fault;

/* Planes of one series and one acquisition. */
typedef struct hp_stack {
    const hp_slice **plane; /* feet to head once the geometry is checked */
    int count;
    int series; /* running number of its series in the study */
    int part;   /* which acquisition inside the series, 0-based */
    int group;  /* stacks of one group are parts of one series, in the order
                   of acquisition number, time or instance number */

    hp_geom geom;
    double thickness_mm;
    bool flip_x, flip_y;
    double shift_px[2]; /* largest in-plane offset of a plane: row, column */
    double time_s;      /* of the first plane; NAN */
    bool time_is_content;

    hp_stack_fault fault;
    hp_phase phase;
    char why[160];
} hp_stack;

/* -- series_stack.c -- */
/* Splits the planes of one series that passed the filters (all of one matrix,
 * spacing, orientation) into acquisitions; appends to stack[*count]. Planes
 * beyond `cap` stacks are left out. */
hp_code hp_stacks_split(const hp_slice **plane, int n, int series, int group,
                        hp_stack *stack, int *count, int cap, hp_error *reterr);
/* Sorts, drops double positions, checks spacing, tilt, extent; fills geom or
 * fault and why. */
void hp_stack_check(hp_stack *s, const hp_series_rules *rules);
void hp_stack_done(hp_stack *s);

/* -- series.c -- */
const hp_stack *hp_assembly_stack(const hp_assembly *a, hp_phase phase);

/* -- series_recon.c -- */
/* Of several reconstructions of one acquisition keeps one; the others become
 * HP_STACK_SPARE and say which was kept. */
void hp_stacks_spare(hp_stack *stack, int count, const hp_series_rules *rules);
/* < 0: a is the better one to read. */
int hp_stack_compare(const hp_stack *a, const hp_stack *b, const hp_series_rules *rules);
/* Millimetres along z that both cover. */
double hp_stack_overlap_mm(const hp_stack *a, const hp_stack *b);
/* What the description of a stack names: phases as bits. */
unsigned hp_stack_words(const hp_stack *s, const char **ret_word);
/* "series 4" or "series 4, acquisition 2": the words admins know it by. */
const char *hp_stack_name(const hp_stack *s, char ret[48]);

/* -- series_phase.c -- */
typedef struct hp_phase_choice {
    bool ambiguous;   /* the venous phase is not clear */
    char reason[200]; /* when ambiguous, or when there is no venous phase */
} hp_phase_choice;
/* Forgets acquisition times that cannot be real. Before any of them is used. */
void hp_stacks_doubt_times(hp_stack *stack, int count);
/* Gives each fine stack its phase, or a fault and why. */
hp_code hp_phases_choose(hp_stack *stack, int count, const hp_series_rules *rules,
                         hp_phase_choice *ret, hp_error *reterr);

#endif
