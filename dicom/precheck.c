/* Bounded before it is parsed.
 *
 * DCMTK 3.6.7 overflows its stack on nested sequences, so each file is walked
 * by our own scan first. What comes from the spool was walked when it arrived;
 * a folder given to hepar-run was not. A deflated dataset is inflated in
 * passing: a bomb meets the same limit as any dataset that is too long.
 */
#include "dicom/precheck.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/buf.h"
#include "dicom/spool.h"

enum { PREAMBLE = 128, CHUNK = 64 * 1024 };
static const uint64_t MAX_NATIVE = UINT64_C(4) << 30, MAX_INFLATED = UINT64_C(512) << 20;

static bool is_part10(FILE *f)
{
    uint8_t head[PREAMBLE + 4];

    return fread(head, 1, sizeof head, f) == sizeof head &&
           memcmp(head + PREAMBLE, "DICM", 4) == 0;
}

/* Leaves `f` where the dataset begins: after the group length and what it
 * counts. PS3.10 7.1 makes the group length the first element. */
static hp_code skip_meta(FILE *f, hp_error *reterr)
{
    static const uint8_t TAG[] = {2, 0, 0, 0, 'U', 'L', 4, 0};
    uint8_t element[12];

    if (fread(element, 1, sizeof element, f) != sizeof element ||
        memcmp(element, TAG, sizeof TAG) != 0)
        return hp_fail(reterr, HP_E_INVALID, "file meta without group length");
    if (fseek(f, (long)hp_get_u32le(element + 8), SEEK_CUR) != 0)
        return hp_fail_errno(reterr, errno, "reading a file");
    return HP_OK;
}

typedef struct inflating {
    z_stream z;
    uint8_t in[CHUNK / 4], out[CHUNK];
} inflating;

static hp_code feed_inflated(FILE *f, hp_scan *scan, inflating *w, hp_error *reterr)
{
    z_stream *z = &w->z;
    int zr = Z_OK;

    while (zr != Z_STREAM_END) {
        z->avail_in = (uInt)fread(w->in, 1, sizeof w->in, f);
        z->next_in = w->in;
        if (z->avail_in == 0)
            return hp_fail(reterr, HP_E_TRUNCATED, "deflated dataset");
        while (z->avail_in > 0 && zr != Z_STREAM_END) {
            hp_code r;

            z->next_out = w->out;
            z->avail_out = sizeof w->out;
            zr = inflate(z, Z_NO_FLUSH);
            if (zr != Z_OK && zr != Z_STREAM_END)
                return hp_fail(reterr, HP_E_CORRUPT, "deflated dataset");
            r = hp_scan_feed(scan, w->out, sizeof w->out - z->avail_out, reterr);
            if (r != HP_OK)
                return r;
        }
    }
    return HP_OK;
}

static hp_code check_deflated(FILE *f, hp_scan_result *found, hp_error *reterr)
{
    hp_auto(hp_scan) *scan = NULL;
    inflating w;
    hp_code r = skip_meta(f, reterr);

    if (r == HP_OK)
        r = hp_scan_new(HP_EXPLICIT_LE, MAX_INFLATED, &scan, reterr);
    if (r != HP_OK)
        return r;
    memset(&w.z, 0, sizeof w.z);
    if (inflateInit2(&w.z, -MAX_WBITS) != Z_OK) /* PS3.5 A.5: no zlib header */
        return hp_fail(reterr, HP_E_NO_MEMORY, "inflating");
    r = feed_inflated(f, scan, &w, reterr);
    inflateEnd(&w.z);
    return r == HP_OK ? hp_scan_end(scan, found, reterr) : r;
}

hp_code hp_precheck(const char *path, bool *ret_has_pixels, hp_error *reterr)
{
    hp_scan_result found;
    hp_uid syntax;
    hp_error e = HP_ERROR_INIT;
    FILE *f = fopen(path, "rbe");
    hp_code r;

    if (f == NULL)
        return hp_fail_errno(reterr, errno, "opening a file");
    if (!is_part10(f)) {
        fclose(f);
        return hp_fail(reterr, HP_E_INVALID, "no DICOM file");
    }
    r = hp_spool_scan_file(path, MAX_NATIVE, HP_EXPLICIT_LE, &found, &syntax, &e);
    if (r == HP_E_UNSUPPORTED)
        r = check_deflated(f, &found, reterr);
    else if (r != HP_OK)
        hp_fail(reterr, r, "%s", e.msg);
    fclose(f);
    if (r == HP_OK)
        *ret_has_pixels = found.has_pixels;
    return r;
}
