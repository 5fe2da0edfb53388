// Shared by sr_dcmtk.cc and sc_dcmtk.cc: the attributes that every result
// object has, and how it reaches the disk.
#ifndef HP_DICOM_REPORT_DCMTK_HH
#define HP_DICOM_REPORT_DCMTK_HH

#include "dicom/fence.hh"
#include "dicom/report_internal.h"

#include <dcmtk/dcmdata/dcfilefo.h>
#include <dcmtk/dcmdata/dcitem.h>

namespace hp
{

// Puts one value; the tag's VR is the dictionary's. Throws Failed.
void put(DcmItem &item, const DcmTagKey &tag, const char *value);
void put_u16(DcmItem &item, const DcmTagKey &tag, Uint16 value);

// A step that DCMTK refused: our own mistake, or no memory.
struct Failed {
    OFCondition cond;
};
inline void check(const OFCondition &cond)
{
    if (cond.bad())
        throw Failed{cond};
}

// The body of an extern "C" function that writes an object; Failed becomes an
// hp_code that names `what`.
template <class Body>
hp_code building(const char *what, hp_error *reterr, Body &&body) noexcept
{
    return fenced(reterr, [&]() -> hp_code {
        try {
            return body();
        } catch (const Failed &f) {
            return hp_fail(reterr,
                           code_of(f.cond) == HP_E_NO_MEMORY ? HP_E_NO_MEMORY
                                                             : HP_E_INTERNAL,
                           "%s: %s", what, f.cond.text());
        }
    });
}

// Sets SOP, series, equipment and time attributes of a result object, copies
// patient and study attributes from the source byte for byte, and replaces
// whatever was there.
hp_code dress(const hp_report *r, hp_result_kind kind, int index, const char *modality,
              DcmItem &dataset, hp_error *reterr);

// One Part 10 file, Explicit VR Little Endian; synced, then renamed into place.
hp_code write_file(DcmFileFormat &file, const char *path, hp_error *reterr);

} // namespace hp

#endif
