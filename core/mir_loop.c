/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_loop.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "mir_assert.h"
#include "mir_clock.h"
#include "mir_limits.h"
#include "mir_ring.h"

_Static_assert(MIR_RING_SLOTS_RESERVED < MIR_RING_SLOTS, "socket traffic needs a share too");

enum { TIMERS_PER_TURN = 256 };

typedef struct overflow {
    mir_mpsc_node *head, *tail;
} overflow;

struct mir_loop_private {
    mir_mesh *mesh;
    const mir_loop_ops *ops;
    void *context;
    int64_t spin_ns;
    int64_t idle_since_ns;
    mir_mpsc mailbox;
    /* 1 while this shard is in, or about to enter, a wait that only an event ends. */
    _Atomic uint32_t sleeping;
    bool draining;
    mir_ring *out[MIR_SHARDS_MAX]; /* null for itself */
    mir_ring *in[MIR_SHARDS_MAX];
    overflow overflow[MIR_SHARDS_MAX];
    uint64_t sent[MIR_SHARDS_MAX];
    bool touched[MIR_SHARDS_MAX]; /* sent to in this turn: may need a wake */
    bool told[MIR_SHARDS_MAX];    /* settled something of it: may need a wake if it expects that */
    int64_t lazy_since_ns[MIR_SHARDS_MAX]; /* sent to lazily and not woken since; 0: no */
    uint64_t settled[MIR_SHARDS_MAX];      /* when the last drain began */
    uint64_t settled_seen[MIR_SHARDS_MAX]; /* of these, when this turn looked at what waits */
    /* 1 while something here waits for neighbours to settle. Written before `sleeping`. */
    _Atomic uint32_t expecting;
    /* Set by neighbours after their push (release), taken here before the drain (acquire). */
    _Atomic uint32_t asked;
};

struct mir_mesh {
    unsigned count;
    mir_epoch *epoch;
    mir_loop loops[MIR_SHARDS_MAX];
    struct mir_loop_private *privates[MIR_SHARDS_MAX];
};

void mir_mesh_destroy(mir_mesh *mesh)
{
    if (mesh == NULL) return;
    for (unsigned i = 0; i < mesh->count; i++) {
        for (unsigned j = 0; mesh->privates[i] != NULL && j < mesh->count; j++)
            mir_ring_destroy(mesh->privates[i]->out[j]);
        free(mesh->privates[i]);
    }
    mir_epoch_destroy(mesh->epoch);
    free(mesh);
}

mir_status mir_mesh_create(unsigned shard_count, mir_mesh **mesh)
{
    MIR_ASSERT(shard_count >= 1 && shard_count <= MIR_SHARDS_MAX);
    mir_mesh *fresh = calloc(1, sizeof *fresh);
    if (fresh == NULL) return MIR_E_NO_MEMORY;
    fresh->count = shard_count;
    mir_status status = mir_epoch_create(&fresh->epoch);
    for (unsigned i = 0; status == MIR_OK && i < shard_count; i++) {
        struct mir_loop_private *own = calloc(1, sizeof *own);
        if (own == NULL) {
            status = MIR_E_NO_MEMORY;
            break;
        }
        own->mesh = fresh;
        fresh->privates[i] = own;
        fresh->loops[i] = (mir_loop){.id = i, .count = shard_count, .own = own};
        status = mir_epoch_register(fresh->epoch, &fresh->loops[i].epoch);
    }
    for (unsigned i = 0; status == MIR_OK && i < shard_count; i++) {
        for (unsigned j = 0; status == MIR_OK && j < shard_count; j++) {
            if (i == j) continue;
            status = mir_ring_create(MIR_RING_SLOTS, &fresh->privates[i]->out[j]);
            if (status == MIR_OK) fresh->privates[j]->in[i] = fresh->privates[i]->out[j];
        }
    }
    if (status != MIR_OK) {
        mir_mesh_destroy(fresh);
        return status;
    }
    *mesh = fresh;
    return MIR_OK;
}

mir_loop *mir_mesh_loop(mir_mesh *mesh, unsigned shard)
{
    MIR_ASSERT(shard < mesh->count);
    return &mesh->loops[shard];
}

mir_epoch *mir_mesh_epoch(mir_mesh *mesh)
{
    return mesh->epoch;
}

void mir_loop_bind(mir_loop *loop, const mir_loop_ops *ops, void *context, int64_t spin_ns)
{
    loop->own->ops = ops;
    loop->own->context = context;
    loop->own->spin_ns = spin_ns;
    loop->now_ns = mir_clock_mono_ns();
    loop->wall_ns = mir_clock_wall_ns();
    mir_timer_wheel_init(&loop->timers, loop->now_ns, context);
    mir_epoch_enter(loop->epoch);
}

void mir_loop_retire(mir_loop *loop)
{
    mir_epoch_leave(loop->epoch);
}

void mir_loop_discard(mir_loop *loop, void *context,
                      void (*message)(void *context, unsigned source, void *message),
                      void (*posted)(void *context, mir_mpsc_node *node))
{
    struct mir_loop_private *own = loop->own;
    for (unsigned i = 0; i < loop->count; i++) {
        if (i == loop->id) continue;
        void *found;
        while (mir_ring_pop(own->in[i], &found) == MIR_OK) message(context, i, found);
        overflow *waiting = &own->mesh->privates[i]->overflow[loop->id];
        while (waiting->head != NULL) {
            mir_mpsc_node *node = waiting->head;
            waiting->head = node->next;
            message(context, i, node);
        }
    }
    mir_mpsc_node *node = mir_mpsc_take(&own->mailbox);
    while (node != NULL) {
        mir_mpsc_node *next = node->next;
        posted(context, node);
        node = next;
    }
}

mir_status mir_loop_send(mir_loop *loop, unsigned to, void *message, mir_traffic traffic)
{
    struct mir_loop_private *own = loop->own;
    MIR_ASSERT(to < loop->count && to != loop->id);
    overflow *waiting = &own->overflow[to];
    if (traffic == MIR_TRAFFIC_SOCKET &&
        (waiting->head != NULL || mir_ring_room(own->out[to]) <= MIR_RING_SLOTS_RESERVED))
        return MIR_E_FULL;
    if (waiting->head != NULL || mir_ring_push(own->out[to], message) != MIR_OK) {
        mir_mpsc_node *node = message;
        node->next = NULL;
        if (waiting->head == NULL)
            waiting->head = node;
        else
            waiting->tail->next = node;
        waiting->tail = node;
        loop->stats.overflowed++;
    }
    own->sent[to]++;
    if (traffic != MIR_TRAFFIC_LAZY)
        own->touched[to] = true;
    else if (own->lazy_since_ns[to] == 0)
        own->lazy_since_ns[to] = loop->now_ns;
    return MIR_OK;
}

bool mir_loop_has_room(const mir_loop *loop)
{
    const struct mir_loop_private *own = loop->own;
    for (unsigned i = 0; i < loop->count; i++) {
        if (i == loop->id) continue;
        if (own->overflow[i].head != NULL || mir_ring_room(own->out[i]) <= MIR_RING_SLOTS_RESERVED)
            return false;
    }
    return true;
}

static void flush_overflow(mir_loop *loop)
{
    struct mir_loop_private *own = loop->own;
    for (unsigned i = 0; i < loop->count; i++) {
        overflow *waiting = &own->overflow[i];
        while (waiting->head != NULL) {
            mir_mpsc_node *node = waiting->head;
            mir_mpsc_node *next = node->next; /* the receiver owns the node once it is pushed */
            if (mir_ring_push(own->out[i], node) != MIR_OK) break;
            waiting->head = next;
            own->touched[i] = true; /* the receiver has been slow: no laziness */
        }
        if (waiting->head == NULL) waiting->tail = NULL;
    }
}

void mir_loop_post(mir_loop *loop, mir_mpsc_node *node)
{
    struct mir_loop_private *own = loop->own;
    if (mir_mpsc_push(&own->mailbox, node) &&
        atomic_load_explicit(&own->sleeping, memory_order_seq_cst) != 0)
        own->ops->wake(own->context);
}

void mir_loop_drain(mir_loop *loop)
{
    struct mir_loop_private *own = loop->own;
    if (own->draining) return;
    own->draining = true;
    /* First: a neighbour's word is not to be heard before what it had sent until then. */
    for (unsigned i = 0; i < loop->count; i++)
        if (i != loop->id) own->settled[i] = mir_ring_consumed(own->out[i]);
    for (unsigned i = 0; i < loop->count; i++) {
        if (i == loop->id) continue;
        void *message;
        for (unsigned n = 0; n < MIR_TURN_PARCELS_MAX; n++) {
            if (mir_ring_pop(own->in[i], &message) != MIR_OK) break;
            own->ops->message(own->context, i, message);
            loop->stats.messages++;
        }
    }
    own->draining = false;
}

static bool inbound_waits(const mir_loop *loop)
{
    const struct mir_loop_private *own = loop->own;
    for (unsigned i = 0; i < loop->count; i++) {
        if (i != loop->id && mir_ring_room(own->in[i]) != MIR_RING_SLOTS - 1) return true;
    }
    return !mir_mpsc_is_empty(&loop->own->mailbox);
}

static bool overflow_waits(const mir_loop *loop)
{
    for (unsigned i = 0; i < loop->count; i++)
        if (loop->own->overflow[i].head != NULL) return true;
    return false;
}

uint64_t mir_loop_sent(const mir_loop *loop, unsigned to)
{
    return loop->own->sent[to];
}

uint64_t mir_loop_pushed(const mir_loop *loop, unsigned to)
{
    return mir_ring_pushed(loop->own->out[to]);
}

uint64_t mir_loop_settled(const mir_loop *loop, unsigned to)
{
    return loop->own->settled[to];
}

uint64_t mir_loop_handled(const mir_loop *loop, unsigned source)
{
    return mir_ring_popped(loop->own->in[source]);
}

void mir_loop_settle(mir_loop *loop, unsigned source, uint64_t count)
{
    mir_ring *ring = loop->own->in[source];
    MIR_ASSERT(count <= mir_ring_popped(ring));
    if (mir_ring_consumed(ring) >= count) return;
    mir_ring_consumed_set(ring, count);
    loop->own->told[source] = true;
}

void mir_loop_urge(mir_loop *loop, unsigned to)
{
    loop->own->touched[to] = true;
    atomic_store_explicit(&loop->own->mesh->privates[to]->asked, 1, memory_order_release);
}

static void wake_sleepers(mir_loop *loop)
{
    struct mir_loop_private *own = loop->own;
    for (unsigned i = 0; i < loop->count; i++) {
        bool late = own->lazy_since_ns[i] != 0 &&
                    loop->now_ns - own->lazy_since_ns[i] >= MIR_LOOP_LAZY_US * MIR_NS_PER_US;
        if (!own->touched[i] && !own->told[i] && !late) continue;
        struct mir_loop_private *peer = own->mesh->privates[i];
        bool wake = own->touched[i] || late;
        if (wake) own->lazy_since_ns[i] = 0;
        own->touched[i] = own->told[i] = false;
        /* Read-modify-writes: ordered after our pushes and settling as the sleeper's announcement is
         * ordered before its last look at the rings, so one of the two sees the other. Clearing it
         * makes one wake enough. */
        if (!wake) {
            if (atomic_fetch_add_explicit(&peer->sleeping, 0, memory_order_seq_cst) == 0 ||
                atomic_load_explicit(&peer->expecting, memory_order_relaxed) == 0)
                continue;
        }
        if (atomic_exchange_explicit(&peer->sleeping, 0, memory_order_seq_cst) != 0) {
            own->ops->wake_peer(own->context, peer->context);
            loop->stats.wakes_sent++;
        }
    }
}

/* How long a lazily sent message may still lie before its receiver is woken. */
static int64_t lazy_sleep_ns(const mir_loop *loop, int64_t sleep_ns)
{
    for (unsigned i = 0; i < loop->count; i++) {
        if (loop->own->lazy_since_ns[i] == 0) continue;
        int64_t left_ns =
            loop->own->lazy_since_ns[i] + MIR_LOOP_LAZY_US * MIR_NS_PER_US - loop->now_ns;
        if (left_ns < sleep_ns) sleep_ns = left_ns < 0 ? 0 : left_ns;
    }
    return sleep_ns;
}

/* Whether a neighbour has settled something that this turn has not looked at. */
static bool settled_more(const mir_loop *loop)
{
    for (unsigned i = 0; i < loop->count; i++)
        if (i != loop->id && mir_ring_consumed(loop->own->out[i]) != loop->own->settled_seen[i])
            return true;
    return false;
}

static void wait_phase(mir_loop *loop, bool may_sleep, int64_t max_sleep_ns)
{
    struct mir_loop_private *own = loop->own;
    int64_t sleep_ns = 0;
    if (may_sleep && !inbound_waits(loop) && !overflow_waits(loop) &&
        !own->ops->busy(own->context)) {
        sleep_ns = mir_timer_sleep_ns(&loop->timers, loop->now_ns, max_sleep_ns);
        sleep_ns = lazy_sleep_ns(loop, sleep_ns);
        if (loop->wake_by_ns != 0 && loop->wake_by_ns - loop->now_ns < sleep_ns)
            sleep_ns = loop->wake_by_ns > loop->now_ns ? loop->wake_by_ns - loop->now_ns : 0;
        if (own->spin_ns > 0 && loop->now_ns - own->idle_since_ns < own->spin_ns) sleep_ns = 0;
    }
    if (sleep_ns == 0) {
        own->ops->wait(own->context, 0);
        return;
    }
    bool expects = own->ops->expects(own->context);
    atomic_store_explicit(&own->expecting, expects ? 1 : 0, memory_order_relaxed);
    /* Announce first, then look again; see wake_sleepers. */
    (void)atomic_exchange_explicit(&own->sleeping, 1, memory_order_seq_cst);
    if (inbound_waits(loop) || atomic_load_explicit(&own->asked, memory_order_relaxed) != 0 ||
        (expects && settled_more(loop))) {
        own->ops->wait(own->context, 0);
    } else {
        mir_epoch_leave(loop->epoch);
        loop->stats.sleeps++;
        own->ops->wait(own->context, sleep_ns);
        mir_epoch_enter(loop->epoch);
    }
    /* A read-modify-write here too: it sees what a neighbour pushed who found us announced but was
     * not the one to wake us, and the next announcement goes on from it. */
    (void)atomic_exchange_explicit(&own->sleeping, 0, memory_order_seq_cst);
}

void mir_loop_turn(mir_loop *loop, bool may_sleep, int64_t max_sleep_ns)
{
    struct mir_loop_private *own = loop->own;
    /* A new section each turn lets retired memory of other shards go. */
    mir_epoch_leave(loop->epoch);
    mir_epoch_poll(loop->epoch);
    mir_epoch_enter(loop->epoch);
    wait_phase(loop, may_sleep, max_sleep_ns);
    loop->now_ns = mir_clock_mono_ns();
    loop->wall_ns = mir_clock_wall_ns();
    int64_t began_ns = loop->now_ns;
    unsigned work = own->ops->poll(own->context, MIR_TURN_EVENTS_MAX);
    uint64_t messages = loop->stats.messages;
    loop->asked = atomic_load_explicit(&own->asked, memory_order_relaxed) != 0 &&
                  atomic_exchange_explicit(&own->asked, 0, memory_order_acquire) != 0;
    /* Taken before the rings are looked at: what a neighbour had sent before somebody posted is
     * handled before the post. */
    mir_mpsc_node *node = mir_mpsc_take(&own->mailbox);
    mir_loop_drain(loop);
    while (node != NULL) {
        mir_mpsc_node *next = node->next;
        own->ops->posted(own->context, node);
        node = next;
        work++;
    }
    work += mir_timer_advance(&loop->timers, loop->now_ns, TIMERS_PER_TURN);
    for (unsigned i = 0; i < loop->count; i++)
        if (i != loop->id) own->settled_seen[i] = own->settled[i];
    own->ops->turn_end(own->context);
    flush_overflow(loop);
    wake_sleepers(loop);
    loop->stats.turns++;
    if (work != 0 || loop->stats.messages != messages) {
        own->idle_since_ns = loop->now_ns;
        loop->stats.busy_ns += mir_clock_mono_ns() - began_ns;
    }
}
