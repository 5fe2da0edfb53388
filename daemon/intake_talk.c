/* What is said on a connection: the association, messages and their answers. */
#include "daemon/intake_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* Printable, and no quote that could end a value in the log line. */
static void safe_title(const char *title, char ret[17])
{
    hp_log_safe(title, ret, 17);
    for (char *p = ret; *p; p++)
        if (*p == '"' || *p == '\\')
            *p = '?';
}

enum { MAX_STUDIES = 256 };

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
    c->paused &= ~(unsigned)(HP_PAUSE_ANSWER | HP_PAUSE_DISK);
    if (c->processing)
        return; /* hp_intake__conn_take() goes on, flushes and settles */
    hp_intake__conn_flush(c);
    hp_intake__conn_settle(c);
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
        c->paused |= HP_PAUSE_ANSWER;
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
        hp_intake__conn_abort(c, 2, reason);
        return;
    }
    if (what == HP_DIMSE_COMMAND && c->dimse.command.field & HP_DIMSE_RESPONSE) {
        hp_intake__refused(c->in, c, "request", "", 0, "an answer to nothing we asked");
        hp_intake__conn_abort(c, 0, 0);
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
    if (!hp_intake__allows(in->rule, in->o.peer_count, rq->calling_ae,
                           c->address_bytes)) {
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
    snprintf(line, sizeof line, "%s, called '%s', rejected %u/%u/%u", why, called,
             r.result, r.source, r.reason);
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
    hp_log(HP_LOG_INFO,
           "association open association=%llu peer=%s calling=\"%s\" contexts=%d "
           "not_taken=%d%s%s%s",
           (unsigned long long)c->id, c->peer, c->calling_safe, rq->context_count,
           refused, refused ? " classes=" : "", refused ? hp_buf_str(&names) : "",
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
        hp_intake__conn_drain(c);
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
        hp_log(
            HP_LOG_WARNING,
            "association released inside a message, dropping it association=%llu peer=%s",
            (unsigned long long)c->id, c->peer);
    hp_ul_release(c->ul, &c->out);
    hp_intake__conn_drain(c);
}

static void take_event(hp_intake_conn *c, const hp_ul_event *ev, const uint8_t *at,
                       size_t len)
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
        hp_log(HP_LOG_WARNING,
               "association aborted by the peer association=%llu peer=%s calling=\"%s\" "
               "source=%u reason=%u%s",
               (unsigned long long)c->id, c->peer, c->calling_safe, ev->abort_source,
               ev->abort_reason,
               hp_dimse_inside_message(&c->dimse) ? " inside a message" : "");
        hp_intake__conn_close(c);
        break;
    case HP_UL_REFUSED:
        log_rejection(c, ev->rejection, ev->why);
        hp_intake__conn_drain(c);
        break;
    case HP_UL_VIOLATION:
        snprintf(why, sizeof why, "%s, aborted %u/%u", ev->why, ev->abort_source,
                 ev->abort_reason);
        c->in->stats.aborted++;
        hp_intake__refused(c->in, c, c->associated ? "request" : "association", "", 0,
                           why);
        hp_intake__conn_drain(c);
        break;
    case HP_UL_NOT_DICOM:
        c->in->stats.not_dicom++;
        hp_intake__refused(c->in, c, "connection", "", 0, hp_ul_guess_protocol(at, len));
        hp_intake__conn_close(c);
        break;
    }
}

void hp_intake__conn_take(hp_intake_conn *c, const uint8_t *data, size_t len)
{
    hp_ul_event ev;

    c->processing = true;
    while (len > 0 && !c->gone && !c->draining &&
           !(c->paused & ~(unsigned)HP_PAUSE_DISK)) {
        const uint8_t *at = data;
        size_t had = len;

        hp_ul_next(c->ul, &data, &len, &ev, &c->out);
        take_event(c, &ev, at, had);
        hp_intake__conn_flush(c);
    }
    c->processing = false;
    if (c->gone)
        return;
    if (len > 0 && !c->draining) {
        hp_buf_put(&c->stash, data, len);
        if (c->stash.failed) {
            hp_intake__conn_close(c);
            return;
        }
    }
    hp_intake__conn_after_bytes(c);
}
