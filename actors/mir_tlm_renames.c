/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlm_renames.h"

#include "mir_field_names.h"

enum { TYPES_MAX = 256 };

/* A message type and what its fields have been called. */
typedef struct known_type {
    const mir_schema_message *type;
    const MirStore__V1__FieldNames *names; /* null: not known */
} known_type;

/* One of the devices' schemas. */
typedef struct version {
    mir_known_schema known;
    const mir_schema_message *message;
    known_type *types; /* the message first, then what it contains */
    uint32_t type_count;
} version;

typedef struct search {
    const mir_tlm_sources *sources;
    mir_arena *arena;
    mir_tlog_query_spec *spec;
    mir_error *error;
    version versions[MIR_TLM_RENAMES_SCHEMAS_MAX];
    uint32_t version_count;
    bool was_renamed; /* some field, ever */
    mir_tlog_rename *renames;
    uint32_t rename_count;
    mir_view *stored; /* names of columns */
    size_t stored_count, stored_capacity;
} search;

static mir_status no_memory(search *s)
{
    return mir_error_set(s->error, MIR_E_NO_MEMORY, "the server is out of memory");
}

/* --- the schemas of the devices ------------------------------------------------------------- */

static mir_status add_type(search *s, version *v, const mir_schema_message *type)
{
    for (uint32_t i = 0; i < v->type_count; i++)
        if (v->types[i].type == type) return MIR_OK;
    if (v->type_count == TYPES_MAX) return MIR_OK;
    MirStore__V1__FieldNames *names = NULL;
    const mir_status status = mir_field_names_get(
        s->sources->state, mir_view_of(type->name, type->name_size), s->arena, &names, s->error);
    /* What is damaged costs the earlier names alone. */
    if (status != MIR_OK && status != MIR_E_NOT_FOUND && status != MIR_E_CORRUPT) return status;
    for (size_t i = 0; names != NULL && i < names->n_fields && !s->was_renamed; i++)
        s->was_renamed = names->fields[i]->n_names > 1;
    v->types[v->type_count++] = (known_type){type, names};
    return MIR_OK;
}

static mir_status add_version(search *s, mir_view hash)
{
    for (uint32_t i = 0; i < s->version_count; i++)
        if (mir_view_eq(hash, mir_view_of(s->versions[i].known.hash, MIR_STATE_HASH_BYTES)))
            return MIR_OK;
    version *v = &s->versions[s->version_count];
    mir_error error = {{0}};
    /* Without its schema a device has names of today alone. */
    if (mir_schemas_get(s->sources->schemas, hash, &v->known, &error) != MIR_OK) return MIR_OK;
    s->version_count++;
    if (mir_schema_find(v->known.schema, s->spec->measurement, &v->message, &error) != MIR_OK) {
        v->message = NULL;
        return MIR_OK;
    }
    v->types = mir_arena_alloc(s->arena, TYPES_MAX * sizeof *v->types);
    if (v->types == NULL) return no_memory(s);
    mir_status status = add_type(s, v, v->message);
    for (uint32_t at = 0; at < v->type_count && status == MIR_OK; at++) {
        const mir_schema_message *type = v->types[at].type;
        for (uint32_t i = 0; i < type->field_count && status == MIR_OK; i++)
            if (type->fields[i].message != NULL) status = add_type(s, v, type->fields[i].message);
    }
    return status;
}

static mir_status find_versions(search *s, MirStore__V1__DeviceRecord *const *devices, size_t count)
{
    mir_view last = {0};
    mir_status status = MIR_OK;
    for (size_t i = 0; i < count && status == MIR_OK; i++) {
        if (!devices[i]->has_schema_hash) continue;
        const mir_view hash =
            mir_view_of(devices[i]->schema_hash.data, devices[i]->schema_hash.len);
        if (mir_view_eq(hash, last)) continue;
        last = hash;
        if (s->version_count == MIR_TLM_RENAMES_SCHEMAS_MAX) break;
        status = add_version(s, hash);
    }
    return status;
}

/* --- names ----------------------------------------------------------------------------------- */

static uint32_t number_of(void *context, const mir_schema_message *type, mir_view name)
{
    const version *v = context;
    for (uint32_t t = 0; t < v->type_count; t++) {
        if (v->types[t].type != type || v->types[t].names == NULL) continue;
        const MirStore__V1__FieldNames *known = v->types[t].names;
        for (size_t i = 0; i < known->n_fields; i++)
            for (size_t k = 0; k < known->fields[i]->n_names; k++)
                if (mir_view_eq_cstr(name, known->fields[i]->names[k]))
                    return known->fields[i]->number;
    }
    return 0;
}

/* What a column is called in this version, in the arena; empty: it has no such field. */
static mir_status today(search *s, version *v, mir_view column, mir_view *name)
{
    char buffer[MIR_SCHEMA_PATH_BYTES_MAX];
    size_t size = 0;
    *name = (mir_view){0};
    if (v->message == NULL ||
        mir_schema_name_today(v->message, column, number_of, v, buffer, &size) != MIR_OK)
        return MIR_OK;
    if (mir_view_eq(column, mir_view_of(buffer, size))) {
        *name = column;
        return MIR_OK;
    }
    const char *copy = mir_arena_strdup(s->arena, mir_view_of(buffer, size));
    if (copy == NULL) return no_memory(s);
    *name = mir_view_of(copy, size);
    return MIR_OK;
}

static mir_status add_stored(void *context, mir_view name)
{
    search *s = context;
    if (s->stored_count == s->stored_capacity) {
        const size_t capacity = s->stored_capacity * 2 + 64;
        mir_view *grown = mir_arena_alloc(s->arena, capacity * sizeof *grown);
        if (grown == NULL) return no_memory(s);
        if (s->stored_count != 0) memcpy(grown, s->stored, s->stored_count * sizeof *grown);
        s->stored = grown;
        s->stored_capacity = capacity;
    }
    const char *copy = mir_arena_strdup(s->arena, name);
    if (copy == NULL) return no_memory(s);
    s->stored[s->stored_count++] = mir_view_of(copy, name.size);
    return MIR_OK;
}

static bool is_asked(const search *s, mir_view name)
{
    for (uint32_t i = 0; i < s->spec->field_count; i++)
        if (mir_view_eq(s->spec->fields[i], name)) return true;
    return false;
}

static void add_rename(search *s, mir_view stored, mir_view answered)
{
    for (uint32_t i = 0; i < s->rename_count; i++)
        if (mir_view_eq(s->renames[i].stored, stored)) return;
    if (s->rename_count < MIR_TLM_RENAMES_MAX)
        s->renames[s->rename_count++] = (mir_tlog_rename){stored, answered};
}

/* Everything that is the same field as the one that was asked for. */
static mir_status rename_to_asked(search *s, version *v, mir_view asked)
{
    mir_view wanted;
    mir_status status = today(s, v, asked, &wanted);
    if (wanted.size == 0) return status;
    for (size_t i = 0; i < s->stored_count && status == MIR_OK; i++) {
        if (is_asked(s, s->stored[i])) continue;
        mir_view name;
        status = today(s, v, s->stored[i], &name);
        if (status == MIR_OK && mir_view_eq(name, wanted)) add_rename(s, s->stored[i], asked);
    }
    return status;
}

/* To what it is called today, if no device of the query calls a field so. */
static mir_status rename_to_today(search *s, mir_view stored)
{
    mir_view renamed = {0};
    for (uint32_t i = 0; i < s->version_count; i++) {
        mir_view name;
        const mir_status status = today(s, &s->versions[i], stored, &name);
        if (status != MIR_OK) return status;
        if (mir_view_eq(name, stored)) return MIR_OK;
        if (renamed.size == 0) renamed = name;
    }
    if (renamed.size != 0) add_rename(s, stored, renamed);
    return MIR_OK;
}

static mir_status find_renames(search *s)
{
    s->renames = mir_arena_alloc(s->arena, MIR_TLM_RENAMES_MAX * sizeof *s->renames);
    if (s->renames == NULL) return no_memory(s);
    mir_status status =
        mir_tlog_fields(s->sources->tlog, s->spec->measurement, INT64_MIN, add_stored, s, s->error);
    if (s->spec->field_count == 0) {
        for (size_t i = 0; i < s->stored_count && status == MIR_OK; i++)
            status = rename_to_today(s, s->stored[i]);
    }
    for (uint32_t i = 0; i < s->version_count; i++)
        for (uint32_t f = 0; f < s->spec->field_count && status == MIR_OK; f++)
            status = rename_to_asked(s, &s->versions[i], s->spec->fields[f]);
    if (status != MIR_OK) return status;
    s->spec->renames = s->renames;
    s->spec->rename_count = s->rename_count;
    return MIR_OK;
}

mir_status mir_tlm_renames(const mir_tlm_sources *sources,
                           MirStore__V1__DeviceRecord *const *devices, size_t count,
                           mir_arena *arena, mir_tlog_query_spec *spec, mir_error *error)
{
    if (sources->schemas == NULL) return MIR_OK;
    search s = {.sources = sources, .arena = arena, .spec = spec, .error = error};
    mir_status status = find_versions(&s, devices, count);
    if (status == MIR_OK && s.was_renamed) status = find_renames(&s);
    for (uint32_t i = 0; i < s.version_count; i++) mir_schema_unref(s.versions[i].known.schema);
    return status;
}

mir_view mir_tlm_renamed(const mir_tlog_query_spec *spec, mir_view stored)
{
    for (uint32_t i = 0; i < spec->rename_count; i++)
        if (mir_view_eq(spec->renames[i].stored, stored)) return spec->renames[i].answered;
    return stored;
}
