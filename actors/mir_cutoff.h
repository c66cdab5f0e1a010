/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cutoff: closes the connections of disabled devices.
 *
 * Why        A disabled device is cut off and cannot come back. A connection that serves it alone
 *            (mir_session_is_of) is closed; on one that serves others too the twin refuses what is
 *            its own.
 * Ownership  What is under way to another shard owns itself, and a stop waits for it.
 * Affinity   The shards' threads.
 * Bounds     MIR_CUTOFF_VISITS questions of one shard under way; a subscription beyond that is found
 *            by its device's first message.
 * Errors     None: without memory a connection stays, and what its device says is refused.
 *
 *   disabled in the store ─▶ its twin is told ─▶ mir_cutoff_device
 *   somebody subscribes below its id ─▶ mir_cutoff_visit ─▶ its twin ─▶ mir_cutoff_device
 *   a message of the device ─▶ its twin ─▶ mir_cutoff_publisher */
#ifndef MIR_CUTOFF_H
#define MIR_CUTOFF_H

#include "mir_actors.h"

enum { MIR_CUTOFF_VISITS = 4096 };

/* Closes what subscribes below the id, on all shards. `returned`: it had been closed before, and this
 * is an event. */
void mir_cutoff_device(mir_shard *shard, mir_view device_id, bool returned);
/* The same for one connection, which said something for the device. */
void mir_cutoff_publisher(mir_shard *shard, mir_view device_id, mir_ref session);
/* A connection of this shard, of one device, has subscribed below its id. */
void mir_cutoff_visit(mir_shard *shard, mir_view device_id);

#endif
