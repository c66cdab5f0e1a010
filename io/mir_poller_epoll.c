/* SPDX-License-Identifier: Apache-2.0 */
/* The epoll backend: the same contract by readiness, for kernels and containers that refuse
 * io_uring. Level triggered, one receive a ready socket and turn, so that no socket starves the
 * others; a send is tried at once and continued when the socket is writable again. */
#include "mir_poller.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "mir_assert.h"
#include "mir_clock.h"
#include "mir_limits.h"
#include "mir_log.h"
#include "mir_sockets.h"

enum {
    READY_MAX = 256,
    ACCEPTS_MAX = 64, /* of one listener in one turn */
};

/* epoll data: the id of a socket, or one of these kinds with an index. */
#define DATA_LISTENER (UINT64_C(1) << 40)
#define DATA_WAKE     (UINT64_C(1) << 41)

struct mir_poller {
    int epoll_fd;
    int wake_fd;
    mir_buffer_pool *pool;
    uint32_t *free_buffers;
    uint32_t free_count;
    mir_sockets sockets;
    mir_event *queued; /* events made by calls, told by the next poll */
    uint32_t queued_count, queued_capacity, queued_at;
    struct epoll_event ready[READY_MAX];
    int ready_count, ready_at;
};

static void queue_event(mir_poller *poller, mir_event event)
{
    if (poller->queued_count == poller->queued_capacity) {
        if (poller->queued_at > 0) {
            poller->queued_count -= poller->queued_at;
            memmove(poller->queued, poller->queued + poller->queued_at,
                    poller->queued_count * sizeof *poller->queued);
            poller->queued_at = 0;
        } else {
            uint32_t want = poller->queued_capacity == 0 ? 256 : poller->queued_capacity * 2;
            mir_event *grown = realloc(poller->queued, want * sizeof *grown);
            MIR_ASSERT(grown != NULL); /* at most three events for each open socket */
            poller->queued = grown;
            poller->queued_capacity = want;
        }
    }
    poller->queued[poller->queued_count++] = event;
}

static void buffer_give_back(void *context, mir_buffer *buffer)
{
    mir_poller *poller = context;
    poller->free_buffers[poller->free_count++] = buffer->index;
}

static void wake(mir_poller *poller)
{
    mir_sockets_wake(poller->wake_fd);
}

static void wake_from_release(void *context)
{
    wake(context);
}

static void tell_sent(mir_poller *poller, uint32_t id, const mir_socket *s, int32_t result)
{
    queue_event(poller,
                (mir_event){.kind = MIR_EVENT_SENT, .result = result, .id = id, .user = s->user});
}

/* The kernel does not watch the socket: nothing would ever be heard of it. To its owner that is a
 * failed connection. */
static void lost(mir_poller *poller, uint32_t id, mir_socket *s, int error)
{
    mir_log_warn("cannot watch a connection, which ends it: %s%s", strerror(error),
                 error == ENOSPC ? "; raise fs.epoll.max_user_watches" : "");
    if (s->sending != NULL) {
        mir_sockets_send_end(&poller->sockets, s);
        tell_sent(poller, id, s, -error);
    }
    if (s->ended) return;
    s->ended = true;
    queue_event(
        poller,
        (mir_event){.kind = MIR_EVENT_RECEIVED, .result = -error, .id = id, .user = s->user});
}

static void set_interest(mir_poller *poller, uint32_t id, mir_socket *s)
{
    uint32_t want = 0;
    if (!s->paused && !s->starved && !s->ended) want |= EPOLLIN;
    if (s->sending != NULL) want |= EPOLLOUT;
    if (want == s->interest || s->closing) return;
    struct epoll_event event = {.events = want, .data.u64 = id};
    /* Out of the set while nothing is wanted: errors and hang-ups are told even to an empty mask,
     * and would spin the loop of a paused socket. */
    int op = want == 0 ? EPOLL_CTL_DEL : s->interest == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    if (epoll_ctl(poller->epoll_fd, op, s->fd, &event) != 0) {
        lost(poller, id, s, errno);
        return;
    }
    s->interest = want;
}

static void destroy(mir_poller *poller)
{
    if (poller == NULL) return;
    mir_sockets_close_all(&poller->sockets);
    mir_sockets_free(&poller->sockets);
    if (poller->epoll_fd >= 0) (void)close(poller->epoll_fd);
    if (poller->wake_fd >= 0) (void)close(poller->wake_fd);
    mir_buffer_pool_destroy(poller->pool);
    free(poller->free_buffers);
    free(poller->queued);
    free(poller);
}

static mir_status create(mir_poller **out, mir_error *error)
{
    mir_poller *poller = calloc(1, sizeof *poller);
    if (poller == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    poller->wake_fd = -1;
    mir_status status;
    poller->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (poller->epoll_fd < 0) {
        status = mir_error_os(error, errno, "epoll_create1");
        goto out;
    }
    poller->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (poller->wake_fd < 0) {
        status = mir_error_os(error, errno, "eventfd");
        goto out;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = DATA_WAKE};
    if (epoll_ctl(poller->epoll_fd, EPOLL_CTL_ADD, poller->wake_fd, &event) != 0) {
        status = mir_error_os(error, errno, "epoll_ctl");
        goto out;
    }
    poller->free_buffers = calloc(MIR_RECV_BUFFERS, sizeof *poller->free_buffers);
    status = poller->free_buffers == NULL
                 ? MIR_E_NO_MEMORY
                 : mir_buffer_pool_create(MIR_RECV_BUFFERS, buffer_give_back, wake_from_release,
                                          poller, &poller->pool);
    if (status != MIR_OK) {
        (void)mir_error_set(error, status, "receive buffers: out of memory");
        goto out;
    }
    for (uint32_t i = MIR_RECV_BUFFERS; i-- > 0;)
        buffer_give_back(poller, mir_buffer_pool_at(poller->pool, i));
    *out = poller;
    return MIR_OK;
out:
    destroy(poller);
    return status;
}

static bool watch_listener(mir_poller *poller, uint32_t index)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = DATA_LISTENER | index};
    return epoll_ctl(poller->epoll_fd, EPOLL_CTL_ADD, poller->sockets.listeners[index].fd,
                     &event) == 0;
}

static mir_status listen_on(mir_poller *poller, int fd, void *user)
{
    uint32_t i = mir_sockets_listener_place(&poller->sockets);
    if (i == MIR_LISTENERS_MAX) return MIR_E_FULL;
    mir_listener *l = &poller->sockets.listeners[i];
    *l = (mir_listener){.fd = fd, .user = user, .used = true};
    if (watch_listener(poller, i)) return MIR_OK;
    l->used = false;
    return mir_status_from_errno(errno);
}

static void unlisten(mir_poller *poller, int fd)
{
    uint32_t i = mir_sockets_listener_find(&poller->sockets, fd);
    if (i == MIR_LISTENERS_MAX) return;
    poller->sockets.listeners[i].used = false;
    (void)epoll_ctl(poller->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

static mir_status add(mir_poller *poller, int fd, void *user, uint32_t *id)
{
    mir_status status = mir_sockets_take(&poller->sockets, fd, user, id);
    if (status != MIR_OK) return status;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = *id};
    if (epoll_ctl(poller->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        status = mir_status_from_errno(errno);
        mir_sockets_give(&poller->sockets, *id);
        return status;
    }
    mir_sockets_at(&poller->sockets, *id)->interest = EPOLLIN;
    return MIR_OK;
}

static void receive_pause(mir_poller *poller, uint32_t id)
{
    mir_socket *s = mir_sockets_at(&poller->sockets, id);
    MIR_ASSERT(s->used);
    s->paused = true;
    set_interest(poller, id, s);
}

static void receive_resume(mir_poller *poller, uint32_t id)
{
    mir_socket *s = mir_sockets_at(&poller->sockets, id);
    MIR_ASSERT(s->used);
    s->paused = false;
    set_interest(poller, id, s);
}

/* Sends what the socket takes; true when all is gone or the socket failed. False: SENT follows. */
static bool continue_send(mir_poller *poller, uint32_t id, mir_socket *s, int32_t *result)
{
    mir_send_block *block = s->sending;
    *result = (int32_t)block->total_bytes;
    bool all = false;
    while (!all) {
        ssize_t sent = sendmsg(s->fd, &block->header, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno == EINTR) continue;
            if (errno == EAGAIN) {
                set_interest(poller, id, s);
                return false;
            }
            *result = -errno;
            break;
        }
        all = mir_send_block_take(block, (size_t)sent);
    }
    mir_sockets_send_end(&poller->sockets, s);
    set_interest(poller, id, s);
    return true;
}

static bool send_vectors(mir_poller *poller, uint32_t id, const struct iovec *vectors,
                         unsigned count)
{
    mir_socket *s = mir_sockets_at(&poller->sockets, id);
    mir_sockets_send_begin(&poller->sockets, s, vectors, count, 0);
    int32_t result;
    if (!continue_send(poller, id, s, &result)) return false;
    if (result >= 0) return true;
    tell_sent(poller, id, s, result);
    return false;
}

static void shutdown_write(mir_poller *poller, uint32_t id)
{
    mir_socket *s = mir_sockets_at(&poller->sockets, id);
    MIR_ASSERT(s->used);
    if (!s->closing) (void)shutdown(s->fd, SHUT_WR);
}

static void close_slot(mir_poller *poller, uint32_t id)
{
    mir_socket *s = mir_sockets_at(&poller->sockets, id);
    MIR_ASSERT(s->used);
    if (s->closing) return;
    s->closing = true;
    mir_sockets_unstarve(&poller->sockets, id);
    (void)close(s->fd); /* Leaves the epoll set by itself. */
    s->fd = -1;
    if (s->sending != NULL) mir_sockets_send_end(&poller->sockets, s);
    queue_event(poller, (mir_event){.kind = MIR_EVENT_CLOSED, .id = id, .user = s->user});
}

static void wait_for_work(mir_poller *poller, int64_t timeout_ns)
{
    (void)mir_buffer_pool_reap(poller->pool);
    mir_sockets_feed(&poller->sockets, poller->free_count, poller, set_interest);
    if (poller->ready_at < poller->ready_count) return;
    timeout_ns = mir_sockets_watch_rested(&poller->sockets, timeout_ns, poller, watch_listener);
    if (poller->queued_at < poller->queued_count) timeout_ns = 0;
    if (timeout_ns != 0 && poller->sockets.starved.count != 0 &&
        (poller->free_count != 0 || !mir_buffer_pool_hungry(poller->pool)))
        timeout_ns = 0;
    struct timespec timeout = {.tv_sec = timeout_ns / MIR_NS_PER_S,
                               .tv_nsec = timeout_ns % MIR_NS_PER_S};
    poller->ready_at = 0;
    poller->ready_count = epoll_pwait2(poller->epoll_fd, poller->ready, READY_MAX, &timeout, NULL);
    if (poller->ready_count < 0 && (errno == ENOSYS || errno == EPERM)) {
        /* Before Linux 5.11, or in a sandbox that refuses what it does not know: whole
         * milliseconds, rounded up so that it does not spin. */
        poller->ready_count = epoll_wait(poller->epoll_fd, poller->ready, READY_MAX,
                                         (int)((timeout_ns + MIR_NS_PER_MS - 1) / MIR_NS_PER_MS));
    }
    mir_buffer_pool_sated(poller->pool);
    if (poller->ready_count < 0) poller->ready_count = 0;
}

static bool receive_once(mir_poller *poller, uint32_t id, mir_socket *s, mir_event *event)
{
    if (poller->free_count == 0) (void)mir_buffer_pool_reap(poller->pool);
    if (poller->free_count == 0) {
        if (!mir_sockets_starve(&poller->sockets, id)) return false;
        set_interest(poller, id, s);
        return false;
    }
    mir_buffer *buffer =
        mir_buffer_pool_at(poller->pool, poller->free_buffers[--poller->free_count]);
    atomic_store_explicit(&buffer->references, 1, memory_order_relaxed);
    ssize_t got = recv(s->fd, buffer->data, buffer->capacity, MSG_DONTWAIT);
    if (got > 0) {
        *event = (mir_event){.kind = MIR_EVENT_RECEIVED,
                             .result = (int32_t)got,
                             .id = id,
                             .user = s->user,
                             .buffer = buffer};
        return true;
    }
    int error = errno;
    mir_buffer_release(buffer);
    if (got < 0 && (error == EAGAIN || error == EINTR)) return false;
    s->ended = true;
    set_interest(poller, id, s);
    *event = (mir_event){
        .kind = MIR_EVENT_RECEIVED, .result = got == 0 ? 0 : -error, .id = id, .user = s->user};
    return true;
}

static unsigned poll_events(mir_poller *poller, mir_event *events, unsigned count_max)
{
    unsigned count = 0;
    while (count < count_max && poller->queued_at < poller->queued_count) {
        mir_event event = poller->queued[poller->queued_at++];
        mir_socket *s = mir_sockets_at(&poller->sockets, event.id);
        if (event.kind == MIR_EVENT_CLOSED) {
            mir_sockets_give(&poller->sockets, event.id);
        } else if (s->closing) {
            continue;
        }
        events[count++] = event;
    }
    if (poller->queued_at == poller->queued_count) poller->queued_at = poller->queued_count = 0;
    while (count < count_max && poller->ready_at < poller->ready_count) {
        struct epoll_event ready = poller->ready[poller->ready_at];
        if (ready.data.u64 == DATA_WAKE) {
            uint64_t value;
            ssize_t ignored = read(poller->wake_fd, &value, sizeof value);
            (void)ignored; /* It only empties the counter. */
            poller->ready_at++;
            continue;
        }
        if (ready.data.u64 & DATA_LISTENER) {
            mir_listener *l = &poller->sockets.listeners[ready.data.u64 & 0xff];
            for (int i = 0; i < ACCEPTS_MAX && count < count_max && l->used; i++) {
                int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
                if (fd < 0 && errno != EMFILE && errno != ENFILE) break;
                events[count++] = (mir_event){
                    .kind = MIR_EVENT_ACCEPTED, .result = fd < 0 ? -errno : fd, .user = l->user};
                if (fd >= 0) continue;
                /* The next attempt would fail like this one, and it stays readable: not at once
                 * again. */
                (void)epoll_ctl(poller->epoll_fd, EPOLL_CTL_DEL, l->fd, NULL);
                mir_listener_rest(l);
                break;
            }
            poller->ready_at++;
            continue;
        }
        uint32_t id = (uint32_t)ready.data.u64;
        mir_socket *s = mir_sockets_at(&poller->sockets, id);
        poller->ready_at++;
        if (!s->used || s->closing) continue;
        if ((ready.events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) && s->sending != NULL) {
            int32_t result;
            if (continue_send(poller, id, s, &result)) tell_sent(poller, id, s, result);
        }
        if ((ready.events & (EPOLLIN | EPOLLERR | EPOLLHUP)) && !s->paused && !s->starved &&
            !s->ended) {
            if (receive_once(poller, id, s, &events[count])) count++;
        }
    }
    return count;
}

static void wake_peer(mir_poller *poller, mir_poller *peer)
{
    (void)poller;
    wake(peer);
}

static void linger(mir_poller *poller, int64_t linger_ns)
{
    (void)poller;
    (void)linger_ns; /* epoll cannot gather */
}

static bool starved(const mir_poller *poller)
{
    return poller->sockets.starved.count != 0;
}

const mir_poller_backend mir_poller_epoll = {
    .name = "epoll",
    .create = create,
    .destroy = destroy,
    .listen = listen_on,
    .unlisten = unlisten,
    .add = add,
    .receive_pause = receive_pause,
    .receive_resume = receive_resume,
    .send = send_vectors,
    .shutdown_write = shutdown_write,
    .close = close_slot,
    .wait = wait_for_work,
    .poll = poll_events,
    .wake = wake,
    .wake_peer = wake_peer,
    .starved = starved,
    .linger = linger,
};
