/* Tables for people: columns as wide as their widest cell, two spaces apart,
 * numbers to the right, trailing blanks cut. */
#ifndef HP_DAEMON_TABLE_H
#define HP_DAEMON_TABLE_H

#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_table hp_table;

/* `heads` such as "JOB>|STATE|REASON": '>' after a head aligns to the right;
 * an empty head line (all heads empty) is not printed. NULL: no memory. */
hp_table *hp_table_new(const char *heads);
void hp_table_free(hp_table *t);
/* The next cell; a row is full after as many cells as heads. NULL table or no
 * memory: ignored, the table is cut short. */
void hp_table_text(hp_table *t, const char *text);
void hp_table_fmt(hp_table *t, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void hp_table_print(const hp_table *t, FILE *out, const char *indent);
int hp_table_rows(const hp_table *t);

/* "2026-11-24 14:28:03" in local time, "-" for 0; "3 s", "12 min", "2 h 05 min". */
void hp_table_when(int64_t wall_ms, char ret[24]);
void hp_table_span(int64_t ms, char ret[24]);

#ifdef __cplusplus
}
#endif
#endif
