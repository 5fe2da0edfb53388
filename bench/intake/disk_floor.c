/* The disk alone, in the ordinary durable order: for each image write, fdatasync,
 * rename, directory sync, and one 4 KiB append with fdatasync in place of the
 * ledger's commit. (hepar syncs once, docs/adr/0016.)
 *
 *     disk_floor DIR IMAGES BYTES THREADS */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *dir;
static int images, per_thread;
static size_t bytes;

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void must(int ok)
{
    if (!ok) {
        perror("disk_floor");
        exit(1);
    }
}

static void *work(void *arg)
{
    int id = (int)(intptr_t)arg, dirfd = open(dir, O_RDONLY | O_DIRECTORY), log;
    char part[512], final[512];
    uint8_t *data = malloc(bytes);
    static const char record[4096];

    snprintf(part, sizeof part, "%s/log%d", dir, id);
    log = open(part, O_WRONLY | O_CREAT | O_APPEND, 0600);
    must(log >= 0 && dirfd >= 0 && data != NULL);
    memset(data, id + 1, bytes);
    for (int i = 0; i < per_thread; i++) {
        int fd;

        snprintf(part, sizeof part, "%s/%d-%d.part", dir, id, i);
        snprintf(final, sizeof final, "%s/%d-%d.dcm", dir, id, i);
        fd = open(part, O_WRONLY | O_CREAT | O_EXCL, 0600);
        must(fd >= 0 && write(fd, data, bytes) == (ssize_t)bytes && fdatasync(fd) == 0);
        close(fd);
        must(rename(part, final) == 0 && fsync(dirfd) == 0);
        must(write(log, record, sizeof record) == sizeof record && fdatasync(log) == 0);
    }
    free(data);
    close(log);
    close(dirfd);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t t[64];
    int threads;
    double start;

    if (argc != 5)
        return 2;
    dir = argv[1];
    images = (int)strtol(argv[2], NULL, 10);
    bytes = (size_t)strtol(argv[3], NULL, 10);
    threads = (int)strtol(argv[4], NULL, 10);
    must(threads > 0 && threads <= 64);
    per_thread = images / threads;
    start = now();
    for (int i = 0; i < threads; i++)
        pthread_create(&t[i], NULL, work, (void *)(intptr_t)i);
    for (int i = 0; i < threads; i++)
        pthread_join(t[i], NULL);
    printf("%.1f\n", per_thread * threads / (now() - start));
    return 0;
}
