/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the state store share: a store in a temporary folder, and requests written as
 * JSON. Included by the test programs alone. */
#ifndef MIR_STATE_TESTING_H
#define MIR_STATE_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "mir_device_json.h"
#include "mir_state.h"
#include "mir_state_internal.h"
#include "mir_timestamp.h"

typedef struct fixture {
    char path[64];
    mir_state *state;
    mir_arena arena; /* of requests that are built */
    mir_state_request request;
} fixture;

static inline void fixture_open(fixture *f, mir_state_sync sync, uint64_t map_bytes)
{
    mir_error error = {""};
    mir_state_options options = {.path = f->path, .map_bytes = map_bytes, .sync = sync};
    mir_status status = mir_state_open(&options, &f->state, &error);
    if (status != MIR_OK) fail_msg("open: %s", error.text);
}

static inline fixture *fixture_new(mir_state_sync sync, uint64_t map_bytes)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    (void)snprintf(f->path, sizeof f->path, "/tmp/mir-state-XXXXXX");
    assert_non_null(mkdtemp(f->path));
    fixture_open(f, sync, map_bytes);
    return f;
}

/* Ends with the check that indexes and records agree. */
static inline void fixture_free(fixture *f)
{
    if (f->state != NULL) {
        MDB_txn *txn = NULL;
        mir_error error = {""};
        assert_int_equal(mir_state_read_begin(f->state, &txn, &error), MIR_OK);
        if (mir_state_db_check(&f->state->db, txn, &error) != MIR_OK)
            fail_msg("check: %s", error.text);
        mir_state_read_end(f->state, txn);
    }
    mir_arena_free(&f->request.arena);
    mir_arena_free(&f->arena);
    mir_state_close(f->state);
    static const char *const files[] = {"data.mdb", "lock.mdb", "owner"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char name[128];
        (void)snprintf(name, sizeof name, "%s/%s", f->path, files[i]);
        (void)unlink(name);
    }
    (void)rmdir(f->path);
    free(f);
}

static inline json_t *parse(const char *text)
{
    json_error_t error;
    json_t *value = json_loads(text, JSON_DECODE_ANY, &error);
    if (value == NULL) fail_msg("test JSON: %s in %s", error.text, text);
    return value;
}

static inline char *text_in(mir_arena *arena, const json_t *text)
{
    return mir_arena_strdup(arena, mir_view_cstr(json_string_value(text)));
}

static inline void names_of(mir_arena *arena, const json_t *list, char ***names, size_t *count)
{
    size_t n = json_array_size(list);
    *count = n;
    *names = mir_arena_alloc(arena, (n + 1) * sizeof(char *));
    for (size_t i = 0; i < n; i++) (*names)[i] = text_in(arena, json_array_get(list, i));
}

static inline MirApi__V1__DeviceTarget *target_of(mir_arena *arena, const char *text)
{
    json_t *json = parse(text);
    MirApi__V1__DeviceTarget *target = mir_arena_alloc(arena, sizeof *target);
    mir_api__v1__device_target__init(target);
    names_of(arena, json_object_get(json, "ids"), &target->ids, &target->n_ids);
    names_of(arena, json_object_get(json, "names"), &target->names, &target->n_names);
    names_of(arena, json_object_get(json, "namespaces"), &target->namespaces,
             &target->n_namespaces);
    names_of(arena, json_object_get(json, "schemas"), &target->schemas, &target->n_schemas);
    json_t *labels = json_object_get(json, "labels");
    target->labels = mir_arena_alloc(arena, (json_object_size(labels) + 1) * sizeof(void *));
    const char *key;
    json_t *value;
    json_object_foreach(labels, key, value)
    {
        MirApi__V1__DeviceTarget__LabelsEntry *entry = mir_arena_alloc(arena, sizeof *entry);
        mir_api__v1__device_target__labels_entry__init(entry);
        entry->key = mir_arena_strdup(arena, mir_view_cstr(key));
        entry->value = text_in(arena, value);
        target->labels[target->n_labels++] = entry;
    }
    json_decref(json);
    return target;
}

static inline MirApi__V1__NewDevice *device_of(mir_arena *arena, const char *text)
{
    mir_error error = {""};
    MirApi__V1__NewDevice *device = NULL;
    if (mir_device_json_read_new(mir_view_cstr(text), arena, &device, &error) != MIR_OK)
        fail_msg("test device: %s", error.text);
    return device;
}

/* Entries whose value is null or "" carry an OptString without or with an empty value. */
static inline void changes_of(mir_arena *arena, const json_t *map,
                              const ProtobufCMessageDescriptor *descriptor, void *entries_out,
                              size_t *count)
{
    MirApi__V1__UpdateDeviceRequest__Meta__LabelsEntry **entries =
        mir_arena_alloc(arena, (json_object_size(map) + 1) * sizeof *entries);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)map, key, value)
    {
        MirApi__V1__UpdateDeviceRequest__Meta__LabelsEntry *entry =
            mir_arena_alloc(arena, sizeof *entry);
        protobuf_c_message_init(descriptor, entry);
        entry->key = mir_arena_strdup(arena, mir_view_cstr(key));
        entry->value = mir_arena_alloc(arena, sizeof *entry->value);
        mir_api__v1__opt_string__init(entry->value);
        if (json_is_string(value)) entry->value->value = text_in(arena, value);
        entries[(*count)++] = entry;
    }
    memcpy(entries_out, &entries, sizeof entries);
}

/* {"name", "namespace", "labels", "annotations", "id", "disabled", "online", "packages"} */
static inline MirApi__V1__UpdateDeviceRequest *update_of(mir_arena *arena, const char *target,
                                                         const char *text)
{
    json_t *json = parse(text), *member;
    MirApi__V1__UpdateDeviceRequest *update = mir_arena_alloc(arena, sizeof *update);
    MirApi__V1__UpdateDeviceRequest__Meta *meta = mir_arena_alloc(arena, sizeof *meta);
    MirApi__V1__UpdateDeviceRequest__Spec *spec = mir_arena_alloc(arena, sizeof *spec);
    MirApi__V1__UpdateDeviceRequest__Status *status = mir_arena_alloc(arena, sizeof *status);
    mir_api__v1__update_device_request__init(update);
    mir_api__v1__update_device_request__meta__init(meta);
    mir_api__v1__update_device_request__spec__init(spec);
    mir_api__v1__update_device_request__status__init(status);
    update->meta = meta;
    update->spec = spec;
    update->status = status;
    if (target != NULL) update->targets = target_of(arena, target);
    if ((member = json_object_get(json, "name")) != NULL) meta->name = text_in(arena, member);
    if ((member = json_object_get(json, "namespace")) != NULL)
        meta->namespace_ = text_in(arena, member);
    if ((member = json_object_get(json, "id")) != NULL) spec->device_id = text_in(arena, member);
    if ((member = json_object_get(json, "disabled")) != NULL) {
        spec->has_disabled = 1;
        spec->disabled = json_is_true(member);
    }
    if ((member = json_object_get(json, "online")) != NULL) {
        status->has_online = 1;
        status->online = json_is_true(member);
    }
    if ((member = json_object_get(json, "packages")) != NULL) {
        status->schema = mir_arena_alloc(arena, sizeof *status->schema);
        mir_api__v1__update_device_request__schema__init(status->schema);
        names_of(arena, member, &status->schema->package_names, &status->schema->n_package_names);
    }
    changes_of(arena, json_object_get(json, "labels"),
               &mir_api__v1__update_device_request__meta__labels_entry__descriptor, &meta->labels,
               &meta->n_labels);
    changes_of(arena, json_object_get(json, "annotations"),
               &mir_api__v1__update_device_request__meta__annotations_entry__descriptor,
               &meta->annotations, &meta->n_annotations);
    json_decref(json);
    return update;
}

/* ── Requests that are executed at once; outputs stay in f->request until the next one. ──────── */

static inline mir_status run(fixture *f)
{
    mir_status status = mir_state_execute(f->state, &f->request);
    assert_int_equal(status == MIR_OK, f->request.error == NULL);
    return status;
}

static inline mir_status create(fixture *f, const char *device)
{
    MirApi__V1__CreateDeviceRequest *create = mir_arena_alloc(&f->arena, sizeof *create);
    mir_api__v1__create_device_request__init(create);
    create->device = device == NULL ? NULL : device_of(&f->arena, device);
    f->request.op = MIR_STATE_CREATE;
    f->request.create = create;
    return run(f);
}

/* A device with an id, a name, a namespace and one label. */
static inline void add(fixture *f, const char *id, const char *name, const char *name_space)
{
    char text[1024];
    (void)snprintf(text, sizeof text,
                   "{\"meta\":{\"name\":\"%s\",\"namespace\":\"%s\"},\"spec\":{\"deviceId\":"
                   "\"%s\"}}",
                   name, name_space, id);
    if (create(f, text) != MIR_OK) fail_msg("add: %s", f->request.error);
}

static inline mir_status create_many(fixture *f, const char *list)
{
    json_t *json = parse(list);
    size_t count = json_array_size(json);
    MirApi__V1__CreateDevicesRequest *many = mir_arena_alloc(&f->arena, sizeof *many);
    mir_api__v1__create_devices_request__init(many);
    many->devices = mir_arena_alloc(&f->arena, (count + 1) * sizeof *many->devices);
    for (size_t i = 0; i < count; i++) {
        char *text = json_dumps(json_array_get(json, i), 0);
        many->devices[many->n_devices++] = device_of(&f->arena, text);
        free(text);
    }
    json_decref(json);
    f->request.op = MIR_STATE_CREATE_MANY;
    f->request.create_many = many;
    return run(f);
}

static inline mir_status update(fixture *f, const char *target, const char *change)
{
    f->request.op = MIR_STATE_UPDATE;
    f->request.update = update_of(&f->arena, target, change);
    return run(f);
}

static inline mir_status delete_them(fixture *f, const char *target)
{
    MirApi__V1__DeleteDeviceRequest *delete_ = mir_arena_alloc(&f->arena, sizeof *delete_);
    mir_api__v1__delete_device_request__init(delete_);
    delete_->targets = target == NULL ? NULL : target_of(&f->arena, target);
    f->request.op = MIR_STATE_DELETE;
    f->request.delete_ = delete_;
    return run(f);
}

static inline mir_status heartbeats(fixture *f, mir_state_heartbeat *beats, size_t count,
                                    bool refresh_only)
{
    f->request.op = MIR_STATE_HEARTBEAT;
    f->request.heartbeat.beats = beats;
    f->request.heartbeat.count = count;
    f->request.heartbeat.refresh_only = refresh_only;
    return run(f);
}

/* The ids that match, in the order of the list, joined with ','. */
static inline const char *list(fixture *f, const char *target)
{
    mir_error error = {""};
    MirStore__V1__DeviceRecord **records = NULL;
    size_t count = 0;
    MirApi__V1__DeviceTarget *parsed = target == NULL ? NULL : target_of(&f->arena, target);
    mir_status status = mir_state_list(f->state, parsed, &f->arena, &records, &count, &error);
    if (status != MIR_OK) fail_msg("list: %s", error.text);
    uint64_t counted = 0;
    assert_int_equal(mir_state_count(f->state, parsed, &counted, &error), MIR_OK);
    assert_int_equal(counted, count);
    mir_bytes text = {0};
    for (size_t i = 0; i < count; i++)
        mir_bytes_printf(&text, "%s%s", i == 0 ? "" : ",", records[i]->device_id);
    char *copy = mir_arena_strdup(&f->arena, mir_bytes_as_view(&text));
    mir_bytes_free(&text);
    return copy;
}

static inline MirStore__V1__DeviceRecord *get(fixture *f, const char *id)
{
    mir_error error = {""};
    MirStore__V1__DeviceRecord *record = NULL;
    mir_status status = mir_state_get(f->state, mir_view_cstr(id), &f->arena, &record, &error);
    if (status == MIR_E_NOT_FOUND) return NULL;
    if (status != MIR_OK) fail_msg("get: %s", error.text);
    return record;
}

/* The value of a label, null if there is none. */
static inline const char *label(const MirStore__V1__DeviceRecord *record, const char *key)
{
    for (size_t i = 0; i < record->n_labels; i++)
        if (strcmp(record->labels[i]->key, key) == 0) return record->labels[i]->value;
    return NULL;
}

#endif
