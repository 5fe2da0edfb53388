/* One connection: bytes to the upper layer, messages to answers, and a deadline
 * in every state.
 *
 *     waiting ──request──> between messages <──> inside a message
 *        │                    │    ▲                  │
 *        │ rejected           │    └── answered ── our turn (peer not read)
 *        ▼                    ▼ released, aborted
 *     draining: writing is shut down, input is dropped until EOF or ARTIM
 *
 * Closing a socket with unread input would send RST, and the peer would never
 * see why: hence draining. */
#include "daemon/intake_internal.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* Why a connection is not being read just now. */
enum { PAUSE_ANSWER = 1, PAUSE_DISK = 2, PAUSE_WRITE = 4 };

typedef enum deadline {
    D_NONE,
    D_REQUEST,  /* ARTIM: an association request */
    D_PROGRESS, /* inside a PDU or message */
    D_IDLE,     /* between messages */
    D_OURS,     /* the disk or the ledger has it */
    D_WRITE,    /* the peer does not read its answer */
    D_DRAIN     /* ARTIM: the peer should close */
} deadline;

enum { MAX_STUDIES = 256 };

struct hp_intake_conn {
    uv_tcp_t tcp;
    uv_timer_t timer;
    hp_intake *in;
    hp_intake_conn *prev, *next;
    int open_handles;
    uint64_t id;
    char address[64];   /* numeric, no port */
    char peer[80];      /* with port, for the log */
    uint8_t address_bytes[16];
    char calling_safe[17];
    hp_ul *ul;
    hp_dimse_reader dimse;
    hp_intake_slice *slice;
    hp_buf out, stash;
    unsigned paused;
    bool reading, processing, associated, draining, gone;
    deadline waiting_for;
    uint64_t window_bytes;   /* since the progress window began */
    uint64_t received_bytes; /* all */
    uint64_t stores;
    int writes; /* uv_write in flight */
    uv_shutdown_t shutdown;
    hp_uid *studies; /* that this association carries */
    int study_count;
};

typedef struct write_job {
    uv_write_t req;
    hp_buf bytes;
} write_job;

static void process(hp_intake_conn *c, const uint8_t *data, size_t len);
static void settle(hp_intake_conn *c);

/* ---- who it is ---- */

const char *hp_intake__conn_peer(const hp_intake_conn *c) { return c->peer; }
const char *hp_intake__conn_calling(const hp_intake_conn *c) { return c->calling_safe; }
uint64_t hp_intake__conn_id(const hp_intake_conn *c) { return c->id; }

/* Printable, and no quote that could end a value in the log line. */
static void safe_title(const char *title, char ret[17])
{
    hp_log_safe(title, ret, 17);
    for (char *p = ret; *p; p++)
        if (*p == '"' || *p == '\\')
            *p = '?';
}

static void learn_peer(hp_intake_conn *c)
{
    struct sockaddr_storage a;
    int len = sizeof a;

    snprintf(c->peer, sizeof c->peer, "unknown");
    if (uv_tcp_getpeername(&c->tcp, (struct sockaddr *)&a, &len) != 0)
        return;
    if (a.ss_family == AF_INET) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)&a;

        uv_ip4_name(v4, c->address, sizeof c->address);
        c->address_bytes[10] = c->address_bytes[11] = 0xff;
        memcpy(c->address_bytes + 12, &v4->sin_addr, 4);
        snprintf(c->peer, sizeof c->peer, "%s:%d", c->address, ntohs(v4->sin_port));
    } else if (a.ss_family == AF_INET6) {
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&a;

        uv_ip6_name(v6, c->address, sizeof c->address);
        memcpy(c->address_bytes, &v6->sin6_addr, 16);
        snprintf(c->peer, sizeof c->peer, "[%s]:%d", c->address, ntohs(v6->sin6_port));
    }
}

/* ---- leaving ---- */

static void end_association(hp_intake_conn *c)
{
    hp_intake_sink *sink = &c->in->o.sink;

    if (c->slice) {
        hp_intake__slice_drop(c->slice);
        c->slice = NULL;
    }
    if (!c->associated)
        return;
    c->associated = false;
    c->in->stats.open_associations--;
    if (hp_dimse_inside_message(&c->dimse))
        c->in->stats.cut_off++;
    for (int i = 0; i < c->study_count; i++)
        sink->on_study(sink->payload, c->id, &c->studies[i], -1);
    free(c->studies);
    c->studies = NULL;
    c->study_count = 0;
    hp_log(HP_LOG_INFO, "association closed association=%llu peer=%s calling=\"%s\" stores=%llu",
           (unsigned long long)c->id, c->peer, c->calling_safe, (unsigned long long)c->stores);
}

static void on_closed(uv_handle_t *h)
{
    hp_intake_conn *c = h->data;
    hp_intake *in = c->in;

    if (--c->open_handles > 0)
        return;
    hp_ul_free(c->ul);
    hp_dimse_reader_done(&c->dimse);
    hp_buf_done(&c->out);
    hp_buf_done(&c->stash);
    free(c);
    hp_intake__release(in);
}

static void close_now(hp_intake_conn *c)
{
    if (c->gone)
        return;
    c->gone = true;
    end_association(c);
    c->in->stats.open_connections--;
    if (c->prev)
        c->prev->next = c->next;
    else
        c->in->conns = c->next;
    if (c->next)
        c->next->prev = c->prev;
    uv_close((uv_handle_t *)&c->tcp, on_closed);
    uv_close((uv_handle_t *)&c->timer, on_closed);
}

/* ---- writing ---- */

static void on_written(uv_write_t *req, int status)
{
    write_job *job = (write_job *)req;
    hp_intake_conn *c = req->handle->data;

    hp_buf_done(&job->bytes);
    free(job);
    c->writes--;
    if (c->gone)
        return;
    if (status != 0) {
        close_now(c);
        return;
    }
    if (c->writes == 0)
        c->paused &= ~(unsigned)PAUSE_WRITE;
    settle(c);
}

static void write_later(hp_intake_conn *c, size_t from)
{
    write_job *job = calloc(1, sizeof *job);
    uv_buf_t b;

    if (job)
        hp_buf_put(&job->bytes, c->out.data + from, c->out.len - from);
    if (!job || job->bytes.failed) {
        free(job);
        close_now(c);
        return;
    }
    b = uv_buf_init((char *)job->bytes.data, (unsigned)job->bytes.len);
    if (uv_write(&job->req, (uv_stream_t *)&c->tcp, &b, 1, on_written) != 0) {
        hp_buf_done(&job->bytes);
        free(job);
        close_now(c);
        return;
    }
    c->writes++;
    c->paused |= PAUSE_WRITE;
}

static void flush(hp_intake_conn *c)
{
    uv_buf_t b;
    int n = 0;

    if (c->gone || (c->out.len == 0 && !c->out.failed))
        return;
    if (c->out.failed) {
        close_now(c);
        return;
    }
    if (c->writes == 0) {
        b = uv_buf_init((char *)c->out.data, (unsigned)c->out.len);
        n = uv_try_write((uv_stream_t *)&c->tcp, &b, 1);
        if (n < 0 && n != UV_EAGAIN) {
            close_now(c);
            return;
        }
    }
    if (n < 0)
        n = 0;
    if ((size_t)n < c->out.len)
        write_later(c, (size_t)n);
    hp_buf_clear(&c->out);
}

static void on_shut(uv_shutdown_t *req, int status)
{
    (void)req; /* the deadline closes what will not shut */
    (void)status;
}

/* Say what is in `out`, then wait for the peer to close. */
static void drain(hp_intake_conn *c)
{
    if (c->draining)
        return;
    end_association(c); /* before the peer hears of it: it may come back at once */
    flush(c);
    if (c->gone)
        return;
    c->draining = true;
    hp_buf_done(&c->stash);
    if (uv_shutdown(&c->shutdown, (uv_stream_t *)&c->tcp, on_shut) != 0)
        close_now(c);
}

static void abort_and_drain(hp_intake_conn *c, uint8_t source, uint8_t reason)
{
    c->in->stats.aborted++;
    hp_ul_abort(c->ul, source, reason, &c->out);
    drain(c);
}

/* ---- deadlines ---- */

static void on_deadline(uv_timer_t *t);

static void set_deadline(hp_intake_conn *c, deadline d, int ms)
{
    c->waiting_for = d;
    c->window_bytes = 0;
    uv_timer_start(&c->timer, on_deadline, (uint64_t)ms, 0);
}

static void timed_out(hp_intake_conn *c, const char *what, const char *why)
{
    c->in->stats.timed_out++;
    hp_intake__refused(c->in, c, what, "", 0, why);
}

static void on_deadline(uv_timer_t *t)
{
    hp_intake_conn *c = t->data;
    const hp_intake_options *o = &c->in->o;
    char why[120];

    switch (c->waiting_for) {
    case D_REQUEST:
        snprintf(why, sizeof why, "no association request within %d ms, %llu bytes came",
                 o->artim_ms, (unsigned long long)c->received_bytes);
        timed_out(c, "connection", why);
        close_now(c);
        return;
    case D_PROGRESS:
        if (c->window_bytes >= HP_INTAKE_PROGRESS_BYTES) {
            set_deadline(c, D_PROGRESS, o->progress_ms);
            return;
        }
        snprintf(why, sizeof why, "no progress inside a message for %d ms", o->progress_ms);
        timed_out(c, "association", why);
        abort_and_drain(c, 2, 0);
        break;
    case D_IDLE:
        snprintf(why, sizeof why, "idle for %d ms", o->idle_ms);
        timed_out(c, "association", why);
        abort_and_drain(c, 2, 0);
        break;
    case D_OURS:
        timed_out(c, "association", "our own disk or ledger did not answer in time");
        close_now(c);
        return;
    case D_WRITE:
        timed_out(c, "association", "the peer does not read its answers");
        close_now(c);
        return;
    case D_DRAIN:
    case D_NONE:
        close_now(c);
        return;
    }
    settle(c);
}

static void choose_deadline(hp_intake_conn *c, bool bytes_came)
{
    const hp_intake_options *o = &c->in->o;
    deadline d = c->waiting_for;

    if (c->draining) {
        if (d != D_DRAIN)
            set_deadline(c, D_DRAIN, o->artim_ms);
    } else if (!c->associated) {
        return; /* D_REQUEST runs since accept */
    } else if (c->paused & PAUSE_WRITE) {
        if (d != D_WRITE)
            set_deadline(c, D_WRITE, o->progress_ms);
    } else if (c->paused) {
        if (d != D_OURS)
            set_deadline(c, D_OURS, o->idle_ms);
    } else if (hp_ul_inside_pdu(c->ul) || hp_dimse_inside_message(&c->dimse)) {
        if (d != D_PROGRESS)
            set_deadline(c, D_PROGRESS, o->progress_ms);
    } else if (d != D_IDLE || bytes_came) {
        set_deadline(c, D_IDLE, o->idle_ms);
    }
}

/* ---- reading ---- */

static void give_buffer(uv_handle_t *h, size_t suggested, uv_buf_t *ret)
{
    hp_intake_conn *c = h->data;

    (void)suggested;
    *ret = uv_buf_init((char *)c->in->read_buffer, sizeof c->in->read_buffer);
}

/* A sender with Nagle on waits for our ACK before it sends the rest of a PDU;
 * the kernel forgets this wish after each read. */
static void ack_at_once(hp_intake_conn *c)
{
    uv_os_fd_t fd;
    int on = 1;

    if (uv_fileno((uv_handle_t *)&c->tcp, &fd) == 0)
        setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
}

static void peer_closed(hp_intake_conn *c, ssize_t nread)
{
    const char *how = nread == UV_EOF ? "closed" : "reset";

    if (!c->draining && c->associated)
        hp_log(HP_LOG_WARNING, "association lost association=%llu peer=%s calling=\"%s\" why=\"%s %s\"",
               (unsigned long long)c->id, c->peer, c->calling_safe, how,
               hp_dimse_inside_message(&c->dimse) ? "inside a message" : "without release");
    else if (!c->draining)
        hp_log(HP_LOG_DEBUG, "connection %s before a request peer=%s bytes=%llu", how, c->peer,
               (unsigned long long)c->received_bytes);
    close_now(c);
}

static void on_read(uv_stream_t *stream, ssize_t nread, const uv_buf_t *buf)
{
    hp_intake_conn *c = stream->data;

    if (nread == 0)
        return;
    if (nread < 0) {
        peer_closed(c, nread);
        return;
    }
    if (c->draining)
        return;
    c->received_bytes += (uint64_t)nread;
    c->window_bytes += (uint64_t)nread;
    process(c, (const uint8_t *)buf->base, (size_t)nread);
    if (!c->gone && !c->paused)
        ack_at_once(c);
}

static void read_or_not(hp_intake_conn *c)
{
    bool want = c->draining || !c->paused;

    if (want && !c->reading)
        uv_read_start((uv_stream_t *)&c->tcp, give_buffer, on_read);
    else if (!want && c->reading)
        uv_read_stop((uv_stream_t *)&c->tcp);
    c->reading = want;
}

/* After anything changed: bytes that had to wait, reading, the deadline. */
static void settle(hp_intake_conn *c)
{
    bool came = false;

    while (!c->gone && !c->draining && !c->paused && c->stash.len > 0) {
        hp_buf waiting = c->stash;

        c->stash = (hp_buf)HP_BUF_INIT;
        process(c, waiting.data, waiting.len);
        hp_buf_done(&waiting);
        came = true;
    }
    if (c->gone)
        return;
    read_or_not(c);
    choose_deadline(c, came);
}

void hp_intake__conn_flow(hp_intake_conn *c)
{
    size_t unwritten = c->slice ? hp_intake__slice_unwritten(c->slice) : 0;

    if (unwritten > HP_INTAKE_UNWRITTEN_MAX)
        c->paused |= PAUSE_DISK;
    else
        c->paused &= ~(unsigned)PAUSE_DISK;
    if (!c->processing && !c->gone)
        settle(c);
}

void hp_intake__conn_saw_study(hp_intake_conn *c, const hp_uid *study)
{
    hp_intake_sink *sink = &c->in->o.sink;
    hp_uid *grown;

    if (!sink->on_study || !c->associated || c->study_count == MAX_STUDIES)
        return;
    for (int i = c->study_count; i-- > 0;)
        if (strcmp(c->studies[i].text, study->text) == 0)
            return;
    grown = realloc(c->studies, (size_t)(c->study_count + 1) * sizeof *grown);
    if (!grown)
        return; /* only readiness is less patient then */
    c->studies = grown;
    c->studies[c->study_count++] = *study;
    sink->on_study(sink->payload, c->id, study, +1);
}

/* ---- messages ---- */

void hp_intake__conn_answer(hp_intake_conn *c, uint16_t status, const char *comment)
{
    hp_buf rsp = HP_BUF_INIT;

    c->slice = NULL;
    hp_dimse_put_response(&c->dimse.command, status, comment, &rsp);
    c->out.failed |= rsp.failed;
    if (!rsp.failed)
        hp_ul_put_data(c->ul, c->dimse.context_id, true, rsp.data, rsp.len, &c->out);
    hp_buf_done(&rsp);
    c->paused &= ~(unsigned)(PAUSE_ANSWER | PAUSE_DISK);
    if (c->processing)
        return; /* process() goes on, flushes and settles */
    flush(c);
    settle(c);
}

static void begin_store(hp_intake_conn *c)
{
    const hp_dimse_command *rq = &c->dimse.command;
    hp_intake_slice_info info = {
        .command = rq,
        .context = hp_ul_context_of(c->ul, c->dimse.context_id),
        .calling_ae = c->calling_safe,
        .peer = c->address,
        .association = c->id,
    };

    c->in->stats.received++;
    c->stores++;
    c->slice = hp_intake__slice_new(c->in, c, &info);
    if (!c->slice)
        return; /* answered A700 at its end */
    if (strcmp(rq->sop_class.text, info.context->abstract_syntax.text) != 0)
        hp_intake__slice_refuse(c->slice, HP_STATUS_CLASS_NOT_SUPPORTED,
                                "SOP class is not the presentation context's");
    else if (hp_intake__below_reserve(c->in))
        hp_intake__slice_refuse(c->slice, HP_STATUS_OUT_OF_RESOURCES,
                                "free space is below the reserve");
    else if (!c->dimse.has_dataset)
        hp_intake__slice_refuse(c->slice, HP_STATUS_CANNOT_UNDERSTAND,
                                "a store request without a dataset");
}

static void refuse_request(hp_intake_conn *c)
{
    char why[80];

    snprintf(why, sizeof why, "request %04XH is not one that we serve",
             c->dimse.command.field);
    hp_intake__refused(c->in, c, "request", "", HP_STATUS_UNRECOGNIZED, why);
    hp_intake__conn_answer(c, HP_STATUS_UNRECOGNIZED, NULL);
}

static void end_message(hp_intake_conn *c)
{
    c->window_bytes += HP_INTAKE_PROGRESS_BYTES; /* a message is progress */
    switch (c->dimse.command.field) {
    case HP_DIMSE_C_STORE_RQ:
        c->paused |= PAUSE_ANSWER;
        if (c->slice)
            hp_intake__slice_end(c->slice);
        else
            hp_intake__conn_answer(c, HP_STATUS_OUT_OF_RESOURCES, "out of memory");
        break;
    case HP_DIMSE_C_ECHO_RQ:
        hp_intake__conn_answer(c, HP_STATUS_SUCCESS, NULL);
        break;
    case HP_DIMSE_C_CANCEL_RQ: /* nothing is ever pending here; no answer */
        break;
    default:
        refuse_request(c);
        break;
    }
}

static void take_data(hp_intake_conn *c, const hp_ul_event *ev)
{
    hp_dimse_event what = HP_DIMSE_MORE;
    hp_error e = HP_ERROR_INIT;
    uint8_t reason;

    if (hp_dimse_take(&c->dimse, ev, &what, &reason, &e) != HP_OK) {
        hp_intake__refused(c->in, c, "request", "", 0, e.msg);
        abort_and_drain(c, 2, reason);
        return;
    }
    if (what == HP_DIMSE_COMMAND && c->dimse.command.field & HP_DIMSE_RESPONSE) {
        hp_intake__refused(c->in, c, "request", "", 0, "an answer to nothing we asked");
        abort_and_drain(c, 0, 0);
        return;
    }
    if (what == HP_DIMSE_COMMAND && c->dimse.command.field == HP_DIMSE_C_STORE_RQ)
        begin_store(c);
    if ((what == HP_DIMSE_DATA || what == HP_DIMSE_DATA_END) && c->slice) {
        c->in->stats.bytes += ev->len;
        hp_intake__slice_data(c->slice, ev->data, ev->len);
        hp_intake__conn_flow(c);
    }
    if (what == HP_DIMSE_DATA_END || (what == HP_DIMSE_COMMAND && !c->dimse.has_dataset))
        end_message(c);
}

/* ---- the association ---- */

static int associations_from(const hp_intake_conn *me)
{
    int n = 0;

    for (const hp_intake_conn *c = me->in->conns; c; c = c->next)
        n += c->associated && memcmp(c->address_bytes, me->address_bytes, 16) == 0;
    return n;
}

/* NULL: welcome. Otherwise why not. */
static const char *objection(hp_intake_conn *c, const hp_ul_request *rq,
                             hp_ul_rejection *ret)
{
    const hp_intake *in = c->in;

    if (strcmp(rq->called_ae, in->o.ae_title) != 0) {
        *ret = HP_UL_REJECT_CALLED;
        return "called AE title is not ours";
    }
    if (!hp_intake__allows(in->rule, in->o.peer_count, rq->calling_ae, c->address_bytes)) {
        *ret = HP_UL_REJECT_CALLING;
        return "no such AE title from this address in the list of peers";
    }
    if (in->stats.open_associations >= in->o.max_associations) {
        *ret = HP_UL_REJECT_LIMIT;
        return "too many associations";
    }
    if (associations_from(c) >= in->o.max_associations_per_peer) {
        *ret = HP_UL_REJECT_LIMIT;
        return "too many associations from this address";
    }
    if (hp_intake__below_reserve(in)) {
        *ret = HP_UL_REJECT_CONGESTION;
        return "free space is below the reserve";
    }
    return NULL;
}

static void log_rejection(hp_intake_conn *c, hp_ul_rejection r, const char *why)
{
    char line[200], called[17];

    safe_title(hp_ul_peer(c->ul)->called_ae, called);
    safe_title(hp_ul_peer(c->ul)->calling_ae, c->calling_safe);
    snprintf(line, sizeof line, "%s, called '%s', rejected %u/%u/%u", why, called, r.result,
             r.source, r.reason);
    c->in->stats.rejected_associations++;
    hp_intake__refused(c->in, c, "association", "", 0, line);
}

/* Which classes were proposed in vain, the first few by name. */
static void log_contexts(hp_intake_conn *c, const hp_ul_request *rq)
{
    hp_buf names = HP_BUF_INIT;
    int refused = 0;

    for (int i = 0; i < rq->context_count; i++) {
        const hp_ul_context *x = &rq->context[i];

        if (x->result != HP_UL_CONTEXT_ACCEPTED && refused++ < 8)
            hp_buf_printf(&names, "%s%s:%u", refused > 1 ? "," : "",
                          x->abstract_syntax.text[0] ? x->abstract_syntax.text : "?",
                          x->result);
    }
    hp_log(HP_LOG_INFO, "association open association=%llu peer=%s calling=\"%s\" contexts=%d not_taken=%d%s%s%s",
           (unsigned long long)c->id, c->peer, c->calling_safe, rq->context_count, refused,
           refused ? " classes=" : "", refused ? hp_buf_str(&names) : "",
           refused > 8 ? ",..." : "");
    hp_buf_done(&names);
}

static void take_request(hp_intake_conn *c)
{
    const hp_ul_request *rq = hp_ul_peer(c->ul);
    hp_ul_rejection r;
    const char *why = objection(c, rq, &r);

    if (why) {
        log_rejection(c, r, why);
        hp_ul_reject(c->ul, r, &c->out);
        drain(c);
        return;
    }
    safe_title(rq->calling_ae, c->calling_safe);
    hp_ul_accept(c->ul, hp_intake__takes_class, c->in, &c->out);
    c->associated = true;
    c->in->stats.associations++;
    c->in->stats.open_associations++;
    log_contexts(c, rq);
}

static void take_release(hp_intake_conn *c)
{
    if (hp_dimse_inside_message(&c->dimse))
        hp_log(HP_LOG_WARNING, "association released inside a message, dropping it association=%llu peer=%s",
               (unsigned long long)c->id, c->peer);
    hp_ul_release(c->ul, &c->out);
    drain(c);
}

static void take_event(hp_intake_conn *c, const hp_ul_event *ev, const uint8_t *at, size_t len)
{
    char why[160];

    switch (ev->kind) {
    case HP_UL_MORE:
        break;
    case HP_UL_ASKED:
        take_request(c);
        break;
    case HP_UL_DATA:
        take_data(c, ev);
        break;
    case HP_UL_RELEASE:
        take_release(c);
        break;
    case HP_UL_ABORTED:
        hp_log(HP_LOG_WARNING, "association aborted by the peer association=%llu peer=%s calling=\"%s\" source=%u reason=%u%s",
               (unsigned long long)c->id, c->peer, c->calling_safe, ev->abort_source,
               ev->abort_reason, hp_dimse_inside_message(&c->dimse) ? " inside a message" : "");
        close_now(c);
        break;
    case HP_UL_REFUSED:
        log_rejection(c, ev->rejection, ev->why);
        drain(c);
        break;
    case HP_UL_VIOLATION:
        snprintf(why, sizeof why, "%s, aborted %u/%u", ev->why, ev->abort_source,
                 ev->abort_reason);
        c->in->stats.aborted++;
        hp_intake__refused(c->in, c, c->associated ? "request" : "association", "", 0, why);
        drain(c);
        break;
    case HP_UL_NOT_DICOM:
        c->in->stats.not_dicom++;
        hp_intake__refused(c->in, c, "connection", "", 0, hp_ul_guess_protocol(at, len));
        close_now(c);
        break;
    }
}

static void process(hp_intake_conn *c, const uint8_t *data, size_t len)
{
    hp_ul_event ev;

    c->processing = true;
    while (len > 0 && !c->gone && !c->draining && !(c->paused & ~(unsigned)PAUSE_DISK)) {
        const uint8_t *at = data;
        size_t had = len;

        hp_ul_next(c->ul, &data, &len, &ev, &c->out);
        take_event(c, &ev, at, had);
        flush(c);
    }
    c->processing = false;
    if (c->gone)
        return;
    if (len > 0 && !c->draining) {
        hp_buf_put(&c->stash, data, len);
        if (c->stash.failed) {
            close_now(c);
            return;
        }
    }
    read_or_not(c);
    choose_deadline(c, true);
}

/* ---- accepting ---- */

void hp_intake__accept(hp_intake *in)
{
    hp_intake_conn *c = calloc(1, sizeof *c);
    int e;

    if (!c || hp_ul_new(&c->ul, NULL) != HP_OK) {
        free(c);
        in->accept_again = true;
        return;
    }
    c->in = in;
    c->id = ++in->next_id;
    c->calling_safe[0] = 0;
    uv_tcp_init(in->loop, &c->tcp);
    uv_timer_init(in->loop, &c->timer);
    c->tcp.data = c->timer.data = c;
    c->open_handles = 2;
    in->live++;
    in->stats.connections++;
    in->stats.open_connections++;
    c->next = in->conns;
    if (in->conns)
        in->conns->prev = c;
    in->conns = c;
    e = uv_accept((uv_stream_t *)&in->listener, (uv_stream_t *)&c->tcp);
    if (e != 0 || in->stats.open_connections > in->o.max_connections) {
        if (e == 0) {
            learn_peer(c);
            hp_intake__refused(in, c, "connection", "", 0, "too many connections");
        }
        close_now(c);
        return;
    }
    learn_peer(c);
    /* DCMTK's senders leave Nagle on; with it on here too, every answer would
     * wait for a delayed ACK: 40 ms per image. */
    uv_tcp_nodelay(&c->tcp, 1);
    uv_tcp_keepalive(&c->tcp, 1, 60);
    set_deadline(c, D_REQUEST, in->o.artim_ms);
    read_or_not(c);
}

void hp_intake__conn_stop(hp_intake_conn *c)
{
    if (c->associated && !c->draining) {
        hp_ul_abort(c->ul, 2, 0, &c->out);
        flush(c); /* as far as the socket takes it now */
    }
    close_now(c);
}
