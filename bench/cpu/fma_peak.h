/* What the cores can do at most in fp32: fused multiply-adds on registers alone. */
#ifndef HP_BENCH_FMA_PEAK_H
#define HP_BENCH_FMA_PEAK_H

/* GFLOP/s of `threads` cores, two for each multiply-add; best of several tries. */
double fma_peak(int threads);
/* "avx512f" "avx2": the instructions it used. */
const char *fma_peak_isa(void);

#endif
