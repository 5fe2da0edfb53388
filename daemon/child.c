/* The child's end of the socketpair.
 *
 * DESIGN Plain blocking reads and writes: a worker does one thing at a time,
 * and what it may be late for is hepard's business, which kills it. Progress
 * may come from another thread, so writing takes a lock and writes whole lines.
 */
#include "daemon/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/number.h"

static hp_buf inbox = HP_BUF_INIT;
static pthread_mutex_t write_lock = PTHREAD_MUTEX_INITIALIZER;

void hp_child_start(void)
{
    const char *parent = getenv("HEPAR_PARENT");
    int64_t pid;

    if (fcntl(HP_CHILD_FD, F_SETFD, FD_CLOEXEC) != 0) {
        fprintf(stderr, "this program is started by hepard\n");
        exit(2);
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* The parent may have died between fork and prctl. */
    if (parent != NULL && hp_parse_i64(parent, &pid) && getppid() != (pid_t)pid)
        exit(0);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN); /* Ctrl-C at a terminal is hepard's to handle */
}

/* One more read into the inbox; HP_E_EMPTY at the end. */
static hp_code fill(hp_error *reterr)
{
    uint8_t chunk[16384];
    ssize_t n = read(HP_CHILD_FD, chunk, sizeof chunk);

    if (n > 0) {
        hp_buf_put(&inbox, chunk, (size_t)n);
        if (inbox.failed)
            return hp_fail(reterr, HP_E_NO_MEMORY, "no memory for a message");
        return HP_OK;
    }
    if (n == 0)
        return hp_fail(reterr, HP_E_EMPTY, "hepard has gone");
    if (errno == EAGAIN) { /* libuv made its end's twin non-blocking */
        struct pollfd p = {HP_CHILD_FD, POLLIN, 0};
        poll(&p, 1, -1);
        return HP_OK;
    }
    if (errno == EINTR)
        return HP_OK;
    return hp_fail_errno(reterr, errno, "reading a message");
}

hp_code hp_child_read(json_t **ret, hp_error *reterr)
{
    size_t seen = 0;

    for (;;) {
        const uint8_t *end =
            inbox.len > seen ? memchr(inbox.data + seen, '\n', inbox.len - seen) : NULL;
        hp_code r;

        if (end != NULL) {
            size_t len = (size_t)(end - inbox.data);
            r = hp_json_parse((const char *)inbox.data, len, ret, reterr);
            hp_buf_consume(&inbox, len + 1);
            return r;
        }
        seen = inbox.len;
        if (inbox.len > HP_CHILD_MAX_LINE)
            return hp_fail(reterr, HP_E_LIMIT, "message too long");
        r = fill(reterr);
        if (r != HP_OK)
            return r;
    }
}

static void put_all(const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(HP_CHILD_FD, text, len);
        if (n > 0) {
            text += n;
            len -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            struct pollfd p = {HP_CHILD_FD, POLLOUT, 0};
            poll(&p, 1, -1);
        } else if (n == 0 || errno != EINTR) {
            _exit(0); /* hepard has gone */
        }
    }
}

void hp_child_write_take(json_t *msg)
{
    char *line = msg ? json_dumps(msg, JSON_COMPACT) : NULL;

    json_decref(msg);
    if (line == NULL)
        _exit(1); /* no memory even to report: hepard sees the death */
    pthread_mutex_lock(&write_lock);
    put_all(line, strlen(line));
    put_all("\n", 1);
    pthread_mutex_unlock(&write_lock);
    free(line);
}
