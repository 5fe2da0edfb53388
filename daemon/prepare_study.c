/* A DICOM study through the pipeline with every stage's tensor written down, and
 * the findings beside them. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/path.h"
#include "daemon/prepare.h"
#include "dicom/series.h"
#include "inference/safetensors.h"

/* One file for each tensor, named after it. */
typedef struct dump {
    const char *out;
    hp_error err;
} dump;

static void on_tensor(const char *name, const float *data, const int *dims, int rank,
                      void *payload)
{
    dump *d = payload;
    hp_tensor t = {.name = name, .dtype = HP_DTYPE_F32, .rank = rank, .data = data};
    char path[HP_PATH_MAX];

    for (int a = 0; a < rank; a++)
        t.dim[a] = dims[a];
    if (d->err.code == HP_OK &&
        hp_path_fmt(path, &d->err, "%s/%s.safetensors", d->out, name) == HP_OK)
        hp_safetensors_write(path, &t, 1, &d->err);
}

static hp_code read_folder(const char *path, hp_slice_list *list, int depth,
                           hp_error *reterr)
{
    DIR *dir = opendir(path);
    struct dirent *e;
    hp_code r = HP_OK;

    if (dir == NULL)
        return hp_fail_errno(reterr, errno, "opening %.120s", path);
    while (r == HP_OK && (e = readdir(dir)) != NULL) {
        char name[HP_PATH_MAX];

        if (e->d_name[0] == '.')
            continue;
        r = hp_path_fmt(name, reterr, "%s/%s", path, e->d_name);
        if (r == HP_OK && e->d_type == DT_DIR && depth < 4)
            r = read_folder(name, list, depth + 1, reterr);
        else if (r == HP_OK)
            (void)hp_slice_read(name, list, NULL); /* what is no DICOM is no slice */
    }
    closedir(dir);
    return r;
}

static hp_code load_phases(const hp_prepare *o, const hp_slice_list *list, hp_findings *f,
                           hp_volume *native[HP_PHASES], hp_error *reterr)
{
    hp_series_rules rules = HP_SERIES_RULES_INIT;
    hp_phase_rule given[HP_PHASES];
    hp_auto(hp_assembly) *a = NULL;
    hp_code r;

    for (int phase = 0; phase < HP_PHASES; phase++)
        if (o->series[phase] >= 0)
            given[rules.rule_count++] = (hp_phase_rule){
                .phase = (hp_phase)phase, .series_number = o->series[phase]};
    rules.rule = given;
    r = hp_series_assemble(list, &rules, f, &a, reterr);
    for (int phase = 0; phase < HP_PHASES && r == HP_OK; phase++)
        if (hp_assembly_has(a, (hp_phase)phase))
            r = hp_assembly_load(a, (hp_phase)phase, &native[phase], reterr);
    return r;
}

static hp_code run(const hp_prepare *o, dump *d, const hp_slice_list *list,
                   hp_findings *f, hp_error *reterr)
{
    hp_volume *native[HP_PHASES] = {NULL}, *registered[HP_PHASES] = {NULL}, *liver = NULL;
    hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;
    hp_auto(hp_pipeline) *p = NULL;
    hp_code r;

    opt.device = "cpu";
    opt.threads = o->threads;
    opt.precision = o->precision;
    opt.evaluate = true; /* every stage, whatever the sanity gates say */
    opt.on_tensor = on_tensor;
    opt.payload = d;
    r = hp_pipeline_open(o->bundle, &opt, &p, reterr);
    if (r == HP_OK)
        r = load_phases(o, list, f, native, reterr);
    if (r == HP_OK)
        r = hp_pipeline_run(p, (const hp_volume *const *)native, f, registered, &liver,
                            reterr);
    for (int phase = 0; phase < HP_PHASES; phase++) {
        hp_volume_free(native[phase]);
        hp_volume_free(registered[phase]);
    }
    hp_volume_free(liver);
    return r;
}

hp_code hp_prepare_study(const hp_prepare *o, hp_error *reterr)
{
    hp_slice_list list = {0};
    hp_auto(json_t) *findings = NULL;
    hp_findings *f = malloc(sizeof *f);
    dump d = {.out = o->out};
    char path[HP_PATH_MAX];
    hp_code r = f != NULL ? hp_path_mkdirs(o->out, 0755, reterr)
                          : hp_fail(reterr, HP_E_NO_MEMORY, "findings");

    if (r == HP_OK) {
        hp_findings_init(f);
        r = read_folder(o->in, &list, 0, reterr);
    }
    if (r == HP_OK && list.count == 0)
        r = hp_fail(reterr, HP_E_EMPTY, "no DICOM slice in %.120s", o->in);
    if (r == HP_OK)
        r = run(o, &d, &list, f, reterr);
    if (r == HP_OK && d.err.code != HP_OK) {
        r = d.err.code;
        if (reterr != NULL)
            *reterr = d.err;
    }
    if (r == HP_OK)
        r = hp_path_fmt(path, reterr, "%s/findings.json", o->out);
    if (r == HP_OK) {
        findings = hp_findings_to_json(f);
        r = hp_json_write_file(path, findings, reterr);
    }
    hp_slice_list_done(&list);
    free(f);
    return r;
}
