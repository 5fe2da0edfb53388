/* The two clocks. */
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

double hp_clock_mono_fine_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}
