/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_ring.h"

#include <ck_ring.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "mir_assert.h"
#include "mir_tsan.h"

struct mir_ring {
    struct ck_ring ring;
    ck_ring_buffer_t *slots;
    uint32_t slot_count;
    /* Moved by the producer alone. */
    uint64_t pushed __attribute__((aligned(64)));
    /* Moved by the consumer alone. */
    uint64_t popped __attribute__((aligned(64)));
    /* Written by the consumer (release), read by the producer (acquire). */
    _Atomic uint64_t consumed __attribute__((aligned(64)));
};

mir_status mir_ring_create(uint32_t slot_count, mir_ring **ring)
{
    MIR_ASSERT(slot_count >= 4 && (slot_count & (slot_count - 1)) == 0);
    mir_ring *fresh = aligned_alloc(64, (sizeof *fresh + 63) & ~(size_t)63);
    if (fresh == NULL) return MIR_E_NO_MEMORY;
    *fresh = (mir_ring){.slot_count = slot_count};
    fresh->slots = calloc(slot_count, sizeof *fresh->slots);
    if (fresh->slots == NULL) {
        free(fresh);
        return MIR_E_NO_MEMORY;
    }
    ck_ring_init(&fresh->ring, slot_count);
    *ring = fresh;
    return MIR_OK;
}

void mir_ring_destroy(mir_ring *ring)
{
    if (ring == NULL) return;
    free(ring->slots);
    free(ring);
}

mir_status mir_ring_push(mir_ring *ring, void *message)
{
    MIR_ASSERT(message != NULL);
    MIR_TSAN_RELEASE(ring);
    if (!ck_ring_enqueue_spsc(&ring->ring, ring->slots, message)) return MIR_E_FULL;
    ring->pushed++;
    return MIR_OK;
}

mir_status mir_ring_pop(mir_ring *ring, void **message)
{
    if (!ck_ring_dequeue_spsc(&ring->ring, ring->slots, message)) return MIR_E_EMPTY;
    MIR_TSAN_ACQUIRE(ring);
    MIR_ASSERT(*message != NULL);
    ring->popped++;
    return MIR_OK;
}

uint32_t mir_ring_room(const mir_ring *ring)
{
    return ring->slot_count - 1 - (uint32_t)ck_ring_size(&ring->ring);
}

uint64_t mir_ring_pushed(const mir_ring *ring)
{
    return ring->pushed;
}

uint64_t mir_ring_popped(const mir_ring *ring)
{
    return ring->popped;
}

void mir_ring_consumed_set(mir_ring *ring, uint64_t count)
{
    MIR_TSAN_RELEASE(&ring->consumed);
    /* Release pairs with the acquire in mir_ring_consumed. */
    atomic_store_explicit(&ring->consumed, count, memory_order_release);
}

uint64_t mir_ring_consumed(const mir_ring *ring)
{
    uint64_t count = atomic_load_explicit(&ring->consumed, memory_order_acquire);
    MIR_TSAN_ACQUIRE(&ring->consumed);
    return count;
}
