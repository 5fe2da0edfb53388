/* hepard: the daemon.
 *
 * One libuv loop: listens, speaks DICOM, spools, keeps the ledger, decides
 * readiness, supervises, answers heparctl. It never decodes pixels, never
 * parses a dataset with DCMTK, never touches a GPU; what may die is a child.
 *
 * Start: configuration, lock, ledger (migrate, integrity), recovery, ledger
 * thread, children, control socket, and the front door last, so that nobody is
 * answered before everything stands. Ending is the same way back.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "base/log.h"
#include "config/config.h"
#include "daemon/child.h"
#include "daemon/control.h"
#include "daemon/intake.h"
#include "daemon/ledger.h"
#include "daemon/recovery.h"
#include "daemon/scheduler.h"
#include "daemon/supervise.h"
#include "db/inference.h"

enum { EXIT_USAGE = 2 };

typedef struct daemon_state {
    uv_loop_t loop;
    hp_config *config;
    hp_ledger *ledger;
    hp_scheduler *scheduler;
    hp_control *control;
    hp_intake *intake;
    const json_t *inference; /* what a worker said would serve; NULL: it was not asked */
    uv_signal_t signals[3];
    bool ending;
} daemon_state;

/* ---- the front door's news ---- */

static void on_stored(void *payload, const hp_stored *s, hp_stored_cb done,
                      void *done_payload)
{
    daemon_state *d = payload;
    hp_ledger_store(d->ledger, s, done, done_payload);
}

static void on_study(void *payload, uint64_t association, const hp_uid *study, int delta)
{
    daemon_state *d = payload;

    (void)association;
    hp_ledger_association(d->ledger, study->text, delta);
}

static void on_refused(void *payload, const char *what, const char *peer,
                       const char *calling_ae, const char *study_uid, unsigned status,
                       const char *why)
{
    daemon_state *d = payload;

    if (status != 0)
        hp_ledger_refused(d->ledger, study_uid, "%s from %s at %s, status %04XH: %s",
                          what, *calling_ae ? calling_ae : "-", peer, status, why);
    else
        hp_ledger_refused(d->ledger, study_uid, "%s from %s at %s: %s", what,
                          *calling_ae ? calling_ae : "-", peer, why);
}

static hp_code open_door(daemon_state *d, hp_error *reterr)
{
    const hp_config *c = d->config;
    hp_intake_peer peers[HP_CONFIG_MAX_LIST];
    const char *classes[HP_CONFIG_MAX_LIST];
    char spool[HP_PATH_MAX];
    hp_intake_options o;
    hp_code code = hp_path_fmt(spool, reterr, "%s/spool", c->state_dir);

    if (code != HP_OK)
        return code;
    hp_intake_options_init(&o);
    for (int i = 0; i < c->intake.allow_count; i++) {
        snprintf(peers[i].ae_title, sizeof peers[i].ae_title, "%s",
                 c->intake.allow[i].ae_title);
        snprintf(peers[i].address, sizeof peers[i].address, "%s",
                 c->intake.allow[i].address);
    }
    for (int i = 0; i < c->intake.sop_class_count; i++)
        classes[i] = c->intake.sop_classes[i].text;
    o.host = c->listen;
    o.port = c->port;
    o.ae_title = c->ae_title;
    o.peer = peers;
    o.peer_count = c->intake.allow_count;
    o.extra_class = classes;
    o.extra_class_count = c->intake.sop_class_count;
    o.spool_dir = spool;
    o.max_object_bytes = (uint64_t)c->intake.max_object_bytes;
    o.reserve_bytes = (uint64_t)c->intake.disk_reserve_bytes;
    o.max_associations = c->intake.max_associations;
    o.max_associations_per_peer = c->intake.max_associations_per_peer;
    o.artim_ms = c->intake.artim_s * 1000;
    o.progress_ms = c->intake.progress_s * 1000;
    o.idle_ms = c->intake.idle_s * 1000;
    o.sink = (hp_intake_sink){d, on_stored, on_study, on_refused};
    return hp_intake_open(&d->loop, &o, &d->intake, reterr);
}

/* ---- ending, step by step ---- */

static void after_scheduler(void *payload)
{
    daemon_state *d = payload;

    d->scheduler = NULL;
    hp_ledger_close(d->ledger);
    d->ledger = NULL;
}

static void after_control(void *payload)
{
    daemon_state *d = payload;

    d->control = NULL;
    if (d->scheduler != NULL)
        hp_scheduler_close(d->scheduler, after_scheduler, d);
    else
        after_scheduler(d);
}

static void after_intake(void *payload)
{
    daemon_state *d = payload;

    d->intake = NULL;
    if (d->control != NULL)
        hp_control_close(d->control, after_control, d);
    else
        after_control(d);
}

static void end(daemon_state *d)
{
    if (d->ending)
        return;
    d->ending = true;
    for (size_t i = 0; i < sizeof d->signals / sizeof *d->signals; i++)
        if (d->signals[i].loop != NULL)
            uv_close((uv_handle_t *)&d->signals[i], NULL);
    if (d->control != NULL)
        hp_control_set_intake(d->control, NULL);
    if (d->intake != NULL)
        hp_intake_close(d->intake, after_intake, d);
    else
        after_intake(d);
}

static void on_signal(uv_signal_t *handle, int number)
{
    daemon_state *d = handle->data;

    if (number == SIGHUP) {
        hp_log(HP_LOG_WARNING, "SIGHUP ignored, the configuration is read at start only");
        return;
    }
    hp_log(HP_LOG_INFO, "ending signal=%d", number);
    end(d);
}

static void watch_signals(daemon_state *d)
{
    static const int NUMBERS[] = {SIGTERM, SIGINT, SIGHUP};

    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < sizeof NUMBERS / sizeof *NUMBERS; i++) {
        uv_signal_init(&d->loop, &d->signals[i]);
        d->signals[i].data = d;
        uv_signal_start(&d->signals[i], on_signal, NUMBERS[i]);
    }
}

/* ---- starting ---- */

static hp_code open_ledger(daemon_state *d, hp_error *reterr)
{
    char path[HP_PATH_MAX];
    hp_recovery_counts n;
    hp_db *db = NULL;
    hp_code code = hp_path_fmt(path, reterr, "%s/hepar.db", d->config->state_dir);

    if (code == HP_OK)
        code = hp_db_open(path, NULL, &db, reterr);
    if (code != HP_OK)
        return hp_wrap(reterr, code, "%s/hepar.db", d->config->state_dir);
    code = hp_recovery_run(d->config, db, &n, reterr);
    if (code != HP_OK) {
        hp_db_close(db);
        return code;
    }
    if (n.filed + n.parts + n.unreadable + n.litter + n.lost > 0 ||
        n.jobs + n.deliveries > 0)
        hp_log(n.lost + n.unreadable > 0 ? HP_LOG_ERROR : HP_LOG_INFO,
               "recovered filed=%zu parts=%zu unreadable=%zu litter=%zu lost=%zu jobs=%d "
               "deliveries=%d",
               n.filed, n.parts, n.unreadable, n.litter, n.lost, n.jobs, n.deliveries);
    if (n.retired > 0)
        hp_log(HP_LOG_WARNING, "peers are no longer configured jobs=%d, not sent there",
               n.retired);
    if (d->inference != NULL && hp_inference_told(db, d->inference, reterr) != HP_OK)
        hp_log(HP_LOG_WARNING, "device not recorded error=\"%s\", going on", reterr->msg);
    return hp_ledger_open_take(&d->loop, d->config, db, &d->ledger, reterr);
}

static hp_code start(daemon_state *d, hp_error *reterr)
{
    hp_code code = open_ledger(d, reterr);

    if (code == HP_OK)
        code = hp_scheduler_open(&d->loop, d->config, d->ledger, &d->scheduler, reterr);
    if (code == HP_OK)
        code = hp_control_open(&d->loop, d->config, d->ledger, d->scheduler, &d->control,
                               reterr);
    if (code == HP_OK)
        code = open_door(d, reterr);
    if (code != HP_OK)
        return code;
    hp_control_set_intake(d->control, d->intake);
    hp_log(HP_LOG_INFO, "listening ae=%s address=%s port=%d allowed=%d peers=%d",
           d->config->ae_title, d->config->listen, hp_intake_port(d->intake),
           d->config->intake.allow_count, d->config->peer_count);
    if (d->config->intake.allow_count == 0)
        hp_log(HP_LOG_WARNING, "intake.allow is empty: nobody may send");
    return HP_OK;
}

/* The place in the configuration that a worker's refusal is about. */
static hp_code refused(const hp_config *c, int status, hp_code code, hp_error *reterr)
{
    int line = status == HP_CHECK_DEVICE      ? c->reading.device_line
               : status == HP_CHECK_PRECISION ? c->reading.precision_line
                                              : 0;

    if (line > 0)
        return hp_wrap(reterr, code, "%s:%d", c->path, line);
    return hp_wrap(reterr, code, status == HP_CHECK_BUNDLE ? "bundle" : "worker");
}

/* A bundle whose hashes or shapes do not fit, or a device that is not there, is
 * refused now, not at the first study. Only a worker can tell, since networks live
 * there; a site that puts another program in its place answers for that program.
 * *ret: what would serve (yours), or NULL. */
static hp_code check_worker(const hp_config *c, json_t **ret, hp_error *reterr)
{
    hp_auto(json_t) *options = NULL;
    char program[HP_PATH_MAX], *text = NULL;
    hp_buf answer = HP_BUF_INIT;
    int status = -1;
    hp_code code;

    if (c->reading.worker_program[0] != '\0')
        return HP_OK;
    options = hp_scheduler_run_options(c);
    text = options != NULL ? json_dumps(options, JSON_COMPACT) : NULL;
    if (text == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "no memory for the worker's options");
    code = hp_process_program("", "hepar-worker", program, reterr);
    if (code == HP_OK)
        code = hp_process_ask(program, (const char *[]){"--check", text, NULL}, &answer,
                              &status, reterr);
    free(text);
    if (code == HP_OK)
        code = hp_json_parse((const char *)answer.data, answer.len, ret, reterr);
    hp_buf_done(&answer);
    return code == HP_OK ? HP_OK : refused(c, status, code, reterr);
}

static void log_inference(const json_t *facts)
{
    hp_log(
        HP_LOG_INFO,
        "inference device=%s asked=%s precision=%s what=\"%s\" why=\"%s\" load_ms=%.0f",
        hp_json_str(facts, "device", ""), hp_json_str(facts, "asked", ""),
        hp_json_str(facts, "precision", ""), hp_json_str(facts, "what", ""),
        hp_json_str(facts, "why", ""), hp_json_num(facts, "open_ms", 0));
}

static void set_log_level(const char *name)
{
    hp_log_set_level(strcmp(name, "error") == 0     ? HP_LOG_ERROR
                     : strcmp(name, "warning") == 0 ? HP_LOG_WARNING
                     : strcmp(name, "debug") == 0   ? HP_LOG_DEBUG
                                                    : HP_LOG_INFO);
}

/* The state is private, and a core would hold what peers sent. */
static void harden(void)
{
    static const struct rlimit none = {0, 0};

    umask(0027);
    setrlimit(RLIMIT_CORE, &none);
}

static int run(hp_config *config, const json_t *inference)
{
    daemon_state d = {.config = config, .inference = inference};
    hp_error err = HP_ERROR_INIT;
    int lock = -1, result = EXIT_SUCCESS;
    hp_code code = hp_recovery_lock(config, &lock, &err);

    if (code != HP_OK) {
        hp_log(HP_LOG_ERROR, "not started error=\"%s\"", err.msg);
        return EXIT_FAILURE;
    }
    uv_loop_init(&d.loop);
    watch_signals(&d);
    code = start(&d, &err);
    if (code != HP_OK) {
        hp_log(HP_LOG_ERROR, "not started error=\"%s\"", err.msg);
        result = EXIT_FAILURE;
        end(&d);
    }
    uv_run(&d.loop, UV_RUN_DEFAULT);
    uv_loop_close(&d.loop);
    close(lock);
    hp_log(HP_LOG_INFO, "ended");
    return result;
}

static void usage(FILE *out)
{
    fprintf(out, "usage: hepard [--config FILE] [--check]\n"
                 "\n"
                 "  --config FILE  default /etc/hepar/hepar.yaml\n"
                 "  --check        read the configuration, say what is wrong, and end\n"
                 "\n"
                 "hepar reads multi-phase liver CT. Research use only.\n");
}

int main(int argc, char **argv)
{
    const char *path = "/etc/hepar/hepar.yaml";
    hp_auto(hp_config) *config = NULL;
    hp_auto(json_t) *inference = NULL;
    hp_error err = HP_ERROR_INIT;
    bool check = false;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--config") == 0 && i + 1 < argc) {
            path = argv[++i];
        } else if (strcmp(argv[i], "--check") == 0) {
            check = true;
        } else if (strcmp(argv[i], "--help") == 0) {
            usage(stdout);
            return EXIT_SUCCESS;
        } else if (strcmp(argv[i], "--version") == 0) {
            printf("hepard %s\n", HP_VERSION);
            return EXIT_SUCCESS;
        } else {
            usage(stderr);
            return EXIT_USAGE;
        }
    }
    if (hp_config_load(path, &config, &err) != HP_OK) {
        fprintf(stderr, "hepard: %s\n", err.msg);
        return EXIT_FAILURE;
    }
    if (check_worker(config, &inference, &err) != HP_OK) {
        fprintf(stderr, "hepard: %s\n", err.msg);
        return EXIT_FAILURE;
    }
    if (check) {
        printf("%s: nothing wrong\n", path);
        return EXIT_SUCCESS;
    }
    set_log_level(config->log_level);
    harden();
    if (inference != NULL)
        log_inference(inference);
    return run(config, inference);
}
