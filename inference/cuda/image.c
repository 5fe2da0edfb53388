/* The image of a network, cut on the device out of slices that stay there. */
#include <stdlib.h>

#include "inference/cuda/exec_internal.h"

/* --- slices that stay -------------------------------------------------- */

void hp_cuda__hold(hp_backend *b, const int16_t *hu, size_t count)
{
    hp_cuda *c = (hp_cuda *)b;
    hp_held *h = calloc(1, sizeof *h);
    hp_error err = HP_ERROR_INIT;
    hp_code r = h != NULL ? HP_OK : hp_fail(&err, HP_E_NO_MEMORY, "slices");

    if (r == HP_OK)
        r = hp_gpu_alloc(c->gpu, count * sizeof *hu, (void **)&h->device, &err);
    if (r == HP_OK)
        r = hp_gpu_upload(c->gpu, h->device, hu, count * sizeof *hu, &err);
    if (r != HP_OK) {
        hp_backend_note(b, "slices not kept on the device error=\"%s\"", err.msg);
        if (h != NULL)
            hp_gpu_free(c->gpu, h->device);
        free(h);
        return;
    }
    h->hu = hu;
    h->count = count;
    h->next = c->held;
    c->held = h;
}

bool hp_cuda__let_go(hp_backend *b)
{
    hp_cuda *c = (hp_cuda *)b;
    bool any = c->held != NULL;

    while (c->held != NULL) {
        hp_held *h = c->held;

        c->held = h->next;
        hp_gpu_free(c->gpu, h->device);
        free(h);
    }
    return any;
}

/* NULL: not all of them are here. */
static const int16_t *find(const hp_cuda *c, const int16_t *hu, size_t count)
{
    for (const hp_held *h = c->held; h != NULL; h = h->next)
        if (hu >= h->hu && hu + count <= h->hu + h->count)
            return h->device + (hu - h->hu);
    return NULL;
}

/* --- the image --------------------------------------------------------- */

/* Where one item's sources lie on the device. */
static bool all_held(const hp_cuda *c, const hp_slices *s,
                     const int16_t *ret[HP_INPUT_SOURCES])
{
    size_t count = (size_t)s->cut.src_n[0] * s->cut.src_n[1] * s->cut.src_n[2];

    for (int i = 0; i < s->cut.sources; i++) {
        ret[i] = find(c, s->hu[i], count);
        if (ret[i] == NULL)
            return false;
    }
    return true;
}

static hp_code cut_there(hp_exec *e, int value, int item, const hp_slices *s,
                         hp_error *reterr)
{
    hp_cuda *c = e->c;
    hp_dtype type = hp_exec__type(e, value);
    size_t own = hp_exec__stored(e, value) / (size_t)e->g->batch * hp_dtype_size(type);
    const int16_t *src[HP_INPUT_SOURCES];
    hp_input cut = s->cut;
    hp_code r;

    cut.channels = hp_exec__channels(e, value); /* those behind are zero */
    all_held(c, s, src);
    /* items share it: they are cut one after another */
    r = hp_cuda__ensure(c, &c->tables, hp_input_workspace(&cut), reterr);
    return r == HP_OK ? hp_input_cuda(&cut, type, src,
                                      (char *)hp_exec__at(e, value) + (size_t)item * own,
                                      c->tables.p, hp_gpu_stream(c->gpu), reterr)
                      : r;
}

hp_code hp_exec__image(hp_exec *e, const hp_slices *s, bool *ret_cut, hp_error *reterr)
{
    const hp_graph *g = e->g;
    const int16_t *src[HP_INPUT_SOURCES];
    int value = e->in[0].value; /* the image comes first */
    size_t count = hp_value_count(&g->value[value]);
    hp_code r = HP_OK;

    *ret_cut = hp_exec__channels(e, value) <= HP_INPUT_CHANNELS;
    for (int i = 0; i < g->batch && *ret_cut; i++)
        *ret_cut = all_held(e->c, &s[i], src);
    for (int i = 0; i < g->batch && r == HP_OK; i++)
        r = *ret_cut ? cut_there(e, value, i, &s[i], reterr)
                     : hp_input_ref(&s[i].cut, s[i].hu,
                                    (float *)(void *)(e->host + e->in[0].at) +
                                        (size_t)i * count,
                                    reterr);
    return r;
}
