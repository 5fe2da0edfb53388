/* One slice on its way to disk.
 *
 * Bytes are scanned as they come and copied into blocks; full blocks are
 * written on libuv's pool, one work item at a time per slice, so the loop never
 * waits for the disk. What has been written is pushed towards the platter while
 * the rest still arrives; the last work item marks, syncs and closes.
 *
 * advance() looks at what is true and does the next thing; every change ends
 * in a call to it. */
#include "daemon/intake_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SPARE_BLOCKS = 16 };

struct hp_intake_slice {
    hp_intake *in;
    hp_intake_conn *conn; /* NULL: gone, nobody waits for an answer */
    uv_work_t work;
    bool busy;       /* the pool has it; `file` and `flight` are the pool's */
    bool ended;      /* the last fragment came */
    bool closed;     /* the file is whole */
    bool given;      /* on_stored has it */
    bool discard;    /* what the work item is for */
    uint16_t status; /* 0, or why it is refused */
    char why[128];
    hp_spool_file file;
    hp_code work_code;
    hp_error work_error;
    hp_intake_block *fill, *queue, **queue_end, *flight;
    size_t unwritten;
    hp_scan *scan;
    hp_stored stored;
};

/* ---- blocks ---- */

static hp_intake_block *block_new(hp_intake *in)
{
    hp_intake_block *b = in->spare;

    if (b) {
        in->spare = b->next;
        in->spare_count--;
    } else {
        b = malloc(sizeof *b);
    }
    if (b) {
        b->next = NULL;
        b->len = 0;
    }
    return b;
}

static void blocks_free(hp_intake *in, hp_intake_block *b)
{
    while (b) {
        hp_intake_block *next = b->next;

        if (in->spare_count < SPARE_BLOCKS) {
            b->next = in->spare;
            in->spare = b;
            in->spare_count++;
        } else {
            free(b);
        }
        b = next;
    }
}

static void forget_unwritten(hp_intake_slice *s)
{
    blocks_free(s->in, s->queue);
    if (s->fill)
        blocks_free(s->in, s->fill);
    s->queue = s->fill = NULL;
    s->queue_end = &s->queue;
    s->unwritten = 0;
}

static void queue_fill(hp_intake_slice *s)
{
    if (!s->fill)
        return;
    *s->queue_end = s->fill;
    s->queue_end = &s->fill->next;
    s->fill = NULL;
}

/* ---- birth and death ---- */

hp_intake_slice *hp_intake__slice_new(hp_intake *in, hp_intake_conn *c,
                                      const hp_intake_slice_info *info)
{
    const char *syntax = info->context->transfer_syntax.text;
    hp_intake_slice *s = calloc(1, sizeof *s);

    if (!s)
        return NULL;
    if (hp_scan_new(hp_encoding_of(syntax), in->o.max_object_bytes, &s->scan, NULL) !=
        HP_OK) {
        free(s);
        return NULL;
    }
    s->in = in;
    s->conn = c;
    s->queue_end = &s->queue;
    s->file = (hp_spool_file)HP_SPOOL_FILE_INIT;
    s->stored.sop_class = info->command->sop_class;
    s->stored.sop_instance = info->command->sop_instance;
    s->stored.transfer_syntax = info->context->transfer_syntax;
    s->stored.association = info->association;
    snprintf(s->stored.calling_ae, sizeof s->stored.calling_ae, "%s", info->calling_ae);
    snprintf(s->stored.peer, sizeof s->stored.peer, "%s", info->peer);
    in->live++;
    return s;
}

static void slice_free(hp_intake_slice *s)
{
    hp_intake *in = s->in;

    forget_unwritten(s);
    hp_scan_free(s->scan);
    free(s);
    hp_intake__release(in);
}

/* ---- beside the loop ---- */

static hp_code write_blocks(hp_intake_slice *s)
{
    hp_code r = HP_OK;

    if (!s->file.path[0])
        r = hp_spool_create(s->in->spool, &s->file, s->stored.sop_class.text,
                            s->stored.sop_instance.text, s->stored.transfer_syntax.text,
                            s->stored.calling_ae, &s->work_error);
    for (hp_intake_block *b = s->flight; b && r == HP_OK; b = b->next)
        r = hp_spool_write(&s->file, b->data, b->len, &s->work_error);
    if (r == HP_OK && s->closed)
        return hp_spool_finish(&s->file, &s->work_error);
    if (r == HP_OK)
        hp_spool_flush_hint(&s->file);
    return r;
}

static void do_work(uv_work_t *w)
{
    hp_intake_slice *s = w->data;

    if (s->discard)
        hp_spool_discard(&s->file);
    else
        s->work_code = write_blocks(s);
}

/* ---- the next thing to do ---- */

static void advance(hp_intake_slice *s);

static void work_done(uv_work_t *w, int status)
{
    hp_intake_slice *s = w->data;
    hp_intake_conn *c;

    s->busy = false;
    for (hp_intake_block *b = s->flight; b; b = b->next)
        s->unwritten -= b->len;
    blocks_free(s->in, s->flight);
    s->flight = NULL;
    if (status != 0)
        s->work_code = HP_E_INTERNAL;
    if (s->work_code == HP_E_NO_SPACE || s->work_code == HP_E_NO_MEMORY)
        hp_intake__slice_refuse(s, HP_STATUS_OUT_OF_RESOURCES, s->work_error.msg);
    else if (s->work_code != HP_OK)
        hp_intake__slice_refuse(s, HP_STATUS_PROCESSING_FAILURE, s->work_error.msg);
    s->work_code = HP_OK;
    c = s->conn;
    if (s->status)
        forget_unwritten(s); /* or the peer would stay stopped for their sake */
    if (c && !s->ended)
        hp_intake__conn_flow(c);
    advance(s); /* may be the end of s */
}

static void submit(hp_intake_slice *s, bool discard)
{
    s->discard = discard;
    if (!discard) {
        if (s->ended)
            queue_fill(s);
        s->closed = s->ended;
        s->flight = s->queue;
        s->queue = NULL;
        s->queue_end = &s->queue;
    }
    s->work.data = s;
    s->busy = true;
    uv_queue_work(s->in->loop, &s->work, do_work, work_done); /* fails on NULL only */
}

static void answer(hp_intake_slice *s, uint16_t status, const char *comment)
{
    hp_intake_conn *c = s->conn;

    s->conn = NULL;
    if (c)
        hp_intake__conn_answer(c, status, comment); /* comment may be s->why */
    slice_free(s);
}

static void count_refusal(hp_intake_stats *t, uint16_t status)
{
    switch (status) {
    case HP_STATUS_OUT_OF_RESOURCES:
        t->refused_disk++;
        break;
    case HP_STATUS_MISMATCH:
        t->refused_mismatch++;
        break;
    case HP_STATUS_CANNOT_UNDERSTAND:
        t->refused_unreadable++;
        break;
    case HP_STATUS_CLASS_NOT_SUPPORTED:
        t->refused_class++;
        break;
    default:
        t->refused_failure++;
        break;
    }
}

static void answer_refusal(hp_intake_slice *s)
{
    hp_scan_result seen;

    if (s->conn) {
        hp_scan_so_far(s->scan, &seen);
        if (!hp_uid_valid(seen.study))
            seen.study[0] = 0;
        count_refusal(&s->in->stats, s->status);
        hp_intake__refused(s->in, s->conn, "store", seen.study, s->status, s->why);
    }
    answer(s, s->status, s->why);
}

/* The other side has made it durable, or could not. */
static void on_committed(hp_code code, hp_disposition disposition, void *payload)
{
    hp_intake_slice *s = payload;
    hp_intake_stats *t = &s->in->stats;

    if (code != HP_OK) {
        s->status = code == HP_E_NO_SPACE ? HP_STATUS_OUT_OF_RESOURCES
                                          : HP_STATUS_PROCESSING_FAILURE;
        snprintf(s->why, sizeof s->why, "could not be kept: %s", hp_code_text(code));
        answer_refusal(s);
        return;
    }
    switch (disposition) {
    case HP_STORED_NEW:
        t->stored++;
        break;
    case HP_STORED_DUPLICATE:
        t->duplicate++;
        break;
    case HP_STORED_CONFLICT:
        t->conflict++;
        break;
    case HP_STORED_ECHO:
        t->echo++;
        break;
    }
    answer(s, HP_STATUS_SUCCESS, NULL);
}

static void give(hp_intake_slice *s)
{
    hp_intake *in = s->in;

    memcpy(s->stored.path, s->file.path, sizeof s->stored.path);
    s->stored.size_bytes = s->file.bytes;
    if (in->free_bytes > s->file.bytes) /* until the next look at the disk */
        in->free_bytes -= s->file.bytes;
    else
        in->free_bytes = 0;
    s->given = true;
    if (s->conn)
        hp_intake__conn_saw_study(s->conn, &s->stored.study);
    in->o.sink.on_stored(in->o.sink.payload, &s->stored, on_committed, s);
}

static void advance(hp_intake_slice *s)
{
    if (s->busy || s->given)
        return;
    if (s->status || !s->conn) {
        forget_unwritten(s);
        if (s->file.fd >= 0)
            submit(s, true);
        else if (!s->conn && s->closed && !s->status)
            give(s); /* complete: the peer will send it again, as a duplicate */
        else if (!s->conn)
            slice_free(s);
        else if (s->ended)
            answer_refusal(s);
        return;
    }
    if (s->closed)
        give(s);
    else if (s->queue || s->ended)
        submit(s, false);
}

/* ---- what the connection calls ---- */

void hp_intake__slice_refuse(hp_intake_slice *s, uint16_t status, const char *why)
{
    if (s->status)
        return;
    s->status = status;
    snprintf(s->why, sizeof s->why, "%.127s", why);
}

void hp_intake__slice_data(hp_intake_slice *s, const uint8_t *data, size_t len)
{
    hp_error e = HP_ERROR_INIT;

    if (s->status)
        return;
    if (hp_scan_feed(s->scan, data, len, &e) != HP_OK)
        hp_intake__slice_refuse(s, HP_STATUS_CANNOT_UNDERSTAND, e.msg);
    s->stored.dataset_bytes += len;
    while (len > 0 && !s->status) {
        size_t n;

        if (!s->fill && !(s->fill = block_new(s->in))) {
            hp_intake__slice_refuse(s, HP_STATUS_OUT_OF_RESOURCES, "out of memory");
            break;
        }
        n = HP_INTAKE_BLOCK_BYTES - s->fill->len;
        if (n > len)
            n = len;
        memcpy(s->fill->data + s->fill->len, data, n);
        s->fill->len += n;
        s->unwritten += n;
        data += n;
        len -= n;
        if (s->fill->len == HP_INTAKE_BLOCK_BYTES)
            queue_fill(s);
    }
    advance(s);
}

/* The values by which the slice will be filed. */
static void check_dataset(hp_intake_slice *s)
{
    hp_stored *d = &s->stored;
    hp_scan_result v;
    hp_error e = HP_ERROR_INIT;
    const char *wrong = NULL;

    if (hp_scan_end(s->scan, &v, &e) != HP_OK) {
        hp_intake__slice_refuse(s, HP_STATUS_CANNOT_UNDERSTAND, e.msg);
        return;
    }
    if (strcmp(v.sop_class, d->sop_class.text) != 0)
        wrong = "SOP class of the dataset is not the command's";
    else if (strcmp(v.sop_instance, d->sop_instance.text) != 0)
        wrong = "SOP instance of the dataset is not the command's";
    else if (!hp_uid_valid(v.sop_instance))
        wrong = "SOP Instance UID is missing or not a UID";
    else if (!hp_uid_valid(v.study))
        wrong = "Study Instance UID is missing or not a UID";
    else if (!hp_uid_valid(v.series))
        wrong = "Series Instance UID is missing or not a UID";
    if (wrong) {
        hp_intake__slice_refuse(s, HP_STATUS_MISMATCH, wrong);
        return;
    }
    hp_stored_describe(d, &v);
}

void hp_intake__slice_end(hp_intake_slice *s)
{
    if (!s->status)
        check_dataset(s);
    s->ended = true;
    advance(s);
}

void hp_intake__slice_drop(hp_intake_slice *s)
{
    s->conn = NULL;
    advance(s);
}

size_t hp_intake__slice_unwritten(const hp_intake_slice *s)
{
    return s->unwritten;
}
