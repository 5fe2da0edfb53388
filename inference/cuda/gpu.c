/* The CUDA runtime behind gpu.h. */
#include "inference/cuda/gpu.h"

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>

struct hp_gpu {
    cudaStream_t stream;
    cudaEvent_t start, stop;
    char name[64];
    int sm, driver;
};

struct hp_gpu_graph {
    cudaGraphExec_t exec;
};

static hp_code translate(hp_error *reterr, cudaError_t e, const char *what)
{
    hp_code code = HP_E_DEVICE;

    if (e == cudaSuccess)
        return HP_OK;
    if (e == cudaErrorMemoryAllocation) {
        code = HP_E_NO_MEMORY;
        (void)cudaGetLastError(); /* told; the next call starts clean */
    }
    return hp_fail(reterr, code, "CUDA: %s: %s", what, cudaGetErrorString(e));
}

/* No driver, no device, a device in another's exclusive use: all the same to who
 * asks for one. */
static hp_code no_gpu(hp_error *reterr, cudaError_t e)
{
    (void)cudaGetLastError();
    return hp_fail(reterr, HP_E_UNSUPPORTED, "no GPU: %s", cudaGetErrorString(e));
}

static hp_code look_at_device(hp_gpu *g, hp_error *reterr)
{
    struct cudaDeviceProp p;
    int count = 0;
    cudaError_t e = cudaGetDeviceCount(&count);

    if (e == cudaSuccess && count == 0)
        e = cudaErrorNoDevice;
    if (e == cudaSuccess)
        e = cudaSetDevice(0);
    if (e == cudaSuccess)
        e = cudaGetDeviceProperties(&p, 0);
    if (e == cudaSuccess)
        e = cudaDriverGetVersion(&g->driver);
    if (e != cudaSuccess)
        return no_gpu(reterr, e);
    snprintf(g->name, sizeof g->name, "%.63s", p.name);
    g->sm = p.major * 10 + p.minor;
    if (g->sm < HP_GPU_SM_OLDEST)
        return hp_fail(reterr, HP_E_UNSUPPORTED,
                       "GPU %s has compute capability %d.%d, %d.%d is needed", g->name,
                       p.major, p.minor, HP_GPU_SM_OLDEST / 10, HP_GPU_SM_OLDEST % 10);
    return HP_OK;
}

hp_code hp_gpu_open(hp_gpu **ret, hp_error *reterr)
{
    hp_auto(hp_gpu) *g = calloc(1, sizeof *g);
    cudaError_t e;
    hp_code r;

    if (g == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "GPU");
    r = look_at_device(g, reterr);
    if (r != HP_OK)
        return r;
    e = cudaStreamCreateWithFlags(&g->stream, cudaStreamNonBlocking);
    if (e == cudaSuccess)
        e = cudaEventCreate(&g->start);
    if (e == cudaSuccess)
        e = cudaEventCreate(&g->stop);
    if (e != cudaSuccess)
        return no_gpu(reterr, e);
    *ret = hp_steal(&g);
    return HP_OK;
}

void hp_gpu_close(hp_gpu *g)
{
    if (g == NULL)
        return;
    if (g->start != NULL)
        cudaEventDestroy(g->start);
    if (g->stop != NULL)
        cudaEventDestroy(g->stop);
    if (g->stream != NULL)
        cudaStreamDestroy(g->stream);
    free(g);
}

const char *hp_gpu_name(const hp_gpu *g)
{
    return g->name;
}

int hp_gpu_sm(const hp_gpu *g)
{
    return g->sm;
}

int hp_gpu_driver(const hp_gpu *g)
{
    return g->driver;
}

hp_stream hp_gpu_stream(const hp_gpu *g)
{
    return g->stream;
}

/* --- memory ------------------------------------------------------------ */

hp_code hp_gpu_alloc(hp_gpu *g, size_t bytes, void **ret, hp_error *reterr)
{
    char what[48];

    (void)g;
    snprintf(what, sizeof what, "%zu MiB on the device", (bytes >> 20) + 1);
    return translate(reterr, cudaMalloc(ret, bytes), what);
}

void hp_gpu_free(hp_gpu *g, void *p)
{
    (void)g;
    if (p != NULL)
        cudaFree(p);
}

hp_code hp_gpu_host_alloc(hp_gpu *g, size_t bytes, void **ret, hp_error *reterr)
{
    (void)g;
    return translate(reterr, cudaMallocHost(ret, bytes), "pinned memory");
}

void hp_gpu_host_free(hp_gpu *g, void *p)
{
    (void)g;
    if (p != NULL)
        cudaFreeHost(p);
}

static hp_code copy(hp_gpu *g, void *to, const void *from, size_t bytes,
                    enum cudaMemcpyKind kind, const char *what, hp_error *reterr)
{
    return translate(reterr, cudaMemcpyAsync(to, from, bytes, kind, g->stream), what);
}

hp_code hp_gpu_upload(hp_gpu *g, void *to, const void *from, size_t bytes,
                      hp_error *reterr)
{
    return copy(g, to, from, bytes, cudaMemcpyHostToDevice, "upload", reterr);
}

hp_code hp_gpu_download(hp_gpu *g, void *to, const void *from, size_t bytes,
                        hp_error *reterr)
{
    return copy(g, to, from, bytes, cudaMemcpyDeviceToHost, "download", reterr);
}

hp_code hp_gpu_copy(hp_gpu *g, void *to, const void *from, size_t bytes, hp_error *reterr)
{
    return copy(g, to, from, bytes, cudaMemcpyDeviceToDevice, "copy", reterr);
}

hp_code hp_gpu_fill(hp_gpu *g, void *p, int byte, size_t bytes, hp_error *reterr)
{
    return translate(reterr, cudaMemsetAsync(p, byte, bytes, g->stream), "fill");
}

hp_code hp_gpu_wait(hp_gpu *g, hp_error *reterr)
{
    return translate(reterr, cudaStreamSynchronize(g->stream), "waiting");
}

/* --- captured work ----------------------------------------------------- */

hp_code hp_gpu_capture_begin(hp_gpu *g, hp_error *reterr)
{
    /* thread-local: another thread's allocation is none of this capture's business */
    return translate(reterr,
                     cudaStreamBeginCapture(g->stream, cudaStreamCaptureModeThreadLocal),
                     "capture");
}

hp_code hp_gpu_capture_end(hp_gpu *g, bool failed, hp_gpu_graph **ret, hp_error *reterr)
{
    cudaGraph_t noted = NULL;
    cudaError_t e = cudaStreamEndCapture(g->stream, &noted);
    hp_gpu_graph *graph = NULL;

    if (e == cudaSuccess && !failed)
        graph = calloc(1, sizeof *graph);
    if (graph != NULL)
        e = cudaGraphInstantiate(&graph->exec, noted, 0);
    if (noted != NULL)
        cudaGraphDestroy(noted);
    if (graph != NULL && e == cudaSuccess) {
        *ret = graph;
        return HP_OK;
    }
    free(graph);
    (void)cudaGetLastError(); /* a capture that broke leaves the device usable */
    return hp_fail(reterr, HP_E_UNSUPPORTED, "CUDA: capture: %s",
                   e != cudaSuccess ? cudaGetErrorString(e) : "given up");
}

hp_code hp_gpu_replay(hp_gpu *g, hp_gpu_graph *graph, hp_error *reterr)
{
    return translate(reterr, cudaGraphLaunch(graph->exec, g->stream), "replay");
}

void hp_gpu_graph_free(hp_gpu_graph *graph)
{
    if (graph == NULL)
        return;
    cudaGraphExecDestroy(graph->exec);
    free(graph);
}

/* --- time -------------------------------------------------------------- */

hp_code hp_gpu_start_watch(hp_gpu *g, hp_error *reterr)
{
    return translate(reterr, cudaEventRecord(g->start, g->stream), "stop-watch");
}

hp_code hp_gpu_stop_watch(hp_gpu *g, float *ret_ms, hp_error *reterr)
{
    cudaError_t e = cudaEventRecord(g->stop, g->stream);

    if (e == cudaSuccess)
        e = cudaEventSynchronize(g->stop);
    if (e == cudaSuccess)
        e = cudaEventElapsedTime(ret_ms, g->start, g->stop);
    return translate(reterr, e, "stop-watch");
}
