/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_message: the commands and the configuration that devices understand.
 *
 * Why        Commands and configuration are messages of a schema: they are listed, named and found
 *            in the same way, with two sets of messages on the wire.
 * Ownership  Everything lives in the session's arena.
 * Affinity   The main thread.
 * Errors     Functions that return int return an exit code and have told the user. */
#ifndef MIR_CLI_MESSAGE_H
#define MIR_CLI_MESSAGE_H

#include "mir_api/v1/cfg.pb-c.h"
#include "mir_api/v1/cmd.pb-c.h"
#include "mir_cli_connect.h"
#include "mir_cli_target.h"

#include <jansson.h>

typedef enum mir_cli_message_kind { MIR_MESSAGE_COMMAND, MIR_MESSAGE_CONFIG } mir_cli_message_kind;

typedef struct mir_cli_message {
    const char *name;  /* full */
    const char *shown; /* with its tags: pkg.Msg{site=north} */
    json_t *labels;    /* as they came; borrowed from the group */
    const char *template_text;
    const char *error; /* or null */
} mir_cli_message;

/* Devices with equal schemas. */
typedef struct mir_cli_message_group {
    MirApi__V1__DeviceIdPair **ids;
    size_t ids_count;
    mir_cli_message *messages;
    size_t messages_count;
    const char *error;                                 /* or null */
    MirApi__V1__DevicesConfigs__ConfigValues **values; /* of configuration */
    size_t values_count;
} mir_cli_message_group;

typedef struct mir_cli_message_list {
    mir_cli_message_group *groups;
    size_t count;
    json_t *labels; /* owns the labels of all */
} mir_cli_message_list;

/* A zeroed list is empty; mir_cli_message_free releases the labels. */
int mir_cli_message_fetch(mir_cli_session *session, mir_cli_message_kind kind,
                          const mir_cli_targets *targets, const mir_cli_target_pair *filters,
                          size_t filters_count, bool refresh, mir_cli_message_list *list);
void mir_cli_message_free(mir_cli_message_list *list);

/* Finds the message that is meant: "start_bootup" is factory.v1.StartBootup when no other message
 * of the list has that name, ignoring case and `_`. Says which there are when none or several do. */
int mir_cli_message_resolve(mir_cli_message_kind kind, const mir_cli_message_list *list,
                            const char *typed, const char **name);
/* Whether the name has to be looked up: it is not a full one. */
bool mir_cli_message_is_short(const char *typed);

/* Prints a list in the formats table, wide, json, yaml and name. */
int mir_cli_message_print(mir_cli_message_kind kind, const mir_cli_message_list *list,
                          const char *format);
/* "pump-7/plant, pump-8/plant and 3 more" */
void mir_cli_message_devices(const mir_cli_message_group *group, size_t shown_max, mir_bytes *out);
/* Parsed JSON, or the text as it is when it is no JSON. */
json_t *mir_cli_message_json(const char *text, size_t size);

/* The names of all messages, for completion; silent when no server answers at once. */
void mir_cli_message_each_name(mir_cli_message_kind kind, mir_cli_connect_name_fn each,
                               void *context);

#endif
