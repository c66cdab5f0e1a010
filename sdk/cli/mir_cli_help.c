/* SPDX-License-Identifier: Apache-2.0 */
/* What people read about the table of commands: --help and the man page. */
#include "mir_cli.h"

#include "mir_cli_text.h"

#include <ctype.h>

enum { OPTION_COLUMNS = 28 };

static void option_name(const mir_cli_option *option, char *text, size_t size)
{
    char letter[8] = "    ";
    if (option->letter != 0) (void)snprintf(letter, sizeof letter, "-%c, ", option->letter);
    (void)snprintf(text, size, "%s--%s%s%s", letter, option->name, option->value != NULL ? " " : "",
                   option->value != NULL ? option->value : "");
}

/* `shadowing` may be null: a command whose own options take the place of those of the group. */
static void help_group(FILE *out, const mir_cli_group *group, const mir_cli_command *shadowing,
                       bool bold)
{
    (void)fprintf(out, "\n%s%s:%s\n", bold ? "\033[1m" : "", group->title, bold ? "\033[0m" : "");
    for (const mir_cli_option *each = group->options; each->id != MIR_OPT_NONE; each++) {
        if (each->synonym || (shadowing != NULL && mir_cli_shadows(shadowing, each))) continue;
        char name[96];
        option_name(each, name, sizeof name);
        int pad = OPTION_COLUMNS > (int)strlen(name) ? OPTION_COLUMNS : (int)strlen(name);
        (void)fprintf(out, "  %-*s  %s\n", pad, name, each->help);
    }
}

static bool has_own_help(const mir_cli_command *command)
{
    for (size_t g = 0; g < MIR_CLI_GROUPS_MAX && command->groups[g] != NULL; g++)
        for (const mir_cli_option *each = command->groups[g]->options; each->id != MIR_OPT_NONE;
             each++)
            if (each->id == MIR_OPT_HELP) return true;
    return false;
}

void mir_cli_help(FILE *out, const mir_cli_command *command, const char *path)
{
    bool colour = mir_cli_text_colours(out);
    const char *bold = colour ? "\033[1m" : "";
    const char *plain = colour ? "\033[0m" : "";
    (void)fprintf(out, "%s\n\n%sUsage:%s %s%s%s%s\n", command->summary, bold, plain, path,
                  command->children != NULL ? " COMMAND" : " [OPTION...]",
                  command->arguments != NULL ? " " : "",
                  command->arguments != NULL ? command->arguments : "");
    if (command->aliases != NULL) (void)fprintf(out, "Also: %s\n", command->aliases);
    if (command->text != NULL) (void)fprintf(out, "\n%s\n", command->text);
    if (command->children != NULL) {
        (void)fprintf(out, "\n%sCommands:%s\n", bold, plain);
        for (const mir_cli_command *each = command->children; each->name != NULL; each++)
            (void)fprintf(out, "  %-12s %s\n", each->name, each->summary);
    }
    for (size_t g = 0; g < MIR_CLI_GROUPS_MAX && command->groups[g] != NULL; g++)
        help_group(out, command->groups[g], NULL, colour);
    if (!has_own_help(command)) help_group(out, &mir_cli_global_group, command, colour);
    if (command->examples != NULL) {
        (void)fprintf(out, "\n%sExamples:%s\n", bold, plain);
        for (const mir_cli_example *each = command->examples; each->line != NULL; each++)
            (void)fprintf(out, "  %s\n      %s\n", each->line, each->text);
    }
    if (command->children != NULL)
        (void)fprintf(out, "\n`%s COMMAND --help` shows more about a command.\n", path);
}

/* Text of a roff page: `-` and `\` escaped, no line that begins with a request. */
static void roff(FILE *out, const char *text)
{
    bool line_start = true;
    for (; *text != '\0'; text++) {
        if (line_start && (*text == '.' || *text == '\'')) (void)fputs("\\&", out);
        line_start = *text == '\n';
        if (*text == '-')
            (void)fputs("\\-", out);
        else if (*text == '\\')
            (void)fputs("\\e", out);
        else if (*text == '\n' && text[1] == '\n') {
            (void)fputs("\n.PP", out);
        } else
            (void)fputc(*text, out);
    }
}

static void man_group(FILE *out, const mir_cli_group *group)
{
    for (const mir_cli_option *each = group->options; each->id != MIR_OPT_NONE; each++) {
        if (each->synonym) continue;
        (void)fputs(".TP\n.B ", out);
        if (each->letter != 0) (void)fprintf(out, "\\-%c, ", each->letter);
        (void)fputs("\\-\\-", out);
        roff(out, each->name);
        if (each->value != NULL) (void)fprintf(out, " \\fI%s\\fR", each->value);
        (void)fputc('\n', out);
        roff(out, each->help);
        for (const mir_cli_option *also = each + 1; also->id == each->id && also->synonym; also++) {
            (void)fputs(" (also \\-\\-", out);
            roff(out, also->name);
            (void)fputc(')', out);
        }
        (void)fputc('\n', out);
    }
}

static void man_examples(FILE *out, const mir_cli_example *examples)
{
    for (const mir_cli_example *each = examples; each != NULL && each->line != NULL; each++) {
        (void)fputs(".PP\n", out);
        roff(out, each->text);
        (void)fputs("\n.PP\n.RS 4\n.nf\n", out);
        roff(out, each->line);
        (void)fputs("\n.fi\n.RE\n", out);
    }
}

static void man_command(FILE *out, const mir_cli_command *command, const char *path, int depth)
{
    if (depth > MIR_CLI_DEPTH_MAX) return;
    const mir_cli_command *same = mir_cli_same_as(command);
    if (same != NULL) {
        (void)fputs(".SS ", out);
        roff(out, path);
        (void)fputs("\nThe same as mir ", out);
        roff(out, same->name);
        (void)fputs(".\n", out);
        return;
    }
    if (command->children != NULL) {
        for (const mir_cli_command *each = command->children; each->name != NULL; each++) {
            char below[128];
            (void)snprintf(below, sizeof below, "%s %s", path, each->name);
            man_command(out, each, below, depth + 1);
        }
        return;
    }
    (void)fputs(".SS ", out);
    roff(out, path);
    if (command->arguments != NULL) {
        (void)fputc(' ', out);
        roff(out, command->arguments);
    }
    (void)fputc('\n', out);
    roff(out, command->summary);
    (void)fputs(".\n", out);
    if (command->text != NULL) {
        (void)fputs(".PP\n", out);
        roff(out, command->text);
        (void)fputc('\n', out);
    }
    for (size_t g = 0; g < MIR_CLI_GROUPS_MAX && command->groups[g] != NULL; g++)
        man_group(out, command->groups[g]);
    man_examples(out, command->examples);
}

void mir_cli_man(FILE *out)
{
    (void)fprintf(out,
                  ".\\\" SPDX-License-Identifier: Apache-2.0\n"
                  ".\\\" Made by `mir help --man`.\n"
                  ".TH MIR 1 \"\" \"mir %s\" \"User Commands\"\n.SH NAME\nmir \\- ",
                  MIR_VERSION);
    char summary[128];
    (void)snprintf(summary, sizeof summary, "%s", mir_cli_root.summary);
    summary[0] = (char)tolower((unsigned char)summary[0]);
    roff(out, summary);
    (void)fputs("\n.SH SYNOPSIS\n.B mir\n[\\fIOPTION\\fR...] \\fICOMMAND\\fR\n[\\fIOPTION\\fR...] "
                "[\\fIARGUMENT\\fR...]\n"
                ".SH DESCRIPTION\n",
                out);
    roff(out, mir_cli_root.text);
    (void)fputs("\n.SH OPTIONS\nTaken by every command except serve:\n", out);
    man_group(out, &mir_cli_global_group);
    (void)fputs(".SH COMMANDS\n", out);
    man_command(out, &mir_cli_root, "mir", 0);
    (void)fputs(".SH FILES\n"
                ".TP\n.I ~/.config/mir/cli.yaml\nThe contexts.\n"
                ".TP\n.I /var/lib/mir, ~/.local/share/mir\nThe data of a server of root, or of "
                "another user, with its admin socket.\n",
                out);
}
