/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_devices.h"

#include "mir_cli_table.h"
#include "mir_cli_text.h"
#include "mir_cli_when.h"
#include "mir_cli_yaml.h"
#include "mir_clock.h"
#include "mir_device_json.h"
#include "mir_pb.h"
#include "mir_timestamp.h"

#include <inttypes.h>
#include <stdlib.h>

#define COMPLETION_TIMEOUT_NS (700 * MIR_NS_PER_MS)
enum { COMPLETION_NAMES_MAX = 500 };

static const char *text_or_empty(const char *text)
{
    return text != NULL ? text : "";
}

const char *mir_cli_devices_name(const MirApi__V1__Device *device)
{
    return text_or_empty(device->meta != NULL ? device->meta->name : NULL);
}

const char *mir_cli_devices_namespace(const MirApi__V1__Device *device)
{
    return text_or_empty(device->meta != NULL ? device->meta->namespace_ : NULL);
}

const char *mir_cli_devices_id(const MirApi__V1__Device *device)
{
    return text_or_empty(device->spec != NULL ? device->spec->device_id : NULL);
}

static int by_name(const void *left, const void *right)
{
    const MirApi__V1__Device *a = *(MirApi__V1__Device *const *)left;
    const MirApi__V1__Device *b = *(MirApi__V1__Device *const *)right;
    int order = strcmp(mir_cli_devices_namespace(a), mir_cli_devices_namespace(b));
    if (order == 0) order = strcmp(mir_cli_devices_name(a), mir_cli_devices_name(b));
    return order != 0 ? order : strcmp(mir_cli_devices_id(a), mir_cli_devices_id(b));
}

void mir_cli_devices_sort(mir_cli_devices *devices)
{
    if (devices->count == 0) return;
    qsort(devices->items, devices->count, sizeof(*devices->items), by_name);
    size_t kept = 1;
    for (size_t i = 1; i < devices->count; i++)
        if (by_name(&devices->items[kept - 1], &devices->items[i]) != 0)
            devices->items[kept++] = devices->items[i];
    devices->count = kept;
}

mir_status mir_cli_devices_append(mir_arena *arena, mir_cli_devices *to,
                                  const MirApi__V1__DeviceList *from)
{
    if (to->count == 0) {
        to->items = from->devices;
        to->count = from->n_devices;
        return MIR_OK;
    }
    size_t count = to->count + from->n_devices;
    MirApi__V1__Device **items = mir_arena_alloc(arena, count * sizeof *items);
    if (items == NULL) return MIR_E_NO_MEMORY;
    memcpy(items, to->items, to->count * sizeof *items);
    if (from->n_devices > 0)
        memcpy(items + to->count, from->devices, from->n_devices * sizeof *items);
    *to = (mir_cli_devices){items, count};
    return MIR_OK;
}

/* Of a server that knows no pages the first one is all. */
static int list_pages(mir_cli_session *session, MirApi__V1__ListDeviceRequest *request,
                      mir_cli_devices *devices)
{
    static char from_the_first[] = "";
    request->after = from_the_first;
    for (;;) {
        MirApi__V1__DeviceList *answer = NULL;
        int code = mir_cli_connect_ask(session, "core.v1alpha.list", &request->base,
                                       &mir_api__v1__list_device_response__descriptor, &answer);
        if (code != MIR_EXIT_OK) return code;
        if (mir_cli_devices_append(&session->arena, devices, answer) != MIR_OK)
            return mir_cli_fail("no memory for so many devices");
        if (!answer->has_cut || !answer->cut || answer->n_devices == 0) return MIR_EXIT_OK;
        const MirApi__V1__Device *last = answer->devices[answer->n_devices - 1];
        mir_bytes after = {0};
        mir_bytes_printf(&after, "%s/%s", mir_cli_devices_namespace(last),
                         mir_cli_devices_name(last));
        bool same = mir_view_eq(mir_bytes_as_view(&after), mir_view_cstr(request->after));
        request->after = mir_bytes_ok(&after)
                             ? mir_arena_strdup(&session->arena, mir_bytes_as_view(&after))
                             : NULL;
        mir_bytes_free(&after);
        if (request->after == NULL) return mir_cli_fail("no memory for so many devices");
        if (same) return mir_cli_fail("the server answers the same devices again");
    }
}

int mir_cli_devices_list(mir_cli_session *session, const mir_cli_targets *targets, unsigned parts,
                         mir_cli_devices *devices)
{
    *devices = (mir_cli_devices){0};
    for (size_t i = 0; i < targets->count; i++) {
        MirApi__V1__ListDeviceRequest request = MIR_API__V1__LIST_DEVICE_REQUEST__INIT;
        request.targets = targets->items[i];
        request.has_include_events = request.include_events = (parts & MIR_DEVICES_EVENTS) != 0;
        request.has_without_schema = request.without_schema = (parts & MIR_DEVICES_SCHEMA) == 0;
        int code = list_pages(session, &request, devices);
        if (code != MIR_EXIT_OK) return code;
    }
    mir_cli_devices_sort(devices);
    return MIR_EXIT_OK;
}

static json_t *to_json(const MirApi__V1__Device *device)
{
    mir_bytes text = {0};
    mir_device_json_write(device, MIR_JSON_COMPACT, &text);
    json_t *value =
        mir_bytes_ok(&text) ? json_loadb((const char *)text.data, text.size, 0, NULL) : NULL;
    mir_bytes_free(&text);
    return value;
}

/* The order in which people read a twin, and without the bytes of the schema. */
static json_t *to_readable(const json_t *device)
{
    static const char *const order[] = {"apiVersion", "kind",       "meta",
                                        "spec",       "properties", "status"};
    json_t *out = json_object();
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        json_t *part = json_object_get(device, order[i]);
        if (part != NULL) (void)json_object_set_new(out, order[i], json_deep_copy(part));
    }
    json_t *schema = json_object_get(json_object_get(out, "status"), "schema");
    if (schema != NULL) (void)json_object_del(schema, "compressedSchema");
    return out;
}

int mir_cli_devices_print_value(const json_t *value, const char *format)
{
    mir_bytes text = {0};
    mir_status status = MIR_OK;
    if (strcmp(format, "yaml") == 0) {
        status = mir_cli_yaml_write(value, false, &text);
    } else {
        mir_json_write(value, MIR_JSON_PRETTY, &text);
        mir_bytes_u8(&text, '\n');
    }
    if (status != MIR_OK || !mir_bytes_ok(&text)) {
        mir_bytes_free(&text);
        return mir_cli_fail("cannot write the output as %s", format);
    }
    (void)fwrite(text.data, 1, text.size, stdout);
    mir_bytes_free(&text);
    return MIR_EXIT_OK;
}

int mir_cli_devices_print_twin(const json_t *twin, const char *format)
{
    if (strcmp(format, "json") == 0) return mir_cli_devices_print_value(twin, format);
    json_t *readable = to_readable(twin);
    int code = mir_cli_devices_print_value(readable, "yaml");
    json_decref(readable);
    return code;
}

static int print_json(const mir_cli_devices *devices)
{
    json_t *all = json_array();
    bool failed = all == NULL;
    for (size_t i = 0; i < devices->count && !failed; i++) {
        json_t *each = to_json(devices->items[i]);
        failed = each == NULL || json_array_append_new(all, each) != 0;
    }
    int code = failed ? mir_cli_fail("no memory for the output")
                      : mir_cli_devices_print_value(all, "json");
    json_decref(all);
    return code;
}

static int print_yaml(const mir_cli_devices *devices)
{
    for (size_t i = 0; i < devices->count; i++) {
        mir_bytes text = {0};
        json_t *each = to_json(devices->items[i]);
        json_t *readable = each != NULL ? to_readable(each) : NULL;
        mir_status status =
            readable != NULL ? mir_cli_yaml_write(readable, i > 0, &text) : MIR_E_NO_MEMORY;
        json_decref(readable);
        json_decref(each);
        if (status == MIR_OK) (void)fwrite(text.data, 1, text.size, stdout);
        mir_bytes_free(&text);
        if (status != MIR_OK) return mir_cli_fail("cannot write the output as yaml");
    }
    return MIR_EXIT_OK;
}

static int by_key(const void *left, const void *right)
{
    const MirApi__V1__Meta__LabelsEntry *a = *(MirApi__V1__Meta__LabelsEntry *const *)left;
    const MirApi__V1__Meta__LabelsEntry *b = *(MirApi__V1__Meta__LabelsEntry *const *)right;
    return strcmp(text_or_empty(a->key), text_or_empty(b->key));
}

static void labels_text(const MirApi__V1__Device *device, mir_bytes *out)
{
    size_t count = device->meta != NULL ? device->meta->n_labels : 0;
    if (count > 1) qsort(device->meta->labels, count, sizeof(*device->meta->labels), by_key);
    for (size_t i = 0; i < count; i++)
        mir_bytes_printf(out, "%s%s=%s", i > 0 ? "," : "",
                         text_or_empty(device->meta->labels[i]->key),
                         text_or_empty(device->meta->labels[i]->value));
    mir_bytes_u8(out, '\0');
}

static void packages_text(const MirApi__V1__Device *device, mir_bytes *out)
{
    const MirApi__V1__Schema *schema = device->status != NULL ? device->status->schema : NULL;
    for (size_t i = 0; schema != NULL && i < schema->n_package_names; i++)
        if (strncmp(schema->package_names[i], "google.", 7) != 0 &&
            strcmp(schema->package_names[i], "mir.device.v1") != 0)
            mir_bytes_printf(out, "%s%s", out->size > 0 ? "," : "", schema->package_names[i]);
    mir_bytes_u8(out, '\0');
}

static void add_row(mir_cli_table *table, const MirApi__V1__Device *device, bool wide,
                    int64_t now_ns)
{
    const MirApi__V1__DeviceStatus *status = device->status;
    bool online = status != NULL && status->has_online && status->online;
    bool disabled = device->spec != NULL && device->spec->has_disabled && device->spec->disabled;
    const MirApi__V1__Timestamp *seen = status != NULL ? status->last_hearthbeat : NULL;
    mir_cli_table_cellf(table, MIR_TONE_PLAIN, "%s/%s", mir_cli_devices_name(device),
                        mir_cli_devices_namespace(device));
    mir_cli_table_cell(table, MIR_TONE_PLAIN, mir_cli_devices_id(device));
    mir_cli_table_cell(table, online && !disabled ? MIR_TONE_GOOD : MIR_TONE_DIM,
                       disabled       ? "disabled"
                       : online       ? "online"
                       : seen != NULL ? "offline"
                                      : "new");
    char age[32] = "never";
    if (seen != NULL) mir_cli_when_age(mir_timestamp_ns(seen), now_ns, age, sizeof age);
    mir_cli_table_cell(table, MIR_TONE_PLAIN, age);
    mir_bytes text = {0};
    labels_text(device, &text);
    mir_cli_table_cell(table, MIR_TONE_PLAIN, mir_bytes_ok(&text) ? (const char *)text.data : "");
    if (wide) {
        char version[24] = "";
        if (status != NULL && status->has_version)
            (void)snprintf(version, sizeof version, "%" PRIu64, status->version);
        mir_cli_table_cell(table, MIR_TONE_PLAIN, version);
        text.size = 0;
        packages_text(device, &text);
        mir_cli_table_cell(table, MIR_TONE_PLAIN,
                           mir_bytes_ok(&text) ? (const char *)text.data : "");
    }
    mir_bytes_free(&text);
}

static int print_table(const mir_cli_devices *devices, bool wide)
{
    mir_cli_table *table = mir_cli_table_new();
    mir_cli_table_column(table, "DEVICE", NULL, MIR_TABLE_TEXT);
    mir_cli_table_column(table, "ID", NULL, MIR_TABLE_TEXT);
    mir_cli_table_column(table, "STATUS", NULL, MIR_TABLE_FIXED);
    mir_cli_table_column(table, "SEEN", NULL, MIR_TABLE_FIXED);
    mir_cli_table_column(table, "LABELS", NULL, MIR_TABLE_TEXT);
    if (wide) mir_cli_table_column(table, "VERSION", NULL, MIR_TABLE_NUMBER);
    if (wide) mir_cli_table_column(table, "SCHEMA", NULL, MIR_TABLE_TEXT);
    int64_t now_ns = mir_clock_wall_ns();
    for (size_t i = 0; i < devices->count; i++) add_row(table, devices->items[i], wide, now_ns);
    mir_status status =
        mir_cli_table_print(table, stdout, wide ? 0 : mir_cli_text_terminal_columns(stdout),
                            mir_cli_text_colours(stdout), NULL);
    mir_cli_table_free(table);
    return status == MIR_OK ? MIR_EXIT_OK : mir_cli_fail("no memory for the table");
}

static void print_line(const char *before, const MirApi__V1__Device *device, bool id)
{
    mir_cli_text_print_visible(stdout, before);
    mir_cli_text_print_visible(stdout, mir_cli_devices_name(device));
    (void)fputc('/', stdout);
    mir_cli_text_print_visible(stdout, mir_cli_devices_namespace(device));
    if (id) {
        (void)fputs(" (id ", stdout);
        mir_cli_text_print_visible(stdout, mir_cli_devices_id(device));
        (void)fputc(')', stdout);
    }
    (void)fputc('\n', stdout);
}

int mir_cli_devices_print(const mir_cli_devices *devices, const char *format)
{
    if (strcmp(format, "json") == 0) return print_json(devices);
    if (strcmp(format, "yaml") == 0) return print_yaml(devices);
    if (strcmp(format, "name") == 0) {
        for (size_t i = 0; i < devices->count; i++) print_line("", devices->items[i], false);
        return MIR_EXIT_OK;
    }
    if (devices->count == 0) return MIR_EXIT_OK;
    return print_table(devices, strcmp(format, "wide") == 0);
}

int mir_cli_devices_report(const mir_cli_devices *devices, const char *verb, const char *format)
{
    if (strcmp(format, "table") != 0) return mir_cli_devices_print(devices, format);
    char before[32];
    (void)snprintf(before, sizeof before, "%s ", verb);
    for (size_t i = 0; i < devices->count; i++) print_line(before, devices->items[i], true);
    return MIR_EXIT_OK;
}

/* Gives the devices of a page, as long as there is room. */
static void give_names(const MirApi__V1__DeviceList *page, const char *start, size_t *room,
                       mir_cli_connect_name_fn each, void *context)
{
    for (size_t i = 0; i<page->n_devices && * room> 0; i++) {
        char name[512];
        const MirApi__V1__Device *device = page->devices[i];
        (void)snprintf(name, sizeof name, "%s/%s", mir_cli_devices_name(device),
                       mir_cli_devices_namespace(device));
        if (strncmp(name, start, strlen(start)) != 0) continue;
        bool online = device->status != NULL && device->status->online;
        each(context, name, online ? "online" : "offline");
        (*room)--;
    }
}

void mir_cli_devices_each_name(const char *start, mir_cli_connect_name_fn each, void *context)
{
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    MirApi__V1__DeviceTarget everything = MIR_API__V1__DEVICE_TARGET__INIT;
    MirApi__V1__ListDeviceRequest request = MIR_API__V1__LIST_DEVICE_REQUEST__INIT;
    mir_error error = {0};
    char after[1024] = "";
    size_t room = COMPLETION_NAMES_MAX;
    int64_t until_ns = mir_clock_mono_ns() + COMPLETION_TIMEOUT_NS;
    bool more = mir_cli_connect_quietly(NULL, COMPLETION_TIMEOUT_NS, &session, &error) == MIR_OK;
    request.targets = &everything;
    request.has_without_schema = request.without_schema = 1;
    request.after = after;
    while (more) {
        MirApi__V1__DeviceList *page = NULL;
        const char *refusal = NULL;
        if (mir_cli_connect_try(&session, "core.v1alpha.list", &request.base,
                                &mir_api__v1__list_device_response__descriptor, NULL, &page,
                                &refusal, &error) != MIR_OK)
            break;
        give_names(page, start, &room, each, context);
        more = room > 0 && page->has_cut && page->cut && page->n_devices > 0 &&
               mir_clock_mono_ns() < until_ns;
        if (!more) break;
        const MirApi__V1__Device *last = page->devices[page->n_devices - 1];
        (void)snprintf(after, sizeof after, "%s/%s", mir_cli_devices_namespace(last),
                       mir_cli_devices_name(last));
    }
    mir_cli_connect_close(&session);
}
