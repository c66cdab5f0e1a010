/* SPDX-License-Identifier: Apache-2.0 */
/* mir_twin_telemetry: the part of a twin that takes telemetry.
 *
 * Why        A message becomes a row of its series: found by its type, decoded by a plan that the
 *            devices of a shard with the same schema share, staged in the shard's log. What comes
 *            before the twin knows its schema is held until then.
 * Ownership  A part of the twin; it owns its series and what it holds. Plans belong to the shard.
 * Affinity   The shard's thread.
 * Bounds     What waits for provisioning or the schema is held up to MIR_TWIN_HELD_MESSAGES and
 *            MIR_TWIN_HELD_BYTES; what waits for activation, or until a heartbeat or schema that the
 *            device has just sent is read and written, up to MIR_TWIN_ACTIVATION_BYTES and
 *            MIR_TWIN_ACTIVATION_SHARD_BYTES; beyond that it is counted as refused. No more than
 *            limits.device_rate messages a second of one device.
 * Errors     Faults in a device's input are counted for that device (mir_actors_problem).
 *
 * It asks for nothing: who calls activates the twin, or asks the device for its schema, when
 * something is held for that. PONGs wait for what is held for an activation, or for a heartbeat or schema
 * that has come (mir_holding.h), and for nothing else that is held. */
#ifndef MIR_TWIN_TELEMETRY_H
#define MIR_TWIN_TELEMETRY_H

#include "mir_actors.h"

enum {
    MIR_TWIN_HELD_MESSAGES = 64,
    MIR_TWIN_HELD_BYTES = 64 * 1024,
    /* An activation takes a moment and always ends: what arrives meanwhile is only bounded so that
     * memory is. */
    MIR_TWIN_ACTIVATION_BYTES = 4 * 1024 * 1024,
    MIR_TWIN_ACTIVATION_SHARD_BYTES = 64 * 1024 * 1024,
};

typedef struct mir_twin mir_twin;

/* Zeroed is empty. */
typedef struct mir_twin_telemetry {
    struct mir_twin_series *series; /* what came last is first */
    struct mir_twin_held *held, *held_last;
    uint32_t held_count, held_bytes;
    uint16_t series_count;
    int64_t due_ns; /* when the next message would come at the greatest steady rate */
} mir_twin_telemetry;

/* False when it waits for the activation, or for a schema that has its type and is to be asked for. */
bool mir_twin_telemetry_take(mir_twin *twin, const mir_message *message);
/* Counts one message of the device; true when it is one too many. What else a device may send at will
 * counts, too. */
bool mir_twin_telemetry_floods(mir_twin *twin);
/* Stores what was held, now that the schema is known or will not be; keeps what it does not have while
 * the device is, or can be, asked for another. */
void mir_twin_telemetry_settle(mir_twin *twin);
/* What was held goes; counted as refused of that kind, with the reason, or (null) silently. */
void mir_twin_telemetry_drop(mir_twin *twin, const char *kind, const char *why);
/* The schema will be another one: its series are closed. */
void mir_twin_telemetry_forget(mir_twin *twin);
/* The shard's plans, when no twin is left. */
void mir_twin_telemetry_free_plans(mir_actors *actors);

#endif
