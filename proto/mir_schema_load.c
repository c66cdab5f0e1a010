/* SPDX-License-Identifier: Apache-2.0 */
/* Loading of a descriptor set, in four passes: the files and what they import; their declarations,
 * which are entered into one table of names; the types of fields, resolved through that table; and
 * what follows from the types. Everything that the schema keeps is in its arena, so that giving up
 * anywhere is one free. Counts are checked before the memory for them is asked for. */
#include <stdio.h>
#include <stdlib.h>

#include "mir_hash.h"
#include "mir_pbwire.h"
#include "mir_schema_internal.h"
#include "mir_utf8.h"

#define BYTES(number)  ((uint32_t)(number) << 3 | MIR_PBWIRE_BYTES)
#define VARINT(number) ((uint32_t)(number) << 3 | MIR_PBWIRE_VARINT)

enum {
    EXTENSION_MESSAGE_TYPE = 50001,
    EXTENSION_META = 50002,
    EXTENSION_TIMESTAMP = 50101,
    EXTENSION_FIELD_META = 50102,
    /* Resolving a relative name tries every enclosing scope. */
    NAME_PARTS_MAX = 64,
    TAG_VALUE_BYTES_MAX = 4096,
};

typedef struct file_record {
    mir_view bytes;
    const char *path;
    mir_view package;
    mir_view *imports;
    uint32_t import_count;
    bool is_proto3;
    /* Of the search for import cycles. */
    enum { UNSEEN, OPEN, DONE } state;
    uint32_t next_import;
    struct file_record *importer;
} file_record;

typedef struct pending_type {
    mir_schema_field *field;
    const mir_schema_message *message;
    const file_record *file;
    mir_view type_name;
} pending_type;

typedef struct loader {
    mir_schema *schema;
    mir_schema_limits limits;
    mir_error *error;
    mir_arena scratch;
    file_record *files;
    mir_schema_table paths;
    uint32_t message_count;
    uint32_t field_count;
    mir_schema_message **messages;
    uint32_t messages_held;
    uint32_t messages_capacity;
    pending_type *pending;
    uint32_t pending_count;
    uint32_t pending_capacity;
} loader;

#define TRY(expression)                                                                            \
    do {                                                                                           \
        mir_status try_status = (expression);                                                      \
        if (try_status != MIR_OK) return try_status;                                               \
    } while (0)

static mir_status no_memory(loader *load)
{
    const mir_arena *arena = &load->schema->arena;
    if (arena->bytes_used + (64u << 10) > arena->bytes_max) {
        return mir_error_set(load->error, MIR_E_TOO_LARGE, "schema needs more than %zu bytes",
                             load->limits.memory_bytes_max);
    }
    return mir_error_set(load->error, MIR_E_NO_MEMORY, "out of memory for a schema");
}

static mir_status malformed(loader *load, const char *what, mir_view name)
{
    return mir_error_set(load->error, MIR_E_INVALID, "%s \"%.*s\" is malformed", what,
                         MIR_VIEW_ARGS(name));
}

static mir_status count_fields(loader *load, uint32_t more, const char *where)
{
    if (more > load->limits.field_count_max - load->field_count) {
        return mir_error_set(load->error, MIR_E_TOO_LARGE,
                             "\"%s\": more than %u fields, enum values and tags in the set", where,
                             load->limits.field_count_max);
    }
    load->field_count += more;
    return MIR_OK;
}

static mir_status copy_text(loader *load, mir_view text, const char *what, const char *where,
                            size_t size_max, const char **copy)
{
    if (text.size > size_max) {
        return mir_error_set(load->error, MIR_E_TOO_LARGE, "\"%s\": %s is longer than %zu bytes",
                             where, what, size_max);
    }
    if (!mir_utf8_valid(text) || (text.size > 0 && memchr(text.data, 0, text.size) != NULL)) {
        return mir_error_set(load->error, MIR_E_INVALID, "\"%s\": %s is not text", where, what);
    }
    *copy = mir_arena_strdup(&load->schema->arena, text);
    return *copy == NULL ? no_memory(load) : MIR_OK;
}

static bool is_letter(uint8_t byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || byte == '_';
}

static bool is_identifier(mir_view name)
{
    if (name.data == NULL || name.size == 0 || !is_letter(name.data[0])) return false;
    for (size_t i = 1; i < name.size; i++) {
        if (!is_letter(name.data[i]) && !(name.data[i] >= '0' && name.data[i] <= '9')) return false;
    }
    return true;
}

/* Identifiers joined by dots. */
static bool is_dotted_name(mir_view name)
{
    size_t start = 0;
    unsigned parts = 0;
    for (size_t i = 0; i <= name.size; i++) {
        if (i < name.size && name.data[i] != '.') continue;
        if (!is_identifier(mir_view_of(name.data + start, i - start))) return false;
        if (++parts > NAME_PARTS_MAX) return false;
        start = i + 1;
    }
    return true;
}

/* `scope`.`name` in the schema's arena. */
static mir_status full_name(loader *load, mir_view scope, mir_view name, const char *what,
                            mir_view *full)
{
    if (!is_identifier(name)) {
        return mir_error_set(load->error, MIR_E_INVALID, "%s in \"%.*s\": \"%.*s\" is not a name",
                             what, MIR_VIEW_ARGS(scope), (int)(name.size < 80 ? name.size : 80),
                             (const char *)name.data);
    }
    size_t size = scope.size + (scope.size != 0) + name.size;
    if (size > load->limits.name_bytes_max) {
        return mir_error_set(load->error, MIR_E_TOO_LARGE,
                             "%s in \"%.*s\": its full name is longer than %u bytes", what,
                             MIR_VIEW_ARGS(scope), load->limits.name_bytes_max);
    }
    char *text = mir_arena_alloc(&load->schema->arena, size + 1);
    if (text == NULL) return no_memory(load);
    if (scope.size != 0) {
        memcpy(text, scope.data, scope.size);
        text[scope.size] = '.';
    }
    if (name.data != NULL) memcpy(text + size - name.size, name.data, name.size);
    *full = mir_view_of(text, size);
    return MIR_OK;
}

static void table_put(mir_schema_table *table, mir_schema_symbol symbol)
{
    uint64_t at = mir_hash_bytes(symbol.name, symbol.name_size);
    while (table->slots[at & (table->capacity - 1)].kind != MIR_SYMBOL_NONE) at++;
    table->slots[at & (table->capacity - 1)] = symbol;
    table->count++;
}

static mir_status table_add(loader *load, mir_schema_table *table, mir_arena *arena, mir_view name,
                            mir_schema_symbol_kind kind, const void *object)
{
    if (mir_schema_lookup(table, name) != NULL) {
        return mir_error_set(load->error, MIR_E_INVALID, "\"%.*s\" is declared twice",
                             MIR_VIEW_ARGS(name));
    }
    if (table->count + 1 > table->capacity / 2) {
        mir_schema_table grown = {.capacity = table->capacity == 0 ? 32 : table->capacity * 2};
        grown.slots = mir_arena_alloc(arena, grown.capacity * sizeof *grown.slots);
        if (grown.slots == NULL) return no_memory(load);
        for (uint32_t i = 0; i < table->capacity; i++) {
            if (table->slots[i].kind != MIR_SYMBOL_NONE) table_put(&grown, table->slots[i]);
        }
        *table = grown;
    }
    table_put(table,
              (mir_schema_symbol){(const char *)name.data, (uint32_t)name.size, kind, object});
    return MIR_OK;
}

static mir_status declare(loader *load, mir_view name, mir_schema_symbol_kind kind,
                          const void *object)
{
    return table_add(load, &load->schema->symbols, &load->schema->arena, name, kind, object);
}

/* Files */

static mir_status scan_file(loader *load, file_record *file)
{
    mir_view path = {NULL, 0}, syntax = {NULL, 0};
    uint32_t import_count = 0;
    mir_pbwire wire = mir_pbwire_of(file->bytes);
    uint32_t tag;
    uint64_t value;
    mir_view bytes;
    bool sound = true;
    while (sound && mir_pbwire_more(&wire)) {
        sound = mir_pbwire_next(&wire, &tag, &value, &bytes);
        if (!sound) break;
        switch (tag) {
        case BYTES(1): path = bytes; break;
        case BYTES(2): file->package = bytes; break;
        case BYTES(3): import_count++; break;
        case BYTES(12): syntax = bytes; break;
        default: break;
        }
    }
    if (!sound) return malformed(load, "file", path.size > 200 ? (mir_view){NULL, 0} : path);
    if (path.size == 0) {
        return mir_error_set(load->error, MIR_E_INVALID, "a file of the set has no name");
    }
    TRY(copy_text(load, path, "its path", "file", load->limits.name_bytes_max, &file->path));
    if (mir_view_eq_cstr(syntax, "proto3")) {
        file->is_proto3 = true;
    } else if (syntax.size != 0 && !mir_view_eq_cstr(syntax, "proto2")) {
        return mir_error_set(load->error, MIR_E_UNSUPPORTED,
                             "\"%s\": syntax \"%.*s\" is not supported", file->path,
                             (int)(syntax.size < 40 ? syntax.size : 40), (const char *)syntax.data);
    }
    if (file->package.size > load->limits.name_bytes_max ||
        (file->package.size != 0 && !is_dotted_name(file->package))) {
        return mir_error_set(load->error, MIR_E_INVALID, "\"%s\": its package is not a name",
                             file->path);
    }
    TRY(count_fields(load, import_count, file->path));
    file->imports = mir_arena_alloc(&load->scratch, import_count * sizeof *file->imports + 1);
    if (file->imports == NULL) return no_memory(load);
    wire = mir_pbwire_of(file->bytes);
    while (mir_pbwire_more(&wire) && mir_pbwire_next(&wire, &tag, &value, &bytes)) {
        if (tag == BYTES(3)) file->imports[file->import_count++] = bytes;
    }
    return MIR_OK;
}

static mir_status scan_set(loader *load)
{
    mir_schema *schema = load->schema;
    uint32_t count = 0;
    uint32_t tag;
    uint64_t value;
    mir_view bytes;
    mir_pbwire wire = mir_pbwire_of(schema->set);
    while (mir_pbwire_more(&wire)) {
        if (!mir_pbwire_next(&wire, &tag, &value, &bytes)) {
            return mir_error_set(load->error, MIR_E_INVALID, "the descriptor set is malformed");
        }
        if (tag == BYTES(1) && ++count > load->limits.file_count_max) {
            return mir_error_set(load->error, MIR_E_TOO_LARGE, "more than %u files in the set",
                                 load->limits.file_count_max);
        }
    }
    load->files = mir_arena_alloc(&load->scratch, count * sizeof *load->files + 1);
    schema->file_paths = mir_arena_alloc(&schema->arena, count * sizeof *schema->file_paths + 1);
    if (load->files == NULL || schema->file_paths == NULL) return no_memory(load);
    wire = mir_pbwire_of(schema->set);
    while (mir_pbwire_more(&wire) && mir_pbwire_next(&wire, &tag, &value, &bytes)) {
        if (tag != BYTES(1)) continue;
        file_record *file = &load->files[schema->file_count];
        file->bytes = bytes;
        TRY(scan_file(load, file));
        mir_view path = mir_view_cstr(file->path);
        if (mir_schema_lookup(&load->paths, path) != NULL) {
            return mir_error_set(load->error, MIR_E_INVALID, "file \"%s\" is in the set twice",
                                 file->path);
        }
        TRY(table_add(load, &load->paths, &load->scratch, path, MIR_SYMBOL_OTHER, file));
        schema->file_paths[schema->file_count++] = file->path;
    }
    return MIR_OK;
}

static file_record *find_file(loader *load, mir_view path)
{
    const mir_schema_symbol *symbol = mir_schema_lookup(&load->paths, path);
    return symbol == NULL ? NULL : (file_record *)(uintptr_t)symbol->object;
}

static mir_status refuse_cycle(loader *load, const file_record *from, const file_record *to)
{
    /* From the import that closes the cycle back to the file that it leads to. */
    char text[256];
    size_t size = (size_t)snprintf(text, sizeof text, "\"%s\"", to->path);
    for (const file_record *at = from; at != NULL && size < sizeof text; at = at->importer) {
        size += (size_t)snprintf(text + size, sizeof text - size, " imported by \"%s\"", at->path);
        if (at == to) break;
    }
    return mir_error_set(load->error, MIR_E_INVALID, "import cycle: %s", text);
}

static mir_status check_cycles(loader *load)
{
    for (uint32_t i = 0; i < load->schema->file_count; i++) {
        file_record *file = &load->files[i];
        if (file->state != UNSEEN) continue;
        file->state = OPEN;
        while (file != NULL) {
            if (file->next_import == file->import_count) {
                file->state = DONE;
                file = file->importer;
                continue;
            }
            file_record *next = find_file(load, file->imports[file->next_import++]);
            if (next == NULL || next->state == DONE) continue;
            if (next->state == OPEN) return refuse_cycle(load, file, next);
            next->state = OPEN;
            next->importer = file;
            file = next;
        }
    }
    return MIR_OK;
}

/* Declarations */

typedef struct tag_list {
    mir_schema_tag *tags;
    uint32_t count;
    uint32_t capacity;
} tag_list;

static mir_status add_tag(loader *load, tag_list *list, mir_view entry, const char *where)
{
    mir_view key = {NULL, 0}, text = {NULL, 0}, bytes;
    uint32_t tag;
    uint64_t value;
    mir_pbwire wire = mir_pbwire_of(entry);
    while (mir_pbwire_more(&wire)) {
        if (!mir_pbwire_next(&wire, &tag, &value, &bytes)) {
            return malformed(load, "a tag of", mir_view_cstr(where));
        }
        if (tag == BYTES(1)) key = bytes;
        if (tag == BYTES(2)) text = bytes;
    }
    TRY(count_fields(load, 1, where));
    if (list->count == list->capacity) {
        uint32_t capacity = list->capacity == 0 ? 8 : list->capacity * 2;
        mir_schema_tag *grown = mir_arena_alloc(&load->scratch, capacity * sizeof *grown);
        if (grown == NULL) return no_memory(load);
        if (list->count != 0) memcpy(grown, list->tags, list->count * sizeof *grown);
        list->tags = grown;
        list->capacity = capacity;
    }
    mir_schema_tag *put = &list->tags[list->count];
    TRY(copy_text(load, key, "a tag's key", where, load->limits.name_bytes_max, &put->key));
    TRY(copy_text(load, text, "a tag's value", where, TAG_VALUE_BYTES_MAX, &put->value));
    list->count++;
    return MIR_OK;
}

static int compare_tags(const void *a, const void *b)
{
    const mir_schema_tag *left = *(const mir_schema_tag *const *)a;
    const mir_schema_tag *right = *(const mir_schema_tag *const *)b;
    int order = strcmp(left->key, right->key);
    if (order != 0) return order;
    return left < right ? -1 : left > right;
}

/* Sorted by key; of equal keys the last; without empty values. */
static mir_status keep_tags(loader *load, const tag_list *list, const mir_schema_tag **tags,
                            uint32_t *count)
{
    if (list->count == 0) return MIR_OK;
    const mir_schema_tag **order =
        mir_arena_alloc(&load->scratch, list->count * sizeof(const mir_schema_tag *));
    mir_schema_tag *kept = mir_arena_alloc(&load->schema->arena, list->count * sizeof *kept);
    if (order == NULL || kept == NULL) return no_memory(load);
    for (uint32_t i = 0; i < list->count; i++) order[i] = &list->tags[i];
    qsort(order, list->count, sizeof(const mir_schema_tag *), compare_tags);
    uint32_t kept_count = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        if (i + 1 < list->count && strcmp(order[i]->key, order[i + 1]->key) == 0) continue;
        if (order[i]->value[0] != 0) kept[kept_count++] = *order[i];
    }
    *tags = kept;
    *count = kept_count;
    return MIR_OK;
}

/* mir.device.v1.Meta and FieldMeta. */
static mir_status parse_meta(loader *load, mir_view meta, const char *where, tag_list *tags,
                             const char **unit)
{
    mir_view bytes;
    uint32_t tag;
    uint64_t value;
    mir_pbwire wire = mir_pbwire_of(meta);
    while (mir_pbwire_more(&wire)) {
        if (!mir_pbwire_next(&wire, &tag, &value, &bytes)) {
            return malformed(load, "an option of", mir_view_cstr(where));
        }
        if (tag == BYTES(1)) TRY(add_tag(load, tags, bytes, where));
        if (tag == BYTES(2) && unit != NULL) {
            TRY(copy_text(load, bytes, "its unit", where, TAG_VALUE_BYTES_MAX, unit));
        }
    }
    return MIR_OK;
}

static mir_status parse_message_options(loader *load, mir_schema_message *message, mir_view options,
                                        tag_list *tags)
{
    mir_view bytes;
    uint32_t tag;
    uint64_t value;
    mir_pbwire wire = mir_pbwire_of(options);
    while (mir_pbwire_more(&wire)) {
        if (!mir_pbwire_next(&wire, &tag, &value, &bytes)) {
            return malformed(load, "an option of", mir_view_cstr(message->name));
        }
        switch (tag) {
        case VARINT(7): message->is_map_entry = value != 0; break;
        case VARINT(EXTENSION_MESSAGE_TYPE):
            message->type = value <= MIR_MESSAGE_TELECONFIG ? (mir_schema_message_type)value
                                                            : MIR_MESSAGE_UNSPECIFIED;
            break;
        case BYTES(EXTENSION_META): TRY(parse_meta(load, bytes, message->name, tags, NULL)); break;
        default: break;
        }
    }
    return MIR_OK;
}

typedef struct field_parts {
    tag_list tags;
    int packed; /* -1: the file's syntax decides */
    bool is_proto3_optional;
    mir_view type_name;
} field_parts;

static mir_status parse_field_options(loader *load, mir_schema_field *field, mir_view options,
                                      field_parts *parts, const char *where)
{
    mir_view bytes;
    uint32_t tag;
    uint64_t value;
    mir_pbwire wire = mir_pbwire_of(options);
    while (mir_pbwire_more(&wire)) {
        if (!mir_pbwire_next(&wire, &tag, &value, &bytes)) {
            return malformed(load, "an option of a field of", mir_view_cstr(where));
        }
        switch (tag) {
        case VARINT(2): parts->packed = value != 0; break;
        case VARINT(EXTENSION_TIMESTAMP):
            field->timestamp_type = value <= MIR_TIMESTAMP_FRACTION
                                        ? (mir_schema_timestamp_type)value
                                        : MIR_TIMESTAMP_UNSPECIFIED;
            break;
        case BYTES(EXTENSION_FIELD_META):
            TRY(parse_meta(load, bytes, where, &parts->tags, &field->unit));
            break;
        default: break;
        }
    }
    if (field->unit != NULL && field->unit[0] == 0) field->unit = NULL;
    return MIR_OK;
}

static bool is_packable(mir_schema_kind kind)
{
    return kind != MIR_KIND_STRING && kind != MIR_KIND_BYTES && kind != MIR_KIND_MESSAGE &&
           kind != MIR_KIND_GROUP;
}

static mir_status camel_name(loader *load, mir_schema_field *field)
{
    char *text = mir_arena_alloc(&load->schema->arena, (size_t)field->name_size + 1);
    if (text == NULL) return no_memory(load);
    uint32_t size = 0;
    bool upper = false;
    for (uint32_t i = 0; i < field->name_size; i++) {
        char byte = field->name[i];
        if (byte != '_') text[size++] = upper && byte >= 'a' && byte <= 'z' ? byte - 32 : byte;
        upper = byte == '_';
    }
    field->json_name = text;
    field->json_name_size = size;
    return MIR_OK;
}

static mir_status add_pending(loader *load, pending_type pending)
{
    if (load->pending_count == load->pending_capacity) {
        uint32_t capacity = load->pending_capacity == 0 ? 64 : load->pending_capacity * 2;
        pending_type *grown = mir_arena_alloc(&load->scratch, capacity * sizeof *grown);
        if (grown == NULL) return no_memory(load);
        if (load->pending_count != 0) {
            memcpy(grown, load->pending, load->pending_count * sizeof *grown);
        }
        load->pending = grown;
        load->pending_capacity = capacity;
    }
    load->pending[load->pending_count++] = pending;
    return MIR_OK;
}

static mir_status parse_field(loader *load, const file_record *file, mir_schema_message *message,
                              mir_schema_field *field, mir_view view)
{
    mir_view name = {NULL, 0}, json_name = {NULL, 0}, bytes;
    field_parts parts = {.packed = -1};
    uint64_t label = 1, number = 0, kind = 0, value;
    uint32_t tag;
    field->oneof = -1;
    mir_pbwire wire = mir_pbwire_of(view);
    while (mir_pbwire_more(&wire)) {
        if (!mir_pbwire_next(&wire, &tag, &value, &bytes)) {
            return malformed(load, "a field of", mir_view_cstr(message->name));
        }
        switch (tag) {
        case BYTES(1): name = bytes; break;
        case VARINT(3): number = value; break;
        case VARINT(4): label = value; break;
        case VARINT(5): kind = value; break;
        case BYTES(6): parts.type_name = bytes; break;
        case BYTES(8): TRY(parse_field_options(load, field, bytes, &parts, message->name)); break;
        case VARINT(9):
            if (value >= message->oneof_count) {
                return mir_error_set(load->error, MIR_E_INVALID,
                                     "\"%s\": a field is in a oneof that is not declared",
                                     message->name);
            }
            field->oneof = (int32_t)value;
            break;
        case BYTES(10): json_name = bytes; break;
        case VARINT(17): parts.is_proto3_optional = value != 0; break;
        default: break;
        }
    }
    if (!is_identifier(name)) {
        return mir_error_set(load->error, MIR_E_INVALID, "\"%s\": a field has no proper name",
                             message->name);
    }
    TRY(copy_text(load, name, "a field's name", message->name, load->limits.name_bytes_max,
                  &field->name));
    field->name_size = (uint32_t)name.size;
    if (number == 0 || number > MIR_PBWIRE_NUMBER_MAX) {
        return mir_error_set(load->error, MIR_E_INVALID, "field \"%s.%s\": number %llu is invalid",
                             message->name, field->name, (unsigned long long)number);
    }
    field->number = (uint32_t)number;
    if (label == 0 || label > 3) {
        return mir_error_set(load->error, MIR_E_INVALID, "field \"%s.%s\": label %llu is invalid",
                             message->name, field->name, (unsigned long long)label);
    }
    field->is_required = label == 2;
    field->is_repeated = label == 3;
    if (kind > MIR_KIND_SINT64 || (kind == 0 && parts.type_name.size == 0)) {
        return mir_error_set(load->error, MIR_E_INVALID, "field \"%s.%s\": type %llu is invalid",
                             message->name, field->name, (unsigned long long)kind);
    }
    field->kind = (mir_schema_kind)kind;
    if (json_name.size != 0) {
        TRY(copy_text(load, json_name, "a field's json_name", message->name,
                      load->limits.name_bytes_max, &field->json_name));
        field->json_name_size = (uint32_t)json_name.size;
    } else {
        TRY(camel_name(load, field));
    }
    bool in_oneof = field->oneof >= 0;
    if (parts.is_proto3_optional) field->oneof = -1;
    if (field->is_repeated) field->oneof = -1;
    /* Presence of messages follows when the kind is certain. */
    field->has_presence =
        !field->is_repeated && (!file->is_proto3 || in_oneof || parts.is_proto3_optional);
    field->is_packed = parts.packed < 0 ? file->is_proto3 : parts.packed != 0;
    TRY(keep_tags(load, &parts.tags, &field->tags, &field->tag_count));
    if (kind == 0 || kind == MIR_KIND_MESSAGE || kind == MIR_KIND_GROUP || kind == MIR_KIND_ENUM) {
        TRY(add_pending(load, (pending_type){field, message, file, parts.type_name}));
    }
    return MIR_OK;
}

static mir_status parse_enum(loader *load, mir_view scope, mir_view view)
{
    if (load->message_count++ >= load->limits.message_count_max) {
        return mir_error_set(load->error, MIR_E_TOO_LARGE,
                             "\"%.*s\": more than %u messages and enums in the set",
                             MIR_VIEW_ARGS(scope), load->limits.message_count_max);
    }
    mir_view name = {NULL, 0}, full = {NULL, 0}, bytes;
    uint32_t tag, count = 0;
    uint64_t value;
    mir_pbwire wire = mir_pbwire_of(view);
    while (mir_pbwire_more(&wire)) {
        if (!mir_pbwire_next(&wire, &tag, &value, &bytes)) {
            return malformed(load, "an enum in", scope);
        }
        if (tag == BYTES(1)) name = bytes;
        if (tag == BYTES(2)) count++;
    }
    TRY(full_name(load, scope, name, "an enum", &full));
    TRY(count_fields(load, count, (const char *)full.data));
    mir_schema_enum *enumeration = mir_arena_alloc(&load->schema->arena, sizeof *enumeration);
    mir_schema_enum_value *values =
        mir_arena_alloc(&load->schema->arena, count * sizeof *values + 1);
    if (enumeration == NULL || values == NULL) return no_memory(load);
    *enumeration = (mir_schema_enum){
        .name = (const char *)full.data, .name_size = (uint32_t)full.size, .values = values};
    wire = mir_pbwire_of(view);
    while (mir_pbwire_more(&wire) && mir_pbwire_next(&wire, &tag, &value, &bytes)) {
        if (tag != BYTES(2)) continue;
        mir_schema_enum_value *put = &values[enumeration->value_count++];
        mir_view value_name = {NULL, 0}, inner;
        mir_pbwire value_wire = mir_pbwire_of(bytes);
        while (mir_pbwire_more(&value_wire)) {
            if (!mir_pbwire_next(&value_wire, &tag, &value, &inner)) {
                return malformed(load, "enum", full);
            }
            if (tag == BYTES(1)) value_name = inner;
            if (tag == VARINT(2)) put->number = (int32_t)value;
        }
        if (!is_identifier(value_name)) {
            return mir_error_set(load->error, MIR_E_INVALID, "\"%s\": a value has no proper name",
                                 enumeration->name);
        }
        TRY(copy_text(load, value_name, "a value's name", enumeration->name,
                      load->limits.name_bytes_max, &put->name));
        put->name_size = (uint32_t)value_name.size;
    }
    return declare(load, full, MIR_SYMBOL_ENUM, enumeration);
}

/* An extension or a service: only its name counts. */
static mir_status parse_other(loader *load, mir_view scope, mir_view view)
{
    mir_view name = {NULL, 0}, full = {NULL, 0}, bytes;
    uint32_t tag;
    uint64_t value;
    mir_pbwire wire = mir_pbwire_of(view);
    while (mir_pbwire_more(&wire)) {
        if (!mir_pbwire_next(&wire, &tag, &value, &bytes)) {
            return malformed(load, "an extension or service in", scope);
        }
        if (tag == BYTES(1)) name = bytes;
    }
    TRY(full_name(load, scope, name, "an extension or service", &full));
    TRY(count_fields(load, 1, (const char *)full.data));
    return declare(load, full, MIR_SYMBOL_OTHER, NULL);
}

static mir_status keep_message(loader *load, mir_schema_message *message)
{
    if (load->messages_held == load->messages_capacity) {
        uint32_t capacity = load->messages_capacity == 0 ? 64 : load->messages_capacity * 2;
        mir_schema_message **grown =
            mir_arena_alloc(&load->scratch, capacity * sizeof(mir_schema_message *));
        if (grown == NULL) return no_memory(load);
        if (load->messages_held != 0) {
            memcpy(grown, load->messages, load->messages_held * sizeof(mir_schema_message *));
        }
        load->messages = grown;
        load->messages_capacity = capacity;
    }
    load->messages[load->messages_held++] = message;
    return MIR_OK;
}

static mir_status parse_oneof(loader *load, const mir_schema_message *message, mir_view view,
                              const char **name)
{
    mir_view bytes, text = {NULL, 0};
    uint32_t tag;
    uint64_t value;
    mir_pbwire wire = mir_pbwire_of(view);
    while (mir_pbwire_more(&wire)) {
        if (!mir_pbwire_next(&wire, &tag, &value, &bytes)) {
            return malformed(load, "a oneof of", mir_view_cstr(message->name));
        }
        if (tag == BYTES(1)) text = bytes;
    }
    if (!is_identifier(text)) {
        return mir_error_set(load->error, MIR_E_INVALID, "\"%s\": a oneof has no proper name",
                             message->name);
    }
    return copy_text(load, text, "a oneof's name", message->name, load->limits.name_bytes_max,
                     name);
}

static mir_status parse_message(loader *load, const file_record *file, mir_view scope,
                                mir_view view, uint32_t depth) // NOLINT(misc-no-recursion)
{
    if (depth >= load->limits.depth_max) {
        return mir_error_set(load->error, MIR_E_TOO_LARGE,
                             "\"%.*s\": messages are declared deeper than %u levels",
                             MIR_VIEW_ARGS(scope), load->limits.depth_max);
    }
    if (load->message_count++ >= load->limits.message_count_max) {
        return mir_error_set(load->error, MIR_E_TOO_LARGE,
                             "\"%.*s\": more than %u messages and enums in the set",
                             MIR_VIEW_ARGS(scope), load->limits.message_count_max);
    }
    mir_view name = {NULL, 0}, full = {NULL, 0}, bytes;
    uint32_t tag, field_count = 0, oneof_count = 0;
    uint64_t value;
    mir_pbwire wire = mir_pbwire_of(view);
    while (mir_pbwire_more(&wire)) {
        if (!mir_pbwire_next(&wire, &tag, &value, &bytes)) {
            return malformed(load, "a message in", scope);
        }
        if (tag == BYTES(1)) name = bytes;
        if (tag == BYTES(2)) field_count++;
        if (tag == BYTES(8)) oneof_count++;
    }
    TRY(full_name(load, scope, name, "a message", &full));
    TRY(count_fields(load, field_count, (const char *)full.data));
    TRY(count_fields(load, oneof_count, (const char *)full.data));
    mir_arena *arena = &load->schema->arena;
    mir_schema_message *message = mir_arena_alloc(arena, sizeof *message);
    mir_schema_field *fields = mir_arena_alloc(arena, field_count * sizeof *fields + 1);
    const char **oneofs = mir_arena_alloc(arena, oneof_count * sizeof *oneofs + 1);
    if (message == NULL || fields == NULL || oneofs == NULL) return no_memory(load);
    *message = (mir_schema_message){.name = (const char *)full.data,
                                    .name_size = (uint32_t)full.size,
                                    .fields = fields,
                                    .oneof_count = oneof_count,
                                    .oneof_names = oneofs,
                                    .is_top_level = depth == 0};
    TRY(declare(load, full, MIR_SYMBOL_MESSAGE, message));
    TRY(keep_message(load, message));
    tag_list tags = {0};
    uint32_t oneof = 0;
    wire = mir_pbwire_of(view);
    while (mir_pbwire_more(&wire) && mir_pbwire_next(&wire, &tag, &value, &bytes)) {
        switch (tag) {
        case BYTES(2):
            TRY(parse_field(load, file, message, &fields[message->field_count], bytes));
            message->field_count++;
            break;
        case BYTES(3): TRY(parse_message(load, file, full, bytes, depth + 1)); break;
        case BYTES(4): TRY(parse_enum(load, full, bytes)); break;
        case BYTES(6): TRY(parse_other(load, full, bytes)); break;
        case BYTES(7): TRY(parse_message_options(load, message, bytes, &tags)); break;
        case BYTES(8): TRY(parse_oneof(load, message, bytes, &oneofs[oneof++])); break;
        default: break;
        }
    }
    return keep_tags(load, &tags, &message->tags, &message->tag_count);
}

static mir_status parse_file(loader *load, const file_record *file)
{
    mir_view bytes;
    uint32_t tag;
    uint64_t value;
    mir_pbwire wire = mir_pbwire_of(file->bytes);
    while (mir_pbwire_more(&wire) && mir_pbwire_next(&wire, &tag, &value, &bytes)) {
        mir_status status = MIR_OK;
        switch (tag) {
        case BYTES(4): status = parse_message(load, file, file->package, bytes, 0); break;
        case BYTES(5): status = parse_enum(load, file->package, bytes); break;
        case BYTES(6):
        case BYTES(7): status = parse_other(load, file->package, bytes); break;
        default: break;
        }
        if (status != MIR_OK) {
            mir_error_wrap(load->error, "file \"%s\"", file->path);
            return status;
        }
    }
    return MIR_OK;
}

/* Types */

static const mir_schema_symbol *resolve(loader *load, mir_view scope, mir_view name)
{
    const mir_schema_table *table = &load->schema->symbols;
    if (name.data[0] == '.') return mir_schema_lookup(table, mir_view_from(name, 1));
    char text[1024];
    for (;;) {
        size_t size = scope.size + (scope.size != 0) + name.size;
        if (size <= sizeof text) {
            if (scope.size != 0) {
                memcpy(text, scope.data, scope.size);
                text[scope.size] = '.';
            }
            memcpy(text + size - name.size, name.data, name.size);
            const mir_schema_symbol *symbol = mir_schema_lookup(table, mir_view_of(text, size));
            if (symbol != NULL && symbol->kind != MIR_SYMBOL_OTHER) return symbol;
        }
        if (scope.size == 0) return NULL;
        const uint8_t *dot = memrchr(scope.data, '.', scope.size);
        scope.size = dot == NULL ? 0 : (size_t)(dot - scope.data);
    }
}

static mir_status refuse_unresolved(loader *load, const pending_type *pending)
{
    const file_record *file = pending->file;
    mir_view shown = pending->type_name;
    if (shown.size > 160) shown.size = 160;
    for (uint32_t i = 0; i < file->import_count; i++) {
        if (find_file(load, file->imports[i]) != NULL || file->imports[i].size > 160) continue;
        return mir_error_set(load->error, MIR_E_INVALID,
                             "field \"%s.%s\": its type \"%.*s\" is not in the set, nor is "
                             "\"%.*s\", which \"%s\" imports",
                             pending->message->name, pending->field->name, MIR_VIEW_ARGS(shown),
                             MIR_VIEW_ARGS(file->imports[i]), file->path);
    }
    return mir_error_set(load->error, MIR_E_INVALID,
                         "field \"%s.%s\": its type \"%.*s\" is not in the set",
                         pending->message->name, pending->field->name, MIR_VIEW_ARGS(shown));
}

static mir_status resolve_types(loader *load)
{
    for (uint32_t i = 0; i < load->pending_count; i++) {
        const pending_type *pending = &load->pending[i];
        mir_schema_field *field = pending->field;
        mir_view scope = mir_view_of(pending->message->name, pending->message->name_size);
        const mir_schema_symbol *symbol =
            pending->type_name.size == 0 ? NULL : resolve(load, scope, pending->type_name);
        if (symbol == NULL) return refuse_unresolved(load, pending);
        if (symbol->kind == MIR_SYMBOL_OTHER ||
            (symbol->kind == MIR_SYMBOL_ENUM && field->kind != 0 && field->kind != MIR_KIND_ENUM) ||
            (symbol->kind == MIR_SYMBOL_MESSAGE && field->kind == MIR_KIND_ENUM)) {
            return mir_error_set(load->error, MIR_E_INVALID,
                                 "field \"%s.%s\": \"%s\" is not the kind of type that it names",
                                 pending->message->name, field->name, symbol->name);
        }
        if (symbol->kind == MIR_SYMBOL_ENUM) {
            field->kind = MIR_KIND_ENUM;
            field->enumeration = symbol->object;
        } else {
            if (field->kind == 0) field->kind = MIR_KIND_MESSAGE;
            field->message = symbol->object;
            if (!field->is_repeated) field->has_presence = true;
        }
    }
    return MIR_OK;
}

static mir_status check_map(loader *load, const mir_schema_message *message,
                            mir_schema_field *field)
{
    const mir_schema_message *entry = field->message;
    if (entry == NULL || !entry->is_map_entry) return MIR_OK;
    const mir_schema_field *key = mir_schema_field_by_number(entry, 1);
    const mir_schema_field *value = mir_schema_field_by_number(entry, 2);
    bool sound = field->is_repeated && field->kind == MIR_KIND_MESSAGE && entry->field_count == 2 &&
                 key != NULL && value != NULL && !key->is_repeated && !value->is_repeated &&
                 key->kind != MIR_KIND_DOUBLE && key->kind != MIR_KIND_FLOAT &&
                 key->kind != MIR_KIND_BYTES && key->kind != MIR_KIND_ENUM &&
                 key->kind != MIR_KIND_MESSAGE && key->kind != MIR_KIND_GROUP &&
                 value->kind != MIR_KIND_GROUP &&
                 !(value->message != NULL && value->message->is_map_entry);
    if (!sound) {
        return mir_error_set(load->error, MIR_E_INVALID,
                             "field \"%s.%s\": \"%s\" is not the entry of a map", message->name,
                             field->name, entry->name);
    }
    field->is_map = true;
    return MIR_OK;
}

static int compare_numbers(const void *a, const void *b, void *context)
{
    const mir_schema_field *fields = context;
    uint32_t left = fields[*(const uint32_t *)a].number;
    uint32_t right = fields[*(const uint32_t *)b].number;
    return left < right ? -1 : left > right;
}

static int compare_names(const void *a, const void *b, void *context)
{
    const mir_schema_field *fields = context;
    return strcmp(fields[*(const uint32_t *)a].name, fields[*(const uint32_t *)b].name);
}

static int compare_json_names(const void *a, const void *b, void *context)
{
    const mir_schema_field *fields = context;
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    int order = strcmp(fields[left].json_name, fields[right].json_name);
    if (order != 0) return order;
    return left < right ? -1 : left > right;
}

static mir_status index_fields(loader *load, mir_schema_message *message)
{
    const uint32_t count = message->field_count;
    uint32_t *indices = mir_arena_alloc(&load->schema->arena, 3 * count * sizeof *indices + 1);
    if (indices == NULL) return no_memory(load);
    mir_schema_field *fields = (mir_schema_field *)(uintptr_t)message->fields;
    for (uint32_t i = 0; i < 3 * count; i++) indices[i] = i % count;
    message->by_number = indices;
    message->by_name = indices + count;
    message->by_json_name = indices + 2 * (size_t)count;
    qsort_r(indices, count, sizeof *indices, compare_numbers, fields);
    qsort_r(indices + count, count, sizeof *indices, compare_names, fields);
    qsort_r(indices + 2 * (size_t)count, count, sizeof *indices, compare_json_names, fields);
    for (uint32_t i = 1; i < count; i++) {
        const mir_schema_field *a = &fields[message->by_number[i - 1]];
        const mir_schema_field *b = &fields[message->by_number[i]];
        if (a->number == b->number) {
            return mir_error_set(load->error, MIR_E_INVALID,
                                 "message \"%s\": fields \"%s\" and \"%s\" have the number %u",
                                 message->name, a->name, b->name, a->number);
        }
        const char *name = fields[message->by_name[i]].name;
        if (strcmp(fields[message->by_name[i - 1]].name, name) == 0) {
            return mir_error_set(load->error, MIR_E_INVALID,
                                 "message \"%s\": two fields are named \"%s\"", message->name,
                                 name);
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        message->has_required = message->has_required || fields[i].is_required;
        fields[i].is_packed =
            fields[i].is_packed && fields[i].is_repeated && is_packable(fields[i].kind);
    }
    return MIR_OK;
}

/* What follows */

static mir_status list_messages(loader *load)
{
    mir_schema *schema = load->schema;
    mir_schema_list_of *all = &schema->top_level;
    uint32_t counts[4] = {0};
    for (uint32_t i = 0; i < load->messages_held; i++) {
        const mir_schema_message *message = load->messages[i];
        if (!message->is_top_level) continue;
        all->count++;
        counts[message->type]++;
    }
    all->messages = mir_arena_alloc(&schema->arena, all->count * sizeof(void *) + 1);
    if (all->messages == NULL) return no_memory(load);
    for (int type = 1; type < 4; type++) {
        mir_schema_list_of *list = &schema->by_type[type];
        list->messages = mir_arena_alloc(&schema->arena, counts[type] * sizeof(void *) + 1);
        if (list->messages == NULL) return no_memory(load);
    }
    all->count = 0;
    for (uint32_t i = 0; i < load->messages_held; i++) {
        const mir_schema_message *message = load->messages[i];
        if (!message->is_top_level) continue;
        all->messages[all->count++] = message;
        if (message->type == MIR_MESSAGE_UNSPECIFIED) continue;
        mir_schema_list_of *list = &schema->by_type[message->type];
        list->messages[list->count++] = message;
    }
    return MIR_OK;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static mir_status list_packages(loader *load)
{
    mir_schema *schema = load->schema;
    const char **names =
        mir_arena_alloc(&schema->arena, schema->file_count * sizeof(const char *) + 1);
    if (names == NULL) return no_memory(load);
    uint32_t count = 0;
    for (uint32_t i = 0; i < schema->file_count; i++) {
        if (load->files[i].package.size == 0) continue;
        names[count] = mir_arena_strdup(&schema->arena, load->files[i].package);
        if (names[count++] == NULL) return no_memory(load);
    }
    qsort(names, count, sizeof(const char *), compare_texts);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (kept == 0 || strcmp(names[kept - 1], names[i]) != 0) names[kept++] = names[i];
    }
    schema->packages = names;
    schema->package_count = kept;
    return MIR_OK;
}

static mir_status load_all(loader *load)
{
    TRY(scan_set(load));
    TRY(check_cycles(load));
    for (uint32_t i = 0; i < load->schema->file_count; i++) TRY(parse_file(load, &load->files[i]));
    TRY(resolve_types(load));
    for (uint32_t i = 0; i < load->messages_held; i++) TRY(index_fields(load, load->messages[i]));
    for (uint32_t i = 0; i < load->messages_held; i++) {
        mir_schema_message *message = load->messages[i];
        for (uint32_t k = 0; k < message->field_count; k++) {
            TRY(check_map(load, message, (mir_schema_field *)(uintptr_t)&message->fields[k]));
        }
    }
    TRY(list_messages(load));
    return list_packages(load);
}

mir_status mir_schema_load(mir_view set_bytes, const mir_schema_limits *limits, mir_schema **schema,
                           mir_error *error)
{
    loader load = {.limits = limits != NULL ? *limits : MIR_SCHEMA_LIMITS_DEFAULT, .error = error};
    if (set_bytes.size > load.limits.set_bytes_max) {
        return mir_error_set(error, MIR_E_TOO_LARGE, "descriptor set of %zu bytes is over %zu",
                             set_bytes.size, load.limits.set_bytes_max);
    }
    load.schema = calloc(1, sizeof *load.schema);
    if (load.schema == NULL) {
        return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory for a schema");
    }
    atomic_init(&load.schema->reference_count, 1);
    load.schema->arena.bytes_max = load.limits.memory_bytes_max;
    load.scratch.bytes_max = load.limits.memory_bytes_max;
    mir_status status = MIR_OK;
    const char *copy = mir_arena_strdup(&load.schema->arena, set_bytes);
    if (copy == NULL) {
        status = no_memory(&load);
    } else {
        load.schema->set = mir_view_of(copy, set_bytes.size);
        status = load_all(&load);
    }
    mir_arena_free(&load.scratch);
    if (status != MIR_OK) {
        mir_schema_unref(load.schema);
        return status;
    }
    mir_schema_digest(load.schema->set, load.schema->digest);
    *schema = load.schema;
    return MIR_OK;
}
