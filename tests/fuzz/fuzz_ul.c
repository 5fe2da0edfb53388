/* dicom/ul, with dicom/dimse behind it, over the bytes of a whole connection.
 * The first byte chooses the chunking; events must not depend on it, and what
 * is written must be PDUs. */
#include <string.h>

#include "dicom/dimse.h"
#include "tests/fuzz/check.h"

static bool takes(const char *abstract, void *payload)
{
    (void)payload;
    return abstract[strlen(abstract) - 1] % 2 == 0;
}

static void check_output(const hp_buf *out)
{
    for (size_t at = 0; at < out->len;) {
        CHECK(out->len - at >= 6);
        CHECK(out->data[at] >= 2 && out->data[at] <= 7);
        CHECK(hp_get_u32be(out->data + at + 2) <= out->len - at - 6);
        at += 6 + hp_get_u32be(out->data + at + 2);
    }
}

static void answer(hp_ul *u, const hp_dimse_reader *r, hp_buf *out)
{
    hp_buf rsp = HP_BUF_INIT;

    hp_dimse_put_response(&r->command, 0, NULL, &rsp);
    hp_ul_put_data(u, r->context_id, true, rsp.data, rsp.len, out);
    hp_buf_done(&rsp);
}

static void take_piece(hp_ul *u, hp_dimse_reader *r, const hp_ul_event *ev, hp_buf *trace,
                       hp_buf *out)
{
    hp_dimse_event what = HP_DIMSE_MORE;
    uint8_t reason = 0;

    CHECK(hp_ul_context_of(u, ev->context_id));
    if (hp_dimse_take(r, ev, &what, &reason, NULL) != HP_OK) {
        hp_ul_abort(u, 2, reason, out);
        return;
    }
    if (what == HP_DIMSE_DATA || what == HP_DIMSE_DATA_END)
        hp_buf_put(trace, ev->data, ev->len);
    if (ev->ends)
        hp_buf_u8(trace, (uint8_t)(ev->context_id + ev->command + 2 * ev->last));
    if (what == HP_DIMSE_DATA_END || (what == HP_DIMSE_COMMAND && !r->has_dataset))
        answer(u, r, out);
}

static void run(const uint8_t *data, size_t len, size_t chunk, hp_buf *trace, hp_buf *out)
{
    hp_dimse_reader r = HP_DIMSE_READER_INIT;
    hp_ul *u = NULL;
    hp_ul_event ev;

    CHECK(hp_ul_new(&u, NULL) == HP_OK);
    while (len > 0) {
        const uint8_t *p = data;
        size_t n = len < chunk ? len : chunk;

        data += n;
        len -= n;
        while (n > 0) {
            hp_ul_kind k = hp_ul_next(u, &p, &n, &ev, out);

            if (k != HP_UL_MORE && k != HP_UL_DATA)
                hp_buf_u8(trace, (uint8_t)k);
            if (k == HP_UL_ASKED)
                hp_ul_accept(u, takes, NULL, out);
            else if (k == HP_UL_DATA)
                take_piece(u, &r, &ev, trace, out);
            else if (k == HP_UL_RELEASE)
                hp_ul_release(u, out);
        }
    }
    hp_dimse_reader_done(&r);
    hp_ul_free(u);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    hp_buf ta = HP_BUF_INIT, tb = HP_BUF_INIT, oa = HP_BUF_INIT, ob = HP_BUF_INIT;

    if (len < 1)
        return 0;
    run(data + 1, len - 1, len, &ta, &oa);
    run(data + 1, len - 1, 1 + data[0] % 60, &tb, &ob);
    check_output(&oa);
    CHECK(ta.len == tb.len && memcmp(hp_buf_str(&ta), hp_buf_str(&tb), ta.len) == 0);
    CHECK(oa.len == ob.len && memcmp(hp_buf_str(&oa), hp_buf_str(&ob), oa.len) == 0);
    hp_buf_done(&ta);
    hp_buf_done(&tb);
    hp_buf_done(&oa);
    hp_buf_done(&ob);
    return 0;
}
