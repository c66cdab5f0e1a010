/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_state_target.h"

#include <stdlib.h>

#include "mir_device_rules.h"

#define TRY(call)                                                                                  \
    do {                                                                                           \
        mir_status try_status = (call);                                                            \
        if (try_status != MIR_OK) return try_status;                                               \
    } while (0)

bool mir_state_target_is_empty(const MirApi__V1__DeviceTarget *target)
{
    return target == NULL ||
           (target->n_ids == 0 && target->n_names == 0 && target->n_namespaces == 0 &&
            target->n_labels == 0 && target->n_schemas == 0 && target->n_liveness == 0);
}

/* ── Sets of numbers ─────────────────────────────────────────────────────────────────────────── */

static mir_status add(mir_state_numbers *set, uint64_t number)
{
    if (set->count == set->capacity) {
        size_t capacity = set->capacity == 0 ? 64 : set->capacity * 2;
        uint64_t *items = realloc(set->items, capacity * sizeof *items);
        if (items == NULL) return MIR_E_NO_MEMORY;
        set->items = items;
        set->capacity = capacity;
    }
    set->items[set->count++] = number;
    return MIR_OK;
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? -1 : x > y;
}

static void normalize(mir_state_numbers *set)
{
    bool ascending = true;
    for (size_t i = 1; i < set->count && ascending; i++)
        ascending = set->items[i - 1] < set->items[i];
    if (ascending) return;
    qsort(set->items, set->count, sizeof *set->items, compare_numbers);
    size_t kept = 0;
    for (size_t i = 0; i < set->count; i++)
        if (i == 0 || set->items[i] != set->items[i - 1]) set->items[kept++] = set->items[i];
    set->count = kept;
}

/* Keeps in `set` what is in `other`, or with `without` what is not. */
static void intersect(mir_state_numbers *set, const mir_state_numbers *other, bool without)
{
    size_t kept = 0, j = 0;
    for (size_t i = 0; i < set->count; i++) {
        while (j < other->count && other->items[j] < set->items[i]) j++;
        bool common = j < other->count && other->items[j] == set->items[i];
        if (common != without) set->items[kept++] = set->items[i];
    }
    set->count = kept;
}

/* ── Scans of index keys ─────────────────────────────────────────────────────────────────────── */

/* What a scan does with an entry below its prefix. */
typedef mir_status (*visit)(void *ctx, mir_view key, mir_view data);

static mir_status scan(MDB_txn *txn, MDB_dbi dbi, const mir_state_key *prefix, visit on_entry,
                       void *ctx)
{
    if (prefix->failed) return MIR_OK; /* longer than any key */
    MDB_cursor *cursor = NULL;
    TRY(mir_state_db_status(mdb_cursor_open(txn, dbi, &cursor)));
    mir_view start = mir_view_of(prefix->data, prefix->size);
    MDB_val k = {prefix->size, (void *)(uintptr_t)prefix->data}, v;
    mir_status status = mir_state_db_status(
        mdb_cursor_get(cursor, &k, &v, start.size == 0 ? MDB_FIRST : MDB_SET_RANGE));
    while (status == MIR_OK) {
        mir_view key = mir_view_of(k.mv_data, k.mv_size);
        if (!mir_view_starts(key, start)) break;
        status = on_entry(ctx, key, mir_view_of(v.mv_data, v.mv_size));
        if (status == MIR_OK)
            status = mir_state_db_status(mdb_cursor_get(cursor, &k, &v, MDB_NEXT));
    }
    mdb_cursor_close(cursor);
    return status == MIR_E_NOT_FOUND ? MIR_OK : status;
}

typedef struct scan_ctx {
    mir_state_numbers *set;
    mir_view pattern;   /* empty: no filter */
    size_t value_start; /* where the value begins in a label key */
    bool hashed_only;
} scan_ctx;

static mir_status number_in_data(scan_ctx *ctx, mir_view data)
{
    if (data.size != 8) return MIR_E_CORRUPT;
    return add(ctx->set, mir_state_u64_read(data.data));
}

static mir_status number_in_key(scan_ctx *ctx, mir_view key)
{
    if (key.size < 8) return MIR_E_CORRUPT;
    return add(ctx->set, mir_state_u64_read(key.data + key.size - 8));
}

/* id: the key is the value. */
static mir_status on_id(void *opaque, mir_view key, mir_view data)
{
    scan_ctx *ctx = opaque;
    if (ctx->pattern.size != 0 && !mir_pattern_match(ctx->pattern, key)) return MIR_OK;
    return number_in_data(ctx, data);
}

/* name, namespace: the value ends at the zero byte. */
static mir_status on_pair(void *opaque, mir_view key, mir_view data)
{
    scan_ctx *ctx = opaque;
    if (ctx->pattern.size != 0) {
        const uint8_t *zero = memchr(key.data, 0, key.size);
        if (zero == NULL) return MIR_E_CORRUPT;
        mir_view value = mir_view_of(key.data, (size_t)(zero - key.data));
        if (!mir_pattern_match(ctx->pattern, value)) return MIR_OK;
    }
    return number_in_data(ctx, data);
}

static mir_status on_label(void *opaque, mir_view key, mir_view data)
{
    scan_ctx *ctx = opaque;
    if (ctx->pattern.size != 0) {
        if (key.size < ctx->value_start + 9) return MIR_E_CORRUPT;
        bool hashed = key.data[ctx->value_start] == MIR_STATE_LABEL_HASHED;
        if (ctx->hashed_only && !hashed) return MIR_OK;
        mir_view value =
            hashed ? data
                   : mir_view_of(key.data + ctx->value_start, key.size - ctx->value_start - 9);
        if (!mir_pattern_match(ctx->pattern, value)) return MIR_OK;
    }
    return number_in_key(ctx, key);
}

static mir_status on_label_exact_hash(void *opaque, mir_view key, mir_view data)
{
    scan_ctx *ctx = opaque;
    return mir_view_eq(ctx->pattern, data) ? number_in_key(ctx, key) : MIR_OK;
}

static mir_status on_package(void *opaque, mir_view key, mir_view data)
{
    (void)data;
    return number_in_key(opaque, key);
}

static mir_view before_star(mir_view pattern)
{
    const uint8_t *star = memchr(pattern.data, '*', pattern.size);
    return star == NULL ? pattern : mir_view_of(pattern.data, (size_t)(star - pattern.data));
}

static mir_view view_of_text(const char *text)
{
    return mir_view_cstr(text);
}

/* ── Clauses ─────────────────────────────────────────────────────────────────────────────────── */

typedef enum clause_kind { IDS, NAMES, NAMESPACES, SCHEMA, LABEL } clause_kind;

/* One of the conditions that are combined with AND. */
typedef struct clause {
    clause_kind kind;
    bool scans;   /* looks at more keys than it takes */
    size_t index; /* of the schema or the label */
} clause;

static bool only_stars(mir_view pattern)
{
    for (size_t i = 0; i < pattern.size; i++)
        if (pattern.data[i] != '*') return false;
    return pattern.size != 0;
}

static mir_status check_value(const char *text, size_t *values, size_t *scans, bool scan_it,
                              mir_error *error)
{
    mir_view value = view_of_text(text);
    ++*values;
    if (scan_it) ++*scans;
    if (scan_it && value.size > MIR_STATE_TARGET_PATTERN_BYTES_MAX)
        return mir_error_set(error, MIR_E_TOO_LARGE,
                             "a pattern of the target has %zu bytes: use at most %d", value.size,
                             MIR_STATE_TARGET_PATTERN_BYTES_MAX);
    return MIR_OK;
}

/* A list as one clause, unless a lone `*` in it matches everything. */
static mir_status add_list(clause *clauses, size_t *count, clause_kind kind, char *const *list,
                           size_t n, size_t *values, size_t *scans, mir_error *error)
{
    bool any_scan = false, everything = false;
    for (size_t i = 0; i < n; i++) {
        mir_view value = view_of_text(list[i]);
        bool star = mir_pattern_has_star(value);
        if (only_stars(value)) everything = true;
        if (star) any_scan = true;
        TRY(check_value(list[i], values, scans, star, error));
    }
    if (n != 0 && !everything) clauses[(*count)++] = (clause){kind, any_scan, 0};
    return MIR_OK;
}

static int clause_cost(const clause *c)
{
    static const int exact[] = {
        [IDS] = 0, [NAMES] = 1, [LABEL] = 2, [SCHEMA] = 3, [NAMESPACES] = 4};
    return exact[c->kind] + (c->scans ? 10 : 0);
}

static int compare_clauses(const void *a, const void *b)
{
    return clause_cost(a) - clause_cost(b);
}

static mir_status collect_list(const mir_state_db *db, MDB_txn *txn, clause_kind kind,
                               char *const *list, size_t n, mir_state_numbers *set)
{
    MDB_dbi dbi = kind == IDS ? db->id : kind == NAMES ? db->name : db->name_space;
    for (size_t i = 0; i < n; i++) {
        mir_view value = view_of_text(list[i]);
        if (value.size == 0) continue; /* matches an empty value alone, and there is none */
        bool star = mir_pattern_has_star(value);
        scan_ctx ctx = {.set = set, .pattern = star ? value : (mir_view){NULL, 0}};
        mir_state_key prefix;
        prefix.size = 0;
        prefix.failed = false;
        if (kind == IDS && !star) {
            uint64_t number = 0;
            mir_status status = mir_state_db_find_id(db, txn, value, &number);
            if (status == MIR_E_NOT_FOUND) continue;
            TRY(status);
            TRY(add(set, number));
            continue;
        }
        mir_state_key_view(&prefix, star ? before_star(value) : value);
        if (!star) mir_state_key_u8(&prefix, 0);
        TRY(scan(txn, dbi, &prefix, kind == IDS ? on_id : on_pair, &ctx));
    }
    return MIR_OK;
}

static mir_status collect_schema(const mir_state_db *db, MDB_txn *txn, const char *package,
                                 mir_state_numbers *set)
{
    scan_ctx ctx = {.set = set};
    mir_state_key prefix;
    prefix.size = 0;
    prefix.failed = false;
    mir_state_key_view(&prefix, view_of_text(package));
    mir_state_key_u8(&prefix, 0);
    return scan(txn, db->package, &prefix, on_package, &ctx);
}

/* `*without` is set when the set holds the devices that do not match: those with any value. */
static mir_status collect_label(const mir_state_db *db, MDB_txn *txn,
                                const MirApi__V1__DeviceTarget__LabelsEntry *label,
                                mir_state_numbers *set, bool *without)
{
    mir_view key = view_of_text(label->key), value = view_of_text(label->value);
    bool star = mir_pattern_has_star(value);
    scan_ctx ctx = {.set = set, .value_start = key.size + 1};
    mir_state_key prefix;
    prefix.size = 0;
    prefix.failed = false;
    *without = value.size == 0;
    if (value.size != 0 && !star) {
        if (value.size <= MIR_STATE_LABEL_INLINE_BYTES_MAX) {
            mir_state_key_label(&prefix, key, value);
            return scan(txn, db->label, &prefix, on_label, &ctx);
        }
        ctx.pattern = value;
        mir_state_key_label(&prefix, key, value);
        return scan(txn, db->label, &prefix, on_label_exact_hash, &ctx);
    }
    mir_state_key_view(&prefix, key);
    mir_state_key_u8(&prefix, 0);
    if (!star) return scan(txn, db->label, &prefix, on_label, &ctx);
    ctx.pattern = value;
    mir_view literal = before_star(value);
    if (literal.size == 0) return scan(txn, db->label, &prefix, on_label, &ctx);
    mir_state_key hashed = prefix;
    mir_state_key_u8(&hashed, MIR_STATE_LABEL_HASHED);
    ctx.hashed_only = true;
    TRY(scan(txn, db->label, &hashed, on_label, &ctx));
    ctx.hashed_only = false;
    mir_state_key_view(&prefix, literal);
    return scan(txn, db->label, &prefix, on_label, &ctx);
}

static mir_status collect(const mir_state_db *db, MDB_txn *txn,
                          const MirApi__V1__DeviceTarget *target, const clause *c,
                          mir_state_numbers *set, bool *without)
{
    *without = false;
    switch (c->kind) {
    case IDS: return collect_list(db, txn, IDS, target->ids, target->n_ids, set);
    case NAMES: return collect_list(db, txn, NAMES, target->names, target->n_names, set);
    case NAMESPACES:
        return collect_list(db, txn, NAMESPACES, target->namespaces, target->n_namespaces, set);
    case SCHEMA: return collect_schema(db, txn, target->schemas[c->index], set);
    case LABEL: return collect_label(db, txn, target->labels[c->index], set, without);
    }
    return MIR_E_INVALID;
}

static mir_status collect_all(const mir_state_db *db, MDB_txn *txn, mir_state_numbers *set)
{
    scan_ctx ctx = {.set = set};
    mir_state_key prefix;
    prefix.size = 0;
    prefix.failed = false;
    TRY(scan(txn, db->id, &prefix, on_id, &ctx));
    normalize(set);
    return MIR_OK;
}

/* Of several entries with one key the last one counts. */
static bool label_is_superseded(const MirApi__V1__DeviceTarget *target, size_t index)
{
    for (size_t i = index + 1; i < target->n_labels; i++)
        if (mir_view_eq(view_of_text(target->labels[i]->key),
                        view_of_text(target->labels[index]->key)))
            return true;
    return false;
}

static const char *const liveness_names[] = {"online", "offline", "disabled"};

static const char *liveness_of(const MirStore__V1__DeviceRecord *record)
{
    if (record->has_disabled && record->disabled) return "disabled";
    return record->has_online && record->online ? "online" : "offline";
}

static mir_status check_liveness(const MirApi__V1__DeviceTarget *target, mir_error *error)
{
    for (size_t i = 0; i < target->n_liveness; i++) {
        mir_view value = view_of_text(target->liveness[i]);
        bool known = false;
        for (size_t k = 0; k < sizeof liveness_names / sizeof liveness_names[0]; k++)
            known = known || mir_view_eq_cstr(value, liveness_names[k]);
        if (!known)
            return mir_error_set(error, MIR_E_INVALID,
                                 "'%.*s' is no liveness of a device: it is online, offline or "
                                 "disabled",
                                 value.size > 64 ? 64 : (int)value.size, (const char *)value.data);
    }
    return MIR_OK;
}

static mir_status list_clauses(const MirApi__V1__DeviceTarget *target, clause *clauses,
                               size_t *count, mir_error *error)
{
    size_t values = 0, scans = 0;
    TRY(add_list(clauses, count, IDS, target->ids, target->n_ids, &values, &scans, error));
    TRY(add_list(clauses, count, NAMES, target->names, target->n_names, &values, &scans, error));
    TRY(add_list(clauses, count, NAMESPACES, target->namespaces, target->n_namespaces, &values,
                 &scans, error));
    for (size_t i = 0; i < target->n_labels; i++) {
        if (label_is_superseded(target, i)) continue;
        mir_view value = view_of_text(target->labels[i]->value);
        bool scan_it = value.size == 0 || mir_pattern_has_star(value);
        TRY(check_value(target->labels[i]->value, &values, &scans, scan_it, error));
        if (!only_stars(value)) clauses[(*count)++] = (clause){LABEL, scan_it, i};
    }
    for (size_t i = 0; i < target->n_schemas; i++) {
        values++;
        clauses[(*count)++] = (clause){SCHEMA, false, i};
    }
    if (scans > MIR_STATE_TARGET_SCANS_MAX)
        return mir_error_set(error, MIR_E_TOO_LARGE,
                             "the target has %zu patterns and empty label values: use at most %d",
                             scans, MIR_STATE_TARGET_SCANS_MAX);
    return MIR_OK;
}

enum { CONDITIONS_MAX = 256 }; /* labels and schemas of one target; their lists are compared */

mir_status mir_state_target_candidates(const mir_state_db *db, MDB_txn *txn,
                                       const MirApi__V1__DeviceTarget *target,
                                       mir_state_numbers *numbers, bool *exact, mir_error *error)
{
    mir_state_numbers candidates = {0};
    mir_status status = MIR_OK;
    clause clauses[3 + CONDITIONS_MAX];
    size_t count = 0;
    *exact = true;
    if (!mir_state_target_is_empty(target)) {
        if (target->n_labels > CONDITIONS_MAX || target->n_schemas > CONDITIONS_MAX ||
            target->n_labels + target->n_schemas > CONDITIONS_MAX)
            return mir_error_set(error, MIR_E_TOO_LARGE,
                                 "the target has %zu labels and %zu schemas: use at most %d",
                                 target->n_labels, target->n_schemas, CONDITIONS_MAX);
        if (target->n_ids > MIR_STATE_TARGET_VALUES_MAX ||
            target->n_names > MIR_STATE_TARGET_VALUES_MAX ||
            target->n_namespaces > MIR_STATE_TARGET_VALUES_MAX)
            return mir_error_set(error, MIR_E_TOO_LARGE,
                                 "a list of the target has more than %d values: send it in several "
                                 "requests",
                                 MIR_STATE_TARGET_VALUES_MAX);
        TRY(check_liveness(target, error));
        TRY(list_clauses(target, clauses, &count, error));
        /* No index tells it: each record is asked. */
        if (target->n_liveness != 0) *exact = false;
    }
    qsort(clauses, count, sizeof *clauses, compare_clauses);
    bool all = true;
    for (size_t i = 0; i < count && status == MIR_OK; i++) {
        if (!all && candidates.count <= MIR_STATE_TARGET_FEW) {
            *exact = *exact && candidates.count == 0;
            break;
        }
        mir_state_numbers set = {0};
        bool without = false;
        status = collect(db, txn, target, &clauses[i], &set, &without);
        normalize(&set);
        if (status == MIR_OK && all && without) {
            status = collect_all(db, txn, &candidates);
            all = false;
        }
        if (status == MIR_OK && all) {
            candidates = set;
            all = false;
        } else {
            intersect(&candidates, &set, without);
            free(set.items);
        }
    }
    if (status == MIR_OK && all) status = collect_all(db, txn, &candidates);
    if (status != MIR_OK) {
        free(candidates.items);
        mir_state_db_explain(db, status, error);
        return status;
    }
    *numbers = candidates;
    return MIR_OK;
}

/* ── One record ──────────────────────────────────────────────────────────────────────────────── */

static bool list_matches(char *const *list, size_t n, const char *text)
{
    if (n == 0) return true;
    mir_view value = view_of_text(text);
    for (size_t i = 0; i < n; i++)
        if (mir_pattern_match(view_of_text(list[i]), value)) return true;
    return false;
}

bool mir_state_target_matches(const MirApi__V1__DeviceTarget *target,
                              const MirStore__V1__DeviceRecord *record)
{
    if (target == NULL) return true;
    if (!list_matches(target->ids, target->n_ids, record->device_id) ||
        !list_matches(target->names, target->n_names, record->name) ||
        !list_matches(target->namespaces, target->n_namespaces, record->namespace_))
        return false;
    bool alive = target->n_liveness == 0;
    for (size_t i = 0; i < target->n_liveness && !alive; i++)
        alive = mir_view_eq_cstr(view_of_text(target->liveness[i]), liveness_of(record));
    if (!alive) return false;
    for (size_t i = 0; i < target->n_labels; i++) {
        if (label_is_superseded(target, i)) continue;
        mir_view key = view_of_text(target->labels[i]->key), value = {NULL, 0};
        for (size_t k = 0; k < record->n_labels; k++)
            if (mir_view_eq(view_of_text(record->labels[k]->key), key))
                value = view_of_text(record->labels[k]->value);
        if (!mir_pattern_match(view_of_text(target->labels[i]->value), value)) return false;
    }
    for (size_t i = 0; i < target->n_schemas; i++) {
        bool found = false;
        for (size_t k = 0; k < record->n_package_names && !found; k++)
            found = mir_view_eq(view_of_text(record->package_names[k]),
                                view_of_text(target->schemas[i]));
        if (!found) return false;
    }
    return true;
}

static int compare_records(const void *a, const void *b)
{
    const MirStore__V1__DeviceRecord *x, *y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    int order = strcmp(x->namespace_, y->namespace_);
    return order != 0 ? order : strcmp(x->name, y->name);
}

void mir_state_target_sort(MirStore__V1__DeviceRecord **records, size_t count)
{
    if (count > 1) qsort(records, count, sizeof(MirStore__V1__DeviceRecord *), compare_records);
}

mir_status mir_state_target_load(const mir_state_db *db, MDB_txn *txn,
                                 const MirApi__V1__DeviceTarget *target, mir_arena *arena,
                                 MirStore__V1__DeviceRecord ***records, size_t *count,
                                 mir_error *error)
{
    mir_state_numbers numbers = {0};
    bool exact = true;
    TRY(mir_state_target_candidates(db, txn, target, &numbers, &exact, error));
    size_t kept = 0;
    mir_status status = MIR_OK;
    MirStore__V1__DeviceRecord **list = NULL;
    if (numbers.count != 0) {
        list = mir_arena_alloc(arena, numbers.count * sizeof *list);
        if (list == NULL) status = MIR_E_NO_MEMORY;
    }
    for (size_t i = 0; i < numbers.count && status == MIR_OK; i++) {
        status = mir_state_db_load(db, txn, numbers.items[i], arena, &list[kept]);
        if (status == MIR_E_NOT_FOUND) status = MIR_E_CORRUPT;
        if (status == MIR_OK && (exact || mir_state_target_matches(target, list[kept]))) kept++;
    }
    free(numbers.items);
    if (status != MIR_OK) {
        mir_state_db_explain(db, status, error);
        return status;
    }
    mir_state_target_sort(list, kept);
    *records = list;
    *count = kept;
    return MIR_OK;
}
