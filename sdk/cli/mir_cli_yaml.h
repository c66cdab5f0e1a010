/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_yaml: YAML as JSON values, and back.
 *
 * Why        Files of devices and contexts are YAML or JSON, which is YAML too; output may be
 *            either. jansson's values are the common form.
 * Ownership  A value read belongs to the caller (json_decref).
 * Affinity   Any thread.
 * Bounds     MIR_YAML_BYTES_MAX bytes, MIR_YAML_NODES_MAX values (aliases counted each time they
 *            are used), MIR_YAML_DEPTH_MAX levels.
 * Errors     MIR_E_INVALID, MIR_E_TOO_LARGE: the text names the line.
 * Source     YAML 1.1 by libyaml, plain scalars resolved as the core schema of YAML 1.2 does:
 *            null ~ true false, decimal integers and numbers; everything else is a string. */
#ifndef MIR_CLI_YAML_H
#define MIR_CLI_YAML_H

#include "mir_bytes.h"

#include <jansson.h>

enum {
    MIR_YAML_BYTES_MAX = 16 * 1024 * 1024,
    MIR_YAML_NODES_MAX = 2 * 1000 * 1000,
    MIR_YAML_DEPTH_MAX = 100,
};

/* An array with a value for each document. Empty documents are left out. */
MIR_MUST_CHECK mir_status mir_cli_yaml_read(mir_view text, json_t **documents, mir_error *error);
/* Appends one document; with `separate`, "---" comes before it. */
MIR_MUST_CHECK mir_status mir_cli_yaml_write(const json_t *value, bool separate, mir_bytes *out);

#endif
