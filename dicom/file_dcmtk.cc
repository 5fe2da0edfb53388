// Headers of image planes, by DCMTK (pixels: pixels_dcmtk.cc).
//
// A plane's attributes live at different depths: a CT object has them at the
// top, an Enhanced CT object in functional groups, shared or per frame. Both are
// read by the same getters over a list of places to look, nearest first.
// Reading stops before Pixel Data, so a study of a thousand slices costs a
// thousand small reads.
#include "dicom/file.h"

#include "base/number.h"
#include "dicom/datetime.h"
#include "dicom/fence.hh"
#include "dicom/precheck.h"
#include "dicom/scan.h"

#include <dcmtk/dcmdata/dctk.h>
#include <dcmtk/oflog/oflog.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <mutex>

namespace hp
{

void silence_dcmtk() noexcept
{
    static std::once_flag once;

    try {
        std::call_once(once, [] { OFLog::configure(OFLogger::OFF_LOG_LEVEL); });
    } catch (...) {
        // a noisy library is no reason to stop
    }
}

} // namespace hp

namespace
{

// Where to look for an attribute, nearest place first.
struct places {
    DcmItem *item[24];
    int count = 0;

    void add(DcmItem *one)
    {
        if (one != nullptr && count < 24)
            item[count++] = one;
    }
    // The first item of a sequence inside `group`, where there is one.
    void add_macro(DcmItem *group, const DcmTagKey &sequence)
    {
        DcmItem *one = nullptr;

        if (group != nullptr && group->findAndGetSequenceItem(sequence, one, 0).good())
            add(one);
    }
    DcmElement *find(const DcmTagKey &tag) const
    {
        for (int i = 0; i < count; i++) {
            DcmElement *e = nullptr;

            if (item[i]->findAndGetElement(tag, e).good() && e != nullptr)
                return e;
        }
        return nullptr;
    }
};

void copy_trimmed(const OFString &from, char *ret, size_t size)
{
    size_t begin = 0, end = from.length();

    while (begin < end && (from[begin] == ' ' || from[begin] == 0))
        begin++;
    while (end > begin && (from[end - 1] == ' ' || from[end - 1] == 0))
        end--;
    if (end - begin >= size)
        end = begin + size - 1;
    std::memcpy(ret, from.data() + begin, end - begin);
    ret[end - begin] = 0;
}

void get_text(const places &at, const DcmTagKey &tag, char *ret, size_t size)
{
    DcmElement *e = at.find(tag);
    OFString value;

    ret[0] = 0;
    if (e != nullptr && e->isLeaf() && e->getOFStringArray(value).good())
        copy_trimmed(value, ret, size);
}

template <size_t N> void get_text(const places &at, const DcmTagKey &tag, char (&ret)[N])
{
    get_text(at, tag, ret, N);
}

// The number of values read; the rest keep what they had.
int get_doubles(const places &at, const DcmTagKey &tag, double *ret, int max)
{
    char text[256];
    double v[8];
    int n;

    get_text(at, tag, text);
    n = text[0] == 0 ? 0 : hp_parse_doubles(text, v, max < 8 ? max : 8);
    for (int i = 0; i < n; i++)
        ret[i] = v[i];
    return n > 0 ? n : 0;
}

void get_all_doubles(const places &at, const DcmTagKey &tag, double *ret, int count)
{
    double v[8];

    if (get_doubles(at, tag, v, count) == count)
        std::memcpy(ret, v, sizeof *ret * static_cast<size_t>(count));
}

int get_int(const places &at, const DcmTagKey &tag)
{
    char text[64];
    int64_t v;
    double d;

    get_text(at, tag, text);
    if (hp_parse_i64(text, &v) && v >= 0 && v <= INT32_MAX)
        return static_cast<int>(v);
    // an IS written as "12.0" is wrong and seen
    if (hp_parse_double(text, &d) && d >= 0 && d <= 1e9)
        return static_cast<int>(d);
    return -1;
}

// Pixel padding is US or SS as Pixel Representation says, and the two are mixed
// up in the wild: only the 16 bits matter, pixels_dcmtk.cc compares them so.
int get_padding(const places &at, const DcmTagKey &tag)
{
    DcmElement *e = at.find(tag);
    Uint16 u;
    Sint16 s;

    if (e != nullptr && e->getUint16(u).good())
        return u;
    if (e != nullptr && e->getSint16(s).good())
        return s;
    return INT32_MIN;
}

bool get_uid(const places &at, const DcmTagKey &tag, hp_uid *ret)
{
    get_text(at, tag, ret->text);
    if (hp_uid_valid(ret->text))
        return true;
    ret->text[0] = 0;
    return false;
}

double get_time(const places &at, const DcmTagKey &date, const DcmTagKey &time)
{
    char da[32], tm[32];

    get_text(at, date, da);
    get_text(at, time, tm);
    return hp_da_tm_seconds(da, tm);
}

// The first that exists: the frame's, (0008,002A), else (0008,0022)+(0008,0032), else
// content time.
void get_acquired(const places &at, hp_slice *s)
{
    char dt[64];

    get_text(at, DCM_FrameAcquisitionDateTime, dt);
    s->acquired_s = hp_dt_seconds(dt);
    if (std::isnan(s->acquired_s)) {
        get_text(at, DCM_AcquisitionDateTime, dt);
        s->acquired_s = hp_dt_seconds(dt);
    }
    if (std::isnan(s->acquired_s))
        s->acquired_s = get_time(at, DCM_AcquisitionDate, DCM_AcquisitionTime);
    if (std::isnan(s->acquired_s)) // some write the time and leave the date out
        s->acquired_s = get_time(at, DCM_SeriesDate, DCM_AcquisitionTime);
    if (std::isnan(s->acquired_s)) {
        s->acquired_s = get_time(at, DCM_ContentDate, DCM_ContentTime);
        s->acquired_is_content_time = !std::isnan(s->acquired_s);
    }
}

// A time of day; the day is the acquisition's, and midnight may lie between.
void get_contrast_start(const places &at, hp_slice *s)
{
    char tm[32];
    double clock, day;

    get_text(at, DCM_ContrastBolusStartTime, tm);
    clock = hp_da_tm_seconds("19700101", tm);
    if (std::isnan(clock) || std::isnan(s->acquired_s))
        return;
    day = std::floor(s->acquired_s / 86400) * 86400;
    s->contrast_start_s = day + clock;
    if (s->contrast_start_s > s->acquired_s + 43200)
        s->contrast_start_s -= 86400;
}

bool is_lossy(const places &at, const hp_slice *s)
{
    static const char *const lossy_syntax[] = {
        "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81",
        "1.2.840.10008.1.2.4.91"};
    char flag[17];

    for (const char *uid : lossy_syntax)
        if (std::strcmp(s->transfer_syntax.text, uid) == 0)
            return true;
    get_text(at, DCM_LossyImageCompression, flag);
    return std::strcmp(flag, "01") == 0;
}

void get_patient(const places &at, hp_slice *s)
{
    char id[256];

    get_text(at, DCM_PatientID, id);
    hp_scan_patient_digest(id, std::strlen(id), s->patient_digest);
}

// What holds for the whole object.
void get_object(const places &at, hp_slice *s)
{
    get_uid(at, DCM_SOPClassUID, &s->sop_class);
    get_uid(at, DCM_SOPInstanceUID, &s->sop_instance);
    get_uid(at, DCM_StudyInstanceUID, &s->study);
    get_uid(at, DCM_SeriesInstanceUID, &s->series);
    get_uid(at, DCM_FrameOfReferenceUID, &s->frame_of_reference);
    get_text(at, DCM_Modality, s->modality);
    get_text(at, DCM_SeriesDescription, s->series_description);
    get_text(at, DCM_Manufacturer, s->manufacturer);
    s->series_number = get_int(at, DCM_SeriesNumber);
    s->instance_number = get_int(at, DCM_InstanceNumber);
    get_patient(at, s);
}

// What describes the pixels and the plane.
void get_plane(const places &at, hp_slice *s)
{
    DcmElement *agent = at.find(DCM_ContrastBolusAgent);
    DcmElement *agents = at.find(DCM_ContrastBolusAgentSequence);

    get_text(at, DCM_FrameType, s->image_type);
    if (s->image_type[0] == 0)
        get_text(at, DCM_ImageType, s->image_type);
    get_text(at, DCM_ImageComments, s->image_comments);
    get_text(at, DCM_ConvolutionKernel, s->kernel);
    get_text(at, DCM_RescaleType, s->rescale_type);
    get_text(at, DCM_PhotometricInterpretation, s->photometric);
    get_text(at, DCM_ContrastBolusAgentPhase, s->contrast_phase);
    get_text(at, DCM_ContrastBolusAgent, s->contrast_agent);
    s->has_contrast_tag = agent != nullptr || agents != nullptr;
    s->has_contrast_agent = s->contrast_agent[0] != 0 ||
                            (agents != nullptr && agents->ident() == EVR_SQ &&
                             static_cast<DcmSequenceOfItems *>(agents)->card() > 0);

    s->acquisition_number = get_int(at, DCM_FrameAcquisitionNumber);
    if (s->acquisition_number < 0)
        s->acquisition_number = get_int(at, DCM_AcquisitionNumber);
    s->rows = get_int(at, DCM_Rows);
    s->columns = get_int(at, DCM_Columns);
    s->bits_allocated = get_int(at, DCM_BitsAllocated);
    s->bits_stored = get_int(at, DCM_BitsStored);
    s->high_bit = get_int(at, DCM_HighBit);
    s->pixel_representation = get_int(at, DCM_PixelRepresentation);
    s->samples = get_int(at, DCM_SamplesPerPixel);
    s->pixel_padding = get_padding(at, DCM_PixelPaddingValue);
    s->pixel_padding_limit = get_padding(at, DCM_PixelPaddingRangeLimit);

    get_all_doubles(at, DCM_ImagePositionPatient, s->position_mm, 3);
    get_all_doubles(at, DCM_ImageOrientationPatient, s->orientation, 6);
    get_all_doubles(at, DCM_PixelSpacing, s->spacing_mm, 2);
    get_all_doubles(at, DCM_SliceThickness, &s->thickness_mm, 1);
    get_all_doubles(at, DCM_GantryDetectorTilt, &s->gantry_tilt_deg, 1);
    get_all_doubles(at, DCM_RescaleSlope, &s->slope, 1);
    get_all_doubles(at, DCM_RescaleIntercept, &s->intercept, 1);
    get_acquired(at, s);
    get_contrast_start(at, s);
    s->lossy = is_lossy(at, s);
}

// PS3.3 C.7.6.16.2 and C.8.15.3: the macros that say what get_plane() asks for.
void add_groups(places *at, DcmItem *group)
{
    static const DcmTagKey macro[] = {DCM_FrameContentSequence,
                                      DCM_PlanePositionSequence,
                                      DCM_PlaneOrientationSequence,
                                      DCM_PixelMeasuresSequence,
                                      DCM_PixelValueTransformationSequence,
                                      DCM_CTImageFrameTypeSequence,
                                      DCM_CTReconstructionSequence,
                                      DCM_CTAcquisitionDetailsSequence,
                                      DCM_ContrastBolusUsageSequence};

    for (const DcmTagKey &tag : macro)
        at->add_macro(group, tag);
}

hp_code read_frames(DcmDataset *ds, const hp_slice *object, int frames,
                    hp_slice_list *list, hp_error *reterr)
{
    size_t before = list->count;
    DcmItem *shared = nullptr;

    if (frames < 1)
        return hp_fail(reterr, HP_E_INVALID, "a multi-frame object without frames");
    if (frames > HP_MAX_PLANES)
        return hp_fail(reterr, HP_E_LIMIT, "%d frames in one object", frames);
    ds->findAndGetSequenceItem(DCM_SharedFunctionalGroupsSequence, shared, 0);
    for (int f = 0; f < frames; f++) {
        DcmItem *own = nullptr;
        hp_slice *s = hp_slice_list_add(list);
        places at;

        if (s == nullptr) {
            list->count = before;
            return hp_fail(reterr, HP_E_NO_MEMORY, "frame %d", f + 1);
        }
        ds->findAndGetSequenceItem(DCM_PerFrameFunctionalGroupsSequence, own, f);
        add_groups(&at, own);
        add_groups(&at, shared);
        at.add(ds);
        *s = *object;
        get_plane(at, s);
        s->frame = f;
        s->frames = frames;
    }
    return HP_OK;
}

hp_code read_file(const char *path, bool has_pixels, hp_slice_list *list,
                  hp_error *reterr)
{
    DcmFileFormat file;
    OFCondition cond;
    hp_slice object;
    hp_slice_list one = HP_SLICE_LIST_INIT;
    places at;
    bool enhanced;

    if (list->count >= HP_MAX_PLANES)
        return hp_fail(reterr, HP_E_LIMIT, "more than %d image planes", HP_MAX_PLANES);
    cond = file.loadFileUntilTag(path, EXS_Unknown, EGL_noChange, DCM_MaxReadLength,
                                 ERM_autoDetect, DCM_PixelData);
    if (cond.bad())
        return hp_fail(reterr, hp::code_of(cond), "the file does not read as DICOM");

    if (hp_slice_list_add(&one) == nullptr)
        return hp_fail(reterr, HP_E_NO_MEMORY, "slice");
    object = one.item[0]; // every number absent
    hp_slice_list_done(&one);

    at.add(file.getDataset());
    std::strncpy(object.path, path, sizeof object.path - 1);
    get_object(at, &object);
    if (object.sop_instance.text[0] == 0 || object.study.text[0] == 0)
        return hp_fail(reterr, HP_E_INVALID,
                       "no valid SOP Instance or Study Instance UID");
    std::strncpy(object.transfer_syntax.text,
                 DcmXfer(file.getDataset()->getOriginalXfer()).getXferID(),
                 HP_UID_SIZE - 1);

    enhanced = std::strcmp(object.sop_class.text, HP_SOP_CT_ENHANCED) == 0 ||
               std::strcmp(object.sop_class.text, HP_SOP_CT_LEGACY_ENHANCED) == 0;
    if (!has_pixels && (enhanced || std::strcmp(object.sop_class.text, HP_SOP_CT) == 0))
        return hp_fail(reterr, HP_E_TRUNCATED, "a CT object without Pixel Data");
    if (enhanced)
        return read_frames(file.getDataset(), &object, get_int(at, DCM_NumberOfFrames),
                           list, reterr);

    hp_slice *s = hp_slice_list_add(list);
    if (s == nullptr)
        return hp_fail(reterr, HP_E_NO_MEMORY, "slice");
    *s = object;
    s->frames = 1;
    if (std::strcmp(object.sop_class.text, HP_SOP_CT) != 0) {
        s->rows = s->columns = 0;
        return hp_fail(reterr, HP_E_UNSUPPORTED, "no CT image");
    }
    get_plane(at, s);
    return HP_OK;
}

} // namespace

hp_code hp_slice_read(const char *path, hp_slice_list *list, hp_error *reterr)
{
    size_t before = list->count;
    bool has_pixels = false;
    hp_code r;

    hp::silence_dcmtk();
    if (std::strlen(path) >= HP_PATH_MAX)
        return hp_fail(reterr, HP_E_LIMIT, "path too long");
    r = hp_precheck(path, &has_pixels, reterr);
    if (r != HP_OK)
        return r;
    r = hp::fenced(reterr, [&] { return read_file(path, has_pixels, list, reterr); });
    if (r != HP_OK && r != HP_E_UNSUPPORTED)
        list->count = before;
    return r;
}
