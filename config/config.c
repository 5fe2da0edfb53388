/* Reading the configuration: one table for each section says what a key is,
 * where it lands and what is allowed. A key that is in no table is refused, so
 * a typing error never means "the default, silently".
 */
#include "config/config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/number.h"
#include "base/yaml.h"

typedef struct reader {
    const hp_yaml *yaml;
    const char *file;
    char folder[HP_PATH_MAX]; /* relative paths start here */
    hp_error *err;
} reader;

typedef enum kind {
    TEXT, /* printable ASCII, 1 .. size-1 characters */
    WORD, /* one of `words`, separated by '|' */
    PATH,
    INT,
    BYTES, /* 512, 64 KiB, 2 GiB */
    REAL,
    BOOL,
    OTHER /* `read` does it */
} kind;

typedef struct key {
    const char *name;
    kind kind;
    size_t offset, size;
    double min, max;
    const char *words;
    hp_code (*read)(reader *r, const json_t *map, const char *name, const json_t *value,
                    void *base);
} key;

static hp_code bad(reader *r, const json_t *map, const char *name, const char *why)
{
    return hp_fail(r->err, HP_E_INVALID, "%s:%d: %s: %s", r->file,
                   hp_yaml_key_line(r->yaml, map, name), name, why);
}

/* ---- values ---- */

static hp_code text_of(reader *r, const json_t *map, const char *name,
                       const json_t *value, char *ret, size_t size)
{
    const char *text = json_string_value(value);
    char why[64];

    if (text == NULL)
        return bad(r, map, name,
                   json_is_number(value) ? "text is wanted here: put it in quotes"
                                         : "text is wanted here");
    if (strlen(text) >= size) {
        snprintf(why, sizeof why, "longer than %zu characters", size - 1);
        return bad(r, map, name, why);
    }
    for (const char *p = text; *p != '\0'; p++)
        if (*p < ' ' || *p > '~')
            return bad(r, map, name, "only printable ASCII is taken");
    snprintf(ret, size, "%s", text);
    return HP_OK;
}

static hp_code word_of(reader *r, const json_t *map, const key *k, const json_t *value,
                       char *ret)
{
    const char *text = json_string_value(value), *at = k->words;
    char why[120];

    while (text != NULL && *at != '\0') {
        size_t len = strcspn(at, "|");
        if (strlen(text) == len && strncmp(text, at, len) == 0) {
            snprintf(ret, k->size, "%s", text);
            return HP_OK;
        }
        at += len + (at[len] == '|');
    }
    snprintf(why, sizeof why, "must be one of %s", k->words);
    return bad(r, map, k->name, why);
}

static hp_code path_of(reader *r, const json_t *map, const key *k, const json_t *value,
                       char *ret)
{
    char text[HP_PATH_MAX];
    hp_code code = text_of(r, map, k->name, value, text, sizeof text);

    if (code != HP_OK)
        return code;
    if (text[0] == '\0' || text[0] == '/')
        return hp_path_fmt(ret, r->err, "%s", text);
    return hp_path_fmt(ret, r->err, "%s/%s", r->folder, text);
}

static bool bytes_of(const json_t *value, double *ret)
{
    static const struct {
        const char *unit;
        double factor;
    } UNITS[] = {{"KiB", 1024.0},
                 {"MiB", 1048576.0},
                 {"GiB", 1073741824.0},
                 {"TiB", 1099511627776.0},
                 {"B", 1.0}};
    const char *text = json_string_value(value);
    char number[32];
    size_t len;

    if (json_is_integer(value)) {
        *ret = (double)json_integer_value(value);
        return true;
    }
    if (text == NULL)
        return false;
    len = strspn(text, "0123456789.");
    if (len == 0 || len >= sizeof number)
        return false;
    snprintf(number, sizeof number, "%.*s", (int)len, text);
    text += len + strspn(text + len, " ");
    for (size_t i = 0; i < sizeof UNITS / sizeof *UNITS; i++)
        if (strcmp(text, UNITS[i].unit) == 0 && hp_parse_double(number, ret)) {
            *ret *= UNITS[i].factor;
            return true;
        }
    return false;
}

static hp_code number_of(reader *r, const json_t *map, const key *k, const json_t *value,
                         double *ret)
{
    char why[96];
    bool fits = k->kind == INT    ? json_is_integer(value)
                : k->kind == REAL ? json_is_number(value)
                                  : bytes_of(value, ret);

    if (!fits)
        return bad(r, map, k->name,
                   k->kind == INT     ? "a whole number is wanted here"
                   : k->kind == BYTES ? "a size such as 512 MiB is wanted here"
                                      : "a number is wanted here");
    if (k->kind != BYTES)
        *ret = json_number_value(value);
    if (*ret < k->min || *ret > k->max) {
        snprintf(why, sizeof why, "must be from %.0f to %.0f", k->min, k->max);
        return bad(r, map, k->name, why);
    }
    return HP_OK;
}

static hp_code read_value(reader *r, const json_t *map, const key *k, const json_t *value,
                          void *base)
{
    char *slot = (char *)base + k->offset;
    double number = 0;
    hp_code code;

    switch (k->kind) {
    case TEXT:
        return text_of(r, map, k->name, value, slot, k->size);
    case WORD:
        return word_of(r, map, k, value, slot);
    case PATH:
        return path_of(r, map, k, value, slot);
    case BOOL:
        if (!json_is_boolean(value))
            return bad(r, map, k->name, "true or false is wanted here");
        *(bool *)slot = json_is_true(value);
        return HP_OK;
    case OTHER:
        return k->read(r, map, k->name, value, slot);
    default:
        break;
    }
    code = number_of(r, map, k, value, &number);
    if (code != HP_OK)
        return code;
    if (k->kind == INT)
        *(int *)slot = (int)number;
    else if (k->kind == BYTES)
        *(int64_t *)slot = (int64_t)number;
    else
        *(double *)slot = number;
    return HP_OK;
}

/* Every member of `map` by its table; the table ends with a NULL name. */
static hp_code read_map(reader *r, const json_t *map, const key *table, void *base)
{
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)map, name, value)
    {
        const key *k = table;
        hp_code code;

        while (k->name != NULL && strcmp(k->name, name) != 0)
            k++;
        if (k->name == NULL)
            return bad(r, map, name, "unknown key");
        code = read_value(r, map, k, value, base);
        if (code != HP_OK)
            return code;
    }
    return HP_OK;
}

static hp_code read_section(reader *r, const json_t *map, const char *name,
                            const json_t *value, const key *table, void *base)
{
    if (json_is_null(value)) /* "intake:" and nothing below */
        return HP_OK;
    if (!json_is_object(value))
        return bad(r, map, name, "a section of keys is wanted here");
    return read_map(r, value, table, base);
}

/* A list of maps, each by the table into base + i * size; `fresh` fills in the
 * defaults of one. */
static hp_code read_list(reader *r, const json_t *map, const char *name,
                         const json_t *value, const key *table, void *base, size_t size,
                         void (*fresh)(void *item), int *ret_count)
{
    size_t n = json_array_size(value);

    if (!json_is_array(value) && !json_is_null(value))
        return bad(r, map, name, "a list is wanted here");
    if (n > HP_CONFIG_MAX_LIST)
        return bad(r, map, name, "too many entries");
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(value, i);
        hp_code code;

        if (!json_is_object(item))
            return bad(r, map, name, "each entry must be a set of keys");
        fresh((char *)base + i * size);
        code = read_map(r, item, table, (char *)base + i * size);
        if (code != HP_OK)
            return code;
    }
    *ret_count = (int)n;
    return HP_OK;
}

#define AT(type, field) offsetof(type, field), sizeof(((type *)0)->field)
#define END                                                                              \
    {                                                                                    \
        NULL, OTHER, 0, 0, 0, 0, NULL, NULL                                              \
    }

/* ---- lists ---- */

static void fresh_allow(void *item)
{
    *(hp_config_allow *)item = (hp_config_allow){"*", "*"};
}

static const key ALLOW[] = {
    {"ae_title", TEXT, AT(hp_config_allow, ae_title), 0, 0, NULL, NULL},
    {"address", TEXT, AT(hp_config_allow, address), 0, 0, NULL, NULL},
    END};

static bool prefix_of(const char *text, int *ret_family, uint8_t ret_bytes[16],
                      int *ret_bits);

static hp_code read_allow(reader *r, const json_t *map, const char *name,
                          const json_t *value, void *slot)
{
    hp_config *c = (hp_config *)((char *)slot - offsetof(hp_config, intake.allow));
    hp_code code =
        read_list(r, map, name, value, ALLOW, c->intake.allow, sizeof *c->intake.allow,
                  fresh_allow, &c->intake.allow_count);

    for (int i = 0; code == HP_OK && i < c->intake.allow_count; i++) {
        const json_t *item = json_array_get(value, (size_t)i);
        uint8_t bytes[16];
        int family, bits;

        /* Both halves must be said: "*" is a decision, not a default. */
        if (json_object_get(item, "ae_title") == NULL ||
            json_object_get(item, "address") == NULL)
            code =
                bad(r, map, name, "each entry needs ae_title and address (\"*\": any)");
        else if (strcmp(c->intake.allow[i].address, "*") != 0 &&
                 !prefix_of(c->intake.allow[i].address, &family, bytes, &bits))
            code = bad(r, item, "address",
                       "must be a numeric address, a prefix "
                       "such as 10.1.0.0/16, or \"*\"");
    }
    return code;
}

static hp_code read_sop_classes(reader *r, const json_t *map, const char *name,
                                const json_t *value, void *slot)
{
    hp_config *c = (hp_config *)((char *)slot - offsetof(hp_config, intake.sop_classes));
    size_t n = json_array_size(value);

    if ((!json_is_array(value) && !json_is_null(value)) || n > HP_CONFIG_MAX_LIST)
        return bad(r, map, name, "a list of SOP Class UIDs is wanted here");
    for (size_t i = 0; i < n; i++) {
        const char *uid = json_string_value(json_array_get(value, i));

        if (uid == NULL || !hp_uid_valid(uid))
            return bad(r, map, name, "not a UID");
        snprintf(c->intake.sop_classes[i].text, HP_UID_SIZE, "%s", uid);
    }
    c->intake.sop_class_count = (int)n;
    return HP_OK;
}

static hp_code read_phases(reader *r, const json_t *map, const char *name,
                           const json_t *value, void *slot)
{
    unsigned *phases = slot;

    if (!json_is_array(value) && !json_is_null(value))
        return bad(r, map, name, "a list of phases such as [A, V] is wanted here");
    *phases = 0;
    for (size_t i = 0; i < json_array_size(value); i++) {
        const char *text = json_string_value(json_array_get(value, i));
        hp_phase phase = text != NULL ? hp_phase_parse(text) : HP_PHASE_NONE;

        if (phase == HP_PHASE_NONE)
            return bad(r, map, name, "phases are NC, A, V and D");
        *phases |= 1u << phase;
    }
    return HP_OK;
}

static hp_code read_phase(reader *r, const json_t *map, const char *name,
                          const json_t *value, void *slot)
{
    const char *text = json_string_value(value);
    hp_phase phase = text != NULL ? hp_phase_parse(text) : HP_PHASE_NONE;

    if (phase == HP_PHASE_NONE)
        return bad(r, map, name, "must be one of NC, A, V and D");
    *(hp_phase *)slot = phase;
    return HP_OK;
}

static void fresh_rule(void *item)
{
    *(hp_config_phase_rule *)item = (hp_config_phase_rule){HP_PHASE_NONE, "", -1};
}

static const key RULE[] = {
    {"phase", OTHER, AT(hp_config_phase_rule, phase), 0, 0, NULL, read_phase},
    {"description", TEXT, AT(hp_config_phase_rule, description), 0, 0, NULL, NULL},
    {"series_number", INT, AT(hp_config_phase_rule, series_number), 0, 2147483647, NULL,
     NULL},
    END};

static hp_code read_rules(reader *r, const json_t *map, const char *name,
                          const json_t *value, void *slot)
{
    hp_config *c = (hp_config *)((char *)slot - offsetof(hp_config, reading.phase_rules));
    hp_code code = read_list(r, map, name, value, RULE, c->reading.phase_rules,
                             sizeof *c->reading.phase_rules, fresh_rule,
                             &c->reading.phase_rule_count);

    for (int i = 0; code == HP_OK && i < c->reading.phase_rule_count; i++) {
        const hp_config_phase_rule *rule = &c->reading.phase_rules[i];

        if (rule->phase == HP_PHASE_NONE ||
            (rule->description[0] == '\0' && rule->series_number < 0))
            code = bad(r, map, name,
                       "each rule needs a phase, and a description or a series_number");
    }
    return code;
}

static void fresh_peer(void *item)
{
    *(hp_config_peer *)item = (hp_config_peer){
        .host = "127.0.0.1", .port = 104, .timeout_s = 30, .results = true};
}

static const key PEER[] = {
    {"name", TEXT, AT(hp_config_peer, name), 0, 0, NULL, NULL},
    {"ae_title", TEXT, AT(hp_config_peer, ae_title), 0, 0, NULL, NULL},
    {"host", TEXT, AT(hp_config_peer, host), 0, 0, NULL, NULL},
    {"port", INT, AT(hp_config_peer, port), 1, 65535, NULL, NULL},
    {"calling_ae_title", TEXT, AT(hp_config_peer, calling_ae), 0, 0, NULL, NULL},
    {"timeout_s", INT, AT(hp_config_peer, timeout_s), 1, 600, NULL, NULL},
    {"results", BOOL, AT(hp_config_peer, results), 0, 0, NULL, NULL},
    END};

static hp_code read_peers(reader *r, const json_t *map, const char *name,
                          const json_t *value, void *slot)
{
    hp_config *c = (hp_config *)((char *)slot - offsetof(hp_config, peers));
    hp_code code = read_list(r, map, name, value, PEER, c->peers, sizeof *c->peers,
                             fresh_peer, &c->peer_count);

    for (int i = 0; code == HP_OK && i < c->peer_count; i++) {
        const json_t *item = json_array_get(value, (size_t)i);

        if (c->peers[i].name[0] == '\0' || c->peers[i].ae_title[0] == '\0' ||
            json_object_get(item, "host") == NULL ||
            json_object_get(item, "port") == NULL)
            return bad(r, map, name, "each peer needs name, ae_title, host and port");
        for (int k = 0; k < i; k++)
            if (strcmp(c->peers[k].name, c->peers[i].name) == 0)
                return bad(r, item, "name", "two peers have this name");
    }
    return code;
}

/* ---- sections ---- */

static const key INTAKE[] = {
    {"allow", OTHER, AT(hp_config, intake.allow), 0, 0, NULL, read_allow},
    {"sop_classes", OTHER, AT(hp_config, intake.sop_classes), 0, 0, NULL,
     read_sop_classes},
    {"max_associations", INT, AT(hp_config, intake.max_associations), 1, 4096, NULL,
     NULL},
    {"max_associations_per_peer", INT, AT(hp_config, intake.max_associations_per_peer), 1,
     4096, NULL, NULL},
    {"max_object_bytes", BYTES, AT(hp_config, intake.max_object_bytes), 65536, 1e12, NULL,
     NULL},
    {"disk_reserve_bytes", BYTES, AT(hp_config, intake.disk_reserve_bytes), 0, 1e15, NULL,
     NULL},
    {"artim_s", INT, AT(hp_config, intake.artim_s), 1, 600, NULL, NULL},
    {"progress_s", INT, AT(hp_config, intake.progress_s), 1, 3600, NULL, NULL},
    {"idle_s", INT, AT(hp_config, intake.idle_s), 1, 86400, NULL, NULL},
    END};
static const key READINESS[] = {
    {"quiet_s", INT, AT(hp_config, readiness.quiet_s), 1, 86400, NULL, NULL},
    {"max_wait_s", INT, AT(hp_config, readiness.max_wait_s), 1, 604800, NULL, NULL},
    {"phases", OTHER, AT(hp_config, readiness.phases), 0, 0, NULL, read_phases},
    END};
static const key READING[] = {
    {"bundle", PATH, AT(hp_config, reading.bundle), 0, 0, NULL, NULL},
    {"device", WORD, AT(hp_config, reading.device), 0, 0, "auto|cpu|cuda", NULL},
    {"precision", WORD, AT(hp_config, reading.precision), 0, 0, "auto|fp32|fp16|bf16",
     NULL},
    {"plan_cache", PATH, AT(hp_config, reading.plan_cache), 0, 0, NULL, NULL},
    {"threads", INT, AT(hp_config, reading.threads), 0, 1024, NULL, NULL},
    {"missing_phase", WORD, AT(hp_config, reading.missing_phase), 0, 0,
     "detect-only|substitute|refuse", NULL},
    {"min_coverage_mm", REAL, AT(hp_config, reading.min_coverage_mm), 10, 1000, NULL,
     NULL},
    {"phase_rules", OTHER, AT(hp_config, reading.phase_rules), 0, 0, NULL, read_rules},
    {"workers", INT, AT(hp_config, reading.workers), 1, 16, NULL, NULL},
    {"job_timeout_s", INT, AT(hp_config, reading.job_timeout_s), 1, 86400, NULL, NULL},
    {"worker_program", PATH, AT(hp_config, reading.worker_program), 0, 0, NULL, NULL},
    END};
static const key REPORT[] = {
    {"unsuitable", BOOL, AT(hp_config, report.unsuitable), 0, 0, NULL, NULL},
    {"sc_modality", WORD, AT(hp_config, report.sc_modality), 0, 0, "OT|CT", NULL},
    {"tracking_prefix", TEXT, AT(hp_config, report.tracking_prefix), 0, 0, NULL, NULL},
    END};
static const key DELIVERY[] = {
    {"backoff_min_s", INT, AT(hp_config, delivery.backoff_min_s), 1, 3600, NULL, NULL},
    {"backoff_max_s", INT, AT(hp_config, delivery.backoff_max_s), 1, 3600, NULL, NULL},
    {"sender_program", PATH, AT(hp_config, delivery.sender_program), 0, 0, NULL, NULL},
    END};

/* The section tables hold offsets into hp_config itself. */
#define SECTION(fn, table)                                                               \
    static hp_code fn(reader *r, const json_t *map, const char *name,                    \
                      const json_t *value, void *base)                                   \
    {                                                                                    \
        return read_section(r, map, name, value, table, base);                           \
    }
SECTION(read_intake, INTAKE)
SECTION(read_readiness, READINESS)
SECTION(read_reading, READING)
SECTION(read_report, REPORT)
SECTION(read_delivery, DELIVERY)

static const key TOP[] = {
    {"state_dir", PATH, AT(hp_config, state_dir), 0, 0, NULL, NULL},
    {"node_name", TEXT, AT(hp_config, node_name), 0, 0, NULL, NULL},
    {"ae_title", TEXT, AT(hp_config, ae_title), 0, 0, NULL, NULL},
    {"listen", TEXT, AT(hp_config, listen), 0, 0, NULL, NULL},
    {"port", INT, AT(hp_config, port), 1, 65535, NULL, NULL},
    {"log_level", WORD, AT(hp_config, log_level), 0, 0, "error|warning|info|debug", NULL},
    {"peers", OTHER, AT(hp_config, peers), 0, 0, NULL, read_peers},
    {"intake", OTHER, 0, 0, 0, 0, NULL, read_intake},
    {"readiness", OTHER, 0, 0, 0, 0, NULL, read_readiness},
    {"reading", OTHER, 0, 0, 0, 0, NULL, read_reading},
    {"report", OTHER, 0, 0, 0, 0, NULL, read_report},
    {"delivery", OTHER, 0, 0, 0, 0, NULL, read_delivery},
    END};

/* ---- the whole ---- */

void hp_config_init(hp_config *c)
{
    *c = (hp_config){.state_dir = "/var/lib/hepar",
                     .node_name = "hepar",
                     .ae_title = "HEPAR",
                     .listen = "127.0.0.1",
                     .port = 11112,
                     .log_level = "info"};
    c->intake.max_associations = 64;
    c->intake.max_associations_per_peer = 16;
    c->intake.max_object_bytes = INT64_C(2) << 30;
    c->intake.disk_reserve_bytes = INT64_C(2) << 30;
    c->intake.artim_s = 10;
    c->intake.progress_s = 30;
    c->intake.idle_s = 600;
    c->readiness.quiet_s = 120;
    c->readiness.max_wait_s = 1800;
    c->readiness.phases = 1u << HP_PHASE_V; /* without it nothing is read */
    strcpy(c->reading.bundle, "/usr/share/hepar/models/small");
    strcpy(c->reading.device, "auto");
    strcpy(c->reading.precision, "auto");
    strcpy(c->reading.missing_phase, "detect-only");
    c->reading.min_coverage_mm = 120;
    c->reading.workers = 1;
    c->reading.job_timeout_s = 1800;
    strcpy(c->report.sc_modality, "OT");
    c->delivery.backoff_min_s = 30;
    c->delivery.backoff_max_s = 1800;
}

/* What no device of that name can do. Whether there is one, a worker will tell. */
static hp_code check_device(reader *r, hp_config *c)
{
    const json_t *map = json_object_get(hp_yaml_root(r->yaml), "reading");
    const char *device = c->reading.device, *precision = c->reading.precision;

    c->reading.device_line = hp_yaml_key_line(r->yaml, map, "device");
    c->reading.precision_line = hp_yaml_key_line(r->yaml, map, "precision");
    if (strcmp(device, "cpu") == 0 && strcmp(precision, "fp16") == 0)
        return bad(r, map, "precision", "device cpu has fp32 and bf16");
    if (strcmp(device, "cuda") == 0 && strcmp(precision, "fp32") == 0)
        return bad(r, map, "precision", "device cuda has fp16 and bf16");
    if (c->reading.plan_cache[0] == '\0')
        return hp_path_fmt(c->reading.plan_cache, r->err, "%s/plans/cuda", c->state_dir);
    return HP_OK;
}

static hp_code check_whole(reader *r, hp_config *c)
{
    const json_t *root = hp_yaml_root(r->yaml);
    uint8_t bytes[16];
    int family, bits;

    if (c->state_dir[0] == '\0')
        return bad(r, root, "state_dir", "must name a folder");
    if (c->ae_title[0] == '\0')
        return bad(r, root, "ae_title", "must not be empty");
    if (!prefix_of(c->listen, &family, bytes, &bits) || strchr(c->listen, '/') != NULL)
        return bad(r, root, "listen", "must be a numeric address");
    if (c->readiness.max_wait_s < c->readiness.quiet_s)
        return bad(r, json_object_get(root, "readiness"), "max_wait_s",
                   "must not be shorter than quiet_s");
    if (c->delivery.backoff_max_s < c->delivery.backoff_min_s)
        return bad(r, json_object_get(root, "delivery"), "backoff_max_s",
                   "must not be shorter than backoff_min_s");
    for (int i = 0; i < c->peer_count; i++)
        if (c->peers[i].calling_ae[0] == '\0')
            strcpy(c->peers[i].calling_ae, c->ae_title);
    return check_device(r, c);
}

static hp_code check_mode(const char *path, hp_error *reterr)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return hp_fail_errno(reterr, errno, "%s", path);
    if (st.st_mode & S_IWOTH)
        return hp_fail(reterr, HP_E_INVALID,
                       "%s: everybody may write it (mode %04o); chmod o-w first", path,
                       st.st_mode & 07777u);
    return HP_OK;
}

static hp_code folder_of(const char *path, char ret[HP_PATH_MAX], hp_error *reterr)
{
    char full[4096 + 1]; /* realpath's PATH_MAX */
    char *slash;

    if (realpath(path, full) == NULL)
        return hp_fail_errno(reterr, errno, "%s", path);
    slash = strrchr(full, '/');
    *slash = '\0';
    return hp_path_fmt(ret, reterr, "%s", full);
}

hp_code hp_config_load(const char *path, hp_config **ret, hp_error *reterr)
{
    hp_auto(hp_config) *c = malloc(sizeof *c);
    hp_auto(hp_yaml) *yaml = NULL;
    reader r = {.file = path, .err = reterr};
    hp_code code;

    if (c == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "no memory for the configuration");
    hp_config_init(c);
    code = check_mode(path, reterr);
    if (code == HP_OK)
        code = folder_of(path, r.folder, reterr);
    if (code == HP_OK)
        code = hp_path_fmt(c->path, reterr, "%s", path);
    if (code == HP_OK)
        code = hp_yaml_load(path, &yaml, reterr);
    if (code != HP_OK)
        return code;
    r.yaml = yaml;
    if (!json_is_object(hp_yaml_root(yaml)) && !json_is_null(hp_yaml_root(yaml)))
        return hp_fail(reterr, HP_E_INVALID, "%s: not a set of keys", path);
    code = read_map(&r, hp_yaml_root(yaml), TOP, c);
    if (code == HP_OK)
        code = check_whole(&r, c);
    if (code == HP_OK)
        *ret = hp_steal(&c);
    return code;
}

void hp_config_free(hp_config *c)
{
    free(c);
}

const hp_config_peer *hp_config_find_peer(const hp_config *c, const char *name)
{
    for (int i = 0; i < c->peer_count; i++)
        if (strcmp(c->peers[i].name, name) == 0)
            return &c->peers[i];
    return NULL;
}

/* "10.1.2.3", "fd00::/8": intake matches, here only typing errors are found. */
static bool prefix_of(const char *text, int *ret_family, uint8_t ret_bytes[16],
                      int *ret_bits)
{
    char address[64];
    const char *slash = strchr(text, '/');
    int64_t bits;

    snprintf(address, sizeof address, "%.*s",
             (int)(slash != NULL ? (size_t)(slash - text) : strlen(text)), text);
    *ret_family = strchr(address, ':') != NULL ? AF_INET6 : AF_INET;
    if (inet_pton(*ret_family, address, ret_bytes) != 1)
        return false;
    *ret_bits = *ret_family == AF_INET6 ? 128 : 32;
    if (slash == NULL)
        return true;
    if (!hp_parse_i64(slash + 1, &bits) || bits < 0 || bits > *ret_bits)
        return false;
    *ret_bits = (int)bits;
    return true;
}
