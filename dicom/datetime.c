/* DICOM dates and times as seconds since 1970, zone ignored. */
#include "dicom/datetime.h"

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>

/* `digits` digits of *at as a number; false when there are fewer. */
static bool take(const char **at, int digits, int *ret)
{
    int v = 0;

    for (int i = 0; i < digits; i++) {
        if (!isdigit((unsigned char)(*at)[i]))
            return false;
        v = v * 10 + ((*at)[i] - '0');
    }
    *at += digits;
    *ret = v;
    return true;
}

static double days_since_1970(int y, int m, int d)
{
    /* Counting years from March puts the leap day at the end. */
    int year = m <= 2 ? y - 1 : y;
    int month = (m + 9) % 12;

    return 365.0 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + d -
           1 - 719468;
}

static bool take_date(const char **at, double *ret_s)
{
    int y, m, d;

    if (!take(at, 4, &y))
        return false;
    if (**at == '.')
        ++*at;
    if (!take(at, 2, &m))
        return false;
    if (**at == '.')
        ++*at;
    if (!take(at, 2, &d) || y < 1 || m < 1 || m > 12 || d < 1 || d > 31)
        return false;
    *ret_s = days_since_1970(y, m, d) * 86400.0;
    return true;
}

static bool take_time(const char *at, double *ret_s)
{
    double scale[3] = {3600, 60, 1}, s = 0;
    int v;

    for (int i = 0; i < 3; i++) {
        if (i > 0 && *at == ':')
            at++;
        if (!take(&at, 2, &v)) {
            if (i == 0)
                return false;
            *ret_s = s; /* hours, or hours and minutes, are enough */
            return true;
        }
        if (v > (i == 0 ? 23 : 60))
            return false;
        s += v * scale[i];
    }
    if (*at == '.') {
        double unit = 0.1;

        for (at++; isdigit((unsigned char)*at); at++, unit /= 10)
            s += (*at - '0') * unit;
    }
    *ret_s = s;
    return true;
}

double hp_da_tm_seconds(const char *da, const char *tm)
{
    double day, time;

    return take_date(&da, &day) && take_time(tm, &time) ? day + time : NAN;
}

double hp_dt_seconds(const char *dt)
{
    double day, time;

    return take_date(&dt, &day) && take_time(dt, &time) ? day + time : NAN;
}
