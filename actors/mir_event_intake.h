/* SPDX-License-Identifier: Apache-2.0 */
/* mir_event_intake: events that modules and devices publish, on their way into the store.
 *
 * Why        Whatever is published on event.<id>.<module>.<version>.<function> is kept, by whomever.
 *            What comes while a batch is being committed is the next batch: the faster they come, the
 *            fewer commits they cost. While the index of events is far behind, the next batch waits for
 *            it: so the lag is bounded by what comes within a moment.
 * Ownership  Messages are copied. What a worker reads belongs to it until it is committed.
 * Affinity   take: the shard's thread.
 * Bounds     MIR_EVENT_INTAKE_BYTES and MIR_EVENT_INTAKE_EVENTS wait on a shard; what comes beyond is
 *            counted as lost. A pause for the index: a second.
 * Errors     What cannot be read, or is more than an event may be, is the fault of who sent it: a
 *            problem of its subject's id (`bad event`), MIR_EVENT_INTAKE_REFUSED ids in one batch.
 *            What the server has no room for is counted as lost (mir_event_batch.h). */
#ifndef MIR_EVENT_INTAKE_H
#define MIR_EVENT_INTAKE_H

#include "mir_actors.h"

enum {
    MIR_EVENT_INTAKE_BYTES = 32 * 1024 * 1024,
    MIR_EVENT_INTAKE_EVENTS = 65536,
    MIR_EVENT_INTAKE_REFUSED = 32,
};

/* The server's own events are stored where they are made, and not taken. */
void mir_event_intake_take(mir_shard *shard, const mir_message *message);
void mir_event_intake_fini(mir_actors *actors);

#endif
