/* DICOM unique identifiers (PS3.5 section 9). */
#ifndef HP_BASE_UID_H
#define HP_BASE_UID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HP_UID_SIZE 65 /* 64 characters and the zero */

typedef struct hp_uid {
    char text[HP_UID_SIZE];
} hp_uid;

/* Digits and single dots, 1 to 64 characters, no leading or trailing dot.
 * Leading zeros in a component are tolerated (they occur in the wild). */
bool hp_uid_valid(const char *text);

/* "2.25." + the first 128 bits of `digest` as a decimal number. */
hp_uid hp_uid_from_digest(const uint8_t digest[32]);

#ifdef __cplusplus
}
#endif
#endif
