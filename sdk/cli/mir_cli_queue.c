/* SPDX-License-Identifier: Apache-2.0 */
/* mir command queue list, show, cancel: commands that wait for their device. */
#include "mir_cli_devices.h"
#include "mir_cli_message.h"
#include "mir_cli_table.h"
#include "mir_cli_text.h"
#include "mir_cli_when.h"
#include "mir_clock.h"
#include "mir_timestamp.h"

enum { LIMIT_MAX = 1000000 };

static const char *const state_names[] = {"unknown", "queued",  "sent",     "done",
                                          "failed",  "expired", "cancelled"};
enum { STATES = sizeof state_names / sizeof state_names[0] };

static const char *state_name(int state)
{
    return state > 0 && state < STATES ? state_names[state] : state_names[0];
}

static mir_cli_table_tone state_tone(int state)
{
    switch (state) {
    case MIR_API__V1__QUEUED_COMMAND_STATE__QUEUED_COMMAND_STATE_DONE: return MIR_TONE_GOOD;
    case MIR_API__V1__QUEUED_COMMAND_STATE__QUEUED_COMMAND_STATE_FAILED:
    case MIR_API__V1__QUEUED_COMMAND_STATE__QUEUED_COMMAND_STATE_EXPIRED: return MIR_TONE_BAD;
    case MIR_API__V1__QUEUED_COMMAND_STATE__QUEUED_COMMAND_STATE_CANCELLED: return MIR_TONE_DIM;
    default: return MIR_TONE_PLAIN;
    }
}

static const char *format_of(const mir_cli_args *args, const char *usual)
{
    const char *format = mir_cli_value(args, MIR_OPT_OUTPUT);
    return format != NULL ? format : usual;
}

static const char *or_empty(const char *text)
{
    return text != NULL ? text : "";
}

static void set_text(json_t *to, const char *key, const char *text)
{
    if (text != NULL && text[0] != '\0') (void)json_object_set_new(to, key, json_string(text));
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

static void device_text(const MirApi__V1__DeviceIdPair *id, char *text, size_t size)
{
    bool named = id != NULL && id->name != NULL && id->name[0] != '\0';
    (void)snprintf(text, size, "%s%s%s",
                   named        ? id->name
                   : id != NULL ? or_empty(id->device_id)
                                : "",
                   named ? "/" : "", named ? or_empty(id->namespace_) : "");
}

static json_t *to_json(const MirApi__V1__QueuedCommand *from)
{
    char device[512];
    json_t *out = json_object();
    json_t *steps = json_array();
    device_text(from->device, device, sizeof device);
    set_text(out, "id", from->id);
    set_text(out, "device", device);
    if (from->device != NULL) set_text(out, "deviceId", from->device->device_id);
    set_text(out, "name", from->name);
    set_json(out, "payload", from->payload_json);
    set_text(out, "state", state_name(from->has_state ? (int)from->state : 0));
    for (size_t i = 0; i < from->n_steps; i++) {
        json_t *step = json_object();
        set_text(step, "state", state_name((int)from->steps[i]->state));
        set_time(step, "at", from->steps[i]->at);
        (void)json_array_append_new(steps, step);
    }
    (void)json_object_set_new(out, "steps", steps);
    set_time(out, "expiresAt", from->expires_at);
    set_text(out, "error", from->error);
    set_text(out, "responseName", from->response_name);
    set_json(out, "response", from->response_json);
    set_text(out, "actor", from->actor);
    return out;
}

static void add_row(mir_cli_table *table, const MirApi__V1__QueuedCommand *from, int64_t now_ns)
{
    char text[512];
    int state = from->has_state ? (int)from->state : 0;
    bool waits = state == MIR_API__V1__QUEUED_COMMAND_STATE__QUEUED_COMMAND_STATE_QUEUED;
    mir_cli_table_cell(table, MIR_TONE_PLAIN, or_empty(from->id));
    device_text(from->device, text, sizeof text);
    mir_cli_table_cell(table, MIR_TONE_PLAIN, text);
    mir_cli_table_cell(table, MIR_TONE_STRONG, or_empty(from->name));
    mir_cli_table_cell(table, state_tone(state), state_name(state));
    text[0] = '\0';
    if (from->n_steps > 0 && from->steps[from->n_steps - 1]->at != NULL)
        mir_cli_when_age(mir_timestamp_ns(from->steps[from->n_steps - 1]->at), now_ns, text,
                         sizeof text);
    mir_cli_table_cell(table, MIR_TONE_PLAIN, text);
    text[0] = '\0';
    if (waits && from->expires_at != NULL)
        mir_cli_when_age(mir_timestamp_ns(from->expires_at), now_ns, text, sizeof text);
    mir_cli_table_cell(table, MIR_TONE_PLAIN, text);
    bool failed = from->error != NULL && from->error[0] != '\0';
    mir_cli_table_cell(table, failed ? MIR_TONE_BAD : MIR_TONE_PLAIN,
                       failed ? from->error : or_empty(from->response_json));
}

static int print(const MirApi__V1__QueuedCommands *from, const char *format)
{
    if (strcmp(format, "json") == 0 || strcmp(format, "yaml") == 0) {
        json_t *all = json_array();
        for (size_t i = 0; i < from->n_commands; i++)
            (void)json_array_append_new(all, to_json(from->commands[i]));
        int code = mir_cli_devices_print_value(all, format);
        json_decref(all);
        return code;
    }
    mir_cli_table *table = mir_cli_table_new();
    mir_cli_table_column(table, "ID", NULL, MIR_TABLE_FIXED);
    mir_cli_table_column(table, "DEVICE", NULL, MIR_TABLE_TEXT);
    mir_cli_table_column(table, "COMMAND", NULL, MIR_TABLE_TEXT);
    mir_cli_table_column(table, "STATE", NULL, MIR_TABLE_FIXED);
    mir_cli_table_column(table, "SINCE", NULL, MIR_TABLE_FIXED);
    mir_cli_table_column(table, "EXPIRES", NULL, MIR_TABLE_FIXED);
    mir_cli_table_column(table, "RESULT", NULL, MIR_TABLE_TEXT);
    int64_t now_ns = mir_clock_wall_ns();
    for (size_t i = 0; i < from->n_commands; i++) add_row(table, from->commands[i], now_ns);
    bool wide = strcmp(format, "wide") == 0;
    mir_status status = MIR_OK;
    if (from->n_commands > 0)
        status =
            mir_cli_table_print(table, stdout, wide ? 0 : mir_cli_text_terminal_columns(stdout),
                                mir_cli_text_colours(stdout), NULL);
    mir_cli_table_free(table);
    return status == MIR_OK ? MIR_EXIT_OK : mir_cli_fail("no memory for the table");
}

/* The states that are asked for, of a list such as queued,sent. */
MIR_MUST_CHECK static mir_status read_states(const mir_cli_args *args, mir_arena *arena,
                                             MirApi__V1__QueuedCommandState **states, size_t *count,
                                             mir_error *error)
{
    char **list = NULL;
    size_t words = 0;
    *count = 0;
    mir_status status = mir_cli_target_list(args, MIR_OPT_STATE, arena, &list, &words, error);
    if (status != MIR_OK) return status;
    *states = mir_arena_alloc(arena, (words + 1) * sizeof **states);
    if (*states == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "no memory");
    for (size_t i = 0; i < words; i++) {
        int state = 1;
        while (state < STATES && strcmp(state_names[state], list[i]) != 0) state++;
        if (state == STATES)
            return mir_error_set(error, MIR_E_INVALID,
                                 "--state is queued, sent, done, failed, expired or cancelled, "
                                 "not '%s'",
                                 list[i]);
        (*states)[(*count)++] = (MirApi__V1__QueuedCommandState)state;
    }
    return MIR_OK;
}

static int ask_list(mir_cli_session *session, MirApi__V1__ListQueuedCommandsRequest *request,
                    MirApi__V1__QueuedCommands **answer)
{
    return mir_cli_connect_ask(session, "cmd.v1alpha.queue", &request->base,
                               &mir_api__v1__list_queued_commands_response__descriptor, answer);
}

int mir_cli_queue_list(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    mir_cli_targets targets = {0};
    mir_error error = {0};
    MirApi__V1__ListQueuedCommandsRequest request = MIR_API__V1__LIST_QUEUED_COMMANDS_REQUEST__INIT;
    const char *limit = mir_cli_value(args, MIR_OPT_LIMIT);
    mir_status status = mir_cli_target_parse(args, &session.arena, &targets, &error);
    if (status == MIR_OK)
        status = read_states(args, &session.arena, &request.states, &request.n_states, &error);
    int code = status == MIR_OK ? MIR_EXIT_OK : mir_cli_usage(cli, "%s", error.text);
    if (code == MIR_EXIT_OK && limit != NULL) {
        uint64_t value = 0;
        request.has_limit = mir_cli_number(limit, false, &value) && value <= LIMIT_MAX;
        request.limit = request.has_limit ? (uint32_t)value : 0;
        if (!request.has_limit) code = mir_cli_usage(cli, "--limit is a number from 1");
    }
    if (code == MIR_EXIT_OK) code = mir_cli_connect_open(cli, args, &session);
    size_t found = 0;
    for (size_t i = 0; code == MIR_EXIT_OK && i < targets.count; i++) {
        MirApi__V1__QueuedCommands *answer = NULL;
        request.targets = targets.items[i];
        code = ask_list(&session, &request, &answer);
        if (code == MIR_EXIT_OK && (answer->n_commands > 0 || targets.count == 1))
            code = print(answer, format_of(args, "table"));
        if (code == MIR_EXIT_OK) found += answer->n_commands;
    }
    if (code == MIR_EXIT_OK && found == 0 && strcmp(format_of(args, "table"), "table") == 0)
        mir_cli_note("No command is in the queue. `mir command send ... --queue` puts one there.");
    mir_cli_connect_close(&session);
    return code;
}

static void print_steps(const MirApi__V1__QueuedCommand *from)
{
    for (size_t i = 0; i < from->n_steps; i++) {
        char at[64] = "";
        if (from->steps[i]->at != NULL)
            mir_cli_when_clock(mir_timestamp_ns(from->steps[i]->at), true, 3, false, at, sizeof at);
        (void)printf("  %-10s %s\n", state_name((int)from->steps[i]->state), at);
    }
}

static void print_field(const char *title, const char *text)
{
    if (text == NULL || text[0] == '\0') return;
    (void)printf("%-10s ", title);
    mir_cli_text_print_visible(stdout, text);
    (void)fputc('\n', stdout);
}

static void print_one(const MirApi__V1__QueuedCommand *from)
{
    char text[512];
    print_field("id", from->id);
    device_text(from->device, text, sizeof text);
    print_field("device", text);
    print_field("command", from->name);
    print_field("payload", from->payload_json);
    print_field("state", state_name(from->has_state ? (int)from->state : 0));
    print_field("error", from->error);
    print_field("reply", from->response_name);
    print_field("answer", from->response_json);
    print_field("by", from->actor);
    text[0] = '\0';
    if (from->expires_at != NULL)
        mir_cli_when_clock(mir_timestamp_ns(from->expires_at), true, 0, false, text, sizeof text);
    print_field("expires", text);
    (void)printf("steps\n");
    print_steps(from);
}

int mir_cli_queue_show(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    MirApi__V1__ListQueuedCommandsRequest request = MIR_API__V1__LIST_QUEUED_COMMANDS_REQUEST__INIT;
    MirApi__V1__QueuedCommands *answer = NULL;
    const char *format = format_of(args, "table");
    request.command_ids = (char **)(uintptr_t)args->words;
    request.n_command_ids = args->words_count;
    int code = mir_cli_connect_open(cli, args, &session);
    if (code == MIR_EXIT_OK) code = ask_list(&session, &request, &answer);
    if (code == MIR_EXIT_OK) {
        if (strcmp(format, "table") != 0) code = print(answer, format);
        for (size_t i = 0; strcmp(format, "table") == 0 && i < answer->n_commands; i++) {
            if (i > 0) (void)fputc('\n', stdout);
            print_one(answer->commands[i]);
        }
        for (size_t w = 0; w < args->words_count; w++) {
            bool found = false;
            for (size_t i = 0; i < answer->n_commands && !found; i++)
                found = strcmp(or_empty(answer->commands[i]->id), args->words[w]) == 0;
            if (!found)
                code = mir_cli_fail("there is no queued command '%s'; `mir command queue list` "
                                    "shows them",
                                    args->words[w]);
        }
    }
    mir_cli_connect_close(&session);
    return code;
}

int mir_cli_queue_cancel(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    mir_cli_targets targets = {0};
    mir_error error = {0};
    MirApi__V1__CancelQueuedCommandsRequest request =
        MIR_API__V1__CANCEL_QUEUED_COMMANDS_REQUEST__INIT;
    MirApi__V1__QueuedCommands *answer = NULL;
    const char *format = format_of(args, "table");
    int code = MIR_EXIT_OK;
    /* Words are ids here: devices come from the flags. */
    static mir_cli_args flags;
    flags = *args;
    flags.words_count = 0;
    if (mir_cli_target_parse(&flags, &session.arena, &targets, &error) != MIR_OK)
        code = mir_cli_usage(cli, "%s", error.text);
    else if (args->words_count == 0 && !targets.stated)
        code = mir_cli_usage(cli, "which commands? give their ids, or devices with --name and the "
                                  "like; --name '*' means all");
    for (size_t i = 0; code == MIR_EXIT_OK && i < args->words_count; i++)
        if (strchr(args->words[i], '/') != NULL)
            code = mir_cli_usage(cli,
                                 "'%s' is no id of a command; say devices with --name and "
                                 "--namespace",
                                 args->words[i]);
    request.command_ids = (char **)(uintptr_t)args->words;
    request.n_command_ids = args->words_count;
    if (code == MIR_EXIT_OK && targets.stated) request.targets = targets.items[0];
    if (code == MIR_EXIT_OK) code = mir_cli_connect_open(cli, args, &session);
    if (code == MIR_EXIT_OK)
        code =
            mir_cli_connect_ask(&session, "cmd.v1alpha.cancel", &request.base,
                                &mir_api__v1__cancel_queued_commands_response__descriptor, &answer);
    if (code == MIR_EXIT_OK && answer->n_commands == 0)
        code = mir_cli_fail("nothing was cancelled: no such command waits. One that is sent "
                            "cannot be taken back");
    else if (code == MIR_EXIT_OK && strcmp(format, "table") != 0)
        code = print(answer, format);
    else if (code == MIR_EXIT_OK)
        for (size_t i = 0; i < answer->n_commands; i++) {
            char line[1024];
            char device[512];
            device_text(answer->commands[i]->device, device, sizeof device);
            (void)snprintf(line, sizeof line, "cancelled %s %s of %s\n",
                           or_empty(answer->commands[i]->id), or_empty(answer->commands[i]->name),
                           device);
            mir_cli_text_print_visible(stdout, line);
        }
    mir_cli_connect_close(&session);
    return code;
}
