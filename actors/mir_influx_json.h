/* SPDX-License-Identifier: Apache-2.0 */
/* mir_influx_json: answers as InfluxDB 1.x writes them.
 *
 * Why        One document with all results, or, chunked, one for each part of a series: whoever makes
 *            the rows need not know which.
 *
 *              {"results":[{"statement_id":0,"series":[{"name":…,"tags":{…},"columns":[…],
 *                                                       "values":[[…],…]}]}]}
 *
 * Ownership  The caller owns the bytes.
 * Affinity   One thread at a time.
 * Bounds     bytes_max: one row more is written before it is noticed.
 * Errors     MIR_E_TOO_LARGE and MIR_E_NO_MEMORY from mir_influx_json_row; then the statement is
 *            ended with an error, and what was written of it goes. */
#ifndef MIR_INFLUX_JSON_H
#define MIR_INFLUX_JSON_H

#include "mir_bytes.h"
#include "mir_row.h"

/* Nothing has type 0. */
typedef struct mir_influx_value {
    uint32_t type; /* of mir_column_type */
    uint32_t size; /* of a text */
    union {
        int64_t i64;
        uint64_t u64;
        double f64;
        bool boolean;
        const uint8_t *text;
    };
} mir_influx_value;

typedef struct mir_influx_json {
    mir_bytes bytes;
    size_t bytes_max;
    int64_t epoch_ns;    /* times are numbers of these; 0: RFC 3339 */
    uint64_t chunk_rows; /* 0: one document */
    /* Its own: */
    size_t statement_at; /* where the current one begins */
    uint32_t statement;
    bool opened;               /* its object is */
    bool in_series;            /* and that of a series */
    uint64_t rows;             /* in the current values */
    size_t head_at, head_size; /* of the current series, for its next part */
    bool has_statement;
} mir_influx_json;

static inline mir_influx_value mir_influx_text(mir_view text)
{
    return (mir_influx_value){
        .type = MIR_COLUMN_STRING, .size = (uint32_t)text.size, .text = text.data};
}

void mir_influx_json_begin(mir_influx_json *json, uint32_t statement);
/* Tags and columns; `keys` null: no tags. */
void mir_influx_json_series(mir_influx_json *json, mir_view name, const mir_view *keys,
                            const mir_view *values, size_t tag_count, const mir_view *columns,
                            size_t column_count);
/* Without a time: time_ns null. */
MIR_MUST_CHECK mir_status mir_influx_json_row(mir_influx_json *json, const int64_t *time_ns,
                                              const mir_influx_value *values, size_t count);
void mir_influx_json_series_end(mir_influx_json *json);
/* `warning` null: none; with one the result is marked partial. */
void mir_influx_json_end(mir_influx_json *json, const char *warning);
void mir_influx_json_fail(mir_influx_json *json, const char *error);
/* Behind the last statement. */
void mir_influx_json_finish(mir_influx_json *json);

/* {"error":…} */
void mir_influx_json_error(mir_bytes *bytes, const char *error);
/* The same documents with line breaks and four spaces for each level. */
MIR_MUST_CHECK mir_status mir_influx_json_indent(mir_view compact, mir_bytes *pretty);

#endif
