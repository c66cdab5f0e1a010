/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_device_json.h"
#include "mir_state_internal.h"
#include "mir_timestamp.h"

typedef MirStore__V1__DeviceRecord record;

#define TRY(call)                                                                                  \
    do {                                                                                           \
        mir_status try_status = (call);                                                            \
        if (try_status != MIR_OK) return try_status;                                               \
    } while (0)

/* What one call of mir_state_devices_of works with; schemas are found by hash in an open table. */
typedef struct conversion {
    mir_state *state;
    MDB_txn *txn;
    mir_arena *arena;
    bool live;
    struct schema_slot {
        mir_view hash;
        MirStore__V1__SchemaRecord *record; /* null: not stored any more */
    } * schemas;
    size_t schema_mask;
} conversion;

static char api_version[] = "mir/v1alpha";
static char kind[] = "device";

static void *alloc(conversion *c, size_t size)
{
    return mir_arena_alloc(c->arena, size);
}

static mir_status convert_time(conversion *c, const MirStore__V1__Time *time,
                               MirApi__V1__Timestamp **out)
{
    if (time == NULL) return MIR_OK;
    MirApi__V1__Timestamp *made = alloc(c, sizeof *made);
    if (made == NULL) return MIR_E_NO_MEMORY;
    mir_api__v1__timestamp__init(made);
    made->has_seconds = made->has_nanos = 1;
    made->seconds = time->seconds;
    made->nanos = time->nanos;
    *out = made;
    return MIR_OK;
}

static mir_status convert_meta(conversion *c, record *from, MirApi__V1__Meta **out)
{
    MirApi__V1__Meta *meta = alloc(c, sizeof *meta);
    if (meta == NULL) return MIR_E_NO_MEMORY;
    mir_api__v1__meta__init(meta);
    meta->name = from->name;
    meta->namespace_ = from->namespace_;
    if (from->n_labels != 0) {
        meta->labels = alloc(c, from->n_labels * sizeof *meta->labels);
        if (meta->labels == NULL) return MIR_E_NO_MEMORY;
    }
    for (size_t i = 0; i < from->n_labels; i++) {
        MirApi__V1__Meta__LabelsEntry *entry = alloc(c, sizeof *entry);
        if (entry == NULL) return MIR_E_NO_MEMORY;
        mir_api__v1__meta__labels_entry__init(entry);
        entry->key = from->labels[i]->key;
        entry->value = from->labels[i]->value;
        meta->labels[meta->n_labels++] = entry;
    }
    if (from->n_annotations != 0) {
        meta->annotations = alloc(c, from->n_annotations * sizeof *meta->annotations);
        if (meta->annotations == NULL) return MIR_E_NO_MEMORY;
    }
    for (size_t i = 0; i < from->n_annotations; i++) {
        MirApi__V1__Meta__AnnotationsEntry *entry = alloc(c, sizeof *entry);
        if (entry == NULL) return MIR_E_NO_MEMORY;
        mir_api__v1__meta__annotations_entry__init(entry);
        entry->key = from->annotations[i]->key;
        entry->value = from->annotations[i]->value;
        meta->annotations[meta->n_annotations++] = entry;
    }
    *out = meta;
    return MIR_OK;
}

static mir_status convert_properties(conversion *c, const record *from,
                                     MirApi__V1__DeviceProperties **out)
{
    MirApi__V1__DeviceProperties *properties = alloc(c, sizeof *properties);
    if (properties == NULL) return MIR_E_NO_MEMORY;
    mir_api__v1__device_properties__init(properties);
    mir_view desired = {NULL, 0}, reported = {NULL, 0};
    if (from->has_desired_json)
        desired = mir_view_of(from->desired_json.data, from->desired_json.len);
    if (from->has_reported_json)
        reported = mir_view_of(from->reported_json.data, from->reported_json.len);
    mir_status status = mir_struct_parse(desired, c->arena, &properties->desired, NULL);
    if (status == MIR_OK)
        status = mir_struct_parse(reported, c->arena, &properties->reported, NULL);
    if (status == MIR_OK) *out = properties;
    return status == MIR_E_INVALID ? MIR_E_CORRUPT : status;
}

static mir_status convert_property_times(conversion *c, const record *from,
                                         MirApi__V1__PropertiesTime **out)
{
    MirApi__V1__PropertiesTime *times = alloc(c, sizeof *times);
    if (times == NULL) return MIR_E_NO_MEMORY;
    mir_api__v1__properties_time__init(times);
    if (from->n_desired_times != 0) {
        times->desired = alloc(c, from->n_desired_times * sizeof *times->desired);
        if (times->desired == NULL) return MIR_E_NO_MEMORY;
    }
    for (size_t i = 0; i < from->n_desired_times; i++) {
        MirApi__V1__PropertiesTime__DesiredEntry *entry = alloc(c, sizeof *entry);
        if (entry == NULL) return MIR_E_NO_MEMORY;
        mir_api__v1__properties_time__desired_entry__init(entry);
        entry->key = from->desired_times[i]->key;
        TRY(convert_time(c, from->desired_times[i]->value, &entry->value));
        times->desired[times->n_desired++] = entry;
    }
    if (from->n_reported_times != 0) {
        times->reported = alloc(c, from->n_reported_times * sizeof *times->reported);
        if (times->reported == NULL) return MIR_E_NO_MEMORY;
    }
    for (size_t i = 0; i < from->n_reported_times; i++) {
        MirApi__V1__PropertiesTime__ReportedEntry *entry = alloc(c, sizeof *entry);
        if (entry == NULL) return MIR_E_NO_MEMORY;
        mir_api__v1__properties_time__reported_entry__init(entry);
        entry->key = from->reported_times[i]->key;
        TRY(convert_time(c, from->reported_times[i]->value, &entry->value));
        times->reported[times->n_reported++] = entry;
    }
    *out = times;
    return MIR_OK;
}

static mir_status find_schema(conversion *c, mir_view hash, MirStore__V1__SchemaRecord **found)
{
    uint64_t start;
    memcpy(&start, hash.data, sizeof start); /* SHA-256 is as good as a hash of itself */
    size_t at = (size_t)start & c->schema_mask;
    while (c->schemas[at].hash.size != 0 && !mir_view_eq(c->schemas[at].hash, hash))
        at = (at + 1) & c->schema_mask;
    if (c->schemas[at].hash.size == 0) {
        mir_status status =
            mir_state_db_schema_load(&c->state->db, c->txn, hash, c->arena, &c->schemas[at].record);
        /* Of a device that was deleted a while ago the schema may be gone too. */
        if (status != MIR_OK && status != MIR_E_NOT_FOUND) return status;
        c->schemas[at].hash = hash;
    }
    *found = c->schemas[at].record;
    return MIR_OK;
}

static mir_status convert_status(conversion *c, record *from, MirApi__V1__DeviceStatus **out)
{
    MirApi__V1__DeviceStatus *status = alloc(c, sizeof *status);
    MirApi__V1__Schema *schema = alloc(c, sizeof *schema);
    if (status == NULL || schema == NULL) return MIR_E_NO_MEMORY;
    mir_api__v1__device_status__init(status);
    mir_api__v1__schema__init(schema);
    status->schema = schema;
    status->has_version = from->has_version;
    status->version = from->version;
    status->has_online = from->has_online;
    status->online = from->online;
    int64_t live_ns = c->live ? mir_state_live_ns(c->state, from->number) : 0;
    if (live_ns > mir_state_time_ns(from->last_heartbeat)) {
        status->last_hearthbeat = mir_timestamp_new(c->arena, live_ns);
        if (status->last_hearthbeat == NULL) return MIR_E_NO_MEMORY;
    } else {
        TRY(convert_time(c, from->last_heartbeat, &status->last_hearthbeat));
    }
    schema->package_names = from->package_names;
    schema->n_package_names = from->n_package_names;
    TRY(convert_time(c, from->last_schema_fetch, &schema->last_schema_fetch));
    if (from->has_schema_hash && from->schema_hash.len == MIR_STATE_HASH_BYTES) {
        MirStore__V1__SchemaRecord *stored = NULL;
        TRY(find_schema(c, mir_view_of(from->schema_hash.data, from->schema_hash.len), &stored));
        if (stored != NULL && stored->has_compressed) {
            schema->has_compressed_schema = 1;
            schema->compressed_schema = stored->compressed;
        }
    }
    TRY(convert_property_times(c, from, &status->properties));
    *out = status;
    return MIR_OK;
}

static mir_status convert(conversion *c, record *from, MirApi__V1__Device **out)
{
    MirApi__V1__Device *device = alloc(c, sizeof *device);
    MirApi__V1__DeviceSpec *spec = alloc(c, sizeof *spec);
    if (device == NULL || spec == NULL) return MIR_E_NO_MEMORY;
    mir_api__v1__device__init(device);
    mir_api__v1__device_spec__init(spec);
    device->api_version = api_version;
    device->kind = kind;
    device->spec = spec;
    spec->device_id = from->device_id;
    spec->has_disabled = from->has_disabled;
    spec->disabled = from->disabled;
    TRY(convert_meta(c, from, &device->meta));
    TRY(convert_properties(c, from, &device->properties));
    TRY(convert_status(c, from, &device->status));
    *out = device;
    return MIR_OK;
}

mir_status mir_state_convert(mir_state *state, MDB_txn *txn,
                             MirStore__V1__DeviceRecord *const *records, size_t count, bool live,
                             mir_arena *arena, MirApi__V1__Device **devices)
{
    conversion c = {.state = state, .txn = txn, .arena = arena, .live = live};
    size_t slots = 2;
    while (slots < count * 2) slots *= 2;
    c.schemas = alloc(&c, slots * sizeof *c.schemas);
    c.schema_mask = slots - 1;
    if (c.schemas == NULL) return MIR_E_NO_MEMORY;
    for (size_t i = 0; i < count; i++) TRY(convert(&c, records[i], &devices[i]));
    return MIR_OK;
}

static mir_status devices_of(mir_state *state, record *const *records, size_t count, bool live,
                             mir_arena *arena, MirApi__V1__Device ***devices, mir_error *error)
{
    MirApi__V1__Device **made = mir_arena_alloc(arena, (count + 1) * sizeof *made);
    mir_status status = made == NULL ? MIR_E_NO_MEMORY : MIR_OK;
    MDB_txn *txn = NULL;
    if (status == MIR_OK) {
        TRY(mir_state_read_begin(state, &txn, error));
        status = mir_state_convert(state, txn, records, count, live, arena, made);
        mir_state_read_end(state, txn);
    }
    if (status == MIR_E_NO_MEMORY)
        return mir_error_set(error, status, "%zu devices need too much memory: narrow the target",
                             count);
    if (status != MIR_OK) {
        mir_state_db_explain(&state->db, status, error);
        return status;
    }
    *devices = made;
    return MIR_OK;
}

mir_status mir_state_devices_of(mir_state *state, record *const *records, size_t count,
                                mir_arena *arena, MirApi__V1__Device ***devices, mir_error *error)
{
    return devices_of(state, records, count, true, arena, devices, error);
}

mir_status mir_state_device_of(mir_state *state, record *from, mir_arena *arena,
                               MirApi__V1__Device **device, mir_error *error)
{
    MirApi__V1__Device **list = NULL;
    TRY(devices_of(state, &from, 1, true, arena, &list, error));
    *device = list[0];
    return MIR_OK;
}

mir_status mir_state_device_as_stored(mir_state *state, record *from, mir_arena *arena,
                                      MirApi__V1__Device **device, mir_error *error)
{
    MirApi__V1__Device **list = NULL;
    TRY(devices_of(state, &from, 1, false, arena, &list, error));
    *device = list[0];
    return MIR_OK;
}
