/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_result.h"

#include "mir_cli_devices.h"
#include "mir_cli_message.h"
#include "mir_cli_text.h"
#include "mir_cli_yaml.h"
#include "mir_device_json.h"

#include <stdlib.h>

bool mir_cli_result_add(mir_cli_results *to, const mir_cli_result *result)
{
    if (to->count == to->capacity) {
        size_t want = to->capacity == 0 ? 64 : to->capacity * 2;
        mir_cli_result *grown = reallocarray(to->items, want, sizeof *grown);
        if (grown == NULL) return false;
        to->items = grown;
        to->capacity = want;
    }
    to->items[to->count++] = *result;
    return true;
}

void mir_cli_result_free(mir_cli_results *results)
{
    free(results->items);
    json_decref(results->shown);
    *results = (mir_cli_results){0};
}

static json_t *to_json(const mir_cli_result *from)
{
    json_t *out = json_object();
    (void)json_object_set_new(out, "device", json_string(from->device));
    (void)json_object_set_new(out, "deviceId", json_string(from->device_id));
    (void)json_object_set_new(out, "status", json_string(from->status));
    if (from->name[0] != '\0') (void)json_object_set_new(out, "name", json_string(from->name));
    if (from->payload.size > 0)
        (void)json_object_set_new(
            out, "payload",
            mir_cli_message_json((const char *)from->payload.data, from->payload.size));
    if (from->error[0] != '\0') (void)json_object_set_new(out, "error", json_string(from->error));
    if (from->command_id[0] != '\0')
        (void)json_object_set_new(out, "commandId", json_string(from->command_id));
    if (from->has_version)
        (void)json_object_set_new(out, "version", json_integer((json_int_t)from->version));
    return out;
}

/* The last column: what came back, what went wrong, or what it waits as. */
static void outcome_text(const mir_cli_result *from, mir_bytes *out)
{
    if (from->error[0] != '\0')
        mir_bytes_text(out, from->error);
    else if (from->command_id[0] != '\0' && from->payload.size == 0)
        mir_bytes_printf(out, "id %s", from->command_id);
    else
        mir_bytes_view(out, from->payload);
    /* One line each. */
    for (size_t i = 0; i < out->size; i++)
        if (out->data[i] == '\n' || out->data[i] == '\r' || out->data[i] == '\t')
            out->data[i] = ' ';
    mir_bytes_u8(out, '\0');
}

void mir_cli_result_stream(mir_cli_results *results, const mir_cli_result *result,
                           const char *format)
{
    mir_bytes text = {0};
    if (results->shown == NULL) results->shown = json_object();
    if (json_object_get(results->shown, result->device) != NULL) return;
    (void)json_object_set_new(results->shown, result->device, json_true());
    if (strcmp(format, "json") == 0 || strcmp(format, "yaml") == 0) {
        json_t *value = to_json(result);
        if (format[0] == 'j') {
            mir_json_write(value, MIR_JSON_COMPACT, &text);
            mir_bytes_u8(&text, '\n');
        } else if (mir_cli_yaml_write(value, true, &text) != MIR_OK) {
            text.size = 0;
        }
        json_decref(value);
        if (mir_bytes_ok(&text)) (void)fwrite(text.data, 1, text.size, stdout);
    } else {
        bool colours = mir_cli_text_colours(stdout);
        size_t columns = mir_cli_text_terminal_columns(stdout);
        mir_bytes line = {0};
        outcome_text(result, &text);
        (void)printf("%s%-9s%s ", mir_cli_table_tone_on(result->tone, colours), result->status,
                     mir_cli_table_tone_off(result->tone, colours));
        mir_bytes_printf(&line, "%-24s  %s%s%s", result->device, result->name,
                         result->name[0] != '\0' ? " " : "",
                         mir_bytes_ok(&text) ? (const char *)text.data : "");
        mir_bytes_u8(&line, '\0');
        text.size = 0;
        bool wide = columns == 0 || strcmp(format, "wide") == 0;
        const char *shown = mir_bytes_ok(&line) ? (const char *)line.data : result->device;
        size_t room = wide ? mir_cli_text_columns(shown) : columns > 10 ? columns - 10 : 1;
        (void)mir_cli_text_fit(&text, shown, room);
        while (text.size > 0 && text.data[text.size - 1] == ' ') text.size--;
        mir_bytes_u8(&text, '\n');
        if (mir_bytes_ok(&text)) (void)fwrite(text.data, 1, text.size, stdout);
        mir_bytes_free(&line);
    }
    (void)fflush(stdout);
    mir_bytes_free(&text);
}

/* The device is NAME/NAMESPACE. */
static int by_device(const void *left, const void *right)
{
    const mir_cli_result *a = left, *b = right;
    const char *a_slash = strrchr(a->device, '/');
    const char *b_slash = strrchr(b->device, '/');
    int order = strcmp(a_slash != NULL ? a_slash : "", b_slash != NULL ? b_slash : "");
    return order != 0 ? order : strcmp(a->device, b->device);
}

void mir_cli_result_sort(mir_cli_results *results)
{
    if (results->count > 1)
        qsort(results->items, results->count, sizeof *results->items, by_device);
}

static int print_table(const mir_cli_results *results, const char *name_title, bool wide)
{
    bool names = false;
    for (size_t i = 0; i < results->count; i++) names |= results->items[i].name[0] != '\0';
    mir_cli_table *table = mir_cli_table_new();
    mir_cli_table_column(table, "DEVICE", NULL, MIR_TABLE_TEXT);
    mir_cli_table_column(table, "STATUS", NULL, MIR_TABLE_FIXED);
    if (names) mir_cli_table_column(table, name_title, NULL, MIR_TABLE_TEXT);
    mir_cli_table_column(table, "RESULT", NULL, MIR_TABLE_TEXT);
    for (size_t i = 0; i < results->count; i++) {
        const mir_cli_result *each = &results->items[i];
        mir_bytes text = {0};
        outcome_text(each, &text);
        mir_cli_table_cell(table, MIR_TONE_PLAIN, each->device);
        mir_cli_table_cell(table, each->tone, each->status);
        if (names) mir_cli_table_cell(table, MIR_TONE_PLAIN, each->name);
        mir_cli_table_cell(table, each->error[0] != '\0' ? MIR_TONE_BAD : MIR_TONE_PLAIN,
                           mir_bytes_ok(&text) ? (const char *)text.data : "");
        mir_bytes_free(&text);
    }
    mir_status status =
        mir_cli_table_print(table, stdout, wide ? 0 : mir_cli_text_terminal_columns(stdout),
                            mir_cli_text_colours(stdout), NULL);
    mir_cli_table_free(table);
    return status == MIR_OK ? MIR_EXIT_OK : mir_cli_fail("no memory for the table");
}

int mir_cli_result_print(mir_cli_results *results, const char *name_title, const char *format)
{
    mir_cli_result_sort(results);
    if (strcmp(format, "json") != 0 && strcmp(format, "yaml") != 0)
        return print_table(results, name_title, strcmp(format, "wide") == 0);
    json_t *all = json_array();
    for (size_t i = 0; i < results->count; i++)
        (void)json_array_append_new(all, to_json(&results->items[i]));
    int code = mir_cli_devices_print_value(all, format);
    json_decref(all);
    return code;
}

const mir_cli_result *mir_cli_result_first_error(const mir_cli_results *results)
{
    for (size_t i = 0; i < results->count; i++)
        if (results->items[i].failed) return &results->items[i];
    return NULL;
}

/* An error that the table had to cut is said in full, once for those that share it. */
static void explain(const mir_cli_results *results, size_t failed)
{
    const mir_cli_result *first = mir_cli_result_first_error(results);
    size_t same = 0;
    for (size_t i = 0; i < results->count; i++)
        same += results->items[i].failed && strcmp(results->items[i].error, first->error) == 0;
    if (same == failed)
        mir_cli_note("%s", first->error);
    else
        mir_cli_note("%s: %s", first->device, first->error);
}

/* Whether one device that cannot have it kept it from all: those that can were only checked. */
static bool nothing_sent(const mir_cli_results *results, size_t failed)
{
    size_t checked = 0;
    for (size_t i = 0; i < results->count; i++)
        checked += strcmp(results->items[i].status, "validated") == 0 ||
                   strcmp(results->items[i].status, "pending") == 0;
    return failed > 0 && checked > 0 && checked + failed == results->count;
}

int mir_cli_result_conclude(const mir_cli_results *results, const char *format, bool sends)
{
    size_t failed = 0;
    for (size_t i = 0; i < results->count; i++) failed += results->items[i].failed;
    bool table = strcmp(format, "table") == 0;
    if (failed > 0 && table && mir_cli_text_terminal_columns(stdout) > 0) explain(results, failed);
    if (results->count > 1) {
        if (failed > 0)
            mir_cli_note("%zu of %zu devices failed.", failed, results->count);
        else if (table)
            mir_cli_note("%zu devices.", results->count);
    }
    if (sends && nothing_sent(results, failed))
        mir_cli_note("Nothing was sent. --force-push sends to the devices that can have it.");
    return failed > 0 ? MIR_EXIT_FAILED : MIR_EXIT_OK;
}
