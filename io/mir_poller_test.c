/* SPDX-License-Identifier: Apache-2.0 */
/* The contract of mir_poller, held against both backends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "mir_clock.h"
#include "mir_limits.h"
#include "mir_poller.h"

static const mir_poller_backend *backend;
static mir_poller *poller;

enum { EVENTS_MAX = 64 };

static const int64_t deadline_after_ns = 10 * MIR_NS_PER_S;

static int setup_with(const mir_poller_backend *which)
{
    mir_error error = {{0}};
    backend = which;
    poller = NULL;
    if (which->create(&poller, &error) != MIR_OK) {
        if (which == &mir_poller_epoll) return -1;
        print_message("io_uring is not possible here: %s\n", error.text);
        poller = NULL;
    }
    return 0;
}

static int setup_uring(void **state)
{
    (void)state;
    return setup_with(&mir_poller_uring);
}

static int setup_epoll(void **state)
{
    (void)state;
    return setup_with(&mir_poller_epoll);
}

static int teardown(void **state)
{
    (void)state;
    backend->destroy(poller);
    return 0;
}

#define NEED_BACKEND()                                                                             \
    if (poller == NULL) skip()

static void nonblocking_pair(int *ours, int *theirs)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    *ours = fds[0];
    *theirs = fds[1];
}

/* A socket in the poller, and the other end. */
static uint32_t connected(void *user, int *theirs)
{
    int ours;
    uint32_t id;
    nonblocking_pair(&ours, theirs);
    assert_int_equal(backend->add(poller, ours, user, &id), MIR_OK);
    return id;
}

/* The next event, waiting for it; a kind of 0 when the deadline passed. */
static mir_event next_event(void)
{
    mir_event event = {0};
    int64_t deadline_ns = mir_clock_mono_ns() + deadline_after_ns;
    while (mir_clock_mono_ns() < deadline_ns) {
        if (backend->poll(poller, &event, 1) == 1) return event;
        backend->wait(poller, 100 * MIR_NS_PER_MS);
    }
    return (mir_event){0};
}

/* Lets everything happen that is under way: true if that made no event. */
static bool stays_quiet(void)
{
    mir_event event;
    int64_t until_ns = mir_clock_mono_ns() + 20 * MIR_NS_PER_MS;
    do {
        if (backend->poll(poller, &event, 1) != 0) return false;
        backend->wait(poller, 5 * MIR_NS_PER_MS);
    } while (mir_clock_mono_ns() < until_ns);
    return backend->poll(poller, &event, 1) == 0;
}

static void expect_received(uint32_t id, void *user, const char *text)
{
    size_t want = strlen(text), got = 0;
    while (got < want) {
        mir_event event = next_event();
        assert_int_equal(event.kind, MIR_EVENT_RECEIVED);
        assert_int_equal(event.id, id);
        assert_ptr_equal(event.user, user);
        assert_true(event.result > 0 && (size_t)event.result <= want - got);
        assert_memory_equal(event.buffer->data, text + got, (size_t)event.result);
        mir_buffer_release(event.buffer);
        got += (size_t)event.result;
    }
}

static void expect_kind(mir_event_kind kind, uint32_t id, void *user, int32_t result)
{
    mir_event event = next_event();
    assert_int_equal(event.kind, kind);
    assert_int_equal(event.id, id);
    assert_ptr_equal(event.user, user);
    assert_int_equal(event.result, result);
}

static void put(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

static void received_bytes_come_in_order_with_their_user(void **state)
{
    (void)state;
    NEED_BACKEND();
    int a, b, user_a, user_b;
    uint32_t id_a = connected(&user_a, &a), id_b = connected(&user_b, &b);
    assert_int_not_equal(id_a, id_b);
    put(a, "PING\r\n");
    expect_received(id_a, &user_a, "PING\r\n");
    put(b, "first ");
    put(b, "second");
    expect_received(id_b, &user_b, "first second");
    assert_true(stays_quiet());
    (void)close(a);
    (void)close(b);
}

static void the_end_of_a_stream_is_told_once_after_its_bytes(void **state)
{
    (void)state;
    NEED_BACKEND();
    int theirs, user;
    uint32_t id = connected(&user, &theirs);
    put(theirs, "last words");
    (void)close(theirs);
    expect_received(id, &user, "last words");
    expect_kind(MIR_EVENT_RECEIVED, id, &user, 0);
    assert_true(stays_quiet());
    backend->receive_pause(poller, id);
    backend->receive_resume(poller, id);
    assert_true(stays_quiet());
    backend->close(poller, id);
    expect_kind(MIR_EVENT_CLOSED, id, &user, 0);
}

static void a_listener_hands_out_sockets_until_unlisten(void **state)
{
    (void)state;
    NEED_BACKEND();
    int user;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    assert_int_equal(bind(listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(listener, 16), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    assert_int_equal(backend->listen(poller, listener, &user), MIR_OK);
    int clients[5];
    for (int i = 0; i < 5; i++) {
        clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(clients[i], (struct sockaddr *)&address, size), 0);
        if (i == 4) break;
        mir_event event = next_event();
        assert_int_equal(event.kind, MIR_EVENT_ACCEPTED);
        assert_ptr_equal(event.user, &user);
        assert_true(event.result >= 0);
        uint32_t id;
        assert_int_equal(backend->add(poller, event.result, clients, &id), MIR_OK);
        put(clients[i], "hello");
        expect_received(id, clients, "hello");
        if (i == 3) {
            backend->unlisten(poller, listener);
            assert_true(stays_quiet());
        }
    }
    assert_true(stays_quiet());
    for (int i = 0; i < 5; i++) (void)close(clients[i]);
    (void)close(listener);
}

enum { BIG_BYTES = 4 << 20 };

typedef struct reader {
    int fd;
    const uint8_t *expected;
    size_t size;
    bool same;
} reader;

static void *read_slowly(void *argument)
{
    reader *r = argument;
    uint8_t *piece = malloc(65536);
    size_t at = 0;
    r->same = piece != NULL;
    while (r->same && at < r->size) {
        ssize_t got = read(r->fd, piece, 1 + (at * 7919) % 65535);
        if (got <= 0) break;
        r->same = memcmp(piece, r->expected + at, (size_t)got) == 0;
        at += (size_t)got;
    }
    r->same = r->same && at == r->size;
    free(piece);
    return NULL;
}

static void many_pieces_arrive_whole_at_a_slow_reader(void **state)
{
    (void)state;
    NEED_BACKEND();
    uint8_t *bytes = malloc(BIG_BYTES);
    assert_non_null(bytes);
    for (size_t i = 0; i < BIG_BYTES; i++) bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    int theirs, user;
    uint32_t id = connected(&user, &theirs);
    assert_int_equal(fcntl(theirs, F_SETFL, 0), 0);
    reader r = {.fd = theirs, .expected = bytes, .size = BIG_BYTES};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, read_slowly, &r), 0);
    /* Uneven pieces, in rounds of every count of vectors. */
    size_t at = 0;
    for (unsigned count = 1; at < BIG_BYTES; count = count % MIR_SEND_VECTORS_MAX + 21) {
        struct iovec vectors[MIR_SEND_VECTORS_MAX];
        unsigned used = 0;
        size_t total = 0;
        if (count > MIR_SEND_VECTORS_MAX) count = MIR_SEND_VECTORS_MAX;
        for (; used < count && at < BIG_BYTES; used++) {
            size_t piece = 1 + (at * 31 + used * 977) % 40000;
            if (piece > BIG_BYTES - at) piece = BIG_BYTES - at;
            vectors[used] = (struct iovec){.iov_base = bytes + at, .iov_len = piece};
            at += piece;
            total += piece;
        }
        if (!backend->send(poller, id, vectors, used))
            expect_kind(MIR_EVENT_SENT, id, &user, (int32_t)total);
        /* The caller's vectors are its own again, and are not needed any more. */
        memset(vectors, 0xa5, sizeof vectors);
    }
    assert_true(stays_quiet());
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(r.same);
    (void)close(theirs);
    free(bytes);
}

static void a_failed_send_says_so_and_raises_no_signal(void **state)
{
    (void)state;
    NEED_BACKEND();
    int theirs, user;
    uint32_t id = connected(&user, &theirs);
    backend->receive_pause(poller, id);
    assert_true(stays_quiet());
    (void)close(theirs);
    struct iovec one = {.iov_base = (void *)(uintptr_t) "x", .iov_len = 1};
    assert_false(backend->send(poller, id, &one, 1));
    expect_kind(MIR_EVENT_SENT, id, &user, -EPIPE);
    assert_true(stays_quiet());
}

/* Fills the socket until a send stays in flight. */
static uint8_t *stuck_send(uint32_t id)
{
    uint8_t *bytes = calloc(1, BIG_BYTES);
    assert_non_null(bytes);
    struct iovec one = {.iov_base = bytes, .iov_len = BIG_BYTES};
    assert_false(backend->send(poller, id, &one, 1));
    assert_true(stays_quiet());
    return bytes;
}

static void after_close_only_closed_follows_even_with_a_send_in_flight(void **state)
{
    (void)state;
    NEED_BACKEND();
    int theirs, user;
    uint32_t id = connected(&user, &theirs);
    uint8_t *bytes = stuck_send(id);
    put(theirs, "never to be seen");
    backend->wait(poller, 0);
    backend->close(poller, id);
    backend->close(poller, id);
    expect_kind(MIR_EVENT_CLOSED, id, &user, 0);
    assert_true(stays_quiet());
    free(bytes);
    (void)close(theirs);
}

static void a_send_in_flight_does_not_stop_receiving(void **state)
{
    (void)state;
    NEED_BACKEND();
    int theirs, user;
    uint32_t id = connected(&user, &theirs);
    uint8_t *bytes = stuck_send(id);
    put(theirs, "still here");
    expect_received(id, &user, "still here");
    /* The other end goes away: both directions are told. */
    (void)close(theirs);
    bool sent = false, ended = false;
    for (int i = 0; i < 2; i++) {
        mir_event event = next_event();
        if (event.kind == MIR_EVENT_SENT && event.result < 0) sent = true;
        if (event.kind == MIR_EVENT_RECEIVED && event.result <= 0) ended = true;
    }
    assert_true(sent && ended);
    free(bytes);
}

static void an_id_of_a_closed_socket_is_reused_without_its_past(void **state)
{
    (void)state;
    NEED_BACKEND();
    int users[40];
    for (int i = 0; i < 40; i++) {
        int theirs;
        uint32_t id = connected(&users[i], &theirs);
        assert_true(id < 2);
        put(theirs, "old");
        if (i % 2 == 0) backend->wait(poller, 0); /* some bytes are under way already */
        if (i % 3 == 0) (void)shutdown(theirs, SHUT_WR);
        if (i % 5 == 0) backend->receive_pause(poller, id);
        backend->close(poller, id);
        expect_kind(MIR_EVENT_CLOSED, id, &users[i], 0);
        (void)close(theirs);
    }
    int theirs, user;
    uint32_t id = connected(&user, &theirs);
    put(theirs, "new");
    expect_received(id, &user, "new");
    (void)close(theirs);
}

static void a_paused_socket_is_silent_until_it_is_resumed(void **state)
{
    (void)state;
    NEED_BACKEND();
    int theirs, user;
    uint32_t id = connected(&user, &theirs);
    backend->wait(poller, 0);
    backend->receive_pause(poller, id);
    assert_true(stays_quiet());
    put(theirs, "kept");
    assert_true(stays_quiet());
    backend->receive_resume(poller, id);
    expect_received(id, &user, "kept");
    for (int i = 0; i < 50; i++) {
        backend->receive_pause(poller, id);
        if (i % 3 == 0) backend->wait(poller, 0);
        backend->receive_resume(poller, id);
        if (i % 4 == 0) backend->receive_pause(poller, id);
        if (i % 5 == 0) backend->wait(poller, 0);
        backend->receive_resume(poller, id);
        put(theirs, "x");
        expect_received(id, &user, "x");
    }
    (void)close(theirs);
}

static void a_hang_up_does_not_disturb_a_paused_socket(void **state)
{
    (void)state;
    NEED_BACKEND();
    int theirs, user;
    uint32_t id = connected(&user, &theirs);
    backend->wait(poller, 0);
    backend->receive_pause(poller, id);
    assert_true(stays_quiet());
    put(theirs, "farewell");
    (void)close(theirs);
    assert_true(stays_quiet());
    /* And it lets the shard sleep. */
    int64_t before_ns = mir_clock_mono_ns();
    backend->wait(poller, 60 * MIR_NS_PER_MS);
    assert_true(mir_clock_mono_ns() - before_ns >= 50 * MIR_NS_PER_MS);
    backend->receive_resume(poller, id);
    expect_received(id, &user, "farewell");
    expect_kind(MIR_EVENT_RECEIVED, id, &user, 0);
}

static void shutdown_of_writing_ends_the_stream_of_the_peer_alone(void **state)
{
    (void)state;
    NEED_BACKEND();
    int theirs, user;
    uint32_t id = connected(&user, &theirs);
    backend->shutdown_write(poller, id);
    char c;
    assert_int_equal(read(theirs, &c, 1), 0);
    put(theirs, "answer");
    expect_received(id, &user, "answer");
    (void)close(theirs);
}

static void poll_returns_no_more_than_was_asked_for(void **state)
{
    (void)state;
    NEED_BACKEND();
    enum { SOCKETS = 100 };
    int theirs[SOCKETS];
    for (int i = 0; i < SOCKETS; i++) {
        (void)connected(&theirs[i], &theirs[i]);
        put(theirs[i], "x");
    }
    mir_event events[EVENTS_MAX];
    bool seen[SOCKETS] = {false};
    int64_t deadline_ns = mir_clock_mono_ns() + deadline_after_ns;
    for (unsigned total = 0; total < SOCKETS;) {
        backend->wait(poller, 10 * MIR_NS_PER_MS);
        unsigned count = backend->poll(poller, events, 7);
        assert_true(count <= 7);
        for (unsigned i = 0; i < count; i++) {
            int *user = events[i].user;
            assert_int_equal(events[i].kind, MIR_EVENT_RECEIVED);
            assert_false(seen[user - theirs]);
            seen[user - theirs] = true;
            mir_buffer_release(events[i].buffer);
        }
        total += count;
        assert_true(mir_clock_mono_ns() < deadline_ns);
    }
    for (int i = 0; i < SOCKETS; i++) (void)close(theirs[i]);
}

/* --- buffers ------------------------------------------------------------------------------- */

static void hold_every_buffer(uint32_t id, int theirs, mir_buffer **held)
{
    for (unsigned i = 0; i < MIR_RECV_BUFFERS; i++) {
        put(theirs, "b");
        mir_event event = next_event();
        assert_int_equal(event.kind, MIR_EVENT_RECEIVED);
        assert_int_equal(event.id, id);
        assert_int_equal(event.result, 1);
        held[i] = event.buffer;
    }
}

static void *release_all(void *argument)
{
    mir_buffer **held = argument;
    for (unsigned i = 0; i < MIR_RECV_BUFFERS; i++) mir_buffer_release(held[i]);
    return NULL;
}

static void a_buffer_released_elsewhere_ends_the_starvation_of_a_sleeping_shard(void **state)
{
    (void)state;
    NEED_BACKEND();
    int a, b, user_a, user_b;
    uint32_t id_a = connected(&user_a, &a), id_b = connected(&user_b, &b);
    mir_buffer **held = calloc(MIR_RECV_BUFFERS, sizeof *held);
    assert_non_null(held);
    hold_every_buffer(id_a, a, held);
    put(b, "hungry");
    assert_true(stays_quiet());
    backend->wait(poller, 0);
    /* Nothing else will end this wait. */
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, release_all, held), 0);
    int64_t before_ns = mir_clock_mono_ns();
    mir_event event = {0};
    while (backend->poll(poller, &event, 1) == 0 &&
           mir_clock_mono_ns() - before_ns < deadline_after_ns)
        backend->wait(poller, deadline_after_ns);
    assert_true(mir_clock_mono_ns() - before_ns < deadline_after_ns / 2);
    assert_int_equal(event.kind, MIR_EVENT_RECEIVED);
    assert_int_equal(event.id, id_b);
    assert_memory_equal(event.buffer->data, "hungry", 6);
    mir_buffer_release(event.buffer);
    assert_int_equal(pthread_join(thread, NULL), 0);
    /* And the pool is whole again. */
    hold_every_buffer(id_a, a, held);
    for (unsigned i = 0; i < MIR_RECV_BUFFERS; i++) mir_buffer_release(held[i]);
    put(b, "fed");
    expect_received(id_b, &user_b, "fed");
    free(held);
    (void)close(a);
    (void)close(b);
}

static void a_starved_socket_can_be_closed_and_its_id_reused(void **state)
{
    (void)state;
    NEED_BACKEND();
    int a, b, user_a, user_b, user_c;
    uint32_t id_a = connected(&user_a, &a), id_b = connected(&user_b, &b);
    mir_buffer **held = calloc(MIR_RECV_BUFFERS, sizeof *held);
    assert_non_null(held);
    hold_every_buffer(id_a, a, held);
    for (int i = 0; i < 5; i++) {
        put(b, "hungry");
        assert_true(stays_quiet());
        /* Whoever holds the buffers may wait for just this. */
        backend->close(poller, id_b);
        expect_kind(MIR_EVENT_CLOSED, id_b, &user_b, 0);
        (void)close(b);
        uint32_t before = id_b;
        id_b = connected(&user_b, &b);
        assert_int_equal(id_b, before);
    }
    put(b, "patient");
    assert_true(stays_quiet());
    backend->receive_pause(poller, id_b);
    int c;
    uint32_t id_c = connected(&user_c, &c);
    put(c, "late");
    assert_true(stays_quiet());
    for (unsigned i = 0; i < MIR_RECV_BUFFERS; i++) mir_buffer_release(held[i]);
    expect_received(id_c, &user_c, "late");
    assert_true(stays_quiet());
    backend->receive_resume(poller, id_b);
    expect_received(id_b, &user_b, "patient");
    free(held);
    (void)close(a);
    (void)close(b);
    (void)close(c);
}

static void one_free_buffer_at_a_time_feeds_every_starved_socket(void **state)
{
    (void)state;
    NEED_BACKEND();
    enum { SOCKETS = 50 };
    int a, user_a, theirs[SOCKETS];
    uint32_t id_a = connected(&user_a, &a);
    mir_buffer **held = calloc(MIR_RECV_BUFFERS, sizeof *held);
    assert_non_null(held);
    hold_every_buffer(id_a, a, held);
    for (int i = 0; i < SOCKETS; i++) {
        (void)connected(&theirs[i], &theirs[i]);
        put(theirs[i], "x");
    }
    assert_true(stays_quiet());
    mir_buffer_release(held[0]);
    bool seen[SOCKETS] = {false};
    for (int i = 0; i < SOCKETS; i++) {
        mir_event event = next_event();
        assert_int_equal(event.kind, MIR_EVENT_RECEIVED);
        int *user = event.user;
        assert_false(seen[user - theirs]);
        seen[user - theirs] = true;
        mir_buffer_release(event.buffer);
    }
    for (unsigned i = 1; i < MIR_RECV_BUFFERS; i++) mir_buffer_release(held[i]);
    free(held);
    (void)close(a);
    for (int i = 0; i < SOCKETS; i++) (void)close(theirs[i]);
}

/* --- wakes --------------------------------------------------------------------------------- */

static void *wake_from_outside(void *argument)
{
    backend->wake(argument);
    return NULL;
}

static void a_wake_ends_the_current_or_the_next_wait(void **state)
{
    (void)state;
    NEED_BACKEND();
    backend->wait(poller, 0);
    for (int i = 0; i < 200; i++) {
        int64_t before_ns = mir_clock_mono_ns();
        pthread_t thread;
        if (i % 2 == 0) {
            backend->wake(poller);
        } else {
            assert_int_equal(pthread_create(&thread, NULL, wake_from_outside, poller), 0);
        }
        backend->wait(poller, deadline_after_ns);
        mir_event event;
        assert_int_equal(backend->poll(poller, &event, 1), 0);
        assert_true(mir_clock_mono_ns() - before_ns < deadline_after_ns / 2);
        if (i % 2 == 1) assert_int_equal(pthread_join(thread, NULL), 0);
    }
}

typedef struct peer {
    pthread_t thread;
    _Atomic(mir_poller *) poller;
    _Atomic unsigned asked, answered;
    _Atomic bool stop, late;
} peer;

static void *peer_main(void *argument)
{
    peer *p = argument;
    mir_poller *own;
    if (backend->create(&own, NULL) != MIR_OK) abort();
    backend->wait(own, 0);
    atomic_store(&p->poller, own);
    while (!atomic_load(&p->stop)) {
        /* As a shard does: wait, poll, and only then look for what the wake was about. */
        int64_t before_ns = mir_clock_mono_ns();
        mir_event event;
        backend->wait(own, deadline_after_ns);
        if (mir_clock_mono_ns() - before_ns > deadline_after_ns / 2) atomic_store(&p->late, true);
        if (backend->poll(own, &event, 1) != 0) abort();
        atomic_store(&p->answered, atomic_load(&p->asked));
    }
    while (atomic_load(&p->poller) != NULL) (void)sched_yield();
    backend->destroy(own);
    return NULL;
}

static void wake_peer_ends_the_wait_of_another_shard(void **state)
{
    (void)state;
    NEED_BACKEND();
    peer p = {0};
    assert_int_equal(pthread_create(&p.thread, NULL, peer_main, &p), 0);
    while (atomic_load(&p.poller) == NULL) (void)sched_yield();
    for (unsigned i = 1; i <= 300; i++) {
        atomic_store(&p.asked, i);
        backend->wake_peer(poller, atomic_load(&p.poller));
        backend->wait(poller, 0);
        while (atomic_load(&p.answered) != i && !atomic_load(&p.late)) {
            mir_event event;
            assert_int_equal(backend->poll(poller, &event, 1), 0);
            backend->wait(poller, 0);
        }
    }
    atomic_store(&p.stop, true);
    backend->wake(atomic_load(&p.poller));
    backend->wake_peer(poller, atomic_load(&p.poller));
    backend->wait(poller, 0);
    atomic_store(&p.poller, NULL);
    assert_int_equal(pthread_join(p.thread, NULL), 0);
    assert_false(atomic_load(&p.late));
}

static void a_poller_goes_with_everything_that_is_open(void **state)
{
    (void)state;
    NEED_BACKEND();
    int theirs[3], user;
    uint32_t ids[3];
    for (int i = 0; i < 3; i++) ids[i] = connected(&user, &theirs[i]);
    uint8_t *bytes = stuck_send(ids[0]);
    backend->close(poller, ids[1]);
    backend->destroy(poller);
    poller = NULL;
    free(bytes);
    for (int i = 0; i < 3; i++) (void)close(theirs[i]);
    if (backend->create(&poller, NULL) != MIR_OK) fail();
}

/* The only epoll set of this process. */
static int epoll_set(void)
{
    for (int fd = 3; fd < 256; fd++) {
        char path[64], target[64];
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t size = readlink(path, target, sizeof target - 1);
        if (size < 0) continue;
        target[size] = '\0';
        if (strcmp(target, "anon_inode:[eventpoll]") == 0) return fd;
    }
    return -1;
}

/* A paused socket that the kernel will not watch again. */
static uint32_t unwatchable(void *user, int *theirs)
{
    int ours;
    uint32_t id;
    nonblocking_pair(&ours, theirs);
    assert_int_equal(backend->add(poller, ours, user, &id), MIR_OK);
    backend->receive_pause(poller, id);
    assert_true(stays_quiet());
    struct epoll_event event = {.events = 0, .data.u64 = id};
    assert_int_equal(epoll_ctl(epoll_set(), EPOLL_CTL_ADD, ours, &event), 0);
    return id;
}

static void a_socket_that_cannot_be_watched_has_failed(void **state)
{
    (void)state;
    int theirs, user;
    uint32_t id = unwatchable(&user, &theirs);
    put(theirs, "never to be heard");
    backend->receive_resume(poller, id);
    expect_kind(MIR_EVENT_RECEIVED, id, &user, -EEXIST);
    backend->receive_pause(poller, id);
    backend->receive_resume(poller, id);
    assert_true(stays_quiet());
    backend->close(poller, id);
    expect_kind(MIR_EVENT_CLOSED, id, &user, 0);
    (void)close(theirs);
}

static void a_send_that_cannot_be_watched_has_failed(void **state)
{
    (void)state;
    int theirs, user;
    uint32_t id = unwatchable(&user, &theirs);
    uint8_t *bytes = calloc(1, BIG_BYTES);
    assert_non_null(bytes);
    struct iovec one = {.iov_base = bytes, .iov_len = BIG_BYTES};
    assert_false(backend->send(poller, id, &one, 1));
    expect_kind(MIR_EVENT_SENT, id, &user, -EEXIST);
    expect_kind(MIR_EVENT_RECEIVED, id, &user, -EEXIST);
    assert_true(stays_quiet());
    backend->close(poller, id);
    expect_kind(MIR_EVENT_CLOSED, id, &user, 0);
    free(bytes);
    (void)close(theirs);
}

static void choose_knows_its_words(void **state)
{
    (void)state;
    const mir_poller_backend *chosen = NULL;
    mir_error why = {{0}};
    assert_int_equal(mir_poller_choose("epoll", &chosen, &why), MIR_OK);
    assert_ptr_equal(chosen, &mir_poller_epoll);
    assert_int_equal(mir_poller_choose("auto", &chosen, &why), MIR_OK);
    bool possible = chosen == &mir_poller_uring;
    assert_true(possible || why.text[0] != '\0');
    chosen = NULL;
    mir_status status = mir_poller_choose("uring", &chosen, &why);
    assert_int_equal(status == MIR_OK, possible);
    assert_ptr_equal(chosen, possible ? &mir_poller_uring : NULL);
}

#define BOTH(test)                                                                                 \
    {"io_uring: " #test, test, setup_uring, teardown, NULL},                                       \
    {                                                                                              \
        "epoll: " #test, test, setup_epoll, teardown, NULL                                         \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(received_bytes_come_in_order_with_their_user),
        BOTH(the_end_of_a_stream_is_told_once_after_its_bytes),
        BOTH(a_listener_hands_out_sockets_until_unlisten),
        BOTH(many_pieces_arrive_whole_at_a_slow_reader),
        BOTH(a_failed_send_says_so_and_raises_no_signal),
        BOTH(after_close_only_closed_follows_even_with_a_send_in_flight),
        BOTH(a_send_in_flight_does_not_stop_receiving),
        BOTH(an_id_of_a_closed_socket_is_reused_without_its_past),
        BOTH(a_paused_socket_is_silent_until_it_is_resumed),
        BOTH(a_hang_up_does_not_disturb_a_paused_socket),
        BOTH(shutdown_of_writing_ends_the_stream_of_the_peer_alone),
        BOTH(poll_returns_no_more_than_was_asked_for),
        BOTH(a_buffer_released_elsewhere_ends_the_starvation_of_a_sleeping_shard),
        BOTH(a_starved_socket_can_be_closed_and_its_id_reused),
        BOTH(one_free_buffer_at_a_time_feeds_every_starved_socket),
        BOTH(a_wake_ends_the_current_or_the_next_wait),
        BOTH(wake_peer_ends_the_wait_of_another_shard),
        BOTH(a_poller_goes_with_everything_that_is_open),
        cmocka_unit_test_setup_teardown(a_socket_that_cannot_be_watched_has_failed, setup_epoll,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_send_that_cannot_be_watched_has_failed, setup_epoll,
                                        teardown),
        cmocka_unit_test(choose_knows_its_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
