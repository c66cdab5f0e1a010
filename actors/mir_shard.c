/* SPDX-License-Identifier: Apache-2.0 */
/* Parcels: what one shard has for another from one receive buffer travels as one ring entry, with
 * one reference to the buffer. An item is a fixed head and the references it is for:
 *
 *   parcel  | node | source | buffer | used | item | item | ...
 *   item    | bytes, kind, hops, counts | views into the buffer | publisher | refs... | queue name |
 *
 * The receiver hands an emptied parcel back through the source's lock-free return list. */
#include "mir_shard.h"

#include <stdlib.h>

#include "mir_assert.h"
#include "mir_clock.h"
#include "mir_hash.h"
#include "mir_limits.h"
#include "mir_nats.h"
#include "mir_session.h"

enum {
    PARCEL_BYTES = 8192,
    ITEM_REFS_MAX = 512, /* more receivers on one shard: another item */
    ROUTES = 8192,       /* a power of two */
    ROUTE_SUBJECT_BYTES = 88,
    CHUNK_SMALL_BYTES = 2048 - sizeof(mir_chunk),
    CHUNK_LARGE_BYTES = 65536 - sizeof(mir_chunk),
    CHUNKS_SMALL_KEPT = 1024,
    CHUNKS_LARGE_KEPT = 128,
    SWEEP_MS = 100,
    LINGER_US = 200,
    COMMIT_DELAY_US = 1000,
};

typedef enum item_kind {
    ITEM_PLAIN = 1, /* for every reference */
    ITEM_QUEUE,     /* for one reference; another member of the queue if it is gone */
    ITEM_ENDPOINT,  /* for the endpoint */
    ITEM_NOBODY,    /* to the publisher's shard: 503 if it asked for that */
    ITEM_CONGESTED, /* to the publisher's shard: park it */
    ITEM_RETURNED,  /* to the publisher's shard: for a member of the queue elsewhere */
} item_kind;

typedef struct item {
    uint32_t bytes;
    uint8_t kind;
    uint8_t endpoint;
    uint8_t function;
    uint16_t ref_count;
    uint16_t queue_size;
    uint32_t subject_size, reply_size, header_size, payload_size, key_at, key_size;
    const uint8_t *subject, *reply, *header, *payload;
    mir_ref publisher;
    uint64_t key_hash;
    uint64_t tried; /* shards whose members of the queue did not take it */
} item;

struct mir_parcel {
    mir_mpsc_node node;
    uint32_t source;
    uint32_t used;
    mir_buffer *buffer;
    bool urgent; /* somebody may wait for one of the items */
    _Alignas(16) uint8_t items[PARCEL_BYTES];
};

struct mir_route {
    uint64_t hash; /* 0: empty */
    mir_router_stamp stamp;
    uint16_t subject_size;
    uint8_t endpoint, function;
    uint8_t endpoint_shard;
    uint8_t key_at, key_size;
    uint64_t key_hash;
    uint32_t plain_count, group_count;
    uint32_t block_bytes;
    uint8_t *block; /* plain refs, member refs, groups, names; null when nobody subscribes */
    uint8_t subject[ROUTE_SUBJECT_BYTES];
};

typedef struct resolved {
    mir_endpoint_kind endpoint;
    unsigned endpoint_shard;
    const mir_ref *plain;
    uint32_t plain_count;
    const mir_match_group *groups;
    uint32_t group_count;
    const mir_ref *members;
    const uint8_t *names;
} resolved;

uint32_t mir_shard_random(mir_shard *shard)
{
    /* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators". */
    shard->random ^= shard->random >> 12;
    shard->random ^= shard->random << 25;
    shard->random ^= shard->random >> 27;
    return (uint32_t)((shard->random * UINT64_C(0x2545F4914F6CDD1D)) >> 32);
}

/* --- output chunks ------------------------------------------------------------------------- */

mir_chunk *mir_shard_chunk_take(mir_shard *shard, size_t need, bool large)
{
    mir_chunk *chunk;
    if (need <= CHUNK_SMALL_BYTES && !large) {
        chunk = shard->chunks_small;
        if (chunk != NULL) {
            shard->chunks_small = chunk->next;
            shard->chunks_small_count--;
        } else {
            chunk = malloc(sizeof *chunk + CHUNK_SMALL_BYTES);
            if (chunk != NULL) chunk->capacity = CHUNK_SMALL_BYTES;
        }
    } else if (need <= CHUNK_LARGE_BYTES) {
        chunk = shard->chunks_large;
        if (chunk != NULL) {
            shard->chunks_large = chunk->next;
            shard->chunks_large_count--;
        } else {
            chunk = malloc(sizeof *chunk + CHUNK_LARGE_BYTES);
            if (chunk != NULL) chunk->capacity = CHUNK_LARGE_BYTES;
        }
    } else {
        chunk = malloc(sizeof *chunk + need);
        if (chunk != NULL) chunk->capacity = (uint32_t)need;
    }
    if (chunk != NULL) {
        chunk->next = NULL;
        chunk->size = 0;
        chunk->shared = NULL;
        chunk->bytes = chunk->data;
    }
    return chunk;
}

mir_chunk *mir_shard_chunk_share(mir_buffer *buffer, mir_view bytes)
{
    mir_chunk *chunk = malloc(sizeof *chunk);
    if (chunk == NULL) return NULL;
    mir_buffer_retain(buffer);
    const uint32_t size = (uint32_t)bytes.size;
    *chunk = (mir_chunk){.size = size, .capacity = size, .shared = buffer, .bytes = bytes.data};
    return chunk;
}

void mir_shard_chunk_give(mir_shard *shard, mir_chunk *chunk)
{
    if (chunk->shared != NULL) {
        mir_buffer_release(chunk->shared);
        free(chunk);
    } else if (chunk->capacity == CHUNK_SMALL_BYTES &&
               shard->chunks_small_count < CHUNKS_SMALL_KEPT) {
        chunk->next = shard->chunks_small;
        shard->chunks_small = chunk;
        shard->chunks_small_count++;
    } else if (chunk->capacity == CHUNK_LARGE_BYTES &&
               shard->chunks_large_count < CHUNKS_LARGE_KEPT) {
        chunk->next = shard->chunks_large;
        shard->chunks_large = chunk;
        shard->chunks_large_count++;
    } else {
        free(chunk);
    }
}

/* --- parcels ------------------------------------------------------------------------------- */

static mir_parcel *parcel_take(mir_shard *shard)
{
    if (shard->parcels_free == NULL)
        shard->parcels_free = (mir_parcel *)(void *)mir_mpsc_take(&shard->parcels_returned);
    mir_parcel *parcel = shard->parcels_free;
    if (parcel != NULL) {
        shard->parcels_free = (mir_parcel *)(void *)parcel->node.next;
    } else {
        /* As many as can be under way: the rings' slots bound them. */
        parcel = malloc(sizeof *parcel);
        if (parcel == NULL) return NULL;
        shard->parcel_count++;
    }
    parcel->source = shard->id;
    parcel->used = 0;
    parcel->buffer = NULL;
    parcel->urgent = false;
    return parcel;
}

static void parcel_send(mir_shard *shard, unsigned to)
{
    mir_parcel *parcel = shard->open[to];
    shard->open[to] = NULL;
    mir_status status = mir_loop_send(shard->loop, to, parcel,
                                      parcel->urgent ? MIR_TRAFFIC_SERVER : MIR_TRAFFIC_LAZY);
    MIR_ASSERT(status == MIR_OK);
    if (!mir_loop_has_room(shard->loop)) shard->tight = true;
}

void mir_shard_flush_parcels(mir_shard *shard)
{
    for (unsigned i = 0; i < shard->loop->count; i++)
        if (shard->open[i] != NULL) parcel_send(shard, i);
}

static item *parcel_item(mir_shard *shard, unsigned to, const mir_message *message, item_kind kind,
                         uint32_t ref_count, mir_view queue)
{
    size_t bytes = (sizeof(item) + ref_count * sizeof(mir_ref) + queue.size + 15) & ~(size_t)15;
    MIR_ASSERT(bytes <= PARCEL_BYTES);
    mir_parcel *parcel = shard->open[to];
    if (parcel != NULL &&
        (parcel->buffer != message->buffer || parcel->used + bytes > PARCEL_BYTES)) {
        parcel_send(shard, to);
        parcel = NULL;
    }
    if (parcel == NULL) {
        parcel = parcel_take(shard);
        if (parcel == NULL) return NULL;
        if (message->buffer != NULL) mir_buffer_retain(message->buffer);
        parcel->buffer = message->buffer;
        shard->open[to] = parcel;
    }
    item *it = (item *)(void *)(parcel->items + parcel->used);
    parcel->used += (uint32_t)bytes;
    /* Nobody waits for what a device only tells: telemetry and heartbeats. */
    if (kind != ITEM_ENDPOINT || message->endpoint != MIR_ENDPOINT_DEVICE ||
        message->reply.size != 0)
        parcel->urgent = true;
    *it = (item){.bytes = (uint32_t)bytes,
                 .kind = (uint8_t)kind,
                 .endpoint = message->endpoint,
                 .function = message->function,
                 .ref_count = (uint16_t)ref_count,
                 .queue_size = (uint16_t)queue.size,
                 .subject_size = (uint32_t)message->subject.size,
                 .reply_size = (uint32_t)message->reply.size,
                 .header_size = (uint32_t)message->header.size,
                 .payload_size = (uint32_t)message->payload.size,
                 .key_at = message->key.size == 0
                               ? 0
                               : (uint32_t)(message->key.data - message->subject.data),
                 .key_size = (uint32_t)message->key.size,
                 .subject = message->subject.data,
                 .reply = message->reply.data,
                 .header = message->header.data,
                 .payload = message->payload.data,
                 .publisher = message->publisher,
                 .key_hash = message->key_hash};
    if (queue.size != 0)
        memcpy((uint8_t *)(it + 1) + ref_count * sizeof(mir_ref), queue.data, queue.size);
    return it;
}

static mir_ref *item_refs(item *it)
{
    return (mir_ref *)(void *)(it + 1);
}

static bool queue_name_fits(mir_view queue)
{
    return queue.size <= PARCEL_BYTES / 2;
}

void mir_shard_tell_congested(mir_shard *shard, mir_ref publisher)
{
    if (publisher == 0) return;
    unsigned to = mir_ref_shard(publisher);
    if (to == shard->id) {
        mir_session *session = mir_session_find(shard, publisher);
        if (session != NULL) mir_session_park(session);
        return;
    }
    mir_message note = {.publisher = publisher};
    (void)parcel_item(shard, to, &note, ITEM_CONGESTED, 0, (mir_view){0});
}

static void nobody(mir_shard *shard, const mir_message *message)
{
    if (message->publisher == 0 || message->reply.size == 0) return;
    unsigned to = mir_ref_shard(message->publisher);
    if (to == shard->id) {
        mir_session *session = mir_session_find(shard, message->publisher);
        if (session != NULL) mir_session_no_responders(session, message);
        return;
    }
    (void)parcel_item(shard, to, message, ITEM_NOBODY, 0, (mir_view){0});
    shard->answered |= UINT64_C(1) << to;
}

/* Gives a message to one member of a queue, beginning at a random one. */
static bool deliver_queue(mir_shard *shard, const mir_message *message, const mir_ref *members,
                          uint32_t count, mir_view queue, uint64_t tried, mir_session *from)
{
    if (count == 0) return false;
    uint32_t start = count == 1 ? 0 : mir_shard_random(shard) % count;
    for (uint32_t i = 0; i < count; i++) {
        mir_ref ref = members[(start + i) % count];
        unsigned to = mir_ref_shard(ref);
        if (to == shard->id) {
            mir_delivery result = mir_session_deliver(shard, ref, message);
            if (result == MIR_NOT_DELIVERED) continue;
            if (result == MIR_DELIVERED_CONGESTED)
                mir_shard_tell_congested(shard, message->publisher);
            return true;
        }
        if ((tried >> to & 1) != 0 || !queue_name_fits(queue)) continue;
        item *it = parcel_item(shard, to, message, ITEM_QUEUE, 1, queue);
        if (it == NULL) continue;
        it->tried = tried;
        item_refs(it)[0] = ref;
        if (from != NULL && mir_session_touch(from, to)) shard->urging |= UINT64_C(1) << to;
        return true;
    }
    return false;
}

/* The member that was chosen elsewhere cannot take it: choose again from what is there now. Members
 * of this shard come first, so that every shard is asked once at most. For another shard it goes by
 * way of the publisher's, whose PONG then waits for that shard too; were it sent from here, nobody
 * could say when it arrives without waiting for shards that may wait for this one. */
static void requeue(mir_shard *shard, const mir_message *message, mir_view queue, uint64_t tried)
{
    mir_match match = {0};
    mir_router_match(shard->router, message->subject, &match);
    bool done = false;
    for (uint32_t i = 0; i < match.group_count && !done; i++) {
        const mir_match_group *group = &match.groups[i];
        if (!mir_view_eq(queue, (mir_view){match.names + group->name_at, group->name_size}))
            continue;
        const mir_ref *members = match.members + group->first;
        for (uint32_t m = 0; m < group->count && !done; m++) {
            if (mir_ref_shard(members[m]) != shard->id) continue;
            done = mir_session_deliver(shard, members[m], message) != MIR_NOT_DELIVERED;
        }
        unsigned home = message->publisher == 0 ? shard->id : mir_ref_shard(message->publisher);
        item *it = NULL;
        if (!done && home != shard->id)
            it = parcel_item(shard, home, message, ITEM_RETURNED, 0, queue);
        if (it != NULL) {
            it->tried = tried | UINT64_C(1) << shard->id;
            shard->answered |= UINT64_C(1) << home;
            done = true;
        }
        if (!done) {
            mir_session *from = message->publisher == 0 || home != shard->id
                                    ? NULL
                                    : mir_session_find(shard, message->publisher);
            done = deliver_queue(shard, message, members, group->count, queue,
                                 tried | UINT64_C(1) << shard->id, from);
        }
    }
    mir_match_free(&match);
    if (!done) nobody(shard, message);
}

static void item_handle(mir_shard *shard, item *it, mir_buffer *buffer)
{
    mir_message message = {
        .subject = {it->subject, it->subject_size},
        .reply = {it->reply, it->reply_size},
        .header = {it->header, it->header_size},
        .payload = {it->payload, it->payload_size},
        .buffer = buffer,
        .publisher = it->publisher,
        .endpoint = it->endpoint,
        .function = it->function,
        .key = {it->subject + it->key_at, it->key_size},
        .key_hash = it->key_hash,
    };
    switch ((item_kind)it->kind) {
    case ITEM_PLAIN: {
        bool congested = false;
        const mir_ref *refs = item_refs(it);
        for (uint32_t i = 0; i < it->ref_count; i++)
            if (mir_session_deliver(shard, refs[i], &message) == MIR_DELIVERED_CONGESTED)
                congested = true;
        if (congested) mir_shard_tell_congested(shard, message.publisher);
        break;
    }
    case ITEM_QUEUE: {
        mir_view queue = {(const uint8_t *)(item_refs(it) + 1), it->queue_size};
        mir_delivery result = mir_session_deliver(shard, item_refs(it)[0], &message);
        if (result == MIR_DELIVERED_CONGESTED) mir_shard_tell_congested(shard, message.publisher);
        if (result == MIR_NOT_DELIVERED) requeue(shard, &message, queue, it->tried);
        break;
    }
    case ITEM_RETURNED: {
        mir_view queue = {(const uint8_t *)item_refs(it), it->queue_size};
        requeue(shard, &message, queue, it->tried);
        break;
    }
    case ITEM_ENDPOINT: shard->endpoints->deliver(shard, &message); break;
    case ITEM_NOBODY: {
        mir_session *session = mir_session_find(shard, message.publisher);
        if (session != NULL) mir_session_no_responders(session, &message);
        break;
    }
    case ITEM_CONGESTED: {
        mir_session *session = mir_session_find(shard, message.publisher);
        if (session != NULL) mir_session_park(session);
        break;
    }
    }
}

static void on_message(void *context, unsigned source, void *memory)
{
    mir_shard *shard = context;
    mir_parcel *parcel = memory;
    MIR_ASSERT(parcel->source == source);
    for (uint32_t at = 0; at < parcel->used;) {
        item *it = (item *)(void *)(parcel->items + at);
        at += it->bytes;
        item_handle(shard, it, parcel->buffer);
    }
    if (parcel->buffer != NULL) mir_buffer_release(parcel->buffer);
    mir_shard *owner = shard->peers[parcel->source];
    (void)mir_mpsc_push(&owner->parcels_returned, &parcel->node);
}

/* --- routing ------------------------------------------------------------------------------- */

static void route_fill(mir_route *route, const mir_match *match)
{
    free(route->block);
    route->block = NULL;
    route->plain_count = match->plain_count;
    route->group_count = match->group_count;
    if (match->plain_count == 0 && match->group_count == 0) return;
    size_t plain_bytes = match->plain_count * sizeof(mir_ref);
    size_t member_bytes = match->member_count * sizeof(mir_ref);
    size_t group_bytes = match->group_count * sizeof(mir_match_group);
    size_t bytes = plain_bytes + member_bytes + group_bytes + match->name_bytes;
    route->block = malloc(bytes);
    if (route->block == NULL) {
        route->hash = 0;
        return;
    }
    route->block_bytes = (uint32_t)(plain_bytes + member_bytes + group_bytes);
    if (plain_bytes != 0) memcpy(route->block, match->plain, plain_bytes);
    if (group_bytes != 0) {
        memcpy(route->block + plain_bytes, match->members, member_bytes);
        memcpy(route->block + plain_bytes + member_bytes, match->groups, group_bytes);
        memcpy(route->block + route->block_bytes, match->names, match->name_bytes);
    }
}

static void resolve_from_route(const mir_route *route, mir_message *message, resolved *r)
{
    message->endpoint = route->endpoint;
    message->function = route->function;
    message->key = (mir_view){message->subject.data + route->key_at, route->key_size};
    message->key_hash = route->key_hash;
    size_t plain_bytes = route->plain_count * sizeof(mir_ref);
    size_t group_bytes = route->group_count * sizeof(mir_match_group);
    *r = (resolved){.endpoint = (mir_endpoint_kind)route->endpoint,
                    .endpoint_shard = route->endpoint_shard,
                    .plain_count = route->plain_count,
                    .group_count = route->group_count};
    if (route->block != NULL) {
        r->plain = (const mir_ref *)(const void *)route->block;
        r->members = (const mir_ref *)(const void *)(route->block + plain_bytes);
        r->groups = (const mir_match_group *)(const void *)(route->block + route->block_bytes -
                                                            group_bytes);
        r->names = route->block + route->block_bytes;
    }
}

static const mir_view inbox_prefix = {(const uint8_t *)"_INBOX.", 7};

static void resolve(mir_shard *shard, mir_message *message, resolved *r)
{
    mir_view subject = message->subject;
    /* Reply subjects are used once: caching them would only evict what is used again. */
    bool cached = subject.size <= ROUTE_SUBJECT_BYTES && !mir_view_starts(subject, inbox_prefix);
    mir_route *route = NULL;
    uint64_t hash = 0;
    if (cached) {
        hash = mir_hash_view(subject) | 1;
        route = &shard->routes[(hash >> 8) & (ROUTES - 1)];
        if (route->hash == hash && route->subject_size == subject.size &&
            memcmp(route->subject, subject.data, subject.size) == 0 &&
            mir_router_stamp_holds(shard->router, &route->stamp)) {
            shard->stats.route_hits++;
            resolve_from_route(route, message, r);
            return;
        }
        shard->stats.route_misses++;
    }
    mir_router_stamp stamp = mir_router_stamp_of(shard->router, subject);
    mir_match_reset(&shard->match);
    mir_router_match(shard->router, subject, &shard->match);
    unsigned endpoint_shard = shard->id;
    message->key = (mir_view){NULL, 0};
    message->key_hash = 0;
    mir_endpoint_kind endpoint = shard->endpoints->classify(shard, message, &endpoint_shard);
    message->endpoint = (uint8_t)endpoint;
    if (cached && !shard->match.failed) {
        route->hash = hash;
        route->stamp = stamp;
        route->subject_size = (uint16_t)subject.size;
        memcpy(route->subject, subject.data, subject.size);
        route->endpoint = (uint8_t)endpoint;
        route->function = message->function;
        route->endpoint_shard = (uint8_t)endpoint_shard;
        route->key_at = message->key.size == 0 ? 0 : (uint8_t)(message->key.data - subject.data);
        route->key_size = (uint8_t)message->key.size;
        route->key_hash = mir_hash_view(message->key);
        route_fill(route, &shard->match);
        if (route->hash != 0) {
            resolve_from_route(route, message, r);
            return;
        }
    }
    *r = (resolved){.endpoint = endpoint,
                    .endpoint_shard = endpoint_shard,
                    .plain = shard->match.plain,
                    .plain_count = shard->match.plain_count,
                    .groups = shard->match.groups,
                    .group_count = shard->match.group_count,
                    .members = shard->match.members,
                    .names = shard->match.names};
}

static unsigned deliver_plain(mir_shard *shard, const mir_message *message, const mir_ref *refs,
                              uint32_t count, mir_session *from)
{
    unsigned delivered = 0;
    uint64_t others = 0;
    bool congested = false;
    for (uint32_t i = 0; i < count; i++) {
        unsigned to = mir_ref_shard(refs[i]);
        if (to != shard->id) {
            others |= UINT64_C(1) << to;
            continue;
        }
        mir_delivery result = mir_session_deliver(shard, refs[i], message);
        if (result != MIR_NOT_DELIVERED) delivered++;
        if (result == MIR_DELIVERED_CONGESTED) congested = true;
    }
    for (unsigned to = 0; others != 0; to++, others >>= 1) {
        if ((others & 1) == 0) continue;
        uint32_t at = 0;
        while (at < count) {
            /* Count what fits into one item first: its size is fixed when it is made. */
            uint32_t end = at, fits = 0;
            while (end < count && fits < ITEM_REFS_MAX)
                if (mir_ref_shard(refs[end++]) == to) fits++;
            if (fits == 0) break;
            item *it = parcel_item(shard, to, message, ITEM_PLAIN, fits, (mir_view){0});
            if (it == NULL) break;
            mir_ref *into = item_refs(it);
            for (uint32_t i = at; i < end; i++)
                if (mir_ref_shard(refs[i]) == to) *into++ = refs[i];
            delivered += fits;
            at = end;
        }
        if (from != NULL) from->touched |= UINT64_C(1) << to;
    }
    if (congested) mir_shard_tell_congested(shard, message->publisher);
    return delivered;
}

unsigned mir_shard_publish(mir_shard *shard, mir_message *message, mir_session *from)
{
    resolved r;
    message->publisher = from == NULL ? 0 : mir_session_ref(from);
    resolve(shard, message, &r);
    unsigned delivered = 0;
    if (r.plain_count != 0)
        delivered += deliver_plain(shard, message, r.plain, r.plain_count, from);
    for (uint32_t i = 0; i < r.group_count; i++) {
        const mir_match_group *group = &r.groups[i];
        if (deliver_queue(shard, message, r.members + group->first, group->count,
                          (mir_view){r.names + group->name_at, group->name_size}, 0, from))
            delivered++;
    }
    /* Last: the endpoint may publish in turn, which reuses what `r` points into. */
    if (r.endpoint != MIR_ENDPOINT_NONE) {
        delivered++;
        if (from != NULL) from->touched |= UINT64_C(1) << r.endpoint_shard;
        if (r.endpoint_shard == shard->id)
            shard->endpoints->deliver(shard, message);
        else
            (void)parcel_item(shard, r.endpoint_shard, message, ITEM_ENDPOINT, 0, (mir_view){0});
    }
    if (delivered == 0 && from != NULL && message->reply.size != 0)
        mir_session_no_responders(from, message);
    return delivered;
}

bool mir_shard_has_listener(mir_shard *shard, mir_view subject, bool named)
{
    mir_match_reset(&shard->match);
    if (named)
        mir_router_match_named(shard->router, subject, &shard->match);
    else
        mir_router_match(shard->router, subject, &shard->match);
    return shard->match.plain_count != 0 || shard->match.group_count != 0;
}

unsigned mir_shard_emit(mir_shard *shard, mir_view subject, mir_view reply, mir_view header,
                        mir_view payload)
{
    mir_buffer *buffer = mir_buffer_heap(subject.size + reply.size + header.size + payload.size);
    if (buffer == NULL) return 0;
    uint8_t *at = buffer->data;
    mir_view pieces[4] = {subject, reply, header, payload};
    for (int i = 0; i < 4; i++) {
        if (pieces[i].size != 0) memcpy(at, pieces[i].data, pieces[i].size);
        pieces[i].data = at;
        at += pieces[i].size;
    }
    mir_message message = {.subject = pieces[0],
                           .reply = pieces[1],
                           .header = pieces[2],
                           .payload = pieces[3],
                           .buffer = buffer};
    unsigned delivered = mir_shard_publish(shard, &message, NULL);
    mir_buffer_release(buffer);
    return delivered;
}

/* --- the loop ------------------------------------------------------------------------------ */

static void on_wait(void *context, int64_t timeout_ns)
{
    mir_shard *shard = context;
    if (shard->only_told) shard->backend->linger(shard->poller, LINGER_US * MIR_NS_PER_US);
    shard->backend->wait(shard->poller, timeout_ns);
}

static unsigned on_poll(void *context, unsigned budget)
{
    mir_shard *shard = context;
    enum { BATCH = 64 };
    mir_event events[BATCH];
    unsigned total = 0;
    while (total < budget) {
        unsigned count = shard->backend->poll(shard->poller, events, BATCH);
        for (unsigned i = 0; i < count; i++) {
            mir_event *event = &events[i];
            if (event->kind == MIR_EVENT_ACCEPTED)
                mir_session_accept(shard, event->result, event->user != NULL);
            else
                mir_session_event(shard, event);
        }
        total += count;
        if (count < BATCH) break;
    }
    return total;
}

static void on_posted(void *context, mir_mpsc_node *node)
{
    mir_post *post = (mir_post *)(void *)node;
    post->run(context, post);
}

/* Commits and tells neighbours, unless nobody waits for that yet: then a little later, so that a
 * trickle of telemetry does not cost a write a turn. */
static void settle(mir_shard *shard)
{
    mir_loop *loop = shard->loop;
    if (shard->staged != 0) {
        if (shard->staged_since_ns == 0) shard->staged_since_ns = loop->now_ns;
        int64_t by_ns = shard->staged_since_ns + COMMIT_DELAY_US * MIR_NS_PER_US;
        if (!shard->acknowledges && !loop->asked && loop->now_ns < by_ns) {
            loop->wake_by_ns = by_ns;
            return;
        }
        shard->endpoints->commit(shard);
        shard->staged = 0;
    }
    shard->staged_since_ns = 0;
    shard->acknowledges = false;
    loop->wake_by_ns = 0;
    for (unsigned i = 0; i < loop->count; i++) {
        mir_holding *holding = &shard->holding[i];
        if (i == shard->id) {
            (void)mir_holding_settled(holding, 0);
            continue;
        }
        if ((shard->answered >> i & 1) != 0 && mir_loop_pushed(loop, i) != mir_loop_sent(loop, i))
            mir_holding_owe(holding, mir_loop_sent(loop, i));
        if (holding->owes) mir_holding_paid(holding, mir_loop_pushed(loop, i));
        mir_loop_settle(loop, i, mir_holding_settled(holding, mir_loop_handled(loop, i)));
    }
    shard->answered = 0;
}

static void on_turn_end(void *context)
{
    mir_shard *shard = context;
    if (shard->tight && mir_loop_has_room(shard->loop)) shard->tight = false;
    /* Paused sessions first: what they go on with belongs to this turn. */
    mir_session *session = shard->waiting;
    shard->waiting = NULL;
    while (session != NULL) {
        mir_session *next = session->next_waiting;
        session->is_waiting = false;
        session->next_waiting = NULL;
        if (!mir_session_resume(session) && !session->is_waiting) {
            session->is_waiting = true;
            session->next_waiting = shard->waiting;
            shard->waiting = session;
        }
        session = next;
    }
    mir_shard_flush_parcels(shard);
    for (unsigned i = 0; shard->urging != 0; i++, shard->urging >>= 1)
        if ((shard->urging & 1) != 0) mir_loop_urge(shard->loop, i);
    shard->only_told = shard->staged != 0 && shard->dirty == NULL && shard->waiting == NULL;
    settle(shard);
    while (shard->dirty != NULL) {
        session = shard->dirty;
        shard->dirty = session->next_dirty;
        session->is_dirty = false;
        session->next_dirty = NULL;
        mir_session_flush(session);
    }
}

static bool on_busy(void *context)
{
    const mir_shard *shard = context;
    return shard->dirty != NULL;
}

static bool on_expects(void *context)
{
    const mir_shard *shard = context;
    return shard->waiting != NULL || shard->tight || shard->backend->starved(shard->poller);
}

static void on_wake_peer(void *from, void *to)
{
    mir_shard *shard = from, *peer = to;
    shard->backend->wake_peer(shard->poller, peer->poller);
}

static void on_wake(void *context)
{
    mir_shard *shard = context;
    shard->backend->wake(shard->poller);
}

const mir_loop_ops mir_shard_loop_ops = {
    .wait = on_wait,
    .poll = on_poll,
    .message = on_message,
    .posted = on_posted,
    .turn_end = on_turn_end,
    .busy = on_busy,
    .expects = on_expects,
    .wake_peer = on_wake_peer,
    .wake = on_wake,
};

void mir_shard_post(mir_shard *shard, mir_post *post)
{
    MIR_ASSERT(post->run != NULL);
    mir_loop_post(shard->loop, &post->node);
}

static void on_sweep(mir_timer *timer, void *context)
{
    mir_shard *shard = context;
    mir_session_sweep(shard);
    /* A log that grew old is handed over although nothing comes any more. */
    if (shard->staged == 0) shard->endpoints->commit(shard);
    mir_timer_set(&shard->loop->timers, timer, shard->loop->now_ns + SWEEP_MS * MIR_NS_PER_MS);
}

static void on_unpark(mir_timer *timer, void *context)
{
    (void)timer;
    (void)context; /* The turn that it begins looks at the waiting sessions. */
}

mir_status mir_shard_init(mir_shard *shard, mir_server *server, mir_loop *loop,
                          const mir_config *config, mir_router *router,
                          const mir_endpoints *endpoints)
{
    shard->id = loop->id;
    shard->server = server;
    shard->loop = loop;
    shard->config = config;
    shard->router = router;
    shard->endpoints = endpoints;
    shard->random = (uint64_t)mir_clock_wall_ns() ^ (UINT64_C(0x9E3779B97F4A7C15) * (loop->id + 1));
    if (shard->random == 0) shard->random = 1;
    shard->routes = calloc(ROUTES, sizeof *shard->routes);
    if (shard->routes == NULL) return MIR_E_NO_MEMORY;
    mir_slots_init(&shard->sessions, sizeof(mir_session), MIR_REF_FIELD_MAX);
    mir_slots_init(&shard->subscriptions, sizeof(mir_subscription), MIR_REF_FIELD_MAX);
    shard->sweep.fire = on_sweep;
    shard->unpark.fire = on_unpark;
    mir_timer_set(&loop->timers, &shard->sweep, loop->now_ns + SWEEP_MS * MIR_NS_PER_MS);
    return MIR_OK;
}

static void discard_message(void *context, unsigned source, void *memory)
{
    mir_shard *shard = context;
    (void)source;
    mir_parcel *parcel = memory;
    if (parcel->buffer != NULL) mir_buffer_release(parcel->buffer);
    (void)mir_mpsc_push(&shard->parcels_returned, &parcel->node);
}

static void discard_posted(void *context, mir_mpsc_node *node)
{
    mir_shard *shard = context;
    mir_post *post = (mir_post *)(void *)node;
    /* Posts free themselves when they run; with every session gone they reach nobody. */
    post->run(shard, post);
}

void mir_shard_drain(mir_shard *shard)
{
    mir_loop_discard(shard->loop, shard, discard_message, discard_posted);
}

void mir_shard_fini(mir_shard *shard)
{
    for (unsigned i = 0; shard->routes != NULL && i < ROUTES; i++) free(shard->routes[i].block);
    free(shard->routes);
    mir_match_free(&shard->match);
    for (unsigned i = 0; i < MIR_SHARDS_MAX; i++) {
        if (shard->open[i] == NULL) continue;
        if (shard->open[i]->buffer != NULL) mir_buffer_release(shard->open[i]->buffer);
        free(shard->open[i]);
    }
    mir_parcel *lists[2] = {shard->parcels_free,
                            (mir_parcel *)(void *)mir_mpsc_take(&shard->parcels_returned)};
    for (int i = 0; i < 2; i++) {
        while (lists[i] != NULL) {
            mir_parcel *next = (mir_parcel *)(void *)lists[i]->node.next;
            free(lists[i]);
            lists[i] = next;
        }
    }
    mir_chunk *chunks[2] = {shard->chunks_small, shard->chunks_large};
    for (int i = 0; i < 2; i++) {
        while (chunks[i] != NULL) {
            mir_chunk *next = chunks[i]->next;
            free(chunks[i]);
            chunks[i] = next;
        }
    }
    mir_map_free(&shard->sids);
    mir_slots_free(&shard->sessions);
    mir_slots_free(&shard->subscriptions);
}
