/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_context: the file of contexts, servers by name.
 *
 * Why        People who look after several servers name them once.
 * Ownership  A file read belongs to the caller (mir_cli_context_free).
 * Affinity   One process at a time writes; the file is replaced as a whole, mode 0600.
 * Bounds     As in mir_cli_yaml.
 * Errors     A file that is not there is an empty one. MIR_E_INVALID with path and line.
 * Source     Keys logLevel, currentContext, contexts[]{name, target, webTarget, grafana, sec{...}}.
 *            Keys that are not known here are kept when the file is written; comments are not. */
#ifndef MIR_CLI_CONTEXT_H
#define MIR_CLI_CONTEXT_H

#include "mir_paths.h"

#include <jansson.h>

typedef struct mir_cli_context_file {
    char path[MIR_PATH_BYTES_MAX];
    json_t *root; /* an object */
} mir_cli_context_file;

MIR_MUST_CHECK mir_status mir_cli_context_read(mir_cli_context_file *file, mir_error *error);
MIR_MUST_CHECK mir_status mir_cli_context_write(const mir_cli_context_file *file, mir_error *error);
void mir_cli_context_free(mir_cli_context_file *file);

/* The name of the current context, or null. */
const char *mir_cli_context_chosen(const mir_cli_context_file *file);
json_t *mir_cli_context_find(const mir_cli_context_file *file, const char *name);
/* The array of contexts, never null. */
json_t *mir_cli_context_all(const mir_cli_context_file *file);

#endif
