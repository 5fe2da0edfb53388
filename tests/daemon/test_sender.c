/* hepar-sender as hepard sees it: JSON lines on fd 3. argv[1] is the program. */
#include "tests/base/check.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/json.h"
#include "dicom/report.h"
#include "tests/fixture/fake_pacs.h"
#include "tests/fixture/report_world.h"

static const char *program;

typedef struct sender {
    pid_t pid;
    FILE *in, *out;
} sender;

static void sender_start(sender *s)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    s->pid = fork();
    assert_true(s->pid >= 0);
    if (s->pid == 0) {
        if (pair[1] == 3 ? fcntl(3, F_SETFD, 0) != 0 : dup2(pair[1], 3) < 0)
            _exit(9);
        execl(program, program, (char *)NULL);
        _exit(9);
    }
    close(pair[1]);
    s->out = fdopen(pair[0], "w");
    s->in = fdopen(dup(pair[0]), "r");
    assert_non_null(s->out);
    assert_non_null(s->in);
}

/* Hangs up; the exit status. */
static int sender_end(sender *s)
{
    int status;

    fclose(s->out);
    fclose(s->in);
    assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void tell_take(sender *s, json_t *msg)
{
    assert_non_null(msg);
    json_dumpf(msg, s->out, JSON_COMPACT);
    fputc('\n', s->out);
    fflush(s->out);
    json_decref(msg);
}

static json_t *hear(sender *s)
{
    char line[4096];
    json_t *j = NULL;

    assert_non_null(fgets(line, sizeof line, s->in));
    assert_int_equal(hp_json_parse(line, strlen(line), &j, NULL), HP_OK);
    return j;
}

static json_t *peer_json(int port)
{
    return json_pack("{ss,ss,ss,si,ss,si}", "name", "pacs", "ae_title", "PACS", "host",
                     "127.0.0.1", "port", port, "calling_ae", "HEPAR", "timeout_s", 2);
}

static void check_sent(sender *s, int delivery, const char *code, int status,
                       bool reached)
{
    hp_auto(json_t) *a = hear(s);

    assert_string_equal(hp_json_str(a, "event", ""), "sent");
    assert_int_equal(hp_json_int(a, "delivery_group", 0), 5);
    assert_int_equal(hp_json_int(a, "delivery", 0), delivery);
    assert_string_equal(hp_json_str(a, "code", ""), code);
    assert_int_equal(hp_json_int(a, "status", -1), status);
    assert_int_equal(hp_json_bool(a, "reached", -1), reached);
}

static void test_sender__answers_for_each_object(void **state)
{
    hp_report_object object[HP_REPORT_OBJECTS_MAX];
    report_world w;
    fake_pacs pacs;
    sender s;
    json_t *items = json_array(), *end;
    int count;

    (void)state;
    report_world_init(&w, 15);
    assert_int_equal(hp_report_write(&w.report, w.dir, object, &count, NULL), HP_OK);
    for (int i = 0; i < count; i++) {
        char path[HP_PATH_MAX + 32];

        snprintf(path, sizeof path, "%s/%s", w.dir, object[i].file);
        json_array_append_new(
            items, json_pack("{si,ss,ss,ss}", "delivery", 41 + i, "path", path,
                             "sop_class", hp_result_kind_sop_class(object[i].kind),
                             "sop_instance", object[i].sop_instance.text));
    }
    fake_pacs_start(&pacs, &(fake_pacs_script){.status = {0x0000, 0xA700}});
    sender_start(&s);
    tell_take(&s, json_pack("{ss,si,so,so}", "do", "send", "delivery_group", 5, "peer",
                            peer_json(pacs.port), "items", items));
    check_sent(&s, 41, "OK", 0, true);
    check_sent(&s, 42, "E_REJECTED", 0xA700, true);
    end = hear(&s);
    assert_string_equal(hp_json_str(end, "event", ""), "group");
    json_decref(end);
    assert_int_equal(pacs.seen->associations, 1);
    fake_pacs_stop(&pacs);
    assert_int_equal(sender_end(&s), 0);
    report_world_done(&w);
}

static void test_sender__echo(void **state)
{
    fake_pacs pacs;
    sender s;
    json_t *a;

    (void)state;
    fake_pacs_start(&pacs, &(fake_pacs_script){0});
    sender_start(&s);
    tell_take(&s, json_pack("{ss,ss,so}", "do", "echo", "id", "e1", "peer",
                            peer_json(pacs.port)));
    a = hear(&s);
    assert_string_equal(hp_json_str(a, "event", ""), "echo");
    assert_string_equal(hp_json_str(a, "id", ""), "e1");
    assert_string_equal(hp_json_str(a, "code", ""), "OK");
    json_decref(a);
    fake_pacs_stop(&pacs);
    tell_take(&s, json_pack("{ss,so}", "do", "echo", "peer", peer_json(pacs.port)));
    a = hear(&s);
    assert_string_equal(hp_json_str(a, "code", ""), "E_CONNECT");
    json_decref(a);
    assert_int_equal(sender_end(&s), 0);
}

static void test_sender__survives_nonsense_and_ends_with_hepard(void **state)
{
    sender s;
    json_t *a;

    (void)state;
    sender_start(&s);
    tell_take(&s, json_pack("{ss}", "do", "dance"));
    tell_take(&s, json_pack("{ss,si}", "do", "send", "delivery_group", 9));
    a = hear(&s); /* nothing to send is soon done */
    assert_string_equal(hp_json_str(a, "event", ""), "group");
    json_decref(a);
    assert_int_equal(sender_end(&s), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sender__answers_for_each_object),
        cmocka_unit_test(test_sender__echo),
        cmocka_unit_test(test_sender__survives_nonsense_and_ends_with_hepard),
    };

    if (argc < 2)
        return 77;
    program = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
