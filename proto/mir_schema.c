/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_schema.h"

#include <stdlib.h>

#include "mir_assert.h"
#include "mir_hash.h"
#include "mir_pbwire.h"
#include "mir_schema_internal.h"

uint32_t mir_schema_wire_type(mir_schema_kind kind)
{
    switch (kind) {
    case MIR_KIND_DOUBLE:
    case MIR_KIND_FIXED64:
    case MIR_KIND_SFIXED64: return MIR_PBWIRE_FIXED64;
    case MIR_KIND_FLOAT:
    case MIR_KIND_FIXED32:
    case MIR_KIND_SFIXED32: return MIR_PBWIRE_FIXED32;
    case MIR_KIND_STRING:
    case MIR_KIND_BYTES:
    case MIR_KIND_MESSAGE: return MIR_PBWIRE_BYTES;
    case MIR_KIND_GROUP: return MIR_PBWIRE_GROUP;
    default: return MIR_PBWIRE_VARINT;
    }
}

const mir_schema_symbol *mir_schema_lookup(const mir_schema_table *table, mir_view name)
{
    if (table->capacity == 0) return NULL;
    uint64_t at = mir_hash_view(name);
    for (;; at++) {
        const mir_schema_symbol *slot = &table->slots[at & (table->capacity - 1)];
        if (slot->kind == MIR_SYMBOL_NONE) return NULL;
        if (slot->name_size == name.size && memcmp(slot->name, name.data, name.size) == 0) {
            return slot;
        }
    }
}

mir_schema *mir_schema_ref(mir_schema *schema)
{
    /* Whoever passes a reference on already holds one, so nothing has to be ordered. */
    unsigned before = atomic_fetch_add_explicit(&schema->reference_count, 1, memory_order_relaxed);
    MIR_ASSERT(before > 0);
    return schema;
}

void mir_schema_unref(mir_schema *schema)
{
    if (schema == NULL) return;
    /* Release: what this holder read comes before; acquire: the last one sees all of them done. */
    unsigned before = atomic_fetch_sub_explicit(&schema->reference_count, 1, memory_order_acq_rel);
    MIR_ASSERT(before > 0);
    if (before != 1) return;
    mir_arena_free(&schema->arena);
    free(schema);
}

mir_view mir_schema_set_bytes(const mir_schema *schema)
{
    return schema->set;
}

size_t mir_schema_memory_bytes(const mir_schema *schema)
{
    return sizeof *schema + schema->arena.bytes_used;
}

uint32_t mir_schema_file_count(const mir_schema *schema)
{
    return schema->file_count;
}

const char *mir_schema_file_path(const mir_schema *schema, uint32_t index)
{
    MIR_ASSERT(index < schema->file_count);
    return schema->file_paths[index];
}

const char *const *mir_schema_packages(const mir_schema *schema, uint32_t *count)
{
    *count = schema->package_count;
    return schema->packages;
}

mir_status mir_schema_find(const mir_schema *schema, mir_view name,
                           const mir_schema_message **message, mir_error *error)
{
    if (name.size > 0 && name.data[0] == '.') name = mir_view_from(name, 1);
    const mir_schema_symbol *symbol =
        name.size == 0 ? NULL : mir_schema_lookup(&schema->symbols, name);
    if (symbol != NULL && symbol->kind == MIR_SYMBOL_MESSAGE) {
        *message = symbol->object;
        return MIR_OK;
    }
    if (symbol != NULL) {
        return mir_error_set(error, MIR_E_INVALID, "proto: \"%.*s\" is not a message",
                             MIR_VIEW_ARGS(name));
    }
    return mir_error_set(error, MIR_E_NOT_FOUND, "proto: not found");
}

static char fold(uint8_t byte)
{
    return (char)(byte >= 'A' && byte <= 'Z' ? byte + ('a' - 'A') : byte);
}

/* Whether `name` is a dotted end of `full`, both without case and underscores. */
static bool answers_to(mir_view full, mir_view name)
{
    size_t i = full.size, k = name.size;
    for (;;) {
        while (i > 0 && full.data[i - 1] == '_') i--;
        while (k > 0 && name.data[k - 1] == '_') k--;
        if (k == 0) return i == 0 || full.data[i - 1] == '.';
        if (i == 0 || fold(full.data[i - 1]) != fold(name.data[k - 1])) return false;
        i--;
        k--;
    }
}

mir_status mir_schema_find_short(const mir_schema *schema, mir_view name,
                                 const mir_schema_message **message, mir_error *error)
{
    if (mir_schema_find(schema, name, message, NULL) == MIR_OK) return MIR_OK;
    const mir_schema_message *found = NULL;
    for (uint32_t i = 0; i < schema->top_level.count; i++) {
        const mir_schema_message *candidate = schema->top_level.messages[i];
        if (!answers_to(mir_view_of(candidate->name, candidate->name_size), name)) continue;
        if (found != NULL) {
            return mir_error_set(error, MIR_E_INVALID,
                                 "\"%.*s\" may be %s or %s: write more of the name",
                                 MIR_VIEW_ARGS(name), found->name, candidate->name);
        }
        found = candidate;
    }
    if (found == NULL || name.size == 0) return mir_schema_find(schema, name, message, error);
    *message = found;
    return MIR_OK;
}

const mir_schema_message *const *mir_schema_list(const mir_schema *schema,
                                                 mir_schema_message_type type, uint32_t *count)
{
    MIR_ASSERT(type > MIR_MESSAGE_UNSPECIFIED);
    MIR_ASSERT(type <= MIR_MESSAGE_TELECONFIG);
    *count = schema->by_type[type].count;
    return schema->by_type[type].messages;
}

const mir_schema_message *const *mir_schema_messages(const mir_schema *schema, uint32_t *count)
{
    *count = schema->top_level.count;
    return schema->top_level.messages;
}

const mir_schema_field *mir_schema_field_by_number(const mir_schema_message *message,
                                                   uint32_t number)
{
    uint32_t low = 0, high = message->field_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (message->fields[message->by_number[middle]].number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == message->field_count) return NULL;
    const mir_schema_field *field = &message->fields[message->by_number[low]];
    return field->number == number ? field : NULL;
}

const mir_schema_field *mir_schema_field_by_name(const mir_schema_message *message, mir_view name)
{
    uint32_t low = 0, high = message->field_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const mir_schema_field *field = &message->fields[message->by_name[middle]];
        int order = mir_view_compare(mir_view_of(field->name, field->name_size), name);
        if (order == 0) return field;
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

const mir_schema_field *mir_schema_field_by_json_name(const mir_schema_message *message,
                                                      mir_view name)
{
    uint32_t low = 0, high = message->field_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const mir_schema_field *field = &message->fields[message->by_json_name[middle]];
        int order = mir_view_compare(mir_view_of(field->json_name, field->json_name_size), name);
        if (order == 0) return field;
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return mir_schema_field_by_name(message, name);
}

const mir_schema_field *mir_schema_timestamp_field(const mir_schema_message *message)
{
    if (message->type != MIR_MESSAGE_TELEMETRY) return NULL;
    for (uint32_t i = 0; i < message->field_count; i++) {
        if (message->fields[i].timestamp_type != MIR_TIMESTAMP_UNSPECIFIED) {
            return &message->fields[i];
        }
    }
    return NULL;
}

bool mir_schema_equal(const mir_schema *a, const mir_schema *b)
{
    if (a == b) return true;
    return a->digest[0] == b->digest[0] && a->digest[1] == b->digest[1];
}

uint64_t mir_schema_hash(const mir_schema *schema)
{
    return schema->digest[0];
}
