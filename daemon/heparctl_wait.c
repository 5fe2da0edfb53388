/* heparctl wait: until the study's newest job has ended.
 *
 * DESIGN The state comes from the ledger, so waiting survives a daemon that is
 * restarted; the progress of a run comes from the living daemon, where there is
 * one. On a terminal one line is redrawn; elsewhere each new state is a line.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "daemon/heparctl.h"
#include "daemon/table.h"
#include "db/job.h"
#include "db/outbox.h"

enum { POLL_MS = 300, BAR = 24 };

typedef struct progress {
    char stage[40];
    double fraction;
} progress;

static void ask_progress(const hp_ctl *ctl, int64_t job, progress *ret)
{
    hp_auto(json_t) *answer = NULL;
    size_t i;
    json_t *w;

    ret->stage[0] = '\0';
    ret->fraction = 0;
    if (hp_ctl_ask(ctl->config, json_pack("{ss}", "do", "progress"), 5, &answer, NULL) !=
        HP_OK)
        return;
    json_array_foreach(json_object_get(answer, "workers"), i, w)
    {
        if (hp_json_int(w, "job", 0) != job)
            continue;
        snprintf(ret->stage, sizeof ret->stage, "%s", hp_json_str(w, "stage", ""));
        ret->fraction = hp_json_num(w, "fraction", 0);
    }
}

static void draw(hp_db *db, const hp_job *job, const progress *p, int64_t started_ms)
{
    char bar[BAR + 1], span[24];
    int accepted = 0, owed = 0;
    int filled = p->fraction > 0 ? (int)(p->fraction * BAR + 0.5) : 0;

    filled = filled > BAR ? BAR : filled;
    memset(bar, '.', BAR);
    memset(bar, '#', (size_t)filled);
    bar[BAR] = '\0';
    hp_table_span(hp_clock_mono_ms() - started_ms, span);
    if (job->state == HP_JOB_RUNNING)
        printf("\r\033[Kjob %" PRId64 "  running  [%s] %3.0f %%  %s  %s", job->id, bar,
               100 * p->fraction, p->stage, span);
    else if (job->state == HP_JOB_REPORTED &&
             hp_outbox_counts(db, job->id, &accepted, &owed, NULL) == HP_OK)
        printf("\r\033[Kjob %" PRId64
               "  reported, %d of %d results accepted by their peers"
               "  %s",
               job->id, accepted, owed, span);
    else
        printf("\r\033[Kjob %" PRId64 "  %s  %s", job->id, hp_job_state_name(job->state),
               span);
    fflush(stdout);
}

/* The final line, and the exit code it stands for. */
static int finish(const hp_ctl *ctl, const hp_job *job, bool tty)
{
    bool sent = job->state == HP_JOB_SENT;

    if (tty)
        printf("\r\033[K");
    if (ctl->json) {
        hp_auto(json_t) *j =
            json_pack("{sI,ss,si,ss,ss,ss}", "job", (json_int_t)job->id, "study_uid",
                      job->study_uid.text, "revision", job->revision, "state",
                      hp_job_state_name(job->state), "reason_code", job->reason_code,
                      "reason", job->reason);
        hp_ctl_print_json(j);
    } else {
        printf("job %" PRId64 " (revision %d): %s%s%s\n", job->id, job->revision,
               hp_job_state_name(job->state), job->reason[0] ? ", " : "", job->reason);
    }
    return sent ? HP_EXIT_DONE : HP_EXIT_FAILED;
}

static void pause_ms(int ms)
{
    usleep((useconds_t)ms * 1000);
}

int hp_ctl_wait(hp_ctl *ctl, const char *id)
{
    bool tty = isatty(STDOUT_FILENO) && !ctl->json, known = false;
    int64_t started = hp_clock_mono_ms();
    hp_job_state last = HP_JOB_STATES;
    int result = hp_ctl_need_ledger(ctl);

    if (result != HP_EXIT_DONE)
        return result;
    for (;;) {
        hp_auto(hp_job) *job = NULL;
        hp_error err = HP_ERROR_INIT;
        hp_code code = hp_job_find(ctl->db, id, &job, &err);
        bool late = ctl->timeout_s >= 0 &&
                    hp_clock_mono_ms() - started >= (int64_t)ctl->timeout_s * 1000;

        if (code != HP_OK && code != HP_E_NOT_FOUND)
            return hp_ctl_fail(code, err.msg);
        if (code == HP_OK && hp_job_state_final(job->state))
            return finish(ctl, job, tty);
        /* With a time limit a study may still be on its way; without, it is
         * simply not here. */
        if (code == HP_E_NOT_FOUND && (late || ctl->timeout_s < 0))
            return hp_ctl_fail(HP_E_NOT_FOUND, "no such study");
        known |= code == HP_OK;
        if (code == HP_OK && tty) {
            progress p;

            ask_progress(ctl, job->id, &p);
            draw(ctl->db, job, &p, started);
        } else if (code == HP_OK && !ctl->json && job->state != last) {
            printf("job %" PRId64 ": %s\n", job->id, hp_job_state_name(job->state));
            fflush(stdout);
            last = job->state;
        }
        if (late) {
            if (tty)
                putchar('\n');
            return hp_ctl_fail(known ? HP_E_TIMEOUT : HP_E_NOT_FOUND,
                               "timed out; the job goes on");
        }
        pause_ms(POLL_MS);
    }
}
