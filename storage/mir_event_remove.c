/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_clock.h"
#include "mir_event_keeper.h"
#include "mir_event_query.h"
#include "mir_state_internal.h"
#include "mir_state_target.h"

#define TRY(call)                                                                                  \
    do {                                                                                           \
        mir_status try_status = (call);                                                            \
        if (try_status != MIR_OK) return try_status;                                               \
    } while (0)

/* Sequences that are to go, in the order in which they are found. */
typedef struct batch {
    uint64_t sequences[MIR_EVENT_SLICE];
    size_t count;
} batch;

/* ── By request ──────────────────────────────────────────────────────────────────────────────── */

static bool has_condition(const MirApi__V1__EventTarget *target)
{
    if (target == NULL) return false;
    const MirApi__V1__Targets *t = target->targets;
    const MirApi__V1__DateFilter *date = target->filter_date;
    return (t != NULL && (t->n_names != 0 || t->n_namespaces != 0 || t->n_labels != 0)) ||
           (date != NULL && (date->from != NULL || date->to != NULL)) ||
           target->n_device_ids != 0 || target->n_reasons != 0 || target->n_types != 0 ||
           target->n_actors != 0 || target->n_outcomes != 0 ||
           (target->text != NULL && target->text[0] != '\0') ||
           !mir_state_target_is_empty(target->devices) || target->has_after_sequence ||
           target->has_before_sequence;
}

static mir_status on_doomed(void *ctx, uint64_t sequence, const mir_event_place *place,
                            MirStore__V1__EventRecord *record, mir_arena *scratch)
{
    batch *found = ctx;
    (void)place;
    (void)record;
    (void)scratch;
    found->sequences[found->count++] = sequence;
    return found->count == MIR_EVENT_SLICE ? MIR_E_CANCELLED : MIR_OK;
}

/* The next slice up to `*last`, from the newest down, which is lowered to what is left. */
static mir_status find_doomed(mir_state *state, const MirApi__V1__EventTarget *target,
                              uint64_t *last, batch *found, mir_error *error)
{
    MDB_txn *txn = NULL;
    mir_arena arena = {0};
    mir_event_plan plan;
    found->count = 0;
    TRY(mir_state_read_begin(state, &txn, error));
    mir_status status = mir_event_plan_make(state, txn, target, &arena, &plan, error);
    if (status == MIR_OK) {
        plan.ascending = false;
        if (plan.last > *last) plan.last = *last;
        status = mir_event_walk(state, txn, &plan, on_doomed, found);
    }
    mir_state_read_end(state, txn);
    mir_arena_free(&arena);
    TRY(status);
    *last = found->count < MIR_EVENT_SLICE ? 0 : found->sequences[found->count - 1] - 1;
    for (size_t i = 0; i < found->count / 2; i++) {
        uint64_t other = found->sequences[i];
        found->sequences[i] = found->sequences[found->count - 1 - i];
        found->sequences[found->count - 1 - i] = other;
    }
    return MIR_OK;
}

mir_status mir_event_remove(mir_state *state, const MirApi__V1__EventTarget *target,
                            const mir_event_cause *cause, const mir_event_bounds *bounds,
                            mir_arena *arena, mir_event_list *list, uint64_t *removed,
                            mir_error *error)
{
    if (!has_condition(target))
        return mir_error_set(error, MIR_E_INVALID,
                             "error no target found: No device target provided");
    mir_event_list answer = {0};
    TRY(mir_event_list_get(state, target, bounds, arena, &answer, error));
    uint64_t last = answer.sequence, total = 0;
    const _Atomic bool *stop = bounds == NULL ? NULL : bounds->stop;
    while (last != 0) {
        batch found;
        size_t gone = 0;
        if (stop != NULL && atomic_load_explicit(stop, memory_order_relaxed)) {
            *removed = total;
            return mir_error_set(error, MIR_E_CANCELLED, "stopped after %llu events",
                                 (unsigned long long)total);
        }
        mir_status status = find_doomed(state, target, &last, &found, error);
        if (status == MIR_OK && found.count != 0)
            status = mir_event_remove_slice(state, found.sequences, found.count, "request", cause,
                                            &gone, error);
        TRY(status);
        total += gone;
    }
    *list = answer;
    *removed = total;
    return MIR_OK;
}

/* ── By age ──────────────────────────────────────────────────────────────────────────────────── */

typedef struct aging {
    const mir_event_retention *rules;
    uint32_t hashes[MIR_EVENT_RULES_MAX];
    int64_t now_ns;
} aging;

static bool expired(const aging *a, int64_t at_ns, int64_t keep_ns)
{
    return keep_ns > 0 && at_ns < a->now_ns - keep_ns;
}

static mir_status is_expired(const aging *a, const mir_event_place *place, bool *is)
{
    const mir_event_retention *rules = a->rules;
    uint32_t hash = mir_event_place_term(place, MIR_EVENT_REASON);
    for (size_t i = 0; i < rules->rule_count; i++) {
        if (a->hashes[i] != hash) continue;
        mir_view reason;
        if (!mir_event_peek_reason(place->record, &reason)) return MIR_E_CORRUPT;
        if (!mir_view_eq_cstr(reason, rules->rules[i].reason)) continue;
        *is = expired(a, place->at_ns, rules->rules[i].keep_ns);
        return MIR_OK;
    }
    *is = expired(a, place->at_ns, rules->default_keep_ns);
    return MIR_OK;
}

/* Looks at the rest of the block that `*sequence` is in, up to `last` or a full batch. */
static mir_status find_expired(mir_state *state, const aging *a, uint64_t *sequence, uint64_t last,
                               batch *found)
{
    MDB_txn *txn = NULL;
    MDB_cursor *cursor = NULL;
    mir_event_block block_state;
    const uint64_t block = (*sequence - 1) / MIR_EVENT_BLOCK;
    uint64_t end = (block + 1) * MIR_EVENT_BLOCK;
    if (end > last) end = last;
    found->count = 0;
    TRY(mir_state_read_begin(state, &txn, NULL));
    mir_status status = mir_event_block_read(&state->db, txn, block, &block_state);
    bool any = status == MIR_E_NOT_FOUND || block_state.live != 0;
    if (status == MIR_E_NOT_FOUND) status = MIR_OK;
    uint8_t bytes[8];
    mir_state_u64_write(bytes, *sequence);
    MDB_val k = {sizeof bytes, bytes}, v;
    if (status == MIR_OK && any)
        status = mir_state_db_status(mdb_cursor_open(txn, state->db.event, &cursor));
    if (status == MIR_OK && any)
        status = mir_state_db_status(mdb_cursor_get(cursor, &k, &v, MDB_SET));
    while (status == MIR_OK && any && *sequence <= end && found->count < MIR_EVENT_SLICE) {
        mir_event_place place;
        bool is = false;
        if (!mir_event_place_read(mir_view_of(v.mv_data, v.mv_size), &place))
            status = MIR_E_CORRUPT;
        else if ((place.flags & (MIR_EVENT_IS_TOMB | MIR_EVENT_IS_REMOVAL)) == 0)
            status = is_expired(a, &place, &is);
        if (is) found->sequences[found->count++] = *sequence;
        ++*sequence;
        if (status == MIR_OK && *sequence <= end)
            status = mir_state_db_status(mdb_cursor_get(cursor, &k, &v, MDB_NEXT));
    }
    if (!any) *sequence = end + 1;
    if (cursor != NULL) mdb_cursor_close(cursor);
    mir_state_read_end(state, txn);
    return status == MIR_E_NOT_FOUND ? MIR_E_CORRUPT : status;
}

/* The last event that any rule may let go. */
static mir_status last_to_look_at(mir_state *state, const aging *a, uint64_t *last)
{
    int64_t least_ns = a->rules->default_keep_ns;
    for (size_t i = 0; i < a->rules->rule_count; i++) {
        int64_t keep_ns = a->rules->rules[i].keep_ns;
        if (keep_ns > 0 && (least_ns <= 0 || keep_ns < least_ns)) least_ns = keep_ns;
    }
    *last = 0;
    if (least_ns <= 0) return MIR_OK;
    MDB_txn *txn = NULL;
    mir_event_head head;
    TRY(mir_state_read_begin(state, &txn, NULL));
    mir_status status = mir_event_head_read(&state->db, txn, &head);
    if (status == MIR_OK)
        status = mir_event_until(state, txn, head.sequence, a->now_ns - least_ns - 1, last);
    mir_state_read_end(state, txn);
    return status;
}

mir_status mir_event_retain(mir_state *state, int64_t now_ns, uint64_t *removed, mir_error *error)
{
    aging a = {.rules = mir_event_keeper_retention(state->events), .now_ns = now_ns};
    for (size_t i = 0; i < a.rules->rule_count; i++)
        a.hashes[i] = mir_event_hash(mir_view_cstr(a.rules->rules[i].reason));
    uint64_t last = 0, sequence = 1, total = 0;
    mir_status status = last_to_look_at(state, &a, &last);
    while (status == MIR_OK && sequence <= last) {
        batch found;
        size_t gone = 0;
        if (mir_event_keeper_stopping(state->events)) return MIR_E_CANCELLED;
        status = find_expired(state, &a, &sequence, last, &found);
        if (status != MIR_OK || found.count == 0) continue;
        status = mir_event_remove_slice(state, found.sequences, found.count, "retention", NULL,
                                        &gone, error);
        if (status != MIR_OK) return status;
        total += gone;
    }
    if (status != MIR_OK) {
        mir_state_db_explain(&state->db, status, error);
        return status;
    }
    *removed = total;
    atomic_store_explicit(&state->retained_ns, now_ns, memory_order_relaxed);
    return MIR_OK;
}

static mir_status on_oldest(void *ctx, uint64_t sequence, const mir_event_place *place,
                            MirStore__V1__EventRecord *record, mir_arena *scratch)
{
    int64_t *oldest_ns = ctx;
    (void)sequence;
    (void)record;
    (void)scratch;
    *oldest_ns = place->at_ns;
    return MIR_E_CANCELLED;
}

mir_status mir_event_retention_get(mir_state *state, mir_event_retention_state *out,
                                   mir_error *error)
{
    mir_state_stats stats;
    mir_event_plan plan;
    MDB_txn *txn = NULL;
    mir_state_stats_get(state, &stats);
    mir_event_retention_state made = {
        .rules = *mir_event_keeper_retention(state->events),
        .events = stats.events,
        .removed = stats.events_removed,
        .index_lag = stats.event_index_lag,
        .last_run_ns = atomic_load_explicit(&state->retained_ns, memory_order_relaxed),
    };
    TRY(mir_state_read_begin(state, &txn, error));
    mir_status status = mir_event_plan_all(state, txn, &plan);
    plan.ascending = true;
    plan.looked_max = MIR_EVENT_LOOKED_MAX;
    if (status == MIR_OK) status = mir_event_walk(state, txn, &plan, on_oldest, &made.oldest_ns);
    mir_state_read_end(state, txn);
    if (status != MIR_OK) {
        mir_state_db_explain(&state->db, status, error);
        return status;
    }
    *out = made;
    return MIR_OK;
}
