/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "mir_assert.h"
#include "mir_clock.h"
#include "mir_hash.h"
#include "mir_log.h"
#include "mir_tlog_internal.h"
#include "mir_tlog_rollup.h"

/* The shard's side: handles, staging, commit, rotation. A row goes into the memtable (not yet shown)
 * and into the staging buffer; commit writes the buffer as one frame and then shows the rows, or
 * takes them back. */

enum {
    STAGING_BYTES_MIN = 16 * 1024,
    STAGING_BYTES_MAX = 2 << 20,
    HANDLE_BUCKETS_MIN = 256,
    RETRY_NS = 1000000000,
    PLAIN_COLUMNS_MAX = 64,
    TYPES_NEAR = 16,
};

struct mir_tlog_series {
    /* What each row needs, together. */
    mir_tlog_mem_series *mem;
    uint64_t generation; /* for which `mem` is */
    uint64_t plain_mask; /* the bits of all columns; 0: too many, or some are strings */
    uint8_t *types;
    uint32_t column_count;
    uint32_t fixed_bytes_max; /* of a row, without its strings and dynamic cells */
    uint32_t holder;          /* the device's place in what is counted of it */
    bool has_strings;
    bool listed; /* in the table: the last one opened of its device and measurement */
    uint8_t types_near[TYPES_NEAR];
    mir_tlog_series *bucket_next;
    mir_tlog_series *all_next;
    mir_tlog_series *all_previous;
    uint64_t hash;
    uint64_t shape_hash;
    mir_view device;
    mir_view measurement;
    mir_column *columns;
};

mir_status mir_tlog_writer_init(mir_tlog *tlog, uint32_t shard)
{
    mir_tlog_writer *writer = &tlog->writers[shard];
    writer->tlog = tlog;
    writer->shard = shard;
    uint64_t capacity = tlog->file_bytes / 4;
    if (capacity < STAGING_BYTES_MIN) capacity = STAGING_BYTES_MIN;
    if (capacity > STAGING_BYTES_MAX) capacity = STAGING_BYTES_MAX;
    writer->staging_capacity = (uint32_t)capacity;
    writer->staging = malloc(capacity + MIR_TLOG_FRAME_HEADER_BYTES + MIR_TLOG_FRAME_ALIGN);
    writer->scratch = malloc(capacity + 2 * MIR_TLOG_VARINT_BYTES_MAX);
    writer->extra_numbers = malloc(sizeof(uint32_t) * 2 * MIR_TLOG_COLUMNS_MAX);
    writer->handles.bucket_count = HANDLE_BUCKETS_MIN;
    writer->handles.buckets = calloc(HANDLE_BUCKETS_MIN + 1, sizeof(mir_tlog_series *));
    writer->held_open = calloc(MIR_TLOG_HOLDERS, sizeof *writer->held_open);
    writer->held_before = calloc(MIR_TLOG_HOLDERS, sizeof *writer->held_before);
    writer->turn = 1;
    if (writer->held_open == NULL || writer->held_before == NULL || writer->staging == NULL ||
        writer->scratch == NULL || writer->extra_numbers == NULL ||
        writer->handles.buckets == NULL) {
        return MIR_E_NO_MEMORY;
    }
    return MIR_OK;
}

static void series_free(mir_tlog_series *series)
{
    free(series);
}

void mir_tlog_writer_fini(mir_tlog_writer *writer)
{
    if (writer->handles.buckets != NULL) {
        mir_tlog_series *series = writer->handles.buckets[writer->handles.bucket_count];
        while (series != NULL) {
            mir_tlog_series *next = series->all_next;
            series_free(series);
            series = next;
        }
    }
    free(writer->handles.buckets);
    free(writer->staging);
    free(writer->scratch);
    free(writer->extra_numbers);
    free(writer->held_open);
    free(writer->held_before);
    mir_tlog_live *frozen = atomic_load_explicit(&writer->frozen, memory_order_acquire);
    while (frozen != NULL) {
        mir_tlog_live *next = frozen->next;
        mir_tlog_live_release(frozen);
        frozen = next;
    }
    mir_tlog_live *spare = atomic_load_explicit(&writer->spare, memory_order_acquire);
    if (spare != NULL) mir_tlog_live_release(spare);
    if (writer->open != NULL) mir_tlog_live_release(writer->open);
}

/* ---- Handles ---- */

/* The slot behind the buckets heads the list of all handles. */
static mir_tlog_series **all_handles(mir_tlog_writer *writer)
{
    return &writer->handles.buckets[writer->handles.bucket_count];
}

static void handles_grow(mir_tlog_writer *writer)
{
    mir_tlog_handle_table *table = &writer->handles;
    const uint32_t bucket_count = table->bucket_count * 2;
    mir_tlog_series **buckets = calloc((size_t)bucket_count + 1, sizeof *buckets);
    if (buckets == NULL) return; /* longer chains until it works */
    mir_tlog_series *all = *all_handles(writer);
    for (mir_tlog_series *series = all; series != NULL; series = series->all_next) {
        if (!series->listed) continue;
        mir_tlog_series **bucket = &buckets[series->hash & (bucket_count - 1)];
        series->bucket_next = *bucket;
        *bucket = series;
    }
    buckets[bucket_count] = all;
    free(table->buckets);
    table->buckets = buckets;
    table->bucket_count = bucket_count;
}

static void handle_unlist(mir_tlog_writer *writer, mir_tlog_series *series)
{
    if (!series->listed) return;
    mir_tlog_series **link =
        &writer->handles.buckets[series->hash & (writer->handles.bucket_count - 1)];
    while (*link != series) link = &(*link)->bucket_next;
    *link = series->bucket_next;
    series->listed = false;
}

static bool columns_equal(const mir_tlog_series *series, const mir_column *columns,
                          uint32_t column_count)
{
    if (series->column_count != column_count) return false;
    for (uint32_t i = 0; i < column_count; i++) {
        const mir_column *own = &series->columns[i];
        if (own->type != columns[i].type || own->name_size != columns[i].name_size ||
            memcmp(own->name, columns[i].name, own->name_size) != 0) {
            return false;
        }
    }
    return true;
}

static mir_status columns_check(const mir_column *columns, uint32_t column_count, size_t *bytes)
{
    if (column_count > MIR_TLOG_COLUMNS_MAX) return MIR_E_TOO_LARGE;
    *bytes = 0;
    for (uint32_t i = 0; i < column_count; i++) {
        if (columns[i].name_size == 0) return MIR_E_INVALID;
        if (columns[i].name_size > MIR_TLOG_COLUMN_NAME_BYTES_MAX) return MIR_E_TOO_LARGE;
        if (columns[i].type < MIR_COLUMN_I64 || columns[i].type > MIR_COLUMN_STRING) {
            return MIR_E_INVALID;
        }
        *bytes += columns[i].name_size + 1;
    }
    return MIR_OK;
}

mir_status mir_tlog_series_open(mir_tlog_writer *writer, mir_view device_id, mir_view measurement,
                                const mir_column *columns, uint32_t column_count,
                                mir_tlog_series **series)
{
    if (device_id.size == 0 || measurement.size == 0 ||
        mir_tlog_rollup_step_of(measurement, NULL) != MIR_TLOG_ROLLUP_NONE) {
        return MIR_E_INVALID;
    }
    if (device_id.size > MIR_TLOG_DEVICE_BYTES_MAX ||
        measurement.size > MIR_TLOG_MEASUREMENT_BYTES_MAX) {
        return MIR_E_TOO_LARGE;
    }
    size_t name_bytes;
    const mir_status status = columns_check(columns, column_count, &name_bytes);
    if (status != MIR_OK) return status;
    mir_tlog_handle_table *table = &writer->handles;
    const uint64_t device_hash = mir_hash_view(device_id);
    const uint64_t hash = device_hash + mir_hash_view(measurement) * UINT64_C(0x9e3779b97f4a7c15);
    mir_tlog_series *known = table->buckets[hash & (table->bucket_count - 1)];
    while (known != NULL && !(known->hash == hash && mir_view_eq(known->device, device_id) &&
                              mir_view_eq(known->measurement, measurement))) {
        known = known->bucket_next;
    }
    if (known != NULL && columns_equal(known, columns, column_count)) {
        *series = known;
        return MIR_OK;
    }
    if (table->count >= writer->tlog->options.series_max) return MIR_E_FULL;
    /* One piece of memory: the handle, its columns, their types, then the texts. */
    const size_t size = sizeof(mir_tlog_series) + column_count * (sizeof(mir_column) + 1) +
                        device_id.size + measurement.size + name_bytes;
    mir_tlog_series *made = calloc(1, size);
    if (made == NULL) return MIR_E_NO_MEMORY;
    made->columns = (mir_column *)(made + 1);
    made->types = (uint8_t *)(made->columns + column_count);
    uint8_t *text = made->types + column_count;
    if (column_count <= TYPES_NEAR) made->types = made->types_near;
    made->hash = hash;
    made->holder = (uint32_t)(device_hash >> 32) % MIR_TLOG_HOLDERS;
    made->column_count = column_count;
    made->fixed_bytes_max = MIR_TLOG_VARINT_BYTES_MAX * (2 + column_count) + (column_count + 7) / 8;
    for (uint32_t i = 0; i < column_count; i++) {
        memcpy(text, columns[i].name, columns[i].name_size);
        made->columns[i] = (mir_column){(const char *)text, columns[i].name_size, columns[i].type};
        made->types[i] = (uint8_t)columns[i].type;
        if (columns[i].type == MIR_COLUMN_STRING) made->has_strings = true;
        text += columns[i].name_size + 1;
        made->shape_hash = made->shape_hash * 31 +
                           mir_hash_bytes(columns[i].name, columns[i].name_size) + columns[i].type;
    }
    if (!made->has_strings && column_count > 0 && column_count <= PLAIN_COLUMNS_MAX) {
        made->plain_mask = UINT64_MAX >> (64 - column_count);
    }
    memcpy(text, device_id.data, device_id.size);
    made->device = mir_view_of(text, device_id.size);
    text += device_id.size;
    memcpy(text, measurement.data, measurement.size);
    made->measurement = mir_view_of(text, measurement.size);
    made->shape_hash += mir_hash_view(measurement);
    if (known != NULL) handle_unlist(writer, known);
    if (table->count >= table->bucket_count) handles_grow(writer);
    mir_tlog_series **bucket = &table->buckets[hash & (table->bucket_count - 1)];
    made->bucket_next = *bucket;
    made->listed = true;
    *bucket = made;
    mir_tlog_series **all = all_handles(writer);
    made->all_next = *all;
    if (*all != NULL) (*all)->all_previous = made;
    *all = made;
    table->count++;
    mir_tlog_count_own(&writer->series_open, 1);
    *series = made;
    return MIR_OK;
}

void mir_tlog_series_close(mir_tlog_writer *writer, mir_tlog_series *series)
{
    handle_unlist(writer, series);
    if (series->all_previous != NULL) {
        series->all_previous->all_next = series->all_next;
    } else {
        *all_handles(writer) = series->all_next;
    }
    if (series->all_next != NULL) series->all_next->all_previous = series->all_previous;
    writer->handles.count--;
    mir_tlog_count_own(&writer->series_open, (uint64_t)-1);
    series_free(series);
}

/* The series in the open memtable. A schema that comes back gets a new one when another schema's
 * rows came between, so that the order of series is that of their rows. */
static mir_status series_mem(mir_tlog_writer *writer, mir_tlog_series *series)
{
    mir_tlog_mem *mem = writer->open->mem;
    mir_tlog_mem_series *latest = mir_tlog_mem_find(mem, series->device, series->measurement);
    if (latest == NULL ||
        !columns_equal(series, latest->shape->columns, latest->shape->column_count)) {
        if (writer->shape_cache_generation != mem->generation) {
            memset(writer->shape_cache, 0, sizeof writer->shape_cache);
            writer->shape_cache_generation = mem->generation;
        }
        mir_tlog_shape **cached = &writer->shape_cache[series->shape_hash % MIR_TLOG_SHAPE_CACHE];
        mir_tlog_shape *shape = *cached;
        mir_status status = MIR_OK;
        if (shape == NULL || !mir_view_eq(shape->measurement, series->measurement) ||
            !columns_equal(series, shape->columns, shape->column_count)) {
            status = mir_tlog_mem_shape(mem, series->measurement, series->columns,
                                        series->column_count, &shape);
            if (status == MIR_OK) *cached = shape;
        }
        if (status == MIR_OK) {
            status = mir_tlog_mem_series_add(mem, shape, series->device, &latest);
        }
        if (status != MIR_OK) return status;
    }
    series->mem = latest;
    series->generation = mem->generation;
    return MIR_OK;
}

/* ---- Shares ---- */

static void hold(mir_tlog_writer *writer, uint32_t holder, uint32_t bytes)
{
    if (writer->held_open[holder] == 0) {
        writer->holders_open++;
        if (writer->held_before[holder] == 0) writer->holders++;
    }
    writer->held_open[holder] += bytes;
}

/* What was held in the log before the one that is full now is sealed, or will be next. */
static void holders_rotate(mir_tlog_writer *writer)
{
    uint32_t *sealed = writer->held_before;
    writer->held_before = writer->held_open;
    writer->held_open = sealed;
    memset(sealed, 0, MIR_TLOG_HOLDERS * sizeof *sealed);
    writer->holders = writer->holders_open;
    writer->holders_open = 0;
}

/* Whether the row has to be refused for the sake of other devices: the log is nearly full, and this
 * one has more of it than if all had the same. */
static bool over_share(const mir_tlog_writer *writer, const mir_tlog_series *series)
{
    const uint64_t file_bytes = writer->tlog->file_bytes;
    const uint64_t unsealed =
        atomic_load_explicit(&writer->frozen_count, memory_order_relaxed) * file_bytes +
        writer->position + writer->staged;
    if (unsealed * 4 <= file_bytes * MIR_TLOG_LOGS_PER_WRITER * 3) return false;
    const uint64_t held =
        (uint64_t)writer->held_open[series->holder] + writer->held_before[series->holder];
    return held * writer->holders > 2 * file_bytes;
}

/* ---- Rotation ---- */

static uint64_t frame_bytes_max(const mir_tlog_writer *writer)
{
    return (uint64_t)writer->staging_capacity + MIR_TLOG_FRAME_HEADER_BYTES + MIR_TLOG_FRAME_ALIGN;
}

static bool room_for_frame(const mir_tlog_writer *writer)
{
    return writer->position + frame_bytes_max(writer) <= writer->tlog->file_bytes;
}

static mir_status rotate(mir_tlog_writer *writer)
{
    MIR_ASSERT(writer->staged == 0);
    if (writer->open->mem->rows == 0) return MIR_OK;
    if (atomic_load_explicit(&writer->frozen_count, memory_order_acquire) >= MIR_TLOG_FROZEN_MAX) {
        return MIR_E_FULL;
    }
    /* Pairs with the release of the thread that made it. */
    mir_tlog_live *spare = atomic_exchange_explicit(&writer->spare, NULL, memory_order_acquire);
    if (spare == NULL) {
        const int why = atomic_load_explicit(&writer->spare_status, memory_order_relaxed);
        return why == MIR_OK ? MIR_E_FULL : (mir_status)why;
    }
    mir_tlog_live *full = writer->open;
    writer->open = spare;
    writer->position = MIR_TLOG_LOG_HEADER_BYTES;
    writer->sequence = 0;
    holders_rotate(writer);
    atomic_store_explicit(&writer->open_bytes, writer->position, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&writer->frozen_count, 1, memory_order_relaxed);
    full->next = atomic_load_explicit(&writer->frozen, memory_order_relaxed);
    /* Pairs with the acquire in jobs_collect: the log is complete. */
    while (!atomic_compare_exchange_weak_explicit(&writer->frozen, &full->next, full,
                                                  memory_order_release, memory_order_relaxed)) {
    }
    atomic_store_explicit(&writer->rotate_wanted, false, memory_order_relaxed);
    (void)sem_post(&writer->tlog->files_wake);
    writer->pressed = mir_tlog_pressed(writer);
    mir_tlog_seal_wanted(writer->tlog, writer->pressed);
    return MIR_OK;
}

/* ---- Commit ---- */

static mir_status stage_write(mir_tlog_writer *writer, mir_error *error)
{
    mir_tlog *tlog = writer->tlog;
    mir_tlog_live *live = writer->open;
    const size_t size = mir_tlog_log_frame(writer->staging, writer->staged, writer->staged_rows,
                                           writer->sequence, live->mem->generation);
    int result =
        mir_tlog_file_write(tlog->files, live->handle, writer->staging, size, writer->position);
    if (result < 0) return mir_error_os(error, -result, "write %s", live->path);
    if (tlog->options.sync_ms == 0) {
        result = tlog->files->sync(tlog->files->context, live->handle);
        if (result < 0) {
            mir_tlog_count(&tlog->sync_errors, 1);
            return mir_error_os(error, -result, "sync %s", live->path);
        }
    }
    const int64_t now = mir_clock_mono_ns();
    if (tlog->options.sync_ms != 0) {
        /* Pairs with the exchange of the sync thread: either it comes before this, and the next
         * round sees the mark, or after, and its sync includes the write above. */
        int64_t clean = 0;
        if (atomic_compare_exchange_strong_explicit(&live->dirty_ns, &clean, now,
                                                    memory_order_acq_rel, memory_order_acquire)) {
            (void)sem_post(&tlog->sync_wake);
        }
    }
    if (live->mem->rows == 0) atomic_store_explicit(&live->first_ns, now, memory_order_relaxed);
    writer->position += size;
    writer->sequence++;
    const bool had_room = !mir_tlog_wants_room(tlog, live);
    /* Release: who reads the log as far as this finds whole frames, and so in the log before. */
    atomic_store_explicit(&live->bytes, writer->position, memory_order_release);
    if (had_room && mir_tlog_wants_room(tlog, live)) (void)sem_post(&tlog->files_wake);
    atomic_store_explicit(&writer->open_bytes, writer->position, memory_order_relaxed);
    const bool pressed = mir_tlog_pressed(writer);
    if (pressed && !writer->pressed) mir_tlog_seal_wanted(tlog, true);
    writer->pressed = pressed;
    mir_tlog_count_own(&writer->bytes_appended, size);
    mir_tlog_count_own(&writer->commits, 1);
    return MIR_OK;
}

static void refused(mir_tlog_writer *writer, mir_status status, uint64_t rows)
{
    mir_tlog_count_own(&writer->refused[status], rows);
}

static void flush(mir_tlog_writer *writer)
{
    mir_error error;
    const mir_status status = stage_write(writer, &error);
    const bool written = status == MIR_OK;
    mir_tlog_mem_series *series = writer->touched;
    while (series != NULL) {
        mir_tlog_mem_series *next = series->turn_next;
        series->in_turn = false;
        if (written) {
            mir_tlog_mem_publish(series);
        } else {
            mir_tlog_mem_rollback(series);
            /* What named the series did not reach the log either. */
            series->logged = series->logged_before;
            series->columns_once = series->columns_once_before;
            series->columns_twice = series->columns_twice_before;
            if (series->shape->logged_turn == writer->turn) {
                series->shape->logged = series->shape->logged_before;
                series->shape->logged_turn = 0;
            }
        }
        series = next;
    }
    if (written) {
        writer->open->mem->rows += writer->staged_rows;
        mir_tlog_count_own(&writer->rows_accepted, writer->staged_rows);
    } else {
        const mir_status cause = status == MIR_E_NO_SPACE ? MIR_E_NO_SPACE : MIR_E_IO;
        refused(writer, cause, writer->staged_rows);
        mir_tlog_count_own(&writer->write_errors, 1);
        writer->turn_refused += writer->staged_rows;
        if (writer->turn_status == MIR_OK) writer->turn_status = cause;
        writer->refuse_until_ns = mir_clock_mono_ns() + RETRY_NS;
        writer->refuse_status = cause;
        mir_error_wrap(&error, "telemetry is refused because its log cannot be written (%s)",
                       cause == MIR_E_NO_SPACE ? "free disk space"
                                               : "check the disk; a log in memory is being saved");
        mir_tlog_trouble(writer->tlog, error.text);
        if (cause == MIR_E_IO) {
            atomic_store_explicit(&writer->rotate_wanted, true, memory_order_relaxed);
        }
    }
    writer->touched = NULL;
    writer->staged = 0;
    writer->staged_rows = 0;
    writer->turn++;
}

mir_status mir_tlog_commit_turn(mir_tlog_writer *writer, uint32_t *rows_refused)
{
    if (writer->staged > 0) flush(writer);
    if (!room_for_frame(writer) ||
        atomic_load_explicit(&writer->rotate_wanted, memory_order_relaxed)) {
        (void)rotate(writer); /* if not now, append asks again */
    }
    const mir_status status = writer->turn_status;
    if (rows_refused != NULL) *rows_refused = writer->turn_refused;
    writer->turn_status = MIR_OK;
    writer->turn_refused = 0;
    return status;
}

mir_status mir_tlog_freeze(mir_tlog_writer *writer)
{
    if (writer->staged > 0) flush(writer);
    return rotate(writer);
}

/* ---- Append ---- */

static uint8_t *put_cell(uint8_t *to, mir_column_type type, const mir_cell *cell)
{
    switch (type) {
    case MIR_COLUMN_I64: return mir_tlog_put_varint(to, mir_tlog_zigzag(cell->i64));
    case MIR_COLUMN_U64: return mir_tlog_put_varint(to, cell->u64);
    case MIR_COLUMN_F64: {
        uint64_t bits;
        memcpy(&bits, &cell->f64, sizeof bits);
        return mir_tlog_put_u64(to, bits);
    }
    case MIR_COLUMN_BOOL: *to = cell->boolean ? 1 : 0; return to + 1;
    case MIR_COLUMN_STRING:
        to = mir_tlog_put_varint(to, cell->string.size);
        if (cell->string.size > 0) memcpy(to, cell->string.data, cell->string.size);
        return to + cell->string.size;
    }
    return to;
}

/* How many fixed fields the row has. */
static uint32_t present_count(const mir_row *row)
{
    uint32_t count = 0;
    for (uint32_t word = 0; word * 64 < row->column_count; word++) {
        uint64_t bits = row->present[word];
        const uint32_t left = row->column_count - word * 64;
        if (left < 64) bits &= (UINT64_C(1) << left) - 1;
        count += (uint32_t)__builtin_popcountll(bits);
    }
    return count;
}

static uint64_t row_bytes_max(const mir_tlog_series *series, const mir_row *row)
{
    uint64_t size = series->fixed_bytes_max;
    if (series->has_strings) {
        for (uint32_t i = 0; i < row->column_count; i++) {
            if (series->types[i] == MIR_COLUMN_STRING && mir_row_is_present(row, i)) {
                size += row->cells[i].string.size;
            }
        }
    }
    for (uint32_t i = 0; i < row->dynamic_count; i++) {
        const mir_dynamic_cell *cell = &row->dynamic[i];
        size += 2 * MIR_TLOG_VARINT_BYTES_MAX;
        if (cell->type == MIR_COLUMN_STRING) size += cell->value.string.size;
    }
    return size;
}

/* Encodes at writer->scratch + 10 and puts size and flags in front; returns where it begins. */
static uint8_t *row_encode(mir_tlog_writer *writer, const mir_tlog_series *series,
                           const mir_row *row, bool full, uint32_t *size)
{
    uint8_t *start = writer->scratch + MIR_TLOG_VARINT_BYTES_MAX;
    const int64_t base = writer->open->mem->base_ns;
    uint8_t *to = mir_tlog_put_varint(
        start, mir_tlog_zigzag((int64_t)((uint64_t)row->time_ns - (uint64_t)base)));
    uint32_t flags = 0;
    if (full) {
        for (uint32_t i = 0; i < row->column_count; i++) {
            to = put_cell(to, (mir_column_type)series->types[i], &row->cells[i]);
        }
    } else {
        flags |= MIR_TLOG_ROW_SPARSE;
        uint8_t *bitmap = to;
        to += (row->column_count + 7) / 8;
        memset(bitmap, 0, (size_t)(to - bitmap));
        for (uint32_t i = 0; i < row->column_count; i++) {
            if (!mir_row_is_present(row, i)) continue;
            bitmap[i / 8] |= (uint8_t)(1u << (i % 8));
            to = put_cell(to, (mir_column_type)series->types[i], &row->cells[i]);
        }
    }
    if (row->dynamic_count > 0) {
        flags |= MIR_TLOG_ROW_EXTRAS;
        to = mir_tlog_put_varint(to, row->dynamic_count);
        for (uint32_t i = 0; i < row->dynamic_count; i++) {
            to = mir_tlog_put_varint(to, writer->extra_numbers[i]);
            to = put_cell(to, row->dynamic[i].type, &row->dynamic[i].value);
        }
    }
    const uint64_t head = (uint64_t)(to - start) << MIR_TLOG_ROW_FLAG_BITS | flags;
    uint8_t *first = start - mir_tlog_varint_size(head);
    (void)mir_tlog_put_varint(first, head);
    *size = (uint32_t)(to - first);
    return first;
}

static mir_status extras_number(mir_tlog_writer *writer, mir_tlog_mem_series *mem,
                                const mir_row *row)
{
    if (row->dynamic_count > 2 * MIR_TLOG_COLUMNS_MAX) return MIR_E_TOO_LARGE;
    for (uint32_t i = 0; i < row->dynamic_count; i++) {
        const mir_dynamic_cell *cell = &row->dynamic[i];
        if (cell->name.size == 0 || cell->type < MIR_COLUMN_I64 || cell->type > MIR_COLUMN_STRING) {
            return MIR_E_INVALID;
        }
        if (cell->name.size > MIR_TLOG_COLUMN_NAME_BYTES_MAX) return MIR_E_TOO_LARGE;
        const mir_status status = mir_tlog_mem_column(writer->open->mem, mem, cell->name,
                                                      cell->type, &writer->extra_numbers[i]);
        if (status != MIR_OK) return status;
    }
    return MIR_OK;
}

/* What of the series' names has to go with this row: each name goes into two frames. */
typedef struct naming {
    bool shape;
    bool series;
    uint32_t columns_first;
    size_t bytes;
} naming;

static naming naming_of(const mir_tlog_writer *writer, const mir_tlog_mem_series *mem)
{
    naming n = {0};
    const mir_tlog_shape *shape = mem->shape;
    n.shape = !mem->in_turn && shape->logged < 2 && shape->logged_turn != writer->turn;
    n.series = !mem->in_turn && mem->logged < 2;
    n.columns_first = mem->in_turn ? mem->columns_once : mem->columns_twice;
    if (n.shape) n.bytes += mir_tlog_log_shape_size(shape);
    if (n.series) n.bytes += mir_tlog_log_series_size(mem);
    n.bytes += mir_tlog_log_columns_size(mem, n.columns_first, mem->extra_count);
    return n;
}

static uint8_t *stage_names(mir_tlog_writer *writer, mir_tlog_mem_series *mem, const naming *n,
                            uint8_t *to)
{
    if (!mem->in_turn) {
        mem->in_turn = true;
        mem->turn_next = writer->touched;
        writer->touched = mem;
        mem->logged_before = mem->logged;
        mem->columns_once_before = mem->columns_once;
        mem->columns_twice_before = mem->columns_twice;
        mem->columns_twice = mem->columns_once;
    }
    if (n->shape) {
        mem->shape->logged_before = mem->shape->logged++;
        mem->shape->logged_turn = writer->turn;
        to = mir_tlog_log_put_shape(to, mem->shape);
    }
    if (n->series) {
        mem->logged++;
        to = mir_tlog_log_put_series(to, mem);
    }
    to = mir_tlog_log_put_columns(to, mem, n->columns_first, mem->extra_count);
    mem->columns_once = mem->extra_count;
    return to;
}

/* What nearly every row is: numbers alone, one in every column, of a series that the log knows, and
 * there is room. False: it is another one, and nothing is done. */
static bool append_plain(mir_tlog_writer *writer, mir_tlog_series *series, const mir_row *row)
{
    mir_tlog_mem_series *mem = series->mem;
    const uint64_t mask = series->plain_mask;
    const uint32_t bytes_max = series->fixed_bytes_max;
    if (mask == 0 || row->column_count != series->column_count || row->dynamic_count != 0 ||
        (row->present[0] & mask) != mask || writer->staged == 0 || writer->refuse_until_ns != 0 ||
        series->generation != writer->open->mem->generation || !mir_tlog_mem_fits(mem, bytes_max) ||
        writer->staging_capacity - writer->staged < bytes_max + MIR_TLOG_MEM_SLACK ||
        mem->extra_count != 0 || mem->logged < 2 || mem->shape->logged < 2 ||
        atomic_load_explicit(&writer->tlog->disk_low, memory_order_relaxed) ||
        over_share(writer, series)) {
        return false;
    }
    uint8_t *start = writer->scratch + MIR_TLOG_VARINT_BYTES_MAX;
    uint8_t *to = mir_tlog_put_varint_spread(
        start,
        mir_tlog_zigzag((int64_t)((uint64_t)row->time_ns - (uint64_t)writer->open->mem->base_ns)));
    for (uint32_t i = 0; i < series->column_count; i++) {
        const mir_cell *cell = &row->cells[i];
        switch (series->types[i]) {
        case MIR_COLUMN_I64: to = mir_tlog_put_varint_spread(to, mir_tlog_zigzag(cell->i64)); break;
        case MIR_COLUMN_U64: to = mir_tlog_put_varint_spread(to, cell->u64); break;
        case MIR_COLUMN_F64: to = mir_tlog_put_u64(to, cell->u64); break;
        default: *to++ = cell->boolean ? 1 : 0; break;
        }
    }
    const uint64_t head = (uint64_t)(to - start) << MIR_TLOG_ROW_FLAG_BITS;
    uint8_t *first = start - mir_tlog_varint_size(head);
    (void)mir_tlog_put_varint(first, head);
    const uint32_t size = (uint32_t)(to - first);
    mir_tlog_mem_put(mem, first, size, row->time_ns);
    mir_tlog_mem_seen(mem, NULL);
    uint8_t *staged = writer->staging + MIR_TLOG_FRAME_HEADER_BYTES + writer->staged;
    if (!mem->in_turn) (void)stage_names(writer, mem, &(naming){0}, staged);
    uint8_t *place = mir_tlog_put_varint_spread(staged, (uint64_t)mem->id << 1);
    mir_tlog_copy_loosely(place, first, size);
    const uint32_t more = (uint32_t)(place - staged) + size;
    hold(writer, series->holder, more);
    writer->staged += more;
    writer->staged_rows++;
    return true;
}

void mir_tlog_expect(const mir_tlog_series *series)
{
    const mir_tlog_mem_series *mem = series->mem;
    if (mem == NULL) return;
    __builtin_prefetch(mem, 1);
    __builtin_prefetch((const uint8_t *)mem + 64, 1);
}

static mir_status append(mir_tlog_writer *writer, mir_tlog_series *series, const mir_row *row)
{
    if (__builtin_expect(append_plain(writer, series, row), 1)) return MIR_OK;
    if (row->column_count != series->column_count) return MIR_E_INVALID;
    const uint32_t present = present_count(row);
    if (present == 0 && row->dynamic_count == 0) return MIR_E_INVALID;
    const uint64_t bytes_max = row_bytes_max(series, row);
    if (bytes_max > writer->staging_capacity) return MIR_E_TOO_LARGE;
    if (writer->refuse_until_ns != 0) {
        if (mir_clock_mono_ns() < writer->refuse_until_ns) return writer->refuse_status;
        writer->refuse_until_ns = 0;
    }
    if (__builtin_expect(atomic_load_explicit(&writer->tlog->disk_low, memory_order_relaxed), 0)) {
        return MIR_E_NO_SPACE;
    }
    if (over_share(writer, series)) {
        mir_tlog_count_own(&writer->refused_share, 1);
        return MIR_E_FULL;
    }
    mir_tlog_mem_series *mem;
    naming names;
    for (;;) {
        if (writer->staged == 0 && !room_for_frame(writer)) {
            const mir_status status = rotate(writer);
            if (status != MIR_OK) return status;
        }
        if (series->generation != writer->open->mem->generation) {
            const mir_status status = series_mem(writer, series);
            if (status != MIR_OK) return status;
        }
        mem = series->mem;
        if (row->dynamic_count > 0) {
            const mir_status status = extras_number(writer, mem, row);
            if (status != MIR_OK) return status;
        }
        names = naming_of(writer, mem);
        if (names.bytes + bytes_max <= writer->staging_capacity - writer->staged) break;
        if (writer->staged == 0) return MIR_E_TOO_LARGE;
        flush(writer);
        if (writer->turn_status != MIR_OK) return writer->turn_status;
    }
    uint32_t size;
    const uint8_t *bytes = row_encode(writer, series, row, present == row->column_count, &size);
    const mir_status status =
        mir_tlog_mem_append(writer->open->mem, mem, bytes, size, row->time_ns);
    if (status != MIR_OK) return status;
    mir_tlog_mem_seen(mem, present == row->column_count ? NULL : row->present);
    uint8_t *start = writer->staging + MIR_TLOG_FRAME_HEADER_BYTES;
    uint8_t *to = start + writer->staged;
    if (!mem->in_turn || mem->extra_count != mem->columns_once) {
        to = stage_names(writer, mem, &names, to);
    }
    to = mir_tlog_put_varint(to, (uint64_t)mem->id << 1);
    memcpy(to, bytes, size);
    const uint32_t staged = (uint32_t)(to + size - start);
    hold(writer, series->holder, staged - writer->staged);
    writer->staged = staged;
    writer->staged_rows++;
    return MIR_OK;
}

mir_status mir_tlog_append(mir_tlog_writer *writer, mir_tlog_series *series, const mir_row *row)
{
    const mir_status status = append(writer, series, row);
    if (__builtin_expect(status == MIR_OK, 1)) return MIR_OK;
    refused(writer, status, 1);
    if (status == MIR_E_FULL && !atomic_load_explicit(&writer->full_told, memory_order_relaxed)) {
        atomic_store_explicit(&writer->full_told, true, memory_order_relaxed);
        (void)sem_post(&writer->tlog->files_wake);
    }
    return status;
}
