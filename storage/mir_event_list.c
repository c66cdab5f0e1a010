/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "mir_device_json.h"
#include "mir_event_query.h"
#include "mir_pb.h"
#include "mir_state_internal.h"
#include "mir_timestamp.h"
#include "mir_zstd.h"

typedef MirStore__V1__EventRecord record;

enum { ID_CHANGES_MAX = 64 }; /* of one device that its history follows */

#define TRY(call)                                                                                  \
    do {                                                                                           \
        mir_status try_status = (call);                                                            \
        if (try_status != MIR_OK) return try_status;                                               \
    } while (0)

static char api_version[] = "mir/v1alpha";
static char kind[] = "events";

/* ── One event ───────────────────────────────────────────────────────────────────────────────── */

mir_status mir_event_payload(mir_state *state, MDB_txn *txn, const record *from, bool with_schema,
                             mir_bytes *out)
{
    if (from->has_json) {
        mir_bytes_append(out, from->json.data, from->json.len);
    } else if (from->has_json_zstd) {
        mir_status status =
            mir_zstd_decompress(mir_view_of(from->json_zstd.data, from->json_zstd.len),
                                MIR_EVENT_PAYLOAD_BYTES_MAX, out, NULL);
        if (status != MIR_OK) return status == MIR_E_NO_MEMORY ? status : MIR_E_CORRUPT;
    } else if (from->device != NULL) {
        mir_arena arena = {0};
        MirStore__V1__DeviceRecord device = *from->device, *one = &device;
        MirApi__V1__Device *shown = NULL;
        if (!with_schema) device.has_schema_hash = 0;
        mir_status status = mir_state_convert(state, txn, &one, 1, false, &arena, &shown);
        if (status == MIR_OK) mir_device_json_write(shown, MIR_JSON_COMPACT, out);
        mir_arena_free(&arena);
        if (status != MIR_OK) return status;
    }
    return mir_bytes_ok(out) ? MIR_OK : MIR_E_NO_MEMORY;
}

static mir_status add_label(MirApi__V1__Meta *meta, const char *key, char *value, mir_arena *arena)
{
    MirApi__V1__Meta__LabelsEntry *entry = mir_arena_alloc(arena, sizeof *entry);
    if (entry == NULL) return MIR_E_NO_MEMORY;
    mir_api__v1__meta__labels_entry__init(entry);
    entry->key = (char *)(uintptr_t)key;
    entry->value = value == NULL ? (char *)(uintptr_t) "" : value;
    meta->labels[meta->n_labels++] = entry;
    return MIR_OK;
}

static mir_status add_annotation(MirApi__V1__Meta *meta, const char *key, char *value,
                                 mir_arena *arena)
{
    MirApi__V1__Meta__AnnotationsEntry *entry = mir_arena_alloc(arena, sizeof *entry);
    if (entry == NULL || value == NULL) return MIR_E_NO_MEMORY;
    mir_api__v1__meta__annotations_entry__init(entry);
    entry->key = (char *)(uintptr_t)key;
    entry->value = value;
    meta->annotations[meta->n_annotations++] = entry;
    return MIR_OK;
}

static char *joined_chain(const record *from, mir_arena *arena)
{
    size_t size = 1;
    for (size_t i = 0; i < from->n_trigger_chain; i++) size += strlen(from->trigger_chain[i]) + 1;
    char *text = mir_arena_alloc(arena, size), *to = text;
    for (size_t i = 0; text != NULL && i < from->n_trigger_chain; i++) {
        if (i != 0) *to++ = ',';
        size_t length = strlen(from->trigger_chain[i]);
        memcpy(to, from->trigger_chain[i], length);
        to += length;
    }
    return text;
}

static mir_status show_meta(const record *from, mir_arena *arena, MirApi__V1__Meta **out)
{
    MirApi__V1__Meta *meta = mir_arena_alloc(arena, sizeof *meta);
    mir_view base = mir_event_base_name(from);
    char *name = mir_arena_alloc(arena, base.size + 14);
    if (meta == NULL || name == NULL) return MIR_E_NO_MEMORY;
    mir_api__v1__meta__init(meta);
    (void)snprintf(name, base.size + 14, "%.*s-%012llx", MIR_VIEW_ARGS(base),
                   (unsigned long long)from->suffix);
    meta->name = name;
    meta->namespace_ = mir_arena_strdup(arena, mir_event_name_space(from));
    meta->labels = mir_arena_alloc(arena, 2 * sizeof *meta->labels);
    meta->annotations = mir_arena_alloc(arena, 3 * sizeof *meta->annotations);
    if (meta->namespace_ == NULL || meta->labels == NULL || meta->annotations == NULL)
        return MIR_E_NO_MEMORY;
    TRY(add_label(meta, "reason", from->reason, arena));
    TRY(add_label(meta, "type", from->type, arena));
    TRY(add_annotation(meta, "mir-route", from->route, arena));
    TRY(add_annotation(meta, "mir-subject", mir_arena_strdup(arena, mir_event_subject_id(from)),
                       arena));
    if (from->n_trigger_chain != 0)
        TRY(add_annotation(meta, "mir-trigger-chain", joined_chain(from, arena), arena));
    *out = meta;
    return MIR_OK;
}

mir_status mir_event_show(mir_state *state, MDB_txn *txn, uint64_t sequence,
                          const mir_event_place *place, mir_arena *arena, MirApi__V1__Event **out)
{
    record *from = NULL;
    mir_status unpacked =
        mir_pb_unpack(&mir_store__v1__event_record__descriptor, place->record, arena, &from, NULL);
    if (unpacked != MIR_OK) return unpacked == MIR_E_INVALID ? MIR_E_CORRUPT : unpacked;
    if (from->route == NULL) return MIR_E_CORRUPT;
    MirApi__V1__Event *event = mir_arena_alloc(arena, sizeof *event);
    MirApi__V1__Object *object = mir_arena_alloc(arena, sizeof *object);
    MirApi__V1__EventSpec *spec = mir_arena_alloc(arena, sizeof *spec);
    MirApi__V1__EventStatus *status = mir_arena_alloc(arena, sizeof *status);
    uint8_t *leaf = mir_arena_alloc(arena, MIR_EVENT_HASH_BYTES);
    if (event == NULL || object == NULL || spec == NULL || status == NULL || leaf == NULL)
        return MIR_E_NO_MEMORY;
    mir_api__v1__event__init(event);
    mir_api__v1__object__init(object);
    mir_api__v1__event_spec__init(spec);
    mir_api__v1__event_status__init(status);
    event->object = object;
    event->spec = spec;
    event->status = status;
    object->api_version = api_version;
    object->kind = kind;
    TRY(show_meta(from, arena, &object->meta));
    spec->type = from->type;
    spec->reason = from->reason;
    spec->message = from->message;
    spec->related_object = from->related;
    spec->audit = from->audit;
    if (from->related != NULL && from->related->meta == NULL) {
        from->related->meta = mir_arena_alloc(arena, sizeof *from->related->meta);
        if (from->related->meta == NULL) return MIR_E_NO_MEMORY;
        mir_api__v1__meta__init(from->related->meta);
    }
    mir_bytes payload = {0};
    mir_status made = mir_event_payload(state, txn, from, true, &payload);
    if (made == MIR_OK && payload.size != 0) {
        spec->has_json_payload = 1;
        spec->json_payload.len = payload.size;
        spec->json_payload.data = mir_arena_alloc(arena, payload.size);
        if (spec->json_payload.data == NULL)
            made = MIR_E_NO_MEMORY;
        else
            memcpy(spec->json_payload.data, payload.data, payload.size);
    }
    mir_bytes_free(&payload);
    TRY(made);
    status->has_count = 1;
    status->count = 1;
    status->first_at = mir_timestamp_new(arena, place->at_ns);
    status->last_at = status->first_at;
    status->has_sequence = 1;
    status->sequence = sequence;
    memcpy(leaf, place->leaf, MIR_EVENT_HASH_BYTES);
    status->has_leaf = 1;
    status->leaf = (ProtobufCBinaryData){MIR_EVENT_HASH_BYTES, leaf};
    if (status->first_at == NULL) return MIR_E_NO_MEMORY;
    *out = event;
    return MIR_OK;
}

/* ── Lists ───────────────────────────────────────────────────────────────────────────────────── */

typedef struct listing {
    mir_state *state;
    MDB_txn *txn;
    mir_arena *arena;
    mir_event_list *list;
    size_t rows_max, bytes_max, bytes, capacity;
    size_t limit; /* of the target; 0: none */
} listing;

static void set_bounds(listing *l, const mir_event_bounds *bounds,
                       const MirApi__V1__EventTarget *target, mir_event_plan *plan)
{
    l->rows_max = MIR_EVENT_ROWS_MAX;
    l->bytes_max = MIR_EVENT_LIST_BYTES_MAX;
    plan->looked_max = MIR_EVENT_LOOKED_MAX;
    if (bounds != NULL && bounds->rows_max != 0 && bounds->rows_max < l->rows_max)
        l->rows_max = bounds->rows_max;
    if (bounds != NULL && bounds->bytes_max != 0 && bounds->bytes_max < l->bytes_max)
        l->bytes_max = bounds->bytes_max;
    if (bounds != NULL && bounds->looked_max != 0 && bounds->looked_max < plan->looked_max)
        plan->looked_max = bounds->looked_max;
    if (target != NULL && target->filter_limit > 0) l->limit = (size_t)target->filter_limit;
}

static mir_status push(listing *l, MirApi__V1__Event *event)
{
    mir_event_list *list = l->list;
    if (list->count == l->capacity) {
        size_t capacity = l->capacity == 0 ? 64 : l->capacity * 2;
        MirApi__V1__Event **events = mir_arena_alloc(l->arena, capacity * sizeof *events);
        if (events == NULL) return MIR_E_NO_MEMORY;
        if (list->count != 0) memcpy(events, list->events, list->count * sizeof *events);
        list->events = events;
        l->capacity = capacity;
    }
    list->events[list->count++] = event;
    return MIR_OK;
}

/* The cut is said as the last event that is in the list, so that a query goes on behind it. */
static mir_status cut(listing *l)
{
    l->list->cut = true;
    const mir_event_list *list = l->list;
    l->list->cut_sequence = list->count == 0 ? 0 : list->events[list->count - 1]->status->sequence;
    return MIR_E_CANCELLED;
}

static mir_status on_listed(void *ctx, uint64_t sequence, const mir_event_place *place, record *r,
                            mir_arena *scratch)
{
    listing *l = ctx;
    (void)r;
    (void)scratch;
    if (l->list->count == l->rows_max) return cut(l);
    MirApi__V1__Event *event = NULL;
    TRY(mir_event_show(l->state, l->txn, sequence, place, l->arena, &event));
    /* Its tag and length in a list come on top. */
    size_t bytes = mir_api__v1__event__get_packed_size(event) + 8;
    if (bytes > l->bytes_max - l->bytes && l->list->count != 0) return cut(l);
    l->bytes += bytes < l->bytes_max - l->bytes ? bytes : l->bytes_max - l->bytes;
    TRY(push(l, event));
    return l->list->count == l->limit ? MIR_E_CANCELLED : MIR_OK;
}

/* Whoever asked goes on behind what was looked at last. */
static void looked_cut(const mir_event_plan *plan, mir_event_list *list)
{
    if (!plan->cut) return;
    list->cut = true;
    list->cut_sequence = plan->ascending ? plan->at - 1 : plan->at + 1;
}

static mir_status explain(mir_state *state, mir_status status, mir_error *error)
{
    if (status == MIR_E_NO_MEMORY)
        return mir_error_set(error, status, "the events need too much memory: narrow the target");
    if (status == MIR_E_NOT_FOUND) status = MIR_E_CORRUPT;
    if (status != MIR_OK) mir_state_db_explain(&state->db, status, error);
    return status;
}

static mir_status list_in(mir_state *state, MDB_txn *txn, const MirApi__V1__EventTarget *target,
                          const mir_event_bounds *bounds, mir_arena *arena, mir_event_list *list,
                          mir_error *error)
{
    mir_event_plan plan;
    mir_error text = {""};
    mir_event_head head;
    mir_status status = mir_event_plan_make(state, txn, target, arena, &plan, &text);
    if (status != MIR_OK && text.text[0] != '\0')
        return mir_error_set(error, status, "%s", text.text);
    listing l = {.state = state, .txn = txn, .arena = arena, .list = list};
    set_bounds(&l, bounds, target, &plan);
    if (status == MIR_OK) status = mir_event_head_read(&state->db, txn, &head);
    if (status == MIR_OK) list->sequence = head.sequence;
    if (status == MIR_OK) status = mir_event_walk(state, txn, &plan, on_listed, &l);
    if (status != MIR_OK) return explain(state, status, error);
    looked_cut(&plan, list);
    return MIR_OK;
}

mir_status mir_event_list_get(mir_state *state, const MirApi__V1__EventTarget *target,
                              const mir_event_bounds *bounds, mir_arena *arena,
                              mir_event_list *list, mir_error *error)
{
    MDB_txn *txn = NULL;
    TRY(mir_state_read_begin(state, &txn, error));
    mir_event_list made = {0};
    mir_status status = list_in(state, txn, target, bounds, arena, &made, error);
    mir_state_read_end(state, txn);
    if (status == MIR_OK) *list = made;
    return status;
}

/* ── Of one device ───────────────────────────────────────────────────────────────────────────── */

typedef struct lineage {
    listing list;
    bool of_device; /* only what shows the device, and only the newest */
    MirStore__V1__DeviceRecord *device;
    int64_t at_ns;
    uint64_t until; /* of what is looked for; later events only tell of changed ids */
    /* The id changed here, from this one. */
    char *former_id;
    uint64_t changed_at;
    uint64_t number; /* of the device that a name led to */
    mir_arena *arena;
} lineage;

/* The id that the device had before the event, null if it had the same. */
static mir_status former_id(const record *r, mir_arena *arena, char **id)
{
    for (size_t i = 0; r->audit != NULL && i < r->audit->n_changes; i++) {
        const MirApi__V1__EventChange *change = r->audit->changes[i];
        if (r->device == NULL || change->path == NULL || change->from == NULL ||
            strcmp(change->path, "spec.deviceId") != 0)
            continue;
        json_t *value = NULL;
        if (mir_json_parse(mir_view_cstr(change->from), &value, NULL) != MIR_OK)
            return MIR_E_CORRUPT;
        if (json_is_string(value))
            *id = mir_arena_strdup(arena, mir_view_cstr(json_string_value(value)));
        json_decref(value);
        return *id == NULL ? MIR_E_CORRUPT : MIR_OK;
    }
    return MIR_OK;
}

static mir_status on_lineage(void *ctx, uint64_t sequence, const mir_event_place *place, record *r,
                             mir_arena *scratch)
{
    lineage *l = ctx;
    TRY(former_id(r, l->arena, &l->former_id));
    if (l->former_id != NULL) l->changed_at = sequence;
    if (sequence <= l->until) {
        if (!l->of_device) {
            TRY(on_listed(&l->list, sequence, place, r, scratch));
        } else if (r->device != NULL) {
            if (r->change != MIR_STATE_DELETED) {
                record *copy = NULL;
                TRY(mir_pb_unpack(&mir_store__v1__event_record__descriptor, place->record, l->arena,
                                  &copy, NULL));
                l->device = copy->device;
            }
            l->at_ns = place->at_ns;
            return MIR_E_CANCELLED;
        }
    }
    return l->former_id != NULL ? MIR_E_CANCELLED : MIR_OK;
}

static mir_status on_first(void *ctx, uint64_t sequence, const mir_event_place *place, record *r,
                           mir_arena *scratch)
{
    lineage *l = ctx;
    (void)sequence;
    (void)place;
    (void)scratch;
    if (r->device == NULL) return MIR_E_CORRUPT;
    l->number = r->device->number;
    l->former_id = mir_arena_strdup(l->arena, mir_event_subject_id(r));
    return l->former_id == NULL ? MIR_E_NO_MEMORY : MIR_E_CANCELLED;
}

static mir_status id_of_number(mir_state *state, MDB_txn *txn, uint64_t number, mir_arena *arena,
                               mir_view *id)
{
    MirStore__V1__DeviceRecord *device = NULL;
    mir_status status = mir_state_db_load(&state->db, txn, number, arena, &device);
    if (status == MIR_OK) *id = mir_view_cstr(device->device_id);
    return status;
}

/* The id behind a name: of the device that has it, or of the last one that had it, which may have
 * another id by now. */
static mir_status id_of_name(mir_state *state, MDB_txn *txn, const mir_event_subject *subject,
                             mir_arena *arena, mir_view *id)
{
    uint64_t number = 0;
    mir_status status =
        mir_state_db_find_name(&state->db, txn, subject->name, subject->name_space, &number);
    if (status == MIR_OK) {
        status = id_of_number(state, txn, number, arena, id);
        return status == MIR_E_NOT_FOUND ? MIR_E_CORRUPT : status;
    }
    if (status != MIR_E_NOT_FOUND) return status;
    mir_event_plan plan;
    lineage l = {.arena = arena};
    TRY(mir_event_plan_all(state, txn, &plan));
    plan.looked_max = MIR_EVENT_LOOKED_MAX;
    plan.flags = MIR_EVENT_HAS_DEVICE;
    plan.exact_name = subject->name;
    plan.exact_name_space = subject->name_space;
    TRY(mir_event_plan_add(&plan, MIR_EVENT_DEVICE,
                           mir_event_hash_device(subject->name_space, subject->name), arena));
    TRY(mir_event_walk(state, txn, &plan, on_first, &l));
    *id = mir_view_cstr(l.former_id);
    if (l.former_id == NULL) return MIR_OK;
    status = id_of_number(state, txn, l.number, arena, id);
    return status == MIR_E_NOT_FOUND ? MIR_OK : status; /* it was deleted */
}

/* From the newest event of the device back, over changes of its id, until something ends it. */
static mir_status walk_lineage(mir_state *state, MDB_txn *txn, const mir_event_subject *subject,
                               const mir_event_bounds *bounds, lineage *l, mir_error *error)
{
    mir_event_plan plan;
    mir_view id = subject->device_id;
    if (id.size == 0) TRY(id_of_name(state, txn, subject, l->arena, &id));
    TRY(mir_event_plan_all(state, txn, &plan));
    const uint64_t newest = plan.last;
    uint64_t last = newest;
    for (unsigned i = 0; id.size != 0 && i < ID_CHANGES_MAX; i++) {
        uint64_t looked = plan.looked;
        TRY(mir_event_plan_all(state, txn, &plan));
        set_bounds(&l->list, bounds, NULL, &plan);
        plan.looked = looked;
        plan.last = last;
        plan.exact_id = id;
        if (l->of_device) plan.flags = MIR_EVENT_HAS_DEVICE;
        TRY(mir_event_plan_add(&plan, MIR_EVENT_ID, mir_event_hash(id), l->arena));
        l->former_id = NULL;
        TRY(mir_event_walk(state, txn, &plan, on_lineage, l));
        if (plan.cut) {
            if (l->of_device)
                return mir_error_set(error, MIR_E_TOO_LARGE,
                                     "too many events are between then and now");
            looked_cut(&plan, l->list.list);
            return MIR_OK;
        }
        if (l->former_id == NULL || (l->of_device && l->at_ns != 0) ||
            (l->list.list != NULL && l->list.list->cut))
            return MIR_OK;
        id = mir_view_cstr(l->former_id);
        last = l->changed_at - 1;
    }
    return MIR_OK;
}

mir_status mir_event_history(mir_state *state, const mir_event_subject *subject,
                             const mir_event_bounds *bounds, mir_arena *arena, mir_event_list *list,
                             mir_error *error)
{
    MDB_txn *txn = NULL;
    mir_event_list made = {0};
    mir_event_head head;
    TRY(mir_state_read_begin(state, &txn, error));
    lineage l = {
        .list = {.state = state, .txn = txn, .arena = arena, .list = &made},
        .until = UINT64_MAX,
        .arena = arena,
    };
    mir_status status = mir_event_head_read(&state->db, txn, &head);
    if (status == MIR_OK) status = walk_lineage(state, txn, subject, bounds, &l, error);
    mir_state_read_end(state, txn);
    if (status != MIR_OK) return explain(state, status, error);
    made.sequence = head.sequence;
    for (size_t i = 0; i < made.count / 2; i++) {
        MirApi__V1__Event *other = made.events[i];
        made.events[i] = made.events[made.count - 1 - i];
        made.events[made.count - 1 - i] = other;
    }
    *list = made;
    return MIR_OK;
}

mir_status mir_event_device_at(mir_state *state, const mir_event_subject *subject, int64_t until_ns,
                               mir_arena *arena, MirStore__V1__DeviceRecord **out, int64_t *at_ns,
                               mir_error *error)
{
    MDB_txn *txn = NULL;
    mir_event_head head;
    mir_error text = {""};
    TRY(mir_state_read_begin(state, &txn, error));
    lineage l = {.of_device = true, .arena = arena};
    mir_status status = mir_event_head_read(&state->db, txn, &head);
    if (status == MIR_OK) status = mir_event_until(state, txn, head.sequence, until_ns, &l.until);
    if (status == MIR_OK) status = walk_lineage(state, txn, subject, NULL, &l, &text);
    mir_state_read_end(state, txn);
    if (status == MIR_E_TOO_LARGE && text.text[0] != '\0')
        return mir_error_set(error, status, "%s", text.text);
    if (status != MIR_OK) return explain(state, status, error);
    if (l.device == NULL)
        return mir_error_set(error, MIR_E_NOT_FOUND,
                             l.at_ns != 0 ? "the device was deleted before that time"
                                          : "no event tells of the device before that time");
    *out = l.device;
    *at_ns = l.at_ns;
    return MIR_OK;
}

/* ── The newest of many devices ──────────────────────────────────────────────────────────────── */

typedef struct newest_one {
    uint32_t hash;
    size_t at;
} newest_one;

typedef struct newest {
    MirStore__V1__DeviceRecord *const *records;
    mir_event_brief *lists;
    newest_one *sorted;
    size_t count, per_device, missing; /* devices that have fewer than they should */
    mir_arena *arena;
} newest;

static int compare_newest(const void *a, const void *b)
{
    const newest_one *x = a, *y = b;
    return x->hash < y->hash ? -1 : x->hash > y->hash;
}

static mir_status brief_of(const record *r, int64_t at_ns, mir_arena *arena,
                           MirApi__V1__DeviceStatusEvent **out)
{
    MirApi__V1__DeviceStatusEvent *event = mir_arena_alloc(arena, sizeof *event);
    if (event == NULL) return MIR_E_NO_MEMORY;
    mir_api__v1__device_status_event__init(event);
    event->type = mir_arena_strdup(arena, mir_view_cstr(r->type));
    event->reason = mir_arena_strdup(arena, mir_view_cstr(r->reason));
    event->message = mir_arena_strdup(arena, mir_view_cstr(r->message));
    event->first_at = mir_timestamp_new(arena, at_ns);
    if (event->type == NULL || event->reason == NULL || event->message == NULL ||
        event->first_at == NULL)
        return MIR_E_NO_MEMORY;
    *out = event;
    return MIR_OK;
}

static mir_status on_newest(void *ctx, uint64_t sequence, const mir_event_place *place, record *r,
                            mir_arena *scratch)
{
    newest *n = ctx;
    (void)sequence;
    (void)scratch;
    uint32_t hash = mir_event_place_term(place, MIR_EVENT_DEVICE);
    size_t low = 0, high = n->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (n->sorted[middle].hash < hash)
            low = middle + 1;
        else
            high = middle;
    }
    mir_view name = mir_event_base_name(r), name_space = mir_event_name_space(r);
    for (; low < n->count && n->sorted[low].hash == hash; low++) {
        const size_t at = n->sorted[low].at;
        mir_event_brief *list = &n->lists[at];
        if (list->count == n->per_device ||
            !mir_view_eq(name, mir_view_cstr(n->records[at]->name)) ||
            !mir_view_eq(name_space, mir_view_cstr(n->records[at]->namespace_)))
            continue;
        TRY(brief_of(r, place->at_ns, n->arena, &list->events[list->count++]));
        if (list->count == n->per_device) n->missing--;
    }
    return n->missing == 0 ? MIR_E_CANCELLED : MIR_OK;
}

/* One walk for all of them. While a block is looked at, those that have enough are still among the
 * hashes: taking them out would cost more than passing over their events. */
static mir_status walk_newest(mir_state *state, MDB_txn *txn, newest *n)
{
    mir_event_plan plan;
    TRY(mir_event_plan_all(state, txn, &plan));
    plan.looked_max = MIR_EVENT_LOOKED_MAX;
    uint64_t last = plan.last;
    while (last != 0 && n->missing != 0 && plan.looked < plan.looked_max) {
        uint32_t *hashes = mir_arena_alloc(n->arena, n->missing * sizeof *hashes);
        if (hashes == NULL) return MIR_E_NO_MEMORY;
        size_t used = 0;
        for (size_t i = 0; i < n->count; i++)
            if (n->lists[n->sorted[i].at].count < n->per_device) hashes[used++] = n->sorted[i].hash;
        plan.clauses[0] = (mir_event_clause){
            .term = MIR_EVENT_DEVICE,
            .hashes = hashes,
            .count = used,
            .indexed = used <= MIR_EVENT_NAMES_MAX,
        };
        plan.clause_count = 1;
        /* Sixteen blocks with the same list. */
        uint64_t span = UINT64_C(16) * MIR_EVENT_BLOCK;
        plan.last = last;
        plan.first = last > span ? last - span + 1 : 1;
        TRY(mir_event_walk(state, txn, &plan, on_newest, n));
        last = plan.first - 1;
    }
    return MIR_OK;
}

mir_status mir_event_newest(mir_state *state, MirStore__V1__DeviceRecord *const *records,
                            size_t count, size_t per_device, mir_arena *arena,
                            mir_event_brief **lists, mir_error *error)
{
    newest n = {
        .records = records,
        .count = count,
        .per_device = per_device,
        .missing = per_device == 0 ? 0 : count,
        .arena = arena,
    };
    n.lists = mir_arena_alloc(arena, (count + 1) * sizeof *n.lists);
    n.sorted = mir_arena_alloc(arena, (count + 1) * sizeof *n.sorted);
    if (n.lists == NULL || n.sorted == NULL) return explain(state, MIR_E_NO_MEMORY, error);
    for (size_t i = 0; i < count; i++) {
        n.sorted[i] = (newest_one){
            .hash = mir_event_hash_device(mir_view_cstr(records[i]->namespace_),
                                          mir_view_cstr(records[i]->name)),
            .at = i,
        };
        n.lists[i].events = mir_arena_alloc(arena, (per_device + 1) * sizeof(void *));
        if (n.lists[i].events == NULL) return explain(state, MIR_E_NO_MEMORY, error);
    }
    qsort(n.sorted, count, sizeof *n.sorted, compare_newest);
    MDB_txn *txn = NULL;
    TRY(mir_state_read_begin(state, &txn, error));
    mir_status status = walk_newest(state, txn, &n);
    mir_state_read_end(state, txn);
    if (status != MIR_OK) return explain(state, status, error);
    *lists = n.lists;
    return MIR_OK;
}
