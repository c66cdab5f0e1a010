/* SPDX-License-Identifier: Apache-2.0 */
/* mir_twin: the actor of one device on the shard of its partition.
 *
 * Why        Everything that a device says is handled here, one message at a time: presence,
 *            schema, telemetry.
 * Ownership  The shard's map owns twins. A twin is activated by the first message for it and goes
 *            when it is offline, idle and nothing of its is under way; what it knew is in the store.
 * Affinity   The shard's thread. What waits is a continuation: activation reads the store on a
 *            worker, writes go to the state writer, schema questions over the bus.
 * Bounds     Those of telemetry: mir_twin_telemetry.h. One store write and one schema question are
 *            under way at a time.
 * Errors     Faults in a device's input are counted for that device (mir_actors_problem).
 *
 * The parts of a twin are modules of their own where they can be (mir_twin_telemetry.h); they share
 * mir_twin_internal.h.
 *
 * States     cold ──message──▶ loading ──▶ ready | disabled | absent ──heartbeat──▶ ready
 *            A change of the device in the store makes a loaded twin load again. A disabled one
 *            refuses everything and has the connections of its device closed (mir_cutoff.h). */
#ifndef MIR_TWIN_H
#define MIR_TWIN_H

#include "mir_actors.h"

enum {
    MIR_TWIN_READING_SHARD_BYTES = 64 * 1024 * 1024, /* one alone may be larger */
    MIR_TWIN_LOADING_SHARD = 1024, /* activations; beyond that their causers are slowed */
    MIR_TWIN_IDLE_S = 60,
    MIR_TWINS_MAX = 1 << 24, /* per shard */
    /* Twins of ids that the store does not know, per shard: whoever invents ids finds an end. */
    MIR_TWINS_ABSENT_MAX = 16384,
};

typedef struct mir_twin mir_twin;

/* Told once how it went: `error` is null when the device's schema is known now. */
typedef struct mir_twin_waiter {
    struct mir_twin_waiter *next;
    void (*done)(mir_shard *shard, struct mir_twin_waiter *waiter, const char *error);
} mir_twin_waiter;

/* A message of the device: heartbeat, schema, telemetry. */
void mir_twin_receive(mir_shard *shard, const mir_message *message);
/* The store has something new about this device, and has it disabled or not. */
void mir_twin_changed(mir_shard *shard, mir_view device_id, bool is_disabled);
/* A connection of this device alone has come; it is closed when the device is disabled. */
void mir_twin_visit(mir_shard *shard, mir_view device_id);
/* False also while that is being read: the store has the last word. */
bool mir_twin_is_disabled(mir_shard *shard, mir_view device_id);
/* Asks the device for its schema and stores it. */
void mir_twin_pull(mir_shard *shard, mir_view device_id, mir_twin_waiter *waiter);
/* The same for a message that the device's schema does not have: the device may have learnt it since,
 * and is asked once in a while. False: not now, and the waiter is not told. */
bool mir_twin_learn(mir_shard *shard, mir_view device_id, mir_twin_waiter *waiter);
/* Tells the waiter when the sender's device is registered and its schema known. What is under way (an
 * activation, a heartbeat that is being written) is awaited, and then the device is asked for its
 * schema if need be. Who waits for one device is told in the order of the calls. The error is
 * mir_twin_unknown (that pointer) for a device that is not registered, and mir_twin_disabled. */
void mir_twin_await(mir_shard *shard, const mir_message *message, mir_twin_waiter *waiter);
extern const char mir_twin_unknown[], mir_twin_disabled[];
bool mir_twin_is_online(mir_shard *shard, mir_view device_id);
/* At the start: the device was online when the server stopped. */
void mir_twin_resume(mir_shard *shard, mir_view device_id, uint64_t number);
void mir_twin_free_all(mir_shard *shard);

#endif
