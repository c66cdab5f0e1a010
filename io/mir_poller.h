/* SPDX-License-Identifier: Apache-2.0 */
/* mir_poller: sockets and wake-ups of one shard, as completions.
 *
 * Why        The shard asks for work and is told of its end; io_uring does this natively, the epoll
 *            twin does it by readiness. Both hold the same contract, so nothing above knows which.
 * Ownership  The poller owns sockets from add until MIR_EVENT_CLOSED. A received buffer comes with
 *            one reference, which the receiver drops. Memory given to send stays the caller's and
 *            must not change until MIR_EVENT_SENT (or until send has answered true).
 * Affinity   Everything on the shard's thread, except wake and wake_peer's effect on the other.
 * Units      Bytes, nanoseconds. An id is a small number that the poller chooses for each socket.
 * Bounds     poll returns at most the events asked for. One send in flight for each socket.
 * Errors     Results of I/O come with the event as a negative errno; calls answer mir_status.
 *
 * Events of one socket come in the order of their causes. After close was called, the only event
 * still to come is MIR_EVENT_CLOSED (received data is dropped); then the id is free for reuse. */
#ifndef MIR_POLLER_H
#define MIR_POLLER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "mir_buffer.h"
#include "mir_status.h"

typedef enum mir_event_kind {
    MIR_EVENT_ACCEPTED = 1, /* result: the socket, or -errno; user: the listener's */
    MIR_EVENT_RECEIVED,     /* buffer, result: bytes; 0: end of stream; < 0: -errno */
    MIR_EVENT_SENT,         /* result: bytes, or -errno */
    MIR_EVENT_CLOSED,
} mir_event_kind;

typedef struct mir_event {
    mir_event_kind kind;
    int32_t result;
    uint32_t id;
    void *user;
    mir_buffer *buffer;
} mir_event;

enum { MIR_SEND_VECTORS_MAX = 64, MIR_POLLER_ACCEPT_REST_MS = 100 };

typedef struct mir_poller mir_poller;

typedef struct mir_poller_backend {
    const char *name;
    MIR_MUST_CHECK mir_status (*create)(mir_poller **poller, mir_error *error);
    void (*destroy)(mir_poller *poller);
    /* Accepts on a listening socket until unlisten; `user` comes back with each socket. After a
     * failure it tries again MIR_POLLER_ACCEPT_REST_MS later. */
    MIR_MUST_CHECK mir_status (*listen)(mir_poller *poller, int fd, void *user);
    void (*unlisten)(mir_poller *poller, int fd);
    /* Takes a connected socket and begins to receive. */
    MIR_MUST_CHECK mir_status (*add)(mir_poller *poller, int fd, void *user, uint32_t *id);
    void (*receive_pause)(mir_poller *poller, uint32_t id);
    void (*receive_resume)(mir_poller *poller, uint32_t id);
    /* Sends all of it unless the socket fails; at most MIR_SEND_VECTORS_MAX pieces. True when all
     * of it is gone already: then no MIR_EVENT_SENT follows. */
    bool (*send)(mir_poller *poller, uint32_t id, const struct iovec *vectors, unsigned count);
    void (*shutdown_write)(mir_poller *poller, uint32_t id);
    void (*close)(mir_poller *poller, uint32_t id);
    /* Nobody waits for what comes next: the next wait may gather for so long before it ends. */
    void (*linger)(mir_poller *poller, int64_t linger_ns);
    /* Submits what is queued; waits up to timeout_ns for something to happen when it is not 0. */
    void (*wait)(mir_poller *poller, int64_t timeout_ns);
    unsigned (*poll)(mir_poller *poller, mir_event *events, unsigned count_max);
    /* From any thread: ends the current wait, or the next one unless a poll comes before it. So
     * who is woken looks for the reason after polling. */
    void (*wake)(mir_poller *poller);
    /* From this shard's thread: ends the wait of another shard's poller of the same backend. */
    void (*wake_peer)(mir_poller *poller, mir_poller *peer);
    /* Whether sockets wait for receive buffers that others still hold. */
    bool (*starved)(const mir_poller *poller);
} mir_poller_backend;

extern const mir_poller_backend mir_poller_uring;
extern const mir_poller_backend mir_poller_epoll;

/* `wanted`: "auto", "uring" or "epoll". auto tries io_uring and falls back; `why` then says why. */
MIR_MUST_CHECK mir_status mir_poller_choose(const char *wanted, const mir_poller_backend **backend,
                                            mir_error *why);

#endif
