/* SPDX-License-Identifier: Apache-2.0 */
/* mir_event_keeper: the thread that works behind the log of events.
 *
 * Why        Indexes and retention touch many pages in no order: in the commits of changes they would
 *            cost ten times the event. Here they run at nice 19, read snapshots, and hand the writer
 *            what is ready to be put, in slices that it is done with in a few milliseconds.
 * Ownership  The store owns its keeper, starts it behind the writer and stops it before. It is
 *            freed when the writer has ended, which may wake it until then.
 * Affinity   start, stop: the thread that opens and closes the store. wake: any thread.
 * Bounds     A slice: MIR_EVENT_INDEX_SLICE keys, fewer where that takes longer than 8 ms, or MIR_EVENT_SLICE removals. Memory: a block's terms,
 *            about 3 MiB. Beyond MIR_EVENT_LAG_BLOCKS a helper of ordinary priority indexes, so that
 *            the lag does not grow with the load.
 * Errors     A pass that fails is logged once and tried again with the next wake or after a minute.
 * Source     docs/formats/state.md. */
#ifndef MIR_EVENT_KEEPER_H
#define MIR_EVENT_KEEPER_H

#include "mir_event_store.h"

enum {
    MIR_EVENT_INDEX_SLICE = 2048,
    /* Complete blocks that wait for their index before a thread of ordinary priority makes it: what
     * is behind the index costs a query some 60 ns for each event. */
    MIR_EVENT_LAG_BLOCKS = 8,
    /* So many, and whoever brings events that can wait should: see mir_event_lags. */
    MIR_EVENT_LAG_BLOCKS_MAX = 16,
};

typedef struct mir_event_keeper mir_event_keeper;

/* Sets state->events before the thread looks for it. */
MIR_MUST_CHECK mir_status mir_event_keeper_start(mir_state *state,
                                                 const mir_event_retention *retention,
                                                 mir_error *error);
/* The thread has ended; who completes a block may still wake it. */
void mir_event_keeper_stop(mir_event_keeper *keeper);
void mir_event_keeper_free(mir_event_keeper *keeper);
/* A block is complete, so many of them now. */
void mir_event_keeper_wake(mir_event_keeper *keeper, uint64_t complete);

const mir_event_retention *mir_event_keeper_retention(const mir_event_keeper *keeper);
bool mir_event_keeper_stopping(const mir_event_keeper *keeper);

/* What mir_event_remove and retention share: removes these events, in one transaction. */
MIR_MUST_CHECK mir_status mir_event_remove_slice(mir_state *state, const uint64_t *sequences,
                                                 size_t count, const char *why,
                                                 const mir_event_cause *cause, size_t *removed,
                                                 mir_error *error);

/* The steps of the thread, for tests: everything that there is to index; the indexes of blocks that
 * have no event left. */
MIR_MUST_CHECK mir_status mir_event_index_all(mir_event_keeper *keeper);
MIR_MUST_CHECK mir_status mir_event_index_prune(mir_event_keeper *keeper);

#endif
