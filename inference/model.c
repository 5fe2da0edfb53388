/* Reading a bundle. */
#include "inference/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/path.h"

enum { MAX_WEIGHTS = 1 << 30 };

static const char *const STAGE_NAME[HP_STAGES] = {"liver", "detector", "keyslice", "ksf",
                                                  "classify"};

const char *hp_stage_id_name(hp_stage_id s)
{
    return STAGE_NAME[s];
}

typedef struct reader {
    const char *dir;
    const hp_yaml *yaml;
    hp_error *err;
    bool random;
    hp_model *m;
} reader;

/* "bundle.yaml: line 12: stages.liver.input: mean: missing" */
static hp_code bad(const reader *r, const json_t *map, const char *key, const char *what)
{
    int line = hp_yaml_key_line(r->yaml, map, key);

    if (line == 0)
        line = hp_yaml_line(r->yaml, map);
    return hp_fail(r->err, HP_E_INVALID, "bundle.yaml: line %d: %.40s: %s", line, key,
                   what);
}

static hp_code known(const reader *r, const json_t *map, const char *const *names)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)map, key, value)
    {
        int i = 0;

        while (names[i] != NULL && strcmp(names[i], key) != 0)
            i++;
        if (names[i] == NULL)
            return bad(r, map, key, "unknown key");
    }
    return HP_OK;
}

static hp_code text(const reader *r, const json_t *map, const char *key, char *ret,
                    size_t size)
{
    const char *s = hp_json_str(map, key, NULL);

    if (s == NULL || s[0] == '\0' || strlen(s) >= size)
        return bad(r, map, key, s == NULL ? "missing, or not text" : "empty or too long");
    snprintf(ret, size, "%s", s);
    return HP_OK;
}

static hp_code number(const reader *r, const json_t *map, const char *key, double min,
                      double max, double *ret)
{
    const json_t *v = json_object_get(map, key);

    if (!json_is_number(v) ||
        !(json_number_value(v) >= min && json_number_value(v) <= max))
        return bad(r, map, key, v == NULL ? "missing" : "not a number in range");
    *ret = json_number_value(v);
    return HP_OK;
}

static hp_code numbers(const reader *r, const json_t *map, const char *key, int n,
                       double min, double max, double *ret)
{
    const json_t *list = json_object_get(map, key);

    if (json_array_size(list) != (size_t)n)
        return bad(r, map, key, list == NULL ? "missing" : "wrong number of entries");
    for (int i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, (size_t)i);

        if (!json_is_number(v) ||
            !(json_number_value(v) >= min && json_number_value(v) <= max))
            return bad(r, map, key, "not a number in range");
        ret[i] = json_number_value(v);
    }
    return HP_OK;
}

/* --- one stage --------------------------------------------------------- */

static hp_code read_input(reader *r, const json_t *obj, hp_model_stage *s)
{
    static const char *const PLAIN[] = {"window", "mean", "std", "pad_hu", NULL};
    static const char *const PATCH[] = {"window",     "mean", "std",     "pad_hu",
                                        "spacing_mm", "crop", "ring_px", NULL};
    const json_t *in = json_object_get(obj, "input");
    bool patch = s->params.arch == HP_ARCH_SADT;
    double window[2], pad, n = 0;
    hp_code c;

    if (!json_is_object(in))
        return bad(r, obj, "input", "missing");
    c = known(r, in, patch ? PATCH : PLAIN);
    if (c == HP_OK)
        c = numbers(r, in, "window", 2, -2000, 4000, window);
    if (c == HP_OK && !(window[1] > window[0]))
        c = bad(r, in, "window", "empty");
    if (c == HP_OK)
        c = number(r, in, "mean", -10, 10, &s->window.mean);
    if (c == HP_OK)
        c = number(r, in, "std", 1e-3, 10, &s->window.std);
    if (c == HP_OK)
        c = number(r, in, "pad_hu", HP_PAD_HU, HP_PAD_HU, &pad);
    if (c != HP_OK)
        return c;
    s->window.lo = window[0];
    s->window.hi = window[1];
    if (!patch)
        return HP_OK;
    c = number(r, in, "spacing_mm", 0.1, 5, &s->patch_mm);
    if (c == HP_OK)
        c = number(r, in, "crop", 32, 1024, &n);
    s->crop_px = (int)n;
    if (c == HP_OK)
        c = number(r, in, "ring_px", 0, 256, &n);
    s->ring_px = (int)n;
    return c;
}

static hp_code read_phases(reader *r, const json_t *obj, hp_model_stage *s)
{
    const json_t *list = json_object_get(obj, "phases");

    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        hp_phase p = name != NULL ? hp_phase_parse(name) : HP_PHASE_NONE;

        if (p == HP_PHASE_NONE)
            return bad(r, obj, "phases", "not a phase");
        s->phases |= 1u << p;
    }
    return s->phases != 0 ? HP_OK : bad(r, obj, "phases", "missing");
}

/* What belongs to this stage alone. */
static hp_code read_rest(reader *r, const json_t *obj, hp_stage_id id, hp_model_stage *s)
{
    double topk = 0, keep = 0;
    hp_code c = HP_OK;

    if (id == HP_STAGE_CLASSIFY) {
        if (strcmp(hp_json_str(obj, "vote", ""), "majority") != 0)
            return bad(r, obj, "vote", "only \"majority\" is known");
        return number(r, obj, "temperature", 1e-3, 1e3, &s->temperature);
    }
    if (id == HP_STAGE_DETECTOR) {
        c = numbers(r, obj, "crop_margin_mm", 3, 0, 200, s->crop_margin_mm);
        if (c == HP_OK)
            c = number(r, obj, "topk", 1, 1000, &topk);
        if (c == HP_OK)
            c = number(r, obj, "score_min", 0, 1, &s->score_min);
        if (c == HP_OK)
            c = number(r, obj, "nms_iou", 0, 1, &s->nms_iou);
        s->report_min = HP_MODEL_REPORT_MIN;
        if (c == HP_OK && json_object_get(obj, "report_min") != NULL)
            c = number(r, obj, "report_min", 0, 1, &s->report_min);
        if (c == HP_OK)
            c = number(r, obj, "keep", 1, HP_MAX_CANDIDATES, &keep);
        s->topk = (int)topk;
        s->keep = (int)keep;
        return c;
    }
    if (id == HP_STAGE_KEYSLICE)
        c = read_phases(r, obj, s);
    return c == HP_OK ? number(r, obj, "threshold", 1e-6, 1 - 1e-6, &s->threshold) : c;
}

/* A stage's own keys; all have arch, dtype, act_max, params, input and files. */
static hp_code known_stage_keys(reader *r, const json_t *obj, hp_stage_id id)
{
    static const char *const KEYS[HP_STAGES][16] = {
        {"arch", "dtype", "act_max", "params", "input", "file", "sha256", "threshold"},
        {"arch", "dtype", "act_max", "params", "input", "file", "sha256",
         "crop_margin_mm", "topk", "score_min", "nms_iou", "keep", "report_min"},
        {"arch", "dtype", "act_max", "params", "input", "file", "sha256", "threshold",
         "phases"},
        {"arch", "dtype", "act_max", "params", "input", "files", "threshold"},
        {"arch", "dtype", "act_max", "params", "input", "files", "vote", "temperature"},
    };

    return known(r, obj, KEYS[id]);
}

/* --- weights ----------------------------------------------------------- */

/* The network is built once at a small size: that is what checks keys and shapes. */
static hp_code check_weights(const hp_net_params *p, hp_weights *w, hp_error *err)
{
    static const int SMALL[3] = {8, 32, 32}, FLAT[3] = {1, 32, 32};
    bool flat = p->arch == HP_ARCH_SADT || p->arch == HP_ARCH_UNET25D;
    hp_auto(hp_graph) *g = NULL;

    return hp_net_build(p, w, flat ? FLAT : SMALL, &g, err);
}

/* A file name of ours only: no folder, no dot-dot. */
static bool plain_name(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL &&
           strlen(name) < 64;
}

static hp_code load_file(reader *r, const json_t *entry, hp_model_stage *s)
{
    const char *file = hp_json_str(entry, "file", ""),
               *want = hp_json_str(entry, "sha256", "");
    hp_auto(hp_safetensors) *tensors = NULL;
    char path[HP_PATH_MAX], have[HP_SHA256_HEX];
    hp_code c;

    if (!plain_name(file))
        return bad(r, entry, "file", "missing, or not a plain file name");
    if (strlen(want) != HP_SHA256_HEX - 1)
        return bad(r, entry, "sha256", "missing, or not 64 digits");
    c = hp_path_fmt(path, r->err, "%s/%s", r->dir, file);
    if (c == HP_OK)
        c = hp_sha256_file(path, have, r->err);
    if (c != HP_OK)
        return hp_wrap(r->err, c, "%s", file);
    if (strcmp(have, want) != 0)
        return hp_fail(r->err, HP_E_CORRUPT,
                       "%s: SHA-256 is %.12s..., bundle.yaml line %d says %.12s...", file,
                       have, hp_yaml_key_line(r->yaml, entry, "sha256"), want);
    c = hp_safetensors_load(path, MAX_WEIGHTS, &tensors, r->err);
    if (c == HP_OK)
        c = hp_weights_from(tensors, "", &s->weights[s->weights_count], r->err);
    if (c == HP_OK) {
        c = check_weights(&s->params, s->weights[s->weights_count], r->err);
        s->weights_count++;
    }
    return c == HP_OK ? HP_OK : hp_wrap(r->err, c, "%s", file);
}

static hp_code load_random(reader *r, hp_model_stage *s, int count)
{
    hp_code c = HP_OK;

    for (int i = 0; i < count && c == HP_OK; i++) {
        c = hp_weights_random((uint64_t)i + 1, &s->weights[i], r->err);
        s->weights_count += c == HP_OK;
    }
    return c;
}

static hp_code load_weights(reader *r, const json_t *obj, hp_stage_id id,
                            hp_model_stage *s)
{
    static const char *const FILE_KEYS[] = {"file", "sha256", NULL};
    const json_t *files = json_object_get(obj, "files");
    size_t count = json_array_size(files);
    hp_code c = HP_OK;

    if (r->random)
        return load_random(r, s, id == HP_STAGE_CLASSIFY ? 5 : 1);
    if (id != HP_STAGE_KSF && id != HP_STAGE_CLASSIFY)
        return load_file(r, obj, s);
    if (count < 1 || count > (id == HP_STAGE_KSF ? 1 : HP_MODEL_FOLDS))
        return bad(r, obj, "files", files == NULL ? "missing" : "wrong number of files");
    for (size_t i = 0; i < count && c == HP_OK; i++) {
        const json_t *entry = json_array_get(files, i);

        c = known(r, entry, FILE_KEYS);
        if (c == HP_OK)
            c = load_file(r, entry, s);
    }
    return c;
}

static hp_code read_stage(reader *r, const json_t *stages, hp_stage_id id)
{
    static const hp_arch ARCH[HP_STAGES] = {HP_ARCH_UNET3D, HP_ARCH_HOURGLASS3D,
                                            HP_ARCH_UNET25D, HP_ARCH_SADT, HP_ARCH_SADT};
    const json_t *obj = json_object_get(stages, STAGE_NAME[id]);
    hp_model_stage *s = &r->m->stage[id];
    hp_code c;

    if (!json_is_object(obj))
        return bad(r, stages, STAGE_NAME[id], "missing");
    s->temperature = 1;
    c = known_stage_keys(r, obj, id);
    if (c != HP_OK)
        return c;
    c = hp_net_params_read(hp_json_str(obj, "arch", ""), json_object_get(obj, "params"),
                           r->yaml, &s->params, r->err);
    if (c != HP_OK)
        return hp_wrap(r->err, c, "bundle.yaml: stages.%s", STAGE_NAME[id]);
    if (s->params.arch != ARCH[id])
        return bad(r, obj, "arch", "not what this stage runs");
    if ((id == HP_STAGE_LIVER || id == HP_STAGE_DETECTOR) && s->params.grid[0] == 0)
        return bad(r, obj, "params", "grid: missing");
    if ((id == HP_STAGE_KEYSLICE || id == HP_STAGE_LIVER) &&
        !(s->params.spacing_mm[2] > 0))
        return bad(r, obj, "params", "spacing_mm: missing");
    c = read_input(r, obj, s);
    if (c == HP_OK)
        c = read_rest(r, obj, id, s);
    return c == HP_OK ? load_weights(r, obj, id, s) : c;
}

/* --- the whole bundle -------------------------------------------------- */

static hp_code read_classes(reader *r, const json_t *root)
{
    static const char *const KEYS[] = {"id", "label", "code", NULL};
    const json_t *list = json_object_get(root, "classes");
    size_t n = json_array_size(list);

    if (n < 2 || n > HP_MAX_CLASSES)
        return bad(r, root, "classes", "2 to 8 are needed");
    for (size_t i = 0; i < n; i++) {
        const json_t *e = json_array_get(list, i), *code = json_object_get(e, "code");
        hp_class *k = &r->m->classes[i];
        hp_code c = known(r, e, KEYS);

        if (c == HP_OK)
            c = text(r, e, "id", k->id, sizeof k->id);
        if (c == HP_OK)
            c = text(r, e, "label", k->label, sizeof k->label);
        if (c != HP_OK)
            return c;
        for (size_t a = 0; a < 3; a++) {
            const char *s = json_string_value(json_array_get(code, a));
            char *to = a == 0 ? k->code : a == 1 ? k->scheme : k->meaning;
            size_t size = a == 0   ? sizeof k->code
                          : a == 1 ? sizeof k->scheme
                                   : sizeof k->meaning;

            if (json_array_size(code) != 3 || s == NULL || strlen(s) >= size)
                return bad(r, e, "code", "[value, scheme, meaning] as text");
            snprintf(to, size, "%s", s);
        }
    }
    r->m->class_count = (int)n;
    return HP_OK;
}

static hp_code read_root(reader *r, const json_t *root)
{
    static const char *const KEYS[] = {"schema",       "name",   "version", "preset",
                                       "intended_use", "phases", "classes", "stages",
                                       "provenance",   NULL};
    static const char *const STAGES[] = {"liver", "detector", "keyslice",
                                         "ksf",   "classify", NULL};
    const json_t *phases = json_object_get(root, "phases");
    const json_t *stages = json_object_get(root, "stages");
    hp_code c = known(r, root, KEYS);

    if (c != HP_OK)
        return c;
    if (hp_json_int(root, "schema", 0) != 1)
        return bad(r, root, "schema", "only 1 is known");
    c = text(r, root, "name", r->m->name, sizeof r->m->name);
    if (c == HP_OK)
        c = text(r, root, "version", r->m->version, sizeof r->m->version);
    if (c == HP_OK)
        c = text(r, root, "intended_use", r->m->intended_use, sizeof r->m->intended_use);
    for (int p = 0; p < HP_PHASES && c == HP_OK; p++) {
        const char *s = json_string_value(json_array_get(phases, (size_t)p));

        if (s == NULL || strcmp(s, hp_phase_name((hp_phase)p)) != 0)
            c = bad(r, root, "phases", "must be [NC, A, V, D]");
    }
    if (c == HP_OK)
        c = read_classes(r, root);
    if (c == HP_OK)
        c = known(r, stages, STAGES);
    for (int s = 0; s < HP_STAGES && c == HP_OK; s++)
        c = read_stage(r, stages, (hp_stage_id)s);
    if (c == HP_OK &&
        r->m->stage[HP_STAGE_CLASSIFY].params.sadt.classes != r->m->class_count)
        c = bad(r, stages, "classify", "params.classes does not fit the classes above");
    if (c == HP_OK && r->m->stage[HP_STAGE_KSF].params.sadt.classes != 2)
        c = bad(r, stages, "ksf", "params.classes must be 2");
    return c;
}

hp_code hp_model_load(const char *dir, bool random, hp_model **ret, hp_error *reterr)
{
    hp_auto(hp_model) *m = calloc(1, sizeof *m);
    hp_auto(hp_yaml) *yaml = NULL;
    reader r = {.dir = dir, .err = reterr, .random = random, .m = m};
    char path[HP_PATH_MAX];
    hp_code c;

    if (m == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "bundle");
    c = hp_path_fmt(path, reterr, "%s/bundle.yaml", dir);
    if (c == HP_OK)
        c = hp_yaml_load(path, &yaml, reterr);
    if (c == HP_OK)
        c = hp_sha256_file(path, m->sha256, reterr);
    if (c != HP_OK)
        return hp_wrap(reterr, c, "bundle");
    r.yaml = yaml;
    c = read_root(&r, hp_yaml_root(yaml));
    if (c != HP_OK)
        return hp_wrap(reterr, c, "bundle %.60s", dir);
    *ret = hp_steal(&m);
    return HP_OK;
}

void hp_model_free(hp_model *m)
{
    if (m == NULL)
        return;
    for (int s = 0; s < HP_STAGES; s++)
        for (int i = 0; i < HP_MODEL_FOLDS; i++)
            hp_weights_free(m->stage[s].weights[i]);
    free(m);
}
