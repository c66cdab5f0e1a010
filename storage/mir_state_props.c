/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_state_props.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "mir_device_json.h"
#include "mir_json_normal.h"
#include "mir_state_ops.h"

typedef MirStore__V1__DeviceRecord record;

#define TRY(call)                                                                                  \
    do {                                                                                           \
        mir_status try_status = (call);                                                            \
        if (try_status != MIR_OK) return try_status;                                               \
    } while (0)

/* The maps of times of a record have one shape: key, time. */
typedef struct time_entry {
    ProtobufCMessage base;
    char *key;
    MirStore__V1__Time *value;
} time_entry;

_Static_assert(sizeof(time_entry) == sizeof(MirStore__V1__DeviceRecord__DesiredTimesEntry) &&
                   offsetof(time_entry, value) ==
                       offsetof(MirStore__V1__DeviceRecord__DesiredTimesEntry, value) &&
                   sizeof(time_entry) == sizeof(MirStore__V1__DeviceRecord__StaleSinceEntry),
               "the generated map entries share a shape");

static MIR_PRINTF(4, 5) mir_status refuse(mir_state_ops *ops, mir_state_property *property,
                                          mir_status status, const char *format, ...)
{
    mir_error error;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(error.text, sizeof error.text, format, args);
    va_end(args);
    char *text = mir_arena_strdup(&ops->request->arena, mir_view_cstr(error.text));
    property->status = status;
    property->error = text == NULL ? "the request needs too much memory" : text;
    return MIR_OK;
}

/* ── Times by name ───────────────────────────────────────────────────────────────────────────── */

typedef enum time_map {
    DESIRED_TIMES,
    REPORTED_TIMES,
    DIFFERS_SINCE,
    STALE_SINCE,
    TIME_MAPS
} time_map;

/* A map of times of a record that is being changed. */
typedef struct time_list {
    const ProtobufCMessageDescriptor *descriptor;
    void ***entries;
    size_t *count;
    size_t capacity; /* 0: the list is somebody else's still */
} time_list;

static const time_entry *find_time(void *const *entries, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        const time_entry *entry = entries[i];
        if (entry->key != NULL && strcmp(entry->key, name) == 0) return entry;
    }
    return NULL;
}

/* Room for one more in a list of our own. */
static mir_status own(mir_arena *arena, time_list *list)
{
    if (*list->count < list->capacity) return MIR_OK;
    size_t capacity = *list->count * 2 + 4;
    void **grown = mir_arena_alloc(arena, capacity * sizeof(void *));
    if (grown == NULL) return MIR_E_NO_MEMORY;
    if (*list->count != 0) memcpy(grown, *list->entries, *list->count * sizeof(void *));
    *list->entries = grown;
    list->capacity = capacity;
    return MIR_OK;
}

/* Sets the time, or takes the name out for 0. */
static mir_status set_time(mir_arena *arena, time_list *list, const char *name, int64_t at_ns)
{
    size_t at = 0;
    while (at < *list->count) {
        const time_entry *entry = (*list->entries)[at];
        if (entry->key != NULL && strcmp(entry->key, name) == 0) break;
        at++;
    }
    if (at_ns == 0 && at == *list->count) return MIR_OK;
    TRY(own(arena, list));
    if (at_ns == 0) {
        (*list->count)--;
        memmove(&(*list->entries)[at], &(*list->entries)[at + 1],
                (*list->count - at) * sizeof(void *));
        return MIR_OK;
    }
    time_entry *entry = mir_arena_alloc(arena, sizeof *entry);
    if (entry == NULL) return MIR_E_NO_MEMORY;
    protobuf_c_message_init(list->descriptor, entry);
    entry->key = mir_arena_strdup(arena, mir_view_cstr(name));
    entry->value = mir_state_time_new(arena, at_ns);
    if (entry->key == NULL || entry->value == NULL) return MIR_E_NO_MEMORY;
    if (at == *list->count) (*list->count)++;
    (*list->entries)[at] = entry;
    return MIR_OK;
}

static int64_t time_ns(void *const *entries, size_t count, const char *name)
{
    const time_entry *entry = find_time(entries, count, name);
    return entry == NULL ? 0 : mir_state_time_ns(entry->value);
}

int64_t mir_state_property_time_ns(const record *of, bool reported, const char *name)
{
    return reported ? time_ns((void *const *)of->reported_times, of->n_reported_times, name)
                    : time_ns((void *const *)of->desired_times, of->n_desired_times, name);
}

/* ── Objects ─────────────────────────────────────────────────────────────────────────────────── */

/* A stored map of properties. What is stored and does not read is the store's fault. */
static mir_status read_all(mir_view text, json_t **all)
{
    if (text.size == 0) {
        *all = json_object();
        return *all == NULL ? MIR_E_NO_MEMORY : MIR_OK;
    }
    mir_status status = mir_json_parse(text, all, NULL);
    if (status == MIR_E_INVALID || status == MIR_E_TOO_LARGE) return MIR_E_CORRUPT;
    if (status != MIR_OK || json_is_object(*all)) return status;
    json_decref(*all);
    return MIR_E_CORRUPT;
}

static mir_status copy_text(mir_arena *arena, const json_t *value, mir_view *out, mir_error *error)
{
    mir_bytes text = {0};
    mir_status status = mir_json_generic(value, &text, error);
    if (status == MIR_OK) {
        char *copy = mir_arena_strdup(arena, mir_bytes_as_view(&text));
        if (copy == NULL) status = MIR_E_NO_MEMORY;
        *out = mir_view_of(copy, text.size);
    }
    mir_bytes_free(&text);
    return status;
}

mir_status mir_state_property_find(mir_view all_json, const char *name, mir_arena *arena,
                                   mir_view *object)
{
    json_t *all = NULL;
    *object = (mir_view){NULL, 0};
    TRY(read_all(all_json, &all));
    const json_t *found = json_object_get(all, name);
    mir_status status = found == NULL ? MIR_OK : copy_text(arena, found, object, NULL);
    json_decref(all);
    return status;
}

static mir_view json_of(const record *of, bool reported)
{
    const ProtobufCBinaryData *data = reported ? &of->reported_json : &of->desired_json;
    bool has = reported ? of->has_reported_json : of->has_desired_json;
    return has ? mir_view_of(data->data, data->len) : (mir_view){NULL, 0};
}

static void set_json(record *of, bool reported, mir_view text)
{
    ProtobufCBinaryData data = {text.size, (uint8_t *)(uintptr_t)text.data};
    if (reported) {
        of->has_reported_json = 1;
        of->reported_json = data;
    } else {
        of->has_desired_json = 1;
        of->desired_json = data;
    }
}

/* ── The properties of one record ────────────────────────────────────────────────────────────── */

/* A record that is being changed: read once, written once. */
typedef struct working {
    mir_arena *arena;
    record *of;
    json_t *maps[2]; /* desired, reported */
    size_t sizes[2]; /* of their texts */
    bool changed[2];
    time_list times[TIME_MAPS];
} working;

#define TIME_LIST(of, map)                                                                         \
    ((time_list){&mir_store__v1__device_record__##map##_entry__descriptor, (void ***)&(of)->map,   \
                 &(of)->n_##map, 0})

static mir_status begin(working *w, mir_arena *arena, record *of)
{
    *w = (working){.arena = arena, .of = of};
    w->times[DESIRED_TIMES] = TIME_LIST(of, desired_times);
    w->times[REPORTED_TIMES] = TIME_LIST(of, reported_times);
    w->times[DIFFERS_SINCE] = TIME_LIST(of, differs_since);
    w->times[STALE_SINCE] = TIME_LIST(of, stale_since);
    for (int i = 0; i < 2; i++) {
        mir_view text = json_of(of, i == 1);
        w->sizes[i] = text.size == 0 ? 2 : text.size;
        TRY(read_all(text, &w->maps[i]));
    }
    return MIR_OK;
}

static mir_status end(working *w, mir_status status)
{
    for (int i = 0; i < 2; i++) {
        mir_view text;
        if (status == MIR_OK && w->changed[i]) {
            status = copy_text(w->arena, w->maps[i], &text, NULL);
            if (status == MIR_OK) set_json(w->of, i == 1, text);
        }
        json_decref(w->maps[i]);
    }
    return status;
}

static bool has_time(const working *w, time_map map, const char *name)
{
    return find_time(*w->times[map].entries, *w->times[map].count, name) != NULL;
}

/* Notes since when the two sides differ, which values and times decide. */
static mir_status note_difference(working *w, const mir_state_property *property)
{
    const char *name = property->name;
    const json_t *desired = json_object_get(w->maps[0], name);
    const json_t *reported = json_object_get(w->maps[1], name);
    bool differs = desired != NULL && (has_time(w, STALE_SINCE, name) || reported == NULL ||
                                       !mir_json_covers(reported, desired));
    if (differs && has_time(w, DIFFERS_SINCE, name)) return MIR_OK;
    return set_time(w->arena, &w->times[DIFFERS_SINCE], name, differs ? property->at_ns : 0);
}

/* A report by an older desired property says nothing about the one that is wanted now. */
static mir_status note_staleness(working *w, mir_state_property *property)
{
    int64_t wanted_ns = mir_state_property_time_ns(w->of, false, property->name);
    bool stale = property->goes_by_ns != 0 && property->goes_by_ns < wanted_ns;
    bool was = has_time(w, STALE_SINCE, property->name);
    property->out_of_sync = stale && !was;
    if (stale && was) return MIR_OK;
    return set_time(w->arena, &w->times[STALE_SINCE], property->name, stale ? property->at_ns : 0);
}

/* The property as it would be after the merge, the caller's. */
static mir_status merged_object(const working *w, const mir_state_property *property,
                                json_t **merged, mir_error *error)
{
    const json_t *present =
        json_object_get(w->maps[property->kind == MIR_STATE_PROPERTY_REPORT], property->name);
    bool is_part = json_is_object(present) && property->kind != MIR_STATE_PROPERTY_REPLACE;
    json_t *patch = NULL;
    TRY(mir_json_parse(property->object, &patch, error));
    *merged = is_part ? json_deep_copy(present) : json_object();
    mir_status status = *merged == NULL ? MIR_E_NO_MEMORY : MIR_OK;
    if (!json_is_object(patch))
        status = mir_error_set(error, MIR_E_INVALID, "a property is a JSON object");
    if (status == MIR_OK) status = mir_json_merge(*merged, patch);
    if (status == MIR_E_TOO_LARGE)
        (void)mir_error_set(error, status, "the property is nested too deeply");
    json_decref(patch);
    return status;
}

/* How many bytes a member takes in the text of its map, with the comma behind it. */
static mir_status member_size(const char *name, json_t *value, size_t *size, mir_error *error)
{
    *size = 0;
    if (value == NULL) return MIR_OK;
    mir_bytes text = {0};
    json_t *alone = json_object();
    mir_status status = alone == NULL || json_object_set(alone, name, value) != 0
                            ? MIR_E_NO_MEMORY
                            : mir_json_generic(alone, &text, error);
    *size = text.size - (status == MIR_OK);
    json_decref(alone);
    mir_bytes_free(&text);
    return status;
}

/* MIR_E_INVALID and MIR_E_TOO_LARGE with a text refuse the property alone. */
static mir_status put(working *w, mir_state_property *property, json_t *merged, mir_error *error)
{
    bool reported = property->kind == MIR_STATE_PROPERTY_REPORT;
    const char *what = reported ? "reported" : "desired", *name = property->name;
    json_t *present = json_object_get(w->maps[reported], name);
    size_t before, after, names = json_object_size(w->maps[reported]) + (present == NULL);
    TRY(member_size(name, present, &before, error));
    TRY(member_size(name, merged, &after, error));
    size_t size = w->sizes[reported] - before + after;
    if (size > MIR_STATE_PROPERTIES_BYTES_MAX)
        return mir_error_set(error, MIR_E_TOO_LARGE,
                             "the %s properties of a device cannot have %zu bytes: use at most %d",
                             what, size, MIR_STATE_PROPERTIES_BYTES_MAX);
    if (names > MIR_STATE_PROPERTY_NAMES_MAX)
        return mir_error_set(error, MIR_E_TOO_LARGE,
                             "a device cannot have more than %d %s properties",
                             MIR_STATE_PROPERTY_NAMES_MAX, what);
    TRY(copy_text(w->arena, merged, &property->merged, error));
    if (json_object_set(w->maps[reported], name, merged) != 0) return MIR_E_NO_MEMORY;
    w->sizes[reported] = size;
    w->changed[reported] = true;
    /* Devices refuse a property that is no newer than the one they have: what is stored last has the
     * latest time, whatever the clock says. */
    int64_t last_ns = mir_state_property_time_ns(w->of, false, name);
    if (!reported && property->at_ns <= last_ns) property->at_ns = last_ns + 1;
    property->merged_ns = property->at_ns;
    property->changed = true;
    TRY(set_time(w->arena, &w->times[reported ? REPORTED_TIMES : DESIRED_TIMES], name,
                 property->at_ns));
    if (reported) TRY(note_staleness(w, property));
    return note_difference(w, property);
}

static mir_status apply(mir_state_ops *ops, working *w, mir_state_property *property)
{
    property->changed = property->out_of_sync = false;
    property->status = MIR_OK;
    property->error = NULL;
    if (property->has_if_version && property->if_version != w->of->version)
        return refuse(ops, property, MIR_E_EXISTS,
                      "device %s/%s has version %" PRIu64 ", not %" PRIu64, w->of->name,
                      w->of->namespace_, w->of->version, property->if_version);
    if (property->kind == MIR_STATE_PROPERTY_REPORT && w->of->has_disabled && w->of->disabled)
        return refuse(ops, property, MIR_E_PERMISSION, "the device is disabled");
    const json_t *desired = json_object_get(w->maps[0], property->name);
    if (property->kind == MIR_STATE_PROPERTY_DEFAULT && desired != NULL) {
        property->merged_ns = mir_state_property_time_ns(w->of, false, property->name);
        return copy_text(w->arena, desired, &property->merged, NULL);
    }
    mir_error error = {""};
    json_t *merged = NULL;
    mir_status status = merged_object(w, property, &merged, &error);
    if (status == MIR_OK) status = put(w, property, merged, &error);
    json_decref(merged);
    if (status == MIR_E_INVALID || status == MIR_E_TOO_LARGE)
        return refuse(ops, property, status, "%s", error.text);
    return status;
}

mir_status mir_state_props_apply(mir_state_ops *ops, record *of, mir_state_property *list,
                                 size_t count)
{
    working w;
    mir_status status = begin(&w, &ops->request->arena, of);
    for (size_t i = 0; i < count && status == MIR_OK; i++) status = apply(ops, &w, &list[i]);
    return end(&w, status);
}

/* ── What events carry ───────────────────────────────────────────────────────────────────────── */

bool mir_state_change_has_json(unsigned kind)
{
    return kind == MIR_STATE_DESIRED || kind == MIR_STATE_REPORTED ||
           kind == MIR_STATE_OUT_OF_SYNC || kind == MIR_STATE_SCHEMA_CHANGED;
}

/* What is wanted and what is reported of each property whose report goes by an older one. */
static mir_status out_of_sync_json(const record *of, mir_bytes *text)
{
    json_t *desired = NULL, *reported = NULL, *all = json_object();
    mir_status status = all == NULL ? MIR_E_NO_MEMORY : read_all(json_of(of, false), &desired);
    if (status == MIR_OK) status = read_all(json_of(of, true), &reported);
    for (size_t i = 0; i < of->n_stale_since && status == MIR_OK; i++) {
        const char *name = of->stale_since[i]->key;
        json_t *pair = json_object();
        json_t *wanted = json_object_get(desired, name), *said = json_object_get(reported, name);
        if (json_object_set_new(all, name, pair) != 0 ||
            (wanted != NULL && json_object_set(pair, "desired", wanted) != 0) ||
            (said != NULL && json_object_set(pair, "reported", said) != 0))
            status = MIR_E_NO_MEMORY;
    }
    if (status == MIR_OK) status = mir_json_generic(all, text, NULL);
    json_decref(desired);
    json_decref(reported);
    json_decref(all);
    return status;
}

static void put_hash(const record *of, mir_bytes *json)
{
    mir_bytes_u8(json, '"');
    for (size_t i = 0; i < of->schema_hash.len; i++)
        mir_bytes_printf(json, "%02x", of->schema_hash.data[i]);
    mir_bytes_u8(json, '"');
}

/* Schemas are named by their hashes. */
static mir_status schema_json(const record *before, const record *after, mir_bytes *json)
{
    mir_bytes_text(json, "{\"from\":");
    put_hash(before, json);
    mir_bytes_text(json, ",\"to\":");
    put_hash(after, json);
    mir_bytes_text(json, ",\"packages\":[");
    for (size_t i = 0; i < after->n_package_names; i++) {
        if (i != 0) mir_bytes_u8(json, ',');
        mir_json_write_string(mir_view_cstr(after->package_names[i]), json);
    }
    mir_bytes_text(json, "]}");
    return mir_bytes_ok(json) ? MIR_OK : MIR_E_NO_MEMORY;
}

mir_status mir_state_change_json(const mir_state_change *change, mir_bytes *json)
{
    const record *of = change->after;
    if (change->kind == MIR_STATE_SCHEMA_CHANGED) return schema_json(change->before, of, json);
    if (change->kind == MIR_STATE_OUT_OF_SYNC) return out_of_sync_json(of, json);
    mir_bytes_view(json, json_of(of, change->kind == MIR_STATE_REPORTED));
    return mir_bytes_ok(json) ? MIR_OK : MIR_E_NO_MEMORY;
}

/* ── Requests ────────────────────────────────────────────────────────────────────────────────── */

mir_status mir_state_props_tell(mir_state_ops *ops, mir_state_property *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        mir_state_property *of = &list[i];
        if (!of->changed || of->record == NULL) continue;
        of->version = of->record->version;
        if (of->kind == MIR_STATE_PROPERTY_DEFAULT) continue;
        bool reported = of->kind == MIR_STATE_PROPERTY_REPORT;
        TRY(mir_state_ops_add_change(ops, reported ? MIR_STATE_REPORTED : MIR_STATE_DESIRED,
                                     of->before, of->record));
        if (of->out_of_sync)
            TRY(mir_state_ops_add_change(ops, MIR_STATE_OUT_OF_SYNC, of->before, of->record));
    }
    return MIR_OK;
}

/* The properties of one device: decided completely, then stored at once. */
static mir_status execute_device(mir_state_ops *ops, mir_state_property *list, size_t count)
{
    mir_arena *arena = &ops->request->arena;
    uint64_t number = 0;
    record *before = NULL;
    mir_status status = mir_state_db_find_id(ops->db, ops->txn, list[0].device_id, &number);
    if (status == MIR_OK) status = mir_state_db_load(ops->db, ops->txn, number, arena, &before);
    if (status == MIR_E_NOT_FOUND) {
        for (size_t i = 0; i < count; i++)
            TRY(refuse(ops, &list[i], status, "no device found with current targets criteria"));
        return MIR_OK;
    }
    TRY(status);
    record *after = mir_arena_alloc(arena, sizeof *after);
    if (after == NULL) return MIR_E_NO_MEMORY;
    *after = *before;
    bool any = false;
    TRY(mir_state_props_apply(ops, after, list, count));
    for (size_t i = 0; i < count; i++) any = any || list[i].changed;
    if (any) TRY(mir_state_db_store(ops->db, ops->txn, before, after, ops->now_ns));
    for (size_t i = 0; i < count; i++) {
        list[i].version = after->version;
        list[i].before = before;
        list[i].record = after;
    }
    return mir_state_props_tell(ops, list, count);
}

mir_status mir_state_props_execute(mir_state_ops *ops)
{
    mir_state_request *request = ops->request;
    mir_state_property *list = request->properties.list;
    size_t count = request->properties.count;
    if (count > MIR_STATE_PROPERTIES_PER_REQUEST_MAX) {
        mir_state_ops_refuse(request, MIR_E_TOO_LARGE,
                             "%zu properties in one request: use at most %d", count,
                             MIR_STATE_PROPERTIES_PER_REQUEST_MAX);
        return MIR_OK;
    }
    request->changes = mir_arena_alloc(&request->arena, (2 * count + 1) * sizeof *request->changes);
    if (request->changes == NULL) return MIR_E_NO_MEMORY;
    size_t end;
    for (size_t start = 0; start < count; start = end) {
        end = start + 1;
        while (end < count && mir_view_eq(list[start].device_id, list[end].device_id)) end++;
        TRY(execute_device(ops, &list[start], end - start));
    }
    return MIR_OK;
}
