/* SPDX-License-Identifier: Apache-2.0 */
/* mir telemetry retention. */
#include "mir_api/v1/tlm.pb-c.h"
#include "mir_cli_connect.h"
#include "mir_cli_devices.h"
#include "mir_cli_table.h"
#include "mir_cli_text.h"
#include "mir_cli_when.h"
#include "mir_clock.h"
#include "mir_timestamp.h"

#include <inttypes.h>

enum { HOUR_S = 60 * 60 };

static void set_time(json_t *out, const char *key, const MirApi__V1__Timestamp *time)
{
    char text[MIR_CLOCK_TEXT_BYTES];
    if (time != NULL && mir_timestamp_format(time->seconds, time->nanos, text) > 0)
        (void)json_object_set_new(out, key, json_string(text));
}

static json_t *retention_json(const MirApi__V1__TelemetryRetention *from)
{
    json_t *rules = json_array();
    for (size_t i = 0; i < from->n_rules; i++) {
        const MirApi__V1__TelemetryRetention__Rule *rule = from->rules[i];
        json_t *entry = json_object();
        if (rule->namespace_ != NULL)
            (void)json_object_set_new(entry, "namespace", json_string(rule->namespace_));
        if (rule->message != NULL)
            (void)json_object_set_new(entry, "message", json_string(rule->message));
        if (rule->deleted) (void)json_object_set_new(entry, "deleted", json_true());
        (void)json_object_set_new(entry, "keepSeconds",
                                  json_integer((json_int_t)rule->keep_seconds));
        (void)json_object_set_new(entry, "rowsRemoved",
                                  json_integer((json_int_t)rule->rows_removed));
        if (rule->has_rollup && !rule->rollup)
            (void)json_object_set_new(entry, "rollup", json_false());
        (void)json_array_append_new(rules, entry);
    }
    json_t *rollups = json_array();
    for (size_t i = 0; i < from->n_rollups; i++) {
        const MirApi__V1__TelemetryRetention__Rollup *rollup = from->rollups[i];
        json_t *entry = json_pack("{s:I, s:I}", "stepSeconds", (json_int_t)rollup->step_seconds,
                                  "rows", (json_int_t)rollup->rows);
        if (rollup->has_keep_seconds)
            (void)json_object_set_new(entry, "keepSeconds",
                                      json_integer((json_int_t)rollup->keep_seconds));
        (void)json_array_append_new(rollups, entry);
    }
    json_t *out =
        json_pack("{s:o, s:I, s:I, s:I, s:I}", "rules", rules, "rows", (json_int_t)from->rows,
                  "bytes", (json_int_t)from->bytes, "bytesRemoved", (json_int_t)from->bytes_removed,
                  "rowsRemovedBySize", (json_int_t)from->rows_removed_size);
    (void)json_object_set_new(out, "rollups", rollups);
    (void)json_object_set_new(out, "rollupBytes", json_integer((json_int_t)from->rollup_bytes));
    if (from->has_size_max)
        (void)json_object_set_new(out, "sizeMax", json_integer((json_int_t)from->size_max));
    if (from->has_rows_repeated)
        (void)json_object_set_new(out, "rowsRepeated",
                                  json_integer((json_int_t)from->rows_repeated));
    set_time(out, "oldest", from->oldest);
    set_time(out, "countedSince", from->counted_since);
    set_time(out, "lastRemoval", from->last_removal);
    set_time(out, "lastRun", from->last_run);
    return out;
}

static void add_rule(mir_cli_table *table, const MirApi__V1__TelemetryRetention__Rule *rule)
{
    char text[64];
    const char *any = "*";
    const char *name_space = rule->deleted              ? "(deleted)"
                             : rule->namespace_ != NULL ? rule->namespace_
                                                        : any;
    mir_cli_table_cell(table, MIR_TONE_STRONG, name_space);
    mir_cli_table_cell(table, MIR_TONE_STRONG, rule->message != NULL ? rule->message : any);
    mir_cli_when_kept(rule->keep_seconds, text, sizeof text);
    mir_cli_table_cell(table, MIR_TONE_PLAIN, text);
    (void)snprintf(text, sizeof text, "%" PRIu64, rule->rows_removed);
    mir_cli_table_cell(table, MIR_TONE_PLAIN, text);
}

static int print_retention(const MirApi__V1__TelemetryRetention *from)
{
    char text[64];
    const int64_t now_ns = mir_clock_wall_ns();
    mir_cli_table *table = mir_cli_table_new();
    mir_cli_table_column(table, "NAMESPACE", NULL, MIR_TABLE_TEXT);
    mir_cli_table_column(table, "MESSAGE", NULL, MIR_TABLE_TEXT);
    mir_cli_table_column(table, "KEPT", NULL, MIR_TABLE_FIXED);
    mir_cli_table_column(table, "REMOVED", NULL, MIR_TABLE_NUMBER);
    for (size_t i = 0; i < from->n_rules; i++) add_rule(table, from->rules[i]);
    mir_status status = mir_cli_table_print(table, stdout, mir_cli_text_terminal_columns(stdout),
                                            mir_cli_text_colours(stdout), NULL);
    mir_cli_table_free(table);
    if (status != MIR_OK) return mir_cli_fail("no memory for the table");
    mir_cli_text_size((double)from->bytes, text, sizeof text);
    (void)printf("\n%" PRIu64 " row%s in segments, %s", from->rows,
                 from->rows == 1 ? " is" : "s are", text);
    if (from->oldest != NULL) {
        mir_cli_when_age(mir_timestamp_ns(from->oldest), now_ns, text, sizeof text);
        (void)printf(", the oldest from %s", text);
    }
    (void)printf("; the newest come there from logs.\n");
    for (size_t i = 0; i < from->n_rollups; i++) {
        const MirApi__V1__TelemetryRetention__Rollup *rollup = from->rollups[i];
        if (rollup->has_keep_seconds)
            mir_cli_when_kept(rollup->keep_seconds, text, sizeof text);
        else
            (void)snprintf(text, sizeof text, "off");
        (void)printf("%s%" PRIu64 "%s %s (%" PRIu64 ")", i == 0 ? "Rollups: " : ", ",
                     rollup->step_seconds < HOUR_S ? rollup->step_seconds / 60
                                                   : rollup->step_seconds / HOUR_S,
                     rollup->step_seconds < HOUR_S ? "m" : "h", text, rollup->rows);
    }
    if (from->n_rollups > 0) {
        mir_cli_text_size((double)from->rollup_bytes, text, sizeof text);
        (void)printf(", %s.\n", text);
    }
    if (from->has_size_max) {
        mir_cli_text_size((double)from->size_max, text, sizeof text);
        (void)printf("Beyond %s the oldest go; so did %" PRIu64 " row%s.\n", text,
                     from->rows_removed_size, from->rows_removed_size == 1 ? "" : "s");
    }
    if (from->rows_repeated > 0) {
        (void)printf("%" PRIu64 " row%s again after being rolled up, and count%s once.\n",
                     from->rows_repeated, from->rows_repeated == 1 ? " came" : "s came",
                     from->rows_repeated == 1 ? "s" : "");
    }
    if (from->last_removal != NULL) {
        mir_cli_text_size((double)from->bytes_removed, text, sizeof text);
        (void)printf("%s were removed", text);
        if (from->counted_since != NULL) {
            mir_cli_when_clock(mir_timestamp_ns(from->counted_since), true, 0, true, text,
                               sizeof text);
            (void)printf(" since %s UTC", text);
        }
        (void)printf(", ");
        mir_cli_when_age(mir_timestamp_ns(from->last_removal), now_ns, text, sizeof text);
        (void)printf("the last of them %s.\n", text);
    }
    return MIR_EXIT_OK;
}

int mir_cli_telemetry_retention(mir_cli *cli, const mir_cli_command *command,
                                const mir_cli_args *args)
{
    (void)command;
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    MirApi__V1__TelemetryRetentionRequest request = MIR_API__V1__TELEMETRY_RETENTION_REQUEST__INIT;
    MirApi__V1__TelemetryRetention *answer = NULL;
    const char *format = mir_cli_value(args, MIR_OPT_OUTPUT);
    int code = mir_cli_connect_open(cli, args, &session);
    if (code == MIR_EXIT_OK)
        code = mir_cli_connect_ask(&session, "tlm.v1alpha.retention", &request.base,
                                   &mir_api__v1__telemetry_retention_response__descriptor, &answer);
    if (code == MIR_EXIT_OK && (format == NULL || strcmp(format, "table") == 0)) {
        code = print_retention(answer);
    } else if (code == MIR_EXIT_OK) {
        json_t *value = retention_json(answer);
        code = mir_cli_devices_print_value(value, format);
        json_decref(value);
    }
    mir_cli_connect_close(&session);
    return code;
}
