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
/* The monotonic clock with its fraction, for what takes less than a moment. */
double hp_clock_mono_fine_ms(void);

#ifdef __cplusplus
}
#endif
#endif
