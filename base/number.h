/* Decimal text to numbers and back, blind to the locale: '.' is the decimal
 * point whatever LC_NUMERIC says. The whole text must be a number; outer
 * spaces are allowed (DICOM DS and IS are padded with them). */
#ifndef HP_BASE_NUMBER_H
#define HP_BASE_NUMBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

bool hp_parse_double(const char *text, double *ret); /* finite values only */
bool hp_parse_i64(const char *text, int64_t *ret);
/* "x\y\z" as DICOM writes several values; returns how many were read (<= max),
 * or -1 when one of them is not a number. */
int hp_parse_doubles(const char *text, double *ret, int max);
/* Shortest text with at most `decimals` decimals, '.' as the point. */
void hp_format_double(double v, int decimals, char *ret, size_t size);

#ifdef __cplusplus
}
#endif
#endif
