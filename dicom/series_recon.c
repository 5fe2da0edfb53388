/* Which reconstruction of an acquisition to read, and facts that compare stacks.
 *
 * Scanners write the same acquisition several times: thin for reformatting,
 * thick for reading, with a bone or lung kernel beside the soft one. One is
 * enough; which one is a preference, recorded for the others.
 */
#include "dicom/series_internal.h"
#include "dicom/series_words.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

const char *hp_stack_name(const hp_stack *s, char ret[48])
{
    int number = s->plane[0]->series_number;

    if (number < 0)
        snprintf(ret, 48, "a series without number");
    else if (s->part > 0)
        snprintf(ret, 48, "series %d, acquisition %d", number, s->part + 1);
    else
        snprintf(ret, 48, "series %d", number);
    return ret;
}

unsigned hp_stack_words(const hp_stack *s, const char **ret_word)
{
    const hp_slice *p = s->plane[0];
    unsigned hit = hp_phase_words(p->series_description, ret_word);

    return hit != 0 ? hit : hp_phase_words(p->image_comments, ret_word);
}

double hp_stack_overlap_mm(const hp_stack *a, const hp_stack *b)
{
    double lo_a = a->plane[0]->position_mm[2],
           hi_a = a->plane[a->count - 1]->position_mm[2];
    double lo_b = b->plane[0]->position_mm[2],
           hi_b = b->plane[b->count - 1]->position_mm[2];

    return fmin(hi_a, hi_b) - fmax(lo_a, lo_b);
}

static double extent_mm(const hp_stack *s)
{
    return s->plane[s->count - 1]->position_mm[2] - s->plane[0]->position_mm[2];
}

/* Vendors' kernel names: GE words; Siemens letters with a number from 10 (soft)
 * to 80 (bone); Canon FC 1-19 soft body, 30 and more bone and lung; Philips
 * letters, of which C to F and Y are sharp. */
static bool is_sharp(const char *kernel)
{
    static const char *const WORDS[] = {"BONE", "LUNG", "EDGE", "SHARP", "ULTRA",
                                        "YB",   "YC",   "YD",   "YE"};
    const char *digit = strpbrk(kernel, "0123456789");
    long number = digit != NULL ? strtol(digit, NULL, 10) : 0;

    for (size_t i = 0; i < sizeof WORDS / sizeof WORDS[0]; i++)
        if (strncasecmp(kernel, WORDS[i], strlen(WORDS[i])) == 0)
            return true;
    if (digit == NULL)
        return (kernel[0] == 'D' || kernel[0] == 'E' || kernel[0] == 'F') &&
               kernel[1] == 0;
    if (strncasecmp(kernel, "FC", 2) == 0)
        return number >= 30 && number < 90;
    if (strchr("BIHQ", toupper((unsigned char)kernel[0])) != NULL)
        return number >= 50;
    return false;
}

static bool is_derived(const hp_stack *s)
{
    return strncmp(s->plane[0]->image_type, "DERIVED", 7) == 0;
}

int hp_stack_compare(const hp_stack *a, const hp_stack *b, const hp_series_rules *rules)
{
    double far_a = fabs(a->thickness_mm - rules->prefer_thickness_mm);
    double far_b = fabs(b->thickness_mm - rules->prefer_thickness_mm);
    double cover = fmax(extent_mm(a), extent_mm(b));
    bool short_a = extent_mm(a) < 0.8 * cover, short_b = extent_mm(b) < 0.8 * cover;
    bool sharp_a = is_sharp(a->plane[0]->kernel), sharp_b = is_sharp(b->plane[0]->kernel);

    if (short_a != short_b)
        return short_a ? 1 : -1;
    if (sharp_a != sharp_b)
        return sharp_a ? 1 : -1;
    if (is_derived(a) != is_derived(b))
        return is_derived(a) ? 1 : -1;
    if (isnan(far_a) != isnan(far_b))
        return isnan(far_a) ? 1 : -1;
    if (fabs(far_a - far_b) > 0.05)
        return far_a < far_b ? -1 : 1;
    if (a->series != b->series)
        return a->series < b->series ? -1 : 1;
    return a->part < b->part ? -1 : a->part > b->part;
}

static bool same_reconstruction(const hp_stack *a, const hp_stack *b)
{
    const hp_slice *x = a->plane[0], *y = b->plane[0];

    return fabs(a->thickness_mm - b->thickness_mm) < 0.3 &&
           strcmp(x->kernel, y->kernel) == 0 &&
           fabs(x->spacing_mm[0] - y->spacing_mm[0]) < 1e-3 && x->rows == y->rows &&
           fabs(a->geom.spacing_mm[HP_Z] - b->geom.spacing_mm[HP_Z]) < 0.05;
}

/* Real acquisition times decide where both have them. Without times two stacks
 * are one acquisition only if their words name the same phase and they differ
 * as reconstructions do. */
static bool same_acquisition(const hp_stack *a, const hp_stack *b)
{
    unsigned words_a = hp_stack_words(a, NULL), words_b = hp_stack_words(b, NULL);
    int acq_a = a->plane[0]->acquisition_number, acq_b = b->plane[0]->acquisition_number;
    bool timed = !isnan(a->time_s) && !isnan(b->time_s) && !a->time_is_content &&
                 !b->time_is_content;

    if (a->group == b->group || same_reconstruction(a, b) ||
        hp_stack_overlap_mm(a, b) < 0.5 * fmin(extent_mm(a), extent_mm(b)))
        return false;
    if (words_a != 0 && words_b != 0 && (words_a & words_b) == 0)
        return false;
    if (timed)
        return fabs(a->time_s - b->time_s) <= 1.5;
    return words_a != 0 && words_a == words_b &&
           (acq_a < 0 || acq_b < 0 || acq_a == acq_b);
}

void hp_stacks_spare(hp_stack *stack, int count, const hp_series_rules *rules)
{
    for (int i = 0; i < count; i++)
        for (int k = 0; k < count && stack[i].fault == HP_STACK_FINE; k++) {
            char name[48];

            if (k == i || stack[k].fault != HP_STACK_FINE ||
                !same_acquisition(&stack[i], &stack[k]) ||
                hp_stack_compare(&stack[k], &stack[i], rules) >= 0)
                continue;
            stack[i].fault = HP_STACK_SPARE;
            snprintf(stack[i].why, sizeof stack[i].why,
                     "another reconstruction of %s (%.2g mm here, %.2g mm there%s)",
                     hp_stack_name(&stack[k], name), stack[i].thickness_mm,
                     stack[k].thickness_mm,
                     is_sharp(stack[i].plane[0]->kernel) ? "; sharp kernel here" : "");
        }
}
