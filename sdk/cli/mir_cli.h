/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli: the command line, as one table of commands.
 *
 * Why        Parsing, --help, `mir help`, shell completion and the man page come from the same
 *            table (mir_cli_commands.c), so that none of them can tell something else.
 * Ownership  The table is constant. mir_cli_args points into argv and lives during one command.
 * Affinity   The main thread.
 * Bounds     MIR_CLI_OPTIONS_MAX options and MIR_CLI_WORDS_MAX words on one line.
 * Errors     Commands return an exit code and have said on stderr what is wrong:
 *            MIR_EXIT_OK, _FAILED, _USAGE (wrong usage), _UNREACHABLE (no server answers). */
#ifndef MIR_CLI_H
#define MIR_CLI_H

#include "mir_bytes.h"

#include <stdio.h>

enum { MIR_EXIT_OK = 0, MIR_EXIT_FAILED = 1, MIR_EXIT_USAGE = 2, MIR_EXIT_UNREACHABLE = 3 };
/* Of `mir storage verify`: it was examined, and something is damaged. Of what Ctrl-C ended: 130. */
enum { MIR_EXIT_DAMAGED = 4, MIR_EXIT_STOPPED = 130 };
enum {
    MIR_CLI_OPTIONS_MAX = 256,
    MIR_CLI_WORDS_MAX = 1024,
    MIR_CLI_GROUPS_MAX = 6,
    MIR_CLI_DEPTH_MAX = 6,
};

/* What an option means, whatever its name on a command. */
typedef enum mir_cli_option_id {
    MIR_OPT_NONE = 0,
    MIR_OPT_HELP,
    MIR_OPT_TARGET,
    MIR_OPT_CONTEXT,
    MIR_OPT_ADMIN,
    MIR_OPT_TIMEOUT,
    MIR_OPT_OUTPUT,
    MIR_OPT_ID,
    MIR_OPT_NAME,
    MIR_OPT_NAMESPACE,
    MIR_OPT_LABEL,
    MIR_OPT_SCHEMA,
    MIR_OPT_SET_ID,
    MIR_OPT_SET_NAME,
    MIR_OPT_SET_NAMESPACE,
    MIR_OPT_SET_LABELS,
    MIR_OPT_SET_ANNOTATIONS,
    MIR_OPT_DISABLE,
    MIR_OPT_ENABLE,
    MIR_OPT_FILE,
    MIR_OPT_DRY_RUN,
    MIR_OPT_YES,
    MIR_OPT_EVENTS,
    MIR_OPT_REFRESH,
    MIR_OPT_MEASUREMENT,
    MIR_OPT_FIELDS,
    MIR_OPT_FILTER,
    MIR_OPT_SINCE,
    MIR_OPT_FROM,
    MIR_OPT_TO,
    MIR_OPT_WINDOW,
    MIR_OPT_LIMIT,
    MIR_OPT_UTC,
    MIR_OPT_MAN,
    MIR_OPT_GRAFANA,
    MIR_OPT_CONFIG,
    MIR_OPT_DATA,
    MIR_OPT_LISTEN,
    MIR_OPT_SERVE_ADMIN,
    MIR_OPT_SHARDS,
    MIR_OPT_LOG_LEVEL,
    MIR_OPT_SET,
    MIR_OPT_DISPLAY_CFG,
    MIR_OPT_MESSAGE,
    MIR_OPT_PAYLOAD,
    MIR_OPT_EDIT,
    MIR_OPT_SHOW_TEMPLATE,
    MIR_OPT_SHOW_VALUES,
    MIR_OPT_NO_VALIDATION,
    MIR_OPT_PROTOBUF,
    MIR_OPT_FORCE_PUSH,
    MIR_OPT_STREAM,
    MIR_OPT_QUEUE,
    MIR_OPT_TTL,
    MIR_OPT_STATE,
    MIR_OPT_ONLY_DIFFERENT,
    MIR_OPT_IF_VERSION,
    MIR_OPT_DESIRED,
    MIR_OPT_SET_DISABLED,
    MIR_OPT_REASON,
    MIR_OPT_TYPE,
    MIR_OPT_ACTOR,
    MIR_OPT_OUTCOME,
    MIR_OPT_TEXT,
    MIR_OPT_BEFORE,
    MIR_OPT_AFTER,
    MIR_OPT_HEAD,
    MIR_OPT_AT,
    MIR_OPT_FORMAT,
    MIR_OPT_OUTPUT_FILE,
    MIR_OPT_DEVICE,
    MIR_OPT_PRECISION,
    MIR_OPT_FROM_LINE,
    MIR_OPT_AGG,
    MIR_OPT_GROUP_BY,
    MIR_OPT_LAST,
    MIR_OPT_CURSOR,
    MIR_OPT_DESC,
    MIR_OPT_POINTS,
    MIR_OPT_WIDTH,
    MIR_OPT_HEIGHT,
    MIR_OPT_MIN,
    MIR_OPT_MAX,
    MIR_OPT_ASCII,
    MIR_OPT_FOLLOW,
    MIR_OPT_SPARKLINE,
    MIR_OPT_COPY,
} mir_cli_option_id;

typedef struct mir_cli_option {
    mir_cli_option_id id;
    const char *name;    /* long, without dashes */
    char letter;         /* 0: none */
    bool synonym;        /* another spelling of the option before it: parsed, not listed */
    const char *value;   /* what its value is called; null for a flag */
    const char *choices; /* "a|b|c", or null when anything goes */
    const char *help;
} mir_cli_option;

/* Ends with an option of id MIR_OPT_NONE. */
typedef struct mir_cli_group {
    const char *title;
    const mir_cli_option *options;
} mir_cli_group;

typedef struct mir_cli_example {
    const char *line;
    const char *text;
} mir_cli_example;

typedef struct mir_cli_args {
    struct {
        mir_cli_option_id id;
        const char *value;
    } options[MIR_CLI_OPTIONS_MAX];
    size_t options_count;
    char *const *words;
    size_t words_count;
} mir_cli_args;

typedef struct mir_cli mir_cli;
typedef struct mir_cli_command mir_cli_command;
typedef int (*mir_cli_run_fn)(mir_cli *cli, const mir_cli_command *command,
                              const mir_cli_args *args);

struct mir_cli_command {
    const char *name;
    const char *aliases;   /* "dev devices", or null */
    const char *arguments; /* "[TARGET...]", or null when it takes none */
    const char *completes; /* what its words are: "device", "context", "a|b|c", or null */
    const char *summary;
    const char *text; /* the long description, or null */
    size_t words_min;
    size_t words_max;
    const mir_cli_group *groups[MIR_CLI_GROUPS_MAX]; /* ends with null */
    const mir_cli_example *examples;                 /* ends with a null line */
    const mir_cli_command *children;                 /* ends with a null name; null for a leaf */
    mir_cli_run_fn run;
};

struct mir_cli {
    const char *path;       /* the command as typed in full: "mir device list" */
    mir_cli_run_fn serve;   /* null in a build without the server */
    mir_cli_run_fn storage; /* the same */
};

extern const mir_cli_command mir_cli_root;
extern const mir_cli_group mir_cli_global_group;

/* Runs one command line and returns its exit code. `serve` runs `mir serve`, `storage` what is below
 * `mir storage`. */
int mir_cli_main(int argc, char **argv, mir_cli_run_fn serve, mir_cli_run_fn storage);

/* Finds the command and parses everything; on failure says why and returns the exit code. `path`
 * gets the full name. With `help` set only help is wanted. */
typedef struct mir_cli_line {
    const mir_cli_command *command;
    char path[128];
    mir_cli_args args;
    bool help;
} mir_cli_line;
int mir_cli_parse(int argc, char **argv, mir_cli_line *line);

/* Whether the command has an option of its own by that name: then it is not the global one. */
bool mir_cli_shadows(const mir_cli_command *command, const mir_cli_option *global);
/* The command of the first level whose children these are, when it is another one: `mir device
 * command` is `mir command`. Null when there is none. */
const mir_cli_command *mir_cli_same_as(const mir_cli_command *command);

const mir_cli_command *mir_cli_find(const mir_cli_command *among, const char *word);
bool mir_cli_flag(const mir_cli_args *args, mir_cli_option_id id);
/* The last value given, or null. */
const char *mir_cli_value(const mir_cli_args *args, mir_cli_option_id id);
/* Says "mir device list: <text>" and where help is; returns MIR_EXIT_USAGE. */
int mir_cli_usage(const mir_cli *cli, const char *format, ...) MIR_PRINTF(2, 3);
/* Says "mir: <text>" on stderr with control characters made visible; returns MIR_EXIT_FAILED. */
int mir_cli_fail(const char *format, ...) MIR_PRINTF(1, 2);
void mir_cli_note(const char *format, ...) MIR_PRINTF(1, 2);
/* A decimal number from 1, or from 0 when `zero`. */
MIR_MUST_CHECK bool mir_cli_number(const char *text, bool zero, uint64_t *value);
/* The exit code for an outcome of the client. */
int mir_cli_exit_code(mir_status status);

/* The word of `count` candidates that is nearest to what was typed, or null when none is near. */
const char *mir_cli_nearest(const char *typed, const char *const *candidates, size_t count);

void mir_cli_help(FILE *out, const mir_cli_command *command, const char *path);
void mir_cli_man(FILE *out);
int mir_cli_complete(const mir_cli_args *args);
MIR_MUST_CHECK mir_status mir_cli_completion_script(FILE *out, const char *shell);

/* One function for each leaf of the table. */
int mir_cli_serve(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_device_list(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_device_create(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_device_update(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_device_apply(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_device_delete(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_device_schema(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_device_history(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_command_list(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_command_send(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_queue_list(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_queue_show(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_queue_cancel(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_config_list(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_config_send(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_event_list(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_event_show(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_event_delete(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_event_watch(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_event_verify(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_event_retention(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_telemetry_list(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_telemetry_query(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_telemetry_plot(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_telemetry_export(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_telemetry_import(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_telemetry_sink(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_telemetry_retention(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_telemetry_watch(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_storage(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_status(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_context_list(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_context_use(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_context_add(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_context_current(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_version(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_completion(mir_cli *, const mir_cli_command *, const mir_cli_args *);
int mir_cli_help_command(mir_cli *, const mir_cli_command *, const mir_cli_args *);

#endif
