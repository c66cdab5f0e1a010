/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cmd_known.h"

#include <stdlib.h>
#include <string.h>

#include "mir_hash.h"

static bool is_exact(const char *text)
{
    return text[0] != '\0' && strchr(text, '*') == NULL;
}

bool mir_cmd_known_key_of(const MirApi__V1__DeviceTarget *target, mir_cmd_known_key *key)
{
    if (target == NULL || target->n_labels != 0 || target->n_schemas != 0 ||
        target->n_liveness != 0)
        return false;
    *key = (mir_cmd_known_key){0};
    if (target->n_ids == 1 && target->n_names == 0 && target->n_namespaces == 0) {
        key->id = mir_view_cstr(target->ids[0]);
        return is_exact(target->ids[0]);
    }
    if (target->n_ids != 0 || target->n_names != 1 || target->n_namespaces != 1) return false;
    key->name = mir_view_cstr(target->names[0]);
    key->name_space = mir_view_cstr(target->namespaces[0]);
    return is_exact(target->names[0]) && is_exact(target->namespaces[0]);
}

uint64_t mir_cmd_known_changes(const mir_state *state, const mir_cmd_known_key *key)
{
    return key->id.size != 0 ? mir_state_changes_of_id(state, key->id)
                             : mir_state_changes_of_name(state, key->name, key->name_space);
}

static uint64_t hash_of(const mir_cmd_known_key *key)
{
    return mir_hash_view(key->id) ^ (mir_hash_view(key->name) << 1) ^
           mir_hash_view(key->name_space);
}

static bool is_same(const mir_cmd_known_key *a, const mir_cmd_known_key *b)
{
    return mir_view_eq(a->id, b->id) && mir_view_eq(a->name, b->name) &&
           mir_view_eq(a->name_space, b->name_space);
}

static char *put_text(char **at, mir_view text)
{
    char *to = *at;
    if (text.size != 0) memcpy(to, text.data, text.size);
    to[text.size] = '\0';
    *at += text.size + 1;
    return to;
}

static mir_view put_view(char **at, mir_view view)
{
    return mir_view_of(put_text(at, view), view.size);
}

mir_cmd_known_entry *mir_cmd_known_make(const mir_cmd_known_key *key, uint64_t changes,
                                        const MirStore__V1__DeviceRecord *record,
                                        mir_schema *schema)
{
    if (!record->has_schema_hash || record->schema_hash.len != MIR_STATE_HASH_BYTES) return NULL;
    mir_view id = mir_view_cstr(record->device_id), name = mir_view_cstr(record->name),
             name_space = mir_view_cstr(record->namespace_);
    size_t bytes = key->id.size + key->name.size + key->name_space.size + id.size + name.size +
                   name_space.size + 6;
    mir_cmd_known_entry *entry = calloc(1, sizeof *entry + bytes);
    if (entry == NULL) return NULL;
    char *at = entry->texts;
    entry->hash = hash_of(key);
    entry->changes = changes;
    entry->key.id = put_view(&at, key->id);
    entry->key.name = put_view(&at, key->name);
    entry->key.name_space = put_view(&at, key->name_space);
    entry->schema = mir_schema_ref(schema);
    mir_store__v1__device_record__init(&entry->record);
    entry->record.number = record->number;
    entry->record.device_id = put_text(&at, id);
    entry->record.name = put_text(&at, name);
    entry->record.namespace_ = put_text(&at, name_space);
    entry->record.has_disabled = record->has_disabled;
    entry->record.disabled = record->disabled;
    memcpy(entry->hash_of_schema, record->schema_hash.data, MIR_STATE_HASH_BYTES);
    entry->record.has_schema_hash = 1;
    entry->record.schema_hash = (ProtobufCBinaryData){MIR_STATE_HASH_BYTES, entry->hash_of_schema};
    return entry;
}

void mir_cmd_known_entry_free(mir_cmd_known_entry *entry)
{
    if (entry == NULL) return;
    mir_schema_unref(entry->schema);
    free(entry);
}

static mir_cmd_known_entry **place_of(mir_cmd_known *known, uint64_t hash)
{
    return &known->entries[hash % MIR_CMD_KNOWN_MAX];
}

void mir_cmd_known_put(mir_cmd_known *known, mir_cmd_known_entry *entry)
{
    mir_cmd_known_entry **place = place_of(known, entry->hash);
    mir_cmd_known_entry_free(*place);
    *place = entry;
}

const mir_cmd_known_entry *mir_cmd_known_find(mir_cmd_known *known, const mir_cmd_known_key *key,
                                              uint64_t changes)
{
    uint64_t hash = hash_of(key);
    mir_cmd_known_entry **place = place_of(known, hash), *entry = *place;
    if (entry == NULL || entry->hash != hash || !is_same(&entry->key, key)) return NULL;
    if (entry->changes == changes) return entry;
    *place = NULL;
    mir_cmd_known_entry_free(entry);
    return NULL;
}

MirStore__V1__DeviceRecord *mir_cmd_known_record(const mir_cmd_known_entry *entry, mir_arena *arena)
{
    const MirStore__V1__DeviceRecord *from = &entry->record;
    MirStore__V1__DeviceRecord *to = mir_arena_alloc(arena, sizeof *to);
    uint8_t *hash = mir_arena_alloc(arena, MIR_STATE_HASH_BYTES);
    if (to == NULL || hash == NULL) return NULL;
    *to = *from;
    to->device_id = mir_arena_strdup(arena, mir_view_cstr(from->device_id));
    to->name = mir_arena_strdup(arena, mir_view_cstr(from->name));
    to->namespace_ = mir_arena_strdup(arena, mir_view_cstr(from->namespace_));
    if (to->device_id == NULL || to->name == NULL || to->namespace_ == NULL) return NULL;
    memcpy(hash, entry->hash_of_schema, MIR_STATE_HASH_BYTES);
    to->schema_hash.data = hash;
    return to;
}

void mir_cmd_known_free(mir_cmd_known *known)
{
    if (known == NULL) return;
    for (size_t i = 0; i < MIR_CMD_KNOWN_MAX; i++) mir_cmd_known_entry_free(known->entries[i]);
    free(known);
}
