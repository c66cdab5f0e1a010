/* SPDX-License-Identifier: Apache-2.0 */
/* mir_events: the events that tell of changes of devices.
 *
 * Why        Whoever changes a device, the same event goes out, after the commit and before the
 *            reply.
 * Ownership  Letters are the caller's.
 * Affinity   Worker threads.
 * Errors     A letter that cannot be written marks the list as failed. */
#ifndef MIR_EVENTS_H
#define MIR_EVENTS_H

#include "mir_actors.h"

/* Appends the event of each change. `request_header` is the block of the request that caused it,
 * whose trigger chain goes on; empty for what a timer or a device caused. */
void mir_events_of_changes(mir_hub *hub, const mir_state_change *changes, size_t count,
                           mir_view request_header, mir_arena *arena, mir_letters *letters);

/* Tells the twins of these devices, wherever they are, that the store has something new. */
void mir_events_notify_twins(mir_hub *hub, const mir_state_change *changes, size_t count);

#endif
