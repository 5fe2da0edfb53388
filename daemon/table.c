/* Tables for people. */
#include "daemon/table.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_COLUMNS = 16 };

struct hp_table {
    char head[MAX_COLUMNS][32];
    bool right[MAX_COLUMNS];
    int columns;
    char **cell;
    size_t count, cap;
};

hp_table *hp_table_new(const char *heads)
{
    hp_table *t = calloc(1, sizeof *t);

    while (t != NULL && t->columns < MAX_COLUMNS) {
        size_t len = strcspn(heads, "|");
        int c = t->columns++;

        t->right[c] = len > 0 && heads[len - 1] == '>';
        snprintf(t->head[c], sizeof t->head[c], "%.*s", (int)len - t->right[c], heads);
        if (heads[len] == '\0')
            break;
        heads += len + 1;
    }
    return t;
}

void hp_table_free(hp_table *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; i < t->count; i++)
        free(t->cell[i]);
    free(t->cell);
    free(t);
}

void hp_table_text(hp_table *t, const char *text)
{
    if (t == NULL)
        return;
    if (t->count == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 64;
        char **more = realloc(t->cell, cap * sizeof *more);

        if (more == NULL)
            return;
        t->cell = more;
        t->cap = cap;
    }
    t->cell[t->count] = strdup(text);
    if (t->cell[t->count] == NULL)
        return;
    /* A cell must not steer the terminal, whoever wrote its text. */
    for (char *p = t->cell[t->count]; *p != '\0'; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    t->count++;
}

void hp_table_fmt(hp_table *t, const char *fmt, ...)
{
    char text[512];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    hp_table_text(t, text);
}

/* Columns on a screen: UTF-8 continuation bytes take none. */
static int width_of(const char *text)
{
    int n = 0;

    for (; *text != '\0'; text++)
        n += ((unsigned char)*text & 0xC0) != 0x80;
    return n;
}

static void print_row(const hp_table *t, FILE *out, const char *indent, const int *width,
                      const char *const *cell)
{
    int pending = 0; /* blanks owed before the next visible cell */

    fputs(indent, out);
    for (int c = 0; c < t->columns; c++) {
        int w = width_of(cell[c]), pad = width[c] - w;

        if (w > 0) {
            fprintf(out, "%*s%s", pending + (t->right[c] ? pad : 0), "", cell[c]);
            pending = 2 + (t->right[c] ? 0 : pad);
        } else {
            pending += width[c] + 2;
        }
    }
    fputc('\n', out);
}

void hp_table_print(const hp_table *t, FILE *out, const char *indent)
{
    int width[MAX_COLUMNS] = {0};
    const char *cell[MAX_COLUMNS];
    bool heads = false;

    if (t == NULL)
        return;
    for (int c = 0; c < t->columns; c++) {
        width[c] = width_of(t->head[c]);
        heads |= t->head[c][0] != '\0';
        cell[c] = t->head[c];
    }
    for (size_t i = 0; i < t->count; i++) {
        int c = (int)(i % (size_t)t->columns), w = width_of(t->cell[i]);

        width[c] = w > width[c] ? w : width[c];
    }
    if (heads)
        print_row(t, out, indent, width, cell);
    for (size_t i = 0; i + (size_t)t->columns <= t->count; i += (size_t)t->columns)
        print_row(t, out, indent, width, (const char *const *)t->cell + i);
}

int hp_table_rows(const hp_table *t)
{
    return t != NULL ? (int)(t->count / (size_t)t->columns) : 0;
}

void hp_table_when(int64_t wall_ms, char ret[24])
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;

    if (wall_ms == 0 || localtime_r(&seconds, &tm) == NULL ||
        strftime(ret, 24, "%Y-%m-%d %H:%M:%S", &tm) == 0)
        strcpy(ret, "-");
}

void hp_table_span(int64_t ms, char ret[24])
{
    int64_t s = ms / 1000;

    if (ms < 0)
        strcpy(ret, "-");
    else if (ms < 10000)
        snprintf(ret, 24, "%.1f s", (double)ms / 1000);
    else if (s < 120)
        snprintf(ret, 24, "%lld s", (long long)s);
    else if (s < 7200)
        snprintf(ret, 24, "%lld min %02lld s", (long long)(s / 60), (long long)(s % 60));
    else if (s < 48 * 3600)
        snprintf(ret, 24, "%lld h %02lld min", (long long)(s / 3600),
                 (long long)(s / 60 % 60));
    else
        snprintf(ret, 24, "%lld days", (long long)(s / 86400));
}
