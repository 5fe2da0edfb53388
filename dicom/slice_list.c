/* The list of image planes, and filling it from a folder. */
#include "dicom/file.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_DEPTH = 8 };

void hp_slice_list_done(hp_slice_list *l)
{
    free(l->item);
    l->item = NULL;
    l->count = l->cap = 0;
}

static void slice_absent(hp_slice *s)
{
    memset(s, 0, sizeof *s);
    s->series_number = s->instance_number = s->acquisition_number = -1;
    s->rows = s->columns = s->bits_allocated = s->bits_stored = s->high_bit = -1;
    s->pixel_representation = s->samples = -1;
    s->pixel_padding = s->pixel_padding_limit = INT32_MIN;
    for (int i = 0; i < 3; i++)
        s->position_mm[i] = NAN;
    for (int i = 0; i < 6; i++)
        s->orientation[i] = NAN;
    s->spacing_mm[0] = s->spacing_mm[1] = NAN;
    s->thickness_mm = s->gantry_tilt_deg = s->slope = s->intercept = NAN;
    s->acquired_s = s->contrast_start_s = NAN;
}

hp_slice *hp_slice_list_add(hp_slice_list *l)
{
    if (l->count == l->cap) {
        size_t cap = l->cap == 0 ? 64 : l->cap * 2;
        hp_slice *item = realloc(l->item, cap * sizeof *item);

        if (item == NULL)
            return NULL;
        l->item = item;
        l->cap = cap;
    }
    slice_absent(&l->item[l->count]);
    return &l->item[l->count++];
}

static int not_dots(const struct dirent *e)
{
    return strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
}

/* Sorted, so that the same folder is read in the same order everywhere. */
static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static hp_code read_dir(const char *dir, int depth, hp_slice_list *list, int *skipped,
                        hp_error *reterr)
{
    struct dirent **entry;
    int n = scandir(dir, &entry, not_dots, by_name);
    hp_code r = HP_OK;

    if (n < 0)
        return hp_fail_errno(reterr, errno, "reading the folder");
    for (int i = 0; i < n; i++) {
        bool full = list->count >= HP_MAX_PLANES;
        char path[HP_PATH_MAX];
        struct stat st;

        if (r == HP_OK && !full)
            r = hp_path_fmt(path, reterr, "%s/%s", dir, entry[i]->d_name);
        free(entry[i]);
        if (r != HP_OK || full || lstat(path, &st) != 0)
            continue;
        if (S_ISDIR(st.st_mode) && depth < MAX_DEPTH) {
            r = read_dir(path, depth + 1, list, skipped, reterr);
        } else if (S_ISREG(st.st_mode)) {
            hp_error e = HP_ERROR_INIT;
            hp_code one = hp_slice_read(path, list, &e);

            if (one == HP_E_NO_MEMORY)
                r = hp_fail(reterr, one, "%s", e.msg);
            else if (one != HP_OK && one != HP_E_UNSUPPORTED)
                ++*skipped;
        }
    }
    free(entry);
    return r;
}

hp_code hp_slice_read_dir(const char *dir, hp_slice_list *list, int *ret_skipped,
                          hp_error *reterr)
{
    size_t before = list->count;
    int skipped = 0;
    hp_code r = read_dir(dir, 1, list, &skipped, reterr);

    if (r != HP_OK)
        return r;
    *ret_skipped = skipped;
    if (list->count == before)
        return hp_fail(reterr, HP_E_EMPTY,
                       "no DICOM image in the folder (%d other files)", skipped);
    return HP_OK;
}
