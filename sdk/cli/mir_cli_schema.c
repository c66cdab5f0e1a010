/* SPDX-License-Identifier: Apache-2.0 */
/* mir device schema: what a device says it sends and understands. The JSON form is built first, the
 * text is made from it. */
#include "mir_cli_schema.h"

#include "mir_cli_devices.h"

#include "mir_cli_text.h"
#include "mir_cli_when.h"
#include "mir_clock.h"
#include "mir_timestamp.h"
#include "mir_zstd.h"

enum { SCHEMA_BYTES_MAX = 8 * 1024 * 1024, NESTING_MAX = 8, FIELDS_SHOWN_MAX = 65536 };

static const char *const kind_names[] = {"",         "double",   "float",   "int64",  "uint64",
                                         "int32",    "fixed64",  "fixed32", "bool",   "string",
                                         "group",    "message",  "bytes",   "uint32", "enum",
                                         "sfixed32", "sfixed64", "sint32",  "sint64"};
static const char *const message_types[] = {"data", "telemetry", "command", "property"};
static const char *const time_units[] = {NULL,           "seconds",     "microseconds",
                                         "milliseconds", "nanoseconds", "fraction"};

/* The path of messages that are being described, against types that contain themselves. */
typedef struct nesting {
    const mir_schema_message *messages[NESTING_MAX];
    size_t depth;
    size_t fields; /* described so far */
} nesting;

static json_t *tags_json(const mir_schema_tag *tags, uint32_t count)
{
    json_t *out = json_object();
    for (uint32_t i = 0; i < count; i++)
        (void)json_object_set_new(out, tags[i].key, json_string(tags[i].value));
    return out;
}

static json_t *fields_json(const mir_schema_message *message, nesting *in);

const char *mir_cli_schema_type(const mir_schema_field *field)
{
    if (field->message != NULL) return field->message->name;
    if (field->enumeration != NULL) return field->enumeration->name;
    size_t kind = (size_t)field->kind;
    return kind < sizeof kind_names / sizeof kind_names[0] ? kind_names[kind] : "";
}

static json_t *field_json(const mir_schema_field *field, nesting *in)
{
    json_t *out = json_object();
    const mir_schema_field *value = field;
    (void)json_object_set_new(out, "name", json_string(field->name));
    (void)json_object_set_new(out, "number", json_integer(field->number));
    if (field->is_map && field->message != NULL) {
        const mir_schema_field *key = mir_schema_field_by_number(field->message, 1);
        const mir_schema_field *entry = mir_schema_field_by_number(field->message, 2);
        if (key != NULL && entry != NULL) {
            (void)json_object_set_new(
                out, "type",
                json_sprintf("map<%s, %s>", mir_cli_schema_type(key), mir_cli_schema_type(entry)));
            value = entry;
        }
    } else {
        (void)json_object_set_new(out, "type", json_string(mir_cli_schema_type(field)));
        if (field->is_repeated) (void)json_object_set_new(out, "repeated", json_true());
    }
    if (field->unit != NULL && field->unit[0] != '\0')
        (void)json_object_set_new(out, "unit", json_string(field->unit));
    size_t time = (size_t)field->timestamp_type;
    if (time > 0 && time < sizeof time_units / sizeof time_units[0])
        (void)json_object_set_new(out, "timestamp", json_string(time_units[time]));
    if (field->tag_count > 0)
        (void)json_object_set_new(out, "tags", tags_json(field->tags, field->tag_count));
    if (value->enumeration != NULL) {
        json_t *values = json_object();
        for (uint32_t i = 0; i < value->enumeration->value_count; i++)
            (void)json_object_set_new(values, value->enumeration->values[i].name,
                                      json_integer(value->enumeration->values[i].number));
        (void)json_object_set_new(out, "values", values);
    }
    bool well_known =
        value->message != NULL && (strncmp(value->message->name, "google.protobuf.", 16) == 0 ||
                                   strcmp(value->message->name, "mir.device.v1.Timestamp") == 0);
    if (value->message != NULL && !well_known) {
        json_t *below = fields_json(value->message, in);
        if (below != NULL) (void)json_object_set_new(out, "fields", below);
    }
    return out;
}

/* Null where a type contains itself, is nested too deeply, or the whole becomes too large. */
static json_t *fields_json(const mir_schema_message *message, nesting *in)
{
    if (in->depth == NESTING_MAX || in->fields > FIELDS_SHOWN_MAX) return NULL;
    for (size_t i = 0; i < in->depth; i++)
        if (in->messages[i] == message) return NULL;
    in->messages[in->depth++] = message;
    json_t *out = json_array();
    for (uint32_t i = 0; i < message->field_count; i++) {
        in->fields++;
        (void)json_array_append_new(out, field_json(&message->fields[i], in));
    }
    in->depth--;
    return out;
}

static json_t *schema_json(const mir_schema *schema)
{
    json_t *messages = json_array();
    static const mir_schema_message_type order[] = {MIR_MESSAGE_TELEMETRY, MIR_MESSAGE_TELECOMMAND,
                                                    MIR_MESSAGE_TELECONFIG,
                                                    MIR_MESSAGE_UNSPECIFIED};
    uint32_t count = 0;
    const mir_schema_message *const *all = mir_schema_messages(schema, &count);
    for (size_t t = 0; t < sizeof order / sizeof order[0]; t++) {
        for (uint32_t i = 0; i < count; i++) {
            if (all[i]->type != order[t] || strncmp(all[i]->name, "google.protobuf.", 16) == 0 ||
                strncmp(all[i]->name, "mir.device.v1.", 14) == 0)
                continue;
            nesting in = {0};
            json_t *each =
                json_pack("{s:s, s:s}", "name", all[i]->name, "type", message_types[order[t]]);
            if (all[i]->tag_count > 0)
                (void)json_object_set_new(each, "tags", tags_json(all[i]->tags, all[i]->tag_count));
            (void)json_object_set_new(each, "fields", fields_json(all[i], &in));
            (void)json_array_append_new(messages, each);
        }
    }
    return messages;
}

mir_status mir_cli_schema_load(const MirApi__V1__Device *device, mir_schema **schema,
                               mir_error *error)
{
    const MirApi__V1__Schema *from = device->status != NULL ? device->status->schema : NULL;
    if (from == NULL || !from->has_compressed_schema || from->compressed_schema.len == 0)
        return mir_error_set(error, MIR_E_NOT_FOUND,
                             "has not sent a schema yet; --refresh asks it for one");
    mir_bytes set = {0};
    mir_view frames = mir_view_of(from->compressed_schema.data, from->compressed_schema.len);
    mir_status status = mir_zstd_decompress(frames, SCHEMA_BYTES_MAX, &set, error);
    if (status == MIR_OK) status = mir_schema_load(mir_bytes_as_view(&set), NULL, schema, error);
    mir_bytes_free(&set);
    return status;
}

bool mir_cli_schema_is_well_known(const mir_schema_message *message)
{
    return strncmp(message->name, "google.protobuf.", 16) == 0 ||
           strcmp(message->name, "mir.device.v1.Timestamp") == 0;
}

/* What there is to know about the schema of a device; `problem` is what it or the refresh says. */
static json_t *device_json(const MirApi__V1__Device *device, const char *problem)
{
    json_t *out =
        json_pack("{s:{s:s, s:s, s:s}}", "device", "name", mir_cli_devices_name(device),
                  "namespace", mir_cli_devices_namespace(device), "id", mir_cli_devices_id(device));
    const MirApi__V1__Schema *from = device->status != NULL ? device->status->schema : NULL;
    mir_schema *schema = NULL;
    mir_error error = {0};
    json_t *packages = json_array();
    for (size_t i = 0; from != NULL && i < from->n_package_names; i++)
        (void)json_array_append_new(packages, json_string(from->package_names[i]));
    (void)json_object_set_new(out, "packages", packages);
    if (from != NULL && from->last_schema_fetch != NULL) {
        char time[MIR_CLOCK_TEXT_BYTES];
        (void)mir_clock_rfc3339(mir_timestamp_ns(from->last_schema_fetch), time);
        (void)json_object_set_new(out, "lastSchemaFetch", json_string(time));
    }
    mir_status status = mir_cli_schema_load(device, &schema, &error);
    if (status == MIR_OK)
        (void)json_object_set_new(out, "messages", schema_json(schema));
    else if (problem == NULL)
        problem = error.text;
    if (problem != NULL) (void)json_object_set_new(out, "error", json_string(problem));
    mir_schema_unref(schema);
    return out;
}

static void print_padded(const char *text, size_t columns)
{
    mir_cli_text_print_visible(stdout, text);
    for (size_t used = mir_cli_text_columns(text); used < columns; used++) (void)fputc(' ', stdout);
}

/* A type as people write it: repeated in front, and without the package of the message. */
static void type_text(const json_t *field, const char *message, char *text, size_t size)
{
    const char *type = json_string_value(json_object_get(field, "type"));
    if (type == NULL) type = "";
    const char *dot = strrchr(message, '.');
    size_t package = dot != NULL ? (size_t)(dot - message) + 1 : 0;
    bool map = strncmp(type, "map<", 4) == 0;
    const char *comma = map ? strstr(type, ", ") : NULL;
    const char *repeated = json_is_true(json_object_get(field, "repeated")) ? "repeated " : "";
    if (comma != NULL && package > 0 && strncmp(comma + 2, message, package) == 0)
        (void)snprintf(text, size, "%.*s%s", (int)(comma + 2 - type), type, comma + 2 + package);
    else if (package > 0 && strncmp(type, message, package) == 0)
        (void)snprintf(text, size, "%s%s", repeated, type + package);
    else if (strcmp(type, "mir.device.v1.Timestamp") == 0)
        (void)snprintf(text, size, "%sTimestamp", repeated);
    else
        (void)snprintf(text, size, "%s%s", repeated, type);
}

static void measure(const json_t *fields, const char *message, size_t indent, size_t *names,
                    size_t *types)
{
    for (size_t i = 0; i < json_array_size(fields); i++) {
        const json_t *each = json_array_get(fields, i);
        char type[256];
        type_text(each, message, type, sizeof type);
        size_t name =
            indent + mir_cli_text_columns(json_string_value(json_object_get(each, "name")));
        if (name > *names) *names = name;
        if (mir_cli_text_columns(type) > *types) *types = mir_cli_text_columns(type);
        measure(json_object_get(each, "fields"), message, indent + 2, names, types);
    }
}

static void print_tags(const json_t *tags)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)tags, key, value)
    {
        (void)fputs("  ", stdout);
        mir_cli_text_print_visible(stdout, key);
        (void)fputc('=', stdout);
        mir_cli_text_print_visible(stdout, json_string_value(value));
    }
}

static void print_fields(const json_t *fields, const char *message, size_t indent, size_t names,
                         size_t types)
{
    for (size_t i = 0; i < json_array_size(fields); i++) {
        const json_t *each = json_array_get(fields, i);
        const char *unit = json_string_value(json_object_get(each, "unit"));
        const char *time = json_string_value(json_object_get(each, "timestamp"));
        const json_t *values = json_object_get(each, "values");
        const json_t *tags = json_object_get(each, "tags");
        const json_t *below = json_object_get(each, "fields");
        char type[256];
        type_text(each, message, type, sizeof type);
        (void)printf("  %*s", (int)indent, "");
        print_padded(json_string_value(json_object_get(each, "name")), names - indent + 2);
        bool more = unit != NULL || time != NULL || json_object_size(values) > 0 ||
                    json_object_size(tags) > 0;
        print_padded(type, more ? types : 0);
        if (unit != NULL) {
            (void)fputs("  ", stdout);
            mir_cli_text_print_visible(stdout, unit);
        }
        if (time != NULL)
            (void)printf("  time of the message%s%s%s", strcmp(type, "Timestamp") == 0 ? "" : " (",
                         strcmp(type, "Timestamp") == 0 ? "" : time,
                         strcmp(type, "Timestamp") == 0 ? "" : ")");
        const char *key;
        json_t *value;
        const char *before = "  ";
        json_object_foreach((json_t *)(uintptr_t)values, key, value)
        {
            (void)fputs(before, stdout);
            mir_cli_text_print_visible(stdout, key);
            before = " | ";
        }
        print_tags(tags);
        (void)fputc('\n', stdout);
        print_fields(below, message, indent + 2, names, types);
    }
}

static void print_text(const json_t *schema, bool first)
{
    bool colours = mir_cli_text_colours(stdout);
    const json_t *device = json_object_get(schema, "device");
    const char *on = colours ? "\033[1m" : "";
    const char *dim = colours ? "\033[2m" : "";
    const char *off = colours ? "\033[0m" : "";
    if (!first) (void)fputc('\n', stdout);
    (void)fputs(on, stdout);
    mir_cli_text_print_visible(stdout, json_string_value(json_object_get(device, "name")));
    (void)fputc('/', stdout);
    mir_cli_text_print_visible(stdout, json_string_value(json_object_get(device, "namespace")));
    (void)fputs(off, stdout);
    const char *fetched = json_string_value(json_object_get(schema, "lastSchemaFetch"));
    int64_t fetched_ns = 0;
    if (fetched != NULL && mir_cli_when_time(fetched, &fetched_ns, NULL) == MIR_OK) {
        char age[32];
        mir_cli_when_age(fetched_ns, mir_clock_wall_ns(), age, sizeof age);
        (void)printf("  %sschema of %s%s", dim, age, off);
    }
    (void)fputc('\n', stdout);
    const json_t *messages = json_object_get(schema, "messages");
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *each = json_array_get(messages, i);
        const char *name = json_string_value(json_object_get(each, "name"));
        if (name == NULL) name = ""; /* it was not UTF-8 */
        const json_t *fields = json_object_get(each, "fields");
        size_t names = 0, types = 0;
        (void)printf("\n%s", on);
        mir_cli_text_print_visible(stdout, name);
        (void)printf("%s  %s%s%s", off, dim, json_string_value(json_object_get(each, "type")), off);
        print_tags(json_object_get(each, "tags"));
        (void)fputc('\n', stdout);
        measure(fields, name, 0, &names, &types);
        print_fields(fields, name, 0, names, types);
    }
}

/* Asks the devices for their schemas; their errors go into `problems`, by place. */
static int refresh(mir_cli_session *session, const mir_cli_targets *targets,
                   mir_cli_devices *devices, const char ***problems)
{
    size_t room = 0;
    for (size_t i = 0; i < targets->count; i++) {
        MirApi__V1__RefreshDeviceSchemaRequest request =
            MIR_API__V1__REFRESH_DEVICE_SCHEMA_REQUEST__INIT;
        MirApi__V1__DeviceListWithError *answer = NULL;
        request.targets = targets->items[i];
        int code =
            mir_cli_connect_ask(session, "core.v1alpha.schema", &request.base,
                                &mir_api__v1__refresh_device_schema_response__descriptor, &answer);
        if (code != MIR_EXIT_OK) return code;
        room += answer->n_devices;
        MirApi__V1__Device **items = mir_arena_alloc(&session->arena, (room + 1) * sizeof *items);
        const char **texts = mir_arena_alloc(&session->arena, (room + 1) * sizeof *texts);
        if (items == NULL || texts == NULL) return mir_cli_fail("no memory");
        for (size_t j = 0; j < devices->count; j++) {
            items[j] = devices->items[j];
            texts[j] = (*problems)[j];
        }
        for (size_t j = 0; j < answer->n_devices; j++) {
            const MirApi__V1__DeviceWithError *each = answer->devices[j];
            if (each->device == NULL) continue;
            items[devices->count] = each->device;
            texts[devices->count++] =
                each->error != NULL && each->error[0] != '\0' ? each->error : NULL;
        }
        devices->items = items;
        *problems = texts;
    }
    return MIR_EXIT_OK;
}

int mir_cli_device_schema(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    mir_cli_targets targets = {0};
    mir_cli_devices devices = {0};
    mir_error error = {0};
    const char **problems = NULL;
    const char *format = mir_cli_value(args, MIR_OPT_OUTPUT);
    int code = MIR_EXIT_OK;
    if (mir_cli_target_parse(args, &session.arena, &targets, &error) != MIR_OK)
        code = mir_cli_usage(cli, "%s", error.text);
    else if (!targets.stated)
        code = mir_cli_usage(cli, "which device? for example host/default");
    if (code == MIR_EXIT_OK) code = mir_cli_connect_open(cli, args, &session);
    if (code == MIR_EXIT_OK)
        code = mir_cli_flag(args, MIR_OPT_REFRESH)
                   ? refresh(&session, &targets, &devices, &problems)
                   : mir_cli_devices_list(&session, &targets, MIR_DEVICES_SCHEMA, &devices);
    if (code == MIR_EXIT_OK && devices.count == 0)
        code = mir_cli_fail("no device matches; `mir device list` shows all devices");
    json_t *all = json_array();
    for (size_t i = 0; code == MIR_EXIT_OK && i < devices.count; i++) {
        json_t *each = device_json(devices.items[i], problems != NULL ? problems[i] : NULL);
        if (each == NULL || json_array_append_new(all, each) != 0) code = mir_cli_fail("no memory");
    }
    if (code == MIR_EXIT_OK && format != NULL && strcmp(format, "table") != 0)
        code = mir_cli_devices_print_value(all, format);
    else if (code == MIR_EXIT_OK)
        for (size_t i = 0; i < json_array_size(all); i++)
            print_text(json_array_get(all, i), i == 0);
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *each = json_array_get(all, i);
        const json_t *device = json_object_get(each, "device");
        const char *problem = json_string_value(json_object_get(each, "error"));
        if (problem != NULL)
            code = mir_cli_fail("%s/%s: %s", json_string_value(json_object_get(device, "name")),
                                json_string_value(json_object_get(device, "namespace")), problem);
    }
    json_decref(all);
    mir_cli_connect_close(&session);
    return code;
}
