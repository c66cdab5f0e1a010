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

enum {
    SLOTS_PER_PAGE = 1024,
    PAGES_MAX = 1024,
    LISTENERS_MAX = 8,
    READY_MAX = 256,
    ACCEPTS_MAX = 64, /* of one listener in one turn */
};

/* epoll data: the low bits of a slot's id, or one of these kinds with an index. */
#define DATA_LISTENER (UINT64_C(1) << 40)
#define DATA_WAKE     (UINT64_C(1) << 41)

typedef struct send_block {
    struct send_block *next;
    struct iovec vectors[MIR_SEND_VECTORS_MAX];
    struct iovec *at;
    unsigned count;
    size_t total_bytes;
} send_block;

typedef struct slot {
    int fd;
    void *user;
    send_block *sending;
    uint32_t next_free;
    uint32_t interest;
    bool used;
    bool paused;
    bool closing;
    bool starved;
    bool ended;
} slot;

typedef struct listener {
    int fd;
    void *user;
    bool used;
    int64_t rest_until_ns; /* after a failure; 0: none */
} listener;

struct mir_poller {
    int epoll_fd;
    int wake_fd;
    mir_buffer_pool *pool;
    uint32_t *free_buffers;
    uint32_t free_count;
    slot *pages[PAGES_MAX];
    uint32_t page_count;
    uint32_t free_head;
    send_block *send_free;
    listener listeners[LISTENERS_MAX];
    uint32_t *starved;
    uint32_t starved_count, starved_capacity;
    mir_event *queued; /* events made by calls, told by the next poll */
    uint32_t queued_count, queued_capacity, queued_at;
    struct epoll_event ready[READY_MAX];
    int ready_count, ready_at;
};

static slot *slot_at(mir_poller *poller, uint32_t id)
{
    MIR_ASSERT(id / SLOTS_PER_PAGE < poller->page_count);
    return &poller->pages[id / SLOTS_PER_PAGE][id % SLOTS_PER_PAGE];
}

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
    uint64_t one = 1;
    ssize_t ignored = write(poller->wake_fd, &one, sizeof one);
    (void)ignored; /* Only a counter at its limit refuses, and then the wake is pending anyway. */
}

static void wake_from_release(void *context)
{
    wake(context);
}

static void end_send(mir_poller *poller, slot *s)
{
    s->sending->next = poller->send_free;
    poller->send_free = s->sending;
    s->sending = NULL;
}

static void tell_sent(mir_poller *poller, uint32_t id, const slot *s, int32_t result)
{
    queue_event(poller,
                (mir_event){.kind = MIR_EVENT_SENT, .result = result, .id = id, .user = s->user});
}

/* The kernel does not watch the socket: nothing would ever be heard of it. To its owner that is a
 * failed connection. */
static void lost(mir_poller *poller, uint32_t id, slot *s, int error)
{
    mir_log_warn("cannot watch a connection, which ends it: %s%s", strerror(error),
                 error == ENOSPC ? "; raise fs.epoll.max_user_watches" : "");
    if (s->sending != NULL) {
        end_send(poller, s);
        tell_sent(poller, id, s, -error);
    }
    if (s->ended) return;
    s->ended = true;
    queue_event(
        poller,
        (mir_event){.kind = MIR_EVENT_RECEIVED, .result = -error, .id = id, .user = s->user});
}

static void set_interest(mir_poller *poller, uint32_t id, slot *s)
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
    for (uint32_t i = 0; i < poller->page_count * SLOTS_PER_PAGE; i++) {
        slot *s = slot_at(poller, i);
        if (s->used && s->fd >= 0) (void)close(s->fd);
        free(s->sending);
    }
    for (uint32_t i = 0; i < poller->page_count; i++) free(poller->pages[i]);
    while (poller->send_free != NULL) {
        send_block *next = poller->send_free->next;
        free(poller->send_free);
        poller->send_free = next;
    }
    if (poller->epoll_fd >= 0) (void)close(poller->epoll_fd);
    if (poller->wake_fd >= 0) (void)close(poller->wake_fd);
    mir_buffer_pool_destroy(poller->pool);
    free(poller->free_buffers);
    free(poller->starved);
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

static mir_status listen_on(mir_poller *poller, int fd, void *user)
{
    for (uint32_t i = 0; i < LISTENERS_MAX; i++) {
        listener *l = &poller->listeners[i];
        if (l->used) continue;
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = DATA_LISTENER | i};
        if (epoll_ctl(poller->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
            return mir_status_from_errno(errno);
        *l = (listener){.fd = fd, .user = user, .used = true};
        return MIR_OK;
    }
    return MIR_E_FULL;
}

static void unlisten(mir_poller *poller, int fd)
{
    for (uint32_t i = 0; i < LISTENERS_MAX; i++) {
        listener *l = &poller->listeners[i];
        if (!l->used || l->fd != fd) continue;
        l->used = false;
        (void)epoll_ctl(poller->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    }
}

static mir_status add(mir_poller *poller, int fd, void *user, uint32_t *id)
{
    if (poller->free_head == 0) {
        if (poller->page_count == PAGES_MAX) return MIR_E_FULL;
        slot *page = calloc(SLOTS_PER_PAGE, sizeof *page);
        if (page == NULL) return MIR_E_NO_MEMORY;
        uint32_t base = poller->page_count * SLOTS_PER_PAGE;
        poller->pages[poller->page_count++] = page;
        for (uint32_t i = SLOTS_PER_PAGE; i-- > 0;) {
            page[i].next_free = poller->free_head;
            poller->free_head = base + i + 1;
        }
    }
    uint32_t index = poller->free_head - 1;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = index};
    if (epoll_ctl(poller->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        return mir_status_from_errno(errno);
    slot *s = slot_at(poller, index);
    poller->free_head = s->next_free;
    *s = (slot){.fd = fd, .user = user, .used = true, .interest = EPOLLIN};
    *id = index;
    return MIR_OK;
}

static void receive_pause(mir_poller *poller, uint32_t id)
{
    slot *s = slot_at(poller, id);
    MIR_ASSERT(s->used);
    s->paused = true;
    set_interest(poller, id, s);
}

static void receive_resume(mir_poller *poller, uint32_t id)
{
    slot *s = slot_at(poller, id);
    MIR_ASSERT(s->used);
    s->paused = false;
    set_interest(poller, id, s);
}

/* Sends what the socket takes; true when all is gone or the socket failed. False: SENT follows. */
static bool continue_send(mir_poller *poller, uint32_t id, slot *s, int32_t *result)
{
    send_block *block = s->sending;
    *result = (int32_t)block->total_bytes;
    while (block->count > 0) {
        struct msghdr header = {.msg_iov = block->at, .msg_iovlen = block->count};
        ssize_t sent = sendmsg(s->fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno == EINTR) continue;
            if (errno == EAGAIN) {
                set_interest(poller, id, s);
                return false;
            }
            *result = -errno;
            break;
        }
        size_t left = (size_t)sent;
        while (block->count > 0 && left >= block->at->iov_len) {
            left -= block->at->iov_len;
            block->at++;
            block->count--;
        }
        if (block->count > 0) {
            block->at->iov_base = (uint8_t *)block->at->iov_base + left;
            block->at->iov_len -= left;
        }
    }
    end_send(poller, s);
    set_interest(poller, id, s);
    return true;
}

static bool send_vectors(mir_poller *poller, uint32_t id, const struct iovec *vectors,
                         unsigned count)
{
    slot *s = slot_at(poller, id);
    MIR_ASSERT(s->used && !s->closing && s->sending == NULL);
    MIR_ASSERT(count >= 1 && count <= MIR_SEND_VECTORS_MAX);
    send_block *block = poller->send_free;
    if (block != NULL) {
        poller->send_free = block->next;
    } else {
        block = malloc(sizeof *block);
        MIR_ASSERT(block != NULL); /* one block for each send in flight, reused */
    }
    memcpy(block->vectors, vectors, count * sizeof *vectors);
    block->at = block->vectors;
    block->count = count;
    block->total_bytes = 0;
    for (unsigned i = 0; i < count; i++) block->total_bytes += vectors[i].iov_len;
    s->sending = block;
    int32_t result;
    if (!continue_send(poller, id, s, &result)) return false;
    if (result >= 0) return true;
    tell_sent(poller, id, s, result);
    return false;
}

static void shutdown_write(mir_poller *poller, uint32_t id)
{
    slot *s = slot_at(poller, id);
    MIR_ASSERT(s->used);
    if (!s->closing) (void)shutdown(s->fd, SHUT_WR);
}

static void close_slot(mir_poller *poller, uint32_t id)
{
    slot *s = slot_at(poller, id);
    MIR_ASSERT(s->used);
    if (s->closing) return;
    s->closing = true;
    for (uint32_t i = 0; s->starved && i < poller->starved_count; i++) {
        if (poller->starved[i] != id) continue;
        poller->starved_count--;
        memmove(poller->starved + i, poller->starved + i + 1,
                (poller->starved_count - i) * sizeof *poller->starved);
        s->starved = false;
    }
    (void)close(s->fd); /* Leaves the epoll set by itself. */
    s->fd = -1;
    if (s->sending != NULL) end_send(poller, s);
    queue_event(poller, (mir_event){.kind = MIR_EVENT_CLOSED, .id = id, .user = s->user});
}

static int64_t rest(listener *l)
{
    int64_t rest_ns = MIR_POLLER_ACCEPT_REST_MS * MIR_NS_PER_MS;
    l->rest_until_ns = mir_clock_mono_ns() + rest_ns;
    return rest_ns;
}

/* Looks again at those that have rested; returns how long until the first of the others. */
static int64_t watch_listeners(mir_poller *poller, int64_t timeout_ns)
{
    for (uint32_t i = 0; i < LISTENERS_MAX; i++) {
        listener *l = &poller->listeners[i];
        if (!l->used || l->rest_until_ns == 0) continue;
        int64_t left_ns = l->rest_until_ns - mir_clock_mono_ns();
        if (left_ns <= 0) {
            struct epoll_event event = {.events = EPOLLIN, .data.u64 = DATA_LISTENER | i};
            if (epoll_ctl(poller->epoll_fd, EPOLL_CTL_ADD, l->fd, &event) == 0) {
                l->rest_until_ns = 0;
                continue;
            }
            left_ns = rest(l);
        }
        if (left_ns < timeout_ns) timeout_ns = left_ns;
    }
    return timeout_ns;
}

static void wait_for_work(mir_poller *poller, int64_t timeout_ns)
{
    (void)mir_buffer_pool_reap(poller->pool);
    /* As many sockets as there are buffers, oldest first. */
    uint32_t fed =
        poller->starved_count < poller->free_count ? poller->starved_count : poller->free_count;
    for (uint32_t i = 0; i < fed; i++) {
        slot *s = slot_at(poller, poller->starved[i]);
        s->starved = false;
        set_interest(poller, poller->starved[i], s);
    }
    if (fed != 0) {
        poller->starved_count -= fed;
        memmove(poller->starved, poller->starved + fed,
                poller->starved_count * sizeof *poller->starved);
    }
    if (poller->ready_at < poller->ready_count) return;
    timeout_ns = watch_listeners(poller, timeout_ns);
    if (poller->queued_at < poller->queued_count) timeout_ns = 0;
    if (timeout_ns != 0 && poller->starved_count != 0 &&
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

static bool receive_once(mir_poller *poller, uint32_t id, slot *s, mir_event *event)
{
    if (poller->free_count == 0) (void)mir_buffer_pool_reap(poller->pool);
    if (poller->free_count == 0) {
        if (poller->starved_count == poller->starved_capacity) {
            uint32_t want = poller->starved_capacity == 0 ? 64 : poller->starved_capacity * 2;
            uint32_t *grown = realloc(poller->starved, want * sizeof *grown);
            if (grown == NULL) return false;
            poller->starved = grown;
            poller->starved_capacity = want;
        }
        poller->starved[poller->starved_count++] = id;
        s->starved = true;
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
        slot *s = slot_at(poller, event.id);
        if (event.kind == MIR_EVENT_CLOSED) {
            s->used = false;
            s->next_free = poller->free_head;
            poller->free_head = event.id + 1;
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
            listener *l = &poller->listeners[ready.data.u64 & 0xff];
            for (int i = 0; i < ACCEPTS_MAX && count < count_max && l->used; i++) {
                int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
                if (fd < 0 && errno != EMFILE && errno != ENFILE) break;
                events[count++] = (mir_event){
                    .kind = MIR_EVENT_ACCEPTED, .result = fd < 0 ? -errno : fd, .user = l->user};
                if (fd >= 0) continue;
                /* The next attempt would fail like this one, and it stays readable: not at once
                 * again. */
                (void)epoll_ctl(poller->epoll_fd, EPOLL_CTL_DEL, l->fd, NULL);
                (void)rest(l);
                break;
            }
            poller->ready_at++;
            continue;
        }
        uint32_t id = (uint32_t)ready.data.u64;
        slot *s = slot_at(poller, id);
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
    return poller->starved_count != 0;
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
