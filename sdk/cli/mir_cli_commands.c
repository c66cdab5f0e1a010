/* SPDX-License-Identifier: Apache-2.0 */
/* The table of all commands. Text in it is shown as it stands, wrapped at 76 columns by hand. */
#include "mir_cli.h"

#define END_OPTIONS                                                                                \
    {                                                                                              \
        MIR_OPT_NONE, NULL, 0, false, NULL, NULL, NULL                                             \
    }
#define END_EXAMPLES                                                                               \
    {                                                                                              \
        NULL, NULL                                                                                 \
    }

static const mir_cli_option global_options[] = {
    {MIR_OPT_TARGET, "target", 't', false, "ADDRESS", NULL,
     "server to talk to: nats://HOST:PORT or a socket's path"},
    {MIR_OPT_CONTEXT, "context", 0, false, "NAME", NULL, "context of the context file to use"},
    {MIR_OPT_ADMIN, "admin", 0, false, "PATH", NULL, "admin socket of the server"},
    {MIR_OPT_TIMEOUT, "timeout", 0, false, "DURATION", NULL,
     "how long to wait for an answer (30s)"},
    {MIR_OPT_HELP, "help", 'h', false, NULL, NULL, "show this help"},
    END_OPTIONS,
};
const mir_cli_group mir_cli_global_group = {"Everywhere", global_options};

static const mir_cli_option target_options[] = {
    {MIR_OPT_LABEL, "label", 0, false, "KEY=VALUE", NULL,
     "devices with all these labels; status=online, =offline, =disabled"},
    {MIR_OPT_LABEL, "target.labels", 0, true, "KEY=VALUE", NULL, NULL},
    {MIR_OPT_NAMESPACE, "namespace", 0, false, "NAMESPACE", NULL,
     "devices of one of these namespaces"},
    {MIR_OPT_NAMESPACE, "target.namespaces", 0, true, "NAMESPACE", NULL, NULL},
    {MIR_OPT_NAME, "name", 0, false, "NAME", NULL, "devices with one of these names"},
    {MIR_OPT_NAME, "target.names", 0, true, "NAME", NULL, NULL},
    {MIR_OPT_ID, "id", 0, false, "ID", NULL, "devices with one of these ids"},
    {MIR_OPT_ID, "target.ids", 0, true, "ID", NULL, NULL},
    {MIR_OPT_SCHEMA, "schema", 0, false, "PACKAGE", NULL,
     "devices whose schema has all these packages"},
    {MIR_OPT_SCHEMA, "target.schemas", 0, true, "PACKAGE", NULL, NULL},
    END_OPTIONS,
};
static const mir_cli_group target_group = {
    "Which devices (values may be lists a,b and may contain *)", target_options};

/* Where --name is something else. */
static const mir_cli_option send_target_options[] = {
    {MIR_OPT_LABEL, "label", 0, false, "KEY=VALUE", NULL,
     "devices with all these labels; status=online, =offline, =disabled"},
    {MIR_OPT_LABEL, "target.labels", 0, true, "KEY=VALUE", NULL, NULL},
    {MIR_OPT_NAMESPACE, "namespace", 0, false, "NAMESPACE", NULL,
     "devices of one of these namespaces"},
    {MIR_OPT_NAMESPACE, "target.namespaces", 0, true, "NAMESPACE", NULL, NULL},
    {MIR_OPT_NAME, "target.names", 0, false, "NAME", NULL, "devices with one of these names"},
    {MIR_OPT_ID, "id", 0, false, "ID", NULL, "devices with one of these ids"},
    {MIR_OPT_ID, "target.ids", 0, true, "ID", NULL, NULL},
    {MIR_OPT_SCHEMA, "schema", 0, false, "PACKAGE", NULL,
     "devices whose schema has all these packages"},
    {MIR_OPT_SCHEMA, "target.schemas", 0, true, "PACKAGE", NULL, NULL},
    END_OPTIONS,
};
static const mir_cli_group send_target_group = {
    "Which devices (values may be lists a,b and may contain *)", send_target_options};

static const mir_cli_option message_list_options[] = {
    {MIR_OPT_FILTER, "filter-labels", 0, false, "KEY=VALUE", NULL,
     "only messages with all these tags"},
    {MIR_OPT_FILTER, "filter", 0, true, "KEY=VALUE", NULL, NULL},
    {MIR_OPT_REFRESH, "refresh-schema", 0, false, NULL, NULL,
     "ask the devices for their schemas first"},
    {MIR_OPT_REFRESH, "refresh", 0, true, NULL, NULL, NULL},
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|wide|json|yaml|name",
     "table, wide, json, yaml or name"},
    END_OPTIONS,
};
static const mir_cli_group message_list_group = {"Options", message_list_options};

static const mir_cli_option command_send_options[] = {
    {MIR_OPT_MESSAGE, "name", 'n', false, "NAME", NULL,
     "the command: pkg.v1.StartBootup, or start_bootup"},
    {MIR_OPT_PAYLOAD, "payload", 'p', false, "JSON", NULL,
     "its fields as JSON; @FILE reads a file, - standard input"},
    {MIR_OPT_EDIT, "edit", 'e', false, NULL, NULL, "write the payload in $VISUAL or $EDITOR"},
    {MIR_OPT_SHOW_TEMPLATE, "show-template", 'j', false, NULL, NULL,
     "print what the payload looks like, and send nothing"},
    {MIR_OPT_DRY_RUN, "dry-run", 0, false, NULL, NULL, "only check, and send nothing"},
    {MIR_OPT_FORCE_PUSH, "force-push", 0, false, NULL, NULL,
     "send to those that can have it, if others cannot"},
    {MIR_OPT_NO_VALIDATION, "no-validation", 0, false, NULL, NULL,
     "do not hold what devices answer against their schema"},
    {MIR_OPT_PROTOBUF, "protobuf", 0, false, NULL, NULL,
     "the payload is a serialized message and goes as it is; answers are base64"},
    {MIR_OPT_REFRESH, "refresh-schema", 0, false, NULL, NULL,
     "ask the devices for their schemas first"},
    {MIR_OPT_REFRESH, "refresh", 0, true, NULL, NULL, NULL},
    {MIR_OPT_TIMEOUT, "timeout", 0, false, "DURATION", NULL,
     "how long each device has to answer, in whole seconds (10s)"},
    {MIR_OPT_STREAM, "stream", 0, false, NULL, NULL, "print each result as soon as it comes"},
    {MIR_OPT_QUEUE, "queue", 0, false, NULL, NULL,
     "for devices that are away, keep it until they return"},
    {MIR_OPT_TTL, "ttl", 0, false, "DURATION", NULL, "how long to keep it so (1d)"},
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|wide|json|yaml",
     "table, wide, json or yaml"},
    END_OPTIONS,
};
static const mir_cli_group command_send_group = {"Options", command_send_options};

static const mir_cli_option config_send_options[] = {
    {MIR_OPT_MESSAGE, "name", 'n', false, "NAME", NULL,
     "the property: pkg.v1.DataRate, or datarate"},
    {MIR_OPT_PAYLOAD, "payload", 'p', false, "JSON", NULL,
     "its value as JSON; @FILE reads a file, - standard input"},
    {MIR_OPT_EDIT, "edit", 'e', false, NULL, NULL, "edit the present value in $VISUAL or $EDITOR"},
    {MIR_OPT_SHOW_TEMPLATE, "show-template", 'j', false, NULL, NULL,
     "print what the value looks like, and send nothing"},
    {MIR_OPT_SHOW_VALUES, "show-values", 0, false, NULL, NULL,
     "print what is set now, and send nothing"},
    {MIR_OPT_ONLY_DIFFERENT, "send-only-different", 0, false, NULL, NULL,
     "leave devices alone that have this value already"},
    {MIR_OPT_ONLY_DIFFERENT, "only-different", 0, true, NULL, NULL, NULL},
    {MIR_OPT_IF_VERSION, "if-version", 0, false, "N", NULL,
     "refuse if a device is not at this version (status.version)"},
    {MIR_OPT_DRY_RUN, "dry-run", 0, false, NULL, NULL, "only check, and send nothing"},
    {MIR_OPT_FORCE_PUSH, "force-push", 0, false, NULL, NULL,
     "send to those that can have it, if others cannot"},
    {MIR_OPT_REFRESH, "refresh-schema", 0, false, NULL, NULL,
     "ask the devices for their schemas first"},
    {MIR_OPT_REFRESH, "refresh", 0, true, NULL, NULL, NULL},
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|wide|json|yaml",
     "table, wide, json or yaml"},
    END_OPTIONS,
};
static const mir_cli_group config_send_group = {"Options", config_send_options};

static const mir_cli_option queue_list_options[] = {
    {MIR_OPT_STATE, "state", 0, false, "STATE", NULL,
     "queued, sent, done, failed, expired, cancelled; a list a,b"},
    {MIR_OPT_LIMIT, "limit", 0, false, "N", NULL, "only the newest"},
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|wide|json|yaml",
     "table, wide, json or yaml"},
    END_OPTIONS,
};
static const mir_cli_group queue_list_group = {"Options", queue_list_options};

#define EVENT_FILTERS                                                                              \
    {MIR_OPT_REASON, "reason", 0, false, "REASON", NULL, "such as DeviceCommand; a list a,b"},     \
        {MIR_OPT_TYPE, "type", 0, false, "TYPE", NULL, "normal or warning"},                       \
        {MIR_OPT_ACTOR, "actor", 0, false, "WHO", NULL, "who caused it; a list a,b"},              \
        {MIR_OPT_OUTCOME, "outcome", 0, false, "OUTCOME", NULL, "ok or failed"},                   \
    {                                                                                              \
        MIR_OPT_TEXT, "text", 0, false, "TEXT", NULL,                                              \
            "somewhere in the reason, message, payload or error"                                   \
    }
#define EVENT_TIMES                                                                                \
    {MIR_OPT_SINCE, "since", 's', false, "DURATION", NULL, "from so long ago"},                    \
        {MIR_OPT_FROM,                                                                             \
         "from",                                                                                   \
         0,                                                                                        \
         false,                                                                                    \
         "TIME",                                                                                   \
         NULL,                                                                                     \
         "from this time: RFC 3339, seconds since 1970, or 10m: so long ago"},                     \
        {MIR_OPT_TO, "to", 0, false, "TIME", NULL, "until this time"},                             \
    {                                                                                              \
        MIR_OPT_TO, "until", 0, true, "TIME", NULL, NULL                                           \
    }
#define UTC_OPTION                                                                                 \
    {                                                                                              \
        MIR_OPT_UTC, "utc", 0, false, NULL, NULL, "times in UTC instead of local time"             \
    }

static const mir_cli_option event_list_options[] = {
    EVENT_FILTERS,
    EVENT_TIMES,
    {MIR_OPT_LIMIT, "limit", 0, false, "N", NULL,
     "at most so many (what the terminal shows, or 100); 0: all"},
    {MIR_OPT_BEFORE, "before", 0, false, "SEQ", NULL, "only older ones than this: the next page"},
    UTC_OPTION,
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|wide|json|yaml",
     "table, wide, json or yaml"},
    END_OPTIONS,
};
static const mir_cli_group event_list_group = {"Options", event_list_options};

static const mir_cli_option event_watch_options[] = {
    EVENT_FILTERS,
    {MIR_OPT_AFTER, "after", 0, false, "SEQ", NULL,
     "go on behind this event; 0 begins with the first"},
    UTC_OPTION,
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|wide|json|yaml",
     "table, wide, json (a line each) or yaml"},
    END_OPTIONS,
};
static const mir_cli_group event_watch_group = {"Options", event_watch_options};

static const mir_cli_option event_delete_options[] = {
    EVENT_FILTERS,
    EVENT_TIMES,
    {MIR_OPT_YES, "yes", 'y', false, NULL, NULL, "do not ask"},
    END_OPTIONS,
};
static const mir_cli_group event_delete_group = {"Options", event_delete_options};

static const mir_cli_option event_show_options[] = {
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "yaml|json", "yaml or json"},
    END_OPTIONS,
};
static const mir_cli_group event_show_group = {"Options", event_show_options};

static const mir_cli_option event_verify_options[] = {
    {MIR_OPT_HEAD, "head", 0, false, "HASH", NULL,
     "a head that was noted before: must be in the chain"},
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|json|yaml", "table, json or yaml"},
    END_OPTIONS,
};
static const mir_cli_group event_verify_group = {"Options", event_verify_options};

static const mir_cli_option history_options[] = {
    {MIR_OPT_AT, "at", 0, false, "TIME", NULL, "the twin as it was then, or so long ago (10m)"},
    {MIR_OPT_LIMIT, "limit", 0, false, "N", NULL, "at most so many events"},
    {MIR_OPT_ID, "id", 0, false, "ID", NULL, "the device by its id"},
    UTC_OPTION,
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|wide|json|yaml",
     "table, wide, json or yaml"},
    END_OPTIONS,
};
static const mir_cli_group history_group = {"Options", history_options};

static const mir_cli_option list_options[] = {
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|wide|json|yaml|name",
     "table, wide, json, yaml or name"},
    {MIR_OPT_EVENTS, "events", 0, false, NULL, NULL, "include the latest events (json, yaml)"},
    END_OPTIONS,
};
static const mir_cli_group list_group = {"Options", list_options};

static const mir_cli_option format_option[] = {
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|json|yaml", "table, json or yaml"},
    END_OPTIONS,
};
static const mir_cli_group format_group = {"Options", format_option};

static const mir_cli_option create_options[] = {
    {MIR_OPT_SET_ID, "id", 0, false, "ID", NULL,
     "what the device calls itself (default: its NAME)"},
    {MIR_OPT_SET_LABELS, "labels", 'l', false, "KEY=VALUE", NULL,
     "labels of the device, as a list a=b,c=d"},
    {MIR_OPT_SET_LABELS, "label", 0, true, "KEY=VALUE", NULL, NULL},
    {MIR_OPT_SET_ANNOTATIONS, "annotations", 0, false, "KEY=VALUE", NULL,
     "annotations, as a list a=b,c=d"},
    {MIR_OPT_DISABLE, "disabled", 0, false, NULL, NULL, "create it disabled"},
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|json|yaml", "table, json or yaml"},
    END_OPTIONS,
};
static const mir_cli_group create_group = {"Options", create_options};

static const mir_cli_option update_options[] = {
    {MIR_OPT_SET_LABELS, "labels", 'l', false, "KEY=VALUE", NULL,
     "labels to set; KEY=null removes a label"},
    {MIR_OPT_SET_ANNOTATIONS, "annotations", 0, false, "KEY=VALUE", NULL,
     "annotations to set; KEY=null removes one"},
    {MIR_OPT_SET_NAME, "set-name", 0, false, "NAME", NULL, "new name"},
    {MIR_OPT_SET_NAMESPACE, "set-namespace", 0, false, "NAMESPACE", NULL, "new namespace"},
    {MIR_OPT_SET_ID, "set-id", 0, false, "ID", NULL, "new device id"},
    {MIR_OPT_DISABLE, "disable", 0, false, NULL, NULL, "disable the devices: they are cut off"},
    {MIR_OPT_ENABLE, "enable", 0, false, NULL, NULL, "enable the devices"},
    {MIR_OPT_SET_DISABLED, "disabled", 0, false, "BOOL", "true|false", "true or false"},
    {MIR_OPT_DESIRED, "desired", 0, false, "NAME=JSON", NULL,
     "a desired property, as 'pkg.v1.Msg={\"a\": 1}'; may repeat"},
    {MIR_OPT_PAYLOAD, "properties", 'p', false, "JSON", NULL,
     "desired properties by name; @FILE reads a file, - standard input"},
    {MIR_OPT_IF_VERSION, "if-version", 0, false, "N", NULL,
     "refuse if a device is not at this version (status.version)"},
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|json|yaml", "table, json or yaml"},
    END_OPTIONS,
};
static const mir_cli_group update_group = {"Changes", update_options};

static const mir_cli_option apply_options[] = {
    {MIR_OPT_FILE, "file", 'f', false, "FILE", NULL,
     "YAML or JSON file, - for standard input; may repeat"},
    {MIR_OPT_DRY_RUN, "dry-run", 0, false, NULL, NULL, "only say what would happen"},
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|json|yaml", "table, json or yaml"},
    END_OPTIONS,
};
static const mir_cli_group apply_group = {"Options", apply_options};

static const mir_cli_option delete_options[] = {
    {MIR_OPT_YES, "yes", 'y', false, NULL, NULL, "do not ask"},
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|json|yaml", "table, json or yaml"},
    END_OPTIONS,
};
static const mir_cli_group delete_group = {"Options", delete_options};

static const mir_cli_option schema_options[] = {
    {MIR_OPT_REFRESH, "refresh", 0, false, NULL, NULL, "ask the device for its schema first"},
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|json|yaml", "table, json or yaml"},
    END_OPTIONS,
};
static const mir_cli_group schema_group = {"Options", schema_options};

static const mir_cli_option telemetry_list_options[] = {
    {MIR_OPT_MEASUREMENT, "measurement", 'm', false, "NAME", NULL,
     "only these messages, by full name"},
    {MIR_OPT_FILTER, "filter", 0, false, "KEY=VALUE", NULL, "only messages with these labels"},
    {MIR_OPT_REFRESH, "refresh", 0, false, NULL, NULL, "ask the devices for their schemas first"},
    {MIR_OPT_SPARKLINE, "sparkline", 0, false, NULL, NULL,
     "draw the last hour of each field (of several devices: their mean)"},
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|wide|json|yaml",
     "table, wide, json or yaml"},
    END_OPTIONS,
};
static const mir_cli_group telemetry_list_group = {"Options", telemetry_list_options};

static const mir_cli_option query_options[] = {
    {MIR_OPT_MEASUREMENT, "measurement", 'm', false, "NAME", NULL,
     "message to query, by full name"},
    {MIR_OPT_FIELDS, "fields", 'f', false, "FIELD", NULL, "only these fields, as a list a,b"},
    {MIR_OPT_SINCE, "since", 's', false, "DURATION", NULL, "from so long ago until now (1h)"},
    {MIR_OPT_FROM, "from", 0, false, "TIME", NULL,
     "from this time: RFC 3339, seconds since 1970, or 10m: so long ago"},
    {MIR_OPT_TO, "to", 0, false, "TIME", NULL, "until before this time (now)"},
    {MIR_OPT_TO, "until", 0, true, "TIME", NULL, NULL},
    {MIR_OPT_AGG, "agg", 'a', false, "FUNCTION", NULL,
     "what rows come to: mean, min, max, sum, count, first, last, rate, p99; a list a,b"},
    {MIR_OPT_WINDOW, "every", 'w', false, "DURATION", NULL,
     "a row for each such window, as 10s or 1m (of means, without --agg)"},
    {MIR_OPT_WINDOW, "window", 0, true, "DURATION", NULL, NULL},
    {MIR_OPT_GROUP_BY, "group-by", 'g', false, "WHAT", NULL,
     "whose rows are taken together: device, namespace, label:KEY or all"},
    {MIR_OPT_LAST, "last", 0, false, NULL, NULL, "the newest value of each field of each device"},
    {MIR_OPT_POINTS, "points", 0, false, "N", NULL,
     "so many rows of each field of a device that show its course best"},
    {MIR_OPT_LIMIT, "limit", 0, false, "ROWS", NULL,
     "only the latest rows; a note says how to go on with older ones"},
    {MIR_OPT_CURSOR, "cursor", 0, false, "CURSOR", NULL, "go on where a --limit ended"},
    {MIR_OPT_DESC, "desc", 0, false, NULL, NULL, "the newest row first"},
    {MIR_OPT_UTC, "utc", 0, false, NULL, NULL, "times of the table in UTC instead of local time"},
    {MIR_OPT_SPARKLINE, "sparkline", 0, false, NULL, NULL,
     "draw each field below the table (of windows, on terminals: always)"},
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|wide|json|yaml|csv",
     "table, wide, json, yaml or csv"},
    END_OPTIONS,
};
static const mir_cli_group query_group = {"Options", query_options};

static const mir_cli_option plot_options[] = {
    {MIR_OPT_MEASUREMENT, "measurement", 'm', false, "NAME", NULL, "message to draw, by full name"},
    {MIR_OPT_FIELDS, "fields", 'f', false, "FIELD", NULL,
     "these fields, as a list a,b (all that are numbers)"},
    {MIR_OPT_SINCE, "since", 's', false, "DURATION", NULL, "from so long ago until now (1h)"},
    {MIR_OPT_FROM, "from", 0, false, "TIME", NULL,
     "from this time: RFC 3339, seconds since 1970, or 10m: so long ago"},
    {MIR_OPT_TO, "to", 0, false, "TIME", NULL, "until before this time (now)"},
    {MIR_OPT_TO, "until", 0, true, "TIME", NULL, NULL},
    {MIR_OPT_AGG, "agg", 'a', false, "FUNCTION", NULL,
     "what a window comes to: mean, min, max, sum, count, rate, p99; a list a,b"},
    {MIR_OPT_WINDOW, "every", 'w', false, "DURATION", NULL,
     "length of a window, as 10s (with --agg: what fits the width)"},
    {MIR_OPT_WINDOW, "window", 0, true, "DURATION", NULL, NULL},
    {MIR_OPT_GROUP_BY, "group-by", 'g', false, "WHAT", NULL,
     "whose rows are taken together: device, namespace, label:KEY or all"},
    {MIR_OPT_FOLLOW, "follow", 'F', false, NULL, NULL, "draw again and again, until Ctrl-C"},
    {MIR_OPT_FOLLOW, "watch", 0, true, NULL, NULL, NULL},
    {MIR_OPT_MIN, "min", 0, false, "VALUE", NULL,
     "the axis goes down to this, or lower for values"},
    {MIR_OPT_MAX, "max", 0, false, "VALUE", NULL, "the axis goes up to this, or higher for values"},
    {MIR_OPT_WIDTH, "width", 0, false, "COLUMNS", NULL, "of the chart (the terminal's, or 80)"},
    {MIR_OPT_HEIGHT, "height", 0, false, "LINES", NULL, "of the chart (the terminal's, or 20)"},
    {MIR_OPT_ASCII, "ascii", 0, false, NULL, NULL,
     "draw with plain letters (always, where the locale is not UTF-8)"},
    {MIR_OPT_UTC, "utc", 0, false, NULL, NULL, "times in UTC instead of local time"},
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "chart|json|yaml",
     "chart, or its points as json or yaml"},
    END_OPTIONS,
};
static const mir_cli_group plot_group = {"Options", plot_options};

static const mir_cli_option export_options[] = {
    {MIR_OPT_MEASUREMENT, "measurement", 'm', false, "NAME", NULL,
     "only these messages, by full name, as a list a,b"},
    {MIR_OPT_FIELDS, "fields", 'f', false, "FIELD", NULL, "only these fields, as a list a,b"},
    {MIR_OPT_SINCE, "since", 's', false, "DURATION", NULL, "from so long ago (all there is)"},
    {MIR_OPT_FROM, "from", 0, false, "TIME", NULL,
     "from this time: RFC 3339, or seconds since 1970"},
    {MIR_OPT_TO, "to", 0, false, "TIME", NULL, "until before this time (now)"},
    {MIR_OPT_TO, "until", 0, true, "TIME", NULL, NULL},
    {MIR_OPT_FORMAT, "format", 0, false, "FORMAT", "csv|jsonl|line",
     "csv, jsonl (JSON lines) or line (Influx line protocol)"},
    {MIR_OPT_OUTPUT_FILE, "output-file", 'O', false, "FILE", NULL,
     "write to this file, which is there when it is whole"},
    END_OPTIONS,
};
static const mir_cli_group export_group = {"Options", export_options};

static const mir_cli_option import_options[] = {
    {MIR_OPT_FORMAT, "format", 0, false, "FORMAT", "csv|line",
     "csv or line (Influx line protocol), when it is not to be guessed"},
    {MIR_OPT_DEVICE, "device", 0, false, "ID", NULL, "rows are of this device, whatever they say"},
    {MIR_OPT_MEASUREMENT, "measurement", 'm', false, "NAME", NULL,
     "rows are of this message, whatever they say"},
    {MIR_OPT_PRECISION, "precision", 0, false, "UNIT", "ns|us|ms|s",
     "of times that are whole numbers: ns, us, ms or s (ns)"},
    {MIR_OPT_FROM_LINE, "from-line", 0, false, "LINE", NULL,
     "begin with the rows of this line, as an import that was stopped says"},
    {MIR_OPT_DRY_RUN, "dry-run", 0, false, NULL, NULL, "only check, and send nothing"},
    END_OPTIONS,
};
static const mir_cli_group import_group = {"Options", import_options};

static const mir_cli_option telemetry_watch_options[] = {
    {MIR_OPT_MEASUREMENT, "measurement", 'm', false, "NAME", NULL,
     "only these messages, by full name, as a list a,b"},
    {MIR_OPT_FIELDS, "fields", 'f', false, "FIELD", NULL, "only these fields, as a list a,b"},
    UTC_OPTION,
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|wide|json|csv|line",
     "table, wide, json (a line each), csv or line (Influx line protocol)"},
    END_OPTIONS,
};
static const mir_cli_group telemetry_watch_group = {"Options", telemetry_watch_options};

static const mir_cli_option context_add_options[] = {
    {MIR_OPT_GRAFANA, "grafana", 0, false, "HOST", NULL,
     "address of a Grafana that shows its data"},
    END_OPTIONS,
};
static const mir_cli_group context_add_group = {"Options", context_add_options};

static const mir_cli_option help_options[] = {
    {MIR_OPT_MAN, "man", 0, false, NULL, NULL, "write the man page (roff) to standard output"},
    END_OPTIONS,
};
static const mir_cli_group help_group = {"Options", help_options};

static const mir_cli_option serve_options[] = {
    {MIR_OPT_CONFIG, "config", 'c', false, "FILE", NULL, "configuration file"},
    {MIR_OPT_DATA, "data", 'd', false, "DIR", NULL, "data directory"},
    {MIR_OPT_LISTEN, "listen", 'l', false, "HOST:PORT", NULL,
     "where to listen; port 0 picks a free one"},
    {MIR_OPT_SERVE_ADMIN, "admin", 0, false, "PATH", NULL, "admin socket (DATA/admin.sock)"},
    {MIR_OPT_SHARDS, "shards", 0, false, "N", NULL, "threads; 0 is one for each core"},
    {MIR_OPT_LOG_LEVEL, "log-level", 0, false, "LEVEL", "error|warn|info|debug|trace",
     "error, warn, info, debug or trace"},
    {MIR_OPT_SET, "set", 0, false, "KEY=VALUE", NULL, "one key of the configuration; may repeat"},
    {MIR_OPT_DISPLAY_CFG, "display-default-cfg", 0, false, NULL, NULL,
     "print every key with its default, and end"},
    {MIR_OPT_HELP, "help", 'h', false, NULL, NULL, "show this help"},
    END_OPTIONS,
};
static const mir_cli_group serve_group = {"Options", serve_options};

static const mir_cli_option storage_verify_options[] = {
    {MIR_OPT_DATA, "data", 'd', false, "DIR", NULL, "data directory, or a backup"},
    {MIR_OPT_EVENTS, "events", 0, false, NULL, NULL, "prove the chain of all events, too"},
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|json", "table or json"},
    END_OPTIONS,
};
static const mir_cli_group storage_verify_group = {"Options", storage_verify_options};
static const mir_cli_option storage_stats_options[] = {
    {MIR_OPT_DATA, "data", 'd', false, "DIR", NULL, "data directory, or a backup"},
    {MIR_OPT_LIMIT, "limit", 0, false, "N", NULL, "so many measurements, the largest first (20)"},
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|json", "table or json"},
    END_OPTIONS,
};
static const mir_cli_group storage_stats_group = {"Options", storage_stats_options};
static const mir_cli_option storage_backup_options[] = {
    {MIR_OPT_DATA, "data", 'd', false, "DIR", NULL, "data directory"},
    {MIR_OPT_COPY, "copy", 0, false, NULL, NULL,
     "copy all; else files that never change get a second name where that is possible"},
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|json", "table or json"},
    END_OPTIONS,
};
static const mir_cli_group storage_backup_group = {"Options", storage_backup_options};
static const mir_cli_option storage_repair_options[] = {
    {MIR_OPT_DATA, "data", 'd', false, "DIR", NULL, "data directory"},
    {MIR_OPT_DRY_RUN, "dry-run", 0, false, NULL, NULL,
     "change nothing, and say what would be done"},
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|json", "table or json"},
    END_OPTIONS,
};
static const mir_cli_group storage_repair_group = {"Options", storage_repair_options};
static const mir_cli_option storage_restore_options[] = {
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|json", "table or json"},
    END_OPTIONS,
};
static const mir_cli_group storage_restore_group = {"Options", storage_restore_options};

static const mir_cli_example storage_verify_examples[] = {
    {"mir storage verify", "Check everything in the default data directory."},
    {"mir storage verify --data /srv/mir --events", "Another one, with the chain of events."},
    {"mir storage verify --data /backup/monday -o json", "A backup, for a program."},
    END_EXAMPLES,
};
static const mir_cli_example storage_stats_examples[] = {
    {"mir storage stats --limit 5", "What takes the room."},
    END_EXAMPLES,
};
static const mir_cli_example storage_repair_examples[] = {
    {"mir storage repair --dry-run", "What is damaged, what would be lost, what would be done."},
    {"mir storage repair --data /srv/mir", "Repair another data directory."},
    END_EXAMPLES,
};
static const mir_cli_example storage_backup_examples[] = {
    {"mir storage backup /backup/monday", "Back up while the server runs."},
    {"mir storage backup --data /srv/mir --copy /mnt/disk/monday",
     "Another data directory, sharing no file with it."},
    END_EXAMPLES,
};
static const mir_cli_example storage_restore_examples[] = {
    {"mir storage restore /backup/monday /srv/mir", "Restore; then start the server on /srv/mir."},
    END_EXAMPLES,
};

static const mir_cli_example serve_examples[] = {
    {"mir serve", "Serve on 127.0.0.1:4222 with the default data directory."},
    {"mir serve --data /srv/mir --listen 0.0.0.0:4222 --set auth.mode=token --set "
     "auth.token=SECRET",
     "Serve the network, with a token."},
    END_EXAMPLES,
};
static const mir_cli_example list_examples[] = {
    {"mir device list", "All devices."},
    {"mir device list host -o yaml", "The twin of one device."},
    {"mir device list --namespace=factory --label=\"location=floor-2,status=online\"",
     "Those of a namespace and a label that are online."},
    {"mir device list 'pump-*/plant' -o name", "By pattern, names only, one a line."},
    END_EXAMPLES,
};
static const mir_cli_example create_examples[] = {
    {"mir device create pump-7/plant --id pump-7 --labels floor=2,type=pump",
     "Register a device before it connects for the first time."},
    END_EXAMPLES,
};
static const mir_cli_example update_examples[] = {
    {"mir device update pump-7/plant --labels floor=3", "Set a label."},
    {"mir device update '*/plant' --labels floor=null", "Remove a label from all of a namespace."},
    {"mir device update pump-7/plant --set-name pump-8", "Rename a device."},
    {"mir device update pump-7/plant --desired 'pump.v1.Speed={\"rpm\": 900}' --if-version 12",
     "Set a property, unless somebody else changed the device in between."},
    END_EXAMPLES,
};
static const mir_cli_example apply_examples[] = {
    {"mir device apply -f devices.yaml", "Create or update every device in a file."},
    {"mir device list pump-7/plant -o yaml | sed s/floor:.*/floor:\\ \"4\"/ | mir device apply -f "
     "-",
     "Change a device through a pipe."},
    END_EXAMPLES,
};
static const mir_cli_example delete_examples[] = {
    {"mir device delete pump-7/plant", "Delete one device, after asking."},
    {"mir device delete '*/plant' --yes", "Delete all of a namespace without asking."},
    END_EXAMPLES,
};
static const mir_cli_example schema_examples[] = {
    {"mir device schema host/default", "What the device sends and understands."},
    END_EXAMPLES,
};
static const mir_cli_example telemetry_list_examples[] = {
    {"mir telemetry list host", "What the device measures, with units."},
    {"mir telemetry list host --sparkline", "The same, and how the last hour went."},
    {"mir telemetry list --namespace factory -m host.v1.Cpu", "One message of many devices."},
    END_EXAMPLES,
};
static const mir_cli_example query_examples[] = {
    {"mir telemetry query host -m host.v1.Cpu --since 1m", "The last minute."},
    {"mir telemetry query host -m host.v1.Memory -f used --every 10s", "Means of ten seconds."},
    {"mir telemetry query '*/plant' -m pump.v1.Flow --last", "What each device said last."},
    {"mir telemetry query '*/plant' -m pump.v1.Flow -f rate --agg mean,p99 --every 1h --group-by "
     "label:hall",
     "Means and percentiles of each hall, by the hour."},
    {"mir tlm query '*/plant' -m pump.v1.Flow --from 2026-01-02T15:00:00Z --to "
     "2026-01-02T16:00:00Z -o csv",
     "An hour of all devices of a namespace, for a spreadsheet."},
    END_EXAMPLES,
};
static const mir_cli_example plot_examples[] = {
    {"mir telemetry plot host -m host.v1.Cpu -f total --since 10m", "One value as a chart."},
    {"mir telemetry plot host -m host.v1.Memory --follow", "Everything of a message, live."},
    {"mir telemetry plot host -m host.v1.Cpu -f user,system --every 10s --min 0 --max 100",
     "Means of ten seconds, on a scale of all there can be."},
    {"mir telemetry plot '*/plant' -m pump.v1.Flow -f rate --agg min,mean,max --group-by all "
     "--since 7d",
     "What a fleet comes to, in a week."},
    {"mir telemetry plot pump-7 -m pump.v1.Flow -f rate --from 2026-01-02 --to 2026-01-03 "
     "--ascii --width 72",
     "A day, in letters that go into any mail."},
    END_EXAMPLES,
};
static const mir_cli_example export_examples[] = {
    {"mir telemetry export -O all.csv", "All rows of all devices."},
    {"mir telemetry export '*/plant' -m pump.v1.Flow --since 7d --format jsonl | zstd > flow.zst",
     "A week of one message, for a program."},
    END_EXAMPLES,
};
static const mir_cli_example import_examples[] = {
    {"mir telemetry import all.csv", "What was exported, also to another server."},
    {"mir telemetry import --dry-run all.csv", "What would be refused, and why."},
    {"mir telemetry import --from-line 250001 all.csv", "The rest, after one that was stopped."},
    {"mir telemetry import --format line --precision s --device pump-7 -m pump.v1.Flow -",
     "Points of another database, of one device, from standard input."},
    END_EXAMPLES,
};
static const mir_cli_example telemetry_watch_examples[] = {
    {"mir telemetry watch", "Everything that comes in."},
    {"mir telemetry watch host -m host.v1.Cpu -f total -o csv", "One value, for a program."},
    END_EXAMPLES,
};
static const mir_cli_example history_examples[] = {
    {"mir device history pump-7/plant", "Everything that was changed, and by whom."},
    {"mir device history pump-7/plant --at 2026-01-02T15:00:00Z", "The twin as it was then."},
    {"mir device history pump-7/plant --at 10m", "The twin as it was ten minutes ago."},
    END_EXAMPLES,
};
static const mir_cli_example command_list_examples[] = {
    {"mir command list pump-7/plant", "What the device can be told to do."},
    {"mir command list '*/plant' -o name", "The names, one a line."},
    END_EXAMPLES,
};
static const mir_cli_example command_send_examples[] = {
    {"mir command send '*/production' -n start_bootup", "A command without fields."},
    {"mir command send pump-7/plant -n pump.v1.Stop -p '{\"afterMs\": 500}'", "With a payload."},
    {"mir command send pump-7/plant -n stop -j > stop.json", "What the payload looks like."},
    {"mir command send --label type=pump -n stop -p @stop.json --stream",
     "To many devices; each result is shown as soon as it comes."},
    {"mir command send pump-7/plant -n pump.v1.Stop --protobuf --no-validation -p @stop.bin",
     "Bytes as they are, that nobody looks at."},
    {"mir command send pump-7/plant -n pkg.Reboot --queue --ttl 1h",
     "Wait for the device if it is away, an hour at most."},
    END_EXAMPLES,
};
static const mir_cli_example queue_examples[] = {
    {"mir command queue list --state queued", "What waits for its device."},
    {"mir command queue cancel 0198c0de", "Take one back that was not sent yet."},
    END_EXAMPLES,
};
static const mir_cli_example config_list_examples[] = {
    {"mir config list pump-7/plant", "What is wanted, and what the device says."},
    END_EXAMPLES,
};
static const mir_cli_example config_send_examples[] = {
    {"mir config send --label=\"type=temp-sensor\" -n datarate -p '{\"interval\": 60}'",
     "Set a property of many devices."},
    {"mir config send pump-7/plant -n pump.v1.Speed -e", "Edit what is set now."},
    {"mir config send pump-7/plant -n speed --show-values", "See what is set now."},
    END_EXAMPLES,
};
static const mir_cli_example event_list_examples[] = {
    {"mir event list", "The newest events."},
    {"mir event list pump-7/plant --since 1d --type warning", "What went wrong with a device."},
    {"mir event list --reason DeviceUpdated --actor ada -o json", "What somebody changed."},
    END_EXAMPLES,
};
static const mir_cli_example event_watch_examples[] = {
    {"mir event watch --namespace factory", "What happens in a namespace."},
    {"mir event watch --after 1200 -o json", "Everything since an event, for a program."},
    END_EXAMPLES,
};
static const mir_cli_example event_delete_examples[] = {
    {"mir event delete --namespace factory --to 2026-01-01", "What is old, after asking."},
    END_EXAMPLES,
};
static const mir_cli_example event_verify_examples[] = {
    {"mir event verify", "Check the chain, and show its head, to be noted elsewhere."},
    {"mir event verify --head 9f86d081...", "Check that what was there then is still there."},
    END_EXAMPLES,
};
static const mir_cli_example status_examples[] = {
    {"mir status", "How the server does, and what is wrong if anything."},
    {"mir status -o json", "The same for programs."},
    END_EXAMPLES,
};
static const mir_cli_example context_examples[] = {
    {"mir context add plant nats://mir.plant.example:4222", "Name a server."},
    {"mir context use plant", "Talk to it from now on."},
    END_EXAMPLES,
};
static const mir_cli_example completion_examples[] = {
    {"mir completion bash > /etc/bash_completion.d/mir", "For every bash of this machine."},
    {"mir completion zsh > \"${fpath[1]}/_mir\"", "For zsh."},
    {"mir completion fish > ~/.config/fish/completions/mir.fish", "For fish."},
    END_EXAMPLES,
};

#define TARGET_TEXT                                                                                \
    "A TARGET is NAME/NAMESPACE, NAME (in any namespace), '*/NAMESPACE' or '*/*';\n"               \
    "quote the stars (zsh insists, other shells may find files). Flags narrow it."

extern const mir_cli_command mir_cli_device_children[];

static const mir_cli_command sink_children[] = {
    {"status",
     NULL,
     NULL,
     NULL,
     "Show what was forwarded, what waits and what went wrong",
     "Where telemetry is forwarded to is `telemetry.sink` in the configuration of the\n"
     "server. Counts are since it started. The exit code is 1 while the other side does\n"
     "not accept anything.",
     0,
     0,
     {&format_group, NULL},
     NULL,
     NULL,
     mir_cli_telemetry_sink},
    {0},
};

static const mir_cli_command telemetry_children[] = {
    {"list",
     "ls",
     "[TARGET...]",
     "device",
     "Show what devices measure: fields, units, labels",
     "From the schemas that the devices sent. A field without data in the last\n"
     "30 days is marked.\n\n" TARGET_TEXT,
     0,
     MIR_CLI_WORDS_MAX,
     {&telemetry_list_group, &target_group, NULL},
     telemetry_list_examples,
     NULL,
     mir_cli_telemetry_list},
    {"query",
     NULL,
     "[TARGET...]",
     "device",
     "Show stored telemetry",
     "Rows are in order of time. With --every each row is what a window comes to\n"
     "and carries the time at which the window ends. When stored rows cannot be\n"
     "read the others are shown, and the exit code is 1.\n\n" TARGET_TEXT,
     0,
     MIR_CLI_WORDS_MAX,
     {&query_group, &target_group, NULL},
     query_examples,
     NULL,
     mir_cli_telemetry_query},
    {"plot",
     NULL,
     "[TARGET...]",
     "device",
     "Draw stored telemetry as a chart",
     "A line for each field of each device, in a chart of its own for each unit. Of\n"
     "many rows the server chooses those that show the course best; with --agg or\n"
     "--every windows are drawn, at the time at which they end. Where rows are\n"
     "missing the line has a gap. Without colours lines differ by their letters.\n\n" TARGET_TEXT,
     0,
     MIR_CLI_WORDS_MAX,
     {&plot_group, &target_group, NULL},
     plot_examples,
     NULL,
     mir_cli_telemetry_plot},
    {"watch",
     NULL,
     "[TARGET...]",
     "device",
     "Show telemetry as it comes in",
     "As devices send it, stored or refused. Ctrl-C ends.\n\n" TARGET_TEXT,
     0,
     MIR_CLI_WORDS_MAX,
     {&telemetry_watch_group, &target_group, NULL},
     telemetry_watch_examples,
     NULL,
     mir_cli_telemetry_watch},
    {"export",
     NULL,
     "[TARGET...]",
     "device",
     "Write stored telemetry to a file",
     "Any number of rows, device by device, each in order of time, with every digit.\n"
     "Without -m the messages that the schemas of the devices declare now.\n"
     "In csv each message has a section with its own header behind an empty line.\n"
     "An empty cell has no value, \"\" is an empty text.\n\n" TARGET_TEXT,
     0,
     MIR_CLI_WORDS_MAX,
     {&export_group, &target_group, NULL},
     export_examples,
     NULL,
     mir_cli_telemetry_export},
    {"import",
     NULL,
     "FILE",
     NULL,
     "Send the rows of a file as if their devices did",
     "CSV as export writes it, with the columns _time, __id and _measurement, or\n"
     "Influx line protocol with the tag __id; FILE - is standard input. Devices have\n"
     "to be registered, and rows have to fit their schemas. The values of a row\n"
     "take the place of those of the same device, message, time and field. What is\n"
     "refused is told with its line, and the exit code is 1. Whoever stops it with\n"
     "Ctrl-C is told from which line it can go on.",
     1,
     1,
     {&import_group, NULL},
     import_examples,
     NULL,
     mir_cli_telemetry_import},
    {"retention",
     NULL,
     NULL,
     NULL,
     "Show how long telemetry is kept, and what was removed",
     "The rules are `telemetry.retention` in the configuration of the server; the\n"
     "first one that fits counts. What was removed is counted over restarts.",
     0,
     0,
     {&format_group, NULL},
     NULL,
     NULL,
     mir_cli_telemetry_retention},
    {"sink",
     NULL,
     NULL,
     NULL,
     "Telemetry that is forwarded to another system",
     NULL,
     0,
     0,
     {NULL},
     NULL,
     sink_children,
     NULL},
    {0},
};

static const mir_cli_command queue_children[] = {
    {"list",
     "ls",
     "[TARGET...]",
     "device",
     "Show commands that wait or waited for a device",
     "Newest first. One that was sent is never sent a second time.\n\n" TARGET_TEXT,
     0,
     MIR_CLI_WORDS_MAX,
     {&queue_list_group, &target_group, NULL},
     queue_examples,
     NULL,
     mir_cli_queue_list},
    {"show",
     NULL,
     "ID...",
     NULL,
     "Show all of a queued command, with its states and their times",
     NULL,
     1,
     MIR_CLI_WORDS_MAX,
     {&format_group, NULL},
     NULL,
     NULL,
     mir_cli_queue_show},
    {"cancel",
     NULL,
     "[ID...]",
     NULL,
     "Take back commands that were not sent yet",
     "By their ids, or those of devices that the flags say.",
     0,
     MIR_CLI_WORDS_MAX,
     {&format_group, &target_group, NULL},
     queue_examples,
     NULL,
     mir_cli_queue_cancel},
    {0},
};

static const mir_cli_command command_children[] = {
    {"list",
     "ls",
     "[TARGET...]",
     "device",
     "Show the commands that devices understand",
     "From the schemas that the devices sent, once for devices with the same one.\n"
     "A template shows every field with a sample.\n\n" TARGET_TEXT,
     0,
     MIR_CLI_WORDS_MAX,
     {&message_list_group, &target_group, NULL},
     command_list_examples,
     NULL,
     mir_cli_command_list},
    {"send",
     NULL,
     "[TARGET...]",
     "device",
     "Send a command to devices",
     "NAME may leave out the package when only one command is called so; case and _\n"
     "do not matter. Without a payload the command goes with its fields unset. It\n"
     "comes from -p, or from a pipe or a file on standard input.\n\n"
     "Nothing is sent when one of the devices cannot have it, unless --force-push.\n"
     "The exit code is 1 when a device failed.\n\n" TARGET_TEXT,
     0,
     MIR_CLI_WORDS_MAX,
     {&command_send_group, &send_target_group, NULL},
     command_send_examples,
     NULL,
     mir_cli_command_send},
    {"queue",
     NULL,
     NULL,
     NULL,
     "Commands that wait for their device",
     NULL,
     0,
     0,
     {NULL},
     NULL,
     queue_children,
     NULL},
    {0},
};

static const mir_cli_command config_children[] = {
    {"list",
     "ls",
     "[TARGET...]",
     "device",
     "Show what is configured, and what devices report of it",
     "A property is in sync when the device reports every field as it is desired.\n"
     "Of more than 20 devices those that say the same share their rows; -o wide has\n"
     "a row for each.\n\n" TARGET_TEXT,
     0,
     MIR_CLI_WORDS_MAX,
     {&message_list_group, &target_group, NULL},
     config_list_examples,
     NULL,
     mir_cli_config_list},
    {"send",
     NULL,
     "[TARGET...]",
     "device",
     "Set a property of devices",
     "Stored durably, and sent to the devices that are there; the others get it when\n"
     "they return. NAME may leave out the package when only one property is called\n"
     "so; case and _ do not matter. The value comes from -p, from a pipe or a file on\n"
     "standard input, or out of an editor.\n\n" TARGET_TEXT,
     0,
     MIR_CLI_WORDS_MAX,
     {&config_send_group, &send_target_group, NULL},
     config_send_examples,
     NULL,
     mir_cli_config_send},
    {0},
};

static const mir_cli_command event_children[] = {
    {"list",
     "ls",
     "[TARGET...]",
     "device",
     "Show what happened, newest first",
     "Events of a device that was renamed or is gone are found as well.\n\n" TARGET_TEXT,
     0,
     MIR_CLI_WORDS_MAX,
     {&event_list_group, &target_group, NULL},
     event_list_examples,
     NULL,
     mir_cli_event_list},
    {"show",
     NULL,
     "SEQ...",
     NULL,
     "Show all of an event: payload, who caused it, what changed",
     NULL,
     1,
     MIR_CLI_WORDS_MAX,
     {&event_show_group, NULL},
     NULL,
     NULL,
     mir_cli_event_show},
    {"watch",
     NULL,
     "[TARGET...]",
     "device",
     "Show events as they happen",
     "Without a gap and without a double, also over a lost connection. Ctrl-C ends\n"
     "it and says from where --after goes on.\n\n" TARGET_TEXT,
     0,
     MIR_CLI_WORDS_MAX,
     {&event_watch_group, &target_group, NULL},
     event_watch_examples,
     NULL,
     mir_cli_event_watch},
    {"delete",
     "rm",
     "[TARGET...]",
     "device",
     "Delete events",
     "Asks first when run on a terminal; elsewhere it needs --yes. The chain of\n"
     "`mir event verify` keeps their hashes, and who deleted them.\n\n" TARGET_TEXT,
     0,
     MIR_CLI_WORDS_MAX,
     {&event_delete_group, &target_group, NULL},
     event_delete_examples,
     NULL,
     mir_cli_event_delete},
    {"verify",
     NULL,
     NULL,
     NULL,
     "Check that no stored event was altered or taken away",
     "The exit code is 1 when a link of the chain is broken, or the given head is\n"
     "not in it.",
     0,
     0,
     {&event_verify_group, NULL},
     event_verify_examples,
     NULL,
     mir_cli_event_verify},
    {"retention",
     NULL,
     NULL,
     NULL,
     "Show how long events are kept",
     "The rules are `events.retention` in the configuration of the server.",
     0,
     0,
     {&format_group, NULL},
     NULL,
     NULL,
     mir_cli_event_retention},
    {0},
};

const mir_cli_command mir_cli_device_children[] = {
    {"list",
     "ls",
     "[TARGET...]",
     "device",
     "Show devices",
     TARGET_TEXT
     "\n\n-o json is an array of complete devices. -o yaml is a document for each device,\n"
     "without the bytes of the schema (see `mir device schema`).",
     0,
     MIR_CLI_WORDS_MAX,
     {&list_group, &target_group, NULL},
     list_examples,
     NULL,
     mir_cli_device_list},
    {"create",
     NULL,
     "NAME[/NAMESPACE]",
     NULL,
     "Register a device",
     "A device that connects registers itself; creating it first gives it a name,\n"
     "a namespace and labels from the start.",
     1,
     1,
     {&create_group, NULL},
     create_examples,
     NULL,
     mir_cli_device_create},
    {"update",
     NULL,
     "[TARGET...]",
     "device",
     "Change labels, names and the like",
     TARGET_TEXT,
     0,
     MIR_CLI_WORDS_MAX,
     {&update_group, &target_group, NULL},
     update_examples,
     NULL,
     mir_cli_device_update},
    {"apply",
     NULL,
     NULL,
     NULL,
     "Create or update devices from a file",
     "The file has devices as `mir device list -o yaml` or -o json writes them:\n"
     "several documents, or arrays. A device is found by its id, name and\n"
     "namespace, and created when it is not there. What the server keeps itself\n"
     "(status, reported properties) is left alone.",
     0,
     0,
     {&apply_group, NULL},
     apply_examples,
     NULL,
     mir_cli_device_apply},
    {"delete",
     "rm",
     "[TARGET...]",
     "device",
     "Delete devices",
     "Asks first when run on a terminal; elsewhere it needs --yes. Stored telemetry\n"
     "is not touched.\n\n" TARGET_TEXT,
     0,
     MIR_CLI_WORDS_MAX,
     {&delete_group, &target_group, NULL},
     delete_examples,
     NULL,
     mir_cli_device_delete},
    {"schema",
     NULL,
     "TARGET",
     "device",
     "Show the schema of a device as text",
     TARGET_TEXT,
     0,
     MIR_CLI_WORDS_MAX,
     {&schema_group, &target_group, NULL},
     schema_examples,
     NULL,
     mir_cli_device_schema},
    {"history",
     NULL,
     "[NAME/NAMESPACE]",
     "device",
     "Show a device from its creation on",
     "What was changed, by whom, from what to what; also of a device that is gone.",
     0,
     1,
     {&history_group, NULL},
     history_examples,
     NULL,
     mir_cli_device_history},
    {"command",
     "cmd",
     NULL,
     NULL,
     "Commands of devices (the same as `mir command`)",
     NULL,
     0,
     0,
     {NULL},
     NULL,
     command_children,
     NULL},
    {"config",
     "cfg",
     NULL,
     NULL,
     "Configuration of devices (the same as `mir config`)",
     NULL,
     0,
     0,
     {NULL},
     NULL,
     config_children,
     NULL},
    {"event",
     "evt events",
     NULL,
     NULL,
     "What happened (the same as `mir event`)",
     NULL,
     0,
     0,
     {NULL},
     NULL,
     event_children,
     NULL},
    {"telemetry",
     "tlm",
     NULL,
     NULL,
     "What devices measured (the same as `mir telemetry`)",
     NULL,
     0,
     0,
     {NULL},
     NULL,
     telemetry_children,
     NULL},
    {0},
};

static const mir_cli_command context_children[] = {
    {"list",
     "ls",
     NULL,
     NULL,
     "Show the contexts",
     NULL,
     0,
     0,
     {&format_group, NULL},
     NULL,
     NULL,
     mir_cli_context_list},
    {"use",
     NULL,
     "NAME",
     "context",
     "Choose the context to use from now on",
     NULL,
     1,
     1,
     {NULL},
     context_examples,
     NULL,
     mir_cli_context_use},
    {"add",
     NULL,
     "NAME ADDRESS",
     NULL,
     "Add a context, or change its address",
     NULL,
     2,
     2,
     {&context_add_group, NULL},
     context_examples,
     NULL,
     mir_cli_context_add},
    {"current",
     NULL,
     NULL,
     NULL,
     "Show which server would be used, and why",
     NULL,
     0,
     0,
     {NULL},
     NULL,
     NULL,
     mir_cli_context_current},
    {0},
};

static const mir_cli_command storage_children[] = {
    {"verify",
     NULL,
     NULL,
     NULL,
     "Check every checksum in a data directory",
     "Reads all segments, logs and lists of the telemetry log and walks through the\n"
     "state store; of a backup it also compares every file with the backup's list.\n"
     "It works beside a running server, with low priority, and changes nothing.\n\n"
     "Exit codes: 0 all is whole, 4 something is damaged, 1 it could not be examined,\n"
     "2 wrong usage, 130 stopped by Ctrl-C.",
     0,
     0,
     {&storage_verify_group, NULL},
     storage_verify_examples,
     NULL,
     mir_cli_storage},
    {"repair",
     NULL,
     NULL,
     NULL,
     "Make a damaged data directory open again",
     "All rows that can be read are kept; what is lost is said. Files that are replaced\n"
     "are moved to damaged/ in the data directory, and never deleted. The server must\n"
     "be stopped. Of a damaged state store that cannot be copied, restore a backup.\n\n"
     "Exit codes: 0 nothing is damaged any more, 4 something is (with --dry-run: would\n"
     "be repaired, too), 1 it could not be done, 2 wrong usage, 130 stopped by Ctrl-C.",
     0,
     0,
     {&storage_repair_group, NULL},
     storage_repair_examples,
     NULL,
     mir_cli_storage},
    {"stats",
     NULL,
     NULL,
     NULL,
     "What is stored, and what takes the room",
     "Values are counted as rows by the columns of their chunks: where rows lack some\n"
     "of them, there are fewer. Rows that are not in segments yet are not counted.",
     0,
     0,
     {&storage_stats_group, NULL},
     storage_stats_examples,
     NULL,
     mir_cli_storage},
    {"backup",
     NULL,
     "TARGET",
     NULL,
     "Back up everything, also while the server runs",
     "Twins, events, commands and telemetry as of one moment, into a directory that is\n"
     "empty or not there. It is complete, and on the disk, once its file BACKUP is\n"
     "there, which is written last. The user needs to be the server's, or root.",
     1,
     1,
     {&storage_backup_group, NULL},
     storage_backup_examples,
     NULL,
     mir_cli_storage},
    {"restore",
     NULL,
     "BACKUP DATA",
     NULL,
     "Make a data directory from a backup",
     "DATA is empty or not there. Every file is compared with the backup's list. The\n"
     "server does not start on a directory whose restore did not finish.",
     2,
     2,
     {&storage_restore_group, NULL},
     storage_restore_examples,
     NULL,
     mir_cli_storage},
    {0},
};

static const mir_cli_command root_children[] = {
    {"serve",
     NULL,
     NULL,
     NULL,
     "Run the server",
     "The configuration comes from /etc/mir/mir.yaml, ~/.config/mir/mir.yaml, --config,\n"
     "MIR__KEY variables, --set and the flags here; what is later in this list wins.\n"
     "SIGINT and SIGTERM end it cleanly, SIGUSR2 asks clients to move away first.",
     0,
     0,
     {&serve_group, NULL},
     serve_examples,
     NULL,
     mir_cli_serve},
    {"device",
     "dev devices",
     NULL,
     NULL,
     "Devices and their twins",
     NULL,
     0,
     0,
     {NULL},
     NULL,
     mir_cli_device_children,
     NULL},
    {"telemetry",
     "tlm",
     NULL,
     NULL,
     "What devices measured",
     NULL,
     0,
     0,
     {NULL},
     NULL,
     telemetry_children,
     NULL},
    {"command",
     "cmd commands",
     NULL,
     NULL,
     "Commands: send them, see what waits",
     NULL,
     0,
     0,
     {NULL},
     NULL,
     command_children,
     NULL},
    {"config",
     "cfg",
     NULL,
     NULL,
     "Configuration: what is wanted, what is reported",
     NULL,
     0,
     0,
     {NULL},
     NULL,
     config_children,
     NULL},
    {"event",
     "evt events",
     NULL,
     NULL,
     "What happened, who did it, and how it went",
     NULL,
     0,
     0,
     {NULL},
     NULL,
     event_children,
     NULL},
    {"storage",
     NULL,
     NULL,
     NULL,
     "The data directory: verify, repair, stats, backup, restore",
     NULL,
     0,
     0,
     {NULL},
     NULL,
     storage_children,
     NULL},
    {"status",
     NULL,
     NULL,
     NULL,
     "How the server does, and what is wrong if anything",
     NULL,
     0,
     0,
     {&format_group, NULL},
     status_examples,
     NULL,
     mir_cli_status},
    {"context",
     "ctx",
     NULL,
     NULL,
     "Servers by name",
     "Contexts are kept in $XDG_CONFIG_HOME/mir/cli.yaml.",
     0,
     0,
     {NULL},
     NULL,
     context_children,
     NULL},
    {"version",
     NULL,
     NULL,
     NULL,
     "Show the version of this program",
     NULL,
     0,
     0,
     {NULL},
     NULL,
     NULL,
     mir_cli_version},
    {"completion",
     NULL,
     "SHELL",
     "bash|zsh|fish",
     "Write a completion script for a shell",
     "SHELL is bash, zsh or fish.",
     1,
     1,
     {NULL},
     completion_examples,
     NULL,
     mir_cli_completion},
    {"help",
     NULL,
     "[COMMAND...]",
     "command",
     "Show help",
     NULL,
     0,
     MIR_CLI_DEPTH_MAX,
     {&help_group, NULL},
     NULL,
     NULL,
     mir_cli_help_command},
    {0},
};

static const mir_cli_example root_examples[] = {
    {"mir serve", "Start a server."},
    {"mir device list", "Show the devices."},
    {"mir telemetry query host -m host.v1.Cpu --since 1m", "Show what a device measured."},
    {"mir command send '*/production' -n start_bootup", "Tell devices what to do."},
    {"mir event watch", "Watch what happens."},
    {"mir status", "See how the server does."},
    END_EXAMPLES,
};

const mir_cli_command mir_cli_root = {
    "mir",
    NULL,
    NULL,
    NULL,
    "Connect, watch and manage devices",
    "The server is found through --target, --admin, --context, the current context,\n"
    "$MIR_TARGET, $MIR_ADMIN, the admin socket of the default data directory, and\n"
    "at last 127.0.0.1:4222. $MIR_USER, $MIR_PASSWORD and $MIR_TOKEN log in.\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no server reachable, 4 the storage\n"
    "is damaged (mir storage), 130 interrupted.",
    0,
    0,
    {NULL},
    root_examples,
    root_children,
    NULL,
};
