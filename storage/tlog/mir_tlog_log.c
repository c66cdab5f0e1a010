/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_log.h"

#include <errno.h>
#include <stdlib.h>

#include "mir_assert.h"
#include "mir_hash.h"
#include "mir_tlog.h"

static const uint8_t log_magic[8] = {'M', 'I', 'R', 'T', 'L', 'O', 'G', 0};

enum {
    FRAME_MAGIC = 0x4d52464d, /* "MFRM" */
    HEADER_COPY_BYTES = 64,
};

void mir_tlog_log_header(uint8_t *to, uint64_t generation, int64_t base_ns)
{
    memset(to, 0, MIR_TLOG_LOG_HEADER_BYTES);
    memcpy(to, log_magic, sizeof log_magic);
    (void)mir_tlog_put_u32(to + 8, MIR_TLOG_LOG_VERSION);
    (void)mir_tlog_put_u64(to + 16, generation);
    (void)mir_tlog_put_u64(to + 24, (uint64_t)base_ns);
    (void)mir_tlog_put_u64(to + 56, mir_hash_fixed(to, 56));
    memcpy(to + HEADER_COPY_BYTES, to, HEADER_COPY_BYTES);
}

mir_status mir_tlog_log_header_read(mir_view bytes, size_t written, uint64_t generation,
                                    int64_t *base_ns, mir_error *error)
{
    if (bytes.size < MIR_TLOG_LOG_HEADER_BYTES) return MIR_E_EMPTY;
    for (int copy = 0; copy < 2; copy++) {
        const uint8_t *header = bytes.data + copy * HEADER_COPY_BYTES;
        if (memcmp(header, log_magic, sizeof log_magic) != 0 ||
            mir_tlog_get_u64(header + 56) != mir_hash_fixed(header, 56)) {
            continue;
        }
        if (mir_tlog_get_u32(header + 8) != MIR_TLOG_LOG_VERSION) {
            return mir_tlog_version_refuse(error, "the telemetry log", mir_tlog_get_u32(header + 8),
                                           MIR_TLOG_LOG_VERSION);
        }
        if (mir_tlog_get_u64(header + 16) != generation) continue;
        *base_ns = (int64_t)mir_tlog_get_u64(header + 24);
        return MIR_OK;
    }
    /* The header is on the disk before the first row: without one it was never finished. */
    bool bare = true;
    for (size_t i = MIR_TLOG_LOG_HEADER_BYTES; i < written && bare; i++) bare = bytes.data[i] == 0;
    if (bare) return MIR_E_EMPTY;
    return mir_error_set(error, MIR_E_CORRUPT, "both copies of the log's header are damaged");
}

/* ---- Frames ---- */

static uint32_t frame_check(const uint8_t *frame, uint64_t generation)
{
    uint8_t covered[32];
    memcpy(covered, frame, 12);
    memcpy(covered + 12, frame + 16, 16);
    return (uint32_t)XXH3_64bits_withSeed(covered, 28, generation);
}

size_t mir_tlog_log_frame(uint8_t *frame, uint32_t payload_size, uint32_t row_count,
                          uint64_t sequence, uint64_t generation)
{
    (void)mir_tlog_put_u32(frame, FRAME_MAGIC);
    (void)mir_tlog_put_u32(frame + 4, payload_size);
    (void)mir_tlog_put_u32(frame + 8, row_count);
    (void)mir_tlog_put_u64(frame + 16, sequence);
    (void)mir_tlog_put_u64(frame + 24,
                           mir_hash_fixed(frame + MIR_TLOG_FRAME_HEADER_BYTES, payload_size));
    (void)mir_tlog_put_u32(frame + 12, frame_check(frame, generation));
    size_t size = MIR_TLOG_FRAME_HEADER_BYTES + (size_t)payload_size;
    while (size % MIR_TLOG_FRAME_ALIGN != 0) frame[size++] = 0;
    return size;
}

mir_tlog_frame_found mir_tlog_log_frame_at(mir_view bytes, size_t start, uint64_t generation,
                                           mir_tlog_frame *frame)
{
    if (bytes.size - start < MIR_TLOG_FRAME_HEADER_BYTES) return MIR_TLOG_FRAME_NONE;
    const uint8_t *header = bytes.data + start;
    if (mir_tlog_get_u32(header) != FRAME_MAGIC ||
        mir_tlog_get_u32(header + 12) != frame_check(header, generation)) {
        return MIR_TLOG_FRAME_NONE;
    }
    const size_t left = bytes.size - start - MIR_TLOG_FRAME_HEADER_BYTES;
    const uint32_t size = mir_tlog_get_u32(header + 4);
    size_t end = start + MIR_TLOG_FRAME_HEADER_BYTES + size;
    end = (end + MIR_TLOG_FRAME_ALIGN - 1) / MIR_TLOG_FRAME_ALIGN * MIR_TLOG_FRAME_ALIGN;
    *frame = (mir_tlog_frame){.start = start,
                              .end = end,
                              .row_count = mir_tlog_get_u32(header + 8),
                              .sequence = mir_tlog_get_u64(header + 16)};
    if (size > left) return MIR_TLOG_FRAME_PART;
    const uint8_t *payload = header + MIR_TLOG_FRAME_HEADER_BYTES;
    if (mir_tlog_get_u64(header + 24) != mir_hash_fixed(payload, size)) return MIR_TLOG_FRAME_NONE;
    if (end > bytes.size) frame->end = bytes.size;
    frame->payload = mir_view_of(payload, size);
    return MIR_TLOG_FRAME_WHOLE;
}

/* The next whole frame at or behind `start`; whole frames are in the order of their sequence. From
 * `written` on there are only zeros, which may still be the end of a frame. */
static bool frame_find(mir_view bytes, size_t written, size_t start, uint64_t generation,
                       mir_tlog_frame *frame)
{
    for (; start < written && bytes.size - start >= MIR_TLOG_FRAME_HEADER_BYTES;
         start += MIR_TLOG_FRAME_ALIGN) {
        /* Mostly there is nothing at all: a look, and on. */
        if (mir_tlog_get_u32(bytes.data + start) != FRAME_MAGIC) continue;
        if (mir_tlog_log_frame_at(bytes, start, generation, frame) == MIR_TLOG_FRAME_WHOLE) {
            return true;
        }
    }
    return false;
}

/* ---- Records ---- */

size_t mir_tlog_log_shape_size(const mir_tlog_shape *shape)
{
    size_t size = 4 * MIR_TLOG_VARINT_BYTES_MAX + shape->measurement.size;
    for (uint32_t i = 0; i < shape->column_count; i++) {
        size += 1 + 3 + shape->columns[i].name_size;
    }
    return size;
}

static uint8_t *put_text(uint8_t *to, mir_view text)
{
    to = mir_tlog_put_varint(to, text.size);
    if (text.size > 0) memcpy(to, text.data, text.size);
    return to + text.size;
}

static uint8_t *put_column(uint8_t *to, const mir_column *column)
{
    *to++ = (uint8_t)column->type;
    return put_text(to, mir_view_of(column->name, column->name_size));
}

uint8_t *mir_tlog_log_put_shape(uint8_t *to, const mir_tlog_shape *shape)
{
    to = mir_tlog_put_varint(to, MIR_TLOG_RECORD_SHAPE << 1 | 1);
    to = mir_tlog_put_varint(to, shape->id);
    to = put_text(to, shape->measurement);
    to = mir_tlog_put_varint(to, shape->column_count);
    for (uint32_t i = 0; i < shape->column_count; i++) to = put_column(to, &shape->columns[i]);
    return to;
}

size_t mir_tlog_log_series_size(const mir_tlog_mem_series *series)
{
    return 4 * MIR_TLOG_VARINT_BYTES_MAX + series->device.size;
}

uint8_t *mir_tlog_log_put_series(uint8_t *to, const mir_tlog_mem_series *series)
{
    to = mir_tlog_put_varint(to, MIR_TLOG_RECORD_SERIES << 1 | 1);
    to = mir_tlog_put_varint(to, series->id);
    to = mir_tlog_put_varint(to, series->shape->id);
    return put_text(to, series->device);
}

size_t mir_tlog_log_columns_size(const mir_tlog_mem_series *series, uint32_t first, uint32_t end)
{
    if (first == end) return 0;
    size_t size = 4 * MIR_TLOG_VARINT_BYTES_MAX;
    for (uint32_t i = first; i < end; i++) {
        size += 1 + 3 + series->extra_table[i]->column.name_size;
    }
    return size;
}

uint8_t *mir_tlog_log_put_columns(uint8_t *to, const mir_tlog_mem_series *series, uint32_t first,
                                  uint32_t end)
{
    if (first == end) return to;
    to = mir_tlog_put_varint(to, MIR_TLOG_RECORD_COLUMNS << 1 | 1);
    to = mir_tlog_put_varint(to, series->id);
    to = mir_tlog_put_varint(to, first);
    to = mir_tlog_put_varint(to, end - first);
    for (uint32_t i = first; i < end; i++) to = put_column(to, &series->extra_table[i]->column);
    return to;
}

/* ---- Replay ---- */

struct mir_tlog_records {
    mir_tlog_mem *mem;
    mir_tlog_shape **shapes; /* by the number that the log gave them */
    mir_tlog_mem_series **series;
    uint8_t **extra_types; /* of each series, as many as it has */
    uint32_t *extra_counts;
    uint64_t shape_count;
    uint64_t series_count;
    uint64_t number_max;
    mir_tlog_cell *cells;
    mir_column *columns;
    /* Rows go to this instead of into `mem`, if it is there. */
    mir_tlog_log_row_fn row;
    void *row_context;
    uint32_t skip; /* rows that were given before */
    uint32_t taken;
};

/* Room for number `at`: a log numbers densely, so a number needs bytes to have come before it. */
static bool numbers_grow(mir_tlog_records *r, bool shapes, uint64_t at)
{
    uint64_t *count = shapes ? &r->shape_count : &r->series_count;
    if (at < *count) return true;
    if (at > r->number_max) return false;
    uint64_t grown = *count < 64 ? 64 : *count * 2;
    while (grown <= at) grown *= 2;
    const size_t extra = (size_t)(grown - *count);
    if (shapes) {
        mir_tlog_shape **more = realloc(r->shapes, grown * sizeof(mir_tlog_shape *));
        if (more == NULL) return false;
        memset(more + *count, 0, extra * sizeof(mir_tlog_shape *));
        r->shapes = more;
    } else {
        mir_tlog_mem_series **more = realloc(r->series, grown * sizeof(mir_tlog_mem_series *));
        if (more != NULL) r->series = more;
        uint8_t **types = realloc(r->extra_types, grown * sizeof(uint8_t *));
        if (types != NULL) r->extra_types = types;
        uint32_t *counts = realloc(r->extra_counts, grown * sizeof(uint32_t));
        if (counts != NULL) r->extra_counts = counts;
        if (more == NULL || types == NULL || counts == NULL) return false;
        memset(more + *count, 0, extra * sizeof(mir_tlog_mem_series *));
        memset(types + *count, 0, extra * sizeof(uint8_t *));
        memset(counts + *count, 0, extra * sizeof(uint32_t));
    }
    *count = grown;
    return true;
}

static bool columns_read(mir_tlog_records *r, mir_tlog_reader *in, uint64_t count)
{
    if (count > MIR_TLOG_COLUMNS_MAX) return false;
    for (uint64_t i = 0; i < count; i++) {
        const uint8_t type = mir_tlog_read_u8(in);
        const mir_view name = mir_tlog_read_text(in);
        if (in->failed || type < MIR_COLUMN_I64 || type > MIR_COLUMN_STRING || name.size == 0 ||
            name.size > MIR_TLOG_COLUMN_NAME_BYTES_MAX) {
            return false;
        }
        r->columns[i] = (mir_column){.name = (const char *)name.data,
                                     .name_size = (uint32_t)name.size,
                                     .type = (mir_column_type)type};
    }
    return true;
}

static mir_status replay_shape(mir_tlog_records *r, mir_tlog_reader *in, bool apply)
{
    const uint64_t id = mir_tlog_read_varint(in);
    const mir_view measurement = mir_tlog_read_text(in);
    const uint64_t count = mir_tlog_read_varint(in);
    if (in->failed || !columns_read(r, in, count)) return MIR_E_CORRUPT;
    if (measurement.size == 0 || measurement.size > MIR_TLOG_MEASUREMENT_BYTES_MAX) {
        return MIR_E_CORRUPT;
    }
    if (!apply) return MIR_OK;
    if (!numbers_grow(r, true, id)) return MIR_E_CORRUPT;
    if (r->shapes[id] != NULL) return MIR_OK;
    return mir_tlog_mem_shape(r->mem, measurement, r->columns, (uint32_t)count, &r->shapes[id]);
}

static mir_status replay_series(mir_tlog_records *r, mir_tlog_reader *in, bool apply)
{
    const uint64_t id = mir_tlog_read_varint(in);
    const uint64_t shape = mir_tlog_read_varint(in);
    const mir_view device = mir_tlog_read_text(in);
    if (in->failed || device.size == 0 || device.size > MIR_TLOG_DEVICE_BYTES_MAX) {
        return MIR_E_CORRUPT;
    }
    if (!apply) return MIR_OK;
    /* A shape whose frame is lost: its rows are counted as lost when they come. */
    if (shape >= r->shape_count || r->shapes[shape] == NULL) return MIR_OK;
    if (!numbers_grow(r, false, id)) return MIR_E_CORRUPT;
    if (r->series[id] != NULL) return MIR_OK;
    return mir_tlog_mem_series_add(r->mem, r->shapes[shape], device, &r->series[id]);
}

static mir_status replay_columns(mir_tlog_records *r, mir_tlog_reader *in, bool apply)
{
    const uint64_t id = mir_tlog_read_varint(in);
    const uint64_t first = mir_tlog_read_varint(in);
    const uint64_t count = mir_tlog_read_varint(in);
    if (in->failed || !columns_read(r, in, count)) return MIR_E_CORRUPT;
    if (!apply) return MIR_OK;
    if (id >= r->series_count || r->series[id] == NULL) return MIR_OK;
    mir_tlog_mem_series *series = r->series[id];
    if (first > series->extra_count) return MIR_OK; /* the ones before it are lost */
    if (count > MIR_TLOG_COLUMNS_MAX - first) return MIR_E_CORRUPT;
    if (first + count > r->extra_counts[id]) {
        uint8_t *types = realloc(r->extra_types[id], (size_t)(first + count));
        if (types == NULL) return MIR_E_NO_MEMORY;
        r->extra_types[id] = types;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t column;
        const mir_column *named = &r->columns[i];
        const mir_status status = mir_tlog_mem_column(
            r->mem, series, mir_view_of(named->name, named->name_size), named->type, &column);
        if (status == MIR_E_NO_MEMORY) return status;
        if (status != MIR_OK || column != series->shape->column_count + first + i) {
            return MIR_E_CORRUPT;
        }
        r->extra_types[id][first + i] = (uint8_t)named->type;
        if (r->extra_counts[id] < first + i + 1) r->extra_counts[id] = (uint32_t)first + i + 1;
    }
    return MIR_OK;
}

static mir_status replay_row(mir_tlog_records *r, mir_tlog_reader *in, uint64_t id, bool apply,
                             mir_tlog_replay *replay)
{
    const uint8_t *start = in->at;
    const uint64_t head = mir_tlog_read_varint(in);
    const mir_view body = mir_tlog_read_bytes(in, head >> MIR_TLOG_ROW_FLAG_BITS);
    if (in->failed) return MIR_E_CORRUPT;
    if (!apply) return MIR_OK;
    if (r->taken < r->skip) {
        r->taken++;
        return MIR_OK;
    }
    if (id >= r->series_count || r->series[id] == NULL) {
        r->taken++;
        replay->rows_lost++;
        return MIR_OK;
    }
    mir_tlog_mem_series *series = r->series[id];
    const mir_tlog_shape *shape = series->shape;
    const uint32_t flags = (uint32_t)head & ((1u << MIR_TLOG_ROW_FLAG_BITS) - 1);
    int64_t time_ns;
    uint32_t count;
    if (mir_tlog_row_read(body, flags, r->mem->base_ns, shape->types, shape->column_count,
                          r->extra_types[id], r->extra_counts[id], &time_ns, r->cells,
                          &count) != MIR_OK) {
        r->taken++;
        replay->rows_lost++;
        return MIR_OK;
    }
    if (r->row != NULL) {
        const mir_tlog_log_row row = {
            .series = series, .time_ns = time_ns, .cells = r->cells, .cell_count = count};
        const mir_status status = r->row(r->row_context, &row);
        if (status == MIR_OK) r->taken++;
        return status;
    }
    if ((flags & MIR_TLOG_ROW_SPARSE) == 0) {
        mir_tlog_mem_seen(series, NULL);
    } else {
        uint64_t present[MIR_TLOG_COLUMNS_MAX / 64] = {0};
        for (uint32_t i = 0; i < count; i++) {
            const uint32_t column = r->cells[i].column;
            if (column < shape->column_count) present[column / 64] |= UINT64_C(1) << (column % 64);
        }
        mir_tlog_mem_seen(series, present);
    }
    const mir_status status =
        mir_tlog_mem_append(r->mem, series, start, (uint32_t)(in->at - start), time_ns);
    if (status == MIR_OK) {
        replay->rows++;
        r->mem->rows++;
    }
    return status;
}

static mir_status replay_frame(mir_tlog_records *r, mir_view payload, bool names, bool rows,
                               mir_tlog_replay *replay)
{
    mir_tlog_reader in = mir_tlog_reader_of(payload.data, payload.size);
    mir_status status = MIR_OK;
    while (in.at != in.end && status == MIR_OK) {
        const uint64_t tag = mir_tlog_read_varint(&in);
        if ((tag & 1) == 0) {
            status = replay_row(r, &in, tag >> 1, rows, replay);
        } else if (tag >> 1 == MIR_TLOG_RECORD_SHAPE) {
            status = replay_shape(r, &in, names);
        } else if (tag >> 1 == MIR_TLOG_RECORD_SERIES) {
            status = replay_series(r, &in, names);
        } else if (tag >> 1 == MIR_TLOG_RECORD_COLUMNS) {
            status = replay_columns(r, &in, names);
        } else {
            status = MIR_E_CORRUPT;
        }
        if (in.failed) status = MIR_E_CORRUPT;
    }
    return status;
}

static mir_status replay_frames(mir_tlog_records *r, mir_view bytes, size_t written,
                                uint64_t generation, bool names, bool rows, mir_tlog_replay *replay)
{
    mir_tlog_frame frame;
    for (size_t at = MIR_TLOG_LOG_HEADER_BYTES; frame_find(bytes, written, at, generation, &frame);
         at = frame.end) {
        const mir_status status = replay_frame(r, frame.payload, names, rows, replay);
        if (status == MIR_E_NO_MEMORY) return status;
        if (status != MIR_OK && rows) replay->corrupt_frames++;
    }
    return MIR_OK;
}

/* Finds how far whole frames reach and what lies between and behind them; how many rows they say that
 * they have. */
static uint64_t survey(mir_view bytes, size_t written, uint64_t generation, mir_tlog_replay *replay)
{
    uint64_t rows = 0;
    size_t at = MIR_TLOG_LOG_HEADER_BYTES;
    mir_tlog_frame frame;
    while (frame_find(bytes, written, at, generation, &frame)) {
        if (frame.start != at) replay->corrupt_frames++;
        rows += frame.row_count;
        at = frame.end;
    }
    size_t end = at > written ? at : written;
    while (end > at && bytes.data[end - 1] == 0) end--;
    replay->bytes = at;
    replay->torn_bytes = end - at;
    return rows;
}

static void records_fini(mir_tlog_records *r)
{
    mir_tlog_mem_free(r->mem);
    for (uint64_t i = 0; i < r->series_count; i++) free(r->extra_types[i]);
    free(r->extra_types);
    free(r->extra_counts);
    free(r->series);
    free(r->shapes);
    free(r->cells);
    free(r->columns);
}

/* On failure what was made stays, for records_fini. */
static mir_status records_init(mir_tlog_records *r, uint64_t generation, int64_t base_ns,
                               size_t bytes)
{
    r->number_max = bytes / 4;
    r->cells = malloc(sizeof *r->cells * MIR_TLOG_ROW_CELLS_MAX);
    r->columns = malloc(sizeof *r->columns * MIR_TLOG_COLUMNS_MAX);
    if (r->cells == NULL || r->columns == NULL) return MIR_E_NO_MEMORY;
    return mir_tlog_mem_new(generation, base_ns, (uint32_t)(bytes / 1024), &r->mem);
}

mir_status mir_tlog_records_new(uint64_t generation, int64_t base_ns, size_t bytes,
                                mir_tlog_records **records)
{
    mir_tlog_records *made = calloc(1, sizeof *made);
    if (made == NULL) return MIR_E_NO_MEMORY;
    const mir_status status = records_init(made, generation, base_ns, bytes);
    if (status != MIR_OK) {
        mir_tlog_records_free(made);
        return status;
    }
    *records = made;
    return MIR_OK;
}

void mir_tlog_records_free(mir_tlog_records *records)
{
    if (records == NULL) return;
    records_fini(records);
    free(records);
}

mir_status mir_tlog_records_read(mir_tlog_records *records, mir_view payload, uint32_t skip,
                                 mir_tlog_log_row_fn row, void *context, uint32_t *taken,
                                 uint64_t *rows_lost)
{
    mir_tlog_replay counted = {0};
    records->row = row;
    records->row_context = context;
    records->skip = skip;
    records->taken = 0;
    const mir_status status = replay_frame(records, payload, true, row != NULL, &counted);
    *taken = records->taken;
    *rows_lost += counted.rows_lost;
    return status;
}

static mir_status replay_written(mir_view bytes, size_t written, uint64_t generation,
                                 mir_tlog_mem **mem, mir_tlog_replay *replay, mir_error *error)
{
    int64_t base_ns = 0;
    mir_status status = mir_tlog_log_header_read(bytes, written, generation, &base_ns, error);
    if (status != MIR_OK) return status;
    mir_tlog_replay found = {0};
    (void)survey(bytes, written, generation, &found);
    if (found.bytes == MIR_TLOG_LOG_HEADER_BYTES && found.torn_bytes == 0) return MIR_E_EMPTY;
    mir_tlog_records r = {0};
    status = records_init(&r, generation, base_ns, bytes.size);
    if (status != MIR_OK) goto out;
    if (found.corrupt_frames == 0) {
        status = replay_frames(&r, bytes, written, generation, true, true, &found);
    } else {
        /* The frame that named a series may be a lost one: its name comes again further on. */
        status = replay_frames(&r, bytes, written, generation, true, false, &found);
        if (status == MIR_OK)
            status = replay_frames(&r, bytes, written, generation, false, true, &found);
    }
    if (status != MIR_OK) goto out;
    for (mir_tlog_mem_series *series = atomic_load_explicit(&r.mem->all, memory_order_relaxed);
         series != NULL; series = series->all_next) {
        mir_tlog_mem_publish(series);
    }
    *mem = r.mem;
    r.mem = NULL;
    *replay = found;
out:
    if (status == MIR_E_NO_MEMORY) (void)mir_error_set(error, status, "out of memory");
    records_fini(&r);
    return status;
}

mir_status mir_tlog_log_replay_bytes(mir_view bytes, uint64_t generation, mir_tlog_mem **mem,
                                     mir_tlog_replay *replay, mir_error *error)
{
    return replay_written(bytes, bytes.size, generation, mem, replay, error);
}

/* A log is made as long as it may become, so most of it may never have been written. */
static int written_read(const mir_tlog_files *files, int handle, uint8_t *bytes, uint64_t size,
                        size_t *written)
{
    uint64_t start;
    uint64_t end = 0;
    for (*written = 0; *written < size; *written = (size_t)end) {
        int result = files->data(files->context, handle, *written, &start, &end);
        if (result == -ENXIO) return 0;
        if (result < 0) return result;
        if (end > size) end = size;
        if (start >= end) return 0; /* it has grown meanwhile, which no log does */
        result = mir_tlog_file_read(files, handle, bytes + start, end - start, start);
        if (result < 0) return result;
    }
    return 0;
}

mir_status mir_tlog_log_replay(const mir_tlog_files *files, const char *path, uint64_t generation,
                               mir_tlog_mem **mem, mir_tlog_replay *replay, mir_error *error)
{
    int handle;
    int result = files->open(files->context, path, &handle);
    if (result < 0) return mir_error_os(error, -result, "open %s", path);
    uint64_t size = 0;
    uint8_t *bytes = NULL;
    mir_status status;
    result = files->size(files->context, handle, &size);
    if (result < 0) {
        status = mir_error_os(error, -result, "stat %s", path);
        goto out;
    }
    if (size > MIR_TLOG_LOG_FILE_BYTES_MAX) {
        status = mir_error_set(error, MIR_E_CORRUPT, "%s is larger than any log", path);
        goto out;
    }
    /* What is not read stays untouched, and costs no memory. */
    bytes = calloc(1, size + 1);
    if (bytes == NULL) {
        status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        goto out;
    }
    size_t written;
    result = written_read(files, handle, bytes, size, &written);
    if (result < 0) {
        status = mir_error_os(error, -result, "read %s", path);
        goto out;
    }
    status = replay_written(mir_view_of(bytes, size), written, generation, mem, replay, error);
    if (status != MIR_OK && status != MIR_E_EMPTY) mir_error_wrap(error, "%s", path);
out:
    free(bytes);
    (void)files->close(files->context, handle);
    return status;
}

/* Reads what was written, at most `limit` bytes; *taken: as the file's size, and the limit, allow. */
static mir_status look_once(const mir_tlog_files *files, int handle, uint64_t limit,
                            uint8_t **bytes, size_t *taken, size_t *written, mir_error *error)
{
    uint64_t size = 0;
    int result = files->size(files->context, handle, &size);
    if (result < 0) return mir_error_os(error, -result, "cannot read the log");
    if (size > MIR_TLOG_LOG_FILE_BYTES_MAX)
        return mir_error_set(error, MIR_E_CORRUPT, "it is larger than any log");
    if (size > limit) size = limit;
    uint8_t *made = calloc(1, size + 1);
    if (made == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    result = written_read(files, handle, made, size, written);
    if (result < 0) {
        free(made);
        return mir_error_os(error, -result, "cannot read the log");
    }
    *bytes = made;
    *taken = (size_t)size;
    return MIR_OK;
}

/* Frames whose zeros behind the payload are none: no checksum covers them, and no row needs them. */
static uint32_t padding_damaged(mir_view bytes, size_t written, uint64_t generation)
{
    uint32_t damaged = 0;
    mir_tlog_frame frame;
    for (size_t at = MIR_TLOG_LOG_HEADER_BYTES; frame_find(bytes, written, at, generation, &frame);
         at = frame.end) {
        const uint8_t *end = bytes.data + frame.end;
        const uint8_t *byte = frame.payload.data + frame.payload.size;
        while (byte < end && *byte == 0) byte++;
        damaged += byte < end;
    }
    return damaged;
}

static mir_status look_written(mir_view bytes, size_t written, uint64_t generation,
                               mir_tlog_log_look *look, mir_error *error)
{
    int64_t base_ns;
    const mir_status status = mir_tlog_log_header_read(bytes, written, generation, &base_ns, error);
    if (status != MIR_OK) return status;
    *look = (mir_tlog_log_look){.padding_damaged = padding_damaged(bytes, written, generation)};
    look->found.rows = survey(bytes, written, generation, &look->found);
    for (int copy = 0; copy < 2; copy++) {
        const uint8_t *header = bytes.data + copy * HEADER_COPY_BYTES;
        if (memcmp(header, log_magic, sizeof log_magic) != 0 ||
            mir_tlog_get_u64(header + 56) != mir_hash_fixed(header, 56))
            look->headers_damaged++;
    }
    return MIR_OK;
}

mir_status mir_tlog_log_look_bytes(mir_view bytes, uint64_t generation, mir_tlog_log_look *look,
                                   mir_error *error)
{
    return look_written(bytes, bytes.size, generation, look, error);
}

mir_status mir_tlog_log_look_at(const mir_tlog_files *files, int handle, uint64_t generation,
                                mir_tlog_log_look *look, mir_error *error)
{
    mir_tlog_log_look made = {0};
    uint64_t limit = MIR_TLOG_LOG_FILE_BYTES_MAX;
    uint8_t *bytes = NULL;
    mir_status status = MIR_OK;
    /* Frames are written one behind the other: what is before a whole one has been written, although
     * it was not when it was read. The second look tells that from damage. */
    for (int looks = 0; looks < 2 && status == MIR_OK; looks++) {
        size_t size = 0;
        size_t written = 0;
        free(bytes);
        bytes = NULL;
        status = look_once(files, handle, limit, &bytes, &size, &written, error);
        if (status == MIR_OK)
            status = look_written(mir_view_of(bytes, size), written, generation, &made, error);
        if (made.found.corrupt_frames == 0) break;
        limit = made.found.bytes;
    }
    if (status != MIR_OK) {
        free(bytes);
        return status;
    }
    made.bytes = bytes;
    *look = made;
    return MIR_OK;
}
