/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the hub share: all of it on one shard, whose turns the test runs, with one worker
 * for requests and one connection. Included by the test programs alone. */
#ifndef MIR_HUB_TESTING_H
#define MIR_HUB_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <ftw.h>
#include <semaphore.h>
#include <unistd.h>
#include <cmocka.h>

#include "mir_actors.h"
#include "mir_clock.h"
#include "mir_gateway.h"
#include "mir_session.h"
#include "mir_shard.h"

enum {
    EVENTS_MAX = 16,
    PATIENCE_S = 120,
};

struct mir_poller {
    mir_event events[EVENTS_MAX];
    unsigned first, count;
};

typedef struct world {
    char folder[64];
    mir_config config;
    mir_auth *auth;
    mir_gateway gateway;
    mir_mesh *mesh;
    mir_router *router;
    mir_shard *shards[1];
    struct mir_poller poller;
    mir_workers *workers;
    mir_hub *hub;
    /* The one connection: */
    void *session;
    int fd;
    char *out; /* what the server sent it */
    size_t out_size, out_room;
} world;

static world *w;

/* --- the poller ------------------------------------------------------------------------------ */

static inline void poller_event(mir_event event)
{
    assert_true(w->poller.count < EVENTS_MAX);
    w->poller.events[(w->poller.first + w->poller.count++) % EVENTS_MAX] = event;
}

static inline mir_status fake_add(mir_poller *poller, int fd, void *user, uint32_t *id)
{
    (void)poller;
    *id = 0;
    w->fd = fd;
    w->session = user;
    return MIR_OK;
}

static inline void fake_receive(mir_poller *poller, uint32_t id)
{
    (void)poller;
    (void)id;
}

static inline bool fake_send(mir_poller *poller, uint32_t id, const struct iovec *vectors,
                             unsigned count)
{
    (void)poller;
    (void)id;
    for (unsigned i = 0; i < count; i++) {
        size_t need = w->out_size + vectors[i].iov_len;
        if (need > w->out_room) {
            w->out_room = need * 2;
            w->out = realloc(w->out, w->out_room);
            assert_non_null(w->out);
        }
        memcpy(w->out + w->out_size, vectors[i].iov_base, vectors[i].iov_len);
        w->out_size = need;
    }
    return true;
}

static inline void fake_close(mir_poller *poller, uint32_t id)
{
    (void)poller;
    assert_int_equal(close(w->fd), 0);
    poller_event((mir_event){.kind = MIR_EVENT_CLOSED, .id = id, .user = w->session});
    w->session = NULL;
}

static inline void fake_time(mir_poller *poller, int64_t time_ns)
{
    (void)poller;
    (void)time_ns;
}

static inline unsigned fake_poll(mir_poller *poller, mir_event *events, unsigned count_max)
{
    unsigned count = 0;
    while (count < count_max && poller->count != 0) {
        events[count++] = poller->events[poller->first];
        poller->first = (poller->first + 1) % EVENTS_MAX;
        poller->count--;
    }
    return count;
}

static inline void fake_wake(mir_poller *poller)
{
    (void)poller;
}

static inline void fake_wake_peer(mir_poller *poller, mir_poller *peer)
{
    (void)poller;
    (void)peer;
}

static inline bool fake_starved(const mir_poller *poller)
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

/* --- the world ------------------------------------------------------------------------------- */

static inline void turn(void)
{
    mir_loop_turn(w->shards[0]->loop, false, 0);
}

static inline void say(const void *text, size_t size)
{
    mir_buffer *buffer = mir_buffer_heap(size);
    assert_non_null(buffer);
    memcpy(buffer->data, text, size);
    poller_event((mir_event){
        .kind = MIR_EVENT_RECEIVED, .result = (int32_t)size, .user = w->session, .buffer = buffer});
}

static inline void say_text(const char *text)
{
    say(text, strlen(text));
}

static inline size_t heard(const char *what)
{
    size_t count = 0, size = strlen(what);
    const char *at = w->out, *end = w->out + w->out_size;
    while (at != NULL && (at = memmem(at, (size_t)(end - at), what, size)) != NULL) {
        at += size;
        count++;
    }
    return count;
}

static inline void forget(void)
{
    w->out_size = 0;
}

/* The server of the folder; an empty one is made. */
static inline void start_server(void)
{
    mir_error error = {{0}};
    assert_int_equal(mir_config_init_defaults(&w->config, &error), MIR_OK);
    w->config.shards = 1;
    w->config.data = w->folder;
    w->config.state.sync = MIR_CONFIG_SYNC_OFF;
    w->config.state.map_size_bytes = 1 << 30;
    assert_int_equal(mir_auth_create(&w->config, &w->auth, &error), MIR_OK);
    assert_int_equal(mir_workers_create(1, 0, "request", &w->workers), MIR_OK);
    w->gateway = (mir_gateway){
        .config = &w->config, .auth = w->auth, .workers = w->workers, .server_id = "NTURNBYTURN"};
    assert_int_equal(mir_mesh_create(1, &w->mesh), MIR_OK);
    assert_int_equal(mir_router_create(&w->router), MIR_OK);
    mir_shard *shard = calloc(1, sizeof *shard);
    assert_non_null(shard);
    w->shards[0] = shard;
    shard->gateway = &w->gateway;
    shard->peers = w->shards;
    shard->backend = &fake_poller;
    shard->poller = &w->poller;
    shard->random = 1;
    mir_loop *loop = mir_mesh_loop(w->mesh, 0);
    mir_loop_bind(loop, &mir_shard_loop_ops, shard, 0);
    if (mir_hub_create(&w->config, w->shards, 1, w->workers, w->gateway.server_id, "fake", &w->hub,
                       &error) != MIR_OK)
        fail_msg("%s", error.text);
    assert_int_equal(mir_shard_init(shard, NULL, loop, &w->config, w->router, &mir_hub_endpoints),
                     MIR_OK);
    assert_int_equal(mir_hub_shard_init(w->hub, shard), MIR_OK);
    turn();
    assert_int_equal(mir_hub_start(w->hub, &error), MIR_OK);
    w->config.io.together = INT64_MAX;
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    mir_session_accept(shard, fd, false);
    say_text("CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\n"
             "SUB _INBOX.test 1\r\n");
}

static inline void stop_server(void)
{
    mir_shard *shard = w->shards[0];
    if (w->session != NULL) mir_session_drop(w->session, "the test ends");
    turn();
    mir_loop_retire(shard->loop);
    mir_hub_stop(w->hub);
    mir_workers_destroy(w->workers);
    mir_shard_drain(shard);
    mir_hub_shard_fini(w->hub, shard);
    mir_shard_fini(shard);
    free(shard);
    mir_hub_destroy(w->hub);
    mir_router_destroy(w->router);
    mir_mesh_destroy(w->mesh);
    mir_auth_destroy(w->auth);
    w->config.data = NULL;
    mir_config_free(&w->config);
    forget();
}

static inline void make_devices(unsigned count)
{
    MirApi__V1__CreateDevicesRequest many = MIR_API__V1__CREATE_DEVICES_REQUEST__INIT;
    mir_arena arena = {0};
    many.devices = mir_arena_alloc(&arena, count * sizeof *many.devices);
    for (unsigned i = 0; i < count; i++) {
        MirApi__V1__NewDevice *device = mir_arena_alloc(&arena, sizeof *device);
        MirApi__V1__DeviceSpec *spec = mir_arena_alloc(&arena, sizeof *spec);
        char id[32];
        (void)snprintf(id, sizeof id, "d%u", i);
        mir_api__v1__new_device__init(device);
        mir_api__v1__device_spec__init(spec);
        spec->device_id = mir_arena_strdup(&arena, mir_view_cstr(id));
        device->spec = spec;
        many.devices[many.n_devices++] = device;
    }
    size_t size = protobuf_c_message_get_packed_size(&many.base);
    char *body = mir_arena_alloc(&arena, size + 128);
    int head = snprintf(body, 128, "PUB client.t.core.v1alpha.creates _INBOX.test %zu\r\n", size);
    (void)protobuf_c_message_pack(&many.base, (uint8_t *)body + head);
    memcpy(body + head + size, "\r\n", 2);
    say(body, (size_t)head + size + 2);
    mir_arena_free(&arena);
    while (heard("MSG _INBOX.test ") == 0) turn();
    forget();
    while (w->hub->in_flight != 0) turn();
    forget();
}

static inline void open_world(unsigned devices)
{
    w = calloc(1, sizeof *w);
    assert_non_null(w);
    (void)snprintf(w->folder, sizeof w->folder, "/tmp/mir-hub-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    start_server();
    make_devices(devices);
}

static inline int remove_one(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    return remove(path);
}

static inline void close_world(void)
{
    stop_server();
    assert_int_equal(nftw(w->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
    free(w->out);
    free(w);
    w = NULL;
}

/* Runs turns until it has happened so often; the most of it that happened in one turn. */
static inline size_t most_in_a_turn(size_t (*measure)(void), size_t wanted)
{
    size_t most = 0, before = measure(), now = before;
    int64_t until_ns = mir_clock_mono_ns() + PATIENCE_S * MIR_NS_PER_S;
    while (now < wanted) {
        if (mir_clock_mono_ns() > until_ns) fail_msg("%zu of %zu", now, wanted);
        turn();
        now = measure();
        if (now - before > most) most = now - before;
        before = now;
    }
    return most;
}

static inline size_t answers(void)
{
    return heard("MSG _INBOX.test ");
}

static inline void await_answer(void)
{
    (void)most_in_a_turn(answers, 1);
}

/* --- a job that holds its worker ---------------------------------------------------------------- */

typedef struct gate {
    mir_job job;
    sem_t reached, open;
} gate;

static inline void gate_run(mir_job *job)
{
    gate *g = (gate *)(void *)job;
    (void)sem_post(&g->reached);
    while (sem_wait(&g->open) != 0) continue;
}

static inline void gate_submit_to(mir_workers *workers, gate *g)
{
    g->job.run = gate_run;
    (void)sem_init(&g->reached, 0, 0);
    (void)sem_init(&g->open, 0, 0);
    mir_workers_submit(workers, &g->job);
}

static inline void gate_submit(gate *g)
{
    gate_submit_to(w->workers, g);
}

static inline void gate_await(gate *g)
{
    while (sem_wait(&g->reached) != 0) continue;
}

#endif
