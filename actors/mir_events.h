/* SPDX-License-Identifier: Apache-2.0 */
/* mir_events: the events that tell what happened to devices.
 *
 * Why        Whoever changes a device, the same event goes out, after the commit and before the
 *            reply. What is no change of a twin (a command) has its event from its service.
 * Ownership  Letters are the caller's.
 * Affinity   Worker threads.
 * Errors     A letter that cannot be written marks the list as failed. */
#ifndef MIR_EVENTS_H
#define MIR_EVENTS_H

#include "mir_actors.h"
#include "mir_event_batch.h"

/* An event about a device, as it is published. */
typedef struct mir_device_event {
    const char *device_id;
    const char *name, *name_space; /* of the device */
    const char *object_kind;       /* of what it is about; null: a device */
    const char *route;             /* behind the id: "cmd.v1alpha.devicecommand" */
    const char *type, *reason, *text;
    mir_view json;
    const mir_event_cause *cause; /* null: the server's own */
    const char *actor;            /* where the cause names none */
    bool failed;
    const char *error; /* why, if it failed */
    MirApi__V1__EventChange **changes;
    size_t change_count;
    uint64_t sequence; /* of the stored event; 0: it is not stored yet */
    mir_view header;   /* of the request that caused it; empty: none */
} mir_device_event;

/* Writes the letter, and puts the event into the batch unless that is null. */
void mir_events_add(mir_hub *hub, const mir_device_event *event, mir_letters *letters,
                    mir_event_batch *batch);

/* The event as the store takes it, for a request that stores it with something else. */
MIR_MUST_CHECK mir_status mir_events_make(const mir_device_event *event, mir_arena *arena,
                                          mir_event_item *item, mir_error *error);

/* Appends the event of each change of what the store has done. `header` is the block of the request
 * that caused it, whose trigger chain goes on; empty for what a timer or a device caused. The
 * header mir-event-sequence is the event's place in the store. */
void mir_events_of_changes(mir_hub *hub, const mir_state_request *state, mir_view header,
                           mir_arena *arena, mir_letters *letters);

/* Tells the twins of these devices, wherever they are, that the store has something new. */
void mir_events_notify_twins(mir_hub *hub, const mir_state_change *changes, size_t count);

#endif
