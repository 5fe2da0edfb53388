/* Paths and whole files. Paths are built from names of our own making only,
 * never from a received string. */
#ifndef HP_BASE_PATH_H
#define HP_BASE_PATH_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HP_PATH_MAX 1024

/* printf into ret[HP_PATH_MAX]; HP_E_LIMIT when it does not fit. */
hp_code hp_path_fmt(char *ret, hp_error *reterr, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
hp_code hp_path_mkdirs(const char *path, mode_t mode, hp_error *reterr);
bool hp_path_exists(const char *path);
/* Removes a file or a whole folder; a missing one is success. */
hp_code hp_path_remove(const char *path, hp_error *reterr);
hp_code hp_path_sync_dir(const char *path, hp_error *reterr);
hp_code hp_file_read(const char *path, size_t max_bytes, hp_buf *ret, hp_error *reterr);
/* Temp name beside it, fdatasync, rename, directory sync. */
hp_code hp_file_write(const char *path, const void *data, size_t len, mode_t mode,
                      hp_error *reterr);

#ifdef __cplusplus
}
#endif
#endif
