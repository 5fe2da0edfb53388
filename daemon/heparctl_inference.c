/* The part of heparctl status about what reads the studies: device, precision, plan
 * cache, the models' load time, the networks' last times. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/path.h"
#include "daemon/heparctl.h"
#include "daemon/table.h"

enum { PLAN_CACHE_MAX = 4 << 20, PLAN_CACHE_HEAD = 2 };

/* Lines below the file's head; -1: not readable by who asks. */
static int count_plans(const char *path)
{
    hp_buf file = HP_BUF_INIT;
    int lines = -1;

    if (hp_file_read(path, PLAN_CACHE_MAX, &file, NULL) == HP_OK) {
        lines = -PLAN_CACHE_HEAD;
        for (size_t i = 0; i < file.len; i++)
            lines += file.data[i] == '\n';
        lines = lines > 0 ? lines : 0;
    }
    hp_buf_done(&file);
    return lines;
}

void hp_ctl_add_plan_cache(json_t *inference)
{
    char path[HP_PATH_MAX];
    bool exists;
    int plans;

    if (!json_is_object(inference))
        return;
    snprintf(path, sizeof path, "%s", hp_json_str(inference, "plan_cache", ""));
    if (path[0] == '\0') {
        json_object_set_new(inference, "plan_cache", json_null());
        return;
    }
    exists = hp_path_exists(path);
    plans = exists ? count_plans(path) : 0;
    json_object_set_new(inference, "plan_cache",
                        json_pack("{ss,sb,so}", "path", path, "exists", exists, "plans",
                                  plans < 0 ? json_null() : json_integer(plans)));
}

/* "640 ms", and from a second on as elsewhere. */
static const char *short_span(double ms, char ret[24])
{
    if (ms < 1000)
        snprintf(ret, 24, "%.0f ms", ms);
    else
        hp_table_span((int64_t)ms, ret);
    return ret;
}

static void print_device(const json_t *f)
{
    const char *device = hp_json_str(f, "device", ""), *what = hp_json_str(f, "what", "");
    const char *asked = hp_json_str(f, "asked", ""), *why = hp_json_str(f, "why", "");
    size_t n = strlen(device);

    printf("device     ");
    if (strncmp(what, device, n) != 0 || what[n] != ':')
        printf("%s: ", device);
    printf("%s\n", what);
    printf("           %s%s%s\n", asked, strcmp(asked, device) == 0 ? " was " : ": ",
           why);
    printf("precision  %s\n", hp_json_str(f, "precision", ""));
}

static void print_plan_cache(const json_t *f)
{
    const json_t *cache = json_object_get(f, "plan_cache");
    int64_t plans = hp_json_int(cache, "plans", -1);

    if (!json_is_object(cache)) {
        printf("plan cache not used on this device\n");
        return;
    }
    printf("plan cache %s, ", hp_json_str(cache, "path", ""));
    if (!hp_json_bool(cache, "exists", false))
        puts("not there yet");
    else if (plans < 0)
        puts("not readable");
    else
        printf("%" PRId64 " plan%s\n", plans, plans == 1 ? "" : "s");
}

static void print_model(const json_t *f)
{
    const json_t *bundle = json_object_get(f, "bundle");
    double compile_ms = hp_json_num(f, "compile_ms", 0);
    char open[24], compile[24], when[24];

    hp_table_when(hp_json_int(f, "opened_ms", 0), when);
    printf("model      %s %s, loaded in %s at %s; ", hp_json_str(bundle, "name", ""),
           hp_json_str(bundle, "version", ""),
           short_span(hp_json_num(f, "open_ms", 0), open), when);
    if (compile_ms > 0)
        printf("networks ready after %s more\n", short_span(compile_ms, compile));
    else
        puts("networks get ready with the next study");
}

static void print_times(const json_t *last)
{
    const char *name;
    char span[24], total[24];
    json_t *ms;
    double sum = 0;
    int i = 0;

    if (!json_is_object(last)) {
        puts("networks   no study was read yet");
        return;
    }
    json_object_foreach(json_object_get(last, "networks_ms"), name, ms) sum +=
        json_number_value(ms);
    hp_table_span(hp_json_int(last, "ended_ms", 0) - hp_json_int(last, "started_ms", 0),
                  total);
    printf("networks   %s of %s in job %" PRId64, short_span(sum, span), total,
           hp_json_int(last, "job", 0));
    json_object_foreach(json_object_get(last, "networks_ms"), name, ms) printf(
        "%s%s %s", i++ == 0 ? ": " : ", ", name, short_span(json_number_value(ms), span));
    putchar('\n');
}

void hp_ctl_print_inference(const json_t *status)
{
    const json_t *f = json_object_get(status, "inference");

    if (json_is_object(f)) {
        print_device(f);
        print_plan_cache(f);
        print_model(f);
    } else {
        puts("device     not known: no worker has said it yet");
    }
    print_times(json_object_get(status, "last_read"));
}
