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

typedef struct write_job {
    uv_write_t req;
    hp_buf bytes;
} write_job;

/* ---- who it is ---- */

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
    hp_log(HP_LOG_INFO,
           "association closed association=%llu peer=%s calling=\"%s\" stores=%llu",
           (unsigned long long)c->id, c->peer, c->calling_safe,
           (unsigned long long)c->stores);
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

void hp_intake__conn_close(hp_intake_conn *c)
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
        hp_intake__conn_close(c);
        return;
    }
    if (c->writes == 0)
        c->paused &= ~(unsigned)HP_PAUSE_WRITE;
    hp_intake__conn_settle(c);
}

static void write_later(hp_intake_conn *c, size_t from)
{
    write_job *job = calloc(1, sizeof *job);
    uv_buf_t b;

    if (job)
        hp_buf_put(&job->bytes, c->out.data + from, c->out.len - from);
    if (!job || job->bytes.failed) {
        free(job);
        hp_intake__conn_close(c);
        return;
    }
    b = uv_buf_init((char *)job->bytes.data, (unsigned)job->bytes.len);
    if (uv_write(&job->req, (uv_stream_t *)&c->tcp, &b, 1, on_written) != 0) {
        hp_buf_done(&job->bytes);
        free(job);
        hp_intake__conn_close(c);
        return;
    }
    c->writes++;
    c->paused |= HP_PAUSE_WRITE;
}

void hp_intake__conn_flush(hp_intake_conn *c)
{
    uv_buf_t b;
    int n = 0;

    if (c->gone || (c->out.len == 0 && !c->out.failed))
        return;
    if (c->out.failed) {
        hp_intake__conn_close(c);
        return;
    }
    if (c->writes == 0) {
        b = uv_buf_init((char *)c->out.data, (unsigned)c->out.len);
        n = uv_try_write((uv_stream_t *)&c->tcp, &b, 1);
        if (n < 0 && n != UV_EAGAIN) {
            hp_intake__conn_close(c);
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
void hp_intake__conn_drain(hp_intake_conn *c)
{
    if (c->draining)
        return;
    end_association(c); /* before the peer hears of it: it may come back at once */
    hp_intake__conn_flush(c);
    if (c->gone)
        return;
    c->draining = true;
    hp_buf_done(&c->stash);
    if (uv_shutdown(&c->shutdown, (uv_stream_t *)&c->tcp, on_shut) != 0)
        hp_intake__conn_close(c);
}

void hp_intake__conn_abort(hp_intake_conn *c, uint8_t source, uint8_t reason)
{
    c->in->stats.aborted++;
    hp_ul_abort(c->ul, source, reason, &c->out);
    hp_intake__conn_drain(c);
}

/* ---- deadlines ---- */

static void on_deadline(uv_timer_t *t);

static void set_deadline(hp_intake_conn *c, hp_intake_deadline d, int ms)
{
    c->waiting_for = d;
    c->window_bytes = 0;
    uv_timer_start(&c->timer, on_deadline, (uint64_t)ms, 0);
}

static void on_deadline(uv_timer_t *t)
{
    hp_intake_conn *c = t->data;
    const hp_intake_options *o = &c->in->o;
    char why[120];

    switch (c->waiting_for) {
    case HP_DEADLINE_REQUEST:
        snprintf(why, sizeof why, "no association request within %d ms, %llu bytes came",
                 o->artim_ms, (unsigned long long)c->received_bytes);
        hp_intake__timed_out(c->in, c, "connection", why);
        hp_intake__conn_close(c);
        return;
    case HP_DEADLINE_PROGRESS:
        if (c->window_bytes >= HP_INTAKE_PROGRESS_BYTES) {
            set_deadline(c, HP_DEADLINE_PROGRESS, o->progress_ms);
            return;
        }
        snprintf(why, sizeof why, "no progress inside a message for %d ms",
                 o->progress_ms);
        hp_intake__timed_out(c->in, c, "association", why);
        hp_intake__conn_abort(c, 2, 0);
        break;
    case HP_DEADLINE_IDLE:
        snprintf(why, sizeof why, "idle for %d ms", o->idle_ms);
        hp_intake__timed_out(c->in, c, "association", why);
        hp_intake__conn_abort(c, 2, 0);
        break;
    case HP_DEADLINE_OURS:
        hp_intake__timed_out(c->in, c, "association",
                             "our own disk or ledger did not answer in time");
        hp_intake__conn_close(c);
        return;
    case HP_DEADLINE_WRITE:
        hp_intake__timed_out(c->in, c, "association",
                             "the peer does not read its answers");
        hp_intake__conn_close(c);
        return;
    case HP_DEADLINE_DRAIN:
    case HP_DEADLINE_NONE:
        hp_intake__conn_close(c);
        return;
    }
    hp_intake__conn_settle(c);
}

static void choose_deadline(hp_intake_conn *c, bool bytes_came)
{
    const hp_intake_options *o = &c->in->o;
    hp_intake_deadline d = c->waiting_for;

    if (c->draining) {
        if (d != HP_DEADLINE_DRAIN)
            set_deadline(c, HP_DEADLINE_DRAIN, o->artim_ms);
    } else if (!c->associated) {
        return; /* HP_DEADLINE_REQUEST runs since accept */
    } else if (c->paused & HP_PAUSE_WRITE) {
        if (d != HP_DEADLINE_WRITE)
            set_deadline(c, HP_DEADLINE_WRITE, o->progress_ms);
    } else if (c->paused) {
        if (d != HP_DEADLINE_OURS)
            set_deadline(c, HP_DEADLINE_OURS, o->idle_ms);
    } else if (hp_ul_inside_pdu(c->ul) || hp_dimse_inside_message(&c->dimse)) {
        if (d != HP_DEADLINE_PROGRESS)
            set_deadline(c, HP_DEADLINE_PROGRESS, o->progress_ms);
    } else if (d != HP_DEADLINE_IDLE || bytes_came) {
        set_deadline(c, HP_DEADLINE_IDLE, o->idle_ms);
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
        hp_log(HP_LOG_WARNING,
               "association lost association=%llu peer=%s calling=\"%s\" why=\"%s %s\"",
               (unsigned long long)c->id, c->peer, c->calling_safe, how,
               hp_dimse_inside_message(&c->dimse) ? "inside a message"
                                                  : "without release");
    else if (!c->draining)
        hp_log(HP_LOG_DEBUG, "connection %s before a request peer=%s bytes=%llu", how,
               c->peer, (unsigned long long)c->received_bytes);
    hp_intake__conn_close(c);
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
    hp_intake__conn_take(c, (const uint8_t *)buf->base, (size_t)nread);
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

void hp_intake__conn_after_bytes(hp_intake_conn *c)
{
    read_or_not(c);
    choose_deadline(c, true);
}

/* After anything changed: bytes that had to wait, reading, the deadline. */
void hp_intake__conn_settle(hp_intake_conn *c)
{
    bool came = false;

    while (!c->gone && !c->draining && !c->paused && c->stash.len > 0) {
        hp_buf waiting = c->stash;

        c->stash = (hp_buf)HP_BUF_INIT;
        hp_intake__conn_take(c, waiting.data, waiting.len);
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
        c->paused |= HP_PAUSE_DISK;
    else
        c->paused &= ~(unsigned)HP_PAUSE_DISK;
    if (!c->processing && !c->gone)
        hp_intake__conn_settle(c);
}

/* ---- accepting ---- */

/* No address gets more than half of the connections, so that a crowd from one
 * place leaves room for the others. One line a second says so. */
static bool is_one_too_many(hp_intake_conn *me)
{
    hp_intake *in = me->in;
    const char *why = NULL;
    int same = 0;

    for (const hp_intake_conn *c = in->conns; c; c = c->next)
        same += memcmp(c->address_bytes, me->address_bytes, 16) == 0;
    if (in->stats.open_connections > in->o.max_connections)
        why = "too many connections";
    else if (same > (in->o.max_connections + 1) / 2)
        why = "too many connections from this address";
    if (why && (in->crowd_said_ms == 0 || uv_now(in->loop) - in->crowd_said_ms > 1000)) {
        in->crowd_said_ms = uv_now(in->loop);
        hp_intake__refused(in, me, "connection", "", 0, why);
    }
    return why != NULL;
}

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
    if (e == 0)
        learn_peer(c);
    if (e != 0 || is_one_too_many(c)) {
        hp_intake__conn_close(c);
        return;
    }
    /* DCMTK's senders leave Nagle on; with it on here too, every answer would
     * wait for a delayed ACK: 40 ms per image. */
    uv_tcp_nodelay(&c->tcp, 1);
    uv_tcp_keepalive(&c->tcp, 1, 60);
    set_deadline(c, HP_DEADLINE_REQUEST, in->o.artim_ms);
    read_or_not(c);
}

void hp_intake__conn_stop(hp_intake_conn *c)
{
    if (c->associated && !c->draining) {
        hp_ul_abort(c->ul, 2, 0, &c->out);
        hp_intake__conn_flush(c); /* as far as the socket takes it now */
    }
    hp_intake__conn_close(c);
}
