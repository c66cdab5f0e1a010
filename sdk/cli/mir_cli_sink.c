/* SPDX-License-Identifier: Apache-2.0 */
/* mir telemetry sink status. */
#include "mir_cli_devices.h"
#include "mir_cli_table.h"
#include "mir_cli_text.h"
#include "mir_cli_when.h"

#include <inttypes.h>

enum { NAME_COLUMNS = 10 };

static uint64_t number_of(const json_t *sink, const char *key)
{
    const json_int_t value = json_integer_value(json_object_get(sink, key));
    return value > 0 ? (uint64_t)value : 0;
}

static void put_name(const char *name)
{
    const bool colours = mir_cli_text_colours(stdout);
    (void)printf("%s%-*s%s", mir_cli_table_tone_on(MIR_TONE_STRONG, colours), NAME_COLUMNS, name,
                 mir_cli_table_tone_off(MIR_TONE_STRONG, colours));
}

static void print_sink(const json_t *sink)
{
    char text[64];
    const uint64_t sent = number_of(sink, "rows_sent");
    const uint64_t lag = number_of(sink, "lag_rows");
    const bool failing = json_is_true(json_object_get(sink, "failing"));
    const char *url = json_string_value(json_object_get(sink, "url"));
    const char *error = json_string_value(json_object_get(sink, "last_error"));
    const char *when = json_string_value(json_object_get(sink, "last_error_at"));
    put_name("to");
    mir_cli_text_print_visible(stdout, url == NULL ? "-" : url);
    (void)printf("%s\n", failing ? ", which does not accept anything" : "");
    put_name("sent");
    mir_cli_text_size((double)number_of(sink, "bytes_sent"), text, sizeof text);
    (void)printf("%" PRIu64 " row%s in %" PRIu64 " batches, %s; tried again %" PRIu64 " times\n",
                 sent, sent == 1 ? "" : "s", number_of(sink, "batches"), text,
                 number_of(sink, "retries"));
    put_name("waiting");
    (void)printf("%" PRIu64 " row%s", lag, lag == 1 ? "" : "s");
    const double seconds = json_number_value(json_object_get(sink, "lag_seconds"));
    if (lag > 0 && seconds > 0) {
        mir_cli_when_span((int64_t)(seconds < 9e9 ? seconds * 1e9 : 9e18), text, sizeof text);
        (void)printf(", the oldest for %s", text);
    }
    mir_cli_text_size((double)number_of(sink, "spool_bytes"), text, sizeof text);
    (void)printf("; logs of %s are kept", text);
    mir_cli_text_size((double)number_of(sink, "spool_bytes_max"), text, sizeof text);
    (void)printf(" of %s\n", text);
    put_name("lost");
    (void)printf("%" PRIu64 " refused, %" PRIu64 " given up, %" PRIu64 " damaged; %" PRIu64
                 " values have no form\n",
                 number_of(sink, "rows_refused"), number_of(sink, "rows_dropped"),
                 number_of(sink, "rows_damaged"), number_of(sink, "values_left_out"));
    if (number_of(sink, "rows_withheld") > 0) {
        put_name("withheld");
        (void)printf("%" PRIu64 " rows that telemetry.sink.rules do not forward\n",
                     number_of(sink, "rows_withheld"));
    }
    if (error == NULL) return;
    put_name("error");
    mir_cli_text_print_visible(stdout, error);
    if (when != NULL) (void)printf(" (last at %s)", when);
    (void)printf("\n");
}

int mir_cli_telemetry_sink(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    json_t *status = NULL;
    const char *format = mir_cli_value(args, MIR_OPT_OUTPUT);
    int code = mir_cli_connect_open(cli, args, &session);
    if (code == MIR_EXIT_OK) code = mir_cli_status_ask(&session, &status);
    const json_t *sink = json_object_get(status, "sink");
    if (code == MIR_EXIT_OK && sink == NULL)
        code = mir_cli_fail("%s forwards no telemetry: telemetry.sink.url is not set there",
                            session.where);
    if (code == MIR_EXIT_OK) {
        if (format == NULL || strcmp(format, "table") == 0)
            print_sink(sink);
        else
            code = mir_cli_devices_print_value(sink, format);
        if (code == MIR_EXIT_OK && json_is_true(json_object_get(sink, "failing")))
            code = MIR_EXIT_FAILED;
    }
    json_decref(status);
    mir_cli_connect_close(&session);
    return code;
}
