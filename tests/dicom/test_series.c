/* dicom/series: which planes become which phase, and why the others do not. */
#include "tests/base/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dicom/series.h"
#include "dicom/series_words.h"
#include "tests/fixture/ct_world.h"

typedef struct world {
    hp_slice_list list;
    hp_phase_rule rule[8];
    hp_series_rules rules;
    hp_findings f;
    hp_assembly *a;
    hp_error e;
    hp_code r;
} world;

static int setup(void **state)
{
    world *w = calloc(1, sizeof *w);

    assert_non_null(w);
    w->rules = (hp_series_rules)HP_SERIES_RULES_INIT;
    w->rules.rule = w->rule;
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    world *w = *state;

    hp_assembly_free(w->a);
    hp_slice_list_done(&w->list);
    free(w);
    return 0;
}

static void assemble(world *w)
{
    hp_assembly_free(w->a);
    w->a = NULL;
    hp_findings_init(&w->f);
    w->r = hp_series_assemble(&w->list, &w->rules, &w->f, &w->a, &w->e);
}

/* The note of a series' acquisition. */
static const hp_series_note *note_of(const world *w, int series, int acquisition)
{
    for (int i = 0; i < w->f.series_count; i++)
        if (w->f.series[i].number == series && w->f.series[i].acquisition == acquisition)
            return &w->f.series[i];
    return NULL;
}

static hp_phase phase_of(const world *w, int series, int acquisition)
{
    const hp_series_note *n = note_of(w, series, acquisition);

    assert_non_null(n);
    return n->phase;
}

static void expect_why(const world *w, int series, const char *part)
{
    const hp_series_note *n = note_of(w, series, 0);

    assert_non_null(n);
    if (strstr(n->why, part) == NULL)
        print_error("note says: %s\n", n->why);
    assert_non_null(strstr(n->why, part));
}

static void expect_unsuitable(const world *w, const char *reason_code)
{
    assert_int_equal(w->r, HP_E_UNSUITABLE);
    assert_int_equal(w->f.outcome, HP_OUTCOME_UNSUITABLE);
    assert_string_equal(w->f.reason_code, reason_code);
    assert_true(strlen(w->f.reason) > 8);
    assert_null(w->a);
}

static void add_four(world *w)
{
    ct_world_add(&w->list, &(ct_stack){.series = 2, .description = "Abd native 5.0"});
    ct_world_add(&w->list, &(ct_stack){.series = 3, .description = "Liver ART"});
    ct_world_add(&w->list,
                 &(ct_stack){.series = 4, .description = "Liver PORTAL VENOUS"});
    ct_world_add(&w->list, &(ct_stack){.series = 5, .description = "Liver delayed"});
}

/* -- words -- */

static void test_words__name_phases(void **state)
{
    static const struct {
        const char *text, *phases;
    } CASE[] = {
        {"PRE LIVER", "NC"},
        {"LIVER 3 PHASE (C/A/P)", ""},
        {"Recon 2: LIVER 3 PHASE (C/A/P)", ""},
        {"Abdomen AP", ""},
        {"Non-Contrast", "NC"},
        {"ABD W/O", "NC"},
        {"W & W/O CONTRAST", ""},
        {"C- Liver", "NC"},
        {"Abd C+", ""},
        {"Late Arterial 2.0", "A"},
        {"LIVER ART/VEN", "AV"},
        {"Portalven\xC3\xB6s 5.0", "V"},
        {"portalven\xF6s 5.0", "V"},
        {"Sp\xC3\xA4tphase", "D"},
        {"temps art\xC3\xA9riel", "A"},
        {"sans injection", "NC"},
        {"tardif", "D"},
        {"FASE TARD\xC3\x8D"
         "A",
         "D"},
        {"Ven\xC3\xB6z faz", "V"},
        {"ge\xC3\xA7 faz", "D"},
        {"ge\xE7 faz", "D"},
        {"liver 35s", "A"},
        {"liver 70 sec", "V"},
        {"liver 180 s", "D"},
        {"liver 5 min", "D"},
        {"liver 5 mm", ""},
        {"delay 70 s", "V"},
        {"VENOUS 3 min", "V"},
        {"ventral hernia", ""},
        {"partial liver", ""},
        {"PVP", "V"},
        {"Abd nat. 5.0 Br36d", "NC"},
        {"Leber sp\xE4t 3.0 Br36d", "D"},
        {"LIVER PORTAL/LATE", "VD"},
        {"Liver C+ DP", "D"},
        {"Premonitoring", ""},
        {"pre/post", ""},
        {"", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof CASE / sizeof CASE[0]; i++) {
        unsigned hit = hp_phase_words(CASE[i].text, NULL), want = 0;
        const char *p = CASE[i].phases;

        want |= strstr(p, "NC") != NULL ? 1u << HP_PHASE_NC : 0;
        want |= strchr(p, 'A') != NULL ? 1u << HP_PHASE_A : 0;
        want |= strchr(p, 'V') != NULL ? 1u << HP_PHASE_V : 0;
        want |= strchr(p, 'D') != NULL ? 1u << HP_PHASE_D : 0;
        if (hit != want)
            print_error("'%s': %x, should be %x\n", CASE[i].text, hit, want);
        assert_int_equal(hit, want);
    }
}

static void test_words__survive_any_bytes(void **state)
{
    char text[70];
    unsigned seed = 1;

    (void)state;
    for (int round = 0; round < 20000; round++) {
        size_t n = (size_t)round % sizeof text;

        for (size_t i = 0; i < n; i++) {
            seed = seed * 1664525u + 1013904223u;
            text[i] = (char)((seed >> 24) | 1);
        }
        text[n < sizeof text ? n : sizeof text - 1] = 0;
        hp_phase_words(text, NULL);
    }
}

/* -- phases -- */

static void test_series__four_named_series_are_four_phases(void **state)
{
    world *w = *state;

    add_four(w);
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    for (int p = 0; p < HP_PHASES; p++) {
        assert_true(hp_assembly_has(w->a, (hp_phase)p));
        assert_int_equal(phase_of(w, 2 + p, 0), p);
        assert_int_equal(w->f.series[w->f.phase_series[p]].number, 2 + p);
    }
    assert_string_equal(w->f.study_uid.text, w->list.item[0].study.text);
}

static void test_series__order_of_the_list_does_not_matter(void **state)
{
    world *w = *state;
    hp_slice first, second;
    unsigned seed = 7;

    add_four(w);
    assemble(w);
    first = *hp_assembly_slice(w->a, HP_PHASE_V, 3);
    for (size_t i = w->list.count - 1; i > 0; i--) {
        size_t k;
        hp_slice t = w->list.item[i];

        seed = seed * 1664525u + 1013904223u;
        k = seed % (i + 1);
        w->list.item[i] = w->list.item[k];
        w->list.item[k] = t;
    }
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    second = *hp_assembly_slice(w->a, HP_PHASE_V, 3);
    assert_string_equal(first.sop_instance.text, second.sop_instance.text);
}

static void test_series__unnamed_phases_without_times_are_ambiguous(void **state)
{
    world *w = *state;

    ct_world_add(
        &w->list,
        &(ct_stack){.series = 2, .description = "PRE LIVER", .step_mm = 10, .count = 20});
    ct_world_add(&w->list,
                 &(ct_stack){.series = 4, .description = "LIVER 3 PHASE (C/A/P)"});
    ct_world_add(&w->list,
                 &(ct_stack){.series = 103, .description = "LIVER 3 PHASE (C/A/P)"});
    assemble(w);
    expect_unsuitable(w, HP_WHY_AMBIGUOUS);
    assert_non_null(strstr(w->f.reason, "phase_rules"));
    assert_non_null(strstr(w->f.reason, "series 4"));
    assert_int_equal(phase_of(w, 2, 0), HP_PHASE_NC);
}

static void test_series__a_site_rule_decides(void **state)
{
    world *w = *state;

    ct_world_add(&w->list,
                 &(ct_stack){.series = 4, .description = "Recon 2: LIVER 3 PHASE"});
    ct_world_add(&w->list, &(ct_stack){.series = 103, .description = "LIVER 3 PHASE"});
    w->rule[0] = (hp_phase_rule){HP_PHASE_A, "recon 2", -1};
    w->rule[1] = (hp_phase_rule){HP_PHASE_V, "", 103};
    w->rules.rule_count = 2;
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(phase_of(w, 4, 0), HP_PHASE_A);
    assert_int_equal(phase_of(w, 103, 0), HP_PHASE_V);
    expect_why(w, 103, "rule 2");
}

static void test_series__a_site_rule_beats_words_and_times(void **state)
{
    world *w = *state;

    ct_world_add(&w->list,
                 &(ct_stack){.series = 2, .description = "venous", .time_s = 36000});
    ct_world_add(&w->list,
                 &(ct_stack){.series = 3, .description = "arterial", .time_s = 36040});
    w->rule[0] = (hp_phase_rule){HP_PHASE_V, "arterial", -1};
    w->rule[1] = (hp_phase_rule){HP_PHASE_A, "venous", -1};
    w->rules.rule_count = 2;
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(phase_of(w, 3, 0), HP_PHASE_V);
    assert_int_equal(phase_of(w, 2, 0), HP_PHASE_A);
}

static void test_series__a_site_rule_can_leave_a_series_out(void **state)
{
    world *w = *state;

    add_four(w);
    w->rule[0] = (hp_phase_rule){HP_PHASE_NONE, "delayed", -1};
    w->rules.rule_count = 1;
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_false(hp_assembly_has(w->a, HP_PHASE_D));
    expect_why(w, 5, "site phase rule 1");
}

static void test_series__no_venous_phase(void **state)
{
    world *w = *state;

    ct_world_add(&w->list, &(ct_stack){.series = 2, .description = "native"});
    ct_world_add(&w->list, &(ct_stack){.series = 3, .description = "arterial"});
    assemble(w);
    expect_unsuitable(w, HP_WHY_NO_VENOUS);
}

static void test_series__one_unnamed_acquisition_is_no_venous_phase(void **state)
{
    world *w = *state;

    ct_world_add(&w->list, &(ct_stack){.series = 2, .description = "Thorax 5.0"});
    assemble(w);
    expect_unsuitable(w, HP_WHY_NO_VENOUS);
}

static void test_series__venous_alone_is_enough(void **state)
{
    world *w = *state;

    ct_world_add(&w->list, &(ct_stack){.series = 2, .description = "portal"});
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_true(hp_assembly_has(w->a, HP_PHASE_V));
    assert_false(hp_assembly_has(w->a, HP_PHASE_A));
    assert_null(hp_assembly_geom(w->a, HP_PHASE_A));
}

static void test_series__times_order_four_unnamed_acquisitions(void **state)
{
    world *w = *state;
    /* number order is not time order */
    ct_world_add(&w->list, &(ct_stack){.series = 9, .time_s = 36000});
    ct_world_add(&w->list, &(ct_stack){.series = 3, .time_s = 36180});
    ct_world_add(&w->list, &(ct_stack){.series = 2, .time_s = 36215});
    ct_world_add(&w->list, &(ct_stack){.series = 5, .time_s = 36400});
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(phase_of(w, 9, 0), HP_PHASE_NC);
    assert_int_equal(phase_of(w, 3, 0), HP_PHASE_A);
    assert_int_equal(phase_of(w, 2, 0), HP_PHASE_V);
    assert_int_equal(phase_of(w, 5, 0), HP_PHASE_D);
    expect_why(w, 2, "times");
}

static void test_series__gaps_tell_three_acquisitions_apart(void **state)
{
    world *w = *state;

    ct_world_add(&w->list, &(ct_stack){.series = 2, .time_s = 36000, .agent = "X"});
    ct_world_add(&w->list, &(ct_stack){.series = 3, .time_s = 36035, .agent = "X"});
    ct_world_add(&w->list, &(ct_stack){.series = 4, .time_s = 36240, .agent = "X"});
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(phase_of(w, 2, 0), HP_PHASE_A);
    assert_int_equal(phase_of(w, 3, 0), HP_PHASE_V);
    assert_int_equal(phase_of(w, 4, 0), HP_PHASE_D);
}

static void test_series__three_unnamed_times_without_a_native_scan(void **state)
{
    world *w = *state;

    ct_world_add(&w->list,
                 &(ct_stack){.series = 2, .time_s = 36035, .agent_tag_empty = true});
    ct_world_add(&w->list,
                 &(ct_stack){.series = 3, .time_s = 36070, .agent_tag_empty = true});
    ct_world_add(&w->list,
                 &(ct_stack){.series = 4, .time_s = 36180, .agent_tag_empty = true});
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(phase_of(w, 2, 0), HP_PHASE_A);
    assert_int_equal(phase_of(w, 3, 0), HP_PHASE_V);
    assert_int_equal(phase_of(w, 4, 0), HP_PHASE_D);
}

static void test_series__two_times_without_contrast_are_not_guessed(void **state)
{
    world *w = *state;

    ct_world_add(&w->list, &(ct_stack){.series = 2, .time_s = 36000});
    ct_world_add(&w->list, &(ct_stack){.series = 3, .time_s = 36035});
    assemble(w);
    assert_int_equal(w->r, HP_E_UNSUITABLE);
}

static void test_series__delay_after_the_bolus(void **state)
{
    world *w = *state;

    ct_world_add(&w->list, &(ct_stack){.series = 2, .time_s = 36000});
    ct_world_add(&w->list,
                 &(ct_stack){.series = 3, .time_s = 36230, .contrast_start_s = 36200});
    ct_world_add(&w->list,
                 &(ct_stack){.series = 4, .time_s = 36270, .contrast_start_s = 36200});
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(phase_of(w, 3, 0), HP_PHASE_A);
    assert_int_equal(phase_of(w, 4, 0), HP_PHASE_V);
    expect_why(w, 4, "70 s");
}

static void test_series__a_constant_bolus_delay_is_not_believed(void **state)
{
    world *w = *state;
    /* the protocol's constant, copied onto each series: always 25 s ago */
    ct_world_add(&w->list, &(ct_stack){.series = 3,
                                       .description = "venous",
                                       .time_s = 36230,
                                       .contrast_start_s = 36205});
    ct_world_add(&w->list, &(ct_stack){.series = 4,
                                       .description = "delayed",
                                       .time_s = 36400,
                                       .contrast_start_s = 36375});
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(phase_of(w, 3, 0), HP_PHASE_V);
    assert_int_equal(phase_of(w, 4, 0), HP_PHASE_D);
}

static void test_series__the_agent_phase_of_enhanced_ct(void **state)
{
    world *w = *state;

    ct_world_add(&w->list, &(ct_stack){.series = 3, .contrast_phase = "ARTERIAL"});
    ct_world_add(&w->list, &(ct_stack){.series = 4, .contrast_phase = "PORTAL_VENOUS"});
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(phase_of(w, 4, 0), HP_PHASE_V);
}

static void test_series__an_unclear_extra_is_left_out_not_fatal(void **state)
{
    world *w = *state;

    ct_world_add(&w->list, &(ct_stack){.series = 3, .description = "portal venous"});
    ct_world_add(&w->list, &(ct_stack){.series = 4, .description = "Abdomen"});
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(phase_of(w, 4, 0), HP_PHASE_NONE);
    expect_why(w, 4, "not clear");
}

static hp_code says_venous(const hp_slice *const *plane, int planes,
                           double ret_p[HP_PHASES + 1], void *payload, hp_error *reterr)
{
    bool venous = plane[0]->series_number == *(int *)payload;

    (void)planes;
    (void)reterr;
    for (int i = 0; i <= HP_PHASES; i++)
        ret_p[i] = 0.02;
    ret_p[venous ? HP_PHASE_V : HP_PHASE_A] = 0.92;
    return HP_OK;
}

static void test_series__image_evidence_enters_the_choice(void **state)
{
    world *w = *state;
    int venous = 103;

    ct_world_add(&w->list, &(ct_stack){.series = 4});
    ct_world_add(&w->list, &(ct_stack){.series = 103});
    w->rules.image = says_venous;
    w->rules.payload = &venous;
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(phase_of(w, 103, 0), HP_PHASE_V);
    assert_int_equal(phase_of(w, 4, 0), HP_PHASE_A);
}

/* -- several phases in one series -- */

static void test_series__acquisition_numbers_split_a_series(void **state)
{
    world *w = *state;

    ct_world_add(&w->list,
                 &(ct_stack){.series = 3, .description = "art/ven", .acquisition = 2});
    ct_world_add(&w->list, &(ct_stack){.series = 3,
                                       .description = "art/ven",
                                       .acquisition = 5,
                                       .first_instance = 41});
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(phase_of(w, 3, 0), HP_PHASE_A);
    assert_int_equal(phase_of(w, 3, 1), HP_PHASE_V);
    assert_int_equal(note_of(w, 3, 1)->instances, 40);
}

static void test_series__times_split_a_series(void **state)
{
    world *w = *state;

    ct_world_add(&w->list, &(ct_stack){.series = 3,
                                       .description = "art/ven",
                                       .time_s = 36000,
                                       .time_step_s = 0.1,
                                       .first_instance = 41});
    ct_world_add(&w->list, &(ct_stack){.series = 3,
                                       .description = "art/ven",
                                       .time_s = 36040,
                                       .time_step_s = 0.1,
                                       .first_mm = 2});
    for (int i = 40; i < 80; i++) /* the second one lies a little higher */
        w->list.item[i].position_mm[2] -= 2;
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(phase_of(w, 3, 0), HP_PHASE_A);
    assert_int_equal(hp_assembly_slice(w->a, HP_PHASE_A, 0)->instance_number, 41);
    assert_int_equal(phase_of(w, 3, 1), HP_PHASE_V);
}

static void test_series__instance_runs_split_a_series(void **state)
{
    world *w = *state;

    ct_world_add(&w->list, &(ct_stack){.series = 3, .description = "art/ven"});
    ct_world_add(
        &w->list,
        &(ct_stack){.series = 3, .description = "art/ven", .first_instance = 41});
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(phase_of(w, 3, 0), HP_PHASE_A);
    assert_int_equal(hp_assembly_slice(w->a, HP_PHASE_V, 0)->instance_number, 41);
}

static void test_series__interleaved_instances_split_a_series(void **state)
{
    world *w = *state;

    ct_world_add(&w->list, &(ct_stack){.series = 3, .description = "art/ven"});
    ct_world_add(
        &w->list,
        &(ct_stack){.series = 3, .description = "art/ven", .first_instance = 41});
    for (int i = 0; i < 40; i++) {
        w->list.item[i].instance_number = 1 + 2 * i;
        w->list.item[40 + i].instance_number = 2 + 2 * i;
    }
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(hp_assembly_geom(w->a, HP_PHASE_A)->n[HP_Z], 40);
    assert_int_equal(hp_assembly_slice(w->a, HP_PHASE_V, 3)->instance_number % 2, 0);
}

static void test_series__four_unnamed_phases_in_one_series(void **state)
{
    world *w = *state;

    for (int a = 0; a < 4; a++)
        ct_world_add(
            &w->list,
            &(ct_stack){.series = 3, .acquisition = 1 + a, .first_instance = 1 + 40 * a});
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    for (int p = 0; p < HP_PHASES; p++)
        assert_int_equal(phase_of(w, 3, p), p);
}

static void test_series__positions_nothing_tells_apart(void **state)
{
    world *w = *state;

    ct_world_add(&w->list, &(ct_stack){.series = 3});
    ct_world_add(
        &w->list,
        &(ct_stack){.series = 3, .first_mm = 20, .count = 40, .first_instance = 41});
    for (size_t i = 0; i < w->list.count; i++)
        w->list.item[i].instance_number = -1;
    /* parts of different extent, no numbers, no times */
    assemble(w);
    assert_int_equal(w->r, HP_E_UNSUITABLE);
}

static void test_series__a_dynamic_run_is_not_read(void **state)
{
    world *w = *state;

    for (int a = 0; a < 20; a++)
        ct_world_add(
            &w->list,
            &(ct_stack){.series = 3, .first_instance = 1 + 40 * a, .time_s = 36000 + a});
    assemble(w);
    expect_unsuitable(w, HP_WHY_NO_SERIES);
    expect_why(w, 3, "dynamic");
}

static void test_series__phases_in_one_enhanced_object(void **state)
{
    world *w = *state;
    int frame = 0;

    for (int a = 0; a < 2; a++)
        ct_world_add(&w->list,
                     &(ct_stack){.series = 3,
                                 .acquisition = 1 + a,
                                 .sop_class = HP_SOP_CT_ENHANCED,
                                 .contrast_phase = a ? "PORTAL_VENOUS" : "ARTERIAL"});
    for (size_t i = 0; i < w->list.count; i++) {
        hp_slice *s = &w->list.item[i];

        memcpy(&s->sop_instance, &w->list.item[0].sop_instance, sizeof s->sop_instance);
        s->instance_number = 1;
        s->frame = frame++;
        s->frames = 80;
    }
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(hp_assembly_slice(w->a, HP_PHASE_A, 5)->frame, 5);
    assert_int_equal(hp_assembly_slice(w->a, HP_PHASE_V, 5)->frame, 45);
}

/* -- filters -- */

static void expect_filtered(world *w, ct_stack odd, const char *why)
{
    w->list.count = 0;
    add_four(w);
    odd.series = 7;
    ct_world_add(&w->list, &odd);
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(phase_of(w, 7, 0), HP_PHASE_NONE);
    expect_why(w, 7, why);
}

static void test_series__what_is_not_read_says_why(void **state)
{
    world *w = *state;

    expect_filtered(w, (ct_stack){.image_type = "ORIGINAL\\PRIMARY\\LOCALIZER"},
                    "localizer");
    expect_filtered(w, (ct_stack){.image_type = "DERIVED\\SECONDARY\\AXIAL\\CT_SOM5 MPR"},
                    "MPR");
    expect_filtered(w, (ct_stack){.image_type = "DERIVED\\SECONDARY\\AXIAL\\MIP"}, "MIP");
    expect_filtered(w, (ct_stack){.image_type = "DERIVED\\SECONDARY\\OTHER"}, "derived");
    expect_filtered(w, (ct_stack){.image_type = "ORIGINAL\\SECONDARY\\SCREEN SAVE"},
                    "screen");
    expect_filtered(w, (ct_stack){.modality = "OT"}, "modality");
    expect_filtered(w, (ct_stack){.count = 3}, "too few");
    expect_filtered(w, (ct_stack){.count = 20, .step_mm = 3}, "covers");
    expect_filtered(w, (ct_stack){.step_mm = 12}, "thicker");
}

static void test_series__other_objects_are_noted(void **state)
{
    world *w = *state;
    hp_slice *s;

    add_four(w);
    ct_world_add(&w->list, &(ct_stack){.series = 999,
                                       .count = 1,
                                       .sop_class = "1.2.840.10008.5.1.4.1.1.88.67"});
    s = &w->list.item[w->list.count - 1];
    s->rows = s->columns = 0;
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    expect_why(w, 999, "dose report");
}

static void test_series__a_localizer_inside_a_series_is_dropped(void **state)
{
    world *w = *state;

    ct_world_add(&w->list, &(ct_stack){.series = 3, .description = "venous"});
    ct_world_add(&w->list, &(ct_stack){.series = 3,
                                       .description = "venous",
                                       .count = 1,
                                       .first_instance = 99,
                                       .size = 128});
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(hp_assembly_geom(w->a, HP_PHASE_V)->n[HP_Z], 40);
}

static void test_series__one_reconstruction_of_each_acquisition(void **state)
{
    world *w = *state;

    ct_world_add(&w->list, &(ct_stack){.series = 3,
                                       .description = "Liver",
                                       .time_s = 36000,
                                       .step_mm = 1,
                                       .count = 200,
                                       .agent = "X"});
    ct_world_add(
        &w->list,
        &(ct_stack){.series = 4, .description = "Liver", .time_s = 36000, .agent = "X"});
    ct_world_add(&w->list, &(ct_stack){.series = 5,
                                       .description = "Liver",
                                       .time_s = 36000,
                                       .kernel = "BONE",
                                       .agent = "X"});
    ct_world_add(
        &w->list,
        &(ct_stack){.series = 6, .description = "venous", .time_s = 36040, .agent = "X"});
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(phase_of(w, 4, 0), HP_PHASE_A);
    expect_why(w, 3, "another reconstruction of series 4");
    expect_why(w, 5, "sharp kernel");
}

static void test_series__made_up_times_are_not_believed(void **state)
{
    world *w = *state;
    /* midnight everywhere: not two reconstructions of one acquisition */
    ct_world_add(&w->list, &(ct_stack){.series = 3,
                                       .time_s = 86400,
                                       .step_mm = 10,
                                       .count = 20,
                                       .description = "nativ"});
    ct_world_add(&w->list,
                 &(ct_stack){.series = 4, .time_s = 86400, .description = "Leber"});
    ct_world_add(&w->list, &(ct_stack){.series = 5,
                                       .time_s = 86400,
                                       .step_mm = 2.5,
                                       .count = 80,
                                       .description = "venous"});
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(phase_of(w, 3, 0), HP_PHASE_NC);
    assert_int_equal(phase_of(w, 5, 0), HP_PHASE_V);
    expect_why(w, 4, "not clear");
}

static void test_series__two_series_of_one_name_keep_the_better(void **state)
{
    world *w = *state;

    ct_world_add(&w->list, &(ct_stack){.series = 3,
                                       .description = "portal venous 1.0",
                                       .step_mm = 1,
                                       .count = 200});
    ct_world_add(&w->list, &(ct_stack){.series = 4, .description = "portal venous 5.0"});
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(phase_of(w, 4, 0), HP_PHASE_V);
    expect_why(w, 3, "series 4");
}

static void test_series__a_phase_elsewhere_is_not_used(void **state)
{
    world *w = *state;

    ct_world_add(&w->list, &(ct_stack){.series = 3, .description = "venous"});
    ct_world_add(&w->list,
                 &(ct_stack){.series = 4, .description = "arterial", .first_mm = 180});
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_false(hp_assembly_has(w->a, HP_PHASE_A));
    expect_why(w, 4, "shows only");
}

/* -- geometry -- */

static void test_series__a_missing_slice_is_named(void **state)
{
    world *w = *state;

    ct_world_add(&w->list, &(ct_stack){.series = 3, .description = "venous"});
    ct_world_remove(&w->list, 12);
    assemble(w);
    expect_unsuitable(w, HP_WHY_GEOMETRY);
    assert_non_null(strstr(w->f.reason, "missing slice"));
    assert_non_null(strstr(w->f.reason, "10.0 mm"));
    assert_non_null(strstr(w->f.reason, "z = 55.0"));
}

static void test_series__a_missing_slice_in_another_phase_costs_that_phase(void **state)
{
    world *w = *state;

    add_four(w);
    ct_world_remove(&w->list, 50); /* arterial */
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_false(hp_assembly_has(w->a, HP_PHASE_A));
    expect_why(w, 3, "missing slice");
}

static void test_series__changing_spacing_is_refused(void **state)
{
    world *w = *state;

    ct_world_add(&w->list, &(ct_stack){.series = 3, .description = "venous"});
    for (int i = 20; i < 40; i++)
        w->list.item[i].position_mm[2] += 1.7 * (i - 19);
    assemble(w);
    expect_unsuitable(w, HP_WHY_GEOMETRY);
    assert_non_null(strstr(w->f.reason, "spacing changes"));
}

static void test_series__rounded_positions_are_fine(void **state)
{
    world *w = *state;

    ct_world_add(
        &w->list,
        &(ct_stack){.series = 3, .description = "venous", .step_mm = 2.53, .count = 80});
    for (int i = 0; i < 80; i++)
        w->list.item[i].position_mm[2] = round(w->list.item[i].position_mm[2] * 10) / 10;
    assemble(w);
    if (w->r != HP_OK)
        print_error("%s\n", w->f.reason);
    assert_int_equal(w->r, HP_OK);
    assert_true(fabs(hp_assembly_geom(w->a, HP_PHASE_V)->spacing_mm[HP_Z] - 2.53) < 0.01);
}

static void test_series__a_double_position_is_dropped(void **state)
{
    world *w = *state;

    ct_world_add(&w->list, &(ct_stack){.series = 3, .description = "venous"});
    ct_world_add(&w->list, &(ct_stack){.series = 3,
                                       .description = "venous",
                                       .count = 1,
                                       .first_mm = 50,
                                       .first_instance = 90});
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(hp_assembly_geom(w->a, HP_PHASE_V)->n[HP_Z], 40);
}

static void test_series__copies_of_an_instance_count_once(void **state)
{
    world *w = *state;

    add_four(w);
    add_four(w);
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(note_of(w, 4, 0)->instances, 40);
}

static void test_series__tilt_beyond_resampling_is_refused(void **state)
{
    world *w = *state;

    ct_world_add(&w->list,
                 &(ct_stack){.series = 3, .description = "venous", .tilt_deg = 14});
    assemble(w);
    expect_unsuitable(w, HP_WHY_GEOMETRY);
    assert_non_null(strstr(w->f.reason, "14.0 degrees"));

    w->list.count = 0;
    ct_world_add(&w->list,
                 &(ct_stack){.series = 3, .description = "venous", .shear_deg = 9});
    assemble(w);
    expect_unsuitable(w, HP_WHY_GEOMETRY);
    assert_non_null(strstr(w->f.reason, "gantry tilt of 9.0"));
}

static void test_series__coronal_is_no_candidate(void **state)
{
    world *w = *state;

    ct_world_add(&w->list,
                 &(ct_stack){.series = 3, .description = "venous", .tilt_deg = 90});
    assemble(w);
    expect_unsuitable(w, HP_WHY_NO_SERIES);
    expect_why(w, 3, "coronal");
}

static void test_series__two_patients(void **state)
{
    world *w = *state;

    add_four(w);
    w->list.item[77].patient_digest[4] = 1;
    assemble(w);
    assert_int_equal(w->r, HP_E_MISMATCH);
    assert_string_equal(w->f.reason_code, HP_WHY_TWO_PATIENTS);
    expect_why(w, 4, "two different patient IDs");
    assert_null(w->a);
}

static void test_series__nothing_that_is_ct(void **state)
{
    world *w = *state;

    assemble(w);
    expect_unsuitable(w, HP_WHY_NO_CT);
    ct_world_add(&w->list, &(ct_stack){.series = 1, .modality = "MR"});
    assemble(w);
    expect_unsuitable(w, HP_WHY_NO_CT);
}

static void test_series__many_series_keep_the_used_notes(void **state)
{
    world *w = *state;

    for (int i = 0; i < 90; i++)
        ct_world_add(&w->list, &(ct_stack){.series = 100 + i, .count = 2});
    add_four(w);
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(w->f.series_count, HP_MAX_SERIES);
    for (int p = 0; p < HP_PHASES; p++)
        assert_int_equal(w->f.series[w->f.phase_series[p]].number, 2 + p);
}

/* -- real studies, where they are -- */

/* Unpacks a sample and reads it; skips where it is not. */
static void read_sample(world *w, const char *name)
{
    const char *data = getenv("HEPAR_TEST_DATA");
    char dir[256], command[900];
    int skipped;

    assert_non_null(ct_world_folder(dir));
    snprintf(command, sizeof command, "tar -xJf '%s/%s' -C '%s' 2>/dev/null",
             data != NULL ? data : HP_TEST_DATA, name, dir);
    if (system(command) != 0) {
        ct_world_remove_folder(dir);
        skip();
    }
    assert_int_equal(hp_slice_read_dir(dir, &w->list, &skipped, &w->e), HP_OK);
    assemble(w);
    ct_world_remove_folder(dir);
}

static void test_real__three_phases_that_no_header_names(void **state)
{
    world *w = *state;

    read_sample(w, "liver/HCC_009_19980215.tar.xz");
    expect_unsuitable(w, HP_WHY_AMBIGUOUS);
    assert_int_equal(phase_of(w, 2, 0), HP_PHASE_NC);
    w->rule[0] = (hp_phase_rule){HP_PHASE_A, "recon 2", -1};
    w->rule[1] = (hp_phase_rule){HP_PHASE_V, "liver 3 phase", -1};
    w->rules.rule_count = 2;
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    assert_int_equal(phase_of(w, 4, 0), HP_PHASE_A);
    assert_int_equal(phase_of(w, 103, 0), HP_PHASE_V);
    assert_int_equal(hp_assembly_geom(w->a, HP_PHASE_V)->n[HP_Z], 69);
}

static void expect_sample_geometry(world *w, const char *name, const char *words)
{
    w->rules.min_slices = 3;
    w->rules.min_coverage_mm = 5;
    read_sample(w, name);
    expect_unsuitable(w, HP_WHY_GEOMETRY);
    if (strstr(w->f.reason, words) == NULL)
        print_error("%s\n", w->f.reason);
    assert_non_null(strstr(w->f.reason, words));
}

static void test_real__gantry_tilt(void **state)
{
    expect_sample_geometry(*state, "vendor/siemens_definition_tilt.tar.xz",
                           "14.0 degrees");
}

static void test_real__tilt_and_changing_spacing(void **state)
{
    world *w = *state;

    expect_sample_geometry(w, "vendor/ge_hispeed_dual_tilt_varspacing.tar.xz",
                           "18.5 degrees");
    w->rules.max_tilt_deg = 30; /* and if it could be resampled */
    w->list.count = 0;
    expect_sample_geometry(w, "vendor/ge_hispeed_dual_tilt_varspacing.tar.xz", "spacing");
}

static void test_real__a_missing_slice(void **state)
{
    expect_sample_geometry(*state, "vendor/ge_lightspeed_missing_slice.tar.xz",
                           "missing slice");
}

/* -- volumes -- */

static hp_volume *load(world *w, hp_phase p)
{
    hp_volume *v = NULL;

    assert_int_equal(hp_assembly_load(w->a, p, &v, &w->e), HP_OK);
    return v;
}

static int hu_at(const hp_volume *v, int z, int y, int x)
{
    return v
        ->hu[((size_t)z * (size_t)v->geom.n[HP_Y] + (size_t)y) * (size_t)v->geom.n[HP_X] +
             (size_t)x];
}

static void write_world(world *w, char dir[256])
{
    assert_non_null(ct_world_folder(dir));
    assert_true(ct_world_write_all(&w->list, dir));
}

static void test_load__planes_lie_feet_to_head(void **state)
{
    world *w = *state;
    char dir[256];
    hp_volume *v;
    const hp_slice *s;

    ct_world_add(
        &w->list,
        &(ct_stack){.series = 3, .description = "venous", .head_first_down = true});
    write_world(w, dir);
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    v = load(w, HP_PHASE_V);
    assert_true(v->geom.axis[HP_Z][2] > 0.99 && v->geom.axis[HP_X][0] > 0.99 &&
                v->geom.axis[HP_Y][1] > 0.99);
    s = hp_assembly_slice(w->a, HP_PHASE_V, 7);
    assert_true(fabs(s->position_mm[2] - 35) < 1e-6);
    assert_int_equal(hu_at(v, 7, 20, 30), ct_world_word(s, 20, 30) - 1024);
    hp_volume_free(v);
    ct_world_remove_folder(dir);
}

static void test_load__mirrored_planes_are_turned(void **state)
{
    world *w = *state;
    char dir[256];
    hp_volume *v;
    const hp_slice *s;
    double mm[3], centre[3] = {7.5, 20.5, 30.5};

    ct_world_add(&w->list,
                 &(ct_stack){.series = 3, .description = "venous", .mirrored = true});
    write_world(w, dir);
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    v = load(w, HP_PHASE_V);
    assert_true(v->geom.axis[HP_X][0] > 0.99 && v->geom.axis[HP_Y][1] > 0.99);
    s = hp_assembly_slice(w->a, HP_PHASE_V, 7);
    assert_int_equal(hu_at(v, 7, 20, 30), ct_world_word(s, 63 - 20, 63 - 30) - 1024);
    /* and the voxel is where its plane says it is */
    hp_geom_to_mm(&v->geom, centre, mm);
    assert_true(fabs(mm[0] - (s->position_mm[0] - (63 - 30) * 0.8)) < 1e-6);
    assert_true(fabs(mm[1] - (s->position_mm[1] - (63 - 20) * 0.8)) < 1e-6);
    hp_volume_free(v);
    ct_world_remove_folder(dir);
}

static void test_load__a_small_gantry_tilt_is_shifted_back(void **state)
{
    world *w = *state;
    char dir[256];
    hp_volume *v;
    const hp_slice *s;
    /* 2.2906 degrees: 0.2 mm a slice, a whole pixel every fourth */
    ct_world_add(&w->list, &(ct_stack){.series = 3,
                                       .description = "venous",
                                       .shear_deg = 2.290610042638525});
    write_world(w, dir);
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    v = load(w, HP_PHASE_V);
    s = hp_assembly_slice(w->a, HP_PHASE_V, 8);
    assert_int_equal(hu_at(v, 8, 30, 30), ct_world_word(s, 28, 30) - 1024);
    assert_int_equal(hu_at(v, 8, 0, 30), HP_PAD_HU);
    hp_volume_free(v);
    ct_world_remove_folder(dir);
}

static void test_load__a_lost_file_is_an_error(void **state)
{
    world *w = *state;
    char dir[256];
    hp_volume *v = NULL;

    ct_world_add(&w->list, &(ct_stack){.series = 3, .description = "venous"});
    write_world(w, dir);
    assemble(w);
    assert_int_equal(w->r, HP_OK);
    hp_path_remove(w->list.item[9].path, NULL);
    assert_int_not_equal(hp_assembly_load(w->a, HP_PHASE_V, &v, &w->e), HP_OK);
    assert_null(v);
    assert_non_null(strstr(w->e.msg, "instance 10 of series 3"));
    ct_world_remove_folder(dir);
}

/* -- size -- */

static void test_series__a_study_beyond_all_measure_is_unsuitable(void **state)
{
    world *w = *state;

    ct_world_add(&w->list, &(ct_stack){.series = 2,
                                       .description = "portal venous",
                                       .count = HP_MAX_PLANES,
                                       .step_mm = .01});
    assemble(w);
    expect_unsuitable(w, HP_WHY_TOO_MANY);
    assert_int_equal(w->f.series_count, 1);                 /* explained all the same */
    w->list.item[HP_MAX_PLANES - 1].patient_digest[0] ^= 1; /* first things first */
    assemble(w);
    assert_int_equal(w->r, HP_E_MISMATCH);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words__name_phases),
        cmocka_unit_test(test_words__survive_any_bytes),
        CASE(test_series__four_named_series_are_four_phases),
        CASE(test_series__order_of_the_list_does_not_matter),
        CASE(test_series__unnamed_phases_without_times_are_ambiguous),
        CASE(test_series__a_site_rule_decides),
        CASE(test_series__a_site_rule_beats_words_and_times),
        CASE(test_series__a_site_rule_can_leave_a_series_out),
        CASE(test_series__no_venous_phase),
        CASE(test_series__one_unnamed_acquisition_is_no_venous_phase),
        CASE(test_series__venous_alone_is_enough),
        CASE(test_series__times_order_four_unnamed_acquisitions),
        CASE(test_series__gaps_tell_three_acquisitions_apart),
        CASE(test_series__three_unnamed_times_without_a_native_scan),
        CASE(test_series__two_times_without_contrast_are_not_guessed),
        CASE(test_series__delay_after_the_bolus),
        CASE(test_series__a_constant_bolus_delay_is_not_believed),
        CASE(test_series__the_agent_phase_of_enhanced_ct),
        CASE(test_series__an_unclear_extra_is_left_out_not_fatal),
        CASE(test_series__image_evidence_enters_the_choice),
        CASE(test_series__acquisition_numbers_split_a_series),
        CASE(test_series__times_split_a_series),
        CASE(test_series__instance_runs_split_a_series),
        CASE(test_series__interleaved_instances_split_a_series),
        CASE(test_series__four_unnamed_phases_in_one_series),
        CASE(test_series__positions_nothing_tells_apart),
        CASE(test_series__a_dynamic_run_is_not_read),
        CASE(test_series__phases_in_one_enhanced_object),
        CASE(test_series__a_study_beyond_all_measure_is_unsuitable),
        CASE(test_series__made_up_times_are_not_believed),
        CASE(test_series__what_is_not_read_says_why),
        CASE(test_series__other_objects_are_noted),
        CASE(test_series__a_localizer_inside_a_series_is_dropped),
        CASE(test_series__one_reconstruction_of_each_acquisition),
        CASE(test_series__two_series_of_one_name_keep_the_better),
        CASE(test_series__a_phase_elsewhere_is_not_used),
        CASE(test_series__a_missing_slice_is_named),
        CASE(test_series__a_missing_slice_in_another_phase_costs_that_phase),
        CASE(test_series__changing_spacing_is_refused),
        CASE(test_series__rounded_positions_are_fine),
        CASE(test_series__a_double_position_is_dropped),
        CASE(test_series__copies_of_an_instance_count_once),
        CASE(test_series__tilt_beyond_resampling_is_refused),
        CASE(test_series__coronal_is_no_candidate),
        CASE(test_series__two_patients),
        CASE(test_series__nothing_that_is_ct),
        CASE(test_series__many_series_keep_the_used_notes),
        CASE(test_real__three_phases_that_no_header_names),
        CASE(test_real__gantry_tilt),
        CASE(test_real__tilt_and_changing_spacing),
        CASE(test_real__a_missing_slice),
        CASE(test_load__planes_lie_feet_to_head),
        CASE(test_load__mirrored_planes_are_turned),
        CASE(test_load__a_small_gantry_tilt_is_shifted_back),
        CASE(test_load__a_lost_file_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
