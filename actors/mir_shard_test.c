/* SPDX-License-Identifier: Apache-2.0 */
/* Shards, sessions and the router without threads or sockets: the test runs the turns of each shard
 * in the order that it wants, over a poller that hands out what it was given and keeps what was
 * sent. Endpoints hold messages until the test lets them go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <unistd.h>
#include <cmocka.h>

#include "mir_gateway.h"
#include "mir_session.h"
#include "mir_shard.h"

enum {
    SHARDS_MAX = 4,
    WIRES_MAX = 16,
    EVENTS_MAX = 64,
    HELD_MAX = 4096,
    OVERFLOWING = MIR_RING_SLOTS + 100,
};

/* One connection, seen from the peer. */
typedef struct wire {
    unsigned shard;
    uint32_t id;
    void *session; /* null: not there, or closed */
    int fd;
    char *out; /* what the server sent */
    size_t out_size, out_capacity;
} wire;

struct mir_poller {
    mir_event events[EVENTS_MAX];
    unsigned first, count;
};

typedef struct held_one {
    unsigned source;
    uint8_t tag;
} held_one;

typedef struct world {
    unsigned count;
    mir_config config;
    mir_auth *auth;
    mir_gateway gateway;
    mir_mesh *mesh;
    mir_router *router;
    mir_shard *shards[SHARDS_MAX];
    struct mir_poller pollers[SHARDS_MAX];
    wire wires[WIRES_MAX];
    unsigned wire_count;
    held_one held[SHARDS_MAX][HELD_MAX]; /* a queue for each shard */
    unsigned held_first[SHARDS_MAX], held_count[SHARDS_MAX];
} world;

static world *w;

/* --- the poller ------------------------------------------------------------------------------ */

static void poller_event(mir_poller *poller, mir_event event)
{
    assert_true(poller->count < EVENTS_MAX);
    poller->events[(poller->first + poller->count++) % EVENTS_MAX] = event;
}

static mir_status fake_add(mir_poller *poller, int fd, void *user, uint32_t *id)
{
    assert_true(w->wire_count < WIRES_MAX);
    *id = w->wire_count;
    w->wires[w->wire_count++] =
        (wire){.shard = (unsigned)(poller - w->pollers), .id = *id, .session = user, .fd = fd};
    return MIR_OK;
}

static void fake_receive(mir_poller *poller, uint32_t id)
{
    (void)poller;
    (void)id;
}

static bool fake_send(mir_poller *poller, uint32_t id, const struct iovec *vectors, unsigned count)
{
    (void)poller;
    wire *to = &w->wires[id];
    for (unsigned i = 0; i < count; i++) {
        size_t need = to->out_size + vectors[i].iov_len + 1;
        if (need > to->out_capacity) {
            to->out_capacity = need * 2;
            to->out = realloc(to->out, to->out_capacity);
            assert_non_null(to->out);
        }
        memcpy(to->out + to->out_size, vectors[i].iov_base, vectors[i].iov_len);
        to->out_size += vectors[i].iov_len;
        to->out[to->out_size] = '\0';
    }
    return true;
}

static void fake_close(mir_poller *poller, uint32_t id)
{
    wire *at = &w->wires[id];
    assert_int_equal(close(at->fd), 0);
    poller_event(poller, (mir_event){.kind = MIR_EVENT_CLOSED, .id = id, .user = at->session});
    at->session = NULL;
}

static void fake_time(mir_poller *poller, int64_t time_ns)
{
    (void)poller;
    (void)time_ns;
}

static unsigned fake_poll(mir_poller *poller, mir_event *events, unsigned count_max)
{
    unsigned count = 0;
    while (count < count_max && poller->count != 0) {
        events[count++] = poller->events[poller->first];
        poller->first = (poller->first + 1) % EVENTS_MAX;
        poller->count--;
    }
    return count;
}

static void fake_wake(mir_poller *poller)
{
    (void)poller;
}

static void fake_wake_peer(mir_poller *poller, mir_poller *peer)
{
    (void)poller;
    (void)peer;
}

static bool fake_starved(const mir_poller *poller)
{
    (void)poller;
    return false;
}

static const mir_poller_backend fake_poller = {
    .name = "fake",
    .add = fake_add,
    .receive_pause = fake_receive,
    .receive_resume = fake_receive,
    .send = fake_send,
    .shutdown_write = fake_receive,
    .close = fake_close,
    .linger = fake_time,
    .wait = fake_time,
    .poll = fake_poll,
    .wake = fake_wake,
    .wake_peer = fake_wake_peer,
    .starved = fake_starved,
};

/* --- the endpoint: `held.N` is held on shard N until the test lets it go ---------------------- */

static mir_endpoint_kind fake_classify(const mir_shard *shard, mir_message *message,
                                       unsigned *owner)
{
    (void)shard;
    if (!mir_view_starts(message->subject, MIR_VIEW_LITERAL("held."))) return MIR_ENDPOINT_NONE;
    *owner = (unsigned)(message->subject.data[5] - '0');
    return MIR_ENDPOINT_DEVICE;
}

static void fake_deliver(mir_shard *shard, const mir_message *message)
{
    unsigned at = shard->id, source = mir_ref_shard(message->publisher);
    assert_true(w->held_first[at] + w->held_count[at] < HELD_MAX);
    w->held[at][w->held_first[at] + w->held_count[at]++] =
        (held_one){.source = source, .tag = mir_holding_add(&shard->holding[source])};
}

static void let_go(unsigned shard)
{
    assert_true(w->held_count[shard] != 0);
    held_one *one = &w->held[shard][w->held_first[shard]++];
    w->held_count[shard]--;
    mir_holding_remove(&w->shards[shard]->holding[one->source], one->tag);
}

static void fake_commit(mir_shard *shard)
{
    (void)shard;
}

static const mir_endpoints fake_endpoints = {
    .classify = fake_classify, .deliver = fake_deliver, .commit = fake_commit};

/* --- the world ------------------------------------------------------------------------------- */

static void open_world(unsigned count)
{
    w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->count = count;
    mir_error error = {{0}};
    assert_int_equal(mir_config_init_defaults(&w->config, &error), MIR_OK);
    w->config.shards = count;
    assert_int_equal(mir_auth_create(&w->config, &w->auth, &error), MIR_OK);
    w->gateway.config = &w->config;
    w->gateway.auth = w->auth;
    assert_int_equal(mir_mesh_create(count, &w->mesh), MIR_OK);
    assert_int_equal(mir_router_create(&w->router), MIR_OK);
    for (unsigned i = 0; i < count; i++) {
        mir_shard *shard = calloc(1, sizeof *shard);
        assert_non_null(shard);
        w->shards[i] = shard;
        shard->gateway = &w->gateway;
        shard->peers = w->shards;
        shard->backend = &fake_poller;
        shard->poller = &w->pollers[i];
        mir_loop *loop = mir_mesh_loop(w->mesh, i);
        mir_loop_bind(loop, &mir_shard_loop_ops, shard, 0);
        assert_int_equal(mir_shard_init(shard, NULL, loop, &w->config, w->router, &fake_endpoints),
                         MIR_OK);
        shard->random = i + 1;
    }
}

static void turn(unsigned shard)
{
    mir_loop_turn(w->shards[shard]->loop, false, 0);
}

static void turns(unsigned rounds)
{
    for (unsigned i = 0; i < rounds * w->count; i++) turn(i % w->count);
}

static void drop_session(wire *at)
{
    if (at->session != NULL) mir_session_drop(at->session, "the test ends");
}

/* Nothing may be left: the leak checker sees to that. */
static void close_world(void)
{
    for (unsigned i = 0; i < w->wire_count; i++) drop_session(&w->wires[i]);
    turns(1);
    for (unsigned i = 0; i < w->count; i++) {
        assert_int_equal(w->shards[i]->sessions.used, 0);
        mir_loop_retire(w->shards[i]->loop);
    }
    for (unsigned i = 0; i < w->count; i++) mir_shard_drain(w->shards[i]);
    for (unsigned i = 0; i < w->count; i++) mir_shard_fini(w->shards[i]);
    for (unsigned i = 0; i < w->count; i++) free(w->shards[i]);
    for (unsigned i = 0; i < w->wire_count; i++) free(w->wires[i].out);
    mir_router_destroy(w->router);
    mir_mesh_destroy(w->mesh);
    mir_auth_destroy(w->auth);
    mir_config_free(&w->config);
    free(w);
    w = NULL;
}

static int socket_of_nobody(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static void say(wire *from, const char *text)
{
    size_t size = strlen(text);
    mir_buffer *buffer = mir_buffer_heap(size);
    assert_non_null(buffer);
    memcpy(buffer->data, text, size);
    poller_event(&w->pollers[from->shard], (mir_event){.kind = MIR_EVENT_RECEIVED,
                                                       .result = (int32_t)size,
                                                       .id = from->id,
                                                       .user = from->session,
                                                       .buffer = buffer});
}

static unsigned count_of(const wire *at, const char *what)
{
    unsigned count = 0;
    for (const char *found = at->out; found != NULL && (found = strstr(found, what)) != NULL;
         found += strlen(what))
        count++;
    return count;
}

static void forget(wire *at)
{
    at->out_size = 0;
    if (at->out != NULL) at->out[0] = '\0';
}

static wire *dial(unsigned shard)
{
    /* All of them stay where they arrive. */
    w->config.io.together = INT64_MAX;
    mir_session_accept(w->shards[shard], socket_of_nobody(), false);
    wire *fresh = &w->wires[w->wire_count - 1];
    say(fresh, "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nPING\r\n");
    turns(2);
    assert_int_equal(count_of(fresh, "PONG\r\n"), 1);
    forget(fresh);
    return fresh;
}

static wire *subscriber(unsigned shard, const char *commands)
{
    wire *fresh = dial(shard);
    say(fresh, commands);
    turns(1);
    return fresh;
}

/* --- what is held -------------------------------------------------------------------------- */

static void a_pong_waits_for_what_is_held(unsigned from, unsigned at)
{
    open_world(2);
    wire *publisher = dial(from);
    char line[64];
    (void)snprintf(line, sizeof line, "PUB held.%u 1\r\nx\r\nPING\r\n", at);
    say(publisher, line);
    turns(5);
    assert_int_equal(w->held_count[at], 1);
    assert_int_equal(count_of(publisher, "PONG\r\n"), 0);
    let_go(at);
    turns(2);
    assert_int_equal(count_of(publisher, "PONG\r\n"), 1);
    close_world();
}

static void a_pong_waits_for_what_its_connection_has_held(void **state)
{
    (void)state;
    a_pong_waits_for_what_is_held(0, 1);
    a_pong_waits_for_what_is_held(0, 0);
}

static void a_pong_waits_for_nothing_later(unsigned from, unsigned at)
{
    open_world(2);
    wire *publisher = dial(from), *other = dial(from);
    char line[64];
    (void)snprintf(line, sizeof line, "PUB held.%u 1\r\nx\r\nPING\r\n", at);
    say(publisher, line);
    turns(2);
    (void)snprintf(line, sizeof line, "PUB held.%u 1\r\nx\r\n", at);
    say(other, line);
    turns(2);
    assert_int_equal(w->held_count[at], 2);
    let_go(at);
    turns(2);
    assert_int_equal(count_of(publisher, "PONG\r\n"), 1);
    /* The other one's does. */
    say(other, "PING\r\n");
    turns(2);
    assert_int_equal(count_of(other, "PONG\r\n"), 0);
    let_go(at);
    turns(2);
    assert_int_equal(count_of(other, "PONG\r\n"), 1);
    close_world();
}

static void a_pong_does_not_wait_for_what_was_held_after_its_ping(void **state)
{
    (void)state;
    a_pong_waits_for_nothing_later(0, 1);
    a_pong_waits_for_nothing_later(0, 0);
}

/* As many come as go, each held for DEPTH turns, so that there is never a turn with none. */
static void a_pong_comes_within_twice_the_time(unsigned from, unsigned at)
{
    enum { DEPTH = 40 };
    open_world(2);
    wire *publisher = dial(from), *flood = dial(from);
    char line[64];
    (void)snprintf(line, sizeof line, "PUB held.%u 1\r\nx\r\n", at);
    unsigned pong_at = 0;
    for (unsigned i = 0; i < DEPTH * 4 && pong_at == 0; i++) {
        say(flood, line);
        if (i == DEPTH) {
            say(publisher, line);
            say(publisher, "PING\r\n");
        }
        turns(1);
        while (w->held_count[at] > DEPTH) let_go(at);
        if (count_of(publisher, "PONG\r\n") != 0) pong_at = i;
    }
    assert_in_range(pong_at, DEPTH * 2 - 2, DEPTH * 3);
    while (w->held_count[at] != 0) let_go(at);
    close_world();
}

static void a_pong_comes_while_others_are_held_without_end(void **state)
{
    (void)state;
    a_pong_comes_within_twice_the_time(0, 1);
    a_pong_comes_within_twice_the_time(0, 0);
}

/* --- members of a queue that go -------------------------------------------------------------- */

enum { WORK = 64 };

static void work(wire *publisher, const char *reply)
{
    char text[8192];
    size_t size = 0;
    for (unsigned i = 0; i < WORK; i++)
        size += (size_t)snprintf(text + size, sizeof text - size, "PUB work%s 1\r\nx\r\n", reply);
    (void)snprintf(text + size, sizeof text - size, "PING\r\n");
    say(publisher, text);
}

/* So many parcels that the ring from one shard to the other, whose subscriber hears this subject,
 * has them lie in the overflow. */
static void fill_ring(unsigned from, const char *subject)
{
    for (unsigned i = 0; i < OVERFLOWING; i++)
        assert_int_equal(mir_shard_emit(w->shards[from], mir_view_cstr(subject), (mir_view){0},
                                        (mir_view){0}, MIR_VIEW_LITERAL("x")),
                         1);
    mir_shard_flush_parcels(w->shards[from]);
    assert_true(w->shards[from]->loop->stats.overflowed != 0);
}

/* The publisher has its PONG: whoever sends a PING from now on has heard before the PONG what is
 * for it. */
static unsigned heard(wire *member)
{
    say(member, "PING\r\n");
    for (unsigned i = 0; i < 10 && count_of(member, "PONG\r\n") == 0; i++) turn(member->shard);
    assert_int_equal(count_of(member, "PONG\r\n"), 1);
    const char *pong = strstr(member->out, "PONG\r\n");
    unsigned count = 0;
    for (const char *at = member->out; (at = strstr(at, "MSG work")) != NULL && at < pong; at++)
        count++;
    return count;
}

/* Turns of some shards until the publisher has its PONG. */
static void await_pong(wire *publisher, uint64_t running)
{
    for (unsigned i = 0; i < 100 && count_of(publisher, "PONG\r\n") == 0; i++)
        for (unsigned shard = 0; shard < w->count; shard++)
            if ((running >> shard & 1) != 0) turn(shard);
}

static void a_member_that_goes_passes_its_messages_on_before_the_pong(void **state)
{
    (void)state;
    open_world(3);
    wire *publisher = dial(0);
    wire *goes = subscriber(1, "SUB work q 1\r\n");
    wire *stays = subscriber(2, "SUB fill 2\r\n");
    work(publisher, "");
    turn(0);
    say(stays, "SUB work q 1\r\n");
    turn(2);
    fill_ring(1, "fill");
    say(goes, "UNSUB 1\r\n");
    await_pong(publisher, 1 << 0 | 1 << 1);
    /* What it is to hear lies in the overflow yet, or the PONG waits for it. */
    if (count_of(publisher, "PONG\r\n") == 0) await_pong(publisher, ~UINT64_C(0));
    assert_int_equal(count_of(publisher, "PONG\r\n"), 1);
    assert_int_equal(heard(stays), WORK);
    assert_int_equal(heard(goes), 0);
    close_world();
}

static void the_way_back_to_the_publisher_may_overflow_too(void **state)
{
    (void)state;
    open_world(3);
    wire *publisher = dial(0);
    wire *goes = subscriber(1, "SUB work q 1\r\n");
    wire *stays = dial(2);
    wire *listener = subscriber(0, "SUB fill 2\r\n");
    work(publisher, "");
    turn(0);
    say(stays, "SUB work q 1\r\n");
    turn(2);
    fill_ring(1, "fill");
    say(goes, "UNSUB 1\r\n");
    turn(1);
    await_pong(publisher, 1 << 0);
    await_pong(publisher, 1 << 0 | 1 << 1);
    await_pong(publisher, ~UINT64_C(0));
    assert_int_equal(count_of(publisher, "PONG\r\n"), 1);
    assert_int_equal(heard(stays), WORK);
    turns(5);
    assert_int_equal(count_of(listener, "MSG fill"), OVERFLOWING);
    close_world();
}

/* Two go one after the other: each is asked once. */
static void members_that_go_one_after_the_other(void **state)
{
    (void)state;
    open_world(4);
    wire *publisher = dial(0);
    wire *first = subscriber(1, "SUB work q 1\r\n");
    wire *second = dial(2);
    wire *stays = subscriber(3, "SUB fill 2\r\n");
    work(publisher, "");
    turn(0);
    say(second, "SUB work q 1\r\n");
    turn(2);
    say(first, "UNSUB 1\r\n");
    turn(1);
    turn(0);
    say(stays, "SUB work q 1\r\n");
    turn(3);
    fill_ring(2, "fill");
    say(second, "UNSUB 1\r\n");
    await_pong(publisher, 1 << 0 | 1 << 1 | 1 << 2);
    if (count_of(publisher, "PONG\r\n") == 0) await_pong(publisher, ~UINT64_C(0));
    assert_int_equal(count_of(publisher, "PONG\r\n"), 1);
    assert_int_equal(heard(stays), WORK);
    close_world();
}

static void nobody_is_left_and_the_publisher_hears_so_before_its_pong(void **state)
{
    (void)state;
    open_world(3);
    wire *publisher = subscriber(0, "SUB back 1\r\nSUB fill 2\r\n");
    wire *first = subscriber(1, "SUB work q 1\r\n");
    work(publisher, " back");
    turn(0);
    fill_ring(1, "fill");
    say(first, "UNSUB 1\r\n");
    turn(1);
    await_pong(publisher, 1 << 0);
    await_pong(publisher, ~UINT64_C(0));
    const char *pong = strstr(publisher->out, "PONG\r\n");
    assert_non_null(pong);
    unsigned count = 0;
    for (const char *at = publisher->out; (at = strstr(at, " 503")) != NULL && at < pong; at++)
        count++;
    assert_int_equal(count, WORK);
    close_world();
}

/* The publisher is gone when its message comes back: it is delivered all the same. */
static void a_publisher_that_went_loses_nothing(void **state)
{
    (void)state;
    open_world(3);
    wire *publisher = dial(0);
    wire *goes = subscriber(1, "SUB work q 1\r\n");
    wire *stays = dial(2);
    work(publisher, "");
    turn(0);
    say(stays, "SUB work q 1\r\n");
    turn(2);
    mir_session_drop(publisher->session, "the test drops it");
    turn(0);
    say(goes, "UNSUB 1\r\n");
    turns(5);
    assert_int_equal(heard(stays), WORK);
    close_world();
}

/* --- stopping --------------------------------------------------------------------------------- */

static void a_socket_that_is_handed_over_during_a_stop_is_closed(void **state)
{
    (void)state;
    open_world(2);
    /* The first connection stays, the second is on its way to the other shard. */
    w->config.io.together = 1;
    mir_session_accept(w->shards[0], socket_of_nobody(), false);
    int fd = socket_of_nobody();
    mir_session_accept(w->shards[0], fd, false);
    assert_int_equal(w->wire_count, 1);
    assert_int_equal(atomic_load(&w->gateway.shard_connections[1]), 1);
    w->shards[0]->refusing = w->shards[1]->refusing = true;
    drop_session(&w->wires[0]);
    turns(2);
    assert_int_equal(w->shards[1]->sessions.used, 0);
    assert_int_equal(atomic_load(&w->gateway.shard_connections[1]), 0);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    /* The poller may have had one, too. */
    fd = socket_of_nobody();
    mir_session_accept(w->shards[0], fd, false);
    turns(2);
    assert_int_equal(w->shards[0]->sessions.used, 0);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    assert_int_equal(atomic_load(&w->gateway.connections), 0);
    close_world();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pong_waits_for_what_its_connection_has_held),
        cmocka_unit_test(a_pong_does_not_wait_for_what_was_held_after_its_ping),
        cmocka_unit_test(a_pong_comes_while_others_are_held_without_end),
        cmocka_unit_test(a_member_that_goes_passes_its_messages_on_before_the_pong),
        cmocka_unit_test(the_way_back_to_the_publisher_may_overflow_too),
        cmocka_unit_test(members_that_go_one_after_the_other),
        cmocka_unit_test(nobody_is_left_and_the_publisher_hears_so_before_its_pong),
        cmocka_unit_test(a_publisher_that_went_loses_nothing),
        cmocka_unit_test(a_socket_that_is_handed_over_during_a_stop_is_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
