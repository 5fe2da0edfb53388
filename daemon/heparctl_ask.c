/* One question to the daemon over its control socket. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "daemon/control_path.h"
#include "daemon/heparctl.h"

static hp_code connect_to(const hp_config *config, int *ret_fd, hp_error *reterr)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    char path[HP_PATH_MAX];
    hp_code code = hp_control_path(config, path, reterr);
    int fd;

    if (code != HP_OK)
        return code;
    snprintf(un.sun_path, sizeof un.sun_path, "%.*s", (int)sizeof un.sun_path - 1, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return hp_fail_errno(reterr, errno, "control socket");
    if (connect(fd, (struct sockaddr *)&un, sizeof un) != 0) {
        int err = errno;

        close(fd);
        if (err == ENOENT || err == ECONNREFUSED)
            return hp_fail(reterr, HP_E_CONNECT, "hepard is not running on %s",
                           config->state_dir);
        return hp_fail(reterr, HP_E_CONNECT, "%s: %s", path, strerror(err));
    }
    *ret_fd = fd;
    return HP_OK;
}

static hp_code send_line(int fd, const json_t *request, hp_error *reterr)
{
    char *text = json_dumps(request, JSON_COMPACT);
    size_t len = text ? strlen(text) : 0;
    bool fine = false;

    if (text != NULL) {
        text[len] = '\n';
        fine = send(fd, text, len + 1, MSG_NOSIGNAL) == (ssize_t)len + 1;
    }
    free(text);
    return fine ? HP_OK : hp_fail(reterr, HP_E_CONNECT, "the daemon has gone");
}

static hp_code read_line(int fd, int timeout_s, hp_buf *line, hp_error *reterr)
{
    int64_t end = hp_clock_mono_ms() + (int64_t)timeout_s * 1000;

    while (line->len == 0 || line->data[line->len - 1] != '\n') {
        int64_t left = end - hp_clock_mono_ms();
        struct pollfd p = {fd, POLLIN, 0};
        char chunk[4096];
        ssize_t n;

        if (left <= 0 || poll(&p, 1, (int)left) == 0)
            return hp_fail(reterr, HP_E_TIMEOUT, "the daemon did not answer in %d s",
                           timeout_s);
        n = recv(fd, chunk, sizeof chunk, 0);
        if (n == 0 || (n < 0 && errno != EINTR))
            return hp_fail(reterr, HP_E_CONNECT, "the daemon has gone");
        if (n > 0)
            hp_buf_put(line, chunk, (size_t)n);
    }
    return HP_OK;
}

hp_code hp_ctl_ask(const hp_config *config, json_t *request_take, int timeout_s,
                   json_t **ret, hp_error *reterr)
{
    hp_buf line = HP_BUF_INIT;
    int fd = -1;
    hp_code code = connect_to(config, &fd, reterr);

    if (code == HP_OK)
        code = send_line(fd, request_take, reterr);
    if (code == HP_OK)
        code = read_line(fd, timeout_s, &line, reterr);
    if (code == HP_OK)
        code = hp_json_parse((const char *)line.data, line.len, ret, reterr);
    if (fd >= 0)
        close(fd);
    hp_buf_done(&line);
    json_decref(request_take);
    return code;
}
