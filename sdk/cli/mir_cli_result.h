/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_result: what became of a command or a configuration on each device.
 *
 * Why        Both answer with an entry for each device, shown in the same way, as a whole or as
 *            they come.
 * Ownership  Texts belong to whoever made the entries; the list frees its array alone.
 * Affinity   The main thread.
 * Errors     Functions that return int return an exit code and have told the user. */
#ifndef MIR_CLI_RESULT_H
#define MIR_CLI_RESULT_H

#include "mir_bytes.h"
#include "mir_cli.h"
#include "mir_cli_table.h"

#include <jansson.h>

typedef struct mir_cli_result {
    const char *device; /* NAME/NAMESPACE */
    const char *device_id;
    const char *status; /* "success", "error", ... */
    mir_cli_table_tone tone;
    bool failed;
    const char *name;       /* of the answer or the property; or "" */
    mir_view payload;       /* JSON */
    const char *error;      /* or "" */
    const char *command_id; /* or "" */
    bool has_version;
    uint64_t version;
} mir_cli_result;

typedef struct mir_cli_results {
    mir_cli_result *items;
    size_t count;
    size_t capacity;
    json_t *shown; /* devices that were printed already */
} mir_cli_results;

MIR_MUST_CHECK bool mir_cli_result_add(mir_cli_results *to, const mir_cli_result *result);
void mir_cli_result_free(mir_cli_results *results);

/* By namespace, then by name. */
void mir_cli_result_sort(mir_cli_results *results);

/* Prints one entry by itself, unless its device was printed before: a line, or with json a line of
 * JSON, or with yaml a document. */
void mir_cli_result_stream(mir_cli_results *results, const mir_cli_result *result,
                           const char *format);
/* Prints all, sorted, in the formats table, wide, json and yaml. */
int mir_cli_result_print(mir_cli_results *results, const char *name_title, const char *format);
/* Says on stderr how many failed, when there are several, and what that means when it was to be
 * sent and not only tried; returns the exit code. */
int mir_cli_result_conclude(const mir_cli_results *results, const char *format, bool sends);
/* The first error among them, or null. */
const mir_cli_result *mir_cli_result_first_error(const mir_cli_results *results);

#endif
