/* SPDX-License-Identifier: Apache-2.0 */
/* Shell completion. The scripts are small: they ask `mir __complete WORD...`, which prints a line
 * "candidate<TAB>description" for each candidate that begins with the last word. */
#include "mir_cli.h"

#include "mir_cli_connect.h"
#include "mir_cli_devices.h"
#include "mir_cli_message.h"
#include "mir_cli_telemetry.h"

typedef struct completer {
    const char *start;
    size_t start_size;
    size_t list_size; /* of what is before the last name of a list */
} completer;

static void offer(const completer *to, const char *dashes, const char *word, size_t word_size,
                  const char *text)
{
    char full[160];
    int size = snprintf(full, sizeof full, "%.*s%s%.*s", (int)to->list_size, to->start, dashes,
                        (int)word_size, word);
    if (size < 0 || (size_t)size >= sizeof full) return;
    if (strncmp(full, to->start, to->start_size) == 0) (void)printf("%s\t%s\n", full, text);
}

static void offer_choices(const completer *to, const char *choices)
{
    while (choices != NULL && *choices != '\0') {
        size_t size = strcspn(choices, "|");
        offer(to, "", choices, size, "");
        choices = choices[size] == '|' ? choices + size + 1 : NULL;
    }
}

static void offer_commands(const completer *to, const mir_cli_command *parent)
{
    for (const mir_cli_command *each = parent->children; each != NULL && each->name != NULL; each++)
        offer(to, "", each->name, strlen(each->name), each->summary);
}

static const mir_cli_option *find_option(const mir_cli_command *command, const char *word)
{
    const mir_cli_group *all[MIR_CLI_GROUPS_MAX + 1];
    size_t count = 0;
    while (count < MIR_CLI_GROUPS_MAX && command->groups[count] != NULL) {
        all[count] = command->groups[count];
        count++;
    }
    all[count++] = &mir_cli_global_group;
    for (size_t g = 0; g < count; g++)
        for (const mir_cli_option *each = all[g]->options; each->id != MIR_OPT_NONE; each++)
            if ((strncmp(word, "--", 2) == 0 && strcmp(word + 2, each->name) == 0) ||
                (word[0] == '-' && each->letter != 0 && word[1] == each->letter && word[2] == '\0'))
                return each;
    return NULL;
}

static void offer_options(const completer *to, const mir_cli_command *command)
{
    bool own_help = false;
    for (size_t g = 0; g < MIR_CLI_GROUPS_MAX && command->groups[g] != NULL; g++)
        for (const mir_cli_option *each = command->groups[g]->options; each->id != MIR_OPT_NONE;
             each++) {
            own_help |= each->id == MIR_OPT_HELP;
            if (!each->synonym) offer(to, "--", each->name, strlen(each->name), each->help);
        }
    if (own_help) return;
    for (const mir_cli_option *each = mir_cli_global_group.options; each->id != MIR_OPT_NONE;
         each++)
        if (!mir_cli_shadows(command, each))
            offer(to, "--", each->name, strlen(each->name), each->help);
}

static void offer_text(void *context, const char *word, const char *text)
{
    const completer *to = context;
    /* Only what no shell will ever read as something else. */
    if (word[0] == '-' || strspn(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                       "0123456789._-/") != strlen(word))
        return;
    offer(to, "", word, strlen(word), text);
}

static bool is_list(mir_cli_option_id id)
{
    return id == MIR_OPT_MEASUREMENT || id == MIR_OPT_FIELDS || id == MIR_OPT_AGG;
}

int mir_cli_complete(const mir_cli_args *args)
{
    const mir_cli_command *command = &mir_cli_root;
    const mir_cli_option *pending = NULL; /* an option whose value comes next */
    const char *measurement = NULL;
    bool help = false;
    size_t count = args->words_count;
    const char *last = count > 0 ? args->words[count - 1] : "";
    completer to = {last, strlen(last), 0};
    for (size_t i = 0; i + 1 < count; i++) {
        const char *word = args->words[i];
        if (pending != NULL && strcmp(word, "=") == 0) continue; /* bash splits --output=json */
        if (pending != NULL) {
            if (pending->id == MIR_OPT_MEASUREMENT) measurement = word;
            pending = NULL;
            continue;
        }
        if (word[0] == '-') {
            const mir_cli_option *option = find_option(command, word);
            if (option != NULL && option->value != NULL) pending = option;
            continue;
        }
        const mir_cli_command *child = mir_cli_find(command->children, word);
        if (child == NULL) continue;
        if (child->run == mir_cli_help_command)
            help = true;
        else
            command = child;
    }
    if (pending != NULL) {
        if (strcmp(last, "=") == 0) to = (completer){"", 0, 0};
        const char *comma = is_list(pending->id) ? strrchr(to.start, ',') : NULL;
        if (comma != NULL) to.list_size = (size_t)(comma - to.start) + 1;
        if (pending->id == MIR_OPT_CONTEXT)
            mir_cli_connect_each_context(offer_text, &to);
        else if (pending->id == MIR_OPT_MESSAGE)
            mir_cli_message_each_name(command->run == mir_cli_config_send ? MIR_MESSAGE_CONFIG
                                                                          : MIR_MESSAGE_COMMAND,
                                      offer_text, &to);
        else if (pending->id == MIR_OPT_MEASUREMENT)
            mir_cli_telemetry_each_name(NULL, offer_text, &to);
        else if (pending->id == MIR_OPT_FIELDS && measurement != NULL)
            mir_cli_telemetry_each_name(measurement, offer_text, &to);
        else if (pending->id == MIR_OPT_AGG)
            offer_choices(&to, "mean|min|max|sum|count|first|last|rate|p50|p90|p99");
        else if (pending->id == MIR_OPT_GROUP_BY)
            offer_choices(&to, "device|namespace|all");
        else
            offer_choices(&to, pending->choices);
        return MIR_EXIT_OK;
    }
    if (last[0] == '-' && !help)
        offer_options(&to, command);
    else if (command->children != NULL)
        offer_commands(&to, command);
    else if (help || command->completes == NULL)
        return MIR_EXIT_OK;
    else if (strcmp(command->completes, "device") == 0)
        mir_cli_devices_each_name(last, offer_text, &to);
    else if (strcmp(command->completes, "context") == 0)
        mir_cli_connect_each_context(offer_text, &to);
    else
        offer_choices(&to, command->completes);
    return MIR_EXIT_OK;
}

static const char bash_script[] =
    "# Completion of mir for bash; made by `mir completion bash`.\n"
    "_mir() {\n"
    "    mapfile -t COMPREPLY < <(mir __complete \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null | "
    "cut -f1)\n"
    "}\n"
    "complete -o default -F _mir mir\n";
static const char zsh_script[] =
    "#compdef mir\n"
    "# Completion of mir for zsh; made by `mir completion zsh`.\n"
    "_mir() {\n"
    "    local -a lines\n"
    "    lines=(\"${(@f)$(mir __complete \"${(@)words[2,CURRENT]}\" 2>/dev/null)}\")\n"
    "    lines=(\"${(@)lines//:/\\\\:}\")\n"
    "    lines=(\"${(@)lines/$'\\t'/:}\")\n"
    "    if [[ -n \"${lines[1]}\" ]]; then _describe mir lines; else _files; fi\n"
    "}\n"
    "compdef _mir mir\n";
static const char fish_script[] = "# Completion of mir for fish; made by `mir completion fish`.\n"
                                  "function __mir_complete\n"
                                  "    set -l words (commandline -opc)\n"
                                  "    set -l last (commandline -ct)\n"
                                  "    test -n \"$last\"; or set last ''\n"
                                  "    mir __complete $words[2..-1] \"$last\" 2>/dev/null\n"
                                  "end\n"
                                  "complete -c mir -a '(__mir_complete)'\n";

mir_status mir_cli_completion_script(FILE *out, const char *shell)
{
    const char *script = strcmp(shell, "bash") == 0   ? bash_script
                         : strcmp(shell, "zsh") == 0  ? zsh_script
                         : strcmp(shell, "fish") == 0 ? fish_script
                                                      : NULL;
    if (script == NULL) return MIR_E_INVALID;
    (void)fputs(script, out);
    return MIR_OK;
}
