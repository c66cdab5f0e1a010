/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_rows.h"

#include "mir_clock.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void put_double(double value, mir_bytes *out)
{
    if (!isfinite(value)) {
        mir_bytes_text(out, isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity");
        return;
    }
    char text[64];
    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    mir_bytes_text(out, text);
}

void mir_cli_rows_value(const mir_cli_row_cell *cell, mir_bytes *out)
{
    switch (cell->type) {
    case MIR_COLUMN_I64: mir_bytes_printf(out, "%" PRId64, cell->value.i64); break;
    case MIR_COLUMN_U64: mir_bytes_printf(out, "%" PRIu64, cell->value.u64); break;
    case MIR_COLUMN_F64: put_double(cell->value.f64, out); break;
    case MIR_COLUMN_BOOL: mir_bytes_text(out, cell->value.boolean ? "true" : "false"); break;
    case MIR_COLUMN_STRING: mir_bytes_view(out, cell->value.string); break;
    }
}

static void put_csv_text(mir_view text, bool may_be_bare, mir_bytes *out)
{
    bool quote = text.size == 0 && !may_be_bare;
    for (size_t i = 0; i < text.size && !quote; i++)
        quote = memchr(",\"\r\n", text.data[i], 4) != NULL;
    if (!quote) {
        mir_bytes_view(out, text);
        return;
    }
    mir_bytes_u8(out, '"');
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] == '"') mir_bytes_u8(out, '"');
        mir_bytes_u8(out, text.data[i]);
    }
    mir_bytes_u8(out, '"');
}

static void put_csv(const mir_cli_row *row, mir_bytes *out)
{
    char time[MIR_CLOCK_TEXT_BYTES];
    (void)mir_clock_rfc3339(row->time_ns, time);
    mir_bytes_text(out, time);
    mir_bytes_u8(out, ',');
    put_csv_text(row->device_id, true, out);
    mir_bytes_u8(out, ',');
    put_csv_text(row->measurement, true, out);
    for (size_t i = 0; i < row->count; i++) {
        const mir_cli_row_cell *cell = &row->cells[i];
        mir_bytes_u8(out, ',');
        if (!cell->present) continue;
        if (cell->type == MIR_COLUMN_STRING)
            put_csv_text(cell->value.string, false, out);
        else
            mir_cli_rows_value(cell, out);
    }
    mir_bytes_u8(out, '\n');
}

void mir_cli_rows_header(const mir_cli_row_cell *cells, size_t count, mir_bytes *out)
{
    mir_bytes_text(out, MIR_ROWS_TIME "," MIR_ROWS_DEVICE "," MIR_ROWS_MEASUREMENT);
    for (size_t i = 0; i < count; i++) {
        mir_bytes_u8(out, ',');
        put_csv_text(cells[i].name, false, out);
    }
    mir_bytes_u8(out, '\n');
}

static void put_json_text(mir_view text, mir_bytes *out)
{
    mir_bytes_u8(out, '"');
    size_t from = 0;
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f) continue;
        mir_bytes_append(out, text.data + from, i - from);
        from = i + 1;
        if (c == '"' || c == '\\')
            mir_bytes_printf(out, "\\%c", c);
        else if (c == '\n')
            mir_bytes_text(out, "\\n");
        else
            mir_bytes_printf(out, "\\u%04x", c);
    }
    if (text.size > from) mir_bytes_append(out, text.data + from, text.size - from);
    mir_bytes_u8(out, '"');
}

static void put_jsonl(const mir_cli_row *row, mir_bytes *out)
{
    char time[MIR_CLOCK_TEXT_BYTES];
    (void)mir_clock_rfc3339(row->time_ns, time);
    mir_bytes_printf(out, "{\"" MIR_ROWS_TIME "\":\"%s\",\"" MIR_ROWS_DEVICE "\":", time);
    put_json_text(row->device_id, out);
    mir_bytes_text(out, ",\"" MIR_ROWS_MEASUREMENT "\":");
    put_json_text(row->measurement, out);
    for (size_t i = 0; i < row->count; i++) {
        const mir_cli_row_cell *cell = &row->cells[i];
        if (!cell->present) continue;
        mir_bytes_u8(out, ',');
        put_json_text(cell->name, out);
        mir_bytes_u8(out, ':');
        bool number = cell->type == MIR_COLUMN_F64 && !isfinite(cell->value.f64);
        if (cell->type == MIR_COLUMN_STRING)
            put_json_text(cell->value.string, out);
        else if (number)
            mir_bytes_u8(out, '"');
        size_t start = out->size;
        if (cell->type != MIR_COLUMN_STRING) mir_cli_rows_value(cell, out);
        if (number)
            mir_bytes_u8(out, '"');
        else if (cell->type == MIR_COLUMN_F64 && mir_bytes_ok(out) &&
                 memchr(out->data + start, '.', out->size - start) == NULL &&
                 memchr(out->data + start, 'e', out->size - start) == NULL)
            mir_bytes_text(out, ".0"); /* that readers see a real number in it, and the sign of 0 */
    }
    mir_bytes_text(out, "}\n");
}

/* A measurement, a tag's value or a field's name. */
MIR_MUST_CHECK static mir_status put_line_name(mir_view text, const char *escaped, mir_bytes *out,
                                               mir_error *error)
{
    for (size_t i = 0; i < text.size; i++) {
        char c = (char)text.data[i];
        if (c == '\n' || c == '\r' || c == '\\')
            return mir_error_set(error, MIR_E_UNSUPPORTED,
                                 "line protocol has no form for a name with a line end or a "
                                 "backslash, such as '%.*s'; csv and jsonl have",
                                 text.size > 100 ? 100 : (int)text.size, (const char *)text.data);
        if (strchr(escaped, c) != NULL && c != '\0') mir_bytes_u8(out, '\\');
        mir_bytes_u8(out, (uint8_t)c);
    }
    return MIR_OK;
}

MIR_MUST_CHECK static mir_status put_line(const mir_cli_row *row, mir_bytes *out, mir_error *error)
{
    size_t start = out->size;
    bool first = true;
    mir_status status = put_line_name(row->measurement, ", ", out, error);
    mir_bytes_text(out, "," MIR_ROWS_DEVICE "=");
    if (status == MIR_OK) status = put_line_name(row->device_id, ",= ", out, error);
    for (size_t i = 0; status == MIR_OK && i < row->count; i++) {
        const mir_cli_row_cell *cell = &row->cells[i];
        if (!cell->present) continue;
        mir_bytes_u8(out, first ? ' ' : ',');
        first = false;
        status = put_line_name(cell->name, ",= ", out, error);
        mir_bytes_u8(out, '=');
        if (cell->type != MIR_COLUMN_STRING) {
            mir_cli_rows_value(cell, out);
            if (cell->type == MIR_COLUMN_I64) mir_bytes_u8(out, 'i');
            /* InfluxDB 1 has no `u`; it is there only for what `i` cannot say. */
            if (cell->type == MIR_COLUMN_U64)
                mir_bytes_u8(out, cell->value.u64 <= INT64_MAX ? 'i' : 'u');
            continue;
        }
        mir_bytes_u8(out, '"');
        for (size_t j = 0; j < cell->value.string.size; j++) {
            uint8_t c = cell->value.string.data[j];
            if (c == '"' || c == '\\') mir_bytes_u8(out, '\\');
            mir_bytes_u8(out, c);
        }
        mir_bytes_u8(out, '"');
    }
    mir_bytes_printf(out, " %" PRId64 "\n", row->time_ns);
    if (status != MIR_OK || first) out->size = start;
    return status;
}

mir_status mir_cli_rows_write(mir_cli_rows_format format, const mir_cli_row *row, mir_bytes *out,
                              mir_error *error)
{
    switch (format) {
    case MIR_ROWS_CSV: put_csv(row, out); break;
    case MIR_ROWS_JSONL: put_jsonl(row, out); break;
    case MIR_ROWS_LINE: return put_line(row, out, error);
    }
    return MIR_OK;
}
