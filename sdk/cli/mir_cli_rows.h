/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_rows: rows of telemetry as text, one at a time: CSV, JSON lines, Influx line protocol.
 *
 * Why        export and watch write rows in the same forms, and import reads two of them back:
 *            nothing may be lost on the way.
 * Ownership  Rows point to what the caller has; text is appended to the caller's buffer.
 * Affinity   Any thread.
 * Units      Nanoseconds since 1970 UTC.
 * Bounds     Those of the buffer.
 * Errors     MIR_E_UNSUPPORTED: line protocol has no form for a name with a line end or a
 *            backslash. Whether there was memory, mir_bytes_ok tells.
 * Source     CSV: RFC 4180; a value that is absent is an empty cell, an empty text is `""`. Numbers
 *            are the shortest ones that read back the same; NaN, Infinity, -Infinity. In JSON
 *            these are texts, integers have all their digits. Line protocol: that of InfluxDB, with
 *            `i` behind integers and `u` behind those that only an unsigned one can be; line ends stay
 *            as they are inside of texts. */
#ifndef MIR_CLI_ROWS_H
#define MIR_CLI_ROWS_H

#include "mir_bytes.h"
#include "mir_row.h"

typedef struct mir_cli_row_cell {
    mir_view name;
    mir_column_type type;
    bool present;
    mir_cell value;
} mir_cli_row_cell;

typedef struct mir_cli_row {
    int64_t time_ns;
    mir_view device_id;
    mir_view measurement;
    const mir_cli_row_cell *cells;
    size_t count;
} mir_cli_row;

typedef enum mir_cli_rows_format {
    MIR_ROWS_CSV,
    MIR_ROWS_JSONL,
    MIR_ROWS_LINE,
} mir_cli_rows_format;

/* Columns of CSV before those of the fields. */
#define MIR_ROWS_TIME        "_time"
#define MIR_ROWS_DEVICE      "__id"
#define MIR_ROWS_MEASUREMENT "_measurement"

/* Of CSV, with its line end. */
void mir_cli_rows_header(const mir_cli_row_cell *cells, size_t count, mir_bytes *out);
/* One row with its line end. Of line protocol nothing when no cell has a value. */
MIR_MUST_CHECK mir_status mir_cli_rows_write(mir_cli_rows_format format, const mir_cli_row *row,
                                             mir_bytes *out, mir_error *error);
/* A value as people read it, without quotes. */
void mir_cli_rows_value(const mir_cli_row_cell *cell, mir_bytes *out);

#endif
