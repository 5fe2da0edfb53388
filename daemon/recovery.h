/* Making the state folder and the ledger agree again, before anything listens:
 * lock, migrate, check; whole spool files without a row are filed, others
 * removed; rows without a file become an event and a failed job; running becomes
 * ready. Blocking; called once at start. */
#ifndef HP_DAEMON_RECOVERY_H
#define HP_DAEMON_RECOVERY_H

#include "config/config.h"
#include "db/db.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Makes the folders with their modes and takes the lock, which is held until
 * the process ends. HP_E_BUSY: another daemon has it. */
hp_code hp_recovery_lock(const hp_config *config, int *ret_fd, hp_error *reterr);

typedef struct hp_recovery_counts {
    size_t filed;      /* slices that had lost their row, or never had one */
    size_t parts;      /* spool files that were never whole, removed */
    size_t unreadable; /* spool files that are whole and in quarantine/ now */
    size_t litter;     /* runs without a row, removed */
    size_t lost;       /* rows without a file */
    int jobs, deliveries, retired;
} hp_recovery_counts;

hp_code hp_recovery_run(const hp_config *config, hp_db *db, hp_recovery_counts *ret,
                        hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
