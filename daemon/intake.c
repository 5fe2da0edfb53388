/* The listener: options, limits, free disk space, opening and closing. */
#include "daemon/intake_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/log.h"

#define STORAGE "1.2.840.10008.5.1.4.1.1."

/* A route sends a whole study, and one refused class fails it at the sender:
 * so everything that travels with a CT is taken. */
const char *const hp_intake_default_classes[] = {
    "1.2.840.10008.1.1", /* Verification */
    STORAGE "2",         /* CT */
    STORAGE "2.1",       /* Enhanced CT */
    STORAGE "2.2",       /* Legacy Converted Enhanced CT */
    STORAGE "7",         /* Secondary Capture */
    STORAGE "7.1",       /* multi-frame: single bit, grayscale byte, word, true color */
    STORAGE "7.2",
    STORAGE "7.3",
    STORAGE "7.4",
    STORAGE "11.1",  /* Grayscale Softcopy Presentation State */
    STORAGE "66.4",  /* Segmentation */
    STORAGE "88.11", /* SR: basic text, enhanced, comprehensive, 3D, extensible */
    STORAGE "88.22",
    STORAGE "88.33",
    STORAGE "88.34",
    STORAGE "88.35",
    STORAGE "88.40", /* procedure log, mammography CAD */
    STORAGE "88.50",
    STORAGE "88.59", /* Key Object Selection */
    STORAGE "88.65", /* chest CAD */
    STORAGE "88.67", /* X-ray and radiopharmaceutical dose, colon CAD, ... */
    STORAGE "88.68",
    STORAGE "88.69",
    STORAGE "88.70",
    STORAGE "88.71",
    STORAGE "88.72",
    STORAGE "88.73",
    STORAGE "88.74",
    STORAGE "88.75",
    STORAGE "88.76",
    STORAGE "104.1", /* Encapsulated PDF */
    STORAGE "481.3", /* RT Structure Set */
    NULL,
};

void hp_intake_options_init(hp_intake_options *o)
{
    memset(o, 0, sizeof *o);
    o->host = "127.0.0.1";
    o->port = 11112;
    o->ae_title = "HEPAR";
    o->max_object_bytes = 4ull << 30;
    o->reserve_bytes = 2ull << 30;
    o->max_associations = 64;
    o->max_associations_per_peer = 16;
    o->max_connections = 512;
    o->artim_ms = 10 * 1000;
    o->progress_ms = 30 * 1000;
    o->idle_ms = 600 * 1000;
    o->disk_check_ms = 1000;
}

bool hp_intake__takes_class(const char *abstract_syntax, void *intake)
{
    const hp_intake *in = intake;

    for (int i = 0; hp_intake_default_classes[i]; i++)
        if (strcmp(hp_intake_default_classes[i], abstract_syntax) == 0)
            return true;
    for (int i = 0; i < in->o.extra_class_count; i++)
        if (strcmp(in->extra_class[i], abstract_syntax) == 0)
            return true;
    return false;
}

static void report(hp_intake *in, const hp_intake_conn *c, const char *what,
                   const char *verb, const char *study_uid, unsigned status,
                   const char *why)
{
    char code[24] = "";

    if (status)
        snprintf(code, sizeof code, " status=%04X", status);
    hp_log(HP_LOG_WARNING, "%s %s association=%llu peer=%s calling=\"%s\"%s why=\"%s\"",
           what, verb, (unsigned long long)c->id, c->peer, c->calling_safe, code, why);
    if (in->o.sink.on_refused)
        in->o.sink.on_refused(in->o.sink.payload, what, c->peer, c->calling_safe,
                              study_uid, status, why);
}

void hp_intake__refused(hp_intake *in, const hp_intake_conn *c, const char *what,
                        const char *study_uid, unsigned status, const char *why)
{
    report(in, c, what, "refused", study_uid, status, why);
}

void hp_intake__timed_out(hp_intake *in, const hp_intake_conn *c, const char *what,
                          const char *why)
{
    in->stats.timed_out++;
    report(in, c, what, "timed out", "", 0, why);
}

/* ---- free space: looked at beside the loop, for statvfs may hang ---- */

static uint64_t ask_statvfs(const char *dir)
{
    struct statvfs v;

    return statvfs(dir, &v) == 0 ? (uint64_t)v.f_bavail * v.f_frsize : 0;
}

bool hp_intake__below_reserve(const hp_intake *in)
{
    return in->free_bytes < in->o.reserve_bytes;
}

static void disk_look(uv_work_t *w)
{
    hp_intake *in = w->data;

    in->seen_free = in->o.free_bytes(in->o.spool_dir);
}

static void disk_seen(uv_work_t *w, int status)
{
    hp_intake *in = w->data;
    bool before = hp_intake__below_reserve(in);

    in->disk_work_busy = false;
    if (status == 0)
        in->free_bytes = in->seen_free;
    if (before != hp_intake__below_reserve(in))
        hp_log(before ? HP_LOG_INFO : HP_LOG_WARNING,
               "spool %s free_mib=%llu reserve_mib=%llu",
               before ? "has room again, taking slices"
                      : "below its reserve, refusing slices",
               (unsigned long long)(in->free_bytes >> 20),
               (unsigned long long)(in->o.reserve_bytes >> 20));
    hp_intake__release(in);
}

static void disk_tick(uv_timer_t *t)
{
    hp_intake *in = t->data;

    if (in->accept_again) { /* memory was short when somebody knocked */
        in->accept_again = false;
        hp_intake__accept(in);
    }
    if (in->disk_work_busy)
        return;
    in->disk_work.data = in;
    if (uv_queue_work(in->loop, &in->disk_work, disk_look, disk_seen) == 0) {
        in->disk_work_busy = true;
        in->live++;
    }
}

/* ---- opening ---- */

static const char *keep(hp_intake *in, const char *text)
{
    /* offsets would do, but the buffer was reserved for all of them */
    char *at = (char *)in->strings.data + in->strings.len;

    hp_buf_put(&in->strings, text, strlen(text) + 1);
    return at;
}

static hp_code copy_options(hp_intake *in, const hp_intake_options *o, hp_error *reterr)
{
    size_t bytes = strlen(o->host) + strlen(o->ae_title) + strlen(o->spool_dir) + 3;
    size_t rules = o->peer_count ? (size_t)o->peer_count : 1;
    size_t extras = o->extra_class_count ? (size_t)o->extra_class_count : 1;
    hp_code r = HP_OK;

    for (int i = 0; i < o->extra_class_count; i++)
        bytes += strlen(o->extra_class[i]) + 1;
    in->o = *o;
    in->rule = calloc(rules, sizeof *in->rule);
    in->extra_class = calloc(extras, sizeof *in->extra_class);
    if (!hp_buf_reserve(&in->strings, bytes) || !in->rule || !in->extra_class)
        return hp_fail(reterr, HP_E_NO_MEMORY, "opening the front door");
    in->o.host = keep(in, o->host);
    in->o.ae_title = keep(in, o->ae_title);
    in->o.spool_dir = keep(in, o->spool_dir);
    for (int i = 0; i < o->extra_class_count; i++)
        in->extra_class[i] = keep(in, o->extra_class[i]);
    for (int i = 0; i < o->peer_count && r == HP_OK; i++)
        r = hp_intake__parse_rule(&o->peer[i], &in->rule[i], reterr);
    if (!in->o.free_bytes)
        in->o.free_bytes = ask_statvfs;
    return r;
}

static hp_code check_options(const hp_intake_options *o, hp_error *reterr)
{
    if (!o->host || !o->ae_title || !o->ae_title[0] || strlen(o->ae_title) > 16)
        return hp_fail(reterr, HP_E_INVALID, "the AE title must have 1 to 16 characters");
    if (!o->spool_dir || !o->sink.on_stored)
        return hp_fail(reterr, HP_E_INVALID, "no spool folder or nobody to take slices");
    if (o->artim_ms <= 0 || o->progress_ms <= 0 || o->idle_ms <= 0 ||
        o->disk_check_ms <= 0)
        return hp_fail(reterr, HP_E_INVALID, "a deadline must be longer than nothing");
    if (o->max_associations <= 0 || o->max_associations_per_peer <= 0 ||
        o->max_connections <= 0)
        return hp_fail(reterr, HP_E_INVALID, "a limit must be at least one");
    return HP_OK;
}

static void free_intake(hp_intake *in)
{
    while (in->spare) {
        hp_intake_block *b = in->spare;

        in->spare = b->next;
        free(b);
    }
    hp_spool_free(in->spool);
    hp_buf_done(&in->strings);
    free(in->rule);
    free(in->extra_class);
    free(in);
}

void hp_intake__release(hp_intake *in)
{
    void (*cb)(void *) = in->close_cb;
    void *payload = in->close_payload;

    if (--in->live > 0 || !in->closing)
        return;
    free_intake(in);
    if (cb)
        cb(payload);
}

static void on_handle_closed(uv_handle_t *h)
{
    hp_intake__release(h->data);
}

static void on_knock(uv_stream_t *listener, int status)
{
    if (status == 0)
        hp_intake__accept(listener->data);
    else
        hp_log(HP_LOG_WARNING, "accept failed, going on why=\"%s\"", uv_strerror(status));
}

static int bind_and_listen(hp_intake *in)
{
    struct sockaddr_storage a;
    int len = sizeof a, e;

    e = uv_ip4_addr(in->o.host, in->o.port, (struct sockaddr_in *)&a);
    if (e != 0)
        e = uv_ip6_addr(in->o.host, in->o.port, (struct sockaddr_in6 *)&a);
    if (e == 0)
        e = uv_tcp_bind(&in->listener, (struct sockaddr *)&a, 0);
    if (e == 0)
        e = uv_listen((uv_stream_t *)&in->listener, 128, on_knock);
    if (e == 0)
        e = uv_tcp_getsockname(&in->listener, (struct sockaddr *)&a, &len);
    if (e == 0) /* the port lies at the same place in both families */
        in->port = ntohs(((struct sockaddr_in *)&a)->sin_port);
    return e;
}

hp_code hp_intake_open(uv_loop_t *loop, const hp_intake_options *o, hp_intake **ret,
                       hp_error *reterr)
{
    hp_intake *in;
    hp_code r = check_options(o, reterr);
    int e;

    if (r != HP_OK)
        return r;
    in = calloc(1, sizeof *in);
    if (!in)
        return hp_fail(reterr, HP_E_NO_MEMORY, "opening the front door");
    r = copy_options(in, o, reterr);
    if (r == HP_OK)
        r = hp_spool_open(o->spool_dir, &in->spool, reterr);
    if (r != HP_OK) {
        free_intake(in);
        return r;
    }
    in->loop = loop;
    in->free_bytes = in->o.free_bytes(in->o.spool_dir);
    uv_tcp_init(loop, &in->listener);
    uv_timer_init(loop, &in->disk_timer);
    in->listener.data = in->disk_timer.data = in;
    in->live = 2;
    e = bind_and_listen(in);
    if (e != 0) {
        r = hp_fail(reterr, HP_E_IO, "listening on %s port %d: %s", o->host, o->port,
                    uv_strerror(e));
        hp_intake_close(in, NULL, NULL);
        return r;
    }
    uv_timer_start(&in->disk_timer, disk_tick, (uint64_t)o->disk_check_ms,
                   (uint64_t)o->disk_check_ms);
    *ret = in;
    return HP_OK;
}

int hp_intake_port(const hp_intake *in)
{
    return in->port;
}

void hp_intake_stats_get(const hp_intake *in, hp_intake_stats *ret)
{
    *ret = in->stats;
}

void hp_intake_close(hp_intake *in, void (*cb)(void *payload), void *payload)
{
    in->closing = true;
    in->close_cb = cb;
    in->close_payload = payload;
    in->live++; /* held while the connections are told */
    uv_close((uv_handle_t *)&in->listener, on_handle_closed);
    uv_close((uv_handle_t *)&in->disk_timer, on_handle_closed);
    while (in->conns)
        hp_intake__conn_stop(in->conns);
    hp_intake__release(in);
}
