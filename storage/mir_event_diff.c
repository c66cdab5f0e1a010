/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "mir_device_json.h"
#include "mir_event_log.h"

typedef MirStore__V1__DeviceRecord record;

#define TRY(call)                                                                                  \
    do {                                                                                           \
        mir_status try_status = (call);                                                            \
        if (try_status != MIR_OK) return try_status;                                               \
    } while (0)

/* Map entries of the store have one shape: key, value. */
typedef struct text_entry {
    ProtobufCMessage base;
    char *key;
    char *value;
} text_entry;

_Static_assert(sizeof(text_entry) == sizeof(MirStore__V1__DeviceRecord__LabelsEntry) &&
                   sizeof(text_entry) == sizeof(MirStore__V1__DeviceRecord__AnnotationsEntry) &&
                   offsetof(text_entry, value) ==
                       offsetof(MirStore__V1__DeviceRecord__AnnotationsEntry, value),
               "the generated map entries share a shape");

typedef struct differ {
    mir_arena *arena;
    mir_bytes scratch;
    MirApi__V1__EventChange **list;
    size_t count, capacity;
} differ;

static char *scratch_text(differ *d)
{
    if (!mir_bytes_ok(&d->scratch)) return NULL;
    return mir_arena_strdup(d->arena, mir_bytes_as_view(&d->scratch));
}

static char *json_of_text(differ *d, const char *text)
{
    d->scratch.size = 0;
    mir_json_write_string(mir_view_cstr(text), &d->scratch);
    return scratch_text(d);
}

static char *json_of_value(differ *d, const json_t *value)
{
    d->scratch.size = 0;
    mir_json_write(value, MIR_JSON_COMPACT, &d->scratch);
    return scratch_text(d);
}

/* The values are in the arena already; null: there is none. */
static mir_status add(differ *d, const char *prefix, const char *key, char *from, char *to)
{
    if (d->count == d->capacity) {
        size_t capacity = d->capacity == 0 ? 8 : d->capacity * 2;
        MirApi__V1__EventChange **list = mir_arena_alloc(d->arena, capacity * sizeof *list);
        if (list == NULL) return MIR_E_NO_MEMORY;
        if (d->count != 0) memcpy(list, d->list, d->count * sizeof *list);
        d->list = list;
        d->capacity = capacity;
    }
    MirApi__V1__EventChange *change = mir_arena_alloc(d->arena, sizeof *change);
    d->scratch.size = 0;
    mir_bytes_printf(&d->scratch, "%s%s", prefix, key);
    if (change == NULL) return MIR_E_NO_MEMORY;
    mir_api__v1__event_change__init(change);
    change->path = scratch_text(d);
    change->from = from;
    change->to = to;
    if (change->path == NULL) return MIR_E_NO_MEMORY;
    d->list[d->count++] = change;
    return MIR_OK;
}

static mir_status diff_text(differ *d, const char *path, const char *from, const char *to)
{
    if (strcmp(from, to) == 0) return MIR_OK;
    char *old = json_of_text(d, from), *new = json_of_text(d, to);
    if (old == NULL || new == NULL) return MIR_E_NO_MEMORY;
    return add(d, path, "", old, new);
}

static mir_status diff_bool(differ *d, const char *path, bool has_from, bool from, bool has_to,
                            bool to)
{
    static char yes[] = "true", no[] = "false";
    if (has_from == has_to && (!has_from || from == to)) return MIR_OK;
    return add(d, path, "", !has_from ? NULL : from ? yes : no, !has_to ? NULL : to ? yes : no);
}

static const text_entry *find(text_entry *const *entries, size_t count, const char *key)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(entries[i]->key, key) == 0) return entries[i];
    return NULL;
}

static mir_status diff_map(differ *d, const char *prefix, text_entry *const *from,
                           size_t from_count, text_entry *const *to, size_t to_count)
{
    /* What an update does not touch is the same array. */
    if (from == to && from_count == to_count) return MIR_OK;
    for (size_t i = 0; i < from_count; i++) {
        const text_entry *other = find(to, to_count, from[i]->key);
        if (other != NULL && strcmp(from[i]->value, other->value) == 0) continue;
        char *old = json_of_text(d, from[i]->value);
        char *new = other == NULL ? NULL : json_of_text(d, other->value);
        if (old == NULL || (other != NULL && new == NULL)) return MIR_E_NO_MEMORY;
        TRY(add(d, prefix, from[i]->key, old, new));
    }
    for (size_t i = 0; i < to_count; i++) {
        if (find(from, from_count, to[i]->key) != NULL) continue;
        char *new = json_of_text(d, to[i]->value);
        if (new == NULL) return MIR_E_NO_MEMORY;
        TRY(add(d, prefix, to[i]->key, NULL, new));
    }
    return MIR_OK;
}

static mir_status diff_objects(differ *d, const char *prefix, const json_t *from, const json_t *to)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)from, key, value)
    {
        const json_t *other = json_object_get(to, key);
        if (other != NULL && json_equal(value, other)) continue;
        char *old = json_of_value(d, value), *new = other == NULL ? NULL : json_of_value(d, other);
        if (old == NULL || (other != NULL && new == NULL)) return MIR_E_NO_MEMORY;
        TRY(add(d, prefix, key, old, new));
    }
    json_object_foreach((json_t *)(uintptr_t)to, key, value)
    {
        if (json_object_get(from, key) != NULL) continue;
        char *new = json_of_value(d, value);
        if (new == NULL) return MIR_E_NO_MEMORY;
        TRY(add(d, prefix, key, NULL, new));
    }
    return MIR_OK;
}

static mir_view json_view(protobuf_c_boolean has, ProtobufCBinaryData json)
{
    return has && json.len != 0 ? mir_view_of(json.data, json.len) : MIR_VIEW_LITERAL("{}");
}

static mir_status diff_json(differ *d, const char *prefix, mir_view from, mir_view to)
{
    if (mir_view_eq(from, to)) return MIR_OK;
    json_t *old = NULL, *new = NULL;
    mir_status status = mir_json_parse(from, &old, NULL);
    if (status == MIR_OK) status = mir_json_parse(to, &new, NULL);
    if (status == MIR_OK && json_is_object(old) && json_is_object(new))
        status = diff_objects(d, prefix, old, new);
    json_decref(old);
    json_decref(new);
    return status == MIR_E_INVALID ? MIR_E_CORRUPT : status;
}

static char *json_of_hash(differ *d, const record *device)
{
    d->scratch.size = 0;
    mir_bytes_u8(&d->scratch, '"');
    for (size_t i = 0; i < device->schema_hash.len; i++)
        mir_bytes_printf(&d->scratch, "%02x", device->schema_hash.data[i]);
    mir_bytes_u8(&d->scratch, '"');
    return scratch_text(d);
}

static mir_status diff_schema(differ *d, const record *before, const record *after)
{
    bool same = before->has_schema_hash == after->has_schema_hash;
    if (same && before->has_schema_hash)
        same = mir_view_eq(mir_view_of(before->schema_hash.data, before->schema_hash.len),
                           mir_view_of(after->schema_hash.data, after->schema_hash.len));
    if (same) return MIR_OK;
    char *old = before->has_schema_hash ? json_of_hash(d, before) : NULL;
    char *new = after->has_schema_hash ? json_of_hash(d, after) : NULL;
    if ((before->has_schema_hash && old == NULL) || (after->has_schema_hash && new == NULL))
        return MIR_E_NO_MEMORY;
    return add(d, "schema", "", old, new);
}

static mir_status diff_all(differ *d, const record *before, const record *after)
{
    TRY(diff_text(d, "meta.name", before->name, after->name));
    TRY(diff_text(d, "meta.namespace", before->namespace_, after->namespace_));
    TRY(diff_map(d, "meta.labels.", (text_entry *const *)before->labels, before->n_labels,
                 (text_entry *const *)after->labels, after->n_labels));
    TRY(diff_map(d, "meta.annotations.", (text_entry *const *)before->annotations,
                 before->n_annotations, (text_entry *const *)after->annotations,
                 after->n_annotations));
    TRY(diff_text(d, "spec.deviceId", before->device_id, after->device_id));
    TRY(diff_bool(d, "spec.disabled", before->has_disabled, before->disabled, after->has_disabled,
                  after->disabled));
    TRY(diff_json(d, "properties.desired.",
                  json_view(before->has_desired_json, before->desired_json),
                  json_view(after->has_desired_json, after->desired_json)));
    TRY(diff_json(d, "properties.reported.",
                  json_view(before->has_reported_json, before->reported_json),
                  json_view(after->has_reported_json, after->reported_json)));
    TRY(diff_bool(d, "status.online", before->has_online, before->online, after->has_online,
                  after->online));
    return diff_schema(d, before, after);
}

mir_status mir_event_diff(const record *before, const record *after, mir_arena *arena,
                          MirApi__V1__EventChange ***changes, size_t *count)
{
    differ d = {.arena = arena};
    mir_status status = before == after ? MIR_OK : diff_all(&d, before, after);
    mir_bytes_free(&d.scratch);
    if (status != MIR_OK) return status;
    *changes = d.list;
    *count = d.count;
    return MIR_OK;
}
