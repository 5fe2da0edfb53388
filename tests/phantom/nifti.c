/* NIfTI-1, gzipped: the 348-byte header and the voxels. NIfTI is RAS, we are
 * LPS: the affine carries the two signs, and vectors are turned. */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "tests/phantom/study.h"

static void put16(uint8_t *h, int at, int v)
{
    h[at] = (uint8_t)v;
    h[at + 1] = (uint8_t)(v >> 8);
}

static void putf(uint8_t *h, int at, double d)
{
    float v = (float)d;
    memcpy(h + at, &v, 4); /* little-endian hosts */
}

hp_code hp_nifti_write(const char *path, const hp_geom *g, int what, const void *data,
                       hp_error *reterr)
{
    uint8_t h[352] = {0};
    const bool vec = what == 16;
    const size_t n = hp_geom_voxels(g);
    put16(h, 0, 348);
    put16(h, 40, vec ? 5 : 3);
    put16(h, 42, g->n[HP_X]);
    put16(h, 44, g->n[HP_Y]);
    put16(h, 46, g->n[HP_Z]);
    put16(h, 48, 1);
    put16(h, 50, vec ? 3 : 1);
    put16(h, 52, 1);
    put16(h, 54, 1);
    put16(h, 68, vec ? 1007 : 0); /* NIFTI_INTENT_VECTOR */
    put16(h, 70, what);
    put16(h, 72, vec ? 32 : 8);
    putf(h, 76, 1);
    for (int k = 0; k < 3; k++)
        putf(h, 80 + 4 * k, g->spacing_mm[2 - k]);
    putf(h, 108, 352);
    putf(h, 112, 1);
    h[123] = 2; /* mm */
    strcpy((char *)h + 148, "hepar synthetic phantom");
    put16(h, 252, 0);
    put16(h, 254, 1);
    for (int r = 0; r < 3; r++) {
        double sign = r < 2 ? -1 : 1;
        for (int c = 0; c < 3; c++)
            putf(h, 280 + 16 * r + 4 * c,
                 sign * g->axis[2 - c][r] * g->spacing_mm[2 - c]);
        putf(h, 280 + 16 * r + 12, sign * g->origin_mm[r]);
    }
    memcpy(h + 344, "n+1", 4);
    gzFile f = gzopen(path, "wb1");
    if (!f)
        return hp_fail(reterr, HP_E_IO, "%s: cannot write", path);
    bool ok = gzwrite(f, h, sizeof(h)) == (int)sizeof(h);
    if (!vec) {
        const uint8_t *d = data;
        for (size_t at = 0; ok && at < n; at += 1 << 24) {
            unsigned m = (unsigned)(n - at < 1 << 24 ? n - at : 1 << 24);
            ok = gzwrite(f, d + at, m) == (int)m;
        }
    } else {
        const float *d = data;
        float *row = malloc(n * sizeof(float));
        ok = ok && row;
        for (int c = 0; ok && c < 3; c++) {
            for (size_t i = 0; i < n; i++)
                row[i] = c < 2 ? -d[3 * i + (size_t)c] : d[3 * i + (size_t)c];
            ok = gzwrite(f, row, (unsigned)(n * sizeof(float))) ==
                 (int)(n * sizeof(float));
        }
        free(row);
    }
    ok = gzclose(f) == Z_OK && ok;
    return ok ? HP_OK : hp_fail(reterr, HP_E_IO, "%s: cannot write", path);
}
