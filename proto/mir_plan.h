/* SPDX-License-Identifier: Apache-2.0 */
/* mir_plan: from the wire bytes of one message type to a row of typed columns, in one pass.
 *
 * Why        Telemetry is decoded by a schema that is known only at run time; everything that the
 *            schema decides is decided once, when the plan is compiled.
 * Ownership  A plan is immutable and reference-counted. It keeps nothing of the schema: columns are
 *            copied. What a decoded row points to belongs to the payload or to the row.
 * Affinity   Any thread; each row one thread at a time.
 * Units      receive_ns, mir_row.time_ns: nanoseconds since 1970-01-01 UTC.
 * Bounds     MIR_PLAN_COLUMNS_MAX columns, MIR_PLAN_MESSAGES_MAX places where a message type stands
 *            in the tree, MIR_PLAN_DEPTH_MAX levels. A recursive type ends where it would be
 * entered a second time on the same path: what is below is skipped. Decoding allocates nothing.
 * Errors     compile: MIR_E_TOO_LARGE over a bound, MIR_E_NO_MEMORY. decode: MIR_E_INVALID for
 *            malformed bytes, MIR_E_TOO_LARGE when the row's dynamic cells or scratch are used up,
 *            MIR_E_EMPTY when not one field has a value. After a failure the row's content counts
 *            for nothing.
 *
 * What becomes of a field
 *   integers I64 or U64 by their sign, enums U64 (a negative number is left out), float and double
 *   F64 with NaN and infinities kept, bool, string; bytes as STRING in base64. Fields of nested
 *   messages are columns `a.b`; list elements and map entries are dynamic cells `f_0`, `f_0.sub`,
 *   `f_key`, `f_true`. Strings are not checked to be UTF-8. Groups are skipped.
 *   Plain proto3 scalars are present with their default when unset, also inside a message that is
 *   unset; those with presence (optional, oneof, proto2) only when set. Setting a member of a oneof
 *   unsets the others. The last of several values of a singular field wins; several occurrences
 *   of one message merge; map entries with the same key are each reported, the last one later. */
#ifndef MIR_PLAN_H
#define MIR_PLAN_H

#include "mir_row.h"
#include "mir_schema.h"

typedef struct mir_plan mir_plan;

enum {
    MIR_PLAN_COLUMNS_MAX = MIR_ROW_COLUMNS_MAX_DEFAULT,
    MIR_PLAN_MESSAGES_MAX = 4096,
    MIR_PLAN_DEPTH_MAX = 32,
};

MIR_MUST_CHECK mir_status mir_plan_compile(const mir_schema *schema,
                                           const mir_schema_message *message, mir_plan **plan,
                                           mir_error *error);
mir_plan *mir_plan_ref(mir_plan *plan);
/* Null is allowed. */
void mir_plan_unref(mir_plan *plan);

/* In declaration order, nested fields in the place of the field that holds them. */
const mir_column *mir_plan_columns(const mir_plan *plan, uint32_t *count);

/* `row` has room for at least the plan's columns. row->time_ns is the message's own time, or
 * receive_ns when it has none, zero, or one that does not fit. */
MIR_MUST_CHECK mir_status mir_plan_decode(const mir_plan *plan, mir_view payload,
                                          int64_t receive_ns, mir_row *row);

#endif
