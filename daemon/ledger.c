/* The ledger thread.
 *
 * DESIGN Two lists under one lock: requests go in at the tail of one, finished
 * ones come back on the other, and uv_async_send() wakes the loop. The thread
 * takes the whole list at once. Neighbouring slices in it are one group: looked
 * up, synced and renamed, directory synced, rows committed, in that order, so
 * that a crash at any point leaves litter at worst (a file without a row).
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
#include "base/crash.h"
#include "base/log.h"

enum {
    GROUP_MAX = 256,
    CHECKPOINT_BYTES = 16 << 20,
    REFUSALS_PER_MINUTE = 120,
    IDLE_MS = 1000 /* quiet for so long: a checkpoint disturbs nobody */
};

typedef struct request {
    struct request *next;
    bool is_store;
    hp_code code;
    hp_error error;
    void *payload;
    /* a slice */
    hp_stored stored;
    hp_stored_cb stored_cb;
    hp_disposition disposition;
    char final_path[HP_PATH_MAX];
    bool keep; /* goes to final_path */
    /* a call */
    hp_ledger_fn fn;
    hp_ledger_done_cb done;
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
    char spool[HP_PATH_MAX], quarantine[HP_PATH_MAX];
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

/* ---- a group of slices; ledger thread ---- */

static hp_instance instance_of(const request *r)
{
    const hp_stored *s = &r->stored;
    const char *slash = strrchr(r->final_path, '/');
    hp_instance in = {.sop_class = s->sop_class,
                      .sop_instance = s->sop_instance,
                      .study = s->study,
                      .series = s->series,
                      .transfer_syntax = s->transfer_syntax,
                      .modality = s->modality,
                      .accession = s->accession,
                      .study_date = s->study_date,
                      .size_bytes = (int64_t)s->size_bytes,
                      .name = slash != NULL ? slash + 1 : "",
                      .calling_ae = s->calling_ae,
                      .peer_address = s->peer};

    memcpy(in.patient_digest, s->patient_digest, sizeof in.patient_digest);
    return in;
}

/* We know the UID: the same bytes, or others? A first file that is gone makes
 * this one the first. */
static hp_code compare(hp_ledger *l, request *r, const char *name, hp_error *err)
{
    char first[HP_PATH_MAX];
    bool same = false;
    hp_code code = hp_path_fmt(first, err, "%s/%s", l->spool, name);

    if (code != HP_OK)
        return code;
    code = hp_spool_same(r->stored.part_path, first, &same, err);
    if (code == HP_E_NOT_FOUND && !hp_path_exists(first)) {
        int64_t study = 0;
        hp_auto(hp_job) *job = NULL;

        if (hp_job_of_study(l->db, r->stored.study.text, &job, NULL) == HP_OK)
            study = job->study_id;
        r->disposition = HP_STORED_NEW;
        return hp_study_file_lost(l->db, study, name, err);
    }
    if (code == HP_OK)
        r->disposition = same ? HP_STORED_DUPLICATE : HP_STORED_CONFLICT;
    return code;
}

static hp_code classify(hp_ledger *l, request *r, hp_error *err)
{
    char name[64];
    hp_code code =
        hp_study_lookup(l->db, r->stored.sop_instance.text, &r->disposition, name, err);

    if (code == HP_OK && r->disposition == HP_STORED_DUPLICATE)
        code = compare(l, r, name, err);
    if (code != HP_OK)
        return code;
    r->keep = r->disposition == HP_STORED_NEW || r->disposition == HP_STORED_CONFLICT;
    if (r->keep)
        code = hp_spool_final_path(r->stored.part_path,
                                   r->disposition == HP_STORED_NEW ? l->spool
                                                                   : l->quarantine,
                                   r->final_path, err);
    return code;
}

static void commit_files(request **group, int count)
{
    hp_spool_item items[GROUP_MAX];
    int at[GROUP_MAX], n = 0;

    for (int i = 0; i < count; i++) {
        if (group[i]->code != HP_OK || !group[i]->keep)
            continue;
        items[n] = (hp_spool_item){.part_path = group[i]->stored.part_path,
                                   .final_path = group[i]->final_path,
                                   .synced = group[i]->stored.synced};
        at[n++] = i;
    }
    if (n > 0)
        hp_spool_commit(items, (size_t)n);
    for (int i = 0; i < n; i++) {
        group[at[i]]->code = items[i].code;
        if (items[i].code != HP_OK)
            hp_fail(&group[at[i]]->error, items[i].code, "committing the spool file: %s",
                    hp_code_text(items[i].code));
    }
}

static hp_code commit_rows(hp_ledger *l, request **group, int count, hp_error *err)
{
    hp_auto(hp_tx) *tx = NULL;
    hp_code code = hp_tx_begin(l->db, &tx, err);

    for (int i = 0; code == HP_OK && i < count; i++) {
        hp_instance in;

        if (group[i]->code != HP_OK)
            continue;
        in = instance_of(group[i]);
        if (group[i]->disposition == HP_STORED_NEW)
            code = hp_study_add(l->db, &in, err);
        else
            code = hp_study_count(l->db, &in, group[i]->disposition,
                                  group[i]->keep ? in.name : NULL, err);
    }
    if (code == HP_OK)
        code = hp_tx_commit(tx, err);
    return code;
}

/* What a slice leaves on disk when it was not to be kept. */
static void clean_up(request *r, hp_code rows)
{
    if (rows != HP_OK && r->code == HP_OK) {
        if (r->keep)
            unlink(r->final_path);
        r->code = rows;
    }
    if (r->code != HP_OK || !r->keep)
        unlink(r->stored.part_path);
}

static bool store_group(hp_ledger *l, request **group, int count)
{
    hp_error err = HP_ERROR_INIT;
    bool images = false;
    hp_code rows;

    for (int i = 0; i < count; i++)
        group[i]->code = classify(l, group[i], &group[i]->error);
    commit_files(group, count);
    hp_crash_point("spool_committed"); /* files without rows: litter */
    rows = commit_rows(l, group, count, &err);
    hp_crash_point("rows_committed"); /* durable, and nobody was told */
    for (int i = 0; i < count; i++) {
        clean_up(group[i], rows);
        if (rows != HP_OK && group[i]->error.code == HP_OK)
            group[i]->error = err;
        images |= group[i]->code == HP_OK && group[i]->disposition == HP_STORED_NEW &&
                  hp_instance_is_ct(group[i]->stored.sop_class.text);
    }
    return images;
}

/* ---- the thread ---- */

static bool in_group(request **group, int count, const request *r)
{
    for (int i = 0; i < count; i++)
        if (strcmp(group[i]->stored.sop_instance.text, r->stored.sop_instance.text) == 0)
            return true;
    return false;
}

static void give_back(hp_ledger *l, request **group, int count, bool images)
{
    pthread_mutex_lock(&l->lock);
    for (int i = 0; i < count; i++)
        push(&l->finished, group[i]);
    l->new_images |= images;
    pthread_mutex_unlock(&l->lock);
    uv_async_send(&l->wake);
}

static void work_off(hp_ledger *l, request *list)
{
    while (list != NULL) {
        request *group[GROUP_MAX];
        int count = 0;
        bool images = false;

        while (list != NULL && list->is_store && count < GROUP_MAX &&
               !in_group(group, count, list)) {
            group[count++] = list;
            list = list->next;
        }
        if (count > 0) {
            images = store_group(l, group, count);
        } else {
            group[count++] = list;
            list = list->next;
            group[0]->code = group[0]->fn(l->db, group[0]->payload, &group[0]->error);
        }
        give_back(l, group, count, images);
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
        if (r->code != HP_OK)
            hp_log(HP_LOG_ERROR, "slice not stored error=\"%s\", refused", r->error.msg);
        r->stored_cb(r->code, r->disposition, r->payload);
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
        unlink(s->part_path);
        cb(HP_E_NO_MEMORY, HP_STORED_NEW, payload);
        return;
    }
    r->is_store = true;
    r->stored = *s;
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
    code = hp_path_fmt(l->spool, reterr, "%s/spool", config->state_dir);
    if (code == HP_OK)
        code = hp_path_fmt(l->quarantine, reterr, "%s/quarantine", config->state_dir);
    if (code != HP_OK) {
        free_ledger(l);
        return code;
    }
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
        if (r->is_store)
            unlink(r->stored.part_path);
        finish(r);
    }
    uv_close((uv_handle_t *)&l->wake, on_wake_closed);
}
