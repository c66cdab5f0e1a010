/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_segment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "mir_assert.h"
#include "mir_hash.h"
#include "mir_thread.h"
#include "mir_tlog.h"
#include "mir_tlog_columns.h"
#include "mir_tlog_number.h"
#include "mir_tlog_rollup.h"

static const uint8_t segment_magic[8] = {'M', 'I', 'R', 'T', 'S', 'E', 'G', 0};
static const uint8_t trailer_magic[8] = {'M', 'I', 'R', 'T', 'E', 'N', 'D', 0};
static const uint8_t spare_magic[8] = {'M', 'I', 'R', 'T', 'C', 'P', 'Y', 0};

enum {
    CHUNK_MAGIC = 0x4b48434d, /* "MCHK" */
    WRITE_BUFFER_BYTES = 256 * 1024,
    INDEX_BLOCK_HEADER_BYTES = 16,
    INDEX_BLOCK_BYTES_MAX = 64 << 20,
    /* The index stands in the file twice if it is small, or small beside the chunks: of segments that
     * will be merged soon it is neither. */
    SPARE_INDEX_SMALL_BYTES = 4096,
    SPARE_INDEX_PART = 16,
    TRAILER_LIGHT_BITS = 56,
    TRAILER_SPARE_FOOTER = 1,
    TRAILER_SPARE_INDEX = 2,
    TRAILER_SPARE_GAP = 4,
    /* A column of fewer values is read as fast as its statistics. */
    STATISTICS_ROWS_MIN = 16,
    /* For the codec: times, and columns by a hash of their names. */
    KIND_TIMES = 0,
    KINDS = MIR_TLOG_TRIALS - 1,
    COLUMN_SPARSE = 1,
    COLUMN_STATISTICS = 2,
    COLUMN_ENDS = 4, /* statistics end with the first value and the last */
    /* A pause is so many times the mean step of the rows around it, and of so many rows one at most
     * ends a chunk. */
    PAUSE_STEPS = 16,
    PAUSE_ROWS = 256,
};

/* ---- Chunks ---- */

static void bytes_varint128(mir_bytes *out, unsigned __int128 value)
{
    while (value >= 0x80) {
        mir_bytes_u8(out, (uint8_t)(value | 0x80));
        value >>= 7;
    }
    mir_bytes_u8(out, (uint8_t)value);
}

/* Smallest, largest, sum, first and last, so that whole chunks can be aggregated without their
 * values. */
static void put_statistics(mir_bytes *out, mir_column_type type, const uint64_t *values,
                           uint32_t count)
{
    if (type == MIR_COLUMN_F64) {
        double low = 0, high = 0, sum = 0;
        bool any = false;
        for (uint32_t i = 0; i < count; i++) {
            double value;
            memcpy(&value, &values[i], sizeof value);
            sum += value;
            if (value != value) continue; /* NaN has no place in an order */
            if (!any || value < low) low = value;
            if (!any || value > high) high = value;
            any = true;
        }
        const double three[3] = {low, high, sum};
        for (int i = 0; i < 3; i++) {
            uint64_t bits;
            memcpy(&bits, &three[i], sizeof bits);
            mir_tlog_bytes_u64(out, bits);
        }
        mir_tlog_bytes_u64(out, values[0]);
        mir_tlog_bytes_u64(out, values[count - 1]);
        return;
    }
    /* Offset by the sign bit, unsigned order is that of the type. */
    const uint64_t flip = type == MIR_COLUMN_I64 ? UINT64_C(1) << 63 : 0;
    uint64_t low = UINT64_MAX, high = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t value = values[i] ^ flip;
        if (value < low) low = value;
        if (value > high) high = value;
    }
    unsigned __int128 sum = 0; /* of what each is above the least one */
    if (high - low <= UINT64_MAX / MIR_TLOG_CHUNK_ROWS_MAX) {
        uint64_t short_sum = 0;
        for (uint32_t i = 0; i < count; i++) short_sum += (values[i] ^ flip) - low;
        sum = short_sum;
    } else {
        for (uint32_t i = 0; i < count; i++) sum += (values[i] ^ flip) - low;
    }
    mir_tlog_bytes_varint(out,
                          type == MIR_COLUMN_I64 ? mir_tlog_zigzag((int64_t)(low ^ flip)) : low);
    mir_tlog_bytes_varint(out, high - low);
    bytes_varint128(out, sum);
    mir_tlog_bytes_varint(out, (values[0] ^ flip) - low);
    mir_tlog_bytes_varint(out, (values[count - 1] ^ flip) - low);
}

static unsigned __int128 read_varint128(mir_tlog_reader *in)
{
    unsigned __int128 value = 0;
    for (uint32_t shift = 0; shift < 128; shift += 7) {
        const uint8_t byte = mir_tlog_read_u8(in);
        value |= (unsigned __int128)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) break;
    }
    return value;
}

static uint64_t read_u64(mir_tlog_reader *in)
{
    const mir_view bytes = mir_tlog_read_bytes(in, 8);
    return in->failed ? 0 : mir_tlog_get_u64(bytes.data);
}

/* `count` values have them. */
static void read_statistics(mir_tlog_reader *in, uint8_t flags, mir_column_type type,
                            uint32_t count, mir_tlog_column_statistics *s)
{
    *s = (mir_tlog_column_statistics){.count = count};
    if ((flags & COLUMN_STATISTICS) == 0) return;
    s->known = true;
    s->ends_known = (flags & COLUMN_ENDS) != 0;
    if (type == MIR_COLUMN_F64) {
        s->low = read_u64(in);
        s->high = read_u64(in);
        s->sum_f64 = mir_tlog_double_of(read_u64(in));
        if (!s->ends_known) return;
        s->first = read_u64(in);
        s->last = read_u64(in);
        return;
    }
    const uint64_t low = mir_tlog_read_varint(in);
    s->low = type == MIR_COLUMN_I64 ? (uint64_t)mir_tlog_unzigzag(low) : low;
    s->high = s->low + mir_tlog_read_varint(in);
    /* Unsigned, so that bytes from a disk may be anything. */
    const __int128 least = type == MIR_COLUMN_I64 ? (int64_t)s->low : (__int128)s->low;
    s->sum = (__int128)((unsigned __int128)least * count + read_varint128(in));
    if (!s->ends_known) return;
    s->first = s->low + mir_tlog_read_varint(in);
    s->last = s->low + mir_tlog_read_varint(in);
}

/* Columns of a gather in the order of names and types. */
static int column_compare(const void *a, const void *b)
{
    const mir_tlog_gather_column *left = *(const mir_tlog_gather_column *const *)a;
    const mir_tlog_gather_column *right = *(const mir_tlog_gather_column *const *)b;
    const int order = mir_view_compare(left->name, right->name);
    if (order != 0) return order;
    return (int)left->type - (int)right->type;
}

typedef struct chunk_scratch {
    uint64_t *values; /* MIR_TLOG_CHUNK_ROWS_MAX each */
    mir_view *texts;
    const mir_tlog_gather_column **columns;
    uint32_t column_capacity;
    bool full; /* every column of the last chunk had a value in every row */
} chunk_scratch;

/* Appends the chunk; columns without a value in these rows are left out of scratch->columns. */
static uint32_t chunk_encode(mir_tlog_codec *codec, mir_bytes *out, chunk_scratch *scratch,
                             uint32_t column_count, const mir_tlog_gather *gather, uint32_t first,
                             uint32_t rows)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < column_count; i++) {
        if (memchr(scratch->columns[i]->present + first, 1, rows) != NULL) {
            scratch->columns[kept++] = scratch->columns[i];
        }
    }
    const size_t start = out->size;
    if (mir_bytes_reserve(out, MIR_TLOG_CHUNK_HEADER_BYTES) == NULL) return kept;
    out->size += MIR_TLOG_CHUNK_HEADER_BYTES;
    mir_tlog_bytes_varint(out, rows);
    mir_tlog_bytes_varint(out, kept);
    scratch->full = true;
    mir_tlog_column_encode(codec, out, KIND_TIMES, MIR_COLUMN_I64,
                           (const uint64_t *)(gather->times + first), NULL, rows);
    for (uint32_t i = 0; i < kept; i++) {
        const mir_tlog_gather_column *column = scratch->columns[i];
        const uint64_t *values = scratch->values;
        uint32_t count = 0;
        if (column->type != MIR_COLUMN_STRING && memchr(column->present + first, 0, rows) == NULL) {
            values = column->values + first;
            count = rows;
        }
        for (uint32_t row = first; row < first + rows && count < rows; row++) {
            if (column->present[row] == 0) continue;
            if (column->type == MIR_COLUMN_STRING) {
                scratch->texts[count++] = gather->texts[column->values[row]];
            } else {
                scratch->values[count++] = column->values[row];
            }
        }
        const bool statistics = count >= STATISTICS_ROWS_MIN && column->type != MIR_COLUMN_STRING;
        mir_bytes_u8(out, (uint8_t)((count < rows ? COLUMN_SPARSE : 0) |
                                    (statistics ? COLUMN_STATISTICS | COLUMN_ENDS : 0)));
        if (count < rows) {
            scratch->full = false;
            mir_tlog_bytes_varint(out, count);
            uint8_t *bitmap = mir_bytes_reserve(out, (rows + 7) / 8);
            if (bitmap == NULL) return kept;
            memset(bitmap, 0, (rows + 7) / 8);
            for (uint32_t row = 0; row < rows; row++) {
                bitmap[row / 8] |= (uint8_t)(column->present[first + row] << (row % 8));
            }
            out->size += (rows + 7) / 8;
        }
        if (statistics) put_statistics(out, column->type, values, count);
        const uint32_t kind = KIND_TIMES + 1 + (uint32_t)mir_hash_view(column->name) % KINDS;
        mir_tlog_column_encode(codec, out, kind, column->type, values, scratch->texts, count);
    }
    if (!mir_bytes_ok(out)) return kept;
    uint8_t *head = out->data + start;
    const size_t payload = out->size - start - MIR_TLOG_CHUNK_HEADER_BYTES;
    (void)mir_tlog_put_u32(head, CHUNK_MAGIC);
    (void)mir_tlog_put_u32(head + 4, (uint32_t)payload);
    (void)mir_tlog_put_u64(head + 8, mir_hash_fixed(head + MIR_TLOG_CHUNK_HEADER_BYTES, payload));
    return kept;
}

mir_status mir_tlog_chunk_read(mir_tlog_segment *segment, const mir_tlog_chunk *chunk,
                               mir_bytes *bytes)
{
    /* Whoever reads chunks, reads many. */
    mir_thread_offer();
    uint8_t *room = mir_bytes_reserve(bytes, chunk->size);
    if (room == NULL) return MIR_E_NO_MEMORY;
    const int result =
        mir_tlog_file_read(segment->files, segment->handle, room, chunk->size, chunk->offset);
    if (result < 0) return result == -ENODATA ? MIR_E_CORRUPT : mir_status_from_errno(-result);
    const size_t payload = chunk->size - MIR_TLOG_CHUNK_HEADER_BYTES;
    if (mir_tlog_get_u32(room) != CHUNK_MAGIC || mir_tlog_get_u32(room + 4) != payload ||
        mir_tlog_get_u64(room + 8) != mir_hash_fixed(room + MIR_TLOG_CHUNK_HEADER_BYTES, payload)) {
        return MIR_E_CORRUPT;
    }
    bytes->size += chunk->size;
    return MIR_OK;
}

mir_status mir_tlog_chunk_begin(mir_tlog_chunk_reader *reader, mir_view bytes,
                                const mir_tlog_segment_shape *shape)
{
    if (bytes.size < MIR_TLOG_CHUNK_HEADER_BYTES) return MIR_E_CORRUPT;
    *reader = (mir_tlog_chunk_reader){
        .shape = shape,
        .in = mir_tlog_reader_of(bytes.data + MIR_TLOG_CHUNK_HEADER_BYTES,
                                 bytes.size - MIR_TLOG_CHUNK_HEADER_BYTES),
    };
    const uint64_t rows = mir_tlog_read_varint(&reader->in);
    const uint64_t column_count = mir_tlog_read_varint(&reader->in);
    if (reader->in.failed || rows == 0 || rows > MIR_TLOG_CHUNK_ROWS_MAX ||
        column_count != shape->column_count) {
        return MIR_E_CORRUPT;
    }
    reader->rows = (uint32_t)rows;
    reader->times_in = reader->in;
    mir_tlog_column_skip(&reader->in);
    return reader->in.failed ? MIR_E_CORRUPT : MIR_OK;
}

mir_status mir_tlog_chunk_times(const mir_tlog_chunk_reader *reader, mir_tlog_codec *codec,
                                int64_t *times)
{
    mir_tlog_reader in = reader->times_in;
    const mir_status status = mir_tlog_column_decode(codec, &in, MIR_COLUMN_I64, (uint64_t *)times,
                                                     NULL, reader->rows, NULL);
    if (status != MIR_OK) return status;
    /* Steps of 1 to 2^63 have no top bit when one is taken off: all at once, and only if one has it
     * each for itself. */
    uint64_t top = 0;
    for (uint32_t i = 1; i < reader->rows; i++) {
        top |= (uint64_t)times[i] - (uint64_t)times[i - 1] - 1;
    }
    bool ascending = true;
    for (uint32_t i = 1; (top >> 63) != 0 && i < reader->rows; i++) {
        ascending = ascending && times[i - 1] < times[i];
    }
    return ascending ? MIR_OK : MIR_E_CORRUPT;
}

mir_status mir_tlog_chunk_time_places(const mir_tlog_chunk_reader *reader, mir_tlog_codec *codec,
                                      mir_tlog_ints_places *places)
{
    return mir_tlog_column_places(codec, reader->times_in, reader->rows, places);
}

mir_status mir_tlog_chunk_next(mir_tlog_chunk_reader *reader)
{
    mir_tlog_reader *in = &reader->in;
    const uint32_t rows = reader->rows;
    if (reader->next == reader->shape->column_count) {
        return in->at == in->end ? MIR_E_EMPTY : MIR_E_CORRUPT;
    }
    reader->column = &reader->shape->columns[reader->next++];
    const uint8_t flags = mir_tlog_read_u8(in);
    uint32_t count = rows;
    reader->bitmap = mir_view_of(NULL, 0);
    if ((flags & COLUMN_SPARSE) != 0) {
        const uint64_t present = mir_tlog_read_varint(in);
        reader->bitmap = mir_tlog_read_bytes(in, (rows + 7) / 8);
        if (in->failed || present > rows) return MIR_E_CORRUPT;
        count = (uint32_t)present;
        uint32_t set = 0;
        for (uint32_t i = 0; i < rows; i++) set += reader->bitmap.data[i / 8] >> (i % 8) & 1;
        if (set != count) return MIR_E_CORRUPT;
    }
    if ((flags & COLUMN_STATISTICS) != 0 && reader->column->type == MIR_COLUMN_STRING) {
        return MIR_E_CORRUPT;
    }
    read_statistics(in, flags, reader->column->type, count, &reader->statistics);
    return in->failed ? MIR_E_CORRUPT : MIR_OK;
}

mir_status mir_tlog_chunk_values(mir_tlog_chunk_reader *reader, mir_tlog_codec *codec,
                                 uint64_t *values, mir_view *texts, mir_arena *arena)
{
    return mir_tlog_column_decode(codec, &reader->in, reader->column->type, values, texts,
                                  reader->statistics.count, arena);
}

mir_status mir_tlog_chunk_walk(mir_tlog_chunk_reader *reader, mir_tlog_codec *codec,
                               mir_tlog_ints_walk *walk)
{
    return mir_tlog_column_walk(codec, &reader->in, reader->statistics.count, walk);
}

mir_status mir_tlog_chunk_pass(mir_tlog_chunk_reader *reader)
{
    mir_tlog_column_skip(&reader->in);
    return reader->in.failed ? MIR_E_CORRUPT : MIR_OK;
}

/* Puts the current column's values at rows row_start + (i - skip) of the gather for i in
 * [skip, end). */
static mir_status column_place(mir_tlog_chunk_reader *reader, mir_tlog_codec *codec,
                               mir_tlog_gather *gather, uint32_t to, uint32_t skip, uint32_t end,
                               uint64_t *values, mir_view *texts)
{
    if (to == MIR_TLOG_GATHER_NONE) return mir_tlog_chunk_pass(reader);
    mir_status status = mir_tlog_chunk_values(reader, codec, values, texts, &gather->arena);
    if (status != MIR_OK) return status;
    const bool strings = reader->column->type == MIR_COLUMN_STRING;
    if (strings) {
        status = mir_tlog_gather_texts_room(gather, end - skip);
        if (status != MIR_OK) return status;
    }
    mir_tlog_gather_column *place = &gather->columns[to];
    uint64_t *into = place->values + gather->row_count;
    uint8_t *present = place->present + gather->row_count;
    const uint8_t *bitmap = reader->bitmap.data;
    if (bitmap == NULL && !strings) {
        memcpy(into, values + skip, (size_t)(end - skip) * sizeof *values);
        memset(present, 1, end - skip);
        return MIR_OK;
    }
    uint32_t at = 0;
    for (uint32_t row = 0; row < end; row++) {
        if (bitmap != NULL && (bitmap[row / 8] >> (row % 8) & 1) == 0) continue;
        const uint32_t from = at++;
        if (row < skip) continue;
        if (strings) {
            gather->texts[gather->text_count] = texts[from];
            into[row - skip] = gather->text_count++;
        } else {
            into[row - skip] = values[from];
        }
        present[row - skip] = 1;
    }
    return MIR_OK;
}

mir_status mir_tlog_chunk_decode(mir_tlog_codec *codec, mir_view bytes,
                                 const mir_tlog_segment_shape *shape, mir_tlog_gather *gather)
{
    mir_tlog_chunk_reader reader;
    mir_status status = mir_tlog_chunk_begin(&reader, bytes, shape);
    if (status != MIR_OK) return status;
    uint64_t *values = malloc(reader.rows * sizeof *values * 2);
    mir_view *texts = malloc(reader.rows * sizeof *texts);
    uint32_t skip = 0;
    uint32_t end = reader.rows;
    status = MIR_E_NO_MEMORY;
    if (values == NULL || texts == NULL) goto out;
    int64_t *times = (int64_t *)(values + reader.rows);
    status = mir_tlog_chunk_times(&reader, codec, times);
    if (status != MIR_OK) goto out;
    while (skip < end && times[skip] < gather->time_first) skip++;
    while (end > skip && times[end - 1] > gather->time_last) end--;
    if (skip == end) goto out;
    status = mir_tlog_gather_room(gather, end - skip);
    if (status != MIR_OK) goto out;
    while ((status = mir_tlog_chunk_next(&reader)) == MIR_OK) {
        uint32_t to;
        status = mir_tlog_gather_column_of(gather, mir_tlog_column_name(reader.column),
                                           reader.column->type, &to);
        if (status == MIR_OK) {
            status = column_place(&reader, codec, gather, to, skip, end, values, texts);
        }
        if (status != MIR_OK) break;
    }
    if (status != MIR_E_EMPTY) {
        /* Fields that were placed already are taken back. */
        for (uint32_t i = 0; i < gather->column_count; i++) {
            memset(gather->columns[i].present + gather->row_count, 0, end - skip);
        }
        goto out;
    }
    status = MIR_OK;
    memcpy(gather->times + gather->row_count, times + skip,
           (size_t)(end - skip) * sizeof *gather->times);
    gather->row_count += end - skip;
    gather->rows_read += end - skip;
out:
    free(values);
    free(texts);
    return status;
}

/* ---- Writing ---- */

typedef struct writer_shape {
    uint32_t measurement;
    uint32_t column_count;
    uint32_t *columns; /* numbers in the measurement's names, in the arena */
    uint64_t rows;
    int64_t time_min;
    int64_t time_max;
} writer_shape;

typedef struct writer_name {
    uint32_t measurement;
    mir_column_type type;
    mir_view name;
} writer_name;

struct mir_tlog_segment_writer {
    const mir_tlog_files *files;
    char path[MIR_TLOG_PATH_BYTES_MAX];
    int handle;
    mir_tlog_segment_head head;
    uint64_t offset; /* of the buffer's first byte */
    mir_bytes buffer;
    mir_bytes index;     /* the index blocks that are complete, one behind the other */
    mir_bytes entries;   /* of the open index block */
    mir_bytes directory; /* of the footer: blocks */
    uint32_t block_count;
    mir_view block_device;
    uint32_t block_measurement;
    /* The open series. */
    bool series_open;
    uint32_t measurement;
    mir_view device;
    mir_bytes chunks;
    uint32_t chunk_count;

    mir_arena arena;
    mir_view *measurements;
    uint32_t measurement_count;
    uint32_t measurement_capacity;
    writer_name *names;
    uint32_t name_count;
    uint32_t name_capacity;
    uint32_t name_slot_count;
    uint32_t *name_slots;
    writer_shape *shapes;
    uint32_t shape_count;
    uint32_t shape_capacity;
    uint32_t shape_slot_count;
    uint32_t *shape_slots;
    uint64_t rows;
    uint64_t chunk_total;
    uint64_t series_total;
    uint64_t light_bytes;
    int64_t time_min;
    int64_t time_max;
    chunk_scratch scratch;
};

static mir_status no_memory(mir_error *error)
{
    return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory while writing a segment");
}

static void writer_free(mir_tlog_segment_writer *writer)
{
    mir_bytes_free(&writer->buffer);
    mir_bytes_free(&writer->index);
    mir_bytes_free(&writer->entries);
    mir_bytes_free(&writer->directory);
    mir_bytes_free(&writer->chunks);
    mir_arena_free(&writer->arena);
    free(writer->measurements);
    free(writer->names);
    free(writer->name_slots);
    free(writer->shapes);
    free(writer->shape_slots);
    free(writer->scratch.values);
    free(writer->scratch.texts);
    free(writer->scratch.columns);
    free(writer);
}

void mir_tlog_segment_abandon(mir_tlog_segment_writer *writer)
{
    if (writer == NULL) return;
    (void)writer->files->close(writer->files->context, writer->handle);
    (void)writer->files->unlink(writer->files->context, writer->path);
    writer_free(writer);
}

mir_status mir_tlog_segment_begin(const mir_tlog_files *files, const char *path,
                                  const mir_tlog_segment_head *head,
                                  mir_tlog_segment_writer **writer, mir_error *error)
{
    mir_tlog_segment_writer *made = calloc(1, sizeof *made);
    if (made == NULL) return no_memory(error);
    made->files = files;
    made->head = *head;
    made->time_min = INT64_MAX;
    made->time_max = INT64_MIN;
    made->name_slot_count = made->shape_slot_count = 64;
    made->name_slots = calloc(64, sizeof *made->name_slots);
    made->shape_slots = calloc(64, sizeof *made->shape_slots);
    made->scratch.values = malloc(sizeof(uint64_t) * MIR_TLOG_CHUNK_ROWS_MAX);
    made->scratch.texts = malloc(sizeof(mir_view) * MIR_TLOG_CHUNK_ROWS_MAX);
    (void)snprintf(made->path, sizeof made->path, "%s", path);
    uint8_t *header = mir_bytes_reserve(&made->buffer, MIR_TLOG_SEGMENT_HEADER_BYTES);
    if (header == NULL || made->name_slots == NULL || made->shape_slots == NULL ||
        made->scratch.values == NULL || made->scratch.texts == NULL) {
        writer_free(made);
        return no_memory(error);
    }
    memset(header, 0, MIR_TLOG_SEGMENT_HEADER_BYTES);
    memcpy(header, segment_magic, sizeof segment_magic);
    (void)mir_tlog_put_u32(header + 8, MIR_TLOG_SEGMENT_VERSION);
    (void)mir_tlog_put_u64(header + 16, head->id);
    (void)mir_tlog_put_u64(header + 24, head->generation_min);
    (void)mir_tlog_put_u64(header + 32, head->generation_max);
    (void)mir_tlog_put_u64(header + 56, mir_hash_fixed(header, 56));
    made->buffer.size = MIR_TLOG_SEGMENT_HEADER_BYTES;
    const int result = files->create(files->context, path, &made->handle);
    if (result < 0) {
        writer_free(made);
        return mir_error_os(error, -result, "create %s", path);
    }
    *writer = made;
    return MIR_OK;
}

uint64_t mir_tlog_segment_written(const mir_tlog_segment_writer *writer)
{
    return writer->offset + writer->buffer.size;
}

static mir_status writer_flush(mir_tlog_segment_writer *writer, mir_error *error)
{
    if (!mir_bytes_ok(&writer->buffer)) return no_memory(error);
    const int result = mir_tlog_file_write(writer->files, writer->handle, writer->buffer.data,
                                           writer->buffer.size, writer->offset);
    if (result < 0) return mir_error_os(error, -result, "write %s", writer->path);
    writer->offset += writer->buffer.size;
    writer->buffer.size = 0;
    return MIR_OK;
}

/* The open index block becomes bytes of `index` and an entry of `directory`. */
static mir_status block_end(mir_tlog_segment_writer *writer, mir_tlog_codec *codec,
                            mir_error *error)
{
    if (writer->entries.size == 0) return MIR_OK;
    const size_t start = writer->index.size;
    if (mir_bytes_reserve(&writer->index, INDEX_BLOCK_HEADER_BYTES) == NULL) {
        return no_memory(error);
    }
    writer->index.size += INDEX_BLOCK_HEADER_BYTES;
    mir_tlog_compress(codec, &writer->index, writer->entries.data, writer->entries.size);
    if (!mir_bytes_ok(&writer->index)) return no_memory(error);
    uint8_t *head = writer->index.data + start;
    const size_t stored = writer->index.size - start - INDEX_BLOCK_HEADER_BYTES;
    (void)mir_tlog_put_u32(head, (uint32_t)stored);
    (void)mir_tlog_put_u32(head + 4, (uint32_t)writer->entries.size);
    (void)mir_tlog_put_u64(head + 8, mir_hash_fixed(head + INDEX_BLOCK_HEADER_BYTES, stored));
    mir_tlog_bytes_varint(&writer->directory, stored + INDEX_BLOCK_HEADER_BYTES);
    mir_tlog_bytes_varint(&writer->directory, writer->block_measurement);
    mir_tlog_bytes_text(&writer->directory, writer->block_device);
    if (!mir_bytes_ok(&writer->directory)) return no_memory(error);
    writer->block_count++;
    writer->entries.size = 0;
    return MIR_OK;
}

static mir_status series_end(mir_tlog_segment_writer *writer, mir_tlog_codec *codec,
                             mir_error *error)
{
    if (!writer->series_open) return MIR_OK;
    writer->series_open = false;
    if (writer->entries.size == 0) {
        writer->block_measurement = writer->measurement;
        writer->block_device = writer->device;
    }
    mir_tlog_bytes_varint(&writer->entries, writer->measurement);
    mir_tlog_bytes_text(&writer->entries, writer->device);
    mir_tlog_bytes_varint(&writer->entries, writer->chunk_count);
    mir_bytes_view(&writer->entries, mir_bytes_as_view(&writer->chunks));
    if (!mir_bytes_ok(&writer->entries) || !mir_bytes_ok(&writer->chunks)) return no_memory(error);
    writer->chunks.size = 0;
    writer->chunk_count = 0;
    writer->series_total++;
    return writer->entries.size >= MIR_TLOG_INDEX_BLOCK_BYTES ? block_end(writer, codec, error)
                                                              : MIR_OK;
}

static mir_status series_begin(mir_tlog_segment_writer *writer, mir_tlog_codec *codec,
                               mir_view measurement, mir_view device, mir_error *error)
{
    const bool same = writer->measurement_count > 0 &&
                      mir_view_eq(writer->measurements[writer->measurement_count - 1], measurement);
    if (writer->series_open && same && mir_view_eq(writer->device, device)) return MIR_OK;
    mir_status status = series_end(writer, codec, error);
    if (status != MIR_OK) return status;
    if (!same) {
        if (writer->measurement_count == writer->measurement_capacity) {
            const uint32_t capacity = writer->measurement_capacity * 2 + 8;
            mir_view *more = realloc(writer->measurements, capacity * sizeof *more);
            if (more == NULL) return no_memory(error);
            writer->measurements = more;
            writer->measurement_capacity = capacity;
        }
        char *own = mir_arena_strdup(&writer->arena, measurement);
        if (own == NULL) return no_memory(error);
        writer->measurements[writer->measurement_count++] = mir_view_of(own, measurement.size);
    }
    char *own = mir_arena_strdup(&writer->arena, device);
    if (own == NULL) return no_memory(error);
    writer->device = mir_view_of(own, device.size);
    writer->measurement = writer->measurement_count - 1;
    writer->series_open = true;
    return MIR_OK;
}

/* The number of a column's name and type among the names of its measurement. */
static mir_status name_of(mir_tlog_segment_writer *writer, mir_view name, mir_column_type type,
                          uint32_t *number)
{
    const uint64_t hash =
        mir_hash_view(name) + writer->measurement * UINT64_C(0x9e3779b97f4a7c15) + type;
    uint32_t slot = (uint32_t)hash & (writer->name_slot_count - 1);
    for (; writer->name_slots[slot] != 0; slot = (slot + 1) & (writer->name_slot_count - 1)) {
        const writer_name *known = &writer->names[writer->name_slots[slot] - 1];
        if (known->measurement == writer->measurement && known->type == type &&
            mir_view_eq(known->name, name)) {
            *number = writer->name_slots[slot] - 1;
            return MIR_OK;
        }
    }
    if (writer->name_count == writer->name_capacity) {
        const uint32_t capacity = writer->name_capacity * 2 + 16;
        writer_name *more = realloc(writer->names, capacity * sizeof *more);
        if (more == NULL) return MIR_E_NO_MEMORY;
        writer->names = more;
        writer->name_capacity = capacity;
    }
    char *own = mir_arena_strdup(&writer->arena, name);
    if (own == NULL) return MIR_E_NO_MEMORY;
    writer->names[writer->name_count++] =
        (writer_name){writer->measurement, type, mir_view_of(own, name.size)};
    writer->name_slots[slot] = writer->name_count;
    *number = writer->name_count - 1;
    if (writer->name_count * 2 < writer->name_slot_count) return MIR_OK;
    uint32_t *slots = calloc((size_t)writer->name_slot_count * 2, sizeof *slots);
    if (slots == NULL) return MIR_E_NO_MEMORY;
    free(writer->name_slots);
    writer->name_slots = slots;
    writer->name_slot_count *= 2;
    for (uint32_t i = 0; i < writer->name_count; i++) {
        const writer_name *known = &writer->names[i];
        slot = (uint32_t)(mir_hash_view(known->name) +
                          known->measurement * UINT64_C(0x9e3779b97f4a7c15) + known->type) &
               (writer->name_slot_count - 1);
        while (slots[slot] != 0) slot = (slot + 1) & (writer->name_slot_count - 1);
        slots[slot] = i + 1;
    }
    return MIR_OK;
}

static uint32_t shape_slot(const mir_tlog_segment_writer *writer, const uint32_t *columns,
                           uint32_t column_count)
{
    uint32_t slot = (uint32_t)(mir_hash_bytes(columns, column_count * sizeof *columns)) &
                    (writer->shape_slot_count - 1);
    for (; writer->shape_slots[slot] != 0; slot = (slot + 1) & (writer->shape_slot_count - 1)) {
        const writer_shape *known = &writer->shapes[writer->shape_slots[slot] - 1];
        /* Numbers of names tell measurements apart. */
        if (known->column_count == column_count &&
            memcmp(known->columns, columns, column_count * sizeof *columns) == 0) {
            break;
        }
    }
    return slot;
}

static mir_status shape_of(mir_tlog_segment_writer *writer, const uint32_t *columns,
                           uint32_t column_count, uint32_t *number)
{
    uint32_t slot = shape_slot(writer, columns, column_count);
    if (writer->shape_slots[slot] != 0) {
        *number = writer->shape_slots[slot] - 1;
        return MIR_OK;
    }
    if (writer->shape_count == writer->shape_capacity) {
        const uint32_t capacity = writer->shape_capacity * 2 + 16;
        writer_shape *more = realloc(writer->shapes, capacity * sizeof *more);
        if (more == NULL) return MIR_E_NO_MEMORY;
        writer->shapes = more;
        writer->shape_capacity = capacity;
    }
    uint32_t *own = mir_arena_alloc(&writer->arena, (column_count + 1) * sizeof *own);
    if (own == NULL) return MIR_E_NO_MEMORY;
    if (column_count > 0) memcpy(own, columns, column_count * sizeof *own);
    writer->shapes[writer->shape_count++] = (writer_shape){.measurement = writer->measurement,
                                                           .column_count = column_count,
                                                           .columns = own,
                                                           .time_min = INT64_MAX,
                                                           .time_max = INT64_MIN};
    writer->shape_slots[slot] = writer->shape_count;
    *number = writer->shape_count - 1;
    if (writer->shape_count * 2 < writer->shape_slot_count) return MIR_OK;
    uint32_t *slots = calloc((size_t)writer->shape_slot_count * 2, sizeof *slots);
    if (slots == NULL) return MIR_E_NO_MEMORY;
    free(writer->shape_slots);
    writer->shape_slots = slots;
    writer->shape_slot_count *= 2;
    for (uint32_t i = 0; i < writer->shape_count; i++) {
        slots[shape_slot(writer, writer->shapes[i].columns, writer->shapes[i].column_count)] =
            i + 1;
    }
    return MIR_OK;
}

/* Enters the chunk whose bytes were just added to the buffer into the index; its shape is found
 * here. */
static mir_status chunk_enter(mir_tlog_segment_writer *writer, const uint32_t *names,
                              uint32_t column_count, const mir_tlog_chunk *chunk, mir_error *error)
{
    uint32_t shape;
    if (shape_of(writer, names, column_count, &shape) != MIR_OK) return no_memory(error);
    writer_shape *known = &writer->shapes[shape];
    known->rows += chunk->rows;
    if (chunk->time_min < known->time_min) known->time_min = chunk->time_min;
    if (chunk->time_max > known->time_max) known->time_max = chunk->time_max;
    if (chunk->time_min < writer->time_min) writer->time_min = chunk->time_min;
    if (chunk->time_max > writer->time_max) writer->time_max = chunk->time_max;
    writer->rows += chunk->rows;
    writer->chunk_total++;
    writer->chunk_count++;
    mir_tlog_bytes_varint(&writer->chunks, chunk->offset);
    mir_tlog_bytes_varint(&writer->chunks, chunk->size);
    mir_tlog_bytes_varint(&writer->chunks, (uint64_t)shape * 2 + (chunk->full ? 1 : 0));
    mir_tlog_bytes_varint(&writer->chunks, chunk->rows);
    mir_tlog_bytes_varint(&writer->chunks, mir_tlog_zigzag(chunk->time_min));
    mir_tlog_bytes_varint(&writer->chunks, (uint64_t)chunk->time_max - (uint64_t)chunk->time_min);
    mir_tlog_bytes_varint(&writer->chunks, chunk->generation);
    if (!mir_bytes_ok(&writer->chunks)) return no_memory(error);
    return writer->buffer.size >= WRITE_BUFFER_BYTES ? writer_flush(writer, error) : MIR_OK;
}

static mir_status scratch_room(mir_tlog_segment_writer *writer, uint32_t column_count)
{
    if (column_count <= writer->scratch.column_capacity) return MIR_OK;
    const mir_tlog_gather_column **more =
        realloc(writer->scratch.columns, column_count * sizeof(mir_tlog_gather_column *));
    if (more == NULL) return MIR_E_NO_MEMORY;
    writer->scratch.columns = more;
    writer->scratch.column_capacity = column_count;
    return MIR_OK;
}

/* How many rows come before a pause: a chunk of rows that come evenly takes less than one with a
 * jump of the time and of all values in it. Where pauses are many, the rows stay together. */
static uint32_t rows_before_pause(const int64_t *times, uint32_t rows)
{
    if (rows < PAUSE_ROWS) return rows;
    const uint64_t mean = ((uint64_t)times[rows - 1] - (uint64_t)times[0]) / (rows - 1);
    if (mean > UINT64_MAX / PAUSE_STEPS) return rows;
    const uint64_t pause = mean * PAUSE_STEPS;
    uint32_t pauses = 0;
    for (uint32_t i = 1; i < rows; i++) {
        pauses += (uint64_t)times[i] - (uint64_t)times[i - 1] > pause;
    }
    if (pauses == 0 || pauses > rows / PAUSE_ROWS) return rows;
    uint32_t before = 1;
    while ((uint64_t)times[before] - (uint64_t)times[before - 1] <= pause) before++;
    return before;
}

static uint32_t chunk_rows(const mir_tlog_gather *gather, uint32_t first, uint32_t end)
{
    uint32_t rows = end - first;
    if (rows > MIR_TLOG_CHUNK_ROWS_MAX) rows = MIR_TLOG_CHUNK_ROWS_MAX;
    rows = rows_before_pause(gather->times + first, rows);
    if (gather->text_count == 0) return rows;
    uint64_t bytes = 0;
    for (uint32_t row = 0; row < rows; row++) {
        for (uint32_t i = 0; i < gather->column_count; i++) {
            const mir_tlog_gather_column *column = &gather->columns[i];
            if (column->type == MIR_COLUMN_STRING && column->present[first + row] != 0) {
                bytes += gather->texts[column->values[first + row]].size;
            }
        }
        if (bytes > MIR_TLOG_CHUNK_TEXT_BYTES && row > 0) return row;
    }
    return rows;
}

mir_status mir_tlog_segment_put(mir_tlog_segment_writer *writer, mir_tlog_codec *codec,
                                mir_view measurement, mir_view device,
                                const mir_tlog_gather *gather, uint32_t first, uint32_t end,
                                uint64_t generation, mir_error *error)
{
    MIR_ASSERT(first < end && end <= gather->row_count);
    mir_status status = series_begin(writer, codec, measurement, device, error);
    if (status != MIR_OK) return status;
    if (scratch_room(writer, gather->column_count) != MIR_OK) return no_memory(error);
    uint32_t *names = malloc((gather->column_count + 1) * sizeof *names);
    if (names == NULL) return no_memory(error);
    while (first < end && status == MIR_OK) {
        for (uint32_t i = 0; i < gather->column_count; i++) {
            writer->scratch.columns[i] = &gather->columns[i];
        }
        if (gather->column_count > 1) {
            qsort(writer->scratch.columns, gather->column_count, sizeof *writer->scratch.columns,
                  column_compare);
        }
        const uint32_t rows = chunk_rows(gather, first, end);
        const uint64_t offset = writer->offset + writer->buffer.size;
        const uint64_t light = codec->light_bytes;
        const uint32_t kept = chunk_encode(codec, &writer->buffer, &writer->scratch,
                                           gather->column_count, gather, first, rows);
        writer->light_bytes += codec->light_bytes - light;
        for (uint32_t i = 0; i < kept && status == MIR_OK; i++) {
            const mir_tlog_gather_column *column = writer->scratch.columns[i];
            status = name_of(writer, column->name, column->type, &names[i]);
        }
        if (!mir_bytes_ok(&writer->buffer) || status != MIR_OK) {
            status = no_memory(error);
            break;
        }
        const uint64_t size = writer->offset + writer->buffer.size - offset;
        if (size > MIR_TLOG_CHUNK_BYTES_MAX) {
            status = mir_error_set(error, MIR_E_TOO_LARGE, "a chunk of %llu bytes",
                                   (unsigned long long)size);
            break;
        }
        const mir_tlog_chunk chunk = {.offset = offset,
                                      .size = (uint32_t)size,
                                      .rows = rows,
                                      .full = writer->scratch.full,
                                      .time_min = gather->times[first],
                                      .time_max = gather->times[first + rows - 1],
                                      .generation = generation};
        status = chunk_enter(writer, names, kept, &chunk, error);
        first += rows;
    }
    free(names);
    return status;
}

mir_status mir_tlog_segment_put_chunk(mir_tlog_segment_writer *writer, mir_tlog_codec *codec,
                                      mir_view measurement, mir_view device,
                                      const mir_tlog_segment *from, const mir_tlog_chunk *chunk,
                                      mir_view bytes, mir_error *error)
{
    const mir_tlog_segment_shape *shape = &from->shapes[chunk->shape];
    mir_status status = series_begin(writer, codec, measurement, device, error);
    if (status != MIR_OK) return status;
    uint32_t *names = malloc((shape->column_count + 1) * sizeof *names);
    if (names == NULL) return no_memory(error);
    for (uint32_t i = 0; i < shape->column_count && status == MIR_OK; i++) {
        const mir_column *column = &shape->columns[i];
        status =
            name_of(writer, mir_view_of(column->name, column->name_size), column->type, &names[i]);
    }
    const uint64_t offset = writer->offset + writer->buffer.size;
    mir_bytes_view(&writer->buffer, bytes);
    if (status != MIR_OK || !mir_bytes_ok(&writer->buffer)) {
        status = no_memory(error);
    } else {
        mir_tlog_chunk moved = *chunk;
        moved.offset = offset;
        /* Its share: chunks are not told apart by how they are packed. */
        if (!codec->dense && from->size > 0) {
            writer->light_bytes +=
                (uint64_t)((double)from->light_bytes * chunk->size / (double)from->size);
        }
        status = chunk_enter(writer, names, shape->column_count, &moved, error);
    }
    free(names);
    return status;
}

static void footer_build(const mir_tlog_segment_writer *writer, mir_bytes *out)
{
    mir_tlog_bytes_varint(out, writer->measurement_count);
    for (uint32_t i = 0; i < writer->measurement_count; i++) {
        mir_tlog_bytes_text(out, writer->measurements[i]);
    }
    mir_tlog_bytes_varint(out, writer->name_count);
    for (uint32_t i = 0; i < writer->name_count; i++) {
        mir_bytes_u8(out, (uint8_t)writer->names[i].type);
        mir_tlog_bytes_text(out, writer->names[i].name);
    }
    mir_tlog_bytes_varint(out, writer->shape_count);
    for (uint32_t i = 0; i < writer->shape_count; i++) {
        const writer_shape *shape = &writer->shapes[i];
        mir_tlog_bytes_varint(out, shape->measurement);
        mir_tlog_bytes_varint(out, shape->column_count);
        for (uint32_t c = 0; c < shape->column_count; c++) {
            mir_tlog_bytes_varint(out, shape->columns[c]);
        }
        mir_tlog_bytes_varint(out, shape->rows);
        mir_tlog_bytes_varint(out, mir_tlog_zigzag(shape->time_min));
        mir_tlog_bytes_varint(out, mir_tlog_zigzag(shape->time_max));
    }
    mir_tlog_bytes_varint(out, writer->rows);
    mir_tlog_bytes_varint(out, writer->chunk_total);
    mir_tlog_bytes_varint(out, mir_tlog_zigzag(writer->time_min));
    mir_tlog_bytes_varint(out, mir_tlog_zigzag(writer->time_max));
    mir_tlog_bytes_varint(out, writer->block_count);
    mir_bytes_view(out, mir_bytes_as_view(&writer->directory));
}

static void spare_put(mir_bytes *out, uint64_t id, const mir_tlog_spare *spare)
{
    uint8_t *head = mir_bytes_reserve(out, MIR_TLOG_SPARE_HEAD_BYTES);
    if (head == NULL) return;
    memcpy(head, spare_magic, sizeof spare_magic);
    (void)mir_tlog_put_u64(head + 8, id);
    (void)mir_tlog_put_u64(head + 16, spare->index_offset);
    (void)mir_tlog_put_u64(head + 24, spare->index_bytes);
    (void)mir_tlog_put_u32(head + 32, spare->stored);
    (void)mir_tlog_put_u32(head + 36, spare->raw_size);
    (void)mir_tlog_put_u64(head + 40, spare->hash);
    (void)mir_tlog_put_u64(head + 48, mir_hash_fixed(head, 48));
    out->size += MIR_TLOG_SPARE_HEAD_BYTES;
}

bool mir_tlog_spare_read(const uint8_t *head, uint64_t id, mir_tlog_spare *spare)
{
    if (memcmp(head, spare_magic, sizeof spare_magic) != 0 || mir_tlog_get_u64(head + 8) != id ||
        mir_tlog_get_u64(head + 48) != mir_hash_fixed(head, 48))
        return false;
    *spare = (mir_tlog_spare){.index_offset = mir_tlog_get_u64(head + 16),
                              .index_bytes = mir_tlog_get_u64(head + 24),
                              .stored = mir_tlog_get_u32(head + 32),
                              .raw_size = mir_tlog_get_u32(head + 36),
                              .hash = mir_tlog_get_u64(head + 40)};
    return spare->raw_size <= MIR_TLOG_FOOTER_BYTES_MAX;
}

static mir_status segment_end(mir_tlog_segment_writer *writer, mir_tlog_codec *codec,
                              uint64_t *size, mir_error *error)
{
    mir_status status = series_end(writer, codec, error);
    if (status == MIR_OK) status = block_end(writer, codec, error);
    if (status != MIR_OK) return status;
    mir_bytes raw = {0}, footer = {0};
    footer_build(writer, &raw);
    const size_t raw_size = raw.size;
    if (mir_bytes_ok(&raw)) mir_tlog_compress(codec, &footer, raw.data, raw.size);
    const bool made = mir_bytes_ok(&raw) && mir_bytes_ok(&footer);
    mir_bytes_free(&raw);
    if (!made) {
        mir_bytes_free(&footer);
        return no_memory(error);
    }
    const uint64_t spare_offset = writer->offset + writer->buffer.size;
    const bool spare_index = writer->index.size <= SPARE_INDEX_SMALL_BYTES ||
                             writer->index.size <= spare_offset / SPARE_INDEX_PART;
    mir_tlog_spare spare = {.index_offset = spare_offset + MIR_TLOG_SPARE_HEAD_BYTES + footer.size +
                                            MIR_TLOG_SPARE_GAP_BYTES,
                            .index_bytes = writer->index.size,
                            .stored = (uint32_t)footer.size,
                            .raw_size = (uint32_t)raw_size,
                            .hash = mir_hash_fixed(footer.data, footer.size)};
    if (spare_index) spare.index_offset += writer->index.size;
    spare_put(&writer->buffer, writer->head.id, &spare);
    mir_bytes_view(&writer->buffer, mir_bytes_as_view(&footer));
    if (spare_index) mir_bytes_view(&writer->buffer, mir_bytes_as_view(&writer->index));
    /* One page that cannot be read must not have both. */
    static const uint8_t gap[MIR_TLOG_SPARE_GAP_BYTES];
    mir_bytes_append(&writer->buffer, gap, sizeof gap);
    mir_bytes_view(&writer->buffer, mir_bytes_as_view(&writer->index));
    mir_bytes_view(&writer->buffer, mir_bytes_as_view(&footer));
    mir_bytes_free(&footer);
    if (raw_size > MIR_TLOG_FOOTER_BYTES_MAX)
        return mir_error_set(error, MIR_E_TOO_LARGE, "a segment's footer is too large");
    uint8_t trailer[MIR_TLOG_SEGMENT_TRAILER_BYTES];
    const uint64_t spares =
        TRAILER_SPARE_FOOTER | TRAILER_SPARE_GAP | (spare_index ? TRAILER_SPARE_INDEX : 0);
    (void)mir_tlog_put_u64(trailer, spare.index_offset);
    (void)mir_tlog_put_u64(trailer + 8, spare.index_offset + spare.index_bytes);
    (void)mir_tlog_put_u32(trailer + 16, spare.stored);
    (void)mir_tlog_put_u32(trailer + 20, spare.raw_size);
    (void)mir_tlog_put_u64(trailer + 24, spare.hash);
    (void)mir_tlog_put_u64(trailer + 32, writer->head.id);
    (void)mir_tlog_put_u64(trailer + 40, writer->light_bytes | spares << TRAILER_LIGHT_BITS);
    memcpy(trailer + 48, trailer_magic, sizeof trailer_magic);
    (void)mir_tlog_put_u64(trailer + 56, mir_hash_fixed(trailer, 56));
    mir_bytes_append(&writer->buffer, trailer, sizeof trailer);
    status = writer_flush(writer, error);
    if (status != MIR_OK) return status;
    const int result = writer->files->sync(writer->files->context, writer->handle);
    if (result < 0) return mir_error_os(error, -result, "sync %s", writer->path);
    *size = writer->offset;
    return MIR_OK;
}

mir_status mir_tlog_segment_end(mir_tlog_segment_writer *writer, mir_tlog_codec *codec,
                                uint64_t *size, mir_error *error)
{
    const mir_status status = segment_end(writer, codec, size, error);
    if (status != MIR_OK) {
        mir_tlog_segment_abandon(writer);
        return status;
    }
    (void)writer->files->close(writer->files->context, writer->handle);
    writer_free(writer);
    return MIR_OK;
}

/* ---- Opening ---- */

static bool count_read(mir_tlog_reader *in, uint64_t *count)
{
    *count = mir_tlog_read_varint(in);
    /* Whatever is counted takes a byte at least. */
    return !in->failed && *count <= mir_tlog_reader_left(in);
}

static mir_status footer_parse(mir_tlog_segment *segment, mir_view footer, uint64_t index_offset,
                               uint64_t index_end)
{
    mir_tlog_reader in = mir_tlog_reader_of(footer.data, footer.size);
    uint64_t count;
    if (!count_read(&in, &count)) return MIR_E_CORRUPT;
    mir_view *measurements = mir_arena_alloc(&segment->arena, (count + 1) * sizeof *measurements);
    if (measurements == NULL) return MIR_E_NO_MEMORY;
    for (uint64_t i = 0; i < count; i++) measurements[i] = mir_tlog_read_text(&in);
    segment->measurements = measurements;
    segment->measurement_count = (uint32_t)count;
    uint64_t name_count;
    if (!count_read(&in, &name_count)) return MIR_E_CORRUPT;
    mir_column *names = mir_arena_alloc(&segment->arena, (name_count + 1) * sizeof *names);
    if (names == NULL) return MIR_E_NO_MEMORY;
    for (uint64_t i = 0; i < name_count; i++) {
        const uint8_t type = mir_tlog_read_u8(&in);
        const mir_view name = mir_tlog_read_text(&in);
        if (in.failed || type < MIR_COLUMN_I64 || type > MIR_COLUMN_STRING ||
            name.size > MIR_TLOG_COLUMN_NAME_BYTES_MAX + MIR_TLOG_ROLLUP_SUFFIX_BYTES) {
            return MIR_E_CORRUPT;
        }
        const char *own = mir_arena_strdup(&segment->arena, name);
        if (own == NULL) return MIR_E_NO_MEMORY;
        names[i] = (mir_column){own, (uint32_t)name.size, (mir_column_type)type};
    }
    if (!count_read(&in, &count)) return MIR_E_CORRUPT;
    mir_tlog_segment_shape *shapes = mir_arena_alloc(&segment->arena, (count + 1) * sizeof *shapes);
    if (shapes == NULL) return MIR_E_NO_MEMORY;
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t measurement = mir_tlog_read_varint(&in);
        uint64_t columns;
        if (!count_read(&in, &columns) || measurement >= segment->measurement_count) {
            return MIR_E_CORRUPT;
        }
        mir_column *own = mir_arena_alloc(&segment->arena, (columns + 1) * sizeof *own);
        if (own == NULL) return MIR_E_NO_MEMORY;
        for (uint64_t c = 0; c < columns; c++) {
            const uint64_t name = mir_tlog_read_varint(&in);
            if (name >= name_count) return MIR_E_CORRUPT;
            own[c] = names[name];
        }
        shapes[i] = (mir_tlog_segment_shape){.measurement = (uint32_t)measurement,
                                             .column_count = (uint32_t)columns,
                                             .columns = own,
                                             .rows = mir_tlog_read_varint(&in),
                                             .time_min = mir_tlog_read_signed(&in),
                                             .time_max = mir_tlog_read_signed(&in)};
    }
    segment->shapes = shapes;
    segment->shape_count = (uint32_t)count;
    segment->rows = mir_tlog_read_varint(&in);
    segment->chunk_count = mir_tlog_read_varint(&in);
    segment->time_min = mir_tlog_read_signed(&in);
    segment->time_max = mir_tlog_read_signed(&in);
    if (!count_read(&in, &count)) return MIR_E_CORRUPT;
    mir_tlog_index_block *blocks = mir_arena_alloc(&segment->arena, (count + 1) * sizeof *blocks);
    if (blocks == NULL) return MIR_E_NO_MEMORY;
    uint64_t offset = index_offset;
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t size = mir_tlog_read_varint(&in);
        const uint64_t measurement = mir_tlog_read_varint(&in);
        const mir_view device = mir_tlog_read_text(&in);
        if (in.failed || size < INDEX_BLOCK_HEADER_BYTES || size > index_end - offset ||
            size > INDEX_BLOCK_BYTES_MAX || measurement >= segment->measurement_count) {
            return MIR_E_CORRUPT;
        }
        blocks[i] = (mir_tlog_index_block){offset, (uint32_t)size, (uint32_t)measurement, device};
        offset += size;
    }
    segment->blocks = blocks;
    segment->block_count = (uint32_t)count;
    segment->index_bytes = offset - index_offset;
    return in.failed || in.at != in.end ? MIR_E_CORRUPT : MIR_OK;
}

static mir_status segment_load(mir_tlog_segment *segment, const char *path, uint64_t id,
                               mir_tlog_codec *codec, mir_error *error)
{
    uint8_t header[MIR_TLOG_SEGMENT_HEADER_BYTES];
    uint8_t trailer[MIR_TLOG_SEGMENT_TRAILER_BYTES];
    const mir_tlog_files *files = segment->files;
    int result = files->size(files->context, segment->handle, &segment->size);
    if (result < 0) return mir_error_os(error, -result, "stat %s", path);
    if (segment->size < sizeof header + sizeof trailer) {
        return mir_error_set(error, MIR_E_CORRUPT, "%s is too short", path);
    }
    result = mir_tlog_file_read(files, segment->handle, header, sizeof header, 0);
    if (result == 0) {
        result = mir_tlog_file_read(files, segment->handle, trailer, sizeof trailer,
                                    segment->size - sizeof trailer);
    }
    if (result < 0) return mir_error_os(error, -result, "read %s", path);
    const bool header_whole = memcmp(header, segment_magic, sizeof segment_magic) == 0 &&
                              mir_tlog_get_u64(header + 56) == mir_hash_fixed(header, 56);
    const uint32_t version = mir_tlog_get_u32(header + 8);
    if (header_whole && (version == 0 || version > MIR_TLOG_SEGMENT_VERSION)) {
        return mir_tlog_version_refuse(error, path, version, MIR_TLOG_SEGMENT_VERSION);
    }
    if (!header_whole || mir_tlog_get_u64(header + 16) != id) {
        return mir_error_set(error, MIR_E_CORRUPT, "%s has a damaged header", path);
    }
    segment->version = version;
    segment->head.id = id;
    segment->head.generation_min = mir_tlog_get_u64(header + 24);
    segment->head.generation_max = mir_tlog_get_u64(header + 32);
    const uint64_t index_offset = mir_tlog_get_u64(trailer);
    const uint64_t footer_offset = mir_tlog_get_u64(trailer + 8);
    const uint32_t stored = mir_tlog_get_u32(trailer + 16);
    const uint32_t raw_size = mir_tlog_get_u32(trailer + 20);
    const uint64_t more = mir_tlog_get_u64(trailer + 40);
    const uint64_t spares = more >> TRAILER_LIGHT_BITS;
    segment->light_bytes = more & ((UINT64_C(1) << TRAILER_LIGHT_BITS) - 1);
    segment->has_spare_footer = (spares & TRAILER_SPARE_FOOTER) != 0;
    segment->has_spare_index = (spares & TRAILER_SPARE_INDEX) != 0;
    if ((spares & TRAILER_SPARE_GAP) != 0 && index_offset >= MIR_TLOG_SPARE_GAP_BYTES)
        segment->spare_gap = MIR_TLOG_SPARE_GAP_BYTES;
    segment->index_offset = index_offset;
    segment->footer_bytes = stored;
    segment->footer_raw_bytes = raw_size;
    if (segment->light_bytes > segment->size) segment->light_bytes = segment->size;
    if (memcmp(trailer + 48, trailer_magic, sizeof trailer_magic) != 0 ||
        mir_tlog_get_u64(trailer + 56) != mir_hash_fixed(trailer, 56) ||
        mir_tlog_get_u64(trailer + 32) != id || raw_size > MIR_TLOG_FOOTER_BYTES_MAX ||
        footer_offset > segment->size - sizeof trailer ||
        stored != segment->size - sizeof trailer - footer_offset || index_offset < sizeof header ||
        index_offset > footer_offset) {
        return mir_error_set(error, MIR_E_CORRUPT, "%s has a damaged trailer", path);
    }
    uint8_t *packed = malloc((size_t)stored + 1);
    uint8_t *raw = mir_arena_alloc(&segment->arena, (size_t)raw_size + 1);
    mir_status status = MIR_E_NO_MEMORY;
    if (packed == NULL || raw == NULL) goto out;
    result = mir_tlog_file_read(files, segment->handle, packed, stored, footer_offset);
    if (result < 0) {
        status = mir_error_os(error, -result, "read %s", path);
        goto out;
    }
    status = MIR_E_CORRUPT;
    if (mir_tlog_get_u64(trailer + 24) == mir_hash_fixed(packed, stored)) {
        status = mir_tlog_decompress(codec, raw, raw_size, mir_view_of(packed, stored));
    }
    if (status == MIR_OK) {
        status = footer_parse(segment, mir_view_of(raw, raw_size), index_offset, footer_offset);
    }
    if (status == MIR_E_CORRUPT) {
        (void)mir_error_set(error, status, "%s has a damaged footer", path);
    }
out:
    if (status == MIR_E_NO_MEMORY) (void)mir_error_set(error, status, "out of memory");
    free(packed);
    return status;
}

mir_status mir_tlog_segment_open(const mir_tlog_files *files, const char *path, uint64_t id,
                                 mir_tlog_codec *codec, mir_tlog_segment **segment,
                                 mir_error *error)
{
    mir_tlog_segment *made = calloc(1, sizeof *made);
    if (made == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    made->files = files;
    atomic_init(&made->references, 1);
    const int result = files->open(files->context, path, &made->handle);
    if (result < 0) {
        free(made);
        return mir_error_os(error, -result, "open %s", path);
    }
    const mir_status status = segment_load(made, path, id, codec, error);
    if (status != MIR_OK) {
        mir_tlog_segment_release(made);
        return status;
    }
    *segment = made;
    return MIR_OK;
}

void mir_tlog_segment_retain(mir_tlog_segment *segment)
{
    /* Whoever retains holds a reference, so nothing needs to be ordered. */
    (void)atomic_fetch_add_explicit(&segment->references, 1, memory_order_relaxed);
}

void mir_tlog_segment_release(mir_tlog_segment *segment)
{
    /* Pairs with itself: the last one sees what all others did before they let go. */
    if (atomic_fetch_sub_explicit(&segment->references, 1, memory_order_acq_rel) != 1) return;
    (void)segment->files->close(segment->files->context, segment->handle);
    for (uint32_t i = 0; i < MIR_TLOG_KEPT_BLOCKS; i++) {
        free(atomic_load_explicit(&segment->kept[i], memory_order_relaxed));
    }
    mir_arena_free(&segment->arena);
    free(segment);
}

/* ---- Index ---- */

/* The block at hand is done with. */
static void block_put_back(mir_tlog_index_cursor *cursor)
{
    mir_tlog_raw_block *block = cursor->raw;
    cursor->raw = NULL;
    if (block != NULL && cursor->keeps && block->size <= MIR_TLOG_KEPT_BLOCK_BYTES_MAX) {
        block =
            atomic_exchange_explicit(&cursor->segment->kept[block->number % MIR_TLOG_KEPT_BLOCKS],
                                     block, memory_order_acq_rel);
    }
    free(block);
}

static void block_begin(mir_tlog_index_cursor *cursor)
{
    cursor->in = mir_tlog_reader_of(cursor->raw->bytes, cursor->raw->size);
    cursor->has_before = cursor->has_entry = false;
}

/* Whether the block was kept; then it is the one at hand. */
static bool block_take(mir_tlog_index_cursor *cursor, uint32_t number)
{
    block_put_back(cursor);
    mir_tlog_raw_block *block = atomic_exchange_explicit(
        &cursor->segment->kept[number % MIR_TLOG_KEPT_BLOCKS], NULL, memory_order_acq_rel);
    cursor->raw = block;
    if (block == NULL) return false;
    if (block->number != number) {
        block_put_back(cursor);
        return false;
    }
    cursor->block = number;
    cursor->next_block = number + 1;
    block_begin(cursor);
    return true;
}

void mir_tlog_index_fini(mir_tlog_index_cursor *cursor)
{
    block_put_back(cursor);
    free(cursor->chunks);
    *cursor = (mir_tlog_index_cursor){.segment = cursor->segment};
}

/* From one of the two places where a block stands. */
static mir_status block_fetch(const mir_tlog_segment *segment, mir_tlog_codec *codec,
                              uint32_t number, uint64_t offset, mir_tlog_raw_block **raw)
{
    const uint32_t size = segment->blocks[number].size;
    uint8_t *packed = malloc(size);
    if (packed == NULL) return MIR_E_NO_MEMORY;
    mir_status status = MIR_E_CORRUPT;
    const int result = mir_tlog_file_read(segment->files, segment->handle, packed, size, offset);
    if (result < 0) {
        if (result != -ENODATA) status = mir_status_from_errno(-result);
        goto out;
    }
    const uint32_t stored = size - INDEX_BLOCK_HEADER_BYTES;
    const uint32_t raw_size = mir_tlog_get_u32(packed + 4);
    if (mir_tlog_get_u32(packed) != stored || raw_size > INDEX_BLOCK_BYTES_MAX ||
        mir_tlog_get_u64(packed + 8) != mir_hash_fixed(packed + INDEX_BLOCK_HEADER_BYTES, stored)) {
        goto out;
    }
    mir_tlog_raw_block *made = malloc(sizeof *made + raw_size + 1);
    if (made == NULL) {
        status = MIR_E_NO_MEMORY;
        goto out;
    }
    made->number = number;
    made->size = raw_size;
    status = mir_tlog_decompress(codec, made->bytes, raw_size,
                                 mir_view_of(packed + INDEX_BLOCK_HEADER_BYTES, stored));
    if (status == MIR_OK) {
        *raw = made;
    } else {
        free(made);
    }
out:
    free(packed);
    return status;
}

static mir_status block_load(mir_tlog_index_cursor *cursor, mir_tlog_codec *codec, uint32_t number)
{
    mir_tlog_segment *segment = cursor->segment;
    const uint64_t offset = segment->blocks[number].offset;
    block_put_back(cursor);
    cursor->block = number;
    cursor->from_spare = false;
    cursor->in = (mir_tlog_reader){0};
    cursor->has_before = cursor->has_entry = false;
    cursor->next_block = number + 1;
    const mir_status status = block_fetch(segment, codec, number, offset, &cursor->raw);
    const uint64_t back = segment->index_bytes + segment->spare_gap;
    if ((status == MIR_E_CORRUPT || status == MIR_E_IO) && segment->has_spare_index &&
        offset >= back &&
        block_fetch(segment, codec, number, offset - back, &cursor->raw) == MIR_OK) {
        cursor->from_spare = true;
    }
    if (cursor->raw == NULL) return status;
    block_begin(cursor);
    return MIR_OK;
}

static mir_status entry_read(mir_tlog_index_cursor *cursor)
{
    mir_tlog_reader *in = &cursor->in;
    const mir_tlog_segment *segment = cursor->segment;
    const uint64_t measurement = mir_tlog_read_varint(in);
    const mir_view device = mir_tlog_read_text(in);
    uint64_t count;
    if (!count_read(in, &count) || measurement >= segment->measurement_count) goto corrupt;
    if (count > cursor->chunk_capacity) {
        mir_tlog_chunk *more = realloc(cursor->chunks, count * sizeof *more);
        if (more == NULL) return MIR_E_NO_MEMORY;
        cursor->chunks = more;
        cursor->chunk_capacity = (uint32_t)count;
    }
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t offset = mir_tlog_read_varint(in);
        const uint64_t size = mir_tlog_read_varint(in);
        const uint64_t form = mir_tlog_read_varint(in);
        const uint64_t shape = segment->version == 1 ? form : form / 2;
        const uint64_t rows = mir_tlog_read_varint(in);
        const int64_t time_min = mir_tlog_read_signed(in);
        const uint64_t span = mir_tlog_read_varint(in);
        const uint64_t generation = mir_tlog_read_varint(in);
        if (in->failed || size < MIR_TLOG_CHUNK_HEADER_BYTES || size > MIR_TLOG_CHUNK_BYTES_MAX ||
            offset > segment->size || size > segment->size - offset ||
            shape >= segment->shape_count || rows > MIR_TLOG_CHUNK_ROWS_MAX ||
            segment->shapes[shape].measurement != measurement) {
            goto corrupt;
        }
        cursor->chunks[i] = (mir_tlog_chunk){.offset = offset,
                                             .size = (uint32_t)size,
                                             .shape = (uint32_t)shape,
                                             .rows = (uint32_t)rows,
                                             .full = segment->version > 1 && (form & 1) != 0,
                                             .time_min = time_min,
                                             .time_max = (int64_t)((uint64_t)time_min + span),
                                             .generation = generation};
    }
    cursor->has_before = cursor->has_entry;
    cursor->before_measurement = cursor->measurement;
    cursor->before_device = cursor->device;
    cursor->has_entry = true;
    cursor->measurement = (uint32_t)measurement;
    cursor->device = device;
    cursor->chunk_count = (uint32_t)count;
    return MIR_OK;
corrupt:
    cursor->has_entry = false;
    in->at = in->end; /* go on with the next block */
    return MIR_E_CORRUPT;
}

mir_status mir_tlog_index_next(mir_tlog_index_cursor *cursor, mir_tlog_codec *codec)
{
    while (cursor->in.at == cursor->in.end) {
        if (cursor->next_block >= cursor->segment->block_count) return MIR_E_EMPTY;
        const mir_status status = block_load(cursor, codec, cursor->next_block);
        if (status != MIR_OK) return status;
    }
    return entry_read(cursor);
}

static int key_compare(uint32_t measurement, mir_view device, uint32_t other_measurement,
                       mir_view other)
{
    if (measurement != other_measurement) return measurement < other_measurement ? -1 : 1;
    return mir_view_compare(device, other);
}

mir_status mir_tlog_index_find(mir_tlog_index_cursor *cursor, mir_tlog_codec *codec,
                               mir_view measurement, mir_view device)
{
    const mir_tlog_segment *segment = cursor->segment;
    uint32_t wanted = 0;
    while (wanted < segment->measurement_count &&
           !mir_view_eq(segment->measurements[wanted], measurement)) {
        wanted++;
    }
    if (wanted == segment->measurement_count) return MIR_E_NOT_FOUND;
    /* The last block whose first key is not behind the wanted one. */
    uint32_t low = 0;
    uint32_t high = segment->block_count;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const mir_tlog_index_block *block = &segment->blocks[middle];
        if (key_compare(block->measurement, block->device, wanted, device) <= 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == 0) return MIR_E_NOT_FOUND;
    cursor->keeps = true;
    if (cursor->raw != NULL && cursor->raw->number == low - 1) {
        /* Devices are mostly asked for in ascending order: go on behind the last one. Those that are
         * not here lie between two that are. */
        const int order = cursor->has_entry
                              ? key_compare(cursor->measurement, cursor->device, wanted, device)
                              : 1;
        if (cursor->has_entry && order == 0) return MIR_OK;
        if (order > 0) {
            if (cursor->has_entry && cursor->has_before &&
                key_compare(cursor->before_measurement, cursor->before_device, wanted, device) <
                    0) {
                return MIR_E_NOT_FOUND;
            }
            block_begin(cursor);
        }
    } else if (!block_take(cursor, low - 1)) {
        const mir_status status = block_load(cursor, codec, low - 1);
        if (status != MIR_OK) return status;
    }
    while (cursor->in.at != cursor->in.end) {
        const mir_status status = entry_read(cursor);
        if (status != MIR_OK) return status;
        const int order = key_compare(cursor->measurement, cursor->device, wanted, device);
        if (order == 0) return MIR_OK;
        if (order > 0) break;
    }
    return MIR_E_NOT_FOUND;
}

mir_status mir_tlog_segment_check_spares(mir_tlog_segment *segment, mir_tlog_codec *codec)
{
    mir_status status = MIR_OK;
    const uint64_t back = segment->index_bytes + segment->spare_gap;
    if (segment->spare_gap > 0) {
        uint8_t gap[MIR_TLOG_SPARE_GAP_BYTES];
        const int result = mir_tlog_file_read(segment->files, segment->handle, gap, sizeof gap,
                                              segment->index_offset - sizeof gap);
        if (result < 0) return result == -ENODATA ? MIR_E_CORRUPT : mir_status_from_errno(-result);
        if (gap[0] != 0 || memcmp(gap, gap + 1, sizeof gap - 1) != 0) return MIR_E_CORRUPT;
    }
    if (segment->has_spare_footer) {
        const uint64_t after =
            segment->index_offset - (segment->has_spare_index ? back : segment->spare_gap);
        const uint64_t size = MIR_TLOG_SPARE_HEAD_BYTES + (uint64_t)segment->footer_bytes;
        if (after > segment->index_offset || after < size) return MIR_E_CORRUPT;
        uint8_t *bytes = malloc(size);
        if (bytes == NULL) return MIR_E_NO_MEMORY;
        const int result =
            mir_tlog_file_read(segment->files, segment->handle, bytes, size, after - size);
        mir_tlog_spare spare;
        if (result < 0)
            status = result == -ENODATA ? MIR_E_CORRUPT : mir_status_from_errno(-result);
        else if (!mir_tlog_spare_read(bytes, segment->head.id, &spare) ||
                 spare.index_offset != segment->index_offset ||
                 spare.index_bytes != segment->index_bytes ||
                 spare.stored != segment->footer_bytes ||
                 spare.raw_size != segment->footer_raw_bytes ||
                 spare.hash !=
                     mir_hash_fixed(bytes + MIR_TLOG_SPARE_HEAD_BYTES, segment->footer_bytes))
            status = MIR_E_CORRUPT;
        free(bytes);
    }
    for (uint32_t i = 0; segment->has_spare_index && i < segment->block_count && status == MIR_OK;
         i++) {
        const uint64_t offset = segment->blocks[i].offset;
        if (offset < back) return MIR_E_CORRUPT;
        mir_tlog_raw_block *raw = NULL;
        status = block_fetch(segment, codec, i, offset - back, &raw);
        free(raw);
    }
    return status;
}
