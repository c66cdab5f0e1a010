/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "mir_assert.h"
#include "mir_clock.h"
#include "mir_gateway.h"
#include "mir_http.h"
#include "mir_hub.h"
#include "mir_limits.h"
#include "mir_log.h"
#include "mir_session.h"
#include "mir_shard.h"
#include "mir_storage.h"

enum {
    BACKLOG = 4096,
    SLEEP_MAX_MS = 1000,
    STOP_GRACE_MS = 1500,
    REQUEST_WORKERS = 2,
    PORT_RETRY_MS = 2000,
    /* Of each of the allocator's arenas, of which it has a few for each processor. */
    KEPT_BYTES = 16 << 20,
    MAPPED_BYTES_MIN = 8 << 20,
};

typedef enum stop_phase {
    RUNNING = 0,
    LAME_DUCK,
    STOPPING, /* sessions are flushed and closed */
    ENDING,   /* every shard is done with its sessions: last messages, then out */
} stop_phase;

struct mir_server {
    const mir_config *config;
    unsigned shard_count;
    mir_mesh *mesh;
    mir_router *router;
    mir_auth *auth;
    mir_workers *requests;
    mir_hub *hub;
    mir_gateway gateway;
    mir_http *http; /* null: off */
    const mir_poller_backend *backend;
    mir_shard *shards[MIR_SHARDS_MAX];
    pthread_t threads[MIR_SHARDS_MAX];
    unsigned started;
    int listener;
    int admin_fd;
    int lock_fd;
    char admin_path[108];
    pthread_barrier_t polled; /* every shard has its poller, or a reason why not */
    pthread_barrier_t ready;
    _Atomic int phase;
    _Atomic unsigned idle_shards; /* without sessions, in lame duck; one may come yet */
    _Atomic unsigned done_shards; /* without sessions for good, while stopping */
    _Atomic unsigned refused;     /* pollers: then all shards take the other kind, if they may */
    _Atomic unsigned failed;
};

/* --- listening ----------------------------------------------------------------------------- */

static socklen_t make_address(const mir_config_listen *listen_at, uint16_t port,
                              struct sockaddr_storage *address)
{
    memset(address, 0, sizeof *address);
    if (listen_at->ipv6) {
        struct sockaddr_in6 *in6 = (void *)address;
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(port);
        (void)inet_pton(AF_INET6, listen_at->host, &in6->sin6_addr);
        return sizeof *in6;
    }
    struct sockaddr_in *in = (void *)address;
    in->sin_family = AF_INET;
    in->sin_port = htons(port);
    (void)inet_pton(AF_INET, listen_at->host, &in->sin_addr);
    return sizeof *in;
}

/* `option`: how another port is chosen. */
static mir_status open_listener(const mir_config_listen *listen_at, const char *option, int *out,
                                mir_error *error)
{
    struct sockaddr_storage address;
    uint16_t port = listen_at->port;
    socklen_t size = make_address(listen_at, port, &address);
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return mir_error_os(error, errno, "socket");
    int one = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    mir_status status = MIR_OK;
    if (bind(fd, (struct sockaddr *)&address, size) != 0) {
        int cause = errno;
        status = mir_error_os(error, cause, "cannot listen on %s:%u", listen_at->host, port);
        if (cause == EADDRINUSE)
            status =
                mir_error_set(error, MIR_E_EXISTS,
                              "cannot listen on %s:%u: another program has this port; stop it, "
                              "or choose another with %s%s:PORT",
                              listen_at->host, port, option, listen_at->host);
    } else if (listen(fd, BACKLOG) != 0) {
        status = mir_error_os(error, errno, "listen");
    }
    if (status != MIR_OK) {
        (void)close(fd);
        return status;
    }
    *out = fd;
    return MIR_OK;
}

/* One listener, accepted on by shard 0, which hands connections on (see mir_session). */
static mir_status open_gateway(mir_server *server, mir_error *error)
{
    const mir_config_listen *listen_at = &server->config->listen;
    mir_status status = open_listener(listen_at, "--listen ", &server->listener, error);
    /* The kernel takes a moment to take a killed server's ring apart, and its listener with it. */
    int64_t until_ns = mir_clock_mono_ns() + PORT_RETRY_MS * MIR_NS_PER_MS;
    while (status == MIR_E_EXISTS && mir_clock_mono_ns() < until_ns) {
        struct timespec step = {.tv_nsec = 10 * 1000 * 1000};
        (void)nanosleep(&step, NULL);
        status = open_listener(listen_at, "--listen ", &server->listener, error);
    }
    if (status != MIR_OK) return status;
    struct sockaddr_storage bound = {0};
    socklen_t size = sizeof bound;
    (void)getsockname(server->listener, (struct sockaddr *)&bound, &size);
    /* Both families have the port in the same place. */
    struct sockaddr_in in = {0};
    memcpy(&in, &bound, sizeof in);
    server->gateway.port = ntohs(in.sin_port);
    (void)snprintf(server->gateway.host, sizeof server->gateway.host, "%s", listen_at->host);
    return MIR_OK;
}

/* What dashboards query. */
static mir_status open_http(mir_server *server, mir_error *error)
{
    const mir_config_listen *listen_at = &server->config->http.listen;
    int listener = -1;
    if (listen_at->host[0] == '\0') return MIR_OK;
    mir_status status = open_listener(listen_at, "--set http.listen=", &listener, error);
    if (status == MIR_OK)
        status = mir_http_start(server->hub, server->auth, listener, &server->http, error);
    return status;
}

static mir_status open_admin(mir_server *server, mir_error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = server->config->admin;
    if (strlen(path) >= sizeof address.sun_path)
        return mir_error_set(error, MIR_E_TOO_LARGE,
                             "admin: the path %s is longer than a socket's may be (%zu bytes)",
                             path, sizeof address.sun_path - 1);
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return mir_error_os(error, errno, "socket");
    /* A socket that a killed server left behind answers nobody: it may go. */
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0 && errno == ECONNREFUSED)
        (void)unlink(path);
    (void)close(fd);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return mir_error_os(error, errno, "socket");
    mode_t old_mask = umask(0177);
    int rc = bind(fd, (struct sockaddr *)&address, sizeof address);
    int cause = errno;
    (void)umask(old_mask);
    if (rc != 0 || listen(fd, 128) != 0) {
        if (rc == 0) cause = errno;
        (void)close(fd);
        return mir_error_os(error, cause, "cannot listen on the admin socket %s", path);
    }
    server->admin_fd = fd;
    (void)snprintf(server->admin_path, sizeof server->admin_path, "%s", path);
    return MIR_OK;
}

/* --- the data directory -------------------------------------------------------------------- */

static mir_status make_directories(const char *path, mir_error *error)
{
    char partial[4096];
    if (strlen(path) >= sizeof partial)
        return mir_error_set(error, MIR_E_TOO_LARGE, "data: the path is too long");
    (void)snprintf(partial, sizeof partial, "%s", path);
    for (char *at = partial + 1;; at++) {
        if (*at != '/' && *at != '\0') continue;
        char kept = *at;
        *at = '\0';
        if (mkdir(partial, 0750) != 0 && errno != EEXIST)
            return mir_error_os(error, errno,
                                "cannot create the data directory %s (choose another with --data)",
                                partial);
        *at = kept;
        if (kept == '\0') return MIR_OK;
    }
}

static mir_status open_data(mir_server *server, mir_error *error)
{
    const char *data = server->config->data;
    mir_status status = make_directories(data, error);
    if (status != MIR_OK) return status;
    char path[4200];
    status = mir_storage_servable(data, error);
    if (status != MIR_OK) return status;
    (void)snprintf(path, sizeof path, "%s/lock", data);
    server->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (server->lock_fd < 0)
        return mir_error_os(error, errno,
                            "cannot write to the data directory %s (its owner must be the user who "
                            "runs the server; choose another with --data)",
                            data);
    /* The lock is what counts; the number in the file only tells people whose it is. */
    char text[24] = "";
    if (flock(server->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        ssize_t size = pread(server->lock_fd, text, sizeof text - 1, 0);
        text[size > 0 ? size : 0] = '\0';
        char who[48] = "";
        long long pid = strtoll(text, NULL, 10);
        if (pid > 0) (void)snprintf(who, sizeof who, " (process %lld)", pid);
        return mir_error_set(error, MIR_E_EXISTS,
                             "another server%s uses the data directory %s: stop it, or choose "
                             "another directory with --data",
                             who, data);
    }
    int size = snprintf(text, sizeof text, "%lld\n", (long long)getpid());
    if (ftruncate(server->lock_fd, 0) != 0 ||
        pwrite(server->lock_fd, text, (size_t)size, 0) != size)
        mir_log_debug("the process id cannot be written to %s", path);
    return MIR_OK;
}

/* --- a shard's thread ---------------------------------------------------------------------- */

static void for_each_session(mir_shard *shard, void (*call)(mir_session *session))
{
    for (uint32_t i = 0; i < shard->sessions.page_count * MIR_SLOTS_PER_PAGE; i++) {
        mir_session *session = mir_slots_at(&shard->sessions, i);
        if (session->slot.generation != 0) call(session);
    }
}

static void stop_session(mir_session *session)
{
    mir_session_fail(session, NULL, "Server Shutdown");
}

static void drop_session(mir_session *session)
{
    mir_session_drop(session, "Server Shutdown");
}

/* Closes one session picked at random; the rest follow at later ticks. */
static bool stop_one(mir_shard *shard)
{
    uint32_t count = shard->sessions.page_count * MIR_SLOTS_PER_PAGE;
    if (count == 0) return false;
    uint32_t start = mir_shard_random(shard) % count;
    for (uint32_t i = 0; i < count; i++) {
        mir_session *session = mir_slots_at(&shard->sessions, (start + i) % count);
        if (session->slot.generation == 0 || session->closing) continue;
        stop_session(session);
        return true;
    }
    return false;
}

static void stop_listening(mir_server *server, mir_shard *shard)
{
    if (shard->id != 0) return;
    shard->backend->unlisten(shard->poller, server->listener);
    /* Refuses connections at once, although the poller may hold the socket for a moment. */
    (void)shutdown(server->listener, SHUT_RDWR);
}

static void run_shard(mir_server *server, mir_shard *shard)
{
    mir_loop *loop = shard->loop;
    int64_t lame_duck_since_ns = 0, next_close_ns = 0, stop_since_ns = 0;
    bool idle = false, done = false;
    for (;;) {
        int64_t sleep_ns = lame_duck_since_ns != 0 || shard->refusing
                               ? 10 * MIR_NS_PER_MS
                               : SLEEP_MAX_MS * MIR_NS_PER_MS;
        mir_loop_turn(loop, true, sleep_ns);
        int phase = atomic_load_explicit(&server->phase, memory_order_acquire);
        if (phase == RUNNING) continue;
        if (phase == LAME_DUCK) {
            if (lame_duck_since_ns == 0) {
                lame_duck_since_ns = loop->now_ns;
                stop_listening(server, shard);
                for_each_session(shard, mir_session_announce_lame_duck);
            }
            int64_t grace_ns = server->config->lame_duck.grace_period_ns;
            int64_t since_ns = loop->now_ns - lame_duck_since_ns;
            if (since_ns >= grace_ns && loop->now_ns >= next_close_ns && shard->sessions.used > 0) {
                int64_t left_ns = server->config->lame_duck.duration_ns - since_ns;
                int64_t gap_ns = left_ns <= 0 ? 0 : left_ns / (shard->sessions.used + 1);
                if (gap_ns > MIR_NS_PER_S) gap_ns = MIR_NS_PER_S;
                gap_ns = gap_ns / 2 + gap_ns / 1000 * (mir_shard_random(shard) % 1000) / 2;
                (void)stop_one(shard);
                next_close_ns = loop->now_ns + gap_ns;
            }
            if (!idle && since_ns >= grace_ns && shard->sessions.used == 0) {
                idle = true;
                (void)atomic_fetch_add_explicit(&server->idle_shards, 1, memory_order_acq_rel);
            }
            continue;
        }
        if (!shard->refusing) {
            /* Nor is one taken that lies in the mailbox or the poller: nobody would end it. */
            shard->refusing = true;
            stop_since_ns = loop->now_ns;
            if (lame_duck_since_ns == 0) stop_listening(server, shard);
            if (shard->id == 0) shard->backend->unlisten(shard->poller, server->admin_fd);
            for_each_session(shard, stop_session);
            continue;
        }
        if (loop->now_ns - stop_since_ns > STOP_GRACE_MS * MIR_NS_PER_MS)
            for_each_session(shard, drop_session);
        if (!done && shard->sessions.used == 0) {
            done = true;
            (void)atomic_fetch_add_explicit(&server->done_shards, 1, memory_order_acq_rel);
        }
        if (phase == ENDING) return;
        if (atomic_load_explicit(&server->done_shards, memory_order_acquire) == server->shard_count)
            atomic_store_explicit(&server->phase, ENDING, memory_order_release);
    }
}

static bool may_fall_back(const mir_server *server)
{
    return server->config->io.backend == MIR_CONFIG_BACKEND_AUTO &&
           server->backend == &mir_poller_uring;
}

/* The first ring may be possible and the next one not: locked memory is bounded for all processes of a
 * user together. Then no shard has one. Null: it has been said why not. */
static const mir_poller_backend *open_poller(mir_server *server, mir_shard *shard)
{
    mir_error error = {{0}};
    const mir_poller_backend *backend = server->backend;
    if (backend->create(&shard->poller, &error) != MIR_OK) {
        shard->poller = NULL;
        if (atomic_fetch_add(&server->refused, 1) == 0 && may_fall_back(server))
            mir_log_warn("io_uring is not possible here (shard %u: %s): using epoll", shard->id,
                         error.text);
    }
    (void)pthread_barrier_wait(&server->polled);
    if (atomic_load(&server->refused) != 0 && may_fall_back(server)) {
        if (shard->poller != NULL) backend->destroy(shard->poller);
        backend = &mir_poller_epoll;
        if (backend->create(&shard->poller, &error) != MIR_OK) shard->poller = NULL;
    }
    if (shard->poller != NULL) return backend;
    mir_log_error("shard %u cannot start: %s", shard->id, error.text);
    return NULL;
}

static void *shard_main(void *argument)
{
    mir_shard *shard = argument;
    mir_server *server = shard->server;
    char name[16];
    (void)snprintf(name, sizeof name, "shard%u", shard->id);
    (void)pthread_setname_np(pthread_self(), name);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (cores > 0 && server->shard_count <= (unsigned)cores) {
        /* The shard-th core of those that this process may use. */
        cpu_set_t allowed, one;
        if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
            unsigned nth = shard->id;
            for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
                if (!CPU_ISSET(cpu, &allowed) || nth-- != 0) continue;
                CPU_ZERO(&one);
                CPU_SET(cpu, &one);
                (void)pthread_setaffinity_np(pthread_self(), sizeof one, &one);
                break;
            }
        }
    }
    shard->backend = open_poller(server, shard);
    if (shard->backend == NULL) {
        (void)atomic_fetch_add(&server->failed, 1);
    } else {
        mir_loop_bind(shard->loop, &mir_shard_loop_ops, shard,
                      server->config->spin_us * MIR_NS_PER_US);
        if (mir_shard_init(shard, server, shard->loop, server->config, server->router,
                           &mir_hub_endpoints) != MIR_OK ||
            mir_hub_shard_init(server->hub, shard) != MIR_OK ||
            (shard->id == 0 &&
             shard->backend->listen(shard->poller, server->listener, NULL) != MIR_OK) ||
            (shard->id == 0 &&
             shard->backend->listen(shard->poller, server->admin_fd, server) != MIR_OK)) {
            mir_log_error("shard %u cannot start: out of memory", shard->id);
            (void)atomic_fetch_add(&server->failed, 1);
        }
    }
    (void)pthread_barrier_wait(&server->ready);
    /* Every shard has a poller now, so that it can be woken. */
    if (atomic_load(&server->failed) == 0) run_shard(server, shard);
    if (shard->backend != NULL) mir_loop_retire(shard->loop);
    return NULL;
}

/* --- assembly ------------------------------------------------------------------------------ */

static void wake_all(mir_server *server)
{
    for (unsigned i = 0; i < server->shard_count; i++)
        server->backend->wake(server->shards[i]->poller);
}

static void take_apart(mir_server *server)
{
    mir_hub_stop(server->hub);
    mir_workers_destroy(server->requests);
    server->requests = NULL;
    /* Nobody runs any more: what is left in rings and mailboxes is given back. */
    for (unsigned i = 0; i < server->shard_count; i++) {
        mir_shard *shard = server->shards[i];
        if (shard != NULL && shard->poller != NULL) mir_shard_drain(shard);
    }
    for (unsigned i = 0; i < server->shard_count; i++) {
        mir_shard *shard = server->shards[i];
        if (shard == NULL) continue;
        mir_hub_shard_fini(server->hub, shard);
        mir_shard_fini(shard);
    }
    for (unsigned i = 0; i < server->shard_count; i++) {
        mir_shard *shard = server->shards[i];
        if (shard == NULL) continue;
        if (shard->poller != NULL) server->backend->destroy(shard->poller);
        free(shard);
    }
    mir_hub_destroy(server->hub);
    mir_router_destroy(server->router);
    mir_mesh_destroy(server->mesh);
    mir_auth_destroy(server->auth);
    if (server->listener >= 0) (void)close(server->listener);
    if (server->admin_fd >= 0) {
        (void)close(server->admin_fd);
        (void)unlink(server->admin_path);
    }
    if (server->lock_fd >= 0) (void)close(server->lock_fd);
    free(server);
}

static mir_status assemble(mir_server *server, mir_error *error)
{
    const mir_config *config = server->config;
    mir_error why = {{0}};
    static const char *const wanted[] = {"auto", "uring", "epoll"};
    mir_status status = mir_poller_choose(wanted[config->io.backend], &server->backend, &why);
    if (status != MIR_OK) return mir_error_set(error, status, "%s", why.text);
    if (why.text[0] != '\0') mir_log_warn("%s", why.text);
    uint8_t id[8];
    if (getrandom(id, sizeof id, 0) != (ssize_t)sizeof id)
        return mir_error_os(error, errno, "getrandom");
    (void)snprintf(server->gateway.server_id, sizeof server->gateway.server_id,
                   "MIR%02X%02X%02X%02X%02X%02X%02X%02X", id[0], id[1], id[2], id[3], id[4], id[5],
                   id[6], id[7]);
    status = mir_auth_create(config, &server->auth, error);
    if (status == MIR_OK) status = open_data(server, error);
    if (status == MIR_OK) status = open_gateway(server, error);
    if (status == MIR_OK) status = mir_mesh_create(server->shard_count, &server->mesh);
    if (status == MIR_OK) status = mir_router_create(&server->router);
    if (status == MIR_OK)
        status = mir_workers_create(REQUEST_WORKERS, 0, "request", &server->requests);
    if (status != MIR_OK) {
        if (error->text[0] == '\0')
            (void)mir_error_set(error, status, "cannot start: %s", mir_status_name(status));
        return status;
    }
    server->gateway.config = config;
    server->gateway.auth = server->auth;
    server->gateway.workers = server->requests;
    atomic_init(&server->gateway.next_client_id, 1);
    for (unsigned i = 0; i < server->shard_count; i++) {
        mir_shard *shard = calloc(1, sizeof *shard);
        if (shard == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        shard->id = i;
        shard->server = server;
        shard->gateway = &server->gateway;
        shard->peers = server->shards;
        shard->loop = mir_mesh_loop(server->mesh, i);
        server->shards[i] = shard;
    }
    status = mir_hub_create(config, server->shards, server->shard_count, server->requests,
                            server->gateway.server_id, server->backend->name, &server->hub, error);
    if (status == MIR_OK) status = open_admin(server, error);
    return status;
}

static mir_status start(mir_server *server, mir_error *error)
{
    (void)pthread_barrier_init(&server->polled, NULL, server->shard_count);
    (void)pthread_barrier_init(&server->ready, NULL, server->shard_count + 1);
    for (unsigned i = 0; i < server->shard_count; i++) {
        int rc = pthread_create(&server->threads[i], NULL, shard_main, server->shards[i]);
        if (rc != 0) {
            /* The others wait at the barrier for good: there is no orderly way back from here. */
            (void)mir_error_os(error, rc, "cannot start the thread of shard %u", i);
            mir_log_error("%s", error->text);
            exit(1);
        }
        server->started++;
    }
    (void)pthread_barrier_wait(&server->ready);
    if (atomic_load(&server->refused) != 0 && may_fall_back(server)) {
        server->backend = &mir_poller_epoll;
        mir_hub_set_io_name(server->hub, server->backend->name);
    }
    if (atomic_load(&server->failed) != 0)
        return mir_error_set(error, MIR_E_NO_MEMORY, "a shard could not start");
    mir_status status = mir_hub_start(server->hub, error);
    return status == MIR_OK ? open_http(server, error) : status;
}

static void raise_file_limit(int64_t connections)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    if (limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    if ((int64_t)limit.rlim_cur < connections + 256)
        mir_log_warn("this process may open %llu files, fewer than limits.max_connections (%lld): "
                     "raise LimitNOFILE or ulimit -n",
                     (unsigned long long)limit.rlim_cur, (long long)connections);
}

/* An answer of some hundred kilobytes would else give its memory back to the system, and the next one
 * get it again page by page: more than what it takes to write it. What is larger still goes back. */
static void keep_freed_memory(void)
{
#ifdef __GLIBC__
    (void)mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
    (void)mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
#endif
}

static void wait_for_signals(mir_server *server, const sigset_t *signals)
{
    for (;;) {
        struct timespec step = {.tv_nsec = 50 * 1000 * 1000};
        bool lame_duck = atomic_load(&server->phase) == LAME_DUCK;
        int number = lame_duck ? sigtimedwait(signals, NULL, &step) : sigwaitinfo(signals, NULL);
        if (number == SIGUSR2) {
            if (!lame_duck) {
                mir_log_info(
                    "lame duck: no new connections; the open ones are closed within %lld s",
                    (long long)(server->config->lame_duck.duration_ns / MIR_NS_PER_S));
                atomic_store_explicit(&server->phase, LAME_DUCK, memory_order_release);
                mir_http_quiesce(server->http);
                wake_all(server);
            }
        } else if (number == SIGINT || number == SIGTERM) {
            mir_log_info("stopping");
            return;
        }
        if (lame_duck && atomic_load_explicit(&server->idle_shards, memory_order_acquire) ==
                             server->shard_count) {
            mir_log_info("lame duck: every connection is closed");
            return;
        }
    }
}

int mir_server_main(const mir_config *config)
{
    mir_log_set_level(config->log.level);
    sigset_t signals;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGUSR2);
    (void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN); /* A file that may not grow is an error of the write. */

    mir_server *server = calloc(1, sizeof *server);
    if (server == NULL) {
        mir_log_error("out of memory");
        return 1;
    }
    server->config = config;
    server->listener = server->admin_fd = server->lock_fd = -1;
    server->shard_count = (unsigned)config->shards;
    raise_file_limit(config->limits.max_connections);
    keep_freed_memory();

    int64_t began_ns = mir_clock_mono_ns();
    int exit_code = 1;
    mir_error error = {{0}};
    if (assemble(server, &error) != MIR_OK || start(server, &error) != MIR_OK) {
        mir_log_error("%s", error.text);
    } else {
        bool brackets = config->listen.ipv6;
        mir_log_info("ready on %s%s%s:%u (%s, %u shard%s, data %s, admin %s, %lld ms)",
                     brackets ? "[" : "", server->gateway.host, brackets ? "]" : "",
                     server->gateway.port, server->backend->name, server->shard_count,
                     server->shard_count == 1 ? "" : "s", config->data, config->admin,
                     (long long)((mir_clock_mono_ns() - began_ns) / MIR_NS_PER_MS));
        wait_for_signals(server, &signals);
        exit_code = 0;
    }
    mir_http_stop(server->http);
    atomic_store_explicit(&server->phase, STOPPING, memory_order_release);
    if (server->started > 0 && atomic_load(&server->failed) == 0) wake_all(server);
    for (unsigned i = 0; i < server->started; i++) (void)pthread_join(server->threads[i], NULL);
    take_apart(server);
    if (exit_code == 0) mir_log_info("stopped");
    return exit_code;
}
