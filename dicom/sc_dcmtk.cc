// A drawn picture as Secondary Capture, on DCMTK.
//
// No frame of reference and no plane attributes: the picture is resampled, so
// viewers must neither measure in it nor draw lines across it.
#include "dicom/report_dcmtk.hh"

#include <dcmtk/dcmdata/dcdeftag.h>
#include <dcmtk/dcmdata/dcsequen.h>

#include <cstring>
#include <string>

namespace
{

using hp::check;
using hp::put;
using hp::put_u16;

void add_source(DcmItem &dataset, const hp_slice &s)
{
    DcmItem *item = nullptr, *purpose = nullptr;

    check(dataset.findOrCreateSequenceItem(DCM_SourceImageSequence, item, -2));
    put(*item, DCM_ReferencedSOPClassUID, s.sop_class.text);
    put(*item, DCM_ReferencedSOPInstanceUID, s.sop_instance.text);
    if (std::strcmp(s.sop_class.text, "1.2.840.10008.5.1.4.1.1.2") != 0)
        put(*item, DCM_ReferencedFrameNumber, std::to_string(s.frame + 1).c_str());
    check(
        item->findOrCreateSequenceItem(DCM_PurposeOfReferenceCodeSequence, purpose, -2));
    put(*purpose, DCM_CodeValue, "121322");
    put(*purpose, DCM_CodingSchemeDesignator, "DCM");
    put(*purpose, DCM_CodeMeaning, "Source of Image Processing Operation");
}

void put_pixels(DcmItem &dataset, const uint8_t *rgb, int width, int height)
{
    put_u16(dataset, DCM_SamplesPerPixel, 3);
    put(dataset, DCM_PhotometricInterpretation, "RGB");
    put_u16(dataset, DCM_PlanarConfiguration, 0);
    put_u16(dataset, DCM_Rows, static_cast<Uint16>(height));
    put_u16(dataset, DCM_Columns, static_cast<Uint16>(width));
    put_u16(dataset, DCM_BitsAllocated, 8);
    put_u16(dataset, DCM_BitsStored, 8);
    put_u16(dataset, DCM_HighBit, 7);
    put_u16(dataset, DCM_PixelRepresentation, 0);
    check(dataset.putAndInsertUint8Array(DCM_PixelData, rgb,
                                         static_cast<unsigned long>(width) * 3 *
                                             static_cast<unsigned long>(height)));
}

} // namespace

hp_code hp_report__write_sc(const hp_report *r, hp_result_kind kind, int index,
                            const uint8_t *rgb, int width, int height,
                            const hp_slice *const *sources, int source_count,
                            const char *derivation, const char *path,
                            hp_uid *ret_sop_instance, hp_error *reterr)
{
    hp::silence_dcmtk();
    return hp::building("secondary capture", reterr, [&]() -> hp_code {
        DcmFileFormat file;
        DcmItem &d = *file.getDataset();
        const char *modality =
            r->sc_modality != nullptr && std::strcmp(r->sc_modality, "CT") == 0 ? "CT"
                                                                                : "OT";
        char da[17], tm[17];
        const char *value = nullptr;
        hp_code c = hp::dress(r, kind, index, modality, d, reterr);

        if (c != HP_OK)
            return c;
        check(d.findAndGetString(DCM_ContentDate, value));
        std::snprintf(da, sizeof da, "%s", value);
        check(d.findAndGetString(DCM_ContentTime, value));
        std::snprintf(tm, sizeof tm, "%s", value);
        put(d, DCM_ConversionType, "WSD");
        put(d, DCM_ImageType, "DERIVED\\SECONDARY");
        put(d, DCM_BodyPartExamined,
            "LIVER"); // or viewers and validators ask for Laterality
        put(d, DCM_PatientOrientation, "");
        put(d, DCM_BurnedInAnnotation, "YES");
        put(d, DCM_RecognizableVisualFeatures, "NO");
        put(d, DCM_LossyImageCompression, "00");
        put(d, DCM_SecondaryCaptureDeviceManufacturer, "hepar project");
        put(d, DCM_SecondaryCaptureDeviceManufacturerModelName, "hepar");
        put(d, DCM_DateOfSecondaryCapture, da);
        put(d, DCM_TimeOfSecondaryCapture, tm);
        put(d, DCM_DerivationDescription, derivation);
        for (int i = 0; i < source_count; i++)
            add_source(d, *sources[i]);
        put_pixels(d, rgb, width, height);
        c = hp::write_file(file, path, reterr);
        if (c == HP_OK)
            *ret_sop_instance = hp_report__instance_uid(r, kind, index);
        return c;
    });
}
