/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_buffer.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "mir_assert.h"
#include "mir_limits.h"

struct mir_buffer_pool {
    mir_buffer *buffers;
    uint8_t *memory;
    uint32_t count;
    pthread_t owner;
    mir_mpsc returned;
    _Atomic bool hungry;
    void (*give_back)(void *context, mir_buffer *buffer);
    void (*wake)(void *context);
    void *context;
};

mir_status mir_buffer_pool_create(uint32_t buffer_count,
                                  void (*give_back)(void *context, mir_buffer *buffer),
                                  void (*wake)(void *context), void *context,
                                  mir_buffer_pool **pool)
{
    mir_buffer_pool *fresh = calloc(1, sizeof *fresh);
    if (fresh == NULL) return MIR_E_NO_MEMORY;
    fresh->buffers = calloc(buffer_count, sizeof *fresh->buffers);
    /* Anonymous memory that becomes resident only when a receive touches it. */
    void *memory = mmap(NULL, (size_t)buffer_count * MIR_RECV_BUFFER_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fresh->buffers == NULL || memory == MAP_FAILED) {
        if (memory != MAP_FAILED)
            (void)munmap(memory, (size_t)buffer_count * MIR_RECV_BUFFER_BYTES);
        free(fresh->buffers);
        free(fresh);
        return MIR_E_NO_MEMORY;
    }
    fresh->memory = memory;
    fresh->count = buffer_count;
    fresh->owner = pthread_self();
    fresh->give_back = give_back;
    fresh->wake = wake;
    fresh->context = context;
    for (uint32_t i = 0; i < buffer_count; i++) {
        fresh->buffers[i] = (mir_buffer){.index = i,
                                         .pool = fresh,
                                         .data = fresh->memory + (size_t)i * MIR_RECV_BUFFER_BYTES,
                                         .capacity = MIR_RECV_BUFFER_BYTES};
    }
    *pool = fresh;
    return MIR_OK;
}

void mir_buffer_pool_destroy(mir_buffer_pool *pool)
{
    if (pool == NULL) return;
    (void)munmap(pool->memory, (size_t)pool->count * MIR_RECV_BUFFER_BYTES);
    free(pool->buffers);
    free(pool);
}

mir_buffer *mir_buffer_pool_at(mir_buffer_pool *pool, uint32_t index)
{
    MIR_ASSERT(index < pool->count);
    return &pool->buffers[index];
}

uint32_t mir_buffer_pool_count(const mir_buffer_pool *pool)
{
    return pool->count;
}

void mir_buffer_pool_adopt(mir_buffer_pool *pool)
{
    pool->owner = pthread_self();
}

unsigned mir_buffer_pool_reap(mir_buffer_pool *pool)
{
    unsigned count = 0;
    mir_mpsc_node *node = mir_mpsc_take(&pool->returned);
    while (node != NULL) {
        mir_mpsc_node *next = node->next;
        pool->give_back(pool->context, (mir_buffer *)(void *)node);
        node = next;
        count++;
    }
    return count;
}

bool mir_buffer_pool_hungry(mir_buffer_pool *pool)
{
    /* Announce first, then look: a release pushes first, then looks. One of the two sees the
     * other, all four being sequentially consistent. */
    atomic_store_explicit(&pool->hungry, true, memory_order_seq_cst);
    return mir_mpsc_is_empty(&pool->returned);
}

void mir_buffer_pool_sated(mir_buffer_pool *pool)
{
    atomic_store_explicit(&pool->hungry, false, memory_order_relaxed);
}

mir_buffer *mir_buffer_heap(size_t capacity)
{
    mir_buffer *buffer = malloc(sizeof *buffer + capacity);
    return buffer == NULL ? NULL : mir_buffer_adopt(buffer, sizeof *buffer + capacity);
}

mir_buffer *mir_buffer_adopt(void *memory, size_t size)
{
    mir_buffer *buffer = memory;
    *buffer = (mir_buffer){
        .references = 1, .data = (uint8_t *)(buffer + 1), .capacity = size - sizeof *buffer};
    return buffer;
}

void mir_buffer_release(mir_buffer *buffer)
{
    mir_buffer_pool *pool = buffer->pool;
    /* Release orders our reads before the owner's reuse; the acquire of the last one sees them all. */
    uint32_t before = atomic_fetch_sub_explicit(&buffer->references, 1, memory_order_acq_rel);
    MIR_ASSERT(before >= 1);
    if (before > 1) return;
    if (pool == NULL) {
        free(buffer);
    } else if (pthread_equal(pthread_self(), pool->owner)) {
        pool->give_back(pool->context, buffer);
    } else if (mir_mpsc_push(&pool->returned, &buffer->node) &&
               atomic_load_explicit(&pool->hungry, memory_order_seq_cst)) {
        pool->wake(pool->context);
    }
}
