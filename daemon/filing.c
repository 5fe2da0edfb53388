/* See filing.h.
 *
 * DESIGN A slice comes with its file synced, and the file can make its row again,
 * so the commit of new slices does not wait for the disk: after a power cut
 * recovery files those files once more and comes to the same end. The first
 * synced commit that follows, at the latest the one that claims the job, makes
 * the rows durable. A conflict is told by an event and a file in quarantine/,
 * which no file can make again: its group is synced.
 */
#include "daemon/filing.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/crash.h"
#include "db/job.h"

static const char *name_of(const hp_filing *f)
{
    return strrchr(f->stored.path, '/') + 1;
}

static hp_instance instance_of(const hp_filing *f)
{
    const hp_stored *s = &f->stored;
    hp_instance in = {.sop_class = s->sop_class,
                      .sop_instance = s->sop_instance,
                      .study = s->study,
                      .series = s->series,
                      .transfer_syntax = s->transfer_syntax,
                      .modality = s->modality,
                      .accession = s->accession,
                      .study_date = s->study_date,
                      .size_bytes = (int64_t)s->size_bytes,
                      .name = name_of(f),
                      .calling_ae = s->calling_ae,
                      .peer_address = s->peer};

    memcpy(in.patient_digest, s->patient_digest, sizeof in.patient_digest);
    return in;
}

/* We know the UID: the same bytes, or others? A first file that is gone makes
 * this one the first. */
static hp_code compare(hp_db *db, const hp_config *config, hp_filing *f, const char *name)
{
    char first[HP_PATH_MAX];
    bool same = false;
    hp_code code = hp_path_fmt(first, &f->error, "%s/spool/%s", config->state_dir, name);

    if (code != HP_OK)
        return code;
    code = hp_spool_same(f->stored.path, first, &same, &f->error);
    if (code == HP_E_NOT_FOUND && !hp_path_exists(first)) {
        int64_t study = 0;
        hp_auto(hp_job) *job = NULL;

        if (hp_job_of_study(db, f->stored.study.text, &job, NULL) == HP_OK)
            study = job->study_id;
        f->disposition = HP_STORED_NEW;
        return hp_study_file_lost(db, study, name, &f->error);
    }
    if (code == HP_OK)
        f->disposition = same ? HP_STORED_DUPLICATE : HP_STORED_CONFLICT;
    return code;
}

static hp_code to_quarantine(const hp_config *config, hp_filing *f)
{
    char path[HP_PATH_MAX];
    hp_code code =
        hp_path_fmt(path, &f->error, "%s/quarantine/%s", config->state_dir, name_of(f));

    if (code != HP_OK)
        return code;
    if (rename(f->stored.path, path) != 0)
        return hp_fail_errno(&f->error, errno, "setting a file aside");
    memcpy(f->stored.path, path, sizeof path);
    return HP_OK;
}

static hp_code classify(hp_db *db, const hp_config *config, hp_filing *f)
{
    char name[64];
    hp_code code = hp_study_lookup(db, f->stored.sop_instance.text, &f->disposition, name,
                                   &f->error);

    if (code == HP_OK && f->disposition == HP_STORED_DUPLICATE)
        code = compare(db, config, f, name);
    if (code == HP_OK && f->disposition == HP_STORED_CONFLICT)
        code = to_quarantine(config, f);
    return code;
}

static hp_code commit_rows(hp_db *db, hp_filing *const *group, int count, bool synced,
                           hp_error *err)
{
    hp_auto(hp_tx) *tx = NULL;
    hp_code code =
        synced ? hp_tx_begin(db, &tx, err) : hp_tx_begin_unsynced(db, &tx, err);

    for (int i = 0; code == HP_OK && i < count; i++) {
        hp_instance in;

        if (group[i]->code != HP_OK)
            continue;
        in = instance_of(group[i]);
        if (group[i]->disposition == HP_STORED_NEW)
            code = hp_study_add(db, &in, err);
        else
            code = hp_study_count(db, &in, group[i]->disposition, in.name, err);
    }
    return code == HP_OK ? hp_tx_commit(tx, err) : code;
}

bool hp_filing_group(hp_db *db, const hp_config *config, hp_filing *const *group,
                     int count)
{
    hp_error err = HP_ERROR_INIT;
    bool images = false, conflict = false;
    hp_code rows;

    for (int i = 0; i < count; i++) {
        group[i]->code = classify(db, config, group[i]);
        conflict |= group[i]->disposition == HP_STORED_CONFLICT;
    }
    rows = commit_rows(db, group, count, conflict, &err);
    hp_crash_point("rows_committed"); /* kept, and nobody was told */
    for (int i = 0; i < count; i++) {
        hp_filing *f = group[i];

        if (f->code == HP_OK && rows != HP_OK) {
            f->code = rows;
            f->error = err;
        }
        if (f->code != HP_OK)
            continue;
        if (f->disposition == HP_STORED_DUPLICATE || f->disposition == HP_STORED_ECHO)
            unlink(f->stored.path);
        images |= f->disposition == HP_STORED_NEW &&
                  hp_instance_is_ct(f->stored.sop_class.text);
    }
    return images;
}
