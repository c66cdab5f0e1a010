/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of mir_state share: the store itself and its pool of read transactions.
 *
 * Why        A read transaction is a place in LMDB's reader table: taking one costs a lock, renewing
 *            one does not. So they are kept, and handed from thread to thread.
 * Ownership  A transaction belongs to its user between begin and end.
 * Affinity   Any thread.
 * Bounds     MIR_STATE_READERS_KEPT are kept; more are made when more are in use.
 * Errors     Those of LMDB, explained. */
#ifndef MIR_STATE_INTERNAL_H
#define MIR_STATE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "mir_state_db.h"

enum {
    MIR_STATE_READERS_KEPT = 64,
    /* 2^30 numbers in pages that exist once one of their devices was heard of. */
    MIR_STATE_CELL_PAGES = 1 << 16,
    MIR_STATE_CELLS_PER_PAGE = 1 << 14,
};

typedef struct mir_state_cells {
    _Atomic int64_t at_ns[MIR_STATE_CELLS_PER_PAGE];
} mir_state_cells;

struct mir_event_keeper;

struct mir_state {
    mir_state_db db;
    mir_state_sync sync;
    uint32_t requests_max;
    int64_t schema_kept_ns; /* after its last device is gone; 0: for ever */
    /* From the monotonic clock to the time that retention goes by; 0: it is not known yet. */
    _Atomic int64_t known_offset_ns;

    _Atomic(MDB_txn *) readers[MIR_STATE_READERS_KEPT];
    _Atomic(mir_state_cells *) cells[MIR_STATE_CELL_PAGES];

    mir_mpsc queue;
    atomic_uint in_flight;
    atomic_uint
        sleep; /* how deep the writer sleeps: announced before the last look into the queue */
    atomic_bool closing;
    int wake_fd;
    pthread_t writer;
    /* The writer's own: since when there is what was committed without a sync, and what the commits
     * fail with. */
    int64_t dirty_since_ns;
    mir_status failing;
    bool unsynced;                            /* the last sync has failed */
    unsigned fullness;                        /* of the store, as the log was told */
    uint64_t changed[MIR_STATE_CHANGE_WORDS]; /* db.changed */

    _Atomic uint64_t changes[MIR_STATE_CHANGE_COUNTS + 1];

    struct mir_event_keeper *events;
    _Atomic uint64_t event_keeper_failures;
    _Atomic int64_t retained_ns; /* when retention last ran */

    _Atomic uint64_t requests, requests_failed, commits, commits_failed, group_last, group_max;
    _Atomic int64_t commit_last_ns, commit_max_ns;
};

MIR_MUST_CHECK mir_status mir_state_read_begin(mir_state *state, MDB_txn **txn, mir_error *error);
void mir_state_read_end(mir_state *state, MDB_txn *txn);

/* As mir_state_devices_of, in the caller's transaction; `live` puts in the heartbeats of memory. */
MIR_MUST_CHECK mir_status mir_state_convert(mir_state *state, MDB_txn *txn,
                                            MirStore__V1__DeviceRecord *const *records,
                                            size_t count, bool live, mir_arena *arena,
                                            MirApi__V1__Device **devices);

/* 0 if there was none since the start. */
int64_t mir_state_live_ns(mir_state *state, uint64_t number);

#endif
