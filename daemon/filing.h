/* Filing a slice that is whole on disk: is it new, what does the ledger say of
 * it, where does its file go. The ledger thread files what arrives, recovery
 * files what a power cut left without a row. */
#ifndef HP_DAEMON_FILING_H
#define HP_DAEMON_FILING_H

#include "config/config.h"
#include "db/db.h"
#include "dicom/spool.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hp_filing {
    hp_stored stored;           /* its path changes when it goes to quarantine/ */
    hp_disposition disposition; /* out */
    hp_code code;               /* out; not HP_OK: no row, and the file is yours still */
    hp_error error;             /* out */
} hp_filing;

/* Files all of them in one commit; blocking. No two of a group may have the same
 * SOP Instance UID. True: there is a new CT image among them. */
bool hp_filing_group(hp_db *db, const hp_config *config, hp_filing *const *group,
                     int count);

#ifdef __cplusplus
}
#endif
#endif
