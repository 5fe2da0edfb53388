/* Numbers as text, blind to the locale.
 *
 * strtod() and printf() follow LC_NUMERIC, and a library may call setlocale()
 * behind us; so both directions run in a "C" locale object of our own.
 */
#include "base/number.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static locale_t c_locale;
static pthread_once_t c_locale_once = PTHREAD_ONCE_INIT;

static void make_c_locale(void)
{
    c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (c_locale == (locale_t)0)
        abort(); /* "C" is built in; without it nothing can be parsed */
}

static locale_t c_numeric(void)
{
    pthread_once(&c_locale_once, make_c_locale);
    return c_locale;
}

/* The text without outer white space: copied, zero-terminated. False when it
 * is empty, too long to be a number, or holds a character no number has. */
static bool trimmed(const char *text, const char *allowed, char ret[80])
{
    size_t len;

    text += strspn(text, " \t\r\n");
    len = strlen(text);
    while (len > 0 && strchr(" \t\r\n", text[len - 1]) != NULL)
        len--;
    if (len == 0 || len >= 80)
        return false;
    memcpy(ret, text, len);
    ret[len] = 0;
    return strspn(ret, allowed) == len;
}

bool hp_parse_double(const char *text, double *ret)
{
    char copy[80], *end;
    double v;

    /* The character set keeps "nan", "inf" and hexadecimal out. */
    if (!trimmed(text, "0123456789+-.eE", copy))
        return false;
    v = strtod_l(copy, &end, c_numeric());
    if (*end != 0 || !isfinite(v))
        return false;
    *ret = v;
    return true;
}

bool hp_parse_i64(const char *text, int64_t *ret)
{
    char copy[80], *end;
    long long v;

    if (!trimmed(text, "0123456789+-", copy))
        return false;
    errno = 0;
    v = strtoll(copy, &end, 10);
    if (*end != 0 || errno != 0)
        return false;
    *ret = v;
    return true;
}

int hp_parse_doubles(const char *text, double *ret, int max)
{
    int n = 0;

    while (n < max) {
        const char *end = strchrnul(text, '\\');
        char one[80];
        size_t len = (size_t)(end - text);

        if (len >= sizeof one)
            return -1;
        memcpy(one, text, len);
        one[len] = 0;
        if (n == 0 && *end == 0 && strspn(one, " ") == len)
            return 0; /* an empty value is no value, not a bad one */
        if (!hp_parse_double(one, &ret[n]))
            return -1;
        n++;
        if (*end == 0)
            break;
        text = end + 1;
    }
    return n;
}

void hp_format_double(double v, int decimals, char *ret, size_t size)
{
    locale_t before = uselocale(c_numeric());
    char *point;

    snprintf(ret, size, "%.*f", decimals, v);
    uselocale(before);
    point = strchr(ret, '.');
    if (point != NULL) {
        char *last = ret + strlen(ret) - 1;

        while (last > point && *last == '0')
            *last-- = 0;
        if (last == point)
            *last = 0;
    }
    if (strcmp(ret, "-0") == 0)
        memmove(ret, "0", 2);
}
