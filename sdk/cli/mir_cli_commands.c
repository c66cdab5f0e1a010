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
     "devices with these labels, a,b: all of them"},
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
    {MIR_OPT_DISABLE, "disable", 0, false, NULL, NULL, "disable the devices"},
    {MIR_OPT_ENABLE, "enable", 0, false, NULL, NULL, "enable the devices"},
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
     "from this time: RFC 3339, or seconds since 1970"},
    {MIR_OPT_TO, "to", 0, false, "TIME", NULL, "until before this time (now)"},
    {MIR_OPT_TO, "until", 0, true, "TIME", NULL, NULL},
    {MIR_OPT_WINDOW, "window", 'w', false, "DURATION", NULL,
     "mean of each such window, as 10s or 1m"},
    {MIR_OPT_LIMIT, "limit", 0, false, "ROWS", NULL, "only the latest rows"},
    {MIR_OPT_UTC, "utc", 0, false, NULL, NULL, "times of the table in UTC instead of local time"},
    {MIR_OPT_OUTPUT, "output", 'o', false, "FORMAT", "table|wide|json|yaml|csv",
     "table, wide, json, yaml or csv"},
    END_OPTIONS,
};
static const mir_cli_group query_group = {"Options", query_options};

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
    {"mir device list --namespace factory --label type=pump,floor=2", "By namespace and labels."},
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
    {"mir telemetry list --namespace factory -m host.v1.Cpu", "One message of many devices."},
    END_EXAMPLES,
};
static const mir_cli_example query_examples[] = {
    {"mir telemetry query host -m host.v1.Cpu --since 1m", "The last minute."},
    {"mir telemetry query host -m host.v1.Memory -f used --window 10s", "Means of ten seconds."},
    {"mir tlm query '*/plant' -m pump.v1.Flow --from 2026-01-02T15:00:00Z --to "
     "2026-01-02T16:00:00Z -o csv",
     "An hour of all devices of a namespace, for a spreadsheet."},
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
    "quote the stars. Flags narrow it further."

extern const mir_cli_command mir_cli_device_children[];

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
     "Rows are in order of time. With --window each row is the mean of a window\n"
     "and carries the time at which the window ends.\n\n" TARGET_TEXT,
     0,
     MIR_CLI_WORDS_MAX,
     {&query_group, &target_group, NULL},
     query_examples,
     NULL,
     mir_cli_telemetry_query},
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
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no server reachable.",
    0,
    0,
    {NULL},
    root_examples,
    root_children,
    NULL,
};
