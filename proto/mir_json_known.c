/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_json_known.h"

#include <string.h>

mir_json_known mir_json_known_of(const mir_schema_message *message)
{
    static const struct {
        const char *name;
        mir_json_known known;
    } table[] = {
        {"Timestamp", MIR_KNOWN_TIMESTAMP},  {"Duration", MIR_KNOWN_DURATION},
        {"FieldMask", MIR_KNOWN_FIELD_MASK}, {"Struct", MIR_KNOWN_STRUCT},
        {"Value", MIR_KNOWN_VALUE},          {"ListValue", MIR_KNOWN_LIST},
        {"DoubleValue", MIR_KNOWN_WRAPPER},  {"FloatValue", MIR_KNOWN_WRAPPER},
        {"Int64Value", MIR_KNOWN_WRAPPER},   {"UInt64Value", MIR_KNOWN_WRAPPER},
        {"Int32Value", MIR_KNOWN_WRAPPER},   {"UInt32Value", MIR_KNOWN_WRAPPER},
        {"BoolValue", MIR_KNOWN_WRAPPER},    {"StringValue", MIR_KNOWN_WRAPPER},
        {"BytesValue", MIR_KNOWN_WRAPPER},   {"Any", MIR_KNOWN_ANY},
    };
    static const char package[] = "google.protobuf.";
    if (strncmp(message->name, package, sizeof package - 1) != 0) return MIR_KNOWN_NONE;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (strcmp(message->name + sizeof package - 1, table[i].name) != 0) continue;
        if (table[i].known != MIR_KNOWN_WRAPPER) return table[i].known;
        const mir_schema_field *value = mir_schema_field_by_number(message, 1);
        bool is_scalar = value != NULL && value->message == NULL && !value->is_repeated;
        return is_scalar ? MIR_KNOWN_WRAPPER : MIR_KNOWN_NONE;
    }
    return MIR_KNOWN_NONE;
}

bool mir_json_is_null_enum(const mir_schema_field *field)
{
    return field->enumeration != NULL &&
           strcmp(field->enumeration->name, "google.protobuf.NullValue") == 0;
}
