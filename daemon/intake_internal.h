/* The front door's own: a listener has connections, a connection has at most
 * one slice on its way to disk.
 *
 * A connection handles one message at a time. While a message is being
 * answered nothing further is read from that peer, so a release or a second
 * request that is already on the wire waits its turn in the socket. */
#ifndef HP_DAEMON_INTAKE_INTERNAL_H
#define HP_DAEMON_INTAKE_INTERNAL_H

#include "base/buf.h"
#include "daemon/intake.h"
#include "dicom/dimse.h"
#include "dicom/scan.h"
#include "dicom/ul.h"

enum {
    HP_INTAKE_READ_BYTES = 128 * 1024,
    HP_INTAKE_BLOCK_BYTES = 128 * 1024,
    HP_INTAKE_UNWRITTEN_MAX = 512 * 1024,
    HP_INTAKE_PROGRESS_BYTES = 4096 /* less than this in progress_ms is none */
};

typedef struct hp_intake_conn hp_intake_conn;
typedef struct hp_intake_slice hp_intake_slice;

typedef struct hp_intake_block {
    struct hp_intake_block *next;
    size_t len;
    uint8_t data[HP_INTAKE_BLOCK_BYTES];
} hp_intake_block;

/* One allowed sender, its address taken apart. */
typedef struct hp_intake_rule {
    char ae_title[17]; /* "*": any */
    bool any_address;
    uint8_t address[16]; /* IPv4 as ::ffff:a.b.c.d */
    int bits;            /* of 128 */
} hp_intake_rule;

struct hp_intake {
    uv_loop_t *loop;
    hp_intake_options o; /* its strings point into `strings` */
    hp_buf strings;
    hp_spool *spool; /* the pool's threads use it */
    hp_intake_rule *rule;
    const char **extra_class;
    uv_tcp_t listener;
    uv_timer_t disk_timer;
    uv_work_t disk_work;
    bool disk_work_busy, accept_again;
    int port;
    uint64_t free_bytes; /* at the last look, less what was written since */
    uint64_t seen_free;  /* filled by the disk work */
    uint64_t next_id;
    uint64_t crowd_said_ms; /* loop time of the last line about too many connections */
    hp_intake_conn *conns;
    hp_intake_block *spare; /* a few written blocks, to be used again */
    int spare_count;
    hp_intake_stats stats;
    uint8_t read_buffer[HP_INTAKE_READ_BYTES]; /* one for all: used inside one callback */
    /* closing */
    bool closing;
    int live; /* handles, slices and works that must end before free */
    void (*close_cb)(void *payload);
    void *close_payload;
};

/* Why a connection is not being read just now. */
enum { HP_PAUSE_ANSWER = 1, HP_PAUSE_DISK = 2, HP_PAUSE_WRITE = 4 };

typedef enum hp_intake_deadline {
    HP_DEADLINE_NONE,
    HP_DEADLINE_REQUEST,  /* ARTIM: an association request */
    HP_DEADLINE_PROGRESS, /* inside a PDU or message */
    HP_DEADLINE_IDLE,     /* between messages */
    HP_DEADLINE_OURS,     /* the disk or the ledger has it */
    HP_DEADLINE_WRITE,    /* the peer does not read its answer */
    HP_DEADLINE_DRAIN     /* ARTIM: the peer should close */
} hp_intake_deadline;

struct hp_intake_conn {
    uv_tcp_t tcp;
    uv_timer_t timer;
    hp_intake *in;
    hp_intake_conn *prev, *next;
    int open_handles;
    uint64_t id;
    char address[64]; /* numeric, no port */
    char peer[80];    /* with port, for the log */
    uint8_t address_bytes[16];
    char calling_safe[17];
    hp_ul *ul;
    hp_dimse_reader dimse;
    hp_intake_slice *slice;
    hp_buf out, stash;
    unsigned paused;
    bool reading, processing, associated, draining, gone;
    hp_intake_deadline waiting_for;
    uint64_t window_bytes;   /* since the progress window began */
    uint64_t received_bytes; /* all */
    uint64_t stores;
    int writes; /* uv_write in flight */
    uv_shutdown_t shutdown;
    hp_uid *studies; /* that this association carries */
    int study_count;
};

/* ---- intake_access.c ---- */

hp_code hp_intake__parse_rule(const hp_intake_peer *peer, hp_intake_rule *ret,
                              hp_error *reterr);
bool hp_intake__allows(const hp_intake_rule *rule, int count, const char *calling_ae,
                       const uint8_t address[16]);

/* ---- intake.c ---- */

void hp_intake__release(hp_intake *in); /* one `live` less */
bool hp_intake__below_reserve(const hp_intake *in);
bool hp_intake__takes_class(const char *abstract_syntax, void *intake);
/* The one log line and the sink's call for something refused. `why` is ours. */
void hp_intake__refused(hp_intake *in, const hp_intake_conn *c, const char *what,
                        const char *study_uid, unsigned status, const char *why);
/* The same for a deadline that passed. */
void hp_intake__timed_out(hp_intake *in, const hp_intake_conn *c, const char *what,
                          const char *why);

/* ---- intake_conn.c: the socket and its deadlines ---- */

void hp_intake__accept(hp_intake *in);
void hp_intake__conn_stop(hp_intake_conn *c); /* the daemon goes down */
/* Unwritten bytes changed: read on, or stop. */
void hp_intake__conn_flow(hp_intake_conn *c);
/* Ends the association, says what is in `out`, waits for the peer to close. */
void hp_intake__conn_drain(hp_intake_conn *c);
/* A-ABORT first. */
void hp_intake__conn_abort(hp_intake_conn *c, uint8_t source, uint8_t reason);
/* At once. `c` lives until the loop has closed its handles; see c->gone. */
void hp_intake__conn_close(hp_intake_conn *c);
void hp_intake__conn_flush(hp_intake_conn *c); /* `out` to the socket; may close */
/* Bytes that had to wait, reading, the deadline: after anything changed. */
void hp_intake__conn_settle(hp_intake_conn *c);
void hp_intake__conn_after_bytes(hp_intake_conn *c);

/* ---- intake_talk.c: what is said ---- */

/* Bytes from the peer; may close. What cannot be taken now goes to c->stash. */
void hp_intake__conn_take(hp_intake_conn *c, const uint8_t *data, size_t len);
/* Sends the answer to the present request and goes on reading. */
void hp_intake__conn_answer(hp_intake_conn *c, uint16_t status, const char *comment);
void hp_intake__conn_saw_study(hp_intake_conn *c, const hp_uid *study);

/* ---- intake_slice.c ---- */

typedef struct hp_intake_slice_info {
    const hp_dimse_command *command;
    const hp_ul_context *context;
    const char *calling_ae, *peer;
    uint64_t association;
} hp_intake_slice_info;

/* NULL: out of memory. The slice keeps `c` until hp_intake__slice_drop(). */
hp_intake_slice *hp_intake__slice_new(hp_intake *in, hp_intake_conn *c,
                                      const hp_intake_slice_info *info);
/* Decided before the last fragment: the rest is taken and thrown away. The first
 * reason stays. */
void hp_intake__slice_refuse(hp_intake_slice *s, uint16_t status, const char *why);
void hp_intake__slice_data(hp_intake_slice *s, const uint8_t *data, size_t len);
/* The dataset is complete: hp_intake__conn_answer() will follow, never from
 * inside this call. */
void hp_intake__slice_end(hp_intake_slice *s);
/* The connection has gone or is going. */
void hp_intake__slice_drop(hp_intake_slice *s);
size_t hp_intake__slice_unwritten(const hp_intake_slice *s);

#endif
