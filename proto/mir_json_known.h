/* SPDX-License-Identifier: Apache-2.0 */
/* Which messages have a JSON form of their own; for the JSON codec alone. */
#ifndef MIR_JSON_KNOWN_H
#define MIR_JSON_KNOWN_H

#include "mir_schema.h"

typedef enum mir_json_known {
    MIR_KNOWN_NONE = 0,
    MIR_KNOWN_TIMESTAMP,
    MIR_KNOWN_DURATION,
    MIR_KNOWN_FIELD_MASK,
    MIR_KNOWN_STRUCT,
    MIR_KNOWN_VALUE,
    MIR_KNOWN_LIST,
    MIR_KNOWN_WRAPPER, /* its field number 1 stands for it */
    MIR_KNOWN_ANY,
} mir_json_known;

mir_json_known mir_json_known_of(const mir_schema_message *message);
bool mir_json_is_null_enum(const mir_schema_field *field);

#endif
