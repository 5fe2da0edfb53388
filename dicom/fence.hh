// The fence between DCMTK and C: shared by the room's *_dcmtk.cc files.
//
// An exception that crosses a C frame skips its cleanup silently, so each
// extern "C" body runs inside fenced(), which turns whatever is thrown into an
// hp_code. Also here: the one translator OFCondition -> hp_code.
#ifndef HP_DICOM_FENCE_HH
#define HP_DICOM_FENCE_HH

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dcerror.h>
#include <dcmtk/ofstd/ofcond.h>

#include <exception>
#include <new>

#include "base/error.h"

namespace hp
{

// DCMTK logs to stderr what it dislikes in a file, values included: patient
// names must not get there. Silences it, once per process; every entry point
// of a *_dcmtk.cc file that may be the first calls it.
void silence_dcmtk() noexcept;

inline hp_code code_of(const OFCondition &cond) noexcept
{
    if (cond.good())
        return HP_OK;
    if (cond == EC_MemoryExhausted)
        return HP_E_NO_MEMORY;
    if (cond == EC_InvalidFilename)
        return HP_E_IO;
    if (cond == EC_EndOfStream || cond == EC_InvalidStream)
        return HP_E_TRUNCATED;
    if (cond == EC_UnsupportedEncoding || cond == EC_CannotChangeRepresentation)
        return HP_E_UNSUPPORTED;
    return HP_E_CORRUPT;
}

// Runs body() -> hp_code; nothing thrown gets past.
template <class Body> hp_code fenced(hp_error *reterr, Body &&body) noexcept
{
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return hp_fail(reterr, HP_E_NO_MEMORY, "DICOM library");
    } catch (const std::exception &) {
        // what() may quote a value of the file
        return hp_fail(reterr, HP_E_INTERNAL, "DICOM library threw an exception");
    } catch (...) {
        return hp_fail(reterr, HP_E_INTERNAL, "DICOM library threw");
    }
}

} // namespace hp

#endif
