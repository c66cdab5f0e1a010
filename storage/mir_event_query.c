/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_event_query.h"

#include <stdio.h>
#include <stdlib.h>

#include "mir_device_rules.h"
#include "mir_pb.h"
#include "mir_state_internal.h"
#include "mir_state_target.h"
#include "mir_timestamp.h"

enum {
    INDEXED_HASHES_MAX = 1024, /* of a clause: more are cheaper to compare in heads */
    FEW_PLACES = 64,           /* in a block: cheaper to look at than to intersect */
    SUFFIX_DIGITS = 12,
    BLOCK_WORDS = MIR_EVENT_BLOCK / 64,
};

typedef MirStore__V1__EventRecord record;

#define TRY(call)                                                                                  \
    do {                                                                                           \
        mir_status try_status = (call);                                                            \
        if (try_status != MIR_OK) return try_status;                                               \
    } while (0)

/* ── Conditions ──────────────────────────────────────────────────────────────────────────────── */

static int compare_hashes(const void *a, const void *b)
{
    uint32_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? -1 : x > y;
}

static int compare_texts(const void *a, const void *b)
{
    const char *x, *y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return strcmp(x, y);
}

static void add_clause(mir_event_plan *plan, mir_event_term term, uint32_t *hashes, size_t count,
                       bool open)
{
    qsort(hashes, count, sizeof *hashes, compare_hashes);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (i == 0 || hashes[i] != hashes[i - 1]) hashes[kept++] = hashes[i];
    plan->clauses[plan->clause_count++] = (mir_event_clause){
        .term = term,
        .hashes = hashes,
        .count = kept,
        .open = open,
        .indexed = kept <= INDEXED_HASHES_MAX,
    };
}

mir_status mir_event_plan_add(mir_event_plan *plan, mir_event_term term, uint32_t hash,
                              mir_arena *arena)
{
    uint32_t *one = mir_arena_alloc(arena, sizeof *one);
    if (one == NULL) return MIR_E_NO_MEMORY;
    *one = hash;
    add_clause(plan, term, one, 1, false);
    return MIR_OK;
}

/* A list of texts becomes a clause if each is exact and none is empty. */
static mir_status plan_texts(mir_event_plan *plan, mir_event_term term, char *const *list,
                             size_t count, mir_arena *arena)
{
    if (count == 0) return MIR_OK;
    for (size_t i = 0; i < plan->clause_count; i++)
        if (plan->clauses[i].term == term) return MIR_OK; /* the record decides on the other */
    for (size_t i = 0; i < count; i++) {
        mir_view value = mir_view_cstr(list[i]);
        if (value.size == 0 || mir_pattern_has_star(value)) return MIR_OK;
    }
    uint32_t *hashes = mir_arena_alloc(arena, count * sizeof *hashes);
    if (hashes == NULL) return MIR_E_NO_MEMORY;
    for (size_t i = 0; i < count; i++) hashes[i] = mir_event_hash(mir_view_cstr(list[i]));
    add_clause(plan, term, hashes, count, false);
    return MIR_OK;
}

/* ── Names ───────────────────────────────────────────────────────────────────────────────────── */

/* The names that events may be about so that their own name matches. */
typedef struct bases {
    mir_view *items;
    size_t count;
    bool open; /* a pattern is among them */
    bool all;  /* too many, or any */
} bases;

static bool add_base(bases *b, mir_view name, mir_arena *arena)
{
    if (b->count == MIR_EVENT_NAMES_MAX) {
        b->all = true;
        return true;
    }
    const char *copy = mir_arena_strdup(arena, name);
    if (copy == NULL) return false;
    b->items[b->count++] = mir_view_of(copy, name.size);
    return true;
}

static bool is_hex(mir_view text)
{
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f')) return false;
    }
    return true;
}

/* Every known name that begins like this. */
static mir_status bases_with_prefix(const mir_state_db *db, MDB_txn *txn, mir_view prefix,
                                    mir_arena *arena, bases *b)
{
    MDB_cursor *cursor = NULL;
    MDB_stat known;
    TRY(mir_state_db_status(mdb_stat(txn, db->event_name, &known)));
    if (known.ms_entries >= db->event_names_max) { /* there may be others */
        b->all = true;
        return MIR_OK;
    }
    TRY(mir_state_db_status(mdb_cursor_open(txn, db->event_name, &cursor)));
    MDB_val k = {prefix.size, (void *)(uintptr_t)prefix.data}, v;
    mir_status status = mir_state_db_status(mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE));
    while (status == MIR_OK && !b->all) {
        mir_view name = mir_view_of(k.mv_data, k.mv_size);
        if (!mir_view_starts(name, prefix)) break;
        if (!add_base(b, name, arena)) status = MIR_E_NO_MEMORY;
        if (status == MIR_OK)
            status = mir_state_db_status(mdb_cursor_get(cursor, &k, &v, MDB_NEXT));
    }
    mdb_cursor_close(cursor);
    return status == MIR_E_NOT_FOUND ? MIR_OK : status;
}

static mir_status bases_of_pattern(const mir_state_db *db, MDB_txn *txn, mir_view pattern,
                                   mir_arena *arena, bases *b)
{
    const uint8_t *star = memchr(pattern.data, '*', pattern.size);
    mir_view prefix = mir_view_of(pattern.data, (size_t)(star - pattern.data));
    b->open = true;
    if (prefix.size == 0 || prefix.size > MIR_EVENT_NAME_BYTES_MAX) {
        b->all = true;
        return MIR_OK;
    }
    /* The prefix may reach into the digits: each dash may be the one before them. */
    for (size_t i = 1; i < prefix.size && !b->all; i++) {
        mir_view digits = mir_view_from(prefix, i + 1);
        if (prefix.data[i] == '-' && digits.size <= SUFFIX_DIGITS && is_hex(digits) &&
            !add_base(b, mir_view_of(prefix.data, i), arena))
            return MIR_E_NO_MEMORY;
    }
    return b->all ? MIR_OK : bases_with_prefix(db, txn, prefix, arena, b);
}

static mir_status bases_of(const mir_state_db *db, MDB_txn *txn, char *const *names, size_t count,
                           mir_arena *arena, bases *b)
{
    b->items = mir_arena_alloc(arena, MIR_EVENT_NAMES_MAX * sizeof *b->items);
    if (b->items == NULL) return MIR_E_NO_MEMORY;
    for (size_t i = 0; i < count && !b->all; i++) {
        mir_view name = mir_view_cstr(names[i]);
        if (mir_pattern_has_star(name)) {
            TRY(bases_of_pattern(db, txn, name, arena, b));
        } else if (name.size > SUFFIX_DIGITS + 1) {
            /* No other name is the name of an event. */
            name.size -= SUFFIX_DIGITS + 1;
            if (!add_base(b, name, arena)) return MIR_E_NO_MEMORY;
        }
    }
    return MIR_OK;
}

/* Names with exact namespaces are devices, or else names. */
static mir_status plan_names(const mir_state_db *db, MDB_txn *txn, mir_event_plan *plan,
                             const MirApi__V1__Targets *targets, mir_arena *arena)
{
    bases b = {0};
    bool exact = targets->n_namespaces != 0;
    for (size_t i = 0; i < targets->n_namespaces && exact; i++)
        exact = !mir_pattern_has_star(mir_view_cstr(targets->namespaces[i]));
    if (targets->n_names != 0) {
        TRY(bases_of(db, txn, targets->names, targets->n_names, arena, &b));
        if (b.all) b.count = 0;
    }
    if (targets->n_names == 0 || b.all)
        return plan_texts(plan, MIR_EVENT_NAMESPACE, targets->namespaces, targets->n_namespaces,
                          arena);
    size_t pairs = exact ? targets->n_namespaces : 1;
    if (pairs * b.count > MIR_EVENT_VALUES_MAX) {
        exact = false;
        pairs = 1;
    }
    uint32_t *hashes = mir_arena_alloc(arena, (pairs * b.count + 1) * sizeof *hashes);
    if (hashes == NULL) return MIR_E_NO_MEMORY;
    size_t used = 0;
    for (size_t i = 0; i < b.count; i++) {
        if (!exact) hashes[used++] = mir_event_hash(b.items[i]);
        for (size_t k = 0; exact && k < targets->n_namespaces; k++)
            hashes[used++] =
                mir_event_hash_device(mir_view_cstr(targets->namespaces[k]), b.items[i]);
    }
    add_clause(plan, exact ? MIR_EVENT_DEVICE : MIR_EVENT_NAME, hashes, used, b.open);
    return MIR_OK;
}

/* ── Plans ───────────────────────────────────────────────────────────────────────────────────── */

static mir_status check_list(const char *what, char *const *list, size_t count, size_t *values,
                             mir_error *error)
{
    *values += count;
    if (count > MIR_EVENT_VALUES_MAX || *values > MIR_EVENT_VALUES_MAX)
        return mir_error_set(error, MIR_E_TOO_LARGE,
                             "the target has more than %d values: send it in several requests",
                             MIR_EVENT_VALUES_MAX);
    for (size_t i = 0; i < count; i++)
        if (list[i] != NULL && strlen(list[i]) > MIR_STATE_TARGET_PATTERN_BYTES_MAX)
            return mir_error_set(error, MIR_E_TOO_LARGE,
                                 "a value of %s in the target has more than %d bytes", what,
                                 MIR_STATE_TARGET_PATTERN_BYTES_MAX);
    return MIR_OK;
}

static mir_status check_target(const MirApi__V1__EventTarget *target, mir_error *error)
{
    size_t values = 0;
    if (target->targets != NULL) {
        const MirApi__V1__Targets *t = target->targets;
        TRY(check_list("names", t->names, t->n_names, &values, error));
        TRY(check_list("namespaces", t->namespaces, t->n_namespaces, &values, error));
        values += t->n_labels;
        for (size_t i = 0; i < t->n_labels; i++)
            TRY(check_list("labels", &t->labels[i]->value, 1, &values, error));
    }
    TRY(check_list("device_ids", target->device_ids, target->n_device_ids, &values, error));
    TRY(check_list("reasons", target->reasons, target->n_reasons, &values, error));
    TRY(check_list("types", target->types, target->n_types, &values, error));
    TRY(check_list("actors", target->actors, target->n_actors, &values, error));
    TRY(check_list("outcomes", target->outcomes, target->n_outcomes, &values, error));
    char *text = target->text;
    TRY(check_list("text", &text, 1, &values, error));
    const MirApi__V1__DateFilter *date = target->filter_date;
    if (date != NULL && ((date->from != NULL && !mir_timestamp_valid(date->from)) ||
                         (date->to != NULL && !mir_timestamp_valid(date->to))))
        return mir_error_set(error, MIR_E_INVALID,
                             "a bound of filter_date is no time between the years 1 and 9999");
    return MIR_OK;
}

mir_status mir_event_until(mir_state *state, MDB_txn *txn, uint64_t newest, int64_t until_ns,
                           uint64_t *sequence)
{
    uint64_t low = 0, high = newest; /* low is not after, high + 1 is */
    while (low < high) {
        uint64_t middle = low + (high - low + 1) / 2;
        mir_event_place place;
        mir_status status = mir_event_get(&state->db, txn, middle, &place);
        if (status != MIR_OK) return status == MIR_E_NOT_FOUND ? MIR_E_CORRUPT : status;
        if (place.at_ns <= until_ns)
            low = middle;
        else
            high = middle - 1;
    }
    *sequence = low;
    return MIR_OK;
}

mir_status mir_event_plan_all(mir_state *state, MDB_txn *txn, mir_event_plan *plan)
{
    mir_event_head head;
    TRY(mir_event_head_read(&state->db, txn, &head));
    *plan = (mir_event_plan){.first = 1, .last = head.sequence, .looked_max = UINT64_MAX};
    return MIR_OK;
}

static mir_status plan_time(mir_state *state, MDB_txn *txn, const MirApi__V1__EventTarget *target,
                            mir_event_plan *plan)
{
    const uint64_t newest = plan->last;
    const MirApi__V1__DateFilter *date = target->filter_date;
    if (date != NULL && date->from != NULL) {
        int64_t from_ns = mir_timestamp_ns(date->from);
        uint64_t before = 0;
        if (from_ns > INT64_MIN) TRY(mir_event_until(state, txn, newest, from_ns - 1, &before));
        if (before + 1 > plan->first) plan->first = before + 1;
    }
    if (date != NULL && date->to != NULL)
        TRY(mir_event_until(state, txn, newest, mir_timestamp_ns(date->to), &plan->last));
    if (target->has_after_sequence) {
        plan->ascending = true;
        if (target->after_sequence >= plan->last)
            plan->first = plan->last + 1;
        else if (target->after_sequence + 1 > plan->first)
            plan->first = target->after_sequence + 1;
    }
    if (target->has_before_sequence && target->before_sequence <= plan->last)
        plan->last = target->before_sequence == 0 ? 0 : target->before_sequence - 1;
    return MIR_OK;
}

static mir_status plan_devices(mir_state *state, MDB_txn *txn, mir_event_plan *plan,
                               const MirApi__V1__DeviceTarget *devices, mir_arena *arena,
                               mir_error *error)
{
    MirStore__V1__DeviceRecord **list = NULL;
    size_t count = 0;
    TRY(mir_state_target_load(&state->db, txn, devices, arena, &list, &count, error));
    plan->ids = mir_arena_alloc(arena, (count + 1) * sizeof *plan->ids);
    uint32_t *hashes = mir_arena_alloc(arena, (count + 1) * sizeof *hashes);
    if (plan->ids == NULL || hashes == NULL) return MIR_E_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        plan->ids[i] = list[i]->device_id;
        hashes[i] = mir_event_hash(mir_view_cstr(list[i]->device_id));
    }
    plan->id_count = count;
    qsort(plan->ids, count, sizeof *plan->ids, compare_texts);
    add_clause(plan, MIR_EVENT_ID, hashes, count, false);
    return MIR_OK;
}

/* The value that a label key has in the target; the last one counts. */
static const char *label_in(const MirApi__V1__Targets *targets, const char *key)
{
    const char *value = NULL;
    for (size_t i = 0; i < targets->n_labels; i++)
        if (targets->labels[i]->key != NULL && strcmp(targets->labels[i]->key, key) == 0)
            value = targets->labels[i]->value == NULL ? "" : targets->labels[i]->value;
    return value;
}

static mir_status plan_label(mir_event_plan *plan, const MirApi__V1__Targets *targets,
                             const char *key, mir_event_term term, mir_arena *arena)
{
    const char *value = label_in(targets, key);
    if (value == NULL) return MIR_OK;
    char *text = (char *)(uintptr_t)value;
    return plan_texts(plan, term, &text, 1, arena);
}

mir_status mir_event_plan_make(mir_state *state, MDB_txn *txn,
                               const MirApi__V1__EventTarget *target, mir_arena *arena,
                               mir_event_plan *plan, mir_error *error)
{
    TRY(mir_event_plan_all(state, txn, plan));
    if (target == NULL) return MIR_OK;
    TRY(check_target(target, error));
    plan->target = target;
    TRY(plan_time(state, txn, target, plan));
    /* In the order of how much they leave out. */
    if (target->devices != NULL && !mir_state_target_is_empty(target->devices))
        TRY(plan_devices(state, txn, plan, target->devices, arena, error));
    TRY(plan_texts(plan, MIR_EVENT_ID, target->device_ids, target->n_device_ids, arena));
    if (target->targets != NULL) TRY(plan_names(&state->db, txn, plan, target->targets, arena));
    TRY(plan_texts(plan, MIR_EVENT_ACTOR, target->actors, target->n_actors, arena));
    if (target->targets != NULL)
        TRY(plan_label(plan, target->targets, "reason", MIR_EVENT_REASON, arena));
    TRY(plan_texts(plan, MIR_EVENT_REASON, target->reasons, target->n_reasons, arena));
    TRY(plan_texts(plan, MIR_EVENT_OUTCOME, target->outcomes, target->n_outcomes, arena));
    if (target->targets != NULL)
        TRY(plan_label(plan, target->targets, "type", MIR_EVENT_TYPE, arena));
    return plan_texts(plan, MIR_EVENT_TYPE, target->types, target->n_types, arena);
}

/* ── One record ──────────────────────────────────────────────────────────────────────────────── */

static bool list_matches(char *const *list, size_t count, mir_view text)
{
    if (count == 0) return true;
    for (size_t i = 0; i < count; i++)
        if (mir_pattern_match(mir_view_cstr(list[i]), text)) return true;
    return false;
}

static bool targets_match(const MirApi__V1__Targets *targets, const record *r)
{
    if (targets == NULL) return true;
    if (!list_matches(targets->namespaces, targets->n_namespaces, mir_event_name_space(r)))
        return false;
    for (size_t i = 0; i < targets->n_labels; i++) {
        const char *key = targets->labels[i]->key == NULL ? "" : targets->labels[i]->key;
        mir_view value = {NULL, 0};
        if (strcmp(key, "reason") == 0) value = mir_view_cstr(r->reason);
        if (strcmp(key, "type") == 0) value = mir_view_cstr(r->type);
        if (!mir_pattern_match(mir_view_cstr(label_in(targets, key)), value)) return false;
    }
    if (targets->n_names == 0) return true;
    char name[MIR_EVENT_NAME_BYTES_MAX + SUFFIX_DIGITS + 2];
    mir_view base = mir_event_base_name(r);
    if (base.size > MIR_EVENT_NAME_BYTES_MAX) return false;
    int size = snprintf(name, sizeof name, "%.*s-%012llx", MIR_VIEW_ARGS(base),
                        (unsigned long long)r->suffix);
    return list_matches(targets->names, targets->n_names, mir_view_of(name, (size_t)size));
}

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c;
}

static bool contains(mir_view text, mir_view part)
{
    if (part.size > text.size) return false;
    for (size_t i = 0; i <= text.size - part.size; i++) {
        size_t k = 0;
        while (k < part.size && lower(text.data[i + k]) == lower(part.data[k])) k++;
        if (k == part.size) return true;
    }
    return false;
}

static mir_status text_matches(mir_state *state, MDB_txn *txn, const record *r, mir_view text,
                               bool *matches)
{
    *matches = contains(mir_view_cstr(r->reason), text) ||
               contains(mir_view_cstr(r->message), text) ||
               (r->audit != NULL && contains(mir_view_cstr(r->audit->error), text));
    if (*matches) return MIR_OK;
    mir_bytes payload = {0};
    mir_status status = mir_event_payload(state, txn, r, false, &payload);
    if (status == MIR_OK) *matches = contains(mir_bytes_as_view(&payload), text);
    mir_bytes_free(&payload);
    return status;
}

static mir_status record_matches(mir_state *state, MDB_txn *txn, const mir_event_plan *plan,
                                 const record *r, bool *matches)
{
    mir_view id = mir_event_subject_id(r);
    *matches = (plan->exact_id.size == 0 || mir_view_eq(plan->exact_id, id)) &&
               (plan->exact_name.size == 0 ||
                (mir_view_eq(plan->exact_name, mir_event_base_name(r)) &&
                 mir_view_eq(plan->exact_name_space, mir_event_name_space(r))));
    const MirApi__V1__EventTarget *target = plan->target;
    if (!*matches || target == NULL) return MIR_OK;
    mir_view actor = {NULL, 0}, outcome = {NULL, 0};
    if (r->audit != NULL) {
        actor = mir_view_cstr(r->audit->actor);
        outcome = mir_view_cstr(r->audit->outcome);
    }
    *matches = list_matches(target->device_ids, target->n_device_ids, id) &&
               list_matches(target->reasons, target->n_reasons, mir_view_cstr(r->reason)) &&
               list_matches(target->types, target->n_types, mir_view_cstr(r->type)) &&
               list_matches(target->actors, target->n_actors, actor) &&
               list_matches(target->outcomes, target->n_outcomes, outcome) &&
               targets_match(target->targets, r);
    if (*matches && plan->ids != NULL) {
        char key[MIR_EVENT_NAME_BYTES_MAX + 1];
        if (id.size > MIR_EVENT_NAME_BYTES_MAX) return MIR_E_CORRUPT;
        memcpy(key, id.data, id.size);
        key[id.size] = '\0';
        const char *sought = key;
        *matches =
            bsearch(&sought, plan->ids, plan->id_count, sizeof *plan->ids, compare_texts) != NULL;
    }
    if (!*matches || target->text == NULL || target->text[0] == '\0') return MIR_OK;
    return text_matches(state, txn, r, mir_view_cstr(target->text), matches);
}

/* ── Walking ─────────────────────────────────────────────────────────────────────────────────── */

typedef struct walk {
    mir_state *state;
    MDB_txn *txn;
    MDB_cursor *events, *index;
    mir_event_plan *plan;
    mir_event_visit visit;
    void *ctx;
    uint64_t indexed; /* blocks */
    mir_arena scratch;
} walk;

static bool has_hash(const mir_event_clause *clause, uint32_t hash)
{
    size_t low = 0, high = clause->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (clause->hashes[middle] == hash) return true;
        if (clause->hashes[middle] < hash)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

/* Whether an event about that name may have a name that matches; cheap, and not too strict. */
static bool name_may_match(const MirApi__V1__Targets *targets, mir_view base)
{
    for (size_t i = 0; i < targets->n_names; i++) {
        mir_view name = mir_view_cstr(targets->names[i]);
        const uint8_t *star = name.size == 0 ? NULL : memchr(name.data, '*', name.size);
        if (star != NULL) name.size = (size_t)(star - name.data);
        if (mir_view_starts(base, name) || mir_view_starts(name, base)) return true;
    }
    return false;
}

static mir_status look_at(walk *w, uint64_t sequence, mir_view value)
{
    mir_event_plan *plan = w->plan;
    mir_event_place place;
    if (plan->looked == plan->looked_max) {
        plan->cut = true;
        plan->at = sequence;
        return MIR_E_CANCELLED;
    }
    plan->looked++;
    if (!mir_event_place_read(value, &place)) return MIR_E_CORRUPT;
    if ((place.flags & (MIR_EVENT_IS_TOMB | MIR_EVENT_IS_REMOVAL)) != 0 ||
        (place.flags & plan->flags) != plan->flags)
        return MIR_OK;
    bool in_index = (sequence - 1) / MIR_EVENT_BLOCK < w->indexed;
    for (size_t i = 0; i < plan->clause_count; i++) {
        const mir_event_clause *clause = &plan->clauses[i];
        if (!clause->open || in_index) {
            if (!has_hash(clause, mir_event_place_term(&place, clause->term))) return MIR_OK;
            continue;
        }
        mir_view base;
        if (!mir_event_peek_name(place.record, &base)) return MIR_E_CORRUPT;
        if (!name_may_match(plan->target->targets, base)) return MIR_OK;
    }
    mir_arena_free(&w->scratch);
    record *r = NULL;
    mir_status status = mir_pb_unpack(&mir_store__v1__event_record__descriptor, place.record,
                                      &w->scratch, &r, NULL);
    if (status != MIR_OK) return status == MIR_E_INVALID ? MIR_E_CORRUPT : status;
    bool matches = false;
    TRY(record_matches(w->state, w->txn, plan, r, &matches));
    return matches ? w->visit(w->ctx, sequence, &place, r, &w->scratch) : MIR_OK;
}

static mir_status get_event(walk *w, uint64_t sequence, MDB_val *v)
{
    uint8_t bytes[8];
    mir_state_u64_write(bytes, sequence);
    MDB_val k = {sizeof bytes, bytes};
    mir_status status = mir_state_db_status(mdb_cursor_get(w->events, &k, v, MDB_SET));
    return status == MIR_E_NOT_FOUND ? MIR_E_CORRUPT : status; /* there are no gaps */
}

/* Every head from `low` to `high`. */
static mir_status walk_heads(walk *w, uint64_t low, uint64_t high)
{
    const bool up = w->plan->ascending;
    uint64_t sequence = up ? low : high;
    MDB_val k, v;
    TRY(get_event(w, sequence, &v));
    for (;;) {
        TRY(look_at(w, sequence, mir_view_of(v.mv_data, v.mv_size)));
        if (sequence == (up ? high : low)) return MIR_OK;
        sequence = up ? sequence + 1 : sequence - 1;
        mir_status status =
            mir_state_db_status(mdb_cursor_get(w->events, &k, &v, up ? MDB_NEXT : MDB_PREV));
        if (status == MIR_E_NOT_FOUND ||
            (status == MIR_OK && (k.mv_size != 8 || mir_state_u64_read(k.mv_data) != sequence)))
            return MIR_E_CORRUPT;
        TRY(status);
    }
}

void mir_event_index_key(uint64_t block, unsigned term, uint32_t hash,
                         uint8_t key[MIR_EVENT_INDEX_KEY_BYTES])
{
    for (int i = 0; i < 4; i++) {
        key[i] = (uint8_t)(block >> (24 - 8 * i));
        key[5 + i] = (uint8_t)(hash >> (24 - 8 * i));
    }
    key[4] = (uint8_t)term;
}

bool mir_event_index_places(mir_view value, uint64_t bits[BLOCK_WORDS])
{
    if (value.size == MIR_EVENT_BITMAP_BYTES) {
        for (size_t i = 0; i < value.size; i++)
            bits[i / 8] |= (uint64_t)value.data[i] << (i % 8 * 8);
        return true;
    }
    if (value.size % 2 != 0 || value.size > MIR_EVENT_BITMAP_BYTES) return false;
    for (size_t i = 0; i < value.size; i += 2) {
        unsigned place = (unsigned)value.data[i] << 8 | value.data[i + 1];
        if (place >= MIR_EVENT_BLOCK) return false;
        bits[place / 64] |= UINT64_C(1) << (place % 64);
    }
    return true;
}

static mir_status clause_places(walk *w, uint64_t block, const mir_event_clause *clause,
                                uint64_t bits[BLOCK_WORDS])
{
    memset(bits, 0, BLOCK_WORDS * sizeof *bits);
    for (size_t i = 0; i < clause->count; i++) {
        uint8_t key[MIR_EVENT_INDEX_KEY_BYTES];
        mir_event_index_key(block, clause->term, clause->hashes[i], key);
        MDB_val k = {sizeof key, key}, v;
        mir_status status = mir_state_db_status(mdb_cursor_get(w->index, &k, &v, MDB_SET));
        if (status == MIR_E_NOT_FOUND) continue;
        TRY(status);
        if (!mir_event_index_places(mir_view_of(v.mv_data, v.mv_size), bits)) return MIR_E_CORRUPT;
    }
    return MIR_OK;
}

/* The places of a block that the index leaves; false: it says nothing about these conditions. */
static mir_status block_places(walk *w, uint64_t block, uint64_t bits[BLOCK_WORDS], bool *known)
{
    const mir_event_plan *plan = w->plan;
    *known = false;
    for (size_t i = 0; i < plan->clause_count; i++) {
        if (!plan->clauses[i].indexed) continue;
        uint64_t more[BLOCK_WORDS];
        TRY(clause_places(w, block, &plan->clauses[i], *known ? more : bits));
        size_t left = 0;
        for (size_t k = 0; k < BLOCK_WORDS; k++) {
            if (*known) bits[k] &= more[k];
            left += (size_t)__builtin_popcountll(bits[k]);
        }
        *known = true;
        if (left <= FEW_PLACES) break;
    }
    return MIR_OK;
}

static mir_status walk_places(walk *w, uint64_t block, uint64_t low, uint64_t high,
                              const uint64_t bits[BLOCK_WORDS])
{
    const uint64_t start = block * MIR_EVENT_BLOCK + 1;
    const bool up = w->plan->ascending;
    for (size_t n = 0; n < BLOCK_WORDS; n++) {
        size_t word = up ? n : BLOCK_WORDS - 1 - n;
        uint64_t left = bits[word];
        while (left != 0) {
            int bit = up ? __builtin_ctzll(left) : 63 - __builtin_clzll(left);
            left &= ~(UINT64_C(1) << bit);
            uint64_t sequence = start + word * 64 + (unsigned)bit;
            if (sequence < low || sequence > high) continue;
            MDB_val v;
            TRY(get_event(w, sequence, &v));
            TRY(look_at(w, sequence, mir_view_of(v.mv_data, v.mv_size)));
        }
    }
    return MIR_OK;
}

static mir_status walk_blocks(walk *w)
{
    const mir_event_plan *plan = w->plan;
    const uint64_t first = (plan->first - 1) / MIR_EVENT_BLOCK;
    const uint64_t last = (plan->last - 1) / MIR_EVENT_BLOCK;
    for (uint64_t n = 0; n <= last - first; n++) {
        uint64_t block = plan->ascending ? first + n : last - n;
        uint64_t low = block * MIR_EVENT_BLOCK + 1, high = low + MIR_EVENT_BLOCK - 1;
        if (low < plan->first) low = plan->first;
        if (high > plan->last) high = plan->last;
        uint64_t bits[BLOCK_WORDS];
        bool known = false;
        if (block < w->indexed) TRY(block_places(w, block, bits, &known));
        if (known) {
            TRY(walk_places(w, block, low, high, bits));
            continue;
        }
        mir_event_block state;
        mir_status status = mir_event_block_read(&w->state->db, w->txn, block, &state);
        if (status == MIR_OK && state.live == 0) continue; /* nothing but tombs */
        if (status != MIR_E_NOT_FOUND) TRY(status);
        TRY(walk_heads(w, low, high));
    }
    return MIR_OK;
}

mir_status mir_event_walk(mir_state *state, MDB_txn *txn, mir_event_plan *plan,
                          mir_event_visit visit, void *ctx)
{
    plan->cut = false;
    if (plan->first > plan->last || plan->last == 0) return MIR_OK;
    for (size_t i = 0; i < plan->clause_count; i++)
        if (plan->clauses[i].count == 0 && !plan->clauses[i].open) return MIR_OK;
    walk w = {.state = state, .txn = txn, .plan = plan, .visit = visit, .ctx = ctx};
    TRY(mir_event_indexed_read(&state->db, txn, &w.indexed));
    TRY(mir_state_db_status(mdb_cursor_open(txn, state->db.event, &w.events)));
    mir_status status = mir_state_db_status(mdb_cursor_open(txn, state->db.event_index, &w.index));
    if (status == MIR_OK) {
        status = walk_blocks(&w);
        mdb_cursor_close(w.index);
    }
    mdb_cursor_close(w.events);
    mir_arena_free(&w.scratch);
    return status == MIR_E_CANCELLED ? MIR_OK : status;
}
