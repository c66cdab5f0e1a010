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

enum {
    SQ_ENTRIES = 2048,
    CQ_ENTRIES = 32768,
    BUFFER_GROUP = 1,
    SLOTS_PER_PAGE = 1024,
    PAGES_MAX = 1024,
    LISTENERS_MAX = 8,
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

typedef struct send_block {
    struct send_block *next;
    struct msghdr header;
    struct iovec vectors[MIR_SEND_VECTORS_MAX];
    size_t total_bytes;
} send_block;

typedef struct slot {
    int fd;
    uint32_t generation;
    void *user;
    send_block *sending;
    uint32_t next_free;
    bool used;
    bool armed; /* a multishot receive is in the kernel */
    bool paused;
    bool closing;
    bool starved; /* ended for want of buffers: on the starved list */
    bool ended;   /* end of stream or error was reported */
} slot;

typedef struct listener {
    int fd;
    void *user;
    bool used;
    bool armed;
    int64_t rest_until_ns; /* after a failure; 0: none */
} listener;

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
    slot *pages[PAGES_MAX];
    uint32_t page_count;
    uint32_t free_head; /* index + 1; 0: none */
    send_block *send_free;
    listener listeners[LISTENERS_MAX];
    uint32_t *starved;
    uint32_t starved_count, starved_capacity;
    uint32_t *closed; /* ids whose CLOSED is still to be reported */
    uint32_t closed_count, closed_capacity;
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

static slot *slot_at(mir_poller *poller, uint32_t id)
{
    MIR_ASSERT(id / SLOTS_PER_PAGE < poller->page_count);
    return &poller->pages[id / SLOTS_PER_PAGE][id % SLOTS_PER_PAGE];
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

static bool list_add(uint32_t **list, uint32_t *count, uint32_t *capacity, uint32_t id)
{
    if (*count == *capacity) {
        uint32_t want = *capacity == 0 ? 64 : *capacity * 2;
        uint32_t *grown = realloc(*list, want * sizeof *grown);
        if (grown == NULL) return false;
        *list = grown;
        *capacity = want;
    }
    (*list)[(*count)++] = id;
    return true;
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
    uint64_t one = 1;
    ssize_t ignored = write(poller->wake_fd, &one, sizeof one);
    (void)ignored; /* Only a counter at its limit refuses, and then the wake is pending anyway. */
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

static void arm_receive(mir_poller *poller, uint32_t id, slot *s)
{
    MIR_ASSERT(!s->armed);
    struct io_uring_sqe *sqe = next_sqe(poller);
    io_uring_prep_recv_multishot(sqe, s->fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    io_uring_sqe_set_data64(sqe, op_pack(OP_RECV, id, s->generation));
    s->armed = true;
}

static void arm_accept(mir_poller *poller, uint32_t index)
{
    listener *l = &poller->listeners[index];
    struct io_uring_sqe *sqe = next_sqe(poller);
    io_uring_prep_multishot_accept(sqe, l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    io_uring_sqe_set_data64(sqe, op_pack(OP_ACCEPT, index, 0));
    l->armed = true;
}

static void destroy(mir_poller *poller)
{
    if (poller == NULL) return;
    for (uint32_t i = 0; i < poller->page_count * SLOTS_PER_PAGE; i++) {
        slot *s = slot_at(poller, i);
        if (s->used) (void)close(s->fd);
    }
    if (poller->ring.ring_fd > 0) io_uring_queue_exit(&poller->ring);
    if (poller->buffer_ring != NULL) (void)munmap(poller->buffer_ring, poller->buffer_ring_bytes);
    mir_buffer_pool_destroy(poller->pool);
    for (uint32_t i = 0; i < poller->page_count; i++) {
        for (uint32_t j = 0; j < SLOTS_PER_PAGE; j++) free(poller->pages[i][j].sending);
        free(poller->pages[i]);
    }
    while (poller->send_free != NULL) {
        send_block *next = poller->send_free->next;
        free(poller->send_free);
        poller->send_free = next;
    }
    if (poller->wake_fd >= 0) (void)close(poller->wake_fd);
    free(poller->reserve);
    free(poller->starved);
    free(poller->closed);
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
    for (uint32_t i = 0; i < LISTENERS_MAX; i++) {
        listener *l = &poller->listeners[i];
        if (l->used || l->armed) continue;
        *l = (listener){.fd = fd, .user = user, .used = true};
        arm_accept(poller, i);
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
        struct io_uring_sqe *sqe = next_sqe(poller);
        io_uring_prep_cancel64(sqe, op_pack(OP_ACCEPT, i, 0), 0);
        io_uring_sqe_set_data64(sqe, op_pack(OP_CANCEL, 0, 0));
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
    slot *s = slot_at(poller, index);
    poller->free_head = s->next_free;
    *s = (slot){.fd = fd, .generation = s->generation + 1, .user = user, .used = true};
    arm_receive(poller, index, s);
    *id = index;
    return MIR_OK;
}

static void cancel_receive(mir_poller *poller, uint32_t id, slot *s)
{
    struct io_uring_sqe *sqe = next_sqe(poller);
    io_uring_prep_cancel64(sqe, op_pack(OP_RECV, id, s->generation), 0);
    io_uring_sqe_set_data64(sqe, op_pack(OP_CANCEL, 0, 0));
}

static void receive_pause(mir_poller *poller, uint32_t id)
{
    slot *s = slot_at(poller, id);
    MIR_ASSERT(s->used);
    if (s->paused) return;
    s->paused = true;
    if (s->armed && !s->closing) cancel_receive(poller, id, s);
}

static void receive_resume(mir_poller *poller, uint32_t id)
{
    slot *s = slot_at(poller, id);
    MIR_ASSERT(s->used);
    if (!s->paused) return;
    s->paused = false;
    /* While the cancelled receive is still in the kernel its last completion re-arms. */
    if (!s->armed && !s->closing && !s->starved && !s->ended) arm_receive(poller, id, s);
}

static void submit_send(mir_poller *poller, uint32_t id, slot *s)
{
    struct io_uring_sqe *sqe = next_sqe(poller);
    io_uring_prep_sendmsg(sqe, s->fd, &s->sending->header, MSG_NOSIGNAL | MSG_WAITALL);
    io_uring_sqe_set_data64(sqe, op_pack(OP_SEND, id, s->generation));
}

/* Takes what was sent off the front. */
static void consume(struct msghdr *header, size_t sent)
{
    while (header->msg_iovlen > 0 && sent >= header->msg_iov->iov_len) {
        sent -= header->msg_iov->iov_len;
        header->msg_iov++;
        header->msg_iovlen--;
    }
    if (header->msg_iovlen > 0) {
        header->msg_iov->iov_base = (uint8_t *)header->msg_iov->iov_base + sent;
        header->msg_iov->iov_len -= sent;
    }
}

/* The first few sends of a turn are made at once: a completion would cost a turn of its own, which
 * a quiet round trip has to wait for. The rest goes into the ring, where one system call carries
 * them all. */
static bool send_at_once(mir_poller *poller, const slot *s, const struct iovec *vectors,
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
    slot *s = slot_at(poller, id);
    MIR_ASSERT(s->used && !s->closing && s->sending == NULL);
    MIR_ASSERT(count >= 1 && count <= MIR_SEND_VECTORS_MAX);
    poller->direct_sent_bytes = 0;
    if (send_at_once(poller, s, vectors, count)) return true;
    send_block *block = poller->send_free;
    if (block != NULL) {
        poller->send_free = block->next;
    } else {
        block = malloc(sizeof *block);
        MIR_ASSERT(block != NULL); /* one block for each send in flight, reused */
    }
    memset(&block->header, 0, sizeof block->header);
    memcpy(block->vectors, vectors, count * sizeof *vectors);
    block->header.msg_iov = block->vectors;
    block->header.msg_iovlen = count;
    block->total_bytes = 0;
    for (unsigned i = 0; i < count; i++) block->total_bytes += vectors[i].iov_len;
    s->sending = block;
    consume(&block->header, poller->direct_sent_bytes);
    submit_send(poller, id, s);
    return false;
}

static void shutdown_write(mir_poller *poller, uint32_t id)
{
    slot *s = slot_at(poller, id);
    MIR_ASSERT(s->used);
    if (!s->closing) (void)shutdown(s->fd, SHUT_WR);
}

static void maybe_closed(mir_poller *poller, uint32_t id, slot *s)
{
    if (!s->closing || s->armed || s->sending != NULL) return;
    if (s->fd >= 0) {
        (void)close(s->fd);
        s->fd = -1;
        bool kept = list_add(&poller->closed, &poller->closed_count, &poller->closed_capacity, id);
        MIR_ASSERT(kept);
    }
}

static void close_slot(mir_poller *poller, uint32_t id)
{
    slot *s = slot_at(poller, id);
    MIR_ASSERT(s->used);
    if (s->closing) return;
    s->closing = true;
    if (s->starved) {
        /* Whoever holds the buffers may wait for this socket's end. */
        for (uint32_t i = 0; i < poller->starved_count; i++) {
            if (poller->starved[i] != id) continue;
            poller->starved_count--;
            memmove(poller->starved + i, poller->starved + i + 1,
                    (poller->starved_count - i) * sizeof *poller->starved);
            break;
        }
        s->starved = false;
    }
    if (s->armed || s->sending != NULL) {
        /* Ends what is in the kernel: a receive reports the end, a send fails. */
        (void)shutdown(s->fd, SHUT_RDWR);
        struct io_uring_sqe *sqe = next_sqe(poller);
        io_uring_prep_cancel_fd(sqe, s->fd, IORING_ASYNC_CANCEL_ALL);
        io_uring_sqe_set_data64(sqe, op_pack(OP_CANCEL, 0, 0));
    }
    maybe_closed(poller, id, s);
}

/* As many sockets as there are buffers, oldest first: more would only fail again. */
static void rearm_starved(mir_poller *poller)
{
    uint32_t count =
        poller->starved_count < poller->buffers_free ? poller->starved_count : poller->buffers_free;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t id = poller->starved[i];
        slot *s = slot_at(poller, id);
        s->starved = false;
        if (!s->paused && !s->armed && !s->ended) arm_receive(poller, id, s);
    }
    if (count == 0) return;
    poller->starved_count -= count;
    memmove(poller->starved, poller->starved + count,
            poller->starved_count * sizeof *poller->starved);
}

/* Returns how long until the first of those that still rest. */
static int64_t rearm_listeners(mir_poller *poller, int64_t timeout_ns)
{
    for (uint32_t i = 0; i < LISTENERS_MAX; i++) {
        listener *l = &poller->listeners[i];
        if (!l->used || l->rest_until_ns == 0) continue;
        int64_t left_ns = l->rest_until_ns - mir_clock_mono_ns();
        if (left_ns > 0) {
            if (left_ns < timeout_ns) timeout_ns = left_ns;
            continue;
        }
        l->rest_until_ns = 0;
        arm_accept(poller, i);
    }
    return timeout_ns;
}

static void wait_for_work(mir_poller *poller, int64_t timeout_ns)
{
    timeout_ns = rearm_listeners(poller, timeout_ns);
    poller->direct_sends = 0;
    (void)mir_buffer_pool_reap(poller->pool);
    rearm_starved(poller);
    if (poller->closed_count != 0 || io_uring_cq_ready(&poller->ring) != 0) timeout_ns = 0;
    if (timeout_ns == 0) {
        (void)io_uring_submit_and_get_events(&poller->ring);
        return;
    }
    if (poller->starved_count != 0 &&
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
        listener *l = &poller->listeners[index];
        if (!more) {
            l->armed = false;
            /* For want of files the next attempt would fail like this one: not at once again. */
            if (cqe->res < 0)
                l->rest_until_ns = mir_clock_mono_ns() + MIR_POLLER_ACCEPT_REST_MS * MIR_NS_PER_MS;
            else if (l->used)
                arm_accept(poller, index);
        }
        if (!l->used) {
            if (cqe->res >= 0) (void)close(cqe->res);
            return false;
        }
        *event = (mir_event){.kind = MIR_EVENT_ACCEPTED, .result = cqe->res, .user = l->user};
        return true;
    }
    case OP_RECV: {
        slot *s = slot_at(poller, index);
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
            s->starved = list_add(&poller->starved, &poller->starved_count,
                                  &poller->starved_capacity, index);
            MIR_ASSERT(s->starved);
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
        slot *s = slot_at(poller, index);
        MIR_ASSERT(s->used && s->generation == generation && s->sending != NULL);
        send_block *block = s->sending;
        if (cqe->res > 0 && !s->closing) {
            consume(&block->header, (size_t)cqe->res);
            if (block->header.msg_iovlen > 0) {
                submit_send(poller, index, s);
                return false;
            }
        }
        *event = (mir_event){.kind = MIR_EVENT_SENT,
                             .result = cqe->res < 0 ? cqe->res : (int32_t)block->total_bytes,
                             .id = index,
                             .user = s->user};
        s->sending = NULL;
        block->next = poller->send_free;
        poller->send_free = block;
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
    while (count < count_max && poller->closed_count > 0) {
        uint32_t id = poller->closed[--poller->closed_count];
        slot *s = slot_at(poller, id);
        events[count++] = (mir_event){.kind = MIR_EVENT_CLOSED, .id = id, .user = s->user};
        s->used = false;
        s->next_free = poller->free_head;
        poller->free_head = id + 1;
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
    return poller->starved_count != 0;
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
