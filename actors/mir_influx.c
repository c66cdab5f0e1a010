/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_influx.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "mir_clock.h"
#include "mir_tlm_renames.h"

static const char damage[] =
    "the answer is incomplete: damaged parts of the telemetry log were left out";

static const char rolled_up[] = "the answer is incomplete: of a part of the time there are rollups "
                                "alone, which do not fit these "
                                "windows or functions";

static bool is_cancelled(const mir_influx_work *work)
{
    const atomic_bool *cancel = work->request->cancel;
    return cancel != NULL && atomic_load_explicit(cancel, memory_order_relaxed);
}

/* --- names ----------------------------------------------------------------------------------- */

typedef struct name_list {
    mir_arena *arena;
    mir_view *items;
    size_t count, capacity;
} name_list;

static mir_status add_name(void *context, mir_view name)
{
    name_list *list = context;
    if (list->count == list->capacity) {
        const size_t capacity = list->capacity == 0 ? 32 : list->capacity * 2;
        mir_view *grown = mir_arena_alloc(list->arena, capacity * sizeof *grown);
        if (grown == NULL) return MIR_E_NO_MEMORY;
        if (list->count != 0) memcpy(grown, list->items, list->count * sizeof *grown);
        list->items = grown;
        list->capacity = capacity;
    }
    const char *copy = mir_arena_strdup(list->arena, name);
    if (copy == NULL) return MIR_E_NO_MEMORY;
    list->items[list->count++] = mir_view_of(copy, name.size);
    return MIR_OK;
}

static mir_status listed(mir_influx_work *work, mir_status status)
{
    if (status == MIR_E_NO_MEMORY) return mir_influx_no_memory(work);
    if (status != MIR_OK && work->error->text[0] == '\0')
        (void)mir_error_set(work->error, status, "%s", mir_status_name(status));
    return status;
}

static mir_status check_database(mir_influx_work *work, mir_view database)
{
    if (database.size == 0 || mir_view_eq_cstr(database, MIR_INFLUX_DATABASE)) return MIR_OK;
    return mir_error_set(work->error, MIR_E_NOT_FOUND,
                         "database not found: %.*s (there is " MIR_INFLUX_DATABASE
                         "; a measurement with dots in its name stands in double quotes)",
                         (int)(database.size < 64 ? database.size : 64),
                         (const char *)database.data);
}

/* The measurements that a statement is about: those of its sources, in their order, or all. */
static mir_status find_measurements(mir_influx_work *work, name_list *found)
{
    const mir_influxql_statement *q = work->statement;
    name_list all = {.arena = &work->arena};
    bool listing = q->source_count == 0;
    for (uint32_t i = 0; i < q->source_count; i++) {
        const mir_influxql_source *source = &q->sources[i];
        mir_status status = check_database(work, source->database);
        if (status != MIR_OK) return status;
        if (source->policy.size != 0 && !mir_view_eq_cstr(source->policy, MIR_INFLUX_POLICY))
            return mir_error_set(work->error, MIR_E_NOT_FOUND,
                                 "retention policy not found: %.*s (there is " MIR_INFLUX_POLICY
                                 "; a measurement with dots in its name stands in double quotes)",
                                 (int)(source->policy.size < 64 ? source->policy.size : 64),
                                 (const char *)source->policy.data);
        listing = listing || source->name.is_pattern;
    }
    mir_status status = MIR_OK;
    if (listing)
        status =
            listed(work, mir_tlog_measurements(work->request->tlog, add_name, &all, work->error));
    if (q->source_count == 0) *found = all;
    for (uint32_t i = 0; i < q->source_count && status == MIR_OK; i++) {
        const mir_influxql_name *name = &q->sources[i].name;
        if (!name->is_pattern) {
            status = listed(work, add_name(found, name->text));
            continue;
        }
        mir_influx_pattern *pattern = NULL;
        status = mir_influx_pattern_new(name->text, &work->arena, &pattern, work->error);
        for (size_t m = 0; m < all.count && status == MIR_OK; m++) {
            bool is = false;
            status = mir_influx_pattern_find(pattern, all.items[m], &is, work->error);
            if (is && status == MIR_OK) status = listed(work, add_name(found, all.items[m]));
        }
    }
    if (status == MIR_OK && found->count > MIR_INFLUX_MEASUREMENTS_MAX)
        return mir_error_set(work->error, MIR_E_TOO_LARGE, "more than %d measurements: name them",
                             MIR_INFLUX_MEASUREMENTS_MAX);
    return status;
}

/* --- devices of a measurement ---------------------------------------------------------------- */

static int compare_names(const void *a, const void *b)
{
    return mir_view_compare(*(const mir_view *)a, *(const mir_view *)b);
}

/* Those of `all` that have data of it. */
static mir_status devices_with(mir_influx_work *work, mir_view measurement,
                               const mir_influx_devices *all, mir_influx_devices *with)
{
    name_list ids = {.arena = &work->arena};
    uint64_t corrupt = 0;
    mir_status status =
        listed(work, mir_tlog_devices(work->request->tlog, measurement, work->statement->from_ns,
                                      add_name, &ids, &corrupt, work->error));
    if (corrupt != 0) work->info->damaged = true;
    if (status != MIR_OK) return status;
    *with = (mir_influx_devices){
        mir_arena_alloc(&work->arena, (all->count + 1) * sizeof(mir_influx_device *)), 0};
    if (with->items == NULL) return mir_influx_no_memory(work);
    for (size_t i = 0; i < all->count && ids.count != 0; i++) {
        const mir_view id = mir_view_cstr(all->items[i]->device_id);
        if (bsearch(&id, ids.items, ids.count, sizeof id, compare_names) != NULL)
            with->items[with->count++] = all->items[i];
    }
    return MIR_OK;
}

/* --- SHOW ------------------------------------------------------------------------------------ */

/* Rows of one series that begins with the first of them; LIMIT and OFFSET are counted here. */
typedef struct listing {
    mir_influx_work *work;
    mir_view name;
    const mir_view *columns;
    size_t column_count;
    uint64_t passed, written;
    bool open;
} listing;

static mir_status put_row(listing *list, const mir_influx_value *values)
{
    const mir_influxql_statement *q = list->work->statement;
    if (list->passed++ < q->offset) return MIR_OK;
    if (q->limit != 0 && list->written >= q->limit) return MIR_OK;
    list->written++;
    if (!list->open)
        mir_influx_json_series(list->work->json, list->name, NULL, NULL, 0, list->columns,
                               list->column_count);
    list->open = true;
    const mir_status status =
        mir_influx_json_row(list->work->json, NULL, values, list->column_count);
    return status == MIR_OK ? status
                            : mir_error_set(list->work->error, status,
                                            "the answer is larger than %zu bytes: set a LIMIT",
                                            list->work->json->bytes_max);
}

static void end_listing(listing *list)
{
    if (list->open) mir_influx_json_series_end(list->work->json);
}

static mir_status show_databases(mir_influx_work *work)
{
    const mir_view column = MIR_VIEW_LITERAL("name");
    listing list = {
        .work = work, .name = MIR_VIEW_LITERAL("databases"), .columns = &column, .column_count = 1};
    const mir_influx_value name = mir_influx_text(MIR_VIEW_LITERAL(MIR_INFLUX_DATABASE));
    const mir_status status = put_row(&list, &name);
    end_listing(&list);
    return status;
}

static mir_status show_policies(mir_influx_work *work)
{
    static const char *const names[] = {"name", "duration", "shardGroupDuration", "replicaN",
                                        "default"};
    mir_view columns[5];
    for (size_t i = 0; i < 5; i++) columns[i] = mir_view_cstr(names[i]);
    const int64_t keep_s = work->request->keep_ns / MIR_NS_PER_S;
    char keep[64];
    if (keep_s == 0)
        (void)snprintf(keep, sizeof keep, "0s");
    else
        (void)snprintf(keep, sizeof keep, "%" PRId64 "h%" PRId64 "m%" PRId64 "s", keep_s / 3600,
                       keep_s / 60 % 60, keep_s % 60);
    listing list = {.work = work, .columns = columns, .column_count = 5};
    const mir_influx_value values[] = {
        mir_influx_text(MIR_VIEW_LITERAL(MIR_INFLUX_POLICY)), mir_influx_text(mir_view_cstr(keep)),
        mir_influx_text(MIR_VIEW_LITERAL("168h0m0s")),        {.type = MIR_COLUMN_I64, .i64 = 1},
        {.type = MIR_COLUMN_BOOL, .boolean = true},
    };
    const mir_status status = put_row(&list, values);
    end_listing(&list);
    return status;
}

static mir_status show_measurements(mir_influx_work *work, const name_list *measurements,
                                    const mir_influx_devices *devices)
{
    const mir_view column = MIR_VIEW_LITERAL("name");
    listing list = {.work = work,
                    .name = MIR_VIEW_LITERAL("measurements"),
                    .columns = &column,
                    .column_count = 1};
    const bool asks = work->statement->condition != NULL || work->statement->from_ns != INT64_MIN ||
                      work->statement->source_count != 0;
    for (size_t i = 0; i < measurements->count; i++) {
        mir_influx_devices with;
        if (is_cancelled(work)) return mir_error_set(work->error, MIR_E_CANCELLED, "cancelled");
        if (asks) {
            const mir_status status = devices_with(work, measurements->items[i], devices, &with);
            if (status != MIR_OK) return status;
            if (with.count == 0) continue;
        }
        const mir_influx_value name = mir_influx_text(measurements->items[i]);
        const mir_status status = put_row(&list, &name);
        if (status != MIR_OK) return status;
    }
    end_listing(&list);
    return MIR_OK;
}

typedef struct field_list {
    mir_arena *arena;
    mir_column *items;
    size_t count, capacity;
} field_list;

static mir_status add_field(void *context, const mir_column *column)
{
    field_list *list = context;
    if (list->count == list->capacity) {
        const size_t capacity = list->capacity == 0 ? 32 : list->capacity * 2;
        mir_column *grown = mir_arena_alloc(list->arena, capacity * sizeof *grown);
        if (grown == NULL) return MIR_E_NO_MEMORY;
        if (list->count != 0) memcpy(grown, list->items, list->count * sizeof *grown);
        list->items = grown;
        list->capacity = capacity;
    }
    list->items[list->count] = *column;
    list->items[list->count].name =
        mir_arena_strdup(list->arena, mir_view_of(column->name, column->name_size));
    return list->items[list->count++].name == NULL ? MIR_E_NO_MEMORY : MIR_OK;
}

static int compare_fields(const void *a, const void *b)
{
    const mir_column *left = a, *right = b;
    const int order = mir_view_compare(mir_view_of(left->name, left->name_size),
                                       mir_view_of(right->name, right->name_size));
    return order != 0 ? order : (int)left->type - (int)right->type;
}

/* Fields have the names of today, unless some of the devices still have another one. */
static mir_status fields_today(mir_influx_work *work, mir_view measurement,
                               const mir_influx_devices *devices, field_list *fields)
{
    const mir_tlm_sources sources = {work->request->state, work->request->schemas,
                                     work->request->tlog};
    mir_tlog_query_spec spec = {.measurement = measurement};
    const mir_status status =
        mir_tlm_renames(&sources, devices->items, devices->count, &work->arena, &spec, work->error);
    for (size_t i = 0; i < fields->count && status == MIR_OK; i++) {
        mir_column *field = &fields->items[i];
        const mir_view name = mir_tlm_renamed(&spec, mir_view_of(field->name, field->name_size));
        field->name = (const char *)name.data;
        field->name_size = (uint32_t)name.size;
    }
    return status;
}

static mir_status show_fields(mir_influx_work *work, mir_view measurement,
                              const mir_influx_devices *devices)
{
    static const char *const types[] = {
        [MIR_COLUMN_I64] = "integer",  [MIR_COLUMN_U64] = "unsigned",  [MIR_COLUMN_F64] = "float",
        [MIR_COLUMN_BOOL] = "boolean", [MIR_COLUMN_STRING] = "string",
    };
    const mir_view columns[] = {MIR_VIEW_LITERAL("fieldKey"), MIR_VIEW_LITERAL("fieldType")};
    field_list fields = {.arena = &work->arena};
    mir_status status = listed(work, mir_tlog_field_types(work->request->tlog, measurement,
                                                          work->statement->from_ns, add_field,
                                                          &fields, work->error));
    if (status == MIR_OK) status = fields_today(work, measurement, devices, &fields);
    if (fields.count > 1) qsort(fields.items, fields.count, sizeof *fields.items, compare_fields);
    listing list = {.work = work, .name = measurement, .columns = columns, .column_count = 2};
    for (size_t i = 0; i < fields.count && status == MIR_OK; i++) {
        if (i != 0 && compare_fields(&fields.items[i - 1], &fields.items[i]) == 0) continue;
        const mir_influx_value values[] = {
            mir_influx_text(mir_view_of(fields.items[i].name, fields.items[i].name_size)),
            mir_influx_text(mir_view_cstr(types[fields.items[i].type])),
        };
        status = put_row(&list, values);
    }
    if (status == MIR_OK) end_listing(&list);
    return status;
}

static mir_status show_keys(mir_influx_work *work, mir_view measurement,
                            const mir_influx_devices *with)
{
    const mir_view column = MIR_VIEW_LITERAL("tagKey");
    mir_influx_keys keys;
    if (mir_influx_keys_of(with, &work->arena, &keys) != MIR_OK) return mir_influx_no_memory(work);
    listing list = {.work = work, .name = measurement, .columns = &column, .column_count = 1};
    for (size_t i = 0; i < keys.count; i++) {
        const mir_influx_value name = mir_influx_text(keys.items[i]);
        const mir_status status = put_row(&list, &name);
        if (status != MIR_OK) return status;
    }
    end_listing(&list);
    return MIR_OK;
}

static mir_status is_key_wanted(mir_influx_work *work, const mir_influx_pattern *pattern,
                                mir_view key, bool *wanted)
{
    const mir_influxql_statement *q = work->statement;
    bool is = false;
    if (pattern != NULL) {
        const mir_status status = mir_influx_pattern_find(pattern, key, &is, work->error);
        if (status != MIR_OK) return status;
    }
    for (uint32_t i = 0; i < q->key_count && pattern == NULL; i++)
        is = is || mir_view_eq(q->keys[i], key);
    *wanted =
        is == (q->key_compare == MIR_INFLUXQL_EQUAL || q->key_compare == MIR_INFLUXQL_MATCHES);
    return MIR_OK;
}

static mir_status show_values(mir_influx_work *work, mir_view measurement,
                              const mir_influx_devices *with, const mir_influx_pattern *pattern)
{
    const mir_view columns[] = {MIR_VIEW_LITERAL("key"), MIR_VIEW_LITERAL("value")};
    mir_influx_keys keys;
    mir_view *values = mir_arena_alloc(&work->arena, (with->count + 1) * sizeof *values);
    if (values == NULL || mir_influx_keys_of(with, &work->arena, &keys) != MIR_OK)
        return mir_influx_no_memory(work);
    listing list = {.work = work, .name = measurement, .columns = columns, .column_count = 2};
    for (size_t k = 0; k < keys.count; k++) {
        bool wanted = false;
        mir_status status = is_key_wanted(work, pattern, keys.items[k], &wanted);
        if (status != MIR_OK) return status;
        if (!wanted) continue;
        size_t count = 0;
        for (size_t i = 0; i < with->count; i++) {
            values[count] = mir_influx_tag(with->items[i], keys.items[k]);
            if (values[count].size != 0) count++;
        }
        if (count > 1) qsort(values, count, sizeof *values, compare_names);
        for (size_t i = 0; i < count; i++) {
            if (i != 0 && mir_view_eq(values[i], values[i - 1])) continue;
            const mir_influx_value row[] = {mir_influx_text(keys.items[k]),
                                            mir_influx_text(values[i])};
            status = put_row(&list, row);
            if (status != MIR_OK) return status;
        }
    }
    end_listing(&list);
    return MIR_OK;
}

/* As the line protocol writes names: what would end one has a backslash. */
static void put_escaped(mir_bytes *out, mir_view text, const char *special)
{
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] != 0 && strchr(special, text.data[i]) != NULL) mir_bytes_u8(out, '\\');
        mir_bytes_u8(out, text.data[i]);
    }
}

static mir_status show_series(mir_influx_work *work, mir_view measurement,
                              const mir_influx_devices *with, listing *list)
{
    mir_influx_keys keys;
    if (mir_influx_keys_of(with, &work->arena, &keys) != MIR_OK) return mir_influx_no_memory(work);
    mir_bytes key = {0};
    mir_status status = MIR_OK;
    for (size_t i = 0; i < with->count && status == MIR_OK; i++) {
        key.size = 0;
        put_escaped(&key, measurement, ", ");
        for (size_t k = 0; k < keys.count; k++) {
            const mir_view value = mir_influx_tag(with->items[i], keys.items[k]);
            if (value.size == 0) continue;
            mir_bytes_u8(&key, ',');
            put_escaped(&key, keys.items[k], ", =");
            mir_bytes_u8(&key, '=');
            put_escaped(&key, value, ", =");
        }
        const mir_influx_value text = mir_influx_text(mir_bytes_as_view(&key));
        status = mir_bytes_ok(&key) ? put_row(list, &text) : mir_influx_no_memory(work);
    }
    mir_bytes_free(&key);
    return status;
}

/* --- statements ------------------------------------------------------------------------------ */

static mir_status each_measurement(mir_influx_work *work, const name_list *measurements,
                                   const mir_influx_devices *devices)
{
    const mir_influxql_statement *q = work->statement;
    const mir_view column = MIR_VIEW_LITERAL("key");
    listing all = {.work = work, .columns = &column, .column_count = 1};
    mir_influx_pattern *pattern = NULL;
    mir_status status = MIR_OK;
    uint64_t series = 0;
    if (q->kind == MIR_INFLUXQL_SHOW_TAG_VALUES && q->key_compare >= MIR_INFLUXQL_MATCHES)
        status = mir_influx_pattern_new(q->keys[0], &work->arena, &pattern, work->error);
    for (size_t i = 0; i < measurements->count && status == MIR_OK; i++) {
        const mir_view name = measurements->items[i];
        mir_influx_devices with = {0};
        if (is_cancelled(work)) return mir_error_set(work->error, MIR_E_CANCELLED, "cancelled");
        if (q->kind != MIR_INFLUXQL_SELECT && q->kind != MIR_INFLUXQL_SHOW_FIELD_KEYS)
            status = devices_with(work, name, devices, &with);
        if (status != MIR_OK) return status;
        switch (q->kind) {
        case MIR_INFLUXQL_SELECT: status = mir_influx_select(work, name, devices, &series); break;
        case MIR_INFLUXQL_SHOW_FIELD_KEYS: status = show_fields(work, name, devices); break;
        case MIR_INFLUXQL_SHOW_TAG_KEYS: status = show_keys(work, name, &with); break;
        case MIR_INFLUXQL_SHOW_TAG_VALUES: status = show_values(work, name, &with, pattern); break;
        default: status = show_series(work, name, &with, &all); break;
        }
    }
    if (status == MIR_OK) end_listing(&all);
    return status;
}

/* A condition on what no device has and the measurement has as a field asks for something else than
 * it will get. */
static mir_status check_fields(mir_influx_work *work, const mir_influxql_condition *condition,
                               const field_list *fields)
{
    for (const mir_influxql_condition *c = condition->first; c != NULL; c = c->next) {
        const mir_status status = check_fields(work, c, fields);
        if (status != MIR_OK) return status;
    }
    for (size_t i = 0; i < fields->count && condition->kind == MIR_INFLUXQL_TAG; i++)
        if (mir_view_eq(condition->key,
                        mir_view_of(fields->items[i].name, fields->items[i].name_size)))
            return mir_error_set(work->error, MIR_E_UNSUPPORTED,
                                 "%.*s is a field: conditions on the values of fields are not "
                                 "supported, WHERE takes time and tags",
                                 (int)(condition->key.size < 64 ? condition->key.size : 64),
                                 (const char *)condition->key.data);
    return MIR_OK;
}

static mir_status check_condition(mir_influx_work *work, const name_list *measurements)
{
    field_list fields = {.arena = &work->arena};
    for (size_t i = 0; i < measurements->count; i++) {
        const mir_status status =
            listed(work, mir_tlog_field_types(work->request->tlog, measurements->items[i],
                                              INT64_MIN, add_field, &fields, work->error));
        if (status != MIR_OK) return status;
    }
    return check_fields(work, work->statement->condition, &fields);
}

static mir_status run(mir_influx_work *work)
{
    const mir_influxql_statement *q = work->statement;
    if (q->kind == MIR_INFLUXQL_SHOW_DATABASES) return show_databases(work);
    mir_status status = check_database(work, work->request->database);
    if (status == MIR_OK) status = check_database(work, q->database);
    if (status != MIR_OK) return status;
    if (q->kind == MIR_INFLUXQL_SHOW_RETENTION_POLICIES) return show_policies(work);
    name_list measurements = {.arena = &work->arena};
    mir_influx_devices devices = {0};
    status = find_measurements(work, &measurements);
    if (status == MIR_OK)
        status = mir_influx_devices_find(work->request->state, q->condition, work->request->cancel,
                                         &work->arena, &devices, work->error);
    if (status == MIR_OK && devices.count == 0 && q->condition != NULL &&
        q->kind == MIR_INFLUXQL_SELECT)
        status = check_condition(work, &measurements);
    if (status != MIR_OK) return listed(work, status);
    return q->kind == MIR_INFLUXQL_SHOW_MEASUREMENTS
               ? show_measurements(work, &measurements, &devices)
               : each_measurement(work, &measurements, &devices);
}

static bool run_one(const mir_influx_request *request, const mir_influxql_statement *statement,
                    uint32_t number, mir_influx_json *json, mir_influx_info *info)
{
    mir_error error = {{0}};
    const bool damaged = info->damaged;
    info->damaged = info->rolled_up = false;
    mir_influx_work work = {.request = request,
                            .statement = statement,
                            .json = json,
                            .info = info,
                            .arena = {.bytes_max = request->memory_bytes_max},
                            .error = &error};
    mir_influx_json_begin(json, number);
    const mir_status status = run(&work);
    if (status == MIR_OK) {
        mir_influx_json_end(json, info->damaged ? damage : info->rolled_up ? rolled_up : NULL);
    } else {
        mir_influx_json_fail(json, error.text[0] == '\0' ? mir_status_name(status) : error.text);
        info->failed++;
    }
    info->damaged = info->damaged || damaged;
    mir_arena_free(&work.arena);
    return status == MIR_OK;
}

mir_status mir_influx_answer(const mir_influx_request *request, mir_bytes *answer,
                             mir_influx_info *info)
{
    mir_arena arena = {.bytes_max = request->memory_bytes_max};
    mir_influxql_query query = {0};
    mir_error error = {{0}};
    *info = (mir_influx_info){0};
    mir_status status = mir_influxql_parse(request->text, request->now_ns, &arena, &query, &error);
    if (status != MIR_OK) {
        mir_error_wrap(&error, "error parsing query");
        mir_influx_json_error(answer, error.text);
        mir_arena_free(&arena);
        return mir_bytes_ok(answer) ? status : MIR_E_NO_MEMORY;
    }
    mir_influx_json json = {.bytes_max = request->answer_bytes_max,
                            .epoch_ns = request->epoch_ns,
                            .chunk_rows = request->chunk_rows};
    bool good = true;
    for (uint32_t i = 0; i < query.statement_count; i++) {
        if (good) {
            good = run_one(request, &query.statements[i], i, &json, info);
            continue;
        }
        mir_influx_json_begin(&json, i);
        mir_influx_json_fail(&json, "not executed");
        info->failed++;
    }
    info->statements = query.statement_count;
    mir_influx_json_finish(&json);
    mir_arena_free(&arena);
    if (!mir_bytes_ok(&json.bytes)) {
        mir_bytes_free(&json.bytes);
        return MIR_E_NO_MEMORY;
    }
    if (answer->size == 0) {
        mir_bytes_free(answer);
        *answer = json.bytes;
    } else {
        mir_bytes_view(answer, mir_bytes_as_view(&json.bytes));
        mir_bytes_free(&json.bytes);
    }
    return mir_bytes_ok(answer) ? MIR_OK : MIR_E_NO_MEMORY;
}
