/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_device_schema.h"

#include <stdlib.h>

#include "mir_device_builtin.h" /* generated: descriptor.proto and mir.proto */
#include "mir_device_wire.h"

/* Field numbers of google/protobuf/descriptor.proto. */
enum {
    SET_FILE = 1,
    FILE_NAME = 1,
    FILE_PACKAGE = 2,
    FILE_DEPENDENCY = 3,
    FILE_MESSAGE = 4,
    MESSAGE_NAME = 1,
    MESSAGE_NESTED = 3,
};

static const char *const own_files[] = {"google/protobuf/descriptor.proto",
                                        "mir/device/v1/mir.proto"};

typedef struct builder {
    mir_device_schema schema;
    mir_view paths[MIR_DEVICE_FILES_MAX];
    mir_view files[MIR_DEVICE_FILES_MAX];
    size_t file_count;
    size_t name_capacity;
    mir_error *error;
} builder;

static mir_status malformed(builder *b)
{
    return mir_error_set(b->error, MIR_E_INVALID,
                         "a schema is not a serialized google.protobuf.FileDescriptorSet");
}

static bool is_own(mir_view path)
{
    for (size_t i = 0; i < sizeof own_files / sizeof own_files[0]; i++)
        if (mir_view_eq_cstr(path, own_files[i])) return true;
    return false;
}

/* The last value of a string field, as protobuf reads it; empty when absent. */
static mir_status find_string(mir_view message, uint32_t number, mir_view *value)
{
    *value = (mir_view){NULL, 0};
    mir_device_field field;
    mir_status status;
    while ((status = mir_device_wire_next(&message, &field)) == MIR_OK)
        if (field.number == number && field.is_bytes) *value = field.bytes;
    return status == MIR_E_EMPTY ? MIR_OK : status;
}

static mir_status add_name(builder *b, mir_view scope, mir_view name, char **full)
{
    mir_device_schema *schema = &b->schema;
    if (schema->name_count == b->name_capacity) {
        if (b->name_capacity >= MIR_DEVICE_MESSAGES_MAX)
            return mir_error_set(b->error, MIR_E_TOO_LARGE, "the schema has over %d messages",
                                 MIR_DEVICE_MESSAGES_MAX);
        size_t capacity = b->name_capacity == 0 ? 64 : b->name_capacity * 2;
        char **names = realloc(schema->names, capacity * sizeof *names);
        if (names == NULL) return mir_error_set(b->error, MIR_E_NO_MEMORY, "out of memory");
        schema->names = names;
        b->name_capacity = capacity;
    }
    char *text = malloc(scope.size + name.size + 2);
    if (text == NULL) return mir_error_set(b->error, MIR_E_NO_MEMORY, "out of memory");
    size_t used = 0;
    if (scope.size > 0) {
        memcpy(text, scope.data, scope.size);
        text[scope.size] = '.';
        used = scope.size + 1;
    }
    memcpy(text + used, name.data, name.size);
    text[used + name.size] = '\0';
    schema->names[schema->name_count++] = text;
    *full = text;
    return MIR_OK;
}

static mir_status add_message(builder *b, mir_view scope, mir_view message, int depth)
{
    mir_view name;
    if (depth > MIR_DEVICE_DEPTH_MAX || find_string(message, MESSAGE_NAME, &name) != MIR_OK ||
        name.size == 0)
        return malformed(b);
    char *full = NULL;
    mir_status status = add_name(b, scope, name, &full);
    mir_device_field field;
    while (status == MIR_OK && mir_device_wire_next(&message, &field) == MIR_OK)
        if (field.number == MESSAGE_NESTED && field.is_bytes)
            status = add_message(b, mir_view_cstr(full), field.bytes, depth + 1);
    return status;
}

static mir_status add_file(builder *b, mir_view path, mir_view file)
{
    for (size_t i = 0; i < b->file_count; i++) {
        if (!mir_view_eq(b->paths[i], path)) continue;
        if (mir_view_eq(b->files[i], file)) return MIR_OK;
        return mir_error_set(b->error, MIR_E_INVALID,
                             "the schemas have two different files named %.*s",
                             MIR_VIEW_ARGS(path));
    }
    if (b->file_count == MIR_DEVICE_FILES_MAX)
        return mir_error_set(b->error, MIR_E_TOO_LARGE, "the schemas have over %d files",
                             MIR_DEVICE_FILES_MAX);
    mir_view package;
    if (find_string(file, FILE_PACKAGE, &package) != MIR_OK) return malformed(b);
    mir_view rest = file;
    mir_device_field field;
    while (mir_device_wire_next(&rest, &field) == MIR_OK) {
        if (field.number != FILE_MESSAGE || !field.is_bytes) continue;
        mir_status status = add_message(b, package, field.bytes, 1);
        if (status != MIR_OK) return status;
    }
    b->paths[b->file_count] = path;
    b->files[b->file_count++] = file;
    return MIR_OK;
}

static mir_status add_set(builder *b, mir_view set, bool own)
{
    mir_device_field field;
    mir_status status;
    while ((status = mir_device_wire_next(&set, &field)) == MIR_OK) {
        if (field.number != SET_FILE || !field.is_bytes) continue;
        mir_view path;
        if (find_string(field.bytes, FILE_NAME, &path) != MIR_OK || path.size == 0)
            return malformed(b);
        if (is_own(path) != own) continue;
        status = add_file(b, path, field.bytes);
        if (status != MIR_OK) return status;
    }
    return status == MIR_E_EMPTY ? MIR_OK : malformed(b);
}

static mir_status check_imports(builder *b)
{
    for (size_t i = 0; i < b->file_count; i++) {
        mir_view rest = b->files[i];
        mir_device_field field;
        while (mir_device_wire_next(&rest, &field) == MIR_OK) {
            if (field.number != FILE_DEPENDENCY || !field.is_bytes) continue;
            size_t at = 0;
            while (at < b->file_count && !mir_view_eq(b->paths[at], field.bytes)) at++;
            if (at == b->file_count)
                return mir_error_set(b->error, MIR_E_INVALID,
                                     "%.*s imports %.*s, which no schema contains (was protoc run "
                                     "with --include_imports?)",
                                     MIR_VIEW_ARGS(b->paths[i]), MIR_VIEW_ARGS(field.bytes));
        }
    }
    return MIR_OK;
}

static void write_set(builder *b)
{
    for (size_t i = 0; i < b->file_count; i++) {
        mir_bytes *out = &b->schema.set;
        mir_bytes_u8(out, SET_FILE << 3 | 2);
        size_t size = b->files[i].size;
        for (; size >= 0x80; size >>= 7) mir_bytes_u8(out, (uint8_t)(size | 0x80));
        mir_bytes_u8(out, (uint8_t)size);
        mir_bytes_view(out, b->files[i]);
    }
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

mir_status mir_device_schema_build(const mir_view *sets, size_t set_count,
                                   mir_device_schema *schema, mir_error *error)
{
    builder *b = calloc(1, sizeof *b);
    if (b == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    b->error = error;
    mir_status status = MIR_OK;
    for (size_t i = 0; status == MIR_OK && i < set_count; i++) status = add_set(b, sets[i], false);
    if (status == MIR_OK) status = add_set(b, mir_device_builtin, true);
    if (status == MIR_OK) status = check_imports(b);
    if (status == MIR_OK) {
        write_set(b);
        if (!mir_bytes_ok(&b->schema.set))
            status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    }
    if (status == MIR_OK) {
        if (b->schema.name_count != 0)
            qsort(b->schema.names, b->schema.name_count, sizeof *b->schema.names, by_text);
        *schema = b->schema;
    } else {
        mir_device_schema_free(&b->schema);
    }
    free(b);
    return status;
}

bool mir_device_schema_has(const mir_device_schema *schema, const char *name)
{
    return schema->name_count > 0 && bsearch(&name, schema->names, schema->name_count,
                                             sizeof *schema->names, by_text) != NULL;
}

void mir_device_schema_free(mir_device_schema *schema)
{
    mir_bytes_free(&schema->set);
    for (size_t i = 0; i < schema->name_count; i++) free(schema->names[i]);
    free(schema->names);
    *schema = (mir_device_schema){0};
}
