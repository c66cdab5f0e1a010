/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_command_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "mir_clock.h"
#include "mir_pb.h"
#include "mir_state_internal.h"
#include "mir_state_ops.h"
#include "mir_utf8.h"

#define TRY(call)                                                                                  \
    do {                                                                                           \
        mir_status try_status = (call);                                                            \
        if (try_status != MIR_OK) return try_status;                                               \
    } while (0)

enum { PURGED_AT_ONCE = 1024, DUE_LOOKED_MAX = 8192 };

static const mir_view next_key = {(const uint8_t *)"command_next", 12};

mir_command_state mir_command_state_of(const mir_command_record *record)
{
    return record->n_steps == 0 ? MIR_COMMAND_QUEUED
                                : (mir_command_state)record->steps[record->n_steps - 1]->state;
}

int64_t mir_command_time_ns(const MirStore__V1__Time *time)
{
    return mir_state_time_ns(time);
}

static bool waits(mir_command_state state)
{
    return state == MIR_COMMAND_QUEUED || state == MIR_COMMAND_SENT;
}

/* --- records -------------------------------------------------------------------------------- */

static MDB_val number_val(uint64_t number, uint8_t bytes[8])
{
    mir_state_u64_write(bytes, number);
    return (MDB_val){8, bytes};
}

static mir_status unpack(MDB_val value, mir_arena *arena, mir_command_record **record)
{
    mir_error error;
    mir_command_record *found;
    mir_status status =
        mir_pb_unpack(&mir_store__v1__command_record__descriptor,
                      mir_view_of(value.mv_data, value.mv_size), arena, &found, &error);
    if (status != MIR_OK) return status == MIR_E_INVALID ? MIR_E_CORRUPT : status;
    if (found->device_id == NULL || found->id == NULL || found->message == NULL ||
        found->n_steps == 0)
        return MIR_E_CORRUPT;
    *record = found;
    return MIR_OK;
}

static mir_status load(const mir_state_db *db, MDB_txn *txn, uint64_t number, mir_arena *arena,
                       mir_command_record **record)
{
    uint8_t bytes[8];
    MDB_val key = number_val(number, bytes), value;
    TRY(mir_state_db_status(mdb_get(txn, db->command, &key, &value)));
    return unpack(value, arena, record);
}

static mir_status put(mir_state_ops *ops, const mir_command_record *record)
{
    mir_bytes packed = {0};
    MIR_PB_PACK(record, &packed);
    uint8_t bytes[8];
    MDB_val key = number_val(record->number, bytes), value = {packed.size, packed.data};
    mir_status status = MIR_E_NO_MEMORY;
    if (mir_bytes_ok(&packed))
        status = mir_state_db_status(mdb_put(ops->txn, ops->db->command, &key, &value, 0));
    mir_bytes_free(&packed);
    return status;
}

/* The device's id, a zero byte, the number: no id has a zero byte. */
static void waiting_key(mir_state_key *key, mir_view device_id, uint64_t number)
{
    key->size = 0;
    key->failed = false;
    mir_state_key_view(key, device_id);
    mir_state_key_u8(key, 0);
    mir_state_key_u64(key, number);
}

static mir_status set_key(MDB_txn *txn, MDB_dbi dbi, const mir_state_key *key, bool present)
{
    if (key->failed) return MIR_E_INVALID;
    MDB_val k = {key->size, (void *)(uintptr_t)key->data}, none = {0, (void *)(uintptr_t) ""};
    int rc = present ? mdb_put(txn, dbi, &k, &none, 0) : mdb_del(txn, dbi, &k, NULL);
    return rc == MDB_NOTFOUND ? MIR_OK : mir_state_db_status(rc);
}

/* When something is to be done about it: its end while it is queued, its removal once it has ended.
 * What was sent waits for its answer alone. */
static bool due_of(const mir_command_record *record, int64_t *due_ns)
{
    mir_command_state state = mir_command_state_of(record);
    if (state == MIR_COMMAND_SENT) return false;
    *due_ns = mir_state_time_ns(record->expires);
    if (state != MIR_COMMAND_QUEUED)
        *due_ns = mir_state_time_ns(record->steps[record->n_steps - 1]->at) +
                  MIR_COMMANDS_KEPT_S * MIR_NS_PER_S;
    return true;
}

static mir_status set_indexes(mir_state_ops *ops, const mir_command_record *record, bool present)
{
    mir_state_key key;
    if (waits(mir_command_state_of(record))) {
        waiting_key(&key, mir_view_cstr(record->device_id), record->number);
        TRY(set_key(ops->txn, ops->db->command_waiting, &key, present));
    }
    int64_t due_ns;
    if (!due_of(record, &due_ns)) return MIR_OK;
    key = (mir_state_key){0};
    mir_state_key_u64(&key, (uint64_t)due_ns);
    mir_state_key_u64(&key, record->number);
    return set_key(ops->txn, ops->db->command_due, &key, present);
}

static mir_status add_state(mir_state_ops *ops, mir_command_record *record, mir_command_state state)
{
    mir_arena *arena = &ops->request->arena;
    MirStore__V1__CommandRecord__Step **steps =
        mir_arena_alloc(arena, (record->n_steps + 1) * sizeof *steps);
    MirStore__V1__CommandRecord__Step *step = mir_arena_alloc(arena, sizeof *step);
    if (steps == NULL || step == NULL) return MIR_E_NO_MEMORY;
    mir_store__v1__command_record__step__init(step);
    step->has_state = 1;
    step->state = state;
    step->at = mir_state_time_new(arena, ops->now_ns);
    if (step->at == NULL) return MIR_E_NO_MEMORY;
    if (record->n_steps != 0) memcpy(steps, record->steps, record->n_steps * sizeof *steps);
    steps[record->n_steps] = step;
    record->steps = steps;
    record->n_steps++;
    return MIR_OK;
}

static mir_status tell(mir_state_ops *ops, mir_event_item *event)
{
    return event == NULL ? MIR_OK : mir_event_log_append(ops->events, ops->now_ns, event);
}

/* --- adding --------------------------------------------------------------------------------- */

static mir_status take_number(mir_state_ops *ops, uint64_t *number)
{
    MDB_val key = {next_key.size, (void *)(uintptr_t)next_key.data}, value;
    uint64_t next = 1;
    int rc = mdb_get(ops->txn, ops->db->meta, &key, &value);
    if (rc == 0 && value.mv_size != 8) return MIR_E_CORRUPT;
    if (rc == 0) next = mir_state_u64_read(value.mv_data);
    if (rc != 0 && rc != MDB_NOTFOUND) return mir_state_db_status(rc);
    uint8_t bytes[8];
    value = number_val(next + 1, bytes);
    TRY(mir_state_db_status(mdb_put(ops->txn, ops->db->meta, &key, &value, 0)));
    *number = next;
    return MIR_OK;
}

/* How many wait for a device, at most `max`. */
static mir_status count_waiting(const mir_state_db *db, MDB_txn *txn, mir_view device_id,
                                size_t max, size_t *count)
{
    MDB_cursor *cursor;
    mir_state_key key;
    waiting_key(&key, device_id, 0);
    TRY(mir_state_db_status(mdb_cursor_open(txn, db->command_waiting, &cursor)));
    MDB_val k = {key.size, key.data}, v;
    size_t prefix = device_id.size + 1;
    *count = 0;
    int rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    while (rc == 0 && *count < max && k.mv_size == key.size &&
           memcmp(k.mv_data, key.data, prefix) == 0) {
        ++*count;
        rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? MIR_OK : mir_state_db_status(rc);
}

static mir_status set_cause(mir_state_ops *ops, mir_command_record *record)
{
    if (!ops->context.ready)
        TRY(mir_event_context_make(ops->request->cause, &ops->request->arena, &ops->context));
    record->actor = ops->context.actor;
    record->address = ops->context.address;
    record->request_id = ops->context.request_id;
    return MIR_OK;
}

mir_status mir_command_id_new(char id[MIR_COMMAND_ID_BYTES_MAX])
{
    uint64_t random[2];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) return MIR_E_IO;
    (void)snprintf(id, MIR_COMMAND_ID_BYTES_MAX, "%016llx%08llx", (unsigned long long)random[0],
                   (unsigned long long)(random[1] >> 32));
    return MIR_OK;
}

static mir_status add(mir_state_ops *ops, mir_command_add *one)
{
    mir_arena *arena = &ops->request->arena;
    uint64_t device_number;
    MirStore__V1__DeviceRecord *device;
    one->status = mir_state_db_find_id(ops->db, ops->txn, one->device_id, &device_number);
    if (one->status == MIR_E_NOT_FOUND) return MIR_OK;
    TRY(one->status);
    TRY(mir_state_db_load(ops->db, ops->txn, device_number, arena, &device));
    MDB_stat stat;
    TRY(mir_state_db_status(mdb_stat(ops->txn, ops->db->command, &stat)));
    size_t waiting;
    TRY(count_waiting(ops->db, ops->txn, one->device_id, MIR_COMMANDS_WAITING_MAX, &waiting));
    if (stat.ms_entries >= MIR_COMMANDS_MAX || waiting >= MIR_COMMANDS_WAITING_MAX) {
        one->status = MIR_E_FULL;
        return MIR_OK;
    }
    mir_command_record *record = mir_arena_alloc(arena, sizeof *record);
    if (record == NULL) return MIR_E_NO_MEMORY;
    mir_store__v1__command_record__init(record);
    record->has_number = record->has_device_number = 1;
    TRY(take_number(ops, &record->number));
    record->id = (char *)(uintptr_t)one->id;
    record->device_number = device_number;
    record->device_id = device->device_id;
    record->device_name = device->name;
    record->namespace_ = device->namespace_;
    record->message = (char *)(uintptr_t)one->message;
    record->has_payload = 1;
    record->payload =
        (ProtobufCBinaryData){one->payload.size, (uint8_t *)(uintptr_t)one->payload.data};
    record->expires = mir_state_time_new(arena, one->expires_ns);
    record->has_timeout_s = 1;
    record->timeout_s = one->timeout_s;
    if (record->expires == NULL) return MIR_E_NO_MEMORY;
    TRY(set_cause(ops, record));
    TRY(add_state(ops, record, MIR_COMMAND_QUEUED));
    TRY(put(ops, record));
    TRY(set_indexes(ops, record, true));
    TRY(tell(ops, one->event));
    one->record = record;
    return MIR_OK;
}

static mir_status add_all(mir_state_ops *ops, void *ctx)
{
    mir_command_adds *adds = ctx;
    for (size_t i = 0; i < adds->count; i++) {
        adds->list[i].record = NULL;
        TRY(add(ops, &adds->list[i]));
    }
    return MIR_OK;
}

void mir_command_prepare_add(mir_state_request *request, mir_command_adds *adds)
{
    request->op = MIR_STATE_INTERNAL;
    request->internal.run = add_all;
    request->internal.ctx = adds;
}

/* --- moving on ------------------------------------------------------------------------------ */

static mir_status move(mir_state_ops *ops, mir_command_step *one)
{
    mir_arena *arena = &ops->request->arena;
    mir_command_record *record;
    one->status = load(ops->db, ops->txn, one->number, arena, &record);
    if (one->status == MIR_E_NOT_FOUND) return MIR_OK;
    TRY(one->status);
    one->record = record;
    if (mir_command_state_of(record) != one->from) {
        one->status = MIR_E_EXISTS;
        return MIR_OK;
    }
    TRY(set_indexes(ops, record, false));
    if (one->to == MIR_COMMAND_QUEUED && record->n_steps > 1)
        record->n_steps--;
    else
        TRY(add_state(ops, record, one->to));
    if (one->error != NULL) record->error = (char *)(uintptr_t)one->error;
    /* What is no text would make a record that nobody can read. */
    bool is_text = one->response_name == NULL || mir_utf8_valid(mir_view_cstr(one->response_name));
    if (one->response_name != NULL && is_text) {
        record->response_name = (char *)(uintptr_t)one->response_name;
        record->has_response_payload = one->response_payload.size <= MIR_COMMAND_PAYLOAD_BYTES_MAX;
        if (record->has_response_payload)
            record->response_payload = (ProtobufCBinaryData){
                one->response_payload.size, (uint8_t *)(uintptr_t)one->response_payload.data};
    }
    TRY(put(ops, record));
    TRY(set_indexes(ops, record, true));
    return tell(ops, one->event);
}

static mir_status move_all(mir_state_ops *ops, void *ctx)
{
    mir_command_steps *steps = ctx;
    for (size_t i = 0; i < steps->count; i++) {
        steps->list[i].record = NULL;
        TRY(move(ops, &steps->list[i]));
    }
    return MIR_OK;
}

void mir_command_prepare_steps(mir_state_request *request, mir_command_steps *steps)
{
    request->op = MIR_STATE_INTERNAL;
    request->internal.run = move_all;
    request->internal.ctx = steps;
}

static mir_status purge(mir_state_ops *ops, void *ctx)
{
    (void)ctx;
    for (size_t i = 0; i < PURGED_AT_ONCE; i++) {
        MDB_cursor *cursor;
        TRY(mir_state_db_status(mdb_cursor_open(ops->txn, ops->db->command_due, &cursor)));
        /* What is queued and over its time stands here as well, until it has been told of. */
        uint64_t number = 0;
        MDB_val k, v;
        int rc = mdb_cursor_get(cursor, &k, &v, MDB_FIRST);
        mir_command_record *record = NULL;
        while (rc == 0 && k.mv_size == 16 &&
               (int64_t)mir_state_u64_read(k.mv_data) <= ops->now_ns) {
            number = mir_state_u64_read((const uint8_t *)k.mv_data + 8);
            mir_status status = load(ops->db, ops->txn, number, &ops->request->arena, &record);
            if (status != MIR_OK) {
                mdb_cursor_close(cursor);
                return status == MIR_E_NOT_FOUND ? MIR_E_CORRUPT : status;
            }
            if (!waits(mir_command_state_of(record))) break;
            record = NULL;
            rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
        }
        mdb_cursor_close(cursor);
        if (record == NULL) return MIR_OK;
        TRY(set_indexes(ops, record, false));
        uint8_t bytes[8];
        MDB_val key = number_val(number, bytes);
        TRY(mir_state_db_status(mdb_del(ops->txn, ops->db->command, &key, NULL)));
    }
    return MIR_OK;
}

void mir_command_prepare_purge(mir_state_request *request)
{
    request->op = MIR_STATE_INTERNAL;
    request->makes_room = true;
    request->internal.run = purge;
    request->internal.ctx = NULL;
}

/* --- reading -------------------------------------------------------------------------------- */

static mir_status end_read(mir_state *state, MDB_txn *txn, mir_status status, mir_error *error)
{
    mir_state_read_end(state, txn);
    if (status != MIR_OK && status != MIR_E_NOT_FOUND && status != MIR_E_CANCELLED)
        mir_state_db_explain(&state->db, status, error);
    return status;
}

mir_status mir_command_first(mir_state *state, mir_view device_id, mir_arena *arena,
                             mir_command_record **record, mir_error *error)
{
    MDB_txn *txn = NULL;
    MDB_cursor *cursor = NULL;
    mir_state_key key;
    waiting_key(&key, device_id, 0);
    if (key.failed) return MIR_E_NOT_FOUND;
    TRY(mir_state_read_begin(state, &txn, error));
    mir_status status =
        mir_state_db_status(mdb_cursor_open(txn, state->db.command_waiting, &cursor));
    if (status == MIR_OK) {
        MDB_val k = {key.size, key.data}, v;
        status = mir_state_db_status(mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE));
        if (status == MIR_OK &&
            (k.mv_size != key.size || memcmp(k.mv_data, key.data, device_id.size + 1) != 0))
            status = MIR_E_NOT_FOUND;
        if (status == MIR_OK) {
            uint64_t number = mir_state_u64_read((const uint8_t *)k.mv_data + device_id.size + 1);
            status = load(&state->db, txn, number, arena, record);
            if (status == MIR_E_NOT_FOUND) status = MIR_E_CORRUPT;
        }
        mdb_cursor_close(cursor);
    }
    return end_read(state, txn, status, error);
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool matches(const mir_command_filter *filter, const mir_command_record *record)
{
    if (filter->states != 0 && (filter->states >> mir_command_state_of(record) & 1) == 0)
        return false;
    if (filter->device_ids != NULL &&
        bsearch(&record->device_id, filter->device_ids, filter->device_count, sizeof(char *),
                compare_texts) == NULL)
        return false;
    return filter->ids == NULL || bsearch(&record->id, filter->ids, filter->id_count,
                                          sizeof(char *), compare_texts) != NULL;
}

static mir_status take(mir_command_listing *list, mir_command_record *record, mir_arena *arena)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity == 0 ? 64 : list->capacity * 2;
        mir_command_record **grown =
            mir_arena_alloc(arena, capacity * sizeof(mir_command_record *));
        if (grown == NULL) return MIR_E_NO_MEMORY;
        if (list->count != 0)
            memcpy(grown, list->records, list->count * sizeof(mir_command_record *));
        list->records = grown;
        list->capacity = capacity;
    }
    list->records[list->count++] = record;
    return MIR_OK;
}

/* To the newest command that has not been looked at. */
static int list_begin(MDB_cursor *cursor, const mir_command_listing *list, MDB_val *k, MDB_val *v)
{
    if (list->before == 0) return mdb_cursor_get(cursor, k, v, MDB_LAST);
    uint8_t bytes[8];
    *k = number_val(list->before, bytes);
    int rc = mdb_cursor_get(cursor, k, v, MDB_SET_RANGE);
    /* It may have been purged, and all behind it. */
    return mdb_cursor_get(cursor, k, v, rc == MDB_NOTFOUND ? MDB_LAST : MDB_PREV);
}

static mir_status list_in(const mir_state_db *db, MDB_txn *txn, const mir_command_filter *filter,
                          size_t looked_max, mir_arena *arena, mir_command_listing *list)
{
    MDB_cursor *cursor;
    TRY(mir_state_db_status(mdb_cursor_open(txn, db->command, &cursor)));
    MDB_val k, v;
    mir_status status = MIR_OK;
    int rc = list_begin(cursor, list, &k, &v);
    for (size_t looked = 0; rc == 0 && status == MIR_OK && looked < looked_max; looked++) {
        /* Looked at in an arena of its own: most may not match. */
        mir_arena scratch = {0};
        mir_command_record *record;
        status = k.mv_size == 8 ? unpack(v, &scratch, &record) : MIR_E_CORRUPT;
        bool wanted = status == MIR_OK && matches(filter, record);
        mir_arena_free(&scratch);
        if (status != MIR_OK) break;
        list->before = mir_state_u64_read(k.mv_data);
        if (wanted && ((filter->rows_max != 0 && list->count == filter->rows_max) ||
                       (filter->bytes_max != 0 && list->bytes + v.mv_size > filter->bytes_max))) {
            list->cut = list->is_over = true;
            break;
        }
        if (wanted) {
            list->bytes += v.mv_size;
            status = unpack(v, arena, &record);
            if (status == MIR_OK) status = take(list, record, arena);
        }
        rc = mdb_cursor_get(cursor, &k, &v, MDB_PREV);
    }
    mdb_cursor_close(cursor);
    if (status != MIR_OK) return status;
    if (rc == MDB_NOTFOUND) list->is_over = true;
    return rc == 0 || rc == MDB_NOTFOUND ? MIR_OK : mir_state_db_status(rc);
}

mir_status mir_command_list(mir_state *state, const mir_command_filter *filter, size_t looked_max,
                            mir_arena *arena, mir_command_listing *list, mir_error *error)
{
    MDB_txn *txn = NULL;
    TRY(mir_state_read_begin(state, &txn, error));
    return end_read(state, txn, list_in(&state->db, txn, filter, looked_max, arena, list), error);
}

static mir_status visit_waiting(const mir_state_db *db, MDB_txn *txn, mir_command_visit visit,
                                void *ctx)
{
    MDB_cursor *cursor;
    TRY(mir_state_db_status(mdb_cursor_open(txn, db->command_waiting, &cursor)));
    MDB_val k, v;
    mir_status status = MIR_OK;
    int rc = mdb_cursor_get(cursor, &k, &v, MDB_FIRST);
    for (; rc == 0 && status == MIR_OK; rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
        if (k.mv_size < 9) {
            status = MIR_E_CORRUPT;
            break;
        }
        mir_arena scratch = {0};
        mir_command_record *record;
        uint64_t number = mir_state_u64_read((const uint8_t *)k.mv_data + k.mv_size - 8);
        status = load(db, txn, number, &scratch, &record);
        if (status == MIR_E_NOT_FOUND) status = MIR_E_CORRUPT;
        if (status == MIR_OK) status = visit(ctx, record);
        mir_arena_free(&scratch);
    }
    mdb_cursor_close(cursor);
    if (status != MIR_OK) return status;
    return rc == 0 || rc == MDB_NOTFOUND ? MIR_OK : mir_state_db_status(rc);
}

mir_status mir_command_waiting_each(mir_state *state, mir_command_visit visit, void *ctx,
                                    mir_error *error)
{
    MDB_txn *txn = NULL;
    TRY(mir_state_read_begin(state, &txn, error));
    return end_read(state, txn, visit_waiting(&state->db, txn, visit, ctx), error);
}

static mir_status due_in(const mir_state_db *db, MDB_txn *txn, int64_t now_ns, size_t max,
                         mir_arena *arena, mir_command_listing *list, int64_t *next_ns)
{
    MDB_cursor *cursor;
    TRY(mir_state_db_status(mdb_cursor_open(txn, db->command_due, &cursor)));
    MDB_val k, v;
    size_t looked = 0;
    mir_status status = MIR_OK;
    *next_ns = INT64_MAX;
    int rc = mdb_cursor_get(cursor, &k, &v, MDB_FIRST);
    for (; rc == 0 && status == MIR_OK; rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
        int64_t due_ns = k.mv_size == 16 ? (int64_t)mir_state_u64_read(k.mv_data) : INT64_MIN;
        if (due_ns > now_ns || list->count == max) {
            if (*next_ns == INT64_MAX) *next_ns = due_ns;
            break;
        }
        /* What has ended, and is to be purged, may be much. */
        mir_arena scratch = {0};
        mir_command_record *record;
        uint64_t number = mir_state_u64_read((const uint8_t *)k.mv_data + 8);
        status = k.mv_size == 16 ? load(db, txn, number, &scratch, &record) : MIR_E_CORRUPT;
        if (status == MIR_E_NOT_FOUND) status = MIR_E_CORRUPT;
        bool is_queued = status == MIR_OK && mir_command_state_of(record) == MIR_COMMAND_QUEUED;
        mir_arena_free(&scratch);
        if (status != MIR_OK) break;
        if (is_queued) {
            status = load(db, txn, number, arena, &record);
            if (status == MIR_OK) status = take(list, record, arena);
        } else if (*next_ns == INT64_MAX) {
            *next_ns = due_ns;
        }
        if (++looked == DUE_LOOKED_MAX) break;
    }
    mdb_cursor_close(cursor);
    if (status != MIR_OK) return status;
    return rc == 0 || rc == MDB_NOTFOUND ? MIR_OK : mir_state_db_status(rc);
}

mir_status mir_command_due(mir_state *state, int64_t now_ns, size_t max, mir_arena *arena,
                           mir_command_record ***records, size_t *count, int64_t *next_ns,
                           mir_error *error)
{
    MDB_txn *txn = NULL;
    mir_command_listing list = {0};
    TRY(mir_state_read_begin(state, &txn, error));
    mir_status status =
        end_read(state, txn, due_in(&state->db, txn, now_ns, max, arena, &list, next_ns), error);
    if (status != MIR_OK) return status;
    *records = list.records;
    *count = list.count;
    return MIR_OK;
}
