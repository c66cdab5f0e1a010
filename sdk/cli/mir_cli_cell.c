/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_cell.h"

#include "mir_clock.h"
#include "mir_timestamp.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

mir_cli_cell mir_cli_cell_of(const MirApi__V1__QueryTelemetry__Row__DataPoint *point)
{
    mir_cli_cell out = {0};
    if (point == NULL) return out;
    if (point->value_timestamp != NULL)
        return (mir_cli_cell){.kind = MIR_CELL_TIME,
                              .integer = mir_timestamp_ns(point->value_timestamp)};
    if (point->value_string != NULL)
        return (mir_cli_cell){.kind = MIR_CELL_TEXT, .text = point->value_string};
    if (point->has_value_bytes)
        return (mir_cli_cell){.kind = MIR_CELL_BYTES,
                              .bytes =
                                  mir_view_of(point->value_bytes.data, point->value_bytes.len)};
    if (point->has_value_bool)
        return (mir_cli_cell){.kind = MIR_CELL_BOOL, .truth = point->value_bool};
    if (point->has_value_double)
        return (mir_cli_cell){.kind = MIR_CELL_REAL, .real = point->value_double};
    if (point->has_value_float)
        return (mir_cli_cell){
            .kind = MIR_CELL_REAL, .real = (double)point->value_float, .single = true};
    out.kind = MIR_CELL_INT;
    if (point->has_value_int64)
        out.integer = point->value_int64;
    else if (point->has_value_int32)
        out.integer = point->value_int32;
    else if (point->has_value_sint64)
        out.integer = point->value_sint64;
    else if (point->has_value_sint32)
        out.integer = point->value_sint32;
    else if (point->has_value_sfixed64)
        out.integer = point->value_sfixed64;
    else if (point->has_value_sfixed32)
        out.integer = point->value_sfixed32;
    else
        out.kind = MIR_CELL_UINT;
    if (out.kind == MIR_CELL_INT) return out;
    if (point->has_value_uint64)
        out.natural = point->value_uint64;
    else if (point->has_value_uint32)
        out.natural = point->value_uint32;
    else if (point->has_value_fixed64)
        out.natural = point->value_fixed64;
    else if (point->has_value_fixed32)
        out.natural = point->value_fixed32;
    else
        out.kind = MIR_CELL_EMPTY;
    return out;
}

/* Base64 with padding. */
static void base64(mir_view bytes, mir_bytes *out)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < bytes.size; i += 3) {
        size_t have = bytes.size - i < 3 ? bytes.size - i : 3;
        uint32_t group = (uint32_t)bytes.data[i] << 16;
        if (have > 1) group |= (uint32_t)bytes.data[i + 1] << 8;
        if (have > 2) group |= bytes.data[i + 2];
        mir_bytes_u8(out, (uint8_t)letters[group >> 18]);
        mir_bytes_u8(out, (uint8_t)letters[group >> 12 & 63]);
        mir_bytes_u8(out, have > 1 ? (uint8_t)letters[group >> 6 & 63] : '=');
        mir_bytes_u8(out, have > 2 ? (uint8_t)letters[group & 63] : '=');
    }
}

/* The shortest text that reads back as the same number, or with `decimals` for people. */
static void real_text(const mir_cli_cell *from, int decimals, mir_bytes *out)
{
    if (decimals >= 0 && isfinite(from->real)) {
        mir_bytes_printf(out, "%.*f", decimals, from->real);
        return;
    }
    if (!isfinite(from->real)) {
        mir_bytes_text(out, isnan(from->real) ? "NaN" : from->real > 0 ? "Infinity" : "-Infinity");
        return;
    }
    char text[64];
    for (int digits = from->single ? 6 : 15; digits <= 17; digits++) {
        (void)snprintf(text, sizeof text, "%.*g", digits, from->real);
        if (from->single ? strtof(text, NULL) == (float)from->real
                         : strtod(text, NULL) == from->real)
            break;
    }
    mir_bytes_text(out, text);
}

void mir_cli_cell_text(const mir_cli_cell *from, int decimals, mir_bytes *out)
{
    char time[MIR_CLOCK_TEXT_BYTES];
    switch (from->kind) {
    case MIR_CELL_EMPTY: break;
    case MIR_CELL_INT: mir_bytes_printf(out, "%" PRId64, from->integer); break;
    case MIR_CELL_UINT: mir_bytes_printf(out, "%" PRIu64, from->natural); break;
    case MIR_CELL_REAL: real_text(from, decimals, out); break;
    case MIR_CELL_BOOL: mir_bytes_text(out, from->truth ? "true" : "false"); break;
    case MIR_CELL_TEXT: mir_bytes_text(out, from->text); break;
    case MIR_CELL_BYTES: base64(from->bytes, out); break;
    case MIR_CELL_TIME:
        (void)mir_clock_rfc3339(from->integer, time);
        mir_bytes_text(out, time);
        break;
    }
}

void mir_cli_cell_csv(const mir_cli_cell *from, mir_bytes *out)
{
    mir_bytes text = {0};
    mir_cli_cell_text(from, -1, &text);
    bool quote = false;
    for (size_t i = 0; i < text.size; i++) quote |= strchr(",\"\r\n", text.data[i]) != NULL;
    if (quote) mir_bytes_u8(out, '"');
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] == '"') mir_bytes_u8(out, '"');
        mir_bytes_u8(out, text.data[i]);
    }
    if (quote) mir_bytes_u8(out, '"');
    mir_bytes_free(&text);
}

json_t *mir_cli_cell_json(const mir_cli_cell *from)
{
    mir_bytes text = {0};
    json_t *out = NULL;
    switch (from->kind) {
    case MIR_CELL_EMPTY: return json_null();
    case MIR_CELL_INT: return json_integer(from->integer);
    case MIR_CELL_UINT:
        if (from->natural <= INT64_MAX) return json_integer((json_int_t)from->natural);
        break; /* text, as in JSON of protobuf */
    case MIR_CELL_REAL:
        if (isfinite(from->real)) return json_real(from->real);
        break;
    case MIR_CELL_BOOL: return json_boolean(from->truth);
    case MIR_CELL_TEXT:
    case MIR_CELL_BYTES:
    case MIR_CELL_TIME: break;
    }
    mir_cli_cell_text(from, -1, &text);
    out = json_stringn(text.data != NULL ? (const char *)text.data : "", text.size);
    mir_bytes_free(&text);
    return out;
}
