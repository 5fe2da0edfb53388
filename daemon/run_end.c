/* The end of a run.
 *
 * DESIGN The worker wrote below outbox/<job>/<run>.part. In this order: every
 * file is synced, the folder renamed to outbox/<job>/<run>, its parent synced,
 * then one transaction records objects, deliveries and the move. A crash before
 * the commit leaves a folder without a row: litter, removed at the next start,
 * and the job runs again.
 */
#include "daemon/run_end.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crash.h"
#include "base/log.h"
#include "db/inference.h"
#include "db/outbox.h"

enum { MAX_OBJECTS = 64 };

typedef struct end_call {
    const hp_config *config;
    int64_t job;
    int run;
    json_t *msg;
    hp_run_end_cb cb;
    void *payload;
    bool reused;
} end_call;

/* A name that stays inside the run's folder. */
static bool bare_name(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL &&
           strlen(name) < 64;
}

static void set_uid(hp_uid *ret, const json_t *obj, const char *key)
{
    snprintf(ret->text, sizeof ret->text, "%s", hp_json_str(obj, key, ""));
}

static hp_code read_object(const json_t *j, const char *folder, hp_run_object *ret,
                           hp_error *reterr)
{
    char path[HP_PATH_MAX];
    hp_code code;

    *ret = (hp_run_object){.kind = hp_json_str(j, "kind", ""),
                           .file = hp_json_str(j, "file", ""),
                           .png = hp_json_str(j, "png", ""),
                           .required = hp_json_bool(j, "required", true)};
    set_uid(&ret->sop_class, j, "sop_class");
    set_uid(&ret->sop_instance, j, "sop_instance");
    set_uid(&ret->series, j, "series");
    if (!bare_name(ret->file) || (ret->png[0] != '\0' && !bare_name(ret->png)) ||
        ret->kind[0] == '\0' || !hp_uid_valid(ret->sop_class.text) ||
        !hp_uid_valid(ret->sop_instance.text))
        return hp_fail(reterr, HP_E_INVALID, "the worker named an object badly");
    code = hp_path_fmt(path, reterr, "%s/%s", folder, ret->file);
    if (code == HP_OK && !hp_path_exists(path))
        code =
            hp_fail(reterr, HP_E_NOT_FOUND, "the worker named a file it did not write");
    return code;
}

/* ---- files ---- */

static hp_code sync_file(const char *path, hp_error *reterr)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int err = 0;

    if (fd < 0)
        return hp_fail_errno(reterr, errno, "opening a result");
    if (fsync(fd) != 0)
        err = errno;
    close(fd);
    return err == 0 ? HP_OK : hp_fail_errno(reterr, err, "syncing a result");
}

static hp_code sync_folder(const char *folder, hp_error *reterr)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    hp_code code = HP_OK;

    if (dir == NULL)
        return hp_fail_errno(reterr, errno, "opening the run's folder");
    while (code == HP_OK && (entry = readdir(dir)) != NULL) {
        char path[HP_PATH_MAX];

        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        code = hp_path_fmt(path, reterr, "%s/%s", folder, entry->d_name);
        if (code == HP_OK)
            code = sync_file(path, reterr);
    }
    closedir(dir);
    return code == HP_OK ? hp_path_sync_dir(folder, reterr) : code;
}

/* part -> final, durable. `outbox` holds the job's folder, which may be new. */
static hp_code commit_folder(const char *part, const char *final, const char *job_folder,
                             const char *outbox, hp_error *reterr)
{
    hp_code code = sync_folder(part, reterr);

    if (code == HP_OK)
        code = hp_path_remove(final, reterr);
    if (code == HP_OK && rename(part, final) != 0)
        code = hp_fail_errno(reterr, errno, "renaming the run's folder");
    if (code == HP_OK)
        code = hp_path_sync_dir(job_folder, reterr);
    if (code == HP_OK)
        code = hp_path_sync_dir(outbox, reterr);
    return code;
}

/* ---- rows ---- */

static void fill_done(const end_call *c, hp_run_done *done, const char **peers)
{
    const json_t *result = json_object_get(c->msg, "result");
    const json_t *bundle = json_object_get(result, "bundle");

    *done = (hp_run_done){.job = c->job,
                          .run = c->run,
                          .outcome = hp_json_str(c->msg, "outcome", "failed"),
                          .reason_code = hp_json_str(c->msg, "reason_code", ""),
                          .reason = hp_json_str(c->msg, "reason", ""),
                          .input_digest = hp_json_str(c->msg, "input_digest", ""),
                          .bundle_sha256 = hp_json_str(c->msg, "bundle_sha256",
                                                       hp_json_str(bundle, "sha256", "")),
                          .result = json_is_object(result) ? result : NULL,
                          .peers = peers,
                          .send_unsuitable = c->config->report.unsuitable};
    for (int i = 0; i < c->config->peer_count; i++)
        if (c->config->peers[i].results)
            peers[done->peer_count++] = c->config->peers[i].name;
}

static hp_code end_with(hp_db *db, end_call *c, const char *part, hp_error *reterr)
{
    const json_t *objects = json_object_get(c->msg, "objects");
    hp_run_object list[MAX_OBJECTS];
    const char *peers[HP_CONFIG_MAX_LIST];
    hp_run_done done;
    char outbox[HP_PATH_MAX], job[HP_PATH_MAX], final[HP_PATH_MAX], name[64];
    hp_code code = HP_OK;

    fill_done(c, &done, peers);
    if (json_array_size(objects) > MAX_OBJECTS)
        return hp_fail(reterr, HP_E_LIMIT, "the worker built too many objects");
    for (size_t i = 0; code == HP_OK && i < json_array_size(objects); i++)
        code = read_object(json_array_get(objects, i), part, &list[done.object_count++],
                           reterr);
    done.objects = list;
    snprintf(name, sizeof name, "%" PRId64 "/%d", c->job, c->run);
    done.folder = name;
    if (code == HP_OK)
        code = hp_path_fmt(outbox, reterr, "%s/outbox", c->config->state_dir);
    if (code == HP_OK)
        code = hp_path_fmt(job, reterr, "%s/%" PRId64, outbox, c->job);
    if (code == HP_OK)
        code = hp_path_fmt(final, reterr, "%s/%d", job, c->run);
    if (code == HP_OK && done.object_count > 0)
        code = commit_folder(part, final, job, outbox, reterr);
    hp_crash_point("run_renamed"); /* a folder without a row: litter */
    if (code == HP_OK)
        code = hp_job_done(db, &done, &c->reused, reterr);
    hp_crash_point("run_recorded");
    if (done.object_count > 0 && hp_outbox_folder_known(db, name, NULL) == HP_E_NOT_FOUND)
        hp_path_remove(final, NULL); /* reused, unwanted or not recorded */
    return code;
}

static hp_code do_end(hp_db *db, void *arg, hp_error *reterr)
{
    end_call *c = arg;
    char part[HP_PATH_MAX];
    bool reused;
    hp_error why = HP_ERROR_INIT;
    hp_code code = hp_path_fmt(part, reterr, "%s/outbox/%" PRId64 "/%d.part",
                               c->config->state_dir, c->job, c->run);

    if (code != HP_OK)
        return code;
    if (json_is_object(json_object_get(c->msg, "inference"))) /* its loss harms nobody */
        hp_inference_told(db, json_object_get(c->msg, "inference"), NULL);
    /* "Failed, but a second try may do": counted like a death, so twice ends it. */
    if (strcmp(hp_json_str(c->msg, "outcome", ""), "failed") == 0 &&
        hp_json_bool(c->msg, "may_retry", false))
        code =
            hp_job_died(db, c->job, c->run, true, hp_json_str(c->msg, "reason_code", ""),
                        hp_json_str(c->msg, "reason", ""), &why);
    else
        code = end_with(db, c, part, &why);
    if (code == HP_E_INVALID || code == HP_E_NOT_FOUND || code == HP_E_LIMIT) {
        hp_run_done failed = {.job = c->job,
                              .run = c->run,
                              .outcome = "failed",
                              .reason_code = "bad_worker_answer",
                              .reason = why.msg,
                              .result = json_object_get(c->msg, "result")};
        code = hp_job_done(db, &failed, &reused, &why);
    } else if (code != HP_OK && code != HP_E_STATE) {
        /* Disk full, say: another run may fare better; twice, and it fails. */
        hp_error first = why;
        hp_code second =
            hp_job_died(db, c->job, c->run, true, "results_not_kept", first.msg, NULL);
        if (second != HP_OK)
            code = second;
    }
    hp_path_remove(part, NULL);
    if (code != HP_OK && reterr != NULL)
        *reterr = why;
    return code;
}

static void after_end(hp_code code, const hp_error *error, void *arg)
{
    end_call *c = arg;

    if (code == HP_E_STATE)
        hp_log(HP_LOG_INFO, "answer dropped job=%" PRId64 " run=%d, no longer running",
               c->job, c->run);
    else if (code != HP_OK)
        hp_log(HP_LOG_ERROR, "run not recorded job=%" PRId64 " run=%d error=\"%s\"",
               c->job, c->run, error->msg);
    if (code == HP_OK && c->reused)
        hp_log(HP_LOG_INFO, "same input, same objects job=%" PRId64 ", sending those",
               c->job);
    c->cb(code == HP_OK, c->payload);
    json_decref(c->msg);
    free(c);
}

void hp_run_end(hp_ledger *l, const hp_config *config, int64_t job, int run,
                const json_t *done, hp_run_end_cb cb, void *payload)
{
    end_call *c = calloc(1, sizeof *c);

    if (c == NULL) {
        cb(false, payload);
        return;
    }
    *c = (end_call){.config = config,
                    .job = job,
                    .run = run,
                    .msg = json_incref((json_t *)done), /* nobody changes it */
                    .cb = cb,
                    .payload = payload};
    hp_ledger_call(l, do_end, after_end, c);
}
