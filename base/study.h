/* Words about a study that every room speaks: contrast phases, and what became
 * of each series. */
#ifndef HP_BASE_STUDY_H
#define HP_BASE_STUDY_H

#include "base/uid.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Contrast phases in the paper's channel order (Table I, Fig. 1). */
typedef enum hp_phase {
    HP_PHASE_NONE = -1,
    HP_PHASE_NC = 0, /* non-contrast */
    HP_PHASE_A = 1,  /* arterial */
    HP_PHASE_V = 2,  /* portal venous: the reference grid */
    HP_PHASE_D = 3,  /* delayed */
    HP_PHASES = 4
} hp_phase;

const char *hp_phase_name(hp_phase phase);  /* "NC" "A" "V" "D" "-" */
const char *hp_phase_title(hp_phase phase); /* "non-contrast" "arterial" ... */
hp_phase hp_phase_parse(const char *name);  /* by name; HP_PHASE_NONE if unknown */

/* One line per series (or per acquisition, where a series holds several):
 * used as what, or not used and why. */
typedef struct hp_series_note {
    hp_uid uid;
    int number;      /* SeriesNumber, -1 when absent */
    int acquisition; /* which acquisition inside the series, 0-based */
    int instances;
    hp_phase phase; /* HP_PHASE_NONE: not used */
    char why[160];  /* evidence for the phase, or the reason it is not used */
} hp_series_note;

/* What the ledger made of an arrived object. All of these are answered 0000. */
typedef enum hp_disposition {
    HP_STORED_NEW,       /* stored, row committed */
    HP_STORED_DUPLICATE, /* same UID, same bytes: not kept a second time */
    HP_STORED_CONFLICT,  /* same UID, other bytes: in quarantine, the first stays */
    HP_STORED_ECHO       /* one of our own results came back: not kept */
} hp_disposition;

#ifdef __cplusplus
}
#endif
#endif
