/* Independent chains of fused multiply-adds, enough of them to hide the latency. */
#include "bench/cpu/fma_peak.h"

#include <omp.h>
#include <time.h>

enum { CHAINS = 16, ROUNDS = 1 << 20, TRIES = 9 };

typedef float v8 __attribute__((vector_size(32)));
typedef float v16 __attribute__((vector_size(64)));

/* The same loop for two vector lengths; the sum is returned so that it is made. */
#define CHAIN_LOOP(name, isa, vec, lanes)                                                \
    __attribute__((target(isa))) static float name(float seed)                           \
    {                                                                                    \
        vec a[CHAINS], k = {0}, sum = {0};                                               \
                                                                                         \
        for (int i = 0; i < (lanes); i++)                                                \
            k[i] = seed;                                                                 \
        for (int i = 0; i < CHAINS; i++)                                                 \
            a[i] = k + (float)i;                                                         \
        for (int r = 0; r < ROUNDS; r++)                                                 \
            for (int i = 0; i < CHAINS; i++)                                             \
                a[i] = a[i] * k + k;                                                     \
        for (int i = 0; i < CHAINS; i++)                                                 \
            sum += a[i];                                                                 \
        return sum[0];                                                                   \
    }

CHAIN_LOOP(chain8, "avx2,fma", v8, 8)
CHAIN_LOOP(chain16, "avx512f,prefer-vector-width=512", v16, 16)

static volatile float kept;

static int lanes(void)
{
    return __builtin_cpu_supports("avx512f") ? 16 : 8;
}

const char *fma_peak_isa(void)
{
    return lanes() == 16 ? "avx512f" : "avx2";
}

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double fma_peak(int threads)
{
    double best = 0;

    for (int i = 0; i < TRIES; i++) {
        double start = now_s(), rate;

#pragma omp parallel num_threads(threads)
        kept = lanes() == 16 ? chain16(.5f) : chain8(.5f);
        rate = 2.0 * threads * lanes() * CHAINS * ROUNDS / (now_s() - start) * 1e-9;
        best = rate > best ? rate : best;
    }
    return best;
}
