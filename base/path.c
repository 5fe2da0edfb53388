/* Paths and whole files, with the syncs that make a file survive a power cut. */
#include "base/path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

hp_code hp_path_fmt(char *ret, hp_error *reterr, const char *fmt, ...)
{
    char made[HP_PATH_MAX];
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(made, sizeof made, fmt, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof made)
        return hp_fail(reterr, HP_E_LIMIT, "path longer than %d bytes", HP_PATH_MAX - 1);
    memcpy(ret, made, (size_t)n + 1);
    return HP_OK;
}

hp_code hp_path_mkdirs(const char *path, mode_t mode, hp_error *reterr)
{
    char part[HP_PATH_MAX];
    struct stat st;
    hp_code r = hp_path_fmt(part, reterr, "%s", path);

    if (r != HP_OK)
        return r;
    for (char *p = part + 1; part[0] != 0; p++) {
        char here = *p;

        if (here != '/' && here != 0)
            continue;
        *p = 0;
        if (mkdir(part, mode) != 0 && errno != EEXIST)
            return hp_fail_errno(reterr, errno, "making folder %s", part);
        *p = here;
        if (here == 0)
            break;
    }
    if (stat(path, &st) != 0)
        return hp_fail_errno(reterr, errno, "making folder %s", path);
    if (!S_ISDIR(st.st_mode))
        return hp_fail(reterr, HP_E_EXISTS, "%s is not a folder", path);
    return HP_OK;
}

bool hp_path_exists(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0;
}

static int remove_at(int dir_fd, const char *name, int depth);

static int remove_children(int fd, int depth)
{
    DIR *dir = fdopendir(fd);
    struct dirent *e;
    int err = 0;

    if (dir == NULL) {
        err = errno;
        close(fd);
        return err;
    }
    while (err == 0 && (e = readdir(dir)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            err = remove_at(dirfd(dir), e->d_name, depth + 1);
    closedir(dir);
    return err;
}

/* 0 or an errno. Symbolic links are removed, never followed. */
static int remove_at(int dir_fd, const char *name, int depth)
{
    int fd, err;

    if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return errno;
    if (depth > 64)
        return ELOOP;
    fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno;
    err = remove_children(fd, depth);
    if (err == 0 && unlinkat(dir_fd, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
        err = errno;
    return err;
}

hp_code hp_path_remove(const char *path, hp_error *reterr)
{
    int err = remove_at(AT_FDCWD, path, 0);

    if (err != 0)
        return hp_fail_errno(reterr, err, "removing %s", path);
    return HP_OK;
}

hp_code hp_path_sync_dir(const char *path, hp_error *reterr)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int err = 0;

    if (fd < 0)
        return hp_fail_errno(reterr, errno, "syncing folder %s", path);
    if (fsync(fd) != 0)
        err = errno;
    close(fd);
    if (err != 0)
        return hp_fail_errno(reterr, err, "syncing folder %s", path);
    return HP_OK;
}

static hp_code read_all(int fd, const char *path, size_t max_bytes, hp_buf *buf,
                        hp_error *reterr)
{
    for (;;) {
        ssize_t n;

        if (!hp_buf_reserve(buf, 65536))
            return hp_fail(reterr, HP_E_NO_MEMORY, "reading %s", path);
        n = read(fd, buf->data + buf->len, buf->cap - buf->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return hp_fail_errno(reterr, errno, "reading %s", path);
        if (n == 0)
            return HP_OK;
        buf->len += (size_t)n;
        if (buf->len > max_bytes)
            return hp_fail(reterr, HP_E_LIMIT, "%s is longer than %zu bytes", path,
                           max_bytes);
    }
}

hp_code hp_file_read(const char *path, size_t max_bytes, hp_buf *ret, hp_error *reterr)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    hp_buf buf = HP_BUF_INIT;
    hp_code r;

    if (fd < 0)
        return hp_fail_errno(reterr, errno, "opening %s", path);
    r = read_all(fd, path, max_bytes, &buf, reterr);
    close(fd);
    if (r != HP_OK) {
        hp_buf_done(&buf);
        return r;
    }
    hp_buf_done(ret);
    *ret = buf;
    return HP_OK;
}

/* 0 or an errno. */
static int write_all(int fd, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

static hp_code sync_parent(const char *path, hp_error *reterr)
{
    char dir[HP_PATH_MAX];
    const char *slash = strrchr(path, '/');
    hp_code r;

    if (slash == NULL)
        return hp_path_sync_dir(".", reterr);
    r = hp_path_fmt(dir, reterr, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    return r == HP_OK ? hp_path_sync_dir(dir, reterr) : r;
}

hp_code hp_file_write(const char *path, const void *data, size_t len, mode_t mode,
                      hp_error *reterr)
{
    char temp[HP_PATH_MAX];
    hp_code r = hp_path_fmt(temp, reterr, "%s.XXXXXX.part", path);
    int fd, err;

    if (r != HP_OK)
        return r;
    fd = mkostemps(temp, 5, O_CLOEXEC);
    if (fd < 0)
        return hp_fail_errno(reterr, errno, "making %s", temp);
    err = write_all(fd, data, len);
    if (err == 0 && (fchmod(fd, mode) != 0 || fdatasync(fd) != 0))
        err = errno;
    if (close(fd) != 0 && err == 0)
        err = errno;
    if (err == 0 && rename(temp, path) != 0)
        err = errno;
    if (err != 0) {
        unlink(temp);
        return hp_fail_errno(reterr, err, "writing %s", path);
    }
    return sync_parent(path, reterr);
}
