/* The control socket.
 *
 * DESIGN Every connection is a small object with one request at a time; an
 * answer that comes from the ledger thread or a sender finds it again by
 * pointer, and the object lives until that answer has come. Few connections,
 * short lines: admins, not peers.
 */
#include "daemon/control.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"

enum { MAX_LINE = 4096, MAX_CLIENTS = 32, BACKLOG = 16 };

typedef struct client {
    uv_pipe_t pipe;
    hp_control *control;
    struct client *next;
    hp_buf inbox;
    bool busy;   /* an answer is on its way */
    bool closed; /* the other side has gone */
} client;

struct hp_control {
    uv_loop_t *loop;
    const hp_config *config;
    hp_ledger *ledger;
    hp_scheduler *scheduler;
    const hp_intake *intake;
    uv_pipe_t listener;
    char path[HP_PATH_MAX];
    int64_t started_ms;
    client *clients;
    int client_count;
    bool closing, listener_closed;
    void (*closed)(void *payload);
    void *closed_payload;
};

typedef struct answer {
    uv_write_t write;
    char *line;
} answer;

static void serve_next(client *c);

/* ---- coming and going ---- */

static void maybe_closed(hp_control *ctl)
{
    if (!ctl->closing || !ctl->listener_closed || ctl->clients != NULL)
        return;
    if (ctl->closed != NULL)
        ctl->closed(ctl->closed_payload);
    free(ctl);
}

static void on_client_closed(uv_handle_t *handle)
{
    client *c = handle->data;
    hp_control *ctl = c->control;

    for (client **at = &ctl->clients; *at != NULL; at = &(*at)->next) {
        if (*at == c) {
            *at = c->next;
            break;
        }
    }
    ctl->client_count--;
    hp_buf_done(&c->inbox);
    free(c);
    maybe_closed(ctl);
}

/* Closes, or leaves it to the answer that is on its way. */
static void drop(client *c)
{
    c->closed = true;
    if (!c->busy && !uv_is_closing((uv_handle_t *)&c->pipe))
        uv_close((uv_handle_t *)&c->pipe, on_client_closed);
}

static void on_written(uv_write_t *write, int status)
{
    answer *a = (answer *)write;

    (void)status;
    free(a->line);
    free(a);
}

static void reply_take(client *c, json_t *msg)
{
    answer *a = calloc(1, sizeof *a);
    size_t len;
    uv_buf_t buf;

    c->busy = false;
    if (a != NULL && msg != NULL)
        a->line = json_dumps(msg, JSON_COMPACT);
    json_decref(msg);
    if (c->closed || c->control->closing || a == NULL || a->line == NULL) {
        if (a != NULL)
            free(a->line);
        free(a);
        drop(c);
        return;
    }
    len = strlen(a->line);
    a->line[len] = '\n';
    buf = uv_buf_init(a->line, (unsigned)len + 1);
    if (uv_write(&a->write, (uv_stream_t *)&c->pipe, &buf, 1, on_written) != 0) {
        free(a->line);
        free(a);
        drop(c);
        return;
    }
    serve_next(c);
}

static void reply_failure(client *c, hp_code code, const char *words)
{
    reply_take(c, json_pack("{ss,ss}", "code", hp_code_name(code), "words", words));
}

/* ---- retry and cancel ---- */

typedef struct change {
    client *client;
    char id[HP_UID_SIZE];
    bool cancel;
    hp_job *job;
    bool was_running;
} change;

static hp_code do_change(hp_db *db, void *arg, hp_error *reterr)
{
    change *c = arg;

    if (c->cancel)
        return hp_job_cancel(db, c->id, &c->job, &c->was_running, reterr);
    return hp_job_retry(db, c->id, &c->job, reterr);
}

static void after_change(hp_code code, const hp_error *error, void *arg)
{
    change *c = arg;
    client *who = c->client;
    hp_control *ctl = who->control;

    if (code == HP_OK) {
        hp_log(HP_LOG_INFO, "%s job=%" PRId64 ", asked for by an admin",
               c->cancel ? "cancelled" : "retry", c->job->id);
        if (c->was_running)
            hp_scheduler_cancelled(ctl->scheduler, c->job->id);
        if (!c->cancel)
            hp_scheduler_bell(ctl->scheduler);
        reply_take(who, json_pack("{ss,sI,ss,si}", "code", "OK", "job",
                                  (json_int_t)c->job->id, "study_uid",
                                  c->job->study_uid.text, "revision", c->job->revision));
    } else {
        reply_failure(who, code, error->msg);
    }
    hp_job_free(c->job);
    free(c);
}

static void start_change(client *who, const json_t *msg, bool cancel)
{
    change *c = calloc(1, sizeof *c);

    if (c == NULL) {
        reply_failure(who, HP_E_NO_MEMORY, "out of memory");
        return;
    }
    c->client = who;
    c->cancel = cancel;
    snprintf(c->id, sizeof c->id, "%s", hp_json_str(msg, "id", ""));
    hp_ledger_call(who->control->ledger, do_change, after_change, c);
}

/* ---- echo, progress, status ---- */

static void on_echoed(const json_t *msg, const char *words, void *payload)
{
    client *c = payload;

    if (msg == NULL) {
        reply_failure(c, HP_E_INTERNAL, words);
        return;
    }
    reply_take(c, json_pack("{ss,ss,sf}", "code", hp_json_str(msg, "code", "E_INTERNAL"),
                            "words", hp_json_str(msg, "words", ""), "ms",
                            hp_json_num(msg, "ms", 0)));
}

static void start_echo(client *c, const json_t *msg)
{
    const hp_config_peer *peer =
        hp_config_find_peer(c->control->config, hp_json_str(msg, "peer", ""));

    if (peer == NULL)
        reply_failure(c, HP_E_NOT_FOUND, "no peer of that name in the configuration");
    else
        hp_scheduler_echo(c->control->scheduler, peer, on_echoed, c);
}

static void tell_progress(client *c)
{
    json_t *msg = hp_scheduler_progress(c->control->scheduler);

    json_object_set_new(msg, "code", json_string("OK"));
    reply_take(c, msg);
}

static json_t *intake_json(const hp_intake *intake)
{
    hp_intake_stats s;

    hp_intake_stats_get(intake, &s);
    return json_pack(
        "{si,si,sI,sI,sI,sI,sI,sI,sI,sI,sI,sI,sI,sI}", "open_connections",
        s.open_connections, "open_associations", s.open_associations, "associations",
        (json_int_t)s.associations, "rejected_associations",
        (json_int_t)s.rejected_associations, "received", (json_int_t)s.received, "stored",
        (json_int_t)s.stored, "duplicate", (json_int_t)s.duplicate, "conflict",
        (json_int_t)s.conflict, "echo", (json_int_t)s.echo, "refused",
        (json_int_t)(s.refused_disk + s.refused_mismatch + s.refused_unreadable +
                     s.refused_failure + s.refused_class),
        "cut_off", (json_int_t)s.cut_off, "not_dicom", (json_int_t)s.not_dicom,
        "timed_out", (json_int_t)s.timed_out, "bytes", (json_int_t)s.bytes);
}

static void tell_status(client *c)
{
    const hp_control *ctl = c->control;
    json_t *msg = hp_scheduler_progress(ctl->scheduler);

    json_object_set_new(msg, "code", json_string("OK"));
    json_object_set_new(msg, "pid", json_integer(getpid()));
    json_object_set_new(
        msg, "uptime_s",
        json_integer((json_int_t)((hp_clock_mono_ms() - ctl->started_ms) / 1000)));
    if (ctl->intake != NULL) {
        json_object_set_new(msg, "intake", intake_json(ctl->intake));
        json_object_set_new(msg, "port", json_integer(hp_intake_port(ctl->intake)));
    }
    reply_take(c, msg);
}

/* ---- reading ---- */

static void serve(client *c, const json_t *msg)
{
    const char *what = hp_json_str(msg, "do", "");

    c->busy = true;
    if (strcmp(what, "retry") == 0)
        start_change(c, msg, false);
    else if (strcmp(what, "cancel") == 0)
        start_change(c, msg, true);
    else if (strcmp(what, "echo") == 0)
        start_echo(c, msg);
    else if (strcmp(what, "progress") == 0)
        tell_progress(c);
    else if (strcmp(what, "status") == 0)
        tell_status(c);
    else
        reply_failure(c, HP_E_INVALID, "unknown request");
}

static void serve_next(client *c)
{
    uint8_t *end = c->inbox.len ? memchr(c->inbox.data, '\n', c->inbox.len) : NULL;
    hp_auto(json_t) *msg = NULL;
    hp_code code;
    size_t len;

    if (c->busy || c->closed)
        return;
    if (end == NULL) {
        if (c->inbox.len > MAX_LINE)
            drop(c);
        return;
    }
    len = (size_t)(end - c->inbox.data);
    code = hp_json_parse((const char *)c->inbox.data, len, &msg, NULL);
    hp_buf_consume(&c->inbox, len + 1);
    if (code != HP_OK)
        drop(c); /* not one of ours */
    else
        serve(c, msg);
}

static void on_alloc(uv_handle_t *handle, size_t hint, uv_buf_t *ret)
{
    client *c = handle->data;

    (void)hint;
    if (c->inbox.len > 4 * MAX_LINE || !hp_buf_reserve(&c->inbox, MAX_LINE))
        *ret = uv_buf_init(NULL, 0);
    else
        *ret = uv_buf_init((char *)c->inbox.data + c->inbox.len, MAX_LINE);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    client *c = stream->data;

    (void)buf;
    if (n > 0) {
        c->inbox.len += (size_t)n;
        serve_next(c);
    } else if (n < 0) {
        uv_read_stop(stream);
        drop(c);
    }
}

static void on_connection(uv_stream_t *listener, int status)
{
    hp_control *ctl = listener->data;
    client *c = status == 0 ? calloc(1, sizeof *c) : NULL;

    if (c == NULL)
        return;
    c->control = ctl;
    uv_pipe_init(ctl->loop, &c->pipe, 0);
    c->pipe.data = c;
    c->next = ctl->clients;
    ctl->clients = c;
    ctl->client_count++;
    if (uv_accept(listener, (uv_stream_t *)&c->pipe) != 0 ||
        ctl->client_count > MAX_CLIENTS ||
        uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read) != 0)
        drop(c);
}

/* ---- the socket ---- */

static void on_listener_closed(uv_handle_t *handle)
{
    hp_control *ctl = handle->data;

    ctl->listener_closed = true;
    maybe_closed(ctl);
}

static hp_code listen_at(hp_control *ctl, hp_error *reterr)
{
    int err;

    unlink(ctl->path);
    err = uv_pipe_bind(&ctl->listener, ctl->path);
    if (err == 0 && chmod(ctl->path, 0660) != 0)
        err = UV_EACCES;
    if (err == 0)
        err = uv_listen((uv_stream_t *)&ctl->listener, BACKLOG, on_connection);
    if (err != 0)
        return hp_fail(reterr, HP_E_IO, "control socket: %s", uv_strerror(err));
    return HP_OK;
}

hp_code hp_control_open(uv_loop_t *loop, const hp_config *config, hp_ledger *ledger,
                        hp_scheduler *scheduler, hp_control **ret, hp_error *reterr)
{
    hp_control *ctl = calloc(1, sizeof *ctl);
    hp_code code;

    if (ctl == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "no memory for the control socket");
    code = hp_control_path(config, ctl->path, reterr);
    if (code != HP_OK) {
        free(ctl);
        return code;
    }
    ctl->loop = loop;
    ctl->config = config;
    ctl->ledger = ledger;
    ctl->scheduler = scheduler;
    ctl->started_ms = hp_clock_mono_ms();
    uv_pipe_init(loop, &ctl->listener, 0);
    ctl->listener.data = ctl;
    code = listen_at(ctl, reterr);
    if (code != HP_OK) {
        ctl->closing = true;
        uv_close((uv_handle_t *)&ctl->listener, on_listener_closed);
        return code;
    }
    *ret = ctl;
    return HP_OK;
}

void hp_control_set_intake(hp_control *c, const hp_intake *intake)
{
    c->intake = intake;
}

void hp_control_close(hp_control *c, void (*cb)(void *payload), void *payload)
{
    c->closing = true;
    c->closed = cb;
    c->closed_payload = payload;
    unlink(c->path);
    uv_close((uv_handle_t *)&c->listener, on_listener_closed);
    for (client *at = c->clients; at != NULL; at = at->next)
        drop(at);
}
