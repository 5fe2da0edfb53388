/* hepar-prepare: every stage's tensors, as safetensors.
 *
 *   hepar-prepare --bundle DIR --in DICOM_DIR --out DIR
 *       a study through the pipeline; every stage's tensor in OUT.
 *   hepar-prepare --phantom A..B --what liver,detect,slices,seg,primaries --out DIR
 *       training tensors of phantoms A <= seed < B, rendered in memory.
 *   hepar-prepare --phantom A..B --evaluate|--candidates --bundle DIR --out DIR
 *       phantoms through the pipeline: findings beside the truth.
 *
 * Training reads what this program wrote, so that training and serving share one
 * preprocessing. Files that are there already are kept; a run can be resumed.
 */
#include <getopt.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/number.h"
#include "base/path.h"
#include "daemon/prepare.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

static const char USAGE[] =
    "usage: hepar-prepare --bundle DIR --in DICOM_DIR --out DIR  [--series V=103,A=4]\n"
    "       hepar-prepare --phantom A..B --what liver,detect,slices,seg,primaries --out "
    "DIR\n"
    "       hepar-prepare --phantom A..B --evaluate|--candidates|--truth-boxes-only\n"
    "                     --bundle DIR --out DIR  [--sparse]\n"
    "       options: --cohort train|test108|test400  --motion-mm X  --overlap X\n"
    "                --threads N  --precision fp32|bf16\n";

static bool parse_range(const char *text, hp_prepare *o)
{
    char copy[64];
    char *dots;
    int64_t a, b;

    snprintf(copy, sizeof copy, "%s", text);
    dots = strstr(copy, "..");
    if (dots == NULL)
        return false;
    *dots = '\0';
    if (!hp_parse_i64(copy, &a) || !hp_parse_i64(dots + 2, &b) || a < 0 || b < a)
        return false;
    o->from = (uint64_t)a;
    o->to = (uint64_t)b;
    return true;
}

static bool parse_what(const char *text, hp_prepare *o)
{
    static const struct {
        const char *name;
        unsigned bit;
    } NAMES[] = {{"liver", HP_WHAT_LIVER},
                 {"detect", HP_WHAT_DETECT},
                 {"slices", HP_WHAT_SLICES},
                 {"seg", HP_WHAT_SEG},
                 {"primaries", HP_WHAT_PRIMARIES}};
    char copy[64], *save = NULL;

    snprintf(copy, sizeof copy, "%s", text);
    for (char *w = strtok_r(copy, ",", &save); w != NULL;
         w = strtok_r(NULL, ",", &save)) {
        size_t i = 0, n = sizeof NAMES / sizeof NAMES[0];

        while (i < n && strcmp(NAMES[i].name, w) != 0)
            i++;
        if (i == n)
            return false;
        o->what |= NAMES[i].bit;
    }
    return o->what != 0;
}

/* "V=103,A=4": which SeriesNumber is which phase, before the headers' evidence. */
static bool parse_series(const char *text, hp_prepare *o)
{
    char copy[128], *save = NULL;

    snprintf(copy, sizeof copy, "%s", text);
    for (char *w = strtok_r(copy, ",", &save); w != NULL;
         w = strtok_r(NULL, ",", &save)) {
        char *equals = strchr(w, '=');
        hp_phase phase;
        int64_t n;

        if (equals == NULL)
            return false;
        *equals = '\0';
        phase = hp_phase_parse(w);
        if (phase == HP_PHASE_NONE || !hp_parse_i64(equals + 1, &n) || n < 0 ||
            n > 1 << 30)
            return false;
        o->series[phase] = (int)n;
    }
    return true;
}

static bool parse_cohort(const char *text, hp_prepare *o)
{
    static const char *const NAMES[] = {"train", "test108", "test400"};

    for (int i = 0; i < 3; i++)
        if (strcmp(text, NAMES[i]) == 0) {
            o->cohort = (hp_cohort)i;
            return true;
        }
    return false;
}

static bool parse_args(int argc, char **argv, hp_prepare *o)
{
    enum {
        BUNDLE = 1,
        IN,
        OUT,
        PHANTOM,
        WHAT,
        COHORT,
        MOTION,
        OVERLAP,
        THREADS,
        PRECISION,
        EVALUATE,
        CANDIDATES,
        TRUTH_BOXES,
        SPARSE,
        SERIES
    };
    static const struct option LONG[] = {
        {"bundle", 1, NULL, BUNDLE},
        {"in", 1, NULL, IN},
        {"out", 1, NULL, OUT},
        {"phantom", 1, NULL, PHANTOM},
        {"what", 1, NULL, WHAT},
        {"cohort", 1, NULL, COHORT},
        {"motion-mm", 1, NULL, MOTION},
        {"overlap", 1, NULL, OVERLAP},
        {"threads", 1, NULL, THREADS},
        {"precision", 1, NULL, PRECISION},
        {"evaluate", 0, NULL, EVALUATE},
        {"candidates", 0, NULL, CANDIDATES},
        {"truth-boxes-only", 0, NULL, TRUTH_BOXES},
        {"sparse", 0, NULL, SPARSE},
        {"series", 1, NULL, SERIES},
        {NULL, 0, NULL, 0},
    };
    int64_t n;
    bool ok = true;

    for (int c; ok && (c = getopt_long(argc, argv, "", LONG, NULL)) != -1;) {
        switch (c) {
        case BUNDLE:
            o->bundle = optarg;
            break;
        case IN:
            o->in = optarg;
            break;
        case OUT:
            o->out = optarg;
            break;
        case PHANTOM:
            ok = parse_range(optarg, o);
            break;
        case WHAT:
            ok = parse_what(optarg, o);
            break;
        case COHORT:
            ok = parse_cohort(optarg, o);
            break;
        case MOTION:
            ok = hp_parse_double(optarg, &o->motion_mm);
            break;
        case OVERLAP:
            ok = hp_parse_double(optarg, &o->overlap);
            break;
        case THREADS:
            ok = hp_parse_i64(optarg, &n) && n >= 1 && n <= 256;
            if (ok)
                o->threads = (int)n;
            break;
        case PRECISION:
            o->precision = optarg;
            break;
        case SERIES:
            ok = parse_series(optarg, o);
            break;
        case SPARSE:
            o->sparse = true;
            break;
        case EVALUATE:
            o->evaluate = true;
            break;
        case CANDIDATES:
            o->candidates = true;
            break;
        case TRUTH_BOXES:
            o->truth_boxes_only = true;
            break;
        default:
            ok = false;
        }
    }
    return ok && optind == argc && o->out != NULL;
}

/* What is to be done for one seed. */
static hp_code run_seed(const hp_prepare *o, uint64_t seed, hp_error *err)
{
    hp_code r = HP_OK;

    if (o->what != 0)
        r = hp_prepare_tensors(o, seed, err);
    if (r == HP_OK && o->candidates)
        r = hp_prepare_candidates(o, seed, err);
    if (r == HP_OK && o->evaluate)
        r = hp_prepare_evaluate(o, seed, err);
    if (r == HP_OK && o->truth_boxes_only)
        r = hp_prepare_truth_box(o, seed, err);
    return r;
}

static int complain(const hp_error *err)
{
    fprintf(stderr, "hepar-prepare: %s\n", err->msg);
    return EXIT_FAILED;
}

static int run_phantoms(const hp_prepare *o)
{
    int64_t start = hp_clock_mono_ms();
    uint64_t total = o->to - o->from;

    for (uint64_t seed = o->from; seed < o->to; seed++) {
        hp_error err = HP_ERROR_INIT;
        hp_code r = run_seed(o, seed, &err);
        uint64_t done = seed - o->from + 1;

        if (r != HP_OK) {
            fputc('\n', stderr);
            return complain(&err);
        }
        fprintf(stderr, "\rprepared %llu/%llu  %.1f s each ", (unsigned long long)done,
                (unsigned long long)total,
                (double)(hp_clock_mono_ms() - start) / 1000 / (double)done);
    }
    fputc('\n', stderr);
    return EXIT_DONE;
}

static hp_code open_pipeline(hp_prepare *o, hp_error *err)
{
    hp_pipeline_options opt = HP_PIPELINE_OPTIONS_INIT;

    opt.device = "cpu";
    opt.threads = o->threads;
    opt.precision = o->precision;
    opt.evaluate = true;
    return hp_pipeline_open(o->bundle, &opt, &o->pipeline, err);
}

int main(int argc, char **argv)
{
    hp_prepare o = {.series = {-1, -1, -1, -1},
                    .motion_mm = 2,
                    .overlap = 1,
                    .threads = 1,
                    .precision = "auto"};
    hp_error err = HP_ERROR_INIT;
    bool runs, phantoms;
    int rc;

    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        fputs(USAGE, stdout);
        return EXIT_DONE;
    }
    if (!parse_args(argc, argv, &o)) {
        fputs(USAGE, stderr);
        return EXIT_USAGE;
    }
    runs = o.evaluate || o.candidates || o.truth_boxes_only;
    phantoms = o.to > o.from && (o.what != 0 || runs);
    omp_set_num_threads(o.threads);
    if ((runs && o.bundle == NULL) || (!phantoms && (o.in == NULL || o.bundle == NULL))) {
        fputs(USAGE, stderr);
        return EXIT_USAGE;
    }
    if (!phantoms)
        return hp_prepare_study(&o, &err) == HP_OK ? EXIT_DONE : complain(&err);
    if (runs && open_pipeline(&o, &err) != HP_OK)
        return complain(&err);
    rc = run_phantoms(&o);
    hp_pipeline_free(o.pipeline);
    return rc;
}
