/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_cell: one value of an answer to a query of telemetry, as text and as JSON.
 *
 * Why        A table, CSV, JSON and a chart show the same value; none of them is to show another.
 * Ownership  Texts and bytes stay with the answer.
 * Affinity   Any thread.
 * Units      Nanoseconds since 1970.
 * Bounds     What a message holds.
 * Errors     Without memory the text has failed (mir_bytes_ok) and the JSON is null. */
#ifndef MIR_CLI_CELL_H
#define MIR_CLI_CELL_H

#include "mir_api/v1/tlm.pb-c.h"
#include "mir_bytes.h"

#include <jansson.h>

typedef enum mir_cli_cell_kind {
    MIR_CELL_EMPTY,
    MIR_CELL_INT,
    MIR_CELL_UINT,
    MIR_CELL_REAL,
    MIR_CELL_BOOL,
    MIR_CELL_TEXT,
    MIR_CELL_BYTES,
    MIR_CELL_TIME
} mir_cli_cell_kind;

typedef struct mir_cli_cell {
    mir_cli_cell_kind kind;
    int64_t integer; /* MIR_CELL_TIME: nanoseconds */
    uint64_t natural;
    double real;
    bool truth;
    bool single; /* `real` came as a float */
    const char *text;
    mir_view bytes;
} mir_cli_cell;

/* `point` may be null: an empty cell. */
mir_cli_cell mir_cli_cell_of(const MirApi__V1__QueryTelemetry__Row__DataPoint *point);
/* Real numbers as the shortest text that reads back as the same, or with `decimals` from 0. */
void mir_cli_cell_text(const mir_cli_cell *from, int decimals, mir_bytes *out);
/* Quoted where CSV needs it. */
void mir_cli_cell_csv(const mir_cli_cell *from, mir_bytes *out);
/* Null for an empty one; text for what JSON has no number for. */
json_t *mir_cli_cell_json(const mir_cli_cell *from);

#endif
