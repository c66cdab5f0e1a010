/* SPDX-License-Identifier: Apache-2.0 */
/* mir_arena: memory that lives as long as one request.
 *
 * Why        A request parses, computes and answers, then everything goes at once.
 * Ownership  The caller owns the arena; what it hands out dies with mir_arena_free.
 * Affinity   One thread at a time.
 * Bounds     `bytes_max` (0: none) bounds the sum; past it, or without memory, it returns null.
 * Errors     Null is the only one. Memory is zeroed and aligned to 16 bytes. */
#ifndef MIR_ARENA_H
#define MIR_ARENA_H

#include "mir_view.h"

typedef struct mir_arena_block mir_arena_block;

typedef struct mir_arena {
    mir_arena_block *blocks;
    size_t bytes_used;
    size_t bytes_max;
} mir_arena;

void *mir_arena_alloc(mir_arena *arena, size_t size);
/* A copy of the view with a terminating zero byte. */
char *mir_arena_strdup(mir_arena *arena, mir_view view);
void mir_arena_free(mir_arena *arena);
/* The same for what it handed out, and keeps a block for what comes next. */
void mir_arena_reset(mir_arena *arena);

#endif
