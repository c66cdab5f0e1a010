/* SPDX-License-Identifier: Apache-2.0 */
/* mir context list, use, add, current. */
#include "mir_cli_context.h"
#include "mir_cli_devices.h"
#include "mir_cli_table.h"
#include "mir_cli_text.h"

static bool valid_name(const char *name)
{
    return name[0] != '\0' && strlen(name) <= 128 &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") ==
               strlen(name);
}

int mir_cli_context_list(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)cli, (void)command;
    mir_cli_context_file file;
    mir_error error = {0};
    const char *format = mir_cli_value(args, MIR_OPT_OUTPUT);
    if (mir_cli_context_read(&file, &error) != MIR_OK) return mir_cli_fail("%s", error.text);
    const char *current = mir_cli_context_chosen(&file);
    const json_t *all = mir_cli_context_all(&file);
    int code = MIR_EXIT_OK;
    if (format != NULL && strcmp(format, "table") != 0) {
        code = mir_cli_devices_print_value(file.root, format);
    } else if (json_array_size(all) == 0) {
        mir_cli_note("There are no contexts; `mir context add NAME ADDRESS` makes one.");
    } else {
        mir_cli_table *table = mir_cli_table_new();
        mir_cli_table_column(table, " ", NULL, MIR_TABLE_FIXED);
        mir_cli_table_column(table, "NAME", NULL, MIR_TABLE_TEXT);
        mir_cli_table_column(table, "TARGET", NULL, MIR_TABLE_TEXT);
        for (size_t i = 0; i < json_array_size(all); i++) {
            const json_t *each = json_array_get(all, i);
            const char *name = json_string_value(json_object_get(each, "name"));
            bool is_current = current != NULL && strcmp(current, name) == 0;
            mir_cli_table_cell(table, MIR_TONE_GOOD, is_current ? "*" : "");
            mir_cli_table_cell(table, MIR_TONE_PLAIN, name);
            mir_cli_table_cell(table, MIR_TONE_PLAIN,
                               json_string_value(json_object_get(each, "target")));
        }
        if (mir_cli_table_print(table, stdout, mir_cli_text_terminal_columns(stdout),
                                mir_cli_text_colours(stdout), NULL) != MIR_OK)
            code = mir_cli_fail("no memory for the table");
        mir_cli_table_free(table);
    }
    mir_cli_context_free(&file);
    return code;
}

static void collect_name(void *to, const char *name, const char *text)
{
    (void)text;
    (void)json_array_append_new(to, json_string(name));
}

int mir_cli_context_use(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)cli, (void)command;
    mir_cli_context_file file;
    mir_error error = {0};
    const char *name = args->words[0];
    if (mir_cli_context_read(&file, &error) != MIR_OK) return mir_cli_fail("%s", error.text);
    int code = MIR_EXIT_OK;
    if (mir_cli_context_find(&file, name) == NULL) {
        const char *names[64];
        size_t count = 0;
        json_t *all = json_array();
        mir_cli_connect_each_context(collect_name, all);
        while (count < json_array_size(all) && count < sizeof names / sizeof names[0]) {
            names[count] = json_string_value(json_array_get(all, count));
            count++;
        }
        const char *near = mir_cli_nearest(name, names, count);
        code = near != NULL
                   ? mir_cli_fail("there is no context '%s'; did you mean '%s'?", name, near)
                   : mir_cli_fail("there is no context '%s'; `mir context add %s ADDRESS` makes it",
                                  name, name);
        json_decref(all);
    } else if (json_object_set_new(file.root, "currentContext", json_string(name)) != 0 ||
               mir_cli_context_write(&file, &error) != MIR_OK) {
        code = mir_cli_fail("%s", error.text);
    } else {
        (void)printf("using %s\n", name);
    }
    mir_cli_context_free(&file);
    return code;
}

int mir_cli_context_add(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    mir_cli_context_file file;
    mir_error error = {0};
    const char *name = args->words[0];
    const char *grafana = mir_cli_value(args, MIR_OPT_GRAFANA);
    if (!valid_name(name))
        return mir_cli_usage(cli, "the name of a context has letters, digits, '.', '_' and '-'");
    if (args->words[1][0] == '\0') return mir_cli_usage(cli, "the address is empty");
    if (mir_cli_context_read(&file, &error) != MIR_OK) return mir_cli_fail("%s", error.text);
    json_t *context = mir_cli_context_find(&file, name);
    bool added = context == NULL;
    if (added) {
        context = json_pack("{s:s}", "name", name);
        if (json_array_append_new(mir_cli_context_all(&file), context) != 0) context = NULL;
    }
    int code = MIR_EXIT_OK;
    if (context == NULL ||
        json_object_set_new(context, "target", json_string(args->words[1])) != 0 ||
        (grafana != NULL && json_object_set_new(context, "grafana", json_string(grafana)) != 0)) {
        code = mir_cli_fail("the context cannot be kept: is it UTF-8?");
    } else if (mir_cli_context_write(&file, &error) != MIR_OK) {
        code = mir_cli_fail("%s", error.text);
    } else {
        (void)printf("%s %s; `mir context use %s` chooses it\n", added ? "added" : "changed", name,
                     name);
    }
    mir_cli_context_free(&file);
    return code;
}

int mir_cli_context_current(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    return mir_cli_connect_explain(cli, args);
}
