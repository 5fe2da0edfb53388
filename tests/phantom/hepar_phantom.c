/* hepar-phantom: a synthetic four-phase liver study from a seed. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "tests/phantom/study.h"

static const char help[] =
    "usage: hepar-phantom --seed N [options] --out DIR\n"
    "\n"
    "Writes a synthetic multi-phase liver CT: DIR/dicom/S*/IM*.dcm, DIR/truth.json,\n"
    "label masks and displacement fields as NIfTI. Same seed and options, same bytes.\n"
    "It proves machinery; it says nothing about patients.\n"
    "\n"
    "  --seed N            the patient (default 1)\n"
    "  --class NAME        hcc, icc, benign or metastasis (default: drawn, 60/8/16/24)\n"
    "  --vendor NAME       ge, siemens, philips or canon (default: drawn)\n"
    "  --motion-mm X       breathing between the phases (default 2)\n"
    "  --slices N          slices in each phase (default: drawn with their thickness)\n"
    "  --diameter-mm X     of the largest primary (default: drawn)\n"
    "  --overlap X         factor on the scatter of the classes (default 1)\n"
    "  --stress            large and exophytic primaries\n"
    "  --no-distractors    nothing focal but the primaries\n"
    "  --tidy              four series with plain descriptions and nothing else\n"
    "  --threads N         default: all cores; does not change the bytes\n"
    "  --no-truth          no masks and displacement\n"
    "\n"
    "Studies that must be refused:\n"
    "  --drop-phase P      NC, A, V or D is missing (may be repeated)\n"
    "  --drop-slice        one slice from the middle of each phase is missing\n"
    "  --tilt DEG          the gantry is tilted\n"
    "  --second-patient    every other slice has another PatientID\n";

enum {
    OPT_SEED = 256,
    OPT_CLASS,
    OPT_VENDOR,
    OPT_MOTION,
    OPT_SLICES,
    OPT_DIAMETER,
    OPT_OVERLAP,
    OPT_STRESS,
    OPT_PLAIN,
    OPT_TIDY,
    OPT_THREADS,
    OPT_NO_TRUTH,
    OPT_DROP_PHASE,
    OPT_DROP_SLICE,
    OPT_TILT,
    OPT_SECOND,
    OPT_OUT,
    OPT_HELP
};

static const struct option longs[] = {{"seed", 1, NULL, OPT_SEED},
                                      {"class", 1, NULL, OPT_CLASS},
                                      {"vendor", 1, NULL, OPT_VENDOR},
                                      {"motion-mm", 1, NULL, OPT_MOTION},
                                      {"slices", 1, NULL, OPT_SLICES},
                                      {"diameter-mm", 1, NULL, OPT_DIAMETER},
                                      {"overlap", 1, NULL, OPT_OVERLAP},
                                      {"stress", 0, NULL, OPT_STRESS},
                                      {"no-distractors", 0, NULL, OPT_PLAIN},
                                      {"tidy", 0, NULL, OPT_TIDY},
                                      {"threads", 1, NULL, OPT_THREADS},
                                      {"no-truth", 0, NULL, OPT_NO_TRUTH},
                                      {"drop-phase", 1, NULL, OPT_DROP_PHASE},
                                      {"drop-slice", 0, NULL, OPT_DROP_SLICE},
                                      {"tilt", 1, NULL, OPT_TILT},
                                      {"second-patient", 0, NULL, OPT_SECOND},
                                      {"out", 1, NULL, OPT_OUT},
                                      {"help", 0, NULL, OPT_HELP},
                                      {NULL, 0, NULL, 0}};

static int usage(const char *what, const char *value)
{
    fprintf(stderr, "hepar-phantom: %s%s%s (see --help)\n", what, value ? ": " : "",
            value ? value : "");
    return 2;
}

static int index_of(const char *name, const char *const *names, int n)
{
    for (int k = 0; k < n; k++)
        if (!strcmp(name, names[k]))
            return k;
    return -1;
}

int main(int argc, char **argv)
{
    static const char *const vendors[] = {"ge", "siemens", "philips", "canon"};
    static const char *const classes[] = {"hcc", "icc", "benign", "metastasis"};
    hp_phantom_options o = HP_PHANTOM_OPTIONS_INIT;
    hp_study_options s = HP_STUDY_OPTIONS_INIT;
    const char *out = NULL;
    int c, k;
    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        int64_t i = 0;
        double d = 0;
        if ((c == OPT_SEED || c == OPT_SLICES || c == OPT_THREADS) &&
            (!hp_parse_i64(optarg, &i) || i < 0 || (c != OPT_SEED && i > 2000)))
            return usage("not a usable number", optarg);
        if ((c == OPT_MOTION || c == OPT_DIAMETER || c == OPT_OVERLAP || c == OPT_TILT) &&
            !hp_parse_double(optarg, &d))
            return usage("not a number", optarg);
        switch (c) {
        case OPT_SEED:
            o.seed = (uint64_t)i;
            break;
        case OPT_CLASS:
            if ((o.cls = index_of(optarg, classes, 4)) < 0)
                return usage("no such class", optarg);
            break;
        case OPT_VENDOR:
            if ((o.vendor = index_of(optarg, vendors, 4)) < 0)
                return usage("no such vendor", optarg);
            break;
        case OPT_MOTION:
            o.motion_mm = d;
            break;
        case OPT_SLICES:
            o.slices = (int)i;
            break;
        case OPT_DIAMETER:
            o.diameter_mm = d;
            break;
        case OPT_OVERLAP:
            o.overlap = d;
            break;
        case OPT_STRESS:
            o.stress = true;
            break;
        case OPT_PLAIN:
            o.no_distractors = true;
            break;
        case OPT_TIDY:
            s.tidy = true;
            break;
        case OPT_THREADS:
            s.threads = (int)i;
            break;
        case OPT_NO_TRUTH:
            s.no_truth = true;
            break;
        case OPT_DROP_PHASE:
            if ((k = (int)hp_phase_parse(optarg)) < 0)
                return usage("no such phase", optarg);
            s.drop_phase[k] = true;
            break;
        case OPT_DROP_SLICE:
            s.drop_slice = true;
            break;
        case OPT_TILT:
            s.tilt_deg = d;
            break;
        case OPT_SECOND:
            s.second_patient = true;
            break;
        case OPT_OUT:
            out = optarg;
            break;
        case OPT_HELP:
            fputs(help, stdout);
            return 0;
        default:
            return usage("unknown option", NULL);
        }
    }
    if (!out || optind != argc)
        return usage("--out DIR is needed, and nothing besides options", NULL);
    hp_error e = HP_ERROR_INIT;
    hp_auto(hp_phantom) *p = NULL;
    if (hp_phantom_new(&o, &p, &e) != HP_OK || hp_study_write(p, &s, out, &e) != HP_OK) {
        fprintf(stderr, "hepar-phantom: %s\n", e.msg);
        return e.code == HP_E_INVALID ? 2 : 1;
    }
    return 0;
}
