/* One GPU as the back end needs it: memory, copies, one stream, captured work.
 *
 * The house's only calls of the CUDA runtime outside kernels/ stand in gpu.c, and
 * tests put host memory in its place, so that everything above it runs without a
 * GPU. All work goes to one stream, in order; only hp_gpu_wait() and the functions
 * that say so wait for it. HP_E_DEVICE: the process cannot use the GPU any more.
 */
#ifndef HP_INFERENCE_CUDA_GPU_H
#define HP_INFERENCE_CUDA_GPU_H

#include "base/auto.h"
#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_gpu hp_gpu;
typedef struct hp_gpu_graph hp_gpu_graph; /* captured work */

/* The oldest generation that kernels/ is compiled for. */
enum { HP_GPU_SM_OLDEST = 80 };

/* The first device. HP_E_UNSUPPORTED says why there is none that serves. */
hp_code hp_gpu_open(hp_gpu **ret, hp_error *reterr);
void hp_gpu_close(hp_gpu *g);
HP_AUTO_DEFINE(hp_gpu, hp_gpu_close)

const char *hp_gpu_name(const hp_gpu *g); /* "NVIDIA H100 80GB HBM3" */
int hp_gpu_sm(const hp_gpu *g);           /* 90 */
int hp_gpu_driver(const hp_gpu *g);       /* 13000 */
hp_stream hp_gpu_stream(const hp_gpu *g);

/* HP_E_NO_MEMORY leaves the device as it was. Freeing waits for the stream. */
hp_code hp_gpu_alloc(hp_gpu *g, size_t bytes, void **ret, hp_error *reterr);
void hp_gpu_free(hp_gpu *g, void *p);
/* Host memory that copies run from without a detour. */
hp_code hp_gpu_host_alloc(hp_gpu *g, size_t bytes, void **ret, hp_error *reterr);
void hp_gpu_host_free(hp_gpu *g, void *p);

hp_code hp_gpu_upload(hp_gpu *g, void *to, const void *from, size_t bytes,
                      hp_error *reterr);
hp_code hp_gpu_download(hp_gpu *g, void *to, const void *from, size_t bytes,
                        hp_error *reterr);
hp_code hp_gpu_copy(hp_gpu *g, void *to, const void *from, size_t bytes,
                    hp_error *reterr);
/* Every byte becomes `byte`. */
hp_code hp_gpu_fill(hp_gpu *g, void *p, int byte, size_t bytes, hp_error *reterr);
hp_code hp_gpu_wait(hp_gpu *g, hp_error *reterr);

/* Between begin and end work is noted, not done. HP_E_UNSUPPORTED: this work or
 * device does not allow it; the work can still be queued directly. */
hp_code hp_gpu_capture_begin(hp_gpu *g, hp_error *reterr);
/* Ends a capture also where one of its calls failed: give it `failed`. */
hp_code hp_gpu_capture_end(hp_gpu *g, bool failed, hp_gpu_graph **ret, hp_error *reterr);
hp_code hp_gpu_replay(hp_gpu *g, hp_gpu_graph *graph, hp_error *reterr);
void hp_gpu_graph_free(hp_gpu_graph *graph);

/* Stop-watch on the stream; stop waits and gives milliseconds. */
hp_code hp_gpu_start_watch(hp_gpu *g, hp_error *reterr);
hp_code hp_gpu_stop_watch(hp_gpu *g, float *ret_ms, hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
