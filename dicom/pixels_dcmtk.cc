// Pixels of image planes to Hounsfield units: DCMTK's codecs, OpenJPEG for
// JPEG 2000, then one conversion for all.
//
// Frames are decoded one at a time, so that a multi-frame object never lies in
// memory whole. Stored words are taken apart by hand (bits stored, high bit,
// sign), because a picture library would apply windows and guess at signs.
#include "dicom/file.h"

#include "dicom/fence.hh"
#include "dicom/j2k.h"

#include <dcmtk/dcmdata/dcfcache.h>
#include <dcmtk/dcmdata/dcpixel.h>
#include <dcmtk/dcmdata/dcpixseq.h>
#include <dcmtk/dcmdata/dcpxitem.h>
#include <dcmtk/dcmdata/dcrledrg.h>
#include <dcmtk/dcmdata/dctk.h>
#include <dcmtk/dcmjpeg/djdecode.h>
#include <dcmtk/dcmjpls/djdecode.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "base/volume.h"

struct hp_pixel_reader {
    char path[HP_PATH_MAX];
    std::unique_ptr<DcmFileFormat> file;
    DcmPixelData *pixels; // inside *file
    DcmFileCache cache;
    // Where the frame after the last one begins: without an offset table only
    // the decoder knows how many fragments a frame took.
    int next_frame;
    Uint32 next_fragment;
    std::vector<uint16_t> words;
    std::vector<uint8_t> bytes;
};

namespace
{

void register_codecs()
{
    static std::once_flag once;

    std::call_once(once, [] {
        DcmRLEDecoderRegistration::registerCodecs();
        DJDecoderRegistration::registerCodecs();
        DJLSDecoderRegistration::registerCodecs();
    });
}

bool is_j2k(const hp_slice *s)
{
    return std::strcmp(s->transfer_syntax.text, "1.2.840.10008.1.2.4.90") == 0 ||
           std::strcmp(s->transfer_syntax.text, "1.2.840.10008.1.2.4.91") == 0;
}

hp_code open_file(hp_pixel_reader *r, const hp_slice *s, hp_error *reterr)
{
    DcmElement *e = nullptr;
    OFCondition cond;

    if (r->file != nullptr && std::strcmp(r->path, s->path) == 0)
        return HP_OK;
    r->file.reset(new DcmFileFormat);
    r->path[0] = 0;
    r->cache.clear();
    r->pixels = nullptr;
    // Values above DCM_MaxReadLength stay in the file until they are asked for.
    cond = r->file->loadFile(s->path, EXS_Unknown, EGL_noChange, DCM_MaxReadLength,
                             ERM_autoDetect);
    if (cond.bad())
        return hp_fail(reterr, hp::code_of(cond), "the file does not read as DICOM");
    if (r->file->getDataset()->findAndGetElement(DCM_PixelData, e).bad() ||
        (r->pixels = dynamic_cast<DcmPixelData *>(e)) == nullptr)
        return hp_fail(reterr, HP_E_CORRUPT, "no Pixel Data");
    std::memcpy(r->path, s->path, sizeof r->path);
    r->next_frame = 0;
    r->next_fragment = 0;
    return HP_OK;
}

// Does fragment `i` begin a code stream (SOC, SIZ)?
bool begins_j2k(DcmPixelSequence *seq, unsigned long i)
{
    static const uint8_t soc[] = {0xFF, 0x4F, 0xFF, 0x51};
    DcmPixelItem *item = nullptr;
    Uint8 *data = nullptr;

    return seq->getItem(item, i).good() && item->getLength() >= 4 &&
           item->getUint8Array(data).good() && data != nullptr &&
           std::memcmp(data, soc, sizeof soc) == 0;
}

// The fragments [*begin, *end) of a frame; item 0 is the offset table. The table
// is not asked: it may be empty, and fragments tell as well.
hp_code j2k_fragments(DcmPixelSequence *seq, const hp_slice *s, unsigned long *begin,
                      unsigned long *end, hp_error *reterr)
{
    unsigned long count = seq->card();
    int frame = -1;

    if (count < 2)
        return hp_fail(reterr, HP_E_CORRUPT, "Pixel Data without a fragment");
    *begin = 1;
    *end = count;
    if (s->frames == 1)
        return HP_OK;
    if (count == static_cast<unsigned long>(s->frames) + 1) {
        *begin = static_cast<unsigned long>(s->frame) + 1;
        *end = *begin + 1;
        return HP_OK;
    }
    for (unsigned long i = 1; i < count; i++) {
        if (!begins_j2k(seq, i))
            continue;
        if (++frame == s->frame)
            *begin = i;
        if (frame == s->frame + 1) {
            *end = i;
            return HP_OK;
        }
    }
    return frame >= s->frame
               ? HP_OK
               : hp_fail(reterr, HP_E_CORRUPT, "frame %d is not there", s->frame + 1);
}

hp_code decode_j2k(hp_pixel_reader *r, const hp_slice *s, hp_error *reterr)
{
    DcmPixelSequence *seq = nullptr;
    unsigned long begin = 0, end = 0;
    hp_code rc;

    if (r->pixels
            ->getEncapsulatedRepresentation(r->file->getDataset()->getOriginalXfer(),
                                            nullptr, seq)
            .bad() ||
        seq == nullptr)
        return hp_fail(reterr, HP_E_CORRUPT, "Pixel Data is not encapsulated");
    rc = j2k_fragments(seq, s, &begin, &end, reterr);
    if (rc != HP_OK)
        return rc;
    r->bytes.clear();
    for (unsigned long i = begin; i < end; i++) {
        DcmPixelItem *item = nullptr;
        Uint8 *data = nullptr;

        if (seq->getItem(item, i).bad())
            return hp_fail(reterr, HP_E_CORRUPT, "fragment %lu is not there", i);
        if (item->getLength() == 0)
            continue;
        if (item->getUint8Array(data).bad() || data == nullptr)
            return hp_fail(reterr, HP_E_TRUNCATED, "fragment %lu does not read", i);
        r->bytes.insert(r->bytes.end(), data, data + item->getLength());
    }
    return hp_j2k_decode(r->bytes.data(), r->bytes.size(), s->rows, s->columns,
                         r->words.data(), reterr);
}

// All other transfer syntaxes, native ones included.
hp_code decode_dcmtk(hp_pixel_reader *r, const hp_slice *s, hp_error *reterr)
{
    DcmItem *ds = r->file->getDataset();
    Uint32 need = 0, fragment = 0;
    OFString model;
    OFCondition cond;

    if (r->pixels->getUncompressedFrameSize(ds, need).bad() ||
        need != static_cast<Uint32>(s->rows) * static_cast<Uint32>(s->columns) *
                    static_cast<Uint32>(s->bits_allocated / 8))
        return hp_fail(reterr, HP_E_MISMATCH, "frame size does not fit rows and columns");
    if (s->frame == r->next_frame)
        fragment = r->next_fragment;
    // The library asks for an even buffer.
    r->bytes.assign(need + (need & 1), 0);
    cond = r->pixels->getUncompressedFrame(
        ds, static_cast<Uint32>(s->frame), fragment, r->bytes.data(),
        static_cast<Uint32>(r->bytes.size()), model, &r->cache);
    if (cond.bad())
        return hp_fail(reterr, hp::code_of(cond), "Pixel Data does not decode");
    r->next_frame = s->frame + 1;
    r->next_fragment = fragment;
    if (s->bits_allocated == 16)
        std::memcpy(r->words.data(), r->bytes.data(), need);
    else
        for (size_t i = 0; i < need; i++)
            r->words[i] = r->bytes[i];
    return HP_OK;
}

// Frames of an object without an offset table can only be walked in order.
hp_code decode_walking(hp_pixel_reader *r, const hp_slice *s, hp_error *reterr)
{
    hp_error e = HP_ERROR_INIT;
    hp_code rc = decode_dcmtk(r, s, &e);
    hp_slice before = *s;

    if (rc == HP_OK || s->frames == 1 || s->frame == 0)
        return rc == HP_OK ? rc : hp_fail(reterr, rc, "%s", e.msg);
    for (int f = s->frame < r->next_frame ? 0 : r->next_frame; f <= s->frame; f++) {
        before.frame = f;
        if (f == 0)
            r->next_frame = 0, r->next_fragment = 0;
        rc = decode_dcmtk(r, &before, reterr);
        if (rc != HP_OK)
            return rc;
    }
    return HP_OK;
}

// One stored word to its number: PS3.5 8.1.1, the bits above the high bit and
// below it are not pixel.
struct unpack {
    int shift, bits;
    bool is_signed;

    int operator()(uint16_t word) const
    {
        int v = (word >> shift) & ((1 << bits) - 1);

        if (is_signed && (v & (1 << (bits - 1))) != 0)
            v -= 1 << bits;
        return v;
    }
};

int16_t to_hu(double v)
{
    v = std::floor(v + 0.5);
    if (!(v > HP_PAD_HU)) // less, equal, or not a number
        return HP_PAD_HU;
    return v > INT16_MAX ? INT16_MAX : static_cast<int16_t>(v);
}

// Padding is declared with the wrong sign often enough (unsigned 63536 for
// -2000) that the 16 bits decide. A "padding" that would be tissue is a mistake
// of the writer and is ignored: 0 in a signed image is water, not padding.
struct padding {
    int lo, hi;

    padding(const hp_slice *s, const unpack &value) : lo(1), hi(0)
    {
        int other;

        if (s->pixel_padding == INT32_MIN)
            return;
        lo = hi = value(static_cast<uint16_t>(s->pixel_padding));
        if (s->pixel_padding_limit != INT32_MIN) {
            other = value(static_cast<uint16_t>(s->pixel_padding_limit));
            if (other < lo)
                lo = other;
            if (other > hi)
                hi = other;
        }
        if (s->slope * hi + s->intercept > -900 && s->slope * lo + s->intercept < 3000) {
            lo = 1;
            hi = 0;
        }
    }
    bool operator()(int v) const { return v >= lo && v <= hi; }
};

// Every word has one HU value: a table is quicker than arithmetic per voxel.
void words_to_hu(const hp_slice *s, const uint16_t *words, size_t count, int16_t *ret_hu)
{
    unpack value = {s->high_bit + 1 - s->bits_stored, s->bits_stored,
                    s->pixel_representation == 1};
    padding pad(s, value);
    std::vector<int16_t> table(65536);

    for (int w = 0; w < 65536; w++) {
        int v = value(static_cast<uint16_t>(w));

        table[static_cast<size_t>(w)] =
            pad(v) ? static_cast<int16_t>(HP_PAD_HU) : to_hu(s->slope * v + s->intercept);
    }
    for (size_t i = 0; i < count; i++)
        ret_hu[i] = table[words[i]];
}

hp_code check_plane(const hp_slice *s, hp_error *reterr)
{
    if (s->rows < 1 || s->columns < 1 || s->rows > 8192 || s->columns > 8192)
        return hp_fail(reterr, HP_E_INVALID, "%d rows, %d columns", s->rows, s->columns);
    if (s->samples != 1 || (s->bits_allocated != 8 && s->bits_allocated != 16))
        return hp_fail(reterr, HP_E_UNSUPPORTED, "%d samples of %d bits a pixel",
                       s->samples, s->bits_allocated);
    if (s->bits_stored < 1 || s->high_bit >= s->bits_allocated ||
        s->high_bit + 1 < s->bits_stored)
        return hp_fail(reterr, HP_E_INVALID, "bits stored %d, high bit %d",
                       s->bits_stored, s->high_bit);
    if (!std::isfinite(s->slope) || !std::isfinite(s->intercept))
        return hp_fail(reterr, HP_E_INVALID, "no rescale to Hounsfield units");
    return HP_OK;
}

} // namespace

hp_code hp_pixel_reader_new(hp_pixel_reader **ret, hp_error *reterr)
{
    hp::silence_dcmtk();
    return hp::fenced(reterr, [&] {
        register_codecs();
        *ret = new hp_pixel_reader();
        return HP_OK;
    });
}

void hp_pixel_reader_free(hp_pixel_reader *r)
{
    hp::fenced(nullptr, [&] {
        delete r;
        return HP_OK;
    });
}

hp_code hp_pixel_reader_plane(hp_pixel_reader *r, const hp_slice *s, int16_t *ret_hu,
                              hp_error *reterr)
{
    return hp::fenced(reterr, [&] {
        size_t count;
        hp_code rc = check_plane(s, reterr);

        if (rc == HP_OK)
            rc = open_file(r, s, reterr);
        if (rc != HP_OK)
            return rc;
        count = static_cast<size_t>(s->rows) * static_cast<size_t>(s->columns);
        r->words.resize(count);
        rc = is_j2k(s) ? decode_j2k(r, s, reterr) : decode_walking(r, s, reterr);
        if (rc == HP_OK)
            words_to_hu(s, r->words.data(), count, ret_hu);
        return rc;
    });
}

hp_code hp_slice_pixels(const hp_slice *s, int16_t *ret_hu, hp_error *reterr)
{
    hp_auto(hp_pixel_reader) *r = nullptr;
    hp_code rc = hp_pixel_reader_new(&r, reterr);

    return rc == HP_OK ? hp_pixel_reader_plane(r, s, ret_hu, reterr) : rc;
}
