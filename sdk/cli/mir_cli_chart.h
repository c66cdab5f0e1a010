/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_chart: the answer to a query of telemetry as series that can be drawn.
 *
 * Why        A table is by rows, a chart by devices and fields; sparklines below a table and a
 *            chart of its own are made of the same series.
 * Ownership  mir_cli_chart_gather fills a zeroed chart, mir_cli_chart_free empties it. It points
 *            into the answer, which has to outlive it.
 * Affinity   The main thread.
 * Units      Nanoseconds since 1970.
 * Bounds     What the answer has.
 * Errors     MIR_E_NO_MEMORY. */
#ifndef MIR_CLI_CHART_H
#define MIR_CLI_CHART_H

#include "mir_api/v1/tlm.pb-c.h"
#include "mir_cli_plot.h"

#include <jansson.h>

typedef struct mir_cli_chart_series {
    const char *owner; /* what the second column says: a device's id, or a group */
    size_t column;     /* of the answer */
    mir_cli_plot_point *points;
    size_t *rows; /* of the answer, from which the points are */
    size_t count, capacity;
} mir_cli_chart_series;

typedef struct mir_cli_chart {
    mir_cli_chart_series *series; /* owners in order of appearance, their fields in order */
    size_t count;
    size_t owners;
    size_t not_finite; /* values that have no place on an axis: NaN and infinities */
} mir_cli_chart;

/* Whether values of the column are numbers, or true and false, which are drawn as 1 and 0. */
bool mir_cli_chart_is_drawable(const MirApi__V1__QueryTelemetry *from, size_t column);
/* Series without a value are left out. */
MIR_MUST_CHECK mir_status mir_cli_chart_gather(const MirApi__V1__QueryTelemetry *from,
                                               mir_cli_chart *to);
void mir_cli_chart_free(mir_cli_chart *chart);

/* "int32", "double", ...: what a column's values are. */
const char *mir_cli_chart_type(const MirApi__V1__QueryTelemetry *from, size_t column);

/* A line for each series, while these are few: what it is called and its course. `window_ns` is 0
 * for rows as they are. Returns how many lines there were. */
size_t mir_cli_chart_print_sparks(const MirApi__V1__QueryTelemetry *from, int64_t window_ns,
                                  size_t columns, bool colours);

#endif
