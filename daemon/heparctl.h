/* The parts of heparctl. Blocking, no libuv; reads the ledger read-only, so it
 * answers when the daemon is down. */
#ifndef HP_DAEMON_HEPARCTL_H
#define HP_DAEMON_HEPARCTL_H

#include <stdbool.h>

#include "base/json.h"
#include "config/config.h"
#include "db/db.h"

/* Exit codes (heparctl(1)). */
enum {
    HP_EXIT_DONE = 0,
    HP_EXIT_FAILED = 1,
    HP_EXIT_USAGE = 2,
    HP_EXIT_NOT_FOUND = 3,
    HP_EXIT_TIMED_OUT = 4
};

typedef struct hp_ctl {
    hp_config *config;
    hp_db *db; /* NULL: could not be opened, `db_error` says why */
    hp_error db_error;
    bool json;
    int timeout_s; /* of wait; -1: none */
} hp_ctl;

/* Opens the ledger; the exit code to leave with when that fails, else DONE. */
int hp_ctl_need_ledger(hp_ctl *ctl);
/* "heparctl: words" to stderr; returns the exit code that fits. */
int hp_ctl_fail(hp_code code, const char *words);
void hp_ctl_print_json(const json_t *j);

/* Asks the living daemon. HP_E_CONNECT: there is none. A refusal is HP_OK with
 * {"code":"E_...","words":...}. */
hp_code hp_ctl_ask(const hp_config *config, json_t *request_take, int timeout_s,
                   json_t **ret, hp_error *reterr);

/* "plan_cache" of the status view's "inference": the path becomes {path, exists,
 * plans}, or null where the device needs none. */
void hp_ctl_add_plan_cache(json_t *inference);
/* What reads the studies, for people: `status` is the view with the above. */
void hp_ctl_print_inference(const json_t *status);

/* verbs */
int hp_ctl_status(hp_ctl *ctl);
int hp_ctl_studies(hp_ctl *ctl);
int hp_ctl_jobs(hp_ctl *ctl);
int hp_ctl_show(hp_ctl *ctl, const char *id);
int hp_ctl_events(hp_ctl *ctl, const char *id);
int hp_ctl_wait(hp_ctl *ctl, const char *study_uid);
int hp_ctl_peers(hp_ctl *ctl);
int hp_ctl_conformance(hp_ctl *ctl);

#endif
