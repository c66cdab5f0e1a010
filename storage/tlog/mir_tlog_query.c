/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>

#include "mir_hash.h"
#include "mir_tlog_internal.h"

/* Queries: for each device its rows are gathered from segments and memory, oldest source first, put
 * in order, averaged if a window is asked for; then the devices' rows are merged by time. */

enum {
    ROWS_MAX_DEFAULT = 10 * 1000 * 1000,
    BYTES_MAX_DEFAULT = 256 << 20,
    BATCH_ROWS = 512,
};

/* One device's part of the answer. Values of strings point into the version's memory or `arena`. */
typedef struct device_rows {
    uint32_t device; /* in the spec */
    uint32_t row_count;
    uint32_t column_count;
    uint32_t at; /* the next row to give out */
    int64_t *times;
    uint32_t *columns; /* their numbers in the answer */
    uint64_t *values;  /* column by column */
    uint8_t *present;
    mir_view *texts;
    mir_arena arena;
} device_rows;

/* Rows in memory that belong to the answer. */
typedef struct noted_rows {
    const mir_tlog_mem *mem;
    const mir_tlog_mem_series *series;
    uint32_t limit;
} noted_rows;

/* And in a segment. */
typedef struct noted_chunk {
    mir_tlog_segment *segment;
    mir_tlog_chunk chunk;
    uint32_t order;
} noted_chunk;

typedef struct query {
    mir_tlog *tlog;
    const mir_tlog_query_spec *spec;
    mir_tlog_query_info info;
    mir_tlog_version *version;
    mir_tlog_codec codec;
    mir_tlog_gather gather;
    mir_tlog_index_cursor *cursors; /* one for each segment of the version */
    mir_bytes chunk;
    noted_rows *noted;
    uint32_t noted_count;
    uint32_t noted_capacity;
    noted_chunk *chunks;
    uint32_t chunk_count;
    uint32_t chunk_capacity;
    uint64_t rows_max;
    uint64_t bytes_max;
    uint64_t bytes; /* of what is kept */
    uint64_t rows;
    uint32_t *order; /* devices by id, without doubles */
    uint32_t order_count;
    device_rows *parts;
    uint32_t part_count;
    /* The answer's columns, while they are collected. */
    mir_column *columns;
    uint32_t column_count;
    uint32_t column_capacity;
    uint32_t *slots;
    uint32_t slot_count;
    uint32_t *rank; /* place of each in the order of names */
    mir_error *error;
} query;

static int view_compare(mir_view a, mir_view b)
{
    const size_t size = a.size < b.size ? a.size : b.size;
    const int order = size == 0 ? 0 : memcmp(a.data, b.data, size);
    if (order != 0) return order;
    return a.size < b.size ? -1 : a.size > b.size;
}

static bool cancelled(const query *q)
{
    return q->spec->cancel != NULL && atomic_load_explicit(q->spec->cancel, memory_order_relaxed);
}

static mir_status no_memory(query *q)
{
    return mir_error_set(q->error, MIR_E_NO_MEMORY, "out of memory");
}

static mir_status too_large(query *q)
{
    return mir_error_set(q->error, MIR_E_TOO_LARGE,
                         "the answer is larger than %" PRIu64 " rows or %" PRIu64
                         " bytes: ask for a shorter time, fewer devices, fewer fields or a longer "
                         "window",
                         q->rows_max, q->bytes_max);
}

static mir_status keep(query *q, uint64_t bytes)
{
    if (bytes > q->bytes_max - q->bytes) return too_large(q);
    q->bytes += bytes;
    return MIR_OK;
}

/* ---- Columns of the answer ---- */

static mir_status answer_column(query *q, mir_view name, mir_column_type type, uint32_t *number)
{
    if (q->column_count * 2 >= q->slot_count) {
        const uint32_t slot_count = q->slot_count == 0 ? 64 : q->slot_count * 2;
        uint32_t *slots = calloc(slot_count, sizeof *slots);
        if (slots == NULL) return no_memory(q);
        for (uint32_t i = 0; i < q->column_count; i++) {
            const mir_column *column = &q->columns[i];
            uint32_t slot =
                ((uint32_t)mir_hash_bytes(column->name, column->name_size) + column->type) &
                (slot_count - 1);
            while (slots[slot] != 0) slot = (slot + 1) & (slot_count - 1);
            slots[slot] = i + 1;
        }
        free(q->slots);
        q->slots = slots;
        q->slot_count = slot_count;
    }
    uint32_t slot = ((uint32_t)mir_hash_view(name) + type) & (q->slot_count - 1);
    for (; q->slots[slot] != 0; slot = (slot + 1) & (q->slot_count - 1)) {
        const mir_column *column = &q->columns[q->slots[slot] - 1];
        if (column->type == type &&
            mir_view_eq(name, mir_view_of(column->name, column->name_size))) {
            *number = q->slots[slot] - 1;
            return MIR_OK;
        }
    }
    if (q->column_count == q->column_capacity) {
        const uint32_t capacity = q->column_capacity * 2 + 16;
        mir_column *more = realloc(q->columns, capacity * sizeof *more);
        if (more == NULL) return no_memory(q);
        q->columns = more;
        q->column_capacity = capacity;
    }
    /* Names live as long as the version: in a memtable or a segment's footer. */
    q->columns[q->column_count++] =
        (mir_column){(const char *)name.data, (uint32_t)name.size, type};
    q->slots[slot] = q->column_count;
    *number = q->column_count - 1;
    return MIR_OK;
}

static int column_compare(const void *a, const void *b)
{
    const mir_column *left = *(const mir_column *const *)a;
    const mir_column *right = *(const mir_column *const *)b;
    const int order = view_compare(mir_view_of(left->name, left->name_size),
                                   mir_view_of(right->name, right->name_size));
    return order != 0 ? order : (int)left->type - (int)right->type;
}

/* ---- Rows of one device ---- */

static mir_status gather_failed(query *q, mir_status status)
{
    if (status == MIR_E_TOO_LARGE) return too_large(q);
    if (status == MIR_E_NO_MEMORY) return no_memory(q);
    return mir_error_set(q->error, status, "reading rows: %s", mir_status_name(status));
}

static void damage(query *q)
{
    q->info.chunks_corrupt++;
    mir_tlog_count(&q->tlog->corrupt_chunks, 1);
}

/* Notes the chunks of a segment that may have rows of the answer. */
static mir_status segment_note(query *q, uint32_t number, mir_view device)
{
    mir_tlog_segment *segment = q->version->segments[number];
    if (segment->time_max < q->gather.time_first || segment->time_min > q->gather.time_last) {
        return MIR_OK;
    }
    mir_tlog_index_cursor *cursor = &q->cursors[number];
    cursor->segment = segment;
    const mir_status status = mir_tlog_index_find(cursor, &q->codec, q->spec->measurement, device);
    if (status == MIR_E_NOT_FOUND) return MIR_OK;
    if (status == MIR_E_CORRUPT || status == MIR_E_IO) {
        damage(q);
        return MIR_OK;
    }
    if (status != MIR_OK) return gather_failed(q, status);
    for (uint32_t i = 0; i < cursor->chunk_count; i++) {
        const mir_tlog_chunk *chunk = &cursor->chunks[i];
        if (chunk->time_max < q->gather.time_first || chunk->time_min > q->gather.time_last) {
            continue;
        }
        if (q->chunk_count == q->chunk_capacity) {
            const uint32_t capacity = q->chunk_capacity * 2 + 64;
            noted_chunk *more = realloc(q->chunks, capacity * sizeof *more);
            if (more == NULL) return no_memory(q);
            q->chunks = more;
            q->chunk_capacity = capacity;
        }
        q->chunks[q->chunk_count] = (noted_chunk){segment, *chunk, q->chunk_count};
        q->chunk_count++;
    }
    return MIR_OK;
}

static int noted_compare(const void *a, const void *b)
{
    const noted_chunk *left = a;
    const noted_chunk *right = b;
    if (left->chunk.generation != right->chunk.generation) {
        return left->chunk.generation < right->chunk.generation ? -1 : 1;
    }
    return left->order < right->order ? -1 : left->order > right->order;
}

static mir_status gather_chunk(query *q, const noted_chunk *noted)
{
    if (cancelled(q)) return mir_error_set(q->error, MIR_E_CANCELLED, "cancelled");
    q->chunk.size = 0;
    mir_status status = mir_tlog_chunk_read(noted->segment, &noted->chunk, &q->chunk);
    if (!mir_bytes_ok(&q->chunk)) mir_bytes_free(&q->chunk);
    if (status == MIR_OK) {
        status = mir_tlog_chunk_decode(&q->codec, mir_bytes_as_view(&q->chunk),
                                       &noted->segment->shapes[noted->chunk.shape], &q->gather);
    }
    if (status == MIR_E_CORRUPT || status == MIR_E_IO) {
        damage(q);
        return MIR_OK;
    }
    return status == MIR_OK ? MIR_OK : gather_failed(q, status);
}

/* Notes which rows of the device are in memory, newest log and series first: when a row is seen,
 * then so are all that were committed before it. */
static mir_status memory_note(query *q, mir_view device)
{
    q->noted_count = 0;
    for (uint32_t i = q->version->live_count; i > 0; i--) {
        const mir_tlog_mem *mem = q->version->lives[i - 1]->mem;
        for (const mir_tlog_mem_series *series =
                 mir_tlog_mem_find(mem, device, q->spec->measurement);
             series != NULL; series = mir_tlog_mem_find_before(series)) {
            const uint32_t limit = mir_tlog_mem_published(series);
            /* The times are at least as wide as the published rows'. */
            if (limit == 0 ||
                atomic_load_explicit(&series->time_min, memory_order_relaxed) >
                    q->gather.time_last ||
                atomic_load_explicit(&series->time_max, memory_order_relaxed) <
                    q->gather.time_first) {
                continue;
            }
            if (q->noted_count == q->noted_capacity) {
                const uint32_t capacity = q->noted_capacity * 2 + 16;
                noted_rows *more = realloc(q->noted, capacity * sizeof *more);
                if (more == NULL) return no_memory(q);
                q->noted = more;
                q->noted_capacity = capacity;
            }
            q->noted[q->noted_count++] = (noted_rows){mem, series, limit};
        }
    }
    return MIR_OK;
}

/* Chunks and memory in the order of generations, which is that of the series' rows. */
static mir_status gather_device(query *q, mir_view device)
{
    mir_status status = memory_note(q, device);
    q->chunk_count = 0;
    for (uint32_t i = 0; i < q->version->segment_count && status == MIR_OK; i++) {
        status = segment_note(q, i, device);
    }
    if (status != MIR_OK) return status;
    if (q->chunk_count > 1) qsort(q->chunks, q->chunk_count, sizeof *q->chunks, noted_compare);
    for (uint32_t i = 0; i <= q->chunk_count; i++) {
        const uint64_t generation =
            i == q->chunk_count ? UINT64_MAX : q->chunks[i].chunk.generation;
        while (q->noted_count > 0 && q->noted[q->noted_count - 1].mem->generation < generation) {
            const noted_rows *rows = &q->noted[--q->noted_count];
            status = mir_tlog_gather_mem(&q->gather, rows->mem, rows->series, rows->limit);
            if (status != MIR_OK) return gather_failed(q, status);
        }
        if (i < q->chunk_count) {
            status = gather_chunk(q, &q->chunks[i]);
            if (status != MIR_OK) return status;
        }
    }
    status = mir_tlog_gather_finish(&q->gather);
    return status == MIR_OK ? MIR_OK : gather_failed(q, status);
}

static mir_status part_new(query *q, uint32_t device, uint32_t rows, uint32_t columns,
                           device_rows **part)
{
    const uint64_t cells = (uint64_t)rows * columns;
    mir_status status = keep(q, (uint64_t)rows * 8 + cells * 9 + columns * 4u);
    if (status != MIR_OK) return status;
    device_rows *made = &q->parts[q->part_count++];
    *made = (device_rows){.device = device, .row_count = rows, .column_count = columns};
    made->times = malloc((size_t)rows * 8);
    made->columns = malloc((columns + 1) * sizeof *made->columns);
    made->values = malloc(cells * 8 + 1);
    made->present = malloc(cells + 1);
    if (made->times == NULL || made->columns == NULL || made->values == NULL ||
        made->present == NULL) {
        return no_memory(q);
    }
    *part = made;
    return MIR_OK;
}

static mir_status part_raw(query *q, uint32_t device)
{
    mir_tlog_gather *gather = &q->gather;
    device_rows *part;
    mir_status status = part_new(q, device, gather->row_count, gather->column_count, &part);
    if (status != MIR_OK) return status;
    q->rows += gather->row_count;
    if (q->rows > q->rows_max) return too_large(q);
    memcpy(part->times, gather->times, (size_t)gather->row_count * 8);
    bool strings = false;
    for (uint32_t i = 0; i < gather->column_count; i++) {
        const mir_tlog_gather_column *column = &gather->columns[i];
        status = answer_column(q, column->name, column->type, &part->columns[i]);
        if (status != MIR_OK) return status;
        memcpy(part->values + (size_t)i * part->row_count, column->values,
               (size_t)part->row_count * 8);
        memcpy(part->present + (size_t)i * part->row_count, column->present, part->row_count);
        if (column->type == MIR_COLUMN_STRING) strings = true;
    }
    if (!strings) return MIR_OK;
    /* The texts go with the part, and so does what they point into. */
    status = keep(q, gather->text_count * sizeof(mir_view) + gather->arena.bytes_used);
    if (status != MIR_OK) return status;
    part->texts = gather->texts;
    part->arena = gather->arena;
    gather->texts = NULL;
    gather->bytes -= (uint64_t)gather->text_capacity * sizeof(mir_view);
    gather->text_capacity = gather->text_count = 0;
    gather->arena = (mir_arena){0};
    return MIR_OK;
}

static double number_of(mir_column_type type, uint64_t bits)
{
    if (type == MIR_COLUMN_I64) return (double)(int64_t)bits;
    if (type == MIR_COLUMN_U64) return (double)bits;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The window that starts at or before the time; windows may begin before the earliest time. */
static __int128 window_start(int64_t time_ns, uint64_t window_ns)
{
    const __int128 time = time_ns;
    __int128 start = time / (__int128)window_ns * (__int128)window_ns;
    if (start > time) start -= (__int128)window_ns;
    return start;
}

static int64_t window_end(const query *q, __int128 start)
{
    const __int128 end = start + (__int128)q->spec->window_ns;
    return end < q->spec->to_ns ? (int64_t)end : q->spec->to_ns;
}

static mir_status part_window(query *q, uint32_t device)
{
    const mir_tlog_gather *gather = &q->gather;
    const uint64_t window_ns = q->spec->window_ns;
    uint32_t windows = 0;
    __int128 limit = 0;
    for (uint32_t row = 0; row < gather->row_count; row++) {
        if (row > 0 && gather->times[row] < limit) continue;
        limit = window_start(gather->times[row], window_ns) + (__int128)window_ns;
        windows++;
    }
    /* Columns of one name but different types are averaged together. */
    uint32_t *target = malloc((gather->column_count + 1) * sizeof *target);
    if (target == NULL) return no_memory(q);
    device_rows *part;
    mir_status status = part_new(q, device, windows, gather->column_count, &part);
    uint32_t column_count = 0;
    for (uint32_t i = 0; i < gather->column_count && status == MIR_OK; i++) {
        uint32_t number;
        status = answer_column(q, gather->columns[i].name, MIR_COLUMN_F64, &number);
        if (status != MIR_OK) break;
        uint32_t at = 0;
        while (at < column_count && part->columns[at] != number) at++;
        if (at == column_count) part->columns[column_count++] = number;
        target[i] = at;
    }
    double *sums = malloc((column_count + 1) * sizeof *sums);
    uint64_t *counts = malloc((column_count + 1) * sizeof *counts);
    if (status == MIR_OK && (sums == NULL || counts == NULL)) status = no_memory(q);
    q->rows += windows;
    if (status == MIR_OK && q->rows > q->rows_max) status = too_large(q);
    uint32_t out = 0;
    for (uint32_t first = 0; first < gather->row_count && status == MIR_OK; out++) {
        const __int128 start = window_start(gather->times[first], window_ns);
        memset(sums, 0, column_count * sizeof *sums);
        memset(counts, 0, column_count * sizeof *counts);
        uint32_t row = first;
        for (; row < gather->row_count && gather->times[row] < start + (__int128)window_ns; row++) {
            for (uint32_t i = 0; i < gather->column_count; i++) {
                const mir_tlog_gather_column *column = &gather->columns[i];
                if (column->present[row] == 0) continue;
                sums[target[i]] += number_of(column->type, column->values[row]);
                counts[target[i]]++;
            }
        }
        part->times[out] = window_end(q, start);
        for (uint32_t i = 0; i < column_count; i++) {
            const size_t cell = (size_t)i * windows + out;
            const double mean = counts[i] == 0 ? 0 : sums[i] / (double)counts[i];
            memcpy(&part->values[cell], &mean, sizeof mean);
            part->present[cell] = counts[i] != 0;
        }
        first = row;
    }
    if (status == MIR_OK) part->column_count = column_count;
    free(sums);
    free(counts);
    free(target);
    return status;
}

/* ---- Giving out ---- */

static bool part_before(const query *q, uint32_t a, uint32_t b)
{
    const device_rows *left = &q->parts[a];
    const device_rows *right = &q->parts[b];
    const int64_t left_time = left->times[left->at];
    const int64_t right_time = right->times[right->at];
    /* Parts are in the order of device ids. */
    return left_time != right_time ? left_time < right_time : a < b;
}

static void heap_down(const query *q, uint32_t *heap, uint32_t count, uint32_t at)
{
    for (;;) {
        uint32_t least = at;
        for (uint32_t child = 2 * at + 1; child <= 2 * at + 2 && child < count; child++) {
            if (part_before(q, heap[child], heap[least])) least = child;
        }
        if (least == at) return;
        const uint32_t other = heap[at];
        heap[at] = heap[least];
        heap[least] = other;
        at = least;
    }
}

static void row_out(const query *q, const device_rows *part, mir_cell *cells, uint8_t *present)
{
    memset(present, 0, q->column_count);
    for (uint32_t i = 0; i < part->column_count; i++) {
        const size_t from = (size_t)i * part->row_count + part->at;
        if (part->present[from] == 0) continue;
        const uint32_t to = q->rank[part->columns[i]];
        present[to] = 1;
        const uint64_t bits = part->values[from];
        switch (q->columns[part->columns[i]].type) {
        case MIR_COLUMN_I64: cells[to].i64 = (int64_t)bits; break;
        case MIR_COLUMN_U64: cells[to].u64 = bits; break;
        case MIR_COLUMN_F64: memcpy(&cells[to].f64, &bits, sizeof bits); break;
        case MIR_COLUMN_BOOL: cells[to].boolean = bits != 0; break;
        case MIR_COLUMN_STRING: cells[to].string = part->texts[bits]; break;
        }
    }
}

static mir_status columns_out(query *q, const mir_tlog_sink *sink)
{
    const mir_column **sorted = malloc(q->column_count * sizeof *sorted);
    mir_column *headers = malloc(q->column_count * sizeof *headers);
    q->rank = malloc(q->column_count * sizeof *q->rank);
    mir_status status = MIR_OK;
    if (sorted == NULL || headers == NULL || q->rank == NULL) {
        status = no_memory(q);
        goto out;
    }
    for (uint32_t i = 0; i < q->column_count; i++) sorted[i] = &q->columns[i];
    qsort(sorted, q->column_count, sizeof *sorted, column_compare);
    for (uint32_t i = 0; i < q->column_count; i++) {
        headers[i] = *sorted[i];
        q->rank[sorted[i] - q->columns] = i;
    }
    status = sink->columns(sink->context, headers, q->column_count);
out:
    free(sorted);
    free(headers);
    return status;
}

static mir_status rows_out(query *q, const mir_tlog_sink *sink)
{
    const size_t width = q->column_count;
    uint32_t *heap = malloc((q->part_count + 1) * sizeof *heap);
    int64_t *times = malloc(BATCH_ROWS * sizeof *times);
    uint32_t *devices = malloc(BATCH_ROWS * sizeof *devices);
    mir_cell *cells = calloc(BATCH_ROWS * width, sizeof *cells);
    uint8_t *present = malloc(BATCH_ROWS * width);
    mir_status status = MIR_OK;
    if (heap == NULL || times == NULL || devices == NULL || cells == NULL || present == NULL) {
        status = no_memory(q);
    }
    uint32_t count = 0;
    for (uint32_t i = 0; i < q->part_count && status == MIR_OK; i++) {
        if (q->parts[i].row_count > 0) heap[count++] = i;
    }
    for (uint32_t i = count / 2; i > 0 && status == MIR_OK; i--) heap_down(q, heap, count, i - 1);
    uint32_t filled = 0;
    while (status == MIR_OK && (count > 0 || filled > 0)) {
        if (count > 0) {
            device_rows *part = &q->parts[heap[0]];
            times[filled] = part->times[part->at];
            devices[filled] = part->device;
            row_out(q, part, cells + filled * width, present + filled * width);
            filled++;
            if (++part->at == part->row_count) heap[0] = heap[--count];
            heap_down(q, heap, count, 0);
        }
        if (filled == BATCH_ROWS || count == 0) {
            const mir_tlog_batch batch = {.row_count = filled,
                                          .column_count = (uint32_t)width,
                                          .times_ns = times,
                                          .devices = devices,
                                          .cells = cells,
                                          .present = present};
            status = cancelled(q) ? mir_error_set(q->error, MIR_E_CANCELLED, "cancelled")
                                  : sink->rows(sink->context, &batch);
            q->info.rows += filled;
            filled = 0;
        }
    }
    free(heap);
    free(times);
    free(devices);
    free(cells);
    free(present);
    return status;
}

/* ---- The query ---- */

typedef struct device_key {
    mir_view id;
    uint32_t number;
} device_key;

static int device_compare(const void *a, const void *b)
{
    const device_key *left = a;
    const device_key *right = b;
    const int order = view_compare(left->id, right->id);
    if (order != 0) return order;
    return left->number < right->number ? -1 : left->number > right->number;
}

static mir_status devices_order(query *q)
{
    const uint32_t count = q->spec->device_count;
    device_key *keys = malloc((count + 1) * sizeof *keys);
    q->order = malloc((count + 1) * sizeof *q->order);
    q->parts = calloc((size_t)count + 1, sizeof *q->parts);
    if (keys == NULL || q->order == NULL || q->parts == NULL) {
        free(keys);
        return no_memory(q);
    }
    for (uint32_t i = 0; i < count; i++) keys[i] = (device_key){q->spec->device_ids[i], i};
    if (count > 1) qsort(keys, count, sizeof *keys, device_compare);
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0 && mir_view_eq(keys[i].id, keys[i - 1].id)) continue;
        q->order[q->order_count++] = keys[i].number;
    }
    free(keys);
    return MIR_OK;
}

static mir_status query_run(query *q, const mir_tlog_sink *sink)
{
    mir_status status = devices_order(q);
    if (status != MIR_OK) return status;
    q->cursors = calloc(q->version->segment_count + 1, sizeof *q->cursors);
    if (q->cursors == NULL) return no_memory(q);
    mir_tlog_gather *gather = &q->gather;
    gather->fields = q->spec->fields;
    gather->field_count = q->spec->field_count;
    gather->numbers_only = q->spec->window_ns != 0;
    gather->time_first = q->spec->from_ns;
    gather->time_last = q->spec->to_ns - 1;
    for (uint32_t i = 0; i < q->order_count; i++) {
        if (cancelled(q)) return mir_error_set(q->error, MIR_E_CANCELLED, "cancelled");
        mir_tlog_gather_reset(gather);
        gather->bytes_max = q->bytes_max - q->bytes;
        if (gather->bytes_max == 0) return too_large(q);
        const uint32_t device = q->order[i];
        status = gather_device(q, q->spec->device_ids[device]);
        if (status == MIR_OK && gather->row_count > 0) {
            status = q->spec->window_ns == 0 ? part_raw(q, device) : part_window(q, device);
        }
        if (status != MIR_OK) return status;
    }
    q->info.rows_read = gather->rows_read;
    if (q->part_count == 0 || q->column_count == 0) return MIR_OK;
    status = columns_out(q, sink);
    return status == MIR_OK ? rows_out(q, sink) : status;
}

mir_status mir_tlog_query(mir_tlog *tlog, const mir_tlog_query_spec *spec,
                          const mir_tlog_sink *sink, mir_tlog_query_info *info, mir_error *error)
{
    if (info != NULL) *info = (mir_tlog_query_info){0};
    if (spec->from_ns >= spec->to_ns) {
        return mir_error_set(error, MIR_E_INVALID, "the start time is not before the end time");
    }
    query q = {.tlog = tlog, .spec = spec, .error = error};
    q.rows_max = spec->rows_max == 0 ? ROWS_MAX_DEFAULT : spec->rows_max;
    q.bytes_max = spec->bytes_max == 0 ? BYTES_MAX_DEFAULT : spec->bytes_max;
    mir_status status = mir_tlog_codec_init(&q.codec);
    if (status != MIR_OK) return no_memory(&q);
    status = mir_tlog_gather_init(&q.gather);
    if (status != MIR_OK) {
        mir_tlog_codec_fini(&q.codec);
        return no_memory(&q);
    }
    q.version = mir_tlog_version_acquire(tlog);
    status = query_run(&q, sink);
    if (info != NULL) *info = q.info;
    for (uint32_t i = 0; i < q.part_count; i++) {
        device_rows *part = &q.parts[i];
        free(part->times);
        free(part->columns);
        free(part->values);
        free(part->present);
        free(part->texts);
        mir_arena_free(&part->arena);
    }
    for (uint32_t i = 0; q.cursors != NULL && i < q.version->segment_count; i++) {
        mir_tlog_index_fini(&q.cursors[i]);
    }
    free(q.cursors);
    free(q.noted);
    free(q.chunks);
    free(q.parts);
    free(q.order);
    free(q.columns);
    free(q.slots);
    free(q.rank);
    mir_bytes_free(&q.chunk);
    mir_tlog_gather_fini(&q.gather);
    mir_tlog_codec_fini(&q.codec);
    mir_tlog_version_release(q.version);
    return status;
}

/* ---- Names ---- */

/* A set of names that live as long as a version. */
typedef struct name_set {
    mir_view *names;
    uint32_t count;
    uint32_t capacity;
    uint32_t *slots;
    uint32_t slot_count;
    bool failed;
} name_set;

static void name_add(name_set *set, mir_view name)
{
    if (set->failed) return;
    if (set->count * 2 >= set->slot_count) {
        const uint32_t slot_count = set->slot_count == 0 ? 64 : set->slot_count * 2;
        uint32_t *slots = calloc(slot_count, sizeof *slots);
        mir_view *names = realloc(set->names, slot_count * sizeof *names);
        if (names != NULL) set->names = names;
        if (slots == NULL || names == NULL) {
            free(slots);
            set->failed = true;
            return;
        }
        for (uint32_t i = 0; i < set->count; i++) {
            uint32_t at = (uint32_t)mir_hash_view(names[i]) & (slot_count - 1);
            while (slots[at] != 0) at = (at + 1) & (slot_count - 1);
            slots[at] = i + 1;
        }
        free(set->slots);
        set->slots = slots;
        set->slot_count = slot_count;
    }
    uint32_t at = (uint32_t)mir_hash_view(name) & (set->slot_count - 1);
    for (; set->slots[at] != 0; at = (at + 1) & (set->slot_count - 1)) {
        if (mir_view_eq(set->names[set->slots[at] - 1], name)) return;
    }
    set->names[set->count++] = name;
    set->slots[at] = set->count;
}

static int name_compare(const void *a, const void *b)
{
    return view_compare(*(const mir_view *)a, *(const mir_view *)b);
}

static mir_status names_out(name_set *set, mir_tlog_name_fn sink, void *context, mir_error *error)
{
    mir_status status = MIR_OK;
    if (set->failed) {
        status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    } else if (set->count > 1) {
        qsort(set->names, set->count, sizeof *set->names, name_compare);
    }
    for (uint32_t i = 0; i < set->count && status == MIR_OK; i++) {
        status = sink(context, set->names[i]);
    }
    free(set->names);
    free(set->slots);
    return status;
}

/* Series of one shape mostly have the same columns: one that was complete speaks for the rest. */
static void series_fields(name_set *set, const mir_tlog_mem_series *series,
                          const mir_tlog_shape **complete)
{
    const mir_tlog_shape *shape = series->shape;
    const bool all = atomic_load_explicit(&series->seen_all, memory_order_relaxed);
    for (uint32_t i = 0; i < shape->column_count && *complete != shape; i++) {
        if (all || (atomic_load_explicit(&series->seen[i / 64], memory_order_relaxed) >> (i % 64) &
                    1) != 0) {
            name_add(set, mir_view_of(shape->columns[i].name, shape->columns[i].name_size));
        }
    }
    if (all) *complete = shape;
    for (const mir_tlog_extra *extra = atomic_load_explicit(&series->extras, memory_order_acquire);
         extra != NULL; extra = atomic_load_explicit(&extra->next, memory_order_acquire)) {
        name_add(set, mir_view_of(extra->column.name, extra->column.name_size));
    }
}

mir_status mir_tlog_fields(mir_tlog *tlog, mir_view measurement, int64_t since_ns,
                           mir_tlog_name_fn sink, void *context, mir_error *error)
{
    name_set set = {0};
    mir_tlog_version *version = mir_tlog_version_acquire(tlog);
    for (uint32_t s = 0; s < version->segment_count; s++) {
        const mir_tlog_segment *segment = version->segments[s];
        for (uint32_t i = 0; i < segment->shape_count; i++) {
            const mir_tlog_segment_shape *shape = &segment->shapes[i];
            if (shape->time_max < since_ns ||
                !mir_view_eq(segment->measurements[shape->measurement], measurement)) {
                continue;
            }
            for (uint32_t c = 0; c < shape->column_count; c++) {
                name_add(&set, mir_view_of(shape->columns[c].name, shape->columns[c].name_size));
            }
        }
    }
    for (uint32_t l = 0; l < version->live_count; l++) {
        const mir_tlog_shape *complete = NULL;
        const mir_tlog_shape *known = NULL; /* one whose measurement was compared */
        bool wanted = false;
        for (const mir_tlog_mem_series *series =
                 atomic_load_explicit(&version->lives[l]->mem->all, memory_order_acquire);
             series != NULL; series = series->all_next) {
            if (series->shape != known) {
                known = series->shape;
                wanted = mir_view_eq(known->measurement, measurement);
            }
            if (!wanted || atomic_load_explicit(&series->published, memory_order_acquire) == 0 ||
                atomic_load_explicit(&series->time_max, memory_order_relaxed) < since_ns) {
                continue;
            }
            series_fields(&set, series, &complete);
        }
    }
    const mir_status status = names_out(&set, sink, context, error);
    mir_tlog_version_release(version);
    return status;
}

mir_status mir_tlog_measurements(mir_tlog *tlog, mir_tlog_name_fn sink, void *context,
                                 mir_error *error)
{
    name_set set = {0};
    mir_tlog_version *version = mir_tlog_version_acquire(tlog);
    for (uint32_t s = 0; s < version->segment_count; s++) {
        const mir_tlog_segment *segment = version->segments[s];
        for (uint32_t i = 0; i < segment->measurement_count; i++) {
            name_add(&set, segment->measurements[i]);
        }
    }
    for (uint32_t l = 0; l < version->live_count; l++) {
        const mir_tlog_shape *known = NULL;
        for (const mir_tlog_mem_series *series =
                 atomic_load_explicit(&version->lives[l]->mem->all, memory_order_acquire);
             series != NULL; series = series->all_next) {
            if (series->shape == known ||
                atomic_load_explicit(&series->published, memory_order_acquire) == 0) {
                continue;
            }
            known = series->shape;
            name_add(&set, known->measurement);
        }
    }
    const mir_status status = names_out(&set, sink, context, error);
    mir_tlog_version_release(version);
    return status;
}
