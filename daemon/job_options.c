/* Options of a job: defaults, from JSON, and their part in the input digest. */
#include "daemon/job_run.h"

#include <stdio.h>
#include <string.h>

#include "base/number.h"
#include "inference/model.h"

static const char *const MISSING[] = {
    [HP_MISSING_DETECT_ONLY] = "detect-only",
    [HP_MISSING_SUBSTITUTE] = "substitute",
    [HP_MISSING_REFUSE] = "refuse",
};

const char *hp_missing_phase_name(hp_missing_phase m)
{
    return MISSING[m];
}

hp_code hp_missing_phase_parse(const char *word, hp_missing_phase *ret, hp_error *reterr)
{
    for (size_t i = 0; i < sizeof MISSING / sizeof MISSING[0]; i++)
        if (strcmp(word, MISSING[i]) == 0) {
            *ret = (hp_missing_phase)i;
            return HP_OK;
        }
    return hp_fail(reterr, HP_E_INVALID,
                   "missing_phase is not detect-only, substitute or refuse");
}

void hp_job_options_init(hp_job_options *o)
{
    memset(o, 0, sizeof *o);
    strcpy(o->device, "auto");
    strcpy(o->precision, "auto");
    strcpy(o->sc_modality, "OT");
    strcpy(o->ae_title, "HEPAR");
    strcpy(o->node_name, "hepar");
    o->missing_phase = HP_MISSING_DETECT_ONLY;
}

static hp_code get_text(const json_t *j, const char *key, char *ret, size_t size,
                        hp_error *reterr)
{
    const json_t *v = json_object_get(j, key);

    if (v == NULL || json_is_null(v))
        return HP_OK;
    if (!json_is_string(v) || strlen(json_string_value(v)) >= size)
        return hp_fail(reterr, HP_E_INVALID, "options.%s is no text or too long", key);
    snprintf(ret, size, "%s", json_string_value(v));
    return HP_OK;
}

static hp_code get_rule(const json_t *j, hp_phase_rule *ret, hp_error *reterr)
{
    const char *phase = hp_json_str(j, "phase", "");

    memset(ret, 0, sizeof *ret);
    ret->phase = hp_phase_parse(phase);
    if (ret->phase == HP_PHASE_NONE && strcmp(phase, "-") != 0)
        return hp_fail(reterr, HP_E_INVALID,
                       "options.phase_rules: phase is not NC, A, V, D or -");
    ret->series_number = (int)hp_json_int(j, "series_number", -1);
    return get_text(j, "description", ret->description, sizeof ret->description, reterr);
}

static hp_code get_rules(const json_t *j, hp_job_options *o, hp_error *reterr)
{
    const json_t *rules = json_object_get(j, "phase_rules");
    hp_code r = HP_OK;

    if (rules == NULL)
        return HP_OK;
    if (!json_is_array(rules) || json_array_size(rules) > HP_JOB_MAX_RULES)
        return hp_fail(reterr, HP_E_INVALID,
                       "options.phase_rules is no list of at most %d", HP_JOB_MAX_RULES);
    o->rule_count = 0;
    for (size_t i = 0; i < json_array_size(rules) && r == HP_OK; i++)
        r = get_rule(json_array_get(rules, i), &o->rule[o->rule_count++], reterr);
    return r;
}

hp_code hp_job_options_from_json(const json_t *j, hp_job_options *o, hp_error *reterr)
{
    char missing[32] = "";
    hp_code r;

    if (!json_is_object(j))
        return hp_fail(reterr, HP_E_INVALID, "options is no object");
    o->threads = (int)hp_json_int(j, "threads", o->threads);
    o->min_coverage_mm = hp_json_num(j, "min_coverage_mm", o->min_coverage_mm);
    o->report_unsuitable = hp_json_bool(j, "report_unsuitable", o->report_unsuitable);
    o->liver_check_off = hp_json_bool(j, "liver_check_off", o->liver_check_off);
    o->evaluate = hp_json_bool(j, "evaluate", o->evaluate);
    r = get_text(j, "bundle", o->bundle, sizeof o->bundle, reterr);
    if (r == HP_OK)
        r = get_text(j, "device", o->device, sizeof o->device, reterr);
    if (r == HP_OK)
        r = get_text(j, "precision", o->precision, sizeof o->precision, reterr);
    if (r == HP_OK)
        r = get_text(j, "plan_cache", o->plan_cache, sizeof o->plan_cache, reterr);
    if (r == HP_OK)
        r = get_text(j, "sc_modality", o->sc_modality, sizeof o->sc_modality, reterr);
    if (r == HP_OK)
        r = get_text(j, "tracking_prefix", o->tracking_prefix, sizeof o->tracking_prefix,
                     reterr);
    if (r == HP_OK)
        r = get_text(j, "ae_title", o->ae_title, sizeof o->ae_title, reterr);
    if (r == HP_OK)
        r = get_text(j, "node_name", o->node_name, sizeof o->node_name, reterr);
    if (r == HP_OK)
        r = get_text(j, "missing_phase", missing, sizeof missing, reterr);
    if (r == HP_OK && missing[0] != 0)
        r = hp_missing_phase_parse(missing, &o->missing_phase, reterr);
    return r == HP_OK ? get_rules(j, o, reterr) : r;
}

/* -- the input digest -- */

void hp_job_digest_add_text(hp_job_digest *d, const char *text)
{
    hp_sha256_add(&d->sum, text, strlen(text));
    hp_sha256_add(&d->sum, "\n", 1); /* no two lists of lines give the same bytes */
}

static void add_number(hp_job_digest *d, const char *name, double v)
{
    char number[64], line[128];

    hp_format_double(v, 9, number, sizeof number);
    snprintf(line, sizeof line, "%s=%s", name, number);
    hp_job_digest_add_text(d, line);
}

void hp_job_digest_init(hp_job_digest *d, const hp_job_options *o, const char *study_uid)
{
    hp_sha256_init(&d->sum);
    /* Another version may find something else, and then needs other UIDs. */
    hp_job_digest_add_text(d, "hepar " HP_VERSION " input 1");
    add_number(d, "report_min", HP_MODEL_REPORT_MIN); /* not in the bundle's sum */
    hp_job_digest_add_text(d, study_uid);
    hp_job_digest_add_text(d, o->device);
    hp_job_digest_add_text(d, o->precision);
    hp_job_digest_add_text(d, hp_missing_phase_name(o->missing_phase));
    add_number(d, "min_coverage_mm", o->min_coverage_mm > 0 ? o->min_coverage_mm : 0);
    add_number(d, "liver_check_off", o->liver_check_off);
    add_number(d, "evaluate", o->evaluate);
    /* These change the objects, if not the findings. */
    hp_job_digest_add_text(d, o->sc_modality);
    hp_job_digest_add_text(d, o->tracking_prefix);
    hp_job_digest_add_text(d, o->ae_title);
    hp_job_digest_add_text(d, o->node_name);
    for (int i = 0; i < o->rule_count; i++) {
        hp_job_digest_add_text(d, hp_phase_name(o->rule[i].phase));
        hp_job_digest_add_text(d, o->rule[i].description);
        add_number(d, "series_number", o->rule[i].series_number);
    }
}

void hp_job_digest_add_phase(hp_job_digest *d, const hp_assembly *a, hp_phase phase,
                             const hp_volume *vol)
{
    hp_job_digest_add_text(d, hp_phase_name(phase));
    for (int z = 0; z < vol->geom.n[HP_Z]; z++) {
        const hp_slice *s = hp_assembly_slice(a, phase, z);

        hp_job_digest_add_text(d, s->sop_instance.text);
        add_number(d, "frame", s->frame);
    }
    for (int i = 0; i < 3; i++) {
        add_number(d, "n", vol->geom.n[i]);
        add_number(d, "spacing", vol->geom.spacing_mm[i]);
        add_number(d, "origin", vol->geom.origin_mm[i]);
        for (int k = 0; k < 3; k++)
            add_number(d, "axis", vol->geom.axis[i][k]);
    }
    hp_sha256_add(&d->sum, vol->hu, hp_geom_voxels(&vol->geom) * sizeof *vol->hu);
}

void hp_job_digest_end(hp_job_digest *d, char ret[HP_SHA256_HEX])
{
    uint8_t raw[32];

    hp_sha256_end(&d->sum, raw);
    hp_sha256_hex(raw, ret);
}
