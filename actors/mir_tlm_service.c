/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlm_service.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mir_api/v1/tlm.pb-c.h"
#include "mir_clock.h"
#include "mir_hash.h"
#include "mir_log.h"
#include "mir_resolve.h"
#include "mir_pbwire.h"
#include "mir_tlm_ask.h"
#include "mir_tlm_devices.h"
#include "mir_tlm_renames.h"
#include "mir_tlm_stream.h"
#include "mir_tlm_table.h"
#include "mir_tlm_window.h"
#include "mir_timestamp.h"

/* Fields are listed that had data within this time. */
static const int64_t fields_age_ns = INT64_C(30) * 24 * 3600 * MIR_NS_PER_S;
static const int64_t default_range_ns = 3600 * MIR_NS_PER_S;

/* The smallest packed row, but for its cells: lead 2, time 11, id 5. */
enum { ROW_BYTES_MIN = 16 };

/* Of a quarter of a megabyte each: sending them takes a shard some hundred microseconds. */
enum { STREAM_LETTERS_PER_TURN = 2 };

static size_t answer_bytes_max(const mir_request *request)
{
    size_t size_max = (size_t)request->hub->config->limits.max_payload_bytes;
    return size_max > MIR_CHAIN_BLOCK_BYTES_MAX ? size_max - MIR_CHAIN_BLOCK_BYTES_MAX : 1;
}

static const char no_device[] = "no device found with current targets criteria";

static void fail_listing(mir_request *request, const mir_error *error)
{
    mir_request_fail(request, "error listing device from db: %s", error->text);
}

/* The devices that match; answers and returns false when there are none or they cannot be read. */
static bool find_devices(mir_request *request, const MirApi__V1__DeviceTarget *targets,
                         MirStore__V1__DeviceRecord ***records, size_t *count)
{
    mir_error error = {{0}};
    mir_status status =
        mir_state_list(request->hub->state, targets, &request->arena, records, count, &error);
    if (status != MIR_OK) {
        fail_listing(request, &error);
        return false;
    }
    if (*count == 0) mir_request_fail(request, "%s", no_device);
    return *count != 0;
}

static void fail_finish(mir_request *request, const char *text)
{
    mir_request_fail(request, "%s", text);
    mir_request_finish(request);
}

/* --- list ----------------------------------------------------------------------------------- */

typedef struct measurement {
    mir_map_node by_name;
    const char *name;
    char **fields;
    size_t field_count;
    size_t field_capacity;
    const char *error;
} measurement;

typedef struct listing {
    mir_request *request;
    MirApi__V1__ListTelemetryRequest *input;
    mir_map measurements;
    MirStore__V1__DeviceRecord **devices; /* one of each schema */
    size_t device_count;
    size_t bytes; /* of texts made for the answer: at least that much goes into it */
    size_t bytes_max;
} listing;

static mir_status count_bytes(listing *list, size_t size)
{
    if (size > list->bytes_max - list->bytes) return MIR_E_TOO_LARGE;
    list->bytes += size;
    return MIR_OK;
}

static mir_status take_field(void *context, mir_view name)
{
    measurement *of = ((void **)context)[0];
    mir_arena *arena = ((void **)context)[1];
    if (of->field_count == of->field_capacity) {
        size_t capacity = of->field_capacity == 0 ? 16 : of->field_capacity * 2;
        char **grown = mir_arena_alloc(arena, capacity * sizeof *grown);
        if (grown == NULL) return MIR_E_NO_MEMORY;
        if (of->field_count != 0) memcpy(grown, of->fields, of->field_count * sizeof *grown);
        of->fields = grown;
        of->field_capacity = capacity;
    }
    char *copy = mir_arena_strdup(arena, name);
    if (copy == NULL) return MIR_E_NO_MEMORY;
    of->fields[of->field_count++] = copy;
    return MIR_OK;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* A field that had other names is listed once, unless some of the devices still have another one. */
static mir_status fields_today(listing *list, measurement *of, mir_error *error)
{
    mir_hub *hub = list->request->hub;
    const mir_tlm_sources sources = {hub->state, hub->schemas, hub->tlog};
    mir_tlog_query_spec spec = {.measurement = mir_view_cstr(of->name)};
    const mir_status status = mir_tlm_renames(&sources, list->devices, list->device_count,
                                              &list->request->arena, &spec, error);
    if (status != MIR_OK || spec.rename_count == 0 || of->field_count == 0) return status;
    for (size_t i = 0; i < of->field_count; i++) {
        const mir_view name = mir_tlm_renamed(&spec, mir_view_cstr(of->fields[i]));
        of->fields[i] = mir_arena_strdup(&list->request->arena, name);
        if (of->fields[i] == NULL) return MIR_E_NO_MEMORY;
    }
    qsort(of->fields, of->field_count, sizeof *of->fields, compare_texts);
    size_t kept = 1;
    for (size_t i = 1; i < of->field_count; i++)
        if (strcmp(of->fields[i], of->fields[kept - 1]) != 0) of->fields[kept++] = of->fields[i];
    of->field_count = kept;
    return MIR_OK;
}

/* Looked up once for each name, however many groups have it. */
static measurement *measurement_of(listing *list, const char *name)
{
    mir_view key = mir_view_cstr(name);
    uint64_t hash = mir_hash_view(key);
    mir_map_node *node = mir_map_first(&list->measurements, hash);
    for (; node != NULL; node = mir_map_next(node)) {
        measurement *known = MIR_CONTAINER(node, measurement, by_name);
        if (strcmp(known->name, name) == 0) return known;
    }
    mir_arena *arena = &list->request->arena;
    measurement *fresh = mir_arena_alloc(arena, sizeof *fresh);
    if (fresh == NULL) return NULL;
    fresh->name = name;
    mir_error error = {{0}};
    void *context[2] = {fresh, arena};
    mir_status status =
        mir_tlog_fields(list->request->hub->tlog, key, mir_clock_wall_ns() - fields_age_ns,
                        take_field, context, &error);
    if (status == MIR_OK) status = fields_today(list, fresh, &error);
    if (status != MIR_OK) {
        fresh->field_count = 0;
        fresh->error = mir_arena_strdup(
            arena, mir_view_cstr(error.text[0] == '\0' ? mir_status_name(status) : error.text));
        if (fresh->error == NULL) return NULL;
    }
    mir_map_add(&list->measurements, &fresh->by_name, hash);
    return fresh;
}

static bool is_wanted(const MirApi__V1__ListTelemetryRequest *input, const char *name)
{
    for (size_t i = 0; i < input->n_measurements; i++)
        if (strcmp(input->measurements[i], name) == 0) return true;
    return input->n_measurements == 0;
}

static bool has_label(const mir_schema_label *labels, uint32_t count, mir_view key, mir_view value)
{
    for (uint32_t i = 0; i < count; i++)
        if (mir_view_eq(labels[i].key, key)) return mir_view_eq(labels[i].value, value);
    return false;
}

static bool passes(const MirApi__V1__ListTelemetryRequest *input, const mir_schema_label *labels,
                   uint32_t count)
{
    for (size_t i = 0; i < input->n_filters; i++) {
        if (!has_label(labels, count, mir_view_cstr(input->filters[i]->key),
                       mir_view_cstr(input->filters[i]->value))) {
            return false;
        }
    }
    return true;
}

/* A Flux string: quotes and what begins an expression inside it are escaped. */
static void add_quoted(mir_bytes *text, const char *value)
{
    mir_bytes_u8(text, '"');
    for (const char *at = value; *at != '\0'; at++) {
        if (*at == '"' || *at == '\\' || (*at == '$' && at[1] == '{')) mir_bytes_u8(text, '\\');
        mir_bytes_u8(text, (uint8_t)*at);
    }
    mir_bytes_u8(text, '"');
}

/* What stands between quotes in InfluxQL. */
static void add_influx_quoted(mir_bytes *text, char quote, const char *value)
{
    mir_bytes_u8(text, (uint8_t)quote);
    for (const char *at = value; *at != '\0'; at++) {
        if (*at == quote || *at == '\\') mir_bytes_u8(text, '\\');
        mir_bytes_u8(text, (uint8_t)*at);
    }
    mir_bytes_u8(text, (uint8_t)quote);
}

/* What the queries of a group have in common: all behind the measurement. */
static void add_influx_tail(mir_bytes *text, const mir_schema_group *group)
{
    mir_bytes_text(text, " WHERE (");
    for (size_t i = 0; i < group->count; i++) {
        if (i != 0) mir_bytes_text(text, " OR ");
        mir_bytes_text(text, "\"__id\" = ");
        add_influx_quoted(text, '\'', group->records[i]->device_id);
    }
    mir_bytes_text(text, ") AND $timeFilter GROUP BY \"__id\"");
}

/* What the queries of a group have in common: all but the last line. */
static void add_flux_head(mir_bytes *text, const mir_schema_group *group)
{
    mir_bytes_text(text, "from(bucket: \"mir\")\n"
                         "  |> range(start: v.timeRangeStart, stop: v.timeRangeStop)\n"
                         "  |> filter(fn: (r) => ");
    for (size_t i = 0; i < group->count; i++) {
        if (i != 0) mir_bytes_text(text, " or ");
        mir_bytes_text(text, "r[\"__id\"] == ");
        add_quoted(text, group->records[i]->device_id);
    }
    mir_bytes_text(text, ")\n");
}

static bool explores_influxql(const listing *list)
{
    return list->request->hub->config->telemetry.explore == MIR_CONFIG_EXPLORE_INFLUXQL;
}

static mir_status explore_query(listing *list, mir_bytes *common, size_t common_size,
                                const char *name, char **query)
{
    mir_bytes made = {0};
    mir_bytes *text = common;
    text->size = common_size;
    if (explores_influxql(list)) {
        text = &made;
        mir_bytes_text(text, "SELECT * FROM ");
        add_influx_quoted(text, '"', name);
        mir_bytes_view(text, mir_bytes_as_view(common));
    } else {
        mir_bytes_text(text, "  |> filter(fn: (r) => r[\"_measurement\"] == ");
        add_quoted(text, name);
        mir_bytes_text(text, ")");
    }
    mir_status status = mir_bytes_ok(text) ? count_bytes(list, text->size) : MIR_E_NO_MEMORY;
    if (status == MIR_OK) {
        *query = mir_arena_strdup(&list->request->arena, mir_bytes_as_view(text));
        if (*query == NULL) status = MIR_E_NO_MEMORY;
    }
    mir_bytes_free(&made);
    return status;
}

static mir_status set_labels(listing *list, const mir_schema_label *labels, uint32_t count,
                             MirApi__V1__TelemetryDescriptor *descriptor)
{
    mir_arena *arena = &list->request->arena;
    descriptor->labels = mir_arena_alloc(arena, (count + 1) * sizeof *descriptor->labels);
    MirApi__V1__TelemetryDescriptor__LabelsEntry *entries =
        mir_arena_alloc(arena, (count + 1) * sizeof *entries);
    if (descriptor->labels == NULL || entries == NULL) return MIR_E_NO_MEMORY;
    for (uint32_t i = 0; i < count; i++) {
        mir_status status = count_bytes(list, labels[i].key.size + labels[i].value.size);
        if (status != MIR_OK) return status;
        mir_api__v1__telemetry_descriptor__labels_entry__init(&entries[i]);
        entries[i].key = mir_arena_strdup(arena, labels[i].key);
        entries[i].value = mir_arena_strdup(arena, labels[i].value);
        if (entries[i].key == NULL || entries[i].value == NULL) return MIR_E_NO_MEMORY;
        descriptor->labels[i] = &entries[i];
    }
    descriptor->n_labels = count;
    return MIR_OK;
}

/* *descriptor stays null when the request does not want the message. */
static mir_status describe(listing *list, mir_bytes *explore, size_t head_size,
                           const mir_schema_message *message,
                           MirApi__V1__TelemetryDescriptor **descriptor)
{
    mir_arena *arena = &list->request->arena;
    if (!is_wanted(list->input, message->name)) return MIR_OK;
    const mir_schema_label *labels = NULL;
    uint32_t label_count = 0;
    mir_status status = mir_schema_labels(message, arena, &labels, &label_count);
    if (status != MIR_OK || !passes(list->input, labels, label_count)) return status;
    MirApi__V1__TelemetryDescriptor *made = mir_arena_alloc(arena, sizeof *made);
    measurement *data = measurement_of(list, message->name);
    if (made == NULL || data == NULL) return MIR_E_NO_MEMORY;
    mir_api__v1__telemetry_descriptor__init(made);
    /* The schema is referenced until the answer is packed. */
    made->name = (char *)(uintptr_t)message->name;
    status = set_labels(list, labels, label_count, made);
    if (status != MIR_OK) return status;
    made->fields = data->fields;
    made->n_fields = data->field_count;
    if (data->error != NULL)
        made->error = (char *)(uintptr_t)data->error;
    else
        status = explore_query(list, explore, head_size, message->name, &made->explore_query);
    *descriptor = made;
    return status;
}

static mir_status set_descriptors(listing *list, const mir_schema_group *group,
                                  MirApi__V1__DevicesTelemetry *entry)
{
    uint32_t count = 0;
    const mir_schema_message *const *messages =
        mir_schema_list(group->schema, MIR_MESSAGE_TELEMETRY, &count);
    entry->tlm_descriptors = mir_arena_alloc(&list->request->arena,
                                             ((size_t)count + 1) * sizeof *entry->tlm_descriptors);
    if (entry->tlm_descriptors == NULL) return MIR_E_NO_MEMORY;
    mir_bytes explore = {0};
    if (explores_influxql(list))
        add_influx_tail(&explore, group);
    else
        add_flux_head(&explore, group);
    size_t head_size = explore.size;
    mir_status status = mir_bytes_ok(&explore) ? MIR_OK : MIR_E_NO_MEMORY;
    for (uint32_t i = 0; i < count && status == MIR_OK; i++) {
        MirApi__V1__TelemetryDescriptor *descriptor = NULL;
        status = describe(list, &explore, head_size, messages[i], &descriptor);
        if (descriptor != NULL) entry->tlm_descriptors[entry->n_tlm_descriptors++] = descriptor;
    }
    mir_bytes_free(&explore);
    return status;
}

static mir_status add_groups(listing *list, const mir_schema_group_list *groups,
                             MirApi__V1__TelemetryResponse *response)
{
    mir_status status = MIR_OK;
    for (mir_schema_group *group = groups->first; group != NULL && status == MIR_OK;
         group = group->next) {
        MirApi__V1__DevicesTelemetry *entry = mir_arena_alloc(&list->request->arena, sizeof *entry);
        if (entry == NULL) return MIR_E_NO_MEMORY;
        mir_api__v1__devices_telemetry__init(entry);
        response->devices_telemetry[response->n_devices_telemetry++] = entry;
        status = mir_schema_group_ids(group, &list->request->arena, &entry->ids, &entry->n_ids);
        if (group->error != NULL)
            entry->error = (char *)(uintptr_t)group->error;
        else if (status == MIR_OK)
            status = set_descriptors(list, group, entry);
    }
    return status;
}

static mir_status devices_find(listing *list, const mir_schema_group_list *groups)
{
    list->devices =
        mir_arena_alloc(&list->request->arena, (groups->count + 1) * sizeof *list->devices);
    if (list->devices == NULL) return MIR_E_NO_MEMORY;
    for (const mir_schema_group *group = groups->first; group != NULL; group = group->next)
        if (group->count != 0) list->devices[list->device_count++] = group->records[0];
    return MIR_OK;
}

static void list_answer(mir_request *request)
{
    listing *list = request->context;
    mir_resolution *resolution = request->resolution;
    mir_schema_groups *found = &resolution->groups;
    mir_status status = mir_resolution_collect(resolution);
    MirApi__V1__TelemetryResponse groups = MIR_API__V1__TELEMETRY_RESPONSE__INIT;
    groups.devices_telemetry =
        mir_arena_alloc(&request->arena, (found->errors.count + found->schemas.count + 1) *
                                             sizeof *groups.devices_telemetry);
    if (groups.devices_telemetry == NULL) status = MIR_E_NO_MEMORY;
    if (status == MIR_OK) status = devices_find(list, &found->schemas);
    if (status == MIR_OK) status = add_groups(list, &found->errors, &groups);
    if (status == MIR_OK) status = add_groups(list, &found->schemas, &groups);
    if (status == MIR_OK) {
        MirApi__V1__ListTelemetryResponse response = MIR_API__V1__LIST_TELEMETRY_RESPONSE__INIT;
        response.response_case = MIR_API__V1__LIST_TELEMETRY_RESPONSE__RESPONSE_OK;
        response.ok = &groups;
        mir_request_answer(request, &response.base);
    } else if (status == MIR_E_TOO_LARGE) {
        mir_request_fail(request,
                         "the answer would be larger than a message may be (%zu bytes): narrow "
                         "the target or name the measurements",
                         list->bytes_max);
    } else {
        mir_request_fail(request, "the server is out of memory");
    }
    mir_resolution_free(resolution);
    mir_map_free(&list->measurements);
    mir_request_finish(request);
}

void mir_tlm_list(mir_request *request)
{
    MirApi__V1__ListTelemetryRequest *input;
    MirStore__V1__DeviceRecord **records;
    size_t count;
    listing *list = mir_arena_alloc(&request->arena, sizeof *list);
    if (list == NULL) {
        fail_finish(request, "the server is out of memory");
        return;
    }
    if (!mir_request_unpack(request, &mir_api__v1__list_telemetry_request__descriptor, &input) ||
        !find_devices(request, input->targets, &records, &count)) {
        mir_request_finish(request);
        return;
    }
    request->context = list;
    list->request = request;
    list->input = input;
    list->bytes_max = answer_bytes_max(request);
    mir_resolve(request, records, count, input->refresh_schema, list_answer);
}

/* --- query ---------------------------------------------------------------------------------- */

/* Times before and after what nanoseconds can say are the first and the last that they can. */
static int64_t time_of(const MirApi__V1__Timestamp *time, int64_t absent_ns)
{
    if (time == NULL) return absent_ns;
    int64_t ns;
    if (__builtin_mul_overflow(time->seconds, MIR_NS_PER_S, &ns) ||
        __builtin_add_overflow(ns, time->nanos, &ns)) {
        return time->seconds < 0 ? INT64_MIN : INT64_MAX;
    }
    return ns;
}

/* Which units the fields have, by the schema of one device: that of the first row. */
typedef struct units {
    mir_request *request;
    MirStore__V1__DeviceRecord *const *records;
    const mir_tlog_query_spec *spec;
    const char *measurement;
    bool is_known;
    mir_schema *schema;
    const mir_schema_message *message;
} units;

/* A count has no unit, a rate that of the field per second. */
static const char *unit_of(void *context, uint32_t device, mir_view column)
{
    units *of = context;
    mir_tlog_function function;
    mir_view field = mir_tlm_ask_field(of->spec, column, &function);
    if (function == MIR_TLOG_COUNT) return NULL;
    if (of->spec->groups != NULL) device = 0; /* any of the devices */
    if (!of->is_known) {
        of->is_known = true;
        mir_known_schema known;
        mir_error error;
        if (mir_schemas_get(of->request->hub->schemas, mir_resolve_schema_hash(of->records[device]),
                            &known, &error) == MIR_OK) {
            of->schema = known.schema;
            if (mir_schema_find(known.schema, mir_view_cstr(of->measurement), &of->message,
                                &error) != MIR_OK) {
                of->message = NULL;
            }
        }
    }
    mir_schema_origin origin;
    if (of->message == NULL || mir_schema_origin_of(of->message, field, &origin) != MIR_OK)
        return NULL;
    if (function != MIR_TLOG_RATE || origin.unit == NULL) return origin.unit;
    mir_bytes text = {0};
    mir_bytes_printf(&text, "%s/s", origin.unit);
    char *unit = mir_arena_strdup(&of->request->arena, mir_bytes_as_view(&text));
    mir_bytes_free(&text);
    return unit;
}

static void fail_query(mir_request *request, mir_status status, const mir_error *error)
{
    if (status == MIR_E_CANCELLED)
        mir_request_fail(request, "%s", mir_request_end_text(request));
    else
        mir_request_fail(request, "%s",
                         error->text[0] == '\0' ? mir_status_name(status) : error->text);
}

static void query_answer(mir_request *request, const mir_tlog_query_spec *spec,
                         const mir_tlm_groups *groups, units *of)
{
    mir_tlm_table table = {.device_ids = groups->header != NULL ? groups->names : spec->device_ids,
                           .id_header = groups->header,
                           .limit = spec->functions == 0 ? spec->limit : 0,
                           .bytes_max = answer_bytes_max(request),
                           .front_bytes = mir_request_front(request),
                           .unit = unit_of,
                           .unit_context = of};
    mir_tlog_sink sink = mir_tlm_table_sink(&table);
    mir_tlog_query_info info;
    mir_error error = {{0}};
    mir_status status = mir_tlog_query(request->hub->tlog, spec, &sink, &info, &error);
    mir_view response;
    if (status == MIR_OK) status = mir_tlm_table_end(&table, &info, &response);
    if (status == MIR_OK) {
        if (info.chunks_corrupt != 0) {
            mir_log_warn("the answer to a telemetry query of %s is incomplete: %" PRIu64
                         " damaged chunk%s left out; `mir storage verify` says which",
                         of->measurement, info.chunks_corrupt,
                         info.chunks_corrupt == 1 ? " was" : "s were");
        }
        if (table.bytes.size == 0)
            mir_request_answer_text(request, response);
        else
            mir_request_answer_whole(request, &table.bytes, response);
    } else if (status == MIR_E_TOO_LARGE && error.text[0] == '\0') {
        /* The table was full; the log's own bounds come with a text. */
        mir_request_fail(request,
                         "the answer would be larger than a message may be (%zu bytes): ask for a "
                         "shorter time, fewer devices, fewer fields or an aggregation window, or "
                         "for a page with a limit",
                         table.bytes_max);
    } else {
        fail_query(request, status, &error);
    }
    mir_tlm_table_free(&table);
}

/* Rows as they are in as many messages as it takes, and a last one that says how many they were and,
 * if there are more, where they go on. */
static void stream_answer(mir_request *request, const mir_tlog_query_spec *spec)
{
    if (request->reply.size == 0) return; /* nobody would hear it */
    char block[MIR_CHAIN_BLOCK_BYTES_MAX];
    size_t size = mir_chain_block((mir_view){0}, mir_hub_instance(request->hub), block);
    size = mir_block_add(block, size, sizeof block, "mir-stream", MIR_VIEW_LITERAL("partial"));
    size_t message_bytes_max = answer_bytes_max(request);
    mir_tlm_stream stream = {
        .letters = &request->letters,
        .subject = request->reply,
        .header = mir_view_of(block, size),
        .device_ids = spec->device_ids,
        .message_bytes_max = message_bytes_max < MIR_TLM_STREAM_MESSAGE_BYTES
                                 ? message_bytes_max
                                 : MIR_TLM_STREAM_MESSAGE_BYTES,
        .bytes_max = MIR_TLM_STREAM_BYTES_MAX,
    };
    request->letters_per_turn = STREAM_LETTERS_PER_TURN;
    mir_tlog_query_info info;
    mir_error error = {{0}};
    mir_status status =
        mir_tlog_read(request->hub->tlog, spec, mir_tlm_stream_take, &stream, &info, &error);
    if (status == MIR_E_EMPTY) status = MIR_OK;
    if (status == MIR_OK) status = mir_tlm_stream_end(&stream);
    mir_tlm_stream_free(&stream);
    if (status == MIR_OK) {
        MirApi__V1__QueryTelemetry last = MIR_API__V1__QUERY_TELEMETRY__INIT;
        MirApi__V1__QueryTelemetryResponse response = MIR_API__V1__QUERY_TELEMETRY_RESPONSE__INIT;
        char cursor[MIR_TLM_CURSOR_BYTES_MAX];
        response.response_case = MIR_API__V1__QUERY_TELEMETRY_RESPONSE__RESPONSE_OK;
        response.ok = &last;
        last.has_stream_rows = true;
        last.stream_rows = stream.rows;
        last.has_damaged_chunks = info.chunks_corrupt != 0;
        last.damaged_chunks = info.chunks_corrupt;
        if (info.left_out) {
            last.rollups_until = mir_timestamp_new(&request->arena, info.left_out_until_ns);
        }
        if (stream.cut) {
            mir_tlm_cursor(cursor, stream.last_ns, spec->device_ids[stream.last_device]);
            last.cursor = cursor;
        }
        mir_request_answer(request, &response.base);
        return;
    }
    /* What was written already is no answer. */
    mir_letters_discard(&request->letters);
    if (status == MIR_E_TOO_LARGE && error.text[0] == '\0') {
        mir_request_fail(request,
                         "a row is larger than a message may be (%zu bytes): ask for fewer fields",
                         stream.message_bytes_max);
    } else {
        fail_query(request, status, &error);
    }
}

/* What the targets of a query were read from; null when that is not one piece. */
static const mir_view *key_of(mir_view payload, mir_view *key)
{
    enum { TARGETS = 1 };
    mir_pbwire wire = mir_pbwire_of(payload);
    unsigned pieces = 0;
    *key = (mir_view){0};
    while (mir_pbwire_more(&wire)) {
        uint32_t tag;
        uint64_t value;
        mir_view bytes;
        if (!mir_pbwire_next(&wire, &tag, &value, &bytes)) return NULL;
        if (tag >> 3 != TARGETS) continue;
        *key = bytes;
        pieces++;
    }
    return pieces <= 1 ? key : NULL;
}

/* Answers, but for the end of the request. */
static void query_devices(mir_request *request, const MirApi__V1__QueryTelemetryRequest *input,
                          const mir_tlm_device_list *devices)
{
    units of = {.request = request, .records = devices->records};
    mir_tlog_query_spec spec = {0};
    mir_error error = {{0}};
    if (input->aggregation_window != NULL && input->aggregation_window[0] != '\0' &&
        mir_tlm_window_parse(mir_view_cstr(input->aggregation_window), &spec.window_ns, &error) !=
            MIR_OK) {
        mir_request_fail(request, "%s", error.text);
        return;
    }
    mir_view *fields = mir_arena_alloc(&request->arena, (input->n_fields + 1) * sizeof *fields);
    if (fields == NULL || devices->count > UINT32_MAX || input->n_fields > UINT32_MAX) {
        mir_request_fail(request, "the server is out of memory");
        return;
    }
    for (size_t i = 0; i < input->n_fields; i++) fields[i] = mir_view_cstr(input->fields[i]);
    of.measurement = input->measurement == NULL ? "" : input->measurement;
    int64_t now_ns = mir_clock_wall_ns();
    spec.device_ids = devices->ids;
    spec.device_count = (uint32_t)devices->count;
    spec.measurement = mir_view_cstr(of.measurement);
    spec.fields = fields;
    spec.field_count = (uint32_t)input->n_fields;
    spec.cancel = &request->is_given_up;
    spec.from_ns = time_of(input->start_time, now_ns - default_range_ns);
    spec.to_ns = time_of(input->end_time, now_ns);
    /* More rows than this do not fit into an answer: the log need not collect them. */
    spec.rows_max = answer_bytes_max(request) / ROW_BYTES_MIN + 1;
    of.spec = &spec;
    mir_tlm_groups groups;
    if (mir_tlm_ask(input, of.records, devices->count, &request->arena, &spec, &groups, &error) !=
        MIR_OK) {
        mir_request_fail(request, "%s", error.text);
        return;
    }
    const mir_tlm_sources sources = {request->hub->state, request->hub->schemas,
                                     request->hub->tlog};
    if (mir_tlm_renames(&sources, of.records, devices->count, &request->arena, &spec, &error) !=
        MIR_OK) {
        mir_request_fail(request, "%s",
                         error.text[0] == '\0' ? "the store cannot be read" : error.text);
        return;
    }
    if (spec.limit > spec.rows_max) spec.limit = spec.rows_max;
    if (input->has_stream && input->stream)
        stream_answer(request, &spec);
    else
        query_answer(request, &spec, &groups, &of);
    mir_schema_unref(of.schema);
}

void mir_tlm_query(mir_request *request)
{
    MirApi__V1__QueryTelemetryRequest *input;
    const mir_tlm_device_list *devices = NULL;
    mir_error error = {{0}};
    mir_view key;
    if (mir_request_unpack(request, &mir_api__v1__query_telemetry_request__descriptor, &input)) {
        if (mir_tlm_devices_find(request->hub->tlm_devices, key_of(request->payload, &key),
                                 input->targets, &devices, &error) != MIR_OK)
            fail_listing(request, &error);
        else if (devices->count == 0)
            mir_request_fail(request, "%s", no_device);
        else
            query_devices(request, input, devices);
        mir_tlm_device_list_release(devices);
    }
    mir_request_finish(request);
}
