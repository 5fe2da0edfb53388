/* Delivery: one queue for each peer, one sender process for each group.
 *
 * DESIGN Every peer has its own small machine: ask the ledger for what is due,
 * give it to a fresh hepar-sender, record each answer as it comes, record
 * whether the peer was reached, ask again. Peers know nothing of each other, so
 * one that hangs delays nobody.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/crash.h"
#include "base/log.h"
#include "daemon/scheduler_internal.h"
#include "db/outbox.h"

enum { RETRY_MS = 5000, NO_STATUS = 0xFFFF };

typedef struct lane {
    hp_delivering *delivering;
    const hp_config_peer *peer;
    hp_process *process;
    uv_timer_t timer;
    bool asking, ask_again;
    bool unrecorded; /* an answer is missing in the ledger: it was full, say */
    hp_delivery items[HP_OUTBOX_GROUP];
    bool answered[HP_OUTBOX_GROUP];
    int count;
    bool reached;
    bool busy; /* from a claim with items until its end is recorded */
    char words[160];
} lane;

typedef struct echo {
    hp_delivering *delivering;
    hp_process *process;
    hp_echo_cb cb;
    void *payload;
    bool answered;
} echo;

struct hp_delivering {
    uv_loop_t *loop;
    const hp_config *config;
    hp_ledger *ledger;
    char program[HP_PATH_MAX];
    lane *lanes;
    int lane_count;
    uint64_t group; /* number of the newest group */
    bool closing;
    int calls, echoes, open_timers;
    void (*closed)(void *payload);
    void *closed_payload;
};

static void ask(lane *l);
static void on_timer(uv_timer_t *timer);
static void maybe_closed(hp_delivering *d);

static json_t *peer_json(const hp_config_peer *p)
{
    return json_pack("{ss,ss,ss,si,ss,si}", "name", p->name, "ae_title", p->ae_title,
                     "host", p->host, "port", p->port, "calling_ae", p->calling_ae,
                     "timeout_s", p->timeout_s);
}

/* ---- answers ---- */

typedef struct answer_call {
    lane *lane;
    int64_t delivery;
    hp_code code;
    unsigned status;
    char words[160];
} answer_call;

static hp_code do_answer(hp_db *db, void *arg, hp_error *reterr)
{
    const answer_call *c = arg;
    return hp_outbox_answer(db, c->delivery, c->code, c->status, c->words, reterr);
}

static void after_answer(hp_code code, const hp_error *error, void *arg)
{
    answer_call *c = arg;
    hp_delivering *d = c->lane->delivering;

    if (code != HP_OK) { /* it stays `sent` until the lane is idle, then goes again */
        c->lane->unrecorded = true;
        hp_log(HP_LOG_ERROR, "answer not recorded delivery=%" PRId64 " error=\"%s\"",
               c->delivery, error->msg);
    }
    free(c);
    d->calls--;
    maybe_closed(d);
}

static void record_answer(lane *l, int index, hp_code code, unsigned status,
                          const char *words)
{
    answer_call *c = calloc(1, sizeof *c);

    l->answered[index] = true;
    if (c == NULL) {
        l->unrecorded = true;
        return;
    }
    *c = (answer_call){
        .lane = l, .delivery = l->items[index].id, .code = code, .status = status};
    hp_log_safe(words, c->words, sizeof c->words);
    l->delivering->calls++;
    hp_ledger_call(l->delivering->ledger, do_answer, after_answer, c);
}

static hp_code code_by_name(const char *name)
{
    for (int c = 0; c < HP_CODE_COUNT; c++)
        if (strcmp(hp_code_name((hp_code)c), name) == 0)
            return (hp_code)c;
    return HP_E_INTERNAL;
}

/* Time for one more object: connect, negotiate, send; each has the peer's
 * timeout. */
static int patience_s(const lane *l)
{
    return 4 * l->peer->timeout_s + 30;
}

static void on_sent(lane *l, const json_t *msg)
{
    int64_t delivery = hp_json_int(msg, "delivery", 0);
    hp_code code = code_by_name(hp_json_str(msg, "code", ""));
    unsigned status = (unsigned)hp_json_int(msg, "status", NO_STATUS) & 0xFFFF;
    const char *words = hp_json_str(msg, "words", "");
    int left = 0;

    for (int i = 0; i < l->count; i++) {
        if (l->items[i].id == delivery && !l->answered[i]) {
            if (hp_json_bool(msg, "reached", status != NO_STATUS)) {
                l->reached = true;
                hp_log(code == HP_OK ? HP_LOG_INFO : HP_LOG_WARNING,
                       "delivery job=%" PRId64 " peer=%s delivery=%" PRId64
                       " code=%s status=%04X",
                       l->items[i].job, l->peer->name, delivery, hp_code_name(code),
                       status);
            } else { /* one line for the whole group, at its end */
                hp_log_safe(words, l->words, sizeof l->words);
            }
            record_answer(l, i, code, status, words);
        }
        left += !l->answered[i];
    }
    hp_process_deadline(l->process, patience_s(l));
    if (left == 0)
        hp_process_end(l->process);
}

static void on_message(const json_t *msg, void *payload)
{
    if (strcmp(hp_json_str(msg, "event", ""), "sent") == 0)
        on_sent(payload, msg);
}

/* ---- the end of a group ---- */

typedef struct end_call {
    lane *lane;
    hp_backoff backoff;
    bool reached;
    int64_t died_on; /* 0: nothing to blame */
    char words[160];
} end_call;

static hp_code do_end(hp_db *db, void *arg, hp_error *reterr)
{
    const end_call *c = arg;
    hp_code code = HP_OK;

    if (c->died_on != 0)
        code = hp_outbox_died(db, c->died_on, reterr);
    if (code == HP_OK)
        code = hp_outbox_peer(db, c->lane->peer->name, c->reached, &c->backoff, c->words,
                              reterr);
    return code;
}

static void after_end(hp_code code, const hp_error *error, void *arg)
{
    end_call *c = arg;
    lane *l = c->lane;
    hp_delivering *d = l->delivering;

    l->unrecorded |= code != HP_OK; /* `died_on` may have stayed `sent` */
    if (code != HP_OK)
        hp_log(HP_LOG_ERROR, "back-off not recorded peer=%s error=\"%s\"", l->peer->name,
               error->msg);
    else if (!c->reached)
        hp_log(HP_LOG_WARNING, "peer not reached peer=%s why=\"%s\", backing off",
               l->peer->name, c->words);
    free(c);
    l->busy = false;
    l->count = 0;
    d->calls--;
    maybe_closed(d);
    ask(l);
}

static void end_group(lane *l, bool died, const char *words)
{
    hp_delivering *d = l->delivering;
    end_call *c = calloc(1, sizeof *c);
    int64_t blame = 0;

    for (int i = 0; i < l->count; i++) {
        if (l->answered[i])
            continue;
        if (died && blame == 0)
            blame = l->items[i].id; /* the one it had in hand */
        else
            record_answer(l, i, HP_E_ABORTED, NO_STATUS, words);
    }
    if (c == NULL) {
        l->unrecorded = true;
        l->busy = false;
        uv_timer_start(&l->timer, on_timer, RETRY_MS, 0);
        return;
    }
    *c = (end_call){.lane = l,
                    .backoff = {(int64_t)d->config->delivery.backoff_min_s * 1000,
                                (int64_t)d->config->delivery.backoff_max_s * 1000},
                    .reached = l->reached,
                    .died_on = blame};
    snprintf(c->words, sizeof c->words, "%s", l->words[0] ? l->words : words);
    d->calls++;
    hp_ledger_call(d->ledger, do_end, after_end, c);
}

static void on_end(bool clean, const char *words, void *payload)
{
    lane *l = payload;
    char why[80];

    l->process = NULL;
    if (l->delivering->closing) {
        maybe_closed(l->delivering); /* unanswered ones are queued at the next start */
        return;
    }
    snprintf(why, sizeof why, "the sender ended: %s", words);
    if (!clean)
        hp_log(HP_LOG_ERROR, "sender ended peer=%s how=\"%s\"", l->peer->name, words);
    end_group(l, !clean, why);
}

/* ---- asking and sending ---- */

static json_t *group_message(lane *l)
{
    json_t *items = json_array();
    char path[HP_PATH_MAX];

    for (int i = 0; i < l->count; i++) {
        const hp_delivery *d = &l->items[i];

        hp_path_fmt(path, NULL, "%s/outbox/%s", l->delivering->config->state_dir,
                    d->path);
        json_array_append_new(items,
                              json_pack("{sI,ss,ss,ss}", "delivery", (json_int_t)d->id,
                                        "path", path, "sop_class", d->sop_class.text,
                                        "sop_instance", d->sop_instance.text));
    }
    return json_pack("{ss,sI,so,so}", "do", "send", "delivery_group",
                     (json_int_t)++l->delivering->group, "peer", peer_json(l->peer),
                     "items", items);
}

static void send_group(lane *l)
{
    static const hp_process_events EVENTS = {on_message, on_end};
    hp_error err = HP_ERROR_INIT;

    l->busy = true;
    l->reached = false;
    l->words[0] = '\0';
    memset(l->answered, 0, sizeof l->answered);
    if (hp_process_spawn(l->delivering->loop, l->delivering->program, &EVENTS, l,
                         &l->process, &err) != HP_OK) {
        hp_log(HP_LOG_ERROR, "no sender peer=%s error=\"%s\", backing off", l->peer->name,
               err.msg);
        end_group(l, false, err.msg);
        return;
    }
    hp_crash_point("sending");
    hp_process_deadline(l->process, patience_s(l));
    hp_process_send_take(l->process, group_message(l));
}

typedef struct ask_call {
    lane *lane;
    bool requeue, requeued;
    hp_delivery items[HP_OUTBOX_GROUP];
    int count;
    int64_t again_ms;
} ask_call;

static hp_code do_ask(hp_db *db, void *arg, hp_error *reterr)
{
    ask_call *c = arg;
    const char *peer = c->lane->peer->name;
    hp_code code = c->requeue ? hp_outbox_requeue(db, peer, reterr) : HP_OK;

    c->requeued = c->requeue && code == HP_OK;
    if (code == HP_OK)
        code = hp_outbox_claim(db, peer, c->items, &c->count, &c->again_ms, reterr);
    if (code == HP_OK && c->again_ms != INT64_MAX) {
        int64_t now = hp_db_wall_ms(db);
        c->again_ms = c->again_ms > now ? c->again_ms - now : 0;
    }
    return code;
}

static void on_timer(uv_timer_t *timer)
{
    ask(timer->data);
}

static void after_ask(hp_code code, const hp_error *error, void *arg)
{
    ask_call *c = arg;
    lane *l = c->lane;
    hp_delivering *d = l->delivering;

    l->asking = false;
    d->calls--;
    if (c->requeued)
        l->unrecorded = false;
    if (code != HP_OK) {
        hp_log(HP_LOG_ERROR, "queue not read peer=%s error=\"%s\", again in %d s",
               l->peer->name, error->msg, RETRY_MS / 1000);
        c->again_ms = RETRY_MS;
    }
    if (code == HP_OK && c->count > 0 && !d->closing) {
        memcpy(l->items, c->items, sizeof l->items);
        l->count = c->count;
        send_group(l);
    } else if (c->again_ms != INT64_MAX && !d->closing) {
        uv_timer_start(&l->timer, on_timer, (uint64_t)c->again_ms + 1, 0);
    }
    free(c);
    maybe_closed(d);
    if (l->ask_again) {
        l->ask_again = false;
        ask(l);
    }
}

static void ask(lane *l)
{
    hp_delivering *d = l->delivering;
    ask_call *c;

    if (d->closing || l->busy)
        return; /* the end of a group asks again */
    if (l->asking) {
        l->ask_again = true;
        return;
    }
    c = calloc(1, sizeof *c);
    if (c == NULL)
        return;
    c->lane = l;
    c->requeue = l->unrecorded; /* the lane is idle: what is `sent` is in no hand */
    c->again_ms = INT64_MAX;
    l->asking = true;
    d->calls++;
    hp_ledger_call(d->ledger, do_ask, after_ask, c);
}

/* ---- echo ---- */

static void on_echo_message(const json_t *msg, void *payload)
{
    echo *e = payload;

    if (e->answered || strcmp(hp_json_str(msg, "event", ""), "echo") != 0)
        return;
    e->answered = true;
    e->cb(msg, NULL, e->payload);
    hp_process_end(e->process);
}

static void on_echo_end(bool clean, const char *words, void *payload)
{
    echo *e = payload;
    hp_delivering *d = e->delivering;

    (void)clean;
    if (!e->answered)
        e->cb(NULL, words, e->payload);
    free(e);
    d->echoes--;
    maybe_closed(d);
}

void hp_delivering_echo(hp_delivering *d, const hp_config_peer *peer, hp_echo_cb cb,
                        void *payload)
{
    static const hp_process_events EVENTS = {on_echo_message, on_echo_end};
    hp_error err = HP_ERROR_INIT;
    echo *e = calloc(1, sizeof *e);

    if (e == NULL) {
        cb(NULL, "out of memory", payload);
        return;
    }
    *e = (echo){.delivering = d, .cb = cb, .payload = payload};
    if (hp_process_spawn(d->loop, d->program, &EVENTS, e, &e->process, &err) != HP_OK) {
        cb(NULL, err.msg, payload);
        free(e);
        return;
    }
    d->echoes++;
    hp_process_deadline(e->process, 3 * peer->timeout_s + 5);
    hp_process_send_take(e->process,
                         json_pack("{ss,so}", "do", "echo", "peer", peer_json(peer)));
}

/* ---- the whole ---- */

hp_code hp_delivering_open(uv_loop_t *loop, const hp_config *config, hp_ledger *ledger,
                           hp_delivering **ret, hp_error *reterr)
{
    hp_delivering *d = calloc(1, sizeof *d);
    hp_code code;

    if (d == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "no memory for delivery");
    d->loop = loop;
    d->config = config;
    d->ledger = ledger;
    d->lanes = calloc((size_t)config->peer_count + 1, sizeof *d->lanes);
    code = d->lanes == NULL ? hp_fail(reterr, HP_E_NO_MEMORY, "no memory for delivery")
                            : hp_process_program(config->delivery.sender_program,
                                                 "hepar-sender", d->program, reterr);
    if (code != HP_OK) {
        free(d->lanes);
        free(d);
        return code;
    }
    for (int i = 0; i < config->peer_count; i++) {
        lane *l = &d->lanes[d->lane_count];

        if (!config->peers[i].results)
            continue;
        d->lane_count++;
        l->delivering = d;
        l->peer = &config->peers[i];
        uv_timer_init(loop, &l->timer);
        l->timer.data = l;
        d->open_timers++;
    }
    hp_delivering_bell(d);
    *ret = d;
    return HP_OK;
}

static void finish_close(hp_delivering *d)
{
    d->closed(d->closed_payload);
    free(d->lanes);
    free(d);
}

static void on_timer_closed(uv_handle_t *handle)
{
    lane *l = handle->data;
    hp_delivering *d = l->delivering;

    if (--d->open_timers == 0)
        finish_close(d);
}

static void maybe_closed(hp_delivering *d)
{
    if (!d->closing || d->calls > 0 || d->echoes > 0)
        return;
    for (int i = 0; i < d->lane_count; i++)
        if (d->lanes[i].process != NULL ||
            uv_is_closing((uv_handle_t *)&d->lanes[i].timer))
            return;
    if (d->lane_count == 0) {
        finish_close(d);
        return;
    }
    for (int i = 0; i < d->lane_count; i++)
        uv_close((uv_handle_t *)&d->lanes[i].timer, on_timer_closed);
}

void hp_delivering_close(hp_delivering *d, void (*cb)(void *payload), void *payload)
{
    d->closing = true;
    d->closed = cb;
    d->closed_payload = payload;
    for (int i = 0; i < d->lane_count; i++) {
        uv_timer_stop(&d->lanes[i].timer);
        if (d->lanes[i].process != NULL)
            hp_process_kill(d->lanes[i].process);
    }
    maybe_closed(d);
}

void hp_delivering_bell(hp_delivering *d)
{
    for (int i = 0; i < d->lane_count; i++)
        ask(&d->lanes[i]);
}

json_t *hp_delivering_progress(const hp_delivering *d)
{
    json_t *list = json_array();

    for (int i = 0; i < d->lane_count; i++)
        if (d->lanes[i].process != NULL)
            json_array_append_new(list,
                                  json_pack("{ss,si}", "peer", d->lanes[i].peer->name,
                                            "objects", d->lanes[i].count));
    return list;
}
