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

static const time_entry *find_time(void *const *entries, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        const time_entry *entry = entries[i];
        if (entry->key != NULL && strcmp(entry->key, name) == 0) return entry;
    }
    return NULL;
}

/* A new list with the time set, or without the name for 0: the old one may be somebody else's. */
static mir_status set_time(mir_state_ops *ops, void ***entries, size_t *count,
                           const ProtobufCMessageDescriptor *descriptor, const char *name,
                           int64_t at_ns)
{
    mir_arena *arena = &ops->request->arena;
    if (at_ns == 0 && find_time(*entries, *count, name) == NULL) return MIR_OK;
    void **list = mir_arena_alloc(arena, (*count + 1) * sizeof(void *));
    if (list == NULL) return MIR_E_NO_MEMORY;
    size_t used = 0;
    for (size_t i = 0; i < *count; i++) {
        const time_entry *entry = (*entries)[i];
        if (entry->key == NULL || strcmp(entry->key, name) != 0) list[used++] = (*entries)[i];
    }
    if (at_ns != 0) {
        time_entry *entry = mir_arena_alloc(arena, sizeof *entry);
        if (entry == NULL) return MIR_E_NO_MEMORY;
        protobuf_c_message_init(descriptor, entry);
        entry->key = mir_arena_strdup(arena, mir_view_cstr(name));
        entry->value = mir_state_time_new(arena, at_ns);
        if (entry->key == NULL || entry->value == NULL) return MIR_E_NO_MEMORY;
        list[used++] = entry;
    }
    *entries = list;
    *count = used;
    return MIR_OK;
}

#define SET_TIME(ops, record, map, Map, name, at_ns)                                               \
    set_time(ops, (void ***)&(record)->map, &(record)->n_##map,                                    \
             &mir_store__v1__device_record__##Map##_entry__descriptor, name, at_ns)

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

/* ── One property ────────────────────────────────────────────────────────────────────────────── */

/* Notes since when the two differ, which both sides' values and times decide. */
static mir_status note_difference(mir_state_ops *ops, record *of, const char *name,
                                  const json_t *desired, const json_t *reported, int64_t at_ns)
{
    bool stale = find_time((void *const *)of->stale_since, of->n_stale_since, name) != NULL;
    bool differs =
        desired != NULL && (stale || reported == NULL || !mir_json_covers(reported, desired));
    int64_t since_ns = time_ns((void *const *)of->differs_since, of->n_differs_since, name);
    if (!differs) at_ns = 0;
    if (differs && since_ns != 0) return MIR_OK;
    return SET_TIME(ops, of, differs_since, differs_since, name, at_ns);
}

/* A report by an older desired property says nothing about the one that is wanted now. */
static mir_status note_staleness(mir_state_ops *ops, record *of, mir_state_property *property)
{
    int64_t wanted_ns = mir_state_property_time_ns(of, false, property->name);
    bool stale = property->goes_by_ns != 0 && property->goes_by_ns < wanted_ns;
    bool was = find_time((void *const *)of->stale_since, of->n_stale_since, property->name) != NULL;
    property->out_of_sync = stale && !was;
    if (stale && was) return MIR_OK;
    return SET_TIME(ops, of, stale_since, stale_since, property->name, stale ? property->at_ns : 0);
}

/* The property in `all` after the merge, MIR_E_INVALID when it is no object. */
static mir_status merge_into(json_t *all, const mir_state_property *property, json_t **merged,
                             mir_error *error)
{
    json_t *patch = NULL;
    TRY(mir_json_parse(property->object, &patch, error));
    mir_status status = MIR_OK;
    json_t *object = json_object_get(all, property->name);
    if (!json_is_object(object) || property->kind == MIR_STATE_PROPERTY_REPLACE) {
        object = json_object();
        if (json_object_set_new(all, property->name, object) != 0) status = MIR_E_NO_MEMORY;
    }
    if (!json_is_object(patch))
        status = mir_error_set(error, MIR_E_INVALID, "a property is a JSON object");
    if (status == MIR_OK) status = mir_json_merge(object, patch);
    if (status == MIR_E_TOO_LARGE)
        (void)mir_error_set(error, status, "the property is nested too deeply");
    json_decref(patch);
    *merged = object;
    return status;
}

static mir_status put(mir_state_ops *ops, record *of, mir_state_property *property, json_t *all)
{
    mir_arena *arena = &ops->request->arena;
    bool reported = property->kind == MIR_STATE_PROPERTY_REPORT;
    mir_error error = {""};
    json_t *merged = NULL;
    mir_view text, whole;
    mir_status status = merge_into(all, property, &merged, &error);
    if (status == MIR_OK) status = copy_text(arena, merged, &text, &error);
    if (status == MIR_OK) status = copy_text(arena, all, &whole, &error);
    if (status == MIR_E_INVALID || status == MIR_E_TOO_LARGE)
        return refuse(ops, property, status, "%s", error.text);
    TRY(status);
    const char *what = reported ? "reported" : "desired";
    if (whole.size > MIR_STATE_PROPERTIES_BYTES_MAX)
        return refuse(ops, property, MIR_E_TOO_LARGE,
                      "the %s properties of a device cannot have %zu bytes: use at most %d", what,
                      whole.size, MIR_STATE_PROPERTIES_BYTES_MAX);
    if (json_object_size(all) > MIR_STATE_PROPERTY_NAMES_MAX)
        return refuse(ops, property, MIR_E_TOO_LARGE,
                      "a device cannot have more than %d %s properties",
                      MIR_STATE_PROPERTY_NAMES_MAX, what);
    /* Devices refuse a property that is no newer than the one they have: what is stored last has the
     * latest time, whatever the clock says. */
    int64_t last_ns = mir_state_property_time_ns(of, false, property->name);
    if (!reported && property->at_ns <= last_ns) property->at_ns = last_ns + 1;
    json_t *other = NULL;
    TRY(read_all(json_of(of, !reported), &other));
    set_json(of, reported, whole);
    if (reported) {
        status = SET_TIME(ops, of, reported_times, reported_times, property->name, property->at_ns);
        if (status == MIR_OK) status = note_staleness(ops, of, property);
    } else {
        status = SET_TIME(ops, of, desired_times, desired_times, property->name, property->at_ns);
    }
    const json_t *opposite = json_object_get(other, property->name);
    if (status == MIR_OK)
        status = note_difference(ops, of, property->name, reported ? opposite : merged,
                                 reported ? merged : opposite, property->at_ns);
    json_decref(other);
    property->merged = text;
    property->merged_ns = property->at_ns;
    property->changed = true;
    return status;
}

mir_status mir_state_props_apply(mir_state_ops *ops, record *of, mir_state_property *property)
{
    property->changed = property->out_of_sync = false;
    property->status = MIR_OK;
    property->error = NULL;
    if (property->has_if_version && property->if_version != of->version)
        return refuse(ops, property, MIR_E_EXISTS,
                      "device %s/%s has version %" PRIu64 ", not %" PRIu64, of->name,
                      of->namespace_, of->version, property->if_version);
    json_t *all = NULL;
    TRY(read_all(json_of(of, property->kind == MIR_STATE_PROPERTY_REPORT), &all));
    const json_t *present = json_object_get(all, property->name);
    mir_status status;
    if (property->kind == MIR_STATE_PROPERTY_DEFAULT && present != NULL) {
        status = copy_text(&ops->request->arena, present, &property->merged, NULL);
        property->merged_ns = mir_state_property_time_ns(of, false, property->name);
    } else {
        status = put(ops, of, property, all);
    }
    json_decref(all);
    return status;
}

/* ── What events carry ───────────────────────────────────────────────────────────────────────── */

bool mir_state_change_is_of_property(unsigned kind)
{
    return kind == MIR_STATE_DESIRED || kind == MIR_STATE_REPORTED || kind == MIR_STATE_OUT_OF_SYNC;
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
        if (json_object_set_new(all, name, pair) != 0 ||
            json_object_set(pair, "desired", json_object_get(desired, name)) != 0 ||
            json_object_set(pair, "reported", json_object_get(reported, name)) != 0)
            status = MIR_E_NO_MEMORY;
    }
    if (status == MIR_OK) status = mir_json_generic(all, text, NULL);
    json_decref(desired);
    json_decref(reported);
    json_decref(all);
    return status;
}

mir_status mir_state_change_json(unsigned kind, const record *of, mir_bytes *json)
{
    if (kind == MIR_STATE_OUT_OF_SYNC) return out_of_sync_json(of, json);
    mir_bytes_view(json, json_of(of, kind == MIR_STATE_REPORTED));
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
    for (size_t i = 0; i < count; i++) {
        TRY(mir_state_props_apply(ops, after, &list[i]));
        any = any || list[i].changed;
    }
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
