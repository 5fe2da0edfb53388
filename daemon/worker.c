/* hepar-worker: reads studies for hepard, one at a time.
 *
 * It meets hostile bytes and devices, and may die of them: hepard sees the
 * socket close, puts the job back, and after two deaths sets it aside. So there
 * is no attempt here to survive what cannot be survived, only to leave nothing
 * behind: all it writes lies below the run's own folder.
 *
 * In: "run" a job, or "look" which phases have come. Out: progress and one
 * "done", or one "looked". Until fd 3 ends.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/crash.h"
#include "base/log.h"
#include "daemon/child.h"
#include "daemon/job_run.h"

enum { PROGRESS_EVERY_MS = 250 };

/* Who the running job is, for progress messages. */
typedef struct ticket {
    int64_t job, run;
    int64_t last_ms;
    char last_stage[24];
} ticket;

/* A stage's change is always told, its fraction at most four times a second. */
static void tell_progress(const char *stage, double fraction, void *payload)
{
    ticket *t = payload;
    int64_t now = hp_clock_mono_ms();

    if (strncmp(stage, t->last_stage, sizeof t->last_stage - 1) == 0 &&
        now - t->last_ms < PROGRESS_EVERY_MS)
        return;
    snprintf(t->last_stage, sizeof t->last_stage, "%s", stage);
    t->last_ms = now;
    if (!(fraction >= 0 && fraction <= 1))
        fraction = 0; /* JSON knows no NAN */
    hp_child_write_take(json_pack("{ss,sI,sI,ss,sf}", "event", "progress", "job",
                                  (json_int_t)t->job, "run", (json_int_t)t->run, "stage",
                                  stage, "fraction", fraction));
}

static void log_note(const char *line, void *payload)
{
    (void)payload;
    hp_log(HP_LOG_INFO, "worker %s", line);
}

static json_t *reason_text(const char *text)
{
    json_t *j = json_string(text);

    return j != NULL ? j : json_string("(a reason that is not UTF-8)");
}

static void tell_done(const ticket *t, const hp_job_result *res,
                      const hp_job_runner *runner, hp_code code, const hp_error *e)
{
    const hp_findings *f = &res->findings;
    json_t *inference = hp_job_inference_to_json(runner);
    bool failed = code != HP_OK;

    hp_child_write_take(
        json_pack("{ss,sI,sI,ss,ss,so,ss,ss,so,so,so,ss,sb}", "event", "done", "job",
                  (json_int_t)t->job, "run", (json_int_t)t->run, "outcome",
                  failed ? "failed" : hp_outcome_name(f->outcome), "reason_code",
                  f->reason_code[0] != 0 || !failed ? f->reason_code : hp_code_name(code),
                  "reason", reason_text(failed ? e->msg : f->reason), "input_digest",
                  res->input_digest, "bundle_sha256", f->bundle_sha256, "result",
                  hp_job_result_to_json(res), "objects", hp_job_objects_to_json(res),
                  "inference", inference != NULL ? inference : json_null(), "code",
                  hp_code_name(failed ? code : HP_OK), "may_retry",
                  failed && hp_code_may_retry(code)));
}

/* The files of the message, borrowed from it. */
static hp_code take_files(const json_t *msg, const char ***ret, size_t *ret_count,
                          hp_error *reterr)
{
    const json_t *list = json_object_get(msg, "files");
    size_t n = json_array_size(list);
    const char **file;

    if (n == 0)
        return hp_fail(reterr, HP_E_EMPTY, "a job without files");
    file = calloc(n, sizeof *file);
    if (file == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "list of files");
    for (size_t i = 0; i < n; i++) {
        file[i] = json_string_value(json_array_get(list, i));
        if (file[i] == NULL || file[i][0] != '/') {
            free(file);
            return hp_fail(reterr, HP_E_INVALID, "file %zu is no absolute path", i + 1);
        }
    }
    *ret = file;
    *ret_count = n;
    return HP_OK;
}

static hp_code take_options(const json_t *msg, hp_job_options *o, hp_error *reterr)
{
    hp_job_options_init(o);
    return hp_job_options_from_json(json_object_get(msg, "options"), o, reterr);
}

/* "supersedes": the report of an earlier revision; false: there is none. */
static bool take_predecessor(const json_t *msg, hp_result_predecessor *ret)
{
    const json_t *j = json_object_get(msg, "supersedes");

    snprintf(ret->series.text, HP_UID_SIZE, "%s", hp_json_str(j, "series", ""));
    snprintf(ret->sop_class.text, HP_UID_SIZE, "%s", hp_json_str(j, "sop_class", ""));
    snprintf(ret->sop_instance.text, HP_UID_SIZE, "%s",
             hp_json_str(j, "sop_instance", ""));
    return hp_uid_valid(ret->series.text) && hp_uid_valid(ret->sop_class.text) &&
           hp_uid_valid(ret->sop_instance.text);
}

static hp_code do_run(hp_job_runner *runner, const json_t *msg, ticket *t,
                      hp_job_options *o, hp_job_result *res, hp_error *reterr)
{
    const char **file = NULL;
    hp_result_predecessor before;
    hp_job_request req = {
        .out = hp_json_str(msg, "out", ""),
        .options = o,
        .study_uid = hp_json_str(msg, "study_uid", ""),
        .revision = (int)hp_json_int(msg, "revision", 1),
        .installation_id = hp_json_str(msg, "installation_id", ""),
        .created_ms = hp_json_int(msg, "created_ms", 0),
        .predecessor = take_predecessor(msg, &before) ? &before : NULL,
        .on_progress = tell_progress,
        .on_note = log_note,
        .payload = t,
    };
    hp_code r;

    r = take_options(msg, o, reterr);
    if (r == HP_OK)
        r = take_files(msg, &file, &req.file_count, reterr);
    if (r == HP_OK && req.out[0] != '/')
        r = hp_fail(reterr, HP_E_INVALID, "\"out\" is no absolute path");
    if (r == HP_OK)
        r = hp_path_mkdirs(req.out, 0700, reterr);
    if (r == HP_OK) {
        req.file = file;
        r = hp_job_run(runner, &req, res, reterr);
    }
    free(file);
    return r;
}

/* A look that fails answers "none": the longest wait decides then. */
static void look(const json_t *msg, hp_job_options *o)
{
    const char **file = NULL;
    unsigned phases = 0;
    hp_job_request req = {.options = o};
    json_t *list = json_array();
    hp_code r = take_options(msg, o, NULL);

    if (r == HP_OK)
        r = take_files(msg, &file, &req.file_count, NULL);
    req.file = file;
    if (r == HP_OK)
        r = hp_job_look(&req, &phases, NULL);
    free(file);
    for (int p = 0; p < HP_PHASES; p++)
        if (phases & 1u << p)
            json_array_append_new(list, json_string(hp_phase_name((hp_phase)p)));
    hp_child_write_take(json_pack("{ss,sI,sI,so,ss}", "event", "looked", "job",
                                  (json_int_t)hp_json_int(msg, "job", 0), "look",
                                  (json_int_t)hp_json_int(msg, "look", 0), "phases", list,
                                  "code", hp_code_name(r)));
}

/* A core would hold a patient's images; a run-away loop must not fill the disk. */
static void limit_resources(void)
{
    static const struct rlimit none = {0, 0}, files = {1024, 1024},
                               file_size = {256u << 20, 256u << 20};

    setrlimit(RLIMIT_CORE, &none);
    setrlimit(RLIMIT_NOFILE, &files);
    setrlimit(RLIMIT_FSIZE, &file_size);
}

/* False: the device is lost to this process, and hepard starts another. */
static bool serve(hp_job_runner *runner, const json_t *msg, hp_job_options *o,
                  hp_job_result *res)
{
    ticket t = {.job = hp_json_int(msg, "job", 0), .run = hp_json_int(msg, "run", 0)};
    hp_error e = HP_ERROR_INIT;
    hp_code r;

    if (strcmp(hp_json_str(msg, "do", ""), "look") == 0) {
        look(msg, o);
        return true;
    }
    if (strcmp(hp_json_str(msg, "do", ""), "run") != 0) {
        hp_log(HP_LOG_WARNING, "worker message skipped reason=unknown");
        return true;
    }
    memset(res, 0, sizeof *res);
    hp_findings_init(&res->findings);
    hp_crash_point("worker.claimed");
    r = do_run(runner, msg, &t, o, res, &e);
    tell_done(&t, res, runner, r, &e);
    return r != HP_E_DEVICE;
}

/* hepar-worker --check OPTIONS: may hepard start with these (a run's options), and
 * what would serve? */
static int check(hp_job_runner *runner, hp_job_options *o, const char *text)
{
    hp_auto(json_t) *options = NULL;
    hp_auto(json_t) *facts = NULL;
    hp_error e = HP_ERROR_INIT;
    int status = HP_CHECK_BUNDLE;
    hp_code r;

    hp_job_options_init(o);
    r = hp_json_parse(text, strlen(text), &options, &e);
    if (r == HP_OK)
        r = hp_job_options_from_json(options, o, &e);
    if (r == HP_OK) {
        r = hp_job_check_device(o, &e);
        if (r != HP_OK)
            status = r == HP_E_INVALID ? HP_CHECK_PRECISION : HP_CHECK_DEVICE;
    }
    if (r == HP_OK)
        r = hp_job_check(runner, o, &e);
    if (r != HP_OK) {
        fprintf(stderr, "%s\n", e.msg);
        return status;
    }
    facts = hp_job_inference_to_json(runner);
    json_dumpf(facts, stdout, JSON_COMPACT);
    putchar('\n');
    return 0;
}

static void usage(void)
{
    printf(
        "usage: hepar-worker [--check '{\"bundle\": \"DIR\", \"device\": \"cuda\", "
        "...}']\n"
        "\n"
        "Reads studies for hepard, which starts it. With --check it says what is\n"
        "wrong with device, precision or bundle of these options, or what would serve,\n"
        "and ends. hepar-run reads a study by hand.\n");
}

/* Serves hepard until it closes the line. */
static int serve_hepard(hp_job_runner *runner, hp_job_options *o, hp_job_result *res)
{
    hp_error e = HP_ERROR_INIT;
    json_t *msg;

    hp_child_start();
    for (;;) {
        hp_code r = hp_child_read(&msg, &e);

        if (r == HP_E_EMPTY)
            break;
        if (r != HP_OK) {
            hp_log(HP_LOG_ERROR, "worker message unreadable code=%s", hp_code_name(r));
            break;
        }
        if (!serve(runner, msg, o, res)) {
            hp_log(HP_LOG_ERROR, "worker ends reason=\"the device failed\"");
            json_decref(msg);
            break;
        }
        json_decref(msg);
    }
    return 0;
}

int main(int argc, char **argv)
{
    hp_auto(hp_job_runner) *runner = NULL;
    hp_job_options *o;
    hp_job_result *res;
    hp_error e = HP_ERROR_INIT;
    int status = 1;

    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        usage();
        return 0;
    }
    o = calloc(1, sizeof *o);
    res = calloc(1, sizeof *res);
    limit_resources();
    if (o == NULL || res == NULL || hp_job_runner_new(&runner, &e) != HP_OK)
        hp_log(HP_LOG_ERROR, "worker start failed reason=memory");
    else if (argc == 3 && strcmp(argv[1], "--check") == 0)
        status = check(runner, o, argv[2]);
    else
        status = serve_hepard(runner, o, res);
    free(res);
    free(o);
    return status;
}
