/* The ledger thread.
 *
 * DESIGN Two lists under one lock: requests go in at the tail of one, finished
 * ones come back on the other, and uv_async_send() wakes the loop. The thread
 * takes the whole list at once. Neighbouring slices in it are one group, filed
 * together (daemon/filing.h).
 *
 * A slice whose UID stands in the group already cuts the group: its twin must
 * be in the ledger before the two can be compared.
 */
#include "daemon/ledger.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/filing.h"

enum {
    GROUP_MAX = 256,
    CHECKPOINT_BYTES = 16 << 20,
    REFUSALS_PER_MINUTE = 120,
    IDLE_MS = 1000 /* quiet for so long: a checkpoint disturbs nobody */
};

typedef struct request {
    struct request *next;
    bool is_store;
    void *payload;
    hp_filing slice;
    hp_stored_cb stored_cb;
    /* a call */
    hp_ledger_fn fn;
    hp_ledger_done_cb done;
    hp_code code;
    hp_error error;
} request;

typedef struct request_list {
    request *head, *tail;
} request_list;

typedef struct carried {
    hp_uid study;
    int count;
} carried;

struct hp_ledger {
    const hp_config *config;
    hp_db *db;
    uv_async_t wake;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work;
    request_list waiting, finished; /* under lock */
    bool stopping;                  /* under lock */
    bool new_images;                /* under lock: since the loop last looked */
    void (*news)(void *payload);
    void *news_payload;
    carried *carried; /* loop thread */
    size_t carried_count, carried_cap;
    int64_t refusal_minute;
    int refusals;
};

static void push(request_list *list, request *r)
{
    r->next = NULL;
    if (list->tail != NULL)
        list->tail->next = r;
    else
        list->head = r;
    list->tail = r;
}

static request *pop(request_list *list)
{
    request *r = list->head;

    list->head = r->next;
    if (list->head == NULL)
        list->tail = NULL;
    return r;
}

/* ---- the thread ---- */

static bool in_group(hp_filing **group, int count, const hp_filing *f)
{
    for (int i = 0; i < count; i++)
        if (strcmp(group[i]->stored.sop_instance.text, f->stored.sop_instance.text) == 0)
            return true;
    return false;
}

/* Requests `from` up to before `end`. */
static void give_back(hp_ledger *l, request *from, request *end, bool images)
{
    pthread_mutex_lock(&l->lock);
    while (from != end) {
        request *next = from->next;

        push(&l->finished, from);
        from = next;
    }
    l->new_images |= images;
    pthread_mutex_unlock(&l->lock);
    uv_async_send(&l->wake);
}

static void work_off(hp_ledger *l, request *list)
{
    while (list != NULL) {
        hp_filing *group[GROUP_MAX];
        request *first = list;
        int count = 0;
        bool images = false;

        while (list != NULL && list->is_store && count < GROUP_MAX &&
               !in_group(group, count, &list->slice)) {
            group[count++] = &list->slice;
            list = list->next;
        }
        if (count > 0) {
            images = hp_filing_group(l->db, l->config, group, count);
            for (int i = 0; i < count; i++)
                if (group[i]->code != HP_OK) /* the sender will hear so */
                    unlink(group[i]->stored.path);
        } else {
            list = first->next;
            first->code = first->fn(l->db, first->payload, &first->error);
        }
        give_back(l, first, list, images);
    }
}

static void checkpoint(hp_ledger *l, int64_t min_bytes)
{
    hp_error err = HP_ERROR_INIT;

    /* A checkpoint that fails costs nothing but room in the log. */
    if (hp_db_checkpoint(l->db, min_bytes, &err) != HP_OK)
        hp_log(HP_LOG_WARNING, "checkpoint failed error=\"%s\", going on", err.msg);
}

/* Waits for work; false: stop. *dirty asks for a checkpoint when nothing comes. */
static bool wait_for_work(hp_ledger *l, bool *dirty, request_list *ret)
{
    bool more;

    pthread_mutex_lock(&l->lock);
    while (l->waiting.head == NULL && !l->stopping) {
        struct timespec until;

        if (!*dirty) {
            pthread_cond_wait(&l->work, &l->lock);
            continue;
        }
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += IDLE_MS / 1000;
        if (pthread_cond_timedwait(&l->work, &l->lock, &until) == ETIMEDOUT &&
            l->waiting.head == NULL && !l->stopping) {
            pthread_mutex_unlock(&l->lock);
            checkpoint(l, 0);
            *dirty = false;
            pthread_mutex_lock(&l->lock);
        }
    }
    *ret = l->waiting;
    l->waiting = (request_list){NULL, NULL};
    more = ret->head != NULL || !l->stopping;
    pthread_mutex_unlock(&l->lock);
    return more;
}

static void *thread_main(void *arg)
{
    hp_ledger *l = arg;
    request_list list;
    bool dirty = true;

    while (wait_for_work(l, &dirty, &list)) {
        work_off(l, list.head);
        checkpoint(l, CHECKPOINT_BYTES);
        dirty = true;
    }
    checkpoint(l, 0);
    return NULL;
}

/* ---- the loop's side ---- */

static void finish(request *r)
{
    if (r->is_store) {
        const hp_filing *f = &r->slice;

        if (f->code != HP_OK)
            hp_log(HP_LOG_ERROR, "slice not stored error=\"%s\", refused", f->error.msg);
        r->stored_cb(f->code, f->disposition, r->payload);
    } else if (r->done != NULL) {
        r->done(r->code, &r->error, r->payload);
    }
    free(r);
}

static void on_wake(uv_async_t *wake)
{
    hp_ledger *l = wake->data;
    request_list list;
    bool images;

    pthread_mutex_lock(&l->lock);
    list = l->finished;
    l->finished = (request_list){NULL, NULL};
    images = l->new_images;
    l->new_images = false;
    pthread_mutex_unlock(&l->lock);
    while (list.head != NULL)
        finish(pop(&list));
    if (images && l->news != NULL)
        l->news(l->news_payload);
}

static void enqueue(hp_ledger *l, request *r)
{
    pthread_mutex_lock(&l->lock);
    push(&l->waiting, r);
    pthread_cond_signal(&l->work);
    pthread_mutex_unlock(&l->lock);
}

void hp_ledger_store(hp_ledger *l, const hp_stored *s, hp_stored_cb cb, void *payload)
{
    request *r = calloc(1, sizeof *r);

    if (r == NULL) {
        unlink(s->path);
        cb(HP_E_NO_MEMORY, HP_STORED_NEW, payload);
        return;
    }
    r->is_store = true;
    r->slice.stored = *s;
    r->stored_cb = cb;
    r->payload = payload;
    enqueue(l, r);
}

void hp_ledger_call(hp_ledger *l, hp_ledger_fn fn, hp_ledger_done_cb done, void *arg)
{
    request *r = calloc(1, sizeof *r);
    hp_error err = HP_ERROR_INIT;

    if (r == NULL) {
        hp_fail(&err, HP_E_NO_MEMORY, "no memory for a ledger call");
        if (done != NULL)
            done(HP_E_NO_MEMORY, &err, arg);
        return;
    }
    r->fn = fn;
    r->done = done;
    r->payload = arg;
    enqueue(l, r);
}

void hp_ledger_association(hp_ledger *l, const char *study_uid, int change)
{
    carried *c = NULL, fresh = {.count = 0};

    for (size_t i = 0; i < l->carried_count && c == NULL; i++)
        if (strcmp(l->carried[i].study.text, study_uid) == 0)
            c = &l->carried[i];
    if (c == NULL && change > 0) {
        if (l->carried_count == l->carried_cap) {
            size_t cap = l->carried_cap ? 2 * l->carried_cap : 16;
            carried *more = realloc(l->carried, cap * sizeof *more);

            if (more == NULL)
                return; /* readiness then rests on the quiet time alone */
            l->carried = more;
            l->carried_cap = cap;
        }
        snprintf(fresh.study.text, sizeof fresh.study.text, "%s", study_uid);
        c = &l->carried[l->carried_count++];
        *c = fresh;
    }
    if (c == NULL)
        return;
    c->count += change;
    if (c->count <= 0)
        *c = l->carried[--l->carried_count];
    if (change < 0 && l->news != NULL)
        l->news(l->news_payload); /* nobody holds the study back any more */
}

hp_uid *hp_ledger_open_studies(const hp_ledger *l, size_t *ret_count)
{
    hp_uid *list = l->carried_count ? calloc(l->carried_count, sizeof *list) : NULL;

    *ret_count = list != NULL ? l->carried_count : 0;
    for (size_t i = 0; i < *ret_count; i++)
        list[i] = l->carried[i].study;
    return list;
}

typedef struct refusal {
    hp_uid study;
    char words[300];
} refusal;

static hp_code add_refusal(hp_db *db, void *arg, hp_error *reterr)
{
    const refusal *n = arg;
    return hp_study_refused(db, n->study.text, n->words, reterr);
}

static void free_refusal(hp_code code, const hp_error *error, void *arg)
{
    if (code != HP_OK)
        hp_log(HP_LOG_WARNING, "event lost error=\"%s\"", error->msg);
    free(arg);
}

/* May one more be kept in this minute? */
static bool refusal_allowed(hp_ledger *l)
{
    int64_t minute = hp_clock_mono_ms() / 60000;

    if (minute != l->refusal_minute) {
        l->refusal_minute = minute;
        l->refusals = 0;
    }
    return ++l->refusals <= REFUSALS_PER_MINUTE;
}

void hp_ledger_refused(hp_ledger *l, const char *study_uid, const char *fmt, ...)
{
    refusal *n = refusal_allowed(l) ? calloc(1, sizeof *n) : NULL;
    va_list args;

    if (n == NULL)
        return;
    snprintf(n->study.text, sizeof n->study.text, "%s", study_uid);
    va_start(args, fmt);
    vsnprintf(n->words, sizeof n->words, fmt, args);
    va_end(args);
    hp_ledger_call(l, add_refusal, free_refusal, n);
}

void hp_ledger_on_news(hp_ledger *l, void (*news)(void *payload), void *payload)
{
    l->news = news;
    l->news_payload = payload;
}

/* ---- opening and closing ---- */

static void free_ledger(hp_ledger *l)
{
    hp_db_close(l->db);
    pthread_cond_destroy(&l->work);
    pthread_mutex_destroy(&l->lock);
    free(l->carried);
    free(l);
}

static void on_wake_closed(uv_handle_t *handle)
{
    free_ledger(handle->data);
}

static hp_code start_thread(uv_loop_t *loop, hp_ledger *l, hp_error *reterr)
{
    int err = uv_async_init(loop, &l->wake, on_wake);

    if (err != 0) {
        free_ledger(l);
        return hp_fail(reterr, HP_E_INTERNAL, "ledger thread: %s", uv_strerror(err));
    }
    l->wake.data = l;
    err = pthread_create(&l->thread, NULL, thread_main, l);
    if (err == 0)
        return HP_OK;
    uv_close((uv_handle_t *)&l->wake, on_wake_closed);
    return hp_fail_errno(reterr, err, "starting the ledger thread");
}

hp_code hp_ledger_open_take(uv_loop_t *loop, const hp_config *config, hp_db *db,
                            hp_ledger **ret, hp_error *reterr)
{
    hp_ledger *l = calloc(1, sizeof *l);
    pthread_condattr_t attr;
    hp_code code;

    if (l == NULL) {
        hp_db_close(db);
        return hp_fail(reterr, HP_E_NO_MEMORY, "no memory for the ledger thread");
    }
    l->config = config;
    l->db = db;
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&l->work, &attr);
    pthread_condattr_destroy(&attr);
    code = start_thread(loop, l, reterr);
    if (code == HP_OK)
        *ret = l;
    return code;
}

void hp_ledger_close(hp_ledger *l)
{
    if (l == NULL)
        return;
    pthread_mutex_lock(&l->lock);
    l->stopping = true;
    pthread_cond_signal(&l->work);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    l->news = NULL;
    on_wake(&l->wake);
    /* What these callbacks asked for came too late for the thread. */
    while (l->waiting.head != NULL) {
        request *r = pop(&l->waiting);

        r->code = hp_fail(&r->error, HP_E_CANCELLED, "the daemon is ending");
        r->slice.code = r->code;
        r->slice.error = r->error;
        if (r->is_store)
            unlink(r->slice.stored.path);
        finish(r);
    }
    uv_close((uv_handle_t *)&l->wake, on_wake_closed);
}
