/* SPDX-License-Identifier: Apache-2.0 */
/* mir_schema: the messages that a device says it speaks, from a google.protobuf.FileDescriptorSet.
 *
 * Why        Devices bring their own message types. Telemetry is decoded, commands and
 * configuration are checked and translated by what the device published about itself. Ownership  A
 * schema is immutable and reference-counted: load returns the first reference, every ref needs an
 * unref. All that is read through it (messages, fields, names, labels' sources) lives as long as
 * the schema. The bytes that it was loaded from are copied. Affinity   Any thread, without a lock.
 * Bounds     mir_schema_limits; loading is linear in the size of the set, apart from sorting.
 * Errors     load: MIR_E_INVALID for a set that is malformed or contradicts itself, MIR_E_TOO_LARGE
 *            for one over a limit, MIR_E_UNSUPPORTED for editions; the text names the culprit.
 * Source     descriptor.proto of Protocol Buffers 3. More lenient than protoc in what real devices
 *            rely on: files in any order, imports that are absent as long as nothing refers to
 * them, type names relative to the enclosing scopes, fields without label or json_name. */
#ifndef MIR_SCHEMA_H
#define MIR_SCHEMA_H

#include "mir_arena.h"
#include "mir_status.h"
#include "mir_view.h"

typedef struct mir_schema mir_schema;
typedef struct mir_schema_message mir_schema_message;
typedef struct mir_schema_enum mir_schema_enum;
typedef struct mir_schema_field mir_schema_field;

/* The numbers of FieldDescriptorProto.Type. */
typedef enum mir_schema_kind {
    MIR_KIND_DOUBLE = 1,
    MIR_KIND_FLOAT,
    MIR_KIND_INT64,
    MIR_KIND_UINT64,
    MIR_KIND_INT32,
    MIR_KIND_FIXED64,
    MIR_KIND_FIXED32,
    MIR_KIND_BOOL,
    MIR_KIND_STRING,
    MIR_KIND_GROUP,
    MIR_KIND_MESSAGE,
    MIR_KIND_BYTES,
    MIR_KIND_UINT32,
    MIR_KIND_ENUM,
    MIR_KIND_SFIXED32,
    MIR_KIND_SFIXED64,
    MIR_KIND_SINT32,
    MIR_KIND_SINT64,
} mir_schema_kind;

/* How values of a kind lie on the wire when they are not packed: MIR_PBWIRE_… */
uint32_t mir_schema_wire_type(mir_schema_kind kind);

/* mir.device.v1.MessageType */
typedef enum mir_schema_message_type {
    MIR_MESSAGE_UNSPECIFIED = 0,
    MIR_MESSAGE_TELEMETRY,
    MIR_MESSAGE_TELECOMMAND,
    MIR_MESSAGE_TELECONFIG,
} mir_schema_message_type;

/* mir.device.v1.TimestampType; MICRO comes before MILLI. */
typedef enum mir_schema_timestamp_type {
    MIR_TIMESTAMP_UNSPECIFIED = 0,
    MIR_TIMESTAMP_SEC,
    MIR_TIMESTAMP_MICRO,
    MIR_TIMESTAMP_MILLI,
    MIR_TIMESTAMP_NANO,
    MIR_TIMESTAMP_FRACTION,
} mir_schema_timestamp_type;

typedef struct mir_schema_tag {
    const char *key;
    const char *value;
} mir_schema_tag;

/* Texts are terminated by a zero byte; sizes do not count it. */
struct mir_schema_field {
    const char *name;
    const char *json_name; /* explicit, or lowerCamelCase of the name */
    uint32_t name_size;
    uint32_t json_name_size;
    uint32_t number;
    mir_schema_kind kind;
    mir_schema_timestamp_type timestamp_type;
    int32_t oneof;    /* index among the message's oneofs, -1: none, or a synthetic one */
    bool is_repeated; /* also maps */
    bool is_map;      /* `message` is the entry: number 1 the key, number 2 the value */
    bool is_required;
    bool is_packed;                    /* as an encoder should write it; decoders take both forms */
    bool has_presence;                 /* unset differs from the default value */
    const mir_schema_message *message; /* MIR_KIND_MESSAGE and MIR_KIND_GROUP */
    const mir_schema_enum *enumeration;
    const char *unit;           /* null: none */
    const mir_schema_tag *tags; /* in byte order of their keys, values not empty */
    uint32_t tag_count;
};

typedef struct mir_schema_enum_value {
    const char *name;
    uint32_t name_size;
    int32_t number;
} mir_schema_enum_value;

struct mir_schema_enum {
    const char *name; /* full */
    uint32_t name_size;
    uint32_t value_count;
    const mir_schema_enum_value *values; /* declaration order */
};

struct mir_schema_message {
    const char *name; /* full, without leading dot */
    uint32_t name_size;
    uint32_t field_count;
    const mir_schema_field *fields; /* declaration order */
    /* Indices into fields, by ascending number, name and json_name. */
    const uint32_t *by_number;
    const uint32_t *by_name;
    const uint32_t *by_json_name;
    uint32_t oneof_count;
    const char *const *oneof_names;
    mir_schema_message_type type;
    bool is_top_level;
    bool is_map_entry;
    bool has_required;
    const mir_schema_tag *tags; /* of mir.device.v1.meta, as in fields */
    uint32_t tag_count;
};

typedef struct mir_schema_limits {
    size_t set_bytes_max;
    size_t memory_bytes_max; /* of the loaded schema, the set included */
    uint32_t file_count_max;
    uint32_t message_count_max; /* messages and enums, nested ones included */
    uint32_t field_count_max;   /* fields, enum values, oneofs and tags */
    uint32_t depth_max;         /* of message declarations inside each other */
    uint32_t name_bytes_max;    /* of a full name, a json_name or a file path */
} mir_schema_limits;

#define MIR_SCHEMA_LIMITS_DEFAULT                                                                  \
    ((mir_schema_limits){.set_bytes_max = 8u << 20,                                                \
                         .memory_bytes_max = 64u << 20,                                            \
                         .file_count_max = 1024,                                                   \
                         .message_count_max = 4096,                                                \
                         .field_count_max = 65536,                                                 \
                         .depth_max = 32,                                                          \
                         .name_bytes_max = 512})

/* `limits` may be null: the defaults. An empty set is a valid schema without messages. */
MIR_MUST_CHECK mir_status mir_schema_load(mir_view set_bytes, const mir_schema_limits *limits,
                                          mir_schema **schema, mir_error *error);
mir_schema *mir_schema_ref(mir_schema *schema);
/* Null is allowed. */
void mir_schema_unref(mir_schema *schema);

/* The set as it was loaded. */
mir_view mir_schema_set_bytes(const mir_schema *schema);
size_t mir_schema_memory_bytes(const mir_schema *schema);
uint32_t mir_schema_file_count(const mir_schema *schema);
const char *mir_schema_file_path(const mir_schema *schema, uint32_t index);
/* The distinct proto packages of all files, in byte order. */
const char *const *mir_schema_packages(const mir_schema *schema, uint32_t *count);

/* By full name, without or with a leading dot. Fails with MIR_E_NOT_FOUND and "proto: not found",
 * or MIR_E_INVALID when the name is that of something else, such as an enum. */
MIR_MUST_CHECK mir_status mir_schema_find(const mir_schema *schema, mir_view name,
                                          const mir_schema_message **message, mir_error *error);
/* For people: also the last part of a full name or any dotted end of it, ignoring case and `_`, if
 * one top-level message alone answers to it. MIR_E_INVALID when several do; the text lists some. */
MIR_MUST_CHECK mir_status mir_schema_find_short(const mir_schema *schema, mir_view name,
                                                const mir_schema_message **message,
                                                mir_error *error);
/* Top-level messages with that message_type, in the order of the files and of their declaration. */
const mir_schema_message *const *mir_schema_list(const mir_schema *schema,
                                                 mir_schema_message_type type, uint32_t *count);
/* All top-level messages. */
const mir_schema_message *const *mir_schema_messages(const mir_schema *schema, uint32_t *count);

const mir_schema_field *mir_schema_field_by_number(const mir_schema_message *message,
                                                   uint32_t number);
const mir_schema_field *mir_schema_field_by_name(const mir_schema_message *message, mir_view name);
/* By json_name first, then by name. */
const mir_schema_field *mir_schema_field_by_json_name(const mir_schema_message *message,
                                                      mir_view name);
/* The field whose value is the time of a message: the first one with the timestamp option, if the
 * message is telemetry; null otherwise. */
const mir_schema_field *mir_schema_timestamp_field(const mir_schema_message *message);

typedef struct mir_schema_label {
    mir_view key; /* `__tag_<path>key`, `__tag_<path>field.key`, `__unit_<path>field` */
    mir_view value;
} mir_schema_label;

enum { MIR_SCHEMA_LABELS_MAX = 4096, MIR_SCHEMA_PATH_BYTES_MAX = 1024 };

/* The labels of a message and of all that it contains, sorted by key bytewise, from the arena. A
 * recursive type is entered once on each path; over MIR_SCHEMA_LABELS_MAX labels, the rest of them
 * is left out. MIR_E_NO_MEMORY is the only failure. */
MIR_MUST_CHECK mir_status mir_schema_labels(const mir_schema_message *message, mir_arena *arena,
                                            const mir_schema_label **labels, uint32_t *count);

/* What a stored telemetry field name (`a.b`, `f_0`, `f_key.sub`) came from. */
typedef struct mir_schema_origin {
    const mir_schema_field
        *field;       /* whose kind the value has; of a scalar map: the entry's value */
    const char *unit; /* null: none. Elements and map values take the field's unit */
} mir_schema_origin;

/* MIR_E_NOT_FOUND when the message can have no field of that name. */
MIR_MUST_CHECK mir_status mir_schema_origin_of(const mir_schema_message *message,
                                               mir_view stored_name, mir_schema_origin *origin);

/* The number of the field of a message type that had this name in another version of the schema;
 * 0: none. */
typedef uint32_t (*mir_schema_renamed_fn)(void *context, const mir_schema_message *type,
                                          mir_view name);

/* What a telemetry field is called in this schema that was stored under the names of another version:
 * names of this one come first, then those that `renamed` knows. MIR_E_NOT_FOUND: nothing. */
MIR_MUST_CHECK mir_status mir_schema_name_today(const mir_schema_message *message,
                                                mir_view stored_name, mir_schema_renamed_fn renamed,
                                                void *context, char name[MIR_SCHEMA_PATH_BYTES_MAX],
                                                size_t *size);

/* Two schemas are equal when they have the same files, whatever the order of the files, of fields
 * in the encoding and of map entries. The hash is of the same content; it is keyed with a secret of
 * this process, so it is not to be stored, and cannot be collided with from outside. */
bool mir_schema_equal(const mir_schema *a, const mir_schema *b);
uint64_t mir_schema_hash(const mir_schema *schema);

#endif
