/* SPDX-License-Identifier: Apache-2.0 */
/* mir_event_log: how events lie in the state store, and the writer's side of it.
 *
 * Why        An event is appended in the transaction of the change that caused it: a key that only
 *            grows costs next to nothing there. Everything else (indexes, retention) runs behind it.
 *
 *              event        sequence → head, record      head: flags, time, leaf, check of the link,
 *              event_block  block → link at its end, live        hashes of the eight terms
 *              event_index  block, term → places in the block
 *              event_name   each name that is in an index
 *
 *            The chain: link = SHA-256(1, link before, time, leaf). The leaf does not depend on the
 *            time, so it is computed before the event has one; the link covers both. Eight bytes of
 *            each link stand in the head, so that a damaged one is found where it is.
 * Ownership  A log belongs to one write transaction.
 * Affinity   Writing: the writer thread. Reading: any thread, with its own transaction.
 * Units      Sequences count from 1; block b has the sequences b * MIR_EVENT_BLOCK + 1 and on.
 * Bounds     MIR_EVENT_SLICE removals in one transaction.
 * Errors     Those of LMDB; MIR_E_CORRUPT for what has another shape. A record is unpacked by
 *            mir_pb_unpack alone, which checks it first, and peeked at by mir_pbwire: nothing else
 *            here parses bytes that have no fixed place.
 * Source     docs/formats/state.md. */
#ifndef MIR_EVENT_LOG_H
#define MIR_EVENT_LOG_H

#include "mir_state_db.h"

enum {
    MIR_EVENT_BLOCK = 16384,
    MIR_EVENT_SLICE = 1024,
    MIR_EVENT_TOMB_BYTES = 57, /* the head's first 49, then the sequence of the removal */
    MIR_EVENT_LEAF_AT = 9,     /* in the head */
};

typedef enum mir_event_term {
    MIR_EVENT_NAME,   /* of the related object, or else the subject's id */
    MIR_EVENT_DEVICE, /* namespace 0 name */
    MIR_EVENT_ID,     /* of the subject: for events of devices, the device's */
    MIR_EVENT_NAMESPACE,
    MIR_EVENT_REASON,
    MIR_EVENT_TYPE,
    MIR_EVENT_ACTOR,
    MIR_EVENT_OUTCOME,
    MIR_EVENT_TERMS,
} mir_event_term;

enum {
    MIR_EVENT_IS_TOMB = 1,    /* removed */
    MIR_EVENT_IS_REMOVAL = 2, /* no event, but the record of a removal */
    MIR_EVENT_HAS_DEVICE = 4, /* its payload is a device */
};

/* The head as it is read; `tomb` or terms and record. */
typedef struct mir_event_place {
    uint8_t flags;
    int64_t at_ns;
    const uint8_t *leaf;
    const uint8_t *check;
    uint64_t removal;    /* tombs: the sequence of the record that tells of it */
    const uint8_t *head; /* the terms are read from here */
    mir_view record;
} mir_event_place;

/* False: not the shape of an event. */
bool mir_event_place_read(mir_view value, mir_event_place *place);
uint32_t mir_event_place_term(const mir_event_place *place, mir_event_term term);

/* What is indexed of a text: never 0 but for the empty one, which is not indexed. */
uint32_t mir_event_hash(mir_view text);
uint32_t mir_event_hash_device(mir_view name_space, mir_view name);

uint64_t mir_event_suffix_new(void);

/* What the head says of a record: flags and terms. */
void mir_event_describe(const MirStore__V1__EventRecord *record, uint8_t *flags,
                        uint32_t terms[MIR_EVENT_TERMS]);
void mir_event_head_write(uint8_t head[MIR_EVENT_HEAD_BYTES], uint8_t flags,
                          const uint32_t terms[MIR_EVENT_TERMS]);
/* The name of the related object, else the id in the subject. */
mir_view mir_event_base_name(const MirStore__V1__EventRecord *record);
mir_view mir_event_name_space(const MirStore__V1__EventRecord *record);
mir_view mir_event_subject_id(const MirStore__V1__EventRecord *record);
/* The base name without unpacking; false: not the shape of a record. */
bool mir_event_peek_name(mir_view record, mir_view *name);
bool mir_event_peek_reason(mir_view record, mir_view *reason);

void mir_event_leaf(mir_view record, uint8_t leaf[MIR_EVENT_HASH_BYTES]);
void mir_event_link(uint8_t link[MIR_EVENT_HASH_BYTES], int64_t at_ns,
                    const uint8_t leaf[MIR_EVENT_HASH_BYTES]);

/* ── The end of the log ──────────────────────────────────────────────────────────────────────── */

typedef struct mir_event_head {
    uint64_t sequence; /* of the newest; 0: none yet */
    int64_t at_ns;
    uint8_t link[MIR_EVENT_HASH_BYTES];
    uint64_t removed;
    uint64_t removals;
    uint32_t open_live; /* events in the block that is not complete, without removed ones */
} mir_event_head;

MIR_MUST_CHECK mir_status mir_event_head_read(const mir_state_db *db, MDB_txn *txn,
                                              mir_event_head *head);
/* How many blocks have their index. */
MIR_MUST_CHECK mir_status mir_event_indexed_read(const mir_state_db *db, MDB_txn *txn,
                                                 uint64_t *blocks);
MIR_MUST_CHECK mir_status mir_event_indexed_write(const mir_state_db *db, MDB_txn *txn,
                                                  uint64_t blocks);
MIR_MUST_CHECK mir_status mir_event_get(const mir_state_db *db, MDB_txn *txn, uint64_t sequence,
                                        mir_event_place *place);

typedef struct mir_event_block {
    uint8_t link[MIR_EVENT_HASH_BYTES];
    uint32_t live; /* neither removed nor the record of a removal */
} mir_event_block;

/* MIR_E_NOT_FOUND: not complete yet. */
MIR_MUST_CHECK mir_status mir_event_block_read(const mir_state_db *db, MDB_txn *txn, uint64_t block,
                                               mir_event_block *out);

/* ── Writing ─────────────────────────────────────────────────────────────────────────────────── */

typedef struct mir_event_log {
    const mir_state_db *db;
    MDB_txn *txn;
    mir_event_head head;
    bool loaded, changed;
    bool completed; /* a block */
} mir_event_log;

/* A cause, prepared once for all changes of a request. */
typedef struct mir_event_context {
    bool ready;
    char *actor; /* null: none was given */
    char *address;
    char *request_id;
    char **chain;
    size_t chain_count;
} mir_event_context;

MIR_MUST_CHECK mir_status mir_event_context_make(const mir_event_cause *cause, mir_arena *arena,
                                                 mir_event_context *context);

MIR_MUST_CHECK mir_status mir_event_log_append(mir_event_log *log, int64_t now_ns,
                                               mir_event_item *event);
/* The event of a change, whose `sequence` it sets. `actor` counts if the context has none. */
MIR_MUST_CHECK mir_status mir_event_log_change(mir_event_log *log, int64_t now_ns,
                                               mir_state_change *change,
                                               const mir_event_context *context, const char *actor);
/* Puts tombs in place of those of the events that are still there, and appends the record that says
 * so, if there were any. Sequences ascend; at most MIR_EVENT_SLICE. */
MIR_MUST_CHECK mir_status mir_event_log_remove(mir_event_log *log, int64_t now_ns,
                                               const uint64_t *sequences, size_t count,
                                               const char *why, const mir_event_context *context,
                                               size_t *removed);
/* Before the commit. */
MIR_MUST_CHECK mir_status mir_event_log_end(mir_event_log *log);

/* What an update changed, as the event tells it. */
MIR_MUST_CHECK mir_status mir_event_diff(const MirStore__V1__DeviceRecord *before,
                                         const MirStore__V1__DeviceRecord *after, mir_arena *arena,
                                         MirApi__V1__EventChange ***changes, size_t *count);

#endif
