/* The crash points. SIGKILL and not abort(): no handler, no flush, as a power
 * cut or an OOM killer would do it. */
#include "base/crash.h"

#ifdef HP_TEST_HOOKS
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/number.h"

void hp_crash_point(const char *name)
{
    static atomic_int passed;
    const char *want = getenv("HEPAR_CRASH_AT");
    size_t len = strlen(name);
    int64_t nth = 1;

    if (want == NULL || strncmp(want, name, len) != 0 ||
        (want[len] != '\0' && want[len] != ':'))
        return;
    if (want[len] == ':' && !hp_parse_i64(want + len + 1, &nth))
        return;
    if (atomic_fetch_add(&passed, 1) + 1 == (int)nth)
        kill(getpid(), SIGKILL);
}
#else
void hp_crash_point(const char *name)
{
    (void)name;
}
#endif
