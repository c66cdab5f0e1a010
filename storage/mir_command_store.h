/* SPDX-License-Identifier: Apache-2.0 */
/* mir_command_store: commands that wait for their device, in the state store.
 *
 * Why        A command for a device that is away is kept until the device returns. That it is sent is
 *            written down before it is sent, so that it never goes out a second time, whenever the
 *            server dies.
 *
 *              QUEUED ──▶ SENT ──▶ DONE | FAILED
 *                 │  ◀─────┘ (nobody was there to take it)
 *                 └──▶ EXPIRED | CANCELLED
 *
 * Ownership  A request's inputs are the submitter's and stay until `done`; outputs are in the
 *            request's arena. Results of reads are in the arena that is passed.
 * Affinity   prepare, reads: any thread. What is prepared runs on the writer's thread.
 * Units      Wall nanoseconds. Numbers ascend in the order of queueing and are never given again.
 * Bounds     MIR_COMMANDS_MAX commands, MIR_COMMANDS_WAITING_MAX that wait for one device. What has
 *            ended is kept for MIR_COMMANDS_KEPT_S.
 * Errors     Of one command: its status; the others of the request are not affected.
 * Source     docs/formats/state.md. */
#ifndef MIR_COMMAND_STORE_H
#define MIR_COMMAND_STORE_H

#include "mir_state.h"

enum {
    MIR_COMMANDS_MAX = 1000000,
    MIR_COMMANDS_WAITING_MAX = 1000,
    MIR_COMMANDS_KEPT_S = 30 * 24 * 3600,
    MIR_COMMAND_ID_BYTES_MAX = 48,
    MIR_COMMAND_PAYLOAD_BYTES_MAX = 256 * 1024, /* of a command, and of an answer that is kept */
};

/* The numbers of mir_api.v1.QueuedCommandState. */
typedef enum mir_command_state {
    MIR_COMMAND_QUEUED = 1,
    MIR_COMMAND_SENT,
    MIR_COMMAND_DONE,
    MIR_COMMAND_FAILED,
    MIR_COMMAND_EXPIRED,
    MIR_COMMAND_CANCELLED,
} mir_command_state;

typedef MirStore__V1__CommandRecord mir_command_record;

mir_command_state mir_command_state_of(const mir_command_record *record);
int64_t mir_command_time_ns(const MirStore__V1__Time *time);

/* ── Changes ─────────────────────────────────────────────────────────────────────────────────── */

/* Nobody else's server, and no earlier life of this one, has given it out: devices remember ids. */
MIR_MUST_CHECK mir_status mir_command_id_new(char id[MIR_COMMAND_ID_BYTES_MAX]);

typedef struct mir_command_add {
    const char *id; /* of mir_command_id_new */
    mir_view device_id;
    const char *message;
    mir_view payload;
    int64_t expires_ns;
    uint32_t timeout_s;
    mir_event_item *event; /* stored with it; null: none */
    /* Outputs. MIR_E_NOT_FOUND: no such device. MIR_E_FULL. */
    mir_status status;
    mir_command_record *record;
} mir_command_add;

typedef struct mir_command_adds {
    mir_command_add *list;
    size_t count;
} mir_command_adds;

/* Each one moves on if it is in the state `from`, and stays what it is otherwise. Back to QUEUED takes
 * the step to SENT away: nobody was there. A larger answer than is kept leaves its name alone. */
typedef struct mir_command_step {
    uint64_t number;
    mir_command_state from, to;
    const char *error;         /* null: none */
    const char *response_name; /* null: no answer */
    mir_view response_payload;
    mir_event_item *event;
    /* Outputs. MIR_E_NOT_FOUND; MIR_E_EXISTS: it is in another state, see the record. */
    mir_status status;
    mir_command_record *record;
} mir_command_step;

typedef struct mir_command_steps {
    mir_command_step *list;
    size_t count;
} mir_command_steps;

/* Make the request one that does this. request->cause names who queues. */
void mir_command_prepare_add(mir_state_request *request, mir_command_adds *adds);
void mir_command_prepare_steps(mir_state_request *request, mir_command_steps *steps);
/* Removes what has ended long enough ago, a bounded part of it. */
void mir_command_prepare_purge(mir_state_request *request);

/* ── Reads ───────────────────────────────────────────────────────────────────────────────────── */

/* The oldest one that is QUEUED or SENT. MIR_E_NOT_FOUND: none. */
MIR_MUST_CHECK mir_status mir_command_first(mir_state *state, mir_view device_id, mir_arena *arena,
                                            mir_command_record **record, mir_error *error);

typedef struct mir_command_filter {
    const char *const *device_ids; /* sorted; null: of any device */
    size_t device_count;
    const char *const *ids; /* of commands, sorted; null: any */
    size_t id_count;
    uint32_t states; /* a bit for each: 1 << MIR_COMMAND_QUEUED …; 0: any */
    size_t rows_max; /* 0: none */
    size_t bytes_max;
} mir_command_filter;

/* A list that is made in parts, so that nobody is held by it. Zeroed at first. */
typedef struct mir_command_listing {
    mir_command_record **records; /* newest first */
    size_t count;
    bool cut;     /* there are more than the bounds allow */
    bool is_over; /* everything was looked at, or it is cut */
    size_t capacity, bytes;
    uint64_t before; /* so far it has looked at those from here on; 0: at none */
} mir_command_listing;

/* Looks at the next `looked_max` commands. What is queued after the first part is not in the list; each
 * record is as it was when its part was made. */
MIR_MUST_CHECK mir_status mir_command_list(mir_state *state, const mir_command_filter *filter,
                                           size_t looked_max, mir_arena *arena,
                                           mir_command_listing *list, mir_error *error);

/* Each command that is QUEUED or SENT, by device and number; the record lives during the visit.
 * Stops early when `visit` answers something else than MIR_OK, and returns that. */
typedef mir_status (*mir_command_visit)(void *ctx, const mir_command_record *record);
MIR_MUST_CHECK mir_status mir_command_waiting_each(mir_state *state, mir_command_visit visit,
                                                   void *ctx, mir_error *error);

/* QUEUED commands whose time is over, at most `max` of them; *next_ns: when the next is due (also a purge),
 * INT64_MAX if none is. */
MIR_MUST_CHECK mir_status mir_command_due(mir_state *state, int64_t now_ns, size_t max,
                                          mir_arena *arena, mir_command_record ***records,
                                          size_t *count, int64_t *next_ns, mir_error *error);

#endif
