/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cmd_queue: gives each device the commands that waited for it, one after the other.
 *
 * Why        A command that was queued runs once, in the order of queueing, when its device is there,
 *            however often server and device die meanwhile: it is written down as sent before it is
 *            sent, and never sent again after that.
 * Ownership  The shard's map owns a queue for each device that commands wait for. What is under way
 *            belongs to the worker, the writer or the bus that has it; a stop waits for it.
 * Affinity   The shard of the device, and workers in turns.
 * Bounds     Those of mir_command_store.h. A device runs one queued command at a time. However many
 *            queues are to look at once, MIR_CMD_SENT_PER_TURN of them do in a turn of their shard.
 * Errors     A store that fails leaves a command as it is; the next heartbeat tries again. An outcome
 *            that could not be written is kept, and written then.
 *
 * Presence   A device is there when somebody subscribes to its own subjects by its id. Subscriptions
 *            that begin with a wildcard (a gateway for many devices, but also a monitor) count while
 *            the device is online.
 *
 *   enter | heartbeat ─▶ read the oldest ─▶ is it there? ─▶ SENT ─▶ ask ─▶ DONE, FAILED ─▶ read …
 *                          └ over its time ─▶ EXPIRED         └ nobody ─▶ QUEUED */
#ifndef MIR_CMD_QUEUE_H
#define MIR_CMD_QUEUE_H

#include "mir_actors.h"
#include "mir_command_store.h"
#include "mir_limits.h"

/* Whoever queued a command and waits for what becomes of it now. */
typedef struct mir_cmd_queue_waiter {
    struct mir_cmd_queue_waiter *next;
    uint64_t number; /* of the command */
    /* Called once: MIR_OK with the device's answer (its name and payload live during the call),
     * MIR_E_TIMEOUT, MIR_E_CANCELLED (the server stops), MIR_E_CLOSED (it was cancelled), MIR_E_EMPTY
     * (its time was over), MIR_E_UNREACHABLE: it stays queued. */
    void (*done)(mir_shard *shard, struct mir_cmd_queue_waiter *waiter, mir_status status,
                 mir_view name, mir_view payload);
} mir_cmd_queue_waiter;

/* A command was queued; `waiter` may be null. */
void mir_cmd_queue_enter(mir_shard *shard, mir_view device_id, mir_cmd_queue_waiter *waiter);

/* Devices whose queues are to look whether there is something to do, or whether they may go: some of
 * them in each turn of their shard. Any thread, one at a time. After `hub` was set: any number of adds
 * (MIR_E_NO_MEMORY: it is not among them), then go. */
typedef struct mir_cmd_queue_calls {
    mir_hub *hub;
    struct mir_cmd_queue_call *by_shard[MIR_SHARDS_MAX];
} mir_cmd_queue_calls;
MIR_MUST_CHECK mir_status mir_cmd_queue_calls_add(mir_cmd_queue_calls *calls, mir_view device_id);
void mir_cmd_queue_calls_go(mir_cmd_queue_calls *calls);

/* The device gave a sign of life. Costs next to nothing when nothing waits for it. */
void mir_cmd_queue_wake(mir_shard *shard, mir_view device_id);

/* What the last run left as sent has failed, what is queued is known again; then expiry is watched. */
MIR_MUST_CHECK mir_status mir_cmd_queue_start(mir_hub *hub, mir_error *error);
/* Nothing runs any more. */
void mir_cmd_queue_fini(mir_actors *actors);
/* A command was stored that expires then. */
void mir_cmd_queue_note_due(mir_hub *hub, int64_t due_ns);

/* A command that comes into a state, and what its event says. */
typedef struct mir_cmd_note {
    const mir_command_record *record;
    mir_command_state state;
    const char *error;         /* null: none */
    const char *response_name; /* null: no answer */
    mir_view response;
    const mir_event_cause *cause; /* null: whoever queued it */
} mir_cmd_note;

/* The event to be stored with it; null for SENT. */
MIR_MUST_CHECK mir_status mir_cmd_queue_event(mir_hub *hub, const mir_cmd_note *note,
                                              mir_arena *arena, mir_event_item **event);
/* The letter of that event, once it is stored; a null event has none. */
void mir_cmd_queue_tell(mir_hub *hub, const mir_cmd_note *note, const mir_event_item *event,
                        mir_letters *letters);

#endif
