/* Named points where a test can make the process die by SIGKILL, to see that
 * what was promised survives: HEPAR_CRASH_AT=name[:n] kills at the n-th pass
 * (default 1). Compiled in always; the variable is looked at only in builds
 * with -Dtest_hooks=true. */
#ifndef HP_BASE_CRASH_H
#define HP_BASE_CRASH_H

#ifdef __cplusplus
extern "C" {
#endif

void hp_crash_point(const char *name);

#ifdef __cplusplus
}
#endif
#endif
