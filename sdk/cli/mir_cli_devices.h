/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_devices: devices as the commands fetch and show them.
 *
 * Why        list, create, update, apply and delete answer with devices, in the same formats.
 * Ownership  Lists point into the session's arena; JSON values belong to the caller.
 * Affinity   The main thread.
 * Errors     Functions that return int return an exit code and have told the user. */
#ifndef MIR_CLI_DEVICES_H
#define MIR_CLI_DEVICES_H

#include "mir_cli_connect.h"
#include "mir_cli_target.h"

#include <jansson.h>

typedef struct mir_cli_devices {
    MirApi__V1__Device **items;
    size_t count;
} mir_cli_devices;

/* What a list has beyond the twins. */
typedef enum mir_cli_devices_parts {
    MIR_DEVICES_PLAIN = 0,
    MIR_DEVICES_EVENTS = 1, /* the newest events of each */
    MIR_DEVICES_SCHEMA = 2, /* the bytes of its schema, most of what is sent */
} mir_cli_devices_parts;

/* Every device that one of the targets matches, once, by namespace, name and id. Asked for in pages,
 * so that there may be any number of them. */
int mir_cli_devices_list(mir_cli_session *session, const mir_cli_targets *targets, unsigned parts,
                         mir_cli_devices *devices);
void mir_cli_devices_sort(mir_cli_devices *devices);
MIR_MUST_CHECK mir_status mir_cli_devices_append(mir_arena *arena, mir_cli_devices *to,
                                                 const MirApi__V1__DeviceList *from);

/* Parts of a device that are never null. */
const char *mir_cli_devices_name(const MirApi__V1__Device *device);
const char *mir_cli_devices_namespace(const MirApi__V1__Device *device);
const char *mir_cli_devices_id(const MirApi__V1__Device *device);

/* The formats table, wide, json, yaml and name. */
int mir_cli_devices_print(const mir_cli_devices *devices, const char *format);
/* What a change did: "<verb> NAME/NAMESPACE" for each, or json or yaml. */
int mir_cli_devices_report(const mir_cli_devices *devices, const char *verb, const char *format);

/* A twin as JSON, or as YAML without the bytes of the schema. */
int mir_cli_devices_print_twin(const json_t *twin, const char *format);
/* JSON and YAML of anything to standard output. */
/* What the server tells of itself, an object that is the caller's; an exit code. */
int mir_cli_status_ask(mir_cli_session *session, json_t **status);
int mir_cli_devices_print_value(const json_t *value, const char *format);

/* The names that begin so, for completion; silent when no server answers at once. */
void mir_cli_devices_each_name(const char *start, mir_cli_connect_name_fn each, void *context);

#endif
