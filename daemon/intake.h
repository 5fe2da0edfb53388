/* The front door: listens, speaks DICOM, writes slices to the spool, and calls
 * the function it was given. It knows no ledger.
 *
 * Everything here runs on the loop thread. Disk writes run on libuv's pool. A
 * slice is answered only when `on_stored` has called back, so Success means
 * whatever the other side makes durable before it calls.
 *
 * Every connection has a deadline in every state, by libuv's monotonic clock.
 */
#ifndef HP_DAEMON_INTAKE_H
#define HP_DAEMON_INTAKE_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "dicom/spool.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Who may send: an AE title from an address. "*" allows any of that half; an
 * empty list allows nobody. Titles are case-sensitive. */
typedef struct hp_intake_peer {
    char ae_title[17];
    char address[64]; /* numeric IPv4 or IPv6, with or without "/bits", or "*" */
} hp_intake_peer;

typedef struct hp_intake_sink {
    void *payload;
    /* A slice is whole and durable in s->path, which now belongs to the callee.
     * `done(code, disposition, done_payload)` must be called once, on the loop
     * thread, at once or later, even when the connection has gone. `s` is
     * borrowed until `done`. */
    void (*on_stored)(void *payload, const hp_stored *s, hp_stored_cb done,
                      void *done_payload);
    /* (optional) An open association carries (+1) or no longer carries (-1)
     * this study. */
    void (*on_study)(void *payload, uint64_t association, const hp_uid *study, int delta);
    /* (optional) Something was refused, one call and one log line each. `what`
     * is "association", "store", "request" or "connection"; `study_uid` is ""
     * when it is not known, `status` the DIMSE status or 0. All text is safe. */
    void (*on_refused)(void *payload, const char *what, const char *peer,
                       const char *calling_ae, const char *study_uid, unsigned status,
                       const char *why);
} hp_intake_sink;

typedef struct hp_intake_options {
    const char *host; /* numeric; default 127.0.0.1 */
    int port;         /* 0: any, see hp_intake_port() */
    const char *ae_title;
    const hp_intake_peer *peer; /* copied */
    int peer_count;
    const char *const *extra_class; /* SOP classes taken beyond the default list */
    int extra_class_count;
    const char *spool_dir; /* exists; slices go here */
    uint64_t max_object_bytes;
    uint64_t reserve_bytes; /* below this much free space nothing new is taken */
    int max_associations;   /* more are rejected 2/3/2 */
    int max_associations_per_peer;
    int max_connections; /* more, or more than half from one address, are closed at
                          * once */
    /* deadlines, milliseconds */
    int artim_ms;    /* a request must have come; the peer must have closed */
    int progress_ms; /* inside a PDU or message, or with an answer unread */
    int idle_ms;     /* between messages */
    int disk_check_ms;
    /* (optional) Free bytes at the spool; default statvfs. Any thread. */
    uint64_t (*free_bytes)(const char *dir);
    hp_intake_sink sink;
} hp_intake_options;

void hp_intake_options_init(hp_intake_options *o); /* the defaults */

/* The SOP classes that are taken without being asked for, Verification included.
 * NULL at the end. */
extern const char *const hp_intake_default_classes[];

typedef struct hp_intake_stats {
    uint64_t connections, associations, rejected_associations, aborted;
    uint64_t not_dicom, timed_out;
    uint64_t received;                          /* C-STORE requests answered or lost */
    uint64_t stored, duplicate, conflict, echo; /* answered 0000 */
    uint64_t refused_disk, refused_mismatch, refused_unreadable, refused_failure;
    uint64_t refused_class; /* 0122H */
    uint64_t cut_off;       /* association ended inside a message */
    uint64_t bytes;         /* dataset bytes received */
    int open_connections, open_associations;
} hp_intake_stats;

typedef struct hp_intake hp_intake;

/* Checks the options, binds and listens. On failure there is nothing to do. */
hp_code hp_intake_open(uv_loop_t *loop, const hp_intake_options *o, hp_intake **ret,
                       hp_error *reterr);
int hp_intake_port(const hp_intake *in);
void hp_intake_stats_get(const hp_intake *in, hp_intake_stats *ret);

/* Stops listening, aborts the associations, waits for writes and answers in
 * flight, frees `in`, then calls cb (may be NULL). Parts of unfinished slices
 * are removed. */
void hp_intake_close(hp_intake *in, void (*cb)(void *payload), void *payload);

#ifdef __cplusplus
}
#endif
#endif
