/* One series into acquisitions, and the geometry of each.
 *
 * A series that holds several phases shows the same positions again. What tells
 * the phases apart is tried in order of trust: AcquisitionNumber, acquisition
 * time, runs of InstanceNumber, and at last the order of instances at each
 * position. A way to cut counts only if afterwards no part holds a position
 * twice.
 *
 * The check then asks what resampling needs: one spacing, one direction, planes
 * that face the head. Planes that slide sideways (a small gantry tilt) are
 * shifted back when the volume is loaded; a large tilt is refused.
 */
#include "dicom/series_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double RAD = 57.29577951308232;
static const double MAX_VOXELS = 5e8; /* 1 GB; 1900 slices of 512 x 512 */

static double dot(const double a[3], const double b[3])
{
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

/* The plane's normal, turned towards the head. */
static void normal_of(const hp_slice *s, double ret[3])
{
    const double *r = s->orientation, *c = s->orientation + 3;

    ret[0] = r[1] * c[2] - r[2] * c[1];
    ret[1] = r[2] * c[0] - r[0] * c[2];
    ret[2] = r[0] * c[1] - r[1] * c[0];
    if (ret[2] < 0)
        for (int i = 0; i < 3; i++)
            ret[i] = -ret[i];
}

/* Position along the normal, with what sorting needs beside it. */
typedef struct spot {
    const hp_slice *plane;
    double at_mm;
    int part;
} spot;

static int by_instance(const void *a, const void *b)
{
    const spot *x = a, *y = b;

    if (x->plane->instance_number != y->plane->instance_number)
        return x->plane->instance_number < y->plane->instance_number ? -1 : 1;
    if (x->plane->frame != y->plane->frame)
        return x->plane->frame < y->plane->frame ? -1 : 1;
    return strcmp(x->plane->sop_instance.text, y->plane->sop_instance.text);
}

static int by_position(const void *a, const void *b)
{
    const spot *x = a, *y = b;

    if (x->at_mm < y->at_mm || x->at_mm > y->at_mm)
        return x->at_mm < y->at_mm ? -1 : 1;
    return by_instance(a, b);
}

static int by_time(const void *a, const void *b)
{
    double x = ((const spot *)a)->plane->acquired_s,
           y = ((const spot *)b)->plane->acquired_s;

    if (x < y || x > y)
        return x < y ? -1 : 1;
    return by_instance(a, b);
}

static const double SAME_MM = 0.02; /* positions are written with 2 decimals or more */

/* How many planes lie where another plane of the same part lies already. */
static int repeats(spot *s, int n)
{
    int count = 0;

    qsort(s, (size_t)n, sizeof *s, by_position);
    for (int i = 0; i < n; i++)
        for (int k = i + 1; k < n && s[k].at_mm - s[i].at_mm < SAME_MM; k++)
            if (s[k].part == s[i].part) {
                count++;
                break;
            }
    return count;
}

/* How often the most crowded position occurs. */
static int multiplicity(spot *s, int n)
{
    int most = 1;

    qsort(s, (size_t)n, sizeof *s, by_position);
    for (int i = 0; i < n; i++) {
        int here = 1;

        while (i + here < n && s[i + here].at_mm - s[i].at_mm < SAME_MM)
            here++;
        most = here > most ? here : most;
    }
    return most;
}

/* Parts 0..parts-1 must be real acquisitions: of some size, over each other. */
static bool parts_overlap(const spot *s, int n, int parts)
{
    double lo[HP_STACK_MAX_PER_SERIES], hi[HP_STACK_MAX_PER_SERIES];
    int size[HP_STACK_MAX_PER_SERIES] = {0};

    for (int i = 0; i < n; i++) {
        int p = s[i].part;

        if (size[p]++ == 0)
            lo[p] = hi[p] = s[i].at_mm;
        lo[p] = fmin(lo[p], s[i].at_mm);
        hi[p] = fmax(hi[p], s[i].at_mm);
    }
    for (int p = 0; p < parts; p++) {
        bool over = false;

        if (size[p] < 4)
            return false;
        for (int q = 0; q < parts; q++) {
            double both = fmin(hi[p], hi[q]) - fmax(lo[p], lo[q]);

            if (q != p && both > 0.5 * fmin(hi[p] - lo[p], hi[q] - lo[q]))
                over = true;
        }
        if (!over)
            return false;
    }
    return true;
}

/* Numbers parts by AcquisitionNumber, lowest first. Returns how many, 0: no. */
static int cut_by_acquisition(spot *s, int n)
{
    int value[HP_STACK_MAX_PER_SERIES], parts = 0;

    for (int i = 0; i < n; i++) {
        int a = s[i].plane->acquisition_number, p = 0;

        if (a < 0)
            return 0;
        while (p < parts && value[p] != a)
            p++;
        if (p == parts) {
            if (parts == HP_STACK_MAX_PER_SERIES)
                return 0;
            value[parts++] = a;
        }
    }
    for (int i = 0; i < n; i++) {
        s[i].part = 0;
        for (int p = 0; p < parts; p++)
            s[i].part += value[p] < s[i].plane->acquisition_number;
    }
    return parts;
}

static int bigger_first(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x > y ? -1 : x < y;
}

/* Cuts the sorted list at its parts-1 largest steps. step[i]: i to i+1. */
static bool cut_at_steps(spot *s, int n, int parts, const double *step)
{
    double *order = malloc((size_t)n * sizeof *order);
    double limit;
    int part = 0;

    if (order == NULL)
        return false;
    memcpy(order, step, (size_t)(n - 1) * sizeof *order);
    qsort(order, (size_t)n - 1, sizeof *order, bigger_first);
    limit = order[parts - 2];
    free(order);
    if (!(limit > 0))
        return false;
    for (int i = 0; i < n; i++) {
        s[i].part = part;
        if (i < n - 1 && step[i] >= limit && part < parts - 1)
            part++;
    }
    return part == parts - 1;
}

static bool cut_by_time(spot *s, int n, int parts)
{
    double *step = malloc((size_t)n * sizeof *step);
    bool ok = step != NULL;

    for (int i = 0; i < n && ok; i++)
        ok = !isnan(s[i].plane->acquired_s);
    if (ok) {
        qsort(s, (size_t)n, sizeof *s, by_time);
        for (int i = 0; i + 1 < n; i++)
            step[i] = s[i + 1].plane->acquired_s - s[i].plane->acquired_s;
        ok = cut_at_steps(s, n, parts, step);
    }
    free(step);
    return ok;
}

/* A phase ends where the next instance jumps back to the first position. */
static bool cut_by_runs(spot *s, int n, int parts)
{
    double *step = malloc((size_t)n * sizeof *step);
    bool ok = step != NULL;

    if (ok) {
        qsort(s, (size_t)n, sizeof *s, by_instance);
        for (int i = 0; i + 1 < n; i++)
            step[i] = fabs(s[i + 1].at_mm - s[i].at_mm);
        ok = cut_at_steps(s, n, parts, step);
    }
    free(step);
    return ok;
}

/* The j-th instance at each position belongs to part j. */
static void cut_by_turn(spot *s, int n)
{
    qsort(s, (size_t)n, sizeof *s, by_position);
    for (int i = 0; i < n;) {
        int here = 1;

        s[i].part = 0;
        while (i + here < n && s[i + here].at_mm - s[i].at_mm < SAME_MM) {
            s[i + here].part = here;
            here++;
        }
        i += here;
    }
}

static bool valid_cut(spot *s, int n, int parts)
{
    return repeats(s, n) == 0 && parts_overlap(s, n, parts);
}

/* Returns the number of parts; 0: too many to be phases. *ret_clear is false
 * when positions repeat and nothing tells the acquisitions apart. */
static int find_parts(spot *s, int n, bool *ret_clear)
{
    int parts = cut_by_acquisition(s, n), many, doubled;

    *ret_clear = true;
    if (parts > 1 && parts_overlap(s, n, parts) && repeats(s, n) < n / 20 + 1)
        return parts;
    for (int i = 0; i < n; i++)
        s[i].part = 0;
    doubled = repeats(s, n);
    if (doubled < 4 || doubled < n / 20)
        return 1; /* a few doubles are dropped later */
    many = multiplicity(s, n);
    if (many > HP_STACK_MAX_PER_SERIES)
        return 0;
    if (cut_by_time(s, n, many) && valid_cut(s, n, many))
        return many;
    if (cut_by_runs(s, n, many) && valid_cut(s, n, many))
        return many;
    cut_by_turn(s, n);
    if (valid_cut(s, n, many))
        return many;
    *ret_clear = false;
    return 1;
}

static hp_code add_part(const spot *s, int n, int part, int series, int group,
                        hp_stack *stack, hp_error *reterr)
{
    int fill = 0;

    memset(stack, 0, sizeof *stack);
    stack->plane = malloc((size_t)n * sizeof(*stack->plane));
    if (stack->plane == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "series");
    for (int i = 0; i < n; i++)
        if (s[i].part == part)
            stack->plane[fill++] = s[i].plane;
    stack->count = fill;
    stack->series = series;
    stack->part = part;
    stack->group = group;
    stack->phase = HP_PHASE_NONE;
    stack->time_s = NAN;
    return HP_OK;
}

hp_code hp_stacks_split(const hp_slice **plane, int n, int series, int group,
                        hp_stack *stack, int *count, int cap, hp_error *reterr)
{
    spot *s = malloc((size_t)n * sizeof *s);
    double normal[3];
    bool clear;
    int parts;
    hp_code r = HP_OK;

    if (s == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "series");
    normal_of(plane[0], normal);
    for (int i = 0; i < n; i++)
        s[i] = (spot){plane[i], dot(plane[i]->position_mm, normal), 0};
    /* Only what faces the head can be phases; a localizer is left to the check. */
    clear = true;
    parts = normal[2] > 0.7 ? find_parts(s, n, &clear) : 1;
    if (parts == 0) { /* a perfusion or fluoroscopy run */
        for (int i = 0; i < n; i++)
            s[i].part = 0;
    }
    for (int p = 0; p < (parts > 0 ? parts : 1) && r == HP_OK && *count < cap; p++) {
        r = add_part(s, n, p, series, group, &stack[*count], reterr);
        if (r != HP_OK)
            break;
        if (parts == 0) {
            stack[*count].fault = HP_STACK_FILTERED;
            snprintf(stack[*count].why, sizeof stack[*count].why,
                     "a dynamic run: positions occur more than %d times",
                     HP_STACK_MAX_PER_SERIES);
        } else if (!clear) {
            stack[*count].fault = HP_STACK_GEOMETRY;
            snprintf(
                stack[*count].why, sizeof stack[*count].why,
                "positions occur several times and neither acquisition number, time nor "
                "instance number tells the acquisitions apart");
        }
        ++*count;
    }
    free(s);
    return r;
}

static void fault(hp_stack *s, hp_stack_fault what, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void fault(hp_stack *s, hp_stack_fault what, const char *fmt, ...)
{
    va_list args;

    s->fault = what;
    va_start(args, fmt);
    vsnprintf(s->why, sizeof s->why, fmt, args);
    va_end(args);
}

static int plane_order(const void *a, const void *b)
{
    return by_position(a, b);
}

/* Sorts feet to head and drops planes at a position that is taken. */
static void sort_planes(hp_stack *s, const double normal[3], double *ret_at)
{
    spot *spots = malloc((size_t)s->count * sizeof *spots);
    int fill = 0;

    if (spots == NULL) {
        fault(s, HP_STACK_GEOMETRY, "out of memory");
        return;
    }
    for (int i = 0; i < s->count; i++)
        spots[i] = (spot){s->plane[i], dot(s->plane[i]->position_mm, normal), 0};
    qsort(spots, (size_t)s->count, sizeof *spots, plane_order);
    for (int i = 0; i < s->count; i++) {
        if (fill > 0 && spots[i].at_mm - ret_at[fill - 1] < SAME_MM)
            continue;
        ret_at[fill] = spots[i].at_mm;
        s->plane[fill++] = spots[i].plane;
    }
    s->count = fill;
    free(spots);
}

static int smaller_first(const void *a, const void *b)
{
    return -bigger_first(a, b);
}

static double median_step(const double *at, int n)
{
    double *step = malloc((size_t)n * sizeof *step);
    double m = NAN;

    if (step == NULL)
        return NAN;
    for (int i = 0; i + 1 < n; i++)
        step[i] = at[i + 1] - at[i];
    qsort(step, (size_t)n - 1, sizeof *step, smaller_first);
    m = step[(n - 1) / 2];
    free(step);
    return m;
}

/* Names the first step that is not the usual one. */
static bool check_steps(hp_stack *s, const double *at)
{
    double usual = median_step(at, s->count), tol = fmax(0.11, 0.05 * usual);

    for (int i = 0; i + 1 < s->count; i++) {
        double step = at[i + 1] - at[i], times = step / usual;

        if (fabs(step - usual) <= tol)
            continue;
        if (times > 1.5 && fabs(times - round(times)) * usual <= 2 * tol)
            fault(s, HP_STACK_GEOMETRY,
                  "%d missing slice%s: a gap of %.1f mm at z = %.1f mm where slices are "
                  "%.2f mm apart",
                  (int)round(times) - 1, round(times) > 2 ? "s" : "", step,
                  s->plane[i]->position_mm[2], usual);
        else
            fault(s, HP_STACK_GEOMETRY,
                  "slice spacing changes: %.2f mm at z = %.1f mm, elsewhere %.2f mm%s",
                  step, s->plane[i]->position_mm[2], usual,
                  times < 0.5 ? ", slices overlap" : "");
        return false;
    }
    return true;
}

/* Axial within the limit, rows left-right. Fills axes and flips. */
static bool check_axes(hp_stack *s, const double normal[3], double max_tilt_deg)
{
    const double *row = s->plane[0]->orientation, *col = row + 3;
    double tilt = acos(fmin(1, normal[2])) * RAD;

    if (tilt > 45) {
        fault(s, HP_STACK_FILTERED, "not axial (%s)",
              fabs(normal[1]) > fabs(normal[0]) ? "coronal" : "sagittal");
        return false;
    }
    if (tilt > max_tilt_deg) {
        fault(s, HP_STACK_GEOMETRY,
              "tilted by %.1f degrees; up to %.0f degrees can be resampled", tilt,
              max_tilt_deg);
        return false;
    }
    if (atan2(fabs(row[1]), fabs(row[0])) * RAD > 15) {
        fault(s, HP_STACK_GEOMETRY, "rows do not run left to right");
        return false;
    }
    s->flip_x = row[0] < 0;
    s->flip_y = col[1] < 0;
    memcpy(s->geom.axis[HP_Z], normal, sizeof s->geom.axis[HP_Z]);
    for (int i = 0; i < 3; i++) {
        s->geom.axis[HP_X][i] = s->flip_x ? -row[i] : row[i];
        s->geom.axis[HP_Y][i] = s->flip_y ? -col[i] : col[i];
    }
    return true;
}

/* The angle between the way from plane to plane and the normal: gantry tilt
 * where the planes themselves stand straight in their own orientation. */
static bool check_shear(hp_stack *s, const double *at, double max_tilt_deg)
{
    const hp_slice *first = s->plane[0], *last = s->plane[s->count - 1];
    double along = at[s->count - 1] - at[0], side = 0;

    for (int a = HP_Y; a <= HP_X; a++) {
        double drift = 0;

        for (int i = 0; i < 3; i++)
            drift += (last->position_mm[i] - first->position_mm[i]) * s->geom.axis[a][i];
        side += drift * drift;
    }
    side = atan2(sqrt(side), along) * RAD;
    if (side > max_tilt_deg) {
        fault(s, HP_STACK_GEOMETRY,
              "gantry tilt of %.1f degrees; up to %.0f degrees can be resampled", side,
              max_tilt_deg);
        return false;
    }
    for (int k = 0; k < s->count; k++)
        for (int a = HP_Y; a <= HP_X; a++) {
            double off = 0;

            for (int i = 0; i < 3; i++)
                off += (s->plane[k]->position_mm[i] - first->position_mm[i]) *
                       s->geom.axis[a][i];
            off = fabs(off) / first->spacing_mm[a == HP_Y ? 0 : 1];
            s->shift_px[a == HP_Y ? 0 : 1] = fmax(s->shift_px[a == HP_Y ? 0 : 1], off);
        }
    return true;
}

static void fill_geometry(hp_stack *s, const double *at)
{
    const hp_slice *p = s->plane[0];

    s->geom.n[HP_Z] = s->count;
    s->geom.n[HP_Y] = p->rows;
    s->geom.n[HP_X] = p->columns;
    s->geom.spacing_mm[HP_Z] = (at[s->count - 1] - at[0]) / (s->count - 1);
    s->geom.spacing_mm[HP_Y] = p->spacing_mm[0];
    s->geom.spacing_mm[HP_X] = p->spacing_mm[1];
    memcpy(s->geom.origin_mm, p->position_mm, sizeof s->geom.origin_mm);
    for (int i = 0; i < 3; i++) {
        if (s->flip_x)
            s->geom.origin_mm[i] -=
                s->geom.axis[HP_X][i] * p->spacing_mm[1] * (p->columns - 1);
        if (s->flip_y)
            s->geom.origin_mm[i] -=
                s->geom.axis[HP_Y][i] * p->spacing_mm[0] * (p->rows - 1);
    }
}

/* What the stack says about itself, over all planes. */
static void fill_facts(hp_stack *s)
{
    s->thickness_mm = s->plane[0]->thickness_mm;
    s->time_s = NAN;
    for (int k = 0; k < s->count; k++) {
        double t = s->plane[k]->acquired_s;

        s->time_is_content |= s->plane[k]->acquired_is_content_time;
        if (!isnan(t) && !(t >= s->time_s))
            s->time_s = t;
    }
}

void hp_stack_check(hp_stack *s, const hp_series_rules *rules)
{
    double normal[3], covered, thick;
    double *at;

    if (s->fault != HP_STACK_FINE)
        return;
    if ((double)s->count * s->plane[0]->rows * s->plane[0]->columns > MAX_VOXELS) {
        fault(s, HP_STACK_FILTERED, "too large: %d slices of %d x %d", s->count,
              s->plane[0]->columns, s->plane[0]->rows);
        return;
    }
    if (s->count < 2 || s->count < rules->min_slices / 2) {
        fault(s, HP_STACK_FILTERED, "too few slices: %d, needs %d", s->count,
              rules->min_slices);
        return;
    }
    at = malloc((size_t)s->count * sizeof *at);
    if (at == NULL) {
        fault(s, HP_STACK_GEOMETRY, "out of memory");
        return;
    }
    normal_of(s->plane[0], normal);
    if (check_axes(s, normal, rules->max_tilt_deg)) {
        sort_planes(s, normal, at);
        fill_facts(s);
        covered = at[s->count - 1] - at[0];
        thick = s->thickness_mm > 0 ? s->thickness_mm
                                    : covered / (s->count > 1 ? s->count - 1 : 1);
        covered += thick;
        if (thick > rules->max_thickness_mm + 0.01)
            fault(s, HP_STACK_FILTERED, "slices of %.1f mm, thicker than %.0f mm", thick,
                  rules->max_thickness_mm);
        else if (s->count < rules->min_slices)
            fault(s, HP_STACK_FILTERED, "too few slices: %d, needs %d", s->count,
                  rules->min_slices);
        else if (covered < rules->min_coverage_mm)
            fault(s, HP_STACK_FILTERED, "covers %.0f mm, needs %.0f mm", covered,
                  rules->min_coverage_mm);
        else if (check_steps(s, at) && check_shear(s, at, rules->max_tilt_deg))
            fill_geometry(s, at);
    }
    free(at);
}

void hp_stack_done(hp_stack *s)
{
    free(s->plane);
    s->plane = NULL;
}
