/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_line.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void mir_line_double(double value, mir_bytes *out)
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

MIR_MUST_CHECK static mir_status put_name(mir_view text, const char *escaped, mir_bytes *out,
                                          mir_error *error)
{
    for (size_t i = 0; i < text.size; i++) {
        const char c = (char)text.data[i];
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

mir_status mir_line_measurement(mir_view name, mir_bytes *out, mir_error *error)
{
    const size_t start = out->size;
    const mir_status status = put_name(name, ", ", out, error);
    if (status != MIR_OK) out->size = start;
    return status;
}

mir_status mir_line_tag(mir_view key, mir_view value, mir_bytes *out, mir_error *error)
{
    if (value.size == 0)
        return mir_error_set(error, MIR_E_UNSUPPORTED, "line protocol has no empty tags");
    const size_t start = out->size;
    mir_bytes_u8(out, ',');
    mir_status status = put_name(key, ",= ", out, error);
    mir_bytes_u8(out, '=');
    if (status == MIR_OK) status = put_name(value, ",= ", out, error);
    if (status != MIR_OK) out->size = start;
    return status;
}

mir_status mir_line_field(mir_view name, mir_column_type type, const mir_cell *value, bool first,
                          mir_bytes *out, mir_error *error)
{
    const size_t start = out->size;
    mir_bytes_u8(out, first ? ' ' : ',');
    /* A quote as well: VictoriaMetrics would take it for the begin of a text, and the row for none. */
    const mir_status status = put_name(name, ",= \"", out, error);
    if (status != MIR_OK) {
        out->size = start;
        return status;
    }
    mir_bytes_u8(out, '=');
    switch (type) {
    case MIR_COLUMN_I64: mir_bytes_printf(out, "%" PRId64 "i", value->i64); break;
    case MIR_COLUMN_U64:
        mir_bytes_printf(out, "%" PRIu64 "%c", value->u64, value->u64 <= INT64_MAX ? 'i' : 'u');
        break;
    case MIR_COLUMN_F64: mir_line_double(value->f64, out); break;
    case MIR_COLUMN_BOOL: mir_bytes_text(out, value->boolean ? "true" : "false"); break;
    case MIR_COLUMN_STRING:
        mir_bytes_u8(out, '"');
        for (size_t i = 0; i < value->string.size; i++) {
            const uint8_t c = value->string.data[i];
            if (c == '"' || c == '\\') mir_bytes_u8(out, '\\');
            mir_bytes_u8(out, c);
        }
        mir_bytes_u8(out, '"');
        break;
    }
    return MIR_OK;
}

void mir_line_end(int64_t time_ns, mir_bytes *out)
{
    mir_bytes_printf(out, " %" PRId64 "\n", time_ns);
}
