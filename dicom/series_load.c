/* A phase's planes into one volume.
 *
 * Planes are decoded straight into their place; mirrored rows and columns are
 * turned in place, and a plane that a tilted gantry slid sideways is shifted
 * back by linear interpolation. Two threads decode from both ends of the stack:
 * compressed planes cost tens of milliseconds each, and two cores is what the
 * smallest host has.
 */
#include "dicom/series_internal.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* A shift that no interpolation could show. */
static const double NO_SHIFT_PX = 0.05;

typedef struct loading {
    const hp_stack *stack;
    hp_volume *vol;
    atomic_int next;
    atomic_int failed;
} loading;

typedef struct loader {
    loading *work;
    hp_code code;
    hp_error error;
} loader;

static void mirror_rows(int16_t *plane, int rows, int columns)
{
    for (int y = 0; y < rows; y++)
        for (int x = 0; x < columns / 2; x++) {
            int16_t *line = plane + (size_t)y * (size_t)columns, t = line[x];

            line[x] = line[columns - 1 - x];
            line[columns - 1 - x] = t;
        }
}

static void mirror_columns(int16_t *plane, int rows, int columns)
{
    for (int y = 0; y < rows / 2; y++)
        for (int x = 0; x < columns; x++) {
            int16_t *a = plane + (size_t)y * (size_t)columns + x;
            int16_t *b = plane + (size_t)(rows - 1 - y) * (size_t)columns + x, t = *a;

            *a = *b;
            *b = t;
        }
}

/* out(i) = in(i - shift), linear, padding outside. */
static void shift_line(const int16_t *in, int16_t *out, int n, size_t stride,
                       double shift)
{
    double whole = floor(-shift), part = -shift - whole;

    for (int i = 0; i < n; i++) {
        int a = i + (int)whole, b = a + 1;
        double lo = a >= 0 && a < n ? in[(size_t)a * stride] : HP_PAD_HU;
        double hi = b >= 0 && b < n ? in[(size_t)b * stride] : HP_PAD_HU;

        out[(size_t)i * stride] = (int16_t)lrint(lo + part * (hi - lo));
    }
}

static hp_code shift_plane(int16_t *plane, int rows, int columns, double down_px,
                           double right_px, hp_error *reterr)
{
    size_t n = (size_t)rows * (size_t)columns;
    int16_t *copy = malloc(n * sizeof *copy);

    if (copy == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "shifting a plane");
    if (fabs(down_px) >= NO_SHIFT_PX) {
        memcpy(copy, plane, n * sizeof *copy);
        for (int x = 0; x < columns; x++)
            shift_line(copy + x, plane + x, rows, (size_t)columns, down_px);
    }
    if (fabs(right_px) >= NO_SHIFT_PX) {
        memcpy(copy, plane, n * sizeof *copy);
        for (int y = 0; y < rows; y++)
            shift_line(copy + (size_t)y * (size_t)columns,
                       plane + (size_t)y * (size_t)columns, columns, 1, right_px);
    }
    free(copy);
    return HP_OK;
}

/* Where plane k lies in the volume's own axes, relative to the first plane. */
static double offset_px(const hp_stack *s, int k, int axis)
{
    double off = 0;

    for (int i = 0; i < 3; i++)
        off += (s->plane[k]->position_mm[i] - s->plane[0]->position_mm[i]) *
               s->geom.axis[axis][i];
    return off / s->geom.spacing_mm[axis];
}

static hp_code load_plane(const loading *w, int k, hp_pixel_reader *reader,
                          hp_error *reterr)
{
    const hp_stack *s = w->stack;
    int rows = s->geom.n[HP_Y], columns = s->geom.n[HP_X];
    int16_t *plane = w->vol->hu + (size_t)k * (size_t)rows * (size_t)columns;
    hp_code r = hp_pixel_reader_plane(reader, s->plane[k], plane, reterr);

    if (r != HP_OK)
        return hp_wrap(reterr, r, "instance %d of series %d",
                       s->plane[k]->instance_number, s->plane[k]->series_number);
    if (s->flip_x)
        mirror_rows(plane, rows, columns);
    if (s->flip_y)
        mirror_columns(plane, rows, columns);
    if (s->shift_px[0] >= NO_SHIFT_PX || s->shift_px[1] >= NO_SHIFT_PX)
        return shift_plane(plane, rows, columns, offset_px(s, k, HP_Y),
                           offset_px(s, k, HP_X), reterr);
    return HP_OK;
}

static void *load_some(void *arg)
{
    loader *me = arg;
    hp_pixel_reader *reader = NULL;

    me->code = hp_pixel_reader_new(&reader, &me->error);
    while (me->code == HP_OK && !atomic_load(&me->work->failed)) {
        int k = atomic_fetch_add(&me->work->next, 1);

        if (k >= me->work->stack->count)
            break;
        me->code = load_plane(me->work, k, reader, &me->error);
    }
    if (me->code != HP_OK)
        atomic_store(&me->work->failed, 1);
    hp_pixel_reader_free(reader);
    return NULL;
}

hp_code hp_assembly_load(const hp_assembly *a, hp_phase phase, hp_volume **ret,
                         hp_error *reterr)
{
    hp_auto(hp_volume) *vol = NULL;
    const hp_stack *s = hp_assembly_stack(a, phase);
    loading work = {.stack = s};
    loader one = {.work = &work}, two = {.work = &work};
    pthread_t thread;
    bool helped;
    hp_code r;

    if (s == NULL)
        return hp_fail(reterr, HP_E_NOT_FOUND, "phase %s", hp_phase_name(phase));
    r = hp_volume_new(&s->geom, &vol, reterr);
    if (r != HP_OK)
        return hp_wrap(reterr, r, "loading phase %s", hp_phase_name(phase));
    work.vol = vol;
    /* Frames of one file are decoded in order: a second reader would walk the
     * file twice. No second thread is no fault. */
    helped =
        s->plane[0]->frames == 1 && pthread_create(&thread, NULL, load_some, &two) == 0;
    load_some(&one);
    if (helped)
        pthread_join(thread, NULL);
    r = one.code != HP_OK ? one.code : helped ? two.code : HP_OK;
    if (r != HP_OK) {
        hp_fail(reterr, r, "%s", one.code != HP_OK ? one.error.msg : two.error.msg);
        return hp_wrap(reterr, r, "loading phase %s", hp_phase_name(phase));
    }
    *ret = hp_steal(&vol);
    return HP_OK;
}
