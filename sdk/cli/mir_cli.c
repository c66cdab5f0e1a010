/* SPDX-License-Identifier: Apache-2.0 */
/* The way of a command line: words choose a command, level by level; at each level getopt_long
 * takes the options that this level knows; the leaf then runs. */
#include "mir_cli.h"

#include "mir_cli_text.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <locale.h>
#include <stdarg.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

enum { KNOWN_MAX = 64, WORD_BYTES_MAX = 64, LONG_OPTION_BASE = 1000, TEXT_BYTES = 8192 };

bool mir_cli_flag(const mir_cli_args *args, mir_cli_option_id id)
{
    for (size_t i = 0; i < args->options_count; i++)
        if (args->options[i].id == id) return true;
    return false;
}

const char *mir_cli_value(const mir_cli_args *args, mir_cli_option_id id)
{
    for (size_t i = args->options_count; i > 0; i--)
        if (args->options[i - 1].id == id) return args->options[i - 1].value;
    return NULL;
}

MIR_PRINTF(2, 0) static void say(const char *who, const char *format, va_list args)
{
    char text[TEXT_BYTES];
    (void)vsnprintf(text, sizeof text, format, args);
    (void)fflush(stdout);
    (void)fprintf(stderr, "%s: ", who);
    mir_cli_text_print_visible(stderr, text);
    (void)fputc('\n', stderr);
}

int mir_cli_usage(const mir_cli *cli, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(cli->path, format, args);
    va_end(args);
    (void)fprintf(stderr, "Try `%s --help`.\n", cli->path);
    return MIR_EXIT_USAGE;
}

int mir_cli_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say("mir", format, args);
    va_end(args);
    return MIR_EXIT_FAILED;
}

void mir_cli_note(const char *format, ...)
{
    va_list args;
    char text[TEXT_BYTES];
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    (void)fflush(stdout);
    mir_cli_text_print_visible(stderr, text);
    (void)fputc('\n', stderr);
}

bool mir_cli_number(const char *text, bool zero, uint64_t *value)
{
    char *end = NULL;
    if (text[0] < '0' || text[0] > '9') return false;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (*end != '\0' || errno != 0 || (number == 0 && !zero)) return false;
    *value = number;
    return true;
}

int mir_cli_exit_code(mir_status status)
{
    switch (status) {
    case MIR_OK: return MIR_EXIT_OK;
    case MIR_E_UNREACHABLE: return MIR_EXIT_UNREACHABLE;
    case MIR_E_CANCELLED: return MIR_EXIT_STOPPED;
    default: return MIR_EXIT_FAILED;
    }
}

/* Edits (insert, delete, replace, swap of neighbours) from a to b, ignoring case. */
static size_t distance(const char *a, const char *b)
{
    size_t rows[3][WORD_BYTES_MAX + 1];
    size_t a_size = strnlen(a, WORD_BYTES_MAX);
    size_t b_size = strnlen(b, WORD_BYTES_MAX);
    size_t *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t j = 0; j <= b_size; j++) last[j] = before[j] = j;
    for (size_t i = 1; i <= a_size; i++) {
        now[0] = i;
        for (size_t j = 1; j <= b_size; j++) {
            int left = tolower((unsigned char)a[i - 1]);
            int right = tolower((unsigned char)b[j - 1]);
            size_t best = last[j - 1] + (left != right);
            if (last[j] + 1 < best) best = last[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            if (i > 1 && j > 1 && left == tolower((unsigned char)b[j - 2]) &&
                tolower((unsigned char)a[i - 2]) == right && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
        size_t *reused = before;
        before = last, last = now, now = reused;
    }
    return last[b_size];
}

const char *mir_cli_nearest(const char *typed, const char *const *candidates, size_t count)
{
    const char *best = NULL;
    size_t best_distance = strlen(typed) / 3 + 1;
    for (size_t i = 0; i < count; i++) {
        size_t typed_size = strlen(typed);
        if (typed_size >= 2 && strncasecmp(typed, candidates[i], typed_size) == 0 && best == NULL)
            best = candidates[i];
        size_t far = distance(typed, candidates[i]);
        if (far <= best_distance && (best == NULL || far < best_distance)) {
            best = candidates[i];
            best_distance = far;
        }
    }
    return best;
}

static bool word_in(const char *list, const char *word, char separator)
{
    size_t size = strlen(word);
    while (list != NULL && *list != '\0') {
        const char *end = strchr(list, separator);
        size_t each = end != NULL ? (size_t)(end - list) : strlen(list);
        if (each == size && memcmp(list, word, size) == 0) return true;
        list = end != NULL ? end + 1 : NULL;
    }
    return false;
}

const mir_cli_command *mir_cli_find(const mir_cli_command *among, const char *word)
{
    for (; among != NULL && among->name != NULL; among++)
        if (strcmp(among->name, word) == 0 || word_in(among->aliases, word, ' ')) return among;
    return NULL;
}

bool mir_cli_shadows(const mir_cli_command *command, const mir_cli_option *global)
{
    for (size_t g = 0; g < MIR_CLI_GROUPS_MAX && command->groups[g] != NULL; g++)
        for (const mir_cli_option *each = command->groups[g]->options; each->id != MIR_OPT_NONE;
             each++)
            if (strcmp(each->name, global->name) == 0) return true;
    return false;
}

const mir_cli_command *mir_cli_same_as(const mir_cli_command *command)
{
    if (command->children == NULL) return NULL;
    for (const mir_cli_command *each = mir_cli_root.children; each->name != NULL; each++)
        if (each->children == command->children && each != command) return each;
    return NULL;
}

/* Every option that a command takes; its own come before those that are taken everywhere. */
typedef struct known_options {
    const mir_cli_option *options[KNOWN_MAX];
    size_t count;
} known_options;

static void collect(const mir_cli_command *command, known_options *known)
{
    known->count = 0;
    bool own_help = false;
    for (size_t g = 0; g < MIR_CLI_GROUPS_MAX && command->groups[g] != NULL; g++)
        for (const mir_cli_option *each = command->groups[g]->options; each->id != MIR_OPT_NONE;
             each++) {
            if (known->count < KNOWN_MAX) known->options[known->count++] = each;
            own_help |= each->id == MIR_OPT_HELP;
        }
    if (own_help) return;
    for (const mir_cli_option *each = mir_cli_global_group.options; each->id != MIR_OPT_NONE;
         each++)
        if (known->count < KNOWN_MAX && !mir_cli_shadows(command, each))
            known->options[known->count++] = each;
}

static int unknown_command(const mir_cli *cli, const mir_cli_command *parent, const char *word)
{
    const char *names[KNOWN_MAX];
    size_t count = 0;
    for (const mir_cli_command *each = parent->children; each->name != NULL; each++)
        if (count < KNOWN_MAX) names[count++] = each->name;
    const char *near = mir_cli_nearest(word, names, count);
    if (near != NULL)
        return mir_cli_usage(cli, "there is no command '%s'; did you mean '%s'?", word, near);
    return mir_cli_usage(cli, "there is no command '%s'", word);
}

static int unknown_option(const mir_cli *cli, const known_options *known, const char *word)
{
    if (strncmp(word, "--", 2) != 0) return mir_cli_usage(cli, "there is no option '%.2s'", word);
    char typed[WORD_BYTES_MAX + 1];
    (void)snprintf(typed, sizeof typed, "%.*s", (int)strcspn(word + 2, "="), word + 2);
    const char *names[KNOWN_MAX];
    size_t count = 0;
    size_t starts = 0;
    for (size_t i = 0; i < known->count; i++) {
        if (strncmp(known->options[i]->name, typed, strlen(typed)) == 0) starts++;
        names[count++] = known->options[i]->name;
    }
    if (starts > 1) return mir_cli_usage(cli, "'--%s' may mean more than one option", typed);
    const char *near = mir_cli_nearest(typed, names, count);
    if (near != NULL)
        return mir_cli_usage(cli, "there is no option '--%s'; did you mean '--%s'?", typed, near);
    return mir_cli_usage(cli, "there is no option '--%s'", typed);
}

static int check_choice(const mir_cli *cli, const mir_cli_option *option, const char *value)
{
    if (option->choices == NULL || word_in(option->choices, value, '|')) return MIR_EXIT_OK;
    return mir_cli_usage(cli, "--%s is %s, not '%s'", option->name, option->help, value);
}

/* Takes the options at the front of argv (or, for a leaf, all of them) and sets `used` to how many
 * elements of argv are done with. */
static int take_options(const mir_cli *cli, const mir_cli_command *command, int argc, char **argv,
                        mir_cli_line *line, int *used)
{
    known_options known;
    collect(command, &known);
    struct option longs[KNOWN_MAX + 1] = {0};
    char shorts[3 * KNOWN_MAX + 3];
    size_t shorts_size = 0;
    if (command->children != NULL) shorts[shorts_size++] = '+';
    shorts[shorts_size++] = ':';
    for (size_t i = 0; i < known.count; i++) {
        const mir_cli_option *each = known.options[i];
        longs[i] = (struct option){.name = each->name,
                                   .has_arg = each->value != NULL ? required_argument : no_argument,
                                   .val = LONG_OPTION_BASE + (int)i};
        if (each->letter == 0) continue;
        shorts[shorts_size++] = each->letter;
        if (each->value != NULL) shorts[shorts_size++] = ':';
    }
    shorts[shorts_size] = '\0';

    optind = 0;
    opterr = 0;
    for (;;) {
        int got = getopt_long(argc, argv, shorts, longs, NULL);
        if (got == -1) break;
        const mir_cli_option *option = NULL;
        int code = got == ':' ? optopt : got;
        for (size_t i = 0; i < known.count && option == NULL; i++)
            if (code == LONG_OPTION_BASE + (int)i ||
                (code != 0 && code == known.options[i]->letter))
                option = known.options[i];
        if (got == ':' && option != NULL)
            return mir_cli_usage(cli, "--%s needs a value: --%s %s", option->name, option->name,
                                 option->value);
        if (got == '?' || option == NULL) {
            if (optopt >= LONG_OPTION_BASE)
                return mir_cli_usage(cli, "--%s takes no value",
                                     known.options[optopt - LONG_OPTION_BASE]->name);
            char letter[3] = {'-', (char)optopt, '\0'};
            return unknown_option(cli, &known, optopt != 0 ? letter : argv[optind - 1]);
        }
        if (option->id == MIR_OPT_HELP) {
            line->help = true;
            continue;
        }
        if (optarg != NULL) {
            int refused = check_choice(cli, option, optarg);
            if (refused != MIR_EXIT_OK) return refused;
        }
        if (line->args.options_count == MIR_CLI_OPTIONS_MAX)
            return mir_cli_usage(cli, "more than %d options", MIR_CLI_OPTIONS_MAX);
        line->args.options[line->args.options_count].id = option->id;
        line->args.options[line->args.options_count++].value = optarg;
    }
    *used = optind;
    return MIR_EXIT_OK;
}

int mir_cli_parse(int argc, char **argv, mir_cli_line *line)
{
    *line = (mir_cli_line){.command = &mir_cli_root};
    (void)snprintf(line->path, sizeof line->path, "mir");
    mir_cli cli = {.path = line->path};
    int at = 1;
    for (;;) {
        const mir_cli_command *command = line->command;
        int used = 0;
        int refused = take_options(&cli, command, argc - at + 1, argv + at - 1, line, &used);
        if (refused != MIR_EXIT_OK) return refused;
        at += used - 1;
        if (command->children == NULL) break;
        if (line->help) return MIR_EXIT_OK;
        if (at >= argc) {
            if (command != &mir_cli_root) (void)mir_cli_usage(&cli, "which command?");
            mir_cli_help(stderr, command, line->path);
            return MIR_EXIT_USAGE;
        }
        const mir_cli_command *child = mir_cli_find(command->children, argv[at]);
        if (child == NULL) return unknown_command(&cli, command, argv[at]);
        size_t size = strlen(line->path);
        (void)snprintf(line->path + size, sizeof line->path - size, " %s", child->name);
        line->command = child;
        at++;
    }
    line->args.words = argv + at;
    line->args.words_count = (size_t)(argc - at);
    const mir_cli_command *command = line->command;
    if (line->help) return MIR_EXIT_OK;
    if (line->args.words_count < command->words_min)
        return mir_cli_usage(&cli, "needs %s", command->arguments);
    if (line->args.words_count > command->words_max) {
        const char *extra = line->args.words[command->words_max];
        return mir_cli_usage(&cli, "does not take '%s'", extra);
    }
    return MIR_EXIT_OK;
}

/* Of targets that name no device, whether the shell made them from a star. */
static void hint_at_files(const mir_cli_args *args)
{
    for (size_t i = 0; i < args->words_count; i++) {
        const char *word = args->words[i];
        if (strchr(word, '/') == NULL || strchr(word, '*') != NULL || access(word, F_OK) != 0)
            continue;
        mir_cli_note("'%s' is also a file here: if you typed a star, the shell took it; quote it, "
                     "as '*%s'",
                     word, strchr(word, '/'));
        return;
    }
}

int mir_cli_main(int argc, char **argv, mir_cli_run_fn serve, mir_cli_run_fn storage)
{
    /* Widths of characters, always of UTF-8; C.UTF-8 is part of glibc since 2.35. */
    (void)setlocale(LC_CTYPE, "C.UTF-8");
    if (argc >= 2 && strcmp(argv[1], "__complete") == 0) {
        static mir_cli_args words;
        words.words = argv + 2;
        words.words_count = (size_t)(argc - 2);
        return mir_cli_complete(&words);
    }
    static char version[] = "version";
    if (argc == 2 && strcmp(argv[1], "--version") == 0) argv[1] = version;
    static mir_cli_line line; /* too large for comfort on a stack */
    int code = mir_cli_parse(argc, argv, &line);
    if (code != MIR_EXIT_OK) return code;
    if (line.help) {
        mir_cli_help(stdout, line.command, line.path);
    } else {
        mir_cli cli = {.path = line.path, .serve = serve, .storage = storage};
        code = line.command->run(&cli, line.command, &line.args);
        if (code == MIR_EXIT_FAILED && line.command->completes != NULL &&
            strcmp(line.command->completes, "device") == 0)
            hint_at_files(&line.args);
    }
    if ((fflush(stdout) != 0 || ferror(stdout) != 0) && code == MIR_EXIT_OK)
        code = mir_cli_fail("cannot write the output");
    return code;
}

int mir_cli_serve(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    if (cli->serve == NULL) return mir_cli_fail("this program was built without the server");
    return cli->serve(cli, command, args);
}

int mir_cli_storage(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    if (cli->storage == NULL) return mir_cli_fail("this program was built without the server");
    return cli->storage(cli, command, args);
}

int mir_cli_version(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)cli, (void)command, (void)args;
    (void)printf("mir %s\n", MIR_VERSION);
    return MIR_EXIT_OK;
}

int mir_cli_completion(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    if (mir_cli_completion_script(stdout, args->words[0]) != MIR_OK)
        return mir_cli_usage(cli, "'%s' is not bash, zsh or fish", args->words[0]);
    return MIR_EXIT_OK;
}

int mir_cli_help_command(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    if (mir_cli_flag(args, MIR_OPT_MAN)) {
        mir_cli_man(stdout);
        return MIR_EXIT_OK;
    }
    const mir_cli_command *at = &mir_cli_root;
    char path[128] = "mir";
    for (size_t i = 0; i < args->words_count; i++) {
        const mir_cli_command *child = mir_cli_find(at->children, args->words[i]);
        if (child == NULL) {
            if (at->children == NULL)
                return mir_cli_usage(cli, "'%s' has no command '%s'", path, args->words[i]);
            return unknown_command(cli, at, args->words[i]);
        }
        size_t size = strlen(path);
        (void)snprintf(path + size, sizeof path - size, " %s", child->name);
        at = child;
    }
    mir_cli_help(stdout, at, path);
    return MIR_EXIT_OK;
}
