/* The scheduler as its neighbours see it: reading and delivery side by side. */
#include "daemon/scheduler.h"

#include <stdlib.h>

#include "daemon/scheduler_internal.h"

struct hp_scheduler {
    hp_reading *reading;
    hp_delivering *delivering;
    void (*closed)(void *payload);
    void *closed_payload;
    int closing;
};

json_t *hp_scheduler_run_options(const hp_config *config)
{
    return hp_reading_options(config);
}

static void on_reported(void *payload)
{
    hp_scheduler *s = payload;

    if (s->delivering != NULL)
        hp_delivering_bell(s->delivering);
}

hp_code hp_scheduler_open(uv_loop_t *loop, const hp_config *config, hp_ledger *ledger,
                          hp_scheduler **ret, hp_error *reterr)
{
    hp_scheduler *s = calloc(1, sizeof *s);
    hp_code code;

    if (s == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "no memory for the scheduler");
    code = hp_delivering_open(loop, config, ledger, &s->delivering, reterr);
    if (code != HP_OK) {
        free(s);
        return code;
    }
    code = hp_reading_open(loop, config, ledger, on_reported, s, &s->reading, reterr);
    if (code != HP_OK) {
        hp_delivering_close(s->delivering, free, s);
        return code;
    }
    *ret = s;
    return HP_OK;
}

static void one_closed(void *payload)
{
    hp_scheduler *s = payload;

    if (--s->closing > 0)
        return;
    if (s->closed != NULL)
        s->closed(s->closed_payload);
    free(s);
}

void hp_scheduler_close(hp_scheduler *s, void (*cb)(void *payload), void *payload)
{
    s->closed = cb;
    s->closed_payload = payload;
    s->closing = 2;
    hp_reading_close(s->reading, one_closed, s);
    hp_delivering_close(s->delivering, one_closed, s);
}

void hp_scheduler_bell(hp_scheduler *s)
{
    hp_reading_bell(s->reading);
    hp_delivering_bell(s->delivering);
}

void hp_scheduler_cancelled(hp_scheduler *s, int64_t job)
{
    hp_reading_cancelled(s->reading, job);
}

json_t *hp_scheduler_progress(const hp_scheduler *s)
{
    return json_pack("{so,so}", "workers", hp_reading_progress(s->reading), "senders",
                     hp_delivering_progress(s->delivering));
}

void hp_scheduler_echo(hp_scheduler *s, const hp_config_peer *peer, hp_echo_cb cb,
                       void *payload)
{
    hp_delivering_echo(s->delivering, peer, cb, payload);
}
