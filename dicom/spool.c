/* See spool.h. Plain blocking calls: whoever calls decides on which thread. */
#include "dicom/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/crash.h"
#include "dicom/ul.h"

enum {
    PREAMBLE = 128,
    META_START = PREAMBLE + 4,
    MARK = 16, /* bytes: length of the file, sum */
    BLANKS = 32,
    COMPARE_CHUNK = 64 * 1024
};

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

/* The mark is the last thing in it, empty for now: private information (PS3.10
 * table 7.1-1), which other readers skip. */
static void build_meta(hp_buf *b, const char *sop_class, const char *sop_instance,
                       const char *transfer_syntax, const char *source_ae)
{
    static const uint8_t zeros[PREAMBLE];
    static const uint8_t version[2] = {0, 1};
    static const uint8_t unmarked[MARK];
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
    put_uid(&group, 0x0100, HP_IMPLEMENTATION_CLASS_UID);
    put_element(&group, 0x0102, "OB", unmarked, MARK, 0);

    uint8_t length[4] = {(uint8_t)group.len, (uint8_t)(group.len >> 8), 0, 0};
    hp_buf_put(b, zeros, PREAMBLE);
    hp_buf_put(b, "DICM", 4);
    put_element(b, 0x0000, "UL", length, 4, 0);
    hp_buf_put(b, group.data, group.len);
    b->failed |= group.failed;
    hp_buf_done(&group);
}

/* ---- the mark ---- */

static uint64_t stir(uint64_t sum, uint64_t word)
{
    sum = (sum ^ word) * 0x9E3779B97F4A7C15u;
    return sum ^ sum >> 29;
}

static void add_byte(hp_spool_sum *s, uint8_t byte)
{
    s->tail |= (uint64_t)byte << 8 * s->held;
    if (++s->held < 8)
        return;
    s->sum = stir(s->sum, s->tail);
    s->tail = s->held = 0;
}

static void add_bytes(hp_spool_sum *s, const uint8_t *p, size_t len)
{
    for (; len > 0 && s->held > 0; len--)
        add_byte(s, *p++);
    for (; len >= 8; len -= 8, p += 8)
        s->sum = stir(s->sum, (uint64_t)hp_get_u32le(p + 4) << 32 | hp_get_u32le(p));
    for (; len > 0; len--)
        add_byte(s, *p++);
}

/* Of a file of so many bytes, whose other bytes have been added. */
static void make_mark(const hp_spool_sum *s, uint64_t bytes, uint8_t ret[MARK])
{
    uint64_t sum = stir(stir(s->sum, s->tail), bytes);

    for (int i = 0; i < 8; i++) {
        ret[i] = (uint8_t)(bytes >> 8 * i);
        ret[8 + i] = (uint8_t)(sum >> 8 * i);
    }
}

/* ---- blanks ---- */

struct hp_spool {
    char dir[HP_PATH_MAX];
    pthread_mutex_t lock;
    uint64_t seed, made;             /* under lock, like all that follows */
    char blank[BLANKS][HP_PATH_MAX]; /* [next..count) are left */
    int next, count;
};

static uint64_t draw_seed(void)
{
    uint64_t seed;
    struct timespec t;

    if (getrandom(&seed, sizeof seed, 0) == (ssize_t)sizeof seed)
        return seed;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec << 32 ^ (uint64_t)t.tv_nsec << 8 ^ (uint64_t)getpid();
}

hp_code hp_spool_open(const char *dir, hp_spool **ret, hp_error *reterr)
{
    hp_spool *s = calloc(1, sizeof *s);
    hp_code r;

    if (!s)
        return hp_fail(reterr, HP_E_NO_MEMORY, "opening the spool");
    r = hp_path_fmt(s->dir, reterr, "%s", dir);
    if (r != HP_OK) {
        free(s);
        return r;
    }
    pthread_mutex_init(&s->lock, NULL);
    s->seed = draw_seed();
    *ret = s;
    return HP_OK;
}

static void remove_blanks(hp_spool *s)
{
    while (s->next < s->count)
        unlink(s->blank[s->next++]);
}

void hp_spool_free(hp_spool *s)
{
    if (!s)
        return;
    remove_blanks(s);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static hp_code make_blank(hp_spool *s, char path[HP_PATH_MAX], hp_error *reterr)
{
    hp_code r = hp_path_fmt(path, reterr, "%s/%016llx-%08llx.dcm", s->dir,
                            (unsigned long long)s->seed, (unsigned long long)++s->made);
    int fd;

    if (r != HP_OK)
        return r;
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return hp_fail_errno(reterr, errno, "creating a file in the spool");
    close(fd);
    return HP_OK;
}

/* Who comes meanwhile needs them too, and waits. */
static hp_code make_blanks(hp_spool *s, hp_error *reterr)
{
    hp_code r = HP_OK;

    for (s->next = s->count = 0; s->count < BLANKS && r == HP_OK;) {
        r = make_blank(s, s->blank[s->count], reterr);
        s->count += r == HP_OK;
    }
    if (r == HP_OK)
        r = hp_path_sync_dir(s->dir, reterr);
    if (r != HP_OK)
        remove_blanks(s);
    return r;
}

static hp_code take_blank(hp_spool *s, char ret[HP_PATH_MAX], hp_error *reterr)
{
    hp_code r = HP_OK;

    pthread_mutex_lock(&s->lock);
    if (s->next == s->count)
        r = make_blanks(s, reterr);
    if (r == HP_OK)
        memcpy(ret, s->blank[s->next++], HP_PATH_MAX);
    pthread_mutex_unlock(&s->lock);
    return r;
}

/* ---- one file ---- */

static hp_code open_blank(hp_spool *s, hp_spool_file *f, hp_error *reterr)
{
    hp_code r;

    do { /* one that somebody has cleared away must not fail a slice */
        r = take_blank(s, f->path, reterr);
        if (r == HP_OK)
            f->fd = open(f->path, O_WRONLY | O_CLOEXEC);
    } while (r == HP_OK && f->fd < 0 && errno == ENOENT);
    if (r == HP_OK && f->fd < 0) {
        r = hp_fail_errno(reterr, errno, "opening a file in the spool");
        unlink(f->path);
    }
    return r;
}

hp_code hp_spool_create(hp_spool *s, hp_spool_file *f, const char *sop_class,
                        const char *sop_instance, const char *transfer_syntax,
                        const char *source_ae, hp_error *reterr)
{
    static const uint8_t unmarked[MARK];
    hp_buf meta = HP_BUF_INIT;
    hp_code r;

    *f = (hp_spool_file)HP_SPOOL_FILE_INIT;
    build_meta(&meta, sop_class, sop_instance, transfer_syntax, source_ae);
    if (meta.failed) {
        hp_buf_done(&meta);
        return hp_fail(reterr, HP_E_NO_MEMORY, "building file meta information");
    }
    f->mark_at = meta.len - MARK;
    r = open_blank(s, f, reterr);
    if (r == HP_OK)
        r = hp_spool_write(f, meta.data, f->mark_at, reterr);
    if (r == HP_OK) {
        hp_spool_sum sum = f->sum; /* the mark is no part of it */

        r = hp_spool_write(f, unmarked, MARK, reterr);
        f->sum = sum;
    }
    hp_buf_done(&meta);
    if (r != HP_OK)
        hp_spool_discard(f);
    return r;
}

hp_code hp_spool_write(hp_spool_file *f, const void *data, size_t len, hp_error *reterr)
{
    const uint8_t *p = data;

    add_bytes(&f->sum, p, len);
    while (len > 0) {
        ssize_t n = write(f->fd, p, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return hp_fail_errno(reterr, n == 0 ? EIO : errno,
                                 "writing a file in the spool");
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

hp_code hp_spool_finish(hp_spool_file *f, hp_error *reterr)
{
    hp_code r = HP_OK;
    uint8_t mark[MARK];

    make_mark(&f->sum, f->bytes, mark);
    if (pwrite(f->fd, mark, MARK, (off_t)f->mark_at) != MARK)
        r = hp_fail_errno(reterr, errno, "marking a file in the spool");
    hp_crash_point("slice_marked"); /* and perhaps torn: nobody was told */
    if (r == HP_OK && fdatasync(f->fd) != 0)
        r = hp_fail_errno(reterr, errno, "syncing a file in the spool");
    /* Linux releases the descriptor even when close fails: never twice. */
    if (close(f->fd) != 0 && r == HP_OK && errno != EINTR)
        r = hp_fail_errno(reterr, errno, "closing a file in the spool");
    f->fd = -1;
    if (r != HP_OK)
        unlink(f->path);
    else
        hp_crash_point("slice_durable"); /* without a row: recovery enters it */
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

/* ---- comparing ---- */

/* What our file meta says. */
typedef struct meta {
    hp_uid sop_class, sop_instance, syntax;
    char source_ae[17];
    uint8_t head[1024]; /* the file's beginning */
    size_t end;         /* of the file meta, where the dataset starts */
} meta;

static void take_text(char *ret, size_t size, const uint8_t *value, size_t len)
{
    if (len >= size)
        return;
    memcpy(ret, value, len);
    ret[len] = 0;
    while (len > 0 && ret[len - 1] == ' ')
        ret[--len] = 0;
}

static void take_element(meta *m, uint16_t element, const uint8_t *value, size_t len)
{
    switch (element) {
    case 0x0002:
        take_text(m->sop_class.text, HP_UID_SIZE, value, len);
        break;
    case 0x0003:
        take_text(m->sop_instance.text, HP_UID_SIZE, value, len);
        break;
    case 0x0010:
        take_text(m->syntax.text, HP_UID_SIZE, value, len);
        break;
    case 0x0016:
        take_text(m->source_ae, sizeof m->source_ae, value, len);
        break;
    default:
        break;
    }
}

/* Reads the file meta of a file that we wrote, and stops where the dataset
 * starts. HP_E_TRUNCATED: it has none. */
static hp_code read_meta(FILE *f, meta *ret, hp_error *reterr)
{
    uint8_t *head = ret->head;
    size_t n = fread(head, 1, sizeof ret->head, f), at = META_START + 12;

    ret->end = n < at ? 0 : at + hp_get_u32le(head + META_START + 8);
    if (ret->end == 0 || ret->end > n || memcmp(head + PREAMBLE, "DICM", 4) != 0)
        return ferror(f) ? hp_fail(reterr, HP_E_IO, "reading a spool file")
                         : hp_fail(reterr, HP_E_TRUNCATED,
                                   "a spool file without our file meta");
    while (at + 8 <= ret->end) {
        bool ob = head[at + 4] == 'O' && head[at + 5] == 'B';
        size_t header = ob ? 12 : 8, len;

        if (at + header > ret->end)
            break;
        len = ob ? hp_get_u32le(head + at + 8) : hp_get_u16le(head + at + 6);
        if (len > ret->end - at - header)
            break;
        take_element(ret, hp_get_u16le(head + at + 2), head + at + header, len);
        at += header + len;
    }
    if (!ret->syntax.text[0])
        return hp_fail(reterr, HP_E_TRUNCATED, "a spool file with damaged file meta");
    if (fseek(f, (long)ret->end, SEEK_SET) != 0)
        return hp_fail_errno(reterr, errno, "reading a spool file");
    return HP_OK;
}

static hp_code open_dataset(const char *path, FILE **ret_file, meta *ret,
                            hp_error *reterr)
{
    *ret_file = fopen(path, "rbe");
    if (!*ret_file)
        return hp_fail_errno(reterr, errno, "opening a spool file");
    return read_meta(*ret_file, ret, reterr);
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
    meta ma = {.end = 0}, mb = {.end = 0};
    hp_code r;

    r = open_dataset(path_a, &a, &ma, reterr);
    if (r == HP_OK)
        r = open_dataset(path_b, &b, &mb, reterr);
    if (r == HP_OK && strcmp(ma.syntax.text, mb.syntax.text) != 0)
        *ret_same = false;
    else if (r == HP_OK)
        r = compare(a, b, ret_same, reterr);
    if (a)
        fclose(a);
    if (b)
        fclose(b);
    return r;
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

/* ---- reading back ---- */

void hp_stored_describe(hp_stored *s, const hp_scan_result *found)
{
    snprintf(s->study.text, sizeof s->study.text, "%.*s", HP_UID_SIZE - 1, found->study);
    snprintf(s->series.text, sizeof s->series.text, "%.*s", HP_UID_SIZE - 1,
             found->series);
    memcpy(s->modality, found->modality, sizeof s->modality);
    memcpy(s->accession, found->accession, sizeof s->accession);
    memcpy(s->study_date, found->study_date, sizeof s->study_date);
    memcpy(s->patient_digest, found->patient_digest, sizeof s->patient_digest);
}

/* Does the mark agree with every other byte? `f` stands where the dataset
 * starts. */
static hp_code check_mark(FILE *f, const meta *m, uint64_t *ret_bytes, hp_error *reterr)
{
    hp_spool_sum sum = {0, 0, 0};
    uint64_t bytes = m->end;
    uint8_t mark[MARK], *chunk = malloc(COMPARE_CHUNK);

    if (!chunk)
        return hp_fail(reterr, HP_E_NO_MEMORY, "reading a spool file");
    add_bytes(&sum, m->head, m->end - MARK);
    for (size_t n; (n = fread(chunk, 1, COMPARE_CHUNK, f)) > 0; bytes += n)
        add_bytes(&sum, chunk, n);
    free(chunk);
    if (ferror(f))
        return hp_fail(reterr, HP_E_IO, "reading a spool file");
    make_mark(&sum, bytes, mark);
    if (memcmp(mark, m->head + m->end - MARK, MARK) != 0)
        return hp_fail(reterr, HP_E_TRUNCATED, "a spool file that is not whole");
    *ret_bytes = bytes;
    return HP_OK;
}

hp_code hp_spool_read_back(const char *path, hp_stored *ret, hp_error *reterr)
{
    hp_stored s = {.peer = ""};
    hp_scan_result found;
    meta m = {.end = 0};
    FILE *f = NULL;
    hp_code r = open_dataset(path, &f, &m, reterr);

    if (r == HP_OK)
        r = check_mark(f, &m, &s.size_bytes, reterr);
    if (f)
        fclose(f);
    if (r == HP_OK) { /* it has passed once: the limit is its length */
        r = hp_spool_scan_file(path, s.size_bytes, HP_EXPLICIT_LE, &found, NULL, reterr);
        if (r == HP_E_TRUNCATED)
            r = hp_fail(reterr, HP_E_CORRUPT, "a whole file that cannot be scanned");
    }
    if (r == HP_OK)
        r = hp_path_fmt(s.path, reterr, "%s", path);
    if (r != HP_OK)
        return r;
    hp_stored_describe(&s, &found);
    s.sop_class = m.sop_class;
    s.sop_instance = m.sop_instance;
    s.transfer_syntax = m.syntax;
    s.dataset_bytes = s.size_bytes - m.end;
    memcpy(s.calling_ae, m.source_ae, sizeof s.calling_ae);
    *ret = s;
    return HP_OK;
}
