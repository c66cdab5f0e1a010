/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_chart.h"

#include "mir_cli_cell.h"
#include "mir_cli_table.h"
#include "mir_cli_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SPARKS_MAX = 16, SPARK_COLUMNS_MAX = 60, SPARK_POINTS_MIN = 3, NAME_COLUMNS_MAX = 40 };

const char *mir_cli_chart_type(const MirApi__V1__QueryTelemetry *from, size_t column)
{
    static const char *const names[] = {"unspecified", "int32",    "int64",   "sint32",  "sint64",
                                        "uint32",      "uint64",   "fixed32", "fixed64", "sfixed32",
                                        "sfixed64",    "float",    "double",  "bool",    "string",
                                        "bytes",       "timestamp"};
    size_t at = column < from->n_datatypes ? (size_t)from->datatypes[column] : 0;
    return at < sizeof names / sizeof names[0] ? names[at] : "unspecified";
}

bool mir_cli_chart_is_drawable(const MirApi__V1__QueryTelemetry *from, size_t column)
{
    switch (column < from->n_datatypes ? from->datatypes[column] : 0) {
    case MIR_API__V1__DATA_TYPE__DATA_TYPE_STRING:
    case MIR_API__V1__DATA_TYPE__DATA_TYPE_BYTES:
    case MIR_API__V1__DATA_TYPE__DATA_TYPE_TIMESTAMP: return false;
    default: return true;
    }
}

static bool number_of(const MirApi__V1__QueryTelemetry__Row *row, size_t column, double *value)
{
    mir_cli_cell cell =
        mir_cli_cell_of(column < row->n_datapoints ? row->datapoints[column] : NULL);
    switch (cell.kind) {
    case MIR_CELL_INT: *value = (double)cell.integer; return true;
    case MIR_CELL_UINT: *value = (double)cell.natural; return true;
    case MIR_CELL_REAL: *value = cell.real; return true;
    case MIR_CELL_BOOL: *value = cell.truth ? 1 : 0; return true;
    case MIR_CELL_EMPTY:
    case MIR_CELL_TEXT:
    case MIR_CELL_BYTES:
    case MIR_CELL_TIME: break;
    }
    return false;
}

MIR_MUST_CHECK static bool add_point(mir_cli_chart_series *to, size_t row, int64_t time_ns,
                                     double value)
{
    if (to->count == to->capacity) {
        size_t want = to->capacity == 0 ? 64 : to->capacity * 2;
        mir_cli_plot_point *points = reallocarray(to->points, want, sizeof *points);
        if (points == NULL) return false;
        to->points = points;
        size_t *rows = reallocarray(to->rows, want, sizeof *rows);
        if (rows == NULL) return false;
        to->rows = rows;
        to->capacity = want;
    }
    to->rows[to->count] = row;
    to->points[to->count++] = (mir_cli_plot_point){time_ns, value};
    return true;
}

/* The first series of an owner, which is added if it is new; SIZE_MAX without memory. */
static size_t series_of(mir_cli_chart *chart, json_t *places, const char *owner, size_t columns)
{
    const json_t *known = json_object_get(places, owner);
    if (known != NULL && chart->series != NULL) return (size_t)json_integer_value(known);
    size_t at = chart->owners * columns;
    mir_cli_chart_series *grown = reallocarray(chart->series, at + columns, sizeof(*chart->series));
    if (grown == NULL) return SIZE_MAX;
    chart->series = grown;
    for (size_t i = 0; i < columns; i++)
        grown[at + i] = (mir_cli_chart_series){.owner = owner, .column = i};
    chart->count = at + columns;
    if (json_object_set_new_nocheck(places, owner, json_integer((json_int_t)at)) != 0)
        return SIZE_MAX;
    chart->owners++;
    return at;
}

static void free_series(mir_cli_chart_series *series)
{
    free(series->points);
    free(series->rows);
}

mir_status mir_cli_chart_gather(const MirApi__V1__QueryTelemetry *from, mir_cli_chart *to)
{
    json_t *places = json_object();
    mir_status status = places != NULL ? MIR_OK : MIR_E_NO_MEMORY;
    for (size_t r = 0; r < from->n_rows && status == MIR_OK; r++) {
        const MirApi__V1__QueryTelemetry__Row *row = from->rows[r];
        mir_cli_cell time = mir_cli_cell_of(row->n_datapoints > 0 ? row->datapoints[0] : NULL);
        mir_cli_cell owner = mir_cli_cell_of(row->n_datapoints > 1 ? row->datapoints[1] : NULL);
        if (time.kind != MIR_CELL_TIME) continue;
        size_t first =
            series_of(to, places, owner.kind == MIR_CELL_TEXT ? owner.text : "", from->n_headers);
        if (first == SIZE_MAX) status = MIR_E_NO_MEMORY;
        for (size_t i = 2; i < from->n_headers && status == MIR_OK; i++) {
            double value = 0;
            if (!mir_cli_chart_is_drawable(from, i) || !number_of(row, i, &value)) continue;
            if (!isfinite(value)) to->not_finite++;
            if (!add_point(&to->series[first + i], r, time.integer, value))
                status = MIR_E_NO_MEMORY;
        }
    }
    json_decref(places);
    size_t kept = 0;
    for (size_t i = 0; i < to->count; i++)
        if (to->series[i].count > 0)
            to->series[kept++] = to->series[i];
        else
            free_series(&to->series[i]);
    to->count = kept;
    return status;
}

void mir_cli_chart_free(mir_cli_chart *chart)
{
    for (size_t i = 0; i < chart->count; i++) free_series(&chart->series[i]);
    free(chart->series);
    *chart = (mir_cli_chart){0};
}

static void spark_name(const MirApi__V1__QueryTelemetry *from, const mir_cli_chart *chart,
                       const mir_cli_chart_series *series, mir_bytes *out)
{
    mir_bytes full = {0};
    mir_bytes_printf(&full, "%s%s%s", chart->owners > 1 ? series->owner : "",
                     chart->owners > 1 ? " " : "", from->headers[series->column]);
    mir_bytes_u8(&full, '\0');
    if (mir_bytes_ok(&full)) (void)mir_cli_text_fit(out, (const char *)full.data, NAME_COLUMNS_MAX);
    mir_bytes_u8(out, '\0');
    mir_bytes_free(&full);
}

size_t mir_cli_chart_print_sparks(const MirApi__V1__QueryTelemetry *from, int64_t window_ns,
                                  size_t columns, bool colours)
{
    mir_cli_chart chart = {0};
    bool ascii = mir_cli_plot_wants_ascii();
    size_t widest = 0, most = 0, lines = 0;
    int64_t first_ns = INT64_MAX, last_ns = INT64_MIN;
    if (mir_cli_chart_gather(from, &chart) != MIR_OK || chart.count > SPARKS_MAX)
        mir_cli_chart_free(&chart);
    for (size_t i = 0; i < chart.count; i++) {
        mir_bytes name = {0};
        const mir_cli_chart_series *each = &chart.series[i];
        spark_name(from, &chart, each, &name);
        size_t wide = mir_bytes_ok(&name) ? mir_cli_text_columns((const char *)name.data) : 0;
        mir_bytes_free(&name);
        if (wide > widest) widest = wide;
        if (each->count > most) most = each->count;
        for (size_t p = 0; p < each->count; p++) {
            if (each->points[p].time_ns < first_ns) first_ns = each->points[p].time_ns;
            if (each->points[p].time_ns > last_ns) last_ns = each->points[p].time_ns;
        }
    }
    /* A column for each window, while there is room: a row's time is the end of its own. */
    int64_t from_ns = chart.count > 0 ? first_ns - (window_ns > 0 ? window_ns : 1) : 0;
    uint64_t windows = most;
    if (window_ns > 0 && chart.count > 0) {
        windows = ((uint64_t)last_ns - (uint64_t)from_ns) / (uint64_t)window_ns;
        /* The last one ends where the range does: it has a column of its own all the same. */
        uint64_t rest_ns = ((uint64_t)last_ns - (uint64_t)from_ns) % (uint64_t)window_ns;
        int64_t end_ns = 0;
        if (rest_ns > 0 &&
            !__builtin_add_overflow(last_ns, window_ns - (int64_t)rest_ns, &end_ns)) {
            last_ns = end_ns;
            windows++;
        }
    }
    size_t room = columns > widest + 2 ? columns - widest - 2 : 0;
    if (room > SPARK_COLUMNS_MAX) room = SPARK_COLUMNS_MAX;
    if (windows < room) room = windows > 0 ? (size_t)windows : 1;
    for (size_t i = 0; i < chart.count && windows >= SPARK_POINTS_MIN; i++) {
        mir_bytes name = {0}, line = {0};
        const mir_cli_chart_series *each = &chart.series[i];
        spark_name(from, &chart, each, &name);
        mir_cli_plot_spark(each->points, each->count, from_ns, last_ns, room, ascii, &line);
        mir_bytes_u8(&line, '\0');
        if (mir_bytes_ok(&name) && mir_bytes_ok(&line)) {
            const char *text = (const char *)name.data;
            if (lines++ == 0) (void)fputc('\n', stdout);
            (void)printf("%s%s%s%*s  %s\n", mir_cli_table_tone_on(MIR_TONE_DIM, colours), text,
                         mir_cli_table_tone_off(MIR_TONE_DIM, colours),
                         (int)(widest - mir_cli_text_columns(text)), "", (const char *)line.data);
        }
        mir_bytes_free(&name);
        mir_bytes_free(&line);
    }
    mir_cli_chart_free(&chart);
    return lines;
}
