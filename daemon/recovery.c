/* Recovery at start-up.
 *
 * DESIGN Names in the spool and names in the ledger are walked side by side in
 * byte order, so that a million files cost two sorted lists and no look-ups. Files
 * without a row are few: what arrived since the ledger was last synced.
 */
#include "daemon/recovery.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/filing.h"
#include "db/job.h"
#include "db/outbox.h"

typedef struct names {
    char **item;
    size_t count, cap;
} names;

static void names_done(names *n)
{
    for (size_t i = 0; i < n->count; i++)
        free(n->item[i]);
    free(n->item);
}

static hp_code names_add(names *n, const char *name, hp_error *reterr)
{
    if (n->count == n->cap) {
        size_t cap = n->cap ? 2 * n->cap : 256;
        char **more = realloc(n->item, cap * sizeof *more);

        if (more == NULL)
            return hp_fail(reterr, HP_E_NO_MEMORY, "no memory for file names");
        n->item = more;
        n->cap = cap;
    }
    n->item[n->count] = strdup(name);
    if (n->item[n->count] == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "no memory for file names");
    n->count++;
    return HP_OK;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static hp_code list_folder(const char *path, names *ret, hp_error *reterr)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    hp_code code = HP_OK;

    if (dir == NULL)
        return hp_fail_errno(reterr, errno, "reading %s", path);
    while (code == HP_OK && (entry = readdir(dir)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            code = names_add(ret, entry->d_name, reterr);
    closedir(dir);
    if (code == HP_OK && ret->count > 0)
        qsort(ret->item, ret->count, sizeof *ret->item, by_bytes);
    return code;
}

/* ---- the lock ---- */

static hp_code make_folder(const hp_config *config, const char *name, mode_t mode,
                           hp_error *reterr)
{
    char path[HP_PATH_MAX];
    hp_code code =
        hp_path_fmt(path, reterr, "%s%s%s", config->state_dir, *name ? "/" : "", name);

    if (code == HP_OK)
        code = hp_path_mkdirs(path, mode, reterr);
    if (code == HP_OK && chmod(path, mode) != 0) /* a folder that was there before */
        code = hp_fail_errno(reterr, errno, "setting the mode of %s", path);
    return code;
}

hp_code hp_recovery_lock(const hp_config *config, int *ret_fd, hp_error *reterr)
{
    char path[HP_PATH_MAX];
    hp_code code = make_folder(config, "", 0750, reterr);
    int fd;

    if (code == HP_OK)
        code = hp_path_fmt(path, reterr, "%s/lock", config->state_dir);
    if (code != HP_OK)
        return code;
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0)
        return hp_fail_errno(reterr, errno, "opening %s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int err = errno;

        close(fd);
        if (err == EWOULDBLOCK)
            return hp_fail(reterr, HP_E_BUSY, "another hepard runs on %s",
                           config->state_dir);
        return hp_fail_errno(reterr, err, "locking %s", path);
    }
    code = make_folder(config, "spool", 0700, reterr);
    if (code == HP_OK)
        code = make_folder(config, "outbox", 0700, reterr);
    if (code == HP_OK)
        code = make_folder(config, "quarantine", 0700, reterr);
    if (code == HP_OK)
        code = make_folder(config, "plans", 0750, reterr);
    if (code == HP_OK) /* the folders themselves must survive a power cut */
        code = hp_path_sync_dir(config->state_dir, reterr);
    if (code != HP_OK) {
        close(fd);
        return code;
    }
    *ret_fd = fd;
    return HP_OK;
}

/* ---- the spool ---- */

typedef struct lost {
    int64_t study;
    char *name;
} lost;

typedef struct walk {
    names files, loose; /* loose: without a row */
    size_t at;
    lost *lost;
    size_t lost_count, lost_cap;
    bool no_memory;
} walk;

static void pass_loose(walk *w)
{
    if (names_add(&w->loose, w->files.item[w->at++], NULL) != HP_OK)
        w->no_memory = true;
}

static void one_row(int64_t study, const char *name, void *payload)
{
    walk *w = payload;

    while (w->at < w->files.count && strcmp(w->files.item[w->at], name) < 0)
        pass_loose(w);
    if (w->at < w->files.count && strcmp(w->files.item[w->at], name) == 0) {
        w->at++;
        return;
    }
    if (w->lost_count == w->lost_cap) {
        size_t cap = w->lost_cap ? 2 * w->lost_cap : 16;
        lost *more = realloc(w->lost, cap * sizeof *more);

        if (more == NULL) {
            w->no_memory = true;
            return;
        }
        w->lost = more;
        w->lost_cap = cap;
    }
    w->lost[w->lost_count] = (lost){study, strdup(name)};
    if (w->lost[w->lost_count].name == NULL)
        w->no_memory = true;
    else
        w->lost_count++;
}

/* A whole file may have been answered with Success: it is filed now as it was
 * then. One that is not whole was not, and goes. One that is whole and cannot be
 * read by this hepar, or by this disk, is never thrown away. */
static hp_code one_loose(const hp_config *config, hp_db *db, const char *name,
                         hp_recovery_counts *counts, hp_error *reterr)
{
    hp_filing f = {.code = HP_OK}, *group = &f;
    char path[HP_PATH_MAX], aside[HP_PATH_MAX];
    hp_code code = hp_path_fmt(path, reterr, "%s/spool/%s", config->state_dir, name);

    if (code == HP_OK)
        code = hp_path_fmt(aside, reterr, "%s/quarantine/%s", config->state_dir, name);
    if (code != HP_OK)
        return code;
    code = hp_spool_read_back(path, &f.stored, reterr);
    if (code == HP_E_TRUNCATED) {
        counts->parts += unlink(path) == 0;
        return HP_OK;
    }
    if (code == HP_E_NO_MEMORY)
        return code;
    if (code != HP_OK) {
        counts->unreadable++;
        return rename(path, aside) == 0
                   ? HP_OK
                   : hp_fail_errno(reterr, errno, "setting %s aside", path);
    }
    hp_filing_group(db, config, &group, 1);
    counts->filed += f.code == HP_OK;
    return f.code == HP_OK ? HP_OK : hp_fail(reterr, f.code, "%s", f.error.msg);
}

static hp_code check_spool(const hp_config *config, hp_db *db, hp_recovery_counts *counts,
                           hp_error *reterr)
{
    char spool[HP_PATH_MAX];
    walk w = {.at = 0};
    hp_code code = hp_path_fmt(spool, reterr, "%s/spool", config->state_dir);

    if (code == HP_OK)
        code = list_folder(spool, &w.files, reterr);
    if (code == HP_OK)
        code = hp_study_each_file(db, one_row, &w, reterr);
    while (code == HP_OK && w.at < w.files.count)
        pass_loose(&w);
    if (code == HP_OK && w.no_memory)
        code = hp_fail(reterr, HP_E_NO_MEMORY, "no memory for file names");
    for (size_t i = 0; i < w.lost_count; i++) {
        if (code == HP_OK)
            code = hp_study_file_lost(db, w.lost[i].study, w.lost[i].name, reterr);
        free(w.lost[i].name);
    }
    counts->lost = w.lost_count;
    for (size_t i = 0; code == HP_OK && i < w.loose.count; i++)
        code = one_loose(config, db, w.loose.item[i], counts, reterr);
    free(w.lost);
    names_done(&w.files);
    names_done(&w.loose);
    return code;
}

/* ---- the outbox ---- */

/* outbox/JOB/RUN without a row, and every RUN.part. */
static hp_code check_job_folder(hp_db *db, const char *outbox, const char *job,
                                hp_recovery_counts *counts, hp_error *reterr)
{
    char path[HP_PATH_MAX], folder[HP_PATH_MAX];
    names runs = {0};
    hp_code code = hp_path_fmt(path, reterr, "%s/%s", outbox, job);

    if (code == HP_OK)
        code = list_folder(path, &runs, reterr);
    for (size_t i = 0; code == HP_OK && i < runs.count; i++) {
        hp_code known;

        code = hp_path_fmt(folder, reterr, "%s/%s", job, runs.item[i]);
        if (code != HP_OK)
            break;
        known = hp_outbox_folder_known(db, folder, reterr);
        if (known == HP_OK)
            continue;
        if (known != HP_E_NOT_FOUND) {
            code = known;
            break;
        }
        code = hp_path_fmt(path, reterr, "%s/%s", outbox, folder);
        if (code == HP_OK)
            code = hp_path_remove(path, reterr);
        counts->litter++;
    }
    names_done(&runs);
    if (code == HP_OK) { /* empty now? then gone; else it stays */
        code = hp_path_fmt(path, reterr, "%s/%s", outbox, job);
        rmdir(path);
    }
    return code;
}

static hp_code check_outbox(const hp_config *config, hp_db *db,
                            hp_recovery_counts *counts, hp_error *reterr)
{
    char outbox[HP_PATH_MAX];
    names jobs = {0};
    hp_code code = hp_path_fmt(outbox, reterr, "%s/outbox", config->state_dir);

    if (code == HP_OK)
        code = list_folder(outbox, &jobs, reterr);
    for (size_t i = 0; code == HP_OK && i < jobs.count; i++)
        code = check_job_folder(db, outbox, jobs.item[i], counts, reterr);
    names_done(&jobs);
    return code;
}

static hp_code drop_gone_peers(const hp_config *config, hp_db *db,
                               hp_recovery_counts *counts, hp_error *reterr)
{
    const char *peers[HP_CONFIG_MAX_LIST];
    int n = 0;

    for (int i = 0; i < config->peer_count; i++)
        if (config->peers[i].results)
            peers[n++] = config->peers[i].name;
    return hp_outbox_retire(db, peers, n, &counts->retired, reterr);
}

hp_code hp_recovery_run(const hp_config *config, hp_db *db, hp_recovery_counts *ret,
                        hp_error *reterr)
{
    hp_code code;

    memset(ret, 0, sizeof *ret);
    code = check_spool(config, db, ret, reterr);
    if (code == HP_OK)
        code = hp_job_recover(db, &ret->jobs, reterr);
    if (code == HP_OK)
        code = hp_outbox_recover(db, &ret->deliveries, reterr);
    if (code == HP_OK)
        code = drop_gone_peers(config, db, ret, reterr);
    if (code == HP_OK)
        code = check_outbox(config, db, ret, reterr);
    return code == HP_OK ? HP_OK : hp_wrap(reterr, code, "recovery");
}
