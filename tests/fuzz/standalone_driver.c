/* Runs a fuzz target over its corpus without libFuzzer: each file as it is,
 * and a few hundred deterministic mutations of each. So the corpus is a plain
 * test for every compiler.
 *
 *     fuzz_x FOLDER... */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/path.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { MUTATIONS = 300, INPUT_BYTES_MAX = 1 << 20 };

static uint64_t random_state = 88172645463325252ull;

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* A heap copy of exactly that size, so that a sanitizer sees one byte too far. */
static void run_exact(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);

    memcpy(copy, data, len);
    LLVMFuzzerTestOneInput(copy, len);
    free(copy);
}

static void mutate(hp_buf *b)
{
    static const uint8_t odd[] = {0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF};
    size_t at = next_random() % b->len;

    switch (next_random() % 4) {
    case 0:
        b->data[at] ^= (uint8_t)(1u << next_random() % 8);
        break;
    case 1:
        b->data[at] = odd[next_random() % sizeof odd];
        break;
    case 2:
        b->len = at + 1;
        break;
    default: /* a piece again, somewhere else */
        memmove(b->data + at, b->data + next_random() % b->len / 2, (b->len - at) / 2);
        break;
    }
}

static void run_file(const char *path)
{
    hp_buf original = HP_BUF_INIT, b = HP_BUF_INIT;

    if (hp_file_read(path, INPUT_BYTES_MAX, &original, NULL) != HP_OK ||
        original.len == 0)
        return;
    run_exact(original.data, original.len);
    for (int i = 0; i < MUTATIONS; i++) {
        hp_buf_clear(&b);
        hp_buf_put(&b, original.data, original.len);
        for (uint64_t n = 1 + next_random() % 4; n > 0; n--)
            mutate(&b);
        run_exact(b.data, b.len);
    }
    hp_buf_done(&original);
    hp_buf_done(&b);
}

int main(int argc, char **argv)
{
    int files = 0;

    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);

        if (!d)
            continue;
        for (struct dirent *e; (e = readdir(d));) {
            char path[HP_PATH_MAX];

            if (e->d_name[0] == '.' ||
                hp_path_fmt(path, NULL, "%s/%s", argv[i], e->d_name) != HP_OK)
                continue;
            run_file(path);
            files++;
        }
        closedir(d);
    }
    printf("%d files, %d mutations each\n", files, MUTATIONS);
    return files > 0 ? 0 : 1;
}
