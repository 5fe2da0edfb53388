/* One study from files to result objects.
 *
 * The order is that of the day: headers, phases, volumes, pipeline, objects. The
 * bundle is opened when there is something to read with it.
 * Everything of one run lives in `struct run` and is freed at its end, whatever
 * happened; what survives a run is the opened bundle. The result is filled as
 * far as the run got, so that an unsuitable or failed study can be explained.
 */
#include "daemon/job_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/crash.h"
#include "dicom/report.h"
#include "inference/backend.h"

struct hp_job_runner {
    hp_pipeline *pipeline; /* opened with `options`; NULL before the first job */
    int64_t opened_ms;     /* wall clock */
    hp_job_options options;
    const hp_job_request *now; /* the running job, for progress */
};

typedef struct run {
    hp_job_runner *runner;
    const hp_job_request *req;
    hp_job_result *res;
    hp_slice_list list;
    int unreadable;
    hp_assembly *assembly;
    hp_volume *native[HP_PHASES], *registered[HP_PHASES], *liver;
    int64_t since_ms;
} run;

static void progress(const hp_job_request *req, const char *stage, double fraction)
{
    if (req->on_progress != NULL)
        req->on_progress(stage, fraction, req->payload);
}

static void pipeline_progress(const char *stage, double fraction, void *payload)
{
    const hp_job_runner *r = payload;

    if (r->now != NULL)
        progress(r->now, stage, fraction);
}

static void pipeline_note(const char *line, void *payload)
{
    const hp_job_runner *r = payload;

    if (r->now != NULL && r->now->on_note != NULL)
        r->now->on_note(line, r->now->payload);
}

static void lap(run *w, const char *name)
{
    int64_t now = hp_clock_mono_ms();

    hp_findings_time(&w->res->findings, name, (double)(now - w->since_ms));
    w->since_ms = now;
}

/* -- the bundle -- */

hp_code hp_job_runner_new(hp_job_runner **ret, hp_error *reterr)
{
    hp_job_runner *r = calloc(1, sizeof *r);

    if (r == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "job runner");
    *ret = r;
    return HP_OK;
}

void hp_job_runner_free(hp_job_runner *r)
{
    if (r != NULL)
        hp_pipeline_free(r->pipeline);
    free(r);
}

/* Does the opened pipeline serve these options? */
static bool still_fits(const hp_job_runner *r, const hp_job_options *o)
{
    const hp_job_options *had = &r->options;

    return r->pipeline != NULL && strcmp(had->bundle, o->bundle) == 0 &&
           strcmp(had->device, o->device) == 0 &&
           strcmp(had->precision, o->precision) == 0 &&
           strcmp(had->plan_cache, o->plan_cache) == 0 && had->threads == o->threads &&
           had->missing_phase == o->missing_phase &&
           had->liver_check_off == o->liver_check_off && had->evaluate == o->evaluate;
}

static hp_code open_pipeline(run *w, hp_error *reterr)
{
    hp_job_runner *runner = w->runner;
    hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;
    hp_pipeline *opened = NULL;
    hp_code r;

    if (still_fits(runner, w->req->options))
        return HP_OK;
    hp_pipeline_free(runner->pipeline);
    runner->pipeline = NULL;
    runner->options = *w->req->options;
    opt.threads = runner->options.threads;
    opt.device = runner->options.device;
    opt.precision = runner->options.precision;
    opt.plan_cache = runner->options.plan_cache;
    opt.missing_phase = runner->options.missing_phase;
    opt.liver_check_off = runner->options.liver_check_off;
    opt.evaluate = runner->options.evaluate;
    opt.on_progress = pipeline_progress;
    opt.on_note = pipeline_note;
    opt.payload = runner;
    r = hp_pipeline_open(runner->options.bundle, &opt, &opened, reterr);
    if (r != HP_OK)
        return hp_wrap(reterr, r, "opening the model bundle");
    runner->pipeline = opened;
    runner->opened_ms = hp_clock_wall_ms();
    return HP_OK;
}

/* -- reading -- */

/* A file that is no DICOM, cut off or beyond a limit is one slice less; a file that
 * is not there, or a disk that does not read, fails the run. What follows a full
 * list is not read: the assembly refuses the study. */
static hp_code read_files(run *w, hp_error *reterr)
{
    for (size_t i = 0; i < w->req->file_count && w->list.count < HP_MAX_PLANES; i++) {
        hp_error e = HP_ERROR_INIT;
        hp_code r = hp_slice_read(w->req->file[i], &w->list, &e);

        if (r == HP_E_NOT_FOUND || hp_code_may_retry(r))
            return hp_fail(reterr, r, "reading file %zu of %zu: %s", i + 1,
                           w->req->file_count, e.msg);
        w->unreadable += r != HP_OK && r != HP_E_UNSUPPORTED;
        if (i % 32 == 0)
            progress(w->req, "read", (double)i / (double)w->req->file_count);
    }
    if (w->list.count == 0)
        return hp_fail(reterr, HP_E_EMPTY, "none of %zu files is readable",
                       w->req->file_count);
    return HP_OK;
}

static hp_code read_headers(run *w, hp_error *reterr)
{
    const char *want = w->req->study_uid;
    hp_code r;

    progress(w->req, "read", 0);
    r = w->req->file != NULL
            ? read_files(w, reterr)
            : hp_slice_read_dir(w->req->folder, &w->list, &w->unreadable, reterr);
    if (r != HP_OK)
        return r;
    lap(w, "read");
    if (want != NULL && want[0] != 0 && strcmp(want, w->list.item[0].study.text) != 0)
        return hp_fail(reterr, HP_E_MISMATCH, "the files belong to another study");
    return HP_OK;
}

static hp_code assemble(run *w, hp_error *reterr)
{
    const hp_job_options *o = w->req->options;
    hp_series_rules rules = HP_SERIES_RULES_INIT;
    hp_code r;

    rules.rule = o->rule;
    rules.rule_count = o->rule_count;
    if (o->min_coverage_mm > 0)
        rules.min_coverage_mm = o->min_coverage_mm;
    r = hp_series_assemble(&w->list, &rules, &w->res->findings, &w->assembly, reterr);
    lap(w, "assemble");
    return r;
}

static hp_code load(run *w, hp_job_digest *digest, hp_error *reterr)
{
    for (int p = 0; p < HP_PHASES; p++) {
        hp_code r;

        progress(w->req, "load", p / (double)HP_PHASES);
        if (!hp_assembly_has(w->assembly, (hp_phase)p))
            continue;
        r = hp_assembly_load(w->assembly, (hp_phase)p, &w->native[p], reterr);
        if (r != HP_OK)
            return r;
        hp_job_digest_add_phase(digest, w->assembly, (hp_phase)p, w->native[p]);
    }
    lap(w, "load");
    return HP_OK;
}

/* -- writing -- */

/* Whose patient and study attributes the objects carry. A study without a venous
 * phase has a text form too; then any CT plane does, else any object: the assembly
 * has refused a list with two studies or two patients. */
static const char *source_path(const run *w)
{
    const hp_geom *g =
        w->assembly != NULL ? hp_assembly_geom(w->assembly, HP_PHASE_V) : NULL;

    if (g != NULL)
        return hp_assembly_slice(w->assembly, HP_PHASE_V, g->n[HP_Z] / 2)->path;
    for (size_t i = 0; i < w->list.count; i++)
        if (w->list.item[i].rows > 0)
            return w->list.item[i].path;
    return w->list.item[0].path;
}

static void take_object(hp_job_result *res, const hp_report_object *from)
{
    hp_job_object *to = &res->object[res->object_count++];

    snprintf(to->kind, sizeof to->kind, "%s", hp_result_kind_name(from->kind));
    snprintf(to->file, sizeof to->file, "%s", from->file);
    snprintf(to->png, sizeof to->png, "%s", from->png);
    snprintf(to->sop_class.text, sizeof to->sop_class.text, "%s",
             hp_result_kind_sop_class(from->kind));
    to->sop_instance = from->sop_instance;
    to->series = from->series;
    to->required = from->required;
}

static hp_code write_objects(run *w, hp_error *reterr)
{
    const hp_job_options *o = w->req->options;
    hp_findings *f = &w->res->findings;
    hp_result_identity id = {.study_uid = f->study_uid, .created_ms = w->req->created_ms};
    hp_report rep = {
        .findings = f,
        .identity = &id,
        .assembly = w->assembly,
        .source_path = source_path(w),
        .registered = (const hp_volume *const *)w->registered,
        .liver = w->liver,
        .node_name = o->node_name,
        .software_version = HP_VERSION,
        .ae_title = o->ae_title,
        .sc_modality = o->sc_modality,
        .tracking_prefix = o->tracking_prefix,
        .revision = w->req->revision,
        .predecessor = w->req->predecessor,
    };
    hp_report_object built[HP_REPORT_OBJECTS_MAX];
    int count = 0;
    hp_code r;

    for (int i = 0; i < f->candidate_count; i++)
        f->candidates[i].key_number = hp_report_key_number(&rep, i);
    if (f->outcome == HP_OUTCOME_UNSUITABLE && !o->report_unsuitable)
        return HP_OK;
    snprintf(id.installation_id, sizeof id.installation_id, "%s",
             w->req->installation_id);
    snprintf(id.input_digest, sizeof id.input_digest, "%s", w->res->input_digest);
    snprintf(id.bundle_sha256, sizeof id.bundle_sha256, "%s", f->bundle_sha256);
    progress(w->req, "report", 0);
    r = hp_report_write(&rep, w->req->out, built, &count, reterr);
    if (r != HP_OK)
        return hp_wrap(reterr, r, "writing the results");
    for (int i = 0; i < count && i < HP_JOB_MAX_OBJECTS; i++)
        take_object(w->res, &built[i]);
    lap(w, "report");
    return HP_OK;
}

static hp_code write_result(run *w, hp_error *reterr)
{
    char path[HP_PATH_MAX];
    hp_auto(json_t) *j = hp_job_result_to_json(w->res);
    hp_code r;

    if (j == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "result.json");
    r = hp_path_fmt(path, reterr, "%s/result.json", w->req->out);
    return r == HP_OK ? hp_json_write_file(path, j, reterr) : r;
}

/* -- the run -- */

/* An unsuitable study has no volumes: its input is its list of instances. */
static void digest_instances(const run *w, hp_job_digest *d)
{
    for (size_t i = 0; i < w->list.count; i++)
        hp_job_digest_add_text(d, w->list.item[i].sop_instance.text);
    hp_job_digest_add_text(d, w->res->findings.reason_code);
}

static hp_code look(run *w, hp_error *reterr)
{
    hp_findings *f = &w->res->findings;
    hp_job_digest digest;
    hp_code r;

    r = read_headers(w, reterr);
    if (r != HP_OK)
        return r;
    f->study_uid = w->list.item[0].study;
    hp_crash_point("worker.read");
    r = assemble(w, reterr);
    hp_job_digest_init(&digest, w->req->options, f->study_uid.text);
    if (r == HP_OK || (r == HP_E_UNSUITABLE && w->req->options->report_unsuitable)) {
        hp_code opened = open_pipeline(w, r == HP_OK ? reterr : NULL);

        lap(w, "bundle");
        r = r == HP_OK ? opened : r;
    }
    if (r == HP_OK)
        r = load(w, &digest, reterr);
    if (r == HP_OK) {
        hp_crash_point("worker.loaded");
        r = hp_pipeline_run(w->runner->pipeline, (const hp_volume *const *)w->native, f,
                            w->registered, &w->liver, reterr);
    } else if (r == HP_E_UNSUITABLE) {
        digest_instances(w, &digest);
    }
    hp_job_digest_end(&digest, w->res->input_digest);
    if (r != HP_OK)
        f->outcome = r == HP_E_UNSUITABLE ? HP_OUTCOME_UNSUITABLE : HP_OUTCOME_NONE;
    for (int p = 0; p < HP_PHASES; p++) {
        hp_volume_free(w->native[p]);
        w->native[p] = NULL;
    }
    return r;
}

static void add_unreadable(const run *w, hp_findings *f)
{
    size_t n = strlen(f->reason);

    if (w->unreadable > 0)
        snprintf(f->reason + n, sizeof f->reason - n, "%s%d file%s could not be read",
                 n > 0 ? "; " : "", w->unreadable, w->unreadable == 1 ? "" : "s");
}

static void run_done(run *w)
{
    hp_assembly_free(w->assembly);
    hp_slice_list_done(&w->list);
    hp_volume_free(w->liver);
    for (int p = 0; p < HP_PHASES; p++) {
        hp_volume_free(w->native[p]);
        hp_volume_free(w->registered[p]);
    }
}

hp_code hp_job_run(hp_job_runner *runner, const hp_job_request *req, hp_job_result *ret,
                   hp_error *reterr)
{
    run w = {.runner = runner, .req = req, .res = ret, .since_ms = hp_clock_mono_ms()};
    int64_t began_ms = w.since_ms;
    hp_findings *f = &ret->findings;
    hp_code r;

    memset(ret, 0, sizeof *ret);
    hp_findings_init(f);
    f->revision = req->revision;
    runner->now = req;
    r = look(&w, reterr);
    if (r == HP_E_UNSUITABLE) {
        add_unreadable(&w, f);
        r = HP_OK;
    }
    hp_crash_point("worker.read_out");
    w.since_ms = hp_clock_mono_ms();
    if (r == HP_OK)
        r = write_objects(&w, reterr);
    hp_findings_time(f, "total", (double)(hp_clock_mono_ms() - began_ms));
    if (r != HP_OK) {
        ret->object_count = 0;
        if (f->reason[0] == 0 && reterr != NULL)
            snprintf(f->reason, sizeof f->reason, "%.199s", reterr->msg);
        write_result(&w, NULL);
    } else {
        r = write_result(&w, reterr);
    }
    hp_crash_point("worker.written");
    runner->now = NULL;
    run_done(&w);
    return r;
}

hp_code hp_job_check_device(const hp_job_options *o, hp_error *reterr)
{
    hp_auto(hp_backend) *b = NULL;
    hp_backend_options opt = HP_BACKEND_OPTIONS_INIT;

    opt.device = o->device;
    opt.precision = o->precision;
    opt.threads = o->threads;
    return hp_backend_open_with(&opt, &b, reterr);
}

hp_code hp_job_check(hp_job_runner *runner, const hp_job_options *o, hp_error *reterr)
{
    hp_job_request req = {.options = o};
    run w = {.runner = runner, .req = &req};

    return open_pipeline(&w, reterr);
}

hp_code hp_job_look(const hp_job_request *req, unsigned *ret_phases, hp_error *reterr)
{
    hp_job_result *res = calloc(1, sizeof *res);
    run w = {.req = req, .res = res, .since_ms = hp_clock_mono_ms()};
    hp_code r;

    if (res == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "looking at a study");
    hp_findings_init(&res->findings);
    r = read_headers(&w, reterr);
    if (r == HP_OK)
        r = assemble(&w, reterr);
    if (r == HP_OK || r == HP_E_UNSUITABLE) {
        *ret_phases = 0;
        for (int p = 0; p < HP_PHASES; p++)
            *ret_phases |= res->findings.phase_series[p] >= 0 ? 1u << p : 0;
        r = HP_OK;
    }
    run_done(&w);
    free(res);
    return r;
}

/* -- as JSON -- */

/* A tenth of a millisecond is as much as anybody wants to read. */
static double tenth(double ms)
{
    return round(ms * 10) / 10;
}

json_t *hp_job_inference_to_json(const hp_job_runner *r)
{
    hp_pipeline_facts f;

    if (r->pipeline == NULL)
        return json_null();
    hp_pipeline_get_facts(r->pipeline, &f);
    return json_pack("{ss,ss,ss,ss,ss,ss,s{ss,ss},sI,sf,sf}", "asked", f.asked, "device",
                     f.device, "what", f.what, "why", f.why, "precision", f.precision,
                     "plan_cache", f.plan_cache, "bundle", "name", f.bundle_name,
                     "version", f.bundle_version, "opened_ms", (json_int_t)r->opened_ms,
                     "open_ms", tenth(f.open_ms), "compile_ms", tenth(f.compile_ms));
}

json_t *hp_job_objects_to_json(const hp_job_result *r)
{
    json_t *list = json_array();

    for (int i = 0; i < r->object_count; i++) {
        const hp_job_object *o = &r->object[i];

        json_array_append_new(
            list, json_pack("{ss,ss,ss,ss,ss,sb,ss}", "kind", o->kind, "file", o->file,
                            "sop_class", o->sop_class.text, "sop_instance",
                            o->sop_instance.text, "series", o->series.text, "required",
                            o->required, "png", o->png));
    }
    return list;
}

json_t *hp_job_result_to_json(const hp_job_result *r)
{
    json_t *j = hp_findings_to_json(&r->findings), *list = json_array();

    for (int i = 0; i < r->object_count; i++) {
        const hp_job_object *o = &r->object[i];

        json_array_append_new(list, json_pack("{ss,ss,ss,ss,ss,s[]}", "kind", o->kind,
                                              "sop_instance_uid", o->sop_instance.text,
                                              "sop_class_uid", o->sop_class.text, "file",
                                              o->file, "png", o->png, "deliveries"));
    }
    if (j == NULL ||
        json_object_set_new(j, "input_digest", json_string(r->input_digest)) != 0 ||
        json_object_set_new(j, "results", list) != 0) {
        json_decref(j);
        return NULL;
    }
    return j;
}
