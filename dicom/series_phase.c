/* Which phase each stack is: evidence from headers, then one joint decision.
 *
 * Each stack gets a probability for NC, A, V, D and "other" from what its own
 * header says; a joint choice then maximises the sum of their logarithms over
 * injective maps, with terms for the order and the gaps of acquisition times.
 * What the image itself says (rules->image, the later phase network) enters the
 * same sum. A stack whose best and second-best role lie close is not guessed:
 * for the venous phase the study is ambiguous, another phase is left out.
 *
 * Never asked: StudyDescription and ProtocolName, which speak for the whole
 * study, and SeriesNumber, whose order is not that of time.
 */
#include "dicom/series_internal.h"
#include "dicom/series_words.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { OTHER = HP_PHASES, ROLES = HP_PHASES + 1, MAX_CANDIDATES = 12 };

/* Weights of evidence: how much likelier a phase becomes. The margin is in the
 * logarithms' unit; one clear word moves a stack by about 3. */
static const double WORD = 20, WORDS_SHARED = 5, BOLUS = 6, AGENT_ABSENT = 4,
                    AGENT_PRESENT = 0.5, RULED_OUT = 1e-9;
static const double MARGIN = 1.0, MARGIN_NO_CONTRAST = 3.0;
static const double ORDER_BROKEN = 6, GAP_ODD = 3, GAP_UNUSUAL = 1;

typedef struct candidate {
    hp_stack *stack;
    double weight[ROLES]; /* becomes log p */
    const char *word;     /* ours, for the record */
    unsigned words;
    int rule;             /* index of the site rule that hit, -1 */
    double after_bolus_s; /* NAN: not usable */
    bool agent_hint;
} candidate;

typedef struct pick {
    int of[HP_PHASES]; /* candidate of each phase, -1 */
    double score;
} pick;

/* -- site rules -- */

static bool rule_hits(const hp_phase_rule *r, const hp_slice *p)
{
    char want[160], have[160], inner[160];
    size_t n;

    if (r->series_number >= 0 && r->series_number != p->series_number)
        return false;
    if (r->description[0] == 0)
        return r->series_number >= 0; /* an empty rule hits nothing */
    hp_fold_text(r->description, want, sizeof want);
    hp_fold_text(p->series_description, have, sizeof have);
    n = strlen(want) - 2; /* without the outer blanks: a substring */
    memcpy(inner, want + 1, n);
    inner[n] = 0;
    return n > 0 && strstr(have, inner) != NULL;
}

static int find_rule(const hp_series_rules *rules, const hp_slice *p)
{
    for (int i = 0; i < rules->rule_count; i++)
        if (rule_hits(&rules->rule[i], p))
            return i;
    return -1;
}

/* -- evidence of one stack -- */

static void favour(candidate *c, hp_phase p, double times)
{
    c->weight[p] *= times;
    /* "Another acquisition of that phase" stays likelier than a phase that the
     * header contradicts. */
    c->weight[OTHER] *= 1 + (times - 1) / 4;
}

static void weigh_words(candidate *c)
{
    int named = 0;

    c->words = hp_stack_words(c->stack, &c->word);
    for (int p = 0; p < HP_PHASES; p++)
        named += (c->words >> p) & 1;
    for (int p = 0; p < HP_PHASES; p++)
        if ((c->words >> p) & 1)
            favour(c, (hp_phase)p, named == 1 ? WORD : WORDS_SHARED);
}

/* Defined terms of (0018,9344). */
static void weigh_agent_phase(candidate *c)
{
    static const struct {
        const char *term;
        hp_phase phase;
    } TERMS[] = {{"PRE_CONTRAST", HP_PHASE_NC},
                 {"ARTERIAL", HP_PHASE_A},
                 {"PORTAL_VENOUS", HP_PHASE_V},
                 {"VENOUS", HP_PHASE_V},
                 {"DELAYED", HP_PHASE_D}};

    for (size_t i = 0; i < sizeof TERMS / sizeof TERMS[0]; i++)
        if (strcmp(c->stack->plane[0]->contrast_phase, TERMS[i].term) == 0) {
            favour(c, TERMS[i].phase, WORD);
            c->words |= 1u << TERMS[i].phase;
            if (c->word == NULL)
                c->word = TERMS[i].term;
        }
}

static hp_phase phase_after_bolus(double s)
{
    if (s < 15)
        return HP_PHASE_NC;
    if (s < 50)
        return HP_PHASE_A;
    return s < 110 ? HP_PHASE_V : HP_PHASE_D;
}

/* The start time of the contrast is often a protocol's constant, or the time of
 * the series itself, or copied onto the series before it. It is believed only
 * when the delays make sense together: within an hour, and growing with the
 * acquisition times where these differ. */
static void find_bolus_times(candidate *c, int n)
{
    for (int i = 0; i < n; i++) {
        const hp_slice *p = c[i].stack->plane[0];
        double s = c[i].stack->time_s - p->contrast_start_s;

        c[i].after_bolus_s =
            !c[i].stack->time_is_content && s > -3600 && s < 3600 ? s : NAN;
    }
    for (int i = 0; i < n; i++)
        for (int k = 0; k < i; k++) {
            double delays = c[i].after_bolus_s - c[k].after_bolus_s;
            double times = c[i].stack->time_s - c[k].stack->time_s;

            if (fabs(times) > 10 && fabs(delays) < 3) {
                for (int j = 0; j < n; j++)
                    c[j].after_bolus_s = NAN;
                return;
            }
        }
}

/* Agent missing in some series of a study and named in others speaks for
 * non-contrast; missing or named everywhere says nothing (old data have none). */
static void weigh_agents(candidate *c, int n)
{
    int with = 0;

    for (int i = 0; i < n; i++)
        with += c[i].stack->plane[0]->has_contrast_agent;
    if (with == 0 || with == n)
        return;
    for (int i = 0; i < n; i++) {
        if (c[i].stack->plane[0]->has_contrast_agent) {
            c[i].weight[HP_PHASE_NC] *= AGENT_PRESENT;
        } else {
            c[i].weight[HP_PHASE_NC] *= AGENT_ABSENT;
            c[i].agent_hint = true;
        }
    }
}

static hp_code weigh_image(candidate *c, const hp_series_rules *rules, hp_error *reterr)
{
    double p[ROLES];
    hp_code r;

    if (rules->image == NULL)
        return HP_OK;
    r = rules->image(c->stack->plane, c->stack->count, p, rules->payload, reterr);
    if (r == HP_E_EMPTY)
        return HP_OK;
    if (r != HP_OK)
        return r;
    for (int k = 0; k < ROLES; k++)
        c->weight[k] *= fmax(p[k], 1e-3);
    return HP_OK;
}

static void weigh_rule(candidate *c, const hp_series_rules *rules)
{
    if (c->rule < 0)
        return;
    for (int k = 0; k < ROLES; k++)
        c->weight[k] = k == (int)rules->rule[c->rule].phase ? 1 : RULED_OUT;
}

static void to_log(candidate *c)
{
    double sum = 0;

    for (int k = 0; k < ROLES; k++)
        sum += c->weight[k];
    for (int k = 0; k < ROLES; k++)
        c->weight[k] = log(c->weight[k] / sum);
}

static hp_code weigh_all(candidate *c, int n, const hp_series_rules *rules,
                         hp_error *reterr)
{
    find_bolus_times(c, n);
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < HP_PHASES; k++)
            c[i].weight[k] = 1;
        c[i].weight[OTHER] = 0.3;
        weigh_words(&c[i]);
        weigh_agent_phase(&c[i]);
        if (!isnan(c[i].after_bolus_s))
            favour(&c[i], phase_after_bolus(c[i].after_bolus_s), BOLUS);
    }
    weigh_agents(c, n);
    for (int i = 0; i < n; i++) {
        hp_code r = weigh_image(&c[i], rules, reterr);

        if (r != HP_OK)
            return r;
        weigh_rule(&c[i], rules);
        to_log(&c[i]);
    }
    return HP_OK;
}

/* -- the joint choice -- */

/* Usual seconds from phase p to q, from protocols: outside `wide` is odd,
 * outside `usual` unusual. */
static double gap_penalty(int p, int q, double gap_s)
{
    static const struct {
        double wide_lo, usual_lo, usual_hi, wide_hi;
    } GAP[HP_PHASES][HP_PHASES] = {
        [HP_PHASE_NC] = {[HP_PHASE_A] = {20, 45, 1200, 7200},
                         [HP_PHASE_V] = {30, 45, 1200, 7200},
                         [HP_PHASE_D] = {90, 120, 2400, 7200}},
        [HP_PHASE_A] =
            {[HP_PHASE_V] = {12, 18, 75, 120}, [HP_PHASE_D] = {75, 110, 600, 1200}},
        [HP_PHASE_V] = {[HP_PHASE_D] = {40, 60, 600, 1200}},
    };

    if (gap_s < GAP[p][q].wide_lo || gap_s > GAP[p][q].wide_hi)
        return GAP_ODD;
    if (gap_s < GAP[p][q].usual_lo || gap_s > GAP[p][q].usual_hi)
        return GAP_UNUSUAL;
    return 0;
}

/* Stacks p < q in phase order: do time or the order inside the series agree? */
static double order_penalty(const candidate *a, const candidate *b, int p, int q)
{
    const hp_stack *x = a->stack, *y = b->stack;
    bool content = x->time_is_content || y->time_is_content;
    double gap = y->time_s - x->time_s;

    if (a->rule >= 0 && b->rule >= 0)
        return 0; /* the site knows better than its clocks */
    if (!isnan(gap) && fabs(gap) > 1) {
        /* The time of the image's making follows reconstruction, not the scan. */
        double scale = content ? 0.5 : 1;

        return scale * (gap < 0 ? ORDER_BROKEN : content ? 0 : gap_penalty(p, q, gap));
    }
    if (x->group == y->group)
        return x->part > y->part ? ORDER_BROKEN : 0;
    return 0;
}

static double score_of(const candidate *c, int n, const int of[HP_PHASES])
{
    /* Protocols that leave a phase out: most often the delayed one. */
    static const double MISSING[HP_PHASES] = {0.3, 0.8, 1.5, 0.0};
    bool used[MAX_CANDIDATES] = {false};
    double score = 0;

    for (int p = 0; p < HP_PHASES; p++) {
        if (of[p] < 0) {
            score -= MISSING[p];
            continue;
        }
        used[of[p]] = true;
        score += c[of[p]].weight[p];
        for (int q = p + 1; q < HP_PHASES; q++)
            if (of[q] >= 0)
                score -= order_penalty(&c[of[p]], &c[of[q]], p, q);
    }
    for (int i = 0; i < n; i++)
        if (!used[i])
            score += c[i].weight[OTHER];
    return score;
}

static int role_in(const pick *p, int i)
{
    for (int k = 0; k < HP_PHASES; k++)
        if (p->of[k] == i)
            return k;
    return OTHER;
}

/* All injective maps: 13^4 at most. best_as[i][role] is the best score with
 * candidate i in that role. */
static void choose(const candidate *c, int n, pick *ret_best,
                   double best_as[MAX_CANDIDATES][ROLES])
{
    pick at = {.of = {-1, -1, -1, -1}, .score = 0};

    ret_best->score = -INFINITY;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < ROLES; k++)
            best_as[i][k] = -INFINITY;
    for (long code = 0;; code++) {
        long rest = code;
        bool fits = true;

        for (int p = 0; p < HP_PHASES; p++, rest /= n + 1)
            at.of[p] = (int)(rest % (n + 1)) - 1;
        if (rest > 0)
            break;
        for (int p = 0; p < HP_PHASES; p++)
            for (int q = 0; q < p; q++)
                fits &= at.of[p] < 0 || at.of[p] != at.of[q];
        if (!fits)
            continue;
        at.score = score_of(c, n, at.of);
        if (at.score > ret_best->score)
            *ret_best = at;
        for (int i = 0; i < n; i++)
            best_as[i][role_in(&at, i)] = fmax(best_as[i][role_in(&at, i)], at.score);
    }
}

/* -- before and after -- */

/* The phase that a header names outright, by rule or by one word. */
static hp_phase named_phase(const candidate *c, const hp_series_rules *rules)
{
    if (c->rule >= 0)
        return rules->rule[c->rule].phase;
    for (int p = 0; p < HP_PHASES; p++)
        if (c->words == 1u << p)
            return (hp_phase)p;
    return HP_PHASE_NONE;
}

/* Times that give two differently named phases the same moment, or midnight
 * sharp, were set by somebody who removes dates; then no time in the study means
 * anything. */
static bool times_are_made_up(const hp_stack *stack, int count)
{
    for (int i = 0; i < count; i++) {
        unsigned words = hp_stack_words(&stack[i], NULL);

        if (stack[i].fault != HP_STACK_FINE || isnan(stack[i].time_s))
            continue;
        if (fmod(stack[i].time_s, 86400) == 0)
            return true;
        for (int k = 0; k < i; k++) {
            unsigned other = hp_stack_words(&stack[k], NULL);

            if (stack[k].fault == HP_STACK_FINE && words != 0 && other != 0 &&
                (words & other) == 0 && fabs(stack[i].time_s - stack[k].time_s) < 2)
                return true;
        }
    }
    return false;
}

void hp_stacks_doubt_times(hp_stack *stack, int count)
{
    if (times_are_made_up(stack, count))
        for (int i = 0; i < count; i++)
            stack[i].time_s = NAN;
}

/* Two stacks named the same phase: the better one to read stays. */
static int drop_doubles(candidate *c, int n, const hp_series_rules *rules)
{
    int kept = 0;

    for (int i = 0; i < n; i++) {
        hp_phase mine = named_phase(&c[i], rules);
        int better = -1;

        for (int k = 0; k < n && mine != HP_PHASE_NONE; k++) {
            bool by_rule = (c[k].rule >= 0) != (c[i].rule >= 0);

            if (k == i || named_phase(&c[k], rules) != mine)
                continue;
            if (by_rule ? c[k].rule >= 0
                        : hp_stack_compare(c[k].stack, c[i].stack, rules) < 0)
                better = k;
        }
        if (better >= 0) {
            char name[48];

            c[i].stack->fault = HP_STACK_SPARE;
            snprintf(c[i].stack->why, sizeof c[i].stack->why,
                     "a second %s series; %s was kept", hp_phase_title(mine),
                     hp_stack_name(c[better].stack, name));
        }
    }
    for (int i = 0; i < n; i++)
        if (c[i].stack->fault == HP_STACK_FINE)
            c[kept++] = c[i];
    return kept;
}

static void say_why(const candidate *c, hp_phase phase)
{
    hp_stack *s = c->stack;

    if (c->rule >= 0)
        snprintf(s->why, sizeof s->why, "site phase rule %d", c->rule + 1);
    else if (c->words == 1u << phase)
        snprintf(s->why, sizeof s->why, "the header says '%s'", c->word);
    else if ((c->words >> phase) & 1)
        snprintf(s->why, sizeof s->why, "the header names several phases, this one by %s",
                 isnan(s->time_s) ? "acquisition order" : "acquisition time");
    else if (!isnan(c->after_bolus_s))
        snprintf(s->why, sizeof s->why, "%.0f s after the start of contrast",
                 c->after_bolus_s);
    else if (phase == HP_PHASE_NC && c->agent_hint)
        snprintf(s->why, sizeof s->why, "no contrast agent, unlike the other series");
    else if (!isnan(s->time_s))
        snprintf(s->why, sizeof s->why, "order of acquisition times");
    else
        snprintf(s->why, sizeof s->why, "order of acquisitions in the series");
}

/* "A or V or D": the roles within the margin of the best. */
static void list_roles(const double best_as[ROLES], double limit, char *ret, size_t size)
{
    size_t n = 0;

    ret[0] = 0;
    for (int k = 0; k < HP_PHASES && n < size; k++)
        if (best_as[k] > limit)
            n += (size_t)snprintf(ret + n, size - n, "%s%s", n > 0 ? " or " : "",
                                  hp_phase_name((hp_phase)k));
}

static double margin_of(const double best_as[ROLES], int role, double best)
{
    double second = -INFINITY;

    for (int k = 0; k < ROLES; k++)
        if (k != role)
            second = fmax(second, best_as[k]);
    return best - second;
}

/* Two acquisitions and no word of contrast: order and gap alone would take an
 * inspiration and expiration pair of the chest for two phases. */
static double margin_needed(const candidate *c, int n)
{
    bool contrast = n > 2;

    for (int i = 0; i < n; i++)
        contrast |= c[i].words != 0 || c[i].rule >= 0 || !isnan(c[i].after_bolus_s) ||
                    c[i].stack->plane[0]->has_contrast_agent;
    return contrast ? MARGIN : MARGIN_NO_CONTRAST;
}

static void leave_unclear(hp_stack *s, const double best_as[ROLES], double limit)
{
    char roles[40];

    list_roles(best_as, limit, roles, sizeof roles);
    s->fault = HP_STACK_UNCLEAR;
    snprintf(s->why, sizeof s->why,
             roles[0] != 0 ? "phase not clear from the header: %s; a phase rule can say"
                           : "phase not clear from the header%s; a phase rule can say",
             roles);
}

/* The words an admin needs when the venous phase is not clear. */
static void explain_ambiguity(const candidate *c, int n, hp_phase_choice *ret)
{
    char list[96] = "";
    size_t used = 0;

    for (int i = 0; i < n; i++) {
        char name[48];

        if (c[i].stack->fault != HP_STACK_UNCLEAR || used > 60)
            continue;
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s",
                                 used > 0 ? ", " : "", hp_stack_name(c[i].stack, name));
    }
    ret->ambiguous = true;
    snprintf(ret->reason, sizeof ret->reason,
             "headers do not say which phase is the venous one (%s); add a rule to "
             "phase_rules "
             "(phase, description or series_number) and retry",
             list);
}

static void explain_no_venous(int n, hp_phase_choice *ret)
{
    snprintf(ret->reason, sizeof ret->reason,
             "no venous phase among %d usable acquisition%s; if one is, add a rule to "
             "phase_rules "
             "(phase: V, description or series_number) and retry",
             n, n == 1 ? "" : "s");
}

static int gather(hp_stack *stack, int count, candidate *c, const hp_series_rules *rules)
{
    int n = 0;

    for (int i = 0; i < count; i++) {
        int rule;

        if (stack[i].fault != HP_STACK_FINE)
            continue;
        rule = find_rule(rules, stack[i].plane[0]);
        if (rule >= 0 && rules->rule[rule].phase == HP_PHASE_NONE) {
            stack[i].fault = HP_STACK_UNUSED;
            snprintf(stack[i].why, sizeof stack[i].why, "left out by site phase rule %d",
                     rule + 1);
        } else if (n == MAX_CANDIDATES) {
            stack[i].fault = HP_STACK_UNUSED;
            snprintf(stack[i].why, sizeof stack[i].why,
                     "more than %d acquisitions to choose from", MAX_CANDIDATES);
        } else {
            memset(&c[n], 0, sizeof c[n]);
            c[n].rule = rule;
            c[n++].stack = &stack[i];
        }
    }
    return n;
}

hp_code hp_phases_choose(hp_stack *stack, int count, const hp_series_rules *rules,
                         hp_phase_choice *ret, hp_error *reterr)
{
    candidate c[MAX_CANDIDATES];
    double best_as[MAX_CANDIDATES][ROLES];
    pick best;
    int n;
    double margin;
    bool venous_open = false;
    hp_code r;

    memset(ret, 0, sizeof *ret);
    n = gather(stack, count, c, rules);
    for (int i = 0; i < n; i++)
        c[i].words = hp_stack_words(c[i].stack, &c[i].word);
    n = drop_doubles(c, n, rules);
    r = weigh_all(c, n, rules, reterr);
    if (r != HP_OK)
        return hp_wrap(reterr, r, "choosing phases");
    choose(c, n, &best, best_as);
    margin = margin_needed(c, n);

    for (int i = 0; i < n; i++) {
        hp_stack *s = c[i].stack;
        int role = role_in(&best, i);

        if (margin_of(best_as[i], role, best.score) < margin) {
            leave_unclear(s, best_as[i], best.score - margin);
            venous_open |= best_as[i][HP_PHASE_V] > best.score - margin;
            if (role != OTHER)
                best.of[role] = -1;
        } else if (role == OTHER) {
            s->fault = HP_STACK_UNUSED;
            snprintf(s->why, sizeof s->why,
                     "no phase of the four, or one that is there already");
        } else {
            s->phase = (hp_phase)role;
            say_why(&c[i], s->phase);
        }
    }
    if (best.of[HP_PHASE_V] >= 0)
        return HP_OK;
    if (venous_open && n > 1)
        explain_ambiguity(c, n, ret);
    else
        explain_no_venous(n, ret);
    return HP_OK;
}
