/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cfg_device: what devices ask for and say of their properties.
 *
 * Why        A device asks for its desired properties when it starts, and reports what it has. When
 *            thousands start at once they are worked on together: while one batch is read, decoded
 *            and stored on a worker and in the state store, the next one gathers.
 *
 *              message ─▶ twin: registered, schema known? ─▶ intake ─▶ batch: worker ─▶ store ─▶
 *              worker ─▶ replies and events on the shard
 * Ownership  A message belongs to whoever has it on this way. What waits for a twin counts among the
 *            waiting, as does what is in the intake or in a batch.
 * Affinity   receive, free: the shard's thread. Batches: workers, one at a time for each shard.
 * Bounds     MIR_CFG_WAITING_MAX messages and MIR_CFG_WAITING_BYTES_MAX bytes wait on a shard: beyond
 *            it a device that asks is answered that the server is busy, and a report is dropped and
 *            counted. MIR_CFG_BATCH_MAX messages are one batch.
 * Errors     Of a request: its reply. Of a report: the device's problem "property refused". */
#ifndef MIR_CFG_DEVICE_H
#define MIR_CFG_DEVICE_H

#include "mir_shard.h"

enum {
    MIR_CFG_WAITING_MAX = 16384,
    MIR_CFG_WAITING_BYTES_MAX = 64 * 1024 * 1024,
    MIR_CFG_BATCH_MAX = 256,
    MIR_CFG_PROPERTIES_MAX = 1024, /* that a device is answered */
};

struct mir_cfg_message;

typedef struct mir_cfg_intake {
    struct mir_cfg_message *first, *last;
    uint32_t waiting;
    size_t bytes; /* of those that wait */
    bool is_working;
} mir_cfg_intake;

/* A request for desired properties or a reported property. */
void mir_cfg_receive(mir_shard *shard, const mir_message *message);
void mir_cfg_free_all(mir_shard *shard);

#endif
