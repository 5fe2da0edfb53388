/* Reading: from waiting studies to reported ones.
 *
 * DESIGN Two questions are asked of the ledger, each by a call that is in
 * flight at most once: "which studies are ready, and when shall I ask again?"
 * and "is there a job for this idle worker?". A bell during a call makes it be
 * asked once more. Workers are started when there is work and stay, so that a
 * bundle is loaded once; a dead one is replaced by the next job.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/crash.h"
#include "base/log.h"
#include "daemon/run_end.h"
#include "daemon/scheduler_internal.h"

enum { MAX_WORKERS = 16, RETRY_MS = 5000, LOOK_TIMEOUT_S = 120, LEAVE_TIMEOUT_S = 30 };

/* LEAVING: it said that its device failed, and ends; it is given nothing more. */
typedef enum errand { IDLE, CLAIMING, RUN, LOOK, LEAVING } errand;

typedef struct worker {
    hp_reading *reading;
    hp_process *process; /* NULL: none */
    errand errand;
    int64_t job;
    int run;     /* or the look's number */
    bool let_go; /* cancelled or ending: its death is nobody's fault */
    char stage[32];
    double fraction;
    uint64_t started_ms;
} worker;

struct hp_reading {
    uv_loop_t *loop;
    const hp_config *config;
    hp_ledger *ledger;
    void (*reported)(void *payload);
    void *reported_payload;
    char program[HP_PATH_MAX];
    json_t *options; /* the same for every run */
    worker workers[MAX_WORKERS];
    int worker_count;
    hp_look look; /* asked for, not yet with a worker; job 0: none */
    uv_timer_t timer;
    bool asking, ask_again, claim_again;
    bool closing;
    void (*closed)(void *payload);
    void *closed_payload;
    int calls; /* ledger calls in flight */
    /* Ends of runs and looks that the ledger could not take (a full disk); told
     * again by the timer, or their jobs would stay `running` until the next start,
     * or wait for the longest wait. */
    struct tell_call *untold;
};

static void on_timer(uv_timer_t *timer);
static void ask_ready(hp_reading *r);
static void claim(hp_reading *r);
static void maybe_closed(hp_reading *r);

/* ---- workers ---- */

static worker *idle_worker(hp_reading *r)
{
    for (int i = 0; i < r->worker_count; i++)
        if (r->workers[i].errand == IDLE)
            return &r->workers[i];
    return NULL;
}

static void release(worker *w)
{
    w->errand = IDLE;
    w->job = 0;
    w->run = 0;
    w->let_go = false;
    w->stage[0] = '\0';
    w->fraction = 0;
    if (w->process != NULL)
        hp_process_deadline(w->process, 0);
}

/* What became of a worker's errand, on its way to the ledger. */
typedef struct tell_call {
    struct tell_call *next;
    hp_reading *reading;
    hp_ledger_fn tell;
    int64_t job;
    int run;          /* or the look's number */
    unsigned phases;  /* that the look found */
    const char *code; /* NULL: it was asked to die, only its folder goes */
    char words[sizeof((hp_error *)NULL)->msg + 32];
} tell_call;

static hp_code do_died(hp_db *db, void *arg, hp_error *reterr)
{
    const tell_call *c = arg;
    char part[HP_PATH_MAX];

    if (hp_path_fmt(part, NULL, "%s/outbox/%" PRId64 "/%d.part",
                    c->reading->config->state_dir, c->job, c->run) == HP_OK)
        hp_path_remove(part, NULL); /* what stays is litter for the next start */
    if (c->code == NULL)
        return HP_OK;
    return hp_job_died(db, c->job, c->run, true, c->code, c->words, reterr);
}

static hp_code do_looked(hp_db *db, void *arg, hp_error *reterr)
{
    const tell_call *c = arg;

    return hp_job_looked(db, (hp_look){c->job, c->run}, c->phases, reterr);
}

static void after_tell(hp_code code, const hp_error *error, void *arg)
{
    tell_call *c = arg;
    hp_reading *r = c->reading;

    if (code != HP_OK && code != HP_E_STATE)
        hp_log(
            HP_LOG_ERROR, "%s not recorded job=%" PRId64 " error=\"%s\", again in %d s",
            c->tell == do_died ? "death" : "look", c->job, error->msg, RETRY_MS / 1000);
    if (code != HP_OK && code != HP_E_STATE && !r->closing) {
        c->next = r->untold;
        r->untold = c;
        uv_timer_start(&r->timer, on_timer, RETRY_MS, 0);
    } else {
        free(c);
    }
    r->calls--;
    maybe_closed(r);
    hp_reading_bell(r);
}

static void tell(tell_call *c)
{
    c->reading->calls++;
    hp_ledger_call(c->reading->ledger, c->tell, after_tell, c);
}

static void tell_again(hp_reading *r)
{
    while (r->untold != NULL) {
        tell_call *c = r->untold;

        r->untold = c->next;
        tell(c);
    }
}

static void record_death(hp_reading *r, int64_t job, int run, const char *code,
                         const char *words)
{
    tell_call *c = calloc(1, sizeof *c);

    if (c == NULL)
        return; /* the job stays running until the next start */
    *c = (tell_call){.reading = r, .tell = do_died, .job = job, .run = run, .code = code};
    snprintf(c->words, sizeof c->words, "the worker ended: %.70s", words);
    tell(c);
}

static void record_look(hp_reading *r, hp_look look, unsigned phases)
{
    tell_call *c = calloc(1, sizeof *c);

    if (c == NULL)
        return; /* the longest wait decides */
    *c = (tell_call){.reading = r,
                     .tell = do_looked,
                     .job = look.job,
                     .run = look.look,
                     .phases = phases};
    tell(c);
}

typedef struct ended_run {
    hp_reading *reading;
    int64_t job;
    int run;
} ended_run;

static void after_run_end(bool recorded, void *payload)
{
    ended_run *e = payload;
    hp_reading *r = e->reading;

    r->calls--;
    if (recorded)
        r->reported(r->reported_payload);
    else if (!r->closing) /* dropped where the ledger knows a better end */
        record_death(r, e->job, e->run, "results_not_kept", "its results were not kept");
    free(e);
    maybe_closed(r);
    claim(r);
}

static void on_done(worker *w, const json_t *msg)
{
    hp_reading *r = w->reading;
    ended_run *e = malloc(sizeof *e);

    if (e == NULL) { /* its death will be recorded */
        hp_process_kill(w->process);
        return;
    }
    *e = (ended_run){r, w->job, w->run};
    hp_log(HP_LOG_INFO, "run ended job=%" PRId64 " run=%d outcome=%s seconds=%.1f",
           w->job, w->run, hp_json_str(msg, "outcome", "?"),
           (double)(uv_now(r->loop) - w->started_ms) / 1000);
    r->calls++;
    hp_run_end(r->ledger, r->config, w->job, w->run, msg, after_run_end, e);
    release(w);
    if (strcmp(hp_json_str(msg, "reason_code", ""), hp_code_name(HP_E_DEVICE)) == 0) {
        w->errand = LEAVING;
        hp_process_deadline(w->process, LEAVE_TIMEOUT_S);
    }
}

static void on_looked(worker *w, const json_t *msg)
{
    const json_t *phases = json_object_get(msg, "phases");
    unsigned found = 0;

    for (size_t i = 0; i < json_array_size(phases); i++) {
        const char *name = json_string_value(json_array_get(phases, i));
        hp_phase phase = name != NULL ? hp_phase_parse(name) : HP_PHASE_NONE;

        if (phase != HP_PHASE_NONE)
            found |= 1u << phase;
    }
    record_look(w->reading, (hp_look){w->job, w->run}, found);
    release(w);
    claim(w->reading);
}

static void on_message(const json_t *msg, void *payload)
{
    worker *w = payload;
    const char *event = hp_json_str(msg, "event", "");
    bool ours = hp_json_int(msg, "job", 0) == w->job &&
                hp_json_int(msg, w->errand == LOOK ? "look" : "run", 0) == w->run;

    if (!ours || w->let_go || (w->errand != RUN && w->errand != LOOK))
        return; /* of an older run: dropped */
    if (w->errand == RUN && strcmp(event, "progress") == 0) {
        hp_log_safe(hp_json_str(msg, "stage", ""), w->stage, sizeof w->stage);
        w->fraction = hp_json_num(msg, "fraction", 0);
    } else if (w->errand == RUN && strcmp(event, "done") == 0) {
        on_done(w, msg);
    } else if (w->errand == LOOK && strcmp(event, "looked") == 0) {
        on_looked(w, msg);
    }
}

static void on_end(bool clean, const char *words, void *payload)
{
    worker *w = payload;
    hp_reading *r = w->reading;
    errand errand = w->errand;

    w->process = NULL;
    if (errand == IDLE || errand == CLAIMING || errand == LEAVING) {
        if (!clean && !r->closing)
            hp_log(HP_LOG_WARNING, "idle worker ended how=\"%s\"", words);
    } else if (w->let_go || r->closing) {
        hp_log(HP_LOG_INFO, "worker ended job=%" PRId64 ", as asked", w->job);
        if (errand == RUN)
            record_death(r, w->job, w->run, NULL, words);
    } else if (errand == LOOK) {
        hp_log(HP_LOG_WARNING,
               "worker ended while looking job=%" PRId64
               " how=\"%s\", the maximum wait decides",
               w->job, words);
        record_look(r, (hp_look){w->job, w->run}, 0);
    } else {
        hp_log(HP_LOG_ERROR, "worker ended job=%" PRId64 " run=%d how=\"%s\"", w->job,
               w->run, words);
        record_death(r, w->job, w->run,
                     strncmp(words, "killed after", 12) == 0 ? "timeout" : "worker_died",
                     words);
    }
    if (errand != CLAIMING)
        release(w);
    maybe_closed(r);
    claim(r);
}

static hp_code wake_worker(worker *w, hp_error *reterr)
{
    static const hp_process_events EVENTS = {on_message, on_end};

    if (w->process != NULL)
        return HP_OK;
    return hp_process_spawn(w->reading->loop, w->reading->program, &EVENTS, w,
                            &w->process, reterr);
}

/* ---- claims ---- */

typedef struct claim_call {
    worker *worker;
    const char *state_dir;
    hp_job *job;        /* out; NULL: nothing to do, or a look */
    hp_look look;       /* in: look at this instead of claiming */
    json_t *files;      /* out */
    json_t *supersedes; /* out */
    char installation_id[65];
    char out[HP_PATH_MAX];
} claim_call;

static void append_file(const char *name, void *payload)
{
    claim_call *c = payload;
    char path[HP_PATH_MAX];

    if (hp_path_fmt(path, NULL, "%s/spool/%s", c->state_dir, name) == HP_OK)
        json_array_append_new(c->files, json_string(path));
}

static hp_code do_look(hp_db *db, claim_call *c, hp_error *reterr)
{
    hp_auto(hp_job) *job = NULL;
    hp_code code = hp_job_load(db, c->look.job, &job, reterr);

    if (code == HP_OK)
        code = hp_study_files(db, job->study_id, job->revision, append_file, c, reterr);
    return code;
}

static hp_code make_out(claim_call *c, hp_error *reterr)
{
    hp_code code = hp_path_fmt(c->out, reterr, "%s/outbox/%" PRId64 "/%d.part",
                               c->state_dir, c->job->id, c->job->run);

    if (code == HP_OK)
        code = hp_path_remove(c->out, reterr); /* of a life before a crash */
    if (code == HP_OK)
        code = hp_path_mkdirs(c->out, 0700, reterr);
    return code;
}

static hp_code do_claim(hp_db *db, void *arg, hp_error *reterr)
{
    claim_call *c = arg;
    hp_code code;

    c->files = json_array();
    if (c->files == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "no memory for a claim");
    if (c->look.job != 0)
        return do_look(db, c, reterr);
    code = hp_job_claim(db, &c->job, reterr);
    if (code != HP_OK)
        return code;
    hp_crash_point("claimed");
    code = hp_study_files(db, c->job->study_id, c->job->revision, append_file, c, reterr);
    if (code == HP_OK)
        code = hp_job_predecessor(db, c->job, &c->supersedes, reterr);
    if (code == HP_OK)
        code = hp_db_installation_id(db, c->installation_id, reterr);
    if (code == HP_OK)
        code = make_out(c, reterr);
    return code;
}

static json_t *run_message(const hp_reading *r, const claim_call *c)
{
    return json_pack(
        "{ss,sI,si,ss,si,sO,ss,sI,ss,sO,sO}", "do", "run", "job", (json_int_t)c->job->id,
        "run", c->job->run, "study_uid", c->job->study_uid.text, "revision",
        c->job->revision, "files", c->files, "out", c->out, "created_ms",
        (json_int_t)c->job->created_ms, "installation_id", c->installation_id,
        "supersedes", c->supersedes, "options", r->options);
}

static void start_errand(hp_reading *r, worker *w, claim_call *c)
{
    w->started_ms = uv_now(r->loop);
    if (c->job != NULL) {
        w->errand = RUN;
        w->job = c->job->id;
        w->run = c->job->run;
        hp_process_deadline(w->process, r->config->reading.job_timeout_s);
        hp_log(HP_LOG_INFO,
               "job claimed job=%" PRId64 " study=%" PRId64
               " revision=%d run=%d slices=%zu",
               c->job->id, c->job->study_id, c->job->revision, c->job->run,
               json_array_size(c->files));
        hp_process_send_take(w->process, run_message(r, c));
    } else {
        w->errand = LOOK;
        w->job = c->look.job;
        w->run = c->look.look;
        hp_process_deadline(w->process, LOOK_TIMEOUT_S);
        hp_process_send_take(w->process,
                             json_pack("{ss,sI,si,sO,sO}", "do", "look", "job",
                                       (json_int_t)w->job, "look", w->run, "files",
                                       c->files, "options", r->options));
    }
}

static void after_claim(hp_code code, const hp_error *error, void *arg)
{
    claim_call *c = arg;
    worker *w = c->worker;
    hp_reading *r = w->reading;
    hp_error err = HP_ERROR_INIT;
    bool more = code == HP_OK;

    r->calls--;
    w->errand = IDLE;
    if (code == HP_OK && !r->closing)
        code = wake_worker(w, &err);
    else if (code != HP_OK)
        err = *error;
    if (code == HP_OK && !r->closing) {
        start_errand(r, w, c);
    } else if (code != HP_E_EMPTY && code != HP_OK) {
        hp_log(HP_LOG_ERROR, "run not started error=\"%s\"", err.msg);
        if (c->job != NULL)
            record_death(r, c->job->id, c->job->run, "worker_missing", err.msg);
        else if (c->look.job != 0)
            record_look(r, c->look, 0);
        else
            uv_timer_start(&r->timer, on_timer, RETRY_MS, 0);
    }
    json_decref(c->files);
    json_decref(c->supersedes);
    hp_job_free(c->job);
    free(c);
    maybe_closed(r);
    if (more || r->claim_again) {
        r->claim_again = false;
        claim(r);
    }
}

static void claim(hp_reading *r)
{
    worker *w = r->closing ? NULL : idle_worker(r);
    claim_call *c;

    if (w == NULL) {
        r->claim_again = true;
        return;
    }
    c = calloc(1, sizeof *c);
    if (c == NULL)
        return;
    c->worker = w;
    c->state_dir = r->config->state_dir;
    c->look = r->look;
    r->look = (hp_look){0, 0};
    w->errand = CLAIMING;
    r->calls++;
    hp_ledger_call(r->ledger, do_claim, after_claim, c);
}

/* ---- readiness ---- */

typedef struct ready_call {
    hp_reading *reading;
    hp_readiness rule;
    hp_uid *open;
    size_t open_count;
    bool look_wanted;
    int moved;
    hp_look look;
    int64_t again_ms;
} ready_call;

static bool is_open(const char *study_uid, void *payload)
{
    const ready_call *c = payload;

    for (size_t i = 0; i < c->open_count; i++)
        if (strcmp(c->open[i].text, study_uid) == 0)
            return true;
    return false;
}

static hp_code do_ready(hp_db *db, void *arg, hp_error *reterr)
{
    ready_call *c = arg;
    int64_t now;
    hp_code code = hp_job_advance(db, &c->rule, is_open, c, &c->moved,
                                  c->look_wanted ? &c->look : NULL, &c->again_ms, reterr);

    if (code == HP_OK && c->again_ms != INT64_MAX) {
        now = hp_db_mono_ms(db);
        c->again_ms = c->again_ms > now ? c->again_ms - now : 0;
    }
    return code;
}

static void on_timer(uv_timer_t *timer)
{
    hp_reading *r = timer->data;

    tell_again(r);
    ask_ready(r);
    claim(r);
}

static void after_ready(hp_code code, const hp_error *error, void *arg)
{
    ready_call *c = arg;
    hp_reading *r = c->reading;

    r->calls--;
    r->asking = false;
    if (code != HP_OK) {
        hp_log(HP_LOG_ERROR, "readiness not decided error=\"%s\", again in %d s",
               error->msg, RETRY_MS / 1000);
        c->again_ms = RETRY_MS;
    }
    if (code == HP_OK && c->look.job != 0)
        r->look = c->look;
    if (r->untold != NULL && c->again_ms > RETRY_MS)
        c->again_ms = RETRY_MS;
    if (!r->closing && c->again_ms != INT64_MAX)
        uv_timer_start(&r->timer, on_timer, (uint64_t)c->again_ms + 1, 0);
    if (code == HP_OK && (c->moved > 0 || c->look.job != 0))
        claim(r);
    free(c->open);
    free(c);
    maybe_closed(r);
    if (r->ask_again) {
        r->ask_again = false;
        ask_ready(r);
    }
}

static void ask_ready(hp_reading *r)
{
    ready_call *c;

    if (r->closing)
        return;
    if (r->asking) {
        r->ask_again = true;
        return;
    }
    c = calloc(1, sizeof *c);
    if (c == NULL)
        return;
    c->reading = r;
    c->rule = (hp_readiness){(int64_t)r->config->readiness.quiet_s * 1000,
                             (int64_t)r->config->readiness.max_wait_s * 1000,
                             r->config->readiness.phases};
    c->open = hp_ledger_open_studies(r->ledger, &c->open_count);
    c->look_wanted = r->look.job == 0;
    r->asking = true;
    r->calls++;
    hp_ledger_call(r->ledger, do_ready, after_ready, c);
}

/* ---- the whole ---- */

json_t *hp_reading_options(const hp_config *c)
{
    json_t *rules = json_array();

    for (int i = 0; i < c->reading.phase_rule_count; i++) {
        const hp_config_phase_rule *rule = &c->reading.phase_rules[i];

        json_array_append_new(rules,
                              json_pack("{ss,ss,si}", "phase", hp_phase_name(rule->phase),
                                        "description", rule->description, "series_number",
                                        rule->series_number));
    }
    return json_pack("{ss,ss,ss,ss,si,ss,sb,sf,so,ss,ss,ss,ss}", "bundle",
                     c->reading.bundle, "device", c->reading.device, "precision",
                     c->reading.precision, "plan_cache", c->reading.plan_cache, "threads",
                     c->reading.threads, "missing_phase", c->reading.missing_phase,
                     "report_unsuitable", c->report.unsuitable, "min_coverage_mm",
                     c->reading.min_coverage_mm, "phase_rules", rules, "sc_modality",
                     c->report.sc_modality, "tracking_prefix", c->report.tracking_prefix,
                     "ae_title", c->ae_title, "node_name", c->node_name);
}

static void on_news(void *payload)
{
    ask_ready(payload);
}

hp_code hp_reading_open(uv_loop_t *loop, const hp_config *config, hp_ledger *ledger,
                        void (*reported)(void *payload), void *payload, hp_reading **ret,
                        hp_error *reterr)
{
    hp_reading *r = calloc(1, sizeof *r);
    hp_code code;

    if (r == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "no memory for the workers");
    r->loop = loop;
    r->config = config;
    r->ledger = ledger;
    r->reported = reported;
    r->reported_payload = payload;
    r->worker_count = config->reading.workers;
    code = hp_process_program(config->reading.worker_program, "hepar-worker", r->program,
                              reterr);
    if (code == HP_OK && (r->options = hp_reading_options(config)) == NULL)
        code = hp_fail(reterr, HP_E_NO_MEMORY, "no memory for the workers' options");
    if (code != HP_OK) {
        free(r);
        return code;
    }
    for (int i = 0; i < r->worker_count; i++)
        r->workers[i].reading = r;
    uv_timer_init(loop, &r->timer);
    r->timer.data = r;
    hp_ledger_on_news(ledger, on_news, r);
    hp_reading_bell(r);
    *ret = r;
    return HP_OK;
}

static void on_timer_closed(uv_handle_t *handle)
{
    hp_reading *r = handle->data;

    r->closed(r->closed_payload);
    json_decref(r->options);
    free(r);
}

static void maybe_closed(hp_reading *r)
{
    if (!r->closing || r->calls > 0 || uv_is_closing((uv_handle_t *)&r->timer))
        return;
    for (int i = 0; i < r->worker_count; i++)
        if (r->workers[i].process != NULL)
            return;
    uv_close((uv_handle_t *)&r->timer, on_timer_closed);
}

void hp_reading_close(hp_reading *r, void (*cb)(void *payload), void *payload)
{
    r->closing = true;
    r->closed = cb;
    r->closed_payload = payload;
    hp_ledger_on_news(r->ledger, NULL, NULL);
    uv_timer_stop(&r->timer);
    while (r->untold != NULL) { /* the next start finds their jobs `running` */
        tell_call *c = r->untold;

        r->untold = c->next;
        free(c);
    }
    for (int i = 0; i < r->worker_count; i++)
        if (r->workers[i].process != NULL) /* its job runs again at the next start */
            hp_process_kill(r->workers[i].process);
    maybe_closed(r);
}

void hp_reading_bell(hp_reading *r)
{
    ask_ready(r);
    claim(r);
}

void hp_reading_cancelled(hp_reading *r, int64_t job)
{
    for (int i = 0; i < r->worker_count; i++) {
        worker *w = &r->workers[i];

        if (w->errand == RUN && w->job == job && w->process != NULL) {
            w->let_go = true;
            hp_process_kill(w->process);
        }
    }
}

json_t *hp_reading_progress(const hp_reading *r)
{
    json_t *list = json_array();

    for (int i = 0; i < r->worker_count; i++) {
        const worker *w = &r->workers[i];

        if (w->errand == RUN)
            json_array_append_new(
                list,
                json_pack("{sI,si,ss,sf,sf}", "job", (json_int_t)w->job, "run", w->run,
                          "stage", w->stage, "fraction", w->fraction, "seconds",
                          (double)(uv_now(r->loop) - w->started_ms) / 1000));
    }
    return list;
}
