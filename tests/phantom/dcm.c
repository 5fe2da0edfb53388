#include "tests/phantom/dcm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/number.h"

static void head(hp_buf *b, uint32_t tag, const char *vr, size_t len)
{
    hp_buf_u16le(b, (uint16_t)(tag >> 16));
    hp_buf_u16le(b, (uint16_t)tag);
    hp_buf_put(b, vr, 2);
    if (!strcmp(vr, "OB") || !strcmp(vr, "OW") || !strcmp(vr, "SQ") ||
        !strcmp(vr, "UT") || !strcmp(vr, "UN")) {
        hp_buf_u16le(b, 0);
        hp_buf_u32le(b, (uint32_t)len);
    } else {
        hp_buf_u16le(b, (uint16_t)len);
    }
}

void dcm_bytes(hp_buf *b, uint32_t tag, const char *vr, const void *data, size_t len)
{
    head(b, tag, vr, len + (len & 1));
    hp_buf_put(b, data, len);
    if (len & 1)
        hp_buf_u8(b, 0);
}

void dcm_text(hp_buf *b, uint32_t tag, const char *vr, const char *text)
{
    if (!text)
        return;
    size_t len = strlen(text);
    head(b, tag, vr, len + (len & 1));
    hp_buf_put(b, text, len);
    if (len & 1)
        hp_buf_u8(b, strcmp(vr, "UI") ? ' ' : 0);
}

void dcm_int(hp_buf *b, uint32_t tag, const char *vr, long v)
{
    char t[24];
    snprintf(t, sizeof(t), "%ld", v);
    dcm_text(b, tag, vr, t);
}

void dcm_ds(hp_buf *b, uint32_t tag, const double *v, int n)
{
    char t[160] = "";
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        char one[32];
        hp_format_double(v[i], 6, one, sizeof(one));
        at += (size_t)snprintf(t + at, sizeof(t) - at, "%s%s", i ? "\\" : "", one);
    }
    dcm_text(b, tag, "DS", t);
}

void dcm_us(hp_buf *b, uint32_t tag, const char *vr, uint16_t v)
{
    head(b, tag, vr, 2);
    hp_buf_u16le(b, v);
}

void dcm_item_open(hp_buf *b, uint32_t tag)
{
    head(b, tag, "SQ", 0xffffffffu);
    hp_buf_u16le(b, 0xfffe);
    hp_buf_u16le(b, 0xe000);
    hp_buf_u32le(b, 0xffffffffu);
}

void dcm_item_close(hp_buf *b)
{
    static const uint16_t end[2] = {0xe00d, 0xe0dd};
    for (int k = 0; k < 2; k++) {
        hp_buf_u16le(b, 0xfffe);
        hp_buf_u16le(b, end[k]);
        hp_buf_u32le(b, 0);
    }
}

hp_code dcm_write(const char *path, const char *sop_class, const char *sop_instance,
                  const hp_buf *dataset, hp_error *reterr)
{
    hp_buf m = HP_BUF_INIT, f = HP_BUF_INIT;
    static const uint8_t version[2] = {0, 1}, zero[128];
    dcm_bytes(&m, 0x00020001, "OB", version, 2);
    dcm_text(&m, 0x00020002, "UI", sop_class);
    dcm_text(&m, 0x00020003, "UI", sop_instance);
    dcm_text(&m, 0x00020010, "UI", "1.2.840.10008.1.2.1");
    dcm_text(&m, 0x00020012, "UI", "2.25.163245103411527614391170384729103347");
    dcm_text(&m, 0x00020013, "SH", "HEPAR-PHANTOM");
    hp_buf_put(&f, zero, 128);
    hp_buf_put(&f, "DICM", 4);
    head(&f, 0x00020000, "UL", 4);
    hp_buf_u32le(&f, (uint32_t)m.len);
    hp_buf_put(&f, m.data, m.len);
    hp_code rc = HP_OK;
    if (f.failed || m.failed || dataset->failed) {
        rc = hp_fail(reterr, HP_E_NO_MEMORY, "writing a DICOM file");
    } else {
        FILE *o = fopen(path, "wb");
        if (!o)
            rc = hp_fail_errno(reterr, errno, "%s", path);
        else if ((fwrite(f.data, 1, f.len, o) != f.len) |
                 (fwrite(dataset->data, 1, dataset->len, o) != dataset->len) |
                 (fclose(o) != 0))
            rc = hp_fail(reterr, HP_E_IO, "writing %s", path);
    }
    hp_buf_done(&m);
    hp_buf_done(&f);
    return rc;
}
