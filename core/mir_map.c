/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_map.h"

#include <stdlib.h>

#include "mir_assert.h"

static mir_map_node **bucket_of(mir_map *map, uint64_t hash)
{
    if (map->bucket_count == 0) return &map->single;
    return &map->buckets[(uint32_t)(hash >> 7) & (map->bucket_count - 1)];
}

static void grow(mir_map *map)
{
    uint32_t want = map->bucket_count == 0 ? 16 : map->bucket_count * 2;
    mir_map_node **fresh = calloc(want, sizeof *fresh);
    if (fresh == NULL) return;
    mir_map old = *map;
    map->buckets = fresh;
    map->bucket_count = want;
    map->single = NULL;
    uint32_t old_count = old.bucket_count == 0 ? 1 : old.bucket_count;
    for (uint32_t i = 0; i < old_count; i++) {
        mir_map_node *node = old.bucket_count == 0 ? old.single : old.buckets[i];
        while (node != NULL) {
            mir_map_node *next = node->next;
            mir_map_node **bucket = bucket_of(map, node->hash);
            node->next = *bucket;
            *bucket = node;
            node = next;
        }
    }
    free(old.buckets);
}

void mir_map_add(mir_map *map, mir_map_node *node, uint64_t hash)
{
    if (map->count >= map->bucket_count && (map->bucket_count != 0 || map->count >= 4)) grow(map);
    node->hash = hash;
    mir_map_node **bucket = bucket_of(map, hash);
    node->next = *bucket;
    *bucket = node;
    map->count++;
}

void mir_map_remove(mir_map *map, mir_map_node *node)
{
    mir_map_node **place = bucket_of(map, node->hash);
    while (*place != node) {
        MIR_ASSERT(*place != NULL);
        place = &(*place)->next;
    }
    *place = node->next;
    node->next = NULL;
    map->count--;
}

mir_map_node *mir_map_any(const mir_map *map, uint32_t *from)
{
    if (map->count == 0) return NULL;
    if (map->bucket_count == 0) return map->single;
    /* What is not behind came while the map was emptied. */
    for (;; *from = *from + 1 < map->bucket_count ? *from + 1 : 0) {
        if (*from >= map->bucket_count) *from = 0;
        if (map->buckets[*from] != NULL) return map->buckets[*from];
    }
}

void mir_map_free(mir_map *map)
{
    free(map->buckets);
    *map = (mir_map){0};
}
