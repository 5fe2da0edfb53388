/* One line per event to stderr: journal level prefix, `event key=value ...`.
 * Only daemon/ calls it. Lines carry our own ids; never a patient's name, ID
 * or date. */
#ifndef HP_BASE_LOG_H
#define HP_BASE_LOG_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum hp_level {
    HP_LOG_ERROR = 3,
    HP_LOG_WARNING = 4,
    HP_LOG_INFO = 6,
    HP_LOG_DEBUG = 7
} hp_level;

void hp_log_set_level(hp_level level); /* default HP_LOG_INFO */
void hp_log(hp_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Makes received text safe to print in a line: printable ASCII kept, the rest
 * '?', cut to fit. Returns ret. */
const char *hp_log_safe(const char *text, char *ret, unsigned size);

#ifdef __cplusplus
}
#endif
#endif
