/* heparctl conformance: the part of the DICOM conformance statement that this
 * node's configuration decides. The rest is docs/conformance.md. */
#include <stdio.h>

#include "daemon/heparctl.h"
#include "daemon/table.h"
#include "dicom/ul.h"

static json_t *as_json(const hp_config *c)
{
    json_t *allow = json_array(), *peers = json_array(), *classes = json_array();

    for (int i = 0; i < c->intake.allow_count; i++)
        json_array_append_new(allow, json_pack("{ss,ss}", "ae_title",
                                               c->intake.allow[i].ae_title, "address",
                                               c->intake.allow[i].address));
    for (int i = 0; i < c->intake.sop_class_count; i++)
        json_array_append_new(classes, json_string(c->intake.sop_classes[i].text));
    for (int i = 0; i < c->peer_count; i++)
        json_array_append_new(
            peers, json_pack("{ss,ss,ss,si,ss,sb}", "name", c->peers[i].name, "ae_title",
                             c->peers[i].ae_title, "host", c->peers[i].host, "port",
                             c->peers[i].port, "calling_ae_title", c->peers[i].calling_ae,
                             "results", c->peers[i].results));
    return json_pack("{ss,ss,si,ss,ss,so,si,si,sI,si,si,si,so,so,ss}", "ae_title",
                     c->ae_title, "listen", c->listen, "port", c->port,
                     "implementation_class_uid", HP_IMPLEMENTATION_CLASS_UID,
                     "implementation_version", HP_IMPLEMENTATION_VERSION, "may_send",
                     allow, "max_associations", c->intake.max_associations,
                     "max_associations_per_peer", c->intake.max_associations_per_peer,
                     "max_object_bytes", (json_int_t)c->intake.max_object_bytes,
                     "artim_s", c->intake.artim_s, "progress_s", c->intake.progress_s,
                     "idle_s", c->intake.idle_s, "extra_sop_classes", classes, "peers",
                     peers, "sc_modality", c->report.sc_modality);
}

static void print_who(const hp_config *c)
{
    hp_table *t = hp_table_new("CALLING AE TITLE|ADDRESS");

    puts("\nMay connect");
    for (int i = 0; i < c->intake.allow_count; i++) {
        hp_table_text(t, c->intake.allow[i].ae_title);
        hp_table_text(t, c->intake.allow[i].address);
    }
    if (c->intake.allow_count == 0)
        puts("  nobody (intake.allow is empty)");
    else
        hp_table_print(t, stdout, "  ");
    hp_table_free(t);
}

static void print_where(const hp_config *c)
{
    hp_table *t = hp_table_new("PEER|CALLED AE TITLE|CALLING AE TITLE|ADDRESS|RESULTS");

    puts("\nAssociations to (C-STORE SCU, C-ECHO SCU)");
    for (int i = 0; i < c->peer_count; i++) {
        hp_table_text(t, c->peers[i].name);
        hp_table_text(t, c->peers[i].ae_title);
        hp_table_text(t, c->peers[i].calling_ae);
        hp_table_fmt(t, "%s:%d", c->peers[i].host, c->peers[i].port);
        hp_table_text(t, c->peers[i].results ? "yes" : "no");
    }
    if (c->peer_count == 0)
        puts("  nobody");
    else
        hp_table_print(t, stdout, "  ");
    hp_table_free(t);
}

int hp_ctl_conformance(hp_ctl *ctl)
{
    const hp_config *c = ctl->config;

    if (ctl->json) {
        hp_auto(json_t) *j = as_json(c);
        hp_ctl_print_json(j);
        return HP_EXIT_DONE;
    }
    printf("AE title                   %s on %s, port %d\n", c->ae_title, c->listen,
           c->port);
    printf("Implementation Class UID   %s\n", HP_IMPLEMENTATION_CLASS_UID);
    printf("Implementation version     %s\n", HP_IMPLEMENTATION_VERSION);
    printf("Receives                   C-STORE SCP, C-ECHO SCP\n");
    printf("Associations               at most %d, %d from one address\n",
           c->intake.max_associations, c->intake.max_associations_per_peer);
    printf(
        "Largest object             %lld bytes; refused below %lld bytes of free disk\n",
        (long long)c->intake.max_object_bytes, (long long)c->intake.disk_reserve_bytes);
    printf(
        "Deadlines                  %d s for a request (ARTIM), %d s without progress, "
        "%d s idle\n",
        c->intake.artim_s, c->intake.progress_s, c->intake.idle_s);
    printf("SOP classes                the default list");
    for (int i = 0; i < c->intake.sop_class_count; i++)
        printf(", %s", c->intake.sop_classes[i].text);
    printf("\nKey images                 Secondary Capture, modality %s\n",
           c->report.sc_modality);
    print_who(c);
    print_where(c);
    puts("\nStatus codes, transfer syntaxes and the objects that are made: "
         "docs/conformance.md");
    return HP_EXIT_DONE;
}
