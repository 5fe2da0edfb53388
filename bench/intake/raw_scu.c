/* A sender that costs nothing: PDUs are encoded before the clock starts, one
 * write per image, TCP_NODELAY, one thread and one association per stream.
 *
 *     raw_scu PORT CALLED CALLING STREAMS FILE...      prints images per second
 *
 * Files are Part 10, Explicit VR LE, as tests/fixture/ct_files.py writes them;
 * stream k takes every STREAMS-th file. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/path.h"
#include "dicom/dimse.h"
#include "dicom/scan.h"

enum { PDU_MAX = 131072 };

typedef struct stream {
    pthread_t thread;
    int fd, count;
    size_t pdu; /* within the peer's maximum */
    hp_buf *message;
    bool failed;
} stream;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void put_item(hp_buf *b, uint8_t type, const char *text)
{
    hp_buf_u8(b, type);
    hp_buf_u8(b, 0);
    hp_buf_u16be(b, (uint16_t)strlen(text));
    hp_buf_put(b, text, strlen(text));
}

static void put_title(hp_buf *b, const char *title)
{
    char field[17];

    snprintf(field, sizeof field, "%-16.16s", title);
    hp_buf_put(b, field, 16);
}

static void put_request(hp_buf *out, const char *called, const char *calling)
{
    static const uint8_t zeros[32];
    hp_buf c = HP_BUF_INIT, b = HP_BUF_INIT;

    hp_buf_put(&c, "\1\0\0\0", 4);
    put_item(&c, 0x30, "1.2.840.10008.5.1.4.1.1.2");
    put_item(&c, 0x40, "1.2.840.10008.1.2.1");
    hp_buf_u32be(&b, 0x00010000);
    put_title(&b, called);
    put_title(&b, calling);
    hp_buf_put(&b, zeros, 32);
    put_item(&b, 0x10, "1.2.840.10008.3.1.1.1");
    hp_buf_u16be(&b, 0x2000);
    hp_buf_u16be(&b, (uint16_t)c.len);
    hp_buf_put(&b, c.data, c.len);
    hp_buf_put(&b,
               "\120\0\0\21\121\0\0\4\0\2\0\0\122\0\0\5"
               "1.2.3",
               21);
    hp_buf_put(out, "\1\0", 2);
    hp_buf_u32be(out, (uint32_t)b.len);
    hp_buf_put(out, b.data, b.len);
    hp_buf_done(&b);
    hp_buf_done(&c);
}

static void put_pdata(hp_buf *out, size_t pdu, int control, const uint8_t *p, size_t len)
{
    do {
        size_t n = len < pdu - 6 ? len : pdu - 6;

        hp_buf_put(out, "\4\0", 2);
        hp_buf_u32be(out, (uint32_t)n + 6);
        hp_buf_u32be(out, (uint32_t)n + 2);
        hp_buf_u8(out, 1);
        hp_buf_u8(out, (uint8_t)(control | (n == len ? 2 : 0)));
        hp_buf_put(out, p, n);
        p += n;
        len -= n;
    } while (len > 0);
}

/* C-STORE-RQ and dataset of one file. */
static void put_message(hp_buf *out, size_t pdu, const char *path)
{
    hp_buf file = HP_BUF_INIT, cmd = HP_BUF_INIT;
    hp_dimse_command rq = {HP_DIMSE_C_STORE_RQ, 1, 0, {""}, {""}};
    hp_scan *scan = NULL;
    hp_scan_result v;
    size_t at;

    if (hp_file_read(path, 1 << 30, &file, NULL) != HP_OK || file.len < 200)
        die(path);
    at = 144 + hp_get_u32le(file.data + 140);
    if (hp_scan_new(HP_EXPLICIT_LE, 1 << 30, &scan, NULL) != HP_OK ||
        hp_scan_feed(scan, file.data + at, file.len - at, NULL) != HP_OK ||
        hp_scan_end(scan, &v, NULL) != HP_OK)
        die("not a dataset");
    snprintf(rq.sop_class.text, sizeof rq.sop_class.text, "%.64s", v.sop_class);
    snprintf(rq.sop_instance.text, sizeof rq.sop_instance.text, "%.64s", v.sop_instance);
    hp_dimse_put_request(&rq, &cmd);
    put_pdata(out, pdu, 1, cmd.data, cmd.len);
    put_pdata(out, pdu, 0, file.data + at, file.len - at);
    hp_scan_free(scan);
    hp_buf_done(&file);
    hp_buf_done(&cmd);
}

static bool send_all(int fd, const uint8_t *p, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

        if (n <= 0)
            return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

static bool receive_pdu(int fd, hp_buf *ret)
{
    uint8_t head[6];
    size_t len;

    hp_buf_clear(ret);
    if (recv(fd, head, 6, MSG_WAITALL) != 6)
        return false;
    len = hp_get_u32be(head + 2);
    hp_buf_put(ret, head, 6);
    if (!hp_buf_reserve(ret, len) ||
        recv(fd, ret->data + 6, len, MSG_WAITALL) != (ssize_t)len)
        return false;
    ret->len += len;
    return true;
}

static void *run(void *arg)
{
    stream *s = arg;
    hp_buf in = HP_BUF_INIT;

    for (int i = 0; i < s->count && !s->failed; i++)
        s->failed = !send_all(s->fd, s->message[i].data, s->message[i].len) ||
                    !receive_pdu(s->fd, &in) || in.data[0] != 4 ||
                    memmem(in.data, in.len, "\0\0\0\11\2\0\0\0\0\0", 10) == NULL;
    hp_buf_done(&in);
    return NULL;
}

/* The maximum length item of the A-ASSOCIATE-AC. */
static size_t announced(const hp_buf *ac)
{
    const uint8_t *item = memmem(ac->data, ac->len, "\121\0\0\4", 4);
    uint32_t max = item ? hp_get_u32be(item + 4) : 0;

    return max == 0 || max > PDU_MAX ? PDU_MAX : max;
}

static void open_stream(stream *s, int port, const char *called, const char *calling)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    hp_buf b = HP_BUF_INIT;
    int on = 1;

    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (s->fd < 0 || connect(s->fd, (struct sockaddr *)&a, sizeof a) != 0)
        die("connecting");
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    put_request(&b, called, calling);
    if (!send_all(s->fd, b.data, b.len) || !receive_pdu(s->fd, &b) || b.data[0] != 2)
        die("association");
    s->pdu = announced(&b);
    hp_buf_done(&b);
}

int main(int argc, char **argv)
{
    int streams, files = argc - 5, failed = 0;
    struct timespec a, b;
    stream *s;

    if (argc < 6)
        return 2;
    streams = (int)strtol(argv[4], NULL, 10);
    s = calloc((size_t)streams, sizeof *s);
    for (int k = 0; k < streams; k++) {
        s[k].message = calloc((size_t)files, sizeof *s[k].message);
        open_stream(&s[k], (int)strtol(argv[1], NULL, 10), argv[2], argv[3]);
        for (int i = k; i < files; i += streams)
            put_message(&s[k].message[s[k].count++], s[k].pdu, argv[5 + i]);
    }
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int k = 0; k < streams; k++)
        pthread_create(&s[k].thread, NULL, run, &s[k]);
    for (int k = 0; k < streams; k++) {
        pthread_join(s[k].thread, NULL);
        failed += s[k].failed;
    }
    clock_gettime(CLOCK_MONOTONIC, &b);
    for (int k = 0; k < streams; k++)
        send_all(s[k].fd, (const uint8_t *)"\5\0\0\0\0\4\0\0\0\0", 10);
    printf("%.1f\n", files / ((double)(b.tv_sec - a.tv_sec) +
                              (double)(b.tv_nsec - a.tv_nsec) * 1e-9));
    return failed ? 1 : 0;
}
