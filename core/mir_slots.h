/* SPDX-License-Identifier: Apache-2.0 */
/* mir_slots: fixed-size objects of one thread, found by slot number and generation.
 *
 * Why        Another shard names a session or a subscription by number; the number of one that is
 *            gone finds nothing instead of somebody else.
 * Ownership  Objects live in pages that the table owns until mir_slots_free; take hands one out
 *            zeroed behind its header, give takes it back.
 * Affinity   One thread.
 * Bounds     slot_max objects. A generation counts from 1 and wraps after 2^28 - 1 reuses of a slot.
 * Errors     take: null when full or out of memory. */
#ifndef MIR_SLOTS_H
#define MIR_SLOTS_H

#include <stddef.h>
#include <stdint.h>

/* Objects begin with this. */
typedef struct mir_slot {
    uint32_t index;
    uint32_t generation; /* 0 while free */
} mir_slot;

typedef struct mir_slots {
    size_t object_bytes;
    uint32_t slot_max;
    uint32_t used;
    uint32_t page_count;
    uint32_t *free_list;
    uint32_t free_count;
    uint32_t free_capacity;
    uint32_t *generations; /* of each slot, kept while it is free */
    uint8_t **pages;
} mir_slots;

enum { MIR_SLOTS_PER_PAGE = 64 };

void mir_slots_init(mir_slots *slots, size_t object_bytes, uint32_t slot_max);
void mir_slots_free(mir_slots *slots);
void *mir_slots_take(mir_slots *slots);
void mir_slots_give(mir_slots *slots, void *object);

static inline void *mir_slots_at(const mir_slots *slots, uint32_t index)
{
    if (index >= slots->page_count * MIR_SLOTS_PER_PAGE) return NULL;
    return slots->pages[index / MIR_SLOTS_PER_PAGE] +
           (size_t)(index % MIR_SLOTS_PER_PAGE) * slots->object_bytes;
}

/* Null when that generation is gone. */
static inline void *mir_slots_get(const mir_slots *slots, uint32_t index, uint32_t generation)
{
    mir_slot *slot = mir_slots_at(slots, index);
    return slot != NULL && generation != 0 && slot->generation == generation ? slot : NULL;
}

#endif
