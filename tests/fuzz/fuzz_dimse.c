/* dicom/dimse: the input as a command set, and as a row of fragments. A command
 * that is understood can be answered, and the answer is understood. */
#include "dicom/dimse.h"
#include "tests/fuzz/check.h"

static void as_command(const uint8_t *data, size_t len)
{
    hp_dimse_command c, again;
    hp_buf b = HP_BUF_INIT;

    if (hp_dimse_parse(data, len, &c, NULL) != HP_OK)
        return;
    hp_dimse_put_response(&c, 0xC000, "comment", &b);
    CHECK(hp_dimse_parse(b.data, b.len, &again, NULL) == HP_OK);
    CHECK(again.field == (c.field | HP_DIMSE_RESPONSE));
    hp_buf_done(&b);
}

/* Flags, context and length byte, then that many bytes. */
static void as_fragments(const uint8_t *data, size_t len)
{
    hp_dimse_reader r = HP_DIMSE_READER_INIT;

    while (len >= 3) {
        hp_dimse_event what = HP_DIMSE_MORE;
        hp_ul_event ev = {.kind = HP_UL_DATA};
        uint8_t reason = 0;

        ev.command = data[0] & 1;
        ev.last = data[0] & 2;
        ev.ends = data[0] & 4;
        ev.context_id = data[1] & 3;
        ev.len = data[2] < len - 3 ? data[2] : len - 3;
        ev.data = data + 3;
        data += 3 + ev.len;
        len -= 3 + ev.len;
        if (hp_dimse_take(&r, &ev, &what, &reason, NULL) != HP_OK)
            break;
        CHECK(what != HP_DIMSE_DATA_END || !hp_dimse_inside_message(&r));
    }
    hp_dimse_reader_done(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    as_command(data, len);
    as_fragments(data, len);
    return 0;
}
