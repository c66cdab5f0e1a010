/* SPDX-License-Identifier: Apache-2.0 */
/* mir_twin_internal: what the sources of mir_twin share. Nobody else includes it.
 *
 * Why        The parts of a twin see each other's fields, and so each part can be a module: a part
 *            that is added to twins gets a source and a header of its own, and fields here.
 * Ownership  The shard's map owns twins (mir_twin.h).
 * Affinity   The shard's thread.
 * Errors     None. */
#ifndef MIR_TWIN_INTERNAL_H
#define MIR_TWIN_INTERNAL_H

#include "mir_twin.h"
#include "mir_twin_telemetry.h"

/* What is disabled is not READY: the way of a message asks for nothing more. */
typedef enum mir_twin_state {
    MIR_TWIN_COLD,
    MIR_TWIN_LOADING,
    MIR_TWIN_ABSENT,
    MIR_TWIN_DISABLED,
    MIR_TWIN_READY,
} mir_twin_state;

/* In the order in which they came. */
typedef struct mir_twin_waiters {
    mir_twin_waiter *first, *last;
} mir_twin_waiters;

struct mir_twin {
    mir_map_node by_id;
    mir_shard *shard;
    uint8_t state;
    bool online;
    bool stale;        /* changed in the store while a load was under way */
    bool beat_waits;   /* a heartbeat is to be written when that is possible */
    bool hello_parses; /* a hello is being read: its heartbeat waits for it */
    bool renews;       /* another schema of the device may be on its way to `schema` */
    bool writing;
    bool writes_other; /* a schema that is not this one */
    uint8_t renewals;  /* that came to an end while others were still on their way */
    bool pulling;
    bool visited;      /* while loading: by a connection of this device alone */
    mir_ref speaker;   /* while loading: the last connection that spoke for it */
    uint32_t readings; /* of schemas that the device sent */
    uint32_t sent,
        read;         /* schemas are counted as they come: the last one, the latest that was read */
    uint32_t changes; /* notices that the store has something new */
    uint64_t number;
    _Atomic int64_t *cell;
    int64_t last_beat_wall_ns, last_beat_ns, last_active_ns, last_written_ns;
    int64_t pull_after_ns, pull_backoff_ns;
    int64_t cut_after_ns; /* when a connection is looked at again, while disabled */
    mir_timer timer;
    mir_known_schema schema;
    mir_known_schema hello; /* read, and waiting to be written with a heartbeat */
    mir_known_schema taken; /* the same without one */
    mir_twin_telemetry telemetry;
    mir_twin_waiters waiters; /* for the schema that the device is asked for */
    mir_twin_waiters await;   /* for what is under way: then the schema is known, or asked for */
    mir_twin_waiters pull_waiters; /* asked for a pull before activation */
    uint8_t id_size;
    char id[];
};

static inline mir_view mir_twin_id(const mir_twin *twin)
{
    return mir_view_of(twin->id, twin->id_size);
}

static inline mir_hub *mir_twin_hub(const mir_twin *twin)
{
    return mir_actors_of(twin->shard)->hub;
}

static inline int64_t mir_twin_now(const mir_twin *twin)
{
    return twin->shard->loop->now_ns;
}

#endif
