/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_epoch.h"

#include <ck_epoch.h>
#include <stdlib.h>

#include "mir_assert.h"
#include "mir_tsan.h"

enum { RECORDS_MAX = 128 };

/* What the annotations speak of, for all epochs: what is dispatched does not know its own. */
static char reads_ended;

struct mir_epoch_record {
    ck_epoch_record_t record;
    mir_epoch *epoch;
    unsigned pending; /* retired and not yet dispatched: poll is skipped when there are none */
};

struct mir_epoch {
    ck_epoch_t epoch;
    mir_epoch_record *records[RECORDS_MAX];
    unsigned record_count;
};

_Static_assert(sizeof(mir_epoch_entry) >= sizeof(ck_epoch_entry_t) + sizeof(void *),
               "an entry holds ck's entry and our function");

mir_status mir_epoch_create(mir_epoch **epoch)
{
    mir_epoch *fresh = calloc(1, sizeof *fresh);
    if (fresh == NULL) return MIR_E_NO_MEMORY;
    ck_epoch_init(&fresh->epoch);
    *epoch = fresh;
    return MIR_OK;
}

void mir_epoch_destroy(mir_epoch *epoch)
{
    if (epoch == NULL) return;
    for (unsigned i = 0; i < epoch->record_count; i++) {
        ck_epoch_barrier(&epoch->records[i]->record);
    }
    for (unsigned i = 0; i < epoch->record_count; i++) free(epoch->records[i]);
    free(epoch);
}

mir_status mir_epoch_register(mir_epoch *epoch, mir_epoch_record **record)
{
    if (epoch->record_count == RECORDS_MAX) return MIR_E_FULL;
    size_t size = (sizeof(mir_epoch_record) + 63) & ~(size_t)63;
    mir_epoch_record *fresh = aligned_alloc(64, size);
    if (fresh == NULL) return MIR_E_NO_MEMORY;
    *fresh = (mir_epoch_record){.epoch = epoch};
    ck_epoch_register(&epoch->epoch, &fresh->record, NULL);
    epoch->records[epoch->record_count++] = fresh;
    *record = fresh;
    return MIR_OK;
}

void mir_epoch_enter(mir_epoch_record *record)
{
    ck_epoch_begin(&record->record, NULL);
}

void mir_epoch_leave(mir_epoch_record *record)
{
    MIR_TSAN_RELEASE(&reads_ended);
    (void)ck_epoch_end(&record->record, NULL);
}

static void dispatch(ck_epoch_entry_t *entry)
{
    mir_epoch_entry *ours = (mir_epoch_entry *)(void *)entry;
    /* Every reader's leave happened before; it may have been as late as during the poll, so an
     * annotation in front of that would miss it. */
    MIR_TSAN_ACQUIRE(&reads_ended);
    ours->free_fn(ours);
}

void mir_epoch_retire(mir_epoch_record *record, mir_epoch_entry *entry,
                      void (*free_fn)(mir_epoch_entry *entry))
{
    MIR_ASSERT(free_fn != NULL);
    entry->free_fn = free_fn;
    record->pending++;
    ck_epoch_call(&record->record, (ck_epoch_entry_t *)(void *)entry, dispatch);
}

void mir_epoch_poll(mir_epoch_record *record)
{
    if (record->pending == 0) return;
    (void)ck_epoch_poll(&record->record);
    record->pending = record->record.n_pending;
}
