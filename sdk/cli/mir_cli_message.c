/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_message.h"

#include "mir_cli_devices.h"
#include "mir_cli_table.h"
#include "mir_cli_text.h"
#include "mir_clock.h"

#include <ctype.h>
#include <stdlib.h>

#define COMPLETION_TIMEOUT_NS (700 * MIR_NS_PER_MS)
enum { DEVICES_SHOWN_MAX = 4, CANDIDATES_SHOWN_MAX = 20 };

static const char tag_prefix[] = "__tag_";
static const char unit_prefix[] = "__unit_";

static const char *noun(mir_cli_message_kind kind)
{
    return kind == MIR_MESSAGE_COMMAND ? "command" : "config";
}

json_t *mir_cli_message_json(const char *text, size_t size)
{
    if (size == 0) return json_null();
    json_t *value = json_loadb(text, size, JSON_DECODE_ANY, NULL);
    return value != NULL ? value : json_stringn(text, size);
}

/* `name{a=b, c=d}` with the tags of the message and of its fields, sorted. */
static const char *shown_name(mir_arena *arena, const char *name, const json_t *labels)
{
    mir_bytes text = {0};
    const char *result = name;
    bool any = false;
    json_t *sorted = json_object();
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)labels, key, value)
    {
        if (strncmp(key, tag_prefix, sizeof tag_prefix - 1) == 0)
            (void)json_object_set(sorted, key + sizeof tag_prefix - 1, value);
    }
    char *dump = json_dumps(sorted, JSON_SORT_KEYS | JSON_COMPACT);
    json_decref(sorted);
    sorted = dump != NULL ? json_loads(dump, 0, NULL) : NULL; /* keeps the order of the text */
    free(dump);
    mir_bytes_printf(&text, "%s", name);
    json_object_foreach(sorted, key, value)
    {
        mir_bytes_printf(&text, "%s%s=%s", any ? ", " : "{", key, json_string_value(value));
        any = true;
    }
    if (any) mir_bytes_u8(&text, '}');
    json_decref(sorted);
    if (any && mir_bytes_ok(&text)) {
        const char *copy = mir_arena_strdup(arena, mir_bytes_as_view(&text));
        if (copy != NULL) result = copy;
    }
    mir_bytes_free(&text);
    return result;
}

typedef struct descriptor {
    const char *name;
    const char *template_text;
    const char *error;
    json_t *labels;
} descriptor;

static mir_cli_message make_message(mir_cli_session *session, mir_cli_message_list *list,
                                    const descriptor *from)
{
    mir_cli_message out = {
        .name = from->name != NULL ? from->name : "",
        .template_text = from->template_text != NULL ? from->template_text : "",
        .error = from->error != NULL && from->error[0] != '\0' ? from->error : NULL,
        .labels = from->labels,
    };
    out.shown = shown_name(&session->arena, out.name, out.labels);
    (void)json_array_append_new(list->labels, out.labels);
    return out;
}

static void set_label(json_t *labels, const char *key, const char *value)
{
    if (key != NULL)
        (void)json_object_set_new(labels, key, json_string(value != NULL ? value : ""));
}

static int no_memory(void)
{
    return mir_cli_fail("no memory for the answer");
}

static int add_commands(mir_cli_session *session, const MirApi__V1__CommandsResponse *answer,
                        mir_cli_message_list *list)
{
    for (size_t g = 0; g < answer->n_devices_commands; g++) {
        const MirApi__V1__DevicesCommands *from = answer->devices_commands[g];
        mir_cli_message_group *to = &list->groups[list->count++];
        to->ids = from->ids;
        to->ids_count = from->n_ids;
        to->error = from->error != NULL && from->error[0] != '\0' ? from->error : NULL;
        to->messages =
            mir_arena_alloc(&session->arena, (from->n_cmd_descriptors + 1) * sizeof *to->messages);
        if (to->messages == NULL) return no_memory();
        for (size_t i = 0; i < from->n_cmd_descriptors; i++) {
            const MirApi__V1__CommandDescriptor *each = from->cmd_descriptors[i];
            descriptor made = {each->name, each->template_, each->error, json_object()};
            for (size_t l = 0; l < each->n_labels; l++)
                set_label(made.labels, each->labels[l]->key, each->labels[l]->value);
            to->messages[to->messages_count++] = make_message(session, list, &made);
        }
    }
    return MIR_EXIT_OK;
}

static int add_configs(mir_cli_session *session, const MirApi__V1__ConfigsResponse *answer,
                       mir_cli_message_list *list)
{
    for (size_t g = 0; g < answer->n_device_configs; g++) {
        const MirApi__V1__DevicesConfigs *from = answer->device_configs[g];
        mir_cli_message_group *to = &list->groups[list->count++];
        to->values = from->cfg_values;
        to->values_count = from->n_cfg_values;
        to->error = from->error != NULL && from->error[0] != '\0' ? from->error : NULL;
        to->ids = mir_arena_alloc(&session->arena, (from->n_cfg_values + 1) * sizeof *to->ids);
        to->messages =
            mir_arena_alloc(&session->arena, (from->n_cfg_descriptors + 1) * sizeof *to->messages);
        if (to->ids == NULL || to->messages == NULL) return no_memory();
        for (size_t i = 0; i < from->n_cfg_values; i++)
            if (from->cfg_values[i]->id != NULL) to->ids[to->ids_count++] = from->cfg_values[i]->id;
        for (size_t i = 0; i < from->n_cfg_descriptors; i++) {
            const MirApi__V1__ConfigDescriptor *each = from->cfg_descriptors[i];
            descriptor made = {each->name, each->template_, each->error, json_object()};
            for (size_t l = 0; l < each->n_labels; l++)
                set_label(made.labels, each->labels[l]->key, each->labels[l]->value);
            to->messages[to->messages_count++] = make_message(session, list, &made);
        }
    }
    return MIR_EXIT_OK;
}

/* Room for `more` groups behind those that are there. */
static bool grow(mir_cli_session *session, mir_cli_message_list *list, size_t more)
{
    mir_cli_message_group *groups =
        mir_arena_alloc(&session->arena, (list->count + more + 1) * sizeof *groups);
    if (groups == NULL) return false;
    if (list->count > 0) memcpy(groups, list->groups, list->count * sizeof *groups);
    list->groups = groups;
    return true;
}

static int fetch_commands(mir_cli_session *session, MirApi__V1__DeviceTarget *target,
                          const mir_cli_target_pair *filters, size_t filters_count, bool refresh,
                          mir_cli_message_list *list)
{
    MirApi__V1__SendListCommandsRequest request = MIR_API__V1__SEND_LIST_COMMANDS_REQUEST__INIT;
    MirApi__V1__CommandsResponse *answer = NULL;
    request.targets = target;
    request.has_refresh_schema = request.refresh_schema = refresh;
    request.filter_labels =
        mir_arena_alloc(&session->arena, (filters_count + 1) * sizeof(*request.filter_labels));
    MirApi__V1__SendListCommandsRequest__FilterLabelsEntry *entries =
        mir_arena_alloc(&session->arena, (filters_count + 1) * sizeof *entries);
    if (request.filter_labels == NULL || entries == NULL) return no_memory();
    for (size_t i = 0; i < filters_count; i++) {
        mir_api__v1__send_list_commands_request__filter_labels_entry__init(&entries[i]);
        entries[i].key = filters[i].key;
        entries[i].value = filters[i].value;
        request.filter_labels[request.n_filter_labels++] = &entries[i];
    }
    int code = mir_cli_connect_ask(session, "cmd.v1alpha.list", &request.base,
                                   &mir_api__v1__send_list_commands_response__descriptor, &answer);
    if (code != MIR_EXIT_OK) return code;
    return grow(session, list, answer->n_devices_commands) ? add_commands(session, answer, list)
                                                           : no_memory();
}

static int fetch_configs(mir_cli_session *session, MirApi__V1__DeviceTarget *target,
                         const mir_cli_target_pair *filters, size_t filters_count, bool refresh,
                         mir_cli_message_list *list)
{
    MirApi__V1__SendListConfigRequest request = MIR_API__V1__SEND_LIST_CONFIG_REQUEST__INIT;
    MirApi__V1__ConfigsResponse *answer = NULL;
    request.targets = target;
    request.has_refresh_schema = request.refresh_schema = refresh;
    request.filter_labels =
        mir_arena_alloc(&session->arena, (filters_count + 1) * sizeof(*request.filter_labels));
    MirApi__V1__SendListConfigRequest__FilterLabelsEntry *entries =
        mir_arena_alloc(&session->arena, (filters_count + 1) * sizeof *entries);
    if (request.filter_labels == NULL || entries == NULL) return no_memory();
    for (size_t i = 0; i < filters_count; i++) {
        mir_api__v1__send_list_config_request__filter_labels_entry__init(&entries[i]);
        entries[i].key = filters[i].key;
        entries[i].value = filters[i].value;
        request.filter_labels[request.n_filter_labels++] = &entries[i];
    }
    int code = mir_cli_connect_ask(session, "cfg.v1alpha.list", &request.base,
                                   &mir_api__v1__send_list_config_response__descriptor, &answer);
    if (code != MIR_EXIT_OK) return code;
    return grow(session, list, answer->n_device_configs) ? add_configs(session, answer, list)
                                                         : no_memory();
}

int mir_cli_message_fetch(mir_cli_session *session, mir_cli_message_kind kind,
                          const mir_cli_targets *targets, const mir_cli_target_pair *filters,
                          size_t filters_count, bool refresh, mir_cli_message_list *list)
{
    if (list->labels == NULL) list->labels = json_array();
    int code = MIR_EXIT_OK;
    for (size_t i = 0; code == MIR_EXIT_OK && i < targets->count; i++)
        code =
            kind == MIR_MESSAGE_COMMAND
                ? fetch_commands(session, targets->items[i], filters, filters_count, refresh, list)
                : fetch_configs(session, targets->items[i], filters, filters_count, refresh, list);
    return code;
}

void mir_cli_message_free(mir_cli_message_list *list)
{
    json_decref(list->labels);
    *list = (mir_cli_message_list){0};
}

bool mir_cli_message_is_short(const char *typed)
{
    size_t size = strcspn(typed, "{");
    return memchr(typed, '.', size) == NULL;
}

/* Whether the last part of a full name is what was typed, ignoring case and `_`. */
static bool is_meant(const char *name, const char *typed)
{
    const char *dot = strrchr(name, '.');
    const char *at = dot != NULL ? dot + 1 : name;
    for (;;) {
        while (*at == '_') at++;
        while (*typed == '_') typed++;
        bool end = *typed == '\0' || *typed == '{';
        if (end || *at == '\0') return end && *at == '\0';
        if (tolower((unsigned char)*at++) != tolower((unsigned char)*typed++)) return false;
    }
}

static int by_text(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* The distinct names in the list, sorted; to be freed. */
static const char **all_names(const mir_cli_message_list *list, size_t *count)
{
    size_t room = 1;
    for (size_t g = 0; g < list->count; g++) room += list->groups[g].messages_count;
    const char **names = calloc(room, sizeof *names);
    *count = 0;
    if (names == NULL) return NULL;
    size_t used = 0;
    for (size_t g = 0; g < list->count; g++)
        for (size_t i = 0; i < list->groups[g].messages_count; i++)
            names[used++] = list->groups[g].messages[i].name;
    qsort(names, used, sizeof *names, by_text);
    for (size_t i = 0; i < used; i++)
        if (*count == 0 || strcmp(names[*count - 1], names[i]) != 0) names[(*count)++] = names[i];
    return names;
}

static void add_names(mir_cli_message_kind kind, mir_bytes *text, const char *const *names,
                      size_t count)
{
    for (size_t i = 0; i < count && i < CANDIDATES_SHOWN_MAX; i++)
        mir_bytes_printf(text, "\n  %s", names[i]);
    if (count > CANDIDATES_SHOWN_MAX)
        mir_bytes_printf(text, "\n  and %zu more; `mir %s list` shows all",
                         count - CANDIDATES_SHOWN_MAX, noun(kind));
    mir_bytes_u8(text, '\0');
}

/* What to say when no message has that name. */
static int none_meant(mir_cli_message_kind kind, const mir_cli_message_list *list,
                      const char *typed, const char *const *names, size_t count)
{
    mir_bytes text = {0};
    const char *problem = NULL;
    for (size_t g = 0; g < list->count && problem == NULL; g++) problem = list->groups[g].error;
    add_names(kind, &text, names, count);
    const char *known = mir_bytes_ok(&text) ? (const char *)text.data : "";
    int code;
    if (count == 0 && problem != NULL)
        code = mir_cli_fail("what '%s' means is not known: %s", typed, problem);
    else if (count == 0)
        code = mir_cli_fail("the devices have no %s in their schema, so no '%s' either", noun(kind),
                            typed);
    else
        code = mir_cli_fail("the devices have no %s '%s'; they have:%s", noun(kind), typed, known);
    if (count > 0 && problem != NULL) mir_cli_note("Of some devices it is not known: %s", problem);
    mir_bytes_free(&text);
    return code;
}

int mir_cli_message_resolve(mir_cli_message_kind kind, const mir_cli_message_list *list,
                            const char *typed, const char **name)
{
    size_t count = 0;
    size_t meant = 0;
    const char **names = all_names(list, &count);
    if (names == NULL) return no_memory();
    /* Those that are meant move to the front. */
    for (size_t i = 0; i < count; i++) {
        if (!is_meant(names[i], typed)) continue;
        const char *found = names[i];
        memmove(names + meant + 1, names + meant, (i - meant) * sizeof *names);
        names[meant++] = found;
    }
    int code = MIR_EXIT_OK;
    if (meant == 1) {
        *name = names[0];
    } else if (meant == 0) {
        code = none_meant(kind, list, typed, names, count);
    } else {
        mir_bytes text = {0};
        add_names(kind, &text, names, meant);
        code = mir_cli_fail("'%s' may mean more than one %s; give the full name:%s", typed,
                            noun(kind), mir_bytes_ok(&text) ? (const char *)text.data : "");
        mir_bytes_free(&text);
    }
    free(names);
    return code;
}

void mir_cli_message_devices(const mir_cli_message_group *group, size_t shown_max, mir_bytes *out)
{
    for (size_t i = 0; i < group->ids_count && i < shown_max; i++) {
        const MirApi__V1__DeviceIdPair *id = group->ids[i];
        bool named = id->name != NULL && id->name[0] != '\0';
        mir_bytes_printf(out, "%s%s%s%s", i > 0 ? ", " : "",
                         named                   ? id->name
                         : id->device_id != NULL ? id->device_id
                                                 : "",
                         named ? "/" : "", named && id->namespace_ != NULL ? id->namespace_ : "");
    }
    if (group->ids_count > shown_max)
        mir_bytes_printf(out, " and %zu more", group->ids_count - shown_max);
    mir_bytes_u8(out, '\0');
}

static void print_title(const mir_cli_message_group *group, bool first)
{
    mir_bytes text = {0};
    bool colours = mir_cli_text_colours(stdout);
    mir_cli_message_devices(group, DEVICES_SHOWN_MAX, &text);
    if (!first) (void)fputc('\n', stdout);
    (void)fputs(colours ? "\033[1m" : "", stdout);
    if (mir_bytes_ok(&text)) mir_cli_text_print_visible(stdout, (const char *)text.data);
    (void)fputs(colours ? "\033[0m\n" : "\n", stdout);
    mir_bytes_free(&text);
}

/* "after: ms, rate: l/s" */
static void units_text(const json_t *labels, mir_bytes *out)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)labels, key, value)
    {
        if (strncmp(key, unit_prefix, sizeof unit_prefix - 1) == 0)
            mir_bytes_printf(out, "%s%s: %s", out->size > 0 ? ", " : "",
                             key + sizeof unit_prefix - 1, json_string_value(value));
    }
    mir_bytes_u8(out, '\0');
}

static int print_group(mir_cli_message_kind kind, const mir_cli_message_group *group, bool wide)
{
    mir_cli_table *table = mir_cli_table_new();
    bool units = false;
    for (size_t i = 0; i < group->messages_count; i++) {
        const char *key;
        json_t *value;
        json_object_foreach(group->messages[i].labels, key, value)
        {
            units |= strncmp(key, unit_prefix, sizeof unit_prefix - 1) == 0;
        }
    }
    mir_cli_table_column(table, kind == MIR_MESSAGE_COMMAND ? "COMMAND" : "PROPERTY", NULL,
                         MIR_TABLE_TEXT);
    mir_cli_table_column(table, "TEMPLATE", NULL, MIR_TABLE_TEXT);
    if (units) mir_cli_table_column(table, "UNITS", NULL, MIR_TABLE_TEXT);
    for (size_t i = 0; i < group->messages_count; i++) {
        const mir_cli_message *each = &group->messages[i];
        mir_cli_table_cell(table, MIR_TONE_STRONG, each->shown);
        mir_cli_table_cell(table, each->error != NULL ? MIR_TONE_BAD : MIR_TONE_PLAIN,
                           each->error != NULL ? each->error : each->template_text);
        if (!units) continue;
        mir_bytes text = {0};
        units_text(each->labels, &text);
        mir_cli_table_cell(table, MIR_TONE_DIM, mir_bytes_ok(&text) ? (const char *)text.data : "");
        mir_bytes_free(&text);
    }
    mir_status status =
        mir_cli_table_print(table, stdout, wide ? 0 : mir_cli_text_terminal_columns(stdout),
                            mir_cli_text_colours(stdout), NULL);
    mir_cli_table_free(table);
    return status == MIR_OK ? MIR_EXIT_OK : mir_cli_fail("no memory for the table");
}

static void set_text(json_t *to, const char *key, const char *text)
{
    if (text != NULL && text[0] != '\0') (void)json_object_set_new(to, key, json_string(text));
}

static json_t *list_json(mir_cli_message_kind kind, const mir_cli_message_list *list)
{
    json_t *out = json_array();
    for (size_t g = 0; g < list->count; g++) {
        const mir_cli_message_group *group = &list->groups[g];
        json_t *devices = json_array();
        json_t *messages = json_array();
        for (size_t i = 0; i < group->ids_count; i++) {
            json_t *id = json_object();
            set_text(id, "id", group->ids[i]->device_id);
            set_text(id, "name", group->ids[i]->name);
            set_text(id, "namespace", group->ids[i]->namespace_);
            (void)json_array_append_new(devices, id);
        }
        for (size_t i = 0; i < group->messages_count; i++) {
            const mir_cli_message *from = &group->messages[i];
            json_t *each = json_object();
            (void)json_object_set_new(each, "name", json_string(from->name));
            (void)json_object_set(each, "labels", from->labels);
            (void)json_object_set_new(
                each, "template",
                mir_cli_message_json(from->template_text, strlen(from->template_text)));
            set_text(each, "error", from->error);
            (void)json_array_append_new(messages, each);
        }
        json_t *made = json_object();
        (void)json_object_set_new(made, "devices", devices);
        (void)json_object_set_new(made, kind == MIR_MESSAGE_COMMAND ? "commands" : "properties",
                                  messages);
        set_text(made, "error", group->error);
        (void)json_array_append_new(out, made);
    }
    return out;
}

int mir_cli_message_print(mir_cli_message_kind kind, const mir_cli_message_list *list,
                          const char *format)
{
    int code = MIR_EXIT_OK;
    if (strcmp(format, "json") == 0 || strcmp(format, "yaml") == 0) {
        json_t *value = list_json(kind, list);
        code = mir_cli_devices_print_value(value, format);
        json_decref(value);
        return code;
    }
    if (strcmp(format, "name") == 0) {
        size_t count = 0;
        const char **names = all_names(list, &count);
        for (size_t i = 0; names != NULL && i < count; i++) {
            mir_cli_text_print_visible(stdout, names[i]);
            (void)fputc('\n', stdout);
        }
        free(names);
        return names != NULL ? MIR_EXIT_OK : no_memory();
    }
    for (size_t g = 0; g < list->count; g++) {
        const mir_cli_message_group *group = &list->groups[g];
        print_title(group, g == 0);
        if (group->error != NULL)
            code = mir_cli_fail("%s", group->error);
        else if (group->messages_count == 0)
            (void)printf("no %s\n", kind == MIR_MESSAGE_COMMAND ? "commands" : "configuration");
        else if (print_group(kind, group, strcmp(format, "wide") == 0) != MIR_EXIT_OK)
            code = MIR_EXIT_FAILED;
    }
    return code;
}

void mir_cli_message_each_name(mir_cli_message_kind kind, mir_cli_connect_name_fn each,
                               void *context)
{
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    mir_cli_message_list list = {.labels = json_array()};
    const char *refusal = NULL;
    mir_error error;
    MirApi__V1__SendListCommandsRequest commands = MIR_API__V1__SEND_LIST_COMMANDS_REQUEST__INIT;
    MirApi__V1__SendListConfigRequest configs = MIR_API__V1__SEND_LIST_CONFIG_REQUEST__INIT;
    MirApi__V1__CommandsResponse *of_commands = NULL;
    MirApi__V1__ConfigsResponse *of_configs = NULL;
    int code = MIR_EXIT_FAILED;
    if (mir_cli_connect_quietly(NULL, COMPLETION_TIMEOUT_NS, &session, &error) != MIR_OK) {
        /* nothing to offer */
    } else if (kind == MIR_MESSAGE_COMMAND) {
        if (mir_cli_connect_try(&session, "cmd.v1alpha.list", &commands.base,
                                &mir_api__v1__send_list_commands_response__descriptor, NULL,
                                &of_commands, &refusal, &error) == MIR_OK &&
            grow(&session, &list, of_commands->n_devices_commands))
            code = add_commands(&session, of_commands, &list);
    } else if (mir_cli_connect_try(&session, "cfg.v1alpha.list", &configs.base,
                                   &mir_api__v1__send_list_config_response__descriptor, NULL,
                                   &of_configs, &refusal, &error) == MIR_OK &&
               grow(&session, &list, of_configs->n_device_configs)) {
        code = add_configs(&session, of_configs, &list);
    }
    size_t count = 0;
    const char **names = code == MIR_EXIT_OK ? all_names(&list, &count) : NULL;
    for (size_t i = 0; i < count; i++) each(context, names[i], "");
    free(names);
    mir_cli_message_free(&list);
    mir_cli_connect_close(&session);
}
