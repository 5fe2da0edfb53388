/* See spool.h. Plain blocking calls: whoever calls decides on which thread. */
#include "dicom/spool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "dicom/ul.h"

enum { PREAMBLE = 128, META_START = PREAMBLE + 4, COMPARE_CHUNK = 64 * 1024 };

/* ---- the file meta information (PS3.10 7.1), always Explicit VR LE ---- */

static void put_element(hp_buf *b, uint16_t element, const char *vr, const void *value,
                        size_t len, char pad)
{
    size_t padded = len + (len & 1);

    hp_buf_u16le(b, 0x0002);
    hp_buf_u16le(b, element);
    hp_buf_put(b, vr, 2);
    if (strcmp(vr, "OB") == 0) {
        hp_buf_u16le(b, 0);
        hp_buf_u32le(b, (uint32_t)padded);
    } else {
        hp_buf_u16le(b, (uint16_t)padded);
    }
    hp_buf_put(b, value, len);
    if (len & 1)
        hp_buf_put(b, &pad, 1);
}

static void put_uid(hp_buf *b, uint16_t element, const char *uid)
{
    put_element(b, element, "UI", uid, strlen(uid), 0);
}

static void build_meta(hp_buf *b, const char *sop_class, const char *sop_instance,
                       const char *transfer_syntax, const char *source_ae)
{
    static const uint8_t zeros[PREAMBLE];
    static const uint8_t version[2] = {0, 1};
    hp_buf group = HP_BUF_INIT;

    put_element(&group, 0x0001, "OB", version, 2, 0);
    put_uid(&group, 0x0002, sop_class);
    put_uid(&group, 0x0003, sop_instance);
    put_uid(&group, 0x0010, transfer_syntax);
    put_uid(&group, 0x0012, HP_IMPLEMENTATION_CLASS_UID);
    put_element(&group, 0x0013, "SH", HP_IMPLEMENTATION_VERSION,
                strlen(HP_IMPLEMENTATION_VERSION), ' ');
    if (source_ae[0])
        put_element(&group, 0x0016, "AE", source_ae, strlen(source_ae), ' ');

    uint8_t length[4] = {(uint8_t)group.len, (uint8_t)(group.len >> 8), 0, 0};
    hp_buf_put(b, zeros, PREAMBLE);
    hp_buf_put(b, "DICM", 4);
    put_element(b, 0x0000, "UL", length, 4, 0);
    hp_buf_put(b, group.data, group.len);
    b->failed |= group.failed;
    hp_buf_done(&group);
}

/* ---- one part file ---- */

static uint64_t stem_seed;

static void draw_seed(void)
{
    if (getrandom(&stem_seed, sizeof stem_seed, 0) != (ssize_t)sizeof stem_seed) {
        struct timespec t;

        clock_gettime(CLOCK_REALTIME, &t);
        stem_seed =
            (uint64_t)t.tv_sec << 32 ^ (uint64_t)t.tv_nsec << 8 ^ (uint64_t)getpid();
    }
}

void hp_spool_stem(char ret[40])
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    static uint64_t counter;

    pthread_once(&once, draw_seed);
    snprintf(ret, 40, "%016llx-%08llx", (unsigned long long)stem_seed,
             (unsigned long long)__atomic_add_fetch(&counter, 1, __ATOMIC_RELAXED));
}

hp_code hp_spool_create(hp_spool_file *f, const char *dir, const char *stem,
                        const char *sop_class, const char *sop_instance,
                        const char *transfer_syntax, const char *source_ae,
                        hp_error *reterr)
{
    hp_buf meta = HP_BUF_INIT;
    hp_code r;

    r = hp_path_fmt(f->path, reterr, "%s/%s.part", dir, stem);
    if (r != HP_OK)
        return r;
    build_meta(&meta, sop_class, sop_instance, transfer_syntax, source_ae);
    if (meta.failed) {
        hp_buf_done(&meta);
        return hp_fail(reterr, HP_E_NO_MEMORY, "building file meta information");
    }
    f->bytes = f->hinted = 0;
    f->fd = open(f->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (f->fd < 0)
        r = hp_fail_errno(reterr, errno, "creating a part file in the spool");
    else
        r = hp_spool_write(f, meta.data, meta.len, reterr);
    hp_buf_done(&meta);
    if (r != HP_OK)
        hp_spool_discard(f);
    return r;
}

hp_code hp_spool_write(hp_spool_file *f, const void *data, size_t len, hp_error *reterr)
{
    const uint8_t *p = data;

    while (len > 0) {
        ssize_t n = write(f->fd, p, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return hp_fail_errno(reterr, n == 0 ? EIO : errno, "writing a part file");
        p += n;
        len -= (size_t)n;
        f->bytes += (uint64_t)n;
    }
    return HP_OK;
}

void hp_spool_flush_hint(hp_spool_file *f)
{
    if (f->bytes > f->hinted)
        sync_file_range(f->fd, (off_t)f->hinted, (off_t)(f->bytes - f->hinted),
                        SYNC_FILE_RANGE_WRITE);
    f->hinted = f->bytes;
}

hp_code hp_spool_close(hp_spool_file *f, bool sync, hp_error *reterr)
{
    hp_code r = HP_OK;

    if (sync && fdatasync(f->fd) != 0)
        r = hp_fail_errno(reterr, errno, "syncing a part file");
    /* Linux releases the descriptor even when close fails: never twice. */
    if (close(f->fd) != 0 && r == HP_OK && errno != EINTR)
        r = hp_fail_errno(reterr, errno, "closing a part file");
    f->fd = -1;
    if (r != HP_OK)
        unlink(f->path);
    return r;
}

void hp_spool_discard(hp_spool_file *f)
{
    if (f->fd < 0)
        return;
    close(f->fd);
    f->fd = -1;
    unlink(f->path);
}

/* ---- committing a group ---- */

/* Never onto a name that is taken. Some network file systems do not know the
 * flag; names are ours and drawn once, so looking first will do there. */
static int give_name(const char *part, const char *final)
{
    if (renameat2(AT_FDCWD, part, AT_FDCWD, final, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL)
        return -1;
    if (hp_path_exists(final)) {
        errno = EEXIST;
        return -1;
    }
    return rename(part, final);
}

static hp_code sync_part(const char *path)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    hp_code r = HP_OK;

    if (fd < 0)
        return hp_fail_errno(NULL, errno, "opening a part file");
    if (fdatasync(fd) != 0)
        r = hp_fail_errno(NULL, errno, "syncing a part file");
    close(fd);
    return r;
}

static bool same_dir(const char *a, const char *b)
{
    const char *sa = strrchr(a, '/'), *sb = strrchr(b, '/');

    return sa && sb && sa - a == sb - b && strncmp(a, b, (size_t)(sa - a)) == 0;
}

static hp_code sync_dir_of(const char *path)
{
    char dir[HP_PATH_MAX];
    const char *slash = strrchr(path, '/');

    if (!slash || (size_t)(slash - path) >= sizeof dir)
        return HP_E_INVALID;
    snprintf(dir, sizeof dir, "%.*s", (int)(slash - path), path);
    return hp_path_sync_dir(dir[0] ? dir : "/", NULL);
}

/* Items of one directory share one sync; when it fails none of them may keep
 * its name. */
static void sync_dirs(hp_spool_item *items, size_t count, bool *done)
{
    for (size_t i = 0; i < count; i++) {
        hp_code r;

        if (done[i])
            continue;
        r = sync_dir_of(items[i].final_path);
        for (size_t j = i; j < count; j++) {
            if (done[j] || !same_dir(items[i].final_path, items[j].final_path))
                continue;
            done[j] = true;
            if (r == HP_OK)
                continue;
            unlink(items[j].final_path);
            items[j].code = r;
        }
    }
}

void hp_spool_commit(hp_spool_item *items, size_t count)
{
    bool *done = calloc(count ? count : 1, sizeof *done);

    for (size_t i = 0; i < count; i++) {
        hp_spool_item *it = &items[i];

        it->code = !done ? HP_E_NO_MEMORY : it->synced ? HP_OK : sync_part(it->part_path);
        if (it->code == HP_OK && give_name(it->part_path, it->final_path) != 0)
            it->code = hp_fail_errno(NULL, errno, "naming a slice");
        if (it->code != HP_OK) {
            unlink(it->part_path);
            if (done)
                done[i] = true;
        }
    }
    if (done)
        sync_dirs(items, count, done);
    free(done);
}

hp_code hp_spool_final_path(const char *part_path, const char *dir, char ret[HP_PATH_MAX],
                            hp_error *reterr)
{
    const char *slash = strrchr(part_path, '/');
    const char *name = slash ? slash + 1 : part_path;
    size_t len = strlen(name);

    if (len < 6 || strcmp(name + len - 5, ".part") != 0)
        return hp_fail(reterr, HP_E_INVALID, "not a part file of the spool");
    return hp_path_fmt(ret, reterr, "%s/%.*s.dcm", dir, (int)(len - 5), name);
}

/* ---- comparing and cleaning ---- */

/* Where the dataset starts, and the transfer syntax, in a file that we wrote. */
static hp_code open_dataset(const char *path, FILE **ret_file, hp_uid *ret_syntax,
                            hp_error *reterr)
{
    uint8_t head[1024];
    FILE *f = fopen(path, "rbe");
    size_t n, end, at = META_START + 12;
    bool found = false;

    if (!f)
        return hp_fail_errno(reterr, errno, "opening a spool file");
    n = fread(head, 1, sizeof head, f);
    end = n < at ? 0 : at + hp_get_u32le(head + META_START + 8);
    if (end == 0 || end > n || memcmp(head + PREAMBLE, "DICM", 4) != 0) {
        fclose(f);
        return hp_fail(reterr, HP_E_CORRUPT, "a spool file without our file meta");
    }
    while (at + 8 <= end) {
        uint16_t element = hp_get_u16le(head + at + 2);
        bool ob = head[at + 4] == 'O' && head[at + 5] == 'B';
        size_t header = ob ? 12 : 8;
        size_t len;

        if (at + header > end)
            break;
        len = ob ? hp_get_u32le(head + at + 8) : hp_get_u16le(head + at + 6);
        if (len > end - at - header)
            break;
        if (element == 0x0010 && len < HP_UID_SIZE) {
            memcpy(ret_syntax->text, head + at + header, len);
            ret_syntax->text[len] = 0;
            found = true;
        }
        at += header + len;
    }
    if (!found || fseek(f, (long)end, SEEK_SET) != 0) {
        fclose(f);
        return hp_fail(reterr, HP_E_CORRUPT, "a spool file with damaged file meta");
    }
    *ret_file = f;
    return HP_OK;
}

static hp_code compare(FILE *a, FILE *b, bool *ret_same, hp_error *reterr)
{
    static const size_t chunk = COMPARE_CHUNK;
    uint8_t *m = malloc(2 * chunk);
    bool same = true;

    if (!m)
        return hp_fail(reterr, HP_E_NO_MEMORY, "comparing two spool files");
    for (;;) {
        size_t na = fread(m, 1, chunk, a), nb = fread(m + chunk, 1, chunk, b);

        same = na == nb && memcmp(m, m + chunk, na) == 0;
        if (!same || na == 0)
            break;
    }
    free(m);
    if (ferror(a) || ferror(b))
        return hp_fail(reterr, HP_E_IO, "reading a spool file");
    *ret_same = same;
    return HP_OK;
}

hp_code hp_spool_same(const char *path_a, const char *path_b, bool *ret_same,
                      hp_error *reterr)
{
    FILE *a = NULL, *b = NULL;
    hp_uid sa, sb;
    hp_code r;

    r = open_dataset(path_a, &a, &sa, reterr);
    if (r == HP_OK)
        r = open_dataset(path_b, &b, &sb, reterr);
    if (r == HP_OK && strcmp(sa.text, sb.text) != 0)
        *ret_same = false;
    else if (r == HP_OK)
        r = compare(a, b, ret_same, reterr);
    if (a)
        fclose(a);
    if (b)
        fclose(b);
    return r;
}

hp_code hp_spool_remove_parts(const char *dir, size_t *ret_removed, hp_error *reterr)
{
    DIR *d = opendir(dir);
    size_t removed = 0;

    if (!d)
        return hp_fail_errno(reterr, errno, "reading the spool");
    for (struct dirent *e; (e = readdir(d));) {
        size_t len = strlen(e->d_name);

        if (len > 5 && strcmp(e->d_name + len - 5, ".part") == 0 &&
            unlinkat(dirfd(d), e->d_name, 0) == 0)
            removed++;
    }
    closedir(d);
    if (ret_removed)
        *ret_removed = removed;
    return HP_OK;
}

/* ---- scanning a file ---- */

/* The meta group of somebody else's file: bounded, and read leniently. */
static hp_code skip_meta(FILE *f, hp_uid *ret_syntax, hp_error *reterr)
{
    for (;;) {
        uint8_t h[12];
        long at = ftell(f);
        size_t n = fread(h, 1, 8, f);
        uint32_t len;
        char uid[HP_UID_SIZE] = "";

        if (n < 8 || hp_get_u16le(h) != 0x0002)
            return fseek(f, at, SEEK_SET) == 0 ? HP_OK
                                               : hp_fail_errno(reterr, errno, "seeking");
        len = hp_get_u16le(h + 6);
        if (memcmp(h + 4, "OB", 2) == 0 || memcmp(h + 4, "UN", 2) == 0) {
            if (fread(h + 8, 1, 4, f) != 4)
                return hp_fail(reterr, HP_E_TRUNCATED,
                               "cut off in the file meta information");
            len = hp_get_u32le(h + 8);
        }
        if (len > 65536)
            return hp_fail(reterr, HP_E_LIMIT, "file meta information too long");
        if (hp_get_u16le(h + 2) == 0x0010 && len < sizeof uid) {
            if (fread(uid, 1, len, f) != len)
                return hp_fail(reterr, HP_E_TRUNCATED,
                               "cut off in the file meta information");
            uid[strcspn(uid, " ")] = 0;
            memcpy(ret_syntax->text, uid, sizeof uid);
        } else if (fseek(f, (long)len, SEEK_CUR) != 0) {
            return hp_fail_errno(reterr, errno, "seeking");
        }
    }
}

static hp_code scan_rest(FILE *f, uint64_t max_bytes, hp_encoding encoding,
                         hp_scan_result *ret, hp_error *reterr)
{
    hp_auto(hp_scan) *s = NULL;
    uint8_t *chunk = malloc(COMPARE_CHUNK);
    hp_code r = chunk ? hp_scan_new(encoding, max_bytes, &s, reterr)
                      : hp_fail(reterr, HP_E_NO_MEMORY, "scanning a file");

    for (size_t n = 1; r == HP_OK && n > 0;) {
        n = fread(chunk, 1, COMPARE_CHUNK, f);
        r = hp_scan_feed(s, chunk, n, reterr);
    }
    free(chunk);
    if (r == HP_OK && ferror(f))
        r = hp_fail(reterr, HP_E_IO, "reading a file");
    return r == HP_OK ? hp_scan_end(s, ret, reterr) : r;
}

hp_code hp_spool_scan_file(const char *path, uint64_t max_bytes, hp_encoding assume,
                           hp_scan_result *ret, hp_uid *ret_syntax, hp_error *reterr)
{
    FILE *f = fopen(path, "rbe");
    uint8_t head[META_START];
    hp_uid syntax = {""};
    hp_code r = HP_OK;

    if (!f)
        return hp_fail_errno(reterr, errno, "opening a file");
    if (fread(head, 1, sizeof head, f) == sizeof head &&
        memcmp(head + PREAMBLE, "DICM", 4) == 0)
        r = skip_meta(f, &syntax, reterr);
    else
        rewind(f);
    if (r == HP_OK && strcmp(syntax.text, "1.2.840.10008.1.2.1.99") == 0)
        r = hp_fail(reterr, HP_E_UNSUPPORTED, "a deflated dataset");
    if (r == HP_OK)
        r = scan_rest(f, max_bytes, syntax.text[0] ? hp_encoding_of(syntax.text) : assume,
                      ret, reterr);
    if (r == HP_OK && ret_syntax)
        *ret_syntax = syntax;
    fclose(f);
    return r;
}
