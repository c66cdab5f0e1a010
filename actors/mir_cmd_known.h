/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cmd_known: the devices that commands went to last, remembered where the commands arrive.
 *
 * Why        A command to one device spent most of its way in being looked up: to a worker that reads
 *            the store, and back. The shard that remembers the device sends it at once.
 * Ownership  The table owns its entries, an entry its texts and a reference to the schema.
 * Affinity   make: any thread. Everything else: the shard whose table it is.
 * Bounds     MIR_CMD_KNOWN_MAX entries in a table, and as many schemas.
 * Errors     None: what is not known is read.
 *
 * What an entry says holds while the store's count for its target stands where it stood before the
 * device was read (mir_state_changes_of_id). The store counts before it says that a change is done, so
 * a command after the answer to a change sees it. */
#ifndef MIR_CMD_KNOWN_H
#define MIR_CMD_KNOWN_H

#include "mir_arena.h"
#include "mir_schema.h"
#include "mir_shard.h"
#include "mir_state.h"

enum { MIR_CMD_KNOWN_MAX = 256 };

/* What a target says that means one device at most: its id, or its name with its namespace. */
typedef struct mir_cmd_known_key {
    mir_view id; /* empty: by name */
    mir_view name, name_space;
} mir_cmd_known_key;

typedef struct mir_cmd_known_entry {
    mir_post post; /* for the maker, on its way to the shard */
    uint64_t hash;
    uint64_t changes;
    mir_cmd_known_key key;
    mir_schema *schema;
    /* With the device's id, name and namespace, and whether it is disabled; no more. */
    MirStore__V1__DeviceRecord record;
    uint8_t hash_of_schema[MIR_STATE_HASH_BYTES];
    char texts[];
} mir_cmd_known_entry;

typedef struct mir_cmd_known {
    mir_cmd_known_entry *entries[MIR_CMD_KNOWN_MAX]; /* each has one place */
} mir_cmd_known;

/* False when the target may mean more than one device, or is more than an id or a name. */
bool mir_cmd_known_key_of(const MirApi__V1__DeviceTarget *target, mir_cmd_known_key *key);
/* Where the store's count for it stands. */
uint64_t mir_cmd_known_changes(const mir_state *state, const mir_cmd_known_key *key);

/* `changes` was read before `record` was. Null without memory, or for a device without a schema. */
mir_cmd_known_entry *mir_cmd_known_make(const mir_cmd_known_key *key, uint64_t changes,
                                        const MirStore__V1__DeviceRecord *record,
                                        mir_schema *schema);
void mir_cmd_known_entry_free(mir_cmd_known_entry *entry);

/* Takes the entry; what had its place goes. */
void mir_cmd_known_put(mir_cmd_known *known, mir_cmd_known_entry *entry);
/* Null when it is not known, or no longer: `changes` is where the count stands now. */
const mir_cmd_known_entry *mir_cmd_known_find(mir_cmd_known *known, const mir_cmd_known_key *key,
                                              uint64_t changes);
/* The record for a request that may outlive the entry; null without memory. */
MirStore__V1__DeviceRecord *mir_cmd_known_record(const mir_cmd_known_entry *entry,
                                                 mir_arena *arena);
/* A null pointer is fine. */
void mir_cmd_known_free(mir_cmd_known *known);

#endif
