/* Notes of a back end, apart from backend.c because the CUDA module has them too. */
#include "inference/backend.h"

#include <stdarg.h>
#include <stdio.h>

void hp_backend_note(const hp_backend *b, const char *fmt, ...)
{
    char line[480];
    va_list args;

    if (b->opt.on_note == NULL)
        return;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    b->opt.on_note(line, b->opt.payload);
}
