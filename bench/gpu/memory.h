/* How full the first GPU's memory is, whoever fills it: NVML, loaded at run time, so
 * that these programs start without a driver. */
#ifndef HP_BENCH_GPU_MEMORY_H
#define HP_BENCH_GPU_MEMORY_H

#ifdef __cplusplus
extern "C" {
#endif

/* MiB in use; -1 where nobody can tell. */
double bench_gpu_used_mib(void);

/* A thread looks every few milliseconds until it is stopped. One at a time. */
void bench_gpu_watch(void);
/* The most it saw, MiB; -1: nothing. */
double bench_gpu_watched_mib(void);

#ifdef __cplusplus
}
#endif
#endif
