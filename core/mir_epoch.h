/* SPDX-License-Identifier: Apache-2.0 */
/* mir_epoch: memory that lock-free readers may still see is freed when none of them can.
 *
 * Why        The subject trie is read by every shard without locks while one of them changes it.
 * Ownership  A retired object belongs to the epoch until its `free_fn` runs, on the retiring thread.
 * Affinity   A record is used by one thread. enter/leave bracket every read of shared structures;
 *            a shard holds it for a turn and leaves before it sleeps, so that it stalls nobody.
 * Bounds     enter, leave: no system call, no loop. poll: frees what has become free.
 * Errors     create, register: MIR_E_NO_MEMORY. register: MIR_E_FULL beyond 128 records.
 * Source     Concurrency Kit's ck_epoch; compiled without ThreadSanitizer and annotated. */
#ifndef MIR_EPOCH_H
#define MIR_EPOCH_H

#include "mir_status.h"

typedef struct mir_epoch mir_epoch;
typedef struct mir_epoch_record mir_epoch_record;
typedef struct mir_epoch_entry {
    void *opaque[2];
    void (*free_fn)(struct mir_epoch_entry *entry);
} mir_epoch_entry;

MIR_MUST_CHECK mir_status mir_epoch_create(mir_epoch **epoch);
/* Nobody reads any more: runs what is still retired. */
void mir_epoch_destroy(mir_epoch *epoch);
MIR_MUST_CHECK mir_status mir_epoch_register(mir_epoch *epoch, mir_epoch_record **record);
void mir_epoch_enter(mir_epoch_record *record);
void mir_epoch_leave(mir_epoch_record *record);
void mir_epoch_retire(mir_epoch_record *record, mir_epoch_entry *entry,
                      void (*free_fn)(mir_epoch_entry *entry));
void mir_epoch_poll(mir_epoch_record *record);

#endif
