/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_schema: the schema that a device's twin carries.
 *
 * Ownership  The caller unrefs what is loaded. Names are constant or belong to the schema.
 * Affinity   The main thread.
 * Errors     MIR_E_NOT_FOUND when the twin has none; what decompression and loading say. */
#ifndef MIR_CLI_SCHEMA_H
#define MIR_CLI_SCHEMA_H

#include "mir_api/v1/core.pb-c.h"
#include "mir_schema.h"

MIR_MUST_CHECK mir_status mir_cli_schema_load(const MirApi__V1__Device *device, mir_schema **schema,
                                              mir_error *error);
/* "int32", "string", or the full name of a message or an enum. */
const char *mir_cli_schema_type(const mir_schema_field *field);
/* Whether its fields are nothing that people want to see listed: a time, a google.protobuf type. */
bool mir_cli_schema_is_well_known(const mir_schema_message *message);

#endif
