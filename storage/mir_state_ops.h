/* SPDX-License-Identifier: Apache-2.0 */
/* mir_state_ops: what each request does within the writer's transaction.
 *
 * Why        A request is decided completely before it writes its first byte, so that a refusal
 *            leaves no trace in a transaction that others share.
 * Ownership  Outputs are in the request's arena.
 * Affinity   The writer thread.
 * Bounds     Those of mir_state.h and mir_device_rules.h.
 * Errors     A refusal is the request's status and error, and MIR_OK here. Any other status means
 *            that the transaction is broken and must be aborted. */
#ifndef MIR_STATE_OPS_H
#define MIR_STATE_OPS_H

#include "mir_event_log.h"

typedef struct mir_state_ops mir_state_ops;
struct mir_state_ops {
    const mir_state_db *db;
    MDB_txn *txn;
    int64_t now_ns;
    /* The live heartbeat of a device, 0 if there is none. */
    int64_t (*live_ns)(void *ctx, uint64_t number);
    void *live_ctx;
    mir_state_request *request;
    mir_event_log *events;     /* of the transaction */
    mir_event_context context; /* of the request's cause, once it is needed */
};

MIR_MUST_CHECK mir_status mir_state_ops_execute(mir_state_ops *ops);

/* Adds a change that is written already, and its event. There is room for it. */
MIR_MUST_CHECK mir_status mir_state_ops_add_change(mir_state_ops *ops, mir_state_change_kind kind,
                                                   MirStore__V1__DeviceRecord *before,
                                                   MirStore__V1__DeviceRecord *after);

/* Marks the request as failed with a printf text, which goes into its arena. */
void mir_state_ops_refuse(mir_state_request *request, mir_status status, const char *format, ...)
    MIR_PRINTF(3, 4);

#endif
