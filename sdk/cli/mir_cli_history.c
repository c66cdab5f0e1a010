/* SPDX-License-Identifier: Apache-2.0 */
/* mir device history: a device from its creation to its end. */
#include "mir_cli_devices.h"
#include "mir_cli_events.h"
#include "mir_cli_table.h"
#include "mir_cli_text.h"
#include "mir_cli_when.h"
#include "mir_timestamp.h"

#include <inttypes.h>

static const char *or_empty(const char *text)
{
    return text != NULL ? text : "";
}

static void change_text(const MirApi__V1__EventChange *change, mir_bytes *out)
{
    mir_bytes_text(out, or_empty(change->path));
    if (change->from == NULL)
        mir_bytes_printf(out, " = %s", or_empty(change->to));
    else if (change->to == NULL)
        mir_bytes_printf(out, " removed, was %s", change->from);
    else
        mir_bytes_printf(out, ": %s -> %s", change->from, change->to);
    mir_bytes_u8(out, '\0');
}

typedef struct form {
    bool wide;
    bool utc;
} form;

static void add_row(mir_cli_table *table, const MirApi__V1__Event *event, bool first, form how,
                    const char *what)
{
    char text[64] = "";
    const MirApi__V1__EventSpec *spec = event->spec;
    const MirApi__V1__EventAudit *audit = spec != NULL ? spec->audit : NULL;
    uint64_t sequence = mir_cli_events_sequence(event);
    if (first && sequence > 0) (void)snprintf(text, sizeof text, "%" PRIu64, sequence);
    mir_cli_table_cell(table, MIR_TONE_DIM, text);
    text[0] = '\0';
    if (first && how.wide)
        mir_cli_when_clock(mir_cli_events_time(event), true, 3, how.utc, text, sizeof text);
    else if (first)
        mir_cli_events_when(event, how.utc, text, sizeof text);
    mir_cli_table_cell(table, MIR_TONE_PLAIN, text);
    mir_cli_table_cell(table, MIR_TONE_STRONG, first && spec != NULL ? or_empty(spec->reason) : "");
    mir_cli_table_cell(table, MIR_TONE_PLAIN, first && audit != NULL ? or_empty(audit->actor) : "");
    mir_cli_table_cell(table, mir_cli_events_failed(event) ? MIR_TONE_BAD : MIR_TONE_PLAIN, what);
}

static void add_event(mir_cli_table *table, const MirApi__V1__Event *event, form how)
{
    const MirApi__V1__EventAudit *audit = event->spec != NULL ? event->spec->audit : NULL;
    size_t changes = audit != NULL ? audit->n_changes : 0;
    if (changes == 0)
        add_row(table, event, true, how,
                audit != NULL && audit->error != NULL && audit->error[0] != '\0'
                    ? audit->error
                    : or_empty(event->spec != NULL ? event->spec->message : NULL));
    for (size_t i = 0; i < changes; i++) {
        mir_bytes text = {0};
        change_text(audit->changes[i], &text);
        add_row(table, event, i == 0, how, mir_bytes_ok(&text) ? (const char *)text.data : "");
        mir_bytes_free(&text);
    }
}

static int print_table(const MirApi__V1__DeviceHistory *from, form how)
{
    mir_cli_table *table = mir_cli_table_new();
    mir_cli_table_column(table, "SEQ", NULL, MIR_TABLE_NUMBER);
    mir_cli_table_column(table, mir_cli_when_title(how.utc), NULL, MIR_TABLE_FIXED);
    mir_cli_table_column(table, "REASON", NULL, MIR_TABLE_FIXED);
    mir_cli_table_column(table, "ACTOR", NULL, MIR_TABLE_TEXT);
    mir_cli_table_column(table, "CHANGE", NULL, MIR_TABLE_TEXT);
    for (size_t i = 0; i < from->n_events; i++) add_event(table, from->events[i], how);
    mir_status status =
        mir_cli_table_print(table, stdout, how.wide ? 0 : mir_cli_text_terminal_columns(stdout),
                            mir_cli_text_colours(stdout), NULL);
    mir_cli_table_free(table);
    return status == MIR_OK ? MIR_EXIT_OK : mir_cli_fail("no memory for the table");
}

static int print_events(const MirApi__V1__DeviceHistory *from, const mir_cli_args *args)
{
    const char *format = mir_cli_value(args, MIR_OPT_OUTPUT);
    if (format == NULL) format = "table";
    if (from->n_events == 0 && strcmp(format, "json") != 0) {
        mir_cli_note("Nothing is stored of this device.");
        return MIR_EXIT_OK;
    }
    form how = {strcmp(format, "wide") == 0, mir_cli_flag(args, MIR_OPT_UTC)};
    if (how.wide || strcmp(format, "table") == 0) return print_table(from, how);
    mir_cli_events events = {from->events, from->n_events, false};
    return mir_cli_events_print(&events, format, false);
}

static int print_twin(const MirApi__V1__DeviceHistory *from, const mir_cli_args *args)
{
    const char *format = mir_cli_value(args, MIR_OPT_OUTPUT);
    if (from->device_json == NULL || from->device_json[0] == '\0')
        return mir_cli_fail("the device did not exist then");
    json_t *twin = json_loads(from->device_json, 0, NULL);
    if (twin == NULL) return mir_cli_fail("the twin that the server sent is no JSON");
    int code = mir_cli_devices_print_twin(
        twin, format != NULL && strcmp(format, "json") == 0 ? "json" : "yaml");
    json_decref(twin);
    return code;
}

/* The one device of that name, when the namespace was left out. */
static int find_namespace(const mir_cli *cli, mir_cli_session *session,
                          MirApi__V1__DeviceIdPair *device)
{
    MirApi__V1__DeviceTarget target = MIR_API__V1__DEVICE_TARGET__INIT;
    MirApi__V1__DeviceTarget *one = &target;
    mir_cli_targets targets = {.items = &one, .count = 1};
    mir_cli_devices devices = {0};
    target.names = &device->name;
    target.n_names = 1;
    int code = mir_cli_devices_list(session, &targets, MIR_DEVICES_PLAIN, &devices);
    if (code != MIR_EXIT_OK) return code;
    if (devices.count != 1)
        return mir_cli_usage(cli,
                             devices.count == 0
                                 ? "there is no device '%s' now; if it is gone, give NAME/NAMESPACE"
                                 : "there are several devices '%s'; give NAME/NAMESPACE",
                             device->name);
    device->namespace_ = devices.items[0]->meta->namespace_;
    return MIR_EXIT_OK;
}

int mir_cli_device_history(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    MirApi__V1__DeviceHistoryRequest request = MIR_API__V1__DEVICE_HISTORY_REQUEST__INIT;
    MirApi__V1__DeviceIdPair device = MIR_API__V1__DEVICE_ID_PAIR__INIT;
    MirApi__V1__DeviceHistory *answer = NULL;
    mir_error error = {0};
    const char *id = mir_cli_value(args, MIR_OPT_ID);
    const char *at = mir_cli_value(args, MIR_OPT_AT);
    const char *limit_text = mir_cli_value(args, MIR_OPT_LIMIT);
    uint64_t limit = 0;
    int64_t at_ns = 0;
    int code = MIR_EXIT_OK;
    if ((id != NULL) == (args->words_count > 0))
        code = mir_cli_usage(cli, "which device? give NAME/NAMESPACE, or --id ID");
    else if (args->words_count > 0 && strchr(args->words[0], '*') != NULL)
        code = mir_cli_usage(cli, "a history is of one device; '%s' has a star", args->words[0]);
    else if (args->words_count > 0 &&
             mir_cli_target_split(args->words[0], &session.arena, &device.name, &device.namespace_,
                                  &error) != MIR_OK)
        code = mir_cli_usage(cli, "%s", error.text);
    else if (limit_text != NULL &&
             (!mir_cli_number(limit_text, false, &limit) || limit > UINT32_MAX))
        code = mir_cli_usage(cli, "--limit is a number from 1");
    else if (at != NULL && mir_cli_when_time(at, &at_ns, &error) != MIR_OK)
        code = mir_cli_usage(cli, "--at: %s", error.text);
    if (code == MIR_EXIT_OK) code = mir_cli_connect_open(cli, args, &session);
    device.device_id = (char *)(uintptr_t)id;
    if (code == MIR_EXIT_OK && id == NULL && device.namespace_ == NULL)
        code = find_namespace(cli, &session, &device);
    request.device = &device;
    request.has_limit = limit > 0;
    request.limit = (uint32_t)limit;
    if (code == MIR_EXIT_OK && at != NULL) {
        request.at = mir_timestamp_new(&session.arena, at_ns);
        if (request.at == NULL) code = mir_cli_fail("no memory");
    }
    if (code == MIR_EXIT_OK)
        code = mir_cli_connect_ask(&session, "evt.v1alpha.history", &request.base,
                                   &mir_api__v1__device_history_response__descriptor, &answer);
    if (code == MIR_EXIT_OK)
        code = at != NULL ? print_twin(answer, args) : print_events(answer, args);
    mir_cli_connect_close(&session);
    return code;
}
