/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_router.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "mir_assert.h"
#include "mir_hash.h"
#include "mir_limits.h"
#include "mir_nats.h"

enum {
    BUCKETS = 256,
    TABLE_SLOTS_MIN = 4,
    MEMBERS_MIN = 2,
    MEMBERS_INDEXED_MIN = 64,
};

/* Subscriptions of one node: appended in place while there is room, zeroed when removed. Many of
 * them have an index behind the references, from a reference to its place plus one, probed in order.
 * A place is used once, so one that is zeroed needs no mark in the index. */
typedef struct members {
    mir_epoch_entry retired;
    uint32_t capacity;
    uint32_t live;       /* writers only */
    uint32_t index_mask; /* writers only; 0: few enough to look at each */
    _Atomic uint32_t count;
    _Atomic uint64_t refs[];
} members;

typedef struct group {
    mir_epoch_entry retired;
    _Atomic(struct group *) next;
    _Atomic(members *) members;
    uint32_t name_size;
    uint8_t name[];
} group;

typedef struct node node;

typedef struct table {
    mir_epoch_entry retired;
    uint32_t slot_count; /* a power of two */
    uint32_t used;       /* slots that are not null, removed ones included; writers only */
    _Atomic(node *) slots[];
} table;

struct node {
    mir_epoch_entry retired;
    node *parent;         /* writers only */
    uint32_t child_count; /* literal children; writers only */
    uint32_t group_count; /* writers only */
    uint32_t hash;
    uint32_t token_size;
    _Atomic(table *) children;
    _Atomic(node *) star;
    _Atomic(node *) rest;
    _Atomic(members *) plain;
    _Atomic(group *) groups;
    uint8_t token[];
};

struct mir_router {
    pthread_mutex_t writers;
    node *root;
    _Atomic uint64_t count;
    _Atomic uint32_t wild;
    _Atomic uint32_t buckets[BUCKETS];
};

/* Marks a table slot whose node was removed: a search goes on past it. */
static node removed_node;

static void free_retired(mir_epoch_entry *entry)
{
    free(entry);
}

static uint32_t token_hash(mir_view token)
{
    return (uint32_t)mir_hash_view(token);
}

static node *node_new(node *parent, mir_view token, uint32_t hash)
{
    node *fresh = calloc(1, sizeof *fresh + token.size);
    if (fresh == NULL) return NULL;
    fresh->parent = parent;
    fresh->hash = hash;
    fresh->token_size = (uint32_t)token.size;
    if (token.size != 0) memcpy(fresh->token, token.data, token.size);
    return fresh;
}

mir_status mir_router_create(mir_router **router)
{
    mir_router *fresh = calloc(1, sizeof *fresh);
    if (fresh == NULL) return MIR_E_NO_MEMORY;
    fresh->root = node_new(NULL, (mir_view){NULL, 0}, 0);
    if (fresh->root == NULL) {
        free(fresh);
        return MIR_E_NO_MEMORY;
    }
    (void)pthread_mutex_init(&fresh->writers, NULL);
    *router = fresh;
    return MIR_OK;
}

static void node_free(node *n)
{
    if (n == NULL) return;
    table *t = atomic_load_explicit(&n->children, memory_order_relaxed);
    for (uint32_t i = 0; t != NULL && i < t->slot_count; i++) {
        node *child = atomic_load_explicit(&t->slots[i], memory_order_relaxed);
        if (child != &removed_node) node_free(child);
    }
    free(t);
    node_free(atomic_load_explicit(&n->star, memory_order_relaxed));
    node_free(atomic_load_explicit(&n->rest, memory_order_relaxed));
    free(atomic_load_explicit(&n->plain, memory_order_relaxed));
    group *g = atomic_load_explicit(&n->groups, memory_order_relaxed);
    while (g != NULL) {
        group *next = atomic_load_explicit(&g->next, memory_order_relaxed);
        free(atomic_load_explicit(&g->members, memory_order_relaxed));
        free(g);
        g = next;
    }
    free(n);
}

void mir_router_destroy(mir_router *router)
{
    if (router == NULL) return;
    node_free(router->root);
    (void)pthread_mutex_destroy(&router->writers);
    free(router);
}

static node *child_find(const node *parent, mir_view token, uint32_t hash)
{
    /* Acquire pairs with the release that published the table and each child in it. */
    const table *t = atomic_load_explicit(&parent->children, memory_order_acquire);
    if (t == NULL) return NULL;
    uint32_t mask = t->slot_count - 1;
    for (uint32_t i = hash & mask;; i = (i + 1) & mask) {
        node *child = atomic_load_explicit(&t->slots[i], memory_order_acquire);
        if (child == NULL) return NULL;
        if (child != &removed_node && child->hash == hash && child->token_size == token.size &&
            memcmp(child->token, token.data, token.size) == 0)
            return child;
    }
}

static void table_put(table *t, node *child)
{
    uint32_t mask = t->slot_count - 1;
    uint32_t i = child->hash & mask;
    while (atomic_load_explicit(&t->slots[i], memory_order_relaxed) != NULL) i = (i + 1) & mask;
    t->used++;
    atomic_store_explicit(&t->slots[i], child, memory_order_release);
}

static node *child_add(node *parent, mir_epoch_record *epoch, mir_view token, uint32_t hash)
{
    node *child = node_new(parent, token, hash);
    if (child == NULL) return NULL;
    table *t = atomic_load_explicit(&parent->children, memory_order_relaxed);
    if (t == NULL || (t->used + 1) * 4 > t->slot_count * 3) {
        uint32_t want = TABLE_SLOTS_MIN;
        while ((parent->child_count + 1) * 2 > want) want *= 2;
        table *grown = calloc(1, sizeof *grown + want * sizeof grown->slots[0]);
        if (grown == NULL) {
            free(child);
            return NULL;
        }
        grown->slot_count = want;
        for (uint32_t i = 0; t != NULL && i < t->slot_count; i++) {
            node *old = atomic_load_explicit(&t->slots[i], memory_order_relaxed);
            if (old != NULL && old != &removed_node) table_put(grown, old);
        }
        atomic_store_explicit(&parent->children, grown, memory_order_release);
        if (t != NULL) mir_epoch_retire(epoch, &t->retired, free_retired);
        t = grown;
    }
    table_put(t, child);
    parent->child_count++;
    return child;
}

static uint32_t *members_index(members *m)
{
    return (uint32_t *)(void *)&m->refs[m->capacity];
}

static void members_put(members *m, uint32_t at, mir_ref ref)
{
    atomic_store_explicit(&m->refs[at], ref, memory_order_relaxed);
    m->live++;
    if (m->index_mask == 0) return;
    uint32_t *index = members_index(m);
    uint32_t i = (uint32_t)mir_hash_bytes(&ref, sizeof ref) & m->index_mask;
    while (index[i] != 0) i = (i + 1) & m->index_mask;
    index[i] = at + 1;
}

/* A copy of those that are left, with room for as many again; null without memory. */
static members *members_copy(const members *m)
{
    uint32_t live = m == NULL ? 0 : m->live;
    uint32_t capacity = live < MEMBERS_MIN / 2 + 1 ? MEMBERS_MIN : live * 2;
    size_t index_size = 0;
    if (capacity >= MEMBERS_INDEXED_MIN)
        for (index_size = MEMBERS_INDEXED_MIN; index_size < (size_t)capacity * 2;) index_size *= 2;
    members *copy =
        calloc(1, sizeof *copy + capacity * sizeof copy->refs[0] + index_size * sizeof(uint32_t));
    if (copy == NULL) return NULL;
    copy->capacity = capacity;
    copy->index_mask = index_size == 0 ? 0 : (uint32_t)index_size - 1;
    uint32_t count = m == NULL ? 0 : atomic_load_explicit(&m->count, memory_order_relaxed);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t old = atomic_load_explicit(&m->refs[i], memory_order_relaxed);
        if (old != 0) members_put(copy, copy->live, old);
    }
    atomic_store_explicit(&copy->count, copy->live, memory_order_relaxed);
    return copy;
}

static bool members_add(_Atomic(members *) *place, mir_epoch_record *epoch, mir_ref ref)
{
    members *m = atomic_load_explicit(place, memory_order_relaxed);
    uint32_t count = m == NULL ? 0 : atomic_load_explicit(&m->count, memory_order_relaxed);
    if (m == NULL || count == m->capacity) {
        members *grown = members_copy(m);
        if (grown == NULL) return false;
        members_put(grown, grown->live, ref);
        atomic_store_explicit(&grown->count, grown->live, memory_order_relaxed);
        atomic_store_explicit(place, grown, memory_order_release);
        if (m != NULL) mir_epoch_retire(epoch, &m->retired, free_retired);
        return true;
    }
    members_put(m, count, ref);
    /* Release: a reader that sees the count sees the reference. */
    atomic_store_explicit(&m->count, count + 1, memory_order_release);
    return true;
}

/* Where it is; the count when it is not there. */
static uint32_t members_find(members *m, mir_ref ref, uint32_t count)
{
    if (m->index_mask == 0) {
        for (uint32_t i = 0; i < count; i++)
            if (atomic_load_explicit(&m->refs[i], memory_order_relaxed) == ref) return i;
        return count;
    }
    const uint32_t *index = members_index(m);
    uint32_t i = (uint32_t)mir_hash_bytes(&ref, sizeof ref) & m->index_mask;
    for (; index[i] != 0; i = (i + 1) & m->index_mask)
        if (atomic_load_explicit(&m->refs[index[i] - 1], memory_order_relaxed) == ref)
            return index[i] - 1;
    return count;
}

/* False when it is not there. *empty tells whether none is left; then the array is the caller's. */
static bool members_remove(_Atomic(members *) *place, mir_epoch_record *epoch, mir_ref ref,
                           bool *empty)
{
    members *m = atomic_load_explicit(place, memory_order_relaxed);
    if (m == NULL) return false;
    uint32_t count = atomic_load_explicit(&m->count, memory_order_relaxed);
    uint32_t at = members_find(m, ref, count);
    if (at == count) return false;
    atomic_store_explicit(&m->refs[at], 0, memory_order_relaxed);
    m->live--;
    *empty = m->live == 0;
    /* A match looks at the zeroed places too: they are three of four at most. */
    if (m->index_mask == 0 || *empty || m->live >= count / 4) return true;
    members *rest = members_copy(m);
    if (rest == NULL) return true;
    atomic_store_explicit(place, rest, memory_order_release);
    mir_epoch_retire(epoch, &m->retired, free_retired);
    return true;
}

static void stamp_bump(mir_router *router, mir_view pattern)
{
    mir_view first = mir_nats_token(pattern, 0);
    bool wild = first.size == 1 && (first.data[0] == '*' || first.data[0] == '>');
    _Atomic uint32_t *counter =
        wild ? &router->wild : &router->buckets[token_hash(first) % BUCKETS];
    /* Release: who sees the new stamp sees the changed trie. */
    atomic_fetch_add_explicit(counter, 1, memory_order_release);
}

mir_router_stamp mir_router_stamp_of(const mir_router *router, mir_view subject)
{
    const uint32_t place = token_hash(mir_nats_token(subject, 0)) % BUCKETS;
    return (mir_router_stamp){
        .bucket = atomic_load_explicit(&router->buckets[place], memory_order_acquire),
        .wild = atomic_load_explicit(&router->wild, memory_order_acquire),
        .place = place};
}

bool mir_router_stamp_holds(const mir_router *router, const mir_router_stamp *stamp)
{
    MIR_ASSERT(stamp->place < BUCKETS);
    return atomic_load_explicit(&router->buckets[stamp->place], memory_order_acquire) ==
               stamp->bucket &&
           atomic_load_explicit(&router->wild, memory_order_acquire) == stamp->wild;
}

static bool is_token(mir_view token, char c)
{
    return token.size == 1 && token.data[0] == (uint8_t)c;
}

static mir_view pattern_token(mir_view pattern, size_t *at)
{
    const uint8_t *start = pattern.data + *at;
    size_t left = pattern.size - *at;
    const uint8_t *dot = memchr(start, '.', left);
    size_t size = dot == NULL ? left : (size_t)(dot - start);
    *at += size + 1;
    return (mir_view){start, size};
}

static group *group_find(const node *n, mir_view queue)
{
    group *g = atomic_load_explicit(&n->groups, memory_order_acquire);
    while (g != NULL &&
           !(g->name_size == queue.size && memcmp(g->name, queue.data, queue.size) == 0))
        g = atomic_load_explicit(&g->next, memory_order_acquire);
    return g;
}

static bool node_is_bare(const node *n)
{
    return n->child_count == 0 && atomic_load_explicit(&n->star, memory_order_relaxed) == NULL &&
           atomic_load_explicit(&n->rest, memory_order_relaxed) == NULL &&
           atomic_load_explicit(&n->plain, memory_order_relaxed) == NULL &&
           atomic_load_explicit(&n->groups, memory_order_relaxed) == NULL;
}

/* Takes nodes that carry nothing out of their parents, upwards. */
static void prune(node *n, mir_epoch_record *epoch)
{
    while (n->parent != NULL && node_is_bare(n)) {
        node *parent = n->parent;
        if (atomic_load_explicit(&parent->star, memory_order_relaxed) == n) {
            atomic_store_explicit(&parent->star, NULL, memory_order_release);
        } else if (atomic_load_explicit(&parent->rest, memory_order_relaxed) == n) {
            atomic_store_explicit(&parent->rest, NULL, memory_order_release);
        } else {
            table *t = atomic_load_explicit(&parent->children, memory_order_relaxed);
            uint32_t mask = t->slot_count - 1;
            uint32_t i = n->hash & mask;
            while (atomic_load_explicit(&t->slots[i], memory_order_relaxed) != n)
                i = (i + 1) & mask;
            atomic_store_explicit(&t->slots[i], &removed_node, memory_order_release);
            parent->child_count--;
            if (parent->child_count == 0) {
                atomic_store_explicit(&parent->children, NULL, memory_order_release);
                mir_epoch_retire(epoch, &t->retired, free_retired);
            }
        }
        table *own = atomic_load_explicit(&n->children, memory_order_relaxed);
        MIR_ASSERT(own == NULL);
        mir_epoch_retire(epoch, &n->retired, free_retired);
        n = parent;
    }
}

mir_status mir_router_subscribe(mir_router *router, mir_epoch_record *epoch, mir_view pattern,
                                mir_view queue, mir_ref ref)
{
    MIR_ASSERT(ref != 0);
    if (!mir_nats_subject_valid(pattern) || mir_nats_token_count(pattern) > MIR_SUBJECT_TOKENS_MAX)
        return MIR_E_INVALID;
    mir_status status = MIR_E_NO_MEMORY;
    (void)pthread_mutex_lock(&router->writers);
    node *n = router->root;
    size_t at = 0;
    while (at <= pattern.size) {
        mir_view token = pattern_token(pattern, &at);
        node *next;
        if (is_token(token, '*') || is_token(token, '>')) {
            _Atomic(node *) *place = token.data[0] == '*' ? &n->star : &n->rest;
            next = atomic_load_explicit(place, memory_order_relaxed);
            if (next == NULL) {
                next = node_new(n, token, 0);
                if (next != NULL) atomic_store_explicit(place, next, memory_order_release);
            }
        } else {
            uint32_t hash = token_hash(token);
            next = child_find(n, token, hash);
            if (next == NULL) next = child_add(n, epoch, token, hash);
        }
        if (next == NULL) goto out;
        n = next;
    }
    if (queue.size == 0) {
        if (!members_add(&n->plain, epoch, ref)) goto out;
    } else {
        group *g = group_find(n, queue);
        if (g == NULL) {
            if (n->group_count == MIR_ROUTER_GROUPS_MAX) {
                status = MIR_E_FULL;
                goto out;
            }
            g = calloc(1, sizeof *g + queue.size);
            if (g == NULL) goto out;
            g->name_size = (uint32_t)queue.size;
            memcpy(g->name, queue.data, queue.size);
            if (!members_add(&g->members, epoch, ref)) {
                free(g);
                goto out;
            }
            group *first = atomic_load_explicit(&n->groups, memory_order_relaxed);
            atomic_store_explicit(&g->next, first, memory_order_relaxed);
            atomic_store_explicit(&n->groups, g, memory_order_release);
            n->group_count++;
        } else if (!members_add(&g->members, epoch, ref)) {
            goto out;
        }
    }
    atomic_fetch_add_explicit(&router->count, 1, memory_order_relaxed);
    stamp_bump(router, pattern);
    status = MIR_OK;
out:
    if (status != MIR_OK) prune(n, epoch);
    (void)pthread_mutex_unlock(&router->writers);
    return status;
}

static void group_unlink(node *n, group *g, mir_epoch_record *epoch)
{
    n->group_count--;
    _Atomic(group *) *place = &n->groups;
    while (atomic_load_explicit(place, memory_order_relaxed) != g)
        place = &atomic_load_explicit(place, memory_order_relaxed)->next;
    atomic_store_explicit(place, atomic_load_explicit(&g->next, memory_order_relaxed),
                          memory_order_release);
    members *m = atomic_load_explicit(&g->members, memory_order_relaxed);
    mir_epoch_retire(epoch, &m->retired, free_retired);
    mir_epoch_retire(epoch, &g->retired, free_retired);
}

mir_status mir_router_unsubscribe(mir_router *router, mir_epoch_record *epoch, mir_view pattern,
                                  mir_view queue, mir_ref ref)
{
    mir_status status = MIR_E_NOT_FOUND;
    if (!mir_nats_subject_valid(pattern)) return status;
    (void)pthread_mutex_lock(&router->writers);
    node *n = router->root;
    size_t at = 0;
    while (n != NULL && at <= pattern.size) {
        mir_view token = pattern_token(pattern, &at);
        if (is_token(token, '*'))
            n = atomic_load_explicit(&n->star, memory_order_relaxed);
        else if (is_token(token, '>'))
            n = atomic_load_explicit(&n->rest, memory_order_relaxed);
        else
            n = child_find(n, token, token_hash(token));
    }
    bool empty = false;
    if (n != NULL && queue.size == 0) {
        if (members_remove(&n->plain, epoch, ref, &empty)) {
            status = MIR_OK;
            if (empty) {
                members *m = atomic_load_explicit(&n->plain, memory_order_relaxed);
                atomic_store_explicit(&n->plain, NULL, memory_order_release);
                mir_epoch_retire(epoch, &m->retired, free_retired);
            }
        }
    } else if (n != NULL) {
        group *g = group_find(n, queue);
        if (g != NULL && members_remove(&g->members, epoch, ref, &empty)) {
            status = MIR_OK;
            if (empty) group_unlink(n, g, epoch);
        }
    }
    if (status == MIR_OK) {
        prune(n, epoch);
        atomic_fetch_sub_explicit(&router->count, 1, memory_order_relaxed);
        stamp_bump(router, pattern);
    }
    (void)pthread_mutex_unlock(&router->writers);
    return status;
}

uint64_t mir_router_count(const mir_router *router)
{
    return atomic_load_explicit(&router->count, memory_order_relaxed);
}

/* --- matching ------------------------------------------------------------------------------ */

static bool grow(void **array, uint32_t *capacity, uint32_t need, size_t element_bytes)
{
    if (need <= *capacity) return true;
    uint32_t want = *capacity == 0 ? 8 : *capacity;
    while (want < need) want *= 2;
    void *grown = realloc(*array, want * element_bytes);
    if (grown == NULL) return false;
    *array = grown;
    *capacity = want;
    return true;
}

void mir_match_reset(mir_match *match)
{
    match->plain_count = match->group_count = match->member_count = match->name_bytes = 0;
    match->failed = false;
}

void mir_match_free(mir_match *match)
{
    free(match->plain);
    free(match->groups);
    free(match->members);
    free(match->names);
    *match = (mir_match){0};
}

static void add_group(mir_match *match, const group *g)
{
    const members *m = atomic_load_explicit(&g->members, memory_order_acquire);
    uint32_t count = atomic_load_explicit(&m->count, memory_order_acquire);
    uint32_t into = match->group_count;
    for (uint32_t i = 0; i < match->group_count; i++) {
        const mir_match_group *known = &match->groups[i];
        if (known->name_size == g->name_size &&
            memcmp(match->names + known->name_at, g->name, g->name_size) == 0) {
            into = i;
            break;
        }
    }
    if (!grow((void **)&match->members, &match->member_capacity, match->member_count + count,
              sizeof *match->members)) {
        match->failed = true;
        return;
    }
    if (into == match->group_count) {
        if (!grow((void **)&match->groups, &match->group_capacity, match->group_count + 1,
                  sizeof *match->groups) ||
            !grow((void **)&match->names, &match->name_capacity, match->name_bytes + g->name_size,
                  1)) {
            match->failed = true;
            return;
        }
        match->groups[match->group_count++] = (mir_match_group){
            .first = match->member_count, .name_at = match->name_bytes, .name_size = g->name_size};
        memcpy(match->names + match->name_bytes, g->name, g->name_size);
        match->name_bytes += g->name_size;
    } else {
        /* One group over several patterns: move it to the end, where it can grow. */
        mir_match_group *known = &match->groups[into];
        if (known->first + known->count != match->member_count) {
            if (!grow((void **)&match->members, &match->member_capacity,
                      match->member_count + known->count + count, sizeof *match->members)) {
                match->failed = true;
                return;
            }
            memcpy(match->members + match->member_count, match->members + known->first,
                   known->count * sizeof *match->members);
            known->first = match->member_count;
            match->member_count += known->count;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        uint64_t ref = atomic_load_explicit(&m->refs[i], memory_order_relaxed);
        if (ref == 0) continue;
        match->members[match->member_count++] = ref;
        match->groups[into].count++;
    }
}

static void add_node(mir_match *match, const node *n)
{
    const members *m = atomic_load_explicit(&n->plain, memory_order_acquire);
    if (m != NULL) {
        uint32_t count = atomic_load_explicit(&m->count, memory_order_acquire);
        if (!grow((void **)&match->plain, &match->plain_capacity, match->plain_count + count,
                  sizeof *match->plain)) {
            match->failed = true;
            return;
        }
        for (uint32_t i = 0; i < count; i++) {
            uint64_t ref = atomic_load_explicit(&m->refs[i], memory_order_relaxed);
            if (ref != 0) match->plain[match->plain_count++] = ref;
        }
    }
    const group *g = atomic_load_explicit(&n->groups, memory_order_acquire);
    while (g != NULL) {
        add_group(match, g);
        g = atomic_load_explicit(&g->next, memory_order_acquire);
    }
}

typedef struct subject_token {
    mir_view text;
    uint32_t hash;
} subject_token;

static void match_level(const node *n, const subject_token *tokens, unsigned count,
                        mir_match *match)
{
    for (;;) {
        const node *rest = atomic_load_explicit(&n->rest, memory_order_acquire);
        if (rest != NULL) add_node(match, rest);
        const node *star = atomic_load_explicit(&n->star, memory_order_acquire);
        const node *child = child_find(n, tokens->text, tokens->hash);
        if (count == 1) {
            if (star != NULL) add_node(match, star);
            if (child != NULL) add_node(match, child);
            return;
        }
        if (star != NULL) match_level(star, tokens + 1, count - 1, match);
        if (child == NULL) return;
        n = child;
        tokens++;
        count--;
    }
}

/* 0: the subject matches nothing. */
static unsigned split(mir_view subject, subject_token tokens[MIR_SUBJECT_TOKENS_MAX])
{
    unsigned count = 0;
    size_t at = 0;
    if (subject.size == 0) return 0;
    while (at <= subject.size) {
        if (count == MIR_SUBJECT_TOKENS_MAX) return 0;
        mir_view token = pattern_token(subject, &at);
        if (token.size == 0) return 0;
        tokens[count++] = (subject_token){token, token_hash(token)};
    }
    return count;
}

void mir_router_match(const mir_router *router, mir_view subject, mir_match *match)
{
    subject_token tokens[MIR_SUBJECT_TOKENS_MAX];
    unsigned count = split(subject, tokens);
    if (count != 0) match_level(router->root, tokens, count, match);
}

void mir_router_match_named(const mir_router *router, mir_view subject, mir_match *match)
{
    subject_token tokens[MIR_SUBJECT_TOKENS_MAX];
    unsigned count = split(subject, tokens);
    if (count == 0) return;
    const node *child = child_find(router->root, tokens->text, tokens->hash);
    if (child == NULL) return;
    if (count == 1)
        add_node(match, child);
    else
        match_level(child, tokens + 1, count - 1, match);
}
