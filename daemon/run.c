/* hepar-run: the pipeline without the network. A folder of DICOM files in,
 * result objects, pictures and result.json out, and a short summary for a person.
 *
 * Exit codes: 0 the study was read, or found unsuitable with a reason; 1 the run
 * failed; 2 usage; 3 the input or the bundle is not there.
 */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/number.h"
#include "config/config.h"
#include "daemon/job_run.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_NOT_FOUND = 3 };

static const char USAGE[] =
    "usage: hepar-run --bundle DIR --in DICOM_DIR --out DIR [--config FILE]\n"
    "                 [--device auto|cpu|cuda] [--precision auto|fp32|fp16|bf16]\n"
    "                 [--threads N] [--json] [--quiet]\n"
    "\n"
    "Reads one study from a folder and writes what hepar would send: a structured\n"
    "report and key images (DICOM and PNG), and result.json. Research use only.\n"
    "  --config FILE  phase rules, missing_phase, report options of a hepar.yaml\n"
    "  --json         print result.json instead of the summary\n"
    "  --quiet        no progress, no summary\n";

typedef struct arguments {
    const char *bundle, *in, *out, *config, *device, *precision;
    int threads; /* -1: not given */
    bool json, quiet;
} arguments;

/* Takes what changes a result from a node's configuration. */
static void take_config(const hp_config *c, hp_job_options *o)
{
    hp_error ignored = HP_ERROR_INIT; /* config has checked the word */

    snprintf(o->bundle, sizeof o->bundle, "%s", c->reading.bundle);
    snprintf(o->device, sizeof o->device, "%s", c->reading.device);
    snprintf(o->precision, sizeof o->precision, "%s", c->reading.precision);
    snprintf(o->plan_cache, sizeof o->plan_cache, "%s", c->reading.plan_cache);
    o->threads = c->reading.threads;
    hp_missing_phase_parse(c->reading.missing_phase, &o->missing_phase, &ignored);
    o->min_coverage_mm = c->reading.min_coverage_mm;
    o->report_unsuitable = c->report.unsuitable;
    snprintf(o->sc_modality, sizeof o->sc_modality, "%s", c->report.sc_modality);
    snprintf(o->tracking_prefix, sizeof o->tracking_prefix, "%s",
             c->report.tracking_prefix);
    snprintf(o->ae_title, sizeof o->ae_title, "%s", c->ae_title);
    snprintf(o->node_name, sizeof o->node_name, "%s", c->node_name);
    for (int i = 0; i < c->reading.phase_rule_count && i < HP_JOB_MAX_RULES; i++) {
        const hp_config_phase_rule *from = &c->reading.phase_rules[i];
        hp_phase_rule *to = &o->rule[o->rule_count++];

        to->phase = from->phase;
        to->series_number = from->series_number;
        memcpy(to->description, from->description, sizeof to->description);
    }
}

static void show_progress(const char *stage, double fraction, void *payload)
{
    (void)payload;
    fprintf(stderr, "\r%-12s %3.0f %%", stage, fraction * 100);
    fflush(stderr);
}

static void print_candidate(const hp_findings *f, int i)
{
    const hp_candidate *c = &f->candidates[i];

    printf("  %c %2d  score %.2f", i == f->primary ? '*' : ' ', c->rank, c->score);
    if (c->key_fallback)
        printf("  no outline     ");
    else
        printf("  %5.1f x %4.1f mm", c->long_axis_mm, c->short_axis_mm);
    if (c->key_number >= 0)
        printf("  image %d", c->key_number);
    if (c->p_primary >= 0)
        printf("  p(primary) %.2f", c->p_primary);
    printf("\n");
}

static void print_series(const hp_findings *f)
{
    printf("series\n");
    for (int i = 0; i < f->series_count; i++) {
        const hp_series_note *s = &f->series[i];
        char number[24] = "-";

        if (s->number >= 0)
            snprintf(number, sizeof number, "%d", s->number);
        printf("  %5s.%d  %-2s  %4d images  %s\n", number, s->acquisition + 1,
               hp_phase_name(s->phase), s->instances, s->why);
    }
}

static void print_summary(const hp_job_result *r, const char *out)
{
    const hp_findings *f = &r->findings;

    printf("AI result for research use only. Not for diagnosis.\n");
    print_series(f);
    printf("outcome  %s", hp_outcome_name(f->outcome));
    if (f->class_index >= 0)
        printf(": %s (%.0f %%)", f->classes[f->class_index].meaning,
               100 * f->probabilities[f->class_index]);
    printf("\n");
    if (f->reason[0] != 0)
        printf("reason   %s%s%s\n", f->reason_code, f->reason_code[0] ? ": " : "",
               f->reason);
    if (f->outcome != HP_OUTCOME_UNSUITABLE)
        printf("liver    %.0f ml%s%s\n", f->liver_ml, f->liver_note[0] ? ", " : "",
               f->liver_note);
    if (f->candidate_count > 0)
        printf("candidates\n");
    for (int i = 0; i < f->candidate_count; i++)
        print_candidate(f, i);
    for (int i = 0; i < r->object_count; i++)
        printf("%-10s %s/%s\n", r->object[i].kind, out, r->object[i].file);
    printf("result     %s/result.json\n", out);
}

static void print_json(const hp_job_result *r)
{
    hp_auto(json_t) *j = hp_job_result_to_json(r);

    if (j != NULL) {
        json_dumpf(j, stdout, JSON_INDENT(2) | JSON_SORT_KEYS);
        printf("\n");
    }
}

/* 0: go on; else the exit code + 1. */
static int parse(int argc, char **argv, arguments *a)
{
    static const struct option LONG[] = {{"bundle", required_argument, NULL, 'b'},
                                         {"in", required_argument, NULL, 'i'},
                                         {"out", required_argument, NULL, 'o'},
                                         {"config", required_argument, NULL, 'c'},
                                         {"device", required_argument, NULL, 'd'},
                                         {"precision", required_argument, NULL, 'p'},
                                         {"threads", required_argument, NULL, 't'},
                                         {"roi", required_argument, NULL, 'r'},
                                         {"json", no_argument, NULL, 'j'},
                                         {"quiet", no_argument, NULL, 'q'},
                                         {"help", no_argument, NULL, 'h'},
                                         {"version", no_argument, NULL, 'V'},
                                         {NULL, 0, NULL, 0}};
    int64_t n;
    int c;

    a->threads = -1;
    while ((c = getopt_long(argc, argv, "", LONG, NULL)) != -1) {
        switch (c) {
        case 'b':
            a->bundle = optarg;
            break;
        case 'i':
            a->in = optarg;
            break;
        case 'o':
            a->out = optarg;
            break;
        case 'c':
            a->config = optarg;
            break;
        case 'd':
            a->device = optarg;
            break;
        case 'p':
            a->precision = optarg;
            break;
        case 'j':
            a->json = true;
            break;
        case 'q':
            a->quiet = true;
            break;
        case 't':
            if (!hp_parse_i64(optarg, &n) || n < 0 || n > 1024) {
                fprintf(stderr, "hepar-run: --threads wants a number\n");
                return EXIT_USAGE + 1;
            }
            a->threads = (int)n;
            break;
        case 'r':
            fprintf(stderr,
                    "hepar-run: --roi is not there yet: a lesion drawn by hand cannot be "
                    "characterised by this version\n");
            return EXIT_USAGE + 1;
        case 'h':
            printf("%s", USAGE);
            return EXIT_DONE + 1;
        case 'V':
            printf("hepar-run %s\n", HP_VERSION);
            return EXIT_DONE + 1;
        default:
            fprintf(stderr, "%s", USAGE);
            return EXIT_USAGE + 1;
        }
    }
    if (a->in == NULL || a->out == NULL || (a->bundle == NULL && a->config == NULL) ||
        optind != argc) {
        fprintf(stderr, "%s", USAGE);
        return EXIT_USAGE + 1;
    }
    return 0;
}

static hp_code options_of(const arguments *a, hp_job_options *o, hp_error *reterr)
{
    hp_job_options_init(o);
    if (a->config != NULL) {
        hp_auto(hp_config) *config = NULL;
        hp_code r = hp_config_load(a->config, &config, reterr);

        if (r != HP_OK)
            return r;
        take_config(config, o);
    }
    if (a->bundle != NULL)
        snprintf(o->bundle, sizeof o->bundle, "%s", a->bundle);
    if (a->device != NULL)
        snprintf(o->device, sizeof o->device, "%s", a->device);
    if (a->precision != NULL)
        snprintf(o->precision, sizeof o->precision, "%s", a->precision);
    if (a->threads >= 0)
        o->threads = a->threads;
    return HP_OK;
}

/* Reproducible builds' habit: the moment can be given, so that a run repeated
 * writes the same bytes. */
static int64_t created_ms(void)
{
    const char *given = getenv("SOURCE_DATE_EPOCH");
    int64_t s;

    return given != NULL && hp_parse_i64(given, &s) ? s * 1000 : hp_clock_wall_ms();
}

static int say(const hp_error *e, hp_code r)
{
    fprintf(stderr, "hepar-run: %s\n", e->msg);
    return r == HP_E_NOT_FOUND || r == HP_E_EMPTY ? EXIT_NOT_FOUND : EXIT_FAILED;
}

static int run(const arguments *a, const hp_job_options *o, hp_job_result *result)
{
    hp_auto(hp_job_runner) *runner = NULL;
    hp_error e = HP_ERROR_INIT;
    hp_job_request req = {
        .folder = a->in,
        .out = a->out,
        .options = o,
        .revision = 1,
        .installation_id = "hepar-run",
        .created_ms = created_ms(),
        .on_progress = !a->quiet && isatty(STDERR_FILENO) ? show_progress : NULL,
    };
    hp_code r;

    if (!hp_path_exists(a->in)) {
        fprintf(stderr, "hepar-run: no such folder: %s\n", a->in);
        return EXIT_NOT_FOUND;
    }
    r = hp_path_mkdirs(a->out, 0750, &e);
    if (r == HP_OK)
        r = hp_job_runner_new(&runner, &e);
    if (r == HP_OK)
        r = hp_job_run(runner, &req, result, &e);
    if (req.on_progress != NULL)
        fprintf(stderr, "\r%20s\r", "");
    if (r != HP_OK && result->findings.series_count > 0 && !a->quiet && !a->json)
        print_series(&result->findings);
    if (r != HP_OK)
        return say(&e, r);
    if (a->json)
        print_json(result);
    else if (!a->quiet)
        print_summary(result, a->out);
    return EXIT_DONE;
}

int main(int argc, char **argv)
{
    arguments a = {0};
    hp_job_options *o = calloc(1, sizeof *o);
    hp_job_result *result = calloc(1, sizeof *result);
    hp_error e = HP_ERROR_INIT;
    int code = parse(argc, argv, &a);
    hp_code r;

    if (o == NULL || result == NULL) {
        fprintf(stderr, "hepar-run: out of memory\n");
        return EXIT_FAILED;
    }
    if (code == 0) {
        r = options_of(&a, o, &e);
        code = 1 + (r != HP_OK ? say(&e, r) : run(&a, o, result));
    }
    free(result);
    free(o);
    return code - 1;
}
