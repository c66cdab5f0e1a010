/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlm_table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "mir_api/v1/tlm.pb-c.h"
#include "mir_assert.h"
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
    TIME_ROOM = 32,
    TEXT_CELL_BYTES_MAX = 2 * (1 + VARINT_BYTES_MAX),
    ROW_LEAD_BYTES_MAX = 1 + VARINT_BYTES_MAX,
    REPLACED_BYTES = 3, /* of U+FFFD */
    SHORT_BYTES = 16,
    ROW_BYTES_LIKELY = 40,
};

static size_t varint_bytes(size_t size)
{
    return size < 0x80 ? 1 : mir_pbwire_varint_size(size);
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
    table->has_texts = false;
    for (uint32_t i = 0; i < column_count; i++)
        if (columns[i].type == MIR_COLUMN_STRING) table->has_texts = true;
    table->length_bytes = 1;
    return MIR_OK;
}

static mir_view name_of(const mir_column *column)
{
    return mir_view_of(column->name, column->name_size);
}

/* Where the response begins at the earliest. */
static void add_lead(mir_tlm_table *table)
{
    if (mir_bytes_reserve(&table->bytes, table->front_bytes + LEAD_BYTES) == NULL) return;
    table->bytes.size = table->front_bytes + LEAD_BYTES;
}

static void add_head(mir_tlm_table *table, uint32_t device)
{
    mir_bytes *bytes = &table->bytes;
    add_lead(table);
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

/* Times that have nearly all of their stamp in common: of two minutes, in the years 1978 to 2242: there
 * seconds take five bytes, and the span ends before the last time that there is. */
typedef struct stamps {
    uint64_t from_ns;
    uint64_t span_ns; /* 0: of none */
    uint64_t seconds; /* a varint with zeros in its first byte, and the tag that follows it */
} stamps;

enum { STAMPS_SECONDS = 128, SECONDS_BYTES = 5 };

/* Those that a time is of. */
static stamps stamps_of(int64_t time_ns)
{
    const int64_t seconds = time_ns / MIR_NS_PER_S;
    if (seconds < INT64_C(1) << 28 || seconds >= INT64_C(1) << 33) return (stamps){0};
    const uint64_t from = (uint64_t)seconds / STAMPS_SECONDS * STAMPS_SECONDS;
    return (stamps){
        .from_ns = from * MIR_NS_PER_S,
        .span_ns = (uint64_t)STAMPS_SECONDS * MIR_NS_PER_S,
        .seconds = mir_pbwire_spread28(from) | from >> 28 << 32 |
                   mir_pbwire_continued(SECONDS_BYTES) | (uint64_t)TAG_NANOS << 8 * SECONDS_BYTES,
    };
}

static uint8_t *put_any_time(uint8_t *at, int64_t time_ns)
{
    *at++ = TAG_DATAPOINTS;
    uint8_t *cell_size = at++;
    at = mir_pbwire_write_varint(at, TAG_TIMESTAMP);
    const size_t size = time_fields(at + 1, time_ns);
    *at = (uint8_t)size;
    *cell_size = (uint8_t)(size + 3);
    return at + 1 + size;
}

/* Any time at all. Windows end at full seconds, those of many devices at the same ones. */
typedef struct last_stamp {
    int64_t time_ns;
    size_t size; /* 0: there is none */
    uint8_t bytes[TIME_ROOM];
} last_stamp;

static uint8_t *put_whole_second(uint8_t *at, int64_t time_ns, last_stamp *last)
{
    if (last->size == 0 || last->time_ns != time_ns) {
        last->size = (size_t)(put_any_time(last->bytes, time_ns) - last->bytes);
        last->time_ns = time_ns;
    }
    memcpy(at, last->bytes, sizeof last->bytes);
    return at + last->size;
}

/* TIME_BYTES_MAX; what is behind them may be written over, TIME_ROOM in all. */
static inline __attribute__((always_inline)) uint8_t *put_time(uint8_t *at, int64_t time_ns,
                                                               stamps *common, last_stamp *last)
{
    if ((uint64_t)time_ns - common->from_ns >= common->span_ns) *common = stamps_of(time_ns);
    const uint64_t into_ns = (uint64_t)time_ns - common->from_ns;
    const uint64_t second = into_ns / MIR_NS_PER_S;
    const uint64_t nanos = into_ns - second * MIR_NS_PER_S;
    if (common->span_ns == 0 || nanos == 0) return put_whole_second(at, time_ns, last);
    enum { SECONDS_AT = 6, NANOS_AT = SECONDS_AT + SECONDS_BYTES + 1 };
    const uint64_t first = TAG_DATAPOINTS | ((TAG_TIMESTAMP & 0x7f) | 0x80) << 16 |
                           TAG_TIMESTAMP >> 7 << 24 | (uint64_t)TAG_SECONDS << 40;
    const unsigned size = mir_pbwire_varint_size(nanos);
    const uint64_t inner = SECONDS_BYTES + 2 + size;
    mir_pbwire_store64(at, first | (inner + 3) << 8 | inner << 32);
    mir_pbwire_store64(at + SECONDS_AT, common->seconds | second);
    mir_pbwire_store64(at + NANOS_AT,
                       mir_pbwire_spread28(nanos) | nanos >> 28 << 32 | mir_pbwire_continued(size));
    return at + NANOS_AT + size;
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

static uint8_t *put_nothing(uint8_t *at)
{
    *at++ = TAG_DATAPOINTS;
    *at++ = 0;
    return at;
}

/* All but texts; CELL_BYTES_MAX, and what is behind them may be written over. */
static inline __attribute__((always_inline)) uint8_t *put_number(uint8_t *at, mir_column_type type,
                                                                 uint64_t bits)
{
    uint8_t *from = at;
    *at++ = TAG_DATAPOINTS;
    at++;
    if (type == MIR_COLUMN_F64) {
        *at++ = TAG_DOUBLE;
        mir_pbwire_store64(at, bits);
        at += sizeof bits;
    } else if (type == MIR_COLUMN_BOOL) {
        *at++ = TAG_BOOL;
        *at++ = bits != 0;
    } else {
        *at++ = type == MIR_COLUMN_I64 ? TAG_INT64 : TAG_UINT64;
        at = mir_pbwire_write_varint_wide(at, bits);
    }
    from[1] = (uint8_t)(at - from - 2);
    return at;
}

static inline __attribute__((always_inline)) uint8_t *put_cell(uint8_t *at, mir_column_type type,
                                                               const mir_cell *cell)
{
    if (type == MIR_COLUMN_STRING) return put_text(at, cell->string);
    return put_number(at, type, type == MIR_COLUMN_BOOL ? cell->boolean : cell->u64);
}

static mir_view make_device_cell(mir_tlm_table *table, uint32_t device)
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

/* The cell of a device's id, or of a group: each of them is in many rows, but written once. */
static inline mir_view device_cell(mir_tlm_table *table, uint32_t device)
{
    if (device < table->cell_count && table->cells[device].data != NULL)
        return table->cells[device];
    return make_device_cell(table, device);
}

/* For a row without its texts, and for what is written over behind it. */
static size_t row_bytes_max(const mir_tlm_table *table, mir_view device)
{
    return ROW_LEAD_BYTES_MAX + TIME_BYTES_MAX + 2 * SHORT_BYTES + device.size +
           (size_t)table->column_count * CELL_BYTES_MAX;
}

static size_t text_bytes_max(mir_view text)
{
    return TEXT_CELL_BYTES_MAX + REPLACED_BYTES * text.size;
}

/* Where the next row begins, with so much room. */
static uint8_t *row_room(mir_bytes *bytes, size_t room)
{
    if (bytes->capacity - bytes->size >= room) return bytes->data + bytes->size;
    return mir_bytes_reserve(bytes, room);
}

/* What all rows begin with; it is complete with row_end. */
static inline __attribute__((always_inline)) uint8_t *
row_begin(uint8_t *body, int64_t time_ns, mir_view device, stamps *common, last_stamp *last)
{
    uint8_t *at = put_time(body, time_ns, common, last);
    /* Of a known size it takes two instructions; device_cell has the room. */
    size_t done = 0;
    do {
        memcpy(at + done, device.data + done, SHORT_BYTES);
        done += SHORT_BYTES;
    } while (done < device.size);
    return at + device.size;
}

/* Rows of a table are about as long as each other: the length's place is seldom wrong. Returns where
 * the row ends. */
static inline uint8_t *row_end(uint8_t *start, uint8_t *end, size_t *length_bytes)
{
    uint8_t *body = start + 1 + *length_bytes;
    const size_t size = (size_t)(end - body);
    *start = TAG_ROWS;
    if (*length_bytes == 1 && size < 0x80) {
        start[1] = (uint8_t)size;
        return end;
    }
    *length_bytes = varint_bytes(size);
    memmove(start + 1 + *length_bytes, body, size);
    return mir_pbwire_write_varint(start + 1, size) + size;
}

/* Of `bytes`. */
static size_t size_max(const mir_tlm_table *table)
{
    return table->bytes_max == 0 ? SIZE_MAX : table->front_bytes + table->bytes_max;
}

static mir_status row_added(mir_tlm_table *table, const uint8_t *end)
{
    table->bytes.size = (size_t)(end - table->bytes.data);
    return table->bytes.size > size_max(table) ? MIR_E_TOO_LARGE : MIR_OK;
}

/* Before the first row of a device that a sink is given. */
static mir_status rows_begin(mir_tlm_table *table, uint32_t device, mir_view *cell)
{
    if (!table->has_rows) add_head(table, device);
    *cell = device_cell(table, device);
    return cell->data == NULL || !mir_bytes_ok(&table->bytes) ? MIR_E_NO_MEMORY : MIR_OK;
}

static mir_status add_row(mir_tlm_table *table, int64_t time_ns, mir_view device,
                          const mir_cell *cells, const uint8_t *present)
{
    stamps common = {0};
    last_stamp last = {0};
    size_t room = row_bytes_max(table, device);
    for (uint32_t i = 0; i < table->column_count; i++)
        if (present[i] != 0 && table->columns[i].type == MIR_COLUMN_STRING)
            room += text_bytes_max(cells[i].string);
    uint8_t *start = row_room(&table->bytes, room);
    if (start == NULL) return MIR_E_NO_MEMORY;
    uint8_t *at = row_begin(start + 1 + table->length_bytes, time_ns, device, &common, &last);
    for (uint32_t i = 0; i < table->column_count; i++) {
        at = present[i] == 0 ? put_nothing(at) : put_cell(at, table->columns[i].type, &cells[i]);
    }
    return row_added(table, row_end(start, at, &table->length_bytes));
}

static mir_status add_rows(mir_tlm_table *table, const mir_tlog_batch *batch)
{
    mir_status status = MIR_OK;
    for (uint32_t r = 0; r < batch->row_count && status == MIR_OK; r++) {
        size_t first = (size_t)r * batch->column_count;
        mir_view device;
        status = rows_begin(table, batch->devices[r], &device);
        if (status == MIR_OK) {
            status = add_row(table, batch->times_ns[r], device, batch->cells + first,
                             batch->present + first);
        }
    }
    return status;
}

/* What is the same for all rows is in variables of its own, here and with runs: the bytes that are
 * written might be anything else for all that the compiler knows. */
static mir_status add_rows_of_numbers(mir_tlm_table *table, const mir_tlog_batch *batch)
{
    const uint32_t column_count = batch->column_count;
    const mir_column *columns = table->columns;
    const mir_cell *cells = batch->cells;
    const uint8_t *present = batch->present;
    const size_t fixed_room = row_bytes_max(table, (mir_view){0});
    const size_t bytes_max = size_max(table);
    size_t length_bytes = table->length_bytes;
    stamps common = {0};
    last_stamp last = {0};
    mir_view device = {0};
    mir_status status =
        batch->row_count == 0 ? MIR_OK : rows_begin(table, batch->devices[0], &device);
    for (uint32_t r = 0; r < batch->row_count && status == MIR_OK;) {
        uint8_t *at = row_room(&table->bytes, fixed_room + device.size);
        if (at == NULL) return MIR_E_NO_MEMORY;
        const uint8_t *end = table->bytes.data + table->bytes.capacity;
        const uint8_t *last_at =
            bytes_max > table->bytes.capacity ? end : table->bytes.data + bytes_max;
        for (; r < batch->row_count && at <= last_at; r++) {
            device = device_cell(table, batch->devices[r]);
            if ((size_t)(end - at) < fixed_room + device.size || device.data == NULL) break;
            uint8_t *to =
                row_begin(at + 1 + length_bytes, batch->times_ns[r], device, &common, &last);
            for (uint32_t i = 0; i < column_count; i++, cells++, present++) {
                to = *present == 0 ? put_nothing(to) : put_cell(to, columns[i].type, cells);
            }
            at = row_end(at, to, &length_bytes);
        }
        status = device.data == NULL ? MIR_E_NO_MEMORY : row_added(table, at);
    }
    table->length_bytes = length_bytes;
    return status;
}

static mir_status take_rows(void *context, const mir_tlog_batch *batch)
{
    mir_tlm_table *table = context;
    const mir_status status =
        table->has_texts ? add_rows(table, batch) : add_rows_of_numbers(table, batch);
    table->rows += batch->row_count;
    if (batch->row_count != 0) {
        table->last_ns = batch->times_ns[batch->row_count - 1];
        table->last_device = batch->devices[batch->row_count - 1];
    }
    return status;
}

static mir_status add_run_of_numbers(mir_tlm_table *table, const mir_tlog_rows *rows,
                                     mir_view device)
{
    const size_t room = row_bytes_max(table, device);
    const int64_t *times_ns = rows->times_ns;
    const uint32_t row_count = rows->row_count;
    const uint32_t column_count = rows->column_count;
    const mir_column_type first_type = rows->columns[0].column.type;
    const uint64_t *first_values = rows->columns[0].values;
    const uint8_t *first_present = rows->columns[0].present;
    const size_t bytes_max = size_max(table);
    size_t length_bytes = table->length_bytes;
    stamps common = {0};
    last_stamp stamp = {0};
    mir_status status = MIR_OK;
    for (uint32_t r = 0; r < row_count && status == MIR_OK;) {
        /* Room for all of them at once, as most are. */
        size_t likely = (size_t)(row_count - r) * ROW_BYTES_LIKELY;
        if (likely > bytes_max - table->bytes.size) likely = bytes_max - table->bytes.size;
        uint8_t *at = row_room(&table->bytes, room + likely);
        if (at == NULL) return MIR_E_NO_MEMORY;
        /* The row that passes the bound is the last one. */
        size_t last_at = table->bytes.capacity - room;
        if (last_at > bytes_max) last_at = bytes_max;
        const uint8_t *last = table->bytes.data + last_at;
        for (; r < row_count && at <= last; r++) {
            uint8_t *to = row_begin(at + 1 + length_bytes, times_ns[r], device, &common, &stamp);
            to = first_present[r] == 0 ? put_nothing(to)
                                       : put_number(to, first_type, first_values[r]);
            for (uint32_t i = 1; i < column_count; i++) {
                const mir_tlog_rows_column *column = &rows->columns[i];
                to = column->present[r] == 0
                         ? put_nothing(to)
                         : put_number(to, column->column.type, column->values[r]);
            }
            at = row_end(at, to, &length_bytes);
        }
        status = row_added(table, at);
    }
    table->length_bytes = length_bytes;
    return status;
}

static mir_status add_run(mir_tlm_table *table, const mir_tlog_rows *rows, mir_view device)
{
    stamps common = {0};
    last_stamp stamp = {0};
    mir_status status = MIR_OK;
    for (uint32_t r = 0; r < rows->row_count && status == MIR_OK; r++) {
        size_t room = row_bytes_max(table, device);
        for (uint32_t i = 0; i < rows->column_count; i++) {
            const mir_tlog_rows_column *column = &rows->columns[i];
            if (column->present[r] != 0 && column->column.type == MIR_COLUMN_STRING)
                room += text_bytes_max(rows->texts[column->values[r]]);
        }
        uint8_t *start = row_room(&table->bytes, room);
        if (start == NULL) return MIR_E_NO_MEMORY;
        uint8_t *at =
            row_begin(start + 1 + table->length_bytes, rows->times_ns[r], device, &common, &stamp);
        for (uint32_t i = 0; i < rows->column_count; i++) {
            const mir_tlog_rows_column *column = &rows->columns[i];
            if (column->present[r] == 0)
                at = put_nothing(at);
            else if (column->column.type == MIR_COLUMN_STRING)
                at = put_text(at, rows->texts[column->values[r]]);
            else
                at = put_number(at, column->column.type, column->values[r]);
        }
        status = row_added(table, row_end(start, at, &table->length_bytes));
    }
    return status;
}

static mir_status take_run(void *context, const mir_tlog_rows *rows)
{
    mir_tlm_table *table = context;
    mir_view device;
    if (rows->row_count == 0) return MIR_OK;
    mir_status status = rows_begin(table, rows->device, &device);
    if (status == MIR_OK) {
        status = table->has_texts || rows->column_count == 0
                     ? add_run(table, rows, device)
                     : add_run_of_numbers(table, rows, device);
    }
    table->rows += rows->row_count;
    table->last_ns = rows->times_ns[rows->row_count - 1];
    table->last_device = rows->device;
    return status;
}

/* --- in several hands ------------------------------------------------------------------------- */

/* Rows of many devices stand at the same times: what these take is not counted for each of them. */
static mir_status measure_times(mir_tlm_table *table, const int64_t *times_ns, uint32_t count)
{
    if (count == table->measured_count &&
        memcmp(times_ns, table->measured_ns, count * sizeof *times_ns) == 0)
        return MIR_OK;
    if (count > table->measured_capacity) {
        uint8_t *sizes = realloc(table->measured_bytes, count);
        if (sizes == NULL) return MIR_E_NO_MEMORY;
        table->measured_bytes = sizes;
        table->measured_capacity = count;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint8_t room[TIME_ROOM];
        table->measured_bytes[i] = (uint8_t)(put_any_time(room, times_ns[i]) - room);
    }
    table->measured_ns = times_ns;
    table->measured_count = count;
    return MIR_OK;
}

static size_t number_bytes(mir_column_type type, uint64_t bits)
{
    if (type == MIR_COLUMN_F64) return 3 + sizeof bits;
    return type == MIR_COLUMN_BOOL ? 3 + 1 : 3 + mir_pbwire_varint_size(bits);
}

static mir_status measure_rows(void *context, const mir_tlog_rows *rows, const uint32_t *ends,
                               uint32_t end_count, size_t *sizes)
{
    enum { NOTHING_BYTES = 2 };
    mir_tlm_table *table = context;
    const mir_view device = device_cell(table, rows->device);
    if (device.data == NULL) return MIR_E_NO_MEMORY;
    if (device.size > table->cell_bytes_max) table->cell_bytes_max = device.size;
    mir_status status = measure_times(table, rows->times_ns, rows->row_count);
    if (status != MIR_OK) return status;
    const uint32_t column_count = rows->column_count;
    uint32_t row = 0;
    for (uint32_t i = 0; i < end_count; i++) {
        size_t size = 0;
        for (; row < ends[i]; row++) {
            size_t body = table->measured_bytes[row] + device.size;
            for (uint32_t c = 0; c < column_count; c++) {
                const mir_tlog_rows_column *column = &rows->columns[c];
                body += column->present[row] == 0
                            ? NOTHING_BYTES
                            : number_bytes(column->column.type, column->values[row]);
            }
            size += 1 + varint_bytes(body) + body;
        }
        sizes[i] += size;
    }
    return MIR_OK;
}

static mir_status reserve_rows(void *context, uint32_t first_device, uint64_t row_count,
                               size_t size, uint8_t **at)
{
    mir_tlm_table *table = context;
    if (!table->has_rows) add_head(table, first_device);
    if (!mir_bytes_ok(&table->bytes)) return MIR_E_NO_MEMORY;
    const size_t bytes_max = size_max(table);
    if (table->bytes.size > bytes_max || size > bytes_max - table->bytes.size)
        return MIR_E_TOO_LARGE;
    *at = mir_bytes_reserve(&table->bytes, size);
    if (*at == NULL) return MIR_E_NO_MEMORY;
    table->bytes.size += size;
    table->rows += row_count;
    return MIR_OK;
}

/* With the rows that another thread writes behind these, nothing may be written over there: the last
 * ones are made elsewhere. */
static mir_status place_rows(const void *context, const mir_tlog_batch *batch, uint8_t **at,
                             const uint8_t *end)
{
    const mir_tlm_table *table = context;
    const uint32_t column_count = batch->column_count;
    const mir_column *columns = table->columns;
    const mir_view *devices = table->cells;
    const mir_cell *cells = batch->cells;
    const uint8_t *present = batch->present;
    const size_t room = row_bytes_max(table, (mir_view){0}) + table->cell_bytes_max;
    size_t length_bytes = table->length_bytes;
    stamps common = {0};
    last_stamp last = {0};
    uint8_t *scratch = NULL;
    uint8_t *to = *at;
    for (uint32_t r = 0; r < batch->row_count; r++) {
        const bool near = (size_t)(end - to) < room;
        if (near && scratch == NULL) scratch = malloc(room);
        if (near && scratch == NULL) return MIR_E_NO_MEMORY;
        uint8_t *start = near ? scratch : to;
        uint8_t *cell = row_begin(start + 1 + length_bytes, batch->times_ns[r],
                                  devices[batch->devices[r]], &common, &last);
        for (uint32_t i = 0; i < column_count; i++, cells++, present++) {
            cell = *present == 0 ? put_nothing(cell) : put_cell(cell, columns[i].type, cells);
        }
        uint8_t *row_end_at = row_end(start, cell, &length_bytes);
        if (near) {
            const size_t size = (size_t)(row_end_at - scratch);
            MIR_ASSERT(size <= (size_t)(end - to));
            memcpy(to, scratch, size);
            row_end_at = to + size;
        }
        to = row_end_at;
    }
    free(scratch);
    *at = to;
    return MIR_OK;
}

mir_tlog_sink mir_tlm_table_sink(mir_tlm_table *table)
{
    return (mir_tlog_sink){.context = table,
                           .columns = take_columns,
                           .rows = take_rows,
                           .run = take_run,
                           .measure = measure_rows,
                           .reserve = reserve_rows,
                           .place = place_rows};
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
    if (!table->has_rows) add_lead(table);
    add_tail(table, info);
    if (!mir_bytes_ok(&table->bytes)) return MIR_E_NO_MEMORY;
    const size_t lead = table->front_bytes + LEAD_BYTES;
    const size_t size = table->bytes.size - lead;
    uint8_t *start = table->bytes.data + lead - 1 - varint_bytes(size);
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
    free(table->measured_bytes);
    table->measured_bytes = NULL;
    table->measured_count = table->measured_capacity = 0;
    mir_arena_free(&table->texts);
    table->has_rows = false;
    table->rows = 0;
}
