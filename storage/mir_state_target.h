/* SPDX-License-Identifier: Apache-2.0 */
/* mir_state_target: which devices a target means.
 *
 * Why        Lists, updates, deletes and counts share one answer. Clauses are intersected over
 *            indexes; as soon as few candidates are left, the rest is decided on their records.
 *
 *              ids, names, namespaces, label values   no `*`: exact; otherwise a glob over index
 * keys schemas                                exact a label value that is empty            devices
 * without the label, or with it empty
 *
 * Ownership  The caller frees `numbers` with free().
 * Affinity   Any thread, with its own transaction.
 * Bounds     MIR_STATE_TARGET_VALUES_MAX values, of these MIR_STATE_TARGET_SCANS_MAX that need a
 *            scan (patterns, empty label values); MIR_STATE_TARGET_PATTERN_BYTES_MAX each.
 * Errors     MIR_E_TOO_LARGE beyond the bounds, with a text; otherwise those of the store. */
#ifndef MIR_STATE_TARGET_H
#define MIR_STATE_TARGET_H

#include "mir_state_db.h"

enum {
    MIR_STATE_TARGET_VALUES_MAX = 65536,
    MIR_STATE_TARGET_SCANS_MAX = 64,
    MIR_STATE_TARGET_PATTERN_BYTES_MAX = 2048,
    MIR_STATE_TARGET_FEW = 256, /* candidates that are cheaper to look at than to intersect */
};

typedef struct mir_state_numbers {
    uint64_t *items; /* ascending, each once */
    size_t count;
    size_t capacity;
} mir_state_numbers;

/* `*exact` false: the numbers are candidates, and each record is still to be asked. */
MIR_MUST_CHECK mir_status mir_state_target_candidates(const mir_state_db *db, MDB_txn *txn,
                                                      const MirApi__V1__DeviceTarget *target,
                                                      mir_state_numbers *numbers, bool *exact,
                                                      mir_error *error);
bool mir_state_target_matches(const MirApi__V1__DeviceTarget *target,
                              const MirStore__V1__DeviceRecord *record);

/* Both in one: the records that match, by namespace and name. */
MIR_MUST_CHECK mir_status mir_state_target_load(const mir_state_db *db, MDB_txn *txn,
                                                const MirApi__V1__DeviceTarget *target,
                                                mir_arena *arena,
                                                MirStore__V1__DeviceRecord ***records,
                                                size_t *count, mir_error *error);

/* By namespace and name. */
void mir_state_target_sort(MirStore__V1__DeviceRecord **records, size_t count);

#endif
