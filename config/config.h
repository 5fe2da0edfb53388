/* The rules of the house, read once at start. config/hepar.yaml is the
 * commented default; every key may be left out. A key that we do not know, a
 * value of the wrong type or out of range is refused with "FILE:LINE: KEY: why".
 *
 * A plain value: read-only after loading, so every thread may look at it.
 */
#ifndef HP_CONFIG_CONFIG_H
#define HP_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/error.h"
#include "base/path.h"
#include "base/study.h"
#include "base/uid.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { HP_CONFIG_MAX_LIST = 64 };

/* Who may open an association. Both must fit; "*" fits anything, a bare address
 * or a prefix such as 10.1.0.0/16. No entry: nobody. */
typedef struct hp_config_allow {
    char ae_title[17];
    char address[64];
} hp_config_allow;

/* Where results go. */
typedef struct hp_config_peer {
    char name[32];
    char ae_title[17], host[128];
    int port;
    char calling_ae[17]; /* default: our ae_title */
    int timeout_s;
    bool results; /* false: only for `heparctl echo` */
} hp_config_peer;

/* A site's own word on which series is which phase. */
typedef struct hp_config_phase_rule {
    hp_phase phase;
    char description[65]; /* case-folded substring; "" = any */
    int series_number;    /* -1 = any */
} hp_config_phase_rule;

typedef struct hp_config {
    char path[HP_PATH_MAX]; /* "" when no file was read */
    char state_dir[HP_PATH_MAX];
    char node_name[65];
    char ae_title[17];
    char listen[64]; /* address; 127.0.0.1 unless the file says otherwise */
    int port;
    char log_level[8]; /* "error" "warning" "info" "debug" */

    struct {
        hp_config_allow allow[HP_CONFIG_MAX_LIST];
        int allow_count;
        hp_uid sop_classes[HP_CONFIG_MAX_LIST]; /* besides those always taken */
        int sop_class_count;
        int max_associations, max_associations_per_peer;
        int64_t max_object_bytes, disk_reserve_bytes;
        int artim_s, progress_s, idle_s;
    } intake;

    struct {
        int quiet_s, max_wait_s;
        unsigned phases; /* bit i: hp_phase i is awaited (up to max_wait_s) */
    } readiness;

    struct {
        char bundle[HP_PATH_MAX];
        char device[8];    /* "auto" "cpu" "cuda" */
        char precision[8]; /* "auto" "fp32" "fp16" "bf16" */
        /* Their lines in the file, for what only a worker can refuse; 0: not there. */
        int device_line, precision_line;
        char plan_cache[HP_PATH_MAX]; /* after loading: never "" */
        int threads;                  /* 0: all cores */
        char missing_phase[16];       /* "detect-only" "substitute" "refuse" */
        double min_coverage_mm;
        hp_config_phase_rule phase_rules[HP_CONFIG_MAX_LIST];
        int phase_rule_count;
        int workers, job_timeout_s;
        char worker_program[HP_PATH_MAX]; /* "": hepar-worker beside hepard */
    } reading;

    struct {
        bool unsuitable; /* also send the text form when a study cannot be read */
        char sc_modality[17];
        char tracking_prefix[65];
    } report;

    struct {
        int backoff_min_s, backoff_max_s;
        char sender_program[HP_PATH_MAX]; /* "": hepar-sender beside hepard */
    } delivery;

    hp_config_peer peers[HP_CONFIG_MAX_LIST];
    int peer_count;
} hp_config;

/* Every default; never fails. */
void hp_config_init(hp_config *c);
/* Defaults, then the file. Refuses a file that others may write, and one with
 * secrets that others may read. *ret is yours (hp_config_free). Relative paths
 * in it (state_dir, bundle, programs) are taken from the file's own folder. */
hp_code hp_config_load(const char *path, hp_config **ret, hp_error *reterr);
void hp_config_free(hp_config *c);
HP_AUTO_DEFINE(hp_config, hp_config_free)

const hp_config_peer *hp_config_find_peer(const hp_config *c, const char *name);

#ifdef __cplusplus
}
#endif
#endif
