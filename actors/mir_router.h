/* SPDX-License-Identifier: Apache-2.0 */
/* mir_router: which subscriptions a subject reaches.
 *
 * Why        Publishers on every shard match against subscriptions of every shard.
 * Ownership  The router copies patterns and queue names. A reference is the caller's number: shard,
 *            slot and generation of a subscription; the router never follows it. A match result
 *            belongs to the caller.
 * Affinity   match, stamp: any shard, inside its epoch, without locks. subscribe, unsubscribe: any
 *            shard, one at a time behind a mutex that readers never take.
 * Bounds     A match visits the nodes that exist for the subject's tokens. Subjects with more than
 *            MIR_SUBJECT_TOKENS_MAX tokens match nothing and such patterns are refused. A pattern
 *            has MIR_ROUTER_GROUPS_MAX queues: a match compares each with each.
 * Errors     subscribe: MIR_E_INVALID (pattern), MIR_E_NO_MEMORY, MIR_E_FULL (queues). unsubscribe: MIR_E_NOT_FOUND.
 * Source     A trie by token, one `*` and one `>` child a level. Nodes and arrays are replaced copy
 *            on write and retired through mir_epoch; an array with room is appended to in place,
 *            its count published with release.
 *
 * Caching    A cached result stays right while its stamp does: 256 counters chosen by the hash of
 *            the first token, and one for patterns that begin with a wildcard. */
#ifndef MIR_ROUTER_H
#define MIR_ROUTER_H

#include "mir_epoch.h"
#include "mir_view.h"

enum { MIR_ROUTER_GROUPS_MAX = 1024 };

typedef struct mir_router mir_router;

/* shard << 56 | generation << 28 | slot; 0 is nobody (generations begin at 1). */
typedef uint64_t mir_ref;
#define MIR_REF_FIELD_MAX ((UINT32_C(1) << 28) - 1)

static inline mir_ref mir_ref_make(unsigned shard, uint32_t generation, uint32_t slot)
{
    return (uint64_t)shard << 56 | (uint64_t)(generation & MIR_REF_FIELD_MAX) << 28 |
           (slot & MIR_REF_FIELD_MAX);
}
static inline unsigned mir_ref_shard(mir_ref ref)
{
    return (unsigned)(ref >> 56);
}
static inline uint32_t mir_ref_generation(mir_ref ref)
{
    return (uint32_t)(ref >> 28) & MIR_REF_FIELD_MAX;
}
static inline uint32_t mir_ref_slot(mir_ref ref)
{
    return (uint32_t)ref & MIR_REF_FIELD_MAX;
}

typedef struct mir_match_group {
    uint32_t first; /* in members */
    uint32_t count;
    uint32_t name_at; /* in names */
    uint32_t name_size;
} mir_match_group;

/* Reusable: a zeroed one is ready; mir_match_reset empties it, mir_match_free releases. */
typedef struct mir_match {
    mir_ref *plain;
    uint32_t plain_count, plain_capacity;
    mir_match_group *groups;
    uint32_t group_count, group_capacity;
    mir_ref *members;
    uint32_t member_count, member_capacity;
    uint8_t *names;
    uint32_t name_bytes, name_capacity;
    bool failed; /* out of memory: the result is not complete */
} mir_match;

typedef struct mir_router_stamp {
    uint32_t bucket;
    uint32_t wild;
    uint32_t place; /* where `bucket` is counted */
} mir_router_stamp;

MIR_MUST_CHECK mir_status mir_router_create(mir_router **router);
void mir_router_destroy(mir_router *router);
MIR_MUST_CHECK mir_status mir_router_subscribe(mir_router *router, mir_epoch_record *epoch,
                                               mir_view pattern, mir_view queue, mir_ref ref);
MIR_MUST_CHECK mir_status mir_router_unsubscribe(mir_router *router, mir_epoch_record *epoch,
                                                 mir_view pattern, mir_view queue, mir_ref ref);
void mir_router_match(const mir_router *router, mir_view subject, mir_match *match);
/* The same without patterns that begin with a wildcard. */
void mir_router_match_named(const mir_router *router, mir_view subject, mir_match *match);
mir_router_stamp mir_router_stamp_of(const mir_router *router, mir_view subject);
/* Whether a stamp of this router is what mir_router_stamp_of would give for its subject now. */
bool mir_router_stamp_holds(const mir_router *router, const mir_router_stamp *stamp);
uint64_t mir_router_count(const mir_router *router);

void mir_match_reset(mir_match *match);
void mir_match_free(mir_match *match);

#endif
