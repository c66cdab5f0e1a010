/* SPDX-License-Identifier: Apache-2.0 */
/* mir_shard: one shard of the server, and the way of a message through it.
 *
 * Why        A message comes from a session or from the server itself, is matched once on the shard
 *            where it appears, and goes to subscriptions here, to neighbours in parcels, and to the
 *            server's own endpoint for its subject.
 * Ownership  A message is a set of views into one buffer; whoever keeps it past the call retains the
 *            buffer. A shard owns its sessions, subscriptions, route cache and output chunks.
 * Affinity   Everything on the shard's thread, except mir_shard_post.
 * Bounds     See mir_limits.h; the route cache has a fixed number of entries.
 * Errors     Delivery never fails towards the publisher; who cannot take a message is closed
 *            (slow consumer) and counted.
 *
 * Endpoints are how the server's own actors take part: a subject belongs to at most one, whose
 * handler runs on the shard that the endpoint names. They count as a delivery. Outside subscribers
 * of the same subject still get their copies. */
#ifndef MIR_SHARD_H
#define MIR_SHARD_H

#include "mir_buffer.h"
#include "mir_config.h"
#include "mir_holding.h"
#include "mir_limits.h"
#include "mir_loop.h"
#include "mir_map.h"
#include "mir_poller.h"
#include "mir_router.h"
#include "mir_slots.h"
#include "mir_view.h"

typedef struct mir_shard mir_shard;
typedef struct mir_session mir_session;
typedef struct mir_server mir_server;
typedef struct mir_gateway mir_gateway;

typedef struct mir_message {
    mir_view subject;
    mir_view reply;   /* empty: none */
    mir_view header;  /* the whole block; empty: none */
    mir_view payload; /* directly behind the header in memory */
    mir_buffer *buffer;
    mir_ref publisher; /* a session; 0: the server itself */
    uint8_t endpoint;  /* of mir_endpoint_kind, and what it chose within it */
    uint8_t function;
    mir_view key;      /* the part of the subject that names the addressee: a device id, a token */
    uint64_t key_hash; /* mir_hash_view of it; 0: not known */
} mir_message;

typedef enum mir_endpoint_kind {
    MIR_ENDPOINT_NONE = 0,
    MIR_ENDPOINT_DEVICE,  /* device.<id>.…: the twin, on the shard of its partition */
    MIR_ENDPOINT_SERVICE, /* client.…: a service, on the shard where the request arrived */
    MIR_ENDPOINT_REPLY,   /* an answer to a request of the server's own, on the shard that asked */
} mir_endpoint_kind;

/* A connection or a login that was not accepted. */
typedef struct mir_refusal {
    bool is_login;
    mir_view text, user, address;
} mir_refusal;

typedef struct mir_endpoints {
    /* Pure. Fills endpoint, function and key, and the shard to handle it. */
    mir_endpoint_kind (*classify)(const mir_shard *shard, mir_message *message, unsigned *owner);
    void (*deliver)(mir_shard *shard, const mir_message *message);
    /* Before acknowledgements leave: what was staged becomes visible and lasts. */
    void (*commit)(mir_shard *shard);
    /* Both may be null. A connection that serves nothing else has subscribed below this first token
     * of a subject; a connection was refused. */
    void (*subscribed)(mir_shard *shard, mir_view token);
    void (*refused)(mir_shard *shard, const mir_refusal *refusal);
} mir_endpoints;

/* What comes back through the mailbox begins with this. */
typedef struct mir_post {
    mir_mpsc_node node;
    void (*run)(mir_shard *shard, struct mir_post *post);
} mir_post;

typedef struct mir_subscription {
    mir_slot slot;
    mir_map_node by_sid;
    mir_session *session;
    struct mir_subscription *next, *prev; /* of the session */
    uint64_t delivered;
    uint64_t max; /* 0: none */
    uint32_t pattern_size;
    uint32_t queue_size;
    uint32_t sid_size;
    bool filtered;    /* permissions withhold some of its subjects */
    uint8_t *strings; /* pattern, queue, sid, one behind the other */
} mir_subscription;

typedef struct mir_shard_stats {
    uint64_t messages_in, messages_out, bytes_in, bytes_out;
    uint64_t connections_total, slow_consumers, stale, refused_connections;
    uint64_t parse_errors, auth_failures, permission_refusals;
    uint64_t route_hits, route_misses, parked;
    uint64_t connections; /* now */
    uint64_t subscriptions;
} mir_shard_stats;

typedef struct mir_chunk {
    struct mir_chunk *next;
    uint32_t size;
    uint32_t capacity;
    mir_buffer *shared; /* null: the bytes are in `data` */
    const uint8_t *bytes;
    uint8_t data[];
} mir_chunk;

typedef struct mir_parcel mir_parcel;
typedef struct mir_route mir_route;

struct mir_shard {
    unsigned id;
    mir_server *server;
    mir_gateway *gateway;
    mir_shard **peers; /* all shards by id, itself included */
    mir_loop *loop;
    const mir_poller_backend *backend;
    mir_poller *poller;
    const mir_config *config;
    mir_router *router;
    const mir_endpoints *endpoints;
    void *actors; /* the endpoints' own state on this shard */

    mir_slots sessions;
    mir_slots subscriptions;
    mir_map sids;
    mir_session *dirty;   /* have output to send */
    mir_session *waiting; /* paused: for rings to settle or to have room */
    mir_session *sending; /* a send is in flight */
    /* What of each shard's messages waits here for an activation: until they are stored they have
     * not taken effect, and no PONG covers them. */
    mir_holding holding[MIR_SHARDS_MAX];
    uint64_t answered; /* shards that are sent something which their PONGs follow */
    uint64_t urging;   /* shards that a PONG waits for, since their parcels of this turn */
    bool only_told;    /* the last turn brought telemetry and nothing that anybody waits for */
    bool acknowledges; /* a PONG was written in this turn */
    uint32_t staged;   /* effects that wait for endpoints->commit */
    int64_t staged_since_ns;
    int64_t accept_failed_ns; /* last told of; 0: never */
    bool tight;               /* a neighbour's ring is over the share of socket traffic */

    mir_parcel *open[MIR_SHARDS_MAX]; /* being filled for each neighbour */
    mir_buffer *open_buffer[MIR_SHARDS_MAX];
    mir_mpsc parcels_returned;
    mir_parcel *parcels_free;
    unsigned parcel_count;
    mir_chunk *chunks_small, *chunks_large;
    unsigned chunks_small_count, chunks_large_count;

    mir_route *routes;
    mir_match match; /* scratch */
    uint64_t random;
    mir_shard_stats stats;
    mir_timer sweep;  /* write deadlines */
    mir_timer unpark; /* ends the pause of parked publishers */
    bool refusing;    /* the server stops: no connection is taken any more */
    bool stopping;    /* every shard has ended: what comes home reaches nobody */
};

MIR_MUST_CHECK mir_status mir_shard_init(mir_shard *shard, mir_server *server, mir_loop *loop,
                                         const mir_config *config, mir_router *router,
                                         const mir_endpoints *endpoints);
void mir_shard_fini(mir_shard *shard);
extern const mir_loop_ops mir_shard_loop_ops;

/* Routes a message. `from` is the publishing session, null for the server's own. Returns how many
 * took it (neighbours that were sent it included). */
unsigned mir_shard_publish(mir_shard *shard, mir_message *message, mir_session *from);

/* A message of the server's own in a heap buffer, copied from the pieces. Returns deliveries. */
unsigned mir_shard_emit(mir_shard *shard, mir_view subject, mir_view reply, mir_view header,
                        mir_view payload);

/* Whether any outside subscription takes this subject, on whatever shard. `named`: subscriptions that
 * begin with a wildcard do not count. */
bool mir_shard_has_listener(mir_shard *shard, mir_view subject, bool named);

/* Parks the publisher for a moment: it feeds what cannot keep up. */
void mir_shard_tell_congested(mir_shard *shard, mir_ref publisher);

/* From any thread: runs post->run on the shard. */
void mir_shard_post(mir_shard *shard, mir_post *post);
/* Nobody runs any more: gives back what still lies in this shard's rings and mailbox. */
void mir_shard_drain(mir_shard *shard);
/* Sends open parcels on their way. */
void mir_shard_flush_parcels(mir_shard *shard);

mir_chunk *mir_shard_chunk_take(mir_shard *shard, size_t need, bool large);
/* A full one whose bytes stay in a buffer, which it holds. */
mir_chunk *mir_shard_chunk_share(mir_buffer *buffer, mir_view bytes);
void mir_shard_chunk_give(mir_shard *shard, mir_chunk *chunk);
uint32_t mir_shard_random(mir_shard *shard);

#endif
