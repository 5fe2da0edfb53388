// DCMTK behind file.h.
#include "dicom/file.h"

#include "dicom/fence.hh"

#include <dcmtk/oflog/oflog.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <mutex>

namespace hp {

void silence_dcmtk() noexcept
{
    static std::once_flag once;

    try {
        std::call_once(once, [] {
            OFLog::configure(OFLogger::OFF_LOG_LEVEL);
        });
    } catch (...) {
        // a noisy library is no reason to stop
    }
}

} // namespace hp

void hp_slice_list_done(hp_slice_list *l)
{
    std::free(l->item);
    l->item = nullptr;
    l->count = l->cap = 0;
}
