/* SPDX-License-Identifier: Apache-2.0 */
/* mir_line: the text of Influx line protocol, piece by piece.
 *
 * Why        Export writes it for files, the sink for other systems: one place knows what has to be
 *            escaped.
 *
 *              measurement,tag=value field=1.5,other="text" 1700000000000000000\n
 *
 * Ownership  Text is appended to the caller's buffer; nothing is kept.
 * Affinity   Any thread.
 * Units      Nanoseconds since 1970 UTC.
 * Bounds     Those of the buffer.
 * Errors     MIR_E_UNSUPPORTED: line protocol has no form for a name with a line end or a
 *            backslash; nothing is appended. Whether there was memory, mir_bytes_ok tells.
 * Source     InfluxDB's line protocol: `i` stands behind integers, `u` behind those that only an
 *            unsigned one can be, which InfluxDB 1 does not have. Doubles are the shortest ones that
 *            read back the same. Line ends stay as they are inside of texts. In the
 *            name of a field a quote is escaped, too: InfluxDB takes both for the same name,
 *            VictoriaMetrics keeps the backslash in it, but passes over a row without it. */
#ifndef MIR_LINE_H
#define MIR_LINE_H

#include "mir_bytes.h"
#include "mir_row.h"

MIR_MUST_CHECK mir_status mir_line_measurement(mir_view name, mir_bytes *out, mir_error *error);
/* With its comma. An empty value has no form either. */
MIR_MUST_CHECK mir_status mir_line_tag(mir_view key, mir_view value, mir_bytes *out,
                                       mir_error *error);
/* With the space before the first, or the comma before another one. */
MIR_MUST_CHECK mir_status mir_line_field(mir_view name, mir_column_type type, const mir_cell *value,
                                         bool first, mir_bytes *out, mir_error *error);
/* With the line's end. */
void mir_line_end(int64_t time_ns, mir_bytes *out);
/* NaN, Infinity, -Infinity where it is none. */
void mir_line_double(double value, mir_bytes *out);

#endif
