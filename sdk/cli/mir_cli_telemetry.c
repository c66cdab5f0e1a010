/* SPDX-License-Identifier: Apache-2.0 */
/* mir telemetry list and query. */
#include "mir_cli_devices.h"

#include "mir_api/v1/tlm.pb-c.h"
#include "mir_cli_cell.h"
#include "mir_cli_chart.h"
#include "mir_cli_query.h"
#include "mir_cli_schema.h"
#include "mir_cli_table.h"
#include "mir_cli_telemetry.h"
#include "mir_cli_text.h"
#include "mir_cli_when.h"
#include "mir_clock.h"
#include "mir_device_json.h"
#include "mir_timestamp.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

enum { NAMES_SHOWN_MAX = 4, NESTING_MAX = 8, FIELDS_SHOWN_MAX = 4096 };

static const char unit_prefix[] = "__unit_";
#define COMPLETION_TIMEOUT_NS (700 * MIR_NS_PER_MS)

static const char tag_prefix[] = "__tag_";

/* Whether the stored field may come from the declared path: each part equal, or continued with `_`
 * and the index or key of an element. */
static bool comes_from(const char *stored, const char *path)
{
    for (;;) {
        size_t part = strcspn(path, ".");
        if (strncmp(stored, path, part) != 0) return false;
        stored += part;
        path += part;
        if (*stored == '_') stored += strcspn(stored, ".");
        if (*path == '\0') return *stored == '\0';
        if (*stored != '.') return false;
        stored++;
        path++;
    }
}

static const char *unit_of(const MirApi__V1__TelemetryDescriptor *from, const char *field)
{
    const char *best = "";
    size_t best_size = 0;
    for (size_t i = 0; i < from->n_labels; i++) {
        const char *key = from->labels[i]->key;
        if (key == NULL || strncmp(key, unit_prefix, sizeof unit_prefix - 1) != 0) continue;
        key += sizeof unit_prefix - 1;
        if (comes_from(field, key) && strlen(key) >= best_size && from->labels[i]->value != NULL) {
            best = from->labels[i]->value;
            best_size = strlen(key);
        }
    }
    return best;
}

static void add_field(json_t *fields, const char *name, const char *unit, const char *type,
                      bool stored)
{
    json_t *field = json_pack("{s:s, s:s, s:b}", "name", name, "unit", unit, "stored", stored);
    if (type != NULL) (void)json_object_set_new(field, "type", json_string(type));
    (void)json_array_append_new(fields, field);
}

static bool is_stored(const MirApi__V1__TelemetryDescriptor *from, const char *path)
{
    for (size_t i = 0; i < from->n_fields; i++)
        if (comes_from(from->fields[i], path)) return true;
    return false;
}

/* Adds the values that the message declares and of which nothing is stored. */
static void add_declared(const MirApi__V1__TelemetryDescriptor *from,
                         const mir_schema_message **inside, const char *path, size_t depth,
                         json_t *fields)
{
    const mir_schema_message *message = inside[depth];
    if (depth + 1 == NESTING_MAX || json_array_size(fields) > FIELDS_SHOWN_MAX) return;
    for (size_t i = 0; i < depth; i++)
        if (inside[i] == message) return; /* a type that contains itself */
    for (uint32_t i = 0; i < message->field_count; i++) {
        const mir_schema_field *field = &message->fields[i];
        const mir_schema_field *value =
            field->is_map ? mir_schema_field_by_number(field->message, 2) : field;
        char below[512];
        int size =
            snprintf(below, sizeof below, "%s%s%s", path, path[0] != '\0' ? "." : "", field->name);
        if (value == NULL || size < 0 || (size_t)size >= sizeof below ||
            field == mir_schema_timestamp_field(message))
            continue;
        if (value->message != NULL && !mir_cli_schema_is_well_known(value->message)) {
            inside[depth + 1] = value->message;
            add_declared(from, inside, below, depth + 1, fields);
            continue;
        }
        if (is_stored(from, below)) continue;
        add_field(fields, below, field->unit != NULL ? field->unit : "", mir_cli_schema_type(value),
                  false);
    }
}

/* `schema` may be null: then fields without data are known by their units alone. */
static json_t *descriptor_json(const MirApi__V1__TelemetryDescriptor *from,
                               const mir_schema *schema)
{
    json_t *labels = json_object();
    json_t *fields = json_array();
    const mir_schema_message *message = NULL;
    if (schema != NULL && from->name != NULL &&
        mir_schema_find(schema, mir_view_cstr(from->name), &message, NULL) != MIR_OK)
        message = NULL;
    for (size_t i = 0; i < from->n_labels; i++)
        if (from->labels[i]->key != NULL)
            (void)json_object_set_new(
                labels, from->labels[i]->key,
                json_string(from->labels[i]->value != NULL ? from->labels[i]->value : ""));
    for (size_t i = 0; i < from->n_fields; i++) {
        mir_schema_origin origin;
        bool known =
            message != NULL &&
            mir_schema_origin_of(message, mir_view_cstr(from->fields[i]), &origin) == MIR_OK;
        add_field(fields, from->fields[i],
                  known && origin.unit != NULL ? origin.unit : unit_of(from, from->fields[i]),
                  known ? mir_cli_schema_type(origin.field) : NULL, true);
    }
    const mir_schema_message *inside[NESTING_MAX] = {message};
    if (message != NULL) add_declared(from, inside, "", 0, fields);
    for (size_t i = 0; message == NULL && i < from->n_labels; i++) {
        const char *key = from->labels[i]->key;
        if (key == NULL || strncmp(key, unit_prefix, sizeof unit_prefix - 1) != 0) continue;
        key += sizeof unit_prefix - 1;
        if (!is_stored(from, key))
            add_field(fields, key, from->labels[i]->value != NULL ? from->labels[i]->value : "",
                      NULL, false);
    }
    json_t *out = json_pack("{s:s, s:o, s:o}", "name", from->name != NULL ? from->name : "",
                            "fields", fields, "labels", labels);
    if (from->explore_query != NULL && from->explore_query[0] != '\0')
        (void)json_object_set_new(out, "exploreQuery", json_string(from->explore_query));
    if (from->error != NULL && from->error[0] != '\0')
        (void)json_object_set_new(out, "error", json_string(from->error));
    return out;
}

/* The devices of a group have equal schemas: that of the first one, or null. */
static mir_schema *schema_of_group(mir_cli_session *session,
                                   const MirApi__V1__DevicesTelemetry *from)
{
    MirApi__V1__DeviceTarget target = MIR_API__V1__DEVICE_TARGET__INIT;
    MirApi__V1__DeviceTarget *one = &target;
    mir_cli_targets targets = {.items = &one, .count = 1};
    mir_cli_devices devices = {0};
    mir_schema *schema = NULL;
    if (from->n_ids == 0 || from->n_tlm_descriptors == 0 || from->ids[0]->device_id == NULL)
        return NULL;
    target.ids = &from->ids[0]->device_id;
    target.n_ids = 1;
    if (mir_cli_devices_list(session, &targets, MIR_DEVICES_SCHEMA, &devices) != MIR_EXIT_OK ||
        devices.count == 0 || mir_cli_schema_load(devices.items[0], &schema, NULL) != MIR_OK)
        return NULL;
    return schema;
}

static json_t *group_json(mir_cli_session *session, const MirApi__V1__DevicesTelemetry *from)
{
    json_t *devices = json_array();
    json_t *measurements = json_array();
    mir_schema *schema = schema_of_group(session, from);
    for (size_t i = 0; i < from->n_ids; i++) {
        const MirApi__V1__DeviceIdPair *id = from->ids[i];
        (void)json_array_append_new(
            devices, json_pack("{s:s, s:s, s:s}", "id", id->device_id != NULL ? id->device_id : "",
                               "name", id->name != NULL ? id->name : "", "namespace",
                               id->namespace_ != NULL ? id->namespace_ : ""));
    }
    for (size_t i = 0; i < from->n_tlm_descriptors; i++)
        (void)json_array_append_new(measurements,
                                    descriptor_json(from->tlm_descriptors[i], schema));
    mir_schema_unref(schema);
    json_t *out = json_pack("{s:o, s:o}", "devices", devices, "measurements", measurements);
    if (from->error != NULL && from->error[0] != '\0')
        (void)json_object_set_new(out, "error", json_string(from->error));
    return out;
}

static void print_group_title(const json_t *group, bool first)
{
    const json_t *devices = json_object_get(group, "devices");
    bool colours = mir_cli_text_colours(stdout);
    if (!first) (void)fputc('\n', stdout);
    (void)fputs(colours ? "\033[1m" : "", stdout);
    for (size_t i = 0; i < json_array_size(devices) && i < NAMES_SHOWN_MAX; i++) {
        const json_t *each = json_array_get(devices, i);
        if (i > 0) (void)fputs(", ", stdout);
        mir_cli_text_print_visible(stdout, json_string_value(json_object_get(each, "name")));
        (void)fputc('/', stdout);
        mir_cli_text_print_visible(stdout, json_string_value(json_object_get(each, "namespace")));
    }
    if (json_array_size(devices) > NAMES_SHOWN_MAX)
        (void)printf(" and %zu more", json_array_size(devices) - NAMES_SHOWN_MAX);
    (void)fputs(colours ? "\033[0m\n" : "\n", stdout);
}

/* Labels other than units, of the message or of one of its fields. */
static void tags_text(const json_t *labels, const char *field, mir_bytes *out)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)labels, key, value)
    {
        if (strncmp(key, tag_prefix, sizeof tag_prefix - 1) != 0) continue;
        const char *name = key + sizeof tag_prefix - 1;
        const char *dot = strrchr(name, '.');
        if (field == NULL && dot != NULL) continue;
        if (field != NULL) {
            char path[512];
            if (dot == NULL) continue;
            (void)snprintf(path, sizeof path, "%.*s", (int)(dot - name), name);
            if (!comes_from(field, path)) continue;
            name = dot + 1;
        }
        mir_bytes_printf(out, "%s%s=%s", out->size > 0 ? "," : "", name, json_string_value(value));
    }
    mir_bytes_u8(out, '\0');
}

/* The course of each field of a measurement over the last hour, as "course"; of several devices that
 * of their mean. */
static int add_courses(mir_cli_session *session, const json_t *group, json_t *measurement)
{
    enum { COURSE_COLUMNS = 24 };
    static char window[] = "150s", all[] = "all";
    const json_t *devices = json_object_get(group, "devices");
    const json_t *fields = json_object_get(measurement, "fields");
    size_t count = json_array_size(devices);
    MirApi__V1__QueryTelemetryRequest request = MIR_API__V1__QUERY_TELEMETRY_REQUEST__INIT;
    MirApi__V1__DeviceTarget target = MIR_API__V1__DEVICE_TARGET__INIT;
    MirApi__V1__QueryTelemetry *answer = NULL;
    mir_cli_chart chart = {0};
    /* Whole windows, so that the last one is not of a moment alone. */
    const int64_t window_ns = 150 * MIR_NS_PER_S;
    int64_t to_ns = (mir_clock_wall_ns() / window_ns + 1) * window_ns;
    int64_t from_ns = to_ns - COURSE_COLUMNS * window_ns;
    target.ids = mir_arena_alloc(&session->arena, (count + 1) * sizeof(*target.ids));
    if (target.ids == NULL || count == 0) return MIR_EXIT_OK;
    for (size_t i = 0; i < count; i++)
        target.ids[target.n_ids++] =
            (char *)(uintptr_t)json_string_value(json_object_get(json_array_get(devices, i), "id"));
    request.targets = &target;
    request.measurement =
        (char *)(uintptr_t)json_string_value(json_object_get(measurement, "name"));
    request.start_time = mir_timestamp_new(&session->arena, from_ns);
    request.aggregation_window = window;
    if (count > 1) request.group_by = all;
    int code = mir_cli_connect_ask(session, "tlm.v1alpha.query", &request.base,
                                   &mir_api__v1__query_telemetry_response__descriptor, &answer);
    if (code == MIR_EXIT_OK && mir_cli_chart_gather(answer, &chart) != MIR_OK)
        code = mir_cli_fail("no memory for the courses");
    for (size_t i = 0; code == MIR_EXIT_OK && i < chart.count; i++) {
        const mir_cli_chart_series *each = &chart.series[i];
        mir_bytes text = {0};
        mir_cli_plot_spark(each->points, each->count, from_ns, to_ns, COURSE_COLUMNS,
                           mir_cli_plot_wants_ascii(), &text);
        for (size_t f = 0; f < json_array_size(fields) && mir_bytes_ok(&text); f++) {
            json_t *field = json_array_get(fields, f);
            const char *name = json_string_value(json_object_get(field, "name"));
            if (strcmp(name, answer->headers[each->column]) == 0)
                (void)json_object_set_new(field, "course",
                                          json_stringn((const char *)text.data, text.size));
        }
        mir_bytes_free(&text);
    }
    mir_cli_chart_free(&chart);
    return code;
}

static int add_all_courses(mir_cli_session *session, const json_t *groups)
{
    int code = MIR_EXIT_OK;
    for (size_t g = 0; g < json_array_size(groups); g++) {
        const json_t *group = json_array_get(groups, g);
        const json_t *measurements = json_object_get(group, "measurements");
        for (size_t m = 0; code == MIR_EXIT_OK && m < json_array_size(measurements); m++)
            code = add_courses(session, group, json_array_get(measurements, m));
    }
    return code;
}

static void add_measurement(mir_cli_table *table, const json_t *measurement, bool courses)
{
    const json_t *fields = json_object_get(measurement, "fields");
    const json_t *labels = json_object_get(measurement, "labels");
    const char *name = json_string_value(json_object_get(measurement, "name"));
    const char *problem = json_string_value(json_object_get(measurement, "error"));
    size_t rows = json_array_size(fields);
    for (size_t i = 0; i < rows || i == 0; i++) {
        const json_t *field = json_array_get(fields, i);
        const char *field_name = json_string_value(json_object_get(field, "name"));
        bool stored = json_is_true(json_object_get(field, "stored"));
        mir_bytes text = {0};
        mir_bytes own = {0};
        if (i == 0) tags_text(labels, NULL, &own);
        if (field_name != NULL) tags_text(labels, field_name, &text);
        mir_cli_table_cell(table, MIR_TONE_STRONG, i == 0 ? name : "");
        if (field_name == NULL)
            mir_cli_table_cell(table, problem != NULL ? MIR_TONE_BAD : MIR_TONE_DIM,
                               problem != NULL ? problem : "(no data in 30 days)");
        else
            mir_cli_table_cell(table, stored ? MIR_TONE_PLAIN : MIR_TONE_DIM, field_name);
        const char *unit = json_string_value(json_object_get(field, "unit"));
        const char *type = json_string_value(json_object_get(field, "type"));
        const char *dot = type != NULL ? strrchr(type, '.') : NULL;
        mir_cli_table_cell(table, MIR_TONE_PLAIN, dot != NULL ? dot + 1 : type != NULL ? type : "");
        mir_cli_table_cell(table, MIR_TONE_PLAIN, unit != NULL ? unit : "");
        const char *course = json_string_value(json_object_get(field, "course"));
        if (courses) mir_cli_table_cell(table, MIR_TONE_PLAIN, course != NULL ? course : "");
        const char *message_tags = own.size > 1 ? (const char *)own.data : "";
        const char *field_tags = text.size > 1 ? (const char *)text.data : "";
        bool both = message_tags[0] != '\0' && field_tags[0] != '\0';
        bool absent = field_name != NULL && !stored;
        mir_cli_table_cellf(table, absent ? MIR_TONE_DIM : MIR_TONE_PLAIN, "%s%s%s%s",
                            absent ? "(no data in 30 days) " : "", message_tags, both ? " " : "",
                            field_tags);
        mir_bytes_free(&text);
        mir_bytes_free(&own);
    }
}

static int print_list(const json_t *groups, bool wide, bool courses)
{
    int code = MIR_EXIT_OK;
    bool colours = mir_cli_text_colours(stdout);
    for (size_t g = 0; g < json_array_size(groups); g++) {
        const json_t *group = json_array_get(groups, g);
        const json_t *measurements = json_object_get(group, "measurements");
        const char *problem = json_string_value(json_object_get(group, "error"));
        print_group_title(group, g == 0);
        if (problem != NULL) {
            code = mir_cli_fail("%s", problem);
            continue;
        }
        if (json_array_size(measurements) == 0) {
            (void)printf("no telemetry in the schema\n");
            continue;
        }
        mir_cli_table *table = mir_cli_table_new();
        mir_cli_table_column(table, "MEASUREMENT", NULL, MIR_TABLE_TEXT);
        mir_cli_table_column(table, "FIELD", NULL, MIR_TABLE_TEXT);
        mir_cli_table_column(table, "TYPE", NULL, MIR_TABLE_TEXT);
        mir_cli_table_column(table, "UNIT", NULL, MIR_TABLE_TEXT);
        if (courses) mir_cli_table_column(table, "LAST HOUR", NULL, MIR_TABLE_FIXED);
        mir_cli_table_column(table, "LABELS", NULL, MIR_TABLE_TEXT);
        for (size_t i = 0; i < json_array_size(measurements); i++)
            add_measurement(table, json_array_get(measurements, i), courses);
        if (mir_cli_table_print(table, stdout, wide ? 0 : mir_cli_text_terminal_columns(stdout),
                                colours, NULL) != MIR_OK)
            code = mir_cli_fail("no memory for the table");
        mir_cli_table_free(table);
    }
    return code;
}

int mir_cli_telemetry_list(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    mir_cli_targets targets = {0};
    mir_error error = {0};
    MirApi__V1__ListTelemetryRequest request = MIR_API__V1__LIST_TELEMETRY_REQUEST__INIT;
    mir_cli_target_pair *filters = NULL;
    size_t filters_count = 0;
    mir_arena *arena = &session.arena;
    const char *format = mir_cli_value(args, MIR_OPT_OUTPUT);
    if (format == NULL) format = "table";
    bool table = strcmp(format, "table") == 0 || strcmp(format, "wide") == 0;
    bool sparkline = mir_cli_flag(args, MIR_OPT_SPARKLINE);
    if (sparkline && !table)
        return mir_cli_usage(cli, "--sparkline is of tables: leave it or -o %s out", format);
    mir_status status = mir_cli_target_parse(args, arena, &targets, &error);
    if (status == MIR_OK)
        status = mir_cli_target_list(args, MIR_OPT_MEASUREMENT, arena, &request.measurements,
                                     &request.n_measurements, &error);
    if (status == MIR_OK)
        status =
            mir_cli_target_pairs(args, MIR_OPT_FILTER, arena, &filters, &filters_count, &error);
    if (status == MIR_OK && filters_count > 0) {
        MirApi__V1__ListTelemetryRequest__FiltersEntry *entries =
            mir_arena_alloc(arena, filters_count * sizeof *entries);
        request.filters = mir_arena_alloc(arena, filters_count * sizeof(*request.filters));
        if (entries == NULL || request.filters == NULL) {
            mir_cli_connect_close(&session);
            return mir_cli_fail("no memory");
        }
        for (size_t i = 0; i < filters_count; i++) {
            mir_api__v1__list_telemetry_request__filters_entry__init(&entries[i]);
            entries[i].key = filters[i].key;
            entries[i].value = filters[i].value;
            request.filters[request.n_filters++] = &entries[i];
        }
    }
    request.has_refresh_schema = request.refresh_schema = mir_cli_flag(args, MIR_OPT_REFRESH);
    int code = status == MIR_OK ? mir_cli_connect_open(cli, args, &session)
                                : mir_cli_usage(cli, "%s", error.text);
    json_t *groups = json_array();
    for (size_t i = 0; code == MIR_EXIT_OK && i < targets.count; i++) {
        MirApi__V1__TelemetryResponse *answer = NULL;
        request.targets = targets.items[i];
        code = mir_cli_connect_ask(&session, "tlm.v1alpha.list", &request.base,
                                   &mir_api__v1__list_telemetry_response__descriptor, &answer);
        for (size_t g = 0; code == MIR_EXIT_OK && g < answer->n_devices_telemetry; g++)
            (void)json_array_append_new(groups, group_json(&session, answer->devices_telemetry[g]));
    }
    if (code == MIR_EXIT_OK) {
        if (sparkline) code = add_all_courses(&session, groups);
        if (code == MIR_EXIT_OK)
            code = table ? print_list(groups, strcmp(format, "wide") == 0, sparkline)
                         : mir_cli_devices_print_value(groups, format);
    }
    json_decref(groups);
    mir_cli_connect_close(&session);
    return code;
}

typedef MirApi__V1__QueryTelemetry__Row__DataPoint data_point;
typedef MirApi__V1__QueryTelemetry__Row query_row;

static const data_point *point_at(const query_row *row, size_t column)
{
    return column < row->n_datapoints ? row->datapoints[column] : NULL;
}

static int print_values(const MirApi__V1__QueryTelemetry *from, const char *measurement,
                        const char *format)
{
    json_t *columns = json_array();
    json_t *rows = json_array();
    for (size_t i = 0; i < from->n_headers; i++)
        (void)json_array_append_new(
            columns, json_pack("{s:s, s:s, s:s}", "name", from->headers[i], "unit",
                               i < from->n_units && from->units[i] != NULL ? from->units[i] : "",
                               "type", mir_cli_chart_type(from, i)));
    for (size_t r = 0; r < from->n_rows; r++) {
        json_t *row = json_object();
        for (size_t i = 0; i < from->n_headers; i++) {
            mir_cli_cell each = mir_cli_cell_of(point_at(from->rows[r], i));
            /* A field of two types has two columns of its name: the one with a value counts. */
            if (each.kind != MIR_CELL_EMPTY || json_object_get(row, from->headers[i]) == NULL)
                (void)json_object_set_new(row, from->headers[i], mir_cli_cell_json(&each));
        }
        (void)json_array_append_new(rows, row);
    }
    json_t *out =
        json_pack("{s:s, s:o, s:o}", "measurement", measurement, "columns", columns, "rows", rows);
    int code = out != NULL ? mir_cli_devices_print_value(out, format) : mir_cli_fail("no memory");
    json_decref(out);
    return code;
}

static int print_csv(const MirApi__V1__QueryTelemetry *from)
{
    mir_bytes line = {0};
    for (size_t i = 0; i < from->n_headers; i++) {
        mir_cli_cell title = {.kind = MIR_CELL_TEXT, .text = from->headers[i]};
        if (i > 0) mir_bytes_u8(&line, ',');
        mir_cli_cell_csv(&title, &line);
    }
    for (size_t r = 0; r < from->n_rows + 1; r++) {
        if (from->n_headers > 0) mir_bytes_u8(&line, '\n');
        (void)fwrite(line.data, 1, line.size, stdout);
        line.size = 0;
        for (size_t i = 0; r < from->n_rows && i < from->n_headers; i++) {
            mir_cli_cell each = mir_cli_cell_of(point_at(from->rows[r], i));
            if (i > 0) mir_bytes_u8(&line, ',');
            mir_cli_cell_csv(&each, &line);
        }
    }
    bool ok = mir_bytes_ok(&line);
    mir_bytes_free(&line);
    return ok ? MIR_EXIT_OK : mir_cli_fail("no memory for the output");
}

/* How the times of a table are written: the date if the rows are not all of today, and as many
 * digits of fraction (0, 3, 6, 9) as they need. */
static void time_style(const MirApi__V1__QueryTelemetry *from, bool utc, bool *date, int *digits)
{
    char today[48], other[48];
    mir_cli_when_clock(mir_clock_wall_ns(), true, 0, utc, today, sizeof today);
    for (size_t r = 0; r < from->n_rows; r++) {
        mir_cli_cell time = mir_cli_cell_of(point_at(from->rows[r], 0));
        if (time.kind != MIR_CELL_TIME) continue;
        mir_cli_when_clock(time.integer, true, 0, utc, other, sizeof other);
        if (strncmp(today, other, 10) != 0) *date = true;
        int need = time.integer % MIR_NS_PER_S == 0 ? 0 : time.integer % MIR_NS_PER_MS == 0 ? 3 : 6;
        /* Nobody reads microseconds in a table; -o json and csv have all digits. */
        if (need > 3) need = 3;
        if (need > *digits) *digits = need;
    }
}

/* As many decimals as the largest number of a column needs to show four digits or so; -1, all of
 * them, where numbers are too large or too small for that. */
static int decimals_of(const MirApi__V1__QueryTelemetry *from, size_t column)
{
    double largest = 0;
    bool whole = true;
    for (size_t r = 0; r < from->n_rows; r++) {
        mir_cli_cell each = mir_cli_cell_of(point_at(from->rows[r], column));
        if (each.kind != MIR_CELL_REAL || !isfinite(each.real)) continue;
        largest = fmax(largest, fabs(each.real));
        whole = whole && each.real == floor(each.real);
    }
    if (largest >= 1e15 || (largest < 1e-3 && largest > 0)) return -1;
    return whole ? 0 : largest >= 1000 ? 1 : largest >= 10 ? 2 : largest >= 1 ? 3 : 4;
}

/* Whose the rows are. */
static const char *second_title(const char *header)
{
    static const char label[] = "__label_";
    if (strcmp(header, "__namespace") == 0) return "NAMESPACE";
    if (strcmp(header, "__group") == 0) return "GROUP";
    return strncmp(header, label, sizeof label - 1) == 0 ? header + sizeof label - 1 : "DEVICE";
}

static int print_rows(const MirApi__V1__QueryTelemetry *from, bool wide, bool utc)
{
    mir_cli_table *table = mir_cli_table_new();
    bool date = false;
    int digits = 0;
    time_style(from, utc, &date, &digits);
    int decimals[MIR_TABLE_COLUMNS_MAX];
    if (from->n_headers > MIR_TABLE_COLUMNS_MAX) {
        mir_cli_table_free(table);
        return mir_cli_fail("more than %d columns: choose some with -f", MIR_TABLE_COLUMNS_MAX);
    }
    for (size_t i = 0; i < from->n_headers; i++) {
        MirApi__V1__DataType type = i < from->n_datatypes ? from->datatypes[i] : 0;
        decimals[i] = decimals_of(from, i);
        bool text = type == MIR_API__V1__DATA_TYPE__DATA_TYPE_STRING ||
                    type == MIR_API__V1__DATA_TYPE__DATA_TYPE_BYTES;
        bool time = type == MIR_API__V1__DATA_TYPE__DATA_TYPE_TIMESTAMP;
        const char *unit = i < from->n_units && !time ? from->units[i] : "";
        mir_cli_table_column(table,
                             i == 0   ? mir_cli_when_title(utc)
                             : i == 1 ? second_title(from->headers[i])
                                      : from->headers[i],
                             unit,
                             time   ? MIR_TABLE_FIXED
                             : text ? MIR_TABLE_TEXT
                                    : MIR_TABLE_NUMBER);
    }
    for (size_t r = 0; r < from->n_rows; r++) {
        for (size_t i = 0; i < from->n_headers; i++) {
            mir_cli_cell each = mir_cli_cell_of(point_at(from->rows[r], i));
            mir_bytes text = {0};
            char clock[64];
            if (i == 0 && each.kind == MIR_CELL_TIME) {
                mir_cli_when_clock(each.integer, date, digits, utc, clock, sizeof clock);
                mir_bytes_text(&text, clock);
            } else {
                mir_cli_cell_text(&each, decimals[i], &text);
            }
            mir_bytes_u8(&text, '\0');
            mir_cli_table_cell(table, MIR_TONE_PLAIN,
                               mir_bytes_ok(&text) ? (const char *)text.data : "");
            mir_bytes_free(&text);
        }
    }
    size_t left_out = 0;
    mir_status status =
        mir_cli_table_print(table, stdout, wide ? 0 : mir_cli_text_terminal_columns(stdout),
                            mir_cli_text_colours(stdout), &left_out);
    mir_cli_table_free(table);
    if (status != MIR_OK) return mir_cli_fail("no memory for the table");
    if (left_out > 0)
        mir_cli_note("%zu more column%s: -o wide shows all, -f chooses", left_out,
                     left_out == 1 ? "" : "s");
    return MIR_EXIT_OK;
}

/* Names of a list as text, for whoever has typed another one. */
static void names_text(const json_t *names, const char *typed, mir_bytes *out)
{
    enum { NAMES_TOLD_MAX = 40 };
    const char *all[NAMES_TOLD_MAX];
    const char *name;
    json_t *value;
    size_t count = 0;
    json_object_foreach((json_t *)(uintptr_t)names, name, value)
    {
        if (count < NAMES_TOLD_MAX) all[count++] = name;
    }
    const char *near = mir_cli_nearest(typed, all, count);
    for (size_t i = 0; near == NULL && i < count; i++) {
        const char *dot = strrchr(all[i], '.');
        if (dot != NULL && strcasecmp(dot + 1, typed) == 0) near = all[i];
    }
    if (near != NULL) mir_bytes_printf(out, "; did you mean '%s'?", near);
    mir_bytes_text(out, near != NULL ? " There is " : "; there is ");
    for (size_t i = 0; i < count; i++) mir_bytes_printf(out, "%s%s", i > 0 ? ", " : "", all[i]);
    if (count == 0) mir_bytes_text(out, "none");
    if (json_object_size(names) > count) mir_bytes_text(out, " and more");
    mir_bytes_u8(out, '\0');
}

/* Texts and booleans have no mean: who asks for it is not to look for them at other times. */
static int check_type(const json_t *field, const MirApi__V1__QueryTelemetryRequest *query)
{
    const char *type = json_string_value(json_object_get(field, "type"));
    bool numbers = query->n_functions == 0 && query->aggregation_window != NULL;
    for (size_t i = 0; i < query->n_functions && !numbers; i++)
        numbers = strcmp(query->functions[i], "count") != 0 &&
                  strcmp(query->functions[i], "first") != 0 &&
                  strcmp(query->functions[i], "last") != 0;
    if (!numbers || type == NULL ||
        (strcmp(type, "string") != 0 && strcmp(type, "bool") != 0 && strcmp(type, "bytes") != 0))
        return MIR_EXIT_OK;
    return mir_cli_fail("%s of %s is no number (%s): there are count, first and last of it",
                        json_string_value(json_object_get(field, "name")), query->measurement,
                        type);
}

int mir_cli_telemetry_check_names(mir_cli_session *session,
                                  const MirApi__V1__QueryTelemetryRequest *query)
{
    MirApi__V1__ListTelemetryRequest request = MIR_API__V1__LIST_TELEMETRY_REQUEST__INIT;
    MirApi__V1__TelemetryResponse *answer = NULL;
    const char *refusal = NULL;
    mir_error error = {0};
    request.targets = query->targets;
    if (mir_cli_connect_try(session, "tlm.v1alpha.list", &request.base,
                            &mir_api__v1__list_telemetry_response__descriptor, NULL, &answer,
                            &refusal, &error) != MIR_OK)
        return MIR_EXIT_OK;
    json_t *measurements = json_object(), *fields = json_object();
    bool complete = true, found = false;
    for (size_t g = 0; g < answer->n_devices_telemetry; g++) {
        json_t *group = group_json(session, answer->devices_telemetry[g]);
        const json_t *list = json_object_get(group, "measurements");
        complete = complete && json_object_get(group, "error") == NULL;
        for (size_t m = 0; m < json_array_size(list); m++) {
            const json_t *each = json_array_get(list, m);
            const char *name = json_string_value(json_object_get(each, "name"));
            (void)json_object_set_new(measurements, name, json_true());
            if (strcmp(name, query->measurement) != 0) continue;
            found = true;
            const json_t *own = json_object_get(each, "fields");
            for (size_t f = 0; f < json_array_size(own); f++)
                (void)json_object_set(
                    fields, json_string_value(json_object_get(json_array_get(own, f), "name")),
                    json_array_get(own, f));
        }
        json_decref(group);
    }
    int code = MIR_EXIT_OK;
    mir_bytes text = {0};
    if (complete && !found) {
        names_text(measurements, query->measurement, &text);
        code = mir_cli_fail("none of these devices measures '%s'%s", query->measurement,
                            mir_bytes_ok(&text) ? (const char *)text.data : "");
    }
    for (size_t i = 0; complete && found && code == MIR_EXIT_OK && i < query->n_fields; i++) {
        const json_t *field = json_object_get(fields, query->fields[i]);
        if (field != NULL) {
            code = check_type(field, query);
            continue;
        }
        text.size = 0;
        names_text(fields, query->fields[i], &text);
        code = mir_cli_fail("%s has no field '%s'%s", query->measurement, query->fields[i],
                            mir_bytes_ok(&text) ? (const char *)text.data : "");
    }
    mir_bytes_free(&text);
    json_decref(measurements);
    json_decref(fields);
    return code;
}

void mir_cli_telemetry_each_name(const char *measurement, mir_cli_connect_name_fn each,
                                 void *context)
{
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    MirApi__V1__ListTelemetryRequest request = MIR_API__V1__LIST_TELEMETRY_REQUEST__INIT;
    MirApi__V1__TelemetryResponse *answer = NULL;
    const char *refusal = NULL;
    mir_error error = {0};
    json_t *told = json_object(); /* devices of several schemas have names in common */
    size_t groups = 0;
    if (mir_cli_connect_quietly(NULL, COMPLETION_TIMEOUT_NS, &session, &error) == MIR_OK &&
        mir_cli_connect_try(&session, "tlm.v1alpha.list", &request.base,
                            &mir_api__v1__list_telemetry_response__descriptor, NULL, &answer,
                            &refusal, &error) == MIR_OK)
        groups = answer->n_devices_telemetry;
    for (size_t g = 0; g < groups; g++) {
        const MirApi__V1__DevicesTelemetry *group = answer->devices_telemetry[g];
        for (size_t i = 0; i < group->n_tlm_descriptors; i++) {
            MirApi__V1__TelemetryDescriptor *from = group->tlm_descriptors[i];
            bool own = measurement != NULL && strcmp(from->name, measurement) == 0;
            char **names = measurement == NULL ? &from->name : from->fields;
            size_t count = measurement == NULL ? 1 : own ? from->n_fields : 0;
            for (size_t n = 0; n < count; n++) {
                if (names[n] == NULL || json_object_get(told, names[n]) != NULL) continue;
                (void)json_object_set_new(told, names[n], json_true());
                each(context, names[n], "");
            }
        }
    }
    json_decref(told);
    mir_cli_connect_close(&session);
}

void mir_cli_telemetry_say_nothing(const char *measurement)
{
    mir_cli_note("No data of %s in that time. `mir telemetry list` shows what there is, "
                 "--since 24h looks further back.",
                 measurement);
}

/* The course of each series below its rows: of windows on a terminal, of any rows when asked for. */
static void print_sparks(const MirApi__V1__QueryTelemetry *from, const mir_cli_query *query,
                         bool wanted)
{
    const char *window = query->request.aggregation_window;
    size_t columns = mir_cli_text_terminal_columns(stdout);
    int64_t window_ns = 0;
    if (!wanted && (columns == 0 || window == NULL)) return;
    if (window != NULL && mir_cli_when_duration(window, &window_ns, NULL) != MIR_OK) return;
    (void)mir_cli_chart_print_sparks(from, window_ns, columns > 0 ? columns : 80,
                                     mir_cli_text_colours(stdout));
}

/* Whether it has nothing, or nothing of a field that was asked for. */
static bool lacks_field(const MirApi__V1__QueryTelemetry *answer,
                        const MirApi__V1__QueryTelemetryRequest *request)
{
    bool lacks = answer->n_rows == 0;
    for (size_t f = 0; f < request->n_fields && !lacks; f++) {
        lacks = true;
        for (size_t i = 2; i < answer->n_headers && lacks; i++)
            lacks = !mir_cli_query_is_field(answer->headers[i], request->fields[f]);
    }
    return lacks;
}

int mir_cli_telemetry_query(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    mir_cli_query query;
    mir_error error = {0};
    const char *format = mir_cli_value(args, MIR_OPT_OUTPUT);
    const char *measurement = mir_cli_value(args, MIR_OPT_MEASUREMENT);
    if (format == NULL) format = "table";
    if (measurement == NULL || measurement[0] == '\0')
        return mir_cli_usage(cli, "needs -m MEASUREMENT; `mir telemetry list` shows what there is");
    bool table = strcmp(format, "table") == 0 || strcmp(format, "wide") == 0;
    bool sparkline = mir_cli_flag(args, MIR_OPT_SPARKLINE);
    if (sparkline && !table)
        return mir_cli_usage(cli, "--sparkline is of tables: leave it or -o %s out", format);
    int code = mir_cli_query_read(args, &session.arena, &query, &error) == MIR_OK
                   ? mir_cli_connect_open(cli, args, &session)
                   : mir_cli_usage(cli, "%s", error.text);
    MirApi__V1__QueryTelemetry *answer = NULL;
    if (code == MIR_EXIT_OK) code = mir_cli_query_ask(&session, &query, &answer);
    if (code == MIR_EXIT_OK && lacks_field(answer, &query.request))
        code = mir_cli_telemetry_check_names(&session, &query.request);
    if (code == MIR_EXIT_OK) {
        if (strcmp(format, "csv") == 0)
            code = print_csv(answer);
        else if (strcmp(format, "json") == 0 || strcmp(format, "yaml") == 0)
            code = print_values(answer, measurement, format);
        else if (answer->n_rows > 0)
            code = print_rows(answer, strcmp(format, "wide") == 0, mir_cli_flag(args, MIR_OPT_UTC));
        if (code == MIR_EXIT_OK && table) print_sparks(answer, &query, sparkline);
        if (code == MIR_EXIT_OK && answer->n_rows == 0) mir_cli_telemetry_say_nothing(measurement);
        if (code == MIR_EXIT_OK && answer->cursor != NULL)
            mir_cli_note("There are older rows: go on with --cursor %s", answer->cursor);
        if (code == MIR_EXIT_OK) code = mir_cli_query_check(answer);
    }
    mir_cli_connect_close(&session);
    return code;
}
