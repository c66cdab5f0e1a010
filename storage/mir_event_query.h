/* SPDX-License-Identifier: Apache-2.0 */
/* mir_event_query: which stored events a target means, and the walk over them.
 *
 * Why        Lists, history and removal ask the same question in different directions and for
 *            different ends.
 * Ownership  A plan is in the arena of its maker and points into the target.
 * Affinity   Any thread, with its own transaction.
 * Bounds     See mir_event_store.h.
 * Errors     As there. A visit ends the walk with MIR_E_CANCELLED; the walk then answers MIR_OK. */
#ifndef MIR_EVENT_QUERY_H
#define MIR_EVENT_QUERY_H

#include "mir_event_log.h"
#include "mir_event_store.h"

/* A condition on one term: one of these hashes. */
typedef struct mir_event_clause {
    mir_event_term term;
    uint32_t *hashes; /* ascending */
    size_t count;
    bool open;    /* made of names in the index: in the rest there may be others */
    bool indexed; /* few enough to look up in each block */
} mir_event_clause;

typedef struct mir_event_plan {
    mir_event_clause clauses[MIR_EVENT_TERMS];
    size_t clause_count;
    uint64_t first, last; /* sequences; empty if first > last */
    bool ascending;
    const MirApi__V1__EventTarget *target; /* null: the clauses and what follows are all */
    const char **ids;                      /* of `devices`, sorted; null: any */
    size_t id_count;
    mir_view exact_id; /* empty: any */
    mir_view exact_name, exact_name_space;
    uint8_t flags; /* that a head must have */
    uint64_t looked_max;
    /* Outputs. */
    uint64_t looked;
    bool cut; /* looked_max was reached, before `at` was looked at */
    uint64_t at;
} mir_event_plan;

/* `record` is in `scratch`, which is emptied before the next. */
typedef mir_status (*mir_event_visit)(void *ctx, uint64_t sequence, const mir_event_place *place,
                                      MirStore__V1__EventRecord *record, mir_arena *scratch);

MIR_MUST_CHECK mir_status mir_event_plan_make(mir_state *state, MDB_txn *txn,
                                              const MirApi__V1__EventTarget *target,
                                              mir_arena *arena, mir_event_plan *plan,
                                              mir_error *error);
/* Everything up to the newest. */
MIR_MUST_CHECK mir_status mir_event_plan_all(mir_state *state, MDB_txn *txn, mir_event_plan *plan);
/* A condition that is one value. */
MIR_MUST_CHECK mir_status mir_event_plan_add(mir_event_plan *plan, mir_event_term term,
                                             uint32_t hash, mir_arena *arena);

MIR_MUST_CHECK mir_status mir_event_walk(mir_state *state, MDB_txn *txn, mir_event_plan *plan,
                                         mir_event_visit visit, void *ctx);

/* The newest sequence whose time is not after it, 0 if there is none. */
MIR_MUST_CHECK mir_status mir_event_until(mir_state *state, MDB_txn *txn, uint64_t newest,
                                          int64_t until_ns, uint64_t *sequence);

/* The event as the API shows it, in the arena. */
MIR_MUST_CHECK mir_status mir_event_show(mir_state *state, MDB_txn *txn, uint64_t sequence,
                                         const mir_event_place *place, mir_arena *arena,
                                         MirApi__V1__Event **event);
/* The payload as it is shown, appended; with_schema: the bytes of a device's schema too. */
MIR_MUST_CHECK mir_status mir_event_payload(mir_state *state, MDB_txn *txn,
                                            const MirStore__V1__EventRecord *record,
                                            bool with_schema, mir_bytes *out);

/* ── The index ───────────────────────────────────────────────────────────────────────────────── */

enum { MIR_EVENT_INDEX_KEY_BYTES = 9, MIR_EVENT_BITMAP_BYTES = MIR_EVENT_BLOCK / 8 };

void mir_event_index_key(uint64_t block, unsigned term, uint32_t hash,
                         uint8_t key[MIR_EVENT_INDEX_KEY_BYTES]);
/* Sets the bits of an entry's places; false: not the shape of one. */
bool mir_event_index_places(mir_view value, uint64_t bits[MIR_EVENT_BLOCK / 64]);

#endif
