/* SPDX-License-Identifier: Apache-2.0 */
/* mir_map: an intrusive chained hash table that belongs to one thread.
 *
 * Why        Twins by id, subscriptions by sid, continuations by token: found on every message,
 *            embedded in their owners, so that finding one costs no allocation.
 * Ownership  The map owns its bucket array only. An owner removes its node before it dies.
 * Affinity   One thread.
 * Bounds     find, remove: the length of a chain, 1 on average. any: all calls for an emptied map
 *            together look once at each bucket and node. add doubles the array when the load
 *            passes 1; when memory for that is missing the chains grow longer instead.
 * Errors     None. */
#ifndef MIR_MAP_H
#define MIR_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct mir_map_node {
    struct mir_map_node *next;
    uint64_t hash;
} mir_map_node;

typedef struct mir_map {
    mir_map_node **buckets;
    uint32_t bucket_count; /* a power of two, or 0 before the first add */
    uint32_t count;
    mir_map_node *single; /* the only bucket before an array exists */
} mir_map;

void mir_map_add(mir_map *map, mir_map_node *node, uint64_t hash);
void mir_map_remove(mir_map *map, mir_map_node *node);
void mir_map_free(mir_map *map);
/* Some node, null when there is none, for `while ((n = mir_map_any(map, &from)) != NULL)` with a body
 * that removes it; others may go meanwhile too, and come. `*from` is 0 first and spares looking
 * again where nothing was left. */
mir_map_node *mir_map_any(const mir_map *map, uint32_t *from);

/* The first node with this hash, for `for (n = first; n; n = mir_map_next(n))`. */
static inline mir_map_node *mir_map_first(const mir_map *map, uint64_t hash)
{
    mir_map_node *node = map->bucket_count == 0
                             ? map->single
                             : map->buckets[(uint32_t)(hash >> 7) & (map->bucket_count - 1)];
    while (node != NULL && node->hash != hash) node = node->next;
    return node;
}

static inline mir_map_node *mir_map_next(const mir_map_node *node)
{
    uint64_t hash = node->hash;
    node = node->next;
    while (node != NULL && node->hash != hash) node = node->next;
    return (mir_map_node *)node;
}

#define MIR_CONTAINER(pointer, type, member)                                                       \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#endif
