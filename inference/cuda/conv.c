/* The house's only cuDNN calls. A backend descriptor is made, given attributes
 * and finalized; others refer to it, so a layer keeps all of its own in one bag
 * and destroys them together, last first. */
#include "inference/cuda/conv.h"

#include <cudnn.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/path.h"

enum { BAG = 32, CANDIDATES = 12, ASKED = 24, ALIGNMENT = 16 };
enum { UID_X = 1, UID_W, UID_Z, UID_BIAS, UID_Y, UID_VIRTUAL };

typedef cudnnBackendDescriptor_t desc;

struct hp_cudnn {
    cudnnHandle_t handle; /* NULL: described */
    desc properties;
};

typedef struct candidate {
    hp_engine engine;
    desc config, plan;
    desc parts[HP_ENGINE_KNOBS + 1]; /* engine and knobs of a rebuilt config */
    int part_count;
    size_t workspace_bytes;
} candidate;

struct hp_cudnn_conv {
    hp_cudnn *c;
    hp_layer layer;
    desc bag[BAG];
    int count;
    desc graph;
    candidate candidate[CANDIDATES];
    int candidates;
    int next_uid;
};

static hp_code translate(hp_error *reterr, cudnnStatus_t s, const char *where)
{
    hp_code code = HP_E_DEVICE;
    char words[128] = "";

    if (s == CUDNN_STATUS_SUCCESS)
        return HP_OK;
    if (CUDNN_STATUS_CATEGORY(s) == CUDNN_STATUS_NOT_SUPPORTED ||
        s == CUDNN_STATUS_SUBLIBRARY_LOADING_FAILED ||
        s == CUDNN_STATUS_SUBLIBRARY_VERSION_MISMATCH)
        code = HP_E_UNSUPPORTED;
    if (s == CUDNN_STATUS_ALLOC_FAILED ||
        s == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ||
        s == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED)
        code = HP_E_NO_MEMORY;
    cudnnGetLastErrorString(words, sizeof words);
    words[strcspn(words, "\n")] = '\0'; /* one line of a log, at most */
    return hp_fail(reterr, code, "cuDNN: %s: %s%s%s", where, cudnnGetErrorString(s),
                   words[0] != '\0' ? ": " : "", words);
}

/* --- opening ----------------------------------------------------------- */

size_t hp_cudnn_version(void)
{
    return cudnnGetVersion();
}

hp_code hp_cudnn_check_version(size_t version, hp_error *reterr)
{
    if (version >= HP_CUDNN_OLDEST)
        return HP_OK;
    return hp_fail(reterr, HP_E_UNSUPPORTED,
                   "cuDNN %zu.%zu.%zu computes some 3D convolutions wrong: 9.15 or newer "
                   "is needed",
                   version / 10000, version / 100 % 100, version % 100);
}

/* cuDNN opens cuBLASLt when it first needs it, and ends the process where that
 * is missing. So it is opened here, where an error can be returned: by its name,
 * and where wheels put it beside cuDNN. It stays. */
static hp_code open_cublas(hp_error *reterr)
{
    int cuda = (int)(cudnnGetCudartVersion() / 1000);
    char path[HP_PATH_MAX], dir[HP_PATH_MAX];
    Dl_info self;

    snprintf(path, sizeof path, "libcublasLt.so.%d", cuda);
    if (dlopen(path, RTLD_NOW | RTLD_LOCAL) != NULL)
        return HP_OK;
    if (dladdr(dlsym(RTLD_DEFAULT, "cudnnGetVersion"), &self) != 0 &&
        self.dli_fname != NULL && strrchr(self.dli_fname, '/') != NULL) {
        snprintf(dir, sizeof dir, "%.*s",
                 (int)(strrchr(self.dli_fname, '/') - self.dli_fname), self.dli_fname);
        if (hp_path_fmt(path, NULL, "%s/../../cu%d/lib/libcublasLt.so.%d", dir, cuda,
                        cuda) == HP_OK &&
            dlopen(path, RTLD_NOW | RTLD_LOCAL) != NULL)
            return HP_OK;
        if (hp_path_fmt(path, NULL, "%s/../../cublas/lib/libcublasLt.so.%d", dir, cuda) ==
                HP_OK &&
            dlopen(path, RTLD_NOW | RTLD_LOCAL) != NULL)
            return HP_OK;
    }
    return hp_fail(reterr, HP_E_UNSUPPORTED, "cuDNN needs libcublasLt.so.%d", cuda);
}

static hp_code new_cudnn(hp_cudnn **ret, hp_error *reterr)
{
    hp_code r = hp_cudnn_check_version(hp_cudnn_version(), reterr);
    hp_cudnn *c;

    if (r == HP_OK)
        r = open_cublas(reterr);
    if (r != HP_OK)
        return r;
    c = calloc(1, sizeof *c);
    if (c == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "cuDNN");
    *ret = c;
    return HP_OK;
}

hp_code hp_cudnn_open(void *stream, hp_cudnn **ret, hp_error *reterr)
{
    hp_auto(hp_cudnn) *c = NULL;
    hp_code r = new_cudnn(&c, reterr);

    if (r == HP_OK)
        r = translate(reterr, cudnnCreate(&c->handle), "handle");
    if (r == HP_OK)
        r = translate(reterr, cudnnSetStream(c->handle, stream), "stream");
    if (r == HP_OK)
        *ret = hp_steal(&c);
    return r;
}

hp_code hp_cudnn_open_described(const char *json, hp_cudnn **ret, hp_error *reterr)
{
    hp_auto(hp_cudnn) *c = NULL;
    cudnnStatus_t s;
    hp_code r = new_cudnn(&c, reterr);

    if (r != HP_OK)
        return r;
    s = cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &c->properties);
    if (s == CUDNN_STATUS_SUCCESS)
        s = cudnnBackendSetAttribute(c->properties,
                                     CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                     CUDNN_TYPE_CHAR, (int64_t)strlen(json) + 1, json);
    if (s == CUDNN_STATUS_SUCCESS)
        s = cudnnBackendFinalize(c->properties);
    r = translate(reterr, s, "properties of a device");
    if (r == HP_OK)
        *ret = hp_steal(&c);
    return r;
}

void hp_cudnn_close(hp_cudnn *c)
{
    if (c == NULL)
        return;
    if (c->properties != NULL)
        cudnnBackendDestroyDescriptor(c->properties);
    if (c->handle != NULL)
        cudnnDestroy(c->handle);
    free(c);
}

/* --- a layer as an operation graph ------------------------------------- */

/* The first failure of a row of calls sticks: the calls read as a list. */
typedef struct making {
    hp_cudnn_conv *v;
    cudnnStatus_t s;
    const char *where;
} making;

static void note(making *m, cudnnStatus_t s, const char *where)
{
    if (m->s == CUDNN_STATUS_SUCCESS && s != CUDNN_STATUS_SUCCESS) {
        m->s = s;
        m->where = where;
    }
}

static desc make(making *m, cudnnBackendDescriptorType_t type)
{
    desc d = NULL;

    if (m->s != CUDNN_STATUS_SUCCESS)
        return NULL;
    if (m->v->count == BAG) {
        note(m, CUDNN_STATUS_INTERNAL_ERROR, "descriptors");
        return NULL;
    }
    note(m, cudnnBackendCreateDescriptor(type, &d), "descriptor");
    if (m->s == CUDNN_STATUS_SUCCESS)
        m->v->bag[m->v->count++] = d;
    return d;
}

static void set(making *m, desc d, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t count, const void *value)
{
    if (m->s == CUDNN_STATUS_SUCCESS)
        note(m, cudnnBackendSetAttribute(d, name, type, count, value), "attribute");
}

static void set_int(making *m, desc d, cudnnBackendAttributeName_t name, int64_t value)
{
    set(m, d, name, CUDNN_TYPE_INT64, 1, &value);
}

static void set_desc(making *m, desc d, cudnnBackendAttributeName_t name, desc value)
{
    set(m, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void finish(making *m, desc d, const char *what)
{
    if (m->s == CUDNN_STATUS_SUCCESS)
        note(m, cudnnBackendFinalize(d), what);
}

static cudnnDataType_t type_of(const hp_layer *l)
{
    return l->type == HP_F16 ? CUDNN_DATA_HALF : CUDNN_DATA_BFLOAT16;
}

/* n (batch or output channels), c, z, y, x with channels last; a virtual tensor
 * lives in the engine's registers, in fp32. */
static desc tensor(making *m, int uid, int n, int c, const int size[3])
{
    const hp_layer *l = &m->v->layer;
    bool is_virtual = uid >= UID_VIRTUAL;
    cudnnDataType_t type = is_virtual ? CUDNN_DATA_FLOAT : type_of(l);
    int64_t dim[5] = {n, c}, stride[5] = {0, 1}, run = c;
    desc d = make(m, CUDNN_BACKEND_TENSOR_DESCRIPTOR);

    for (int a = l->nd - 1; a >= 0; a--) {
        dim[2 + a] = size[a + 3 - l->nd];
        stride[2 + a] = run;
        run *= dim[2 + a];
    }
    stride[0] = run;
    set(m, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(m, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 2 + l->nd, dim);
    set(m, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 2 + l->nd, stride);
    set_int(m, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, uid);
    set_int(m, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, ALIGNMENT);
    if (is_virtual)
        set(m, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
    finish(m, d, "tensor");
    return d;
}

static desc convolution(making *m, desc x, desc w, desc y)
{
    const hp_layer *l = &m->v->layer;
    const cudnnDataType_t sum = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const float one = 1, zero = 0;
    int64_t dilation[3], stride[3], pad[3];
    desc how = make(m, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    desc op = make(m, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);

    for (int a = 0; a < l->nd; a++) {
        dilation[a] = l->dilation[a + 3 - l->nd];
        stride[a] = l->stride[a + 3 - l->nd];
        pad[a] = l->pad[a + 3 - l->nd];
    }
    set(m, how, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &sum);
    set(m, how, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set_int(m, how, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, l->nd);
    set(m, how, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, l->nd, dilation);
    set(m, how, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, l->nd, stride);
    set(m, how, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, l->nd, pad);
    set(m, how, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, l->nd, pad);
    finish(m, how, "convolution");
    set_desc(m, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, how);
    set_desc(m, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x);
    set_desc(m, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, w);
    set_desc(m, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, y);
    set(m, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &one);
    set(m, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &zero);
    finish(m, op, "convolution's operation");
    return op;
}

/* y = x + b, or y = relu(x) where b is NULL. */
static desc pointwise(making *m, desc x, desc b, desc y)
{
    const cudnnPointwiseMode_t mode =
        b != NULL ? CUDNN_POINTWISE_ADD : CUDNN_POINTWISE_RELU_FWD;
    const cudnnDataType_t sum = CUDNN_DATA_FLOAT;
    desc how = make(m, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    desc op = make(m, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);

    set(m, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    set(m, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &sum);
    finish(m, how, "pointwise");
    set_desc(m, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    set_desc(m, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    if (b != NULL)
        set_desc(m, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    set_desc(m, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    finish(m, op, "pointwise operation");
    return op;
}

/* The result of one more operation: y itself when it is the last one. */
static desc result(making *m, int left)
{
    const hp_layer *l = &m->v->layer;

    return tensor(m, left == 0 ? UID_Y : m->v->next_uid++, l->batch, l->cout, l->y);
}

static void describe(making *m)
{
    const hp_layer *l = &m->v->layer;
    static const int ONE[3] = {1, 1, 1};
    int left = l->add + l->bias + l->relu;
    int64_t count = 0;
    desc op[4], x = tensor(m, UID_X, l->batch, l->cin, l->x), w, y, b, graph;

    w = tensor(m, UID_W, l->cout, l->cin, l->k);
    y = result(m, left);
    op[count++] = convolution(m, x, w, y);
    for (int i = 0; i < 2; i++) { /* the added value, then the bias */
        if (!(i == 0 ? l->add : l->bias))
            continue;
        b = i == 0 ? tensor(m, UID_Z, l->batch, l->cout, l->y)
                   : tensor(m, UID_BIAS, 1, l->cout, ONE);
        x = y;
        y = result(m, --left);
        op[count++] = pointwise(m, x, b, y);
    }
    if (l->relu) {
        x = y;
        y = result(m, --left);
        op[count++] = pointwise(m, x, NULL, y);
    }
    graph = make(m, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set(m, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count,
        op);
    if (m->v->c->handle != NULL)
        set(m, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1,
            &m->v->c->handle);
    finish(m, graph, "operation graph");
    m->v->graph = graph;
}

/* "layer KEY: " in front of what failed. */
static hp_code about(const hp_cudnn_conv *v, hp_code r, hp_error *reterr)
{
    char key[HP_LAYER_KEY];

    return hp_wrap(reterr, r, "layer %s", hp_layer_key(&v->layer, key));
}

hp_code hp_cudnn_conv_new(hp_cudnn *c, const hp_layer *l, hp_cudnn_conv **ret,
                          hp_error *reterr)
{
    hp_auto(hp_cudnn_conv) *v = calloc(1, sizeof *v);
    making m = {.v = v, .s = CUDNN_STATUS_SUCCESS, .where = ""};

    if (v == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "layer");
    v->c = c;
    v->layer = *l;
    v->next_uid = UID_VIRTUAL;
    describe(&m);
    if (m.s != CUDNN_STATUS_SUCCESS)
        return about(v, translate(reterr, m.s, m.where), reterr);
    *ret = hp_steal(&v);
    return HP_OK;
}

static void drop(candidate *k)
{
    if (k->plan != NULL)
        cudnnBackendDestroyDescriptor(k->plan);
    if (k->config != NULL)
        cudnnBackendDestroyDescriptor(k->config);
    while (k->part_count > 0)
        cudnnBackendDestroyDescriptor(k->parts[--k->part_count]);
    *k = (candidate){0};
}

void hp_cudnn_conv_free(hp_cudnn_conv *v)
{
    if (v == NULL)
        return;
    for (int i = 0; i < v->candidates; i++)
        drop(&v->candidate[i]);
    while (v->count > 0)
        cudnnBackendDestroyDescriptor(v->bag[--v->count]);
    free(v);
}

/* --- engines and plans ------------------------------------------------- */

static int64_t get_int(desc d, cudnnBackendAttributeName_t name)
{
    int64_t value = 0, count = 0;

    if (cudnnBackendGetAttribute(d, name, CUDNN_TYPE_INT64, 1, &count, &value) !=
        CUDNN_STATUS_SUCCESS)
        return -1;
    return value;
}

/* A knob's type and value; false when cuDNN does not say. */
static bool read_knob(desc d, int *ret_type, int64_t *ret_value)
{
    cudnnBackendKnobType_t type;
    int64_t count = 0;

    if (cudnnBackendGetAttribute(d, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE,
                                 CUDNN_TYPE_KNOB_TYPE, 1, &count,
                                 &type) != CUDNN_STATUS_SUCCESS)
        return false;
    *ret_type = (int)type;
    *ret_value = get_int(d, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE);
    return true;
}

static bool read_knobs(desc config, hp_engine *ret)
{
    desc knob[HP_ENGINE_KNOBS] = {0};
    int64_t count = 0;
    int made = 0;
    bool ok = true;

    while (made < HP_ENGINE_KNOBS &&
           cudnnBackendCreateDescriptor(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR,
                                        &knob[made]) == CUDNN_STATUS_SUCCESS)
        made++;
    ok = cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
                                  CUDNN_TYPE_BACKEND_DESCRIPTOR, made, &count,
                                  knob) == CUDNN_STATUS_SUCCESS &&
         count <= made;
    for (int i = 0; ok && i < count; i++)
        ok = read_knob(knob[i], &ret->knob[i].type, &ret->knob[i].value);
    ret->knobs = ok ? (int)count : 0;
    while (made > 0)
        cudnnBackendDestroyDescriptor(knob[--made]);
    return ok;
}

/* Not wanted: what compiles when the study waits, sums in halves, or gives
 * another result each time. */
static bool may_serve(desc engine)
{
    cudnnBackendBehaviorNote_t behavior[16];
    cudnnBackendNumericalNote_t numeric[32];
    int64_t count = 0;

    if (cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE,
                                 CUDNN_TYPE_BEHAVIOR_NOTE, 16, &count,
                                 behavior) != CUDNN_STATUS_SUCCESS)
        return false;
    for (int64_t i = 0; i < count && i < 16; i++)
        if (behavior[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION)
            return false;
    if (cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                 CUDNN_TYPE_NUMERICAL_NOTE, 32, &count,
                                 numeric) != CUDNN_STATUS_SUCCESS)
        return false;
    for (int64_t i = 0; i < count && i < 32; i++)
        if (numeric[i] != CUDNN_NUMERICAL_NOTE_TENSOR_CORE &&
            numeric[i] != CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP)
            return false;
    return true;
}

static bool read_engine(desc config, hp_engine *ret)
{
    desc engine = NULL;
    int64_t count = 0;
    bool ok;

    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) !=
        CUDNN_STATUS_SUCCESS)
        return false;
    ok = cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                  CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count,
                                  &engine) == CUDNN_STATUS_SUCCESS &&
         may_serve(engine);
    ret->index = ok ? get_int(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX) : -1;
    cudnnBackendDestroyDescriptor(engine);
    return ok && ret->index >= 0 && read_knobs(config, ret);
}

static cudnnStatus_t make_plan(hp_cudnn_conv *v, candidate *k)
{
    cudnnStatus_t s =
        cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &k->plan);
    int64_t bytes;

    if (s == CUDNN_STATUS_SUCCESS && v->c->handle != NULL)
        s = cudnnBackendSetAttribute(k->plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE,
                                     CUDNN_TYPE_HANDLE, 1, &v->c->handle);
    else if (s == CUDNN_STATUS_SUCCESS)
        s = cudnnBackendSetAttribute(k->plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP,
                                     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &v->c->properties);
    if (s == CUDNN_STATUS_SUCCESS)
        s = cudnnBackendSetAttribute(k->plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &k->config);
    if (s == CUDNN_STATUS_SUCCESS)
        s = cudnnBackendFinalize(k->plan);
    if (s == CUDNN_STATUS_SUCCESS) {
        bytes = get_int(k->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE);
        k->workspace_bytes = bytes > 0 ? (size_t)bytes : 0;
    }
    return s;
}

static bool same_engine(const hp_engine *a, const hp_engine *b)
{
    if (a->index != b->index || a->knobs != b->knobs)
        return false;
    for (int i = 0; i < a->knobs; i++)
        if (a->knob[i].type != b->knob[i].type || a->knob[i].value != b->knob[i].value)
            return false;
    return true;
}

static bool have(const hp_cudnn_conv *v, const hp_engine *e)
{
    for (int i = 0; i < v->candidates; i++)
        if (same_engine(&v->candidate[i].engine, e))
            return true;
    return false;
}

/* What one heuristic proposes, as configurations that are the caller's. */
static int64_t propose(hp_cudnn_conv *v, cudnnBackendHeurMode_t mode, desc ret[ASKED],
                       int *ret_made)
{
    desc heur = NULL;
    int64_t count = 0;
    cudnnStatus_t s =
        cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heur);

    if (s == CUDNN_STATUS_SUCCESS)
        s = cudnnBackendSetAttribute(heur, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
                                     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &v->graph);
    if (s == CUDNN_STATUS_SUCCESS)
        s = cudnnBackendSetAttribute(heur, CUDNN_ATTR_ENGINEHEUR_MODE,
                                     CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (s == CUDNN_STATUS_SUCCESS && v->c->handle == NULL)
        s = cudnnBackendSetAttribute(heur, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP,
                                     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &v->c->properties);
    if (s == CUDNN_STATUS_SUCCESS)
        s = cudnnBackendFinalize(heur);
    *ret_made = 0;
    while (s == CUDNN_STATUS_SUCCESS && *ret_made < ASKED &&
           cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR,
                                        &ret[*ret_made]) == CUDNN_STATUS_SUCCESS)
        ++*ret_made;
    if (s == CUDNN_STATUS_SUCCESS)
        s = cudnnBackendGetAttribute(heur, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                     CUDNN_TYPE_BACKEND_DESCRIPTOR, *ret_made, &count,
                                     ret);
    if (heur != NULL)
        cudnnBackendDestroyDescriptor(heur);
    if (s != CUDNN_STATUS_SUCCESS)
        return 0;
    return count < *ret_made ? count : *ret_made;
}

static void consider(hp_cudnn_conv *v, cudnnBackendHeurMode_t mode, int max)
{
    desc config[ASKED] = {0};
    int made = 0;
    int64_t count = propose(v, mode, config, &made);

    for (int64_t i = 0; i < count && v->candidates < max; i++) {
        candidate k = {.config = config[i]};

        if (!read_engine(k.config, &k.engine) || have(v, &k.engine))
            continue;
        config[i] = NULL; /* the candidate's now */
        if (make_plan(v, &k) == CUDNN_STATUS_SUCCESS)
            v->candidate[v->candidates++] = k;
        else
            drop(&k);
    }
    for (int i = 0; i < made; i++)
        if (config[i] != NULL)
            cudnnBackendDestroyDescriptor(config[i]);
}

hp_code hp_cudnn_conv_ask(hp_cudnn_conv *v, int max, int *ret_count, hp_error *reterr)
{
    max = max < CANDIDATES ? max : CANDIDATES;
    consider(v, CUDNN_HEUR_MODE_A, max);
    if (v->candidates < max)
        consider(v, CUDNN_HEUR_MODE_FALLBACK, max);
    if (v->candidates == 0)
        return about(v, hp_fail(reterr, HP_E_UNSUPPORTED, "no precompiled engine"),
                     reterr);
    *ret_count = v->candidates;
    return HP_OK;
}

const hp_engine *hp_cudnn_conv_engine(const hp_cudnn_conv *v, int i)
{
    return &v->candidate[i].engine;
}

size_t hp_cudnn_conv_workspace(const hp_cudnn_conv *v, int i)
{
    return v->candidate[i].workspace_bytes;
}

void hp_cudnn_conv_strike(hp_cudnn_conv *v, int i)
{
    drop(&v->candidate[i]);
    v->candidates--;
    memmove(&v->candidate[i], &v->candidate[i + 1],
            (size_t)(v->candidates - i) * sizeof v->candidate[0]);
    v->candidate[v->candidates] = (candidate){0};
}

static desc part(candidate *k, cudnnStatus_t *s, cudnnBackendDescriptorType_t type)
{
    desc d = NULL;

    if (*s == CUDNN_STATUS_SUCCESS)
        *s = cudnnBackendCreateDescriptor(type, &d);
    if (*s == CUDNN_STATUS_SUCCESS)
        k->parts[k->part_count++] = d;
    return d;
}

static cudnnStatus_t rebuild_config(hp_cudnn_conv *v, candidate *k)
{
    const hp_engine *e = &k->engine;
    cudnnStatus_t s = CUDNN_STATUS_SUCCESS;
    desc engine = part(k, &s, CUDNN_BACKEND_ENGINE_DESCRIPTOR);

    if (s == CUDNN_STATUS_SUCCESS)
        s = cudnnBackendSetAttribute(engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH,
                                     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &v->graph);
    if (s == CUDNN_STATUS_SUCCESS)
        s = cudnnBackendSetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX,
                                     CUDNN_TYPE_INT64, 1, &e->index);
    if (s == CUDNN_STATUS_SUCCESS && v->c->handle == NULL)
        s = cudnnBackendSetAttribute(engine, CUDNN_ATTR_ENGINE_DEVICEPROP,
                                     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &v->c->properties);
    if (s == CUDNN_STATUS_SUCCESS)
        s = cudnnBackendFinalize(engine);
    for (int i = 0; i < e->knobs && s == CUDNN_STATUS_SUCCESS; i++) {
        cudnnBackendKnobType_t type = (cudnnBackendKnobType_t)e->knob[i].type;
        desc knob = part(k, &s, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);

        if (s == CUDNN_STATUS_SUCCESS)
            s = cudnnBackendSetAttribute(knob, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE,
                                         CUDNN_TYPE_KNOB_TYPE, 1, &type);
        if (s == CUDNN_STATUS_SUCCESS)
            s = cudnnBackendSetAttribute(knob, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE,
                                         CUDNN_TYPE_INT64, 1, &e->knob[i].value);
        if (s == CUDNN_STATUS_SUCCESS)
            s = cudnnBackendFinalize(knob);
    }
    if (s == CUDNN_STATUS_SUCCESS)
        s = cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &k->config);
    if (s == CUDNN_STATUS_SUCCESS)
        s = cudnnBackendSetAttribute(k->config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &engine);
    if (s == CUDNN_STATUS_SUCCESS && e->knobs > 0)
        s = cudnnBackendSetAttribute(k->config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
                                     CUDNN_TYPE_BACKEND_DESCRIPTOR, e->knobs,
                                     k->parts + 1);
    if (s == CUDNN_STATUS_SUCCESS)
        s = cudnnBackendFinalize(k->config);
    return s;
}

hp_code hp_cudnn_conv_take(hp_cudnn_conv *v, const hp_engine *e, hp_error *reterr)
{
    candidate k = {.engine = *e};
    cudnnStatus_t s = rebuild_config(v, &k);

    if (s == CUDNN_STATUS_SUCCESS)
        s = make_plan(v, &k);
    if (s != CUDNN_STATUS_SUCCESS) {
        drop(&k);
        return about(v, translate(reterr, s, "an engine of the cache"), reterr);
    }
    while (v->candidates > 0)
        hp_cudnn_conv_strike(v, v->candidates - 1);
    v->candidate[v->candidates++] = k;
    return HP_OK;
}

/* --- running ----------------------------------------------------------- */

hp_code hp_cudnn_conv_run(hp_cudnn_conv *v, int i, const void *x, const void *w,
                          const void *z, const void *bias, void *y, void *workspace,
                          hp_error *reterr)
{
    const int64_t all_uids[5] = {UID_X, UID_W, UID_Y, UID_Z, UID_BIAS};
    const void *all[5] = {x, w, y, z, bias}, *pointer[5];
    int64_t uid[5], count = 0;
    desc pack = NULL;
    cudnnStatus_t s;

    if (v->c->handle == NULL)
        return hp_fail(reterr, HP_E_STATE, "cuDNN: a described device runs nothing");
    for (int k = 0; k < 5; k++)
        if (all[k] != NULL) {
            uid[count] = all_uids[k];
            pointer[count++] = all[k];
        }
    s = cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);
    if (s == CUDNN_STATUS_SUCCESS)
        s = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS,
                                     CUDNN_TYPE_INT64, count, uid);
    if (s == CUDNN_STATUS_SUCCESS)
        s = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
                                     CUDNN_TYPE_VOID_PTR, count, pointer);
    if (s == CUDNN_STATUS_SUCCESS)
        s = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE,
                                     CUDNN_TYPE_VOID_PTR, 1, &workspace);
    if (s == CUDNN_STATUS_SUCCESS)
        s = cudnnBackendFinalize(pack);
    if (s == CUDNN_STATUS_SUCCESS)
        s = cudnnBackendExecute(v->c->handle, v->candidate[i].plan, pack);
    if (pack != NULL)
        cudnnBackendDestroyDescriptor(pack);
    return s == CUDNN_STATUS_SUCCESS ? HP_OK
                                     : about(v, translate(reterr, s, "running"), reterr);
}
