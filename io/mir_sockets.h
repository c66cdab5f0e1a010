/* SPDX-License-Identifier: Apache-2.0 */
/* mir_sockets: what both pollers keep of their sockets.
 *
 * Why        Ids, sends in flight, listeners and the queue for receive buffers are the same whether
 *            the kernel is told by io_uring or by epoll; only how it is told differs.
 * Ownership  The table owns the sockets in it until mir_sockets_give or mir_sockets_close_all, and
 *            the blocks of their sends.
 * Affinity   The poller's thread.
 * Bounds     MIR_SOCKET_PAGES_MAX pages, MIR_LISTENERS_MAX listeners, one send for each socket.
 *            Memory is kept for reuse: as much as was needed at one time.
 * Errors     take: MIR_E_FULL, MIR_E_NO_MEMORY.
 *
 * An id is the place of a socket; it is given to another one later, with the next generation. */
#ifndef MIR_SOCKETS_H
#define MIR_SOCKETS_H

#include <sys/socket.h>

#include "mir_assert.h"
#include "mir_poller.h"

enum {
    MIR_SOCKETS_PER_PAGE = 1024,
    MIR_SOCKET_PAGES_MAX = 1024,
    MIR_LISTENERS_MAX = 8,
};

/* A send that the socket did not take at once. `header` names what is left of it. */
typedef struct mir_send_block {
    struct mir_send_block *next;
    struct msghdr header;
    struct iovec vectors[MIR_SEND_VECTORS_MAX];
    size_t total_bytes;
} mir_send_block;

typedef struct mir_socket {
    int fd;
    uint32_t generation;
    void *user;
    mir_send_block *sending;
    uint32_t next_free; /* id + 1; 0: none */
    uint32_t interest;  /* epoll: what the kernel watches for */
    bool used;
    bool armed; /* io_uring: a multishot receive is in the kernel */
    bool paused;
    bool closing;
    bool starved; /* waits for a receive buffer */
    bool ended;   /* end of stream or error was reported */
} mir_socket;

typedef struct mir_ids {
    uint32_t *items;
    uint32_t count, capacity;
} mir_ids;

typedef struct mir_listener {
    int fd;
    void *user;
    bool used;
    bool armed;            /* io_uring: a multishot accept is in the kernel */
    int64_t rest_until_ns; /* after a failure; 0: none */
} mir_listener;

/* A zeroed one is empty. */
typedef struct mir_sockets {
    mir_socket *pages[MIR_SOCKET_PAGES_MAX];
    uint32_t page_count;
    uint32_t free_head; /* id + 1; 0: none */
    mir_send_block *send_free;
    mir_ids starved; /* oldest first */
    mir_listener listeners[MIR_LISTENERS_MAX];
} mir_sockets;

static inline mir_socket *mir_sockets_at(const mir_sockets *sockets, uint32_t id)
{
    MIR_ASSERT(id / MIR_SOCKETS_PER_PAGE < sockets->page_count);
    return &sockets->pages[id / MIR_SOCKETS_PER_PAGE][id % MIR_SOCKETS_PER_PAGE];
}

/* On failure `fd` stays the caller's. */
MIR_MUST_CHECK mir_status mir_sockets_take(mir_sockets *sockets, int fd, void *user, uint32_t *id);
void mir_sockets_give(mir_sockets *sockets, uint32_t id);
/* Two steps, because the kernel must have let go of the blocks before they are freed. */
void mir_sockets_close_all(mir_sockets *sockets);
void mir_sockets_free(mir_sockets *sockets);

/* Begins a send whose first `sent` bytes are gone. */
void mir_sockets_send_begin(mir_sockets *sockets, mir_socket *socket, const struct iovec *vectors,
                            unsigned count, size_t sent);
/* Takes what was sent off the front; true when nothing is left. */
bool mir_send_block_take(mir_send_block *block, size_t sent);
void mir_sockets_send_end(mir_sockets *sockets, mir_socket *socket);

/* False without memory. */
MIR_MUST_CHECK bool mir_ids_add(mir_ids *ids, uint32_t id);
/* False when the socket could not be noted without memory. */
MIR_MUST_CHECK bool mir_sockets_starve(mir_sockets *sockets, uint32_t id);
/* Takes a socket that closes out of the queue. */
void mir_sockets_unstarve(mir_sockets *sockets, uint32_t id);
/* Calls `feed` for as many of the starved as there are buffers, oldest first. */
void mir_sockets_feed(mir_sockets *sockets, uint32_t buffer_count, mir_poller *poller,
                      void (*feed)(mir_poller *poller, uint32_t id, mir_socket *socket));

/* The index of a free place, which is the caller's to fill; MIR_LISTENERS_MAX when there is none. */
uint32_t mir_sockets_listener_place(const mir_sockets *sockets);
/* The index of the listener on `fd`; MIR_LISTENERS_MAX when there is none. */
uint32_t mir_sockets_listener_find(const mir_sockets *sockets, int fd);
/* What failed would fail again: not before a while. */
void mir_listener_rest(mir_listener *listener);
/* Calls `watch` for those that have rested, which rest again when it says false; returns
 * `timeout_ns`, or how long until the first of the others if that is less. */
int64_t mir_sockets_watch_rested(mir_sockets *sockets, int64_t timeout_ns, mir_poller *poller,
                                 bool (*watch)(mir_poller *poller, uint32_t index));

/* Both pollers are woken through a descriptor. */
void mir_sockets_wake(int wake_fd);

#endif
