/* A whole file through the reading path: precheck, DCMTK's parser, our frame
 * logic, the codecs. A find inside DCMTK is worth knowing too: it runs in a
 * process that may die, but each death costs a study. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dicom/file.h"
#include "tests/fuzz/check.h"

enum { SIDE_MAX = 512, PLANES_MAX = 4 };

static void decode(const hp_slice *s)
{
    int16_t *hu;

    if (s->rows < 1 || s->rows > SIDE_MAX || s->columns < 1 || s->columns > SIDE_MAX)
        return;
    hu = malloc((size_t)s->rows * (size_t)s->columns * sizeof *hu);
    CHECK(hu != NULL);
    if (hp_slice_pixels(s, hu, NULL) == HP_OK)
        CHECK(hu[0] >= -1024);
    free(hu);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    hp_slice_list list = HP_SLICE_LIST_INIT;
    char path[64];
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    hp_code r;

    CHECK(fd >= 0);
    CHECK(write(fd, data, len) == (ssize_t)len);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    r = hp_slice_read(path, &list, NULL);
    CHECK(r == HP_OK || r == HP_E_UNSUPPORTED || list.count == 0);
    for (size_t i = 0; i < list.count && i < PLANES_MAX && r == HP_OK; i++)
        decode(&list.item[i]);
    hp_slice_list_done(&list);
    close(fd);
    return 0;
}
