/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_blocks: rows out of the blocks of columns in which a server streams telemetry.
 *
 * Why        What a server sends is held against what it says of itself before a value is taken: fewer
 *            values than rows, or a type of a later server, are an error and no wrong row.
 * Ownership  Cells point into the block, which is the caller's.
 * Affinity   Any thread.
 * Units      Nanoseconds since 1970 UTC.
 * Errors     MIR_E_CORRUPT, and what `row` returns; a text for the user. */
#ifndef MIR_CLI_BLOCKS_H
#define MIR_CLI_BLOCKS_H

#include "mir_api/v1/tlm.pb-c.h"
#include "mir_cli_rows.h"
#include "mir_status.h"

/* 0: one that this program does not know. */
mir_column_type mir_cli_blocks_type(MirApi__V1__DataType type);

/* Sets value and presence of cells[places[i]], whose type is that of column i, for each column of the
 * block, and calls `row`, for each row. `next` has room for a number for each column. */
MIR_MUST_CHECK mir_status mir_cli_blocks_rows(
    const MirApi__V1__TelemetryBlock *block, mir_cli_row_cell *cells, const size_t *places,
    size_t *next, mir_status (*row)(void *context, int64_t time_ns, mir_error *error),
    void *context, mir_error *error);

#endif
