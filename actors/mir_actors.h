/* SPDX-License-Identifier: Apache-2.0 */
/* mir_actors: what the hub's actors on all shards share, and what those of one shard share.
 *
 * Why        Twins, services and their helpers work on the same stores and find each other here.
 * Ownership  The hub owns all of it. An operation that leaves its shard (to a worker, to the state
 *            writer) owns itself until its last post has run, and is counted meanwhile, so that a
 *            stop can wait for it.
 * Affinity   mir_hub: immutable after start but for the atomics. mir_actors: one shard's thread.
 * Errors     None. */
#ifndef MIR_ACTORS_H
#define MIR_ACTORS_H

#include <pthread.h>
#include <stdatomic.h>

#include "mir_cfg_device.h"
#include "mir_histogram.h"
#include "mir_http.h"
#include "mir_sink.h"
#include "mir_hub.h"
#include "mir_letter.h"
#include "mir_row.h"
#include "mir_schemas.h"
#include "mir_sequel.h"
#include "mir_state.h"
#include "mir_tlm_devices.h"
#include "mir_tlog.h"
#include "mir_workers.h"

typedef enum mir_function {
    MIR_FUNCTION_NONE = 0,
    MIR_DEVICE_HEARTBEAT,
    MIR_DEVICE_SCHEMA,
    MIR_DEVICE_TELEMETRY,
    MIR_DEVICE_DESIRED,
    MIR_DEVICE_REPORT,
    MIR_CORE_CREATE,
    MIR_CORE_CREATES,
    MIR_CORE_UPDATE,
    MIR_CORE_DELETE,
    MIR_CORE_LIST,
    MIR_CORE_SCHEMA,
    MIR_CMD_LIST,
    MIR_CMD_SEND,
    MIR_CMD_QUEUE,
    MIR_CMD_CANCEL,
    MIR_CFG_LIST,
    MIR_CFG_SEND,
    MIR_TLM_LIST,
    MIR_TLM_QUERY,
    MIR_TLM_RETENTION,
    MIR_SYS_STATUS,
    MIR_EVENT_PUBLISHED,
    MIR_EVT_LIST,
    MIR_EVT_DELETE,
    MIR_EVT_VERIFY,
    MIR_EVT_RETENTION,
    MIR_EVT_HISTORY,
    MIR_FUNCTION_COUNT,
} mir_function;

struct mir_hub {
    const mir_config *config;
    mir_shard *const *shards;
    unsigned shard_count;
    mir_workers *requests; /* normal priority: requests of people and devices */
    mir_workers *queries;  /* what may take long: it gives way when it does */
    mir_state *state;
    mir_tlog *tlog;
    mir_schemas *schemas;
    mir_tlm_devices *tlm_devices;
    const char *io_name;
    char instance[32];         /* in trigger chains */
    char inbox[48];            /* prefix of the subjects of our own replies, with its last dot */
    mir_event_cause own_cause; /* of what no request caused */
    int64_t started_mono_ns;
    _Atomic bool started;       /* the shards run */
    _Atomic bool stopping;      /* what workers have yet to read is of no use any more */
    _Atomic uint32_t in_flight; /* operations away from their shard */
    _Atomic uint32_t client_requests;
    _Atomic int64_t commands_due_ns; /* when a queued command may expire next */
    _Atomic uint64_t events_lost;    /* were to be stored, and are not */
    _Atomic int64_t events_lost_said_ns;
    mir_sequel_lane sequels;
    mir_tlog_rule telemetry_rules[MIR_TLOG_RULES_MAX];
    mir_http_counters http;
    mir_sink *sink; /* null: off */
};

/* What goes wrong with devices, for the status: a fixed number of places, the one that was longest ago makes room. */
enum { MIR_PROBLEMS_MAX = 64, MIR_PROBLEM_TEXT_BYTES = 160 };
typedef struct mir_problem {
    char device[MIR_DEVICE_ID_BYTES_MAX + 1];
    const char *kind;
    uint64_t count;
    int64_t last_wall_ns;
    char text[MIR_PROBLEM_TEXT_BYTES];
} mir_problem;

typedef struct mir_event_intake mir_event_intake;
struct mir_cmd_known;

/* What mir_notices counts. */
typedef struct mir_notices {
    mir_map by_key;
    struct mir_notice_entry *first, *last;
    mir_timer timer;
    uint32_t under_way;
    uint64_t dropped;
} mir_notices;

typedef struct mir_actors {
    mir_hub *hub;
    mir_shard *shard;
    mir_map twins;
    mir_map asks;
    mir_map queues;              /* of devices that commands wait for */
    mir_timer queue_watch;       /* on one shard: for commands that expire */
    bool queue_watching;         /* a look at them is under way */
    struct mir_cmd_known *known; /* devices that commands went to; null before the first */
    mir_map plans;
    uint32_t loading;            /* activations under way */
    uint32_t absent;             /* twins of devices that the store does not know */
    uint32_t disabled;           /* twins of devices that are disabled */
    struct mir_request *watched; /* requests that end when nobody would hear the answer */
    mir_timer watch;
    uint32_t visits; /* questions for twins of other shards under way */
    mir_notices notices;
    size_t reading_bytes;      /* of schemas of devices that workers read */
    mir_cfg_intake properties; /* of devices: what they ask for and what they report */
    mir_event_intake *intake;  /* null before the first event */
    mir_tlog_writer *log;
    mir_row row;
    size_t held_bytes;          /* of messages that wait in twins */
    uint64_t telemetry_refused; /* by us, before the log */
    uint64_t telemetry_accepted;
    /* Written by the shard, read by others, for what is rare: never taken for a message that is as
     * it should be. */
    pthread_mutex_t problems_lock;
    mir_problem problems[MIR_PROBLEMS_MAX];
    unsigned problem_count;
    mir_histogram request_latency; /* of client requests, nanoseconds */
} mir_actors;

static inline mir_actors *mir_actors_of(mir_shard *shard)
{
    return shard->actors;
}

static inline mir_view mir_hub_instance(const mir_hub *hub)
{
    return mir_view_cstr(hub->instance);
}

/* The shard that owns a device's partition. */
unsigned mir_hub_shard_of(const mir_hub *hub, mir_view device_id);

void mir_hub_begin(mir_hub *hub); /* an operation leaves its shard */
void mir_hub_end(mir_hub *hub);   /* its last post has run */

/* Attaches to devices what went wrong with them. Any thread. */
void mir_hub_attach_problems(mir_hub *hub, MirApi__V1__Device **devices, size_t count,
                             mir_arena *arena);
/* Counts something that went wrong with a device; the text is the latest. */
void mir_actors_problem(mir_actors *actors, mir_view device, const char *kind, uint64_t count,
                        const char *format, ...) MIR_PRINTF(5, 6);

#endif
