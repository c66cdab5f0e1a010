/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_rows.h"

#include "mir_clock.h"
#include "mir_line.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

void mir_cli_rows_value(const mir_cli_row_cell *cell, mir_bytes *out)
{
    switch (cell->type) {
    case MIR_COLUMN_I64: mir_bytes_printf(out, "%" PRId64, cell->value.i64); break;
    case MIR_COLUMN_U64: mir_bytes_printf(out, "%" PRIu64, cell->value.u64); break;
    case MIR_COLUMN_F64: mir_line_double(cell->value.f64, out); break;
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

MIR_MUST_CHECK static mir_status put_line(const mir_cli_row *row, mir_bytes *out, mir_error *error)
{
    size_t start = out->size;
    bool first = true;
    mir_status status = mir_line_measurement(row->measurement, out, error);
    if (status == MIR_OK)
        status = mir_line_tag(mir_view_cstr(MIR_ROWS_DEVICE), row->device_id, out, error);
    for (size_t i = 0; status == MIR_OK && i < row->count; i++) {
        const mir_cli_row_cell *cell = &row->cells[i];
        if (!cell->present) continue;
        status = mir_line_field(cell->name, cell->type, &cell->value, first, out, error);
        first = false;
    }
    mir_line_end(row->time_ns, out);
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
