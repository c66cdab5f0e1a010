/* SPDX-License-Identifier: Apache-2.0 */
/* mir_state_db: the databases of the state store and how records and indexes stay together.
 *
 * Why        A record is never written without its indexes: one function takes the state before and
 *            after, and writes what differs.
 * Ownership  Records are in the caller's arena; nothing here points into the map.
 * Affinity   Read functions: any thread with a transaction of its own. Write functions: the writer.
 * Bounds     Keys fit LMDB's 511 bytes as long as mir_device_rules.h accepted what is in them.
 * Errors     Statuses; mir_state_db.error_rc is not kept: the text is made from the status where it
 *            is needed. MIR_E_CORRUPT: indexes and records disagree, or a record does not unpack.
 * Source     docs/formats/state.md. */
#ifndef MIR_STATE_DB_H
#define MIR_STATE_DB_H

#include <lmdb.h>

#include "mir_state.h"

typedef struct mir_state_db {
    MDB_env *env;
    MDB_dbi meta;
    MDB_dbi device;
    MDB_dbi id;
    MDB_dbi name;
    MDB_dbi name_space;
    MDB_dbi label;
    MDB_dbi package;
    MDB_dbi online;
    MDB_dbi schema;
    MDB_dbi schema_refs;
    MDB_dbi schema_unused;
    MDB_dbi field_names;
    MDB_dbi event;
    MDB_dbi event_block;
    MDB_dbi event_index;
    MDB_dbi event_name;
    MDB_dbi command;
    MDB_dbi command_waiting;
    MDB_dbi command_due;
    int lock_fd;
    uint64_t map_bytes; /* what ordinary writes may fill */
    uint64_t event_names_max;
    uint64_t reserve_bytes;     /* beyond it, for what makes room again */
    uint64_t deletes_max_bytes; /* what is stored once devices were deleted, their events with it */
    uint64_t
        *changed; /* the writer's: which counts of changes its transaction moves; may be null */
} mir_state_db;

enum {
    MIR_STATE_KEY_BYTES_MAX = 511,
    MIR_STATE_LABEL_INLINE_BYTES_MAX = 256, /* longer values are indexed by their hash */
    MIR_STATE_LABEL_HASH_BYTES = 16,
    MIR_STATE_CHANGE_COUNTS = 4096, /* of devices, by their ids and names; multiples of 64 */
    MIR_STATE_COUNT_OF_FLEET = MIR_STATE_CHANGE_COUNTS, /* and one of all of them */
    MIR_STATE_CHANGE_WORDS = MIR_STATE_CHANGE_COUNTS / 64 + 1,
    MIR_STATE_LABEL_HASHED = 1, /* first byte of the value part; no value begins with it */
};

/* A key that is being built; `failed` when it would not fit. */
typedef struct mir_state_key {
    uint8_t data[MIR_STATE_KEY_BYTES_MAX];
    size_t size;
    bool failed;
} mir_state_key;

void mir_state_key_view(mir_state_key *key, mir_view view);
void mir_state_key_u8(mir_state_key *key, uint8_t byte);
void mir_state_key_u64(mir_state_key *key, uint64_t value);

/* Which count of changes a device has by its id, and which by its name. */
unsigned mir_state_count_of_id(mir_view id);
unsigned mir_state_count_of_name(mir_view name, mir_view name_space);

uint64_t mir_state_u64_read(const void *data);
void mir_state_u64_write(void *data, uint64_t value);

MIR_MUST_CHECK mir_status mir_state_db_open(const char *path, uint64_t map_bytes,
                                            mir_state_sync sync, mir_state_db *db,
                                            mir_error *error);
void mir_state_db_close(mir_state_db *db);
/* To read alone, also while another process has it open to write; databases that an older format
 * lacks stay 0. MIR_E_NOT_FOUND: there is none. */
MIR_MUST_CHECK mir_status mir_state_db_open_reader(const char *path, mir_state_db *db,
                                                   mir_error *error);

/* From a return code of LMDB, and the text that belongs to a status of a failed write or read. */
mir_status mir_state_db_status(int rc);
void mir_state_db_explain(const mir_state_db *db, mir_status status, mir_error *error);

/* The pages that hold something, as the transaction sees them: less than the file, which keeps its
 * size when things go. */
uint64_t mir_state_db_used_bytes(const mir_state_db *db, MDB_txn *txn);

/* Lookups: MIR_E_NOT_FOUND when there is none. */
MIR_MUST_CHECK mir_status mir_state_db_find_id(const mir_state_db *db, MDB_txn *txn, mir_view id,
                                               uint64_t *number);
MIR_MUST_CHECK mir_status mir_state_db_find_name(const mir_state_db *db, MDB_txn *txn,
                                                 mir_view name, mir_view name_space,
                                                 uint64_t *number);
MIR_MUST_CHECK mir_status mir_state_db_load(const mir_state_db *db, MDB_txn *txn, uint64_t number,
                                            mir_arena *arena, MirStore__V1__DeviceRecord **record);

/* Gives out `count` numbers, the first of which is `*first`. */
MIR_MUST_CHECK mir_status mir_state_db_take_numbers(const mir_state_db *db, MDB_txn *txn,
                                                    uint64_t count, uint64_t *first);
/* Writes the change: before null is a creation, after null a deletion. Counts after->version up if
 * anything but the time of the last heartbeat differs, and writes nothing if nothing does. */
MIR_MUST_CHECK mir_status mir_state_db_store(const mir_state_db *db, MDB_txn *txn,
                                             const MirStore__V1__DeviceRecord *before,
                                             MirStore__V1__DeviceRecord *after, int64_t now_ns);

MIR_MUST_CHECK mir_status mir_state_db_schema_load(const mir_state_db *db, MDB_txn *txn,
                                                   mir_view hash, mir_arena *arena,
                                                   MirStore__V1__SchemaRecord **record);
MIR_MUST_CHECK mir_status mir_state_db_schema_exists(const mir_state_db *db, MDB_txn *txn,
                                                     mir_view hash);
MIR_MUST_CHECK mir_status mir_state_db_schema_put(const mir_state_db *db, MDB_txn *txn,
                                                  mir_view hash,
                                                  const MirStore__V1__SchemaRecord *record);
/* Removes schemas that no device has had since `before_ns`, at most `count_max` of them. */
MIR_MUST_CHECK mir_status mir_state_db_schema_sweep(const mir_state_db *db, MDB_txn *txn,
                                                    int64_t before_ns, unsigned count_max);

int64_t mir_state_time_ns(const MirStore__V1__Time *time);
MirStore__V1__Time *mir_state_time_new(mir_arena *arena, int64_t ns);

/* Appends `<key> 0 <value> 0`, or `<key> 0 1 <hash>` for a long value: the part of a label's index
 * key that stands before the number. */
void mir_state_key_label(mir_state_key *key, mir_view label, mir_view value);

/* Compares every index with every record; for tests and repair tools. */
MIR_MUST_CHECK mir_status mir_state_db_check(const mir_state_db *db, MDB_txn *txn,
                                             mir_error *error);

#endif
