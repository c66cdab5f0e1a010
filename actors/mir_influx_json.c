/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_influx_json.h"

#include <inttypes.h>
#include <math.h>

#include "mir_clock.h"
#include "mir_json_text.h"

static void put_text(mir_bytes *out, mir_view text)
{
    mir_json_put_string(out, text, MIR_JSON_ESCAPE_LENIENT);
}

enum { DIGITS_MAX = 20, DECIMALS_MAX = 6 };

/* Answers are made of numbers: printf would be most of the time that they take. `decimals` digits
 * stand behind the point. */
static void put_digits(mir_bytes *out, bool negative, uint64_t value, unsigned decimals)
{
    char text[DIGITS_MAX + 3];
    char *at = text + sizeof text;
    for (unsigned digits = 0; value != 0 || digits <= decimals; digits++) {
        if (digits == decimals && decimals != 0) *--at = '.';
        *--at = (char)('0' + value % 10);
        value /= 10;
    }
    if (negative) *--at = '-';
    mir_bytes_append(out, at, (size_t)(text + sizeof text - at));
}

static void put_integer(mir_bytes *out, int64_t value)
{
    put_digits(out, value < 0, value < 0 ? -(uint64_t)value : (uint64_t)value, 0);
}

/* Of at most 15 digits no two decimals are one double: the first that is this one is the shortest. */
static bool put_decimal(mir_bytes *out, double value)
{
    static const double powers[DECIMALS_MAX + 1] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6};
    for (unsigned decimals = 0; decimals <= DECIMALS_MAX; decimals++) {
        const double scaled = nearbyint(value * powers[decimals]);
        if (fabs(scaled) >= 1e15 || (scaled == 0 && (value != 0 || signbit(value)))) {
            if (scaled != 0 || value == 0) return false;
            continue;
        }
        if (scaled / powers[decimals] != value) continue;
        put_digits(out, scaled < 0, (uint64_t)fabs(scaled), decimals);
        return true;
    }
    return false;
}

static void put_time(mir_influx_json *json, int64_t time_ns)
{
    if (json->epoch_ns == 0) {
        char text[MIR_CLOCK_TEXT_BYTES];
        (void)mir_clock_rfc3339(time_ns, text);
        mir_bytes_printf(&json->bytes, "\"%s\"", text);
    } else {
        put_integer(&json->bytes, time_ns / json->epoch_ns);
    }
}

static void put_value(mir_bytes *out, const mir_influx_value *value)
{
    switch (value->type) {
    case MIR_COLUMN_I64: put_integer(out, value->i64); break;
    case MIR_COLUMN_U64: put_digits(out, false, value->u64, 0); break;
    case MIR_COLUMN_F64:
        if (!isfinite(value->f64))
            mir_bytes_text(out, "null");
        else if (!put_decimal(out, value->f64))
            mir_json_put_number(out, value->f64, false);
        break;
    case MIR_COLUMN_BOOL: mir_bytes_text(out, value->boolean ? "true" : "false"); break;
    case MIR_COLUMN_STRING: put_text(out, mir_view_of(value->text, value->size)); break;
    default: mir_bytes_text(out, "null"); break;
    }
}

/* The head of a result; of a document of its own when answers are chunked. */
static void open_result(mir_influx_json *json)
{
    if (json->chunk_rows != 0)
        mir_bytes_text(&json->bytes, "{\"results\":[");
    else if (json->has_statement)
        mir_bytes_u8(&json->bytes, ',');
    mir_bytes_printf(&json->bytes, "{\"statement_id\":%" PRIu32, json->statement);
    json->opened = true;
}

static void close_result(mir_influx_json *json, const char *tail)
{
    mir_bytes_text(&json->bytes, tail);
    mir_bytes_u8(&json->bytes, '}');
    if (json->chunk_rows != 0) mir_bytes_text(&json->bytes, "]}\n");
    json->opened = false;
}

void mir_influx_json_begin(mir_influx_json *json, uint32_t statement)
{
    if (json->chunk_rows == 0 && json->bytes.size == 0)
        mir_bytes_text(&json->bytes, "{\"results\":[");
    json->statement_at = json->bytes.size;
    json->statement = statement;
    json->opened = json->in_series = false;
    json->rows = 0;
}

/* The first series of a result opens its list; chunked, each one begins a document. */
static void open_series(mir_influx_json *json)
{
    if (!json->opened) {
        open_result(json);
        mir_bytes_text(&json->bytes, ",\"series\":[");
    } else if (json->chunk_rows != 0) {
        close_result(json, "],\"partial\":true");
        open_result(json);
        mir_bytes_text(&json->bytes, ",\"series\":[");
    } else {
        mir_bytes_u8(&json->bytes, ',');
    }
}

void mir_influx_json_series(mir_influx_json *json, mir_view name, const mir_view *keys,
                            const mir_view *values, size_t tag_count, const mir_view *columns,
                            size_t column_count)
{
    mir_bytes *out = &json->bytes;
    open_series(json);
    json->head_at = out->size;
    mir_bytes_u8(out, '{');
    if (name.size != 0) {
        mir_bytes_text(out, "\"name\":");
        put_text(out, name);
        mir_bytes_u8(out, ',');
    }
    if (tag_count != 0) mir_bytes_text(out, "\"tags\":{");
    for (size_t i = 0; i < tag_count; i++) {
        if (i != 0) mir_bytes_u8(out, ',');
        put_text(out, keys[i]);
        mir_bytes_u8(out, ':');
        put_text(out, values[i]);
    }
    if (tag_count != 0) mir_bytes_text(out, "},");
    mir_bytes_text(out, "\"columns\":[");
    for (size_t i = 0; i < column_count; i++) {
        if (i != 0) mir_bytes_u8(out, ',');
        put_text(out, columns[i]);
    }
    mir_bytes_text(out, "],\"values\":[");
    json->head_size = out->size - json->head_at;
    json->rows = 0;
    json->in_series = true;
}

/* The part that is full ends, and the same series goes on in the next document. */
static void next_part(mir_influx_json *json)
{
    mir_bytes *out = &json->bytes;
    mir_bytes_text(out, "],\"partial\":true}");
    const size_t head_at = json->head_at;
    open_series(json);
    json->head_at = out->size;
    uint8_t *to = mir_bytes_reserve(out, json->head_size);
    if (to == NULL) return;
    memcpy(to, out->data + head_at, json->head_size);
    out->size += json->head_size;
    json->rows = 0;
}

mir_status mir_influx_json_row(mir_influx_json *json, const int64_t *time_ns,
                               const mir_influx_value *values, size_t count)
{
    mir_bytes *out = &json->bytes;
    if (json->chunk_rows != 0 && json->rows == json->chunk_rows) next_part(json);
    mir_bytes_text(out, json->rows == 0 ? "[" : ",[");
    if (time_ns != NULL) put_time(json, *time_ns);
    for (size_t i = 0; i < count; i++) {
        if (i != 0 || time_ns != NULL) mir_bytes_u8(out, ',');
        put_value(out, &values[i]);
    }
    mir_bytes_u8(out, ']');
    json->rows++;
    if (!mir_bytes_ok(out)) return MIR_E_NO_MEMORY;
    return out->size > json->bytes_max ? MIR_E_TOO_LARGE : MIR_OK;
}

void mir_influx_json_series_end(mir_influx_json *json)
{
    mir_bytes_text(&json->bytes, "]}");
    json->in_series = false;
}

static void put_warning(mir_influx_json *json, const char *warning)
{
    mir_bytes_text(&json->bytes,
                   ",\"partial\":true,\"messages\":[{\"level\":\"warning\",\"text\":");
    put_text(&json->bytes, mir_view_cstr(warning));
    mir_bytes_text(&json->bytes, "}]");
}

void mir_influx_json_end(mir_influx_json *json, const char *warning)
{
    if (json->opened)
        mir_bytes_u8(&json->bytes, ']');
    else
        open_result(json);
    if (warning != NULL) put_warning(json, warning);
    close_result(json, "");
    json->has_statement = true;
}

void mir_influx_json_fail(mir_influx_json *json, const char *error)
{
    json->bytes.size = json->statement_at;
    json->bytes.failed = false;
    open_result(json);
    mir_bytes_text(&json->bytes, ",\"error\":");
    put_text(&json->bytes, mir_view_cstr(error));
    close_result(json, "");
    json->has_statement = true;
}

void mir_influx_json_finish(mir_influx_json *json)
{
    if (json->chunk_rows == 0) mir_bytes_text(&json->bytes, "]}\n");
}

void mir_influx_json_error(mir_bytes *bytes, const char *error)
{
    mir_bytes_text(bytes, "{\"error\":");
    put_text(bytes, mir_view_cstr(error));
    mir_bytes_text(bytes, "}\n");
}

static void new_line(mir_bytes *out, unsigned depth)
{
    mir_bytes_u8(out, '\n');
    for (unsigned i = 0; i < depth; i++) mir_bytes_text(out, "    ");
}

mir_status mir_influx_json_indent(mir_view compact, mir_bytes *pretty)
{
    unsigned depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < compact.size; i++) {
        const uint8_t byte = compact.data[i];
        if (quoted) {
            mir_bytes_u8(pretty, byte);
            if (byte == '\\' && i + 1 < compact.size) mir_bytes_u8(pretty, compact.data[++i]);
            if (byte == '"') quoted = false;
            continue;
        }
        const bool opens = byte == '{' || byte == '[';
        const bool closes = byte == '}' || byte == ']';
        if (closes && compact.data[i - 1] != (byte == '}' ? '{' : '[')) new_line(pretty, depth - 1);
        if (closes) depth--;
        mir_bytes_u8(pretty, byte);
        if (byte == '"') quoted = true;
        if (opens) depth++;
        if (opens && i + 1 < compact.size && compact.data[i + 1] != (byte == '{' ? '}' : ']'))
            new_line(pretty, depth);
        if (byte == ',') new_line(pretty, depth);
        if (byte == ':') mir_bytes_u8(pretty, ' ');
        if (!mir_bytes_ok(pretty)) return MIR_E_NO_MEMORY;
    }
    return MIR_OK;
}
