/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>

#include "mir_event_query.h"
#include "mir_pb.h"
#include "mir_state_internal.h"

typedef MirStore__V1__EventRecord record;

enum { BROKEN_TEXT_BYTES = 256 };

#define TRY(call)                                                                                  \
    do {                                                                                           \
        mir_status try_status = (call);                                                            \
        if (try_status != MIR_OK) return try_status;                                               \
    } while (0)

typedef struct verification {
    mir_state *state;
    MDB_txn *txn;
    mir_view sought;      /* the given head */
    mir_event_head start; /* as it was when it began: what is appended since is not looked at */
    uint8_t link[MIR_EVENT_HASH_BYTES];
    int64_t at_ns;
    uint64_t sequence; /* of `link` */
    uint64_t removed, removals;
    uint32_t live; /* in the block so far */
    bool found;
    uint64_t found_at;
    uint64_t broken; /* 0: nothing is */
    char why[BROKEN_TEXT_BYTES];
    /* The record of a removal that was looked at last: tombs that follow each other share one. */
    mir_arena scratch, removal_arena;
    uint64_t removal_at;
    const MirStore__V1__EventRemoval *removal;
} verification;

static void broken(verification *v, uint64_t sequence, const char *format, ...) MIR_PRINTF(3, 4);

static void broken(verification *v, uint64_t sequence, const char *format, ...)
{
    if (v->broken != 0) return;
    v->broken = sequence;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(v->why, sizeof v->why, format, args);
    va_end(args);
}

static bool covers(const MirStore__V1__EventRemoval *removal, uint64_t sequence)
{
    uint64_t end = 0;
    for (size_t i = 0; i + 1 < removal->n_ranges; i += 2) {
        uint64_t left_out = removal->ranges[i], count = removal->ranges[i + 1];
        if (left_out >= sequence - end) return false;
        if (count >= sequence - end - left_out) return true;
        end += left_out + count;
    }
    return false;
}

static mir_status load_removal(verification *v, uint64_t sequence)
{
    if (v->removal_at == sequence) return MIR_OK;
    mir_event_place place;
    record *r = NULL;
    v->removal_at = 0;
    v->removal = NULL;
    mir_arena_free(&v->removal_arena);
    mir_status status = mir_event_get(&v->state->db, v->txn, sequence, &place);
    if (status == MIR_E_NOT_FOUND || status == MIR_E_CORRUPT) return MIR_OK;
    TRY(status);
    if ((place.flags & MIR_EVENT_IS_TOMB) != 0) return MIR_OK;
    status = mir_pb_unpack(&mir_store__v1__event_record__descriptor, place.record,
                           &v->removal_arena, &r, NULL);
    if (status == MIR_E_INVALID) return MIR_OK;
    TRY(status);
    v->removal = r->removal;
    v->removal_at = sequence;
    return MIR_OK;
}

static mir_status check_tomb(verification *v, uint64_t sequence, const mir_event_place *place)
{
    if (place->flags != MIR_EVENT_IS_TOMB) {
        broken(v, sequence, "the flags of a removed event are not those of one");
        return MIR_OK;
    }
    v->removed++;
    if (place->removal <= sequence) {
        broken(v, sequence, "it is removed, and no later record tells of that");
        return MIR_OK;
    }
    TRY(load_removal(v, place->removal));
    if (v->removal == NULL || !covers(v->removal, sequence))
        broken(v, sequence, "it is removed, and record %llu does not tell of that",
               (unsigned long long)place->removal);
    return MIR_OK;
}

static mir_status check_record(verification *v, uint64_t sequence, const mir_event_place *place)
{
    uint8_t leaf[MIR_EVENT_HASH_BYTES];
    mir_event_leaf(place->record, leaf);
    if (memcmp(leaf, place->leaf, sizeof leaf) != 0) {
        broken(v, sequence, "what is stored is not what was stored: its hash is another");
        return MIR_OK;
    }
    record *r = NULL;
    mir_arena_reset(&v->scratch);
    mir_status status = mir_pb_unpack(&mir_store__v1__event_record__descriptor, place->record,
                                      &v->scratch, &r, NULL);
    if (status == MIR_E_INVALID) {
        broken(v, sequence, "its record cannot be read");
        return MIR_OK;
    }
    TRY(status);
    uint8_t flags = 0;
    uint32_t terms[MIR_EVENT_TERMS];
    mir_event_describe(r, &flags, terms);
    bool same = flags == place->flags;
    for (unsigned i = 0; i < MIR_EVENT_TERMS && same; i++)
        same = terms[i] == mir_event_place_term(place, (mir_event_term)i);
    if (!same) broken(v, sequence, "what is written before its record does not belong to it");
    if ((flags & MIR_EVENT_IS_REMOVAL) != 0)
        v->removals++;
    else
        v->live++;
    return MIR_OK;
}

static mir_status check_block_end(verification *v, uint64_t sequence)
{
    mir_event_block block;
    mir_status status =
        mir_event_block_read(&v->state->db, v->txn, (sequence - 1) / MIR_EVENT_BLOCK, &block);
    if (status == MIR_E_NOT_FOUND) {
        broken(v, sequence, "the link at the end of its block is not noted");
        return MIR_OK;
    }
    TRY(status);
    if (memcmp(block.link, v->link, sizeof block.link) != 0)
        broken(v, sequence, "the link noted for the end of its block is another");
    else if (block.live != v->live)
        broken(v, sequence, "its block has %u events, noted are %u", v->live, block.live);
    v->live = 0;
    return MIR_OK;
}

static mir_status check_one(verification *v, uint64_t sequence, mir_view value)
{
    mir_event_place place;
    if (!mir_event_place_read(value, &place)) {
        broken(v, sequence, "what is stored has not the shape of an event");
        return MIR_OK;
    }
    if (place.at_ns < v->at_ns) {
        broken(v, sequence, "its time is before that of the event before it");
        return MIR_OK;
    }
    TRY((place.flags & MIR_EVENT_IS_TOMB) != 0 ? check_tomb(v, sequence, &place)
                                               : check_record(v, sequence, &place));
    mir_event_link(v->link, place.at_ns, place.leaf);
    v->at_ns = place.at_ns;
    v->sequence = sequence;
    if (memcmp(v->link, place.check, 8) != 0)
        broken(v, sequence, "its link does not follow from its time, its leaf and what is before");
    if (v->broken == 0 && sequence % MIR_EVENT_BLOCK == 0) TRY(check_block_end(v, sequence));
    if (v->broken == 0 && v->sought.size != 0 &&
        memcmp(v->link, v->sought.data, sizeof v->link) == 0) {
        v->found = true;
        v->found_at = sequence;
    }
    return MIR_OK;
}

/* One block on one snapshot: pages of the store stay in use no longer than that takes. */
static mir_status check_block(verification *v, uint64_t last, mir_error *error)
{
    MDB_cursor *cursor = NULL;
    uint64_t sequence = v->sequence + 1;
    uint8_t bytes[8];
    TRY(mir_state_read_begin(v->state, &v->txn, error));
    mir_state_u64_write(bytes, sequence);
    MDB_val k = {sizeof bytes, bytes}, value;
    mir_status status = mir_state_db_status(mdb_cursor_open(v->txn, v->state->db.event, &cursor));
    if (status == MIR_OK)
        status = mir_state_db_status(mdb_cursor_get(cursor, &k, &value, MDB_SET_RANGE));
    while (status == MIR_OK && v->broken == 0) {
        if (k.mv_size != 8 || mir_state_u64_read(k.mv_data) != sequence) {
            broken(v, sequence, "it is not there");
            break;
        }
        status = check_one(v, sequence, mir_view_of(value.mv_data, value.mv_size));
        if (sequence == last) break;
        sequence++;
        if (status == MIR_OK && v->broken == 0)
            status = mir_state_db_status(mdb_cursor_get(cursor, &k, &value, MDB_NEXT));
    }
    if (status == MIR_E_NOT_FOUND) {
        broken(v, sequence, "it is not there");
        status = MIR_OK;
    }
    if (cursor != NULL) mdb_cursor_close(cursor);
    mir_state_read_end(v->state, v->txn);
    v->txn = NULL;
    if (status != MIR_OK) mir_state_db_explain(&v->state->db, status, error);
    return status;
}

static mir_status head_now(verification *v, mir_event_head *head, mir_error *error)
{
    TRY(mir_state_read_begin(v->state, &v->txn, error));
    mir_status status = mir_event_head_read(&v->state->db, v->txn, head);
    mir_state_read_end(v->state, v->txn);
    v->txn = NULL;
    if (status != MIR_OK) mir_state_db_explain(&v->state->db, status, error);
    return status;
}

/* The end of the chain is what is noted of it. Events may be removed while this runs, so the counts
 * lie between those of the start and those of now. */
static mir_status check_end(verification *v, mir_error *error)
{
    mir_event_head now;
    TRY(head_now(v, &now, error));
    uint64_t at = v->start.sequence == 0 ? 1 : v->start.sequence;
    if (memcmp(v->link, v->start.link, sizeof v->link) != 0)
        broken(v, at, "the head that is noted does not follow from it");
    else if (v->at_ns != v->start.at_ns)
        broken(v, at, "the time that is noted for the head is another");
    else if (v->removed < v->start.removed || v->removed > now.removed)
        broken(v, at, "%llu events are removed, noted are %llu", (unsigned long long)v->removed,
               (unsigned long long)now.removed);
    else if (v->removals != v->start.removals)
        broken(v, at, "%llu records tell of removals, noted are %llu",
               (unsigned long long)v->removals, (unsigned long long)v->start.removals);
    return MIR_OK;
}

static void append_hex(mir_bytes *out, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) mir_bytes_printf(out, "%02x", data[i]);
}

/* The answer in words, with what it is worth. */
static void write_text(const verification *v, mir_bytes *out)
{
    const unsigned long long links = v->start.sequence;
    if (v->broken != 0) {
        mir_bytes_printf(out,
                         "The chain is broken at link %llu: %s. All links before it hold. What "
                         "stands from there on may have been changed, or the disk is damaged.",
                         (unsigned long long)v->broken, v->why);
        return;
    }
    mir_bytes_printf(out, "All %llu links hold. The head is ", links);
    append_hex(out, v->start.link, sizeof v->start.link);
    mir_bytes_text(out, ". ");
    if (v->sought.size != 0 && !v->found) {
        mir_bytes_text(out, "The given head ");
        append_hex(out, v->sought.data, v->sought.size);
        mir_bytes_text(out, " is not in this chain: it was noted of another store, or this one was "
                            "written anew, or cut, since it was noted.");
    } else if (v->found) {
        mir_bytes_printf(out,
                         "The given head stands behind link %llu: since it was noted, none of the "
                         "events up to there was changed, inserted or taken away unnoticed. For "
                         "events behind it that holds unless everything behind it was written "
                         "anew.",
                         (unsigned long long)v->found_at);
    } else {
        mir_bytes_text(out, "Nothing was changed, inserted or taken away before the head, unless "
                            "whoever did it wrote the whole chain behind it anew: that is found "
                            "only with a head that was noted elsewhere before. Note this one.");
    }
    if (v->removed != 0)
        mir_bytes_printf(out,
                         " %llu events were removed, told of by %llu records in the chain: proved "
                         "is that they existed, when they were stored, and who removed them when, "
                         "not what they said.",
                         (unsigned long long)v->removed, (unsigned long long)v->removals);
}

static mir_status conclude(const verification *v, mir_arena *arena, MirApi__V1__EventsProof **out)
{
    MirApi__V1__EventsProof *proof = mir_arena_alloc(arena, sizeof *proof);
    uint8_t *head = mir_arena_alloc(arena, MIR_EVENT_HASH_BYTES);
    if (proof == NULL || head == NULL) return MIR_E_NO_MEMORY;
    mir_api__v1__events_proof__init(proof);
    proof->has_intact = 1;
    proof->intact = v->broken == 0 && (v->sought.size == 0 || v->found);
    proof->has_links = proof->has_removed = proof->has_removals = proof->has_head = 1;
    proof->links = v->start.sequence;
    proof->removed = v->removed;
    proof->removals = v->removals;
    memcpy(head, v->start.link, MIR_EVENT_HASH_BYTES);
    proof->head = (ProtobufCBinaryData){MIR_EVENT_HASH_BYTES, head};
    proof->has_head_sequence = v->found;
    proof->head_sequence = v->found_at;
    if (v->broken != 0) {
        proof->has_broken_sequence = 1;
        proof->broken_sequence = v->broken;
        proof->broken_text = mir_arena_strdup(arena, mir_view_cstr(v->why));
        if (proof->broken_text == NULL) return MIR_E_NO_MEMORY;
    }
    mir_bytes text = {0};
    write_text(v, &text);
    proof->text = mir_bytes_ok(&text) ? mir_arena_strdup(arena, mir_bytes_as_view(&text)) : NULL;
    mir_bytes_free(&text);
    if (proof->text == NULL) return MIR_E_NO_MEMORY;
    *out = proof;
    return MIR_OK;
}

static mir_status walk_all(verification *v, mir_event_progress progress, void *ctx,
                           mir_error *error)
{
    while (v->sequence < v->start.sequence && v->broken == 0) {
        if (progress != NULL && !progress(ctx, v->sequence, v->start.sequence))
            return mir_error_set(error, MIR_E_CANCELLED, "the verification was cancelled");
        uint64_t last = (v->sequence / MIR_EVENT_BLOCK + 1) * MIR_EVENT_BLOCK;
        TRY(check_block(v, last < v->start.sequence ? last : v->start.sequence, error));
    }
    return v->broken == 0 ? check_end(v, error) : MIR_OK;
}

mir_status mir_event_verify(mir_state *state, mir_view head, mir_event_progress progress, void *ctx,
                            mir_arena *arena, MirApi__V1__EventsProof **proof, mir_error *error)
{
    if (head.size != 0 && head.size != MIR_EVENT_HASH_BYTES)
        return mir_error_set(error, MIR_E_INVALID, "a head has 32 bytes, this one has %zu",
                             head.size);
    static const uint8_t start_link[MIR_EVENT_HASH_BYTES];
    verification v = {.state = state, .sought = head, .at_ns = INT64_MIN};
    TRY(head_now(&v, &v.start, error));
    if (v.start.sequence == 0) v.at_ns = 0;
    v.found = head.size != 0 && memcmp(head.data, start_link, sizeof start_link) == 0;
    mir_status status = walk_all(&v, progress, ctx, error);
    mir_arena_free(&v.scratch);
    mir_arena_free(&v.removal_arena);
    TRY(status);
    status = conclude(&v, arena, proof);
    if (status != MIR_OK) (void)mir_error_set(error, status, "out of memory");
    return status;
}
