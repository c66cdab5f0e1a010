/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_slots.h"

#include <stdlib.h>
#include <string.h>

#include "mir_assert.h"

enum { GENERATION_MAX = (1 << 28) - 1 };

void mir_slots_init(mir_slots *slots, size_t object_bytes, uint32_t slot_max)
{
    MIR_ASSERT(object_bytes >= sizeof(mir_slot));
    *slots = (mir_slots){.object_bytes = (object_bytes + 15) & ~(size_t)15, .slot_max = slot_max};
}

void mir_slots_free(mir_slots *slots)
{
    for (uint32_t i = 0; i < slots->page_count; i++) free(slots->pages[i]);
    free(slots->pages);
    free(slots->free_list);
    free(slots->generations);
    *slots = (mir_slots){.object_bytes = slots->object_bytes, .slot_max = slots->slot_max};
}

static int add_page(mir_slots *slots)
{
    uint32_t base = slots->page_count * MIR_SLOTS_PER_PAGE;
    if (base >= slots->slot_max) return 0;
    uint32_t total = base + MIR_SLOTS_PER_PAGE;
    if (total > slots->free_capacity) {
        uint32_t want = slots->free_capacity == 0 ? 256 : slots->free_capacity * 2;
        uint32_t *list = realloc(slots->free_list, want * sizeof *list);
        if (list == NULL) return 0;
        slots->free_list = list;
        uint32_t *generations = realloc(slots->generations, want * sizeof *generations);
        if (generations == NULL) return 0;
        memset(generations + slots->free_capacity, 0,
               (want - slots->free_capacity) * sizeof *generations);
        slots->generations = generations;
        uint8_t **pages = realloc(slots->pages, want / MIR_SLOTS_PER_PAGE * sizeof *pages);
        if (pages == NULL) return 0;
        slots->pages = pages;
        slots->free_capacity = want;
    }
    uint8_t *page = calloc(MIR_SLOTS_PER_PAGE, slots->object_bytes);
    if (page == NULL) return 0;
    slots->pages[slots->page_count++] = page;
    for (uint32_t i = MIR_SLOTS_PER_PAGE; i-- > 0;)
        slots->free_list[slots->free_count++] = base + i;
    return 1;
}

void *mir_slots_take(mir_slots *slots)
{
    if (slots->used >= slots->slot_max) return NULL;
    if (slots->free_count == 0 && !add_page(slots)) return NULL;
    uint32_t index = slots->free_list[--slots->free_count];
    mir_slot *slot = mir_slots_at(slots, index);
    memset(slot, 0, slots->object_bytes);
    uint32_t generation = slots->generations[index] + 1;
    if (generation > GENERATION_MAX) generation = 1;
    slots->generations[index] = generation;
    *slot = (mir_slot){.index = index, .generation = generation};
    slots->used++;
    return slot;
}

void mir_slots_give(mir_slots *slots, void *object)
{
    mir_slot *slot = object;
    MIR_ASSERT(slot->generation != 0);
    slot->generation = 0;
    slots->free_list[slots->free_count++] = slot->index;
    slots->used--;
}
