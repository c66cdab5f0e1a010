/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_event_log.h"

#include <stdio.h>

#include "mir_assert.h"
#include "mir_limits.h"

#define TRY(call)                                                                                  \
    do {                                                                                           \
        mir_status try_status = (call);                                                            \
        if (try_status != MIR_OK) return try_status;                                               \
    } while (0)

enum {
    AT_AT = 1,
    CHECK_AT = 41,
    CHECK_BYTES = 8,
    TAIL_AT = 49, /* terms, or a tomb's removal */
    HEAD_VALUE_BYTES = 68,
    BLOCK_VALUE_BYTES = MIR_EVENT_HASH_BYTES + 4,
};

_Static_assert(TAIL_AT + 4 * MIR_EVENT_TERMS == MIR_EVENT_HEAD_BYTES, "the head ends with terms");
_Static_assert(TAIL_AT + 8 == MIR_EVENT_TOMB_BYTES, "a tomb ends with its removal");

static const mir_view head_key = {(const uint8_t *)"event_head", 10};
static const mir_view indexed_key = {(const uint8_t *)"event_indexed", 13};

static MDB_val val(mir_view view)
{
    return (MDB_val){view.size, (void *)(uintptr_t)view.data};
}

static uint32_t u32_read(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

static void u32_write(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)(value >> 24);
    p[1] = (uint8_t)(value >> 16);
    p[2] = (uint8_t)(value >> 8);
    p[3] = (uint8_t)value;
}

/* ── Reading ─────────────────────────────────────────────────────────────────────────────────── */

bool mir_event_place_read(mir_view value, mir_event_place *place)
{
    if (value.size < MIR_EVENT_TOMB_BYTES) return false;
    *place = (mir_event_place){
        .flags = value.data[0],
        .at_ns = (int64_t)mir_state_u64_read(value.data + AT_AT),
        .leaf = value.data + MIR_EVENT_LEAF_AT,
        .check = value.data + CHECK_AT,
        .head = value.data,
    };
    if ((place->flags & MIR_EVENT_IS_TOMB) != 0) {
        place->removal = mir_state_u64_read(value.data + TAIL_AT);
        return value.size == MIR_EVENT_TOMB_BYTES;
    }
    if (value.size < MIR_EVENT_HEAD_BYTES) return false;
    place->record = mir_view_from(value, MIR_EVENT_HEAD_BYTES);
    return true;
}

uint32_t mir_event_place_term(const mir_event_place *place, mir_event_term term)
{
    return u32_read(place->head + TAIL_AT + 4 * (size_t)term);
}

void mir_event_head_write(uint8_t head[MIR_EVENT_HEAD_BYTES], uint8_t flags,
                          const uint32_t terms[MIR_EVENT_TERMS])
{
    head[0] = flags;
    for (size_t i = 0; i < MIR_EVENT_TERMS; i++) u32_write(head + TAIL_AT + 4 * i, terms[i]);
}

mir_status mir_event_head_read(const mir_state_db *db, MDB_txn *txn, mir_event_head *head)
{
    MDB_val k = val(head_key), v;
    *head = (mir_event_head){0};
    mir_status status = mir_state_db_status(mdb_get(txn, db->meta, &k, &v));
    if (status == MIR_E_NOT_FOUND) return MIR_OK;
    TRY(status);
    if (v.mv_size != HEAD_VALUE_BYTES) return MIR_E_CORRUPT;
    const uint8_t *p = v.mv_data;
    head->sequence = mir_state_u64_read(p);
    head->at_ns = (int64_t)mir_state_u64_read(p + 8);
    memcpy(head->link, p + 16, MIR_EVENT_HASH_BYTES);
    head->removed = mir_state_u64_read(p + 48);
    head->removals = mir_state_u64_read(p + 56);
    head->open_live = u32_read(p + 64);
    return MIR_OK;
}

mir_status mir_event_log_end(mir_event_log *log)
{
    if (!log->changed) return MIR_OK;
    uint8_t p[HEAD_VALUE_BYTES];
    mir_state_u64_write(p, log->head.sequence);
    mir_state_u64_write(p + 8, (uint64_t)log->head.at_ns);
    memcpy(p + 16, log->head.link, MIR_EVENT_HASH_BYTES);
    mir_state_u64_write(p + 48, log->head.removed);
    mir_state_u64_write(p + 56, log->head.removals);
    u32_write(p + 64, log->head.open_live);
    MDB_val k = val(head_key), v = {sizeof p, p};
    return mir_state_db_status(mdb_put(log->txn, log->db->meta, &k, &v, 0));
}

mir_status mir_event_indexed_read(const mir_state_db *db, MDB_txn *txn, uint64_t *blocks)
{
    MDB_val k = val(indexed_key), v;
    *blocks = 0;
    mir_status status = mir_state_db_status(mdb_get(txn, db->meta, &k, &v));
    if (status == MIR_E_NOT_FOUND) return MIR_OK;
    TRY(status);
    if (v.mv_size != 8) return MIR_E_CORRUPT;
    *blocks = mir_state_u64_read(v.mv_data);
    return MIR_OK;
}

mir_status mir_event_indexed_write(const mir_state_db *db, MDB_txn *txn, uint64_t blocks)
{
    uint8_t bytes[8];
    mir_state_u64_write(bytes, blocks);
    MDB_val k = val(indexed_key), v = {sizeof bytes, bytes};
    return mir_state_db_status(mdb_put(txn, db->meta, &k, &v, 0));
}

mir_status mir_event_get(const mir_state_db *db, MDB_txn *txn, uint64_t sequence,
                         mir_event_place *place)
{
    uint8_t bytes[8];
    mir_state_u64_write(bytes, sequence);
    MDB_val k = {sizeof bytes, bytes}, v;
    TRY(mir_state_db_status(mdb_get(txn, db->event, &k, &v)));
    return mir_event_place_read(mir_view_of(v.mv_data, v.mv_size), place) ? MIR_OK : MIR_E_CORRUPT;
}

mir_status mir_event_block_read(const mir_state_db *db, MDB_txn *txn, uint64_t block,
                                mir_event_block *out)
{
    uint8_t bytes[8];
    mir_state_u64_write(bytes, block);
    MDB_val k = {sizeof bytes, bytes}, v;
    TRY(mir_state_db_status(mdb_get(txn, db->event_block, &k, &v)));
    if (v.mv_size != BLOCK_VALUE_BYTES) return MIR_E_CORRUPT;
    memcpy(out->link, v.mv_data, MIR_EVENT_HASH_BYTES);
    out->live = u32_read((const uint8_t *)v.mv_data + MIR_EVENT_HASH_BYTES);
    return MIR_OK;
}

static mir_status block_write(const mir_event_log *log, uint64_t block, const mir_event_block *from,
                              unsigned flags)
{
    uint8_t key[8], value[BLOCK_VALUE_BYTES];
    mir_state_u64_write(key, block);
    memcpy(value, from->link, MIR_EVENT_HASH_BYTES);
    u32_write(value + MIR_EVENT_HASH_BYTES, from->live);
    MDB_val k = {sizeof key, key}, v = {sizeof value, value};
    return mir_state_db_status(mdb_put(log->txn, log->db->event_block, &k, &v, flags));
}

/* ── Appending ───────────────────────────────────────────────────────────────────────────────── */

static mir_status load(mir_event_log *log)
{
    if (log->loaded) return MIR_OK;
    TRY(mir_event_head_read(log->db, log->txn, &log->head));
    log->loaded = true;
    return MIR_OK;
}

/* The next place, which holds `record_bytes` behind its head; it is filled and sealed before
 * anything else happens in the transaction. */
static mir_status reserve(mir_event_log *log, size_t record_bytes, uint8_t **place)
{
    TRY(load(log));
    uint8_t bytes[8];
    mir_state_u64_write(bytes, log->head.sequence + 1);
    MDB_val k = {sizeof bytes, bytes}, v = {MIR_EVENT_HEAD_BYTES + record_bytes, NULL};
    mir_status status =
        mir_state_db_status(mdb_put(log->txn, log->db->event, &k, &v, MDB_RESERVE | MDB_APPEND));
    /* Something stands behind the end of the log. */
    if (status == MIR_E_EXISTS) return MIR_E_CORRUPT;
    TRY(status);
    *place = v.mv_data;
    return MIR_OK;
}

static mir_status seal(mir_event_log *log, int64_t now_ns, uint8_t *place)
{
    mir_event_head *head = &log->head;
    log->changed = true;
    head->sequence++;
    if (now_ns > head->at_ns) head->at_ns = now_ns;
    mir_event_link(head->link, head->at_ns, place + MIR_EVENT_LEAF_AT);
    mir_state_u64_write(place + AT_AT, (uint64_t)head->at_ns);
    memcpy(place + CHECK_AT, head->link, CHECK_BYTES);
    if ((place[0] & MIR_EVENT_IS_REMOVAL) == 0) head->open_live++;
    if (head->sequence % MIR_EVENT_BLOCK != 0) return MIR_OK;
    log->completed = true;
    mir_event_block block = {.live = head->open_live};
    memcpy(block.link, head->link, sizeof block.link);
    head->open_live = 0;
    return block_write(log, head->sequence / MIR_EVENT_BLOCK - 1, &block, MDB_APPEND);
}

mir_status mir_event_log_append(mir_event_log *log, int64_t now_ns, mir_event_item *event)
{
    uint8_t *place = NULL;
    TRY(reserve(log, event->record.size, &place));
    memcpy(place, event->head, MIR_EVENT_HEAD_BYTES);
    memcpy(place + MIR_EVENT_HEAD_BYTES, event->record.data, event->record.size);
    TRY(seal(log, now_ns, place));
    event->sequence = log->head.sequence;
    event->at_ns = log->head.at_ns;
    return MIR_OK;
}

static mir_status append_record(mir_event_log *log, int64_t now_ns,
                                const MirStore__V1__EventRecord *record)
{
    uint8_t *place = NULL;
    uint8_t flags = 0;
    uint32_t terms[MIR_EVENT_TERMS];
    size_t size = mir_store__v1__event_record__get_packed_size(record);
    mir_event_describe(record, &flags, terms);
    TRY(reserve(log, size, &place));
    (void)mir_store__v1__event_record__pack(record, place + MIR_EVENT_HEAD_BYTES);
    mir_event_head_write(place, flags, terms);
    mir_event_leaf(mir_view_of(place + MIR_EVENT_HEAD_BYTES, size), place + MIR_EVENT_LEAF_AT);
    return seal(log, now_ns, place);
}

/* Who is put down: the cause's actor, else the one that goes with the operation. */
static void fill_audit(const mir_event_context *context, const char *actor,
                       MirApi__V1__EventAudit *audit, MirStore__V1__EventRecord *record)
{
    audit->actor = context->actor != NULL ? context->actor : (char *)(uintptr_t)actor;
    audit->address = context->address;
    audit->request_id = context->request_id;
    audit->outcome = (char *)(uintptr_t) "ok";
    record->audit = audit;
    record->trigger_chain = context->chain;
    record->n_trigger_chain = context->chain_count;
}

mir_status mir_event_log_change(mir_event_log *log, int64_t now_ns, mir_state_change *change,
                                const mir_event_context *context, const char *actor)
{
    const mir_event_wording *kind = mir_event_wording_of(change->kind);
    MIR_ASSERT(kind != NULL);
    MirStore__V1__DeviceRecord *device = change->after != NULL ? change->after : change->before;
    MirStore__V1__EventRecord record = MIR_STORE__V1__EVENT_RECORD__INIT;
    MirApi__V1__EventAudit audit = MIR_API__V1__EVENT_AUDIT__INIT;
    MirApi__V1__Object related = MIR_API__V1__OBJECT__INIT;
    MirApi__V1__Meta meta = MIR_API__V1__META__INIT;
    char route[MIR_DEVICE_ID_BYTES_MAX + 64];
    (void)snprintf(route, sizeof route, "event.%s.%s", device->device_id, kind->route);
    meta.name = device->name;
    meta.namespace_ = device->namespace_;
    related.api_version = (char *)(uintptr_t) "mir/v1alpha";
    related.kind = (char *)(uintptr_t) "device";
    related.meta = &meta;
    record.related = &related;
    record.route = route;
    record.has_suffix = 1;
    record.suffix = mir_event_suffix_new();
    record.type = (char *)(uintptr_t)kind->type;
    record.reason = (char *)(uintptr_t)kind->reason;
    record.message = (char *)(uintptr_t)kind->message;
    mir_bytes json = {0};
    if (mir_state_change_has_json(change->kind)) {
        TRY(mir_state_change_json(change, &json));
        record.has_json = 1;
        record.json = (ProtobufCBinaryData){json.size, json.data};
    } else {
        record.device = device;
    }
    record.has_change = 1;
    record.change = change->kind;
    fill_audit(context, actor, &audit, &record);
    audit.changes = change->diffs;
    audit.n_changes = change->diff_count;
    mir_status status = append_record(log, now_ns, &record);
    mir_bytes_free(&json);
    change->sequence = log->head.sequence;
    change->at_ns = log->head.at_ns;
    return status;
}

/* ── Removing ────────────────────────────────────────────────────────────────────────────────── */

typedef struct grave {
    uint8_t key[8], tomb[MIR_EVENT_TOMB_BYTES];
} grave;

/* Takes the event away and makes its tomb, unless there is none that could be removed. */
static mir_status dig(mir_event_log *log, uint64_t sequence, uint64_t removal, grave *made,
                      bool *done)
{
    mir_event_place place;
    *done = false;
    mir_status status = mir_event_get(log->db, log->txn, sequence, &place);
    if (status == MIR_E_NOT_FOUND) return MIR_OK;
    TRY(status);
    if ((place.flags & (MIR_EVENT_IS_TOMB | MIR_EVENT_IS_REMOVAL)) != 0) return MIR_OK;
    memcpy(made->tomb, place.head, TAIL_AT);
    made->tomb[0] = MIR_EVENT_IS_TOMB;
    mir_state_u64_write(made->tomb + TAIL_AT, removal);
    mir_state_u64_write(made->key, sequence);
    MDB_val k = {sizeof made->key, made->key};
    TRY(mir_state_db_status(mdb_del(log->txn, log->db->event, &k, NULL)));
    *done = true;
    uint64_t block = (sequence - 1) / MIR_EVENT_BLOCK;
    if (block == log->head.sequence / MIR_EVENT_BLOCK) {
        if (log->head.open_live == 0) return MIR_E_CORRUPT;
        log->head.open_live--;
        return MIR_OK;
    }
    mir_event_block state;
    status = mir_event_block_read(log->db, log->txn, block, &state);
    if (status == MIR_E_NOT_FOUND || (status == MIR_OK && state.live == 0)) return MIR_E_CORRUPT;
    TRY(status);
    state.live--;
    return block_write(log, block, &state, 0);
}

/* Only now: a value that became smaller in its place would leave its page as empty as it is, and no
 * page would ever be free again. */
static mir_status bury(mir_event_log *log, const grave *graves, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        MDB_val k = {sizeof graves[i].key, (void *)(uintptr_t)graves[i].key};
        MDB_val v = {sizeof graves[i].tomb, (void *)(uintptr_t)graves[i].tomb};
        TRY(mir_state_db_status(mdb_put(log->txn, log->db->event, &k, &v, 0)));
    }
    return MIR_OK;
}

mir_status mir_event_log_remove(mir_event_log *log, int64_t now_ns, const uint64_t *sequences,
                                size_t count, const char *why, const mir_event_context *context,
                                size_t *removed)
{
    MIR_ASSERT(count <= MIR_EVENT_SLICE);
    uint64_t ranges[2 * MIR_EVENT_SLICE];
    grave graves[MIR_EVENT_SLICE];
    size_t range_count = 0;
    uint64_t end = 0; /* of the last range */
    *removed = 0;
    TRY(load(log));
    uint64_t removal = log->head.sequence + 1;
    for (size_t i = 0; i < count; i++) {
        bool done = false;
        TRY(dig(log, sequences[i], removal, &graves[*removed], &done));
        if (!done) continue;
        ++*removed;
        MIR_ASSERT(sequences[i] > end);
        if (range_count != 0 && sequences[i] == end + 1) {
            ranges[range_count - 1]++;
        } else {
            ranges[range_count++] = sequences[i] - end - 1;
            ranges[range_count++] = 1;
        }
        end = sequences[i];
    }
    if (*removed == 0) return MIR_OK;
    TRY(bury(log, graves, *removed));
    MirStore__V1__EventRecord record = MIR_STORE__V1__EVENT_RECORD__INIT;
    MirStore__V1__EventRemoval told = MIR_STORE__V1__EVENT_REMOVAL__INIT;
    MirApi__V1__EventAudit audit = MIR_API__V1__EVENT_AUDIT__INIT;
    fill_audit(context, "server", &audit, &record);
    told.why = (char *)(uintptr_t)why;
    told.has_count = 1;
    told.count = *removed;
    told.n_ranges = range_count;
    told.ranges = ranges;
    record.removal = &told;
    log->head.removed += *removed;
    log->head.removals++;
    return append_record(log, now_ns, &record);
}
