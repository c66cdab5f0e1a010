/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_arena.h"

#include <stdlib.h>

struct mir_arena_block {
    mir_arena_block *next;
    size_t used;
    size_t capacity;
    size_t reserved; /* keeps data 16-byte aligned */
    uint8_t data[];
};

enum { BLOCK_BYTES = 8192 };

void *mir_arena_alloc(mir_arena *arena, size_t size)
{
    if (size > SIZE_MAX / 4) return NULL;
    size = (size + 15) & ~(size_t)15;
    if (arena->bytes_max != 0 && size > arena->bytes_max - arena->bytes_used) return NULL;
    mir_arena_block *block = arena->blocks;
    if (block == NULL || size > block->capacity - block->used) {
        size_t capacity = size > BLOCK_BYTES / 2 ? size : BLOCK_BYTES;
        mir_arena_block *fresh = malloc(sizeof *fresh + capacity);
        if (fresh == NULL) return NULL;
        fresh->used = 0;
        fresh->capacity = capacity;
        if (block != NULL && capacity == size) {
            /* A large piece of its own goes behind the open block, which keeps its room. */
            fresh->next = block->next;
            block->next = fresh;
        } else {
            fresh->next = block;
            arena->blocks = fresh;
        }
        block = fresh;
    }
    void *memory = block->data + block->used;
    block->used += size;
    arena->bytes_used += size;
    memset(memory, 0, size);
    return memory;
}

char *mir_arena_strdup(mir_arena *arena, mir_view view)
{
    char *copy = mir_arena_alloc(arena, view.size + 1);
    if (copy != NULL && view.size != 0) memcpy(copy, view.data, view.size);
    return copy;
}

void mir_arena_free(mir_arena *arena)
{
    mir_arena_block *block = arena->blocks;
    while (block != NULL) {
        mir_arena_block *next = block->next;
        free(block);
        block = next;
    }
    *arena = (mir_arena){.bytes_max = arena->bytes_max};
}

void mir_arena_reset(mir_arena *arena)
{
    mir_arena_block *kept = arena->blocks;
    if (kept == NULL || kept->next != NULL || kept->capacity != BLOCK_BYTES) {
        mir_arena_free(arena);
        return;
    }
    kept->used = 0;
    arena->bytes_used = 0;
}
