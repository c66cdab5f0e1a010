/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlm_stream.h"

#include <endian.h>

#include "mir_api/v1/tlm.pb-c.h"
#include "mir_pbwire.h"
#include "mir_tlm_table.h"

/* Numbers of fields; see tlm.proto. */
enum {
    FIELD_OK = 1,
    FIELD_BLOCKS = 1002,
    BLOCK_DEVICE_ID = 1,
    BLOCK_TIMES = 2,
    BLOCK_COLUMNS = 3,
    COLUMN_NAME = 1,
    COLUMN_DATATYPE = 2,
    COLUMN_PRESENT = 3,
    COLUMN_INTS = 4,
    COLUMN_UINTS = 5,
    COLUMN_DOUBLES = 6,
    COLUMN_BOOLS = 7,
    COLUMN_TEXTS = 8,
};

enum { VARINT_BYTES_MAX = 10, LEAD_BYTES = 1 + VARINT_BYTES_MAX };

static void put_tag(mir_bytes *bytes, uint32_t number)
{
    mir_pbwire_put_varint(bytes, mir_pbwire_make_tag(number, MIR_PBWIRE_BYTES));
}

static void put_times(mir_bytes *bytes, const int64_t *times, uint32_t count)
{
    put_tag(bytes, BLOCK_TIMES);
    size_t start = bytes->size;
    uint8_t *at = mir_bytes_reserve(bytes, (size_t)count * VARINT_BYTES_MAX);
    if (at == NULL) return;
    uint8_t *first = at;
    uint64_t before = 0;
    for (uint32_t i = 0; i < count; i++) {
        at = mir_pbwire_write_varint(at,
                                     mir_pbwire_unzigzag((int64_t)((uint64_t)times[i] - before)));
        before = (uint64_t)times[i];
    }
    bytes->size += (size_t)(at - first);
    mir_pbwire_put_length(bytes, start);
}

static void put_numbers(mir_bytes *bytes, const mir_tlog_rows_column *column, uint32_t from,
                        uint32_t count)
{
    const mir_column_type type = column->column.type;
    put_tag(bytes, type == MIR_COLUMN_I64   ? COLUMN_INTS
                   : type == MIR_COLUMN_U64 ? COLUMN_UINTS
                   : type == MIR_COLUMN_F64 ? COLUMN_DOUBLES
                                            : COLUMN_BOOLS);
    size_t start = bytes->size;
    uint8_t *at = mir_bytes_reserve(bytes, (size_t)count * VARINT_BYTES_MAX);
    if (at == NULL) return;
    uint8_t *first = at;
    for (uint32_t i = from; i < from + count; i++) {
        uint64_t value = column->values[i];
        if (column->present[i] == 0) continue;
        if (type == MIR_COLUMN_F64) {
            value = htole64(value);
            memcpy(at, &value, sizeof value);
            at += sizeof value;
        } else {
            at = mir_pbwire_write_varint(
                at, type == MIR_COLUMN_I64 ? mir_pbwire_unzigzag((int64_t)value) : value);
        }
    }
    bytes->size += (size_t)(at - first);
    mir_pbwire_put_length(bytes, start);
}

static void put_text(mir_bytes *bytes, uint32_t field, mir_view text)
{
    size_t size = mir_tlm_text_bytes(text);
    put_tag(bytes, field);
    mir_pbwire_put_varint(bytes, size);
    uint8_t *at = mir_bytes_reserve(bytes, size);
    if (at == NULL) return;
    (void)mir_tlm_text_put(at, text, size);
    bytes->size += size;
}

static void put_column(mir_bytes *bytes, const mir_tlog_rows *rows,
                       const mir_tlog_rows_column *column, uint32_t from, uint32_t count)
{
    const uint8_t *present = column->present + from;
    if (memchr(present, 1, count) == NULL) return;
    put_tag(bytes, BLOCK_COLUMNS);
    size_t start = bytes->size;
    put_text(bytes, COLUMN_NAME, mir_view_of(column->column.name, column->column.name_size));
    mir_pbwire_put_varint(bytes, mir_pbwire_make_tag(COLUMN_DATATYPE, MIR_PBWIRE_VARINT));
    mir_pbwire_put_varint(bytes, mir_tlm_datatype(column->column.type));
    if (memchr(present, 0, count) != NULL) {
        put_tag(bytes, COLUMN_PRESENT);
        size_t size = (count + 7) / 8;
        mir_pbwire_put_varint(bytes, size);
        uint8_t *bitmap = mir_bytes_reserve(bytes, size);
        if (bitmap == NULL) return;
        memset(bitmap, 0, size);
        for (uint32_t i = 0; i < count; i++) bitmap[i / 8] |= (uint8_t)(present[i] << (i % 8));
        bytes->size += size;
    }
    if (column->column.type != MIR_COLUMN_STRING) {
        put_numbers(bytes, column, from, count);
    } else {
        for (uint32_t i = from; i < from + count; i++)
            if (column->present[i] != 0)
                put_text(bytes, COLUMN_TEXTS, rows->texts[column->values[i]]);
    }
    mir_pbwire_put_length(bytes, start);
}

/* The rows [from, from + count) as a block. */
static void put_block(mir_bytes *bytes, mir_view device_id, const mir_tlog_rows *rows,
                      uint32_t from, uint32_t count)
{
    put_tag(bytes, FIELD_BLOCKS);
    size_t start = bytes->size;
    mir_pbwire_put_bytes(bytes, BLOCK_DEVICE_ID, device_id);
    put_times(bytes, rows->times_ns + from, count);
    for (uint32_t i = 0; i < rows->column_count; i++)
        put_column(bytes, rows, &rows->columns[i], from, count);
    mir_pbwire_put_length(bytes, start);
}

static mir_status message_end(mir_tlm_stream *stream)
{
    if (!mir_bytes_ok(&stream->blocks)) return MIR_E_NO_MEMORY;
    if (stream->blocks.size == 0) return MIR_OK;
    size_t size = stream->blocks.size - LEAD_BYTES;
    uint8_t lead[LEAD_BYTES];
    lead[0] = FIELD_OK << 3 | MIR_PBWIRE_BYTES;
    size_t lead_size = (size_t)(mir_pbwire_write_varint(lead + 1, size) - lead);
    uint8_t *start = stream->blocks.data + LEAD_BYTES - lead_size;
    memcpy(start, lead, lead_size);
    mir_letters_add(stream->letters, stream->subject, (mir_view){0}, stream->header,
                    mir_view_of(start, lead_size + size));
    stream->bytes += size;
    stream->blocks.size = 0;
    return stream->letters->failed ? MIR_E_NO_MEMORY : MIR_OK;
}

static mir_status take_some(mir_tlm_stream *stream, const mir_tlog_rows *rows, uint32_t from,
                            uint32_t count)
{
    mir_bytes *bytes = &stream->blocks;
    if (stream->bytes + bytes->size >= stream->bytes_max) {
        stream->cut = true;
        return MIR_E_EMPTY;
    }
    if (bytes->size == 0) {
        if (mir_bytes_reserve(bytes, LEAD_BYTES) == NULL) return MIR_E_NO_MEMORY;
        bytes->size = LEAD_BYTES;
    }
    size_t before = bytes->size;
    put_block(bytes, stream->device_ids[rows->device], rows, from, count);
    if (!mir_bytes_ok(bytes)) return MIR_E_NO_MEMORY;
    if (bytes->size > stream->message_bytes_max) {
        bytes->size = before;
        if (before != LEAD_BYTES) {
            /* It begins the next one. */
            mir_status status = message_end(stream);
            return status == MIR_OK ? take_some(stream, rows, from, count) : status;
        }
        bytes->size = 0;
        if (count == 1) return MIR_E_TOO_LARGE;
        mir_status status = take_some(stream, rows, from, count / 2);
        if (status != MIR_OK) return status;
        return take_some(stream, rows, from + count / 2, count - count / 2);
    }
    stream->rows += count;
    stream->last_ns = rows->times_ns[from + count - 1];
    stream->last_device = rows->device;
    return MIR_OK;
}

mir_status mir_tlm_stream_take(void *context, const mir_tlog_rows *rows)
{
    return take_some(context, rows, 0, rows->row_count);
}

mir_status mir_tlm_stream_end(mir_tlm_stream *stream)
{
    return message_end(stream);
}

void mir_tlm_stream_free(mir_tlm_stream *stream)
{
    mir_bytes_free(&stream->blocks);
}
