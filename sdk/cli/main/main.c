/* SPDX-License-Identifier: Apache-2.0 */
/* The program `mir`: the command line, and the server behind `mir serve`. */
#include "mir_cli.h"

#ifdef MIR_WITH_SERVER
#include "mir_config.h"
#include "mir_server.h"
#include "storage.h"

#include <unistd.h>

static int serve(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    static const struct {
        mir_cli_option_id id;
        const char *flag;
        const char *key;
    } dedicated[] = {
        {MIR_OPT_DATA, "--data", "data"},
        {MIR_OPT_LISTEN, "--listen", "listen"},
        {MIR_OPT_SERVE_ADMIN, "--admin", "admin"},
        {MIR_OPT_SHARDS, "--shards", "shards"},
        {MIR_OPT_LOG_LEVEL, "--log-level", "log.level"},
    };
    enum { DEDICATED = sizeof dedicated / sizeof dedicated[0] };
    (void)cli, (void)command;
    if (mir_cli_flag(args, MIR_OPT_DISPLAY_CFG)) {
        mir_config_print_default(stdout);
        return MIR_EXIT_OK;
    }
    mir_config_flag flags[DEDICATED];
    const char *settings[MIR_CLI_OPTIONS_MAX];
    mir_config_options options = {
        .file = mir_cli_value(args, MIR_OPT_CONFIG),
        .environment = (const char *const *)environ,
        .settings = settings,
        .flags = flags,
    };
    for (size_t i = 0; i < DEDICATED; i++) {
        const char *value = mir_cli_value(args, dedicated[i].id);
        if (value == NULL) continue;
        flags[options.flag_count++] =
            (mir_config_flag){.flag = dedicated[i].flag, .key = dedicated[i].key, .value = value};
    }
    for (size_t i = 0; i < args->options_count; i++)
        if (args->options[i].id == MIR_OPT_SET)
            settings[options.setting_count++] = args->options[i].value;
    mir_config config;
    mir_error error = {0};
    mir_status status = mir_config_load(&config, &options, &error);
    if (status != MIR_OK) {
        (void)mir_cli_fail("%s", error.text);
        return status == MIR_E_INVALID ? MIR_EXIT_USAGE : MIR_EXIT_FAILED;
    }
    int code = mir_server_main(&config);
    mir_config_free(&config);
    return code;
}

int main(int argc, char **argv)
{
    return mir_cli_main(argc, argv, serve, mir_main_storage);
}
#else
int main(int argc, char **argv)
{
    return mir_cli_main(argc, argv, NULL, NULL);
}
#endif
