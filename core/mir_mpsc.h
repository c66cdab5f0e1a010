/* SPDX-License-Identifier: Apache-2.0 */
/* mir_mpsc: an unbounded intrusive queue, many producers to one consumer.
 *
 * Why        Requests go from shards to a helper thread (state writer, query workers) and results
 *            come back; the number of requests in flight is bounded by whoever admits them.
 * Ownership  A node belongs to the queue from push until take returns it.
 * Affinity   push: any thread, lock-free. take: the one consumer, wait-free.
 * Bounds     No allocation, no lock, no system call.
 * Errors     None. push returns true when the queue was empty: the caller wakes the consumer then.
 * Source     A Treiber stack that the consumer takes whole and reverses: no ABA, since nodes are
 *            never popped one by one. Order is FIFO for each producer. */
#ifndef MIR_MPSC_H
#define MIR_MPSC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct mir_mpsc_node {
    struct mir_mpsc_node *next;
} mir_mpsc_node;

typedef struct mir_mpsc {
    _Atomic(mir_mpsc_node *) head;
} mir_mpsc;

static inline bool mir_mpsc_push(mir_mpsc *queue, mir_mpsc_node *node)
{
    mir_mpsc_node *old = atomic_load_explicit(&queue->head, memory_order_relaxed);
    do {
        node->next = old;
        /* Sequentially consistent with the sleeper's check of mir_mpsc_is_empty: either the
         * producer sees an announced sleeper or the sleeper sees the node. */
    } while (!atomic_compare_exchange_weak_explicit(&queue->head, &old, node, memory_order_seq_cst,
                                                    memory_order_relaxed));
    return old == NULL;
}

/* Everything that is queued, oldest first, linked by `next`; null when empty. */
static inline mir_mpsc_node *mir_mpsc_take(mir_mpsc *queue)
{
    /* Acquire pairs with the exchange in push. */
    mir_mpsc_node *node = atomic_exchange_explicit(&queue->head, NULL, memory_order_acquire);
    mir_mpsc_node *oldest = NULL;
    while (node != NULL) {
        mir_mpsc_node *next = node->next;
        node->next = oldest;
        oldest = node;
        node = next;
    }
    return oldest;
}

static inline bool mir_mpsc_is_empty(mir_mpsc *queue)
{
    return atomic_load_explicit(&queue->head, memory_order_seq_cst) == NULL;
}

#endif
