/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlm_table.h"

#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "mir_api/v1/tlm.pb-c.h"
#include "mir_clock.h"
#include "mir_pbwire.h"
#include "mir_utf8.h"

/* The tags that are written, (number << 3 | wire type); see tlm.proto. */
enum {
    TAG_OK = 1 << 3 | MIR_PBWIRE_BYTES,
    TAG_HEADERS = 1 << 3 | MIR_PBWIRE_BYTES,
    TAG_UNITS = 2 << 3 | MIR_PBWIRE_BYTES,
    TAG_DATATYPES = 3 << 3 | MIR_PBWIRE_BYTES,
    TAG_ROWS = 4 << 3 | MIR_PBWIRE_BYTES,
    TAG_DATAPOINTS = 1 << 3 | MIR_PBWIRE_BYTES,
    TAG_INT64 = 2 << 3 | MIR_PBWIRE_VARINT,
    TAG_UINT64 = 6 << 3 | MIR_PBWIRE_VARINT,
    TAG_DOUBLE = 12 << 3 | MIR_PBWIRE_FIXED64,
    TAG_BOOL = 13 << 3 | MIR_PBWIRE_VARINT,
    TAG_STRING = 14 << 3 | MIR_PBWIRE_BYTES,
    TAG_TIMESTAMP = 16 << 3 | MIR_PBWIRE_BYTES,
    TAG_SECONDS = 1 << 3 | MIR_PBWIRE_VARINT,
    TAG_NANOS = 2 << 3 | MIR_PBWIRE_VARINT,
    TAG_CURSOR = 1000 << 3 | MIR_PBWIRE_BYTES,
    TAG_DAMAGED = 1001 << 3 | MIR_PBWIRE_VARINT,
    TAG_ROLLUPS_UNTIL = 1004 << 3 | MIR_PBWIRE_BYTES,
};

enum {
    VARINT_BYTES_MAX = 10,
    LEAD_BYTES = 1 + VARINT_BYTES_MAX, /* of the ok arm, written last */
    CELL_BYTES_MAX = 2 + 1 + VARINT_BYTES_MAX,
    TIME_BYTES_MAX = 2 + 3 + 2 * (1 + VARINT_BYTES_MAX),
    TEXT_CELL_BYTES_MAX = 2 * (1 + VARINT_BYTES_MAX),
    ROW_LEAD_BYTES_MAX = 1 + VARINT_BYTES_MAX,
    REPLACED_BYTES = 3, /* of U+FFFD */
    SHORT_BYTES = 16,
};

static size_t varint_bytes(uint64_t value)
{
    size_t bytes = 1;
    while (value >= 0x80) {
        value >>= 7;
        bytes++;
    }
    return bytes;
}

static bool is_plain(mir_view text)
{
    for (size_t i = 0; i < text.size; i++)
        if (text.data[i] == 0 || text.data[i] >= 0x80)
            return memchr(text.data, 0, text.size) == NULL && mir_utf8_valid(text);
    return true;
}

/* Bytes of the sequence that starts here, 0 when none does. */
static size_t sequence_bytes(mir_view text, size_t at)
{
    uint8_t lead = text.data[at];
    if (lead < 0x80) return lead == 0 ? 0 : 1;
    size_t size = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (size > text.size - at) return 0;
    return mir_utf8_valid(mir_view_of(text.data + at, size)) ? size : 0;
}

size_t mir_tlm_text_bytes(mir_view text)
{
    if (is_plain(text)) return text.size;
    size_t total = 0;
    for (size_t at = 0; at < text.size;) {
        size_t size = sequence_bytes(text, at);
        total += size == 0 ? REPLACED_BYTES : size;
        at += size == 0 ? 1 : size;
    }
    return total;
}

uint8_t *mir_tlm_text_put(uint8_t *to, mir_view text, size_t clean_size)
{
    if (clean_size == text.size && is_plain(text)) {
        if (text.size != 0) memcpy(to, text.data, text.size);
        return to + text.size;
    }
    for (size_t at = 0; at < text.size;) {
        size_t size = sequence_bytes(text, at);
        memcpy(to, size == 0 ? (const uint8_t *)"\xef\xbf\xbd" : text.data + at,
               size == 0 ? REPLACED_BYTES : size);
        to += size == 0 ? REPLACED_BYTES : size;
        at += size == 0 ? 1 : size;
    }
    return to;
}

static void add_text(mir_bytes *bytes, uint32_t tag, mir_view text)
{
    size_t size = mir_tlm_text_bytes(text);
    uint8_t *start = mir_bytes_reserve(bytes, 1 + VARINT_BYTES_MAX + size);
    if (start == NULL) return;
    uint8_t *at = start;
    *at++ = (uint8_t)tag;
    at = mir_pbwire_write_varint(at, size);
    at = mir_tlm_text_put(at, text, size);
    bytes->size += (size_t)(at - start);
}

MirApi__V1__DataType mir_tlm_datatype(mir_column_type type)
{
    switch (type) {
    case MIR_COLUMN_I64: return MIR_API__V1__DATA_TYPE__DATA_TYPE_INT64;
    case MIR_COLUMN_U64: return MIR_API__V1__DATA_TYPE__DATA_TYPE_UINT64;
    case MIR_COLUMN_F64: return MIR_API__V1__DATA_TYPE__DATA_TYPE_DOUBLE;
    case MIR_COLUMN_BOOL: return MIR_API__V1__DATA_TYPE__DATA_TYPE_BOOL;
    case MIR_COLUMN_STRING: return MIR_API__V1__DATA_TYPE__DATA_TYPE_STRING;
    }
    return MIR_API__V1__DATA_TYPE__DATA_TYPE_UNSPECIFIED;
}

static mir_status check_size(const mir_tlm_table *table)
{
    if (!mir_bytes_ok(&table->bytes)) return MIR_E_NO_MEMORY;
    size_t size = table->bytes.size;
    return table->bytes_max != 0 && size > table->bytes_max ? MIR_E_TOO_LARGE : MIR_OK;
}

static mir_status take_columns(void *context, const mir_column *columns, uint32_t column_count)
{
    mir_tlm_table *table = context;
    size_t text_bytes = 0;
    for (uint32_t i = 0; i < column_count; i++) text_bytes += columns[i].name_size;
    mir_column *copy = malloc(((size_t)column_count + 1) * sizeof *copy + text_bytes);
    if (copy == NULL) return MIR_E_NO_MEMORY;
    char *text = (char *)(copy + column_count);
    for (uint32_t i = 0; i < column_count; i++) {
        copy[i] = columns[i];
        copy[i].name = text;
        if (columns[i].name_size != 0) memcpy(text, columns[i].name, columns[i].name_size);
        text += columns[i].name_size;
    }
    free(table->columns);
    table->columns = copy;
    table->column_count = column_count;
    return MIR_OK;
}

static mir_view name_of(const mir_column *column)
{
    return mir_view_of(column->name, column->name_size);
}

static void add_head(mir_tlm_table *table, uint32_t device)
{
    mir_bytes *bytes = &table->bytes;
    if (mir_bytes_reserve(bytes, LEAD_BYTES) == NULL) return;
    bytes->size += LEAD_BYTES;
    add_text(bytes, TAG_HEADERS, MIR_VIEW_LITERAL("_time"));
    add_text(bytes, TAG_HEADERS,
             mir_view_cstr(table->id_header == NULL ? "__id" : table->id_header));
    for (uint32_t i = 0; i < table->column_count; i++)
        add_text(bytes, TAG_HEADERS, name_of(&table->columns[i]));
    add_text(bytes, TAG_UNITS, MIR_VIEW_LITERAL("RFC3339"));
    add_text(bytes, TAG_UNITS, (mir_view){0});
    for (uint32_t i = 0; i < table->column_count; i++) {
        mir_view name = name_of(&table->columns[i]);
        const char *unit =
            table->unit == NULL ? NULL : table->unit(table->unit_context, device, name);
        add_text(bytes, TAG_UNITS, mir_view_cstr(unit));
    }
    mir_pbwire_put_varint(bytes, TAG_DATATYPES);
    mir_pbwire_put_varint(bytes, (uint64_t)table->column_count + 2);
    mir_bytes_u8(bytes, MIR_API__V1__DATA_TYPE__DATA_TYPE_TIMESTAMP);
    mir_bytes_u8(bytes, MIR_API__V1__DATA_TYPE__DATA_TYPE_STRING);
    for (uint32_t i = 0; i < table->column_count; i++)
        mir_bytes_u8(bytes, (uint8_t)mir_tlm_datatype(table->columns[i].type));
    table->has_rows = true;
}

enum { STAMP_BYTES_MAX = 2 * (1 + VARINT_BYTES_MAX) };

/* A timestamp of STAMP_BYTES_MAX at most, without its tag and size. */
static size_t time_fields(uint8_t *inner, int64_t time_ns)
{
    int64_t seconds = time_ns / MIR_NS_PER_S;
    int64_t nanos = time_ns % MIR_NS_PER_S;
    if (nanos < 0) {
        nanos += MIR_NS_PER_S;
        seconds--;
    }
    uint8_t *end = inner;
    if (seconds != 0) {
        *end++ = TAG_SECONDS;
        end = mir_pbwire_write_varint(end, (uint64_t)seconds);
    }
    if (nanos != 0) {
        *end++ = TAG_NANOS;
        end = mir_pbwire_write_varint(end, (uint64_t)nanos);
    }
    return (size_t)(end - inner);
}

static uint8_t *put_time(uint8_t *at, int64_t time_ns)
{
    *at++ = TAG_DATAPOINTS;
    uint8_t *cell_size = at++;
    at = mir_pbwire_write_varint(at, TAG_TIMESTAMP);
    const size_t size = time_fields(at + 1, time_ns);
    *at = (uint8_t)size;
    *cell_size = (uint8_t)(size + 3);
    return at + 1 + size;
}

static uint8_t *put_text(uint8_t *at, mir_view text)
{
    size_t size = mir_tlm_text_bytes(text);
    *at++ = TAG_DATAPOINTS;
    at = mir_pbwire_write_varint(at, 1 + varint_bytes(size) + size);
    *at++ = TAG_STRING;
    at = mir_pbwire_write_varint(at, size);
    return mir_tlm_text_put(at, text, size);
}

static uint8_t *put_cell(uint8_t *at, mir_column_type type, const mir_cell *cell)
{
    if (type == MIR_COLUMN_STRING) return put_text(at, cell->string);
    *at++ = TAG_DATAPOINTS;
    uint8_t *length = at++;
    switch (type) {
    case MIR_COLUMN_I64:
        *at++ = TAG_INT64;
        at = mir_pbwire_write_varint(at, (uint64_t)cell->i64);
        break;
    case MIR_COLUMN_U64:
        *at++ = TAG_UINT64;
        at = mir_pbwire_write_varint(at, cell->u64);
        break;
    case MIR_COLUMN_F64: {
        uint64_t bits;
        memcpy(&bits, &cell->f64, sizeof bits);
        bits = htole64(bits);
        *at++ = TAG_DOUBLE;
        memcpy(at, &bits, sizeof bits);
        at += sizeof bits;
        break;
    }
    case MIR_COLUMN_BOOL:
        *at++ = TAG_BOOL;
        *at++ = cell->boolean ? 1 : 0;
        break;
    case MIR_COLUMN_STRING: break;
    }
    *length = (uint8_t)(at - length - 1);
    return at;
}

/* The cell of a device's id, or of a group: each of them is in many rows, but written once. */
static mir_view device_cell(mir_tlm_table *table, uint32_t device)
{
    if (device >= table->cell_count) {
        uint32_t count = table->cell_count == 0 ? 16 : table->cell_count;
        while (count <= device) count *= 2;
        mir_view *cells = realloc(table->cells, count * sizeof *cells);
        if (cells == NULL) return (mir_view){0};
        memset(cells + table->cell_count, 0, (count - table->cell_count) * sizeof *cells);
        table->cells = cells;
        table->cell_count = count;
    }
    mir_view *cell = &table->cells[device];
    if (cell->data == NULL) {
        const mir_view id = table->device_ids[device];
        uint8_t *room = mir_arena_alloc(&table->texts, TEXT_CELL_BYTES_MAX + SHORT_BYTES +
                                                           REPLACED_BYTES * id.size);
        if (room != NULL) *cell = mir_view_of(room, (size_t)(put_text(room, id) - room));
    }
    return *cell;
}

static size_t row_bytes_max(const mir_tlm_table *table, mir_view device, const mir_cell *cells,
                            const uint8_t *present)
{
    size_t size = ROW_LEAD_BYTES_MAX + TIME_BYTES_MAX + SHORT_BYTES + device.size +
                  (size_t)table->column_count * CELL_BYTES_MAX;
    for (uint32_t i = 0; i < table->column_count; i++)
        if (present[i] != 0 && table->columns[i].type == MIR_COLUMN_STRING)
            size += TEXT_CELL_BYTES_MAX + REPLACED_BYTES * cells[i].string.size;
    return size;
}

static mir_status add_row(mir_tlm_table *table, int64_t time_ns, mir_view device,
                          const mir_cell *cells, const uint8_t *present)
{
    mir_bytes *bytes = &table->bytes;
    if (device.data == NULL) return MIR_E_NO_MEMORY;
    uint8_t *start = mir_bytes_reserve(bytes, row_bytes_max(table, device, cells, present));
    if (start == NULL) return MIR_E_NO_MEMORY;
    /* Rows of a table are about as long as each other: the length's place is seldom wrong. */
    size_t length_bytes = table->length_bytes == 0 ? 1 : table->length_bytes;
    uint8_t *body = start + 1 + length_bytes;
    uint8_t *at = put_time(body, time_ns);
    if (device.size <= SHORT_BYTES)
        memcpy(at, device.data, SHORT_BYTES); /* of a known size it takes two instructions */
    else
        memcpy(at, device.data, device.size);
    at += device.size;
    for (uint32_t i = 0; i < table->column_count; i++) {
        if (present[i] != 0) {
            at = put_cell(at, table->columns[i].type, &cells[i]);
        } else {
            *at++ = TAG_DATAPOINTS;
            *at++ = 0;
        }
    }
    size_t size = (size_t)(at - body);
    table->length_bytes = varint_bytes(size);
    if (table->length_bytes != length_bytes) memmove(start + 1 + table->length_bytes, body, size);
    *start = TAG_ROWS;
    bytes->size += (size_t)(mir_pbwire_write_varint(start + 1, size) - start) + size;
    return MIR_OK;
}

static mir_status take_rows(void *context, const mir_tlog_batch *batch)
{
    mir_tlm_table *table = context;
    mir_status status = MIR_OK;
    for (uint32_t r = 0; r < batch->row_count && status == MIR_OK; r++) {
        size_t first = (size_t)r * batch->column_count;
        if (!table->has_rows) add_head(table, batch->devices[r]);
        status = add_row(table, batch->times_ns[r], device_cell(table, batch->devices[r]),
                         batch->cells + first, batch->present + first);
        if (status == MIR_OK) status = check_size(table);
    }
    table->rows += batch->row_count;
    if (batch->row_count != 0) {
        table->last_ns = batch->times_ns[batch->row_count - 1];
        table->last_device = batch->devices[batch->row_count - 1];
    }
    return status;
}

mir_tlog_sink mir_tlm_table_sink(mir_tlm_table *table)
{
    return (mir_tlog_sink){.context = table, .columns = take_columns, .rows = take_rows};
}

void mir_tlm_cursor(char *text, int64_t time_ns, mir_view device)
{
    (void)snprintf(text, MIR_TLM_CURSOR_BYTES_MAX, "%" PRId64 ":%.*s", time_ns,
                   MIR_VIEW_ARGS(device));
}

static void add_tail(mir_tlm_table *table, const mir_tlog_query_info *info)
{
    if (table->limit != 0 && table->rows >= table->limit) {
        char text[MIR_TLM_CURSOR_BYTES_MAX];
        const mir_view device = table->device_ids[table->last_device];
        int size =
            snprintf(text, sizeof text, "%" PRId64 ":%.*s", table->last_ns, MIR_VIEW_ARGS(device));
        mir_pbwire_put_varint(&table->bytes, TAG_CURSOR);
        mir_pbwire_put_varint(&table->bytes, (uint64_t)size);
        mir_bytes_append(&table->bytes, text, (size_t)size);
    }
    if (info->chunks_corrupt != 0) {
        mir_pbwire_put_varint(&table->bytes, TAG_DAMAGED);
        mir_pbwire_put_varint(&table->bytes, info->chunks_corrupt);
    }
    if (info->left_out) {
        uint8_t inner[STAMP_BYTES_MAX];
        const size_t size = time_fields(inner, info->left_out_until_ns);
        mir_pbwire_put_varint(&table->bytes, TAG_ROLLUPS_UNTIL);
        mir_pbwire_put_varint(&table->bytes, size);
        mir_bytes_append(&table->bytes, inner, size);
    }
}

mir_status mir_tlm_table_end(mir_tlm_table *table, const mir_tlog_query_info *info,
                             mir_view *response)
{
    static const uint8_t nothing[] = {TAG_OK, 0};
    if (!table->has_rows && info->chunks_corrupt == 0 && !info->left_out) {
        *response = mir_view_of(nothing, sizeof nothing);
        return MIR_OK;
    }
    if (!table->has_rows) {
        if (mir_bytes_reserve(&table->bytes, LEAD_BYTES) == NULL) return MIR_E_NO_MEMORY;
        table->bytes.size += LEAD_BYTES;
    }
    add_tail(table, info);
    if (!mir_bytes_ok(&table->bytes)) return MIR_E_NO_MEMORY;
    size_t size = table->bytes.size - LEAD_BYTES;
    uint8_t *start = table->bytes.data + LEAD_BYTES - 1 - varint_bytes(size);
    *start = TAG_OK;
    (void)mir_pbwire_write_varint(start + 1, size);
    *response = mir_view_of(start, 1 + varint_bytes(size) + size);
    return MIR_OK;
}

void mir_tlm_table_free(mir_tlm_table *table)
{
    mir_bytes_free(&table->bytes);
    free(table->columns);
    table->columns = NULL;
    table->column_count = 0;
    free(table->cells);
    table->cells = NULL;
    table->cell_count = 0;
    mir_arena_free(&table->texts);
    table->has_rows = false;
    table->rows = 0;
}
