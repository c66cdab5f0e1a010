/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlm_ask: what a query of telemetry asks for beyond devices, times and fields.
 *
 * Why        Functions, groups, pages and points come as texts and numbers of a client; the log wants
 *            them checked and numbered.
 * Ownership  What is made lives in the arena; devices' records are pointed to.
 * Affinity   Any thread; no state.
 * Bounds     MIR_TLM_FUNCTIONS_MAX functions; a cursor MIR_TLM_CURSOR_BYTES_MAX bytes.
 * Errors     MIR_E_INVALID with a text for whoever asked, MIR_E_NO_MEMORY. */
#ifndef MIR_TLM_ASK_H
#define MIR_TLM_ASK_H

#include "mir_api/v1/tlm.pb-c.h"
#include "mir_arena.h"
#include "mir_store/v1/store.pb-c.h"
#include "mir_tlog.h"

enum { MIR_TLM_FUNCTIONS_MAX = 16 };

typedef struct mir_tlm_groups {
    const char *header;    /* null: rows are of devices */
    const mir_view *names; /* by group number, ascending */
} mir_tlm_groups;

/* Completes a spec that has its devices (one for each record), measurement, fields, range and
 * window. `groups` says what the numbers in the answer mean when they are not devices. */
MIR_MUST_CHECK mir_status mir_tlm_ask(const MirApi__V1__QueryTelemetryRequest *input,
                                      MirStore__V1__DeviceRecord *const *records, size_t count,
                                      mir_arena *arena, mir_tlog_query_spec *spec,
                                      mir_tlm_groups *groups, mir_error *error);

/* A column of the answer as it was asked for: `max(t)` is the function max of the field t; with one
 * function the columns have the fields' names. *function is 0 for rows as they are. */
mir_view mir_tlm_ask_field(const mir_tlog_query_spec *spec, mir_view column,
                           mir_tlog_function *function);

#endif
