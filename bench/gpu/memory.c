/* NVML by hand: three functions of a stable interface. */
#include "bench/gpu/memory.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

typedef struct nvml_memory {
    unsigned long long total, free, used;
} nvml_memory;

typedef int nvml_init_fn(void);
typedef int nvml_device_fn(unsigned index, void **device);
typedef int nvml_memory_fn(void *device, nvml_memory *ret);

static void *device;
static nvml_memory_fn *memory_of;

static void *symbol(void *library, const char *name)
{
    return library != NULL ? dlsym(library, name) : NULL;
}

/* Functions out of objects: POSIX promises what C does not. */
static void open_nvml(void)
{
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    nvml_init_fn *init;
    nvml_device_fn *device_at;

    *(void **)&init = symbol(library, "nvmlInit_v2");
    *(void **)&device_at = symbol(library, "nvmlDeviceGetHandleByIndex_v2");
    *(void **)&memory_of = symbol(library, "nvmlDeviceGetMemoryInfo");
    if (init == NULL || device_at == NULL || memory_of == NULL || init() != 0 ||
        device_at(0, &device) != 0)
        memory_of = NULL;
}

double bench_gpu_used_mib(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    nvml_memory m;

    pthread_once(&once, open_nvml);
    if (memory_of == NULL || memory_of(device, &m) != 0)
        return -1;
    return (double)m.used / (1 << 20);
}

static pthread_t watcher;
static atomic_bool watching;
static double most;

static void *watch(void *nothing)
{
    const struct timespec pause = {.tv_nsec = 5 * 1000 * 1000};

    while (atomic_load(&watching)) {
        double now = bench_gpu_used_mib();

        most = now > most ? now : most;
        nanosleep(&pause, NULL);
    }
    return nothing;
}

void bench_gpu_watch(void)
{
    most = -1;
    atomic_store(&watching, true);
    if (pthread_create(&watcher, NULL, watch, NULL) != 0)
        atomic_store(&watching, false);
}

double bench_gpu_watched_mib(void)
{
    if (atomic_exchange(&watching, false))
        pthread_join(watcher, NULL);
    return most;
}
