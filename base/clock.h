/* Time. Deadlines use the monotonic clock; what a person reads or the ledger
 * keeps uses the wall clock in milliseconds since 1970 (UTC). */
#ifndef HP_BASE_CLOCK_H
#define HP_BASE_CLOCK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

int64_t hp_clock_mono_ms(void);
int64_t hp_clock_wall_ms(void);
/* "20261124" and "134501.123" in UTC (DICOM DA and TM); "2026-11-24T13:45:01Z". */
void hp_clock_da(int64_t wall_ms, char ret[9]);
void hp_clock_tm(int64_t wall_ms, char ret[11]);
void hp_clock_iso(int64_t wall_ms, char ret[21]);

#ifdef __cplusplus
}
#endif
#endif
