/* SPDX-License-Identifier: Apache-2.0 */
/* The run loop and the mesh, first deterministically: one thread drives several loops in an order
 * drawn from a seed, over a fake backend whose sleep runs the other loops, beside a model of every
 * ring and overflow list. A seed that fails is printed; MIR_SEED=n runs that one alone. Then with
 * real threads that sleep in poll(2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "mir_clock.h"
#include "mir_limits.h"
#include "mir_loop.h"

enum {
    USABLE = MIR_RING_SLOTS - 1,
    SOCKET_QUOTA = USABLE - MIR_RING_SLOTS_RESERVED, /* ring entries at which sockets are refused */
};

static const int64_t long_sleep_ns = 20 * MIR_NS_PER_S;

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15)); /* splitmix64, Steele et al. */
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* --- the simulation ------------------------------------------------------------------------ */

enum { SIM_LOOPS_MAX = 5, BARRIERS_MAX = 64 };

typedef struct sim_message {
    mir_mpsc_node node;
    unsigned from, to, hops;
    uint64_t sequence;
} sim_message;

typedef struct sim_post {
    mir_mpsc_node node;
    uint64_t sequence;
} sim_post;

struct sim;

typedef struct sim_node {
    struct sim *sim;
    mir_loop *loop;
    unsigned id;
    bool running, sleeping, woken, busy, in_message, settles;
    uint64_t sent[SIM_LOOPS_MAX];     /* accepted, by receiver */
    uint64_t ring[SIM_LOOPS_MAX];     /* model: in the ring towards a receiver */
    uint64_t overflow[SIM_LOOPS_MAX]; /* model: waiting for that ring */
    uint64_t handled[SIM_LOOPS_MAX];  /* by source */
    uint64_t complete[SIM_LOOPS_MAX]; /* by source: effects complete, at a turn's end */
    uint64_t settled_seen[SIM_LOOPS_MAX];
    uint64_t told[SIM_LOOPS_MAX]; /* by source: how many were said to have settled */
    bool urgent[SIM_LOOPS_MAX];   /* something was sent to it that must not lie */
    bool lazy[SIM_LOOPS_MAX];     /* something was sent to it that may lie for a while */
    bool urged[SIM_LOOPS_MAX];    /* by a neighbour, since its last turn that was asked */
    uint64_t overflowed;
    uint64_t posted, post_handled;
    unsigned phase;
} sim_node;

typedef struct sim_barrier {
    bool open;
    unsigned node;
    uint64_t targets[SIM_LOOPS_MAX];
    /* What each neighbour had pushed when it said that it is past the target. */
    uint64_t answers[SIM_LOOPS_MAX];
    bool told[SIM_LOOPS_MAX];
} sim_barrier;

typedef struct sim {
    uint64_t seed, random;
    mir_mesh *mesh;
    unsigned count;
    unsigned flood; /* of 100 sends, how many are bursts beyond a ring */
    bool quiet;     /* nobody begins anything new */
    uint64_t alive;
    sim_node nodes[SIM_LOOPS_MAX];
    sim_barrier barriers[BARRIERS_MAX];
} sim;

static unsigned chance(sim *s, unsigned bound)
{
    return bound == 0 ? 0 : (unsigned)(next_random(&s->random) % bound);
}

#define SIM_CHECK(s, condition)                                                                    \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fail_msg("MIR_SEED=%" PRIu64 ": %s (line %d)", (s)->seed, #condition, __LINE__);       \
    } while (0)

static mir_traffic sim_traffic(sim *s)
{
    return (mir_traffic)chance(s, 3);
}

static void sim_send(sim_node *n, unsigned to, mir_traffic traffic, unsigned hops)
{
    sim *s = n->sim;
    sim_message *m = malloc(sizeof *m);
    SIM_CHECK(s, m != NULL);
    *m = (sim_message){.from = n->id, .to = to, .hops = hops, .sequence = n->sent[to]};
    bool expect_full =
        traffic == MIR_TRAFFIC_SOCKET && (n->overflow[to] != 0 || n->ring[to] >= SOCKET_QUOTA);
    mir_status status = mir_loop_send(n->loop, to, m, traffic);
    SIM_CHECK(s, status == (expect_full ? MIR_E_FULL : MIR_OK));
    if (status != MIR_OK) {
        SIM_CHECK(s, mir_loop_sent(n->loop, to) == n->sent[to]);
        free(m);
        return;
    }
    s->alive++;
    n->sent[to]++;
    if (traffic == MIR_TRAFFIC_LAZY)
        n->lazy[to] = true;
    else
        n->urgent[to] = true;
    if (n->overflow[to] != 0 || n->ring[to] == USABLE) {
        n->overflow[to]++;
        n->overflowed++;
    } else {
        n->ring[to]++;
    }
    SIM_CHECK(s, mir_loop_sent(n->loop, to) == n->sent[to]);
    SIM_CHECK(s, n->loop->stats.overflowed == n->overflowed);
}

static unsigned other(sim_node *n)
{
    unsigned to = chance(n->sim, n->sim->count - 1);
    return to >= n->id ? to + 1 : to;
}

static void sim_burst(sim_node *n)
{
    sim *s = n->sim;
    unsigned to = other(n);
    unsigned burst = chance(s, 100) < s->flood ? 2000 + chance(s, 5000) : 1 + chance(s, 8);
    mir_traffic traffic = sim_traffic(s);
    for (unsigned i = 0; i < burst; i++) {
        if (burst < 100) to = other(n);
        if (burst < 100) traffic = sim_traffic(s);
        sim_send(n, to, traffic, chance(s, 3));
    }
}

static void sim_has_room(sim_node *n)
{
    bool room = true;
    for (unsigned i = 0; i < n->sim->count; i++)
        if (i != n->id && (n->overflow[i] != 0 || n->ring[i] >= SOCKET_QUOTA)) room = false;
    SIM_CHECK(n->sim, mir_loop_has_room(n->loop) == room);
}

static void sim_turn(sim *s, sim_node *n);

static bool sim_reached(sim *s, const sim_barrier *barrier)
{
    for (unsigned j = 0; j < s->count; j++)
        if (j != barrier->node &&
            mir_loop_settled(s->nodes[barrier->node].loop, j) < barrier->targets[j])
            return false;
    return true;
}

/* Whether it would be reached if its node looked now. */
static bool sim_told(sim *s, const sim_barrier *barrier)
{
    for (unsigned j = 0; j < s->count; j++)
        if (j != barrier->node && s->nodes[j].told[barrier->node] < barrier->targets[j])
            return false;
    return true;
}

/* Node n tells its neighbours; of some only a part. */
static void sim_settle(sim_node *n)
{
    sim *s = n->sim;
    for (unsigned i = 0; i < s->count; i++) {
        if (i == n->id) continue;
        SIM_CHECK(s, mir_loop_handled(n->loop, i) == n->handled[i]);
        uint64_t count = n->handled[i];
        if (!s->quiet && chance(s, 3) == 0) count -= chance(s, (unsigned)count + 1);
        mir_loop_settle(n->loop, i, count);
        if (count <= n->told[i]) continue;
        n->told[i] = count;
        SIM_CHECK(s, mir_loop_pushed(n->loop, i) == n->sent[i] - n->overflow[i]);
        for (unsigned b = 0; b < BARRIERS_MAX; b++) {
            sim_barrier *barrier = &s->barriers[b];
            if (!barrier->open || barrier->node != i || barrier->told[n->id] ||
                count < barrier->targets[n->id])
                continue;
            barrier->told[n->id] = true;
            barrier->answers[n->id] = mir_loop_pushed(n->loop, i);
        }
    }
}

/* What must hold between any two turns. */
static void sim_check(sim *s)
{
    for (unsigned a = 0; a < s->count; a++) {
        sim_node *from = &s->nodes[a];
        for (unsigned b = 0; b < s->count; b++) {
            if (a == b) continue;
            sim_node *to = &s->nodes[b];
            uint64_t settled = mir_loop_settled(from->loop, b);
            SIM_CHECK(s, settled <= to->complete[a]);
            SIM_CHECK(s, settled >= from->settled_seen[b]);
            from->settled_seen[b] = settled;
            /* Nothing that a sleeper must act on is there without a wake. */
            if (to->sleeping && from->ring[b] != 0 && from->urgent[b] && !from->running)
                SIM_CHECK(s, to->woken);
            SIM_CHECK(s, from->sent[b] == to->handled[a] + from->ring[b] + from->overflow[b]);
        }
        if (from->sleeping && from->posted != from->post_handled) SIM_CHECK(s, from->woken);
        for (unsigned b = 0; b < s->count; b++)
            if (from->sleeping && from->urged[b] && !s->nodes[b].running) SIM_CHECK(s, from->woken);
    }
    for (unsigned i = 0; i < BARRIERS_MAX; i++) {
        const sim_barrier *barrier = &s->barriers[i];
        if (barrier->open && s->nodes[barrier->node].sleeping && sim_told(s, barrier))
            SIM_CHECK(s, s->nodes[barrier->node].woken);
    }
}

static void sim_post_one(sim *s)
{
    sim_node *n = &s->nodes[chance(s, s->count)];
    sim_post *post = malloc(sizeof *post);
    SIM_CHECK(s, post != NULL);
    post->sequence = n->posted++;
    mir_loop_post(n->loop, &post->node);
}

static void sim_others(sim *s)
{
    unsigned steps = chance(s, 6);
    for (unsigned i = 0; i < steps; i++) {
        if (!s->quiet && chance(s, 10) == 0) sim_post_one(s);
        sim_check(s);
        sim_node *n = &s->nodes[chance(s, s->count)];
        if (!n->running) sim_turn(s, n);
    }
}

static void sim_wait(void *context, int64_t timeout_ns)
{
    sim_node *n = context;
    sim *s = n->sim;
    SIM_CHECK(s, n->phase == 0);
    n->phase = 1;
    if (timeout_ns == 0) return;
    SIM_CHECK(s, !n->busy);
    SIM_CHECK(s, n->posted == n->post_handled);
    for (unsigned i = 0; i < s->count; i++) SIM_CHECK(s, !n->urged[i]);
    for (unsigned i = 0; i < s->count; i++)
        SIM_CHECK(s, i == n->id || (s->nodes[i].ring[n->id] == 0 && n->overflow[i] == 0));
    for (unsigned i = 0; i < s->count; i++)
        if (i != n->id && n->lazy[i] && n->ring[i] != 0)
            SIM_CHECK(s, timeout_ns <= MIR_LOOP_LAZY_US * MIR_NS_PER_US);
    n->sleeping = true;
    n->woken = false;
    sim_others(s);
    sim_check(s);
    n->sleeping = false;
}

static unsigned sim_poll(void *context, unsigned budget)
{
    sim_node *n = context;
    sim *s = n->sim;
    SIM_CHECK(s, n->phase == 1 && budget > 0);
    n->phase = 2;
    if (s->quiet) return 0;
    unsigned work = chance(s, 4);
    for (unsigned i = 0; i < work; i++) {
        switch (chance(s, 4)) {
        case 0: {
            sim_barrier *barrier = &s->barriers[chance(s, BARRIERS_MAX)];
            if (barrier->open) break;
            *barrier = (sim_barrier){.open = true, .node = n->id};
            for (unsigned j = 0; j < s->count; j++)
                if (j != n->id) barrier->targets[j] = mir_loop_sent(n->loop, j);
            for (unsigned j = 0; j < s->count; j++) {
                if (j == n->id || chance(s, 2) == 0) continue;
                mir_loop_urge(n->loop, j);
                s->nodes[j].urged[n->id] = true;
            }
            for (unsigned j = 0; j < s->count; j++)
                barrier->told[j] = s->nodes[j].told[n->id] >= barrier->targets[j];
            break;
        }
        case 1: mir_loop_drain(n->loop); break;
        default: sim_burst(n); break;
        }
        sim_has_room(n);
    }
    return work;
}

static void sim_message_in(void *context, unsigned source, void *memory)
{
    sim_node *n = context;
    sim *s = n->sim;
    sim_message *m = memory;
    SIM_CHECK(s, n->phase == 2 && !n->in_message);
    SIM_CHECK(s, m->from == source && m->to == n->id);
    SIM_CHECK(s, m->sequence == n->handled[source]); /* FIFO, nothing lost, nothing doubled */
    n->in_message = true;
    SIM_CHECK(s, s->nodes[source].ring[n->id] > 0);
    s->nodes[source].ring[n->id]--;
    if (chance(s, 16) == 0) mir_loop_drain(n->loop); /* inside a drain it does nothing */
    if (m->hops > 0) sim_send(n, chance(s, 2) ? source : other(n), sim_traffic(s), m->hops - 1);
    n->handled[source]++;
    n->in_message = false;
    s->alive--;
    free(m);
}

static void sim_posted(void *context, mir_mpsc_node *node)
{
    sim_node *n = context;
    sim_post *post = (sim_post *)(void *)node;
    SIM_CHECK(n->sim, post->sequence == n->post_handled);
    n->post_handled++;
    free(post);
}

static void sim_turn_end(void *context)
{
    sim_node *n = context;
    sim *s = n->sim;
    SIM_CHECK(s, n->phase == 2);
    n->phase = 0;
    for (unsigned i = 0; i < s->count; i++) {
        SIM_CHECK(s, n->loop->asked || !n->urged[i]);
        n->urged[i] = false;
    }
    if (!s->quiet && chance(s, 4) == 0) sim_burst(n);
    /* What neighbours do and say from here on, after the drain, is for the next turn. */
    if (chance(s, 8) == 0) sim_others(s);
    n->settles = s->quiet || chance(s, 3) != 0;
    if (n->settles) {
        for (unsigned i = 0; i < s->count; i++) n->complete[i] = n->handled[i];
        sim_settle(n);
    }
    for (unsigned i = 0; i < BARRIERS_MAX; i++) {
        sim_barrier *barrier = &s->barriers[i];
        if (!barrier->open || barrier->node != n->id || !sim_reached(s, barrier)) continue;
        for (unsigned j = 0; j < s->count; j++)
            if (j != n->id) {
                SIM_CHECK(s, s->nodes[j].complete[n->id] >= barrier->targets[j]);
                SIM_CHECK(s, n->handled[j] >= barrier->answers[j]);
            }
        barrier->open = false;
    }
    n->busy = !s->quiet && chance(s, 5) == 0;
}

/* Asked between the loop's first look at its rings and its announcement of sleep: here the others
 * run too. */
static bool sim_expects(void *context)
{
    sim_node *n = context;
    if (chance(n->sim, 4) == 0) sim_others(n->sim);
    for (unsigned i = 0; i < BARRIERS_MAX; i++)
        if (n->sim->barriers[i].open && n->sim->barriers[i].node == n->id) return true;
    return false;
}

static bool sim_busy(void *context)
{
    const sim_node *n = context;
    return n->busy;
}

static void sim_wake_peer(void *from, void *to)
{
    sim_node *n = to, *by = from;
    SIM_CHECK(n->sim, by->phase == 0); /* after everything else of the turn */
    by->lazy[n->id] = false;
    n->woken = true;
}

static void sim_wake(void *context)
{
    sim_node *n = context;
    n->woken = true;
}

static const mir_loop_ops sim_ops = {.wait = sim_wait,
                                     .poll = sim_poll,
                                     .message = sim_message_in,
                                     .posted = sim_posted,
                                     .turn_end = sim_turn_end,
                                     .busy = sim_busy,
                                     .expects = sim_expects,
                                     .wake_peer = sim_wake_peer,
                                     .wake = sim_wake};

static void sim_turn(sim *s, sim_node *n)
{
    n->running = true;
    mir_loop_turn(n->loop, chance(s, 4) != 0, long_sleep_ns);
    for (unsigned i = 0; i < s->count; i++) {
        uint64_t room = USABLE - n->ring[i];
        uint64_t moved = n->overflow[i] < room ? n->overflow[i] : room;
        n->overflow[i] -= moved;
        n->ring[i] += moved;
        if (moved != 0) n->urgent[i] = true;
    }
    n->running = false;
    sim_check(s);
    /* Whoever is awake, or was woken by now, looks at its rings before it sleeps. */
    for (unsigned i = 0; i < s->count; i++)
        if (!s->nodes[i].sleeping || s->nodes[i].woken) n->urgent[i] = n->lazy[i] = false;
}

static void discard_message(void *context, unsigned source, void *memory)
{
    sim_node *n = context;
    sim_message *m = memory;
    SIM_CHECK(n->sim, m->from == source && m->sequence == n->handled[source]);
    n->handled[source]++;
    n->sim->alive--;
    free(m);
}

static void sim_run(uint64_t seed)
{
    sim *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->seed = s->random = seed;
    s->count = 2 + chance(s, SIM_LOOPS_MAX - 1);
    s->flood = chance(s, 8) == 0 ? 20 : 0;
    assert_int_equal(mir_mesh_create(s->count, &s->mesh), MIR_OK);
    for (unsigned i = 0; i < s->count; i++) {
        s->nodes[i] = (sim_node){.sim = s, .loop = mir_mesh_loop(s->mesh, i), .id = i};
        mir_loop_bind(s->nodes[i].loop, &sim_ops, &s->nodes[i], 0);
    }
    unsigned steps = 20 + chance(s, 100);
    for (unsigned i = 0; i < steps; i++) {
        if (chance(s, 8) == 0) sim_post_one(s);
        sim_turn(s, &s->nodes[chance(s, s->count)]);
    }
    s->quiet = true;
    if (chance(s, 4) == 0) {
        /* Everybody stops here: what is under way is handed out, in order, and nothing remains. */
        for (unsigned i = 0; i < s->count; i++)
            mir_loop_discard(s->nodes[i].loop, &s->nodes[i], discard_message, sim_posted);
    } else {
        /* Everything settles without further cause. */
        for (unsigned round = 0; round < 60; round++)
            for (unsigned i = 0; i < s->count; i++) sim_turn(s, &s->nodes[i]);
        for (unsigned i = 0; i < s->count; i++)
            for (unsigned j = 0; j < s->count; j++)
                SIM_CHECK(s, i == j || mir_loop_settled(s->nodes[i].loop, j) ==
                                           mir_loop_sent(s->nodes[i].loop, j));
        for (unsigned i = 0; i < BARRIERS_MAX; i++) SIM_CHECK(s, !s->barriers[i].open);
    }
    SIM_CHECK(s, s->alive == 0);
    for (unsigned i = 0; i < s->count; i++) {
        SIM_CHECK(s, s->nodes[i].posted == s->nodes[i].post_handled);
        for (unsigned j = 0; j < s->count; j++)
            SIM_CHECK(s, i == j || s->nodes[j].handled[i] == s->nodes[i].sent[j]);
        mir_loop_retire(s->nodes[i].loop);
    }
    mir_mesh_destroy(s->mesh);
    free(s);
}

static void every_message_arrives_once_in_order_and_settles_after_its_effect(void **state)
{
    (void)state;
    const char *one = getenv("MIR_SEED");
    if (one != NULL) {
        sim_run(strtoull(one, NULL, 10));
        return;
    }
    const char *many = getenv("MIR_SEEDS");
#if defined(MIR_TSAN) || defined(__SANITIZE_ADDRESS__)
    uint64_t seeds = 300;
#else
    uint64_t seeds = 3000;
#endif
    if (many != NULL) seeds = strtoull(many, NULL, 10);
    for (uint64_t seed = 1; seed <= seeds; seed++) sim_run(seed);
}

/* --- single promises ------------------------------------------------------------------------ */

typedef struct tape {
    mir_loop *loop;
    char text[256];
    size_t size;
    int64_t waited_ns;
    bool busy, expects, counts_only;
    bool urges; /* its neighbour, when it polls */
    bool asked; /* when its last turn ended */
    unsigned poll_work;
    mir_mpsc_node *posts;     /* with its next message */
    mir_loop *runs_meanwhile; /* has a turn while this one sleeps */
} tape;

static void tape_add(tape *t, char c)
{
    if (t->counts_only) return;
    assert_true(t->size + 1 < sizeof t->text);
    t->text[t->size++] = c;
    t->text[t->size] = '\0';
}

static void tape_wait(void *context, int64_t timeout_ns)
{
    tape *t = context;
    t->waited_ns = timeout_ns;
    tape_add(t, 'w');
    if (timeout_ns > 0 && t->runs_meanwhile != NULL) mir_loop_turn(t->runs_meanwhile, false, 0);
}

static unsigned tape_poll(void *context, unsigned budget)
{
    (void)budget;
    tape *t = context;
    tape_add(t, 'p');
    if (t->urges) mir_loop_urge(t->loop, t->loop->id == 0 ? 1 : 0);
    return t->poll_work;
}

static void tape_message(void *context, unsigned source, void *message)
{
    (void)source;
    (void)message;
    tape *t = context;
    tape_add(t, 'm');
    if (t->posts != NULL) mir_loop_post(t->loop, t->posts);
    t->posts = NULL;
}

static void tape_posted(void *context, mir_mpsc_node *node)
{
    (void)node;
    tape_add(context, 'b');
}

static void tape_turn_end(void *context)
{
    tape *t = context;
    tape_add(t, 'e');
    t->asked = t->loop->asked;
    unsigned other = t->loop->id == 0 ? 1 : 0;
    if (t->loop->count > 1) mir_loop_settle(t->loop, other, mir_loop_handled(t->loop, other));
}

static bool tape_busy(void *context)
{
    const tape *t = context;
    return t->busy;
}

static bool tape_expects(void *context)
{
    const tape *t = context;
    return t->expects;
}

static void tape_wake_peer(void *from, void *to)
{
    (void)to;
    tape_add(from, 'k');
}

static void tape_wake(void *context)
{
    tape_add(context, 'K');
}

static const mir_loop_ops tape_ops = {.wait = tape_wait,
                                      .poll = tape_poll,
                                      .message = tape_message,
                                      .posted = tape_posted,
                                      .turn_end = tape_turn_end,
                                      .busy = tape_busy,
                                      .expects = tape_expects,
                                      .wake_peer = tape_wake_peer,
                                      .wake = tape_wake};

typedef struct pair {
    mir_mesh *mesh;
    tape tapes[2];
} pair;

static void pair_open(pair *p, int64_t spin_ns)
{
    *p = (pair){0};
    assert_int_equal(mir_mesh_create(2, &p->mesh), MIR_OK);
    for (unsigned i = 0; i < 2; i++) {
        p->tapes[i].loop = mir_mesh_loop(p->mesh, i);
        mir_loop_bind(p->tapes[i].loop, &tape_ops, &p->tapes[i], spin_ns);
    }
}

static void pair_close(pair *p)
{
    for (unsigned i = 0; i < 2; i++) mir_loop_retire(p->tapes[i].loop);
    mir_mesh_destroy(p->mesh);
}

static void on_timer(mir_timer *timer, void *context)
{
    (void)timer;
    tape_add(context, 't');
}

static void a_turn_runs_its_phases_in_the_promised_order(void **state)
{
    (void)state;
    pair p;
    pair_open(&p, 0);
    mir_mpsc_node messages[2], posts[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(mir_loop_send(p.tapes[1].loop, 0, &messages[i], MIR_TRAFFIC_SOCKET),
                         MIR_OK);
        mir_loop_post(p.tapes[0].loop, &posts[i]);
    }
    mir_timer timer = {.fire = on_timer};
    mir_timer_set(&p.tapes[0].loop->timers, &timer,
                  p.tapes[0].loop->now_ns - MIR_TIMER_TICK_MS * MIR_NS_PER_MS);
    int64_t deadline_ns = mir_clock_mono_ns() + 5 * MIR_NS_PER_S;
    mir_loop_turn(p.tapes[0].loop, true, long_sleep_ns);
    assert_string_equal(p.tapes[0].text, mir_timer_is_set(&timer) ? "wpmmbbe" : "wpmmbbte");
    while (mir_timer_is_set(&timer) && mir_clock_mono_ns() < deadline_ns) {
        /* The wheel's tick has not begun yet when the clock stood at its start. */
        p.tapes[0].size = 0;
        mir_loop_turn(p.tapes[0].loop, false, 0);
        assert_string_equal(p.tapes[0].text, mir_timer_is_set(&timer) ? "wpe" : "wpte");
    }
    assert_false(mir_timer_is_set(&timer));
    pair_close(&p);
}

static void messages_come_before_the_mailbox(void **state)
{
    (void)state;
    pair p;
    pair_open(&p, 0);
    mir_mpsc_node messages[2], posts[2];
    for (int i = 0; i < 2; i++) {
        mir_loop_post(p.tapes[0].loop, &posts[i]);
        assert_int_equal(mir_loop_send(p.tapes[1].loop, 0, &messages[i], MIR_TRAFFIC_SOCKET),
                         MIR_OK);
    }
    mir_loop_turn(p.tapes[0].loop, true, long_sleep_ns);
    assert_string_equal(p.tapes[0].text, "wpmmbbe");
    assert_int_equal(p.tapes[0].waited_ns, 0);
    pair_close(&p);
}

/* A neighbour sends and then somebody posts: whatever the moment, the post is not handled first. So what
 * is posted after the mailbox was looked into waits, as the message before it may have. */
static void a_post_waits_for_what_was_sent_before_it(void **state)
{
    (void)state;
    pair p;
    pair_open(&p, 0);
    mir_mpsc_node message, post;
    p.tapes[0].posts = &post;
    assert_int_equal(mir_loop_send(p.tapes[1].loop, 0, &message, MIR_TRAFFIC_SOCKET), MIR_OK);
    mir_loop_turn(p.tapes[0].loop, true, long_sleep_ns);
    assert_string_equal(p.tapes[0].text, "wpme");
    mir_loop_turn(p.tapes[0].loop, true, long_sleep_ns);
    assert_string_equal(p.tapes[0].text, "wpmewpbe");
    assert_int_equal(p.tapes[0].waited_ns, 0);
    pair_close(&p);
}

static void a_loop_sleeps_only_with_nothing_to_do(void **state)
{
    (void)state;
    pair p;
    pair_open(&p, 0);
    tape *t = &p.tapes[0];
    mir_loop_turn(t->loop, true, long_sleep_ns);
    assert_int_equal(t->waited_ns, long_sleep_ns);
    assert_int_equal(t->loop->stats.sleeps, 1);
    mir_loop_turn(t->loop, false, long_sleep_ns);
    assert_int_equal(t->waited_ns, 0);
    t->busy = true;
    mir_loop_turn(t->loop, true, long_sleep_ns);
    assert_int_equal(t->waited_ns, 0);
    t->busy = false;
    mir_timer timer = {.fire = on_timer};
    mir_timer_set(&t->loop->timers, &timer, t->loop->now_ns + MIR_NS_PER_S);
    mir_loop_turn(t->loop, true, long_sleep_ns);
    assert_in_range(t->waited_ns, 1, MIR_NS_PER_S + 2 * MIR_TIMER_TICK_MS * MIR_NS_PER_MS);
    mir_timer_cancel(&t->loop->timers, &timer);
    assert_int_equal(t->loop->stats.sleeps, 2);
    pair_close(&p);
}

static void a_loop_spins_for_its_time_after_work(void **state)
{
    (void)state;
    pair p;
    pair_open(&p, 3600 * MIR_NS_PER_S);
    tape *t = &p.tapes[0];
    t->poll_work = 1;
    mir_loop_turn(t->loop, false, 0);
    t->poll_work = 0;
    mir_loop_turn(t->loop, true, long_sleep_ns);
    assert_int_equal(t->waited_ns, 0);
    assert_int_equal(t->loop->stats.sleeps, 0);
    pair_close(&p);
}

static void a_loop_with_overflow_does_not_sleep(void **state)
{
    (void)state;
    pair p;
    pair_open(&p, 0);
    tape *t = &p.tapes[0];
    mir_mpsc_node *messages = calloc(USABLE + 1, sizeof *messages);
    assert_non_null(messages);
    for (unsigned i = 0; i < USABLE + 1; i++)
        assert_int_equal(mir_loop_send(t->loop, 1, &messages[i], MIR_TRAFFIC_SERVER), MIR_OK);
    mir_loop_turn(t->loop, true, long_sleep_ns);
    assert_int_equal(t->waited_ns, 0);
    assert_int_equal(t->loop->stats.overflowed, 1);
    free(messages);
    pair_close(&p);
}

static void a_sleeper_is_woken_for_what_comes_out_of_the_overflow(void **state)
{
    (void)state;
    pair p;
    pair_open(&p, 0);
    tape *t = &p.tapes[1];
    mir_mpsc_node *messages = calloc(USABLE + 1, sizeof *messages);
    assert_non_null(messages);
    for (unsigned i = 0; i < USABLE + 1; i++)
        assert_int_equal(mir_loop_send(p.tapes[0].loop, 1, &messages[i], MIR_TRAFFIC_LAZY), MIR_OK);
    mir_loop_turn(p.tapes[0].loop, false, 0);
    p.tapes[0].size = 0;
    t->counts_only = true;
    mir_loop_turn(t->loop, false, 0);
    assert_int_equal(t->loop->stats.messages, USABLE);
    t->counts_only = false;
    t->runs_meanwhile = p.tapes[0].loop;
    mir_loop_turn(t->loop, true, long_sleep_ns);
    assert_string_equal(p.tapes[0].text, "wpek");
    assert_int_equal(t->loop->stats.messages, USABLE + 1);
    free(messages);
    pair_close(&p);
}

static void a_lazy_message_wakes_its_receiver_when_it_is_urged(void **state)
{
    (void)state;
    pair p;
    pair_open(&p, 0);
    tape *from = &p.tapes[0], *to = &p.tapes[1];
    mir_mpsc_node message;
    assert_int_equal(mir_loop_send(from->loop, 1, &message, MIR_TRAFFIC_LAZY), MIR_OK);
    mir_loop_drain(to->loop);
    /* The receiver sleeps already when the sender urges it. */
    from->urges = true;
    to->runs_meanwhile = from->loop;
    mir_loop_turn(to->loop, true, long_sleep_ns);
    assert_int_equal(to->loop->stats.sleeps, 1);
    assert_string_equal(from->text, "wpek");
    assert_true(to->asked);
    pair_close(&p);
}

/* It has drained the message, and would sleep until what it staged for it is due. */
static void a_loop_that_is_asked_to_settle_does_not_sleep(void **state)
{
    (void)state;
    pair p;
    pair_open(&p, 0);
    tape *from = &p.tapes[0], *to = &p.tapes[1];
    mir_mpsc_node message;
    assert_int_equal(mir_loop_send(from->loop, 1, &message, MIR_TRAFFIC_LAZY), MIR_OK);
    mir_loop_turn(to->loop, false, 0);
    assert_false(to->asked);
    mir_loop_urge(from->loop, 1);
    mir_loop_turn(to->loop, true, long_sleep_ns);
    assert_int_equal(to->waited_ns, 0);
    assert_int_equal(to->loop->stats.sleeps, 0);
    assert_true(to->asked);
    /* Once. */
    mir_loop_turn(to->loop, true, long_sleep_ns);
    assert_int_equal(to->waited_ns, long_sleep_ns);
    assert_false(to->asked);
    pair_close(&p);
}

static void an_awake_loop_is_not_woken(void **state)
{
    (void)state;
    pair p;
    pair_open(&p, 0);
    mir_mpsc_node message, post;
    assert_int_equal(mir_loop_send(p.tapes[0].loop, 1, &message, MIR_TRAFFIC_SERVER), MIR_OK);
    mir_loop_turn(p.tapes[0].loop, false, 0);
    mir_loop_post(p.tapes[1].loop, &post);
    assert_string_equal(p.tapes[0].text, "wpe");
    assert_int_equal(p.tapes[0].loop->stats.wakes_sent, 0);
    assert_string_equal(p.tapes[1].text, "");
    pair_close(&p);
}

static void a_mesh_of_one_needs_no_neighbours(void **state)
{
    (void)state;
    mir_mesh *mesh;
    assert_int_equal(mir_mesh_create(1, &mesh), MIR_OK);
    tape t = {.loop = mir_mesh_loop(mesh, 0)};
    mir_loop_bind(t.loop, &tape_ops, &t, 0);
    assert_true(mir_loop_has_room(t.loop));
    mir_mpsc_node post;
    mir_loop_post(t.loop, &post);
    mir_loop_turn(t.loop, true, long_sleep_ns);
    assert_string_equal(t.text, "wpbe");
    mir_loop_retire(t.loop);
    mir_mesh_destroy(mesh);
}

/* --- threads -------------------------------------------------------------------------------- */

enum { THREADS = 4, TOKENS = 5, HOPS = 4000, POSTS = 1500 };

#define PROBE UINT32_MAX

struct crowd;

typedef struct member {
    struct crowd *crowd;
    mir_loop *loop;
    pthread_t thread;
    int event_fd;
    uint64_t random;
    struct token *held; /* until its probe has settled */
} member;

typedef struct token {
    mir_mpsc_node node;
    unsigned hops;
    struct token *next;
    unsigned probe_to;
    uint64_t probe_target;
    uint64_t trail; /* plain memory, written by whoever holds the token */
} token;

typedef struct question {
    mir_mpsc_node node;
    sem_t answered;
} question;

typedef struct crowd {
    mir_mesh *mesh;
    member members[THREADS];
    _Atomic unsigned tokens_done;
    _Atomic unsigned timed_out;
    _Atomic bool stop;
} crowd;

static void crowd_wait(void *context, int64_t timeout_ns)
{
    member *m = context;
    struct pollfd fd = {.fd = m->event_fd, .events = POLLIN};
    struct timespec timeout = {.tv_sec = timeout_ns / MIR_NS_PER_S,
                               .tv_nsec = timeout_ns % MIR_NS_PER_S};
    int ready = ppoll(&fd, 1, &timeout, NULL);
    if (ready == 0 && timeout_ns == long_sleep_ns) {
        /* Twenty seconds without a wake while tokens travel: one was lost. */
        atomic_fetch_add(&m->crowd->timed_out, 1);
        atomic_store(&m->crowd->stop, true);
    }
}

static unsigned crowd_poll(void *context, unsigned budget)
{
    (void)budget;
    member *m = context;
    uint64_t value;
    return read(m->event_fd, &value, sizeof value) == sizeof value ? 1 : 0;
}

static void crowd_forward(member *m, token *t)
{
    unsigned to = (unsigned)(next_random(&m->random) % (THREADS - 1));
    if (to >= m->loop->id) to++;
    t->trail++;
    mir_status status = mir_loop_send(m->loop, to, t, (mir_traffic)(t->hops % 3));
    if (status != MIR_OK) abort();
}

static void crowd_message(void *context, unsigned source, void *memory)
{
    member *m = context;
    token *t = memory;
    if (t->hops == PROBE) {
        free(t);
        return;
    }
    if (t->hops == 0) {
        atomic_fetch_add(&m->crowd->tokens_done, 1);
        return;
    }
    t->hops--;
    if (t->hops % 7 != 0) {
        crowd_forward(m, t);
        return;
    }
    /* The token waits here until a probe, sent lazily and then urged, has settled. */
    token *probe = calloc(1, sizeof *probe);
    if (probe == NULL) abort();
    probe->hops = PROBE;
    t->probe_to = source;
    if (mir_loop_send(m->loop, source, probe, MIR_TRAFFIC_LAZY) != MIR_OK) abort();
    mir_loop_urge(m->loop, source);
    t->probe_target = mir_loop_sent(m->loop, source);
    t->next = m->held;
    m->held = t;
}

static void crowd_posted(void *context, mir_mpsc_node *node)
{
    (void)context;
    question *q = (question *)(void *)node;
    if (sem_post(&q->answered) != 0) abort();
}

static void crowd_turn_end(void *context)
{
    member *m = context;
    token *t = m->held;
    m->held = NULL;
    while (t != NULL) {
        token *next = t->next;
        if (mir_loop_settled(m->loop, t->probe_to) >= t->probe_target) {
            crowd_forward(m, t);
        } else {
            t->next = m->held;
            m->held = t;
        }
        t = next;
    }
    for (unsigned i = 0; i < THREADS; i++)
        if (i != m->loop->id) mir_loop_settle(m->loop, i, mir_loop_handled(m->loop, i));
}

static bool crowd_busy(void *context)
{
    (void)context;
    return false;
}

static bool crowd_expects(void *context)
{
    const member *m = context;
    return m->held != NULL;
}

static void crowd_wake(void *context)
{
    member *m = context;
    uint64_t one = 1;
    if (write(m->event_fd, &one, sizeof one) != sizeof one) abort();
}

static void crowd_wake_peer(void *from, void *to)
{
    (void)from;
    crowd_wake(to);
}

static const mir_loop_ops crowd_ops = {.wait = crowd_wait,
                                       .poll = crowd_poll,
                                       .message = crowd_message,
                                       .posted = crowd_posted,
                                       .turn_end = crowd_turn_end,
                                       .busy = crowd_busy,
                                       .expects = crowd_expects,
                                       .wake_peer = crowd_wake_peer,
                                       .wake = crowd_wake};

static void *crowd_main(void *argument)
{
    member *m = argument;
    while (!atomic_load(&m->crowd->stop)) mir_loop_turn(m->loop, true, long_sleep_ns);
    mir_loop_retire(m->loop);
    return NULL;
}

static void no_wake_is_lost_between_threads_that_sleep(void **state)
{
    (void)state;
    static crowd c;
    static token tokens[TOKENS];
    c = (crowd){0};
    assert_int_equal(mir_mesh_create(THREADS, &c.mesh), MIR_OK);
    for (unsigned i = 0; i < THREADS; i++) {
        member *m = &c.members[i];
        *m = (member){.crowd = &c, .loop = mir_mesh_loop(c.mesh, i), .random = i};
        m->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        assert_true(m->event_fd >= 0);
        /* Even members spin for a moment, odd ones sleep at once. */
        mir_loop_bind(m->loop, &crowd_ops, m, i % 2 == 0 ? 20 * MIR_NS_PER_US : 0);
    }
    for (unsigned i = 0; i < TOKENS; i++) {
        tokens[i] = (token){.hops = HOPS};
        crowd_forward(&c.members[i % THREADS], &tokens[i]);
    }
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&c.members[i].thread, NULL, crowd_main, &c.members[i]), 0);
    question q;
    assert_int_equal(sem_init(&q.answered, 0, 0), 0);
    uint64_t random = 99;
    bool answered = true;
    for (unsigned i = 0; i < POSTS && answered; i++) {
        mir_loop_post(c.members[next_random(&random) % THREADS].loop, &q.node);
        struct timespec deadline;
        (void)clock_gettime(CLOCK_REALTIME, &deadline);
        deadline.tv_sec += 15;
        int rc;
        while ((rc = sem_timedwait(&q.answered, &deadline)) != 0 && errno == EINTR) continue;
        answered = rc == 0;
    }
    int64_t deadline_ns = mir_clock_mono_ns() + 60 * MIR_NS_PER_S;
    while (atomic_load(&c.tokens_done) < TOKENS && atomic_load(&c.timed_out) == 0 &&
           mir_clock_mono_ns() < deadline_ns)
        (void)sched_yield();
    bool arrived = atomic_load(&c.tokens_done) == TOKENS;
    atomic_store(&c.stop, true);
    for (unsigned i = 0; i < THREADS; i++) crowd_wake(&c.members[i]);
    uint64_t sleeps = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(c.members[i].thread, NULL), 0);
        sleeps += c.members[i].loop->stats.sleeps;
    }
    assert_true(answered);
    assert_true(arrived);
    assert_int_equal(atomic_load(&c.timed_out), 0);
    assert_true(sleeps > 0);
    for (unsigned i = 0; i < TOKENS; i++) assert_int_equal(tokens[i].trail, HOPS + 1);
    for (unsigned i = 0; i < THREADS; i++) (void)close(c.members[i].event_fd);
    assert_int_equal(sem_destroy(&q.answered), 0);
    mir_mesh_destroy(c.mesh);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_turn_runs_its_phases_in_the_promised_order),
        cmocka_unit_test(messages_come_before_the_mailbox),
        cmocka_unit_test(a_post_waits_for_what_was_sent_before_it),
        cmocka_unit_test(a_loop_sleeps_only_with_nothing_to_do),
        cmocka_unit_test(a_loop_spins_for_its_time_after_work),
        cmocka_unit_test(a_loop_with_overflow_does_not_sleep),
        cmocka_unit_test(a_sleeper_is_woken_for_what_comes_out_of_the_overflow),
        cmocka_unit_test(a_lazy_message_wakes_its_receiver_when_it_is_urged),
        cmocka_unit_test(a_loop_that_is_asked_to_settle_does_not_sleep),
        cmocka_unit_test(an_awake_loop_is_not_woken),
        cmocka_unit_test(a_mesh_of_one_needs_no_neighbours),
        cmocka_unit_test(every_message_arrives_once_in_order_and_settles_after_its_effect),
        cmocka_unit_test(no_wake_is_lost_between_threads_that_sleep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
