/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_host_options.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mir_clock.h"

const char mir_host_help[] =
    "Usage: mir-host [OPTION]…\n"
    "\n"
    "Streams this machine's processor, memory, load, disk and network readings to a Mir\n"
    "server, as the device `host`. Answers the commands ping and top_processes, obeys the\n"
    "property sampling.\n"
    "\n"
    "  --id ID              device id (host)\n"
    "  --target URL         server, or several with commas between them (nats://127.0.0.1:4222)\n"
    "  --interval DURATION  time between two readings, 100ms to 1h (1s), unless the property\n"
    "                       sampling says otherwise\n"
    "  --once               send one reading and exit\n"
    "  --creds FILE         credentials file\n"
    "  --root-ca FILE       authorities to trust for tls:// targets\n"
    "  --proc DIR           where to read instead of /proc, such as /host/proc in a container\n"
    "  --sys DIR            where to read instead of /sys\n"
    "  --state DIR          where it remembers the commands that it ran; a folder for each id\n"
    "                       ($XDG_STATE_HOME/mir-host, else ~/.local/state/mir-host)\n"
    "  --heartbeat DURATION       sign of life (10s; a server waits 30s for it)\n"
    "  --reconnect-wait DURATION  between two attempts to connect (3s)\n"
    "  --log-level LEVEL    error, warn, info, debug or trace (info)\n"
    "  --version, --help\n"
    "\n"
    "Options may also come from the environment: MIR__DEVICE__ID, MIR__TARGET (or MIR_TARGET,\n"
    "as for `mir`), MIR__CREDENTIALS, MIR__ROOT_CA, MIR__LOG_LEVEL and\n"
    "MIR__LOCAL_STORE__FOLDER_PATH (--state).\n"
    "A target with a password belongs there, since a command line can be read by others.\n"
    "\n"
    "Examples:\n"
    "  mir-host                                       the server on this machine\n"
    "  mir-host --id rack-3 --target nats://mir:4222  another one, under a name of its own\n"
    "  mir-host --interval 10s --log-level warn       quieter\n"
    "  mir-host --once && mir telemetry query host -m host.v1.Cpu\n"
    "  mir cmd send host -n top_processes -p '{\"count\": 5}'\n"
    "  mir cfg send host -n sampling -p '{\"intervalMs\": 2000}'\n"
    "\n"
    "Exit status: 0 stopped by a signal or --once done, 1 failed, 2 wrong usage, 3 no server\n"
    "reached (--once only).\n";

mir_status mir_host_duration_parse(const char *text, int64_t *ns)
{
    static const struct {
        const char *unit;
        int64_t ns;
    } units[] = {{"ms", MIR_NS_PER_MS},
                 {"s", MIR_NS_PER_S},
                 {"m", 60 * MIR_NS_PER_S},
                 {"h", 3600 * MIR_NS_PER_S}};
    int64_t value = 0;
    const char *at = text;
    for (; isdigit((unsigned char)*at); at++) {
        value = value * 10 + (*at - '0');
        if (value > 1000000) return MIR_E_INVALID;
    }
    if (at == text) return MIR_E_INVALID;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(at, units[i].unit) != 0) continue;
        *ns = value * units[i].ns;
        return MIR_OK;
    }
    return MIR_E_INVALID;
}

static mir_status parse_duration(const char *name, const char *text, int64_t min_ns, int64_t *ns,
                                 mir_error *error)
{
    if (mir_host_duration_parse(text, ns) != MIR_OK || *ns < min_ns ||
        *ns > MIR_HOST_INTERVAL_MAX_NS)
        return mir_error_set(error, MIR_E_INVALID,
                             "%s takes a duration from %dms to 1h, such as 500ms, 1s or 2m, not "
                             "'%.100s'",
                             name, (int)(min_ns / MIR_NS_PER_MS), text);
    return MIR_OK;
}

static mir_status parse_level(const char *name, const char *text, mir_log_level *level,
                              mir_error *error)
{
    if (mir_log_level_parse(text, level) != MIR_OK)
        return mir_error_set(error, MIR_E_INVALID,
                             "%s is one of error, warn, info, debug, trace, not '%.100s'", name,
                             text);
    return MIR_OK;
}

static void from_environment(const char *name, const char **text)
{
    const char *value = getenv(name);
    if (value != NULL && value[0] != '\0') *text = value;
}

mir_status mir_host_options_parse(int argc, char **argv, mir_host_options *out, mir_error *error)
{
    mir_host_options options = {.id = "host",
                                .target = "nats://127.0.0.1:4222",
                                .proc = "/proc",
                                .sys = "/sys",
                                .interval_ns = MIR_NS_PER_S,
                                .log_level = MIR_LOG_INFO};
    const char *interval = NULL, *heartbeat = NULL, *reconnect_wait = NULL, *level = NULL;
    from_environment("MIR__DEVICE__ID", &options.id);
    /* `mir` reads the first, other devices the second: one that is set is enough for both. */
    from_environment("MIR_TARGET", &options.target);
    from_environment("MIR__TARGET", &options.target);
    from_environment("MIR__CREDENTIALS", &options.credentials_file);
    from_environment("MIR__ROOT_CA", &options.root_ca_file);
    from_environment("MIR__LOG_LEVEL", &level);
    from_environment("MIR__LOCAL_STORE__FOLDER_PATH", &options.state_dir);
    const struct {
        const char *name;
        const char **value;
    } flags[] = {{"--id", &options.id},
                 {"--target", &options.target},
                 {"--creds", &options.credentials_file},
                 {"--root-ca", &options.root_ca_file},
                 {"--proc", &options.proc},
                 {"--sys", &options.sys},
                 {"--state", &options.state_dir},
                 {"--interval", &interval},
                 {"--heartbeat", &heartbeat},
                 {"--reconnect-wait", &reconnect_wait},
                 {"--log-level", &level}};
    for (int i = 1; i < argc; i++) {
        const char *argument = argv[i];
        if (strcmp(argument, "--once") == 0) {
            options.once = true;
        } else if (strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0) {
            options.action = MIR_HOST_HELP;
        } else if (strcmp(argument, "--version") == 0) {
            options.action = MIR_HOST_VERSION;
        } else {
            size_t name_size = strcspn(argument, "=");
            const char **value = NULL;
            for (size_t f = 0; f < sizeof flags / sizeof flags[0]; f++)
                if (strlen(flags[f].name) == name_size &&
                    strncmp(flags[f].name, argument, name_size) == 0)
                    value = flags[f].value;
            if (value == NULL)
                return mir_error_set(error, MIR_E_INVALID, "unknown option '%.100s'", argument);
            if (argument[name_size] == '=')
                *value = argument + name_size + 1;
            else if (i + 1 < argc)
                *value = argv[++i];
            else
                return mir_error_set(error, MIR_E_INVALID, "%s needs a value", argument);
        }
    }
    mir_status status = MIR_OK;
    if (interval != NULL)
        status = parse_duration("--interval", interval, MIR_HOST_INTERVAL_MIN_NS,
                                &options.interval_ns, error);
    if (status == MIR_OK && heartbeat != NULL)
        status = parse_duration("--heartbeat", heartbeat, 100 * MIR_NS_PER_MS,
                                &options.heartbeat_ns, error);
    if (status == MIR_OK && reconnect_wait != NULL)
        status = parse_duration("--reconnect-wait", reconnect_wait, 100 * MIR_NS_PER_MS,
                                &options.reconnect_wait_ns, error);
    if (status == MIR_OK && level != NULL)
        status = parse_level("--log-level", level, &options.log_level, error);
    if (status == MIR_OK && options.state_dir != NULL && options.state_dir[0] == '\0')
        status = mir_error_set(error, MIR_E_INVALID, "--state takes a directory");
    if (status == MIR_OK) *out = options;
    return status;
}

mir_status mir_host_default_state_dir(char *path)
{
    const char *base = getenv("XDG_STATE_HOME");
    const char *below = "";
    if (base == NULL || base[0] != '/') { /* a relative one does not count */
        base = getenv("HOME");
        below = "/.local/state";
        if (base == NULL || base[0] != '/') return MIR_E_NOT_FOUND;
    }
    int size = snprintf(path, MIR_PATH_BYTES_MAX, "%s%s/mir-host", base, below);
    return size < 0 || size >= MIR_PATH_BYTES_MAX ? MIR_E_TOO_LARGE : MIR_OK;
}
