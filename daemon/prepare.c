/* hepar-prepare: every stage's tensors, as safetensors.
 *
 *   hepar-prepare --bundle DIR --in DICOM_DIR --out DIR
 *       a study through the pipeline; every stage's tensor in OUT.
 *   hepar-prepare --phantom A..B --what liver,detect,slices,seg --out DIR
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
    "usage: hepar-prepare --bundle DIR --in DICOM_DIR --out DIR\n"
    "       hepar-prepare --phantom A..B --what liver,detect,slices,seg --out DIR\n"
    "       options: --cohort train|test108|test400  --motion-mm X  --overlap X  --threads N\n";

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
                 {"seg", HP_WHAT_SEG}};
    char copy[64], *save = NULL;

    snprintf(copy, sizeof copy, "%s", text);
    for (char *w = strtok_r(copy, ",", &save); w != NULL; w = strtok_r(NULL, ",", &save)) {
        size_t i = 0;

        while (i < 4 && strcmp(NAMES[i].name, w) != 0)
            i++;
        if (i == 4)
            return false;
        o->what |= NAMES[i].bit;
    }
    return o->what != 0;
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

static bool parse_args(int argc, char **argv, hp_prepare *o, int *ret_threads)
{
    enum { BUNDLE = 1, IN, OUT, PHANTOM, WHAT, COHORT, MOTION, OVERLAP, THREADS };
    static const struct option LONG[] = {
        {"bundle", 1, NULL, BUNDLE},   {"in", 1, NULL, IN},
        {"out", 1, NULL, OUT},         {"phantom", 1, NULL, PHANTOM},
        {"what", 1, NULL, WHAT},       {"cohort", 1, NULL, COHORT},
        {"motion-mm", 1, NULL, MOTION}, {"overlap", 1, NULL, OVERLAP},
        {"threads", 1, NULL, THREADS}, {NULL, 0, NULL, 0},
    };
    int64_t n;
    bool ok = true;

    for (int c; ok && (c = getopt_long(argc, argv, "", LONG, NULL)) != -1;) {
        switch (c) {
        case BUNDLE: o->bundle = optarg; break;
        case IN: o->in = optarg; break;
        case OUT: o->out = optarg; break;
        case PHANTOM: ok = parse_range(optarg, o); break;
        case WHAT: ok = parse_what(optarg, o); break;
        case COHORT: ok = parse_cohort(optarg, o); break;
        case MOTION: ok = hp_parse_double(optarg, &o->motion_mm); break;
        case OVERLAP: ok = hp_parse_double(optarg, &o->overlap); break;
        case THREADS:
            ok = hp_parse_i64(optarg, &n) && n >= 1 && n <= 256;
            if (ok)
                *ret_threads = (int)n;
            break;
        default: ok = false;
        }
    }
    return ok && optind == argc && o->out != NULL && (o->what == 0 || o->to > o->from);
}

static int run_phantoms(const hp_prepare *o)
{
    int64_t start = hp_clock_mono_ms();
    uint64_t total = o->to - o->from;

    for (uint64_t seed = o->from; seed < o->to; seed++) {
        hp_error err = HP_ERROR_INIT;
        hp_code r = hp_prepare_tensors(o, seed, &err);
        uint64_t done = seed - o->from + 1;

        if (r != HP_OK) {
            fprintf(stderr, "\nhepar-prepare: %s\n", err.msg);
            return EXIT_FAILED;
        }
        fprintf(stderr, "\rprepared %llu/%llu  %.1f s each ", (unsigned long long)done,
                (unsigned long long)total,
                (double)(hp_clock_mono_ms() - start) / 1000 / (double)done);
    }
    fputc('\n', stderr);
    return EXIT_DONE;
}

int main(int argc, char **argv)
{
    hp_prepare o = {.motion_mm = 2, .overlap = 1};
    int threads = 1;

    if (!parse_args(argc, argv, &o, &threads)) {
        fputs(USAGE, stderr);
        return EXIT_USAGE;
    }
    omp_set_num_threads(threads);
    if (o.what != 0)
        return run_phantoms(&o);
    fputs(USAGE, stderr);
    return EXIT_USAGE;
}
