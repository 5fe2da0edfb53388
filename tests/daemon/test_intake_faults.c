/* daemon/intake when the machine fails: the nth write, sync, rename or
 * allocation, for every n until none is left to fail. Whatever happens, nothing
 * is acknowledged that is not there, nothing half lies around, and the next
 * slice is taken. */
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "tests/fixture/dataset.h"
#include "tests/fixture/door.h"
#include "tests/fixture/faults.h"

static void make_slice(hp_buf *b, const char *instance, size_t pixel_bytes)
{
    hp_buf_clear(b);
    ds_slice_start(b, HP_EXPLICIT_LE, instance);
    ds_pixels(b, HP_EXPLICIT_LE, pixel_bytes);
}

static int next_instance;

/* One slice under the armed fault, then one without. Returns whether it struck. */
static bool strike(door *d, fault_kind k, int nth, int error)
{
    hp_buf slice = HP_BUF_INIT;
    int before = door_slices(d), status;
    char uid[32];
    bool struck;

    snprintf(uid, sizeof uid, "1.2.9.%d", ++next_instance);
    make_slice(&slice, uid, 400000);
    faults_arm(k, nth, error, false);
    status = client_try_store(d, uid, &slice);
    struck = faults_happened();
    faults_arm(k, 0, 0, false);
    if (struck && k != FAULT_MALLOC && k != FAULT_SHORT_WRITE)
        assert_true(status == 0xA700 || status == 0x0110 || status == 0);
    if (k == FAULT_SHORT_WRITE || !struck)
        assert_int_equal(status, 0);
    assert_true(door_wait(d, door_scraps, 0));
    /* acknowledged means there; refused means not there */
    if (status == 0)
        assert_int_equal(door_slices(d), before + 1);
    else if (status > 0)
        assert_int_equal(door_slices(d), before);
    hp_buf_done(&slice);
    return struck;
}

/* Twice: where names must be made first, and where there are some. */
static void strike_all(fault_kind k, int error)
{
    hp_intake_options o;
    int places[2] = {0, 0};
    door *d;

    door_options(&o);
    o.artim_ms = o.progress_ms = 2000;
    d = door_open(&o);
    for (int round = 0; round < 2; round++)
        while (strike(d, k, places[round] + 1, error))
            assert_true(++places[round] < 500);
    printf("%s: %d and %d places\n", fault_name(k), places[0], places[1]);
    assert_true(places[0] > 0 && (places[1] > 0 || k == FAULT_FSYNC));
    door_close(d);
}

static void test_intake__every_write_may_fail(void **state)
{
    (void)state;
    strike_all(FAULT_WRITE, ENOSPC);
    strike_all(FAULT_WRITE, EIO);
    strike_all(FAULT_WRITE, EDQUOT);
    strike_all(FAULT_SHORT_WRITE, 0);
    strike_all(FAULT_WRITE, EINTR);
}

static void test_intake__every_sync_and_mark_may_fail(void **state)
{
    (void)state;
    strike_all(FAULT_OPEN, ENOSPC);
    strike_all(FAULT_OPEN, EMFILE);
    strike_all(FAULT_FDATASYNC, EIO);
    strike_all(FAULT_FDATASYNC, ENOSPC);
    strike_all(FAULT_FSYNC, EIO);
    strike_all(FAULT_PWRITE, ENOSPC);
    strike_all(FAULT_PWRITE, EIO);
    strike_all(FAULT_CLOSE, EIO);
}

static void test_intake__every_allocation_may_fail(void **state)
{
    (void)state;
    strike_all(FAULT_MALLOC, ENOMEM);
}

/* A disk that stays full: A700 for all, and service again when there is room. */
static void test_intake__a_full_disk_is_a_normal_state(void **state)
{
    hp_buf slice = HP_BUF_INIT;
    hp_intake_options o;
    door *d;

    (void)state;
    door_options(&o);
    o.progress_ms = 2000;
    d = door_open(&o);
    make_slice(&slice, "1.2.3.1", 3 << 20);
    for (int round = 0; round < 5; round++) {
        faults_arm(FAULT_WRITE, 2 + round * 5, ENOSPC, true);
        assert_int_equal(client_try_store(d, "1.2.3.1", &slice), 0xA700);
        assert_int_equal(client_try_store(d, "1.2.3.1", &slice), 0xA700);
        faults_arm(FAULT_WRITE, 0, 0, false);
        assert_int_equal(door_scraps(d), 0);
        assert_int_equal(door_slices(d), 0);
    }
    assert_int_equal(client_try_store(d, "1.2.3.1", &slice), 0);
    door_close(d);
    hp_buf_done(&slice);
}

/* R8: no descriptor left for one more connection, and none for a file. */
static void test_intake__without_descriptors_it_recovers(void **state)
{
    enum { PEERS = 60, LATE = 20 };
    hp_intake_options o;
    hp_buf slice = HP_BUF_INIT;
    struct rlimit old, few;
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fds[PEERS], late[LATE], status;
    door *d;

    (void)state;
    door_options(&o);
    o.artim_ms = 1500;
    d = door_open(&o);
    make_slice(&slice, "1.2.3.1", 1000);
    for (int i = 0; i < LATE; i++) /* ours are made before they run out */
        late[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    for (int i = 0; i < PEERS; i++)
        fds[i] = client_connect(d);
    usleep(100000);
    getrlimit(RLIMIT_NOFILE, &old);
    few = old;
    few.rlim_cur = (rlim_t)fds[PEERS - 1] + PEERS / 2; /* fewer than are open */
    setrlimit(RLIMIT_NOFILE, &few);
    a.sin_port = htons((uint16_t)door_port(d));
    for (int i = 0; i < LATE; i++) { /* closed at once: nothing waits in the backlog */
        assert_int_equal(connect(late[i], (struct sockaddr *)&a, sizeof a), 0);
        assert_true(client_at_eof(late[i]));
        close(late[i]);
    }
    for (int i = 0; i < PEERS; i++)
        close(fds[i]);
    setrlimit(RLIMIT_NOFILE, &old);
    usleep(100000);
    status = client_try_store(d, "1.2.3.1", &slice);
    assert_int_equal(status, 0);
    door_close(d);
    hp_buf_done(&slice);
}

/* A disk that hangs: the peer is stopped, the loop is not, others are served. */
static void test_intake__a_hanging_disk_stops_the_peer_and_not_the_loop(void **state)
{
    hp_buf slice = HP_BUF_INIT, b = HP_BUF_INIT, cmd = HP_BUF_INIT;
    struct timeval brief = {0, 300000};
    hp_intake_options o;
    hp_intake_stats t;
    int fd, other;
    door *d;

    (void)state;
    door_options(&o);
    o.progress_ms = o.idle_ms = 20000;
    d = door_open(&o);
    make_slice(&slice, "1.2.3.1", 24 << 20);
    fd = client_associate(d);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &brief, sizeof brief);
    faults_stall_writes(true);
    client_store(fd, "1.2.3.1", &slice, 131066); /* gives up when the socket is full */
    door_stats(d, &t);
    assert_true(t.bytes > 512 << 10);
    assert_true(t.bytes <= (512 + 128 + 128) << 10);
    other = client_associate(d); /* the loop lives */
    put_command_set(&cmd, 0x0030, "1.2.840.10008.1.1", "", false);
    put_pdata(&b, CONTEXT_ECHO, 3, cmd.data, cmd.len);
    client_send(other, b.data, b.len);
    assert_int_equal(client_status(other), 0);
    faults_stall_writes(false);
    close(other);
    close(fd);
    assert_true(door_wait(d, door_scraps, 0));
    door_close(d);
    hp_buf_done(&slice);
    hp_buf_done(&b);
    hp_buf_done(&cmd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_intake__every_write_may_fail),
        cmocka_unit_test(test_intake__every_sync_and_mark_may_fail),
        cmocka_unit_test(test_intake__every_allocation_may_fail),
        cmocka_unit_test(test_intake__a_full_disk_is_a_normal_state),
        cmocka_unit_test(test_intake__a_hanging_disk_stops_the_peer_and_not_the_loop),
        cmocka_unit_test(test_intake__without_descriptors_it_recovers),
    };

    faults_spare_me();
    hp_log_set_level(getenv("HEPAR_TEST_LOG") ? HP_LOG_DEBUG : HP_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
