/* GPUs as cuDNN is told of them where there is none. The figures are those of the
 * vendor's tables (SMs, shared memory, L2, width of the memory's bus), not dumps of
 * real devices: they decide which engines exist, which is what is asked, and may shift
 * what the heuristics put first. cuDNN passes over keys that it does not know, and
 * newer versions ask for more of them (9.28: memoryBusWidth). */
#ifndef HP_TESTS_INFERENCE_DESCRIBED_GPUS_H
#define HP_TESTS_INFERENCE_DESCRIBED_GPUS_H

#include <stdio.h>

typedef struct described_gpu {
    const char *name;
    int version, sms, shared_kib, threads, l2_mib, bus_bits;
} described_gpu;

static const described_gpu DESCRIBED_GPUS[] = {
    {"SM 8.0", 800, 108, 163, 2048, 40, 5120},
    {"SM 8.6", 860, 84, 99, 1536, 6, 384},
    {"SM 8.9", 890, 142, 99, 1536, 72, 384},
    {"SM 9.0", 900, 132, 227, 2048, 50, 5120},
    {"SM 10.0", 1000, 148, 227, 2048, 126, 8192},
    {"SM 12.0", 1200, 188, 99, 1536, 128, 512},
};
enum { DESCRIBED_GPU_COUNT = sizeof DESCRIBED_GPUS / sizeof *DESCRIBED_GPUS };

static inline void described_gpu_json(const described_gpu *g, char *ret, size_t size)
{
    snprintf(
        ret, size,
        "{\"version\":1,\"deviceName\":\"described\",\"deviceVer\":%d,\"cudaDeviceId\":0,"
        "\"driverVer\":13000,\"isTccDriver\":0,\"supportCoopLaunch\":1,\"pciDeviceId\":0,"
        "\"multiProcessorCount\":%d,\"maxSharedMemoryPerBlock\":49152,"
        "\"maxSharedMemoryPerBlockOptin\":%d,\"reservedSharedMemoryPerBlock\":1024,"
        "\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":%d,\"maxCtasPerSM\":24,"
        "\"maxRegistersPerSM\":65536,\"regsPerBlock\":65536,\"warpSize\":32,"
        "\"l2CacheSize\":%d,\"totalGlobalMem\":24000000000,\"memoryBusWidth\":%d,"
        "\"memClockRateKHz\":2000000,"
        "\"smClockRateKHz\":1700000,\"maxGridSize\":[2147483647,65535,65535],"
        "\"maxBlockSize\":[1024,1024,64]}",
        g->version, g->sms, g->shared_kib << 10, g->threads, g->l2_mib << 20,
        g->bus_bits);
}

#endif
