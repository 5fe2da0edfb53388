/* heparctl: the admin's tool.
 *
 * What is true is read from the ledger, read-only, with the daemon up or down.
 * What changes something (retry, cancel) or needs the network (echo) goes
 * through the control socket. No patient name is in the ledger, so none can be
 * shown.
 */
#include "daemon/heparctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/number.h"
#include "daemon/table.h"

static const char USAGE[] =
    "usage: heparctl [--config FILE] [--json] VERB\n"
    "\n"
    "  status                    is it running, what is waiting, what went wrong\n"
    "  studies                   every study, newest first\n"
    "  jobs                      every job, newest first\n"
    "  show ID                   all about one study: what came, what was made of it, "
    "why\n"
    "  wait STUDY_UID [--timeout S]\n"
    "                            until its job has ended, with a progress line\n"
    "  retry ID                  read a failed, unsuitable or cancelled study again\n"
    "  cancel ID                 stop waiting for it, reading it or sending it\n"
    "  events [ID]               the diary\n"
    "  peers                     where results go, and whether they arrive\n"
    "  echo PEER                 C-ECHO to a peer of the configuration\n"
    "  config check              read the configuration, say what is wrong\n"
    "  conformance               what this node does on the wire\n"
    "\n"
    "ID is a job number or a Study Instance UID.\n"
    "Exit: 0 done, 1 failed, 2 usage, 3 not found, 4 timed out.\n"
    "Results of hepar are AI output for research use only.\n";

int hp_ctl_fail(hp_code code, const char *words)
{
    fprintf(stderr, "heparctl: %s\n", words);
    return code == HP_E_NOT_FOUND ? HP_EXIT_NOT_FOUND
           : code == HP_E_TIMEOUT ? HP_EXIT_TIMED_OUT
                                  : HP_EXIT_FAILED;
}

void hp_ctl_print_json(const json_t *j)
{
    json_dumpf(j, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(12)); /* 0.1 is 0.1 */
    putchar('\n');
}

int hp_ctl_need_ledger(hp_ctl *ctl)
{
    char path[HP_PATH_MAX];
    char words[400 + HP_PATH_MAX];
    hp_code code;

    if (ctl->db != NULL)
        return HP_EXIT_DONE;
    code = hp_path_fmt(path, &ctl->db_error, "%s/hepar.db", ctl->config->state_dir);
    if (code == HP_OK)
        code = hp_db_open_reader(path, &ctl->db, &ctl->db_error);
    if (code == HP_OK)
        return HP_EXIT_DONE;
    snprintf(words, sizeof words, "%s: %s%s", path, ctl->db_error.msg,
             code == HP_E_NOT_FOUND ? " (has hepard ever run with this configuration?)"
                                    : "");
    hp_ctl_fail(code, words);
    return HP_EXIT_FAILED;
}

/* ---- verbs that change something ---- */

static int change(hp_ctl *ctl, const char *verb, const char *id)
{
    hp_auto(json_t) *answer = NULL;
    hp_error err = HP_ERROR_INIT;
    hp_code code = hp_ctl_ask(ctl->config, json_pack("{ss,ss}", "do", verb, "id", id), 30,
                              &answer, &err);

    if (code != HP_OK)
        return hp_ctl_fail(code, err.msg);
    if (ctl->json)
        hp_ctl_print_json(answer);
    if (strcmp(hp_json_str(answer, "code", ""), "OK") != 0)
        return hp_ctl_fail(strcmp(hp_json_str(answer, "code", ""), "E_NOT_FOUND") == 0
                               ? HP_E_NOT_FOUND
                               : HP_E_STATE,
                           hp_json_str(answer, "words", "refused"));
    if (!ctl->json)
        printf("job %lld (revision %d) is %s\n", (long long)hp_json_int(answer, "job", 0),
               (int)hp_json_int(answer, "revision", 0),
               strcmp(verb, "retry") == 0 ? "ready to be read again" : "cancelled");
    return HP_EXIT_DONE;
}

static int retry(hp_ctl *ctl, const char *id)
{
    return change(ctl, "retry", id);
}

static int cancel(hp_ctl *ctl, const char *id)
{
    return change(ctl, "cancel", id);
}

static int echo(hp_ctl *ctl, const char *peer)
{
    const hp_config_peer *p = hp_config_find_peer(ctl->config, peer);
    hp_auto(json_t) *answer = NULL;
    hp_error err = HP_ERROR_INIT;
    hp_code code;

    if (p == NULL)
        return hp_ctl_fail(HP_E_NOT_FOUND, "no peer of that name in the configuration");
    code = hp_ctl_ask(ctl->config, json_pack("{ss,ss}", "do", "echo", "peer", peer),
                      3 * p->timeout_s + 10, &answer, &err);
    if (code != HP_OK)
        return hp_ctl_fail(code, err.msg);
    if (ctl->json)
        hp_ctl_print_json(answer);
    if (strcmp(hp_json_str(answer, "code", ""), "OK") != 0) {
        fprintf(stderr, "heparctl: %s at %s:%d does not answer: %s\n", p->ae_title,
                p->host, p->port, hp_json_str(answer, "words", "no reason given"));
        return HP_EXIT_FAILED;
    }
    if (!ctl->json)
        printf("%s at %s:%d answered in %.1f ms\n", p->ae_title, p->host, p->port,
               hp_json_num(answer, "ms", 0));
    return HP_EXIT_DONE;
}

/* ---- config check ---- */

static int warn_missing(const char *what, const char *path)
{
    if (path[0] == '\0' || access(path, R_OK) == 0)
        return 0;
    printf("warning: %s %s: %s\n", what, path, strerror(errno));
    return 1;
}

static int config_check(hp_ctl *ctl)
{
    const hp_config *c = ctl->config;
    char path[HP_PATH_MAX];
    int warnings = 0;

    if (hp_path_fmt(path, NULL, "%s/bundle.yaml", c->reading.bundle) == HP_OK)
        warnings += warn_missing("reading.bundle:", path);
    warnings += warn_missing("reading.worker_program:", c->reading.worker_program);
    warnings += warn_missing("delivery.sender_program:", c->delivery.sender_program);
    if (c->intake.allow_count == 0)
        warnings += printf("warning: intake.allow is empty: nobody may send\n") > 0;
    if (c->peer_count == 0)
        warnings += printf("warning: peers is empty: results stay in the outbox\n") > 0;
    if (warnings == 0)
        printf("%s: nothing wrong\n", c->path);
    else
        printf("%s: no mistake, %d warning%s\n", c->path, warnings,
               warnings > 1 ? "s" : "");
    return HP_EXIT_DONE;
}

/* ---- main ---- */

static int usage(void)
{
    fputs(USAGE, stderr);
    return HP_EXIT_USAGE;
}

typedef struct verb {
    const char *name;
    int least, most;  /* words that follow it */
    const char *only; /* the only word that may follow; NULL: any */
    int (*plain)(hp_ctl *ctl);
    int (*about)(hp_ctl *ctl, const char *what); /* NULL where nothing follows */
} verb;

static const verb VERBS[] = {{"status", 0, 0, NULL, hp_ctl_status, NULL},
                             {"studies", 0, 0, NULL, hp_ctl_studies, NULL},
                             {"jobs", 0, 0, NULL, hp_ctl_jobs, NULL},
                             {"show", 1, 1, NULL, NULL, hp_ctl_show},
                             {"wait", 1, 1, NULL, NULL, hp_ctl_wait},
                             {"retry", 1, 1, NULL, NULL, retry},
                             {"cancel", 1, 1, NULL, NULL, cancel},
                             {"events", 0, 1, NULL, NULL, hp_ctl_events},
                             {"peers", 0, 0, NULL, hp_ctl_peers, NULL},
                             {"echo", 1, 1, NULL, NULL, echo},
                             {"config", 1, 1, "check", config_check, NULL},
                             {"conformance", 0, 0, NULL, hp_ctl_conformance, NULL}};

/* NULL: these words mean nothing. */
static const verb *find_verb(int count, char **words)
{
    for (size_t i = 0; i < sizeof VERBS / sizeof *VERBS; i++) {
        const verb *v = &VERBS[i];

        if (count - 1 >= v->least && count - 1 <= v->most &&
            strcmp(words[0], v->name) == 0 &&
            (v->only == NULL || strcmp(words[1], v->only) == 0))
            return v;
    }
    return NULL;
}

static bool parse_timeout(const char *text, int *ret)
{
    int64_t s;

    if (!hp_parse_i64(text, &s) || s < 0 || s >= 86400 * 7)
        return false;
    *ret = (int)s;
    return true;
}

int main(int argc, char **argv)
{
    const char *path = getenv("HEPAR_CONFIG");
    hp_ctl ctl = {.timeout_s = -1};
    hp_error err = HP_ERROR_INIT;
    const verb *v;
    char *words[2] = {NULL, NULL};
    int count = 0, result;

    if (path == NULL)
        path = "/etc/hepar/hepar.yaml";
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--config") == 0 && i + 1 < argc) {
            path = argv[++i];
        } else if (strcmp(argv[i], "--json") == 0) {
            ctl.json = true;
        } else if (strcmp(argv[i], "--timeout") == 0 && i + 1 < argc &&
                   parse_timeout(argv[i + 1], &ctl.timeout_s)) {
            i++;
        } else if (strcmp(argv[i], "--help") == 0) {
            fputs(USAGE, stdout);
            return HP_EXIT_DONE;
        } else if (strcmp(argv[i], "--version") == 0) {
            printf("heparctl %s\n", HP_VERSION);
            return HP_EXIT_DONE;
        } else if (count < 2) {
            words[count++] = argv[i];
        } else {
            return usage();
        }
    }
    v = count > 0 ? find_verb(count, words) : NULL;
    if (v == NULL || (ctl.timeout_s >= 0 && v->about != hp_ctl_wait))
        return usage();
    if (hp_config_load(path, &ctl.config, &err) != HP_OK)
        return hp_ctl_fail(HP_E_INVALID, err.msg);
    result = v->about != NULL ? v->about(&ctl, words[1]) : v->plain(&ctl);
    hp_db_close(ctl.db);
    hp_config_free(ctl.config);
    return result;
}
