/* SPDX-License-Identifier: Apache-2.0 */
/* The way from words to a command, its options and its targets, and the table of commands itself. */
#include "mir_cli.h"
#include "mir_cli_target.h"

#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static mir_cli_line line;

/* Parses words that end with null. */
static int parse(char **words)
{
    int count = 0;
    while (words[count] != NULL) count++;
    return mir_cli_parse(count, words, &line);
}
#define PARSE(...) parse((char *[]){(char[]){"mir"}, __VA_ARGS__, NULL})
#define W(text)                                                                                    \
    (char[])                                                                                       \
    {                                                                                              \
        text                                                                                       \
    }

static void options_may_stand_anywhere(void **state)
{
    (void)state;
    assert_int_equal(PARSE(W("-t"), W("there"), W("tlm"), W("--timeout=5s"), W("query"), W("host"),
                           W("-m"), W("a.B"), W("-fx,y"), W("other")),
                     MIR_EXIT_OK);
    assert_string_equal(line.path, "mir telemetry query");
    assert_string_equal(mir_cli_value(&line.args, MIR_OPT_TARGET), "there");
    assert_string_equal(mir_cli_value(&line.args, MIR_OPT_TIMEOUT), "5s");
    assert_string_equal(mir_cli_value(&line.args, MIR_OPT_MEASUREMENT), "a.B");
    assert_string_equal(mir_cli_value(&line.args, MIR_OPT_FIELDS), "x,y");
    assert_int_equal(line.args.words_count, 2);
    assert_string_equal(line.args.words[0], "host");
    assert_string_equal(line.args.words[1], "other");
}

static void the_last_value_counts_and_two_dashes_end_options(void **state)
{
    (void)state;
    assert_int_equal(
        PARSE(W("device"), W("list"), W("-o"), W("json"), W("-o"), W("yaml"), W("--"), W("-x")),
        MIR_EXIT_OK);
    assert_string_equal(mir_cli_value(&line.args, MIR_OPT_OUTPUT), "yaml");
    assert_int_equal(line.args.words_count, 1);
    assert_string_equal(line.args.words[0], "-x");
}

static void help_wins_over_what_is_missing(void **state)
{
    (void)state;
    assert_int_equal(PARSE(W("device"), W("create"), W("--help")), MIR_EXIT_OK);
    assert_true(line.help);
    assert_int_equal(PARSE(W("-h")), MIR_EXIT_OK);
    assert_true(line.help);
}

static void the_nearest_word_is_found(void **state)
{
    (void)state;
    const char *const names[] = {"device", "telemetry", "status", "serve"};
    assert_string_equal(mir_cli_nearest("devcie", names, 4), "device");
    assert_string_equal(mir_cli_nearest("Statsu", names, 4), "status");
    assert_string_equal(mir_cli_nearest("tele", names, 4), "telemetry");
    assert_null(mir_cli_nearest("banana", names, 4));
    assert_null(mir_cli_nearest("", names, 0));
}

static void targets_pair_names_with_their_namespaces(void **state)
{
    (void)state;
    mir_arena arena = {0};
    mir_cli_targets targets;
    assert_int_equal(
        PARSE(W("device"), W("list"), W("a/x"), W("b/y"), W("c/x"), W("--label"), W("k=1,l=")),
        MIR_EXIT_OK);
    assert_int_equal(mir_cli_target_parse(&line.args, &arena, &targets, NULL), MIR_OK);
    assert_int_equal(targets.count, 2);
    assert_true(targets.literal);
    assert_int_equal(targets.items[0]->n_names, 2);
    assert_string_equal(targets.items[0]->names[1], "c");
    assert_string_equal(targets.items[0]->namespaces[0], "x");
    assert_string_equal(targets.items[1]->names[0], "b");
    assert_int_equal(targets.items[1]->n_labels, 2);
    assert_string_equal(targets.items[1]->labels[1]->value, "");
    mir_arena_free(&arena);
}

static void a_star_is_everything_but_was_said(void **state)
{
    (void)state;
    mir_arena arena = {0};
    mir_cli_targets targets;
    assert_int_equal(PARSE(W("device"), W("list"), W("*/*"), W("a/x")), MIR_EXIT_OK);
    assert_int_equal(mir_cli_target_parse(&line.args, &arena, &targets, NULL), MIR_OK);
    assert_true(targets.everything && targets.stated && !targets.literal);
    assert_int_equal(PARSE(W("device"), W("list")), MIR_EXIT_OK);
    assert_int_equal(mir_cli_target_parse(&line.args, &arena, &targets, NULL), MIR_OK);
    assert_true(targets.everything && !targets.stated);
    mir_arena_free(&arena);
}

static void pairs_keep_the_last_of_a_key_and_commas_can_be_escaped(void **state)
{
    (void)state;
    mir_arena arena = {0};
    mir_cli_target_pair *pairs = NULL;
    size_t count = 0;
    assert_int_equal(PARSE(W("device"), W("create"), W("x"), W("--labels"), W("a=1,b=x\\,y,a=2"),
                           W("-l"), W("c=d=e")),
                     MIR_EXIT_OK);
    assert_int_equal(
        mir_cli_target_pairs(&line.args, MIR_OPT_SET_LABELS, &arena, &pairs, &count, NULL), MIR_OK);
    assert_int_equal(count, 3);
    assert_string_equal(pairs[0].value, "2");
    assert_string_equal(pairs[1].value, "x,y");
    assert_string_equal(pairs[2].value, "d=e");
    mir_arena_free(&arena);
}

/* Every entry of the table is complete, and no name or letter means two things in one command. */
static void check_command(const mir_cli_command *command)
{
    assert_non_null(command->summary);
    assert_true((command->children != NULL) != (command->run != NULL));
    const mir_cli_option *seen[128];
    size_t count = 0;
    for (size_t g = 0; g < MIR_CLI_GROUPS_MAX && command->groups[g] != NULL; g++)
        for (const mir_cli_option *each = command->groups[g]->options; each->id != MIR_OPT_NONE;
             each++)
            seen[count++] = each;
    bool own_help = false;
    for (size_t i = 0; i < count; i++) own_help |= seen[i]->id == MIR_OPT_HELP;
    if (!own_help)
        for (const mir_cli_option *each = mir_cli_global_group.options; each->id != MIR_OPT_NONE;
             each++)
            if (!mir_cli_shadows(command, each)) seen[count++] = each;
    for (size_t i = 0; i < count; i++) {
        assert_true(seen[i]->synonym || seen[i]->help != NULL);
        assert_true(seen[i]->choices == NULL || seen[i]->value != NULL);
        for (size_t j = 0; j < i; j++) {
            if (strcmp(seen[i]->name, seen[j]->name) == 0)
                fail_msg("%s has two options --%s", command->name, seen[i]->name);
            if (seen[i]->letter != 0 && seen[i]->letter == seen[j]->letter)
                fail_msg("%s has two options -%c", command->name, seen[i]->letter);
        }
    }
    for (const mir_cli_command *each = command->children; each != NULL && each->name != NULL;
         each++) {
        assert_ptr_equal(mir_cli_find(command->children, each->name), each);
        check_command(each);
    }
}

/* `mir command send --timeout` is of the devices, not of the request. */
static void an_option_of_a_command_takes_the_place_of_a_global_one(void **state)
{
    (void)state;
    char *words[] = {(char[]){"mir"}, (char[]){"command"}, (char[]){"send"}, (char[]){"--timeo=3s"},
                     NULL};
    assert_int_equal(mir_cli_parse(4, words, &line), MIR_EXIT_OK);
    assert_string_equal(mir_cli_value(&line.args, MIR_OPT_TIMEOUT), "3s");
    size_t global = 0;
    for (const mir_cli_option *each = mir_cli_global_group.options; each->id != MIR_OPT_NONE;
         each++)
        if (mir_cli_shadows(line.command, each)) {
            assert_int_equal(each->id, MIR_OPT_TIMEOUT);
            global++;
        }
    assert_int_equal(global, 1);
}

/* The commands of a device are listed once in the man page. */
static void commands_below_device_are_those_of_the_first_level(void **state)
{
    (void)state;
    const mir_cli_command *device = mir_cli_find(mir_cli_root.children, "dev");
    const mir_cli_command *below = mir_cli_find(device->children, "cmd");
    assert_ptr_equal(mir_cli_same_as(below), mir_cli_find(mir_cli_root.children, "command"));
    assert_ptr_equal(mir_cli_find(below->children, "send")->run, mir_cli_command_send);
    assert_null(mir_cli_same_as(mir_cli_same_as(below)));
    assert_null(mir_cli_same_as(device));
}

static void the_table_is_sound(void **state)
{
    (void)state;
    check_command(&mir_cli_root);
}

/* Examples are lines that would run: the part before any pipe or redirect parses. */
static void check_examples(const mir_cli_command *command)
{
    for (const mir_cli_example *each = command->examples; each != NULL && each->line != NULL;
         each++) {
        char *text = strdup(each->line);
        char *words[64];
        int count = 0;
        text[strcspn(text, "|>")] = '\0';
        char *rest = NULL;
        for (char *word = strtok_r(text, " ", &rest); word != NULL;
             word = strtok_r(NULL, " ", &rest))
            words[count++] = word;
        words[count] = NULL;
        if (mir_cli_parse(count, words, &line) != MIR_EXIT_OK)
            fail_msg("the example '%s' does not parse", each->line);
        free(text);
    }
    for (const mir_cli_command *each = command->children; each != NULL && each->name != NULL;
         each++)
        check_examples(each);
}

static void the_examples_parse(void **state)
{
    (void)state;
    check_examples(&mir_cli_root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_may_stand_anywhere),
        cmocka_unit_test(the_last_value_counts_and_two_dashes_end_options),
        cmocka_unit_test(help_wins_over_what_is_missing),
        cmocka_unit_test(the_nearest_word_is_found),
        cmocka_unit_test(targets_pair_names_with_their_namespaces),
        cmocka_unit_test(a_star_is_everything_but_was_said),
        cmocka_unit_test(pairs_keep_the_last_of_a_key_and_commas_can_be_escaped),
        cmocka_unit_test(an_option_of_a_command_takes_the_place_of_a_global_one),
        cmocka_unit_test(commands_below_device_are_those_of_the_first_level),
        cmocka_unit_test(the_table_is_sound),
        cmocka_unit_test(the_examples_parse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
