/* hepar-sender: delivers result objects to one peer at a time.
 *
 * DESIGN DCMTK's network code meets the outside only here, in a process that
 * may die. It keeps nothing: hepard hands over a group of objects, each gets an
 * answer, and the queue with its retries is the ledger's. hepard runs one
 * sender for each peer, so a dead peer delays nobody else.
 *
 * In:  {"do":"send","delivery_group":G,"peer":{name,ae_title,host,port,
 *       calling_ae,timeout_s},"items":[{"delivery":D,"path","sop_class",
 *       "sop_instance"}]}
 *      {"do":"echo","peer":{...}}
 * Out: {"event":"sent","delivery_group":G,"delivery":D,"code":"OK","status":0,
 *       "reached":true,"words":""} for each item as soon as it has its answer,
 *      then {"event":"group","delivery_group":G};
 *      {"event":"echo","peer":name,"code":"OK","ms":1.2,"words":""}
 * An "id" in the message comes back in its answers.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "daemon/child.h"
#include "dicom/scu.h"

enum { MAX_ITEMS = 64 };

static void copy_text(char *to, size_t size, const json_t *obj, const char *key)
{
    snprintf(to, size, "%s", hp_json_str(obj, key, ""));
}

static void read_peer(const json_t *msg, hp_peer *p)
{
    const json_t *j = json_object_get(msg, "peer");

    memset(p, 0, sizeof *p);
    copy_text(p->name, sizeof p->name, j, "name");
    copy_text(p->ae_title, sizeof p->ae_title, j, "ae_title");
    copy_text(p->host, sizeof p->host, j, "host");
    copy_text(p->calling_ae, sizeof p->calling_ae, j, "calling_ae");
    p->port = (int)hp_json_int(j, "port", 104);
    p->timeout_s = (int)hp_json_int(j, "timeout_s", 30);
}

/* Starts an answer: the event and the ids that belong to the question. */
static json_t *answer(const json_t *msg, const char *event)
{
    static const char *const keys[] = {"id", "delivery_group"};
    json_t *a = json_object();

    json_object_set_new(a, "event", json_string(event));
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (json_object_get(msg, keys[i]) != NULL)
            json_object_set(a, keys[i], json_object_get(msg, keys[i]));
    return a;
}

static void put_code(json_t *a, hp_code code, const char *words)
{
    json_object_set_new(a, "code", json_string(hp_code_name(code)));
    json_object_set_new(a, "words", json_string(words));
}

typedef struct group {
    const json_t *msg;
    size_t next; /* items are answered in order */
} group;

static void tell_item(const hp_send_item *item, bool reached, void *payload)
{
    group *g = payload;
    const json_t *items = json_object_get(g->msg, "items");
    json_t *a = answer(g->msg, "sent");

    json_object_set(a, "delivery",
                    json_object_get(json_array_get(items, g->next++), "delivery"));
    put_code(a, item->code, item->words);
    if (item->status != HP_SCU_NO_STATUS)
        json_object_set_new(a, "status", json_integer(item->status));
    json_object_set_new(a, "reached", json_boolean(reached));
    hp_child_write_take(a);
}

static void do_send(const json_t *msg)
{
    const json_t *list = json_object_get(msg, "items");
    group g = {msg, 0};
    hp_send_item item[MAX_ITEMS];
    size_t count = json_array_size(list);
    hp_peer peer;

    memset(item, 0, sizeof item);
    read_peer(msg, &peer);
    /* More than one association holds goes in several, in order. */
    for (size_t first = 0; first < count; first += MAX_ITEMS) {
        size_t n = count - first < MAX_ITEMS ? count - first : MAX_ITEMS;

        for (size_t i = 0; i < n; i++) {
            const json_t *j = json_array_get(list, first + i);

            item[i].path = hp_json_str(j, "path", "");
            copy_text(item[i].sop_class.text, HP_UID_SIZE, j, "sop_class");
            copy_text(item[i].sop_instance.text, HP_UID_SIZE, j, "sop_instance");
        }
        hp_scu_send(&peer, item, (int)n, tell_item, &g,
                    NULL); /* each item has its answer */
    }
    hp_child_write_take(answer(msg, "group"));
}

static void do_echo(const json_t *msg)
{
    json_t *a = answer(msg, "echo");
    hp_error e = HP_ERROR_INIT;
    hp_peer peer;
    double ms = 0;
    hp_code code;

    read_peer(msg, &peer);
    code = hp_scu_echo(&peer, &ms, &e);
    json_object_set_new(a, "peer", json_string(peer.name));
    put_code(a, code, e.msg);
    json_object_set_new(a, "ms", json_real(ms));
    hp_child_write_take(a);
}

int main(int argc, char **argv)
{
    hp_error e = HP_ERROR_INIT;

    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        printf("usage: hepar-sender\n"
               "\n"
               "Delivers results for hepard, which starts it.\n");
        return 0;
    }
    hp_child_start();
    for (;;) {
        hp_auto(json_t) *msg = NULL;
        hp_code r = hp_child_read(&msg, &e);
        const char *what;

        if (r == HP_E_EMPTY)
            return 0; /* hepard has gone */
        if (r != HP_OK) {
            hp_log(HP_LOG_ERROR, "sender leaves reason=\"%s\"", e.msg);
            return 1;
        }
        what = hp_json_str(msg, "do", "");
        if (strcmp(what, "send") == 0)
            do_send(msg);
        else if (strcmp(what, "echo") == 0)
            do_echo(msg);
        else
            hp_log(HP_LOG_WARNING,
                   "sender does not know what to do with a message, skipping");
    }
}
