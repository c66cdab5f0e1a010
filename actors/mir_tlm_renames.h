/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlm_renames: telemetry of a field that had another name in an earlier version of a schema.
 *
 * Why        Rows are stored by the names that fields had. A field that was renamed has kept its
 *            number (mir_field_names.h), and a query is answered under one name.
 *
 *              fields are asked for     all that the field was ever called is answered under the name
 *                                       that was asked for, today's or an earlier one
 *              all fields               under today's name, unless one of the devices still says the
 *                                       earlier one: then each has its column
 *
 * Ownership  What is added to the query is in the arena.
 * Affinity   Worker threads: it reads the store and the telemetry log.
 * Bounds     MIR_TLM_RENAMES_SCHEMAS_MAX different schemas of the devices are looked at, and
 *            MIR_TLM_RENAMES_MAX names renamed; further ones are answered as they are stored.
 * Errors     MIR_E_NO_MEMORY and those of the store and the log, with a text. */
#ifndef MIR_TLM_RENAMES_H
#define MIR_TLM_RENAMES_H

#include "mir_schemas.h"
#include "mir_tlog.h"

enum { MIR_TLM_RENAMES_SCHEMAS_MAX = 16, MIR_TLM_RENAMES_MAX = 256 };

typedef struct mir_tlm_sources {
    mir_state *state;
    mir_schemas *schemas; /* null: nothing is renamed */
    mir_tlog *tlog;
} mir_tlm_sources;

/* Sets the renames of a query of `spec->measurement` and `spec->fields` about these devices. */
MIR_MUST_CHECK mir_status mir_tlm_renames(const mir_tlm_sources *sources,
                                          MirStore__V1__DeviceRecord *const *devices, size_t count,
                                          mir_arena *arena, mir_tlog_query_spec *spec,
                                          mir_error *error);

/* What a stored name is answered under. */
mir_view mir_tlm_renamed(const mir_tlog_query_spec *spec, mir_view stored);

#endif
