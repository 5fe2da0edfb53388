// What every result object has in common, on DCMTK.
//
// Values of the source are moved as bytes, never through a character set
// conversion: DCMTK's conversion as Debian ships it fails on ISO 2022 IR 87,
// and a patient's name is not ours to rewrite. Our own text is ASCII, which is
// right under every Specific Character Set the source may carry.
#include "dicom/report_dcmtk.hh"

#include <dcmtk/dcmdata/dcdeftag.h>
#include <dcmtk/dcmdata/dcobject.h>
#include <dcmtk/dcmdata/dcostrmb.h>
#include <dcmtk/dcmdata/dcsequen.h>
#include <dcmtk/dcmdata/dcvrobow.h>

#include <cstdio>
#include <cstring>
#include <ctime>
#include <vector>

#include "base/number.h"

namespace hp
{

void put(DcmItem &item, const DcmTagKey &tag, const char *value)
{
    check(item.putAndInsertString(DcmTag(tag), value));
}

void put_u16(DcmItem &item, const DcmTagKey &tag, Uint16 value)
{
    check(item.putAndInsertUint16(DcmTag(tag), value));
}

namespace
{

struct Copied {
    DcmTagKey tag;
    bool type2; // present and empty when the source has none
};

// front door's list; group 0012 (clinical trial, de-identification) follows
// separately, without its two series attributes.
const Copied copied[] = {
    {DCM_SpecificCharacterSet, false},
    {DCM_StudyDate, true},
    {DCM_StudyTime, true},
    {DCM_AccessionNumber, true},
    {DCM_IssuerOfAccessionNumberSequence, false},
    {DCM_ReferringPhysicianName, true},
    {DCM_TimezoneOffsetFromUTC, false},
    {DCM_StudyDescription, false},
    {DCM_PatientName, true},
    {DCM_PatientID, true},
    {DCM_IssuerOfPatientID, false},
    {DCM_IssuerOfPatientIDQualifiersSequence, false},
    {DCM_PatientBirthDate, true},
    {DCM_PatientSex, true},
    {DCM_RETIRED_OtherPatientIDs, false},
    {DCM_OtherPatientIDsSequence, false},
    {DCM_PatientAge, false},
    {DCM_PatientSize, false},
    {DCM_PatientWeight, false},
    {DCM_StudyInstanceUID, false},
    {DCM_StudyID, true},
};
const Uint16 clinical_trial_group = 0x0012;
const DcmTagKey clinical_trial_series_id(0x0012, 0x0071);
const DcmTagKey clinical_trial_series_description(0x0012, 0x0072);

// A value that is only bytes: DCMTK's string classes trim and pad what they
// write, this one does not.
class Bytes : public DcmOtherByteOtherWord
{
  public:
    Bytes(const DcmTag &tag, const std::vector<Uint8> &value) : DcmOtherByteOtherWord(tag)
    {
        check(putValue(value.data(), static_cast<Uint32>(value.size())));
    }
    DcmObject *clone() const override { return new Bytes(*this); }
};

// Values are corrected as they are read, too, unless told not to.
class AsFound
{
    const OFBool before;

  public:
    AsFound() : before(dcmEnableAutomaticInputDataCorrection.get())
    {
        dcmEnableAutomaticInputDataCorrection.set(OFFalse);
    }
    ~AsFound() { dcmEnableAutomaticInputDataCorrection.set(before); }
    AsFound(const AsFound &) = delete;
    AsFound &operator=(const AsFound &) = delete;
};

std::vector<Uint8> bytes_of(DcmElement &e)
{
    std::vector<Uint8> value(e.getLengthField());

    if (!value.empty())
        check(e.getPartialValue(value.data(), 0, static_cast<Uint32>(value.size()),
                                nullptr, EBO_LittleEndian));
    return value;
}

// Sequences are cloned item by item; everything else is moved as bytes.
DcmElement *own_copy(DcmElement &found)
{
    if (!found.isLeaf())
        return OFstatic_cast(DcmElement *, found.clone());
    return new Bytes(found.getTag(), bytes_of(found));
}

void copy_element(DcmItem &source, DcmItem &target, const DcmTagKey &tag, bool type2)
{
    DcmElement *found = nullptr;

    target.findAndDeleteElement(tag);
    if (source.findAndGetElement(tag, found).good() && found != nullptr) {
        DcmElement *own = own_copy(*found);

        OFCondition cond = target.insert(own, OFTrue);
        if (cond.bad()) {
            delete own;
            throw Failed{cond};
        }
    } else if (type2) {
        check(target.insertEmptyElement(DcmTag(tag)));
    }
}

hp_code copy_source(const char *path, DcmItem &target, hp_error *reterr)
{
    AsFound guard;
    DcmFileFormat file;
    OFCondition cond =
        file.loadFileUntilTag(path, EXS_Unknown, EGL_noChange, DCM_MaxReadLength,
                              ERM_autoDetect, DCM_PixelData);

    if (cond.bad())
        return hp_fail(reterr, code_of(cond), "reading the source of a report");
    DcmDataset &source = *file.getDataset();
    for (const Copied &c : copied)
        copy_element(source, target, c.tag, c.type2);
    for (unsigned long i = 0; i < source.card(); i++) {
        const DcmTagKey tag = source.getElement(i)->getTag();

        if (tag.getGroup() == clinical_trial_group && tag.getElement() != 0 &&
            tag != clinical_trial_series_id && tag != clinical_trial_series_description)
            copy_element(source, target, tag, false);
    }
    return HP_OK;
}

// Timezone Offset From UTC: "+0130" -> 5400; false when there is none.
bool offset_seconds(DcmItem &dataset, std::time_t *ret)
{
    DcmElement *e = nullptr;

    if (dataset.findAndGetElement(DCM_TimezoneOffsetFromUTC, e).bad() || e == nullptr)
        return false;
    const std::vector<Uint8> text = bytes_of(*e);
    if (text.size() < 5 || (text[0] != '+' && text[0] != '-'))
        return false;
    for (size_t i = 1; i <= 4; i++)
        if (text[i] < '0' || text[i] > '9')
            return false;
    const int hours = (text[1] - '0') * 10 + text[2] - '0';
    const int minutes = (text[3] - '0') * 10 + text[4] - '0';
    *ret = (text[0] == '-' ? -60 : 60) * (hours * 60 + minutes);
    return true;
}

// Our times read like the source's: with its Timezone Offset From UTC where it
// has one (the attribute speaks for every time in the object), else the node's
// local time, as other devices write it.
void local_time(DcmItem &dataset, int64_t wall_ms, char da[9], char tm[14])
{
    std::time_t s = static_cast<std::time_t>(wall_ms / 1000);
    struct tm t;
    std::time_t shift = 0;

    std::memset(&t, 0, sizeof t);
    if (offset_seconds(dataset, &shift)) {
        s += shift;
        gmtime_r(&s, &t);
    } else {
        localtime_r(&s, &t);
    }
    std::strftime(da, 9, "%Y%m%d", &t);
    std::strftime(tm, 14, "%H%M%S", &t);
    std::snprintf(tm + 6, 8, ".%03d", static_cast<int>((wall_ms % 1000 + 1000) % 1000));
}

void put_text(DcmItem &item, const DcmTagKey &tag, const char *text, size_t max)
{
    char clean[65];

    put(item, tag,
        hp_report__ascii(text, clean, max + 1 < sizeof clean ? max + 1 : sizeof clean));
}

} // namespace

hp_code dress(const hp_report *r, hp_result_kind kind, int index, const char *modality,
              DcmItem &dataset, hp_error *reterr)
{
    char da[9], tm[14], number[16], description[65];
    hp_code c = copy_source(r->source_path, dataset, reterr);

    if (c != HP_OK)
        return c;
    local_time(dataset, r->identity->created_ms, da, tm);
    put(dataset, DCM_StudyInstanceUID, r->identity->study_uid.text);
    put(dataset, DCM_SOPClassUID, hp_result_kind_sop_class(kind));
    put(dataset, DCM_SOPInstanceUID, hp_report__instance_uid(r, kind, index).text);
    put(dataset, DCM_SeriesInstanceUID, hp_report__series_uid(r, kind).text);
    put(dataset, DCM_InstanceCreationDate, da);
    put(dataset, DCM_InstanceCreationTime, tm);
    put(dataset, DCM_SeriesDate, da);
    put(dataset, DCM_SeriesTime, tm);
    put(dataset, DCM_ContentDate, da);
    put(dataset, DCM_ContentTime, tm);
    put(dataset, DCM_Modality, modality);
    hp_report__series_description(r, kind, description);
    put(dataset, DCM_SeriesDescription, description);
    std::snprintf(number, sizeof number, "%d", hp_report__series_number(kind));
    put(dataset, DCM_SeriesNumber, number);
    std::snprintf(number, sizeof number, "%d", index + 1);
    put(dataset, DCM_InstanceNumber, number);
    put(dataset, DCM_Manufacturer, "hepar project");
    put(dataset, DCM_ManufacturerModelName, "hepar");
    put_text(dataset, DCM_StationName, r->node_name, 16);
    put_text(dataset, DCM_DeviceSerialNumber, r->identity->installation_id, 64);
    put_text(dataset, DCM_SoftwareVersions, r->software_version, 64);
    return HP_OK;
}

hp_code write_file(DcmFileFormat &file, const char *path, hp_error *reterr)
{
    const E_TransferSyntax syntax = EXS_LittleEndianExplicit;

    check(file.getDataset()->chooseRepresentation(syntax, nullptr));
    check(file.validateMetaInfo(syntax));
    const Uint32 size = file.calcElementLength(syntax, EET_ExplicitLength);
    // 4096: preamble, and headers that DCMTK adds while writing.
    std::vector<Uint8> bytes(static_cast<size_t>(size) + 4096);
    DcmOutputBufferStream out(bytes.data(), static_cast<offile_off_t>(bytes.size()));

    file.transferInit();
    OFCondition cond = file.write(out, syntax, EET_ExplicitLength, nullptr, EGL_recalcGL);
    file.transferEnd();
    check(cond);

    void *begin = nullptr;
    offile_off_t length = 0;
    out.flushBuffer(begin, length);
    return hp_file_write(path, begin, static_cast<size_t>(length), 0600, reterr);
}

} // namespace hp
