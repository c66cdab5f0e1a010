/* SPDX-License-Identifier: Apache-2.0 */
/* mir_buffer: the reference-counted bytes that a message lives in, from receive to last send.
 *
 * Why        Layers and shards pass views into a buffer; whoever drops the last one returns it.
 * Ownership  A buffer has one owner pool (a shard's). Whoever holds a reference may read. The bytes
 *            of a received buffer do not change once it was handed out.
 * Affinity   retain, release, heap: any thread. reap, hungry, sated: the owner shard.
 * Units      Bytes. A pool buffer holds MIR_RECV_BUFFER_BYTES, a heap buffer what was asked for.
 * Bounds     retain is one atomic add; release one atomic subtract and, for the last reference on
 *            another thread, one lock-free push to the owner, who is woken if it sleeps for want
 *            of buffers.
 * Errors     heap: null without memory. */
#ifndef MIR_BUFFER_H
#define MIR_BUFFER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "mir_mpsc.h"
#include "mir_status.h"

typedef struct mir_buffer_pool mir_buffer_pool;

typedef struct mir_buffer {
    mir_mpsc_node node; /* while it is on its way back to the pool */
    _Atomic uint32_t references;
    uint32_t index;        /* in its pool; unused by heap buffers */
    mir_buffer_pool *pool; /* null: from the heap */
    uint8_t *data;
    size_t capacity;
} mir_buffer;

/* `give_back` is called on the owner thread for each buffer that has become free, `wake` on any
 * thread when one was released for a hungry owner. */
MIR_MUST_CHECK mir_status
mir_buffer_pool_create(uint32_t buffer_count, void (*give_back)(void *context, mir_buffer *buffer),
                       void (*wake)(void *context), void *context, mir_buffer_pool **pool);
/* Every reference was dropped. */
void mir_buffer_pool_destroy(mir_buffer_pool *pool);
mir_buffer *mir_buffer_pool_at(mir_buffer_pool *pool, uint32_t index);
uint32_t mir_buffer_pool_count(const mir_buffer_pool *pool);
/* The calling thread owns the pool from now on. */
void mir_buffer_pool_adopt(mir_buffer_pool *pool);
/* Takes back what other threads released. Returns how many. */
unsigned mir_buffer_pool_reap(mir_buffer_pool *pool);

/* The owner is about to sleep although it needs a buffer: from now on a release on another thread
 * wakes it. False when something was released meanwhile: reap instead of sleeping. */
bool mir_buffer_pool_hungry(mir_buffer_pool *pool);
/* The owner is awake again. */
void mir_buffer_pool_sated(mir_buffer_pool *pool);

/* A buffer of its own with one reference. */
mir_buffer *mir_buffer_heap(size_t capacity);
/* The same of memory from malloc, whose first sizeof(mir_buffer) bytes become the buffer's own; the
 * others are its bytes, as they are. */
mir_buffer *mir_buffer_adopt(void *memory, size_t size);

static inline void mir_buffer_retain(mir_buffer *buffer)
{
    /* Relaxed: the caller already holds a reference, which orders everything. */
    atomic_fetch_add_explicit(&buffer->references, 1, memory_order_relaxed);
}

void mir_buffer_release(mir_buffer *buffer);

#endif
