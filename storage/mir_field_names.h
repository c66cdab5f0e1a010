/* SPDX-License-Identifier: Apache-2.0 */
/* mir_field_names: which names the fields of telemetry messages have had.
 *
 * Why        Telemetry is stored by the names of fields, and a new version of a schema may give a
 *            field another name. Its number says that it is the same. Schemas that nobody has any
 *            more are removed, so the names are kept beside them.
 * Ownership  Records are in the caller's arena.
 * Affinity   note, begin: the writer's transaction, or before there is a writer. get: any thread.
 * Bounds     MIR_FIELD_NAMES_TYPES_MAX types, of MIR_FIELD_NAMES_FIELDS_MAX fields and
 *            MIR_FIELD_NAMES_BYTES_MAX in all, MIR_FIELD_NAMES_KEPT names of a field: what is
 *            beyond is not noted.
 * Errors     note: as a write of the store. A schema that cannot be read is passed over: it is
 *            refused, or reported, where it is used. */
#ifndef MIR_FIELD_NAMES_H
#define MIR_FIELD_NAMES_H

#include "mir_state_db.h"

enum {
    MIR_FIELD_NAMES_TYPES_MAX = 65536,
    MIR_FIELD_NAMES_FIELDS_MAX = 2048,
    MIR_FIELD_NAMES_KEPT = 8,
    MIR_FIELD_NAMES_BYTES_MAX = 64 * 1024,
};

/* A schema that is new to the store, compressed. */
MIR_MUST_CHECK mir_status mir_field_names_note(const mir_state_db *db, MDB_txn *txn,
                                               mir_view compressed);
/* Notes all schemas of a store that was written before names were kept, once. */
MIR_MUST_CHECK mir_status mir_field_names_begin(const mir_state_db *db, mir_error *error);
/* By the type's full name. MIR_E_NOT_FOUND: it was in no telemetry. */
MIR_MUST_CHECK mir_status mir_field_names_get(mir_state *state, mir_view type, mir_arena *arena,
                                              MirStore__V1__FieldNames **names, mir_error *error);

#endif
