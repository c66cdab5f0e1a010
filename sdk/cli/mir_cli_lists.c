/* SPDX-License-Identifier: Apache-2.0 */
/* mir command list, mir config list. */
#include "mir_cli_devices.h"
#include "mir_cli_message.h"
#include "mir_cli_table.h"
#include "mir_cli_text.h"
#include "mir_cli_when.h"
#include "mir_clock.h"
#include "mir_timestamp.h"

#include <stdlib.h>

enum { DEVICES_SINGLE_MAX = 20 }; /* with a row each, whatever they say */

static const char *format_of(const mir_cli_args *args)
{
    const char *format = mir_cli_value(args, MIR_OPT_OUTPUT);
    return format != NULL ? format : "table";
}

/* Every label of the wire begins with what it is; people type `site=north` for a tag. */
MIR_MUST_CHECK static mir_status read_filters(const mir_cli_args *args, mir_arena *arena,
                                              mir_cli_target_pair **filters, size_t *count,
                                              mir_error *error)
{
    mir_status status = mir_cli_target_pairs(args, MIR_OPT_FILTER, arena, filters, count, error);
    for (size_t i = 0; status == MIR_OK && i < *count; i++) {
        char *key = (*filters)[i].key;
        if (strncmp(key, "__", 2) == 0) continue;
        size_t size = strlen(key) + sizeof "__tag_";
        char *full = mir_arena_alloc(arena, size);
        if (full == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "no memory");
        (void)snprintf(full, size, "__tag_%s", key);
        (*filters)[i].key = full;
    }
    return status;
}

static int fetch(mir_cli *cli, const mir_cli_args *args, mir_cli_message_kind kind,
                 mir_cli_session *session, mir_cli_message_list *list)
{
    mir_cli_targets targets = {0};
    mir_cli_target_pair *filters = NULL;
    size_t filters_count = 0;
    mir_error error = {0};
    mir_status status = mir_cli_target_parse(args, &session->arena, &targets, &error);
    if (status == MIR_OK)
        status = read_filters(args, &session->arena, &filters, &filters_count, &error);
    if (status != MIR_OK) return mir_cli_usage(cli, "%s", error.text);
    int code = mir_cli_connect_open(cli, args, session);
    if (code != MIR_EXIT_OK) return code;
    return mir_cli_message_fetch(session, kind, &targets, filters, filters_count,
                                 mir_cli_flag(args, MIR_OPT_REFRESH), list);
}

int mir_cli_command_list(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    mir_cli_message_list list = {0};
    int code = fetch(cli, args, MIR_MESSAGE_COMMAND, &session, &list);
    if (code == MIR_EXIT_OK)
        code = mir_cli_message_print(MIR_MESSAGE_COMMAND, &list, format_of(args));
    mir_cli_message_free(&list);
    mir_cli_connect_close(&session);
    return code;
}

/* ── What is wanted and what is reported ─────────────────────────────────────────────────────── */

typedef MirApi__V1__DevicesConfigs__ConfigValues config_values;
typedef MirApi__V1__DevicesConfigs__ConfigState config_state;

static const char *value_of(const config_values *from, const char *name)
{
    for (size_t i = from->n_values; i > 0; i--)
        if (from->values[i - 1]->key != NULL && strcmp(from->values[i - 1]->key, name) == 0)
            return from->values[i - 1]->value != NULL ? from->values[i - 1]->value : "";
    return "";
}

static const config_state *state_of(const config_values *from, const char *name)
{
    for (size_t i = from->n_states; i > 0; i--)
        if (from->states[i - 1]->key != NULL && strcmp(from->states[i - 1]->key, name) == 0)
            return from->states[i - 1]->value;
    return NULL;
}

static bool is_set(const char *text)
{
    return text != NULL && text[0] != '\0';
}

/* "in sync", or since when it is not. */
static void state_text(const config_state *state, int64_t now_ns, char *text, size_t size)
{
    char age[32] = "";
    if (state->has_in_sync && state->in_sync) {
        (void)snprintf(text, size, "in sync");
        return;
    }
    if (state->differs_since != NULL)
        mir_cli_when_age(mir_timestamp_ns(state->differs_since), now_ns, age, sizeof age);
    char *ago = strstr(age, " ago");
    if (ago != NULL) *ago = '\0';
    (void)snprintf(text, size, "%s%s%s",
                   !is_set(state->desired)    ? "not set"
                   : !is_set(state->reported) ? "unreported"
                                              : "differs",
                   age[0] == '\0' ? ""
                   : ago != NULL  ? " for "
                                  : " from ",
                   age);
}

static void add_state(mir_cli_table *table, const config_state *state, int64_t now_ns)
{
    char text[64];
    bool synced = state->has_in_sync && state->in_sync;
    mir_cli_table_cell(table, MIR_TONE_PLAIN, is_set(state->desired) ? state->desired : "");
    if (is_set(state->reported) && synced)
        mir_cli_table_cell(table, MIR_TONE_DIM, "the same");
    else
        mir_cli_table_cell(table, MIR_TONE_PLAIN, is_set(state->reported) ? state->reported : "");
    state_text(state, now_ns, text, sizeof text);
    mir_cli_table_cell(table,
                       synced                   ? MIR_TONE_GOOD
                       : is_set(state->desired) ? MIR_TONE_BAD
                                                : MIR_TONE_DIM,
                       text);
}

static void device_text(const config_values *values, size_t others, char *text, size_t size)
{
    const MirApi__V1__DeviceIdPair *id = values->id;
    char more[40] = "";
    bool named = id != NULL && is_set(id->name);
    if (others > 0) (void)snprintf(more, sizeof more, " and %zu more", others);
    (void)snprintf(text, size, "%s%s%s%s",
                   named                                 ? id->name
                   : id != NULL && id->device_id != NULL ? id->device_id
                                                         : "",
                   named ? "/" : "", named && id->namespace_ != NULL ? id->namespace_ : "", more);
}

/* `others` is how many more devices the rows are of. */
static void add_device(mir_cli_table *table, const mir_cli_message_group *group,
                       const config_values *values, size_t others, bool states, int64_t now_ns)
{
    char device[512];
    device_text(values, others, device, sizeof device);
    for (size_t i = 0; i < group->messages_count; i++) {
        const mir_cli_message *each = &group->messages[i];
        const config_state *state = state_of(values, each->name);
        mir_cli_table_cell(table, MIR_TONE_PLAIN, i == 0 ? device : "");
        mir_cli_table_cell(table, MIR_TONE_STRONG, each->shown);
        if (states && state != NULL) {
            add_state(table, state, now_ns);
            continue;
        }
        mir_cli_table_cell(table, MIR_TONE_PLAIN, value_of(values, each->name));
        if (!states) continue;
        mir_cli_table_cell(table, MIR_TONE_PLAIN, "");
        mir_cli_table_cell(table, MIR_TONE_DIM, "");
    }
}

/* What the rows of a device say, but for its name. */
static char *rows_text(const mir_cli_message_group *group, const config_values *values,
                       int64_t now_ns)
{
    mir_bytes text = {0};
    for (size_t i = 0; i < group->messages_count; i++) {
        char state_of_it[64] = "";
        const config_state *state = state_of(values, group->messages[i].name);
        if (state != NULL) state_text(state, now_ns, state_of_it, sizeof state_of_it);
        mir_bytes_printf(
            &text, "%s\x1f%s\x1f%s\x1f%s\x1e", value_of(values, group->messages[i].name),
            state != NULL && state->desired != NULL ? state->desired : "",
            state != NULL && state->reported != NULL ? state->reported : "", state_of_it);
    }
    mir_bytes_u8(&text, '\0');
    if (mir_bytes_ok(&text)) return (char *)text.data;
    mir_bytes_free(&text);
    return NULL;
}

/* Devices whose rows say the same share them. */
static void add_alike(mir_cli_table *table, const mir_cli_message_group *group, bool states,
                      int64_t now_ns)
{
    json_t *counts = json_object();
    for (int round = 0; round < 2; round++)
        for (size_t i = 0; i < group->values_count; i++) {
            char *text = rows_text(group, group->values[i], now_ns);
            json_int_t count = text != NULL ? json_integer_value(json_object_get(counts, text)) : 0;
            if (text != NULL && round == 0)
                (void)json_object_set_new_nocheck(counts, text, json_integer(count + 1));
            if (round == 1 && (text == NULL || count > 0))
                add_device(table, group, group->values[i], count > 0 ? (size_t)count - 1 : 0,
                           states, now_ns);
            /* Shown: the others have nothing to add. */
            if (text != NULL && round == 1)
                (void)json_object_set_new_nocheck(counts, text, json_integer(0));
            free(text);
        }
    json_decref(counts);
}

static int print_values(const mir_cli_message_list *list, bool wide)
{
    int code = MIR_EXIT_OK;
    bool states = false;
    size_t devices_count = 0;
    for (size_t g = 0; g < list->count; g++) {
        devices_count += list->groups[g].values_count;
        for (size_t i = 0; i < list->groups[g].values_count; i++)
            states |= list->groups[g].values[i]->n_states > 0;
    }
    mir_cli_table *table = mir_cli_table_new();
    mir_cli_table_column(table, "DEVICE", NULL, MIR_TABLE_TEXT);
    mir_cli_table_column(table, "PROPERTY", NULL, MIR_TABLE_TEXT);
    mir_cli_table_column(table, states ? "DESIRED" : "VALUE", NULL, MIR_TABLE_TEXT);
    if (states) {
        mir_cli_table_column(table, "REPORTED", NULL, MIR_TABLE_TEXT);
        mir_cli_table_column(table, "STATE", NULL, MIR_TABLE_FIXED);
    }
    int64_t now_ns = mir_clock_wall_ns();
    for (size_t g = 0; g < list->count; g++) {
        const mir_cli_message_group *group = &list->groups[g];
        if (group->error != NULL) {
            mir_bytes devices = {0};
            mir_cli_message_devices(group, 4, &devices);
            code = mir_cli_fail("%s: %s", mir_bytes_ok(&devices) ? (const char *)devices.data : "",
                                group->error);
            mir_bytes_free(&devices);
            continue;
        }
        if (devices_count > DEVICES_SINGLE_MAX && !wide) {
            add_alike(table, group, states, now_ns);
            continue;
        }
        for (size_t i = 0; i < group->values_count; i++)
            add_device(table, group, group->values[i], 0, states, now_ns);
    }
    if (mir_cli_table_rows(table) == 0 && code == MIR_EXIT_OK)
        mir_cli_note("The devices have no configuration in their schema.");
    else if (mir_cli_table_rows(table) > 0 &&
             mir_cli_table_print(table, stdout, wide ? 0 : mir_cli_text_terminal_columns(stdout),
                                 mir_cli_text_colours(stdout), NULL) != MIR_OK)
        code = mir_cli_fail("no memory for the table");
    mir_cli_table_free(table);
    return code;
}

static void set_json(json_t *to, const char *key, const char *text)
{
    if (text != NULL && text[0] != '\0')
        (void)json_object_set_new(to, key, mir_cli_message_json(text, strlen(text)));
}

static void set_time(json_t *to, const char *key, const MirApi__V1__Timestamp *time)
{
    char text[MIR_CLOCK_TEXT_BYTES];
    if (time != NULL && mir_timestamp_format(time->seconds, time->nanos, text) > 0)
        (void)json_object_set_new(to, key, json_string(text));
}

static json_t *value_json(const config_values *from, const char *name)
{
    const config_state *state = state_of(from, name);
    json_t *out = json_object();
    set_json(out, "value", value_of(from, name));
    if (state == NULL) return out;
    set_json(out, "desired", state->desired);
    set_json(out, "reported", state->reported);
    set_time(out, "desiredAt", state->desired_at);
    set_time(out, "reportedAt", state->reported_at);
    (void)json_object_set_new(out, "inSync", json_boolean(state->has_in_sync && state->in_sync));
    set_time(out, "differsSince", state->differs_since);
    return out;
}

static void set_text(json_t *to, const char *key, const char *text)
{
    if (text != NULL && text[0] != '\0') (void)json_object_set_new(to, key, json_string(text));
}

/* A document for each device: its properties by name. */
static int print_json(const mir_cli_message_list *list, const char *format)
{
    json_t *all = json_array();
    for (size_t g = 0; g < list->count; g++) {
        const mir_cli_message_group *group = &list->groups[g];
        for (size_t i = 0; i < group->values_count; i++) {
            const config_values *values = group->values[i];
            json_t *device = json_object();
            json_t *properties = json_object();
            if (values->id != NULL) {
                set_text(device, "id", values->id->device_id);
                set_text(device, "name", values->id->name);
                set_text(device, "namespace", values->id->namespace_);
            }
            for (size_t m = 0; m < group->messages_count; m++) {
                const mir_cli_message *message = &group->messages[m];
                json_t *each = value_json(values, message->name);
                if (json_object_size(message->labels) > 0)
                    (void)json_object_set(each, "labels", message->labels);
                set_json(each, "template", message->template_text);
                set_text(each, "error", message->error);
                (void)json_object_set_new(properties, message->name, each);
            }
            json_t *made = json_object();
            (void)json_object_set_new(made, "device", device);
            (void)json_object_set_new(made, "properties", properties);
            set_text(made, "error", group->error != NULL ? group->error : values->error);
            (void)json_array_append_new(all, made);
        }
    }
    int code = mir_cli_devices_print_value(all, format);
    json_decref(all);
    return code;
}

int mir_cli_config_list(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    mir_cli_message_list list = {0};
    const char *format = format_of(args);
    int code = fetch(cli, args, MIR_MESSAGE_CONFIG, &session, &list);
    if (code == MIR_EXIT_OK) {
        if (strcmp(format, "name") == 0)
            code = mir_cli_message_print(MIR_MESSAGE_CONFIG, &list, format);
        else if (strcmp(format, "json") == 0 || strcmp(format, "yaml") == 0)
            code = print_json(&list, format);
        else
            code = print_values(&list, strcmp(format, "wide") == 0);
    }
    mir_cli_message_free(&list);
    mir_cli_connect_close(&session);
    return code;
}
