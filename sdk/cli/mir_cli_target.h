/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_target: which devices a command is about, from words and flags.
 *
 * Why        People write `pump-7/plant`; the API has lists of names, namespaces, ids, labels and
 *            schemas that are all to match. Names and namespaces are not paired there, so words
 *            become one target for each namespace among them. Whether a device is there is asked
 *            for like a label: status=online; a real label of that name is labels.status.
 * Ownership  Targets live in the arena and point into the command line.
 * Affinity   Any thread.
 * Bounds     MIR_TARGET_VALUES_MAX values in all lists together.
 * Errors     MIR_E_INVALID with a text for the user. */
#ifndef MIR_CLI_TARGET_H
#define MIR_CLI_TARGET_H

#include "mir_api/v1/core.pb-c.h"
#include "mir_arena.h"
#include "mir_cli.h"

enum { MIR_TARGET_VALUES_MAX = 16384 };

typedef struct mir_cli_targets {
    MirApi__V1__DeviceTarget **items; /* at least one */
    size_t count;
    bool everything; /* nothing narrows it: every device */
    bool stated;     /* words or flags were given, be it only a star */
    bool literal;    /* words were given, and none has a star: something should be found */
} mir_cli_targets;

MIR_MUST_CHECK mir_status mir_cli_target_parse(const mir_cli_args *args, mir_arena *arena,
                                               mir_cli_targets *targets, mir_error *error);

/* A target that narrows nothing is refused where something is changed or sent: there a star says
 * that everything is meant. */
void mir_cli_target_state_everything(const mir_cli_targets *targets);

typedef struct mir_cli_target_pair {
    char *key;
    char *value;
} mir_cli_target_pair;

/* Every `key=value` in the values of an option, "a=1,b=2" being two; `\,` is a comma in a value.
 * Of two with the same key the last one counts. */
MIR_MUST_CHECK mir_status mir_cli_target_pairs(const mir_cli_args *args, mir_cli_option_id id,
                                               mir_arena *arena, mir_cli_target_pair **pairs,
                                               size_t *count, mir_error *error);
/* Every element in the values of an option, "a,b" being two. Empty ones are refused. */
MIR_MUST_CHECK mir_status mir_cli_target_list(const mir_cli_args *args, mir_cli_option_id id,
                                              mir_arena *arena, char ***list, size_t *count,
                                              mir_error *error);
/* Splits NAME/NAMESPACE; the namespace is null without a slash. */
MIR_MUST_CHECK mir_status mir_cli_target_split(const char *word, mir_arena *arena, char **name,
                                               char **name_space, mir_error *error);

#endif
