/* Which contrast phases a free text names. Inside the room only (and its tests). */
#ifndef HP_DICOM_SERIES_WORDS_H
#define HP_DICOM_SERIES_WORDS_H

#include "base/study.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bit i set: phase i is named. *ret_word (optional) is our own spelling of the
 * first word that hit, never the received text; NULL when nothing hit. */
unsigned hp_phase_words(const char *text, const char **ret_word);

/* The text lower-cased, accents dropped (UTF-8, Latin-1 and Latin-5 alike),
 * everything but letters, digits, '+', '-' and '/' inside words turned into one
 * space, with a space at both ends. */
void hp_fold_text(const char *text, char *ret, unsigned size);

#ifdef __cplusplus
}
#endif
#endif
