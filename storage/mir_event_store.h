/* SPDX-License-Identifier: Apache-2.0 */
/* mir_event_store: what is asked of stored events: lists, history, removal, retention, proof.
 *
 * Why        Events are appended without any index. One is made behind the log, block by block, and
 *            a query takes it as far as it reaches and looks at the heads of the rest:
 *
 *              block 0 … block k-1          block k … the newest
 *              index: block, term → places  heads: hashes of the terms
 *
 *            Both say only where to look: a record decides whether it matches.
 * Ownership  Results are in the arena that is passed.
 * Affinity   Any thread that may wait: reads are snapshots, mir_event_remove and mir_event_retain wait
 *            for the writer. Never from a `done` of mir_state.
 * Units      Times are wall nanoseconds.
 * Bounds     Rows, bytes and heads looked at: mir_event_bounds. The conditions of a target:
 *            MIR_EVENT_VALUES_MAX. A removal is MIR_EVENT_SLICE events in one transaction.
 * Errors     MIR_E_INVALID, MIR_E_TOO_LARGE: the target, with a text. MIR_E_NO_MEMORY. Those of the store.
 * Source     docs/formats/state.md. */
#ifndef MIR_EVENT_STORE_H
#define MIR_EVENT_STORE_H

#include "mir_state.h"

enum {
    MIR_EVENT_ROWS_MAX = 100000, /* of one list */
    MIR_EVENT_LIST_BYTES_MAX = 64 * 1024 * 1024,
    MIR_EVENT_LOOKED_MAX = 8 * 1024 * 1024, /* heads, where no index helps: about a second */
    MIR_EVENT_VALUES_MAX = 16384,           /* in all lists of a target */
    /* In event_name: whoever makes names up does not fill the store with them. From there on a
     * pattern of names is looked for in its namespaces, or among all events. */
    MIR_EVENT_NAMES_KEPT_MAX = 2 * 1024 * 1024,
    MIR_EVENT_NAMES_MAX = 1024, /* that a pattern may mean before it counts as a scan */
};

/* Zeroes stand for the largest. */
typedef struct mir_event_bounds {
    size_t rows_max;
    size_t bytes_max; /* of the events as they are packed for a reply */
    uint64_t looked_max;
    const _Atomic bool *stop; /* once it is true, a removal ends behind its slice; null: never */
} mir_event_bounds;

typedef struct mir_event_list {
    MirApi__V1__Event **events;
    size_t count;
    /* A bound other than the target's own limit ended it. The same target goes on there with
     * before_sequence, or after_sequence if that was given. */
    bool cut;
    uint64_t cut_sequence;
    uint64_t sequence; /* of the newest event in the snapshot: where a watch goes on */
} mir_event_list;

/* What matches, newest first; with after_sequence oldest first. A null target is everything.
 *
 *   targets.names, .namespaces, .labels   of the event itself, with the patterns of devices; its
 *                                         labels are `reason` and `type`
 *   filter_date                           both ends belong to it
 *   filter_limit                          > 0: at most that many
 *   device_ids, reasons, types, actors,   exact or patterns
 *     outcomes
 *   text                                  of a device's payload without the bytes of its schema
 *   devices                               by the ids that these devices have now */
MIR_MUST_CHECK mir_status mir_event_list_get(mir_state *state,
                                             const MirApi__V1__EventTarget *target,
                                             const mir_event_bounds *bounds, mir_arena *arena,
                                             mir_event_list *list, mir_error *error);

/* The newest `per_device` events of each device, by name and namespace: lists[i] for records[i]. */
typedef struct mir_event_brief {
    MirApi__V1__DeviceStatusEvent **events;
    size_t count;
} mir_event_brief;

MIR_MUST_CHECK mir_status mir_event_newest(mir_state *state,
                                           MirStore__V1__DeviceRecord *const *records, size_t count,
                                           size_t per_device, mir_arena *arena,
                                           mir_event_brief **lists, mir_error *error);

/* Which device: an id, or else the name and namespace that it has or had. */
typedef struct mir_event_subject {
    mir_view device_id;
    mir_view name;
    mir_view name_space;
} mir_event_subject;

/* The newest events of a device, oldest first, also of what it was called before: a name that it had
 * and an id that it had, as far as its events tell. */
MIR_MUST_CHECK mir_status mir_event_history(mir_state *state, const mir_event_subject *subject,
                                            const mir_event_bounds *bounds, mir_arena *arena,
                                            mir_event_list *list, mir_error *error);

/* The device after its last change until then. MIR_E_NOT_FOUND, with a text: there was none, or its
 * events are gone. `at_ns` of the result is the time of that change. */
MIR_MUST_CHECK mir_status mir_event_device_at(mir_state *state, const mir_event_subject *subject,
                                              int64_t until_ns, mir_arena *arena,
                                              MirStore__V1__DeviceRecord **record, int64_t *at_ns,
                                              mir_error *error);

/* Removes everything that matches and answers what it was, as a list would: its bounds and
 * filter_limit bound the answer, not the removal. Refuses a target without any condition. What is
 * stored while it runs stays. MIR_E_CANCELLED: it was stopped; *removed are removed all the same. */
MIR_MUST_CHECK mir_status mir_event_remove(mir_state *state, const MirApi__V1__EventTarget *target,
                                           const mir_event_cause *cause,
                                           const mir_event_bounds *bounds, mir_arena *arena,
                                           mir_event_list *list, uint64_t *removed,
                                           mir_error *error);

/* Removes what the retention does not keep until `now_ns`. The store does it by itself at its start
 * and every hour. */
MIR_MUST_CHECK mir_status mir_event_retain(mir_state *state, int64_t now_ns, uint64_t *removed,
                                           mir_error *error);

/* The rules and what they did. Strings are the store's. */
typedef struct mir_event_retention_state {
    mir_event_retention rules;
    uint64_t events;
    uint64_t removed;
    int64_t oldest_ns;   /* of the oldest event that is there; 0: none */
    int64_t last_run_ns; /* 0: not yet since the start */
    uint64_t index_lag;
} mir_event_retention_state;

MIR_MUST_CHECK mir_status mir_event_retention_get(mir_state *state, mir_event_retention_state *out,
                                                  mir_error *error);

/* Called now and then; false ends the verification with MIR_E_CANCELLED. */
typedef bool (*mir_event_progress)(void *ctx, uint64_t done, uint64_t total);

/* Whether the index is so far behind that who can wait with further events should. Cheap; from any
 * thread. */
bool mir_event_lags(mir_state *state);

/* Computes the whole chain anew and compares; `head` is 32 bytes or empty. A chain that is broken is
 * an answer (MIR_OK, intact false), as is a head that is not in it. */
MIR_MUST_CHECK mir_status mir_event_verify(mir_state *state, mir_view head,
                                           mir_event_progress progress, void *ctx, mir_arena *arena,
                                           MirApi__V1__EventsProof **proof, mir_error *error);

#endif
