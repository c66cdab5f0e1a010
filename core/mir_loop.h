/* SPDX-License-Identifier: Apache-2.0 */
/* mir_loop: the run loop of one shard, and the mesh of rings between all of them.
 *
 * Why        A shard does everything in bounded turns on one thread and shares nothing: what it has
 *            to say to another shard goes through a ring, what helper threads have for it through
 *            its mailbox.
 * Ownership  The mesh owns rings; a message is the receiver's once `message` was called with it.
 *            Every message begins with a mir_mpsc_node, which the sender's overflow list uses.
 * Affinity   A loop belongs to the thread that runs its turns. mir_loop_post: any thread.
 * Units      Nanoseconds.
 * Bounds     Each phase of a turn has a budget. A ring holds MIR_RING_SLOTS messages, of which
 *            socket traffic may use all but MIR_RING_SLOTS_RESERVED; what the server itself says
 *            never fails: beyond the ring it waits in the sender's overflow list, which is bounded
 *            by the requests in flight that cause it.
 * Errors     mir_loop_send: MIR_E_FULL for socket traffic over its quota. A refusal changes nothing.
 *
 * A turn, in this order:
 *   1 wait      submit I/O; sleep only with nothing to do, after announcing it
 *   2 poll      completions: received bytes become messages
 *   3 drain     inbound rings, then what the mailbox held before: deliveries become output
 *   4 timers
 *   5 turn_end  what makes the turn's effects durable, then what tells of them (acknowledgements,
 *               consumed counts), then the sends
 *   6 wakes     sleeping neighbours that were sent something
 * The order is a promise: an acknowledgement never leaves before the effect that it confirms. */
#ifndef MIR_LOOP_H
#define MIR_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "mir_epoch.h"
#include "mir_mpsc.h"
#include "mir_status.h"
#include "mir_timer.h"

typedef struct mir_loop mir_loop;
typedef struct mir_mesh mir_mesh;

typedef struct mir_loop_ops {
    void (*wait)(void *context, int64_t timeout_ns);
    /* Handles at most `budget` completions; returns how many there were. */
    unsigned (*poll)(void *context, unsigned budget);
    void (*message)(void *context, unsigned source, void *message);
    void (*posted)(void *context, mir_mpsc_node *node);
    void (*turn_end)(void *context);
    /* True while something waits for the next turn rather than for an event. */
    bool (*busy)(void *context);
    /* True while something waits for neighbours to settle what they were sent: they then wake this
     * shard when they do. */
    bool (*expects)(void *context);
    /* Called on the thread of `from`. */
    void (*wake_peer)(void *from_context, void *to_context);
    /* Called on any thread. */
    void (*wake)(void *context);
} mir_loop_ops;

typedef struct mir_loop_stats {
    uint64_t turns;
    uint64_t sleeps;
    uint64_t wakes_sent;
    uint64_t messages;
    uint64_t overflowed;
    int64_t busy_ns;
} mir_loop_stats;

struct mir_loop {
    unsigned id;
    unsigned count; /* of shards */
    int64_t now_ns; /* monotonic, read once a turn */
    int64_t wall_ns;
    mir_timer_wheel timers;
    mir_epoch_record *epoch;
    /* A sleep ends by then; 0: no such time. Set by the layer above. */
    int64_t wake_by_ns;
    /* A neighbour waits for what it sent to take full effect: settle in this turn. */
    bool asked;
    mir_loop_stats stats; /* written here, read by others with relaxed atomics */
    struct mir_loop_private *own;
};

typedef enum mir_traffic {
    MIR_TRAFFIC_SOCKET,
    MIR_TRAFFIC_SERVER,
    /* As SERVER, but nobody waits for it: a sleeping receiver is woken within MIR_LOOP_LAZY_US, so
     * that a trickle of messages costs few wake-ups. */
    MIR_TRAFFIC_LAZY,
} mir_traffic;

enum { MIR_LOOP_LAZY_US = 1000 };

MIR_MUST_CHECK mir_status mir_mesh_create(unsigned shard_count, mir_mesh **mesh);
void mir_mesh_destroy(mir_mesh *mesh);
mir_loop *mir_mesh_loop(mir_mesh *mesh, unsigned shard);
mir_epoch *mir_mesh_epoch(mir_mesh *mesh);
/* Before the first turn. */
void mir_loop_bind(mir_loop *loop, const mir_loop_ops *ops, void *context, int64_t spin_ns);

/* One turn. With may_sleep it waits for work when there is none, at most max_sleep_ns. */
void mir_loop_turn(mir_loop *loop, bool may_sleep, int64_t max_sleep_ns);
/* Nobody runs any more: hands what lies in the loop's inbound rings, its neighbours' overflow
 * towards it and its mailbox to the two functions. */
void mir_loop_discard(mir_loop *loop, void *context,
                      void (*message)(void *context, unsigned source, void *message),
                      void (*posted)(void *context, mir_mpsc_node *node));
/* Leaves the epoch for good; the thread runs no more turns. */
void mir_loop_retire(mir_loop *loop);

MIR_MUST_CHECK mir_status mir_loop_send(mir_loop *loop, unsigned to, void *message,
                                        mir_traffic traffic);
/* Whether every neighbour has room for socket traffic. */
bool mir_loop_has_room(const mir_loop *loop);
void mir_loop_post(mir_loop *loop, mir_mpsc_node *node);

/* Something waits for what a neighbour was sent: it is to settle in its next turn, before which it
 * does not fall asleep; if it sleeps, it is woken at the end of this turn. */
void mir_loop_urge(mir_loop *loop, unsigned to);

/* Handles what the inbound rings hold now, outside the drain phase (the PONG barrier needs it). */
void mir_loop_drain(mir_loop *loop);
/* How many messages were sent to a neighbour, and how many of them lie no more in the overflow. */
uint64_t mir_loop_sent(const mir_loop *loop, unsigned to);
uint64_t mir_loop_pushed(const mir_loop *loop, unsigned to);
/* How many of those that were sent had taken full effect there when the last drain here began: so
 * what the neighbour had pushed before it said so is handled here. */
uint64_t mir_loop_settled(const mir_loop *loop, unsigned to);
/* How many messages of a neighbour were handled here. */
uint64_t mir_loop_handled(const mir_loop *loop, unsigned source);
/* Tells a neighbour that the first `count` of its messages have taken full effect; not more than
 * were handled. Less than it was told before changes nothing. */
void mir_loop_settle(mir_loop *loop, unsigned source, uint64_t count);

#endif
