/* SPDX-License-Identifier: Apache-2.0 */
/* The io_uring backend.
 *
 * One ring for each shard, created by its thread (SINGLE_ISSUER) and entered once a turn
 * (DEFER_TASKRUN: completions are made only inside that call). Receives are multishot into a ring
 * of provided buffers; a buffer goes back to the ring when its last reference is dropped. Every
 * completion carries kind, slot and the slot's generation, so one that arrives for a socket that is
 * gone is recognized and dropped. F_MORE alone says whether a multishot is still armed. */
#include "mir_poller.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mir_assert.h"
#include "mir_clock.h"
#include "mir_limits.h"
#include "mir_sockets.h"

enum {
    SQ_ENTRIES = 2048,
    CQ_ENTRIES = 32768,
    BUFFER_GROUP = 1,
    RING_BUFFERS = 128, /* known to the kernel at a time */
    GATHER_EVENTS = 64, /* so many end a gathering wait early */
    DIRECT_SENDS_PER_TURN = 4,
    DIRECT_SEND_BYTES_MAX = 256 * 1024,
};

/* Below the kind of a completion that tells of a wake: whom it was for. Addresses of processes have
 * fewer bits. */
#define WAKE_PEER_MASK ((UINT64_C(1) << 56) - 1)

/* Linux 6.12, newer than liburing's header: a wait may gather completions for some time. */
#define FEAT_MIN_TIMEOUT (1U << 15)

typedef enum op_kind {
    OP_ACCEPT = 1,
    OP_RECV,
    OP_SEND,
    OP_CANCEL,
    OP_WAKE_READ,
    OP_WAKE_RING,
    OP_WAKE_SENT,
} op_kind;

struct mir_poller {
    struct io_uring ring;
    struct io_uring_buf_ring *buffer_ring;
    size_t buffer_ring_bytes;
    mir_buffer_pool *pool;
    uint32_t linger_us;    /* of the next wait */
    uint32_t buffers_free; /* in the ring and in reserve */
    /* The kernel goes round the whole ring, so only a few buffers are in it: they stay in the cache.
     * The others lie here, last in, first out. */
    uint32_t *reserve;
    uint32_t reserve_count;
    mir_sockets sockets;
    mir_ids closed; /* those whose CLOSED is still to be reported */
    int wake_fd;
    uint64_t wake_value;
    bool ring_wakes_refused;
    unsigned direct_sends; /* in this turn */
    size_t direct_sent_bytes;
};

static uint64_t op_pack(op_kind kind, uint32_t index, uint32_t generation)
{
    return (uint64_t)kind << 56 | (uint64_t)(index & 0xffffff) << 32 | generation;
}

static struct io_uring_sqe *next_sqe(mir_poller *poller)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&poller->ring);
    while (sqe == NULL) {
        (void)io_uring_submit(&poller->ring);
        sqe = io_uring_get_sqe(&poller->ring);
    }
    return sqe;
}

static void ring_put(mir_poller *poller, mir_buffer *buffer)
{
    io_uring_buf_ring_add(poller->buffer_ring, buffer->data, MIR_RECV_BUFFER_BYTES,
                          (unsigned short)buffer->index, io_uring_buf_ring_mask(MIR_RECV_BUFFERS),
                          0);
    io_uring_buf_ring_advance(poller->buffer_ring, 1);
}

static void buffer_give_back(void *context, mir_buffer *buffer)
{
    mir_poller *poller = context;
    poller->buffers_free++;
    if (poller->buffers_free - poller->reserve_count <= RING_BUFFERS)
        ring_put(poller, buffer);
    else
        poller->reserve[poller->reserve_count++] = buffer->index;
}

/* Keeps the ring from running low while there are buffers in reserve. */
static void ring_refill(mir_poller *poller)
{
    if (poller->buffers_free - poller->reserve_count >= RING_BUFFERS / 2) return;
    while (poller->reserve_count != 0 &&
           poller->buffers_free - poller->reserve_count < RING_BUFFERS) {
        uint32_t index = poller->reserve[--poller->reserve_count];
        ring_put(poller, mir_buffer_pool_at(poller->pool, index));
    }
}

static void wake(mir_poller *poller)
{
    mir_sockets_wake(poller->wake_fd);
}

static void wake_from_release(void *context)
{
    wake(context);
}

static void arm_wake(mir_poller *poller)
{
    struct io_uring_sqe *sqe = next_sqe(poller);
    io_uring_prep_read(sqe, poller->wake_fd, &poller->wake_value, sizeof poller->wake_value, 0);
    io_uring_sqe_set_data64(sqe, op_pack(OP_WAKE_READ, 0, 0));
}

static void arm_receive(mir_poller *poller, uint32_t id, mir_socket *s)
{
    MIR_ASSERT(!s->armed);
    struct io_uring_sqe *sqe = next_sqe(poller);
    io_uring_prep_recv_multishot(sqe, s->fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    io_uring_sqe_set_data64(sqe, op_pack(OP_RECV, id, s->generation));
    s->armed = true;
}

/* Always true: a failure comes as a completion. */
static bool arm_accept(mir_poller *poller, uint32_t index)
{
    mir_listener *l = &poller->sockets.listeners[index];
    struct io_uring_sqe *sqe = next_sqe(poller);
    io_uring_prep_multishot_accept(sqe, l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    io_uring_sqe_set_data64(sqe, op_pack(OP_ACCEPT, index, 0));
    l->armed = true;
    return true;
}

static void destroy(mir_poller *poller)
{
    if (poller == NULL) return;
    mir_sockets_close_all(&poller->sockets);
    if (poller->ring.ring_fd > 0) io_uring_queue_exit(&poller->ring);
    if (poller->buffer_ring != NULL) (void)munmap(poller->buffer_ring, poller->buffer_ring_bytes);
    mir_buffer_pool_destroy(poller->pool);
    mir_sockets_free(&poller->sockets);
    if (poller->wake_fd >= 0) (void)close(poller->wake_fd);
    free(poller->reserve);
    free(poller->closed.items);
    free(poller);
}

static mir_status create(mir_poller **out, mir_error *error)
{
    mir_poller *poller = calloc(1, sizeof *poller);
    if (poller == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    poller->wake_fd = -1;
    mir_status status;
    struct io_uring_params params = {0};
    params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                   IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    params.cq_entries = CQ_ENTRIES;
    int rc = io_uring_queue_init_params(SQ_ENTRIES, &poller->ring, &params);
    if (rc == -EINVAL) {
        /* Kernels before 6.1 know neither flag. */
        params = (struct io_uring_params){0};
        params.flags = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE |
                       IORING_SETUP_CLAMP;
        params.cq_entries = CQ_ENTRIES;
        rc = io_uring_queue_init_params(SQ_ENTRIES, &poller->ring, &params);
    }
    if (rc < 0) {
        poller->ring.ring_fd = 0;
        status = mir_error_os(error, -rc, "io_uring_setup");
        if (rc == -ENOMEM)
            status = mir_error_set(error, status,
                                   "io_uring_setup: %s; raise the limit of locked memory "
                                   "(LimitMEMLOCK, ulimit -l)",
                                   strerror(ENOMEM));
        goto out;
    }
    (void)io_uring_register_ring_fd(&poller->ring); /* An optimization; refusal is fine. */
    status = mir_buffer_pool_create(MIR_RECV_BUFFERS, buffer_give_back, wake_from_release, poller,
                                    &poller->pool);
    if (status != MIR_OK) {
        (void)mir_error_set(error, status, "receive buffers: out of memory");
        goto out;
    }
    poller->buffer_ring_bytes = MIR_RECV_BUFFERS * sizeof(struct io_uring_buf);
    void *memory = mmap(NULL, poller->buffer_ring_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        status = mir_error_os(error, errno, "receive buffer ring");
        goto out;
    }
    poller->buffer_ring = memory;
    struct io_uring_buf_reg reg = {.ring_addr = (uint64_t)(uintptr_t)memory,
                                   .ring_entries = MIR_RECV_BUFFERS,
                                   .bgid = BUFFER_GROUP};
    rc = io_uring_register_buf_ring(&poller->ring, &reg, 0);
    if (rc < 0) {
        status = mir_error_os(error, -rc, "io_uring provided buffers");
        goto out;
    }
    io_uring_buf_ring_init(poller->buffer_ring);
    poller->reserve = calloc(MIR_RECV_BUFFERS, sizeof *poller->reserve);
    if (poller->reserve == NULL) {
        status = mir_error_set(error, MIR_E_NO_MEMORY, "receive buffers: out of memory");
        goto out;
    }
    for (uint32_t i = 0; i < MIR_RECV_BUFFERS; i++)
        buffer_give_back(poller, mir_buffer_pool_at(poller->pool, i));
    poller->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (poller->wake_fd < 0) {
        status = mir_error_os(error, errno, "eventfd");
        goto out;
    }
    arm_wake(poller);
    *out = poller;
    return MIR_OK;
out:
    destroy(poller);
    return status;
}

static mir_status listen_on(mir_poller *poller, int fd, void *user)
{
    uint32_t i = mir_sockets_listener_place(&poller->sockets);
    if (i == MIR_LISTENERS_MAX) return MIR_E_FULL;
    poller->sockets.listeners[i] = (mir_listener){.fd = fd, .user = user, .used = true};
    (void)arm_accept(poller, i);
    return MIR_OK;
}

static void unlisten(mir_poller *poller, int fd)
{
    uint32_t i = mir_sockets_listener_find(&poller->sockets, fd);
    if (i == MIR_LISTENERS_MAX) return;
    poller->sockets.listeners[i].used = false;
    struct io_uring_sqe *sqe = next_sqe(poller);
    io_uring_prep_cancel64(sqe, op_pack(OP_ACCEPT, i, 0), 0);
    io_uring_sqe_set_data64(sqe, op_pack(OP_CANCEL, 0, 0));
}

static mir_status add(mir_poller *poller, int fd, void *user, uint32_t *id)
{
    mir_status status = mir_sockets_take(&poller->sockets, fd, user, id);
    if (status == MIR_OK) arm_receive(poller, *id, mir_sockets_at(&poller->sockets, *id));
    return status;
}

static void cancel_receive(mir_poller *poller, uint32_t id, mir_socket *s)
{
    struct io_uring_sqe *sqe = next_sqe(poller);
    io_uring_prep_cancel64(sqe, op_pack(OP_RECV, id, s->generation), 0);
    io_uring_sqe_set_data64(sqe, op_pack(OP_CANCEL, 0, 0));
}

static void receive_pause(mir_poller *poller, uint32_t id)
{
    mir_socket *s = mir_sockets_at(&poller->sockets, id);
    MIR_ASSERT(s->used);
    if (s->paused) return;
    s->paused = true;
    if (s->armed && !s->closing) cancel_receive(poller, id, s);
}

static void receive_resume(mir_poller *poller, uint32_t id)
{
    mir_socket *s = mir_sockets_at(&poller->sockets, id);
    MIR_ASSERT(s->used);
    if (!s->paused) return;
    s->paused = false;
    /* While the cancelled receive is still in the kernel its last completion re-arms. */
    if (!s->armed && !s->closing && !s->starved && !s->ended) arm_receive(poller, id, s);
}

static void submit_send(mir_poller *poller, uint32_t id, mir_socket *s)
{
    struct io_uring_sqe *sqe = next_sqe(poller);
    io_uring_prep_sendmsg(sqe, s->fd, &s->sending->header, MSG_NOSIGNAL | MSG_WAITALL);
    io_uring_sqe_set_data64(sqe, op_pack(OP_SEND, id, s->generation));
}

/* The first few sends of a turn are made at once: a completion would cost a turn of its own, which
 * a quiet round trip has to wait for. The rest goes into the ring, where one system call carries
 * them all. */
static bool send_at_once(mir_poller *poller, const mir_socket *s, const struct iovec *vectors,
                         unsigned count)
{
    if (poller->direct_sends >= DIRECT_SENDS_PER_TURN) return false;
    size_t total = 0;
    for (unsigned i = 0; i < count; i++) total += vectors[i].iov_len;
    if (total > DIRECT_SEND_BYTES_MAX) return false;
    poller->direct_sends++;
    struct msghdr header = {.msg_iov = (struct iovec *)(uintptr_t)vectors, .msg_iovlen = count};
    ssize_t sent = sendmsg(s->fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
    poller->direct_sent_bytes = sent > 0 ? (size_t)sent : 0;
    return sent >= 0 && (size_t)sent == total;
}

static bool send_vectors(mir_poller *poller, uint32_t id, const struct iovec *vectors,
                         unsigned count)
{
    mir_socket *s = mir_sockets_at(&poller->sockets, id);
    MIR_ASSERT(s->used && !s->closing && s->sending == NULL);
    poller->direct_sent_bytes = 0;
    if (send_at_once(poller, s, vectors, count)) return true;
    mir_sockets_send_begin(&poller->sockets, s, vectors, count, poller->direct_sent_bytes);
    submit_send(poller, id, s);
    return false;
}

static void shutdown_write(mir_poller *poller, uint32_t id)
{
    mir_socket *s = mir_sockets_at(&poller->sockets, id);
    MIR_ASSERT(s->used);
    if (!s->closing) (void)shutdown(s->fd, SHUT_WR);
}

static void maybe_closed(mir_poller *poller, uint32_t id, mir_socket *s)
{
    if (!s->closing || s->armed || s->sending != NULL) return;
    if (s->fd >= 0) {
        (void)close(s->fd);
        s->fd = -1;
        bool kept = mir_ids_add(&poller->closed, id);
        MIR_ASSERT(kept);
    }
}

static void close_slot(mir_poller *poller, uint32_t id)
{
    mir_socket *s = mir_sockets_at(&poller->sockets, id);
    MIR_ASSERT(s->used);
    if (s->closing) return;
    s->closing = true;
    /* Whoever holds the buffers may wait for this socket's end. */
    mir_sockets_unstarve(&poller->sockets, id);
    if (s->armed || s->sending != NULL) {
        /* Ends what is in the kernel: a receive reports the end, a send fails. */
        (void)shutdown(s->fd, SHUT_RDWR);
        struct io_uring_sqe *sqe = next_sqe(poller);
        io_uring_prep_cancel_fd(sqe, s->fd, IORING_ASYNC_CANCEL_ALL);
        io_uring_sqe_set_data64(sqe, op_pack(OP_CANCEL, 0, 0));
    }
    maybe_closed(poller, id, s);
}

static void feed(mir_poller *poller, uint32_t id, mir_socket *s)
{
    if (!s->paused && !s->armed && !s->ended) arm_receive(poller, id, s);
}

static void wait_for_work(mir_poller *poller, int64_t timeout_ns)
{
    timeout_ns = mir_sockets_watch_rested(&poller->sockets, timeout_ns, poller, arm_accept);
    poller->direct_sends = 0;
    (void)mir_buffer_pool_reap(poller->pool);
    mir_sockets_feed(&poller->sockets, poller->buffers_free, poller, feed);
    if (poller->closed.count != 0 || io_uring_cq_ready(&poller->ring) != 0) timeout_ns = 0;
    if (timeout_ns == 0) {
        (void)io_uring_submit_and_get_events(&poller->ring);
        return;
    }
    if (poller->sockets.starved.count != 0 &&
        (poller->buffers_free != 0 || !mir_buffer_pool_hungry(poller->pool))) {
        mir_buffer_pool_sated(poller->pool);
        (void)io_uring_submit_and_get_events(&poller->ring);
        return;
    }
    struct __kernel_timespec timeout = {.tv_sec = timeout_ns / MIR_NS_PER_S,
                                        .tv_nsec = timeout_ns % MIR_NS_PER_S};
    if (poller->linger_us != 0) {
        /* The kernel calls the padding min_wait_usec: it ends the wait after that time if there is
         * anything, and else goes on until there is or the timeout ends it. */
        uint32_t most_us = (uint32_t)(timeout_ns / MIR_NS_PER_US);
        if (poller->linger_us > most_us) poller->linger_us = most_us;
        struct io_uring_getevents_arg arg = {.pad = poller->linger_us,
                                             .ts = (uint64_t)(uintptr_t)&timeout};
        poller->linger_us = 0;
        (void)io_uring_submit(&poller->ring);
        (void)syscall(__NR_io_uring_enter, poller->ring.ring_fd, 0, GATHER_EVENTS,
                      IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &arg, sizeof arg);
        mir_buffer_pool_sated(poller->pool);
        return;
    }
    struct io_uring_cqe *cqe;
    (void)io_uring_submit_and_wait_timeout(&poller->ring, &cqe, 1, &timeout, NULL);
    mir_buffer_pool_sated(poller->pool);
}

/* Turns one completion into at most one event; false when there is nothing to tell. */
static bool complete(mir_poller *poller, const struct io_uring_cqe *cqe, mir_event *event)
{
    op_kind kind = (op_kind)(cqe->user_data >> 56);
    uint32_t index = (uint32_t)(cqe->user_data >> 32) & 0xffffff;
    uint32_t generation = (uint32_t)cqe->user_data;
    bool more = (cqe->flags & IORING_CQE_F_MORE) != 0;
    switch (kind) {
    case OP_WAKE_READ: arm_wake(poller); return false;
    case OP_WAKE_RING:
    case OP_CANCEL: return false;
    case OP_WAKE_SENT:
        if (cqe->res < 0) {
            /* This one did not arrive: the peer still has to be woken. */
            poller->ring_wakes_refused = true;
            wake((mir_poller *)(uintptr_t)(cqe->user_data & WAKE_PEER_MASK));
        }
        return false;
    case OP_ACCEPT: {
        mir_listener *l = &poller->sockets.listeners[index];
        if (!more) {
            l->armed = false;
            /* For want of files the next attempt would fail like this one: not at once again. */
            if (cqe->res < 0)
                mir_listener_rest(l);
            else if (l->used)
                (void)arm_accept(poller, index);
        }
        if (!l->used) {
            if (cqe->res >= 0) (void)close(cqe->res);
            return false;
        }
        *event = (mir_event){.kind = MIR_EVENT_ACCEPTED, .result = cqe->res, .user = l->user};
        return true;
    }
    case OP_RECV: {
        mir_socket *s = mir_sockets_at(&poller->sockets, index);
        mir_buffer *buffer = NULL;
        if (cqe->flags & IORING_CQE_F_BUFFER) {
            buffer = mir_buffer_pool_at(poller->pool, cqe->flags >> IORING_CQE_BUFFER_SHIFT);
            atomic_store_explicit(&buffer->references, 1, memory_order_relaxed);
            poller->buffers_free--;
            ring_refill(poller);
        }
        MIR_ASSERT(s->used && s->generation == generation);
        if (!more) s->armed = false;
        if (s->closing || (cqe->res <= 0 && s->ended)) {
            if (buffer != NULL) mir_buffer_release(buffer);
            maybe_closed(poller, index, s);
            return false;
        }
        if (cqe->res > 0) {
            MIR_ASSERT(buffer != NULL);
            if (!s->armed && !s->paused) arm_receive(poller, index, s);
            *event = (mir_event){.kind = MIR_EVENT_RECEIVED,
                                 .result = cqe->res,
                                 .id = index,
                                 .user = s->user,
                                 .buffer = buffer};
            return true;
        }
        if (buffer != NULL) mir_buffer_release(buffer);
        if (cqe->res == -ENOBUFS) {
            bool kept = mir_sockets_starve(&poller->sockets, index);
            MIR_ASSERT(kept);
            return false;
        }
        if (cqe->res == -ECANCELED) {
            if (!s->paused && !s->armed) arm_receive(poller, index, s);
            return false;
        }
        s->ended = true;
        *event = (mir_event){
            .kind = MIR_EVENT_RECEIVED, .result = cqe->res, .id = index, .user = s->user};
        return true;
    }
    case OP_SEND: {
        mir_socket *s = mir_sockets_at(&poller->sockets, index);
        MIR_ASSERT(s->used && s->generation == generation && s->sending != NULL);
        if (cqe->res > 0 && !s->closing && !mir_send_block_take(s->sending, (size_t)cqe->res)) {
            submit_send(poller, index, s);
            return false;
        }
        *event = (mir_event){.kind = MIR_EVENT_SENT,
                             .result = cqe->res < 0 ? cqe->res : (int32_t)s->sending->total_bytes,
                             .id = index,
                             .user = s->user};
        mir_sockets_send_end(&poller->sockets, s);
        if (s->closing) {
            maybe_closed(poller, index, s);
            return false;
        }
        return true;
    }
    }
    return false;
}

static unsigned poll_events(mir_poller *poller, mir_event *events, unsigned count_max)
{
    unsigned count = 0;
    while (count < count_max) {
        struct io_uring_cqe *cqe;
        if (io_uring_cq_ready(&poller->ring) == 0) break;
        if (io_uring_peek_cqe(&poller->ring, &cqe) != 0 || cqe == NULL) break;
        struct io_uring_cqe copy = {
            .user_data = cqe->user_data, .res = cqe->res, .flags = cqe->flags};
        io_uring_cqe_seen(&poller->ring, cqe);
        if (complete(poller, &copy, &events[count])) count++;
    }
    while (count < count_max && poller->closed.count > 0) {
        uint32_t id = poller->closed.items[--poller->closed.count];
        mir_socket *s = mir_sockets_at(&poller->sockets, id);
        events[count++] = (mir_event){.kind = MIR_EVENT_CLOSED, .id = id, .user = s->user};
        mir_sockets_give(&poller->sockets, id);
    }
    return count;
}

static void wake_peer(mir_poller *poller, mir_poller *peer)
{
    if (poller->ring_wakes_refused) {
        wake(peer);
        return;
    }
    struct io_uring_sqe *sqe = next_sqe(poller);
    io_uring_prep_msg_ring(sqe, peer->ring.ring_fd, 0, op_pack(OP_WAKE_RING, 0, 0), 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, op_pack(OP_WAKE_SENT, 0, 0) | (uint64_t)(uintptr_t)peer);
}

static void linger(mir_poller *poller, int64_t linger_ns)
{
    if (poller->ring.features & FEAT_MIN_TIMEOUT) poller->linger_us = (uint32_t)(linger_ns / 1000);
}

static bool starved(const mir_poller *poller)
{
    return poller->sockets.starved.count != 0;
}

const mir_poller_backend mir_poller_uring = {
    .name = "io_uring",
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
