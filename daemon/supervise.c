/* Children on a socketpair.
 *
 * DESIGN Two things end a child for us: its exit status and the end of its
 * pipe. Both must have come before on_end is called, so that a "done" that was
 * written just before a crash counts as done.
 */
#include "daemon/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/path.h"
#include "daemon/child.h"

enum { END_PATIENCE_S = 10 };

struct hp_process {
    uv_process_t process;
    uv_pipe_t pipe;
    uv_timer_t timer;
    hp_process_events events;
    void *payload;
    hp_buf inbox;
    int limit_s;
    bool exited, eof, ended;
    bool timed_out, killed;
    int64_t status;
    int signal;
    int open_handles;
};

typedef struct send_request {
    uv_write_t write;
    char *line;
} send_request;

static void on_closed(uv_handle_t *handle)
{
    hp_process *p = handle->data;

    if (--p->open_handles > 0)
        return;
    hp_buf_done(&p->inbox);
    free(p);
}

static void close_handle(uv_handle_t *handle)
{
    if (!uv_is_closing(handle))
        uv_close(handle, on_closed);
}

static void describe_end(const hp_process *p, char *ret, size_t size)
{
    if (p->timed_out)
        snprintf(ret, size, "killed after %d s", p->limit_s);
    else if (p->signal != 0)
        snprintf(ret, size, "killed by signal %d", p->signal);
    else
        snprintf(ret, size, "exit %d", (int)p->status);
}

static void maybe_end(hp_process *p)
{
    char words[48];

    if (!p->exited || !p->eof || p->ended)
        return;
    p->ended = true;
    describe_end(p, words, sizeof words);
    uv_timer_stop(&p->timer);
    p->events.on_end(p->signal == 0 && p->status == 0, words, p->payload);
    close_handle((uv_handle_t *)&p->pipe);
    close_handle((uv_handle_t *)&p->timer);
    close_handle((uv_handle_t *)&p->process);
}

static void on_exited(uv_process_t *process, int64_t status, int signal)
{
    hp_process *p = process->data;

    p->exited = true;
    p->status = status;
    p->signal = signal;
    maybe_end(p);
}

/* ---- what it says ---- */

static void one_line(hp_process *p, const char *text, size_t len)
{
    hp_auto(json_t) *msg = NULL;
    hp_error err = HP_ERROR_INIT;

    if (hp_json_parse(text, len, &msg, &err) != HP_OK) {
        hp_log(HP_LOG_ERROR, "child speaks no JSON pid=%d error=\"%s\", killing it",
               hp_process_pid(p), err.msg);
        hp_process_kill(p);
        return;
    }
    p->events.on_message(msg, p->payload);
}

static void take_lines(hp_process *p)
{
    for (;;) {
        uint8_t *end = p->inbox.len ? memchr(p->inbox.data, '\n', p->inbox.len) : NULL;
        size_t len;

        if (end == NULL)
            break;
        len = (size_t)(end - p->inbox.data);
        if (!p->killed) /* what a killed one had to say is of no interest */
            one_line(p, (const char *)p->inbox.data, len);
        hp_buf_consume(&p->inbox, len + 1);
    }
    if (p->inbox.len > HP_CHILD_MAX_LINE || p->inbox.failed) {
        hp_log(HP_LOG_ERROR, "child's message is too long pid=%d, killing it",
               hp_process_pid(p));
        hp_buf_clear(&p->inbox);
        hp_process_kill(p);
    }
}

static void on_alloc(uv_handle_t *handle, size_t hint, uv_buf_t *ret)
{
    hp_process *p = handle->data;

    (void)hint;
    if (!hp_buf_reserve(&p->inbox, 65536)) {
        *ret = uv_buf_init(NULL, 0);
        return;
    }
    *ret = uv_buf_init((char *)p->inbox.data + p->inbox.len, 65536);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    hp_process *p = stream->data;

    (void)buf;
    if (n > 0) {
        p->inbox.len += (size_t)n;
        take_lines(p);
        return;
    }
    if (n == 0)
        return;
    uv_read_stop(stream);
    p->eof = true;
    /* It closed its end and lives on: nothing more can come of it. */
    if (!p->exited && !p->killed)
        hp_process_deadline(p, END_PATIENCE_S);
    maybe_end(p);
}

/* ---- starting ---- */

static void on_timer(uv_timer_t *timer)
{
    hp_process *p = timer->data;

    p->timed_out = true;
    hp_process_kill(p);
}

static hp_code spawn(hp_process *p, uv_loop_t *loop, const char *program,
                     hp_error *reterr)
{
    char parent[40];
    char *args[] = {(char *)program, NULL};
    char *env[96];
    uv_stdio_container_t stdio[4] = {
        {.flags = UV_IGNORE},
        {.flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO},
        {.flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO},
        {.flags = UV_CREATE_PIPE | UV_READABLE_PIPE | UV_WRITABLE_PIPE,
         .data.stream = (uv_stream_t *)&p->pipe}};
    uv_process_options_t options = {.exit_cb = on_exited,
                                    .file = program,
                                    .args = args,
                                    .stdio_count = 4,
                                    .stdio = stdio};
    int n = 0, err;

    snprintf(parent, sizeof parent, "HEPAR_PARENT=%d", (int)getpid());
    env[n++] = parent;
    for (char **e = environ; *e != NULL && n < 94; e++)
        if (strncmp(*e, "HEPAR_PARENT=", 13) != 0)
            env[n++] = *e;
    env[n] = NULL;
    options.env = env;
    /* libuv closes nothing in the child: whatever we hold or were started with
     * must go by itself. */
    close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    err = uv_spawn(loop, &p->process, &options);
    if (err != 0)
        return hp_fail(reterr, err == UV_ENOENT ? HP_E_NOT_FOUND : HP_E_IO,
                       "starting %s: %s", program, uv_strerror(err));
    return HP_OK;
}

hp_code hp_process_spawn(uv_loop_t *loop, const char *program,
                         const hp_process_events *events, void *payload, hp_process **ret,
                         hp_error *reterr)
{
    hp_process *p = calloc(1, sizeof *p);
    hp_code code;

    if (p == NULL)
        return hp_fail(reterr, HP_E_NO_MEMORY, "no memory for a child");
    p->events = *events;
    p->payload = payload;
    p->open_handles = 3;
    p->process.data = p->pipe.data = p->timer.data = p;
    uv_pipe_init(loop, &p->pipe, 0);
    uv_timer_init(loop, &p->timer);
    code = spawn(p, loop, program, reterr);
    if (code != HP_OK) {
        /* uv_spawn leaves the process handle initialised but not running */
        close_handle((uv_handle_t *)&p->pipe);
        close_handle((uv_handle_t *)&p->timer);
        close_handle((uv_handle_t *)&p->process);
        return code;
    }
    uv_read_start((uv_stream_t *)&p->pipe, on_alloc, on_read);
    *ret = p;
    return HP_OK;
}

/* ---- what it is told ---- */

int hp_process_pid(const hp_process *p)
{
    return uv_process_get_pid(&p->process);
}

static void on_written(uv_write_t *write, int status)
{
    send_request *s = (send_request *)write;

    (void)status; /* a child that cannot be written to has ended: on_end tells */
    free(s->line);
    free(s);
}

void hp_process_send_take(hp_process *p, json_t *msg)
{
    send_request *s = calloc(1, sizeof *s);
    size_t len;
    uv_buf_t buf;

    if (s != NULL && msg != NULL)
        s->line = json_dumps(msg, JSON_COMPACT);
    json_decref(msg);
    if (s == NULL || s->line == NULL) {
        free(s);
        hp_process_kill(p); /* no memory to give it work: its end is handled */
        return;
    }
    len = strlen(s->line);
    s->line[len] = '\n'; /* in the terminator's place: the length is explicit */
    buf = uv_buf_init(s->line, (unsigned)len + 1);
    if (uv_is_closing((uv_handle_t *)&p->pipe) ||
        uv_write(&s->write, (uv_stream_t *)&p->pipe, &buf, 1, on_written) != 0) {
        free(s->line);
        free(s);
    }
}

void hp_process_deadline(hp_process *p, int seconds)
{
    p->limit_s = seconds;
    if (seconds > 0)
        uv_timer_start(&p->timer, on_timer, (uint64_t)seconds * 1000, 0);
    else
        uv_timer_stop(&p->timer);
}

void hp_process_kill(hp_process *p)
{
    p->killed = true;
    if (!p->exited)
        uv_process_kill(&p->process, SIGKILL);
}

static void on_shutdown(uv_shutdown_t *request, int status)
{
    (void)status;
    free(request);
}

void hp_process_end(hp_process *p)
{
    uv_shutdown_t *request = malloc(sizeof *request);

    if (request == NULL ||
        uv_shutdown(request, (uv_stream_t *)&p->pipe, on_shutdown) != 0)
        free(request);
    hp_process_deadline(p, END_PATIENCE_S);
}

/* ---- asking once ---- */

static void last_words(int fd, char *ret, size_t size)
{
    size_t len = 0;
    ssize_t n;

    while ((n = read(fd, ret + len, size - 1 - len)) > 0 || (n < 0 && errno == EINTR)) {
        if (n > 0)
            len += (size_t)n;
        if (len > size / 2) { /* keep the end, where the reason stands */
            memmove(ret, ret + len - size / 2, size / 2);
            len = size / 2;
        }
    }
    while (len > 0 && (ret[len - 1] == '\n' || ret[len - 1] == ' '))
        len--;
    ret[len] = '\0';
}

/* Everything in the file of an answer. */
static hp_code read_answer(int fd, hp_buf *ret, hp_error *reterr)
{
    ssize_t n = 0;

    if (lseek(fd, 0, SEEK_SET) != 0)
        return hp_fail_errno(reterr, errno, "reading an answer");
    do {
        if (!hp_buf_reserve(ret, 4096))
            return hp_fail(reterr, HP_E_NO_MEMORY, "no memory for an answer");
        n = read(fd, ret->data + ret->len, 4096);
        if (n > 0)
            ret->len += (size_t)n;
    } while (n > 0 || (n < 0 && errno == EINTR));
    return n == 0 ? HP_OK : hp_fail_errno(reterr, errno, "reading an answer");
}

static hp_code spawn_and_wait(const char *program, char **argv, int answer, int out,
                              int in, char *words, size_t size, int *ret_status,
                              hp_error *reterr)
{
    posix_spawn_file_actions_t actions;
    pid_t pid;
    int err, status = 0;

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, answer, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out, STDERR_FILENO);
    err = posix_spawn(&pid, program, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(out);
    if (err != 0) {
        close(in);
        return hp_fail_errno(reterr, err, "starting %s", program);
    }
    last_words(in, words, size);
    close(in);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    *ret_status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (*ret_status == 0)
        return HP_OK;
    return hp_fail(reterr, HP_E_INVALID, "%.200s",
                   words[0] ? words : "it ended without a word");
}

hp_code hp_process_ask(const char *program, const char *const *args, hp_buf *ret_answer,
                       int *ret_status, hp_error *reterr)
{
    char words[512] = "";
    char *argv[8] = {(char *)program};
    int fds[2], answer;
    hp_code r;

    for (int i = 0; i < 6 && args[i] != NULL; i++)
        argv[i + 1] = (char *)args[i];
    /* A file, so that nobody need read two pipes at once. */
    answer = memfd_create("answer", MFD_CLOEXEC);
    if (answer < 0)
        return hp_fail_errno(reterr, errno, "asking %s", program);
    if (pipe2(fds, O_CLOEXEC) != 0) {
        r = hp_fail_errno(reterr, errno, "asking %s", program);
        close(answer);
        return r;
    }
    r = spawn_and_wait(program, argv, answer, fds[1], fds[0], words, sizeof words,
                       ret_status, reterr);
    if (r == HP_OK)
        r = read_answer(answer, ret_answer, reterr);
    close(answer);
    return r;
}

hp_code hp_process_program(const char *configured, const char *name, char ret[],
                           hp_error *reterr)
{
    char self[HP_PATH_MAX];
    size_t size = sizeof self;
    hp_code code;

    if (configured[0] != '\0')
        return hp_path_fmt(ret, reterr, "%s", configured);
    if (uv_exepath(self, &size) == 0 && strrchr(self, '/') != NULL) {
        *strrchr(self, '/') = '\0';
        code = hp_path_fmt(ret, reterr, "%s/%s", self, name);
        if (code != HP_OK || access(ret, X_OK) == 0)
            return code;
    }
    return hp_path_fmt(ret, reterr, "%s/%s", HP_LIBEXEC_DIR, name);
}
