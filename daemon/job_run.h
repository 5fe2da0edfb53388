/* One study from files to result objects: what hepar-worker does for each job,
 * and hepar-run for a folder. No ledger, no network, no logging.
 *
 * read headers -> assemble phases -> load volumes -> pipeline -> input digest ->
 * SR, key images or note, and result.json, all below `out`.
 */
#ifndef HP_DAEMON_JOB_RUN_H
#define HP_DAEMON_JOB_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/findings.h"
#include "base/json.h"
#include "base/path.h"
#include "base/sha256.h"
#include "dicom/report.h"
#include "dicom/series.h"
#include "inference/pipeline.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { HP_JOB_MAX_OBJECTS = 8, HP_JOB_MAX_RULES = 64 };

/* Options that hold for every job of a worker; each that can change a result
 * enters the input digest. Strings are copied in. */
typedef struct hp_job_options {
    char bundle[HP_PATH_MAX];
    char device[16], precision[8], plan_cache[HP_PATH_MAX];
    int threads;
    hp_missing_phase missing_phase;
    bool report_unsuitable; /* also write the text form for an unsuitable study */
    bool liver_check_off, evaluate;
    double min_coverage_mm; /* <= 0: the default */
    hp_phase_rule rule[HP_JOB_MAX_RULES];
    int rule_count;
    char sc_modality[17], tracking_prefix[65], ae_title[17], node_name[65];
} hp_job_options;
void hp_job_options_init(hp_job_options *o);
/* The "options" object of the worker's "run" message; keys that are absent keep
 * what *o has. */
hp_code hp_job_options_from_json(const json_t *j, hp_job_options *o, hp_error *reterr);

typedef struct hp_job_request {
    const char *const *file; /* absolute paths, or */
    size_t file_count;
    const char *folder; /* a folder that is searched (file == NULL) */
    const char *out;    /* an existing, empty folder of ours */
    const hp_job_options *options;
    const char *study_uid; /* expected study; NULL or "" = whatever is there */
    int revision;
    const char *installation_id;
    int64_t created_ms; /* frozen: content and creation times of objects */
    /* (optional) the report of an earlier revision, which this one supersedes */
    const hp_result_predecessor *predecessor;
    void (*on_progress)(const char *stage, double fraction, void *payload);
    /* (optional) a line for the log: which device serves, and why */
    void (*on_note)(const char *line, void *payload);
    void *payload;
} hp_job_request;

typedef struct hp_job_object {
    char kind[16];          /* hp_result_kind_name() */
    char file[64], png[64]; /* names below out; png may be "" */
    hp_uid sop_class, sop_instance, series;
    bool required; /* a refusal of it fails the job */
} hp_job_object;

typedef struct hp_job_result {
    hp_findings findings; /* outcome UNSUITABLE carries reason_code, reason */
    char input_digest[HP_SHA256_HEX];
    hp_job_object object[HP_JOB_MAX_OBJECTS];
    int object_count;
} hp_job_result;

/* "detect-only" "substitute" "refuse". */
hp_code hp_missing_phase_parse(const char *word, hp_missing_phase *ret, hp_error *reterr);
const char *hp_missing_phase_name(hp_missing_phase m);

/* What a result depends on, as one SHA-256: options, and then the volumes in
 * the order of phases (instances, geometry, every HU value). Thread count and
 * transfer syntax do not change it. */
typedef struct hp_job_digest {
    hp_sha256 sum;
} hp_job_digest;
void hp_job_digest_init(hp_job_digest *d, const hp_job_options *o, const char *study_uid);
void hp_job_digest_add_text(hp_job_digest *d, const char *text);
void hp_job_digest_add_phase(hp_job_digest *d, const hp_assembly *a, hp_phase phase,
                             const hp_volume *vol);
void hp_job_digest_end(hp_job_digest *d, char ret[HP_SHA256_HEX]);

/* A runner keeps the opened bundle between jobs. One job at a time. */
typedef struct hp_job_runner hp_job_runner;
hp_code hp_job_runner_new(hp_job_runner **ret, hp_error *reterr);
void hp_job_runner_free(hp_job_runner *r);
HP_AUTO_DEFINE(hp_job_runner, hp_job_runner_free)

/* HP_OK: the study was read (outcome CLASSIFIED ... NO_CANDIDATE) or found
 * unsuitable (outcome UNSUITABLE; that is an answer, not a fault).
 * HP_E_MISMATCH: two patients in one study; nothing was written but result.json.
 * Other codes: the run failed; ret->findings is as far as it got. */
hp_code hp_job_run(hp_job_runner *r, const hp_job_request *req, hp_job_result *ret,
                   hp_error *reterr);

/* Is there the device of these options, and does it have their precision? The codes
 * and words of hp_backend_open_with(). */
hp_code hp_job_check_device(const hp_job_options *o, hp_error *reterr);
/* Opens the bundle of these options, as the first job would. The error names
 * file, tensor or line. */
hp_code hp_job_check(hp_job_runner *r, const hp_job_options *o, hp_error *reterr);
/* What serves: the "inference" of the worker's "done" message (hp_pipeline_facts).
 * JSON null: nothing was opened yet. NULL: no memory. */
json_t *hp_job_inference_to_json(const hp_job_runner *r);

/* Which phases the files hold as far as they have come (bit i: hp_phase i), for
 * the question whether a study is complete. Headers only; `out` is not used. */
hp_code hp_job_look(const hp_job_request *req, unsigned *ret_phases, hp_error *reterr);

/* result.json, and the "result" of the worker's "done" message: findings, with
 * the objects as "results". NULL: no memory. */
json_t *hp_job_result_to_json(const hp_job_result *r);
/* The "objects" of the "done" message. */
json_t *hp_job_objects_to_json(const hp_job_result *r);

#ifdef __cplusplus
}
#endif
#endif
