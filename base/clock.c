/* The two clocks, and the three ways we write a time. */
#include "base/clock.h"

#include <stdio.h>
#include <time.h>

static int64_t read_ms(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t); /* cannot fail for these two ids */
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t hp_clock_mono_ms(void)
{
    return read_ms(CLOCK_MONOTONIC);
}

int64_t hp_clock_wall_ms(void)
{
    return read_ms(CLOCK_REALTIME);
}

/* Broken-down UTC; times outside the years 0..9999 become 1970, because the
 * texts below have four digits for the year. */
static struct tm utc(int64_t wall_ms, int *ret_ms)
{
    int64_t s = wall_ms / 1000, ms = wall_ms % 1000;
    struct tm tm = {0};
    time_t t;

    if (ms < 0) {
        ms += 1000;
        s--;
    }
    t = (time_t)s;
    if (gmtime_r(&t, &tm) == NULL || tm.tm_year < -1900 || tm.tm_year > 8099) {
        t = 0;
        ms = 0;
        gmtime_r(&t, &tm);
    }
    *ret_ms = (int)ms;
    return tm;
}

void hp_clock_da(int64_t wall_ms, char ret[9])
{
    int ms;
    struct tm tm = utc(wall_ms, &ms);

    strftime(ret, 9, "%Y%m%d", &tm);
}

void hp_clock_tm(int64_t wall_ms, char ret[11])
{
    int ms;
    struct tm tm = utc(wall_ms, &ms);

    strftime(ret, 11, "%H%M%S", &tm);
    ret[6] = '.';
    ret[7] = (char)('0' + ms / 100);
    ret[8] = (char)('0' + ms / 10 % 10);
    ret[9] = (char)('0' + ms % 10);
    ret[10] = 0;
}

void hp_clock_iso(int64_t wall_ms, char ret[21])
{
    int ms;
    struct tm tm = utc(wall_ms, &ms);

    strftime(ret, 21, "%Y-%m-%dT%H:%M:%SZ", &tm);
}
