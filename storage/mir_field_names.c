/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_field_names.h"

#include <stdlib.h>

#include "mir_device_rules.h"
#include "mir_log.h"
#include "mir_pb.h"
#include "mir_schema.h"
#include "mir_state_internal.h"
#include "mir_zstd.h"

#define TRY(expression)                                                                            \
    do {                                                                                           \
        mir_status try_status = (expression);                                                      \
        if (try_status != MIR_OK) return try_status;                                               \
    } while (0)

typedef MirStore__V1__FieldNames names_record;
typedef MirStore__V1__FieldNames__Field names_field;

static MDB_val val(mir_view view)
{
    return (MDB_val){view.size, (void *)(uintptr_t)view.data};
}

static mir_status load(const mir_state_db *db, MDB_txn *txn, mir_view type, mir_arena *arena,
                       names_record **record)
{
    MDB_val k = val(type), v;
    TRY(mir_state_db_status(mdb_get(txn, db->field_names, &k, &v)));
    mir_status status = mir_pb_unpack(&mir_store__v1__field_names__descriptor,
                                      mir_view_of(v.mv_data, v.mv_size), arena, record, NULL);
    return status == MIR_E_INVALID ? MIR_E_CORRUPT : status;
}

static names_field *field_of(names_record *record, uint32_t number)
{
    for (size_t i = 0; i < record->n_fields; i++)
        if (record->fields[i]->number == number) return record->fields[i];
    return NULL;
}

/* The name comes last; true: something changed. */
static bool put_name(names_field *field, const char *name)
{
    size_t at = 0;
    while (at < field->n_names && strcmp(field->names[at], name) != 0) at++;
    if (at + 1 == field->n_names) return false;
    if (at == field->n_names && at < MIR_FIELD_NAMES_KEPT) {
        field->n_names++;
    } else {
        if (at == field->n_names) at = 0;
        for (; at + 1 < field->n_names; at++) field->names[at] = field->names[at + 1];
    }
    field->names[at] = (char *)(uintptr_t)name;
    return true;
}

static names_field *new_field(mir_arena *arena, const names_field *from)
{
    names_field *field = mir_arena_alloc(arena, sizeof *field);
    char **names = mir_arena_alloc(arena, MIR_FIELD_NAMES_KEPT * sizeof *names);
    if (field == NULL || names == NULL) return NULL;
    mir_store__v1__field_names__field__init(field);
    field->has_number = 1;
    field->names = names;
    if (from == NULL) return field;
    field->number = from->number;
    for (size_t i = from->n_names < MIR_FIELD_NAMES_KEPT ? 0 : from->n_names - MIR_FIELD_NAMES_KEPT;
         i < from->n_names; i++)
        names[field->n_names++] = from->names[i];
    return field;
}

/* The record with the names of the message's fields. */
static mir_status merge(const mir_schema_message *message, const names_record *stored,
                        mir_arena *arena, names_record *merged, bool *is_changed)
{
    const size_t room = stored->n_fields + message->field_count;
    merged->fields = mir_arena_alloc(arena, (room + 1) * sizeof(names_field *));
    if (merged->fields == NULL) return MIR_E_NO_MEMORY;
    for (size_t i = 0; i < stored->n_fields; i++) {
        names_field *field = new_field(arena, stored->fields[i]);
        if (field == NULL) return MIR_E_NO_MEMORY;
        merged->fields[merged->n_fields++] = field;
    }
    for (uint32_t i = 0; i < message->field_count; i++) {
        names_field *field = field_of(merged, message->fields[i].number);
        if (field == NULL) {
            field = new_field(arena, NULL);
            if (field == NULL) return MIR_E_NO_MEMORY;
            field->number = message->fields[i].number;
            merged->fields[merged->n_fields++] = field;
        }
        if (put_name(field, message->fields[i].name)) *is_changed = true;
    }
    return MIR_OK;
}

static mir_status note_type(const mir_state_db *db, MDB_txn *txn, const mir_schema_message *message)
{
    const mir_view type = mir_view_of(message->name, message->name_size);
    if (type.size == 0 || type.size > MIR_STATE_KEY_BYTES_MAX ||
        message->field_count > MIR_FIELD_NAMES_FIELDS_MAX)
        return MIR_OK;
    mir_arena arena = {0};
    names_record none = MIR_STORE__V1__FIELD_NAMES__INIT, merged = none, *stored = &none;
    bool is_changed = false;
    mir_status status = load(db, txn, type, &arena, &stored);
    /* Without its earlier names a schema is stored all the same. */
    if (status == MIR_E_CORRUPT) status = MIR_OK;
    if (status == MIR_E_NOT_FOUND) {
        MDB_stat known;
        status = mir_state_db_status(mdb_stat(txn, db->field_names, &known));
        if (status == MIR_OK && known.ms_entries > MIR_FIELD_NAMES_TYPES_MAX) goto out;
    }
    if (status == MIR_OK) status = merge(message, stored, &arena, &merged, &is_changed);
    const size_t size = mir_store__v1__field_names__get_packed_size(&merged);
    if (status != MIR_OK || !is_changed || size > MIR_FIELD_NAMES_BYTES_MAX) goto out;
    MDB_val k = val(type), v = {size, NULL};
    status = mir_state_db_status(mdb_put(txn, db->field_names, &k, &v, MDB_RESERVE));
    if (status == MIR_OK) (void)mir_store__v1__field_names__pack(&merged, v.mv_data);
out:
    mir_arena_free(&arena);
    return status;
}

typedef struct types {
    const mir_schema_message **list;
    size_t count, capacity;
} types;

static mir_status add_type(types *found, const mir_schema_message *type)
{
    for (size_t i = 0; i < found->count; i++)
        if (found->list[i] == type) return MIR_OK;
    if (found->count == found->capacity) {
        const size_t capacity = found->capacity * 2 + 16;
        const mir_schema_message **list =
            realloc((void *)found->list, capacity * sizeof(const mir_schema_message *));
        if (list == NULL) return MIR_E_NO_MEMORY;
        found->list = list;
        found->capacity = capacity;
    }
    found->list[found->count++] = type;
    return MIR_OK;
}

mir_status mir_field_names_note(const mir_state_db *db, MDB_txn *txn, mir_view compressed)
{
    mir_bytes raw = {0};
    mir_schema *schema = NULL;
    mir_error error = {{0}};
    mir_status status = mir_zstd_decompress(compressed, MIR_DEVICE_SCHEMA_BYTES_MAX, &raw, &error);
    if (status == MIR_OK) status = mir_schema_load(mir_bytes_as_view(&raw), NULL, &schema, &error);
    mir_bytes_free(&raw);
    if (status == MIR_E_NO_MEMORY) return status;
    if (status != MIR_OK) return MIR_OK;
    types found = {0};
    uint32_t count = 0;
    const mir_schema_message *const *telemetry =
        mir_schema_list(schema, MIR_MESSAGE_TELEMETRY, &count);
    for (uint32_t i = 0; i < count && status == MIR_OK; i++)
        status = add_type(&found, telemetry[i]);
    for (size_t at = 0; at < found.count && status == MIR_OK; at++) {
        const mir_schema_message *message = found.list[at];
        for (uint32_t i = 0; i < message->field_count && status == MIR_OK; i++)
            if (message->fields[i].message != NULL)
                status = add_type(&found, message->fields[i].message);
        /* The entries of maps have no names to change. */
        if (status == MIR_OK && !message->is_map_entry) status = note_type(db, txn, message);
    }
    free((void *)found.list);
    mir_schema_unref(schema);
    return status;
}

/* LMDB has no empty keys: one zero byte. */
static const mir_view begun_key = {(const uint8_t *)"", 1};

static mir_status note_all(const mir_state_db *db, MDB_txn *txn)
{
    MDB_cursor *cursor = NULL;
    TRY(mir_state_db_status(mdb_cursor_open(txn, db->schema, &cursor)));
    MDB_val k, v;
    mir_status status = mir_state_db_status(mdb_cursor_get(cursor, &k, &v, MDB_FIRST));
    while (status == MIR_OK) {
        mir_arena arena = {0};
        MirStore__V1__SchemaRecord *record = NULL;
        if (mir_pb_unpack(&mir_store__v1__schema_record__descriptor,
                          mir_view_of(v.mv_data, v.mv_size), &arena, &record, NULL) == MIR_OK)
            status = mir_field_names_note(
                db, txn, mir_view_of(record->compressed.data, record->compressed.len));
        mir_arena_free(&arena);
        if (status == MIR_OK)
            status = mir_state_db_status(mdb_cursor_get(cursor, &k, &v, MDB_NEXT));
    }
    mdb_cursor_close(cursor);
    return status == MIR_E_NOT_FOUND ? MIR_OK : status;
}

mir_status mir_field_names_begin(const mir_state_db *db, mir_error *error)
{
    MDB_txn *txn = NULL;
    mir_status status = mir_state_db_status(mdb_txn_begin(db->env, NULL, 0, &txn));
    if (status == MIR_OK) {
        MDB_val k = val(begun_key), v = {0, NULL};
        status = mir_state_db_status(mdb_get(txn, db->field_names, &k, &v));
        if (status == MIR_OK) {
            mdb_txn_abort(txn);
            return MIR_OK;
        }
        if (status == MIR_E_NOT_FOUND) status = note_all(db, txn);
        if (status == MIR_OK)
            status = mir_state_db_status(mdb_put(txn, db->field_names, &k, &v, 0));
        if (status == MIR_OK) {
            status = mir_state_db_status(mdb_txn_commit(txn));
            txn = NULL;
        }
        if (txn != NULL) mdb_txn_abort(txn);
    }
    /* A full store opens all the same: without earlier names, until there is room. But LMDB refuses
     * everything after some of its pages could not be written. */
    if (status == MIR_E_FULL || status == MIR_E_NO_SPACE) {
        if (mdb_txn_begin(db->env, NULL, MDB_RDONLY, &txn) == 0) {
            mdb_txn_abort(txn);
            mir_log_warn("state store: no room to note the earlier names of fields");
            return MIR_OK;
        }
        status = MIR_E_CLOSED;
    }
    if (status != MIR_OK) mir_state_db_explain(db, status, error);
    return status;
}

mir_status mir_field_names_get(mir_state *state, mir_view type, mir_arena *arena,
                               names_record **names, mir_error *error)
{
    if (type.size == 0 || type.size > MIR_STATE_KEY_BYTES_MAX) return MIR_E_NOT_FOUND;
    MDB_txn *txn = NULL;
    TRY(mir_state_read_begin(state, &txn, error));
    mir_status status = load(&state->db, txn, type, arena, names);
    mir_state_read_end(state, txn);
    if (status != MIR_OK && status != MIR_E_NOT_FOUND)
        mir_state_db_explain(&state->db, status, error);
    return status;
}
